//! The decision, phase by phase.

use jiff::Timestamp;

use super::nodes::Failure;
use super::phases::{IllegalTransition, transition};
use super::plan::{Look, Observed, Plan, Reading, Seen, Serving, Signals, Silence};
use super::progress::going_on;
use super::rollback::waits_to_reach;
use crate::model::upgrade::{
    Event, GateStatus, Kept, NodePhase, NodeStatus, Phase, RollbackFor, Severity, StepAction, StepIntent,
    UpgradeStatus, Verdict, Wish,
};
use crate::model::values::{Digest, Duration};

/// What to write down and then to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The new status; durable before any effect starts.
    pub status: UpgradeStatus,
    /// What happened, to be told.
    pub events: Vec<Event>,
    /// Steps to make sure of; each is idempotent by its id.
    pub effects: Vec<StepEffect>,
    /// The build may not come here again, with the reason.
    pub quarantine: Option<String>,
    /// The build has proven itself here.
    pub verified: bool,
    /// When to decide again if nothing is seen to change before.
    pub wake_at: Option<Timestamp>,
}

/// A step that should be running on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEffect {
    /// Index of the node in the plan.
    pub node: usize,
    /// The step.
    pub intent: StepIntent,
}

/// Why nothing could be decided: the status and the rules contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// See [`IllegalTransition`].
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    /// The status was written for other nodes than the plan has.
    #[error(
        "the upgrade was begun on nodes {written:?}, its environment now has {planned:?}; put the list back, then end or abort \
         the upgrade before changing it"
    )]
    OtherNodes {
        /// Nodes of the status.
        written: Vec<String>,
        /// Nodes of the plan.
        planned: Vec<String>,
    },
    /// Resuming something that does not wait.
    #[error("the upgrade is {0:?}, nothing waits to be resumed")]
    NotHeld(Phase),
}

/// Phases entered in one moment at most: more than there are, so that the loop ends by itself unless the rules go in
/// circles.
const MAX_TURNS: usize = 16;

/// Decides what comes next. Pure: time is in `observed`, and equal arguments give equal decisions.
pub fn decide(plan: &Plan, status: &UpgradeStatus, observed: &Observed) -> Result<Decision, RolloutError> {
    if !status.nodes.is_empty() && !status.nodes.iter().map(|n| &n.name).eq(plan.nodes.iter()) {
        return Err(RolloutError::OtherNodes {
            written: status.nodes.iter().map(|n| n.name.clone()).collect(),
            planned: plan.nodes.clone(),
        });
    }
    let mut draft = Draft::new(plan, status.clone(), observed);
    draft.settle_steps();
    for _ in 0..MAX_TURNS {
        let before = draft.status.phase;
        draft.advance()?;
        if draft.status.phase == before || draft.status.phase.is_held() || draft.status.phase.is_final() {
            break;
        }
    }
    draft.note_gates();
    draft.note_progress();
    Ok(draft.finish())
}

/// Goes on after a hold: an operator's act. Tests that had decided start anew, on samples from now on.
pub fn resume(status: &UpgradeStatus, now: Timestamp) -> Result<UpgradeStatus, RolloutError> {
    if !status.phase.is_held() {
        return Err(RolloutError::NotHeld(status.phase));
    }
    let mut next = status.clone();
    let goes_on = status.resume_to.unwrap_or(Phase::Preflight);
    let retried = try_again(&mut next, goes_on);
    next.phase = transition(
        status.phase,
        match goes_on {
            // A soak only watches; what is tried again must first change.
            Phase::Soak if retried => Phase::Rolling,
            other => other,
        },
    )?;
    next.since = now;
    next.resume_to = None;
    "Resumed".clone_into(&mut next.reason);
    going_on(next.phase).clone_into(&mut next.message);
    for node in &mut next.nodes {
        node.since = now;
        node.attempts = 0;
        node.sick_since = None;
        if node.phase == NodePhase::Checked {
            // What was found long ago is looked at anew.
            node.phase = NodePhase::Waiting;
        }
        if node.analysed_since.is_some() {
            node.analysed_since = Some(now);
        }
    }
    if let Some(cure) = &mut next.cure {
        cure.since = now;
    }
    Ok(next)
}

/// Ends an upgrade that may not be begun. Nothing was touched.
pub fn refuse(
    status: &UpgradeStatus,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Result<UpgradeStatus, IllegalTransition> {
    if status.phase != Phase::Pending {
        return Err(IllegalTransition {
            from: status.phase,
            to: Phase::Failed,
        });
    }
    Ok(UpgradeStatus {
        phase: transition(status.phase, Phase::Failed)?,
        reason: reason.to_owned(),
        message: message.to_owned(),
        since: now,
        finished_at: Some(now),
        ..status.clone()
    })
}

/// Going on after a hold tries the nodes again that were given up before: who goes on has mended them. True if there
/// were any.
fn try_again(status: &mut UpgradeStatus, goes_on: Phase) -> bool {
    let changes_nodes = matches!(goes_on, Phase::Rolling | Phase::Soak | Phase::RollingBack);
    let mut any = false;
    for node in &mut status.nodes {
        if changes_nodes && matches!(node.phase, NodePhase::Removing | NodePhase::OutOfService) {
            node.phase = NodePhase::Waiting;
            node.trouble = None;
            node.attempts = 0;
            any = true;
        }
    }
    if any {
        // The cure is to be proven of these, too.
        status.cure = None;
    }
    any
}

/// A step that ended, and how.
pub(super) struct Ended {
    pub(super) intent: StepIntent,
    pub(super) result: Result<(), Failure>,
}

impl Ended {
    /// Whether nobody can see on the node that it was done. A check is made anew whenever it is asked for.
    fn leaves_no_trace(&self) -> bool {
        let is_seen = match self.intent.action {
            StepAction::Drain | StepAction::Warm | StepAction::Admit => false,
            StepAction::Check | StepAction::Install | StepAction::Activate | StepAction::Restart => true,
        };
        self.result.is_ok() && !is_seen
    }
}

/// A status being rewritten.
pub(super) struct Draft<'a> {
    pub(super) plan: &'a Plan,
    pub(super) seen: &'a Observed,
    pub(super) status: UpgradeStatus,
    pub(super) events: Vec<Event>,
    pub(super) effects: Vec<StepEffect>,
    /// The step that ended in this look, a node.
    pub(super) ended: Vec<Option<Ended>>,
    /// A node that serves must go out and has no place yet: it gets the next one, before any batch.
    pub(super) place_owed: bool,
    /// Nodes out of service, for whatever reason; kept in step with the draft.
    pub(super) out: usize,
    pub(super) quarantine: Option<String>,
    pub(super) verified: bool,
    /// Whether a node was under test when this look came, whatever was made of it since.
    was_under_test: Vec<bool>,
    wake_at: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    fn new(plan: &'a Plan, status: UpgradeStatus, seen: &'a Observed) -> Self {
        let mut draft = Draft {
            plan,
            seen,
            status,
            events: Vec::new(),
            effects: Vec::new(),
            ended: plan.nodes.iter().map(|_| None).collect(),
            place_owed: false,
            out: 0,
            quarantine: None,
            verified: false,
            was_under_test: Vec::new(),
            wake_at: None,
        };
        if draft.status.nodes.is_empty() {
            draft.status.nodes = plan.nodes.iter().map(|name| fresh_node(name, seen.now)).collect();
        }
        for (node, view) in draft.status.nodes.iter_mut().zip(&seen.nodes) {
            if let Look::Seen(s) = &view.look {
                node.build = s.running;
                if node.workload.is_none() && s.held_by.as_ref() == Some(&plan.upgrade) {
                    node.workload.clone_from(&s.workload);
                }
            }
        }
        draft.out = (0..plan.nodes.len()).filter(|&i| draft.is_out(i)).count();
        draft.was_under_test = (0..plan.nodes.len()).map(|i| draft.under_test(i)).collect();
        draft
    }

    fn finish(self) -> Decision {
        let Draft {
            mut status,
            events,
            mut effects,
            ended,
            quarantine,
            verified,
            wake_at,
            ..
        } = self;
        if status.phase.is_final() {
            effects.clear();
        } else {
            for (node, ended) in status.nodes.iter_mut().zip(ended) {
                node.ended = ended.filter(Ended::leaves_no_trace).map(|ended| ended.intent);
            }
        }
        Decision {
            status,
            events,
            effects,
            quarantine,
            verified,
            wake_at,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.seen.now
    }

    pub(super) fn node(&self, i: usize) -> &NodeStatus {
        &self.status.nodes[i]
    }

    pub(super) fn node_mut(&mut self, i: usize) -> &mut NodeStatus {
        &mut self.status.nodes[i]
    }

    pub(super) fn seen(&self, i: usize) -> Option<&'a Seen> {
        match self.look(i) {
            Look::Seen(s) => Some(s),
            Look::NotYet | Look::Unreachable { .. } | Look::Foreign { .. } => None,
        }
    }

    pub(super) fn look(&self, i: usize) -> &'a Look {
        &self.seen.nodes[i].look
    }

    /// That who speaks for a node, and for others with it, refused or did not answer, and what was heard.
    pub(super) fn unserved(&self, i: usize) -> Option<&'a str> {
        match self.look(i) {
            Look::Unreachable {
                why,
                of: Silence::Speaker,
            } => Some(why),
            Look::Unreachable {
                of: Silence::Node | Silence::Refusal,
                ..
            }
            | Look::NotYet
            | Look::Foreign { .. }
            | Look::Seen(_) => None,
        }
    }

    /// Whether what was asked of a node last was not begun there, or, for all that was heard, may not have been.
    pub(super) fn is_refused(&self, i: usize) -> bool {
        match self.look(i) {
            Look::Unreachable { of, .. } => match of {
                Silence::Speaker | Silence::Refusal => true,
                Silence::Node => false,
            },
            Look::NotYet | Look::Foreign { .. } | Look::Seen(_) => false,
        }
    }

    pub(super) fn signals(&self, i: usize) -> &'a Signals {
        &self.seen.nodes[i].signals
    }

    /// Out of service: taken out by us, or not proven to answer.
    pub(super) fn is_out(&self, i: usize) -> bool {
        self.node(i).drained || self.signals(i).serving != Serving::Yes
    }

    /// Takes a node out of traffic; I1 is asked before, by [`Draft::may_take_out`].
    pub(super) fn take_out(&mut self, i: usize) {
        if !self.is_out(i) {
            self.out += 1;
        }
        let node = self.node_mut(i);
        node.drained = true;
        node.analysed_since = None;
    }

    /// Known not to serve. A node whose probes have not spoken yet is out when others are counted, and in service when
    /// it is to be taken out itself: not knowing is never a licence.
    pub(super) fn is_known_out(&self, i: usize) -> bool {
        self.node(i).drained || self.signals(i).serving == Serving::No
    }

    /// I1: with this node, at most `maxUnavailable` are out; a node that is already out costs nothing, nor does a canary.
    pub(super) fn may_take_out(&self, i: usize) -> bool {
        let order = self.plan.policy.order;
        // On the way forward nothing follows a canary that is out. On the way back it may stay so, and the others go all the same.
        let is_beside = |j: usize| j != i && self.status.phase == Phase::RollingBack && order.is_canary(j);
        let beside = (0..self.plan.nodes.len()).filter(|&j| is_beside(j) && self.is_out(j));
        let others = self.out - usize::from(self.is_out(i)) - beside.count();
        order.is_canary(i) || self.is_known_out(i) || others < self.plan.policy.max_unavailable
    }

    pub(super) fn put_back(&mut self, i: usize) {
        self.node_mut(i).drained = false;
        if !self.is_out(i) {
            self.out = self.out.saturating_sub(1);
        }
    }

    pub(super) fn tell(&mut self, severity: Severity, reason: &str, node: Option<usize>, message: String) {
        self.events.push(Event {
            at: self.seen.now,
            reason: reason.to_owned(),
            severity,
            node: node.map(|i| self.plan.nodes[i].clone()),
            message,
        });
    }

    pub(super) fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }

    /// The age that makes a call bad, the longest of all gates.
    pub(super) fn longest_age(&self) -> Duration {
        self.plan.gates.iter().map(|g| g.age).max().unwrap_or_default()
    }

    /// True once we have watched for `length` since `since`; else makes sure that we look again then.
    pub(super) fn passed(&mut self, since: Timestamp, length: Duration) -> bool {
        let since = since.max(self.seen.watching_since);
        let end = since.saturating_add(length.signed()).unwrap_or(Timestamp::MAX);
        if self.now() >= end {
            return true;
        }
        self.wake_by(end);
        false
    }

    pub(super) fn enter(&mut self, phase: Phase, reason: &str, message: String) -> Result<(), RolloutError> {
        self.status.phase = transition(self.status.phase, phase)?;
        self.status.since = self.now();
        reason.clone_into(&mut self.status.reason);
        self.status.message.clone_from(&message);
        if self.status.started_at.is_none() {
            self.status.started_at = Some(self.now());
        }
        if phase.is_final() {
            self.status.finished_at = Some(self.now());
            // In one write with the end, so that whoever comes after a driver that was killed here finds it to be done.
            self.status.kept = self.has_taken().then(Kept::default);
        }
        let severity = match phase {
            Phase::RollingBack
            | Phase::RolledBack
            | Phase::RollbackIneffective
            | Phase::Paused
            | Phase::Inconclusive
            | Phase::Failed
            | Phase::Errored => Severity::Alert,
            // An end that leaves nodes behind needs somebody.
            Phase::Succeeded | Phase::Aborted if self.left_behind().is_some() => Severity::Alert,
            Phase::Pending
            | Phase::Preflight
            | Phase::Baseline
            | Phase::Rolling
            | Phase::Soak
            | Phase::Succeeded
            | Phase::Aborted => Severity::Step,
        };
        self.tell(severity, &format!("{phase:?}"), None, message);
        Ok(())
    }

    /// Something was asked of a workload, which is its upgrade's from the first step on.
    fn has_taken(&self) -> bool {
        let mut nodes = self.status.nodes.iter();
        nodes.any(|node| node.steps > 0 && self.plan.pods.contains(&node.name))
    }

    /// Holds, to go on later with the present phase.
    pub(super) fn hold(&mut self, phase: Phase, reason: &str, message: String) -> Result<(), RolloutError> {
        self.status.resume_to = Some(self.status.phase);
        self.enter(phase, reason, message)
    }

    fn advance(&mut self) -> Result<(), RolloutError> {
        let phase = self.status.phase;
        if phase.is_final() {
            return Ok(());
        }
        self.note_rules();
        self.note_lost();
        self.note_foreign_edit();
        if waits_to_reach(&self.status) {
            return self.reach_again();
        }
        match self.seen.wish {
            Wish::Proceed => {}
            Wish::Abort if phase == Phase::RollingBack => {}
            Wish::Abort if phase.is_held() && self.status.resume_to == Some(Phase::RollingBack) => {
                try_again(&mut self.status, Phase::RollingBack);
                self.status.resume_to = None;
                let now = self.now();
                for node in &mut self.status.nodes {
                    node.since = now;
                }
                let (reason, message) = self.seen.wished_by.aborts();
                return self.enter(Phase::RollingBack, reason, message.to_owned());
            }
            Wish::Abort => {
                let (reason, message) = self.seen.wished_by.aborts();
                return self.begin_rollback(RollbackFor::Abort, None, reason, message.to_owned());
            }
            Wish::Pause | Wish::TimeUp if phase.is_held() => return Ok(()),
            Wish::Pause | Wish::TimeUp => {
                if self.steps_awaited() {
                    self.keep_steps();
                    return Ok(());
                }
                let (reason, message) = if self.seen.wish == Wish::TimeUp {
                    (
                        "TimedOut",
                        "it was not done within the `--timeout` of its command; nobody decided against it, and `resume` goes on",
                    )
                } else {
                    ("ByUser", "an operator asked for it; `resume` goes on")
                };
                return self.hold(Phase::Paused, reason, message.to_owned());
            }
        }
        let message = match (self.any_lost_workload(), self.foreign_edit()) {
            (Some(lost), _) => Some(format!("{lost}, so it cannot go on here; `abort` ends it")),
            (None, Some(edit)) => Some(format!(
                "{edit}; put it back, if it can be, and `resume`; or `abort`, which goes back over it"
            )),
            (None, None) => None,
        };
        if let Some(message) = message
            && matches!(phase, Phase::Baseline | Phase::Rolling | Phase::Soak)
        {
            if self.steps_awaited() {
                self.keep_steps();
                return Ok(());
            }
            return self.hold(Phase::Paused, "ForeignEdit", message);
        }
        match phase {
            Phase::Pending => {
                let message = format!(
                    "{}@{}: looking at {} nodes",
                    self.plan.component,
                    self.plan.version,
                    self.plan.nodes.len()
                );
                self.status.to = Some(self.plan.release);
                self.enter(Phase::Preflight, "Begun", message)
            }
            Phase::Preflight => self.preflight(),
            Phase::Baseline => self.baseline(),
            Phase::Rolling => self.rolling(),
            Phase::Soak => self.soak(),
            Phase::RollingBack => self.rolling_back(),
            Phase::Paused
            | Phase::Inconclusive
            | Phase::Succeeded
            | Phase::RolledBack
            | Phase::RollbackIneffective
            | Phase::Aborted
            | Phase::Failed
            | Phase::Errored => Ok(()),
        }
    }

    /// What has become of the workload that a node is a pod of, if it is not this upgrade's any more.
    pub(super) fn lost_workload(&self, i: usize) -> Option<String> {
        let (node, seen) = (self.node(i), self.seen(i)?);
        // What was not asked for anything yet has nothing to lose.
        let known = node.workload.as_ref()?;
        let what = match &seen.held_by {
            _ if seen.workload.is_none() => "it was deleted since the upgrade began".to_owned(),
            _ if seen.workload.as_ref() != Some(known) => {
                "it was made anew since the upgrade began, and nothing of the upgrade is there".to_owned()
            }
            Some(by) if *by == self.plan.upgrade => return None,
            Some(by) => format!("upgrade {by} has it by now"),
            None => "nothing is remembered there of the upgrade: its annotation stagegate.dev/rolling was taken out"
                .to_owned(),
        };
        Some(format!("the workload of {}: {what}", self.plan.nodes[i]))
    }

    fn any_lost_workload(&self) -> Option<String> {
        (0..self.plan.nodes.len()).find_map(|i| self.lost_workload(i))
    }

    /// What somebody else has made of a node meanwhile. What is judged then is not what was meant to be.
    pub(super) fn foreign_edit(&self) -> Option<&'a str> {
        let mut seen = (0..self.plan.nodes.len()).filter_map(|i| self.seen(i));
        seen.find_map(|seen| seen.foreign_edit.as_deref())
    }

    /// The way back goes over what somebody else has made of a node, and not unseen.
    fn note_foreign_edit(&mut self) {
        // Of what is not remembered nothing is gone over.
        let Some(edit) = self.foreign_edit().filter(|_| self.any_lost_workload().is_none()) else {
            return;
        };
        if self.status.phase == Phase::RollingBack && self.status.overwrote.as_deref() != Some(edit) {
            self.status.overwrote = Some(edit.to_owned());
            let message = format!("{edit}; the way back goes over it");
            self.tell(Severity::Alert, "ForeignEditOverwritten", None, message);
        }
    }

    /// Who changes the rules under way is free to, and does not do it unseen.
    fn note_rules(&mut self) {
        let rules = Some(self.plan.rules);
        if self.status.rules == rules {
            return;
        }
        if self.status.rules.is_some() {
            self.tell(
                Severity::Alert,
                "RulesChanged",
                None,
                "what the environment says of this component has changed since the upgrade began; it goes on by what is said now"
                    .to_owned(),
            );
        }
        self.status.rules = rules;
    }

    /// The status has a line for each reading of this look and no other: most looks find it so.
    fn gates_stand_in_order(&self) -> bool {
        let written = self.status.gates.iter().map(|g| (g.node.as_str(), g.name.as_str()));
        let names = readings(self.plan, self.seen).map(|(i, gate, _)| (self.plan.nodes[i].as_str(), gate));
        written.eq(names)
    }

    fn note_gates_in_place(&mut self) {
        let mut gates = std::mem::take(&mut self.status.gates);
        for (gate, (i, _, reading)) in gates.iter_mut().zip(readings(self.plan, self.seen)) {
            note_reading(gate, self.failed_on(i, reading), reading);
        }
        self.status.gates = gates;
    }

    /// The build that a failure on a node is of: the one that it runs, or is to run where its service is gone. Only failures
    /// outlive a change of builds, so only they carry it.
    fn failed_on(&self, i: usize, reading: &Reading) -> Option<Digest> {
        if reading.verdict != Verdict::Fail {
            return None;
        }
        let node = self.node(i);
        let expected = if self.was_under_test[i] {
            Some(self.plan.release)
        } else {
            node.from
        };
        node.build.or(expected)
    }

    /// Keeps who blocks whom as evidence, and says of the longest queue what to look at first.
    pub(super) fn note_blockers(&mut self) -> String {
        // A row that is held in turns is free at times: what was seen stands until something else is.
        if !self.seen.blockers.is_empty() {
            self.status.blockers.clone_from(&self.seen.blockers);
        }
        let longest = self.status.blockers.iter().max_by_key(|b| b.waiting.len());
        longest.map_or_else(String::new, |blocker| format!("; {blocker}"))
    }

    /// Writes the readings into the status, for people; what they led to has been decided already.
    fn note_gates(&mut self) {
        if self.status.phase.is_final() && self.status.rollback_for.is_none() && self.status.phase != Phase::Succeeded {
            return;
        }
        // A failure that began a rollback stays in the record while the cure is proven beside it.
        let keep_failures = self.status.rollback_for.is_some();
        if !keep_failures && self.gates_stand_in_order() {
            return self.note_gates_in_place();
        }
        let kept: Vec<GateStatus> = if keep_failures {
            self.status
                .gates
                .iter()
                .filter(|g| g.verdict == Verdict::Fail)
                .cloned()
                .collect()
        } else {
            Vec::new()
        };
        let mut gates = Vec::new();
        for i in 0..self.plan.nodes.len() {
            for (gate, r) in self.plan.gates.iter().zip(&self.signals(i).readings) {
                if kept.iter().any(|k| k.name == gate.name && k.node == self.plan.nodes[i]) {
                    continue;
                }
                gates.push(self.gate_status(i, &gate.name, r));
            }
        }
        gates.extend(kept);
        if !gates.is_empty() {
            self.status.gates = gates;
        }
    }

    /// What the status says of a gate on a node.
    pub(super) fn gate_status(&self, i: usize, gate: &str, reading: &Reading) -> GateStatus {
        let mut status = GateStatus {
            name: gate.to_owned(),
            node: self.plan.nodes[i].clone(),
            build: None,
            verdict: reading.verdict,
            reason: String::new(),
            onset_at: None,
            decided_at: None,
            evidence: None,
        };
        note_reading(&mut status, self.failed_on(i, reading), reading);
        status
    }
}

/// In place: most texts are as long as before, and there are many.
fn note_reading(gate: &mut GateStatus, build: Option<Digest>, reading: &Reading) {
    let Reading {
        verdict,
        reason,
        bad: _,
        last_bad_at: _,
        onset_at,
        decided_at,
        evidence,
        blind: _,
    } = reading;
    gate.build = build;
    gate.verdict = *verdict;
    gate.reason.clone_from(reason);
    gate.onset_at = *onset_at;
    gate.decided_at = *decided_at;
    gate.evidence.clone_from(evidence);
}

/// Every reading of an observation: number of the node, gate, reading.
fn readings<'a>(plan: &'a Plan, seen: &'a Observed) -> impl Iterator<Item = (usize, &'a str, &'a Reading)> {
    let nodes = seen.nodes.iter().take(plan.nodes.len()).enumerate();
    nodes.flat_map(|(i, view)| {
        let gates = plan.gates.iter().zip(&view.signals.readings);
        gates.map(move |(gate, reading)| (i, gate.name.as_str(), reading))
    })
}

fn fresh_node(name: &str, now: Timestamp) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        address: String::new(),
        build: None,
        from: None,
        phase: NodePhase::Waiting,
        since: now,
        step: None,
        ended: None,
        drained: false,
        workload: None,
        in_batch: false,
        served: false,
        lost: None,
        sick_since: None,
        analysed_since: None,
        installs: 0,
        restarts: 0,
        rollback_installs: 0,
        rollback_restarts: 0,
        steps: 0,
        attempts: 0,
        trouble: None,
    }
}

//! The way back, and the proof that it cured what it was for.

use super::blame::IMAGE_PULL;
use super::decide::{Draft, RolloutError};
use super::nodes::Progress;
use super::plan::Look;
use super::progress::going_on;
use crate::model::upgrade::{
    Cause, Cure, NodePhase, NodeStatus, Phase, RollbackFor, Severity, UpgradeStatus, Verdict, Wish,
};

/// The reason of a way back that is held because nobody can be reached.
pub const NOBODY_REACHED: &str = "NobodyReached";

/// Whether it is held for as long as nobody can be reached, or no machine gets the image from before, and needs nobody's word to go on after
/// that.
#[must_use]
pub fn waits_to_reach(status: &UpgradeStatus) -> bool {
    let is_awaited = [NOBODY_REACHED, IMAGE_PULL].contains(&status.reason.as_str());
    status.phase == Phase::Paused && is_awaited && status.resume_to == Some(Phase::RollingBack)
}

/// Restarts of a node on its way back after which a service that ends again while the cure is proven is left to its gates.
const RESTARTS: u32 = 2;

impl Draft<'_> {
    pub(super) fn begin_rollback(
        &mut self,
        why: RollbackFor,
        gate: Option<String>,
        reason: &str,
        message: String,
    ) -> Result<(), RolloutError> {
        // Without a look at the node only what was never begun counts as untouched.
        let untouched = |d: &Self, i: usize| {
            let n = d.node(i);
            let same = match d.seen(i) {
                Some(s) => s.current == n.from && s.running == n.from,
                None => matches!(n.phase, NodePhase::Waiting | NodePhase::Install),
            };
            let early = matches!(
                n.phase,
                NodePhase::Waiting | NodePhase::Install | NodePhase::Drain | NodePhase::Done
            );
            // An install that was begun ahead of its turn ends beside what serves.
            let idle = n.step.is_none() || n.phase == NodePhase::Waiting;
            idle && !n.drained && same && early
        };
        let early = matches!(self.status.phase, Phase::Pending | Phase::Preflight | Phase::Baseline)
            || self.status.phase.is_held()
                && matches!(
                    self.status.resume_to,
                    Some(Phase::Pending | Phase::Preflight | Phase::Baseline)
                );
        let all_untouched = (0..self.plan.nodes.len()).all(|i| untouched(self, i));
        // A check that still runs changes nothing, and ends by its own deadline.
        let all_idle = self.status.nodes.iter().all(|n| n.step.is_none());
        if early || why == RollbackFor::Abort && all_untouched && all_idle && self.status.phase != Phase::Soak {
            return self.enter(Phase::Aborted, reason, format!("{message}; no node had changed"));
        }
        self.status.cause = Some(Cause {
            reason: reason.to_owned(),
            message: message.clone(),
            at: self.now(),
        });
        if why == RollbackFor::BadBuild {
            self.quarantine = Some(message.clone());
        }
        let mut touched = (0..self.plan.nodes.len()).filter(|&i| !untouched(self, i));
        let homeless = touched.clone().find(|&i| self.node(i).from.is_none());
        if let Some(i) = homeless
            && touched.all(|i| self.node(i).from.is_none())
        {
            let message = format!(
                "{message}; {} ran no build before, so there is nothing to go back to",
                self.plan.nodes[i]
            );
            return self.enter(Phase::Failed, reason, message);
        }
        let now = self.now();
        for i in 0..self.plan.nodes.len() {
            let stays = untouched(self, i);
            let node = self.node_mut(i);
            node.in_batch = false;
            node.attempts = 0;
            node.since = now;
            node.phase = if stays { NodePhase::Done } else { NodePhase::Waiting };
        }
        self.status.rollback_for = Some(why);
        self.status.failed_gate = gate;
        self.status.resume_to = None;
        self.enter(Phase::RollingBack, reason, message)
    }

    pub(super) fn rolling_back(&mut self) -> Result<(), RolloutError> {
        let n = self.plan.nodes.len();
        // An install that was begun ahead is waited for by the end, and by nothing else.
        for i in 0..n {
            if self.node(i).phase == NodePhase::Done {
                self.keep_step(i);
            }
        }
        // What is seen decides, not what was once done: a node that has left its old build goes back (again).
        for i in 0..n {
            let strayed = self.node(i).from.is_some()
                && self
                    .seen(i)
                    .is_some_and(|s| s.current != self.node(i).from || s.running != self.node(i).from);
            // While the cure is proven a service that does not stay up is a finding, not something to start for ever.
            let again = self.status.cure.is_none() || self.node(i).rollback_restarts < RESTARTS;
            let again = again && self.lost_workload(i).is_none();
            if self.node(i).phase == NodePhase::Done && strayed && again {
                self.enter_phase(i, NodePhase::Waiting);
                self.status.cure = None;
            }
        }
        if self.status.cure.is_some() {
            return self.prove_cure();
        }
        for i in 0..n {
            if self.node(i).phase == NodePhase::Waiting && self.node(i).from.is_none() {
                self.leave_behind(i, "it ran no build before, so there is nothing to go back to");
            }
        }
        for i in 0..n {
            if self.node(i).phase == NodePhase::Waiting || self.node(i).in_batch {
                self.settle_what_is_lost(i);
            }
        }
        // The sick first, all of them: acting on a node that is already out costs nothing.
        for i in 0..n {
            if self.node(i).phase == NodePhase::Waiting && self.is_known_out(i) {
                self.start_node(i);
            }
        }
        for i in 0..n {
            if self.node(i).phase == NodePhase::Waiting && self.may_take_out(i) {
                // Counted at once, so that two of them never use the same place.
                self.take_out(i);
                self.start_node(i);
            }
        }
        let mut open = false;
        for i in 0..n {
            if self.node(i).in_batch {
                match self.backward(i) {
                    Progress::Done => {}
                    Progress::Working => {
                        open = true;
                        let since = self.node(i).since;
                        if let Look::Unreachable { why, .. } = self.look(i)
                            && self.passed(since, self.plan.policy.patience)
                        {
                            if self.reaches_nobody(i) {
                                return self.hold_unreached(i, why);
                            }
                            self.leave_behind(i, &format!("it cannot be reached: {why}"));
                            open = self.status.nodes.iter().any(|n| n.in_batch);
                        }
                    }
                    Progress::NotFetched(_) if self.image_awaited(i).is_some() => open = true,
                    Progress::Failed(why) | Progress::NotFetched(why) => self.leave_behind(i, &why),
                }
            }
        }
        open |= self
            .status
            .nodes
            .iter()
            .any(|n| n.phase == NodePhase::Waiting || n.in_batch);
        if open {
            // One that recovered by itself asks for a place like any other.
            let waits = |n: &NodeStatus| n.phase == NodePhase::Drain && !n.drained;
            if self.status.nodes.iter().all(|n| !n.in_batch || waits(n)) {
                return self.no_place();
            }
            return self.hold_unfetched();
        }
        if self.status.rollback_for == Some(RollbackFor::Abort) {
            if self.installs_awaited() {
                return Ok(());
            }
            let message = match (self.left_behind(), self.not_as_before()) {
                (None, None) => "every node runs the build it ran before".to_owned(),
                (None, Some(names)) => format!("{names} does not run the build it ran before"),
                (Some(names), _) => format!("{names} could not be brought back"),
            };
            let asked = self.status.cause.as_ref().map(|cause| cause.reason.clone());
            let reason = asked.unwrap_or_else(|| self.seen.wished_by.aborts().0.to_owned());
            return self.enter(Phase::Aborted, &reason, message);
        }
        self.begin_proof();
        Ok(())
    }

    /// Of a workload that is not the upgrade's any more nothing can be restored: what runs the old build there is back, and a canary goes
    /// with what it stood for.
    fn settle_what_is_lost(&mut self, i: usize) {
        let Some(lost) = self.lost_workload(i) else { return };
        let is_back = self.seen(i).is_some_and(|seen| seen.running == self.node(i).from);
        self.node_mut(i).step = None;
        if is_back || self.plan.policy.order.is_canary(i) {
            self.put_back(i);
            self.enter_phase(i, NodePhase::Done);
            self.node_mut(i).in_batch = false;
            return;
        }
        let why = format!(
            "{lost}, so it cannot be put back from here: give it the image that it had before by hand, and a StatefulSet its own updateStrategy"
        );
        self.leave_behind(i, &why);
    }

    /// It is gone with what it stood for, and nobody waits for it.
    fn is_canary_of_lost(&self, i: usize) -> bool {
        self.plan.policy.order.is_canary(i) && self.lost_workload(i).is_some()
    }

    /// Whether it is we who reach nobody, rather than this node that is gone. One API server speaks for all pods of a workload, and what it
    /// refuses for one of them it refuses for all, though one is asked for after the other; and that several servers die at once is
    /// rarer than that our own network is away.
    fn reaches_nobody(&self, i: usize) -> bool {
        if self.unserved(i).is_some() {
            return true;
        }
        let is_pod = |j: usize| self.plan.pods.contains(&self.plan.nodes[j]);
        let mut asked = (0..self.plan.nodes.len()).filter(|&j| is_pod(j) || !is_pod(i));
        let is_alone = !is_pod(i) && self.plan.nodes.len() == 1;
        !is_alone && asked.all(|j| self.seen(j).is_none())
    }

    /// Nothing is given up that nobody could look at: nodes that are left behind would stay on a build that was just found bad.
    fn hold_unreached(&mut self, i: usize, why: &str) -> Result<(), RolloutError> {
        let nobody = if self.plan.pods.contains(&self.plan.nodes[i]) {
            "nothing that was asked of its pods could be done"
        } else {
            "none of its nodes can be reached"
        };
        let message = format!(
            "{nobody}, so that nothing goes back: {why}; it goes on by itself where a server or a controller drives it, and `resume` \
             goes on at once"
        );
        self.hold(Phase::Paused, NOBODY_REACHED, message)
    }

    /// Nor is anything given up for a registry that is away: its machines go on trying. What goes on meanwhile is waited for first.
    fn hold_unfetched(&mut self) -> Result<(), RolloutError> {
        let mut under_way = (0..self.plan.nodes.len()).filter(|&i| {
            let node = self.node(i);
            node.in_batch && (node.phase != NodePhase::Drain || node.drained)
        });
        if !under_way.clone().all(|i| self.image_awaited(i).is_some()) {
            return Ok(());
        }
        let Some((i, why)) = under_way.find_map(|i| Some((i, self.image_awaited(i)?))) else {
            return Ok(());
        };
        let since = self.node(i).since;
        if !self.passed(since, self.plan.policy.patience) {
            return Ok(());
        }
        let message = format!(
            "{}: the image that it had before could not be fetched, so that it does not come back: {why}; mend the way to its registry: its \
             machine goes on trying, and the way back goes on by itself where a server or a controller drives it, and `resume` goes on \
             with it at once",
            self.plan.nodes[i]
        );
        self.hold(Phase::Paused, IMAGE_PULL, message)
    }

    /// A way back that was held since nobody could be reached goes on with the first who can be. An operator who asks for it anew has it
    /// tried anew.
    pub(super) fn reach_again(&mut self) -> Result<(), RolloutError> {
        let nodes = 0..self.plan.nodes.len();
        // By the rule that it was held by, or it would be held again at once.
        let is_away = |i: usize| self.reaches_nobody(i) || self.image_awaited(i).is_some() || self.awaits_its_look(i);
        let is_reached = !nodes.clone().any(|i| self.node(i).in_batch && is_away(i));
        let goes_on = match self.seen.wish {
            Wish::Proceed => is_reached,
            Wish::Abort => is_reached || nodes.clone().any(|i| *self.look(i) == Look::NotYet),
            Wish::Pause | Wish::TimeUp => false,
        };
        if !goes_on {
            // Where looks are answered and nothing else is, nobody knows of the end of that who does not ask.
            let asks = matches!(self.seen.wish, Wish::Proceed | Wish::Abort);
            for i in nodes.filter(|_| asks) {
                if self.node(i).in_batch && self.unserved(i).is_some() {
                    self.keep_step(i);
                }
            }
            return Ok(());
        }
        let now = self.now();
        self.status.resume_to = None;
        for node in &mut self.status.nodes {
            node.since = now;
        }
        let message = going_on(Phase::RollingBack).to_owned();
        self.enter(Phase::RollingBack, "ReachedAgain", message)
    }

    /// Whether it has its image by now is told by no other node.
    fn awaits_its_look(&self, i: usize) -> bool {
        self.status.reason == IMAGE_PULL && *self.look(i) == Look::NotYet
    }

    /// Every node is back: the gates read afresh.
    fn begin_proof(&mut self) {
        let now = self.now();
        for node in &mut self.status.nodes {
            if node.phase == NodePhase::Done {
                node.analysed_since = Some(now);
            }
        }
        self.status.cure = Some(Cure {
            since: now,
            proven_at: None,
            gates: Vec::new(),
        });
        self.tell(Severity::Step, "ProvingCure", None, self.proving());
        // Readings in this look are of the old windows: the next look has the new ones.
        self.wake_by(now);
    }

    /// Nodes that count as back, and whose service is seen not to run on the build that it ran before.
    fn not_as_before(&self) -> Option<String> {
        let away = |i: &usize| {
            let node = self.node(*i);
            let seen = self.seen(*i);
            let counts = node.phase == NodePhase::Done && node.from.is_some() && !self.is_canary_of_lost(*i);
            counts && seen.is_some_and(|s| s.running != node.from)
        };
        let names: Vec<_> = (0..self.plan.nodes.len())
            .filter(away)
            .map(|i| self.plan.nodes[i].as_str())
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// An install that was begun ahead, on a node that stays as it is, still runs.
    fn installs_awaited(&self) -> bool {
        let mut nodes = self.status.nodes.iter().zip(&self.seen.nodes);
        nodes.any(|(node, view)| {
            node.phase == NodePhase::Done && node.step.is_some() && !matches!(view.look, Look::Unreachable { .. })
        })
    }

    /// Gives a node up for now. One that was not taken out yet stays as it is: it may serve, and I1 was not asked.
    fn leave_behind(&mut self, i: usize, why: &str) {
        let now = self.now();
        let node = self.node_mut(i);
        node.phase = NodePhase::OutOfService;
        node.in_batch = false;
        node.trouble = Some(why.to_owned());
        node.since = now;
        self.tell(
            Severity::Alert,
            "NodeOutOfService",
            Some(i),
            format!("could not be brought back: {why}"),
        );
    }

    pub(super) fn left_behind(&self) -> Option<String> {
        let names: Vec<_> = self
            .status
            .nodes
            .iter()
            .filter(|n| matches!(n.phase, NodePhase::Removing | NodePhase::OutOfService))
            .map(|n| n.name.as_str())
            .collect();
        if names.is_empty() { None } else { Some(names.join(", ")) }
    }

    /// The cure is a fresh test: the gate that failed must pass on samples from after the rollback.
    pub(super) fn prove_cure(&mut self) -> Result<(), RolloutError> {
        let Some(cure) = self.status.cure.clone() else {
            return Ok(());
        };
        let came_back: Vec<usize> = (0..self.plan.nodes.len())
            .filter(|&i| self.node(i).phase == NodePhase::Done && !self.is_canary_of_lost(i))
            .collect();
        if came_back.is_empty() {
            return self.enter(
                Phase::RollbackIneffective,
                "NothingCameBack",
                "no node could be brought back into service".to_owned(),
            );
        }
        let gates: Vec<usize> = match &self.status.failed_gate {
            Some(name) => (0..self.plan.gates.len())
                .filter(|&g| &self.plan.gates[g].name == name)
                .collect(),
            None => (0..self.plan.gates.len()).collect(),
        };
        let mut open = None;
        let mut proof = Vec::new();
        for &i in &came_back {
            // A window that began before the rollback ended says nothing about the cure.
            let fresh = self.node(i).analysed_since.is_some_and(|t| t >= cure.since);
            let readings = &self.signals(i).readings;
            for &g in &gates {
                match readings.get(g).filter(|_| fresh && self.seen.now > cure.since) {
                    Some(r) if r.passes() => {
                        proof.push(self.gate_status(i, &self.plan.gates[g].name, r));
                    }
                    Some(r) if r.verdict == Verdict::Fail => {
                        let message = format!(
                            "{} still fails on {} after the rollback: {}",
                            self.plan.gates[g].name, self.plan.nodes[i], r.reason
                        );
                        let blocked = self.note_blockers();
                        return self.enter(Phase::RollbackIneffective, "StillFailing", message + &blocked);
                    }
                    Some(_) | None => open = open.or(Some((i, g))),
                }
            }
        }
        if let Some((i, g)) = open {
            let deadline = self.plan.gates[g].deadline;
            if self.passed(cure.since, deadline) {
                let message = format!(
                    "{} did not pass on {} within {deadline} of the rollback: the cure is not proven",
                    self.plan.gates[g].name, self.plan.nodes[i]
                );
                let blocked = self.note_blockers();
                return self.enter(Phase::RollbackIneffective, "CureNotProven", message + &blocked);
            }
            return Ok(());
        }
        // A gate may pass on what a dead service has left behind: a worker that holds its port.
        if let Some(names) = self.not_as_before() {
            let deadline = self.plan.gates.iter().map(|g| g.deadline).max().unwrap_or_default();
            if self.passed(cure.since, deadline) {
                let message = format!(
                    "the gates pass, and {names} does not run the build it ran before: look for what answers in its place; the \
                     cure is not proven"
                );
                return self.enter(Phase::RollbackIneffective, "CureNotProven", message);
            }
            return Ok(());
        }
        if self.installs_awaited() {
            return Ok(());
        }
        let now = self.now();
        self.status.cure = Some(Cure {
            since: cure.since,
            proven_at: Some(now),
            gates: proof,
        });
        let proven = self
            .status
            .failed_gate
            .as_ref()
            .map_or("every gate passes".to_owned(), |g| format!("{g} passes"));
        let message = match self.left_behind() {
            None => format!("every node is back, and {proven} again: cured"),
            Some(names) => format!("{proven} again on the nodes that are back; {names} could not be brought back"),
        };
        match self.status.rollback_for {
            Some(RollbackFor::NotFetched) => {
                let message = format!("{message}; nothing is held against the build, whose image could not be fetched");
                self.enter(Phase::RolledBack, IMAGE_PULL, message)
            }
            Some(RollbackFor::BadBuild | RollbackFor::Abort) | None => self.enter(Phase::RolledBack, "Cured", message),
        }
    }
}

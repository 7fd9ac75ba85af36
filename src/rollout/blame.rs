//! A gate or a node failed: the build's fault, the node's, or that of something all of them share?

use super::decide::{Draft, RolloutError};
use super::plan::{Look, Reading, Serving};
use crate::model::upgrade::{NodePhase, Phase, RollbackFor, Severity, Verdict};
use crate::model::values::Duration;

/// A service that ended or does not answer has this long to come back: a supervisor starts one anew within seconds.
pub(super) const TIME_TO_COME_BACK: Duration = Duration::from_secs(10);

/// The reason of a way back for want of an image.
pub(super) const IMAGE_PULL: &str = "ImagePull";

/// A sensor that cannot see has this long to see again: a database restarts in seconds, and nobody should look on for longer.
const TIME_TO_SEE_AGAIN: Duration = Duration::from_secs(20);

/// What a failure leaves to do in this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// It changed something, or must be waited on: nothing else is decided now.
    Turn,
    /// The batch goes on.
    GoOn,
}

impl Draft<'_> {
    /// Looks at the gates of the nodes on the new build. True when a failure changed the phase or must be waited on.
    pub(super) fn judge_gates(&mut self) -> Result<bool, RolloutError> {
        for i in 0..self.plan.nodes.len() {
            if !self.under_test(i) {
                continue;
            }
            for (g, reading) in self.signals(i).readings.iter().enumerate() {
                if reading.verdict == Verdict::Fail && self.gate_failed(i, g, reading)? == Judged::Turn {
                    return Ok(true);
                }
            }
        }
        for i in 0..self.plan.nodes.len() {
            if self.under_test(i) && self.service_lost(i)? == Judged::Turn {
                return Ok(true);
            }
        }
        (0..self.plan.nodes.len()).try_fold(false, |held, i| Ok(held || self.under_test(i) && self.held_blind(i)?))
    }

    /// Holds when a gate of a node has seen nothing for too long: what it saw before says nothing of now (I7), and what keeps it
    /// from seeing, a database that is gone, mostly keeps the users from working, too.
    pub(super) fn held_blind(&mut self, i: usize) -> Result<bool, RolloutError> {
        for (gate, reading) in self.plan.gates.iter().zip(&self.signals(i).readings) {
            let Some(blind) = reading.blind.as_ref() else {
                continue;
            };
            if self.passed(blind.since, TIME_TO_SEE_AGAIN) && blind.lasted(TIME_TO_SEE_AGAIN) {
                let why = &blind.why;
                let message = format!(
                    "{} has seen nothing on {} for {TIME_TO_SEE_AGAIN}: {why}; a gate that cannot see proves nothing: once it \
                     can, `resume`",
                    gate.name, self.plan.nodes[i]
                );
                return self.hold(Phase::Paused, "NoData", message).map(|()| true);
            }
        }
        Ok(false)
    }

    /// Does not serve, by its probes, or by a look at it: a process that is gone needs no probe to tell.
    fn is_sick(&self, i: usize) -> bool {
        let release = Some(self.plan.release);
        match self.look(i) {
            Look::Seen(s) => self.signals(i).serving == Serving::No || s.running != release,
            // A host that is gone says nothing of the build; its gates tell whether its calls fail.
            Look::NotYet | Look::Unreachable { .. } | Look::Foreign { .. } => false,
        }
    }

    /// A service that ended under test, or stopped answering, sends too few bad calls for any gate: it has failed all the same.
    fn service_lost(&mut self, i: usize) -> Result<Judged, RolloutError> {
        if !self.is_sick(i) {
            self.node_mut(i).sick_since = None;
            return Ok(Judged::GoOn);
        }
        let now = self.now();
        let since = *self.node_mut(i).sick_since.get_or_insert(now);
        if !self.passed(since, TIME_TO_COME_BACK) {
            return Ok(Judged::GoOn);
        }
        // What its gates need is gone, too: whose fault that is, `held_blind` leaves open.
        if self.signals(i).readings.iter().any(Reading::is_blind) {
            return Ok(Judged::GoOn);
        }
        let why = match self.gone(i) {
            "" => format!("its service has not answered for {TIME_TO_COME_BACK}"),
            _ => format!("the service that was started on it has not run for {TIME_TO_COME_BACK}"),
        };
        let others = || (0..self.plan.nodes.len()).filter(|&j| j != i);
        // One whose process lives and does not answer either waits for something that all of them need.
        let old = others().find(|&j| {
            matches!(self.node(j).phase, NodePhase::Waiting | NodePhase::Install)
                && self.signals(j).serving == Serving::No
                && self.seen(j).is_some_and(|s| s.running.is_some())
        });
        if let Some(j) = old {
            let message = format!(
                "{}: {why}, and nor has that of {}, which still runs the old build: not this build alone",
                self.plan.nodes[i], self.plan.nodes[j]
            );
            let blocked = self.note_blockers();
            self.hold(Phase::Paused, "SharedDependencyDegraded", message + &blocked)?;
            return Ok(Judged::Turn);
        }
        if others().any(|j| self.under_test(j) && !self.is_sick(j)) {
            return self.condemn(i, format!("{why} while its peers on the same build do"));
        }
        let message = format!("{}: {why}", self.plan.nodes[i]) + &self.note_blockers();
        self.begin_rollback(RollbackFor::BadBuild, None, "NodeFailed", message)?;
        Ok(Judged::Turn)
    }

    /// What explains bad calls better than their count: nothing is there to answer them.
    fn gone(&self, i: usize) -> &'static str {
        match self.seen(i) {
            Some(seen) if seen.running.is_none() => "; the service that was started on it does not run any more",
            Some(_) | None => "",
        }
    }

    /// On the new build by this upgrade, and watched.
    pub(super) fn under_test(&self, i: usize) -> bool {
        let node = self.node(i);
        match node.phase {
            NodePhase::Analyse => true,
            NodePhase::Admit | NodePhase::Done => {
                node.analysed_since.is_some() && node.from.as_ref() != Some(&self.plan.release)
            }
            NodePhase::Waiting
            | NodePhase::Install
            | NodePhase::Drain
            | NodePhase::Activate
            | NodePhase::Restart
            | NodePhase::Warm
            | NodePhase::Probe
            | NodePhase::Checked
            | NodePhase::Removing
            | NodePhase::OutOfService => false,
        }
    }

    /// A gate failed on a node of the new build: whose fault is it?
    fn gate_failed(&mut self, i: usize, g: usize, reading: &Reading) -> Result<Judged, RolloutError> {
        let gate = &self.plan.gates[g];
        let decided = reading.decided_at.unwrap_or(self.now());
        let onset = reading.onset_at.unwrap_or(decided);
        let troubled = |r: &Reading| r.bad > 0 && r.last_bad_at.is_some_and(|t| t >= onset);
        let mut old_troubled = false;
        if self.status.baseline_failed.contains(&gate.name) {
            let message = format!(
                "{} fails on {} ({}), and failed before the upgrade began: not this build alone",
                gate.name, self.plan.nodes[i], reading.reason
            );
            let blocked = self.note_blockers();
            self.hold(Phase::Paused, "SharedDependencyDegraded", message + &blocked)?;
            return Ok(Judged::Turn);
        }
        // Nodes that never got this build are asked first: where they fail too, more nodes of the build that fail prove
        // nothing against it.
        for j in 0..self.plan.nodes.len() {
            let waits = matches!(self.node(j).phase, NodePhase::Waiting | NodePhase::Install);
            // A service that has ended fails every gate, and says nothing of what the others share.
            let old = waits && self.seen(j).is_none_or(|s| s.running.is_some());
            let Some(other) = self.signals(j).readings.get(g).filter(|_| old) else {
                continue;
            };
            match other.verdict {
                Verdict::Fail => {
                    let message = format!(
                        "{} fails on {} ({}), and on {} too, which still runs the old build ({}): not this build alone",
                        gate.name, self.plan.nodes[i], reading.reason, self.plan.nodes[j], other.reason
                    );
                    let blocked = self.note_blockers();
                    self.hold(Phase::Paused, "SharedDependencyDegraded", message + &blocked)?;
                    return Ok(Judged::Turn);
                }
                Verdict::Pass | Verdict::Undecided => old_troubled |= troubled(other),
                Verdict::NoData => {}
            }
        }
        let (mut peer_fails, mut peer_passes, mut peer_troubled) = (false, false, false);
        for j in (0..self.plan.nodes.len()).filter(|&j| j != i && self.under_test(j)) {
            let Some(peer) = self.signals(j).readings.get(g) else {
                continue;
            };
            match peer.verdict {
                Verdict::Fail => peer_fails = true,
                Verdict::Pass if peer.passes() && !troubled(peer) => peer_passes = true,
                Verdict::Pass | Verdict::Undecided => peer_troubled |= troubled(peer),
                Verdict::NoData => {}
            }
        }
        // A neighbour that shows the same trouble gets the time that its test needs to fail too before anybody is blamed; two
        // nodes of the same build that fail leave only the old ones to wait for.
        let suspected = old_troubled || peer_troubled && !peer_fails;
        if suspected && !self.passed(decided, gate.neighbour_wait) {
            return Ok(Judged::Turn);
        }
        if peer_fails {
            return self.blame_build(i, g, reading).map(|()| Judged::Turn);
        }
        if peer_passes {
            let why = format!(
                "{} failed while its peers on the same build pass: {}{}",
                gate.name,
                reading.reason,
                self.gone(i)
            );
            return self.condemn(i, why);
        }
        if let Look::Unreachable { why, .. } = self.look(i) {
            let message = format!(
                "{} failed on {} ({}), and its host does not answer ({why}): the build or the host",
                gate.name, self.plan.nodes[i], reading.reason
            );
            let blocked = self.note_blockers();
            self.hold(Phase::Paused, "NodeUnreachable", message + &blocked)?;
            return Ok(Judged::Turn);
        }
        self.blame_build(i, g, reading).map(|()| Judged::Turn)
    }

    pub(super) fn blame_build(&mut self, i: usize, g: usize, reading: &Reading) -> Result<(), RolloutError> {
        let gate = &self.plan.gates[g].name;
        let blocked = self.note_blockers();
        let message = format!(
            "{gate} failed on {}: {}{}{blocked}",
            self.plan.nodes[i],
            reading.reason,
            self.gone(i)
        );
        self.tell(Severity::Alert, "GateFailed", Some(i), message.clone());
        self.begin_rollback(RollbackFor::BadBuild, Some(gate.clone()), "GateFailed", message)
    }

    /// A node failed while its peers pass: it goes out, the build is not blamed, within a budget.
    fn condemn(&mut self, i: usize, why: String) -> Result<Judged, RolloutError> {
        if self.budget_is_spent() {
            let message = format!(
                "{}: {why}; {} nodes failed before, the budget is {}",
                self.plan.nodes[i],
                self.given_up(),
                self.plan.policy.failed_node_budget
            );
            self.begin_rollback(RollbackFor::BadBuild, None, "FailedNodeBudget", message)?;
            return Ok(Judged::Turn);
        }
        // I1 asks of a node that fails, too, as long as it serves: it gets the place of the batch that is under way.
        if !self.may_take_out(i) {
            self.place_owed = true;
            return Ok(Judged::GoOn);
        }
        self.take_out(i);
        let now = self.now();
        let phase = if self.plan.hooks.drain {
            NodePhase::Removing
        } else {
            NodePhase::OutOfService
        };
        let node = self.node_mut(i);
        node.phase = phase;
        node.in_batch = false;
        node.attempts = 0;
        node.trouble = Some(why.clone());
        node.since = now;
        self.tell(Severity::Alert, "NodeOutOfService", Some(i), why);
        Ok(Judged::Turn)
    }

    fn given_up(&self) -> usize {
        let nodes = self.status.nodes.iter();
        nodes
            .filter(|n| matches!(n.phase, NodePhase::Removing | NodePhase::OutOfService))
            .count()
    }

    fn budget_is_spent(&self) -> bool {
        self.given_up() >= self.plan.policy.failed_node_budget
    }

    /// A build is not to blame for a registry that is away. Whatever has it goes back to what it had, whose images are there.
    pub(super) fn not_fetched(&mut self, i: usize, why: String) -> Result<(), RolloutError> {
        let message = format!("{}: {why}", self.plan.nodes[i]);
        self.node_mut(i).trouble = Some(why);
        self.begin_rollback(RollbackFor::NotFetched, None, IMAGE_PULL, message)
    }

    /// A node failed to come up on the new build.
    pub(super) fn forward_failed(&mut self, i: usize, why: String) -> Result<(), RolloutError> {
        let peers_pass = (0..self.plan.nodes.len()).any(|j| {
            j != i
                && self.node(j).phase == NodePhase::Done
                && self.node(j).build.as_ref() == Some(&self.plan.release)
                && !self.is_out(j)
        });
        let changed = !matches!(
            self.node(i).phase,
            NodePhase::Install | NodePhase::Drain | NodePhase::Activate | NodePhase::Admit
        );
        let reachable = self.seen(i).is_some();
        self.node_mut(i).trouble = Some(why.clone());
        // Hosts that vanish are no build's fault, however many.
        if changed && peers_pass && (reachable || !self.budget_is_spent()) {
            return self.condemn(i, why).map(|_| ());
        }
        let message = format!("{}: {why}", self.plan.nodes[i]);
        if changed && reachable {
            return self.begin_rollback(RollbackFor::BadBuild, None, "NodeFailed", message);
        }
        // Nothing on the node has changed for its users, or nothing can be known of it: hold, and blame nobody.
        let reason = if reachable { "StepFailed" } else { "NodeUnreachable" };
        self.hold(Phase::Paused, reason, message)
    }
}

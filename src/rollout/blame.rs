//! A gate or a node failed: the build's fault, the node's, or that of something all of them share?

use super::decide::{Draft, RolloutError};
use super::plan::Reading;
use crate::model::upgrade::{NodePhase, Phase, RollbackFor, Severity, Verdict};

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
            let Some(seen) = self.seen(i) else { continue };
            for (g, reading) in seen.readings.iter().enumerate() {
                if reading.verdict == Verdict::Fail && self.gate_failed(i, g, reading)? == Judged::Turn {
                    return Ok(true);
                }
            }
        }
        Ok(false)
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
        // Nodes that never got this build are asked first: where they fail too, more nodes of the build that fail prove
        // nothing against it.
        for j in 0..self.plan.nodes.len() {
            let old = matches!(self.node(j).phase, NodePhase::Waiting | NodePhase::Install);
            let Some(other) = self.seen(j).and_then(|s| s.readings.get(g)).filter(|_| old) else {
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
            let Some(peer) = self.seen(j).and_then(|s| s.readings.get(g)) else {
                continue;
            };
            match peer.verdict {
                Verdict::Fail => peer_fails = true,
                Verdict::Pass if !troubled(peer) => peer_passes = true,
                Verdict::Pass | Verdict::Undecided => peer_troubled |= troubled(peer),
                Verdict::NoData => {}
            }
        }
        // A neighbour that shows the same trouble gets one age to fail too before anybody is blamed; two nodes of the same
        // build that fail leave only the old ones to wait for.
        let suspected = old_troubled || peer_troubled && !peer_fails;
        if suspected && !self.passed(decided, gate.age) {
            return Ok(Judged::Turn);
        }
        if peer_fails {
            return self.blame_build(i, g, reading).map(|()| Judged::Turn);
        }
        if peer_passes {
            let why = format!(
                "{} failed while its peers on the same build pass: {}",
                gate.name, reading.reason
            );
            return self.condemn(i, why);
        }
        self.blame_build(i, g, reading).map(|()| Judged::Turn)
    }

    pub(super) fn blame_build(&mut self, i: usize, g: usize, reading: &Reading) -> Result<(), RolloutError> {
        let gate = &self.plan.gates[g].name;
        let blocked = self.note_blockers();
        let message = format!("{gate} failed on {}: {}{blocked}", self.plan.nodes[i], reading.reason);
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
        let node = self.node_mut(i);
        node.phase = NodePhase::OutOfService;
        node.in_batch = false;
        node.trouble = Some(why.clone());
        node.since = now;
        self.tell(Severity::Alert, "NodeOutOfService", Some(i), why);
        Ok(Judged::Turn)
    }

    fn given_up(&self) -> usize {
        let nodes = self.status.nodes.iter();
        nodes.filter(|n| n.phase == NodePhase::OutOfService).count()
    }

    fn budget_is_spent(&self) -> bool {
        self.given_up() >= self.plan.policy.failed_node_budget
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

//! The way forward: preflight, baseline, batches, soak.

use std::collections::BTreeSet;

use super::decide::{Draft, RolloutError};
use super::nodes::Progress;
use super::plan::{Look, Order, Prepared, Seen, Serving};
use crate::model::upgrade::{NodePhase, NodeStatus, Phase, Severity, StepAction, Verdict};
use crate::model::values::Duration;

/// The reason of an upgrade that is held because nodes have to be adopted first.
pub const FOREIGN_HOME: &str = "ForeignHome";

impl Draft<'_> {
    pub(super) fn preflight(&mut self) -> Result<(), RolloutError> {
        let mut problems = Vec::new();
        let mut foreign = Vec::new();
        // Of a workload's pods it is the same words for all of them.
        let mut unstated = BTreeSet::new();
        let mut waiting = false;
        let mut troubles = Vec::new();
        for i in 0..self.plan.nodes.len() {
            match self.look(i) {
                Look::NotYet => waiting = true,
                Look::Unreachable { why, .. } => {
                    let trouble = format!("{}: {why}", self.plan.nodes[i]);
                    if self.passed(self.status.since, self.plan.policy.patience) {
                        problems.push(trouble);
                    } else {
                        troubles.push(trouble);
                    }
                    waiting = true;
                }
                Look::Foreign { why } => foreign.push(why.clone()),
                Look::Seen(Seen {
                    unstated: Some(why), ..
                }) => {
                    unstated.insert(why.clone());
                }
                Look::Seen(Seen {
                    foreign_edit: Some(edit),
                    ..
                }) => {
                    // Pods of one workload all show it.
                    if !problems.iter().any(|said: &String| said.ends_with(edit.as_str())) {
                        problems.push(format!("{}: {edit}", self.plan.nodes[i]));
                    }
                }
                Look::Seen(s) => {
                    let least = self.plan.policy.min_free_bytes;
                    if let Some(free) = s.free_bytes.filter(|free| *free < least) {
                        problems.push(format!(
                            "{}: {} MiB free, {} MiB needed",
                            self.plan.nodes[i],
                            free >> 20,
                            least >> 20
                        ));
                        continue;
                    }
                    if self.plan.hooks.check {
                        match self.check(i) {
                            Progress::Done => {}
                            Progress::Working => waiting = true,
                            Progress::Failed(why) | Progress::NotFetched(why) => {
                                problems.push(format!("{}: {why}", self.plan.nodes[i]));
                            }
                        }
                    }
                }
            }
        }
        match &self.seen.prepared {
            Prepared::Pending => waiting = true,
            Prepared::Ready => {}
            Prepared::Failed(why) => problems.push(format!(
                "{}@{} could not be prepared: {why}",
                self.plan.component, self.plan.version
            )),
        }
        problems.extend(unstated);
        // Nothing else is to be known of it, and nothing else helps: no other problem is named beside it.
        if !foreign.is_empty() {
            return self.hold(Phase::Paused, FOREIGN_HOME, foreign.join("; "));
        }
        if !problems.is_empty() {
            return self.hold(Phase::Paused, "PreflightFailed", problems.join("; "));
        }
        if waiting {
            self.say_what_preflight_waits_for(&troubles);
            return Ok(());
        }
        let release = &self.plan.release;
        let on_it = |s: &Seen| s.current.as_ref() == Some(release) && s.running.as_ref() == Some(release);
        for i in 0..self.plan.nodes.len() {
            let Some(seen) = self.seen(i) else { continue };
            let left_out = self.plan.left_out.contains(&self.plan.nodes[i]);
            let (now, done) = (self.now(), on_it(seen) && !left_out);
            let from = seen.running.or(seen.current);
            let node = self.node_mut(i);
            node.from = from;
            // It may answer, and gets no traffic: out until it has passed and is admitted.
            node.drained = left_out;
            node.analysed_since = Some(now);
            node.since = now;
            node.attempts = 0;
            node.phase = if done { NodePhase::Done } else { NodePhase::Waiting };
        }
        if self.status.nodes.iter().all(|n| n.phase == NodePhase::Done) {
            let message = format!(
                "{}@{} already runs on every node; nothing was changed",
                self.plan.component, self.plan.version
            );
            return self.enter(Phase::Succeeded, "AlreadyThere", message);
        }
        self.enter(Phase::Baseline, "PreflightPassed", self.reading_baseline())
    }

    /// Nodes are looked at within seconds, and a build may take minutes to be made ready: who watches is told which it is.
    fn say_what_preflight_waits_for(&mut self, troubles: &[String]) {
        if let Some(first) = troubles.first() {
            let others = match troubles.len() {
                1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            // A look that works between two attempts leaves it there: what was asked for did not.
            self.status.message = format!(
                "{}@{}: {first}{others}; tried again, for {} in all",
                self.plan.component, self.plan.version, self.plan.policy.patience
            );
            return;
        }
        let unseen = (0..self.plan.nodes.len()).filter(|&i| self.seen(i).is_none()).count();
        if unseen == 0 && self.seen.prepared == Prepared::Pending {
            self.status.message = format!(
                "{}@{}: every node was seen; its build is being made ready",
                self.plan.component, self.plan.version
            );
        }
    }

    pub(super) fn baseline(&mut self) -> Result<(), RolloutError> {
        let mut mute = None;
        let somebody_serves = (0..self.plan.nodes.len()).any(|i| !self.is_out(i));
        for i in 0..self.plan.nodes.len() {
            // A sick node goes first and may be what the upgrade is for; the well ones show that the sensors work.
            if somebody_serves && self.is_out(i) {
                continue;
            }
            if self.seen(i).is_none() {
                mute = mute.or(Some((i, "it cannot be seen".to_owned())));
                continue;
            }
            if self.held_blind(i)? {
                return Ok(());
            }
            let readings = &self.signals(i).readings;
            if readings.len() < self.plan.gates.len() {
                mute = mute.or(Some((i, "no gate has been read yet".to_owned())));
            }
            for (gate, reading) in self.plan.gates.iter().zip(readings) {
                match reading.verdict {
                    Verdict::Fail => {
                        let message = format!(
                            "{} already fails on {} with the build it runs: {}; `resume` goes on all the same",
                            gate.name, self.plan.nodes[i], reading.reason
                        );
                        let blocked = self.note_blockers();
                        self.hold(Phase::Paused, "SharedDependencyDegraded", message + &blocked)?;
                        // An upgrade may be the cure: going on after this hold is an operator's decision.
                        self.status.resume_to = Some(Phase::Rolling);
                        self.status.baseline_failed.push(gate.name.clone());
                        return Ok(());
                    }
                    Verdict::NoData => mute = mute.or(Some((i, format!("{}: {}", gate.name, reading.reason)))),
                    Verdict::Pass | Verdict::Undecided => {
                        let blind = reading.blind.as_ref().filter(|_| reading.is_blind());
                        mute = mute.or(blind.map(|blind| (i, format!("{}: {}", gate.name, blind.why))));
                    }
                }
            }
        }
        let long_enough = self.passed(self.status.since, self.plan.policy.baseline);
        match mute {
            Some((i, why)) => {
                if self.passed(self.status.since, self.plan.policy.patience) {
                    let message = format!(
                        "no reading from {}: {why}; a gate that cannot be read proves nothing",
                        self.plan.nodes[i]
                    );
                    return self.hold(Phase::Paused, "NoData", message);
                }
                Ok(())
            }
            None if long_enough => self.enter(Phase::Rolling, "BaselineRead", self.goes_onto()),
            None => Ok(()),
        }
    }

    pub(super) fn rolling(&mut self) -> Result<(), RolloutError> {
        if self.judge_gates()? {
            return Ok(());
        }
        self.remove_the_condemned();
        let n = self.plan.nodes.len();
        if self.status.nodes.iter().any(|n| n.in_batch) {
            self.join_those_that_wait();
        } else {
            self.choose_batch();
        }
        for i in 0..n {
            if !self.node(i).in_batch {
                continue;
            }
            match self.forward(i) {
                Progress::Done | Progress::Working => {}
                Progress::Failed(why) => return self.forward_failed(i, why),
                Progress::NotFetched(why) => return self.not_fetched(i, why),
            }
        }
        if !self.status.nodes.iter().any(|n| n.in_batch) {
            if self.status.nodes.iter().any(|n| n.phase == NodePhase::Waiting) {
                self.choose_batch();
                if self.status.nodes.iter().any(|n| n.in_batch) {
                    return self.rolling();
                }
                return self.no_place();
            }
            return self.enter(Phase::Soak, "AllNodesChanged", self.soaking());
        }
        self.install_ahead();
        self.stuck()
    }

    /// Where the whole batch waits for its place, what is out already goes on beside it: the place may be its own.
    fn join_those_that_wait(&mut self) {
        let waits = |n: &NodeStatus| n.phase == NodePhase::Drain && !n.drained;
        if !self.status.nodes.iter().filter(|n| n.in_batch).all(waits) {
            return;
        }
        if self.plan.policy.order != Order::SickFirst {
            return;
        }
        for i in 0..self.plan.nodes.len() {
            if self.node(i).phase == NodePhase::Waiting && self.is_known_out(i) && self.seen(i).is_some() {
                self.start_node(i);
            }
        }
    }

    /// Tells the balancer of nodes that were given up. True while that goes on.
    fn remove_the_condemned(&mut self) -> bool {
        let mut open = false;
        let release = self.plan.release;
        for i in 0..self.plan.nodes.len() {
            if self.node(i).phase != NodePhase::Removing {
                continue;
            }
            let since = self.node(i).since;
            let failed = match self.look(i) {
                Look::Unreachable { why, .. } if self.passed(since, self.plan.policy.patience) => {
                    Some(format!("it cannot be reached: {why}"))
                }
                _ => match self.step(i, StepAction::Drain, &release) {
                    Progress::Done => None,
                    Progress::Failed(why) | Progress::NotFetched(why) => Some(why),
                    Progress::Working => {
                        open = true;
                        continue;
                    }
                },
            };
            if let Some(why) = failed {
                let message = format!("it could not be taken out of the balancer, and may still get calls: {why}");
                self.tell(Severity::Alert, "NodeNotRemoved", Some(i), message);
            }
            self.enter_phase(i, NodePhase::OutOfService);
        }
        open
    }

    /// Holds when nothing may be taken out for too long, naming who is out.
    pub(super) fn no_place(&mut self) -> Result<(), RolloutError> {
        if !self.passed(self.status.since, self.plan.policy.patience) || !self.longest_wait_passed() {
            return Ok(());
        }
        let out: Vec<_> = (0..self.plan.nodes.len())
            .filter(|&i| self.is_out(i))
            .map(|i| self.plan.nodes[i].as_str())
            .collect();
        let message = format!(
            "{} out of service and maxUnavailable is {}: no further node may be taken out; mend what is out, then \
             `resume` goes on and tries it again",
            out.join(", "),
            self.plan.policy.max_unavailable
        );
        self.hold(Phase::Paused, "MaxUnavailable", message)
    }

    pub(super) fn longest_wait_passed(&mut self) -> bool {
        let last_change = self
            .status
            .nodes
            .iter()
            .map(|n| n.since)
            .max()
            .unwrap_or(self.status.since);
        self.passed(last_change, self.plan.policy.patience)
    }

    /// Holds when a node of the batch waits for its place or cannot be reached for too long, or its gates cannot decide.
    pub(super) fn stuck(&mut self) -> Result<(), RolloutError> {
        for i in 0..self.plan.nodes.len() {
            if !self.node(i).in_batch {
                continue;
            }
            let since = self.node(i).since;
            if let Some(why) = self
                .unserved(i)
                .filter(|_| self.passed(since, self.plan.policy.patience))
            {
                // It says nothing of this node, and would be said of the next one, too.
                let message = format!(
                    "{}: {why}; `resume` tries it again, `abort` goes back",
                    self.plan.nodes[i]
                );
                return self.hold(Phase::Paused, "NodeUnreachable", message);
            }
            if let Look::Unreachable { why, .. } = self.look(i)
                && self.passed(since, self.plan.policy.patience)
            {
                return self.forward_failed(i, format!("it cannot be reached: {why}"));
            }
            let phase = self.node(i).phase;
            match phase {
                NodePhase::Drain if !self.node(i).drained && self.passed(since, self.plan.policy.patience) => {
                    return self.no_place();
                }
                NodePhase::Analyse => {
                    let deadline = self.plan.gates.iter().map(|g| g.deadline).max().unwrap_or_default();
                    if self.passed(since, deadline) {
                        let open = self.undecided(i);
                        let message = format!(
                            "{} could not decide on {} within {deadline}; `resume` gives them as long again, `abort` goes back",
                            open, self.plan.nodes[i]
                        );
                        return self.hold(Phase::Inconclusive, "GatesUndecided", message);
                    }
                }
                NodePhase::Waiting
                | NodePhase::Checked
                | NodePhase::Install
                | NodePhase::Drain
                | NodePhase::Activate
                | NodePhase::Restart
                | NodePhase::Warm
                | NodePhase::Probe
                | NodePhase::Admit
                | NodePhase::Done
                | NodePhase::Removing
                | NodePhase::OutOfService => {}
            }
        }
        Ok(())
    }

    /// A node that was given up, the build it is on, and why.
    fn left_out(&self, i: usize) -> String {
        let node = self.node(i);
        let runs = match (self.seen(i), node.build) {
            (None, _) => "not seen now",
            (_, Some(build)) if build == self.plan.release => "on the new build",
            (_, Some(build)) if Some(build) == node.from => "on the build it ran before",
            (_, Some(_)) => "on another build",
            (_, None) => "not running",
        };
        let trouble = node.trouble.as_deref().unwrap_or("given up");
        format!("{} ({runs}: {trouble})", self.plan.nodes[i])
    }

    pub(super) fn undecided(&self, i: usize) -> String {
        let signals = self.signals(i);
        let mut open: Vec<String> = self
            .plan
            .gates
            .iter()
            .zip(&signals.readings)
            .filter(|(_, r)| !r.passes())
            .map(|(g, r)| format!("{} ({})", g.name, r.reason))
            .collect();
        if signals.readings.len() < self.plan.gates.len() {
            open.push("a gate that was not read".to_owned());
        }
        if signals.serving != Serving::Yes {
            open.push("its probes".to_owned());
        }
        open.join(", ")
    }

    pub(super) fn soak(&mut self) -> Result<(), RolloutError> {
        if self.judge_gates()? {
            return Ok(());
        }
        let removing = self.remove_the_condemned();
        if !self.passed(self.status.since, self.plan.policy.soak) || removing {
            return Ok(());
        }
        let left_out: Vec<_> = (0..self.plan.nodes.len())
            .filter(|&i| self.node(i).phase == NodePhase::OutOfService)
            .map(|i| self.left_out(i))
            .collect();
        // Watching is the point of a soak: a gate that went blind in it proves nothing (I7), and neither does a pass of a node
        // that has died since.
        for i in 0..self.plan.nodes.len() {
            if self.node(i).phase == NodePhase::Done && !self.serves_and_passes(i) {
                let deadline = self.plan.gates.iter().map(|g| g.deadline).max().unwrap_or_default();
                if self.passed(
                    self.status.since,
                    Duration(self.plan.policy.soak.0.saturating_add(deadline.0)),
                ) {
                    let message = format!(
                        "soak of {} ended without a pass of {}",
                        self.plan.nodes[i],
                        self.undecided(i)
                    );
                    return self.hold(Phase::Inconclusive, "GatesUndecided", message);
                }
                return Ok(());
            }
        }
        self.verified = left_out.is_empty();
        let (reason, message) = if left_out.is_empty() {
            (
                "Verified",
                format!(
                    "{}@{} runs on every node and every gate passed",
                    self.plan.component, self.plan.version
                ),
            )
        } else {
            (
                "NodesLeftOut",
                format!(
                    "{}@{} passed, but left out: {}",
                    self.plan.component,
                    self.plan.version,
                    left_out.join("; ")
                ),
            )
        };
        self.enter(Phase::Succeeded, reason, message)
    }
}

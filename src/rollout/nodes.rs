//! What one node needs next, forward and back: whatever can be seen on the node is not done again.

use super::decide::{Draft, Ended, StepEffect};
use super::plan::{Look, Order, Reading, Seen, Serving, StepView};
use crate::model::upgrade::{NodePhase, Phase, Severity, StepAction, StepIntent};
use crate::model::values::Digest;

/// How far a node, or a step on it, is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing left to do.
    Done,
    /// Something runs, or is waited for.
    Working,
    /// It went wrong, with the reason.
    Failed(String),
    /// Its image could not be fetched, by no fault of the build.
    NotFetched(String),
}

/// Why a step did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It failed.
    Step(String),
    /// There was no image to take it with, by no fault of the build.
    NotFetched(String),
}

/// Attempts at a step that changes nothing for users (an install beside the serving release) or that was cut off.
/// One repeat tells a passing trouble (a lost mirror, a rebooted host) from a lasting one; more only delay the verdict.
const ATTEMPTS: u32 = 2;

fn not_fetched_in_words(why: &str) -> String {
    format!("its image could not be fetched: {why}")
}

impl<'a> Draft<'a> {
    /// Takes note of steps that ended since the last look.
    pub(super) fn settle_steps(&mut self) {
        for i in 0..self.plan.nodes.len() {
            let before = self.node_mut(i).ended.take();
            self.ended[i] = before.map(|intent| Ended { intent, result: Ok(()) });
            let Some(intent) = self.node(i).step.clone() else {
                continue;
            };
            // A pod has no script whose exit status would tell anybody anything.
            let is_pod_made_anew = intent.action == StepAction::Restart && self.plan.pods.contains(&self.plan.nodes[i]);
            let result = match self.seen(i).and_then(|s| s.step.as_ref()) {
                None | Some(StepView::Running) => continue,
                // Its machine goes on trying by itself, and the same step shows when it has it.
                Some(StepView::NotFetched { .. }) if self.image_awaited(i).is_some() => continue,
                Some(StepView::Ended { exit: 0, .. }) => Ok(()),
                Some(StepView::Ended { exit: 124, log_tail }) => Err(Failure::Step(format!(
                    "{} did not end by its deadline: {log_tail}",
                    intent.action.word()
                ))),
                Some(StepView::Ended { exit: _, log_tail }) if is_pod_made_anew => {
                    Err(Failure::Step(format!("its pod does not come up: {log_tail}")))
                }
                Some(StepView::Ended { exit, log_tail }) => Err(Failure::Step(format!(
                    "{} ended with {exit}: {log_tail}",
                    intent.action.word()
                ))),
                Some(StepView::NotFetched { why }) => Err(Failure::NotFetched(not_fetched_in_words(why))),
                Some(StepView::Died) => Err(Failure::Step(format!(
                    "{} was cut off (the node was restarted, or its process killed)",
                    intent.action.word()
                ))),
            };
            let cut_off = self.seen(i).and_then(|s| s.step.as_ref()) == Some(&StepView::Died);
            let back = self.node(i).from.as_ref() == Some(&intent.release) && self.goes_back();
            let node = self.node_mut(i);
            node.step = None;
            if result.is_ok() {
                match (intent.action, back) {
                    (StepAction::Install, false) => node.installs += 1,
                    (StepAction::Install, true) => node.rollback_installs += 1,
                    (StepAction::Restart, false) => node.restarts += 1,
                    (StepAction::Restart, true) => node.rollback_restarts += 1,
                    (
                        StepAction::Check
                        | StepAction::Drain
                        | StepAction::Activate
                        | StepAction::Warm
                        | StepAction::Admit,
                        _,
                    ) => {}
                }
            } else {
                node.attempts += 1;
            }
            let repeatable = cut_off || matches!(intent.action, StepAction::Install);
            let result = match result {
                Err(_) if repeatable && self.node(i).attempts < ATTEMPTS => continue,
                other => other,
            };
            self.ended[i] = Some(Ended { intent, result });
        }
    }

    /// Whether a step has been asked for, has not been seen to end, and can be: a host that is gone says nothing, and
    /// its step is found again when it comes back.
    pub(super) fn steps_awaited(&self) -> bool {
        let mut nodes = self.status.nodes.iter().zip(&self.seen.nodes);
        nodes.any(|(node, view)| node.step.is_some() && !matches!(view.look, Look::Unreachable { .. }))
    }

    /// Goes on waiting for the steps that were asked for; starts nothing new.
    pub(super) fn keep_steps(&mut self) {
        for i in 0..self.plan.nodes.len() {
            if let Some(intent) = self.node(i).step.clone() {
                self.effects.push(StepEffect { node: i, intent });
            }
        }
    }

    /// The nodes that wait for their batch: where that is free, the sick first, then in the environment's order, then those that
    /// cannot be reached now.
    fn in_turn(&self) -> Vec<usize> {
        let mut waiting: Vec<usize> = (0..self.plan.nodes.len())
            .filter(|&i| self.node(i).phase == NodePhase::Waiting)
            .collect();
        match self.plan.policy.order {
            Order::SickFirst => waiting.sort_by_key(|&i| {
                let gone = matches!(self.look(i), Look::Unreachable { .. });
                (gone, !self.is_known_out(i))
            }),
            Order::AsListed | Order::CanaryFirst => {}
        }
        waiting
    }

    /// Installs the build on the nodes of the next batch while this one is judged: beside the release that serves, so that
    /// it takes nothing from anybody, and a node's turn is shorter by the longest of its steps.
    pub(super) fn install_ahead(&mut self) {
        let goal = self.plan.release;
        let mut next = 0;
        for i in self.in_turn() {
            self.keep_step(i);
            if matches!(self.look(i), Look::Unreachable { .. }) {
                continue;
            }
            next += 1;
            let Some(seen) = self.seen(i).filter(|_| next <= self.plan.policy.batch_size) else {
                continue;
            };
            // One that fails is left to its own turn, when it is tried anew and a failure counts.
            if self.node(i).step.is_none()
                && !seen.releases.contains(&goal)
                && self.node(i).attempts < ATTEMPTS
                && self.step(i, StepAction::Install, &goal) == Progress::Done
            {
                self.node_mut(i).attempts = ATTEMPTS;
            }
        }
    }

    /// Puts the next nodes into a batch.
    pub(super) fn choose_batch(&mut self) {
        if self.place_owed {
            return;
        }
        // Taken out by this batch, beside those that are out already.
        let mut more = 0;
        let mut chosen = 0;
        for i in self.in_turn() {
            if chosen == self.plan.policy.batch_size {
                break;
            }
            if *self.look(i) == Look::NotYet {
                if self.node(i).drained || self.plan.policy.order != Order::SickFirst {
                    // It goes first, and a look at it is under way: another one would only wait for its place.
                    break;
                }
                continue;
            }
            if !self.is_known_out(i) && !self.plan.policy.order.is_canary(i) {
                // One that is counted as out for want of a probe's word does not stand in its own way.
                let own = usize::from(self.is_out(i));
                if self.out - own + more >= self.plan.policy.max_unavailable {
                    break;
                }
                more += 1 - own;
            }
            self.start_node(i);
            chosen += 1;
        }
    }

    /// Begins a node's way, forward or back.
    pub(super) fn start_node(&mut self, i: usize) {
        // An install ahead that failed in this very look is not its turn's.
        self.ended[i] = None;
        self.node_mut(i).in_batch = true;
        self.enter_phase(i, NodePhase::Install);
    }

    pub(super) fn enter_phase(&mut self, i: usize, phase: NodePhase) {
        let now = self.now();
        let node = self.node_mut(i);
        node.phase = phase;
        node.since = now;
        node.attempts = 0;
    }

    /// The preflight check, done once a node.
    pub(super) fn check(&mut self, i: usize) -> Progress {
        if self.node(i).phase == NodePhase::Checked {
            return Progress::Done;
        }
        let release = self.plan.release;
        let progress = self.step(i, StepAction::Check, &release);
        if progress == Progress::Done {
            self.enter_phase(i, NodePhase::Checked);
        }
        progress
    }

    /// It is on its way back, or held there.
    fn goes_back(&self) -> bool {
        let goes_on = self.status.resume_to.filter(|_| self.status.phase.is_held());
        goes_on.unwrap_or(self.status.phase) == Phase::RollingBack
    }

    /// That a step of the way back waits for its machine to fetch the image from before, and what is said of that. A canary is gone with
    /// what it stands for: nothing waits for its image.
    pub(super) fn image_awaited(&self, i: usize) -> Option<&'a str> {
        let step = self.node(i).step.as_ref()?;
        let is_back = self.goes_back() && self.node(i).from == Some(step.release);
        if !is_back || self.plan.policy.order.is_canary(i) {
            return None;
        }
        match self.seen(i)?.step.as_ref()? {
            StepView::NotFetched { why } => Some(why),
            StepView::Running | StepView::Ended { .. } | StepView::Died => None,
        }
    }

    /// Makes sure of a step, or tells how it ended.
    pub(super) fn step(&mut self, i: usize, action: StepAction, release: &Digest) -> Progress {
        if let Some(ended) = self.ended[i].take()
            && ended.intent.action == action
            && ended.intent.release == *release
        {
            return match ended.result {
                Ok(()) => Progress::Done,
                Err(Failure::Step(why)) => Progress::Failed(why),
                Err(Failure::NotFetched(why)) => Progress::NotFetched(why),
            };
        }
        // Looks tell when that is over, and nothing is to be asked for again.
        if let Some(why) = self.image_awaited(i) {
            return Progress::NotFetched(not_fetched_in_words(why));
        }
        if self.node(i).step.is_none() {
            let upgrade = &self.plan.upgrade;
            let number = self.node(i).steps;
            let id = format!("{upgrade}.{number}.{}", action.word());
            let node = self.node_mut(i);
            node.steps += 1;
            node.step = Some(StepIntent {
                id,
                action,
                release: *release,
            });
        }
        if let Some(intent) = self.node(i).step.clone() {
            self.effects.push(StepEffect { node: i, intent });
        }
        Progress::Working
    }

    /// A step whose success shows on the node: ending well without showing is a failure.
    fn step_until(&mut self, i: usize, action: StepAction, release: &Digest, missing: &str) -> Progress {
        match self.step(i, action, release) {
            Progress::Done => Progress::Failed(format!("{} ended with 0 but {missing}", action.word())),
            other => other,
        }
    }

    /// Moves a node of the batch towards the new build.
    pub(super) fn forward(&mut self, i: usize) -> Progress {
        let goal = self.plan.release;
        loop {
            let Some(seen) = self.seen(i) else {
                self.keep_step(i);
                return Progress::Working;
            };
            if let Some(progress) = self.change(i, seen, &goal) {
                match progress {
                    Progress::Done => continue,
                    other => return other,
                }
            }
            match self.node(i).phase {
                NodePhase::Analyse => {
                    let passed = self.serves_and_passes(i) && self.node(i).since < self.now();
                    if !passed {
                        return Progress::Working;
                    }
                    self.enter_phase(i, NodePhase::Admit);
                }
                NodePhase::Admit => {
                    if self.plan.hooks.admit {
                        match self.step(i, StepAction::Admit, &goal) {
                            Progress::Done => {}
                            other => return other,
                        }
                    }
                    self.put_back(i);
                    self.enter_phase(i, NodePhase::Done);
                    self.node_mut(i).in_batch = false;
                    let message = format!(
                        "{}@{} upgrade on: {}",
                        self.plan.component, self.plan.version, self.plan.nodes[i]
                    );
                    self.tell(Severity::Step, "NodeUpgraded", Some(i), message);
                    return Progress::Done;
                }
                NodePhase::Waiting
                | NodePhase::Checked
                | NodePhase::Install
                | NodePhase::Drain
                | NodePhase::Activate
                | NodePhase::Restart
                | NodePhase::Warm
                | NodePhase::Probe
                | NodePhase::Done
                | NodePhase::Removing
                | NodePhase::OutOfService => return Progress::Done,
            }
        }
    }

    /// Its service answers, on the new build where we can see that, and each of its gates passes.
    pub(super) fn serves_and_passes(&self, i: usize) -> bool {
        let signals = self.signals(i);
        let strayed = |s: &Seen| s.running.as_ref() != Some(&self.plan.release);
        signals.serving == Serving::Yes
            && !self.seen(i).is_some_and(strayed)
            && signals.readings.len() == self.plan.gates.len()
            && signals.readings.iter().all(Reading::passes)
    }

    /// Moves a node back to the build that it ran before.
    pub(super) fn backward(&mut self, i: usize) -> Progress {
        let Some(goal) = self.node(i).from else {
            return Progress::Failed("it ran no build before".to_owned());
        };
        loop {
            // What was refused of the way forward is not asked for again: going back asks for something else, which may be granted.
            if self.is_refused(i) && self.node(i).step.as_ref().is_some_and(|s| s.release != goal) {
                self.node_mut(i).step = None;
            }
            let Some(seen) = self.seen(i) else {
                self.keep_step(i);
                return Progress::Working;
            };
            // A step of the way forward may still run: it ends first, whatever it does.
            if self.node(i).step.as_ref().is_some_and(|s| s.release != goal) {
                self.keep_step(i);
                return Progress::Working;
            }
            if let Some(progress) = self.change(i, seen, &goal) {
                match progress {
                    Progress::Done => continue,
                    other => return other,
                }
            }
            if self.node(i).phase == NodePhase::Analyse {
                // Nothing is analysed node by node on the way back: the cure is proven on all of them together.
                self.enter_phase(i, NodePhase::Admit);
            }
            if self.node(i).phase == NodePhase::Admit && self.plan.hooks.admit {
                match self.step(i, StepAction::Admit, &goal) {
                    Progress::Done => {}
                    other => return other,
                }
            }
            self.put_back(i);
            self.enter_phase(i, NodePhase::Done);
            self.node_mut(i).in_batch = false;
            let message = format!(
                "{} is back on the build it ran before {}@{}",
                self.plan.nodes[i], self.plan.component, self.plan.version
            );
            self.tell(Severity::Step, "NodeRolledBack", Some(i), message);
            return Progress::Done;
        }
    }

    pub(super) fn keep_step(&mut self, i: usize) {
        if let Some(intent) = self.node(i).step.clone() {
            self.effects.push(StepEffect { node: i, intent });
        }
    }

    /// From Install to Probe, the same forward and back. `None` when the node is past them; `Done` when a phase ended
    /// and the next is to be looked at.
    fn change(&mut self, i: usize, seen: &Seen, goal: &Digest) -> Option<Progress> {
        let progress = match self.node(i).phase {
            NodePhase::Install => {
                if seen.releases.contains(goal) && self.node(i).step.is_none() {
                    self.ended[i] = None;
                    self.enter_phase(i, NodePhase::Drain);
                    Progress::Done
                } else {
                    self.step_until(i, StepAction::Install, goal, "the release is not complete")
                }
            }
            NodePhase::Drain => {
                if !self.node(i).drained {
                    if !self.may_take_out(i) {
                        return Some(Progress::Working);
                    }
                    self.take_out(i);
                    // Our own traffic hears of it once this is written: what is in flight counts from the next look on.
                    let now = self.now();
                    self.node_mut(i).since = now;
                    self.wake_by(now);
                    return Some(Progress::Working);
                }
                // A call that has not come back by the age that makes it bad is not waited for.
                let (since, age) = (self.node(i).since, self.longest_age());
                if self.signals(i).in_flight > 0 && self.node(i).step.is_none() && !self.passed(since, age) {
                    return Some(Progress::Working);
                }
                if self.plan.hooks.drain {
                    match self.step(i, StepAction::Drain, goal) {
                        Progress::Done => {}
                        other => return Some(other),
                    }
                }
                self.enter_phase(i, NodePhase::Activate);
                Progress::Done
            }
            NodePhase::Activate => {
                if seen.current.as_ref() == Some(goal) && self.node(i).step.is_none() {
                    self.ended[i] = None;
                    self.enter_phase(i, NodePhase::Restart);
                    Progress::Done
                } else {
                    self.step_until(i, StepAction::Activate, goal, "`current` points elsewhere")
                }
            }
            NodePhase::Restart => {
                if seen.running.as_ref() == Some(goal) && self.node(i).step.is_none() {
                    self.ended[i] = None;
                    self.enter_phase(i, NodePhase::Warm);
                    Progress::Done
                } else {
                    self.step_until(
                        i,
                        StepAction::Restart,
                        goal,
                        "the service does not run from the release",
                    )
                }
            }
            NodePhase::Warm => {
                if self.plan.hooks.warm {
                    match self.step(i, StepAction::Warm, goal) {
                        Progress::Done => {}
                        other => return Some(other),
                    }
                }
                self.enter_phase(i, NodePhase::Probe);
                Progress::Done
            }
            NodePhase::Probe => match self.signals(i).serving {
                Serving::Yes => {
                    self.enter_phase(i, NodePhase::Analyse);
                    let now = self.now();
                    self.node_mut(i).analysed_since = Some(now);
                    Progress::Done
                }
                Serving::No | Serving::Unknown => {
                    let since = self.node(i).since;
                    if self.passed(since, self.plan.policy.probe_deadline) {
                        Progress::Failed(format!(
                            "its probes do not pass {} after the restart",
                            self.plan.policy.probe_deadline
                        ))
                    } else {
                        Progress::Working
                    }
                }
            },
            NodePhase::Waiting
            | NodePhase::Checked
            | NodePhase::Analyse
            | NodePhase::Admit
            | NodePhase::Done
            | NodePhase::Removing
            | NodePhase::OutOfService => return None,
        };
        Some(progress)
    }
}

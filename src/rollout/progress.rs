//! What an upgrade that goes on does now, in words: what led to its phase is an event, and a status says how far it is.

use std::fmt::Write as _;

use super::decide::Draft;
use crate::model::upgrade::{NodePhase, NodeStatus, Phase};

/// Nodes of a batch that are named: a status is a line of a table, too.
const MOST_NAMED: usize = 3;

/// What one that was held does from now on, as far as that is known before the next look.
pub(super) fn going_on(phase: Phase) -> &'static str {
    match phase {
        Phase::Preflight => "it looks at its nodes again",
        Phase::Baseline => "it reads the gates on the old system again",
        Phase::Rolling => "it goes on with its nodes",
        Phase::Soak => "its gates watch every node again",
        Phase::RollingBack => "it goes on with its way back",
        Phase::Pending
        | Phase::Succeeded
        | Phase::RolledBack
        | Phase::RollbackIneffective
        | Phase::Paused
        | Phase::Aborted
        | Phase::Failed
        | Phase::Errored
        | Phase::Inconclusive => "it goes on",
    }
}

impl Draft<'_> {
    pub(super) fn reading_baseline(&self) -> String {
        format!("reading the gates on the old system for {}", self.plan.policy.baseline)
    }

    pub(super) fn goes_onto(&self) -> String {
        let (component, version) = (&self.plan.component, &self.plan.version);
        format!("{component}@{version} goes onto {} nodes", self.plan.nodes.len())
    }

    pub(super) fn soaking(&self) -> String {
        format!("every node changed; the gates watch for {} more", self.plan.policy.soak)
    }

    pub(super) fn proving(&self) -> String {
        match self.left_behind() {
            None => "every node is back; the gates read samples from now on to prove the cure".to_owned(),
            Some(names) => {
                format!("every node but {names} is back; the gates read samples from now on to prove the cure")
            }
        }
    }

    /// Says in the status how far it is, if it goes on.
    pub(super) fn note_progress(&mut self) {
        let now = match self.status.phase {
            Phase::Baseline => self.reading_baseline(),
            Phase::Rolling => format!("{}: {}", self.goes_onto(), self.so_far("done")),
            Phase::Soak => self.soaking(),
            Phase::RollingBack => {
                let now = match self.status.cure {
                    Some(_) => self.proving(),
                    None => self.so_far("back"),
                };
                match &self.status.cause {
                    Some(cause) => format!("{now}; it goes back since {}", cause.message),
                    None => now,
                }
            }
            // A preflight says itself what it waits for.
            Phase::Preflight
            | Phase::Pending
            | Phase::Succeeded
            | Phase::RolledBack
            | Phase::RollbackIneffective
            | Phase::Paused
            | Phase::Aborted
            | Phase::Failed
            | Phase::Errored
            | Phase::Inconclusive => return,
        };
        self.status.message = now;
    }

    /// How many nodes have gone their way, and which are on it.
    fn so_far(&self, gone: &str) -> String {
        let nodes = &self.status.nodes;
        let count = |phase| nodes.iter().filter(|node| node.phase == phase).count();
        let mut said = format!("{} of {} {gone}", count(NodePhase::Done), nodes.len());
        let lost = count(NodePhase::Removing) + count(NodePhase::OutOfService);
        if lost > 0 {
            let _ = write!(said, ", {lost} given up");
        }
        let batch: Vec<&NodeStatus> = nodes.iter().filter(|node| node.in_batch).collect();
        let named: Vec<&str> = batch.iter().take(MOST_NAMED).map(|node| node.name.as_str()).collect();
        if !named.is_empty() {
            let _ = write!(said, ", now {}", named.join(", "));
        }
        if batch.len() > MOST_NAMED {
            let _ = write!(said, " and {} more", batch.len() - MOST_NAMED);
        }
        said
    }
}

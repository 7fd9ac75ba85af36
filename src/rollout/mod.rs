//! Deciding what an upgrade does next, as one pure function of what is wanted, what was written down, what is seen
//! and what time it is. The same function runs live, after a crash, in replay and in the simulator.
//!
//! Nothing here remembers having done something: a release is installed when the node shows it complete, active when
//! `current` points at it, running when the service process was started from it. The status holds what cannot be seen:
//! intents, windows of samples, and who took a node out of traffic.

mod blame;
mod decide;
mod forward;
mod lost;
mod nodes;
mod phases;
mod plan;
mod progress;
mod rollback;

pub use decide::{Decision, RolloutError, StepEffect, decide, refuse, resume};
pub use forward::FOREIGN_HOME;
pub use phases::{IllegalTransition, transition};
pub use plan::{
    Blind, GatePlan, Hooks, Look, NodeView, Observed, Order, Plan, Policy, Prepared, Reading, Seen, Serving, Signals,
    Silence, StepView, WishedBy,
};
pub use rollback::{NOBODY_REACHED, waits_to_reach};

#[cfg(test)]
mod tests;

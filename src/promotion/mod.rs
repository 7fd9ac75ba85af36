//! Whether a build may go onto an environment now, what it waits for if not, and what a promotion does next. Pure: facts go in,
//! and what keeps it and what is to be done come out.

pub mod approvals;
pub mod calendar;
mod decide;
pub mod freezes;
pub mod obstacle;

pub use decide::{Case, Decision, Effect, FROZEN, RehearsalRun, RunState, UpgradeRun, decide};

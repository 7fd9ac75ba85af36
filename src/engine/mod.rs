//! The loop around the decision: observe, decide, commit, act. It holds no state that matters: killed anywhere, the
//! next driver reads the status, looks at the nodes, and goes on.

pub mod adopt;
pub mod builds;
pub mod delivery;
pub mod disturb;
mod drive;
pub mod fleet;
pub mod foreign;
pub mod giving_back;
pub mod interrupt;
pub mod lease;
pub mod ledger;
pub mod live;
pub mod look;
pub mod promotion;
pub mod provenance;
pub mod rehearsal;
pub mod replica;
pub mod session;
pub mod up;
mod world;

pub use drive::{DriveError, Ending, Limits, Unreached, drive};
pub use world::{CommitError, Loaded, World};

//! The loop around the decision: observe, decide, commit, act. It holds no state that matters: killed anywhere, the
//! next driver reads the status, looks at the nodes, and goes on.

mod drive;
mod world;

pub use drive::{DriveError, Ending, Limits, drive};
pub use world::{CommitError, Loaded, Watched, World};

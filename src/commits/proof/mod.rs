//! What was proven of a commit, and by whom.

pub mod verdict;

pub use verdict::{Engine, HookRun, Outcome, Passed, Subject, Verdict};

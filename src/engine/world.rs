//! What the loop needs of the world. Two real things stand behind it: the live one (store, hosts, signals) and the
//! simulator's, in which every call may be slow, lost or the last.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::hosts::{HostError, NodeSight};
use crate::model::upgrade::{Blocker, StepIntent, UpgradeStatus, Wish};
use crate::rollout::{Decision, Prepared, Signals, WishedBy};

/// An upgrade as it is written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// How far it is; shared, because every turn of the loop reads it and few change it.
    pub status: Arc<UpgradeStatus>,
    /// What the operator wants.
    pub wish: Wish,
    /// How that was said.
    pub wished_by: WishedBy,
    /// Rises with every write of the status; a commit names the one that it was decided from.
    pub version: u64,
}

/// Why a commit did not happen. In every case nothing of it is visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Somebody wrote in between: read again, decide again.
    #[error("the upgrade was changed by somebody else in between")]
    Conflict,
    /// The lease is no longer ours.
    #[error("the environment's lease was taken over: {0}")]
    Fenced(String),
    /// The store could not write.
    #[error("{0}")]
    Store(String),
}

/// Everything outside the loop.
pub trait World {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Reads the upgrade.
    fn load(&self) -> impl Future<Output = Result<Loaded, CommitError>>;

    /// Makes a decision durable: status, events, reports and quarantine in one write, if the version is still the one
    /// named and the lease still ours. Returns the new version. When it returns, the write survives a crash.
    fn commit(&self, version: u64, decision: &Decision) -> impl Future<Output = Result<u64, CommitError>>;

    /// Keeps the lease; called at least every [`super::Limits::renew_every`].
    fn renew(&self) -> impl Future<Output = Result<(), CommitError>>;

    /// Looks at a node, and at the step named, in one round trip.
    fn observe(&self, node: usize, step: Option<&StepIntent>) -> impl Future<Output = Result<NodeSight, HostError>>;

    /// Makes sure that a step runs or ran, waits up to `patience` for its end, and looks at the node.
    fn run(
        &self,
        node: usize,
        step: &StepIntent,
        patience: Duration,
    ) -> impl Future<Output = Result<NodeSight, HostError>>;

    /// Tells the signals what the status wants watched, and what was last seen of each node.
    fn watch(&self, status: &UpgradeStatus, sights: &[Option<NodeSight>]);

    /// What the signals say of a node now.
    fn signals(&self, node: usize) -> Signals;

    /// Whether the build's artifact is there; the first call begins its preparation.
    fn prepared(&self) -> Prepared;

    /// Who holds what others wait for, as last seen.
    fn blockers(&self) -> Vec<Blocker>;

    /// Resolves when the signals have something that may change a decision.
    fn stirred(&self) -> impl Future<Output = ()>;

    /// Resolves when the driver is asked to end.
    fn interrupted(&self) -> impl Future<Output = ()>;
}

//! Where nodes live: this machine or a server over SSH, both spoken to through one shell agent that travels with
//! each call, so that nothing has to be installed on a node and no two versions of it can meet.
//!
//! # What a host promises
//! - **A step runs at most once.** A step has an id; running an id that already ran returns how it ended, and an id
//!   that still runs is joined. A step outlives the driver that started it.
//! - **An older driver is refused.** Every call that changes a node carries the fencing token; the node remembers the
//!   highest and refuses a lower one (I2).
//! - **One round trip an observation.**

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::values::Digest;

/// Proof of holding an environment's lease: the home that issued it and a counter that only rises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingToken {
    /// Identity of the home (a state file, a cluster); a node serves one home until adopted by another.
    pub home: String,
    /// Rises with every change of holder.
    pub counter: u64,
}

/// What one look at a node saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSight {
    /// The release that `current` points to.
    pub current: Option<Digest>,
    /// Releases whose completion marker exists.
    pub releases: Vec<Digest>,
    /// The service process, if it lives.
    pub running: Option<RunningService>,
    /// The steps that were asked about, those that the node knows.
    pub steps: BTreeMap<String, StepState>,
    /// Free space where the node directory lies, in bytes.
    pub free_bytes: u64,
    /// Whether the component's `setup` was completed here.
    pub set_up: bool,
}

/// A living service process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningService {
    /// The release it was started from; `None` when it was not started by a step of ours.
    pub build: Option<Digest>,
    /// Its process id on the node.
    pub pid: u32,
    /// When it started, by the node's clock.
    pub started_at: Timestamp,
}

/// Where a step stands on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    /// Its process lives.
    Running,
    /// It ended and wrote its exit status.
    Ended(StepEnd),
    /// Its process is gone without a status (the node was rebooted, or somebody killed it).
    Died,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEnd {
    /// Exit status; 0 is success, 124 a deadline passed.
    pub exit: i32,
    /// The last lines of its output, bounded and stripped of control characters.
    pub log_tail: String,
}

/// What a step does on a node. All are idempotent, and each is done in one step directory with one journal line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Runs a rendered lifecycle script (setup, check, drain, warm, admit, remove).
    Script(Script),
    /// Fills `releases/<digest>` by the script from the artifact, then writes the completion marker.
    Install {
        /// The release to fill.
        release: Digest,
        /// The component's install action.
        script: Script,
    },
    /// Points `current` at a complete release, atomically. No script.
    Activate {
        /// The release to point at.
        release: Digest,
    },
    /// Stops the service gracefully (killing it hard after the stop script's deadline), then starts it from `current`.
    Restart {
        /// The component's stop action.
        stop: Script,
        /// The component's start action.
        start: Script,
    },
    /// Starts the service if it does not run.
    Start {
        /// The component's start action.
        start: Script,
    },
    /// Stops the service if it runs.
    Stop {
        /// The component's stop action.
        stop: Script,
    },
    /// Deletes complete releases other than `current` and the ones named.
    Prune {
        /// Releases to keep.
        keep: Vec<Digest>,
    },
}

/// A rendered lifecycle script with what it may use.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// The text, run as an executable file; its `#!` line counts.
    pub text: String,
    /// After this its process group is killed.
    pub deadline: Duration,
    /// Name and content of each secret, given as 0600 files for as long as the step runs.
    pub secrets: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Script {
    /// Names the secrets and hides their content (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("text", &format_args!("{} bytes", self.text.len()))
            .field("deadline", &self.deadline)
            .field("secrets", &self.secrets.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// A step: an id that is unique on its node, and the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Unique on the node for ever; letters, digits, `.`, `_` and `-`.
    pub id: String,
    /// One word for the journal: install, activate, restart, …
    pub action: String,
    /// What to do.
    pub work: Work,
}

/// What a node needs to be found and understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node's name in its environment.
    pub node: String,
    /// Its directory on its host. Absolute, or for SSH relative to the login directory.
    pub directory: String,
    /// The service's pid file, relative to the directory; `None` for a component without a service.
    pub pid_file: Option<String>,
}

/// Why a host could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No connection, or it broke; what was asked may or may not have happened: observe.
    #[error("cannot reach {host}: {why}")]
    Unreachable {
        /// The host as the environment names it.
        host: String,
        /// What the connection said.
        why: String,
    },
    /// The node has seen a newer token: another driver has taken over.
    #[error("node {node} refused us: it has seen token {seen}, ours is {ours}; another driver has taken over")]
    Fenced {
        /// The node.
        node: String,
        /// The token it remembers.
        seen: String,
        /// The token we showed.
        ours: String,
    },
    /// The node belongs to another home.
    #[error("node {node} serves another home ({seen}); adopt it first")]
    ForeignHome {
        /// The node.
        node: String,
        /// The home it serves.
        seen: String,
    },
    /// The agent could not do its own part (disk full, no permission).
    #[error("{host} could not {tried}: {why}")]
    Failed {
        /// The host as the environment names it.
        host: String,
        /// What was tried.
        tried: String,
        /// What happened.
        why: String,
    },
}

/// One place that carries nodes.
pub trait Host: Send + Sync {
    /// Looks at a node in one round trip: its releases, its service, and the steps named.
    fn observe(
        &self,
        node: &NodeAddress,
        steps: &[String],
    ) -> impl Future<Output = Result<NodeSight, HostError>> + Send;

    /// Makes sure that a step runs or ran, waits up to `patience` for its end, and looks at the node again, all in one
    /// round trip. A step that already ended is not run again; one that still runs is joined.
    fn run(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        step: &Step,
        patience: Duration,
    ) -> impl Future<Output = Result<NodeSight, HostError>> + Send;

    /// Brings a prepared build to the node, by digest and atomic rename; costs one look when it is already there.
    fn deliver(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        build: &Digest,
        artifact: &std::path::Path,
    ) -> impl Future<Output = Result<(), HostError>> + Send;
}

//! Where nodes live: this machine or a server over SSH, both spoken to through one shell agent that travels with
//! each call, so that nothing has to be installed on a node and no two versions of it can meet.
//!
//! # What a host promises
//! - **A step runs at most once.** A step has an id; running an id that already ran returns how it ended, and an id
//!   that still runs is joined. A step outlives the driver that started it.
//! - **An older driver is refused.** Every call that changes a node carries the fencing token; the node remembers the
//!   highest and refuses a lower one (I2).
//! - **One step at a time.** Steps of a node run in the order of asking; a second one waits for the first.
//! - **A step leaves nothing behind** but what it was to leave: its process group is killed at its end, and so is whatever
//!   left that group with its environment. Only a start that succeeded leaves a service: its script ended with 0, and the pid
//!   file, where the component has one, names a living process then.
//! - **One round trip a call**, and one more to bring a build that is not there yet.
//! - **Secrets travel by stdin**, lie in 0600 files while their script runs, and are in no argument list, log or journal (I8).
//!
//! The rooms within: [`agent`] says what to ask the shell agent (`agent/*.sh`) and reads its answers; [`local`] and [`ssh`]
//! only know how to run `sh` with something on its stdin.

mod agent;
mod local;
mod ssh;

pub use crate::cluster::deployments::DeploymentHost;
pub use crate::cluster::pods::PodHost;
use crate::cluster::printed::Printed;
pub(crate) use agent::quoted;
pub use local::LocalHost;
pub use ssh::SshHost;

use std::collections::BTreeMap;
use std::net::SocketAddr;
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
    /// Releases whose completion marker exists, the one completed last first.
    pub releases: Vec<Digest>,
    /// The service process, if it lives.
    pub running: Option<RunningService>,
    /// Living processes of the service that a step of ours started last, its main process being gone. They may hold its port
    /// and answer. Told by their environment, which they can change.
    pub remains: Vec<u32>,
    /// The steps that were asked about, those that the node knows.
    pub steps: BTreeMap<String, StepState>,
    /// Free space where the node directory lies, in bytes; `None` when this is the answer to a step.
    pub free_bytes: Option<u64>,
    /// Whether the component's `setup` was completed here.
    pub set_up: bool,
    /// The highest token that it has seen; `None` before the first.
    pub fence: Option<FencingToken>,
    /// Where its service answers, of a node that has another address after each start; `None` of one that is where its
    /// environment says, and of one that has none now.
    pub address: Option<String>,
    /// What somebody else has made of it since the upgrade that has it began: what is seen there, and what was meant.
    pub foreign_edit: Option<String>,
    /// That what it is on is no build that is stated, so nobody could go back to it, and what to do; `current` is none then.
    pub unstated: Option<String>,
    /// The upgrade that has the workload that it is a pod of, as is remembered there.
    pub held_by: Option<String>,
    /// What tells that workload from one of the same name that was made in its place.
    pub workload: Option<String>,
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

/// The exit status of a step whose pod has no image, for which not the build is to blame. No script can end with it: theirs are
/// 0 to 255.
pub const IMAGE_NOT_FETCHED: i32 = 1_000;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEnd {
    /// Exit status of the script that failed; 0 is success, 124 a deadline passed, 1 also what the agent itself found wrong
    /// (the log says what), [`IMAGE_NOT_FETCHED`] that of a pod.
    pub exit: i32,
    /// The last lines of its output, bounded and stripped of control characters.
    pub log_tail: String,
}

/// How a step that was waited for came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It ended and wrote its exit status.
    Ended(StepEnd),
    /// Its process was killed, or the machine restarted.
    CutOff,
}

/// One wait for the end of a step: short enough for a connection that is lost in between to be noticed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a step does on a node. All are idempotent, each in a step directory of its own. The node's journal has a line
/// `start` and a line `end rc=N` for each that ran, and a line `skip` for one that found nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Runs a rendered lifecycle script (check, drain, warm, admit, remove).
    Script(Script),
    /// Runs the component's setup script, once for the life of the node: [`NodeSight::set_up`] is true from then on.
    Setup(Script),
    /// Fills `releases/<digest>` by the script from the artifact, then writes the completion marker.
    Install {
        /// The release to fill.
        release: Digest,
        /// The component's install action.
        script: Script,
    },
    /// Makes a node ready for an upgrade that is about to begin: what it needs beside what is there is made, and what makes the
    /// upgrade impossible is told. Only workloads of a cluster need that.
    Take {
        /// Within this.
        deadline: Duration,
    },
    /// Points `current` at a complete release, atomically. No script.
    Activate {
        /// The release to point at.
        release: Digest,
    },
    /// Stops the service gracefully (killing it hard after the stop script's deadline), then starts it from `current`. A stop
    /// script only has to ask: the host waits for the end of every process of the service. One that waits itself by `kill -0`
    /// waits longer, since that also finds a dead process which init has not buried yet.
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
    /// Deletes releases and prepared builds other than `current`, the one that the service runs, and the ones named;
    /// and of all but the last hundred steps everything but how they ended.
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
    /// Environment variables beside those that every step gets. They may hold secrets (the password of a package index), so
    /// they travel and lie as secrets do; only the script's own environment shows them.
    pub environment: BTreeMap<String, String>,
}

impl std::fmt::Debug for Script {
    /// Names the secrets and variables and hides their content (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("text", &format_args!("{} bytes", self.text.len()))
            .field("deadline", &self.deadline)
            .field("secrets", &self.secrets.keys().collect::<Vec<_>>())
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
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
    /// The environment that it belongs to, as messages name it.
    pub environment: String,
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
    #[error(
        "node {node} refused us: it has seen token {seen}, ours is {ours}; another driver has taken over. Where this state was restored from a backup, `stagegate adopt {environment}` catches up"
    )]
    Fenced {
        /// Its environment.
        environment: String,
        /// The node.
        node: String,
        /// The token it remembers.
        seen: String,
        /// The token we showed.
        ours: String,
    },
    /// The node belongs to another home.
    #[error("node {node} serves another home ({seen}); `stagegate adopt {environment}` takes its nodes over")]
    ForeignHome {
        /// Its environment.
        environment: String,
        /// The node.
        node: String,
        /// The home it serves.
        seen: String,
    },
    /// Who speaks for the node, and for others with it, refused or did not answer: the API server of its workload. It says nothing of
    /// the node; and what was asked may or may not have happened.
    #[error("{host} could not {tried}: {why}")]
    Unserved {
        /// The host as the environment names it.
        host: String,
        /// What was tried.
        tried: String,
        /// What was heard.
        why: String,
    },
    /// A rule of what the node is a part of forbids what was asked, which was not begun.
    #[error("{host}: cannot {tried}: {why}")]
    Refused {
        /// The host as the environment names it.
        host: String,
        /// What was tried.
        tried: String,
        /// Which rule.
        why: String,
    },
    /// What it is a part of is not what the environment states, so nobody can say what of it is meant: a person mends one of the two.
    #[error("{host}: {why}")]
    Misstated {
        /// The host as the environment names it.
        host: String,
        /// What is there, and what to state.
        why: String,
    },
    /// The agent could not do its own part (disk full, no permission).
    #[error("{host}: cannot {tried}: {why}")]
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

    /// Runs a step and waits for its end, which comes by the deadlines of its scripts at the latest.
    fn finish(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        step: &Step,
    ) -> impl Future<Output = Result<Finished, HostError>> + Send {
        async move {
            loop {
                let mut sight = self.run(node, token, step, PATIENCE).await?;
                match sight.steps.remove(&step.id) {
                    Some(StepState::Running) => {}
                    Some(StepState::Ended(end)) => return Ok(Finished::Ended(end)),
                    Some(StepState::Died) | None => return Ok(Finished::CutOff),
                }
            }
        }
    }

    /// Brings a prepared build to the node, complete or not at all; costs one look when it is already there.
    fn deliver(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        build: &Digest,
        artifact: &std::path::Path,
    ) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Makes the node serve this token's home from now on, whichever it served before. Of its own home it has seen no higher
    /// token than this one, or it refuses as ever.
    fn adopt(&self, node: &NodeAddress, token: &FencingToken) -> impl Future<Output = Result<(), HostError>> + Send;

    /// What was kept from others while an upgrade went on is theirs again. Of an upgrade that has nothing here any more there is
    /// nothing to do.
    fn leave(
        &self,
        _node: &NodeAddress,
        _token: &FencingToken,
        _leaving: &Leaving<'_>,
    ) -> impl Future<Output = Result<(), HostError>> + Send {
        async { Ok(()) }
    }

    /// Deletes the node directory with everything in it, running nothing. Refuses while its service or a step runs;
    /// succeeds when there is no directory.
    fn destroy(&self, node: &NodeAddress, token: &FencingToken) -> impl Future<Output = Result<(), HostError>> + Send;

    /// Reads on in a file, for following a log: at most `at_most` bytes (and never more than 1 MiB). `file` is relative to
    /// the node directory or absolute.
    ///
    /// A file is told by its inode: one that was renamed is read on under its new name, as long as that lies beside the old
    /// one and begins with it (`server.log.1`). One that was cut back is read from its beginning.
    fn tail(
        &self,
        node: &NodeAddress,
        file: &str,
        from: TailFrom,
        at_most: usize,
    ) -> impl Future<Output = Result<Tail, HostError>> + Send;

    /// The local ends of the service's established TCP connections (of its process and all below it) to a remote port:
    /// tells whose session a database client is.
    fn sockets(
        &self,
        node: &NodeAddress,
        remote_port: u16,
    ) -> impl Future<Output = Result<Vec<SocketAddr>, HostError>> + Send;
}

/// Who leaves a workload to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving<'a> {
    /// An upgrade that has ended just now: what is found there otherwise than it was made, it was made so while it went on.
    JustEnded(Ended<'a>),
    /// One that ended some time ago: what its owner has made of it since stays.
    EndedBefore(Ended<'a>),
    /// One that nobody knows of any more, and that has left something behind: the same.
    Unknown {
        /// Its name, as its workload has it; none where that has nothing but a canary whose upgrade is remembered nowhere.
        by: Option<&'a str>,
    },
}

/// An upgrade that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended<'a> {
    /// Which.
    pub upgrade: &'a str,
    /// Where it was going, whether or not its workload was ever told so.
    pub went: Went,
}

/// Where an upgrade was going when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// To its build.
    Forward,
    /// To what was there before.
    Back,
}

impl Leaving<'_> {
    /// Whether it has nothing to do with what this upgrade has.
    #[must_use]
    pub fn is_of_another(&self, upgrade: &str) -> bool {
        match self {
            Self::JustEnded(ended) | Self::EndedBefore(ended) => ended.upgrade != upgrade,
            Self::Unknown { by } => *by != Some(upgrade),
        }
    }

    /// Where it was going, as far as is known.
    #[must_use]
    pub fn went(&self) -> Went {
        match self {
            Self::JustEnded(ended) | Self::EndedBefore(ended) => ended.went,
            Self::Unknown { .. } => Went::Forward,
        }
    }
}

/// Where to read on in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailFrom {
    /// Its first byte.
    Start,
    /// Its end as it is now: nothing is read yet, and [`Piece::next`] says where to go on.
    End,
    /// Where an earlier piece ended.
    At(FilePosition),
}

/// A place in a file that keeps its meaning when the file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// The file's inode.
    pub inode: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// What a look at a followed file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Inode of the file that the path names now; `None` when there is none.
    pub current: Option<u64>,
    /// What is at the position; `None` when that file is not to be found.
    pub piece: Option<Piece>,
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where the bytes begin.
    pub from: FilePosition,
    /// The file's size when it was looked at, in bytes.
    pub size: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Where to read on.
    #[must_use]
    pub fn next(&self) -> FilePosition {
        FilePosition {
            inode: self.from.inode,
            offset: self.from.offset + self.bytes.len() as u64,
        }
    }
}

/// A host of any kind.
#[derive(Debug)]
pub enum AnyHost {
    /// This machine.
    Local(LocalHost),
    /// A server over SSH.
    Ssh(SshHost),
    /// A pod.
    Pod(PodHost),
    /// A Deployment, or its canary.
    Deployment(DeploymentHost),
}

impl AnyHost {
    /// What the containers of a pod print; of a server there is none, its logs are files.
    #[must_use]
    pub fn printed(&self) -> Option<Printed> {
        match self {
            AnyHost::Local(_) | AnyHost::Ssh(_) => None,
            AnyHost::Pod(host) => Some(host.printed()),
            AnyHost::Deployment(host) => Some(host.printed()),
        }
    }
}

/// Asks whichever it is.
macro_rules! ask {
    ($host:expr, $call:ident($($argument:expr),*)) => {
        match $host {
            AnyHost::Local(host) => host.$call($($argument),*).await,
            AnyHost::Ssh(host) => host.$call($($argument),*).await,
            // What a call to an API server holds is many times what the others do.
            AnyHost::Pod(host) => Box::pin(host.$call($($argument),*)).await,
            AnyHost::Deployment(host) => Box::pin(host.$call($($argument),*)).await,
        }
    };
}

impl Host for AnyHost {
    async fn observe(&self, node: &NodeAddress, steps: &[String]) -> Result<NodeSight, HostError> {
        ask!(self, observe(node, steps))
    }

    async fn run(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        step: &Step,
        patience: Duration,
    ) -> Result<NodeSight, HostError> {
        ask!(self, run(node, token, step, patience))
    }

    async fn deliver(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        build: &Digest,
        artifact: &std::path::Path,
    ) -> Result<(), HostError> {
        ask!(self, deliver(node, token, build, artifact))
    }

    async fn adopt(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        ask!(self, adopt(node, token))
    }

    async fn leave(&self, node: &NodeAddress, token: &FencingToken, leaving: &Leaving<'_>) -> Result<(), HostError> {
        ask!(self, leave(node, token, leaving))
    }

    async fn destroy(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        ask!(self, destroy(node, token))
    }

    async fn tail(&self, node: &NodeAddress, file: &str, from: TailFrom, at_most: usize) -> Result<Tail, HostError> {
        ask!(self, tail(node, file, from, at_most))
    }

    async fn sockets(&self, node: &NodeAddress, remote_port: u16) -> Result<Vec<SocketAddr>, HostError> {
        ask!(self, sockets(node, remote_port))
    }
}

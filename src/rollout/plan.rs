//! What the decision is made from.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::model::upgrade::{Blocker, Verdict, Wish};
use crate::model::values::{Digest, Duration};

/// What is wanted, resolved from the environment: fixed for the life of an upgrade.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The upgrade's name; begins the id of each of its steps.
    pub upgrade: String,
    /// The component whose nodes change.
    pub component: String,
    /// The version, for people.
    pub version: String,
    /// The release that each node is to run.
    pub release: Digest,
    /// Identifies everything that the environment says of this component: rules that change on the way are told.
    pub rules: Digest,
    /// Names of the nodes, in the environment's order.
    pub nodes: Vec<String>,
    /// Of these, the ones that the upgrade before left out of service: they may answer, and get no traffic.
    pub left_out: BTreeSet<String>,
    /// Of these, the ones that are pods of a workload: one API server speaks for all of them, and what is kept of it from its
    /// owner meanwhile is given back at the end.
    pub pods: BTreeSet<String>,
    /// The gates, each read on every node.
    pub gates: Vec<GatePlan>,
    /// Bounds and times.
    pub policy: Policy,
    /// Which optional actions the component has.
    pub hooks: Hooks,
}

/// A gate as the decision needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct GatePlan {
    /// Its name.
    pub name: String,
    /// Without a decision by then: Inconclusive.
    pub deadline: Duration,
    /// The age that makes a call bad.
    pub age: Duration,
    /// How long a neighbour that shows the same trouble is given to fail too: one age, and what a test with a good past takes
    /// longer.
    pub neighbour_wait: Duration,
}

/// Bounds and times of a rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Nodes out of service at most, for whatever reason.
    pub max_unavailable: usize,
    /// Nodes changed together at most.
    pub batch_size: usize,
    /// How long the old system is read at least.
    pub baseline: Duration,
    /// How long the gates watch after the last node.
    pub soak: Duration,
    /// Nodes that may fail while their peers pass.
    pub failed_node_budget: usize,
    /// How long to wait for an unreachable node, a missing place or a first sample.
    pub patience: Duration,
    /// How long a restarted node may take until its probes pass.
    pub probe_deadline: Duration,
    /// Free space that a node must have.
    pub min_free_bytes: u64,
    /// Which of the nodes that wait goes next on the way forward.
    pub order: Order,
}

/// Which of the nodes that wait goes next on the way forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The sick before the others.
    SickFirst,
    /// The next of the plan, whatever it is like: pods of a `StatefulSet` change from the top down.
    AsListed,
    /// As listed, and the first is a canary: it was made beside what serves, so it takes no place of those that may be out, and
    /// what it stands for does not wait for it on the way back.
    CanaryFirst,
}

impl Order {
    /// Whether this node is a canary.
    #[must_use]
    pub fn is_canary(self, node: usize) -> bool {
        match self {
            Self::SickFirst | Self::AsListed => false,
            Self::CanaryFirst => node == 0,
        }
    }
}

/// Which optional actions the component has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one per optional action; each is a fact, not a mode"
)]
pub struct Hooks {
    /// Preflight check.
    pub check: bool,
    /// Balancer hook: out.
    pub drain: bool,
    /// First requests.
    pub warm: bool,
    /// Balancer hook: in.
    pub admit: bool,
}

/// What is seen, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// That moment.
    pub now: Timestamp,
    /// Since when this driver has watched without a gap: nothing is held against a node for a time in which nobody looked.
    pub watching_since: Timestamp,
    /// The operator's standing wish.
    pub wish: Wish,
    /// How that was said.
    pub wished_by: WishedBy,
    /// Whether the build is ready to be delivered.
    pub prepared: Prepared,
    /// Each node of the plan, in its order.
    pub nodes: Vec<NodeView>,
    /// Who holds what others wait for.
    pub blockers: Vec<Blocker>,
}

/// How a wish was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WishedBy {
    /// In so many words: a command, or the key of an object.
    #[default]
    Word,
    /// Its object was deleted, and an API server does not say by whom.
    Deletion,
}

impl WishedBy {
    /// The reason of an upgrade that is aborted so, and the same for people.
    pub(super) fn aborts(self) -> (&'static str, &'static str) {
        match self {
            WishedBy::Word => ("AbortedByUser", "an operator asked for it"),
            WishedBy::Deletion => ("ObjectDeleted", "its object was deleted while it was under way"),
        }
    }
}

/// Whether the build's artifact exists on the driver's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// It is being made.
    Pending,
    /// It is there.
    Ready,
    /// It could not be made.
    Failed(String),
}

/// A node as seen now: by a look at its host, and by our signals, which need no answer of its host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeView {
    /// What the last look at it showed.
    pub look: Look,
    /// What the signals say.
    pub signals: Signals,
}

/// What the signals say of one node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signals {
    /// What its probes say since its service started.
    pub serving: Serving,
    /// Calls of our own traffic that have not come back yet.
    pub in_flight: usize,
    /// What its gates say, in the plan's order of gates, over the window that the status names; empty while there is none.
    pub readings: Vec<Reading>,
}

/// A look at a node.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a node, and nearly all of them are the large one"
)]
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Look {
    /// Not looked at yet by this driver.
    #[default]
    NotYet,
    /// It could not be looked at, or asked for its present step, which is tried again before it is looked at.
    Unreachable {
        /// What was heard instead.
        why: String,
        /// Of whom that tells.
        of: Silence,
    },
    /// It serves another home, and does nothing for this one. A drive begins with that or ends at it.
    Foreign {
        /// The node's words, with the way on.
        why: String,
    },
    /// Looked at.
    Seen(Seen),
}

/// Of whom it tells that a node could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Of this node: there is no connection, or its agent failed.
    Node,
    /// Of who speaks for it and for others with it, and refused or did not answer: the API server of its workload. It says nothing of
    /// the node.
    Speaker,
    /// Of neither: what was asked is against a rule, and was not begun.
    Refusal,
}

/// What a look at a node showed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seen {
    /// The release that `current` points to.
    pub current: Option<Digest>,
    /// Complete releases.
    pub releases: Vec<Digest>,
    /// The release that the living service was started from.
    pub running: Option<Digest>,
    /// The step of the status' intent, if the node knows it.
    pub step: Option<StepView>,
    /// Free space, bytes; `None` in the answer to a step, which a look with enough of it came before.
    pub free_bytes: Option<u64>,
    /// What somebody else has made of it meanwhile, if that is seen there.
    pub foreign_edit: Option<String>,
    /// That what it is on is no build that is stated, and what to do.
    pub unstated: Option<String>,
    /// As in [`crate::hosts::NodeSight`].
    pub held_by: Option<String>,
    /// The same.
    pub workload: Option<String>,
}

/// A step as its node shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepView {
    /// It runs.
    Running,
    /// It ended.
    Ended {
        /// 0 is success.
        exit: i32,
        /// Last lines of its log.
        log_tail: String,
    },
    /// It ended because the image of the build could not be fetched, by no fault of the build.
    NotFetched {
        /// What the machine says of it.
        why: String,
    },
    /// It is gone without an end.
    Died,
}

/// What a node's probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serving {
    /// They have not decided since the service or this driver started.
    #[default]
    Unknown,
    /// It answers.
    Yes,
    /// It does not.
    No,
}

/// What a gate says of one node, over the window that the node's status names.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What it says.
    pub verdict: Verdict,
    /// Its figures in words.
    pub reason: String,
    /// Bad outcomes in the window.
    pub bad: u64,
    /// The intended time of the last bad call.
    pub last_bad_at: Option<Timestamp>,
    /// When what made it fail began.
    pub onset_at: Option<Timestamp>,
    /// When it decided.
    pub decided_at: Option<Timestamp>,
    /// The evidence file, once it decided.
    pub evidence: Option<String>,
    /// Its sensor sees nothing now, whatever it saw before.
    pub blind: Option<Blind>,
}

/// Trouble that goes on for so long is no blink: one call that could not be checked, a log that was just rotated.
const BLINK: Duration = Duration::from_secs(5);

impl Reading {
    /// Passes, and can still see: what it saw before it went blind says nothing of now (I7).
    #[must_use]
    pub fn passes(&self) -> bool {
        self.verdict == Verdict::Pass && !self.is_blind()
    }

    /// Has seen nothing but trouble for longer than a blink.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind.as_ref().is_some_and(Blind::lasts)
    }
}

/// A sensor that cannot see: trouble of ours or of what it needs, never the node's doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blind {
    /// The first time that it could not since it last could.
    pub since: Timestamp,
    /// The last time. One note of trouble and silence after it is no proof that it cannot see.
    pub last: Timestamp,
    /// Why, last.
    pub why: String,
}

impl Blind {
    /// It is more than a blink.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.lasted(BLINK)
    }

    /// Trouble was met again after so long.
    #[must_use]
    pub fn lasted(&self, length: Duration) -> bool {
        self.last.duration_since(self.since) >= length.signed()
    }
}

//! An upgrade: one build going onto one environment. Its spec says what is wanted, its status how far it is.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Digest;

/// What an upgrade is asked to do. Everything else about it is in the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeSpec {
    /// The environment that it goes onto.
    pub environment: String,
    /// The component whose nodes change.
    pub component: String,
    /// Name of the Build (`COMPONENT-VERSION`).
    pub build: String,
    /// Who asked for it.
    #[serde(default)]
    pub user: String,
    /// The promotion that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub promotion: Option<String>,
    /// What the operator wants of it now.
    #[serde(default)]
    pub wish: Wish,
}

/// An operator's standing wish; the engine moves towards it and keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Wish {
    /// Go on to the end.
    #[default]
    Proceed,
    /// Finish the steps that run, then hold.
    Pause,
    /// The same, since the time is up that its command was given (`--timeout`): nobody has decided against it.
    TimeUp,
    /// Go back to the build that ran before, then end.
    Abort,
}

/// Where an upgrade stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Known, not begun.
    Pending,
    /// Nodes, space, prerequisites and build are looked at; nothing changes.
    Preflight,
    /// Every gate is read on the still old system, which also shows that the sensors work.
    Baseline,
    /// Batches of nodes change, each behind its gates.
    Rolling,
    /// All nodes changed; the gates keep watching.
    Soak,
    /// The build runs everywhere and every gate passed.
    Succeeded,
    /// Nodes go back to the build they ran before.
    RollingBack,
    /// They are back, and the gate that failed passes again.
    RolledBack,
    /// They are back, and the gate still does not pass.
    RollbackIneffective,
    /// Held, with a reason; `resume`, `abort` or another `upgrade` goes on.
    Paused,
    /// Ended by an operator; the nodes are back on the build they ran before.
    Aborted,
    /// The build could not be rolled forward and there is nothing to go back to.
    Failed,
    /// Our own machinery failed.
    Errored,
    /// The gates could not decide by their deadline; held.
    Inconclusive,
}

impl Phase {
    /// Whether nothing will ever happen again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Phase::Succeeded
            | Phase::RolledBack
            | Phase::RollbackIneffective
            | Phase::Aborted
            | Phase::Failed
            | Phase::Errored => true,
            Phase::Pending
            | Phase::Preflight
            | Phase::Baseline
            | Phase::Rolling
            | Phase::Soak
            | Phase::RollingBack
            | Phase::Paused
            | Phase::Inconclusive => false,
        }
    }
    /// Whether it waits for a person.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, Phase::Paused | Phase::Inconclusive)
    }
}

/// Where one node stands within its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum NodePhase {
    /// Its batch has not come.
    #[default]
    Waiting,
    /// Its preflight check has passed; the others' have not yet.
    Checked,
    /// The release is put beside the one that serves.
    Install,
    /// Out of traffic.
    Drain,
    /// `current` flips.
    Activate,
    /// Stop gracefully, start from `current`.
    Restart,
    /// First requests, which reach no gate.
    Warm,
    /// The probes must answer.
    Probe,
    /// The gates watch it under traffic.
    Analyse,
    /// Back into traffic.
    Admit,
    /// On the wanted build and in service.
    Done,
    /// Being taken out for good: the balancer hears of it.
    Removing,
    /// Taken out: it failed while its peers on the same build pass.
    OutOfService,
}

/// How far an upgrade is: written as one, before any effect starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Why it stands there, one word for programs (`GateFailed`, `ByUser`, `SharedDependencyDegraded`).
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// When the phase began.
    pub since: Timestamp,
    /// The phase to go on with after a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_to: Option<Phase>,
    /// The build that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Digest>,
    /// The nodes, in the environment's order.
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
    /// The gates, per node that they watch.
    #[serde(default)]
    pub gates: Vec<GateStatus>,
    /// Who holds what others wait for, as last seen while a gate failed.
    #[serde(default)]
    pub blockers: Vec<Blocker>,
    /// Why its nodes went back, or go back: it stays when they are back and the phase has a message of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The gate whose failure began a rollback: the cure must make it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_gate: Option<String>,
    /// The proof of the cure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cure: Option<Cure>,
    /// What became of the updates of our own traffic; absent where it has no effect to look for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Updates>,
    /// How a rollback is to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_for: Option<RollbackFor>,
    /// Gates that failed on the old system already: an operator went on all the same, and their failing proves nothing
    /// against the build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baseline_failed: Vec<String>,
    /// Identifies the rules that it was begun under, or went on under last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Digest>,
    /// What somebody else had made of a node when the way back went over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrote: Option<String>,
    /// Once it has ended: what it had of a workload is not given back to that one's owner yet. Absent where that was done, and
    /// where there was nothing to give back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// When the first phase after Pending began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the final phase began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

impl UpgradeStatus {
    /// Of an upgrade that was just asked for.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            phase: Phase::Pending,
            reason: String::new(),
            message: String::new(),
            since: now,
            resume_to: None,
            to: None,
            nodes: Vec::new(),
            gates: Vec::new(),
            blockers: Vec::new(),
            cause: None,
            failed_gate: None,
            cure: None,
            updates: None,
            rollback_for: None,
            baseline_failed: Vec::new(),
            rules: None,
            overwrote: None,
            kept: None,
            started_at: None,
            finished_at: None,
        }
    }
}

impl UpgradeStatus {
    /// Whether nobody has to do anything for it any more: it has ended, and keeps nothing.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase.is_final() && self.kept.is_none()
    }
}

/// A workload that an upgrade has not given back yet though it has ended: a `StatefulSet` does not move by itself when its owner
/// changes it, and a Deployment has a canary beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Why it could not be given back, as last tried; somebody was told of it then. Absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Why nodes go back, which decides how that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackFor {
    /// The build was found bad: quarantined, and the cure is to be proven.
    BadBuild,
    /// The image of the build could not be fetched, by no fault of the build: nothing is held against it.
    NotFetched,
    /// An operator asked.
    Abort,
}

/// What began a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// One word for programs (`GateFailed`, `NodeFailed`, `AbortedByUser`).
    pub reason: String,
    /// Why, for people; with who held what others waited for, where that was seen.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// The test that a rollback cured what it was for: on samples from after it alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cure {
    /// Samples count from here.
    pub since: Timestamp,
    /// When it was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
    /// The readings that prove it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
}

/// Updates of our own traffic that the service acknowledged, looked for again when a driver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Updates {
    /// Acknowledged while a driver watched.
    pub acknowledged: u64,
    /// Of these, not there any more.
    pub lost: u64,
    /// Of these, neither found nor missed: the look failed.
    pub unchecked: u64,
}

impl std::ops::Add for Updates {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            acknowledged: self.acknowledged + other.acknowledged,
            lost: self.lost + other.lost,
            unchecked: self.unchecked + other.unchecked,
        }
    }
}

/// One node of an upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where it answers.
    #[serde(default)]
    pub address: String,
    /// The build that it runs, as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Digest>,
    /// The build that it ran when the upgrade began: where a rollback goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// Where it stands.
    pub phase: NodePhase,
    /// When that began.
    pub since: Timestamp,
    /// The step that was asked of it and whose end was not seen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepIntent>,
    /// One that has ended well and that nothing followed from yet, since a hold or another node came before: it leaves no trace on
    /// the node that could be seen, and is not to run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<StepIntent>,
    /// We took it out of traffic.
    #[serde(default)]
    pub drained: bool,
    /// What tells the workload that it is a pod of from one that is made in its place, once this upgrade was seen to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// In this batch.
    #[serde(default)]
    pub in_batch: bool,
    /// It has been seen to serve since this upgrade began: only what served can be lost.
    #[serde(default)]
    pub served: bool,
    /// It does not serve on the build that it ran before, without our doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Since when it does not serve though it is under test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sick_since: Option<Timestamp>,
    /// Samples of its gates count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysed_since: Option<Timestamp>,
    /// Installs that this upgrade completed here on the way forward.
    #[serde(default)]
    pub installs: u32,
    /// Restarts that this upgrade completed here on the way forward.
    #[serde(default)]
    pub restarts: u32,
    /// Installs on the way back.
    #[serde(default)]
    pub rollback_installs: u32,
    /// Restarts on the way back.
    #[serde(default)]
    pub rollback_restarts: u32,
    /// Steps asked for so far: numbers the next one.
    #[serde(default)]
    pub steps: u32,
    /// Failed attempts of the current phase.
    #[serde(default)]
    pub attempts: u32,
    /// What went wrong here last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A node that this upgrade has not changed and that stopped serving by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Since when.
    pub since: Timestamp,
    /// What is seen of it.
    pub how: Loss,
    /// When somebody was told; one that comes back before is told of to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
}

/// How a node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Loss {
    /// Its service does not run.
    NotRunning,
    /// Its service runs and its probes fail.
    Mute,
    /// Its host does not answer us.
    Unreachable,
}

/// For people, to follow the node's name.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::NotRunning => "its service does not run",
            Loss::Mute => "its probes fail",
            Loss::Unreachable => "it cannot be reached",
        })
    }
}

/// A step that was decided and is durable before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepIntent {
    /// Unique on the node.
    pub id: String,
    /// What it does.
    pub action: StepAction,
    /// The release that it is about.
    pub release: Digest,
}

/// The steps that an upgrade asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepAction {
    /// Preflight check.
    Check,
    /// Put the release side by side.
    Install,
    /// Balancer hook: out.
    Drain,
    /// Flip `current`.
    Activate,
    /// Stop and start.
    Restart,
    /// First requests.
    Warm,
    /// Balancer hook: in.
    Admit,
}

impl StepAction {
    /// The word for journals and ids.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            StepAction::Check => "check",
            StepAction::Install => "install",
            StepAction::Drain => "drain",
            StepAction::Activate => "activate",
            StepAction::Restart => "restart",
            StepAction::Warm => "warm",
            StepAction::Admit => "admit",
        }
    }
}

/// How a gate reads on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// The gate's name.
    pub name: String,
    /// The node that it watches.
    pub node: String,
    /// Of a failure: the build that the node ran then. One that began a rollback stays in the record when the node has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Digest>,
    /// What it says.
    pub verdict: Verdict,
    /// Its figures in words.
    #[serde(default)]
    pub reason: String,
    /// When what made it fail began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onset_at: Option<Timestamp>,
    /// When it decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// The record that `gate replay` recomputes it from, a path below the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// The share over the limit is proven to lie below it.
    Pass,
    /// The share is proven to lie above the limit.
    Fail,
    /// Samples, but not enough yet.
    Undecided,
    /// No sample at all: never a pass.
    NoData,
}

/// One statement that others wait for, and who waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// The session at the root.
    pub holder: Session,
    /// The sessions behind it, nearest first.
    #[serde(default)]
    pub waiting: Vec<Session>,
}

/// Characters of a statement in a sentence for people: enough for its tables and its condition.
const LONGEST_STATEMENT: usize = 200;

impl fmt::Display for Blocker {
    /// One line for people: who waits, behind whom, since when, for which statement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holder, waiting } = self;
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for session in waiting {
            let node = session.of.node().unwrap_or(&session.client);
            let method = session.method.as_deref().unwrap_or("a statement");
            *counted.entry(format!("{method} on {node}")).or_default() += 1;
        }
        let counted: Vec<_> = counted.into_iter().map(|(what, n)| format!("{n}x {what}")).collect();
        write!(f, "blocked: {} behind ", counted.join(", "))?;
        match &holder.of {
            SessionOf::Node {
                node,
                build: Some(build),
            } => write!(f, "{node} ({build})")?,
            SessionOf::Node { node, build: None } => write!(f, "{node}")?,
            SessionOf::Unknown { unknown } => write!(f, "{} (whose it is, is unknown: {unknown})", holder.client)?,
            SessionOf::Outsider {} => write!(f, "{} (no node of ours)", holder.client)?,
        }
        // What is left out stands in the status.
        let statement: String = holder.statement.chars().take(LONGEST_STATEMENT).collect();
        write!(f, ", open for {:.0} s: {statement}", holder.age_seconds)
    }
}

/// A database session that holds or waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its statement, shortened and with literals kept.
    pub statement: String,
    /// The method of the service that sent it, where the statement says so in a comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Whose session it is.
    #[serde(flatten)]
    pub of: SessionOf,
    /// Its client as the database names it.
    #[serde(default)]
    pub client: String,
    /// Age of its transaction, seconds.
    pub age_seconds: f64,
}

/// Whose a database session is. An outsider is somebody whom we looked for on every node and did not find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SessionOf {
    /// A node's.
    Node {
        /// Which.
        node: String,
        /// The build that it runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        build: Option<String>,
    },
    /// It could not be told.
    Unknown {
        /// Why not.
        unknown: String,
    },
    /// No node's.
    Outsider {},
}

impl SessionOf {
    /// The node, when it is one's.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            SessionOf::Node { node, build: _ } => Some(node),
            SessionOf::Unknown { .. } | SessionOf::Outsider {} => None,
        }
    }

    /// The build of that node.
    #[must_use]
    pub fn build(&self) -> Option<&str> {
        match self {
            SessionOf::Node { node: _, build } => build.as_deref(),
            SessionOf::Unknown { .. } | SessionOf::Outsider {} => None,
        }
    }
}

/// Something that happened, to be told at least once, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// One word for programs (`NodeUpgraded`, `GateFailed`, `RolledBack`).
    pub reason: String,
    /// How much it matters.
    pub severity: Severity,
    /// The node that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What happened, for people.
    pub message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A step.
    Step,
    /// Somebody should look.
    Alert,
}

//! An Environment as it is written: a named full system with its components, their nodes, traffic, gates and policy.
//!
//! A replica (`replicaOf`) is merged over its base as text before it is decoded, so these types describe the whole.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sinks::ReportSink;
use super::target::{ExpectedDifference, Target};
use super::values::{Amount, BuildRange, Digest, Duration, NamePattern, Share};

/// A named full system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// The environment that this one copies; it then states only what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<String>,
    /// Where the objects of its components' `manifests` are made; a replica alone has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Builds enter it through a pipeline alone: only a promotion upgrades it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// Where it may differ from what it copies, beside what it states itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected_differences: Vec<ExpectedDifference>,
    /// Debian packages that a local node needs.
    #[serde(default)]
    pub packages: Vec<String>,
    /// The script in templates/ that installs those given as its arguments, as root. It is run as it stands: it has no
    /// variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages_script: Option<String>,
    /// Values that templates see as `vars.NAME`.
    #[serde(default)]
    pub variables: BTreeMap<String, Scalar>,
    /// Secrets by reference; the text itself never stands in a resource.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Databases that signals, traffic and disturbances speak to.
    #[serde(default)]
    pub databases: Vec<Database>,
    /// The services, each after those that it needs.
    pub components: Vec<Component>,
    /// Where steps are reported.
    #[serde(default)]
    pub reports: Vec<ReportSink>,
}

/// A text or number in `variables`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Anything else.
    Text(String),
}

/// Where a secret comes from. Exactly one of the three is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSource {
    /// A file: absolute, or relative to the environment's state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What to do when the file is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateSecret>,
    /// An environment variable of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// A command whose output it is (a password store); a trailing newline is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// How a missing secret file is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CreateSecret {
    /// 32 random bytes in hexadecimal, file mode 0600.
    Random,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// Its name in this file.
    pub name: String,
    /// How to reach it.
    pub postgres: PostgresAddress,
}

/// How to reach a `PostgreSQL` database; every text is a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: String,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// Name of the secret that holds its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// One service of the system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Components that must run before it.
    #[serde(default)]
    pub after: Vec<String>,
    /// Where its builds come from; without one it is not upgraded by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BuildSource>,
    /// Of a component whose nodes are pods and servers: the image of each version, for its pods, beside the files that `source`
    /// finds, for its servers. Both are one build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// Which commits its builds are, so that it can be checked that their hooks ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<BuildCommits>,
    /// The version that `up` installs on a node that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Its process, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// Ports of the first node by name.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// What each further node adds to its ports.
    #[serde(default)]
    pub port_stride: u16,
    /// Where it runs.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// In the place of `nodes`, or beside servers there: the pods of a `StatefulSet` are its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<StatefulSetRef>,
    /// In the place of `nodes`: a Deployment. Its nodes are NAME-canary, one pod beside it for as long as an upgrade goes on, and
    /// then NAME, all of its own pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentRef>,
    /// Templates in templates/ of the Kubernetes objects that it is made of, for a replica with a `target`. One template may
    /// hold several documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<String>,
    /// Of a replica: which data of its base's database it gets, and what becomes of it on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// Names of the secrets that its actions get.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// What its nodes need done.
    #[serde(default)]
    pub actions: Actions,
    /// Whether a node answers.
    #[serde(default)]
    pub probes: Vec<Probe>,
    /// Our own requests.
    #[serde(default)]
    pub traffic: Vec<Traffic>,
    /// Logs that are followed.
    #[serde(default)]
    pub logs: Vec<Log>,
    /// Queries that are watched.
    #[serde(default)]
    pub queries: Vec<Query>,
    /// What must hold.
    #[serde(default)]
    pub gates: Vec<Gate>,
    /// Where blocked sessions are looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blockers: Option<Blockers>,
    /// How an upgrade goes over its nodes.
    #[serde(default)]
    pub rollout: Rollout,
}

/// Where builds come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum BuildSource {
    /// A Python package index, read with pip as it is configured on the driver's machine.
    PackageIndex(PackageIndex),
    /// A directory that holds one directory a version.
    Directory(String),
    /// Container images of one repository.
    Images(Images),
}

/// Container images, each by its digest: a tag can be moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// Registry and repository, as `registry.example.org/panda/server`.
    pub repository: String,
    /// The digest of each version's image. An image that pods run and that is not among them is no build that can be gone back
    /// to.
    pub digests: BTreeMap<String, Digest>,
}

impl Images {
    /// The image of a version, as a pod names it.
    #[must_use]
    pub fn image(&self, version: &str) -> Option<String> {
        let digest = self.digests.get(version)?;
        Some(format!("{}@{digest}", self.repository))
    }
}

/// Data for a replica (`stagegate refresh`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refresh {
    /// Name of the database, among those of the environment that this one is a replica of.
    pub from: String,
    /// Name of the database, among those of this environment.
    pub into: String,
    /// What all of it may take. Its base's tables are read for as long, in one snapshot.
    #[serde(default = "refresh_timeout")]
    pub timeout: Duration,
    /// The tables, in the order in which they are written: one that refers to another comes after it. Their rows are replaced.
    pub tables: Vec<RefreshTable>,
}

fn refresh_timeout() -> Duration {
    Duration::from_secs(3600)
}

/// A table of which data is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefreshTable {
    /// Its name, with its schema: `SCHEMA.TABLE`.
    pub name: String,
    /// A condition in SQL on the rows that are taken; without one, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
    /// What becomes of columns. Figures and times that are not stated are kept, but for those whose name tells of people; of whatever
    /// may hold anything (texts, JSON, bytes, lists) it has to be said.
    #[serde(default)]
    pub columns: BTreeMap<String, Mask>,
    /// What becomes of columns of which it has to be said and is not, in a table that somebody has looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Mask>,
    /// Sequences that count for it, each with its column, beside those that the column owns: they go on above what was taken.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, String>,
}

/// What becomes of a column's values on their way into a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Mask {
    /// They are taken as they are.
    Keep,
    /// None is taken.
    Drop,
    /// Each is replaced by a hash of it: the same for the same value, in one refresh.
    Hash,
    /// Each is replaced by an address that nobody has.
    FakeEmail,
    /// Each is replaced by a made-up name.
    FakeName,
    /// Each is replaced by a made-up distinguished name.
    FakeDn,
    /// Each is replaced by a made-up text.
    FakeText,
}

impl Mask {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Keep,
        Self::Drop,
        Self::Hash,
        Self::FakeEmail,
        Self::FakeName,
        Self::FakeDn,
        Self::FakeText,
    ];

    /// As a file states it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Hash => "hash",
            Self::FakeEmail => "fakeEmail",
            Self::FakeName => "fakeName",
            Self::FakeDn => "fakeDn",
            Self::FakeText => "fakeText",
        }
    }
}

/// A `StatefulSet` whose pods are nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatefulSetRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name; its pods are NAME-0, NAME-1 and so on.
    pub name: String,
    /// How many pods it has.
    pub replicas: u16,
    /// The container that runs the build; needed where pods have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The context of the kubeconfig; without one its current context, and in a pod the cluster that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl StatefulSetRef {
    /// Its pods as nodes, in the order in which an upgrade takes them: a `StatefulSet` changes from the top ordinal down.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        (0..self.replicas)
            .rev()
            .map(|ordinal| Node {
                name: format!("{}-{ordinal}", self.name),
                address: None,
                host: Some(HostRef::Pod(PodRef::OfSet(SetPod {
                    set: self.clone(),
                    ordinal: ordinal.into(),
                }))),
                ports: BTreeMap::new(),
            })
            .collect()
    }
}

/// A Deployment whose pods are nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name. The Deployment NAME-canary beside it is made and deleted by each upgrade.
    pub name: String,
    /// The container that runs the build; needed where pods have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The context of the kubeconfig; without one its current context, and in a pod the cluster that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl DeploymentRef {
    /// The name of the Deployment that is its canary.
    #[must_use]
    pub fn canary(&self) -> String {
        format!("{}-canary", self.name)
    }

    /// Its nodes, in the order in which an upgrade takes them.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        [(self.canary(), Role::Canary), (self.name.clone(), Role::Main)]
            .into_iter()
            .map(|(name, role)| Node {
                name,
                address: None,
                host: Some(HostRef::Pod(PodRef::OfDeployment(DeploymentPods {
                    deployment: self.clone(),
                    role,
                }))),
                ports: BTreeMap::new(),
            })
            .collect()
    }
}

/// The pods that are a component's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods<'a> {
    /// Each pod of a `StatefulSet` is a node.
    Set(&'a StatefulSetRef),
    /// A Deployment's canary is one node, and all of its own pods another.
    Deployment(&'a DeploymentRef),
}

impl<'a> Pods<'a> {
    /// The kind of what they are of.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Pods::Set(_) => "StatefulSet",
            Pods::Deployment(_) => "Deployment",
        }
    }

    /// The key that states it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Pods::Set(_) => "statefulSet",
            Pods::Deployment(_) => "deployment",
        }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(self) -> &'a str {
        match self {
            Pods::Set(set) => &set.namespace,
            Pods::Deployment(deployment) => &deployment.namespace,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Pods::Set(set) => &set.name,
            Pods::Deployment(deployment) => &deployment.name,
        }
    }

    /// The container that runs the build, where that is stated.
    #[must_use]
    pub fn container(self) -> Option<&'a str> {
        match self {
            Pods::Set(set) => set.container.as_deref(),
            Pods::Deployment(deployment) => deployment.container.as_deref(),
        }
    }

    /// The context of its cluster, where that is stated.
    #[must_use]
    pub fn context(self) -> Option<&'a str> {
        match self {
            Pods::Set(set) => set.context.as_deref(),
            Pods::Deployment(deployment) => deployment.context.as_deref(),
        }
    }

    /// The nodes, in the order in which an upgrade takes them.
    #[must_use]
    pub fn nodes(self) -> Vec<Node> {
        match self {
            Pods::Set(set) => set.nodes(),
            Pods::Deployment(deployment) => deployment.nodes(),
        }
    }
}

/// Pods of a cluster that are a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PodRef {
    /// A pod of a `StatefulSet`.
    OfSet(SetPod),
    /// Pods of a Deployment.
    OfDeployment(DeploymentPods),
}

/// A pod of a `StatefulSet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetPod {
    /// The set.
    pub set: StatefulSetRef,
    /// Its ordinal there.
    pub ordinal: u32,
}

/// Pods of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentPods {
    /// The Deployment.
    pub deployment: DeploymentRef,
    /// Which of them.
    pub role: Role,
}

/// What a node of a Deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// One pod beside its own, which runs a build before they do.
    Canary,
    /// Its own pods.
    Main,
}

/// Which commits builds are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildCommits {
    /// The repository: a directory on the driver's machine, bare or a clone, below the workspace or absolute. Nothing is
    /// fetched.
    pub repository: String,
    /// What names a version's commit there, with VERSION in the place of the version, as `refs/tags/vVERSION`.
    pub revision: String,
    /// The directory of the commit that a build is; without one it is the whole tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl BuildCommits {
    /// The word that stands for the version.
    pub const VERSION: &str = "VERSION";

    /// What names this version's commit.
    #[must_use]
    pub fn revision_of(&self, version: &str) -> String {
        self.revision.replace(Self::VERSION, version)
    }
}

/// A package of a Python package index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackageIndex {
    /// The package.
    pub package: String,
    /// Its extras.
    #[serde(default)]
    pub extras: Vec<String>,
    /// The interpreter that the nodes run, whose pip resolves.
    pub python: String,
    /// Versions of helper packages that a build needs beside it.
    #[serde(default)]
    pub also: Vec<String>,
    /// Environment variables of pip's resolution.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// A component's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Its pid file, relative to the node directory; the first line counts.
    pub pid_file: String,
}

/// One place where a component runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Its name, unique in the environment.
    pub name: String,
    /// Where its service answers; 127.0.0.1 for a local node, else the SSH destination's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The machine that carries it; this one unless stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostRef>,
    /// Ports that differ from the component's.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
}

/// A machine that carries a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum HostRef {
    /// A server over SSH.
    Ssh(SshRef),
    /// A pod, which is its own machine. `statefulSet` and `deployment` state all of a workload together.
    Pod(PodRef),
}

/// A server over SSH, as the system's ssh client knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SshRef {
    /// `user@host`, or a Host of ssh's configuration.
    pub destination: String,
    /// Port, where the configuration does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// ssh configuration file, instead of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The node's directory there.
    pub directory: String,
}

/// A component's lifecycle actions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Actions {
    /// Once, before the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Action>,
    /// Preflight; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Action>,
    /// Once a build, on the driver's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Action>,
    /// Fills a release directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<Action>,
    /// Starts the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Action>,
    /// Stops it gracefully.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Action>,
    /// Takes the node out of a balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Action>,
    /// Puts it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admit: Option<Action>,
    /// First requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Action>,
    /// Before the node directory is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Action>,
}

/// One lifecycle action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Action {
    /// Its script, a path in templates/.
    pub template: String,
    /// After this its process group is killed. Each action has a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// Whether a node answers, asked at a fixed period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// Its name; several may share it when their `builds` do not overlap.
    pub name: String,
    /// The builds that it is for.
    #[serde(default)]
    pub builds: BuildRange,
    /// What is asked.
    pub http: HttpProbe,
    /// How often.
    #[serde(default = "one_second")]
    pub period: Duration,
    /// No answer within this is a failure.
    #[serde(default = "five_seconds")]
    pub timeout: Duration,
    /// Consecutive failures that make a node sick.
    #[serde(default = "three")]
    pub failure_threshold: u32,
    /// Consecutive successes that make it well.
    #[serde(default = "one")]
    pub success_threshold: u32,
}

impl Component {
    /// Its nodes that are no pods.
    pub fn servers(&self) -> impl Iterator<Item = &Node> {
        let is_pod = |node: &&Node| matches!(node.host, Some(HostRef::Pod(_)));
        self.nodes.iter().filter(move |node| !is_pod(node))
    }

    /// The pods that are its nodes, where its nodes are pods.
    #[must_use]
    pub fn pods(&self) -> Option<Pods<'_>> {
        let set = self.stateful_set.as_ref().map(Pods::Set);
        set.or_else(|| self.deployment.as_ref().map(Pods::Deployment))
    }

    /// The probes that are asked of a build.
    pub fn probes_for<'a>(&'a self, version: Option<&'a str>) -> impl Iterator<Item = &'a Probe> {
        self.probes.iter().filter(move |probe| probe.is_for(version))
    }
}

impl Probe {
    /// Whether it is asked of this build; of one that is not known only what is asked of every build.
    #[must_use]
    pub fn is_for(&self, version: Option<&str>) -> bool {
        self.builds.contains(version.unwrap_or_default())
    }
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}
fn five_seconds() -> Duration {
    Duration::from_secs(5)
}
fn one() -> u32 {
    1
}
fn three() -> u32 {
    3
}

/// An HTTP question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// The address, a template.
    pub url: String,
    /// The status that means yes.
    #[serde(default = "ok_status")]
    pub status: u16,
    /// A regular expression that the body must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

fn ok_status() -> u16 {
    200
}

/// Our own open-loop requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// Its name.
    pub name: String,
    /// Calls a second and node.
    pub rate: f64,
    /// Calls in flight at most, a node; a call beyond it counts against the gate without being sent.
    #[serde(default = "two_hundred")]
    pub concurrency: usize,
    /// A call is given up after this.
    #[serde(default = "sixty_seconds")]
    pub timeout: Duration,
    /// Client certificate, by names of secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// A statement before each call (the row that it will change).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Statement>,
    /// The request, by range of builds.
    pub requests: Vec<Request>,
    /// A query after each right answer, whose first value must be as said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

fn two_hundred() -> usize {
    200
}
fn sixty_seconds() -> Duration {
    Duration::from_secs(60)
}

/// TLS material by names of secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The client's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The name that the server's certificate has, a template, where nodes are asked by an address that is in none: a pod has
    /// another one each time. Requests are sent to this name, at `node.address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// A statement on a database, a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// Name of the database.
    pub database: String,
    /// The statement.
    pub sql: String,
}

/// A request, a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The builds that it is for.
    #[serde(default)]
    pub builds: BuildRange,
    /// GET, POST, …
    #[serde(default = "get")]
    pub method: String,
    /// The address.
    pub url: String,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Fields of a form body.
    #[serde(default)]
    pub form: BTreeMap<String, String>,
    /// A JSON body, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    /// What an answer must be to count as success.
    #[serde(default)]
    pub expect: Expectation,
}

fn get() -> String {
    "GET".to_owned()
}

/// What an answer must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// Its status.
    #[serde(default = "ok_status")]
    pub status: u16,
    /// A regular expression that its body must match: a status alone has hidden lost updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Default for Expectation {
    fn default() -> Self {
        Self {
            status: ok_status(),
            body: None,
        }
    }
}

/// A query whose first value must be as said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Effect {
    /// Name of the database.
    pub database: String,
    /// The query.
    pub sql: String,
    /// The first column of its first row, as text.
    pub equals: String,
}

/// A log that is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Log {
    /// Its name.
    pub name: String,
    /// The path of its file on servers, relative to the node directory. Of pods what their containers print is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A request's beginning: a regular expression with the group `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// A request's end: a regular expression with the group `exec_time_s`, or `id` to match a start.
    pub end: String,
    /// Requests a second that one node logs, about: a gate bets on those of 3 s together, within which they move together.
    #[serde(default = "five_a_second")]
    pub rate: f64,
}

fn five_a_second() -> f64 {
    5.0
}

/// A query that is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// Name of the database.
    pub database: String,
    /// The query; the first column of its first row is the value.
    pub sql: String,
    /// The value may be at most this.
    pub at_most: f64,
    /// How often.
    #[serde(default = "five_seconds")]
    pub period: Duration,
}

/// What must hold: one of `share` and `probe` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// The share of bad calls stays below a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareGate>,
    /// A probe answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// Chance that a good build is failed, over the whole upgrade and all gates.
    #[serde(default = "one_percent")]
    pub alpha: Share,
    /// Chance that a build at the limit is passed.
    #[serde(default = "five_percent")]
    pub beta: Share,
    /// Without a decision by then the upgrade is held as Inconclusive.
    #[serde(default = "five_minutes")]
    pub deadline: Duration,
}

#[expect(clippy::expect_used, reason = "constants that the tests of Share parse")]
fn share(text: &str) -> Share {
    text.parse().expect("a constant share")
}
fn one_percent() -> Share {
    share("1%")
}
fn five_percent() -> Share {
    share("5%")
}
fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

/// The share of bad calls of a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShareGate {
    /// The signal: `traffic/NAME`, `log/NAME`, `query/NAME` or `probe/NAME`.
    pub of: String,
    /// A call that is older is bad.
    pub over: Duration,
    /// The share that is still good.
    pub limit: Share,
}

/// Where blocked sessions are looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Blockers {
    /// Name of the database.
    pub database: String,
    /// A regular expression whose group `method` finds the service's method in a statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// How services name their sessions (`application_name`). It tells a node where its sockets do not: behind a pooler or
    /// an address translation, and while the node cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_name: Option<NamePattern>,
}

/// How an upgrade goes over the nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// Nodes out of service at most, for whatever reason.
    #[serde(default = "one_node")]
    pub max_unavailable: Amount,
    /// Nodes changed together.
    #[serde(default = "one_node")]
    pub batch_size: Amount,
    /// How long the old system is read first.
    #[serde(default = "ten_seconds")]
    pub baseline: Duration,
    /// How long the gates keep watching after the last node.
    #[serde(default = "thirty_seconds")]
    pub soak: Duration,
    /// Nodes that may fail while their peers pass before the build is blamed.
    #[serde(default = "one")]
    pub failed_node_budget: u32,
    /// Releases kept on a node.
    #[serde(default = "three")]
    pub keep_releases: u32,
    /// How long a hold for an unreachable node or a missing place lasts before the upgrade pauses.
    #[serde(default = "five_minutes")]
    pub patience: Duration,
    /// Free space that a node must have before an install.
    #[serde(default = "one_gib")]
    pub min_free_mib: u64,
    /// Conditions that must be true of a build before it enters. The build that the nodes came from, or that last succeeded
    /// here, may always come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
}

/// A condition of a build that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Requirement {
    /// Its files are those of a commit on the protected branch, and that commit's hooks passed, as a key that counts has
    /// signed. Needs the component's `commits`.
    HooksPassed,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_unavailable: one_node(),
            batch_size: one_node(),
            baseline: ten_seconds(),
            soak: thirty_seconds(),
            failed_node_budget: one(),
            keep_releases: three(),
            patience: five_minutes(),
            min_free_mib: one_gib(),
            requires: Vec::new(),
        }
    }
}

fn one_node() -> Amount {
    Amount::Count(1)
}
fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}
fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}
fn one_gib() -> u64 {
    1024
}

//! What Stagegate remembers. One trait, [`Store`], and the embedded home behind it, [`SqliteStore`]: one `SQLite` file.
//!
//! # What is durable when
//! A method that changes something returns `Ok` only after the change is on the disk (WAL, `synchronous=FULL`): it
//! survives `kill -9` and a power cut. A method that returns an error has changed nothing. Each call is one
//! transaction; [`Store::commit`] is the one that matters: status, events, reports and marks on builds appear
//! together or not at all, and only for the holder of the environment's lease.
//!
//! # Who waits for whom
//! Calls block the thread: microseconds for reading, one `fsync` (some milliseconds) for writing, and at most
//! [`sqlite::BUSY_TIMEOUT`] when another process keeps the file. That is short enough to call them from async code
//! directly. No call may be made from within a callback of another ([`Commit::dispatch`]).
//!
//! # Time and identity
//! Time is an argument everywhere. Times in columns have microseconds; events and statuses keep what they were given.

mod acts;
pub mod build;
mod error;
pub mod lease;
pub mod letters;
mod place;
pub mod runs;
pub mod sqlite;
pub mod threads;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use acts::ENGINE;
pub use build::{BuildChange, BuildStatus, Condition, ConditionStatus, Quarantine, Release, Verification};
pub use error::StoreError;
pub use lease::{Holder, Lease, Liveness};
pub use letters::{DeadLetter, LetterQuery};
pub use sqlite::SqliteStore;
pub use threads::{ThreadState, Tried};

use crate::audit::{Act, Head, Record};
use crate::hosts::FencingToken;
use crate::model::upgrade::{Event, Phase, UpgradeSpec, UpgradeStatus, Wish};

/// Events kept. An upgrade of a dozen nodes writes about 150, so that is some 60 upgrades, about 5 MB.
pub const KEEP_EVENTS: u64 = 10_000;
/// Finished upgrades kept, beside the last of record of each environment and component: half a year of one a day; their statuses are
/// about 10 kB each.
pub const KEEP_FINISHED_UPGRADES: u64 = 200;
/// Settled reports kept (delivered, and as many dead letters), for somebody who asks what was sent: about 1 MB.
/// Reports that wait are never dropped.
pub const KEEP_SETTLED_REPORTS: u64 = 1_000;

/// The kind of promotions, which alone begin upgrades of theirs.
pub const PROMOTION: &str = "Promotion";

/// Attestations kept: of a hundred commits a day half a year; each takes about 2 kB, so that is about 40 MB.
pub const KEEP_ATTESTATIONS: u64 = 20_000;
/// Attestations kept of one commit: a few keys, each after a few changes of the policy.
pub const KEEP_ATTESTATIONS_OF_A_COMMIT: u64 = 16;

/// A resource as stored: what was written, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its kind (`Environment`, `Build`, …).
    pub kind: String,
    /// Its name, unique in its kind.
    pub name: String,
    /// What is wanted.
    pub spec: Value,
    /// What is.
    pub status: Value,
    /// Rises with every change of the spec, from 1.
    pub generation: u64,
    /// From one counter for the whole home; rises with every change.
    pub resource_version: u64,
    /// When it was first put.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Resource {
    /// The spec as its type.
    pub fn spec_as<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        read_as(&self.spec, &self.kind, &self.name)
    }
    /// The status as its type.
    pub fn status_as<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        read_as(&self.status, &self.kind, &self.name)
    }
}

fn read_as<T: DeserializeOwned>(value: &Value, kind: &str, name: &str) -> Result<T, StoreError> {
    T::deserialize(value).map_err(|e| StoreError::Unreadable {
        what: format!("{kind} {name}"),
        why: e.to_string(),
    })
}

/// What a writer believes to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing under this name.
    Absent,
    /// This resource version.
    Version(u64),
    /// Whatever is there.
    Anything,
}

/// An upgrade as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct UpgradeRecord {
    /// Unique for ever in this home.
    pub name: String,
    /// What is asked; its `wish` is the operator's present one.
    pub spec: UpgradeSpec,
    /// How far it is.
    pub status: UpgradeStatus,
    /// Changes with every commit, not with a wish.
    pub resource_version: u64,
    /// Counts the wishes, from 1, so that the same wish said again can be told from the old one.
    pub wish_version: u64,
    /// When it was created.
    pub created_at: Timestamp,
}

impl UpgradeRecord {
    /// Whether it has ended and says what its nodes are to run: it has succeeded there, or asked something of one of them. The last of an
    /// environment and component is kept for as long as the environment is.
    #[must_use]
    pub fn is_of_record(&self) -> bool {
        let UpgradeStatus { phase, nodes, .. } = &self.status;
        phase.is_final() && nodes.iter().any(|node| *phase == Phase::Succeeded || node.steps > 0)
    }
}

/// What may have changed about an upgrade, without its long texts: for a driver that looks at every turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// As in [`UpgradeRecord`].
    pub resource_version: u64,
    /// The operator's present wish.
    pub wish: Wish,
    /// As in [`UpgradeRecord`].
    pub wish_version: u64,
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// Its place in the home's history; rises, never used twice.
    pub seq: u64,
    /// The environment that it is about.
    pub environment: String,
    /// The upgrade that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
    /// The promotion that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Which events.
#[derive(Debug, Clone, Copy)]
pub struct EventQuery<'a> {
    /// Of this environment alone.
    pub environment: Option<&'a str>,
    /// Of this upgrade alone.
    pub upgrade: Option<&'a str>,
    /// Of this promotion alone, those of its upgrade among them.
    pub promotion: Option<&'a str>,
    /// With a higher `seq` than this.
    pub after: u64,
    /// How many, and from which end.
    pub take: Take,
}

/// How many of a list. The order of what comes back is always the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// The oldest.
    First(u32),
    /// The newest.
    Last(u32),
}

/// One report on its way to one sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The sink's name.
    pub sink: String,
    /// Reports of one thread reach one sink in their order; threads do not wait for one another.
    pub thread: String,
    /// Names the report for a receiver that gets it twice; unique for a sink.
    pub dedupe_key: String,
    /// What the sink gets.
    pub payload: Value,
}

/// Turns a stored event into reports; called within the transaction, once for each event. It must not call the store.
pub type Dispatcher<'a> = dyn Fn(&EventRecord) -> Vec<Dispatch> + 'a;

/// Tells nobody: for tests and for homes without sinks.
#[must_use]
pub fn no_dispatch(_: &EventRecord) -> Vec<Dispatch> {
    Vec::new()
}

/// A step of an upgrade, written as one.
#[derive(Clone, Copy)]
pub struct Commit<'a> {
    /// The upgrade.
    pub upgrade: &'a str,
    /// The `resource_version` that was read before deciding.
    pub expected_version: u64,
    /// Proof of holding the environment's lease; the commit renews it.
    pub token: &'a FencingToken,
    /// Now.
    pub at: Timestamp,
    /// The new status.
    pub status: &'a UpgradeStatus,
    /// What happened, in order.
    pub events: &'a [Event],
    /// Marks for builds.
    pub builds: &'a [BuildChange],
    /// Replaces the operator's wish, unless there is a newer one than the decision saw.
    pub wish: Option<WishChange>,
    /// The reports of each event.
    pub dispatch: &'a Dispatcher<'a>,
}

/// A resource with what is told of its change.
#[derive(Clone, Copy)]
pub struct Put<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What is wanted, where that changes.
    pub spec: Option<&'a Value>,
    /// What is, where that changes.
    pub status: Option<&'a Value>,
    /// What is believed to be stored.
    pub expect: Expect,
    /// The environment that its events are about.
    pub environment: &'a str,
    /// The promotion that they belong to.
    pub promotion: Option<&'a str>,
    /// What happened, in order.
    pub events: &'a [Event],
    /// What the audit keeps of it.
    pub acts: &'a [Act],
    /// The reports of each event.
    pub dispatch: &'a Dispatcher<'a>,
    /// Now.
    pub at: Timestamp,
}

/// The engine fulfils a wish, or makes one for the operator (it paused for a reason of its own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WishChange {
    /// The `wish_version` that was read before deciding; a newer one makes the commit conflict.
    pub seen: u64,
    /// What the wish becomes.
    pub to: Wish,
}

/// What a commit made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version to expect at the next commit.
    pub resource_version: u64,
    /// The numbers of the events, in their order.
    pub events: Vec<u64>,
}

/// A claimed report: deliver it, then [`Store::settle`] it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEntry {
    /// Names the row for `settle`.
    pub id: u64,
    /// The event that it tells.
    pub seq: u64,
    /// What to deliver, where, under which key.
    pub dispatch: Dispatch,
    /// Attempts made before this one.
    pub attempts: u32,
    /// Dead letters of its thread since the last report that was delivered there.
    pub missing: u64,
}

/// How an attempt to deliver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The sink has it.
    Delivered,
    /// It is not for that sink: it is forgotten, as if it had never been.
    PassedOver,
    /// Not yet; try again.
    Retry {
        /// Not before this time.
        at: Timestamp,
        /// What went wrong, without secrets.
        why: String,
    },
    /// Never: the report is kept as a dead letter and its thread goes on.
    Dead {
        /// What went wrong, without secrets.
        why: String,
    },
}

/// What is still to be told, for one sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingReports {
    /// The sink.
    pub sink: String,
    /// Reports that wait.
    pub waiting: u64,
    /// Reports that the sink refused for good.
    pub dead: u64,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A signed attestation as stored. That it is stored says nothing: who reads it verifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The repository, as the attestation names it.
    pub repository: String,
    /// Full name of the commit.
    pub commit: String,
    /// The DSSE envelope, one line of JSON.
    pub envelope: String,
    /// When it came here.
    pub stored_at: Timestamp,
}

/// What pruning removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Upgrades whose records are gone; the caller deletes their evidence.
    pub upgrades: Vec<String>,
    /// Number of events.
    pub events: u64,
    /// Number of settled reports.
    pub reports: u64,
    /// Number of attestations.
    pub attestations: u64,
    /// Number of runs of commits' hooks.
    pub runs: u64,
}

/// An event that was made durable elsewhere first.
#[derive(Clone, Copy)]
pub struct EventCopy<'a> {
    /// The environment that it is about.
    pub environment: &'a str,
    /// The upgrade.
    pub upgrade: Option<&'a str>,
    /// The promotion.
    pub promotion: Option<&'a str>,
    /// Its name there.
    pub source: &'a str,
    /// What happened.
    pub event: &'a Event,
    /// What the audit keeps of it.
    pub act: Option<&'a Act>,
    /// Makes its reports.
    pub dispatch: &'a Dispatcher<'a>,
}

/// What a home remembers. See the module for what is durable when.
pub trait Store: Send + Sync {
    /// Identity of this home, a random text made when it was created; the first half of every fencing token.
    fn home(&self) -> &str;

    /// One resource.
    fn resource(&self, kind: &str, name: &str) -> Result<Option<Resource>, StoreError>;
    /// The resources of a kind, by name.
    fn resources(&self, kind: &str) -> Result<Vec<Resource>, StoreError>;
    /// Writes a spec, keeping the status. A spec that is equal to the stored one changes nothing.
    fn put_resource(
        &self,
        kind: &str,
        name: &str,
        spec: &Value,
        expect: Expect,
        now: Timestamp,
    ) -> Result<Resource, StoreError>;
    /// Writes a status, keeping spec and generation.
    fn put_status(
        &self,
        kind: &str,
        name: &str,
        status: &Value,
        expect: Expect,
        now: Timestamp,
    ) -> Result<Resource, StoreError>;
    /// Removes a resource; removing what is not there is no error.
    fn delete_resource(&self, kind: &str, name: &str, expect: Expect) -> Result<(), StoreError>;
    /// Writes a resource, what is told of that, and what the audit keeps of it: all of it, or nothing.
    fn put(&self, put: &Put<'_>) -> Result<Resource, StoreError>;
    /// Records of the audit after a place, the oldest first. What is an act of upgrades and builds the store adds by itself
    /// with the change; nothing takes a record out again.
    fn audit(&self, after: u64, take: u32) -> Result<Vec<Record>, StoreError>;
    /// Where the audit ends.
    fn audit_head(&self) -> Result<Head, StoreError>;
    /// Marks a build outside of an upgrade (lifts a quarantine), with the event that tells it.
    fn change_build(
        &self,
        change: &BuildChange,
        event: &Event,
        dispatch: &Dispatcher<'_>,
        now: Timestamp,
    ) -> Result<Resource, StoreError>;

    /// Begins an upgrade. Refused while its environment has an unfinished one; one of a promotion also unless that is stored as
    /// upgrading at this moment ([`StoreError::NotPromoted`]).
    fn create_upgrade(
        &self,
        name: &str,
        spec: &UpgradeSpec,
        status: &UpgradeStatus,
        now: Timestamp,
    ) -> Result<UpgradeRecord, StoreError>;
    /// One upgrade.
    fn upgrade(&self, name: &str) -> Result<Option<UpgradeRecord>, StoreError>;
    /// The versions and the wish of an upgrade: cheap, however many nodes it has.
    fn glance(&self, name: &str) -> Result<Option<Glance>, StoreError>;
    /// The last upgrades, of one environment or of all, the oldest first.
    fn upgrades(&self, environment: Option<&str>, last: u32) -> Result<Vec<UpgradeRecord>, StoreError>;
    /// The unfinished upgrades, of one environment (at most one) or of all.
    fn unfinished(&self, environment: Option<&str>) -> Result<Vec<UpgradeRecord>, StoreError>;
    /// The upgrades that have ended and keep something still, of one environment or of all, the oldest first.
    fn kept(&self, environment: Option<&str>) -> Result<Vec<UpgradeRecord>, StoreError>;
    /// Says what somebody wants (`by`, for the audit). Needs no lease and does not touch `resource_version`: a running driver in another
    /// process sees it at its next reading, and never loses a commit to it. The events that tell of it, and their reports, are
    /// written with it or not at all. Refused where it answers a wish (`seen`, a `wish_version`) that is no longer the last one
    /// ([`StoreError::Conflict`]). Returns the `wish_version`.
    fn set_wish(
        &self,
        upgrade: &str,
        wish: Wish,
        seen: Option<u64>,
        by: &str,
        events: &[Event],
        dispatch: &Dispatcher<'_>,
    ) -> Result<u64, StoreError>;
    /// Writes a step of an upgrade: all of it, or nothing. Refused when the token does not hold the lease
    /// ([`StoreError::Fenced`]), the upgrade has changed ([`StoreError::Conflict`]), or it has finished and the step would
    /// change its phase, a build or the wish ([`StoreError::Finished`]).
    fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError>;

    /// Takes an environment's lease, asking `judge` whether its holder lives ([`lease::evaluate`]).
    fn acquire(
        &self,
        environment: &str,
        holder: &Holder,
        ttl: Duration,
        now: Timestamp,
        judge: &dyn Fn(&Holder) -> Liveness,
    ) -> Result<FencingToken, StoreError>;
    /// Says that the holder still lives.
    fn renew(&self, environment: &str, token: &FencingToken, now: Timestamp) -> Result<(), StoreError>;
    /// Raises the counter of a lease that is held above this one, for nodes that have seen more than this home remembers.
    /// The token that is returned holds the lease from now on; the one that was shown does no longer.
    fn raise(&self, environment: &str, token: &FencingToken, above: u64) -> Result<FencingToken, StoreError>;
    /// Gives the lease back. Its counter stays. Without effect when somebody else has taken over.
    fn release(&self, environment: &str, token: &FencingToken) -> Result<(), StoreError>;
    /// The lease as it stands; `None` when the environment never had one.
    fn lease(&self, environment: &str) -> Result<Option<Lease>, StoreError>;

    /// Writes events outside of a commit, under an upgrade or under the environment alone.
    fn append(
        &self,
        environment: &str,
        upgrade: Option<&str>,
        events: &[Event],
        dispatch: &Dispatcher<'_>,
    ) -> Result<Vec<u64>, StoreError>;
    /// Writes an event that was made durable elsewhere first, under the name (`source`) that it has there: one that is here
    /// already changes nothing, makes no report and is no act. Returns its number where it is new.
    fn copy_event(&self, copy: &EventCopy<'_>) -> Result<Option<u64>, StoreError>;
    /// Reads events.
    fn events(&self, query: &EventQuery<'_>) -> Result<Vec<EventRecord>, StoreError>;
    /// Keeps the home within its bounds ([`KEEP_EVENTS`], [`KEEP_FINISHED_UPGRADES`], [`KEEP_SETTLED_REPORTS`],
    /// [`KEEP_ATTESTATIONS`], [`threads::KEEP_THREADS`]).
    fn prune(&self) -> Result<Pruned, StoreError>;
    /// Forgets an environment: its resource, upgrades and events, and its marks on builds. Its lease counter stays,
    /// and so do reports that wait. Needs the lease.
    fn forget_environment(&self, environment: &str, token: &FencingToken) -> Result<Pruned, StoreError>;

    /// Takes the next due report for a sink: the oldest of its thread, not claimed by another drainer. It stays the
    /// claimant's until settled, or until `claim_until`, when another may repeat it.
    fn claim(
        &self,
        sink: &str,
        claimant: &str,
        now: Timestamp,
        claim_until: Timestamp,
    ) -> Result<Option<OutboxEntry>, StoreError>;
    /// Says how the delivery of a claimed report ended. From a drainer whose claim ran out and was taken by another,
    /// only `Delivered` counts.
    fn settle(&self, id: u64, claimant: &str, how: &Settlement, now: Timestamp) -> Result<(), StoreError>;
    /// When the next report for a sink can be claimed; `None` when none waits.
    fn next_due(&self, sink: &str) -> Result<Option<Timestamp>, StoreError>;
    /// What is still to be told, by sink: of all, of an environment, or of an upgrade.
    fn pending(&self, environment: Option<&str>, upgrade: Option<&str>) -> Result<Vec<PendingReports>, StoreError>;

    /// Dead letters, in the order in which they were written.
    fn dead_letters(&self, query: &LetterQuery<'_>) -> Result<Vec<DeadLetter>, StoreError>;
    /// Lets dead letters wait again, as if they had not been tried: each before all that was written after it. Returns how many
    /// there were.
    fn revive(&self, query: &LetterQuery<'_>) -> Result<u64, StoreError>;
    /// Forgets dead letters. Returns how many there were.
    fn drop_letters(&self, query: &LetterQuery<'_>) -> Result<u64, StoreError>;

    /// How a sink's thread stands; `None` when nothing was ever sent there.
    fn thread(&self, sink: &str, thread: &str) -> Result<Option<ThreadState>, StoreError>;
    /// Notes how a sink's thread stands. Only who has claimed a report of the thread may call it.
    fn put_thread(&self, sink: &str, thread: &str, state: &ThreadState, now: Timestamp) -> Result<(), StoreError>;

    /// Keeps an attestation. One that is here already changes nothing; of a commit the last
    /// [`KEEP_ATTESTATIONS_OF_A_COMMIT`] stay.
    fn put_attestation(&self, attestation: &Attestation) -> Result<(), StoreError>;
    /// The attestations of a commit, of whichever repository they speak, the oldest first.
    fn attestations(&self, commit: &str) -> Result<Vec<Attestation>, StoreError>;
}

/// A name for a new upgrade of this build, as `server-1.0.4-k3x9`. Four letters of a 32-letter alphabet: with the
/// 200 upgrades that a home keeps, one name in 5,000 is taken ([`StoreError::Exists`]: ask for another).
#[must_use]
pub fn fresh_upgrade_name(build: &str) -> String {
    // Without 0, 1, l and o, which people confuse.
    const LETTERS: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
    let tail: String = random_bytes::<4>()
        .iter()
        .map(|b| char::from(LETTERS[usize::from(b % 32)]))
        .collect();
    format!("{build}-{tail}")
}

/// A random text for identities, 32 hexadecimal digits.
#[must_use]
pub fn random_id() -> String {
    use std::fmt::Write as _;
    random_bytes::<16>().iter().fold(String::new(), |mut text, b| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .expect("Linux gives random bytes to every process");
    bytes
}

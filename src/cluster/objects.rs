//! Our kinds as objects of an API server: where they are asked for, and what of them is ours.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

use super::crd::{GROUP, VERSION};
use crate::audit::Act;
use crate::hosts::FencingToken;
use crate::model::upgrade::{Event, NodePhase, Phase, UpgradeSpec, UpgradeStatus, Wish};
use crate::report::in_one_line;
use crate::rollout::{self, WishedBy};
use crate::store::build::{Condition, ConditionStatus, put_condition};

/// An annotation of an Environment: each new value asks its controller to bring it up again, once.
pub const RECONCILE_AT: &str = "stagegate.dev/reconcile-at";
/// Bytes of its value that count, as the definition has the status that answers it.
const LONGEST_ASKED: usize = 253;
/// Keeps an object until we are done with it.
pub const FINALIZER: &str = "stagegate.dev/done";
/// Who we are in `managedFields`.
pub const MANAGER: &str = "stagegate-controller";
/// An API server that is well answers in milliseconds; after this the request is made again or given up.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Attempts at a write that another was quicker with: each costs one reading.
pub const ATTEMPTS: u32 = 5;

/// Before a request that failed is made again; doubled each time: with [`ATTEMPTS`] about three seconds beside the requests' own
/// time.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// A kind that the controller works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Environments.
    Environment,
    /// Builds.
    Build,
    /// Upgrades.
    Upgrade,
    /// Promotions.
    Promotion,
    /// Pipelines.
    Pipeline,
    /// Freezes.
    Freeze,
    /// Rehearsals.
    Rehearsal,
}

impl Kind {
    /// Where its objects are asked for.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        let (kind, plural) = match self {
            Kind::Environment => ("Environment", "environments"),
            Kind::Build => ("Build", "builds"),
            Kind::Upgrade => ("Upgrade", "upgrades"),
            Kind::Promotion => ("Promotion", "promotions"),
            Kind::Pipeline => ("Pipeline", "pipelines"),
            Kind::Freeze => ("Freeze", "freezes"),
            Kind::Rehearsal => ("Rehearsal", "rehearsals"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural)
    }

    /// Its objects in a namespace.
    #[must_use]
    pub fn api(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.resource())
    }
}

/// Why an API server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It said no.
    #[error("the API server refused to {tried} {what}: {why} ({code})")]
    Refused {
        /// What was tried.
        tried: &'static str,
        /// On what.
        what: String,
        /// What it said.
        why: String,
        /// The code of its answer.
        code: u16,
    },
    /// It could not be asked.
    #[error("the API server could not be asked to {tried} {what}: {why}; this is tried again")]
    Unreachable {
        /// What was tried.
        tried: &'static str,
        /// On what.
        what: String,
        /// What happened.
        why: String,
    },
    /// What it gave is not what this version reads.
    #[error(
        "cannot read {what}: {why}; its definition may be of another version: `stagegate crds | kubectl apply --server-side -f -`"
    )]
    Unreadable {
        /// Which object.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ApiError {
    /// Somebody else wrote in between.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, ApiError::Refused { code: 409, .. })
    }

    /// It is not there.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, ApiError::Refused { code: 404, .. })
    }

    /// The same may be answered otherwise in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            ApiError::Refused { code, .. } => *code == 429 || *code >= 500,
            ApiError::Unreachable { .. } => true,
            ApiError::Unreadable { .. } => false,
        }
    }
}

/// Asks within bounds.
///
/// # Errors
/// What the API server said, or that it said nothing.
pub async fn asked<T>(
    tried: &'static str,
    what: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let unreachable = |why: String| ApiError::Unreachable {
        tried,
        what: what.to_owned(),
        why,
    };
    match tokio::time::timeout(REQUEST_LIMIT, request).await {
        Err(_) => Err(unreachable(format!("no answer within {} s", REQUEST_LIMIT.as_secs()))),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(ApiError::Refused {
            tried,
            what: what.to_owned(),
            why: status.message.clone(),
            code: status.code,
        }),
        Ok(Err(other)) => Err(unreachable(other.to_string())),
    }
}

/// Asks again, [`ATTEMPTS`] times in all, while the trouble may pass. What could not be asked may have been done all the same: a write
/// has to be one that is refused the second time, or does no harm.
///
/// # Errors
/// As the last attempt.
pub async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(request: impl Fn() -> F) -> Result<T, ApiError> {
    let (mut wait, mut left) = (FIRST_WAIT, ATTEMPTS);
    loop {
        left -= 1;
        match request().await {
            Err(why) if why.is_passing() && left > 0 => {
                tracing::warn!(%why, "it is tried again");
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            asked => return asked,
        }
    }
}

/// What an object is, for people.
#[must_use]
pub fn named(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| types.kind.as_str());
    format!("{kind} {}", name(object))
}

/// Its name.
#[must_use]
pub fn name(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// Told from every other that ever had its name.
#[must_use]
pub fn uid(object: &DynamicObject) -> &str {
    object.metadata.uid.as_deref().unwrap_or_default()
}

/// The name that an upgrade's steps on nodes, events and evidence have: unlike the object's, no later one has it.
#[must_use]
pub fn unique_name(object: &DynamicObject) -> String {
    let uid = uid(object);
    format!("{}-{}", name(object), uid.get(..8).unwrap_or(uid))
}

/// Rises with every change of its spec.
#[must_use]
pub fn generation(object: &DynamicObject) -> i64 {
    object.metadata.generation.unwrap_or_default()
}

/// Whether somebody has asked for its end.
#[must_use]
pub fn is_deleted(object: &DynamicObject) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// The last value of [`RECONCILE_AT`], as a status answers it.
#[must_use]
pub fn reconcile_at(object: &DynamicObject) -> Option<String> {
    let asked = object.metadata.annotations.as_ref()?.get(RECONCILE_AT)?;
    Some(asked[..asked.floor_char_boundary(LONGEST_ASKED)].to_owned())
}

/// Whether an Environment was brought up, or that was tried, since that value was written. One without has nothing to be answered.
#[must_use]
pub fn is_answered(object: &DynamicObject) -> bool {
    reconcile_at(object).is_none_or(|asked| object.data["status"]["lastHandledReconcileAt"] == asked.as_str())
}

/// When it was made.
#[must_use]
pub fn created_at(object: &DynamicObject) -> Timestamp {
    object
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |at| at.0)
}

/// A part of it as its type.
///
/// # Errors
/// It has another shape.
pub fn part<T: DeserializeOwned>(object: &DynamicObject, key: &str) -> Result<T, ApiError> {
    T::deserialize(&object.data[key]).map_err(|e| ApiError::Unreadable {
        what: format!("the {key} of {}", named(object)),
        why: e.to_string(),
    })
}

/// How events name it.
#[must_use]
pub fn reference(object: &DynamicObject, kind: Kind) -> ObjectReference {
    object.object_ref(&kind.resource())
}

/// Writes an object's status, of the version that was read.
///
/// # Errors
/// As the API server says; [`ApiError::is_conflict`] when it has changed since.
pub async fn write_status(
    api: &Api<DynamicObject>,
    object: &DynamicObject,
    status: Value,
) -> Result<DynamicObject, ApiError> {
    let mut object = object.clone();
    object.data["status"] = status;
    let parameters = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    // The whole status is ours and of one writer, so it is replaced: an apply would keep an owner of every key of every node in
    // the object, which doubles it.
    asked(
        "write the status of",
        &named(&object),
        api.replace_status(name(&object), &parameters, &object),
    )
    .await
}

/// Puts our finalizer on an object, or takes it away.
///
/// # Errors
/// As the API server says.
pub async fn keep(api: &Api<DynamicObject>, object: &DynamicObject, kept: Kept) -> Result<(), ApiError> {
    let mut finalizers = object.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|one| one != FINALIZER);
    match kept {
        Kept::UntilDone => finalizers.push(FINALIZER.to_owned()),
        Kept::NoMore => {}
    }
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.metadata.resource_version}});
    let (what, patch, parameters) = (named(object), Patch::Merge(&patch), PatchParams::default());
    match asked("keep or let go", &what, api.patch(name(object), &parameters, &patch)).await {
        Err(gone) if gone.is_gone() => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Whether an object that is deleted stays for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It does.
    UntilDone,
    /// It may go.
    NoMore,
}

/// Whether it stays for us now.
#[must_use]
pub fn is_kept(object: &DynamicObject) -> bool {
    let finalizers = object.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|one| one == FINALIZER)
}

/// What the status of an Upgrade holds beside [`UpgradeStatus`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Book {
    /// Whose write the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// The process that drives it, or drove it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Rises with every write.
    #[serde(default)]
    pub writes: u64,
    /// Names the last write of a driver, so that one whose answer was lost is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<String>,
    /// Events so far: numbers the next one.
    #[serde(default)]
    pub told: u64,
    /// Events that may not have been copied into the history and the outbox yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<Pending>,
    /// Generation of the spec that the last write was decided from.
    #[serde(default)]
    pub observed_generation: i64,
    /// As Kubernetes writes them.
    #[serde(default)]
    pub conditions: Vec<Value>,
}

/// A fencing token as a status has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The home.
    pub home: String,
    /// Its counter.
    pub counter: u64,
}

impl From<&FencingToken> for Fence {
    fn from(token: &FencingToken) -> Self {
        Self {
            home: token.home.clone(),
            counter: token.counter,
        }
    }
}

/// An event on its way into the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Its place among the upgrade's events, from 1.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// What the audit keeps of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
}

/// An Upgrade as read.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// The object.
    pub object: DynamicObject,
    /// What is asked; of a deleted one, to go back.
    pub spec: UpgradeSpec,
    /// How far it is.
    pub status: UpgradeStatus,
    /// The rest of its status.
    pub book: Book,
}

impl Upgrade {
    /// Reads one.
    ///
    /// # Errors
    /// It has another shape.
    pub fn read(object: DynamicObject) -> Result<Self, ApiError> {
        let mut spec: UpgradeSpec = part(&object, "spec")?;
        if is_deleted(&object) {
            spec.wish = Wish::Abort;
        }
        let stated = |key: &str| object.data["status"].get(key).is_some();
        let status = if stated("phase") {
            part(&object, "status")?
        } else {
            UpgradeStatus::new(created_at(&object))
        };
        let book = if object.data["status"].is_object() {
            part(&object, "status")?
        } else {
            Book::default()
        };
        Ok(Self {
            object,
            spec,
            status,
            book,
        })
    }

    /// How what is wished of it was said. One that is deleted after its way back was asked for goes back by that word.
    #[must_use]
    pub fn wished_by(&self) -> WishedBy {
        let word: Option<Wish> = serde_json::from_value(self.object.data["spec"]["wish"].clone()).ok();
        if is_deleted(&self.object) && word != Some(Wish::Abort) {
            WishedBy::Deletion
        } else {
            WishedBy::Word
        }
    }

    /// Whether it is held, and nobody has asked since for anything but that.
    #[must_use]
    pub fn stays_held(&self) -> bool {
        self.status.phase.is_held()
            && match self.spec.wish {
                Wish::Proceed => !self.is_asked_again() && !rollout::waits_to_reach(&self.status),
                Wish::Pause | Wish::TimeUp => true,
                Wish::Abort => false,
            }
    }

    /// Whether somebody has changed what is asked since the status was written: of one that is held, that it goes on.
    #[must_use]
    pub fn is_asked_again(&self) -> bool {
        generation(&self.object) > self.book.observed_generation
    }

    /// As [`unique_name`].
    #[must_use]
    pub fn unique_name(&self) -> String {
        unique_name(&self.object)
    }
}

/// The condition of an upgrade that could not give back what it had at once.
const GIVEN_BACK: &str = "GivenBack";

/// Conditions of an upgrade, as `kubectl wait` asks for them.
pub fn conditions(book: &mut Book, status: &UpgradeStatus, generation: i64, now: Timestamp) {
    let reason = if status.reason.is_empty() {
        format!("{:?}", status.phase)
    } else {
        status.reason.clone()
    };
    let message = match &status.cause {
        // How it ended does not say why it went back.
        Some(cause) if status.phase.is_final() => {
            format!("{}; it went back since {}", status.message, in_one_line(&cause.message))
        }
        Some(_) | None => status.message.clone(),
    };
    let moves = !status.phase.is_final() && !status.phase.is_held() && status.phase != Phase::Pending;
    let progress = Progress {
        is_ready: status.phase == Phase::Succeeded,
        moves,
        reason,
        message,
    };
    progress.put(&mut book.conditions, generation, now);
    given_back(book, status, generation, now);
}

/// How something stands that goes on by itself, as conditions say it.
#[derive(Debug, Clone)]
pub struct Progress {
    /// It has come where it was to come.
    pub is_ready: bool,
    /// It goes on.
    pub moves: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Progress {
    /// Puts its conditions `Ready` and `Progressing` among others.
    pub fn put(&self, conditions: &mut Vec<Value>, generation: i64, now: Timestamp) {
        for (kind, holds) in [("Ready", self.is_ready), ("Progressing", self.moves)] {
            let condition = Condition {
                kind: kind.to_owned(),
                status: holds.into(),
                reason: self.reason.clone(),
                message: self.message.clone(),
                last_transition_time: now,
            };
            set_condition(conditions, generation, condition);
        }
    }
}

/// How many of an upgrade's nodes have gone their way, forward or back, as `2/3`.
#[must_use]
pub fn done(status: &UpgradeStatus) -> String {
    let done = status.nodes.iter().filter(|node| node.phase == NodePhase::Done).count();
    format!("{done}/{}", status.nodes.len())
}

/// That what an upgrade had is its owner's again: said where that was in doubt.
fn given_back(book: &mut Book, status: &UpgradeStatus, generation: i64, now: Timestamp) {
    let is_told = book.conditions.iter().any(|c| c["type"] == GIVEN_BACK);
    let why = status.kept.as_ref().and_then(|kept| kept.why.clone());
    let (status, reason, message) = match why {
        Some(why) => (ConditionStatus::False, "NotGivenBack", why),
        None if is_told && status.kept.is_none() => {
            let message = "what it had is its owner's again".to_owned();
            (ConditionStatus::True, "GivenBack", message)
        }
        None => return,
    };
    set_condition(
        &mut book.conditions,
        generation,
        Condition {
            kind: GIVEN_BACK.to_owned(),
            status,
            reason: reason.to_owned(),
            message,
            last_transition_time: now,
        },
    );
}

/// Puts a condition in its place, with the generation that it was found with.
pub fn set_condition(conditions: &mut Vec<Value>, generation: i64, condition: Condition) {
    let kind = condition.kind.clone();
    put_condition(conditions, condition);
    if let Some(place) = conditions.iter_mut().find(|c| c["type"] == kind.as_str()) {
        place["observedGeneration"] = json!(generation);
    }
}

/// Characters of a note of an Event that an API server takes.
pub const LONGEST_NOTE: usize = 1_024;
/// Bytes that a status may have: many fit into what an API server keeps of one object (1.5 MiB), and into what a watch carries.
pub const LONGEST_STATUS: usize = 256 << 10;
/// Bytes that one text of it may have.
const LONGEST_TEXT: usize = 16 << 10;
/// No text is cut below this: names, digests and reasons are shorter.
const SHORTEST_CUT: usize = 160;
/// What stands at the end of a text that was cut.
const CUT: &str = " [cut]";

/// Cuts the longest texts of a status until it is within bounds; tells whether it is.
pub fn fit(status: &mut Value, most: usize) -> Fits {
    // No text of ours says more than this has, and the definitions take no longer ones.
    cut(status, LONGEST_TEXT);
    let size = |status: &Value| status.to_string().len();
    let mut longest = LONGEST_TEXT / 2;
    while size(status) > most {
        if longest < SHORTEST_CUT {
            return Fits::No;
        }
        cut(status, longest);
        longest /= 2;
    }
    Fits::Yes
}

/// Whether something is within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// It is.
    Yes,
    /// It is not, however short its texts.
    No,
}

fn cut(value: &mut Value, longest: usize) {
    match value {
        Value::String(text) if text.len() > longest => {
            let end = text.floor_char_boundary(longest - CUT.len());
            text.truncate(end);
            text.push_str(CUT);
        }
        Value::Array(values) => values.iter_mut().for_each(|value| cut(value, longest)),
        Value::Object(values) => values.values_mut().for_each(|value| cut(value, longest)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_cut_to_its_bound_from_its_longest_texts_and_short_ones_stay() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let mut status = json!({"message": "ä".repeat(30_000), "nodes": []});
        for _ in 0..200 {
            let node = json!({"build": digest, "trouble": "x".repeat(3_000), "name": "n"});
            status["nodes"].as_array_mut().expect("a list").push(node);
        }
        assert!(status.to_string().len() > LONGEST_STATUS);
        assert_eq!(fit(&mut status, LONGEST_STATUS), Fits::Yes);
        assert!(status.to_string().len() <= LONGEST_STATUS);
        assert_eq!(status["nodes"][7]["build"], digest.as_str());
        for text in [&status["message"], &status["nodes"][199]["trouble"]] {
            assert!(text.as_str().expect("a text").ends_with(CUT), "{text}");
        }
        let mut many = json!(vec![digest; 10_000]);
        assert_eq!(fit(&mut many, LONGEST_STATUS), Fits::No);
    }

    #[test]
    fn who_deletes_an_upgrade_is_not_taken_for_one_who_has_said_something() {
        let (gone, there) = (json!("2026-01-01T00:00:00Z"), Value::Null);
        for (wish, deleted_at, expected) in [
            ("proceed", &there, (Wish::Proceed, WishedBy::Word)),
            ("abort", &there, (Wish::Abort, WishedBy::Word)),
            ("proceed", &gone, (Wish::Abort, WishedBy::Deletion)),
            ("pause", &gone, (Wish::Abort, WishedBy::Deletion)),
            ("abort", &gone, (Wish::Abort, WishedBy::Word)),
        ] {
            let object = json!({
                "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade",
                "metadata": {"name": "one", "deletionTimestamp": deleted_at},
                "spec": {"environment": "shop", "component": "web", "build": "web-2", "wish": wish},
            });
            let read = Upgrade::read(serde_json::from_value(object).expect("an object")).expect("sound");
            assert_eq!(
                (read.spec.wish, read.wished_by()),
                expected,
                "{wish}, deleted at {deleted_at}"
            );
        }
    }

    #[test]
    fn a_short_status_stays_as_it_is() {
        let before = json!({"message": "y".repeat(10_000)});
        let mut status = before.clone();
        assert_eq!(fit(&mut status, LONGEST_STATUS), Fits::Yes);
        assert_eq!(status, before);
    }
}

//! A replica beside what it is to hold: what is otherwise, why, and who made it so. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MANAGER, fields, plan};
use crate::model::difference::differences;
use crate::model::manifest::Manifest;
use crate::model::text::Path;

/// Fields that are told of one object; who needs more looks at the object.
const MOST_FIELDS: usize = 32;
/// A value that is longer is told by its beginning.
const MOST_CHARS: usize = 120;

/// Whether a replica is as it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncState {
    /// Every object is there and no field of it that we set is otherwise.
    Synced,
    /// Something is otherwise.
    OutOfSync,
}

/// Whether what is wanted is what was applied last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// It is: whatever is otherwise was changed in the cluster.
    AsApplied,
    /// Something was changed since, and nobody has brought it up; or a bring-up did not come to its end.
    Changed,
    /// The set's parent, which says so, is not there.
    Unknown,
}

/// A replica beside what is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSight {
    /// As a whole.
    pub sync: SyncState,
    /// Its namespace.
    pub namespace: String,
    /// Objects that are wanted.
    pub objects: usize,
    /// Whether the files say what was applied last.
    pub files: Files,
    /// When it is to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Objects that are otherwise.
    #[serde(default)]
    pub out_of_sync: Vec<OutOfSync>,
    /// When that was seen.
    pub seen_at: Timestamp,
}

/// An object that is otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutOfSync {
    /// As kubectl takes it.
    pub object: String,
    /// Why.
    pub cause: Cause,
    /// What the API server says of it, where it would not take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Which fields, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
}

impl OutOfSync {
    /// An object of which no field can be told.
    #[must_use]
    pub fn whole(object: &impl ToString, cause: Cause) -> Self {
        Self {
            object: object.to_string(),
            cause,
            message: None,
            fields: Vec::new(),
        }
    }
}

/// Why an object is otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It is not there.
    Missing,
    /// It was changed in the cluster.
    Drifted,
    /// Its template or what that sees was changed since it was applied.
    FileChanged,
    /// It is there, and no template states it any more.
    Unwanted,
    /// It is somebody else's.
    NotOurs,
    /// As it is stated it would not be taken.
    Refused,
}

impl Cause {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Cause::Missing => "is missing",
            Cause::Drifted => "was changed in the cluster",
            Cause::FileChanged => "was changed in the files since it was applied",
            Cause::Unwanted => "is not stated any more",
            Cause::NotOurs => "is somebody else's",
            Cause::Refused => "would not be taken as it is stated",
        }
    }
}

/// A field that is otherwise. What a Secret holds is not told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Where.
    pub path: String,
    /// What it would be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
}

/// How an object that is there differs from what the server would make of it.
pub(super) fn of_object(manifest: &Manifest, live: &Value, merged: &Value) -> Option<OutOfSync> {
    let digest = Path::root().key("metadata").key("annotations").key(plan::APPLIED);
    let (of_digest, others): (Vec<_>, Vec<_>) = differences(&fields::comparable(live), &fields::comparable(merged))
        .into_iter()
        .partition(|difference| difference.path == digest);
    if others.is_empty() {
        return None;
    }
    let is_secret = plan::is_secret(&manifest.id);
    let told = |value: Option<&Value>| {
        let value = value?;
        Some(if is_secret {
            "(not told)".to_owned()
        } else {
            brief(value)
        })
    };
    let fields = others.iter().take(MOST_FIELDS).map(|difference| Field {
        path: difference.path.to_string(),
        wanted: told(difference.other.as_ref()),
        found: told(difference.one.as_ref()),
        by: fields::holders(live, &difference.path, MANAGER),
    });
    Some(OutOfSync {
        object: manifest.id.to_string(),
        cause: if of_digest.is_empty() {
            Cause::Drifted
        } else {
            Cause::FileChanged
        },
        message: None,
        fields: fields.collect(),
    })
}

fn brief(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= MOST_CHARS {
        return text;
    }
    let begin: String = text.chars().take(MOST_CHARS).collect();
    format!("{begin}…")
}

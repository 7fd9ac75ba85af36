//! A promotion: one build through one stage of a pipeline.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::approval::{Admitted, Bound, Signed};
use super::values::Digest;

/// What is promoted, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromotionSpec {
    /// The pipeline.
    pub pipeline: String,
    /// Its stage.
    pub stage: String,
    /// Name of the Build (`COMPONENT-VERSION`).
    pub build: String,
    /// Who asked for it, as a command or an API server names them; what counts of it is signed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// It enters by itself: the pipeline asks for it, and no person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// It is to end without having gone on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// In a cluster: what was said of it. Nobody can say it for somebody else, and what was said stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Admitted>,
}

impl PromotionSpec {
    /// Of that it is asked for, and by whom, or that it enters by itself.
    #[must_use]
    pub fn asker(&self) -> Digest {
        Digest::of(format!("{:?} {}", self.user, self.automatic).as_bytes())
    }

    /// Of all that somebody says in it.
    pub fn said(&self) -> impl Iterator<Item = Digest> {
        std::iter::once(self.asker()).chain(self.words.iter().map(Admitted::digest))
    }
}

/// How far a promotion is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Why it stands there, one word for programs.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// When the phase began.
    pub since: Timestamp,
    /// What keeps it, the most lasting first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Waiting>,
    /// What an approval of it is bound to now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// What was said of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Signed>,
    /// Rehearsals of this build that have passed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rehearsed: Vec<Rehearsed>,
    /// The upgrade that puts it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
    /// It went on though rules kept it: which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// What is in the way of deciding on it anew, where something is; the rest is as it was decided last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<String>,
    /// What was said of it while nobody could tell who says what: it counts for nothing, also later, and can be said again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub disbelieved: BTreeSet<Digest>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Something that a promotion waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// One word for programs (`Frozen`, `Unapproved`).
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it is over by itself, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A rehearsal that a build has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    /// Which.
    pub rehearsal: String,
    /// Of which bytes.
    pub digest: Digest,
    /// When.
    pub at: Timestamp,
}

/// Where a promotion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Something keeps it.
    Waiting,
    /// The build goes through the stage's rehearsals.
    Rehearsing,
    /// It goes onto the stage's environment.
    Upgrading,
    /// It runs there and was verified.
    Succeeded,
    /// It went back, or did not come so far: the build is not there.
    Failed,
    /// Somebody has rejected it.
    Rejected,
    /// Somebody has taken it back, or a newer build has passed it over.
    Cancelled,
}

impl Phase {
    /// Whether nothing will ever happen again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Phase::Succeeded | Phase::Failed | Phase::Rejected | Phase::Cancelled => true,
            Phase::Waiting | Phase::Rehearsing | Phase::Upgrading => false,
        }
    }
}

impl PromotionStatus {
    /// Why it stands where it does, for people: first of all what is in the way of deciding on it.
    #[must_use]
    pub fn why(&self) -> &str {
        self.undecided.as_deref().unwrap_or(&self.message)
    }

    /// Of one that was just asked for.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            phase: Phase::Waiting,
            reason: String::new(),
            message: String::new(),
            since: now,
            waits_for: Vec::new(),
            bound: None,
            words: Vec::new(),
            rehearsed: Vec::new(),
            upgrade: None,
            passed_over: Vec::new(),
            undecided: None,
            disbelieved: BTreeSet::new(),
            finished_at: None,
        }
    }
}

//! Full runs of commits' hooks, as the store keeps them: a queue that survives, and the verdicts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Holder;
use crate::commits::proof::{Outcome, Verdict};

/// Runs that wait. A team pushes some hundred refs a day; more than this is a loop somewhere.
pub const MOST_WAITING_RUNS: u64 = 10_000;
/// Runs that are done and kept: a year of twenty a day. A verdict has about 1 kB, one full of findings some 300 kB.
pub const KEEP_DONE_RUNS: u64 = 7_500;
/// How often a run is begun. The third time it is the run that kills its server, or a machine that will not mend by itself.
pub const MOST_ATTEMPTS: u32 = 3;

/// The same question has the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunKey {
    /// The repository's directory.
    pub repository: String,
    /// The commit's full name.
    pub commit: String,
    /// The digest of the policy.
    pub policy: String,
    /// Version of the engine.
    pub engine: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunAsk {
    /// What makes it the same question.
    #[serde(flatten)]
    pub key: RunKey,
    /// The ref by which the commit came.
    pub reference: Option<String>,
    /// The protected branch.
    pub base_branch: Option<String>,
    /// Where it was before the commit came, in full.
    pub base_tip: Option<String>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "phase")]
pub enum RunPhase {
    /// It waits.
    Queued {
        /// Not begun before this time.
        not_before: Timestamp,
    },
    /// It is under way.
    Running {
        /// Since when.
        since: Timestamp,
        /// In which process.
        by: Holder,
    },
    /// It is over.
    Done,
}

/// A run as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its number.
    pub id: u64,
    /// What is asked for.
    pub ask: RunAsk,
    /// How far it is.
    pub phase: RunPhase,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was asked for.
    pub queued_at: Timestamp,
    /// What the last attempt that came to one said.
    pub verdict: Option<Verdict>,
    /// Why the last attempt came to none.
    pub last_error: Option<String>,
}

impl Run {
    /// Whether it is known what came of it: passed or failed.
    #[must_use]
    pub fn proves_something(&self) -> bool {
        match self.verdict.as_ref().map(|verdict| &verdict.outcome) {
            Some(Outcome::Passed | Outcome::Failed) => true,
            Some(Outcome::NotProven { .. }) | None => false,
        }
    }
}

impl Run {
    /// Whether it ended without a verdict, however often it was begun.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.phase == RunPhase::Done && self.last_error.is_some()
    }
}

/// What comes of looking for a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// This one is ours now.
    Begun(Run),
    /// This one was begun too often, and has ended: nobody begins it again unless it is asked for.
    GivenUp(Run),
}

/// How a run was taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits now.
    New,
    /// It was there already.
    Known,
    /// There was one that proved nothing; it is begun anew.
    Again,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub enum Attempt<'a> {
    /// With a verdict that stays.
    Done(&'a Verdict),
    /// With one that proves nothing; tried again from this time on, unless that was the last attempt.
    NotProven(&'a Verdict, Timestamp),
    /// Without any; the same.
    Failed(&'a str, Timestamp),
    /// It was broken off, which is not held against it.
    BrokenOff,
}

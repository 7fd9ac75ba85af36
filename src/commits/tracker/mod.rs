//! Issues that commits name, as their tracker has them: whether they are there, of which project and type, in which status.
//!
//! Nothing that a push waits for asks it, and no developer's machine does: full runs do, and what comes before an upgrade. What
//! could not be asked is written into the verdict and proves nothing until it was. [`issues`] is pure, [`jira`] asks one
//! tracker, and [`Trackers`] has all that a workspace states, and what was answered lately.

pub mod issues;
pub mod jira;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

pub use issues::{Answer, Issue, IssueCheck, IssueResult, Named};

use self::jira::{Jira, Limits};
use super::policy::Policy;
use crate::home::Home;
use crate::model::tracker::IssueTrackerSpec;
use crate::store::{Expect, Resource, Store as _, StoreError};
use crate::workspace::Workspace;

/// Issues that one run asks about: those of a day's work of a team. A tracker answers some ten a second.
pub const MOST_ASKED: usize = 200;
/// All questions of a run together. What is not answered by then counts as not asked.
const WHOLE: Duration = Duration::from_mins(1);
/// An answer is used again for so long: a push to three branches asks once, and a status that changes is seen within the time
/// that a person takes to try again.
const FRESH: SignedDuration = SignedDuration::from_mins(10);
/// Answers that are kept, of all trackers together, some 300 bytes each.
const MOST_KEPT: usize = 5_000;
/// Kind of the records of answers.
const KIND: &str = "Issue";

/// The trackers that a workspace states.
#[derive(Debug)]
pub struct Trackers {
    home: Home,
    /// By name; or why the files cannot be used.
    stated: Result<BTreeMap<String, IssueTrackerSpec>, String>,
    workspace: PathBuf,
    limits: Limits,
}

impl Trackers {
    /// Those of this workspace, as its files are now.
    #[must_use]
    pub fn of(home: &Home, workspace: &Workspace) -> Self {
        let stated = workspace.trackers().map(|all| all.into_iter().collect());
        Self {
            home: home.clone(),
            stated: stated.map_err(|why| format!("the files in hooks/ cannot be used: {why}")),
            workspace: workspace.root().to_owned(),
            limits: Limits::default(),
        }
    }

    /// What the policy's tracker says of these issues; each of them has an answer, though it be that there was none.
    pub async fn ask(&self, policy: &Policy, keys: &BTreeSet<String>) -> BTreeMap<String, Answer> {
        let now = Timestamp::now();
        // A policy by which issues are looked up names their tracker.
        let tracker = policy.spec.message.issue.tracker.as_deref().unwrap_or_default();
        let mut answers = self.remembered(policy, tracker, keys, now);
        let open: Vec<&String> = keys.iter().filter(|key| !answers.contains_key(*key)).collect();
        let jira = match self.jira(tracker) {
            Ok(jira) => jira,
            Err(why) => {
                let unasked = open
                    .into_iter()
                    .map(|key| (key.clone(), Answer::Unavailable(why.clone())));
                answers.extend(unasked);
                return answers;
            }
        };
        let until = tokio::time::Instant::now() + WHOLE;
        let mut silent: Option<String> = None;
        let before = answers.len();
        for (nth, key) in open.into_iter().enumerate() {
            let answer = if let Some(why) = &silent {
                Answer::Unavailable(why.clone())
            } else if nth >= MOST_ASKED {
                Answer::Unavailable(format!("more than {MOST_ASKED} issues were to be looked up at once"))
            } else {
                let asked = tokio::time::timeout_at(until, jira.issue(key)).await;
                asked.unwrap_or_else(|_| {
                    Answer::Unavailable(format!("not all issues were answered within {} s", WHOLE.as_secs()))
                })
            };
            match &answer {
                Answer::There(issue) => self.remember(tracker, key, issue, now),
                Answer::NotThere => {}
                // One that does not answer is not asked a hundred times more.
                Answer::Unavailable(why) => silent = Some(why.clone()),
            }
            answers.insert(key.clone(), answer);
        }
        if answers.len() > before
            && let Err(why) = self.forget()
        {
            tracing::warn!(%why, "old answers of trackers were not cleared away");
        }
        answers
    }

    fn jira(&self, tracker: &str) -> Result<Jira, String> {
        let stated = self.stated.as_ref().map_err(Clone::clone)?;
        let spec = stated
            .get(tracker)
            .ok_or_else(|| format!("no file in hooks/ of the workspace states an IssueTracker `{tracker}`"))?;
        Jira::new(spec, &self.workspace, self.limits).map_err(|why| why.to_string())
    }

    /// What was answered lately and is as the policy asks; what is not may have been mended since. A memory that cannot be read
    /// is none.
    fn remembered(
        &self,
        policy: &Policy,
        tracker: &str,
        keys: &BTreeSet<String>,
        now: Timestamp,
    ) -> BTreeMap<String, Answer> {
        let read = |key: &String| {
            let kept = self.home.store().resource(KIND, &record(tracker, key)).ok()??;
            let issue: Issue = kept.status_as().ok()?;
            let age = now.duration_since(issue.as_of);
            let fresh = age >= SignedDuration::ZERO && age < FRESH;
            let counts = fresh && issues::fits(policy, &issue);
            counts.then(|| (key.clone(), Answer::There(issue)))
        };
        keys.iter().filter_map(read).collect()
    }

    /// Only what is there is remembered: one that is missing may be made the next minute.
    fn remember(&self, tracker: &str, key: &str, issue: &Issue, now: Timestamp) {
        let (store, name) = (self.home.store(), record(tracker, key));
        let spec = json!({"tracker": tracker, "key": key});
        let kept = store
            .put_resource(KIND, &name, &spec, Expect::Anything, now)
            .and_then(|_| store.put_status(KIND, &name, &json!(issue), Expect::Anything, now));
        if let Err(why) = kept {
            tracing::warn!(%why, key, "what the tracker said is not remembered");
        }
    }

    /// Keeps the last answers only.
    fn forget(&self) -> Result<(), StoreError> {
        let store = self.home.store();
        let mut all: Vec<Resource> = store.resources(KIND)?;
        let too_many = all.len().saturating_sub(MOST_KEPT);
        all.sort_by_key(|kept| kept.updated_at);
        for old in all.into_iter().take(too_many) {
            store.delete_resource(KIND, &old.name, Expect::Anything)?;
        }
        Ok(())
    }
}

fn record(tracker: &str, key: &str) -> String {
    format!("{tracker}/{key}")
}

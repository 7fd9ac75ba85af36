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
use super::finding::plain;
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
/// Answers that are kept, of all trackers together, some 300 bytes each; and as many commits whose issues were found right
/// after they had been put off.
const MOST_KEPT: usize = 5_000;
/// Kinds of the records: of answers, and of what came of looking up what was put off.
const ANSWER: &str = "Issue";
const SETTLED: &str = "SettledIssues";

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
                let unasked = open.into_iter().map(|key| (key.clone(), Answer::Silent(why.clone())));
                answers.extend(unasked);
                return answers;
            }
        };
        let until = tokio::time::Instant::now() + WHOLE;
        let mut silent: Option<String> = None;
        let before = answers.len();
        for (nth, key) in open.into_iter().enumerate() {
            let answer = if let Some(why) = &silent {
                Answer::Silent(why.clone())
            } else if !policy.keys.is_key(key) {
                // Keys may come from a statement that somebody else has signed, and are put into an address.
                Answer::Unavailable(format!("`{}` is no key of a project of the policy", plain(key)))
            } else if nth >= MOST_ASKED {
                Answer::Unavailable(format!("more than {MOST_ASKED} issues were to be looked up at once"))
            } else {
                let asked = tokio::time::timeout_at(until, jira.issue(key)).await;
                asked.unwrap_or_else(|_| {
                    Answer::Silent(format!("not all issues were answered within {} s", WHOLE.as_secs()))
                })
            };
            match &answer {
                Answer::There(issue) => self.remember(tracker, key, issue, now),
                Answer::NotThere | Answer::Unavailable(_) => {}
                // One that does not answer is not asked a hundred times more.
                Answer::Silent(why) => silent = Some(why.clone()),
            }
            answers.insert(key.clone(), answer);
        }
        if answers.len() > before
            && let Err(why) = self.forget(ANSWER)
        {
            tracing::warn!(%why, "old answers of trackers were not cleared away");
        }
        answers
    }

    /// What comes of the issues of a commit that were put off when it was checked: those that a check of it left open, looked up
    /// now. Once all of them were right they stay so: an issue that is closed later takes no proof back.
    pub async fn settle(&self, policy: &Policy, commit: &str, checks: &[IssueCheck]) -> Vec<IssueCheck> {
        let open: Vec<&IssueCheck> = issues::open(checks).collect();
        let name = format!("{}/{commit}", policy.digest);
        let kept = self.settled(policy, &name);
        let before = |check: &IssueCheck| kept.iter().find(|known| known.keys == check.keys).cloned();
        if let Some(all) = open.iter().map(|check| before(check)).collect() {
            return all;
        }
        let keys = open.iter().flat_map(|check| check.keys.iter().cloned()).collect();
        let answers = self.ask(policy, &keys).await;
        let now: Vec<IssueCheck> = open
            .into_iter()
            .map(|check| IssueCheck {
                result: issues::judge(policy, &check.keys, &answers),
                ..check.clone()
            })
            .collect();
        if now.iter().all(|check| issues::is_right(policy, check)) {
            let (store, at) = (self.home.store(), Timestamp::now());
            let written = store
                .put_resource(SETTLED, &name, &json!({"commit": commit}), Expect::Anything, at)
                .and_then(|_| store.put_status(SETTLED, &name, &json!(now), Expect::Anything, at))
                .and_then(|_| self.forget(SETTLED));
            if let Err(why) = written {
                tracing::warn!(%why, commit, "that its issues are right is not remembered");
            }
        }
        now
    }

    /// What was found right before, as far as it can be read.
    fn settled(&self, policy: &Policy, name: &str) -> Vec<IssueCheck> {
        let kept = self.home.store().resource(SETTLED, name).ok().flatten();
        let kept: Option<Vec<IssueCheck>> = kept.and_then(|kept| kept.status_as().ok());
        let mut kept = kept.unwrap_or_default();
        kept.retain(|check| issues::is_right(policy, check));
        kept
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
            let kept = self.home.store().resource(ANSWER, &record(tracker, key)).ok()??;
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
            .put_resource(ANSWER, &name, &spec, Expect::Anything, now)
            .and_then(|_| store.put_status(ANSWER, &name, &json!(issue), Expect::Anything, now));
        if let Err(why) = kept {
            tracing::warn!(%why, key, "what the tracker said is not remembered");
        }
    }

    /// Keeps the last records of a kind only.
    fn forget(&self, kind: &str) -> Result<(), StoreError> {
        let store = self.home.store();
        let mut all: Vec<Resource> = store.resources(kind)?;
        let too_many = all.len().saturating_sub(MOST_KEPT);
        all.sort_by_key(|kept| kept.updated_at);
        for old in all.into_iter().take(too_many) {
            store.delete_resource(kind, &old.name, Expect::Anything)?;
        }
        Ok(())
    }
}

fn record(tracker: &str, key: &str) -> String {
    format!("{tracker}/{key}")
}

#[cfg(test)]
mod tests {
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    const POLICY: &str = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\nspec: {message: {issueKeys: \
                          {projects: [ABC]}, issue: {mode: MANDATORY, tracker: its, statuses: [Open]}}}\n";

    fn policy() -> Policy {
        Policy::read("p", POLICY.as_bytes()).expect("valid")
    }

    /// A workspace that knows this tracker, with a home in memory.
    fn trackers(server: &MockServer) -> (tempfile::TempDir, Trackers) {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(place.path().join("hooks")).expect("made");
        std::fs::write(place.path().join("token"), "secret\n").expect("written");
        let file = format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: IssueTracker\nmetadata: {{name: its}}\nspec:\n  jira: {{url: '{}', \
             dataCenter: {{token: jira}}}}\n  secrets: {{jira: {{file: token}}}}\n",
            server.uri()
        );
        std::fs::write(place.path().join("hooks/its.yaml"), file).expect("written");
        let home = Home::look(&place.path().join("no-state")).expect("one in memory");
        let trackers = Trackers::of(&home, &Workspace::at(place.path().to_owned()));
        (place, trackers)
    }

    async fn says(server: &MockServer, key: &str, response: ResponseTemplate) {
        Mock::given(method("GET"))
            .and(path(format!("/rest/api/2/issue/{key}")))
            .respond_with(response)
            .mount(server)
            .await;
    }

    fn issue(key: &str, status: &str) -> ResponseTemplate {
        ResponseTemplate::new(200).set_body_json(json!({"key": key, "fields": {
            "project": {"key": "ABC"}, "issuetype": {"name": "Bug"}, "status": {"name": status}}}))
    }

    fn words(answer: &Answer) -> &'static str {
        match answer {
            Answer::There(_) => "there",
            Answer::NotThere => "not there",
            Answer::Unavailable(_) => "unavailable",
            Answer::Silent(_) => "silent",
        }
    }

    async fn ask(trackers: &Trackers, keys: &[&str]) -> Vec<&'static str> {
        let set = keys.iter().map(|key| (*key).to_owned()).collect();
        let answers = trackers.ask(&policy(), &set).await;
        keys.iter().map(|key| words(&answers[*key])).collect()
    }

    #[tokio::test]
    async fn one_keys_own_trouble_does_not_silence_the_others_and_the_trackers_does() {
        let server = MockServer::start().await;
        let (_place, trackers) = trackers(&server);
        says(&server, "ABC-1", ResponseTemplate::new(403)).await;
        says(&server, "ABC-2", ResponseTemplate::new(200).set_body_string("odd")).await;
        says(&server, "ABC-3", issue("ABC-3", "Open")).await;
        says(
            &server,
            "ABC-4",
            ResponseTemplate::new(503).insert_header("retry-after", "600"),
        )
        .await;
        says(&server, "ABC-5", issue("ABC-5", "Open")).await;
        assert_eq!(
            ask(&trackers, &["ABC-1", "ABC-2", "ABC-3", "ABC-4", "ABC-5"]).await,
            ["unavailable", "unavailable", "there", "silent", "silent"]
        );
    }

    /// Keys of a statement are somebody else's words, and the request carries our token.
    #[tokio::test]
    async fn what_is_no_key_of_the_policy_is_never_asked_about() {
        let server = MockServer::start().await;
        let (_place, trackers) = trackers(&server);
        let keys = ["../../x?y=", "ABC-1/../../x", "DEF-1"];
        assert_eq!(ask(&trackers, &keys).await, ["unavailable"; 3]);
        assert_eq!(server.received_requests().await.expect("kept").len(), 0);
    }

    #[tokio::test]
    async fn what_was_put_off_and_found_right_stays_right_when_the_issue_is_closed() {
        let server = MockServer::start().await;
        let (_place, trackers) = trackers(&server);
        let named = |keys: &[&str]| Named {
            commit: "c".to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        let checks = issues::unasked(vec![named(&["ABC-1"]), named(&["ABC-2"])], "it is down");
        let settled = async |commit: &str| {
            let now = trackers.settle(&policy(), commit, &checks).await;
            now.iter()
                .map(|check| issues::is_right(&policy(), check))
                .collect::<Vec<_>>()
        };
        let tomorrow = || {
            for key in ["ABC-1", "ABC-2"] {
                let store = trackers.home.store();
                store
                    .delete_resource(ANSWER, &record("its", key), Expect::Anything)
                    .expect("gone");
            }
        };
        let both = async |first: &str, second: &str| {
            server.reset().await;
            says(&server, "ABC-1", issue("ABC-1", first)).await;
            says(&server, "ABC-2", issue("ABC-2", second)).await;
        };
        // What was right of a commit that was never right as a whole is asked about again.
        both("Open", "Closed").await;
        assert_eq!(settled("one").await, [true, false]);
        tomorrow();
        both("Closed", "Open").await;
        assert_eq!(settled("one").await, [false, true]);
        both("Open", "Open").await;
        assert_eq!(settled("one").await, [true, true]);
        tomorrow();
        both("Closed", "Closed").await;
        assert_eq!(settled("one").await, [true, true]);
        assert_eq!(
            settled("two").await,
            [false, false],
            "of another commit nothing is known"
        );
    }
}

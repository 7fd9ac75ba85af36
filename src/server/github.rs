//! GitHub's side of the server: it takes deliveries, and checks what asks to be checked, one repository after the other.
//!
//! A delivery is written down before it is answered, and says no more than where to look. Every repository is also looked at
//! without one, so that a delivery that was lost costs minutes and no check. A check is known by what it rests on (commit,
//! base, policy, title), so what is told twice is done once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::commits::github::api::{Access, Api, ApiError, Head};
use crate::commits::github::app::App;
use crate::commits::github::checks::Ended;
use crate::commits::github::judge::{self, JudgeError, Known};
use crate::commits::github::mirror::{Mirror, MirrorError};
use crate::commits::github::webhook::{self, About};
use crate::commits::proof::{self, AttestError, Outcome, Verdict};
use crate::commits::repository::{Repository, RepositoryError};
use crate::commits::sandbox::{self, Completed, Gap, Means};
use crate::commits::tracker::Trackers;
use crate::home::Home;
use crate::model::repository::RepositorySpec;
use crate::model::values::Digest;
use crate::report::Lines;
use crate::secrets::{SecretError, Secrets};
use crate::store::{Expect, Resource, Store as _, StoreError};
use crate::workspace::{Workspace, WorkspaceError};

/// A repository is looked at this often without being told to: so long a lost delivery goes unnoticed.
pub const RECONCILE_EVERY: Duration = Duration::from_mins(5);
/// What could not be looked at, checked or told is tried again after this. The calls to GitHub have been repeated for some
/// 15 s before.
const AGAIN_AFTER: Duration = Duration::from_secs(20);
/// Checks that are remembered, of all repositories together. A busy one makes fifty a day.
const MOST_KEPT: usize = 2_000;
/// Commits of one head of which GitHub is asked who made them: an App's pull request has one, and rarely ten.
const MOST_ASKED: usize = 50;
/// Kinds of the records: of checks, and of what was hinted at.
const CHECK: &str = "Check";
const HINT: &str = "Hint";

/// Why a repository cannot be served, or asked about.
#[derive(Debug, thiserror::Error)]
pub enum HostedError {
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The App's key, the HTTP client, or GitHub itself.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Why a repository that is served cannot be looked at now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Judge(#[from] JudgeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the check was cut off: {0}")]
    CutOff(String),
}

/// What a check rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckSpec {
    repository: String,
    head: Head,
    /// The policy's digest; of one that cannot be read, that of what is wrong with it.
    policy: Digest,
}

impl CheckSpec {
    /// The base's tip is not part of it: a merge elsewhere changes nothing about this head while the policy is the same.
    fn name(&self) -> String {
        let Head {
            commit, base, title, ..
        } = &self.head;
        let key = format!(
            "{}\n{commit}\n{base}\n{}\n{}\n{}",
            self.repository,
            self.policy,
            title.as_deref().unwrap_or_default(),
            env!("CARGO_PKG_VERSION")
        );
        format!("check-{}", Digest::of(key.as_bytes()).short())
    }
}

/// What a delivery has hinted at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HintSpec {
    repository: String,
    at: Timestamp,
    about: About,
}

/// Whether a check that has ended is made once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Again,
}

/// How far a check is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckStatus {
    phase: CheckPhase,
    /// Its id at GitHub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    /// What may bring another verdict without anything of the head's changing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    awaited: Option<Awaited>,
    /// Not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    again_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// What a check that was told to GitHub still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Awaited {
    /// Issues are to be looked up before anything passes, and could not be.
    Tracker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum CheckPhase {
    /// GitHub was told that it has begun; or how it ended, and that is to be looked at again.
    Running,
    /// There is a verdict, and GitHub does not know it yet.
    Judged,
    /// GitHub was told how it ended.
    Done,
    /// It is to be made, for the first time or once more.
    Again,
}

/// A repository that is served.
struct Hosted {
    api: Api,
    secret: Vec<u8>,
    mirror: Mirror,
    /// What it was made from: a file that changes makes it anew.
    spec: RepositorySpec,
}

/// Everything that concerns GitHub.
pub(super) struct Hosts {
    home: Home,
    workspace: Workspace,
    lines: Arc<dyn Lines>,
    hosted: RwLock<BTreeMap<String, Arc<Hosted>>>,
    hinted: Notify,
}

impl Hosts {
    pub(super) fn new(home: Home, workspace: Workspace, lines: Arc<dyn Lines>) -> Self {
        Self {
            home,
            workspace,
            lines,
            hosted: RwLock::default(),
            hinted: Notify::new(),
        }
    }

    /// Reads which repositories there are; what is wrong with the files is said, and what was served before is served on.
    pub(super) fn reread(&self) -> Result<(), WorkspaceError> {
        let stated = self.workspace.repositories()?;
        let mut hosted = BTreeMap::new();
        for (name, spec) in stated {
            let before = self.named(&spec.github.repository).filter(|h| h.spec == spec);
            let made = before.map_or_else(|| self.host(&spec).map(Arc::new), Ok);
            match made {
                Ok(one) => {
                    hosted.insert(spec.github.repository.clone(), one);
                }
                Err(why) => tracing::warn!(repository = name, %why, "it cannot be served"),
            }
        }
        *self.hosted.write().unwrap_or_else(PoisonError::into_inner) = hosted;
        Ok(())
    }

    fn host(&self, spec: &RepositorySpec) -> Result<Hosted, HostedError> {
        let (secrets, github) = (secrets(spec, self.workspace.root()), &spec.github);
        let url = format!("{}/{}.git", github.remote, github.repository);
        Ok(Hosted {
            secret: secrets.text(&github.webhook_secret)?.into_bytes(),
            mirror: Mirror::at(self.home.mirror(&github.repository), url),
            api: Api::new(github.clone(), access(spec, self.workspace.root())?)?,
            spec: spec.clone(),
        })
    }

    fn named(&self, repository: &str) -> Option<Arc<Hosted>> {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        hosted.get(repository).cloned()
    }

    fn all(&self) -> Vec<Arc<Hosted>> {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        hosted.values().cloned().collect()
    }

    /// Takes a delivery. What is answered with success is written down.
    fn take(&self, headers: &HeaderMap, body: &[u8]) -> (StatusCode, Value) {
        let said = |why: String| json!({"message": why});
        let word = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let signature = word("x-hub-signature-256");
        // Which repository it is about stands in the body, which nobody may read before it is known to be authentic: so it is
        // one of ours if any of our secrets has signed it.
        let signers: Vec<Arc<Hosted>> = self
            .all()
            .into_iter()
            .filter(|h| webhook::authentic(&h.secret, signature, body).is_ok())
            .collect();
        if signers.is_empty() {
            let why = match webhook::authentic(&[], signature, body) {
                Err(why) => why.to_string(),
                Ok(()) => webhook::Forged::Wrong.to_string(),
            };
            return (StatusCode::UNAUTHORIZED, said(why));
        }
        let event = word("x-github-event").unwrap_or_default();
        let hint = match webhook::hint(event, body) {
            Ok(Some(hint)) => hint,
            Ok(None) => return (StatusCode::OK, said(format!("`{event}` is no concern of ours"))),
            Err(why) => return (StatusCode::BAD_REQUEST, said(why.to_string())),
        };
        // Each secret vouches for its own repository only.
        if !signers.iter().any(|h| h.spec.github.repository == hint.repository) {
            let why = format!("no file in hooks/ states {}", hint.repository);
            return (StatusCode::NOT_FOUND, said(why));
        }
        match self.note(&hint.repository, &hint.about) {
            Ok(()) => {
                self.hinted.notify_one();
                (StatusCode::ACCEPTED, said("noted".to_owned()))
            }
            // GitHub lists it as failed, and a person may have it delivered again; we look by ourselves soon anyway.
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, said(why.to_string())),
        }
    }

    /// Writes a hint down. The same twice is one.
    fn note(&self, repository: &str, about: &About) -> Result<(), StoreError> {
        let name = match about {
            About::Heads => repository.to_owned(),
            About::Again { commit } => format!("{repository}@{commit}+"),
            About::Group { commit, .. } => format!("{repository}@{commit}"),
        };
        let now = Timestamp::now();
        let spec = HintSpec {
            repository: repository.to_owned(),
            at: now,
            about: about.clone(),
        };
        let spec = serde_json::to_value(spec).map_err(|why| StoreError::Unreadable {
            what: format!("{HINT} {name}"),
            why: why.to_string(),
        })?;
        self.home
            .store()
            .put_resource(HINT, &name, &spec, Expect::Anything, now)?;
        Ok(())
    }

    fn write(&self, spec: &CheckSpec, status: &CheckStatus) -> Result<(), StoreError> {
        let (store, name, now) = (self.home.store(), spec.name(), Timestamp::now());
        let unreadable = |why: serde_json::Error| StoreError::Unreadable {
            what: format!("{CHECK} {name}"),
            why: why.to_string(),
        };
        let value = serde_json::to_value(spec).map_err(unreadable)?;
        store.put_resource(CHECK, &name, &value, Expect::Anything, now)?;
        let value = serde_json::to_value(status).map_err(unreadable)?;
        store.put_status(CHECK, &name, &value, Expect::Anything, now)?;
        Ok(())
    }

    /// Looks at every repository for ever: soon when something was hinted at, else every [`RECONCILE_EVERY`].
    pub(super) async fn work(self: Arc<Self>) {
        loop {
            let (began, mut wait) = (Timestamp::now(), RECONCILE_EVERY);
            for hosted in self.all() {
                let repository = hosted.spec.github.repository.clone();
                if let Err(why) = self.look(&hosted).await {
                    tracing::warn!(repository, %why, "it could not be looked at; tried again");
                    wait = AGAIN_AFTER;
                }
            }
            if let Err(why) = self.forget() {
                tracing::warn!(%why, "old checks were not cleared away");
            }
            let wait = self.until_due(began).min(wait);
            tokio::select! {
                () = self.hinted.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Until the first check that was put off is to be tried again. What was due before this look began and still is belongs to
    /// a head that is no more: nobody waits for it.
    fn until_due(&self, began: Timestamp) -> Duration {
        let all = self.home.store().resources(CHECK).unwrap_or_default();
        let due = all
            .iter()
            .filter_map(|r| r.status_as::<CheckStatus>().ok()?.again_at)
            .filter(|at| *at > began)
            .min();
        due.map_or(RECONCILE_EVERY, |at| {
            // At least a moment: what is due and fails at once must not turn in circles.
            let wait = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            wait.max(Duration::from_secs(1))
        })
    }

    /// Looks at one repository: every head that asks to be checked has its check when this is done.
    async fn look(&self, hosted: &Hosted) -> Result<(), Trouble> {
        let repository = &hosted.spec.github.repository;
        // Before GitHub is asked: what is hinted at later is looked at later.
        let hints = self.hints(repository)?;
        let mut heads = hosted.api.heads().await?;
        let token = hosted.api.token().await?;
        let mut wanted: Vec<String> = heads.iter().map(|head| head.reference.clone()).collect();
        wanted.sort();
        wanted.dedup();
        hosted.mirror.fetch(&wanted, &token).await?;
        let mut again = BTreeSet::new();
        for (_, hint) in &hints {
            match &hint.about {
                About::Heads => {}
                About::Again { commit } => {
                    again.insert(commit.as_str());
                }
                About::Group { commit, base } => heads.extend(self.group(hosted, commit, base, &token).await?),
            }
        }
        let mut trouble = None;
        for head in heads {
            let asked = if again.contains(head.commit.as_str()) {
                Asked::Again
            } else {
                Asked::Once
            };
            match self.check(hosted, &head, asked).await {
                Ok(()) => {}
                // The next look finds where it is now.
                Err(Trouble::Judge(JudgeError::Gone(commit))) => tracing::info!(repository, commit, "it has moved on"),
                // One head must not keep the others back.
                Err(why) => trouble = Some(why),
            }
        }
        // What a head still needs is on its own record by now. Only what the merge queue makes is listed nowhere.
        let kept = |about: &About| trouble.is_some() && matches!(about, About::Group { .. });
        for (resource, _) in hints.iter().filter(|(_, hint)| !kept(&hint.about)) {
            // One that was renewed meanwhile stays.
            let version = Expect::Version(resource.resource_version);
            match self.home.store().delete_resource(HINT, &resource.name, version) {
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(why) => return Err(why.into()),
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// What the merge queue made, if it is there still and for a branch of ours.
    async fn group(&self, hosted: &Hosted, commit: &str, base: &str, token: &str) -> Result<Option<Head>, Trouble> {
        let base = base.trim_start_matches("refs/heads/");
        if !hosted.spec.github.branches.iter().any(|branch| branch == base) {
            return Ok(None);
        }
        match hosted.mirror.fetch(&[commit.to_owned()], token).await {
            Ok(()) => {}
            // The queue takes back what it made when something before it fails; that must not keep the others waiting.
            Err(why @ MirrorError::Git { .. }) => {
                tracing::info!(commit, %why, "the merge queue has taken it back");
                return Ok(None);
            }
            Err(why) => return Err(why.into()),
        }
        Ok(hosted.api.tip(base).await?.map(|base_commit| Head {
            base_commit,
            commit: commit.to_owned(),
            reference: commit.to_owned(),
            base: base.to_owned(),
            title: None,
            bot: None,
        }))
    }

    fn hints(&self, repository: &str) -> Result<Vec<(Resource, HintSpec)>, StoreError> {
        let all = self.home.store().resources(HINT)?;
        let read = all.into_iter().map(|r| r.spec_as::<HintSpec>().map(|spec| (r, spec)));
        let all: Result<Vec<_>, StoreError> = read.collect();
        Ok(all?
            .into_iter()
            .filter(|(_, hint)| hint.repository == repository)
            .collect())
    }

    /// Sees to it that a head has its check, and that GitHub knows how it ended.
    async fn check(&self, hosted: &Hosted, head: &Head, asked: Asked) -> Result<(), Trouble> {
        let policy = self.judged(hosted, head, |repository, head| {
            Ok(match judge::base_of(repository, head)? {
                Ok(base) => base.policy.digest,
                Err(why) => Digest::of(why.to_string().as_bytes()),
            })
        });
        let spec = CheckSpec {
            repository: hosted.spec.github.repository.clone(),
            head: head.clone(),
            policy: policy.await?,
        };
        let resource = self.home.store().resource(CHECK, &spec.name())?;
        // Its spec is written first: one that was cut off there has no status.
        let known = resource.filter(|r| !r.status.is_null());
        let known = known.map(|r| r.status_as::<CheckStatus>()).transpose()?;
        let mut status = known.unwrap_or(CheckStatus {
            phase: CheckPhase::Again,
            id: None,
            verdict: None,
            awaited: None,
            again_at: None,
            why: None,
        });
        match (status.phase, asked) {
            (CheckPhase::Done, Asked::Once) => return Ok(()),
            (CheckPhase::Done, Asked::Again) => {
                status.phase = CheckPhase::Again;
                self.write(&spec, &status)?;
            }
            // Who asks does not wait for our next try.
            (CheckPhase::Running, Asked::Again) if status.awaited.is_some() => {}
            (CheckPhase::Running | CheckPhase::Judged | CheckPhase::Again, _) => {
                if status.again_at.is_some_and(|at| at > Timestamp::now()) {
                    return Ok(());
                }
            }
        }
        let made = self.make(hosted, &spec, &mut status).await;
        if let Err(why) = &made {
            // At GitHub it stays in progress, which is no pass.
            status.again_at = Some(Timestamp::now() + SignedDuration::try_from(AGAIN_AFTER).unwrap_or_default());
            status.why = Some(why.to_string());
            self.write(&spec, &status)?;
        }
        made
    }

    async fn make(&self, hosted: &Hosted, spec: &CheckSpec, status: &mut CheckStatus) -> Result<(), Trouble> {
        if status.phase == CheckPhase::Again {
            // The intent first, so that whoever comes after us knows that GitHub may have heard of it.
            let name = spec.name();
            let begun = match self.home.store().resource(CHECK, &name)? {
                Some(_) => hosted.api.open(&spec.head, &name).await?,
                None => None,
            };
            self.write(spec, status)?;
            status.id = match begun {
                Some(id) => Some(id),
                None => hosted.api.begin(&spec.head, &name).await?,
            };
            status.phase = CheckPhase::Running;
            self.write(spec, status)?;
        }
        if status.phase == CheckPhase::Running {
            let known = self.known(hosted, &spec.head).await?;
            let Completed { verdict, gap, .. } = self.verdict(hosted, &spec.head, known).await?;
            status.awaited = match gap {
                Some(Gap::Tracker(_)) => Some(Awaited::Tracker),
                Some(Gap::Check(_)) | None => None,
            };
            if status.awaited.is_none() {
                self.attest(&verdict)?;
            }
            status.verdict = Some(verdict);
            status.phase = CheckPhase::Judged;
            self.write(spec, status)?;
        }
        if let Some(verdict) = &status.verdict {
            hosted.api.end(&spec.head, status.id, &Ended::of(verdict)).await?;
            if status.awaited.is_none() {
                self.alarm(spec, verdict);
            }
        }
        match status.awaited {
            None => {
                status.phase = CheckPhase::Done;
                (status.again_at, status.why) = (None, None);
            }
            // The check run that says so is the one that is corrected: an outage of an afternoon leaves one, not fifty.
            Some(Awaited::Tracker) => {
                status.phase = CheckPhase::Running;
                let at = SignedDuration::try_from(RECONCILE_EVERY).unwrap_or_default();
                status.again_at = Some(Timestamp::now() + at);
                status.why = Some("the tracker could not be asked".to_owned());
            }
        }
        self.write(spec, status)?;
        Ok(())
    }

    /// A verdict that cannot be signed is told to GitHub all the same.
    fn attest(&self, verdict: &Verdict) -> Result<(), StoreError> {
        match proof::attest_where_there_is_a_key(&self.home, verdict) {
            Ok(Some(_) | None) => Ok(()),
            Err(AttestError::Store(why)) => Err(why),
            Err(why) => {
                tracing::warn!(%why, commit = verdict.subject.commit, "a verdict was not signed");
                Ok(())
            }
        }
    }

    /// A branch whose tip does not pass has got it by a way round the check: people are to know, and nothing is built upon it.
    fn alarm(&self, spec: &CheckSpec, verdict: &Verdict) {
        let CheckSpec { repository, head, .. } = spec;
        let what = match &verdict.outcome {
            Outcome::Passed => return,
            Outcome::Failed => "does not pass".to_owned(),
            Outcome::NotProven { why } => format!("is not proven: {why}"),
        };
        if head.is_tip() {
            // Nobody is there to be told that nobody reads.
            let _ = self.lines.line(&format!(
                "ALERT: {} is the tip of {} of {repository}, and {what}; no build of it has its hooks passed",
                head.commit, head.base
            ));
        }
    }

    /// What the commits of a head do not say themselves.
    async fn known(&self, hosted: &Hosted, head: &Head) -> Result<Known, Trouble> {
        let passed_tip = self.passed_tip(head, &hosted.spec.github.repository)?;
        let (apps, signed, mut known) = self
            .judged(hosted, head, move |repository, head| {
                let passed_tip = passed_tip.and_then(|tip| repository.known_commit(&tip));
                let known = Known {
                    passed_tip,
                    ..Known::default()
                };
                let Ok(base) = judge::base_of(repository, head)? else {
                    return Ok((Vec::new(), Vec::new(), known));
                };
                let apps = base.policy.spec.exempt.apps.clone();
                if apps.is_empty() {
                    return Ok((apps, Vec::new(), known));
                }
                // What GitHub signs it signs into the commit, so the others need not be asked about.
                let mut ids = judge::commits(repository, head, &base, &known)?;
                ids.retain(|id| repository.signature(*id).is_some());
                ids.truncate(MOST_ASKED);
                Ok((apps, ids, known))
            })
            .await?;
        if let Some(bot) = head.bot.as_ref().filter(|_| !apps.is_empty()) {
            known.opened_by = hosted.api.app_of_bot(bot).await?.filter(|app| apps.contains(app));
        }
        for id in signed {
            let app = hosted.api.app_of_commit(&id.to_string()).await?;
            if let Some(app) = app.filter(|app| apps.contains(app)) {
                known.made_by_apps.insert(id, app);
            }
        }
        Ok(known)
    }

    /// The last tip of the head's branch that passed, where the head is the tip itself.
    fn passed_tip(&self, head: &Head, repository: &str) -> Result<Option<String>, StoreError> {
        if !head.is_tip() {
            return Ok(None);
        }
        let mut last: Option<(Timestamp, String)> = None;
        for kept in self.home.store().resources(CHECK)? {
            let spec: CheckSpec = kept.spec_as()?;
            let of_branch = spec.repository == repository && spec.head.base == head.base && spec.head.is_tip();
            if !of_branch || kept.status.is_null() {
                continue;
            }
            let passed = match kept.status_as::<CheckStatus>()?.verdict {
                // What was put off is asked about with the commits that come after it.
                Some(verdict) => verdict.outcome == Outcome::Passed && !verdict.is_deferred(),
                None => false,
            };
            if passed && last.as_ref().is_none_or(|(at, _)| *at < kept.updated_at) {
                last = Some((kept.updated_at, spec.head.commit));
            }
        }
        Ok(last.map(|(_, tip)| tip))
    }

    /// Judges a head: the native rules, and the base's hooks in the sandbox, where there are any that no rule stands for. On a
    /// thread of its own: bwrap ends its sandbox when the thread that began it ends.
    async fn verdict(&self, hosted: &Hosted, head: &Head, known: Known) -> Result<Completed, Trouble> {
        let (directory, name) = (hosted.mirror.directory().to_owned(), hosted.mirror.url().to_owned());
        let (home, workspace, head) = (self.home.clone(), self.workspace.clone(), head.clone());
        let run = tokio::task::spawn_blocking(move || {
            let repository = Repository::open_at(&directory)?;
            let base = match judge::base_of(&repository, &head)? {
                Ok(base) => base,
                Err(why) => {
                    let verdict = judge::unjudged(&repository, &name, &head, &why)?;
                    let gap = Some(Gap::Check(why.to_string()));
                    return Ok(Completed {
                        verdict,
                        gap,
                        refused: Vec::new(),
                    });
                }
            };
            let subject = judge::subject_of(&repository, &name, &head, &base)?;
            let looked = judge::look(&repository, &head, &base, &known)?;
            let trackers = Trackers::of(&home, &workspace);
            let means = Means {
                state: home.root(),
                trackers: &trackers,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|why| Trouble::CutOff(why.to_string()))?;
            let completed = runtime.block_on(async {
                let completed = sandbox::complete(means, &repository, &base, subject, looked).await?;
                // A server that has to end tells GitHub when it is there again.
                Ok(completed
                    .blamed(means, &repository, &base, std::future::pending())
                    .await)
            });
            Ok(completed.map_err(|why: RepositoryError| JudgeError::from(why))?)
        });
        run.await.map_err(|why| Trouble::CutOff(why.to_string()))?
    }

    /// Reads our copy off the runtime's threads.
    async fn judged<T: Send + 'static>(
        &self,
        hosted: &Hosted,
        head: &Head,
        read: impl FnOnce(&Repository, &Head) -> Result<T, JudgeError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (directory, head) = (hosted.mirror.directory().to_owned(), head.clone());
        let read = tokio::task::spawn_blocking(move || {
            let repository = Repository::open_at(&directory)?;
            read(&repository, &head)
        });
        Ok(read.await.map_err(|why| Trouble::CutOff(why.to_string()))??)
    }

    /// Keeps the last checks only.
    fn forget(&self) -> Result<(), StoreError> {
        let store = self.home.store();
        let mut all = store.resources(CHECK)?;
        if all.len() <= MOST_KEPT {
            return Ok(());
        }
        all.sort_by_key(|r| r.updated_at);
        let too_many = all.len() - MOST_KEPT;
        for old in all.into_iter().take(too_many) {
            match store.delete_resource(CHECK, &old.name, Expect::Version(old.resource_version)) {
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

fn secrets(spec: &RepositorySpec, workspace: &Path) -> Secrets {
    Secrets::new(spec.secrets.clone(), workspace.to_owned())
}

/// Who we are to the host of this repository. Relative files of secrets lie below the workspace.
///
/// # Errors
/// A secret cannot be had, or is no key.
pub fn access(spec: &RepositorySpec, workspace: &Path) -> Result<Access, HostedError> {
    let (secrets, github) = (secrets(spec, workspace), &spec.github);
    Ok(match (&github.app, &github.token) {
        (Some(app), _) => Access::App {
            app: Box::new(App::new(app.id, &secrets.read(&app.key)?).map_err(ApiError::from)?),
            installation: app.installation,
        },
        (None, token) => Access::Token(secrets.text(token.as_deref().unwrap_or_default())?),
    })
}

/// Where deliveries come in.
pub(super) fn router(hosts: Arc<Hosts>) -> Router {
    Router::new()
        .route("/webhooks/github", post(delivery))
        .layer(DefaultBodyLimit::max(webhook::MOST_BODY_BYTES))
        .with_state(hosts)
}

async fn delivery(State(hosts): State<Arc<Hosts>>, headers: HeaderMap, body: Bytes) -> (StatusCode, Json<Value>) {
    // Off the runtime's threads: a large body is hashed once a secret, and the state may have to be waited for.
    let taken = tokio::task::spawn_blocking(move || hosts.take(&headers, &body)).await;
    let (status, said) =
        taken.unwrap_or_else(|why| (StatusCode::INTERNAL_SERVER_ERROR, json!({"message": why.to_string()})));
    (status, Json(said))
}

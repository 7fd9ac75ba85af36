//! What a leader does to one object: brings an environment up, drives an upgrade, says in a status how it stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt as _, join_all};
use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, ObjectMeta, PostParams};
use kube::runtime::events::{Event as ApiEvent, EventType, Recorder};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Heard;
use super::files::Files;
use super::told::Told;
use crate::cluster::ledger::{History, ObjectLedger, Objects, record, whole};
use crate::cluster::objects::{
    self, ATTEMPTS, ApiError, Kept, Kind, Upgrade, asked, conditions, generation, is_deleted, is_kept, keep, name,
    part, set_condition, write_status,
};
use crate::engine::builds::{self, BuildError};
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::ledger::{Ledger as _, Write};
use crate::engine::session::{self, Driving, KnownBuild, Past, SessionError};
use crate::engine::up::{Bringing, UpError};
use crate::engine::{CommitError, DriveError, delivery};
use crate::home::Home;
use crate::hosts::{FencingToken, Host as _, HostError};
use crate::model::build::{BuildRef, BuildSpec};
use crate::model::environment::Component;
use crate::model::system::PortShift;
use crate::model::upgrade::{Event, Phase, Severity, UpgradeSpec, UpgradeStatus, Wish};
use crate::rollout;
use crate::store::build::{Condition, ConditionStatus};
use crate::store::{BuildStatus, Expect, Store as _, StoreError, UpgradeRecord};
use crate::workspace::WorkspaceError;

/// Characters of a note of an event that an API server takes.
const LONGEST_NOTE: usize = 1_024;
/// And of its action.
const LONGEST_ACTION: usize = 128;
/// Characters of a message in a condition that an API server takes; what is longer is in the log.
pub(super) const LONGEST_MESSAGE: usize = 8_192;

/// Why something of an environment did not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Up(#[from] UpError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("{0} changes faster than it can be taken")]
    Contended(String),
}

impl Trouble {
    /// Somebody else leads: that is as it should be.
    pub(super) fn is_rivalry(&self) -> bool {
        matches!(
            self,
            Trouble::Commit(CommitError::Fenced(_))
                | Trouble::Session(SessionError::Drive(DriveError::Fenced(_)))
                | Trouble::Up(UpError::Host(HostError::Fenced { .. }))
        )
    }
}

/// Who leads.
pub(super) struct Leader {
    pub(super) home: Home,
    pub(super) home_uid: String,
    pub(super) me: String,
    pub(super) files: Files,
    pub(super) recorder: Recorder,
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) heard: Heard,
    pub(super) changed: Arc<Notify>,
    pub(super) told: Arc<Told>,
    pub(super) tell: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Leader {
    pub(super) fn has_listed(&self) -> bool {
        let Heard {
            environments,
            builds,
            upgrades,
        } = &self.heard;
        let listed = [environments, builds, upgrades]
            .into_iter()
            .all(|cache| matches!(cache.wait_until_ready().now_or_never(), Some(Ok(()))));
        if listed {
            self.told.synced();
        }
        listed
    }

    /// Makes the files what the objects are.
    /// False where the files are not what the objects are: nothing is begun by them then.
    pub(super) fn place(&self) -> bool {
        if !self.has_listed() {
            return false;
        }
        // Also of one that is to be deleted: its open upgrade goes back first.
        let environments = self.heard.environments.state();
        let placed = self.files.place(environments.iter().map(|e| &**e));
        if let Err(why) = &placed {
            tracing::warn!(%why, "the files of environments and templates could not be written");
        }
        placed.is_ok()
    }

    pub(super) fn environments(&self) -> Api<DynamicObject> {
        Kind::Environment.api(&self.client, &self.namespace)
    }

    pub(super) fn upgrades(&self) -> Api<DynamicObject> {
        Kind::Upgrade.api(&self.client, &self.namespace)
    }

    pub(super) fn builds(&self) -> Api<DynamicObject> {
        Kind::Build.api(&self.client, &self.namespace)
    }

    fn objects(&self) -> Objects {
        Objects {
            upgrades: self.upgrades(),
            builds: self.builds(),
            cache: self.heard.upgrades.clone(),
            namespace: self.namespace.clone(),
        }
    }

    pub(super) fn fleet(&self, environment: &str) -> Result<Fleet, WorkspaceError> {
        Fleet::read(&self.home, &self.files.workspace, environment, PortShift::default())
    }

    fn history(&self, fleet: Option<&Fleet>) -> History {
        History {
            home: self.home.clone(),
            sinks: fleet.map(delivery::sinks).unwrap_or_default(),
        }
    }

    /// Every build that is heard of.
    pub(super) fn known_builds(&self) -> BTreeMap<String, KnownBuild> {
        let all = self.heard.builds.state();
        readable_builds(all.iter().map(|object| &**object))
    }

    /// Every build that there is: what was heard may be older than a quarantine of a moment ago.
    async fn listed_builds(&self) -> Result<BTreeMap<String, KnownBuild>, ApiError> {
        let listed = asked("list", "Builds", self.builds().list(&ListParams::default())).await?;
        Ok(readable_builds(listed.items.iter()))
    }

    fn past(&self, environment: &str, builds: BTreeMap<String, KnownBuild>) -> Past {
        let mut upgrades: Vec<UpgradeRecord> = self
            .heard
            .upgrades
            .state()
            .into_iter()
            .filter_map(|object| Upgrade::read((*object).clone()).ok())
            .filter(|upgrade| upgrade.spec.environment == environment)
            .map(|upgrade| record(&upgrade, 1))
            .collect();
        upgrades.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        Past { builds, upgrades }
    }

    /// Takes an environment: nobody who took it before may change its nodes or its upgrades from now on.
    async fn take(&self, fleet: &Fleet) -> Result<FencingToken, Trouble> {
        let environment = &fleet.environment.name;
        let api = self.environments();
        // An Environment that was made anew remembers less than its nodes.
        let looks = join_all(fleet.all_places().map(|place| place.host.observe(&place.address, &[]))).await;
        let seen = looks.into_iter().flatten().filter_map(|sight| sight.fence);
        let seen = seen
            .filter(|fence| fence.home == self.home_uid)
            .map(|fence| fence.counter)
            .max();
        for _ in 0..ATTEMPTS {
            let object = asked("read", &format!("Environment {environment}"), api.get(environment)).await?;
            let mut status = status_of(&object);
            let counter = status["fence"].as_u64().max(seen).unwrap_or(0) + 1;
            status["fence"] = json!(counter);
            match write_status(&api, &object, status).await {
                Ok(_) => {
                    return Ok(FencingToken {
                        home: self.home_uid.clone(),
                        counter,
                    });
                }
                Err(why) if why.is_conflict() => {}
                Err(why) => return Err(why.into()),
            }
        }
        Err(Trouble::Contended(format!("Environment {environment}")))
    }

    /// Says of an environment whether it can be used, as that generation of it states it.
    pub(super) async fn tell_environment(
        &self,
        environment: &str,
        of: i64,
        ready: ConditionStatus,
        reason: &str,
        message: &str,
    ) {
        let told = |object: &DynamicObject| {
            let mut status = status_of(object);
            let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
            set_condition(&mut all, of, condition("Ready", ready, reason, message));
            status["conditions"] = json!(all);
            status["observedGeneration"] = json!(of);
            (status != status_of(object)).then_some(status)
        };
        let heard = self.heard.environments.find(|object| name(object) == environment);
        if heard.is_some_and(|heard| told(&heard).is_none()) {
            return;
        }
        let api = self.environments();
        for _ in 0..ATTEMPTS {
            let Some(object) = self.fresh(&api, environment).await else {
                return;
            };
            let Some(status) = told(&object) else {
                return;
            };
            match write_status(&api, &object, status).await {
                Err(why) if why.is_conflict() => {}
                Err(why) => return tracing::warn!(%why, "it could not be said how it stands"),
                Ok(_) => {
                    let kind = match ready {
                        ConditionStatus::True => EventType::Normal,
                        ConditionStatus::False | ConditionStatus::Unknown => EventType::Warning,
                    };
                    self.publish(&object, Kind::Environment, kind, reason, message).await;
                    return;
                }
            }
        }
    }

    pub(super) async fn fresh(&self, api: &Api<DynamicObject>, name: &str) -> Option<DynamicObject> {
        match asked("read", name, api.get_opt(name)).await {
            Ok(found) => found,
            Err(why) => {
                tracing::warn!(%why, "it could not be said how it stands");
                None
            }
        }
    }

    async fn publish(&self, object: &DynamicObject, kind: Kind, type_: EventType, reason: &str, note: &str) {
        self.published(object, kind, type_, (reason, reason), note).await;
    }

    async fn published(
        &self,
        object: &DynamicObject,
        kind: Kind,
        type_: EventType,
        (reason, action): (&str, &str),
        note: &str,
    ) {
        let event = ApiEvent {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(note, LONGEST_NOTE)),
            action: shortened(action, LONGEST_ACTION),
            secondary: None,
        };
        let reference = objects::reference(object, kind);
        if let Err(why) = asked(
            "write an event of",
            &objects::named(object),
            self.recorder.publish(&event, &reference),
        )
        .await
        {
            tracing::warn!(%why, "the history has it all the same");
        }
    }

    /// Publishes what happened in an upgrade, in order, until nobody has anything more to say.
    async fn publish_all(&self, object: &DynamicObject, mut events: tokio::sync::mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let kind = match event.severity {
                Severity::Step => EventType::Normal,
                Severity::Alert => EventType::Warning,
            };
            // Kubernetes counts events of one reason and action as one.
            let action = event.node.as_deref().unwrap_or(&event.reason);
            self.published(object, Kind::Upgrade, kind, (&event.reason, action), &event.message)
                .await;
        }
    }

    /// Writes into an upgrade that is not driven why it is not. Conflicts are left to the next look.
    pub(super) async fn tell_upgrade(&self, upgrade: &Upgrade, reason: &str, message: &str) {
        let (mut status, mut book) = (upgrade.status.clone(), upgrade.book.clone());
        let message = shortened(message, LONGEST_MESSAGE);
        if status.phase == Phase::Pending {
            reason.clone_into(&mut status.reason);
            message.clone_into(&mut status.message);
        }
        conditions(&mut book, &status, generation(&upgrade.object));
        if status.phase != Phase::Pending {
            let stuck = condition("Progressing", ConditionStatus::False, reason, &message);
            set_condition(&mut book.conditions, generation(&upgrade.object), stuck);
        }
        // One that is set to and fro within this has not changed.
        for new in &mut book.conditions {
            let mut before = upgrade.book.conditions.iter();
            if let Some(old) = before.find(|old| old["type"] == new["type"] && old["status"] == new["status"]) {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
        }
        if book.conditions == upgrade.book.conditions && status == upgrade.status {
            return;
        }
        book.writes += 1;
        let written = match whole(&status, &book) {
            Ok(whole) => write_status(&self.upgrades(), &upgrade.object, whole).await,
            Err(why) => return tracing::warn!(%why, "it could not be said why it waits"),
        };
        match written {
            Err(why) if why.is_conflict() || why.is_gone() => {}
            Err(why) => tracing::warn!(%why, "it could not be said why it waits"),
            Ok(_) => {
                self.publish(&upgrade.object, Kind::Upgrade, EventType::Warning, reason, &message)
                    .await;
            }
        }
    }

    /// What is left to do for an upgrade that has ended: its last events go into the history, and it may be deleted.
    pub(super) async fn finish(&self, upgrade: &Upgrade) -> Result<(), Trouble> {
        if !upgrade.book.pending.is_empty() {
            let fleet = self.fleet(&upgrade.spec.environment).ok();
            self.history(fleet.as_ref()).copy(upgrade)?;
            let mut book = upgrade.book.clone();
            book.pending.clear();
            book.writes += 1;
            let status = whole(&upgrade.status, &book)?;
            match write_status(&self.upgrades(), &upgrade.object, status).await {
                // The next look finds it as it is then.
                Err(why) if why.is_conflict() || why.is_gone() => {}
                other => other.map(|_| ())?,
            }
            return Ok(());
        }
        if is_deleted(&upgrade.object) && is_kept(&upgrade.object) {
            keep(&self.upgrades(), &upgrade.object, Kept::NoMore).await?;
        }
        Ok(())
    }

    /// Makes what the store is asked for on the way up what the objects say.
    fn copy_builds(&self) -> Result<(), Trouble> {
        let store = self.home.store();
        for (name, build) in self.known_builds() {
            KnownBuild::create(&self.home, &build.spec)?;
            let status = json!(build.status);
            store.put_status("Build", &name, &status, Expect::Anything, Timestamp::now())?;
        }
        Ok(())
    }

    /// The build that a component's nodes get when they have none: as the objects have it, or as its source has it, which then
    /// becomes an object.
    async fn build(&self, component: &Component) -> Result<Option<(BuildRef, BuildSpec)>, Trouble> {
        let (Some(_), Some(version)) = (&component.source, &component.build) else {
            return Ok(None);
        };
        let known = self.known_builds().remove(&format!("{}-{version}", component.name));
        let spec = if let Some(known) = known {
            known.spec
        } else {
            let spec = builds::resolve(component, version, self.files.workspace.root()).await?;
            self.create_build(&spec).await?;
            KnownBuild::create(&self.home, &spec)?;
            spec
        };
        Ok(Some((spec.reference(), spec)))
    }

    async fn create_build(&self, spec: &BuildSpec) -> Result<(), Trouble> {
        let object = DynamicObject {
            metadata: ObjectMeta {
                name: Some(spec.name()),
                ..ObjectMeta::default()
            },
            ..DynamicObject::new(&spec.name(), &Kind::Build.resource()).data(json!({"spec": spec}))
        };
        let what = format!("Build {}", spec.name());
        match asked("make", &what, self.builds().create(&PostParams::default(), &object)).await {
            // Another environment was quicker.
            Err(why) if why.is_conflict() => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    pub(super) async fn bring_up(&self, environment: &str, ending: Interrupt) -> Result<(), Trouble> {
        let fleet = Arc::new(self.fleet(environment)?);
        let spec = json!(fleet.environment.spec);
        self.home
            .store()
            .put_resource("Environment", environment, &spec, Expect::Anything, Timestamp::now())?;
        let token = self.take(&fleet).await?;
        self.copy_builds()?;
        let tell = Arc::clone(&self.tell);
        let on_step = move |what: &str| tell(&format!("  {what}"));
        let bringing = Bringing {
            home: &self.home,
            fleet: &fleet,
            token,
            on_step: &on_step,
            interrupt: ending,
        };
        for component in fleet.environment.components_in_order() {
            let build = self.build(component).await?;
            bringing
                .up(component, build.as_ref().map(|(build, spec)| (build, spec)))
                .await?;
        }
        Ok(())
    }

    /// Drives one upgrade as far as it goes.
    pub(super) async fn drive(
        &self,
        upgrade: &str,
        environment: &str,
        ending: Interrupt,
        lost: Interrupt,
    ) -> Result<(), Trouble> {
        let fleet = Arc::new(self.fleet(environment)?);
        let token = self.take(&fleet).await?;
        let history = self.history(Some(&fleet));
        let ledger = ObjectLedger::open(self.objects(), history, upgrade, token.clone(), lost).await?;
        let record = ledger.record();
        if record.status.phase.is_final() {
            return Ok(());
        }
        if record.status.phase.is_held() && record.spec.wish != Wish::Abort {
            // What was heard of it may be older than what it is.
            if record.spec.wish != Wish::Proceed || !ledger.is_asked_again() {
                return Ok(());
            }
            resume(&ledger).await?;
        } else {
            ledger.claim(&self.me).await?;
        }
        let past = self.past(environment, self.listed_builds().await?);
        if record.status.phase == Phase::Pending
            && let Some(why) = self.refusal(&record.spec, &past, &fleet).await
        {
            return refuse(&ledger, why).await;
        }
        let (told, events) = tokio::sync::mpsc::channel(EVENTS_AT_ONCE);
        let tells_stderr = delivery::tells_stderr(&fleet);
        let record = ledger.record();
        let on_commit = |_: &UpgradeStatus, events: &[Event]| {
            for event in events {
                if !tells_stderr {
                    (self.tell)(&delivery::line(&record, event));
                }
                // Kubernetes keeps its events for an hour at best; the history has those that do not fit in here.
                let _ = told.try_send(event.clone());
            }
        };
        let driving = Driving {
            home: &self.home,
            fleet: &fleet,
            record: &record,
            past: &past,
            token: &token,
            ledger: &ledger,
            interrupt: ending,
            on_commit: &on_commit,
        };
        let object = asked("read", upgrade, self.upgrades().get(upgrade)).await?;
        let mut publishing = std::pin::pin!(self.publish_all(&object, events));
        let ended = tokio::select! {
            ended = Box::pin(driving.run()) => ended,
            () = &mut publishing => return Ok(()),
        };
        drop(told);
        // The history has them; Kubernetes' own are kept for an hour at best.
        if tokio::time::timeout(LAST_EVENTS, publishing).await.is_err() {
            tracing::warn!(upgrade, "its last Kubernetes Events were not written in time");
        }
        ended?;
        Ok(())
    }

    async fn refusal(&self, spec: &UpgradeSpec, past: &Past, fleet: &Fleet) -> Option<(&'static str, String)> {
        let Some(component) = fleet.environment.component(&spec.component) else {
            let why = format!("environment {} has no component {}", spec.environment, spec.component);
            return Some(("NoSuchComponent", why));
        };
        let build = past.builds.get(&spec.build)?;
        if build.spec.component != spec.component {
            let why = format!(
                "build {} is one of {}, not of {}",
                spec.build, build.spec.component, spec.component
            );
            return Some(("OtherComponent", why));
        }
        let refusal = session::refusal_by(past, &self.home, fleet, component, &build.spec).await?;
        let reason = match &refusal {
            session::Refusal::Quarantined { .. } => "Quarantined",
            session::Refusal::Lacking { .. } => "Lacking",
            session::Refusal::Held { .. }
            | session::Refusal::OtherUpgrade { .. }
            | session::Refusal::Serving { .. }
            | session::Refusal::NothingUnderWay { .. }
            | session::Refusal::NothingToRetry { .. }
            | session::Refusal::NothingToUndo { .. } => "Refused",
        };
        Some((reason, refusal.to_string()))
    }
}

/// What the last of them may take, before the next upgrade of the environment is begun.
const LAST_EVENTS: Duration = Duration::from_secs(15);
/// Events of an upgrade that wait to become Kubernetes' own.
const EVENTS_AT_ONCE: usize = 256;

/// Ends an upgrade that may not be begun. Nothing was touched.
async fn refuse(ledger: &ObjectLedger, why: (&'static str, String)) -> Result<(), Trouble> {
    let loaded = ledger.load().await?;
    let (now, (reason, message)) = (Timestamp::now(), why);
    let mut status = (*loaded.status).clone();
    status.phase = Phase::Failed;
    reason.clone_into(&mut status.reason);
    message.clone_into(&mut status.message);
    status.since = now;
    status.finished_at = Some(now);
    let event = Event {
        at: now,
        reason: "Refused".to_owned(),
        severity: Severity::Alert,
        node: None,
        message,
    };
    written(ledger, loaded.version, &status, event).await
}

/// Goes on with a held upgrade, which somebody has asked for since.
async fn resume(ledger: &ObjectLedger) -> Result<(), Trouble> {
    let loaded = ledger.load().await?;
    let now = Timestamp::now();
    let status = rollout::resume(&loaded.status, now).map_err(SessionError::from)?;
    let event = Event {
        at: now,
        reason: "Resumed".to_owned(),
        severity: Severity::Step,
        node: None,
        message: format!("{} after {}", status.message, loaded.status.message),
    };
    written(ledger, loaded.version, &status, event).await
}

/// Builds as objects have them. One that cannot be read is none, and says so.
fn readable_builds<'a>(objects: impl Iterator<Item = &'a DynamicObject>) -> BTreeMap<String, KnownBuild> {
    let read = |object: &DynamicObject| -> Result<KnownBuild, ApiError> {
        Ok(KnownBuild {
            spec: part(object, "spec")?,
            status: if object.data["status"].is_object() {
                part(object, "status")?
            } else {
                BuildStatus::default()
            },
        })
    };
    let all = objects.filter_map(|object| match read(object) {
        Ok(build) => Some((name(object).to_owned(), build)),
        Err(why) => {
            tracing::warn!(%why, "a build is passed over");
            None
        }
    });
    all.collect()
}

/// Writes what was decided here and not by the rules of an upgrade.
async fn written(ledger: &ObjectLedger, version: u64, status: &UpgradeStatus, event: Event) -> Result<(), Trouble> {
    let write = Write {
        version,
        status,
        events: &[event],
        builds: &[],
    };
    ledger.commit(write).await?;
    Ok(())
}

pub(super) fn status_of(object: &DynamicObject) -> Value {
    match &object.data["status"] {
        Value::Null => json!({}),
        status => status.clone(),
    }
}

pub(super) fn condition(kind: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Timestamp::now(),
    }
}

pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most - 1) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

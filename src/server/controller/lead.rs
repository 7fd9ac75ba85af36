//! What a leader does: brings environments up, drives upgrades, and says in every object's status how it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::{FutureExt as _, LocalBoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use kube::api::{DynamicObject, ObjectMeta, PostParams};
use kube::runtime::events::{Event as ApiEvent, EventType, Recorder};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::files::Files;
use super::told::Told;
use super::{Heard, LOOK_EVERY, staying};
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
use crate::hosts::{FencingToken, Host as _};
use crate::model::build::{BuildRef, BuildSpec};
use crate::model::environment::Component;
use crate::model::system::PortShift;
use crate::model::upgrade::{Event, Phase, Severity, UpgradeSpec, UpgradeStatus, Wish};
use crate::report;
use crate::rollout;
use crate::server::couriers::Couriers;
use crate::server::{LONGEST_WAIT, RENEW_EVERY};
use crate::store::build::{Condition, ConditionStatus};
use crate::store::{BuildStatus, Expect, Store as _, StoreError, UpgradeRecord};
use crate::workspace::WorkspaceError;

/// Characters of a note of an event that an API server takes.
const LONGEST_NOTE: usize = 1_024;
/// Characters of a message in a condition that an API server takes; what is longer is in the log.
const LONGEST_MESSAGE: usize = 8_192;

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
    fn is_rivalry(&self) -> bool {
        matches!(
            self,
            Trouble::Commit(CommitError::Fenced(_)) | Trouble::Session(SessionError::Drive(DriveError::Fenced(_)))
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

/// What goes on with an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    BringingUp,
    Driving(String),
}

/// An environment that could not be gone on with.
struct Stuck {
    failures: u32,
    again_at: Instant,
}

type Flight<'a> = LocalBoxFuture<'a, (String, Task, Result<(), Trouble>)>;

/// One time of leading.
struct Term<'a> {
    leader: &'a Leader,
    /// Lets the running steps end.
    ending: Interrupt,
    /// Set when another may lead.
    lost: Interrupt,
    flights: FuturesUnordered<Flight<'a>>,
    under_way: BTreeMap<String, Task>,
    stuck: BTreeMap<String, Stuck>,
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
    pub(super) fn place(&self) {
        if !self.has_listed() {
            return;
        }
        // Also of one that is to be deleted: its open upgrade goes back first.
        let environments = self.heard.environments.state();
        if let Err(why) = self.files.place(environments.iter().map(|e| &**e)) {
            tracing::warn!(%why, "the files of environments and templates could not be written");
        }
    }

    /// Leads until the end is asked for or another may lead.
    pub(super) async fn lead(
        &self,
        interrupt: &Interrupt,
        leads: &mut watch::Receiver<bool>,
        couriers: &mut Couriers<'_>,
    ) {
        let (loser, lost) = Interrupt::new();
        let (ender, ending) = Interrupt::new();
        let mut term = Term {
            leader: self,
            ending,
            lost,
            flights: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            stuck: BTreeMap::new(),
        };
        let mut reread_at = Instant::now();
        while !interrupt.is_set() && *leads.borrow_and_update() {
            self.told.beat();
            self.place();
            if Instant::now() >= reread_at {
                couriers.reread();
                reread_at = Instant::now() + LOOK_EVERY;
            }
            term.look().await;
            let wake = term.wake_at();
            tokio::select! {
                () = self.changed.notified() => {}
                Some((environment, task, ended)) = term.flights.next(), if !term.flights.is_empty() => {
                    term.landed(&environment, &task, ended).await;
                }
                _ = leads.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
                () = interrupt.wait() => {}
            }
        }
        if interrupt.is_set() && *leads.borrow_and_update() {
            (self.tell)("ending once the running steps have ended");
        } else {
            loser.interrupt();
        }
        ender.interrupt();
        loop {
            self.told.beat();
            tokio::select! {
                ended = term.flights.next() => match ended {
                    Some((environment, task, ended)) => term.landed(&environment, &task, ended).await,
                    None => break,
                },
                _ = leads.changed() => {
                    if !*leads.borrow_and_update() {
                        loser.interrupt();
                    }
                }
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
        }
    }

    fn environments(&self) -> Api<DynamicObject> {
        Kind::Environment.api(&self.client, &self.namespace)
    }

    fn upgrades(&self) -> Api<DynamicObject> {
        Kind::Upgrade.api(&self.client, &self.namespace)
    }

    fn builds(&self) -> Api<DynamicObject> {
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

    fn fleet(&self, environment: &str) -> Result<Fleet, WorkspaceError> {
        Fleet::read(&self.home, &self.files.workspace, environment, PortShift::default())
    }

    fn history(&self, fleet: Option<&Fleet>) -> History {
        History {
            home: self.home.clone(),
            sinks: fleet.map(delivery::sinks).unwrap_or_default(),
        }
    }

    /// Every build that is heard of. One that cannot be read is none, and says so.
    fn known_builds(&self) -> BTreeMap<String, KnownBuild> {
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
        let all = staying(&self.heard.builds);
        let all = all.iter().filter_map(|object| match read(object) {
            Ok(build) => Some((name(object).to_owned(), build)),
            Err(why) => {
                tracing::warn!(%why, "a build is passed over");
                None
            }
        });
        all.collect()
    }

    fn past(&self, environment: &str) -> Past {
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
        Past {
            builds: self.known_builds(),
            upgrades,
        }
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

    /// Says of an environment whether it can be used.
    async fn tell_environment(&self, environment: &str, ready: ConditionStatus, reason: &str, message: &str) {
        let told = |object: &DynamicObject| {
            let mut status = status_of(object);
            let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
            set_condition(&mut all, generation(object), condition("Ready", ready, reason, message));
            status["conditions"] = json!(all);
            status["observedGeneration"] = json!(generation(object));
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

    async fn fresh(&self, api: &Api<DynamicObject>, name: &str) -> Option<DynamicObject> {
        match asked("read", name, api.get_opt(name)).await {
            Ok(found) => found,
            Err(why) => {
                tracing::warn!(%why, "it could not be said how it stands");
                None
            }
        }
    }

    async fn publish(&self, object: &DynamicObject, kind: Kind, type_: EventType, reason: &str, note: &str) {
        let event = ApiEvent {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(note, LONGEST_NOTE)),
            action: reason.to_owned(),
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
            self.publish(object, Kind::Upgrade, kind, &event.reason, &event.message)
                .await;
        }
    }

    /// Writes into an upgrade that is not driven why it is not. Conflicts are left to the next look.
    async fn tell_upgrade(&self, upgrade: &Upgrade, reason: &str, message: &str) {
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
        if book.conditions == upgrade.book.conditions
            && status == upgrade.status
            && !status_of(&upgrade.object).is_null()
        {
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
    async fn finish(&self, upgrade: &Upgrade) -> Result<(), Trouble> {
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
        let spec = match known {
            Some(known) => known.spec,
            None => {
                let spec = builds::resolve(component, version, self.files.workspace.root()).await?;
                self.create_build(&spec).await?;
                KnownBuild::create(&self.home, &spec)?;
                spec
            }
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

    async fn bring_up(&self, environment: &str, ending: Interrupt) -> Result<(), Trouble> {
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
    async fn drive(&self, upgrade: &str, environment: &str, ending: Interrupt, lost: Interrupt) -> Result<(), Trouble> {
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
        let past = self.past(environment);
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
            ended = driving.run() => ended,
            () = &mut publishing => return Ok(()),
        };
        drop(told);
        publishing.await;
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
    let write = Write {
        version: loaded.version,
        status: &status,
        events: &[event],
        builds: &[],
    };
    ledger.commit(write).await?;
    Ok(())
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
    let write = Write {
        version: loaded.version,
        status: &status,
        events: &[event],
        builds: &[],
    };
    ledger.commit(write).await?;
    Ok(())
}

impl<'a> Term<'a> {
    fn wake_at(&self) -> Instant {
        let soonest = self
            .stuck
            .values()
            .map(|stuck| stuck.again_at)
            .filter(|at| *at > Instant::now());
        soonest
            .min()
            .unwrap_or_else(|| Instant::now() + LOOK_EVERY)
            .min(Instant::now() + LOOK_EVERY)
    }

    /// Looks at every object once, and does or begins what is to be done.
    async fn look(&mut self) {
        let leader = self.leader;
        leader.told.reconciles.inc();
        let mut by_environment: BTreeMap<String, Vec<Upgrade>> = BTreeMap::new();
        let mut phases = Vec::new();
        for object in leader.heard.upgrades.state() {
            match Upgrade::read((*object).clone()) {
                Ok(upgrade) => {
                    phases.push(format!("{:?}", upgrade.status.phase));
                    by_environment
                        .entry(upgrade.spec.environment.clone())
                        .or_default()
                        .push(upgrade);
                }
                Err(why) => self.errs(&why),
            }
        }
        leader.told.phases(phases.into_iter());
        let environments = leader.heard.environments.state();
        let open: BTreeSet<&String> = by_environment
            .iter()
            .filter(|(_, upgrades)| upgrades.iter().any(|u| !u.status.phase.is_final()))
            .map(|(environment, _)| environment)
            .collect();
        for object in &environments {
            self.environment(object, open.contains(&name(object).to_owned())).await;
        }
        for (environment, upgrades) in by_environment {
            let object = environments.iter().find(|object| name(object) == environment);
            self.upgrades(&environment, object.map(|o| &**o), upgrades).await;
        }
        let waiting = self
            .stuck
            .values()
            .filter(|stuck| stuck.again_at > Instant::now())
            .count();
        leader.told.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    fn errs(&self, why: &dyn std::fmt::Display) {
        self.leader.told.errors.inc();
        tracing::warn!(%why, "it is looked at again");
    }

    fn is_too_soon(&self, environment: &str) -> bool {
        self.stuck
            .get(environment)
            .is_some_and(|stuck| Instant::now() < stuck.again_at)
    }

    async fn environment(&mut self, object: &DynamicObject, has_open: bool) {
        self.leader.told.beat();
        let (leader, environment) = (self.leader, name(object));
        let api = leader.environments();
        if is_deleted(object) {
            if has_open || self.under_way.contains_key(environment) {
                let message = "it is to be deleted, and waits for its open upgrade; delete that first, or let it end";
                leader
                    .tell_environment(environment, ConditionStatus::False, "WaitsForUpgrade", message)
                    .await;
            } else if is_kept(object)
                && let Err(why) = keep(&api, object, Kept::NoMore).await
            {
                self.errs(&why);
            }
            return;
        }
        if !is_kept(object) {
            if let Err(why) = keep(&api, object, Kept::UntilDone).await
                && !why.is_conflict()
            {
                self.errs(&why);
            }
            // It is heard of again.
            return;
        }
        if self.under_way.contains_key(environment) || self.is_too_soon(environment) {
            return;
        }
        match leader.fleet(environment) {
            Err(why) => {
                let why = shortened(&why.to_string(), LONGEST_MESSAGE);
                leader
                    .tell_environment(environment, ConditionStatus::False, "Invalid", &why)
                    .await;
            }
            // Its nodes are the upgrade's until that has ended.
            Ok(_) if is_settled(object) || is_begun(leader, environment) => {}
            Ok(_) => {
                let (ending, named) = (self.ending.clone(), environment.to_owned());
                self.under_way.insert(named.clone(), Task::BringingUp);
                let flight = async move {
                    let ended = leader.bring_up(&named, ending).await;
                    (named, Task::BringingUp, ended)
                };
                self.flights.push(flight.boxed_local());
            }
        }
    }

    async fn upgrades(&mut self, environment: &str, object: Option<&DynamicObject>, mut upgrades: Vec<Upgrade>) {
        let leader = self.leader;
        leader.told.beat();
        for upgrade in upgrades.iter().filter(|u| u.status.phase.is_final()) {
            // Its driver may be at its last reports.
            if self.under_way.contains_key(environment) {
                continue;
            }
            if let Err(why) = leader.finish(upgrade).await {
                self.errs(&why);
            }
        }
        upgrades.retain(|upgrade| !upgrade.status.phase.is_final());
        // One that was begun goes on; of the others the older is first.
        upgrades.sort_by_key(|u| {
            let begun = u.status.phase != Phase::Pending;
            (!begun, objects::created_at(&u.object), name(&u.object).to_owned())
        });
        let mut waits_for: Option<String> = None;
        for upgrade in &upgrades {
            let named = name(&upgrade.object).to_owned();
            let begun = upgrade.status.phase != Phase::Pending;
            if is_deleted(&upgrade.object)
                && !begun
                && self.under_way.get(environment) != Some(&Task::Driving(named.clone()))
            {
                if let Err(why) = keep(&leader.upgrades(), &upgrade.object, Kept::NoMore).await {
                    self.errs(&why);
                }
                continue;
            }
            if !is_deleted(&upgrade.object) && !is_kept(&upgrade.object) {
                if let Err(why) = keep(&leader.upgrades(), &upgrade.object, Kept::UntilDone).await
                    && !why.is_conflict()
                {
                    self.errs(&why);
                }
                waits_for.get_or_insert(named);
                continue;
            }
            match &waits_for {
                Some(other) => {
                    let message = format!("it waits for upgrade {other} of environment {environment}");
                    leader.tell_upgrade(upgrade, "WaitsForUpgrade", &message).await;
                }
                None => {
                    waits_for = Some(named);
                    self.head(environment, object, upgrade).await;
                }
            }
        }
    }

    /// The upgrade whose turn it is.
    async fn head(&mut self, environment: &str, object: Option<&DynamicObject>, upgrade: &Upgrade) {
        let leader = self.leader;
        if self.under_way.contains_key(environment) || self.is_too_soon(environment) {
            return;
        }
        let wait = |reason: &'static str, message: String| (reason, message);
        let begun = upgrade.status.phase != Phase::Pending;
        let in_the_way = match object {
            None => Some(wait(
                "EnvironmentMissing",
                format!("there is no Environment {environment}; it waits for it"),
            )),
            Some(object) if !begun && is_deleted(object) => Some(wait(
                "EnvironmentDeleted",
                format!("Environment {environment} is being deleted"),
            )),
            Some(object) if !begun && !is_settled(object) => Some(wait(
                "EnvironmentNotReady",
                format!("it waits for Environment {environment} to be brought up"),
            )),
            Some(_) if !leader.known_builds().contains_key(&upgrade.spec.build) => Some(wait(
                "BuildMissing",
                format!("there is no Build {}; it waits for it", upgrade.spec.build),
            )),
            Some(_) => None,
        };
        if let Some((reason, message)) = in_the_way {
            leader.tell_upgrade(upgrade, reason, &message).await;
            return;
        }
        let holds = match upgrade.spec.wish {
            Wish::Proceed => !upgrade.is_asked_again(),
            Wish::Pause | Wish::TimeUp => true,
            Wish::Abort => false,
        };
        if upgrade.status.phase.is_held() && holds {
            return;
        }
        let (ending, lost) = (self.ending.clone(), self.lost.clone());
        let (environment, named) = (environment.to_owned(), name(&upgrade.object).to_owned());
        let task = Task::Driving(named.clone());
        self.under_way.insert(environment.clone(), task.clone());
        let flight = async move {
            let ended = leader.drive(&named, &environment, ending, lost).await;
            (environment, task, ended)
        };
        self.flights.push(flight.boxed_local());
    }

    /// Something has gone as far as it goes.
    async fn landed(&mut self, environment: &str, task: &Task, ended: Result<(), Trouble>) {
        let leader = self.leader;
        self.under_way.remove(environment);
        match (ended, task) {
            (Ok(()), Task::BringingUp) => {
                self.stuck.remove(environment);
                leader
                    .tell_environment(environment, ConditionStatus::True, "Up", "every node was brought up")
                    .await;
            }
            (Ok(()), Task::Driving(_)) => {
                self.stuck.remove(environment);
            }
            (Err(Trouble::Up(UpError::Interrupted)), _) => {}
            (Err(trouble), _) if trouble.is_rivalry() => tracing::warn!(%trouble, "it is left to another"),
            (Err(trouble), task) => {
                let why = trouble.to_string();
                leader.told.errors.inc();
                let failures = self.stuck.get(environment).map_or(0, |stuck| stuck.failures) + 1;
                let wait = report::backoff(failures, environment).min(LONGEST_WAIT);
                self.stuck.insert(
                    environment.to_owned(),
                    Stuck {
                        failures,
                        again_at: Instant::now() + wait,
                    },
                );
                match task {
                    Task::BringingUp => {
                        (leader.tell)(&format!("{environment} was not brought up: {why}"));
                        let why = shortened(&why, LONGEST_MESSAGE);
                        leader
                            .tell_environment(environment, ConditionStatus::False, "NotUp", &why)
                            .await;
                    }
                    Task::Driving(upgrade) => {
                        (leader.tell)(&format!("{upgrade} cannot be driven: {why}"));
                        if let Some(object) = leader.fresh(&leader.upgrades(), upgrade).await
                            && let Ok(upgrade) = Upgrade::read(object)
                        {
                            leader.tell_upgrade(&upgrade, "NotDriven", &why).await;
                        }
                    }
                }
            }
        }
    }
}

/// Whether an attempt was made to bring it up as it is stated now. One that failed on a node is no reason to hold an upgrade: what
/// the others need may be one.
fn is_settled(object: &DynamicObject) -> bool {
    let all = object.data["status"]["conditions"].as_array();
    let ready = all.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
    ready.is_some_and(|ready| {
        ready["observedGeneration"].as_i64() == Some(generation(object))
            && (ready["reason"] == "Up" || ready["reason"] == "NotUp")
    })
}

fn is_begun(leader: &Leader, environment: &str) -> bool {
    leader.heard.upgrades.state().into_iter().any(|object| {
        Upgrade::read((*object).clone()).is_ok_and(|upgrade| {
            upgrade.spec.environment == environment
                && !upgrade.status.phase.is_final()
                && upgrade.status.phase != Phase::Pending
        })
    })
}

fn status_of(object: &DynamicObject) -> Value {
    match &object.data["status"] {
        Value::Null => json!({}),
        status => status.clone(),
    }
}

fn condition(kind: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Timestamp::now(),
    }
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most - 1) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

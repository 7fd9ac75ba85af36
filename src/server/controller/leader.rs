//! What a leader does to one object: brings an environment up, drives an upgrade, says in a status how it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, ObjectMeta, PostParams};
use kube::runtime::events::{Event as ApiEvent, EventType, Recorder};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::files::{Change, Files};
use super::heard::{Heard, Which};
use super::keeper::ObjectKeeper;
use super::look::{Task, heard_again};
use super::told::Told;
use crate::cluster::ledger::{History, ObjectLedger, Objects, record, whole};
use crate::cluster::objects::{
    self, ATTEMPTS, ApiError, Kept, Kind, Upgrade, asked, conditions, generation, is_deleted, is_kept, keep, name,
    part, patiently, set_condition, write_status,
};
use crate::cluster::replica::ReplicaError;
use crate::engine::builds::{self, BuildError};
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::ledger::{Ledger as _, Write};
use crate::engine::replica::{self, KeepError, Keeper as _};
use crate::engine::session::{self, Driving, KnownBuild, Past, SessionError};
use crate::engine::up::{Bringing, UpError};
use crate::engine::{CommitError, DriveError, delivery};
use crate::home::Home;
use crate::hosts::{FencingToken, Host as _, HostError};
use crate::model::build::{BuildRef, BuildSpec};
use crate::model::environment::Component;
use crate::model::system::PortShift;
use crate::model::upgrade::{Event, Phase, Severity, UpgradeSpec, UpgradeStatus, Wish};
use crate::model::values::Digest;
use crate::rollout::{self, IllegalTransition};
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
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error("{0} changes faster than it can be taken")]
    Contended(String),
    #[error(
        "Build {build} is {there} here, and its source has {here} under that version now; give the component another version, or delete the Build if nobody needs it"
    )]
    OtherBytes { build: String, there: Digest, here: Digest },
    #[error("it has changed meanwhile, or another leads; it is looked at again")]
    Changed,
}

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landed {
    /// As far as it goes.
    Done,
    /// Somebody or something else is to go on with it.
    Left,
    /// It is tried again after a while.
    Failed,
}

impl Trouble {
    /// Of the API server or of our own volume: whether its nodes can be brought up is not known by it.
    fn is_ours(&self) -> bool {
        matches!(
            self,
            Trouble::Api(_) | Trouble::Store(_) | Trouble::Commit(_) | Trouble::Contended(_)
        )
    }

    /// Somebody else leads: that is as it should be.
    pub(super) fn is_rivalry(&self) -> bool {
        matches!(
            self,
            Trouble::Commit(CommitError::Fenced(_))
                | Trouble::Session(SessionError::Drive(
                    DriveError::Fenced(_) | DriveError::Node(HostError::Fenced { .. })
                ))
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
    pub(super) heard: Arc<Heard>,
    /// Why files could not be written, so that it is said once.
    pub(super) complaints: Mutex<BTreeMap<String, String>>,
    pub(super) told: Arc<Told>,
    pub(super) tell: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Leader {
    /// Whether every kind was listed once.
    pub(super) fn has_listed(&self) -> bool {
        let listed = self.heard.has_listed();
        if listed {
            self.told.synced();
        }
        listed
    }

    /// Makes the files what the objects are; tells which environments are read otherwise now. One whose file cannot be written is not
    /// looked at until it is, and is tried again at the next turn.
    pub(super) fn place(&self) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for environment in self.heard.files() {
            // Also of one that is to be deleted: its open upgrade goes back first.
            let object = self.heard.environment(&environment);
            let placed = self.files.place(&environment, object.as_deref());
            let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
            match placed {
                Ok(change) => {
                    complaints.remove(&environment);
                    if change == Change::Some {
                        changed.extend(self.heard.read_with(&environment));
                    }
                }
                Err(why) => {
                    let why = why.to_string();
                    if complaints.get(&environment) != Some(&why) {
                        tracing::warn!(why, environment, "its file cannot be written, and it waits for that");
                        complaints.insert(environment.clone(), why);
                    }
                    self.heard.is_unplaced(environment);
                }
            }
        }
        changed
    }

    /// Takes over what lies on the volume: files of environments that are no more are taken away.
    pub(super) fn clear_files(&self) {
        if let Err(why) = self.files.only(&self.heard.environment_names()) {
            tracing::warn!(%why, "files of environments that are no more could not be taken away");
        }
    }

    /// Whether the templates are otherwise than at the last look; from now on they are those.
    pub(super) fn has_other_templates(&self) -> bool {
        match self.files.templates() {
            Ok(change) => change == Change::Some,
            Err(why) => {
                tracing::warn!(%why, "the templates could not be copied; those from before are used");
                false
            }
        }
    }

    /// Keeps the volume within its bounds.
    pub(super) fn prune(&self) {
        session::prune_home(&self.home);
        if self.has_listed() {
            session::prune_evidence(&self.home, &self.heard.unique_names());
        }
    }

    pub(super) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        kind.api(&self.client, &self.namespace)
    }

    fn objects(&self) -> Objects {
        Objects {
            upgrades: self.api(Kind::Upgrade),
            builds: self.api(Kind::Build),
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

    /// Every build that there is: what was heard may be older than a quarantine of a moment ago.
    async fn listed_builds(&self) -> Result<BTreeMap<String, KnownBuild>, ApiError> {
        let (api, all) = (self.api(Kind::Build), ListParams::default());
        let listed = patiently(|| asked("list", "Builds", api.list(&all))).await?;
        Ok(readable_builds(listed.items.iter()))
    }

    fn past(&self, environment: &str, builds: BTreeMap<String, KnownBuild>) -> Past {
        let all = self.heard.upgrades_of(environment, Which::All);
        let read = all.iter().filter_map(|object| Upgrade::read((**object).clone()).ok());
        let mut upgrades: Vec<UpgradeRecord> = read.map(|upgrade| record(&upgrade, 1)).collect();
        upgrades.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        Past { builds, upgrades }
    }

    /// Takes an environment: nobody who took it before may change its nodes or its upgrades from now on.
    async fn take(&self, fleet: &Fleet) -> Result<FencingToken, Trouble> {
        let environment = &fleet.environment.name;
        let api = self.api(Kind::Environment);
        // An Environment that was made anew remembers less than its nodes.
        let looks = join_all(fleet.all_places().map(|place| place.host.observe(&place.address, &[]))).await;
        let seen = looks.into_iter().flatten().filter_map(|sight| sight.fence);
        let seen = seen
            .filter(|fence| fence.home == self.home_uid)
            .map(|fence| fence.counter)
            .max();
        for _ in 0..ATTEMPTS {
            let what = format!("Environment {environment}");
            let object = patiently(|| asked("read", &what, api.get(environment))).await?;
            let mut status = status_of(&object);
            let counter = status["fence"].as_u64().max(seen).unwrap_or(0) + 1;
            status["fence"] = json!(counter);
            match patiently(|| write_status(&api, &object, status.clone())).await {
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
    ) -> Result<(), ApiError> {
        let told = |object: &DynamicObject| {
            let mut status = status_of(object);
            let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
            set_condition(&mut all, of, condition("Ready", ready, reason, message));
            status["conditions"] = json!(all);
            status["observedGeneration"] = json!(of);
            (status != status_of(object)).then_some(status)
        };
        let heard = self.heard.environment(environment);
        if heard.is_some_and(|heard| told(&heard).is_none()) {
            return Ok(());
        }
        let api = self.api(Kind::Environment);
        for _ in 0..ATTEMPTS {
            let Some(object) = self.fresh(Kind::Environment, environment).await? else {
                return Ok(());
            };
            let Some(status) = told(&object) else {
                return Ok(());
            };
            match patiently(|| write_status(&api, &object, status.clone())).await {
                Err(why) if why.is_conflict() => {}
                Err(why) => return heard_again(Err(why)),
                Ok(_) => {
                    let kind = match ready {
                        ConditionStatus::True => EventType::Normal,
                        ConditionStatus::False | ConditionStatus::Unknown => EventType::Warning,
                    };
                    self.publish(&object, Kind::Environment, kind, reason, message).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// As it is now, and not as it was heard of last.
    pub(super) async fn fresh(&self, kind: Kind, name: &str) -> Result<Option<DynamicObject>, ApiError> {
        let (what, api) = (format!("{kind:?} {name}"), self.api(kind));
        patiently(|| asked("read", &what, api.get_opt(name))).await
    }

    pub(super) async fn publish(&self, object: &DynamicObject, kind: Kind, type_: EventType, reason: &str, note: &str) {
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
    pub(super) async fn tell_upgrade(&self, upgrade: &Upgrade, reason: &str, message: &str) -> Result<(), Trouble> {
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
            return Ok(());
        }
        book.writes += 1;
        match write_status(&self.api(Kind::Upgrade), &upgrade.object, whole(&status, &book)?).await {
            Ok(_) => {
                let (object, kind) = (&upgrade.object, Kind::Upgrade);
                self.publish(object, kind, EventType::Warning, reason, &message).await;
                Ok(())
            }
            Err(why) => Ok(heard_again(Err(why))?),
        }
    }

    /// Ends an upgrade that has not begun, as its wish says. Nothing was touched.
    pub(super) async fn end_unbegun(&self, upgrade: &Upgrade) -> Result<(), Trouble> {
        let (mut status, mut book) = (upgrade.status.clone(), upgrade.book.clone());
        let now = Timestamp::now();
        status.phase = rollout::transition(status.phase, Phase::Aborted)?;
        "Aborted".clone_into(&mut status.reason);
        "it was aborted before it began; nothing was changed".clone_into(&mut status.message);
        status.since = now;
        status.finished_at = Some(now);
        conditions(&mut book, &status, generation(&upgrade.object));
        book.observed_generation = generation(&upgrade.object);
        book.writes += 1;
        book.told += 1;
        book.pending.push(objects::Pending {
            seq: book.told,
            event: Event {
                at: now,
                reason: "Aborted".to_owned(),
                severity: Severity::Alert,
                node: None,
                message: status.message.clone(),
            },
        });
        match write_status(&self.api(Kind::Upgrade), &upgrade.object, whole(&status, &book)?).await {
            Ok(_) => {
                let (object, kind) = (&upgrade.object, Kind::Upgrade);
                self.publish(object, kind, EventType::Warning, "Aborted", &status.message)
                    .await;
                Ok(())
            }
            Err(why) => Ok(heard_again(Err(why))?),
        }
    }

    /// What is left to do for an upgrade that has ended: its last events go into the history, and it may be deleted.
    pub(super) async fn finish(&self, upgrade: &Upgrade) -> Result<(), Trouble> {
        if !upgrade.book.pending.is_empty() {
            // Its environment says who is told, and may be readable again later; of one that is gone the history alone is left.
            let fleet = match self.heard.environment(&upgrade.spec.environment) {
                Some(_) => Some(self.fleet(&upgrade.spec.environment)?),
                None => None,
            };
            self.history(fleet.as_ref()).copy(upgrade)?;
            let mut book = upgrade.book.clone();
            book.pending.clear();
            book.writes += 1;
            let status = whole(&upgrade.status, &book)?;
            let written = write_status(&self.api(Kind::Upgrade), &upgrade.object, status).await;
            return Ok(heard_again(written.map(|_| ()))?);
        }
        if is_deleted(&upgrade.object) && is_kept(&upgrade.object) {
            heard_again(keep(&self.api(Kind::Upgrade), &upgrade.object, Kept::NoMore).await)?;
        }
        Ok(())
    }

    /// Makes what the store is asked for on the way up what the objects say.
    fn copy_builds(&self, fleet: &Fleet) -> Result<(), Trouble> {
        let store = self.home.store();
        for (name, build) in readable_builds(self.heard.builds().iter().map(|object| &**object)) {
            if fleet.environment.component(&build.spec.component).is_none() {
                continue;
            }
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
        let spec = if let Some(known) = self.heard.build(&format!("{}-{version}", component.name)) {
            part(&known, "spec")?
        } else {
            let spec = builds::resolve(component, version, self.files.workspace.root()).await?;
            let spec = self.create_build(spec).await?;
            KnownBuild::create(&self.home, &spec)?;
            spec
        };
        Ok(Some((spec.reference(), spec)))
    }

    /// The build as its object has it, which is made where there is none.
    async fn create_build(&self, spec: BuildSpec) -> Result<BuildSpec, Trouble> {
        let named = spec.name();
        let object = DynamicObject {
            metadata: ObjectMeta {
                name: Some(named.clone()),
                ..ObjectMeta::default()
            },
            ..DynamicObject::new(&named, &Kind::Build.resource()).data(json!({"spec": spec}))
        };
        let (what, api) = (format!("Build {named}"), self.api(Kind::Build));
        match asked("make", &what, api.create(&PostParams::default(), &object)).await {
            Ok(_) => Ok(spec),
            // Another environment was quicker, and what it has found is what there is.
            Err(why) if why.is_conflict() => {
                let there: BuildSpec = part(&asked("read", &what, api.get(&named)).await?, "spec")?;
                if there.digest == spec.digest {
                    Ok(there)
                } else {
                    Err(Trouble::OtherBytes {
                        build: named,
                        there: there.digest,
                        here: spec.digest,
                    })
                }
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Carries out what a look has found to do, and says what came of it.
    pub(super) async fn carry_out(&self, environment: &str, task: &Task, ending: Interrupt, lost: Interrupt) -> Landed {
        let ended = match task {
            Task::BringingUp(of) => Box::pin(self.bring_up(environment, *of, ending, lost.clone())).await,
            Task::Keeping => self.keep_replica(environment, &ending, &lost).await,
            Task::TakingDown(_) => self.take_down(environment, &ending, &lost).await,
            Task::Driving(upgrade) => Box::pin(self.drive(upgrade, environment, ending, lost.clone())).await,
        };
        let landed = match &ended {
            Ok(()) => Landed::Done,
            Err(
                Trouble::Up(UpError::Interrupted)
                | Trouble::Changed
                | Trouble::Replica(ReplicaError::Interrupted)
                | Trouble::Keep(KeepError::Replica(ReplicaError::Interrupted) | KeepError::Overtaken(_)),
            ) => Landed::Left,
            // A look that failed keeps nothing else from going on; it is made again.
            Err(trouble) if *task == Task::Keeping => {
                self.told.errors.inc();
                tracing::warn!(%trouble, environment, "a replica was not looked at");
                return Landed::Done;
            }
            Err(trouble) if trouble.is_rivalry() => {
                tracing::warn!(%trouble, "it is left to another");
                Landed::Left
            }
            Err(_) => Landed::Failed,
        };
        if landed == Landed::Left || lost.is_set() {
            // Whatever it is, another says it.
            return Landed::Left;
        }
        let said = tokio::select! {
            said = self.say(environment, task, ended) => said,
            () = lost.wait() => return Landed::Left,
        };
        match said {
            Ok(()) => landed,
            Err(why) => {
                tracing::warn!(%why, environment, "it could not be said how it stands");
                Landed::Failed
            }
        }
    }

    async fn say(&self, environment: &str, task: &Task, ended: Result<(), Trouble>) -> Result<(), Trouble> {
        match (ended, task) {
            (_, Task::Keeping) | (Ok(()), Task::Driving(_) | Task::TakingDown(_)) => Ok(()),
            (Ok(()), Task::BringingUp(of)) => {
                let message = "every node was brought up";
                self.tell_environment(environment, *of, ConditionStatus::True, "Up", message)
                    .await?;
                Ok(())
            }
            (Err(trouble), Task::BringingUp(of)) => {
                let why = trouble.to_string();
                (self.tell)(&format!("{environment} was not brought up: {why}"));
                // An upgrade may be what its nodes need, and nothing that mends our own trouble.
                let reason = if trouble.is_ours() { "NotTried" } else { "NotUp" };
                let why = shortened(&why, LONGEST_MESSAGE);
                self.tell_environment(environment, *of, ConditionStatus::False, reason, &why)
                    .await?;
                Ok(())
            }
            (Err(trouble), Task::TakingDown(of)) => {
                let why = trouble.to_string();
                (self.tell)(&format!("the objects of {environment} were not deleted: {why}"));
                let why = shortened(&why, LONGEST_MESSAGE);
                self.tell_environment(environment, *of, ConditionStatus::False, "NotDown", &why)
                    .await?;
                Ok(())
            }
            (Err(trouble), Task::Driving(upgrade)) => {
                let why = trouble.to_string();
                (self.tell)(&format!("{upgrade} cannot be driven: {why}"));
                match self.fresh(Kind::Upgrade, upgrade).await? {
                    Some(object) => self.tell_upgrade(&Upgrade::read(object)?, "NotDriven", &why).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn bring_up(&self, environment: &str, of: i64, ending: Interrupt, lost: Interrupt) -> Result<(), Trouble> {
        let fleet = Arc::new(self.fleet(environment)?);
        if !self.heard.is_placed(environment, of) {
            return Err(Trouble::Changed);
        }
        let spec = json!(fleet.environment.spec);
        self.home
            .store()
            .put_resource("Environment", environment, &spec, Expect::Anything, Timestamp::now())?;
        let token = self.take(&fleet).await?;
        self.copy_builds(&fleet)?;
        let tell = Arc::clone(&self.tell);
        let on_step = move |what: &str| tell(&format!("  {what}"));
        let keeper = ObjectKeeper::new(self, &fleet, &ending, &lost);
        let replica = if let Some((of, remembered)) = self.replica(&fleet).await? {
            of.refuse_other_cluster().await?;
            replica::bring_up(&of, remembered, &keeper).await?;
            Some(of)
        } else {
            // What stood until now is stated no more.
            self.take_down(environment, &ending, &lost).await?;
            None
        };
        let bringing = Bringing {
            home: &self.home,
            fleet: &fleet,
            token,
            on_step: &on_step,
            interrupt: ending.clone(),
        };
        for component in fleet.environment.components_in_order() {
            if lost.is_set() {
                return Err(Trouble::Changed);
            }
            let build = self.build(component).await?;
            if let Some(replica) = &replica {
                replica.pods_ready(component, keeper.on_write()).await?;
            }
            bringing
                .up(component, build.as_ref().map(|(build, spec)| (build, spec)))
                .await?;
        }
        Ok(())
    }

    /// Drives one upgrade as far as it goes.
    async fn drive(&self, upgrade: &str, environment: &str, ending: Interrupt, lost: Interrupt) -> Result<(), Trouble> {
        // What was heard of it may be older than its end.
        let Some(object) = self.fresh(Kind::Upgrade, upgrade).await? else {
            return Err(Trouble::Changed);
        };
        let now = Upgrade::read(object.clone())?;
        if now.status.phase.is_final() || now.stays_held() {
            return Err(Trouble::Changed);
        }
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
        // Which image a build is, is asked of the home where a build has files, too.
        self.copy_builds(&fleet)?;
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

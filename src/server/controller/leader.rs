//! Who leads: what it works with, and how what a look has found to do is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use kube::api::DynamicObject;
use kube::runtime::events::Recorder;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::Phrase;
use super::files::{Change, Files};
use super::heard::Heard;
use super::look::{NODES_MISSING, NOT_DOWN, Task};
use super::shared::shared_with;
use super::statuses::{LONGEST_MESSAGE, shortened, status_of};
use super::told::Told;
use crate::cluster::history::History;
use crate::cluster::ledger::Objects;
use crate::cluster::objects::{ATTEMPTS, ApiError, Kind, Upgrade, asked, patiently, write_status};
use crate::cluster::replica::ReplicaError;
use crate::engine::builds::BuildError;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::replica::KeepError;
use crate::engine::session::{self, SessionError};
use crate::engine::up::UpError;
use crate::engine::{CommitError, DriveError, delivery};
use crate::home::Home;
use crate::hosts::{FencingToken, Host as _, HostError};
use crate::model::environment::HostRef;
use crate::model::system::PortShift;
use crate::model::values::Digest;
use crate::report::{Complaints, Word};
use crate::rollout::IllegalTransition;
use crate::store::StoreError;
use crate::store::build::{Condition, ConditionStatus};
use crate::workspace::WorkspaceError;

/// What becomes of a task that has failed, for who reads that it did.
const TRIED_AGAIN: &str = "it is tried again by itself, 30 s later at the latest";

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
    #[error(
        "it was brought up with nodes that it does not list any more, and nothing of ours stops them: {}; put them back, or see that they have gone and take their names out of its status: `kubectl edit -n {namespace} environment {environment} --subresource=status`",
        nodes.join(", ")
    )]
    NodesMissing {
        namespace: String,
        environment: String,
        nodes: Vec<String>,
    },
    #[error("what it had is not given back yet: {0}")]
    NotGivenBack(String),
    /// A promotion: what is in the way of deciding it.
    #[error("{0}")]
    Undecided(String),
    /// It waits for its promotion.
    #[error("it waits for promotion {0}, which does not let it begin now")]
    WaitsForPromotion(String),
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
    pub(super) fn is_ours(&self) -> bool {
        matches!(
            self,
            Trouble::Api(_) | Trouble::Store(_) | Trouble::Commit(_) | Trouble::Contended(_)
        )
    }

    /// Another was quicker, or it is tried again in a moment.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Trouble::Api(why) if why.is_conflict() || why.is_gone() || why.is_passing())
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

/// What an environment is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    BringUp,
    Upgrade,
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
    pub(super) complaints: Mutex<Complaints>,
    /// Of builds that an upgrade was to bring: what was judged of them and is not in their objects yet.
    pub(super) judged: Mutex<BTreeMap<String, Condition>>,
    pub(super) told: Arc<Told>,
    pub(super) tell: Arc<dyn Fn(&str) + Send + Sync>,
    pub(super) phrase: Phrase,
    /// Why tasks of environments have failed, so that each is said once however often it is tried again.
    pub(super) failures: Mutex<Complaints>,
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
            let trouble = placed.as_ref().err().map(ToString::to_string);
            match complaints.met(&environment, trouble) {
                Word::Trouble(why) => {
                    tracing::warn!(why, environment, "its file cannot be written, and it waits for that");
                }
                Word::Over => tracing::info!(environment, "its file is written"),
                Word::Nothing => {}
            }
            match placed {
                Ok(Change::Some) => changed.extend(self.heard.read_with(&environment)),
                Ok(Change::None) => {}
                Err(_) => self.heard.is_unplaced(environment),
            }
        }
        changed
    }

    /// Those whose files could not be written.
    pub(super) fn unplaced(&self) -> Vec<String> {
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.names().map(str::to_owned).collect()
    }

    /// Takes over what lies on the volume: files of environments that are no more are taken away.
    pub(super) fn clear_files(&self) {
        if let Err(why) = self.files.only(&self.heard.environment_names()) {
            tracing::warn!(%why, "files of environments that are no more could not be taken away");
        }
    }

    /// Whether the templates are otherwise than when this was last asked; from now on they are those.
    pub(super) fn has_other_templates(&self) -> bool {
        self.refresh_templates();
        self.files.were_changed()
    }

    /// Makes the templates those that there are now.
    pub(super) fn refresh_templates(&self) {
        if let Err(why) = self.files.templates() {
            tracing::warn!(%why, "the templates could not be copied; those from before are used");
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

    pub(super) fn objects(&self) -> Objects {
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

    pub(super) fn history(&self, fleet: Option<&Fleet>) -> History {
        History {
            home: self.home.clone(),
            sinks: fleet.map(delivery::sinks).unwrap_or_default(),
        }
    }

    /// Takes an environment: nobody who took it before may change its nodes or its upgrades from now on.
    pub(super) async fn take(&self, fleet: &Fleet, purpose: Purpose) -> Result<FencingToken, Trouble> {
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
            match purpose {
                Purpose::Upgrade => {}
                // Before the first step: whoever looks for it must know that something may be there.
                Purpose::BringUp => {
                    self.refuse_missing_nodes(fleet, &status)?;
                    status["nodes"] = json!(remembered_nodes(fleet));
                }
            }
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

    /// Refuses to go on where servers that an environment was brought up with, as its status says, are not in its list.
    pub(super) fn refuse_missing_nodes(&self, fleet: &Fleet, status: &Value) -> Result<(), Trouble> {
        let stated = remembered_nodes(fleet);
        let before = status["nodes"].as_array().into_iter().flatten();
        let missing = before.filter_map(Value::as_str).filter(|name| !stated.contains(*name));
        let nodes: Vec<String> = missing.map(str::to_owned).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        Err(Trouble::NodesMissing {
            namespace: self.namespace.clone(),
            environment: fleet.environment.name.clone(),
            nodes,
        })
    }

    /// Carries out what a look has found to do, and says what came of it.
    pub(super) async fn carry_out(&self, environment: &str, task: &Task, ending: Interrupt, lost: Interrupt) -> Landed {
        let ended = match task {
            Task::BringingUp(of) => Box::pin(self.bring_up(environment, of, ending, lost.clone())).await,
            Task::Keeping => self.keep_replica(environment, &ending, &lost).await,
            Task::TakingDown(_) => self.take_down(environment, &ending, &lost).await,
            Task::GivingBack(upgrades) => Box::pin(self.give_back_all(upgrades, environment, &lost)).await,
            Task::Driving { upgrade, .. } => Box::pin(self.drive(upgrade, environment, ending, lost.clone())).await,
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
                tracing::warn!(%trouble, environment, "it was not looked at");
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
        let trouble = match (&ended, task) {
            (Ok(()) | Err(Trouble::NotGivenBack(_)), _) | (Err(_), Task::Keeping) => None,
            (Err(why), Task::BringingUp(_)) => Some(format!("{environment} was not brought up: {why}")),
            (Err(why), Task::TakingDown(_)) => Some(format!("the objects of {environment} were not deleted: {why}")),
            (Err(why), Task::Driving { upgrade, .. }) => Some(format!("{upgrade} cannot be driven: {why}")),
            (Err(why), Task::GivingBack(upgrades)) => {
                Some(format!("what {} kept is not given back: {why}", upgrades.join(" and ")))
            }
        };
        self.tell_failure(environment, trouble);
        match (ended, task) {
            (_, Task::Keeping)
            | (Ok(()), Task::Driving { .. } | Task::GivingBack(_) | Task::TakingDown(_))
            // It is in the upgrade's status, where it was written by who tried.
            | (Err(Trouble::NotGivenBack(_)), _) => Ok(()),
            (Ok(()), Task::BringingUp(of)) => {
                let mut message = "every node was brought up".to_owned();
                message.push_str(&self.heard.environment(environment).map_or_else(String::new, |own| {
                    let names = self.heard.environment_names();
                    let others = names.iter().filter_map(|name| self.heard.environment(name));
                    shared_with(&own, others)
                }));
                self.tell_outcome(environment, of, ConditionStatus::True, "Up", &message)
                    .await?;
                Ok(())
            }
            (Err(trouble), Task::BringingUp(of)) => {
                let why = format!("{trouble}; {TRIED_AGAIN}");
                let why = shortened(&why, LONGEST_MESSAGE);
                // An upgrade may be what its nodes need, and nothing that mends our own trouble.
                let reason = match &trouble {
                    Trouble::NodesMissing { .. } => NODES_MISSING,
                    ours if ours.is_ours() => {
                        let is_not = ConditionStatus::False;
                        let told = self.tell_environment(environment, of.generation, is_not, "NotTried", &why);
                        return Ok(told.await?);
                    }
                    _ => "NotUp",
                };
                self.tell_outcome(environment, of, ConditionStatus::False, reason, &why)
                    .await?;
                Ok(())
            }
            (Err(trouble), Task::TakingDown(of)) => {
                let why = format!("{trouble}; {TRIED_AGAIN}");
                let why = shortened(&why, LONGEST_MESSAGE);
                self.tell_environment(environment, *of, ConditionStatus::False, NOT_DOWN, &why)
                    .await?;
                Ok(())
            }
            (Err(trouble), Task::Driving { upgrade, .. }) => self.say_not_driven(upgrade, &trouble).await,
            (Err(trouble), Task::GivingBack(upgrades)) => {
                for upgrade in upgrades {
                    self.say_not_driven(upgrade, &trouble).await?;
                }
                Ok(())
            }
        }
    }

    async fn say_not_driven(&self, upgrade: &str, trouble: &Trouble) -> Result<(), Trouble> {
        let why = format!("{trouble}; {TRIED_AGAIN}");
        match self.fresh(Kind::Upgrade, upgrade).await? {
            Some(object) => self.tell_upgrade(&Upgrade::read(object)?, "NotDriven", &why).await,
            None => Ok(()),
        }
    }

    /// Says why a task has failed, once however often it is tried again.
    fn tell_failure(&self, environment: &str, trouble: Option<String>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.met(environment, trouble) {
            Word::Trouble(why) => (self.tell)(&format!("{why}; {TRIED_AGAIN}, and said when it is otherwise")),
            Word::Over | Word::Nothing => {}
        }
    }
}

/// Names of the nodes that run on where a list has them no more: servers. Pods go with their workload, or when that is scaled.
fn remembered_nodes(fleet: &Fleet) -> BTreeSet<String> {
    let places = fleet.all_places();
    let ours = places.filter(|place| !matches!(place.site.host, Some(HostRef::Pod(_))));
    ours.map(|place| place.site.name.clone()).collect()
}

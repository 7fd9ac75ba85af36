//! The live world behind the loop: where one upgrade is written down, its hosts and its signals.

mod kept;
mod serving;
mod watch;
mod window;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

pub use self::watch::WatchError;
use self::watch::{EvidencePlace, Watch};
use super::builds;
use super::fleet::{Fleet, FleetError, Lifecycle, Place};
use super::interrupt::Interrupt;
use super::ledger::{Ledger, Write};
use super::world::{CommitError, Loaded, World};
use crate::home::Home;
use crate::hosts::{FencingToken, Host as _, HostError, NodeSight, Script, Step, StepState, Work};
use crate::model::build::BuildRef;
use crate::model::environment::{Component, HostRef};
use crate::model::upgrade::{Blocker, Event, Severity, StepAction, StepIntent, UpgradeSpec, UpgradeStatus};
use crate::model::values::Digest;
use crate::rollout::{Decision, Prepared, Signals};
use crate::store::build::Mark;
use crate::store::{BuildChange, Quarantine, Verification};

/// A pod ends, its successor is placed, its image fetched and its container begun within this.
const POD_DEADLINE: Duration = Duration::from_mins(10);

/// Told of every status that was made durable, with its events.
pub type OnCommit<'a> = dyn Fn(&UpgradeStatus, &[Event]) + 'a;

/// One upgrade in the real world.
pub struct LiveWorld<'a> {
    home: Home,
    fleet: Arc<Fleet>,
    component: Component,
    token: FencingToken,
    spec: UpgradeSpec,
    build: BuildRef,
    builds: BTreeMap<Digest, BuildRef>,
    ledger: &'a dyn Ledger,
    watch: Watch,
    evidence: EvidencePlace,
    preparation: Arc<Preparation>,
    interrupt: Interrupt,
    on_commit: &'a OnCommit<'a>,
    /// Nodes that are analysed, as last wanted.
    analysed: RefCell<Vec<bool>>,
}

/// What a live world is made of.
pub struct Parts<'a> {
    /// The home.
    pub home: &'a Home,
    /// The environment.
    pub fleet: Arc<Fleet>,
    /// The component whose nodes change.
    pub component: &'a Component,
    /// Proof of holding the lease.
    pub token: FencingToken,
    /// Name of the upgrade.
    pub upgrade: &'a str,
    /// What is asked.
    pub spec: &'a UpgradeSpec,
    /// The build that goes on.
    pub build: BuildRef,
    /// Every build of the component that is known, by digest.
    pub builds: BTreeMap<Digest, BuildRef>,
    /// How the build is made ready.
    pub preparation: builds::Order,
    /// Where the upgrade is written down.
    pub ledger: &'a dyn Ledger,
    /// Ends the drive.
    pub interrupt: Interrupt,
    /// Told of every commit.
    pub on_commit: &'a OnCommit<'a>,
}

/// The build being made ready, beside the loop.
struct Preparation {
    order: builds::Order,
    state: Mutex<Option<Prepared>>,
    done: Notify,
}

impl<'a> LiveWorld<'a> {
    /// Makes the signals ready. Must run within a tokio runtime.
    ///
    /// # Errors
    /// What the signals need is not there: secrets, databases, certificates.
    pub fn new(parts: Parts<'a>) -> Result<Self, WatchError> {
        let Parts {
            home,
            fleet,
            component,
            token,
            upgrade,
            spec,
            build,
            builds,
            preparation,
            ledger,
            interrupt,
            on_commit,
        } = parts;
        Ok(Self {
            watch: Watch::new(Arc::clone(&fleet), component, builds.clone())?,
            evidence: EvidencePlace {
                home: home.clone(),
                upgrade: upgrade.to_owned(),
            },
            home: home.clone(),
            fleet,
            component: component.clone(),
            token,
            spec: spec.clone(),
            build,
            builds,
            ledger,
            preparation: Arc::new(Preparation {
                order: preparation,
                state: Mutex::new(None),
                done: Notify::new(),
            }),
            interrupt,
            on_commit,
            analysed: RefCell::new(Vec::new()),
        })
    }

    /// Ends the traffic and writes down what became of the updates that it saw acknowledged.
    pub(super) async fn account(&self, patience: Duration) -> Result<(), CommitError> {
        let Some(kept) = self.watch.look_again(patience).await else {
            return Ok(());
        };
        if kept.updates.acknowledged == 0 {
            return Ok(());
        }
        let Loaded {
            status,
            version,
            wish: _,
            wished_by: _,
        } = self.load().await?;
        let mut status = Arc::unwrap_or_clone(status);
        status.updates = Some(status.updates.unwrap_or_default() + kept.updates);
        let sound = kept.updates.lost == 0 && kept.updates.unchecked == 0;
        let event = Event {
            at: Timestamp::now(),
            reason: if kept.updates.lost == 0 {
                "UpdatesKept"
            } else {
                "UpdatesLost"
            }
            .to_owned(),
            severity: if sound { Severity::Step } else { Severity::Alert },
            node: None,
            message: kept.words(),
        };
        self.write(version, &status, &[event], &[]).await.map(|_| ())
    }

    /// One write: status, events, reports and what builds have earned.
    async fn write(
        &self,
        version: u64,
        status: &UpgradeStatus,
        events: &[Event],
        builds: &[BuildChange],
    ) -> Result<u64, CommitError> {
        let write = Write {
            version,
            status,
            events,
            builds,
        };
        let version = self.ledger.commit(write).await?;
        (self.on_commit)(status, events);
        Ok(version)
    }

    fn place(&self, node: usize) -> &Place {
        &self.fleet.places(&self.component.name)[node]
    }

    fn marks(&self, decision: &Decision) -> Vec<BuildChange> {
        let environment = &self.spec.environment;
        let at = Timestamp::now();
        let mut marks = Vec::new();
        if let Some(reason) = &decision.quarantine {
            marks.push(Mark::Quarantine(Quarantine {
                environment: environment.clone(),
                reason: reason.clone(),
                at,
            }));
        }
        if decision.verified {
            marks.push(Mark::Verify(Verification {
                environment: environment.clone(),
                digest: self.build.digest,
                at,
                asked_by: self.spec.promotion.as_ref().map(|_| self.spec.user.clone()),
            }));
        }
        marks
            .into_iter()
            .map(|mark| BuildChange {
                build: self.spec.build.clone(),
                mark,
            })
            .collect()
    }

    fn step(&self, node: usize, intent: &StepIntent) -> Result<Step, FleetError> {
        let place = self.place(node);
        let build = self.builds.get(&intent.release);
        let script = |action| self.fleet.script(&self.component, Some(&place.site), build, action);
        let release = intent.release;
        let pod = matches!(place.site.host, Some(HostRef::Pod(_)));
        let work = match intent.action {
            // Its cluster stops and starts it; what is ours to say is how long we wait.
            StepAction::Restart if pod => Work::Restart {
                stop: Script::default(),
                start: Script {
                    deadline: POD_DEADLINE,
                    ..Script::default()
                },
            },
            StepAction::Install if pod => Work::Install {
                release,
                script: Script::default(),
            },
            // What is looked at is whether its cluster can do what is to be done, and what is needed for that is made.
            StepAction::Check if pod => Work::Take { deadline: POD_DEADLINE },
            // The pods beside it have something to be looked at.
            StepAction::Check if self.component.actions.check.is_none() => Work::Script(Script {
                // An empty file is no program everywhere.
                text: "#!/bin/sh\n".to_owned(),
                deadline: Lifecycle::Check.default_timeout(),
                ..Script::default()
            }),
            // They are for the servers beside it.
            StepAction::Drain | StepAction::Warm | StepAction::Admit if pod => Work::Script(Script::default()),
            StepAction::Check => Work::Script(script(Lifecycle::Check)?),
            StepAction::Install => Work::Install {
                release,
                script: script(Lifecycle::Install)?,
            },
            StepAction::Drain => Work::Script(script(Lifecycle::Drain)?),
            StepAction::Activate => Work::Activate { release },
            StepAction::Restart => Work::Restart {
                stop: script(Lifecycle::Stop)?,
                start: script(Lifecycle::Start)?,
            },
            StepAction::Warm => Work::Script(script(Lifecycle::Warm)?),
            StepAction::Admit => Work::Script(script(Lifecycle::Admit)?),
        };
        Ok(Step {
            id: intent.id.clone(),
            action: intent.action.word().to_owned(),
            work,
        })
    }
}

impl World for LiveWorld<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn load(&self) -> Result<Loaded, CommitError> {
        self.ledger.load().await
    }

    async fn commit(&self, version: u64, decision: &Decision) -> Result<u64, CommitError> {
        let mut status = decision.status.clone();
        for (node, place) in status.nodes.iter_mut().zip(self.fleet.places(&self.component.name)) {
            node.address.clone_from(&place.site.address);
        }
        self.write(version, &status, &decision.events, &self.marks(decision))
            .await
    }

    async fn renew(&self) -> Result<(), CommitError> {
        self.ledger.renew().await
    }

    async fn observe(&self, node: usize, step: Option<&StepIntent>) -> Result<NodeSight, HostError> {
        let place = self.place(node);
        let steps: Vec<String> = step.map(|s| s.id.clone()).into_iter().collect();
        let mut sight = place.host.observe(&place.address, &steps).await?;
        if let Some(fence) = sight.fence.take_if(|fence| fence.home != self.token.home) {
            return Err(HostError::ForeignHome {
                environment: self.spec.environment.clone(),
                node: place.site.name.clone(),
                seen: fence.home,
            });
        }
        // A step of a driver before this one: what its scripts printed of their secrets is to be hidden all the same.
        if let Some(intent) = step
            && let Some(StepState::Ended(end)) = sight.steps.get_mut(&intent.id)
            && !end.log_tail.is_empty()
        {
            match self.step(node, intent) {
                Ok(step) => step.hide_secrets(&mut sight),
                Err(why) => end.log_tail = format!("(its log is not shown, for its secrets are not known: {why})\n"),
            }
        }
        Ok(sight)
    }

    async fn run(&self, node: usize, intent: &StepIntent, patience: Duration) -> Result<NodeSight, HostError> {
        let place = self.place(node);
        let step = self.step(node, intent).map_err(|e| HostError::Failed {
            host: place.site.name.clone(),
            tried: format!("make its {} step", intent.action.word()),
            why: e.to_string(),
        })?;
        if matches!(step.work, Work::Install { .. }) {
            let artifact = self.home.artifact(&intent.release);
            if artifact.exists() {
                place
                    .host
                    .deliver(&place.address, &self.token, &intent.release, &artifact)
                    .await?;
            }
        }
        place.host.run(&place.address, &self.token, &step, patience).await
    }

    fn watch(&self, status: &UpgradeStatus, sights: &[Option<NodeSight>]) {
        *self.analysed.borrow_mut() = status.nodes.iter().map(|n| n.analysed_since.is_some()).collect();
        self.watch.want(status, sights, Timestamp::now());
    }

    fn signals(&self, node: usize) -> Signals {
        let analysed = self.analysed.borrow().get(node).copied().unwrap_or(false);
        self.watch.signals(node, Timestamp::now(), &self.evidence, analysed)
    }

    fn prepared(&self) -> Prepared {
        let preparation = &self.preparation;
        let mut state = preparation.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = state.as_ref() {
            return prepared.clone();
        }
        *state = Some(Prepared::Pending);
        let (home, fleet, this) = (self.home.clone(), Arc::clone(&self.fleet), Arc::clone(preparation));
        tokio::spawn(async move {
            let prepared = match builds::prepare(&home, &fleet, &this.order).await {
                Ok(_) => Prepared::Ready,
                Err(why) => Prepared::Failed(why.to_string()),
            };
            *this.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared);
            this.done.notify_one();
        });
        Prepared::Pending
    }

    fn blockers(&self) -> Vec<Blocker> {
        self.watch.blockers(Timestamp::now())
    }

    async fn stirred(&self) {
        tokio::select! {
            () = self.watch.stirred() => {}
            () = self.preparation.done.notified() => {}
        }
    }

    async fn interrupted(&self) {
        self.interrupt.wait().await;
    }
}

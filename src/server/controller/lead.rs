//! One time of leading: what of all objects is to be done now, what waits for what, and what is under way.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt as _};
use kube::api::DynamicObject;
use tokio::sync::watch;
use tokio::time::Instant;

use super::LOOK_EVERY;
use super::leader::{LONGEST_MESSAGE, Leader, Trouble, shortened};
use crate::cluster::objects::{self, Kept, Upgrade, generation, is_deleted, is_kept, keep, name};
use crate::engine::interrupt::Interrupt;
use crate::engine::session;
use crate::engine::up::UpError;
use crate::model::upgrade::{Phase, Wish};
use crate::report;
use crate::server::couriers::Couriers;
use crate::server::{LONGEST_WAIT, PRUNE_EVERY, RENEW_EVERY};
use crate::store::build::ConditionStatus;

/// What goes on with an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    /// Of this generation of it.
    BringingUp(i64),
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
    /// Leads until the end is asked for or another may lead.
    pub(super) async fn lead(
        &self,
        interrupt: &Interrupt,
        leads: &mut watch::Receiver<bool>,
        couriers: &mut Couriers<'_>,
    ) {
        let (deposer, lost) = Interrupt::new();
        let (finisher, ending) = Interrupt::new();
        let mut term = Term {
            leader: self,
            ending,
            lost,
            flights: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            stuck: BTreeMap::new(),
        };
        let (mut reread_at, mut prune_at) = (Instant::now(), Instant::now());
        while !interrupt.is_set() && *leads.borrow_and_update() {
            self.told.beat();
            let placed = self.place();
            if Instant::now() >= reread_at {
                couriers.reread();
                reread_at = Instant::now() + LOOK_EVERY;
            }
            if Instant::now() >= prune_at {
                session::prune_home(&self.home);
                prune_at = Instant::now() + PRUNE_EVERY;
            }
            if placed {
                term.look().await;
            }
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
            deposer.interrupt();
        }
        finisher.interrupt();
        loop {
            self.told.beat();
            tokio::select! {
                ended = term.flights.next() => match ended {
                    Some((environment, task, ended)) => term.landed(&environment, &task, ended).await,
                    None => break,
                },
                _ = leads.changed() => {
                    if !*leads.borrow_and_update() {
                        deposer.interrupt();
                    }
                }
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
        }
    }
}

impl Term<'_> {
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
        // One that cannot be read may be under way all the same: its environment is left alone.
        let mut unreadable: BTreeSet<String> = BTreeSet::new();
        for object in leader.heard.upgrades.state() {
            match Upgrade::read((*object).clone()) {
                Ok(upgrade) => {
                    phases.push(format!("{:?}", upgrade.status.phase));
                    by_environment
                        .entry(upgrade.spec.environment.clone())
                        .or_default()
                        .push(upgrade);
                }
                Err(why) => {
                    self.errs(&why);
                    let environment = object.data["spec"]["environment"].as_str();
                    unreadable.extend(environment.map(str::to_owned));
                }
            }
        }
        by_environment.retain(|environment, _| !unreadable.contains(environment));
        leader.told.phases(phases.into_iter());
        let environments = leader.heard.environments.state();
        let open: BTreeSet<&String> = by_environment
            .iter()
            .filter(|(_, upgrades)| upgrades.iter().any(|u| !u.status.phase.is_final()))
            .map(|(environment, _)| environment)
            .collect();
        for object in environments.iter().filter(|object| !unreadable.contains(name(object))) {
            self.environment(object, open.contains(&name(object).to_owned())).await;
        }
        for (environment, upgrades) in by_environment {
            let object = environments.iter().find(|object| name(object) == environment);
            self.upgrades(&environment, object.map(|o| &**o), upgrades).await;
        }
        self.builds().await;
        let waiting = self
            .stuck
            .values()
            .filter(|stuck| stuck.again_at > Instant::now())
            .count();
        leader.told.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A Build that is deleted goes once no open upgrade names it: it may have to be gone back from.
    async fn builds(&self) {
        let leader = self.leader;
        for object in leader.heard.builds.state() {
            if !is_deleted(&object) || !is_kept(&object) {
                continue;
            }
            let is_named = leader.heard.upgrades.state().iter().any(|upgrade| {
                let phase = upgrade.data["status"]["phase"].as_str();
                let is_final =
                    phase.is_some_and(|phase| serde_json::from_value::<Phase>(phase.into()).is_ok_and(Phase::is_final));
                !is_final && upgrade.data["spec"]["build"].as_str() == Some(name(&object))
            });
            if !is_named && let Err(why) = keep(&leader.builds(), &object, Kept::NoMore).await {
                self.errs(&why);
            }
        }
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
                    .tell_environment(
                        environment,
                        generation(object),
                        ConditionStatus::False,
                        "WaitsForUpgrade",
                        message,
                    )
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
                    .tell_environment(environment, generation(object), ConditionStatus::False, "Invalid", &why)
                    .await;
            }
            Ok(fleet) if fleet.environment.spec.target.is_some() => {
                let why = "its objects are made by `stagegate up`; a controller does not make them so far";
                leader
                    .tell_environment(
                        environment,
                        generation(object),
                        ConditionStatus::False,
                        "TargetNotServed",
                        why,
                    )
                    .await;
            }
            // Its nodes are the upgrade's until that has ended; and one that failed on a node is tried again when nothing waits for it.
            Ok(_) if is_up(object) || is_begun(leader, environment) || has_open && is_settled(object) => {}
            Ok(_) => {
                let (ending, named) = (self.ending.clone(), environment.to_owned());
                let task = Task::BringingUp(generation(object));
                self.under_way.insert(named.clone(), task.clone());
                let flight = async move {
                    let ended = leader.bring_up(&named, ending).await;
                    (named, task, ended)
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
            if self.under_way.get(environment) == Some(&Task::Driving(name(&upgrade.object).to_owned())) {
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
            if let Some(other) = &waits_for {
                let message = format!("it waits for upgrade {other} of environment {environment}");
                leader.tell_upgrade(upgrade, "WaitsForUpgrade", &message).await;
            } else {
                waits_for = Some(named);
                self.head(environment, object, upgrade).await;
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
            Some(_) => match leader.heard.builds.find(|build| name(build) == upgrade.spec.build) {
                None => Some(wait(
                    "BuildMissing",
                    format!("there is no Build {}; it waits for it", upgrade.spec.build),
                )),
                Some(build) if !begun && is_deleted(&build) => Some(wait(
                    "BuildDeleted",
                    format!("Build {} is being deleted", upgrade.spec.build),
                )),
                Some(build) if !is_deleted(&build) && !is_kept(&build) => {
                    if let Err(why) = keep(&leader.builds(), &build, Kept::UntilDone).await
                        && !why.is_conflict()
                    {
                        self.errs(&why);
                    }
                    // It is heard of again.
                    return;
                }
                Some(_) => None,
            },
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
            let ended = Box::pin(leader.drive(&named, &environment, ending, lost)).await;
            (environment, task, ended)
        };
        self.flights.push(flight.boxed_local());
    }

    /// Something has gone as far as it goes.
    async fn landed(&mut self, environment: &str, task: &Task, ended: Result<(), Trouble>) {
        let leader = self.leader;
        self.under_way.remove(environment);
        if self.lost.is_set() {
            // Whatever it is, another says it.
            return;
        }
        match (ended, task) {
            (Ok(()), Task::BringingUp(of)) => {
                self.stuck.remove(environment);
                leader
                    .tell_environment(
                        environment,
                        *of,
                        ConditionStatus::True,
                        "Up",
                        "every node was brought up",
                    )
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
                    Task::BringingUp(of) => {
                        (leader.tell)(&format!("{environment} was not brought up: {why}"));
                        let why = shortened(&why, LONGEST_MESSAGE);
                        leader
                            .tell_environment(environment, *of, ConditionStatus::False, "NotUp", &why)
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
    matches!(came_to(object).as_deref(), Some("Up" | "NotUp"))
}

/// Whether every node was brought up as it is stated now.
fn is_up(object: &DynamicObject) -> bool {
    came_to(object).as_deref() == Some("Up")
}

/// What came of it as it is stated now.
fn came_to(object: &DynamicObject) -> Option<String> {
    let all = object.data["status"]["conditions"].as_array()?;
    let ready = all.iter().find(|c| c["type"] == "Ready")?;
    let is_of_now = ready["observedGeneration"].as_i64() == Some(generation(object));
    ready["reason"].as_str().filter(|_| is_of_now).map(str::to_owned)
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

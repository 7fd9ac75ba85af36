//! What one object asks for now. It is looked at when something has changed that concerns it; what is waited for is said in its
//! status, what is done with is let go, and what takes longer is left to who leads.

use jiff::Timestamp;
use kube::api::DynamicObject;

use super::heard::Which;
use super::keeper::{EXPIRED, remembered};
use super::leader::{Leader, Trouble};
use super::statuses::{LONGEST_MESSAGE, shortened};
use crate::cluster::objects::{self, ApiError, Kept, Kind, Upgrade, generation, is_deleted, is_kept, keep, name};
use crate::model::upgrade::{Phase, Wish};
use crate::store::build::ConditionStatus;

/// What goes on with an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Of this generation of it.
    BringingUp(i64),
    /// This upgrade.
    Driving(String),
    /// Looking after its replica.
    Keeping,
    /// Deleting its replica's objects, since it is deleted, in this generation.
    TakingDown(i64),
}

/// What a look finds under way.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) task: Option<Task>,
    /// Whether something of it may be begun now.
    pub(super) may_begin: MayBegin,
    pub(super) depth: Depth,
    pub(super) keep: Keep,
}

/// Whether it is time to look after its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Due,
    Later,
}

/// Whether what has just failed may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayBegin {
    Now,
    Later,
}

/// How much of an environment that is up is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Objects,
    /// Also whether its files can still be read: templates change without its object.
    Files,
}

impl Leader {
    /// Looks at an environment and its upgrades; tells what is to be begun.
    pub(super) async fn look(&self, environment: &str, mut standing: Standing) -> Result<Option<Task>, Trouble> {
        let undone = self.heard.upgrades_of(environment, Which::Undone);
        let read = undone.iter().map(|object| Upgrade::read((**object).clone()));
        // One that cannot be read may be under way all the same: its environment is left alone.
        let upgrades = read.collect::<Result<Vec<_>, _>>()?;
        let object = self.heard.environment(environment);
        let bring_up = match &object {
            Some(object) => self.look_at_environment(object, &upgrades, &standing).await,
            None => Ok(None),
        };
        // A look at a replica is short, and a drive may as well be next.
        if let Ok(Some(task)) = &bring_up {
            standing.task = Some(task.clone());
        }
        let drive = self
            .look_at_upgrades(environment, object.as_deref(), upgrades, &standing)
            .await;
        Ok(match bring_up? {
            Some(bring_up) => drive.map(|_| Some(bring_up))?,
            None => drive?,
        })
    }

    async fn look_at_environment(
        &self,
        object: &DynamicObject,
        upgrades: &[Upgrade],
        standing: &Standing,
    ) -> Result<Option<Task>, Trouble> {
        let (environment, of) = (name(object), generation(object));
        let tell = async |reason: &str, message: &str| {
            self.tell_environment(environment, of, ConditionStatus::False, reason, message)
                .await
                .map(|()| None)
                .map_err(Trouble::from)
        };
        let has_open = upgrades.iter().any(|upgrade| !upgrade.status.phase.is_final());
        if is_deleted(object) {
            if has_open {
                let why = "it is to be deleted, and waits for its open upgrade; delete that first, or let it end";
                return tell("WaitsForUpgrade", why).await;
            }
            if standing.task.is_some() || !is_kept(object) {
                return Ok(None);
            }
            if remembered(object).is_some() {
                return Ok((standing.may_begin == MayBegin::Now).then_some(Task::TakingDown(of)));
            }
            self.let_go(Kind::Environment, object).await?;
            return Ok(None);
        }
        if !is_kept(object) {
            // It is heard of again.
            self.hold(Kind::Environment, object).await?;
            return Ok(None);
        }
        if standing.task.is_some() || standing.may_begin == MayBegin::Later || came_to(object) == Some(EXPIRED) {
            return Ok(None);
        }
        let is_free = !upgrades.iter().any(is_under_way);
        let kept = remembered(object);
        let is_over = kept
            .as_ref()
            .and_then(|kept| kept.expires_at)
            .is_some_and(|at| at <= Timestamp::now());
        if is_over && is_free && standing.keep == Keep::Due {
            return Ok(Some(Task::Keeping));
        }
        if is_up(object) && standing.depth == Depth::Objects {
            let is_due = kept.is_some() && standing.keep == Keep::Due;
            return Ok((is_due && is_free).then_some(Task::Keeping));
        }
        match self.fleet(environment) {
            Err(why) => tell("Invalid", &shortened(&why.to_string(), LONGEST_MESSAGE)).await,
            // Its nodes are the upgrade's until that has ended; and one that failed on a node is tried again when nothing waits for it.
            Ok(_) if is_up(object) || upgrades.iter().any(is_under_way) => Ok(None),
            Ok(_) if is_settled(object) && upgrades.iter().any(|upgrade| self.may_go_on(upgrade)) => Ok(None),
            // What is heard of it may be older than what was said of it last.
            Ok(_) => match self.fresh(Kind::Environment, environment).await? {
                Some(fresh) if generation(&fresh) == of && !is_up(&fresh) => Ok(Some(Task::BringingUp(of))),
                Some(_) | None => Ok(None),
            },
        }
    }

    async fn look_at_upgrades(
        &self,
        environment: &str,
        object: Option<&DynamicObject>,
        mut upgrades: Vec<Upgrade>,
        standing: &Standing,
    ) -> Result<Option<Task>, Trouble> {
        let is_driven =
            |upgrade: &Upgrade| standing.task.as_ref() == Some(&Task::Driving(name(&upgrade.object).to_owned()));
        for upgrade in upgrades.iter().filter(|upgrade| upgrade.status.phase.is_final()) {
            // Its driver may be at its last reports.
            if !is_driven(upgrade) {
                self.finish(upgrade).await?;
            }
        }
        upgrades.retain(|upgrade| !upgrade.status.phase.is_final());
        // One that was begun goes on; of the others the older is first.
        upgrades.sort_by_key(|upgrade| {
            let object = &upgrade.object;
            (
                !is_under_way(upgrade),
                objects::created_at(object),
                name(object).to_owned(),
            )
        });
        let (mut waits_for, mut next) = (None, None);
        for upgrade in &upgrades {
            let object_of_it = &upgrade.object;
            if is_deleted(object_of_it) && !is_under_way(upgrade) && !is_driven(upgrade) {
                self.let_go(Kind::Upgrade, object_of_it).await?;
            } else if !is_deleted(object_of_it) && !is_kept(object_of_it) {
                self.hold(Kind::Upgrade, object_of_it).await?;
                waits_for.get_or_insert(name(object_of_it));
            } else if !is_under_way(upgrade) && upgrade.spec.wish == Wish::Abort && !is_driven(upgrade) {
                self.end_unbegun(upgrade).await?;
            } else if let Some(other) = waits_for {
                let message = format!("it waits for upgrade {other} of environment {environment}");
                self.tell_upgrade(upgrade, "WaitsForUpgrade", &message).await?;
            } else {
                waits_for = Some(name(object_of_it));
                next = self.head(environment, object, upgrade, standing).await?;
            }
        }
        Ok(next)
    }

    /// The upgrade whose turn it is.
    async fn head(
        &self,
        environment: &str,
        object: Option<&DynamicObject>,
        upgrade: &Upgrade,
        standing: &Standing,
    ) -> Result<Option<Task>, Trouble> {
        if standing.task.is_some() || standing.may_begin == MayBegin::Later {
            return Ok(None);
        }
        let begun = is_under_way(upgrade);
        let build = self.heard.build(&upgrade.spec.build);
        let in_the_way = match (object, &build) {
            (None, _) => Some((
                "EnvironmentMissing",
                format!("there is no Environment {environment}; it waits for it"),
            )),
            (Some(object), _) if !begun && is_deleted(object) => Some((
                "EnvironmentDeleted",
                format!("Environment {environment} is being deleted"),
            )),
            (Some(object), _) if !begun && !is_settled(object) => Some((
                "EnvironmentNotReady",
                format!("it waits for Environment {environment} to be brought up"),
            )),
            (_, None) => Some((
                "BuildMissing",
                format!("there is no Build {}; it waits for it", upgrade.spec.build),
            )),
            (_, Some(build)) if !begun && is_deleted(build) => {
                Some(("BuildDeleted", format!("Build {} is being deleted", upgrade.spec.build)))
            }
            (_, Some(build)) if !is_deleted(build) && !is_kept(build) => {
                // It is heard of again.
                self.hold(Kind::Build, build).await?;
                return Ok(None);
            }
            (_, Some(_)) => None,
        };
        if let Some((reason, message)) = in_the_way {
            self.tell_upgrade(upgrade, reason, &message).await?;
            return Ok(None);
        }
        if upgrade.stays_held() {
            return Ok(None);
        }
        Ok(Some(Task::Driving(name(&upgrade.object).to_owned())))
    }

    /// Whether an open upgrade waits for nothing but its turn.
    fn may_go_on(&self, upgrade: &Upgrade) -> bool {
        !upgrade.status.phase.is_final() && self.heard.build(&upgrade.spec.build).is_some()
    }

    /// A Build that is deleted goes once no open upgrade names it: it may have to be gone back from.
    pub(super) async fn look_at_build(&self, build: &str) -> Result<(), Trouble> {
        match self.heard.build(build) {
            Some(object) if is_deleted(&object) && is_kept(&object) && !self.heard.is_wanted(build) => {
                Ok(self.let_go(Kind::Build, &object).await?)
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn let_go(&self, kind: Kind, object: &DynamicObject) -> Result<(), ApiError> {
        heard_again(keep(&self.api(kind), object, Kept::NoMore).await)
    }

    async fn hold(&self, kind: Kind, object: &DynamicObject) -> Result<(), ApiError> {
        heard_again(keep(&self.api(kind), object, Kept::UntilDone).await)
    }
}

/// Of what has changed meanwhile it is heard, and then it is looked at again.
pub(super) fn heard_again(written: Result<(), ApiError>) -> Result<(), ApiError> {
    match written {
        Err(why) if why.is_conflict() || why.is_gone() => Ok(()),
        other => other,
    }
}

fn is_under_way(upgrade: &Upgrade) -> bool {
    upgrade.status.phase != Phase::Pending && !upgrade.status.phase.is_final()
}

/// Whether an attempt was made to bring it up as it is stated now. One that failed on a node is no reason to hold an upgrade: what
/// the others need may be one.
fn is_settled(object: &DynamicObject) -> bool {
    matches!(came_to(object), Some("Up" | "NotUp"))
}

/// Whether every node was brought up as it is stated now.
fn is_up(object: &DynamicObject) -> bool {
    came_to(object) == Some("Up")
}

/// What came of it as it is stated now.
fn came_to(object: &DynamicObject) -> Option<&str> {
    let all = object.data["status"]["conditions"].as_array()?;
    let ready = all.iter().find(|c| c["type"] == "Ready")?;
    let is_of_now = ready["observedGeneration"].as_i64() == Some(generation(object));
    ready["reason"].as_str().filter(|_| is_of_now)
}

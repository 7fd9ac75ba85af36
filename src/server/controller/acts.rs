//! What a look has found to do, done: what is decided of an object ([`super::look`]) is asked, written and said here.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::events::EventType;

use super::heard::Which;
use super::leader::{Leader, Trouble};
use super::look::{
    Act, NODES_MISSING, Queue, Standing, Task, There, Version, WAITS_FOR_PLACE, Wanted, has_its_workload, is_up,
    of_build, of_environment, of_upgrades,
};
use super::statuses::{LONGEST_MESSAGE, shortened, status_of};
use crate::cluster::objects::{ApiError, Kept, Kind, Upgrade, generation, is_answered, keep, name};
use crate::store::build::ConditionStatus;

impl Leader {
    /// Looks at an environment and its upgrades; tells what is to be begun.
    pub(super) async fn look(&self, environment: &str, mut standing: Standing) -> Result<Option<Task>, Trouble> {
        let there = self.there(environment);
        let bring_up = self.act(&there, of_environment(&there, &standing)).await;
        // A look at a replica is short, and a drive may as well be next.
        if let Ok(Some(task)) = &bring_up {
            standing.task = Some(task.clone());
        }
        let drive = self.act(&there, of_upgrades(&there, &standing)).await;
        Ok(match bring_up? {
            Some(bring_up) => drive.map(|_| Some(bring_up))?,
            None => drive?,
        })
    }

    pub(super) async fn look_at_build(&self, build: &str) -> Result<(), Trouble> {
        let Some(object) = self.heard.build(build) else {
            self.is_judged_no_more(build);
            return Ok(());
        };
        let wanted = if self.heard.is_wanted(build) {
            Wanted::ByUpgrade
        } else {
            Wanted::ByNobody
        };
        self.tell_judged(build).await?;
        match of_build(&object, wanted) {
            Some(Act::LetGo(kind, object)) => Ok(self.keep(kind, object, Kept::NoMore).await?),
            Some(_) | None => Ok(()),
        }
    }

    fn there(&self, environment: &str) -> There {
        let (mut upgrades, mut unreadable) = (Vec::new(), Vec::new());
        for object in self.heard.upgrades_of(environment, Which::Undone) {
            match Upgrade::read((*object).clone()) {
                Ok(upgrade) => upgrades.push(upgrade),
                Err(why) => unreadable.push((object, why.to_string())),
            }
        }
        let builds = upgrades.iter().filter_map(|upgrade| {
            let build = &upgrade.spec.build;
            Some((build.clone(), self.heard.build(build)?))
        });
        let sharing = self.heard.sharers(environment).into_iter().flat_map(|other| {
            let all = self.heard.upgrades_of(name(&other), Which::Undone).into_iter();
            let read = all.filter_map(|object| Upgrade::read((*object).clone()).ok());
            read.filter(has_its_workload)
                .map(move |upgrade| (Arc::clone(&other), upgrade))
        });
        There {
            sharing: sharing.collect(),
            environment: environment.to_owned(),
            object: self.heard.environment(environment),
            builds: builds.collect(),
            upgrades,
            unreadable,
            now: Timestamp::now(),
        }
    }

    /// Does it one after the other; tells what is to be begun.
    async fn act<'a>(&self, there: &There, acts: impl IntoIterator<Item = Act<'a>>) -> Result<Option<Task>, Trouble> {
        let mut begun = None;
        for act in acts {
            match act {
                Act::Hold(kind, object) => self.keep(kind, object, Kept::UntilDone).await?,
                Act::LetGo(kind, object) => self.keep(kind, object, Kept::NoMore).await?,
                Act::TellEnvironment { reason, message } => self.tell_not_ready(there, reason, &message).await?,
                Act::NoteEnvironment {
                    object,
                    reason,
                    message,
                } => {
                    self.publish(object, Kind::Environment, EventType::Normal, reason, &message)
                        .await;
                }
                Act::TellUpgrade {
                    upgrade,
                    reason,
                    message,
                } => self.tell_upgrade(upgrade, reason, &message).await?,
                Act::TellUnreadable { object, why } => self.tell_unreadable(object, &why).await?,
                Act::EndUnbegun(upgrade) => self.end_aborted(upgrade).await?,
                Act::Refuse {
                    upgrade,
                    environment,
                    reason,
                    message,
                } => self.refuse_unbegun(upgrade, environment, reason, &message).await?,
                Act::Finish(upgrade) => self.finish(upgrade).await?,
                Act::Begin(task) => begun = Some(task),
                Act::Read { then_bring_up, queue } => begun = self.read(there, then_bring_up, queue).await?,
            }
        }
        Ok(begun)
    }

    async fn read(&self, there: &There, then_bring_up: Option<Version>, queue: Queue) -> Result<Option<Task>, Trouble> {
        // Who asks for that has changed something that no object of ours says.
        if there.object.as_deref().is_some_and(|object| !is_answered(object)) {
            self.refresh_templates();
        }
        let templates = self.files.digest();
        let fleet = match self.fleet(&there.environment) {
            Ok(fleet) => fleet,
            Err(why) => {
                let why = self.files.by_origin(&why.to_string());
                self.tell_not_up(there, "Invalid", &why).await?;
                return Ok(None);
            }
        };
        let Some(of) = then_bring_up else {
            return Ok(None);
        };
        // What was heard of it may be older than what was said of it last.
        let fresh = self.fresh(Kind::Environment, &there.environment).await?;
        let Some(fresh) = fresh.filter(|fresh| generation(fresh) == of.generation && !is_up(fresh)) else {
            return Ok(None);
        };
        // Its own words are enough for that: no node is asked, and it stays so until it is stated otherwise.
        if self.heard.is_placed(&there.environment, of.generation)
            && let Err(missing) = self.refuse_missing_nodes(&fleet, &status_of(&fresh))
        {
            self.tell_not_up(there, NODES_MISSING, &missing.to_string()).await?;
            return Ok(None);
        }
        if queue == Queue::Waits {
            let message = "this controller brings as many environments up already as it does at a time; its turn comes";
            self.tell_not_ready(there, WAITS_FOR_PLACE, message).await?;
        }
        Ok(Some(Task::BringingUp(Version {
            templates,
            ..Version::of(&fresh)
        })))
    }

    async fn tell_not_ready(&self, there: &There, reason: &str, message: &str) -> Result<(), ApiError> {
        let of = there.object.as_ref().map_or(0, |object| generation(object));
        let message = shortened(message, LONGEST_MESSAGE);
        self.tell_environment(&there.environment, of, ConditionStatus::False, reason, &message)
            .await
    }

    /// The same where that is what came of it: who has asked for it is answered.
    async fn tell_not_up(&self, there: &There, reason: &str, message: &str) -> Result<(), ApiError> {
        let Some(of) = there.object.as_deref().map(Version::of) else {
            return Ok(());
        };
        let message = shortened(message, LONGEST_MESSAGE);
        self.tell_outcome(&there.environment, &of, ConditionStatus::False, reason, &message)
            .await
    }

    async fn keep(&self, kind: Kind, object: &DynamicObject, kept: Kept) -> Result<(), ApiError> {
        heard_again(keep(&self.api(kind), object, kept).await)
    }
}

/// Of what has changed meanwhile it is heard, and then it is looked at again.
pub(super) fn heard_again(written: Result<(), ApiError>) -> Result<(), ApiError> {
    match written {
        Err(why) if why.is_conflict() || why.is_gone() => Ok(()),
        other => other,
    }
}

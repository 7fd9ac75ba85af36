//! Rehearsals of a namespace: their upgrades are made one after the other, driven as any other, and compared with what must come out. What
//! goes wrong on purpose beside one is begun and ended by who drives it.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::json;

use super::leader::{Leader, Trouble};
use super::statuses::{LONGEST_MESSAGE, shortened};
use crate::cluster::belonging::{Whose, owned_by, owner, upgrade_of_rehearsal};
use crate::cluster::objects::{ATTEMPTS, Kind, MANAGER, Upgrade, generation, is_deleted, name, uid, write_status};
use crate::cluster::promotions::Promotion;
use crate::cluster::rehearsals::Rehearsal;
use crate::engine::disturb::Disturbances;
use crate::engine::fleet::Fleet;
use crate::hosts::FencingToken;
use crate::model::rehearsal::{Blamed, RehearsalPhase, RehearsalSpec, RehearsalStatus, RunStatus, Seen, advance};
use crate::model::system::in_words;
use crate::model::upgrade::{Phase, UpgradeSpec, UpgradeStatus, Wish};
use crate::rollout;

/// What goes on beside an upgrade of a rehearsal.
pub(super) struct Beside {
    rehearsal: String,
    uid: String,
    /// What could not even be begun.
    disturbances: Result<Disturbances, String>,
}

impl Leader {
    /// Takes a turn of every rehearsal, and says whether one is open.
    pub(super) async fn rehearse(&self) -> bool {
        let mut is_any = false;
        for object in self.heard.rehearsals().iter().filter(|object| !is_settled(object)) {
            is_any = true;
            let Err(why) = Box::pin(self.take_rehearsal_turn(name(object))).await else {
                continue;
            };
            if why.passes() {
                continue;
            }
            self.told.errors.inc();
            if let Err(untold) = self.tell_stuck(name(object), &why.to_string()).await {
                tracing::warn!(%why, %untold, rehearsal = name(object), "it is not said why a rehearsal does not go on");
            }
        }
        is_any
    }

    async fn take_rehearsal_turn(&self, named: &str) -> Result<(), Trouble> {
        let Some(object) = self.fresh(Kind::Rehearsal, named).await? else {
            return Ok(());
        };
        if is_deleted(&object) {
            return Ok(());
        }
        let rehearsal = Rehearsal::read(object)?;
        if self.take_back_held(&rehearsal).await? {
            return Ok(());
        }
        let open = rehearsal.status.runs.iter().find(|run| run.phase.is_none());
        let upgrade = match open {
            Some(run) => self.upgrade_of_run(&rehearsal, run).await?,
            None => None,
        };
        let seen = match &upgrade {
            None => Seen::Nothing,
            Some(upgrade) if settles(&upgrade.status) => Seen::Settled(&upgrade.status, self.blamed(upgrade).await?),
            Some(upgrade) => Seen::Going(&upgrade.status),
        };
        let refused = self.refused_rehearsal(&rehearsal).await?;
        let status = advance(
            &rehearsal.spec,
            &rehearsal.status,
            seen,
            refused.as_deref(),
            |place| rehearsal.upgrade(place),
            Timestamp::now(),
        );
        if status != rehearsal.status {
            self.write_rehearsal(&rehearsal, status.clone()).await?;
            if status.phase != rehearsal.status.phase {
                (self.tell)(&format!("rehearsal {named}: {:?}: {}", status.phase, status.message));
            }
        }
        // Only once it is written that it is to be.
        match status.runs.iter().find(|run| run.phase.is_none()) {
            Some(run) if !run.begun && upgrade.is_none() => self.begin_run(&rehearsal, run).await,
            Some(_) | None => Ok(()),
        }
    }

    /// The upgrade of a run, once there is one.
    async fn upgrade_of_run(&self, rehearsal: &Rehearsal, run: &RunStatus) -> Result<Option<Upgrade>, Trouble> {
        let Some(object) = self.fresh(Kind::Upgrade, &run.upgrade).await? else {
            return Ok(None);
        };
        let upgrade = Upgrade::read(object)?;
        match upgrade_of_rehearsal(rehearsal, &run.build, &upgrade) {
            Whose::Its => Ok(Some(upgrade)),
            Whose::Anothers(why) => Err(Trouble::Undecided(why)),
        }
    }

    /// What is held has come out as that, and goes back before anything else; tells whether there was such a run.
    async fn take_back_held(&self, rehearsal: &Rehearsal) -> Result<bool, Trouble> {
        let Some(place) = rehearsal.status.runs.iter().position(|run| run.is_held) else {
            return Ok(false);
        };
        let upgrade = self.upgrade_of_run(rehearsal, &rehearsal.status.runs[place]).await?;
        if let Some(upgrade) = upgrade.filter(|upgrade| !upgrade.status.phase.is_final()) {
            self.say_to(&upgrade, Wish::Abort).await?;
        }
        let mut status = rehearsal.status.clone();
        status.runs[place].is_held = false;
        self.write_rehearsal(rehearsal, status).await?;
        Ok(true)
    }

    /// Why no run of it may be begun, or none any more.
    async fn refused_rehearsal(&self, rehearsal: &Rehearsal) -> Result<Option<String>, Trouble> {
        if let Some((promotion, of)) = owner(Kind::Promotion, &rehearsal.object) {
            let over = || Some(format!("promotion {promotion}, which it is of, has ended"));
            let Some(object) = self.fresh(Kind::Promotion, promotion).await? else {
                return Ok(over());
            };
            let phase = Promotion::read(object.clone())?.record.status.phase;
            if uid(&object) != of || is_deleted(&object) || phase.is_final() {
                return Ok(over());
            }
        }
        if rehearsal.status.runs.is_empty() {
            return self.wrong_rehearsal(&rehearsal.spec);
        }
        Ok(None)
    }

    /// What is wrong with a rehearsal, on its environment as that is now.
    pub(super) fn wrong_rehearsal(&self, spec: &RehearsalSpec) -> Result<Option<String>, Trouble> {
        let fleet = self.fleet(&spec.environment)?;
        Ok(in_words(&spec.findings(Some(&fleet.environment.spec))))
    }

    async fn write_rehearsal(&self, rehearsal: &Rehearsal, mut status: RehearsalStatus) -> Result<(), Trouble> {
        status.message = shortened(&self.in_cluster(&status.message), LONGEST_MESSAGE);
        let whole = rehearsal.whole(&status, Timestamp::now())?;
        write_status(&self.api(Kind::Rehearsal), &rehearsal.object, whole).await?;
        Ok(())
    }

    /// As the API server itself has it: it is what the rehearsal is about.
    async fn blamed(&self, upgrade: &Upgrade) -> Result<Blamed, Trouble> {
        let builds = self.listed_builds().await?;
        let known = builds.get(&upgrade.spec.build);
        let quarantine = known.and_then(|known| known.status.quarantined_in(&upgrade.spec.environment));
        Ok(Blamed::from(quarantine.is_some()))
    }

    /// Makes the upgrade of a run, and the build that it names where the environment's source has it.
    async fn begin_run(&self, rehearsal: &Rehearsal, run: &RunStatus) -> Result<(), Trouble> {
        let environment = &rehearsal.spec.environment;
        let fleet = self.fleet(environment)?;
        let stated = run.build.split_once('=').and_then(|(component, version)| {
            let component = fleet.environment.component(component)?;
            Some((component, version))
        });
        let Some((component, version)) = stated else {
            return Err(Trouble::Undecided(format!(
                "{} names no build of environment {environment}, as COMPONENT=VERSION; what is rehearsed does not change: delete this one and make another",
                run.build
            )));
        };
        let spec = UpgradeSpec {
            environment: environment.clone(),
            component: component.name.clone(),
            build: self
                .build_of(component, version, &self.listed_builds().await?)
                .await?
                .name(),
            user: MANAGER.to_owned(),
            promotion: None,
            wish: Wish::Proceed,
        };
        let owner = owned_by(Kind::Rehearsal, &rehearsal.object);
        self.make(Kind::Upgrade, &run.upgrade, json!(spec), Some(owner)).await
    }

    /// Why nothing could be done, in its status.
    async fn tell_stuck(&self, named: &str, why: &str) -> Result<(), Trouble> {
        let Some(object) = self.fresh(Kind::Rehearsal, named).await? else {
            return Ok(());
        };
        let rehearsal = Rehearsal::read(object)?;
        let told = shortened(&self.in_cluster(why), LONGEST_MESSAGE);
        if rehearsal.status.phase.is_final() || rehearsal.status.message == told {
            return Ok(());
        }
        let status = RehearsalStatus {
            message: told,
            ..rehearsal.status.clone()
        };
        self.write_rehearsal(&rehearsal, status).await
    }

    /// Begins what goes on beside an upgrade, where it is of a rehearsal that is at it.
    pub(super) async fn disturb(
        &self,
        upgrade: &DynamicObject,
        fleet: &Arc<Fleet>,
        token: &FencingToken,
    ) -> Result<Option<Beside>, Trouble> {
        let Some((rehearsal, of)) = owner(Kind::Rehearsal, upgrade) else {
            return Ok(None);
        };
        let Some(object) = self.fresh(Kind::Rehearsal, rehearsal).await? else {
            return Ok(None);
        };
        if uid(&object) != of {
            return Ok(None);
        }
        let read = Rehearsal::read(object)?;
        // One that was held has come out, and is on its way back.
        let mut runs = read.status.runs.iter();
        let place = runs.position(|run| run.upgrade == name(upgrade) && run.phase.is_none());
        let planned = read.spec.planned();
        let Some(plan) = place.and_then(|place| planned.get(place)) else {
            return Ok(None);
        };
        if plan.disturbances.is_empty() {
            return Ok(None);
        }
        let begun = Disturbances::start(&self.home, fleet, token, plan.disturbances);
        Ok(Some(Beside {
            rehearsal: rehearsal.to_owned(),
            uid: of.to_owned(),
            disturbances: begun.map_err(|why| why.to_string()),
        }))
    }

    /// Ends what goes on beside an upgrade. Once that has ended or is held, what became of it is told to its rehearsal; one that is handed over, or
    /// goes on after all, is disturbed anew.
    pub(super) async fn end_disturbing(&self, beside: Beside, upgrade: &str, phase: Phase) {
        let undone = match beside.disturbances {
            Err(why) => vec![why],
            Ok(disturbances) => {
                let ended = disturbances.stop().await;
                for trouble in &ended.troubles {
                    (self.tell)(&format!("rehearsal {}: disturbance: {trouble}", beside.rehearsal));
                }
                ended.undone
            }
        };
        if !phase.is_final() && !phase.is_held() {
            return;
        }
        for _ in 0..ATTEMPTS {
            match self
                .tell_disturbed(&beside.rehearsal, &beside.uid, upgrade, &undone)
                .await
            {
                Err(Trouble::Api(why)) if why.is_conflict() => {}
                Err(why) => {
                    return tracing::warn!(%why, upgrade, "its rehearsal is not told what became of disturbances");
                }
                Ok(()) => return,
            }
        }
    }

    async fn tell_disturbed(&self, rehearsal: &str, of: &str, upgrade: &str, undone: &[String]) -> Result<(), Trouble> {
        let Some(object) = self.fresh(Kind::Rehearsal, rehearsal).await? else {
            return Ok(());
        };
        if uid(&object) != of {
            return Ok(());
        }
        let read = Rehearsal::read(object)?;
        let mut status = read.status.clone();
        if let Some(run) = status.runs.iter_mut().find(|run| run.upgrade == upgrade) {
            run.undisturbed = Some(undone.to_vec());
        }
        self.write_rehearsal(&read, status).await
    }
}

/// Whether nothing is left to do for one. A template is not carried out, for as long as it says that it is one.
fn is_settled(object: &DynamicObject) -> bool {
    let status = &object.data["status"];
    let phase: Option<RehearsalPhase> = serde_json::from_value(status["phase"].clone()).ok();
    let is_looked_at = status["observedGeneration"] == generation(object);
    let keeps = status["runs"]
        .as_array()
        .is_some_and(|runs| runs.iter().any(|run| run["isHeld"] == true));
    is_deleted(object)
        || phase.is_some_and(|phase| phase.is_final() && !keeps || phase == RehearsalPhase::Template && is_looked_at)
}

/// Whether an upgrade goes no further by itself: what somebody has paused waits for them, and what reaches nobody for its nodes.
fn settles(status: &UpgradeStatus) -> bool {
    let waits = rollout::waits_to_reach(status) || status.phase == Phase::Paused && status.reason == "ByUser";
    status.phase.is_final() || status.phase.is_held() && !waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_was_changed_is_looked_at_again() {
        let settled = |phase: &str, of: i64, observed: i64| {
            let mut object = DynamicObject::new("there", &Kind::Rehearsal.resource())
                .data(json!({"status": {"phase": phase, "observedGeneration": observed}}));
            object.metadata.generation = Some(of);
            is_settled(&object)
        };
        assert!(settled("Template", 1, 1) && settled("Passed", 1, 1));
        assert!(!settled("Template", 2, 1) && !settled("Running", 1, 1));
    }

    #[test]
    fn what_waits_for_somebody_or_for_its_nodes_has_not_come_out_yet() {
        let at = |phase: Phase, reason: &str, resume_to: Option<Phase>| {
            let status = UpgradeStatus {
                phase,
                reason: reason.to_owned(),
                resume_to,
                ..UpgradeStatus::new(Timestamp::UNIX_EPOCH)
            };
            settles(&status)
        };
        assert!(at(Phase::RolledBack, "Proven", None) && at(Phase::Inconclusive, "NoData", None));
        assert!(at(Phase::Paused, "ForeignEdit", None));
        assert!(!at(Phase::Paused, "ByUser", None) && !at(Phase::Rolling, "", None));
        assert!(!at(Phase::Paused, rollout::NOBODY_REACHED, Some(Phase::RollingBack)));
    }
}

//! Promotions of a namespace: each is looked at when something has changed that it may wait for, decided as in any other home, and what was
//! decided is done once it is in its status. What changes anything is decided of builds, rules and upgrades as the API server itself has
//! them then, since a build that has just failed, or a freeze of a moment ago, is what it is about; the rest is as it was heard of last.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use kube::runtime::events::EventType;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bring_up::readable_builds;
use super::heard::Which;
use super::leader::{Leader, Trouble};
use super::policies::Found;
use super::statuses::{LONGEST_MESSAGE, shortened};
use crate::audit::Act;
use crate::cluster::history::History;
use crate::cluster::ledger::record;
use crate::cluster::objects::{Kept, Kind, Upgrade, is_deleted, is_kept, keep, name, patiently, write_status};
use crate::cluster::promotions::{Copied, Promotion};
use crate::cluster::rules::Rules;
use crate::engine::delivery;
use crate::engine::interrupt::Interrupt;
use crate::engine::promotion::facts::gather;
use crate::engine::promotion::{Known, LONGEST_LOOK, PromotionError, PromotionRecord, Vouched, Way, act, event};
use crate::model::pipeline::Stage;
use crate::model::promotion::{Phase, PromotionStatus};
use crate::model::upgrade::{self, Event, Severity, Wish};
use crate::promotion::{Decision, Effect};
use crate::store::ENGINE;

/// What nobody tells of, as files, keys and the time of day, is looked at this often where a promotion is open.
const TURN_EVERY: Duration = Duration::from_secs(5);
/// What enters by itself is looked for this often, and whether pipelines can be used.
const ROUND_EVERY: Duration = Duration::from_secs(15);
/// From one look at all to the next at the least: news that come together are looked at together.
const GATHER: Duration = Duration::from_millis(500);
/// Who is to be told of a promotion that is deleted is waited for so long, where its environment cannot be read.
const LONGEST_END: SignedDuration = SignedDuration::from_mins(1);
/// What all promotions are decided on in one pass over them.
pub(super) struct Pass {
    pub(super) rules: Rules,
    pub(super) promotions: Vec<PromotionRecord>,
    /// Why nobody's words can be believed now.
    pub(super) unguarded: Option<String>,
}

impl Leader {
    /// Sees to promotions for as long as it leads and is not asked to end, and then waits to be ended: who leads no more decides nothing, and whose
    /// end is asked for renews no files.
    pub(super) async fn promote(&self, mut leads: watch::Receiver<bool>, interrupt: &Interrupt) {
        tokio::select! {
            () = self.see_to_promotions() => {}
            _ = leads.wait_for(|leads| !leads) => {}
            () = interrupt.wait() => {}
        }
        std::future::pending::<()>().await;
    }

    async fn see_to_promotions(&self) {
        let mut round_at = Instant::now();
        let mut found = Found::default();
        loop {
            let begun = Instant::now();
            let mut is_any_open = self.rehearse().await;
            let all = self.heard.promotions();
            let open: Vec<_> = all.iter().filter(|object| !is_done(object)).collect();
            if !open.is_empty() {
                is_any_open = true;
                match self.pass(&all, &mut found).await {
                    Ok(pass) => {
                        for object in open {
                            self.turn_of(name(object), &pass).await;
                        }
                    }
                    Err(why) => tracing::warn!(%why, "promotions are looked at again"),
                }
            }
            if Instant::now() >= round_at {
                round_at = Instant::now() + ROUND_EVERY;
                if let Err(why) = self.go_round_rules().await {
                    tracing::warn!(%why, "pipelines and freezes are looked at again");
                }
            }
            let wait = if is_any_open { TURN_EVERY } else { ROUND_EVERY };
            tokio::select! {
                () = self.heard.promoted.notified() => tokio::time::sleep_until(begun + GATHER).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn pass(&self, all: &[Arc<DynamicObject>], found: &mut Found) -> Result<Pass, Trouble> {
        Ok(Pass {
            rules: self.rules().await?,
            promotions: records(all),
            unguarded: self.unguarded(found).await?,
        })
    }

    /// Takes a turn of one. What is in the way of that is in its status, and is looked at again.
    async fn turn_of(&self, name: &str, pass: &Pass) {
        match Box::pin(self.take_turn(name, pass)).await {
            Ok(()) => {}
            Err(why) if why.passes() => {}
            Err(why) => {
                self.told.errors.inc();
                tracing::warn!(%why, name, "a promotion does not go on");
            }
        }
    }

    async fn take_turn(&self, named: &str, pass: &Pass) -> Result<(), Trouble> {
        let Some(object) = self.fresh(Kind::Promotion, named).await? else {
            return Ok(());
        };
        let promotion = Promotion::read(object)?;
        let api = self.api(Kind::Promotion);
        if !is_kept(&promotion.object) && !is_deleted(&promotion.object) {
            // It is heard of again.
            return Ok(keep(&api, &promotion.object, Kept::UntilDone).await?);
        }
        let copied = self.copy(&promotion, &pass.rules);
        if promotion.record.status.phase.is_final() {
            return self.finish_promotion(&promotion, copied).await;
        }
        match self.decide(&promotion, copied, pass).await {
            Err(why) if !why.passes() => {
                self.is_undecided(&promotion, copied, &pass.rules, &why.to_string())
                    .await
            }
            decided => decided,
        }
    }

    async fn decide(&self, promotion: &Promotion, copied: Copied, pass: &Pass) -> Result<(), Trouble> {
        let asked_for = &promotion.record;
        let (name, pipeline, stage) = pass.rules.way_of(asked_for)?;
        let fleet = Arc::new(self.fleet(&stage.environment)?);
        let way = Way {
            fleet: &fleet,
            name,
            pipeline,
            stage,
        };
        let upgrade = self.upgrade_of(promotion, &way).await?;
        let rehearsed = self.rehearsed(promotion, stage).await?;
        let looked_at = Timestamp::now();
        let decided = async |known: &Known, unguarded: Option<&str>| {
            let vouched = match unguarded {
                None => Vouched::Admitted,
                Some(_) => Vouched::Nobodys,
            };
            let facts = gather(&way, &self.home, known, asked_for, vouched).await?;
            let run = upgrade.as_ref().map(|(_, run)| run);
            let mut decision = way.decide(asked_for, &facts, rehearsed.as_ref(), run, looked_at);
            if self.is_begun(promotion, decision.effect.as_ref()) {
                decision.effect = None;
            }
            self.qualify(promotion, &mut decision, unguarded);
            Ok::<_, PromotionError>(decision)
        };
        let mut known = self.known(stage, Some(&promotion.upgrade()), pass);
        let mut decision = decided(&known, pass.unguarded.as_deref()).await?;
        if decision.status != asked_for.status || decision.effect.is_some() {
            // What was heard of builds may be older than the quarantine of a moment ago, or than the proof that staging has just given; and the
            // rules are of the beginning of this pass. It may go on by what was said, so it is asked now whether that was anybody's.
            known.past.builds = self.listed_builds().await?;
            let rules = self.rules().await?;
            if rules.way_of(asked_for).ok() != Some((name, pipeline, stage)) {
                return Ok(());
            }
            known.freezes = rules.usable.freezes;
            let unguarded = match decision.effect {
                Some(Effect::Upgrade) => self.unguarded(&mut Found::default()).await?,
                Some(Effect::Rehearse(_) | Effect::Pause(_) | Effect::GoOn(_)) | None => pass.unguarded.clone(),
            };
            decision = decided(&known, unguarded.as_deref()).await?;
        }
        let rehearsal = match &decision.effect {
            Some(Effect::Rehearse(rehearsal)) => Some(self.rehearsal_to_make(promotion, rehearsal, stage).await?),
            Some(Effect::Upgrade | Effect::Pause(_) | Effect::GoOn(_)) | None => None,
        };
        let told = decision.events.iter().map(|event| {
            let event = Event {
                message: self.in_cluster(&event.message).into_owned(),
                ..event.clone()
            };
            let act = way.act_of(asked_for, &decision, &event);
            (event, act)
        });
        self.write_promotion(promotion, &decision.status, told.collect(), copied, &pass.rules)
            .await?;
        // Who was stopped since looks again before anything is done.
        if Timestamp::now().duration_since(looked_at) > LONGEST_LOOK {
            return Ok(());
        }
        match (decision.effect, rehearsal) {
            (Some(Effect::Rehearse(named)), Some(spec)) => self.begin_rehearsal(promotion, &named, spec).await,
            (None | Some(Effect::Rehearse(_)), _) => Ok(()),
            (Some(Effect::Upgrade), _) => self.begin_upgrade_of(promotion, &way).await,
            (Some(Effect::Pause(_)), _) => self.wish_of(upgrade.as_ref(), Wish::Pause).await,
            (Some(Effect::GoOn(_)), _) => self.wish_of(upgrade.as_ref(), Wish::Proceed).await,
        }
    }

    /// What is to be said beside a decision. What was in the way of doing something stands until that is done; and what was said while nobody could
    /// tell who says what is remembered as that.
    fn qualify(&self, promotion: &Promotion, decision: &mut Decision, unguarded: Option<&str>) {
        let status = &mut decision.status;
        if decision.effect.is_some() {
            status.undecided.clone_from(&promotion.record.status.undecided);
        }
        if let Some(why) = unguarded.filter(|_| !status.phase.is_final()) {
            status.disbelieved.extend(promotion.record.spec.said());
            if status.phase == Phase::Waiting {
                status.undecided = Some(shortened(&self.in_cluster(why), LONGEST_MESSAGE));
            }
        }
    }

    /// Writes how far one is, where that is news, and what was copied leaves its status.
    async fn write_promotion(
        &self,
        promotion: &Promotion,
        status: &PromotionStatus,
        told: Vec<(Event, Option<Act>)>,
        copied: Copied,
        rules: &Rules,
    ) -> Result<(), Trouble> {
        let is_settled = promotion.book.pending.is_empty() || copied == Copied::Unknown;
        let mut status = status.clone();
        status.message = shortened(&self.in_cluster(&status.message), LONGEST_MESSAGE);
        for waiting in &mut status.waits_for {
            waiting.message = self.in_cluster(&waiting.message).into_owned();
        }
        if status == promotion.record.status && told.is_empty() && is_settled {
            return Ok(());
        }
        let events: Vec<Event> = told.iter().map(|(event, _)| event.clone()).collect();
        let whole = promotion.whole(&status, told, copied, Timestamp::now())?;
        let api = self.api(Kind::Promotion);
        let written = patiently(|| write_status(&api, &promotion.object, whole.clone())).await?;
        let written = Promotion::read(written)?;
        for event in &events {
            (self.tell)(&format!(
                "{}: {} {}",
                promotion.record.name, event.reason, event.message
            ));
            self.publish_promotion(&written.object, event).await;
        }
        // They are told now; that they were is found at the next look, and leaves the status with that.
        self.copy(&written, rules);
        Ok(())
    }

    /// Copies what one tells into the history. What cannot be copied now waits in its status.
    fn copy(&self, promotion: &Promotion, rules: &Rules) -> Copied {
        if promotion.book.pending.is_empty() {
            return Copied::All;
        }
        let (environment, component) = rules.place_of(&promotion.record);
        let fleet = match self.heard.environment(&environment) {
            // Nobody is to be told there any more.
            None => None,
            Some(_) => match self.fleet(&environment) {
                Ok(fleet) => Some(fleet),
                Err(_) if is_long_deleted(&promotion.object) => None,
                Err(why) => {
                    tracing::warn!(%why, promotion = promotion.record.name, "who is to be told cannot be read, and it waits for that");
                    return Copied::Unknown;
                }
            },
        };
        let history = History {
            home: self.home.clone(),
            sinks: fleet.as_ref().map(delivery::sinks).unwrap_or_default(),
        };
        match history.copy(&promotion.untold(&environment, &component)) {
            Ok(()) => Copied::All,
            Err(why) => {
                tracing::warn!(%why, promotion = promotion.record.name, "its events wait for their history");
                Copied::Unknown
            }
        }
    }

    /// What has ended has told everybody, and may be deleted.
    async fn finish_promotion(&self, promotion: &Promotion, copied: Copied) -> Result<(), Trouble> {
        let api = self.api(Kind::Promotion);
        match copied {
            Copied::All if !promotion.book.pending.is_empty() => {
                let whole = promotion.whole(&promotion.record.status, Vec::new(), copied, Timestamp::now())?;
                patiently(|| write_status(&api, &promotion.object, whole.clone())).await?;
                Ok(())
            }
            Copied::All if is_deleted(&promotion.object) && is_kept(&promotion.object) => {
                Ok(keep(&api, &promotion.object, Kept::NoMore).await?)
            }
            Copied::All | Copied::Unknown => Ok(()),
        }
    }

    /// What is in the way of deciding on one, in its status; what was decided before stands. One that is to end, and has nothing under way, ends all
    /// the same: what it would need to go on is nothing that its end needs.
    async fn is_undecided(
        &self,
        promotion: &Promotion,
        copied: Copied,
        rules: &Rules,
        why: &str,
    ) -> Result<(), Trouble> {
        let why = shortened(&self.in_cluster(why), LONGEST_MESSAGE);
        let before = &promotion.record.status;
        if let Some((phase, reason, message)) = self.end_of_taken_back(promotion, &why).await? {
            let now = Timestamp::now();
            let event = event(now, &format!("Promotion{phase:?}"), message.clone());
            let (named, build) = (&promotion.record.name, &promotion.record.spec.build);
            let (environment, _) = rules.place_of(&promotion.record);
            let act = act(
                &environment,
                named,
                ENGINE,
                &event.reason,
                &format!("{build}: {message}"),
                now,
            );
            let status = PromotionStatus {
                phase,
                reason,
                message,
                since: now,
                waits_for: Vec::new(),
                undecided: None,
                finished_at: Some(now),
                ..before.clone()
            };
            return self
                .write_promotion(promotion, &status, vec![(event, Some(act))], copied, rules)
                .await;
        }
        let status = PromotionStatus {
            undecided: Some(why),
            ..before.clone()
        };
        self.write_promotion(promotion, &status, Vec::new(), copied, rules)
            .await
    }

    /// How one ends that was taken back and cannot be decided on: as its upgrade, whatever way it was on, or without having had one. Not while that
    /// is under way, or cannot be read.
    async fn end_of_taken_back(
        &self,
        promotion: &Promotion,
        why: &str,
    ) -> Result<Option<(Phase, String, String)>, Trouble> {
        if !promotion.record.spec.cancel {
            return Ok(None);
        }
        let untold = format!("it could not be decided on, since {why}");
        let object = self.fresh(Kind::Upgrade, &promotion.upgrade()).await?;
        let upgrade = match object.map(Upgrade::read) {
            Some(Ok(upgrade)) if upgrade.spec.promotion.as_ref() == Some(&promotion.record.name) => {
                Some(upgrade.status)
            }
            Some(Err(_)) => return Ok(None),
            Some(Ok(_)) | None => None,
        };
        Ok(match upgrade {
            None => Some((
                Phase::Cancelled,
                "ByUser".to_owned(),
                format!("it was taken back; {untold}"),
            )),
            Some(status) if !status.phase.is_final() => None,
            Some(status) if status.phase == upgrade::Phase::Succeeded => Some((
                Phase::Succeeded,
                "Verified".to_owned(),
                format!("{}; {untold}", status.message),
            )),
            Some(status) => Some((
                Phase::Failed,
                format!("{:?}", status.phase),
                format!("{}; {untold}", status.message),
            )),
        })
    }

    /// As it was heard of last. Of the environment's upgrades one that has this name keeps nothing out.
    pub(super) fn known(&self, stage: &Stage, own: Option<&str>, pass: &Pass) -> Known {
        let environment = &stage.environment;
        let builds = self.heard.builds();
        let undone = self.heard.upgrades_of(environment, Which::Undone);
        let others = undone.iter().filter(|object| Some(name(object)) != own);
        let mut others = others.filter_map(|object| Upgrade::read((**object).clone()).ok());
        let busy = others.find(|upgrade| !upgrade.status.phase.is_final());
        Known {
            busy: busy.map(|upgrade| record(&upgrade, 1)),
            past: self.past(environment, readable_builds(builds.iter().map(|object| &**object))),
            promotions: pass.promotions.clone(),
            freezes: pass.rules.usable.freezes.clone(),
        }
    }

    async fn publish_promotion(&self, object: &DynamicObject, event: &Event) {
        let kind = match event.severity {
            Severity::Step => EventType::Normal,
            Severity::Alert => EventType::Warning,
        };
        self.publish(object, Kind::Promotion, kind, &event.reason, &event.message)
            .await;
    }
}

/// As what each is; what cannot be read is said so when its turn is taken.
pub(super) fn records(promotions: &[Arc<DynamicObject>]) -> Vec<PromotionRecord> {
    let read = promotions
        .iter()
        .filter_map(|object| Promotion::read((**object).clone()).ok());
    read.map(|promotion| promotion.record).collect()
}

/// Whether its end was asked for so long ago that nothing is waited for any more that may never be.
fn is_long_deleted(object: &DynamicObject) -> bool {
    let deleted = object.metadata.deletion_timestamp.as_ref();
    deleted.is_some_and(|at| Timestamp::now().duration_since(at.0) > LONGEST_END)
}

/// Whether nothing is left to do for one.
fn is_done(object: &DynamicObject) -> bool {
    let status = &object.data["status"];
    let phase: Option<Phase> = status["phase"]
        .as_str()
        .and_then(|phase| serde_json::from_value(phase.into()).ok());
    let has_untold = status["pending"].as_array().is_some_and(|pending| !pending.is_empty());
    phase.is_some_and(Phase::is_final) && !has_untold && !is_deleted(object)
}

impl From<PromotionError> for Trouble {
    fn from(why: PromotionError) -> Self {
        Trouble::Undecided(why.to_string())
    }
}

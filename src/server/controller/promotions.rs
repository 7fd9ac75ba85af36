//! Promotions of a namespace: each is looked at when something has changed that it may wait for, decided as in any other home, and what was
//! decided is done once it is in its status. A decision is of what the API server itself has, since a build that has just failed, or a
//! freeze of a moment ago, is what it is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use super::bring_up::readable_builds;
use super::heard::Which;
use super::leader::{Leader, Trouble};
use super::statuses::{LONGEST_MESSAGE, condition, shortened, status_of};
use crate::cluster::ledger::record;
use crate::cluster::objects::{
    self, ApiError, Kept, Kind, MANAGER, Upgrade, asked, generation, is_deleted, is_kept, keep, name, part, patiently,
    set_condition, write_status,
};
use crate::cluster::promotions::Promotion;
use crate::cluster::rehearsals::{Rehearsal, owned_by};
use crate::engine::delivery;
use crate::engine::promotion::facts::gather;
use crate::engine::promotion::{Known, LONGEST_LOOK, PromotionError, PromotionRecord, Vouched, Way, way_of};
use crate::model::freeze::FreezeSpec;
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::model::promotion::{Phase, PromotionStatus};
use crate::model::rehearsal::RehearsalPhase;
use crate::model::upgrade::{Event, Severity, UpgradeSpec, Wish};
use crate::promotion::{Effect, RehearsalRun, RunState};
use crate::store::UpgradeRecord;
use crate::store::build::ConditionStatus;
use crate::workspace::PromotionRules;

/// What nobody tells of, as files, keys and the time of day, is looked at this often where a promotion is open.
const TURN_EVERY: Duration = Duration::from_secs(5);
/// What enters by itself is looked for this often, and whether pipelines can be used.
const ROUND_EVERY: Duration = Duration::from_secs(15);
/// News that come together are looked at together.
const GATHER: Duration = Duration::from_millis(200);

impl Leader {
    /// Sees to promotions for as long as it is asked to.
    pub(super) async fn promote(&self) {
        let mut round_at = tokio::time::Instant::now();
        loop {
            let mut is_any_open = self.rehearse().await;
            for object in self.heard.promotions().iter().filter(|object| !is_done(object)) {
                is_any_open = true;
                self.turn_of(name(object)).await;
            }
            if tokio::time::Instant::now() >= round_at {
                round_at = tokio::time::Instant::now() + ROUND_EVERY;
                if let Err(why) = self.go_round_pipelines().await {
                    tracing::warn!(%why, "pipelines are looked at again");
                }
            }
            let wait = if is_any_open { TURN_EVERY } else { ROUND_EVERY };
            tokio::select! {
                () = self.heard.promoted.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes a turn of one. What is in the way of that is in its status, and is looked at again.
    async fn turn_of(&self, name: &str) {
        let Err(why) = Box::pin(self.take_turn(name)).await else {
            return;
        };
        self.told.errors.inc();
        let told = match &why {
            // Another was quicker, or it is tried again in a moment.
            Trouble::Api(api) if api.is_conflict() || api.is_gone() || api.is_passing() => Ok(()),
            why => self.tell_undecided(name, &why.to_string()).await,
        };
        if let Err(why) = told {
            tracing::warn!(%why, name, "it is not said why a promotion does not go on");
        }
    }

    async fn take_turn(&self, named: &str) -> Result<(), Trouble> {
        let Some(object) = self.fresh(Kind::Promotion, named).await? else {
            return Ok(());
        };
        let promotion = Promotion::read(object)?;
        let api = self.api(Kind::Promotion);
        if !is_kept(&promotion.object) && !is_deleted(&promotion.object) {
            // It is heard of again.
            return Ok(keep(&api, &promotion.object, Kept::UntilDone).await?);
        }
        let rules = self.promotion_rules().await?;
        let way = way_of(&rules, &promotion.record);
        if promotion.record.status.phase.is_final() {
            return self
                .finish_promotion(
                    &promotion,
                    way.ok()
                        .map(|(_, pipeline, stage)| (pipeline, stage.environment.as_str())),
                )
                .await;
        }
        let (name, pipeline, stage) = way?;
        let fleet = Arc::new(self.fleet(&stage.environment)?);
        let way = Way {
            fleet: &fleet,
            name,
            pipeline,
            stage,
        };
        let upgrade = self.upgrade_of(&promotion).await?;
        let asked_for = &promotion.record;
        let rehearsed = self.rehearsed(&promotion, stage).await?;
        let looked_at = Timestamp::now();
        let run = upgrade.as_ref().map(|(_, run)| run);
        let decided = async |known: &Known| {
            let facts = gather(&way, &self.home, known, asked_for, Vouched::Admitted).await?;
            Ok::<_, PromotionError>(way.decide(asked_for, &facts, rehearsed.as_ref(), run, looked_at))
        };
        let mut known = self.known(&way, &promotion, &rules);
        let mut decision = decided(&known).await?;
        if decision.status != asked_for.status || decision.effect.is_some() {
            // What was heard of builds may be older than the quarantine of a moment ago, or than the proof that staging has just given.
            known.past.builds = self.listed_builds().await?;
            decision = decided(&known).await?;
        }
        if decision.status != asked_for.status {
            let mut status = decision.status.clone();
            status.message = shortened(&self.in_cluster(&status.message), LONGEST_MESSAGE);
            let told = decision.events.iter().map(|event| {
                let event = Event {
                    message: self.in_cluster(&event.message).into_owned(),
                    ..event.clone()
                };
                let act = way.act_of(asked_for, &decision, &event);
                (event, act)
            });
            let whole = promotion.whole(&status, told.collect())?;
            let written = patiently(|| write_status(&api, &promotion.object, whole.clone())).await?;
            let written = Promotion::read(written)?;
            for event in &decision.events {
                (self.tell)(&format!("{named}: {} {}", event.reason, event.message));
                self.publish_promotion(&written.object, event).await;
            }
            // What cannot be copied now waits in its status.
            if let Err(why) = written.copy(
                &self.home,
                &stage.environment,
                &pipeline.component,
                &delivery::sinks(&fleet),
            ) {
                tracing::warn!(%why, named, "its events wait for their history");
            }
        }
        // Who was stopped since looks again before anything is done.
        if Timestamp::now().duration_since(looked_at) > LONGEST_LOOK {
            return Ok(());
        }
        match decision.effect {
            None => Ok(()),
            Some(Effect::Rehearse(rehearsal)) => self.begin_rehearsal(&promotion, &rehearsal, &way).await,
            Some(Effect::Upgrade) => self.begin_upgrade_of(&promotion, &way).await,
            Some(Effect::Pause(_)) => self.wish_of(upgrade.as_ref(), Wish::Pause).await,
            Some(Effect::GoOn(_)) => self.wish_of(upgrade.as_ref(), Wish::Proceed).await,
        }
    }

    /// What has ended has told everybody, and may be deleted.
    async fn finish_promotion(&self, promotion: &Promotion, way: Option<(&PipelineSpec, &str)>) -> Result<(), Trouble> {
        let api = self.api(Kind::Promotion);
        if !promotion.book.pending.is_empty() {
            if let Some((pipeline, environment)) = way {
                let fleet = self
                    .heard
                    .environment(environment)
                    .map(|_| self.fleet(environment))
                    .transpose()?;
                let sinks = fleet.as_ref().map(delivery::sinks).unwrap_or_default();
                promotion.copy(&self.home, environment, &pipeline.component, &sinks)?;
            }
            let mut settled = promotion.clone();
            settled.book.pending.clear();
            let whole = settled.whole(&promotion.record.status, Vec::new())?;
            write_status(&api, &promotion.object, whole).await?;
            return Ok(());
        }
        if is_deleted(&promotion.object) && is_kept(&promotion.object) {
            keep(&api, &promotion.object, Kept::NoMore).await?;
        }
        Ok(())
    }

    /// Pipelines and freezes as they are now; those that cannot be read are passed over, and said so in their status.
    pub(super) async fn promotion_rules(&self) -> Result<PromotionRules, ApiError> {
        let mut rules = PromotionRules::default();
        for object in self.listed(Kind::Pipeline).await? {
            if let Ok(spec) = part::<PipelineSpec>(&object, "spec") {
                rules.pipelines.insert(name(&object).to_owned(), spec);
            }
        }
        rules.freezes = self.freezes().await?;
        Ok(rules)
    }

    /// Freezes as they are now. One that cannot be read holds everything: nobody knows what it was to hold.
    pub(super) async fn freezes(&self) -> Result<BTreeMap<String, FreezeSpec>, ApiError> {
        let all = self.listed(Kind::Freeze).await?;
        let freezes = all
            .iter()
            .map(|object| Ok((name(object).to_owned(), part(object, "spec")?)));
        freezes.collect()
    }

    async fn listed(&self, kind: Kind) -> Result<Vec<DynamicObject>, ApiError> {
        let (api, all) = (self.api(kind), ListParams::default());
        let listed = patiently(|| asked("list", "objects", api.list(&all))).await?;
        Ok(listed.items)
    }

    /// As it was heard of last.
    fn known(&self, way: &Way<'_>, promotion: &Promotion, rules: &PromotionRules) -> Known {
        let environment = &way.stage.environment;
        let builds = self.heard.builds();
        let past = self.past(environment, readable_builds(builds.iter().map(|object| &**object)));
        let own = promotion.upgrade();
        let undone = self.heard.upgrades_of(environment, Which::Undone);
        let others = undone.iter().filter(|object| name(object) != own);
        let mut others = others.filter_map(|object| Upgrade::read((**object).clone()).ok());
        let busy = others.find(|upgrade| !upgrade.status.phase.is_final());
        let promotions = self.heard.promotions();
        let promotions = promotions
            .iter()
            .filter_map(|object| Promotion::read((**object).clone()).ok());
        Known {
            busy: busy.map(|upgrade| record(&upgrade, 1)),
            past,
            promotions: promotions
                .map(|promotion| promotion.record)
                .collect::<Vec<PromotionRecord>>(),
            freezes: rules.freezes.clone(),
        }
    }

    /// Its upgrade, once there is one.
    async fn upgrade_of(&self, promotion: &Promotion) -> Result<Option<(Upgrade, UpgradeRecord)>, Trouble> {
        let Some(object) = self.fresh(Kind::Upgrade, &promotion.upgrade()).await? else {
            return Ok(None);
        };
        let upgrade = Upgrade::read(object)?;
        let record = UpgradeRecord {
            name: promotion.upgrade(),
            ..record(&upgrade, 1)
        };
        Ok(Some((upgrade, record)))
    }

    async fn begin_upgrade_of(&self, promotion: &Promotion, way: &Way<'_>) -> Result<(), Trouble> {
        let (asked_for, named) = (&promotion.record, promotion.upgrade());
        let spec = UpgradeSpec {
            environment: way.stage.environment.clone(),
            component: way.pipeline.component.clone(),
            build: asked_for.spec.build.clone(),
            user: asked_for.spec.user.clone(),
            promotion: Some(asked_for.name.clone()),
            wish: Wish::Proceed,
        };
        self.make(Kind::Upgrade, &named, json!(spec), None).await
    }

    /// The rehearsal that is carried out for it, or was last.
    async fn rehearsed(&self, promotion: &Promotion, stage: &Stage) -> Result<Option<RehearsalRun>, Trouble> {
        if promotion.record.status.phase != Phase::Rehearsing {
            return Ok(None);
        }
        let passed = &promotion.record.status.rehearsed;
        let open = stage
            .rehearsals
            .iter()
            .find(|rehearsal| passed.iter().all(|passed| passed.rehearsal != **rehearsal));
        let Some(rehearsal) = open else { return Ok(None) };
        let Some(object) = self
            .fresh(Kind::Rehearsal, &rehearsal_for(promotion, rehearsal))
            .await?
        else {
            return Ok(None);
        };
        let status = Rehearsal::read(object)?.status;
        Ok(Some(RehearsalRun {
            rehearsal: rehearsal.clone(),
            state: match status.phase {
                RehearsalPhase::Pending | RehearsalPhase::Template | RehearsalPhase::Running => RunState::Running,
                RehearsalPhase::Passed => RunState::Passed,
                RehearsalPhase::Failed => RunState::Failed(status.message),
            },
        }))
    }

    /// Makes a rehearsal of its own, of the one that its stage names.
    async fn begin_rehearsal(&self, promotion: &Promotion, rehearsal: &str, way: &Way<'_>) -> Result<(), Trouble> {
        let named = rehearsal_for(promotion, rehearsal);
        let heard = self.heard.rehearsals();
        if heard.iter().any(|object| name(object) == named) {
            return Ok(());
        }
        let Some(object) = self.fresh(Kind::Rehearsal, rehearsal).await? else {
            return Err(Trouble::Undecided(format!(
                "stage {} asks for rehearsal {rehearsal}, and there is no Rehearsal of that name in namespace {}",
                way.stage.name, self.namespace
            )));
        };
        let build = &promotion.record.spec.build;
        let builds = self.listed_builds().await?;
        let gone = || Trouble::Undecided(format!("there is no Build {build} any more"));
        let version = &builds.get(build).ok_or_else(gone)?.spec.version;
        let spec = Rehearsal::read(object)?.spec.of_candidate(version);
        let owner = owned_by(Kind::Promotion, &promotion.object);
        self.make(Kind::Rehearsal, &named, json!(spec), Some(owner)).await
    }

    /// Makes an object; one that is there already is it.
    pub(super) async fn make(
        &self,
        kind: Kind,
        named: &str,
        spec: Value,
        owner: Option<OwnerReference>,
    ) -> Result<(), Trouble> {
        let object = DynamicObject {
            metadata: ObjectMeta {
                name: Some(named.to_owned()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            ..DynamicObject::new(named, &kind.resource()).data(json!({"spec": spec}))
        };
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let (api, what) = (self.api(kind), format!("{kind:?} {named}"));
        match patiently(|| asked("make", &what, api.create(&parameters, &object))).await {
            Err(why) if why.is_conflict() => Ok(()),
            made => Ok(made.map(|_| ())?),
        }
    }

    /// Says what is wanted of its upgrade, unless somebody else has said something since.
    async fn wish_of(&self, upgrade: Option<&(Upgrade, UpgradeRecord)>, wanted: Wish) -> Result<(), Trouble> {
        let Some((upgrade, _)) = upgrade else { return Ok(()) };
        // What is asked is asked already: that it is asked again shows by a change.
        let again = wanted == Wish::Proceed && upgrade.spec.wish == Wish::Proceed;
        let wanted = if again { Wish::Pause } else { wanted };
        let patch = json!({
            "metadata": {"resourceVersion": upgrade.object.metadata.resource_version},
            "spec": {"wish": wanted},
        });
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (api, what, patch) = (
            self.api(Kind::Upgrade),
            objects::named(&upgrade.object),
            Patch::Merge(&patch),
        );
        asked(
            "say so to",
            &what,
            api.patch(name(&upgrade.object), &parameters, &patch),
        )
        .await?;
        Ok(())
    }

    async fn publish_promotion(&self, object: &DynamicObject, event: &Event) {
        let kind = match event.severity {
            Severity::Step => EventType::Normal,
            Severity::Alert => EventType::Warning,
        };
        self.publish(object, Kind::Promotion, kind, &event.reason, &event.message)
            .await;
    }

    /// Why nothing could be decided, in its status; what was decided before stands.
    async fn tell_undecided(&self, named: &str, why: &str) -> Result<(), Trouble> {
        let Some(object) = self.fresh(Kind::Promotion, named).await? else {
            return Ok(());
        };
        let promotion = Promotion::read(object)?;
        let before = &promotion.record.status;
        let status = PromotionStatus {
            reason: "NotDecided".to_owned(),
            message: shortened(&self.in_cluster(why), LONGEST_MESSAGE),
            ..before.clone()
        };
        if before.phase.is_final() || status == *before {
            return Ok(());
        }
        let whole = promotion.whole(&status, Vec::new())?;
        write_status(&self.api(Kind::Promotion), &promotion.object, whole).await?;
        Ok(())
    }

    /// Whether each pipeline can be used is said of it, and what enters its stages by itself is asked for.
    async fn go_round_pipelines(&self) -> Result<(), Trouble> {
        let freezes = self.freezes().await?;
        for object in self.listed(Kind::Pipeline).await? {
            let spec: Result<PipelineSpec, ApiError> = part(&object, "spec");
            self.tell_pipeline(&object, spec.as_ref()).await?;
            let Ok(pipeline) = spec else { continue };
            for stage in &pipeline.stages {
                let Ok(fleet) = self.fleet(&stage.environment) else {
                    continue;
                };
                let fleet = Arc::new(fleet);
                let way = Way {
                    fleet: &fleet,
                    name: name(&object),
                    pipeline: &pipeline,
                    stage,
                };
                self.ask_for_what_enters(&way, &freezes).await?;
            }
        }
        Ok(())
    }

    async fn ask_for_what_enters(&self, way: &Way<'_>, freezes: &BTreeMap<String, FreezeSpec>) -> Result<(), Trouble> {
        let builds = self.heard.builds();
        let promotions = self.heard.promotions();
        let promotions = promotions
            .iter()
            .filter_map(|object| Promotion::read((**object).clone()).ok());
        let known = Known {
            past: self.past(&way.stage.environment, readable_builds(builds.iter().map(|o| &**o))),
            promotions: promotions.map(|promotion| promotion.record).collect(),
            freezes: freezes.clone(),
            busy: None,
        };
        for build in way.entering_by_itself(&known) {
            // Two who lead ask for one.
            let named = format!("{build}-{}", way.stage.name);
            let spec = way.by_itself(build, MANAGER.to_owned());
            self.make(Kind::Promotion, &named, json!(spec), None).await?;
        }
        Ok(())
    }

    async fn tell_pipeline(
        &self,
        object: &DynamicObject,
        spec: Result<&PipelineSpec, &ApiError>,
    ) -> Result<(), Trouble> {
        let wrong = match spec {
            Ok(spec) => spec.findings().into_iter().map(|finding| finding.message).collect(),
            Err(why) => vec![why.to_string()],
        };
        let ready = if wrong.is_empty() {
            condition("Ready", ConditionStatus::True, "Usable", "its stages take builds")
        } else {
            let why = shortened(&wrong.join("; "), LONGEST_MESSAGE);
            condition("Ready", ConditionStatus::False, "Invalid", &why)
        };
        let mut status = status_of(object);
        let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
        set_condition(&mut all, generation(object), ready);
        status["conditions"] = json!(all);
        status["observedGeneration"] = json!(generation(object));
        if status != status_of(object) {
            write_status(&self.api(Kind::Pipeline), object, status).await?;
        }
        Ok(())
    }
}

/// The name of a rehearsal that is carried out for a promotion.
fn rehearsal_for(promotion: &Promotion, rehearsal: &str) -> String {
    format!("{}-{rehearsal}", promotion.upgrade())
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

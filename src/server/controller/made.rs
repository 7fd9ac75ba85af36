//! What a promotion makes: its upgrade, and rehearsals of its own. Each is found again by its name, and believed only where it is what was
//! made ([`crate::cluster::belonging`]).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::leader::{Leader, Trouble};
use crate::cluster::belonging::{Whose, owned_by, rehearsal_of_promotion, upgrade_of_promotion};
use crate::cluster::ledger::record;
use crate::cluster::objects::{self, Kind, MANAGER, Upgrade, asked, name, part, patiently};
use crate::cluster::promotions::Promotion;
use crate::cluster::rehearsals::Rehearsal;
use crate::engine::promotion::Way;
use crate::model::build::BuildSpec;
use crate::model::pipeline::Stage;
use crate::model::promotion::Phase;
use crate::model::rehearsal::{RehearsalPhase, RehearsalSpec};
use crate::model::upgrade::{UpgradeSpec, Wish};
use crate::promotion::{Effect, RehearsalRun, RunState};
use crate::store::UpgradeRecord;

impl Leader {
    /// Whether what is to be done is done already: a rehearsal is asked for as long as it goes on.
    pub(super) fn is_begun(&self, promotion: &Promotion, effect: Option<&Effect>) -> bool {
        match effect {
            Some(Effect::Rehearse(rehearsal)) => {
                let named = rehearsal_for(promotion, rehearsal);
                self.heard.rehearsals().iter().any(|object| name(object) == named)
            }
            Some(Effect::Upgrade | Effect::Pause(_) | Effect::GoOn(_)) | None => false,
        }
    }

    /// Its upgrade, once there is one.
    pub(super) async fn upgrade_of(
        &self,
        promotion: &Promotion,
        way: &Way<'_>,
    ) -> Result<Option<(Upgrade, UpgradeRecord)>, Trouble> {
        let Some(object) = self.fresh(Kind::Upgrade, &promotion.upgrade()).await? else {
            return Ok(None);
        };
        let upgrade = Upgrade::read(object)?;
        if let Whose::Anothers(why) = upgrade_of_promotion(promotion, way.pipeline, way.stage, &upgrade) {
            return Err(Trouble::Undecided(why));
        }
        let record = UpgradeRecord {
            name: promotion.upgrade(),
            ..record(&upgrade, 1)
        };
        Ok(Some((upgrade, record)))
    }

    pub(super) async fn begin_upgrade_of(&self, promotion: &Promotion, way: &Way<'_>) -> Result<(), Trouble> {
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
    pub(super) async fn rehearsed(
        &self,
        promotion: &Promotion,
        stage: &Stage,
    ) -> Result<Option<RehearsalRun>, Trouble> {
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
        let made = Rehearsal::read(object)?;
        let wanted = self.rehearsal_of_candidate(promotion, rehearsal, stage).await?;
        if let Whose::Anothers(why) = rehearsal_of_promotion(promotion, &wanted, &made) {
            return Err(Trouble::Undecided(why));
        }
        let status = made.status;
        Ok(Some(RehearsalRun {
            rehearsal: rehearsal.clone(),
            state: match status.phase {
                RehearsalPhase::Pending | RehearsalPhase::Template | RehearsalPhase::Running => RunState::Running,
                RehearsalPhase::Passed => RunState::Passed,
                RehearsalPhase::Failed => RunState::Failed(status.message),
            },
        }))
    }

    /// The rehearsal that a stage names, as it is stated now, of a promotion's build.
    async fn rehearsal_of_candidate(
        &self,
        promotion: &Promotion,
        rehearsal: &str,
        stage: &Stage,
    ) -> Result<RehearsalSpec, Trouble> {
        let Some(object) = self.fresh(Kind::Rehearsal, rehearsal).await? else {
            return Err(Trouble::Undecided(format!(
                "stage {} asks for rehearsal {rehearsal}, and there is no Rehearsal of that name in namespace {}",
                stage.name, self.namespace
            )));
        };
        let build = &promotion.record.spec.build;
        let Some(known) = self.fresh(Kind::Build, build).await? else {
            return Err(Trouble::Undecided(format!("there is no Build {build} any more")));
        };
        let BuildSpec { version, .. } = part(&known, "spec")?;
        Ok(Rehearsal::read(object)?.spec.of_candidate(&version))
    }

    /// What is to be made of the rehearsal that its stage names. That it can be carried out is known before anything is written of it.
    pub(super) async fn rehearsal_to_make(
        &self,
        promotion: &Promotion,
        rehearsal: &str,
        stage: &Stage,
    ) -> Result<RehearsalSpec, Trouble> {
        let spec = self.rehearsal_of_candidate(promotion, rehearsal, stage).await?;
        match self.wrong_rehearsal(&spec)? {
            None => Ok(spec),
            Some(wrong) => Err(Trouble::Undecided(format!(
                "rehearsal {rehearsal} cannot be carried out: {wrong}"
            ))),
        }
    }

    /// Makes a rehearsal of its own.
    pub(super) async fn begin_rehearsal(
        &self,
        promotion: &Promotion,
        rehearsal: &str,
        spec: RehearsalSpec,
    ) -> Result<(), Trouble> {
        let owner = owned_by(Kind::Promotion, &promotion.object);
        let named = rehearsal_for(promotion, rehearsal);
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
    pub(super) async fn wish_of(
        &self,
        upgrade: Option<&(Upgrade, UpgradeRecord)>,
        wanted: Wish,
    ) -> Result<(), Trouble> {
        let Some((upgrade, _)) = upgrade else { return Ok(()) };
        self.say_to(upgrade, wanted).await
    }

    /// Says what is wanted of an upgrade as it was read.
    pub(super) async fn say_to(&self, upgrade: &Upgrade, wanted: Wish) -> Result<(), Trouble> {
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
}

/// The name of a rehearsal that is carried out for a promotion.
fn rehearsal_for(promotion: &Promotion, rehearsal: &str) -> String {
    format!("{}-{rehearsal}", promotion.upgrade())
}

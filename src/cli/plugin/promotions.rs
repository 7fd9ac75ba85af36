//! Promotions and freezes of a cluster: what somebody asks or says is written into objects, under the name by which the API server knows
//! who asks; a controller decides.

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::words::make;
use super::{Ground, NAME, PluginError};
use crate::cli::printer::Printer;
use crate::cli::{Exit, freeze, promote as shown};
use crate::cluster::objects::{ATTEMPTS, Kind, asked, name, part, patiently};
use crate::cluster::promotions::Promotion;
use crate::cluster::rules::Rules;
use crate::engine::promotion::{PromotionError, way};
use crate::model::approval::{Admitted, Verb, Word};
use crate::model::build::BuildSpec;
use crate::model::promotion::PromotionSpec;
use crate::store::fresh_upgrade_name;

#[derive(Debug, Args)]
pub(super) struct PromoteArguments {
    /// The build: its name, COMPONENT-VERSION
    #[arg(value_name = "BUILD")]
    build: String,
    /// The environment that it is to enter
    #[arg(long, value_name = "ENV", value_parser = crate::cli::ground::environment_name)]
    to: String,
}

#[derive(Debug, Args)]
pub(super) struct SayArguments {
    /// The promotion
    #[arg(value_name = "PROMOTION")]
    promotion: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Who asks, as the API server knows them.
struct Me {
    user: String,
    groups: Vec<String>,
}

async fn me(ground: &Ground) -> anyhow::Result<Me> {
    let api: Api<SelfSubjectReview> = Api::all(ground.client.clone());
    let (parameters, review) = (PostParams::default(), SelfSubjectReview::default());
    let reviewed = patiently(|| asked("ask who we are", "the API server", api.create(&parameters, &review))).await?;
    let info = reviewed.status.and_then(|status| status.user_info).unwrap_or_default();
    Ok(Me {
        user: info.username.unwrap_or_default(),
        groups: info.groups.unwrap_or_default(),
    })
}

async fn rules(ground: &Ground) -> anyhow::Result<Rules> {
    let (api, all) = (
        Kind::Pipeline.api(&ground.client, &ground.namespace),
        ListParams::default(),
    );
    let listed = patiently(|| asked("list", "Pipelines", api.list(&all))).await?;
    Ok(Rules::of(&listed.items, &[]))
}

pub(super) async fn promote(ground: &Ground, arguments: &PromoteArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let PromoteArguments { build, to } = arguments;
    let what = format!("Build {build}");
    let builds = Kind::Build.api(&ground.client, &ground.namespace);
    let object = patiently(|| asked("read", &what, builds.get(build))).await?;
    let spec: BuildSpec = part(&object, "spec")?;
    let rules = rules(ground).await?;
    let (pipeline, _, stage) = match (
        way(&rules.usable, &spec.component, to),
        rules.wrong_pipelines.iter().next(),
    ) {
        (Ok(way), _) => way,
        // It may have been that one.
        (Err(PromotionError::NoWay { .. }), Some((pipeline, wrong))) => {
            return Err(PromotionError::WrongPipeline {
                pipeline: pipeline.clone(),
                wrong: wrong.clone(),
            }
            .into());
        }
        (Err(why), _) => return Err(why.into()),
    };
    let asks = PromotionSpec {
        pipeline: pipeline.to_owned(),
        stage: stage.name.clone(),
        build: build.clone(),
        user: me(ground).await?.user,
        automatic: false,
        cancel: false,
        words: Vec::new(),
    };
    let named = make(ground, Kind::Promotion, &fresh_upgrade_name(build), json!(asks)).await?;
    printer.note(&format!(
        "{named} is the controller's now; `kubectl get promotion {named} -n {} -w` shows it",
        ground.namespace
    ));
    show(ground, &named, printer).await?;
    Ok(Exit::Done)
}

/// Says something of a promotion, of what its controller has found of it last.
pub(super) async fn say(
    ground: &Ground,
    verb: Verb,
    arguments: &SayArguments,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let SayArguments { promotion, reason } = arguments;
    let (me, rules) = (me(ground).await?, rules(ground).await?);
    let patched = change(ground, promotion, &|now| {
        let spec = &now.record.spec;
        let bound = now.record.status.bound.ok_or_else(|| {
            PluginError::Undecided(format!(
                "{promotion} was not looked at yet by a controller; the same command again in a moment"
            ))
        })?;
        let pipeline = rules.usable.pipelines.get(&spec.pipeline);
        let stage = pipeline.and_then(|pipeline| pipeline.stage(&spec.stage));
        let stage = stage.ok_or_else(|| {
            PluginError::Undecided(format!(
                "there is no stage {} of a Pipeline {} any more",
                spec.stage, spec.pipeline
            ))
        })?;
        let stated = pipeline.into_iter().flat_map(|pipeline| pipeline.roles.values());
        let by: BTreeSet<&String> = stated.flat_map(|role| &role.groups).collect();
        let word = Word {
            promotion: promotion.clone(),
            decision: verb,
            environment: stage.environment.clone(),
            build: spec.build.clone(),
            bound,
            at: Timestamp::now(),
            reason: reason.clone(),
            until: None,
        };
        let said = Admitted {
            word,
            user: me.user.clone(),
            groups: me.groups.iter().filter(|group| by.contains(group)).cloned().collect(),
        };
        // What was said stays as it was written, by whatever program.
        let mut words = now.object.data["spec"]["words"].as_array().cloned().unwrap_or_default();
        words.push(json!(said));
        Ok(json!({"words": words}))
    })
    .await?;
    printer.note(&format!("{} says {verb} of {}", me.user, name(&patched)));
    show(ground, promotion, printer).await?;
    Ok(Exit::Done)
}

pub(super) async fn cancel(ground: &Ground, promotion: &str, printer: &Printer) -> anyhow::Result<Exit> {
    change(ground, promotion, &|_| Ok(json!({"cancel": true}))).await?;
    show(ground, promotion, printer).await?;
    Ok(Exit::Done)
}

/// Changes what is asked, decided from what it is at that moment.
async fn change(
    ground: &Ground,
    promotion: &str,
    decide: &dyn Fn(&Promotion) -> Result<serde_json::Value, PluginError>,
) -> anyhow::Result<DynamicObject> {
    let api = Kind::Promotion.api(&ground.client, &ground.namespace);
    let what = format!("Promotion {promotion}");
    let parameters = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    for _ in 0..ATTEMPTS {
        let now = Promotion::read(patiently(|| asked("read", &what, api.get(promotion))).await?)?;
        if now.record.status.phase.is_final() {
            let phase = now.record.status.phase;
            return Err(PluginError::Undecided(format!("{promotion} has ended ({phase:?})")).into());
        }
        let metadata = &now.object.metadata;
        let patch = json!({
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "spec": decide(&now)?,
        });
        let patch = Patch::Merge(&patch);
        match patiently(|| asked("say so to", &what, api.patch(promotion, &parameters, &patch))).await {
            Err(why) if why.is_conflict() => {}
            written => return Ok(written?),
        }
    }
    Err(PluginError::Contended(what).into())
}

async fn show(ground: &Ground, promotion: &str, printer: &Printer) -> anyhow::Result<()> {
    let api = Kind::Promotion.api(&ground.client, &ground.namespace);
    let what = format!("Promotion {promotion}");
    let now = Promotion::read(patiently(|| asked("read", &what, api.get(promotion))).await?)?;
    shown::show(&now.record, printer)
}

pub(super) async fn freeze(ground: &Ground, arguments: freeze::Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let spec = freeze::stated(arguments, me(ground).await?.user, Timestamp::now())?;
    let named = make(ground, Kind::Freeze, &fresh_upgrade_name("freeze"), json!(spec)).await?;
    printer.line(&format!("{named} holds {}", spec.environments.join(", ")))?;
    Ok(Exit::Done)
}

pub(super) async fn unfreeze(ground: &Ground, freeze: &str, printer: &Printer) -> anyhow::Result<Exit> {
    let api = Kind::Freeze.api(&ground.client, &ground.namespace);
    let (what, parameters) = (format!("Freeze {freeze}"), DeleteParams::default());
    asked("delete", &what, api.delete(freeze, &parameters)).await?;
    printer.line(&format!("{freeze} holds nothing any more"))?;
    Ok(Exit::Done)
}

//! An Environment brought up again: asked of its controller by an annotation, and its answer waited for. What has changed and is in no
//! object of ours, as templates, is applied by that alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::words::Silence;
use super::{Ground, LOOK_EVERY, NAME, PluginError, named, there_is_no};
use crate::cli::printer::Printer;
use crate::cli::{Exit, ground};
use crate::cluster::objects::{self, Kind, RECONCILE_AT, asked, patiently};
use crate::cluster::snapshot::Scope;
use crate::cluster::templates;
use crate::engine::interrupt::Interrupt;
use crate::model::text::API_VERSION;
use crate::model::values::{self, Digest};
use crate::report::in_one_line;

/// A kubelet brings a changed `ConfigMap` within its sync period and the time that it caches it for, of a minute each; and then the
/// controller copies it within seconds.
const TEMPLATES_COME: Duration = Duration::from_mins(3);
/// Between two bringings up while they are awaited. The same again changes nothing.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(10);
/// The condition of an Environment whose time is over.
const EXPIRED: &str = "Expired";

/// How long a command waits for an Environment.
#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// Stop waiting when it is not up by then, as 30m (exit 124); it is brought up all the same
    #[arg(long, value_name = "DURATION")]
    timeout: Option<values::Duration>,
    /// Return at once
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

/// What a controller has said.
struct Answer {
    ready: Value,
    templates: Option<String>,
}

/// Asks for it and waits.
pub(super) async fn up(
    ground: &Ground,
    environment: &str,
    waiting: &Waiting,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let before = ask(ground, environment).await?;
    if waiting.no_wait {
        printer.note(&format!("{environment} is brought up by its controller"));
        return Ok(Exit::Done);
    }
    let snapshot = ground.look(Scope::Environment(environment), printer).await?;
    if let Some(open) = snapshot
        .open_in(environment)
        .filter(|open| open.status.started_at.is_some())
    {
        printer.note(&format!(
            "its nodes are upgrade {}'s until that has ended; {environment} is brought up after it",
            named(open)
        ));
    }
    let wanted = wanted_templates(ground, printer).await;
    let stays = Stays {
        ground,
        environment,
        interrupt: ground::interrupt(printer)?,
        end: waiting.timeout.map(|limit| begun + limit.0),
        printer,
    };
    let mut said = ready(&before);
    let (mut is_told, mut last_asked) = (false, Instant::now());
    loop {
        let answer = match stays.answer(&mut said).await? {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        let has_them = wanted
            .as_ref()
            .is_none_or(|wanted| answer.templates.as_deref() == Some(wanted.to_string().as_str()));
        if has_them || answer.ready["status"] != "True" {
            return shown(environment, &answer, printer);
        }
        if begun.elapsed() > TEMPLATES_COME {
            printer.note(&format!(
                "{environment} is up, with templates other than those of ConfigMap {}: its controller has not got them within {} s, or has \
                 others (`--templates`); `kubectl describe pods` of the controller may say why",
                templates::NAME,
                TEMPLATES_COME.as_secs()
            ));
            return Ok(Exit::TimedOut);
        }
        if !is_told {
            is_told = true;
            printer.note(&format!(
                "ConfigMap {} is not in the controller's pod yet as it is now, which its kubelet does within two minutes; {environment} is \
                 brought up again then",
                templates::NAME
            ));
        }
        if let Some(exit) = stays.rest(ASK_AGAIN_EVERY.saturating_sub(last_asked.elapsed())).await {
            return Ok(exit);
        }
        last_asked = Instant::now();
        ask(ground, environment).await?;
    }
}

/// Writes that it is asked for; tells how it stood before.
async fn ask(ground: &Ground, environment: &str) -> anyhow::Result<DynamicObject> {
    let (api, what) = (
        Kind::Environment.api(&ground.client, &ground.namespace),
        format!("Environment {environment}"),
    );
    let Some(before) = patiently(|| asked("read", &what, api.get_opt(environment))).await? else {
        return Err(there_is_no(ground, environment).await?.into());
    };
    let refused = |why: &str| PluginError::NotBroughtUp(format!("Environment {environment} {why}"));
    if objects::is_deleted(&before) {
        return Err(refused("is being deleted").into());
    }
    let ready = ready(&before);
    if ready["reason"] == EXPIRED && ready["observedGeneration"] == objects::generation(&before) {
        return Err(
            refused("has been taken down since its time is over; it is made again once its spec is changed").into(),
        );
    }
    let patch = json!({"metadata": {
        "uid": before.metadata.uid,
        "annotations": {RECONCILE_AT: Timestamp::now().to_string()},
    }});
    let parameters = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(&patch);
    patiently(|| asked("ask for", &what, api.patch(environment, &parameters, &patch))).await?;
    Ok(before)
}

/// Of the `ConfigMap` as it is now. Who may not read it, and where there is none, is told nothing by it.
async fn wanted_templates(ground: &Ground, printer: &Printer) -> Option<Digest> {
    let api: Api<ConfigMap> = Api::namespaced(ground.client.clone(), &ground.namespace);
    let what = format!("ConfigMap {}", templates::NAME);
    let found = match patiently(|| asked("read", &what, api.get_opt(templates::NAME))).await {
        Ok(found) => found?,
        Err(why) => {
            printer.note(&format!(
                "{why}; whether its controller has the templates as they are now is not known by it"
            ));
            return None;
        }
    };
    let texts = found.data.unwrap_or_default().into_iter();
    let texts = texts.map(|(name, text)| (name, text.into_bytes()));
    let bytes = found.binary_data.unwrap_or_default().into_iter();
    let bytes = bytes.map(|(name, bytes)| (name, bytes.0));
    Some(templates::digest(&texts.chain(bytes).collect::<BTreeMap<_, _>>()))
}

fn ready(object: &DynamicObject) -> Value {
    let all = object.data["status"]["conditions"].as_array().into_iter().flatten();
    all.clone().find(|c| c["type"] == "Ready").cloned().unwrap_or_default()
}

fn words(ready: &Value) -> String {
    let text = |key: &str| ready[key].as_str().unwrap_or_default();
    format!("{}: {}", text("reason"), in_one_line(text("message")))
}

fn shown(environment: &str, answer: &Answer, printer: &Printer) -> anyhow::Result<Exit> {
    let Answer { ready, templates } = answer;
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Environment",
        "metadata": {"name": environment},
        "status": {"conditions": [ready], "templates": templates},
    });
    printer.resource(&resource, |p| p.sentence(&format!("{environment} is {}", words(ready))))?;
    Ok(if ready["status"] == "True" {
        Exit::Done
    } else {
        Exit::Errored
    })
}

/// Who waits for an Environment.
struct Stays<'a> {
    ground: &'a Ground,
    environment: &'a str,
    interrupt: Interrupt,
    end: Option<Instant>,
    printer: &'a Printer,
}

impl Stays<'_> {
    /// What is said of it once whoever asked last is answered, or how the command ends before.
    async fn answer(&self, said: &mut Value) -> anyhow::Result<Result<Answer, Exit>> {
        let Self {
            ground,
            environment,
            printer,
            ..
        } = self;
        let api = Kind::Environment.api(&ground.client, &ground.namespace);
        let what = format!("Environment {environment}");
        let mut silence = Silence::default();
        loop {
            match patiently(|| asked("read", &what, api.get_opt(environment))).await {
                Err(why) if why.is_passing() && !self.interrupt.is_set() => printer.note(&why.to_string()),
                read => {
                    let gone = || PluginError::NotBroughtUp(format!("Environment {environment} was deleted meanwhile"));
                    let now = read?.ok_or_else(gone)?;
                    let ready = ready(&now);
                    if objects::is_answered(&now) {
                        let templates = now.data["status"]["templates"].as_str().map(str::to_owned);
                        return Ok(Ok(Answer { ready, templates }));
                    }
                    if words(&ready) != words(said) && ready["status"] != "True" {
                        printer.note(&words(&ready));
                    }
                    *said = ready;
                    silence.look(ground, &now, printer).await;
                }
            }
            if let Some(exit) = self.rest(LOOK_EVERY).await {
                return Ok(Err(exit));
            }
        }
    }

    /// Waits; tells how the command ends, if its time is up or it is asked to.
    async fn rest(&self, pause: Duration) -> Option<Exit> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        let exit = tokio::select! {
            () = tokio::time::sleep(left.map_or(pause, |left| left.min(pause))) => {
                if left.is_none_or(|left| left > pause) {
                    return None;
                }
                Exit::TimedOut
            }
            () = self.interrupt.wait() => Exit::Interrupted,
        };
        self.printer.note(&format!(
            "stopped waiting; its controller brings {0} up all the same: `stagegate status {0}` shows how it stands",
            self.environment
        ));
        Some(exit)
    }
}

//! `stagegate get KIND [NAME]`.

use clap::Args;
use serde_json::{Value, json};

use super::printer::Printer;
use super::view::{self, API_VERSION, Names};
use super::{Exit, ground};
use crate::home::Home;
use crate::store::{Resource, Store as _};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// environment, build or upgrade
    kind: String,
    /// Its name; all without
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let kind = match arguments.kind.to_lowercase().trim_end_matches('s') {
        "environment" | "env" => "Environment",
        "build" => "Build",
        "upgrade" => "Upgrade",
        other => anyhow::bail!("there is no kind `{other}`; there are environment, build and upgrade"),
    };
    let found = find(&home, kind, arguments.name.as_deref())?;
    if let Some(name) = &arguments.name {
        let one = found.first().ok_or_else(|| {
            anyhow::anyhow!(
                "there is no {kind} {name}; `stagegate get {}` lists what there is",
                arguments.kind
            )
        })?;
        printer.resource(one, |p| p.line(crate::model::text::to_yaml(one)?.trim_end()))?;
        return Ok(Exit::Done);
    }
    let list = json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": kind}, "items": found});
    printer.resource(&list, |p| {
        let rows = found
            .iter()
            .map(|r| {
                let text = |at: &Value| at.as_str().unwrap_or("-").to_owned();
                vec![text(&r["metadata"]["name"]), text(&r["status"]["phase"])]
            })
            .collect();
        p.table(&["NAME", "PHASE"], rows)
    })?;
    Ok(Exit::Done)
}

fn find(home: &Home, kind: &str, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let store = home.store();
    if kind == "Upgrade" {
        let names = Names::read(home)?;
        let records = match name {
            Some(name) => store.upgrade(name)?.into_iter().collect(),
            None => store.upgrades(None, 200)?,
        };
        return records.iter().map(|r| view::upgrade(r, &names)).collect();
    }
    let resources: Vec<Resource> = match name {
        Some(name) => store.resource(kind, name)?.into_iter().collect(),
        None => store.resources(kind)?,
    };
    Ok(resources
        .into_iter()
        .map(|r| {
            json!({
                "apiVersion": API_VERSION,
                "kind": r.kind,
                "metadata": {
                    "name": r.name,
                    "generation": r.generation,
                    "resourceVersion": r.resource_version.to_string(),
                    "creationTimestamp": r.created_at,
                },
                "spec": r.spec,
                "status": r.status,
            })
        })
        .collect())
}

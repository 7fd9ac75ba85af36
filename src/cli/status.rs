//! `stagegate status [ENV] [-w]`.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::upgrade::LOOK_EVERY;
use super::view::{self, API_VERSION, Names};
use super::{Exit, ground};
use crate::home::Home;
use crate::model::environment::EnvironmentSpec;
use crate::store::{Resource, Store as _, UpgradeRecord};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment; every one without
    #[arg(value_name = "ENV")]
    environment: Option<String>,
    /// Show it again whenever it changes
    #[arg(short, long)]
    watch: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    let mut shown = None;
    loop {
        let environments = environments(&home, arguments.environment.as_deref())?;
        let now: Vec<Value> = environments
            .iter()
            .map(Shown::resource)
            .collect::<anyhow::Result<_>>()?;
        if shown.as_ref() != Some(&now) {
            let list =
                json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "environments"}, "items": now});
            let asked_for = arguments.environment.as_ref().and(now.first());
            printer.resource(asked_for.unwrap_or(&list), |p| {
                if environments.is_empty() {
                    p.note("nothing is up; `stagegate up ENV` brings an environment up");
                }
                environments
                    .iter()
                    .try_for_each(|environment| environment.for_people(p))
            })?;
            shown = Some(now);
        }
        if !arguments.watch || printer.is_unread() {
            return Ok(Exit::Done);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Shows one environment.
pub(super) fn show(home: &Home, name: &str, printer: &Printer) -> anyhow::Result<()> {
    for environment in environments(home, Some(name))? {
        printer.resource(&environment.resource()?, |p| environment.for_people(p))?;
    }
    Ok(())
}

/// A node, what it is of, and the build that it has.
#[derive(Serialize)]
struct NodeLine {
    name: String,
    component: String,
    build: Option<String>,
}

struct Shown {
    resource: Resource,
    last: Option<UpgradeRecord>,
    /// Who drives an unfinished upgrade.
    driver: Option<String>,
    names: Names,
}

fn environments(home: &Home, wanted: Option<&str>) -> anyhow::Result<Vec<Shown>> {
    let store = home.store();
    let resources = match wanted {
        Some(name) => store.resource("Environment", name)?.into_iter().collect(),
        None => store.resources("Environment")?,
    };
    if let (Some(name), true) = (wanted, resources.is_empty()) {
        return Err(GroundError::NotUp {
            environment: name.to_owned(),
            how: "is not up",
        }
        .into());
    }
    resources
        .into_iter()
        .map(|resource: Resource| {
            Ok(Shown {
                last: store.upgrades(Some(&resource.name), 1)?.pop(),
                driver: ground::driver(home, &resource.name)?,
                names: Names::read(home)?,
                resource,
            })
        })
        .collect()
}

impl Shown {
    fn resource(&self) -> anyhow::Result<Value> {
        let upgrade = self.last.as_ref().map(|u| view::upgrade(u, &self.names)).transpose()?;
        Ok(json!({
            "apiVersion": API_VERSION,
            "kind": "Environment",
            "metadata": {"name": self.resource.name, "generation": self.resource.generation},
            "spec": self.resource.spec,
            "status": {"environment": self.resource.status, "nodes": self.nodes(), "upgrade": upgrade, "driver": self.driver},
        }))
    }

    /// What every node has: of an upgraded component as its last upgrade left it, of the others what `up` installs.
    fn nodes(&self) -> Vec<NodeLine> {
        let Ok(spec) = self.resource.spec_as::<EnvironmentSpec>() else {
            // Written by another version, whose keys these need not be.
            return Vec::new();
        };
        let upgraded = |node: &str| {
            let status = self.last.as_ref().map(|upgrade| &upgrade.status)?;
            status.nodes.iter().find(|n| n.name == node)
        };
        let lines = spec.components.iter().flat_map(|component| {
            component.nodes.iter().map(move |node| NodeLine {
                name: node.name.clone(),
                component: component.name.clone(),
                build: match upgraded(&node.name) {
                    Some(now) => now.build.as_ref().map(|build| self.names.of(Some(build))),
                    None => component.source.as_ref().and_then(|_| {
                        let version = component.build.as_ref()?;
                        Some(format!("{}-{version}", component.name))
                    }),
                },
            })
        });
        lines.collect()
    }

    fn nodes_for_people(&self, printer: &Printer) -> anyhow::Result<()> {
        let rows = self
            .nodes()
            .into_iter()
            .map(|NodeLine { name, component, build }| vec![name, component, build.unwrap_or_else(|| "-".to_owned())]);
        printer.table(&["NODE", "COMPONENT", "BUILD"], rows.collect())
    }

    fn for_people(&self, printer: &Printer) -> anyhow::Result<()> {
        let up = self.resource.status["phase"].as_str().unwrap_or("Unknown");
        match &self.last {
            Some(upgrade) if !upgrade.status.phase.is_final() => {
                let name = &self.resource.name;
                let driver = match &self.driver {
                    Some(driver) => format!("driven by {driver}"),
                    None => format!("driven by nobody; `stagegate why {name}` says what goes on with it"),
                };
                printer.line(&format!("unfinished upgrade of {name}, {driver}:"))?;
                view::upgrade_for_people(printer, upgrade, &self.names)
            }
            Some(upgrade) => {
                printer.line(&format!("{} {up}; its last upgrade:", self.resource.name))?;
                view::upgrade_for_people(printer, upgrade, &self.names)
            }
            None => {
                printer.line(&format!(
                    "{} {up} since {}; never upgraded",
                    self.resource.name,
                    view::age(Timestamp::now(), self.resource.updated_at)
                ))?;
                self.nodes_for_people(printer)
            }
        }
    }
}

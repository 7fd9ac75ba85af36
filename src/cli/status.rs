//! `stagegate status [ENV] [-w]`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::upgrade::LOOK_EVERY;
use super::view::{self, API_VERSION, Names};
use super::{Exit, ground};
use crate::home::Home;
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
    let home = ground::home()?;
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
        if !arguments.watch {
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

struct Shown {
    resource: Resource,
    last: Option<UpgradeRecord>,
    names: Names,
}

fn environments(home: &Home, wanted: Option<&str>) -> anyhow::Result<Vec<Shown>> {
    let store = home.store();
    let resources = match wanted {
        Some(name) => store.resource("Environment", name)?.into_iter().collect(),
        None => store.resources("Environment")?,
    };
    if let (Some(name), true) = (wanted, resources.is_empty()) {
        return Err(GroundError::NotUp(name.to_owned()).into());
    }
    resources
        .into_iter()
        .map(|resource: Resource| {
            Ok(Shown {
                last: store.upgrades(Some(&resource.name), 1)?.pop(),
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
            "status": {"environment": self.resource.status, "upgrade": upgrade},
        }))
    }

    fn for_people(&self, printer: &Printer) -> anyhow::Result<()> {
        let up = self.resource.status["phase"].as_str().unwrap_or("Unknown");
        match &self.last {
            Some(upgrade) if !upgrade.status.phase.is_final() => {
                printer.line(&format!("unfinished upgrade of {}:", self.resource.name))?;
                view::upgrade_for_people(printer, upgrade, &self.names)
            }
            Some(upgrade) => {
                printer.line(&format!("{} {up}; its last upgrade:", self.resource.name))?;
                view::upgrade_for_people(printer, upgrade, &self.names)
            }
            None => printer.line(&format!(
                "{} {up} since {}; never upgraded",
                self.resource.name,
                view::age(Timestamp::now(), self.resource.updated_at)
            )),
        }
    }
}

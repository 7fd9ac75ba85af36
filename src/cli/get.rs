//! `stagegate get KIND [NAME]`.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::view::{self, API_VERSION, Names};
use super::{Exit, ground};
use crate::home::Home;
use crate::model::text;
use crate::store::{Resource, Store as _};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// environment, build, upgrade, promotion or freeze; or KIND/NAME, as `-o name` prints it
    #[arg(value_name = "KIND")]
    what: Wanted,
    /// Its name; all without
    name: Option<String>,
}

/// `KIND` or `KIND/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    kind: Kind,
    name: Option<String>,
}

impl std::str::FromStr for Wanted {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            None => (text, None),
            Some((_, "")) => return Err("there is no name after the `/`".to_owned()),
            Some((kind, name)) => (kind, Some(name.to_owned())),
        };
        let kind = Kind::from_str(kind, true)
            .map_err(|_| "write environment, build, upgrade, promotion or freeze".to_owned())?;
        Ok(Self { kind, name })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(aliases = ["environments", "env", "envs"])]
    Environment,
    #[value(alias = "builds")]
    Build,
    #[value(alias = "upgrades")]
    Upgrade,
    #[value(alias = "promotions")]
    Promotion,
    #[value(alias = "freezes")]
    Freeze,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Environment => "Environment",
            Kind::Build => "Build",
            Kind::Upgrade => "Upgrade",
            Kind::Promotion => "Promotion",
            Kind::Freeze => "Freeze",
        }
    }
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    let Arguments { what, name } = arguments;
    let kind = &what.kind;
    let name = match (&what.name, name) {
        (Some(_), Some(other)) => return Err(GroundError::TwoNames(other.clone()).into()),
        (one, other) => one.as_ref().or(other.as_ref()),
    };
    let found = find(&home, *kind, name.map(String::as_str))?;
    if let Some(name) = name {
        let Some(one) = found.first() else {
            let known: Vec<String> = names_of(&find(&home, *kind, None)?);
            return Err(GroundError::UnknownResource {
                kind: kind.word(),
                name: name.clone(),
                hint: text::what_is_known(name, &known),
            }
            .into());
        };
        printer.resource(one, |p| p.line(crate::model::text::to_yaml(one)?.trim_end()))?;
        return Ok(Exit::Done);
    }
    let kind = kind.word();
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

fn names_of(found: &[Value]) -> Vec<String> {
    let name = |resource: &Value| resource["metadata"]["name"].as_str().map(str::to_owned);
    found.iter().filter_map(name).collect()
}

fn find(home: &Home, kind: Kind, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let store = home.store();
    if kind == Kind::Upgrade {
        let names = Names::read(home)?;
        let records = match name {
            Some(name) => store.upgrade(name)?.into_iter().collect(),
            None => store.upgrades(None, 200)?,
        };
        return records.iter().map(|r| view::upgrade(r, &names)).collect();
    }
    let resources: Vec<Resource> = match name {
        Some(name) => store.resource(kind.word(), name)?.into_iter().collect(),
        None => store.resources(kind.word())?,
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

//! `stagegate diff ENV [--against ENV2]`: a replica beside what it is a replica of.
//!
//! Compared are the builds that run by the record, what the files say, the objects that come of it, and the schemas of databases.
//! A difference is expected where the replica's own file states it, where it follows from what that states, or where
//! `expectedDifferences` gives a reason.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground, standing, status};
use crate::cluster::replica::plan;
use crate::engine::fleet::Fleet;
use crate::home::Home;
use crate::model::difference::{self, Difference};
use crate::model::target::Target;
use crate::model::text::path::Part;
use crate::model::text::{Path, PathPattern};
use crate::model::values::Digest;
use crate::signals::postgres::schema;
use crate::workspace::Workspace;

/// As in the workspace: a chain of replicas longer than this is refused there.
const LONGEST_CHAIN: usize = 8;
/// Of a value in a line for people.
const MOST_CHARS: usize = 60;
/// What makes a replica one, and where it is made, is no difference to what it copies.
const OF_THE_REPLICA: [&str; 3] = ["replicaOf", "target", "expectedDifferences"];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The replica: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
    /// What it is compared with; what it is a replica of without
    #[arg(long, value_name = "ENV")]
    against: Option<String>,
}

/// A difference as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    there: Option<Value>,
    /// Why it is expected; without one it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
}

/// Writes nothing.
pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let interrupt = ground::interrupt(printer)?;
    tokio::select! {
        () = interrupt.wait() => Ok(Exit::Interrupted),
        compared = compare(arguments, printer) => compared,
    }
}

async fn compare(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { environment, against } = arguments;
    let (workspace, shift) = (ground::workspace(), ground::port_shift()?);
    let home = ground::look()?;
    let here = Fleet::read(&home, &workspace, &environment, shift)?;
    let against = against
        .or_else(|| here.environment.spec.replica_of.clone())
        .ok_or_else(|| GroundError::ReplicaOfNothing(environment.clone()))?;
    let there = Fleet::read(&home, &workspace, &against, shift)?;
    // Both in one place, so that where they lie is no difference.
    let namespace = namespace(&here).or_else(|| namespace(&there)).unwrap_or_default();
    let veil = Veil::new()?;
    let one = subject(&home, &here, &namespace, &veil, printer).await?;
    let other = subject(&home, &there, &namespace, &veil, printer).await?;
    printer.idle();
    let mut inherits = Inheritance::of(&workspace, &environment, &against)?;
    inherits.as_filed = as_filed(&here, &one);
    let there_as_filed = as_filed(&there, &other);
    inherits.as_filed.retain(|component| there_as_filed.contains(component));
    let expected: Vec<(PathPattern, String)> = here
        .environment
        .spec
        .expected_differences
        .iter()
        .filter_map(|expected| Some((expected.path.parse().ok()?, expected.reason.clone())))
        .collect();
    let shown: Vec<Shown> = difference::differences(&one, &other)
        .into_iter()
        .map(|difference| inherits.shown(difference, &expected))
        .collect();
    let unexpected = shown.iter().filter(|shown| shown.expected.is_none()).count();
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Diff",
        "metadata": {"name": environment},
        "spec": {"environment": environment, "against": against},
        "status": {"unexpected": unexpected, "differences": shown},
    });
    printer.resource(&resource, |p| for_people(p, &environment, &against, &shown))?;
    Ok(if unexpected == 0 { Exit::Done } else { Exit::GateFailed })
}

fn for_people(printer: &Printer, environment: &str, against: &str, shown: &[Shown]) -> anyhow::Result<()> {
    let text = |value: &Option<Value>| match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => brief(text),
        Some(value) => brief(&value.to_string()),
    };
    // What needs somebody stands first.
    let (expected, unexpected): (Vec<&Shown>, Vec<&Shown>) = shown.iter().partition(|shown| shown.expected.is_some());
    let rows = unexpected.iter().chain(&expected).map(|shown| {
        vec![
            shown.path.clone(),
            text(&shown.here),
            text(&shown.there),
            shown.expected.clone().unwrap_or_else(|| "no".to_owned()),
        ]
    });
    if !shown.is_empty() {
        let header = ["PATH", &environment.to_uppercase(), &against.to_uppercase(), "EXPECTED"];
        printer.table(&header, rows.collect())?;
    }
    printer.sentence(&format!(
        "{environment} differs from {against} in {} that nobody expects, and in {} that {} expected",
        super::up::count(unexpected.len(), "place"),
        super::up::count(expected.len(), "place"),
        if expected.len() == 1 { "is" } else { "are" },
    ))
}

fn brief(text: &str) -> String {
    let text = text.replace('\n', " ");
    if text.chars().count() <= MOST_CHARS {
        return text;
    }
    let begin: String = text.chars().take(MOST_CHARS).collect();
    format!("{begin}…")
}

fn namespace(fleet: &Fleet) -> Option<String> {
    let Target::Kubernetes(target) = fleet.environment.spec.target.as_ref()?;
    Some(target.namespace.clone())
}

/// What is compared of an environment.
async fn subject(home: &Home, fleet: &Fleet, namespace: &str, veil: &Veil, printer: &Printer) -> anyhow::Result<Value> {
    let environment = &fleet.environment;
    let mut manifests = Map::new();
    for manifest in fleet.manifests(namespace)? {
        let mut value = manifest.value;
        if plan::is_secret(&manifest.id) {
            veil.hide(&mut value);
        }
        // Two namespaces may have one of the same name.
        let stated = manifest.id.namespace.as_str();
        let name = if stated.is_empty() || stated == namespace {
            manifest.id.to_string()
        } else {
            format!("{stated}/{}", manifest.id)
        };
        manifests.insert(name, value);
    }
    let mut databases = Map::new();
    for database in &environment.spec.databases {
        printer.doing(format!("{}: reading the schema of {}", environment.name, database.name));
        let schema = schema::look(&fleet.database(&database.name)?).await?;
        databases.insert(database.name.clone(), schema);
    }
    Ok(json!({
        "builds": builds(home, fleet)?,
        "spec": spec(fleet)?,
        "manifests": manifests,
        "databases": databases,
    }))
}

/// The build that each component runs by the record. What nobody has brought up here is not known, and so is not the same as anything.
fn builds(home: &Home, fleet: &Fleet) -> anyhow::Result<BTreeMap<String, String>> {
    let environment = &fleet.environment;
    let mut recorded: BTreeMap<String, BTreeSet<String>> = status::builds(home, &environment.name)?;
    recorded.retain(|_, builds| !builds.is_empty());
    let of_objects = standing::builds_of_objects(home, &environment.name)?;
    let with_builds = environment.spec.components.iter().filter_map(|component| {
        let (Some(version), Some(_)) = (&component.build, &component.source) else {
            return None;
        };
        let name = &component.name;
        let build = match (recorded.remove(name), of_objects.get(name)) {
            (Some(builds), _) => builds.into_iter().collect::<Vec<_>>().join(", "),
            (None, Some(build)) => build.clone(),
            (None, None) => format!(
                "unknown: nobody has brought {name} of {} up here, and its file names {name}-{version}",
                environment.name
            ),
        };
        Some((name.clone(), build))
    });
    let mut builds: BTreeMap<String, String> = with_builds.collect();
    // Of a component that its file no longer has.
    for (name, of_it) in recorded {
        builds.insert(name, of_it.into_iter().collect::<Vec<_>>().join(", "));
    }
    Ok(builds)
}

/// The components that run the build that their file names.
fn as_filed(fleet: &Fleet, subject: &Value) -> BTreeSet<String> {
    let components = fleet.environment.spec.components.iter();
    components
        .filter_map(|component| {
            let name = format!("{}-{}", component.name, component.build.as_ref()?);
            (subject["builds"][&component.name] == name.as_str()).then(|| component.name.clone())
        })
        .collect()
}

/// What the files say, without what makes it a replica and without nodes that a workload of a cluster makes by itself.
fn spec(fleet: &Fleet) -> anyhow::Result<Value> {
    let mut stated = fleet.environment.spec.clone();
    for component in &mut stated.components {
        if component.pods().is_some() {
            component.nodes = component.servers().cloned().collect();
        }
    }
    let mut spec = serde_json::to_value(stated)?;
    if let Some(keys) = spec.as_object_mut() {
        for key in OF_THE_REPLICA {
            keys.remove(key);
        }
    }
    Ok(spec)
}

/// What a Secret holds is not told; whether it is the same is told by a code that nobody can make who has only seen it: the key is
/// gone with the run.
struct Veil(ring::hmac::Key);

impl Veil {
    fn new() -> anyhow::Result<Self> {
        let random = ring::rand::SystemRandom::new();
        let key = ring::hmac::Key::generate(ring::hmac::HMAC_SHA256, &random);
        Ok(Self(
            key.map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?,
        ))
    }

    /// Both ways of stating it alike.
    fn hide(&self, secret: &mut Value) {
        plan::encode(secret);
        for value in secret["data"].as_object_mut().into_iter().flat_map(Map::values_mut) {
            let code = ring::hmac::sign(&self.0, value.to_string().as_bytes());
            let short = Digest::of(code.as_ref()).short();
            *value = Value::from(format!("(not told, {short})"));
        }
    }
}

/// What a replica states itself.
struct Inheritance {
    /// The files of the replica and of those between it and what it is compared with.
    own: Vec<Value>,
    /// Whether it copies that, so that nothing differs but for what is stated.
    copies: bool,
    /// Components that run on both sides what the files name.
    as_filed: BTreeSet<String>,
}

impl Inheritance {
    fn of(workspace: &Workspace, environment: &str, against: &str) -> anyhow::Result<Self> {
        let (mut own, mut name) = (Vec::new(), environment.to_owned());
        while own.len() < LONGEST_CHAIN {
            let stated = workspace.own(&name)?;
            let base = stated["replicaOf"].as_str().map(str::to_owned);
            own.push(stated);
            match base {
                Some(base) if base == against => {
                    return Ok(Self {
                        own,
                        copies: true,
                        as_filed: BTreeSet::new(),
                    });
                }
                Some(base) => name = base,
                None => break,
            }
        }
        // Of what is no base of it, only its own file says how it is meant to differ.
        own.truncate(1);
        Ok(Self {
            own,
            copies: false,
            as_filed: BTreeSet::new(),
        })
    }

    fn states(&self, path: &Path) -> bool {
        self.own.iter().any(|own| difference::states(own, path))
    }

    fn shown(&self, difference: Difference, expected: &[(PathPattern, String)]) -> Shown {
        let Difference { path, one, other } = difference;
        let declared = expected.iter().find(|(pattern, _)| difference::covers(pattern, &path));
        let expected = match declared {
            Some((_, reason)) => Some(reason.clone()),
            None => self.why(&path).map(str::to_owned),
        };
        Shown {
            path: path.to_string(),
            here: one,
            there: other,
            expected,
        }
    }

    /// Why a difference is as it is meant to be, by the file.
    fn why(&self, path: &Path) -> Option<&'static str> {
        let (first, rest) = path.parts().split_first()?;
        let Part::Key(first) = first else { return None };
        match first.as_str() {
            "spec" => self
                .states(&rest.iter().cloned().collect())
                .then_some("stated by the replica"),
            // One that an upgrade has put there is not what the file was written for.
            "builds" => {
                let Part::Key(component) = rest.first()? else {
                    return None;
                };
                let stated = Path::root().key("components").key(component.as_str()).key("build");
                (self.as_filed.contains(component) && self.states(&stated)).then_some("stated by the replica")
            }
            // The same templates, rendered for what the replica states.
            "manifests" if self.copies => Some("follows from what the replica states"),
            _ => None,
        }
    }
}

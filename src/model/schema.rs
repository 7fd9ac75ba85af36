//! The JSON Schema of every resource, from the types: docs/reference/schema.json is this, for editors and other programs.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::build::BuildSpec;
use super::environment::EnvironmentSpec;
use super::freeze::FreezeSpec;
use super::pipeline::PipelineSpec;
use super::promotion::{PromotionSpec, PromotionStatus};
use super::rehearsal::{RehearsalSpec, RehearsalStatus};
use super::repository::RepositorySpec;
use super::text::API_VERSION;
use super::tracker::IssueTrackerSpec;
use super::upgrade::{UpgradeSpec, UpgradeStatus};

/// The schema of a file or answer that holds any resource. The status of a Build belongs to the store, and the policy of
/// commits to their room.
#[must_use]
pub fn document<BuildStatus: JsonSchema, CommitPolicySpec: JsonSchema>() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let environment = reference::<EnvironmentSpec>(&mut generator);
    let replica = json!({"$ref": format!("#/$defs/{REPLICA}EnvironmentSpec")});
    let kinds = [
        (
            "Environment",
            "A named full system. One with `replicaOf` states only what differs from its base.",
            json!({"anyOf": [replica, environment]}),
            None,
        ),
        (
            "Build",
            "An immutable named set of artifacts, made by Stagegate from its component's source.",
            reference::<BuildSpec>(&mut generator),
            Some(reference::<BuildStatus>(&mut generator)),
        ),
        (
            "Upgrade",
            "One build going onto one environment.",
            reference::<UpgradeSpec>(&mut generator),
            Some(reference::<UpgradeStatus>(&mut generator)),
        ),
        (
            "Rehearsal",
            "Traffic, disturbances and upgrades run together, with what must come out.",
            reference::<RehearsalSpec>(&mut generator),
            Some(reference::<RehearsalStatus>(&mut generator)),
        ),
        (
            "Pipeline",
            "How builds of a component reach production: the stages that they go through.",
            reference::<PipelineSpec>(&mut generator),
            None,
        ),
        (
            "Freeze",
            "When nothing moves somewhere, and what becomes of what moves already.",
            reference::<FreezeSpec>(&mut generator),
            None,
        ),
        (
            "Promotion",
            "One build through one stage of a pipeline.",
            reference::<PromotionSpec>(&mut generator),
            Some(reference::<PromotionStatus>(&mut generator)),
        ),
        (
            "Repository",
            "A repository whose commits are checked where it is hosted.",
            reference::<RepositorySpec>(&mut generator),
            None,
        ),
        (
            "IssueTracker",
            "A tracker whose issues commits name.",
            reference::<IssueTrackerSpec>(&mut generator),
            None,
        ),
        (
            "CommitPolicy",
            "What is asked of commits before they travel; hooks/policy.yaml of a repository.",
            reference::<CommitPolicySpec>(&mut generator),
            None,
        ),
    ];
    let mut definitions = generator.take_definitions(true);
    name_builds(&mut definitions);
    add_replica(&mut definitions);
    for (kind, description, spec, status) in &kinds {
        let mut properties = json!({
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": {"$ref": "#/$defs/Metadata"},
            "spec": spec,
        });
        if let Some(status) = status {
            properties["status"] = status.clone();
        }
        let schema = json!({
            "description": description,
            "type": "object",
            "properties": properties,
            "required": ["apiVersion", "kind", "metadata", "spec"],
        });
        definitions.insert((*kind).to_owned(), schema);
    }
    definitions.insert("Metadata".to_owned(), metadata());
    let any: Vec<Value> = kinds
        .iter()
        .map(|(kind, ..)| json!({"$ref": format!("#/$defs/{kind}")}))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Resources of stagegate.dev/v1alpha1",
        "oneOf": any,
        "$defs": definitions,
    })
}

/// Answers carry the names of builds, with their digests beside (`cli::view`).
fn name_builds(definitions: &mut Map<String, Value>) {
    for (of, description) in [
        (
            "NodeStatus",
            "Name of the build that it runs, as last seen; the beginning of its digest where no name is known.",
        ),
        (
            "GateStatus",
            "Of a failure: name of the build that the node ran then; the beginning of its digest where no name is known.",
        ),
    ] {
        let Some(properties) = definitions.get_mut(of).and_then(|status| status.get_mut("properties")) else {
            continue;
        };
        let digest = properties["build"].take();
        properties["build"] = json!({"type": ["string", "null"], "description": description});
        properties["digest"] = digest;
    }
}

/// What the definitions begin with that describe what a replica states.
const REPLICA: &str = "Replica";

/// A replica states any part of an environment: nothing is required of it but names and whose replica it is, `null` takes
/// away, and so does `$patch: delete` in a list.
fn add_replica(definitions: &mut Map<String, Value>) {
    let mut open = vec!["EnvironmentSpec".to_owned()];
    let mut partial: BTreeMap<String, Value> = BTreeMap::new();
    while let Some(name) = open.pop() {
        let Some(whole) = definitions.get(&name).filter(|_| !partial.contains_key(&name)) else {
            continue;
        };
        let mut part = whole.clone();
        relax(&mut part, definitions, &mut open);
        partial.insert(name, part);
    }
    if let Some(root) = partial.get_mut("EnvironmentSpec") {
        root["required"] = json!(["replicaOf"]);
        root["properties"]["replicaOf"] = json!({"type": "string"});
    }
    definitions.extend(
        partial
            .into_iter()
            .map(|(name, part)| (format!("{REPLICA}{name}"), part)),
    );
}

fn relax(schema: &mut Value, definitions: &Map<String, Value>, open: &mut Vec<String>) {
    let Value::Object(keywords) = schema else { return };
    if let Some(Value::String(reference)) = keywords.get_mut("$ref") {
        let name = reference.trim_start_matches("#/$defs/").to_owned();
        // A value that is no map is stated whole or not at all.
        if definitions.get(&name).is_some_and(|d| d.get("properties").is_some()) {
            *reference = format!("#/$defs/{REPLICA}{name}");
            open.push(name);
        }
    }
    if let Some(Value::Object(properties)) = keywords.get_mut("properties") {
        for (name, property) in properties.iter_mut() {
            relax(property, definitions, open);
            if name != "name" {
                *property = json!({"anyOf": [property.take(), {"type": "null"}]});
            }
        }
        let is_named = properties.contains_key("name");
        if is_named {
            properties.insert("$patch".to_owned(), json!({"const": "delete"}));
        }
        keywords.insert(
            "required".to_owned(),
            if is_named { json!(["name"]) } else { json!([]) },
        );
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = keywords.get_mut(keyword) {
            relax(inner, definitions, open);
        }
    }
    if let Some(Value::Array(choices)) = keywords.get_mut("anyOf") {
        for choice in choices {
            relax(choice, definitions, open);
        }
    }
}

fn reference<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn metadata() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({
        "description": "How a resource is found.",
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
            "labels": texts,
            "annotations": texts,
        },
        "required": ["name"],
    })
}

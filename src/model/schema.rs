//! The JSON Schema of every resource, from the types: docs/reference/schema.json is this, for editors and other programs.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::build::BuildSpec;
use super::environment::EnvironmentSpec;
use super::rehearsal::RehearsalSpec;
use super::text::API_VERSION;
use super::upgrade::{UpgradeSpec, UpgradeStatus};

/// The schema of a file or answer that holds any resource. The status of a Build belongs to the store, and the policy of
/// commits to their room.
#[must_use]
pub fn document<BuildStatus: JsonSchema, CommitPolicySpec: JsonSchema>() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let kinds = [
        (
            "Environment",
            "A named full system. One with `replicaOf` states only what differs from its base, so what is required here may \
             come from there.",
            reference::<EnvironmentSpec>(&mut generator),
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

//! Our kinds as an API server knows them: `CustomResourceDefinition`s, made from the schema of the files
//! ([`crate::model::schema`]), so that a file and an object are the same text.
//!
//! Beside the shape an API server keeps what only it can: what may change once it is written, how much a list may hold, and
//! what `kubectl get` shows.

mod structural;

use serde_json::{Map, Value, json};

use structural::Definitions;

use super::install::{PART, PART_OF};

/// The group of our kinds.
pub const GROUP: &str = "stagegate.dev";
/// The version in which they are served and stored.
pub const VERSION: &str = "v1alpha1";
/// What `kubectl get` takes for all of them.
const CATEGORY: &str = "stagegate";

/// What the files do not say of a kind.
struct Kind {
    name: &'static str,
    plural: &'static str,
    short: &'static str,
    /// Name of the definition that its `spec` is.
    spec: &'static str,
    /// Name of the definition that its `status` holds, beside what every status has.
    status: Option<&'static str>,
    rules: &'static [Rule],
    /// Keys of its `spec` that its definition asks for and an object need not have.
    optional: &'static [&'static str],
    /// Keys of its `spec` that do not change once they are written.
    fixed: &'static [&'static str],
    /// Keys of its `spec` by which an API server lists only some of its objects.
    selectable: &'static [&'static str],
    columns: &'static [Column],
}

/// A rule in CEL over a `spec`.
struct Rule {
    rule: &'static str,
    message: &'static str,
}

/// A column of `kubectl get`.
struct Column {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: u8,
}

const fn column(name: &'static str, path: &'static str) -> Column {
    Column {
        name,
        path,
        kind: "string",
        priority: 0,
    }
}

const fn wide(name: &'static str, path: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name, path)
    }
}

const READY: Column = column("Ready", ".status.conditions[?(@.type==\"Ready\")].status");
const AGE: Column = Column {
    kind: "date",
    ..column("Age", ".metadata.creationTimestamp")
};

const KINDS: [Kind; 7] = [
    Kind {
        name: "Environment",
        plural: "environments",
        short: "env",
        // A replica states only what differs; a whole environment is one that states everything.
        spec: "ReplicaEnvironmentSpec",
        status: None,
        rules: &[
            Rule {
                rule: "has(self.replicaOf) || has(self.components)",
                message: "state `components`, or whose replica it is by `replicaOf`",
            },
            Rule {
                rule: "has(self.replicaOf) == has(oldSelf.replicaOf) && (!has(self.replicaOf) || self.replicaOf == oldSelf.replicaOf)",
                message: "whose replica an Environment is does not change; make another",
            },
        ],
        optional: &["replicaOf"],
        fixed: &[],
        selectable: &[],
        columns: &[
            column("Replica-Of", ".spec.replicaOf"),
            READY,
            wide("Message", ".status.conditions[?(@.type==\"Ready\")].message"),
            AGE,
        ],
    },
    Kind {
        name: "Build",
        plural: "builds",
        short: "bld",
        spec: "BuildSpec",
        status: Some("BuildStatus"),
        rules: &[Rule {
            rule: "self == oldSelf",
            message: "a Build does not change; another set of packages is another Build",
        }],
        optional: &[],
        fixed: &[],
        selectable: &[],
        columns: &[
            column("Component", ".spec.component"),
            column("Version", ".spec.version"),
            column("Verified-In", ".status.verifiedWhere"),
            column("Quarantined-In", ".status.quarantinedWhere"),
            wide("Digest", ".spec.digest"),
            AGE,
        ],
    },
    Kind {
        name: "Upgrade",
        plural: "upgrades",
        short: "upg",
        spec: "UpgradeSpec",
        status: Some("UpgradeStatus"),
        rules: &[Rule {
            rule: "has(self.promotion) == has(oldSelf.promotion) && (!has(self.promotion) || self.promotion == oldSelf.promotion)",
            message: "whose upgrade it is does not change: a promotion has made it, or none has",
        }],
        optional: &[],
        fixed: &["environment", "component", "build", "user"],
        selectable: &["environment"],
        columns: &[
            column("Environment", ".spec.environment"),
            column("Build", ".spec.build"),
            column("Phase", ".status.phase"),
            column("Reason", ".status.reason"),
            column("Done", ".status.done"),
            wide("User", ".spec.user"),
            wide("Message", ".status.conditions[?(@.type==\"Ready\")].message"),
            AGE,
        ],
    },
    Kind {
        name: "Rehearsal",
        plural: "rehearsals",
        short: "reh",
        spec: "RehearsalSpec",
        status: Some("RehearsalStatus"),
        rules: &[Rule {
            // What `RehearsalSpec::names_candidate` says.
            rule: "self == oldSelf || oldSelf.runs.exists(run, run.build.endsWith('=candidate')) || \
                   (has(oldSelf.startFrom) && oldSelf.startFrom.endsWith('=candidate'))",
            message: "what is rehearsed does not change while it is; make another",
        }],
        optional: &[],
        fixed: &[],
        selectable: &[],
        columns: &[
            column("Environment", ".spec.environment"),
            column("Phase", ".status.phase"),
            wide("Message", ".status.message"),
            AGE,
        ],
    },
    Kind {
        name: "Pipeline",
        plural: "pipelines",
        short: "pl",
        spec: "PipelineSpec",
        status: None,
        rules: &[Rule {
            rule: "self.component == oldSelf.component",
            message: "whose builds a Pipeline is for does not change; make another",
        }],
        optional: &[],
        fixed: &[],
        selectable: &[],
        columns: &[
            column("Component", ".spec.component"),
            column("Into", ".spec.stages[*].environment"),
            READY,
            wide("Message", ".status.conditions[?(@.type==\"Ready\")].message"),
            AGE,
        ],
    },
    Kind {
        name: "Promotion",
        plural: "promotions",
        short: "prm",
        spec: "PromotionSpec",
        status: Some("PromotionStatus"),
        rules: &[],
        optional: &[],
        fixed: &["pipeline", "stage", "build"],
        selectable: &["pipeline"],
        columns: &[
            column("Build", ".spec.build"),
            column("Stage", ".spec.stage"),
            column("Phase", ".status.phase"),
            column("Reason", ".status.conditions[?(@.type==\"Ready\")].reason"),
            wide("User", ".spec.user"),
            wide("Message", ".status.conditions[?(@.type==\"Ready\")].message"),
            AGE,
        ],
    },
    Kind {
        name: "Freeze",
        plural: "freezes",
        short: "frz",
        spec: "FreezeSpec",
        status: None,
        rules: &[],
        optional: &[],
        fixed: &[],
        selectable: &[],
        columns: &[
            column("Environments", ".spec.environments"),
            column("Reason", ".spec.reason"),
            READY,
            wide("User", ".spec.user"),
            wide("Message", ".status.conditions[?(@.type==\"Ready\")].message"),
            AGE,
        ],
    },
];

/// The definitions of all kinds, made from the schema of all resources (`stagegate schema`).
#[must_use]
pub fn all(schema: &Value) -> Vec<Value> {
    let definitions = Definitions::of(schema);
    KINDS.iter().map(|kind| definition(kind, &definitions)).collect()
}

fn definition(kind: &Kind, definitions: &Definitions<'_>) -> Value {
    let Kind {
        name, plural, short, ..
    } = kind;
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}"), "labels": {PART_OF: PART}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": format!("{name}List"),
                "plural": plural,
                "singular": name.to_lowercase(),
                "shortNames": [short],
                "categories": [CATEGORY],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": kind.columns.iter().map(printed).collect::<Vec<_>>(),
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": object(kind, definitions)},
            }],
        },
    });
    if !kind.selectable.is_empty() {
        let selected = kind
            .selectable
            .iter()
            .map(|key| json!({"jsonPath": format!(".spec.{key}")}));
        definition["spec"]["versions"][0]["selectableFields"] = selected.collect();
    }
    definition
}

fn printed(column: &Column) -> Value {
    json!({"name": column.name, "type": column.kind, "jsonPath": column.path, "priority": column.priority})
}

fn object(kind: &Kind, definitions: &Definitions<'_>) -> Value {
    let mut spec = definitions.structural(kind.spec);
    if !kind.rules.is_empty() {
        let rules = kind.rules.iter().map(|rule| {
            // One line, however it is wrapped here.
            let words: Vec<&str> = rule.rule.split_whitespace().collect();
            json!({"rule": words.join(" "), "message": rule.message})
        });
        structural::add_rules(&mut spec, rules);
    }
    if let Some(required) = spec.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|key| !kind.optional.iter().any(|optional| key == optional));
        if required.is_empty() {
            spec.remove("required");
        }
    }
    for key in kind.fixed {
        if let Some(property) = spec["properties"][*key].as_object_mut() {
            let message = format!("the {key} of an object does not change; make another");
            structural::add_rules(property, [json!({"rule": "self == oldSelf", "message": message})]);
        }
    }
    let mut status = match kind.status {
        Some(name) => definitions.structural(name),
        None => Map::from_iter([("type".to_owned(), json!("object"))]),
    };
    add_common_status(&mut status);
    add_fence(kind, &mut status);
    json!({
        "type": "object",
        "description": definitions.description(kind.name),
        "properties": {"spec": spec, "status": status},
        "required": ["spec"],
    })
}

/// What the controller keeps in a status so that an older one of it is refused, and no event is lost.
fn add_fence(kind: &Kind, status: &mut Map<String, Value>) {
    let counter =
        |description: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": description});
    let added = match kind.name {
        "Environment" => json!({
            "fence": counter("Rises each time that a controller takes the environment."),
            "lastHandledReconcileAt": {
                "type": "string",
                "maxLength": 253,
                "description": "The value of the annotation stagegate.dev/reconcile-at for which it was brought up last, or that was tried.",
            },
            "templates": {
                "type": "string",
                "maxLength": 71,
                "description": "Digest of the templates that there were when it was brought up last.",
            },
            "nodes": {
                "type": "array",
                "maxItems": 4096,
                "items": {"type": "string", "maxLength": 253},
                "description": "What it was brought up with; a node that its spec lists no more is refused as long as it is here.",
            },
            "left": {
                "type": "object",
                "description": "By component: the builds that its pods were left on, since when, and by which upgrade.",
                "x-kubernetes-preserve-unknown-fields": true,
            },
            "replica": {
                "type": "object",
                "description": "Its objects as they were seen last, and when it is to go.",
                "nullable": true,
                "x-kubernetes-preserve-unknown-fields": true,
            },
        }),
        "Upgrade" => json!({
            "fence": {
                "type": "object",
                "description": "Who wrote this status: nobody with a lower counter may write it again.",
                "properties": {
                    "home": {"type": "string", "maxLength": 64, "description": "Uid of the namespace that is served."},
                    "counter": counter("Of the environment, when it was taken."),
                },
            },
            "done": {"type": "string", "maxLength": 64, "description": "How many of its nodes have gone their way, as 2/3."},
            "driver": {"type": "string", "maxLength": 316, "description": "The process that drives it, or drove it last."},
            "writes": counter("Writes of this status."),
            "write": {"type": "string", "maxLength": 64, "description": "Names the last write of a driver."},
            "told": counter("Events so far."),
            "pending": pending(&counter, "upgrade"),
        }),
        "Promotion" => json!({
            "writes": counter("Writes of this status."),
            "told": counter("Events so far."),
            "pending": pending(&counter, "promotion"),
        }),
        _ => return,
    };
    if let (Some(Value::Object(properties)), Value::Object(added)) = (status.get_mut("properties"), added) {
        properties.extend(added);
    }
}

/// Events on their way into the history.
fn pending(counter: &dyn Fn(&str) -> Value, of: &str) -> Value {
    let text = |longest: u32| json!({"type": "string", "maxLength": longest});
    json!({
        "type": "array",
        "maxItems": 1000,
        "description": "Events that may not have been copied into the history yet.",
        "items": {
            "type": "object",
            "properties": {
                "seq": counter(&format!("Its place among the {of}'s events.")),
                "at": {"type": "string", "format": "date-time"},
                "reason": text(1024),
                "severity": text(64),
                "node": text(1024),
                "message": text(32_768),
                "act": {
                    "type": "object",
                    "description": "What the audit keeps of it.",
                    "x-kubernetes-preserve-unknown-fields": true,
                },
            },
        },
    })
}

/// What every status of Kubernetes has.
fn add_common_status(status: &mut Map<String, Value>) {
    let text =
        |description: &str, longest: u32| json!({"type": "string", "description": description, "maxLength": longest});
    let condition = json!({
        "type": "object",
        "properties": {
            "type": text("What it is about.", 316),
            "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "Of the spec that it was found with."},
            "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When its status changed last."},
            "reason": text("Why, in one word.", 1024),
            "message": text("Why, for people.", 32_768),
        },
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    });
    let properties = status
        .entry("properties")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .expect("the properties of a schema are a map");
    properties.insert(
        "observedGeneration".to_owned(),
        json!({"type": "integer", "format": "int64", "minimum": 0, "description": "Generation of the spec that this status is about."}),
    );
    properties.insert(
        "conditions".to_owned(),
        json!({
            "type": "array",
            "description": "What holds of it now, one of each type.",
            "maxItems": 64,
            "items": condition,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        }),
    );
    // It may not have been written yet, so nothing of it is required of who writes a part.
    status.remove("required");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(value: &Value, path: &str, look: &mut impl FnMut(&str, &Map<String, Value>)) {
        let Value::Object(schema) = value else {
            panic!("{path} is no schema: {value}")
        };
        look(path, schema);
        if let Some(properties) = schema.get("properties") {
            for (name, property) in properties.as_object().expect("a map") {
                walk(property, &format!("{path}.{name}"), look);
            }
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(inner) {
                walk(inner, &format!("{path}[]"), look);
            }
        }
    }

    #[test]
    fn every_schema_is_structural() {
        for definition in all(&crate::cli::schema()) {
            let name = definition["metadata"]["name"].as_str().expect("a name");
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            walk(schema, name, &mut |path, schema| {
                for keyword in [
                    "$ref", "oneOf", "anyOf", "allOf", "const", "title", "examples", "default",
                ] {
                    assert!(!schema.contains_key(keyword), "{path}: {keyword}");
                }
                let open = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
                let typed = schema.get("type").is_some_and(Value::is_string);
                assert!(
                    typed || open.iter().any(|open| schema.contains_key(*open)),
                    "{path} has no type"
                );
                assert!(
                    !(schema.contains_key("properties") && schema.contains_key("additionalProperties")),
                    "{path} has named and other properties"
                );
            });
        }
    }

    #[test]
    fn what_is_one_of_several_is_exactly_one() {
        let definitions = all(&crate::cli::schema());
        let source = &definitions[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["components"]["items"]["properties"]["source"];
        let rule = source["x-kubernetes-validations"][0]["rule"].as_str().expect("a rule");
        assert_eq!(
            rule, "[has(self.packageIndex), has(self.directory), has(self.images)].exists_one(given, given)",
            "{source:#}"
        );
    }
}

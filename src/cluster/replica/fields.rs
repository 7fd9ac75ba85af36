//! Who holds which fields of an object (`metadata.managedFields`), and what of an object is compared. Pure.

use serde_json::{Map, Value, json};

use super::plan::Manages;
use crate::model::text::Path;
use crate::model::text::path::Part;

/// Whether a manager has applied an object.
#[must_use]
pub fn manages(live: &Value, manager: &str) -> Manages {
    if entries(live).any(|entry| entry["manager"] == manager && entry["operation"] == "Apply") {
        Manages::Yes
    } else {
        Manages::No
    }
}

/// Who holds a field of an object, but for one manager.
#[must_use]
pub fn holders(live: &Value, path: &Path, but: &str) -> Vec<String> {
    let mut holders: Vec<String> = entries(live)
        .filter(|entry| entry["manager"] != but && holds(&entry["fieldsV1"], live, path.parts()))
        .filter_map(|entry| entry["manager"].as_str().map(str::to_owned))
        .collect();
    holders.sort();
    holders.dedup();
    holders
}

fn entries(live: &Value) -> impl Iterator<Item = &Value> {
    live["metadata"]["managedFields"].as_array().into_iter().flatten()
}

fn holds(fields: &Value, value: &Value, path: &[Part]) -> bool {
    let Some(fields) = fields.as_object() else { return false };
    let Some((step, rest)) = path.split_first() else {
        return true;
    };
    if is_leaf(fields) {
        return true;
    }
    let element = match (step, value) {
        (Part::Key(name), Value::Array(items)) => items.iter().find(|item| item["name"] == name.as_str()),
        (Part::Index(index), Value::Array(items)) => items.get(*index),
        (Part::Key(name), _) => {
            let inner = fields.get(&format!("f:{name}"));
            return inner.is_some_and(|inner| holds(inner, &value[name], rest));
        }
        (Part::Index(_), _) => None,
    };
    let Some(element) = element else { return false };
    fields
        .iter()
        .any(|(key, inner)| names(key, element) && holds(inner, element, rest))
}

/// Holds all that is below, or nothing but itself.
fn is_leaf(fields: &Map<String, Value>) -> bool {
    fields.keys().all(|key| key == ".")
}

/// Whether a key of `fieldsV1` names this element of a list.
fn names(key: &str, element: &Value) -> bool {
    if let Some(keys) = key.strip_prefix("k:") {
        let Ok(Value::Object(keys)) = serde_json::from_str(keys) else {
            return false;
        };
        keys.iter().all(|(key, value)| element[key] == *value)
    } else if let Some(value) = key.strip_prefix("v:") {
        serde_json::from_str::<Value>(value).is_ok_and(|value| value == *element)
    } else {
        false
    }
}

/// What takes a manager out of those who hold fields of an object, as a patch that is refused once somebody has written it;
/// nothing where it holds none. Status and scale are written by calls of their own, so what is held by those stays.
#[must_use]
pub fn without(live: &Value, manager: &str) -> Option<Value> {
    let goes = |entry: &Value| entry["manager"] == manager && entry["subresource"].is_null();
    let left: Vec<&Value> = entries(live).filter(|entry| !goes(entry)).collect();
    if left.len() == entries(live).count() {
        return None;
    }
    let version = &live["metadata"]["resourceVersion"];
    Some(json!({"metadata": {"resourceVersion": version, "managedFields": left}}))
}

/// How far a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolled {
    /// Pods that are ready.
    pub ready: u64,
    /// Pods that there should be.
    pub wanted: u64,
    /// Whether it has come to its end.
    pub roll: Roll,
}

/// Whether a roll goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roll {
    /// Every pod is there, ready, and of the template unless something holds it back.
    Ended,
    /// Not yet.
    GoesOn,
}

/// How far a `StatefulSet` or a Deployment is, as `kubectl rollout status` reads it: one whose old pods are all ready may be about to
/// replace them. A Deployment names no revisions in its status.
#[must_use]
pub fn rolled(live: &Value) -> Rolled {
    let (spec, status) = (&live["spec"], &live["status"]);
    let count = |key: &str| status[key].as_u64().unwrap_or_default();
    let (wanted, ready) = (spec["replicas"].as_u64().unwrap_or(1), count("readyReplicas"));
    let is_seen = !live.is_null() && status["observedGeneration"] == live["metadata"]["generation"];
    let strategy = &spec["updateStrategy"];
    let holds_back =
        strategy["type"] == "OnDelete" || strategy["rollingUpdate"]["partition"].as_u64().unwrap_or_default() > 0;
    // Its controller leaves `currentRevision` where it was in a set without pods.
    let is_of_template =
        wanted == 0 || count("updatedReplicas") == wanted && status["currentRevision"] == status["updateRevision"];
    // A Deployment has old pods beside the new ones while it rolls, and they are ready.
    let is_alone = spec["strategy"].is_null()
        || count("replicas") == count("updatedReplicas") && count("availableReplicas") >= wanted;
    Rolled {
        ready,
        wanted,
        roll: if is_seen && ready == wanted && is_alone && (holds_back || is_of_template) {
            Roll::Ended
        } else {
            Roll::GoesOn
        },
    }
}

/// An object without what says nothing of how it is wanted: its history, and its status.
#[must_use]
pub fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(all) = object.as_object_mut() {
        all.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for key in [
            "managedFields",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "uid",
            "selfLink",
        ] {
            metadata.remove(key);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Value {
        json!({
            "metadata": {"managedFields": [
                {"manager": "stagegate-replica", "operation": "Apply", "fieldsV1": {
                    "f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {}}}}
                }},
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {
                    "f:spec": {"f:replicas": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {"f:hostPort": {}}}}
                }},
                {"manager": "stagegate", "operation": "Update", "fieldsV1": {
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"web\"}": {"f:image": {}}},
                        "f:updateStrategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:partition": {}}}
                    }
                }},
            ]},
            "spec": {
                "replicas": 3,
                "containers": [{"name": "log", "image": "l"}, {"name": "web", "image": "2"}],
                "ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 8080}],
            },
        })
    }

    #[test]
    fn a_field_is_found_with_who_holds_it() {
        let of = |path: &str| holders(&live(), &path.parse().expect("a path"), "stagegate-replica").join(",");
        assert_eq!(of("spec.replicas"), "kubectl-edit");
        assert_eq!(of("spec.containers.web.image"), "stagegate");
        assert_eq!(of("spec.containers.log.image"), "");
        assert_eq!(of("spec.ports[0].hostPort"), "kubectl-edit");
        assert_eq!(of("spec.ports[0].name"), "");
        assert_eq!(manages(&live(), "stagegate-replica"), Manages::Yes);
        assert_eq!(manages(&live(), "stagegate"), Manages::No);
    }

    #[test]
    fn a_manager_is_taken_out_of_an_object_that_nobody_has_written_since() {
        let mut live = live();
        live["metadata"]["resourceVersion"] = json!("7");
        let patch = without(&live, "stagegate").expect("it holds some");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let left = patch["metadata"]["managedFields"].as_array().expect("a list");
        let names: Vec<&Value> = left.iter().map(|entry| &entry["manager"]).collect();
        assert_eq!(names, ["stagegate-replica", "kubectl-edit"]);
        assert_eq!(without(&live, "somebody"), None);
    }

    #[test]
    fn a_set_has_rolled_once_its_pods_are_of_its_template() {
        let set = |updated: u64, current: &str, strategy: Value| {
            json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 2, "updateStrategy": strategy},
                "status": {
                    "observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": updated,
                    "currentRevision": current, "updateRevision": "b",
                },
            })
        };
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
        for (live, end) in [
            (set(2, "b", rolling.clone()), Roll::Ended),
            // Every old pod is ready, and none is new.
            (set(0, "a", rolling.clone()), Roll::GoesOn),
            (set(2, "a", rolling), Roll::GoesOn),
            (
                set(
                    0,
                    "a",
                    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}),
                ),
                Roll::Ended,
            ),
            (set(0, "a", json!({"type": "OnDelete"})), Roll::Ended),
            (Value::Null, Roll::GoesOn),
        ] {
            assert_eq!(rolled(&live).roll, end, "{live:#}");
        }
    }

    #[test]
    fn a_deployment_has_rolled_once_none_of_its_old_pods_is_left() {
        let deployment = |all: u64, updated: u64, available: u64| {
            json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 3, "strategy": {"type": "RollingUpdate"}},
                "status": {
                    "observedGeneration": 2, "replicas": all, "readyReplicas": 3, "updatedReplicas": updated,
                    "availableReplicas": available,
                },
            })
        };
        for (live, end) in [
            (deployment(3, 3, 3), Roll::Ended),
            // Two new ones are ready, and one old.
            (deployment(4, 3, 3), Roll::GoesOn),
            (deployment(3, 2, 3), Roll::GoesOn),
            // Ready, and not for as long as `minReadySeconds` say.
            (deployment(3, 3, 2), Roll::GoesOn),
        ] {
            assert_eq!(rolled(&live).roll, end, "{live:#}");
        }
    }
}

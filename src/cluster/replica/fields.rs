//! Who holds which fields of an object (`metadata.managedFields`), and what of an object is compared. Pure.

use serde_json::{Map, Value};

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

/// Leaves out of what is wanted the fields of an object that another manager holds: what an upgrade has moved since is its to say.
pub fn leave_to(wanted: &mut Value, live: &Value, manager: &str) {
    for entry in entries(live).filter(|entry| entry["manager"] == manager && entry["operation"] == "Update") {
        if let Some(fields) = entry["fieldsV1"].as_object() {
            leave(wanted, fields);
        }
    }
}

fn leave(wanted: &mut Value, fields: &Map<String, Value>) {
    for (key, inner) in fields {
        let Some(inner) = inner.as_object() else { continue };
        if let Some(name) = key.strip_prefix("f:") {
            let Some(map) = wanted.as_object_mut() else { continue };
            if is_leaf(inner) {
                map.remove(name);
            } else if let Some(below) = map.get_mut(name) {
                leave(below, inner);
            }
        } else if let Some(items) = wanted.as_array_mut() {
            for item in items.iter_mut().filter(|item| names(key, item)) {
                leave(item, inner);
            }
        }
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
    use serde_json::json;

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
    fn what_an_upgrade_has_moved_is_left_to_it_and_nothing_else() {
        let mut wanted = json!({"spec": {
            "replicas": 1,
            "containers": [{"name": "log", "image": "l"}, {"name": "web", "image": "1", "args": []}],
            "updateStrategy": {"type": "RollingUpdate"},
        }});
        leave_to(&mut wanted, &live(), "stagegate");
        assert_eq!(
            wanted,
            json!({"spec": {
                "replicas": 1,
                "containers": [{"name": "log", "image": "l"}, {"name": "web", "args": []}],
                "updateStrategy": {},
            }})
        );
    }
}

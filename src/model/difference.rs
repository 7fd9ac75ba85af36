//! How two values differ, by path.

use std::collections::BTreeSet;

use serde_json::Value;

use super::text::path::Part;
use super::text::{Path, PathPattern};

/// One place where two values differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where. An element of a list whose elements have names is a step by its name.
    pub path: Path,
    /// What the first has there; nothing where it has nothing.
    pub one: Option<Value>,
    /// What the other has there.
    pub other: Option<Value>,
}

/// Every place where two values differ, the deepest that both have. Where the elements of a list have names and are in another order,
/// that is one more, at the list, with the names in their order.
#[must_use]
pub fn differences(one: &Value, other: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&Path::root(), Some(one), Some(other), &mut found);
    found
}

fn compare(path: &Path, one: Option<&Value>, other: Option<&Value>, found: &mut Vec<Difference>) {
    match (one, other) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                compare(&path.key(key.as_str()), a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => match (names(a), names(b)) {
            (Some(in_a), Some(in_b)) => {
                let named = |list: &'_ [&str], name: &str| list.iter().position(|n| *n == name);
                let all: BTreeSet<&str> = in_a.iter().chain(&in_b).copied().collect();
                for name in all {
                    let of_a = named(&in_a, name).map(|i| &a[i]);
                    let of_b = named(&in_b, name).map(|i| &b[i]);
                    compare(&path.key(name), of_a, of_b, found);
                }
                // Init containers run in turn, and a variable sees those before it: what is in both has one order in both.
                let (order_a, order_b) = (common(&in_a, &in_b), common(&in_b, &in_a));
                if order_a != order_b {
                    found.push(Difference {
                        path: path.clone(),
                        one: Some(order_a.into()),
                        other: Some(order_b.into()),
                    });
                }
            }
            _ => {
                for i in 0..a.len().max(b.len()) {
                    compare(&path.index(i), a.get(i), b.get(i), found);
                }
            }
        },
        (one, other) if one == other => {}
        (one, other) => found.push(Difference {
            path: path.clone(),
            one: one.cloned(),
            other: other.cloned(),
        }),
    }
}

fn common<'n>(names: &[&'n str], others: &[&str]) -> Vec<&'n str> {
    names.iter().copied().filter(|name| others.contains(name)).collect()
}

/// Whether a text states what stands at a path, there or above it: as a replica's file states what it does not inherit.
#[must_use]
pub fn states(text: &Value, path: &Path) -> bool {
    let mut here = text;
    for part in path.parts() {
        // A value that is no map is stated whole, and so is an element that is taken out.
        let next = match (part, here) {
            (Part::Key(key), Value::Object(map)) if map.contains_key("$patch") && !map.contains_key(key) => {
                return true;
            }
            (Part::Key(key), Value::Object(map)) => map.get(key),
            (Part::Key(name), Value::Array(items)) if names(items).is_some() => {
                items.iter().find(|item| item["name"] == name.as_str())
            }
            _ => return true,
        };
        match next {
            Some(next) => here = next,
            None => return false,
        }
    }
    true
}

/// Whether a pattern names a path or something above it.
#[must_use]
pub fn covers(pattern: &PathPattern, path: &Path) -> bool {
    let parts = path.parts();
    (1..=parts.len()).any(|n| pattern.matches(&parts[..n].iter().cloned().collect()))
}

/// The names of a list's elements, if each has one of its own.
fn names(list: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<&str> = list.iter().filter_map(|item| item["name"].as_str()).collect();
    let own: BTreeSet<&&str> = names.iter().collect();
    (!list.is_empty() && own.len() == list.len()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn shown(one: &Value, other: &Value) -> Vec<String> {
        differences(one, other).iter().map(|d| d.path.to_string()).collect()
    }

    #[test]
    fn elements_with_names_are_compared_by_name_and_others_by_place() {
        let one = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], "args": [1, 2]});
        let other = json!({"containers": [{"name": "b", "image": "2"}], "args": [1, 3, 4], "more": {}});
        assert_eq!(
            shown(&one, &other),
            ["args[1]", "args[2]", "containers.a", "containers.b.image", "more"]
        );
    }

    #[test]
    fn another_order_of_the_same_names_is_a_difference() {
        let one = json!({"init": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
        let other = json!({"init": [{"name": "b"}, {"name": "a"}, {"name": "d"}]});
        let found = differences(&one, &other);
        assert_eq!(shown(&one, &other), ["init.c", "init.d", "init"]);
        assert_eq!(found[2].one, Some(json!(["a", "b"])));
        assert_eq!(found[2].other, Some(json!(["b", "a"])));
    }

    #[test]
    fn what_a_replica_states_is_told_from_what_it_inherits() {
        let own = json!({
            "variables": {"replicas": 1},
            "components": [{"name": "web", "actions": null, "rollout": {"soak": "1s"}}, {"name": "old", "$patch": "delete"}],
            "packages": ["a", "b"],
        });
        for (path, stated) in [
            ("variables.replicas", true),
            ("variables.greeting", false),
            ("components.web.actions.start.template", true),
            ("components.web.rollout.soak", true),
            ("components.web.rollout.baseline", false),
            ("components.old", true),
            ("components.old.ports.http", true),
            ("components.other", false),
            ("packages[1]", true),
            ("description", false),
        ] {
            assert_eq!(states(&own, &path.parse().expect("a path")), stated, "{path}");
        }
    }

    #[test]
    fn what_is_expected_somewhere_is_expected_below() {
        let covered =
            |pattern: &str, path: &str| covers(&pattern.parse().expect("a pattern"), &path.parse().expect("a path"));
        assert!(covered("builds.web", "builds.web"));
        assert!(covered("databases.*.tables", "databases.main.tables.a.columns.b"));
        assert!(!covered("databases.*.tables", "databases.main.types.a"));
        assert!(!covered("builds.web.more", "builds.web"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]|name", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_equal_differs_nowhere_and_what_is_not_somewhere(one in value(), other in value()) {
            prop_assert!(differences(&one, &one).is_empty());
            prop_assert_eq!(differences(&one, &other).is_empty(), one == other);
            prop_assert_eq!(differences(&one, &other).len(), differences(&other, &one).len());
        }
    }
}

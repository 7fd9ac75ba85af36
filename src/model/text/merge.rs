//! Laying a replica over its base: `replicaOf: production` states only what differs.
//!
//! The rules are those of Kubernetes' strategic merge, with `name` as the key of every list:
//! - Maps merge key by key: the base's keys first, in their order, then new ones. A key stated as `null` is removed.
//! - A list whose elements all have a `name`, in the base and in the replica, merges by name: the base's elements
//!   first, in their order, then new ones. `{name: x, $patch: delete}` removes an element; removing one that is not
//!   there is a problem, since a mistyped name would leave in what was meant to go.
//! - Where a name stands twice in either list (a probe for two ranges of builds), merging by name would be a guess:
//!   the replica's list replaces the base's.
//! - The lists of the caller's patterns are replaced, though their elements have names: a replica has fewer nodes. A map there
//!   that has one key, its kind, is replaced where the replica's has one of another kind: a source of images is none of packages.
//! - Everything else is replaced: scalars, other lists, and values of different kinds. What a replica states inside a
//!   list that replaces another stays as written, nulls too.
//!
//! Every value keeps its place in the text that stated it. A map or list that both state stands where the replica
//! does: if the merge lacks something, the replica took it away.

use std::collections::{HashMap, HashSet};

use super::path::{Path, PathPattern};
use super::problem::{Problem, Problems};
use super::suggest::did_you_mean;
use super::tree::{Key, Node, Value};
use super::words::{one_of, quoted};

/// The key that marks an element of the replica's list, as Kubernetes writes it; its only value here is `delete`.
pub const PATCH_KEY: &str = "$patch";

/// `replica` laid over `base`. `at` is the path of both in their documents; the lists at `replaced` paths are
/// replaced, not merged, and so are maps of another kind.
pub fn merge(base: &Node, replica: &Node, at: &Path, replaced: &[PathPattern], problems: &mut Problems) -> Node {
    Merge { replaced, problems }.over(Some(base), replica, at)
}

struct Merge<'m> {
    replaced: &'m [PathPattern],
    problems: &'m mut Problems,
}

impl Merge<'_> {
    fn over(&mut self, base: Option<&Node>, replica: &Node, at: &Path) -> Node {
        let value = match (base.map(|base| &base.value), &replica.value) {
            (Some(Value::Map(base)), Value::Map(replica)) if !self.is_another_kind(base, replica, at) => {
                Value::Map(self.maps(base, replica, at))
            }
            // Laid over nothing, so that what it says about absence (`null`) is understood here too.
            (_, Value::Map(replica)) => Value::Map(self.maps(&[], replica, at)),
            (Some(Value::Seq(base)), Value::Seq(replica)) => Value::Seq(self.lists(base, replica, at)),
            (_, Value::Seq(replica)) => Value::Seq(self.lists(&[], replica, at)),
            (_, other) => other.clone(),
        };
        Node {
            span: replica.span,
            value,
        }
    }

    fn is_another_kind(&self, base: &[(Key, Node)], replica: &[(Key, Node)], at: &Path) -> bool {
        let ([(theirs, _)], [(ours, _)]) = (base, replica) else {
            return false;
        };
        theirs.name != ours.name && self.replaced.iter().any(|pattern| pattern.matches(at))
    }

    fn maps(&mut self, base: &[(Key, Node)], replica: &[(Key, Node)], at: &Path) -> Vec<(Key, Node)> {
        let stated: HashMap<&str, &(Key, Node)> = replica.iter().map(|entry| (entry.0.name.as_str(), entry)).collect();
        let inherited: HashSet<&str> = base.iter().map(|(key, _)| key.name.as_str()).collect();
        let from_base = base
            .iter()
            .map(|(key, node)| (key, Some(node), stated.get(key.name.as_str()).copied()));
        let new = replica.iter().filter(|(key, _)| !inherited.contains(key.name.as_str()));
        let mut merged = Vec::new();
        for (key, base, stated) in from_base.chain(new.map(|entry| (&entry.0, None, Some(entry)))) {
            match (stated, base) {
                (None, Some(base)) => merged.push((key.clone(), base.clone())),
                (Some((_, Node { value: Value::Null, .. })) | None, _) => {}
                (Some((key, node)), base) => merged.push((key.clone(), self.over(base, node, &at.key(&key.name)))),
            }
        }
        merged
    }

    fn lists(&mut self, base: &[Node], replica: &[Node], at: &Path) -> Vec<Node> {
        if replica.is_empty() || self.replaced.iter().any(|pattern| pattern.matches(at)) {
            return replica.to_vec();
        }
        match (by_name(base), by_name(replica)) {
            (Some(base), Some(replica)) => self.named_lists(&base, &replica, at),
            _ => replica.to_vec(),
        }
    }

    fn named_lists(&mut self, base: &[(&str, &Node)], replica: &[(&str, &Node)], at: &Path) -> Vec<Node> {
        let stated: HashMap<&str, &Node> = replica.iter().copied().collect();
        let inherited: HashSet<&str> = base.iter().map(|(name, _)| *name).collect();
        let mut merged = Vec::new();
        for (name, element) in base {
            match stated.get(name) {
                None => merged.push((*element).clone()),
                Some(stated) if self.removes(stated, at) => {}
                Some(stated) => merged.push(self.over(Some(element), stated, &at.index(merged.len()))),
            }
        }
        for (name, element) in replica.iter().filter(|(name, _)| !inherited.contains(name)) {
            if self.removes(element, at) {
                self.problems.push(nothing_to_remove(name, element, base, at));
            } else {
                merged.push(self.over(None, element, &at.index(merged.len())));
            }
        }
        merged
    }

    fn removes(&mut self, element: &Node, list: &Path) -> bool {
        let Some((key, node)) = element.entry(PATCH_KEY) else {
            return false;
        };
        if node.as_str() != Some("delete") {
            let problem = Problem::new(format!("{} can only be `delete`", quoted(PATCH_KEY))).at(list.clone());
            self.problems.push(
                problem
                    .span(key.span)
                    .hint("leave it out to merge this element into the base's"),
            );
        }
        true
    }
}

fn nothing_to_remove(name: &str, element: &Node, base: &[(&str, &Node)], list: &Path) -> Problem {
    let names: Vec<&str> = base.iter().map(|(name, _)| *name).collect();
    let hint = match did_you_mean(name, names.iter().copied()) {
        Some(near) => format!("did you mean {}?", quoted(near)),
        None => format!("the base has {}", one_of(&names)),
    };
    let span = element.get("name").map_or(element.span, |name| name.span);
    Problem::new(format!("there is no {} in the base to delete", quoted(name)))
        .at(list.clone())
        .span(span)
        .hint(hint)
}

/// The elements with their names, if each has one and none stands twice.
fn by_name(list: &[Node]) -> Option<Vec<(&str, &Node)>> {
    let mut seen = HashSet::new();
    list.iter()
        .map(|element| {
            let name = element.get("name")?.as_str()?;
            seen.insert(name).then_some((name, element))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::{Ink, Sources, to_yaml, tree};
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn parsed(sources: &mut Sources, name: &str, text: &str) -> Node {
        let id = sources.add(name, text);
        let mut problems = Problems::new();
        let mut documents = tree::parse(sources, id, &mut problems);
        assert!(problems.is_empty(), "{}", problems.render(sources, Ink::Plain));
        documents.remove(0)
    }

    fn merged(base: &str, replica: &str) -> String {
        let mut sources = Sources::new();
        let (base, replica) = (
            parsed(&mut sources, "base", base),
            parsed(&mut sources, "replica", replica),
        );
        let mut problems = Problems::new();
        let nodes = ["nodes", "source"].map(|key| format!("spec.components[*].{key}").parse().unwrap());
        let node = merge(&base, &replica, &Path::root(), &nodes, &mut problems);
        if problems.is_empty() {
            to_yaml(&node.to_json()).unwrap()
        } else {
            problems.render(&sources, Ink::Plain)
        }
    }

    #[test]
    fn maps_merge_by_key_and_null_removes() {
        let got = merged(
            "a: {x: 1, y: 2, z: 3}\nb: 4\n",
            "c: 5\na: {z: ~, y: {n: 1, m: null}}\nd: ~\n",
        );
        insta::assert_snapshot!(got, @r#"
        a:
          x: 1
          "y":
            "n": 1
        b: 4
        c: 5
        "#);
    }

    #[test]
    fn named_lists_merge_by_name_in_the_order_of_the_base() {
        let base = "l:\n- {name: a, v: 1, w: 1}\n- {name: b, v: 2}\n- {name: c}\n";
        let replica = "l:\n- {name: d}\n- {name: c, $patch: delete}\n- {name: a, v: 9}\n";
        insta::assert_snapshot!(merged(base, replica), @"
        l:
        - name: a
          v: 9
          w: 1
        - name: b
          v: 2
        - name: d
        ");
    }

    #[test]
    fn a_list_of_doubled_names_is_replaced_whole() {
        let twice = "probes: [{name: alive, builds: <1}, {name: alive, builds: '>=1'}]\n";
        let once = "probes: [{name: alive, path: /x}]\n";
        insta::assert_snapshot!(merged(twice, once), @"
        probes:
        - name: alive
          path: /x
        ");
        insta::assert_snapshot!(merged(once, twice), @r#"
        probes:
        - name: alive
          builds: <1
        - name: alive
          builds: ">=1"
        "#);
    }

    #[test]
    fn lists_at_replaced_paths_and_lists_without_names_are_replaced() {
        let base =
            "spec: {components: [{name: db, nodes: [{name: n1}, {name: n2}], ports: [1, 2], flags: [{name: x}]}]}\n";
        let replica = "spec: {components: [{name: db, nodes: [{name: n9}], ports: [3], flags: []}]}\n";
        insta::assert_snapshot!(merged(base, replica), @"
        spec:
          components:
          - name: db
            nodes:
            - name: n9
            ports:
            - 3
            flags: []
        ");
    }

    #[test]
    fn a_value_of_another_kind_replaces_and_one_of_the_same_merges() {
        let over = |source: &str| {
            let base = "spec: {components: [{name: db, source: {images: {repository: r, digests: {a: 1}}}}]}\n";
            let replica = format!("spec: {{components: [{{name: db, source: {source}}}]}}\n");
            merged(base, &replica)
                .lines()
                .skip(3)
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(over("{directory: builds}"), "source: directory: builds");
        assert_eq!(
            over("{images: {digests: {b: 2}}}"),
            "source: images: repository: r digests: a: 1 b: 2"
        );
    }

    #[test]
    fn removing_what_is_not_there_is_a_problem() {
        let base = "l: [{name: jedi}, {name: server}]\n";
        insta::assert_snapshot!(merged(base, "l:\n- {name: jeda, $patch: delete}\n- {name: jedi, $patch: replace}\n"), @"
        error: there is no `jeda` in the base to delete
         --> replica:2:10
          |
        2 | - {name: jeda, $patch: delete}
          |          ^^^^ l
          |
          = help: did you mean `jedi`?

        error: `$patch` can only be `delete`
         --> replica:3:16
          |
        3 | - {name: jedi, $patch: replace}
          |                ^^^^^^ l
          |
          = help: leave it out to merge this element into the base's
        ");
    }

    #[test]
    fn every_value_keeps_the_place_that_stated_it() {
        let mut sources = Sources::new();
        let base = parsed(&mut sources, "base", "a: 1\nb: {c: 2, d: 3}\n");
        let replica = parsed(&mut sources, "replica", "b: {d: 4}\n");
        let node = merge(&base, &replica, &Path::root(), &[], &mut Problems::new());
        let file = |path: &str| sources.name(node.nearest_span(&path.parse().unwrap()).source);
        assert_eq!(
            [file("a"), file("b.c"), file("b.d"), file("b")],
            ["base", "base", "replica", "replica"]
        );
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (0..4).prop_map(Json::from)
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
                proptest::collection::btree_map("[a-c]", inner.clone(), 0..4).prop_map(|map| json!(map)),
                proptest::collection::vec(("[a-c]", proptest::collection::btree_map("[a-c]", inner, 0..3)), 0..4)
                    .prop_map(named_list),
            ]
        })
    }

    fn named_list(elements: Vec<(String, std::collections::BTreeMap<String, Json>)>) -> Json {
        let element = |(name, rest): (String, std::collections::BTreeMap<String, Json>)| {
            let mut element = json!({ "name": name });
            element.as_object_mut().unwrap().extend(rest);
            element
        };
        elements.into_iter().map(element).collect()
    }

    fn any_map() -> impl Strategy<Value = Json> {
        proptest::collection::btree_map("[a-c]", any_json(), 0..4).prop_map(|map| json!(map))
    }

    fn node(sources: &mut Sources, json: &Json) -> Node {
        let text = json.to_string();
        parsed(sources, "generated", &text)
    }

    fn merge_json(base: &Node, replica: &Node) -> Node {
        merge(base, replica, &Path::root(), &[], &mut Problems::new())
    }

    proptest! {
        #[test]
        fn a_replica_that_states_nothing_is_its_base(base in any_map()) {
            let mut sources = Sources::new();
            let (base, nothing) = (node(&mut sources, &base), node(&mut sources, &json!({})));
            let merged = merge_json(&base, &nothing);
            prop_assert_eq!(merged.value, base.value);
        }
    }
}

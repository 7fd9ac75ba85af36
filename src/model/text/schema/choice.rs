//! Which branch of a `oneOf` or `anyOf` a value means to be: decided by one look at the value, so that the problems
//! reported are those of the branch that was meant, and a choice costs no trial of every branch.

use serde_json::Value as Json;

use super::view::{View, word};
use super::{Spot, unknown_word};
use crate::model::text::problem::Problem;
use crate::model::text::suggest::did_you_mean;
use crate::model::text::tree::{Node, Value};
use crate::model::text::words::{alternatives, found, one_of, quoted};

/// A branch and its view.
struct Branch<'s> {
    schema: &'s Json,
    view: View<'s>,
}

/// The branch that the value at `spot` is to be checked against, or why it can be none.
pub(super) fn pick<'s>(root: &'s Json, branches: &[&'s Json], spot: &Spot<'_>) -> Result<&'s Json, Problem> {
    let branches: Vec<Branch<'s>> =
        branches.iter().map(|schema| Branch { schema, view: View::of(root, schema) }).collect();
    let node = spot.node;
    let is_null = node.value == Value::Null;
    if let Some(null) = branches.iter().find(|branch| is_null && branch.view.may_accept(root, node)) {
        return Ok(null.schema);
    }
    let candidates: Vec<&Branch<'s>> = branches.iter().filter(|branch| !branch.view.is_null_only()).collect();
    if let [only] = candidates.as_slice() {
        return Ok(only.schema);
    }
    let fitting: Vec<&Branch<'s>> =
        candidates.iter().copied().filter(|branch| branch.view.may_accept(root, node)).collect();
    match (&node.value, fitting.as_slice()) {
        (_, []) => Err(none_fits(root, &candidates, spot)),
        (Value::Map(_), fitting) => pick_map(fitting, spot),
        (_, [only]) if only.view.allowed_values().is_none() => Ok(only.schema),
        (Value::Seq(items), fitting) => Ok(pick_seq(root, fitting, items)),
        (_, fitting) => pick_scalar(&candidates, fitting, spot),
    }
}

fn none_fits(root: &Json, candidates: &[&Branch<'_>], spot: &Spot<'_>) -> Problem {
    let tags: Vec<&str> = candidates.iter().filter_map(|branch| branch.view.external_tag()).collect();
    if let Some(tag) = spot.node.as_str().filter(|typed| tags.contains(typed)) {
        let message = format!("{} needs a value of its own", quoted(tag));
        return spot.problem(message).hint(format!("write `{tag}:` as a key, with what belongs to it below"));
    }
    let mut expected: Vec<String> = Vec::new();
    for phrase in candidates.iter().map(|branch| branch.view.expected(root)) {
        if !expected.contains(&phrase) {
            expected.push(phrase);
        }
    }
    spot.problem(format!("expected {}, found {}", alternatives(&expected), found(spot.node)))
}

/// A string, number or boolean: a variant without content, or any branch that takes such a value.
fn pick_scalar<'s>(candidates: &[&Branch<'s>], fitting: &[&Branch<'s>], spot: &Spot<'_>) -> Result<&'s Json, Problem> {
    let value = spot.node.to_json();
    let mut words = Vec::new();
    for branch in fitting {
        match branch.view.allowed_values() {
            None => return Ok(branch.schema),
            Some(allowed) if allowed.contains(&&value) => return Ok(branch.schema),
            Some(allowed) => words.extend(allowed.iter().map(|value| word(value))),
        }
    }
    let tags: Vec<String> =
        candidates.iter().filter_map(|branch| branch.view.external_tag()).map(|tag| format!("{tag}: …")).collect();
    words.extend(tags);
    Err(unknown_word(spot, &words))
}

/// A list: the branch whose elements are of the type of the first.
fn pick_seq<'s>(root: &'s Json, fitting: &[&Branch<'s>], items: &[Node]) -> &'s Json {
    let suits = |branch: &&&Branch<'s>| match (branch.view.item(0), items.first()) {
        (Some(schema), Some(first)) => View::of(root, schema).may_accept(root, first),
        (None, _) | (_, None) => true,
    };
    fitting.iter().find(suits).unwrap_or(&fitting[0]).schema
}

fn pick_map<'s>(fitting: &[&Branch<'s>], spot: &Spot<'_>) -> Result<&'s Json, Problem> {
    let tags: Vec<&'s str> = fitting.iter().filter_map(|branch| branch.view.external_tag()).collect();
    if tags.len() == fitting.len() {
        return pick_by_key(fitting, &tags, spot);
    }
    let named = |name: &&str| fitting.iter().all(|branch| branch.view.constant(name).is_some());
    if let Some(tag) = fitting[0].view.property_names().into_iter().find(named) {
        return pick_by_tag(fitting, tag, spot);
    }
    // Untagged: the branch that leaves the fewest keys missing or unknown, the first of equals, as serde would.
    let strangeness = |branch: &&&Branch<'s>| {
        let has = |name: &str| spot.node.get(name).is_some();
        let missing = branch.view.required().into_iter().filter(|name| !has(name)).count();
        let known = branch.view.property_names();
        let unknown = spot.node.entries().iter().filter(|(key, _)| !known.contains(&key.name.as_str())).count();
        missing + unknown
    };
    Ok(fitting.iter().min_by_key(strangeness).unwrap_or(&fitting[0]).schema)
}

/// Externally tagged: the one key says which variant it is.
fn pick_by_key<'s>(fitting: &[&Branch<'s>], tags: &[&'s str], spot: &Spot<'_>) -> Result<&'s Json, Problem> {
    let mut present = spot.node.entries().iter().filter(|(key, _)| tags.contains(&key.name.as_str()));
    match (present.next(), present.next()) {
        (Some((first, _)), Some((second, _))) => {
            let message = format!("{} cannot stand beside {}", quoted(&second.name), quoted(&first.name));
            let hint = format!("keep exactly one of {}", one_of(tags));
            Err(Problem::new(message).at(spot.at.key(&second.name)).span(second.span).hint(hint))
        }
        (Some((only, _)), None) => {
            let chosen = fitting.iter().find(|branch| branch.view.external_tag() == Some(only.name.as_str()));
            Ok(chosen.unwrap_or(&fitting[0]).schema)
        }
        (None, _) => Err(no_tag(tags, spot)),
    }
}

fn no_tag(tags: &[&str], spot: &Spot<'_>) -> Problem {
    let Some((key, _)) = spot.node.entries().first() else {
        return spot.problem(format!("expected one of the keys {}, found an empty map", one_of(tags)));
    };
    let hint = match did_you_mean(&key.name, tags.iter().copied()) {
        Some(near) => format!("did you mean {}?", quoted(near)),
        None => format!("exactly one key is expected here: {}", one_of(tags)),
    };
    Problem::new(format!("unknown key {}", quoted(&key.name))).at(spot.at.key(&key.name)).span(key.span).hint(hint)
}

/// Internally or adjacently tagged: the value of one key says which variant it is.
fn pick_by_tag<'s>(fitting: &[&Branch<'s>], tag: &str, spot: &Spot<'_>) -> Result<&'s Json, Problem> {
    let words: Vec<String> =
        fitting.iter().filter_map(|branch| branch.view.constant(tag)).map(str::to_owned).collect();
    let Some((key, value)) = spot.node.entry(tag) else {
        let message = format!("the key {} is missing", quoted(tag));
        return Err(spot.problem(message).hint(format!("it says which kind this is: {}", one_of(&words))));
    };
    let chosen = fitting.iter().find(|branch| value.as_str().is_some_and(|name| branch.view.constant(tag) == Some(name)));
    match chosen {
        Some(branch) => Ok(branch.schema),
        None => Err(unknown_word(&Spot { node: value, at: spot.at.key(tag), key: Some(key) }, &words)),
    }
}

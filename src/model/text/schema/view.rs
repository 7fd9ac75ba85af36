//! A schema with its references followed: all the objects that speak about one value, side by side.

use std::collections::HashSet;

use serde_json::{Map, Value as Json};

use crate::model::text::tree::{Node, Value};
use crate::model::text::words::alternatives;

/// Longest description that a hint repeats; longer ones are for the reference pages.
const DESCRIPTION_LIMIT_CHARS: usize = 120;
/// Rounds of following references for one value. Types nest a few; a type that contains itself unboxed, as JSON
/// sees it, would never end.
const FOLLOWED_LIMIT: usize = 64;

/// The facets of one value: the schema, what it refers to, and the branch of each choice once picked.
#[derive(Clone)]
pub(super) struct View<'s> {
    facets: Vec<&'s Map<String, Json>>,
    choices: Vec<Vec<&'s Json>>,
    /// The schema `false`: no value is right.
    never: bool,
}

/// What a map may hold beside its named properties.
pub(super) enum Additional<'s> {
    Nothing,
    Anything,
    Schema(&'s Json),
}

impl<'s> View<'s> {
    pub(super) fn of(root: &'s Json, schema: &'s Json) -> Self {
        let mut view = Self {
            facets: Vec::new(),
            choices: Vec::new(),
            never: false,
        };
        view.narrow_to(root, schema);
        view
    }

    /// Adds what `schema` says to what is known.
    pub(super) fn narrow_to(&mut self, root: &'s Json, schema: &'s Json) {
        let mut waiting = vec![schema];
        while let Some(schema) = waiting.pop() {
            match schema {
                Json::Bool(false) => self.never = true,
                Json::Object(facet) if self.facets.len() < FOLLOWED_LIMIT => {
                    self.facets.push(facet);
                    waiting.extend(list(facet, "allOf"));
                    waiting.extend(
                        facet
                            .get("$ref")
                            .and_then(Json::as_str)
                            .and_then(|to| resolve(root, to)),
                    );
                    for choice in ["oneOf", "anyOf"] {
                        let branches: Vec<_> = list(facet, choice).collect();
                        if !branches.is_empty() {
                            self.choices.push(branches);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes out the next choice that is still to be made.
    pub(super) fn next_choice(&mut self) -> Option<Vec<&'s Json>> {
        self.choices.pop()
    }

    fn each(&self, keyword: &'static str) -> impl Iterator<Item = &'s Json> {
        self.facets.iter().filter_map(move |facet| facet.get(keyword))
    }

    /// The first facet's word on `keyword`.
    pub(super) fn first(&self, keyword: &'static str) -> Option<&'s Json> {
        self.each(keyword).next()
    }

    /// The types that the first facet with a say allows; several facets of one value agree, as schemars writes them.
    pub(super) fn type_names(&self) -> Option<Vec<&'s str>> {
        match self.first("type")? {
            Json::String(name) => Some(vec![name]),
            Json::Array(names) => Some(names.iter().filter_map(Json::as_str).collect()),
            _ => None,
        }
    }

    /// Whether the value is of a right type, looking no deeper.
    pub(super) fn accepts(&self, node: &Node) -> bool {
        !self.never
            && self
                .type_names()
                .is_none_or(|names| names.iter().any(|name| is_of_type(node, name)))
    }

    /// The same for a view whose choices are still open.
    pub(super) fn may_accept(&self, root: &'s Json, node: &Node) -> bool {
        self.accepts(node)
            && self.choices.iter().all(|branches| {
                branches
                    .iter()
                    .any(|branch| View::of(root, branch).may_accept(root, node))
            })
    }

    /// What would be right, to follow "expected".
    pub(super) fn expected(&self, root: &'s Json) -> String {
        let mut phrases = Vec::new();
        self.expected_phrases(root, &mut phrases);
        let mut seen = HashSet::new();
        phrases.retain(|phrase| seen.insert(phrase.clone()));
        alternatives(&phrases)
    }

    fn expected_phrases(&self, root: &'s Json, phrases: &mut Vec<String>) {
        if let Some(values) = self.allowed_values() {
            phrases.extend(
                values
                    .iter()
                    .filter(|value| !value.is_null())
                    .map(|value| format!("`{}`", word(value))),
            );
            return;
        }
        if let Some(tag) = self.external_tag() {
            phrases.push(format!("`{tag}: …`"));
            return;
        }
        let names = self.type_names().unwrap_or_default();
        phrases.extend(names.into_iter().filter_map(type_phrase));
        for branch in self.choices.iter().flatten() {
            View::of(root, branch).expected_phrases(root, phrases);
        }
    }

    /// The values of the first `enum` or `const`.
    pub(super) fn allowed_values(&self) -> Option<Vec<&'s Json>> {
        if let Some(only) = self.first("const") {
            return Some(vec![only]);
        }
        Some(self.first("enum")?.as_array()?.iter().collect())
    }

    /// True for the branch that an `Option` adds.
    pub(super) fn is_null_only(&self) -> bool {
        self.type_names().is_some_and(|names| names == ["null"])
    }

    /// The tag of an externally tagged variant: a map of exactly one key.
    pub(super) fn external_tag(&self) -> Option<&'s str> {
        let [facet] = self.facets.as_slice() else { return None };
        let mut names = facet.get("properties")?.as_object()?.keys();
        let (only, None) = (names.next()?, names.next()) else {
            return None;
        };
        let closed = facet.get("additionalProperties") == Some(&Json::Bool(false));
        let required = list(facet, "required").any(|name| name == only.as_str());
        (closed && required && self.constant(only).is_none()).then_some(only)
    }

    /// The string that a property must be, if its schema leaves only one: an internal tag.
    pub(super) fn constant(&self, property: &str) -> Option<&'s str> {
        self.property(property)
            .into_iter()
            .find_map(|schema| schema.get("const")?.as_str())
    }

    pub(super) fn property_names(&self) -> Vec<&'s str> {
        let mut seen = HashSet::new();
        let names = self
            .each("properties")
            .filter_map(Json::as_object)
            .flat_map(Map::keys)
            .map(String::as_str);
        names.filter(|name| seen.insert(*name)).collect()
    }

    pub(super) fn property(&self, name: &str) -> Vec<&'s Json> {
        self.each("properties")
            .filter_map(|properties| properties.get(name))
            .collect()
    }

    pub(super) fn required(&self) -> Vec<&'s str> {
        let mut seen = HashSet::new();
        let names = self
            .each("required")
            .filter_map(Json::as_array)
            .flatten()
            .filter_map(Json::as_str);
        names.filter(|name| seen.insert(*name)).collect()
    }

    pub(super) fn additional(&self) -> Additional<'s> {
        let stated: Vec<&Json> = self
            .each("additionalProperties")
            .chain(self.each("unevaluatedProperties"))
            .collect();
        if let Some(schema) = stated.iter().find(|schema| schema.is_object()) {
            return Additional::Schema(schema);
        }
        let forbidden = stated.contains(&&Json::Bool(false));
        let unsaid = stated.is_empty() && self.first("x-kubernetes-preserve-unknown-fields") != Some(&Json::Bool(true));
        if forbidden || (unsaid && self.first("properties").is_some()) {
            Additional::Nothing
        } else {
            Additional::Anything
        }
    }

    /// The schema of a list element.
    pub(super) fn item(&self, index: usize) -> Option<&'s Json> {
        let placed = self.first("prefixItems").and_then(|schemas| schemas.get(index));
        placed.or_else(|| self.first("items"))
    }

    /// What a value with a notation of its own is called, and how it is written.
    pub(super) fn notation(&self) -> Option<(&'s str, Vec<String>)> {
        let facet = self.facets.iter().find(|facet| facet.contains_key("examples"))?;
        let title = facet.get("title")?.as_str()?;
        let examples = list(facet, "examples").map(word).collect();
        Some((title, examples))
    }

    /// The first sentence of the description nearest to the value, without Rust's link brackets, if it is short.
    pub(super) fn description(&self) -> Option<String> {
        let text = self.first("description")?.as_str()?;
        let paragraph = text.split("\n\n").next().unwrap_or(text);
        let sentence = paragraph.split(". ").next().unwrap_or(paragraph).trim_end_matches('.');
        let plain = sentence.replace("[`", "`").replace("`]", "`").replace('\n', " ");
        (!plain.is_empty() && plain.chars().count() <= DESCRIPTION_LIMIT_CHARS).then_some(plain)
    }
}

fn list<'s>(facet: &'s Map<String, Json>, keyword: &str) -> impl Iterator<Item = &'s Json> + use<'s> {
    facet.get(keyword).and_then(Json::as_array).into_iter().flatten()
}

/// What `#/$defs/Name` refers to.
pub(super) fn resolve<'s>(root: &'s Json, reference: &str) -> Option<&'s Json> {
    root.pointer(reference.strip_prefix('#')?)
}

/// An allowed value as it is typed.
pub(super) fn word(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_of_type(node: &Node, name: &str) -> bool {
    match &node.value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Int(_) => matches!(name, "integer" | "number"),
        // JSON Schema takes 1.0 for an integer; serde does not, and it is serde that reads the value.
        Value::Float(_) => name == "number",
        Value::String(_) => name == "string",
        Value::Seq(_) => name == "array",
        Value::Map(_) => name == "object",
    }
}

fn type_phrase(name: &str) -> Option<String> {
    let phrase = match name {
        "boolean" => "`true` or `false`",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a string",
        "array" => "a list",
        "object" => "a map",
        // That a value may be left out is no help to somebody who gave one.
        _ => return None,
    };
    Some(phrase.to_owned())
}

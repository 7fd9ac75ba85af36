//! Which of a schema's keywords the check knows.

use serde_json::Value as Json;

use super::view::resolve;

/// Keywords that are checked, or that say something to people only. `format` is among the latter: what it promises
/// (an unsigned number, a date) shows in `minimum`, or serde checks it.
const KNOWN: &[&str] = &[
    "$schema", "$id", "$comment", "$ref", "$defs", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly", "format", "enum", "const", "allOf", "oneOf", "anyOf", "properties", "required",
    "additionalProperties", "unevaluatedProperties", "items", "prefixItems", "minItems", "maxItems", "uniqueItems",
    "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum",
];

/// The keywords of a schema that [`super::check`] would pass over in silence, each with its place, and references
/// and patterns that lead nowhere. Empty for every schema that the check can be trusted with: a test of each
/// resource type asserts that.
#[must_use]
pub fn unsupported_keywords(schema: &schemars::Schema) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema.as_value(), schema.as_value(), "#", &mut found);
    found
}

fn walk(root: &Json, schema: &Json, at: &str, found: &mut Vec<String>) {
    let Json::Object(keywords) = schema else { return };
    for (keyword, value) in keywords {
        let here = format!("{at}/{keyword}");
        let readable = match (keyword.as_str(), value) {
            ("$ref", Json::String(reference)) => resolve(root, reference).is_some(),
            ("pattern", Json::String(pattern)) => regex::Regex::new(pattern).is_ok(),
            ("type", value) => is_type(value),
            // `x-kubernetes-…` and the like speak to other programs.
            (other, _) => KNOWN.contains(&other) || other.starts_with("x-"),
        };
        if !readable {
            found.push(here.clone());
        }
        for (name, inner) in subschemas(keyword, value) {
            walk(root, inner, &format!("{here}{name}"), found);
        }
    }
}

/// `type` is a name or a list of names.
fn is_type(value: &Json) -> bool {
    value.is_string() || value.as_array().is_some_and(|names| names.iter().all(Json::is_string))
}

/// The schemas directly inside a keyword, with the rest of their pointer.
fn subschemas<'s>(keyword: &str, value: &'s Json) -> Vec<(String, &'s Json)> {
    match (keyword, value) {
        ("properties" | "$defs", Json::Object(named)) => {
            named.iter().map(|(name, schema)| (format!("/{name}"), schema)).collect()
        }
        ("allOf" | "oneOf" | "anyOf" | "prefixItems", Json::Array(listed)) => {
            listed.iter().enumerate().map(|(at, schema)| (format!("/{at}"), schema)).collect()
        }
        ("items" | "additionalProperties" | "unevaluatedProperties", schema) => vec![(String::new(), schema)],
        _ => Vec::new(),
    }
}

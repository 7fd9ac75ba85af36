//! Checks a tree against the JSON Schema of a type, to say more than serde can: every problem, each at its place.
//!
//! This is no general validator. It knows what schemars writes for serde types (draft 2020-12): `$ref`, `allOf`,
//! `oneOf` and `anyOf` of enums and options, types, properties, items, and the bounds of its attributes. A test
//! walks every schema of ours with [`unsupported_keywords`], so that nothing goes unchecked in silence.
//!
//! One rule is stricter than JSON Schema: a map whose schema names properties may have no others unless
//! `additionalProperties` says so. serde would ignore a mistyped key, and an ignored `maxUnavailble` takes a
//! production down.

mod choice;
mod keywords;
mod limits;
mod view;

use serde_json::Value as Json;

use super::path::Path;
use super::problem::{Problem, Problems};
use super::source::Span;
use super::suggest::did_you_mean;
use super::tree::{Key, Node, Value};
use super::words::{found, one_of, quoted};
pub use keywords::unsupported_keywords;
use limits::Patterns;
use view::{Additional, View};

/// Adds everything in which `node` departs from `schema`; `at` is its path in its document.
/// What comes back are the keys that are not known.
pub fn check(schema: &schemars::Schema, node: &Node, at: &Path, problems: &mut Problems) -> Vec<Stray> {
    let mut checker = Checker {
        root: schema.as_value(),
        patterns: Patterns::default(),
        problems,
        strays: Vec::new(),
    };
    checker.check(
        View::of(schema.as_value(), schema.as_value()),
        &Spot {
            node,
            at: at.clone(),
            key: None,
        },
    );
    checker.strays
}

/// A key that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its path.
    pub at: Path,
    /// The known key that is near.
    pub near: Option<String>,
    /// Whether its value is what that one has.
    pub fit: Fit,
}

/// Whether a value is what it is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As far as a first look tells.
    Fits,
    /// It is something else altogether.
    Differs,
}

struct Checker<'s, 'p> {
    root: &'s Json,
    patterns: Patterns<'s>,
    problems: &'p mut Problems,
    strays: Vec<Stray>,
}

/// A value under check.
struct Spot<'n> {
    node: &'n Node,
    at: Path,
    /// The key it is the value of.
    key: Option<&'n Key>,
}

impl Spot<'_> {
    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(message).at(self.at.clone()).span(self.pointed_at())
    }

    fn pointed_at(&self) -> Span {
        self.node.pointed_at(self.key.map(|key| key.span))
    }
}

impl<'s> Checker<'s, '_> {
    fn check(&mut self, mut view: View<'s>, spot: &Spot<'_>) {
        while let Some(choice) = view.next_choice() {
            match choice::pick(self.root, &choice, spot) {
                Ok(branch) => view.narrow_to(self.root, branch),
                Err(problem) => {
                    let problem = not_so_written(&view, spot).unwrap_or(problem);
                    self.problems.push(with_description(problem, &view, spot));
                    return;
                }
            }
        }
        if !view.accepts(spot.node) {
            let message = format!("expected {}, found {}", view.expected(self.root), found(spot.node));
            let problem =
                not_so_written(&view, spot).unwrap_or_else(|| with_repair(spot.problem(message), &view, spot.node));
            let form = number_form(&view, spot.node).filter(|_| problem.hint.is_none());
            self.problems
                .push(with_form(form, with_description(problem, &view, spot)));
            return;
        }
        if let Some(problem) = not_allowed(&view, spot) {
            self.problems.push(problem);
            return;
        }
        for message in limits::broken(&view, spot.node, &mut self.patterns) {
            let problem = not_so_written(&view, spot).unwrap_or_else(|| spot.problem(message));
            self.problems.push(with_description(problem, &view, spot));
        }
        match &spot.node.value {
            Value::Map(entries) => self.check_map(&view, entries, spot),
            Value::Seq(items) => self.check_seq(&view, items, spot),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => {}
        }
    }

    fn check_map(&mut self, view: &View<'s>, entries: &[(Key, Node)], spot: &Spot<'_>) {
        let known = view.property_names();
        let mut meant = Vec::new();
        for (key, value) in entries {
            let inner = Spot {
                node: value,
                at: spot.at.key(&key.name),
                key: Some(key),
            };
            let schemas = match (view.property(&key.name), view.additional()) {
                (schemas, _) if !schemas.is_empty() => schemas,
                (_, Additional::Schema(schema)) => vec![schema],
                (_, Additional::Anything) => continue,
                (_, Additional::Nothing) => {
                    let near = did_you_mean(&key.name, known.iter().copied().filter(|name| absent(name, entries)));
                    meant.extend(near);
                    self.problems.push(unknown_key(&inner, near, &known));
                    self.stray(view, near, &inner);
                    continue;
                }
            };
            for schema in schemas {
                self.check(View::of(self.root, schema), &inner);
            }
        }
        for name in view.required() {
            // A key that was mistyped is one problem, not two.
            if absent(name, entries) && !meant.contains(&name) {
                self.problems.push(self.missing_key(view, name, spot));
            }
        }
    }

    /// The value of a misspelt key is looked at as what it was meant to be: what is wrong in it is shown in one go. One that
    /// is something else altogether was meant otherwise.
    fn stray(&mut self, view: &View<'s>, near: Option<&str>, spot: &Spot<'_>) {
        let mut inside = Problems::new();
        let mut strays = Vec::new();
        if let Some(name) = near {
            let mut checker = Checker {
                root: self.root,
                patterns: Patterns::default(),
                problems: &mut inside,
                strays: Vec::new(),
            };
            for schema in view.property(name) {
                checker.check(View::of(self.root, schema), spot);
            }
            strays = checker.strays;
        }
        let fit = if inside.iter().any(|problem| problem.path.as_ref() == Some(&spot.at)) {
            Fit::Differs
        } else {
            Fit::Fits
        };
        self.strays.push(Stray {
            at: spot.at.clone(),
            near: near.map(str::to_owned),
            fit,
        });
        if fit == Fit::Fits {
            self.problems.extend(inside);
            self.strays.extend(strays);
        }
    }

    fn missing_key(&self, view: &View<'s>, name: &str, spot: &Spot<'_>) -> Problem {
        let missing = Spot {
            node: spot.node,
            at: spot.at.key(name),
            key: spot.key,
        };
        let problem = Problem::new(format!("the key {} is missing", quoted(name)))
            .at(missing.at.clone())
            .span(spot.key.map_or(spot.node.span, |key| key.span));
        match view.property(name).first() {
            Some(schema) => with_description(problem, &View::of(self.root, schema), &missing),
            None => problem,
        }
    }

    fn check_seq(&mut self, view: &View<'s>, items: &[Node], spot: &Spot<'_>) {
        for (index, node) in items.iter().enumerate() {
            if let Some(schema) = view.item(index) {
                self.check(
                    View::of(self.root, schema),
                    &Spot {
                        node,
                        at: spot.at.index(index),
                        key: None,
                    },
                );
            }
        }
    }
}

/// A value outside an `enum` or other than a `const`.
fn not_allowed(view: &View<'_>, spot: &Spot<'_>) -> Option<Problem> {
    let allowed = view.allowed_values()?;
    let value = spot.node.to_json();
    if allowed.contains(&&value) {
        return None;
    }
    let words: Vec<String> = allowed
        .iter()
        .filter(|value| !value.is_null())
        .map(|value| view::word(value))
        .collect();
    Some(unknown_word(spot, &words))
}

fn absent(name: &str, entries: &[(Key, Node)]) -> bool {
    !entries.iter().any(|(key, _)| key.name == name)
}

fn unknown_key(spot: &Spot<'_>, near: Option<&str>, known: &[&str]) -> Problem {
    let (name, span) = spot
        .key
        .map_or(("", spot.node.span), |key| (key.name.as_str(), key.span));
    let hint = match (near, known) {
        (Some(near), _) => format!("did you mean {}?", quoted(near)),
        (None, []) => "no keys are known here".to_owned(),
        (None, known) => format!("known here: {}", one_of(known)),
    };
    Problem::new(format!("unknown key {}", quoted(name)))
        .at(spot.at.clone())
        .span(span)
        .hint(hint)
}

/// A string, or another scalar, that is none of a fixed set.
fn unknown_word(spot: &Spot<'_>, words: &[String]) -> Problem {
    let problem = spot.problem(format!("expected {}, found {}", one_of(words), found(spot.node)));
    match spot
        .node
        .as_str()
        .and_then(|typed| did_you_mean(typed, words.iter().map(String::as_str)))
    {
        Some(near) => problem.hint(format!("did you mean {}?", quoted(near))),
        None => problem,
    }
}

/// What has a notation of its own, and is written otherwise: a pattern would say less.
fn not_so_written(view: &View<'_>, spot: &Spot<'_>) -> Option<Problem> {
    let (what, examples) = view.notation()?;
    let problem = spot.problem(format!("expected {what}, found {}", found(spot.node)));
    Some(problem.hint(format!("write it as {}", one_of(&examples))))
}

/// What to type instead, where the value differs from what was meant by its notation only.
fn with_repair(problem: Problem, view: &View<'_>, node: &Node) -> Problem {
    let wants = |name: &str| view.type_names().is_some_and(|types| types.contains(&name));
    match &node.value {
        Value::Int(_) | Value::Float(_) | Value::Bool(_) if wants("string") => {
            problem.hint("put it in quotes to make it a string")
        }
        Value::String(text) if wants("integer") && text.parse::<i64>().is_ok() => problem.hint("remove the quotes"),
        Value::String(text) if wants("number") && text.parse::<f64>().is_ok() => problem.hint("remove the quotes"),
        Value::String(text) if wants("boolean") => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" => problem.hint("write `true`"),
            "false" | "no" | "off" => problem.hint("write `false`"),
            _ => problem,
        },
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) | Value::Map(_) if wants("array") => {
            problem.hint("a list has one `- ` line for each element")
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Seq(_)
        | Value::Map(_) => problem,
    }
}

/// How a number is written, for who wrote something else.
fn number_form(view: &View<'_>, node: &Node) -> Option<&'static str> {
    let types = view.type_names()?;
    match &node.value {
        Value::String(_) | Value::Float(_) if types.contains(&"integer") => {
            Some("write a whole number alone, without a unit, as 5")
        }
        Value::String(_) if types.contains(&"number") => Some("write a number alone, without a unit, as 5 or 0.5"),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Seq(_)
        | Value::Map(_) => None,
    }
}

/// How the value is written, before what it means.
fn with_form(form: Option<&str>, mut problem: Problem) -> Problem {
    problem.hint = match (form, problem.hint.take()) {
        (Some(form), Some(meaning)) => Some(format!("{form}; {meaning}")),
        (form, meaning) => form.map(str::to_owned).or(meaning),
    };
    problem
}

/// Says what the value means, where nothing better is known to say.
fn with_description(problem: Problem, view: &View<'_>, spot: &Spot<'_>) -> Problem {
    if problem.hint.is_some() {
        return problem;
    }
    let Some(description) = view.description() else {
        return problem;
    };
    match spot.at.parts().last() {
        Some(super::path::Part::Key(name)) => problem.hint(format!("{}: {description}", quoted(name))),
        Some(super::path::Part::Index(_)) | None => problem.hint(description),
    }
}

#[cfg(test)]
mod tests;

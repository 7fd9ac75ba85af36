//! Bounds on single values: ranges, lengths, patterns.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Number, Value as Json};

use super::view::{View, word};
use crate::model::text::tree::{Node, Value};
use crate::model::text::words::{counted, quoted};

/// The patterns met so far, compiled: a schema has few and meets them once an element.
#[derive(Default)]
pub(super) struct Patterns<'s>(HashMap<&'s str, Option<Regex>>);

impl<'s> Patterns<'s> {
    /// A pattern that cannot be read is a fault of ours that `unsupported_keywords` reports; it matches anything.
    fn matches(&mut self, pattern: &'s str, text: &str) -> bool {
        let compiled = self.0.entry(pattern).or_insert_with(|| Regex::new(pattern).ok());
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// What is wrong with the value itself, its type being right.
pub(super) fn broken<'s>(view: &View<'s>, node: &Node, patterns: &mut Patterns<'s>) -> Vec<String> {
    match &node.value {
        Value::Int(number) => out_of_range(view, &Number::from(*number)),
        Value::Float(number) => Number::from_f64(*number).map(|number| out_of_range(view, &number)).unwrap_or_default(),
        Value::String(text) => {
            let counts = miscounted(view, ["minLength", "maxLength"], text.chars().count(), "character");
            counts.into_iter().chain(unlike_pattern(view, text, patterns)).collect()
        }
        Value::Seq(items) => {
            let counts = miscounted(view, ["minItems", "maxItems"], items.len(), "element");
            counts.into_iter().chain(listed_twice(view, items)).collect()
        }
        Value::Map(entries) => miscounted(view, ["minProperties", "maxProperties"], entries.len(), "key"),
        Value::Null | Value::Bool(_) => Vec::new(),
    }
}

fn out_of_range(view: &View<'_>, number: &Number) -> Vec<String> {
    let bound = |keyword, breaks: fn(f64, f64) -> bool, words: &str| {
        let bound = view.first(keyword)?;
        // Bounds and values beyond 2^53 differ by less than anybody means.
        breaks(number.as_f64()?, bound.as_f64()?).then(|| format!("{number} is {words} {bound}"))
    };
    [
        bound("minimum", |number, bound| number < bound, "less than"),
        bound("maximum", |number, bound| number > bound, "more than"),
        bound("exclusiveMinimum", |number, bound| number <= bound, "not more than"),
        bound("exclusiveMaximum", |number, bound| number >= bound, "not less than"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn miscounted(view: &View<'_>, [least, most]: [&'static str; 2], count: usize, noun: &str) -> Vec<String> {
    let count = count as u64;
    let bound = |keyword| view.first(keyword).and_then(Json::as_u64);
    let too_few = bound(least).filter(|least| count < *least);
    let too_many = bound(most).filter(|most| count > *most);
    let has = counted(count, noun);
    too_few
        .map(|least| format!("has {has}, at least {least} needed"))
        .into_iter()
        .chain(too_many.map(|most| format!("has {has}, at most {most} allowed")))
        .collect()
}

fn listed_twice(view: &View<'_>, items: &[Node]) -> Option<String> {
    (view.first("uniqueItems")? == &Json::Bool(true)).then_some(())?;
    let values: Vec<Json> = items.iter().map(Node::to_json).collect();
    let twice = (1..values.len()).find(|at| values[..*at].contains(&values[*at]))?;
    Some(format!("{} is listed twice", quoted(&word(&values[twice]))))
}

fn unlike_pattern<'s>(view: &View<'s>, text: &str, patterns: &mut Patterns<'s>) -> Option<String> {
    let pattern = view.first("pattern")?.as_str()?;
    (!patterns.matches(pattern, text)).then(|| format!("{} does not match the pattern {pattern}", quoted(text)))
}

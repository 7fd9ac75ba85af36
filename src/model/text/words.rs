//! Words that messages about text share.

use super::tree::{Node, Value};

/// Characters of a found value that a message repeats; the caret line below it shows the rest.
const EXCERPT_CHARS: usize = 40;
/// Allowed values that a message lists: with more, the hint is longer than anybody reads.
const LIST_LIMIT: usize = 12;

/// A value in backticks: cut when long, control characters escaped so that a text cannot drive the terminal.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::from("`");
    for c in text.chars().take(EXCERPT_CHARS) {
        if c.is_control() {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(EXCERPT_CHARS).is_some() {
        shown.push('…');
    }
    shown.push('`');
    shown
}

/// What a node holds, to follow "found".
pub(super) fn found(node: &Node) -> String {
    match &node.value {
        Value::Null => "no value".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Int(value) => format!("the number `{value}`"),
        Value::Float(value) => format!("the number `{value}`"),
        Value::String(value) if value.is_empty() => "an empty string".to_owned(),
        Value::String(value) => format!("the string {}", quoted(value)),
        Value::Seq(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

/// `` `a`, `b` or `c` ``, cut when long.
pub(super) fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    alternatives(&listed(words))
}

/// `` `a`, `b` and `c` ``, cut when long.
pub(super) fn all_of<S: AsRef<str>>(words: &[S]) -> String {
    joined(&listed(words), "and", "none")
}

fn listed<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    let shown = words.iter().take(LIST_LIMIT).map(|word| quoted(word.as_ref()));
    let more = words.len().checked_sub(LIST_LIMIT).filter(|more| *more > 0);
    shown.chain(more.map(|more| format!("{more} more"))).collect()
}

/// `a, b or c`.
pub(super) fn alternatives(phrases: &[String]) -> String {
    joined(phrases, "or", "nothing")
}

fn joined(phrases: &[String], with: &str, without_any: &str) -> String {
    match phrases {
        [] => without_any.to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {with} {last}", first.join(", ")),
    }
}

/// `1 element`, `2 elements`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

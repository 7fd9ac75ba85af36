//! A text as a tree of values, each knowing where it stands.

use serde_json::Value as Json;

pub use super::parse::{COPIED_NODES_LIMIT, DEPTH_LIMIT, NODES_LIMIT, TEXT_LIMIT_BYTES, parse};
use super::path::{Part, Path};
use super::source::Span;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it is written. A value that comes from an alias stands where the alias does; what is inside it stands
    /// where the anchor does.
    pub span: Span,
    /// What is written.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; always finite.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Seq(Vec<Node>),
    /// Keys and values in the order of the text; no key stands twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it is written.
    pub span: Span,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// A key with its place and its value, if this is a map that has it.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<(&Key, &Node)> {
        self.entries().iter().find(|(candidate, _)| candidate.name == key).map(|(key, value)| (key, value))
    }

    /// Keys and values; none if this is not a map.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) | Value::Seq(_) => &[],
        }
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// The node at a path under this one.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&Node> {
        path.parts().iter().try_fold(self, Node::step)
    }

    fn step(&self, part: &Part) -> Option<&Node> {
        match (part, &self.value) {
            (Part::Key(key), _) => self.get(key),
            (Part::Index(index), Value::Seq(items)) => items.get(*index),
            (Part::Index(_), _) => None,
        }
    }

    /// Where the key is written that a path ends in.
    #[must_use]
    pub fn key_span(&self, path: &Path) -> Option<Span> {
        let (last, parents) = path.parts().split_last()?;
        match last {
            Part::Key(key) => {
                let parent = parents.iter().try_fold(self, Node::step)?;
                parent.entry(key).map(|(key, _)| key.span)
            }
            Part::Index(_) => None,
        }
    }

    /// Where to point for a problem with the value at `path`: at the value, at its key if the value fills more than
    /// a line, or at the nearest place above it if it is absent.
    #[must_use]
    pub fn nearest_span(&self, path: &Path) -> Span {
        let mut nearest = self.span;
        let mut node = self;
        for part in path.parts() {
            let Some(next) = node.step(part) else { break };
            let key = match part {
                Part::Key(key) => node.entry(key).map(|(key, _)| key.span),
                Part::Index(_) => None,
            };
            nearest = next.pointed_at(key);
            node = next;
        }
        nearest
    }

    /// Where to point for a problem with this value as a whole, given where its key stands.
    pub(super) fn pointed_at(&self, key: Option<Span>) -> Span {
        if self.span.is_on_one_line() { self.span } else { key.unwrap_or(self.span) }
    }

    /// The value without its places.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::String(value) => Json::from(value.as_str()),
            Value::Seq(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect(),
        }
    }

    /// This node and all under it.
    pub(super) fn count(&self) -> usize {
        1 + match &self.value {
            Value::Seq(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|(_, value)| value.count()).sum(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => 0,
        }
    }

    /// Levels of nesting, 1 for a scalar.
    pub(super) fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Seq(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => 0,
        }
    }
}

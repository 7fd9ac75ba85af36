//! What can be read of a document with which something is wrong. Misspelt keys are taken for what they were meant to be, and
//! what cannot be read is left out, so that checks of everything else still say what they find: a person mends a file once,
//! and not once for every check that comes after the first that failed.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::document::Document;
use super::path::{Part, Path};
use super::problem::{Problem, Problems};
use super::schema::{self, Fit, Stray};
use super::tree::{Node, Value};

/// Values left out before it is given up: a file with more mistakes is mended in more than one go.
const MOST_LEFT_OUT: usize = 100;

/// A document as far as it can be read.
#[derive(Debug)]
pub struct Readable<T> {
    /// What was read; nothing where too much of it cannot be.
    pub value: Option<T>,
    /// The document without what was left out; its values know where they are written.
    pub document: Document,
    /// Everything that is wrong.
    pub problems: Problems,
    /// What is missing from it.
    pub broken: Broken,
}

/// What is wrong with a document or was left out of it.
#[derive(Debug, Default)]
pub struct Broken {
    /// Values with a problem of their own.
    wrong: Vec<Path>,
    /// Values that were left out.
    left_out: Vec<Path>,
    /// Names that went with them.
    names: BTreeSet<String>,
    /// Elements left out of lists, by the path of the list.
    elements: BTreeMap<Path, BTreeSet<usize>>,
}

/// Checks a whole document against the schema of `Whole` and reads its `spec` as far as it can be read.
pub fn decode_readable<Whole: JsonSchema, Spec: DeserializeOwned>(document: &Document) -> Readable<Spec> {
    let mut found = Problems::new();
    let mut strays = schema::check(&schemars::schema_for!(Whole), &document.tree, &Path::root(), &mut found);
    let mut broken = Broken::default();
    let mut problems = Problems::new();
    for problem in &found {
        broken.wrong.extend(problem.path.clone());
        if !problem.path.as_ref().is_some_and(is_of_the_head) {
            problems.push(problem.clone());
        }
    }
    let spec = Path::root().key("spec");
    let mut document = document.clone();
    // The innermost first, so that the paths of the others still hold.
    strays.sort_by_key(|stray| std::cmp::Reverse(stray.at.parts().len()));
    for Stray { at, near, fit } in strays {
        match (near, fit) {
            (Some(name), Fit::Fits) => rename(&mut document.tree, &at, name),
            (near, Fit::Fits | Fit::Differs) => {
                broken.names.extend(near);
                broken.leave_out(&mut document.tree, &at);
            }
        }
    }
    for _ in 0..MOST_LEFT_OUT {
        let Some(node) = document.tree.at(&spec) else { break };
        let error = match serde_path_to_error::deserialize(node.to_json()) {
            Ok(value) => {
                return Readable {
                    value: Some(value),
                    document,
                    problems,
                    broken,
                };
            }
            Err(error) => error,
        };
        let at = there(&document.tree, &spec.join(&Path::from(error.path())));
        // Checks that a schema cannot state (a share above 0) are the type's own; what is missing since it was left out is not.
        if !broken.touches(&broken.place(&at)) {
            let problem = Problem::new(error.inner().to_string()).span(document.tree.nearest_span(&at));
            let place = broken.place(&at);
            problems.push(problem.at(place.clone()));
            broken.wrong.push(place);
        }
        // Without its spec there is nothing to check.
        if at.parts().len() < 2 {
            break;
        }
        broken.leave_out(&mut document.tree, &at);
    }
    Readable {
        value: None,
        document,
        problems,
        broken,
    }
}

/// What every resource states of itself, which was looked at when the document was found.
fn is_of_the_head(path: &Path) -> bool {
    let root = Path::root();
    let metadata = root.key("metadata");
    [root.key("apiVersion"), root.key("kind"), metadata.key("name"), metadata].contains(path)
}

/// The path as far as the tree has it: inside an untagged value serde names what is not written.
fn there(tree: &Node, path: &Path) -> Path {
    let mut parts = path.parts().to_vec();
    while tree.at(&parts.iter().cloned().collect()).is_none() && parts.pop().is_some() {}
    parts.into_iter().collect()
}

fn above(path: &Path) -> Path {
    let parts = path.parts();
    parts[..parts.len().saturating_sub(1)].iter().cloned().collect()
}

/// The name of the nearest thing around a value that has one.
fn nearest_name(tree: &Node, at: &Path) -> Option<String> {
    let mut around = at.clone();
    while !around.is_root() {
        around = above(&around);
        if let Some(name) = tree.at(&around).and_then(|node| node.get("name")) {
            return name.as_str().map(str::to_owned);
        }
    }
    None
}

fn inner<'n>(tree: &'n mut Node, path: &Path) -> Option<&'n mut Node> {
    path.parts()
        .iter()
        .try_fold(tree, |node, part| match (part, &mut node.value) {
            (Part::Key(name), Value::Map(entries)) => entries
                .iter_mut()
                .find(|(key, _)| key.name == *name)
                .map(|(_, value)| value),
            (Part::Index(index), Value::Seq(items)) => items.get_mut(*index),
            (Part::Key(_) | Part::Index(_), _) => None,
        })
}

fn rename(tree: &mut Node, at: &Path, name: String) {
    let Some(Part::Key(written)) = at.parts().last() else {
        return;
    };
    if let Some(Value::Map(entries)) = inner(tree, &above(at)).map(|map| &mut map.value)
        && let Some((key, _)) = entries.iter_mut().find(|(key, _)| key.name == *written)
    {
        key.name = name;
    }
}

/// Every key and text of a value: what others may refer to it by.
fn names(node: &Node, found: &mut BTreeSet<String>) {
    match &node.value {
        Value::String(text) => {
            found.insert(text.clone());
        }
        Value::Seq(items) => items.iter().for_each(|item| names(item, found)),
        Value::Map(entries) => {
            for (key, value) in entries {
                found.insert(key.name.clone());
                names(value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

/// What a message has in backticks, as our checks write names.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}

impl Broken {
    /// Whether nothing is wrong and nothing was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wrong.is_empty() && self.left_out.is_empty()
    }

    fn leave_out(&mut self, tree: &mut Node, at: &Path) {
        let place = self.place(at);
        let named = nearest_name(tree, at);
        let (Some(last), Some(holder)) = (at.parts().last(), inner(tree, &above(at))) else {
            return;
        };
        // What it is part of is another thing without it, and goes by its name.
        self.names.extend(named);
        let gone = match (last, &mut holder.value) {
            (Part::Key(name), Value::Map(entries)) => {
                self.names.insert(name.clone());
                // The one key whose content goes by another name in texts.
                self.names.extend((name == "variables").then(|| "vars".to_owned()));
                let found = entries.iter().position(|(key, _)| key.name == *name);
                found.map(|found| entries.remove(found).1)
            }
            (Part::Index(index), Value::Seq(items)) if *index < items.len() => {
                if let Some(Part::Index(index)) = place.parts().last() {
                    self.elements.entry(above(&place)).or_default().insert(*index);
                }
                Some(items.remove(*index))
            }
            (Part::Key(_) | Part::Index(_), _) => None,
        };
        if let Some(gone) = gone {
            names(&gone, &mut self.names);
        }
        self.left_out.push(place);
    }

    /// Where a value is written that stands at `path` in what was read.
    #[must_use]
    pub fn place(&self, path: &Path) -> Path {
        path.parts().iter().fold(Path::root(), |place, part| match part {
            Part::Key(name) => place.key(name),
            Part::Index(index) => {
                let mut index = *index;
                for gone in self.elements.get(&place).into_iter().flatten() {
                    index += usize::from(*gone <= index);
                }
                place.index(index)
            }
        })
    }

    /// Whether something at or below this place is wrong or missing.
    fn touches(&self, place: &Path) -> bool {
        let mut all = self.wrong.iter().chain(&self.left_out);
        all.any(|path| path.parts().starts_with(place.parts()))
    }

    /// Whether what a check says of the value at `path`, in what was read, may hold only because something was left out: it is
    /// of that, or of what stood around it, or it names it. Better one that is found in the next go than one that is not so.
    #[must_use]
    pub fn may_explain(&self, path: &Path, message: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let place = self.place(path);
        let around = above(&place);
        self.wrong.iter().any(|wrong| place.parts().starts_with(wrong.parts()))
            || self.left_out.iter().any(|gone| {
                let holder = above(gone);
                let of_list = matches!(gone.parts().last(), Some(Part::Index(_)));
                place == holder || around == holder || (of_list && place == above(&holder))
            })
            || quoted(message).any(|words| {
                let mut words = words.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-')));
                words.any(|word| self.names.contains(word))
            })
            || quoted(message).any(|name| self.names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::text::{Sources, documents};
    use crate::model::values::{Duration, Share};

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Item {
        name: String,
        #[serde(rename = "wait")]
        _wait: Duration,
        share: Option<Share>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Spec {
        items: Vec<Item>,
        #[serde(default)]
        more: Vec<String>,
    }

    #[derive(JsonSchema)]
    struct Whole {
        #[serde(rename = "apiVersion")]
        _api_version: String,
        #[serde(rename = "kind")]
        _kind: String,
        #[serde(rename = "metadata")]
        _metadata: BTreeMap<String, String>,
        #[serde(rename = "spec")]
        _spec: Spec,
    }

    fn readable(spec: &str) -> Readable<Spec> {
        let mut sources = Sources::new();
        let head = "apiVersion: stagegate.dev/v1alpha1\nkind: Build\nmetadata: {name: b}\n";
        let source = sources.add("b.yaml", format!("{head}spec:\n{spec}"));
        let mut problems = Problems::new();
        let found = documents(&sources, source, &["Build"], &mut problems);
        assert!(problems.is_empty(), "{problems}");
        decode_readable::<Whole, Spec>(&found[0])
    }

    fn path(text: &str) -> Path {
        text.parse().expect("a path")
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_the_rest_keeps_its_place() {
        let read = readable(
            "  items:\n  - {name: 5, wait: 1s}\n  - {nam: b, wait: 2s, share: 0%}\n  - {name: c, wait: long, share: 100%}\n  - {name: d, wait: 3s}\n",
        );
        let value = read.value.expect("the rest");
        let names: Vec<&str> = value.items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["b", "d"], "{:?}", read.problems);
        assert!(value.items[0].share.is_none() && value.more.is_empty());
        let wrong: Vec<String> = read
            .problems
            .iter()
            .map(|p| p.path.clone().unwrap_or_default().to_string())
            .collect();
        assert_eq!(
            wrong,
            [
                "spec.items[0].name",
                "spec.items[1].nam",
                "spec.items[1].share",
                "spec.items[2].wait",
                "spec.items[2].share"
            ]
        );
        assert_eq!(
            read.broken.place(&path("spec.items[1].name")),
            path("spec.items[3].name")
        );
        for (at, message, explained) in [
            // It was left out, or stood beside it.
            ("spec.items[0].share", "is needed", true),
            ("spec.items[0].name", "is needed", true),
            ("spec.items", "has too few", true),
            // It names what was left out.
            ("spec.more", "there is no item `c`", true),
            // It names what something was left out of.
            ("spec.more", "two items `b` are the same", true),
            ("spec.more", "there is no item `d`", false),
            ("spec.items[1].name", "cannot be a name", false),
        ] {
            assert_eq!(
                read.broken.may_explain(&path(at), message),
                explained,
                "{at}: {message}"
            );
        }
    }

    #[test]
    fn with_nothing_wrong_nothing_is_explained() {
        let read = readable("  items: [{name: a, wait: 1s}]\n");
        assert!(read.value.is_some() && read.problems.is_empty() && read.broken.is_empty());
        assert!(
            !read
                .broken
                .may_explain(&path("spec.items[0].name"), "`a` cannot be a name")
        );
        let lost = readable("  items: {}\n");
        assert!(lost.value.is_none() && lost.problems.len() == 1, "{:?}", lost.problems);
    }
}

//! What can be read of a document with which something is wrong. Misspelt keys are taken for what they were meant to be, and
//! what cannot be read is left out, so that checks of everything else still say what they find: a person mends a file once,
//! and not once for every check that comes after the first that failed.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::document::Document;
use super::path::{Part, Path};
use super::problem::{Problem, Problems};
use super::schema::{self, Stray};
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

/// Reads a document as far as it can be read.
pub fn decode_readable<T: DeserializeOwned + JsonSchema>(document: &Document) -> Readable<T> {
    let mut problems = Problems::new();
    let mut strays = schema::check(&schemars::schema_for!(T), &document.tree, &Path::root(), &mut problems);
    let mut broken = Broken {
        wrong: problems.iter().filter_map(|problem| problem.path.clone()).collect(),
        ..Broken::default()
    };
    let mut document = document.clone();
    // The innermost first, so that the paths of the others still hold.
    strays.sort_by_key(|stray| std::cmp::Reverse(stray.at.parts().len()));
    for Stray { at, meant } in strays {
        match meant {
            Some(name) => rename(&mut document.tree, &at, name),
            None => broken.leave_out(&mut document.tree, &at),
        }
    }
    for _ in 0..MOST_LEFT_OUT {
        let error = match serde_path_to_error::deserialize(document.tree.to_json()) {
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
        let at = there(&document.tree, Path::from(error.path()));
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

/// The path as far as the tree has it: inside an untagged value serde names what is not written.
fn there(tree: &Node, path: Path) -> Path {
    let mut parts = path.parts().to_vec();
    while tree.at(&parts.iter().cloned().collect()).is_none() && parts.pop().is_some() {}
    parts.into_iter().collect()
}

fn above(path: &Path) -> Path {
    let parts = path.parts();
    parts[..parts.len().saturating_sub(1)].iter().cloned().collect()
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

impl Broken {
    /// Whether nothing is wrong and nothing was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wrong.is_empty() && self.left_out.is_empty()
    }

    fn leave_out(&mut self, tree: &mut Node, at: &Path) {
        let place = self.place(at);
        let (Some(last), Some(holder)) = (at.parts().last(), inner(tree, &above(at))) else {
            return;
        };
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
            || message
                .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-')))
                .any(|word| self.names.contains(word))
            || message.split('`').any(|quoted| self.names.contains(quoted))
    }
}

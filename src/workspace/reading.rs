//! Texts that were read, with everything that is wrong with them.

use std::fmt;
use std::path::Path as FilePath;

use super::WorkspaceError;
use super::files::unreadable;
use crate::model::render::RenderError;
use crate::model::text::{Ink, Position, Problem, Problems, SourceId, Sources, Span};

/// A larger file is not a resource: the largest shipped has some 10 kB.
const MOST_BYTES: u64 = 4 << 20;

/// Texts that were read, with what is wrong with them so far. One for all that a command reads, so that everything is
/// shown at once.
#[derive(Debug, Default)]
pub struct Reading {
    pub(super) sources: Sources,
    pub(super) problems: Problems,
}

/// What is wrong with the files of a workspace, with the texts to point into.
#[derive(Debug, Clone)]
pub struct Invalid {
    sources: Sources,
    problems: Problems,
}

impl Reading {
    /// Everything that is wrong, if anything is.
    ///
    /// # Errors
    /// That.
    pub fn into_result(self) -> Result<(), WorkspaceError> {
        let Self { sources, problems } = self;
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Invalid { sources, problems }.into())
        }
    }

    /// A place that cannot be looked through is a problem like any other.
    pub(super) fn unreadable(&mut self, why: &WorkspaceError) {
        self.problems.push(Problem::new(why.to_string()));
    }

    /// Takes a file in; one that cannot be read is a problem like any other.
    pub(super) fn text(&mut self, path: &FilePath) -> Option<SourceId> {
        match bounded(path) {
            Ok(text) => Some(self.sources.add(path.display().to_string(), text)),
            Err(why) => {
                self.unreadable(&why);
                None
            }
        }
    }

    /// A place in a text, with the dotted word around it.
    pub(super) fn span(&self, source: SourceId, line: usize, column: usize) -> Span {
        let text = self.sources.text(source);
        let begin: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let rest = text.get(begin..).unwrap_or_default();
        let pointed_at = rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
        let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let within = rest[..pointed_at].trim_end_matches(part).len();
        let word = rest[within..].len() - rest[within..].trim_start_matches(part).len();
        let column = column - rest[within..pointed_at].chars().count();
        let at = |byte, column| Position { byte, line, column };
        Span {
            source,
            start: at(begin + within, column),
            end: at(begin + within + word, column + word),
        }
    }
}

fn bounded(path: &FilePath) -> Result<String, WorkspaceError> {
    let length = std::fs::metadata(path).map_err(|why| unreadable(path, &why))?.len();
    if length > MOST_BYTES {
        let why = format!("it has {length} bytes; a resource file has at most {MOST_BYTES}");
        return Err(unreadable(path, &why));
    }
    let bytes = std::fs::read(path).map_err(|why| unreadable(path, &why))?;
    String::from_utf8(bytes).map_err(|why| unreadable(path, &format!("it is not UTF-8: {why}")))
}

/// A template's own words for what is wrong, without its place, and what to do.
pub(super) fn words_of(error: &RenderError) -> (String, Option<String>) {
    match error {
        RenderError::Undefined { name, detail, .. } => (
            format!("`{name}` is not defined ({detail})"),
            Some("define it, or give it a default with `| default(value=...)`".to_owned()),
        ),
        RenderError::Broken { why, .. } | RenderError::Other(why) => (why.clone(), None),
        RenderError::NotAnObject => (error.to_string(), None),
    }
}

impl Invalid {
    /// For people: each problem with its line, a caret and what to do.
    #[must_use]
    pub fn render(&self, ink: Ink) -> String {
        self.problems.render(&self.sources, ink)
    }

    /// For programs: a list of `{file, line, column, path, message, hint}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.problems.to_json(&self.sources)
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.len()
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Ink::Plain))
    }
}

impl std::error::Error for Invalid {}

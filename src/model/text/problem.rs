//! What is wrong with a text, and where.

use std::cmp::Ordering;
use std::fmt;

use super::path::Path;
use super::source::Span;
use super::tree::Node;

/// Problems kept. A person mends the first few and runs again; a text of nothing but errors must not fill the
/// memory or the terminal.
const KEPT_LIMIT: usize = 500;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The value it is about, from the root of its document.
    pub path: Option<Path>,
    /// Where to point.
    pub span: Option<Span>,
    /// What is wrong: a short sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem that has no place yet.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { path: None, span: None, message: message.into(), hint: None }
    }

    /// A problem with the value at `path` of a document's tree, for checks that go beyond the schema. Points at the
    /// value or, where it is absent, at the nearest thing above it that is there.
    #[must_use]
    pub fn in_tree(tree: &Node, path: &Path, message: impl Into<String>) -> Self {
        Self::new(message).at(path.clone()).span(tree.nearest_span(path))
    }

    /// Says which value.
    #[must_use]
    pub fn at(mut self, path: Path) -> Self {
        self.path = Some(path);
        self
    }

    /// Says where to point.
    #[must_use]
    pub fn span(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Order of showing: by text and place in it; what has no place comes last.
    fn order(&self, other: &Self) -> Ordering {
        let place = |problem: &Self| problem.span.map(|span| (span.source, span.start.byte));
        match (place(self), place(other)) {
            (Some(mine), Some(theirs)) => mine.cmp(&theirs),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

/// `spec.soak: expected a duration, found …`, for logs; people get [`Problems::render`].
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) if !path.is_root() => write!(f, "{path}: {}", self.message),
            Some(_) | None => f.write_str(&self.message),
        }
    }
}

/// Everything that was found wrong, by text and place, each once. A few hundred are kept and the rest counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    kept: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a problem, unless it is known already.
    pub fn push(&mut self, problem: Problem) {
        let from = self.kept.partition_point(|kept| kept.order(&problem).is_lt());
        let to = self.kept.partition_point(|kept| kept.order(&problem).is_le());
        if self.kept[from..to].contains(&problem) {
            return;
        }
        if self.kept.len() == KEPT_LIMIT {
            self.omitted += 1;
            return;
        }
        self.kept.insert(to, problem);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Problems) {
        for problem in other.kept {
            self.push(problem);
        }
        self.omitted += other.omitted;
    }

    /// The problems kept, in order of showing.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.kept.iter()
    }

    /// How many were found, shown or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len() + self.omitted
    }

    /// How many were found beyond those kept.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// True when nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The value if nothing is wrong, else the problems.
    pub fn into_result<T>(self, value: T) -> Result<T, Problems> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { kept: vec![problem], omitted: 0 }
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::{Position, Sources};

    fn problem_at(source: super::super::SourceId, byte: usize) -> Problem {
        let place = Position { byte, line: 1, column: byte + 1 };
        Problem::new(format!("at {byte}")).span(Span { source, start: place, end: place })
    }

    #[test]
    fn problems_stand_by_text_and_place_each_once_and_the_placeless_last() {
        let mut sources = Sources::new();
        let (first, second) = (sources.add("a", ""), sources.add("b", ""));
        let mut problems = Problems::new();
        for problem in [
            Problem::new("nowhere"),
            problem_at(second, 0),
            problem_at(first, 7),
            problem_at(first, 3),
            problem_at(first, 7),
            Problem::new("nowhere"),
        ] {
            problems.push(problem);
        }
        let order: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(order, ["at 3", "at 7", "at 0", "nowhere"]);
    }

    #[test]
    fn a_flood_is_counted_but_not_kept() {
        let source = Sources::new().add("a", "");
        let mut problems = Problems::new();
        for byte in 0..KEPT_LIMIT + 20 {
            problems.push(problem_at(source, byte));
        }
        assert_eq!((problems.iter().count(), problems.len()), (KEPT_LIMIT, KEPT_LIMIT + 20));
    }
}

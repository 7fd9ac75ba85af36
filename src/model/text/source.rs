//! Named texts and places in them.

/// One of the texts in a [`Sources`], in the order they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(usize);

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Offset in bytes from the start of the text.
    pub byte: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A stretch of one text. It names its text, so that a merged tree still points into the right file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The text that it is in.
    pub source: SourceId,
    /// First character.
    pub start: Position,
    /// One past the last character.
    pub end: Position,
}

impl Span {
    /// True where something is written on a single line, so that a caret line can underline all of it.
    #[must_use]
    pub fn is_on_one_line(&self) -> bool {
        self.start.line == self.end.line && self.start.byte < self.end.byte
    }
}

/// The texts that a command reads, under the names that its user knows them by.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    texts: Vec<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: String,
}

impl Sources {
    /// No texts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text. The name is what messages show: a path as the user typed it, or `<stdin>`.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        self.texts.push(Source { name: name.into(), text: text.into() });
        SourceId(self.texts.len() - 1)
    }

    /// Name of a text; empty for the id of another `Sources`.
    #[must_use]
    pub fn name(&self, id: SourceId) -> &str {
        self.texts.get(id.0).map_or("", |source| &source.name)
    }

    /// A text; empty for the id of another `Sources`.
    #[must_use]
    pub fn text(&self, id: SourceId) -> &str {
        self.texts.get(id.0).map_or("", |source| &source.text)
    }

    /// The texts in the order they were added.
    pub fn ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        (0..self.texts.len()).map(SourceId)
    }
}

//! Where a value stands in a tree: `spec.components[1].after[0]`.

use std::fmt;
use std::str::FromStr;

/// One step down a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Into the value of a key.
    Key(String),
    /// Into an element of a list, from 0.
    Index(usize),
}

/// Steps from the root of a tree. It prints as people write it, and what it prints parses back: keys that would not
/// read back bare are written as `labels["app.kubernetes.io/name"]`; the root prints as nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Part>);

/// Why a path or a pattern cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A character stands where none of its kind can.
    #[error("cannot read the path `{path}`: unexpected `{found}` at character {at}; write it like `spec.components[1].after[0]`")]
    Unexpected {
        /// The whole text.
        path: String,
        /// What stands there.
        found: String,
        /// Its place in characters, from 1.
        at: usize,
    },
    /// A `*` in a path; only a pattern may have one.
    #[error("cannot read the path `{path}`: `*` stands for any step and is only known in patterns; write the key or index")]
    Wildcard {
        /// The whole text.
        path: String,
    },
}

impl Path {
    /// The root of a tree.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a key under this one.
    #[must_use]
    pub fn key(&self, name: impl Into<String>) -> Self {
        self.with(Part::Key(name.into()))
    }

    /// The path of a list element under this one, from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Part::Index(index))
    }

    /// The path one step under this one.
    #[must_use]
    pub fn with(&self, part: Part) -> Self {
        self.0.iter().cloned().chain([part]).collect()
    }

    /// This path, and then `rest`.
    #[must_use]
    pub fn join(&self, rest: &Path) -> Self {
        self.0.iter().chain(&rest.0).cloned().collect()
    }

    /// The steps from the root.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// True for the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a JSON pointer (RFC 6901), as validators and API servers write paths. A part of digits is taken for an
    /// index, since a pointer does not tell a list from a map.
    #[must_use]
    pub fn from_pointer(pointer: &str) -> Self {
        pointer
            .split('/')
            .skip(1)
            .map(|part| match part.parse() {
                Ok(index) => Part::Index(index),
                Err(_) => Part::Key(part.replace("~1", "/").replace("~0", "~")),
            })
            .collect()
    }
}

impl FromIterator<Part> for Path {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

/// Serde knows the way it took; steps that it could not name (inside an untagged value) are left out.
impl From<&serde_path_to_error::Path> for Path {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        path.iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(Part::Index(*index)),
                Segment::Map { key } => Some(Part::Key(key.clone())),
                // An externally tagged variant stands in the text as a key.
                Segment::Enum { variant } => Some(Part::Key(variant.clone())),
                Segment::Unknown => None,
            })
            .collect()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            match part {
                Part::Index(index) => write!(f, "[{index}]")?,
                Part::Key(key) if reads_back_bare(key) => {
                    write!(f, "{}{key}", if at == 0 { "" } else { "." })?;
                }
                Part::Key(key) => write!(f, "[{}]", serde_json::Value::from(key.as_str()))?,
            }
        }
        Ok(())
    }
}

fn reads_back_bare(key: &str) -> bool {
    !key.is_empty() && key != "*" && !key.chars().any(ends_bare_key)
}

fn ends_bare_key(c: char) -> bool {
    matches!(c, '.' | '[' | ']' | '"') || c.is_whitespace() || c.is_control()
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        steps(text)?
            .into_iter()
            .map(|step| match step {
                Step::Exactly(part) => Ok(part),
                Step::AnyKey | Step::AnyIndex => Err(PathError::Wildcard { path: text.to_owned() }),
            })
            .collect()
    }
}

/// Paths of one shape: `spec.components[*].nodes`, where `[*]` is any element and `*` any key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Exactly(Part),
    AnyKey,
    AnyIndex,
}

impl PathPattern {
    /// Whether a path is of this shape, from its root to its last step.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        self.0.len() == path.0.len()
            && self.0.iter().zip(&path.0).all(|(step, part)| match step {
                Step::Exactly(exactly) => exactly == part,
                Step::AnyKey => matches!(part, Part::Key(_)),
                Step::AnyIndex => matches!(part, Part::Index(_)),
            })
    }
}

impl FromStr for PathPattern {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        steps(text).map(Self)
    }
}

/// Splits the text of a path or a pattern into its steps.
fn steps(text: &str) -> Result<Vec<Step>, PathError> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (step, after) = if let Some(bracketed) = rest.strip_prefix('[') {
            in_brackets(bracketed)
        } else {
            bare_key(rest, steps.is_empty())
        }
        .ok_or_else(|| unexpected(text, rest))?;
        steps.push(step);
        rest = after;
    }
    Ok(steps)
}

fn bare_key(rest: &str, first: bool) -> Option<(Step, &str)> {
    let key = if first { rest } else { rest.strip_prefix('.')? };
    let end = key.find(ends_bare_key).unwrap_or(key.len());
    let step = match &key[..end] {
        "" => return None,
        "*" => Step::AnyKey,
        name => Step::Exactly(Part::Key(name.to_owned())),
    };
    Some((step, &key[end..]))
}

fn in_brackets(rest: &str) -> Option<(Step, &str)> {
    if let Some(after) = rest.strip_prefix("*]") {
        return Some((Step::AnyIndex, after));
    }
    if rest.starts_with('"') {
        // A JSON string; its reader knows where it ends.
        let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let key = strings.next()?.ok()?;
        let after = rest[strings.byte_offset()..].strip_prefix(']')?;
        return Some((Step::Exactly(Part::Key(key)), after));
    }
    let (digits, after) = rest.split_once(']')?;
    let canonical = digits == "0" || digits.starts_with(|c: char| ('1'..='9').contains(&c));
    let index = canonical.then(|| digits.parse().ok()).flatten()?;
    Some((Step::Exactly(Part::Index(index)), after))
}

fn unexpected(text: &str, rest: &str) -> PathError {
    let at = text[..text.len() - rest.len()].chars().count() + 1;
    PathError::Unexpected { path: text.to_owned(), found: rest.chars().take(1).collect(), at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn prints_as_people_write_it() {
        let printed = Path::root().key("spec").key("components").index(1).key("after").index(0).to_string();
        assert_eq!(printed, "spec.components[1].after[0]");
        assert_eq!(Path::root().key("labels").key("a.b/c").key("").to_string(), r#"labels["a.b/c"][""]"#);
        assert_eq!(Path::root().to_string(), "");
    }

    #[test]
    fn a_wildcard_is_for_patterns_only() {
        assert_eq!("a[*].b".parse::<Path>(), Err(PathError::Wildcard { path: "a[*].b".into() }));
        assert_eq!("a.*".parse::<Path>(), Err(PathError::Wildcard { path: "a.*".into() }));
        // A key that is a star is written in quotes, and is no wildcard.
        assert_eq!(path(r#"a["*"]"#), Path::root().key("a").key("*"));
    }

    #[test]
    fn an_unreadable_path_says_where() {
        let error = |text: &str| text.parse::<Path>().unwrap_err().to_string();
        insta::assert_snapshot!(error("spec..x"), @"cannot read the path `spec..x`: unexpected `.` at character 5; write it like `spec.components[1].after[0]`");
        insta::assert_snapshot!(error("é[01]"), @"cannot read the path `é[01]`: unexpected `[` at character 2; write it like `spec.components[1].after[0]`");
        insta::assert_snapshot!(error("a[1]b"), @"cannot read the path `a[1]b`: unexpected `b` at character 5; write it like `spec.components[1].after[0]`");
    }

    #[test]
    fn a_pattern_matches_whole_paths_of_its_shape() {
        let pattern: PathPattern = "spec.components[*].nodes".parse().unwrap();
        assert!(pattern.matches(&path("spec.components[7].nodes")));
        assert!(!pattern.matches(&path("spec.components[7].nodes[0]")));
        assert!(!pattern.matches(&path("spec.components.db.nodes")));
        assert!(!pattern.matches(&path("spec.components[7].ports")));
        let any_key: PathPattern = "vars.*".parse().unwrap();
        assert!(any_key.matches(&path("vars.x")) && !any_key.matches(&path("vars[0]")));
    }

    #[test]
    fn a_json_pointer_becomes_a_path() {
        assert_eq!(Path::from_pointer("/spec/a~1b/0/c~0d").to_string(), "spec.a/b[0].c~d");
        assert_eq!(Path::from_pointer(""), Path::root());
    }

    fn any_path() -> impl Strategy<Value = Path> {
        let key = prop_oneof!["[a-zA-Z][a-zA-Z0-9_-]{0,8}", ".{0,6}", Just("*".to_owned())];
        let part = prop_oneof![key.prop_map(Part::Key), any::<usize>().prop_map(Part::Index)];
        proptest::collection::vec(part, 0..6).prop_map(|parts| parts.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_a_path_prints_parses_back(path in any_path()) {
            prop_assert_eq!(path.to_string().parse::<Path>(), Ok(path));
        }

        #[test]
        fn reading_a_path_never_panics(text in ".{0,20}") {
            let _ = text.parse::<PathPattern>();
        }
    }
}

//! YAML (and so JSON) to trees.
//!
//! Read with `granit-parser`, the parser inside the `serde-saphyr` that we write YAML with. Its cousin
//! `saphyr-parser` refuses JSON that is indented with tabs and `\ud83d\ude00` escapes, both of which
//! `python -m json.tool` and API clients emit, and cannot go on with the next document after a syntax error.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};

use super::problem::{Problem, Problems};
use super::scalar::{self, NoSuchNumber};
use super::source::{Position, SourceId, Sources, Span};
use super::tree::{Key, Node, Value};
use super::words::{counted, quoted};

/// Longest text, in bytes. An environment of a thousand nodes stated one by one is about 300 KiB, and an API server
/// takes 1.5 MiB (etcd's request limit); beyond this somebody passed the wrong file.
pub const TEXT_LIMIT_BYTES: usize = 4 << 20;
/// Most values in one text: ten thousand nodes of ten values each, and some 20 MB as a tree.
pub const NODES_LIMIT: usize = 100_000;
/// Most values in one text that are copied for anchors and aliases: ten aliases of ten aliases of ten… grow a
/// thousandfold from a few lines ("billion laughs").
pub const COPIED_NODES_LIMIT: usize = 10_000;
/// Deepest nesting. Resources need about 12 levels; what walks a tree may recurse without fear of the stack.
pub const DEPTH_LIMIT: usize = 64;

/// The documents of a text, without the empty ones. Goes on after a problem wherever that makes sense: a document
/// with a syntax error is left out and the next one read.
pub fn parse(sources: &Sources, source: SourceId, problems: &mut Problems) -> Vec<Node> {
    let text = sources.text(source);
    if text.len() > TEXT_LIMIT_BYTES {
        problems.push(too_long(source, text.len()));
        return Vec::new();
    }
    let options = granit_parser::options! { emit_comments: false, emit_unresolved_aliases: true };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder {
        source,
        text,
        problems,
        documents: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        copied: 0,
    };
    while let Some(next) = parser.next_event() {
        let outcome = match next {
            Ok((event, span)) => builder.event(event, builder.span(span)),
            Err(error) => Err(builder.not_yaml(&error)),
        };
        if let Err(problem) = outcome {
            builder.problems.push(problem);
            builder.open.clear();
            if !matches!(parser.proceed_next_document(), Ok(true)) {
                break;
            }
        }
    }
    builder.documents
}

fn too_long(source: SourceId, bytes: usize) -> Problem {
    let start = Position {
        byte: 0,
        line: 1,
        column: 1,
    };
    Problem::new(format!(
        "the text has {bytes} bytes, more than the {TEXT_LIMIT_BYTES} that a resource file may have"
    ))
    .span(Span {
        source,
        start,
        end: start,
    })
    .hint("is it the right file? Resources can be split over several")
}

struct Builder<'t> {
    source: SourceId,
    text: &'t str,
    problems: &'t mut Problems,
    documents: Vec<Node>,
    /// The lists and maps that are not closed yet, outermost first.
    open: Vec<Open>,
    /// Complete anchored nodes, by the parser's number of the anchor.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    copied: usize,
}

struct Open {
    anchor: usize,
    span: Span,
    content: Content,
}

enum Content {
    Seq(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<(Key, Node)>,
    names: HashSet<String>,
    /// The key whose value comes next.
    key: Option<PendingKey>,
    /// Values of `<<`, laid under the map's own keys when it closes.
    merged: Vec<Node>,
}

enum PendingKey {
    Named(Key),
    Merge(Span),
    /// A problem was reported with the key; its value is dropped.
    Refused,
}

/// Stops reading this document; the text goes on with the next.
type Fatal = Problem;

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fatal> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span);
                if self.expects_key() {
                    self.remember(
                        anchor,
                        &Node {
                            span,
                            value: value.clone(),
                        },
                    )?;
                    if style == ScalarStyle::Plain && text == "<<" {
                        self.expect_value_of(PendingKey::Merge(span));
                    } else {
                        self.key(value, &text, span);
                    }
                    return Ok(());
                }
                self.complete(Node { span, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_collection_tag(tag.as_deref(), "seq", span);
                self.open(Content::Seq(Vec::new()), anchor, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_collection_tag(tag.as_deref(), "map", span);
                self.open(Content::Map(OpenMap::default()), anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => {
                let node = self.copy_of(anchor, span)?;
                self.complete(node, 0)
            }
            Event::UnresolvedAlias(name) => {
                let hint = "an anchor `&name` must stand above its aliases, in the same document";
                self.problems.push(
                    Problem::new(format!("the alias {} has no anchor", quoted(&format!("*{name}"))))
                        .span(span)
                        .hint(hint),
                );
                self.complete(
                    Node {
                        span,
                        value: Value::Null,
                    },
                    0,
                )
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            // Stream and document starts carry nothing; comments and anchor names are not asked for.
            _ => Ok(()),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: Content::Map(OpenMap { key: None, .. }),
                ..
            })
        )
    }

    fn open(&mut self, content: Content, anchor: usize, span: Span) -> Result<(), Fatal> {
        if self.open.len() >= DEPTH_LIMIT {
            return Err(too_deep(span));
        }
        self.open.push(Open { anchor, span, content });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Fatal> {
        // The parser closes only what it opened.
        let Some(Open {
            anchor,
            mut span,
            content,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        // A block collection is closed by what follows it; it ends where its last value does.
        let closed_by_bracket = end.start.byte < end.end.byte;
        let value = match content {
            Content::Seq(items) => {
                span.end = if closed_by_bracket {
                    end.end
                } else {
                    items.last().map_or(span.end, |last| last.span.end)
                };
                Value::Seq(items)
            }
            Content::Map(map) => {
                let last = map
                    .entries
                    .last()
                    .map_or(span.end, |(key, value)| key.span.end.max(value.span.end));
                span.end = if closed_by_bracket { end.end } else { last };
                Value::Map(self.close_map(map))
            }
        };
        self.complete(Node { span, value }, anchor)
    }

    fn close_map(&mut self, map: OpenMap) -> Vec<(Key, Node)> {
        let OpenMap {
            mut entries,
            mut names,
            merged,
            ..
        } = map;
        for source in merged {
            let span = source.span;
            let maps = match source.value {
                Value::Seq(items) => items,
                Value::Map(_) | Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => {
                    vec![source]
                }
            };
            for node in maps {
                let Value::Map(inherited) = node.value else {
                    let hint = "write `<<: *name` where `&name` stands on a map, or a list of such aliases";
                    self.problems
                        .push(Problem::new("`<<` takes in maps only").span(span).hint(hint));
                    continue;
                };
                // The map's own keys win, then the earlier of several.
                entries.extend(inherited.into_iter().filter(|(key, _)| names.insert(key.name.clone())));
            }
        }
        entries
    }

    /// A key of the innermost map.
    fn key(&mut self, value: Value, written: &str, span: Span) {
        let Value::String(name) = value else {
            let hint = if written.is_empty() || written == "~" {
                "is a key missing before the `:`?".to_owned()
            } else {
                format!("put it in quotes: {}", quoted(&format!("\"{written}\":")))
            };
            let message = format!("the key {} is not a string", quoted(written));
            return self.refuse_key(message, span, Some(hint));
        };
        let Some(Open {
            content: Content::Map(map),
            ..
        }) = self.open.last_mut()
        else {
            return;
        };
        if map.names.insert(name.clone()) {
            return self.expect_value_of(PendingKey::Named(Key { name, span }));
        }
        let first = map
            .entries
            .iter()
            .find(|(key, _)| key.name == name)
            .map_or(0, |(key, _)| key.span.start.line);
        let hint = format!("it is already given in line {first}; keep one of them");
        self.refuse_key(format!("the key {} is given twice", quoted(&name)), span, Some(hint));
    }

    fn refuse_key(&mut self, message: impl Into<String>, span: Span, hint: Option<String>) {
        self.problems.push(Problem {
            hint,
            ..Problem::new(message).span(span)
        });
        self.expect_value_of(PendingKey::Refused);
    }

    fn expect_value_of(&mut self, pending: PendingKey) {
        if let Some(Open {
            content: Content::Map(map),
            ..
        }) = self.open.last_mut()
        {
            map.key = Some(pending);
        }
    }

    /// Puts a complete node where it belongs: into the innermost open collection, or among the documents.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Fatal> {
        self.nodes += 1;
        if self.nodes > NODES_LIMIT {
            return Err(Problem::new(format!("the text has more than {NODES_LIMIT} values"))
                .span(node.span)
                .hint("is it the right file? Resources can be split over several"));
        }
        self.remember(anchor, &node)?;
        match self.open.last_mut().map(|open| &mut open.content) {
            None if node.value == Value::Null => {}
            None => self.documents.push(node),
            Some(Content::Seq(items)) => items.push(node),
            Some(Content::Map(map)) => match map.key.take() {
                Some(PendingKey::Named(key)) => map.entries.push((key, node)),
                Some(PendingKey::Merge(span)) => map.merged.push(Node { span, ..node }),
                Some(PendingKey::Refused) => {}
                // A collection or an alias where a key should be; scalars went another way.
                None => match node.value {
                    Value::String(ref name) => self.key(node.value.clone(), &name.clone(), node.span),
                    _ => self.refuse_key("a key must be a string", node.span, None),
                },
            },
        }
        Ok(())
    }

    /// Keeps an anchored node for its aliases; 0 is no anchor.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Fatal> {
        if anchor != 0 {
            self.charge_copy(node)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    fn copy_of(&mut self, anchor: usize, span: Span) -> Result<Node, Fatal> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let message = format!("the alias {} stands inside the value that it names", self.written(span));
            return Err(Problem::new(message).span(span).hint("a value cannot contain itself"));
        };
        if self.open.len() + node.depth() > DEPTH_LIMIT {
            return Err(too_deep(span));
        }
        self.charge_copy(&node)?;
        Ok(Node { span, ..node })
    }

    fn charge_copy(&mut self, node: &Node) -> Result<(), Fatal> {
        self.copied += node.count();
        if self.copied <= COPIED_NODES_LIMIT {
            return Ok(());
        }
        Err(Problem::new(format!(
            "anchors and aliases copy more than {COPIED_NODES_LIMIT} values"
        ))
        .span(node.span)
        .hint("write the values out, or share less"))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Value {
        let string = || Value::String(text.to_owned());
        let Some(tag) = tag else {
            return if style == ScalarStyle::Plain {
                self.plain(text, span)
            } else {
                string()
            };
        };
        let wanted: fn(&Value) -> bool = match core_type(tag) {
            Some("str") => return string(),
            Some("null") => |value| matches!(value, Value::Null),
            Some("bool") => |value| matches!(value, Value::Bool(_)),
            Some("int") => |value| matches!(value, Value::Int(_)),
            Some("float") => |value| matches!(value, Value::Int(_) | Value::Float(_)),
            Some(_) | None => {
                self.unknown_tag(tag, span);
                return string();
            }
        };
        let value = self.plain(text, span);
        if !wanted(&value) {
            let message = format!("{} is not what its tag `{}` says", quoted(text), tag.original());
            self.problems.push(Problem::new(message).span(span));
        }
        value
    }

    fn plain(&mut self, text: &str, span: Span) -> Value {
        let why = match scalar::plain(text) {
            Ok(value) => return value,
            Err(NoSuchNumber::NotFinite) => "is a number that JSON cannot carry",
            Err(NoSuchNumber::TooLarge) => "does not fit a 64-bit number",
        };
        let problem = Problem::new(format!("{} {why}", quoted(text)))
            .span(span)
            .hint("put it in quotes if it is a string");
        self.problems.push(problem);
        // The document is refused; a number in its place keeps the schema from finding a second problem here.
        Value::Float(0.0)
    }

    fn check_collection_tag(&mut self, tag: Option<&Tag>, expected: &str, span: Span) {
        if let Some(tag) = tag.filter(|tag| core_type(tag) != Some(expected)) {
            self.unknown_tag(tag, span);
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, span: Span) {
        let message = format!("the tag {} is not known here", quoted(&tag.original()));
        self.problems.push(
            Problem::new(message)
                .span(span)
                .hint("remove it; types follow from the values"),
        );
    }

    fn not_yaml(&self, error: &ScanError) -> Problem {
        let hint = match error.kind() {
            ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => {
                Some("indent with spaces")
            }
            ErrorKind::InvalidSimpleKey => Some("a value that has `: ` in it must be in quotes"),
            ErrorKind::SimpleKeyExpected => Some("a key needs a `:`; a continued value needs deeper indentation"),
            ErrorKind::UnexpectedCharacter { .. } => Some("a value that starts with this character must be in quotes"),
            ErrorKind::RecursionLimitExceeded => return too_deep(self.at(*error.marker())),
            _ => None,
        };
        let problem = Problem::new(format!("cannot be read as YAML: {}", error.info())).span(self.at(*error.marker()));
        Problem {
            hint: hint.map(str::to_owned),
            ..problem
        }
    }

    fn at(&self, marker: granit_parser::Marker) -> Span {
        self.span(granit_parser::Span::empty(marker))
    }

    fn span(&self, span: granit_parser::Span) -> Span {
        Span {
            source: self.source,
            start: self.position(span.start),
            end: self.position(span.end),
        }
    }

    fn position(&self, marker: granit_parser::Marker) -> Position {
        // Known for every text that is read from a string, as ours are.
        let byte = marker.byte_offset().unwrap_or(self.text.len());
        Position {
            byte,
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn written(&self, span: Span) -> Cow<'_, str> {
        quoted(self.text.get(span.start.byte..span.end.byte).unwrap_or_default()).into()
    }
}

fn too_deep(span: Span) -> Problem {
    Problem::new(format!("nested deeper than {}", counted(DEPTH_LIMIT as u64, "level"))).span(span)
}

/// The type that a tag of YAML itself names; `!` alone means a string.
fn core_type(tag: &Tag) -> Option<&str> {
    if tag.handle().is_empty() && tag.suffix() == "!" {
        Some("str")
    } else {
        tag.core_suffix()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::{Ink, Path};
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn read(text: &str) -> (Vec<Node>, String) {
        let mut sources = Sources::new();
        let id = sources.add("t.yaml", text);
        let mut problems = Problems::new();
        let documents = parse(&sources, id, &mut problems);
        (documents, problems.render(&sources, Ink::Plain))
    }

    fn values(text: &str) -> Json {
        let (documents, problems) = read(text);
        assert_eq!(problems, "", "{text}");
        documents.iter().map(Node::to_json).collect()
    }

    fn problems(text: &str) -> String {
        read(text).1
    }

    #[test]
    fn a_text_is_a_list_of_documents_without_the_empty_ones() {
        assert_eq!(
            values("a: 1\n---\n# nothing\n---\n- b\n...\n---\n~\n"),
            json!([{"a": 1}, ["b"]])
        );
        assert_eq!(values(""), json!([]));
        assert_eq!(values("\u{feff}a: 1\r\nb: x\r\n"), json!([{"a": 1, "b": "x"}]));
    }

    #[test]
    fn unquoted_scalars_follow_yaml_1_2_and_quoted_ones_are_strings() {
        let text = "{a: on, b: yes, c: true, d: 'true', e: \"1\", f: 1, g: 1.5, h: ~, i: , j: 0x1f}";
        let expected = json!([{"a": "on", "b": "yes", "c": true, "d": "true", "e": "1", "f": 1, "g": 1.5, "h": null, "i": null, "j": 31}]);
        assert_eq!(values(text), expected);
        assert_eq!(
            values("a: |\n  1\n  2\nb: >-\n  1\n"),
            json!([{"a": "1\n2\n", "b": "1"}])
        );
        assert_eq!(
            values("a: !!str 1\nb: ! true\nc: !!float 1\nd: !!map {}\n"),
            json!([{"a": "1", "b": "true", "c": 1, "d": {}}])
        );
    }

    #[test]
    fn json_is_yaml_with_tabs_and_surrogate_pairs_too() {
        let value = json!({"a": ["x\u{1f600}/", 1, -2.5e3, null, true], "b": {}});
        let pretty = "{\n\t\"a\":\t[\"x\\ud83d\\ude00\\/\", 1, -2.5e3, null, true],\n\t\"b\" : {}\n}\n";
        assert_eq!(values(pretty), json!([value]));
        assert_eq!(values(&value.to_string()), json!([value]));
    }

    #[test]
    fn places_are_bytes_lines_and_columns_in_characters() {
        let text = "spec:\n  é:\n    - ö: [a, \"b\"]\n      s: |\n        x\n";
        let (documents, _) = read(text);
        let place = |path: &str| {
            let span = documents[0].at(&path.parse().unwrap()).unwrap().span;
            (
                &text[span.start.byte..span.end.byte],
                span.start.line,
                span.start.column,
            )
        };
        assert_eq!(place("spec.é[0].ö[1]"), ("\"b\"", 3, 14));
        assert_eq!(place("spec.é[0].ö"), ("[a, \"b\"]", 3, 10));
        let key = documents[0].key_span(&"spec.é[0].ö".parse().unwrap()).unwrap();
        assert_eq!((&text[key.start.byte..key.end.byte], key.start.column), ("ö", 7));
        assert_eq!(documents[0].key_span(&"spec.é[0]".parse().unwrap()), None);
        // A value of many lines is pointed at by its key, an absent one by what is above it.
        let near = |path: &str| documents[0].nearest_span(&path.parse().unwrap()).start.line;
        assert_eq!(
            [near("spec.é"), near("spec.é[0].ö[7].x"), near("spec.nothing"), near("")],
            [2, 3, 1, 1]
        );
        assert_eq!(documents[0].at(&Path::root()), Some(&documents[0]));
    }

    #[test]
    fn aliases_stand_for_their_anchors_and_merge_keys_take_them_in() {
        let text = "a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\nd: {<<: [*a, {x: 9, z: 9}]}\ne: &e [*a]\nf: *e\n";
        let a = json!({"x": 1, "y": 2});
        let expected =
            json!([{"a": a, "b": a, "c": {"y": 3, "x": 1}, "d": {"x": 1, "y": 2, "z": 9}, "e": [a], "f": [a]}]);
        assert_eq!(values(text), expected);
        assert_eq!(
            values("? &k key\n: 1\n*k : 2\n".replace("*k : 2\n", "b: *k\n").as_str()),
            json!([{"key": 1, "b": "key"}])
        );
        assert_eq!(values("'<<': 1\n"), json!([{"<<": 1}]));
    }

    #[test]
    fn an_alias_stands_where_it_is_written_and_its_content_where_the_anchor_is() {
        let (documents, _) = read("a: &a\n  x: 1\nb: *a\n");
        let line = |path: &str| documents[0].at(&path.parse().unwrap()).unwrap().span.start.line;
        assert_eq!((line("b"), line("b.x")), (3, 2));
    }

    #[test]
    fn a_few_lines_cannot_grow_into_a_flood() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs = format!("{laughs}a{level}: &a{level} [{aliases}]\n");
        }
        insta::assert_snapshot!(problems(&laughs), @"
        error: anchors and aliases copy more than 10000 values
         --> t.yaml:3:9
          |
        3 | a2: &a2 [*a1, *a1, *a1, *a1, *a1, *a1, *a1, *a1, *a1, *a1]
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: write the values out, or share less
        ");
        let deep = "[".repeat(DEPTH_LIMIT + 1) + &"]".repeat(DEPTH_LIMIT + 1);
        insta::assert_snapshot!(problems(&deep), @"
        error: nested deeper than 64 levels
         --> t.yaml:1:65
          |
        1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
          |                                                                 ^
        ");
        assert_eq!(problems(&("[".repeat(DEPTH_LIMIT) + &"]".repeat(DEPTH_LIMIT))), "");
        let long = format!("[{}]", "a,".repeat(NODES_LIMIT));
        assert!(problems(&long).contains("the text has more than 100000 values"));
        let too_long = " ".repeat(TEXT_LIMIT_BYTES + 1);
        insta::assert_snapshot!(problems(&too_long), @"
        error: the text has 4194305 bytes, more than the 4194304 that a resource file may have
         --> t.yaml:1:1
          |
        1 |
          | ^
          |
          = help: is it the right file? Resources can be split over several
        ");
    }

    #[test]
    fn keys_are_strings_and_stand_once() {
        insta::assert_snapshot!(problems("a: 1\nb: 2\na: 3\n8080: x\ntrue: y\n[c]: z\n: n\n"), @r#"
        error: the key `a` is given twice
         --> t.yaml:3:1
          |
        3 | a: 3
          | ^
          |
          = help: it is already given in line 1; keep one of them

        error: the key `8080` is not a string
         --> t.yaml:4:1
          |
        4 | 8080: x
          | ^^^^
          |
          = help: put it in quotes: `"8080":`

        error: the key `true` is not a string
         --> t.yaml:5:1
          |
        5 | true: y
          | ^^^^
          |
          = help: put it in quotes: `"true":`

        error: a key must be a string
         --> t.yaml:6:1
          |
        6 | [c]: z
          | ^^^

        error: the key `~` is not a string
         --> t.yaml:7:1
          |
        7 | : n
          | ^
          |
          = help: is a key missing before the `:`?
        "#);
        assert_eq!(
            read("a: 1\na: 2\n8080: x\n[c, d]: {e: f}\ng: 3\n").0[0].to_json(),
            json!({"a": 1, "g": 3})
        );
    }

    #[test]
    fn what_cannot_be_meant_here_is_a_problem_at_its_place() {
        insta::assert_snapshot!(problems("a: *nowhere\nb: &b {c: 1, d: *b}\n"), @"
        error: the alias `*nowhere` has no anchor
         --> t.yaml:1:4
          |
        1 | a: *nowhere
          |    ^^^^^^^^
          |
          = help: an anchor `&name` must stand above its aliases, in the same document

        error: the alias `*b` stands inside the value that it names
         --> t.yaml:2:17
          |
        2 | b: &b {c: 1, d: *b}
          |                 ^^
          |
          = help: a value cannot contain itself
        ");
        insta::assert_snapshot!(problems("a: .nan\nb: 99999999999999999999\nc: !secret x\nd: !!int x\ne: !!set {}\n<<: 3\n"), @"
        error: `.nan` is a number that JSON cannot carry
         --> t.yaml:1:4
          |
        1 | a: .nan
          |    ^^^^
          |
          = help: put it in quotes if it is a string

        error: `99999999999999999999` does not fit a 64-bit number
         --> t.yaml:2:4
          |
        2 | b: 99999999999999999999
          |    ^^^^^^^^^^^^^^^^^^^^
          |
          = help: put it in quotes if it is a string

        error: the tag `!secret` is not known here
         --> t.yaml:3:12
          |
        3 | c: !secret x
          |            ^
          |
          = help: remove it; types follow from the values

        error: `x` is not what its tag `!!int` says
         --> t.yaml:4:10
          |
        4 | d: !!int x
          |          ^

        error: the tag `!!set` is not known here
         --> t.yaml:5:10
          |
        5 | e: !!set {}
          |          ^
          |
          = help: remove it; types follow from the values

        error: `<<` takes in maps only
         --> t.yaml:6:1
          |
        6 | <<: 3
          | ^^
          |
          = help: write `<<: *name` where `&name` stands on a map, or a list of such aliases
        ");
    }

    #[test]
    fn a_syntax_error_is_shown_and_the_next_document_still_read() {
        let (documents, shown) =
            read("a: 1\n---\nb: {c: d\n---\nspec:\n\tx: 1\n---\nmessage: error: x\n---\ne: @x\n---\nf: 2\n");
        assert_eq!(
            documents.iter().map(Node::to_json).collect::<Vec<_>>(),
            [json!({"a": 1}), json!({"f": 2})]
        );
        insta::assert_snapshot!(shown, @"
        error: cannot be read as YAML: unclosed bracket '{'
         --> t.yaml:3:4
          |
        3 | b: {c: d
          |    ^

        error: cannot be read as YAML: tabs disallowed within this context (block indentation)
         --> t.yaml:6:2
          |
        6 |     x: 1
          |     ^
          |
          = help: indent with spaces

        error: cannot be read as YAML: mapping values are not allowed in this context
         --> t.yaml:8:15
          |
        8 | message: error: x
          |               ^

        error: cannot be read as YAML: unexpected character: `@'
          --> t.yaml:10:4
           |
        10 | e: @x
           |    ^
           |
           = help: a value that starts with this character must be in quotes
        ");
    }

    /// Lines of what YAML is made of, so that the generator reaches beyond the first syntax error.
    fn yamlish() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("- "),
            Just("a: "),
            Just("b:"),
            Just("? "),
            Just(": "),
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just("&x "),
            Just("*x"),
            Just("<<: "),
            Just("|"),
            Just(">-"),
            Just("'"),
            Just("\""),
            Just("#"),
            Just("---"),
            Just("..."),
            Just("!t "),
            Just("!!str "),
            Just("%YAML 1.2"),
            Just("1"),
            Just("~"),
            Just("é"),
            Just("\t"),
            Just("\\u00"),
            Just("\n"),
            Just("\n"),
            Just("\n  "),
            Just("\n    "),
            Just("\r\n"),
            Just("\u{feff}"),
        ];
        proptest::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
    }

    fn places_are_sound(text: &str, node: &Node) -> bool {
        let sound = |span: Span| text.get(span.start.byte..span.end.byte).is_some();
        sound(node.span)
            && match &node.value {
                Value::Seq(items) => items.iter().all(|item| places_are_sound(text, item)),
                Value::Map(entries) => entries
                    .iter()
                    .all(|(key, value)| sound(key.span) && places_are_sound(text, value)),
                _ => true,
            }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn no_text_makes_reading_or_showing_panic(text in prop_oneof![yamlish(), ".{0,80}"]) {
            let (documents, _) = read(&text);
            prop_assert!(documents.iter().all(|node| places_are_sound(&text, node)));
        }

        #[test]
        fn json_reads_as_serde_json_reads_it(text in "[ -~é\n\t😀]{0,20}", number in any::<i64>(), float in proptest::num::f64::NORMAL) {
            let value = json!({"text": text, text: [number, float, null, true, {}]});
            prop_assert_eq!(values(&value.to_string()), json!([value]));
            prop_assert_eq!(values(&serde_json::to_string_pretty(&value).unwrap()), json!([value]));
        }
    }
}

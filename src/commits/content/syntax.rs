//! YAML, JSON and TOML that can be read. Which files are which goes by name, as pre-commit's `identify` has it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_yaml::granit_parser::{self, Event, Parser};

use super::{File, Hit};
use crate::commits::policy::Policy;

pub(super) fn yaml(policy: &Policy, file: &File) -> Vec<Hit> {
    let by_name: [&[u8]; 5] = [
        b".ansible-lint",
        b".clang-format",
        b".clang-tidy",
        b".salt-lint",
        b".yamllint",
    ];
    if !is_kind(file, &["yaml", "yml", "eyaml", "yamlld"], &by_name) {
        return Vec::new();
    }
    let text = match std::str::from_utf8(file.bytes) {
        Ok(text) => text,
        Err(error) => return vec![not_utf8(file, error.valid_up_to())],
    };
    let options = granit_parser::options! { emit_comments: false, emit_unresolved_aliases: true };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    while let Some(next) = parser.next_event() {
        let (event, span) = match next {
            Ok(next) => next,
            Err(error) => {
                let at = error.marker();
                let why = format!("cannot be read as YAML: {}", error.info());
                return vec![Hit::at(at.line(), at.col() + 1, why, "")];
            }
        };
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 && !policy.spec.content.yaml_syntax.multiple_documents {
                    return vec![Hit::at(line, 0, "a second document begins here", "one document a file")];
                }
            }
            Event::Scalar(text, ..) => {
                if let Some(key) = value(&mut open, Some(&text)) {
                    return vec![Hit::at(
                        line,
                        span.start.col() + 1,
                        format!("the key `{key}` stands twice"),
                        "keep one",
                    )];
                }
            }
            Event::Alias(..) => {
                value(&mut open, None);
            }
            Event::UnresolvedAlias(name) => {
                return vec![Hit::at(
                    line,
                    span.start.col() + 1,
                    format!("the alias `*{name}` has no anchor"),
                    "",
                )];
            }
            Event::MappingStart(..) => {
                value(&mut open, None);
                open.push(Open::Map(HashSet::new(), Next::Key));
            }
            Event::SequenceStart(..) => {
                value(&mut open, None);
                open.push(Open::List);
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
            }
            _ => {}
        }
    }
    Vec::new()
}

/// What is open around an event of YAML.
enum Open {
    List,
    Map(HashSet<String>, Next),
}

/// What a map expects next.
enum Next {
    Key,
    Value,
}

/// Takes a node into what is open; gives back a key that its map has already.
fn value(open: &mut [Open], scalar: Option<&str>) -> Option<String> {
    let Some(Open::Map(keys, next)) = open.last_mut() else {
        return None;
    };
    match next {
        Next::Value => *next = Next::Key,
        Next::Key => {
            *next = Next::Value;
            // `<<` may stand twice: it merges.
            if let Some(key) = scalar
                && key != "<<"
                && !keys.insert(key.to_owned())
            {
                return Some(key.to_owned());
            }
        }
    }
    None
}

pub(super) fn json(_: &Policy, file: &File) -> Vec<Hit> {
    let by_name: [&[u8]; 6] = [
        b".babelrc",
        b".bowerrc",
        b".csslintrc",
        b".jshintrc",
        b".mention-bot",
        b"Pipfile.lock",
    ];
    let endings = ["json", "geojson", "ipynb", "jsonld", "ejson", "piskel", "xctestplan"];
    if !is_kind(file, &endings, &by_name) {
        return Vec::new();
    }
    let bytes = file.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file.bytes);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Json.deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Ok(()) => Vec::new(),
        Err(error) => {
            let why = error.to_string();
            let why = why.split(" at line ").next().unwrap_or_default();
            vec![Hit::at(
                error.line(),
                error.column(),
                format!("cannot be read as JSON: {why}"),
                "",
            )]
        }
    }
}

/// Any JSON value, of which nothing is kept but that no map has a key twice.
struct Json;

impl<'de> DeserializeSeed<'de> for Json {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Json)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            map.next_value_seed(Json)?;
            keys.insert(key);
        }
        Ok(())
    }
}

pub(super) fn toml(_: &Policy, file: &File) -> Vec<Hit> {
    let by_name: [&[u8]; 4] = [b"Cargo.lock", b"Pipfile", b"poetry.lock", b"uv.lock"];
    if !is_kind(file, &["toml"], &by_name) {
        return Vec::new();
    }
    let text = match std::str::from_utf8(file.bytes) {
        Ok(text) => text,
        Err(error) => return vec![not_utf8(file, error.valid_up_to())],
    };
    match toml_edit::Document::parse(text) {
        Ok(_) => Vec::new(),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text[..at].matches('\n').count() + 1;
            let why = format!("cannot be read as TOML: {}", error.message());
            vec![Hit::at(line, 0, why, "")]
        }
    }
}

fn is_kind(file: &File, endings: &[&str], names: &[&[u8]]) -> bool {
    file.mode.is_file()
        && (file.ending().is_some_and(|e| endings.contains(&e.as_str())) || names.contains(&file.name()))
}

fn not_utf8(file: &File, at: usize) -> Hit {
    let line = file.bytes[..at].split(|b| *b == b'\n').count();
    Hit::at(line, 0, "is not UTF-8", "save it as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;

    fn said(name: &str, text: &str) -> String {
        let policy = Policy::built_in();
        let file = File::new(name.as_bytes(), Mode::Regular, text.as_bytes());
        let hits = [yaml, json, toml].iter().flat_map(|check| check(&policy, &file));
        let lines: Vec<_> = hits.map(|h| format!("{}:{} {}", h.line, h.column, h.message)).collect();
        lines.concat()
    }

    #[test]
    fn what_can_be_read_is_told_from_what_cannot_by_its_line() {
        for (name, text, expected) in [
            ("a.yaml", "a: 1\n---\nb: [2, {c: d}]\n", ""),
            ("a.yml", "a: &x 1\nb: *x\n? [k]\n: v\n", ""),
            ("a.yaml", "a: 1\nb:\n  a: 2\n", ""),
            ("a.yaml", "a: 1\na: 2\n", "2:1 the key `a` stands twice"),
            ("a.yaml", "", ""),
            ("a.json", "{\"a\": [1, 2.5, null, true, \"x\"]}\n", ""),
            (
                "a.json",
                "{\"a\": 1, \"a\": 2}\n",
                "1:12 cannot be read as JSON: the key `a` stands twice",
            ),
            ("a.toml", "a = 1\n[b]\nc = []\n", ""),
            ("a.toml", "a = 1\na = 2\n", "2:0 cannot be read as TOML: duplicate key"),
            (
                "Cargo.lock",
                "a = \n",
                "1:0 cannot be read as TOML: string values must be quoted, expected literal string",
            ),
            ("a.txt", "a: [\n", ""),
            ("yaml", "a: [\n", ""),
        ] {
            assert_eq!(said(name, text), expected, "{name}: {text:?}");
        }
        assert!(said("a.yaml", "a: [\n").contains("cannot be read as YAML"));
        assert!(said("a.json", "{").contains("1:1 cannot be read as JSON"));
    }

    /// T11: tags that only one application knows are syntax all the same. pre-commit-hooks refuses them without `--unsafe`;
    /// prek passes them, and so do we.
    #[test]
    fn a_tag_of_some_application_is_yaml() {
        assert_eq!(said("a.yaml", "foo: !reference [a]\n"), "");
    }
}

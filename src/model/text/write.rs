//! Values as YAML, for `-o yaml` and generated files.

use serde::Serialize;

/// A value that YAML cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} as YAML: {why}; this is a fault of stagegate, please report it")]
pub struct WriteError {
    what: &'static str,
    why: serde_yaml::SerializeError,
}

/// A value as a YAML document that ends in a line break. Strings that a reader of YAML 1.1 or 1.2 could take for
/// something else (`on`, `1.0`, `0x1`, `~`) are in quotes.
pub fn to_yaml<T: Serialize + ?Sized>(value: &T) -> Result<String, WriteError> {
    let mut text = String::new();
    match serde_yaml::to_fmt_writer_with_options(&mut text, &value, options()) {
        Ok(()) => Ok(text),
        Err(why) => Err(WriteError { what: std::any::type_name::<T>(), why }),
    }
}

/// Scripts stay readable as `|` blocks; long lines stay lines, since folding them is a second notation to read.
fn options() -> serde_yaml::SerializerOptions {
    serde_yaml::ser_options! { prefer_block_scalars: true, folded_wrap_chars: usize::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::{Ink, Problems, Sources, tree};
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn read_back(text: &str) -> Json {
        let mut sources = Sources::new();
        let id = sources.add("written", text);
        let mut problems = Problems::new();
        let documents = tree::parse(&sources, id, &mut problems);
        assert!(problems.is_empty(), "{text}\n{}", problems.render(&sources, Ink::Plain));
        documents.first().map_or(Json::Null, tree::Node::to_json)
    }

    #[test]
    fn strings_that_look_like_something_else_read_back_as_strings() {
        let tricky = [
            "on", "off", "yes", "no", "y", "n", "true", "null", "~", "", "1.0", "1", "0x1", "0o7", "010", "1e3", ".inf",
            ".nan", "12:30", "2024-01-01", "<<", "=", "- a", "a: b", "a #b", "# a", "&a", "*a", "!a", "%a", "@a", "`a",
            "{a", "[a", "|", ">", "'a'", "\"a\"", " a", "a ", "a\n", "\na", "a\n\nb\n", "a\n\n\n", "  a\n b\n", "\t", "a\tb",
            "\u{feff}a", "\u{85}", "\u{2028}", "\r\n", "\0", "---", "...", "? a", "-", "?", ":", "é", "😀",
        ];
        for text in tricky {
            let value = json!({ "value": text, "list": [text], text: 1 });
            let written = to_yaml(&value).unwrap();
            assert_eq!(read_back(&written), value, "{written}");
        }
    }

    #[test]
    fn scripts_stay_readable() {
        let value = json!({
            "script": "#!/bin/sh\nset -eu\nexec server --port 80\n",
            "after": ["database", "on"],
            "long": "word ".repeat(40),
            "none": [],
        });
        insta::assert_snapshot!(to_yaml(&value).unwrap(), @r#"
        script: |
          #!/bin/sh
          set -eu
          exec server --port 80
        after:
        - database
        - "on"
        long: "word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word "
        none: []
        "#);
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let text = prop_oneof![
            "[-a-z0-9:#,\\[\\]{}&*!|>'\"%@` \n\t~.]{0,12}",
            ".{0,8}",
            "(on|yes|null|~|true|[0-9]{1,3}(\\.[0-9])?|0x[0-9a-f]|0o[0-7]|1e[0-9])",
            "( {0,2}[a-z]{0,3}\n){0,4}",
        ];
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            proptest::num::f64::NORMAL.prop_map(Json::from),
            text.clone().prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 30, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map(text.clone(), inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(value in any_json()) {
            let written = to_yaml(&value).unwrap();
            prop_assert_eq!(read_back(&written), value, "{}", written);
        }
    }
}

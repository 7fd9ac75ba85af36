//! Resource documents: what every text of ours must say, whatever resource it states.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::path::Path;
use super::problem::{Problem, Problems};
use super::schema;
use super::source::{SourceId, Sources};
use super::suggest::did_you_mean;
use super::tree::{self, Node};
use super::words::{found, one_of, quoted};

/// The one version of the resources that this program reads.
pub const API_VERSION: &str = "stagegate.dev/v1alpha1";

/// A document that says which resource it is; its body is not checked yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The text it stands in.
    pub source: SourceId,
    /// [`API_VERSION`].
    pub api_version: String,
    /// One of the kinds that were asked for.
    pub kind: String,
    /// Its `metadata.name`, an RFC 1123 label; of a Build or Upgrade a subdomain. Empty where it has none, which was told.
    pub name: String,
    /// The whole document.
    pub tree: Node,
}

/// Reads all documents of a text and checks their heads: `apiVersion`, a `kind` out of `kinds`, and `metadata.name`. What
/// is wrong is added to `problems`; what comes back has a known kind, so that its body can be checked as well.
pub fn documents(sources: &Sources, source: SourceId, kinds: &[&str], problems: &mut Problems) -> Vec<Document> {
    let mut documents = Vec::new();
    for tree in tree::parse(sources, source, problems) {
        documents.extend(with_head(source, tree, kinds, problems));
    }
    documents
}

/// Checks a whole document against the schema of `T` and reads it, all or nothing; [`super::decode_readable`] reads what it can.
pub fn decode<T: DeserializeOwned + JsonSchema>(document: &Document) -> Result<T, Problems> {
    decode_at(&document.tree, &Path::root())
}

/// The same for a part of a document, or for a merged tree: `at` is the path of `node` in its document.
pub fn decode_at<T: DeserializeOwned + JsonSchema>(node: &Node, at: &Path) -> Result<T, Problems> {
    let mut problems = Problems::new();
    schema::check(&schemars::schema_for!(T), node, at, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    // Checks that a schema cannot state (a duration's notation) are the type's own.
    serde_path_to_error::deserialize(node.to_json()).map_err(|error| {
        let inner = Path::from(error.path());
        let message = error.inner().to_string();
        Problems::from(
            Problem::new(message)
                .at(at.join(&inner))
                .span(node.nearest_span(&inner)),
        )
    })
}

fn with_head(source: SourceId, tree: Node, kinds: &[&str], problems: &mut Problems) -> Option<Document> {
    let root = Path::root();
    if tree.entries().is_empty() {
        let message = format!("expected a resource, found {}", found(&tree));
        problems.push(
            Problem::in_tree(&tree, &root, message).hint("a resource has `apiVersion`, `kind`, `metadata` and `spec`"),
        );
        return None;
    }
    // Each is looked at, and what can be made of a wrong one is gone on with, so that all that is wrong with the head is reported, and what is wrong below it.
    let api_version = text_at(
        &tree,
        &root.key("apiVersion"),
        &format!("write `apiVersion: {API_VERSION}`"),
        problems,
    );
    let kind = text_at(&tree, &root.key("kind"), &format!("one of {}", one_of(kinds)), problems);
    let name = text_at(
        &tree,
        &root.key("metadata").key("name"),
        "how other resources refer to this one",
        problems,
    );
    if let Some(version) = &api_version {
        is_ours(version, &tree, problems);
    }
    let kind = kind.and_then(|kind| meant_kind(kind, kinds, &tree, problems));
    if let Some(name) = &name {
        is_name(name, kind.as_deref(), &tree, problems);
    }
    Some(Document {
        source,
        api_version: API_VERSION.to_owned(),
        kind: kind?,
        name: name.unwrap_or_default(),
        tree,
    })
}

/// The string at `path`, which must be there.
fn text_at(tree: &Node, path: &Path, hint: &str, problems: &mut Problems) -> Option<String> {
    let message = match tree.at(path) {
        None => "is missing".to_owned(),
        Some(node) => match node.as_str() {
            Some(text) => return Some(text.to_owned()),
            None => format!("must be a string, found {}", found(node)),
        },
    };
    problems.push(Problem::in_tree(tree, path, format!("`{path}` {message}")).hint(hint));
    None
}

fn is_ours(version: &str, tree: &Node, problems: &mut Problems) {
    if version == API_VERSION {
        return;
    }
    let message = format!("the apiVersion {} is not known", quoted(version));
    let problem = Problem::in_tree(tree, &Path::root().key("apiVersion"), message);
    problems.push(problem.hint(format!("this version of stagegate reads `{API_VERSION}`")));
}

/// The kind, or the known one that it is near to.
fn meant_kind(kind: String, kinds: &[&str], tree: &Node, problems: &mut Problems) -> Option<String> {
    if kinds.contains(&kind.as_str()) {
        return Some(kind);
    }
    let near = did_you_mean(&kind, kinds.iter().copied());
    let hint = match near {
        Some(near) => format!("did you mean {}?", quoted(near)),
        None => format!("known kinds: {}", one_of(kinds)),
    };
    let message = format!("the kind {} is not known", quoted(&kind));
    problems.push(Problem::in_tree(tree, &Path::root().key("kind"), message).hint(hint));
    near.map(str::to_owned)
}

/// Builds and upgrades have versions in their names, and so dots.
fn is_name(name: &str, kind: Option<&str>, tree: &Node, problems: &mut Problems) {
    let (sound, hint) = match kind {
        Some("Build" | "Upgrade") => (
            is_dns_subdomain(name),
            "labels of a-z, 0-9 and `-` with dots between them, at most 253 (RFC 1123), as in Kubernetes",
        ),
        _ => (
            is_dns_label(name),
            "1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends (RFC 1123), as in Kubernetes",
        ),
    };
    if !sound {
        let path = Path::root().key("metadata").key("name");
        let problem = Problem::in_tree(tree, &path, format!("{} cannot be a name", quoted(name)));
        problems.push(problem.hint(hint));
    }
}

/// Whether a name is an RFC 1123 subdomain: labels with dots between them, at most 253 characters.
#[must_use]
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// Whether a name is an RFC 1123 label, as Kubernetes asks of most names: 1 to 63 of `a-z`, `0-9` and `-`, with a
/// letter or digit at both ends.
#[must_use]
pub fn is_dns_label(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.chars().all(|c| alphanumeric(c) || c == '-')
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
}

/// A resource that is stated twice is a problem: neither order nor file name decides which counts.
pub fn report_twice_stated<'d>(
    sources: &Sources,
    documents: impl IntoIterator<Item = &'d Document>,
    problems: &mut Problems,
) {
    let name_path = Path::root().key("metadata").key("name");
    let mut first_stated = HashMap::new();
    for document in documents.into_iter().filter(|document| !document.name.is_empty()) {
        let span = document.tree.nearest_span(&name_path);
        match first_stated.entry((&document.kind, &document.name)) {
            Entry::Vacant(vacant) => {
                vacant.insert(span);
            }
            Entry::Occupied(first) => {
                let first = first.get();
                let message = format!("the {} {} is stated twice", document.kind, quoted(&document.name));
                let hint = format!(
                    "first in {}:{}; keep one of them",
                    sources.name(first.source),
                    first.start.line
                );
                problems.push(Problem::in_tree(&document.tree, &name_path, message).hint(hint));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::text::Ink;

    const KINDS: &[&str] = &["Environment", "Build", "Upgrade"];

    fn shown(files: &[(&str, &str)]) -> String {
        let mut sources = Sources::new();
        for (name, text) in files {
            sources.add(*name, *text);
        }
        let (documents, problems) = load(&sources);
        if problems.is_empty() {
            let names: Vec<String> = documents.iter().map(|d| format!("{}/{} ", d.kind, d.name)).collect();
            names.concat()
        } else {
            problems.render(&sources, Ink::Plain)
        }
    }

    fn load(sources: &Sources) -> (Vec<Document>, Problems) {
        let mut problems = Problems::new();
        let each = sources.ids();
        let found: Vec<Document> = each
            .flat_map(|id| documents(sources, id, KINDS, &mut problems))
            .collect();
        report_twice_stated(sources, &found, &mut problems);
        (found, problems)
    }

    #[test]
    fn documents_of_all_texts_are_found_in_order() {
        let build = "apiVersion: stagegate.dev/v1alpha1\nkind: Build\nmetadata: {name: server-1-0-4}\n";
        let both = format!("{build}---\n{}", build.replace("Build", "Environment"));
        let json = r#"{"apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": "u"}}"#;
        assert_eq!(
            shown(&[("a", &both), ("b", json)]),
            "Build/server-1-0-4 Environment/server-1-0-4 Upgrade/u "
        );
    }

    #[test]
    fn everything_wrong_with_a_head_is_shown() {
        let head =
            "apiVersion: stagegate.dev/v1\nkind: Enviroment\nmetadata:\n  name: Production_1\n---\nkind: 3\n---\n- x\n";
        insta::assert_snapshot!(shown(&[("envs/production.yaml", head)]), @"
        error: the apiVersion `stagegate.dev/v1` is not known
         --> envs/production.yaml:1:13
          |
        1 | apiVersion: stagegate.dev/v1
          |             ^^^^^^^^^^^^^^^^ apiVersion
          |
          = help: this version of stagegate reads `stagegate.dev/v1alpha1`

        error: the kind `Enviroment` is not known
         --> envs/production.yaml:2:7
          |
        2 | kind: Enviroment
          |       ^^^^^^^^^^ kind
          |
          = help: did you mean `Environment`?

        error: `Production_1` cannot be a name
         --> envs/production.yaml:4:9
          |
        4 |   name: Production_1
          |         ^^^^^^^^^^^^ metadata.name
          |
          = help: 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends (RFC 1123), as in Kubernetes

        error: `apiVersion` is missing
         --> envs/production.yaml:6:1
          |
        6 | kind: 3
          | ^^^^^^^ apiVersion
          |
          = help: write `apiVersion: stagegate.dev/v1alpha1`

        error: `metadata.name` is missing
         --> envs/production.yaml:6:1
          |
        6 | kind: 3
          | ^^^^^^^ metadata.name
          |
          = help: how other resources refer to this one

        error: `kind` must be a string, found the number `3`
         --> envs/production.yaml:6:7
          |
        6 | kind: 3
          |       ^ kind
          |
          = help: one of `Environment`, `Build` or `Upgrade`

        error: expected a resource, found a list
         --> envs/production.yaml:8:1
          |
        8 | - x
          | ^^^
          |
          = help: a resource has `apiVersion`, `kind`, `metadata` and `spec`
        ");
    }

    #[test]
    fn a_resource_is_stated_once() {
        let build = "apiVersion: stagegate.dev/v1alpha1\nkind: Build\nmetadata:\n  name: b\n";
        insta::assert_snapshot!(shown(&[("one.yaml", build), ("two.yaml", build)]), @"
        error: the Build `b` is stated twice
         --> two.yaml:4:9
          |
        4 |   name: b
          |         ^ metadata.name
          |
          = help: first in one.yaml:4; keep one of them
        ");
    }

    #[test]
    fn builds_and_upgrades_have_dots_in_their_names() {
        let head = |kind: &str| format!("apiVersion: {API_VERSION}\nkind: {kind}\nmetadata: {{name: web-2.0}}\n");
        assert_eq!(
            shown(&[("b", &head("Build")), ("u", &head("Upgrade"))]),
            "Build/web-2.0 Upgrade/web-2.0 "
        );
        assert!(shown(&[("e", &head("Environment"))]).contains("cannot be a name"));
    }

    #[test]
    fn names_are_rfc_1123_labels() {
        for name in ["a", "0", "a-b", "server-1", &"a".repeat(63)] {
            assert!(is_dns_label(name), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a.b", "a_b", "é", "a b", &"a".repeat(64)] {
            assert!(!is_dns_label(name), "{name}");
        }
    }

    #[test]
    fn problems_of_texts_heads_and_bodies_are_shown_together_and_for_programs() {
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        #[expect(dead_code, reason = "read by serde only")]
        struct Build {
            api_version: String,
            kind: String,
            metadata: serde_json::Value,
            spec: Spec,
        }
        #[derive(Debug, Deserialize, JsonSchema)]
        #[expect(dead_code, reason = "read by serde only")]
        struct Spec {
            version: String,
        }
        let mut sources = Sources::new();
        sources.add("broken.yaml", "a: [\n");
        sources.add(
            "b.yaml",
            "apiVersion: stagegate.dev/v1alpha1\nkind: Build\nmetadata:\n  name: b\nspec:\n  version: 1.10\n",
        );
        let (documents, mut problems) = load(&sources);
        for document in &documents {
            problems.extend(decode::<Build>(document).unwrap_err());
        }
        insta::assert_snapshot!(problems.render(&sources, Ink::Plain), @"
        error: cannot be read as YAML: unclosed bracket '['
         --> broken.yaml:1:4
          |
        1 | a: [
          |    ^

        error: expected a string, found the number `1.1`
         --> b.yaml:6:12
          |
        6 |   version: 1.10
          |            ^^^^ spec.version
          |
          = help: put it in quotes to make it a string
        ");
        insta::assert_snapshot!(serde_json::to_string_pretty(&problems.to_json(&sources)).unwrap(), @r#"
        [
          {
            "file": "broken.yaml",
            "line": 1,
            "column": 4,
            "path": null,
            "message": "cannot be read as YAML: unclosed bracket '['",
            "hint": null
          },
          {
            "file": "b.yaml",
            "line": 6,
            "column": 12,
            "path": "spec.version",
            "message": "expected a string, found the number `1.1`",
            "hint": "put it in quotes to make it a string"
          }
        ]
        "#);
    }
}

//! Generated pages are as the program would generate them now.

use stagegate::cluster::install;
use stagegate::model::text::{Ink, Path, Problems, Sources};

use crate::tree::files;

/// With this set, the pages are written anew.
const REGENERATE: &str = "STAGEGATE_REGENERATE";

fn check(name: &str, generated: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(&path, generated).expect("written");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == generated,
        "docs/{name} is not what the program says; run `{REGENERATE}=1 cargo test reference` and commit it"
    );
}

#[test]
fn the_command_line_is_documented_as_it_is() {
    check("reference/cli.md", &stagegate::cli::reference());
    check("reference/kubectl.md", &stagegate::cli::plugin_reference());
}

#[test]
fn the_schema_is_that_of_the_types() {
    let schema = serde_json::to_string_pretty(&stagegate::cli::schema()).expect("JSON");
    check("reference/schema.json", &(schema + "\n"));
}

#[test]
fn the_definitions_for_kubernetes_are_those_of_the_types() {
    check("reference/crds.yaml", &stagegate::cli::crds().expect("YAML"));
}

#[test]
fn what_is_applied_to_a_cluster_is_what_the_command_prints() {
    let (namespace, image) = (install::NAMESPACE, install::IMAGE);
    let printed = stagegate::cli::manifests(namespace, image).expect("YAML");
    check("kubernetes/base/install.yaml", &printed);
}

/// Editors and other programs judge files by it: what is shipped passes, a replica too, and what is half of neither does not.
#[test]
fn the_schema_accepts_what_is_shipped_and_replicas() {
    let problems = |text: &str| {
        // Our own check reads a choice of whole resources as one of the first; a validator reads all.
        let kind = text.split("\nkind: ").nth(1).and_then(|rest| rest.lines().next());
        let mut schema = stagegate::cli::schema();
        schema["$ref"] = format!("#/$defs/{}", kind.expect("a kind")).into();
        schema.as_object_mut().expect("a map").remove("oneOf");
        let schema = schemars::Schema::try_from(schema).expect("a schema");
        let mut sources = Sources::new();
        let source = sources.add("it", text);
        let mut problems = Problems::new();
        let trees = stagegate::model::text::tree::parse(&sources, source, &mut problems);
        for tree in trees {
            stagegate::model::text::schema::check(&schema, &tree, &Path::root(), &mut problems);
        }
        problems.render(&sources, Ink::Plain)
    };
    let mut shipped = files(&["environments", "pipelines"]);
    shipped.sort();
    for (path, text) in &shipped {
        assert_eq!(problems(text), "", "{}", path.display());
    }
    let replica = shipped.iter().find(|(path, _)| path.ends_with("panda-staging.yaml"));
    let (_, replica) = replica.expect("a replica");
    assert!(replica.contains("replicaOf"), "{replica}");
    for (from, to) in [
        ("replicaOf:", "replicaOff:"),
        ("- name: server1", "- nam: server1"),
        ("http: 25180", "http: eighty"),
    ] {
        assert_ne!(problems(&replica.replacen(from, to, 1)), "", "{to}");
    }
    for (from, to) in [
        ("ports: {postgres: 25532}", "ports: null"),
        (
            "    - name: database\n      ports: {postgres: 25532}",
            "    - {name: database, $patch: delete}",
        ),
    ] {
        assert!(replica.contains(from), "{from}");
        assert_eq!(problems(&replica.replacen(from, to, 1)), "", "{to}");
    }
}

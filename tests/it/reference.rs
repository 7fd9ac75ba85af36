//! Generated pages are as the program would generate them now.

use std::path::Path;

/// With this set, the pages are written anew.
const REGENERATE: &str = "STAGEGATE_REGENERATE";

fn check(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(&path, generated).expect("written");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == generated,
        "docs/reference/{name} is not what the program says; run `{REGENERATE}=1 cargo test reference` and commit it"
    );
}

#[test]
fn the_command_line_is_documented_as_it_is() {
    check("cli.md", &stagegate::cli::reference());
}

#[test]
fn the_schema_is_that_of_the_types() {
    let schema = serde_json::to_string_pretty(&stagegate::cli::schema()).expect("JSON");
    check("schema.json", &(schema + "\n"));
}

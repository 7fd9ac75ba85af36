//! What the documents show is true: their YAML is read, their commands are commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tree::files;

fn documents() -> Vec<(PathBuf, String)> {
    let mut found = files(&["README.md", "docs"]);
    found.retain(|(path, _)| path.extension().is_some_and(|e| e == "md"));
    found
}

/// Fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let begins = text.split(&fence).skip(1);
    begins
        .filter_map(|rest| rest.split("\n```").next().map(str::to_owned))
        .collect()
}

#[test]
fn every_yaml_in_the_documents_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (path, text) in documents() {
        // Who reads a document has the files that it showed before.
        let workspace = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(root.join("templates"), workspace.path().join("templates")).expect("linked");
        let environments = workspace.path().join("environments");
        std::fs::create_dir(&environments).expect("made");
        let signers = workspace.path().join("pipelines/signers");
        std::fs::create_dir_all(&signers).expect("made");
        std::fs::write(signers.join("managers"), "").expect("written");
        for file in ["panda-production.yaml", "panda-staging.yaml"] {
            std::fs::copy(root.join("environments").join(file), environments.join(file)).expect("copied");
        }
        for yaml in blocks(&text, "yaml") {
            let name = yaml
                .split("name: ")
                .nth(1)
                .and_then(|rest| rest.split(['}', '\n']).next());
            let file = format!("{}.yaml", name.expect("a name"));
            std::fs::write(environments.join(file), &yaml).expect("written");
            let said = Command::new(env!("CARGO_BIN_EXE_stagegate"))
                .arg("lint")
                .arg(&environments)
                .env("STAGEGATE_WORKSPACE", workspace.path())
                .output()
                .expect("the program runs");
            assert!(
                said.status.success(),
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&said.stderr)
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "no document shows any YAML");
}

#[test]
fn every_command_in_the_documents_is_a_command() {
    let mut seen = 0;
    for (path, text) in documents() {
        let lines = blocks(&text, "sh");
        for line in lines
            .iter()
            .flat_map(|b| b.lines())
            .filter(|l| l.starts_with("stagegate ") || l.starts_with("kubectl stagegate "))
        {
            // What another program is handed is its own.
            let line = line.split(" | ").next().unwrap_or_default();
            // The shell that a reader would use takes quotes and comments away.
            let split = Command::new("sh")
                .args(["-c", &format!("set -- {line}\nprintf '%s\\n' \"$@\"")])
                .output()
                .expect("sh runs");
            let words = String::from_utf8(split.stdout).expect("text");
            let understood = stagegate::cli::understood(words.lines());
            assert!(
                understood.is_ok(),
                "{}: {line}: {}",
                path.display(),
                understood.unwrap_err()
            );
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} commands are shown");
}

/// A template of a rehearsal is never carried out, so who waits for it waits for ever.
#[test]
fn who_is_shown_to_wait_for_a_rehearsal_waits_for_one_that_is_carried_out() {
    let mut seen = 0;
    for (path, text) in documents() {
        let rehearsals: Vec<String> = blocks(&text, "yaml")
            .into_iter()
            .filter(|yaml| yaml.contains("kind: Rehearsal\n"))
            .collect();
        let shell = blocks(&text, "sh").join("\n");
        for line in shell.lines().filter(|line| line.starts_with("kubectl wait ")) {
            let Some(name) = line.split_whitespace().find_map(|word| word.strip_prefix("reh/")) else {
                continue;
            };
            let is_carried_out =
                |yaml: &String| yaml.contains(&format!("{{name: {name}}}")) && !yaml.contains("=candidate");
            assert!(rehearsals.iter().any(is_carried_out), "{}: {line}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "no document shows it");
}

/// The template of the guide beside the replica that names it.
#[test]
fn the_template_in_the_guide_is_one() {
    let (_, guide) = files(&["docs/guides/kubernetes.md"]).remove(0);
    let [template] = &blocks(&guide, "jinja")[..] else {
        panic!("one template")
    };
    let workspace = tempfile::tempdir().expect("a directory");
    for directory in ["templates", "environments"] {
        std::fs::create_dir(workspace.path().join(directory)).expect("made");
    }
    std::fs::write(workspace.path().join("templates/web.yaml"), template).expect("written");
    let component = |more: &str| {
        format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\nmetadata: {{name: {}}}\nspec:\n  components:\n    - name: web\n{more}",
            if more.contains("manifests") {
                "staging"
            } else {
                "production"
            }
        )
    };
    let digest = "0".repeat(64);
    let images = format!(
        "      source: {{images: {{repository: r.example/web, digests: {{\"1.0\": \"sha256:{digest}\"}}}}}}\n      build: \"1.0\"\n      ports: {{http: 8080}}\n"
    );
    let production = component(&format!(
        "{images}      statefulSet: {{namespace: shop, name: web, replicas: 3}}\n"
    ));
    let staging = component(
        "      manifests: [web.yaml]\n      statefulSet: {namespace: panda-staging, name: web, replicas: 3}\n",
    )
    .replace(
        "spec:\n",
        "spec:\n  replicaOf: production\n  target: {kubernetes: {namespace: panda-staging}}\n",
    );
    let environments = workspace.path().join("environments");
    std::fs::write(environments.join("production.yaml"), production).expect("written");
    std::fs::write(environments.join("staging.yaml"), staging).expect("written");
    let said = Command::new(env!("CARGO_BIN_EXE_stagegate"))
        .args(["lint", &environments.to_string_lossy()])
        .env("STAGEGATE_WORKSPACE", workspace.path())
        .output()
        .expect("the program runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// What stands in backticks in a text of the program may be pasted. Commands of `stagegate` become the plugin's where that has them
/// (`cli::called`), so these are those that are written as the plugin's.
#[test]
fn every_command_of_the_plugin_that_a_message_names_is_one() {
    let hole = regex::Regex::new(r"\{[^}]*\}").expect("a pattern");
    let command = regex::Regex::new(r"`kubectl (stagegate [^`]*)`").expect("a pattern");
    let goes_on = regex::Regex::new(r"\\\n\s*").expect("a pattern");
    let mut seen = 0;
    for (path, text) in files(&["src"]) {
        // It writes about the program's help.
        if path.ends_with("cli/reference.rs") {
            continue;
        }
        let told: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        // A literal that goes on in the next line is one.
        let told = goes_on.replace_all(&told.join("\n"), "").into_owned();
        for found in command.captures_iter(&told) {
            let words = hole.replace_all(&found[1], "x").into_owned();
            let words = ["kubectl"].into_iter().chain(words.split_whitespace());
            let understood = stagegate::cli::understood(words);
            assert!(
                understood.is_ok(),
                "{}: {}: {}",
                path.display(),
                &found[0],
                understood.unwrap_err()
            );
            seen += 1;
        }
    }
    assert!(seen > 3, "only {seen} are named");
}

/// What a newcomer types first does what it says.
#[test]
fn a_workspace_is_made_and_checked_as_the_guide_says() {
    let (_, guide) = files(&["docs/guides/environment.md"]).remove(0);
    let commands = blocks(&guide, "sh").remove(0);
    assert_eq!(commands, "stagegate init my-system\nstagegate lint my-system");
    let place = tempfile::tempdir().expect("a directory");
    for line in commands.lines() {
        let said = Command::new(env!("CARGO_BIN_EXE_stagegate"))
            .args(line.split_whitespace().skip(1))
            .current_dir(place.path())
            .env_remove("STAGEGATE_WORKSPACE")
            .env("STAGEGATE_STATE", place.path().join("state"))
            .output()
            .expect("the program runs");
        assert!(
            said.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&said.stderr)
        );
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let file = target.split('#').next().unwrap_or_default();
            let place = path.parent().expect("a directory").join(file);
            assert!(place.exists(), "{}: {target}", path.display());
        }
    }
}

/// A test that is named as the guard of an invariant is there.
#[test]
fn every_test_that_the_architecture_names_exists() {
    let (_, map) = files(&["docs/ARCHITECTURE.md"]).remove(0);
    let code: Vec<(PathBuf, String)> = files(&["tests/it", "src"]);
    let pattern = regex::Regex::new(r"`(?:[a-z_*]+::)+([a-z_]{20,})`").expect("a pattern");
    let names: Vec<&str> = pattern.captures_iter(&map).map(|c| c.extract::<1>().1[0]).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let there = code.iter().any(|(_, text)| text.contains(&format!("fn {name}(")));
        assert!(there, "ARCHITECTURE.md names {name}, which is no test");
    }
}

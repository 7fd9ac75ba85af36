//! The program as its user meets it, without any node.

use std::path::Path;
use std::process::{Command, Output};

fn stagegate(state: &Path, workspace: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stagegate"))
        .args(arguments)
        .env("STAGEGATE_STATE", state)
        .env("STAGEGATE_WORKSPACE", workspace)
        .env("STAGEGATE_USER", "tester")
        .env("NO_COLOR", "1")
        .env_remove("STAGEGATE_PORT_SHIFT")
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shipped() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const SOUND: &str = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: server
      source: {directory: builds}
      service: {pidFile: run/pid}
      nodes: [{name: n1}]
      actions:
        install: {template: a.sh}
        start: {template: a.sh}
        stop: {template: a.sh}
";

/// A workspace with one environment.
fn workspace(environment: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, content) in [("environments/one.yaml", environment), ("templates/a.sh", "exit 0\n")] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    std::fs::create_dir_all(dir.path().join("builds/1.0")).expect("made");
    std::fs::write(dir.path().join("builds/1.0/file"), "x").expect("written");
    dir
}

#[test]
fn what_is_shipped_is_sound() {
    let state = tempfile::tempdir().expect("a directory");
    let said = stagegate(state.path(), shipped(), &["lint"]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert!(
        text(&said.stderr).contains("nothing is wrong"),
        "{}",
        text(&said.stderr)
    );
}

#[test]
fn bad_input_is_exit_2_with_its_line_and_touches_nothing() {
    let rows = [
        ("pidFile: run/pid", "pidFil: run/pid", "pidFil", "one.yaml:8"),
        ("nodes: [{name: n1}]", "nodes: []", "", "one.yaml:9"),
        (
            "template: a.sh}",
            "template: ../a.sh}",
            "no path below templates/",
            "one.yaml:11",
        ),
        (
            "template: a.sh}",
            "template: b.sh}",
            "no template `b.sh`",
            "one.yaml:11",
        ),
        (
            "    - name: server",
            "    - name: server\n      after: [server]",
            "goes in a circle",
            "one.yaml:7",
        ),
        (
            "    - name: server",
            "    - name: server\n      after: [databse]",
            "no component `databse`",
            "one.yaml:7",
        ),
        ("spec:", "spec: [", "", "one.yaml:"),
    ];
    for (from, to, expected, place) in rows {
        let workspace = workspace(&SOUND.replacen(from, to, 1));
        let state = workspace.path().join("state");
        for command in [&["lint"][..], &["up", "one"]] {
            let said = stagegate(&state, workspace.path(), command);
            let words = text(&said.stderr);
            assert_eq!(said.status.code(), Some(2), "{to}: {words}");
            assert!(words.contains(expected) && words.contains(place), "{to}: {words}");
        }
        assert!(!state.join("environments").exists(), "{to}: nothing may be touched");
    }
}

#[test]
fn an_unknown_name_says_what_is_near() {
    let workspace = workspace(SOUND);
    let state = workspace.path().join("state");
    for (arguments, expected) in [
        (&["up", "on"][..], "did you mean `one`?"),
        (&["upgrade", "one", "--build", "server=2.0"], "has no version 2.0"),
        (&["upgrade", "one", "--build", "server"], "write COMPONENT=VERSION"),
        (
            &["upgrade", "one", "--build", "sever=1.0"],
            "has no component `sever`; it has server",
        ),
    ] {
        let said = stagegate(&state, workspace.path(), arguments);
        let words = text(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{arguments:?}: {words}");
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
}

#[test]
fn one_home_with_a_newer_state_is_refused() {
    let workspace = workspace(SOUND);
    let state = workspace.path().join("state");
    assert!(stagegate(&state, workspace.path(), &["status"]).status.success());
    std::fs::write(
        state.join("stagegate.db"),
        "this is no database, and long enough to be looked at",
    )
    .expect("written");
    let said = stagegate(&state, workspace.path(), &["status"]);
    assert_eq!(said.status.code(), Some(1), "{}", text(&said.stderr));
    assert!(text(&said.stderr).contains("stagegate.db"), "{}", text(&said.stderr));
}

//! What a script is told without anybody else reading it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use stagegate::hosts::{Host as _, HostError, Work};

use super::{Bench, PATIENCE, ended, let_go, meeting, met_at, on_both_hosts, script, step, token};

on_both_hosts! {
    secrets_are_files_for_as_long_as_the_step_runs_and_nowhere_else
    variables_of_a_script_lie_as_secrets_do_and_reach_it_whole
    what_a_script_prints_of_its_secrets_reaches_nobody
}

/// A `set -x` or a client that shows its command line is enough.
async fn what_a_script_prints_of_its_secrets_reaches_nobody(bench: Bench) {
    let mut script = script("cat \"$STAGEGATE_SECRETS_DIR\"/*; echo \"asked $INDEX\"; exit 7\n");
    script
        .secrets
        .insert("key".into(), b"first-half\nsecond-half\n".to_vec());
    script.secrets.insert("pin".into(), b"1234".to_vec());
    script
        .environment
        .insert("INDEX".into(), "https://u:purple-rain@index.example/".into());
    let step = step("s1", Work::Script(script));
    let sight = bench.host.run(&bench.node, &token("home-a", 1), &step, PATIENCE).await;
    let end = ended(&sight.expect("run"), "s1");
    assert_eq!(end.exit, 7);
    let shown: Vec<&str> = end.log_tail.lines().collect();
    assert_eq!(
        shown[..4],
        ["[hidden]", "[hidden]", "1234asked [hidden]", shown[3]],
        "{shown:?}"
    );
}

async fn secrets_are_files_for_as_long_as_the_step_runs_and_nowhere_else(bench: Bench) {
    const SECRET: &str = "correct-horse'\"\\ %s \t\u{e9}";
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let mut script = script(meeting(&arrived, &go) + "cat \"$STAGEGATE_SECRETS_DIR/db\" >copy\n");
    let bytes = [SECRET.as_bytes(), &[0, 255, b'\n']].concat();
    script.secrets.insert("db".into(), bytes.clone());
    assert!(!format!("{script:?}").contains("correct-horse"));
    let run = tokio::spawn({
        let (host, node) = (Arc::clone(&bench.host), bench.node.clone());
        let step = step("s1", Work::Script(script));
        async move { host.run(&node, &token("home-a", 1), &step, PATIENCE).await }
    });
    met_at(&arrived).await;
    let file = bench.path("steps/s1/secrets/script/db");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    for process in fs::read_dir("/proc").expect("/proc") {
        let path = process.expect("an entry").path();
        for place in ["cmdline", "environ"] {
            let text = fs::read(path.join(place)).unwrap_or_default();
            let found = text.windows(13).any(|w| w == b"correct-horse");
            assert!(!found, "{}/{place}", path.display());
        }
    }
    let_go(&go).await;
    let end = ended(&run.await.expect("no panic").expect("run"), "s1");
    assert_eq!(end.exit, 0, "{}", end.log_tail);
    assert_eq!(fs::read(bench.path("copy")).expect("copied"), bytes);
    fs::remove_file(bench.path("copy")).expect("removed");
    assert_eq!(bench.holding("correct-horse"), [""; 0].map(PathBuf::from));
}

/// The password of a package index, say. Another secret than that of the test above, which looks for its own in the
/// environment of every process.
async fn variables_of_a_script_lie_as_secrets_do_and_reach_it_whole(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let value = "https://user:battery-staple@index.example/it's $HOME\n\"simple\"";
    let mut script = script(format!(
        "printf '%s' \"$PIP_INDEX_URL\" >copy\n{}",
        meeting(&arrived, &go)
    ));
    script.environment.insert("PIP_INDEX_URL".into(), value.into());
    assert!(!format!("{script:?}").contains("battery-staple"), "{script:?}");
    let run = tokio::spawn({
        let (host, node, step) = (
            Arc::clone(&bench.host),
            bench.node.clone(),
            step("s1", Work::Script(script)),
        );
        async move { host.run(&node, &token("home-a", 1), &step, PATIENCE).await }
    });
    met_at(&arrived).await;
    let file = bench.path("steps/s1/secrets/script.environment");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(bench.holding("battery-staple"), [file, bench.path("copy")]);
    for process in fs::read_dir("/proc").expect("/proc") {
        let path = process.expect("an entry").path().join("cmdline");
        let text = fs::read(&path).unwrap_or_default();
        assert!(!text.windows(14).any(|w| w == b"battery-staple"), "{}", path.display());
    }
    let_go(&go).await;
    let end = ended(&run.await.expect("no panic").expect("run"), "s1");
    assert_eq!(end.exit, 0, "{}", end.log_tail);
    assert_eq!(bench.read("copy"), value);
    assert_eq!(
        bench.holding("battery-staple"),
        [bench.path("copy")],
        "gone with the script"
    );
    let mut odd = self::script("true");
    odd.environment.insert("a;b".into(), "x".into());
    let refused = bench.ask("s2", Work::Script(odd), PATIENCE).await;
    assert!(matches!(refused, Err(HostError::Failed { .. })), "{refused:?}");
}

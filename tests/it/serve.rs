//! `stagegate serve`, as its user meets it.

use rustix::process::Signal;

use crate::trivial::{ENVIRONMENT, Trivial, health};

#[test]
fn where_serve_runs_upgrade_hands_over_and_watches() {
    let small = Trivial::up();
    let (server, address) = small.serve();
    let (status, body) = health(&address);
    assert!(status.contains("200"), "{status}");
    assert_eq!(body["status"], "ok", "{body}");

    let done = small.run(&["upgrade", ENVIRONMENT, "--build", "web=2", "-o", "json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for part in [
        "stagegate serve` (",
        "web@2 upgrade of small begun by tester",
        "web@2 upgrade on: n1 by tester.",
        "web@2 upgrade on: n2 by tester.",
        "web@2 upgrade of small succeeded",
    ] {
        assert!(done.err.contains(part), "{part}: {done:?}");
    }
    assert_eq!(done.json()["status"]["phase"], "Succeeded");
    assert_eq!(done.json()["kind"], "Upgrade");

    // Also of a build that fails its gate: the same exit code as without serve.
    let failed = small.run(&["upgrade", ENVIRONMENT, "--build", "web=bad", "-o", "json"]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert_eq!(failed.json()["status"]["phase"], "RolledBack", "{failed:?}");
    let refused = small.run(&["upgrade", ENVIRONMENT, "--build", "web=bad"]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    let nothing = small.run(&["retry", ENVIRONMENT]);
    assert_eq!(nothing.code, Some(6), "a quarantined build is not retried: {nothing:?}");

    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // The server has carried the reports, and has left no lease behind.
    let reports = small.path("state/environments/small/reports.jsonl");
    let reports = std::fs::read_to_string(reports).expect("reports");
    assert!(reports.contains("web@2 upgrade of small succeeded"), "{reports}");
    assert!(reports.contains("was rolled back"), "{reports}");
    let own = small.run(&["upgrade", ENVIRONMENT, "--build", "web=3"]);
    assert_eq!(own.code, Some(0), "{own:?}");
    assert!(!own.err.contains("stagegate serve`"), "{own:?}");
}

#[test]
fn one_home_has_one_server() {
    let small = Trivial::new();
    let (server, _) = small.serve();
    let second = small.run(&["serve", "--listen", "127.0.0.1:0", "-o", "json"]);
    assert_eq!(second.code, Some(6), "{second:?}");
    assert!(
        second.err.contains("runs already") && second.err.contains("(pid "),
        "{second:?}"
    );
    assert_eq!(second.json()["status"]["reason"], "Refused", "{second:?}");
    // One that was killed is nobody.
    server.signal(Signal::KILL);
    drop(server);
    let (third, address) = small.serve();
    assert!(health(&address).0.contains("200"));
    drop(third);
}

#[test]
fn who_watches_may_leave_and_the_upgrade_goes_on() {
    let small = Trivial::up();
    let (server, _) = small.serve();
    let mut watcher = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow", "-o", "json"]);
    watcher.until("is rolling");
    watcher.signal(Signal::INT);
    let left = watcher.end();
    assert_eq!(left.code, Some(130), "{left:?}");
    assert!(left.err.contains("stopped watching"), "{left:?}");
    assert_eq!(left.json()["status"]["phase"], "Rolling", "{left:?}");

    let other = small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]);
    assert_eq!(other.code, Some(6), "{other:?}");
    let mut again = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow", "-o", "json"]);
    again.until("drives");
    small.let_go();
    let done = again.end();
    assert_eq!(done.code, Some(0), "{done:?}");
    let upgrade = done.json();
    assert_eq!(upgrade["metadata"]["name"], left.json()["metadata"]["name"]);
    let name = upgrade["metadata"]["name"].as_str().expect("a name");
    assert_eq!(
        (small.completed(name, "install"), small.completed(name, "restart")),
        (2, 2)
    );
    drop(server);
}

#[test]
fn what_an_operator_has_paused_stays_paused_until_resumed() {
    let small = Trivial::up();
    let (server, _) = small.serve();
    let left = small.run(&["upgrade", ENVIRONMENT, "--build", "web=slow", "--no-wait", "-o", "json"]);
    assert_eq!(
        (left.code, &left.json()["kind"]),
        (Some(0), &"Upgrade".into()),
        "{left:?}"
    );
    let mut events = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow"]);
    events.until("is rolling");
    let paused = small.run(&["pause", ENVIRONMENT, "-o", "json"]);
    assert_eq!(
        (paused.code, &paused.json()["spec"]["wish"]),
        (Some(0), &"pause".into()),
        "{paused:?}"
    );
    small.let_go();
    let held = events.end();
    assert_eq!(held.code, Some(5), "{held:?}");

    // A new server does not take it either.
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
    let (server, address) = small.serve();
    let (_, body) = health(&address);
    assert_eq!(
        (&body["unfinished"], &body["driving"]),
        (&1.into(), &serde_json::json!({})),
        "{body}"
    );
    assert_eq!(small.upgrade()["status"]["phase"], "Paused");

    let resumed = small.run(&["resume", ENVIRONMENT]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.err.contains("goes on as asked by tester"), "{resumed:?}");
    drop(server);
}

#[test]
fn a_timeout_pauses_what_the_server_drives() {
    let small = Trivial::up();
    let (server, _) = small.serve();
    let mut watcher = small.start(&[
        "upgrade",
        ENVIRONMENT,
        "--build",
        "web=slow",
        "--timeout",
        "1s",
        "-o",
        "json",
    ]);
    watcher.until("not done within 1s");
    small.let_go();
    let done = watcher.end();
    assert_eq!(done.code, Some(124), "{done:?}");
    assert_eq!(done.json()["status"]["phase"], "Paused");
    let retried = small.run(&["retry", ENVIRONMENT, "-o", "json"]);
    assert_eq!(retried.code, Some(0), "{retried:?}");
    assert_eq!(retried.json()["metadata"]["name"], done.json()["metadata"]["name"]);
    drop(server);
}

#[test]
fn an_upgrade_whose_server_was_killed_is_finished_by_who_watches_and_nothing_is_done_twice() {
    let small = Trivial::up();
    let (server, _) = small.serve();
    let mut watcher = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow", "-o", "json"]);
    watcher.until("is rolling");
    server.signal(Signal::KILL);
    drop(server);
    watcher.until("stagegate serve` is gone");
    small.let_go();
    let done = watcher.end();
    assert_eq!(done.code, Some(0), "{done:?}");
    let upgrade = done.json();
    let name = upgrade["metadata"]["name"].as_str().expect("a name");
    assert_eq!(
        (small.completed(name, "install"), small.completed(name, "restart")),
        (2, 2)
    );
}

#[test]
fn the_next_server_resumes_what_a_killed_one_left() {
    let small = Trivial::up();
    let (server, _) = small.serve();
    let mut watcher = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow"]);
    watcher.until("is rolling");
    watcher.signal(Signal::KILL);
    drop(watcher);
    server.signal(Signal::KILL);
    drop(server);
    small.let_go();
    let (mut server, _) = small.serve();
    server.until("web@slow upgrade of small succeeded");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
    let upgrade = small.upgrade();
    assert_eq!(upgrade["status"]["phase"], "Succeeded");
    let name = upgrade["metadata"]["name"].as_str().expect("a name");
    assert_eq!(
        (small.completed(name, "install"), small.completed(name, "restart")),
        (2, 2)
    );
}

#[test]
fn abort_goes_back_whoever_drives() {
    let small = Trivial::up();
    let (server, _) = small.serve();
    let mut watcher = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow"]);
    watcher.until("is rolling");
    let mut abort = small.start(&["abort", ENVIRONMENT, "-o", "json"]);
    abort.until("drives");
    small.let_go();
    let aborted = abort.end();
    assert_eq!(aborted.code, Some(0), "{aborted:?}");
    assert_eq!(aborted.json()["status"]["phase"], "Aborted");
    assert_eq!(watcher.end().code, Some(5));

    // What has ended is begun anew, by the same build.
    let retried = small.run(&["retry", ENVIRONMENT, "-o", "json"]);
    assert_eq!(retried.code, Some(0), "{retried:?}");
    assert_ne!(retried.json()["metadata"]["name"], aborted.json()["metadata"]["name"]);
    assert_eq!(retried.json()["spec"]["build"], "web-slow");
    drop(server);
}

#[test]
fn a_command_that_means_another_workspace_is_refused() {
    let small = Trivial::up();
    let (server, _) = small.serve();
    let other = Trivial::new();
    let said = other.run_in_state_of(&small, &["upgrade", ENVIRONMENT, "--build", "web=2"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("STAGEGATE_WORKSPACE"), "{said:?}");
    drop(server);
}

#[test]
fn an_upgrade_that_cannot_be_driven_says_so_and_goes_on_once_it_can() {
    let small = Trivial::up();
    let (server, address) = small.serve();
    let file = small.path("workspace/environments/small.yaml");
    let sound = std::fs::read_to_string(&file).expect("written before");
    let mut watcher = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow"]);
    watcher.until("is rolling");
    server.signal(Signal::KILL);
    drop(server);
    drop(watcher);
    small.let_go();
    std::fs::write(&file, sound.replace("pidFile", "pidFil")).expect("written");
    let (mut server, second) = small.serve();
    assert_ne!(address, second);
    server.until("cannot be driven");
    let (_, body) = health(&second);
    assert!(body["status"] == "ok", "{body}");
    std::fs::write(&file, sound).expect("written");
    server.until("web@slow upgrade of small succeeded");
}

#[test]
fn no_wait_without_a_server_is_refused_and_changes_nothing() {
    let small = Trivial::up();
    let said = small.run(&["upgrade", ENVIRONMENT, "--build", "web=2", "--no-wait"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("none runs on this state"), "{said:?}");
    let history = small.run(&["history", ENVIRONMENT, "-o", "json"]).json();
    assert_eq!(history["items"], serde_json::json!([]));
}

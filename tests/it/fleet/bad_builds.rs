//! Builds that must not stay.

use std::process::Command;

use serde_json::Value;

use super::system::{ENVIRONMENT, Fleet, NODES, Settings, completed, of_node, phase};

fn failed_gate(upgrade: &Value) -> &Value {
    let gates = upgrade["status"]["gates"].as_array().expect("gates");
    gates.iter().find(|g| g["verdict"] == "Fail").expect("one failed")
}

/// The build served nowhere beyond the first node, and that one is back; at most it lies beside what serves on the second.
fn assert_only_n1_was_touched(fleet: &Fleet, upgrade: &Value) {
    let name = upgrade["metadata"]["name"].as_str().expect("a name");
    fleet.assert_serves("1.0");
    for node in NODES {
        assert_eq!(of_node(upgrade, node)["build"], "web-1.0", "{upgrade:#}");
        let journal = fleet.journal(node);
        let installs = completed(&journal, name, "install").len();
        let expected = match node {
            "n1" => 1..=1,
            "n2" => 0..=1,
            _ => 0..=0,
        };
        assert!(expected.contains(&installs), "{node}: {journal:#?}");
        if node != "n1" {
            assert_eq!(completed(&journal, name, "activate").len(), 0, "{node}: {journal:#?}");
            assert_eq!(fleet.starts(node).len(), 1, "{node} was never restarted");
        }
    }
    fleet.assert_no_step_open();
    fleet.assert_free();
}

#[test]
fn a_slow_build_is_rolled_back_cured_quarantined_and_its_verdict_can_be_replayed() {
    let fleet = Fleet::up();
    let upgrade = fleet.upgrade("3.0").expect_code(3).json();
    assert_eq!(phase(&upgrade), ("RolledBack", "Cured"), "{upgrade:#}");
    assert!(upgrade["status"]["cure"]["provenAt"].is_string(), "{upgrade:#}");
    assert_only_n1_was_touched(&fleet, &upgrade);
    let gate = failed_gate(&upgrade);
    assert_eq!((&gate["node"], &gate["name"]), (&"n1".into(), &"work".into()), "{gate}");
    assert!(gate["reason"].to_string().contains("later than 2s"), "{gate}");
    // Which verdict is of what, and why it went back, wherever it is looked up.
    assert_eq!(gate["build"], "web-3.0", "{gate}");
    let cause = &upgrade["status"]["cause"];
    assert_eq!(cause["reason"], "GateFailed", "{upgrade:#}");
    let message = cause["message"].as_str().expect("words");
    assert!(message.starts_with("work failed on n1: "), "{upgrade:#}");
    let status = fleet.run(&["status", ENVIRONMENT]).expect_code(0);
    assert!(
        status.out.contains("work Fail on web-3.0, Pass since it is back"),
        "{status:?}"
    );
    let why = fleet.run(&["why", ENVIRONMENT]).expect_code(0);
    for said in [&status, &why] {
        assert!(
            said.out.contains("went back at ") && said.out.contains(message),
            "{said:?}"
        );
    }
    let why = fleet.run(&["why", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(why["status"]["cause"], *cause, "{why:#}");

    let evidence = gate["evidence"].as_str().expect("a record");
    let replayed = fleet
        .run(&["gate", "replay", evidence, "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(replayed["status"]["same"], true, "{replayed}");
    assert_eq!(replayed["status"]["recomputed"]["verdict"], "Fail", "{replayed}");
    let record = std::fs::read_to_string(fleet.state().join(evidence)).expect("the record");
    let kinder = record.replacen("Late", "Ok", 1).replacen("late", "ok", 1);
    assert_ne!(kinder, record, "the record has a late call");
    let edited = fleet.write("edited.jsonl", &kinder);
    let edited = edited.to_str().expect("text");
    let said = fleet.run(&["gate", "replay", edited]).expect_code(1);
    assert!(said.err.contains("was edited"), "{said:?}");

    let again = fleet.upgrade("3.0").expect_code(6);
    assert!(again.err.contains("web-3.0 is quarantined in fleet"), "{again:?}");
    fleet
        .run(&[
            "build",
            "release",
            "web-3.0",
            "--env",
            ENVIRONMENT,
            "--reason",
            "a new disk",
        ])
        .expect_code(0);
    let wanted = ["upgrade", ENVIRONMENT, "--build", "web=3.0", "--dry-run"];
    fleet.run(&wanted).expect_code(0);
    let told = fleet.reported();
    assert!(
        told.iter().any(|r| r["text"].to_string().contains("a new disk")),
        "{told:#?}"
    );
}

#[test]
fn a_build_that_says_200_and_does_not_do_it_is_rolled_back() {
    let fleet = Fleet::up();
    let upgrade = fleet.upgrade("4.0").expect_code(3).json();
    assert_eq!(phase(&upgrade), ("RolledBack", "Cured"), "{upgrade:#}");
    assert!(upgrade["status"]["cure"]["provenAt"].is_string(), "{upgrade:#}");
    assert_only_n1_was_touched(&fleet, &upgrade);
    let gate = failed_gate(&upgrade);
    assert!(gate["reason"].to_string().contains("wrong answers"), "{gate}");
    let again = fleet.upgrade("4.0").expect_code(6);
    assert!(again.err.contains("wrong answers"), "{again:?}");
    // Not the next build.
    fleet.upgrade("2.0").expect_code(0);
    fleet.assert_serves("2.0");
}

#[test]
fn a_build_that_crashes_a_while_after_its_start_is_rolled_back() {
    let fleet = Fleet::up();
    let upgrade = fleet.upgrade("8.0").expect_code(3).json();
    assert_eq!(phase(&upgrade), ("RolledBack", "Cured"), "{upgrade:#}");
    fleet.assert_serves("1.0");
    fleet.upgrade("8.0").expect_code(6);
}

#[test]
fn a_quarantine_holds_for_the_bytes_under_whichever_name_they_come() {
    let fleet = Fleet::up();
    fleet.upgrade("5.0").expect_code(3);
    let copied = Command::new("cp")
        .args(["-a", "5.0", "5.0.1"])
        .current_dir(fleet.path("workspace/builds"))
        .status();
    assert!(copied.expect("cp runs").success());
    // The version is among its files.
    fleet.upgrade("5.0.1").expect_code(6);
    let planned = fleet.run(&["plan", ENVIRONMENT, "--build", "web=5.0.1"]).expect_code(6);
    assert!(planned.err.contains("web-5.0 is quarantined"), "{planned:?}");
}

#[test]
fn a_source_that_has_changed_is_not_what_was_found_in_it_and_the_next_attempt_looks_again() {
    let fleet = Fleet::up();
    for version in ["2.0", "1.0"] {
        fleet.upgrade(version).expect_code(0);
    }
    std::fs::remove_dir_all(fleet.state().join("artifacts")).expect("was there");
    fleet.write("workspace/builds/2.0/version", "2.0-patched");
    let said = fleet.upgrade("2.0").expect_code(5);
    let held = said.json();
    assert_eq!(phase(&held), ("Paused", "PreflightFailed"), "{held:#}");
    assert!(
        held["status"]["message"].to_string().contains("a build never changes"),
        "{held:#}"
    );
    fleet.write("workspace/builds/2.0/version", "2.0");
    fleet.upgrade("2.0").expect_code(0);
    fleet.assert_serves("2.0");
}

#[test]
fn a_start_that_fails_hangs_or_lies_is_rolled_back_with_its_last_words() {
    let fleet = Fleet::up_with(&Settings {
        start_timeout: "5s",
        ..Settings::default()
    });
    for (version, why) in [
        ("5.0", "no such database"),
        ("6.0", "waiting for a friend"),
        ("7.0", "names no living process"),
    ] {
        let said = fleet.upgrade(version).expect_code(3);
        let upgrade = said.json();
        assert_eq!(phase(&upgrade).0, "RolledBack", "{upgrade:#}");
        let told = fleet.reported();
        let alert = told
            .iter()
            .find(|r| r["version"] == version && r["reason"] == "RollingBack")
            .expect("an alert");
        let text = alert["text"].to_string();
        for part in ["n1", "restart", why] {
            assert!(text.contains(part), "{version}: {part}: {text}");
        }
        if version == "6.0" {
            assert!(text.contains("deadline"), "{text}");
        }
        assert_only_n1_was_touched(&fleet, &upgrade);
        fleet.upgrade(version).expect_code(6);
    }
}

//! Who drives, and what an operator says to them.

use jiff::Timestamp;
use rustix::process::Signal;
use stagegate::engine::lease::HeldLease;
use stagegate::home::Home;
use stagegate::model::upgrade::{Event, Severity};
use stagegate::report::{Subject, dispatcher};
use stagegate::store::build::Mark;
use stagegate::store::{BuildChange, Quarantine, Store as _};

use super::system::{ENVIRONMENT, Fleet, NODES, Settings, completed, of_node, phase, until};

#[test]
fn a_second_driver_of_the_same_environment_is_refused_by_name_and_another_environment_is_free() {
    let mut fleet = Fleet::new(&Settings::default());
    fleet.environment("other", &Settings::default());
    for environment in [ENVIRONMENT, "other"] {
        fleet.run(&["up", environment]).expect_code(0);
    }
    let mut first = fleet.begin("2.0");
    let upgrade = fleet.wait(&mut first, "it drives", |u| {
        phase(u).0 == "Baseline" || phase(u).0 == "Rolling"
    });
    let beside = fleet.start(&["upgrade", "other", "--build", "web=2.1", "-o", "json"]);
    for version in ["2.0", "2.1"] {
        let refused = fleet.upgrade(version).expect_code(6);
        assert!(refused.err.contains("fleet is driven by tester@"), "{refused:?}");
        assert!(refused.err.contains(&format!("(pid {})", first.pid())), "{refused:?}");
        // The day is enough to see that it says when.
        let since = upgrade["metadata"]["creationTimestamp"].as_str().expect("a time");
        assert!(refused.err.contains(&format!("since {}", &since[..10])), "{refused:?}");
    }
    let done = first.end().expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    let done = beside.end().expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    assert_eq!(fleet.history().len(), 1);
}

#[test]
fn an_interrupted_driver_ends_its_step_and_the_same_command_goes_on() {
    let fleet = Fleet::up();
    fleet.hold_installs();
    let driver = fleet.begin("2.0");
    until("the install runs", || {
        let journal = fleet.journal("n1");
        journal
            .iter()
            .any(|e| e.id.starts_with("web-2.0") && e.action == "install")
            .then_some(())
    });
    driver.signal(Signal::INT);
    fleet.let_installs_go();
    let said = driver.end().expect_code(130);
    assert!(said.err.contains("stagegate upgrade fleet --build web=2.0"), "{said:?}");
    let left = said.json();
    assert_eq!(phase(&left).0, "Rolling", "{left:#}");
    let name = left["metadata"]["name"].as_str().expect("a name");
    let journal = fleet.journal("n1");
    assert_eq!(completed(&journal, name, "install").len(), 1, "{journal:#?}");
    assert_eq!(completed(&journal, name, "restart").len(), 0, "{journal:#?}");
    fleet.assert_no_step_open();
    fleet.assert_free();

    let done = fleet.upgrade("2.0").expect_code(0).json();
    assert_eq!(done["metadata"]["name"], left["metadata"]["name"]);
    fleet.assert_changed_once(&done, "2.0");
    assert_eq!(fleet.history().len(), 1);
}

#[test]
fn an_upgrade_that_takes_too_long_is_paused_and_not_lost() {
    let fleet = Fleet::up();
    let wanted = [
        "upgrade",
        ENVIRONMENT,
        "--build",
        "web=2.0",
        "--timeout",
        "1s",
        "-o",
        "json",
    ];
    let held = fleet.run(&wanted).expect_code(124).json();
    assert_eq!(phase(&held), ("Paused", "TimedOut"), "{held:#}");
    let message = held["status"]["message"].to_string();
    assert!(
        message.contains("--timeout") && !message.contains("operator"),
        "{message}"
    );
    fleet.assert_no_step_open();
    fleet.assert_free();
    let done = fleet.upgrade("2.0").expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    assert_eq!(done["metadata"]["name"], held["metadata"]["name"]);
    fleet.assert_changed_once(&done, "2.0");
}

/// Holding it would leave nodes on a build that was just found bad.
#[test]
fn a_way_back_ends_whatever_its_commands_timeout_is() {
    let fleet = Fleet::up();
    let mut driver = fleet.begin("4.0");
    fleet.wait(&mut driver, "it goes back", |u| phase(u).0 == "RollingBack");
    driver.signal(Signal::INT);
    let left = driver.end().expect_code(130).json();
    assert_eq!(phase(&left).0, "RollingBack", "{left:#}");
    let wanted = [
        "upgrade",
        ENVIRONMENT,
        "--build",
        "web=4.0",
        "--timeout",
        "1ms",
        "-o",
        "json",
    ];
    let said = fleet.run(&wanted).expect_code(3);
    assert!(
        said.err
            .contains("not done within 1ms: it is on its way back, which ends first"),
        "{said:?}"
    );
    let done = said.json();
    assert_eq!(phase(&done), ("RolledBack", "Cured"), "{done:#}");
    assert_eq!(done["metadata"]["name"], left["metadata"]["name"]);
    fleet.assert_serves("1.0");
}

#[test]
fn what_a_terminal_is_to_be_told_is_told_by_who_drives() {
    let fleet = Fleet::up_with(&Settings {
        reports: "    - {name: console, stdout: {}}\n".to_owned(),
        ..Settings::default()
    });
    // This process has the environment, and something is to be told.
    let home = Home::open(&fleet.state()).expect("the state");
    let lease = HeldLease::take(&home, ENVIRONMENT).expect("free");
    let (at, reason) = (Timestamp::now(), "the row is held".to_owned());
    let subject = Subject {
        component: "web".to_owned(),
        build: "web-1.0".to_owned(),
        user: "tester".to_owned(),
    };
    let sinks = ["fleet/journal".to_owned(), "fleet/console".to_owned()];
    let change = BuildChange {
        build: "web-1.0".to_owned(),
        mark: Mark::Quarantine(Quarantine {
            environment: ENVIRONMENT.to_owned(),
            at,
            reason: reason.clone(),
        }),
    };
    let event = Event {
        at,
        reason: "Quarantined".to_owned(),
        severity: Severity::Alert,
        node: None,
        message: reason,
    };
    let dispatch = dispatcher(home.store().home(), &subject, &sinks);
    home.store()
        .change_build(&change, &event, &dispatch, at)
        .expect("written");

    let release = [
        "build",
        "release",
        "web-1.0",
        "--env",
        ENVIRONMENT,
        "--reason",
        "it is free",
    ];
    for other in [fleet.upgrade("2.1").expect_code(6), fleet.run(&release).expect_code(0)] {
        assert!(
            !other.err.contains("the row is held") && !other.err.contains("it is free"),
            "{other:?}"
        );
    }
    // A file has an address of its own.
    let told = fleet.reported();
    assert!(
        told.iter().any(|r| r["text"].to_string().contains("the row is held")),
        "{told:#?}"
    );
    drop(lease);
    let said = fleet.upgrade("2.0").expect_code(0);
    let place = |part: &str| said.err.find(part).unwrap_or_else(|| panic!("{part}: {said:?}"));
    assert!(place("the row is held") < place("it is free"), "{said:?}");
}

#[test]
fn pause_resume_and_abort_reach_a_driver_from_another_process() {
    let fleet = Fleet::up();
    let mut driver = fleet.begin("2.0");
    fleet.wait_node(&mut driver, "n1", &["Analyse"]);
    let status = fleet.run(&["status", ENVIRONMENT]).expect_code(0);
    assert!(status.out.contains("fleet, driven by tester@"), "{status:?}");
    let bob = [("STAGEGATE_USER", "bob")];
    fleet
        .start_with(&["pause", ENVIRONMENT, "--wait"], &bob)
        .end()
        .expect_code(0);
    // Then nobody has the environment, and what needs it can follow.
    fleet.assert_free();
    let again = fleet.run(&["pause", ENVIRONMENT]).expect_code(0);
    assert!(again.err.contains("is Paused already (ByUser)"), "{again:?}");
    let held = driver.end().expect_code(5).json();
    assert_eq!(phase(&held), ("Paused", "ByUser"), "{held:#}");
    let told = fleet.reported();
    assert!(
        told.iter()
            .any(|r| r["text"].to_string().contains("bob asks it to hold")),
        "{told:#?}"
    );
    let status = fleet.run(&["status", ENVIRONMENT]).expect_code(0);
    assert!(status.out.contains("driven by nobody"), "{status:?}");
    fleet.assert_no_step_open();
    let other = fleet.upgrade("2.1").expect_code(6);
    assert!(
        other.err.contains("web-2.0") && other.err.contains("Paused"),
        "{other:?}"
    );

    let mut driver = fleet.start(&["resume", ENVIRONMENT, "-o", "json"]);
    fleet.wait(&mut driver, "n1 is done", |u| of_node(u, "n1")["phase"] == "Done");
    fleet.run(&["abort", ENVIRONMENT]).expect_code(0);
    let aborted = driver.end().expect_code(5).json();
    assert_eq!(phase(&aborted), ("Aborted", "AbortedByUser"), "{aborted:#}");
    fleet.assert_serves("1.0");
    fleet.assert_no_step_open();
    for node in NODES {
        assert_eq!(of_node(&aborted, node)["build"], "web-1.0", "{aborted:#}");
    }
    // An operator's change of mind is not the build's fault.
    let done = fleet.upgrade("2.0").expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    fleet.assert_serves("2.0");
}

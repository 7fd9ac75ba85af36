//! Whose fault it is: the build's, one node's, or that of something all nodes share.

use super::system::{ENVIRONMENT, Fleet, NODES, Settings, of_node, phase};

#[test]
fn one_slow_node_among_peers_that_pass_is_left_out_and_the_build_is_not_blamed() {
    let fleet = Fleet::up();
    let mut driver = fleet.begin("2.0");
    fleet.wait_node(&mut driver, "n3", &["Install", "Drain", "Activate", "Restart"]);
    fleet.make_slow("n3");
    let upgrade = driver.end().expect_code(0).json();
    assert_eq!(phase(&upgrade), ("Succeeded", "NodesLeftOut"), "{upgrade:#}");
    for node in NODES {
        let expected = if node == "n3" { "OutOfService" } else { "Done" };
        assert_eq!(of_node(&upgrade, node)["phase"], expected, "{upgrade:#}");
    }
    let trouble = of_node(&upgrade, "n3")["trouble"].to_string();
    assert!(trouble.contains("its peers on the same build pass"), "{trouble}");
    let told = fleet.reported();
    let alert = told.iter().find(|r| r["reason"] == "NodeOutOfService");
    assert_eq!(alert.expect("an alert")["node"], "n3", "{told:#?}");

    let build = fleet
        .run(&["build", "show", "web-2.0", "-o", "json"])
        .expect_code(0)
        .json();
    let marks = |key: &str| build["status"][key].as_array().map_or(0, Vec::len);
    assert_eq!(marks("quarantines"), 0, "{build:#}");
    assert_eq!(marks("verifications"), 0, "not every node has proven it: {build:#}");
}

#[test]
fn a_node_left_out_holds_the_rest_by_max_unavailable_and_is_tried_again_once_it_is_mended() {
    let fleet = Fleet::up_with(&Settings {
        patience: "3s",
        ..Settings::default()
    });
    let mut driver = fleet.begin("2.0");
    fleet.wait_node(&mut driver, "n2", &["Install", "Drain", "Activate", "Restart"]);
    fleet.make_slow("n2");
    let held = driver.end().expect_code(5).json();
    assert_eq!(phase(&held), ("Paused", "MaxUnavailable"), "{held:#}");
    assert_eq!(of_node(&held, "n2")["phase"], "OutOfService", "{held:#}");
    assert_eq!(fleet.ask("n3").as_deref(), Some("1.0"), "I1 holds");
    let why = fleet.run(&["why", ENVIRONMENT]).expect_code(0);
    for part in [
        "stagegate up fleet && ",
        "stagegate resume fleet",
        "out:    n2 since ",
        "its peers on the same build pass",
    ] {
        assert!(why.out.contains(part), "{part}: {why:?}");
    }

    fleet.make_quick("n2");
    let done = fleet.run(&["resume", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    fleet.assert_serves("2.0");
    fleet.assert_changed_once(&done, "2.0");
}

#[test]
fn when_old_nodes_slow_down_too_the_upgrade_is_held_and_nobody_is_blamed() {
    let fleet = Fleet::up();
    let mut driver = fleet.begin("2.0");
    fleet.wait_node(&mut driver, "n2", &["Analyse"]);
    fleet.make_all_slow();
    let held = driver.end().expect_code(5).json();
    assert_eq!(phase(&held), ("Paused", "SharedDependencyDegraded"), "{held:#}");
    let message = held["status"]["message"].to_string();
    assert!(message.contains("n3") && message.contains("old build"), "{message}");
    let build = fleet
        .run(&["build", "show", "web-2.0", "-o", "json"])
        .expect_code(0)
        .json();
    assert!(
        build["status"]["quarantines"].as_array().is_none_or(Vec::is_empty),
        "{build:#}"
    );

    fleet.make_all_quick();
    let done = fleet.run(&["resume", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    fleet.assert_serves("2.0");
    fleet.assert_changed_once(&done, "2.0");
    assert_eq!(fleet.history().len(), 1);
}

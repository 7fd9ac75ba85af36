//! What is remembered of a bring-up, and what goes by it.

use std::net::TcpListener;

use super::system::{ENVIRONMENT, Fleet, Settings, phase};

#[test]
fn a_file_that_no_longer_names_a_node_takes_nothing_down() {
    let fleet = Fleet::up();
    let file = "workspace/environments/fleet.yaml";
    let whole = std::fs::read_to_string(fleet.path(file)).expect("written before");
    fleet.write(file, &whole.replace(", {name: n3}", ""));
    for command in [&["down", ENVIRONMENT, "--purge"][..], &["up", ENVIRONMENT]] {
        let refused = fleet.run(command).expect_code(2);
        assert!(
            refused.err.contains("n3") && refused.err.contains("put them back"),
            "{refused:?}"
        );
    }
    fleet.assert_serves("1.0");
    fleet.write(file, &whole);
}

#[test]
fn a_command_with_another_port_shift_touches_nothing() {
    let fleet = Fleet::up();
    let shifted = [("STAGEGATE_PORT_SHIFT", "100")];
    let upgrade = ["upgrade", ENVIRONMENT, "--build", "web=2.0"];
    for command in [&upgrade[..], &["down", ENVIRONMENT]] {
        let refused = fleet.start_with(command, &shifted).end().expect_code(2);
        assert!(refused.err.contains("STAGEGATE_PORT_SHIFT=0"), "{refused:?}");
    }
    fleet.assert_serves("1.0");
    // One that is down may come up elsewhere.
    fleet.run(&["down", ENVIRONMENT]).expect_code(0);
    fleet.start_with(&["up", ENVIRONMENT], &shifted).end().expect_code(0);
    fleet.start_with(&["down", ENVIRONMENT], &shifted).end().expect_code(0);
}

#[test]
fn what_a_failed_bring_up_left_survives_the_purge_of_its_neighbour() {
    let mut fleet = Fleet::new(&Settings::default());
    let port = fleet.environment("other", &Settings::default());
    fleet.run(&["up", ENVIRONMENT]).expect_code(0);
    // The third node's port is somebody else's.
    let taken = TcpListener::bind(("127.0.0.1", port + 2)).expect("free until now");
    fleet.run(&["up", "other"]).expect_code(1);
    fleet.run(&["down", ENVIRONMENT, "--purge"]).expect_code(0);
    drop(taken);
    assert!(fleet.state().join("environments/other/nodes/n1").exists());
    fleet.run(&["up", "other"]).expect_code(0);
}

#[test]
fn a_chat_whose_address_cannot_be_read_holds_nothing_up() {
    let fleet = Fleet::up_with(&Settings {
        reports: "    - {name: chat, webhook: {url: chat}}\n".to_owned(),
        secrets: "{chat: {environment: NO_SUCH_VARIABLE}}".to_owned(),
        ..Settings::default()
    });
    let said = fleet.upgrade("2.0").expect_code(0);
    assert_eq!(phase(&said.json()), ("Succeeded", "Verified"));
    assert!(said.err.contains("NO_SUCH_VARIABLE"), "{said:?}");
    assert!(said.err.contains("fleet/chat still wait"), "{said:?}");
    assert!(!fleet.reported().is_empty(), "the others are told");
}

//! Nodes that die and disks that are full while an upgrade goes on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::system::{ENVIRONMENT, Fleet, NODES, Settings, mount_small_disk, of_node, phase};

#[test]
fn a_node_that_dies_before_its_turn_comes_first_and_comes_back() {
    let fleet = Fleet::up();
    fleet.hold_installs();
    let mut driver = fleet.begin("2.0");
    fleet.wait_node(&mut driver, "n1", &["Install"]);
    fleet.kill_service("n3");
    // Somebody is called while it waits for its turn, and why says who is out.
    fleet.wait(&mut driver, "its death is told", |u| {
        of_node(u, "n3")["lost"]["toldAt"].is_string()
    });
    let why = fleet.run(&["why", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    let out = &why["status"]["nodes"][0];
    assert_eq!(out["name"], "n3", "{why:#}");
    // A look waits for the install that runs on it.
    let seen = out["why"].as_str().expect("words");
    assert!(
        ["its service does not run", "its probes fail"].contains(&seen),
        "{why:#}"
    );
    fleet.let_installs_go();
    let done = driver.end().expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    fleet.assert_serves("2.0");
    fleet.assert_changed_once(&done, "2.0");
    let told = fleet.reported();
    let of_it: Vec<_> = told.iter().filter(|r| r["node"] == "n3").collect();
    let alerts: Vec<_> = of_it.iter().filter(|r| r["severity"] == "alert").collect();
    let reasons: Vec<_> = alerts.iter().filter_map(|r| r["reason"].as_str()).collect();
    assert_eq!(reasons, ["NodeLost", "NodeBack"], "{told:#?}");
    let text = alerts[0]["text"].as_str().expect("a text");
    assert!(
        text.starts_with(
            "Stagegate notification. Service: web. Host: n3. Availability: 0. Availability info: n3 went out by itself"
        ),
        "{text}"
    );
    let order: Vec<_> = told
        .iter()
        .filter(|r| r["reason"] == "NodeUpgraded")
        .filter_map(|r| r["node"].as_str())
        .collect();
    assert_eq!(order, ["n3", "n1", "n2"], "the sick first");
}

#[test]
fn a_changed_node_that_dies_holds_the_rest_until_it_is_back() {
    let fleet = Fleet::up_with(&Settings {
        patience: "3s",
        ..Settings::default()
    });
    let mut driver = fleet.begin("2.0");
    fleet.wait(&mut driver, "n2 got the build ahead of its turn", |u| {
        of_node(u, "n2")["installs"] == 1
    });
    fleet.hold_installs();
    fleet.wait_node(&mut driver, "n3", &["Install"]);
    fleet.kill_service("n1");
    fleet.wait(&mut driver, "the death of n1 is seen", |u| {
        of_node(u, "n1")["build"].is_null()
    });
    fleet.let_installs_go();
    let held = driver.end().expect_code(5).json();
    assert_eq!(phase(&held), ("Paused", "MaxUnavailable"), "{held:#}");
    let message = held["status"]["message"].to_string();
    assert!(
        message.contains("n1") && message.contains("maxUnavailable is 1"),
        "{message}"
    );
    assert_eq!(of_node(&held, "n3")["build"], "web-1.0", "{held:#}");
    assert_eq!(fleet.ask("n3").as_deref(), Some("1.0"), "I1 holds");
    let build = fleet
        .run(&["build", "show", "web-2.0", "-o", "json"])
        .expect_code(0)
        .json();
    assert!(
        build["status"]["quarantines"].as_array().is_none_or(Vec::is_empty),
        "{build:#}"
    );

    fleet.run(&["up", ENVIRONMENT]).expect_code(0);
    let done = fleet.run(&["resume", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    fleet.assert_serves("2.0");
    for node in NODES {
        let node = of_node(&done, node);
        assert_eq!((&node["installs"], &node["restarts"]), (&1.into(), &1.into()), "{node}");
    }
}

/// The state directory on a disk of its own, and a file that fills it.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn at(path: &Path) -> Self {
        mount_small_disk(path, 32);
        Self { at: path.to_owned() }
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.at.join("filler")).expect("made");
        for size in [1 << 16, 1 << 12, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.at.join("filler")).expect("was there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn a_full_disk_under_the_state_ends_the_driver_with_a_remedy_and_loses_nothing() {
    let disk;
    let fleet = Fleet::new(&Settings::default());
    disk = SmallDisk::at(&fleet.state());
    fleet.run(&["up", ENVIRONMENT]).expect_code(0);
    let mut driver = fleet.begin("2.0");
    fleet.wait_node(&mut driver, "n2", &["Analyse"]);
    disk.fill();
    let said = driver.end();
    disk.empty();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("is full") && said.err.contains("free some space"),
        "{said:?}"
    );
    let place = format!("the disk of {} is full", fleet.state().display());
    assert!(
        said.err.contains(&place) && said.err.contains("nothing that was written before is lost"),
        "{said:?}"
    );

    let done = fleet.upgrade("2.0").expect_code(0).json();
    assert_eq!(phase(&done), ("Succeeded", "Verified"), "{done:#}");
    fleet.assert_serves("2.0");
    fleet.assert_changed_once(&done, "2.0");
    assert_eq!(fleet.history().len(), 1);
    fleet.assert_free();
    drop(fleet);
    drop(disk);
}

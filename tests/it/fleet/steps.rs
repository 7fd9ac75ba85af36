//! A good build, and the steps that bring it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::system::{ENVIRONMENT, Fleet, NODES, of_node, phase};

#[test]
fn a_good_build_goes_on_everywhere_once_and_a_second_time_changes_nothing() {
    let fleet = Fleet::up();
    let first = fleet.upgrade("2.0").expect_code(0).json();
    assert_eq!(phase(&first), ("Succeeded", "Verified"), "{first}");
    for node in NODES {
        let node = of_node(&first, node);
        assert_eq!((&node["installs"], &node["restarts"]), (&1.into(), &1.into()), "{node}");
        assert_eq!(node["build"], "web-2.0", "{node}");
    }
    fleet.assert_serves("2.0");
    fleet.assert_changed_once(&first, "2.0");
    fleet.assert_no_step_open();

    let reported = fleet.reported();
    let keys: BTreeSet<&str> = reported.iter().filter_map(|r| r["dedupeKey"].as_str()).collect();
    assert_eq!(keys.len(), reported.len(), "a key each: {reported:#?}");
    assert!(reported.is_sorted_by_key(|r| r["seq"].as_u64()), "{reported:#?}");
    let told: Vec<(&str, Option<&str>)> = reported
        .iter()
        .filter(|r| r["upgrade"] == first["metadata"]["name"])
        .map(|r| (r["reason"].as_str().expect("a reason"), r["node"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("Preflight", None),
            ("Baseline", None),
            ("Rolling", None),
            ("NodeUpgraded", Some("n1")),
            ("NodeUpgraded", Some("n2")),
            ("NodeUpgraded", Some("n3")),
            ("Soak", None),
            ("Succeeded", None),
        ]
    );

    let second = fleet.upgrade("2.0").expect_code(0).json();
    assert_eq!(phase(&second), ("Succeeded", "AlreadyThere"), "{second}");
    for node in NODES {
        let node = of_node(&second, node);
        assert_eq!((&node["installs"], &node["restarts"]), (&0.into(), &0.into()), "{node}");
    }
    fleet.assert_changed_once(&first, "2.0");
    fleet.assert_free();
}

/// As seen by somebody who asks the nodes themselves, and by somebody who reads the status.
#[test]
fn never_more_than_max_unavailable_is_out_of_service() {
    let fleet = Arc::new(Fleet::up());
    let done = Arc::new(AtomicBool::new(false));
    let sampler = {
        let (fleet, done) = (Arc::clone(&fleet), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                seen.insert(NODES.iter().filter(|node| fleet.ask(node).is_none()).count());
            }
            seen
        })
    };
    let reader = {
        let (fleet, done) = (Arc::clone(&fleet), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let last = fleet.last();
                seen.insert(
                    NODES
                        .iter()
                        .filter(|node| of_node(&last, node)["drained"] == true)
                        .count(),
                );
            }
            seen
        })
    };
    let said = fleet.upgrade("2.0");
    done.store(true, Ordering::Relaxed);
    let (asked, read) = (sampler.join().expect("asked"), reader.join().expect("read"));
    said.expect_code(0);
    assert_eq!(asked, BTreeSet::from([0, 1]), "nodes that did not answer together");
    assert_eq!(read, BTreeSet::from([0, 1]), "nodes that were out together");
}

#[test]
fn an_install_that_floods_its_output_or_forks_away_leaves_a_good_node_and_nothing_else() {
    let fleet = Fleet::up();
    let away = fleet.path("away");
    std::fs::create_dir(&away).expect("made");
    let fork = format!(
        "#!/bin/sh\nexport mine=\"{}/$(basename \"$STAGEGATE_NODE_DIR\")\"\n\
         setsid sh -c 'echo $$ >\"$mine\"; exec sleep 1000' >/dev/null 2>&1 &\n\
         while [ ! -s \"$mine\" ]; do sleep 0.02; done\n",
        away.display()
    );
    let flood = "#!/bin/sh\nyes 'all is well, and again' | head -c 30000000\n";
    fleet.build("2.1", &[("install", flood)]);
    fleet.build("2.2", &[("install", &fork)]);
    for version in ["2.1", "2.2"] {
        let done = fleet.upgrade(version).expect_code(0).json();
        fleet.assert_changed_once(&done, version);
    }
    fleet.assert_serves("2.2");
    for node in NODES {
        let pid = std::fs::read_to_string(away.join(node)).expect("it forked");
        let process = format!("/proc/{}", pid.trim());
        assert!(!std::path::Path::new(&process).exists(), "{node}: {pid} runs on");
    }
    let steps = fleet.path(&format!("state/environments/{ENVIRONMENT}/nodes/n1/steps"));
    for step in std::fs::read_dir(steps).expect("steps") {
        for file in std::fs::read_dir(step.expect("a step").path()).expect("files") {
            let file = file.expect("a file");
            let length = file.metadata().expect("there").len();
            assert!(length < 1 << 18, "{}: {length} bytes", file.path().display());
        }
    }
}

//! A driver that is killed at any moment, and the next one.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::Value;

use super::system::{Fleet, NODES, of_node, phase, until};
use crate::trivial::Running;

/// When a driver is killed: these hit everything from its first look to its last report.
#[derive(Debug)]
enum Moment {
    /// This long after its start, wherever it is then.
    After(Duration),
    /// When a node has begun or ended one more step since its start.
    InStep,
}

fn moments(seed: u64, count: usize) -> Vec<Moment> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut draw = || match dice.random_range(0..3) {
        0 => Moment::After(Duration::from_millis(dice.random_range(0..400))),
        1 => Moment::After(Duration::from_millis(dice.random_range(0..6_000))),
        _ => Moment::InStep,
    };
    (0..count).map(|_| draw()).collect()
}

/// Kills the driver at its moment; what it said when it ended before.
fn kill(fleet: &Fleet, mut driver: Running, moment: &Moment) -> Option<crate::trivial::Said> {
    let lines = || NODES.iter().map(|node| fleet.journal(node).len()).sum::<usize>();
    let (begun, before) = (std::time::Instant::now(), lines());
    let ended = until("the moment of a kill", || {
        let now = match moment {
            Moment::After(wait) => begun.elapsed() >= *wait,
            Moment::InStep => lines() > before,
        };
        if driver.has_ended() {
            Some(true)
        } else {
            now.then_some(false)
        }
    });
    if ended {
        return Some(driver.end());
    }
    driver.signal(Signal::KILL);
    driver.end();
    None
}

#[test]
fn a_driver_killed_at_random_moments_is_gone_on_with_and_nothing_is_done_twice() {
    const SEED: u64 = 20_260_101;
    const KILLS: usize = 16;
    let fleet = Fleet::up();
    let mut moments = moments(SEED, KILLS).into_iter();
    let mut kills = 0;
    let mut done = Vec::new();
    // Each upgrade meets a third of the kills, or what is left of them.
    for (version, share) in [("2.0", 6), ("2.1", 6), ("2.2", KILLS)] {
        let mut said = None;
        for moment in moments.by_ref().take(share) {
            said = kill(&fleet, fleet.begin(version), &moment);
            if said.is_some() {
                break;
            }
            kills += 1;
        }
        let said = said.unwrap_or_else(|| fleet.upgrade(version));
        let upgrade = said.expect_code(0).json();
        assert_eq!(phase(&upgrade).0, "Succeeded", "{upgrade}");
        for node in NODES {
            let node = of_node(&upgrade, node);
            assert_eq!((&node["installs"], &node["restarts"]), (&1.into(), &1.into()), "{node}");
        }
        fleet.assert_serves(version);
        done.push((upgrade, version));
    }
    assert!(kills >= 10, "only {kills} kills met a driver");
    for (upgrade, version) in &done {
        fleet.assert_changed_once(upgrade, version);
    }
    fleet.assert_no_step_open();
    fleet.assert_free();
    let history = fleet.history();
    assert_eq!(history.len(), done.len(), "one record an upgrade: {history:#?}");
    for node in NODES {
        let starts = fleet.starts(node);
        assert_eq!(starts.len(), 1 + done.len(), "{node}: {starts:?}");
        assert_eq!(starts.last().map(|s| s.pid), fleet.pid(node), "{node}: {starts:?}");
    }
    // A report that a killed driver had in hand is the next one's when its claim has run out.
    until("every report is there", || {
        fleet.upgrade("2.2").expect_code(0);
        let reported = fleet.reported();
        let told = |upgrade: &Value| {
            let of_it = reported.iter().filter(|r| r["upgrade"] == upgrade["metadata"]["name"]);
            of_it
                .filter_map(|r| Some((r["seq"].as_u64()?, r["reason"].as_str()?)))
                .collect::<Vec<_>>()
        };
        let told: Vec<_> = done.iter().map(|(upgrade, _)| told(upgrade)).collect();
        for of_one in &told {
            assert!(of_one.is_sorted(), "in order, the same at most repeated: {reported:#?}");
        }
        let whole = |of_one: &Vec<(u64, &str)>| of_one.last().is_some_and(|(_, reason)| *reason == "Succeeded");
        told.iter().all(whole).then_some(())
    });
}

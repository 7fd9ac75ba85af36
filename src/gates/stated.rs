//! An environment's gate, ready for use: the one place that reads what a gate says and how its signal comes.

use std::num::NonZeroU32;

use super::{Gate, GateError, ProbeGate, ShareGate, fail_block, split_alpha};
use crate::model::environment::{self, Component, Probe};
use crate::model::values::Duration;

/// Bets of a good past: two hours of those of 3 s, as long as one upgrade watches a node.
const LONG_PAST: u64 = 2_400;

/// A gate of an environment that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("gate {gate}: {why}")]
pub struct StatedError {
    gate: String,
    why: String,
}

/// A gate of an environment, the same for every node.
#[derive(Debug, Clone, PartialEq)]
pub struct StatedGate {
    /// Its name.
    pub name: String,
    /// The signal that it reads (`traffic/NAME`, `probe/NAME`, …).
    pub signal: String,
    /// Calls a second and node of that signal; `None` for a probe gate, which counts them one by one.
    pub rate_per_s: Option<f64>,
    /// The test.
    pub gate: Gate,
    /// For people: `2% over 5s`.
    pub limit: String,
    /// A call that is older is bad.
    pub age: Duration,
    /// How much later than a node without a past one with a long good past may fail of the same cause, one age included:
    /// so long a neighbour that shows the same trouble is waited for before anybody is blamed.
    pub neighbour_wait: Duration,
}

impl StatedGate {
    /// The gates of a component for an upgrade over `nodes` nodes: alpha is split over all tests of the upgrade.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn all(component: &Component, nodes: usize) -> Result<Vec<Self>, StatedError> {
        let tests = tests(component, nodes);
        component
            .gates
            .iter()
            .map(|gate| Self::new(component, gate, tests))
            .collect()
    }

    /// One gate of a component, as one of so many tests.
    ///
    /// # Errors
    /// It reads no signal of the component, or its figures cannot work.
    pub fn new(component: &Component, gate: &environment::Gate, tests: NonZeroU32) -> Result<Self, StatedError> {
        let failed = |why: String| StatedError {
            gate: gate.name.clone(),
            why,
        };
        let name = gate.name.clone();
        if let Some(share) = &gate.share {
            let age = share.over;
            let rate = rate(component, &share.of)
                .ok_or_else(|| failed(format!("component {} has no signal `{}`", component.name, share.of)))?;
            let alpha = split_alpha(gate.alpha.fraction(), tests);
            let test = ShareGate::new(share.limit.fraction(), age.as_micros(), alpha, gate.beta.fraction())
                .map_err(|e: GateError| failed(e.to_string()))?
                // A pass is paid for in calls, so it bets on single ones.
                .with_blocks(fail_block(rate), NonZeroU32::MIN);
            return Ok(Self {
                name,
                signal: share.of.clone(),
                rate_per_s: Some(rate),
                neighbour_wait: neighbour_wait(&test, age, rate),
                gate: test.into(),
                limit: format!("{} over {age}", share.limit),
                age,
            });
        }
        let of = gate
            .probe
            .as_deref()
            .ok_or_else(|| failed("it has neither `share` nor `probe`".to_owned()))?;
        let probe = probe(component, of).ok_or_else(|| failed(format!("there is no probe `{of}`")))?;
        let age = probe.timeout;
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            name,
            signal: format!("probe/{of}"),
            rate_per_s: None,
            gate: ProbeGate {
                failure_threshold: at_least_one(probe.failure_threshold),
                success_threshold: at_least_one(probe.success_threshold),
            }
            .into(),
            limit: format!("{} bad probes in a row", probe.failure_threshold),
            age,
            // Probes in a row are counted without regard to what was before.
            neighbour_wait: age,
        })
    }
}

/// The tests that share alpha.
fn tests(component: &Component, nodes: usize) -> NonZeroU32 {
    let tests = u32::try_from(component.gates.len() * nodes).unwrap_or(u32::MAX);
    NonZeroU32::new(tests).unwrap_or(NonZeroU32::MIN)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "some calls over a rate are some seconds; a cast takes what is out of range to the nearest end"
)]
fn neighbour_wait(gate: &ShareGate, age: Duration, rate_per_s: f64) -> Duration {
    let past = LONG_PAST * u64::from(gate.fail_block().get());
    let more = gate.bad_calls_to_fail(past).saturating_sub(gate.bad_calls_to_fail(0));
    let ms = (more as f64 / rate_per_s * 1000.0) as u64;
    Duration(age.0.saturating_add(std::time::Duration::from_millis(ms)))
}

fn probe<'a>(component: &'a Component, name: &str) -> Option<&'a Probe> {
    component.probes.iter().find(|p| p.name == name)
}

/// Calls a second and node of a signal; `None` when the component has no such signal.
fn rate(component: &Component, signal: &str) -> Option<f64> {
    let once_a = |period: Duration| 1.0 / period.0.as_secs_f64();
    let (kind, name) = signal.split_once('/')?;
    match kind {
        "traffic" => Some(component.traffic.iter().find(|t| t.name == name)?.rate),
        "log" => Some(component.logs.iter().find(|l| l.name == name)?.rate),
        "query" => Some(once_a(component.queries.iter().find(|q| q.name == name)?.period)),
        "probe" => Some(once_a(probe(component, name)?.period)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(rate: f64) -> Component {
        let gate = |of: &str| serde_json::json!({"name": of, "share": {"of": of, "over": "5s", "limit": "2%"}});
        serde_json::from_value(serde_json::json!({
            "name": "server",
            "nodes": [{"name": "n1"}],
            "probes": [{"name": "alive", "http": {"url": "http://x/"}, "period": "500ms", "timeout": "2s"}],
            "traffic": [{"name": "work", "rate": rate, "requests": []}],
            "logs": [{"name": "requests", "path": "log", "end": "x", "rate": rate * 2.0}],
            "queries": [{"name": "depth", "database": "d", "sql": "SELECT 1", "atMost": 1, "period": "10s"}],
            "gates": [
                gate("traffic/work"), gate("log/requests"), gate("query/depth"), gate("probe/alive"),
                {"name": "alive", "probe": "alive"},
            ],
        }))
        .expect("a component")
    }

    #[test]
    fn a_fail_bets_on_the_calls_of_three_seconds_at_the_rate_of_its_signal() {
        for (rate, expected) in [
            (
                5.0,
                [
                    ("traffic/work", 15),
                    ("log/requests", 30),
                    ("query/depth", 1),
                    ("probe/alive", 6),
                ],
            ),
            (
                50.0,
                [
                    ("traffic/work", 150),
                    ("log/requests", 300),
                    ("query/depth", 1),
                    ("probe/alive", 6),
                ],
            ),
        ] {
            let gates = StatedGate::all(&component(rate), 2).expect("usable");
            let blocks = gates.iter().filter_map(|stated| match &stated.gate {
                Gate::Share(gate) => Some((stated.signal.as_str(), gate.fail_block().get())),
                Gate::Probe(_) => None,
            });
            assert_eq!(blocks.collect::<Vec<_>>(), expected);
        }
    }

    /// A node that ran well for long takes more bad calls to fail than one that has just begun.
    #[test]
    fn a_neighbour_is_waited_for_until_its_test_can_fail_too() {
        for (limit, rate, seconds) in [("2%", 5.0, 14), ("2%", 50.0, 13)] {
            let mut component = component(rate);
            component.gates[0].share.as_mut().expect("a share").limit = limit.parse().expect("a share");
            let stated = StatedGate::all(&component, 3).expect("usable").remove(0);
            let Gate::Share(gate) = &stated.gate else {
                panic!("{stated:?}");
            };
            let after = |past| gate.bad_calls_to_fail(past);
            assert!(after(0) < after(1_000) && after(1_000) < after(100_000), "{limit}");
            assert_eq!(stated.neighbour_wait.0.as_secs(), seconds, "{limit} at {rate}/s");
        }
    }

    #[test]
    fn an_upgrades_alpha_is_split_over_its_gates_and_nodes_and_a_probes_age_is_its_timeout() {
        let gates = StatedGate::all(&component(5.0), 2).expect("usable");
        let Gate::Share(share) = &gates[0].gate else {
            panic!("{gates:?}");
        };
        assert!((share.alpha() - 0.001).abs() < 1e-12, "{}", share.alpha());
        let ages: Vec<u64> = gates.iter().map(|g| g.age.0.as_secs()).collect();
        assert_eq!(ages, [5, 5, 5, 5, 2]);
        let mut astray = component(5.0);
        astray.gates[0].share.as_mut().expect("a share").of = "traffic/other".to_owned();
        let refused = StatedGate::all(&astray, 2).expect_err("no such signal").to_string();
        assert_eq!(
            refused,
            "gate traffic/work: component server has no signal `traffic/other`"
        );
    }
}

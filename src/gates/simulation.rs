//! Synthetic calls, to measure what the share gate promises: what `cargo run --release --example false_alarms` runs, and so
//! where the tables in docs/gates.md come from. Seeded: the same numbers on every machine.

use super::share::{ShareGate, ShareTest};
use super::{Reading, Verdict};
use crate::model::sample::{Outcome, Sample};

/// Standard deviation of the logarithm of the simulated latencies: a median of 82 ms where 2 % take over 5 s.
const LOG_LATENCY_DEVIATION: f64 = 2.0;

/// Calls as they come out: each is late with probability `share`, through a log-normal latency whose logarithm follows a
/// first-order autoregression from call to call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// True share of bad calls, in (0, 1); 0 for none.
    pub share: f64,
    /// Correlation of the log-latencies of neighbouring calls, in [0, 1); 0 for independent calls.
    pub correlation: f64,
    /// Calls a second to one node.
    pub rate_per_s: f64,
    /// What a bad call does.
    pub bad: BadCall,
}

/// What a bad call does, and so which outcomes are known first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCall {
    /// It does not answer within the age; good calls are known first.
    Hangs,
    /// It is refused at once, and good calls take almost the whole age; bad calls are known first.
    RefusedWhileGoodOnesAreSlow,
}

/// How many upgrades failed, and how many nodes passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Simulated upgrades.
    pub upgrades: u32,
    /// Upgrades in which at least one node failed.
    pub failed: u32,
    /// Simulated nodes.
    pub nodes: u32,
    /// Nodes whose evidence for a pass sufficed at some moment, failed or not.
    pub passed: u32,
    /// Upgrades of which all nodes did.
    pub all_passed: u32,
}

/// Runs `upgrades` upgrades of `nodes` independent nodes with `calls` calls to each.
#[must_use]
pub fn upgrades(gate: &ShareGate, traffic: &Traffic, upgrades: u32, nodes: u32, calls: u64, seed: u64) -> Rates {
    let mut random = Random(seed);
    let mut rates = Rates {
        upgrades,
        nodes: upgrades * nodes,
        ..Rates::default()
    };
    for _upgrade in 0..upgrades {
        let (mut any_failed, mut all_passed) = (false, true);
        for _node in 0..nodes {
            let reading = node(gate, traffic, calls, &mut random);
            any_failed |= reading.verdict == Verdict::Fail;
            let passed = reading.e_pass_log >= -libm::log(gate.beta());
            rates.passed += u32::from(passed);
            all_passed &= passed;
        }
        rates.failed += u32::from(any_failed);
        rates.all_passed += u32::from(all_passed);
    }
    rates
}

/// `calls` calls at `rate_per_s` from time 0, answered after 50 ms, but the calls from number `onset` up to `end` hang and
/// are known as late after `age_us`.
pub fn hanging_calls(onset: u64, end: u64, calls: u64, rate_per_s: f64, age_us: i64) -> impl Iterator<Item = Sample> {
    (0..calls).map(move |seq| {
        let (took_us, outcome) = if (onset..end).contains(&seq) {
            (age_us, Outcome::Late)
        } else {
            (50_000, Outcome::Ok)
        };
        sample(seq, rate_per_s, took_us, outcome)
    })
}

/// Seconds from the intended time of the first call that hangs to the Fail, when all calls hang from number `onset` on.
/// `None` if 10,000 such calls do not bring one.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
pub fn seconds_to_see_a_hang(gate: &ShareGate, onset: u64, rate_per_s: f64) -> Option<f64> {
    let mut test = ShareTest::new(gate, 0);
    for sample in hanging_calls(onset, u64::MAX, onset + 10_000, rate_per_s, gate.age_us()) {
        test.push(&sample);
    }
    let reading = test.read(i64::MAX);
    let began_us = intended_us(onset, rate_per_s);
    let decided_us = reading.decided_us.filter(|_| reading.verdict == Verdict::Fail)?;
    Some((decided_us - began_us) as f64 / 1e6)
}

/// Median of the seconds from the start of the traffic to the Fail, over `nodes` nodes with `calls` calls each. `None` if
/// half of them do not fail.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
pub fn median_seconds_to_fail(gate: &ShareGate, traffic: &Traffic, nodes: usize, calls: u64, seed: u64) -> Option<f64> {
    let mut random = Random(seed);
    let mut decided: Vec<i64> = (0..nodes)
        .map(|_| node(gate, traffic, calls, &mut random))
        .map(|reading| match reading.verdict {
            Verdict::Fail => reading.decided_us.unwrap_or(i64::MAX),
            Verdict::Pass | Verdict::Undecided | Verdict::NoData => i64::MAX,
        })
        .collect();
    decided.sort_unstable();
    let median_us = *decided.get(nodes / 2)?;
    (median_us < i64::MAX).then_some(median_us as f64 / 1e6)
}

fn node(gate: &ShareGate, traffic: &Traffic, calls: u64, random: &mut Random) -> Reading {
    let Traffic {
        share,
        correlation,
        rate_per_s,
        bad,
    } = *traffic;
    let age_us = gate.age_us();
    let limit = normal_quantile(1.0 - share);
    let innovation = libm::sqrt(1.0 - correlation * correlation);
    let mut z = random.normal();
    let mut test = ShareTest::new(gate, 0);
    for seq in 0..calls {
        let (took_us, outcome) = match (z > limit, bad) {
            (true, BadCall::Hangs) => (age_us, Outcome::Late),
            (true, BadCall::RefusedWhileGoodOnesAreSlow) => (1000, Outcome::Refused { why: String::new() }),
            (false, BadCall::RefusedWhileGoodOnesAreSlow) => (age_us - 1000, Outcome::Ok),
            (false, BadCall::Hangs) => (
                part_of(age_us, libm::exp(LOG_LATENCY_DEVIATION * (z - limit))),
                Outcome::Ok,
            ),
        };
        test.push(&sample(seq, rate_per_s, took_us, outcome));
        z = correlation * z + innovation * random.normal();
    }
    test.read(i64::MAX)
}

fn sample(seq: u64, rate_per_s: f64, took_us: i64, outcome: Outcome) -> Sample {
    let intended_us = intended_us(seq, rate_per_s);
    Sample {
        signal: "traffic".to_owned(),
        seq,
        node: "node-0".to_owned(),
        build: "sha256:ab".to_owned(),
        intended_us,
        resolved_us: intended_us + took_us,
        outcome,
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "simulated times are small"
)]
fn intended_us(seq: u64, rate_per_s: f64) -> i64 {
    (seq as f64 * 1e6 / rate_per_s) as i64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "simulated times are small"
)]
fn part_of(age_us: i64, part: f64) -> i64 {
    (age_us as f64 * part) as i64
}

/// The z for which a standard normal variable stays below with probability `p`, by bisection; ±40 beyond that.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _halving in 0..100 {
        let middle: f64 = f64::midpoint(low, high);
        let below = 0.5 * libm::erfc(-middle / std::f64::consts::SQRT_2);
        if below < p { low = middle } else { high = middle }
    }
    high
}

/// `SplitMix64` (Steele, Lea and Flood 2014): ten lines, and the same sequence in every version of this program.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform on (0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEPENDENT: Traffic = Traffic {
        share: 0.02,
        correlation: 0.0,
        rate_per_s: 5.0,
        bad: BadCall::Hangs,
    };

    #[test]
    fn simulated_share_is_the_stated_one_at_any_correlation() {
        // alpha so small that the test never fails and all calls are counted.
        let gate = ShareGate::new(0.02, 5_000_000, 1e-300, 0.05).unwrap();
        for (correlation, tolerance) in [(0.0, 0.0015), (0.8, 0.003)] {
            let traffic = Traffic {
                correlation,
                ..INDEPENDENT
            };
            let reading = node(&gate, &traffic, 50_000, &mut Random(1));
            #[expect(clippy::cast_precision_loss)]
            let share = reading.bad as f64 / reading.n as f64;
            assert!((share - 0.02).abs() < tolerance, "{share} at correlation {correlation}");
        }
    }

    /// Ville's inequality at work: with independent calls at the limit, at most alpha of the upgrades fail, whatever is
    /// known first. Alpha is large here so that few runs say much: 300 runs at 30 % exceed 114 with probability 0.1 %.
    #[test]
    fn false_fails_stay_below_alpha() {
        let gate = ShareGate::new(0.02, 5_000_000, 0.3, 0.05).unwrap();
        for bad in [BadCall::Hangs, BadCall::RefusedWhileGoodOnesAreSlow] {
            let traffic = Traffic { bad, ..INDEPENDENT };
            let rates = upgrades(&gate, &traffic, 300, 1, 500, 7);
            assert!(rates.failed <= 114, "{} of 300 failed with {bad:?}", rates.failed);
            assert!(rates.failed > 0, "the test sees nothing with {bad:?}");
        }
    }

    /// 300 runs at 30 % exceed 114 with probability 0.1 %.
    #[test]
    fn false_passes_stay_below_beta() {
        let gate = ShareGate::new(0.02, 5_000_000, 0.01, 0.3).unwrap();
        let rates = upgrades(&gate, &INDEPENDENT, 300, 1, 1000, 8);
        assert!(rates.passed <= 114, "{} of 300 passed at the limit", rates.passed);
        assert!(rates.passed >= 15, "{} of 300: the test sees nothing", rates.passed);
    }

    #[test]
    fn healthy_nodes_pass_and_do_not_fail() {
        let gate = ShareGate::new(0.02, 5_000_000, 0.01 / 3.0, 0.05).unwrap();
        let traffic = Traffic {
            share: 0.002,
            ..INDEPENDENT
        };
        let rates = upgrades(&gate, &traffic, 30, 3, 1500, 9);
        assert_eq!((rates.failed, rates.passed), (0, 90));
    }

    #[test]
    fn node_far_over_the_limit_fails_within_seconds_and_one_below_it_does_not() {
        let gate = ShareGate::new(0.02, 5_000_000, 0.01 / 3.0, 0.05).unwrap();
        let median_s = |share| median_seconds_to_fail(&gate, &Traffic { share, ..INDEPENDENT }, 21, 500, 10);
        assert!(
            median_s(0.5).is_some_and(|median_s| (5.0..20.0).contains(&median_s)),
            "{:?}",
            median_s(0.5)
        );
        assert_eq!(median_s(0.01), None);
    }

    /// The incident: every call hangs. A call can be known as bad after 5 s at the earliest.
    #[test]
    fn hang_is_seen_within_seconds_from_the_start_and_after_a_thousand_clean_calls() {
        let gate = ShareGate::new(0.02, 5_000_000, 0.01 / 3.0, 0.05).unwrap();
        for (onset, within_s) in [(0, 11.0), (50, 12.0), (1000, 15.0), (10_000, 17.0)] {
            let delay_s = seconds_to_see_a_hang(&gate, onset, 5.0).unwrap();
            assert!(
                (5.0..=within_s).contains(&delay_s),
                "{delay_s} s after {onset} clean calls"
            );
        }
    }
}

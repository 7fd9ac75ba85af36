//! What a pass costs, for the plan that is shown before an upgrade starts.

use super::Gate;
use super::share::ShareTest;

/// Calls a node needs to pass the gate if all of them are clean. A real node needs more with every bad call.
/// `u64::MAX` where no count that anybody would wait for is enough (a limit near zero, long blocks).
#[must_use]
pub fn calls_to_pass(gate: &Gate) -> u64 {
    match gate {
        Gate::Share(gate) => {
            let fresh = ShareTest::new(gate, 0).read(0);
            fresh.expected_calls_to_pass.unwrap_or(u64::MAX)
        }
        Gate::Probe(gate) => u64::from(gate.success_threshold.get()),
    }
}

/// Seconds from the intended time of the first call to a pass on clean calls, at `rate_per_s` calls a second to one node.
/// `None` for a rate that is not above 0. The share gate waits one age more, until the last call counts for a pass.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate for people; counts that matter are exact"
)]
pub fn seconds_to_pass(gate: &Gate, rate_per_s: f64) -> Option<f64> {
    if rate_per_s.is_nan() || rate_per_s <= 0.0 {
        return None;
    }
    let age_s = match gate {
        Gate::Share(gate) => gate.age_us() as f64 / 1e6,
        Gate::Probe(_) => 0.0,
    };
    Some((calls_to_pass(gate) - 1) as f64 / rate_per_s + age_s)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::gates::simulation::hanging_calls;
    use crate::gates::{ProbeGate, ShareGate, Verdict};

    fn share(limit: f64, beta: f64) -> ShareGate {
        ShareGate::new(limit, 5_000_000, 0.01, beta).unwrap()
    }

    /// Moments before and at which a node without a bad call passes.
    fn assert_passes_exactly_with(gate: &ShareGate, calls: u64, rate_per_s: f64) {
        let samples: Vec<_> = hanging_calls(calls, calls, calls, rate_per_s, gate.age_us()).collect();
        let all = gate.read(&samples, 0, i64::MAX);
        assert_eq!(all.verdict, Verdict::Pass, "{calls} clean calls");
        assert_eq!(
            gate.read(&samples[1..], 0, i64::MAX).verdict,
            Verdict::Undecided,
            "one clean call fewer"
        );
        let planned = seconds_to_pass(&gate.clone().into(), rate_per_s).unwrap();
        #[expect(clippy::cast_precision_loss)]
        let passed_s = all.decided_us.unwrap() as f64 / 1e6;
        assert!(
            (planned - passed_s).abs() < 1e-3,
            "planned {planned} s, passed after {passed_s} s"
        );
    }

    #[test]
    fn pass_costs_what_the_plan_says() {
        for (limit, known_calls) in [(0.01, 455.0), (0.02, 229.0), (0.05, 93.0)] {
            let gate = share(limit, 0.05);
            let calls = calls_to_pass(&gate.clone().into());
            #[expect(clippy::cast_precision_loss)]
            let ratio = calls as f64 / known_calls;
            assert!(
                (0.98..1.02).contains(&ratio),
                "{calls} calls at {limit}, {known_calls} expected"
            );
            assert_passes_exactly_with(&gate, calls, 5.0);
        }
    }

    #[test]
    fn bet_on_blocks_costs_that_many_times_the_calls() {
        let gate = share(0.02, 0.05);
        let blocked = gate.clone().with_blocks(NonZeroU32::MIN, NonZeroU32::new(25).unwrap());
        let (single, blocks) = (calls_to_pass(&gate.into()), calls_to_pass(&blocked.clone().into()));
        assert_eq!(blocks, 25 * single);
        assert_passes_exactly_with(&blocked, blocks, 50.0);
    }

    #[test]
    fn pass_out_of_reach_is_said_not_computed_forever() {
        assert_eq!(calls_to_pass(&share(1e-15, 0.05).into()), u64::MAX);
    }

    #[test]
    fn probes_cost_their_success_threshold() {
        let three = NonZeroU32::new(3).unwrap();
        let gate = ProbeGate {
            failure_threshold: three,
            success_threshold: three,
        }
        .into();
        assert_eq!((calls_to_pass(&gate), seconds_to_pass(&gate, 0.5)), (3, Some(4.0)));
    }

    #[test]
    fn no_rate_is_no_estimate() {
        for rate in [0.0, -1.0, f64::NAN] {
            assert_eq!(seconds_to_pass(&share(0.02, 0.05).into(), rate), None);
        }
    }

    #[test]
    fn documented_prices_are_the_computed_ones() {
        let text = include_str!("../../docs/gates.md");
        for (limit, percent) in [(0.01, "1 %"), (0.02, "2 %"), (0.05, "5 %")] {
            let calls = calls_to_pass(&share(limit, 0.05).into());
            let seconds = seconds_to_pass(&share(limit, 0.05).into(), 5.0).unwrap();
            let row = format!("| {percent} | {calls} | {seconds:.0} s |");
            assert!(text.contains(&row), "docs/gates.md lacks the row {row}");
        }
    }
}

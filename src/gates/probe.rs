//! Consecutive probes: so many bad ones in a row fail, so many good ones in a row pass.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::arrivals::{Arrivals, Call, Folded};
use super::{Counts, Ending, Reading, Verdict};
use crate::model::sample::Sample;

/// A gate over probes, with the thresholds as Kubernetes users know them. It makes no statement about error probabilities:
/// it is for probes that are either right or wrong, such as "does it answer, and with the build we installed".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeGate {
    /// Bad probes in a row that fail the gate.
    pub failure_threshold: NonZeroU32,
    /// Good probes in a row that pass it.
    pub success_threshold: NonZeroU32,
}

/// A row of probes with the same ending.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    length: u64,
    /// Intended time of its first probe.
    since_us: i64,
}

impl Run {
    fn extended(self, intended_us: i64) -> Run {
        let since_us = if self.length == 0 { intended_us } else { self.since_us };
        Run {
            length: self.length + 1,
            since_us,
        }
    }
}

impl ProbeGate {
    /// Reads the gate at `now_us` from the probes intended at or after `since_us`, in order of resolution; of several with
    /// one `seq` the first to resolve counts. A Fail is final; a Pass stands until a Fail.
    #[must_use]
    pub fn read(&self, samples: &[Sample], since_us: i64, now_us: i64) -> Reading {
        let mut test = ProbeTest::new(self, since_us);
        for sample in samples {
            test.push(sample);
        }
        test.read(now_us)
    }
}

/// A probe gate at work on one node: push samples as they come, ask by [`ProbeTest::read`] as often as wanted. Like
/// [`super::ShareTest`] it reads the same whatever the order of pushes and the number of looks.
#[derive(Debug, Clone)]
pub struct ProbeTest {
    gate: ProbeGate,
    since_us: i64,
    arrivals: Arrivals,
    tally: Tally,
}

/// Everything that is folded from the probes that resolved.
#[derive(Debug, Clone, Default)]
struct Tally {
    counts: Counts,
    good: Run,
    bad: Run,
    passed_us: Option<i64>,
    /// When it failed, and when the row of bad probes began.
    failed: Option<(i64, i64)>,
    last_bad_us: Option<i64>,
}

impl ProbeTest {
    /// A test that has seen nothing. Probes intended before `since_us` will not count.
    pub fn new(gate: &ProbeGate, since_us: i64) -> ProbeTest {
        ProbeTest {
            gate: gate.clone(),
            since_us,
            arrivals: Arrivals::default(),
            tally: Tally::default(),
        }
    }

    /// The gate's parameters.
    pub fn gate(&self) -> &ProbeGate {
        &self.gate
    }

    /// Takes one probe. It counts from the first look at or after its resolution.
    pub fn push(&mut self, sample: &Sample) {
        if sample.intended_us < self.since_us {
            return;
        }
        let call = Call {
            intended_us: sample.intended_us,
            resolved_us: sample.resolved_us,
            ending: Ending::of(&sample.outcome),
            counted: false,
        };
        self.arrivals.push(sample.seq, call);
    }

    /// The reading at `now_us`. Time does not run backwards: an earlier moment than before reads as the latest one.
    pub fn read(&mut self, now_us: i64) -> Reading {
        let (now_us, folded) = self.arrivals.advance(now_us);
        if folded == Folded::Anew {
            self.tally = Tally::default();
        }
        while let Some(seq) = self.arrivals.next() {
            if let Some(call) = self.arrivals.calls.get(&seq) {
                self.tally.count(&self.gate, call);
            }
        }
        self.tally.reading(&self.gate, now_us)
    }
}

impl Tally {
    fn count(&mut self, gate: &ProbeGate, call: &Call) {
        self.counts.add(call.ending);
        if call.ending.is_bad() {
            self.last_bad_us = self.last_bad_us.max(Some(call.intended_us));
            (self.good, self.bad) = (Run::default(), self.bad.extended(call.intended_us));
        } else {
            (self.good, self.bad) = (self.good.extended(call.intended_us), Run::default());
        }
        if self.bad.length >= u64::from(gate.failure_threshold.get()) && self.failed.is_none() {
            self.failed = Some((call.resolved_us, self.bad.since_us));
        }
        if self.good.length >= u64::from(gate.success_threshold.get()) && self.passed_us.is_none() {
            self.passed_us = Some(call.resolved_us);
        }
    }

    fn reading(&self, gate: &ProbeGate, at_us: i64) -> Reading {
        let Tally {
            counts,
            good,
            bad: _,
            passed_us,
            failed,
            last_bad_us,
        } = *self;
        let verdict = match (failed, passed_us) {
            (Some(_), _) => Verdict::Fail,
            (None, Some(_)) => Verdict::Pass,
            (None, None) if counts.all() > 0 => Verdict::Undecided,
            (None, None) => Verdict::NoData,
        };
        Reading {
            at_us,
            verdict,
            n: counts.all(),
            bad: counts.bad(),
            counts,
            unresolved: 0,
            strays: 0,
            e_fail_log: 0.0,
            e_pass_log: 0.0,
            onset_us: failed.map(|(_, onset_us)| onset_us),
            decided_us: failed.map_or(passed_us, |(decided_us, _)| Some(decided_us)),
            last_bad_us,
            expected_calls_to_pass: match verdict {
                Verdict::Fail => None,
                Verdict::Pass => Some(0),
                Verdict::Undecided | Verdict::NoData => Some(u64::from(gate.success_threshold.get()) - good.length),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gates::share::tests::samples;
    use crate::model::sample::Outcome;

    const SECOND: i64 = 1_000_000;

    fn gate() -> ProbeGate {
        ProbeGate {
            failure_threshold: NonZeroU32::new(3).unwrap(),
            success_threshold: NonZeroU32::new(2).unwrap(),
        }
    }

    /// One probe a second, answered at once: `o` is a good answer, `r` a refusal, `w` a wrong answer, `l` none in time.
    fn row(text: &str) -> Vec<Sample> {
        let outcome = |letter| match letter {
            'r' => Outcome::Refused {
                why: "connection refused".into(),
            },
            'w' => Outcome::Wrong { why: "503".into() },
            'l' => Outcome::Late,
            _ => Outcome::Ok,
        };
        (0..)
            .zip(text.chars())
            .map(|(i, letter)| Sample {
                signal: "probe/alive".into(),
                seq: u64::try_from(i).unwrap(),
                node: "n0".into(),
                build: "b".into(),
                intended_us: i * SECOND,
                resolved_us: i * SECOND,
                outcome: outcome(letter),
            })
            .collect()
    }

    fn verdict(text: &str) -> (Verdict, Option<i64>) {
        let reading = gate().read(&row(text), 0, 100 * SECOND);
        (reading.verdict, reading.decided_us.map(|us| us / SECOND))
    }

    #[test]
    fn thresholds_count_probes_in_a_row() {
        assert_eq!(verdict("ror"), (Verdict::Undecided, None));
        assert_eq!(verdict("roo"), (Verdict::Pass, Some(2)));
        assert_eq!(verdict("rrorr"), (Verdict::Undecided, None));
        assert_eq!(verdict("orwl"), (Verdict::Fail, Some(3)));
    }

    #[test]
    fn no_probe_is_never_a_pass() {
        assert_eq!(verdict(""), (Verdict::NoData, None));
        let reading = gate().read(&row("ooo"), 3 * SECOND, 100 * SECOND);
        assert_eq!(reading.verdict, Verdict::NoData, "probes before the start do not count");
        let reading = gate().read(&row("ooo"), 0, -1);
        assert_eq!(
            reading.verdict,
            Verdict::NoData,
            "probes that have not resolved do not count"
        );
    }

    #[test]
    fn fail_after_a_pass_counts_and_stays() {
        assert_eq!(verdict("oorrroooo"), (Verdict::Fail, Some(4)));
    }

    #[test]
    fn reading_says_how_the_probes_came_out_and_since_when() {
        let reading = gate().read(&row("orolwr"), 0, 100 * SECOND);
        assert_eq!(
            (reading.onset_us, reading.last_bad_us),
            (Some(3 * SECOND), Some(5 * SECOND))
        );
        assert_eq!(
            reading.counts,
            Counts {
                ok: 2,
                late: 1,
                refused: 2,
                wrong: 1,
                ..Counts::default()
            }
        );
        assert_eq!(reading.expected_calls_to_pass, None);
        assert_eq!(gate().read(&row("wo"), 0, 100 * SECOND).expected_calls_to_pass, Some(1));
    }

    #[test]
    fn order_and_repetition_of_samples_do_not_matter() {
        let samples = row("oorrro");
        let mut shuffled: Vec<_> = samples.iter().rev().chain(&samples).cloned().collect();
        // A second answer to probe 2 that came later than the first one.
        shuffled.insert(
            0,
            Sample {
                outcome: Outcome::Ok,
                resolved_us: 50 * SECOND,
                ..samples[2].clone()
            },
        );
        assert_eq!(
            gate().read(&shuffled, 0, 100 * SECOND),
            gate().read(&samples, 0, 100 * SECOND)
        );
    }

    proptest! {
        #[test]
        fn any_split_of_pushes_and_looks_gives_the_same_reading(
            samples in samples(), since_us in 0..3 * SECOND,
            looks in proptest::collection::vec((any::<prop::sample::Index>(), 0..40 * SECOND), 0..20),
            end_us in 0..40 * SECOND,
        ) {
            let mut test = ProbeTest::new(&gate(), since_us);
            for (place, sample) in samples.iter().enumerate() {
                for (at, now_us) in &looks {
                    if at.index(samples.len()) == place {
                        test.read(*now_us.min(&end_us));
                    }
                }
                test.push(sample);
            }
            prop_assert!(test.read(end_us).same_bits(&gate().read(&samples, since_us, end_us)));
        }
    }
}

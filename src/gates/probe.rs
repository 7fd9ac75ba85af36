//! Consecutive probes: so many bad ones in a row fail, so many good ones in a row pass.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Default)]
struct Run {
    length: u64,
    /// Intended time of its first probe.
    since_us: i64,
}

impl Run {
    fn extended(self, intended_us: i64) -> Run {
        let since_us = if self.length == 0 { intended_us } else { self.since_us };
        Run { length: self.length + 1, since_us }
    }
}

impl ProbeGate {
    /// Reads the gate at `now_us` from the probes intended at or after `since_us`, in order of resolution; of several with
    /// one `seq` the first to resolve counts. A Fail is final; a Pass stands until a Fail.
    #[must_use]
    pub fn read(&self, samples: &[Sample], since_us: i64, now_us: i64) -> Reading {
        let ProbeGate { failure_threshold, success_threshold } = self;
        let (failures, successes) = (u64::from(failure_threshold.get()), u64::from(success_threshold.get()));
        let probes = probes(samples, since_us, now_us);

        let mut counts = Counts::default();
        let (mut good, mut bad) = (Run::default(), Run::default());
        let (mut passed_us, mut failed): (Option<i64>, Option<(i64, i64)>) = (None, None);
        let mut last_bad_us = None;
        for &(resolved_us, ending, intended_us) in &probes {
            counts.add(ending);
            if ending.is_bad() {
                last_bad_us = last_bad_us.max(Some(intended_us));
                (good, bad) = (Run::default(), bad.extended(intended_us));
            } else {
                (good, bad) = (good.extended(intended_us), Run::default());
            }
            if bad.length >= failures && failed.is_none() {
                failed = Some((resolved_us, bad.since_us));
            }
            if good.length >= successes && passed_us.is_none() {
                passed_us = Some(resolved_us);
            }
        }

        let verdict = match (failed, passed_us) {
            (Some(_), _) => Verdict::Fail,
            (None, Some(_)) => Verdict::Pass,
            (None, None) if counts.all() > 0 => Verdict::Undecided,
            (None, None) => Verdict::NoData,
        };
        Reading {
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
                Verdict::Undecided | Verdict::NoData => Some(successes - good.length),
            },
        }
    }
}

/// Resolution time, ending and intended time of the probes that count, in order of resolution.
fn probes(samples: &[Sample], since_us: i64, now_us: i64) -> Vec<(i64, Ending, i64)> {
    let mut by_seq = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.intended_us >= since_us && sample.resolved_us <= now_us) {
        let probe = (sample.resolved_us, Ending::of(&sample.outcome), sample.intended_us);
        by_seq.entry(sample.seq).and_modify(|known| *known = probe.min(*known)).or_insert(probe);
    }
    let mut probes: Vec<_> = by_seq.into_iter().collect();
    probes.sort_by_key(|&(seq, (resolved_us, _, _))| (resolved_us, seq));
    probes.into_iter().map(|(_, probe)| probe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
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
            'r' => Outcome::Refused { why: "connection refused".into() },
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
        assert_eq!(reading.verdict, Verdict::NoData, "probes that have not resolved do not count");
    }

    #[test]
    fn fail_after_a_pass_counts_and_stays() {
        assert_eq!(verdict("oorrroooo"), (Verdict::Fail, Some(4)));
    }

    #[test]
    fn reading_says_how_the_probes_came_out_and_since_when() {
        let reading = gate().read(&row("orolwr"), 0, 100 * SECOND);
        assert_eq!((reading.onset_us, reading.last_bad_us), (Some(3 * SECOND), Some(5 * SECOND)));
        assert_eq!(reading.counts, Counts { ok: 2, late: 1, refused: 2, wrong: 1, ..Counts::default() });
        assert_eq!(reading.expected_calls_to_pass, None);
        assert_eq!(gate().read(&row("wo"), 0, 100 * SECOND).expected_calls_to_pass, Some(1));
    }

    #[test]
    fn order_and_repetition_of_samples_do_not_matter() {
        let samples = row("oorrro");
        let mut shuffled: Vec<_> = samples.iter().rev().chain(&samples).cloned().collect();
        // A second answer to probe 2 that came later than the first one.
        shuffled.insert(0, Sample { outcome: Outcome::Ok, resolved_us: 50 * SECOND, ..samples[2].clone() });
        assert_eq!(gate().read(&shuffled, 0, 100 * SECOND), gate().read(&samples, 0, 100 * SECOND));
    }
}

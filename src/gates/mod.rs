//! Verdicts from samples, as pure functions.
//!
//! A gate turns the resolved calls of one node into a [`Reading`]. A reading is a function of the gate's parameters, the
//! samples and one moment `now`: it does not depend on how often, or in which order, the samples were handed over, so
//! what was decided live can be recomputed from the recorded evidence bit for bit. docs/gates.md has the formulas, their
//! sources and what simulation says about them.

mod arrivals;
pub mod evidence;
mod exact;
pub mod plan;
pub mod probe;
pub mod share;
pub mod simulation;
pub mod stated;

use serde::{Deserialize, Serialize};

use crate::model::sample::{Outcome, Sample};
pub use crate::model::upgrade::Verdict;
pub use evidence::{Evidence, EvidenceError, Replay};
pub use probe::{ProbeGate, ProbeTest};
pub use share::{FAIL_BLOCK, ShareGate, ShareTest, fail_block, split_alpha};
pub use stated::{StatedError, StatedGate};

/// The version of the `libm` crate whose logarithms and powers the readings use; a test holds it to Cargo.lock.
pub const LIBM_VERSION: &str = "0.2.16";

/// How the counted calls came out; everything but `ok` is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Counts {
    /// Answered within the age, with the right meaning and effect.
    pub ok: u64,
    /// Not answered within the age (also an answer that came after it).
    pub late: u64,
    /// Connection refused or reset.
    pub refused: u64,
    /// Answered, but the answer does not mean success.
    pub wrong: u64,
    /// The answer meant success and the effect is missing.
    pub lost: u64,
    /// Not sent, because earlier calls still hung.
    pub shed: u64,
}

impl Counts {
    /// Calls that count against a gate.
    pub fn bad(&self) -> u64 {
        let Counts {
            ok: _,
            late,
            refused,
            wrong,
            lost,
            shed,
        } = self;
        late + refused + wrong + lost + shed
    }

    /// All counted calls.
    pub fn all(&self) -> u64 {
        self.ok + self.bad()
    }

    fn add(&mut self, ending: Ending) {
        match ending {
            Ending::Ok => self.ok += 1,
            Ending::Late => self.late += 1,
            Ending::Refused => self.refused += 1,
            Ending::Wrong => self.wrong += 1,
            Ending::Lost => self.lost += 1,
            Ending::Shed => self.shed += 1,
        }
    }
}

/// What a gate says at one moment, and the numbers behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reading {
    /// The moment that it is for (µs since the Unix epoch).
    pub at_us: i64,
    /// The verdict. Where both tests have decided, Fail wins, and stays.
    pub verdict: Verdict,
    /// Calls counted so far: intended at or after the start of the gate and resolved by `now`, each `seq` once.
    pub n: u64,
    /// How many of them were bad.
    pub bad: u64,
    /// How they came out.
    pub counts: Counts,
    /// Calls sent before the latest counted one of which nothing is known (yet): in flight, or lost by the sensor.
    pub unresolved: u64,
    /// Samples whose `seq` is so far from the others that they cannot belong to the same sequence; not counted.
    pub strays: u64,
    /// Natural logarithm of the evidence against "share ≤ limit"; stands still once it has decided. 0 for probes.
    #[serde(with = "exact")]
    pub e_fail_log: f64,
    /// Natural logarithm of the evidence against "share ≥ limit", not below −700; stands still once it has decided.
    /// 0 for probes.
    #[serde(with = "exact")]
    pub e_pass_log: f64,
    /// With a Fail: when the bad spell began, as the intended time of its first bad call (µs since the Unix epoch).
    pub onset_us: Option<i64>,
    /// The earliest moment at which these samples decided the verdict (µs since the Unix epoch).
    pub decided_us: Option<i64>,
    /// Intended time of the latest bad call (µs since the Unix epoch).
    pub last_bad_us: Option<i64>,
    /// How many more calls bring a Pass if all of them are clean; `None` after a Fail, or where it is out of reach.
    pub expected_calls_to_pass: Option<u64>,
}

impl Reading {
    /// Equal to the last bit, floating-point numbers included.
    #[must_use]
    pub fn same_bits(&self, other: &Reading) -> bool {
        self == other
            && self.e_fail_log.to_bits() == other.e_fail_log.to_bits()
            && self.e_pass_log.to_bits() == other.e_pass_log.to_bits()
    }
}

/// One gate with its parameters, as evidence records it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Gate {
    /// The share of bad calls is tested against a limit.
    Share(ShareGate),
    /// Consecutive probes are counted.
    Probe(ProbeGate),
}

impl Gate {
    /// Reads the gate at `now_us` from the calls intended at or after `since_us`.
    #[must_use]
    pub fn read(&self, samples: &[Sample], since_us: i64, now_us: i64) -> Reading {
        let mut test = GateTest::new(self, since_us);
        for sample in samples {
            test.push(sample);
        }
        test.read(now_us)
    }
}

/// Any gate at work on one node: push samples as they come, ask as often as wanted.
#[derive(Debug, Clone)]
pub enum GateTest {
    /// Of a share gate.
    Share(Box<ShareTest>),
    /// Of a probe gate.
    Probe(Box<ProbeTest>),
}

impl GateTest {
    /// A test that has seen nothing. Calls intended before `since_us` will not count.
    pub fn new(gate: &Gate, since_us: i64) -> GateTest {
        match gate {
            Gate::Share(gate) => GateTest::Share(Box::new(ShareTest::new(gate, since_us))),
            Gate::Probe(gate) => GateTest::Probe(Box::new(ProbeTest::new(gate, since_us))),
        }
    }

    /// Takes one sample. It counts from the first look at or after its resolution.
    pub fn push(&mut self, sample: &Sample) {
        match self {
            GateTest::Share(test) => test.push(sample),
            GateTest::Probe(test) => test.push(sample),
        }
    }

    /// The reading at `now_us`. Time does not run backwards: an earlier moment than before reads as the latest one.
    pub fn read(&mut self, now_us: i64) -> Reading {
        match self {
            GateTest::Share(test) => test.read(now_us),
            GateTest::Probe(test) => test.read(now_us),
        }
    }
}

impl From<ShareGate> for Gate {
    fn from(gate: ShareGate) -> Self {
        Gate::Share(gate)
    }
}

impl From<ProbeGate> for Gate {
    fn from(gate: ProbeGate) -> Self {
        Gate::Probe(gate)
    }
}

/// A gate's parameters that cannot work.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GateError {
    /// A probability at or beyond its ends.
    #[error("{name} is {value}, but it must lie strictly between 0 and 1: write 0.02 for 2 %")]
    Probability {
        /// Which parameter.
        name: &'static str,
        /// What it was.
        value: f64,
    },
    /// No call could ever be in time.
    #[error("the age is {0} µs, but a call must be given some time: state an age above 0")]
    Age(i64),
    /// A count of which at least one is needed.
    #[error("{0} is 0, but at least 1 is needed")]
    Zero(&'static str),
}

/// How a call came out, without the words. Ordered so that, of two samples with one `seq` and one resolution time, the
/// worse one counts, whichever was handed over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Lost,
    Wrong,
    Refused,
    Shed,
    Late,
    Ok,
}

impl Ending {
    fn of(outcome: &Outcome) -> Ending {
        match outcome {
            Outcome::Ok => Ending::Ok,
            Outcome::Late => Ending::Late,
            Outcome::Refused { .. } => Ending::Refused,
            Outcome::Wrong { .. } => Ending::Wrong,
            Outcome::Lost { .. } => Ending::Lost,
            Outcome::Shed => Ending::Shed,
        }
    }

    fn is_bad(self) -> bool {
        self != Ending::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::LIBM_VERSION;

    #[test]
    fn recorded_libm_version_is_the_locked_one() {
        let lock = include_str!("../../Cargo.lock");
        let locked = format!("name = \"libm\"\nversion = \"{LIBM_VERSION}\"");
        assert!(
            lock.contains(&locked),
            "set LIBM_VERSION to the version of libm in Cargo.lock"
        );
    }
}

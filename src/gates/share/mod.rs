//! The share of bad calls against a limit: two tests that may be looked at after every call.

mod fail;
mod pass;
#[cfg(test)]
pub(super) mod tests;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use self::fail::FailProcess;
use self::pass::PassProcess;
use super::arrivals::{Arrivals, Call, Folded};
use super::{Counts, Ending, GateError, Reading, Verdict, exact};
use crate::model::sample::Sample;

/// The widest jump of `seq` that is still lost or pending calls. A wider one is another numbering: those samples are
/// strays. It also bounds the work that one sample can cause, at about a tenth of a second.
const WIDEST_JUMP: u64 = 100_000;

/// While fewer calls than this are spanned, a call with a lower `seq` than any before still belongs to the start of the
/// test (calls overtake each other in flight; 4096 is 40 s at 100 calls/s). Each one makes the test count anew.
const OVERTAKING_SPAN: u64 = 4096;

/// Calls that a Fail bets on at a time, unless said otherwise: 3 s at 5 calls/s, within which latencies move together
/// ([`BLOCK_S`]). Bets on single calls would take three late calls in a row for proof; docs/gates.md has the figures.
pub const FAIL_BLOCK: NonZeroU32 = NonZeroU32::new(15).expect("not 0");

/// The time that a Fail's block should span, in seconds: with 3 s alpha holds at 0.3 of the limit even where the
/// log-latencies of neighbouring calls correlate by 0.95 at 5 calls/s, and a hang is still seen within 20 s.
const BLOCK_S: f64 = 3.0;

/// Smallest evidence that is shown, so that its logarithm stays finite: e^−700.
const SMALLEST_LOG: f64 = -700.0;

/// A share gate: "at most `limit` of the calls are bad, where a call without an answer after `age` is bad".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ShareGateText", into = "ShareGateText")]
pub struct ShareGate {
    limit: f64,
    age_us: i64,
    alpha: f64,
    beta: f64,
    fail_block: NonZeroU32,
    pass_block: NonZeroU32,
}

impl ShareGate {
    /// A gate for one signal on one node.
    ///
    /// - `limit`: the share of bad calls that is still good, in (0, 1).
    /// - `age_us`: a call that has not ended after this many microseconds is bad; above 0.
    /// - `alpha`: the probability of a false Fail that this one gate on this one node may spend, in (0, 1); see
    ///   [`split_alpha`].
    /// - `beta`: the probability of a false Pass, in (0, 1). It needs no split: an upgrade passes only if every gate passes
    ///   on every node, so a bad system passes with at most the probability that the one gate passes which it breaks
    ///   (an intersection-union test: Berger 1982).
    pub fn new(limit: f64, age_us: i64, alpha: f64, beta: f64) -> Result<ShareGate, GateError> {
        for (name, value) in [("limit", limit), ("alpha", alpha), ("beta", beta)] {
            if !(value > 0.0 && value < 1.0) {
                return Err(GateError::Probability { name, value });
            }
        }
        if age_us <= 0 {
            return Err(GateError::Age(age_us));
        }
        Ok(ShareGate {
            limit,
            age_us,
            alpha,
            beta,
            fail_block: FAIL_BLOCK,
            pass_block: NonZeroU32::MIN,
        })
    }

    /// The same gate betting on the mean of so many neighbouring calls at a time, for calls whose outcomes move together:
    /// `fail` of them against the node ([`FAIL_BLOCK`] by default; [`fail_block`] for other rates), `pass` of them for it
    /// (1 by default: a pass costs that many times the calls). docs/gates.md shows what both do.
    #[must_use]
    pub fn with_blocks(self, fail: NonZeroU32, pass: NonZeroU32) -> ShareGate {
        ShareGate {
            fail_block: fail,
            pass_block: pass,
            ..self
        }
    }

    /// The share of bad calls that is still good.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Microseconds from the intended send after which a call without an answer is bad.
    pub fn age_us(&self) -> i64 {
        self.age_us
    }

    /// The probability of a false Fail that this gate on this node may spend.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// The probability of a false Pass.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// Calls that one bet against the node takes.
    pub fn fail_block(&self) -> NonZeroU32 {
        self.fail_block
    }

    /// Calls that one bet for the node takes.
    pub fn pass_block(&self) -> NonZeroU32 {
        self.pass_block
    }

    /// How many calls in a row must be bad for a Fail, after so many good ones: the longer the good past, the more.
    #[must_use]
    pub fn bad_calls_to_fail(&self, after: u64) -> u64 {
        let mut failing = FailProcess::new(self);
        (0..after).for_each(|call| failing.count(call, false));
        let mut bad = 0;
        while !failing.rejects() {
            failing.count(after + bad, true);
            bad += 1;
        }
        bad
    }

    /// Reads the gate at `now_us` from the calls intended at or after `since_us`. The same as pushing the samples into a
    /// [`ShareTest`] in any order.
    #[must_use]
    pub fn read(&self, samples: &[Sample], since_us: i64, now_us: i64) -> Reading {
        let mut test = ShareTest::new(self, since_us);
        for sample in samples {
            test.push(sample);
        }
        test.read(now_us)
    }
}

/// A share gate as it is written: not yet checked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShareGateText {
    #[serde(with = "exact")]
    limit: f64,
    age_us: i64,
    #[serde(with = "exact")]
    alpha: f64,
    #[serde(with = "exact")]
    beta: f64,
    fail_block: u32,
    pass_block: u32,
}

impl TryFrom<ShareGateText> for ShareGate {
    type Error = GateError;

    fn try_from(text: ShareGateText) -> Result<Self, GateError> {
        let fail = NonZeroU32::new(text.fail_block).ok_or(GateError::Zero("failBlock"))?;
        let pass = NonZeroU32::new(text.pass_block).ok_or(GateError::Zero("passBlock"))?;
        Ok(ShareGate::new(text.limit, text.age_us, text.alpha, text.beta)?.with_blocks(fail, pass))
    }
}

impl From<ShareGate> for ShareGateText {
    fn from(gate: ShareGate) -> Self {
        let ShareGate {
            limit,
            age_us,
            alpha,
            beta,
            fail_block,
            pass_block,
        } = gate;
        ShareGateText {
            limit,
            age_us,
            alpha,
            beta,
            fail_block: fail_block.get(),
            pass_block: pass_block.get(),
        }
    }
}

/// What each of `tests` (gates times nodes) may spend of an upgrade's `alpha`, in equal parts: by the union bound the
/// probability of any false Fail in the upgrade is then at most `alpha`, whatever ties the tests together.
pub fn split_alpha(alpha: f64, tests: NonZeroU32) -> f64 {
    alpha / f64::from(tests.get())
}

/// Calls that a Fail should bet on at a time where so many come in a second: those of 3 s, at least 1.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float to integer cast takes what is out of range to the nearest end, and no number to 0"
)]
pub fn fail_block(rate_per_s: f64) -> NonZeroU32 {
    NonZeroU32::new(libm::round(rate_per_s * BLOCK_S) as u32).unwrap_or(NonZeroU32::MIN)
}

/// A share gate at work on one node: push samples as they come, ask by [`ShareTest::read`] as often as wanted. A look
/// costs what came since the last one, not what came since the start.
///
/// Any order of pushes and any number of looks give the same reading at the same `now`, bit for bit. A sample that is
/// handed over late (it resolved before the last look) is folded where it belongs, which counts everything anew; so drain
/// the sensor after taking `now`, not before.
#[derive(Debug, Clone)]
pub struct ShareTest {
    gate: ShareGate,
    since_us: i64,
    arrivals: Arrivals,
    tally: Tally,
}

/// Everything that is folded from the counted calls.
#[derive(Debug, Clone)]
struct Tally {
    counts: Counts,
    strays: u64,
    /// Lowest and highest counted `seq`.
    span: Option<(u64, u64)>,
    last_bad_us: Option<i64>,
    failing: FailProcess,
    /// The evidence suffices for a Fail, but the start of the sequence is not certain yet.
    awaits_start: bool,
    failed: Option<Failed>,
    passing: PassProcess,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    decided_us: i64,
    onset_us: i64,
}

impl Tally {
    fn new(gate: &ShareGate) -> Tally {
        Tally {
            counts: Counts::default(),
            strays: 0,
            span: None,
            last_bad_us: None,
            failing: FailProcess::new(gate),
            awaits_start: false,
            failed: None,
            passing: PassProcess::new(gate),
        }
    }
}

impl ShareTest {
    /// A test that has seen nothing. Calls intended before `since_us` (warm-up, the build before) will not count.
    pub fn new(gate: &ShareGate, since_us: i64) -> ShareTest {
        ShareTest {
            gate: gate.clone(),
            since_us,
            arrivals: Arrivals::default(),
            tally: Tally::new(gate),
        }
    }

    /// The gate's parameters.
    pub fn gate(&self) -> &ShareGate {
        &self.gate
    }

    /// Takes one sample. It counts from the first look at or after its resolution. Of several samples with one `seq` the
    /// first to resolve counts. The caller sees to it that all samples are of one signal and one node.
    pub fn push(&mut self, sample: &Sample) {
        if sample.intended_us < self.since_us {
            return;
        }
        let took_us = sample.resolved_us.saturating_sub(sample.intended_us);
        let ending = match Ending::of(&sample.outcome) {
            Ending::Ok if took_us > self.gate.age_us => Ending::Late,
            ending => ending,
        };
        let call = Call {
            intended_us: sample.intended_us,
            resolved_us: sample.resolved_us,
            ending,
            counted: false,
        };
        self.arrivals.push(sample.seq, call);
    }

    /// The reading at `now_us`. Time does not run backwards: an earlier moment than before reads as the latest one.
    pub fn read(&mut self, now_us: i64) -> Reading {
        let (now_us, folded) = self.arrivals.advance(now_us);
        if folded == Folded::Anew {
            self.tally = Tally::new(&self.gate);
        }
        while let Some(seq) = self.arrivals.next() {
            self.count(seq);
        }
        self.fail_once_the_start_is_certain(now_us);
        if let Some((first, _)) = self.tally.span {
            let ripe_us = now_us.saturating_sub(self.gate.age_us);
            self.tally
                .passing
                .run(&self.arrivals.calls, first, ripe_us, self.gate.age_us);
        }
        self.reading(now_us)
    }

    /// Counts one call; called in order of resolution.
    fn count(&mut self, seq: u64) {
        let Some(&call) = self.arrivals.calls.get(&seq) else {
            return;
        };
        self.fail_once_the_start_is_certain(call.resolved_us.saturating_sub(1));
        let tally = &mut self.tally;
        let (first, last) = tally.span.unwrap_or((seq, seq));
        let overtaken = seq < first;
        if seq.saturating_sub(last) > WIDEST_JUMP || (overtaken && last - seq > OVERTAKING_SPAN) {
            tally.strays += 1;
            return;
        }
        self.arrivals.calls.entry(seq).and_modify(|call| call.counted = true);
        let (first, last) = (first.min(seq), last.max(seq));
        tally.span = Some((first, last));
        tally.counts.add(call.ending);
        if call.ending.is_bad() {
            tally.last_bad_us = tally.last_bad_us.max(Some(call.intended_us));
        }
        if tally.passing.has_passed_over(seq) {
            // It was folded as missing, or the start has moved: the pass is counted anew at the end of this look.
            tally.passing = PassProcess::new(&self.gate);
        }
        if tally.failed.is_some() {
            return;
        }
        if overtaken {
            let bad = self
                .arrivals
                .calls
                .range(first..=last)
                .filter(|(_, call)| call.counted && call.ending.is_bad());
            tally.failing.recount(last - first, bad.map(|(seq, _)| seq - first));
        } else {
            tally.failing.count(seq - first, call.ending.is_bad());
        }
        // Good calls only lower the evidence, unless they move the start.
        if call.ending.is_bad() || tally.awaits_start {
            let rejects = tally.failing.rejects();
            let certain = self.start_is_certain_at(first) <= call.resolved_us;
            self.tally.awaits_start = rejects && !certain;
            if rejects && certain {
                self.fail(first, call.resolved_us);
            }
        }
    }

    /// From when on the lowest counted `seq` is known to be the first one of all, and not only the first that resolved:
    /// by then every call sent before it has resolved. Until then the evidence is no e-process: where bad calls resolve
    /// first, a sequence that begins at the first one known would always begin with a bad call.
    fn start_is_certain_at(&self, first: u64) -> i64 {
        if first == 0 {
            return i64::MIN;
        }
        let call = self.arrivals.calls.get(&first);
        call.map_or(i64::MAX, |call| call.intended_us.saturating_add(self.gate.age_us))
    }

    fn fail_once_the_start_is_certain(&mut self, until_us: i64) {
        let Some((first, _)) = self.tally.span.filter(|_| self.tally.awaits_start) else {
            return;
        };
        let certain_us = self.start_is_certain_at(first);
        if certain_us <= until_us {
            self.tally.awaits_start = false;
            self.fail(first, certain_us);
        }
    }

    fn fail(&mut self, first: u64, decided_us: i64) {
        let spell = first + self.tally.failing.onset();
        let mut since = self.arrivals.calls.range(spell..).map(|(_, call)| call);
        let first_bad = since.find(|call| call.counted && call.ending.is_bad());
        self.tally.failed = Some(Failed {
            decided_us,
            onset_us: first_bad.map_or(decided_us, |call| call.intended_us),
        });
    }

    fn reading(&self, at_us: i64) -> Reading {
        let Tally {
            counts,
            strays,
            span,
            last_bad_us,
            failing,
            awaits_start: _,
            failed,
            passing,
        } = &self.tally;
        let verdict = if failed.is_some() {
            Verdict::Fail
        } else if passing.passed_us().is_some() {
            Verdict::Pass
        } else if counts.all() > 0 {
            Verdict::Undecided
        } else {
            Verdict::NoData
        };
        Reading {
            at_us,
            verdict,
            n: counts.all(),
            bad: counts.bad(),
            counts: *counts,
            unresolved: span.map_or(0, |(first, last)| (last - first).saturating_add(1) - counts.all()),
            strays: *strays,
            e_fail_log: libm::log(failing.evidence()).max(SMALLEST_LOG),
            e_pass_log: libm::log(passing.evidence()).max(SMALLEST_LOG),
            onset_us: failed.map(|failed| failed.onset_us),
            decided_us: failed.map_or(passing.passed_us(), |failed| Some(failed.decided_us)),
            last_bad_us: *last_bad_us,
            expected_calls_to_pass: if failed.is_some() {
                None
            } else {
                passing.clean_calls_left()
            },
        }
    }
}

//! Rules of the share gate, and generators of gates and samples for other rooms' tests.

use proptest::prelude::*;
use proptest::sample::SizeRange;

use super::*;
use crate::gates::simulation::hanging_calls;
use crate::model::sample::Outcome;

const SECOND: i64 = 1_000_000;
const AGE: i64 = 5 * SECOND;

/// The gate as shipped: 2 %, 5 s, 1 % over three nodes.
fn shipped() -> ShareGate {
    let alpha = split_alpha(0.01, NonZeroU32::new(3).unwrap());
    ShareGate::new(0.02, AGE, alpha, 0.05).unwrap()
}

fn in_blocks(gate: ShareGate, calls: u32) -> ShareGate {
    let calls = NonZeroU32::new(calls).unwrap();
    gate.with_blocks(calls, calls)
}

/// 5 calls/s, of which the calls from `onset` up to `end` hang.
fn hanging(onset: u64, end: u64, calls: u64) -> Vec<Sample> {
    hanging_calls(onset, end, calls, 5.0, AGE).collect()
}

/// Gates of all kinds, weak and strict enough that short rows of samples decide some of them.
pub(in crate::gates) fn gates() -> impl Strategy<Value = ShareGate> {
    (0.01..0.5f64, 1..6 * SECOND, 0.003..0.5f64, 0.01..0.9f64, 1..6u32).prop_map(
        |(limit, age_us, alpha, beta, block)| in_blocks(ShareGate::new(limit, age_us, alpha, beta).unwrap(), block),
    )
}

/// Up to 100 samples in the order in which a sensor might hand them over: overtaking, gaps, repetitions, several outcomes
/// for one call, times that do not follow the order of sending.
pub(in crate::gates) fn samples() -> impl Strategy<Value = Vec<Sample>> {
    rows(0..100)
}

fn rows(size: impl Into<SizeRange>) -> impl Strategy<Value = Vec<Sample>> {
    let call = (0..150u64, 0..400_000i64, 0..6 * SECOND, 0..8u8);
    proptest::collection::vec(call, size).prop_map(|calls| {
        let sample = |(seq, jitter_us, took_us, ending)| sample(seq, jitter_us, took_us, ending);
        calls.into_iter().map(sample).collect()
    })
}

fn sample(seq: u64, jitter_us: i64, took_us: i64, ending: u8) -> Sample {
    let why = String::from("why");
    let outcome = match ending {
        0 => Outcome::Late,
        1 => Outcome::Refused { why },
        2 => Outcome::Wrong { why },
        3 => Outcome::Lost { why },
        4 => Outcome::Shed,
        _ => Outcome::Ok,
    };
    let intended_us = i64::try_from(seq).unwrap() * 200_000 + jitter_us;
    let (signal, node, build) = ("traffic".into(), "n".into(), "b".into());
    Sample {
        signal,
        seq,
        node,
        build,
        intended_us,
        resolved_us: intended_us + took_us,
        outcome,
    }
}

/// The evidence as docs/gates.md defines it, restart by restart, for calls of which all is known.
fn fail_evidence_by_definition(gate: &ShareGate, bad: &[bool]) -> f64 {
    let limit = gate.limit;
    let block = gate.fail_block.get() as usize;
    #[expect(clippy::cast_precision_loss)]
    let means: Vec<f64> = bad
        .chunks(block)
        .map(|calls| calls.iter().filter(|bad| **bad).count() as f64 / block as f64)
        .collect();
    #[expect(clippy::cast_precision_loss)]
    let rest = |j: usize| 1.0 / (1.0 + (1.0 + j as f64).ln());
    let mut evidence = rest(means.len());
    for k in 0..16 {
        let odds = limit / (1.0 - limit) * 1.25 * 800f64.powf(f64::from(k) / 15.0);
        let bet = (odds / (1.0 + odds) - limit) / (limit * (1.0 - limit));
        for start in 0..means.len() {
            let product: f64 = means[start..].iter().map(|mean| 1.0 + bet * (mean - limit)).product();
            evidence += (rest(start) - rest(start + 1)) / 16.0 * product;
        }
    }
    evidence
}

fn pass_evidence_by_definition(gate: &ShareGate, bad: &[bool]) -> f64 {
    let block = gate.pass_block.get() as usize;
    let product = |k: u32| -> f64 {
        let bet = (f64::from(k) + 0.5) / 32.0;
        #[expect(clippy::cast_precision_loss)]
        let factor =
            |calls: &[bool]| 1.0 + bet * (gate.limit - calls.iter().filter(|bad| **bad).count() as f64 / block as f64);
        bad.chunks_exact(block).map(factor).product()
    };
    (0..32).map(product).sum::<f64>() / 32.0
}

proptest! {
    #[test]
    fn any_split_of_pushes_and_advances_gives_the_same_reading(
        gate in gates(), samples in samples(), since_us in 0..3 * SECOND,
        advances in proptest::collection::vec((any::<prop::sample::Index>(), 0..40 * SECOND), 0..20),
        end_us in 0..40 * SECOND,
    ) {
        let whole = gate.read(&samples, since_us, end_us);
        let mut test = ShareTest::new(&gate, since_us);
        for (place, sample) in samples.iter().enumerate() {
            for (at, now_us) in &advances {
                if at.index(samples.len()) == place {
                    test.read(*now_us.min(&end_us));
                }
            }
            test.push(sample);
        }
        prop_assert!(test.read(end_us).same_bits(&whole));
    }

    #[test]
    fn order_and_repetition_of_samples_do_not_matter(
        gate in gates(), (samples, shuffled) in samples().prop_flat_map(|samples| {
            let twice: Vec<_> = samples.iter().chain(&samples).cloned().collect();
            (Just(samples), Just(twice).prop_shuffle())
        }), now_us in 0..40 * SECOND,
    ) {
        prop_assert!(gate.read(&shuffled, 0, now_us).same_bits(&gate.read(&samples, 0, now_us)));
    }

    #[test]
    fn fail_is_final(gate in gates(), samples in rows(20..100), now_us in 0..40 * SECOND, later_us in 0..40 * SECOND) {
        let reading = gate.read(&samples, 0, now_us);
        let later = gate.read(&samples, 0, now_us + later_us);
        if reading.verdict == Verdict::Fail {
            prop_assert_eq!(later.verdict, Verdict::Fail);
            prop_assert_eq!((later.decided_us, later.onset_us), (reading.decided_us, reading.onset_us));
            prop_assert_eq!(later.e_fail_log.to_bits(), reading.e_fail_log.to_bits());
        } else if later.verdict == Verdict::Fail {
            prop_assert!(later.decided_us > Some(now_us), "a Fail that was there before must have been seen");
        }
    }

    #[test]
    fn evidence_is_what_the_definition_says(
        limit in 0.01..0.5f64, block in 1..6u32, bad in proptest::collection::vec(prop::bool::weighted(0.2), 1..700),
    ) {
        // Alpha and beta so small that nothing is decided and all calls are folded.
        let gate = in_blocks(ShareGate::new(limit, AGE, 1e-300, 1e-300).unwrap(), block);
        // Bad calls are known 5 s after the good ones: most of them change what was already folded.
        let samples: Vec<_> = (0..).zip(&bad).map(|(seq, bad)| {
            let (took_us, ending) = if *bad { (AGE, 0) } else { (0, 9) };
            sample(seq, 0, took_us, ending)
        }).collect();
        let reading = gate.read(&samples, 0, i64::MAX);
        let (fail, pass) = (fail_evidence_by_definition(&gate, &bad).ln(), pass_evidence_by_definition(&gate, &bad).ln());
        prop_assert!((reading.e_fail_log - fail).abs() < 1e-9 * (1.0 + fail.abs()), "{} {}", reading.e_fail_log, fail);
        prop_assert!((reading.e_pass_log - pass).abs() < 1e-9 * (1.0 + pass.abs()), "{} {}", reading.e_pass_log, pass);
    }

    /// Why alpha holds whatever is known first: what is known at any moment is never more evidence than full knowledge of
    /// the same calls.
    #[test]
    fn early_evidence_against_a_node_never_exceeds_full_knowledge(
        limit in 0.01..0.5f64, block in 1..6u32, now_us in 0..20 * SECOND,
        calls in proptest::collection::vec((0..AGE, prop::bool::weighted(0.3)), 1..80),
    ) {
        let gate = in_blocks(ShareGate::new(limit, AGE, 1e-300, 1e-300).unwrap(), block);
        let mut samples: Vec<_> = (0..).zip(&calls).map(|(seq, (took_us, bad))| {
            sample(seq, 0, *took_us, if *bad { 1 } else { 9 })
        }).collect();
        samples[0].resolved_us = 0; // so that the sequence starts where full knowledge starts
        let known_until = samples.iter().filter(|sample| sample.resolved_us <= now_us).map(|sample| sample.seq).max();
        if let Some(last) = known_until {
            let bad: Vec<_> = samples.iter().filter(|s| s.seq <= last).map(|s| !s.outcome.is_ok()).collect();
            let full = fail_evidence_by_definition(&gate, &bad).ln();
            let early = gate.read(&samples, 0, now_us).e_fail_log;
            prop_assert!(early <= full + 1e-9, "{early} > {full}");
        }
    }

    #[test]
    fn lost_samples_never_help_a_pass(
        gate in gates(), samples in samples(), lost in proptest::collection::vec(any::<bool>(), 150), now_us in 0..40 * SECOND,
    ) {
        // Ends of the row stay, since nothing can be known of a call beyond the first and the last one seen.
        let (first, last) = (samples.iter().map(|s| s.seq).min(), samples.iter().map(|s| s.seq).max());
        let in_order: Vec<_> = samples.into_iter().map(|s| {
            Sample { intended_us: i64::try_from(s.seq).unwrap() * 200_000, resolved_us: i64::try_from(s.seq).unwrap() * 200_000, ..s }
        }).collect();
        let kept: Vec<_> = in_order.iter().filter(|s| {
            Some(s.seq) == first || Some(s.seq) == last || !lost[usize::try_from(s.seq).unwrap()]
        }).cloned().collect();
        let (with, without) = (gate.read(&in_order, 0, now_us), gate.read(&kept, 0, now_us));
        if without.verdict == Verdict::Pass {
            prop_assert!(with.verdict == Verdict::Pass || with.verdict == Verdict::Fail);
        }
    }
}

#[test]
fn no_data_is_never_a_pass() {
    for now_us in [0, i64::MAX] {
        assert_eq!(shipped().read(&[], 0, now_us).verdict, Verdict::NoData);
    }
    let clean = hanging(0, 0, 1000);
    assert_eq!(
        shipped().read(&clean, 0, -1).verdict,
        Verdict::NoData,
        "nothing has resolved yet"
    );
    assert_eq!(
        shipped().read(&clean, i64::MAX, i64::MAX).verdict,
        Verdict::NoData,
        "all of it was before the start"
    );
}

#[test]
fn sensor_that_loses_calls_cannot_pass() {
    let half: Vec<_> = hanging(0, 0, 4000)
        .into_iter()
        .filter(|sample| sample.seq.is_multiple_of(2))
        .collect();
    let reading = shipped().read(&half, 0, i64::MAX);
    assert_eq!((reading.verdict, reading.unresolved), (Verdict::Undecided, 1999));
}

#[test]
fn good_calls_younger_than_the_age_do_not_count_for_a_pass() {
    let calls = hanging(0, 0, 240);
    let enough = shipped().read(&calls, 0, i64::MAX).decided_us.unwrap();
    assert_eq!(shipped().read(&calls, 0, enough - 1).verdict, Verdict::Undecided);
    assert_eq!(shipped().read(&calls, 0, enough).verdict, Verdict::Pass);
    let last_that_counted = (enough - AGE) / 200_000;
    assert!((220..235).contains(&last_that_counted), "{last_that_counted}");
}

#[test]
fn hanging_half_of_the_calls_fails_and_does_not_pass_on_the_quick_half() {
    let mut samples = hanging(0, 400, 400);
    for sample in samples.iter_mut().filter(|sample| sample.seq.is_multiple_of(2)) {
        sample.resolved_us = sample.intended_us + 50_000;
        sample.outcome = Outcome::Ok;
    }
    assert_eq!(
        shipped().read(&samples, 0, AGE - 1).e_pass_log.to_bits(),
        0f64.to_bits(),
        "no call is of age"
    );
    let reading = shipped().read(&samples, 0, i64::MAX);
    assert_eq!(reading.verdict, Verdict::Fail);
    assert!(reading.decided_us < Some(15 * SECOND), "{:?}", reading.decided_us);
}

#[test]
fn good_answer_after_the_age_is_late() {
    let samples = [sample(0, 0, AGE, 9), sample(1, 0, AGE + 1, 9)];
    let reading = shipped().read(&samples, 0, i64::MAX);
    assert_eq!(
        reading.counts,
        Counts {
            ok: 1,
            late: 1,
            ..Counts::default()
        }
    );
}

#[test]
fn first_to_resolve_of_several_outcomes_of_one_call_counts() {
    let (early, late) = (sample(0, 0, 10, 1), sample(0, 0, 20, 9));
    for samples in [[early.clone(), late.clone()], [late.clone(), early]] {
        assert_eq!(
            shipped().read(&samples, 0, i64::MAX).counts,
            Counts {
                refused: 1,
                ..Counts::default()
            }
        );
    }
}

#[test]
fn another_numbering_is_not_millions_of_lost_calls() {
    let mut samples = hanging(0, 0, 300);
    samples.push(Sample {
        seq: u64::MAX,
        ..samples[200].clone()
    });
    let reading = shipped().read(&samples, 0, i64::MAX);
    assert_eq!((reading.verdict, reading.n, reading.strays), (Verdict::Pass, 300, 1));
}

/// With the wrong one first nothing can tell which numbering is meant. It must not count as a pass.
#[test]
fn another_numbering_that_comes_first_is_no_pass() {
    let mut samples = hanging(0, 0, 300);
    samples.push(sample(0, 0, 0, 9));
    samples[300].seq = u64::MAX;
    let reading = shipped().read(&samples, 0, i64::MAX);
    assert_eq!(
        (reading.verdict, reading.n, reading.strays),
        (Verdict::Undecided, 1, 300)
    );
}

/// Bad calls that are known at once, while good ones take almost the whole age: the first one known says nothing about
/// where the sequence begins.
#[test]
fn first_known_call_is_not_taken_for_the_first_one_sent() {
    // Calls 100 to 139, of which 110 and 111 are refused.
    let samples: Vec<_> = (100..140)
        .map(|seq| {
            if seq == 110 || seq == 111 {
                sample(seq, 0, 0, 1)
            } else {
                sample(seq, 0, AGE - 1, 9)
            }
        })
        .collect();
    let gate = in_blocks(ShareGate::new(0.02, AGE, 0.02, 0.05).unwrap(), 1);
    let refused_us = samples[11].resolved_us;
    let alone = gate.read(&samples[10..12], 0, refused_us);
    assert!(
        alone.e_fail_log > libm::log(1.0 / 0.02),
        "it would fail if the sequence began there"
    );
    assert_eq!(alone.verdict, Verdict::Undecided);
    assert_eq!(gate.read(&samples, 0, i64::MAX).verdict, Verdict::Undecided);

    // Nothing else ever comes: once what was sent before must have resolved, they are the first ones.
    let certain_us = samples[10].intended_us + AGE;
    assert_eq!(
        gate.read(&samples[10..12], 0, certain_us - 1).verdict,
        Verdict::Undecided
    );
    let later = gate.read(&samples[10..12], 0, certain_us);
    assert_eq!((later.verdict, later.decided_us), (Verdict::Fail, Some(certain_us)));
    assert_eq!(later.onset_us, Some(samples[10].intended_us));
    // Whoever looks later, when a good call has come since, sees that it failed then.
    assert!(samples[12].resolved_us > certain_us);
    assert_eq!(gate.read(&samples[10..13], 0, i64::MAX).decided_us, Some(certain_us));

    // Before call 0 there is nothing to wait for.
    let from_zero: Vec<_> = (0..2).map(|seq| sample(seq, 0, 0, 1)).collect();
    assert_eq!(gate.read(&from_zero, 0, SECOND).verdict, Verdict::Fail);
}

/// Where the error bounds come from: at the limit the evidence is a fair game. All outcomes of twelve calls, each with its
/// probability.
#[test]
fn expectation_of_the_evidence_at_the_limit_is_one() {
    const CALLS: u32 = 12;
    for (limit, block) in [(0.02, 1), (0.3, 1), (0.3, 4)] {
        let gate = in_blocks(ShareGate::new(limit, AGE, 1e-300, 1e-300).unwrap(), block);
        let (mut fail, mut pass) = (0.0, 0.0);
        for outcomes in 0..1u32 << CALLS {
            let bad = outcomes.count_ones();
            let probability = libm::pow(limit, f64::from(bad)) * libm::pow(1.0 - limit, f64::from(CALLS - bad));
            let samples: Vec<_> = (0..CALLS)
                .map(|call| {
                    sample(
                        u64::from(call),
                        0,
                        SECOND,
                        if outcomes >> call & 1 == 1 { 1 } else { 9 },
                    )
                })
                .collect();
            let reading = gate.read(&samples, 0, i64::MAX);
            fail += probability * libm::exp(reading.e_fail_log);
            pass += probability * libm::exp(reading.e_pass_log);
        }
        assert!(
            (fail - 1.0).abs() < 1e-9,
            "against the node at {limit} in blocks of {block}: {fail}"
        );
        assert!(
            (pass - 1.0).abs() < 1e-9,
            "for the node at {limit} in blocks of {block}: {pass}"
        );
    }
}

#[test]
fn onset_is_the_first_bad_call_of_the_spell() {
    for block in [1, 5] {
        // One bad call long before, which has nothing to do with it.
        let mut samples = hanging(800, 900, 900);
        samples[300].outcome = Outcome::Late;
        let reading = in_blocks(shipped(), block).read(&samples, 0, i64::MAX);
        assert_eq!(
            (reading.verdict, reading.onset_us),
            (Verdict::Fail, Some(160 * SECOND)),
            "block of {block}"
        );
    }
}

#[test]
fn spell_in_the_middle_of_good_calls_is_not_forgotten() {
    let reading = shipped().read(&hanging(500, 575, 3000), 0, i64::MAX);
    assert_eq!((reading.verdict, reading.onset_us), (Verdict::Fail, Some(100 * SECOND)));
    assert_eq!(reading.expected_calls_to_pass, None);
    // A hiccup of 4 s in ten minutes is no proof of a share above 2 %.
    assert_eq!(
        shipped().read(&hanging(500, 520, 3000), 0, i64::MAX).verdict,
        Verdict::Pass
    );
}

#[test]
fn bad_call_after_a_pass_still_fails() {
    let samples = hanging(1000, 1100, 1100);
    let passed = shipped().read(&samples, 0, 100 * SECOND);
    assert_eq!(
        (passed.verdict, passed.expected_calls_to_pass),
        (Verdict::Pass, Some(0))
    );
    assert_eq!(shipped().read(&samples, 0, i64::MAX).verdict, Verdict::Fail);
}

#[test]
fn expected_calls_to_pass_is_what_it_then_takes() {
    for (gate, seen) in [(shipped(), 100), (in_blocks(shipped(), 7), 1000)] {
        let mut samples = hanging(30, 31, seen);
        let left = gate.read(&samples, 0, i64::MAX).expected_calls_to_pass.unwrap();
        samples = hanging(30, 31, seen + left);
        assert_eq!(
            gate.read(&samples[..samples.len() - 1], 0, i64::MAX).verdict,
            Verdict::Undecided
        );
        assert_eq!(gate.read(&samples, 0, i64::MAX).verdict, Verdict::Pass);
    }
}

#[test]
fn fail_bets_on_the_calls_of_three_seconds() {
    for (rate_per_s, calls) in [
        (5.0, 15),
        (0.1, 1),
        (100.0, 300),
        (f64::NAN, 1),
        (-1.0, 1),
        (1e300, u32::MAX),
    ] {
        assert_eq!(fail_block(rate_per_s).get(), calls, "{rate_per_s}");
    }
    assert_eq!(shipped().fail_block(), fail_block(5.0));
}

#[test]
fn alpha_is_split_in_equal_parts() {
    let part = split_alpha(0.01, NonZeroU32::new(4).unwrap());
    assert_eq!(part.to_bits(), 0.0025f64.to_bits());
}

#[test]
fn impossible_parameters_are_refused_with_the_reason() {
    let message = |limit, age_us, alpha, beta| ShareGate::new(limit, age_us, alpha, beta).unwrap_err().to_string();
    assert!(message(2.0, AGE, 0.01, 0.05).starts_with("limit is 2, but"));
    assert!(message(f64::NAN, AGE, 0.01, 0.05).starts_with("limit is NaN"));
    assert!(message(0.02, 0, 0.01, 0.05).starts_with("the age is 0"));
    assert!(message(0.02, AGE, 0.0, 0.05).starts_with("alpha is 0"));
    assert!(message(0.02, AGE, 0.01, 1.0).starts_with("beta is 1"));
}

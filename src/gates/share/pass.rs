//! Evidence against "share ≥ limit": a mixture of bets on fewer bad calls.

use std::collections::BTreeMap;

use super::ShareGate;
use crate::gates::arrivals::Call;

/// Bets in the mixture; 32 midpoints are within 0.1 % of the integral for every count that matters.
const BETS: usize = 32;

/// Beyond this many calls a pass is out of reach, and nobody waits for it.
const MOST_CALLS: u64 = 1 << 40;

/// The mixture of Π (1 + λ (limit − x)) over λ uniform on (0, 1), taken at the midpoints `λ_k = (k + ½) / 32`: in terms of
/// shares, alternatives uniform between limit² and the limit. It is a fair or losing bet while E[x | past] ≥ limit.
///
/// Folded in send order, and only calls whose intended time lies at least one age back. Good calls resolve first; folding
/// outcomes as they come would see the good ones of a hanging system only. A call of which nothing is known at that age
/// counts as bad, so that a sensor that loses samples cannot pass (I7).
#[derive(Debug, Clone)]
pub(super) struct PassProcess {
    limit: f64,
    /// Calls a bet.
    block: u64,
    /// 1/beta.
    threshold: f64,
    products: [f64; BETS],
    /// `seq` of the next call to fold; none before the first.
    next: Option<u64>,
    /// Calls folded into the block that is being filled, and how many of them were bad.
    in_block: u64,
    bad_in_block: u64,
    /// The moment up to which everything folded was ripe.
    ripened_us: i64,
    passed_us: Option<i64>,
}

impl PassProcess {
    pub(super) fn new(gate: &ShareGate) -> PassProcess {
        PassProcess {
            limit: gate.limit,
            block: u64::from(gate.pass_block.get()),
            threshold: 1.0 / gate.beta,
            products: [1.0; BETS],
            next: None,
            in_block: 0,
            bad_in_block: 0,
            ripened_us: i64::MIN,
            passed_us: None,
        }
    }

    /// True when `seq` belongs before what is already folded.
    pub(super) fn has_passed_over(&self, seq: u64) -> bool {
        self.next.is_some_and(|next| seq < next)
    }

    /// Folds the counted calls from `first` on up to the first one intended after `ripe_us`, and stops for good once the
    /// evidence suffices.
    pub(super) fn run(&mut self, calls: &BTreeMap<u64, Call>, first: u64, ripe_us: i64, age_us: i64) {
        let mut next = self.next.unwrap_or(first);
        for (&seq, call) in calls.range(next..).filter(|(_, call)| call.counted) {
            if self.passed_us.is_some() || call.intended_us > ripe_us {
                break;
            }
            for _missing in next..seq {
                self.fold(true);
            }
            self.fold(call.ending.is_bad());
            next = seq.saturating_add(1);
            self.next = Some(next);
            self.ripened_us = self.ripened_us.max(call.intended_us.saturating_add(age_us));
            if self.evidence() >= self.threshold {
                self.passed_us = Some(self.ripened_us);
            }
        }
    }

    pub(super) fn passed_us(&self) -> Option<i64> {
        self.passed_us
    }

    pub(super) fn evidence(&self) -> f64 {
        mixture(&self.products)
    }

    /// How many further calls bring a pass if all are clean.
    pub(super) fn clean_calls_left(&self) -> Option<u64> {
        if self.passed_us.is_some() {
            return Some(0);
        }
        let mut products = self.products;
        let mut calls = 0;
        if self.in_block > 0 {
            self.bet(&mut products, self.bad_in_block);
            calls = self.block - self.in_block;
            if mixture(&products) >= self.threshold {
                return Some(calls);
            }
        }
        let enough = |blocks: u64| {
            let mut grown = products;
            for (k, product) in grown.iter_mut().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "at most 2^40")]
                let growth = libm::pow(1.0 + fraction(k) * self.limit, blocks as f64);
                // An empty product stays empty; 0 · ∞ would not be a number.
                *product = if *product > 0.0 { *product * growth } else { 0.0 };
            }
            mixture(&grown) >= self.threshold
        };
        let mut many = 1;
        while !enough(many) {
            many *= 2;
            if many * self.block > MOST_CALLS {
                return None;
            }
        }
        let mut few = many / 2;
        while many - few > 1 {
            let half = few.midpoint(many);
            if enough(half) { many = half } else { few = half }
        }
        calls += many * self.block;
        Some(calls)
    }

    fn fold(&mut self, is_bad: bool) {
        self.in_block += 1;
        self.bad_in_block += u64::from(is_bad);
        if self.in_block == self.block {
            let mut products = self.products;
            self.bet(&mut products, self.bad_in_block);
            self.products = products;
            self.in_block = 0;
            self.bad_in_block = 0;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a block is a u32")]
    fn bet(&self, products: &mut [f64; BETS], bad: u64) {
        let mean = bad as f64 / self.block as f64;
        for (k, product) in products.iter_mut().enumerate() {
            *product *= 1.0 + fraction(k) * (self.limit - mean);
            // Subnormal numbers are slow, and what is lost here only keeps a pass away.
            if *product < 1e-300 {
                *product = 0.0;
            }
        }
    }
}

/// `λ_k`.
#[expect(clippy::cast_precision_loss, reason = "32 is exact")]
fn fraction(k: usize) -> f64 {
    (k as f64 + 0.5) / BETS as f64
}

#[expect(clippy::cast_precision_loss, reason = "32 is exact")]
fn mixture(products: &[f64; BETS]) -> f64 {
    products.iter().sum::<f64>() / BETS as f64
}

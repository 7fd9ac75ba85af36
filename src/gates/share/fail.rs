//! Evidence against "share ≤ limit": a weighted sum of processes, of which every bet opens one more.

use super::ShareGate;

/// Alternatives that are bet on.
const ALTERNATIVES: usize = 16;

/// Their odds, as multiples of the limit's odds, log-spaced between these two. The lower end sees a share a quarter over the
/// limit, the upper end wins nearly 1/limit on each call of a system that stands still.
const ODDS_RATIO: (f64, f64) = (1.25, 1000.0);

/// Bets between two kept states: what an outcome that comes late makes us fold again, at most, beyond the calls in flight.
const MARK_EVERY: usize = 256;

/// The mixture for the alternatives `q_k` > limit, all with the same weight. A bet on one block with mean x multiplies by
/// `1 + λ_k (x − limit)`, `λ_k = (q_k − limit) / (limit (1 − limit))`: for single calls that is the likelihood ratio of
/// `q_k` to the limit. It is a fair or losing bet while E[x | past] ≤ limit.
///
/// Restarts: with `r_j = 1 / (1 + ln(1 + j))`, the j-th bet opens with weight `w_j = r_j − r_{j+1}` a process of its own, so
/// that `Σ w_j = 1`, and `S_j = (S_{j−1} + w_j) (1 + λ (x_j − limit))` carries all of them in one number (the recursion of
/// Shiryaev and Roberts, with weights that sum to 1 so that Ville's inequality bounds the error of the whole run). The
/// weights fall as `1 / (j ln² j)`: a spell that begins after 1000 bets starts from 1.6·10⁻⁵ instead of 0.41, which 3 more
/// bad blocks make up for at a limit of 2 %, each of them winning up to 48.
///
/// Calls are taken in send order, and a call of which nothing is known yet counts as good. Each process is then at most
/// what it would be if all outcomes up to the latest known call were known, so alpha holds for any delays of the outcomes,
/// though a bad call counts the moment it is known.
#[derive(Debug, Clone)]
pub(super) struct FailProcess {
    limit: f64,
    /// Calls a bet.
    block: u64,
    /// 1/alpha.
    threshold: f64,
    bets: [f64; ALTERNATIVES],
    /// Bad calls of each block up to the one that holds the latest known call.
    bad: Vec<u32>,
    /// S before the last block of `bad`.
    before: [f64; ALTERNATIVES],
    /// S before block 256 i.
    marks: Vec<[f64; ALTERNATIVES]>,
}

impl FailProcess {
    pub(super) fn new(gate: &ShareGate) -> FailProcess {
        let limit = gate.limit;
        let odds = limit / (1.0 - limit);
        let (from, to) = (libm::log(ODDS_RATIO.0), libm::log(ODDS_RATIO.1));
        let mut bets = [0.0; ALTERNATIVES];
        let mut step = 0.0;
        for bet in &mut bets {
            #[expect(clippy::cast_precision_loss, reason = "15 is exact")]
            let ratio = libm::exp(from + (to - from) * step / (ALTERNATIVES - 1) as f64);
            let alternative = odds * ratio / (1.0 + odds * ratio);
            *bet = (alternative - limit) / (limit * (1.0 - limit));
            step += 1.0;
        }
        FailProcess {
            limit,
            block: u64::from(gate.fail_block.get()),
            threshold: 1.0 / gate.alpha,
            bets,
            bad: Vec::new(),
            before: [0.0; ALTERNATIVES],
            marks: Vec::new(),
        }
    }

    /// Counts the call at `offset` from the first one. All calls before it that are not known yet count as good.
    pub(super) fn count(&mut self, offset: u64, is_bad: bool) {
        let block = self.block_of(offset);
        while self.bad.len() <= block {
            self.open_block();
        }
        if is_bad {
            self.bad[block] += 1;
            if block + 1 < self.bad.len() {
                self.fold_again_from(block);
            }
        }
    }

    /// Starts over with the calls at 0..=`last` of which those at `bad` are bad.
    pub(super) fn recount(&mut self, last: u64, bad: impl Iterator<Item = u64>) {
        let blocks = self.block_of(last) + 1;
        self.bad = vec![0; blocks];
        for offset in bad {
            let block = self.block_of(offset);
            self.bad[block] += 1;
        }
        self.marks = vec![[0.0; ALTERNATIVES]; blocks.div_ceil(MARK_EVERY)];
        self.fold_again_from(0);
    }

    /// The evidence: the current block as if the rest of it were good, restarts to come at their starting value of 1.
    pub(super) fn evidence(&self) -> f64 {
        let Some(last) = self.bad.len().checked_sub(1) else {
            return 1.0;
        };
        self.folded(self.before, last).iter().sum::<f64>() / ALTERNATIVES_F64 + rest(last + 1)
    }

    /// True when the evidence is at least 1/alpha.
    pub(super) fn rejects(&self) -> bool {
        self.evidence() >= self.threshold
    }

    /// Offset of the first call of the block whose restart carries most of the evidence, under the alternative that has
    /// most of it.
    pub(super) fn onset(&self) -> u64 {
        let Some(last) = self.bad.len().checked_sub(1) else {
            return 0;
        };
        let now = self.folded(self.before, last);
        let (strongest, _) = now
            .iter()
            .enumerate()
            .fold((0, 0.0), |best, (k, &s)| if s > best.1 { (k, s) } else { best });
        let mut since = 1.0;
        let mut best = (last, 0.0);
        for block in (0..=last).rev() {
            since *= self.factor(strongest, block);
            let carried = weight(block) * since;
            if carried > best.1 {
                best = (block, carried);
            }
        }
        best.0 as u64 * self.block
    }

    fn block_of(&self, offset: u64) -> usize {
        usize::try_from(offset / self.block).unwrap_or(usize::MAX)
    }

    fn open_block(&mut self) {
        if let Some(last) = self.bad.len().checked_sub(1) {
            self.before = self.folded(self.before, last);
        }
        if self.bad.len().is_multiple_of(MARK_EVERY) {
            self.marks.push(self.before);
        }
        self.bad.push(0);
    }

    fn fold_again_from(&mut self, block: usize) {
        let mark = block / MARK_EVERY;
        let mut state = self.marks[mark];
        for block in mark * MARK_EVERY..self.bad.len() {
            if block.is_multiple_of(MARK_EVERY) {
                self.marks[block / MARK_EVERY] = state;
            }
            self.before = state;
            state = self.folded(state, block);
        }
    }

    fn folded(&self, mut state: [f64; ALTERNATIVES], block: usize) -> [f64; ALTERNATIVES] {
        let opening = weight(block);
        for (k, s) in state.iter_mut().enumerate() {
            *s = (*s + opening) * self.factor(k, block);
        }
        state
    }

    #[expect(clippy::cast_precision_loss, reason = "a block is a u32")]
    fn factor(&self, k: usize, block: usize) -> f64 {
        let mean = f64::from(self.bad[block]) / self.block as f64;
        1.0 + self.bets[k] * (mean - self.limit)
    }
}

#[expect(clippy::cast_precision_loss, reason = "16 is exact")]
const ALTERNATIVES_F64: f64 = ALTERNATIVES as f64;

/// `r_j`: the weight of the restarts from block j on.
#[expect(
    clippy::cast_precision_loss,
    reason = "the logarithm of a count needs no more than 53 bits of it"
)]
fn rest(block: usize) -> f64 {
    1.0 / (1.0 + libm::log(1.0 + block as f64))
}

fn weight(block: usize) -> f64 {
    rest(block) - rest(block + 1)
}

//! Calls in the order in which they become known, whatever the order in which they are handed over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::Ending;

/// One call as a test keeps it: 32 bytes, whatever the sample said in words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub intended_us: i64,
    pub resolved_us: i64,
    pub ending: Ending,
    /// Resolved by now, and part of the sequence.
    pub counted: bool,
}

impl Call {
    /// Of several calls with one `seq` the lowest counts: the first to resolve.
    fn rank(&self) -> (i64, Ending, i64) {
        (self.resolved_us, self.ending, self.intended_us)
    }
}

/// What a new moment means for what was folded before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folded {
    /// It stands; more may follow.
    Stands,
    /// A sample came that belongs into the middle of it: fold everything again.
    Anew,
}

/// The calls of one test. Push them in any order, move on with [`Arrivals::advance`], then take those that resolved by
/// then with [`Arrivals::next`], in order of resolution.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals {
    pub calls: BTreeMap<u64, Call>,
    /// Resolution time and `seq` of the calls that were not handed out yet.
    waiting: BinaryHeap<Reverse<(i64, u64)>>,
    now_us: Option<i64>,
    stale: bool,
}

impl Arrivals {
    pub(super) fn push(&mut self, seq: u64, call: Call) {
        match self.calls.get(&seq) {
            Some(known) if known.rank() <= call.rank() => return,
            Some(_) => self.stale = true,
            None => self.waiting.push(Reverse((call.resolved_us, seq))),
        }
        self.calls.insert(seq, call);
        self.stale |= self.now_us.is_some_and(|now_us| call.resolved_us <= now_us);
    }

    /// Moves on to this moment; an earlier one than before is the latest one.
    pub(super) fn advance(&mut self, now_us: i64) -> (i64, Folded) {
        let now_us = self.now_us.map_or(now_us, |before| before.max(now_us));
        self.now_us = Some(now_us);
        if !self.stale {
            return (now_us, Folded::Stands);
        }
        self.stale = false;
        for call in self.calls.values_mut() {
            call.counted = false;
        }
        let resolutions = self.calls.iter().map(|(&seq, call)| Reverse((call.resolved_us, seq)));
        self.waiting = resolutions.collect();
        (now_us, Folded::Anew)
    }

    /// `seq` of the next call that has resolved by now.
    pub(super) fn next(&mut self) -> Option<u64> {
        let &Reverse((resolved_us, seq)) = self.waiting.peek()?;
        if self.now_us.is_none_or(|now_us| resolved_us > now_us) {
            return None;
        }
        self.waiting.pop();
        Some(seq)
    }
}

//! Where samples come from: our own requests, probes, log files, queries, and who blocks whom in the database.
//!
//! Every source writes into one [`Feed`] and never waits for its reader: a slow reader must not slow the schedule of
//! calls down, or the measurement would hide what it looks for. What does not fit is dropped, counted and told.
//!
//! A source tells apart what the *node* did ([`Observed::Sample`]) from what *we* could not see
//! ([`Observed::Trouble`]): a call that we could not prepare or check is no sample at all, so that a gate without
//! eyes says that it has no data, never that all is well, nor that the node is to blame.

pub mod http;
pub mod log;
pub mod postgres;
pub mod sql;
pub mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::model::sample::{Outcome, Sample};

/// What fits between a source and its reader: 12 nodes at 5 calls/s write 60 a second, so this is over four minutes
/// of a reader that looks away, in at most a few MB.
pub const FEED_CAPACITY: usize = 16_384;

/// What a source has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// How a call came out: what gates count.
    Sample(Sample),
    /// What became of a call after it had been counted as late: for messages, never counted again.
    Afterwards(Afterwards),
    /// We could not see.
    Trouble(SensorTrouble),
}

/// The end of a call that had already been counted as [`Outcome::Late`].
#[derive(Debug, Clone, PartialEq)]
pub struct Afterwards {
    /// The signal, as in its sample.
    pub signal: String,
    /// The node, as in its sample.
    pub node: String,
    /// The sample's `seq`.
    pub seq: u64,
    /// From the intended send to the end, milliseconds.
    pub after_ms: f64,
    /// How it ended: a slow answer, or none at all.
    pub end: LateEnd,
}

/// How a late call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LateEnd {
    /// It was answered after all; this is what the answer would have counted as.
    Answered(Outcome),
    /// We gave it up at its timeout without an answer: it was still queued, or blocked.
    GivenUp,
}

/// A call, probe or look that told nothing about the node because something of ours did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorTrouble {
    /// The signal that could not see.
    pub signal: String,
    /// The node that it was about.
    pub node: String,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// What was tried and what happened.
    pub why: String,
}

/// The writing end of what sources observe. Cheap to clone, never waits.
#[derive(Debug, Clone)]
pub struct Feed {
    to: mpsc::Sender<Observed>,
    dropped: Arc<AtomicU64>,
}

/// The reading end of what sources observe.
#[derive(Debug)]
pub struct Observations {
    from: mpsc::Receiver<Observed>,
    dropped: Arc<AtomicU64>,
}

/// Makes a feed that holds up to `capacity` observations ([`FEED_CAPACITY`] unless a test says otherwise).
#[must_use]
pub fn feed(capacity: usize) -> (Feed, Observations) {
    let (to, from) = mpsc::channel(capacity);
    let dropped = Arc::new(AtomicU64::new(0));
    (
        Feed {
            to,
            dropped: Arc::clone(&dropped),
        },
        Observations { from, dropped },
    )
}

impl Feed {
    /// Hands an observation over, or drops it when the reader is too far behind.
    pub fn put(&self, observed: Observed) {
        if self.to.try_send(observed).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn trouble(&self, signal: &str, node: &str, at_us: i64, why: String) {
        tracing::debug!(signal, node, why, "sensor trouble");
        self.put(Observed::Trouble(SensorTrouble {
            signal: signal.to_owned(),
            node: node.to_owned(),
            at_us,
            why,
        }));
    }
}

impl Observations {
    /// Waits for the next observation; `None` when every source has ended.
    pub async fn next(&mut self) -> Option<Observed> {
        self.from.recv().await
    }

    /// Takes everything that is there now.
    pub fn take(&mut self) -> Vec<Observed> {
        std::iter::from_fn(|| self.from.try_recv().ok()).collect()
    }

    /// How many observations were dropped since the last call because nobody read. More than none is trouble: the
    /// caller must not pass a gate over a stretch with holes that it made itself.
    pub fn take_dropped(&mut self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

/// Calendar time that runs with the monotonic clock: read once, then advanced, so that a step of the system clock
/// never shows up as the latency of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calendar {
    epoch_us: i64,
    read_at: Instant,
}

impl Calendar {
    pub(crate) fn read() -> Self {
        Self {
            epoch_us: jiff::Timestamp::now().as_microsecond(),
            read_at: Instant::now(),
        }
    }

    /// Microseconds since the Unix epoch at a moment, before or after the reading.
    pub(crate) fn at(&self, moment: Instant) -> i64 {
        let distance = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match moment.checked_duration_since(self.read_at) {
            Some(after) => self.epoch_us.saturating_add(distance(after)),
            None => self
                .epoch_us
                .saturating_sub(distance(self.read_at.duration_since(moment))),
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.at(Instant::now())
    }
}

/// A text from outside, made fit for a message, a log and a terminal: control characters become spaces, runs of white
/// space one space, and at most `limit` characters stay, with a mark where more were.
#[must_use]
pub fn excerpt(text: &str, limit: usize) -> String {
    let mut clean = String::new();
    let mut kept = 0;
    for word in text.split(|c: char| c.is_control() || c.is_whitespace() || is_format_mark(c)) {
        if word.is_empty() {
            continue;
        }
        let gap = usize::from(!clean.is_empty());
        let room = limit.saturating_sub(kept + gap);
        let length = word.chars().count();
        if room < length {
            if room > 0 && gap == 1 {
                clean.push(' ');
            }
            clean.extend(word.chars().take(room));
            clean.push('…');
            return clean;
        }
        if gap == 1 {
            clean.push(' ');
        }
        clean.push_str(word);
        kept += gap + length;
    }
    clean
}

/// Marks that reorder or hide text on a terminal without being control characters.
fn is_format_mark(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_bounded_and_has_no_control_characters() {
        let rows = [
            ("", 5, ""),
            ("plain", 5, "plain"),
            ("plain text", 5, "plain…"),
            ("plain text", 7, "plain t…"),
            ("a\u{1b}[31m\r\nb\t c", 20, "a [31m b c"),
            ("a\u{202e}b", 20, "a b"),
            ("ééé", 2, "éé…"),
        ];
        for (text, limit, expected) in rows {
            assert_eq!(excerpt(text, limit), expected, "{text:?} to {limit}");
        }
    }

    #[tokio::test]
    async fn a_feed_that_nobody_reads_drops_counts_and_never_waits() {
        let (feed, mut observations) = feed(2);
        for at_us in 0..5 {
            feed.trouble("s", "n", at_us, "why".to_owned());
        }
        assert_eq!(observations.take().len(), 2);
        assert_eq!((observations.take_dropped(), observations.take_dropped()), (3, 0));
        drop(feed);
        assert_eq!(observations.next().await, None);
    }
}

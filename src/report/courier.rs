//! Carries reports from the outbox to their sinks. Each sink has its own pace: one that is dead keeps its reports
//! waiting and nobody else's. Two couriers on one home (a command and `serve`) share the work: each report is claimed
//! before it is delivered, and only the oldest of a thread can be claimed.

use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{Complaints, Report, Sink, SinkError, Word};
use crate::model::values::Digest;
use crate::store::{OutboxEntry, Settlement, Store, StoreError, random_id};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// No delivery takes longer; a webhook gives up earlier by itself ([`super::SERVER_TIMEOUT`]), a file on a hung disk
/// does not.
const DELIVERY_LIMIT: Duration = Duration::from_secs(20);
/// A courier that died leaves its claim; others wait this long. Longer than a delivery may take, so that a living
/// courier never loses one.
const CLAIM: Duration = Duration::from_secs(30);
/// How often a courier looks for new reports, and for what another one has settled: a person does not notice 1 s, and
/// a look costs microseconds.
const POLL: Duration = Duration::from_secs(1);
/// The first wait after a failure: most are a restart or a lost packet.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest: after a night's outage the chat gets its reports within five minutes.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// Why a delivery was not waited for.
const CUT_OFF: &str = "cut off: its command ended";
/// Of an error's words, this many characters are kept.
const LONGEST_ERROR: usize = 300;

/// How long to wait after the `failures`th failure in a row: doubling from 1 s to 5 min, then between half of that and
/// all of it, so that the reports of many homes do not come back at one moment. Which part is drawn from the report's
/// key: the same for the same failure, spread over keys and failures.
#[must_use]
pub fn backoff(failures: u32, key: &str) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let full = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    spread(full, &format!("{failures} {key}"))
}

/// Between half of a time and all of it, drawn from a key: what is due for many at once comes one after the other.
#[must_use]
pub fn spread(full: Duration, key: &str) -> Duration {
    let drawn = Digest::of(key.as_bytes());
    let part = u32::from_str_radix(&drawn.hex()[..4], 16).unwrap_or(0);
    full / 2 + full / 2 * part / 0xffff
}

/// What a courier did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Reports delivered.
    pub delivered: u32,
    /// Attempts that failed and are made again.
    pub deferred: u32,
    /// Reports that their sink refused for good.
    pub dead: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.deferred += other.deferred;
        self.dead += other.dead;
    }
}

/// When a courier stops.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// When nothing is due.
    Due,
    /// When nothing waits, or at this time.
    Empty(Timestamp),
    /// As [`Courier::finish`] says; before, never.
    Finish,
}

/// Drains the outbox of one home through these sinks.
pub struct Courier {
    store: Arc<dyn Store>,
    sinks: Vec<Box<dyn Sink>>,
    clock: Clock,
    claimant: String,
    /// That a sink's reports cannot be read, so that it is said once.
    complaints: Mutex<Complaints>,
    /// When [`Courier::run`] has to be over; unset, it goes on.
    end: watch::Sender<Option<Timestamp>>,
}

impl Courier {
    /// A courier. Reports for sinks that are not among these stay in the outbox, for a courier that has them.
    pub fn new(store: Arc<dyn Store>, sinks: Vec<Box<dyn Sink>>, clock: Clock) -> Self {
        Self {
            store,
            sinks,
            clock,
            claimant: random_id(),
            complaints: Mutex::default(),
            end: watch::Sender::new(None),
        }
    }

    /// Attempts what is due now, once, and what follows it in its thread.
    pub async fn pass(&self) -> Result<Tally, StoreError> {
        self.work(Patience::Due).await
    }

    /// Delivers until nothing waits, at most until this time; a delivery that still runs then is cut off, and made
    /// again by the next courier. What is left is in [`Store::pending`].
    pub async fn drain(&self, until: Timestamp) -> Result<Tally, StoreError> {
        self.work(Patience::Empty(until)).await
    }

    /// Delivers until [`finish`](Self::finish) is called and what waited then is delivered, also where there is no sink.
    /// Trouble with the store is logged, once until it changes, and tried again. Where the future is dropped instead, a report in hand may reach its
    /// sink and be delivered again by the next courier.
    pub async fn run(&self) {
        join_all(self.sinks.iter().map(|sink| async {
            while let Err(e) = self.work_for(sink.as_ref(), Patience::Finish).await {
                self.say(sink.as_ref(), Some(e.to_string()));
                if self.end().is_some() {
                    return;
                }
                self.pause(POLL).await;
            }
        }))
        .await;
        self.asked_to_finish().await;
    }

    /// Says whether the store was in the way of a sink's reports, where that is news.
    fn say(&self, sink: &dyn Sink, trouble: Option<String>) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        match complaints.met(sink.name(), trouble) {
            Word::Trouble(why) => tracing::warn!(sink = sink.name(), why, "reports wait"),
            Word::Over => tracing::info!(sink = sink.name(), "reports wait no more"),
            Word::Nothing => {}
        }
    }

    /// Lets [`run`](Self::run) end once nothing waits, within this time. What it has in hand is delivered and settled first, and
    /// so told once.
    pub fn finish(&self, within: Duration) {
        self.end.send_replace(Some(later((self.clock)(), within)));
    }

    fn end(&self) -> Option<Timestamp> {
        *self.end.borrow()
    }

    async fn asked_to_finish(&self) {
        // Fails only where the sender is gone, and that is ours.
        let _ = self.end.subscribe().wait_for(Option::is_some).await;
    }

    /// Until the end that was set, if one is.
    async fn over(&self) {
        self.asked_to_finish().await;
        if let Some(end) = self.end() {
            tokio::time::sleep(from_to((self.clock)(), end)).await;
        }
    }

    /// Sleeps; wakes when the end is set.
    async fn pause(&self, wait: Duration) {
        let mut end = self.end.subscribe();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = end.changed() => {}
        }
    }

    async fn work(&self, patience: Patience) -> Result<Tally, StoreError> {
        let sinks = self.sinks.iter();
        let tallies = try_join_all(sinks.map(|sink| self.work_for(sink.as_ref(), patience))).await?;
        Ok(tallies.into_iter().fold(Tally::default(), |mut sum, tally| {
            sum += tally;
            sum
        }))
    }

    async fn work_for(&self, sink: &dyn Sink, patience: Patience) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        loop {
            let now = (self.clock)();
            let end = match patience {
                Patience::Due => None,
                Patience::Empty(end) => Some(end),
                Patience::Finish => self.end(),
            };
            if end.is_some_and(|end| now >= end) {
                return Ok(tally);
            }
            let claim_until = later(now, CLAIM);
            let claimed = self.store.claim(sink.name(), &self.claimant, now, claim_until)?;
            self.say(sink, None);
            match claimed {
                Some(entry) => tally += self.carry(sink, &entry, patience, now).await?,
                None => match self.rest(sink, patience, now)? {
                    Some(wait) => self.pause(wait).await,
                    None => return Ok(tally),
                },
            }
        }
    }

    /// How long to wait before the next look; `None` when there is nothing to wait for.
    fn rest(&self, sink: &dyn Sink, patience: Patience, now: Timestamp) -> Result<Option<Duration>, StoreError> {
        let end = match patience {
            Patience::Due => return Ok(None),
            Patience::Empty(end) => Some(end),
            Patience::Finish => self.end(),
        };
        match end {
            None => Ok(Some(POLL)),
            Some(end) => {
                let due = self.store.next_due(sink.name())?;
                // What is due after the end may still be settled by another courier, but is not worth waiting for.
                Ok(due.filter(|due| *due < end).map(|due| from_to(now, due).min(POLL)))
            }
        }
    }

    async fn carry(
        &self,
        sink: &dyn Sink,
        entry: &OutboxEntry,
        patience: Patience,
        now: Timestamp,
    ) -> Result<Tally, StoreError> {
        let limit = match patience {
            Patience::Empty(end) => DELIVERY_LIMIT.min(from_to(now, end)),
            Patience::Due | Patience::Finish => DELIVERY_LIMIT,
        };
        let mut claim = Claim {
            courier: self,
            entry,
            settled: false,
        };
        let outcome = tokio::select! {
            biased;
            outcome = attempt(sink, entry, now, limit) => outcome,
            () = self.over(), if matches!(patience, Patience::Finish) => Err(SinkError::later(CUT_OFF)),
        };
        let now = (self.clock)();
        let (how, tally) = settlement(entry, outcome, now);
        claim.settle(&how, now)?;
        Ok(tally)
    }
}

/// A report in hand. When its courier is dropped in the middle of the delivery, the next one need not wait until the
/// claim has run out.
struct Claim<'a> {
    courier: &'a Courier,
    entry: &'a OutboxEntry,
    settled: bool,
}

impl Claim<'_> {
    fn settle(&mut self, how: &Settlement, now: Timestamp) -> Result<(), StoreError> {
        self.settled = true;
        let Courier { store, claimant, .. } = self.courier;
        store.settle(self.entry.id, claimant, how, now)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let now = (self.courier.clock)();
        let why = CUT_OFF.to_owned();
        if let Err(e) = self.settle(&Settlement::Retry { at: now, why }, now) {
            tracing::warn!("a report waits until its claim runs out: {e}");
        }
    }
}

/// What an attempt that did not fail has come to.
enum Attempted {
    Told,
    PassedOver,
}

async fn attempt(
    sink: &dyn Sink,
    entry: &OutboxEntry,
    now: Timestamp,
    limit: Duration,
) -> Result<Attempted, SinkError> {
    let report: Report = serde_json::from_value(entry.dispatch.payload.clone()).map_err(|e| SinkError::Never {
        why: format!("the stored report cannot be read: {e}"),
    })?;
    let told = async {
        if sink.wants(&report) {
            let report = report.told_at(now).after_a_gap(entry.missing);
            sink.deliver(&report).await?;
            Ok(Attempted::Told)
        } else {
            sink.passes_over(&report).await?;
            Ok(Attempted::PassedOver)
        }
    };
    tokio::time::timeout(limit, told)
        .await
        .unwrap_or_else(|_| Err(SinkError::later("cut off: it took too long")))
}

/// What to note about an attempt. Pure.
fn settlement(entry: &OutboxEntry, outcome: Result<Attempted, SinkError>, now: Timestamp) -> (Settlement, Tally) {
    let mut tally = Tally::default();
    let how = match outcome {
        Ok(Attempted::Told) => {
            tally.delivered = 1;
            Settlement::Delivered
        }
        Ok(Attempted::PassedOver) => Settlement::PassedOver,
        Err(SinkError::Later { why, after }) => {
            tally.deferred = 1;
            let ours = backoff(entry.attempts + 1, &entry.dispatch.dedupe_key);
            Settlement::Retry {
                at: later(now, ours.max(after.unwrap_or_default())),
                why: shortened(&why),
            }
        }
        Err(SinkError::Never { why }) => {
            tally.dead = 1;
            Settlement::Dead { why: shortened(&why) }
        }
    };
    (how, tally)
}

fn shortened(why: &str) -> String {
    why.chars().take(LONGEST_ERROR).collect()
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// Zero when `to` has passed.
fn from_to(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_double_within_their_bounds(failures in 1..100_u32, key in "[a-z0-9]{1,20}") {
            let full = Duration::from_secs(1 << (failures - 1).min(20)).min(LONGEST_WAIT);
            let wait = backoff(failures, &key);
            prop_assert!(wait >= full / 2 && wait <= full, "{failures}: {wait:?}");
            prop_assert_eq!(wait, backoff(failures, &key));
        }
    }

    #[test]
    fn homes_that_fail_together_do_not_come_back_together() {
        let mut waits: Vec<_> = (0..100).map(|i| backoff(5, &format!("home{i}-1"))).collect();
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 90, "{} different waits", waits.len());
    }

    #[test]
    fn a_claim_outlives_the_longest_delivery() {
        assert!(super::super::SERVER_TIMEOUT < DELIVERY_LIMIT && DELIVERY_LIMIT < CLAIM);
    }
}

//! Calls at a fixed rate, whatever becomes of them: the open loop behind traffic, probes and queries.
//!
//! # Why open
//! A client that waits for each answer before it asks again sends less the slower the server is, and so leaves out the
//! very calls that would have shown it (Gil Tene's *coordinated omission*). Here call `k` belongs to the moment
//! `t0 + k / rate`, is sent then, and its latency counts from then.
//!
//! # What a call can be
//! | | |
//! |---|---|
//! | `Ok` | the right answer before the age, and the right effect |
//! | `Late` | no answer by the age: told at that moment, not when the call ends. Its end is an [`Afterwards`] |
//! | `Refused`, `Wrong`, `Lost` | as [`Outcome`] says |
//! | `Shed` | not sent, since `concurrency` calls hang already: told at its intended moment |
//! | no sample, [`SensorTrouble`] | it could not be prepared, rendered or checked, or this machine held us up |
//!
//! An outcome is told at the latest one age plus one effect check after the intended moment; its time is that of the
//! answer, so that our reading of the database never counts as the node's latency.
//!
//! [`SensorTrouble`]: super::SensorTrouble

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Afterwards, Calendar, Feed, LateEnd, Observed};
use crate::model::sample::{Outcome, Sample};

/// A lead for calls with a statement before them. The statement before a call takes milliseconds; half a second lets
/// a database that is ten times slower than usual still be no part of the call's latency.
pub const PREPARE_LEAD: Duration = Duration::from_millis(500);

/// A timer that fires this late says that the machine held us up (suspended, stopped, out of memory): what such a
/// call looks like says nothing about the node.
pub const MAX_LAG: Duration = Duration::from_secs(1);

/// Acknowledged calls kept for [`TrafficHandle::take_acknowledged`]; the oldest go first. Five hours of one node at
/// 5 calls/s, in about 6 MB.
pub const MAX_ACKNOWLEDGED: usize = 100_000;

/// Calls a second and node at most: beyond it one task a call is the wrong design.
const MAX_RATE: f64 = 1000.0;

/// The number of a call, in templates `call.id`. Positive and below 2^53, so that JSON readers keep it exactly.
pub type CallId = i64;

/// What an answer says about its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Status and body mean success.
    Right,
    /// The connection was refused, or broke before the answer was whole.
    Refused {
        /// What the connection said.
        why: String,
    },
    /// Status or body do not mean success.
    Wrong {
        /// Status and an excerpt of the body.
        why: String,
    },
}

/// What a look at the effect of a call found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// What the call was to do is done, or nothing is checked.
    Seen,
    /// It is not.
    Missing {
        /// What was looked for and what was found.
        why: String,
    },
}

/// One kind of call on one node. An `Err` is always trouble of ours, never the node's doing.
pub trait Call: Send + Sync + 'static {
    /// Makes ready what the call will work on, before its moment. Must end by itself within a bound.
    fn prepare(&self, id: CallId) -> BoxFuture<'_, Result<(), String>>;
    /// Sends it. Dropped at the plan's timeout.
    fn send(&self, id: CallId) -> BoxFuture<'_, Result<Answer, String>>;
    /// Looks whether a right answer told the truth. Must end by itself within a bound.
    fn effect(&self, id: CallId) -> BoxFuture<'_, Result<Effect, String>>;
}

/// How calls go out, a node.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficPlan {
    /// The name of the signal in samples (`traffic/update-job`).
    pub signal: String,
    /// Calls a second and node.
    pub rate_per_s: f64,
    /// Calls in flight at most, a node.
    pub concurrency: usize,
    /// An unanswered call is [`Outcome::Late`] from here.
    pub age: Duration,
    /// A call is given up here; not before the age.
    pub timeout: Duration,
    /// How long before its moment a call is prepared; 0 where there is nothing to prepare.
    pub lead: Duration,
}

/// A plan that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{signal} cannot run: {why}")]
pub struct PlanError {
    signal: String,
    why: String,
}

impl TrafficPlan {
    /// A plan of one call a period, with room for all that a timeout lets pile up, so that none is ever shed: the
    /// shape of probes and queries.
    #[must_use]
    pub fn periodic(signal: String, period: Duration, age: Duration, timeout: Duration) -> Self {
        let piled_up = timeout.as_nanos() / period.as_nanos().max(1);
        Self {
            signal,
            rate_per_s: 1.0 / period.as_secs_f64(),
            concurrency: usize::try_from(piled_up).map_or(usize::MAX, |n| n.saturating_add(2)),
            age,
            timeout,
            lead: Duration::ZERO,
        }
    }

    fn check(&self) -> Result<(), PlanError> {
        let refuse = |why: String| {
            Err(PlanError {
                signal: self.signal.clone(),
                why,
            })
        };
        if !(self.rate_per_s.is_finite() && self.rate_per_s > 0.0 && self.rate_per_s <= MAX_RATE) {
            return refuse(format!(
                "its rate of {} calls/s must lie above 0 and at most at {MAX_RATE}",
                self.rate_per_s
            ));
        }
        if self.concurrency == 0 {
            return refuse("its concurrency of 0 would send nothing".to_owned());
        }
        if self.age.is_zero() || self.timeout < self.age {
            return refuse(format!(
                "its timeout of {:?} must not lie before the age of {:?} at which a call is late, and that age not at 0",
                self.timeout, self.age
            ));
        }
        Ok(())
    }
}

/// What a node is asked, while it is asked.
#[derive(Clone)]
pub struct Target {
    /// Digest of the build that it runs.
    pub build: String,
    /// The calls.
    pub call: Arc<dyn Call>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}

/// A call with a right answer, in time or late: what it asked for must be found afterwards.
#[derive(Clone)]
pub struct Acknowledged {
    /// Its number.
    pub id: CallId,
    /// The node that answered.
    pub node: String,
    /// What was called: knows what must be found.
    pub call: Arc<dyn Call>,
}

impl std::fmt::Debug for Acknowledged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acknowledged")
            .field("id", &self.id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// How a source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every call in flight ended.
    Clean,
    /// This many calls were still in flight when patience ended, and were dropped.
    Dropped(usize),
}

/// Running traffic. Dropping it drops the calls in flight; [`TrafficHandle::stop`] lets them end.
#[derive(Debug)]
pub struct TrafficHandle {
    plan: Arc<TrafficPlan>,
    feed: Feed,
    acknowledged: Arc<Mutex<VecDeque<Acknowledged>>>,
    nodes: Mutex<BTreeMap<String, RunningNode>>,
}

#[derive(Debug)]
struct RunningNode {
    node: Arc<Node>,
    wish: watch::Sender<Wish>,
    task: JoinHandle<()>,
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Clone)]
enum Wish {
    Off,
    On { target: Target, generation: u64 },
    Stop,
}

#[derive(Debug)]
struct Node {
    plan: Arc<TrafficPlan>,
    feed: Feed,
    name: String,
    acknowledged: Arc<Mutex<VecDeque<Acknowledged>>>,
    next_seq: AtomicU64,
    preparing: AtomicUsize,
    in_flight: AtomicUsize,
    /// Rises with every change of target: a call that was prepared for an earlier one is not sent.
    generation: AtomicU64,
}

impl TrafficHandle {
    /// Makes a source that calls nobody yet. Must run within a tokio runtime.
    ///
    /// # Errors
    /// A plan that cannot be carried out.
    pub fn start(plan: TrafficPlan, feed: Feed) -> Result<Self, PlanError> {
        plan.check()?;
        Ok(Self {
            plan: Arc::new(plan),
            feed,
            acknowledged: Arc::default(),
            nodes: Mutex::default(),
        })
    }

    /// The plan that it carries out.
    pub fn plan(&self) -> &TrafficPlan {
        &self.plan
    }

    /// Calls a node from now on (the first time one lead from now), or no longer. Calls in flight go on
    /// and count for the target they were sent to; a call that was only prepared is not sent.
    pub fn set_target(&self, node: &str, target: Option<Target>) {
        let mut nodes = lock(&self.nodes);
        let running = nodes.entry(node.to_owned()).or_insert_with(|| self.run_node(node));
        let generation = running.node.generation.fetch_add(1, Ordering::SeqCst) + 1;
        running.wish.send_replace(match target {
            Some(target) => Wish::On { target, generation },
            None => Wish::Off,
        });
    }

    /// Calls that a node has not answered. After `set_target(node, None)` it only falls: 0 means drained.
    pub fn in_flight(&self, node: &str) -> usize {
        lock(&self.nodes)
            .get(node)
            .map_or(0, |running| running.node.in_flight.load(Ordering::SeqCst))
    }

    /// Takes the calls with a right answer since the last look, in the order of their answers.
    pub fn take_acknowledged(&self) -> Vec<Acknowledged> {
        lock(&self.acknowledged).drain(..).collect()
    }

    /// Sends nothing more, waits up to `patience` for the calls in flight, then drops them.
    pub async fn stop(&self, patience: Duration) -> Stopped {
        let deadline = Instant::now() + patience;
        let mut nodes = std::mem::take(&mut *lock(&self.nodes));
        for running in nodes.values() {
            running.node.generation.fetch_add(1, Ordering::SeqCst);
            running.wish.send_replace(Wish::Stop);
        }
        let mut dropped = 0;
        for running in nodes.values_mut() {
            if timeout_at(deadline, &mut running.task).await.is_err() {
                dropped += running.node.in_flight.load(Ordering::SeqCst);
            }
        }
        if dropped == 0 {
            Stopped::Clean
        } else {
            Stopped::Dropped(dropped)
        }
    }

    fn run_node(&self, name: &str) -> RunningNode {
        let node = Arc::new(Node {
            plan: Arc::clone(&self.plan),
            feed: self.feed.clone(),
            name: name.to_owned(),
            acknowledged: Arc::clone(&self.acknowledged),
            next_seq: AtomicU64::new(0),
            preparing: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
        });
        let (wish, wishes) = watch::channel(Wish::Off);
        let task = tokio::spawn(Arc::clone(&node).run(wishes));
        RunningNode { node, wish, task }
    }
}

/// Why one target's schedule ended.
enum Turn {
    /// The wish changed.
    Changed,
    /// Nobody can change it any more.
    Orphaned,
}

impl Node {
    async fn run(self: Arc<Self>, mut wishes: watch::Receiver<Wish>) {
        let mut calls = JoinSet::new();
        loop {
            let wish = wishes.borrow_and_update().clone();
            let turn = match wish {
                Wish::On { target, generation } => {
                    self.call_on_schedule(&target, generation, &mut wishes, &mut calls)
                        .await
                }
                Wish::Off => self.idle(&mut wishes, &mut calls).await,
                Wish::Stop => {
                    while let Some(ended) = calls.join_next().await {
                        self.tell_panic(ended);
                    }
                    return;
                }
            };
            match turn {
                Turn::Changed => {}
                Turn::Orphaned => return,
            }
        }
    }

    async fn idle(&self, wishes: &mut watch::Receiver<Wish>, calls: &mut JoinSet<()>) -> Turn {
        loop {
            tokio::select! {
                changed = wishes.changed() => return changed.map_or(Turn::Orphaned, |()| Turn::Changed),
                Some(ended) = calls.join_next() => self.tell_panic(ended),
            }
        }
    }

    async fn call_on_schedule(
        self: &Arc<Self>,
        target: &Target,
        generation: u64,
        wishes: &mut watch::Receiver<Wish>,
        calls: &mut JoinSet<()>,
    ) -> Turn {
        let calendar = Calendar::read();
        let begin = Instant::now();
        let mut k = 0;
        loop {
            // The moment to prepare; the call itself is sent one lead later.
            let moment = begin + offset(k, self.plan.rate_per_s);
            tokio::select! {
                biased;
                changed = wishes.changed() => return changed.map_or(Turn::Orphaned, |()| Turn::Changed),
                Some(ended) = calls.join_next() => self.tell_panic(ended),
                () = sleep_until(moment) => {
                    let lag = moment.elapsed();
                    if lag > MAX_LAG {
                        k += self.skip(k, lag, &calendar);
                        continue;
                    }
                    let one = OneCall {
                        node: Arc::clone(self),
                        target: target.clone(),
                        generation,
                        seq: self.next_seq.fetch_add(1, Ordering::Relaxed),
                        calendar,
                        slot: moment + self.plan.lead,
                    };
                    calls.spawn(one.run());
                    k += 1;
                }
            }
        }
    }

    /// Jumps over the calls that were missed: sent now, in a burst, they would blame the node for our own pause.
    fn skip(&self, k: u64, lag: Duration, calendar: &Calendar) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a product of positive numbers, saturating at 2^64"
        )]
        let missed = ((lag.as_secs_f64() * self.plan.rate_per_s) as u64).max(1);
        self.next_seq.fetch_add(missed, Ordering::Relaxed);
        self.feed.trouble(
            &self.plan.signal,
            &self.name,
            calendar.now(),
            format!(
                "this machine held us up for {:.1} s: calls {k} to {} were not sent",
                lag.as_secs_f64(),
                k + missed - 1
            ),
        );
        missed
    }

    fn tell_panic(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            let why = format!("a call ended in an error of ours: {error}");
            self.feed
                .trouble(&self.plan.signal, &self.name, Calendar::read().now(), why);
        }
    }

    fn acknowledge(&self, id: CallId, call: &Arc<dyn Call>) {
        let mut acknowledged = lock(&self.acknowledged);
        if acknowledged.len() == MAX_ACKNOWLEDGED {
            acknowledged.pop_front();
        }
        acknowledged.push_back(Acknowledged {
            id,
            node: self.name.clone(),
            call: Arc::clone(call),
        });
    }
}

/// One call on its way.
struct OneCall {
    node: Arc<Node>,
    target: Target,
    generation: u64,
    seq: u64,
    calendar: Calendar,
    slot: Instant,
}

impl OneCall {
    async fn run(self) {
        let id = next_call_id();
        if let Err(why) = self.prepare(id).await {
            return self.trouble(why);
        }
        // A preparation that took longer than its lead delays the call; that is our database, not the node.
        let intended = self.slot.max(Instant::now());
        sleep_until(intended).await;
        if let Some(why) = held_up(intended) {
            return self.trouble(why);
        }
        // Counted first and checked after, in one order for all (SeqCst): whoever changes the target and then sees
        // nothing in flight knows that nothing will be.
        let flight = Counted::enter(&self.node.in_flight);
        if self.node.generation.load(Ordering::SeqCst) != self.generation {
            return;
        }
        if flight.count > self.node.plan.concurrency {
            return self.sample(intended, intended, Outcome::Shed);
        }
        self.send(id, intended, flight).await;
    }

    async fn prepare(&self, id: CallId) -> Result<(), String> {
        let preparing = Counted::enter(&self.node.preparing);
        if preparing.count > self.node.plan.concurrency {
            return Err(format!(
                "{} earlier calls are still being prepared; this one was not begun",
                preparing.count - 1
            ));
        }
        self.target.call.prepare(id).await
    }

    async fn send(&self, id: CallId, intended: Instant, flight: Counted<'_>) {
        let mut sending = self.target.call.send(id);
        let late_at = intended + self.node.plan.age;
        let in_time = tokio::select! {
            biased;
            answer = &mut sending => Some(answer),
            () = sleep_until(late_at) => None,
        };
        if let Some(why) = held_up(late_at) {
            return self.trouble(why);
        }
        let answered_at = Instant::now();
        match in_time {
            Some(Err(why)) => self.trouble(why),
            Some(Ok(answer)) if answered_at < late_at => {
                // The node has done its part: reading the effect must not look like a call in flight.
                drop(flight);
                self.judge(id, intended, answered_at, answer).await;
            }
            // Answered in the very moment, or after our timer was due: late is late.
            Some(Ok(answer)) => {
                self.sample(intended, late_at, Outcome::Late);
                self.afterwards(id, intended, Some(answer));
            }
            None => {
                self.sample(intended, late_at, Outcome::Late);
                let end = timeout_at(intended + self.node.plan.timeout, sending).await;
                match end {
                    Ok(Ok(answer)) => self.afterwards(id, intended, Some(answer)),
                    Ok(Err(why)) => self.trouble(why),
                    Err(_) => self.afterwards(id, intended, None),
                }
                drop(flight);
            }
        }
    }

    async fn judge(&self, id: CallId, intended: Instant, answered_at: Instant, answer: Answer) {
        if answer != Answer::Right {
            return self.sample(intended, answered_at, meaning(answer));
        }
        self.node.acknowledge(id, &self.target.call);
        match self.target.call.effect(id).await {
            Ok(Effect::Seen) => self.sample(intended, answered_at, Outcome::Ok),
            Ok(Effect::Missing { why }) => {
                self.sample(intended, answered_at, Outcome::Lost { why });
            }
            Err(why) => self.trouble(why),
        }
    }

    fn sample(&self, intended: Instant, resolved: Instant, outcome: Outcome) {
        self.node.feed.put(Observed::Sample(Sample {
            signal: self.node.plan.signal.clone(),
            seq: self.seq,
            node: self.node.name.clone(),
            build: self.target.build.clone(),
            intended_us: self.calendar.at(intended),
            resolved_us: self.calendar.at(resolved),
            outcome,
        }));
    }

    fn afterwards(&self, id: CallId, intended: Instant, answer: Option<Answer>) {
        if answer == Some(Answer::Right) {
            self.node.acknowledge(id, &self.target.call);
        }
        self.node.feed.put(Observed::Afterwards(Afterwards {
            signal: self.node.plan.signal.clone(),
            node: self.node.name.clone(),
            seq: self.seq,
            after_ms: intended.elapsed().as_secs_f64() * 1000.0,
            end: answer.map_or(LateEnd::GivenUp, |answer| LateEnd::Answered(meaning(answer))),
        }));
    }

    fn trouble(&self, why: String) {
        self.node
            .feed
            .trouble(&self.node.plan.signal, &self.node.name, self.calendar.now(), why);
    }
}

fn meaning(answer: Answer) -> Outcome {
    match answer {
        Answer::Right => Outcome::Ok,
        Answer::Refused { why } => Outcome::Refused { why },
        Answer::Wrong { why } => Outcome::Wrong { why },
    }
}

fn held_up(due: Instant) -> Option<String> {
    let lag = Instant::now().saturating_duration_since(due);
    (lag > MAX_LAG).then(|| {
        format!(
            "this machine held us up for {:.1} s, so what became of the call in time is unknown",
            lag.as_secs_f64()
        )
    })
}

/// When call `k` is due after the first, at `rate_per_s`.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 calls are 285 thousand years at 1000 calls/s"
)]
fn offset(k: u64, rate_per_s: f64) -> Duration {
    Duration::from_secs_f64(k as f64 / rate_per_s)
}

/// A place in a count, given back when dropped.
struct Counted<'a> {
    counter: &'a AtomicUsize,
    count: usize,
}

impl<'a> Counted<'a> {
    fn enter(counter: &'a AtomicUsize) -> Self {
        let count = counter.fetch_add(1, Ordering::SeqCst) + 1;
        Self { counter, count }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Numbers a call: the microseconds since the Unix epoch (below 2^53 until the year 2255), or one more than the last
/// where that is higher. Unique in a process and over processes that follow one another; two that run side by side
/// meet only in the same microsecond, where the second finds its row taken and tells of trouble instead of a sample.
fn next_call_id() -> CallId {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now_us = jiff::Timestamp::now().as_microsecond();
    let next = |last: i64| last.saturating_add(1).max(now_us);
    let last = LAST
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)))
        .unwrap_or_else(|last| last);
    next(last)
}

/// A panic while a lock was held leaves the map and the list as they were before: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

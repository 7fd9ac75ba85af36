//! One time of leading: who is looked at next, what is under way, and what is tried again when. Nothing here waits for an API server:
//! looks and drives do, side by side, so that one that hangs holds up nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::LOOK_EVERY;
use super::keeper::remembered;
use super::lanes::{Ask, Lanes, Place};
use super::leader::{Landed, Leader, Trouble};
use super::look::{Depth, Keep, MayBegin, Standing, Task};
use crate::engine::interrupt::Interrupt;
use crate::engine::replica::LOOK_AFTER_EVERY;
use crate::model::values::Digest;
use crate::report;
use crate::server::couriers::Couriers;
use crate::server::{LONGEST_WAIT, PRUNE_EVERY, RENEW_EVERY};

/// Pods of an environment of which nobody asks anything are looked at once in this time, or in down to the half of it: what somebody has
/// made of them past us is to be known within minutes. Each look is some three requests and the reading of a file, so that 1,000
/// environments take a look or two in a second.
const LOOK_AT_PODS_EVERY: Duration = Duration::from_mins(10);
/// Looks at a time: each is some requests, and an API server has others to serve.
const MOST_LOOKS: usize = 8;
/// Every object is looked at again after so long, whatever was heard: against an event that was lost, here or there.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_mins(10);
/// Before a task that found nothing to do, or was left to another, is begun again: a watch that is well tells of its end before.
const AFTER_NOTHING: Duration = Duration::from_secs(2);
/// Between two readings of files that nobody has changed, this many times what one takes: it costs a hundredth of a core.
const REST_OF_READING: u32 = 100;

/// Who is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Environment(String),
    Build(String),
}

/// Something that could not be gone on with.
struct Stuck {
    failures: u32,
    again_at: Instant,
    /// What was asked for when it failed: what is asked otherwise is tried at once.
    asked: String,
    /// What has failed.
    task: Option<Task>,
}

type Look<'a> = LocalBoxFuture<'a, (Subject, Result<Option<Task>, Trouble>)>;
type Flight<'a> = LocalBoxFuture<'a, (String, Landed)>;

/// One time of leading.
struct Term<'a> {
    leader: &'a Leader,
    /// Lets the running steps end.
    ending: Interrupt,
    /// Set when another may lead.
    lost: Interrupt,
    looks: FuturesUnordered<Look<'a>>,
    looking: BTreeSet<Subject>,
    flights: FuturesUnordered<Flight<'a>>,
    under_way: BTreeMap<String, Task>,
    lanes: Lanes,
    /// Environments whose task has failed.
    stuck: BTreeMap<String, Stuck>,
    /// Looks that have failed, in a row.
    stumbles: BTreeMap<Subject, u32>,
    /// What is looked at once its time has come.
    wakes: BTreeSet<(Instant, Subject)>,
    /// Environments whose files are read once more when there is time.
    unread: BTreeSet<String>,
    read_at: Instant,
    /// Those whose files could not be read.
    unreadable: BTreeSet<String>,
    /// When replicas are looked after next, and pods at; those that are not here, at the next look.
    keep_at: BTreeMap<String, Instant>,
    /// Environments whose first look at their pods has its time: of a thousand that a new leader finds, not all at once.
    spread: BTreeSet<String>,
}

/// What is done now and then.
struct Rounds {
    templates: Instant,
    prune: Instant,
    all: Instant,
}

impl Leader {
    /// Leads until the end is asked for or another may lead.
    pub(super) async fn lead(
        &self,
        interrupt: &Interrupt,
        leads: &mut watch::Receiver<bool>,
        couriers: &mut Couriers<'_>,
    ) {
        let (deposer, lost) = Interrupt::new();
        let (finisher, ending) = Interrupt::new();
        let mut term = Term::new(self, ending, lost);
        let now = Instant::now();
        let mut rounds = Rounds {
            templates: now,
            prune: now,
            all: now,
        };
        while !interrupt.is_set() && *leads.borrow_and_update() {
            self.told.beat();
            term.go_round(&mut rounds, couriers);
            term.wake();
            if self.has_listed() {
                let changed = self.place();
                for environment in &changed {
                    couriers.changed(environment);
                }
                term.unread.extend(changed);
                // Nobody looks at them until they can be read, and no place is kept for them meanwhile.
                for environment in self.unplaced() {
                    term.lanes.stumbled(&environment);
                }
                term.read_one();
                term.begin_looks();
            }
            term.tell();
            let wake = term.wake_at();
            tokio::select! {
                () = self.heard.changed.notified() => {}
                Some((subject, looked)) = term.looks.next(), if !term.looks.is_empty() => {
                    if let Some((environment, task)) = term.looked(subject, looked) {
                        couriers.serve(&environment);
                        term.begin(environment, task);
                    }
                    term.call();
                }
                Some((environment, landed)) = term.flights.next(), if !term.flights.is_empty() => {
                    term.landed(&environment, landed);
                    term.call();
                }
                _ = leads.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
                () = interrupt.wait() => {}
            }
        }
        // A look that is under way says nothing more: from now on another may.
        term.looks.clear();
        if interrupt.is_set() && *leads.borrow_and_update() {
            (self.tell)("ending once the running steps have ended");
        } else {
            self.told.leader.set(0);
            deposer.interrupt();
        }
        finisher.interrupt();
        loop {
            self.told.beat();
            tokio::select! {
                ended = term.flights.next() => match ended {
                    Some((environment, landed)) => term.landed(&environment, landed),
                    None => break,
                },
                _ = leads.changed() => {
                    if !*leads.borrow_and_update() {
                        self.told.leader.set(0);
                        deposer.interrupt();
                    }
                }
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
        }
    }
}

impl<'a> Term<'a> {
    fn new(leader: &'a Leader, ending: Interrupt, lost: Interrupt) -> Self {
        Self {
            leader,
            ending,
            lost,
            looks: FuturesUnordered::new(),
            looking: BTreeSet::new(),
            flights: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            lanes: Lanes::default(),
            stuck: BTreeMap::new(),
            stumbles: BTreeMap::new(),
            wakes: BTreeSet::new(),
            unread: BTreeSet::new(),
            read_at: Instant::now(),
            unreadable: BTreeSet::new(),
            keep_at: BTreeMap::new(),
            spread: BTreeSet::new(),
        }
    }

    fn go_round(&mut self, rounds: &mut Rounds, couriers: &mut Couriers<'_>) {
        let (leader, now) = (self.leader, Instant::now());
        if now >= rounds.templates {
            if leader.has_other_templates() {
                self.unread.extend(leader.heard.environment_names());
                // What could not be read may be readable now.
                leader.heard.look_at_all();
            }
            couriers.carry_waiting();
            couriers.rest(|environment| self.under_way.contains_key(environment));
            rounds.templates = now + LOOK_EVERY;
        }
        if now >= rounds.prune {
            leader.prune();
            rounds.prune = now + PRUNE_EVERY;
        }
        if now >= rounds.all {
            leader.heard.look_at_all();
            self.spread
                .retain(|environment| leader.heard.environment(environment).is_some());
            rounds.all = now + LOOK_AT_ALL_EVERY;
        }
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let reading = (!self.unread.is_empty()).then_some(self.read_at);
        let first = self.wakes.first().map(|(at, _)| *at);
        let kept = self.keep_at.values().copied();
        let all = kept.chain(first).chain(reading).chain([now + LOOK_EVERY]);
        all.min().unwrap_or(now)
    }

    /// What has waited for its time is looked at.
    fn wake(&mut self) {
        let now = Instant::now();
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            match self.wakes.pop_first() {
                Some((_, Subject::Environment(environment))) => self.leader.heard.look_at(&environment),
                Some((_, Subject::Build(build))) => self.leader.heard.look_at_build(&build),
                None => {}
            }
        }
        for (environment, _) in self.keep_at.extract_if(.., |_, at| *at <= now) {
            self.leader.heard.look_at(&environment);
        }
    }

    /// Reads the files of an environment that was read before, for what they have become since: of one that stands as it is stated
    /// nobody reads them otherwise.
    fn read_one(&mut self) {
        let begun = Instant::now();
        if begun < self.read_at {
            return;
        }
        let Some(environment) = self.unread.pop_first() else {
            return;
        };
        if self.leader.heard.environment(&environment).is_some() && self.leader.fleet(&environment).is_err() {
            self.leader.heard.look_at(&environment);
            self.unreadable.insert(environment);
        }
        self.read_at = begun + begun.elapsed() * REST_OF_READING;
    }

    fn begin_looks(&mut self) {
        let leader = self.leader;
        while self.looks.len() < MOST_LOOKS {
            let is_free = |name: &str| !self.looking.contains(&Subject::Environment(name.to_owned()));
            let look: Look<'a> = if let Some(environment) = leader.heard.next_environment(is_free) {
                let subject = Subject::Environment(environment.clone());
                self.looking.insert(subject.clone());
                let standing = self.standing(&environment);
                async move { (subject, leader.look(&environment, standing).await) }.boxed_local()
            } else if let Some(build) = leader.heard.next_build() {
                let subject = Subject::Build(build.clone());
                self.looking.insert(subject.clone());
                async move { (subject, leader.look_at_build(&build).await.map(|()| None)) }.boxed_local()
            } else {
                return;
            };
            leader.told.reconciles.inc();
            self.looks.push(look);
        }
    }

    /// Whether its task has failed lately, and nobody has asked otherwise since.
    fn is_too_soon(&self, environment: &str) -> bool {
        let stuck = self.stuck.get(environment);
        stuck
            .is_some_and(|stuck| Instant::now() < stuck.again_at && stuck.asked == self.leader.heard.asked(environment))
    }

    fn may_begin(&self, environment: &str) -> MayBegin {
        if !self.is_too_soon(environment) {
            return MayBegin::Now;
        }
        match self.stuck.get(environment).and_then(|stuck| stuck.task.as_ref()) {
            Some(Task::GivingBack(_)) => MayBegin::AllButGivingBack,
            Some(Task::BringingUp(_) | Task::Driving { .. } | Task::Keeping | Task::TakingDown(_)) | None => {
                MayBegin::Later
            }
        }
    }

    /// When something that is looked after is looked at again, or for the first time.
    fn next_look(&self, environment: &str) -> Instant {
        let object = self.leader.heard.environment(environment);
        let every = match object.as_deref().and_then(remembered) {
            Some(_) => LOOK_AFTER_EVERY,
            None => within(LOOK_AT_PODS_EVERY, environment),
        };
        Instant::now() + every
    }

    /// One that nobody has looked at so far is due within the time in which all are.
    fn spread(&mut self, environment: &str) {
        let object = self.leader.heard.environment(environment);
        if object.is_some_and(|object| remembered(&object).is_none()) && self.spread.insert(environment.to_owned()) {
            let at = self.next_look(environment);
            self.keep_at.entry(environment.to_owned()).or_insert(at);
        }
    }

    fn standing(&mut self, environment: &str) -> Standing {
        self.spread(environment);
        Standing {
            task: self.under_way.get(environment).cloned(),
            may_begin: self.may_begin(environment),
            keep: if self.keep_at.contains_key(environment) {
                Keep::Later
            } else {
                Keep::Due
            },
            waits_in: self.lanes.waits_in(environment),
            depth: if self.unreadable.contains(environment) {
                Depth::Files
            } else {
                Depth::Objects
            },
        }
    }

    /// A look is over; tells what is to be begun.
    fn looked(&mut self, subject: Subject, looked: Result<Option<Task>, Trouble>) -> Option<(String, Task)> {
        self.looking.remove(&subject);
        match looked {
            Ok(task) => {
                self.stumbles.remove(&subject);
                match subject {
                    Subject::Environment(environment) => {
                        // Only then have its files been looked into.
                        if !self.under_way.contains_key(&environment) && !self.is_too_soon(&environment) {
                            self.unreadable.remove(&environment);
                        }
                        self.admitted(environment, task)
                    }
                    Subject::Build(_) => None,
                }
            }
            Err(why) => {
                self.leader.told.errors.inc();
                tracing::warn!(%why, "it is looked at again");
                if let Subject::Environment(environment) = &subject {
                    self.lanes.stumbled(environment);
                }
                let failures = self.stumbles.entry(subject.clone()).or_default();
                *failures += 1;
                let again_at = again_at(*failures, &format!("{subject:?}"));
                self.wakes.insert((again_at, subject));
                None
            }
        }
    }

    /// What an environment asks for, if it has a place for that now.
    fn admitted(&mut self, environment: String, task: Option<Task>) -> Option<(String, Task)> {
        match self.lanes.asks(&environment, task.as_ref().map(Ask::of))? {
            Place::Taken => task.map(|task| (environment, task)),
            Place::Queued => {
                // So that it says what it waits for.
                self.leader.heard.look_at(&environment);
                None
            }
            Place::Waits => None,
        }
    }

    /// Those whose turn it is are looked at again, for what they ask may have changed since.
    fn call(&mut self) {
        for environment in self.lanes.call() {
            self.leader.heard.look_at(&environment);
        }
    }

    fn begin(&mut self, environment: String, task: Task) {
        let (leader, ending, lost) = (self.leader, self.ending.clone(), self.lost.clone());
        self.under_way.insert(environment.clone(), task.clone());
        let flight = async move {
            let landed = Box::pin(leader.carry_out(&environment, &task, ending, lost)).await;
            (environment, landed)
        };
        self.flights.push(flight.boxed_local());
    }

    /// Something has gone as far as it goes.
    fn landed(&mut self, environment: &str, landed: Landed) {
        self.lanes.ended(environment);
        let task = self.under_way.remove(environment);
        match &task {
            Some(Task::Keeping) => {
                let at = self.next_look(environment);
                self.keep_at.insert(environment.to_owned(), at);
            }
            // What it is left on is known best now.
            Some(Task::BringingUp(_) | Task::Driving { .. }) => {
                self.keep_at.remove(environment);
            }
            Some(Task::GivingBack(_) | Task::TakingDown(_)) | None => {}
        }
        let again_at = match landed {
            Landed::Done => {
                self.stuck.remove(environment);
                self.leader.heard.look_at(environment);
                return;
            }
            // What was heard may be older than what is, or another is at it.
            Landed::Left => Instant::now() + AFTER_NOTHING,
            Landed::Failed => {
                self.leader.told.errors.inc();
                let failures = self.stuck.get(environment).map_or(0, |stuck| stuck.failures) + 1;
                let again_at = again_at(failures, environment);
                let stuck = Stuck {
                    failures,
                    again_at,
                    asked: self.leader.heard.asked(environment),
                    task,
                };
                self.stuck.insert(environment.to_owned(), stuck);
                again_at
            }
        };
        self.wakes
            .insert((again_at, Subject::Environment(environment.to_owned())));
        if landed == Landed::Failed {
            // Its upgrades may have something to be said.
            self.leader.heard.look_at(environment);
        }
    }

    fn tell(&self) {
        let told = &self.leader.told;
        let now = Instant::now();
        let retried = self.stuck.values().filter(|stuck| stuck.again_at > now).count();
        told.standing(
            self.leader.heard.phases(),
            self.leader.heard.waiting() + self.looks.len(),
            self.lanes.waiting(),
            retried,
        );
    }
}

/// The half of a time, and a part of the other half that is a name's own, so that not all come at once.
fn within(time: Duration, name: &str) -> Duration {
    let drawn = Digest::of(name.as_bytes());
    let part = u32::from_str_radix(&drawn.hex()[..4], 16).unwrap_or(0);
    time / 2 + time / 2 * part / 0xffff
}

fn again_at(failures: u32, what: &str) -> Instant {
    Instant::now() + report::backoff(failures, what).min(LONGEST_WAIT)
}

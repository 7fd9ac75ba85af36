//! Promotions in a seeded world: two drivers that look, decide, write and act, each of them killed at any time, and people who approve,
//! withdraw, reject, freeze and break glass between any two of these. What they may do is said here once more and otherwise than the
//! engine says it: a fault would have to be made twice.
//!
//! `STAGEGATE_SEED=N cargo test --test it simulation::promotions -- --nocapture` tells a story alone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use stagegate::model::approval::{Bound, Verb};
use stagegate::model::freeze::InFlight;
use stagegate::model::pipeline::{PipelineSpec, Stage};
use stagegate::model::promotion::{Phase, PromotionSpec, PromotionStatus};
use stagegate::model::upgrade::{self, Wish};
use stagegate::model::values::{Digest, Duration};
use stagegate::promotion::approvals::{Voice, Voices};
use stagegate::promotion::obstacle::{Candidate, Facts, Frozen, Lack, Lasting, Upstream, Verified};
use stagegate::promotion::{Case, Decision, Effect, RehearsalRun, RunState, UpgradeRun, decide};

use super::universe::Dice;
use super::{SEEDS, seeds};

/// Things that happen in a story before the world is calm.
const HAPPENINGS: u64 = 60;
/// In a calm world it has ended after so many turns.
const CALM_TURNS: usize = 40;
/// As the engine has it: who was stopped for longer than this looks again.
const LONGEST_LOOK: SignedDuration = SignedDuration::from_secs(30);
const APPROVAL_EXPIRES: SignedDuration = SignedDuration::from_hours(24);

/// What is taken away to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    AllInPlace,
    /// A decision is written whatever was written since it was made.
    WithoutVersions,
    /// A decision is written however long ago it was made.
    WithoutClock,
    /// An upgrade is begun without looking at quarantines once more.
    WithoutLastLook,
    /// An upgrade is begun whatever was decided since.
    WithoutItsTurn,
    /// What is told is written apart from the status.
    EventsApart,
    /// An upgrade of any name is begun.
    WithoutName,
}

/// What is stored of the promotion.
#[derive(Clone)]
struct Stored {
    version: u64,
    spec: PromotionSpec,
    status: PromotionStatus,
    words: Vec<Voice>,
    told: Vec<String>,
    phases: Vec<Phase>,
}

/// A driver with a decision that it has not written or not done yet.
#[derive(Default)]
struct Driver {
    decided: Option<(u64, Timestamp, Decision)>,
    to_do: Option<Effect>,
    rehearsal: Option<RehearsalRun>,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own that is so or not"
)]
struct World {
    dice: Dice,
    guard: Guard,
    now: Timestamp,
    pipeline: PipelineSpec,
    stored: Stored,
    drivers: [Driver; 2],
    quarantined: bool,
    rejects: bool,
    lacking: bool,
    verified: Option<Timestamp>,
    plan: u64,
    frozen: Option<InFlight>,
    is_way_back: bool,
    /// Upgrades that were begun, and how each is.
    upgrades: Vec<(upgrade::Phase, Wish)>,
    broken: Vec<String>,
    log: Vec<String>,
}

fn pipeline(rehearses: bool) -> PipelineSpec {
    let rehearsals: &[&str] = if rehearses { &["traffic"] } else { &[] };
    serde_json::from_value(json!({
        "component": "web",
        "roles": {"managers": {"allowedSigners": "managers"}},
        "stages": [
            {"name": "staging", "environment": "staging", "soak": "1h"},
            {"name": "production", "environment": "production", "after": ["staging"], "rehearsals": rehearsals,
             "approvals": [{"role": "managers", "count": 2, "expires": "24h"}]},
        ],
    }))
    .expect("a pipeline")
}

impl World {
    fn new(seed: u64, guard: Guard) -> Self {
        let mut dice = Dice(seed);
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().expect("a time");
        let spec = PromotionSpec {
            pipeline: "web".to_owned(),
            stage: "production".to_owned(),
            build: "web-2".to_owned(),
            user: "ann".to_owned(),
            automatic: false,
            cancel: false,
            words: Vec::new(),
        };
        let mut this = Self {
            pipeline: pipeline(dice.below(3) == 0),
            guard,
            now,
            stored: Stored {
                version: 1,
                spec,
                status: PromotionStatus::new(now),
                words: Vec::new(),
                told: Vec::new(),
                phases: vec![Phase::Waiting],
            },
            drivers: [Driver::default(), Driver::default()],
            quarantined: dice.below(16) == 0,
            rejects: false,
            lacking: dice.below(16) == 0,
            verified: (dice.below(8) > 0).then_some(now - SignedDuration::from_mins(30)),
            plan: 0,
            frozen: None,
            is_way_back: dice.below(10) == 0,
            upgrades: Vec::new(),
            broken: Vec::new(),
            log: Vec::new(),
            dice,
        };
        this.say("ann", Verb::Request);
        this
    }

    fn stage(&self) -> &Stage {
        &self.pipeline.stages[1]
    }

    fn bound(&self) -> Bound {
        Bound {
            digest: Digest::of(b"web 2"),
            plan: Digest::of(&self.plan.to_be_bytes()),
            evidence: Digest::of(format!("{:?}", self.verified).as_bytes()),
        }
    }

    fn tell(&mut self, line: &str) {
        let line = format!("{:.0} {line}", self.now);
        self.log.push(line);
    }

    /// A word is written as everything is: onto the version that is there.
    fn say(&mut self, who: &str, verb: Verb) {
        // Two words of one person are never of one moment.
        self.now += SignedDuration::from_secs(1);
        let voice = Voice {
            who: who.to_owned(),
            roles: BTreeSet::from(["managers".to_owned()]),
            verb,
            bound: self.bound(),
            at: self.now,
            reason: match verb {
                Verb::BreakGlass => "the site is down".to_owned(),
                Verb::Request | Verb::Approve | Verb::Withdraw | Verb::Reject => String::new(),
            },
            until: (verb == Verb::BreakGlass).then(|| self.now + SignedDuration::from_hours(1)),
        };
        self.stored.words.push(voice);
        self.stored.version += 1;
        self.tell(&format!("{who}: {verb}"));
    }

    fn facts(&self) -> Facts {
        Facts {
            build: Candidate {
                name: "web-2".to_owned(),
                version: "2".to_owned(),
                digest: Digest::of(b"web 2"),
                lacking: self.lacking.then(|| Lack {
                    why: "it lacks HooksPassed".to_owned(),
                    lasting: Lasting::ForGood,
                }),
                quarantined: self.quarantined.then(|| "it failed there".to_owned()),
            },
            is_way_back: self.is_way_back,
            upstream: vec![Upstream {
                stage: "staging".to_owned(),
                soak: Some(Duration::from_secs(3_600)),
                verified: self.verified.map_or(Verified::Never, Verified::At),
            }],
            freezes: self
                .frozen
                .map(|in_flight| Frozen {
                    name: "fire".to_owned(),
                    reason: "a fire".to_owned(),
                    until: None,
                    in_flight,
                })
                .into_iter()
                .collect(),
            voices: Voices::new(self.stored.words.clone(), BTreeSet::new()),
            bound: self.bound(),
            others: Vec::new(),
            busy: None,
        }
    }

    /// Whether it may enter now, by the rules as the guide has them.
    fn may_enter(&self) -> Result<(), &'static str> {
        let mut last: BTreeMap<&str, &Voice> = BTreeMap::new();
        for word in self.stored.words.iter().filter(|word| word.verb != Verb::Request) {
            last.insert(&word.who, word);
        }
        let counts = |voice: &Voice| {
            voice.who != "ann" && voice.bound == self.bound() && self.now.duration_since(voice.at) <= APPROVAL_EXPIRES
        };
        if self.quarantined {
            return Err("it is quarantined");
        }
        if last.values().any(|voice| voice.verb == Verb::Reject) {
            return Err("it is rejected");
        }
        if self.is_way_back {
            return Ok(());
        }
        let breaks = |voice: &&&Voice| {
            voice.verb == Verb::BreakGlass
                && voice.bound == self.bound()
                && voice.until.is_some_and(|until| until > self.now)
        };
        let breaking: Vec<&str> = last.values().filter(breaks).map(|voice| voice.who.as_str()).collect();
        if breaking.len() >= 2 && breaking.iter().any(|who| *who != "ann") {
            return Ok(());
        }
        if self.lacking {
            return Err("it lacks what is required");
        }
        if self.frozen.is_some() {
            return Err("it is frozen");
        }
        let Some(verified) = self.verified else {
            return Err("it is not verified");
        };
        if self.now.duration_since(verified) < SignedDuration::from_hours(1) {
            return Err("it soaks");
        }
        let approvals = last
            .values()
            .filter(|voice| voice.verb == Verb::Approve && counts(voice));
        if approvals.count() < 2 {
            return Err("too few approve of it");
        }
        Ok(())
    }

    fn run(&self) -> Option<UpgradeRun> {
        let (phase, wish) = *self.upgrades.first()?;
        Some(UpgradeRun {
            name: "web-2-abcd".to_owned(),
            phase,
            message: "so it is said".to_owned(),
            is_held_as_asked: phase == upgrade::Phase::Paused,
            wish,
            is_in_batch: false,
        })
    }

    /// A driver looks and decides.
    fn look(&mut self, who: usize) {
        let facts = self.facts();
        let run = self.run();
        let decision = decide(&Case {
            pipeline: &self.pipeline,
            stage: self.stage(),
            spec: &self.stored.spec,
            status: &self.stored.status,
            facts: &facts,
            rehearsal: self.drivers[who].rehearsal.as_ref(),
            upgrade: run.as_ref(),
            now: self.now,
        });
        let may = self.may_enter();
        if decision.effect == Some(Effect::Upgrade)
            && let Err(why) = may
        {
            self.broken.push(format!("I4: it was let in though {why}"));
        }
        self.tell(&format!(
            "driver {who} decides {:?}, {:?}",
            decision.status.phase, decision.effect
        ));
        self.drivers[who].decided = Some((self.stored.version, self.now, decision));
    }

    /// A driver writes what it decided, unless somebody has written meanwhile.
    fn write(&mut self, who: usize) {
        let Some((version, looked_at, decision)) = self.drivers[who].decided.take() else {
            return;
        };
        if version != self.stored.version && self.guard != Guard::WithoutVersions {
            self.tell(&format!("driver {who} has decided on what has changed"));
            return;
        }
        if self.now.duration_since(looked_at) > LONGEST_LOOK && self.guard != Guard::WithoutClock {
            self.tell(&format!("driver {who} was stopped since it looked"));
            return;
        }
        // Files may change between a look and its write; what people say may not go unheard.
        if decision.effect == Some(Effect::Upgrade)
            && decision.status.bound == Some(self.bound())
            && let Err(why @ ("it is rejected" | "too few approve of it")) = self.may_enter()
        {
            self.broken
                .push(format!("I4: it was let in by an old look though {why}"));
        }
        if decision.status != self.stored.status {
            self.stored.version += 1;
            if self.guard != Guard::EventsApart || self.dice.below(4) > 0 {
                self.stored
                    .told
                    .extend(decision.events.iter().map(|event| event.reason.clone()));
            }
            if decision.status.phase != self.stored.status.phase {
                self.stored.phases.push(decision.status.phase);
            }
            self.stored.status = decision.status;
        }
        self.drivers[who].rehearsal = None;
        self.drivers[who].to_do = decision.effect;
    }

    /// A driver does what it has written down.
    fn act(&mut self, who: usize) {
        match self.drivers[who].to_do.take() {
            Some(Effect::Upgrade) => self.begin(),
            Some(Effect::Rehearse(rehearsal)) => {
                let state = match self.dice.below(6) {
                    0 => RunState::Failed("it goes wrong".to_owned()),
                    _ => RunState::Passed,
                };
                self.drivers[who].rehearsal = Some(RehearsalRun { rehearsal, state });
            }
            Some(Effect::Pause(_)) => self.wish(Wish::Pause),
            Some(Effect::GoOn(_)) => self.wish(Wish::Proceed),
            None => {}
        }
    }

    fn begin(&mut self) {
        if self.quarantined && self.guard != Guard::WithoutLastLook {
            self.tell("its upgrade is refused: it is quarantined");
            return;
        }
        if self.stored.status.phase != Phase::Upgrading && self.guard != Guard::WithoutItsTurn {
            self.tell("its upgrade is refused: it was decided otherwise since");
            return;
        }
        if self.quarantined {
            self.broken.push("I4: a quarantined build was let in".to_owned());
        }
        if self.stored.status.phase.is_final() && self.upgrades.is_empty() {
            self.broken
                .push("I4: a build was let in whose promotion has ended".to_owned());
        }
        if self.upgrades.is_empty() || self.guard == Guard::WithoutName {
            self.upgrades.push((upgrade::Phase::Rolling, Wish::Proceed));
            self.tell("its upgrade is begun");
        }
        if self.upgrades.len() > 1 {
            self.broken.push("I3: it has two upgrades".to_owned());
        }
    }

    fn wish(&mut self, wished: Wish) {
        let Some((phase, wish)) = self.upgrades.first_mut().filter(|(phase, _)| !phase.is_final()) else {
            return;
        };
        *wish = wished;
        if *phase == upgrade::Phase::Paused && wished == Wish::Proceed {
            *phase = upgrade::Phase::Rolling;
        }
    }

    /// Its upgrade goes on, as its own driver makes it.
    fn upgrade_goes_on(&mut self) {
        let ends_well = self.dice.below(4) > 0;
        let Some((phase, wish)) = self.upgrades.first_mut().filter(|(phase, _)| !phase.is_final()) else {
            return;
        };
        *phase = match (*phase, *wish) {
            (upgrade::Phase::Rolling | upgrade::Phase::Paused, Wish::Pause) => upgrade::Phase::Paused,
            (upgrade::Phase::RollingBack, _) => {
                self.quarantined = true;
                upgrade::Phase::RolledBack
            }
            _ if ends_well => upgrade::Phase::Succeeded,
            _ => upgrade::Phase::RollingBack,
        };
        let line = format!("its upgrade: {:?}", self.upgrades[0]);
        self.tell(&line);
    }

    fn something_happens(&mut self) {
        let who = usize::try_from(self.dice.below(2)).expect("small");
        match self.dice.below(30) {
            0..=5 => self.look(who),
            6..=11 => self.write(who),
            12..=14 => self.act(who),
            // Killed wherever it was.
            17 => {
                self.drivers[who] = Driver::default();
                self.tell(&format!("driver {who} is killed"));
            }
            15 | 16 | 18..=20 => {
                let person = ["ann", "bob", "carol", "dave"][usize::try_from(self.dice.below(4)).expect("small")];
                let verb = match self.dice.below(12) {
                    0 => Verb::Withdraw,
                    1 => Verb::BreakGlass,
                    2 if self.rejects => Verb::Reject,
                    _ => Verb::Approve,
                };
                self.say(person, verb);
            }
            21 => {
                self.frozen = match self.frozen {
                    Some(_) => None,
                    None => Some(
                        [InFlight::FinishUpgrade, InFlight::FinishBatch, InFlight::Pause]
                            [usize::try_from(self.dice.below(3)).expect("small")],
                    ),
                };
                self.tell(&format!("freeze: {:?}", self.frozen));
            }
            22 if self.dice.below(3) == 0 => self.quarantined = !self.quarantined,
            23 if self.dice.below(3) == 0 => self.plan += 1,
            24 if self.dice.below(3) == 0 => self.lacking = !self.lacking,
            25 if self.dice.below(4) == 0 => {
                let second = ["bob", "carol", "dave"][usize::try_from(self.dice.below(3)).expect("small")];
                self.say("ann", Verb::BreakGlass);
                if self.dice.below(2) == 0 {
                    self.say(second, Verb::BreakGlass);
                }
            }
            26 if self.dice.below(6) == 0 => self.rejects = true,
            22..=26 => self.now += SignedDuration::from_mins(40),
            27 => self.now += SignedDuration::from_mins(5),
            _ => self.upgrade_goes_on(),
        }
    }

    /// Everything is well, and one driver is left alone.
    fn calm(&mut self) {
        self.tell("all is well from here on");
        self.drivers = [Driver::default(), Driver::default()];
        (self.frozen, self.quarantined, self.lacking) = (None, false, false);
        self.verified = self.verified.or(Some(self.now));
        self.now += SignedDuration::from_hours(2);
        for who in ["bob", "carol"] {
            self.say(who, Verb::Approve);
        }
        for _ in 0..CALM_TURNS {
            if self.stored.status.phase.is_final() {
                return;
            }
            for step in [Self::look, Self::write, Self::act] {
                step(self, 0);
            }
            self.upgrade_goes_on();
            self.now += SignedDuration::from_mins(1);
        }
        if !self.stored.status.phase.is_final() {
            let status = &self.stored.status;
            self.broken
                .push(format!("it never ends: {:?} ({})", status.phase, status.message));
        }
    }

    /// Every phase that it came to was told, in its order, and every rule that was passed over.
    fn was_told(&mut self) {
        let came = self.stored.phases[1..]
            .iter()
            .map(|phase| format!("Promotion{phase:?}"));
        let came: Vec<String> = came.filter(|word| word != "PromotionWaiting").collect();
        let phases = [
            "PromotionRehearsing",
            "PromotionUpgrading",
            "PromotionSucceeded",
            "PromotionFailed",
            "PromotionRejected",
            "PromotionCancelled",
        ];
        let told: Vec<&String> = self
            .stored
            .told
            .iter()
            .filter(|word| phases.contains(&word.as_str()))
            .collect();
        // A phase that is entered anew with the same name is told anew.
        let mut rest = told.iter();
        for word in &came {
            if !rest.any(|told| *told == word) {
                self.broken
                    .push(format!("I5: {word} was not told, or not in its place: {told:?}"));
                return;
            }
        }
        let passed_over = !self.stored.status.passed_over.is_empty();
        if passed_over && !self.stored.told.iter().any(|word| word == "GlassBroken") {
            self.broken
                .push("I5: nobody heard that the glass was broken".to_owned());
        }
    }
}

fn play(seed: u64, guard: Guard) -> World {
    let mut world = World::new(seed, guard);
    for _ in 0..HAPPENINGS {
        world.something_happens();
    }
    world.calm();
    world.was_told();
    world
}

#[test]
fn no_build_enters_but_by_the_rules_and_every_step_is_told_in_every_story() {
    let (mut ends, mut glass) = (BTreeMap::new(), 0);
    let seeds = seeds();
    let alone = seeds.end - seeds.start == 1;
    for seed in seeds {
        let world = play(seed, Guard::AllInPlace);
        if alone || !world.broken.is_empty() {
            println!("seed {seed}: {}\n{}", world.broken.join("; "), world.log.join("\n"));
        }
        assert!(world.broken.is_empty(), "seed {seed}: {:?}", world.broken);
        *ends
            .entry(format!(
                "{:?} {}",
                world.stored.status.phase, world.stored.status.reason
            ))
            .or_insert(0) += 1;
        glass += u64::from(!world.stored.status.passed_over.is_empty());
    }
    println!("{ends:#?}\n{glass} with a broken glass");
    if !alone {
        for end in [
            "Succeeded Verified",
            "Failed RolledBack",
            "Failed Quarantined",
            "Failed Lacking",
            "Failed NotVerified",
            "Rejected Rejected",
            "Failed RehearsalFailed",
        ] {
            assert!(ends.contains_key(end), "no story ended so: {end}");
        }
        assert!(glass > 0, "no glass was broken");
    }
}

/// A story is short and a decision that comes late is rare, so a missing guard is noticed by as many as are played.
fn is_noticed(guard: Guard, word: &str) {
    let noticed = (0..SEEDS).find(|&seed| play(seed, guard).broken.iter().any(|broken| broken.starts_with(word)));
    assert!(noticed.is_some(), "{guard:?} was not noticed in {SEEDS} seeds");
    println!("{guard:?} noticed by seed {}", noticed.unwrap_or_default());
}

#[test]
fn a_decision_that_is_written_over_what_was_said_since_is_noticed() {
    is_noticed(Guard::WithoutVersions, "I4");
}

#[test]
fn a_decision_that_was_right_an_hour_ago_is_noticed() {
    is_noticed(Guard::WithoutClock, "I4");
}

#[test]
fn a_promotion_begun_without_a_last_look_at_quarantines_is_noticed() {
    is_noticed(Guard::WithoutLastLook, "I4");
}

#[test]
fn an_upgrade_that_is_begun_after_its_promotion_has_ended_is_noticed() {
    is_noticed(Guard::WithoutItsTurn, "I4");
}

#[test]
fn a_promotion_told_apart_from_its_status_is_noticed() {
    is_noticed(Guard::EventsApart, "I5");
}

#[test]
fn upgrades_of_a_promotion_without_its_name_are_noticed() {
    is_noticed(Guard::WithoutName, "I3");
}

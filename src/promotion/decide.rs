//! What a promotion does next, as one pure function of what is asked, what was written down, what is known and what time it is.

use jiff::Timestamp;

use super::obstacle::{Facts, Glass, Kept, Lasting, Obstacle, Past, glass, kept, obstacles};
use crate::model::freeze::InFlight;
use crate::model::pipeline::{PipelineSpec, Stage, Take};
use crate::model::promotion::{Phase, PromotionSpec, PromotionStatus, Rehearsed};
use crate::model::upgrade::{self, Event, Severity};

/// What a promotion is of, and what is known.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The pipeline.
    pub pipeline: &'a PipelineSpec,
    /// Its stage.
    pub stage: &'a Stage,
    /// What is asked.
    pub spec: &'a PromotionSpec,
    /// How far it is.
    pub status: &'a PromotionStatus,
    /// What is known.
    pub facts: &'a Facts,
    /// The rehearsal that runs, or ran last, for it.
    pub rehearsal: Option<&'a RehearsalRun>,
    /// Its upgrade, once there is one.
    pub upgrade: Option<&'a UpgradeRun>,
    /// Now.
    pub now: Timestamp,
}

/// A rehearsal that was begun for a promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RehearsalRun {
    /// Its name.
    pub rehearsal: String,
    /// How it stands.
    pub state: RunState,
}

/// How a rehearsal stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// It goes on.
    Running,
    /// What must come out did.
    Passed,
    /// Something else came out, in words.
    Failed(String),
}

/// The upgrade of a promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRun {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub phase: upgrade::Phase,
    /// Why, for people.
    pub message: String,
    /// It is held, as somebody has asked it to be, and for nothing else.
    pub is_held_as_asked: bool,
    /// What its operator wants of it.
    pub wish: upgrade::Wish,
    /// Nodes of it are being changed, and the batch is not through.
    pub is_in_batch: bool,
}

/// What is decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// How far it is from now on.
    pub status: PromotionStatus,
    /// What is to be done, once that is written down.
    pub effect: Option<Effect>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// When to decide again though nothing has changed.
    pub wake_at: Option<Timestamp>,
}

/// What is to be done. Asked for again, it is done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The build goes through this rehearsal.
    Rehearse(String),
    /// It goes onto the stage's environment.
    Upgrade,
    /// Its upgrade pauses, for a freeze.
    Pause(String),
    /// Its upgrade, which a freeze has paused, goes on.
    GoOn(String),
}

/// Decides.
#[must_use]
pub fn decide(case: &Case<'_>) -> Decision {
    let mut turn = Turn {
        case,
        status: case.status.clone(),
        events: Vec::new(),
        effect: None,
        wake_at: None,
    };
    turn.status.bound = Some(case.facts.bound);
    turn.status.undecided = None;
    turn.advance();
    Decision {
        status: turn.status,
        effect: turn.effect,
        events: turn.events,
        wake_at: turn.wake_at,
    }
}

struct Turn<'a> {
    case: &'a Case<'a>,
    status: PromotionStatus,
    events: Vec<Event>,
    effect: Option<Effect>,
    wake_at: Option<Timestamp>,
}

impl Turn<'_> {
    fn advance(&mut self) {
        match self.case.status.phase {
            Phase::Waiting => self.enter_if_nothing_keeps_it(),
            Phase::Rehearsing => self.rehearse(),
            Phase::Upgrading => self.upgrade(),
            Phase::Succeeded | Phase::Failed | Phase::Rejected | Phase::Cancelled => {}
        }
    }

    fn tell(&mut self, severity: Severity, reason: &str, message: String) {
        self.events.push(Event {
            at: self.case.now,
            reason: reason.to_owned(),
            severity,
            node: None,
            message,
        });
    }

    fn enter(&mut self, phase: Phase, reason: &str, message: String) {
        let now = self.case.now;
        self.status.phase = phase;
        reason.clone_into(&mut self.status.reason);
        self.status.message.clone_from(&message);
        self.status.since = now;
        self.status.waits_for.clear();
        if phase.is_final() {
            self.status.finished_at = Some(now);
        }
        let severity = match phase {
            Phase::Failed => Severity::Alert,
            Phase::Waiting
            | Phase::Rehearsing
            | Phase::Upgrading
            | Phase::Succeeded
            | Phase::Rejected
            | Phase::Cancelled => Severity::Step,
        };
        self.tell(severity, &format!("Promotion{phase:?}"), message);
    }

    fn glass(&self) -> Glass {
        glass(self.case.stage, self.case.facts, self.case.now)
    }

    /// What keeps it now.
    fn kept(&self) -> Kept {
        let Case {
            pipeline,
            stage,
            facts,
            now,
            ..
        } = *self.case;
        kept(obstacles(pipeline, stage, facts, now), facts.is_way_back, self.glass())
    }

    fn enter_if_nothing_keeps_it(&mut self) {
        if self.case.spec.cancel {
            return self.enter(Phase::Cancelled, "ByUser", "it was taken back".to_owned());
        }
        let Kept { by, broken } = self.kept();
        if let Some(rejected) = by.iter().find(|by| matches!(by, Obstacle::Rejected { .. })) {
            return self.enter(Phase::Rejected, rejected.reason(), rejected.to_string());
        }
        // What a second person may pass over with the first waits for them.
        let is_asked_past = |by: &Obstacle| self.glass() == Glass::Asked && by.past() == Past::ComingBackOrGlass;
        let mut for_good = by
            .iter()
            .filter(|by| by.lasting() == Lasting::ForGood && !is_asked_past(by));
        if let Some(last) = for_good.next() {
            return self.enter(Phase::Failed, last.reason(), last.to_string());
        }
        // It would enter once the newer one is there, and take its place.
        let newer = |by: &&Obstacle| {
            matches!(
                by,
                Obstacle::Behind {
                    take: Take::NewestVerified,
                    ..
                }
            )
        };
        if let Some(newer) = by.iter().find(newer) {
            return self.enter(Phase::Cancelled, "PassedOver", newer.to_string());
        }
        // People approve of what a rehearsal has shown, and of nothing before.
        let rehearsal = self.open_rehearsal();
        let is_said_later = |by: &Obstacle| matches!(by, Obstacle::Unapproved(_) | Obstacle::Unasked);
        let by: Vec<Obstacle> = by
            .into_iter()
            .filter(|by| rehearsal.is_none() || !is_said_later(by))
            .collect();
        if !by.is_empty() {
            return self.wait_for(&by);
        }
        self.pass_over(&broken);
        self.go_on(rehearsal);
    }

    fn wait_for(&mut self, by: &[Obstacle]) {
        self.wake_at = by.iter().filter_map(Obstacle::until).min();
        let waits_for: Vec<_> = by.iter().map(Obstacle::waiting).collect();
        let reasons =
            |all: &[crate::model::promotion::Waiting]| all.iter().map(|one| one.reason.clone()).collect::<Vec<_>>();
        let message = waits_for
            .iter()
            .map(|one| one.message.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        // Of a count that rises everybody hears by the word that raised it.
        if reasons(&waits_for) != reasons(&self.status.waits_for) {
            self.tell(Severity::Step, "PromotionWaiting", message.clone());
        }
        by[0].reason().clone_into(&mut self.status.reason);
        self.status.message = message;
        self.status.waits_for = waits_for;
    }

    /// That rules were passed over is told to everybody, once for each.
    fn pass_over(&mut self, broken: &[Obstacle]) {
        let new: Vec<_> = broken
            .iter()
            .filter(|one| !self.status.passed_over.iter().any(|old| old == one.reason()))
            .collect();
        if new.is_empty() {
            return;
        }
        let what: Vec<String> = new.iter().map(ToString::to_string).collect();
        let reasons: Vec<String> = new.iter().map(|one| one.reason().to_owned()).collect();
        let breaking = self.case.facts.voices.breaking(&self.case.facts.bound, self.case.now);
        let why = breaking.first().map_or("", |voice| voice.reason.as_str());
        let message = format!("the glass is broken ({why}); passed over: {}", what.join("; "));
        self.status.passed_over.extend(reasons);
        self.tell(Severity::Alert, "GlassBroken", message);
    }

    /// The next rehearsal that it has not passed. What comes back was rehearsed before it came here first, and who breaks the glass has no time.
    fn open_rehearsal(&self) -> Option<String> {
        if self.case.facts.is_way_back || self.glass() == Glass::Broken {
            return None;
        }
        let mut open = self.case.stage.rehearsals.iter().filter(|name| !self.has_passed(name));
        open.next().cloned()
    }

    /// Through the rehearsal, or into the environment itself.
    fn go_on(&mut self, rehearsal: Option<String>) {
        let build = &self.case.spec.build;
        let Some(next) = rehearsal else {
            self.effect = Some(Effect::Upgrade);
            let message = format!("{build} goes onto {}", self.case.stage.environment);
            return self.enter(Phase::Upgrading, "Upgrading", message);
        };
        let message = format!("{build} goes through rehearsal {next}");
        self.effect = Some(Effect::Rehearse(next));
        // Its driver was killed, and it is begun anew: that is no news.
        if self.status.phase != Phase::Rehearsing || self.status.message != message {
            self.enter(Phase::Rehearsing, "Rehearsing", message);
        }
    }

    fn has_passed(&self, rehearsal: &str) -> bool {
        let digest = self.case.facts.build.digest;
        let mut passed = self.status.rehearsed.iter();
        passed.any(|passed| passed.rehearsal == rehearsal && passed.digest == digest)
    }

    fn rehearse(&mut self) {
        let Some(run) = self.case.rehearsal else {
            // Its driver was killed before it began, or between two.
            return self.enter_if_nothing_keeps_it();
        };
        match &run.state {
            // The run that is under way comes to its end, and no further one is begun.
            RunState::Running if self.case.spec.cancel => {
                self.enter(Phase::Cancelled, "ByUser", "it was taken back".to_owned());
            }
            RunState::Running => {
                self.effect = Some(Effect::Rehearse(run.rehearsal.clone()));
            }
            RunState::Failed(why) => {
                let message = format!("rehearsal {}: {why}", run.rehearsal);
                self.enter(Phase::Failed, "RehearsalFailed", message);
            }
            RunState::Passed => {
                if !self.has_passed(&run.rehearsal) {
                    self.status.rehearsed.push(Rehearsed {
                        rehearsal: run.rehearsal.clone(),
                        digest: self.case.facts.build.digest,
                        at: self.case.now,
                    });
                    let message = format!("{} has passed rehearsal {}", self.case.spec.build, run.rehearsal);
                    self.tell(Severity::Step, "RehearsalPassed", message);
                }
                self.enter_if_nothing_keeps_it();
            }
        }
    }

    fn upgrade(&mut self) {
        let Some(run) = self.case.upgrade else {
            if let Some(gone) = &self.case.status.upgrade {
                // Begun anew it would be what somebody has just ended.
                let message = format!("its upgrade {gone} was deleted");
                return self.enter(Phase::Failed, "UpgradeGone", message);
            }
            // It was decided, and not begun: what keeps it now keeps it.
            let Kept { by, broken } = self.kept();
            if by.is_empty() && !self.case.spec.cancel {
                self.pass_over(&broken);
                self.effect = Some(Effect::Upgrade);
            } else {
                self.status.phase = Phase::Waiting;
                self.enter_if_nothing_keeps_it();
            }
            return;
        };
        self.status.upgrade = Some(run.name.clone());
        let came = |words: &str| format!("{} {words}: {}", self.case.spec.build, run.message);
        let environment = &self.case.stage.environment;
        match run.phase {
            upgrade::Phase::Succeeded => {
                let message = came(&format!("runs in {environment}"));
                self.enter(Phase::Succeeded, "Verified", message);
            }
            upgrade::Phase::RolledBack
            | upgrade::Phase::RollbackIneffective
            | upgrade::Phase::Failed
            | upgrade::Phase::Errored
            | upgrade::Phase::Aborted => {
                let message = came(&format!("does not run in {environment}"));
                self.enter(Phase::Failed, &format!("{:?}", run.phase), message);
            }
            upgrade::Phase::RollingBack => {}
            upgrade::Phase::Pending
            | upgrade::Phase::Preflight
            | upgrade::Phase::Baseline
            | upgrade::Phase::Rolling
            | upgrade::Phase::Soak
            | upgrade::Phase::Paused
            | upgrade::Phase::Inconclusive => self.freeze(run),
        }
    }

    /// What a freeze makes of an upgrade that is under way, and its end of one that it has paused.
    fn freeze(&mut self, run: &UpgradeRun) {
        let frozen = if self.case.facts.is_way_back {
            None
        } else {
            let by = self.kept().by;
            by.into_iter().find_map(|by| match by {
                Obstacle::Frozen(frozen) if frozen.in_flight != InFlight::FinishUpgrade => Some(frozen),
                _ => None,
            })
        };
        let is_ours = self.status.reason == FROZEN;
        match frozen {
            Some(frozen) => {
                self.wake_at = frozen.until;
                let waits = frozen.in_flight == InFlight::FinishBatch && run.is_in_batch;
                // What is held already waits for whoever it is held for.
                if !is_ours && !waits && run.wish == upgrade::Wish::Proceed && !run.phase.is_held() {
                    let message = Obstacle::Frozen(frozen).to_string();
                    FROZEN.clone_into(&mut self.status.reason);
                    self.status.message.clone_from(&message);
                    self.tell(Severity::Step, "PromotionPaused", message);
                }
                if self.status.reason == FROZEN && run.wish == upgrade::Wish::Proceed && !run.phase.is_held() {
                    self.effect = Some(Effect::Pause(run.name.clone()));
                }
            }
            // Asked for until it does go on: who was to see to it may have been killed before.
            None if is_ours && run.is_held_by_us() => {
                self.effect = Some(Effect::GoOn(run.name.clone()));
            }
            None if is_ours => {
                "Upgrading".clone_into(&mut self.status.reason);
                self.status.message = format!("{} goes onto {}", self.case.spec.build, self.case.stage.environment);
                self.tell(
                    Severity::Step,
                    "PromotionResumed",
                    "no freeze holds it any more".to_owned(),
                );
            }
            None => {}
        }
    }
}

impl UpgradeRun {
    /// It is held, or is to be, as we have asked, and nobody wants otherwise.
    fn is_held_by_us(&self) -> bool {
        match self.wish {
            upgrade::Wish::Pause => self.is_held_as_asked || !self.phase.is_held(),
            upgrade::Wish::Proceed => self.is_held_as_asked,
            upgrade::Wish::TimeUp | upgrade::Wish::Abort => false,
        }
    }
}

/// Why the upgrade of a promotion was paused by us: then it goes on by itself, which one that a person has paused does not.
pub const FROZEN: &str = "FrozenInFlight";

#[cfg(test)]
mod tests;

use jiff::SignedDuration;

use super::*;
use crate::model::approval::Verb;
use crate::model::freeze::InFlight;
use crate::model::upgrade::Wish;
use crate::promotion::obstacle::Verified;
use crate::promotion::obstacle::tests::{breaks, facts, frozen, now, pipeline, said, voice};

/// A promotion with its world, turned until it rests.
struct Story {
    pipeline: PipelineSpec,
    stage: usize,
    spec: PromotionSpec,
    status: PromotionStatus,
    facts: Facts,
    rehearsal: Option<RehearsalRun>,
    upgrade: Option<UpgradeRun>,
    now: Timestamp,
    told: Vec<String>,
}

impl Story {
    fn into(stage: &str) -> Self {
        let pipeline = pipeline();
        let index = pipeline.stages.iter().position(|s| s.name == stage).expect("a stage");
        let mut facts = facts();
        if stage == "staging" {
            facts.upstream.clear();
        }
        Self {
            stage: index,
            spec: PromotionSpec {
                pipeline: "web".to_owned(),
                stage: stage.to_owned(),
                build: "web-2".to_owned(),
                user: "ann".to_owned(),
                automatic: false,
                cancel: false,
                words: Vec::new(),
            },
            status: PromotionStatus::new(now()),
            facts,
            rehearsal: None,
            upgrade: None,
            now: now(),
            told: Vec::new(),
            pipeline,
        }
    }

    fn turn(&mut self) -> Decision {
        let decision = decide(&Case {
            pipeline: &self.pipeline,
            stage: &self.pipeline.stages[self.stage],
            spec: &self.spec,
            status: &self.status,
            facts: &self.facts,
            rehearsal: self.rehearsal.as_ref(),
            upgrade: self.upgrade.as_ref(),
            now: self.now,
        });
        self.status = decision.status.clone();
        self.told
            .extend(decision.events.iter().map(|event| event.reason.clone()));
        decision
    }

    fn rehearsed(&mut self, state: RunState) -> &mut Self {
        self.rehearsal = Some(RehearsalRun {
            rehearsal: "traffic".to_owned(),
            state,
        });
        self
    }

    fn upgraded(&mut self, phase: upgrade::Phase) -> &mut Self {
        self.upgrade = Some(UpgradeRun {
            name: "web-2-abcd".to_owned(),
            phase,
            message: "so it is said".to_owned(),
            is_held_as_asked: false,
            wish: Wish::Proceed,
            is_in_batch: false,
        });
        self
    }
}

#[test]
fn one_that_is_taken_back_does_not_wait_for_its_rehearsal() {
    let mut story = Story::into("staging");
    story.turn();
    story.spec.cancel = true;
    let decision = story.rehearsed(RunState::Running).turn();
    assert_eq!((decision.effect, decision.status.phase), (None, Phase::Cancelled));
    let mut undecided = Story::into("staging");
    undecided.status.undecided = Some("its environment cannot be read".to_owned());
    assert_eq!(undecided.turn().status.undecided, None);
}

#[test]
fn a_build_is_rehearsed_and_then_upgraded() {
    let mut story = Story::into("staging");
    let rehearse = Some(Effect::Rehearse("traffic".to_owned()));
    assert_eq!(story.turn().effect, rehearse);
    assert_eq!(story.status.phase, Phase::Rehearsing);
    // Its driver was killed here: the same is asked for again, and nothing is told twice.
    assert_eq!(story.rehearsed(RunState::Running).turn().effect, rehearse);
    assert_eq!(story.rehearsed(RunState::Passed).turn().effect, Some(Effect::Upgrade));
    assert_eq!(story.turn().effect, Some(Effect::Upgrade));
    assert_eq!(story.upgraded(upgrade::Phase::Rolling).turn().effect, None);
    assert_eq!(story.status.upgrade.as_deref(), Some("web-2-abcd"));
    story.upgraded(upgrade::Phase::Succeeded).turn();
    assert_eq!(story.status.phase, Phase::Succeeded);
    assert_eq!(story.status.finished_at, Some(story.now));
    story.turn();
    assert_eq!(
        story.told,
        [
            "PromotionRehearsing",
            "RehearsalPassed",
            "PromotionUpgrading",
            "PromotionSucceeded"
        ]
    );
}

#[test]
fn what_does_not_come_out_ends_it() {
    let mut story = Story::into("staging");
    story.turn();
    story
        .rehearsed(RunState::Failed("ended RolledBack, expected Succeeded".to_owned()))
        .turn();
    assert_eq!(
        (story.status.phase, story.status.reason.as_str()),
        (Phase::Failed, "RehearsalFailed")
    );
    for phase in [
        upgrade::Phase::RolledBack,
        upgrade::Phase::RollbackIneffective,
        upgrade::Phase::Failed,
        upgrade::Phase::Errored,
        upgrade::Phase::Aborted,
    ] {
        let mut story = Story::into("production");
        story.turn();
        story.upgraded(phase).turn();
        assert_eq!(
            (story.status.phase, story.status.reason),
            (Phase::Failed, format!("{phase:?}"))
        );
    }
}

#[test]
fn what_keeps_it_is_told_once_and_over_when_it_is_over() {
    let mut story = Story::into("production");
    story.facts.voices = said([voice("ann", Verb::Request)]);
    story.facts.freezes.push(frozen(InFlight::FinishUpgrade));
    let decision = story.turn();
    assert_eq!((story.status.phase, decision.effect), (Phase::Waiting, None));
    let reasons: Vec<_> = story.status.waits_for.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(reasons, ["Frozen", "NotApproved"]);
    assert_eq!(decision.wake_at, Some(story.now + SignedDuration::from_hours(5)));
    story.turn();
    assert_eq!(story.told, ["PromotionWaiting"]);
    story.facts.freezes.clear();
    story.turn();
    assert_eq!(story.told.len(), 2, "it waits for less");
    story.facts.voices = facts().voices;
    assert_eq!(story.turn().effect, Some(Effect::Upgrade));
    assert_eq!(story.status.waits_for, []);
}

#[test]
fn what_waiting_does_not_help_ends_it() {
    let mut story = Story::into("production");
    story.facts.build.quarantined = Some("it failed".to_owned());
    story.turn();
    assert_eq!(
        (story.status.phase, story.status.reason.as_str()),
        (Phase::Failed, "Quarantined")
    );
    let mut story = Story::into("production");
    story.facts.upstream[0].verified = Verified::Never;
    story.turn();
    assert_eq!(
        (story.status.phase, story.status.reason.as_str()),
        (Phase::Failed, "NotVerified")
    );
    let mut story = Story::into("production");
    story.facts.voices = said([voice("ann", Verb::Request), voice("bob", Verb::Reject)]);
    story.turn();
    assert_eq!(story.status.phase, Phase::Rejected);
    let mut story = Story::into("production");
    story.spec.cancel = true;
    story.turn();
    assert_eq!(story.status.phase, Phase::Cancelled);
}

#[test]
fn what_was_decided_and_not_begun_is_decided_again() {
    let mut story = Story::into("production");
    assert_eq!(story.turn().effect, Some(Effect::Upgrade));
    // Killed here; and a freeze has begun since.
    story.facts.freezes.push(frozen(InFlight::FinishUpgrade));
    assert_eq!(story.turn().effect, None);
    assert_eq!(story.status.phase, Phase::Waiting);
    story.facts.freezes.clear();
    assert_eq!(story.turn().effect, Some(Effect::Upgrade));
}

/// An object that somebody deletes is not made anew.
#[test]
fn an_upgrade_that_is_gone_is_not_begun_again() {
    let mut story = Story::into("staging");
    story.turn();
    story.rehearsed(RunState::Passed).turn();
    assert_eq!(story.turn().effect, Some(Effect::Upgrade), "not begun, it is begun");
    story.upgraded(upgrade::Phase::Rolling).turn();
    story.upgrade = None;
    assert_eq!(story.turn().effect, None);
    assert_eq!(
        (story.status.phase, story.status.reason.as_str()),
        (Phase::Failed, "UpgradeGone")
    );
}

#[test]
fn a_freeze_lets_an_upgrade_end_or_its_batch_or_pauses_it_and_its_end_lets_go() {
    let under_way = |in_flight| {
        let mut story = Story::into("production");
        story.turn();
        story.upgraded(upgrade::Phase::Rolling).turn();
        story.facts.freezes.push(frozen(in_flight));
        story
    };
    let pause = Some(Effect::Pause("web-2-abcd".to_owned()));
    assert_eq!(under_way(InFlight::FinishUpgrade).turn().effect, None);
    let mut story = under_way(InFlight::Pause);
    assert_eq!(story.turn().effect, pause);
    // The wish was lost on the way.
    assert_eq!(story.turn().effect, pause);
    let run = story.upgrade.as_mut().expect("an upgrade");
    (run.phase, run.wish, run.is_held_as_asked) = (upgrade::Phase::Paused, Wish::Pause, true);
    assert_eq!(story.turn().effect, None);
    story.facts.freezes.clear();
    // Until it does: who was to see to it may have been killed.
    for _ in 0..2 {
        assert_eq!(story.turn().effect, Some(Effect::GoOn("web-2-abcd".to_owned())));
    }
    let run = story.upgrade.as_mut().expect("an upgrade");
    (run.phase, run.wish, run.is_held_as_asked) = (upgrade::Phase::Rolling, Wish::Proceed, false);
    assert_eq!(story.turn().effect, None);
    assert_eq!(story.told[1..], ["PromotionPaused", "PromotionResumed"]);

    let mut story = under_way(InFlight::FinishBatch);
    story.upgrade.as_mut().expect("an upgrade").is_in_batch = true;
    assert_eq!(story.turn().effect, None);
    story.upgrade.as_mut().expect("an upgrade").is_in_batch = false;
    assert_eq!(story.turn().effect, pause);

    // What a person has paused, no freeze lets go on.
    let mut story = under_way(InFlight::Pause);
    let run = story.upgrade.as_mut().expect("an upgrade");
    (run.phase, run.wish) = (upgrade::Phase::Paused, Wish::Pause);
    assert_eq!(story.turn().effect, None);
    story.facts.freezes.clear();
    assert_eq!(story.turn().effect, None);

    // Nor what a gate has held, before a freeze or under one.
    let mut story = under_way(InFlight::Pause);
    story.upgrade.as_mut().expect("an upgrade").phase = upgrade::Phase::Inconclusive;
    assert_eq!(story.turn().effect, None);
    story.facts.freezes.clear();
    assert_eq!(story.turn().effect, None);
    let mut story = under_way(InFlight::Pause);
    assert_eq!(story.turn().effect, pause);
    let run = story.upgrade.as_mut().expect("an upgrade");
    (run.phase, run.wish) = (upgrade::Phase::Inconclusive, Wish::Proceed);
    assert_eq!(story.turn().effect, None);
    story.facts.freezes.clear();
    assert_eq!(story.turn().effect, None);

    // What goes back goes back.
    let mut story = under_way(InFlight::Pause);
    story.upgraded(upgrade::Phase::RollingBack);
    assert_eq!(story.turn().effect, None);
}

#[test]
fn a_broken_glass_is_told_to_everybody_once() {
    let mut story = Story::into("production");
    story.facts.freezes.push(frozen(InFlight::FinishUpgrade));
    story.facts.upstream[0].verified = Verified::Never;
    story.facts.voices = said([voice("ann", Verb::Request), breaks("ann")]);
    // What no waiting would help waits for the second person.
    assert_eq!(story.turn().effect, None);
    assert_eq!(story.status.phase, Phase::Waiting);
    story.told.clear();
    story.facts.voices = said([voice("ann", Verb::Request), breaks("ann"), breaks("bob")]);
    let decision = story.turn();
    assert_eq!(decision.effect, Some(Effect::Upgrade));
    assert_eq!(story.told, ["GlassBroken", "PromotionUpgrading"]);
    assert_eq!(decision.events[0].severity, Severity::Alert);
    assert_eq!(
        decision.events[0].message,
        "the glass is broken (the site is down); passed over: stage staging has not verified it; freeze conference holds until 2026-11-26T17:00:00Z: nobody is on \
         shift; 0 of 1 approvals of managers"
    );
    story.turn();
    assert_eq!(story.told.len(), 2);
}

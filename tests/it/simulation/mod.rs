//! A seeded simulator: the real loop and the real decision on a world where every call may be slow, lost or the last.
//! One seed makes the whole story (clock, hosts, crashes, scripts, operators), so a failing seed is a bug report:
//! `STAGEGATE_SEED=N cargo test --test it simulation::invariants -- --nocapture` tells it alone, line by line.

mod check;
mod coverage;
mod promotions;
mod story;
mod universe;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coverage::Coverage;
use stagegate::engine::Ending;
use story::{Death, Story, interrupted_at, play, play_calm};
use universe::{BuildNature, Guard, Telling};

/// Seeds played by `tests/run`.
const SEEDS: u64 = 10_000;
/// A missing guard must be noticed within this many.
const SEEDS_TO_NOTICE: u64 = 1_000;
/// From so many stories on every cell that can be reached must have been.
const STORIES_FOR_EVERY_CELL: usize = 10_000;
/// Broken stories that are told; more would bury the first.
const TOLD: usize = 3;

/// The driver is asked to end at each of its first calls, which change a node or two.
const MOMENTS_TO_ASK: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn seeds() -> std::ops::Range<u64> {
    match number("STAGEGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STAGEGATE_SEEDS").unwrap_or(SEEDS),
    }
}

/// Plays the seeds on every core; the stories come back in the order of their seeds.
fn play_all(seeds: std::ops::Range<u64>) -> Vec<Story> {
    let next = AtomicU64::new(seeds.start);
    let turns = || {
        let mut mine = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return mine;
            }
            mine.push(play(seed, Guard::AllInPlace, Telling::Silently));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all: Vec<Story> = std::thread::scope(|scope| {
        let players: Vec<_> = (0..cores).map(|_| scope.spawn(turns)).collect();
        let joined = players.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.flat_map(|mine| mine.expect("no story panics")).collect()
    });
    all.sort_by_key(|s| s.seed);
    all
}

/// Tells a broken story again, aloud, with the line that plays it alone.
fn tell(story: &Story) {
    println!("seed {}: {}", story.seed, story.broken.join("; "));
    println!("{}", play(story.seed, Guard::AllInPlace, Telling::Aloud).log.join("\n"));
    println!(
        "again: STAGEGATE_SEED={} cargo test --test it simulation::invariants -- --nocapture\n",
        story.seed
    );
}

#[test]
fn invariants_hold_in_every_story() {
    let seeds = seeds();
    let alone = seeds.end - seeds.start == 1;
    let stories = play_all(seeds);
    let broken: Vec<_> = stories.iter().filter(|s| !s.broken.is_empty()).collect();
    for story in broken.iter().take(TOLD) {
        tell(story);
    }
    if alone && broken.is_empty() {
        stories.iter().for_each(tell);
    }
    let coverage = Coverage::of(&stories);
    println!("{coverage}");
    let numbers: Vec<u64> = broken.iter().map(|s| s.seed).collect();
    assert!(broken.is_empty(), "invariants broken by the seeds {numbers:?}");
    if !alone {
        assert!(
            coverage.stories_with_a_fault * 10 >= stories.len() * 8,
            "only {} of {} stories had a fault",
            coverage.stories_with_a_fault,
            stories.len()
        );
    }
    if stories.len() >= STORIES_FOR_EVERY_CELL {
        let empty = coverage.empty_cells();
        assert!(empty.is_empty(), "never happened: {empty:?}");
    }
}

#[test]
fn a_story_is_the_same_whenever_it_is_told() {
    for seed in 0..50 {
        let again = || play(seed, Guard::AllInPlace, Telling::Aloud);
        let (a, b) = (again(), again());
        assert_eq!((a.log, a.outcome), (b.log, b.outcome), "seed {seed}");
    }
}

/// The driver is killed at its first call, at its second, and so on to the last, and the next one comes at once or an hour later:
/// what comes out is the same every time.
fn wherever_the_driver_dies(nature: BuildNature) {
    let whole = play_calm(nature, None);
    assert_eq!(whole.broken, Vec::<String>::new());
    for call in 1..=whole.calls {
        let away = Duration::from_hours(call % 2);
        let cut = play_calm(nature, Some(Death { call, away }));
        assert_eq!(
            cut.broken,
            Vec::<String>::new(),
            "killed at call {call}:\n{}",
            cut.log.join("\n")
        );
        assert_eq!(
            cut.outcome,
            whole.outcome,
            "killed at call {call}:\n{}",
            cut.log.join("\n")
        );
    }
    println!(
        "{nature:?}: killed at each of {} calls, always:\n{}",
        whole.calls, whole.outcome
    );
}

#[test]
fn an_upgrade_comes_out_the_same_wherever_its_driver_dies() {
    wherever_the_driver_dies(BuildNature::Good);
}

#[test]
fn a_rollback_comes_out_the_same_wherever_its_driver_dies() {
    wherever_the_driver_dies(BuildNature::FailsUnderLoad);
}

#[test]
fn a_driver_that_is_asked_to_end_waits_for_the_steps_that_run() {
    let mut interrupted = 0;
    for call in 1..=MOMENTS_TO_ASK {
        let (ending, at_work) = interrupted_at(call);
        assert_eq!(at_work, Vec::<usize>::new(), "asked at call {call}: {ending:?}");
        interrupted += u64::from(matches!(ending, Ending::Interrupted(_)));
    }
    assert_eq!(interrupted, MOMENTS_TO_ASK, "it was over before it was asked");
}

fn is_noticed(guard: Guard, word: &str) {
    let broken = |seed| play(seed, guard, Telling::Silently).broken;
    let noticed = (0..SEEDS_TO_NOTICE).find(|&seed| broken(seed).iter().any(|b| b.starts_with(word)));
    assert!(
        noticed.is_some(),
        "{guard:?} was not noticed in {SEEDS_TO_NOTICE} seeds"
    );
    println!("{guard:?} noticed by seed {}", noticed.unwrap_or_default());
}

#[test]
fn taking_out_without_asking_is_noticed() {
    is_noticed(Guard::WithoutMaxUnavailable, "I1");
}

#[test]
fn a_missing_fence_is_noticed() {
    is_noticed(Guard::WithoutFence, "I2");
}

#[test]
fn steps_that_run_again_are_noticed() {
    is_noticed(Guard::WithoutStepMemory, "I3");
}

#[test]
fn events_outside_the_transaction_are_noticed() {
    is_noticed(Guard::WithoutOneWrite, "I5");
}

#[test]
fn a_forgotten_quarantine_is_noticed() {
    is_noticed(Guard::WithoutQuarantine, "I4");
}

#[test]
fn a_silent_sensor_taken_for_a_pass_is_noticed() {
    is_noticed(Guard::WithoutSensors, "I7");
}

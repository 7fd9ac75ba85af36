//! How much goes on at a time, and who is next: tasks of one kind share a lane of so many places, in the order in which they came.
//! Lanes have nothing to do with each other, so that no upgrade waits for ten thousand environments to be brought up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::look::Task;

/// Environments that are brought up at a time. Each asks all of its nodes at once and starts what does not run, on a node by a process of
/// ours (`ssh`, a shell) of some MB: with a dozen nodes these are about 400 processes and 2 GB at worst. Where all stands already, one
/// takes some requests and less than a second, so that 10,000 are through within minutes.
const MOST_BRINGING_UP: usize = 32;
/// Upgrades that are driven at a time, for as long as they take: hours. Each looks at its nodes once a second or less, and keeps their
/// samples (some MB), so that these are about 1 GB and, by an estimate of a millisecond a look, a quarter of the one thread that drives.
/// One that is held takes no place.
const MOST_DRIVEN: usize = 256;
/// Replicas that are looked after or taken down at a time: some dozens of requests each, of which an API server has others to serve.
const MOST_KEPT: usize = 8;

/// What tasks of one kind share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    BringUp,
    Drive,
    Keep,
}

impl Lane {
    pub(super) fn of(task: &Task) -> Self {
        match task {
            Task::BringingUp(_) => Lane::BringUp,
            Task::Driving(_) => Lane::Drive,
            Task::Keeping | Task::TakingDown(_) => Lane::Keep,
        }
    }

    fn most(self) -> usize {
        match self {
            Lane::BringUp => MOST_BRINGING_UP,
            Lane::Drive => MOST_DRIVEN,
            Lane::Keep => MOST_KEPT,
        }
    }
}

/// Whether an environment's task may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It has one now.
    Taken,
    /// It has just joined those who wait for one.
    Queued,
    /// It waits as before.
    Waits,
}

#[derive(Debug, Default)]
struct Line {
    under_way: BTreeSet<String>,
    /// Those whose turn it is: a place is kept for them until they have been looked at again, for what they ask may have changed.
    called: BTreeSet<String>,
    waiting: VecDeque<String>,
}

/// Every lane.
#[derive(Debug, Default)]
pub(super) struct Lanes(BTreeMap<Lane, Line>);

impl Lanes {
    /// An environment was looked at and asks for this, or for nothing; tells whether that may be begun. Whatever it asked for before, it
    /// does not any more.
    pub(super) fn asks(&mut self, environment: &str, lane: Option<Lane>) -> Option<Place> {
        for (other, row) in &mut self.0 {
            if Some(*other) != lane {
                row.called.remove(environment);
                row.waiting.retain(|waits| waits != environment);
            }
        }
        let lane = lane?;
        let row = self.0.entry(lane).or_default();
        let is_called = row.called.remove(environment);
        if is_called || row.waiting.is_empty() && row.taken() < lane.most() {
            row.under_way.insert(environment.to_owned());
            return Some(Place::Taken);
        }
        if row.waiting.iter().any(|waits| waits == environment) {
            return Some(Place::Waits);
        }
        row.waiting.push_back(environment.to_owned());
        Some(Place::Queued)
    }

    /// Its task has ended.
    pub(super) fn ended(&mut self, environment: &str) {
        for line in self.0.values_mut() {
            line.under_way.remove(environment);
        }
    }

    /// Those whose turn it is by now: they are looked at, and have a place if they still ask for it.
    pub(super) fn call(&mut self) -> Vec<String> {
        let mut called = Vec::new();
        for (lane, line) in &mut self.0 {
            while line.taken() < lane.most()
                && let Some(next) = line.waiting.pop_front()
            {
                line.called.insert(next.clone());
                called.push(next);
            }
        }
        called
    }

    /// Whether it waits for a place.
    pub(super) fn waits(&self, environment: &str) -> bool {
        self.0
            .values()
            .any(|line| line.waiting.iter().any(|waits| waits == environment))
    }

    /// How many do.
    pub(super) fn waiting(&self) -> usize {
        self.0.values().map(|line| line.waiting.len()).sum()
    }
}

impl Line {
    fn taken(&self) -> usize {
        self.under_way.len() + self.called.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lane: &str, count: usize) -> Vec<String> {
        (0..count).map(|n| format!("{lane}{n:05}")).collect()
    }

    #[test]
    fn no_upgrade_waits_for_environments_that_are_brought_up() {
        let mut lanes = Lanes::default();
        let asked = names("new", 10_000);
        let places: Vec<_> = asked.iter().map(|name| lanes.asks(name, Some(Lane::BringUp))).collect();
        let begun = places.iter().filter(|place| **place == Some(Place::Taken)).count();
        assert_eq!((begun, lanes.waiting()), (MOST_BRINGING_UP, 10_000 - MOST_BRINGING_UP));
        assert_eq!(lanes.asks("shop", Some(Lane::Drive)), Some(Place::Taken));
    }

    #[test]
    fn who_came_first_is_next_whoever_is_looked_at_meanwhile() {
        let mut lanes = Lanes::default();
        let all = names("e", MOST_KEPT + 3);
        for name in &all {
            lanes.asks(name, Some(Lane::Keep));
        }
        let (under_way, waiting) = all.split_at(MOST_KEPT);
        // Looks of those who wait, in another order, change nothing.
        assert_eq!(lanes.asks(&waiting[2], Some(Lane::Keep)), Some(Place::Waits));
        assert!(lanes.call().is_empty() && lanes.waits(&waiting[0]));
        lanes.ended(&under_way[3]);
        assert_eq!(lanes.call(), [waiting[0].clone()]);
        // The place is kept for it.
        assert_eq!(lanes.asks("another", Some(Lane::Keep)), Some(Place::Queued));
        assert_eq!(lanes.asks(&waiting[0], Some(Lane::Keep)), Some(Place::Taken));
        // One that asks for nothing any more, or for something else, leaves its place to the next.
        lanes.ended(&under_way[0]);
        assert_eq!(lanes.call(), [waiting[1].clone()]);
        assert_eq!(lanes.asks(&waiting[1], None), None);
        assert_eq!(lanes.asks(&waiting[2], Some(Lane::Drive)), Some(Place::Taken));
        assert_eq!(lanes.call(), ["another"]);
        assert_eq!(lanes.waiting(), 0);
    }
}

//! How much goes on at a time, and who is next: tasks of one kind share a lane of so many places, in the order in which they came.
//! Lanes have nothing to do with each other, so that no upgrade waits for ten thousand environments to be brought up.

use std::collections::{BTreeMap, BTreeSet};

use super::look::{Lane, Stage, Task};

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

impl Lane {
    fn most(self) -> usize {
        match self {
            Lane::BringUp => MOST_BRINGING_UP,
            Lane::Drive => MOST_DRIVEN,
            Lane::Keep => MOST_KEPT,
        }
    }
}

/// What an environment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    lane: Lane,
    stage: Stage,
}

impl Ask {
    pub(super) fn of(task: &Task) -> Self {
        let stage = match task {
            Task::Driving { stage, .. } => *stage,
            // It keeps a workload from its owner, and takes a call or two.
            Task::GivingBack(_) => Stage::Begun,
            Task::BringingUp(_) | Task::Keeping | Task::TakingDown(_) => Stage::New,
        };
        Self {
            lane: task.lane(),
            stage,
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

/// Whose turn is earlier: what is half done keeps nodes out of service and goes on before anything else is begun; then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    stage: Stage,
    number: u64,
}

#[derive(Debug, Default)]
struct Line {
    under_way: BTreeSet<String>,
    /// Those whose turn it is: a place is kept for them until they have been looked at again, for what they ask may have changed.
    called: BTreeSet<String>,
    /// Of all who wait or are called.
    tickets: BTreeMap<String, Ticket>,
    /// Those who may be called. One whose look has failed, or whose replica is looked after, can take no place before it asks again,
    /// and keeps its ticket.
    ready: BTreeMap<Ticket, String>,
}

/// Every lane.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lines: BTreeMap<Lane, Line>,
    /// Tickets that were given.
    given: u64,
}

impl Lanes {
    /// An environment was looked at and asks for this, or for nothing; tells whether that may be begun. Whatever it asked for before, it
    /// does not any more.
    pub(super) fn asks(&mut self, environment: &str, ask: Option<Ask>) -> Option<Place> {
        let is_busy = self.lines.values().any(|line| line.under_way.contains(environment));
        if ask.is_none() && is_busy {
            // What it asks for is seen once that has ended.
            return None;
        }
        for (other, line) in &mut self.lines {
            match ask {
                Some(ask) if ask.lane == *other => {}
                // That is short, and what it waits for otherwise it asks for again after it.
                Some(ask) if ask.lane == Lane::Keep => line.rest(environment),
                Some(_) | None => line.leave(environment),
            }
        }
        let Ask { lane, stage } = ask?;
        let line = self.lines.entry(lane).or_default();
        let had = line.tickets.get(environment).copied();
        let number = had.map_or(self.given, |had| had.number);
        let ticket = Ticket { stage, number };
        let is_first = line.ready.first_key_value().is_none_or(|(first, _)| *first >= ticket);
        let is_next = is_first && line.taken() < lane.most();
        if line.called.contains(environment) || is_next {
            line.leave(environment);
            line.under_way.insert(environment.to_owned());
            return Some(Place::Taken);
        }
        if let Some(had) = line.tickets.insert(environment.to_owned(), ticket) {
            line.ready.remove(&had);
        }
        line.ready.insert(ticket, environment.to_owned());
        if had.is_some() {
            return Some(Place::Waits);
        }
        self.given += 1;
        Some(Place::Queued)
    }

    /// It could not be looked at, or its files cannot be read: its place is another's meanwhile, and its turn stays what it was.
    pub(super) fn stumbled(&mut self, environment: &str) {
        for line in self.lines.values_mut() {
            line.rest(environment);
        }
    }

    /// Its task has ended.
    pub(super) fn ended(&mut self, environment: &str) {
        for line in self.lines.values_mut() {
            line.under_way.remove(environment);
        }
    }

    /// Those whose turn it is by now: they are looked at, and have a place if they still ask for it.
    pub(super) fn call(&mut self) -> Vec<String> {
        let mut called = Vec::new();
        for (lane, line) in &mut self.lines {
            while line.taken() < lane.most()
                && let Some((_, next)) = line.ready.pop_first()
            {
                line.called.insert(next.clone());
                called.push(next);
            }
        }
        called
    }

    /// Where it waits for a place.
    pub(super) fn waits_in(&self, environment: &str) -> BTreeSet<Lane> {
        let waits = |line: &Line| line.tickets.contains_key(environment) && !line.called.contains(environment);
        let all = self.lines.iter().filter(|(_, line)| waits(line));
        all.map(|(lane, _)| *lane).collect()
    }

    /// How many do.
    pub(super) fn waiting(&self) -> usize {
        let lines = self.lines.values();
        lines.map(|line| line.tickets.len() - line.called.len()).sum()
    }
}

impl Line {
    fn taken(&self) -> usize {
        self.under_way.len() + self.called.len()
    }

    fn rest(&mut self, environment: &str) {
        self.called.remove(environment);
        if let Some(ticket) = self.tickets.get(environment) {
            self.ready.remove(ticket);
        }
    }

    fn leave(&mut self, environment: &str) {
        self.called.remove(environment);
        if let Some(ticket) = self.tickets.remove(environment) {
            self.ready.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BRING_UP: Ask = Ask {
        lane: Lane::BringUp,
        stage: Stage::New,
    };
    const KEEP: Ask = Ask {
        lane: Lane::Keep,
        stage: Stage::New,
    };

    fn drive(stage: Stage) -> Ask {
        Ask {
            lane: Lane::Drive,
            stage,
        }
    }

    fn names(lane: &str, count: usize) -> Vec<String> {
        (0..count).map(|n| format!("{lane}{n:05}")).collect()
    }

    /// A lane of which every place is taken.
    fn full(ask: Ask) -> (Lanes, Vec<String>) {
        let mut lanes = Lanes::default();
        let under_way = names("busy", ask.lane.most());
        for name in &under_way {
            assert_eq!(lanes.asks(name, Some(ask)), Some(Place::Taken));
        }
        (lanes, under_way)
    }

    #[test]
    fn no_upgrade_waits_for_environments_that_are_brought_up() {
        let mut lanes = Lanes::default();
        let asked = names("new", 10_000);
        let places: Vec<_> = asked.iter().map(|name| lanes.asks(name, Some(BRING_UP))).collect();
        let begun = places.iter().filter(|place| **place == Some(Place::Taken)).count();
        assert_eq!((begun, lanes.waiting()), (MOST_BRINGING_UP, 10_000 - MOST_BRINGING_UP));
        assert_eq!(lanes.asks("shop", Some(drive(Stage::New))), Some(Place::Taken));
    }

    #[test]
    fn who_came_first_is_next_whoever_is_looked_at_meanwhile() {
        let (mut lanes, under_way) = full(KEEP);
        let waiting = names("e", 3);
        for name in &waiting {
            lanes.asks(name, Some(KEEP));
        }
        // Looks of those who wait, in another order, change nothing.
        assert_eq!(lanes.asks(&waiting[2], Some(KEEP)), Some(Place::Waits));
        assert!(lanes.call().is_empty() && lanes.waits_in(&waiting[0]) == [Lane::Keep].into());
        lanes.ended(&under_way[3]);
        assert_eq!(lanes.call(), [waiting[0].clone()]);
        // The place is kept for it.
        assert_eq!(lanes.asks("another", Some(KEEP)), Some(Place::Queued));
        assert_eq!(lanes.asks(&waiting[0], Some(KEEP)), Some(Place::Taken));
        // One that asks for nothing any more, or for something else, leaves its place to the next.
        lanes.ended(&under_way[0]);
        assert_eq!(lanes.call(), [waiting[1].clone()]);
        assert_eq!(lanes.asks(&waiting[1], None), None);
        assert_eq!(lanes.asks(&waiting[2], Some(drive(Stage::New))), Some(Place::Taken));
        assert_eq!(lanes.call(), ["another"]);
        assert_eq!(lanes.waiting(), 0);
    }

    #[test]
    fn a_look_that_failed_gives_its_place_away_and_keeps_its_turn() {
        let (mut lanes, under_way) = full(KEEP);
        for name in ["a", "b", "c"] {
            lanes.asks(name, Some(KEEP));
        }
        lanes.ended(&under_way[0]);
        assert_eq!(lanes.call(), ["a"]);
        lanes.stumbled("a");
        assert_eq!(lanes.call(), ["b"], "nothing stands idle meanwhile");
        assert_eq!(lanes.waits_in("a"), [Lane::Keep].into());
        // It is not called before its look has its time again.
        lanes.stumbled("b");
        lanes.stumbled("c");
        assert!(lanes.call().is_empty());
        assert_eq!(lanes.asks("another", Some(KEEP)), Some(Place::Taken));
        assert_eq!(lanes.asks("later", Some(KEEP)), Some(Place::Queued));
        for name in ["c", "a", "b"] {
            assert_eq!(lanes.asks(name, Some(KEEP)), Some(Place::Waits), "{name}");
        }
        for (ended, next) in [(1, "a"), (2, "b"), (3, "c"), (4, "later")] {
            lanes.ended(&under_way[ended]);
            let called = lanes.call();
            assert_eq!(called, [next]);
            assert_eq!(lanes.asks(next, Some(KEEP)), Some(Place::Taken));
        }
    }

    #[test]
    fn what_was_begun_goes_on_before_anything_is_begun() {
        let (mut lanes, under_way) = full(drive(Stage::New));
        for (name, stage) in [
            ("new", Stage::New),
            ("begun", Stage::Begun),
            ("newer", Stage::New),
            ("later", Stage::Begun),
        ] {
            assert_eq!(lanes.asks(name, Some(drive(stage))), Some(Place::Queued));
        }
        // Its first upgrade was aborted meanwhile, and what it asks for now is to go back.
        assert_eq!(lanes.asks("newer", Some(drive(Stage::Begun))), Some(Place::Waits));
        for (ended, next) in ["begun", "newer", "later", "new"].into_iter().enumerate() {
            lanes.ended(&under_way[ended]);
            assert_eq!(lanes.call(), [next]);
            assert_eq!(lanes.asks(next, Some(drive(Stage::Begun))), Some(Place::Taken));
        }
    }

    #[test]
    fn an_upgrade_keeps_its_turn_while_its_replica_is_looked_after() {
        let (mut lanes, under_way) = full(drive(Stage::New));
        for name in ["replica", "other"] {
            lanes.asks(name, Some(drive(Stage::New)));
        }
        assert_eq!(lanes.asks("replica", Some(KEEP)), Some(Place::Taken));
        assert_eq!(
            lanes.asks("replica", None),
            None,
            "of what is under way nothing more is begun"
        );
        lanes.ended(&under_way[0]);
        assert_eq!(lanes.call(), ["other"], "nothing stands idle meanwhile");
        lanes.ended("replica");
        assert_eq!(lanes.asks("another", Some(drive(Stage::New))), Some(Place::Queued));
        assert_eq!(lanes.asks("replica", Some(drive(Stage::New))), Some(Place::Waits));
        lanes.ended(&under_way[1]);
        assert_eq!(lanes.call(), ["replica"]);
    }

    /// What may become of an environment.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        Asks(Stage),
        AsksNothing,
        Stumbles,
        Ends,
        /// Whoever's turn it is, is told.
        Call,
    }

    fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
        let act = prop_oneof![
            6 => prop_oneof![Just(Stage::Begun), Just(Stage::New)].prop_map(Act::Asks),
            1 => Just(Act::AsksNothing),
            2 => Just(Act::Stumbles),
            4 => Just(Act::Ends),
            3 => Just(Act::Call),
        ];
        proptest::collection::vec((0..3 * MOST_KEPT, act), 0..200)
    }

    proptest! {
        #[test]
        fn nobody_is_overtaken_by_who_came_later_or_is_to_be_begun(acts in acts()) {
            let mut lanes = Lanes::default();
            let all = names("e", 3 * MOST_KEPT);
            // Who waits since when, as they ask for it, and those of them that cannot be looked at.
            let (mut since, mut away) = (BTreeMap::new(), BTreeSet::new());
            let (mut busy, mut called) = (BTreeSet::new(), BTreeSet::new());
            for (now, (who, act)) in acts.into_iter().enumerate() {
                let name = &all[who];
                match act {
                    // One that is busy is not asked what it wants.
                    Act::Asks(_) | Act::AsksNothing | Act::Stumbles if busy.contains(&who) => {}
                    Act::Asks(stage) => {
                        let place = lanes.asks(name, Some(Ask { lane: Lane::Keep, stage }));
                        let (_, came) = since.get(&who).copied().unwrap_or((stage, now));
                        away.remove(&who);
                        if place == Some(Place::Taken) {
                            let earlier = since.iter().find(|(other, turn)| {
                                **other != who && !away.contains(*other) && !called.contains(*other) && **turn < (stage, came)
                            });
                            prop_assert!(called.contains(&who) || earlier.is_none(), "{who} goes before {earlier:?}");
                            since.remove(&who);
                            called.remove(&who);
                            busy.insert(who);
                        } else {
                            prop_assert!(!called.contains(&who), "{who} was called in vain");
                            let expected = if since.contains_key(&who) { Place::Waits } else { Place::Queued };
                            prop_assert_eq!(place, Some(expected));
                            since.insert(who, (stage, came));
                        }
                    }
                    Act::AsksNothing => {
                        prop_assert_eq!(lanes.asks(name, None), None);
                        since.remove(&who);
                        called.remove(&who);
                        away.remove(&who);
                    }
                    Act::Stumbles => {
                        lanes.stumbled(name);
                        called.remove(&who);
                        if since.contains_key(&who) {
                            away.insert(who);
                        }
                    }
                    Act::Ends => {
                        lanes.ended(name);
                        busy.remove(&who);
                    }
                    Act::Call => {
                        let now_called = lanes.call();
                        let mut ready: Vec<_> = since
                            .iter()
                            .filter(|(other, _)| !away.contains(*other) && !called.contains(*other))
                            .map(|(other, turn)| (*turn, *other))
                            .collect();
                        ready.sort_unstable();
                        ready.truncate(MOST_KEPT - busy.len() - called.len());
                        let expected: Vec<String> = ready.iter().map(|(_, other)| all[*other].clone()).collect();
                        prop_assert_eq!(now_called, expected);
                        called.extend(ready.into_iter().map(|(_, other)| other));
                    }
                }
                prop_assert!(busy.len() + called.len() <= MOST_KEPT);
                prop_assert_eq!(lanes.waiting(), since.len() - called.len());
                prop_assert_eq!(!lanes.waits_in(name).is_empty(), since.contains_key(&who) && !called.contains(&who));
            }
        }
    }
}

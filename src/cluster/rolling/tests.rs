use super::*;
use crate::cluster::pod::Waiting;
use crate::hosts::{Ended, IMAGE_NOT_FETCHED};

const OLD: &str = "r@sha256:old";
const NEW: &str = "r@sha256:new";

fn old() -> Digest {
    Digest::of(b"old")
}
fn new() -> Digest {
    Digest::of(b"new")
}
fn just_ended(went: Went) -> Leaving<'static> {
    Leaving::JustEnded(Ended { upgrade: "up", went })
}
fn token(counter: u64) -> FencingToken {
    FencingToken {
        home: "home".to_owned(),
        counter,
    }
}

fn ask(ordinal: u32, id: &str, asked: &Asked) -> Ask {
    Ask {
        ordinal,
        token: token(1),
        id: id.to_owned(),
        asked: asked.clone(),
    }
}
fn replace() -> Asked {
    Asked::Replace {
        deadline: Duration::from_mins(1),
    }
}

/// A cluster with one set, as its controller treats it: under `RollingUpdate` who is at or above the boundary and not as the
/// template is replaced, from the top, and once all are the template's revision is the current one; under `OnDelete` neither.
struct Cluster {
    set: Set,
    made: u32,
    /// Pods that the controller moved of its own accord.
    moved: Vec<u32>,
}

impl Cluster {
    fn of(replicas: u32) -> Self {
        let mut cluster = Self {
            set: Set {
                replicas,
                strategy: Strategy::Rolling { partition: 0 },
                own: serde_json::json!({"type": "RollingUpdate"}),
                rollout: Rollout::Complete,
                is_ordered: true,
                has_history: true,
                writer: Some("kubectl-set".to_owned()),
                container: "app".to_owned(),
                template: OLD.to_owned(),
                rest: Digest::of(b"rest"),
                revision: "web-1".to_owned(),
                current: OLD.to_owned(),
                images: BTreeMap::from([(old(), OLD.to_owned()), (new(), NEW.to_owned())]),
                pods: BTreeMap::new(),
                record: Record::default(),
            },
            made: 0,
            moved: Vec::new(),
        };
        (0..replicas).for_each(|i| cluster.make(i));
        cluster
    }

    /// One is made anew, as the set has it.
    fn make(&mut self, ordinal: u32) {
        self.made += 1;
        let image = self.set.image_for(ordinal).to_owned();
        let pod = Pod {
            uid: format!("uid{}", self.made),
            is_of_template: image == self.set.template,
            image,
            is_ready: true,
            running_since: Some(Timestamp::UNIX_EPOCH),
            ..Pod::default()
        };
        self.set.pods.insert(ordinal, pod);
    }

    /// What the controller does until it has nothing to do.
    fn settle(&mut self) {
        if let Strategy::Rolling { partition } = self.set.strategy {
            let from_the_top: Vec<u32> = self
                .set
                .pods
                .range(partition..)
                .rev()
                .map(|(ordinal, _)| *ordinal)
                .collect();
            for ordinal in from_the_top {
                if self.set.pods[&ordinal].image != self.set.template {
                    self.moved.push(ordinal);
                    self.make(ordinal);
                }
            }
            if self.set.pods.values().all(|pod| pod.image == self.set.template) {
                self.set.current = self.set.template.clone();
            }
        }
        let is_of_one =
            self.set.current == self.set.template && self.set.pods.values().all(|pod| pod.image == self.set.template);
        self.set.rollout = if is_of_one { Rollout::Complete } else { Rollout::Rolling };
    }

    /// Somebody scales it, and its controller makes the pods.
    fn scale(&mut self, replicas: u32) {
        self.set.replicas = replicas;
        self.set.pods.retain(|ordinal, _| *ordinal < replicas);
        for ordinal in 0..replicas {
            if !self.set.pods.contains_key(&ordinal) {
                self.make(ordinal);
            }
        }
    }

    fn write(&mut self, change: Change) {
        let Change {
            record,
            template,
            mover,
        } = change;
        self.set.template = match template {
            Template::Same => self.set.template.clone(),
            Template::Image(image) => image,
            Template::Revision(revision) => {
                assert_eq!(revision, "web-1", "what the set was on");
                self.set.rest = Digest::of(b"rest");
                OLD.to_owned()
            }
        };
        self.set.record = record;
        self.set.strategy = match mover {
            Mover::Same => self.set.strategy,
            Mover::Ours(strategy) => strategy,
            Mover::Owners => Strategy::Rolling { partition: 0 },
        };
        for pod in self.set.pods.values_mut() {
            pod.is_of_template = pod.image == self.set.template;
        }
    }

    fn ask(&mut self, ordinal: u32, id: &str, asked: &Asked) -> Result<(), Refused> {
        let answer = self.set.ask(&ask(ordinal, id, asked), Timestamp::UNIX_EPOCH)?;
        if let Answer::Write(change) = answer {
            self.write(*change);
            self.delete(ordinal, id);
            self.settle();
        }
        Ok(())
    }

    /// What a driver deletes for a step.
    fn delete(&mut self, ordinal: u32, id: &str) {
        let strangers = self.set.strangers_to_delete().into_iter().map(|(ordinal, _)| ordinal);
        let own = self.set.to_delete(ordinal, id).map(|_| ordinal);
        for ordinal in strangers.chain(own).collect::<Vec<_>>() {
            self.make(ordinal);
        }
    }

    /// Takes it for an upgrade.
    fn take(&mut self, upgrade: &str) -> Result<(), Refused> {
        self.ask(0, &format!("{upgrade}.0.check"), &Asked::Take)
    }

    /// One that an upgrade has.
    fn taken(replicas: u32) -> Self {
        let mut cluster = Self::of(replicas);
        cluster.take("up").expect("taken");
        cluster
    }

    /// Points a pod to a build and has it made anew, by an upgrade that takes the set first.
    fn bring(&mut self, ordinal: u32, release: Digest, upgrade: &str, n: u32) -> Result<(), Refused> {
        if self.set.record.taken.is_none() {
            self.take(upgrade)?;
        }
        self.ask(ordinal, &format!("{upgrade}.{n}.activate"), &Asked::Point { release })?;
        self.ask(ordinal, &format!("{upgrade}.{}.restart", n + 1), &replace())
    }

    fn is_settled(&self) -> bool {
        self.set.rollout.is_settled()
    }

    fn give_back(&mut self) {
        if let Some(change) = self.set.given_back(&just_ended(Went::Forward)) {
            self.write(change);
        }
        self.settle();
    }

    fn images(&self) -> String {
        let letter = |pod: &Pod| if pod.image == NEW { 'n' } else { 'o' };
        self.set.pods.values().map(letter).collect()
    }
}

#[test]
fn pods_move_one_at_a_time_from_the_top_and_all_the_way() {
    let mut cluster = Cluster::of(3);
    assert_eq!(cluster.bring(1, new(), "up", 0), Err(Refused::Order { above: 2 }));
    for (ordinal, after) in [(2, "oon"), (1, "onn"), (0, "nnn")] {
        cluster.bring(ordinal, new(), "up", 4).expect("moved");
        assert_eq!(cluster.images(), after);
    }
    cluster.give_back();
    assert_eq!(
        (cluster.moved.as_slice(), cluster.made),
        (&[][..], 6),
        "nobody moved but by us, and once"
    );
    assert_eq!((cluster.set.current.as_str(), cluster.is_settled()), (NEW, true));
    assert_eq!(cluster.set.strategy, Strategy::Rolling { partition: 0 });
    let fence = Some(token(1));
    assert_eq!(
        cluster.set.record,
        Record {
            fence,
            ..Record::default()
        }
    );
}

#[test]
fn the_way_back_takes_the_sick_first_wherever_it_begins() {
    for (forward, back) in [
        (&[3, 2, 1][..], &[(1, "oonn"), (3, "oono"), (2, "oooo")][..]),
        // Here the set counts the new build as its current one.
        (&[3, 2, 1, 0], &[(1, "nonn"), (0, "oonn"), (3, "oono"), (2, "oooo")]),
    ] {
        let mut cluster = Cluster::of(4);
        for ordinal in forward {
            cluster.bring(*ordinal, new(), "up", 0).expect("moved");
        }
        for (ordinal, after) in back {
            cluster.bring(*ordinal, old(), "up", 2).expect("moved back");
            assert_eq!(cluster.images(), *after);
        }
        assert!(cluster.moved.is_empty(), "{:?}", cluster.moved);
        cluster.give_back();
        assert!(cluster.is_settled() && cluster.moved.is_empty());
        cluster.bring(3, new(), "next", 0).expect("as ever");
        assert_eq!(cluster.images(), "ooon");
    }
}

#[test]
fn a_pod_that_is_lost_meanwhile_comes_back_with_what_it_had_and_on_the_way_back_with_what_it_goes_back_to() {
    let mut cluster = Cluster::of(3);
    cluster.bring(2, new(), "up", 0).expect("moved");
    (0..3).for_each(|ordinal| cluster.make(ordinal));
    assert_eq!(cluster.images(), "oon");
    for ordinal in [1, 0] {
        cluster.bring(ordinal, new(), "up", 0).expect("moved");
    }
    cluster.bring(0, old(), "up", 2).expect("moved back");
    cluster.make(1);
    assert_eq!(cluster.images(), "oon");
    // One that nobody could bring back is its controller's in the end.
    cluster.give_back();
    assert_eq!((cluster.images().as_str(), cluster.moved.as_slice()), ("ooo", &[2][..]));
}

#[test]
fn older_drivers_other_homes_other_hands_and_what_rolls_are_refused() {
    let mut cluster = Cluster::of(2);
    cluster.bring(1, new(), "up", 0).expect("moved");
    let asked = |set: &Set, token: &FencingToken, id: &str| {
        let ask = Ask {
            token: token.clone(),
            ..ask(1, id, &Asked::Point { release: old() })
        };
        set.ask(&ask, Timestamp::UNIX_EPOCH).map(|_| ())
    };
    let mut set = cluster.set.clone();
    assert_eq!(
        asked(&set, &token(0), "up.9.activate"),
        Err(Refused::Fenced { seen: 1 })
    );
    let foreign = FencingToken {
        home: "elsewhere".to_owned(),
        counter: 9,
    };
    let seen = "home".to_owned();
    assert_eq!(asked(&set, &foreign, "up.9.activate"), Err(Refused::Foreign { seen }));
    assert_eq!(
        asked(&set, &token(1), "next.0.activate"),
        Err(Refused::Taken { by: "up".to_owned() })
    );
    for edit in [
        |set: &mut Set| set.template = "r@sha256:hand".to_owned(),
        |set: &mut Set| set.strategy = Strategy::Rolling { partition: 0 },
        |set: &mut Set| set.replicas = 5,
        |set: &mut Set| set.rest = Digest::of(b"another variable"),
        // Its container has another name.
        |set: &mut Set| set.template = String::new(),
    ] {
        edit(&mut set);
        let forward = Asked::Point { release: new() };
        let edited = set.ask(&ask(1, "up.9.activate", &forward), Timestamp::UNIX_EPOCH);
        assert!(matches!(edited, Err(Refused::ForeignEdit { .. })), "{edited:?}");
        // Whoever goes back puts it right.
        let mut edited = Cluster {
            set,
            made: 9,
            moved: Vec::new(),
        };
        edited.bring(1, old(), "up", 10).expect("back");
        assert!(edited.set.foreign_edit().is_some(), "what was there is known");
        assert_eq!((edited.images().as_str(), edited.set.rest), ("oo", Digest::of(b"rest")));
        set = cluster.set.clone();
    }
    for (edit, refused) in [
        (
            (|set: &mut Set| set.rollout = Rollout::Rolling) as fn(&mut Set),
            Refused::Unsettled,
        ),
        (|set| set.has_history = false, Refused::NoHistory),
        (
            |set| set.strategy = Strategy::Rolling { partition: 1 },
            Refused::Partitioned { partition: 1 },
        ),
        (
            |set| set.pods.get_mut(&0).expect("there").image = "mirror/r@sha256:old".to_owned(),
            Refused::Rewritten {
                image: "mirror/r@sha256:old".to_owned(),
                template: OLD.to_owned(),
            },
        ),
    ] {
        let mut cluster = Cluster::of(2);
        edit(&mut cluster.set);
        assert_eq!(cluster.take("up"), Err(refused));
    }
    assert_eq!(Cluster::of(2).take("up"), Ok(()));
    assert_eq!(cluster.take("up"), Ok(()), "which has it");
    let by = "up".to_owned();
    assert_eq!(cluster.take("next"), Err(Refused::Taken { by }));
    // One that is sick below would keep this one from being made anew.
    let mut sick = Cluster::of(3);
    sick.set.pods.get_mut(&1).expect("there").is_ready = false;
    assert_eq!(sick.bring(2, new(), "up", 0), Err(Refused::NotReady { below: 1 }));
    sick.set.is_ordered = false;
    sick.bring(2, new(), "up", 2).expect("made beside the others");
}

/// One pod that was told to make way a moment ago, and the set's name for it.
fn replacing() -> (Set, Pod) {
    let mut cluster = Cluster::taken(1);
    cluster
        .ask(0, "up.0.activate", &Asked::Point { release: new() })
        .expect("written");
    let before = cluster.set.pods[&0].clone();
    let answer = cluster
        .set
        .ask(&ask(0, "up.1.restart", &replace()), Timestamp::UNIX_EPOCH);
    let Ok(Answer::Write(change)) = answer else {
        panic!("{answer:?}")
    };
    cluster.write(*change);
    (cluster.set, before)
}

/// The same with this pod in its place.
fn with(set: &Set, pod: Option<&Pod>) -> Set {
    Set {
        pods: pod.map(|pod| (0, pod.clone())).into_iter().collect(),
        ..set.clone()
    }
}

/// Its successor, with this image.
fn next(image: &str) -> Pod {
    Pod {
        uid: "next".to_owned(),
        image: image.to_owned(),
        ..Pod::default()
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_step_is_known_by_its_id_and_ends_as_its_pod_does() {
    let (set, before) = replacing();
    let at = Timestamp::UNIX_EPOCH;
    let waits = |reason: &str| Pod {
        waiting: Some(Waiting {
            restarts: 0,
            reason: reason.to_owned(),
            message: "m".to_owned(),
        }),
        placed_at: Some(at),
        is_of_template: true,
        ..next(NEW)
    };
    let placed = |pod: Pod| Pod {
        placed_at: Some(at),
        ..pod
    };
    let crashed = |restarts: u32| Pod {
        waiting: Some(Waiting {
            restarts,
            reason: "CrashLoopBackOff".to_owned(),
            message: "m".to_owned(),
        }),
        ..waits("CrashLoopBackOff")
    };
    let made_late = |pod: Pod| Pod {
        made_at: at + Duration::from_secs(40),
        placed_at: Some(at + Duration::from_secs(45)),
        ..pod
    };
    let ready = Pod {
        is_ready: true,
        ..next(NEW)
    };
    let ending = Pod {
        ending: true,
        ..before.clone()
    };
    let rewritten = Pod {
        is_of_template: true,
        ..next("mirror/r@sha256:new")
    };
    let after = |seconds: u64| at + Duration::from_secs(seconds);
    let (soon, late) = (after(59), after(61));
    let another = "the pod comes back with image r@sha256:old, which is another";
    for (pod, now, expected, is_stuck) in [
        (Some(before.clone()), soon, None, false),
        (Some(before.clone()), late, None, false),
        (Some(before.clone()), at - Duration::from_secs(1_000), None, false),
        (Some(ending.clone()), soon, None, false),
        // No byte of the new build has run.
        (Some(ending.clone()), late, None, true),
        (None, soon, None, false),
        (None, late, None, true),
        (Some(waits("ImagePullBackOff")), after(30), None, false),
        (
            Some(waits("ImagePullBackOff")),
            after(31),
            Some((IMAGE_NOT_FETCHED, "ImagePullBackOff: m")),
            false,
        ),
        (Some(made_late(waits("ImagePullBackOff"))), soon, None, false),
        (Some(crashed(1)), soon, None, false),
        (Some(crashed(2)), after(20), Some((1, "CrashLoopBackOff: m")), false),
        (
            Some(waits("InvalidImageName")),
            at,
            Some((1, "InvalidImageName: m")),
            false,
        ),
        (Some(waits("ContainerCreating")), soon, None, false),
        (
            Some(waits("ContainerCreating")),
            late,
            Some((IMAGE_NOT_FETCHED, "ContainerCreating: m")),
            false,
        ),
        (Some(made_late(waits("ContainerCreating"))), late, None, false),
        (Some(next(NEW)), soon, None, false),
        (Some(next(NEW)), late, None, true),
        (
            Some(placed(next(NEW))),
            late,
            Some((124, "its container is not ready")),
            false,
        ),
        (Some(next(OLD)), soon, None, false),
        (Some(next(OLD)), late, Some((124, another)), false),
        // Made by a template that somebody else has written meanwhile, or by that of before, and then the next one will be right.
        (
            Some(Pod {
                is_of_template: true,
                ..next("")
            }),
            soon,
            Some((1, "its template has no container app, so the pod runs no build")),
            false,
        ),
        (Some(next("")), soon, None, false),
        // By whatever does it; no build is to blame, and nothing is waited for.
        (Some(rewritten.clone()), soon, None, true),
        (Some(rewritten.clone()), late, None, true),
        (Some(ready), soon, Some((0, "")), false),
    ] {
        let expected = match expected {
            None => StepState::Running,
            Some((exit, why)) => ended(exit, why.to_owned()),
        };
        let set = with(&set, pod.as_ref());
        let state = set.state(0, "up.1.restart", now);
        assert_eq!(state, Some(expected), "{pod:?} at {now}");
        let stuck = set.stuck(0, "up.1.restart", now);
        assert_eq!(stuck.is_some(), is_stuck, "{pod:?} at {now}: {stuck:?}");
    }
    // Who writes its template is somebody else, and nothing is waited for either.
    let mut edited = with(&set, Some(&rewritten));
    edited.template.clone_from(&rewritten.image);
    let words = "the pod was made with image mirror/r@sha256:new: somebody else writes its set's template".to_owned();
    assert_eq!(edited.state(0, "up.1.restart", soon), Some(ended(1, words)));
}

#[test]
fn who_is_deleted_is_the_pod_before_or_one_that_its_controller_made_too_early() {
    let (set, before) = replacing();
    let of_template = |pod: Pod| Pod {
        is_of_template: true,
        ..pod
    };
    let ending = Pod {
        ending: true,
        ..before.clone()
    };
    let unknown = with(&set, Some(&before)).state(0, "up.7.restart", Timestamp::UNIX_EPOCH);
    assert_eq!(unknown, None);
    for (pod, deleted) in [
        (before, Some("uid1")),
        (next(OLD), Some("next")),
        (ending, None),
        (next(NEW), None),
        (of_template(next("mirror/r@sha256:new")), None),
    ] {
        let set = with(&set, Some(&pod));
        assert_eq!(set.to_delete(0, "up.1.restart"), deleted, "{pod:?}");
    }
}

#[test]
fn a_driver_that_takes_a_step_up_has_the_whole_time_for_it() {
    let mut cluster = Cluster::taken(1);
    cluster
        .ask(0, "up.0.activate", &Asked::Point { release: new() })
        .expect("written");
    let before = cluster.set.pods[&0].clone();
    let at = Timestamp::UNIX_EPOCH;
    let asked = |set: &Set, counter: u64, now: Timestamp| {
        let ask = Ask {
            token: token(counter),
            ..ask(0, "up.1.restart", &replace())
        };
        set.ask(&ask, now).expect("admitted")
    };
    let Answer::Write(change) = asked(&cluster.set, 1, at) else {
        panic!("it is new")
    };
    cluster.write(*change);
    assert!(matches!(asked(&cluster.set, 1, at), Answer::Known(StepState::Running)));
    // Killed before it had deleted the pod; the next one is there an hour later.
    let much_later = at + Duration::from_hours(1);
    let Answer::Write(change) = asked(&cluster.set, 2, much_later) else {
        panic!("its time and its token are to be written")
    };
    cluster.write(*change);
    assert_eq!(cluster.set.record.fence, Some(token(2)));
    let ending = Pod {
        ending: true,
        ..before.clone()
    };
    let soon_after = much_later + Duration::from_secs(1);
    let set = with(&cluster.set, Some(&ending));
    assert_eq!(set.stuck(0, "up.1.restart", soon_after), None);
    assert!(matches!(
        asked(&cluster.set, 2, much_later),
        Answer::Known(StepState::Running)
    ));
}

#[test]
fn a_set_that_was_not_moved_as_a_whole_is_given_back_as_it_was() {
    for (moved, after) in [(&[2][..], "ooo"), (&[2, 1], "ooo"), (&[2, 1, 0], "nnn")] {
        let mut cluster = Cluster::of(3);
        for ordinal in moved {
            cluster.bring(*ordinal, new(), "up", 0).expect("moved");
        }
        cluster.give_back();
        assert_eq!(cluster.images(), after, "{moved:?}");
    }
    // Who has only said where it goes back to, and was ended then.
    let mut cluster = Cluster::of(2);
    cluster.bring(1, new(), "up", 0).expect("moved");
    cluster
        .ask(1, "up.2.activate", &Asked::Point { release: old() })
        .expect("written");
    cluster.make(1);
    assert_eq!(cluster.images(), "oo", "one that is lost then comes back with that");
    cluster.give_back();
    assert_eq!(cluster.images(), "oo");
}

#[test]
fn a_set_is_taken_by_being_taken_alone_and_before_anything_of_the_upgrade_is_on_it() {
    for (forward, asked) in [
        (&[][..], Asked::Point { release: new() }),
        (&[2, 1][..], replace()),
        // All are on it and settled, as in the last watch, and it is the way back that asks.
        (&[2, 1, 0], Asked::Point { release: old() }),
        (&[2, 1, 0], replace()),
    ] {
        let mut cluster = Cluster::taken(3);
        for ordinal in forward {
            cluster.bring(*ordinal, new(), "up", 1).expect("moved");
        }
        for strategy in [
            Strategy::Rolling { partition: 0 },
            Strategy::Rolling { partition: 1 },
            Strategy::OnDelete,
        ] {
            cluster.set.record = Record::default();
            cluster.set.strategy = strategy;
            let before = cluster.set.clone();
            let answer = cluster.ask(2, "up.7.step", &asked);
            assert_eq!(answer, Err(Refused::Forgotten), "{asked:?} {strategy}");
            assert_eq!(cluster.set, before);
        }
    }
}

#[test]
fn a_set_is_taken_once_and_nothing_moves_by_that() {
    let mut cluster = Cluster::taken(3);
    assert_eq!(cluster.set.strategy, Strategy::Rolling { partition: 3 });
    assert_eq!((cluster.images().as_str(), cluster.made), ("ooo", 3));
    let again = |set: &Set, counter: u64| {
        let ask = Ask {
            token: token(counter),
            ..ask(1, "up.0.check", &Asked::Take)
        };
        set.ask(&ask, Timestamp::UNIX_EPOCH)
    };
    let known = Ok(Answer::Known(ended(0, String::new())));
    assert_eq!(again(&cluster.set, 1), known);
    // A newer driver is known by its token.
    let Ok(Answer::Write(change)) = again(&cluster.set, 2) else {
        panic!("it is to be written")
    };
    assert_eq!(change.record.taken, cluster.set.record.taken);
    cluster.write(*change);
    assert_eq!(again(&cluster.set, 2), known);
    assert_eq!(again(&cluster.set, 1), Err(Refused::Fenced { seen: 2 }));
    // What somebody has made of it since is told before anything goes on.
    cluster.set.rest = Digest::of(b"by hand");
    let edited = again(&cluster.set, 2);
    assert!(matches!(edited, Err(Refused::ForeignEdit { .. })), "{edited:?}");
}

#[test]
fn a_set_that_moves_nothing_by_itself_and_is_nobodys_says_what_is_to_be_done() {
    let mut cluster = Cluster::of(2);
    assert_eq!(cluster.set.foreign_edit(), None);
    cluster.set.strategy = Strategy::OnDelete;
    let edit = cluster.set.foreign_edit().expect("it is told");
    assert!(edit.contains("set RollingUpdate, with partition 0"), "{edit}");
    assert_eq!(cluster.take("up"), Err(Refused::OnDelete));
}

#[test]
fn what_an_owner_has_changed_beside_our_image_stays_when_that_goes_back_late() {
    let mut cluster = Cluster::of(2);
    for ordinal in [1, 0] {
        cluster.bring(ordinal, new(), "up", 0).expect("moved");
    }
    cluster.set.rest = Digest::of(b"by its owner");
    let ended = |went| Leaving::EndedBefore(Ended { upgrade: "up", went });
    for (went, template) in [
        (Went::Back, Template::Image(OLD.to_owned())),
        (Went::Forward, Template::Same),
    ] {
        let change = cluster.set.given_back(&ended(went)).expect("it is taken");
        assert_eq!(change.template, template, "{went:?}");
    }
    cluster.set.template = "r@sha256:by-hand".to_owned();
    let change = cluster.set.given_back(&ended(Went::Back)).expect("it is taken");
    assert_eq!(change.template, Template::Same);
}

#[test]
fn a_brake_that_its_owner_has_put_on_stays_when_a_set_is_given_back() {
    let ended = |went| Ended { upgrade: "up", went };
    for moved in [&[][..], &[2], &[2, 1, 0]] {
        for turned in [false, true] {
            for leaving in [
                Leaving::EndedBefore(ended(Went::Back)),
                Leaving::EndedBefore(ended(Went::Forward)),
                just_ended(Went::Back),
                Leaving::Unknown { by: Some("up") },
            ] {
                let mut cluster = Cluster::taken(3);
                for ordinal in moved {
                    cluster.bring(*ordinal, new(), "up", 0).expect("moved");
                }
                if turned {
                    cluster
                        .ask(2, "up.2.activate", &Asked::Point { release: old() })
                        .expect("written");
                }
                let left = cluster.set.strategy;
                for strategy in [
                    left,
                    Strategy::Rolling { partition: 9 },
                    Strategy::Rolling { partition: 0 },
                    Strategy::OnDelete,
                ] {
                    cluster.set.strategy = strategy;
                    let change = cluster.set.given_back(&leaving).expect("it is taken");
                    let expected = if strategy == left { Mover::Owners } else { Mover::Same };
                    assert_eq!(change.mover, expected, "{moved:?} {left} {strategy} {leaving:?}");
                }
            }
        }
    }
}

#[test]
fn of_a_set_that_was_taken_and_never_moved_the_template_is_its_owners() {
    let mut cluster = Cluster::taken(2);
    cluster.set.rest = Digest::of(b"by its owner");
    let change = cluster.set.given_back(&just_ended(Went::Forward)).expect("it is taken");
    assert_eq!(change.template, Template::Same);
    cluster.set.template = "r@sha256:by-hand".to_owned();
    let change = cluster.set.given_back(&just_ended(Went::Forward)).expect("it is taken");
    assert_eq!(change.template, Template::Same);
}

#[test]
fn what_an_older_version_remembers_of_a_set_can_be_read() {
    let mut cluster = Cluster::of(2);
    cluster.bring(1, new(), "up", 0).expect("moved");
    let mut said = serde_json::to_value(&cluster.set.record).expect("JSON");
    let taken = said["taken"].as_object_mut().expect("it is taken");
    assert_eq!(taken.remove("container"), Some("app".into()));
    let record: Record = serde_json::from_value(said).expect("it is a record all the same");
    assert_eq!(
        (
            record.hold().and_then(Hold::container),
            cluster.set.record.hold().and_then(Hold::container)
        ),
        (None, Some("app"))
    );
}

#[test]
fn a_set_that_was_never_told_that_it_goes_back_is_given_back_as_it_was() {
    let mut cluster = Cluster::of(2);
    for ordinal in [1, 0] {
        cluster.bring(ordinal, new(), "up", 0).expect("moved");
    }
    let before = Template::Revision(cluster.set.record.taken.as_ref().expect("taken").hold.revision.clone());
    let after = Template::Same;
    for (went, expected) in [(Went::Back, before), (Went::Forward, after)] {
        let change = cluster.set.given_back(&just_ended(went)).expect("it is taken");
        assert_eq!(change.template, expected, "{went:?}");
    }
    let next = Ended {
        upgrade: "next",
        went: Went::Back,
    };
    for leaving in [
        Leaving::EndedBefore(next),
        Leaving::Unknown { by: Some("next") },
        Leaving::Unknown { by: None },
    ] {
        assert_eq!(cluster.set.given_back(&leaving), None, "it is another's: {leaving:?}");
    }
}

#[test]
fn pods_that_are_asked_for_together_are_asked_for_in_one_write_as_one_after_the_other() {
    let ids = |n: u32, word: &str| format!("up.{n}.{word}");
    let all = |asked: &Asked, word: &str| [1, 3, 2].map(|ordinal| ask(ordinal, &ids(ordinal, word), asked));
    let (mut together, mut alone) = (Cluster::taken(4), Cluster::taken(4));
    for (asked, word) in [(Asked::Point { release: new() }, "activate"), (replace(), "restart")] {
        let (change, answers) = together.set.ask_all(&all(&asked, word), Timestamp::UNIX_EPOCH);
        assert_eq!(answers, vec![Ok(()); 3], "{word}");
        together.write(change.expect("something is new"));
        for ordinal in [3, 2, 1] {
            together.delete(ordinal, &ids(ordinal, word));
            alone.ask(ordinal, &ids(ordinal, word), &asked).expect("in turn");
        }
        let (again, answers) = together.set.ask_all(&all(&asked, word), Timestamp::UNIX_EPOCH);
        assert_eq!((again, answers), (None, vec![Ok(()); 3]), "known by now");
    }
    assert_eq!(together.images(), "onnn");
    assert_eq!(together.set.record, alone.set.record);
    assert_eq!(together.set.strategy, alone.set.strategy);
    // Who cannot be asked for is told so, and stands in nobody's way.
    let few = [
        ask(0, "up.5.activate", &Asked::Point { release: new() }),
        ask(3, "next.0.restart", &replace()),
    ];
    let (change, answers) = together.set.ask_all(&few, Timestamp::UNIX_EPOCH);
    let by = "up".to_owned();
    assert!(
        change.is_some() && answers == [Ok(()), Err(Refused::Taken { by })],
        "{answers:?}"
    );
    // Nor does one that takes up what is known undo what is asked with it.
    let record = together.set.record.clone();
    let turns = Change {
        record: record.clone(),
        template: Template::Revision("web-1".to_owned()),
        mover: Mover::Ours(Strategy::OnDelete),
    };
    let takes_up = Change {
        record,
        template: Template::Same,
        mover: Mover::Same,
    };
    assert_eq!(takes_up.clone().after(Some(turns.clone())), turns);
    assert_eq!(turns.clone().after(Some(takes_up.clone())), turns);
    assert_eq!(takes_up.clone().after(None), takes_up);
    // What is put back stays so, whatever is asked with it.
    let few = [
        ask(2, "up.7.activate", &Asked::Point { release: old() }),
        ask(1, "up.8.activate", &Asked::Point { release: old() }),
        ask(0, "up.9.activate", &Asked::Point { release: new() }),
    ];
    together.set.rest = Digest::of(b"by hand");
    let (change, answers) = together.set.ask_all(&few, Timestamp::UNIX_EPOCH);
    assert_eq!(answers, vec![Ok(()); 3]);
    let change = change.expect("it turns");
    assert_eq!(change.template, Template::Revision("web-1".to_owned()));
}

#[test]
fn pods_that_came_with_the_build_under_test_go_before_the_last_node_is_back() {
    let mut cluster = Cluster::of(3);
    for ordinal in [2, 1] {
        cluster.bring(ordinal, new(), "up", 0).expect("moved");
    }
    cluster.scale(5);
    assert_eq!(cluster.images(), "onnnn");
    let edit = cluster.set.foreign_edit().unwrap_or_default();
    assert!(
        edit.starts_with("it has 5 replicas (pod 3, pod 4 came with image r@sha256:new), and"),
        "{edit}"
    );
    assert!(cluster.set.strangers_to_delete().is_empty(), "not before it goes back");
    let at = Timestamp::UNIX_EPOCH;
    let back = Asked::Point { release: old() };
    let write = |cluster: &mut Cluster, ordinal: u32, id: &str, asked: &Asked| {
        let (change, answers) = cluster.set.ask_all(&[ask(ordinal, id, asked)], at);
        assert_eq!(answers, [Ok(())]);
        cluster.write(change.expect("it is new"));
    };
    write(&mut cluster, 2, "up.3.activate", &back);
    assert_eq!(
        cluster.set.state(2, "up.3.activate", at),
        Some(ended(0, String::new())),
        "the sick do not wait"
    );
    let uids = |cluster: &Cluster| [3, 4].map(|ordinal| cluster.set.pods[&ordinal].uid.clone());
    let (three, four) = uids(&cluster).into();
    assert_eq!(
        cluster.set.strangers_to_delete(),
        [(3, three.as_str()), (4, four.as_str())]
    );
    write(&mut cluster, 2, "up.4.restart", &replace());
    cluster.make(2);
    assert_eq!(
        cluster.set.state(2, "up.4.restart", at),
        Some(ended(0, String::new())),
        "another is not back"
    );
    write(&mut cluster, 1, "up.3.activate", &back);
    write(&mut cluster, 1, "up.4.restart", &replace());
    cluster.make(1);
    cluster.make(3);
    assert_eq!(cluster.images(), "oooon");
    // Each of them is as it was; one goes on beside.
    let four = cluster.set.pods.get_mut(&4).expect("there");
    (four.ending, four.machine) = (true, Some("m7".to_owned()));
    let of_last = |set: &Set, after: SignedDuration| {
        let now = at + after;
        (set.state(1, "up.4.restart", now), set.stuck(1, "up.4.restart", now))
    };
    let (soon, late) = (SignedDuration::from_secs(30), SignedDuration::from_mins(11));
    assert!(cluster.set.strangers_to_delete().is_empty(), "it was told");
    assert_eq!(of_last(&cluster.set, soon), (Some(StepState::Running), None));
    let (state, stuck) = of_last(&cluster.set, late);
    let stuck = stuck.unwrap_or_default();
    assert!(
        state == Some(StepState::Running) && stuck.starts_with("pod 4, which came when"),
        "{stuck}"
    );
    assert!(stuck.contains("(m7)"), "{stuck}");
    cluster.make(4);
    assert_eq!(of_last(&cluster.set, late), (Some(ended(0, String::new())), None));
    // Its controller may make another one that it does not know to be of the past.
    cluster.set.rollout = Rollout::Unseen;
    assert_eq!(of_last(&cluster.set, soon), (Some(StepState::Running), None));
    cluster.set.rollout = Rollout::Rolling;
    // Told once, and no more because they have gone.
    let told = cluster.set.foreign_edit().unwrap_or_default();
    assert_eq!(told, edit);
    // What rewrites images makes them for ever.
    let three = cluster.set.pods.get_mut(&3).expect("there");
    three.image = "mirror/r@sha256:old".to_owned();
    assert!(cluster.set.strangers_to_delete().is_empty());
}

#[test]
fn a_step_that_went_forward_when_the_others_turned_back_ends_and_deletes_nothing() {
    let mut cluster = Cluster::of(3);
    for ordinal in [2, 1] {
        cluster.bring(ordinal, new(), "up", 0).expect("moved");
    }
    let at = Timestamp::UNIX_EPOCH;
    let asks = [
        ask(0, "up.0.activate", &Asked::Point { release: new() }),
        ask(0, "up.1.restart", &replace()),
    ];
    for one in asks {
        let Ok(Answer::Write(change)) = cluster.set.ask(&one, at) else {
            panic!("it is new")
        };
        cluster.write(*change);
    }
    assert!(cluster.set.to_delete(0, "up.1.restart").is_some());
    let turns = ask(2, "up.2.activate", &Asked::Point { release: old() });
    let Ok(Answer::Write(change)) = cluster.set.ask(&turns, at) else {
        panic!("it is new")
    };
    cluster.write(*change);
    assert_eq!(cluster.set.to_delete(0, "up.1.restart"), None);
    let never = ended(1, Refused::GoesBack.to_string());
    assert_eq!(cluster.set.state(0, "up.1.restart", at), Some(never));
}

proptest::proptest! {
    /// However pods are asked for, and whoever is lost meanwhile: what is done moves this pod alone, and one that is lost comes
    /// back with what it had or with what everything goes back to.
    #[test]
    fn a_pod_is_moved_by_its_own_turn_alone(
        replicas in 1_u32..6,
        asked in proptest::collection::vec((0_u32..6, proptest::bool::ANY, proptest::option::of(0_u32..6)), 1..20),
    ) {
        let mut cluster = Cluster::of(replicas);
        for (n, (ordinal, forward, lost)) in (0..).zip(asked) {
            let ordinal = ordinal % replicas;
            let release = if forward { new() } else { old() };
            let before = cluster.images();
            let done = cluster.bring(ordinal, release, "up", 2 * n).is_ok();
            for (other, (was, is)) in (0..).zip(before.chars().zip(cluster.images().chars())) {
                let expected = if done && other == ordinal { if forward { 'n' } else { 'o' } } else { was };
                proptest::prop_assert_eq!(is, expected, "{} while {} was asked for: {}", other, ordinal, before);
            }
            if let Some(lost) = lost {
                let lost = lost % replicas;
                let had = cluster.set.pods[&lost].image.clone();
                cluster.make(lost);
                let has = &cluster.set.pods[&lost].image;
                proptest::prop_assert!(*has == had || has == OLD, "{} came back with {}", had, has);
            }
        }
        proptest::prop_assert!(cluster.moved.is_empty());
        cluster.give_back();
        proptest::prop_assert!(cluster.is_settled());
    }
}

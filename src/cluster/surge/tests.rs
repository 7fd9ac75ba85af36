use super::*;
use crate::cluster::pod::Waiting;
use crate::hosts::Ended;

const OLD: &str = "r@sha256:old";
const NEW: &str = "r@sha256:new";
const REPLICAS: u32 = 3;

fn old() -> Digest {
    Digest::of(b"old")
}
fn new() -> Digest {
    Digest::of(b"new")
}
fn rest() -> Digest {
    Digest::of(b"rest")
}
fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
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

/// A driver is killed after this many of its writes.
type Kill = Option<u32>;
/// What becomes of a Deployment.
type Edit = fn(&mut Deployment);
/// What somebody else does.
type Hand = fn(&mut Cluster);
/// How a step stands then: its exit status and words, if it has ended.
type Stands = Option<(i32, &'static str)>;

/// A cluster with one Deployment, as its controllers treat it.
#[derive(Clone)]
struct Cluster {
    is: Deployment,
    pods_made: u32,
    /// The images that templates were written with, in order: the canary's with its step.
    written: Vec<String>,
    /// What was remembered while each image was the template's last, as its `ReplicaSet` keeps a copy of it.
    sets: BTreeMap<String, Record>,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            is: Deployment {
                replicas: REPLICAS,
                strategy: serde_json::json!({"type": "RollingUpdate"}),
                is_paused: false,
                has_history: true,
                writer: None,
                rollout: Rollout::Complete,
                trouble: Trouble::default(),
                container: "app".to_owned(),
                template: OLD.to_owned(),
                rest: rest(),
                revision: Some("web-1".to_owned()),
                pods: Vec::new(),
                canary: None,
                images: BTreeMap::from([(old(), OLD.to_owned()), (new(), NEW.to_owned())]),
                record: Record::default(),
                is_put_back: false,
            },
            pods_made: 0,
            written: Vec::new(),
            sets: BTreeMap::new(),
        };
        cluster.settle();
        cluster
    }

    fn pod(&mut self, image: &str) -> Pod {
        self.pods_made += 1;
        Pod {
            name: format!("web-{}", self.pods_made),
            uid: format!("uid{}", self.pods_made),
            image: image.to_owned(),
            is_ready: true,
            is_of_template: true,
            placed_at: Some(at()),
            running_since: Some(at()),
            made_at: at(),
            ..Pod::default()
        }
    }

    /// What the controllers do until they have nothing to do.
    fn settle(&mut self) {
        let template = self.is.template.clone();
        let is_right = |pods: &[Pod]| pods.len() == REPLICAS as usize && pods.iter().all(|pod| pod.image == template);
        if !is_right(&self.is.pods) {
            self.is.pods = (0..REPLICAS).map(|_| self.pod(&template)).collect();
        }
        // One that was made by the same template before is of it again.
        for pod in &mut self.is.pods {
            pod.is_of_template = true;
        }
        self.is.rollout = Rollout::Complete;
        if let Some(mut canary) = self.is.canary.take() {
            if canary.pods.iter().all(|pod| !pod.is_of_template) {
                canary.pods = vec![self.pod(&canary.image)];
            }
            self.is.canary = Some(canary);
        }
    }

    fn write(&mut self, change: Change) {
        let Change {
            record,
            template,
            pause,
        } = change;
        match pause {
            Pause::Same => {}
            Pause::Lifted => self.is.is_paused = false,
        }
        let image = match template {
            Template::Same => None,
            Template::Image(image) => Some(image),
            Template::Revision(revision) => {
                assert_eq!(revision, "web-1", "what it was on");
                self.is.rest = rest();
                Some(OLD.to_owned())
            }
        };
        if let Some(image) = image.filter(|image| *image != self.is.template) {
            self.written.push(image.clone());
            self.is.template = image;
            for pod in &mut self.is.pods {
                pod.is_of_template = false;
            }
            self.is.rollout = Rollout::Unseen;
        }
        assert!(record.writes > self.is.record.writes, "it is newer than all before it");
        self.sets.insert(self.is.template.clone(), record.clone());
        self.is.record = record;
        self.is.is_put_back = false;
    }

    /// `kubectl rollout undo`: the template of a `ReplicaSet`, and with it what was remembered when that was the current one.
    fn undo(&mut self, image: &str) {
        image.clone_into(&mut self.is.template);
        for pod in &mut self.is.pods {
            pod.is_of_template = false;
        }
        self.lies(self.sets[image].clone());
    }

    /// This is in its annotation now.
    fn lies(&mut self, record: Record) {
        let writes = record.writes;
        self.is.record = record.or_newer(self.sets.values().cloned());
        self.is.is_put_back = self.is.record.writes != writes;
    }

    fn write_canary(&mut self, due: CanaryWrite) {
        let CanaryWrite { revision, image, step } = due;
        assert_eq!(revision, "web-1", "what it is a copy of");
        self.written.push(format!("canary {image} {step}"));
        let stands = self.is.canary.take();
        assert!(
            stands.as_ref().is_none_or(|canary| canary.owner == Owner::Us),
            "whose it is"
        );
        let mut pods = stands.map_or(Vec::new(), |canary| canary.pods);
        for pod in &mut pods {
            pod.is_of_template = false;
        }
        self.is.canary = Some(Canary {
            name: "web-canary".to_owned(),
            uid: "canary".to_owned(),
            owner: Owner::Us,
            image,
            step,
            rest: rest(),
            replicas: 1,
            is_paused: false,
            trouble: Trouble::default(),
            pods,
        });
    }

    /// Drives a step to its end, as a host does; a driver that is killed on the way leaves it where it is.
    fn drive(&mut self, role: Role, id: &str, asked: &Asked, kill: Kill) -> Result<Option<StepState>, Refused> {
        let mut writes = 0;
        let mut is_killed = || {
            writes += 1;
            kill.is_some_and(|after| writes > after)
        };
        for _ in 0..10 {
            match self.is.ask(role, &token(1), id, asked, at())? {
                Answer::Write(change) => {
                    if is_killed() {
                        return Ok(None);
                    }
                    self.write(*change);
                }
                Answer::Known(StepState::Running) => self.settle(),
                Answer::Known(state) => return Ok(Some(state)),
            }
            if let Some(due) = self.is.due(role, id) {
                if is_killed() {
                    return Ok(None);
                }
                self.write_canary(due);
            }
        }
        panic!("step {id} does not end: {:#?}", self.is)
    }

    /// The same, killed once on the way and taken up by the next driver.
    fn step(&mut self, role: Role, id: &str, asked: &Asked, kill: Kill) -> Result<StepState, Refused> {
        match self.drive(role, id, asked, kill)? {
            Some(state) => Ok(state),
            None => Ok(self.drive(role, id, asked, None)?.expect("nobody kills this one")),
        }
    }

    fn take(&mut self) -> Result<(), Refused> {
        for (role, id) in [(Role::Canary, "up.0.check"), (Role::Main, "up.1.check")] {
            assert_eq!(self.step(role, id, &taking(), None)?, ended(0, String::new()));
        }
        Ok(())
    }

    /// Points a node to a build and has it made anew.
    fn bring(&mut self, role: Role, release: Digest, n: u32, kill: Kill) -> Result<StepState, Refused> {
        self.step(role, &format!("up.{n}.activate"), &Asked::Point { release }, kill)?;
        self.step(role, &format!("up.{}.restart", n + 1), &replacing(), kill)
    }

    /// As an upgrade leaves it.
    fn leave(&mut self) {
        self.is.canary = None;
        if let Some(change) = self.is.given_back(&just_ended(Went::Forward)) {
            self.write(change);
        }
        self.settle();
    }

    fn images(&self) -> (Option<&str>, &str) {
        (
            self.is.canary.as_ref().map(|canary| canary.image.as_str()),
            &self.is.template,
        )
    }
}

fn taking() -> Asked {
    Asked::Take {
        deadline: Duration::from_mins(1),
    }
}
fn replacing() -> Asked {
    Asked::Replace {
        deadline: Duration::from_mins(1),
    }
}

#[test]
fn the_canary_is_first_and_is_gone_in_the_end() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    assert_eq!(cluster.images(), (Some(OLD), OLD), "it runs the old build first");
    assert_eq!(cluster.bring(Role::Main, new(), 2, None), Err(Refused::CanaryFirst));
    let own: Vec<Pod> = cluster.is.pods.clone();
    cluster.bring(Role::Canary, new(), 4, None).expect("moved");
    assert_eq!((cluster.images(), &cluster.is.pods), ((Some(NEW), OLD), &own));
    cluster.bring(Role::Main, new(), 2, None).expect("moved");
    assert_eq!(cluster.images(), (Some(NEW), NEW));
    assert_eq!(cluster.is.running(Role::Main), Some((Some(new()), at())));
    cluster.leave();
    assert_eq!(cluster.images(), (None, NEW));
    let only_the_fence = Record {
        writes: cluster.is.record.writes,
        fence: Some(token(1)),
        ..Record::default()
    };
    assert_eq!(cluster.is.record, only_the_fence);
    assert_eq!(
        cluster.written,
        [
            "canary r@sha256:old up.0.check",
            "canary r@sha256:new up.5.restart",
            NEW
        ]
    );
}

#[test]
fn the_way_back_begins_with_the_first_word_of_it_and_goes_all_the_way() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    cluster.bring(Role::Main, new(), 4, None).expect("moved");
    // A pod that is left of the new build is the new build's.
    let point = Asked::Point { release: old() };
    let left = cluster.is.pods[0].clone();
    cluster.step(Role::Main, "up.6.activate", &point, None).expect("said");
    assert_eq!(cluster.images(), (Some(NEW), OLD));
    cluster.settle();
    cluster.is.pods.push(Pod {
        is_of_template: false,
        ..left
    });
    assert_eq!(cluster.is.running(Role::Main), Some((Some(new()), at())));
    cluster.is.pods.pop();
    assert_eq!(cluster.bring(Role::Canary, new(), 8, None), Err(Refused::GoesBack));
    cluster.bring(Role::Canary, old(), 10, None).expect("back");
    assert_eq!(cluster.images(), (Some(OLD), OLD));
    cluster.leave();
    assert_eq!(cluster.images(), (None, OLD));
}

#[test]
fn a_canary_that_is_on_its_way_runs_nothing() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    assert_eq!(cluster.is.running(Role::Canary), Some((Some(old()), at())));
    // Written, and its controller has done nothing yet: whoever goes back must not take the pod of before for one that is back.
    cluster
        .step(Role::Canary, "up.2.activate", &Asked::Point { release: new() }, None)
        .expect("said");
    let killed = cluster.drive(Role::Canary, "up.3.restart", &replacing(), Some(1));
    assert_eq!(killed, Ok(None));
    let due = cluster.is.due(Role::Canary, "up.3.restart").expect("not written");
    cluster.write_canary(due);
    assert_eq!(cluster.is.running(Role::Canary), None);
}

#[test]
fn what_cannot_be_upgraded_is_refused_before_anything_is_made() {
    let unstated = "r@sha256:hand".to_owned();
    let rows: [(Edit, Refused); 10] = [
        (|is| is.is_paused = true, Refused::Paused),
        (|is| is.strategy["type"] = "Recreate".into(), Refused::AllAtOnce),
        (
            |is| is.strategy["rollingUpdate"] = serde_json::json!({"maxUnavailable": "100%"}),
            Refused::AllAtOnce,
        ),
        (
            |is| {
                is.replicas = 1;
                is.strategy["rollingUpdate"] = serde_json::json!({"maxSurge": 0, "maxUnavailable": "10%"});
            },
            Refused::AllAtOnce,
        ),
        (|is| is.replicas = 0, Refused::NoPods),
        (|is| is.has_history = false, Refused::NoHistory),
        (|is| is.rollout = Rollout::Rolling, Refused::Unsettled),
        (|is| is.rollout = Rollout::Unseen, Refused::Unsettled),
        (
            |is| is.template = "r@sha256:hand".to_owned(),
            Refused::Unstated { image: unstated },
        ),
        (
            |is| {
                let mut cluster = Cluster::new();
                cluster.take().expect("taken");
                is.canary = cluster.is.canary.map(|canary| Canary {
                    owner: Owner::Others,
                    ..canary
                });
            },
            Refused::NotOurs {
                name: "web-canary".to_owned(),
            },
        ),
    ];
    for (edit, refused) in rows {
        let mut cluster = Cluster::new();
        edit(&mut cluster.is);
        assert_eq!(cluster.take(), Err(refused));
        assert!(cluster.written.is_empty());
    }
    // One that is short of pods may be what the upgrade is to mend.
    let mut cluster = Cluster::new();
    cluster.is.rollout = Rollout::Short;
    cluster.take().expect("taken");
    let foreign = FencingToken {
        home: "elsewhere".to_owned(),
        counter: 9,
    };
    let seen = "home".to_owned();
    for (who, refused) in [
        (foreign, Refused::Foreign { seen }),
        (token(0), Refused::Fenced { seen: 1 }),
    ] {
        let asked = cluster.is.ask(Role::Main, &who, "up.1.check", &taking(), at());
        assert_eq!(asked, Err(refused));
    }
    let by = "up".to_owned();
    let another = cluster.is.ask(Role::Main, &token(1), "next.0.check", &taking(), at());
    assert_eq!(another, Err(Refused::Taken { by }));
}

#[test]
fn other_hands_hold_it_and_the_way_back_goes_over_them() {
    fn canary(is: &mut Deployment) -> &mut Canary {
        is.canary.as_mut().expect("made")
    }
    let edits: [Edit; 10] = [
        |is| is.template = "r@sha256:hand".to_owned(),
        |is| is.rest = Digest::of(b"another variable"),
        |is| is.strategy["type"] = "Recreate".into(),
        |is| is.is_paused = true,
        |is| is.canary = None,
        |is| canary(is).uid = "another".to_owned(),
        |is| canary(is).image = "r@sha256:hand".to_owned(),
        |is| canary(is).rest = Digest::of(b"another variable"),
        |is| canary(is).replicas = 2,
        |is| canary(is).is_paused = true,
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let mut cluster = Cluster::new();
        cluster.take().expect("taken");
        cluster.bring(Role::Canary, new(), 2, None).expect("moved");
        assert_eq!(cluster.is.foreign_edit(), None);
        edit(&mut cluster.is);
        let point = Asked::Point { release: new() };
        let held = cluster.is.ask(Role::Main, &token(1), "up.4.activate", &point, at());
        assert!(matches!(held, Err(Refused::ForeignEdit { .. })), "{n}: {held:?}");
        // What goes on is ended by it, and is not the build's fault: the hold comes before any blame.
        let state = cluster.is.state(Role::Canary, "up.3.restart", at());
        assert!(matches!(state, Some(StepState::Ended(end)) if end.exit == 1), "{n}");
        for (role, step) in [(Role::Canary, 6), (Role::Main, 8)] {
            assert_eq!(
                cluster.bring(role, old(), step, None),
                Ok(ended(0, String::new())),
                "{n}"
            );
        }
        assert!(cluster.is.foreign_edit().is_some(), "{n}: what was there is known");
        assert_eq!((cluster.images(), cluster.is.rest), ((Some(OLD), OLD), rest()), "{n}");
    }
    // Who scales it may go on.
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.is.replicas = 9;
    assert_eq!(cluster.is.foreign_edit(), None);
    // A record that was taken away is no licence to begin anew.
    cluster.is.record = Record::default();
    assert!(cluster.is.foreign_edit().is_some());
}

fn waits(reason: &str) -> Waiting {
    Waiting {
        reason: reason.to_owned(),
        message: "m".to_owned(),
        restarts: 0,
    }
}

#[test]
fn a_canarys_step_ends_as_its_pod_does() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    let before = cluster.is.canary.clone().expect("made").pods.remove(0);
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    let ready = cluster.is.canary.clone().expect("made").pods.remove(0);
    let up = |pod: Pod| Pod { is_ready: false, ..pod };
    let crashed = |restarts: u32| Pod {
        waiting: Some(Waiting {
            restarts,
            ..waits("CrashLoopBackOff")
        }),
        ..up(ready.clone())
    };
    let unplaced = Pod {
        placed_at: None,
        waiting: Some(waits("Unschedulable")),
        ..up(ready.clone())
    };
    let ending = Pod {
        is_of_template: false,
        ending: true,
        ..before
    };
    let late = at() + Duration::from_secs(61);
    let failed = |exit: i32, why: &str| Some(ended(exit, why.to_owned()));
    let running = Some(StepState::Running);
    for (pods, now, expected, is_stuck) in [
        (vec![ready.clone()], late, failed(0, ""), false),
        (vec![ready.clone(), ending.clone()], at(), running.clone(), false),
        (vec![ending.clone()], late, running.clone(), true),
        (vec![], at(), running.clone(), false),
        (vec![], late, running.clone(), true),
        (vec![crashed(1)], at(), running.clone(), false),
        (vec![crashed(2)], at(), failed(1, "CrashLoopBackOff: m"), false),
        (vec![unplaced.clone()], at(), running.clone(), false),
        (vec![unplaced], late, running, true),
        (vec![up(ready)], late, failed(124, "its container is not ready"), false),
    ] {
        cluster.is.canary.as_mut().expect("made").pods = pods.clone();
        let state = cluster.is.state(Role::Canary, "up.3.restart", now);
        assert_eq!(state, expected, "{pods:?} at {now}");
        let stuck = cluster.is.stuck(Role::Canary, "up.3.restart", now);
        assert_eq!(stuck.is_some(), is_stuck, "{pods:?} at {now}: {stuck:?}");
    }
}

#[test]
fn a_canary_of_the_old_build_comes_up_or_says_why_unless_all_of_it_is_sick() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    let crashed = Pod {
        is_ready: false,
        waiting: Some(Waiting {
            restarts: 2,
            ..waits("CrashLoopBackOff")
        }),
        ..cluster.is.pods[0].clone()
    };
    let unplaced = Pod {
        placed_at: None,
        ..crashed.clone()
    };
    let late = at() + Duration::from_secs(61);
    for (pod, now, exit) in [(crashed, at(), 1), (unplaced, late, 124)] {
        cluster.is.canary.as_mut().expect("made").pods = vec![pod];
        let state = |cluster: &Cluster| match cluster.is.state(Role::Canary, "up.0.check", now) {
            Some(StepState::Ended(end)) => end.exit,
            other => panic!("{other:?}"),
        };
        assert_eq!(state(&cluster), exit);
        let mut sick = cluster.clone();
        for pod in &mut sick.is.pods {
            pod.is_ready = false;
        }
        assert_eq!(state(&sick), 0);
    }
}

/// Its controller has said so, so many seconds after what was written.
fn exceeded(seconds: u64) -> Exceeded {
    Exceeded {
        at: at() + Duration::from_secs(seconds),
        why: "ProgressDeadlineExceeded: m".to_owned(),
    }
}

#[test]
fn the_step_of_its_own_pods_ends_when_all_are_new_or_one_of_them_will_not_be() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    cluster.bring(Role::Main, new(), 4, None).expect("moved");
    let done = cluster.is;
    let late = at() + Duration::from_secs(u64::from(REPLICAS) * 60 + 1);
    let soon = at() + Duration::from_secs(u64::from(REPLICAS) * 60 - 1);
    let unready: Edit = |is| {
        is.rollout = Rollout::Short;
        is.pods[0].is_ready = false;
    };
    let rows: [(Edit, Timestamp, Stands, bool); 10] = [
        (|_| {}, late, Some((0, "")), false),
        (|is| is.rollout = Rollout::Rolling, soon, None, false),
        (
            |is| is.pods[0].is_of_template = false,
            late,
            Some((124, "2 of 3 pods are made anew and ready")),
            false,
        ),
        (unready, soon, None, false),
        (
            |is| {
                is.rollout = Rollout::Rolling;
                is.pods[0].is_ready = false;
                is.pods[0].waiting = Some(waits("InvalidImageName"));
            },
            at(),
            Some((1, "web-6: InvalidImageName: m")),
            false,
        ),
        (
            |is| {
                is.rollout = Rollout::Rolling;
                is.trouble.exceeded = Some(exceeded(1));
            },
            at(),
            Some((124, "ProgressDeadlineExceeded: m")),
            false,
        ),
        // It stands from the template before, and its controller says it anew only after some progress.
        (
            |is| {
                is.rollout = Rollout::Rolling;
                is.trouble.exceeded = Some(exceeded(0));
            },
            at(),
            None,
            false,
        ),
        // What its controller said of the template before.
        (
            |is| {
                is.rollout = Rollout::Unseen;
                is.trouble.exceeded = Some(exceeded(1));
            },
            at(),
            None,
            false,
        ),
        (
            |is| {
                is.rollout = Rollout::Rolling;
                is.trouble.exceeded = Some(exceeded(1));
                is.pods[0].is_ready = false;
                is.pods[0].placed_at = None;
            },
            at(),
            None,
            true,
        ),
        (|is| is.replicas = 0, at(), None, true),
    ];
    for (n, (edit, now, expected, is_stuck)) in rows.into_iter().enumerate() {
        let mut is = done.clone();
        edit(&mut is);
        let expected = expected.map_or(StepState::Running, |(exit, why)| ended(exit, why.to_owned()));
        assert_eq!(is.state(Role::Main, "up.5.restart", now), Some(expected), "{n}");
        let stuck = is.stuck(Role::Main, "up.5.restart", now);
        assert_eq!(stuck.is_some(), is_stuck, "{n}: {stuck:?}");
    }
}

/// Its controller counts the time, and says nothing of the registry that is away.
#[test]
fn a_deadline_that_passes_while_a_pod_has_no_image_is_not_held_against_the_build() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    cluster.bring(Role::Main, new(), 4, None).expect("moved");
    let mut is = cluster.is;
    is.rollout = Rollout::Rolling;
    is.trouble.exceeded = Some(exceeded(1));
    is.pods[0].is_ready = false;
    for (reason, exit) in [
        ("ErrImagePull", IMAGE_NOT_FETCHED),
        ("ContainerCreating", IMAGE_NOT_FETCHED),
        ("PodInitializing", 124),
    ] {
        is.pods[0].waiting = Some(waits(reason));
        let Some(StepState::Ended(end)) = is.state(Role::Main, "up.5.restart", at()) else {
            panic!("{reason}: it goes on")
        };
        assert_eq!(end.exit, exit, "{}", end.log_tail);
        assert!(
            end.log_tail.starts_with("ProgressDeadlineExceeded: m"),
            "{}",
            end.log_tail
        );
    }
}

#[test]
fn the_youngest_ready_pod_of_the_template_speaks_for_the_others() {
    let mut cluster = Cluster::new();
    let made = |seconds: u64, is_ready: bool, is_of_template: bool, ending: bool| Pod {
        name: format!("{seconds}"),
        made_at: at() + Duration::from_secs(seconds),
        is_ready,
        is_of_template,
        ending,
        ..Pod::default()
    };
    for (pods, speaker) in [
        (vec![made(1, true, true, false), made(2, true, true, false)], Some("2")),
        (vec![made(1, true, true, false), made(2, false, true, false)], Some("1")),
        (vec![made(1, true, true, false), made(2, true, false, false)], Some("1")),
        (
            vec![made(1, true, false, false), made(2, false, true, false)],
            Some("1"),
        ),
        (vec![made(1, true, false, false), made(2, true, true, true)], Some("1")),
        (vec![], None),
    ] {
        cluster.is.pods = pods;
        assert_eq!(cluster.is.speaker(Role::Main).map(|pod| pod.name.as_str()), speaker);
    }
}

#[test]
fn a_driver_that_takes_a_step_up_raises_the_fence_and_has_the_whole_time() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    let point = Asked::Point { release: new() };
    cluster.step(Role::Canary, "up.2.activate", &point, None).expect("said");
    assert_eq!(
        cluster.drive(Role::Canary, "up.3.restart", &replacing(), Some(1)),
        Ok(None)
    );
    let much_later = at() + Duration::from_hours(1);
    let taken_up = cluster
        .is
        .ask(Role::Canary, &token(2), "up.3.restart", &replacing(), much_later);
    let Ok(Answer::Write(change)) = taken_up else {
        panic!("{taken_up:?}")
    };
    cluster.write(*change);
    assert_eq!(cluster.is.record.fence, Some(token(2)));
    let due = cluster
        .is
        .due(Role::Canary, "up.3.restart")
        .expect("still to be written");
    cluster.write_canary(due);
    assert_eq!(cluster.is.stuck(Role::Canary, "up.3.restart", much_later), None);
}

#[test]
fn what_was_never_asked_to_change_is_given_back_as_its_owner_has_it_by_then() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.is.template = "r@sha256:hand".to_owned();
    cluster.leave();
    assert_eq!(cluster.images(), (None, "r@sha256:hand"));
    // On the way back, and ended before its own pods' turn.
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    cluster.bring(Role::Main, new(), 4, None).expect("moved");
    cluster.bring(Role::Canary, old(), 6, None).expect("back");
    cluster.leave();
    assert_eq!(cluster.images(), (None, OLD));
}

#[test]
fn the_owner_has_its_template_with_the_first_word_of_the_way_back_to_either_node() {
    let back = Asked::Point { release: old() };
    for role in [Role::Canary, Role::Main] {
        let mut cluster = Cluster::new();
        cluster.take().expect("taken");
        cluster.bring(Role::Canary, new(), 2, None).expect("moved");
        cluster
            .step(Role::Main, "up.4.activate", &Asked::Point { release: new() }, None)
            .expect("said");
        // Its roll is under way.
        let Ok(Answer::Write(change)) = cluster
            .is
            .ask(Role::Main, &token(1), "up.5.restart", &replacing(), at())
        else {
            panic!("it was not asked for")
        };
        cluster.write(*change);
        assert_eq!(
            cluster.is.state(Role::Main, "up.5.restart", at()),
            Some(StepState::Running)
        );
        cluster.step(role, "up.6.activate", &back, None).expect("said");
        assert_eq!(cluster.images(), (Some(NEW), OLD), "{role:?}");
        // Nobody waits for what will not be.
        let turned = ended(1, Refused::GoesBack.to_string());
        assert_eq!(
            cluster.is.state(Role::Main, "up.5.restart", at()),
            Some(turned),
            "{role:?}"
        );
    }
}

#[test]
fn of_somebody_elses_in_the_canarys_place_nothing_is_written_and_the_owners_goes_back() {
    fn others(cluster: &mut Cluster) {
        cluster.is.canary = Some(Canary {
            name: "web-canary".to_owned(),
            uid: "theirs".to_owned(),
            owner: Owner::Others,
            image: NEW.to_owned(),
            step: String::new(),
            rest: rest(),
            replicas: 2,
            is_paused: false,
            trouble: Trouble::default(),
            pods: vec![cluster.is.pods[0].clone()],
        });
    }
    let name = "web-canary".to_owned();
    let not_ours = ended(1, Refused::NotOurs { name }.to_string());
    // Made after the upgrade had said what it is about to make.
    let mut cluster = Cluster::new();
    assert_eq!(cluster.drive(Role::Canary, "up.0.check", &taking(), Some(1)), Ok(None));
    others(&mut cluster);
    assert_eq!(
        cluster.drive(Role::Canary, "up.0.check", &taking(), None),
        Ok(Some(not_ours.clone()))
    );
    assert_eq!(cluster.is.running(Role::Canary), None, "its pods are theirs");
    // Made in the place of ours that was deleted, once all was on the new build.
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    cluster.bring(Role::Main, new(), 4, None).expect("moved");
    others(&mut cluster);
    assert_eq!(cluster.bring(Role::Canary, old(), 6, None), Ok(not_ours));
    assert_eq!(cluster.bring(Role::Main, old(), 8, None), Ok(ended(0, String::new())));
    assert_eq!(cluster.images(), (Some(NEW), OLD));
    let theirs = cluster.is.canary.as_ref().map(|canary| canary.uid.as_str());
    assert_eq!(theirs, Some("theirs"));
}

#[test]
fn a_canary_that_cannot_be_written_on_the_way_back_is_given_up_in_time() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    let late = at() + Duration::from_secs(61);
    cluster
        .step(Role::Canary, "up.4.activate", &Asked::Point { release: old() }, None)
        .expect("said");
    let killed = cluster.drive(Role::Canary, "up.5.restart", &replacing(), Some(1));
    assert_eq!(killed, Ok(None), "its ReplicaSet is gone, say");
    let state = |now| cluster.is.state(Role::Canary, "up.5.restart", now);
    assert_eq!(state(at()), Some(StepState::Running));
    assert!(matches!(state(late), Some(StepState::Ended(end)) if end.exit == 124));
    // Its own driver has no new time for it; the next one has.
    let ask = |counter| {
        cluster
            .is
            .ask(Role::Canary, &token(counter), "up.5.restart", &replacing(), late)
    };
    assert!(matches!(ask(1), Ok(Answer::Known(_))));
    assert!(matches!(ask(2), Ok(Answer::Write(_))));
}

#[test]
fn many_pods_have_no_more_time_than_a_dozen_one_after_the_other() {
    for (replicas, rounds) in [(1, 1), (3, 3), (100, ROUNDS)] {
        let mut cluster = Cluster::new();
        cluster.take().expect("taken");
        cluster.bring(Role::Canary, new(), 2, None).expect("moved");
        cluster.is.replicas = replicas;
        cluster.bring(Role::Main, new(), 4, None).expect("moved");
        let step = cluster.is.record.main.steps.last().expect("asked");
        let deadline_s = step.replaces.as_ref().expect("a replacement").deadline_s;
        assert_eq!(deadline_s, u64::from(rounds) * 60);
    }
}

#[test]
fn a_step_is_remembered_until_its_upgrade_is_over() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    assert!(cluster.is.remembers("up.0.check"));
    cluster.leave();
    assert!(!cluster.is.remembers("up.0.check"));
}

proptest::proptest! {
    /// However nodes are asked for, and wherever their drivers are killed: no turn to a build changes both templates, the Deployment's
    /// own pods get nothing that the canary was not asked to run, no template is written twice for one step, and from the first word of
    /// the way back on the owner has the template that it had.
    #[test]
    fn nothing_goes_on_all_pods_before_the_canary_and_the_way_back_ends_where_it_began(
        asked in proptest::collection::vec(
            (proptest::bool::ANY, proptest::bool::ANY, proptest::option::of(0_u32..3)), 1..20,
        ),
    ) {
        let mut cluster = Cluster::new();
        cluster.take().expect("taken");
        let mut has_turned = false;
        for (n, (is_canary, is_forward, kill)) in (1..).zip(asked) {
            let role = if is_canary { Role::Canary } else { Role::Main };
            let release = if is_forward { new() } else { old() };
            let before = (cluster.images().0.map(str::to_owned), cluster.is.template.clone());
            let writes = cluster.written.len();
            let done = cluster.bring(role, release, 2 * n, kill);
            has_turned |= !is_forward && done.is_ok();
            proptest::prop_assert!(!(has_turned && is_forward && done.is_ok()), "it went forward on the way back");
            let canary_changed = cluster.images().0 != before.0.as_deref();
            let main_changed = cluster.is.template != before.1;
            proptest::prop_assert!(!(canary_changed && main_changed && is_forward), "both changed in one turn");
            proptest::prop_assert!(!has_turned || cluster.is.template == OLD, "it has turned, and the owner's has not");
            if main_changed && cluster.is.template == NEW {
                proptest::prop_assert_eq!(cluster.images().0, Some(NEW));
            }
            let most = 1 + usize::from(canary_changed && main_changed);
            proptest::prop_assert!(cluster.written.len() <= writes + most, "{:?}", cluster.written);
            // The same again changes nothing.
            let then = (cluster.is.clone(), cluster.written.clone());
            if done.is_ok() {
                let again = cluster.step(role, &format!("up.{}.restart", 2 * n + 1), &replacing(), None);
                proptest::prop_assert_eq!(again, done);
                proptest::prop_assert_eq!((&cluster.is, &cluster.written), (&then.0, &then.1));
            }
        }
        if has_turned {
            // Though the canary is never asked to come back.
            let mut alone = cluster.clone();
            alone.leave();
            proptest::prop_assert_eq!((alone.images(), alone.is.rest), ((None, OLD), rest()));
            for (role, n) in [(Role::Main, 1_000), (Role::Canary, 1_002)] {
                cluster.bring(role, old(), n, None).expect("back");
            }
            proptest::prop_assert_eq!(cluster.images(), (Some(OLD), OLD));
            cluster.leave();
            proptest::prop_assert_eq!((cluster.images(), cluster.is.rest), ((None, OLD), rest()));
        }
    }
}

#[test]
fn pods_that_end_again_and_again_are_not_spoken_for_by_one_that_is_ready() {
    let crashing = Pod {
        is_ready: false,
        waiting: Some(Waiting {
            restarts: 2,
            ..waits("CrashLoopBackOff")
        }),
        ..Cluster::new().is.pods[0].clone()
    };
    for (rolling, most) in [
        (serde_json::json!({}), 0),
        (serde_json::json!({"maxUnavailable": 1}), 1),
        (serde_json::json!({"maxUnavailable": "67%"}), 2),
    ] {
        for crash in 0..REPLICAS as usize {
            let mut cluster = Cluster::new();
            cluster.is.strategy["rollingUpdate"] = rolling.clone();
            cluster.is.pods[..crash].fill(crashing.clone());
            let runs = cluster.is.running(Role::Main).is_some();
            assert_eq!(runs, crash <= most, "{crash} with {rolling}");
        }
    }
}

#[test]
fn nothing_is_blamed_for_what_was_scaled_away() {
    let mut cluster = Cluster::new();
    cluster.is.replicas = 0;
    assert_eq!(cluster.is.is_scaled_away(Role::Main), None);
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.is.replicas = 0;
    assert_eq!(cluster.is.is_scaled_away(Role::Main).as_deref(), Some(SCALED_AWAY));
    assert_eq!(cluster.is.is_scaled_away(Role::Canary), None);
}

#[test]
fn time_without_a_machine_is_not_the_builds() {
    let replaces = Replacement {
        release: new(),
        uid: None,
        since: at(),
        deadline_s: 60,
    };
    let pod = Pod {
        is_ready: false,
        placed_at: Some(at() + Duration::from_mins(10)),
        ..Cluster::new().is.pods[0].clone()
    };
    for (seconds, is_over) in [(601, false), (659, false), (661, true)] {
        let state = pod.coming_up(&replaces, at() + Duration::from_secs(seconds));
        assert_eq!(state != StepState::Running, is_over, "{seconds}");
    }
}

/// One whose upgrade has said that it goes back.
fn going_back() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    let back = Asked::Point { release: old() };
    cluster
        .step(Role::Main, "up.2.activate", &back, None)
        .expect("goes back");
    cluster
}

#[test]
fn what_is_given_back_late_is_its_owners_as_that_has_changed_it_since() {
    let mut cluster = going_back();
    cluster.is.template = "r@sha256:mended".to_owned();
    let template = |leaving| cluster.is.given_back(&leaving).expect("it is taken").template;
    let ended = |upgrade| Ended {
        upgrade,
        went: Went::Back,
    };
    assert_eq!(template(Leaving::EndedBefore(ended("up"))), Template::Same);
    assert_eq!(template(Leaving::Unknown { by: Some("up") }), Template::Same);
    // Its own end goes over whatever was made of it meanwhile.
    let before = Template::Revision("web-1".to_owned());
    assert_eq!(template(Leaving::JustEnded(ended("up"))), before);
    for leaving in [
        Leaving::JustEnded(ended("next")),
        Leaving::EndedBefore(ended("next")),
        Leaving::Unknown { by: Some("next") },
        Leaving::Unknown { by: None },
    ] {
        assert_eq!(cluster.is.given_back(&leaving), None, "it is another's");
        assert!(cluster.is.is_of_another(&leaving));
    }
}

#[test]
fn of_one_whose_memory_was_taken_out_nothing_more_is_changed() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.is.record = Record::default();
    cluster.is.canary = None;
    for asked in [Asked::Point { release: new() }, replacing()] {
        for role in [Role::Canary, Role::Main] {
            let answer = cluster.is.ask(role, &token(1), "up.9.some", &asked, at());
            assert_eq!(answer, Err(Refused::Forgotten), "{role:?} {asked:?}");
        }
    }
}

#[test]
fn one_that_was_never_told_that_it_goes_back_is_given_back_as_it_was() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 1, None).expect("brought");
    cluster.bring(Role::Main, new(), 3, None).expect("brought");
    assert_eq!(cluster.is.template, NEW);
    let ended = |went| Ended { upgrade: "up", went };
    let before = Template::Revision("web-1".to_owned());
    for (leaving, expected, pause) in [
        (Leaving::JustEnded(ended(Went::Back)), before.clone(), Pause::Lifted),
        // Nobody has changed it since either, but may have paused it as a brake.
        (Leaving::EndedBefore(ended(Went::Back)), before, Pause::Same),
        (Leaving::JustEnded(ended(Went::Forward)), Template::Same, Pause::Same),
    ] {
        let change = cluster.is.given_back(&leaving).expect("it is taken");
        assert_eq!((change.template, change.pause), (expected, pause), "{leaving:?}");
    }
    assert_eq!(cluster.is.forgotten().map(|change| change.pause), Some(Pause::Same));
}

#[test]
fn the_way_back_goes_over_who_writes_meanwhile_and_not_for_ever() {
    let mut cluster = going_back();
    let asked = |cluster: &Cluster| {
        let answer = cluster
            .is
            .ask(Role::Main, &token(1), "up.3.restart", &replacing(), at());
        answer.expect("it may go back")
    };
    let Answer::Write(first) = asked(&cluster) else {
        panic!("it is not known yet")
    };
    cluster.write(*first);
    for _ in 0..MOST_GONE_OVER {
        cluster.is.template = NEW.to_owned();
        let Answer::Write(over) = asked(&cluster) else {
            panic!("somebody else has written")
        };
        assert_eq!(over.template, Template::Revision("web-1".to_owned()));
        cluster.write(*over);
        assert_eq!(cluster.is.template, OLD);
    }
    cluster.is.template = NEW.to_owned();
    let Answer::Known(StepState::Ended(end)) = asked(&cluster) else {
        panic!("it is left to people")
    };
    assert!(
        end.exit == 124 && end.log_tail.contains("somebody else writes"),
        "{end:?}"
    );
}

const OLDER: &str = "r@sha256:older";

/// One that an upgrade before has brought from an older build to the one that it is on.
fn upgraded_before() -> Cluster {
    let mut cluster = Cluster::new();
    let older = Digest::of(b"older");
    cluster.is.images.insert(older, OLDER.to_owned());
    let mut before = cluster.is.fresh("before").expect("it can be taken");
    (before.hold.before, before.hold.from) = (OLDER.to_owned(), Some(older));
    let record = |writes: u64, taken: Option<Taken>| Record {
        writes,
        fence: Some(token(1)),
        taken,
        ..Record::default()
    };
    cluster.sets.insert(OLDER.to_owned(), record(7, Some(before)));
    cluster.sets.insert(OLD.to_owned(), record(9, None));
    cluster.lies(record(9, None));
    cluster
}

#[test]
fn what_kubectl_rollout_undo_puts_back_is_another_hand_and_no_record_of_ours() {
    let rows: [(&str, Hand); 4] = [
        ("to the revision before", |cluster| cluster.undo(OLD)),
        ("to one of an upgrade before", |cluster| cluster.undo(OLDER)),
        ("the annotation is taken away", |cluster| {
            cluster.lies(Record::default());
        }),
        ("there, and the template of the new build again", |cluster| {
            cluster.undo(OLDER);
            cluster.is.template = NEW.to_owned();
        }),
    ];
    for (name, edit) in rows {
        let mut cluster = upgraded_before();
        cluster.take().expect("taken");
        cluster.bring(Role::Canary, new(), 2, None).expect("moved");
        cluster
            .step(Role::Main, "up.4.activate", &Asked::Point { release: new() }, None)
            .expect("said");
        // A newer driver writes the template.
        let ask = |cluster: &Cluster, counter: u64, id: &str| {
            let asked = cluster.is.ask(Role::Main, &token(counter), id, &replacing(), at());
            asked.map_err(|why| why.to_string())
        };
        let Ok(Answer::Write(change)) = ask(&cluster, 2, "up.5.restart") else {
            panic!("{name}: it was not asked for")
        };
        cluster.write(*change);
        assert_eq!(cluster.is.foreign_edit(), None);
        let written = cluster.is.record.clone();

        edit(&mut cluster);
        assert_eq!(cluster.is.record, written, "{name}: what was written last counts");
        let told = cluster.is.foreign_edit().unwrap_or_default();
        assert!(told.contains("`kubectl rollout undo`"), "{name}: {told}");
        // The fence never goes back.
        assert_eq!(
            ask(&cluster, 1, "up.5.restart"),
            Err(Refused::Fenced { seen: 2 }.to_string())
        );
        // Whose emergency it is, nobody fights it.
        let Ok(Answer::Known(StepState::Ended(end))) = ask(&cluster, 2, "up.5.restart") else {
            panic!("{name}: it is written again")
        };
        assert!(end.exit == 1 && end.log_tail == told, "{name}: {end:?}");
        let forward = ask(&cluster, 2, "up.7.restart").expect_err("it is held");
        assert_eq!(forward, told, "{name}");

        for (role, step) in [(Role::Canary, 8), (Role::Main, 10)] {
            let back = |cluster: &mut Cluster, id: String, asked: &Asked| {
                for _ in 0..10 {
                    match cluster.is.ask(role, &token(2), &id, asked, at()).expect("it goes back") {
                        Answer::Write(change) => cluster.write(*change),
                        Answer::Known(StepState::Running) => cluster.settle(),
                        Answer::Known(state) => return state,
                    }
                    if let Some(due) = cluster.is.due(role, &id) {
                        cluster.write_canary(due);
                    }
                }
                panic!("{name}: {id} does not end")
            };
            back(
                &mut cluster,
                format!("up.{step}.activate"),
                &Asked::Point { release: old() },
            );
            let state = back(&mut cluster, format!("up.{}.restart", step + 1), &replacing());
            assert_eq!(state, ended(0, String::new()), "{name}: {role:?}");
        }
        assert_eq!(cluster.images(), (Some(OLD), OLD), "{name}");
        assert_eq!(
            cluster.is.foreign_edit(),
            Some(told),
            "{name}: what it went over is told"
        );
        cluster.leave();
        let newest = cluster.sets.values().map(|copy| copy.writes).max();
        assert_eq!(newest, Some(cluster.is.record.writes), "{name}: no copy is newer");
    }
}

#[test]
fn a_way_back_that_is_undone_goes_on_from_what_was_written_last() {
    let mut cluster = upgraded_before();
    cluster.take().expect("taken");
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    cluster.bring(Role::Main, new(), 4, None).expect("moved");
    cluster
        .step(Role::Main, "up.6.activate", &Asked::Point { release: old() }, None)
        .expect("said");
    for undone in [NEW, OLDER] {
        cluster.undo(undone);
        assert_eq!(cluster.is.way(), Some(Way::Back), "{undone}");
        let state = cluster.step(Role::Main, "up.7.restart", &replacing(), None);
        assert_eq!(state, Ok(ended(0, String::new())), "{undone}");
        assert_eq!((cluster.images().1, cluster.is.is_put_back), (OLD, false), "{undone}");
    }
}

#[test]
fn of_an_upgrade_that_is_over_nothing_comes_back_with_its_template() {
    let mut cluster = upgraded_before();
    // The owner's own word between two upgrades.
    cluster.undo(OLDER);
    assert_eq!((&cluster.is.record.taken, cluster.is.foreign_edit()), (&None, None));
    assert!(cluster.is.given_back(&just_ended(Went::Forward)).is_none());
    cluster.settle();
    let taken = cluster.is.ask(Role::Canary, &token(1), "up.0.check", &taking(), at());
    let Ok(Answer::Write(change)) = taken else {
        panic!("{taken:?}")
    };
    let newest = cluster.sets.values().map(|copy| copy.writes).max();
    assert!(Some(change.record.writes) > newest, "{change:?}");
    assert_eq!(
        change.record.taken.map(|taken| taken.hold.before).as_deref(),
        Some(OLDER)
    );
}

#[test]
fn what_is_forgotten_does_not_come_back_from_a_copy_and_is_another_homes_to_take() {
    let mut cluster = upgraded_before();
    cluster.take().expect("taken");
    let change = cluster.is.forgotten().expect("it has much to forget");
    cluster.write(change);
    cluster.lies(cluster.is.record.clone());
    assert_eq!((&cluster.is.record.fence, &cluster.is.record.taken), (&None, &None));
    assert_eq!(cluster.is.forgotten(), None);
    assert_eq!(Cluster::new().is.forgotten(), None);
    // Adopted, it is nobody else's again, whatever is put back.
    let another = FencingToken {
        home: "another".to_owned(),
        counter: 1,
    };
    cluster.write(cluster.is.adopted(&another));
    cluster.undo(OLDER);
    assert_eq!(cluster.is.admits(&another), Ok(()));
    assert!(cluster.is.admits(&token(9)).is_err());
}

#[test]
fn a_container_that_the_template_has_no_more_is_another_hand_and_the_way_back_mends_it() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    assert_eq!(
        cluster
            .is
            .record
            .taken
            .as_ref()
            .map(|taken| taken.hold.container.as_str()),
        Some("app")
    );
    cluster.bring(Role::Canary, new(), 2, None).expect("moved");
    cluster.is.template = String::new();
    let told = cluster.is.foreign_edit().unwrap_or_default();
    assert!(told.starts_with("its template has no container app"), "{told}");
    for (role, step) in [(Role::Canary, 4), (Role::Main, 6)] {
        assert_eq!(cluster.bring(role, old(), step, None), Ok(ended(0, String::new())));
    }
    assert_eq!(cluster.images(), (Some(OLD), OLD));
}

#[test]
fn a_cluster_that_rewrites_images_is_told_before_any_build_is_blamed() {
    let mut cluster = Cluster::new();
    cluster.take().expect("taken");
    let state = |cluster: &Cluster| cluster.is.state(Role::Canary, "up.0.check", at());
    assert_eq!(state(&cluster), Some(ended(0, String::new())));
    for pod in cluster
        .is
        .pods
        .iter_mut()
        .chain(&mut cluster.is.canary.as_mut().expect("made").pods)
    {
        pod.image = "mirror/r@sha256:old".to_owned();
    }
    let told = pod::rewritten("mirror/r@sha256:old", OLD);
    assert_eq!(state(&cluster), Some(ended(1, told.clone())));
    // Though nothing of the owner's can be used either, which an upgrade might mend.
    for pod in &mut cluster.is.pods {
        pod.is_ready = false;
    }
    assert_eq!(state(&cluster), Some(ended(1, told)));
}

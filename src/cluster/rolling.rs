//! How the pods of a `StatefulSet` change their image one at a time, when we say so. Pure: what is seen goes in, and what is to
//! be written comes out.
//!
//! A pod that is made anew gets the template's image when its ordinal is at or above `partition`, else that of the revision
//! that the set counts as its current one (Kubernetes, "StatefulSet Basics", partitioned updates). So a pod is moved by first
//! seeing to it that the image that it would be made with is the right one, and then deleting it. Which pods are meant to be on
//! which build, and which step is under way, lies in an annotation of the set: it is written in one write with what it speaks
//! of, so a driver that was killed finds both or neither.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hosts::{FencingToken, StepEnd, StepState};
use crate::model::values::Digest;

/// Steps of a pod that are remembered. One is under way at most; the others answer a driver that asks again.
const STEPS_KEPT: usize = 4;
/// Why a container does not come up, and by itself never will: waiting for the deadline tells nothing more.
const HOPELESS: [&str; 6] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// What is remembered of a set between two looks: the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The highest token that it has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FencingToken>,
    /// The template's image as an upgrade wrote it: another one is somebody else's while that upgrade goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    /// What is remembered of each pod, by its ordinal.
    #[serde(default)]
    pub pods: BTreeMap<u32, PodRecord>,
}

/// What an upgrade made of the template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// The image.
    pub image: String,
    /// Which upgrade.
    pub upgrade: String,
    /// What it was before: that image is the way back.
    pub before: String,
}

/// What is remembered of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    /// The build that it is to be made with when it is made anew; without one it is as the set has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Digest>,
    /// The last steps, the oldest first.
    #[serde(default)]
    pub steps: Vec<StepRecord>,
}

/// A step that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Its id.
    pub id: String,
    /// Of a replacement: what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replacement>,
}

/// A pod that makes way for its successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// The build that the successor runs.
    pub release: Digest,
    /// The one that goes; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// How long it may take.
    pub deadline_s: u64,
}

/// A set as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// How many pods it is to have.
    pub replicas: u32,
    /// Who moves its pods.
    pub strategy: Strategy,
    /// From this ordinal on pods are made by the template.
    pub partition: u32,
    /// The template's image.
    pub template: String,
    /// The image of the revision that it counts as current.
    pub current: String,
    /// The image of each build that is known.
    pub images: BTreeMap<Digest, String>,
    /// What is remembered.
    pub record: Record,
}

/// Who moves the pods of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Its controller moves those at or above the boundary.
    Rolling,
    /// Whoever deletes them; all are made by the template. One that is lost would come back with the build that is under test:
    /// it is right on the way back only, where that is the build to go back to.
    OnDelete,
}

/// A pod as it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// Tells it from the one before it.
    pub uid: String,
    /// The image that it was made with.
    pub image: String,
    /// Since when its container runs, if it does.
    pub running_since: Option<Timestamp>,
    /// Why its container waits.
    pub waiting: Option<Waiting>,
    /// It was asked to end.
    pub ending: bool,
    /// Its own address.
    pub address: Option<String>,
}

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// In one word.
    pub reason: String,
    /// In its own words.
    pub message: String,
}

/// What is asked of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To be made with this build from now on.
    Point {
        /// The build.
        release: Digest,
    },
    /// To be made anew now, with the build that it points to.
    Replace {
        /// Within this.
        deadline: Duration,
    },
}

/// What a set has to be made to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is remembered from now on.
    pub record: Record,
    /// The template's image.
    pub template: String,
    /// From this ordinal on pods are made by it.
    pub partition: u32,
    /// Who moves its pods.
    pub strategy: Strategy,
}

/// What becomes of what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is known; nothing is to be written.
    Known(StepState),
    /// To be written, all in one.
    Write(Box<Change>),
}

/// Why a pod cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another driver was here.
    #[error("it has seen token {seen}")]
    Fenced {
        /// What it has seen.
        seen: u64,
    },
    /// Another home's.
    #[error("it serves another home ({seen})")]
    Foreign {
        /// Whose.
        seen: String,
    },
    /// The environment does not say what it is.
    #[error("the image of build {} is not stated in the environment's `source.images`", .0.short())]
    NoImage(Digest),
    /// Nobody said what it is to run.
    #[error("it points to no build that is known")]
    Aimless,
    /// A partition is a boundary.
    #[error("a StatefulSet's pods change from the top ordinal down, and ordinal {above} has not changed yet")]
    Order {
        /// The pod that is in the way.
        above: u32,
    },
    /// The set is not as it was left.
    #[error(
        "the image of its template is {found}, and {written} was written: somebody else has changed it; put it back, or `abort`"
    )]
    ForeignEdit {
        /// What is there.
        found: String,
        /// What was written.
        written: String,
    },
}

impl Set {
    /// Whether this token may write.
    ///
    /// # Errors
    /// Another home, or a newer token was here.
    pub fn admits(&self, token: &FencingToken) -> Result<(), Refused> {
        match &self.record.fence {
            Some(fence) if fence.home != token.home => Err(Refused::Foreign {
                seen: fence.home.clone(),
            }),
            Some(fence) if fence.counter > token.counter => Err(Refused::Fenced { seen: fence.counter }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the template is as the upgrade of this step left it.
    ///
    /// # Errors
    /// It is not.
    pub fn untouched(&self, id: &str) -> Result<(), Refused> {
        match &self.record.written {
            Some(written) if written.upgrade == upgrade_of(id) && written.image != self.template => {
                Err(Refused::ForeignEdit {
                    found: self.template.clone(),
                    written: written.image.clone(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The build of an image, if it is one that is known.
    #[must_use]
    pub fn build_of(&self, image: &str) -> Option<Digest> {
        let mut images = self.images.iter();
        images.find(|(_, known)| *known == image).map(|(build, _)| *build)
    }

    /// The image that a pod would be made with now.
    #[must_use]
    pub fn image_for(&self, ordinal: u32) -> &str {
        match self.strategy {
            Strategy::Rolling if ordinal < self.partition => &self.current,
            Strategy::Rolling | Strategy::OnDelete => &self.template,
        }
    }

    /// The build that a pod is to be made with.
    #[must_use]
    pub fn goal(&self, ordinal: u32) -> Option<Digest> {
        let stated = self.record.pods.get(&ordinal).and_then(|pod| pod.goal);
        stated.or_else(|| self.build_of(self.image_for(ordinal)))
    }

    /// Answers what is asked of a pod under a step's id. Asked again, the answer is how far it is.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn ask(
        &self,
        ordinal: u32,
        pod: Option<&Pod>,
        token: &FencingToken,
        id: &str,
        asked: &Asked,
        now: Timestamp,
    ) -> Result<Answer, Refused> {
        self.admits(token)?;
        if let Some(state) = self.state(ordinal, pod, id, now) {
            return Ok(Answer::Known(state));
        }
        self.untouched(id)?;
        let mut change = self.as_it_is();
        change.record.fence = Some(token.clone());
        let mut step = StepRecord {
            id: id.to_owned(),
            replaces: None,
        };
        match asked {
            Asked::Point { release } => {
                self.image_of(release)?;
                change.record.pods.entry(ordinal).or_default().goal = Some(*release);
            }
            Asked::Replace { deadline } => {
                let release = self.goal(ordinal).ok_or(Refused::Aimless)?;
                let upgrade = upgrade_of(id);
                let ours = self
                    .record
                    .written
                    .as_ref()
                    .filter(|written| written.upgrade == upgrade);
                let before = ours.map_or(&self.template, |written| &written.before).clone();
                self.make_it_give(&mut change, ordinal, &release, &before)?;
                change.record.written = Some(Written {
                    image: change.template.clone(),
                    upgrade: upgrade.to_owned(),
                    before,
                });
                step.replaces = Some(Replacement {
                    release,
                    uid: pod.map(|pod| pod.uid.clone()),
                    since: now,
                    deadline_s: deadline.as_secs(),
                });
            }
        }
        let steps = &mut change.record.pods.entry(ordinal).or_default().steps;
        steps.push(step);
        let too_many = steps.len().saturating_sub(STEPS_KEPT);
        steps.drain(..too_many);
        Ok(Answer::Write(Box::new(change)))
    }

    /// Where a step stands; none if it was not asked for.
    #[must_use]
    pub fn state(&self, ordinal: u32, pod: Option<&Pod>, id: &str, now: Timestamp) -> Option<StepState> {
        let steps = &self.record.pods.get(&ordinal)?.steps;
        let step = steps.iter().find(|step| step.id == id)?;
        let Some(replaces) = &step.replaces else {
            return Some(ended(0, String::new()));
        };
        let late = now.duration_since(replaces.since).unsigned_abs() > Duration::from_secs(replaces.deadline_s);
        let image = self.images.get(&replaces.release);
        Some(match pod {
            Some(pod) if Some(&pod.uid) != replaces.uid.as_ref() => match (&pod.waiting, pod.running_since) {
                _ if Some(&pod.image) != image => ended(
                    1,
                    format!("the pod came back with image {}, which is another", pod.image),
                ),
                (_, Some(_)) => ended(0, String::new()),
                (Some(Waiting { reason, message }), None) if HOPELESS.contains(&reason.as_str()) => {
                    ended(1, format!("{reason}: {message}"))
                }
                (Some(Waiting { reason, message }), None) if late => ended(124, format!("{reason}: {message}")),
                (None, None) if late => ended(124, "its container does not run".to_owned()),
                (Some(_) | None, None) => StepState::Running,
            },
            Some(_) if late => ended(124, "the pod does not end".to_owned()),
            None if late => ended(124, "the pod was not made anew".to_owned()),
            Some(_) | None => StepState::Running,
        })
    }

    /// The pod that a step waits to see gone, if it is still there and was not asked to end.
    #[must_use]
    pub fn to_delete<'p>(&self, ordinal: u32, pod: Option<&'p Pod>, id: &str) -> Option<&'p str> {
        let steps = &self.record.pods.get(&ordinal)?.steps;
        let replaces = steps.iter().find(|step| step.id == id)?.replaces.as_ref()?;
        let pod = pod?;
        (Some(&pod.uid) == replaces.uid.as_ref() && !pod.ending).then_some(pod.uid.as_str())
    }

    fn image_of(&self, release: &Digest) -> Result<&str, Refused> {
        let image = self.images.get(release);
        image.map(String::as_str).ok_or(Refused::NoImage(*release))
    }

    /// Nothing changed.
    #[must_use]
    pub fn as_it_is(&self) -> Change {
        Change {
            record: self.record.clone(),
            template: self.template.clone(),
            partition: self.partition,
            strategy: self.strategy,
        }
    }

    /// Whether its controller was told to keep still for a way back.
    #[must_use]
    pub fn is_on_its_way_back(&self) -> bool {
        let back = |written: &Written| written.image == written.before && written.image == self.template;
        self.strategy == Strategy::OnDelete && self.record.written.as_ref().is_some_and(back)
    }

    /// What has to stand in the set so that this pod is made with this build, and no other pod is moved.
    fn make_it_give(&self, change: &mut Change, ordinal: u32, release: &Digest, before: &str) -> Result<(), Refused> {
        let image = self.image_of(release)?;
        image.clone_into(&mut change.template);
        change.strategy = Strategy::Rolling;
        if self.current == image {
            // The set still counts the revision that is gone back to as its current one: nothing is above the boundary, so any
            // pod can go first.
            change.partition = self.replicas;
            return Ok(());
        }
        if before == image && self.template != image || self.is_on_its_way_back() {
            // It counts the other one. From the top down it would go, too, but a sick pod at the bottom would wait for healthy
            // ones to be taken out.
            change.strategy = Strategy::OnDelete;
            return Ok(());
        }
        // The boundary has to lie at or below this pod.
        let stays = (ordinal + 1..self.replicas).find(|above| self.image_for(*above) != image);
        if let Some(above) = stays {
            return Err(Refused::Order { above });
        }
        let boundary = if self.template == image {
            self.partition
        } else {
            self.replicas
        };
        change.partition = boundary.min(ordinal);
        Ok(())
    }
}

/// A step's id is its upgrade's name, a number and a word (`rollout::nodes`).
fn upgrade_of(id: &str) -> &str {
    id.rsplitn(3, '.').last().unwrap_or(id)
}

fn ended(exit: i32, log_tail: String) -> StepState {
    StepState::Ended(StepEnd { exit, log_tail })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "r@sha256:old";
    const NEW: &str = "r@sha256:new";

    fn old() -> Digest {
        Digest::of(b"old")
    }
    fn new() -> Digest {
        Digest::of(b"new")
    }
    fn token(counter: u64) -> FencingToken {
        FencingToken {
            home: "home".to_owned(),
            counter,
        }
    }

    /// A cluster with one set, as its controller treats it: who is at or above the boundary and not as the template is replaced
    /// by the controller, from the top; who is gone is made anew.
    struct Cluster {
        set: Set,
        pods: BTreeMap<u32, Pod>,
        made: u32,
        /// Pods that the controller moved of its own accord.
        moved: Vec<u32>,
    }

    impl Cluster {
        fn of(replicas: u32) -> Self {
            let mut cluster = Self {
                set: Set {
                    replicas,
                    strategy: Strategy::Rolling,
                    partition: 0,
                    template: OLD.to_owned(),
                    current: OLD.to_owned(),
                    images: BTreeMap::from([(old(), OLD.to_owned()), (new(), NEW.to_owned())]),
                    record: Record::default(),
                },
                pods: BTreeMap::new(),
                made: 0,
                moved: Vec::new(),
            };
            (0..replicas).for_each(|i| cluster.make(i));
            cluster
        }

        fn make(&mut self, ordinal: u32) {
            self.made += 1;
            let pod = Pod {
                uid: format!("uid{}", self.made),
                image: self.set.image_for(ordinal).to_owned(),
                running_since: Some(Timestamp::UNIX_EPOCH),
                ..Pod::default()
            };
            self.pods.insert(ordinal, pod);
        }

        /// What the controller does until it has nothing to do.
        fn settle(&mut self) {
            let boundary = match self.set.strategy {
                Strategy::Rolling => self.set.partition,
                Strategy::OnDelete => self.set.replicas,
            };
            for ordinal in (boundary..self.set.replicas).rev() {
                if self.pods[&ordinal].image != self.set.template {
                    self.moved.push(ordinal);
                    self.make(ordinal);
                }
            }
            if self.pods.values().all(|pod| pod.image == self.set.template) {
                self.set.current = self.set.template.clone();
            }
        }

        fn ask(&mut self, ordinal: u32, id: &str, asked: &Asked) -> Result<(), Refused> {
            let pod = self.pods.get(&ordinal);
            let answer = self
                .set
                .ask(ordinal, pod, &token(1), id, asked, Timestamp::UNIX_EPOCH)?;
            if let Answer::Write(change) = answer {
                let Change {
                    record,
                    template,
                    partition,
                    strategy,
                } = *change;
                (self.set.record, self.set.template, self.set.partition) = (record, template, partition);
                self.set.strategy = strategy;
                let pod = self.pods.get(&ordinal);
                if self.set.to_delete(ordinal, pod, id).is_some() {
                    self.make(ordinal);
                }
                self.settle();
            }
            Ok(())
        }

        /// Points a pod to a build and has it made anew.
        fn bring(&mut self, ordinal: u32, release: Digest, upgrade: &str, n: u32) -> Result<(), Refused> {
            self.ask(ordinal, &format!("{upgrade}.{n}.activate"), &Asked::Point { release })?;
            let deadline = Duration::from_secs(60);
            self.ask(
                ordinal,
                &format!("{upgrade}.{}.restart", n + 1),
                &Asked::Replace { deadline },
            )
        }

        fn images(&self) -> String {
            let letter = |pod: &Pod| if pod.image == NEW { 'n' } else { 'o' };
            self.pods.values().map(letter).collect()
        }
    }

    #[test]
    fn pods_move_one_at_a_time_from_the_top_and_all_the_way() {
        let mut cluster = Cluster::of(3);
        for (ordinal, after) in [(2, "oon"), (1, "onn"), (0, "nnn")] {
            cluster.bring(ordinal, new(), "up", 0).expect("moved");
            assert_eq!(cluster.images(), after);
        }
        assert_eq!(
            (cluster.moved.as_slice(), cluster.made),
            (&[][..], 6),
            "nobody moved but by us, and once"
        );
        assert_eq!(cluster.set.current, NEW);
    }

    #[test]
    fn the_way_back_takes_the_sick_first_wherever_it_begins() {
        let mut cluster = Cluster::of(4);
        for ordinal in [3, 2, 1] {
            cluster.bring(ordinal, new(), "up", 0).expect("moved");
        }
        for (ordinal, after) in [(1, "oonn"), (3, "oono"), (2, "oooo")] {
            cluster.bring(ordinal, old(), "up", 2).expect("moved back");
            assert_eq!(cluster.images(), after);
        }
        assert_eq!(cluster.set.strategy, Strategy::Rolling);
        // And once the set counts the new build as its own.
        for ordinal in [3, 2, 1, 0] {
            cluster.bring(ordinal, new(), "again", 0).expect("moved");
        }
        assert_eq!(cluster.set.current, NEW);
        for (ordinal, after) in [(1, "nonn"), (0, "oonn"), (3, "oono")] {
            cluster.bring(ordinal, old(), "again", 2).expect("moved back");
            assert_eq!(cluster.images(), after);
            assert!(cluster.set.is_on_its_way_back());
        }
        // One that is lost on the way comes back with what it goes back to.
        cluster.make(2);
        assert_eq!(cluster.images(), "oooo");
        // What comes next is a roll as ever.
        cluster.settle();
        assert_eq!(cluster.bring(1, new(), "next", 0), Err(Refused::Order { above: 2 }));
        cluster.bring(3, new(), "next", 0).expect("moved");
        assert_eq!(
            (cluster.images().as_str(), cluster.set.strategy),
            ("ooon", Strategy::Rolling)
        );
        assert!(cluster.moved.is_empty(), "{:?}", cluster.moved);
    }

    #[test]
    fn a_pod_that_is_lost_meanwhile_comes_back_with_what_it_had() {
        let mut cluster = Cluster::of(3);
        cluster.bring(2, new(), "up", 0).expect("moved");
        for ordinal in [0, 1, 2] {
            cluster.make(ordinal);
        }
        assert_eq!(cluster.images(), "oon");
    }

    #[test]
    fn older_drivers_other_homes_and_other_hands_are_refused() {
        let mut cluster = Cluster::of(2);
        cluster.bring(1, new(), "up", 0).expect("moved");
        let pod = cluster.pods.get(&1);
        let ask = |set: &Set, token: &FencingToken, id: &str| {
            let asked = Asked::Point { release: old() };
            set.ask(1, pod, token, id, &asked, Timestamp::UNIX_EPOCH).map(|_| ())
        };
        let mut set = cluster.set.clone();
        assert_eq!(ask(&set, &token(0), "up.9.activate"), Err(Refused::Fenced { seen: 1 }));
        let foreign = FencingToken {
            home: "elsewhere".to_owned(),
            counter: 9,
        };
        let seen = "home".to_owned();
        assert_eq!(ask(&set, &foreign, "up.9.activate"), Err(Refused::Foreign { seen }));
        set.template = "r@sha256:hand".to_owned();
        let edited = ask(&set, &token(1), "up.9.activate");
        assert!(matches!(edited, Err(Refused::ForeignEdit { .. })), "{edited:?}");
        assert_eq!(
            ask(&set, &token(1), "next.0.activate"),
            Ok(()),
            "another upgrade begins with what is there"
        );
    }

    #[test]
    fn a_step_is_known_by_its_id_and_ends_as_its_pod_does() {
        let mut cluster = Cluster::of(1);
        cluster
            .ask(0, "up.0.activate", &Asked::Point { release: new() })
            .expect("written");
        let before = cluster.pods[&0].clone();
        let deadline = Duration::from_secs(60);
        let asked = Asked::Replace { deadline };
        let at = Timestamp::UNIX_EPOCH;
        let answer = cluster.set.ask(0, Some(&before), &token(1), "up.1.restart", &asked, at);
        let Ok(Answer::Write(change)) = answer else {
            panic!("{answer:?}")
        };
        let mut set = cluster.set.clone();
        (set.record, set.template, set.partition) = (change.record, change.template, change.partition);
        let pod = |uid: &str, image: &str| Pod {
            uid: uid.to_owned(),
            image: image.to_owned(),
            ..Pod::default()
        };
        let waits = |reason: &str| Pod {
            waiting: Some(Waiting {
                reason: reason.to_owned(),
                message: "m".to_owned(),
            }),
            ..pod("next", NEW)
        };
        let runs = Pod {
            running_since: Some(at),
            ..pod("next", NEW)
        };
        let (soon, late) = (at + Duration::from_secs(59), at + Duration::from_secs(61));
        for (pod, now, expected) in [
            (Some(before.clone()), soon, None),
            (Some(before.clone()), late, Some((124, "the pod does not end"))),
            (None, soon, None),
            (None, late, Some((124, "the pod was not made anew"))),
            (Some(pod("next", NEW)), soon, None),
            (Some(pod("next", NEW)), late, Some((124, "its container does not run"))),
            (
                Some(pod("next", OLD)),
                soon,
                Some((1, "the pod came back with image r@sha256:old, which is another")),
            ),
            (Some(waits("ContainerCreating")), soon, None),
            (
                Some(waits("ContainerCreating")),
                late,
                Some((124, "ContainerCreating: m")),
            ),
            (Some(waits("ImagePullBackOff")), soon, Some((1, "ImagePullBackOff: m"))),
            (Some(runs), soon, Some((0, ""))),
        ] {
            let expected = match expected {
                None => StepState::Running,
                Some((exit, why)) => ended(exit, why.to_owned()),
            };
            let state = set.state(0, pod.as_ref(), "up.1.restart", now);
            assert_eq!(state, Some(expected), "{pod:?} at {now}");
        }
        assert_eq!(set.state(0, Some(&before), "up.7.restart", soon), None);
        assert_eq!(set.to_delete(0, Some(&before), "up.1.restart"), Some("uid1"));
        let ending = Pod { ending: true, ..before };
        assert_eq!(set.to_delete(0, Some(&ending), "up.1.restart"), None);
    }

    proptest::proptest! {
        /// However pods are asked for, and whoever is lost meanwhile: what is done moves this pod alone. (One that is lost on a way
        /// back comes back with the build that it would go back to anyway.)
        #[test]
        fn a_pod_is_moved_by_its_own_turn_alone(
            replicas in 1_u32..6,
            asked in proptest::collection::vec((0_u32..6, proptest::bool::ANY, proptest::option::of(0_u32..6)), 1..20),
        ) {
            let mut cluster = Cluster::of(replicas);
            for (n, (ordinal, forward, lost)) in (0..).zip(asked) {
                let ordinal = ordinal % replicas;
                let before: Vec<String> = cluster.pods.values().map(|pod| pod.image.clone()).collect();
                let release = if forward { new() } else { old() };
                if cluster.bring(ordinal, release, "up", 2 * n).is_ok() {
                    proptest::prop_assert_eq!(&cluster.pods[&ordinal].image, &cluster.set.images[&release]);
                }
                let lost = lost.map(|lost| lost % replicas);
                if let Some(lost) = lost {
                    cluster.make(lost);
                }
                for (other, image) in (0..).zip(before) {
                    if other != ordinal && lost != Some(other) {
                        proptest::prop_assert_eq!(&cluster.pods[&other].image, &image, "pod {} while {} was asked for", other, ordinal);
                    }
                }
            }
            proptest::prop_assert!(cluster.moved.is_empty());
        }
    }
}

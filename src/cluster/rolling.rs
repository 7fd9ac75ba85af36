//! How the pods of a `StatefulSet` change their image one at a time, when we say so. Pure: what is seen goes in, and what is to
//! be written comes out.
//!
//! Forward, `partition` is the boundary: a pod that is made anew gets the template's image at or above it, else that of the
//! revision that the set counts as its current one (Kubernetes, "StatefulSet Basics", partitioned updates). Which that is may be
//! seen late, so a set is taken only while all of it is on one revision. Back, the strategy is `OnDelete` and the template is what
//! it was before: whichever pod is deleted comes back with that, in any order. At the end the set gets its own strategy back.
//!
//! Which pods are meant to be on which build, and which step is under way, lies in an annotation of the set: it is written in one
//! write with what it speaks of, so a driver that was killed finds both or neither.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::hosts::{FencingToken, StepEnd, StepState};
use crate::model::values::Digest;

/// Steps of a pod that are remembered: what it points to, and how it was made anew. One is under way at most, and an API server
/// takes 256 KiB of annotations, which is this for some 600 pods.
const STEPS_KEPT: usize = 2;
/// Why a container does not come up, and never will.
const HOPELESS: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];
/// Why a container does not come up so far. A registry that is away, or a Secret or a database that comes a little later, mends
/// itself.
const TROUBLES: [&str; 6] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// A trouble that lasts longer than this is held against the build: its node has tried three times by then, at once, after 10 and
/// after 20 seconds more.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// What is remembered of a set between two looks: the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The highest token that it has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FencingToken>,
    /// The upgrade that has the set, from its first write to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// What is remembered of each pod, by its ordinal.
    #[serde(default)]
    pub pods: BTreeMap<u32, PodRecord>,
}

/// What an upgrade has made of a set: whatever else is found there is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// Which upgrade.
    pub by: String,
    /// The template's image before it: the way back leads there.
    pub before: String,
    /// The revision that it was of.
    pub revision: String,
    /// How many pods the set had.
    pub replicas: u32,
    /// What the template says beside the image.
    pub rest: Digest,
    /// The template's image as it was written last.
    pub image: String,
    /// The strategy as it was written last.
    pub strategy: Strategy,
    /// The set's own strategy, as its owner has it.
    pub own: serde_json::Value,
    /// What somebody else had made of it when the way back went over that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrote: Option<String>,
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
    /// The same in its owner's words.
    pub own: serde_json::Value,
    /// Every pod is of one revision, which is both the current and the template's, and the controller has seen the set as it is.
    pub is_settled: bool,
    /// Its controller makes a pod only while all below it are ready.
    pub is_ordered: bool,
    /// The template's image.
    pub template: String,
    /// What the template says beside the image.
    pub rest: Digest,
    /// The revision that it counts as current.
    pub revision: String,
    /// The image of that.
    pub current: String,
    /// The image of each build that is known.
    pub images: BTreeMap<Digest, String>,
    /// What is remembered.
    pub record: Record,
}

/// Who moves the pods of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// Its controller moves those at or above the boundary.
    Rolling {
        /// From this ordinal on pods are made by the template.
        partition: u32,
    },
    /// Whoever deletes them; all are made by the template. One that is lost would come back with the build that is under test:
    /// it is right on the way back only, where that is the build to go back to.
    OnDelete,
}

/// A pod as it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    /// Tells it from the one before it.
    pub uid: String,
    /// When it was made, by its cluster's clock.
    pub made_at: Timestamp,
    /// The image that it was made with.
    pub image: String,
    /// Since when its container runs, if it does.
    pub running_since: Option<Timestamp>,
    /// Its container says that it is ready.
    pub is_ready: bool,
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
    /// The template.
    pub template: Template,
    /// Who moves its pods; none gives the set its own strategy back.
    pub strategy: Option<Strategy>,
}

/// What a set's template has to be made to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// As it is, with this image.
    Image(String),
    /// What this revision was made of, whatever else was changed since.
    Revision(String),
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
    /// It rolls, or has not come to rest.
    #[error(
        "its pods are not all of its one revision, so where they would go back to is not known; `kubectl rollout status` waits for it"
    )]
    Unsettled,
    /// Who has begun to go back goes all the way.
    #[error("its pods are on their way back, and none goes forward before that is over")]
    GoesBack,
    /// A partition is a boundary.
    #[error("a StatefulSet's pods change from the top ordinal down, and ordinal {above} has not changed yet")]
    Order {
        /// The pod that is in the way.
        above: u32,
    },
    /// The set is not as it was left.
    #[error("{found}, and the upgrade had it as {meant}: somebody else has changed it")]
    ForeignEdit {
        /// What is there.
        found: String,
        /// What was written.
        meant: String,
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

    /// Whether the set is as the upgrade left it that has it.
    ///
    /// # Errors
    /// It is not.
    pub fn untouched(&self) -> Result<(), Refused> {
        let Some(taken) = &self.record.taken else { return Ok(()) };
        let edits = [
            (
                taken.image != self.template,
                format!("the image of its template is {}", self.template),
                taken.image.clone(),
            ),
            (
                taken.strategy != self.strategy,
                format!("its updateStrategy is {}", self.strategy),
                taken.strategy.to_string(),
            ),
            (
                taken.replicas != self.replicas,
                format!("it has {} replicas", self.replicas),
                taken.replicas.to_string(),
            ),
            (
                taken.rest != self.rest,
                "its template has changed beside the image".to_owned(),
                format!("revision {} has it", taken.revision),
            ),
        ];
        match edits.into_iter().find(|(is_edited, ..)| *is_edited) {
            Some((_, found, meant)) => Err(Refused::ForeignEdit { found, meant }),
            None => Ok(()),
        }
    }

    /// What somebody else has made of the set since the upgrade began that has it.
    #[must_use]
    pub fn foreign_edit(&self) -> Option<String> {
        let overwrote = self.record.taken.as_ref().and_then(|taken| taken.overwrote.clone());
        self.untouched().err().map(|edit| edit.to_string()).or(overwrote)
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
            Strategy::Rolling { partition } if ordinal < partition => &self.current,
            Strategy::Rolling { .. } | Strategy::OnDelete => &self.template,
        }
    }

    /// The build that a pod is to be made with: as the upgrade has said that has the set, else as it would be.
    #[must_use]
    pub fn goal(&self, ordinal: u32) -> Option<Digest> {
        let stated = self.record.pods.get(&ordinal).and_then(|pod| pod.goal);
        stated
            .filter(|_| self.record.taken.is_some())
            .or_else(|| self.build_of(self.image_for(ordinal)))
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
        // Who goes back makes it what it was, whatever was made of it since.
        let edited = self.untouched();
        if !self.leads_back(ordinal, asked) {
            edited.clone()?;
        }
        let upgrade = upgrade_of(id);
        if self.record.taken.as_ref().is_some_and(|taken| taken.by != upgrade) {
            // That one is over, and has not given it back yet.
            return Err(Refused::Unsettled);
        }
        let mut change = self.as_it_is();
        change.record.fence = Some(token.clone());
        if self.record.taken.is_none() {
            if !self.is_settled {
                return Err(Refused::Unsettled);
            }
            change.record.pods.clear();
            // Nothing is at or above it, so nothing moves.
            change.record.taken = Some(Taken {
                by: upgrade.to_owned(),
                before: self.template.clone(),
                revision: self.revision.clone(),
                replicas: self.replicas,
                rest: self.rest,
                image: self.template.clone(),
                strategy: Strategy::Rolling {
                    partition: self.replicas,
                },
                own: self.own.clone(),
                overwrote: None,
            });
        }
        if let (Some(taken), Err(edit)) = (&mut change.record.taken, &edited) {
            taken.overwrote = Some(edit.to_string());
        }
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
                let image = self.image_of(&release)?;
                if let Some(taken) = &mut change.record.taken {
                    taken.strategy = self.strategy_for(ordinal, image, taken)?;
                    image.clone_into(&mut taken.image);
                    change.template = match taken.strategy {
                        Strategy::OnDelete => Template::Revision(taken.revision.clone()),
                        Strategy::Rolling { .. } => Template::Image(taken.image.clone()),
                    };
                }
                step.replaces = Some(Replacement {
                    release,
                    uid: pod.map(|pod| pod.uid.clone()),
                    since: now,
                    deadline_s: deadline.as_secs(),
                });
            }
        }
        change.strategy = change.record.taken.as_ref().map(|taken| taken.strategy);
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
        let deadline = SignedDuration::from_secs(i64::try_from(replaces.deadline_s).unwrap_or(i64::MAX));
        // A clock that was set back makes nothing late.
        let late = now.duration_since(replaces.since) > deadline;
        let image = self.images.get(&replaces.release);
        let late_with = |why: String| if late { ended(124, why) } else { StepState::Running };
        Some(match pod {
            // Who was to delete it may have been killed before: it is deleted now.
            Some(pod) if Some(&pod.uid) == replaces.uid.as_ref() && !pod.ending => StepState::Running,
            Some(pod) if Some(&pod.uid) == replaces.uid.as_ref() => late_with("the pod does not end".to_owned()),
            // Its controller had not seen the set as it is: the next one will be right.
            Some(pod) if Some(&pod.image) != image => {
                late_with(format!("the pod comes back with image {}, which is another", pod.image))
            }
            Some(pod) if pod.is_ready => ended(0, String::new()),
            Some(Pod {
                waiting: Some(Waiting { reason, message }),
                made_at,
                ..
            }) if late || is_lasting(reason, now.duration_since(replaces.since.max(*made_at))) => {
                ended(if late { 124 } else { 1 }, format!("{reason}: {message}"))
            }
            Some(_) => late_with("its container is not ready".to_owned()),
            None if self.is_ordered && ordinal > 0 => late_with(
                "the pod was not made anew; its set's podManagementPolicy is OrderedReady, so every pod below it has to be ready first"
                    .to_owned(),
            ),
            None => late_with("the pod was not made anew".to_owned()),
        })
    }

    /// The pod that a step waits to see gone, if it is there and was not asked to end: the one before, or one that came back
    /// with another image.
    #[must_use]
    pub fn to_delete<'p>(&self, ordinal: u32, pod: Option<&'p Pod>, id: &str) -> Option<&'p str> {
        let steps = &self.record.pods.get(&ordinal)?.steps;
        let replaces = steps.iter().find(|step| step.id == id)?.replaces.as_ref()?;
        let pod = pod.filter(|pod| !pod.ending)?;
        let is_before = Some(&pod.uid) == replaces.uid.as_ref();
        let is_another = Some(&pod.image) != self.images.get(&replaces.release);
        (is_before || is_another).then_some(pod.uid.as_str())
    }

    /// What gives the set back to its owner, once an upgrade is over: its own strategy, and nothing that was remembered but who may
    /// write. Pods that are not as the template is are moved by its controller from then on.
    #[must_use]
    pub fn given_back(&self) -> Option<Change> {
        self.record.taken.as_ref()?;
        Some(Change {
            record: Record {
                fence: self.record.fence.clone(),
                ..Record::default()
            },
            template: Template::Image(self.template.clone()),
            strategy: None,
        })
    }

    /// Nothing changed.
    #[must_use]
    pub fn as_it_is(&self) -> Change {
        Change {
            record: self.record.clone(),
            template: Template::Image(self.template.clone()),
            strategy: Some(self.strategy),
        }
    }

    /// Whether what is asked brings a pod to what the set was before the upgrade that has it.
    fn leads_back(&self, ordinal: u32, asked: &Asked) -> bool {
        let release = match asked {
            Asked::Point { release } => Some(*release),
            Asked::Replace { .. } => self.goal(ordinal),
        };
        let image = release.and_then(|release| self.images.get(&release));
        let taken = self.record.taken.as_ref();
        image.is_some() && image == taken.map(|taken| &taken.before)
    }

    fn image_of(&self, release: &Digest) -> Result<&str, Refused> {
        let image = self.images.get(release);
        image.map(String::as_str).ok_or(Refused::NoImage(*release))
    }

    /// Under which strategy this pod is made with this image once it is the template's, and no other pod is moved.
    fn strategy_for(&self, ordinal: u32, image: &str, taken: &Taken) -> Result<Strategy, Refused> {
        if image == taken.before {
            return Ok(Strategy::OnDelete);
        }
        if taken.strategy == Strategy::OnDelete {
            return Err(Refused::GoesBack);
        }
        // The boundary has to lie at or below this pod.
        let stays = (ordinal + 1..self.replicas).find(|above| self.image_for(*above) != image);
        if let Some(above) = stays {
            return Err(Refused::Order { above });
        }
        let boundary = match self.strategy {
            Strategy::Rolling { partition } if self.template == image => partition,
            Strategy::Rolling { .. } | Strategy::OnDelete => self.replicas,
        };
        Ok(Strategy::Rolling {
            partition: boundary.min(ordinal),
        })
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Strategy::Rolling { partition } => write!(f, "RollingUpdate with partition {partition}"),
            Strategy::OnDelete => f.write_str("OnDelete"),
        }
    }
}

/// Whether what a container waits for is held against its build, after it has waited so long.
fn is_lasting(reason: &str, waited: SignedDuration) -> bool {
    HOPELESS.contains(&reason) || TROUBLES.contains(&reason) && waited > GRACE
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

    /// A cluster with one set, as its controller treats it: under `RollingUpdate` who is at or above the boundary and not as the
    /// template is replaced, from the top, and once all are the template's revision is the current one; under `OnDelete` neither.
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
                    strategy: Strategy::Rolling { partition: 0 },
                    own: serde_json::json!({"type": "RollingUpdate"}),
                    is_settled: true,
                    is_ordered: true,
                    template: OLD.to_owned(),
                    rest: Digest::of(b"rest"),
                    revision: "web-1".to_owned(),
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

        /// One is made anew, as the set has it.
        fn make(&mut self, ordinal: u32) {
            self.made += 1;
            let pod = Pod {
                uid: format!("uid{}", self.made),
                image: self.set.image_for(ordinal).to_owned(),
                is_ready: true,
                running_since: Some(Timestamp::UNIX_EPOCH),
                ..Pod::default()
            };
            self.pods.insert(ordinal, pod);
        }

        /// What the controller does until it has nothing to do.
        fn settle(&mut self) {
            if let Strategy::Rolling { partition } = self.set.strategy {
                let from_the_top: Vec<u32> = self
                    .pods
                    .range(partition..)
                    .rev()
                    .map(|(ordinal, _)| *ordinal)
                    .collect();
                for ordinal in from_the_top {
                    if self.pods[&ordinal].image != self.set.template {
                        self.moved.push(ordinal);
                        self.make(ordinal);
                    }
                }
                if self.pods.values().all(|pod| pod.image == self.set.template) {
                    self.set.current = self.set.template.clone();
                }
            }
            self.set.is_settled =
                self.set.current == self.set.template && self.pods.values().all(|pod| pod.image == self.set.template);
        }

        fn write(&mut self, change: Change) {
            let Change {
                record,
                template,
                strategy,
            } = change;
            self.set.template = match template {
                Template::Image(image) => image,
                Template::Revision(revision) => {
                    assert_eq!(revision, "web-1", "what the set was on");
                    self.set.rest = Digest::of(b"rest");
                    OLD.to_owned()
                }
            };
            self.set.record = record;
            self.set.strategy = strategy.unwrap_or(Strategy::Rolling { partition: 0 });
        }

        fn ask(&mut self, ordinal: u32, id: &str, asked: &Asked) -> Result<(), Refused> {
            let pod = self.pods.get(&ordinal);
            let answer = self
                .set
                .ask(ordinal, pod, &token(1), id, asked, Timestamp::UNIX_EPOCH)?;
            if let Answer::Write(change) = answer {
                self.write(*change);
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

        fn give_back(&mut self) {
            if let Some(change) = self.set.given_back() {
                self.write(change);
            }
            self.settle();
        }

        fn images(&self) -> String {
            let letter = |pod: &Pod| if pod.image == NEW { 'n' } else { 'o' };
            self.pods.values().map(letter).collect()
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
        assert_eq!((cluster.set.current.as_str(), cluster.set.is_settled), (NEW, true));
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
            assert!(cluster.set.is_settled && cluster.moved.is_empty());
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
        assert_eq!(
            ask(&set, &token(1), "next.0.activate"),
            Err(Refused::Unsettled),
            "the one before has it"
        );
        for edit in [
            |set: &mut Set| set.template = "r@sha256:hand".to_owned(),
            |set: &mut Set| set.strategy = Strategy::Rolling { partition: 0 },
            |set: &mut Set| set.replicas = 5,
            |set: &mut Set| set.rest = Digest::of(b"another variable"),
        ] {
            edit(&mut set);
            let forward = Asked::Point { release: new() };
            let edited = set.ask(1, pod, &token(1), "up.9.activate", &forward, Timestamp::UNIX_EPOCH);
            assert!(matches!(edited, Err(Refused::ForeignEdit { .. })), "{edited:?}");
            // Whoever goes back puts it right.
            let mut edited = Cluster {
                set,
                pods: cluster.pods.clone(),
                made: 9,
                moved: Vec::new(),
            };
            edited.bring(1, old(), "up", 10).expect("back");
            assert!(
                edited.set.untouched().is_ok() && edited.set.foreign_edit().is_some(),
                "what was there is known"
            );
            assert_eq!((edited.images().as_str(), edited.set.rest), ("oo", Digest::of(b"rest")));
            set = cluster.set.clone();
        }
        let mut rolls = Cluster::of(2).set;
        rolls.is_settled = false;
        assert_eq!(ask(&rolls, &token(1), "up.0.activate"), Err(Refused::Unsettled));
    }

    #[test]
    fn a_step_is_known_by_its_id_and_ends_as_its_pod_does() {
        let mut cluster = Cluster::of(1);
        cluster
            .ask(0, "up.0.activate", &Asked::Point { release: new() })
            .expect("written");
        let before = cluster.pods[&0].clone();
        let deadline = Duration::from_secs(60);
        let at = Timestamp::UNIX_EPOCH;
        let answer = cluster.set.ask(
            0,
            Some(&before),
            &token(1),
            "up.1.restart",
            &Asked::Replace { deadline },
            at,
        );
        let Ok(Answer::Write(change)) = answer else {
            panic!("{answer:?}")
        };
        cluster.write(*change);
        let set = &cluster.set;
        let pod = |uid: &str, image: &str| Pod {
            uid: uid.to_owned(),
            image: image.to_owned(),
            ..Pod::default()
        };
        let made_late = |pod: Pod| Pod {
            made_at: at + Duration::from_secs(40),
            ..pod
        };
        let waits = |reason: &str| Pod {
            waiting: Some(Waiting {
                reason: reason.to_owned(),
                message: "m".to_owned(),
            }),
            ..pod("next", NEW)
        };
        let ready = Pod {
            is_ready: true,
            ..pod("next", NEW)
        };
        let ending = Pod {
            ending: true,
            ..before.clone()
        };
        let (soon, late) = (at + Duration::from_secs(59), at + Duration::from_secs(61));
        for (pod, now, expected) in [
            (Some(before.clone()), soon, None),
            (Some(before.clone()), late, None),
            (Some(before.clone()), at - Duration::from_secs(1_000), None),
            (Some(ending.clone()), soon, None),
            (Some(ending.clone()), late, Some((124, "the pod does not end"))),
            (None, soon, None),
            (None, late, Some((124, "the pod was not made anew"))),
            (Some(waits("ImagePullBackOff")), at + Duration::from_secs(30), None),
            (Some(waits("ImagePullBackOff")), soon, Some((1, "ImagePullBackOff: m"))),
            (Some(made_late(waits("CrashLoopBackOff"))), soon, None),
            (Some(waits("ContainerCreating")), soon, None),
            (
                Some(waits("ContainerCreating")),
                late,
                Some((124, "ContainerCreating: m")),
            ),
            (Some(pod("next", NEW)), soon, None),
            (Some(pod("next", NEW)), late, Some((124, "its container is not ready"))),
            (Some(pod("next", OLD)), soon, None),
            (
                Some(pod("next", OLD)),
                late,
                Some((124, "the pod comes back with image r@sha256:old, which is another")),
            ),
            (Some(waits("CrashLoopBackOff")), soon, Some((1, "CrashLoopBackOff: m"))),
            (Some(waits("InvalidImageName")), at, Some((1, "InvalidImageName: m"))),
            (Some(ready), soon, Some((0, ""))),
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
        assert_eq!(set.to_delete(0, Some(&pod("next", OLD)), "up.1.restart"), Some("next"));
        for none in [ending, pod("next", NEW)] {
            assert_eq!(set.to_delete(0, Some(&none), "up.1.restart"), None);
        }
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
                    let had = cluster.pods[&lost].image.clone();
                    cluster.make(lost);
                    let has = &cluster.pods[&lost].image;
                    proptest::prop_assert!(*has == had || has == OLD, "{} came back with {}", had, has);
                }
            }
            proptest::prop_assert!(cluster.moved.is_empty());
            cluster.give_back();
            proptest::prop_assert!(cluster.set.is_settled);
        }
    }
}

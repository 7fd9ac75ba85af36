//! How a Deployment changes its image when we say so: first a copy of it with one pod, the canary, then its own template. Pure:
//! what is seen goes in, and what is to be written comes out.
//!
//! The canary is a Deployment of ours, made of the revision that the owner's was on when the upgrade began; its pods have the labels
//! of the owner's, so that Services find them, and one more, which its own selector asks for. A controller adopts what its selector
//! matches only where nothing else controls it, so neither takes the other's (Kubernetes, `PodControllerRefManager`).
//!
//! What is remembered lies in an annotation of the owner's Deployment, written in one write with its template. The canary follows it:
//! its template carries the id of the step that wrote it, so a driver that was killed in between finds what is still to be written, and
//! a pod is told from the one before by the step that it was made for.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hold::{Hold, Rollout, Template, There, image_in_words};
use super::pod::{
    self, GRACE, NodeRecord, Pod, Refused, Replacement, STEPS_KEPT, StepRecord, ended, somebody, upgrade_of,
};
use crate::hosts::{FencingToken, IMAGE_NOT_FETCHED, Leaving, StepState, Went};
use crate::model::environment::Role;
use crate::model::values::Digest;

/// Its own pods may take as long as if so many came one after the other. By its owner's defaults a quarter of them changes at once, in
/// four rounds and the rest; without any bound a hundred that do not come would be waited for the best part of a day.
const ROUNDS: u32 = 12;
/// How often the way back goes over what somebody else writes meanwhile: who applies a manifest once is gone over, and who does it again
/// and again (a controller that keeps a repository's word) is left to people.
const MOST_GONE_OVER: u8 = 5;
/// What is said of one without pods.
const SCALED_AWAY: &str = "it was scaled to 0 pods, so none runs the build";

/// What is remembered of a Deployment between two looks: the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The number of the write of ours that it is: the controller of a Deployment copies its annotations to the `ReplicaSet` of its
    /// template, where they stay for ever, and `kubectl rollout undo` puts those of an older one back. It never goes back itself.
    #[serde(default)]
    pub writes: u64,
    /// The highest token that it has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FencingToken>,
    /// The upgrade that has the Deployment, from its first write to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// What is remembered of the canary.
    #[serde(default)]
    pub canary: NodeRecord,
    /// What is remembered of the Deployment's own pods.
    #[serde(default)]
    pub main: NodeRecord,
}

impl Record {
    /// What was written last: this, or a copy of it that is newer.
    #[must_use]
    pub fn or_newer(self, copies: impl IntoIterator<Item = Self>) -> Self {
        copies.into_iter().fold(
            self,
            |newest, copy| {
                if copy.writes > newest.writes { copy } else { newest }
            },
        )
    }

    /// What its upgrade has of the template.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.taken.as_ref().map(|taken| &taken.hold)
    }
}

/// What an upgrade has made of a Deployment: whatever else is found there is somebody else's. How many replicas it has is not among
/// it: who scales it may go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// What it has of its template.
    #[serde(flatten)]
    pub hold: Hold,
    /// Its strategy, as its owner has it.
    pub strategy: Value,
    /// Where its nodes go.
    pub way: Way,
    /// The canary, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Made>,
    /// How often what somebody else had made of it was gone over again for a step that was written already.
    #[serde(default)]
    pub gone_over: u8,
}

/// Where an upgrade goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// To the new build.
    Forward,
    /// To the one before, all the way.
    Back,
}

/// A canary as its API server has made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// Tells it from one that somebody else has made in its place.
    pub uid: String,
    /// What its template says beside the image and what is ours.
    pub rest: Digest,
}

/// A Deployment as it is seen, with its canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// How many pods it is to have.
    pub replicas: u32,
    /// Its strategy.
    pub strategy: Value,
    /// Nothing that is written of it is done.
    pub is_paused: bool,
    /// It keeps the revisions that it was of.
    pub has_history: bool,
    /// Who but us wrote last what it states.
    pub writer: Option<String>,
    /// How far its controller is.
    pub rollout: Rollout,
    /// What its controller complains of.
    pub trouble: Trouble,
    /// The container that runs the build.
    pub container: String,
    /// The template's image; none at all (an empty one) where it has no such container.
    pub template: String,
    /// What the template says beside the image.
    pub rest: Digest,
    /// The `ReplicaSet` of its template, where its controller has made it.
    pub revision: Option<String>,
    /// Its own pods.
    pub pods: Vec<Pod>,
    /// What stands in the canary's place.
    pub canary: Option<Canary>,
    /// The image of each build that is known.
    pub images: BTreeMap<Digest, String>,
    /// What is remembered.
    pub record: Record,
    /// That lies on the Deployment no more, but in a copy: an older one was put back in its place, or none is there.
    pub is_put_back: bool,
}

/// What the controller of a Deployment complains of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// `progressDeadlineSeconds` have passed without any progress.
    pub exceeded: Option<Exceeded>,
    /// Pods cannot be made.
    pub failure: Option<String>,
}

/// A word of it that no progress is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// When it was said, by its cluster's clock: it stands until there is progress, whatever is written meanwhile.
    pub at: Timestamp,
    /// In its own words.
    pub why: String,
}

/// The Deployment in the canary's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whose it is.
    pub owner: Owner,
    /// Its template's image.
    pub image: String,
    /// The step that wrote its template.
    pub step: String,
    /// What its template says beside the image and what is ours.
    pub rest: Digest,
    /// How many pods it is to have.
    pub replicas: u32,
    /// Nothing that is written of it is done.
    pub is_paused: bool,
    /// What its controller complains of.
    pub trouble: Trouble,
    /// Its pods; of its template are those that were made for the same step.
    pub pods: Vec<Pod>,
}

/// Whose an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Its labels say that we made it.
    Us,
    /// They do not.
    Others,
}

/// What is asked of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To be taken for an upgrade; the canary is made by it.
    Take {
        /// Within this.
        deadline: Duration,
    },
    /// To be made with this build from now on.
    Point {
        /// The build.
        release: Digest,
    },
    /// To be made anew now, with the build that it points to.
    Replace {
        /// Within this, and the Deployment's own pods within as much for each, up to a bound.
        deadline: Duration,
    },
}

/// What the owner's Deployment has to be made to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is remembered from now on.
    pub record: Record,
    /// Its template.
    pub template: Template,
    /// Whether that is done.
    pub pause: Pause,
}

/// Whether what is written of it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// As its owner has it.
    Same,
    /// It is, from now on.
    Lifted,
}

/// What the canary has to be made to be: the template of the revision from before the upgrade, with this image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryWrite {
    /// The revision.
    pub revision: String,
    /// The image.
    pub image: String,
    /// The step that it is for.
    pub step: String,
}

/// What becomes of what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is known; nothing is to be written of the owner's Deployment.
    Known(StepState),
    /// To be written, all in one.
    Write(Box<Change>),
}

impl Deployment {
    /// Whether this token may write.
    ///
    /// # Errors
    /// Another home, or a newer token was here.
    pub fn admits(&self, token: &FencingToken) -> Result<(), Refused> {
        pod::admits(self.record.fence.as_ref(), token)
    }

    /// The build of an image, if it is one that is known.
    #[must_use]
    pub fn build_of(&self, image: &str) -> Option<Digest> {
        let mut images = self.images.iter();
        images.find(|(_, known)| *known == image).map(|(build, _)| *build)
    }

    /// The build that a node is to be made with: as the upgrade has said that has it, else as the template has it.
    #[must_use]
    pub fn goal(&self, role: Role) -> Option<Digest> {
        let stated = self.node(role).goal.filter(|_| self.record.taken.is_some());
        stated.or_else(|| self.build_of(&self.template))
    }

    fn node(&self, role: Role) -> &NodeRecord {
        match role {
            Role::Canary => &self.record.canary,
            Role::Main => &self.record.main,
        }
    }

    /// The canary that we made: of somebody else's nothing is read, and nothing is written to it.
    fn own_canary(&self) -> Option<&Canary> {
        self.canary.as_ref().filter(|canary| canary.owner == Owner::Us)
    }

    /// That somebody else's Deployment stands in the canary's place.
    fn not_ours(&self) -> Result<(), Refused> {
        match self.canary.as_ref().filter(|canary| canary.owner == Owner::Others) {
            Some(canary) => Err(Refused::NotOurs {
                name: canary.name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The pods of a node.
    #[must_use]
    pub fn pods_of(&self, role: Role) -> &[Pod] {
        match role {
            Role::Main => &self.pods,
            Role::Canary => self.own_canary().map_or(&[], |canary| &canary.pods),
        }
    }

    /// The pod that stands for a node: of its canary the one of its template, of its own pods the youngest that is ready, of the
    /// template before any other.
    #[must_use]
    pub fn speaker(&self, role: Role) -> Option<&Pod> {
        let pods = self.pods_of(role).iter().filter(|pod| !pod.ending);
        let rank = |pod: &&Pod| (pod.is_ready, pod.is_of_template, pod.made_at);
        match role {
            Role::Canary => pods.filter(|pod| pod.is_of_template).max_by_key(rank),
            Role::Main => pods.max_by_key(rank),
        }
    }

    /// The build that a node runs, and since when. Of the Deployment's own pods it is the old one as long as one of them runs it.
    #[must_use]
    pub fn running(&self, role: Role) -> Option<(Option<Digest>, Timestamp)> {
        // One that is ready does not speak for all the others that end again and again.
        if role == Role::Main && self.crashing() > self.spare() {
            return None;
        }
        let since = self.speaker(role)?.running_since?;
        let mut pods = self.pods_of(role).iter().filter(|pod| !pod.ending);
        let image = match role {
            Role::Canary => &self.speaker(role)?.image,
            Role::Main => pods
                .find(|pod| !pod.is_of_template)
                .map_or(&self.template, |old| &old.image),
        };
        Some((self.build_of(image), since))
    }

    /// How many of its own pods its strategy lets be out at a time (`maxUnavailable`, a share rounded down; a quarter where it says
    /// nothing, and one at least where it makes none above, or nothing would move).
    fn spare(&self) -> u32 {
        let of_pods = |stated: &Value, otherwise: u32| match stated {
            Value::String(share) => share
                .strip_suffix('%')
                .and_then(|share| share.parse::<u32>().ok())
                .map_or((otherwise, 0), |share| {
                    let all = self.replicas.saturating_mul(share);
                    (all / 100, all.div_ceil(100))
                }),
            Value::Number(count) => {
                let count = count
                    .as_u64()
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or(otherwise);
                (count, count)
            }
            _ => (otherwise, self.replicas.div_ceil(4)),
        };
        let rolling = &self.strategy["rollingUpdate"];
        let (spare, _) = of_pods(&rolling["maxUnavailable"], self.replicas / 4);
        let (_, above) = of_pods(&rolling["maxSurge"], self.replicas.div_ceil(4));
        if above == 0 { spare.max(1) } else { spare }
    }

    /// Its own pods that were ready or not, and end again and again.
    fn crashing(&self) -> u32 {
        let pods = self.pods.iter().filter(|pod| !pod.ending && pod.is_crashing());
        u32::try_from(pods.count()).unwrap_or(u32::MAX)
    }

    /// That an upgrade has it and it has no pods any more.
    #[must_use]
    pub fn is_scaled_away(&self, role: Role) -> Option<String> {
        let is_away = role == Role::Main && self.replicas == 0 && self.record.taken.is_some();
        is_away.then(|| SCALED_AWAY.to_owned())
    }

    /// Whether all is as the upgrade left it that has it.
    ///
    /// # Errors
    /// It is not.
    pub fn untouched(&self) -> Result<(), Refused> {
        let edit = |found: String, meant: &str| {
            let meant = meant.to_owned();
            let by = somebody(self.writer.as_ref());
            Err(Refused::ForeignEdit { found, meant, by })
        };
        let Some(taken) = &self.record.taken else {
            // A canary is there for as long as its upgrade is remembered.
            return match self.own_canary() {
                Some(_) => edit(
                    "nothing is remembered of the upgrade that its canary is of".to_owned(),
                    "a Deployment without one",
                ),
                None => Ok(()),
            };
        };
        if self.is_put_back {
            let found = format!(
                "its annotation was put back, as `kubectl rollout undo` does, and {}",
                self.image_there()
            );
            return edit(found, &taken.hold.image);
        }
        if taken.hold.image != self.template {
            return edit(self.image_there(), &taken.hold.image);
        }
        if taken.hold.rest != self.rest {
            let meant = format!("ReplicaSet {} has it", taken.hold.revision);
            return edit("its template has changed beside the image".to_owned(), &meant);
        }
        if taken.strategy != self.strategy {
            return edit(
                format!("its strategy is {}", self.strategy),
                &taken.strategy.to_string(),
            );
        }
        if self.is_paused {
            return edit("it is paused".to_owned(), "one that is not");
        }
        let Some(made) = &taken.canary else { return Ok(()) };
        let Some(canary) = self.own_canary().filter(|canary| canary.uid == made.uid) else {
            return edit(
                "its canary was deleted, which cannot be put back, so only `stagegate abort` goes on".to_owned(),
                "a Deployment with one",
            );
        };
        if canary.rest != made.rest || self.written(canary).is_some_and(|image| *image != canary.image) {
            return edit("the template of its canary has changed".to_owned(), "another one");
        }
        if canary.replicas != 1 || canary.is_paused {
            let found = if canary.is_paused {
                "it paused".to_owned()
            } else {
                format!("{} pods", canary.replicas)
            };
            return edit(format!("its canary has {found}"), "one pod");
        }
        Ok(())
    }

    /// The template's image, in words.
    fn image_there(&self) -> String {
        image_in_words(&self.template, &self.container)
    }

    /// The image that the canary's template was last written with, where that is remembered.
    fn written(&self, canary: &Canary) -> Option<&String> {
        let mut steps = self.record.canary.steps.iter();
        let step = steps.find(|step| step.id == canary.step)?;
        self.images.get(&step.replaces.as_ref()?.release)
    }

    /// What somebody else has made of it since the upgrade began that has it.
    #[must_use]
    pub fn foreign_edit(&self) -> Option<String> {
        let overwrote = self
            .record
            .taken
            .as_ref()
            .and_then(|taken| taken.hold.overwrote.clone());
        self.untouched().err().map(|edit| edit.to_string()).or(overwrote)
    }

    /// Answers what is asked of a node under a step's id. Asked again, the answer is how far it is.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn ask(
        &self,
        role: Role,
        token: &FencingToken,
        id: &str,
        asked: &Asked,
        now: Timestamp,
    ) -> Result<Answer, Refused> {
        self.admits(token)?;
        if let Some(state) = self.state(role, id, now) {
            let over = (state == StepState::Running)
                .then(|| self.gone_over(role, token, id))
                .flatten();
            return Ok(match over.or_else(|| self.taken_up(role, token, id, now)) {
                Some(change) => Answer::Write(Box::new(change)),
                None => Answer::Known(state),
            });
        }
        let upgrade = upgrade_of(id);
        if let Some(taken) = self.record.taken.as_ref().filter(|taken| taken.hold.by != upgrade) {
            let by = taken.hold.by.clone();
            return Err(Refused::Taken { by });
        }
        let edited = self.untouched();
        let release = match asked {
            Asked::Point { release } => *release,
            Asked::Take { .. } | Asked::Replace { .. } => self.goal(role).ok_or_else(|| Refused::Unstated {
                image: self.template.clone(),
            })?,
        };
        let image = self.image_of(&release)?.to_owned();
        let before = self.record.taken.as_ref().map(|taken| &taken.hold.before);
        let leads_back = before == Some(&image) && !matches!(asked, Asked::Take { .. });
        // Who goes back makes it what it was, whatever was made of it since.
        if !leads_back {
            if role == Role::Canary {
                self.not_ours()?;
            }
            edited.clone()?;
        }
        let mut record = self.record.clone();
        record.fence = Some(token.clone());
        let mut held = if let Some(held) = record.taken.take() {
            held
        } else if !matches!(asked, Asked::Take { .. }) {
            // It was taken before anything else was asked of it.
            return Err(Refused::Forgotten);
        } else {
            let fresh = self.fresh(upgrade)?;
            (record.canary, record.main) = (NodeRecord::default(), NodeRecord::default());
            fresh
        };
        if let Err(edit) = &edited {
            held.hold.overwrote = Some(edit.to_string());
        }
        let mut template = Template::Same;
        if leads_back {
            held.way = Way::Back;
            // With the first word of it, whichever node that is for: no pod of the owner's waits for the canary.
            held.hold.image.clone_from(&held.hold.before);
            template = Template::Revision(held.hold.revision.clone());
        } else if !matches!(asked, Asked::Take { .. }) {
            if held.way == Way::Back {
                return Err(Refused::GoesBack);
            }
            let is_tried = self.own_canary().is_some_and(|canary| canary.image == image);
            if role == Role::Main && !(is_tried && record.canary.goal == Some(release)) {
                return Err(Refused::CanaryFirst);
            }
            if role == Role::Main && matches!(asked, Asked::Replace { .. }) {
                held.hold.image.clone_from(&image);
                template = Template::Image(image);
            }
        }
        record.taken = Some(held);
        let node = match role {
            Role::Canary => &mut record.canary,
            Role::Main => &mut record.main,
        };
        node.goal = Some(release);
        let replaces = |deadline: &Duration| Replacement {
            release,
            uid: None,
            since: now,
            deadline_s: deadline.as_secs(),
        };
        node.steps.push(StepRecord {
            id: id.to_owned(),
            replaces: match (asked, role) {
                (Asked::Point { .. }, _) | (Asked::Take { .. }, Role::Main) => None,
                (Asked::Take { deadline } | Asked::Replace { deadline }, Role::Canary) => Some(replaces(deadline)),
                (Asked::Replace { deadline }, Role::Main) => {
                    Some(replaces(&deadline.saturating_mul(self.replicas.clamp(1, ROUNDS))))
                }
            },
        });
        let too_many = node.steps.len().saturating_sub(STEPS_KEPT);
        node.steps.drain(..too_many);
        Ok(Answer::Write(Box::new(self.change(record, template))))
    }

    /// What is remembered of a Deployment that is taken, if it can be.
    fn fresh(&self, upgrade: &str) -> Result<Taken, Refused> {
        if self.is_paused {
            return Err(Refused::Paused);
        }
        if self.replicas == 0 {
            return Err(Refused::NoPods);
        }
        if self.strategy["type"] == "Recreate" || self.spare() >= self.replicas {
            return Err(Refused::AllAtOnce);
        }
        if !self.has_history {
            return Err(Refused::NoHistory);
        }
        let is_settled = self.rollout.is_settled();
        let revision = self.revision.clone().filter(|_| is_settled).ok_or(Refused::Unsettled)?;
        let from = self.build_of(&self.template).ok_or_else(|| Refused::Unstated {
            image: self.template.clone(),
        })?;
        Ok(Taken {
            hold: Hold {
                by: upgrade.to_owned(),
                container: self.container.clone(),
                before: self.template.clone(),
                from: Some(from),
                revision,
                rest: self.rest,
                image: self.template.clone(),
                overwrote: None,
            },
            strategy: self.strategy.clone(),
            way: Way::Forward,
            canary: None,
            gone_over: 0,
        })
    }

    fn image_of(&self, release: &Digest) -> Result<&str, Refused> {
        let image = self.images.get(release);
        image.map(String::as_str).ok_or(Refused::NoImage(*release))
    }

    /// Where a step stands; none if it was not asked for.
    #[must_use]
    pub fn state(&self, role: Role, id: &str, now: Timestamp) -> Option<StepState> {
        let step = self.node(role).steps.iter().find(|step| step.id == id)?;
        let Some(replaces) = &step.replaces else {
            return Some(ended(0, String::new()));
        };
        // What goes on is not what was meant, and nothing that comes of it is the build's fault.
        if let (Some(Way::Forward), Err(edit)) = (self.way(), self.untouched()) {
            return Some(ended(1, edit.to_string()));
        }
        // What was on its way to the new build when the first word of the way back came is not waited for.
        if self.has_turned(replaces) {
            return Some(ended(1, Refused::GoesBack.to_string()));
        }
        Some(match role {
            Role::Canary => self.canary_state(id, replaces, now),
            Role::Main => self.main_state(replaces, now),
        })
    }

    fn way(&self) -> Option<Way> {
        self.record.taken.as_ref().map(|taken| taken.way)
    }

    /// A step of the way forward, on the way back.
    fn has_turned(&self, replaces: &Replacement) -> bool {
        let back = self.record.taken.as_ref().filter(|taken| taken.way == Way::Back);
        back.is_some_and(|taken| self.images.get(&replaces.release) != Some(&taken.hold.before))
    }

    /// A step of the canary that makes it what the Deployment's own pods are.
    fn is_taking(&self, replaces: &Replacement) -> bool {
        let taken = self.record.taken.as_ref();
        taken.is_some_and(|t| t.way == Way::Forward && self.images.get(&replaces.release) == Some(&t.hold.before))
    }

    fn canary_state(&self, id: &str, replaces: &Replacement, now: Timestamp) -> StepState {
        if let Err(why) = self.not_ours() {
            return ended(1, why.to_string());
        }
        let Some(canary) = self.own_canary().filter(|canary| canary.step == id) else {
            // It is written at once: where that is refused for so long, it never will be, and the way back has an end.
            let is_over = self.way() == Some(Way::Back) && replaces.is_late(replaces.since, now);
            let why = || "its canary could not be written as it was before".to_owned();
            return if is_over { ended(124, why()) } else { StepState::Running };
        };
        let is_taking = self.is_taking(replaces);
        let speaker = self.speaker(Role::Canary);
        // Nobody could tell which build it runs. The old one is taken first, so this is told before any build is blamed.
        let is_forward = self.way() == Some(Way::Forward);
        if let Some(pod) = speaker.filter(|pod| is_forward && pod.image != canary.image) {
            return ended(1, pod::rewritten(&pod.image, &canary.image));
        }
        let state = match speaker {
            // The one before ends first.
            _ if canary.pods.iter().any(|pod| !pod.is_of_template) => StepState::Running,
            Some(pod) => match pod.coming_up(replaces, now) {
                // What it is has to be remembered first.
                StepState::Ended(end) if end.exit == 0 && is_taking && self.made().is_none() => StepState::Running,
                StepState::Running if is_taking && replaces.is_late(pod.made_at, now) => {
                    ended(124, pod.is_nowhere().unwrap_or_default())
                }
                state => state,
            },
            None => match &canary.trouble.failure {
                Some(why) if is_taking && now.duration_since(replaces.since) > GRACE => ended(1, why.clone()),
                Some(_) | None => StepState::Running,
            },
        };
        match state {
            // One that is as sick as what it is a copy of is no reason not to mend that.
            StepState::Ended(end) if end.exit != 0 && is_taking && self.made().is_some() && !self.serves() => {
                ended(0, String::new())
            }
            state => state,
        }
    }

    fn made(&self) -> Option<&Made> {
        self.record.taken.as_ref()?.canary.as_ref()
    }

    /// Whether any of its own pods can be used.
    fn serves(&self) -> bool {
        self.pods.iter().any(|pod| pod.is_ready)
    }

    fn main_state(&self, replaces: &Replacement, now: Timestamp) -> StepState {
        if Some(&self.template) != self.images.get(&replaces.release) {
            // It is written with what is remembered, so somebody else's was written after it.
            let why = || format!("somebody else writes its template: {}", self.image_there());
            let taken = self.record.taken.as_ref();
            let is_given_up = taken.is_some_and(|taken| taken.gone_over >= MOST_GONE_OVER);
            let is_over = is_given_up || replaces.is_late(replaces.since, now);
            return if is_over { ended(124, why()) } else { StepState::Running };
        }
        if self.replicas == 0 {
            return StepState::Running;
        }
        let pods = self.pods.iter().filter(|pod| !pod.ending);
        if self.rollout == Rollout::Complete && pods.clone().all(|pod| pod.is_of_template) {
            return ended(0, String::new());
        }
        let failed = pods
            .clone()
            .filter(|pod| pod.is_of_template)
            .find_map(|pod| match pod.coming_up(replaces, now) {
                StepState::Ended(end) if end.exit != 0 => {
                    Some(ended(end.exit, format!("{}: {}", pod.name, end.log_tail)))
                }
                StepState::Ended(_) | StepState::Running | StepState::Died => None,
            });
        if let Some(failed) = failed {
            return failed;
        }
        // One that has no machine is no build's fault.
        let is_placed = pods.clone().all(|pod| pod.is_nowhere().is_none()) && self.trouble.failure.is_none();
        // Nor is one that has no image, though what counts its progress says only that there is none.
        let unfetched = pods.filter(|pod| pod.is_of_template).find_map(Pod::unfetched);
        match self.late(replaces, now) {
            Some(why) if is_placed => match unfetched {
                Some(pod) => ended(IMAGE_NOT_FETCHED, format!("{why}; {pod}")),
                None => ended(124, why),
            },
            Some(_) | None => StepState::Running,
        }
    }

    /// That its own pods are not made anew in time.
    fn late(&self, replaces: &Replacement, now: Timestamp) -> Option<String> {
        let seen = self.rollout != Rollout::Unseen;
        // Time without a machine is not the build's.
        let new = self
            .pods
            .iter()
            .filter(|pod| !pod.ending && pod.is_of_template && !pod.is_ready);
        let placed = new.filter_map(|pod| pod.placed_at).max();
        let from = placed.map_or(replaces.since, |at| at.max(replaces.since));
        // One that it said before is of what was there before: it is not said again.
        let exceeded = self.trouble.exceeded.as_ref().filter(|it| seen && it.at > from);
        exceeded.map(|it| it.why.clone()).or_else(|| {
            let ready = self.pods.iter().filter(|pod| pod.is_of_template && pod.is_ready);
            let words = || format!("{} of {} pods are made anew and ready", ready.count(), self.replicas);
            replaces.is_late(from, now).then(words)
        })
    }

    /// Why a step does not come to its end, if that has lasted too long and is no build's fault.
    #[must_use]
    pub fn stuck(&self, role: Role, id: &str, now: Timestamp) -> Option<String> {
        let step = self.node(role).steps.iter().find(|step| step.id == id)?;
        let replaces = step.replaces.as_ref()?;
        if self.state(role, id, now) != Some(StepState::Running) {
            return None;
        }
        let failure = |trouble: &Trouble| {
            let words = trouble
                .failure
                .as_deref()
                .unwrap_or("`kubectl describe deployment` says why");
            format!("its pods are not made: {words}")
        };
        match role {
            Role::Main if self.replicas == 0 => Some(SCALED_AWAY.to_owned()),
            Role::Main => {
                self.late(replaces, now)?;
                let mut pods = self.pods.iter().filter(|pod| !pod.ending);
                Some(pods.find_map(Pod::is_nowhere).unwrap_or_else(|| failure(&self.trouble)))
            }
            Role::Canary => {
                let canary = self.own_canary().filter(|canary| canary.step == id)?;
                let old = canary.pods.iter().find(|pod| !pod.is_of_template);
                match (old, self.speaker(Role::Canary)) {
                    (Some(old), _) if replaces.is_late(replaces.since, now) => Some(old.does_not_end()),
                    (None, Some(pod)) if replaces.is_late(pod.made_at, now) => pod.is_nowhere(),
                    (None, None) if replaces.is_late(replaces.since, now) => Some(failure(&canary.trouble)),
                    (Some(_), _) | (None, Some(_) | None) => None,
                }
            }
        }
    }

    /// What is to be written once more on the way back, since somebody else has written meanwhile.
    fn gone_over(&self, role: Role, by: &FencingToken, id: &str) -> Option<Change> {
        let held = self.record.taken.as_ref()?;
        let may = role == Role::Main && held.way == Way::Back && held.gone_over < MOST_GONE_OVER;
        let step = self.record.main.steps.iter().find(|step| step.id == id)?;
        let is_as_written =
            self.template == held.hold.image && self.rest == held.hold.rest && !self.is_paused && !self.is_put_back;
        if !may || step.replaces.is_none() || is_as_written {
            return None;
        }
        let mut record = self.record.clone();
        record.fence = Some(by.clone());
        let written = record.taken.as_mut()?;
        written.gone_over += 1;
        written.hold.overwrote = self.untouched().err().map(|edit| edit.to_string());
        Some(self.change(record, Template::Revision(held.hold.revision.clone())))
    }

    /// What is to be written before a step that is known goes on: that a newer driver is here, what the canary is that was made, and,
    /// where the driver before was killed before it wrote the canary, that the time counts from now.
    fn taken_up(&self, role: Role, token: &FencingToken, id: &str, now: Timestamp) -> Option<Change> {
        let mut record = self.record.clone();
        let is_another = record.fence.replace(token.clone()).as_ref() != Some(token);
        let is_due = is_another && self.due(role, id).is_some();
        if role == Role::Canary {
            let steps = &mut record.canary.steps;
            let replaces = steps.iter_mut().find(|step| step.id == id)?.replaces.as_mut();
            if let Some(replaces) = replaces.filter(|replaces| is_due && replaces.is_late(replaces.since, now)) {
                replaces.since = now;
            }
            if let (Some(taken), Some(canary)) = (&mut record.taken, self.own_canary())
                && taken.canary.is_none()
                && canary.step == id
            {
                taken.canary = Some(Made {
                    uid: canary.uid.clone(),
                    rest: canary.rest,
                });
            }
        }
        (record != self.record).then(|| self.change(record, Template::Same))
    }

    /// What is to be written of the canary for a step that is remembered, if it is not written yet.
    #[must_use]
    pub fn due(&self, role: Role, id: &str) -> Option<CanaryWrite> {
        let (taken, Role::Canary) = (self.record.taken.as_ref()?, role) else {
            return None;
        };
        let step = self.record.canary.steps.iter().find(|step| step.id == id)?;
        let image = self.images.get(&step.replaces.as_ref()?.release)?;
        let is_written = self.own_canary().is_some_and(|canary| canary.step == id);
        let may_write = taken.way == Way::Back || self.untouched().is_ok();
        let goes_on = may_write && self.not_ours().is_ok() && !self.has_turned(step.replaces.as_ref()?);
        (!is_written && goes_on).then(|| CanaryWrite {
            revision: taken.hold.revision.clone(),
            image: image.clone(),
            step: id.to_owned(),
        })
    }

    /// Whether a step of the canary is still remembered: its upgrade is not over.
    #[must_use]
    pub fn remembers(&self, id: &str) -> bool {
        self.record.canary.steps.iter().any(|step| step.id == id)
    }

    /// Whether it is another upgrade's than the one that leaves.
    #[must_use]
    pub fn is_of_another(&self, leaving: &Leaving<'_>) -> bool {
        let taken = self.record.taken.as_ref();
        taken.is_some_and(|taken| leaving.is_of_another(&taken.hold.by))
    }

    /// What gives the Deployment back to its owner, once an upgrade is over and its canary is gone: nothing that was remembered but who
    /// may write. Where the upgrade was going back, the template is what it was before, whatever has become of it; but what is given
    /// back later than at its end is its owner's as that has changed it since.
    #[must_use]
    pub fn given_back(&self, leaving: &Leaving<'_>) -> Option<Change> {
        let taken = self.record.taken.as_ref()?;
        if leaving.is_of_another(&taken.hold.by) {
            return None;
        }
        let went = match taken.way {
            Way::Forward => leaving.went(),
            Way::Back => Went::Back,
        };
        let there = There {
            image: &self.template,
            rest: self.rest,
        };
        let record = Record {
            fence: self.record.fence.clone(),
            ..Record::default()
        };
        let change = self.change(record, taken.hold.given_back(there, went, leaving));
        Some(match leaving {
            Leaving::JustEnded(_) => change,
            // Its owner may have paused it since.
            Leaving::EndedBefore(_) | Leaving::Unknown { .. } => Change {
                pause: Pause::Same,
                ..change
            },
        })
    }

    /// What forgets all of it but how often it was written: copies of what was remembered are still there, and stay older than that.
    #[must_use]
    pub fn forgotten(&self) -> Option<Change> {
        let nothing = Record {
            writes: self.record.writes,
            ..Record::default()
        };
        let by = self.record.hold().map(|hold| hold.by.as_str());
        let template = self
            .given_back(&Leaving::Unknown { by })
            .map_or(Template::Same, |change| change.template);
        (self.record != nothing || self.is_put_back).then(|| Change {
            pause: Pause::Same,
            ..self.change(nothing, template)
        })
    }

    /// Nothing changed but who may write.
    #[must_use]
    pub fn adopted(&self, token: &FencingToken) -> Change {
        let record = Record {
            fence: Some(token.clone()),
            ..self.record.clone()
        };
        self.change(record, Template::Same)
    }

    /// A write of ours: newer than all before it, wherever copies of them lie. What is put back is done, whoever has paused it.
    fn change(&self, record: Record, template: Template) -> Change {
        Change {
            record: Record {
                writes: self.record.writes.saturating_add(1),
                ..record
            },
            pause: match template {
                Template::Revision(_) => Pause::Lifted,
                Template::Same | Template::Image(_) => Pause::Same,
            },
            template,
        }
    }

    /// The pod whose words tell why a node did not come up.
    #[must_use]
    pub fn failing(&self, role: Role) -> Option<&Pod> {
        let mut pods = self
            .pods_of(role)
            .iter()
            .filter(|pod| !pod.ending && pod.is_of_template);
        pods.find(|pod| !pod.is_ready)
    }
}

#[cfg(test)]
mod tests;

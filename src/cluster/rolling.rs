//! How the pods of a `StatefulSet` change their image one at a time, when we say so. Pure: what is seen goes in, and what is to
//! be written comes out.
//!
//! Forward, `partition` is the boundary: a pod that is made anew gets the template's image at or above it, else that of the
//! revision that the set counts as its current one (Kubernetes, "`StatefulSet` Basics", partitioned updates). Which that is may be
//! seen late, so a set is taken only while all of it is on one revision. Back, the strategy is `OnDelete` and the template is what
//! it was before: whichever pod is deleted comes back with that, in any order. At the end the set gets its own strategy back.
//!
//! Which pods are meant to be on which build, and which step is under way, lies in an annotation of the set: it is written in one
//! write with what it speaks of, so a driver that was killed finds both or neither.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::hold::{Hold, Rollout, Template, There, image_in_words};
use super::pod::{self, NodeRecord, Pod, Refused, Replacement, STEPS_KEPT, StepRecord, ended, somebody, upgrade_of};
use crate::hosts::{FencingToken, Leaving, StepState, Went};
use crate::model::values::Digest;

/// A pod that came when the set was scaled up is waited for as long as one that is made anew.
const STRANGERS_END: SignedDuration = SignedDuration::from_mins(10);
/// And so many of them are named.
const STRANGERS_NAMED: usize = 10;

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
    pub pods: BTreeMap<u32, NodeRecord>,
}

impl Record {
    /// What its upgrade has of the template.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.taken.as_ref().map(|taken| &taken.hold)
    }
}

/// What an upgrade has made of a set: whatever else is found there is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// What it has of its template.
    #[serde(flatten)]
    pub hold: Hold,
    /// How many pods the set had.
    pub replicas: u32,
    /// The strategy as it was written last.
    pub strategy: Strategy,
    /// The set's own strategy, as its owner has it.
    pub own: serde_json::Value,
    /// Since when it is on its way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_since: Option<Timestamp>,
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
    /// How far its controller is.
    pub rollout: Rollout,
    /// Its controller makes a pod only while all below it are ready.
    pub is_ordered: bool,
    /// It keeps the revisions that it was of.
    pub has_history: bool,
    /// Who but us wrote last what it states.
    pub writer: Option<String>,
    /// The container that runs the build.
    pub container: String,
    /// The template's image; none at all (an empty one) where it has no such container.
    pub template: String,
    /// What the template says beside the image.
    pub rest: Digest,
    /// The revision that it counts as current.
    pub revision: String,
    /// The image of that.
    pub current: String,
    /// The image of each build that is known.
    pub images: BTreeMap<Digest, String>,
    /// What its controller has made, by ordinal: also above those that are nodes.
    pub pods: BTreeMap<u32, Pod>,
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

/// What is asked of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Its set is to be taken for an upgrade, which nothing else does: what the set was is what it is now, with nothing of the upgrade on it.
    Take,
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

/// One of those who ask at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which pod.
    pub ordinal: u32,
    /// Of whom.
    pub token: FencingToken,
    /// Under which step's id.
    pub id: String,
    /// What for.
    pub asked: Asked,
}

/// What a set has to be made to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is remembered from now on.
    pub record: Record,
    /// The template.
    pub template: Template,
    /// Who is to move its pods.
    pub mover: Mover,
}

/// Who is to move a set's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mover {
    /// Who moves them now: nothing is written of it.
    Same,
    /// We do, by this.
    Ours(Strategy),
    /// Who did before the upgrade, in its owner's words.
    Owners,
}

/// What becomes of what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is known; nothing is to be written.
    Known(StepState),
    /// To be written, all in one.
    Write(Box<Change>),
}

impl Set {
    /// Whether this token may write.
    ///
    /// # Errors
    /// Another home, or a newer token was here.
    pub fn admits(&self, token: &FencingToken) -> Result<(), Refused> {
        pod::admits(self.record.fence.as_ref(), token)
    }

    /// Whether the set is as the upgrade left it that has it.
    ///
    /// # Errors
    /// It is not.
    pub fn untouched(&self) -> Result<(), Refused> {
        let Some(taken) = &self.record.taken else {
            return match self.strategy {
                Strategy::Rolling { .. } => Ok(()),
                Strategy::OnDelete => Err(Refused::OnDelete),
            };
        };
        let edits = [
            (
                taken.hold.image != self.template,
                image_in_words(&self.template, &self.container),
                taken.hold.image.clone(),
            ),
            (
                taken.strategy != self.strategy,
                format!("its updateStrategy is {}", self.strategy),
                taken.strategy.to_string(),
            ),
            (
                // On the way back that is told once, and pods that come then come as they are to be.
                taken.replicas != self.replicas && !(self.goes_back() && taken.hold.overwrote.is_some()),
                format!("it has {} replicas{}", self.replicas, self.strangers_in_words()),
                taken.replicas.to_string(),
            ),
            (
                taken.hold.rest != self.rest,
                "its template has changed beside the image".to_owned(),
                format!("revision {} has it", taken.hold.revision),
            ),
        ];
        match edits.into_iter().find(|(is_edited, ..)| *is_edited) {
            Some((_, found, meant)) => Err(Refused::ForeignEdit {
                found,
                meant,
                by: somebody(self.writer.as_ref()),
            }),
            None => Ok(()),
        }
    }

    /// What somebody else has made of the set since the upgrade began that has it.
    #[must_use]
    pub fn foreign_edit(&self) -> Option<String> {
        let overwrote = self
            .record
            .taken
            .as_ref()
            .and_then(|taken| taken.hold.overwrote.clone());
        self.untouched().err().map(|edit| edit.to_string()).or(overwrote)
    }

    fn goes_back(&self) -> bool {
        let taken = self.record.taken.as_ref();
        taken.is_some_and(|taken| taken.strategy == Strategy::OnDelete)
    }

    /// What was on its way to the new build when the first word of the way back came: it is not waited for.
    fn has_turned(&self, replaces: &Replacement) -> bool {
        let taken = self.record.taken.as_ref().filter(|_| self.goes_back());
        taken.is_some_and(|taken| self.images.get(&replaces.release) != Some(&taken.hold.before))
    }

    /// Pods that came when somebody scaled the set up, and not as it was before the upgrade: they are nobody's nodes, so no step brings
    /// them back. One that is of the template on the way back is as its cluster makes it.
    fn strangers(&self) -> impl Iterator<Item = (u32, &Pod)> {
        let taken = self.record.taken.as_ref();
        let above = taken.map_or(u32::MAX, |taken| taken.replicas);
        self.pods
            .range(above..)
            .filter(move |(_, pod)| taken.is_some_and(|taken| pod.image != taken.hold.before))
            .filter(|(_, pod)| !(self.goes_back() && pod.is_of_template))
            .map(|(ordinal, pod)| (*ordinal, pod))
    }

    fn strangers_in_words(&self) -> String {
        let Some((_, pod)) = self.strangers().next() else {
            return String::new();
        };
        let mut names: Vec<String> = self.strangers().map(|(ordinal, _)| format!("pod {ordinal}")).collect();
        let more = names.len().saturating_sub(STRANGERS_NAMED);
        if more > 0 {
            names.truncate(STRANGERS_NAMED);
            names.push(format!("{more} more"));
        }
        format!(" ({} came with image {})", names.join(", "), pod.image)
    }

    /// On the way back: the pods above those that are nodes that are to go, by ordinal and uid, so that they come again as it was before.
    #[must_use]
    pub fn strangers_to_delete(&self) -> Vec<(u32, &str)> {
        let all = self.strangers().filter(|(_, pod)| self.goes_back() && !pod.ending);
        all.map(|(ordinal, pod)| (ordinal, pod.uid.as_str())).collect()
    }

    /// Whether, on the way back, a pod above those that are nodes is still on another image than before, or may come with one.
    fn has_strangers(&self) -> bool {
        let taken = self.record.taken.as_ref().filter(|_| self.goes_back());
        let is_unseen = self.rollout == Rollout::Unseen;
        let may_come = taken.is_some_and(|taken| self.replicas > taken.replicas) && is_unseen;
        taken.is_some() && (may_come || self.strangers().next().is_some())
    }

    /// Whether no node is on another image than before the upgrade.
    fn all_are_back(&self) -> bool {
        let taken = self.record.taken.as_ref().filter(|_| self.goes_back());
        taken.is_some_and(|taken| {
            let mut nodes = self.pods.range(..taken.replicas);
            nodes.all(|(_, pod)| pod.image == taken.hold.before)
        })
    }

    /// The lowest of its pods that is not ready.
    fn first_unready(&self) -> Option<u32> {
        let is_ready = |ordinal: &u32| self.pods.get(ordinal).is_some_and(|pod| pod.is_ready);
        (0..self.replicas).find(|ordinal| !is_ready(ordinal))
    }

    /// What is remembered of a set that is taken, if it can be.
    fn fresh(&self, upgrade: &str) -> Result<Taken, Refused> {
        if !self.has_history {
            return Err(Refused::NoHistory);
        }
        match self.strategy {
            Strategy::Rolling { partition: 0 } => {}
            Strategy::OnDelete => return Err(Refused::OnDelete),
            Strategy::Rolling { partition } => return Err(Refused::Partitioned { partition }),
        }
        if let Some(why) = self.pods.values().find_map(|pod| self.rewritten(pod)) {
            return Err(why);
        }
        if !self.rollout.is_settled() {
            return Err(Refused::Unsettled);
        }
        Ok(Taken {
            hold: Hold {
                by: upgrade.to_owned(),
                container: self.container.clone(),
                before: self.template.clone(),
                from: self.build_of(&self.template),
                revision: self.revision.clone(),
                rest: self.rest,
                image: self.template.clone(),
                overwrote: None,
            },
            replicas: self.replicas,
            // Nothing is at or above it, so nothing moves.
            strategy: Strategy::Rolling {
                partition: self.replicas,
            },
            own: self.own.clone(),
            back_since: None,
        })
    }

    /// Takes it for an upgrade, unless that has it already.
    fn take(&self, upgrade: &str, token: &FencingToken) -> Result<Answer, Refused> {
        let mut change = self.as_it_is();
        change.record.fence = Some(token.clone());
        if change.record.taken.is_none() {
            let fresh = self.fresh(upgrade)?;
            change.mover = Mover::Ours(fresh.strategy);
            change.record.pods.clear();
            change.record.taken = Some(fresh);
        }
        Ok(if change.record == self.record {
            Answer::Known(ended(0, String::new()))
        } else {
            Answer::Write(Box::new(change))
        })
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

    /// Answers all who ask at a time by one write: what is remembered of every pod is one object. From the top, as pods change.
    #[must_use]
    pub fn ask_all(&self, all: &[Ask], now: Timestamp) -> (Option<Change>, Vec<Result<(), Refused>>) {
        let mut turns: Vec<usize> = (0..all.len()).collect();
        turns.sort_by_key(|i| std::cmp::Reverse(all[*i].ordinal));
        let mut answers = vec![Ok(()); all.len()];
        let (mut is, mut write) = (self.clone(), None);
        for i in turns {
            match is.ask(&all[i], now) {
                Ok(Answer::Known(_)) => {}
                Ok(Answer::Write(change)) => {
                    is = is.written(&change);
                    write = Some(change.after(write));
                }
                Err(why) => answers[i] = Err(why),
            }
        }
        (write, answers)
    }

    /// The set as it is once a change is written, before its controller has heard of it.
    fn written(self, change: &Change) -> Self {
        let taken = change.record.taken.as_ref();
        let (template, rest) = match (&change.template, taken) {
            (Template::Revision(_), Some(taken)) => (taken.hold.before.clone(), taken.hold.rest),
            (Template::Image(image), _) => (image.clone(), self.rest),
            (Template::Same, _) | (Template::Revision(_), None) => (self.template, self.rest),
        };
        Self {
            template,
            rest,
            strategy: match change.mover {
                Mover::Ours(strategy) => strategy,
                Mover::Same | Mover::Owners => self.strategy,
            },
            record: change.record.clone(),
            ..self
        }
    }

    /// Answers what is asked of a pod under a step's id. Asked again, the answer is how far it is.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn ask(&self, ask: &Ask, now: Timestamp) -> Result<Answer, Refused> {
        let Ask {
            ordinal,
            token,
            id,
            asked,
        } = ask;
        let (ordinal, pod) = (*ordinal, self.pods.get(ordinal));
        self.admits(token)?;
        if let Some(state) = self.state(ordinal, id, now) {
            return Ok(match self.taken_up(ordinal, token, id, now) {
                Some(change) => Answer::Write(Box::new(change)),
                None => Answer::Known(state),
            });
        }
        let upgrade = upgrade_of(id);
        match &self.record.taken {
            Some(taken) if taken.hold.by == upgrade => {}
            Some(taken) => {
                let by = taken.hold.by.clone();
                return Err(Refused::Taken { by });
            }
            // It was taken before anything else was asked of it.
            None if *asked != Asked::Take => return Err(Refused::Forgotten),
            None => {}
        }
        // Who goes back makes it what it was, whatever was made of it since.
        let edited = self.untouched();
        if !self.leads_back(ordinal, asked) {
            edited.clone()?;
        }
        let release = match asked {
            Asked::Take => return self.take(upgrade, token),
            Asked::Point { release } => *release,
            Asked::Replace { .. } => self.goal(ordinal).ok_or(Refused::Aimless)?,
        };
        let mut change = self.as_it_is();
        change.record.fence = Some(token.clone());
        if let (Some(taken), Err(edit)) = (&mut change.record.taken, &edited) {
            taken.hold.overwrote = Some(edit.to_string());
        }
        let mut step = StepRecord {
            id: id.clone(),
            replaces: None,
        };
        let image = self.image_of(&release)?;
        if let Some(taken) = &mut change.record.taken {
            if image == taken.hold.before {
                // From the first word of it on: a pod that is lost before its turn comes back with that, too.
                (taken.hold.image, taken.strategy) = (taken.hold.before.clone(), Strategy::OnDelete);
                taken.back_since = taken.back_since.or(Some(now));
                change.template = Template::Revision(taken.hold.revision.clone());
            } else if let Asked::Replace { .. } = asked {
                taken.strategy = self.forward(ordinal, image, taken)?;
                image.clone_into(&mut taken.hold.image);
                change.template = Template::Image(taken.hold.image.clone());
            }
        }
        match asked {
            Asked::Take => {}
            Asked::Point { release } => {
                change.record.pods.entry(ordinal).or_default().goal = Some(*release);
            }
            Asked::Replace { deadline } => {
                step.replaces = Some(Replacement {
                    release,
                    uid: pod.map(|pod| pod.uid.clone()),
                    since: now,
                    deadline_s: deadline.as_secs(),
                });
            }
        }
        if let Some(taken) = &change.record.taken {
            change.mover = Mover::Ours(taken.strategy);
        }
        let steps = &mut change.record.pods.entry(ordinal).or_default().steps;
        steps.push(step);
        let too_many = steps.len().saturating_sub(STEPS_KEPT);
        steps.drain(..too_many);
        Ok(Answer::Write(Box::new(change)))
    }

    /// Where a step stands; none if it was not asked for.
    #[must_use]
    pub fn state(&self, ordinal: u32, id: &str, now: Timestamp) -> Option<StepState> {
        let state = self.state_of_its_pod(ordinal, id, now)?;
        // Whoever comes back last waits for what goes on beside on the build that all went back from.
        let waits = state == ended(0, String::new()) && self.all_are_back() && self.has_strangers();
        Some(if waits { StepState::Running } else { state })
    }

    fn state_of_its_pod(&self, ordinal: u32, id: &str, now: Timestamp) -> Option<StepState> {
        let steps = &self.record.pods.get(&ordinal)?.steps;
        let step = steps.iter().find(|step| step.id == id)?;
        let Some(replaces) = &step.replaces else {
            return Some(ended(0, String::new()));
        };
        let pod = self.pods.get(&ordinal);
        let image = self.images.get(&replaces.release);
        if self.has_turned(replaces) {
            return Some(ended(1, Refused::GoesBack.to_string()));
        }
        let late = pod.is_some_and(|pod| replaces.is_late(pod.made_at, now));
        let late_with = |why: String| if late { ended(124, why) } else { StepState::Running };
        Some(match pod {
            // Who was to delete it may have been killed before: it is deleted now. One that does not end is no build's fault.
            Some(pod) if Some(&pod.uid) == replaces.uid.as_ref() => StepState::Running,
            // What makes it anew is not the new build either.
            None => StepState::Running,
            Some(pod) if pod.image.is_empty() && pod.is_of_template => ended(
                1,
                format!(
                    "{}, so the pod runs no build",
                    image_in_words(&pod.image, &self.container)
                ),
            ),
            // What rewrites images is no build's fault, and is told as what stands in the way.
            Some(pod) if self.rewritten(pod).is_some() => StepState::Running,
            Some(pod) if Some(&pod.image) != image && pod.is_of_template => ended(
                1,
                format!(
                    "the pod was made with image {}: somebody else writes its set's template",
                    pod.image
                ),
            ),
            // Its controller had not seen the set as it is: the next one will be right.
            Some(pod) if Some(&pod.image) != image => {
                late_with(format!("the pod comes back with image {}, which is another", pod.image))
            }
            Some(pod) => pod.coming_up(replaces, now),
        })
    }

    /// Why a step does not come to its end, if that has lasted too long and is no build's fault.
    #[must_use]
    pub fn stuck(&self, ordinal: u32, id: &str, now: Timestamp) -> Option<String> {
        let steps = &self.record.pods.get(&ordinal)?.steps;
        let step = steps.iter().find(|step| step.id == id)?;
        let back_since = self.record.taken.as_ref().and_then(|taken| taken.back_since);
        if self.all_are_back()
            && self.has_strangers()
            && back_since.is_some_and(|since| now.duration_since(since) > STRANGERS_END)
        {
            return Some(self.strangers_stay());
        }
        let replaces = step.replaces.as_ref()?;
        let pod = self.pods.get(&ordinal);
        if let Some(why) = pod
            .filter(|pod| Some(&pod.uid) != replaces.uid.as_ref())
            .and_then(|pod| self.rewritten(pod))
        {
            return Some(why.to_string());
        }
        let from = pod.map_or(replaces.since, |pod| pod.made_at);
        if !replaces.is_late(from, now) {
            return None;
        }
        match pod {
            Some(pod) if Some(&pod.uid) == replaces.uid.as_ref() && pod.ending => Some(pod.does_not_end()),
            Some(pod) if Some(&pod.image) == self.images.get(&replaces.release) => pod.is_nowhere(),
            Some(_) => None,
            None if self.is_ordered && ordinal > 0 => Some(
                "the pod was not made anew; its set's podManagementPolicy is OrderedReady, so every pod below it has to be ready first"
                    .to_owned(),
            ),
            None => Some("the pod was not made anew; `kubectl describe statefulset` says why".to_owned()),
        }
    }

    /// That a pod of the template has another image than the template.
    fn rewritten(&self, pod: &Pod) -> Option<Refused> {
        // One without the container that runs the build has no image of it, and nobody has rewritten that.
        let has_one = !pod.image.is_empty();
        (pod.is_of_template && has_one && pod.image != self.template).then(|| Refused::Rewritten {
            image: pod.image.clone(),
            template: self.template.clone(),
        })
    }

    fn strangers_stay(&self) -> String {
        match self.strangers().next() {
            Some((ordinal, pod)) => format!(
                "pod {ordinal}, which came when the set was scaled up, still runs image {}; delete it, or look at the machine that it is on ({})",
                pod.image,
                pod.machine.as_deref().unwrap_or("none")
            ),
            None => {
                "the set was scaled up, and its controller does not look at it; `kubectl describe statefulset` says why"
                    .to_owned()
            }
        }
    }

    /// What is to be written before a step that is known goes on: that a newer driver is here, and, where the one before was killed
    /// before it deleted the pod, that the time counts from now.
    fn taken_up(&self, ordinal: u32, token: &FencingToken, id: &str, now: Timestamp) -> Option<Change> {
        let pod = self.pods.get(&ordinal);
        let mut change = self.as_it_is();
        change.record.fence = Some(token.clone());
        let steps = &mut change.record.pods.get_mut(&ordinal)?.steps;
        let replaces = steps.iter_mut().find(|step| step.id == id)?.replaces.as_mut();
        if let Some(replaces) = replaces
            && replaces.is_late(replaces.since, now)
            && pod.is_some_and(|pod| Some(&pod.uid) == replaces.uid.as_ref() && !pod.ending)
        {
            replaces.since = now;
        }
        (change.record != self.record).then_some(change)
    }

    /// The pod that a step waits to see gone, if it is there and was not asked to end: the one before, or one that came back
    /// with another image.
    #[must_use]
    pub fn to_delete(&self, ordinal: u32, id: &str) -> Option<&str> {
        let steps = &self.record.pods.get(&ordinal)?.steps;
        let replaces = steps.iter().find(|step| step.id == id)?.replaces.as_ref()?;
        let pod = self.pods.get(&ordinal).filter(|pod| !pod.ending)?;
        if self.has_turned(replaces) {
            return None;
        }
        let is_before = Some(&pod.uid) == replaces.uid.as_ref();
        let is_another = Some(&pod.image) != self.images.get(&replaces.release) && !pod.is_of_template;
        (is_before || is_another).then_some(pod.uid.as_str())
    }

    /// What gives the set back to its owner, once an upgrade is over: its own strategy, and nothing that was remembered but who may
    /// write. Pods that are not as the template is are moved by its controller from then on, so where not all were moved to
    /// the new build, or the upgrade was going back, the template is what it was before, whatever has become of the upgrade. But what is
    /// given back later than at its end is its owner's as that has changed it since; and a strategy that is not what was written last is
    /// a brake that somebody has put on, which stays.
    #[must_use]
    pub fn given_back(&self, leaving: &Leaving<'_>) -> Option<Change> {
        let taken = self.record.taken.as_ref()?;
        if leaving.is_of_another(&taken.hold.by) {
            return None;
        }
        let is_whole = match taken.strategy {
            Strategy::Rolling { partition: 0 } => true,
            // Nothing was moved.
            Strategy::Rolling { .. } => taken.hold.image == taken.hold.before,
            Strategy::OnDelete => false,
        };
        let went = if is_whole { leaving.went() } else { Went::Back };
        let there = There {
            image: &self.template,
            rest: self.rest,
        };
        Some(Change {
            record: Record {
                fence: self.record.fence.clone(),
                ..Record::default()
            },
            template: taken.hold.given_back(there, went, leaving),
            mover: if self.strategy == taken.strategy {
                Mover::Owners
            } else {
                Mover::Same
            },
        })
    }

    /// Nothing changed.
    #[must_use]
    pub fn as_it_is(&self) -> Change {
        Change {
            record: self.record.clone(),
            template: Template::Same,
            mover: Mover::Same,
        }
    }

    /// Whether what is asked brings a pod to what the set was before the upgrade that has it.
    fn leads_back(&self, ordinal: u32, asked: &Asked) -> bool {
        let release = match asked {
            Asked::Take => None,
            Asked::Point { release } => Some(*release),
            Asked::Replace { .. } => self.goal(ordinal),
        };
        let image = release.and_then(|release| self.images.get(&release));
        let taken = self.record.taken.as_ref();
        image.is_some() && image == taken.map(|taken| &taken.hold.before)
    }

    fn image_of(&self, release: &Digest) -> Result<&str, Refused> {
        let image = self.images.get(release);
        image.map(String::as_str).ok_or(Refused::NoImage(*release))
    }

    /// Under which strategy this pod is made with this image once it is the template's, and no other pod is moved.
    fn forward(&self, ordinal: u32, image: &str, taken: &Taken) -> Result<Strategy, Refused> {
        if taken.strategy == Strategy::OnDelete {
            return Err(Refused::GoesBack);
        }
        if let Some(below) = self.first_unready().filter(|below| self.is_ordered && *below < ordinal) {
            return Err(Refused::NotReady { below });
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

impl Change {
    /// This one, where another is written with it that came before. What was put back stays put back.
    fn after(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        let template = match (before.template, self.template) {
            (revision @ Template::Revision(_), Template::Same | Template::Image(_)) => revision,
            (before, Template::Same) => before,
            (_, template @ (Template::Image(_) | Template::Revision(_))) => template,
        };
        let mover = match self.mover {
            Mover::Same => before.mover,
            mover @ (Mover::Ours(_) | Mover::Owners) => mover,
        };
        Self {
            template,
            mover,
            ..self
        }
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

#[cfg(test)]
mod tests;

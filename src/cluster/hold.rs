//! What an upgrade has of a workload of any kind while it goes on, and what the template is once that is given back. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hosts::{Leaving, Went};
use crate::model::values::Digest;

/// What an upgrade has of a workload's template: whatever else is found there is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Which upgrade.
    pub by: String,
    /// The container that runs the build: whatever is made of the template meanwhile, it is known by that name. Empty in what a version
    /// wrote that did not remember it.
    #[serde(default)]
    pub container: String,
    /// The template's image before it: the way back leads there.
    pub before: String,
    /// The build that this is, for who states it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// The revision that has that template.
    pub revision: String,
    /// What the template says beside the image.
    pub rest: Digest,
    /// The template's image as it was written last.
    pub image: String,
    /// What somebody else had made of the workload when the way back went over that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrote: Option<String>,
}

/// A workload's template as it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There<'a> {
    /// Its image; an empty one where it has no such container.
    pub image: &'a str,
    /// What it says beside that.
    pub rest: Digest,
}

/// What a workload's template has to be made to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// As it is: nothing is written of it.
    Same,
    /// As it is, with this image.
    Image(String),
    /// That of this revision, whatever else was changed since.
    Revision(String),
}

/// How far the controller of a workload is with what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollout {
    /// It has not seen it.
    Unseen,
    /// Not all pods are of the template.
    Rolling,
    /// All are, and not as many as there should be can be used: that may be what an upgrade is to mend.
    Short,
    /// All are, and can be used.
    Complete,
}

impl Rollout {
    /// Whether there is one revision that all of it is on.
    #[must_use]
    pub fn is_settled(self) -> bool {
        match self {
            Rollout::Unseen | Rollout::Rolling => false,
            Rollout::Short | Rollout::Complete => true,
        }
    }
}

impl Hold {
    /// The container that runs the build, where that is remembered.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        Some(self.container.as_str()).filter(|name| !name.is_empty())
    }

    /// The template of a workload that is given back by an upgrade that went there. On the way back it is what it was before, whatever has
    /// become of it while that went on. What is given back later than at the end is its owner's as that has changed it since, but for an
    /// image that we put there.
    #[must_use]
    pub fn given_back(&self, there: There<'_>, went: Went, leaving: &Leaving<'_>) -> Template {
        let is_ours = there.image == self.image;
        let is_as_before = there.image == self.before && there.rest == self.rest;
        let is_as_left = is_ours && there.rest == self.rest;
        let is_just_now = match leaving {
            Leaving::JustEnded(_) => true,
            Leaving::EndedBefore(_) | Leaving::Unknown { .. } => false,
        };
        match went {
            Went::Back if !is_as_before && (is_just_now || is_as_left) => Template::Revision(self.revision.clone()),
            Went::Back if is_ours && self.image != self.before => Template::Image(self.before.clone()),
            Went::Back | Went::Forward => Template::Same,
        }
    }
}

/// The images that are stated, and that of the build before the upgrade: an environment may state it no more when it is gone back to.
#[must_use]
pub fn known(hold: Option<&Hold>, mut stated: BTreeMap<Digest, String>) -> BTreeMap<Digest, String> {
    if let Some((hold, build)) = hold.and_then(|hold| Some((hold, hold.from?))) {
        stated.entry(build).or_insert_with(|| hold.before.clone());
    }
    stated
}

/// The image of a template, in words.
#[must_use]
pub fn image_in_words(image: &str, container: &str) -> String {
    if image.is_empty() {
        format!("its template has no container {container}")
    } else {
        format!("the image of its template is {image}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::Ended;

    const OLD: &str = "r:old";
    const NEW: &str = "r:new";

    fn hold(image: &str) -> Hold {
        Hold {
            by: "up".to_owned(),
            container: "app".to_owned(),
            before: OLD.to_owned(),
            from: Some(Digest::of(b"old")),
            revision: "web-1".to_owned(),
            rest: Digest::of(b"rest"),
            image: image.to_owned(),
            overwrote: None,
        }
    }

    #[test]
    fn what_a_template_is_once_it_is_given_back() {
        let (same, revision) = (Template::Same, Template::Revision("web-1".to_owned()));
        let before = Template::Image(OLD.to_owned());
        // What was written last, what is there and whether it is as it was beside the image; then what becomes of that at once, and later.
        for (written, there, rest, at_once, later) in [
            (NEW, NEW, "rest", &revision, &revision),
            (NEW, NEW, "another", &revision, &before),
            (NEW, "r:by-hand", "rest", &revision, &same),
            (NEW, "", "rest", &revision, &same),
            (NEW, OLD, "rest", &same, &same),
            (NEW, OLD, "another", &revision, &same),
            (OLD, OLD, "rest", &same, &same),
            (OLD, OLD, "another", &revision, &same),
            (OLD, NEW, "rest", &revision, &same),
        ] {
            let there = There {
                image: there,
                rest: Digest::of(rest.as_bytes()),
            };
            let of = |went, leaving: fn(Ended<'static>) -> Leaving<'static>| {
                let ended = Ended { upgrade: "up", went };
                hold(written).given_back(there, went, &leaving(ended))
            };
            assert_eq!(&of(Went::Back, Leaving::JustEnded), at_once, "{written} {there:?}");
            assert_eq!(&of(Went::Back, Leaving::EndedBefore), later, "{written} {there:?}");
            for leaving in [Leaving::JustEnded, Leaving::EndedBefore] {
                assert_eq!(of(Went::Forward, leaving), Template::Same, "{written} {there:?}");
            }
        }
    }

    #[test]
    fn the_build_from_before_is_known_by_who_states_it_no_more_and_otherwise_as_it_is_stated() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let stated = |builds: &[(Digest, &str)]| -> BTreeMap<Digest, String> {
            builds
                .iter()
                .map(|(build, image)| (*build, (*image).to_owned()))
                .collect()
        };
        let hold = hold(NEW);
        let unstated = stated(&[(new, NEW)]);
        assert_eq!(known(None, unstated.clone()), unstated);
        assert_eq!(known(Some(&hold), unstated), stated(&[(new, NEW), (old, OLD)]));
        let elsewhere = stated(&[(old, "mirror/r:old")]);
        assert_eq!(known(Some(&hold), elsewhere.clone()), elsewhere);
    }
}

//! What is remembered of a replica, and what follows from a look at it: who is told what, and what is put back. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cluster::replica::{Cause, ClusterId, Files, OutOfSync, ReplicaSight, SyncState};
use crate::model::target::Drift;
use crate::model::upgrade::{Event, Severity};

/// Who takes a field back so often within [`REST`] is no passing hand but another controller, which will not give in either.
const HEALS_BEFORE_REST: usize = 3;
/// After this a field is put back again. Somebody who was alerted has looked by then.
const REST: SignedDuration = SignedDuration::from_hours(1);
/// Of what was put back lately; as much as some hundred objects give in an hour.
const MOST_HEALS: usize = 1_000;
/// Objects that an event names, and fields of each: it goes to a chat. `status --look` tells all of them, with their values.
const MOST_TOLD: usize = 10;
const MOST_PATHS: usize = 3;
/// Characters of a path there: a key of a `ConfigMap` may have 253.
const LONGEST_PATH: usize = 120;

/// What is remembered of a replica that stands, beside what its environment's file says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// The namespace that it was made in.
    #[serde(default)]
    pub namespace: String,
    /// The context by which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The cluster that this was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// When it is to go. Only who brings it up changes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How it was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sight: Option<ReplicaSight>,
    /// What was put back lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heals: Vec<Healed>,
    /// Objects that are put back no more for a while, of which somebody was told.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub resting: BTreeSet<String>,
    /// Why something could not be put back, of which somebody was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Why it could not be taken down though its time is over, of which somebody was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue: Option<String>,
}

/// A field that was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Healed {
    /// Of which object, as [`OutOfSync`] names it.
    pub object: String,
    /// Which; empty for the object as a whole.
    pub path: String,
    /// When.
    pub at: Timestamp,
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// To be remembered.
    pub remembered: Remembered,
    /// To be told.
    pub events: Vec<Event>,
    /// Objects to be put back.
    pub heal: BTreeSet<String>,
}

/// What follows from a look at a replica at which nobody is at work.
///
/// A file that was changed since is nobody's wish yet: `up` is.
#[must_use]
pub fn judged(before: Remembered, sight: &ReplicaSight, policy: Drift, now: Timestamp) -> Judged {
    let is_news = before
        .sight
        .as_ref()
        .is_none_or(|seen| seen.out_of_sync != sight.out_of_sync);
    let mut remembered = before;
    remembered.heals.retain(|healed| now.duration_since(healed.at) < REST);
    let mut judged = Judged {
        heal: BTreeSet::new(),
        events: Vec::new(),
        remembered: Remembered {
            sight: Some(sight.clone()),
            ..remembered
        },
    };
    if sight.sync == SyncState::Synced || sight.files == Files::Changed {
        judged.remembered.resting.clear();
        judged.remembered.refusal = None;
        return judged;
    }
    let (mut heal, mut resting, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for object in &sight.out_of_sync {
        match policy {
            Drift::Heal if sight.files == Files::AsApplied && is_curable(object.cause) => {
                if judged.remembered.is_to_rest(object) {
                    resting.push(object);
                } else {
                    heal.push(object);
                }
            }
            Drift::Heal | Drift::Report => told.push(object),
        }
    }
    if is_news && !told.is_empty() {
        let message = format!("somebody has changed it: {}", texts(&told));
        judged
            .events
            .push(event("ReplicaDrifted", Severity::Alert, message, now));
    }
    let names: BTreeSet<String> = resting.iter().map(|object| object.object.clone()).collect();
    if !names.is_subset(&judged.remembered.resting) {
        let message = format!(
            "put back {HEALS_BEFORE_REST} times within an hour and changed again, so it is left for now: {}; who changes it is to be stopped, or to \
             be left the field",
            texts(&resting)
        );
        judged
            .events
            .push(event("ReplicaHealRests", Severity::Alert, message, now));
    }
    judged.remembered.resting = names;
    judged.heal = heal.into_iter().map(|object| object.object.clone()).collect();
    judged
}

/// What follows from having put objects back.
#[must_use]
pub fn healed(mut before: Remembered, objects: &BTreeSet<String>, now: Timestamp) -> (Remembered, Event) {
    let sight = before.sight.iter().flat_map(|sight| &sight.out_of_sync);
    let cured: Vec<&OutOfSync> = sight.filter(|object| objects.contains(&object.object)).collect();
    let message = format!("what somebody has changed is put back: {}", texts(&cured));
    let new: Vec<Healed> = cured
        .iter()
        .flat_map(|object| places(object).map(|path| (object.object.clone(), path)))
        .map(|(object, path)| Healed { object, path, at: now })
        .collect();
    before.heals.extend(new);
    let too_many = before.heals.len().saturating_sub(MOST_HEALS);
    before.heals.drain(..too_many);
    before.refusal = None;
    (before, event("ReplicaHealed", Severity::Step, message, now))
}

/// What follows from not having been able to: it is told once, for as long as it is the same.
#[must_use]
pub fn unhealed(mut before: Remembered, why: &str, now: Timestamp) -> (Remembered, Vec<Event>) {
    if before.refusal.as_deref() == Some(why) {
        return (before, Vec::new());
    }
    before.refusal = Some(why.to_owned());
    let message = format!("what somebody has changed could not be put back: {why}");
    (before, vec![event("ReplicaHealRefused", Severity::Alert, message, now)])
}

/// What follows from not having been able to take down what is over: it is told once, for as long as it is the same. Nothing where
/// somebody was told.
#[must_use]
pub fn unexpired(mut before: Remembered, why: &str, now: Timestamp) -> Option<(Remembered, Event)> {
    if before.overdue.as_deref() == Some(why) {
        return None;
    }
    before.overdue = Some(why.to_owned());
    let message = format!("its time is over, and it could not be taken down: {why}");
    Some((before, event("ReplicaExpireRefused", Severity::Alert, message, now)))
}

/// An event of an environment.
#[must_use]
pub fn event(reason: &str, severity: Severity, message: String, at: Timestamp) -> Event {
    Event {
        at,
        reason: reason.to_owned(),
        severity,
        node: None,
        message,
    }
}

/// Whether it is ours to put back.
fn is_curable(cause: Cause) -> bool {
    match cause {
        Cause::Missing | Cause::Drifted | Cause::FileChanged | Cause::Unwanted => true,
        Cause::NotOurs | Cause::Refused => false,
    }
}

impl Remembered {
    fn is_to_rest(&self, object: &OutOfSync) -> bool {
        places(object).any(|path| {
            let of_it = self.heals.iter();
            of_it
                .filter(|healed| healed.object == object.object && healed.path == path)
                .count()
                >= HEALS_BEFORE_REST
        })
    }
}

fn places(object: &OutOfSync) -> impl Iterator<Item = String> {
    let whole = object.fields.is_empty().then(String::new);
    whole
        .into_iter()
        .chain(object.fields.iter().map(|field| field.path.clone()))
}

/// Objects and paths, and no value: what a field holds may be nobody's business who reads a chat.
fn texts(objects: &[&OutOfSync]) -> String {
    let mut said: Vec<String> = objects.iter().take(MOST_TOLD).map(|object| text(object)).collect();
    if let Some(more) = objects.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
        said.push(format!("and {more} more objects"));
    }
    said.join("; ")
}

fn text(object: &OutOfSync) -> String {
    let mut paths: Vec<String> = object
        .fields
        .iter()
        .take(MOST_PATHS)
        .map(|field| short(&field.path))
        .collect();
    if let Some(more) = object.fields.len().checked_sub(MOST_PATHS).filter(|more| *more > 0) {
        paths.push(format!("{more} more"));
    }
    let by: BTreeSet<&str> = object
        .fields
        .iter()
        .flat_map(|field| &field.by)
        .map(String::as_str)
        .collect();
    let by: Vec<&str> = by.into_iter().take(MOST_PATHS).collect();
    let what = if paths.is_empty() {
        String::new()
    } else {
        format!(" ({})", paths.join(", "))
    };
    let who = if by.is_empty() {
        String::new()
    } else {
        format!(" by {}", by.join(", "))
    };
    format!("{} {}{what}{who}", object.object, object.cause.words())
}

fn short(path: &str) -> String {
    if path.chars().count() <= LONGEST_PATH {
        return path.to_owned();
    }
    let begin: String = path.chars().take(LONGEST_PATH).collect();
    format!("{begin}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::replica::Field;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 60 * minute).expect("a time")
    }

    fn drifted(object: &str, fields: usize) -> OutOfSync {
        OutOfSync {
            object: object.to_owned(),
            cause: Cause::Drifted,
            message: None,
            fields: (0..fields)
                .map(|i| Field {
                    path: format!("spec.field{i}"),
                    wanted: Some("1".to_owned()),
                    found: Some("hunter2".to_owned()),
                    by: vec!["kubectl".to_owned()],
                })
                .collect(),
        }
    }

    fn sight(files: Files, out_of_sync: Vec<OutOfSync>) -> ReplicaSight {
        ReplicaSight {
            sync: if out_of_sync.is_empty() {
                SyncState::Synced
            } else {
                SyncState::OutOfSync
            },
            namespace: "n".to_owned(),
            objects: 3,
            files,
            expires_at: None,
            out_of_sync,
            seen_at: at(0),
        }
    }

    fn reasons(judged: &Judged) -> Vec<&str> {
        judged.events.iter().map(|event| event.reason.as_str()).collect()
    }

    #[test]
    fn drift_is_told_once_and_put_back_where_that_is_asked_for() {
        let seen = || sight(Files::AsApplied, vec![drifted("Deployment.apps/web", 1)]);
        let first = judged(Remembered::default(), &seen(), Drift::Report, at(0));
        assert_eq!((reasons(&first), first.heal.len()), (vec!["ReplicaDrifted"], 0));
        let again = judged(first.remembered, &seen(), Drift::Report, at(1));
        assert!(again.events.is_empty());
        let heal = judged(Remembered::default(), &seen(), Drift::Heal, at(0));
        assert!(
            heal.events.is_empty() && heal.heal.contains("Deployment.apps/web"),
            "{heal:?}"
        );
        // A file that was changed is nobody's wish until it is brought up.
        let changed = sight(Files::Changed, vec![drifted("Deployment.apps/web", 1)]);
        let changed = judged(Remembered::default(), &changed, Drift::Heal, at(0));
        assert!(changed.events.is_empty() && changed.heal.is_empty());
        // Without the parent nobody can say what was applied: it is told, and nothing is written.
        let unknown = sight(
            Files::Unknown,
            vec![OutOfSync::whole(&"ConfigMap/stagegate-a", Cause::Missing)],
        );
        let unknown = judged(Remembered::default(), &unknown, Drift::Heal, at(0));
        assert_eq!((reasons(&unknown), unknown.heal.len()), (vec!["ReplicaDrifted"], 0));
    }

    #[test]
    fn a_look_never_forgets_when_a_replica_is_to_go() {
        let before = Remembered {
            expires_at: Some(at(9)),
            ..Remembered::default()
        };
        let after = judged(before, &sight(Files::Unknown, Vec::new()), Drift::Report, at(0));
        assert_eq!(after.remembered.expires_at, Some(at(9)));
    }

    #[test]
    fn what_is_changed_again_and_again_is_left_for_an_hour_and_somebody_is_told() {
        let mut remembered = Remembered::default();
        let seen = || {
            let others = OutOfSync::whole(&"Service/web", Cause::Missing);
            sight(Files::AsApplied, vec![drifted("Deployment.apps/web", 1), others])
        };
        for minute in 0..3 {
            let judged = judged(remembered, &seen(), Drift::Heal, at(minute));
            assert_eq!(judged.heal.len(), 2, "{minute}");
            let (after, told) = healed(
                judged.remembered,
                &BTreeSet::from(["Deployment.apps/web".to_owned()]),
                at(minute),
            );
            assert_eq!(told.reason, "ReplicaHealed");
            remembered = after;
        }
        let rests = judged(remembered, &seen(), Drift::Heal, at(3));
        assert_eq!(reasons(&rests), ["ReplicaHealRests"]);
        assert_eq!(rests.heal, BTreeSet::from(["Service/web".to_owned()]));
        let still = judged(rests.remembered, &seen(), Drift::Heal, at(4));
        assert!(still.events.is_empty() && still.heal.len() == 1, "{still:?}");
        // The first of the three is an hour old.
        let later = judged(still.remembered, &seen(), Drift::Heal, at(61));
        assert_eq!(later.heal.len(), 2);
    }

    #[test]
    fn an_event_names_objects_and_paths_within_bounds_and_no_value() {
        let many: Vec<OutOfSync> = (0..40).map(|i| drifted(&format!("ConfigMap/{i}"), 32)).collect();
        let judged = judged(
            Remembered::default(),
            &sight(Files::AsApplied, many),
            Drift::Report,
            at(0),
        );
        let message = &judged.events[0].message;
        assert!(message.contains(
            "ConfigMap/0 was changed in the cluster (spec.field0, spec.field1, spec.field2, 29 more) by kubectl"
        ));
        assert!(message.ends_with("and 30 more objects"), "{message}");
        assert!(!message.contains("hunter2") && message.len() < 2_000, "{message}");
    }

    #[test]
    fn what_cannot_be_put_back_is_told_once_with_why() {
        let (before, told) = unhealed(Remembered::default(), "it is held", at(0));
        assert_eq!(told[0].reason, "ReplicaHealRefused");
        let (before, again) = unhealed(before, "it is held", at(1));
        assert!(again.is_empty());
        assert_eq!(unhealed(before, "it is not reached", at(2)).1.len(), 1);
        // And so is what nobody may put back.
        let theirs = || {
            sight(
                Files::AsApplied,
                vec![OutOfSync::whole(&"ConfigMap/web", Cause::NotOurs)],
            )
        };
        let first = judged(Remembered::default(), &theirs(), Drift::Heal, at(0));
        assert_eq!((reasons(&first), first.heal.len()), (vec!["ReplicaDrifted"], 0));
    }

    #[test]
    fn what_cannot_be_taken_down_is_told_once_with_why() {
        let (before, told) = unexpired(Remembered::default(), "another cluster", at(0)).expect("news");
        assert_eq!(told.reason, "ReplicaExpireRefused");
        assert!(told.message.ends_with("be taken down: another cluster"), "{told:?}");
        // A look meanwhile does not forget that.
        let before = judged(before, &sight(Files::AsApplied, Vec::new()), Drift::Report, at(1)).remembered;
        assert!(unexpired(before.clone(), "another cluster", at(2)).is_none());
        assert!(unexpired(before, "it is not reached", at(3)).is_some());
    }
}

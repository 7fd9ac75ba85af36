//! A promotion as an object of an API server: what is asked and said in its spec, how far it is in its status, with the events that are on
//! their way into the history beside.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::history::Untold;
use super::objects::{
    self, ApiError, Book, Fits, LONGEST_STATUS, Pending, Progress, created_at, fit, generation, is_deleted, name, part,
};
use crate::audit::Act;
use crate::engine::promotion::{PromotionRecord, subject};
use crate::model::promotion::{Phase, PromotionStatus};
use crate::model::upgrade::Event;

/// Events that wait for their copy. Beyond it the history cannot be written, and a promotion that nobody would hear of does not go on.
const MOST_PENDING: usize = 100;
/// Why a promotion is not ready that cannot be decided on now.
const NOT_DECIDED: &str = "NotDecided";

/// A Promotion as read.
#[derive(Debug, Clone)]
pub struct Promotion {
    /// The object.
    pub object: DynamicObject,
    /// What is asked, and how far it is; of a deleted one, that it is to end.
    pub record: PromotionRecord,
    /// The rest of its status.
    pub book: Book,
}

impl Promotion {
    /// Reads one.
    ///
    /// # Errors
    /// It has another shape.
    pub fn read(object: DynamicObject) -> Result<Self, ApiError> {
        let mut spec: crate::model::promotion::PromotionSpec = part(&object, "spec")?;
        if is_deleted(&object) {
            spec.cancel = true;
        }
        let stated = &object.data["status"];
        let status = if stated["phase"].is_string() {
            part(&object, "status")?
        } else {
            PromotionStatus::new(created_at(&object))
        };
        let book = if stated.is_object() {
            part(&object, "status")?
        } else {
            Book::default()
        };
        let record = PromotionRecord {
            name: name(&object).to_owned(),
            spec,
            status,
            resource_version: book.writes,
            created_at: created_at(&object),
        };
        Ok(Self { object, record, book })
    }

    /// The name of its upgrade's object: no promotion that is made anew under its name has the same.
    #[must_use]
    pub fn upgrade(&self) -> String {
        objects::unique_name(&self.object)
    }

    /// Its status from now on, with what is told of it. Events that were copied leave it.
    ///
    /// # Errors
    /// More events wait for their history than it takes, unless it ends with this; or the status is too long.
    pub fn whole(
        &self,
        status: &PromotionStatus,
        told: Vec<(Event, Option<Act>)>,
        copied: Copied,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let mut book = self.book.clone();
        match copied {
            Copied::All => book.pending.clear(),
            Copied::Unknown => {}
        }
        for (event, act) in told {
            book.told += 1;
            book.pending.push(Pending {
                seq: book.told,
                event,
                act,
            });
        }
        let unreadable = |why: String| ApiError::Unreadable {
            what: objects::named(&self.object),
            why,
        };
        // Its end is written in any case: what cannot end could not be deleted either.
        if book.pending.len() > MOST_PENDING && !status.phase.is_final() {
            return Err(unreadable(format!(
                "{} events wait for their history",
                book.pending.len()
            )));
        }
        book.writes += 1;
        book.observed_generation = generation(&self.object);
        let reason = match &status.undecided {
            Some(_) => NOT_DECIDED.to_owned(),
            None if status.reason.is_empty() => format!("{:?}", status.phase),
            None => status.reason.clone(),
        };
        let progress = Progress {
            is_ready: status.phase == Phase::Succeeded,
            moves: matches!(status.phase, Phase::Rehearsing | Phase::Upgrading),
            reason,
            message: status.why().to_owned(),
        };
        progress.put(&mut book.conditions, book.observed_generation, now);
        let mut whole = json!(status);
        if let (Some(whole), Value::Object(book)) = (whole.as_object_mut(), json!(book)) {
            whole.extend(book);
        }
        match fit(&mut whole, LONGEST_STATUS) {
            Fits::Yes => Ok(whole),
            Fits::No => Err(unreadable("its status is longer than an API server takes".to_owned())),
        }
    }

    /// What it tells that may not have been copied yet.
    #[must_use]
    pub fn untold<'a>(&'a self, environment: &'a str, component: &str) -> Untold<'a> {
        Untold {
            uid: objects::uid(&self.object),
            environment,
            upgrade: None,
            promotion: Some(self.upgrade()),
            subject: subject(component, &self.record.spec),
            pending: &self.book.pending,
        }
    }
}

/// Whether what waited in a status is in the history by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// All of it is.
    All,
    /// Nobody knows.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promotion() -> Promotion {
        let object = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Promotion", "metadata": {"name": "web-2", "uid": "0123456789"},
            "spec": {"pipeline": "web", "stage": "production", "build": "web-2", "user": "carol"},
        });
        Promotion::read(serde_json::from_value(object).expect("an object")).expect("a promotion")
    }

    fn event(n: usize) -> (Event, Option<Act>) {
        let event = Event {
            at: Timestamp::UNIX_EPOCH,
            reason: "PromotionWaiting".to_owned(),
            severity: crate::model::upgrade::Severity::Step,
            node: None,
            message: format!("for the {n}th time"),
        };
        (event, None)
    }

    /// As it is read after that was written.
    fn written(
        promotion: &Promotion,
        status: &PromotionStatus,
        events: usize,
        copied: Copied,
    ) -> Result<Promotion, ApiError> {
        let told = (0..events).map(event).collect();
        let whole = promotion.whole(status, told, copied, Timestamp::UNIX_EPOCH)?;
        let mut object = promotion.object.clone();
        object.data["status"] = whole;
        Promotion::read(object)
    }

    #[test]
    fn what_was_copied_leaves_the_status_and_a_history_that_is_full_keeps_no_end_from_it() {
        let mut promotion = promotion();
        let mut status = promotion.record.status.clone();
        for _ in 0..3 {
            promotion = written(&promotion, &status, 60, Copied::All).expect("written");
        }
        assert_eq!((promotion.book.pending.len(), promotion.book.told), (60, 180));
        written(&promotion, &status, 60, Copied::Unknown).expect_err("nobody would hear of it");
        status.phase = Phase::Cancelled;
        let ended = written(&promotion, &status, 60, Copied::Unknown).expect("its end is written");
        assert_eq!(ended.book.pending.len(), 120);
    }

    #[test]
    fn what_was_decided_stands_while_nothing_can_be_decided_anew() {
        let promotion = promotion();
        let status = PromotionStatus {
            phase: Phase::Upgrading,
            reason: "FrozenInFlight".to_owned(),
            message: "freeze weekend holds".to_owned(),
            undecided: Some("its environment cannot be read".to_owned()),
            ..promotion.record.status.clone()
        };
        let read = written(&promotion, &status, 0, Copied::All).expect("written");
        assert_eq!(read.record.status, status);
        let ready = &read.book.conditions[0];
        assert_eq!(
            (&ready["reason"], &ready["message"]),
            (&json!(NOT_DECIDED), &json!("its environment cannot be read"))
        );
    }
}

//! A promotion as an object of an API server: what is asked and said in its spec, how far it is in its status, with the events that are on
//! their way into the history beside.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::objects::{
    self, ApiError, Book, Fits, LONGEST_STATUS, Pending, created_at, fit, generation, is_deleted, name, part,
    set_condition,
};
use crate::audit::Act;
use crate::engine::promotion::{PromotionRecord, subject};
use crate::home::Home;
use crate::model::promotion::{Phase, PromotionStatus};
use crate::model::upgrade::Event;
use crate::report;
use crate::store::build::{Condition, ConditionStatus};
use crate::store::{EventCopy, EventRecord, Store as _, StoreError};

/// Events that wait for their copy: several times what one makes in all.
const MOST_PENDING: usize = 100;

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

    /// Its status from now on, with what is told of it.
    ///
    /// # Errors
    /// More events wait for their history than it takes, or the status is too long.
    pub fn whole(&self, status: &PromotionStatus, told: Vec<(Event, Option<Act>)>) -> Result<Value, ApiError> {
        let mut book = self.book.clone();
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
        if book.pending.len() > MOST_PENDING {
            return Err(unreadable(format!(
                "{} events wait for their history",
                book.pending.len()
            )));
        }
        book.writes += 1;
        book.observed_generation = generation(&self.object);
        let is = |holds: bool| {
            if holds {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            }
        };
        let moves = matches!(status.phase, Phase::Rehearsing | Phase::Upgrading);
        let reason = if status.reason.is_empty() {
            format!("{:?}", status.phase)
        } else {
            status.reason.clone()
        };
        for (kind, holds) in [("Ready", status.phase == Phase::Succeeded), ("Progressing", moves)] {
            let condition = Condition {
                kind: kind.to_owned(),
                status: is(holds),
                reason: reason.clone(),
                message: status.message.clone(),
                last_transition_time: Timestamp::now(),
            };
            set_condition(&mut book.conditions, book.observed_generation, condition);
        }
        let mut whole = json!(status);
        if let (Some(whole), Value::Object(book)) = (whole.as_object_mut(), json!(book)) {
            whole.extend(book);
        }
        match fit(&mut whole, LONGEST_STATUS) {
            Fits::Yes => Ok(whole),
            Fits::No => Err(unreadable("its status is longer than an API server takes".to_owned())),
        }
    }

    /// Copies the events that still wait in its status into the history; one that is there already is not written again.
    ///
    /// # Errors
    /// The history cannot be written.
    pub fn copy(&self, home: &Home, environment: &str, component: &str, sinks: &[String]) -> Result<(), StoreError> {
        let uid = objects::uid(&self.object);
        let subject = subject(component, &self.record.spec);
        let dispatcher = report::dispatcher(uid, &subject, sinks);
        for Pending { seq, event, act } in &self.book.pending {
            // As of an upgrade: the report's key is of the object, not of this history.
            let dispatch = |record: &EventRecord| {
                dispatcher(&EventRecord {
                    seq: *seq,
                    ..record.clone()
                })
            };
            home.store().copy_event(&EventCopy {
                environment,
                upgrade: None,
                promotion: Some(&self.upgrade()),
                source: &format!("{uid}-{seq}"),
                event,
                act: act.as_ref(),
                dispatch: &dispatch,
            })?;
        }
        Ok(())
    }
}

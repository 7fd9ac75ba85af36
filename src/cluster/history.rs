//! The history on the volume beside an API server: what objects tell is in their status until it was copied there, each event once.

use super::objects::Pending;
use crate::home::Home;
use crate::report::{self, Subject};
use crate::store::{EventCopy, EventRecord, Store as _, StoreError};

/// Events, and reports on their way.
#[derive(Clone)]
pub struct History {
    /// Where it lies.
    pub home: Home,
    /// Names of the environment's sinks in the outbox.
    pub sinks: Vec<String>,
}

/// What an object tells that may not have been copied yet.
#[derive(Debug)]
pub struct Untold<'a> {
    /// The object's.
    pub uid: &'a str,
    /// The environment that it is about.
    pub environment: &'a str,
    /// The upgrade that it is of, by its unique name.
    pub upgrade: Option<String>,
    /// The promotion.
    pub promotion: Option<String>,
    /// What it is about.
    pub subject: Subject,
    /// The events.
    pub pending: &'a [Pending],
}

impl History {
    /// Copies the events that still wait in an object's status; one that is there already is not written again.
    ///
    /// # Errors
    /// The history cannot be written.
    pub fn copy(&self, untold: &Untold<'_>) -> Result<(), StoreError> {
        let uid = untold.uid;
        let dispatcher = report::dispatcher(uid, &untold.subject, &self.sinks);
        for Pending { seq, event, act } in untold.pending {
            // The same report whichever controller makes it: its key is of the object, not of this history.
            let dispatch = |record: &EventRecord| {
                dispatcher(&EventRecord {
                    seq: *seq,
                    ..record.clone()
                })
            };
            self.home.store().copy_event(&EventCopy {
                environment: untold.environment,
                upgrade: untold.upgrade.as_deref(),
                promotion: untold.promotion.as_deref(),
                source: &format!("{uid}-{seq}"),
                event,
                act: act.as_ref(),
                dispatch: &dispatch,
            })?;
        }
        Ok(())
    }
}

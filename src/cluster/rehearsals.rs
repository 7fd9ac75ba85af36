//! A rehearsal as an object of an API server: what is rehearsed in its spec, how far it is in its status. Its upgrades are objects that it
//! owns, so they go with it.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::objects::{ApiError, Fits, LONGEST_STATUS, Progress, fit, generation, named, part, unique_name};
use crate::model::rehearsal::{RehearsalPhase, RehearsalSpec, RehearsalStatus};

/// A Rehearsal as read.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// The object.
    pub object: DynamicObject,
    /// What is rehearsed.
    pub spec: RehearsalSpec,
    /// How far it is.
    pub status: RehearsalStatus,
}

impl Rehearsal {
    /// Reads one.
    ///
    /// # Errors
    /// It has another shape.
    pub fn read(object: DynamicObject) -> Result<Self, ApiError> {
        let spec = part(&object, "spec")?;
        let status = if object.data["status"].is_object() {
            part(&object, "status")?
        } else {
            RehearsalStatus::default()
        };
        Ok(Self { object, spec, status })
    }

    /// The name of its upgrade at a place: no rehearsal that is made anew under its name has the same.
    #[must_use]
    pub fn upgrade(&self, place: usize) -> String {
        format!("{}-{place}", unique_name(&self.object))
    }

    /// Its status from now on.
    ///
    /// # Errors
    /// It is too long.
    pub fn whole(&self, status: &RehearsalStatus, now: Timestamp) -> Result<Value, ApiError> {
        let mut whole = self.object.data["status"].clone();
        if !whole.is_object() {
            whole = json!({});
        }
        let mut conditions: Vec<Value> = whole["conditions"].as_array().cloned().unwrap_or_default();
        let progress = Progress {
            is_ready: status.phase == RehearsalPhase::Passed,
            moves: status.phase == RehearsalPhase::Running,
            reason: format!("{:?}", status.phase),
            message: status.message.clone(),
        };
        progress.put(&mut conditions, generation(&self.object), now);
        if let (Some(whole), Value::Object(status)) = (whole.as_object_mut(), json!(status)) {
            whole.extend(status);
        }
        whole["conditions"] = json!(conditions);
        whole["observedGeneration"] = json!(generation(&self.object));
        match fit(&mut whole, LONGEST_STATUS) {
            Fits::Yes => Ok(whole),
            Fits::No => Err(ApiError::Unreadable {
                what: named(&self.object),
                why: "its status is longer than an API server takes".to_owned(),
            }),
        }
    }
}

//! A rehearsal as an object of an API server: what is rehearsed in its spec, how far it is in its status. Its upgrades are objects that it
//! owns, so they go with it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::objects::{
    ApiError, Fits, Kind, LONGEST_STATUS, fit, generation, name, named, part, set_condition, uid, unique_name,
};
use crate::model::rehearsal::{RehearsalPhase, RehearsalSpec, RehearsalStatus};
use crate::store::build::{Condition, ConditionStatus};

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
    pub fn whole(&self, status: &RehearsalStatus) -> Result<Value, ApiError> {
        let mut whole = self.object.data["status"].clone();
        if !whole.is_object() {
            whole = json!({});
        }
        let mut conditions: Vec<Value> = whole["conditions"].as_array().cloned().unwrap_or_default();
        let holds = |is: bool| {
            if is {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            }
        };
        for (kind, is) in [
            ("Ready", status.phase == RehearsalPhase::Passed),
            ("Progressing", status.phase == RehearsalPhase::Running),
        ] {
            let condition = Condition {
                kind: kind.to_owned(),
                status: holds(is),
                reason: format!("{:?}", status.phase),
                message: status.message.clone(),
                last_transition_time: Timestamp::now(),
            };
            set_condition(&mut conditions, generation(&self.object), condition);
        }
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

/// That an object goes with another one, which it is of.
#[must_use]
pub fn owned_by(kind: Kind, owner: &DynamicObject) -> OwnerReference {
    let resource = kind.resource();
    OwnerReference {
        api_version: resource.api_version,
        kind: resource.kind,
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// The rehearsal that an upgrade is of, by name and uid.
#[must_use]
pub fn rehearsal_of(upgrade: &DynamicObject) -> Option<(&str, &str)> {
    let kind = Kind::Rehearsal.resource();
    let mut owners = upgrade.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.kind == kind.kind && owner.api_version == kind.api_version)?;
    Some((&owner.name, &owner.uid))
}

//! A promotion as the embedded home stores it.

use jiff::Timestamp;

use super::KIND;
use crate::audit::Act;
use crate::home::Home;
use crate::model::promotion::{PromotionSpec, PromotionStatus};
use crate::model::upgrade::{Event, Severity};
use crate::report::Subject;
use crate::store::{Expect, Resource, Store as _, StoreError};

/// Ended promotions kept: as many as upgrades.
const KEEP_FINISHED: usize = 200;

/// A promotion as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct PromotionRecord {
    /// Its name, which its upgrade has too.
    pub name: String,
    /// What is asked.
    pub spec: PromotionSpec,
    /// How far it is.
    pub status: PromotionStatus,
    /// Changes with every write.
    pub resource_version: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl PromotionRecord {
    pub(super) fn from_resource(resource: &Resource) -> Result<Self, StoreError> {
        Ok(Self {
            name: resource.name.clone(),
            spec: resource.spec_as()?,
            status: resource.status_as()?,
            resource_version: resource.resource_version,
            created_at: resource.created_at,
        })
    }

    /// One by its name.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn find(home: &Home, name: &str) -> Result<Option<Self>, StoreError> {
        let found = home.store().resource(KIND, name)?;
        found.as_ref().map(Self::from_resource).transpose()
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn all(home: &Home) -> Result<Vec<Self>, StoreError> {
        home.store().resources(KIND)?.iter().map(Self::from_resource).collect()
    }

    /// Those that have not ended, the oldest first.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open(home: &Home) -> Result<Vec<Self>, StoreError> {
        let mut open = Self::all(home)?;
        open.retain(|record| !record.status.phase.is_final());
        open.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        Ok(open)
    }
}

/// What the events of a promotion are about.
#[must_use]
pub fn subject(component: &str, spec: &PromotionSpec) -> Subject {
    Subject {
        component: component.to_owned(),
        build: spec.build.clone(),
        user: spec.user.clone(),
    }
}

/// What becomes of a stored promotion.
#[derive(Debug, Clone)]
pub struct Change {
    /// What is asked from now on.
    pub spec: PromotionSpec,
    /// How far it is from now on.
    pub status: PromotionStatus,
    /// What is told.
    pub events: Vec<Event>,
    /// What the audit keeps.
    pub acts: Vec<Act>,
}

impl Change {
    /// Nothing yet.
    #[must_use]
    pub fn of(record: &PromotionRecord) -> Self {
        Self {
            spec: record.spec.clone(),
            status: record.status.clone(),
            events: Vec::new(),
            acts: Vec::new(),
        }
    }
}

/// An event of a promotion that everybody hears of.
#[must_use]
pub fn event(at: Timestamp, reason: &str, message: String) -> Event {
    Event {
        at,
        reason: reason.to_owned(),
        severity: Severity::Step,
        node: None,
        message,
    }
}

/// Forgets promotions that ended long ago; the audit keeps what was decided.
///
/// # Errors
/// The state cannot be written.
pub fn prune(home: &Home) -> Result<(), StoreError> {
    let mut ended = PromotionRecord::all(home)?;
    ended.retain(|record| record.status.phase.is_final());
    ended.sort_by_key(|record| record.status.finished_at);
    let surplus = ended.len().saturating_sub(KEEP_FINISHED);
    for record in &ended[..surplus] {
        match home
            .store()
            .delete_resource(KIND, &record.name, Expect::Version(record.resource_version))
        {
            // Another process was quicker.
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

pub(super) fn to_value<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|e| StoreError::Unreadable {
        what: KIND.to_owned(),
        why: e.to_string(),
    })
}

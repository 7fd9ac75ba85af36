//! Where an upgrade is written down. Two real things stand behind it: the embedded home's store ([`Embedded`]) and an
//! object of an API server ([`crate::cluster::ledger`]).
//!
//! # What every ledger promises
//! - [`Ledger::commit`] returns `Ok` only after status and events are durable together. An error means that nothing of them is
//!   to be seen, but for marks on builds, which may be there already: the same decision, made again, sets them again.
//! - A commit is of the version that was decided from, or it is refused ([`CommitError::Conflict`]).
//! - Once another driver has taken the environment and said so, every commit is refused ([`CommitError::Fenced`]).
//! - What builds have earned is there no later than the status that says so.

use std::cell::RefCell;

use futures::future::{FutureExt as _, LocalBoxFuture, ready};
use jiff::Timestamp;

use super::session;
use super::world::{CommitError, Loaded};
use crate::home::Home;
use crate::hosts::FencingToken;
use crate::model::upgrade::{Event, UpgradeSpec, UpgradeStatus};
use crate::report;
use crate::rollout::WishedBy;
use crate::store::{BuildChange, Commit, Store as _, StoreError};

/// A step of an upgrade, to be written as one.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// The version that it was decided from.
    pub version: u64,
    /// The new status.
    pub status: &'a UpgradeStatus,
    /// What happened, in order.
    pub events: &'a [Event],
    /// What builds have earned.
    pub builds: &'a [BuildChange],
}

/// One upgrade, written down. See the module for the promises.
pub trait Ledger {
    /// Reads it.
    fn load(&self) -> LocalBoxFuture<'_, Result<Loaded, CommitError>>;
    /// Writes a step; returns the version to name in the next.
    fn commit<'a>(&'a self, write: Write<'a>) -> LocalBoxFuture<'a, Result<u64, CommitError>>;
    /// Says that its driver lives, and learns whether the environment is still its own.
    fn renew(&self) -> LocalBoxFuture<'_, Result<(), CommitError>>;
    /// Whether an upgrade of this home, of whichever environment, is known and may have a workload still: it has not ended, or has not
    /// given back yet what it had.
    fn is_open<'a>(&'a self, upgrade: &'a str) -> LocalBoxFuture<'a, Result<bool, CommitError>>;
}

/// An upgrade in the store of the embedded home.
pub struct Embedded<'a> {
    home: &'a Home,
    upgrade: &'a str,
    spec: &'a UpgradeSpec,
    token: &'a FencingToken,
    sinks: Vec<String>,
    /// The upgrade as last read: a turn of the loop that finds nothing new costs one small look.
    known: RefCell<Option<Loaded>>,
}

impl<'a> Embedded<'a> {
    /// This upgrade; its reports go to these sinks, by their names in the outbox.
    #[must_use]
    pub fn new(
        home: &'a Home,
        upgrade: &'a str,
        spec: &'a UpgradeSpec,
        token: &'a FencingToken,
        sinks: Vec<String>,
    ) -> Self {
        Self {
            home,
            upgrade,
            spec,
            token,
            sinks,
            known: RefCell::new(None),
        }
    }

    fn read(&self) -> Result<Loaded, CommitError> {
        let store = self.home.store();
        let gone = || CommitError::Store(format!("upgrade {} is no longer in the state", self.upgrade));
        let glance = store.glance(self.upgrade).map_err(|e| told(&e))?.ok_or_else(gone)?;
        let mut known = self.known.borrow_mut();
        if let Some(known) = known.as_mut()
            && known.version == glance.resource_version
        {
            known.wish = glance.wish;
            return Ok(known.clone());
        }
        let record = store.upgrade(self.upgrade).map_err(|e| told(&e))?.ok_or_else(gone)?;
        let loaded = Loaded {
            status: record.status.into(),
            wish: record.spec.wish,
            // Nothing is deleted here that is under way.
            wished_by: WishedBy::Word,
            version: record.resource_version,
        };
        *known = Some(loaded.clone());
        Ok(loaded)
    }

    fn write(&self, write: Write<'_>) -> Result<u64, CommitError> {
        let Write {
            version,
            status,
            events,
            builds,
        } = write;
        let store = self.home.store();
        let subject = session::subject(self.spec);
        let dispatch = report::dispatcher(store.home(), &subject, &self.sinks);
        let committed = store
            .commit(&Commit {
                upgrade: self.upgrade,
                expected_version: version,
                token: self.token,
                at: Timestamp::now(),
                status,
                events,
                builds,
                wish: None,
                dispatch: &dispatch,
            })
            .map_err(|e| told(&e))?;
        Ok(committed.resource_version)
    }
}

/// The store's calls block for less than a turn of the loop takes, so they are made when asked for.
impl Ledger for Embedded<'_> {
    fn load(&self) -> LocalBoxFuture<'_, Result<Loaded, CommitError>> {
        ready(self.read()).boxed_local()
    }

    fn commit<'a>(&'a self, write: Write<'a>) -> LocalBoxFuture<'a, Result<u64, CommitError>> {
        ready(self.write(write)).boxed_local()
    }

    fn renew(&self) -> LocalBoxFuture<'_, Result<(), CommitError>> {
        let renewed = self
            .home
            .store()
            .renew(&self.spec.environment, self.token, Timestamp::now());
        ready(renewed.map_err(|e| told(&e))).boxed_local()
    }

    fn is_open<'a>(&'a self, upgrade: &'a str) -> LocalBoxFuture<'a, Result<bool, CommitError>> {
        let found = self.home.store().upgrade(upgrade).map_err(|e| told(&e));
        ready(found.map(|found| found.is_some_and(|record| !record.status.is_over()))).boxed_local()
    }
}

fn told(error: &StoreError) -> CommitError {
    match error {
        StoreError::Conflict { .. } => CommitError::Conflict,
        StoreError::Fenced { .. } => CommitError::Fenced(error.to_string()),
        other => CommitError::Store(other.to_string()),
    }
}

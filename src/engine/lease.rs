//! An environment's lease as a process of this machine holds it: taken, taken over from who is gone, given back.

use std::time::Duration;

use jiff::Timestamp;

use super::session::{Refusal, SessionError};
use crate::home::Home;
use crate::hosts::FencingToken;
use crate::settings;
use crate::store::{
    Holder, Store as _, StoreError,
    lease::{Liveness, local_liveness},
};

/// A driver on another machine that says nothing for this long has lost the environment; three renewals fit in.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// Three times within [`LEASE_TTL`].
pub(super) const KEEP_EVERY: Duration = Duration::from_secs(5);
/// A driver whose upgrade has just settled gives its lease back within this: it only clears old releases away.
pub const HANDING_BACK: Duration = Duration::from_secs(5);

/// An environment's lease, given back when dropped.
#[derive(Debug)]
pub struct HeldLease {
    home: Home,
    environment: String,
    token: FencingToken,
    taken_over: Option<Lost>,
}

/// A driver that is gone and has not given its lease back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Who it was.
    pub holder: Holder,
    /// When it last said that it lives.
    pub heard_of: Timestamp,
    /// What can be told of it from here: dead, or not to be seen.
    pub liveness: Liveness,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            holder,
            heard_of,
            liveness,
        } = self;
        let fate = match liveness {
            Liveness::Dead => "is gone",
            Liveness::Unknown | Liveness::Alive => "cannot be seen from here",
        };
        write!(f, "{holder}, which {fate} and was last heard of at {heard_of:.0}")
    }
}

impl HeldLease {
    /// Who has an environment's lease now, and since when.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn holder(home: &Home, environment: &str) -> Result<Option<(Holder, Timestamp)>, StoreError> {
        let lease = home.store().lease(environment)?;
        Ok(lease.and_then(|lease| {
            let holder = lease.living(Timestamp::now(), &local_liveness)?;
            Some((holder.clone(), lease.acquired_at))
        }))
    }

    /// Since when a living holder of an environment's lease has said nothing, if that is longer than any driver at work does: it
    /// is stopped, or its machine or disk hangs. It keeps the lease all the same, for it may go on at any moment.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn silent_since(home: &Home, environment: &str) -> Result<Option<Timestamp>, StoreError> {
        let (lease, now) = (home.store().lease(environment)?, Timestamp::now());
        let held = lease.filter(|lease| lease.living(now, &local_liveness).is_some());
        let heard_at = held.map(|lease| lease.renewed_at);
        Ok(heard_at.filter(|at| now.duration_since(*at).unsigned_abs() > LEASE_TTL))
    }

    /// Whether another living process has an environment's lease.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn is_held_by_another(home: &Home, environment: &str) -> Result<bool, SessionError> {
        let Some((holder, _)) = Self::holder(home, environment)? else {
            return Ok(false);
        };
        let me = Holder::current(settings::user()).map_err(SessionError::Holder)?;
        Ok(holder != me)
    }

    /// Takes it as soon as this holder gives it back, which it is about to.
    ///
    /// # Errors
    /// As [`HeldLease::take`], also when that takes longer than [`HANDING_BACK`].
    pub async fn take_from(home: &Home, environment: &str, about_to_leave: &Holder) -> Result<Self, SessionError> {
        let end = tokio::time::Instant::now() + HANDING_BACK;
        loop {
            let refused = match Self::take(home, environment) {
                Err(SessionError::Refused(refused @ Refusal::Held { .. })) => refused,
                other => return other,
            };
            let who = Self::holder(home, environment)?;
            if who.is_some_and(|(holder, _)| holder != *about_to_leave) || tokio::time::Instant::now() >= end {
                return Err(refused.into());
            }
            tokio::time::sleep(HANDING_BACK / 50).await;
        }
    }

    /// Takes it, or says who has it.
    ///
    /// # Errors
    /// [`Refusal::Held`], or the state cannot be written.
    pub fn take(home: &Home, environment: &str) -> Result<Self, SessionError> {
        let me = Holder::current(settings::user()).map_err(SessionError::Holder)?;
        let store = home.store();
        // Only to be told: who really had it, if two take it at once, is for nobody to decide by.
        let before = store.lease(environment)?;
        match store.acquire(environment, &me, LEASE_TTL, Timestamp::now(), &local_liveness) {
            Ok(token) => Ok(Self {
                home: home.clone(),
                environment: environment.to_owned(),
                token,
                taken_over: before.and_then(|lease| {
                    // One that lives gave it back in between.
                    let lives = lease.living(Timestamp::now(), &local_liveness).is_some();
                    let holder = lease.holder.filter(|holder| *holder != me && !lives)?;
                    Some(Lost {
                        liveness: local_liveness(&holder),
                        holder,
                        heard_of: lease.renewed_at,
                    })
                }),
            }),
            Err(StoreError::Held { .. }) => {
                let lease = store.lease(environment)?;
                let by = lease.as_ref().and_then(|l| l.holder.as_ref());
                Err(Refusal::Held {
                    environment: environment.to_owned(),
                    by: by.map_or_else(|| "somebody who just left".to_owned(), ToString::to_string),
                    since: lease.map_or(Timestamp::UNIX_EPOCH, |l| l.acquired_at),
                }
                .into())
            }
            Err(other) => Err(other.into()),
        }
    }

    /// From whom it was taken over: a driver that was killed did not give it back.
    #[must_use]
    pub fn taken_over(&self) -> Option<&Lost> {
        self.taken_over.as_ref()
    }

    /// Proof of holding it.
    pub fn token(&self) -> &FencingToken {
        &self.token
    }

    /// Raises its counter above one that a node has seen: a restored state remembers less than its nodes.
    ///
    /// # Errors
    /// Somebody else has it by now, or the state cannot be written.
    pub fn raise(&mut self, above: u64) -> Result<(), StoreError> {
        self.token = self.home.store().raise(&self.environment, &self.token, above)?;
        Ok(())
    }

    /// Says that the holder still lives.
    ///
    /// # Errors
    /// Somebody else has it by now, or the state cannot be written.
    pub fn renew(&self) -> Result<(), StoreError> {
        self.home
            .store()
            .renew(&self.environment, &self.token, Timestamp::now())
    }

    /// Does some work, and says meanwhile that this process lives: a build may take minutes to be made ready.
    ///
    /// # Errors
    /// As [`Self::renew`]; the work is left where it is.
    pub async fn keep<T>(&self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.renew()?;
                    return Ok(done);
                }
                () = tokio::time::sleep(KEEP_EVERY) => self.renew()?,
            }
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        // A process that is gone loses it anyway; this only spares the next one the look.
        if let Err(why) = self.home.store().release(&self.environment, &self.token) {
            tracing::warn!(%why, "the lease could not be given back");
        }
    }
}

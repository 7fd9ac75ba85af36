//! Leases: rows that are taken, given back, and never deleted.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Fault, decode, encode, signed, time, unsigned};
use crate::hosts::FencingToken;
use crate::store::lease::{LeaseDecision, evaluate};
use crate::store::{Holder, Lease, Liveness, StoreError};

pub(super) fn get(tx: &Transaction<'_>, environment: &str) -> Result<Option<Lease>, Fault> {
    let row = tx
        .prepare_cached("SELECT counter, holder, acquired_us, renewed_us, ttl_ms FROM leases WHERE environment = ?1")?
        .query_row([environment], |row| {
            let holder: Option<String> = row.get(1)?;
            let numbers: [i64; 4] = [row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?];
            Ok((holder, numbers))
        })
        .optional()?;
    let Some((holder, [counter, acquired_us, renewed_us, ttl_ms])) = row else {
        return Ok(None);
    };
    let holder = holder
        .map(|text| decode(&format!("the lease of {environment}"), &text))
        .transpose()?;
    Ok(Some(Lease {
        counter: unsigned(counter),
        holder,
        acquired_at: time(acquired_us),
        renewed_at: time(renewed_us),
        ttl: Duration::from_millis(unsigned(ttl_ms)),
    }))
}

pub(super) fn acquire(
    tx: &Transaction<'_>,
    environment: &str,
    holder: &Holder,
    ttl: Duration,
    now: Timestamp,
    judge: &dyn Fn(&Holder) -> Liveness,
) -> Result<u64, Fault> {
    let current = get(tx, environment)?;
    let liveness = current
        .as_ref()
        .and_then(|lease| lease.holder.as_ref())
        .map_or(Liveness::Dead, judge);
    match evaluate(current.as_ref(), holder, now, liveness) {
        LeaseDecision::Held { by, since } => Err(StoreError::Held {
            environment: environment.to_owned(),
            by: Box::new(by),
            since,
        }
        .into()),
        LeaseDecision::Take { counter } => {
            tx.execute(
                "INSERT OR REPLACE INTO leases
                 (environment, counter, holder, acquired_us, renewed_us, ttl_ms)
                 VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
                params![
                    environment,
                    signed(counter),
                    encode("a holder", holder)?,
                    now.as_microsecond(),
                    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX),
                ],
            )?;
            Ok(counter)
        }
    }
}

/// Refuses a token that does not hold the lease now.
pub(super) fn check(tx: &Transaction<'_>, home: &str, environment: &str, token: &FencingToken) -> Result<(), Fault> {
    let lease = get(tx, environment)?;
    if holds(lease.as_ref(), home, token) {
        return Ok(());
    }
    let current = match lease {
        None => "no driver".to_owned(),
        Some(Lease {
            counter, holder: None, ..
        }) => format!("{home} {counter}, held by nobody"),
        Some(Lease {
            counter,
            holder: Some(by),
            ..
        }) => format!("{home} {counter}, held by {by}"),
    };
    Err(StoreError::Fenced {
        environment: environment.to_owned(),
        ours: token.clone(),
        current,
    }
    .into())
}

fn holds(lease: Option<&Lease>, home: &str, token: &FencingToken) -> bool {
    lease.is_some_and(|lease| lease.holder.is_some() && lease.counter == token.counter && token.home == home)
}

pub(super) fn renew(
    tx: &Transaction<'_>,
    home: &str,
    environment: &str,
    token: &FencingToken,
    now: Timestamp,
) -> Result<(), Fault> {
    check(tx, home, environment, token)?;
    tx.prepare_cached("UPDATE leases SET renewed_us = ?2 WHERE environment = ?1")?
        .execute(params![environment, now.as_microsecond()])?;
    Ok(())
}

pub(super) fn raise(
    tx: &Transaction<'_>,
    home: &str,
    environment: &str,
    token: &FencingToken,
    above: u64,
) -> Result<u64, Fault> {
    check(tx, home, environment, token)?;
    let counter = token.counter.max(above).saturating_add(1);
    tx.execute(
        "UPDATE leases SET counter = ?2 WHERE environment = ?1",
        params![environment, signed(counter)],
    )?;
    Ok(counter)
}

pub(super) fn release(tx: &Transaction<'_>, home: &str, environment: &str, token: &FencingToken) -> Result<(), Fault> {
    if holds(get(tx, environment)?.as_ref(), home, token) {
        tx.execute("UPDATE leases SET holder = NULL WHERE environment = ?1", [environment])?;
    }
    Ok(())
}

//! The home's history.

use rusqlite::{Transaction, params};

use super::{Fault, decode, encode, outbox, signed, unsigned};
use crate::model::upgrade::Event;
use crate::store::{Dispatcher, EventQuery, EventRecord, KEEP_EVENTS, Take};

/// Writes events and their reports.
pub(super) fn append(
    tx: &Transaction<'_>,
    environment: &str,
    upgrade: Option<&str>,
    events: &[Event],
    dispatch: &Dispatcher<'_>,
) -> Result<Vec<u64>, Fault> {
    events
        .iter()
        .map(|event| {
            tx.prepare_cached("INSERT INTO events (environment, upgrade, body) VALUES (?1, ?2, ?3)")?
                .execute(params![environment, upgrade, encode("an event", event)?])?;
            report(tx, environment, upgrade, event, dispatch)
        })
        .collect()
}

/// The reports of the event that was just written, and its number.
fn report(
    tx: &Transaction<'_>,
    environment: &str,
    upgrade: Option<&str>,
    event: &Event,
    dispatch: &Dispatcher<'_>,
) -> Result<u64, Fault> {
    let seq = unsigned(tx.last_insert_rowid());
    let record = EventRecord {
        seq,
        environment: environment.to_owned(),
        upgrade: upgrade.map(str::to_owned),
        event: event.clone(),
    };
    for report in dispatch(&record) {
        outbox::add(tx, &record, &report)?;
    }
    Ok(seq)
}

pub(super) fn copy(
    tx: &Transaction<'_>,
    environment: &str,
    upgrade: &str,
    source: &str,
    event: &Event,
    dispatch: &Dispatcher<'_>,
) -> Result<Option<u64>, Fault> {
    let new = tx
        .prepare_cached("INSERT OR IGNORE INTO events (environment, upgrade, body, source) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![environment, upgrade, encode("an event", event)?, source])?;
    if new == 0 {
        return Ok(None);
    }
    report(tx, environment, Some(upgrade), event, dispatch).map(Some)
}

pub(super) fn list(tx: &Transaction<'_>, query: &EventQuery<'_>) -> Result<Vec<EventRecord>, Fault> {
    let EventQuery {
        environment,
        upgrade,
        after,
        take,
    } = *query;
    let (order, count) = match take {
        Take::First(count) => ("ASC", count),
        Take::Last(count) => ("DESC", count),
    };
    // One text a combination, so that each finds its index.
    let which = match (environment, upgrade) {
        (_, Some(_)) => "upgrade = ?2 AND (?1 IS NULL OR environment = ?1) AND",
        (Some(_), None) => "environment = ?1 AND ?2 IS NULL AND",
        (None, None) => "?1 IS NULL AND ?2 IS NULL AND",
    };
    let mut found: Vec<EventRecord> = tx
        .prepare_cached(&format!(
            "SELECT seq, environment, upgrade, body FROM events
             WHERE {which} seq > ?3 ORDER BY seq {order} LIMIT ?4"
        ))?
        .query_map(params![environment, upgrade, signed(after), count], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .map(|row| {
            let (seq, environment, upgrade, body): (i64, _, _, String) = row?;
            Ok(EventRecord {
                seq: unsigned(seq),
                environment,
                upgrade,
                event: decode(&format!("event {seq}"), &body)?,
            })
        })
        .collect::<Result<_, Fault>>()?;
    if let Take::Last(_) = take {
        found.reverse();
    }
    Ok(found)
}

/// Drops the events of pruned upgrades, then the oldest beyond the bound.
pub(super) fn prune(tx: &Transaction<'_>, upgrades: &[String]) -> Result<u64, Fault> {
    let mut gone = 0;
    for upgrade in upgrades {
        gone += tx
            .prepare_cached("DELETE FROM events WHERE upgrade = ?1")?
            .execute([upgrade])?;
    }
    gone += tx.execute(
        "DELETE FROM events WHERE seq <= (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?1)",
        [signed(KEEP_EVENTS)],
    )?;
    Ok(gone as u64)
}

pub(super) fn forget_environment(tx: &Transaction<'_>, environment: &str) -> Result<u64, Fault> {
    let gone = tx.execute("DELETE FROM events WHERE environment = ?1", [environment])?;
    Ok(gone as u64)
}

//! The home's history.

use rusqlite::{Transaction, params};

use super::{Fault, audit, decode, encode, outbox, signed, unsigned};
use crate::model::upgrade::{Event, UpgradeSpec};
use crate::store::{Dispatcher, EventCopy, EventQuery, EventRecord, KEEP_EVENTS, Take};

/// What events are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) environment: &'a str,
    pub(super) upgrade: Option<&'a str>,
    pub(super) promotion: Option<&'a str>,
}

impl<'a> Of<'a> {
    /// An environment alone.
    pub(super) fn environment(environment: &'a str) -> Self {
        Self {
            environment,
            upgrade: None,
            promotion: None,
        }
    }

    /// An upgrade, and the promotion that it is of.
    pub(super) fn upgrade(name: &'a str, spec: &'a UpgradeSpec) -> Self {
        Self {
            environment: &spec.environment,
            upgrade: Some(name),
            promotion: spec.promotion.as_deref(),
        }
    }
}

/// Writes events and their reports.
pub(super) fn append(
    tx: &Transaction<'_>,
    of: &Of<'_>,
    events: &[Event],
    dispatch: &Dispatcher<'_>,
) -> Result<Vec<u64>, Fault> {
    let Of {
        environment,
        upgrade,
        promotion,
    } = *of;
    events
        .iter()
        .map(|event| {
            tx.prepare_cached("INSERT INTO events (environment, upgrade, promotion, body) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![environment, upgrade, promotion, encode("an event", event)?])?;
            report(tx, of, event, dispatch)
        })
        .collect()
}

/// The reports of the event that was just written, and its number.
fn report(tx: &Transaction<'_>, of: &Of<'_>, event: &Event, dispatch: &Dispatcher<'_>) -> Result<u64, Fault> {
    let seq = unsigned(tx.last_insert_rowid());
    let record = EventRecord {
        seq,
        environment: of.environment.to_owned(),
        upgrade: of.upgrade.map(str::to_owned),
        promotion: of.promotion.map(str::to_owned),
        event: event.clone(),
    };
    let reports = dispatch(&record);
    if !reports.is_empty() {
        // Kept where we cannot reach it, it shows later that nothing was cut off here.
        let head = audit::head(tx)?.to_string();
        for mut report in reports {
            if let Some(payload) = report.payload.as_object_mut() {
                payload.insert("auditHead".to_owned(), head.clone().into());
            }
            outbox::add(tx, &record, &report)?;
        }
    }
    Ok(seq)
}

pub(super) fn copy(tx: &Transaction<'_>, copy: &EventCopy<'_>) -> Result<Option<u64>, Fault> {
    let EventCopy {
        environment,
        upgrade,
        promotion,
        source,
        event,
        act,
        dispatch,
    } = *copy;
    let new = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO events (environment, upgrade, promotion, body, source) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            environment,
            upgrade,
            promotion,
            encode("an event", event)?,
            source
        ])?;
    if new == 0 {
        return Ok(None);
    }
    let of = Of {
        environment,
        upgrade,
        promotion,
    };
    let seq = report(tx, &of, event, dispatch)?;
    audit::append(tx, act.map(std::slice::from_ref).unwrap_or_default())?;
    Ok(Some(seq))
}

pub(super) fn list(tx: &Transaction<'_>, query: &EventQuery<'_>) -> Result<Vec<EventRecord>, Fault> {
    let EventQuery {
        environment,
        upgrade,
        promotion,
        after,
        take,
    } = *query;
    let (order, count) = match take {
        Take::First(count) => ("ASC", count),
        Take::Last(count) => ("DESC", count),
    };
    // One text a combination, so that each finds its index.
    let which = match (environment, upgrade, promotion) {
        (_, _, Some(_)) => "promotion = ?5 AND (?1 IS NULL OR environment = ?1) AND (?2 IS NULL OR upgrade = ?2) AND",
        (_, Some(_), None) => "upgrade = ?2 AND (?1 IS NULL OR environment = ?1) AND ?5 IS NULL AND",
        (Some(_), None, None) => "environment = ?1 AND ?2 IS NULL AND ?5 IS NULL AND",
        (None, None, None) => "?1 IS NULL AND ?2 IS NULL AND ?5 IS NULL AND",
    };
    let mut found: Vec<EventRecord> = tx
        .prepare_cached(&format!(
            "SELECT seq, environment, upgrade, promotion, body FROM events
             WHERE {which} seq > ?3 ORDER BY seq {order} LIMIT ?4"
        ))?
        .query_map(params![environment, upgrade, signed(after), count, promotion], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .map(|row| {
            let (seq, environment, upgrade, promotion, body): (i64, _, _, _, String) = row?;
            Ok(EventRecord {
                seq: unsigned(seq),
                environment,
                upgrade,
                promotion,
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

//! Reports on their way out. A row waits, is claimed by one drainer at a time, and ends as delivered or dead.
//! Only the oldest waiting row of a (sink, thread) can be claimed: that is the order.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Params, Transaction, params};

use super::{Fault, decode, encode, signed, time, unsigned};
use crate::store::letters::{DeadLetter, LetterQuery};
use crate::store::{Dispatch, EventRecord, KEEP_SETTLED_REPORTS, OutboxEntry, PendingReports, Settlement};

pub(super) fn add(tx: &Transaction<'_>, record: &EventRecord, report: &Dispatch) -> Result<(), Fault> {
    let Dispatch {
        sink,
        thread,
        dedupe_key,
        payload,
    } = report;
    tx.prepare_cached(
        "INSERT INTO outbox (seq, environment, upgrade, sink, thread, dedupe_key, payload, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'waiting')",
    )?
    .execute(params![
        signed(record.seq),
        record.environment,
        record.upgrade,
        sink,
        thread,
        dedupe_key,
        encode("a report", payload)?,
    ])?;
    Ok(())
}

/// The heads of a sink's threads, by the index on waiting rows.
const HEADS: &str =
    "WITH heads AS (SELECT min(id) AS id FROM outbox WHERE state = 'waiting' AND sink = ?1 GROUP BY thread)";

/// Until when somebody has a row of the thread of one in hand: one that is sent again may have come before that, and a thread is told by one at a
/// time.
const HELD_UNTIL: &str = "coalesce((SELECT max(other.claimed_until_us) FROM outbox other WHERE other.state = 'waiting'
                           AND other.claimed_until_us > 0 AND other.sink = ?1 AND other.thread = outbox.thread), 0)";

pub(super) fn claim(
    tx: &Transaction<'_>,
    sink: &str,
    claimant: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<OutboxEntry>, Fault> {
    let row = tx
        .prepare_cached(&format!(
            "{HEADS} SELECT outbox.id, seq, thread, dedupe_key, payload, attempts
             FROM heads JOIN outbox ON outbox.id = heads.id
             WHERE next_attempt_us <= ?2 AND {HELD_UNTIL} <= ?2
             ORDER BY outbox.id LIMIT 1"
        ))?
        .query_row(params![sink, now.as_microsecond()], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get::<_, String>(4)?,
                row.get(5)?,
            ))
        })
        .optional()?;
    let Some((id, seq, thread, dedupe_key, payload, attempts)) = row else {
        return Ok(None);
    };
    tx.prepare_cached("UPDATE outbox SET claimed_by = ?2, claimed_until_us = ?3 WHERE id = ?1")?
        .execute(params![id, claimant, until.as_microsecond()])?;
    let name: String = thread;
    Ok(Some(OutboxEntry {
        id: unsigned(id),
        seq: unsigned(seq),
        dispatch: Dispatch {
            sink: sink.to_owned(),
            thread: name.clone(),
            dedupe_key,
            payload: decode(&format!("report {id}"), &payload)?,
        },
        attempts,
        missing: missing(tx, sink, &name, id)?,
    }))
}

/// Dead letters right before a row in its thread.
fn missing(tx: &Transaction<'_>, sink: &str, thread: &str, id: i64) -> Result<u64, Fault> {
    let missing: i64 = tx
        .prepare_cached(
            "SELECT count(*) FROM outbox WHERE state = 'dead' AND sink = ?1 AND thread = ?2 AND id < ?3 AND id >
               (SELECT coalesce(max(id), 0) FROM outbox
                WHERE state = 'delivered' AND sink = ?1 AND thread = ?2 AND id < ?3)",
        )?
        .query_row(params![sink, thread, id], |row| row.get(0))?;
    Ok(unsigned(missing))
}

/// Numbers as a list in JSON, which `SQLite` reads as a table: a list of any length in one statement.
fn wanted<'a>(query: &LetterQuery<'a>) -> Result<impl Params + use<'a>, Fault> {
    let LetterQuery { environment, sink, ids } = query;
    let ids = ids.map(|ids| encode("numbers", &ids)).transpose()?;
    Ok((*environment, *sink, ids))
}

const WANTED: &str = "state = 'dead' AND (?1 IS NULL OR environment = ?1) AND (?2 IS NULL OR sink = ?2)
                      AND (?3 IS NULL OR id IN (SELECT value FROM json_each(?3)))";

pub(super) fn dead(tx: &Transaction<'_>, query: &LetterQuery<'_>) -> Result<Vec<DeadLetter>, Fault> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT id, sink, thread, environment, settled_us, attempts, last_error, payload FROM outbox
         WHERE {WANTED} ORDER BY id"
    ))?;
    let rows = statement.query_map(wanted(query)?, |row| {
        let payload: String = row.get(7)?;
        let letter = DeadLetter {
            id: unsigned(row.get(0)?),
            sink: row.get(1)?,
            thread: row.get(2)?,
            environment: row.get(3)?,
            refused_at: time(row.get::<_, Option<i64>>(4)?.unwrap_or_default()),
            attempts: row.get(5)?,
            why: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
            report: serde_json::Value::Null,
        };
        Ok((letter, payload))
    })?;
    rows.map(|row| {
        let (letter, payload) = row?;
        let report = decode(&format!("report {}", letter.id), &payload)?;
        Ok(DeadLetter { report, ..letter })
    })
    .collect()
}

pub(super) fn revive(tx: &Transaction<'_>, query: &LetterQuery<'_>) -> Result<u64, Fault> {
    let revived = tx.execute(
        &format!(
            "UPDATE outbox SET state = 'waiting', attempts = 0, next_attempt_us = 0, last_error = NULL, settled_us = NULL,
                               claimed_by = NULL, claimed_until_us = 0
             WHERE {WANTED}"
        ),
        wanted(query)?,
    )?;
    Ok(revived as u64)
}

pub(super) fn drop_dead(tx: &Transaction<'_>, query: &LetterQuery<'_>) -> Result<u64, Fault> {
    let dropped = tx.execute(&format!("DELETE FROM outbox WHERE {WANTED}"), wanted(query)?)?;
    Ok(dropped as u64)
}

pub(super) fn settle(
    tx: &Transaction<'_>,
    id: u64,
    claimant: &str,
    how: &Settlement,
    now: Timestamp,
) -> Result<(), Fault> {
    let (id, now_us) = (signed(id), now.as_microsecond());
    match how {
        // A fact, whoever has the claim by now.
        Settlement::Delivered => tx.execute(
            "UPDATE outbox SET state = 'delivered', attempts = attempts + 1, claimed_by = NULL, settled_us = ?2
             WHERE id = ?1 AND state = 'waiting'",
            params![id, now_us],
        )?,
        Settlement::PassedOver => tx.execute(
            "DELETE FROM outbox WHERE id = ?1 AND state = 'waiting' AND claimed_by = ?2",
            params![id, claimant],
        )?,
        Settlement::Retry { at, why } => tx.execute(
            "UPDATE outbox SET attempts = attempts + 1, next_attempt_us = ?3, last_error = ?4,
                               claimed_by = NULL, claimed_until_us = 0
             WHERE id = ?1 AND state = 'waiting' AND claimed_by = ?2",
            params![id, claimant, at.as_microsecond(), why],
        )?,
        Settlement::Dead { why } => tx.execute(
            "UPDATE outbox SET state = 'dead', attempts = attempts + 1, settled_us = ?3, last_error = ?4,
                               claimed_by = NULL
             WHERE id = ?1 AND state = 'waiting' AND claimed_by = ?2",
            params![id, claimant, now_us, why],
        )?,
    };
    Ok(())
}

pub(super) fn next_due(tx: &Transaction<'_>, sink: &str) -> Result<Option<Timestamp>, Fault> {
    let due: Option<i64> = tx
        .prepare_cached(&format!(
            "{HEADS} SELECT min(max(next_attempt_us, {HELD_UNTIL}))
             FROM heads JOIN outbox ON outbox.id = heads.id"
        ))?
        .query_row([sink], |row| row.get(0))?;
    Ok(due.map(time))
}

pub(super) fn pending(
    tx: &Transaction<'_>,
    environment: Option<&str>,
    upgrade: Option<&str>,
) -> Result<Vec<PendingReports>, Fault> {
    // SQLite takes a bare column from the row that has the max(): the last error.
    let found = tx
        .prepare_cached(
            "SELECT sink, sum(state = 'waiting'), sum(state = 'dead'),
                    max(CASE WHEN last_error IS NOT NULL THEN id END), last_error
             FROM outbox
             WHERE state <> 'delivered' AND (?1 IS NULL OR environment = ?1) AND (?2 IS NULL OR upgrade = ?2)
             GROUP BY sink ORDER BY sink",
        )?
        .query_map(params![environment, upgrade], |row| {
            Ok(PendingReports {
                sink: row.get(0)?,
                waiting: unsigned(row.get(1)?),
                dead: unsigned(row.get(2)?),
                last_error: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

/// Drops the oldest settled rows beyond the bound. Rows that wait stay, however many: nothing is lost (I5).
pub(super) fn prune(tx: &Transaction<'_>) -> Result<u64, Fault> {
    let mut gone = 0;
    for state in ["delivered", "dead"] {
        gone += tx.execute(
            "DELETE FROM outbox WHERE state = ?1 AND id <=
               (SELECT id FROM outbox WHERE state = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            params![state, signed(KEEP_SETTLED_REPORTS)],
        )?;
    }
    Ok(gone as u64)
}

pub(super) fn forget_environment(tx: &Transaction<'_>, environment: &str) -> Result<u64, Fault> {
    let gone = tx.execute(
        "DELETE FROM outbox WHERE environment = ?1 AND state <> 'waiting'",
        [environment],
    )?;
    Ok(gone as u64)
}

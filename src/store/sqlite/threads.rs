//! Threads of chats.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Fault, decode, encode, signed};
use crate::store::threads::{KEEP_THREADS, ThreadState};

pub(super) fn get(tx: &Transaction<'_>, sink: &str, thread: &str) -> Result<Option<ThreadState>, Fault> {
    let text: Option<String> = tx
        .prepare_cached("SELECT state FROM threads WHERE sink = ?1 AND thread = ?2")?
        .query_row([sink, thread], |row| row.get(0))
        .optional()?;
    text.map(|text| decode(&format!("thread {thread} of {sink}"), &text))
        .transpose()
}

pub(super) fn put(
    tx: &Transaction<'_>,
    sink: &str,
    thread: &str,
    state: &ThreadState,
    now: Timestamp,
) -> Result<(), Fault> {
    tx.prepare_cached("INSERT OR REPLACE INTO threads (sink, thread, state, used_us) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![sink, thread, encode("a thread", state)?, now.as_microsecond()])?;
    Ok(())
}

/// Forgets those that were not spoken in for the longest time; what still waits for one would open it anew.
pub(super) fn prune(tx: &Transaction<'_>) -> Result<(), Fault> {
    tx.execute(
        "DELETE FROM threads WHERE used_us <=
           (SELECT used_us FROM threads ORDER BY used_us DESC LIMIT 1 OFFSET ?1)
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE state = 'waiting'
                         AND outbox.sink = threads.sink AND outbox.thread = threads.thread)",
        [signed(KEEP_THREADS)],
    )?;
    Ok(())
}

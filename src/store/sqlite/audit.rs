//! Acts in a chain of hashes.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Fault, encode, signed, unsigned};
use crate::audit::{Act, Head, Record};
use crate::model::values::Digest;
use crate::store::StoreError;

/// Writes acts behind the last one.
pub(super) fn append(tx: &Transaction<'_>, acts: &[Act]) -> Result<(), Fault> {
    if acts.is_empty() {
        return Ok(());
    }
    let mut head = head(tx)?;
    let mut insert = tx.prepare_cached("INSERT INTO audit (seq, act, hash) VALUES (?1, ?2, ?3)")?;
    for act in acts {
        let Record { seq, act, hash } = head.next(encode("an act", act)?);
        insert.execute(params![signed(seq), act, hash.to_string()])?;
        head = Head { count: seq, hash };
    }
    Ok(())
}

/// Where the chain ends.
pub(super) fn head(tx: &Transaction<'_>) -> Result<Head, Fault> {
    let last = tx
        .prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    match last {
        Some((seq, hash)) => Ok(Head {
            count: unsigned(seq),
            hash: digest(seq, &hash)?,
        }),
        None => Ok(Head::empty()),
    }
}

/// So many records after a place.
pub(super) fn list(tx: &Transaction<'_>, after: u64, take: u32) -> Result<Vec<Record>, Fault> {
    tx.prepare_cached("SELECT seq, act, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map(params![signed(after), take], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })?
        .map(|row| {
            let (seq, act, hash) = row?;
            Ok(Record {
                seq: unsigned(seq),
                act,
                hash: digest(seq, &hash)?,
            })
        })
        .collect()
}

fn digest(seq: i64, text: &str) -> Result<Digest, Fault> {
    text.parse().map_err(|why: crate::model::values::ValueError| {
        Fault::Refused(StoreError::Unreadable {
            what: format!("record {seq} of the audit"),
            why: why.to_string(),
        })
    })
}

//! Signed proofs of commits, as they are written. What they say is read and verified elsewhere.

use rusqlite::{Transaction, params};

use super::{Fault, signed, time};
use crate::store::{Attestation, KEEP_ATTESTATIONS, KEEP_ATTESTATIONS_OF_A_COMMIT};

pub(super) fn put(tx: &Transaction<'_>, attestation: &Attestation) -> Result<(), Fault> {
    let Attestation {
        repository,
        commit,
        envelope,
        stored_at,
    } = attestation;
    tx.prepare_cached(
        "INSERT INTO attestations (repository, commit_id, envelope, stored_us)
         SELECT ?1, ?2, ?3, ?4
         WHERE NOT EXISTS (SELECT 1 FROM attestations WHERE commit_id = ?2 AND repository = ?1 AND envelope = ?3)",
    )?
    .execute(params![repository, commit, envelope, stored_at.as_microsecond()])?;
    tx.prepare_cached(
        "DELETE FROM attestations WHERE commit_id = ?1 AND id <=
         (SELECT id FROM attestations WHERE commit_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![commit, signed(KEEP_ATTESTATIONS_OF_A_COMMIT)])?;
    Ok(())
}

pub(super) fn of(tx: &Transaction<'_>, commit: &str) -> Result<Vec<Attestation>, Fault> {
    let mut statement = tx.prepare_cached(
        "SELECT repository, commit_id, envelope, stored_us FROM attestations WHERE commit_id = ?1 ORDER BY id",
    )?;
    let rows = statement.query_map([commit], |row| {
        Ok(Attestation {
            repository: row.get(0)?,
            commit: row.get(1)?,
            envelope: row.get(2)?,
            stored_at: time(row.get(3)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Drops the oldest beyond the bound.
pub(super) fn prune(tx: &Transaction<'_>) -> Result<u64, Fault> {
    let gone = tx.execute(
        "DELETE FROM attestations WHERE id <= (SELECT id FROM attestations ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        [signed(KEEP_ATTESTATIONS)],
    )?;
    Ok(gone as u64)
}

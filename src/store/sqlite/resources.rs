//! Specs and statuses by kind and name.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use super::{Fault, decode, encode, next_version, signed, time, unsigned};
use crate::store::{BuildChange, BuildStatus, Expect, Resource, StoreError};

const BUILD: &str = "Build";
const ENVIRONMENT: &str = "Environment";
const COLUMNS: &str = "kind, name, spec, status, generation, resource_version, created_us, updated_us";

/// A row before its texts are read.
struct Raw {
    kind: String,
    name: String,
    spec: String,
    status: String,
    numbers: [i64; 4],
}

impl Raw {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            kind: row.get(0)?,
            name: row.get(1)?,
            spec: row.get(2)?,
            status: row.get(3)?,
            numbers: [row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?],
        })
    }

    fn read(self) -> Result<Resource, Fault> {
        let Self {
            kind,
            name,
            spec,
            status,
            numbers: [generation, resource_version, created_us, updated_us],
        } = self;
        let what = format!("{kind} {name}");
        Ok(Resource {
            spec: decode(&what, &spec)?,
            status: decode(&what, &status)?,
            generation: unsigned(generation),
            resource_version: unsigned(resource_version),
            created_at: time(created_us),
            updated_at: time(updated_us),
            kind,
            name,
        })
    }
}

pub(super) fn get(tx: &Transaction<'_>, kind: &str, name: &str) -> Result<Option<Resource>, Fault> {
    tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM resources WHERE kind = ?1 AND name = ?2"
    ))?
    .query_row([kind, name], Raw::from_row)
    .optional()?
    .map(Raw::read)
    .transpose()
}

pub(super) fn list(tx: &Transaction<'_>, kind: &str) -> Result<Vec<Resource>, Fault> {
    tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM resources WHERE kind = ?1 ORDER BY name"
    ))?
    .query_map([kind], Raw::from_row)?
    .map(|raw| raw?.read())
    .collect()
}

pub(super) fn put_spec(
    tx: &Transaction<'_>,
    kind: &str,
    name: &str,
    spec: &Value,
    expect: Expect,
    now: Timestamp,
) -> Result<Resource, Fault> {
    let new = match check(tx, kind, name, expect)? {
        Some(stored) if stored.spec == *spec => return Ok(stored),
        Some(stored) => Resource {
            spec: spec.clone(),
            generation: stored.generation + 1,
            ..stored
        },
        None => Resource {
            kind: kind.to_owned(),
            name: name.to_owned(),
            spec: spec.clone(),
            status: Value::Object(serde_json::Map::new()),
            generation: 1,
            resource_version: 0,
            created_at: now,
            updated_at: now,
        },
    };
    write(tx, new, now)
}

pub(super) fn put_status(
    tx: &Transaction<'_>,
    kind: &str,
    name: &str,
    status: &Value,
    expect: Expect,
    now: Timestamp,
) -> Result<Resource, Fault> {
    let stored = check(tx, kind, name, expect)?.ok_or_else(|| not_found(kind, name))?;
    if stored.status == *status {
        return Ok(stored);
    }
    let new = Resource {
        status: status.clone(),
        ..stored
    };
    write(tx, new, now)
}

/// Writes what is given of both.
pub(super) fn put(
    tx: &Transaction<'_>,
    kind: &str,
    name: &str,
    spec: Option<&Value>,
    status: Option<&Value>,
    expect: Expect,
    now: Timestamp,
) -> Result<Resource, Fault> {
    let mut expect = expect;
    let mut written = None;
    if let Some(spec) = spec {
        written = Some(put_spec(tx, kind, name, spec, expect, now)?);
        expect = Expect::Anything;
    }
    if let Some(status) = status {
        written = Some(put_status(tx, kind, name, status, expect, now)?);
    }
    written.ok_or_else(|| not_found(kind, name))
}

pub(super) fn delete(tx: &Transaction<'_>, kind: &str, name: &str, expect: Expect) -> Result<(), Fault> {
    check(tx, kind, name, expect)?;
    tx.execute("DELETE FROM resources WHERE kind = ?1 AND name = ?2", [kind, name])?;
    Ok(())
}

pub(super) fn mark_build(tx: &Transaction<'_>, change: &BuildChange, now: Timestamp) -> Result<Resource, Fault> {
    let BuildChange { build, mark } = change;
    let stored = get(tx, BUILD, build)?.ok_or_else(|| not_found(BUILD, build))?;
    let mut status: BuildStatus = stored.status_as()?;
    status.apply(mark);
    write_build_status(tx, stored, &status, now)
}

pub(super) fn forget_environment(tx: &Transaction<'_>, environment: &str) -> Result<(), Fault> {
    delete(tx, ENVIRONMENT, environment, Expect::Anything)?;
    for stored in list(tx, BUILD)? {
        let mut status: BuildStatus = stored.status_as()?;
        if status.forget(environment) {
            let at = stored.updated_at;
            write_build_status(tx, stored, &status, at)?;
        }
    }
    Ok(())
}

fn write_build_status(
    tx: &Transaction<'_>,
    stored: Resource,
    status: &BuildStatus,
    now: Timestamp,
) -> Result<Resource, Fault> {
    let status = decode(&stored.name, &encode(&stored.name, status)?)?;
    write(tx, Resource { status, ..stored }, now)
}

/// What is stored, if it is what the writer expects.
fn check(tx: &Transaction<'_>, kind: &str, name: &str, expect: Expect) -> Result<Option<Resource>, Fault> {
    let stored = get(tx, kind, name)?;
    let found = stored.as_ref().map_or(0, |r| r.resource_version);
    let conflict = |expected| StoreError::Conflict {
        what: format!("{kind} {name}"),
        expected,
        found,
    };
    match expect {
        Expect::Anything => Ok(stored),
        Expect::Version(expected) if expected == found => Ok(stored),
        Expect::Version(expected) => Err(conflict(expected).into()),
        Expect::Absent if stored.is_none() => Ok(None),
        Expect::Absent => Err(StoreError::Exists {
            kind: kind.to_owned(),
            name: name.to_owned(),
        }
        .into()),
    }
}

fn write(tx: &Transaction<'_>, mut new: Resource, now: Timestamp) -> Result<Resource, Fault> {
    new.resource_version = next_version(tx)?;
    new.updated_at = now;
    let what = format!("{} {}", new.kind, new.name);
    tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO resources ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    ))?
    .execute(params![
        new.kind,
        new.name,
        encode(&what, &new.spec)?,
        encode(&what, &new.status)?,
        signed(new.generation),
        signed(new.resource_version),
        new.created_at.as_microsecond(),
        new.updated_at.as_microsecond(),
    ])?;
    // As stored, with the microseconds that a column keeps.
    get(tx, &new.kind, &new.name)?.ok_or_else(|| not_found(&new.kind, &new.name))
}

fn not_found(kind: &str, name: &str) -> Fault {
    Fault::Refused(StoreError::NotFound {
        kind: kind.to_owned(),
        name: name.to_owned(),
    })
}

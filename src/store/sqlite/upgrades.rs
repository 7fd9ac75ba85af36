//! Upgrades: created once, moved by commits, wished about by operators.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Fault, audit, decode, encode, events, leases, next_version, resources, signed, time, unsigned};
use crate::model::promotion::{self, PromotionStatus};
use crate::model::upgrade::{Event, UpgradeSpec, UpgradeStatus, Wish};
use crate::store::acts;
use crate::store::{
    Commit, Committed, Dispatcher, Glance, KEEP_FINISHED_UPGRADES, PROMOTION, StoreError, UpgradeRecord,
};

const COLUMNS: &str = "name, spec, status, wish, wish_version, resource_version, created_us";

/// A row before its texts are read.
struct Raw {
    name: String,
    spec: String,
    status: String,
    wish: String,
    numbers: [i64; 3],
}

impl Raw {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            spec: row.get(1)?,
            status: row.get(2)?,
            wish: row.get(3)?,
            numbers: [row.get(4)?, row.get(5)?, row.get(6)?],
        })
    }

    fn read(self) -> Result<UpgradeRecord, Fault> {
        let Self {
            name,
            spec,
            status,
            wish,
            numbers: [wish_version, resource_version, created_us],
        } = self;
        let what = format!("upgrade {name}");
        let mut spec: UpgradeSpec = decode(&what, &spec)?;
        spec.wish = decode(&what, &wish)?;
        Ok(UpgradeRecord {
            spec,
            status: decode(&what, &status)?,
            resource_version: unsigned(resource_version),
            wish_version: unsigned(wish_version),
            created_at: time(created_us),
            name,
        })
    }
}

fn select(tx: &Transaction<'_>, rest: &str, parameters: impl rusqlite::Params) -> Result<Vec<UpgradeRecord>, Fault> {
    tx.prepare_cached(&format!("SELECT {COLUMNS} FROM upgrades {rest}"))?
        .query_map(parameters, Raw::from_row)?
        .map(|raw| raw?.read())
        .collect()
}

pub(super) fn get(tx: &Transaction<'_>, name: &str) -> Result<Option<UpgradeRecord>, Fault> {
    Ok(select(tx, "WHERE name = ?1", [name])?.pop())
}

pub(super) fn glance(tx: &Transaction<'_>, name: &str) -> Result<Option<Glance>, Fault> {
    let row = tx
        .prepare_cached("SELECT resource_version, wish, wish_version FROM upgrades WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))
        .optional()?;
    row.map(|(resource_version, wish, wish_version)| {
        Ok(Glance {
            resource_version: unsigned(resource_version),
            wish: decode(&format!("upgrade {name}"), &wish)?,
            wish_version: unsigned(wish_version),
        })
    })
    .transpose()
}

pub(super) fn last(tx: &Transaction<'_>, environment: Option<&str>, count: u32) -> Result<Vec<UpgradeRecord>, Fault> {
    let mut found = match environment {
        Some(environment) => select(
            tx,
            "WHERE environment = ?1 ORDER BY id DESC LIMIT ?2",
            params![environment, count],
        )?,
        None => select(tx, "ORDER BY id DESC LIMIT ?1", [count])?,
    };
    found.reverse();
    Ok(found)
}

pub(super) fn unfinished(tx: &Transaction<'_>, environment: Option<&str>) -> Result<Vec<UpgradeRecord>, Fault> {
    match environment {
        Some(environment) => select(tx, "WHERE finished = 0 AND environment = ?1", [environment]),
        None => select(tx, "WHERE finished = 0 ORDER BY id", []),
    }
}

/// The condition is the index's, word by word.
pub(super) fn kept(tx: &Transaction<'_>, environment: Option<&str>) -> Result<Vec<UpgradeRecord>, Fault> {
    match environment {
        Some(environment) => select(
            tx,
            "WHERE status ->> '$.kept' IS NOT NULL AND environment = ?1 ORDER BY id",
            [environment],
        ),
        None => select(tx, "WHERE status ->> '$.kept' IS NOT NULL ORDER BY id", []),
    }
}

pub(super) fn create(
    tx: &Transaction<'_>,
    name: &str,
    spec: &UpgradeSpec,
    status: &UpgradeStatus,
    now: Timestamp,
) -> Result<UpgradeRecord, Fault> {
    if get(tx, name)?.is_some() {
        return Err(StoreError::Exists {
            kind: "Upgrade".to_owned(),
            name: name.to_owned(),
        }
        .into());
    }
    if let Some(open) = unfinished(tx, Some(&spec.environment))?.pop() {
        return Err(StoreError::Unfinished {
            environment: spec.environment.clone(),
            upgrade: open.name,
        }
        .into());
    }
    if let Some(promotion) = &spec.promotion {
        refuse_not_promoted(tx, promotion)?;
    }
    let what = format!("upgrade {name}");
    tx.execute(
        "INSERT INTO upgrades
         (name, environment, spec, status, wish, wish_version, resource_version, finished, created_us)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8)",
        params![
            name,
            spec.environment,
            encode(&what, spec)?,
            encode(&what, status)?,
            encode(&what, &spec.wish)?,
            signed(next_version(tx)?),
            status.phase.is_final(),
            now.as_microsecond(),
        ],
    )?;
    audit::append(tx, &[acts::begun(name, spec, now)])?;
    existing(tx, name)
}

/// Two may go on with a promotion, and what one of them has decided the other may have taken back since.
fn refuse_not_promoted(tx: &Transaction<'_>, promotion: &str) -> Result<(), Fault> {
    let found = resources::get(tx, PROMOTION, promotion)?;
    let status = found
        .map(|resource| resource.status_as::<PromotionStatus>())
        .transpose()?;
    if status.is_some_and(|status| status.phase == promotion::Phase::Upgrading) {
        return Ok(());
    }
    Err(StoreError::NotPromoted {
        promotion: promotion.to_owned(),
    }
    .into())
}

pub(super) fn set_wish(
    tx: &Transaction<'_>,
    name: &str,
    wish: Wish,
    seen: Option<u64>,
    by: &str,
    events: &[Event],
    dispatch: &Dispatcher<'_>,
) -> Result<u64, Fault> {
    let record = unfinished_one(tx, name)?;
    if let Some(seen) = seen.filter(|seen| *seen != record.wish_version) {
        return Err(conflict(name, seen, record.wish_version).into());
    }
    if wish == Wish::TimeUp && record.spec.wish != Wish::Proceed {
        // A clock overrules nobody.
        return Ok(record.wish_version);
    }
    write_wish(tx, name, wish)?;
    // That its time was up is nobody's act, and is told by nothing.
    if let Some(Event { at, message, .. }) = events.first() {
        audit::append(tx, &[acts::wished(name, &record.spec, by, wish, message, *at)])?;
    }
    events::append(tx, &events::Of::upgrade(name, &record.spec), events, dispatch)?;
    Ok(record.wish_version + 1)
}

fn conflict(upgrade: &str, expected: u64, found: u64) -> StoreError {
    StoreError::Conflict {
        what: format!("upgrade {upgrade}"),
        expected,
        found,
    }
}

fn write_wish(tx: &Transaction<'_>, name: &str, wish: Wish) -> Result<(), Fault> {
    tx.execute(
        "UPDATE upgrades SET wish = ?2, wish_version = wish_version + 1 WHERE name = ?1",
        params![name, encode("a wish", &wish)?],
    )?;
    Ok(())
}

pub(super) fn commit(tx: &Transaction<'_>, home: &str, commit: &Commit<'_>) -> Result<Committed, Fault> {
    let Commit {
        upgrade,
        expected_version,
        token,
        at,
        status,
        events,
        builds,
        wish,
        dispatch,
    } = *commit;
    let stored = existing(tx, upgrade)?;
    let environment = &stored.spec.environment;
    leases::renew(tx, home, environment, token, at)?;
    if stored.resource_version != expected_version {
        return Err(conflict(upgrade, expected_version, stored.resource_version).into());
    }
    // What is learnt of a finished upgrade afterwards is added to it; what came of it stays.
    let only_adds = status.phase == stored.status.phase && builds.is_empty() && wish.is_none();
    if !only_adds {
        refuse_finished(&stored)?;
    }
    if let Some(change) = wish {
        if stored.wish_version != change.seen {
            return Err(conflict(upgrade, change.seen, stored.wish_version).into());
        }
        write_wish(tx, upgrade, change.to)?;
    }
    let resource_version = next_version(tx)?;
    tx.prepare_cached("UPDATE upgrades SET status = ?2, resource_version = ?3, finished = ?4 WHERE name = ?1")?
        .execute(params![
            upgrade,
            encode(upgrade, status)?,
            signed(resource_version),
            status.phase.is_final(),
        ])?;
    for change in builds {
        resources::mark_build(tx, change, at)?;
    }
    let ended = acts::ended(upgrade, &stored.spec, stored.status.phase, status, at);
    let all: Vec<_> = builds.iter().map(acts::marked).chain(ended).collect();
    audit::append(tx, &all)?;
    let events = events::append(tx, &events::Of::upgrade(upgrade, &stored.spec), events, dispatch)?;
    Ok(Committed {
        resource_version,
        events,
    })
}

/// Keeps the last finished upgrades, those that keep something still, and of each environment and component the last of record: what is
/// to run there is known by that alone. Names the ones that went.
pub(super) fn prune(tx: &Transaction<'_>) -> Result<Vec<String>, Fault> {
    // As `UpgradeRecord::is_of_record` has it.
    delete_returning(
        tx,
        "finished = 1 AND status ->> '$.kept' IS NULL
         AND id NOT IN (SELECT id FROM upgrades WHERE finished = 1 ORDER BY id DESC LIMIT ?1)
         AND id NOT IN (
           SELECT max(id) FROM upgrades
           WHERE finished = 1 AND EXISTS (
             SELECT 1 FROM json_each(status, '$.nodes') AS node
             WHERE status ->> '$.phase' = 'Succeeded' OR node.value ->> '$.steps' > 0)
           GROUP BY environment, spec ->> '$.component')",
        [signed(KEEP_FINISHED_UPGRADES)],
    )
}

pub(super) fn forget_environment(tx: &Transaction<'_>, environment: &str) -> Result<Vec<String>, Fault> {
    delete_returning(tx, "environment = ?1", [environment])
}

fn delete_returning(
    tx: &Transaction<'_>,
    which: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<String>, Fault> {
    let mut names: Vec<String> = tx
        .prepare(&format!("DELETE FROM upgrades WHERE {which} RETURNING name"))?
        .query_map(parameters, |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    names.sort();
    Ok(names)
}

fn existing(tx: &Transaction<'_>, name: &str) -> Result<UpgradeRecord, Fault> {
    get(tx, name)?.ok_or_else(|| {
        Fault::Refused(StoreError::NotFound {
            kind: "Upgrade".to_owned(),
            name: name.to_owned(),
        })
    })
}

fn unfinished_one(tx: &Transaction<'_>, name: &str) -> Result<UpgradeRecord, Fault> {
    let record = existing(tx, name)?;
    refuse_finished(&record)?;
    Ok(record)
}

fn refuse_finished(record: &UpgradeRecord) -> Result<(), Fault> {
    if record.status.phase.is_final() {
        return Err(StoreError::Finished {
            upgrade: record.name.clone(),
        }
        .into());
    }
    Ok(())
}

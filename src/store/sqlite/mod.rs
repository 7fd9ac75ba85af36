//! The embedded home: `stagegate.db` in the state directory.
//!
//! A backup that was put back, or another copy of the file, is a home of its own: the nodes of the original refuse it until
//! they are adopted (`stagegate adopt`).

mod attestations;
mod audit;
mod events;
mod leases;
mod outbox;
mod resources;
mod runs;
mod schema;
#[cfg(test)]
mod tests;
mod threads;
mod upgrades;

use crate::store::EventCopy;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::backup::StepResult;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::error::directory_of;
use super::letters::{DeadLetter, LetterQuery};
use super::threads::ThreadState;
use super::{
    Attestation, BuildChange, Commit, Committed, Dispatcher, EventQuery, EventRecord, Expect, Glance, Holder, Lease,
    Liveness, OutboxEntry, PendingReports, Pruned, Put, Resource, Settlement, Store, StoreError, UpgradeRecord,
    random_id,
};
use super::{acts, place};
use crate::audit::{Head, Record};
use crate::hosts::FencingToken;
use crate::model::upgrade::{Event, UpgradeSpec, UpgradeStatus, Wish};

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "stagegate.db";
/// How long a call waits for another process' write. Writes take milliseconds, a backup of 100 MB under 1 s; a disk
/// that needs longer than this is in trouble that somebody should see.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// After a death of everybody who had the file open it is checked, up to this size: about 0.1 s of reading.
const CHECK_UP_TO_BYTES: u64 = 64 << 20;
/// A WAL larger than this is cut back after a checkpoint. `SQLite` checkpoints at 4 MB; more is a leftover of one big write.
const WAL_LIMIT_BYTES: i64 = 16 << 20;
/// Less free space than this means that an I/O error was a full disk: `SQLite` reports some of them as such.
const FULL_BELOW_BYTES: u64 = 1 << 20;

/// A home in one `SQLite` file. Cheap to share: calls from several threads take turns.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Mutex<Connection>,
    path: PathBuf,
    home: String,
    /// A shared lock for as long as the file is open here: who gets an exclusive one knows to be alone.
    _presence: Option<File>,
}

/// What goes wrong within a transaction: `SQLite`'s words, which need the path to be told, or a refusal of ours.
enum Fault {
    Sql(rusqlite::Error),
    Refused(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sql(e)
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Self::Refused(e)
    }
}

impl SqliteStore {
    /// Opens the home in this directory, making both if there is none. Refuses a network file system, a file of
    /// another application or of a newer version; brings an older one up to date. After a crash the file is checked.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        place::prepare(directory, &path)?;
        let presence = File::open(directory).map_err(place::place("open", directory))?;
        let lock = |operation| flock(&presence, operation).map_err(|e| place::place("lock", directory)(e.into()));
        let alone = flock(&presence, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !alone {
            // Waits for somebody who is just making the file.
            lock(FlockOperation::LockShared)?;
        }
        place::make_file(&path)?;
        let unclean = alone && size_of(&path.with_extension("db-wal")) > 0;
        let tried = "open the state";
        let mut connection = open_file(&path, unclean).map_err(|fault| explain(fault, tried, &path))?;
        let file = identity(&path).map_err(place::place("look at", &path))?;
        if let Some(original) = schema::tie(&mut connection, &file).map_err(|fault| explain(fault, tried, &path))? {
            tracing::warn!(
                file = %path.display(),
                "this state is a copy of another (home {original}), and a home of its own from now on: nodes that served the \
                 original serve this one after `stagegate adopt ENVIRONMENT`"
            );
        }
        if alone {
            lock(FlockOperation::LockShared)?;
        }
        Self::over(connection, path, Some(presence))
    }

    /// A home that lives as long as this value: for simulations and tests.
    pub fn in_memory(home: &str) -> Result<Self, StoreError> {
        let path = PathBuf::from(":memory:");
        let connection = Connection::open_in_memory()
            .map_err(Fault::from)
            .and_then(|mut connection| {
                configure(&connection)?;
                schema::settle(&mut connection, &path)?;
                schema::rename_home(&connection, home)?;
                Ok(connection)
            })
            .map_err(|fault| explain(fault, "open a state in memory", &path))?;
        Self::over(connection, path, None)
    }

    fn over(connection: Connection, path: PathBuf, presence: Option<File>) -> Result<Self, StoreError> {
        let home = schema::home(&connection, &path).map_err(|fault| explain(fault, "open the state", &path))?;
        Ok(Self {
            connection: Mutex::new(connection),
            path,
            home,
            _presence: presence,
        })
    }

    /// Copies the home while it is in use: to a new file of mode 0600, complete and synced before it has its name.
    /// Refused when the file exists.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        if to.exists() {
            return Err(StoreError::Exists {
                kind: "file".to_owned(),
                name: to.display().to_string(),
            });
        }
        let mut partial = to.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let copied = self
            .copy_to(&partial)
            .and_then(|()| std::fs::rename(&partial, to).map_err(place::place("name the backup", to)));
        if copied.is_err() {
            // The first error is the one to tell; what is left of the copy is removed if it can be.
            let _ = std::fs::remove_file(&partial);
        }
        copied?;
        place::sync_directory_of(to)
    }

    fn copy_to(&self, partial: &Path) -> Result<(), StoreError> {
        let tried = "back up the state";
        // A leftover of a backup that was killed.
        match std::fs::remove_file(partial) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(place::place("replace", partial)(e));
            }
            Ok(()) | Err(_) => {}
        }
        place::make_file(partial)?;
        let source = self.lock();
        let explain_copy = |e: rusqlite::Error| explain(e.into(), tried, partial);
        let mut target = Connection::open(partial).map_err(explain_copy)?;
        // All pages in one step: a step reads them under one lock, so the copy is of one moment.
        let copied = rusqlite::backup::Backup::new(&source, &mut target)
            .and_then(|backup| backup.step(-1))
            .map_err(explain_copy)?;
        if copied != StepResult::Done {
            return Err(StoreError::Locked {
                tried,
                path: self.path.clone(),
                waited_s: BUSY_TIMEOUT.as_secs(),
            });
        }
        drop(source);
        // As one file: what is written into a log beside it would be left behind.
        target
            .pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))
            .map_err(explain_copy)?;
        schema::untie(&target).map_err(explain_copy)?;
        target.close().map_err(|(_, e)| explain_copy(e))?;
        File::open(partial)
            .and_then(|file| file.sync_all())
            .map_err(place::place("sync", partial))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in a callback rolled its transaction back when it passed; the connection is as good as before.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(
        &self,
        tried: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        // IMMEDIATE: the right to write is taken first, so that nothing read here can change before the commit.
        self.transact(tried, TransactionBehavior::Immediate, work)
    }

    fn read<T>(
        &self,
        tried: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.transact(tried, TransactionBehavior::Deferred, work)
    }

    fn transact<T>(
        &self,
        tried: &'static str,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = || -> Result<T, Fault> {
            let tx = connection.transaction_with_behavior(behavior)?;
            let done = work(&tx)?;
            tx.commit()?;
            Ok(done)
        };
        run().map_err(|fault| explain(fault, tried, &self.path))
    }
}

fn open_file(path: &Path, unclean: bool) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    schema::settle(&mut connection, path)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Refused(StoreError::Foreign {
            path: path.to_owned(),
            why: format!("its journal stays in mode {mode} where WAL is needed"),
        }));
    }
    if unclean && size_of(path) <= CHECK_UP_TO_BYTES {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Fault::Refused(StoreError::Corrupt {
                path: path.to_owned(),
                why: found,
            }));
        }
    }
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), Fault> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // FULL: with WAL the default would lose the last commits in a power cut, and an intent must never be lost.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A file that somebody else prepared must not run functions of ours through its schema.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT_BYTES, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// What tells a file from every other: its number, and when it was made, since each file system counts for itself and uses
/// numbers again. Where none is kept (some file systems, old kernels) the number must do.
fn identity(path: &Path) -> std::io::Result<String> {
    let seen = std::fs::metadata(path)?;
    let made = seen.created().ok();
    let since = made.and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    Ok(format!("{} {nanoseconds}", seen.ino()))
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Puts `SQLite`'s codes into words with a remedy.
fn explain(fault: Fault, tried: &'static str, path: &Path) -> StoreError {
    let source = match fault {
        Fault::Refused(refused) => return refused,
        Fault::Sql(source) => source,
    };
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { tried, path },
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if no_space_at(&path) => {
            StoreError::Full { tried, path }
        }
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { tried, path },
        Some(ErrorCode::CannotOpen) if !may_write_in(directory_of(&path)) => StoreError::ReadOnly { tried, path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked {
            tried,
            path,
            waited_s: BUSY_TIMEOUT.as_secs(),
        },
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt {
            path,
            why: source.to_string(),
        },
        Some(ErrorCode::NotADatabase) => StoreError::Foreign {
            path,
            why: "it is no SQLite database".to_owned(),
        },
        // Not our enum: SQLite has thirty codes, and the rest of them need no other remedy than their own words.
        _ => StoreError::Sqlite { tried, path, source },
    }
}

fn no_space_at(path: &Path) -> bool {
    // The file itself may not be there yet.
    rustix::fs::statvfs(directory_of(path))
        .is_ok_and(|seen| seen.f_bavail.saturating_mul(seen.f_frsize) < FULL_BELOW_BYTES)
}

fn may_write_in(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

/// The next number of the home's one version counter.
fn next_version(tx: &Transaction<'_>) -> Result<u64, Fault> {
    let version: i64 = tx
        .prepare_cached(
            "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'resource_version'
             RETURNING CAST(value AS INTEGER)",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(unsigned(version))
}

fn encode<T: Serialize>(what: &str, value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| {
        Fault::Refused(StoreError::Unreadable {
            what: what.to_owned(),
            why: e.to_string(),
        })
    })
}

fn decode<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|e| {
        Fault::Refused(StoreError::Unreadable {
            what: what.to_owned(),
            why: e.to_string(),
        })
    })
}

/// `SQLite`'s integers are signed; nothing counted here comes near the end of them.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn time(us: i64) -> Timestamp {
    // What we wrote was in range; a file that says otherwise gets the end of time, which waits and never hurries.
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::MAX)
}

impl Store for SqliteStore {
    fn home(&self) -> &str {
        &self.home
    }

    fn resource(&self, kind: &str, name: &str) -> Result<Option<Resource>, StoreError> {
        self.read("read a resource", |tx| resources::get(tx, kind, name))
    }

    fn resources(&self, kind: &str) -> Result<Vec<Resource>, StoreError> {
        self.read("list resources", |tx| resources::list(tx, kind))
    }

    fn put_resource(
        &self,
        kind: &str,
        name: &str,
        spec: &Value,
        expect: Expect,
        now: Timestamp,
    ) -> Result<Resource, StoreError> {
        self.write("write a resource", |tx| {
            resources::put_spec(tx, kind, name, spec, expect, now)
        })
    }

    fn put_status(
        &self,
        kind: &str,
        name: &str,
        status: &Value,
        expect: Expect,
        now: Timestamp,
    ) -> Result<Resource, StoreError> {
        self.write("write a resource's status", |tx| {
            resources::put_status(tx, kind, name, status, expect, now)
        })
    }

    fn delete_resource(&self, kind: &str, name: &str, expect: Expect) -> Result<(), StoreError> {
        self.write("delete a resource", |tx| resources::delete(tx, kind, name, expect))
    }

    fn put(&self, put: &Put<'_>) -> Result<Resource, StoreError> {
        self.write("write a resource", |tx| {
            let Put {
                kind,
                name,
                spec,
                status,
                expect,
                environment,
                promotion,
                events,
                acts,
                dispatch,
                at,
            } = *put;
            let written = resources::put(tx, kind, name, spec, status, expect, at)?;
            audit::append(tx, acts)?;
            let of = events::Of {
                promotion,
                ..events::Of::environment(environment)
            };
            events::append(tx, &of, events, dispatch)?;
            Ok(written)
        })
    }

    fn audit(&self, after: u64, take: u32) -> Result<Vec<Record>, StoreError> {
        self.read("read the audit", |tx| audit::list(tx, after, take))
    }

    fn audit_head(&self) -> Result<Head, StoreError> {
        self.read("read the audit", audit::head)
    }

    fn change_build(
        &self,
        change: &BuildChange,
        event: &Event,
        dispatch: &Dispatcher<'_>,
        now: Timestamp,
    ) -> Result<Resource, StoreError> {
        self.write("mark a build", |tx| {
            let changed = resources::mark_build(tx, change, now)?;
            audit::append(tx, &[acts::marked(change)])?;
            let of = events::Of::environment(change.mark.environment());
            events::append(tx, &of, std::slice::from_ref(event), dispatch)?;
            Ok(changed)
        })
    }

    fn create_upgrade(
        &self,
        name: &str,
        spec: &UpgradeSpec,
        status: &UpgradeStatus,
        now: Timestamp,
    ) -> Result<UpgradeRecord, StoreError> {
        self.write("begin an upgrade", |tx| upgrades::create(tx, name, spec, status, now))
    }

    fn upgrade(&self, name: &str) -> Result<Option<UpgradeRecord>, StoreError> {
        self.read("read an upgrade", |tx| upgrades::get(tx, name))
    }

    fn glance(&self, name: &str) -> Result<Option<Glance>, StoreError> {
        self.read("look at an upgrade", |tx| upgrades::glance(tx, name))
    }

    fn upgrades(&self, environment: Option<&str>, last: u32) -> Result<Vec<UpgradeRecord>, StoreError> {
        self.read("list upgrades", |tx| upgrades::last(tx, environment, last))
    }

    fn unfinished(&self, environment: Option<&str>) -> Result<Vec<UpgradeRecord>, StoreError> {
        self.read("look for unfinished upgrades", |tx| {
            upgrades::unfinished(tx, environment)
        })
    }

    fn kept(&self, environment: Option<&str>) -> Result<Vec<UpgradeRecord>, StoreError> {
        self.read("look for upgrades that keep something", |tx| {
            upgrades::kept(tx, environment)
        })
    }

    fn set_wish(
        &self,
        upgrade: &str,
        wish: Wish,
        seen: Option<u64>,
        by: &str,
        events: &[Event],
        dispatch: &Dispatcher<'_>,
    ) -> Result<u64, StoreError> {
        self.write("write an operator's wish", |tx| {
            upgrades::set_wish(tx, upgrade, wish, seen, by, events, dispatch)
        })
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        self.write("write a step of the upgrade", |tx| {
            upgrades::commit(tx, &self.home, commit)
        })
    }

    fn acquire(
        &self,
        environment: &str,
        holder: &Holder,
        ttl: Duration,
        now: Timestamp,
        judge: &dyn Fn(&Holder) -> Liveness,
    ) -> Result<FencingToken, StoreError> {
        let counter = self.write("take the lease", |tx| {
            leases::acquire(tx, environment, holder, ttl, now, judge)
        })?;
        Ok(FencingToken {
            home: self.home.clone(),
            counter,
        })
    }

    fn renew(&self, environment: &str, token: &FencingToken, now: Timestamp) -> Result<(), StoreError> {
        self.write("renew the lease", |tx| {
            leases::renew(tx, &self.home, environment, token, now)
        })
    }

    fn raise(&self, environment: &str, token: &FencingToken, above: u64) -> Result<FencingToken, StoreError> {
        let counter = self.write("raise the lease's counter", |tx| {
            leases::raise(tx, &self.home, environment, token, above)
        })?;
        Ok(FencingToken {
            home: self.home.clone(),
            counter,
        })
    }

    fn release(&self, environment: &str, token: &FencingToken) -> Result<(), StoreError> {
        self.write("release the lease", |tx| {
            leases::release(tx, &self.home, environment, token)
        })
    }

    fn lease(&self, environment: &str) -> Result<Option<Lease>, StoreError> {
        self.read("read the lease", |tx| leases::get(tx, environment))
    }

    fn append(
        &self,
        environment: &str,
        upgrade: Option<&str>,
        events: &[Event],
        dispatch: &Dispatcher<'_>,
    ) -> Result<Vec<u64>, StoreError> {
        self.write("write events", |tx| {
            let stored = upgrade.map(|name| upgrades::get(tx, name)).transpose()?.flatten();
            let of = events::Of {
                environment,
                upgrade,
                promotion: stored.as_ref().and_then(|stored| stored.spec.promotion.as_deref()),
            };
            events::append(tx, &of, events, dispatch)
        })
    }

    fn copy_event(&self, copy: &EventCopy<'_>) -> Result<Option<u64>, StoreError> {
        self.write("copy an event", |tx| events::copy(tx, copy))
    }

    fn events(&self, query: &EventQuery<'_>) -> Result<Vec<EventRecord>, StoreError> {
        self.read("read events", |tx| events::list(tx, query))
    }

    fn prune(&self) -> Result<Pruned, StoreError> {
        self.write("prune the state", |tx| {
            let upgrades = upgrades::prune(tx)?;
            let events = events::prune(tx, &upgrades)?;
            let reports = outbox::prune(tx)?;
            threads::prune(tx)?;
            let attestations = attestations::prune(tx)?;
            Ok(Pruned {
                upgrades,
                events,
                reports,
                attestations,
                runs: runs::prune(tx)?,
            })
        })
    }

    fn forget_environment(&self, environment: &str, token: &FencingToken) -> Result<Pruned, StoreError> {
        self.write("forget the environment", |tx| {
            leases::check(tx, &self.home, environment, token)?;
            resources::forget_environment(tx, environment)?;
            Ok(Pruned {
                upgrades: upgrades::forget_environment(tx, environment)?,
                events: events::forget_environment(tx, environment)?,
                reports: outbox::forget_environment(tx, environment)?,
                // They belong to commits, not to environments.
                attestations: 0,
                runs: 0,
            })
        })
    }

    fn claim(
        &self,
        sink: &str,
        claimant: &str,
        now: Timestamp,
        claim_until: Timestamp,
    ) -> Result<Option<OutboxEntry>, StoreError> {
        // Most looks find nothing; those must not take the right to write from a driver.
        if self.next_due(sink)?.is_none_or(|due| due > now) {
            return Ok(None);
        }
        self.write("take a report from the outbox", |tx| {
            outbox::claim(tx, sink, claimant, now, claim_until)
        })
    }

    fn settle(&self, id: u64, claimant: &str, how: &Settlement, now: Timestamp) -> Result<(), StoreError> {
        self.write("note how a report went", |tx| {
            outbox::settle(tx, id, claimant, how, now)
        })
    }

    fn next_due(&self, sink: &str) -> Result<Option<Timestamp>, StoreError> {
        self.read("look into the outbox", |tx| outbox::next_due(tx, sink))
    }

    fn pending(&self, environment: Option<&str>, upgrade: Option<&str>) -> Result<Vec<PendingReports>, StoreError> {
        self.read("look into the outbox", |tx| outbox::pending(tx, environment, upgrade))
    }

    fn dead_letters(&self, query: &LetterQuery<'_>) -> Result<Vec<DeadLetter>, StoreError> {
        self.read("look for dead letters", |tx| outbox::dead(tx, query))
    }

    fn revive(&self, query: &LetterQuery<'_>) -> Result<u64, StoreError> {
        self.write("let dead letters wait again", |tx| outbox::revive(tx, query))
    }

    fn drop_letters(&self, query: &LetterQuery<'_>) -> Result<u64, StoreError> {
        self.write("drop dead letters", |tx| outbox::drop_dead(tx, query))
    }

    fn thread(&self, sink: &str, thread: &str) -> Result<Option<ThreadState>, StoreError> {
        self.read("look up a thread", |tx| threads::get(tx, sink, thread))
    }

    fn put_thread(&self, sink: &str, thread: &str, state: &ThreadState, now: Timestamp) -> Result<(), StoreError> {
        self.write("note how a thread stands", |tx| {
            threads::put(tx, sink, thread, state, now)
        })
    }

    fn put_attestation(&self, attestation: &Attestation) -> Result<(), StoreError> {
        self.write("keep an attestation", |tx| attestations::put(tx, attestation))
    }

    fn attestations(&self, commit: &str) -> Result<Vec<Attestation>, StoreError> {
        self.read("read attestations", |tx| attestations::of(tx, commit))
    }
}

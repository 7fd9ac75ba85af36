//! The file's identity, its versions, and how an older one becomes the present one.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{Fault, random_id};
use crate::store::StoreError;

/// `SGte`: in the file's header, so that `file` and we can tell whose database it is.
pub(super) const APPLICATION_ID: i64 = 0x5347_7465;

/// Step N brings a file of version N to version N + 1. Steps are never edited once released: add one.
pub(super) const STEPS: [&str; 7] = [
    include_str!("schema-1.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
    include_str!("schema-7.sql"),
];

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// Nothing was ever written.
    Blank,
    /// Ours, of this version.
    Ours(i64),
}

/// Makes the schema or brings it to the present version, in one transaction; refuses a file that is not ours or is newer.
/// Nothing is written to a refused file.
pub(super) fn settle(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    settle_by(&STEPS, connection, path)
}

pub(super) fn settle_by(steps: &[&str], connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    // The version that this program writes.
    let present = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if header(connection, path, present)? == Header::Ours(present) {
        return Ok(());
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Again, now that nobody else can write: another process may have been quicker.
    let from = match header(&tx, path, present)? {
        Header::Blank => 0,
        Header::Ours(version) => version,
    };
    for (version, step) in (1..).zip(steps) {
        if version > from {
            tx.execute_batch(step)?;
        }
    }
    if from == 0 {
        name_home(&tx, &random_id())?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", present)?;
    tx.commit()?;
    Ok(())
}

fn name_home(tx: &Transaction<'_>, home: &str) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO meta (key, value) VALUES ('home', ?1), ('resource_version', '0')",
        [home],
    )?;
    Ok(())
}

/// Gives a home another identity.
pub(super) fn rename_home(connection: &Connection, home: &str) -> rusqlite::Result<()> {
    connection.execute("UPDATE meta SET value = ?1 WHERE key = 'home'", [home])?;
    Ok(())
}

/// Ties the home to the file that it was made in. What lies in another one is a copy (a backup that was put back, a file that
/// was copied or carried to another machine): it remembers less than the nodes of the original, which may live on beside it, so
/// it becomes a home of its own, and nodes serve it once somebody says so. Answers whose copy it is.
pub(super) fn tie(connection: &mut Connection, file: &str) -> Result<Option<String>, Fault> {
    let tied = |connection: &Connection| {
        let value = "SELECT value FROM meta WHERE key = 'file'";
        connection
            .query_row(value, [], |row| row.get::<_, String>(0))
            .optional()
    };
    if tied(connection)?.as_deref() == Some(file) {
        return Ok(None);
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let copied = match tied(&tx)? {
        Some(other) if other != file => {
            let original = tx.query_row("SELECT value FROM meta WHERE key = 'home'", [], |row| row.get(0))?;
            rename_home(&tx, &random_id())?;
            // Who drove the original drives nothing here.
            tx.execute("UPDATE leases SET holder = NULL", [])?;
            Some(original)
        }
        Some(_) | None => None,
    };
    tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('file', ?1)", [file])?;
    tx.commit()?;
    Ok(copied)
}

/// Makes a copy known as one wherever it is put, be it over the original's own file.
pub(super) fn untie(copy: &Connection) -> rusqlite::Result<()> {
    copy.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES ('file', 'a backup')",
        [],
    )?;
    Ok(())
}

/// The home's identity.
pub(super) fn home(connection: &Connection, path: &Path) -> Result<String, Fault> {
    connection
        .query_row("SELECT value FROM meta WHERE key = 'home'", [], |row| row.get(0))
        .optional()?
        .ok_or_else(|| {
            Fault::Refused(StoreError::Corrupt {
                path: path.to_owned(),
                why: "it has no home identity".to_owned(),
            })
        })
}

fn header(connection: &Connection, path: &Path, present: i64) -> Result<Header, Fault> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let foreign = |why: String| {
        Fault::Refused(StoreError::Foreign {
            path: path.to_owned(),
            why,
        })
    };
    match (application, version) {
        (0, 0) if objects == 0 => Ok(Header::Blank),
        (APPLICATION_ID, version) if version > present => Err(Fault::Refused(StoreError::Newer {
            path: path.to_owned(),
            found: version,
            known: present,
        })),
        (APPLICATION_ID, version) if version > 0 => Ok(Header::Ours(version)),
        (application, version) => Err(foreign(format!(
            "application id {application}, version {version}, {objects} objects"
        ))),
    }
}

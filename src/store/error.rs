//! What the store refuses and why, in words that say what to do next.

use std::path::{Path, PathBuf};

use super::lease::Holder;
use crate::hosts::FencingToken;
use jiff::Timestamp;

/// Why the store did not do what it was asked. Nothing of the refused call is visible afterwards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The state directory or a file in it cannot be made or opened.
    #[error(
        "cannot {tried} {path}: {source}; check the path and its owner, or set STAGEGATE_STATE to a directory of yours"
    )]
    Place {
        /// What was tried.
        tried: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read the directory, and it is not plainly ours to close.
    #[error(
        "the state directory {path} is open to others (mode {mode:03o}) and holds other files; run `chmod 700 {path}`, or set STAGEGATE_STATE to an empty directory"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory lies where file locks of two machines do not see each other.
    #[error(
        "the state directory {path} is on {kind}, where two machines can write one database at once and destroy it; set STAGEGATE_STATE to a directory on a local disk"
    )]
    NetworkFileSystem {
        /// The directory.
        path: PathBuf,
        /// What it lies on, for people.
        kind: String,
    },
    /// The file is not a state file of ours.
    #[error(
        "{path} is not a Stagegate state file ({why}); it was left alone: move it away, or set STAGEGATE_STATE to another directory"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// The file was written by a newer version.
    #[error(
        "{path} has schema version {found} and this Stagegate knows up to {known}; it was left alone: use the newer Stagegate that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The file is damaged.
    #[error(
        "{path} is damaged ({why}); stop every stagegate process, keep the file for inspection, and put the last `stagegate backup` in its place"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the check said.
        why: String,
    },
    /// No space left to write.
    #[error(
        "cannot {tried}: the disk of {directory} is full; nothing was changed, and nothing that was written before is lost: free some space there (`du -xsh {directory}/*` shows what takes it; of a state directory cache/ and the evidence/ of old upgrades may go, stagegate.db and environments/ must stay), then run the same command again",
        directory = directory_of(path).display()
    )]
    Full {
        /// What was tried.
        tried: &'static str,
        /// The state file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error(
        "cannot {tried}: {path} or its directory {directory} is read-only; nothing was changed, and nothing that was written before is lost: check owner and mode (`ls -ld {directory}`) and how its disk is mounted (`findmnt -T {directory}`), then run the same command again",
        directory = directory_of(path).display()
    )]
    ReadOnly {
        /// What was tried.
        tried: &'static str,
        /// The state file.
        path: PathBuf,
    },
    /// Another process kept the file locked for longer than we wait.
    #[error(
        "cannot {tried}: another process has kept {path} locked for {waited_s} s; nothing was changed: try again, and see who has it open with `fuser {path}`"
    )]
    Locked {
        /// What was tried.
        tried: &'static str,
        /// The state file.
        path: PathBuf,
        /// How long we waited, in seconds.
        waited_s: u64,
    },
    /// Anything else that `SQLite` says.
    #[error("cannot {tried} in {path}: {source}; nothing was changed")]
    Sqlite {
        /// What was tried.
        tried: &'static str,
        /// The state file.
        path: PathBuf,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// A stored text is not what this version reads.
    #[error("cannot read {what} from the state file: {why}; it may have been written by another version of Stagegate")]
    Unreadable {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else changed it since it was read: read again, decide again.
    #[error("{what} has changed: it is at version {found} and version {expected} was expected; read it again")]
    Conflict {
        /// What was to be changed.
        what: String,
        /// The version that the caller had read.
        expected: u64,
        /// The version that it has; 0 when it does not exist.
        found: u64,
    },
    /// The token is not the one that holds the lease: another driver has taken over, or it was released.
    #[error(
        "our token {} {} for environment {environment} is void, the lease is at {current}; another driver has taken over",
        .ours.home, .ours.counter
    )]
    Fenced {
        /// The environment.
        environment: String,
        /// The token shown.
        ours: FencingToken,
        /// The counter that the lease has now, with a word when nobody holds it.
        current: String,
    },
    /// A living driver holds the environment.
    #[error(
        "environment {environment} is held by {by} since {since:.0}; wait for it (`stagegate status -w`), or stop that process"
    )]
    Held {
        /// The environment.
        environment: String,
        /// Who.
        by: Box<Holder>,
        /// Since when.
        since: Timestamp,
    },
    /// The environment has an upgrade that is not finished.
    #[error("environment {environment} has an unfinished upgrade, {upgrade}; finish or abort it first")]
    Unfinished {
        /// The environment.
        environment: String,
        /// The unfinished upgrade.
        upgrade: String,
    },
    /// A promotion's upgrade is begun while that promotion says so.
    #[error(
        "promotion {promotion} does not begin an upgrade now: it was decided otherwise meanwhile; `stagegate why` says what keeps it"
    )]
    NotPromoted {
        /// The promotion.
        promotion: String,
    },
    /// What came of a finished upgrade stays.
    #[error("upgrade {upgrade} is finished; begin another one")]
    Finished {
        /// The upgrade.
        upgrade: String,
    },
    /// The name is taken.
    #[error("{kind} {name} exists already; choose another name")]
    Exists {
        /// What it is.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A list that is kept within bounds is full.
    #[error("{most} {what} wait already, and more are not taken; see that `stagegate serve` runs, then ask again")]
    TooMany {
        /// What waits.
        what: String,
        /// How many may.
        most: u64,
    },
    /// There is no such thing.
    #[error("there is no {kind} {name}; `stagegate get {kind}` lists what there is")]
    NotFound {
        /// What was looked for.
        kind: String,
        /// By which name.
        name: String,
    },
}

/// Where a file lies whose disk is in trouble.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        _ if path.is_dir() => path,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_in_trouble_is_named_with_what_may_go_and_that_nothing_is_lost() {
        let path = PathBuf::from("/var/lib/stagegate/stagegate.db");
        let tried = "write a step of an upgrade";
        insta::assert_snapshot!(StoreError::Full { tried, path: path.clone() }, @"cannot write a step of an upgrade: the disk of /var/lib/stagegate is full; nothing was changed, and nothing that was written before is lost: free some space there (`du -xsh /var/lib/stagegate/*` shows what takes it; of a state directory cache/ and the evidence/ of old upgrades may go, stagegate.db and environments/ must stay), then run the same command again");
        insta::assert_snapshot!(StoreError::ReadOnly { tried, path }, @"cannot write a step of an upgrade: /var/lib/stagegate/stagegate.db or its directory /var/lib/stagegate is read-only; nothing was changed, and nothing that was written before is lost: check owner and mode (`ls -ld /var/lib/stagegate`) and how its disk is mounted (`findmnt -T /var/lib/stagegate`), then run the same command again");
    }
}

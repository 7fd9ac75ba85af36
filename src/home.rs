//! The embedded home: one directory on this machine with everything that must survive.
//!
//! ```text
//! stagegate.db              what is remembered
//! environments/ENV/         nodes/NODE/ of this machine, secrets/, reports
//! artifacts/DIGEST/         a prepared build, complete or not there
//! builds/DIGEST/            where a build is being prepared
//! cache/COMPONENT/          what preparations may keep from one build to the next
//! hooks/DIGEST/             what commits' hooks are installed for
//! tools/                    programs that are fetched once
//! evidence/UPGRADE/         the records behind verdicts
//! keys/                     private keys that sign attestations
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::values::Digest;
use crate::store::sqlite::FILE_NAME;
use crate::store::{SqliteStore, StoreError};

/// An open home. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    store: Arc<SqliteStore>,
}

impl Home {
    /// Opens the home in this directory, making it if there is none.
    ///
    /// # Errors
    /// What [`SqliteStore::open`] refuses.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Arc::new(SqliteStore::open(root)?);
        // Scripts and node directories need a path that does not depend on where a process stands.
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        Ok(Self { root, store })
    }

    /// The home in this directory, for who only reads. Where there is none it is an empty one in memory, and nothing is made.
    ///
    /// # Errors
    /// As [`Home::existing`].
    pub fn look(root: &Path) -> Result<Self, StoreError> {
        if let Some(home) = Self::existing(root)? {
            return Ok(home);
        }
        Ok(Self {
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            store: Arc::new(SqliteStore::in_memory("nothing is kept here")?),
        })
    }

    /// The home in this directory, if there is one.
    ///
    /// # Errors
    /// What [`SqliteStore::open`] refuses, and a directory that does not say whether there is one: what may not be looked into is
    /// not empty.
    pub fn existing(root: &Path) -> Result<Option<Self>, StoreError> {
        let file = root.join(FILE_NAME);
        let there = file.try_exists().map_err(|source| StoreError::Place {
            tried: "look at",
            path: file.clone(),
            source,
        })?;
        there.then(|| Self::open(root)).transpose()
    }

    /// Deletes everything that a home is made of, and its directory if nothing else lies in it. Programs that were fetched stay:
    /// the hooks of this user's clones run them.
    ///
    /// # Errors
    /// As the system says.
    pub fn delete(self) -> std::io::Result<()> {
        let Self { root, store } = self;
        drop(store);
        for entry in [
            "environments",
            "artifacts",
            "builds",
            "cache",
            "hooks",
            "evidence",
            "mirrors",
            "ssh",
            "keys",
            // The write-ahead log goes before what it belongs to.
            "stagegate.db-shm",
            "stagegate.db-wal",
            "stagegate.db",
        ] {
            let entry = root.join(entry);
            let gone = if entry.is_dir() {
                std::fs::remove_dir_all(&entry)
            } else {
                std::fs::remove_file(&entry)
            };
            match gone {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why),
                Ok(()) | Err(_) => {}
            }
        }
        match std::fs::remove_dir(&root) {
            // Somebody else's files are not ours to delete, nor is a disk that is mounted there.
            Err(why) => match why.kind() {
                std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::ResourceBusy => Ok(()),
                _ => Err(why),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Where our copy of a repository that is hosted elsewhere lies.
    #[must_use]
    pub fn mirror(&self, repository: &str) -> PathBuf {
        self.root.join("mirrors").join(format!("{repository}.git"))
    }

    /// Whether no environment has anything here.
    ///
    /// # Errors
    /// As the system says.
    pub fn has_no_environment(&self) -> std::io::Result<bool> {
        match std::fs::read_dir(self.root.join("environments")) {
            Ok(mut list) => Ok(list.next().is_none()),
            Err(none) if none.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(other) => Err(other),
        }
    }

    /// What is remembered.
    pub fn store(&self) -> &Arc<SqliteStore> {
        &self.store
    }

    /// The directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// An environment's own directory.
    pub fn environment(&self, environment: &str) -> PathBuf {
        self.root.join("environments").join(environment)
    }

    /// The directory of a node of this machine.
    pub fn node(&self, environment: &str, node: &str) -> PathBuf {
        self.environment(environment).join("nodes").join(node)
    }

    /// A prepared build: it is there when it is complete.
    pub fn artifact(&self, build: &Digest) -> PathBuf {
        self.root.join("artifacts").join(build.hex())
    }

    /// Where a build is being prepared.
    pub fn preparation(&self, build: &Digest) -> PathBuf {
        self.root.join("builds").join(build.hex())
    }

    /// What preparations of a component may keep.
    pub fn cache(&self, component: &str) -> PathBuf {
        self.root.join("cache").join(component)
    }

    /// The evidence of an upgrade.
    pub fn evidence(&self, upgrade: &str) -> PathBuf {
        self.root.join("evidence").join(upgrade)
    }

    /// Private keys that sign attestations.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Sockets of SSH connections.
    pub fn connections(&self) -> PathBuf {
        self.root.join("ssh")
    }
}

/// Makes a directory and those above it, for us alone.
///
/// # Errors
/// As the system says.
pub fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_yet_there_is_nothing_and_what_cannot_be_looked_at_is_an_error() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        assert!(Home::existing(&at("not/yet")).expect("looked").is_none());
        assert!(Home::look(place.path()).is_ok());
        std::fs::write(at("file"), "").expect("written");
        std::os::unix::fs::symlink("round", at("round")).expect("made");
        for name in ["file", "file/state", "round", "round/state"] {
            let why = Home::look(&at(name)).expect_err(name).to_string();
            assert!(
                why.contains("cannot look at") && why.contains("set STAGEGATE_STATE"),
                "{name}: {why}"
            );
        }
    }
}

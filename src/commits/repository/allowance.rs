//! How much is read and held for one commit: what a push brings may be made to be endless.

use git2::Oid;

use super::{MOST_ENTRIES, MOST_HELD_BYTES, MOST_PATH_BYTES, MOST_TREES_BYTES, RepositoryError};

/// What may still be read and held for one commit.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    entries: usize,
    trees_bytes: u64,
    held_bytes: usize,
}

impl Allowance {
    pub(super) fn read(&mut self, tree: Oid, bytes: u64) -> Result<(), RepositoryError> {
        self.trees_bytes = self.trees_bytes.saturating_add(bytes);
        if self.trees_bytes > MOST_TREES_BYTES {
            return Err(RepositoryError::TreesTooLarge { tree });
        }
        Ok(())
    }

    /// Counts an entry that is new, and its name for as long as it is held.
    pub(super) fn hold(&mut self, tree: Oid, path: &[u8]) -> Result<(), RepositoryError> {
        self.entries += 1;
        self.held_bytes += path.len();
        if self.entries > MOST_ENTRIES {
            return Err(RepositoryError::TooManyEntries { tree });
        }
        if path.len() > MOST_PATH_BYTES {
            return Err(RepositoryError::PathTooLong { tree });
        }
        if self.held_bytes > MOST_HELD_BYTES {
            return Err(RepositoryError::NamesTooLong { tree });
        }
        Ok(())
    }

    pub(super) fn let_go(&mut self, path: &[u8]) {
        self.held_bytes = self.held_bytes.saturating_sub(path.len());
    }
}

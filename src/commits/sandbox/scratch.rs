//! Directories that go away with who made them, in memory where there is room.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::store::random_id;

/// Where memory is a directory on Linux.
const MEMORY: &str = "/dev/shm";
/// How their names begin.
const PREFIX: &str = "stagegate-run-";
/// What `tmpfs` says of itself (statfs(2)).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// A directory for us alone. It is locked for as long as it is used, so that what a killed process left can be told.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    _used: File,
}

impl Scratch {
    /// Makes one that can take so many bytes, in memory if there is twice that much free, else below the state directory.
    pub(super) fn make(state: &Path, bytes: u64) -> std::io::Result<Self> {
        let memory = Path::new(MEMORY);
        let on_disk = state.join("tools");
        let place = if has_room(memory, bytes.saturating_mul(2)) {
            memory
        } else {
            &on_disk
        };
        crate::home::make_private(&on_disk)?;
        forget_left(place);
        let path = place.join(format!("{PREFIX}{}", random_id()));
        crate::home::make_private(&path)?;
        let used = File::open(&path)?;
        flock(&used, FlockOperation::LockShared)?;
        Ok(Self { path, _used: used })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is when the next one is made.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn has_room(place: &Path, bytes: u64) -> bool {
    let memory = rustix::fs::statfs(place).is_ok_and(|seen| seen.f_type == TMPFS);
    let free = rustix::fs::statvfs(place).map_or(0, |seen| seen.f_bavail.saturating_mul(seen.f_frsize));
    let writable = rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok();
    memory && writable && free >= bytes
}

/// Removes what processes have left that were killed.
fn forget_left(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Another user's cannot be opened, and is not ours to remove.
        let Ok(directory) = File::open(entry.path()) else {
            continue;
        };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_goes_and_what_is_used_stays() {
        let state = tempfile::tempdir().expect("a directory");
        let place = state.path().join("tools");
        // More than any machine has in memory, so on disk.
        let used = Scratch::make(state.path(), u64::MAX / 4).expect("made");
        assert!(used.path().starts_with(&place), "{:?}", used.path());
        let left = place.join(format!("{PREFIX}left"));
        std::fs::create_dir_all(left.join("tree")).expect("made");
        std::fs::create_dir(place.join("prek-1")).expect("made");
        let second = Scratch::make(state.path(), u64::MAX / 4).expect("made");
        assert!(!left.exists() && used.path().exists() && place.join("prek-1").exists());
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }
}

//! Fills the file system of one node by a file without a name: whatever becomes of us, the kernel frees it when the last
//! descriptor is gone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Written at once: small enough to end soon when asked to, large enough to be quick.
const CHUNK: usize = 1 << 20;
/// The last of the space is taken in pieces of this size: smaller than any file system's block.
const CRUMB: usize = 512;

/// Whether a node's directory may be filled: it is a whole file system of its own, and not the one where the state lies.
/// Anything else would fill what others live on, the state file among them.
pub(super) fn check(directory: &Path, state: &Path) -> Result<(), String> {
    let look = |path: &Path| {
        std::fs::metadata(path)
            .map(|seen| seen.dev())
            .map_err(|e| format!("cannot look at {}: {e}", path.display()))
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("cannot read the mounts: {e}"))?;
    let place = directory
        .canonicalize()
        .map_err(|e| format!("cannot look at {}: {e}", directory.display()))?;
    if look(&place)? == look(state)? || !is_whole_file_system(&mounts, &place) {
        return Err(format!(
            "{} is no file system of its own, so filling it would fill the disk that others use; mount one there (`mount -t tmpfs -o size=64m tmpfs {}` before `stagegate up`)",
            directory.display(),
            directory.display()
        ));
    }
    Ok(())
}

/// Whether a file system's root is mounted exactly there, by the table of `proc_pid_mountinfo(5)`: a directory of another
/// one, bound to that place, would not do.
fn is_whole_file_system(mounts: &str, place: &Path) -> bool {
    // Space, tab, newline and backslash are octal there.
    let escaped: String = place
        .to_string_lossy()
        .chars()
        .map(|c| match c {
            ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(c)),
            other => other.to_string(),
        })
        .collect();
    let last = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(&escaped));
    last.and_then(|line| line.split(' ').nth(3)) == Some("/")
}

/// A file that grows; the space is free again when this is dropped.
pub(super) struct Filling {
    file: Arc<File>,
    end: Arc<AtomicBool>,
}

impl Filling {
    pub(super) fn begin(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!(".filling-{}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self {
            file: Arc::new(file),
            end: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Takes all space but this much.
    pub(super) async fn fill(&self, leave_bytes: u64) -> io::Result<()> {
        let (file, end) = (Arc::clone(&self.file), Arc::clone(&self.end));
        let write = move || fill(&file, &end, leave_bytes);
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // The thread that writes has the file too, and ends at its next chunk.
        self.end.store(true, Ordering::SeqCst);
    }
}

fn fill(mut file: &File, end: &AtomicBool, leave_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut at_once = CHUNK;
    while !end.load(Ordering::SeqCst) {
        let free = free_bytes(file)?;
        if free <= leave_bytes {
            return Ok(());
        }
        let wanted = usize::try_from(free - leave_bytes).unwrap_or(usize::MAX);
        match file.write(&zeros[..wanted.min(at_once)]) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::StorageFull && at_once > CRUMB => at_once = CRUMB,
            Err(e) if e.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What a process of ours may still write: root also what is reserved for it.
fn free_bytes(file: &File) -> io::Result<u64> {
    let seen = rustix::fs::fstatvfs(file)?;
    let blocks = if rustix::process::geteuid().is_root() {
        seen.f_bfree
    } else {
        seen.f_bavail
    };
    Ok(blocks.saturating_mul(seen.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_system_may_be_filled() {
        let mounts = "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      41 30 0:40 / /nodes/n1 rw - tmpfs tmpfs rw\n\
                      42 30 8:1 /srv/n2 /nodes/n2 rw - ext4 /dev/sda1 rw\n\
                      43 30 0:41 / /nodes/n\\0403 rw - tmpfs tmpfs rw\n\
                      44 30 0:42 / /nodes/n4 rw - tmpfs tmpfs rw\n\
                      45 44 8:1 /srv/n4 /nodes/n4 rw - ext4 /dev/sda1 rw\n";
        for (place, whole, why) in [
            ("/nodes/n1", true, "a file system of its own"),
            ("/nodes/n2", false, "a directory of the root file system, bound there"),
            ("/nodes/n 3", true, "a name with a space"),
            ("/nodes/n4", false, "what was mounted last counts"),
            ("/nodes/n5", false, "a plain directory"),
        ] {
            assert_eq!(is_whole_file_system(mounts, Path::new(place)), whole, "{why}");
        }
    }

    #[test]
    fn the_disk_of_the_state_is_never_filled() {
        let directory = tempfile::tempdir().expect("a directory");
        let node = directory.path().join("nodes/n1");
        std::fs::create_dir_all(&node).expect("made");
        let refused = check(&node, directory.path()).expect_err("the same file system");
        assert!(refused.contains("no file system of its own"), "{refused}");
    }
}

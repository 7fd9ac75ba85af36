//! The directory that a home lives in: local, ours alone.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::StoreError;

/// The permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Makes the directory if there is none (0700), and refuses one that others can read or other machines can write.
pub(super) fn prepare(directory: &Path, file: &Path) -> Result<(), StoreError> {
    if !directory.exists() {
        // Two first commands may race here; `recursive` makes the second a success.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(place("make the state directory", directory))?;
    }
    refuse_network(directory)?;
    close_to_others(directory, file)
}

/// An empty directory, or one that already is a home, is ours to close. Another one (somebody gave `/tmp`) is not.
fn close_to_others(directory: &Path, file: &Path) -> Result<(), StoreError> {
    let tried = "look at the state directory";
    let mode = fs::metadata(directory).map_err(place(tried, directory))?.mode() & 0o777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let empty = fs::read_dir(directory)
        .map_err(place(tried, directory))?
        .next()
        .is_none();
    if !empty && !file.exists() {
        return Err(StoreError::Open {
            path: directory.to_owned(),
            mode,
        });
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700))
        .map_err(place("close the state directory to others", directory))
}

/// Makes sure that the file exists with mode 0600, before `SQLite` would make it with another; its WAL gets the same mode.
pub(super) fn make_file(file: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(_) => sync_directory_of(file),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(file).map_err(place("look at", file))?.mode();
            if mode & OTHERS == 0 {
                return Ok(());
            }
            fs::set_permissions(file, Permissions::from_mode(0o600)).map_err(place("close to others", file))
        }
        Err(e) => Err(place("make the state file", file)(e)),
    }
}

/// Makes a new name in a directory durable.
pub(super) fn sync_directory_of(file: &Path) -> Result<(), StoreError> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    fs::File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(place("sync", directory))
}

pub(super) fn place<'a>(tried: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { tried, path },
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { tried, path },
            // Not our enum: the system has dozens, and the rest of them need no other remedy.
            _ => StoreError::Place { tried, path, source },
        }
    }
}

fn refuse_network(directory: &Path) -> Result<(), StoreError> {
    let seen = rustix::fs::statfs(directory).map_err(|e| place("look at the file system of", directory)(e.into()))?;
    let device = fs::metadata(directory)
        .map_err(place("look at the state directory", directory))?
        .dev();
    // The low 32 bits: the magic numbers are 32 bits wide and the field's width and sign differ between machines.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "only the low 32 bits carry the magic number"
    )]
    let magic = seen.f_type as u32;
    // Without /proc a FUSE file system cannot be told further, and the others need no name.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match network_kind(magic, mounted_type(&mounts, device)) {
        Some(kind) => Err(StoreError::NetworkFileSystem {
            path: directory.to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

/// File systems whose files another kernel can write at the same time, by the magic numbers of statfs(2) and
/// linux/magic.h. `SQLite`'s WAL needs shared memory between all who have the file open, which these cannot give.
const NETWORK_MAGIC: [(u32, &str); 12] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "SMB (cifs)"),
    (0xfe53_4d42, "SMB (smb2)"),
    (0x0000_517b, "SMB (smbfs)"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
];
const FUSE_MAGIC: u32 = 0x6573_5546;
/// FUSE carries local file systems too (fuse-overlayfs, ntfs-3g); these are the remote ones in use.
const NETWORK_FUSE: [&str; 13] = [
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.gcsfuse",
    "fuse.davfs",
    "fuse.davfs2",
    "fuse.curlftpfs",
    "fuse.cvmfs2",
    "fuse.eosxd",
    "virtiofs",
];

fn network_kind(magic: u32, mounted: Option<&str>) -> Option<String> {
    if let Some((_, name)) = NETWORK_MAGIC.iter().find(|(m, _)| *m == magic) {
        return Some((*name).to_owned());
    }
    mounted
        .filter(|name| magic == FUSE_MAGIC && NETWORK_FUSE.contains(name))
        .map(str::to_owned)
}

/// The type that the mount table of `proc_pid_mountinfo(5)` gives for a device.
fn mounted_type(mounts: &str, device: u64) -> Option<&str> {
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&wanted))
        .and_then(|line| line.split_once(" - "))
        .and_then(|(_, rest)| rest.split(' ').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_told_from_local_ones() {
        for (magic, mounted, refused) in [
            (0x6969, None, true),
            (0xff53_4d42, None, true),
            (0x0102_1997, None, true),
            (FUSE_MAGIC, Some("fuse.sshfs"), true),
            (FUSE_MAGIC, Some("fuse.fuse-overlayfs"), false),
            (FUSE_MAGIC, None, false),
            (0xef53, Some("ext4"), false),
            (0x0102_1994, Some("tmpfs"), false),
        ] {
            assert_eq!(network_kind(magic, mounted).is_some(), refused, "{magic:x} {mounted:?}");
        }
    }

    #[test]
    fn the_mount_table_names_the_type_of_a_device() {
        let table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     90 27 0:52 / /mnt/far rw,nosuid shared:3 - fuse.sshfs me@far:/ rw\n";
        let device = rustix::fs::makedev(0, 52);
        assert_eq!(mounted_type(table, device), Some("fuse.sshfs"));
        assert_eq!(mounted_type(table, rustix::fs::makedev(8, 1)), None);
    }
}

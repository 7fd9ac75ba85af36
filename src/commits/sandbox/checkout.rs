//! A commit as files, for hooks to look at: what git stores and nothing that attributes make of it, no link that leads out, no
//! submodules, and beside it a git directory that knows this one commit.
//!
//! It is written below an empty directory of ours, file by file through open directories, never through a link; links come
//! last.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use git2::Oid;
use rustix::fs::{CWD, Mode as Bits, OFlags, fchmod, mkdirat, openat, symlinkat};
use rustix::io::Errno;

use crate::commits::content::{Mode, links};
use crate::commits::finding::shown;
use crate::commits::repository::{Change, Repository, RepositoryError};

/// Files of one tree. The largest repositories that people check with hooks have 100,000.
pub const MOST_FILES: usize = 200_000;
/// Their bytes: half of what the work tree has.
pub const MOST_BYTES: u64 = super::bubblewrap::WORK_BYTES / 2;
/// What a link may say, as Linux has it (`PATH_MAX`).
const MOST_LINK_BYTES: u64 = 4_095;
/// Read by git before what the commit says, and stronger: no filter, no other encoding, no other line ends.
const ATTRIBUTES: &str = "* -filter -working-tree-encoding -text -ident !eol -export-ignore -export-subst\n";
/// A repository that has what it has: no hooks, no monitor, no links made by git.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfilemode = true\n\thooksPath = /dev/null\n\
                      [gc]\n\tauto = 0\n[protocol]\n\tallow = never\n";

/// Why a commit could not be written as files.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// git could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It is too large.
    #[error("the tree of {commit} has {what}, and a full run takes at most {most}")]
    TooLarge {
        /// The commit.
        commit: Oid,
        /// What there is too much of.
        what: String,
        /// How much may be.
        most: String,
    },
    /// A name that no file may have.
    #[error("the tree of {commit} names a file `{path}`, which cannot be written; `git fsck` says more")]
    Name {
        /// The commit.
        commit: Oid,
        /// The name.
        path: String,
    },
    /// The disk.
    #[error("cannot write {path}: {why}")]
    Write {
        /// What.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
}

/// A commit as files.
#[derive(Debug)]
pub struct Checkout {
    /// The files.
    pub tree: PathBuf,
    /// The git directory for it.
    pub git: PathBuf,
}

/// Writes a commit below this directory, which is empty.
///
/// # Errors
/// It is too large, has names that cannot be, or cannot be read or written. What is written so far is left to the owner of
/// the directory.
pub fn write(repository: &Repository, commit: Oid, below: &Path) -> Result<Checkout, CheckoutError> {
    let tree_id = repository.tree_of(commit)?;
    let files = repository.files_of_tree(tree_id)?;
    within_bounds(repository, commit, &files)?;
    let checkout = Checkout {
        tree: below.join("tree"),
        git: below.join("git"),
    };
    write_files(repository, commit, &files, &checkout.tree)?;
    write_git(repository, commit, tree_id, &checkout.git)?;
    Ok(checkout)
}

fn within_bounds(repository: &Repository, commit: Oid, files: &[Change]) -> Result<(), CheckoutError> {
    if files.len() > MOST_FILES {
        return Err(CheckoutError::TooLarge {
            commit,
            what: format!("{} files", files.len()),
            most: MOST_FILES.to_string(),
        });
    }
    let mut bytes = 0_u64;
    for file in files.iter().filter(|f| f.mode != Mode::Submodule) {
        bytes = bytes.saturating_add(repository.size(file.id)?);
        if bytes > MOST_BYTES {
            return Err(CheckoutError::TooLarge {
                commit,
                what: format!("more than {} MiB", MOST_BYTES >> 20),
                most: "that".to_owned(),
            });
        }
    }
    Ok(())
}

fn write_files(repository: &Repository, commit: Oid, files: &[Change], root: &Path) -> Result<(), CheckoutError> {
    let mut writer = Writer::below(root)?;
    let is_link = |file: &&Change| file.mode == Mode::Link;
    let there = files.iter().filter(|f| f.mode != Mode::Submodule);
    for file in there.clone().filter(|f| !is_link(f)) {
        let content = repository.content(file.id)?;
        writer.file(commit, file, &content)?;
    }
    // Once all files are there, no name on the way to one can be a link.
    for link in there.filter(is_link) {
        let target = repository.content(link.id)?;
        writer.link(commit, link, &target)?;
    }
    Ok(())
}

/// Writes below one directory.
struct Writer {
    root: OwnedFd,
    /// Directories that are there, by their names from the root.
    open: HashMap<Vec<u8>, OwnedFd>,
}

/// Directories that are kept open; more are opened anew.
const MOST_OPEN: usize = 256;

impl Writer {
    fn below(root: &Path) -> Result<Self, CheckoutError> {
        let failed = |why: Errno| CheckoutError::Write {
            path: root.display().to_string(),
            why: why.into(),
        };
        mkdirat(CWD, root, Bits::from_raw_mode(0o755)).map_err(failed)?;
        let root = openat(CWD, root, DIRECTORY, Bits::empty()).map_err(failed)?;
        fchmod(&root, Bits::from_raw_mode(0o755)).map_err(failed)?;
        Ok(Self {
            root,
            open: HashMap::new(),
        })
    }

    fn file(&mut self, commit: Oid, file: &Change, content: &[u8]) -> Result<(), CheckoutError> {
        let bits = if file.mode == Mode::Executable { 0o755 } else { 0o644 };
        let failed = |why: std::io::Error| CheckoutError::Write {
            path: shown(&file.path),
            why,
        };
        let (directory, name) = self.place(commit, &file.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(directory, name, flags, Bits::from_raw_mode(bits)).map_err(|e| failed(e.into()))?;
        // Whatever our own mask is: who looks at it in the sandbox is another user.
        fchmod(&opened, Bits::from_raw_mode(bits)).map_err(|e| failed(e.into()))?;
        File::from(opened).write_all(content).map_err(failed)
    }

    /// A link that stays inside is one; any other is a file with what it says, as git has it where there are no links.
    fn link(&mut self, commit: Oid, link: &Change, target: &[u8]) -> Result<(), CheckoutError> {
        let plain = target.len() as u64 <= MOST_LINK_BYTES && !target.is_empty() && !target.contains(&0);
        if !plain || target.starts_with(b"/") || links::leaves(&link.path, target) {
            let as_file = Change {
                mode: Mode::Regular,
                ..link.clone()
            };
            return self.file(commit, &as_file, target);
        }
        let (directory, name) = self.place(commit, &link.path)?;
        symlinkat(OsStr::from_bytes(target), directory, name).map_err(|why| CheckoutError::Write {
            path: shown(&link.path),
            why: why.into(),
        })
    }

    /// The directory of a file, made where it is not there, and the file's name in it.
    fn place<'p>(&mut self, commit: Oid, path: &'p [u8]) -> Result<(&OwnedFd, &'p OsStr), CheckoutError> {
        let impossible = |part: &[u8]| {
            part.is_empty() || part == b"." || part == b".." || part.contains(&0) || part.eq_ignore_ascii_case(b".git")
        };
        if path.split(|b| *b == b'/').any(impossible) {
            return Err(CheckoutError::Name {
                commit,
                path: shown(path),
            });
        }
        let Some(slash) = path.iter().rposition(|b| *b == b'/') else {
            return Ok((&self.root, OsStr::from_bytes(path)));
        };
        let (parent, name) = (&path[..slash], OsStr::from_bytes(&path[slash + 1..]));
        if !self.open.contains_key(parent) {
            let opened = self.descend(parent)?;
            if self.open.len() >= MOST_OPEN {
                self.open.clear();
            }
            self.open.insert(parent.to_vec(), opened);
        }
        Ok((self.open.get(parent).unwrap_or(&self.root), name))
    }

    fn descend(&self, parent: &[u8]) -> Result<OwnedFd, CheckoutError> {
        let failed = |why: std::io::Error| CheckoutError::Write {
            path: shown(parent),
            why,
        };
        let mut at = self.root.try_clone().map_err(failed)?;
        for part in parent.split(|b| *b == b'/').map(OsStr::from_bytes) {
            match mkdirat(at.as_fd(), part, Bits::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(why) => return Err(failed(why.into())),
            }
            at = openat(at.as_fd(), part, DIRECTORY, Bits::empty()).map_err(|e| failed(e.into()))?;
            fchmod(&at, Bits::from_raw_mode(0o755)).map_err(|e| failed(e.into()))?;
        }
        Ok(at)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A git directory in which this commit is checked out and nothing else is.
fn write_git(repository: &Repository, commit: Oid, tree: Oid, git: &Path) -> Result<(), CheckoutError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |why: std::io::Error| CheckoutError::Write { path, why }
    };
    let pack = git.join("objects/pack");
    for directory in [&pack, &git.join("refs/heads"), &git.join("info")] {
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
    }
    repository.pack(commit, &pack)?;
    for (name, text) in [
        ("HEAD", format!("{commit}\n")),
        ("config", CONFIG.to_owned()),
        ("info/attributes", ATTRIBUTES.to_owned()),
        // Its parents are not here, and git must not look for them.
        ("shallow", format!("{commit}\n")),
    ] {
        let file = git.join(name);
        std::fs::write(&file, text).map_err(failed(&file))?;
    }
    Repository::write_index(git, tree)?;
    readable_by_all(git).map_err(failed(git))
}

/// Who looks at it in the sandbox is another user, whatever our own mask is.
fn readable_by_all(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            readable_by_all(&entry.path())?;
        } else {
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use git2::{ObjectType, Odb};

    use super::*;

    /// A repository with a commit of a tree that no git would write.
    struct World {
        root: tempfile::TempDir,
        git: git2::Repository,
    }

    impl World {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a directory");
            let git = git2::Repository::init_bare(root.path().join("server.git")).expect("made");
            Self { root, git }
        }

        fn odb(&self) -> Odb<'_> {
            self.git.odb().expect("objects")
        }

        fn file(&self, text: &[u8]) -> Oid {
            self.odb().write(ObjectType::Blob, text).expect("written")
        }

        fn tree(&self, entries: &[(&str, &[u8], Oid)]) -> Oid {
            let mut raw = Vec::new();
            for (mode, name, id) in entries {
                raw.extend_from_slice(mode.as_bytes());
                raw.push(b' ');
                raw.extend_from_slice(name);
                raw.push(0);
                raw.extend_from_slice(id.as_bytes());
            }
            self.odb().write(ObjectType::Tree, &raw).expect("written")
        }

        fn checkout(&self, tree: Oid) -> Result<Checkout, CheckoutError> {
            let raw = format!("tree {tree}\nauthor A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nm\n");
            let commit = self.odb().write(ObjectType::Commit, raw.as_bytes()).expect("written");
            let repository = Repository::open_at(self.git.path()).expect("opened");
            let below = self.root.path().join(format!("out-{commit}"));
            std::fs::create_dir(&below).expect("made");
            write(&repository, commit, &below)
        }
    }

    #[test]
    fn what_git_stores_is_what_is_written() {
        let world = World::new();
        let (text, to_inside, to_outside) = (world.file(b"a\r\n$Id$"), world.file(b"../run"), world.file(b"../../x"));
        let sub = world.tree(&[
            ("120000", b"in", to_inside),
            ("120000", b"out", to_outside),
            ("100644", b"\xff\n$(x)", text),
        ]);
        let other = world.file(b"no commit");
        let tree = world.tree(&[
            (
                "100644",
                b".gitattributes",
                world.file(b"* text eol=lf ident export-ignore\n"),
            ),
            ("40000", b"d", sub),
            ("160000", b"module", other),
            ("100755", b"run", text),
        ]);
        let Checkout { tree, git } = world.checkout(tree).expect("written");
        assert_eq!(std::fs::read(tree.join("run")).expect("there"), b"a\r\n$Id$");
        assert_eq!(
            std::fs::read(tree.join("d").join(OsStr::from_bytes(b"\xff\n$(x)"))).expect("there"),
            b"a\r\n$Id$"
        );
        assert_eq!(
            std::fs::read_link(tree.join("d/in")).expect("a link"),
            Path::new("../run")
        );
        let out = std::fs::symlink_metadata(tree.join("d/out")).expect("there");
        assert!(out.is_file(), "it is a file that says where it would lead");
        assert!(!tree.join("module").exists());
        let mode = |name: &str| std::fs::metadata(tree.join(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("run"), mode(".gitattributes"), mode("d")), (0o755, 0o644, 0o755));
        assert!(git.join("index").is_file() && git.join("objects/pack").is_dir());
    }

    #[test]
    fn a_tree_that_leads_out_is_not_followed() {
        let world = World::new();
        let victim = world.root.path().join("victim");
        std::fs::create_dir(&victim).expect("made");
        let text = world.file(b"x");
        let below = world.tree(&[("100644", b"owned", text)]);
        for name in [&b".."[..], b".git", b".GIT", b"."] {
            let tree = world.tree(&[("40000", name, below)]);
            assert!(world.checkout(tree).is_err(), "{}", shown(name));
        }
        // The same name as a link and as a directory: the directory is there first.
        let link = world.file(victim.display().to_string().as_bytes());
        let inside = world.file(b"d");
        for (first, target) in [("a", link), ("b", inside)] {
            let tree = world.tree(&[
                ("120000", first.as_bytes(), target),
                ("40000", first.as_bytes(), below),
                ("40000", b"d", below),
            ]);
            assert!(world.checkout(tree).is_err(), "{first}");
        }
        assert_eq!(std::fs::read_dir(&victim).expect("there").count(), 0);
    }

    #[test]
    fn what_is_too_large_is_not_written() {
        let world = World::new();
        let large = world.file(&vec![b'x'; 16 << 20]);
        let names: Vec<String> = (0..=MOST_BYTES / (16 << 20)).map(|i| format!("f{i:04}")).collect();
        let entries: Vec<(&str, &[u8], Oid)> = names.iter().map(|name| ("100644", name.as_bytes(), large)).collect();
        let why = world.checkout(world.tree(&entries)).expect_err("too large").to_string();
        assert!(why.contains("has more than 256 MiB"), "{why}");
    }
}

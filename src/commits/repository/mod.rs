//! Reading git: what is staged, which commits are new, what each changes. Nothing here writes: a ref that libgit2 writes inside
//! a push's quarantine stays when the push is refused, and leads nowhere (pygit2#676, git-lfs#4686).

mod allowance;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use git2::{Delta, DiffOptions, ErrorCode, ObjectType, Oid, Sort, Tree, TreeEntry};

use super::content::Mode;
use allowance::Allowance;

/// Characters of a commit's name that are shown. Ten tell apart the commits of the largest repositories.
const SHORT: usize = 10;

/// Entries of trees that are compared for one commit. The largest repositories that we know have 500,000 files; a few trees that
/// name one another many times have billions, in a push of some kilobytes.
const MOST_ENTRIES: usize = 1_000_000;
/// A commit, or a tag, with its message. Rules of messages refuse what has more than 64 KiB; of what has 1 GiB, which is a MiB in
/// a push, several copies would be in memory first.
const MOST_OBJECT_BYTES: u64 = 16 << 20;
/// Bytes of a file's name with its directories: Linux's `PATH_MAX`, so that what is longer can be checked out nowhere.
const MOST_PATH_BYTES: usize = 4_096;
/// Bytes of such names that are held for one commit: 250 for each file of the largest repositories. Those that are made to be
/// long would come to 4 GB otherwise.
const MOST_HELD_BYTES: usize = 128 << 20;
/// Parents of a commit. The widest merge that we know, one of Linux (2cde51fbd0f3), has 66; each has a tree to compare.
const MOST_PARENTS: usize = 100;
/// One tree. A million entries whose names have 35 bytes have as much, and no directory that we know has a tenth of that.
const MOST_TREE_BYTES: u64 = 64 << 20;
/// Trees that are read for one commit, its parents' among them. All trees of the largest repositories have 25 MB; a merge that
/// changes every directory of both its parents reads four times that.
const MOST_TREES_BYTES: u64 = 256 << 20;
/// Refs that stand for refs: as git itself follows them (`SYMREF_MAXDEPTH`).
const MOST_NAMES_DEEP: usize = 5;
/// A name, or an address, of who wrote a commit. What is longer is nobody's, and would be kept with each verdict.
const MOST_AUTHOR_BYTES: usize = 256;

/// Why git could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// None here.
    #[error("this is no git repository; run the command inside one")]
    NoRepository,
    /// None there.
    #[error("{} is no git repository; name its directory", .0.display())]
    NoRepositoryAt(PathBuf),
    /// Not a commit.
    #[error("`{text}` names no commit here ({why}); `git rev-parse --verify {text}^{{commit}}` must print one")]
    Commit {
        /// What was asked for.
        text: String,
        /// What libgit2 said.
        why: git2::Error,
    },
    /// A commit without a directory that was asked for.
    #[error("commit {commit} has no directory `{path}`")]
    NoDirectory {
        /// The commit.
        commit: String,
        /// What was asked for.
        path: String,
    },
    /// The newer object format.
    #[error("this repository names its objects by SHA-256, which is not supported yet; nothing was checked")]
    Sha256,
    /// A clone without its history.
    #[error(
        "this repository is a shallow clone, so which commits are new cannot be known; `git fetch --unshallow` mends it"
    )]
    Shallow,
    /// Not a range.
    #[error("`{0}` names no range of commits; write A..B, as origin/main..HEAD, or one commit for all of its history")]
    Range(String),
    /// A range where there is nothing yet.
    #[error(
        "`{0}` names no commit: the branch that is checked out has none yet; `stagegate check` looks at what is staged"
    )]
    Unborn(String),
    /// More than can be compared.
    #[error("tree {tree} has more than {MOST_ENTRIES} entries that are new; no check looks at so many")]
    TooManyEntries {
        /// Where.
        tree: Oid,
    },
    /// A message that nobody wrote.
    #[error("{object} is a commit or a tag of more than {} MiB; no check reads so long a message", MOST_OBJECT_BYTES >> 20)]
    MessageTooLong {
        /// Which.
        object: Oid,
    },
    /// A name that no checkout can have.
    #[error("tree {tree} has a file whose name with its directories is longer than {MOST_PATH_BYTES} bytes")]
    PathTooLong {
        /// Where.
        tree: Oid,
    },
    /// Names that are made to fill memory.
    #[error("tree {tree} and what is below it have names of files of more than {} MiB together", MOST_HELD_BYTES >> 20)]
    NamesTooLong {
        /// Where.
        tree: Oid,
    },
    /// A directory that nobody has.
    #[error("{tree} is a tree of more than {} MiB; no check reads it", MOST_TREE_BYTES >> 20)]
    TreeTooLarge {
        /// Which.
        tree: Oid,
    },
    /// More than can be compared.
    #[error("the trees to compare with tree {tree} have more than {} MiB; no check reads so many", MOST_TREES_BYTES >> 20)]
    TreesTooLarge {
        /// Where it ended.
        tree: Oid,
    },
    /// A merge of more than anybody merges.
    #[error("commit {commit} has more than {MOST_PARENTS} parents; merge them in several commits")]
    TooManyParents {
        /// Which.
        commit: Oid,
    },
    /// Anything else.
    #[error("cannot {doing}: {why}")]
    Git {
        /// What was tried.
        doing: String,
        /// What libgit2 said.
        why: git2::Error,
    },
}

fn failed(doing: impl Into<String>) -> impl FnOnce(git2::Error) -> RepositoryError {
    let doing = doing.into();
    move |why| RepositoryError::Git { doing, why }
}

/// A repository that is only read.
pub struct Repository {
    git: git2::Repository,
}

/// A file as a commit or the index has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// Its name, from the root.
    pub path: Vec<u8>,
    /// Its mode.
    pub mode: Mode,
    /// Its content.
    pub id: Oid,
}

/// What a commit did to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing, or it added it.
    Kept,
    /// It has other content.
    Changed,
    /// It is gone.
    Removed,
    /// It is there for the first time.
    Added,
}

/// A commit, as far as rules ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitFacts {
    /// How many parents it has.
    pub parents: usize,
    /// What stands before its message: names, dates, signatures, and whatever a program has written there.
    pub header: Vec<u8>,
    /// Its message, as it is stored.
    pub message: Vec<u8>,
    /// The encoding that it names.
    pub encoding: Option<String>,
    /// What it changes: of a merge, only what is as in none of its parents.
    pub changes: Vec<Change>,
    /// Of a merge: all that is not as in its first parent, since files of two sides can be in each other's way.
    pub merged: Vec<Change>,
}

/// More commits than may be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Repository {
    /// The repository that git's variables name (`GIT_DIR`, `GIT_INDEX_FILE`, and inside a push `GIT_OBJECT_DIRECTORY`, without
    /// which none of its objects is seen), else the one around the working directory.
    ///
    /// # Errors
    /// There is none, or it is of a kind that is not supported.
    pub fn open() -> Result<Self, RepositoryError> {
        Self::opened("the repository", git2::Repository::open_from_env())
    }

    /// The repository in this directory, or around it; git's variables are not looked at.
    ///
    /// # Errors
    /// There is none, or it is of a kind that is not supported.
    pub fn open_at(directory: &Path) -> Result<Self, RepositoryError> {
        match Self::opened(&directory.display().to_string(), git2::Repository::discover(directory)) {
            Err(RepositoryError::NoRepository) => Err(RepositoryError::NoRepositoryAt(directory.to_owned())),
            other => other,
        }
    }

    fn opened(name: &str, opened: Result<git2::Repository, git2::Error>) -> Result<Self, RepositoryError> {
        match opened {
            Ok(git) => Ok(Self { git }),
            Err(why) if why.code() == ErrorCode::NotFound => Err(RepositoryError::NoRepository),
            Err(why)
                if why.message().to_lowercase().contains("object format") || why.message().contains("objectformat") =>
            {
                Err(RepositoryError::Sha256)
            }
            Err(why) => Err(failed(format!("open {name}"))(why)),
        }
    }

    /// The directory that its objects and refs are in, which linked worktrees share.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        let directory = self.git.commondir();
        directory.canonicalize().unwrap_or_else(|_| directory.to_owned())
    }

    /// The directory of what belongs to this checkout alone: of a linked worktree, its own.
    #[must_use]
    pub fn own_directory(&self) -> &Path {
        self.git.path()
    }

    /// Where a remote is.
    #[must_use]
    pub fn url_of(&self, remote: &str) -> Option<String> {
        let remote = self.git.find_remote(remote).ok()?;
        remote.url().ok().map(str::to_owned)
    }

    /// The commit that a text names as git understands it: a branch, a tag, `HEAD~2`, the beginning of a name.
    ///
    /// # Errors
    /// It names none.
    pub fn named_commit(&self, text: &str) -> Result<Oid, RepositoryError> {
        let named = self
            .git
            .revparse_single(text)
            .and_then(|object| object.peel_to_commit());
        let commit = named.map_err(|why| RepositoryError::Commit {
            text: text.to_owned(),
            why,
        })?;
        Ok(commit.id())
    }

    /// Full name of a commit's tree.
    ///
    /// # Errors
    /// The commit cannot be read.
    pub fn tree_of(&self, commit: Oid) -> Result<Oid, RepositoryError> {
        self.directory_of(commit, None)
    }

    /// A commit's tree, or what lies at a path of it.
    ///
    /// # Errors
    /// The commit cannot be read, or there is no directory.
    pub fn directory_of(&self, commit: Oid, path: Option<&str>) -> Result<Oid, RepositoryError> {
        let doing = || format!("read the tree of commit {commit}");
        self.is_readable(commit)?;
        let commit = self.git.find_commit(commit).map_err(failed(doing()))?;
        match path {
            None => Ok(commit.tree_id()),
            Some(path) => {
                let tree = self.tree(commit.tree_id())?;
                let below = self.tree_at(&tree, path.as_bytes())?.map(|tree| tree.id());
                below.ok_or_else(|| RepositoryError::NoDirectory {
                    commit: short(commit.id()),
                    path: path.to_owned(),
                })
            }
        }
    }

    /// The note that a commit of notes has about an object; none where it has none, or one of more bytes than `most`. git
    /// spreads many notes over directories by the first digits of the names (git-notes(1)).
    ///
    /// # Errors
    /// The notes cannot be read.
    pub fn note_of(&self, notes: Oid, about: Oid, most: u64) -> Result<Option<Vec<u8>>, RepositoryError> {
        let mut tree = self.tree(self.tree_of(notes)?)?;
        let name = about.to_string();
        let mut rest = name.as_str();
        while rest.len() >= 2 {
            if let Some(entry) = tree.iter().find(|e| e.name_bytes() == rest.as_bytes()) {
                let fits = self.size(entry.id())? <= most;
                return if fits {
                    self.content(entry.id()).map(Some)
                } else {
                    Ok(None)
                };
            }
            let below = tree.iter().find(|e| e.name_bytes() == &rest.as_bytes()[..2]);
            let Some(below) = below.map(|e| e.id()) else { break };
            tree = self.tree(below)?;
            rest = &rest[2..];
        }
        Ok(None)
    }

    /// Where it is: of a checkout its root, of a bare repository its directory.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        let place = self.git.workdir().unwrap_or(self.git.path());
        place.canonicalize().unwrap_or_else(|_| place.to_owned())
    }

    /// Writes the index of a git directory that is ours alone, so that it has this tree staged.
    ///
    /// # Errors
    /// The tree names what no checkout may have, or the index cannot be written.
    pub fn write_index(git: &std::path::Path, tree: Oid) -> Result<(), RepositoryError> {
        let doing = "write an index for the checkout";
        let scratch = git2::Repository::open(git).map_err(failed(doing))?;
        let tree = scratch.find_tree(tree).map_err(failed(doing))?;
        let mut index = scratch.index().map_err(failed(doing))?;
        index.read_tree(&tree).map_err(failed(doing))?;
        index.write().map_err(failed(doing))
    }

    /// Copies a commit with its tree, without its history, as one pack into another repository's `objects/pack`. Nothing is
    /// written here.
    ///
    /// # Errors
    /// An object is missing, or the pack cannot be written.
    pub fn pack(&self, commit: Oid, into: &std::path::Path) -> Result<(), RepositoryError> {
        let doing = || format!("copy commit {commit}");
        let mut pack = self.git.packbuilder().map_err(failed(doing()))?;
        pack.insert_commit(commit).map_err(failed(doing()))?;
        pack.write(into, 0o644).map_err(failed(doing()))
    }

    /// Whether part of its history is missing.
    #[must_use]
    pub fn is_shallow(&self) -> bool {
        self.git.is_shallow()
    }

    /// The directory of its checkout.
    #[must_use]
    pub fn workdir(&self) -> Option<PathBuf> {
        self.git.workdir().map(Path::to_owned)
    }

    /// Whether a merge is being committed, so that its commit will have two parents or more.
    #[must_use]
    pub fn is_merging(&self) -> bool {
        self.git.path().join("MERGE_HEAD").exists()
    }

    /// The branch that is checked out, without `refs/heads/`.
    #[must_use]
    pub fn branch(&self) -> Option<String> {
        let head = self.git.find_reference("HEAD").ok()?;
        let target = head.symbolic_target().ok()??;
        Some(target.strip_prefix("refs/heads/")?.to_owned())
    }

    /// A setting of git's.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<String> {
        self.git.config().ok()?.get_string(name).ok()
    }

    /// What is staged: all that differs from HEAD and is not deleted.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn staged(&self) -> Result<Vec<Change>, RepositoryError> {
        let head = match self.git.head() {
            Ok(head) => Some(head.peel_to_tree().map_err(failed("read HEAD"))?),
            Err(why) if matches!(why.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => None,
            Err(why) => return Err(failed("read HEAD")(why)),
        };
        let index = self.git.index().map_err(failed("read the index"))?;
        let diff = self
            .git
            .diff_tree_to_index(head.as_ref(), Some(&index), Some(&mut plain_diff()));
        Ok(changes(&diff.map_err(failed("compare the index with HEAD"))?))
    }

    /// What the commit that is being made would do to a file. A merge is asked about when it is a commit: it is known by then
    /// which side has it so.
    ///
    /// # Errors
    /// The index or HEAD cannot be read.
    pub fn staged_fate(&self, path: &str) -> Result<Fate, RepositoryError> {
        let Some((_, head)) = self.resolved("HEAD").filter(|_| !self.is_merging()) else {
            return Ok(Fate::Kept);
        };
        let before = self.place_of(head, path)?;
        let index = self.git.index().map_err(failed("read the index"))?;
        let after = index.get_path(Path::new(path), 0);
        let after = after.map(|entry| (i32::try_from(entry.mode).unwrap_or_default(), entry.id));
        Ok(if before == after {
            Fate::Kept
        } else {
            fate_of(before, after)
        })
    }

    /// All that git tracks, as the index has it.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn tracked(&self) -> Result<Vec<Change>, RepositoryError> {
        let index = self.git.index().map_err(failed("read the index"))?;
        let entries = index.iter().filter(|e| !e.id.is_zero());
        Ok(entries
            .map(|e| Change {
                path: e.path,
                mode: Mode::of(e.mode),
                id: e.id,
            })
            .collect())
    }

    /// The names in these directories of the index; the root is the empty path.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn tracked_names(
        &self,
        directories: &HashSet<Vec<u8>>,
    ) -> Result<HashMap<Vec<u8>, BTreeSet<Vec<u8>>>, RepositoryError> {
        let index = self.git.index().map_err(failed("read the index"))?;
        let mut names: HashMap<Vec<u8>, BTreeSet<Vec<u8>>> = HashMap::new();
        for entry in index.iter() {
            let mut begin = 0;
            for part in entry.path.split(|b| *b == b'/') {
                let directory = &entry.path[..begin.max(1) - 1];
                if directories.contains(directory) {
                    names.entry(directory.to_vec()).or_default().insert(part.to_vec());
                }
                begin += part.len() + 1;
            }
        }
        Ok(names)
    }

    /// The same of a commit.
    ///
    /// # Errors
    /// Its tree cannot be read.
    pub fn committed_names(
        &self,
        commit: Oid,
        directories: &HashSet<Vec<u8>>,
    ) -> Result<HashMap<Vec<u8>, BTreeSet<Vec<u8>>>, RepositoryError> {
        let root = self.tree(self.tree_of(commit)?)?;
        let mut sorted: Vec<&Vec<u8>> = directories.iter().collect();
        // Each comes after the one above it, whose entries are known by then: deep ones need no way from the root.
        sorted.sort_unstable();
        let mut known: HashMap<&[u8], HashMap<Vec<u8>, Oid>> = HashMap::new();
        let mut names = HashMap::new();
        for directory in sorted {
            let (above, name) = split(directory);
            let tree = match known.get(above) {
                Some(below) => below.get(name).map(|id| self.tree(*id)).transpose()?,
                None => self.tree_at(&root, directory)?,
            };
            let Some(tree) = tree else { continue };
            let mut below = HashMap::new();
            for entry in tree.iter().filter(|e| e.kind() == Some(ObjectType::Tree)) {
                // Of two of a name, the first is the one that `tree_at` finds.
                below.entry(entry.name_bytes().to_vec()).or_insert(entry.id());
            }
            let there = tree.iter().map(|e| e.name_bytes().to_vec()).collect();
            names.insert(directory.clone(), there);
            known.insert(directory, below);
        }
        Ok(names)
    }

    fn tree_at<'r>(&'r self, root: &Tree<'r>, directory: &[u8]) -> Result<Option<Tree<'r>>, RepositoryError> {
        let mut tree = root.clone();
        for part in directory.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let below = tree.iter().find(|e| e.name_bytes() == part);
            let Some(id) = below.filter(|e| e.kind() == Some(ObjectType::Tree)).map(|e| e.id()) else {
                return Ok(None);
            };
            tree = self.tree(id)?;
        }
        Ok(Some(tree))
    }

    /// A tree, if it is of a size to be read: libgit2 has no bound.
    fn tree(&self, id: Oid) -> Result<Tree<'_>, RepositoryError> {
        if self.size(id)? > MOST_TREE_BYTES {
            return Err(RepositoryError::TreeTooLarge { tree: id });
        }
        self.git.find_tree(id).map_err(failed(format!("read tree {id}")))
    }

    /// The size of an object.
    ///
    /// # Errors
    /// It is not there.
    pub fn size(&self, id: Oid) -> Result<u64, RepositoryError> {
        let odb = self.git.odb().map_err(failed("read objects"))?;
        let (size, _) = odb.read_header(id).map_err(failed(format!("read object {id}")))?;
        Ok(size as u64)
    }

    /// A file's content.
    ///
    /// # Errors
    /// It is not there.
    pub fn content(&self, id: Oid) -> Result<Vec<u8>, RepositoryError> {
        let blob = self.git.find_blob(id).map_err(failed(format!("read object {id}")))?;
        Ok(blob.content().to_vec())
    }

    /// A commit.
    ///
    /// # Errors
    /// It or a tree of it cannot be read.
    pub fn commit(&self, id: Oid) -> Result<CommitFacts, RepositoryError> {
        let doing = || format!("read commit {id}");
        self.is_readable(id)?;
        let commit = self.git.find_commit(id).map_err(failed(doing()))?;
        if commit.parent_count() > MOST_PARENTS {
            return Err(RepositoryError::TooManyParents { commit: id });
        }
        let mut before: Vec<Oid> = Vec::new();
        for parent in commit.parent_ids() {
            let tree = self.tree_of(parent)?;
            if !before.contains(&tree) {
                before.push(tree);
            }
        }
        // One allowance for all parents together: a commit names as many as it likes.
        let mut allowance = Allowance::default();
        let mut of_all: Option<Vec<Change>> = None;
        let mut merged = Vec::new();
        let is_merge = before.len() > 1;
        for before in before {
            let changed = self.changed(Some(before), commit.tree_id(), &mut allowance)?;
            if is_merge && of_all.is_none() {
                merged.clone_from(&changed);
            }
            of_all = Some(match of_all {
                None => changed,
                Some(so_far) => {
                    let changed: HashSet<Change> = changed.into_iter().collect();
                    so_far.into_iter().filter(|c| changed.contains(c)).collect()
                }
            });
        }
        let changes = match of_all {
            Some(changes) => changes,
            None => self.changed(None, commit.tree_id(), &mut allowance)?,
        };
        let (header, message) = self.header_and_message(id)?;
        Ok(CommitFacts {
            parents: commit.parent_count(),
            header,
            message,
            encoding: commit.message_encoding().ok().flatten().map(str::to_owned),
            changes,
            merged,
        })
    }

    /// A commit's two parts with all their bytes: libgit2's own message ends at the first byte that is zero.
    fn header_and_message(&self, id: Oid) -> Result<(Vec<u8>, Vec<u8>), RepositoryError> {
        let mut header = self.raw(id)?;
        let Some(end) = header.windows(2).position(|pair| pair == b"\n\n") else {
            return Ok((header, Vec::new()));
        };
        let message = header.split_off(end + 2);
        Ok((header, message))
    }

    fn raw(&self, id: Oid) -> Result<Vec<u8>, RepositoryError> {
        let odb = self.git.odb().map_err(failed("read objects"))?;
        let raw = odb.read(id).map_err(failed(format!("read object {id}")))?;
        Ok(raw.data().to_vec())
    }

    /// What a tree has that another has not, by name. libgit2's own comparison has no bound, and git2 panics on modes that no git
    /// of today writes.
    fn changed(
        &self,
        before: Option<Oid>,
        after: Oid,
        allowance: &mut Allowance,
    ) -> Result<Vec<Change>, RepositoryError> {
        let mut changes = Vec::new();
        if before == Some(after) {
            return Ok(changes);
        }
        let mut open = vec![(Vec::new(), before, after)];
        while let Some((above, before, after)) = open.pop() {
            allowance.let_go(&above);
            for id in before.into_iter().chain([after]) {
                allowance.read(after, self.size(id)?)?;
            }
            let (before, tree) = (before.map(|id| self.tree(id)).transpose()?, self.tree(after)?);
            for entry in &tree {
                // One that is out of order is not found here, and so is looked at.
                let was = before.as_ref().and_then(|b| b.get_name_bytes(entry.name_bytes()));
                let same = |was: &TreeEntry| was.id() == entry.id() && was.filemode_raw() == entry.filemode_raw();
                if was.as_ref().is_some_and(same) {
                    continue;
                }
                let path = below(&above, entry.name_bytes());
                allowance.hold(after, &path)?;
                if entry.kind() == Some(ObjectType::Tree) {
                    let was = was.filter(|was| was.kind() == Some(ObjectType::Tree));
                    open.push((path, was.map(|was| was.id()), entry.id()));
                } else {
                    changes.push(Change {
                        path,
                        mode: Mode::of(u32::try_from(entry.filemode_raw()).unwrap_or_default()),
                        id: entry.id(),
                    });
                }
            }
        }
        changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// Every file below a tree.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn files_of_tree(&self, id: Oid) -> Result<Vec<Change>, RepositoryError> {
        self.changed(None, id, &mut Allowance::default())
    }

    /// The signature under a commit, with what it signs.
    #[must_use]
    pub fn signature(&self, id: Oid) -> Option<(Vec<u8>, Vec<u8>)> {
        let (signature, signed) = self.git.extract_signature(&id, None).ok()?;
        Some((signature.to_vec(), signed.to_vec()))
    }

    /// Whether one commit can be reached from another.
    #[must_use]
    pub fn is_ancestor(&self, ancestor: Oid, of: Oid) -> bool {
        ancestor == of || self.git.graph_descendant_of(of, ancestor).unwrap_or(false)
    }

    /// A commit by its full name, if it is here.
    #[must_use]
    pub fn known_commit(&self, name: &str) -> Option<Oid> {
        let id = Oid::from_str(name).ok()?;
        self.git.find_commit(id).ok().map(|c| c.id())
    }

    /// What can be reached from `tips` and not from `hidden`, the oldest first, if it is at most so many.
    ///
    /// # Errors
    /// History cannot be read.
    pub fn between(
        &self,
        tips: &[Oid],
        hidden: &[Oid],
        most: usize,
    ) -> Result<Result<Vec<Oid>, TooMany>, RepositoryError> {
        let doing = "walk through history";
        // Looked at twice: to sort it, libgit2 has to read all of it first.
        for sort in [Sort::NONE, Sort::TOPOLOGICAL | Sort::REVERSE] {
            let mut walk = self.git.revwalk().map_err(failed(doing))?;
            walk.set_sorting(sort).map_err(failed(doing))?;
            for tip in tips {
                walk.push(*tip).map_err(failed(doing))?;
            }
            for hide in hidden {
                walk.hide(*hide).map_err(failed(doing))?;
            }
            let ids: Result<Vec<Oid>, _> = walk.take(most + 1).collect();
            let ids = ids.map_err(failed(doing))?;
            if ids.len() > most {
                return Ok(Err(TooMany));
            }
            if ids.is_empty() || sort != Sort::NONE {
                return Ok(Ok(ids));
            }
        }
        Ok(Ok(Vec::new()))
    }

    /// The two ends of `A..B`; of one commit, which stands for itself and all before it as git's own log takes it, the first is
    /// missing.
    ///
    /// # Errors
    /// It is no range of commits.
    pub fn range(&self, text: &str) -> Result<(Option<Oid>, Oid), RepositoryError> {
        let bad = || match self.git.head() {
            Err(why) if why.code() == ErrorCode::UnbornBranch && text.contains("HEAD") => {
                RepositoryError::Unborn(text.to_owned())
            }
            Ok(_) | Err(_) => RepositoryError::Range(text.to_owned()),
        };
        if text.contains("...") {
            return Err(bad());
        }
        if !text.contains("..") {
            return self.named_commit(text).map(|to| (None, to)).map_err(|_| bad());
        }
        let spec = self.git.revparse(text).map_err(|_| bad())?;
        let end = |object: Option<&git2::Object>| Some(object?.peel_to_commit().ok()?.id());
        match (end(spec.from()), end(spec.to())) {
            (Some(from), Some(to)) => Ok((Some(from), to)),
            (None, _) | (_, None) => Err(bad()),
        }
    }

    /// Who wrote a commit, as it says: name and address, each without what is beyond [`MOST_AUTHOR_BYTES`].
    #[must_use]
    pub fn author(&self, id: Oid) -> String {
        let read = self.is_readable(id).is_ok().then(|| self.git.find_commit(id).ok());
        let Some(commit) = read.flatten() else {
            return String::new();
        };
        let author = commit.author();
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(MOST_AUTHOR_BYTES)]).into_owned();
        format!("{} <{}>", text(author.name_bytes()), text(author.email_bytes()))
    }

    /// Every ref with the commit that it leads to. Those that lead to none (a tag of a file) are left out, and symbolic ones,
    /// for what they name is there, too.
    ///
    /// # Errors
    /// Refs cannot be read.
    pub fn refs(&self) -> Result<Vec<(String, Oid)>, RepositoryError> {
        let mut found = Vec::new();
        for reference in self.git.references().map_err(failed("read refs"))? {
            // One that leads nowhere hides nothing.
            let Ok(reference) = reference else { continue };
            if reference.target().is_none() {
                continue;
            }
            if let Ok(commit) = reference.peel_to_commit() {
                let name = String::from_utf8_lossy(reference.name_bytes()).into_owned();
                found.push((name, commit.id()));
            }
        }
        Ok(found)
    }

    /// What a ref names, also by way of others.
    #[must_use]
    pub fn resolved(&self, name: &str) -> Option<(String, Oid)> {
        let reference = self.git.find_reference(name).ok()?.resolve().ok()?;
        Some((reference.name().ok()?.to_owned(), reference.target()?))
    }

    /// What a symbolic ref names, whether that is there or not.
    #[must_use]
    pub fn symbolic(&self, name: &str) -> Option<String> {
        let reference = self.git.find_reference(name).ok()?;
        reference.symbolic_target().ok().flatten().map(str::to_owned)
    }

    /// What a ref's name stands for on this side: that of the branch, where the owner has made it another name of one.
    #[must_use]
    pub fn real_name(&self, name: &str) -> String {
        let mut real = name.to_owned();
        for _ in 0..MOST_NAMES_DEEP {
            match self.symbolic(&real) {
                Some(next) => real = next,
                None => break,
            }
        }
        real
    }

    /// A file of a commit, or what a link there holds.
    ///
    /// # Errors
    /// The commit cannot be read.
    pub fn file(&self, commit: Oid, path: &str) -> Result<Option<Vec<u8>>, RepositoryError> {
        Ok(self.entry(commit, path)?.map(|(_, bytes)| bytes))
    }

    /// The same with its mode.
    ///
    /// # Errors
    /// The commit cannot be read.
    pub fn entry(&self, commit: Oid, path: &str) -> Result<Option<(Mode, Vec<u8>)>, RepositoryError> {
        let root = self.tree(self.tree_of(commit)?)?;
        let (above, name) = split(path.as_bytes());
        let Some(tree) = self.tree_at(&root, above)? else {
            return Ok(None);
        };
        match tree.get_name_bytes(name) {
            Some(entry) if entry.kind() == Some(ObjectType::Blob) => {
                let mode = Mode::of(u32::try_from(entry.filemode_raw()).unwrap_or_default());
                Ok(Some((mode, self.content(entry.id())?)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// What became of a file in a commit. A merge that has it from one of its parents has done nothing to it.
    ///
    /// # Errors
    /// It or a parent cannot be read.
    pub fn fate(&self, id: Oid, path: &str) -> Result<Fate, RepositoryError> {
        let after = self.place_of(id, path)?;
        let parents = self.parents(id)?;
        let mut before = Vec::new();
        for parent in parents {
            before.push(self.place_of(parent, path)?);
        }
        // A first commit begins with what it has.
        if before.is_empty() || before.contains(&after) {
            return Ok(Fate::Kept);
        }
        Ok(fate_of(before.into_iter().flatten().next(), after))
    }

    /// What became of a file from one commit to another.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn fate_between(&self, old: Oid, new: Oid, path: &str) -> Result<Fate, RepositoryError> {
        let (before, after) = (self.place_of(old, path)?, self.place_of(new, path)?);
        Ok(if before == after {
            Fate::Kept
        } else {
            fate_of(before, after)
        })
    }

    /// Mode and content of a file, by their names: what it holds is not read.
    fn place_of(&self, commit: Oid, path: &str) -> Result<Option<(i32, Oid)>, RepositoryError> {
        let root = self.tree(self.tree_of(commit)?)?;
        let (above, name) = split(path.as_bytes());
        let Some(tree) = self.tree_at(&root, above)? else {
            return Ok(None);
        };
        Ok(tree
            .get_name_bytes(name)
            .map(|entry| (entry.filemode_raw(), entry.id())))
    }

    /// The commits that a commit was made from; none of a first one.
    ///
    /// # Errors
    /// It cannot be read, or names more than are followed.
    pub fn parents(&self, id: Oid) -> Result<Vec<Oid>, RepositoryError> {
        self.is_readable(id)?;
        let commit = self.git.find_commit(id).map_err(failed(format!("read commit {id}")))?;
        if commit.parent_count() > MOST_PARENTS {
            return Err(RepositoryError::TooManyParents { commit: id });
        }
        Ok(commit.parent_ids().collect())
    }

    /// What an object is, and for a tag what it says and leads to.
    ///
    /// # Errors
    /// It is not there.
    pub fn object(&self, id: Oid) -> Result<Object, RepositoryError> {
        let odb = self.git.odb().map_err(failed("read objects"))?;
        let (_, kind) = odb.read_header(id).map_err(failed(format!("read object {id}")))?;
        Ok(match kind {
            ObjectType::Commit => Object::Commit,
            ObjectType::Tree => Object::Tree,
            ObjectType::Tag => {
                self.is_readable(id)?;
                let tag = self.git.find_tag(id).map_err(failed(format!("read tag {id}")))?;
                Object::Tag {
                    text: self.raw(id)?,
                    target: tag.target_id(),
                }
            }
            ObjectType::Blob | ObjectType::Any => Object::Blob,
        })
    }

    /// Whether a commit or tag is of a size to be read whole.
    fn is_readable(&self, object: Oid) -> Result<(), RepositoryError> {
        if self.size(object)? <= MOST_OBJECT_BYTES {
            return Ok(());
        }
        Err(RepositoryError::MessageTooLong { object })
    }

    /// Names of the remotes.
    #[must_use]
    pub fn remotes(&self) -> Vec<String> {
        let names = self.git.remotes();
        names
            .iter()
            .flat_map(|all| all.iter())
            .filter_map(|n| n.ok().flatten().map(str::to_owned))
            .collect()
    }
}

/// An object that a ref can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A commit.
    Commit,
    /// A directory.
    Tree,
    /// A file.
    Blob,
    /// An annotated tag.
    Tag {
        /// All of it: header and message.
        text: Vec<u8>,
        /// What it names.
        target: Oid,
    },
}

fn fate_of<T>(before: Option<T>, after: Option<T>) -> Fate {
    match (before, after) {
        (None, None) => Fate::Kept,
        (None, Some(_)) => Fate::Added,
        (Some(_), None) => Fate::Removed,
        (Some(_), Some(_)) => Fate::Changed,
    }
}

/// A commit's name as it is shown.
#[must_use]
pub fn short(id: Oid) -> String {
    let mut name = id.to_string();
    name.truncate(SHORT);
    name
}

/// The directory that a name is in, and its last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

fn below(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() {
        return name.to_vec();
    }
    [above, name].join(&b'/')
}

fn plain_diff() -> DiffOptions {
    let mut options = DiffOptions::new();
    options
        .include_typechange(true)
        .context_lines(0)
        .skip_binary_check(true);
    options
}

fn changes(diff: &git2::Diff) -> Vec<Change> {
    let there = diff.deltas().filter(|d| d.status() != Delta::Deleted);
    there
        .filter_map(|delta| {
            let file = delta.new_file();
            // What is only announced (`git add --intent-to-add`) has no content yet.
            let announced = file.id().is_zero();
            (!announced).then(|| Change {
                path: file.path_bytes().unwrap_or_default().to_vec(),
                mode: Mode::of(u32::from(file.mode())),
                id: file.id(),
            })
        })
        .collect()
}

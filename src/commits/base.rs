//! Which policy holds: the protected base's, never that of what is being checked.

use std::path::Path;

use super::policy::{InvalidPolicy, PATH, Policy};
use super::repository::{Repository, RepositoryError, short};

/// The branches that are looked for where HEAD names none that is there, as in a repository that waits for its first push.
const USUAL: [&str; 2] = ["main", "master"];

/// Why there is no policy to go by.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// git could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The policy cannot be read: nothing can be judged by it.
    #[error("{invalid}\nnothing was checked, since the commit policy is not valid ({place}){hint}")]
    Invalid {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        invalid: InvalidPolicy,
        /// What to do.
        hint: &'static str,
    },
    /// A file that was named.
    #[error("cannot read the policy {path}: {why}")]
    Unreadable {
        /// Which.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
}

/// The policy, and the branch that it comes from.
#[derive(Debug, Clone)]
pub struct Base {
    /// The branch, as a full ref, if there is one yet.
    pub branch: Option<String>,
    /// Its commit, as it is here; none where the checkout's own files are gone by.
    pub tip: Option<git2::Oid>,
    /// Branches that are not there, as full refs: each would be the one that the policy comes from as soon as somebody pushed it.
    pub would_be: Vec<String>,
    /// The policy.
    pub policy: Policy,
    /// Where it was found, for people.
    pub source: String,
    /// What people should know about that.
    pub note: Option<String>,
}

impl Base {
    /// That of a repository, whichever kind it is: one with a checkout is a developer's.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub fn of(repository: &Repository) -> Result<Self, BaseError> {
        match repository.workdir() {
            Some(_) => Self::of_clone(repository),
            None => Self::of_server(repository),
        }
    }

    /// That of a server: the branch that HEAD names, as it is before the push, and its policy; the built-in one where there
    /// is none.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub fn of_server(repository: &Repository) -> Result<Self, BaseError> {
        let (branch, tip) = Self::of_bare(repository);
        let (Some(branch), Some(tip)) = (branch.clone(), tip) else {
            return Ok(Self {
                branch,
                tip: None,
                would_be: Vec::new(),
                policy: Policy::built_in(),
                source: "built in, since the repository has no branch yet".to_owned(),
                note: None,
            });
        };
        let hint = "; who owns the server gives a valid one with `pre-receive --policy FILE`, and has it pushed";
        let found = committed(repository, &branch, tip, hint)?;
        let (policy, source) = found.unwrap_or_else(|| {
            let source = format!("built in, since {branch} at {} has no {PATH}", short(tip));
            (Policy::built_in(), source)
        });
        let before = candidates(repository).into_iter().take_while(|name| *name != branch);
        Ok(Self {
            would_be: before.filter(|name| repository.resolved(name).is_none()).collect(),
            branch: Some(branch),
            tip: Some(tip),
            policy,
            source,
            note: None,
        })
    }

    /// The branch that a server protects, and where it is, if it is anywhere yet.
    #[must_use]
    pub fn of_bare(repository: &Repository) -> (Option<String>, Option<git2::Oid>) {
        match candidates(repository).iter().find_map(|name| repository.resolved(name)) {
            Some((branch, tip)) => (Some(branch), Some(tip)),
            None => (repository.symbolic("HEAD"), None),
        }
    }

    /// The protected branch as far as a repository knows it: a clone as its remote last had it, any other as it is there.
    #[must_use]
    pub fn known_to(repository: &Repository) -> (Option<String>, Option<git2::Oid>) {
        match tracked_base(repository) {
            Some((name, tip)) => (local_name(&name), Some(tip)),
            None => Self::of_bare(repository),
        }
    }

    /// That of a branch as a commit of it has it; the built-in policy where the commit has none, or there was no commit yet.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub fn at(repository: &Repository, branch: Option<&str>, tip: Option<git2::Oid>) -> Result<Self, BaseError> {
        let hint = "; who owns the branch mends it there";
        let name = branch.unwrap_or("the base");
        let found = match tip {
            Some(tip) => committed(repository, name, tip, hint)?,
            None => None,
        };
        let (policy, source) = found.unwrap_or_else(|| {
            let source = tip.map_or_else(
                || "built in, since there was no branch before it".to_owned(),
                |tip| format!("built in, since {name} at {} has no {PATH}", short(tip)),
            );
            (Policy::built_in(), source)
        });
        Ok(Self {
            branch: branch.map(str::to_owned),
            tip,
            would_be: Vec::new(),
            policy,
            source,
            note: None,
        })
    }

    /// That of a developer's clone: the protected branch as the remote last had it, else the checkout's own policy, which
    /// may not be what the server goes by.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub fn of_clone(repository: &Repository) -> Result<Self, BaseError> {
        let tracked = tracked_base(repository);
        let branch = tracked.as_ref().and_then(|(name, _)| local_name(name));
        let tip = tracked.as_ref().map(|(_, tip)| *tip);
        if let Some((name, tip)) = &tracked
            && let Some((policy, source)) = committed(repository, name, *tip, "; mend it there")?
        {
            return Ok(Self {
                branch,
                tip: Some(*tip),
                would_be: Vec::new(),
                policy,
                source,
                note: None,
            });
        }
        let why = match &tracked {
            Some((name, _)) => format!("{name} has none"),
            None => "no remote branch is known here".to_owned(),
        };
        let file = repository
            .workdir()
            .map(|root| root.join(PATH))
            .filter(|file| file.is_file());
        let Some(file) = file else {
            return Ok(Self {
                branch,
                tip,
                would_be: Vec::new(),
                policy: Policy::built_in(),
                source: format!("built in, since {why}, and neither has the checkout"),
                note: None,
            });
        };
        let policy = named(&file, PATH)?;
        Ok(Self {
            branch,
            tip,
            would_be: Vec::new(),
            policy,
            source: format!("{PATH} of the checkout"),
            note: Some(format!(
                "the policy is the checkout's own, since {why}; the server may go by another"
            )),
        })
    }

    /// A policy that somebody names.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_file(repository: &Repository, file: &Path) -> Result<Self, BaseError> {
        Ok(Self {
            branch: repository.symbolic("HEAD"),
            tip: repository.resolved("HEAD").map(|(_, tip)| tip),
            would_be: Vec::new(),
            policy: named(file, &file.display().to_string())?,
            source: file.display().to_string(),
            note: None,
        })
    }

    /// Whether a ref, by its full name, is a protected branch.
    #[must_use]
    pub fn protects(&self, reference: &str) -> bool {
        let branch = reference.strip_prefix("refs/heads/");
        self.branch.as_deref() == Some(reference) || branch.is_some_and(|b| self.policy.protects(b))
    }

    /// Whether a ref, by its full name, may be deleted or rewound although it is protected.
    #[must_use]
    pub fn may_rewind(&self, reference: &str) -> bool {
        let name = reference
            .strip_prefix("refs/heads/")
            .or(reference.strip_prefix("refs/"));
        name.is_some_and(|name| self.policy.may_rewind.is_match(name))
    }
}

fn named(file: &Path, name: &str) -> Result<Policy, BaseError> {
    let text = std::fs::read(file).map_err(|why| BaseError::Unreadable {
        path: name.to_owned(),
        why,
    })?;
    Policy::read(name, &text).map_err(|invalid| BaseError::Invalid {
        place: name.to_owned(),
        invalid,
        hint: "",
    })
}

/// The branches that a server's policy may come from, the first that is there before the others.
fn candidates(repository: &Repository) -> Vec<String> {
    let usual = USUAL.map(|name| format!("refs/heads/{name}"));
    let head = Some(repository.real_name("HEAD")).filter(|name| name != "HEAD");
    head.into_iter().chain(usual).collect()
}

/// The policy that a branch has, with its place.
fn committed(
    repository: &Repository,
    branch: &str,
    tip: git2::Oid,
    hint: &'static str,
) -> Result<Option<(Policy, String)>, BaseError> {
    let Some((mode, text)) = repository.entry(tip, PATH)? else {
        return Ok(None);
    };
    let place = format!("{PATH} of {branch} at {}", short(tip));
    // What a link holds is a name, and no policy; without one the built-in policy would hold, which nobody asked for.
    let read = if mode.is_file() {
        Policy::read(PATH, &text)
    } else {
        Err(InvalidPolicy::no_file(PATH))
    };
    match read {
        Ok(policy) => Ok(Some((policy, place))),
        Err(invalid) => Err(BaseError::Invalid { place, invalid, hint }),
    }
}

/// The remote's default branch, as it was last fetched: of the remote that the current branch follows, else of `origin`, else
/// of the only one.
fn tracked_base(repository: &Repository) -> Option<(String, git2::Oid)> {
    let followed = repository
        .branch()
        .and_then(|branch| repository.setting(&format!("branch.{branch}.remote")));
    let remotes = repository.remotes();
    let remote = followed
        .filter(|name| remotes.contains(name))
        .or_else(|| remotes.iter().find(|name| *name == "origin").cloned())
        .or_else(|| remotes.first().filter(|_| remotes.len() == 1).cloned())?;
    ["HEAD", USUAL[0], USUAL[1]]
        .iter()
        .find_map(|name| repository.resolved(&format!("refs/remotes/{remote}/{name}")))
}

/// What the remote calls a branch that is tracked here: `refs/remotes/origin/main` is `refs/heads/main` there.
fn local_name(tracking: &str) -> Option<String> {
    let (_, branch) = tracking.strip_prefix("refs/remotes/")?.split_once('/')?;
    Some(format!("refs/heads/{branch}"))
}

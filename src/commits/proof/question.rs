//! What has to be proven of a commit, as its repository stands now.

use std::path::Path;

use git2::Oid;

use super::HookRun;
use super::judge::{Question, RequiredHook};
use super::verdict::{Passed, Subject};
use crate::commits::base::Base;
use crate::commits::finding::{Level, Rule};
use crate::commits::hooks::{self, Listed};
use crate::commits::policy::TrustFor;
use crate::commits::repository::{Repository, RepositoryError};

/// Why it cannot be said what has to be proven.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// git could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The configuration of the hooks cannot be read, so which of them are mandatory is not known.
    #[error("nothing can be proven, since the configuration of the hooks is not valid: {0}")]
    Hooks(String),
}

/// What is asked of a commit.
///
/// # Errors
/// git or the configuration of the hooks could not be read.
pub fn about(repository: &Repository, base: &Base, commit: Oid, trust: TrustFor) -> Result<Question, QuestionError> {
    Ok(Question {
        subject: subject(repository, base, commit)?,
        policy: base.policy.digest,
        hooks: required(repository, base)?,
        trust,
    })
}

/// A commit as proofs name it.
///
/// # Errors
/// It cannot be read.
pub fn subject(repository: &Repository, base: &Base, commit: Oid) -> Result<Subject, RepositoryError> {
    Ok(Subject {
        repository: repository_name(repository, base),
        commit: commit.to_string(),
        tree: repository.tree_of(commit)?.to_string(),
    })
}

/// What proofs call a repository: as its policy says; else the address of its remote, so that a clone and its server mean the
/// same; else its own directory.
#[must_use]
pub fn repository_name(repository: &Repository, base: &Base) -> String {
    if let Some(name) = &base.policy.spec.attest.repository {
        return name.clone();
    }
    let remotes = repository.remotes();
    let remote = remotes
        .iter()
        .find(|name| *name == "origin")
        .or_else(|| remotes.first().filter(|_| remotes.len() == 1));
    // What a server mirrors is its own; only a clone is of somebody else.
    let url = remote
        .filter(|_| repository.workdir().is_some())
        .and_then(|name| repository.url_of(name));
    match url {
        Some(url) if url.contains("://") => without_user(&url),
        Some(url) => {
            // A path, or `host:path` of ssh, which is no file here.
            let root = repository.workdir().unwrap_or_default();
            let path = root.join(&url).canonicalize();
            path.map_or(url, |path| path.display().to_string())
        }
        None => repository.directory().display().to_string(),
    }
}

/// An address without user and password, which are of no concern to who reads a proof (I8).
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn required(repository: &Repository, base: &Base) -> Result<Vec<RequiredHook>, QuestionError> {
    let listed = listed(repository, base)?;
    let of_listed = listed
        .into_iter()
        .map(|Listed { id, revision, .. }| RequiredHook { id, revision });
    Ok(of_listed.collect())
}

/// The hooks that the protected branch lists, where the policy makes them mandatory.
///
/// # Errors
/// git or the configuration could not be read.
pub fn listed(repository: &Repository, base: &Base) -> Result<Vec<Listed>, QuestionError> {
    if base.policy.level(Rule::Hook) != Some(Level::Refused) {
        return Ok(Vec::new());
    }
    let name = &base.policy.spec.hooks.config;
    let text = match (base.tip, repository.workdir()) {
        (Some(tip), _) => repository.file(tip, name)?,
        (None, Some(root)) => of_checkout(&root.join(name))?,
        (None, None) => None,
    };
    let Some(text) = text else { return Ok(Vec::new()) };
    hooks::listed(name, &String::from_utf8_lossy(&text), &base.policy).map_err(QuestionError::Hooks)
}

fn of_checkout(file: &Path) -> Result<Option<Vec<u8>>, QuestionError> {
    match std::fs::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(none) if none.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(QuestionError::Hooks(format!("cannot read {}: {why}", file.display()))),
    }
}

/// The hooks that native rules stand for, as a verdict lists them where those rules were content; and the ids of the rest.
#[must_use]
pub fn native_runs(listed: Vec<Listed>) -> (Vec<HookRun>, Vec<String>) {
    let (native, rest): (Vec<Listed>, Vec<Listed>) = listed.into_iter().partition(|hook| hook.native);
    let runs = native.into_iter().map(|Listed { id, revision, native }| HookRun {
        id,
        revision,
        native,
        passed: Passed::Yes,
    });
    (runs.collect(), rest.into_iter().map(|hook| hook.id).collect())
}

#[cfg(test)]
mod tests {
    use super::without_user;

    #[test]
    fn who_fetches_is_no_part_of_a_name() {
        for (url, name) in [
            ("https://git.example.org/a.git", "https://git.example.org/a.git"),
            (
                "https://me:secret@git.example.org/a@b.git",
                "https://git.example.org/a@b.git",
            ),
            ("ssh://git@git.example.org:22/a.git", "ssh://git.example.org:22/a.git"),
            ("https://x@git.example.org", "https://git.example.org"),
            ("file:///srv/a.git", "file:///srv/a.git"),
        ] {
            assert_eq!(without_user(url), name);
        }
    }
}

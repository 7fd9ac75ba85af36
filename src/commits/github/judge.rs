//! What one head of a repository at GitHub comes to, by the policy of its base.

use std::collections::HashMap;

use git2::Oid;
use jiff::Timestamp;

use super::api::Head;
use crate::commits::base::{Base, BaseError};
use crate::commits::examine::{self, Bounds, Brought, Cut, Examiner};
use crate::commits::message::{Branch, Facts, Identity, Message, Revert};
use crate::commits::proof::{self, Outcome, Subject, Verdict};
use crate::commits::repository::{Repository, RepositoryError};
use crate::commits::sandbox::Looked;
use crate::model::values::Digest;

/// Why a head cannot be judged now.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// It is not in our copy: it has moved on since it was listed, and the next look finds it.
    #[error("commit {0} is no longer where GitHub said it is")]
    Gone(String),
    /// git.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// The policy that holds for a head; or why there is none to go by, which no head passes.
///
/// # Errors
/// The base is not in our copy.
pub fn base_of(repository: &Repository, head: &Head) -> Result<Result<Base, BaseError>, JudgeError> {
    let tip = repository
        .known_commit(&head.base_commit)
        .ok_or_else(|| JudgeError::Gone(head.base_commit.clone()))?;
    let branch = format!("refs/heads/{}", head.base);
    Ok(Base::at(repository, Some(&branch), Some(tip)))
}

/// What is known of a head that its commits do not say.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Commits that an App made whom the policy exempts, with its id, as GitHub vouches for it.
    pub made_by_apps: HashMap<Oid, u64>,
    /// Such an App opened the pull request.
    pub opened_by: Option<u64>,
    /// Of a branch's tip: the last tip of the branch that passed.
    pub passed_tip: Option<Oid>,
}

/// Looks at every commit that the head would bring to its base, at all files that it has but for those that the policy spares,
/// and at the title that a squash would make of its commits. Of the tip of a branch it looks at every commit since the last tip
/// that passed, for who may go round the check has perhaps done so; where no tip has passed yet, at the tip's own.
///
/// # Errors
/// It is not in our copy.
pub fn look<'a>(
    repository: &'a Repository,
    head: &Head,
    base: &'a Base,
    known: &Known,
) -> Result<Looked<'a>, JudgeError> {
    let started_at = Timestamp::now();
    let id = commit_of(repository, head)?;
    let mut examiner = Examiner::new(repository, &base.policy, Bounds::of_whole(&base.policy));
    let gap = match look_at(repository, id, head, known, &mut examiner) {
        Ok(()) => None,
        Err(Cut::Over(why)) => Some(why),
        Err(Cut::Repository(why)) => return Err(why.into()),
    };
    Ok(Looked {
        examiner,
        gap,
        started_at,
    })
}

/// The head as proofs name it; `name` is what it is called unless its policy says so.
///
/// # Errors
/// It is not in our copy.
pub fn subject_of(repository: &Repository, name: &str, head: &Head, base: &Base) -> Result<Subject, JudgeError> {
    let named = base.policy.spec.attest.repository.as_deref();
    subject(repository, named.unwrap_or(name), commit_of(repository, head)?)
}

/// The commits of a head that are looked at, the oldest first. Over the bounds it is none, and [`look`] says so.
///
/// # Errors
/// They cannot be read.
pub fn commits(repository: &Repository, head: &Head, base: &Base, known: &Known) -> Result<Vec<Oid>, JudgeError> {
    let id = commit_of(repository, head)?;
    match examine::brought(repository, &base.policy, id, brought(repository, id, head, known)) {
        Ok(ids) => Ok(ids),
        Err(Cut::Over(_)) => Ok(Vec::new()),
        Err(Cut::Repository(why)) => Err(why.into()),
    }
}

fn commit_of(repository: &Repository, head: &Head) -> Result<Oid, JudgeError> {
    let known = repository.known_commit(&head.commit);
    known.ok_or_else(|| JudgeError::Gone(head.commit.clone()))
}

/// What a head comes to whose base has no policy that can be read: nothing passes by it.
///
/// # Errors
/// It is not in our copy.
pub fn unjudged(repository: &Repository, name: &str, head: &Head, why: &BaseError) -> Result<Verdict, JudgeError> {
    let id = commit_of(repository, head)?;
    let now = Timestamp::now();
    Ok(Verdict {
        subject: subject(repository, name, id)?,
        policy: Digest::of(why.to_string().as_bytes()),
        engine: proof::engine(),
        hooks: Vec::new(),
        outcome: Outcome::NotProven { why: why.to_string() },
        findings: Vec::new(),
        issues: Vec::new(),
        blames: Vec::new(),
        started_at: now,
        finished_at: now,
    })
}

fn subject(repository: &Repository, name: &str, id: Oid) -> Result<Subject, JudgeError> {
    Ok(Subject {
        repository: name.to_owned(),
        commit: id.to_string(),
        tree: repository.tree_of(id)?.to_string(),
    })
}

/// What a head brings to its base.
fn brought(repository: &Repository, id: Oid, head: &Head, known: &Known) -> Brought {
    if !head.is_tip() {
        return Brought::Beyond(repository.known_commit(&head.base_commit).into_iter().collect());
    }
    match known.passed_tip.filter(|tip| repository.is_ancestor(*tip, id)) {
        Some(tip) => Brought::Beyond(vec![tip]),
        None => Brought::Itself,
    }
}

fn look_at(repository: &Repository, id: Oid, head: &Head, known: &Known, examiner: &mut Examiner) -> Result<(), Cut> {
    let identity = |app: Option<u64>| app.map_or(Identity::Unknown, Identity::App);
    let made_by = |id| identity(known.made_by_apps.get(&id).copied());
    // They are judged as what they are to become: commits of the base.
    examiner.whole(id, brought(repository, id, head, known), Branch::Protected, made_by)?;
    if let Some(title) = &head.title {
        let facts = Facts {
            parents: Some(1),
            revert: Revert::Nothing,
            branch: Branch::Protected,
            identity: identity(known.opened_by),
        };
        examiner.message(Some("title"), &Message::new(title.as_bytes(), None), &facts);
    }
    Ok(())
}

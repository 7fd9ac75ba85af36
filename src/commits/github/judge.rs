//! What one head of a repository at GitHub comes to, by the policy of its base.

use std::collections::HashSet;

use git2::Oid;
use jiff::Timestamp;

use super::api::Head;
use crate::commits::base::{Base, BaseError};
use crate::commits::examine::{Bounds, Cut, Examiner};
use crate::commits::finding::{Finding, MOST_KEPT};
use crate::commits::message::{Branch, Facts, Identity, Message, Revert};
use crate::commits::proof::{self, Outcome, Subject, Verdict};
use crate::commits::repository::{Change, Repository, RepositoryError};
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

/// Looks at every commit that the head would bring to its base, and at the title that a squash would make of them. The tip of a
/// branch is judged by its files, but for those that the policy spares.
///
/// # Errors
/// It cannot be looked at.
pub fn judge(repository: &Repository, name: &str, head: &Head, base: &Base) -> Result<Verdict, JudgeError> {
    let started_at = Timestamp::now();
    let id = repository
        .known_commit(&head.commit)
        .ok_or_else(|| JudgeError::Gone(head.commit.clone()))?;
    let mut examiner = Examiner::new(repository, &base.policy, Bounds::none());
    let looked = look(repository, id, head, base, &mut examiner);
    let report = examiner.report();
    let outcome = match looked {
        Err(why) => Outcome::NotProven { why: why.to_string() },
        Ok(()) if report.findings.refuse() => Outcome::Failed,
        Ok(()) => Outcome::Passed,
    };
    Ok(Verdict {
        subject: subject(
            repository,
            base.policy.spec.attest.repository.as_deref().unwrap_or(name),
            id,
        )?,
        policy: base.policy.digest,
        engine: proof::engine(),
        hooks: Vec::new(),
        outcome,
        findings: report.findings.kept().iter().map(Finding::to_json).collect(),
        started_at,
        finished_at: Timestamp::now(),
    })
}

/// What the native rules and the full run of the hooks come to together: a pass needs both.
#[must_use]
pub fn together(native: Verdict, full: Result<Verdict, String>) -> Verdict {
    let full = match full {
        Ok(full) => full,
        Err(why) => Verdict {
            outcome: Outcome::NotProven { why },
            hooks: Vec::new(),
            findings: Vec::new(),
            ..native.clone()
        },
    };
    let mut findings = native.findings;
    for finding in full.findings {
        // Both have looked at what is new.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings.truncate(MOST_KEPT);
    Verdict {
        hooks: full.hooks,
        outcome: match (native.outcome, full.outcome) {
            (Outcome::Failed, _) | (_, Outcome::Failed) => Outcome::Failed,
            (Outcome::NotProven { why }, _) | (_, Outcome::NotProven { why }) => Outcome::NotProven { why },
            (Outcome::Passed, Outcome::Passed) => Outcome::Passed,
        },
        findings,
        finished_at: full.finished_at,
        ..native
    }
}

/// What a head comes to whose base has no policy that can be read: nothing passes by it.
///
/// # Errors
/// It is not in our copy.
pub fn unjudged(repository: &Repository, name: &str, head: &Head, why: &BaseError) -> Result<Verdict, JudgeError> {
    let id = repository
        .known_commit(&head.commit)
        .ok_or_else(|| JudgeError::Gone(head.commit.clone()))?;
    let now = Timestamp::now();
    Ok(Verdict {
        subject: subject(repository, name, id)?,
        policy: Digest::of(why.to_string().as_bytes()),
        engine: proof::engine(),
        hooks: Vec::new(),
        outcome: Outcome::NotProven { why: why.to_string() },
        findings: Vec::new(),
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

fn look(repository: &Repository, id: Oid, head: &Head, base: &Base, examiner: &mut Examiner) -> Result<(), Cut> {
    let since = base.policy.spec.since.as_deref();
    let since = since.and_then(|name| repository.known_commit(name));
    if head.commit == head.base_commit {
        let spared: HashSet<Change> = match since {
            Some(since) => repository
                .files_of_tree(repository.tree_of(since)?)?
                .into_iter()
                .collect(),
            None => HashSet::new(),
        };
        let files = repository.files_of_tree(repository.tree_of(id)?)?;
        for change in files.iter().filter(|change| !spared.contains(*change)) {
            examiner.file(None, change)?;
        }
        return Ok(());
    }
    let tip = repository.known_commit(&head.base_commit);
    let hidden: Vec<Oid> = tip.into_iter().chain(since).collect();
    let most = base.policy.spec.bounds.commits;
    let Ok(ids) = repository.between(&[id], &hidden, most)? else {
        return Err(Cut::Over(format!("more than {most} commits are new to {}", head.base)));
    };
    for id in ids {
        // They are judged as what they are to become: commits of the base.
        examiner.commit(id, Branch::Protected, &Identity::Unknown)?;
    }
    if let Some(title) = &head.title {
        let facts = Facts {
            parents: Some(1),
            revert: Revert::Nothing,
            branch: Branch::Protected,
            identity: Identity::Unknown,
        };
        examiner.message(Some("title"), &Message::new(title.as_bytes(), None), &facts);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commits::proof::{HookRun, Passed, tests::verdict};

    #[test]
    fn a_pass_needs_the_rules_and_the_hooks() {
        let of = |outcome: &Outcome, finding: &str| Verdict {
            outcome: outcome.clone(),
            findings: vec![json!("both"), json!(finding)],
            ..verdict()
        };
        let unproven = Outcome::NotProven {
            why: "no sandbox".to_owned(),
        };
        for (native, full, expected) in [
            (&Outcome::Passed, &Outcome::Passed, &Outcome::Passed),
            (&Outcome::Passed, &Outcome::Failed, &Outcome::Failed),
            (&Outcome::Failed, &unproven, &Outcome::Failed),
            (&unproven, &Outcome::Failed, &Outcome::Failed),
            (&Outcome::Passed, &unproven, &unproven),
            (&unproven, &Outcome::Passed, &unproven),
        ] {
            let both = together(of(native, "a"), Ok(of(full, "b")));
            assert_eq!(&both.outcome, expected);
            assert_eq!(both.findings, [json!("both"), json!("a"), json!("b")]);
            assert!(matches!(
                &both.hooks[..],
                [HookRun {
                    passed: Passed::Yes,
                    ..
                }]
            ));
        }
        let none = together(of(&Outcome::Passed, "a"), Err("no sandbox".to_owned()));
        assert_eq!((none.outcome, none.hooks), (unproven, Vec::new()));
    }
}

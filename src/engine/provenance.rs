//! Whether a build is of a commit whose hooks ran: its condition `HooksPassed`.
//!
//! What a build consists of is compared with the commit file by file, by mode and content: that somebody named the commit proves
//! nothing. The commit has to be on the protected branch whose policy it is judged by. The files are those of the prepared artifact,
//! which nodes get; before there is one, those of the locked set, by whose digest the artifact will be checked. So it needs no
//! directory that may have changed since, and says which file differs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::builds::{self, BuildError};
use super::session::KnownBuild;
use crate::commits::base::{Base, BaseError};
use crate::commits::content::Mode;
use crate::commits::examine::{MOST_BYTES, MOST_FILES};
use crate::commits::finding::shown;
use crate::commits::policy::{Policy, TrustFor};
use crate::commits::proof::question::{self, QuestionError};
use crate::commits::proof::{self, KeyError, Lack, Weighed, notes};
use crate::commits::repository::{Change, Repository, RepositoryError, short};
use crate::commits::tracker::{IssueCheck, IssueResult, Trackers};
use crate::home::Home;
use crate::hosts::quoted;
use crate::model::build::{BuildSpec, CommitRef, LockedPackage};
use crate::model::environment::{Component, Requirement};
use crate::model::values::Digest;
use crate::store::{Condition, ConditionStatus, Expect, Store as _, StoreError};
use crate::workspace::Workspace;

/// The condition's type.
pub const HOOKS_PASSED: &str = "HooksPassed";
/// Why it is not known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error(transparent)]
    Question(#[from] QuestionError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Artifact(#[from] BuildError),
    #[error("it is made of packages of an index, whose files cannot be compared with a commit's")]
    Packages,
    #[error("commit {commit} has more than {MOST_FILES} files or {mib} MiB, so it was not compared", mib = MOST_BYTES >> 20)]
    TooLarge { commit: String },
}

impl Unknown {
    fn reason(&self) -> &'static str {
        match self {
            Unknown::Repository(_) => "RepositoryUnreadable",
            Unknown::Base(_) | Unknown::Question(_) => "PolicyUnreadable",
            Unknown::Key(_) | Unknown::Store(_) => "StateUnreadable",
            Unknown::Artifact(_) => "ArtifactUnreadable",
            Unknown::Packages => "TreeNotComparable",
            Unknown::TooLarge { .. } => "TreeTooLarge",
        }
    }

    fn remedy(&self) -> Remedy {
        match self {
            Unknown::Repository(_)
            | Unknown::Base(_)
            | Unknown::Question(_)
            | Unknown::Key(_)
            | Unknown::Store(_)
            | Unknown::Artifact(_) => Remedy::Clear,
            Unknown::Packages | Unknown::TooLarge { .. } => Remedy::Rebuild,
        }
    }
}

/// What was found.
struct Found {
    status: ConditionStatus,
    reason: &'static str,
    message: String,
    /// What brings it to a yes; nothing where it is one.
    remedy: Option<Remedy>,
}

/// What to do about a build that is not of a proven commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// Its files are not the commit's, or cannot be.
    Rebuild,
    /// The commit is not where it has to be.
    Merge,
    /// The commit is bad.
    Mend,
    /// Something is in the way of looking.
    Clear,
    /// The commit has to be checked, and that to be signed.
    Check,
}

impl Found {
    fn yes(message: String) -> Self {
        Self {
            status: ConditionStatus::True,
            reason: "Attested",
            message,
            remedy: None,
        }
    }

    fn no(reason: &'static str, message: String, remedy: Remedy) -> Self {
        Self {
            status: ConditionStatus::False,
            reason,
            message,
            remedy: Some(remedy),
        }
    }

    fn unknown(reason: &'static str, message: String, remedy: Remedy) -> Self {
        Self {
            status: ConditionStatus::Unknown,
            ..Self::no(reason, message, remedy)
        }
    }
}

/// One build, judged when that is first asked for and then no more: what is said of it and what follows from it agree, and its
/// files, its repository and a tracker are asked once.
pub struct Judged<'a> {
    home: &'a Home,
    workspace: &'a Workspace,
    build: &'a BuildSpec,
    /// Nothing of a build that names no commit.
    found: OnceCell<Option<Found>>,
}

impl<'a> Judged<'a> {
    /// A build that is still to be judged.
    #[must_use]
    pub fn new(home: &'a Home, workspace: &'a Workspace, build: &'a BuildSpec) -> Self {
        Self {
            home,
            workspace,
            build,
            found: OnceCell::new(),
        }
    }

    /// The build.
    #[must_use]
    pub fn build(&self) -> &'a BuildSpec {
        self.build
    }

    /// The condition as it is now; none for a build that names no commit. Issues that could not be looked up when the commit was
    /// checked are looked up now.
    pub async fn condition(&self, now: Timestamp) -> Option<Condition> {
        let found = self.found().await?;
        Some(Condition {
            kind: HOOKS_PASSED.to_owned(),
            status: found.status,
            reason: found.reason.to_owned(),
            message: found.message.clone(),
            last_transition_time: now,
        })
    }

    /// The first condition that a component's rollout asks for and that is not true of it.
    pub async fn lacking(&self, component: &Component) -> Option<Lacking> {
        for requirement in &component.rollout.requires {
            match requirement {
                Requirement::HooksPassed => {
                    let lacking = Lacking::hooks(self.workspace, self.build, self.found().await);
                    if lacking.is_some() {
                        return lacking;
                    }
                }
            }
        }
        None
    }

    async fn found(&self) -> Option<&Found> {
        let judge = || async {
            let commit = self.build.commit.as_ref()?;
            let found = look(self.home, self.workspace, self.build, commit).await;
            Some(found.unwrap_or_else(|why| Found::unknown(why.reason(), why.to_string(), why.remedy())))
        };
        self.found.get_or_init(judge).await.as_ref()
    }
}

/// Computes the condition, and writes it down where it has changed. A build that somebody else changes meanwhile is left to
/// them: the condition is computed again whenever it is asked for.
///
/// # Errors
/// The state cannot be read or written.
pub async fn refreshed(
    home: &Home,
    workspace: &Workspace,
    name: &str,
    now: Timestamp,
) -> Result<Option<KnownBuild>, StoreError> {
    let (Some(mut known), Some(stored)) = (KnownBuild::find(home, name)?, home.store().resource("Build", name)?) else {
        return Ok(None);
    };
    let condition = Judged::new(home, workspace, &known.spec).condition(now).await;
    let Some(condition) = condition else {
        return Ok(Some(known));
    };
    let before = known.status.clone();
    known.status.set_condition(condition);
    if known.status != before {
        let status = serde_json::json!(known.status);
        let expect = Expect::Version(stored.resource_version);
        match home.store().put_status("Build", name, &status, expect, now) {
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(Some(known))
}

/// What a build lacks that an environment asks for: why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The condition.
    pub condition: &'static str,
    /// How it stands, in words.
    pub why: String,
    /// What to do.
    pub remedy: String,
    /// It could not be looked at, which is no yes, and no for good neither.
    pub is_unseen: bool,
}

impl Lacking {
    fn hooks(workspace: &Workspace, build: &BuildSpec, found: Option<&Found>) -> Option<Self> {
        let (Some(CommitRef { repository, commit, .. }), Some(found)) = (&build.commit, found) else {
            return Some(Self {
                condition: HOOKS_PASSED,
                why: "it names no commit".to_owned(),
                remedy:
                    "let the component's `commits` say which commit a version is, and build it as another version: a \
                         build names its commit when it is found"
                        .to_owned(),
                is_unseen: false,
            });
        };
        // It is stated relative to the workspace, and the command is typed anywhere.
        let place = workspace.root().join(repository);
        let place = std::path::absolute(&place).unwrap_or(place);
        let place = place.canonicalize().unwrap_or(place);
        let repository = quoted(&place.display().to_string());
        let remedy = match found.remedy? {
            Remedy::Rebuild => format!("build it from commit {commit} and nothing else, as another version"),
            Remedy::Merge => "merge the commit into that branch, or build one that is on it".to_owned(),
            Remedy::Mend => format!(
                "mend it in a new commit; `stagegate verdict run {commit} --repository {repository}` shows what is wrong"
            ),
            Remedy::Clear => format!("clear that away; `stagegate build show {}` looks again", build.name()),
            Remedy::Check => format!(
                "`stagegate verdict run {commit} --repository {repository}` checks the commit and signs what came of it \
                 (`stagegate attest key create` makes the key)"
            ),
        };
        Some(Self {
            condition: HOOKS_PASSED,
            why: format!("{} ({}): {}", found.status, found.reason, found.message),
            remedy,
            is_unseen: found.remedy == Some(Remedy::Clear),
        })
    }
}

async fn look(home: &Home, workspace: &Workspace, build: &BuildSpec, named: &CommitRef) -> Result<Found, Unknown> {
    let repository = Repository::open_at(&workspace.root().join(&named.repository))?;
    let commit = repository.named_commit(&named.commit)?;
    let tree = repository.directory_of(commit, named.path.as_deref())?;
    let artifact = home.artifact(&build.digest);
    let files = if build.locked.iter().any(|file| mode_of(file).is_none()) {
        return Err(Unknown::Packages);
    } else if artifact.exists() {
        builds::files_of(&artifact)?
    } else {
        build.locked.clone()
    };
    if let Some(difference) = first_difference(&repository, &short(commit), tree, &files)? {
        return Ok(Found::no("TreeDiffers", difference, Remedy::Rebuild));
    }
    let base = Base::of(&repository)?;
    let (Some(branch), Some(tip)) = (&base.branch, base.tip) else {
        let message = format!(
            "{} has no protected branch that commit {} could be on",
            named.repository,
            short(commit)
        );
        return Ok(Found::unknown("NoProtectedBranch", message, Remedy::Clear));
    };
    if !repository.is_ancestor(commit, tip) {
        let message = format!(
            "commit {} is not on the protected branch {branch}, which is at {} here",
            short(commit),
            short(tip)
        );
        return Ok(Found::no("NotOnProtectedBranch", message, Remedy::Merge));
    }
    let question = question::about(&repository, &base, commit, TrustFor::Hooks)?;
    let ring = proof::keyring(home, &base.policy)?;
    let weighed = proof::weigh(home, &ring, &question, notes::read(&repository, commit)?)?;
    // One that only waits for the tracker is nearer to a proof than any other.
    let waiting = |one: &&Weighed| matches!(one.judged.lacks.as_slice(), [] | [Lack::Deferred(_)]);
    let best = weighed.iter().find(waiting).or(weighed.first());
    let Some(best) = best else {
        let message = format!("nothing is attested of commit {}", short(commit));
        return Ok(Found::unknown("NotAttested", message, Remedy::Check));
    };
    let by = best
        .judged
        .key
        .map_or("nobody who is known".to_owned(), |key| format!("key {}", key.short()));
    let proven = format!(
        "every file is commit {}'s, whose hooks passed, as {by} has signed",
        short(commit)
    );
    Ok(match (best.judged.lacks.as_slice(), &best.judged.verdict) {
        ([], _) => Found::yes(proven),
        ([Lack::Deferred(_)], Some(verdict)) => {
            let trackers = Trackers::of(home, workspace);
            let checks = trackers
                .settle(&base.policy, &commit.to_string(), &verdict.issues)
                .await;
            settled(&base.policy, &checks, &short(commit), &proven)
        }
        ([Lack::Failed(_), ..], _) => {
            let message = format!("commit {} did not pass, as {by} has signed", short(commit));
            Found::no("HooksFailed", message, Remedy::Mend)
        }
        ([lack, ..], _) => {
            let message = format!("commit {}: {lack}", short(commit));
            Found::unknown(lack.reason(), message, Remedy::Check)
        }
    })
}

/// What the tracker's word on what was put off comes to.
fn settled(policy: &Policy, checks: &[IssueCheck], commit: &str, proven: &str) -> Found {
    let tracker = policy.spec.message.issue.tracker.as_deref().unwrap_or_default();
    for check in checks {
        let keys = check.keys.join(" or ");
        match &check.result {
            IssueResult::Right { .. } => {}
            IssueResult::Wrong { why } => {
                let message = format!("commit {commit} names an issue that {tracker} has not as it must be: {why}");
                return Found::no("IssueWrong", message, Remedy::Mend);
            }
            IssueResult::Unavailable { why } => {
                let message = format!("commit {commit} names {keys}, which could not be looked up in {tracker}: {why}");
                return Found::unknown("IssuesDeferred", message, Remedy::Check);
            }
        }
    }
    Found::yes(format!("{proven}; {tracker} was asked about its issues since"))
}

/// The mode that git would give a file of a locked set; none for what is no file.
fn mode_of(file: &LockedPackage) -> Option<Mode> {
    // As `builds::files_of` writes it: type and permissions, octal, six digits.
    let number = u32::from_str_radix(&file.version, 8)
        .ok()
        .filter(|_| file.version.len() == 6)?;
    match number & 0o170_000 {
        0o120_000 => Some(Mode::Link),
        // git looks at the owner's permission to execute alone.
        0o100_000 if number & 0o100 != 0 => Some(Mode::Executable),
        0o100_000 => Some(Mode::Regular),
        other => Some(Mode::Other(other)),
    }
}

/// The first file, in the order of names, that is not in both, or not the same in both.
fn first_difference(
    repository: &Repository,
    commit: &str,
    tree: git2::Oid,
    files: &[LockedPackage],
) -> Result<Option<String>, Unknown> {
    let too_large = || Unknown::TooLarge {
        commit: commit.to_owned(),
    };
    let committed = repository.files_of_tree(tree)?;
    if committed.len() > MOST_FILES {
        return Err(too_large());
    }
    let here: BTreeMap<&[u8], &LockedPackage> = files.iter().map(|file| (file.name.as_bytes(), file)).collect();
    let there: BTreeMap<&[u8], &Change> = committed.iter().map(|file| (file.path.as_slice(), file)).collect();
    let mut names: Vec<&[u8]> = here.keys().chain(there.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let mut bytes = 0_u64;
    for name in names {
        let why = match (here.get(name), there.get(name)) {
            (Some(_), None) => format!("is in the build and not in commit {commit}"),
            (None, Some(_)) => format!("is in commit {commit} and not in the build"),
            (Some(file), Some(change)) if mode_of(file) != Some(change.mode) => {
                format!("has another mode in commit {commit}")
            }
            (Some(file), Some(change)) => {
                bytes = bytes.saturating_add(repository.size(change.id)?);
                if bytes > MOST_BYTES {
                    return Err(too_large());
                }
                let content = Digest::of(&repository.content(change.id)?).hex();
                if file.sha256 == [content] {
                    continue;
                }
                format!("has another content in commit {commit}")
            }
            (None, None) => continue,
        };
        return Ok(Some(format!("`{}` {why}", shown(name))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_of_a_build_and_what_it_lacks_are_of_one_judgement() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home::open(&directory.path().join("state")).expect("a home");
        let workspace = Workspace::at(directory.path().to_owned());
        let build = BuildSpec::new("web", "1", Vec::new()).of_commit(CommitRef {
            repository: "web.git".to_owned(),
            commit: "a".repeat(40),
            path: None,
        });
        let component = serde_json::from_value(serde_json::json!({
            "name": "web", "nodes": [], "rollout": {"requires": ["HooksPassed"]},
        }));
        let component: Component = component.expect("a component");
        let judged = Judged::new(&home, &workspace, &build);
        let said = judged
            .condition(Timestamp::UNIX_EPOCH)
            .await
            .expect("it names a commit");
        assert_eq!(said.reason, "RepositoryUnreadable");
        // What would be found now is something else.
        git2::Repository::init_bare(directory.path().join("web.git")).expect("made");
        let lacks = judged.lacking(&component).await.expect("it is not known");
        assert!(lacks.why.contains(&said.message), "{said:?} {lacks:?}");
        let anew = Judged::new(&home, &workspace, &build).lacking(&component).await;
        assert_ne!(anew, Some(lacks));
    }

    #[test]
    fn files_have_the_mode_that_git_gives_them_and_packages_have_none() {
        let mode = |version: &str| {
            mode_of(&LockedPackage {
                name: "a".to_owned(),
                version: version.to_owned(),
                sha256: Vec::new(),
            })
        };
        for (version, expected) in [
            ("100644", Some(Mode::Regular)),
            ("100600", Some(Mode::Regular)),
            ("100666", Some(Mode::Regular)),
            ("100655", Some(Mode::Regular)),
            ("100755", Some(Mode::Executable)),
            ("100700", Some(Mode::Executable)),
            ("120777", Some(Mode::Link)),
            ("140755", Some(Mode::Other(0o140_000))),
            ("2.0", None),
            ("12", None),
            ("202611", Some(Mode::Other(0o200_000 & 0o170_000))),
        ] {
            assert_eq!(mode(version), expected, "{version}");
        }
    }
}

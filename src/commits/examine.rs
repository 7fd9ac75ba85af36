//! Asks the rules about files and messages of a repository, within bounds, and writes down what each rule took.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use git2::Oid;

use super::content::{self, CHECKS, File, Hit, Mode};
use super::finding::{Finding, Findings, Level, Rule};
use super::message::{self, Branch, Facts, Identity, Message, Revert};
use super::policy::{self, Policy};
use super::repository::{Change, CommitFacts, Fate, Repository, RepositoryError, TooMany, short};
use super::tracker::Named;

/// A whole commit is looked at in some seconds; 2,000 files take a tenth of one.
const WHOLE_LONGEST: Duration = Duration::from_mins(1);
/// Files of a whole commit. The largest repositories that we know have 80,000.
pub const MOST_FILES: usize = 200_000;
/// Their bytes together: some seconds of reading.
pub const MOST_BYTES: u64 = 2 << 30;

/// Refused commits that are kept with their rules: a person mends the first few and runs again.
const MOST_REFUSED: usize = 100;
/// Bytes of the names of directories whose neighbours are compared. The 100,000 directories of the largest repositories have
/// 6 MB; names that are made to be long and deep have many GB in a push of some kilobytes.
const MOST_NAME_BYTES: usize = 32 << 20;

/// Why an examination ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// There is more than may be looked at.
    #[error("{0}")]
    Over(String),
    /// git could not be read.
    #[error(transparent)]
    Repository(RepositoryError),
}

impl From<RepositoryError> for Cut {
    fn from(why: RepositoryError) -> Self {
        match why {
            RepositoryError::TooManyEntries { .. }
            | RepositoryError::PathTooLong { .. }
            | RepositoryError::NamesTooLong { .. }
            | RepositoryError::TreeTooLarge { .. }
            | RepositoryError::TreesTooLarge { .. }
            | RepositoryError::TooManyParents { .. }
            | RepositoryError::MessageTooLong { .. } => Cut::Over(why.to_string()),
            RepositoryError::NoRepository
            | RepositoryError::NoRepositoryAt(_)
            | RepositoryError::Commit { .. }
            | RepositoryError::NoDirectory { .. }
            | RepositoryError::Sha256
            | RepositoryError::Shallow
            | RepositoryError::Range(_)
            | RepositoryError::Unborn(_)
            | RepositoryError::Git { .. } => Cut::Repository(why),
        }
    }
}

/// How much may be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Commits.
    pub commits: usize,
    /// Versions of files.
    pub files: usize,
    /// Their bytes together.
    pub bytes: u64,
    /// When to stop, done or not.
    pub until: Option<Instant>,
}

impl Bounds {
    /// As the policy has them for one push.
    #[must_use]
    pub fn of(policy: &Policy, until: Instant) -> Self {
        let bounds = &policy.spec.bounds;
        Self {
            commits: bounds.commits,
            files: bounds.files,
            bytes: bounds.mib << 20,
            until: Some(until),
        }
    }

    /// For a whole commit, from now on: what a push may bring, and every file that the commit has beside. One with more could
    /// be compared with no build either.
    #[must_use]
    pub fn of_whole(policy: &Policy) -> Self {
        let push = Self::of(policy, Instant::now() + WHOLE_LONGEST);
        Self {
            files: push.files.saturating_add(MOST_FILES),
            bytes: push.bytes.saturating_add(MOST_BYTES),
            ..push
        }
    }

    /// Whether the time is up.
    fn are_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() > until)
    }

    /// None but what memory asks: for the machine of who asks.
    #[must_use]
    pub fn none() -> Self {
        Self {
            commits: usize::MAX - 1,
            files: usize::MAX,
            bytes: u64::MAX,
            until: None,
        }
    }
}

/// The commit that the policy spares with everything before it, if it is here.
#[must_use]
pub fn spared_by(repository: &Repository, policy: &Policy) -> Option<Oid> {
    let since = policy.spec.since.as_deref();
    since.and_then(|name| repository.known_commit(name))
}

/// A suggestion where the policy's `since` names no commit here: without a word nobody would see that it spares nothing.
#[must_use]
pub fn lost_since(repository: &Repository, policy: &Policy) -> Option<Finding> {
    let since = policy.spec.since.as_deref()?;
    if spared_by(repository, policy).is_some() {
        return None;
    }
    let fix = if repository.is_shallow() {
        "this is a shallow clone, and `git fetch --unshallow` may bring it"
    } else {
        "name a commit of this repository's history in the policy, as `git rev-parse COMMIT` prints it"
    };
    Some(Finding {
        rule: Rule::PolicyFile,
        level: Level::Warned,
        commit: None,
        path: Some(policy::PATH.as_bytes().to_vec()),
        line: 0,
        column: 0,
        message: format!("`since: {since}` names no commit here, so nothing is spared"),
        fix: fix.to_owned(),
    })
}

/// How a commit stands that is looked at: what is already with others is not to be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is on its way to others.
    New,
    /// Others may have it.
    Known,
    /// It is there for its files, which an older one has brought.
    Old,
}

/// Which commits are looked at with a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought {
    /// None but itself.
    Itself,
    /// All that cannot be reached from these; itself where that is none.
    Beyond(Vec<Oid>),
}

/// The commits whose messages and changes a proof of this one speaks of, the oldest first; none where the policy spares it.
///
/// # Errors
/// git could not be read, or there are too many.
pub fn brought(repository: &Repository, policy: &Policy, id: Oid, what: Brought) -> Result<Vec<Oid>, Cut> {
    let since = spared_by(repository, policy);
    if since.is_some_and(|since| repository.is_ancestor(id, since)) {
        return Ok(Vec::new());
    }
    let hidden: Vec<Oid> = match what {
        Brought::Itself => return Ok(vec![id]),
        Brought::Beyond(known) => known.into_iter().chain(since).collect(),
    };
    let most = policy.spec.bounds.commits;
    match repository.between(&[id], &hidden, most)? {
        Err(TooMany) => Err(Cut::Over(format!("more than {most} commits are new since the base"))),
        // One that the base has already is still looked at itself.
        Ok(none) if none.is_empty() => Ok(vec![id]),
        Ok(ids) => Ok(ids),
    }
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What was found.
    pub findings: Findings,
    /// Commits that were looked at.
    pub commits: usize,
    /// Commits of them with a finding that refuses.
    pub refused_commits: usize,
    /// The first of these, each with the rules that refuse it.
    pub refused: Vec<(Oid, Vec<Rule>)>,
    /// Commits of them whose files were not looked at, since a trusted key has signed that they are right.
    pub vouched_commits: usize,
    /// Files that were looked at.
    pub files: usize,
    /// What each rule took; only those that were asked.
    pub times: Vec<(Rule, Duration)>,
    /// Issues that are to be looked up in the tracker: the keys that commits name, each list once.
    pub issues: Vec<Named>,
}

/// One examination.
pub struct Examiner<'a> {
    repository: &'a Repository,
    policy: &'a Policy,
    bounds: Bounds,
    standing: Standing,
    findings: Findings,
    commits: usize,
    refused_commits: usize,
    refused: Vec<(Oid, Vec<Rule>)>,
    vouched_commits: usize,
    files: usize,
    bytes: u64,
    /// The same file in the same place needs no second look.
    seen: HashSet<Change>,
    /// Commits whose files somebody else has looked at who is trusted for it.
    vouched: HashSet<Oid>,
    /// Nor does the same commit on its way to the same kind of branch.
    seen_commits: HashSet<(Oid, Branch)>,
    /// Names that were found to differ in case only, with their neighbours: a commit's, and once more those of all files.
    in_case_only: HashSet<(Vec<u8>, Vec<u8>)>,
    times: Vec<Option<Duration>>,
    issues: Vec<Named>,
}

impl<'a> Examiner<'a> {
    /// Begins.
    #[must_use]
    pub fn new(repository: &'a Repository, policy: &'a Policy, bounds: Bounds) -> Self {
        Self {
            repository,
            policy,
            bounds,
            standing: Standing::New,
            findings: Findings::default(),
            commits: 0,
            refused_commits: 0,
            refused: Vec::new(),
            vouched_commits: 0,
            files: 0,
            bytes: 0,
            seen: HashSet::new(),
            vouched: HashSet::new(),
            seen_commits: HashSet::new(),
            in_case_only: HashSet::new(),
            times: vec![None; Rule::ALL.len()],
            issues: Vec::new(),
        }
    }

    /// Ends.
    #[must_use]
    pub fn report(self) -> Report {
        let times = Rule::ALL.iter().zip(self.times);
        Report {
            findings: self.findings,
            commits: self.commits,
            refused_commits: self.refused_commits,
            refused: self.refused,
            vouched_commits: self.vouched_commits,
            files: self.files,
            times: times.filter_map(|(rule, time)| Some((*rule, time?))).collect(),
            issues: self.issues,
        }
    }

    /// Says how the commits stand that are looked at from now on; without, they are new.
    pub fn speak_of(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Adds what somebody else found.
    pub fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Spares a commit's files, as a trusted key has signed that they were looked at by this very policy and engine. Its message
    /// is looked at all the same.
    pub fn vouch(&mut self, commit: Oid) {
        self.vouched.insert(commit);
    }

    /// The issues that are to be looked up, as far as commits have named them.
    #[must_use]
    pub fn issues(&self) -> &[Named] {
        &self.issues
    }

    /// Adds what a rule took elsewhere.
    pub fn took(&mut self, rule: Rule, time: Duration) {
        *self.times[rule as usize].get_or_insert_default() += time;
    }

    /// Whether a rule has refused something so far.
    #[must_use]
    pub fn has_refused(&self, rule: Rule) -> bool {
        let tally = self.findings.tallies().get(&rule);
        tally.is_some_and(|tally| tally.refused > 0)
    }

    /// Whether a rule has suggested something so far.
    #[must_use]
    pub fn has_warned(&self, rule: Rule) -> bool {
        let tally = self.findings.tallies().get(&rule);
        tally.is_some_and(|tally| tally.warned > 0)
    }

    /// How many commits may still be looked at.
    #[must_use]
    pub fn commits_left(&self) -> usize {
        self.bounds.commits.saturating_sub(self.commits)
    }

    /// Looks at files of the index.
    ///
    /// # Errors
    /// git could not be read, or there is too much.
    pub fn files_of_index(&mut self, changes: &[Change]) -> Result<(), Cut> {
        for change in changes {
            self.file(None, change)?;
        }
        let repository = self.repository;
        self.neighbours(None, changes, |directories| repository.tracked_names(directories))
    }

    /// Looks at a commit: its files, its message. `branch` is where it goes, `identity` who brings it.
    ///
    /// # Errors
    /// git could not be read, or there is too much.
    pub fn commit(&mut self, id: Oid, branch: Branch, identity: &Identity) -> Result<(), Cut> {
        if !self.seen_commits.insert((id, branch)) {
            return Ok(());
        }
        let before = self.findings.tallies().clone();
        let facts = self.content_of(id)?;
        self.policy_of(id)?;
        let message = Message::new(&facts.message, facts.encoding.as_deref());
        let revert = match message.reverts().and_then(|name| self.repository.known_commit(name)) {
            Some(reverted) if reverted != id && self.repository.is_ancestor(reverted, id) => Revert::OfAncestor,
            Some(_) | None => Revert::Nothing,
        };
        let facts = Facts {
            parents: Some(self.sides_of(id, &facts)?),
            revert,
            branch,
            identity: self.identity(id, identity),
        };
        self.message(Some(&short(id)), &message, &facts);
        let rules = self.findings.rules_that_refused_since(&before);
        if !rules.is_empty() {
            self.refused_commits += 1;
            if self.refused.len() < MOST_REFUSED {
                self.refused.push((id, rules));
            }
        }
        Ok(())
    }

    /// How many lines of history a commit brings together. One that names its own past as a further parent is a merge only if it
    /// is what one could have gone forward to: whatever else it has is its own, and wants a message of its own.
    fn sides_of(&self, id: Oid, facts: &CommitFacts) -> Result<usize, Cut> {
        if facts.parents < 2 {
            return Ok(facts.parents);
        }
        let mut parents = self.repository.parents(id)?;
        parents.sort_unstable();
        parents.dedup();
        let mut sides = Vec::new();
        for one in &parents {
            let mut is_past = false;
            for other in &parents {
                self.in_time()?;
                is_past |= !is_past && one != other && self.repository.is_ancestor(*one, *other);
            }
            if !is_past {
                sides.push(*one);
            }
            if sides.len() > 1 {
                return Ok(facts.parents);
            }
        }
        let tree = self.repository.tree_of(id)?;
        for side in sides {
            if self.repository.tree_of(side)? == tree {
                return Ok(facts.parents);
            }
        }
        Ok(1)
    }

    /// Looks at what a proof of a commit speaks of: the commits that are brought with it, which go to this kind of branch, and
    /// every file that it has, since that is what a build of it has. `identity` says who vouches for each.
    ///
    /// # Errors
    /// git could not be read, or there is too much.
    pub fn whole(
        &mut self,
        id: Oid,
        what: Brought,
        branch: Branch,
        identity: impl Fn(Oid) -> Identity,
    ) -> Result<(), Cut> {
        self.speak_of(Standing::Known);
        for brought in brought(self.repository, self.policy, id, what)? {
            self.commit(brought, branch, &identity(brought))?;
        }
        // What these have brought is not looked at again.
        self.speak_of(Standing::Old);
        self.all_files_of(id)
    }

    /// Says where a commit removes or changes the policy.
    fn policy_of(&mut self, id: Oid) -> Result<(), Cut> {
        let fate = self.repository.fate(id, policy::PATH)?;
        self.policy_meets(Some(&short(id)), fate);
        Ok(())
    }

    /// Says that the policy is removed or changed: nothing else tells who reviews it that other rules are to hold.
    pub fn policy_meets(&mut self, commit: Option<&str>, fate: Fate) {
        let (message, fix) = match fate {
            Fate::Kept => return,
            Fate::Added => (
                "a policy is added: on the protected branch it holds in the place of the built-in one for every push after this one",
                "look whether it asks for less; an owner of the protected branch decides",
            ),
            Fate::Removed => (
                "the policy is removed: the built-in one holds from now on",
                "put it back unless that is meant; an owner of the protected branch decides",
            ),
            Fate::Changed => (
                "the policy is changed: on the protected branch it holds for every push after this one",
                "look whether it asks for less than before; an owner of the protected branch decides",
            ),
        };
        self.findings.push(Finding {
            rule: Rule::PolicyFile,
            level: Level::Warned,
            commit: commit.map(str::to_owned),
            path: Some(policy::PATH.as_bytes().to_vec()),
            line: 0,
            column: 0,
            message: message.to_owned(),
            fix: fix.to_owned(),
        });
    }

    fn files_of_commit(&mut self, id: Oid, name: &str, changes: &[Change]) -> Result<(), Cut> {
        for change in changes {
            self.file(Some(name), change)?;
        }
        let repository = self.repository;
        let names = |directories: &HashSet<Vec<u8>>| repository.committed_names(id, directories);
        self.neighbours(Some(name), changes, names)
    }

    /// Names that a merge brings together and that differ in case only: each side may be right by itself.
    fn names_of_merge(&mut self, id: Oid, name: &str, merged: &[Change]) -> Result<(), Cut> {
        let (repository, bounds) = (self.repository, self.bounds);
        self.neighbours(Some(name), merged, |directories| {
            let mut names = repository.committed_names(id, directories)?;
            let meeting =
                |names: &BTreeSet<Vec<u8>>| content::names::differ_in_case_only(names.iter().map(Vec::as_slice));
            names.retain(|_, names| !meeting(names).is_empty());
            if names.is_empty() {
                return Ok(names);
            }
            let directories: HashSet<Vec<u8>> = names.keys().cloned().collect();
            // What a side has already has been said, or was there before anybody was asked.
            let mut seen = HashSet::new();
            for parent in repository.parents(id)? {
                if bounds.are_over() {
                    break;
                }
                if !seen.insert(repository.tree_of(parent)?) {
                    continue;
                }
                for (directory, of_parent) in repository.committed_names(parent, &directories)? {
                    let met = meeting(&of_parent);
                    if let Some(names) = names.get_mut(&directory) {
                        names.retain(|name| !met.contains_key(name));
                    }
                }
            }
            Ok(names)
        })?;
        self.in_time()
    }

    /// Looks at every file that a commit has, whoever brought it, but for those that are as they were in the commit that the
    /// policy spares: who may go round the check of a push has perhaps done so.
    ///
    /// # Errors
    /// git could not be read, or there is too much.
    fn all_files_of(&mut self, id: Oid) -> Result<(), Cut> {
        let repository = self.repository;
        let spared: HashSet<Change> = match spared_by(repository, self.policy) {
            Some(since) if repository.is_ancestor(id, since) => return Ok(()),
            Some(since) => repository
                .files_of_tree(repository.tree_of(since)?)?
                .into_iter()
                .collect(),
            None => HashSet::new(),
        };
        let name = short(id);
        let mut all = repository.files_of_tree(repository.tree_of(id)?)?;
        all.retain(|change| !spared.contains(change));
        self.files_of_commit(id, &name, &all)
    }

    /// Looks at a commit's files and for secrets in its message, but not at how the message is written.
    ///
    /// # Errors
    /// git could not be read, or there is too much.
    pub fn content_of(&mut self, id: Oid) -> Result<CommitFacts, Cut> {
        self.commits += 1;
        self.in_time()?;
        let facts = self.repository.commit(id)?;
        let name = short(id);
        if self.vouched.contains(&id) {
            self.vouched_commits += 1;
        } else {
            self.files_of_commit(id, &name, &facts.changes)?;
            self.names_of_merge(id, &name, &facts.merged)?;
        }
        self.secrets_of_text(&name, "header", &facts.header);
        self.in_time()?;
        self.secrets_of_text(&name, "message", &facts.message);
        Ok(facts)
    }

    /// Looks for secrets in a text that is no file, as a message.
    pub fn secrets_of_text(&mut self, name: &str, what: &str, text: &[u8]) {
        let file = File::new(b"", Mode::Regular, text);
        for check in CHECKS
            .iter()
            .filter(|c| matches!(c.rule, Rule::PrivateKey | Rule::Secret))
        {
            for hit in self.ask(check, &file) {
                let message = format!("in the {what}: {}", hit.message);
                self.push(check.rule, Some(name), None, Hit { message, ..hit });
            }
        }
    }

    /// Looks for secrets in the name of a ref.
    pub fn secrets_of_ref(&mut self, name: &str) {
        let file = File::new(name.as_bytes(), Mode::Regular, b"");
        let shown = content::without_tokens(self.policy, name.as_bytes());
        let shown = String::from_utf8_lossy(&shown);
        for check in CHECKS.iter().filter(|c| c.rule == Rule::Secret) {
            for hit in self.ask(check, &file) {
                self.push(check.rule, Some(&shown), None, hit);
            }
        }
    }

    /// Looks at a message.
    pub fn message(&mut self, name: Option<&str>, message: &Message, facts: &Facts) {
        let began = Instant::now();
        let breaches = message::check(self.policy, message, facts);
        // They are asked together; which of them took it is no matter.
        self.took(Rule::MessageText, began.elapsed());
        let keys = message::issues(self.policy, message, facts);
        if !keys.is_empty() && !self.issues.iter().any(|named| named.keys == keys) {
            let commit = name.unwrap_or("message").to_owned();
            self.issues.push(Named { commit, keys });
        }
        for breach in breaches {
            self.findings.push(Finding {
                rule: breach.rule,
                level: breach.level,
                commit: Some(name.unwrap_or("message").to_owned()),
                path: None,
                line: breach.line,
                column: 0,
                message: breach.message,
                fix: breach.fix,
            });
        }
    }

    fn identity(&self, id: Oid, known: &Identity) -> Identity {
        if self.policy.signers.is_empty() || *known != Identity::Unknown {
            return known.clone();
        }
        let Some((signature, signed)) = self.repository.signature(id) else {
            return Identity::Unknown;
        };
        let mut signers = self.policy.signers.iter();
        match signers.find(|key| key.has_signed(&signed, &signature)) {
            Some(key) => Identity::Signer(key.text.clone()),
            None => Identity::Unknown,
        }
    }

    /// Looks at one file.
    ///
    /// # Errors
    /// git could not be read, or there is too much.
    pub fn file(&mut self, commit: Option<&str>, change: &Change) -> Result<(), Cut> {
        if !self.seen.insert(change.clone()) {
            return Ok(());
        }
        self.files += 1;
        if self.files > self.bounds.files {
            return Err(Cut::Over(format!(
                "more than {} versions of files are new",
                self.bounds.files
            )));
        }
        if change.mode == Mode::Submodule {
            self.ask_all(commit, &File::new(&change.path, change.mode, b""));
            return Ok(());
        }
        let size = self.repository.size(change.id)?;
        if self.policy.covers(Rule::LargeFile, &change.path)
            && self.policy.level(Rule::LargeFile) == Some(Level::Refused)
            && let Some(hit) = content::too_large(self.policy, size)
        {
            // Refused as it is; there is no need to read it.
            self.push(Rule::LargeFile, commit, Some(&change.path), hit);
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.bounds.bytes {
            let mib = self.bounds.bytes >> 20;
            return Err(Cut::Over(format!("the new files have more than {mib} MiB")));
        }
        self.in_time()?;
        let bytes = self.repository.content(change.id)?;
        self.ask_all(commit, &File::new(&change.path, change.mode, &bytes));
        Ok(())
    }

    fn ask_all(&mut self, commit: Option<&str>, file: &File) {
        for check in &CHECKS {
            if self.policy.covers(check.rule, file.path) {
                for hit in self.ask(check, file) {
                    self.push(check.rule, commit, Some(file.path), hit);
                }
            }
        }
    }

    fn ask(&mut self, check: &content::Check, file: &File) -> Vec<Hit> {
        let began = Instant::now();
        let hits = (check.run)(self.policy, file);
        self.took(check.rule, began.elapsed());
        hits
    }

    /// Looks for names that differ in case only from one beside them.
    fn neighbours(
        &mut self,
        commit: Option<&str>,
        changes: &[Change],
        names: impl FnOnce(&HashSet<Vec<u8>>) -> Result<HashMap<Vec<u8>, BTreeSet<Vec<u8>>>, RepositoryError>,
    ) -> Result<(), Cut> {
        if changes.is_empty() || self.policy.level(Rule::CaseConflict).is_none() {
            return Ok(());
        }
        let began = Instant::now();
        let mut directories: HashSet<Vec<u8>> = HashSet::from([Vec::new()]);
        let mut held = 0;
        for change in changes {
            self.in_time()?;
            let slashes = change.path.iter().enumerate().filter(|(_, b)| **b == b'/');
            for (at, _) in slashes {
                if !directories.contains(&change.path[..at]) {
                    held += at;
                    directories.insert(change.path[..at].to_vec());
                }
            }
            if held > MOST_NAME_BYTES {
                let mib = MOST_NAME_BYTES >> 20;
                return Err(Cut::Over(format!(
                    "the names of the new directories have more than {mib} MiB"
                )));
            }
        }
        let mut met = HashMap::new();
        for (directory, names) in names(&directories)? {
            let meeting = content::names::differ_in_case_only(names.iter().map(Vec::as_slice));
            met.extend(
                meeting
                    .into_iter()
                    .map(|(name, other)| ((directory.clone(), name), other)),
            );
        }
        if !met.is_empty() {
            for change in changes {
                self.in_time()?;
                self.meeting(commit, change, &met);
            }
        }
        self.took(Rule::CaseConflict, began.elapsed());
        Ok(())
    }

    fn meeting(&mut self, commit: Option<&str>, change: &Change, met: &HashMap<(Vec<u8>, Vec<u8>), Vec<u8>>) {
        if !self.policy.covers(Rule::CaseConflict, &change.path) {
            return;
        }
        let mut begin = 0;
        for part in change.path.split(|b| *b == b'/') {
            let directory = change.path[..begin.max(1) - 1].to_vec();
            if let Some(other) = met.get(&(directory, part.to_vec()))
                && self.in_case_only.insert((change.path.clone(), other.clone()))
            {
                let other = content::without_tokens(self.policy, other);
                let message = format!("differs from `{}` in case only", super::finding::shown(&other));
                let fix = "rename one: where case does not count, the second replaces the first";
                let hit = Hit {
                    line: 0,
                    column: 0,
                    message,
                    fix: fix.to_owned(),
                };
                self.push(Rule::CaseConflict, commit, Some(&change.path), hit);
            }
            begin += part.len() + 1;
        }
    }

    fn push(&mut self, rule: Rule, commit: Option<&str>, path: Option<&[u8]>, hit: Hit) {
        let Some(level) = self.policy.level(rule) else {
            return;
        };
        // What `check --fix` mends is the checkout, never a commit.
        let fix = match (commit, self.standing) {
            _ if !content::FIXABLE.contains(&rule) => hit.fix,
            (None, _) => format!("{}, or `stagegate check --fix`", hit.fix),
            (Some(_), Standing::New) => format!("{}, and amend or rebase the commit that has it", hit.fix),
            (Some(_), Standing::Known) => format!(
                "{}, and amend or rebase the commit that has it, or where others have that already, in a new commit",
                hit.fix
            ),
            (Some(_), Standing::Old) => format!("{}, in a new commit", hit.fix),
        };
        self.findings.push(Finding {
            rule,
            level,
            commit: commit.map(str::to_owned),
            path: path.map(|path| self.shown_name(path)),
            line: hit.line,
            column: hit.column,
            message: hit.message,
            fix,
        });
    }

    /// A file's name as it is told: where no secret may be in it, none is.
    fn shown_name(&self, path: &[u8]) -> Vec<u8> {
        if self.policy.covers(Rule::Secret, path) {
            content::without_tokens(self.policy, path).into_owned()
        } else {
            path.to_vec()
        }
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// There is none.
    pub fn in_time(&self) -> Result<(), Cut> {
        if self.bounds.are_over() {
            return Err(Cut::Over(format!(
                "not done in time, after {} commits and {} files",
                self.commits, self.files
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::finding::MOST_KEPT;

    #[test]
    fn a_rule_has_refused_also_what_is_not_kept() {
        let place = tempfile::tempdir().expect("a directory");
        git2::Repository::init(place.path()).expect("a repository");
        let repository = Repository::open_at(place.path()).expect("a repository");
        let policy = Policy::built_in();
        let mut examiner = Examiner::new(&repository, &policy, Bounds::none());
        let finding = |rule, level| Finding {
            rule,
            level,
            commit: None,
            path: None,
            line: 0,
            column: 0,
            message: String::new(),
            fix: String::new(),
        };
        for _ in 0..MOST_KEPT {
            examiner.found(finding(Rule::Subject, Level::Refused));
        }
        examiner.found(finding(Rule::Secret, Level::Refused));
        examiner.found(finding(Rule::LargeFile, Level::Warned));
        assert!(examiner.has_refused(Rule::Secret));
        assert!(!examiner.has_refused(Rule::LargeFile));
    }

    /// One that others have already is not to be written anew.
    #[test]
    fn what_is_to_be_done_is_right_for_how_the_commit_stands() {
        let place = tempfile::tempdir().expect("a directory");
        let git = git2::Repository::init(place.path()).expect("a repository");
        let who = git2::Signature::new("d", "d@e", &git2::Time::new(1_700_000_000, 0)).expect("somebody");
        let mut tip: Option<Oid> = None;
        for name in ["old", "new"] {
            let parent = tip.map(|id| git.find_commit(id).expect("there"));
            let above = parent.as_ref().map(|commit| commit.tree().expect("there"));
            let mut tree = git.treebuilder(above.as_ref()).expect("a tree");
            let blob = git.blob(format!("{name} \n").as_bytes()).expect("written");
            tree.insert(name, blob, 0o100_644).expect("put");
            let tree = git.find_tree(tree.write().expect("written")).expect("there");
            let parents: Vec<_> = parent.iter().collect();
            tip = Some(git.commit(None, &who, &who, name, &tree, &parents).expect("made"));
        }
        let tip = tip.expect("two");
        let repository = Repository::open_at(place.path()).expect("a repository");
        let policy = Policy::built_in();
        let fixes = |ask: &dyn Fn(&mut Examiner)| {
            let mut examiner = Examiner::new(&repository, &policy, Bounds::none());
            ask(&mut examiner);
            let found = examiner.report().findings;
            let of_files = found.kept().iter().filter(|f| f.rule == Rule::TrailingWhitespace);
            let line = |f: &Finding| {
                format!(
                    "{}: {}",
                    super::super::finding::shown(f.path.as_deref().unwrap_or_default()),
                    f.fix
                )
            };
            of_files.map(line).collect::<Vec<_>>()
        };
        assert_eq!(
            fixes(&|e| e.commit(tip, Branch::Topic, &Identity::Unknown).expect("read")),
            ["new: remove them, and amend or rebase the commit that has it"]
        );
        assert_eq!(
            fixes(&|e| e
                .whole(tip, Brought::Itself, Branch::Topic, |_| Identity::Unknown)
                .expect("read")),
            [
                "new: remove them, and amend or rebase the commit that has it, or where others have that already, in a new commit",
                "old: remove them, in a new commit",
            ]
        );
    }
}

//! `stagegate check`: the developer's side of the commit policy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use git2::Oid;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::called::quoted;
use super::hooks::say_how;
use super::printer::Printer;
use super::up::count;
use super::view::API_VERSION;
use super::{Exit, Output, ground};
use crate::commits::base::Base;
use crate::commits::content::{FIXABLE, fixed};
use crate::commits::examine::{self, Bounds, Brought, Cut, Examiner, Report, Standing};
use crate::commits::finding::{Finding, Findings, Level, Rule, shown};
use crate::commits::install::HooksDirectory;
use crate::commits::message::{Branch, Facts, Identity, Message, Revert};
use crate::commits::proof::{self, KeyId, Outcome, Verdict, question};
use crate::commits::push::NOTES;
use crate::commits::repository::{Change, Repository, short};
use crate::commits::{hooks, policy, prek, sarif, tracker};
use crate::settings;
use crate::store::random_id;

/// A longer message is refused by its rule; more of it is not read.
const MOST_MESSAGE_BYTES: u64 = 1 << 20;
/// How the name of a file begins while it is mended.
const MENDING: &str = "stagegate-mending-";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The commits of A..B, each with its message; of one commit, those of all its history
    #[arg(long, value_name = "A..B|COMMIT", conflicts_with_all = ["all", "message", "fix"])]
    range: Option<String>,
    /// Every file that git tracks
    #[arg(long, conflicts_with = "message")]
    all: bool,
    /// A commit message that is being written, as git hands it to commit-msg
    #[arg(long, value_name = "FILE", conflicts_with = "fix")]
    message: Option<PathBuf>,
    /// Mend blanks and line ends in the checkout; what is staged stays as it is
    #[arg(long)]
    fix: bool,
    /// A policy to go by instead of the protected branch's
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Sign, for each commit that passes, that it did, by this home's key (`stagegate attest key create`)
    #[arg(long, requires = "range", conflicts_with_all = ["all", "message", "fix"])]
    attest: bool,
}

/// What is looked at.
pub(super) enum Scope {
    Staged,
    All,
    Range(String),
    /// The same, to be signed: as the protected branch asks, wherever the commits are now.
    ToSign(String),
    Message(PathBuf),
    /// New commits on their way to refs of a remote.
    Push(Vec<Outgoing>),
}

/// A ref that is about to be pushed.
pub(super) struct Outgoing {
    pub(super) tip: Oid,
    pub(super) to: String,
    /// What is there already.
    pub(super) hidden: Vec<Oid>,
}

/// Whether files are mended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mending {
    Wanted,
    Unwanted,
}

/// Who asks: a hook of ours need not be told that hooks are missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Person,
    Hook,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments {
        range,
        all,
        message,
        fix,
        policy,
        attest,
    } = arguments;
    let scope = match (range, message, all) {
        (Some(range), ..) if *attest => Scope::ToSign(range.clone()),
        (Some(range), ..) => Scope::Range(range.clone()),
        (None, Some(file), _) => Scope::Message(file.clone()),
        (None, None, true) => Scope::All,
        (None, None, false) => Scope::Staged,
    };
    let mending = if *fix { Mending::Wanted } else { Mending::Unwanted };
    let repository = Repository::open()?;
    let base = match policy {
        Some(file) => Base::of_file(&repository, file)?,
        None => Base::of_clone(&repository)?,
    };
    if let Scope::ToSign(range) = &scope {
        return check_and_sign(&repository, &base, range, &scope, printer);
    }
    check(&repository, &base, &scope, mending, Caller::Person, printer)
}

/// What was signed and what was not.
#[derive(Default)]
struct Signed {
    by: Vec<(Oid, KeyId)>,
    /// With why not.
    not: Vec<(Oid, String)>,
}

impl Signed {
    fn tell(&self, printer: &Printer) {
        for (id, why) in &self.not {
            printer.note(&format!("{} {why}", short(*id)));
        }
        if let Some((_, key)) = self.by.last() {
            let signed = count(self.by.len(), "commit");
            printer.note(&format!("signed {signed} by key {}", key.short()));
        }
    }

    fn to_json(&self) -> Value {
        let by = self.by.iter();
        let not = self.not.iter();
        json!({
            "signed": by.map(|(id, key)| json!({"commit": id.to_string(), "key": key.to_string()})).collect::<Vec<_>>(),
            "unsigned": not.map(|(id, why)| json!({"commit": id.to_string(), "why": why})).collect::<Vec<_>>(),
        })
    }
}

/// What was asked to be signed and could not be is a refusal.
fn check_and_sign(
    repository: &Repository,
    base: &Base,
    range: &str,
    scope: &Scope,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let report = examine(repository, base, scope, printer)?;
    let signed = sign(repository, base, range);
    // What was found is worth reading even where nothing could be signed.
    show(repository, &report, base, scope, signed.as_ref().ok(), printer)?;
    let signed = signed?;
    signed.tell(printer);
    say_what_is_missing(printer);
    Ok(if signed.not.is_empty() {
        Exit::Done
    } else {
        Exit::Refused
    })
}

/// Signs what is right: each commit is looked at alone, so that none passes because another was looked at before it.
fn sign(repository: &Repository, base: &Base, range: &str) -> anyhow::Result<Signed> {
    let home = ground::home()?;
    let (from, to) = repository.range(range)?;
    let mut signed = Signed::default();
    for id in new_commits(repository, base, to, from.as_slice(), Bounds::none().commits)? {
        let verdict = alone(repository, base, id)?;
        match &verdict.outcome {
            Outcome::Passed => {
                let (_, key) = proof::attest(&home, &verdict, verdict.finished_at)?;
                signed.by.push((id, key));
            }
            Outcome::Failed => signed.not.push((id, "does not pass, and was not signed".to_owned())),
            Outcome::NotProven { why } => signed.not.push((id, format!("was not signed: {why}"))),
        }
    }
    Ok(signed)
}

/// A check of one commit by itself, with every file that it has. Hooks that no native rule stands for need their own run, and without it nothing is proven.
fn alone(repository: &Repository, base: &Base, id: Oid) -> anyhow::Result<Verdict> {
    let started_at = Timestamp::now();
    let mut examiner = Examiner::new(repository, &base.policy, Bounds::of_whole(&base.policy));
    let gap = match examiner.whole(id, Brought::Itself, Branch::Protected, |_| Identity::Unknown) {
        Ok(()) => None,
        Err(Cut::Over(why)) => Some(why),
        Err(Cut::Repository(why)) => return Err(why.into()),
    };
    let Report { findings, issues, .. } = examiner.report();
    // Nobody's machine asks a tracker: what has to be looked up is looked up before the commit is built upon.
    let issues = match base.policy.level(Rule::Issue) {
        Some(Level::Refused) => tracker::issues::unasked(issues, "not asked by `check`"),
        Some(Level::Warned) | None => Vec::new(),
    };
    let (hooks, rest) = question::native_runs(question::listed(repository, base)?);
    let (hooks, outcome) = if findings.refuse() {
        // Which hook would have refused is not known of rules that stand for several.
        (Vec::new(), Outcome::Failed)
    } else if let Some(why) = gap {
        (Vec::new(), Outcome::NotProven { why })
    } else if rest.is_empty() {
        (hooks, Outcome::Passed)
    } else {
        let why = format!("no native rule stands for the hooks {}", rest.join(", "));
        (hooks, Outcome::NotProven { why })
    };
    Ok(Verdict {
        subject: question::subject(repository, base, id)?,
        policy: base.policy.digest,
        engine: proof::engine(),
        hooks,
        outcome,
        findings: findings.kept().iter().map(Finding::to_json).collect(),
        issues,
        blames: Vec::new(),
        started_at,
        finished_at: Timestamp::now(),
    })
}

/// Checks, shows what was found, and says how it ended.
pub(super) fn check(
    repository: &Repository,
    base: &Base,
    scope: &Scope,
    mending: Mending,
    caller: Caller,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let mut report = examine(repository, base, scope, printer)?;
    let mended = match mending {
        Mending::Wanted => mend(repository, base, report.findings.kept()),
        Mending::Unwanted => Ok(0),
    };
    match scope {
        Scope::Staged | Scope::All => say_what_the_checkout_has(repository, base, &mut report.findings)?,
        Scope::Range(_) | Scope::ToSign(_) | Scope::Message(_) | Scope::Push(_) => {}
    }
    // What was found is worth reading even where it could not be mended.
    show(repository, &report, base, scope, None, printer)?;
    match mended? {
        0 => {}
        mended => printer.note(&format!(
            "mended {} in the checkout; look at it and `git add` it",
            count(mended, "file")
        )),
    }
    if caller == Caller::Person {
        say_what_is_missing(printer);
    }
    Ok(if report.findings.refuse() {
        Exit::Refused
    } else {
        Exit::Done
    })
}

fn examine(repository: &Repository, base: &Base, scope: &Scope, printer: &Printer) -> anyhow::Result<Report> {
    if let Some(note) = &base.note {
        printer.note(note);
    }
    let mut examiner = Examiner::new(repository, &base.policy, Bounds::none());
    match scope {
        Scope::Range(_) | Scope::ToSign(_) => examiner.speak_of(Standing::Known),
        Scope::Staged | Scope::All | Scope::Message(_) | Scope::Push(_) => {}
    }
    match scope {
        // Nothing of a message is spared.
        Scope::Message(_) => {}
        Scope::Staged | Scope::All | Scope::Range(_) | Scope::ToSign(_) | Scope::Push(_) => {
            if let Some(finding) = examine::lost_since(repository, &base.policy) {
                examiner.found(finding);
            }
        }
    }
    match scope {
        Scope::Staged => {
            files(repository, base, &repository.staged()?, &mut examiner, printer)?;
            examiner.policy_meets(None, repository.staged_fate(policy::PATH)?);
        }
        Scope::All => files(repository, base, &repository.tracked()?, &mut examiner, printer)?,
        Scope::Range(range) => commits(repository, base, range, branch_here(repository, base), &mut examiner)?,
        Scope::ToSign(range) => commits(repository, base, range, Branch::Protected, &mut examiner)?,
        Scope::Message(file) => message(repository, base, file, &mut examiner)?,
        Scope::Push(outgoing) => push(repository, base, outgoing, &mut examiner)?,
    }
    Ok(examiner.report())
}

fn files(
    repository: &Repository,
    base: &Base,
    changes: &[Change],
    examiner: &mut Examiner,
    printer: &Printer,
) -> anyhow::Result<()> {
    // They run while the native rules do.
    let began = Instant::now();
    let running = start_hooks(repository, base, changes, printer)?;
    examiner.files_of_index(changes)?;
    if let Some((running, level)) = running {
        let (program, config) = (
            prek::program(&settings::state_directory()),
            &base.policy.spec.hooks.config,
        );
        // Asked for what is staged, it would set aside what is not.
        let alone = |id: &str| {
            let program = quoted(&program.display().to_string());
            format!(
                "`{program} run -c {} --all-files {}` runs it alone, on every file",
                quoted(config),
                quoted(id)
            )
        };
        for finding in running.findings(level, alone)? {
            examiner.found(finding);
        }
        examiner.took(Rule::Hook, began.elapsed());
    }
    Ok(())
}

/// Starts the hooks that have no native equal, if there are any.
fn start_hooks(
    repository: &Repository,
    base: &Base,
    changes: &[Change],
    printer: &Printer,
) -> anyhow::Result<Option<(prek::Running, Level)>> {
    let (Some(level), Some(root)) = (base.policy.level(Rule::Hook), repository.workdir()) else {
        return Ok(None);
    };
    let name = &base.policy.spec.hooks.config;
    let config = root.join(name);
    if changes.is_empty() || !config.is_file() {
        return Ok(None);
    }
    let text =
        std::fs::read_to_string(&config).map_err(|e| anyhow::anyhow!("cannot read {}: {e}", config.display()))?;
    let Some(rest) = hooks::rest(name, &text, &base.policy).map_err(prek::PrekError::Config)? else {
        return Ok(None);
    };
    let files: Vec<&[u8]> = changes.iter().map(|c| c.path.as_slice()).collect();
    printer.doing(format!("running {}", rest.ids.join(", ")));
    let running = prek::start(&settings::state_directory(), &root, &rest, &files)?;
    Ok(Some((running, level)))
}

fn commits(
    repository: &Repository,
    base: &Base,
    range: &str,
    branch: Branch,
    examiner: &mut Examiner,
) -> anyhow::Result<()> {
    let (from, to) = repository.range(range)?;
    walk(repository, base, to, from.as_slice(), branch, examiner)
}

fn push(repository: &Repository, base: &Base, outgoing: &[Outgoing], examiner: &mut Examiner) -> anyhow::Result<()> {
    for Outgoing { tip, to, hidden } in outgoing {
        if to.starts_with(NOTES) {
            // As the server has it: git writes the messages of notes itself.
            for id in new_commits(repository, base, *tip, hidden, examiner.commits_left())? {
                examiner.content_of(id)?;
            }
            continue;
        }
        let branch = branch_of(base, Some(to));
        walk(repository, base, *tip, hidden, branch, examiner)?;
    }
    Ok(())
}

fn walk(
    repository: &Repository,
    base: &Base,
    tip: Oid,
    hidden: &[Oid],
    branch: Branch,
    examiner: &mut Examiner,
) -> anyhow::Result<()> {
    for id in new_commits(repository, base, tip, hidden, examiner.commits_left())? {
        examiner.commit(id, branch, &Identity::Unknown)?;
    }
    Ok(())
}

/// What is new, the oldest first, but for what the policy spares as history.
fn new_commits(
    repository: &Repository,
    base: &Base,
    tip: Oid,
    hidden: &[Oid],
    most: usize,
) -> anyhow::Result<Vec<Oid>> {
    let since = examine::spared_by(repository, &base.policy);
    let hidden: Vec<Oid> = hidden.iter().copied().chain(since).collect();
    let Ok(ids) = repository.between(&[tip], &hidden, most)? else {
        return Err(Cut::Over(format!("more than {most} commits are new")).into());
    };
    Ok(ids)
}

fn branch_here(repository: &Repository, base: &Base) -> Branch {
    let here = repository.branch().map(|b| format!("refs/heads/{b}"));
    branch_of(base, here.as_deref())
}

fn branch_of(base: &Base, reference: Option<&str>) -> Branch {
    if reference.is_some_and(|name| base.protects(name)) {
        Branch::Protected
    } else {
        Branch::Topic
    }
}

fn message(repository: &Repository, base: &Base, file: &Path, examiner: &mut Examiner) -> anyhow::Result<()> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MOST_MESSAGE_BYTES).read_to_end(&mut bytes))
        .map_err(|e| anyhow::anyhow!("cannot read {}: {e}", file.display()))?;
    let comment = repository.setting("core.commentChar").filter(|c| c != "auto");
    let message = Message::being_written(&bytes, comment.as_deref().unwrap_or("#"));
    let head = repository.resolved("HEAD").map(|(_, id)| id);
    let reverted = message.reverts().and_then(|name| repository.known_commit(name));
    let revert = match (reverted, head) {
        (Some(reverted), Some(head)) if repository.is_ancestor(reverted, head) => Revert::OfAncestor,
        _ => Revert::Nothing,
    };
    let facts = Facts {
        parents: repository.is_merging().then_some(2),
        revert,
        branch: branch_here(repository, base),
        identity: Identity::Unknown,
    };
    examiner.secrets_of_text("message", "message", &bytes);
    examiner.message(None, &message, &facts);
    Ok(())
}

fn show(
    repository: &Repository,
    report: &Report,
    base: &Base,
    scope: &Scope,
    signed: Option<&Signed>,
    printer: &Printer,
) -> anyhow::Result<()> {
    printer.idle();
    if printer.output() == Output::Sarif {
        return printer.resource(&sarif::log(report.findings.kept()), |_| Ok(()));
    }
    let mut resource = resource(report, base, scope);
    if let Some(signed) = signed {
        resource["status"]["attested"] = signed.to_json();
    }
    let is_cut_short = matches!(scope, Scope::Range(_) | Scope::ToSign(_)) && repository.is_shallow();
    if is_cut_short {
        resource["status"]["historyIsCutShort"] = json!(true);
    }
    printer.resource(&resource, |p| {
        for finding in report.findings.kept() {
            p.line(&finding.to_string())?;
        }
        let looked_at = match scope {
            Scope::Message(_) => "the message".to_owned(),
            Scope::Staged | Scope::All | Scope::Range(_) | Scope::ToSign(_) | Scope::Push(_) => looked_at(report),
        };
        p.note(&summary(&looked_at, report, base));
        if is_cut_short {
            p.note(
                "this is a shallow clone: commits before its oldest are not here and were not looked at; \
                 `git fetch --unshallow` brings them",
            );
        }
        Ok(())
    })
}

/// What was looked at, in numbers.
pub(super) fn looked_at(report: &Report) -> String {
    match (report.commits, report.files) {
        (0, files) => count(files, "file"),
        (commits, files) => format!(
            "{} ({} without a finding that refuses), {}",
            count(commits, "commit"),
            commits - report.refused_commits,
            count(files, "file")
        ),
    }
}

/// What was looked at and what came of it, in a line.
pub(super) fn summary(looked_at: &str, report: &Report, base: &Base) -> String {
    let findings = &report.findings;
    let found = match (findings.refused(), findings.warned()) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, warned) => format!("{warned} suggested"),
        (refused, 0) => format!("{refused} refused"),
        (refused, warned) => format!("{refused} refused, {warned} suggested"),
    };
    let vouched = match report.vouched_commits {
        0 => String::new(),
        vouched => format!("; the files of {} as signed by a trusted key", count(vouched, "commit")),
    };
    format!("{looked_at}: {found} (policy: {}){vouched}", base.source)
}

/// The report as a resource.
pub(super) fn resource(report: &Report, base: &Base, scope: &Scope) -> Value {
    let Report {
        findings,
        commits,
        refused_commits,
        refused: _,
        vouched_commits: _,
        files,
        times,
        issues: _,
    } = report;
    let name = match scope {
        Scope::Staged => "staged",
        Scope::All => "all",
        Scope::Range(_) | Scope::ToSign(_) => "range",
        Scope::Message(_) => "message",
        Scope::Push(_) => "push",
    };
    let times: BTreeMap<Rule, u128> = times.iter().map(|(rule, time)| (*rule, time.as_micros())).collect();
    let known: BTreeSet<Rule> = times.keys().chain(findings.tallies().keys()).copied().collect();
    let rules: Vec<Value> = known
        .iter()
        .map(|rule| {
            let tally = findings.tallies().get(rule).cloned().unwrap_or_default();
            json!({
                "rule": rule.name(),
                // Rules of messages are asked together; their time is that of `message-text`.
                "micros": times.get(rule),
                "findings": tally.refused + tally.warned,
                "commits": tally.commits,
            })
        })
        .collect();
    json!({
        "apiVersion": API_VERSION,
        "kind": "CheckReport",
        "metadata": {"name": name},
        "spec": {"policy": {"source": base.source, "digest": base.policy.digest}},
        "status": {
            "verdict": if findings.refuse() { "Refused" } else { "Passed" },
            "refused": findings.refused(),
            "warned": findings.warned(),
            "omitted": findings.omitted(),
            "commits": commits,
            "refusedCommits": refused_commits,
            "files": files,
            "findings": findings.kept().iter().map(Finding::to_json).collect::<Vec<_>>(),
            "rules": rules,
        },
    })
}

/// Mends files of the checkout, and says how many. What is staged, committed or stashed is not touched, and a file that cannot
/// be replaced whole stays as it is.
fn mend(repository: &Repository, base: &Base, findings: &[Finding]) -> anyhow::Result<usize> {
    let Some(root) = repository.workdir() else {
        return Ok(0);
    };
    let of_rules = findings.iter().filter(|f| FIXABLE.contains(&f.rule));
    let paths: BTreeSet<&[u8]> = of_rules.filter_map(|f| f.path.as_deref()).collect();
    if paths.is_empty() {
        return Ok(0);
    }
    forget_left(repository.own_directory(), MENDING);
    // What two write that mend at once must not take the name of each other's file.
    let half = repository.own_directory().join(format!("{MENDING}{}", random_id()));
    let mut mended = 0;
    for path in paths {
        let Some((file, metadata)) = file_of_checkout(&root, path) else {
            continue;
        };
        let failed = |e: std::io::Error| anyhow::anyhow!("cannot mend {}: {e}", shown(path));
        let before = std::fs::read(&file).map_err(failed)?;
        let after = as_mended(base, path, &before);
        if after != before {
            replace(&file, &after, &metadata, &half).map_err(failed)?;
            mended += 1;
        }
    }
    Ok(mended)
}

/// A file's bytes after every repair that the policy asks for there.
fn as_mended(base: &Base, path: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut after = bytes.to_vec();
    for rule in FIXABLE {
        if base.policy.covers(rule, path)
            && let Some(better) = fixed(rule, &after)
        {
            after = better;
        }
    }
    after
}

/// A plain file of the checkout. A link leads elsewhere, and a file that is gone needs no mending.
fn file_of_checkout(root: &Path, path: &[u8]) -> Option<(PathBuf, std::fs::Metadata)> {
    let file = root.join(std::ffi::OsStr::from_bytes(path));
    let metadata = std::fs::symlink_metadata(&file).ok()?;
    (metadata.is_file() && !leads_elsewhere(root, path)).then_some((file, metadata))
}

/// Where the checkout has a file mended already, what is left to do is to stage it.
fn say_what_the_checkout_has(repository: &Repository, base: &Base, findings: &mut Findings) -> anyhow::Result<()> {
    let of_rules = findings.kept().iter().any(|f| FIXABLE.contains(&f.rule));
    let (Some(root), true) = (repository.workdir(), of_rules) else {
        return Ok(());
    };
    let staged: HashMap<Vec<u8>, Oid> = repository.tracked()?.into_iter().map(|c| (c.path, c.id)).collect();
    // git takes names as seen from where it is called, unless they say otherwise.
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
    let top = if here.is_some() && here == root.canonicalize().ok() {
        ""
    } else {
        ":/"
    };
    // One file may have a thousand findings.
    let mut known: HashMap<Vec<u8>, Option<(Vec<u8>, bool)>> = HashMap::new();
    findings.advise(|finding| {
        let path = finding.path.as_deref().filter(|_| FIXABLE.contains(&finding.rule))?;
        let checkout = known.entry(path.to_vec()).or_insert_with(|| {
            let (file, _) = file_of_checkout(&root, path)?;
            let there = std::fs::read(file).ok()?;
            let staged = repository.content(*staged.get(path)?).ok()?;
            let is_all = there == as_mended(base, path, &staged);
            Some((there, is_all))
        });
        let (there, is_all) = checkout.as_ref()?;
        let name = quoted(&format!("{top}{}", shown(path)));
        if *is_all {
            return Some(format!("the checkout has it mended: `git add {name}` takes that in"));
        }
        fixed(finding.rule, there).is_none().then(|| {
            format!("the checkout has it mended, with other changes: `git add -p {name}` takes in what you choose")
        })
    });
    Ok(())
}

/// Removes what those have left that were killed; what somebody writes just now is locked.
fn forget_left(directory: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let opened = std::fs::File::open(entry.path());
        if opened.is_ok_and(|half| half.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a directory on the way to a file is a link by now: what lies behind it is not of this checkout.
fn leads_elsewhere(root: &Path, path: &[u8]) -> bool {
    let Some(above) = Path::new(std::ffi::OsStr::from_bytes(path)).parent() else {
        return false;
    };
    let stated = root.canonicalize().map(|root| root.join(above));
    let found = root.join(above).canonicalize();
    // An index that somebody else has written can have a name that begins at the root of the machine.
    let inside = |found: &Path| root.canonicalize().is_ok_and(|root| found.starts_with(root));
    !matches!((stated, found), (Ok(stated), Ok(found)) if stated == found && inside(&found))
}

/// All or nothing: the new content is whole, and on the disk, before it takes the file's name. It is written beside git's own
/// files, so that what is half when the machine or somebody ends us is not taken for a new file of the checkout.
fn replace(file: &Path, content: &[u8], like: &std::fs::Metadata, half: &Path) -> std::io::Result<()> {
    let replaced = write_half(half, content, like).and_then(|_locked| {
        unchanged(file, like)?;
        match std::fs::rename(half, file) {
            // A checkout may lie on another disk than its repository.
            Err(why) if why.kind() == std::io::ErrorKind::CrossesDevices => replace_beside(file, content, like, half),
            renamed => renamed,
        }
    });
    // What is half is of no use.
    let _ = std::fs::remove_file(half);
    replaced
}

fn replace_beside(file: &Path, content: &[u8], like: &std::fs::Metadata, half: &Path) -> std::io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(half.file_name().unwrap_or_default());
    let beside = file.with_file_name(name);
    if let Some(directory) = file.parent() {
        forget_left(directory, &format!(".{MENDING}"));
    }
    write_half(&beside, content, like)
        .and_then(|_locked| std::fs::rename(&beside, file))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&beside);
        })
}

/// Locked for as long as it is held, so that nobody takes it for one that was left.
fn write_half(half: &Path, content: &[u8], like: &std::fs::Metadata) -> std::io::Result<std::fs::File> {
    let mut open = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(half)?;
    // Where there are no locks, nobody else can tell by one that it was left.
    let _ = open.try_lock();
    open.write_all(content)?;
    open.set_permissions(like.permissions())?;
    open.sync_all()?;
    Ok(open)
}

/// What somebody has written into the file since we read it must not be lost.
fn unchanged(file: &Path, read: &std::fs::Metadata) -> std::io::Result<()> {
    let now = std::fs::symlink_metadata(file)?;
    let identity = |m: &std::fs::Metadata| (m.ino(), m.len(), m.mtime(), m.mtime_nsec());
    if identity(&now) == identity(read) {
        return Ok(());
    }
    Err(std::io::Error::other("it was changed meanwhile; run the check again"))
}

/// Hooks that are not there check nothing, in silence; so we say it.
fn say_what_is_missing(printer: &Printer) {
    // Where git is not to be had, hooks are no matter.
    let Ok(directory) = HooksDirectory::find() else { return };
    let lacking = directory.lacking();
    if !lacking.is_empty() {
        let before = format!("this repository lacks the hooks {}; ", lacking.join(", "));
        say_how(&directory, &before, printer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_a_checkout_lead_to_no_mending() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path().join("checkout");
        std::fs::create_dir_all(root.join("d")).expect("made");
        std::fs::create_dir(place.path().join("other")).expect("made");
        let absolute = place.path().canonicalize().expect("there").join("other/f");
        for (path, elsewhere) in [
            (&b"f"[..], false),
            (b"d/f", false),
            (b"../other/f", true),
            (b"d/../../other/f", true),
            (absolute.as_os_str().as_bytes(), true),
        ] {
            assert_eq!(
                leads_elsewhere(&root, path),
                elsewhere,
                "{}",
                String::from_utf8_lossy(path)
            );
        }
    }

    #[test]
    fn what_a_killed_one_left_is_cleared_and_what_another_mends_just_now_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let named = |name: &str| place.path().join(format!("{MENDING}{name}"));
        std::fs::write(named("left"), "half").expect("written");
        std::fs::write(place.path().join("config"), "git's").expect("written");
        let like = std::fs::metadata(place.path().join("config")).expect("there");
        let held = write_half(&named("held"), b"whole", &like).expect("written");
        forget_left(place.path(), MENDING);
        assert_eq!(
            (
                named("left").exists(),
                named("held").exists(),
                place.path().join("config").exists()
            ),
            (false, true, true)
        );
        drop(held);
        forget_left(place.path(), MENDING);
        assert!(!named("held").exists());
    }

    #[test]
    fn what_somebody_writes_while_a_file_is_mended_is_kept() {
        let place = tempfile::tempdir().expect("a directory");
        let (file, half) = (place.path().join("f"), place.path().join("half"));
        std::fs::write(&file, "a \n").expect("written");
        let seen = std::fs::symlink_metadata(&file).expect("there");
        std::fs::write(&file, "more than that\n").expect("written");
        let why = replace(&file, b"a\n", &seen, &half).expect_err("it has changed");
        assert!(why.to_string().contains("changed meanwhile"), "{why}");
        assert_eq!(std::fs::read_to_string(&file).expect("there"), "more than that\n");
        let seen = std::fs::symlink_metadata(&file).expect("there");
        replace(&file, b"a\n", &seen, &half).expect("replaced");
        assert_eq!(std::fs::read_to_string(&file).expect("there"), "a\n");
        assert!(!half.exists());
    }
}

//! `stagegate verdict`: full runs of commits' hooks, and what came of them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::commits::base::Base;
use crate::commits::finding::plain;
use crate::commits::proof::{self, Outcome, Passed, Verdict, question};
use crate::commits::repository::Repository;
use crate::commits::sandbox::{self, Ask, AskedBase, Means};
use crate::commits::tracker::{IssueResult, Trackers, issues};
use crate::model::values::Digest;
use crate::store::runs::{Run, RunAsk, RunKey, RunPhase};

/// Runs that are listed unless asked otherwise: what fits on a screen.
const SHOWN: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The last runs: what waits, what is under way, what came out
    List {
        /// How many
        #[arg(long, value_name = "N", default_value_t = SHOWN)]
        last: u32,
    },
    /// What is known of a commit; exits 0 when it passed, 6 when it failed, 5 when nothing is proven yet
    Show {
        /// The commit, by its full name, or by any that the repository knows
        commit: String,
        /// The repository (default: the one around the working directory)
        #[arg(long, value_name = "PATH")]
        repository: Option<PathBuf>,
    },
    /// Run the hooks of a commit in the sandbox, here and now, keep the verdict, and sign it where this home has a key
    ///
    /// The policy and the list of hooks are those of the protected branch as it is now. Issues are looked up in the tracker.
    /// Exits as `show` does.
    Run {
        /// The commit
        commit: String,
        /// The repository (default: the one around the working directory)
        #[arg(long, value_name = "PATH")]
        repository: Option<PathBuf>,
    },
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    match arguments.action {
        Action::List { last } => list(last, printer),
        Action::Show { commit, repository } => show(&commit, repository, printer),
        Action::Run { commit, repository } => run_now(&commit, repository, printer).await,
    }
}

fn opened(path: Option<PathBuf>) -> anyhow::Result<Repository> {
    Ok(match path {
        Some(path) => Repository::open_at(&path)?,
        None => Repository::open()?,
    })
}

fn list(last: u32, printer: &Printer) -> anyhow::Result<Exit> {
    let runs = ground::look()?.store().runs(None, last)?;
    let items: Vec<Value> = runs.iter().map(resource).collect();
    let all = json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "HookRun"}, "items": items});
    printer.resource(&all, |p| {
        let rows = runs.iter().map(|run| {
            let key = &run.ask.key;
            vec![
                key.commit.get(..10).unwrap_or(&key.commit).to_owned(),
                state(run).to_owned(),
                run.attempts.to_string(),
                run.queued_at.to_string(),
                key.repository.clone(),
            ]
        });
        p.table(&["COMMIT", "STATE", "ATTEMPTS", "ASKED", "REPOSITORY"], rows.collect())
    })?;
    Ok(Exit::Done)
}

fn show(commit: &str, repository: Option<PathBuf>, printer: &Printer) -> anyhow::Result<Exit> {
    let full_name = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let (commit, names) = if full_name && repository.is_none() {
        (commit.to_ascii_lowercase(), None)
    } else {
        let repository = opened(repository)?;
        // `post-receive` queues by where the repository is; `verdict run` keeps by what proofs call it.
        let names = [
            repository.place().display().to_string(),
            question::repository_name(&repository, &Base::of(&repository)?),
        ];
        (repository.named_commit(commit)?.to_string(), Some(names))
    };
    let mut runs = ground::look()?.store().runs(Some(&commit), SHOWN)?;
    runs.retain(|run| {
        names
            .as_ref()
            .is_none_or(|names| names.contains(&run.ask.key.repository))
    });
    let Some(last) = runs.last() else {
        printer.done(&format!(
            "nothing is known of {commit}; `stagegate verdict run {commit}` runs its hooks"
        ));
        return Ok(Exit::Held);
    };
    printer.resource(&resource(last), |p| people(last, p))?;
    if let Some(what) = first_policy(last) {
        printer.note(&what);
    }
    Ok(exit(last))
}

/// The push that brings the first policy is judged without it, and so is all of a past that it would spare.
fn first_policy(run: &Run) -> Option<String> {
    let RunKey {
        repository,
        commit,
        policy,
        ..
    } = &run.ask.key;
    let failed = run
        .verdict
        .as_ref()
        .is_some_and(|verdict| verdict.outcome == Outcome::Failed);
    let pushed = run.ask.reference.is_some();
    let built_in = *policy == Digest::of(b"").to_string();
    (failed && pushed && built_in).then(|| {
        format!(
            "it was judged by the built-in policy, for the branch had none of its own before this push; `stagegate verdict run \
             {commit} --repository {repository}` judges it by the one that the branch has now"
        )
    })
}

async fn run_now(commit: &str, repository: Option<PathBuf>, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let interrupt = ground::interrupt(printer)?;
    let ask = {
        let repository = opened(repository)?;
        let (branch, tip) = Base::known_to(&repository);
        Ask {
            commit: repository.named_commit(commit)?,
            base: AskedBase {
                policy: None,
                branch,
                tip,
            },
            repository: repository.place(),
        }
    };
    printer.doing(format!("running the hooks of {}", ask.commit));
    let trackers = Trackers::of(&home, &ground::workspace());
    let means = Means {
        state: home.root(),
        trackers: &trackers,
    };
    let judged = tokio::select! {
        judged = sandbox::run(means, &ask) => judged?,
        () = interrupt.wait() => return Ok(Exit::Interrupted),
    };
    let verdict = judged.blamed(means, interrupt.wait()).await;
    printer.idle();
    let kept = RunAsk {
        key: RunKey {
            repository: verdict.subject.repository.clone(),
            commit: verdict.subject.commit.clone(),
            policy: verdict.policy.to_string(),
            engine: proof::engine().version,
        },
        reference: None,
        base_branch: ask.base.branch.clone(),
        base_tip: ask.base.tip.map(|tip| tip.to_string()),
    };
    home.store().put_verdict(&kept, &verdict, Timestamp::now())?;
    match proof::attest_where_there_is_a_key(&home, &verdict)? {
        Some(key) => printer.note(&format!("signed by key {}", key.short())),
        None => printer.note("not signed, since this home has no key; `stagegate attest key create` makes one"),
    }
    let run = Run {
        id: 0,
        ask: kept,
        phase: RunPhase::Done,
        attempts: 1,
        queued_at: verdict.started_at,
        verdict: Some(verdict),
        last_error: None,
    };
    printer.resource(&resource(&run), |p| people(&run, p))?;
    Ok(exit(&run))
}

fn is_deferred(run: &Run) -> bool {
    run.verdict.as_ref().is_some_and(Verdict::is_deferred)
}

/// One word for a list.
fn state(run: &Run) -> &'static str {
    match (&run.phase, run.verdict.as_ref().map(|v| &v.outcome)) {
        (RunPhase::Queued { .. }, _) => "Queued",
        (RunPhase::Running { .. }, _) => "Running",
        (RunPhase::Done, _) if run.is_given_up() => "GivenUp",
        (RunPhase::Done, Some(Outcome::Passed)) if is_deferred(run) => "Deferred",
        (RunPhase::Done, Some(Outcome::Passed)) => "Passed",
        (RunPhase::Done, Some(Outcome::Failed)) => "Failed",
        (RunPhase::Done, Some(Outcome::NotProven { .. }) | None) => "NotProven",
    }
}

fn exit(run: &Run) -> Exit {
    match run.verdict.as_ref().map(|v| &v.outcome) {
        Some(Outcome::Passed) if is_deferred(run) => Exit::Held,
        Some(Outcome::Passed) => Exit::Done,
        Some(Outcome::Failed) => Exit::Refused,
        Some(Outcome::NotProven { .. }) | None => Exit::Held,
    }
}

fn people(run: &Run, printer: &Printer) -> anyhow::Result<()> {
    match &run.phase {
        RunPhase::Queued { not_before } => printer.line(&format!("queued; not begun before {not_before}"))?,
        RunPhase::Running { since, by } => printer.line(&format!("running since {since:.0} by {by}"))?,
        RunPhase::Done => {}
    }
    if let Some(why) = &run.last_error {
        printer.line(&format!("the last attempt came to no verdict: {why}"))?;
    }
    if run.is_given_up() {
        printer.line(&format!(
            "given up after {} attempts; `stagegate verdict run {} --repository {}` runs it by itself",
            run.attempts, run.ask.key.commit, run.ask.key.repository
        ))?;
    }
    let Some(verdict) = &run.verdict else { return Ok(()) };
    for hook in &verdict.hooks {
        let how = if hook.native { "native" } else { "sandboxed" };
        let passed = match hook.passed {
            Passed::Yes => "passed",
            Passed::No => "failed",
        };
        printer.line(&format!("hook {} ({}, {how}): {passed}", hook.id, hook.revision))?;
    }
    for check in &verdict.issues {
        let keys = check.keys.join(" or ");
        printer.line(&match &check.result {
            IssueResult::Right { issue } => format!(
                "issue {}: {} in status {}, as of {}",
                plain(&issue.key),
                plain(&issue.kind),
                plain(&issue.status),
                issue.as_of
            ),
            IssueResult::Wrong { why } => format!("issue {}: {}", plain(&keys), plain(why)),
            IssueResult::Unavailable { why } => format!(
                "issue {} could not be looked up: {}; it is before the commit is built upon",
                plain(&keys),
                plain(why)
            ),
        })?;
    }
    for finding in &verdict.findings {
        printer.line(&line_of(finding))?;
    }
    for blame in &verdict.blames {
        printer.line(&blame.to_string())?;
    }
    printer.line(&conclusion(verdict))
}

fn conclusion(verdict: &Verdict) -> String {
    let commit = &verdict.subject.commit;
    let open: Vec<String> = issues::open(&verdict.issues)
        .map(|check| plain(&check.keys.join(" or ")))
        .collect();
    let by = format!(
        "policy {}, {} {}",
        verdict.policy, verdict.engine.name, verdict.engine.version
    );
    match &verdict.outcome {
        Outcome::Passed if verdict.is_deferred() => format!(
            "{commit} is deferred: what could be looked at passed, and these issues are still to be looked up: {} ({by}); `stagegate \
             verdict run {commit}` asks again",
            open.join(", ")
        ),
        Outcome::Passed => format!("{commit} passed ({by})"),
        Outcome::Failed => format!("{commit} failed ({by})"),
        Outcome::NotProven { why } => format!("{commit} is not proven: {why} ({by})"),
    }
}

/// A finding as `check` writes it; what it is made from is kept as JSON.
fn line_of(finding: &Value) -> String {
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let mut place: Vec<String> = [text("commit"), text("path")]
        .into_iter()
        .filter(|t| !t.is_empty())
        .collect();
    if let (Some(last), Some(line)) = (place.last_mut(), finding["line"].as_u64()) {
        *last = format!("{last}:{line}");
    }
    let fix = text("fix");
    let fix = if fix.is_empty() { fix } else { format!("; {fix}") };
    let suggested = if finding["level"] == "warned" {
        " (suggested)"
    } else {
        ""
    };
    format!(
        "{} {}{suggested} {}{fix}",
        place.join(" "),
        text("rule"),
        text("message")
    )
}

/// A run as a resource.
fn resource(run: &Run) -> Value {
    let key = &run.ask.key;
    let mut status = json!(run.phase);
    status["state"] = json!(state(run));
    status["attempts"] = json!(run.attempts);
    status["queuedAt"] = json!(run.queued_at);
    status["verdict"] = json!(run.verdict);
    status["lastError"] = json!(run.last_error);
    json!({
        "apiVersion": API_VERSION,
        "kind": "HookRun",
        "metadata": {"name": key.commit},
        "spec": run.ask,
        "status": status,
    })
}

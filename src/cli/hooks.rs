//! `stagegate hooks`: git's hooks of a clone.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};
use git2::Oid;

use super::Exit;
use super::check::{self, Caller, Mending, Outgoing, Scope};
use super::printer::Printer;
use crate::commits::base::Base;
use crate::commits::hooks;
use crate::commits::install::{HooksDirectory, STAGES, Sharing, State};
use crate::commits::prek::{self, PrekError};
use crate::commits::repository::Repository;
use crate::settings;

/// What git writes to pre-push for thousands of refs.
const MOST_INPUT_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Put pre-commit, commit-msg and pre-push in place, and fetch what they need
    ///
    /// Hooks that are there already are kept and run first. Where `core.hooksPath` leads to a directory that other
    /// repositories have, too, nothing is written unless --shared says so.
    Install {
        /// Write also where other repositories look for their hooks
        #[arg(long)]
        shared: bool,
    },
    /// Which hooks are in place; exits 6 when one is missing
    Status,
    /// Take ours out, and put back what was there before
    Uninstall,
    /// What the hooks run
    #[command(hide = true)]
    Run {
        /// pre-commit, commit-msg or pre-push
        stage: String,
        /// What git gives the hook
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<PathBuf>,
    },
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::Install { shared } => {
            let sharing = if *shared { Sharing::Wanted } else { Sharing::Refused };
            install(sharing, printer)
        }
        Action::Status => status(printer),
        Action::Uninstall => uninstall(printer),
        Action::Run { stage, arguments } => run_stage(stage, arguments, printer),
    }
}

/// The hooks directory of the repository around, and a plain word where there is none.
fn directory() -> anyhow::Result<HooksDirectory> {
    Repository::open()?;
    Ok(HooksDirectory::find()?)
}

fn install(sharing: Sharing, printer: &Printer) -> anyhow::Result<Exit> {
    let directory = directory()?;
    directory.is_own(sharing)?;
    // First what may fail without the network, so that no hook is in place that cannot run.
    fetch_what_is_needed(printer)?;
    let program = std::env::current_exe()?;
    for stage in STAGES {
        match directory.put(stage, &program)? {
            None => printer.note(&format!("{stage}: in place")),
            Some(kept) => printer.note(&format!("{stage}: in place; {} runs first", kept.display())),
        }
    }
    printer.note(&format!("hooks are in {}", directory.path().display()));
    Ok(Exit::Done)
}

/// prek and the environments of its hooks, where some hook has no native equal.
fn fetch_what_is_needed(printer: &Printer) -> anyhow::Result<()> {
    let repository = Repository::open()?;
    let Some(root) = repository.workdir() else {
        return Ok(());
    };
    let base = Base::of_clone(&repository)?;
    let name = &base.policy.spec.hooks.config;
    let config = root.join(name);
    let Ok(text) = std::fs::read_to_string(&config) else {
        return Ok(());
    };
    let Some(rest) = hooks::rest(name, &text, &base.policy).map_err(PrekError::Config)? else {
        printer.note(&format!("every hook of {name} runs natively"));
        return Ok(());
    };
    let (state, ids) = (settings::state_directory(), rest.ids.join(", "));
    printer.doing(format!("fetching prek {} for {ids}", prek::VERSION));
    let made = prek::fetch(&state).and_then(|_| prek::prepare(&state, &root, &rest));
    printer.idle();
    made.map_err(|why| {
        let what = format!("no hook was put in place, since {ids} of {name} cannot be made ready to run");
        anyhow::Error::new(why).context(what)
    })?;
    printer.note(&format!("prek {} runs {ids}", prek::VERSION));
    Ok(())
}

fn status(printer: &Printer) -> anyhow::Result<Exit> {
    let directory = directory()?;
    let mut rows = Vec::new();
    for stage in STAGES {
        let state = match directory.state(stage) {
            State::Ours => "in place",
            State::Foreign => "another's",
            State::Missing => "missing",
        };
        let kept = directory
            .kept(stage)
            .map_or("-".to_owned(), |p| p.display().to_string());
        rows.push(vec![stage.to_owned(), state.to_owned(), kept]);
    }
    printer.table(&["HOOK", "STATE", "RUNS FIRST"], rows)?;
    if directory.lacking().is_empty() {
        return Ok(Exit::Done);
    }
    say_how(&directory, "", printer);
    Ok(Exit::Refused)
}

/// What puts hooks in place here, after a sentence about those that are missing.
pub(super) fn say_how(directory: &HooksDirectory, before: &str, printer: &Printer) {
    match directory.is_own(Sharing::Refused) {
        Ok(()) => printer.note(&format!("{before}`stagegate hooks install` puts them in place")),
        // It would refuse; what it would say does not.
        Err(why) => printer.note(&format!("{before}{why}")),
    }
}

fn uninstall(printer: &Printer) -> anyhow::Result<Exit> {
    let directory = directory()?;
    for stage in STAGES {
        let what = match directory.take_out(stage)? {
            State::Ours => "taken out",
            State::Foreign => "another's, left alone",
            State::Missing => "was not there",
        };
        printer.note(&format!("{stage}: {what}"));
    }
    Ok(Exit::Done)
}

fn run_stage(stage: &str, arguments: &[PathBuf], printer: &Printer) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        STAGES.contains(&stage),
        "{stage} is no hook of ours; they are {}",
        STAGES.join(", ")
    );
    let mut input = Vec::new();
    if stage == "pre-push" {
        std::io::stdin().take(MOST_INPUT_BYTES + 1).read_to_end(&mut input)?;
        anyhow::ensure!(
            input.len() as u64 <= MOST_INPUT_BYTES,
            "the names of the refs that are pushed have more than 1 MiB; push them in parts"
        );
    }
    let directory = directory()?;
    if let Some(before) = directory.kept(stage)
        && !ran(&before, arguments, &input)?
    {
        printer.note(&format!("{} says no", before.display()));
        return Ok(Exit::Refused);
    }
    let repository = Repository::open()?;
    let mut base = Base::of_clone(&repository)?;
    if stage == "commit-msg" {
        // pre-commit has just said it of the same commit.
        base.note = None;
    }
    let (scope, mending) = match (stage, arguments) {
        ("pre-commit", _) => (Scope::Staged, Mending::Unwanted),
        ("commit-msg", [file, ..]) => (Scope::Message(file.clone()), Mending::Unwanted),
        ("commit-msg", []) => anyhow::bail!("git names no message; this runs as its commit-msg hook"),
        (_, arguments) => {
            let remote = arguments
                .first()
                .map(|r| r.to_string_lossy().into_owned())
                .unwrap_or_default();
            (
                Scope::Push(outgoing(&repository, &base, &input, &remote)?),
                Mending::Unwanted,
            )
        }
    };
    check::check(&repository, &base, &scope, mending, Caller::Hook, printer)
}

/// Runs a hook that was there before, and says whether it agreed.
fn ran(hook: &Path, arguments: &[PathBuf], input: &[u8]) -> anyhow::Result<bool> {
    let failed = |e: std::io::Error| anyhow::anyhow!("cannot run {}: {e}", hook.display());
    let mut child = Command::new(hook)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read what it is given.
        let _ = stdin.write_all(input);
    }
    Ok(child.wait().map_err(failed)?.success())
}

/// What git tells pre-push: `LOCAL-REF LOCAL-ID REMOTE-REF REMOTE-ID`, a line a ref (githooks(5)).
fn outgoing(repository: &Repository, base: &Base, input: &[u8], remote: &str) -> anyhow::Result<Vec<Outgoing>> {
    let tracked = format!("refs/remotes/{remote}/");
    let refs = repository.refs()?;
    let there: Vec<Oid> = refs
        .iter()
        .filter(|(name, _)| name.starts_with(&tracked))
        .map(|(_, id)| *id)
        .collect();
    let text = String::from_utf8_lossy(input);
    let mut outgoing = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, tip, to, old] = words.as_slice() else {
            anyhow::bail!("git says `{line}`, which is no LOCAL-REF LOCAL-ID REMOTE-REF REMOTE-ID");
        };
        // A ref that is deleted, or names no commit, has nothing to look at here; the server looks at all.
        let Some(tip) = repository.known_commit(tip) else {
            continue;
        };
        let old = repository.known_commit(old);
        // What a topic branch was allowed is looked at again where it arrives.
        let known: &[Oid] = if base.protects(to) && old.is_some() {
            &[]
        } else {
            &there
        };
        outgoing.push(Outgoing {
            tip,
            to: (*to).to_owned(),
            hidden: known.iter().copied().chain(old).collect(),
        });
    }
    Ok(outgoing)
}

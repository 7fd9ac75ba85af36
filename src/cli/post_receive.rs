//! `stagegate post-receive`: what a server runs once it has accepted a push. It asks for a full run of each ref's new tip.

use clap::Args;
use git2::Oid;
use jiff::Timestamp;

use super::printer::Printer;
use super::{Exit, ground};
use crate::commits::base::Base;
use crate::commits::proof;
use crate::commits::push::{self, Update};
use crate::commits::repository::{Repository, short};
use crate::commits::sandbox::full;
use crate::home::Home;
use crate::store::runs::{Enqueued, RunAsk, RunKey};

#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, printer: &Printer) -> Exit {
    // The push is accepted already: what cannot be done here is said, and does not look like a push that failed.
    if let Err(why) = ask(printer).map_err(ground::in_our_words) {
        printer.note(&format!(
            "stagegate: the hooks of this push will not run: {why}; `stagegate verdict run COMMIT` on the server runs them"
        ));
    }
    Exit::Done
}

fn ask(printer: &Printer) -> anyhow::Result<()> {
    let updates = push::read(std::io::stdin())?;
    let repository = Repository::open()?;
    let home = ground::home()?;
    let base = before(&repository, &updates);
    for update in &updates {
        // What a branch or a tag has can be built; notes and the rest cannot.
        let built = update.name.starts_with("refs/heads/") || update.name.starts_with("refs/tags/");
        let Some(new) = update.new.filter(|_| built) else {
            continue;
        };
        // A tag of a file has no hooks.
        let Ok(commit) = repository.named_commit(&new.to_string()) else {
            continue;
        };
        enqueue(&home, &repository, commit, update, &base, printer)?;
    }
    Ok(())
}

/// The protected branch as it was before this push, which has moved it by now.
fn before(repository: &Repository, updates: &[Update]) -> (Option<String>, Option<Oid>) {
    let (branch, now) = Base::of_bare(repository);
    let moved = updates.iter().find(|u| Some(repository.real_name(&u.name)) == branch);
    (branch, moved.map_or(now, |update| update.old))
}

fn enqueue(
    home: &Home,
    repository: &Repository,
    commit: Oid,
    update: &Update,
    (branch, tip): &(Option<String>, Option<Oid>),
    printer: &Printer,
) -> anyhow::Result<()> {
    let ask = RunAsk {
        key: RunKey {
            repository: repository.place().display().to_string(),
            commit: commit.to_string(),
            policy: full::policy_digest(repository, *tip)?.to_string(),
            engine: proof::engine().version,
        },
        reference: Some(update.name.clone()),
        base_branch: branch.clone(),
        base_tip: tip.map(|tip| tip.to_string()),
    };
    let what = match home.store().enqueue_run(&ask, Timestamp::now())? {
        Enqueued::New | Enqueued::Again => "are queued",
        Enqueued::Known => "are known, or queued already",
    };
    printer.note(&format!("stagegate: the hooks of {} {what}", short(commit)));
    Ok(())
}

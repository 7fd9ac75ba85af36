//! `stagegate attest note`: the one place where Stagegate writes into a repository. It is here, and not in the room of commits,
//! because nothing that a push runs may write (docs/ARCHITECTURE.md).

use clap::Args;

use super::verify::{Named, stored};
use crate::cli::Exit;
use crate::cli::printer::Printer;
use crate::commits::proof::notes::{self, REF};
use crate::commits::repository::short;

/// Who writes the note where git has not been told who the user is. It proves nothing: the signature in the note does.
const NOBODY: (&str, &str) = ("stagegate", "stagegate@localhost");
/// git sets it for what runs in a push's quarantine: a ref that is written there outlives a refused push, and leads nowhere.
const QUARANTINE: &str = "GIT_QUARANTINE_PATH";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    named: Named,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        std::env::var_os(QUARANTINE).is_none(),
        "notes are not written while a push is being received; run `stagegate attest note` after it"
    );
    let (repository, commit) = arguments.named.find()?;
    let envelopes: Vec<String> = stored(&repository, commit)?
        .into_iter()
        .map(|one| one.envelope)
        .collect();
    if envelopes.is_empty() {
        printer.done(&format!(
            "nothing is stored of commit {}, so there is nothing to note",
            short(commit)
        ));
        return Ok(Exit::Refused);
    }
    let git = git2::Repository::open(repository.directory())?;
    let before = match git.find_note(Some(REF), commit) {
        Ok(note) => Some(note.message()?.to_owned()),
        Err(none) if none.code() == git2::ErrorCode::NotFound => None,
        Err(why) => return Err(why.into()),
    };
    let Some(text) = notes::with(before.as_deref(), &envelopes) else {
        printer.done(&format!("the note of commit {} has all of it already", short(commit)));
        return Ok(Exit::Done);
    };
    let who = git.signature().or_else(|_| git2::Signature::now(NOBODY.0, NOBODY.1))?;
    // Refused where somebody else wrote a note since it was read: libgit2 compares the ref with the new commit's parent.
    git.note(&who, &who, Some(REF), commit, &text, true).map_err(|why| {
        anyhow::anyhow!(
            "cannot write the note of commit {} to {REF}: {why}; run it again",
            short(commit)
        )
    })?;
    printer.done(&format!(
        "noted at commit {}; `git push origin {REF}` takes it along",
        short(commit)
    ));
    Ok(Exit::Done)
}

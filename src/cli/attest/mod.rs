//! `stagegate attest`: keys, and what they have signed about commits.

mod keys;
mod note;
mod verify;

use clap::{Args, Subcommand};

use super::Exit;
use super::printer::Printer;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The keys of this home, which sign
    Key(keys::Arguments),
    /// What is proven of a commit, by whom, and by which policy; exits 6 when it is not proven
    ///
    /// Proven means: every rule and hook was content with this very commit and tree, by the policy that the protected branch has
    /// now, with every hook that it lists now, as signed by a key of this home or one that the policy trusts for `hooks`, which
    /// is not revoked.
    #[command(after_help = "Example:\n  stagegate attest verify HEAD --notes")]
    Verify(verify::Arguments),
    /// The signed envelopes that are stored of a commit, as they are
    Show(verify::Shown),
    /// Write what is stored of a commit into its git note below refs/notes/stagegate, to be pushed like a branch
    ///
    /// What stands in the note stays. Signs nothing.
    #[command(after_help = "Example:\n  stagegate attest note HEAD\n  git push origin refs/notes/stagegate")]
    Note(note::Arguments),
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::Key(arguments) => keys::run(arguments, printer),
        Action::Verify(arguments) => verify::run(arguments, printer),
        Action::Show(arguments) => verify::show(arguments, printer),
        Action::Note(arguments) => note::run(arguments, printer),
    }
}

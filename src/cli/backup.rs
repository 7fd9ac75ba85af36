//! `stagegate backup FILE`.

use std::path::PathBuf;

use clap::Args;

use super::printer::Printer;
use super::{Exit, ground};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file to make; refused when it exists
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    home.store().backup(&arguments.file)?;
    printer.done(&format!("copied the state to {}", arguments.file.display()));
    Ok(Exit::Done)
}

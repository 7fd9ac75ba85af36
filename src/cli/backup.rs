//! `stagegate backup FILE`.

use std::path::PathBuf;

use clap::Args;

use super::Exit;
use super::ground::GroundError;
use super::printer::Printer;
use crate::home::Home;
use crate::settings;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file to make; refused when it exists
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let root = settings::state_directory();
    let home = Home::existing(&root)?.ok_or(GroundError::NoState(root))?;
    home.store().backup(&arguments.file)?;
    printer.done(&format!("copied the state to {}", arguments.file.display()));
    Ok(Exit::Done)
}

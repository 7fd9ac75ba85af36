//! `stagegate backup FILE`.

use std::path::PathBuf;

use clap::Args;

use super::Exit;
use super::ground::GroundError;
use super::printer::Printer;
use crate::home::Home;
use crate::settings;
use crate::store::StoreError;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file to make; refused when it exists
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let root = settings::state_directory();
    let home = Home::existing(&root)?.ok_or(GroundError::NoState(root))?;
    let to = &arguments.file;
    home.store().backup(to).map_err(|why| match why {
        StoreError::Exists { .. } => anyhow::Error::from(GroundError::BackupExists(to.clone())),
        StoreError::Place { source, .. } => GroundError::BackupRefused { to: to.clone(), source }.into(),
        other => other.into(),
    })?;
    printer.done(&format!("copied the state to {}", arguments.file.display()));
    Ok(Exit::Done)
}

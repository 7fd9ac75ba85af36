//! `stagegate lint FILE|DIR`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::printer::Printer;
use super::up::count;
use super::{Exit, ground};
use crate::workspace::{Linted, Reading, Workspace};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files, or directories that are looked through: of one that has environments/ those and its pipelines/. The
    /// workspace without
    paths: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let mut reading = Reading::default();
    let mut all = Linted::default();
    for (workspace, paths) in by_workspace(&arguments.paths) {
        let Linted { files, resources } = workspace.lint(&paths, &mut reading);
        all.files += files;
        all.resources += resources;
    }
    reading.into_result()?;
    printer.done(&format!(
        "{} in {}: nothing is wrong",
        count(all.resources, "resource"),
        count(all.files, "file")
    ));
    Ok(Exit::Done)
}

/// A path that is given means what the shell means by it, as with any program; only what is not there is looked for in
/// the workspace. It is checked with the templates and environments that lie around it.
fn by_workspace(given: &[PathBuf]) -> BTreeMap<Workspace, Vec<PathBuf>> {
    let ours = ground::workspace();
    if given.is_empty() {
        return BTreeMap::from([(ours.clone(), ours.places())]);
    }
    let mut all: BTreeMap<Workspace, Vec<PathBuf>> = BTreeMap::new();
    for path in given {
        let path = if path.exists() {
            path.clone()
        } else {
            ours.root().join(path)
        };
        let workspace = Workspace::around(&path).unwrap_or_else(|| ours.clone());
        let is_whole = path.is_dir() && path.join("environments").is_dir();
        let paths = if is_whole { workspace.places() } else { vec![path] };
        all.entry(workspace).or_default().extend(paths);
    }
    all
}

//! `stagegate lint FILE|DIR`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::printer::Printer;
use super::up::count;
use super::{Exit, ground};
use crate::workspace::Workspace;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files, or directories that are looked through; the workspace's environments/ and pipelines/ without
    paths: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let workspace = ground::workspace();
    let (mut files, mut resources) = (0, 0);
    for path in paths(&workspace, &arguments.paths) {
        let linted = workspace.lint(&path)?;
        files += linted.files;
        resources += linted.resources;
    }
    printer.note(&format!(
        "{} in {}: nothing is wrong",
        count(resources, "resource"),
        count(files, "file")
    ));
    Ok(Exit::Done)
}

/// A path that is given means what the shell means by it, as with any program; only what is not there is looked for in
/// the workspace. Without one it is the workspace's own files, wherever the command stands.
fn paths(workspace: &Workspace, given: &[PathBuf]) -> Vec<PathBuf> {
    let in_workspace = |path: &Path| workspace.root().join(path);
    if given.is_empty() {
        let pipelines = in_workspace(Path::new("pipelines"));
        let mut all = vec![in_workspace(Path::new("environments"))];
        all.extend(pipelines.is_dir().then_some(pipelines));
        return all;
    }
    let place = |path: &PathBuf| {
        if path.exists() {
            path.clone()
        } else {
            in_workspace(path)
        }
    };
    given.iter().map(place).collect()
}

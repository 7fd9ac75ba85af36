//! `stagegate lint FILE|DIR`.

use std::path::PathBuf;

use clap::Args;

use super::printer::Printer;
use super::up::count;
use super::{Exit, ground};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files, or directories that are looked through
    #[arg(default_values_t = [String::from("environments"), String::from("pipelines")])]
    paths: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let workspace = ground::workspace();
    let (mut files, mut resources) = (0, 0);
    for path in &arguments.paths {
        let mut path = PathBuf::from(path);
        if !path.exists() && path.is_relative() {
            path = workspace.root().join(path);
        }
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

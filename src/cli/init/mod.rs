//! `stagegate init DIR`: a workspace with commented starters that work.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Exit;
use super::called::quoted;
use super::ground::GroundError;
use super::printer::Printer;

/// Path in the workspace, and text.
const STARTERS: [(&str, &str); 8] = [
    (
        "environments/demo.yaml",
        include_str!("starters/environments/demo.yaml"),
    ),
    (
        "pipelines/demo-restart.yaml",
        include_str!("starters/pipelines/demo-restart.yaml"),
    ),
    (
        "templates/web/install.sh",
        include_str!("starters/templates/web/install.sh"),
    ),
    (
        "templates/web/start.sh",
        include_str!("starters/templates/web/start.sh"),
    ),
    ("templates/web/stop.sh", include_str!("starters/templates/web/stop.sh")),
    ("hooks/README.md", include_str!("starters/hooks/README.md")),
    (
        "builds/web/1.0/index.html",
        include_str!("starters/builds/web/1.0/index.html"),
    ),
    (
        "builds/web/2.0/index.html",
        include_str!("starters/builds/web/2.0/index.html"),
    ),
];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The directory; made when it is not there. Nothing in it is overwritten
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { directory } = arguments;
    // All of them before the first is written: half a workspace helps nobody.
    let there: Vec<&str> = STARTERS
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| std::fs::symlink_metadata(directory.join(path)).is_ok())
        .collect();
    if !there.is_empty() {
        return Err(GroundError::WouldOverwrite {
            directory: directory.clone(),
            there: there.join(", "),
        }
        .into());
    }
    for (path, text) in STARTERS {
        write(&directory.join(path), text)?;
    }
    let place = directory.display();
    printer.done(&format!("made a workspace in {place}; to go on:"));
    let place = quoted(&place.to_string());
    for line in [
        "stagegate lint",
        "stagegate up demo",
        "stagegate upgrade demo --build web=2.0",
        "stagegate rehearse demo-restart",
        "stagegate down demo --purge",
    ] {
        printer.command(&format!("STAGEGATE_WORKSPACE={place} {line}"));
    }
    Ok(Exit::Done)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = |e: std::io::Error| anyhow::anyhow!("cannot write {}: {e}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let mode = if path.extension().is_some_and(|e| e == "sh") {
        0o755
    } else {
        0o644
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

//! `stagegate gate replay EVIDENCE`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::ground::GroundError;
use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::gates::evidence::{Evidence, EvidenceError};

/// More than the longest record of a window: 40,000 samples of some 300 bytes.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Compute a recorded verdict again from its samples alone
    Replay {
        /// The record: a path, or as an upgrade's status names it
        evidence: PathBuf,
    },
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Action::Replay { evidence } = &arguments.action;
    let text = read(evidence)?;
    let (record, edited) = match text.parse::<Evidence>() {
        Ok(record) => (record, None),
        Err(EvidenceError::Edited {
            evidence,
            stated,
            computed,
        }) => {
            let why = format!("this record was edited: it states SHA-256 {stated}, and its lines have {computed}");
            (*evidence, Some(why))
        }
        Err(other) => return Err(unusable(evidence, other).into()),
    };
    let replay = record.replay()?;
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Replay",
        "metadata": {"name": evidence.file_name().map(|n| n.to_string_lossy())},
        "status": {"same": replay.same, "edited": edited, "recorded": replay.recorded, "recomputed": replay.recomputed},
    });
    printer.resource(&resource, |p| {
        let line = |r: &crate::gates::Reading| format!("{:?}, {} of {} calls bad", r.verdict, r.bad, r.n);
        p.line(&format!("recorded:   {}", line(&replay.recorded)))?;
        p.line(&format!("recomputed: {}", line(&replay.recomputed)))?;
        p.line(if replay.same {
            "the same, bit for bit"
        } else {
            "not the same"
        })
    })?;
    if let Some(why) = edited {
        anyhow::bail!("{why}; do not trust the recorded verdict");
    }
    anyhow::ensure!(replay.same, "the samples do not give the recorded verdict");
    Ok(Exit::Done)
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> GroundError {
    GroundError::Evidence {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn read(path: &Path) -> Result<String, GroundError> {
    let mut found = path.to_owned();
    if !found.exists() && path.is_relative() {
        found = ground::state_directory().join(path);
    }
    let length = std::fs::metadata(&found).map_err(|e| unusable(path, e))?.len();
    if length > MOST_BYTES {
        return Err(unusable(path, format!("it has {length} bytes; no record is that long")));
    }
    std::fs::read_to_string(&found).map_err(|e| unusable(path, e))
}

//! Resources as commands show them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Output;
use super::printer::Printer;
use crate::engine::session::KnownBuild;
use crate::home::Home;
use crate::model::upgrade::UpgradeStatus;
use crate::model::values::Digest;
use crate::store::UpgradeRecord;

pub(super) const API_VERSION: &str = "stagegate.dev/v1alpha1";

/// Names of builds by digest: a status keeps digests, people know names.
pub(super) struct Names(BTreeMap<Digest, String>);

impl Names {
    pub(super) fn read(home: &Home) -> anyhow::Result<Self> {
        let builds = KnownBuild::all(home)?;
        Ok(Self(
            builds.into_iter().map(|(name, b)| (b.spec.digest, name)).collect(),
        ))
    }

    pub(super) fn of(&self, digest: Option<&Digest>) -> String {
        match digest {
            None => "-".to_owned(),
            Some(digest) => self.0.get(digest).cloned().unwrap_or_else(|| digest.short()),
        }
    }
}

/// An upgrade as a resource: its nodes carry the names of builds, with the digests beside.
pub(super) fn upgrade(record: &UpgradeRecord, names: &Names) -> anyhow::Result<Value> {
    let mut status = serde_json::to_value(&record.status)?;
    if let Some(nodes) = status["nodes"].as_array_mut() {
        for (shown, node) in nodes.iter_mut().zip(&record.status.nodes) {
            shown["digest"] = json!(node.build);
            shown["build"] = json!(node.build.as_ref().map(|d| names.of(Some(d))));
        }
    }
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": "Upgrade",
        "metadata": {
            "name": record.name,
            "resourceVersion": record.resource_version.to_string(),
            "creationTimestamp": record.created_at,
        },
        "spec": record.spec,
        "status": status,
    }))
}

/// An upgrade for people.
pub(super) fn upgrade_for_people(printer: &Printer, record: &UpgradeRecord, names: &Names) -> anyhow::Result<()> {
    let UpgradeStatus {
        phase,
        reason,
        message,
        nodes,
        gates,
        blockers,
        ..
    } = &record.status;
    printer.line(&format!("{} {phase:?} ({reason}): {message}", record.name))?;
    let now = Timestamp::now();
    let wide = printer.output() == Output::Wide;
    let rows = nodes
        .iter()
        .map(|node| {
            let gate = gates
                .iter()
                .filter(|g| g.node == node.name)
                .map(|g| format!("{} {:?}", g.name, g.verdict))
                .collect::<Vec<_>>()
                .join(", ");
            let mut row = vec![
                node.name.clone(),
                node.address.clone(),
                names.of(node.build.as_ref()),
                format!("{:?}", node.phase),
                gate,
                age(now, node.since),
                node.installs.to_string(),
                node.restarts.to_string(),
            ];
            if wide {
                row.extend([
                    names.of(node.from.as_ref()),
                    format!("{}+{}", node.rollback_installs, node.rollback_restarts),
                    node.step.as_ref().map_or_else(|| "-".to_owned(), |s| s.id.clone()),
                    first_line(node.trouble.as_deref().unwrap_or("-")),
                ]);
            }
            row
        })
        .collect();
    let mut header = vec![
        "NODE", "ADDRESS", "BUILD", "PHASE", "GATE", "AGE", "INSTALLS", "RESTARTS",
    ];
    if wide {
        header.extend(["FROM", "BACK", "STEP", "TROUBLE"]);
    }
    printer.table(&header, rows)?;
    for blocker in blockers {
        printer.line(&blocker.to_string())?;
    }
    Ok(())
}

/// What stands in a table: a script's last words may be many lines.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// `5s`, `3m`, `2h`, `4d`, as Kubernetes' tables have ages.
pub(super) fn age(now: Timestamp, since: Timestamp) -> String {
    let s = now.duration_since(since).as_secs().max(0);
    match s {
        0..120 => format!("{s}s"),
        120..7_200 => format!("{}m", s / 60),
        7_200..172_800 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

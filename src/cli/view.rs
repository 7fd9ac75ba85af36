//! Resources as commands show them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Output;
use super::printer::Printer;
use crate::engine::session::KnownBuild;
use crate::home::Home;
use crate::model::upgrade::{Blocker, Cause, GateStatus, Kept, NodePhase, NodeStatus, UpgradeStatus, Verdict};
use crate::model::values::Digest;
use crate::report::in_one_line;
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

    pub(super) fn digest(&self, name: &str) -> Option<Digest> {
        let mut all = self.0.iter();
        all.find(|(_, known)| known.as_str() == name).map(|(digest, _)| *digest)
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
    let cure = record.status.cure.iter().flat_map(|cure| &cure.gates);
    name_builds(status.pointer_mut("/gates"), record.status.gates.iter(), names);
    name_builds(status.pointer_mut("/cure/gates"), cure, names);
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

/// As nodes: the name of the build, with the digest beside.
fn name_builds<'a>(shown: Option<&mut Value>, gates: impl Iterator<Item = &'a GateStatus>, names: &Names) {
    let shown = shown.and_then(Value::as_array_mut).into_iter().flatten();
    for (shown, gate) in shown.zip(gates) {
        if let Some(build) = &gate.build {
            shown["digest"] = json!(build);
            shown["build"] = json!(names.of(Some(build)));
        }
    }
}

/// What the gates said of a node. A verdict on a build that the node no longer runs says so: beside one that was cured a bare
/// `Fail` reads as if it failed now.
fn gates_of(status: &UpgradeStatus, node: &NodeStatus, names: &Names) -> String {
    let cured = status.cure.iter().flat_map(|cure| &cure.gates);
    let words = status.gates.iter().filter(|g| g.node == node.name).map(|gate| {
        let said = format!("{} {:?}", gate.name, gate.verdict);
        let of_another = gate.build.is_some() && gate.build != node.build;
        if gate.verdict != Verdict::Fail || !(of_another || status.cure.is_some()) {
            return said;
        }
        let since = cured.clone().find(|c| c.node == gate.node && c.name == gate.name);
        let since = since.map_or_else(String::new, |c| format!(", {:?} since it is back", c.verdict));
        match &gate.build {
            Some(build) => format!("{said} on {}{since}", names.of(Some(build))),
            None => format!("{said} before it went back{since}"),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Why a node is out of service, if it is; and since when.
pub(super) fn out_of_service(node: &NodeStatus) -> Option<(Timestamp, String)> {
    let trouble = || node.trouble.clone().unwrap_or_else(|| "it was given up".to_owned());
    match (&node.lost, node.phase) {
        (_, NodePhase::OutOfService | NodePhase::Removing) => Some((node.since, trouble())),
        (Some(lost), _) => Some((lost.since, lost.how.to_string())),
        (None, _) => None,
    }
}

/// An upgrade for people.
pub(super) fn upgrade_for_people(printer: &Printer, record: &UpgradeRecord, names: &Names) -> anyhow::Result<()> {
    let UpgradeStatus {
        phase,
        reason,
        message,
        nodes,
        blockers,
        cause,
        kept,
        ..
    } = &record.status;
    printer.line(&format!(
        "{} {phase:?} ({reason}): {}",
        record.name,
        in_one_line(message)
    ))?;
    if let Some(kept) = kept {
        printer.sentence(&still_kept(record, kept))?;
    }
    let now = Timestamp::now();
    let wide = printer.output() == Output::Wide;
    let rows = nodes
        .iter()
        .map(|node| {
            let gate = gates_of(&record.status, node, names);
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
    for node in nodes {
        if let Some((since, why)) = out_of_service(node) {
            let (name, age) = (&node.name, age(now, since));
            printer.line(&format!(
                "{name} is out of service since {} ({age}): {}",
                moment(since),
                in_one_line(&why)
            ))?;
        }
    }
    why_it_went_back(printer, cause.as_ref(), blockers)
}

/// That an upgrade has not given back what it had, and why.
pub(super) fn still_kept(record: &UpgradeRecord, kept: &Kept) -> String {
    let why = kept.why.as_deref().unwrap_or("nobody has tried yet");
    format!(
        "{} is still kept from its owner ({}); who drives gives it back once that can be done, and `stagegate resume {}` tries it at once",
        record.spec.component,
        in_one_line(why),
        record.spec.environment
    )
}

/// Why nodes went back, which the message of how that ended does not say, and who held what others waited for.
pub(super) fn why_it_went_back(printer: &Printer, cause: Option<&Cause>, blockers: &[Blocker]) -> anyhow::Result<()> {
    if let Some(Cause { reason, message, at }) = cause {
        let (at, message) = (moment(*at), in_one_line(message));
        printer.line(&format!("went back at {at} ({reason}): {message}"))?;
    }
    // What was cut of a long message is not said.
    let said = |blocker: &str| cause.is_some_and(|cause| in_one_line(&cause.message).contains(blocker));
    for blocker in blockers.iter().map(|blocker| in_one_line(&blocker.to_string())) {
        if !said(&blocker) {
            printer.line(&blocker)?;
        }
    }
    Ok(())
}

/// What stands in a table: a script's last words may be many lines.
fn first_line(text: &str) -> String {
    in_one_line(text.lines().next().unwrap_or_default())
}

/// A time for people: nobody reads what is below a second.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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

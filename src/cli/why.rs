//! `stagegate why ENV`: the first thing that keeps an upgrade from going on, and what clears it.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::ground::GroundError;
use super::printer::Printer;
use super::view::{API_VERSION, age};
use super::{Exit, ground};
use crate::engine::session;
use crate::model::upgrade::{NodePhase, Phase, Verdict};
use crate::store::{Store as _, UpgradeRecord};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
}

/// An unmet condition.
struct Unmet {
    rule: String,
    value: String,
    since: Timestamp,
    clears: String,
    next: String,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let environment = &arguments.environment;
    let last = home.store().upgrades(Some(environment), 1)?.pop();
    let Some(record) = last else {
        return Err(GroundError::NeverUpgraded(environment.clone()).into());
    };
    let unmet = unmet(&record);
    let Unmet {
        rule,
        value,
        since,
        clears,
        next,
    } = &unmet;
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Why",
        "metadata": {"name": record.name},
        "spec": {"environment": environment, "upgrade": record.name},
        "status": {"phase": record.status.phase, "rule": rule, "value": value, "since": since, "clears": clears, "next": next},
    });
    printer.resource(&resource, |p| {
        p.line(&format!(
            "{} is {:?} ({})",
            record.name, record.status.phase, record.status.reason
        ))?;
        p.line(&format!("rule:   {rule}"))?;
        p.line(&format!("value:  {value}"))?;
        p.line(&format!("since:  {since} ({})", age(Timestamp::now(), *since)))?;
        p.line(&format!("clears: {clears}"))?;
        p.line(&format!("next:   {next}"))?;
        for blocker in &record.status.blockers {
            p.line(&blocker.to_string())?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn unmet(record: &UpgradeRecord) -> Unmet {
    let status = &record.status;
    let environment = &record.spec.environment;
    let again = format!(
        "stagegate upgrade {environment} --build {}",
        session::wanted(&record.spec)
    );
    let simple = |rule: &str, clears: &str, next: String| Unmet {
        rule: rule.to_owned(),
        value: status.message.clone(),
        since: status.since,
        clears: clears.to_owned(),
        next,
    };
    match status.phase {
        Phase::Paused | Phase::Inconclusive => simple(
            &format!("the upgrade is held: {}", status.reason),
            "the cause mended, then `resume`; or `abort`",
            format!("stagegate resume {environment}"),
        ),
        Phase::Succeeded => simple(
            "none: it is done",
            "nothing to clear",
            format!("stagegate status {environment}"),
        ),
        Phase::RolledBack | Phase::RollbackIneffective | Phase::Failed => simple(
            "a build that failed here is quarantined",
            "another build, or a release with a reason",
            format!(
                "stagegate build release {} --env {environment} --reason TEXT",
                record.spec.build
            ),
        ),
        Phase::Aborted | Phase::Errored => simple("it has ended", "a new upgrade", again),
        Phase::Pending | Phase::Preflight => {
            simple("every node checked and the build prepared", "the checks ending", again)
        }
        Phase::Baseline | Phase::Soak => simple(
            "every gate read for long enough",
            "time with clean calls",
            format!("stagegate status {environment} -w"),
        ),
        Phase::Rolling | Phase::RollingBack => rolling(record),
    }
}

fn rolling(record: &UpgradeRecord) -> Unmet {
    let status = &record.status;
    let next = format!("stagegate status {} -w", record.spec.environment);
    let Some(node) = status.nodes.iter().find(|n| n.in_batch) else {
        return Unmet {
            rule: "a place to take the next node out of service (maxUnavailable)".to_owned(),
            value: status.message.clone(),
            since: status.since,
            clears: "a node that is out coming back into service".to_owned(),
            next,
        };
    };
    let gate = status
        .gates
        .iter()
        .find(|g| g.node == node.name && g.verdict != Verdict::Pass)
        .filter(|_| node.phase == NodePhase::Analyse);
    match gate {
        Some(gate) => Unmet {
            rule: format!("gate {} passes on {}", gate.name, node.name),
            value: gate.reason.clone(),
            since: node.since,
            clears: "enough clean calls".to_owned(),
            next,
        },
        None => Unmet {
            rule: format!("{} gets through {:?}", node.name, node.phase),
            value: node
                .step
                .as_ref()
                .map_or_else(|| "waiting".to_owned(), |s| format!("step {} runs", s.id)),
            since: node.since,
            clears: "the step ending well".to_owned(),
            next,
        },
    }
}

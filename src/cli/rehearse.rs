//! `stagegate rehearse FILE`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground, upgrade};
use crate::engine::disturb::Disturbances;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::session::{KnownBuild, Refusal, SessionError};
use crate::home::Home;
use crate::model::rehearsal::{RehearsalSpec, unmet};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rehearsal's name in pipelines/, or a file
    rehearsal: String,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let workspace = ground::workspace();
    let (name, spec) = workspace.rehearsal(&arguments.rehearsal)?;
    let home = ground::home()?;
    let fleet = ground::fleet(&home, &workspace, &spec.environment)?;
    let interrupt = ground::interrupt()?;
    let outcome = rehearse(&home, &fleet, &spec, interrupt, printer, Quarantined::IsUnmet).await?;
    show(&name, &spec, &outcome, printer)?;
    Ok(outcome.exit())
}

/// What a quarantine from an earlier time means for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quarantined {
    /// The run did not come out as expected.
    IsUnmet,
    /// It was shown before; the refusal is told, and the run left out.
    WasShown,
}

/// One run's outcome.
pub(super) struct Ran {
    pub(super) phase: String,
    pub(super) unmet: Vec<String>,
    pub(super) upgrade: Option<String>,
}

/// What came out of a rehearsal.
pub(super) struct Outcome {
    pub(super) runs: Vec<Ran>,
    pub(super) interrupted: bool,
}

impl Outcome {
    pub(super) fn exit(&self) -> Exit {
        if self.interrupted {
            Exit::Interrupted
        } else if self.runs.iter().all(|r| r.unmet.is_empty()) {
            Exit::Done
        } else {
            Exit::GateFailed
        }
    }
}

/// Carries out every run with the disturbances going on; a run that comes out otherwise ends it, since the next one
/// would begin on other ground than it says.
pub(super) async fn rehearse(
    home: &Home,
    fleet: &Arc<Fleet>,
    spec: &RehearsalSpec,
    interrupt: Interrupt,
    printer: &Printer,
    quarantined: Quarantined,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome {
        runs: Vec::new(),
        interrupted: false,
    };
    for run in &spec.runs {
        printer.note(&format!("{}: expecting {:?}", run.build, run.expect.phase));
        let disturbances = Disturbances::start(fleet, &spec.disturbances)?;
        let driven = upgrade::carry_out(home, fleet, &run.build, None, interrupt.clone(), printer).await;
        for trouble in disturbances.stop().await {
            printer.note(&format!("disturbance: {trouble}"));
        }
        let done = match driven {
            Ok(done) => done,
            Err(error) => match error.downcast_ref::<SessionError>() {
                Some(SessionError::Refused(refusal @ Refusal::Quarantined { .. }))
                    if quarantined == Quarantined::WasShown =>
                {
                    printer.note(&format!("refused: {refusal}"));
                    outcome.runs.push(Ran {
                        phase: "Refused".to_owned(),
                        unmet: Vec::new(),
                        upgrade: None,
                    });
                    continue;
                }
                _ => return Err(error),
            },
        };
        if done.exit == Exit::Interrupted {
            outcome.interrupted = true;
            return Ok(outcome);
        }
        let known = KnownBuild::find(home, &done.record.spec.build)?;
        let is_quarantined = known.is_some_and(|b| b.status.quarantined_in(&spec.environment).is_some());
        let differs = unmet(&run.expect, &done.record.status, is_quarantined);
        let stop = !differs.is_empty();
        upgrade::show_for_people(home, &done, printer)?;
        outcome.runs.push(Ran {
            phase: format!("{:?}", done.record.status.phase),
            unmet: differs,
            upgrade: Some(done.record.name),
        });
        if stop {
            break;
        }
    }
    Ok(outcome)
}

pub(super) fn show(name: &str, spec: &RehearsalSpec, outcome: &Outcome, printer: &Printer) -> anyhow::Result<()> {
    let runs: Vec<_> = spec
        .runs
        .iter()
        .enumerate()
        .map(|(i, run)| {
            let ran = outcome.runs.get(i);
            let mut shown = BTreeMap::from([
                ("build", json!(run.build)),
                ("expected", json!(run.expect.phase)),
                ("phase", json!(ran.map(|r| &r.phase))),
                ("unmet", json!(ran.map(|r| &r.unmet))),
            ]);
            shown.insert("upgrade", json!(ran.and_then(|r| r.upgrade.as_ref())));
            shown
        })
        .collect();
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Rehearsal",
        "metadata": {"name": name},
        "spec": spec,
        "status": {"runs": runs, "finishedAt": Timestamp::now()},
    });
    printer.resource(&resource, |p| {
        for (i, run) in spec.runs.iter().enumerate() {
            let line = match outcome.runs.get(i) {
                None => "not run".to_owned(),
                Some(ran) if ran.unmet.is_empty() => format!("{}, as expected", ran.phase),
                Some(ran) => format!("not as expected: {}", ran.unmet.join("; ")),
            };
            p.line(&format!("{:<28} {line}", run.build))?;
        }
        Ok(())
    })
}

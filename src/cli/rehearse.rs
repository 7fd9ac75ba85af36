//! `stagegate rehearse FILE`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::printer::Printer;
use super::upgrade::{self, Carrier, Done, Patience};
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::engine::disturb::Disturbances;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::session::{Asked, KnownBuild, Refusal, SessionError};
use crate::home::Home;
use crate::model::rehearsal::{Disturbance, RehearsalSpec, unmet};
use crate::settings;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rehearsal's name in pipelines/, or a file
    rehearsal: String,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let workspace = ground::workspace();
    let (name, spec) = workspace.rehearsal(&arguments.rehearsal, ground::port_shift()?)?;
    let (home, fleet) = ground::operable(&spec.environment, ground::home)?;
    let interrupt = ground::interrupt(printer)?;
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

impl Ran {
    /// A run that a quarantine kept from taking place.
    fn refused(refusal: &Refusal, quarantined: Quarantined) -> Self {
        Self {
            phase: "Refused".to_owned(),
            unmet: match quarantined {
                Quarantined::IsUnmet => vec![refusal.to_string()],
                Quarantined::WasShown => Vec::new(),
            },
            upgrade: None,
        }
    }
}

/// What came out of a rehearsal.
pub(super) struct Outcome {
    pub(super) runs: Vec<Ran>,
    /// What was to run before the first run and could not be brought there.
    began_elsewhere: Option<String>,
    pub(super) interrupted: bool,
}

impl Outcome {
    pub(super) fn exit(&self) -> Exit {
        if self.interrupted {
            Exit::Interrupted
        } else if self.began_elsewhere.is_none() && self.runs.iter().all(|r| r.unmet.is_empty()) {
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
        began_elsewhere: None,
        interrupted: false,
    };
    let carrier = Carrier {
        home,
        fleet,
        printer,
        interrupt,
        patience: Patience::Endless,
    };
    if let Some(build) = &spec.start_from
        && let Some(ended) = start_from(&carrier, build).await?
    {
        outcome.interrupted = ended == Exit::Interrupted;
        outcome.began_elsewhere = Some(build.clone()).filter(|_| !outcome.interrupted);
        return Ok(outcome);
    }
    for run in &spec.runs {
        printer.note(&format!("{}: expecting {:?}", run.build, run.expect.phase));
        let (done, undone) = match drive_with(&carrier, &spec.disturbances, &run.build).await {
            Ok(ran) => ran,
            Err(error) => match error.downcast_ref::<SessionError>() {
                Some(SessionError::Refused(refusal @ Refusal::Quarantined { .. })) => {
                    printer.note(&format!("refused: {refusal}"));
                    let ran = Ran::refused(refusal, quarantined);
                    let stop = !ran.unmet.is_empty();
                    outcome.runs.push(ran);
                    if stop {
                        break;
                    }
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
        let mut differs = unmet(&run.expect, &done.record.status, is_quarantined);
        differs.extend(undone.into_iter().map(|what| format!("disturbance {what}")));
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

/// Sees to it that this build runs on every node, undisturbed. How that ended, if it did not succeed.
async fn start_from(carrier: &Carrier<'_>, build: &str) -> anyhow::Result<Option<Exit>> {
    carrier.printer.note(&format!("{build}: to start from"));
    let undisturbed = [];
    let (done, _) = drive_with(carrier, &undisturbed, build).await?;
    upgrade::show_for_people(carrier.home, &done, carrier.printer)?;
    Ok(Some(done.exit).filter(|exit| *exit != Exit::Done))
}

/// Drives one run with the disturbances going on, and tells which of them did not take place. A rehearsal drives itself, also
/// where a server runs: its disturbances act on the nodes under the same lease as the upgrade.
async fn drive_with(
    carrier: &Carrier<'_>,
    disturbances: &[Disturbance],
    wanted: &str,
) -> anyhow::Result<(Done, Vec<String>)> {
    let Carrier {
        home, fleet, printer, ..
    } = carrier;
    super::standing::refuse_not_up(home, fleet)?;
    let (component, version) = ground::component_and_version(fleet, wanted)?;
    let (build, _) = ground::build(home, component, &version, printer).await?;
    let lease = ground::lease(home, fleet, printer).await?;
    let disturbances = Disturbances::start(home, fleet, lease.token(), disturbances)?;
    let user = settings::user();
    let asked = Asked {
        home,
        fleet,
        component,
        build: &build,
        user: &user,
    };
    let done = match carrier.open(&asked, &lease).await {
        Ok(record) => carrier.drive(&record, &lease).await,
        Err(refused) => Err(refused.into()),
    };
    let ended = disturbances.stop().await;
    for trouble in &ended.troubles {
        printer.note(&format!("disturbance: {trouble}"));
    }
    Ok((done?, ended.undone))
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
        "status": {"runs": runs, "couldNotStartFrom": outcome.began_elsewhere, "finishedAt": Timestamp::now()},
    });
    printer.resource(&resource, |p| {
        if let Some(build) = &outcome.began_elsewhere {
            p.line(&format!(
                "{build:<28} could not be brought there to start from, so nothing was run"
            ))?;
        }
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

//! `stagegate rehearse FILE`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::ground::GroundError;
use super::printer::Printer;
use super::upgrade::{self, Carrier, Patience};
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::lease::HeldLease;
use crate::engine::rehearsal::{Driven, Driver, Outcome, Quarantined, Rehearsing};
use crate::engine::session::{Asked, SessionError};
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::rehearsal::RehearsalSpec;
use crate::store::UpgradeRecord;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rehearsal's name in pipelines/, or a file
    rehearsal: String,
    /// The version that stands where a run says `candidate`
    #[arg(long, value_name = "VERSION")]
    candidate: Option<String>,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let workspace = ground::workspace();
    let (name, spec) = workspace.rehearsal(&arguments.rehearsal, ground::port_shift()?)?;
    let spec = match &arguments.candidate {
        Some(version) => spec.of_candidate(version),
        None => spec,
    };
    if spec.names_candidate() {
        return Err(GroundError::Setting(format!(
            "rehearsal {name} is for whichever build is promoted; `--candidate VERSION` says which"
        ))
        .into());
    }
    let (home, fleet) = ground::operable(&spec.environment, ground::home)?;
    let rehearsing = Rehearsing {
        home: &home,
        fleet: &fleet,
        spec: &spec,
        quarantined: Quarantined::IsUnmet,
    };
    let outcome = rehearse(&rehearsing, ground::interrupt(printer)?, printer).await?;
    show(&name, &spec, &outcome, printer)?;
    Ok(exit_of(&outcome))
}

pub(super) fn exit_of(outcome: &Outcome) -> Exit {
    if outcome.interrupted {
        Exit::Interrupted
    } else if outcome.is_as_expected() {
        Exit::Done
    } else {
        Exit::GateFailed
    }
}

/// Carries a rehearsal out from this process.
pub(super) async fn rehearse(
    rehearsing: &Rehearsing<'_>,
    interrupt: Interrupt,
    printer: &Printer,
) -> anyhow::Result<Outcome> {
    let carrier = Carrier {
        home: rehearsing.home,
        fleet: rehearsing.fleet,
        printer,
        interrupt,
        patience: Patience::Endless,
    };
    super::standing::refuse_not_up(rehearsing.home, rehearsing.fleet)?;
    rehearsing.carry_out(&Here { carrier: &carrier }).await
}

/// This command, as who drives a rehearsal's upgrades.
struct Here<'a> {
    carrier: &'a Carrier<'a>,
}

impl Driver for Here<'_> {
    type Error = anyhow::Error;

    fn note(&self, line: &str) {
        self.carrier.printer.note(line);
    }

    async fn find(&self, wanted: &str) -> anyhow::Result<(&Component, BuildRef)> {
        let (home, fleet): (&Home, &Arc<Fleet>) = (self.carrier.home, self.carrier.fleet);
        let (component, version) = ground::component_and_version(fleet, wanted)?;
        let (build, _) = ground::build(home, component, &version, self.carrier.printer).await?;
        Ok((component, build))
    }

    async fn lease(&self) -> anyhow::Result<HeldLease> {
        ground::lease(self.carrier.home, self.carrier.fleet, self.carrier.printer).await
    }

    async fn open(&self, asked: &Asked<'_>, lease: &HeldLease) -> Result<UpgradeRecord, SessionError> {
        self.carrier.open(asked, lease).await
    }

    async fn drive(&self, record: &UpgradeRecord, lease: &HeldLease) -> anyhow::Result<Driven> {
        let done = self.carrier.drive(record, lease).await?;
        upgrade::show_for_people(self.carrier.home, &done, self.carrier.printer)?;
        Ok(Driven {
            interrupted: done.exit == Exit::Interrupted,
            record: done.record,
        })
    }
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

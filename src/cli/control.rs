//! `stagegate pause | resume | abort ENV`.

use clap::Args;

use super::printer::Printer;
use super::{Exit, ground, upgrade};
use crate::engine::session::{Asked, HeldLease, KnownBuild, Refusal, SessionError};
use crate::home::Home;
use crate::model::upgrade::Wish;
use crate::store::{Store as _, UpgradeRecord};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment
    environment: String,
}

fn open_upgrade(home: &Home, environment: &str) -> anyhow::Result<UpgradeRecord> {
    home.store().unfinished(Some(environment))?.pop().ok_or_else(|| {
        anyhow::anyhow!(
            "environment {environment} has no unfinished upgrade; `stagegate history {environment}` lists the others"
        )
    })
}

/// Says so to the driver; without a driver the upgrade already stands still.
pub(super) fn pause(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let open = open_upgrade(&home, &arguments.environment)?;
    home.store().set_wish(&open.name, Wish::Pause)?;
    printer.note(&format!(
        "{} will hold once its steps have ended; `stagegate resume {}` goes on",
        open.name, arguments.environment
    ));
    Ok(Exit::Done)
}

pub(super) async fn resume(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let open = open_upgrade(&home, &arguments.environment)?;
    let fleet = ground::fleet(&home, &ground::workspace(), &arguments.environment)?;
    let unknown = || SessionError::UnknownBuild(open.spec.build.clone());
    let component = fleet.environment.component(&open.spec.component).ok_or_else(unknown)?;
    let build = KnownBuild::find(&home, &open.spec.build)?.ok_or_else(unknown)?;
    let lease = HeldLease::take(&home, &arguments.environment)?;
    let build = build.spec.reference();
    let asked = Asked {
        home: &home,
        fleet: &fleet,
        component,
        build: &build,
        user: &open.spec.user,
    };
    let record = asked.open(&lease)?;
    let interrupt = ground::interrupt()?;
    let done = upgrade::drive(&home, &fleet, &record, &lease, None, interrupt, printer).await?;
    upgrade::show(&home, &done, printer)?;
    Ok(done.exit)
}

/// Says so to the driver; without one, drives the way back itself.
pub(super) async fn abort(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let open = open_upgrade(&home, &arguments.environment)?;
    home.store().set_wish(&open.name, Wish::Abort)?;
    let lease = match HeldLease::take(&home, &arguments.environment) {
        Ok(lease) => lease,
        Err(SessionError::Refused(Refusal::Held { by, .. })) => {
            printer.note(&format!(
                "{by} drives it and takes it back now; `stagegate status {}` shows how far",
                arguments.environment
            ));
            return Ok(Exit::Done);
        }
        Err(other) => return Err(other.into()),
    };
    let fleet = ground::fleet(&home, &ground::workspace(), &arguments.environment)?;
    let interrupt = ground::interrupt()?;
    let done = upgrade::drive(&home, &fleet, &open, &lease, None, interrupt, printer).await?;
    upgrade::show(&home, &done, printer)?;
    // What was asked for is what happened.
    Ok(if done.exit == Exit::Held { Exit::Done } else { done.exit })
}

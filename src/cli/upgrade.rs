//! `stagegate upgrade ENV --build COMPONENT=VERSION`.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::printer::Printer;
use super::view::{self, Names};
use super::{Exit, Output, ground};
use crate::engine::Ending;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::session::{self, Asked, HeldLease, SessionError};
use crate::home::Home;
use crate::model::upgrade::{Event, Phase, UpgradeStatus, Wish};
use crate::model::values;
use crate::report;
use crate::settings;
use crate::store::{EventRecord, Store as _, UpgradeRecord};

/// After the end reports that a sink has not taken are tried for this long; what is left is named.
const LAST_REPORTS: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment
    pub(super) environment: String,
    /// What goes on, as COMPONENT=VERSION
    #[arg(long)]
    pub(super) build: String,
    /// Pause the upgrade when it is not done by then (exit 124)
    #[arg(long)]
    pub(super) timeout: Option<values::Duration>,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments {
        environment,
        build,
        timeout,
        dry_run,
    } = arguments;
    let home = ground::home()?;
    let fleet = ground::fleet(&home, &ground::workspace(), &environment)?;
    if dry_run {
        return super::plan::show(&home, &fleet, &build, printer).await;
    }
    let interrupt = ground::interrupt()?;
    let done = carry_out(&home, &fleet, &build, timeout, interrupt, printer).await?;
    show(&home, &done, printer)?;
    Ok(done.exit)
}

/// An upgrade that was driven as far as it goes.
pub(super) struct Done {
    pub(super) record: UpgradeRecord,
    pub(super) exit: Exit,
}

/// Opens or takes up the upgrade, drives it, and sends its reports.
pub(super) async fn carry_out(
    home: &Home,
    fleet: &Arc<Fleet>,
    wanted: &str,
    timeout: Option<values::Duration>,
    interrupt: Interrupt,
    printer: &Printer,
) -> anyhow::Result<Done> {
    let (component, version) = ground::component_and_version(fleet, wanted)?;
    let (build, _) = ground::build(home, component, &version, printer).await?;
    let lease = HeldLease::take(home, &fleet.environment.name)?;
    let user = settings::user();
    let asked = Asked {
        home,
        fleet,
        component,
        build: &build,
        user: &user,
    };
    let record = asked.open(&lease)?;
    drive(home, fleet, &record, &lease, timeout, interrupt, printer).await
}

pub(super) async fn drive(
    home: &Home,
    fleet: &Arc<Fleet>,
    record: &UpgradeRecord,
    lease: &HeldLease,
    timeout: Option<values::Duration>,
    interrupt: Interrupt,
    printer: &Printer,
) -> anyhow::Result<Done> {
    let courier = ground::courier(home, fleet)?;
    let told_by_sink = fleet.environment.spec.reports.iter().any(|r| r.stdout.is_some());
    let subject = session::subject(&record.spec);
    let on_commit = |status: &UpgradeStatus, events: &[Event]| {
        if !told_by_sink {
            for event in events {
                printer.note(&event_line(&subject, record, event));
            }
        }
        printer.doing(now_doing(status));
    };
    let driving = session::run(home, fleet, record, lease, interrupt, &on_commit);
    let name = &record.name;
    let limit = async {
        match timeout {
            Some(limit) => tokio::time::sleep(limit.0).await,
            None => std::future::pending().await,
        }
        home.store().set_wish(name, Wish::Pause)
    };
    let mut timed_out = false;
    let ending = {
        tokio::pin!(driving);
        tokio::pin!(limit);
        let deliver = courier.run();
        tokio::pin!(deliver);
        loop {
            tokio::select! {
                ended = &mut driving => break ended,
                set = &mut limit, if !timed_out => {
                    set?;
                    timed_out = true;
                }
                () = &mut deliver => {}
            }
        }
    };
    printer.idle();
    let last = Timestamp::now().saturating_add(LAST_REPORTS)?;
    courier.drain(last).await?;
    for pending in home.store().pending(Some(&record.spec.environment), None)? {
        if pending.waiting > 0 {
            let why = pending.last_error.unwrap_or_else(|| "it was not tried yet".to_owned());
            printer.note(&format!(
                "{} for {} still wait: {why}; the next command or `stagegate serve` delivers them",
                super::up::count(usize::try_from(pending.waiting).unwrap_or(usize::MAX), "report"),
                pending.sink
            ));
        }
    }
    let record = home
        .store()
        .upgrade(name)?
        .ok_or_else(|| SessionError::UnknownBuild(name.clone()))?;
    let exit = match ending? {
        Ending::Settled(status) if timed_out && status.phase == Phase::Paused => Exit::TimedOut,
        Ending::Settled(status) => Exit::of(status.phase),
        Ending::Interrupted(_) => {
            printer.note(&format!(
                "interrupted; `stagegate upgrade {} --build {}` goes on with it",
                record.spec.environment,
                session::wanted(&record.spec)
            ));
            Exit::Interrupted
        }
    };
    Ok(Done { record, exit })
}

pub(super) fn show(home: &Home, done: &Done, printer: &Printer) -> anyhow::Result<()> {
    let names = Names::read(home)?;
    let resource = view::upgrade(&done.record, &names)?;
    printer.resource(&resource, |p| view::upgrade_for_people(p, &done.record, &names))
}

/// The same for people whatever the output is, beside a resource of another kind.
pub(super) fn show_for_people(home: &Home, done: &Done, printer: &Printer) -> anyhow::Result<()> {
    if matches!(printer.output(), Output::Table | Output::Wide) {
        view::upgrade_for_people(printer, &done.record, &Names::read(home)?)?;
    }
    Ok(())
}

fn event_line(subject: &report::Subject, record: &UpgradeRecord, event: &Event) -> String {
    report::text(
        subject,
        &EventRecord {
            seq: 0,
            environment: record.spec.environment.clone(),
            upgrade: Some(record.name.clone()),
            event: event.clone(),
        },
    )
}

/// One line for who watches a terminal.
fn now_doing(status: &UpgradeStatus) -> String {
    let busy = status.nodes.iter().find(|n| n.in_batch);
    let node = busy.map_or_else(String::new, |n| format!(" {}: {:?}", n.name, n.phase));
    let gate = busy
        .and_then(|n| status.gates.iter().find(|g| g.node == n.name))
        .map_or_else(String::new, |g| format!(" ({}: {})", g.name, g.reason));
    format!("{:?}{node}{gate}", status.phase)
}

/// How long a command that only watches waits between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(300);

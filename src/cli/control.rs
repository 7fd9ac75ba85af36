//! `stagegate pause | resume | abort | retry | undo ENV`: an operator's word to an upgrade that is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use super::printer::Printer;
use super::upgrade::{self, Carrier, Patience, Staying};
use super::{Exit, ground};
use crate::engine::delivery::sinks;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::lease::HeldLease;
use crate::engine::session::{self, KnownBuild, Refusal, SessionError};
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::upgrade::{Event, NodePhase, Phase, Severity, Wish};
use crate::model::values::Digest;
use crate::report::{self, Subject};
use crate::settings;
use crate::store::{KEEP_FINISHED_UPGRADES, Store as _, StoreError, UpgradeRecord};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
}

#[derive(Debug, Args)]
pub(super) struct PauseArguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
    /// Return once it holds and its driver has let go
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct StayingArguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
    #[command(flatten)]
    staying: Staying,
}

#[derive(Debug, Args)]
pub(super) struct UndoArguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
    #[command(flatten)]
    staying: Staying,
    /// Say what would happen and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A word to an upgrade needs one: where there is none the state refuses it, as it refuses whatever does not fit it.
fn open_upgrade(home: &Home, environment: &str, word: &'static str) -> anyhow::Result<UpgradeRecord> {
    if let Some(open) = home.store().unfinished(Some(environment))?.pop() {
        return Ok(open);
    }
    ground::refuse_unknown(home, environment)?;
    Err(SessionError::from(Refusal::NothingUnderWay {
        environment: environment.to_owned(),
        word,
    })
    .into())
}

/// The component and build that an upgrade is about, as they are known now.
fn subject<'a>(home: &Home, fleet: &'a Fleet, record: &UpgradeRecord) -> anyhow::Result<(&'a Component, BuildRef)> {
    let unknown = || SessionError::UnknownBuild(record.spec.build.clone());
    let component = fleet
        .environment
        .component(&record.spec.component)
        .ok_or_else(unknown)?;
    let build = KnownBuild::find(home, &record.spec.build)?.ok_or_else(unknown)?;
    Ok((component, build.spec.reference()))
}

/// Writes an operator's wish down, and who it is: the driver that hears it may be somebody else's.
pub(super) fn wish(home: &Home, open: &UpgradeRecord, wish: Wish, why: &str) -> Result<(), StoreError> {
    let environment = &open.spec.environment;
    // Files that are wrong by now keep nobody from being heard; only the reports do not go out.
    let sinks = ground::operable(environment, ground::look).map_or_else(|_| Vec::new(), |(_, fleet)| sinks(&fleet));
    let subject = Subject {
        user: settings::user(),
        ..session::subject(&open.spec)
    };
    let event = Event {
        at: Timestamp::now(),
        reason: match wish {
            Wish::Abort => "AbortAsked",
            Wish::Pause | Wish::TimeUp | Wish::Proceed => "PauseAsked",
        }
        .to_owned(),
        severity: Severity::Step,
        node: None,
        message: why.to_owned(),
    };
    let dispatch = report::dispatcher(home.store().home(), &subject, &sinks);
    home.store()
        .set_wish(&open.name, wish, None, &subject.user, &[event], &dispatch)?;
    Ok(())
}

/// Says so to the driver; without a driver the upgrade already stands still.
pub(super) async fn pause(arguments: PauseArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let PauseArguments { environment, wait } = &arguments;
    let interrupt = ground::interrupt(printer)?;
    let home = ground::look()?;
    let open = open_upgrade(&home, environment, "pause")?;
    let name = &open.name;
    // A way back that waits to reach somebody goes on by itself.
    if session::awaits_resume(&open) && !session::waits_to_reach(&open) {
        printer.note(&format!(
            "{name} is {:?} already ({}); `stagegate resume {environment}` goes on",
            open.status.phase, open.status.reason
        ));
        show_to_programs(&home, name, printer)?;
        return Ok(Exit::Done);
    }
    wish(
        &home,
        &open,
        Wish::Pause,
        &format!("{} asks it to hold", settings::user()),
    )?;
    let Some(driver) = ground::driver(&home, environment)? else {
        printer.note(&format!(
            "nobody drives {name} now, so it stands still in {:?}: this takes effect at the next drive, by `stagegate serve`; \
             `stagegate resume {environment}` drives it and goes on, and so does its `upgrade` again, pause or no pause",
            open.status.phase
        ));
        show_to_programs(&home, name, printer)?;
        return Ok(Exit::Done);
    };
    printer.note(&format!(
        "{name} will hold once its steps have ended ({driver} drives it); `stagegate resume {environment}` goes on"
    ));
    let waited = if *wait {
        until_held(&home, &open, &interrupt, printer).await?
    } else {
        Waited::Held
    };
    let exit = match waited {
        Waited::Held => Exit::Done,
        Waited::Overruled => {
            printer.note(&format!("{name} is not held: somebody has said otherwise since"));
            Exit::Refused
        }
        Waited::Interrupted => {
            printer.note(&format!(
                "stopped waiting; {name} holds all the same once its steps have ended, `stagegate status {environment} -w` \
                 shows it"
            ));
            Exit::Interrupted
        }
    };
    show_to_programs(&home, name, printer)?;
    Ok(exit)
}

/// How waiting for a hold ended.
enum Waited {
    /// It is held, or has ended, or has no driver that would go on.
    Held,
    /// Somebody wants something else of it by now.
    Overruled,
    /// The one who waited was asked to end.
    Interrupted,
}

/// Waits until it is held, or has ended, and nobody has the environment's lease. Steps have deadlines of their own, and a driver
/// that died leaves none who would carry it on, so this ends.
async fn until_held(
    home: &Home,
    open: &UpgradeRecord,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<Waited> {
    let environment = &open.spec.environment;
    printer.doing(format!("{}: waiting for its steps to end", open.name));
    while !printer.is_unread() {
        let record = home.store().upgrade(&open.name)?;
        let settled = record.as_ref().is_none_or(session::is_settled);
        let held = settled && HeldLease::holder(home, environment)?.is_none();
        if held || ground::driver(home, environment)?.is_none() {
            break;
        }
        if record.is_some_and(|r| r.spec.wish != Wish::Pause && !settled) {
            printer.idle();
            return Ok(Waited::Overruled);
        }
        tokio::select! {
            () = interrupt.wait() => {
                printer.idle();
                return Ok(Waited::Interrupted);
            }
            () = tokio::time::sleep(upgrade::LOOK_EVERY) => {}
        }
    }
    printer.idle();
    Ok(Waited::Held)
}

pub(super) async fn resume(arguments: StayingArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let StayingArguments { environment, staying } = arguments;
    let (home, fleet) = ground::operable(&environment, ground::look)?;
    let kept = home.store().kept(Some(&environment))?;
    if let Some(last) = kept.last()
        && home.store().unfinished(Some(&environment))?.is_empty()
    {
        let carrier = Carrier::new(&home, &fleet, printer, staying.patience())?;
        let exit = carrier.finish(&kept).await?;
        let last = home.store().upgrade(&last.name)?;
        last.map_or(Ok(()), |record| upgrade::show_record(&home, &record, printer))?;
        return Ok(exit);
    }
    let open = open_upgrade(&home, &environment, "resume")?;
    again(&home, &fleet, &open, &staying, printer).await
}

/// What is held is resumed, with its attempts anew; what has ended is begun anew with the same build.
pub(super) async fn retry(arguments: StayingArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let StayingArguments { environment, staying } = arguments;
    let (home, fleet) = ground::operable(&environment, ground::look)?;
    let last = home.store().upgrades(Some(&environment), 1)?.pop();
    let Some(last) = last else {
        return Err(SessionError::from(Refusal::NothingToRetry {
            environment,
            why: "it was never upgraded".to_owned(),
        })
        .into());
    };
    if last.status.phase == Phase::Succeeded {
        return Err(SessionError::from(Refusal::NothingToRetry {
            why: format!(
                "its last upgrade, {}, succeeded, and `stagegate undo {environment}` goes back",
                last.name
            ),
            environment,
        })
        .into());
    }
    again(&home, &fleet, &last, &staying, printer).await
}

async fn again(
    home: &Home,
    fleet: &Arc<Fleet>,
    record: &UpgradeRecord,
    staying: &Staying,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let (component, build) = subject(home, fleet, record)?;
    let carrier = Carrier::new(home, fleet, printer, staying.patience())?;
    carrier.carry_out_and_show(component, &build).await
}

/// Goes back to the build that ran before the last upgrade that succeeded, as an upgrade like any other.
pub(super) async fn undo(arguments: UndoArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let UndoArguments {
        environment,
        staying,
        dry_run,
    } = arguments;
    let (home, fleet) = ground::operable(&environment, ground::look)?;
    let (last, digest) = before_the_last(&home, &environment)?;
    let known = KnownBuild::all(&home)?;
    let component = &last.spec.component;
    let found = known
        .values()
        .find(|b| b.spec.component == *component && b.spec.digest == digest);
    let build = found.ok_or_else(|| {
        nothing_to_undo(
            &environment,
            format!(
                "before {} it ran sha256:{}, which is no build that is known here",
                last.name,
                digest.short()
            ),
        )
    })?;
    let build = build.spec.reference();
    printer.note(&format!(
        "{} brought {environment} to {}; going back to {}",
        last.name, last.spec.build, build.name
    ));
    if dry_run {
        let wanted = format!("{component}={}", build.version);
        return super::plan::plan(&environment, &wanted, printer).await;
    }
    let unknown = || SessionError::UnknownBuild(build.name.clone());
    let component = fleet.environment.component(component).ok_or_else(unknown)?;
    let carrier = Carrier::new(&home, &fleet, printer, staying.patience())?;
    carrier.carry_out_and_show(component, &build).await
}

/// The last upgrade that succeeded in changing nodes, and the build that they ran before it.
fn before_the_last(home: &Home, environment: &str) -> anyhow::Result<(UpgradeRecord, Digest)> {
    // What it would go back from is not decided yet.
    if let Some(open) = home.store().unfinished(Some(environment))?.pop() {
        return Err(SessionError::from(Refusal::unfinished(open)).into());
    }
    let all = u32::try_from(KEEP_FINISHED_UPGRADES).unwrap_or(u32::MAX);
    for record in home.store().upgrades(Some(environment), all)?.into_iter().rev() {
        let before: BTreeSet<Option<Digest>> = record.status.nodes.iter().map(|n| n.from).collect();
        if record.status.phase != Phase::Succeeded || before.iter().all(|from| *from == record.status.to) {
            continue;
        }
        // Nodes that ran the build already do not say where the others came from.
        let before: Vec<Option<Digest>> = before.into_iter().filter(|from| *from != record.status.to).collect();
        return match before[..] {
            [Some(digest)] => Ok((record, digest)),
            [None] => Err(nothing_to_undo(
                environment,
                format!("its nodes ran nothing before {}", record.name),
            )),
            _ => Err(nothing_to_undo(
                environment,
                format!(
                    "its nodes ran different builds before {}; choose one with `stagegate upgrade {environment} --build COMPONENT=VERSION`",
                    record.name
                ),
            )),
        };
    }
    Err(nothing_to_undo(
        environment,
        format!("no upgrade that succeeded here has changed a node; `stagegate history {environment}` lists them"),
    ))
}

fn nothing_to_undo(environment: &str, why: String) -> anyhow::Error {
    SessionError::from(Refusal::NothingToUndo {
        environment: environment.to_owned(),
        why,
    })
    .into()
}

/// Says so to the driver; without one, drives the way back itself.
pub(super) async fn abort(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { environment } = arguments;
    let home = ground::look()?;
    let open = open_upgrade(&home, &environment, "abort")?;
    // Before the files are read: a living driver hears it also when they are wrong by now.
    wish(
        &home,
        &open,
        Wish::Abort,
        &format!("{} asks it to go back", settings::user()),
    )?;
    let (home, fleet) = ground::operable(&environment, ground::look).inspect_err(|_| {
        if matches!(ground::driver(&home, &environment), Ok(None)) {
            printer.note(&format!(
                "that {} goes back is written down, and nobody drives it now: it takes effect at the next drive; with the files \
                 mended, `stagegate abort {environment}` drives it",
                open.name
            ));
        }
    })?;
    let carrier = Carrier::new(&home, &fleet, printer, Patience::Endless)?;
    let done = match carrier.go_on(open.clone()).await {
        Ok(done) => done,
        Err(other) => match other.downcast_ref() {
            Some(SessionError::Refused(Refusal::Held { by, .. })) => {
                let driver =
                    ground::driver(&home, &environment)?.map_or_else(|| by.clone(), |driver| driver.to_string());
                printer.note(&format!(
                    "{driver} drives it and takes it back now; `stagegate status {environment}` shows how far"
                ));
                show_to_programs(&home, &open.name, printer)?;
                return Ok(Exit::Done);
            }
            _ => return Err(other),
        },
    };
    upgrade::show(&home, &done, printer)?;
    // What was asked for is what happened, unless a node could not be brought back.
    let left_out = done
        .record
        .status
        .nodes
        .iter()
        .any(|n| n.phase == NodePhase::OutOfService);
    Ok(if done.record.status.phase == Phase::Aborted && !left_out {
        Exit::Done
    } else {
        done.exit
    })
}

/// People were told what matters; programs get the resource after any command.
fn show_to_programs(home: &Home, upgrade: &str, printer: &Printer) -> anyhow::Result<()> {
    if printer.is_for_people() {
        return Ok(());
    }
    match home.store().upgrade(upgrade)? {
        Some(record) => upgrade::show_record(home, &record, printer),
        None => Ok(()),
    }
}

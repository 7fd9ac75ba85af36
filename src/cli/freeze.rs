//! `stagegate freeze | unfreeze`: stop the line, and let it go again.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use super::ground::GroundError;
use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::audit::Act;
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::promotion::{self, FREEZE};
use crate::home::Home;
use crate::model::freeze::{FreezeSpec, InFlight};
use crate::model::schedule::{Moment, Once, Span};
use crate::model::upgrade::{Event, Severity};
use crate::model::values;
use crate::settings;
use crate::store::{Expect, Put, Resource, Store as _, StoreError, fresh_upgrade_name, no_dispatch};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environments that it holds; `*` stands for any letters
    #[arg(value_name = "ENV", required = true)]
    environments: Vec<String>,
    /// Why, for whoever waits for it
    #[arg(long, value_name = "TEXT", value_parser = super::reason)]
    reason: String,
    /// Until then, as 2026-12-18T16:00[Europe/Zurich]; without, until it is lifted
    #[arg(long, value_name = "MOMENT", conflicts_with = "lasting")]
    until: Option<Moment>,
    /// For as long, as 2h
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<values::Duration>,
    /// What becomes of a promotion's upgrade that is under way
    #[arg(long, value_enum, default_value = "finish-upgrade")]
    in_flight: Flight,
}

/// As [`InFlight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flight {
    /// It goes on to its end
    FinishUpgrade,
    /// Its batch is finished, and it pauses
    FinishBatch,
    /// Its running steps end, and it pauses
    Pause,
}

impl From<Flight> for InFlight {
    fn from(flight: Flight) -> Self {
        match flight {
            Flight::FinishUpgrade => InFlight::FinishUpgrade,
            Flight::FinishBatch => InFlight::FinishBatch,
            Flight::Pause => InFlight::Pause,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct LiftArguments {
    /// Name of the freeze
    #[arg(value_name = "FREEZE")]
    freeze: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = super::reason)]
    reason: String,
}

/// Names that a freeze may have, one of which no other has.
const PREFIX: &str = "freeze";

/// The freeze that is asked for, in whichever home, by its user.
pub(super) fn stated(arguments: Arguments, user: String, now: Timestamp) -> Result<FreezeSpec, GroundError> {
    let Arguments {
        environments,
        reason,
        until,
        lasting,
        in_flight,
    } = arguments;
    let until =
        until.or_else(|| lasting.map(|lasting| now.saturating_add(lasting.signed()).unwrap_or(Timestamp::MAX).into()));
    if let Some(past) = until.as_ref().filter(|until| until.at() <= now) {
        return Err(GroundError::Setting(format!("--until {past} is over already")));
    }
    Ok(FreezeSpec {
        reason,
        when: until
            .map(|until| Span {
                recurring: None,
                once: Some(Once {
                    from: Some(now.into()),
                    until: Some(until),
                }),
            })
            .into_iter()
            .collect(),
        environments,
        in_flight: in_flight.into(),
        user,
    })
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    let spec = stated(arguments, settings::user(), now)?;
    let reason = spec.reason.clone();
    let held = held_by(&spec)?;
    let home = ground::home()?;
    let value = serde_json::to_value(&spec)?;
    let written = loop {
        let name = fresh_upgrade_name(PREFIX);
        let put = Put {
            kind: FREEZE,
            name: &name,
            spec: Some(&value),
            status: None,
            expect: Expect::Absent,
            environment: &held[0],
            promotion: None,
            events: &[],
            acts: &[act(&name, "FreezeBegun", &spec, &reason, now)],
            dispatch: &no_dispatch,
            at: now,
        };
        match home.store().put(&put) {
            Err(StoreError::Conflict { .. } | StoreError::Exists { .. }) => {}
            other => break other?,
        }
    };
    tell(
        &home,
        &held,
        "FreezeBegun",
        &format!("{reason} ({})", written.name),
        printer,
    )
    .await;
    show(
        &written,
        &format!("{} holds {}", written.name, held.join(", ")),
        printer,
    )?;
    Ok(Exit::Done)
}

/// The environments that it holds, of those that there are.
fn held_by(spec: &FreezeSpec) -> anyhow::Result<Vec<String>> {
    let known = ground::workspace().environment_names();
    for pattern in &spec.environments {
        let alone = FreezeSpec {
            environments: vec![pattern.clone()],
            ..spec.clone()
        };
        if !known.iter().any(|name| alone.names(name)) {
            return Err(GroundError::UnknownEnvironment {
                name: pattern.clone(),
                place: ground::workspace().root().join("environments"),
                hint: crate::model::text::what_is_known(pattern, &known),
            }
            .into());
        }
    }
    Ok(known.into_iter().filter(|name| spec.names(name)).collect())
}

fn act(name: &str, what: &str, spec: &FreezeSpec, why: &str, at: Timestamp) -> Act {
    Act {
        at,
        who: settings::user(),
        what: what.to_owned(),
        of: format!("{FREEZE}/{name}"),
        environment: spec.environments.join(","),
        why: why.to_owned(),
        evidence: None,
    }
}

/// Tells it where each environment's reports go. What is wrong with the files of one keeps nobody else from hearing of it.
async fn tell(home: &Home, environments: &[String], reason: &str, message: &str, printer: &Printer) {
    let event = Event {
        at: Timestamp::now(),
        reason: reason.to_owned(),
        severity: Severity::Step,
        node: None,
        message: message.to_owned(),
    };
    for environment in environments {
        let told = async {
            let fleet = Fleet::read(home, &ground::workspace(), environment, ground::port_shift()?)?;
            delivery::append(home, &fleet, &settings::user(), std::slice::from_ref(&event))?;
            ground::deliver_first(home, &fleet, printer).await;
            Ok::<_, anyhow::Error>(())
        };
        if let Err(why) = told.await {
            printer.note(&format!("it holds {environment}, and is not told there: {why}"));
        }
    }
}

/// Ends a freeze that a command has stated.
pub(super) async fn lift(arguments: LiftArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let LiftArguments { freeze, reason } = arguments;
    let name = freeze.strip_prefix("freeze/").unwrap_or(&freeze);
    let home = ground::look()?;
    let now = Timestamp::now();
    let Some(stored) = home.store().resource(FREEZE, name)? else {
        let files = ground::workspace().promotion_rules()?.freezes;
        let stored: Vec<String> = home
            .store()
            .resources(FREEZE)?
            .into_iter()
            .map(|stored| stored.name)
            .collect();
        return Err(if files.contains_key(name) {
            GroundError::Setting(format!(
                "freeze {name} is stated by a file in pipelines/, and ends when it is taken out there"
            ))
        } else {
            GroundError::UnknownResource {
                kind: FREEZE,
                name: name.to_owned(),
                hint: crate::model::text::what_is_known(name, &stored),
            }
        }
        .into());
    };
    let mut spec: FreezeSpec = stored.spec_as()?;
    let is_over = |span: &Span| {
        span.once
            .as_ref()
            .and_then(|once| once.until.as_ref())
            .is_some_and(|until| until.at() <= now)
    };
    if !spec.when.is_empty() && spec.when.iter().all(is_over) {
        printer.note(&format!("{name} is over already"));
        show(&stored, &format!("{name} holds nothing"), printer)?;
        return Ok(Exit::Done);
    }
    spec.when = vec![Span::once(None, Some(now))];
    let held = held_by(&spec).unwrap_or_default();
    let value = serde_json::to_value(&spec)?;
    let written = home.store().put(&Put {
        kind: FREEZE,
        name,
        spec: Some(&value),
        status: None,
        expect: Expect::Version(stored.resource_version),
        environment: held.first().map_or("", String::as_str),
        promotion: None,
        events: &[],
        acts: &[act(name, "FreezeLifted", &spec, &reason, now)],
        dispatch: &no_dispatch,
        at: now,
    })?;
    tell(&home, &held, "FreezeLifted", &reason, printer).await;
    show(&written, &format!("{name} holds nothing any more"), printer)?;
    Ok(Exit::Done)
}

fn show(freeze: &Resource, line: &str, printer: &Printer) -> anyhow::Result<()> {
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": promotion::FREEZE,
        "metadata": {"name": freeze.name, "resourceVersion": freeze.resource_version.to_string(), "creationTimestamp": freeze.created_at},
        "spec": freeze.spec,
    });
    printer.resource(&resource, |p| p.line(line))
}

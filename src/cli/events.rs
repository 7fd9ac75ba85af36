//! `stagegate events [ENV]` and `stagegate history ENV`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::upgrade::LOOK_EVERY;
use super::view::{self, API_VERSION, Names};
use super::{Exit, Output, ground};
use crate::home::Home;
use crate::model::text;
use crate::report::in_one_line;
use crate::store::{EventQuery, EventRecord, Store as _, Take};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment; every one without
    #[arg(value_name = "ENV", value_parser = ground::environment_name)]
    environment: Option<String>,
    /// Of this upgrade alone
    #[arg(long)]
    upgrade: Option<String>,
    /// How many of the last ones
    #[arg(long, default_value_t = 50)]
    last: u32,
    /// Go on as they come
    #[arg(short, long)]
    watch: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    let of = |after, take| EventQuery {
        environment: arguments.environment.as_deref(),
        upgrade: arguments.upgrade.as_deref(),
        promotion: None,
        after,
        take,
    };
    let mut events = home.store().events(&of(0, Take::Last(arguments.last)))?;
    if events.is_empty() {
        refuse_unknown(&home, arguments)?;
    }
    if !arguments.watch {
        let items = events.iter().map(resource).collect::<Result<Vec<_>, _>>()?;
        let list = json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "events"}, "items": items});
        printer.resource(&list, |p| events.iter().try_for_each(|event| for_people(p, event)))?;
        return Ok(Exit::Done);
    }
    let mut after = 0;
    while !printer.is_unread() {
        for event in &events {
            after = event.seq;
            one(printer, event)?;
        }
        std::thread::sleep(LOOK_EVERY);
        events = home.store().events(&of(after, Take::First(1000)))?;
    }
    Ok(Exit::Done)
}

/// Where nothing has happened, what was asked for may be misspelt.
fn refuse_unknown(home: &Home, arguments: &Arguments) -> anyhow::Result<()> {
    let environment = arguments.environment.as_deref();
    if let Some(environment) = environment {
        ground::refuse_unknown(home, environment)?;
    }
    let Some(upgrade) = &arguments.upgrade else {
        return Ok(());
    };
    let mut known: Vec<String> = home
        .store()
        .upgrades(environment, u32::MAX)?
        .into_iter()
        .map(|record| record.name)
        .collect();
    if known.contains(upgrade) {
        return Ok(());
    }
    // The list is cut, and the newest are meant more often.
    known.reverse();
    Err(GroundError::UnknownUpgrade {
        name: upgrade.clone(),
        of: environment.map_or_else(String::new, |environment| format!(" of {environment}")),
        hint: text::what_is_known(upgrade, &known),
    }
    .into())
}

fn resource(event: &EventRecord) -> serde_json::Result<Value> {
    let mut resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Event",
        "metadata": {"name": format!("event-{}", event.seq)},
    });
    if let (Some(resource), Value::Object(fields)) = (resource.as_object_mut(), serde_json::to_value(event)?) {
        resource.extend(fields);
    }
    Ok(resource)
}

/// A list that never ends cannot be one document: each event is one.
fn one(printer: &Printer, event: &EventRecord) -> anyhow::Result<()> {
    match printer.output() {
        Output::Json | Output::Sarif => printer.line(&serde_json::to_string(&resource(event)?)?),
        Output::Yaml => {
            let text = crate::model::text::to_yaml(&resource(event)?)?;
            printer.line(&format!("---\n{}", text.trim_end()))
        }
        Output::Name | Output::Table | Output::Wide => printer.resource(&resource(event)?, |p| for_people(p, event)),
    }
}

fn for_people(printer: &Printer, record: &EventRecord) -> anyhow::Result<()> {
    let event = &record.event;
    printer.line(&format!(
        "{}  {:<8} {:<14} {:<22} {:<12} {}",
        view::moment(event.at),
        format!("{:?}", event.severity),
        record.environment,
        event.reason,
        event.node.as_deref().unwrap_or("-"),
        in_one_line(&event.message)
    ))
}

#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    /// The environment; every one without
    #[arg(value_name = "ENV", value_parser = ground::environment_name)]
    environment: Option<String>,
    /// How many of the last ones
    #[arg(long, default_value_t = 20)]
    last: u32,
}

impl HistoryArguments {
    pub(super) fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }
}

pub(super) fn history(arguments: &HistoryArguments, printer: &Printer) -> anyhow::Result<Exit> {
    history_of(&ground::look()?, arguments, printer)
}

pub(super) fn history_of(home: &Home, arguments: &HistoryArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let names = Names::read(home)?;
    let upgrades = home
        .store()
        .upgrades(arguments.environment.as_deref(), arguments.last)?;
    if let (Some(environment), true) = (&arguments.environment, upgrades.is_empty()) {
        ground::refuse_unknown(home, environment)?;
    }
    let items = upgrades
        .iter()
        .map(|u| view::upgrade(u, &names))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let list = json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "history"}, "items": items});
    printer.resource(&list, |p| {
        let now = Timestamp::now();
        let rows = upgrades
            .iter()
            .map(|u| {
                vec![
                    u.name.clone(),
                    u.spec.environment.clone(),
                    u.spec.build.clone(),
                    format!("{:?}", u.status.phase),
                    u.status.reason.clone(),
                    u.spec.user.clone(),
                    view::age(now, u.created_at),
                ]
            })
            .collect();
        p.table(
            &["UPGRADE", "ENVIRONMENT", "BUILD", "PHASE", "REASON", "BY", "AGE"],
            rows,
        )
    })?;
    Ok(Exit::Done)
}

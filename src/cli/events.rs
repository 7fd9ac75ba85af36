//! `stagegate events [ENV]` and `stagegate history ENV`.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::printer::Printer;
use super::upgrade::LOOK_EVERY;
use super::view::{self, API_VERSION, Names};
use super::{Exit, Output, ground};
use crate::store::{EventQuery, Store as _, Take};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment; every one without
    #[arg(value_name = "ENV")]
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
    let home = ground::home()?;
    let mut after = 0;
    let mut take = Take::Last(arguments.last);
    loop {
        let events = home.store().events(&EventQuery {
            environment: arguments.environment.as_deref(),
            upgrade: arguments.upgrade.as_deref(),
            after,
            take,
        })?;
        for record in &events {
            after = record.seq;
            match printer.output() {
                // One a line: a list that never ends cannot be one document.
                Output::Json | Output::Sarif => printer.line(&serde_json::to_string(record)?)?,
                Output::Yaml => printer.line(&format!(
                    "---\n{}",
                    crate::model::text::to_yaml(&serde_json::to_value(record)?)?.trim_end()
                ))?,
                Output::Name => printer.line(&format!("event/{}", record.seq))?,
                Output::Table | Output::Wide => {
                    let event = &record.event;
                    printer.line(&format!(
                        "{}  {:<8} {:<14} {:<22} {:<12} {}",
                        event.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                        format!("{:?}", event.severity),
                        record.environment,
                        event.reason,
                        event.node.as_deref().unwrap_or("-"),
                        event.message
                    ))?;
                }
            }
        }
        if !arguments.watch {
            return Ok(Exit::Done);
        }
        take = Take::First(1000);
        std::thread::sleep(LOOK_EVERY);
    }
}

#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    /// The environment; every one without
    #[arg(value_name = "ENV")]
    environment: Option<String>,
    /// How many of the last ones
    #[arg(long, default_value_t = 20)]
    last: u32,
}

pub(super) fn history(arguments: &HistoryArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let names = Names::read(&home)?;
    let upgrades = home
        .store()
        .upgrades(arguments.environment.as_deref(), arguments.last)?;
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

//! `stagegate reports list | show | replay | drop`: what sinks refused for good.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::printer::Printer;
use super::up::count;
use super::view::{self, API_VERSION};
use super::{Exit, ground};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::home::Home;
use crate::report::in_one_line;
use crate::server;
use crate::store::{DeadLetter, LetterQuery, Store as _};

/// What was let wait again is tried for this long; a chat takes a report in a second or two.
const TRIED_FOR: SignedDuration = SignedDuration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reports that their sink refused for good, oldest first, and how many wait
    List(Which),
    /// One of them, as its sink was to get it
    Show {
        /// Its number
        id: u64,
    },
    /// Send them again, in their order
    ///
    /// For when what they were refused for is mended. What was told since stays where it is; a report that comes late says when it happened.
    #[command(
        after_help = "Examples:\n  stagegate reports replay --all --sink operators\n  stagegate reports replay 41 42"
    )]
    Replay(Chosen),
    /// Forget them: they will never be told
    Drop(Chosen),
}

#[derive(Debug, Args)]
struct Which {
    /// Of this environment alone
    #[arg(long, value_name = "ENV", value_parser = ground::environment_name)]
    env: Option<String>,
    /// For this sink alone, by its name in the environment's file; of several environments, ENV/SINK
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
}

#[derive(Debug, Args)]
struct Chosen {
    /// Their numbers, as `reports list` has them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<u64>,
    /// All that `--env` and `--sink` leave
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: Which,
}

/// Nothing of what was asked for is there.
#[derive(Debug, thiserror::Error)]
#[error("there is no such dead letter here{0}; `stagegate reports list` has those that there are")]
pub(super) struct NoLetter(String);

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    match &arguments.command {
        Command::List(which) => list(&ground::look()?, which, printer)?,
        Command::Show { id } => show(&ground::look()?, *id, printer)?,
        Command::Replay(chosen) => replay(&ground::home()?, chosen, printer).await?,
        Command::Drop(chosen) => {
            let home = ground::home()?;
            let ids = ids(&letters(&home, chosen)?);
            let dropped = home.store().drop_letters(&LetterQuery {
                ids: Some(&ids),
                ..LetterQuery::default()
            })?;
            printer.note(&format!("{} dropped", many(dropped)));
        }
    }
    Ok(Exit::Done)
}

/// The dead letters that are asked for, oldest first.
fn found(home: &Home, which: &Which) -> anyhow::Result<Vec<DeadLetter>> {
    let Which { env, sink } = which;
    let mut letters = home.store().dead_letters(&LetterQuery {
        environment: env.as_deref(),
        ..LetterQuery::default()
    })?;
    if let Some(sink) = sink {
        letters.retain(|letter| letter.sink == *sink || sink_name(&letter.sink) == sink);
    }
    Ok(letters)
}

/// Without the environment that it has in the outbox.
fn sink_name(sink: &str) -> &str {
    sink.split_once('/').map_or(sink, |(_, name)| name)
}

fn letters(home: &Home, chosen: &Chosen) -> anyhow::Result<Vec<DeadLetter>> {
    let Chosen { ids, all, which } = chosen;
    let mut letters = found(home, which)?;
    if !all {
        let missing: Vec<String> = ids
            .iter()
            .filter(|id| !letters.iter().any(|letter| letter.id == **id))
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(NoLetter(format!(" ({})", missing.join(", "))).into());
        }
        letters.retain(|letter| ids.contains(&letter.id));
    }
    Ok(letters)
}

fn ids(letters: &[DeadLetter]) -> Vec<u64> {
    letters.iter().map(|letter| letter.id).collect()
}

fn many(reports: u64) -> String {
    count(usize::try_from(reports).unwrap_or(usize::MAX), "report")
}

fn resource(letter: &DeadLetter) -> serde_json::Result<Value> {
    Ok(json!({
        "apiVersion": API_VERSION, "kind": "DeadLetter",
        "metadata": {"name": format!("letter-{}", letter.id)},
        "status": serde_json::to_value(letter)?,
    }))
}

fn text_of(letter: &DeadLetter) -> String {
    in_one_line(letter.report["text"].as_str().unwrap_or_default())
}

fn list(home: &Home, which: &Which, printer: &Printer) -> anyhow::Result<()> {
    let letters = found(home, which)?;
    let items = letters.iter().map(resource).collect::<Result<Vec<_>, _>>()?;
    let list = json!({
        "apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "dead-letters"}, "items": items,
    });
    printer.resource(&list, |p| {
        for letter in &letters {
            p.line(&format!(
                "{:<6} {}  {:<24} {:<28} {}",
                letter.id,
                view::moment(letter.refused_at),
                letter.sink,
                letter.thread,
                text_of(letter)
            ))?;
            p.line(&format!("       {}", in_one_line(&letter.why)))?;
        }
        Ok(())
    })?;
    for pending in home.store().pending(which.env.as_deref(), None)? {
        if pending.waiting > 0 {
            let why = pending.last_error.map_or_else(String::new, |why| format!(": {why}"));
            printer.note(&format!("{} for {} wait{why}", many(pending.waiting), pending.sink));
        }
    }
    if letters.is_empty() {
        printer.note("no dead letters");
    }
    Ok(())
}

fn show(home: &Home, id: u64, printer: &Printer) -> anyhow::Result<()> {
    let letters = home.store().dead_letters(&LetterQuery {
        ids: Some(&[id]),
        ..LetterQuery::default()
    })?;
    let Some(letter) = letters.first() else {
        return Err(NoLetter(format!(" ({id})")).into());
    };
    let pretty = serde_json::to_string_pretty(&letter.report)?;
    printer.resource(&resource(letter)?, |p| {
        p.line(&format!("sink     {}", letter.sink))?;
        p.line(&format!("thread   {}", letter.thread))?;
        p.line(&format!(
            "refused  {}, at attempt {}: {}",
            view::moment(letter.refused_at),
            letter.attempts,
            in_one_line(&letter.why)
        ))?;
        p.line(&pretty)
    })
}

async fn replay(home: &Home, chosen: &Chosen, printer: &Printer) -> anyhow::Result<()> {
    let letters = letters(home, chosen)?;
    let ids = ids(&letters);
    let revived = home.store().revive(&LetterQuery {
        ids: Some(&ids),
        ..LetterQuery::default()
    })?;
    printer.note(&format!("{} to be sent again", many(revived)));
    if revived == 0 || server::running(home)?.is_some() {
        return Ok(());
    }
    let environments: BTreeSet<&str> = letters.iter().map(|letter| letter.environment.as_str()).collect();
    for environment in environments {
        if let Err(why) = deliver(home, environment, printer).await {
            printer.note(&format!("{environment}: {why:#}"));
        }
        for pending in home.store().pending(Some(environment), None)? {
            let why = pending.last_error.map_or_else(String::new, |why| format!(": {why}"));
            if pending.waiting > 0 {
                printer.note(&format!(
                    "{} for {} still wait{why}",
                    many(pending.waiting),
                    pending.sink
                ));
            } else if pending.dead > 0 {
                printer.note(&format!("{} for {} are refused{why}", many(pending.dead), pending.sink));
            }
        }
    }
    Ok(())
}

async fn deliver(home: &Home, environment: &str, printer: &Printer) -> anyhow::Result<()> {
    let fleet = Fleet::read(home, &ground::workspace(), environment, ground::port_shift()?)?;
    let lines = printer.lines();
    let (courier, troubles) = delivery::courier(home, &fleet, Some(&lines));
    let tally = courier.drain(Timestamp::now().saturating_add(TRIED_FOR)?).await?;
    printer.note(&format!("{} delivered", many(tally.delivered.into())));
    match troubles.into_iter().next() {
        Some(trouble) => Err(trouble.into()),
        None => Ok(()),
    }
}

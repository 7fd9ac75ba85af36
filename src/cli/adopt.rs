//! `stagegate adopt ENV`.

use clap::Args;
use serde_json::json;

use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::engine::adopt::{self, Adoption, Outcome};
use crate::engine::lease::HeldLease;
use crate::hosts::FencingToken;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { environment } = arguments;
    let interrupt = ground::interrupt(printer)?;
    let (home, fleet) = ground::operable(&environment, ground::home)?;
    let mut lease = HeldLease::take(&home, &environment)?;
    // A node that was asked and not heard is asked again by the next, which finds it ours.
    let nodes = tokio::select! {
        () = interrupt.wait() => return Ok(Exit::Interrupted),
        nodes = adopt::adopt(&fleet, &mut lease) => nodes?,
    };
    let now = lease.token();
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Adoption",
        "metadata": {"name": environment},
        "status": {
            "token": now,
            "nodes": nodes.iter().map(for_programs).collect::<Vec<_>>(),
        },
    });
    printer.resource(&resource, |p| {
        p.table(
            &["NODE", "SERVED", "NOW"],
            nodes.iter().map(|node| row(node, now)).collect(),
        )
    })?;
    let failed = nodes.iter().any(|node| matches!(node.outcome, Outcome::Failed(_)));
    if failed {
        printer.note("the same command again adopts the others, once they can be reached");
        return Ok(Exit::Errored);
    }
    Ok(Exit::Done)
}

fn words(token: &FencingToken) -> String {
    format!("{}/{}", token.home, token.counter)
}

fn row(Adoption { node, outcome }: &Adoption, now: &FencingToken) -> Vec<String> {
    let (served, becomes) = match outcome {
        Outcome::Adopted(before) => (words(before), format!("adopted: {}", words(now))),
        Outcome::Ours(before) => (words(before), format!("ours already: {}", words(now))),
        Outcome::New => ("nobody".to_owned(), "new: it takes the first who comes".to_owned()),
        Outcome::Failed(why) => ("?".to_owned(), why.to_string()),
    };
    vec![node.clone(), served, becomes]
}

fn for_programs(Adoption { node, outcome }: &Adoption) -> serde_json::Value {
    match outcome {
        Outcome::Adopted(before) => json!({"name": node, "outcome": "Adopted", "served": before}),
        Outcome::Ours(before) => json!({"name": node, "outcome": "Ours", "served": before}),
        Outcome::New => json!({"name": node, "outcome": "New"}),
        Outcome::Failed(why) => json!({"name": node, "outcome": "Failed", "why": why.to_string()}),
    }
}

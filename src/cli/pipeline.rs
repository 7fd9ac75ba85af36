//! `stagegate pipeline show`: a board of what runs in each stage, since when, and what waits for what.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::view::{self, API_VERSION};
use super::{Exit, ground};
use crate::engine::promotion::board::{Board, Standing};
use crate::engine::promotion::{self, PromotionRecord};
use crate::engine::session::KnownBuild;
use crate::home::Home;
use crate::model::pipeline::PipelineSpec;
use crate::model::text;
use crate::promotion::obstacle::Obstacle;
use crate::report::in_one_line;
use crate::workspace::PromotionRules;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs in each stage, and what waits for what
    Show {
        /// The pipeline; all without
        #[arg(value_name = "PIPELINE")]
        pipeline: Option<String>,
    },
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Command::Show { pipeline } = &arguments.command;
    show(
        &ground::look()?,
        &ground::workspace().promotion_rules()?,
        pipeline.as_deref(),
        "no file of kind Pipeline lies in pipelines/",
        printer,
    )
}

/// Shows a pipeline of a home, or all; `none` says why there may be none.
pub(super) fn show(
    home: &Home,
    rules: &PromotionRules,
    pipeline: Option<&str>,
    none: &str,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    if let Some(name) = pipeline.filter(|name| !rules.pipelines.contains_key(*name)) {
        let known: Vec<&str> = rules.pipelines.keys().map(String::as_str).collect();
        return Err(GroundError::UnknownResource {
            kind: "Pipeline",
            name: name.to_owned(),
            hint: text::what_is_known(name, &known),
        }
        .into());
    }
    let (builds, open) = (KnownBuild::all(home)?, PromotionRecord::open(home)?);
    let freezes = promotion::freezes(home, &rules.freezes)?;
    let standing = Standing {
        builds: &builds,
        open: &open,
        freezes: &freezes,
        now: Timestamp::now(),
    };
    let mut items = Vec::new();
    let mut shown = Vec::new();
    for (name, spec) in &rules.pipelines {
        if pipeline.is_some_and(|only| only != name) {
            continue;
        }
        let boards = standing.boards(name, spec);
        items.push(resource(name, spec, &boards)?);
        shown.push((name, spec, boards));
    }
    let list = match (&items[..], pipeline) {
        ([one], Some(_)) => one.clone(),
        _ => json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "pipelines"}, "items": items}),
    };
    printer.resource(&list, |p| {
        if shown.is_empty() {
            p.line(&format!("there is no pipeline: {none}"))?;
        }
        for (name, spec, boards) in &shown {
            for_people(p, name, spec, boards)?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn resource(name: &str, spec: &PipelineSpec, boards: &[Board<'_>]) -> anyhow::Result<Value> {
    let stages = boards.iter().map(|board| {
        let open: Vec<Value> = board
            .open
            .iter()
            .map(|record| super::promote::resource(record))
            .collect();
        let build = |(name, at): &(&str, Timestamp)| json!({"build": name, "verifiedAt": at});
        Ok(json!({
            "name": board.stage.name,
            "environment": board.stage.environment,
            "runs": board.runs.as_ref().map(build),
            "promotions": open,
            "ready": board.ready.iter().map(build).collect::<Vec<_>>(),
            "freezes": board.freezes.iter().map(|freeze| json!({
                "name": freeze.name, "reason": freeze.reason, "until": freeze.until,
            })).collect::<Vec<_>>(),
        }))
    });
    let stages = stages.collect::<Result<Vec<_>, serde_json::Error>>()?;
    Ok(json!({
        "apiVersion": API_VERSION, "kind": "Pipeline", "metadata": {"name": name}, "spec": spec, "status": {"stages": stages},
    }))
}

fn for_people(p: &Printer, name: &str, spec: &PipelineSpec, boards: &[Board<'_>]) -> anyhow::Result<()> {
    let now = Timestamp::now();
    p.line(&format!("{name}: {}", spec.component))?;
    let rows = boards
        .iter()
        .map(|board| {
            let (build, age) = match board.runs {
                Some((build, at)) => (build.to_owned(), view::age(now, at)),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let after = if board.stage.after.is_empty() {
                "-".to_owned()
            } else {
                board.stage.after.join(",")
            };
            vec![
                board.stage.name.clone(),
                board.stage.environment.clone(),
                after,
                build,
                age,
            ]
        })
        .collect();
    p.table(&["STAGE", "ENVIRONMENT", "AFTER", "VERIFIED", "AGE"], rows)?;
    for board in boards {
        let stage = &board.stage.name;
        for frozen in &board.freezes {
            p.sentence(&format!("{stage}: {}", Obstacle::Frozen(frozen.clone())))?;
        }
        for record in &board.open {
            let status = &record.status;
            p.sentence(&format!(
                "{stage}: {} {:?} for {}: {}",
                record.name,
                status.phase,
                view::age(now, status.since),
                in_one_line(&status.message)
            ))?;
        }
        for (build, at) in &board.ready {
            let environment = &board.stage.environment;
            p.sentence(&format!(
                "{stage}: {build} could enter, verified {} ago; `stagegate promote {build} --to {environment}`",
                view::age(now, *at)
            ))?;
        }
    }
    Ok(())
}

//! `stagegate pipeline show`: a board of what runs in each stage, since when, and what waits for what.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::view::{self, API_VERSION};
use super::{Exit, ground};
use crate::engine::promotion::{self, PromotionRecord};
use crate::engine::session::KnownBuild;
use crate::home::Home;
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::model::text;
use crate::promotion::obstacle::{Frozen, Obstacle};
use crate::report::in_one_line;
use crate::workspace::PromotionRules;

/// Builds shown that might enter a stage, the newest first.
const MOST_READY: usize = 5;

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

/// A stage as it stands.
struct Board<'a> {
    stage: &'a Stage,
    /// The build that was verified there last, and when.
    runs: Option<(&'a str, Timestamp)>,
    /// Promotions into it that have not ended.
    open: Vec<&'a PromotionRecord>,
    /// Builds that every stage before has verified since, and that have not entered.
    ready: Vec<(&'a str, Timestamp)>,
    freezes: Vec<Frozen>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Command::Show { pipeline } = &arguments.command;
    let home = ground::look()?;
    let rules = ground::workspace().promotion_rules()?;
    if let Some(name) = pipeline.as_ref().filter(|name| !rules.pipelines.contains_key(*name)) {
        let known: Vec<&str> = rules.pipelines.keys().map(String::as_str).collect();
        return Err(GroundError::UnknownResource {
            kind: "Pipeline",
            name: name.clone(),
            hint: text::what_is_known(name, &known),
        }
        .into());
    }
    let builds: Vec<(String, KnownBuild)> = KnownBuild::all(&home)?.into_iter().collect();
    let open = PromotionRecord::open(&home)?;
    let mut items = Vec::new();
    let mut shown = Vec::new();
    for (name, spec) in &rules.pipelines {
        if pipeline.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let boards = boards(&home, &rules, name, spec, &builds, &open)?;
        items.push(resource(name, spec, &boards)?);
        shown.push((name, spec, boards));
    }
    let list = match (&items[..], pipeline) {
        ([one], Some(_)) => one.clone(),
        _ => json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "pipelines"}, "items": items}),
    };
    printer.resource(&list, |p| {
        if shown.is_empty() {
            p.line("there is no pipeline: no file of kind Pipeline lies in pipelines/")?;
        }
        for (name, spec, boards) in &shown {
            for_people(p, name, spec, boards)?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn boards<'a>(
    home: &Home,
    rules: &PromotionRules,
    name: &str,
    spec: &'a PipelineSpec,
    builds: &'a [(String, KnownBuild)],
    open: &'a [PromotionRecord],
) -> anyhow::Result<Vec<Board<'a>>> {
    let of_component = || {
        builds
            .iter()
            .filter(|(_, known)| known.spec.component == spec.component)
    };
    // When these bytes were verified in an environment.
    let verified_at = |known: &KnownBuild, environment: &str| {
        let mut all = known.status.verifications.iter();
        all.find(|v| v.environment == environment && v.digest == known.spec.digest)
            .map(|v| v.at)
    };
    let board = |stage: &'a Stage| {
        let there =
            of_component().filter_map(|(name, known)| Some((name.as_str(), verified_at(known, &stage.environment)?)));
        let runs = there.max_by_key(|(_, at)| *at);
        let of_stage = |record: &&PromotionRecord| record.spec.pipeline == name && record.spec.stage == stage.name;
        let open: Vec<&PromotionRecord> = open.iter().filter(of_stage).collect();
        let before: Vec<&Stage> = stage.after.iter().filter_map(|before| spec.stage(before)).collect();
        let ready = of_component().filter_map(|(name, known)| {
            let passed = before.iter().map(|before| verified_at(known, &before.environment));
            // The last of them all, if all have.
            let at = passed.collect::<Option<Vec<_>>>()?.into_iter().max()?;
            let is_there = verified_at(known, &stage.environment).is_some();
            let is_asked_for = open.iter().any(|record| record.spec.build == *name);
            let may = known.status.quarantined_in(&stage.environment).is_none();
            (!is_there && !is_asked_for && may).then_some((name.as_str(), at))
        });
        let mut ready: Vec<_> = ready.collect();
        ready.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        ready.truncate(MOST_READY);
        Ok(Board {
            stage,
            runs,
            open,
            ready,
            freezes: promotion::frozen(home, &rules.freezes, &stage.environment, Timestamp::now())?,
        })
    };
    spec.stages.iter().map(board).collect()
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

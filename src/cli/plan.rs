//! `stagegate plan ENV --build COMPONENT=VERSION`: what would change, on which nodes, in which order, and how long it takes.

use std::num::NonZeroU32;

use clap::Args;
use serde_json::json;

use super::printer::Printer;
use super::view::{API_VERSION, Names};
use super::{Exit, ground};
use crate::engine::fleet::{Fleet, Place};
use crate::engine::foreign::Foreign;
use crate::engine::look::{self, Sight};
use crate::engine::session::{self, SessionError};
use crate::gates::StatedGate;
use crate::gates::plan::{calls_to_pass, seconds_to_pass};
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::values::Duration;
use crate::store::Store as _;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
    /// What would go on
    #[arg(long, value_name = "COMPONENT=VERSION")]
    build: String,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    plan(&arguments.environment, &arguments.build, printer).await
}

/// Changes nothing, so it may be cut off anywhere.
pub(super) async fn plan(environment: &str, wanted: &str, printer: &Printer) -> anyhow::Result<Exit> {
    let interrupt = ground::interrupt(printer)?;
    let (home, fleet) = ground::operable(environment, ground::look)?;
    tokio::select! {
        () = interrupt.wait() => Ok(Exit::Interrupted),
        shown = show(&home, &fleet, wanted, printer) => shown,
    }
}

async fn show(home: &Home, fleet: &Fleet, wanted: &str, printer: &Printer) -> anyhow::Result<Exit> {
    let (component, version) = ground::component_and_version(fleet, wanted)?;
    let (build, known) = ground::find_build(home, component, &version, printer).await?;
    printer.idle();
    let plan = session::plan(fleet, component, "plan", &build)?;
    let names = Names::read(home)?;
    let places = fleet.places(&component.name);
    let looks = look::at(places, look::PATIENCE).await;
    let (nodes, changing) = changes(component, &build, &names, places.iter().zip(&looks));
    let batch = u32::try_from(plan.policy.batch_size).unwrap_or(u32::MAX).max(1);
    let batches = changing.div_ceil(batch);
    let (gates, slowest) = passes(component)?;
    let watched = slowest * batches + plan.policy.baseline.0 + plan.policy.soak.0;
    let refusal = session::refusal(home, fleet, component, &known.spec).await?;
    let sights = looks.iter().map(|look| look.as_ref().ok());
    let foreign = Foreign::among(fleet, places.iter().zip(sights), home.store().home());
    let refused = foreign.map(SessionError::from).or(refusal.map(SessionError::from));
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Plan",
        "metadata": {"name": build.name},
        "spec": {"environment": fleet.environment.name, "component": component.name, "build": build.name, "digest": build.digest},
        "status": {
            "nodes": nodes.iter().map(|(name, runs, what)| json!({"name": name, "build": runs, "steps": what})).collect::<Vec<_>>(),
            "batches": batches,
            "batchSize": batch,
            "maxUnavailable": plan.policy.max_unavailable,
            "gates": gates.iter().map(|(name, words)| json!({"name": name, "pass": words})).collect::<Vec<_>>(),
            "watchedSeconds": watched.as_secs(),
            "refused": refused.as_ref().map(ToString::to_string),
        },
    });
    printer.resource(&resource, |p| {
        p.line(&format!(
            "{} onto {}: {changing} of {} nodes change, in {batches} batches of {batch}, at most {} out of service",
            build.name,
            fleet.environment.name,
            nodes.len(),
            plan.policy.max_unavailable
        ))?;
        let rows = nodes
            .iter()
            .map(|(n, b, w)| vec![n.clone(), b.clone(), w.clone()])
            .collect();
        p.table(&["NODE", "RUNS", "STEPS"], rows)?;
        for (name, words) in &gates {
            p.line(&format!("gate {name}: {words}"))?;
        }
        p.line(&format!(
            "watching takes at least {}: baseline {}, analysis {} a batch, soak {}; the nodes' own work comes to it",
            whole_seconds(watched),
            plan.policy.baseline,
            whole_seconds(slowest),
            plan.policy.soak
        ))
    })?;
    match refused {
        Some(refused) => Err(refused.into()),
        None => Ok(Exit::Done),
    }
}

/// Each node with what it runs and the steps that it would go through; and how many change.
fn changes<'a>(
    component: &Component,
    build: &BuildRef,
    names: &Names,
    looks: impl Iterator<Item = (&'a Place, &'a Sight)>,
) -> (Vec<(String, String, String)>, u32) {
    let mut nodes = Vec::new();
    let mut changing = 0_u32;
    for (place, look) in looks {
        let (runs, what) = match look {
            Err(why) => ("-".to_owned(), why.clone()),
            Ok(sight) => {
                let current = sight.running.as_ref().and_then(|r| r.build);
                let what = if let Some(why) = &sight.unstated {
                    why.clone()
                } else if current == Some(build.digest) {
                    "nothing to do".to_owned()
                } else {
                    changing += 1;
                    session::steps_of(component).join(", ")
                };
                (names.of(current.as_ref()), what)
            }
        };
        nodes.push((place.site.name.clone(), runs, what));
    }
    (nodes, changing)
}

/// Each gate with what a pass of it takes, and the longest of them.
fn passes(component: &Component) -> anyhow::Result<(Vec<(String, String)>, std::time::Duration)> {
    let mut gates = Vec::new();
    let mut slowest = std::time::Duration::ZERO;
    for gate in &component.gates {
        // A pass does not depend on alpha, so neither on how many tests share it.
        let stated = StatedGate::new(component, gate, NonZeroU32::MIN)?;
        let Some(rate) = stated.rate_per_s else {
            gates.push((gate.name.clone(), "as soon as its probe answers".to_owned()));
            continue;
        };
        let calls = calls_to_pass(&stated.gate);
        let words = match seconds_to_pass(&stated.gate, rate) {
            Some(seconds) => {
                let takes = std::time::Duration::from_secs_f64(seconds.min(1e9));
                slowest = slowest.max(takes);
                format!(
                    "{calls} clean calls at {rate}/s a node pass {}: about {} a batch",
                    stated.limit,
                    whole_seconds(takes)
                )
            }
            None => format!("{calls} clean calls pass {}", stated.limit),
        };
        gates.push((gate.name.clone(), words));
    }
    Ok((gates, slowest))
}

fn whole_seconds(length: std::time::Duration) -> Duration {
    Duration::from_secs(length.as_secs() + u64::from(length.subsec_nanos() > 0))
}

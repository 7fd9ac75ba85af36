//! `stagegate refresh ENV`.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::engine::delivery;
use crate::model::environment::{Component, Mask, Refresh};
use crate::model::upgrade::{Event, Severity};
use crate::refresh::{Refreshing, Taken};
use crate::report::{self, Subject};
use crate::settings;
use crate::store::Store as _;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The replica: a file's name in environments/
    #[arg(value_name = "ENV", value_parser = ground::environment_name)]
    environment: String,
    /// Only this component
    #[arg(long, value_name = "COMPONENT")]
    component: Option<String>,
    /// Show what would become of every column, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments {
        environment,
        component,
        dry_run,
    } = arguments;
    let interrupt = ground::interrupt(printer)?;
    let (home, fleet) = ground::operable(&environment, ground::home)?;
    let spec = &fleet.environment.spec;
    let wanted = |c: &&Component| component.as_ref().is_none_or(|name| c.name == *name);
    let stated: Vec<(&Component, &Refresh)> = spec
        .components
        .iter()
        .filter(wanted)
        .filter_map(|component| Some((component, component.refresh.as_ref()?)))
        .collect();
    let (Some(base), false) = (&spec.replica_of, stated.is_empty()) else {
        return Err(ground::GroundError::NothingToRefresh(environment).into());
    };
    let (_, base) = ground::operable(base, ground::home)?;
    let lease = match dry_run {
        true => None,
        false => Some(ground::lease(&home, &fleet, printer).await?),
    };
    let mut all = Vec::new();
    for (component, refresh) in stated {
        let (from, into) = (base.database_config(&refresh.from)?, fleet.database_config(&refresh.into)?);
        let refreshing = Refreshing::new(refresh, &from, &into, refresh.timeout.0).await?;
        let taken = match &lease {
            None => refreshing.look().await?,
            Some(lease) => {
                let told = |taken: &Taken| printer.note(&words(taken));
                // Dropped in the middle, its connection closes and the replica keeps what it had.
                tokio::select! {
                    () = interrupt.wait() => return Ok(Exit::Interrupted),
                    done = lease.keep(refreshing.run(told)) => done??,
                }
            }
        };
        if lease.is_some() {
            let message = format!(
                "{} of {}: {}",
                refresh.into,
                base.environment.name,
                taken.iter().map(words).collect::<Vec<_>>().join("; ")
            );
            let event = Event {
                at: Timestamp::now(),
                reason: "DataRefreshed".to_owned(),
                severity: Severity::Step,
                node: None,
                message,
            };
            let subject = Subject {
                component: component.name.clone(),
                build: String::new(),
                user: settings::user(),
            };
            let sinks = delivery::sinks(&fleet);
            let dispatch = report::dispatcher(home.store().home(), &subject, &sinks);
            home.store().append(&environment, None, &[event], &dispatch)?;
        }
        all.extend(taken.into_iter().map(|taken| (component.name.clone(), taken)));
    }
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Refresh",
        "metadata": {"name": environment},
        "spec": {"from": base.environment.name, "dryRun": dry_run},
        "status": {"tables": all.iter().map(for_programs).collect::<Vec<_>>()},
    });
    printer.resource(&resource, |p| {
        let rows = all.iter().map(|(component, taken)| row(component, taken)).collect();
        p.table(&["COMPONENT", "TABLE", "ROWS", "COMPARED", "MASKED"], rows)
    })?;
    Ok(Exit::Done)
}

fn masked(taken: &Taken) -> impl Iterator<Item = (&str, Mask)> {
    let fates = taken.fates.iter().filter(|fate| fate.mask != Mask::Keep);
    fates.map(|fate| (fate.column.as_str(), fate.mask))
}

fn words(taken: &Taken) -> String {
    format!(
        "{}: {} rows, {} columns masked, {} masked values compared",
        taken.table,
        taken.rows.unwrap_or_default(),
        masked(taken).count(),
        taken.compared
    )
}

fn row(component: &str, taken: &Taken) -> Vec<String> {
    let masks: Vec<String> = masked(taken).map(|(column, mask)| format!("{column} ({})", mask.word())).collect();
    vec![
        component.to_owned(),
        taken.table.clone(),
        taken.rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string()),
        taken.rows.map_or_else(|| "-".to_owned(), |_| taken.compared.to_string()),
        masks.join(", "),
    ]
}

fn for_programs((component, taken): &(String, Taken)) -> serde_json::Value {
    let columns = taken.fates.iter().map(|fate| (fate.column.clone(), json!(fate.mask)));
    json!({
        "component": component,
        "name": taken.table,
        "rows": taken.rows,
        "compared": taken.compared,
        "columns": columns.collect::<serde_json::Map<_, _>>(),
    })
}

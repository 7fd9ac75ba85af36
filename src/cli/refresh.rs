//! `stagegate refresh ENV`.

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::printer::Printer;
use super::view::API_VERSION;
use super::{Exit, ground};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::session::{Refusal, SessionError};
use crate::model::environment::{Component, Mask, Refresh};
use crate::model::upgrade::{Event, Severity};
use crate::refresh::{Copied, Refreshing};
use crate::report::{self, Subject};
use crate::settings;
use crate::signals::postgres::DatabaseConfig;
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
    let bases = databases_of_bases(&base)?;
    let lease = if dry_run {
        None
    } else {
        Some(ground::lease(&home, &fleet, printer).await?)
    };
    if let Some(open) = home.store().unfinished(Some(&environment))?.pop() {
        return Err(SessionError::from(Refusal::unfinished(open)).into());
    }
    let tell = |component: &Component, reason: &str, message: String| {
        let event = Event {
            at: Timestamp::now(),
            reason: reason.to_owned(),
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
        home.store().append(&environment, None, &[event], &dispatch)
    };
    let mut all = Vec::new();
    for (component, refresh) in stated {
        let (from, into) = (
            base.database_config(&refresh.from)?,
            fleet.database_config(&refresh.into)?,
        );
        let refreshing = Box::pin(Refreshing::new(refresh, &from, &into, &bases)).await?;
        let tables = match &lease {
            None => refreshing.look().await?,
            Some(lease) => {
                let place = format!("{} from {}", refresh.into, base.environment.name);
                tell(
                    component,
                    "DataRefreshing",
                    format!("{place}: {} tables", refresh.tables.len()),
                )?;
                let told = |copied: &Copied| printer.note(&words(copied));
                let tables = tokio::select! {
                    () = interrupt.wait() => {
                        refreshing.cancel().await;
                        return Ok(Exit::Interrupted);
                    }
                    done = lease.keep(Box::pin(refreshing.copy(told))) => done??,
                };
                // From here on it is done, whoever asks for an end.
                refreshing.keep().await?;
                let rows: u64 = tables.iter().filter_map(|table| table.rows).sum();
                let compared: u64 = tables.iter().map(|table| table.compared).sum();
                let message = format!(
                    "{place}: {rows} rows of {} tables; {compared} masked values compared, none came through",
                    tables.len()
                );
                tell(component, "DataRefreshed", message)?;
                tables
            }
        };
        all.extend(tables.into_iter().map(|copied| (component.name.clone(), copied)));
    }
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Refresh",
        "metadata": {"name": environment},
        "spec": {"from": base.environment.name, "dryRun": dry_run},
        "status": {"tables": all.iter().map(for_programs).collect::<Vec<_>>()},
    });
    printer.resource(&resource, |p| {
        let rows = all.iter().map(|(component, copied)| row(component, copied)).collect();
        p.table(&["COMPONENT", "TABLE", "ROWS", "COMPARED", "MASKED"], rows)
    })?;
    Ok(Exit::Done)
}

/// Every database of an environment, and of those that it is a replica of.
fn databases_of_bases(base: &Arc<Fleet>) -> anyhow::Result<Vec<DatabaseConfig>> {
    let mut all = Vec::new();
    let mut next = Some(Arc::clone(base));
    while let Some(fleet) = next {
        let spec = &fleet.environment.spec;
        for database in &spec.databases {
            all.push(fleet.database_config(&database.name)?);
        }
        next = match &spec.replica_of {
            Some(base) => Some(ground::operable(base, ground::home)?.1),
            None => None,
        };
    }
    Ok(all)
}

fn masked(copied: &Copied) -> impl Iterator<Item = (&str, Mask)> {
    let fates = copied.fates.iter().filter(|fate| fate.mask != Mask::Keep);
    fates.map(|fate| (fate.column.as_str(), fate.mask))
}

fn words(copied: &Copied) -> String {
    format!(
        "{}: {} rows, {} columns masked",
        copied.table,
        copied.rows.unwrap_or_default(),
        masked(copied).count()
    )
}

fn row(component: &str, copied: &Copied) -> Vec<String> {
    let masks: Vec<String> = masked(copied)
        .map(|(column, mask)| format!("{column} ({})", mask.word()))
        .collect();
    vec![
        component.to_owned(),
        copied.table.clone(),
        copied.rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string()),
        copied
            .rows
            .map_or_else(|| "-".to_owned(), |_| copied.compared.to_string()),
        masks.join(", "),
    ]
}

fn for_programs((component, copied): &(String, Copied)) -> serde_json::Value {
    let columns = copied.fates.iter().map(|fate| (fate.column.clone(), json!(fate.mask)));
    json!({
        "component": component,
        "name": copied.table,
        "rows": copied.rows,
        "compared": copied.compared,
        "columns": columns.collect::<serde_json::Map<_, _>>(),
    })
}

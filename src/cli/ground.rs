//! What most commands stand on: the home, the workspace, an environment.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::printer::Printer;
use crate::engine::builds;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::session::KnownBuild;
use crate::home::Home;
use crate::http::{HttpOptions, Route};
use crate::model::build::BuildRef;
use crate::model::environment::{Component, ReportSink};
use crate::model::system::PortShift;
use crate::report::{Courier, FileSink, LineSink, Sink, WebhookSink};
use crate::settings;
use crate::store::Store;
use crate::workspace::Workspace;

/// Arguments and settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// A setting.
    #[error("{0}")]
    Setting(String),
    /// `--build`.
    #[error("`{0}` does not name a build; write COMPONENT=VERSION, as server=1.0.4")]
    Build(String),
    /// No such component.
    #[error("environment {environment} has no component `{component}`; it has {there}")]
    Component {
        /// The environment.
        environment: String,
        /// What was asked for.
        component: String,
        /// What there is.
        there: String,
    },
    /// A build that nobody has seen.
    #[error("there is no build {0}; `stagegate build list` shows what is known")]
    UnknownBuild(String),
}

pub(super) fn workspace() -> Workspace {
    Workspace::at(settings::workspace())
}

/// Where the state lies, without opening it.
pub(super) fn state_directory() -> PathBuf {
    settings::state_directory()
}

pub(super) fn home() -> anyhow::Result<Home> {
    Ok(Home::open(&settings::state_directory())?)
}

pub(super) fn templates(workspace: &Workspace) -> anyhow::Result<crate::model::render::Renderer> {
    Ok(workspace.templates()?)
}

/// Reads an environment and makes it operable.
pub(super) fn fleet(home: &Home, workspace: &Workspace, environment: &str) -> anyhow::Result<Arc<Fleet>> {
    let shift = settings::port_shift().map_err(GroundError::Setting)?;
    let environment = workspace.environment(environment, PortShift(shift))?;
    let templates = workspace.templates()?;
    Ok(Arc::new(Fleet::new(environment, templates, home)))
}

/// `COMPONENT=VERSION`, with the component.
pub(super) fn component_and_version<'a>(
    fleet: &'a Fleet,
    wanted: &str,
) -> Result<(&'a Component, String), GroundError> {
    let (component, version) = wanted
        .split_once('=')
        .filter(|(c, v)| !c.is_empty() && !v.is_empty())
        .ok_or_else(|| GroundError::Build(wanted.to_owned()))?;
    let found = fleet.environment.component(component).ok_or_else(|| {
        let there: Vec<_> = fleet
            .environment
            .spec
            .components
            .iter()
            .filter(|c| c.source.is_some())
            .map(|c| c.name.as_str())
            .collect();
        GroundError::Component {
            environment: fleet.environment.name.clone(),
            component: component.to_owned(),
            there: there.join(", "),
        }
    })?;
    Ok((found, version.to_owned()))
}

/// A build by component and version: as the state has it, else from its source, and then into the state.
pub(super) async fn build(
    home: &Home,
    component: &Component,
    version: &str,
    printer: &Printer,
) -> anyhow::Result<(BuildRef, KnownBuild)> {
    let name = format!("{}-{version}", component.name);
    if let Some(known) = KnownBuild::find(home, &name)? {
        return Ok((known.spec.reference(), known));
    }
    printer.doing(format!("finding {name} in its source"));
    let spec = builds::resolve(component, version, &settings::workspace()).await?;
    KnownBuild::create(home, &spec)?;
    let known = KnownBuild::find(home, &name)?.ok_or_else(|| GroundError::UnknownBuild(name.clone()))?;
    printer.note(&format!(
        "{name} is sha256:{} ({} packages locked)",
        spec.digest.short(),
        spec.locked.len()
    ));
    Ok((known.spec.reference(), known))
}

/// Delivers an environment's reports.
pub(super) fn courier(home: &Home, fleet: &Fleet) -> anyhow::Result<Courier> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    for ReportSink {
        name,
        file,
        webhook,
        stdout,
    } in &fleet.environment.spec.reports
    {
        if let Some(file) = file {
            let directory = home.environment(&fleet.environment.name);
            crate::home::make_private(&directory)?;
            sinks.push(Box::new(FileSink::new(
                name.clone(),
                directory.join(PathBuf::from(&file.path)),
            )));
        }
        if let Some(webhook) = webhook {
            let url = fleet.secrets.text(&webhook.url)?;
            sinks.push(Box::new(WebhookSink::new(
                name.clone(),
                &url,
                &HttpOptions {
                    route: Route::EnvironmentProxy,
                    ..HttpOptions::default()
                },
                Arc::new(Timestamp::now),
            )?));
        }
        if stdout.is_some() {
            sinks.push(Box::new(LineSink::new(name.clone(), Box::new(std::io::stderr()))));
        }
    }
    let store: Arc<dyn Store> = Arc::clone(home.store()) as Arc<dyn Store>;
    Ok(Courier::new(store, sinks, Arc::new(Timestamp::now)))
}

/// The first SIGINT or SIGTERM asks for the end; a second one ends at once, which loses nothing either.
pub(super) fn interrupt() -> anyhow::Result<Interrupt> {
    use tokio::signal::unix::{SignalKind, signal};
    let (asks, interrupt) = Interrupt::new();
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        for asked_before in [false, true] {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            if asked_before {
                std::process::exit(130);
            }
            asks.interrupt();
        }
    });
    Ok(interrupt)
}

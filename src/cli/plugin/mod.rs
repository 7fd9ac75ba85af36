//! `kubectl stagegate`: the same program under the name `kubectl-stagegate`, over the objects of a cluster. What is only looked at is
//! shown as of any other home; what is asked for is written into objects, and a controller carries it out.

mod words;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use kube::Client;

use super::printer::Printer;
use super::{Exit, Output, build, events, ground, status, why};
use crate::cluster::connection;
use crate::cluster::objects::{Upgrade, name};
use crate::cluster::snapshot::{Scope, Snapshot};
use crate::model::values;

/// What kubectl looks for when it is asked for `stagegate`.
const NAME: &str = "kubectl-stagegate";
/// Between two looks of who watches: each lists the objects that are shown.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An API server that says nothing for so long is away.
const CALL: Duration = Duration::from_secs(20);

#[derive(Debug, Parser)]
#[command(
    name = NAME,
    bin_name = "kubectl stagegate",
    version,
    about = "Upgrades of a namespace that `stagegate controller` drives: what goes on, why it waits, and what you want of it",
    max_term_width = 100
)]
struct Arguments {
    /// How data is written: table, wide, json, yaml or name
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    output: Output,
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Why a word could not be passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PluginError {
    /// No cluster.
    #[error("cannot find the cluster: {0}; KUBECONFIG or --context says which")]
    NoCluster(String),
    /// No such object.
    #[error(
        "there is no Environment {environment} in namespace {namespace}; `kubectl get env -n {namespace}` lists what there is"
    )]
    NoEnvironment {
        /// What was asked for.
        environment: String,
        /// Where.
        namespace: String,
    },
    /// The same of a build that its environment does not state itself. In a shell it is the other program that makes it.
    #[error(
        "there is no Build of {wanted} in namespace {namespace}; where the files of {environment} lie, this makes it: \
         stagegate build manifest {environment} {wanted} | kubectl apply -n {namespace} -f -"
    )]
    NoBuild {
        /// Of which environment.
        environment: String,
        /// COMPONENT=VERSION.
        wanted: String,
        /// Where.
        namespace: String,
    },
    /// It was told to go back.
    #[error("{0} was told to go back, and does; what it is to become is for the next upgrade")]
    GoesBack(String),
    /// Somebody else writes all the time.
    #[error("{0} changes faster than it can be written; the same command again")]
    Contended(String),
}

impl PluginError {
    /// How a command ends by it.
    pub(super) fn exit(&self) -> Exit {
        match self {
            PluginError::NoEnvironment { .. } | PluginError::NoBuild { .. } => Exit::Usage,
            PluginError::GoesBack(_) => Exit::Refused,
            PluginError::NoCluster(_) | PluginError::Contended(_) => Exit::Errored,
        }
    }
}

/// Whether it has a command of this name: what texts say of others is for `stagegate` itself.
pub(super) fn has(command: &str) -> bool {
    Arguments::command().find_subcommand(command).is_some()
}

/// Its commands, as its help says them.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

/// Which objects.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The namespace (default: the context's)
    #[arg(short, long, global = true, value_name = "NS")]
    namespace: Option<String>,
    /// The kubeconfig's context (default: its current one)
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs where, and what goes on
    Status {
        /// The environment; every one without
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: Option<String>,
        /// Show it again whenever it changes
        #[arg(short, long)]
        watch: bool,
    },
    /// The first thing that keeps an upgrade from going on, and what clears it
    Why {
        /// The environment
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
    },
    /// The last upgrades
    History(events::HistoryArguments),
    /// Put a build onto an environment, batch by batch behind its gates
    ///
    /// Makes an Upgrade and stays with it; the controller drives it. The same command again stays with the one that is open, and one
    /// that is held goes on. SIGINT ends the watching only.
    #[command(after_help = "Example:\n  kubectl stagegate upgrade shop --build web=1.1 --timeout 30m")]
    Upgrade {
        /// The environment
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
        /// What goes on
        #[arg(long, value_name = "COMPONENT=VERSION")]
        build: String,
        #[command(flatten)]
        staying: Staying,
    },
    /// Hold the running upgrade once its steps have ended
    Pause {
        /// The environment
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
    },
    /// Go on with a held upgrade
    Resume {
        /// The environment
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
        #[command(flatten)]
        staying: Staying,
    },
    /// Take the running upgrade back to the builds before it
    Abort {
        /// The environment
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
        #[command(flatten)]
        staying: Staying,
    },
    /// Builds that are known here
    Build {
        #[command(subcommand)]
        action: BuildAction,
    },
}

#[derive(Debug, Subcommand)]
enum BuildAction {
    /// The builds that are known here
    List,
    /// Lift a quarantine
    Release {
        /// The build's name, COMPONENT-VERSION
        build: String,
        /// The environment where it is quarantined
        #[arg(long, value_parser = ground::environment_name)]
        env: String,
        /// Why it may go there again; it stays in the Build's status, and is an Event of it
        #[arg(long, value_parser = super::reason)]
        reason: String,
    },
}

/// How long a command stays with its upgrade.
#[derive(Debug, Args)]
pub(super) struct Staying {
    /// Pause the upgrade when it is not done by then, as 30m (exit 124)
    #[arg(long, value_name = "DURATION")]
    timeout: Option<values::Duration>,
    /// Return at once
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

/// Whether kubectl has called us.
pub(super) fn is_called() -> bool {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_name().is_some_and(|file| file == NAME)
}

/// Parses the arguments, runs the command, and says how it ended.
pub(super) fn main() -> ExitCode {
    let ended = match Arguments::try_parse() {
        Err(error) => super::not_understood(&error),
        Ok(Arguments { output, place, command }) => {
            super::log_to_stderr();
            let printer = Printer::new(output);
            super::ended(super::wait_for(run(command, &place, &printer)), &printer)
        }
    };
    ExitCode::from(ended.code())
}

/// A cluster's namespace.
pub(super) struct Ground {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl Ground {
    async fn find(place: &Place) -> anyhow::Result<Self> {
        let found = connection::connect_in(place.context.as_deref(), CALL).await;
        let (client, own) = found.map_err(PluginError::NoCluster)?;
        Ok(Self {
            client,
            namespace: place.namespace.clone().unwrap_or(own),
        })
    }

    pub(super) async fn look(&self, scope: Scope<'_>, printer: &Printer) -> anyhow::Result<Snapshot> {
        let snapshot = Snapshot::take(&self.client, &self.namespace, scope).await?;
        for why in &snapshot.unreadable {
            printer.note(&format!("passed over: {why}"));
        }
        Ok(snapshot)
    }
}

/// Who drives an upgrade, as its object says, for as long as a controller leads.
pub(super) fn driver(snapshot: &Snapshot, upgrade: Option<&Upgrade>) -> Option<ground::Driver> {
    let leader = snapshot.leader.clone()?;
    let driver = upgrade.and_then(|upgrade| upgrade.book.driver.clone());
    Some(ground::Driver::Controller(driver.unwrap_or(leader)))
}

async fn run(command: Command, place: &Place, printer: &Printer) -> anyhow::Result<Exit> {
    let ground = Ground::find(place).await?;
    match command {
        Command::Status { environment, watch } => {
            let mut redraw = status::Redraw::default();
            let scope = environment.as_deref().map_or(Scope::Namespace, Scope::Environment);
            let mut snapshot = ground.look(scope, printer).await?;
            loop {
                let driver_of = |environment: &str| {
                    let upgrade = snapshot.open_in(environment);
                    upgrade.and_then(|upgrade| driver(&snapshot, Some(upgrade)))
                };
                status::show_driven(&snapshot.home, environment.as_deref(), &driver_of, &mut redraw, printer)?;
                if !watch || printer.is_unread() {
                    return Ok(Exit::Done);
                }
                tokio::time::sleep(LOOK_EVERY).await;
                snapshot.again(&ground.client, &ground.namespace, scope).await?;
            }
        }
        Command::Why { environment } => {
            let snapshot = ground.look(Scope::Environment(&environment), printer).await?;
            let driver = driver(&snapshot, snapshot.open_in(&environment));
            why::tell(&snapshot.home, &environment, driver, printer)
        }
        Command::History(arguments) => {
            let scope = arguments.environment().map_or(Scope::Namespace, Scope::Environment);
            events::history_of(&ground.look(scope, printer).await?.home, &arguments, printer)
        }
        Command::Build {
            action: BuildAction::List,
        } => {
            build::list(&ground.look(Scope::Namespace, printer).await?.home, printer)?;
            Ok(Exit::Done)
        }
        Command::Upgrade {
            environment,
            build,
            staying,
        } => words::upgrade(&ground, &environment, &build, &staying, printer).await,
        Command::Pause { environment } => words::pause(&ground, &environment, printer).await,
        Command::Resume { environment, staying } => words::resume(&ground, &environment, &staying, printer).await,
        Command::Abort { environment, staying } => words::abort(&ground, &environment, &staying, printer).await,
        Command::Build {
            action: BuildAction::Release { build, env, reason },
        } => words::release(&ground, &build, &env, &reason, printer).await,
    }
}

/// Its name, for people.
pub(super) fn named(upgrade: &Upgrade) -> &str {
    name(&upgrade.object)
}

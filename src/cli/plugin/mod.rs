//! `kubectl stagegate`: the same program under the name `kubectl-stagegate`, over the objects of a cluster. What is only looked at is
//! shown as of any other home; what is asked for is written into objects, and a controller carries it out.

mod promotions;
mod up;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client};

use super::printer::Printer;
use super::view::moment;
use super::{Exit, Output, build, called, events, freeze, ground, status, why};
use crate::cluster::objects::{Kind, Upgrade, asked, name, patiently};
use crate::cluster::snapshot::{LEASE, Lead, Scope, Snapshot};
use crate::cluster::{connection, install};
use crate::model::approval::Verb;
use crate::model::upgrade::Phase;
use crate::model::values;
use crate::store::Store as _;

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
        "there is no Environment {environment} in namespace {namespace}{}; `kubectl get env -A` lists those of every namespace",
        there_are(there)
    )]
    NoEnvironment {
        /// What was asked for.
        environment: String,
        /// Where.
        namespace: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// Not even one.
    #[error("there is no Environment in namespace {0}; `kubectl get env -A` lists those of every namespace")]
    NoEnvironments(String),
    /// It is there, and nothing was ever asked of it.
    #[error(
        "environment {0} was never upgraded; `stagegate status {0}` shows how it stands, and `stagegate upgrade {0} --build COMPONENT=VERSION` begins an upgrade"
    )]
    NeverUpgraded(String),
    /// A component that its environment does not have.
    #[error("environment {environment} has no component {component}; it has {}", there.join(", "))]
    NoComponent {
        /// The environment.
        environment: String,
        /// What was asked for.
        component: String,
        /// Those that it has.
        there: Vec<String>,
    },
    /// Another one waits, and has touched nothing.
    #[error(
        "environment {environment} has upgrade {open} to {build}, which was not begun ({reason}): {message}; `stagegate abort {environment}` \
         ends it, and nothing was touched"
    )]
    Waits {
        /// The environment.
        environment: String,
        /// The one that is in the way.
        open: String,
        /// Its build.
        build: String,
        /// Why it waits, in one word.
        reason: String,
        /// And in more.
        message: String,
    },
    /// The same of a build that its environment does not state itself. In a shell it is the other program that makes it.
    #[error(
        "there is no Build of {wanted} in namespace {namespace}; where the files of {environment} lie, this makes it: \
         `stagegate build manifest {environment} {wanted} | kubectl apply -n {namespace} -f -`"
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
    /// A promotion of which this cannot be said.
    #[error("{0}")]
    Undecided(String),
    /// One that nobody brings up.
    #[error("{0}")]
    NotBroughtUp(String),
    /// Somebody else writes all the time.
    #[error("{0} changes faster than it can be written; the same command again")]
    Contended(String),
}

impl PluginError {
    /// How a command ends by it.
    pub(super) fn exit(&self) -> Exit {
        match self {
            PluginError::NoEnvironment { .. }
            | PluginError::NoEnvironments(_)
            | PluginError::NeverUpgraded(_)
            | PluginError::NoComponent { .. }
            | PluginError::NoBuild { .. } => Exit::Usage,
            PluginError::GoesBack(_)
            | PluginError::Waits { .. }
            | PluginError::Undecided(_)
            | PluginError::NotBroughtUp(_) => Exit::Refused,
            PluginError::NoCluster(_) | PluginError::Contended(_) => Exit::Errored,
        }
    }
}

/// Whether it has the command that these words are: what texts say of others is for `stagegate` itself.
pub(super) fn understands(words: &str) -> bool {
    let all = [NAME.to_owned()].into_iter().chain(called::words(words));
    Arguments::try_parse_from(all).is_ok()
}

/// Whether these words, its name first, are a command line of its.
pub(super) fn understood<'a>(words: impl Iterator<Item = &'a str>) -> Result<(), String> {
    Arguments::try_parse_from(words).map(|_| ()).map_err(|e| e.to_string())
}

/// The namespace and the context that were asked for, as a command has them that is to be of the same.
static ASKED_FOR: OnceLock<String> = OnceLock::new();

/// What stands between the plugin's name and a command that is of the same namespace and context as this one.
pub(super) fn asked_for() -> &'static str {
    ASKED_FOR.get().map_or("", String::as_str)
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

impl Place {
    fn as_words(&self) -> String {
        let named = [("-n", &self.namespace), ("--context", &self.context)];
        let words = named.into_iter().filter_map(|(flag, value)| {
            let value = value.as_ref()?;
            Some(format!(" {flag} {}", called::quoted(value)))
        });
        words.collect()
    }
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
        /// Ask every node now, from here, and mark what differs from what was written down
        #[arg(long, conflicts_with = "watch")]
        look: bool,
    },
    /// The first thing that keeps an upgrade from going on, and what clears it
    Why {
        /// The environment
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
    },
    /// Bring an environment up again, with the templates as they are now
    ///
    /// Asks its controller by the annotation stagegate.dev/reconcile-at, and waits for its answer; where the templates have changed, until it
    /// has them. SIGINT ends the waiting only.
    #[command(after_help = "Example:\n  kubectl stagegate up staging --timeout 10m")]
    Up {
        /// The environment
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
        #[command(flatten)]
        waiting: up::Waiting,
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
    /// Ask for a build to enter an environment by its pipeline
    #[command(after_help = "Example:\n  kubectl stagegate promote web-1.1 --to production")]
    Promote(promotions::PromoteArguments),
    /// Say that a promotion may go on
    Approve(promotions::SayArguments),
    /// Say that a promotion must not go on
    Reject(promotions::SayArguments),
    /// Take an approval back
    Withdraw(promotions::SayArguments),
    /// Take a promotion back
    Cancel {
        /// The promotion
        #[arg(value_name = "PROMOTION")]
        promotion: String,
    },
    /// Let nothing enter environments
    #[command(after_help = "Example:\n  kubectl stagegate freeze production --reason 'the database is slow' --for 2h")]
    Freeze(freeze::Arguments),
    /// End a freeze
    Unfreeze {
        /// Name of the freeze
        #[arg(value_name = "FREEZE")]
        freeze: String,
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
            ASKED_FOR.get_or_init(|| place.as_words());
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

    /// What tells this home from others on nodes; who may not ask for it goes without.
    async fn identity(&self) -> Option<String> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let asked = asked("read", "the namespace", namespaces.get(&self.namespace)).await;
        asked.ok()?.metadata.uid
    }

    pub(super) async fn look(&self, scope: Scope<'_>, printer: &Printer) -> anyhow::Result<Snapshot> {
        let snapshot = Snapshot::take(&self.client, &self.namespace, scope).await?;
        for why in &snapshot.unreadable {
            printer.note(&format!("passed over: {why}"));
        }
        Ok(snapshot)
    }
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(", which has {}", names.join(", "))
    }
}

/// Who drives an upgrade, as its object says, for as long as a controller leads.
pub(super) fn driver(snapshot: &Snapshot, upgrade: Option<&Upgrade>) -> Option<ground::Driver> {
    let Lead::By {
        controller,
        quiet_since,
    } = snapshot.lead.clone()
    else {
        return None;
    };
    let driver = upgrade.and_then(|upgrade| upgrade.book.driver.clone());
    Some(ground::Driver::Controller {
        name: driver.unwrap_or(controller),
        quiet_since,
    })
}

/// That nothing goes on, since no controller leads, and what to look at.
pub(super) fn nobody_leads(lead: &Lead, namespace: &str) -> String {
    let who = match lead {
        Lead::By {
            controller,
            quiet_since: Some(since),
        }
        | Lead::Gone { controller, since } => format!("{controller} has said nothing since {}", moment(*since)),
        Lead::By { quiet_since: None, .. } | Lead::Nobody => format!("nobody has its Lease {LEASE}"),
    };
    format!(
        "no controller leads in namespace {namespace} ({who}), and nothing goes on until one does; `{}` shows those that there are",
        controllers_of(namespace)
    )
}

/// The same, if none does.
fn no_leader(ground: &Ground, snapshot: &Snapshot) -> Option<String> {
    match &snapshot.lead {
        Lead::By { .. } => None,
        lead @ (Lead::Gone { .. } | Lead::Nobody) => Some(nobody_leads(lead, &ground.namespace)),
    }
}

/// The command that shows the controllers of a namespace.
fn controllers_of(namespace: &str) -> String {
    format!("kubectl get pods -n {namespace} -l {}", install::SELECTOR)
}

/// What a cluster knows of an upgrade beside its record.
fn cluster(ground: &Ground, snapshot: &Snapshot, environment: &str) -> why::Cluster {
    let namespace = &ground.namespace;
    why::Cluster {
        namespace: namespace.clone(),
        nobody_leads: no_leader(ground, snapshot),
        controllers: controllers_of(namespace),
        stuck: snapshot.open_in(environment).and_then(stuck),
    }
}

/// Why one that was begun does not go on, where its controller cannot drive it.
fn stuck(upgrade: &Upgrade) -> Option<why::Stuck> {
    let moves = !upgrade.status.phase.is_held() && upgrade.status.phase != Phase::Pending;
    let progressing = upgrade.book.conditions.iter().find(|c| c["type"] == "Progressing")?;
    let text = |key: &str| Some(progressing[key].as_str()?.to_owned());
    (moves && progressing["status"] == "False").then_some(why::Stuck {
        reason: text("reason")?,
        message: text("message")?,
        since: text("lastTransitionTime")?.parse().ok()?,
    })
}

/// That there is no such environment, and which there are.
async fn there_is_no(ground: &Ground, environment: &str) -> anyhow::Result<PluginError> {
    let api = Kind::Environment.api(&ground.client, &ground.namespace);
    let every = ListParams::default();
    let all = patiently(|| asked("list", "Environments", api.list(&every))).await?;
    Ok(PluginError::NoEnvironment {
        environment: environment.to_owned(),
        namespace: ground.namespace.clone(),
        there: all.items.iter().map(|object| name(object).to_owned()).collect(),
    })
}

/// An environment that is neither there nor was ever upgraded is a mistake in the command.
fn refuse_unknown(ground: &Ground, snapshot: &Snapshot, environment: &str) -> anyhow::Result<()> {
    let store = snapshot.home.store();
    let is_known =
        store.resource("Environment", environment)?.is_some() || !store.upgrades(Some(environment), 1)?.is_empty();
    if is_known {
        return Ok(());
    }
    Err(PluginError::NoEnvironment {
        environment: environment.to_owned(),
        namespace: ground.namespace.clone(),
        there: Vec::new(),
    }
    .into())
}

async fn run(command: Command, place: &Place, printer: &Printer) -> anyhow::Result<Exit> {
    let ground = Ground::find(place).await?;
    match command {
        Command::Status {
            environment,
            watch,
            look,
        } => {
            let mut redraw = status::Redraw::default();
            let scope = environment.as_deref().map_or(Scope::Namespace, Scope::Environment);
            let mut snapshot = ground.look(scope, printer).await?;
            match &environment {
                Some(environment) => refuse_unknown(&ground, &snapshot, environment)?,
                None if snapshot.home.store().resources("Environment")?.is_empty() => {
                    return Err(PluginError::NoEnvironments(ground.namespace).into());
                }
                None => {}
            }
            let identity = if look { ground.identity().await } else { None };
            loop {
                let driver_of = |environment: &str| {
                    let upgrade = snapshot.open_in(environment);
                    upgrade.and_then(|upgrade| driver(&snapshot, Some(upgrade)))
                };
                let shown = status::OfCluster {
                    identity: identity.as_deref(),
                    driver_of: &driver_of,
                    nobody_leads: no_leader(&ground, &snapshot),
                    context: place.context.as_deref(),
                };
                if look {
                    return shown
                        .look_and_show(&snapshot.home, environment.as_deref(), printer)
                        .await;
                }
                shown.show(&snapshot.home, environment.as_deref(), &mut redraw, printer)?;
                if !watch || printer.is_unread() {
                    return Ok(Exit::Done);
                }
                tokio::time::sleep(LOOK_EVERY).await;
                snapshot.again(&ground.client, &ground.namespace, scope).await?;
            }
        }
        Command::Why { environment } => {
            let snapshot = ground.look(Scope::Environment(&environment), printer).await?;
            refuse_unknown(&ground, &snapshot, &environment)?;
            if snapshot.home.store().upgrades(Some(&environment), 1)?.is_empty() {
                return Err(PluginError::NeverUpgraded(environment).into());
            }
            let driver = driver(&snapshot, snapshot.open_in(&environment));
            let cluster = cluster(&ground, &snapshot, &environment);
            why::tell(&snapshot.home, &environment, driver, Some(&cluster), printer)
        }
        Command::History(arguments) => {
            let scope = arguments.environment().map_or(Scope::Namespace, Scope::Environment);
            let snapshot = ground.look(scope, printer).await?;
            if let Some(environment) = arguments.environment() {
                refuse_unknown(&ground, &snapshot, environment)?;
            }
            events::history_of(&snapshot.home, &arguments, printer)
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
        Command::Up { environment, waiting } => up::up(&ground, &environment, &waiting, printer).await,
        Command::Promote(arguments) => promotions::promote(&ground, &arguments, printer).await,
        Command::Approve(arguments) => promotions::say(&ground, Verb::Approve, &arguments, printer).await,
        Command::Reject(arguments) => promotions::say(&ground, Verb::Reject, &arguments, printer).await,
        Command::Withdraw(arguments) => promotions::say(&ground, Verb::Withdraw, &arguments, printer).await,
        Command::Cancel { promotion } => promotions::cancel(&ground, &promotion, printer).await,
        Command::Freeze(arguments) => promotions::freeze(&ground, arguments, printer).await,
        Command::Unfreeze { freeze } => promotions::unfreeze(&ground, &freeze, printer).await,
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

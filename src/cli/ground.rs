//! What most commands stand on: the home, the workspace, an environment.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::printer::Printer;
use super::standing;
use crate::commits::repository::RepositoryError;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::lease::HeldLease;
use crate::engine::session::{self, KnownBuild};
use crate::engine::{builds, delivery};
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::environment::{BuildSource, Component};
use crate::model::system::PortShift;
use crate::model::text;
use crate::server::{self, Running, Terms};
use crate::settings;
use crate::store::{BuildStatus, Holder, Store as _, StoreError};
use crate::workspace::Workspace;

/// Earlier reports may hold a command up for this long: a chat that answers takes them in less, one that is dead must not
/// keep an operator waiting.
const EARLIER_REPORTS: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// Every upgrade that a home keeps: those that have ended, and one that has not in each environment.
const ALL_UPGRADES: u32 = u32::MAX;

/// Arguments and settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// A setting.
    #[error("{0}")]
    Setting(String),
    /// `--build`.
    #[error("`{0}` does not name a build; write COMPONENT=VERSION, as web=2.0")]
    Build(String),
    /// `--build` with what a package tool would choose a version by.
    #[error("`{0}` names more than one version, and a build is one; write COMPONENT=VERSION, as web=2.0")]
    Range(String),
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
    /// No component of it takes data from a base.
    #[error(
        "there is nothing to refresh in {0}: no component of it states `refresh`, or it is no replica; docs/guides/replica-data.md says how"
    )]
    NothingToRefresh(String),
    /// A build that nobody has seen.
    #[error("there is no build `{name}` here; {hint}")]
    UnknownBuild {
        /// What was asked for.
        name: String,
        /// What is near, and what there is.
        hint: String,
    },
    /// No such repository.
    #[error("there is no repository `{name}`: no file of kind Repository in {place} has that name; {hint}")]
    UnknownRepository {
        /// What was asked for.
        name: String,
        /// Where they are looked for.
        place: PathBuf,
        /// What there is.
        hint: String,
    },
    /// Somebody else's repository, which libgit2 reads no more than git does: its configuration names programs.
    #[error(
        "cannot open {place}: it belongs to another user, and git reads nothing of such; run this as that user, or, as the user \
         that runs it, `git config --global --add safe.directory {place}`"
    )]
    ForeignRepository {
        /// Where it is.
        place: String,
    },
    /// A name that nobody has heard of.
    #[error(
        "there is no environment `{name}`: nothing of that name was brought up here, and {place} has no such file; {hint}"
    )]
    UnknownEnvironment {
        /// What was asked for.
        name: String,
        /// Where files are looked for.
        place: PathBuf,
        /// What is near, and what there is.
        hint: String,
    },
    /// No such upgrade.
    #[error("there is no upgrade `{name}`{of}; {hint}")]
    UnknownUpgrade {
        /// What was asked for.
        name: String,
        /// Of which environment, if one was named.
        of: String,
        /// What is near, and what there is.
        hint: String,
    },
    /// It does not stand.
    #[error("environment {environment} {how}; `stagegate up {environment}` brings it up")]
    NotUp {
        /// The environment.
        environment: String,
        /// How it is.
        how: &'static str,
    },
    /// Nothing to copy.
    #[error("there is no state in {path}; STAGEGATE_STATE says where it is", path = .0.display())]
    NoState(PathBuf),
    /// `backup` onto something.
    #[error("cannot copy the state to {path}: there is a file already, and a copy overwrites nothing; name another file, or remove that one first", path = .0.display())]
    BackupExists(PathBuf),
    /// `backup` where nothing can be written.
    #[error(
        "cannot copy the state to {path}: {source}; no copy was made: name a file in a directory that is there and that you may write to (`ls -ld {directory}`)",
        path = to.display(),
        directory = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")).display()
    )]
    BackupRefused {
        /// The copy.
        to: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A resource that is not there.
    #[error("there is no {kind} `{name}` here; {hint}")]
    UnknownResource {
        /// Its kind.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What is near, and what there is.
        hint: String,
    },
    /// `get KIND/NAME NAME`.
    #[error("a name is given already, so `{0}` is one too many; write KIND/NAME, or KIND NAME")]
    TwoNames(String),
    /// A record that cannot be read, or is none.
    #[error("{path} is no evidence that can be replayed: {why}", path = path.display())]
    Evidence {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// `build release` without a quarantine.
    #[error("build {build} is not quarantined in {environment}; `stagegate build list` says where it is")]
    NotQuarantined {
        /// The build.
        build: String,
        /// The environment.
        environment: String,
    },
    /// `quickstart` as somebody who may not install.
    #[error("these Debian packages are missing: {packages}; run this line, then the same command again:\n{line}")]
    PackagesMissing {
        /// Which.
        packages: String,
        /// What installs them.
        line: String,
    },
    /// Nobody said how.
    #[error(
        "these Debian packages are missing: {0}; install them, or state a `packagesScript` in the environment that does"
    )]
    NoPackagesScript(String),
    /// Its nodes listen elsewhere.
    #[error(
        "environment {environment} was brought up with port shift {theirs}, and this command has {ours}; set \
         STAGEGATE_PORT_SHIFT={theirs}"
    )]
    OtherShift {
        /// The environment.
        environment: String,
        /// What its nodes were started with.
        theirs: u16,
        /// What this command goes by.
        ours: u16,
    },
    /// Nodes that nobody would stop.
    #[error(
        "environment {environment} was brought up with nodes that its file no longer has: {}; put them back, take it down, then \
         change the list",
        nodes.join(", ")
    )]
    NodesMissing {
        /// The environment.
        environment: String,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// What is here is a controller's volume.
    #[error(
        "environment {environment} is one of a cluster, of namespace {namespace}, and this is the volume of its controller: how it stands is \
         in its objects; `kubectl stagegate status {environment} -n {namespace}` shows it"
    )]
    OfCluster {
        /// The environment.
        environment: String,
        /// The namespace.
        namespace: String,
    },
    /// A replica that stands somewhere else.
    #[error(
        "environment {environment} was brought up in namespace {namespace}, and its file names another place by now; put that \
         back, take it down with --purge, then change it"
    )]
    OtherTarget {
        /// The environment.
        environment: String,
        /// Where it stands.
        namespace: String,
    },
    /// A component that is objects alone.
    #[error(
        "component {0} has no nodes, so there is nothing to upgrade in batches; write another `build` into the environment, and \
         `stagegate up` applies its objects with it"
    )]
    NoNodes(String),
    /// `diff` of what copies nothing.
    #[error("environment {0} is no replica; `--against ENV` says what it is compared with")]
    ReplicaOfNothing(String),
    /// Nothing ever was.
    #[error(
        "environment {0} was never upgraded; `stagegate plan {0} --build COMPONENT=VERSION` shows what would happen"
    )]
    NeverUpgraded(String),
    /// `quickstart` away from what it is about.
    #[error(
        "there are no rehearsals in {}: run this in a clone of Stagegate (`git clone` it, then `cd` there), or say by STAGEGATE_WORKSPACE where one is", .0.display()
    )]
    NoRehearsals(PathBuf),
    /// `init` where something is already.
    #[error("{} has {there} already, and nothing is overwritten; choose another directory", directory.display())]
    WouldOverwrite {
        /// Where.
        directory: PathBuf,
        /// What is there.
        there: String,
    },
    /// `init --kubernetes` in a namespace of which nothing can be a component as it is.
    #[error(
        "nothing that runs in namespace {namespace} can be upgraded as it is, and no file was written. Mend one of these, then give the same command again:\n{left_out}"
    )]
    NothingUsable {
        /// Which.
        namespace: String,
        /// Lines that say why, and what to do.
        left_out: String,
    },
    /// `--no-wait` without a server.
    #[error(
        "--no-wait leaves the upgrade to `stagegate serve`, and none runs on this state; start one, or leave --no-wait out"
    )]
    NobodyDrives,
    /// The server would drive another environment of the same name.
    #[error(
        "`stagegate serve` ({server}) drives from workspace {} with port shift {}, and this command reads {} with port shift {}; use the same STAGEGATE_WORKSPACE and STAGEGATE_PORT_SHIFT",
        theirs.workspace.display(), theirs.port_shift, ours.workspace.display(), ours.port_shift
    )]
    OtherTerms {
        /// Who serves.
        server: String,
        /// What it drives by.
        theirs: Terms,
        /// What this command goes by.
        ours: Terms,
    },
}

pub(super) fn workspace() -> Workspace {
    Workspace::at(settings::workspace())
}

/// Where the state lies, without opening it.
pub(super) fn state_directory() -> PathBuf {
    settings::state_directory()
}

/// The home, made if there is none.
pub(super) fn home() -> anyhow::Result<Home> {
    Ok(Home::open(&settings::state_directory())?)
}

/// The home, for commands that only read: they make none.
pub(super) fn look() -> anyhow::Result<Home> {
    Ok(Home::look(&settings::state_directory())?)
}

/// Reads an environment and makes it operable, on the home that `open` gives. The files come first: a name that is mistyped
/// makes no home.
pub(super) fn operable(environment: &str, open: fn() -> anyhow::Result<Home>) -> anyhow::Result<(Home, Arc<Fleet>)> {
    let (environment, templates) = workspace().environment(environment, port_shift()?)?;
    let home = open()?;
    let fleet = Fleet::new(environment, templates, &home);
    standing::refuse_other_ports(&home, &fleet)?;
    Ok((home, Arc::new(fleet)))
}

/// Who drives an environment.
pub(super) enum Driver {
    /// A process that has the environment's lease.
    Process {
        /// Which.
        holder: Holder,
        /// Since when it has said nothing, if that is longer than a driver at work does.
        silent_since: Option<Timestamp>,
    },
    /// A controller.
    Controller {
        /// Its name.
        name: String,
        /// Since when the one that leads has not said that it does, if that is longer than its lease is good for.
        quiet_since: Option<Timestamp>,
    },
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Driver::Process {
                holder,
                silent_since: None,
            } => write!(f, "{holder}"),
            Driver::Process {
                holder,
                silent_since: Some(since),
            } => write!(f, "{holder}, which has said nothing since {since:.0}"),
            Driver::Controller {
                name,
                quiet_since: None,
            } => write!(f, "the controller {name}"),
            Driver::Controller {
                name,
                quiet_since: Some(since),
            } => write!(f, "the controller {name}, which has said nothing since {since:.0}"),
        }
    }
}

/// Who drives an environment: the holder of its lease, else the home's server, which takes up what is unfinished.
pub(super) fn driver(home: &Home, environment: &str) -> Result<Option<Driver>, StoreError> {
    let silent_since = HeldLease::silent_since(home, environment)?;
    let holder = match HeldLease::holder(home, environment)? {
        Some((holder, _)) => Some(holder),
        None => server::running(home)?.map(|server| server.holder),
    };
    Ok(holder.map(|holder| Driver::Process { holder, silent_since }))
}

pub(super) fn port_shift() -> Result<PortShift, GroundError> {
    settings::port_shift().map(PortShift).map_err(GroundError::Setting)
}

/// The name of an environment; as `-o name` prints it, too.
pub(super) fn environment_name(text: &str) -> Result<String, String> {
    match text.strip_prefix("environment/").unwrap_or(text) {
        "" => Err("it names no environment".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// Refuses a name that nobody has heard of, which is a mistake in the command: of no environment that was brought up or
/// upgraded here, and of no file. A file that is wrong is one that there is.
pub(super) fn refuse_unknown(home: &Home, environment: &str) -> anyhow::Result<()> {
    let workspace = workspace();
    let mut known: BTreeSet<String> = workspace.environment_names().into_iter().collect();
    known.extend(home.store().resources("Environment")?.into_iter().map(|e| e.name));
    known.extend(
        home.store()
            .upgrades(None, ALL_UPGRADES)?
            .into_iter()
            .map(|u| u.spec.environment),
    );
    if known.contains(environment) {
        return Ok(());
    }
    let known: Vec<String> = known.into_iter().collect();
    let hint = if known.is_empty() {
        "STAGEGATE_WORKSPACE says where the workspace is".to_owned()
    } else {
        text::what_is_known(environment, &known)
    };
    Err(GroundError::UnknownEnvironment {
        name: environment.to_owned(),
        place: workspace.root().join("environments"),
        hint,
    }
    .into())
}

/// `COMPONENT=VERSION` as its two parts.
pub(super) fn named_build(wanted: &str) -> Result<(&str, &str), GroundError> {
    let (component, version) = wanted
        .split_once('=')
        .filter(|(c, v)| !c.is_empty() && !v.is_empty())
        .ok_or_else(|| GroundError::Build(wanted.to_owned()))?;
    // `==` is how package tools write it, and means the same.
    let version = version.strip_prefix('=').unwrap_or(version);
    // What makes a range to package tools; `!`, `~` and `@` within are parts of versions (epochs, pre-releases).
    let is_range =
        version.starts_with(['=', '<', '>', '~', '!', '^', '@']) || version.contains(['*', ',', ';', '<', '>']);
    if version.is_empty() || is_range || version.contains(char::is_whitespace) {
        return Err(GroundError::Range(wanted.to_owned()));
    }
    Ok((component, version))
}

/// `COMPONENT=VERSION`, with the component.
pub(super) fn component_and_version<'a>(
    fleet: &'a Fleet,
    wanted: &str,
) -> Result<(&'a Component, String), GroundError> {
    let (component, version) = named_build(wanted)?;
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
    if fleet.places(&found.name).is_empty() {
        return Err(GroundError::NoNodes(found.name.clone()));
    }
    Ok((found, version.to_owned()))
}

/// A build by component and version: as the state has it, else from its source. Writes nothing.
pub(super) async fn find_build(
    home: &Home,
    component: &Component,
    version: &str,
    printer: &Printer,
) -> anyhow::Result<(BuildRef, KnownBuild)> {
    let name = format!("{}-{version}", component.name);
    if let Some(known) = KnownBuild::find(home, &name)? {
        return Ok((known.spec.reference(), known));
    }
    printer.doing(match &component.source {
        Some(BuildSource::PackageIndex(_)) => format!("{name}: asking the package index, and locking all its packages"),
        Some(BuildSource::Directory(_) | BuildSource::Images(_)) | None => {
            format!("{name}: looking for it in its source")
        }
    });
    let spec = builds::resolve(component, version, &settings::workspace()).await?;
    // A version may be written in more than one way, and a source may know it by another.
    if spec.version != version {
        printer.note(&format!(
            "{}={version} is {} in its source, and goes by that",
            component.name, spec.version
        ));
    }
    if let Some(known) = KnownBuild::find(home, &spec.name())? {
        return Ok((known.spec.reference(), known));
    }
    printer.note(&format!(
        "{name} is sha256:{} ({} locked)",
        spec.digest.short(),
        super::up::count(spec.locked.len(), "package")
    ));
    let status = BuildStatus::default();
    Ok((spec.reference(), KnownBuild { spec, status }))
}

/// The same, and then it is in the state.
pub(super) async fn build(
    home: &Home,
    component: &Component,
    version: &str,
    printer: &Printer,
) -> anyhow::Result<(BuildRef, KnownBuild)> {
    let (reference, found) = find_build(home, component, version, printer).await?;
    if KnownBuild::find(home, &reference.name)?.is_none() {
        KnownBuild::create(home, &found.spec)?;
    }
    Ok((reference, found))
}

/// The home's server, if one runs. What a command hands over to it must mean the same there.
pub(super) fn server(home: &Home) -> anyhow::Result<Option<Running>> {
    let Some(running) = server::running(home)? else {
        return Ok(None);
    };
    let here = Terms::here(&workspace(), port_shift()?);
    if running.terms != here {
        let Running { holder, terms, .. } = running;
        return Err(GroundError::OtherTerms {
            server: holder.to_string(),
            theirs: terms,
            ours: here,
        }
        .into());
    }
    Ok(Some(running))
}

/// Takes an environment's lease, says from whom if its driver was killed, and then carries the reports that still wait: who is
/// refused the lease does not say what belongs to who has it.
pub(super) async fn lease(home: &Home, fleet: &Fleet, printer: &Printer) -> anyhow::Result<HeldLease> {
    let lease = HeldLease::take(home, &fleet.environment.name)?;
    if let Some(lost) = lease.taken_over() {
        printer.note(&format!("took over from {lost}"));
        session::tell_takeover(home, fleet, &lease)?;
    }
    deliver_first(home, fleet, printer).await;
    Ok(lease)
}

/// Carries an environment's reports that still wait, before a command makes new ones; where the server runs, it does.
pub(super) async fn deliver_first(home: &Home, fleet: &Fleet, printer: &Printer) {
    if let Err(why) = try_deliver_first(home, fleet, printer).await {
        printer.note(&format!("earlier reports still wait: {why}"));
    }
}

async fn try_deliver_first(home: &Home, fleet: &Fleet, printer: &Printer) -> anyhow::Result<()> {
    let pending = home.store().pending(Some(&fleet.environment.name), None)?;
    if pending.iter().all(|p| p.waiting == 0) || server::running(home)?.is_some() {
        return Ok(());
    }
    let end = Timestamp::now().saturating_add(EARLIER_REPORTS)?;
    let others = HeldLease::is_held_by_another(home, &fleet.environment.name)?;
    // What the sink `stdout` is to say belongs to the one who drives.
    let lines = (!others).then(|| printer.lines());
    let (courier, troubles) = delivery::courier(home, fleet, lines.as_ref());
    courier.drain(end).await?;
    match troubles.into_iter().next() {
        Some(trouble) => Err(trouble.into()),
        None => Ok(()),
    }
}

/// The first SIGINT or SIGTERM asks for the end; a second one ends at once, which loses nothing either, and programs are told.
pub(super) fn interrupt(printer: &Printer) -> anyhow::Result<Interrupt> {
    use tokio::signal::unix::{SignalKind, signal};
    let (asks, interrupt) = Interrupt::new();
    let last_word = printer.last_word();
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        for asked_before in [false, true] {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            if asked_before {
                last_word.interrupted();
            }
            asks.interrupt();
        }
    });
    Ok(interrupt)
}
/// An error in our own words where it says nothing of what to do in its own.
pub(super) fn in_our_words(error: anyhow::Error) -> anyhow::Error {
    let foreign = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(RepositoryError::Git { why, .. }) if why.code() == git2::ErrorCode::Owner => {
            Some(why.message().to_owned())
        }
        _ => None,
    });
    let Some(said) = foreign else { return error };
    // libgit2 names it in quotes, with a slash at its end, without which git knows it.
    let place = said.split('\'').nth(1).unwrap_or("DIRECTORY");
    let place = place.trim_end_matches('/').to_owned();
    GroundError::ForeignRepository { place }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_repository_is_said_to_be_and_what_to_do() {
        let class = git2::ErrorClass::Config;
        let of = |code, said: &str| {
            let error = RepositoryError::Git {
                doing: "open the repository".to_owned(),
                why: git2::Error::new(code, class, said),
            };
            in_our_words(anyhow::Error::new(error)).to_string()
        };
        let said = "repository path '/srv/git/a.git/' is not owned by current user";
        let words = of(git2::ErrorCode::Owner, said);
        assert!(
            words.starts_with("cannot open /srv/git/a.git: it belongs to another user"),
            "{words}"
        );
        assert!(
            words.ends_with("`git config --global --add safe.directory /srv/git/a.git`"),
            "{words}"
        );
        assert!(of(git2::ErrorCode::GenericError, said).contains("is not owned"));
    }
}

//! `stagegate upgrade ENV --build COMPONENT=VERSION`, and what other commands share of carrying an upgrade out: driving it
//! here, or watching the home's server drive it.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::ground::GroundError;
use super::printer::Printer;
use super::standing;
use super::view::{self, Names};
use super::{Exit, Output, ground, replica};
use crate::engine::fleet::Fleet;
use crate::engine::giving_back;
use crate::engine::interrupt::Interrupt;
use crate::engine::lease::HeldLease;
use crate::engine::live::OnCommit;
use crate::engine::session::{self, Asked, SessionError};
use crate::engine::{Ending, Unreached, delivery};
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::upgrade::{Event, Kept, Phase, UpgradeStatus, Verdict, Wish};
use crate::model::values;
use crate::report;
use crate::server::Running;
use crate::settings;
use crate::store::{EventQuery, Holder, Store as _, StoreError, Take, UpgradeRecord};

/// After the end reports that a sink has not taken are tried for this long; what is left is named.
const LAST_REPORTS: Duration = Duration::from_secs(5);
/// What an upgrade that has ended keeps still is tried to be given back for as long: an API server is away for less while it is
/// replaced.
const GIVING_BACK: Duration = Duration::from_mins(5);
/// Events read at once; an upgrade of a dozen nodes writes some 150 in all.
const EVENTS_AT_ONCE: u32 = 1_000;
/// How long a command that only watches waits between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(300);

/// How long a command stays with its upgrade.
#[derive(Debug, Clone, Args)]
pub(super) struct Staying {
    /// Pause the upgrade when it is not done by then, as 30m (exit 124)
    #[arg(long, value_name = "DURATION")]
    timeout: Option<values::Duration>,
    /// Stay until the upgrade is done or held (the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Leave the upgrade to `stagegate serve` and return at once
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

impl Staying {
    pub(super) fn patience(&self) -> Patience {
        if self.no_wait {
            Patience::None
        } else {
            self.timeout.map_or(Patience::Endless, |limit| Patience::Until(limit.0))
        }
    }
}

/// How long somebody stays with an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until it is done or held.
    Endless,
    /// The same, and after this time it is paused.
    Until(Duration),
    /// Not at all: the server has it.
    None,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
    /// What goes on
    #[arg(long, value_name = "COMPONENT=VERSION")]
    build: String,
    #[command(flatten)]
    staying: Staying,
    /// Say what would happen and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments {
        environment,
        build,
        staying,
        dry_run,
    } = arguments;
    if dry_run {
        return super::plan::plan(&environment, &build, printer).await;
    }
    let (home, fleet) = ground::operable(&environment, ground::home)?;
    let carrier = Carrier::new(&home, &fleet, printer, staying.patience())?;
    replica::take_down_expired(&home, None, &carrier.interrupt, printer).await?;
    let (component, version) = ground::component_and_version(&fleet, &build)?;
    let (build, _) = ground::build(&home, component, &version, printer).await?;
    carrier.carry_out_and_show(component, &build).await
}

/// An upgrade that was brought as far as it goes.
pub(super) struct Done {
    pub(super) record: UpgradeRecord,
    pub(super) exit: Exit,
}

/// Carries upgrades of one environment out.
pub(super) struct Carrier<'a> {
    pub(super) home: &'a Home,
    pub(super) fleet: &'a Arc<Fleet>,
    pub(super) printer: &'a Printer,
    pub(super) interrupt: Interrupt,
    pub(super) patience: Patience,
}

/// How watching ended.
enum Watched {
    /// It is done or held.
    Settled(Box<UpgradeRecord>),
    /// The one who watched was asked to end.
    Stopped(Box<UpgradeRecord>),
    /// The server is gone.
    Orphaned(Box<UpgradeRecord>),
}

impl<'a> Carrier<'a> {
    /// With the first SIGINT or SIGTERM from now on as the interruption.
    pub(super) fn new(
        home: &'a Home,
        fleet: &'a Arc<Fleet>,
        printer: &'a Printer,
        patience: Patience,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            home,
            fleet,
            printer,
            interrupt: ground::interrupt(printer)?,
            patience,
        })
    }

    /// As [`Carrier::carry_out`]; what came of it is the command's output.
    pub(super) async fn carry_out_and_show(&self, component: &Component, build: &BuildRef) -> anyhow::Result<Exit> {
        let done = self.carry_out(component, build).await?;
        show(self.home, &done, self.printer)?;
        Ok(done.exit)
    }
}

impl Carrier<'_> {
    /// Opens an upgrade or takes up the open one, and stays with it until it settles: where the home's server runs by
    /// watching it, else by driving it here.
    pub(super) async fn carry_out(&self, component: &Component, build: &BuildRef) -> anyhow::Result<Done> {
        standing::refuse_not_up(self.home, self.fleet)?;
        let user = settings::user();
        let asked = Asked {
            home: self.home,
            fleet: self.fleet,
            component,
            build,
            user: &user,
        };
        if let Some(server) = ground::server(self.home)? {
            let seen = self.last_event()?;
            let record = asked.hand_over(&server.holder).await?;
            return self.stay(record, &server, seen).await;
        }
        if self.patience == Patience::None {
            return Err(GroundError::NobodyDrives.into());
        }
        let lease = ground::lease(self.home, self.fleet, self.printer).await?;
        let record = self.open(&asked, &lease).await?;
        self.drive(&record, &lease).await
    }

    /// Opens what is asked for. What a build must have may be asked of servers far away, so an operator can break it off.
    pub(super) async fn open(&self, asked: &Asked<'_>, lease: &HeldLease) -> Result<UpgradeRecord, SessionError> {
        tokio::select! {
            () = self.interrupt.wait() => Err(SessionError::Interrupted),
            opened = asked.open(lease) => opened,
        }
    }

    /// Stays with an unfinished upgrade that needs no word to go on.
    pub(super) async fn go_on(&self, record: UpgradeRecord) -> anyhow::Result<Done> {
        if let Some(server) = ground::server(self.home)? {
            let seen = self.last_event()?;
            return self.stay(record, &server, seen).await;
        }
        let lease = ground::lease(self.home, self.fleet, self.printer).await?;
        self.drive(&record, &lease).await
    }

    /// Sees to it that upgrades that have ended keep nothing any more.
    pub(super) async fn finish(&self, kept: &[UpgradeRecord]) -> anyhow::Result<Exit> {
        if let Some(Running { holder, .. }) = ground::server(self.home)? {
            self.printer.note(&format!(
                "`stagegate serve` ({holder}) gives back what is kept, as soon as that can be done"
            ));
            return Ok(Exit::Held);
        }
        let lease = ground::lease(self.home, self.fleet, self.printer).await?;
        let told_by_sink = delivery::tells_stderr(self.fleet);
        for record in kept {
            let on_commit = |_: &UpgradeStatus, events: &[Event]| {
                for event in events.iter().filter(|_| !told_by_sink) {
                    self.printer.note(&delivery::line(record, event));
                }
            };
            // Who asks for it has mended what was in the way: nothing is waited for first.
            giving_back::attempt(self.home, self.fleet, record, &lease, &on_commit).await?;
            self.give_back(&record.name, &lease, &on_commit).await?;
        }
        let left = self.home.store().kept(Some(&self.fleet.environment.name))?;
        Ok(if left.is_empty() { Exit::Done } else { Exit::Held })
    }

    /// The number of the home's last event: what comes later is news.
    fn last_event(&self) -> anyhow::Result<u64> {
        let last = self.home.store().events(&EventQuery {
            environment: None,
            upgrade: None,
            promotion: None,
            after: 0,
            take: Take::Last(1),
        })?;
        Ok(last.last().map_or(0, |record| record.seq))
    }

    async fn stay(&self, record: UpgradeRecord, server: &Running, seen: u64) -> anyhow::Result<Done> {
        let Running { holder, .. } = server;
        let environment = &self.fleet.environment.name;
        self.printer
            .note(&format!("`stagegate serve` ({holder}) drives {}", record.name));
        if self.patience == Patience::None {
            return Ok(Done {
                record,
                exit: Exit::Done,
            });
        }
        let mut timed_out = false;
        let watched = self.watch(&record.name, holder, seen, &mut timed_out).await;
        self.printer.idle();
        match watched? {
            Watched::Settled(record) => Ok(Done {
                exit: exit_of(&record.status, timed_out),
                record: *record,
            }),
            Watched::Stopped(record) => {
                self.printer.note(&format!(
                    "stopped watching; the upgrade goes on. `stagegate status {environment} -w` shows it, `stagegate pause {environment}` holds it"
                ));
                Ok(Done {
                    record: *record,
                    exit: Exit::Interrupted,
                })
            }
            Watched::Orphaned(record) => {
                self.printer
                    .note("`stagegate serve` is gone; the upgrade is driven from here now");
                let lease = ground::lease(self.home, self.fleet, self.printer).await?;
                self.drive(&record, &lease).await
            }
        }
    }

    /// Says what happens to an upgrade until it settles.
    async fn watch(&self, name: &str, server: &Holder, mut seen: u64, timed_out: &mut bool) -> anyhow::Result<Watched> {
        let store = self.home.store();
        // The server's lease as it was when the upgrade settled: until it is given back there may be news still, as what
        // became of the last calls.
        let mut last_words = None;
        let end = match self.patience {
            Patience::Until(limit) => Some(tokio::time::Instant::now() + limit),
            Patience::Endless | Patience::None => None,
        };
        loop {
            // The upgrade before its events: what has settled it is then among them.
            let record = store.upgrade(name)?.ok_or_else(|| {
                anyhow::anyhow!("upgrade {name} is no longer in the state; its environment was purged")
            })?;
            seen = self.tell_since(&record, seen)?;
            self.printer.doing(now_doing(&record.status));
            if session::is_settled(&record) {
                let lease = HeldLease::holder(self.home, &record.spec.environment)?;
                let lease = lease.filter(|(holder, _)| holder == server);
                if lease.is_none() || last_words.get_or_insert_with(|| lease.clone()) != &lease {
                    // Once more, for what was written between the two looks.
                    let record = store.upgrade(name)?.unwrap_or(record);
                    self.tell_since(&record, seen)?;
                    return Ok(Watched::Settled(Box::new(record)));
                }
            }
            if !*timed_out && end.is_some_and(|end| tokio::time::Instant::now() >= end) {
                self.time_is_up(name)?;
                *timed_out = true;
            }
            if !session::is_settled(&record) && crate::server::running(self.home)?.is_none() {
                return Ok(Watched::Orphaned(Box::new(record)));
            }
            tokio::select! {
                () = self.interrupt.wait() => return Ok(Watched::Stopped(Box::new(record))),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn tell_since(&self, record: &UpgradeRecord, mut seen: u64) -> anyhow::Result<u64> {
        loop {
            let events = self.home.store().events(&EventQuery {
                environment: None,
                upgrade: Some(&record.name),
                promotion: None,
                after: seen,
                take: Take::First(EVENTS_AT_ONCE),
            })?;
            let Some(last) = events.last() else {
                return Ok(seen);
            };
            seen = last.seq;
            for told in &events {
                self.printer.note(&delivery::line(record, &told.event));
            }
        }
    }

    /// Drives an upgrade from this process, and sends its reports.
    pub(super) async fn drive(&self, record: &UpgradeRecord, lease: &HeldLease) -> anyhow::Result<Done> {
        let Self {
            home, fleet, printer, ..
        } = self;
        let (courier, troubles) = delivery::courier(home, fleet, Some(&printer.lines()));
        for trouble in troubles {
            printer.note(&format!("its reports wait: {trouble}"));
        }
        let told_by_sink = delivery::tells_stderr(fleet);
        let on_commit = |status: &UpgradeStatus, events: &[Event]| {
            if !told_by_sink {
                for event in events {
                    printer.note(&delivery::line(record, event));
                }
            }
            printer.doing(now_doing(status));
        };
        let interrupt = self.interrupt.clone();
        let driving = async {
            let ending = session::run(home, fleet, record, lease, interrupt, Unreached::Left, &on_commit).await?;
            self.give_back(&record.name, lease, &on_commit).await?;
            Ok::<_, SessionError>(ending)
        };
        let name = &record.name;
        let limit = async {
            match self.patience {
                Patience::Until(limit) => tokio::time::sleep(limit).await,
                Patience::Endless | Patience::None => std::future::pending().await,
            }
            self.time_is_up(name)
        };
        let mut timed_out = false;
        let work = async {
            tokio::pin!(driving);
            tokio::pin!(limit);
            let ending = loop {
                tokio::select! {
                    ended = &mut driving => break ended.map_err(anyhow::Error::from),
                    set = &mut limit, if !timed_out => match set {
                        Ok(()) => timed_out = true,
                        Err(why) => break Err(why),
                    },
                }
            };
            printer.idle();
            session::prune_home(home);
            courier.finish(LAST_REPORTS);
            ending
        };
        let (ending, ()) = tokio::join!(work, courier.run());
        self.name_pending_reports()?;
        let ending = ending?;
        let record = home
            .store()
            .upgrade(name)?
            .ok_or_else(|| SessionError::UnknownBuild(name.clone()))?;
        let exit = match ending {
            Ending::Settled(status) => exit_of(&status, timed_out),
            Ending::Interrupted(_) => {
                printer.note(&format!(
                    "interrupted; `stagegate upgrade {} --build {}` goes on with it",
                    record.spec.environment,
                    session::wanted(&record.spec)
                ));
                Exit::Interrupted
            }
        };
        Ok(Done { record, exit })
    }

    /// Gives back what an upgrade that has ended keeps still, if anything. That is tried for a while, since who watches waits for it.
    pub(super) async fn give_back(
        &self,
        upgrade: &str,
        lease: &HeldLease,
        on_commit: &OnCommit<'_>,
    ) -> Result<(), SessionError> {
        let end = tokio::time::Instant::now() + GIVING_BACK;
        let mut failures = 0;
        while let Some(record) = self.home.store().upgrade(upgrade)?
            && let Some(Kept { why }) = &record.status.kept
        {
            let wait = match why {
                Some(_) => {
                    failures += 1;
                    report::backoff(failures, upgrade)
                }
                None => Duration::ZERO,
            };
            let is_left = tokio::time::Instant::now() + wait > end || self.interrupt.is_set();
            if is_left {
                self.printer.note(&format!(
                    "{upgrade} has ended and keeps {}; `stagegate resume {}` gives it back, and `stagegate serve` does so by itself",
                    record.spec.component, record.spec.environment
                ));
                return Ok(());
            }
            let waiting = async {
                tokio::select! {
                    () = self.interrupt.wait() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            };
            lease.keep(waiting).await?;
            giving_back::attempt(self.home, self.fleet, &record, lease, on_commit).await?;
        }
        Ok(())
    }

    /// Asks an upgrade to hold. A way back goes on: holding it would leave nodes on a build that was just found bad.
    fn time_is_up(&self, name: &str) -> anyhow::Result<()> {
        let Patience::Until(limit) = self.patience else {
            return Ok(());
        };
        let (store, limit) = (self.home.store(), values::Duration(limit));
        let Some(open) = store.upgrade(name)? else {
            return Ok(());
        };
        if open.status.phase == Phase::RollingBack {
            self.printer.note(&format!(
                "not done within {limit}: it is on its way back, which ends first"
            ));
            return Ok(());
        }
        if open.spec.wish != Wish::Proceed {
            // An operator has said already what is to become of it.
            return Ok(());
        }
        let why = format!("not done within {limit}, so it is to hold");
        match super::control::wish(self.home, &open, Wish::TimeUp, &why) {
            // It was just in time.
            Err(StoreError::Finished { .. }) => return Ok(()),
            other => other?,
        }
        self.printer.note(&format!(
            "not done within {limit}: it holds once its running steps have ended"
        ));
        Ok(())
    }

    fn name_pending_reports(&self) -> anyhow::Result<()> {
        let stated = delivery::sinks(self.fleet);
        for pending in self.home.store().pending(Some(&self.fleet.environment.name), None)? {
            if pending.dead > 0 {
                let reports = super::up::count(usize::try_from(pending.dead).unwrap_or(usize::MAX), "report");
                self.printer.note(&format!(
                    "{reports} for {} refused for good; `stagegate reports list` says why",
                    pending.sink
                ));
            }
            if pending.waiting > 0 {
                let reports = super::up::count(usize::try_from(pending.waiting).unwrap_or(usize::MAX), "report");
                let sink = &pending.sink;
                if !stated.contains(sink) {
                    self.printer.note(&format!(
                        "{reports} for {sink} wait for a sink that the environment's file no longer has"
                    ));
                    continue;
                }
                let why = pending.last_error.unwrap_or_else(|| "it was not tried yet".to_owned());
                self.printer.note(&format!(
                    "{reports} for {sink} still wait: {why}; the next command or `stagegate serve` delivers them"
                ));
            }
        }
        Ok(())
    }
}

fn exit_of(status: &UpgradeStatus, timed_out: bool) -> Exit {
    if timed_out && status.phase == Phase::Paused {
        Exit::TimedOut
    } else {
        Exit::of(status.phase)
    }
}

pub(super) fn show(home: &Home, done: &Done, printer: &Printer) -> anyhow::Result<()> {
    show_record(home, &done.record, printer)
}

pub(super) fn show_record(home: &Home, record: &UpgradeRecord, printer: &Printer) -> anyhow::Result<()> {
    let names = Names::read(home)?;
    let resource = view::upgrade(record, &names)?;
    printer.resource(&resource, |p| view::upgrade_for_people(p, record, &names))
}

/// The same for people whatever the output is, beside a resource of another kind.
pub(super) fn show_for_people(home: &Home, done: &Done, printer: &Printer) -> anyhow::Result<()> {
    if matches!(printer.output(), Output::Table | Output::Wide) {
        view::upgrade_for_people(printer, &done.record, &Names::read(home)?)?;
    }
    Ok(())
}

/// One line for who watches a terminal.
fn now_doing(status: &UpgradeStatus) -> String {
    if status.cure.as_ref().is_some_and(|cure| cure.proven_at.is_none()) {
        // What failed stays in the record beside it, and is no news.
        let open = status.gates.iter().find(|g| g.verdict == Verdict::Undecided);
        let open = open.map_or_else(String::new, |g| format!(" ({} on {}: {})", g.name, g.node, g.reason));
        return format!("{:?}: proving the cure{open}", status.phase);
    }
    let busy = status.nodes.iter().find(|n| n.in_batch);
    let node = busy.map_or_else(String::new, |n| format!(" {}: {:?}", n.name, n.phase));
    let gate = busy
        .and_then(|n| status.gates.iter().find(|g| g.node == n.name))
        .map_or_else(String::new, |g| format!(" ({}: {})", g.name, g.reason));
    let message = if busy.is_some() || status.message.is_empty() {
        String::new()
    } else {
        format!(": {}", status.message)
    };
    format!("{:?}{node}{gate}{message}", status.phase)
}

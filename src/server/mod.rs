//! `stagegate serve`: one process a home that drives whatever upgrade has lost its driver or was left to it, carries
//! every environment's reports for ever, and says over HTTP whether it lives.
//!
//! It keeps nothing that matters: what it drives, what it tells and that it runs are all in the store, so one that was
//! killed is replaced by the next, or by the command that watched it.

pub mod controller;
mod couriers;
pub mod github;
mod health;
mod promotions;
mod runs;
pub mod seat;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::time::Instant;

pub use self::runs::OnVerdict;
pub use self::seat::{Running, Seat, Terms, running};

use self::couriers::Couriers;
use self::github::Hosts;
use self::health::Health;
use self::promotions::Promotions;
use self::runs::HookRuns;
use crate::engine::fleet::Fleet;
use crate::engine::giving_back::{self, Given};
use crate::engine::interrupt::Interrupt;
use crate::engine::lease::HeldLease;
use crate::engine::promotion;
use crate::engine::session::{self, Refusal, SessionError};
use crate::engine::{DriveError, Unreached, delivery};
use crate::home::Home;
use crate::model::system::PortShift;
use crate::model::upgrade::{Event, Severity, UpgradeStatus};
use crate::report::{self, Lines};
use crate::store::{Store as _, StoreError, UpgradeRecord};
use crate::workspace::{Workspace, WorkspaceError};

/// Between two looks for upgrades to drive: a person who hands one over does not notice a second, and a look costs
/// one small query.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// As often as a driver renews its lease.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the environments' files for what their reports go to.
const REREAD_EVERY: Duration = Duration::from_secs(15);
/// Records over the bounds are cleared away this often; an upgrade adds a few hundred.
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// An upgrade that cannot be driven is tried again after at most this: the file or the disk that was in the way may be
/// mended any minute.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// At the end reports that wait are tried for this long.
const LAST_REPORTS: Duration = Duration::from_secs(5);

/// Why a server does not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one has the place, or has taken it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address.
    #[error("cannot listen on {address}: {source}; choose another with --listen ADDRESS:PORT or STAGEGATE_LISTEN")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A home's server.
pub struct Server<'a> {
    /// The home.
    pub home: &'a Home,
    /// Where its environments are described.
    pub workspace: &'a Workspace,
    /// Added to local ports.
    pub shift: PortShift,
    /// Ends it.
    pub interrupt: Interrupt,
    /// Told what happens, a line each.
    pub tell: &'a dyn Fn(&str),
    /// Where the sink `stdout` of environments writes.
    pub lines: Arc<dyn Lines>,
    /// Told each verdict on a commit's hooks, once it is stored.
    pub on_verdict: OnVerdict,
}

impl Server<'_> {
    /// Serves until interrupted; then the running steps end and every lease is given back.
    ///
    /// # Errors
    /// Another server runs, the address cannot be used, or the place was lost to another.
    pub async fn run(&self, listen: &str) -> Result<(), ServeError> {
        let refused = |source| ServeError::Listen {
            address: listen.to_owned(),
            source,
        };
        // First the place, so that a second server names the first one rather than its port.
        let seat = Seat::take(self.home, &Terms::here(self.workspace, self.shift))?;
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let health = Arc::new(Health::new(self.home.clone()));
        self.greet(address);
        let interrupt = self.interrupt.clone();
        let hosts = Arc::new(Hosts::new(
            self.home.clone(),
            self.workspace.clone(),
            Arc::clone(&self.lines),
        ));
        self.reread(&hosts);
        let router = health::router(Arc::clone(&health)).merge(github::router(Arc::clone(&hosts)));
        let answering = tokio::spawn(health::answer(listener, router, async move {
            interrupt.wait().await;
        }));
        let checking = tokio::spawn(Arc::clone(&hosts).work());
        let runs = HookRuns {
            home: self.home.clone(),
            workspace: self.workspace.clone(),
            interrupt: self.interrupt.clone(),
            lines: Arc::clone(&self.lines),
            on_verdict: Arc::clone(&self.on_verdict),
        };
        let runs = tokio::task::spawn_blocking(move || runs.work());
        let ended = self.work(&seat, &health, &hosts).await;
        checking.abort();
        answering.abort();
        if ended.is_ok()
            && let Err(why) = runs.await
        {
            tracing::warn!(%why, "the runs of hooks have ended badly");
        }
        ended
    }

    fn greet(&self, address: SocketAddr) {
        (self.tell)(&format!(
            "serving {} from {}; http://{address}/healthz",
            self.home.root().display(),
            self.workspace.root().display()
        ));
    }

    /// What is wrong with the files of repositories is said; those that were served before are served on.
    fn reread(&self, hosts: &Hosts) {
        if let Err(why) = hosts.reread() {
            (self.tell)(&format!("the files in hooks/ are not used: {why}"));
        }
    }

    async fn work(&self, seat: &Seat, health: &Health, hosts: &Hosts) -> Result<(), ServeError> {
        let mut drives = Drives::new(self, health);
        let mut couriers = Couriers::new(self.home, self.workspace, self.shift, &self.lines);
        let mut promotions = Promotions::new(self);
        let (mut renew_at, mut reread_at, mut prune_at) = (Instant::now(), Instant::now(), Instant::now());
        while !self.interrupt.is_set() {
            let now = Instant::now();
            if now >= renew_at {
                keep(seat)?;
                renew_at = now + RENEW_EVERY;
            }
            if now >= reread_at {
                couriers.reread();
                self.reread(hosts);
                reread_at = now + REREAD_EVERY;
            }
            if now >= prune_at {
                session::prune_home(self.home);
                if let Err(why) = promotion::prune(self.home) {
                    tracing::warn!(%why, "old promotions were not cleared away");
                }
                prune_at = now + PRUNE_EVERY;
            }
            // Before the upgrades: what a promotion begins is driven at once.
            for environment in promotions.look().await {
                couriers.serve(&environment);
            }
            match self.to_do() {
                Ok((open, kept)) => {
                    drives.forget_all_but(&open, &kept);
                    let to_be_driven = open.into_iter().chain(kept).filter(session::is_to_be_driven);
                    for record in to_be_driven.filter(|record| !promotions.has(&record.spec.environment)) {
                        couriers.serve(&record.spec.environment);
                        drives.take(&record);
                    }
                    health.beat(drives.under_way());
                }
                // Without a beat /healthz says so soon; the disk may come back.
                Err(why) => tracing::warn!(%why, "cannot look for upgrades"),
            }
            tokio::select! {
                () = drives.next() => {}
                () = promotions.next() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.interrupt.wait() => {}
            }
        }
        (self.tell)("ending once the running steps have ended");
        while !(drives.is_empty() && promotions.is_idle()) {
            keep(seat)?;
            tokio::select! {
                () = drives.next() => {}
                () = promotions.next() => {}
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
        }
        couriers.finish(LAST_REPORTS).await;
        Ok(())
    }

    /// The upgrades that have not ended, and those that have and keep something still.
    fn to_do(&self) -> Result<(Vec<UpgradeRecord>, Vec<UpgradeRecord>), StoreError> {
        let store = self.home.store();
        Ok((store.unfinished(None)?, store.kept(None)?))
    }

    /// Drives one upgrade as far as it goes.
    async fn drive(&self, record: &UpgradeRecord, lease: &HeldLease) -> Result<(), Trouble> {
        let environment = &record.spec.environment;
        let fleet = Arc::new(Fleet::read(self.home, self.workspace, environment, self.shift)?);
        session::tell_takeover(self.home, &fleet, lease).map_err(SessionError::from)?;
        let told_by_sink = delivery::tells_stderr(&fleet);
        let on_commit = |_: &UpgradeStatus, events: &[Event]| {
            if !told_by_sink {
                for event in events {
                    (self.tell)(&delivery::line(record, event));
                }
            }
        };
        let interrupt = self.interrupt.clone();
        if record.status.kept.is_none() {
            let stays = Unreached::StayedWith;
            session::run(self.home, &fleet, record, lease, interrupt, stays, &on_commit).await?;
            return Ok(());
        }
        match giving_back::attempt(self.home, &fleet, record, lease, &on_commit).await? {
            Given::Back => Ok(()),
            Given::Kept(why) => Err(Trouble::NotGivenBack(why)),
        }
    }

    /// Tells everybody that an upgrade stands still and why: the one who watches it has no other way to know.
    fn tell_of_trouble(&self, record: &UpgradeRecord, why: &str) {
        (self.tell)(&format!("{} cannot be driven: {why}", record.name));
        let environment = &record.spec.environment;
        // Without its file nobody knows where its reports go; the event itself is kept all the same.
        let sinks = Fleet::read(self.home, self.workspace, environment, self.shift)
            .map_or_else(|_| Vec::new(), |fleet| delivery::sinks(&fleet));
        let subject = session::subject(&record.spec);
        let dispatch = report::dispatcher(self.home.store().home(), &subject, &sinks);
        let event = Event {
            at: Timestamp::now(),
            reason: "NotDriven".to_owned(),
            severity: Severity::Alert,
            node: None,
            message: why.to_owned(),
        };
        let store = self.home.store();
        if let Err(why) = store.append(environment, Some(&record.name), &[event], &dispatch) {
            tracing::warn!(%why, "the trouble could not be written down");
        }
    }
}

/// A place that was lost ends the server; a disk that is full for a while does not, since our process still shows that we
/// live.
fn keep(seat: &Seat) -> Result<(), StoreError> {
    match seat.renew() {
        Err(lost @ StoreError::Fenced { .. }) => Err(lost),
        Err(why) => {
            tracing::warn!(%why, "cannot say that we live");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Why a drive ended before its upgrade did.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("what it had is not given back yet: {0}")]
    NotGivenBack(String),
}

impl Trouble {
    /// Somebody else drives: that is as it should be.
    fn is_rivalry(&self) -> bool {
        matches!(
            self,
            Trouble::Session(SessionError::Refused(Refusal::Held { .. }) | SessionError::Drive(DriveError::Fenced(_)))
        )
    }
}

/// An upgrade that could not be driven.
struct Stuck {
    upgrade: String,
    failures: u32,
    why: String,
    again_at: Instant,
}

/// The upgrades that this process drives, one an environment.
struct Drives<'a> {
    server: &'a Server<'a>,
    health: &'a Health,
    flights: FuturesUnordered<LocalBoxFuture<'a, (UpgradeRecord, Result<(), Trouble>)>>,
    /// Upgrades by environment.
    under_way: BTreeMap<String, String>,
    stuck: RefCell<BTreeMap<String, Stuck>>,
}

impl<'a> Drives<'a> {
    fn new(server: &'a Server<'a>, health: &'a Health) -> Self {
        Self {
            server,
            health,
            flights: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            stuck: RefCell::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    fn under_way(&self) -> BTreeMap<String, String> {
        self.under_way.clone()
    }

    /// Begins to drive an upgrade, unless it is driven already or its last trouble is too fresh.
    fn take(&mut self, record: &UpgradeRecord) {
        let (server, environment) = (self.server, record.spec.environment.clone());
        // Our own lease would be given to us once more, and would fence what we do already.
        if self.under_way.contains_key(&environment) || self.is_too_soon(&environment, &record.name) {
            return;
        }
        let lease = match HeldLease::take(server.home, &environment) {
            Ok(lease) => lease,
            Err(SessionError::Refused(_)) => return,
            Err(other) => {
                self.note(record, &other.into());
                return;
            }
        };
        // What was read before the lease was ours may be what another driver has left behind since.
        let Ok(Some(record)) = server.home.store().upgrade(&record.name) else {
            return;
        };
        if !session::is_to_be_driven(&record) {
            return;
        }
        self.under_way.insert(environment, record.name.clone());
        let flight = async move {
            let ended = server.drive(&record, &lease).await;
            (record, ended)
        };
        self.flights.push(flight.boxed_local());
    }

    /// Troubles with upgrades that have ended meanwhile, by whoever's hand, are over.
    fn forget_all_but(&self, open: &[UpgradeRecord], kept: &[UpgradeRecord]) {
        let mut stuck = self.stuck.borrow_mut();
        let before = stuck.len();
        stuck.retain(|_, stuck| open.iter().chain(kept).any(|record| record.name == stuck.upgrade));
        if stuck.len() != before {
            self.tell_health(&stuck);
        }
    }

    fn tell_health(&self, stuck: &BTreeMap<String, Stuck>) {
        let troubles = stuck.iter().map(|(e, s)| (e.clone(), s.why.clone()));
        self.health.troubles(troubles.collect());
    }

    fn is_too_soon(&self, environment: &str, upgrade: &str) -> bool {
        let stuck = self.stuck.borrow();
        let stuck = stuck.get(environment).filter(|s| s.upgrade == upgrade);
        stuck.is_some_and(|s| Instant::now() < s.again_at)
    }

    /// Waits until one of them has gone as far as it goes; for ever when there is none.
    async fn next(&mut self) {
        let Some((record, ended)) = self.flights.next().await else {
            std::future::pending::<()>().await;
            return;
        };
        self.under_way.remove(&record.spec.environment);
        match ended {
            Ok(()) => {
                self.stuck.borrow_mut().remove(&record.spec.environment);
            }
            Err(trouble) if trouble.is_rivalry() => {}
            Err(trouble) => self.note(&record, &trouble),
        }
        self.tell_health(&self.stuck.borrow());
    }

    /// Remembers that an upgrade cannot be driven, and says so once for each reason.
    fn note(&self, record: &UpgradeRecord, trouble: &Trouble) {
        let why = trouble.to_string();
        let mut all = self.stuck.borrow_mut();
        let before = all.get(&record.spec.environment).filter(|s| s.upgrade == record.name);
        let failures = before.map_or(0, |s| s.failures) + 1;
        // What is kept is told where that is found out.
        let is_told = matches!(trouble, Trouble::NotGivenBack(_));
        if !is_told && before.is_none_or(|s| s.why != why) {
            self.server.tell_of_trouble(record, &why);
        }
        let wait = report::backoff(failures, &record.name).min(LONGEST_WAIT);
        all.insert(
            record.spec.environment.clone(),
            Stuck {
                upgrade: record.name.clone(),
                failures,
                why,
                again_at: Instant::now() + wait,
            },
        );
    }
}

//! An upgrade from the operator's word to its end: lease, refusal or resumption, drive, and what is cleared away after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::builds::{self, Order};
use super::delivery::sinks;
use super::drive::{DriveError, Ending, Limits, Unreached, drive};
use super::fleet::Fleet;
use super::foreign::Foreign;
use super::giving_back::{self, GivingBack, Said, Since};
use super::interrupt::Interrupt;
use super::lease::HeldLease;
use super::ledger::{Embedded, Ledger};
use super::live::{LiveWorld, OnCommit, Parts, WatchError};
use super::look;
use super::promotion;
use super::provenance::{Judged, Lacking};
use crate::gates::stated::{StatedError, StatedGate};
use crate::home::Home;
use crate::hosts::{FencingToken, Host as _, NodeSight, Step, Work};
use crate::model::build::{BuildRef, BuildSpec};
use crate::model::environment::{Component, HostRef, Pods, Rollout};
use crate::model::upgrade::{Event, NodePhase, Phase, Severity, StepAction, UpgradeSpec, UpgradeStatus, Wish};
use crate::model::values::{Digest, Duration as Length};
use crate::promotion::freezes::holding;
use crate::promotion::obstacle::Obstacle;
use crate::report::{self, Subject, in_one_line};
use crate::rollout::{self, GatePlan, Hooks, Plan, Policy, RolloutError};
use crate::settings;
use crate::store::{
    BuildStatus, Commit, Expect, Holder, Resource, Store as _, StoreError, UpgradeRecord, WishChange,
    fresh_upgrade_name,
};
use crate::workspace::WorkspaceError;

/// A restarted service's probes pass within this, or the node has failed: its slowest start is seconds.
const PROBE_DEADLINE: Length = Length::from_secs(120);
/// Nodes are looked at for as long before an upgrade is begun: who asks for it waits for that.
const LOOK_BEFORE: Duration = Duration::from_secs(5);
/// Calls in flight when an upgrade ends are waited for as long: several times what a healthy one takes.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// Clearing away is for the next upgrade's sake; it may take this long.
const PRUNE_PATIENCE: Duration = Duration::from_mins(1);
/// Evidence whose upgrade was deleted stays for as long: somebody may still ask why it was.
const EVIDENCE_WITHOUT_UPGRADE: Duration = Duration::from_hours(24);

/// Why an upgrade was not begun, or not driven on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The rules say no: exit 6.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files that state the rules of promotion.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// This process cannot say who it is.
    #[error("cannot read /proc to say who drives: {0}")]
    Holder(std::io::Error),
    /// The signals.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// A gate.
    #[error(transparent)]
    Gate(#[from] StatedError),
    /// The loop.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// A status that cannot be gone on with.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// Its nodes are another home's: exit 6.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// Asked to end before anything was begun.
    #[error("interrupted before anything was begun; nothing was changed")]
    Interrupted,
    /// A build that is not in the state.
    #[error("build {0} is not known here; `stagegate build list` shows what is")]
    UnknownBuild(String),
}

/// What the rules refuse.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Somebody else drives.
    #[error(
        "environment {environment} is driven by {by} since {since:.0}; wait for it (`stagegate status {environment} -w`), or ask them"
    )]
    Held {
        /// The environment.
        environment: String,
        /// Who.
        by: String,
        /// Since when.
        since: Timestamp,
    },
    /// Another upgrade is open.
    #[error(
        "environment {environment} has an unfinished upgrade to {open}, which is {phase:?}; `stagegate upgrade {environment} --build {wanted}` goes on with it, `stagegate abort {environment}` goes back"
    )]
    OtherUpgrade {
        /// The environment.
        environment: String,
        /// The build that goes on already.
        open: String,
        /// How far it is.
        phase: Phase,
        /// The argument that goes on with it.
        wanted: String,
    },
    /// The build failed here.
    #[error(
        "build {build} is quarantined in {environment} since {since:.0}: {}; `stagegate build release {build} --env {environment} --reason TEXT` lifts it",
        in_one_line(reason)
    )]
    Quarantined {
        /// The build.
        build: String,
        /// The environment.
        environment: String,
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: String,
    },
    /// The environment asks for more than is known of the build.
    #[error(
        "build {build} may not enter {environment}, which requires {} of builds of {component}: it is {}; {}",
        lacking.condition, lacking.why, lacking.remedy
    )]
    Lacking {
        /// The build.
        build: String,
        /// The environment.
        environment: String,
        /// The component.
        component: String,
        /// What is missing.
        lacking: Box<Lacking>,
    },
    /// Only a promotion upgrades it.
    #[error(
        "environment {environment} is protected: a build enters it by a promotion alone, which looks at what its pipeline demands; \
         `stagegate promote {build} --to {environment}` asks for one"
    )]
    Protected {
        /// The environment.
        environment: String,
        /// The build.
        build: String,
    },
    /// Nothing moves there now.
    #[error(
        "nothing enters {environment} now: {why}; what ran there last may come back all the same, and `stagegate unfreeze {freeze} \
         --reason TEXT` lifts one that a command has stated"
    )]
    Frozen {
        /// The environment.
        environment: String,
        /// The freeze, in words.
        why: String,
        /// Its name.
        freeze: String,
    },
    /// A server runs on this home.
    #[error(
        "`stagegate serve` of this state runs already: {by} since {since:.0}; one drives all its environments, and `kill {pid}` ends it once its running steps have ended"
    )]
    Serving {
        /// Who.
        by: String,
        /// Its process id, on its machine.
        pid: u32,
        /// Since when.
        since: Timestamp,
    },
    /// There is nothing to say this to.
    #[error(
        "there is nothing to {word} in {environment}: it has no unfinished upgrade; `stagegate history {environment}` lists what \
         there was"
    )]
    NothingUnderWay {
        /// The environment.
        environment: String,
        /// The operator's word.
        word: &'static str,
    },
    /// There is nothing to begin again.
    #[error(
        "there is nothing to retry in {environment}: {why}; `stagegate upgrade {environment} --build COMPONENT=VERSION` begins an upgrade"
    )]
    NothingToRetry {
        /// The environment.
        environment: String,
        /// Why not.
        why: String,
    },
    /// There is nothing to go back to.
    #[error("there is nothing to undo in {environment}: {why}")]
    NothingToUndo {
        /// The environment.
        environment: String,
        /// Why not.
        why: String,
    },
}

impl Refusal {
    /// An upgrade that is open is in the way.
    #[must_use]
    pub fn unfinished(open: UpgradeRecord) -> Self {
        Refusal::OtherUpgrade {
            wanted: wanted(&open.spec),
            environment: open.spec.environment,
            open: open.spec.build,
            phase: open.status.phase,
        }
    }
}

/// A build as the state has it.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownBuild {
    /// Its locked set.
    pub spec: BuildSpec,
    /// Where it was proven, and where it may not go.
    pub status: BuildStatus,
}

impl KnownBuild {
    /// Reads it from the state.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn find(home: &Home, name: &str) -> Result<Option<Self>, StoreError> {
        let resource = home.store().resource("Build", name)?;
        resource.as_ref().map(Self::from_resource).transpose()
    }

    fn from_resource(resource: &Resource) -> Result<Self, StoreError> {
        Ok(Self {
            spec: resource.spec_as()?,
            status: if resource.status.is_null() {
                BuildStatus::default()
            } else {
                resource.status_as()?
            },
        })
    }

    /// When a build of this name was verified in an environment first, whatever bytes it had.
    #[must_use]
    pub fn verified_at(&self, environment: &str) -> Option<Timestamp> {
        let mut all = self.status.verifications.iter();
        all.find(|v| v.environment == environment).map(|v| v.at)
    }

    /// Every one, by name.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn all(home: &Home) -> Result<BTreeMap<String, Self>, StoreError> {
        let resources = home.store().resources("Build")?;
        let builds = resources.iter().map(|r| Ok((r.name.clone(), Self::from_resource(r)?)));
        builds.collect()
    }

    /// Of one component, by digest, as nodes name them: those of the state, and the images that its source states.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn by_digest(home: &Home, component: &Component) -> Result<BTreeMap<Digest, BuildRef>, StoreError> {
        Ok(by_digest(Self::all(home)?.values(), component))
    }

    /// Writes a build that was just found in its source.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn create(home: &Home, spec: &BuildSpec) -> Result<(), StoreError> {
        let value = serde_json::to_value(spec).map_err(|e| StoreError::Unreadable {
            what: format!("Build {}", spec.name()),
            why: e.to_string(),
        })?;
        home.store()
            .put_resource("Build", &spec.name(), &value, Expect::Anything, Timestamp::now())?;
        Ok(())
    }
}

/// Builds of a component that a home knows, and the images that its source states.
fn by_digest<'b>(known: impl Iterator<Item = &'b KnownBuild>, component: &Component) -> BTreeMap<Digest, BuildRef> {
    let of_state = known.map(|known| &known.spec);
    let of_state = of_state.filter(|build| build.component == component.name);
    let stated = builds::of_images(component);
    let all = of_state.chain(&stated);
    all.map(|build| (build.digest, build.reference())).collect()
}

/// What a home knows of an environment's past: what decides whether a build may enter it, and where its nodes stand.
#[derive(Debug, Clone)]
pub struct Past {
    /// Every build, by name.
    pub builds: BTreeMap<String, KnownBuild>,
    /// The environment's upgrades, the oldest first.
    pub upgrades: Vec<UpgradeRecord>,
}

impl Past {
    /// As the embedded home has it.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn of(home: &Home, environment: &str) -> Result<Self, StoreError> {
        Ok(Self {
            builds: KnownBuild::all(home)?,
            upgrades: home.store().upgrades(Some(environment), u32::MAX)?,
        })
    }

    /// Whether these bytes come back rather than enter: they succeeded here last, or every node that the last upgrade that succeeded here has
    /// changed ran them. A policy that changes, or a key that is revoked, must not keep an environment on a build that fails. What has come to pass
    /// after `as_of` counts for nothing: a build that is rehearsed there is not back for it.
    #[must_use]
    pub fn is_way_back(&self, environment: &str, component: &str, digest: &Digest, as_of: Timestamp) -> bool {
        let verified = self.builds.values().filter(|build| build.spec.component == component);
        let verified = verified.flat_map(|build| &build.status.verifications);
        let there = verified.filter(|v| v.environment == environment && v.at <= as_of);
        if there.max_by_key(|v| v.at).is_some_and(|last| last.digest == *digest) {
            return true;
        }
        let changed = |upgrade: &UpgradeRecord| -> Vec<Option<Digest>> {
            let nodes = upgrade.status.nodes.iter().map(|node| node.from);
            nodes.filter(|from| *from != upgrade.status.to).collect()
        };
        let last = self.upgrades.iter().rfind(|upgrade| {
            upgrade.spec.component == component
                && upgrade.status.phase == Phase::Succeeded
                && upgrade.created_at <= as_of
                && !changed(upgrade).is_empty()
        });
        last.is_some_and(|upgrade| changed(upgrade).iter().all(|from| *from == Some(*digest)))
    }

    /// What keeps a build out of an environment where it failed: these very bytes, under whichever name they come.
    #[must_use]
    pub fn quarantine(&self, digest: &Digest, environment: &str) -> Option<Refusal> {
        let same_bytes = self.builds.iter().filter(|(_, known)| known.spec.digest == *digest);
        let mut refusals = same_bytes.filter_map(|(name, known)| {
            let quarantine = known.status.quarantined_in(environment)?;
            Some(Refusal::Quarantined {
                build: name.clone(),
                environment: environment.to_owned(),
                since: quarantine.at,
                reason: quarantine.reason.clone(),
            })
        });
        refusals.next()
    }

    /// Nodes that the component's last upgrade before this one did not put back into service.
    fn left_out_before(&self, record: &UpgradeRecord, component: &Component) -> BTreeSet<String> {
        // Nothing took a Deployment's pods from those who send to them: what is left of it serves.
        if let Some(Pods::Deployment(_)) = component.pods() {
            return BTreeSet::new();
        }
        let last = self
            .upgrades
            .iter()
            .rfind(|u| u.name != record.name && u.spec.component == record.spec.component && u.status.phase.is_final());
        let nodes = last.into_iter().flat_map(|u| &u.status.nodes);
        nodes
            .filter(|n| n.drained || n.phase == NodePhase::OutOfService)
            .map(|n| n.name.clone())
            .collect()
    }
}

/// What an operator asks for.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The home.
    pub home: &'a Home,
    /// The environment.
    pub fleet: &'a Arc<Fleet>,
    /// The component.
    pub component: &'a Component,
    /// The build, which is in the state.
    pub build: &'a BuildRef,
    /// Who asks.
    pub user: &'a str,
}

impl Asked<'_> {
    fn environment(&self) -> &str {
        &self.fleet.environment.name
    }

    /// Begins the upgrade, or takes up the open one. Needs the lease.
    ///
    /// # Errors
    /// [`Refusal`], or the state cannot be written.
    pub async fn open(&self, lease: &HeldLease) -> Result<UpgradeRecord, SessionError> {
        match self.unfinished()? {
            Some(open) if awaits_resume(&open) => self.resume(lease, open),
            Some(open) => self.proceed(open),
            None => self.begin().await,
        }
    }

    /// The same for a home whose server drives: begins the upgrade, or takes up the open one, and leaves it to the server.
    ///
    /// # Errors
    /// [`Refusal`], also when somebody else than the server drives; or the state cannot be written.
    pub async fn hand_over(&self, server: &Holder) -> Result<UpgradeRecord, SessionError> {
        if let Some((holder, since)) = HeldLease::holder(self.home, self.environment())?
            && holder != *server
        {
            return Err(Refusal::Held {
                environment: self.environment().to_owned(),
                by: holder.to_string(),
                since,
            }
            .into());
        }
        match self.unfinished()? {
            // The server is at it, and tries it again and again.
            Some(open) if waits_to_reach(&open) => Ok(open),
            Some(open) if awaits_resume(&open) => {
                let lease = HeldLease::take_from(self.home, self.environment(), server).await?;
                self.resume(&lease, open)
            }
            Some(open) => self.proceed(open),
            None => self.begin().await,
        }
    }

    /// The open upgrade, if there is one; to another build it is in the way.
    fn unfinished(&self) -> Result<Option<UpgradeRecord>, SessionError> {
        match self.home.store().unfinished(Some(self.environment()))?.pop() {
            Some(open) if open.spec.build != self.build.name => Err(Refusal::unfinished(open).into()),
            other => Ok(other),
        }
    }

    async fn begin(&self) -> Result<UpgradeRecord, SessionError> {
        let known = self.known()?;
        if let Some(refusal) = refusal(self.home, self.fleet, self.component, &known.spec).await? {
            return Err(refusal.into());
        }
        self.refuse_past_promotion(&known.spec.digest)?;
        self.refuse_foreign().await?;
        let now = Timestamp::now();
        loop {
            let name = fresh_upgrade_name(&self.build.name);
            match self.create(&name, None, now) {
                Err(StoreError::Exists { .. }) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Begins the upgrade of a promotion, under its name, or finds that it was begun. What keeps a build out was looked for by who decided
    /// it, but for a quarantine, which nothing passes over.
    ///
    /// # Errors
    /// [`Refusal`], or the state cannot be written.
    pub fn begin_promoted(&self, promotion: &str) -> Result<UpgradeRecord, SessionError> {
        let past = Past::of(self.home, self.environment())?;
        if let Some(quarantine) = past.quarantine(&self.known()?.spec.digest, self.environment()) {
            return Err(quarantine.into());
        }
        match self.create(promotion, Some(promotion), Timestamp::now()) {
            Err(exists @ StoreError::Exists { .. }) => {
                let found = self.home.store().upgrade(promotion)?;
                let ours = found.filter(|upgrade| upgrade.spec.promotion.as_deref() == Some(promotion));
                Ok(ours.ok_or(exists)?)
            }
            other => Ok(other?),
        }
    }

    fn known(&self) -> Result<KnownBuild, SessionError> {
        let found = KnownBuild::find(self.home, &self.build.name)?;
        found.ok_or_else(|| SessionError::UnknownBuild(self.build.name.clone()))
    }

    fn create(&self, name: &str, promotion: Option<&str>, now: Timestamp) -> Result<UpgradeRecord, StoreError> {
        let spec = UpgradeSpec {
            environment: self.environment().to_owned(),
            component: self.component.name.clone(),
            build: self.build.name.clone(),
            user: self.user.to_owned(),
            promotion: promotion.map(str::to_owned),
            wish: Wish::Proceed,
        };
        self.home
            .store()
            .create_upgrade(name, &spec, &UpgradeStatus::new(now), now)
    }

    /// Nodes that another home drives would hold it at once. Who says nothing within this time is for the upgrade to wait for.
    async fn refuse_foreign(&self) -> Result<(), Foreign> {
        let places = self.fleet.places(&self.component.name);
        let looks = look::at(places, LOOK_BEFORE).await;
        let sights = looks.iter().map(|look| look.as_ref().ok());
        Foreign::among(self.fleet, places.iter().zip(sights), self.home.store().home()).map_or(Ok(()), Err)
    }

    /// What holds for an upgrade that is no promotion's: a protected environment takes none, and one that a freeze holds takes back alone
    /// what ran there.
    fn refuse_past_promotion(&self, digest: &Digest) -> Result<(), SessionError> {
        let environment = self.environment();
        if self.fleet.environment.spec.protected {
            return Err(Refusal::Protected {
                environment: environment.to_owned(),
                build: self.build.name.clone(),
            }
            .into());
        }
        let rules = self.fleet.workspace.promotion_rules()?;
        let freezes = promotion::freezes(self.home, &rules.freezes)?;
        let Some(frozen) = holding(&freezes, environment, Timestamp::now()).pop() else {
            return Ok(());
        };
        if Past::of(self.home, environment)?.is_way_back(environment, &self.component.name, digest, Timestamp::MAX) {
            return Ok(());
        }
        Err(Refusal::Frozen {
            environment: environment.to_owned(),
            why: Obstacle::Frozen(frozen.clone()).to_string(),
            freeze: frozen.name,
        }
        .into())
    }

    /// Goes on with a held upgrade.
    fn resume(&self, lease: &HeldLease, open: UpgradeRecord) -> Result<UpgradeRecord, SessionError> {
        let store = self.home.store();
        let now = Timestamp::now();
        let (status, event) = resumed(&open.status, now)?;
        let subject = subject(&open.spec);
        let sinks = sinks(self.fleet);
        let dispatch = report::dispatcher(store.home(), &subject, &sinks);
        store.commit(&Commit {
            upgrade: &open.name,
            expected_version: open.resource_version,
            token: lease.token(),
            at: now,
            status: &status,
            events: &[event],
            builds: &[],
            wish: Some(WishChange {
                seen: open.wish_version,
                to: Wish::Proceed,
            }),
            dispatch: &dispatch,
        })?;
        self.again(open)
    }

    /// Goes on with an upgrade that is under way: a wish to pause is over.
    fn proceed(&self, open: UpgradeRecord) -> Result<UpgradeRecord, SessionError> {
        let store = self.home.store();
        let mut open = open;
        loop {
            let dropped = match open.spec.wish {
                Wish::Proceed | Wish::Abort => return Ok(open),
                Wish::Pause => "the pause that was asked for is dropped",
                Wish::TimeUp => "that its time was up no longer counts",
            };
            // It was asked for in the history's eyes, and never came: that is to be found there, too.
            let event = Event {
                at: Timestamp::now(),
                reason: "PauseDropped".to_owned(),
                severity: Severity::Step,
                node: None,
                message: format!("{} goes on with it, so {dropped}", self.user),
            };
            let (subject, sinks) = (subject(&open.spec), sinks(self.fleet));
            let dispatch = report::dispatcher(store.home(), &subject, &sinks);
            let set = store.set_wish(
                &open.name,
                Wish::Proceed,
                Some(open.wish_version),
                self.user,
                &[event],
                &dispatch,
            );
            match set {
                // Somebody has wished otherwise meanwhile, and may have been told that it is heard.
                Err(StoreError::Conflict { .. }) => open = self.again(open)?,
                set => {
                    set?;
                    return self.again(open);
                }
            }
        }
    }

    fn again(&self, open: UpgradeRecord) -> Result<UpgradeRecord, SessionError> {
        let found = self.home.store().upgrade(&open.name)?;
        found.ok_or_else(|| SessionError::UnknownBuild(open.spec.build))
    }
}

/// What keeps a build out of an environment (I4): that it failed there, or lacks what is required of it.
///
/// # Errors
/// The state cannot be read.
pub async fn refusal(
    home: &Home,
    fleet: &Fleet,
    component: &Component,
    build: &BuildSpec,
) -> Result<Option<Refusal>, StoreError> {
    let past = Past::of(home, &fleet.environment.name)?;
    let judged = Judged::new(home, &fleet.workspace, build);
    Ok(refusal_by(&past, fleet, component, &judged).await)
}

/// The same by a past that is kept elsewhere than in this home.
pub async fn refusal_by(past: &Past, fleet: &Fleet, component: &Component, judged: &Judged<'_>) -> Option<Refusal> {
    let (environment, build) = (&fleet.environment.name, judged.build());
    if let Some(refusal) = past.quarantine(&build.digest, environment) {
        return Some(refusal);
    }
    if component.rollout.requires.is_empty()
        || past.is_way_back(environment, &component.name, &build.digest, Timestamp::MAX)
    {
        return None;
    }
    let lacking = judged.lacking(component).await;
    lacking.map(|lacking| Refusal::Lacking {
        build: build.name(),
        environment: environment.clone(),
        component: component.name.clone(),
        lacking: Box::new(lacking),
    })
}

/// Held until a person says otherwise; one that is to be aborted goes on by itself.
#[must_use]
pub fn awaits_resume(record: &UpgradeRecord) -> bool {
    record.status.phase.is_held() && record.spec.wish != Wish::Abort
}

/// Whether there is nothing to do for a driver: it has ended, or waits for a person.
#[must_use]
pub fn is_settled(record: &UpgradeRecord) -> bool {
    record.status.phase.is_final() || awaits_resume(record)
}

/// Whether it is held for as long as nobody can be reached, and goes on without anybody's word once a driver finds that over.
#[must_use]
pub fn waits_to_reach(record: &UpgradeRecord) -> bool {
    rollout::waits_to_reach(&record.status) && record.spec.wish == Wish::Proceed
}

/// Whether a driver that is always there has something to do for it.
#[must_use]
pub fn is_to_be_driven(record: &UpgradeRecord) -> bool {
    !is_settled(record) || waits_to_reach(record) || record.status.kept.is_some()
}

/// Drives an upgrade of the embedded home until it is final, held or interrupted, then clears away what the nodes need no more.
///
/// # Errors
/// The signals cannot be made ready, or the loop cannot go on; the upgrade is as it was last written.
pub async fn run(
    home: &Home,
    fleet: &Arc<Fleet>,
    record: &UpgradeRecord,
    lease: &HeldLease,
    interrupt: Interrupt,
    unreached: Unreached,
    on_commit: &OnCommit<'_>,
) -> Result<Ending, SessionError> {
    let (component, mut said) = (&record.spec.component, Said::default());
    if record.status.phase == Phase::Pending {
        giving_back::attempt_all(home, fleet, lease, component, &mut said).await?;
    }
    let past = Past::of(home, &record.spec.environment)?;
    let ledger = Embedded::new(home, &record.name, &record.spec, lease.token(), sinks(fleet));
    let driving = Driving {
        home,
        fleet,
        record,
        past: &past,
        token: lease.token(),
        ledger: &ledger,
        interrupt,
        unreached,
        on_commit,
    };
    let keeping = giving_back::Stored {
        home,
        fleet,
        lease,
        on_commit: &|_, _| {},
    };
    tokio::select! {
        ending = Box::pin(driving.run()) => ending,
        never = Box::pin(giving_back::beside(&keeping, component, &mut said)) => match never {},
    }
}

/// An upgrade that is to be driven, whichever home it is of.
pub struct Driving<'a> {
    /// Where artifacts and evidence lie.
    pub home: &'a Home,
    /// The environment.
    pub fleet: &'a Arc<Fleet>,
    /// The upgrade as last read.
    pub record: &'a UpgradeRecord,
    /// What its home knows of the environment.
    pub past: &'a Past,
    /// Proof of holding the environment.
    pub token: &'a FencingToken,
    /// Where it is written down.
    pub ledger: &'a dyn Ledger,
    /// Lets the running steps end and begins no other.
    pub interrupt: Interrupt,
    /// What becomes of a way back that is held since nobody can be reached.
    pub unreached: Unreached,
    /// Told of every commit.
    pub on_commit: &'a OnCommit<'a>,
}

impl Driving<'_> {
    /// Drives until it is final, held or interrupted, then clears away what the nodes need no more.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn run(self) -> Result<Ending, SessionError> {
        let Self {
            home,
            fleet,
            record,
            past,
            token,
            ledger,
            interrupt,
            unreached,
            on_commit,
        } = self;
        let unknown = || SessionError::UnknownBuild(record.spec.build.clone());
        let target = past.builds.get(&record.spec.build).ok_or_else(unknown)?;
        let component = fleet
            .environment
            .component(&record.spec.component)
            .ok_or_else(unknown)?;
        let builds = by_digest(past.builds.values(), component);
        let mut plan = plan(fleet, component, &record.name, &target.spec.reference())?;
        plan.left_out = past.left_out_before(record, component);
        let world = LiveWorld::new(Parts {
            home,
            fleet: Arc::clone(fleet),
            component,
            token: token.clone(),
            upgrade: &record.name,
            spec: &record.spec,
            build: target.spec.reference(),
            builds,
            preparation: Order {
                build: target.spec.reference(),
                spec: target.spec.clone(),
            },
            ledger,
            interrupt,
            on_commit,
        })?;
        if record.status.phase == Phase::Pending {
            giving_back::of_unknown(ledger, fleet, record, token).await?;
        }
        let limits = Limits {
            unreached,
            ..Limits::default()
        };
        let ending = drive(&world, &plan, &limits).await?;
        let patience = match &ending {
            Ending::Settled(_) => LAST_CALLS,
            Ending::Interrupted(_) => Duration::ZERO,
        };
        let accounted = world.account(patience).await;
        // Whatever became of the account.
        if let Ending::Settled(status) = &ending
            && status.phase.is_final()
        {
            let giving = GivingBack {
                fleet,
                token,
                record,
                ledger,
                on_commit,
            };
            giving.attempt(Since::JustNow).await?;
            prune(fleet, component, record, token, status).await;
        }
        accounted.map_err(DriveError::from)?;
        Ok(ending)
    }
}

/// That its driver was killed is part of what happened to an upgrade: told by who takes its lease over, whatever for.
///
/// # Errors
/// The state cannot be written.
pub fn tell_takeover(home: &Home, fleet: &Fleet, lease: &HeldLease) -> Result<(), StoreError> {
    let Some(lost) = lease.taken_over() else {
        return Ok(());
    };
    let open = home.store().unfinished(Some(&fleet.environment.name))?.pop();
    // An upgrade that was begun since has lost no driver.
    let Some(record) = open.filter(|open| open.created_at <= lost.heard_of) else {
        return Ok(());
    };
    let event = Event {
        at: Timestamp::now(),
        reason: "TakenOver".to_owned(),
        severity: Severity::Step,
        node: None,
        message: format!("{} took over from {lost}", settings::user()),
    };
    let (subject, sinks) = (subject(&record.spec), sinks(fleet));
    let dispatch = report::dispatcher(home.store().home(), &subject, &sinks);
    home.store()
        .append(&record.spec.environment, Some(&record.name), &[event], &dispatch)?;
    Ok(())
}

/// What is wanted, resolved from the environment.
///
/// # Errors
/// A gate that cannot be used.
pub fn plan(fleet: &Fleet, component: &Component, upgrade: &str, build: &BuildRef) -> Result<Plan, StatedError> {
    let nodes: Vec<String> = fleet
        .places(&component.name)
        .iter()
        .map(|p| p.site.name.clone())
        .collect();
    let Rollout {
        max_unavailable,
        batch_size,
        baseline,
        soak,
        failed_node_budget,
        keep_releases: _,
        patience,
        min_free_mib,
        requires: _,
    } = &component.rollout;
    let is_deployment = matches!(component.pods(), Some(Pods::Deployment(_)));
    Ok(Plan {
        upgrade: upgrade.to_owned(),
        component: component.name.clone(),
        version: build.version.clone(),
        release: build.digest,
        rules: fleet.rules(component),
        left_out: BTreeSet::new(),
        pods: fleet
            .places(&component.name)
            .iter()
            .filter(|place| matches!(place.site.host, Some(HostRef::Pod(_))))
            .map(|place| place.site.name.clone())
            .collect(),
        gates: StatedGate::all(component, nodes.len())?
            .into_iter()
            .zip(&component.gates)
            .map(|(stated, gate)| GatePlan {
                name: stated.name,
                deadline: gate.deadline,
                age: stated.age,
                neighbour_wait: stated.neighbour_wait,
            })
            .collect(),
        policy: Policy {
            max_unavailable: max_unavailable.of(nodes.len()),
            // A canary goes alone, or it is none.
            batch_size: if is_deployment { 1 } else { batch_size.of(nodes.len()) },
            baseline: *baseline,
            soak: *soak,
            // Of a canary and what it stands for neither can be done without: one that fails is no bad node among good ones.
            failed_node_budget: if is_deployment { 0 } else { *failed_node_budget as usize },
            patience: *patience,
            probe_deadline: PROBE_DEADLINE,
            min_free_bytes: min_free_mib << 20,
            order: match component.pods() {
                None => rollout::Order::SickFirst,
                Some(Pods::Set(_)) => rollout::Order::AsListed,
                Some(Pods::Deployment(_)) => rollout::Order::CanaryFirst,
            },
        },
        hooks: Hooks {
            // Whether a workload can be upgraded is told before anything is changed, and what a Deployment needs beside it is made then.
            check: component.actions.check.is_some() || component.pods().is_some(),
            drain: component.actions.drain.is_some(),
            warm: component.actions.warm.is_some(),
            admit: component.actions.admit.is_some(),
        },
        nodes,
    })
}

/// Keeps the home within its bounds, with the evidence of the upgrades that go.
pub fn prune_home(home: &Home) {
    let pruned = match home.store().prune() {
        Ok(pruned) => pruned,
        Err(why) => {
            tracing::warn!(%why, "old records were not cleared away");
            return;
        }
    };
    for upgrade in pruned.upgrades {
        let evidence = home.evidence(&upgrade);
        if let Err(why) = std::fs::remove_dir_all(&evidence)
            && why.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%why, evidence = %evidence.display(), "old evidence was not cleared away");
        }
    }
}

/// Clears evidence away of upgrades that are not among these, and that nobody has written to for a while: an upgrade's first
/// evidence may be there before it is heard of.
pub fn prune_evidence(home: &Home, upgrades: &BTreeSet<String>) {
    let directory = home.evidence("");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return,
        Err(why) => {
            tracing::warn!(%why, directory = %directory.display(), "old evidence was not looked for");
            return;
        }
    };
    for entry in entries.flatten() {
        if upgrades.contains(&*entry.file_name().to_string_lossy()) {
            continue;
        }
        let written = entry.metadata().and_then(|about| about.modified());
        let is_old = written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > EVIDENCE_WITHOUT_UPGRADE));
        if is_old && let Err(why) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%why, evidence = %entry.path().display(), "old evidence was not cleared away");
        }
    }
}

/// A held upgrade that goes on, and how that is told.
///
/// # Errors
/// It is not held.
pub fn resumed(held: &UpgradeStatus, now: Timestamp) -> Result<(UpgradeStatus, Event), rollout::RolloutError> {
    let status = rollout::resume(held, now)?;
    let event = Event {
        at: now,
        reason: "Resumed".to_owned(),
        severity: Severity::Step,
        node: None,
        message: format!("it was held ({}): {}", held.reason, held.message),
    };
    Ok((status, event))
}

/// Clears releases away that nobody goes back to. A node that cannot now is cleared by the next upgrade.
async fn prune(
    fleet: &Fleet,
    component: &Component,
    record: &UpgradeRecord,
    token: &FencingToken,
    status: &UpgradeStatus,
) {
    let keep = component.rollout.keep_releases as usize;
    let each = fleet
        .places(&component.name)
        .iter()
        .zip(&status.nodes)
        .map(async |(place, node)| {
            let sight = place.host.observe(&place.address, &[]).await?;
            if sight.releases.len() <= keep {
                return Ok(());
            }
            let step = Step {
                id: format!("{}.{}.prune", record.name, token.counter),
                action: "prune".to_owned(),
                work: Work::Prune {
                    keep: kept(&sight, node.from, keep),
                },
            };
            place
                .host
                .run(&place.address, token, &step, PRUNE_PATIENCE)
                .await
                .map(|_| ())
        });
    for done in futures::future::join_all(each).await {
        if let Err(why) = done {
            tracing::warn!(%why, "old releases were not cleared away");
        }
    }
}

/// The releases that a node keeps, so many: what is current and what runs, then what this upgrade came from, then the newest.
fn kept(sight: &NodeSight, from: Option<Digest>, keep: usize) -> Vec<Digest> {
    let running = sight.running.as_ref().and_then(|r| r.build);
    let wanted = sight.current.into_iter().chain(running).chain(from);
    let mut kept = Vec::new();
    for release in wanted.chain(sight.releases.iter().copied()) {
        if kept.len() < keep && !kept.contains(&release) {
            kept.push(release);
        }
    }
    kept
}

/// What an upgrade's events are about.
#[must_use]
pub fn subject(spec: &UpgradeSpec) -> Subject {
    Subject {
        component: spec.component.clone(),
        build: spec.build.clone(),
        user: spec.user.clone(),
    }
}

/// `COMPONENT=VERSION`, as an operator writes it.
#[must_use]
pub fn wanted(spec: &UpgradeSpec) -> String {
    let subject = subject(spec);
    format!("{}={}", spec.component, subject.version())
}

/// The steps of a node's way that its component has, in order, for people.
#[must_use]
pub fn steps_of(component: &Component) -> Vec<&'static str> {
    let actions = &component.actions;
    [
        (StepAction::Install, true),
        (StepAction::Drain, actions.drain.is_some()),
        (StepAction::Activate, true),
        (StepAction::Restart, true),
        (StepAction::Warm, actions.warm.is_some()),
        (StepAction::Admit, actions.admit.is_some()),
    ]
    .into_iter()
    .filter(|(_, there)| *there)
    .map(|(action, _)| action.word())
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_keeps_so_many_releases_and_of_those_that_nobody_needs_the_newest() {
        type Row = (&'static [u8], u8, Option<u8>, usize, &'static [u8]);
        let d = |n: u8| Digest::of(&[n]);
        let sight = |newest_first: &[u8], current: u8| NodeSight {
            current: Some(d(current)),
            releases: newest_first.iter().map(|n| d(*n)).collect(),
            ..NodeSight::default()
        };
        let rows: [Row; 5] = [
            // 5 is on, the upgrade came from 4, and 3 is the newest of the others.
            (&[5, 4, 3, 2, 1], 5, Some(4), 3, &[5, 4, 3]),
            // Back on 4, from which it came; 5 failed and is the newest.
            (&[5, 4, 3, 2, 1], 4, Some(4), 3, &[4, 5, 3]),
            (&[5, 4, 3, 2, 1], 1, None, 2, &[1, 5]),
            (&[5, 4, 3, 2, 1], 2, Some(5), 1, &[2]),
            (&[2, 1], 2, Some(1), 3, &[2, 1]),
        ];
        for (releases, current, from, keep, expected) in rows {
            let expected: Vec<Digest> = expected.iter().map(|n| d(*n)).collect();
            assert_eq!(
                kept(&sight(releases, current), from.map(d), keep),
                expected,
                "{releases:?} {current}"
            );
        }
    }

    /// One of a component of which a node was left out.
    fn upgrade(name: &str, phase: Phase) -> UpgradeRecord {
        let at = Timestamp::UNIX_EPOCH;
        let mut status = UpgradeStatus::new(at);
        status.phase = phase;
        let node = json!({"name": "web", "phase": "OutOfService", "since": at, "drained": true});
        status.nodes = vec![serde_json::from_value(node).expect("a node")];
        UpgradeRecord {
            name: name.to_owned(),
            spec: serde_json::from_value(json!({"environment": "e", "component": "web", "build": "web-2"}))
                .expect("a spec"),
            status,
            resource_version: 1,
            wish_version: 1,
            created_at: at,
        }
    }

    #[test]
    fn nothing_of_a_deployment_was_left_out_by_the_upgrade_before() {
        let deployment = json!({"deployment": {"namespace": "shop", "name": "web"}});
        let servers = json!({"nodes": [{"name": "web"}]});
        let past = Past {
            builds: BTreeMap::new(),
            upgrades: vec![upgrade("one", Phase::RolledBack), upgrade("two", Phase::Pending)],
        };
        for (mut stated, left_out) in [(deployment, 0), (servers, 1)] {
            stated["name"] = json!("web");
            let component: Component = serde_json::from_value(stated).expect("a component");
            assert_eq!(past.left_out_before(&past.upgrades[1], &component).len(), left_out);
        }
    }
}

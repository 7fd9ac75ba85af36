//! The promotions of a home, each looked at when something about it may have changed, and the rehearsals that they ask for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use tokio::time::Instant;

use super::Server;
use crate::engine::builds::{self, BuildError};
use crate::engine::disturb::DisturbError;
use crate::engine::fleet::Fleet;
use crate::engine::lease::HeldLease;
use crate::engine::promotion::signatures::Verifier;
use crate::engine::promotion::{Ground, PromotionError, PromotionRecord, Turned};
use crate::engine::rehearsal::{Driven, Driver, Quarantined, Rehearsing};
use crate::engine::session::{self, Asked, KnownBuild, SessionError};
use crate::engine::{Ending, Unreached, delivery};
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::pipeline::{PipelineSpec, Stage, Start};
use crate::model::upgrade::{Event, UpgradeStatus};
use crate::promotion::{Effect, RehearsalRun, RunState};
use crate::store::{Store as _, StoreError, UpgradeRecord};
use crate::workspace::{PromotionRules, WorkspaceError};

/// What is not written in the state, as files, keys and commits, is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What was seen of a promotion at its last turn.
struct Seen {
    version: u64,
    upgrade_version: u64,
    again_at: Instant,
    wake_at: Option<Timestamp>,
    /// What is in the way of looking at it, as it was told.
    trouble: Option<String>,
}

/// A rehearsal that has ended: of which promotion, in which environment, and how.
type Rehearsed = (String, String, Result<Option<RehearsalRun>, RehearsalTrouble>);

/// Looks at every open promotion.
pub(super) struct Promotions<'a> {
    server: &'a Server<'a>,
    verifier: Verifier,
    seen: BTreeMap<String, Seen>,
    /// When it is looked again for what enters by itself, and what was in the way of that.
    ask_at: Option<Instant>,
    unasked: Vec<String>,
    /// Rehearsals that are driven, by their environments, with the promotion that each is for.
    rehearsing: RefCell<BTreeMap<String, (String, String)>>,
    flights: FuturesUnordered<LocalBoxFuture<'a, Rehearsed>>,
    /// Why rehearsals could not be driven, as it was told.
    unrehearsed: BTreeMap<String, String>,
    /// How rehearsals have ended that their promotions have not taken in yet.
    ended: BTreeMap<String, RehearsalRun>,
}

impl<'a> Promotions<'a> {
    pub(super) fn new(server: &'a Server<'a>) -> Self {
        Self {
            server,
            verifier: Verifier::default(),
            seen: BTreeMap::new(),
            ask_at: None,
            unasked: Vec::new(),
            rehearsing: RefCell::default(),
            flights: FuturesUnordered::new(),
            unrehearsed: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Whether a rehearsal has this environment: it drives its upgrades itself.
    pub(super) fn has(&self, environment: &str) -> bool {
        self.rehearsing.borrow().contains_key(environment)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Waits until a rehearsal has ended; for ever when none is driven.
    pub(super) async fn next(&mut self) {
        let Some((promotion, environment, ended)) = self.flights.next().await else {
            std::future::pending::<()>().await;
            return;
        };
        self.rehearsing.borrow_mut().remove(&environment);
        match ended {
            Ok(Some(run)) => {
                self.ended.insert(promotion.clone(), run);
            }
            // Asked to end; the next server begins it anew.
            Ok(None) => {}
            // It is begun again at the next look.
            Err(why) => {
                let why = why.to_string();
                if self.unrehearsed.get(&promotion) != Some(&why) {
                    (self.server.tell)(&format!("the rehearsal of {promotion} cannot be driven: {why}"));
                    self.unrehearsed.insert(promotion, why);
                }
                return;
            }
        }
        self.seen.remove(&promotion);
    }

    /// Asks for what enters a stage by itself. What is in the way of one stage is in the way of no other.
    fn ask(&mut self) {
        let troubles = match self.server.workspace.promotion_rules() {
            Ok(rules) => self.try_to_ask(&rules),
            Err(why) => vec![why.to_string()],
        };
        for why in troubles.iter().filter(|why| !self.unasked.contains(why)) {
            (self.server.tell)(&format!("nothing enters a stage by itself: {why}"));
        }
        self.unasked = troubles;
    }

    fn try_to_ask(&self, rules: &PromotionRules) -> Vec<String> {
        let Server {
            home, workspace, shift, ..
        } = *self.server;
        let ask = |name: &str, pipeline: &PipelineSpec, stage: &Stage| {
            let fleet = Arc::new(Fleet::read(home, workspace, &stage.environment, shift)?);
            let way = Ground {
                home,
                fleet: &fleet,
                name,
                pipeline,
                stage,
                freezes: &rules.freezes,
            };
            Ok::<_, PromotionError>(way.ask_for_what_enters_by_itself()?)
        };
        let mut troubles = Vec::new();
        for (name, pipeline) in &rules.pipelines {
            for stage in pipeline.stages.iter().filter(|stage| stage.start == Start::Auto) {
                troubles.extend(
                    ask(name, pipeline, stage)
                        .err()
                        .map(|why| format!("{name}, {}: {why}", stage.name)),
                );
            }
        }
        troubles
    }

    /// Takes a turn of each that may have changed; returns the environments whose reports there are more of.
    pub(super) async fn look(&mut self) -> Vec<String> {
        let store = self.server.home.store();
        if self.ask_at.is_none_or(|at| Instant::now() >= at) {
            self.ask_at = Some(Instant::now() + LOOK_EVERY);
            self.ask();
        }
        let open = match PromotionRecord::open(self.server.home) {
            Ok(open) => open,
            Err(why) => {
                tracing::warn!(%why, "cannot look for promotions");
                return Vec::new();
            }
        };
        self.seen
            .retain(|name, _| open.iter().any(|record| record.name == *name));
        let mut environments = Vec::new();
        for record in &open {
            // What cannot be read now is read at the next look.
            let glance = store.glance(&record.name).ok().flatten();
            let upgrade_version = glance.map_or(0, |glance| glance.resource_version + glance.wish_version);
            if !self.is_due(record, upgrade_version) {
                continue;
            }
            let turned = self.turn(record).await;
            let trouble = match &turned {
                Ok((environment, _)) => {
                    environments.push(environment.clone());
                    None
                }
                Err(why) => Some(why.to_string()),
            };
            let told = self.seen.get(&record.name).and_then(|seen| seen.trouble.clone());
            if let Some(why) = trouble.as_ref().filter(|why| told.as_ref() != Some(*why)) {
                (self.server.tell)(&format!("promotion {} cannot be gone on with: {why}", record.name));
            }
            let (version, wake_at) = match &turned {
                Ok((_, turned)) => (turned.record.resource_version, turned.wake_at),
                Err(_) => (record.resource_version, None),
            };
            let seen = Seen {
                version,
                upgrade_version,
                again_at: Instant::now() + LOOK_EVERY,
                wake_at,
                trouble,
            };
            self.seen.insert(record.name.clone(), seen);
        }
        environments
    }

    fn is_due(&self, record: &PromotionRecord, upgrade_version: u64) -> bool {
        let Some(seen) = self.seen.get(&record.name) else {
            return true;
        };
        seen.version != record.resource_version
            || seen.upgrade_version != upgrade_version
            || Instant::now() >= seen.again_at
            || seen.wake_at.is_some_and(|at| Timestamp::now() >= at)
    }

    async fn turn(&mut self, record: &PromotionRecord) -> Result<(String, Turned), PromotionError> {
        let Server {
            home, workspace, shift, ..
        } = *self.server;
        let rules = workspace.promotion_rules()?;
        let environment = Ground::environment_of(&rules, record)?;
        let fleet = Arc::new(Fleet::read(home, workspace, &environment, shift)?);
        let way = Ground::of(home, &fleet, &rules, record)?;
        let ended = self
            .ended
            .get(&record.name)
            .cloned()
            .or_else(|| self.running(&record.name));
        let turned = way.turn(&record.name, ended.as_ref(), &self.verifier).await?;
        self.ended.remove(&record.name);
        if let Some(Effect::Rehearse(rehearsal)) = &turned.effect {
            self.rehearse(rehearsal, &turned.record.name, &way.version(record)?)?;
        } else {
            way.carry_out(&turned).await?;
        }
        Ok((environment, turned))
    }

    /// The rehearsal that is driven for a promotion.
    fn running(&self, promotion: &str) -> Option<RehearsalRun> {
        let all = self.rehearsing.borrow();
        let mut all = all.values();
        let (_, rehearsal) = all.find(|(of, _)| of == promotion)?;
        Some(RehearsalRun {
            rehearsal: rehearsal.clone(),
            state: RunState::Running,
        })
    }

    /// Begins a rehearsal, unless its environment has one already, or an upgrade that somebody drives or that waits for a person: two who drive
    /// would fence one another.
    fn rehearse(&mut self, rehearsal: &str, promotion: &str, version: &str) -> Result<(), PromotionError> {
        let server = self.server;
        let (_, spec) = server.workspace.rehearsal(rehearsal, server.shift)?;
        let spec = spec.of_candidate(version);
        let environment = spec.environment.clone();
        let fleet = Arc::new(Fleet::read(server.home, server.workspace, &environment, server.shift)?);
        if self.has(&environment) || !server.home.store().unfinished(Some(&environment))?.is_empty() {
            return Ok(());
        }
        let of = (promotion.to_owned(), rehearsal.to_owned());
        self.rehearsing.borrow_mut().insert(environment.clone(), of);
        let (rehearsal, promotion) = (rehearsal.to_owned(), promotion.to_owned());
        let flight = async move {
            let here = Here {
                server,
                fleet: &fleet,
                promotion: &promotion,
            };
            let rehearsing = Rehearsing {
                home: server.home,
                fleet: &fleet,
                spec: &spec,
                quarantined: Quarantined::IsUnmet,
            };
            let outcome = rehearsing.carry_out(&here).await;
            let ended = outcome.map(|outcome| {
                let state = outcome.why_not().map_or(RunState::Passed, RunState::Failed);
                (!outcome.interrupted).then_some(RehearsalRun { rehearsal, state })
            });
            (promotion, environment, ended)
        };
        self.flights.push(flight.boxed_local());
        Ok(())
    }
}

/// Why a rehearsal could not be driven.
#[derive(Debug, thiserror::Error)]
enum RehearsalTrouble {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Disturb(#[from] DisturbError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error("the promotion has ended, and no further run is begun for it")]
    Over,
    #[error("`{0}` names no build of environment {1}")]
    NoBuild(String, String),
}

/// The server, as who drives a rehearsal's upgrades.
struct Here<'a> {
    server: &'a Server<'a>,
    fleet: &'a Arc<Fleet>,
    /// Which it is for.
    promotion: &'a str,
}

impl Driver for Here<'_> {
    type Error = RehearsalTrouble;

    fn note(&self, line: &str) {
        (self.server.tell)(line);
    }

    async fn find(&self, wanted: &str) -> Result<(&Component, BuildRef), RehearsalTrouble> {
        let promotion = PromotionRecord::find(self.server.home, self.promotion)?;
        if promotion.is_none_or(|promotion| promotion.status.phase.is_final()) {
            return Err(RehearsalTrouble::Over);
        }
        let environment = &self.fleet.environment;
        let none = || RehearsalTrouble::NoBuild(wanted.to_owned(), environment.name.clone());
        let (component, version) = wanted.split_once('=').ok_or_else(none)?;
        let component = environment.component(component).ok_or_else(none)?;
        if let Some(known) = KnownBuild::find(self.server.home, &format!("{}-{version}", component.name))? {
            return Ok((component, known.spec.reference()));
        }
        let spec = builds::resolve(component, version, self.server.workspace.root()).await?;
        if KnownBuild::find(self.server.home, &spec.name())?.is_none() {
            KnownBuild::create(self.server.home, &spec)?;
        }
        Ok((component, spec.reference()))
    }

    async fn lease(&self) -> Result<HeldLease, RehearsalTrouble> {
        let lease = HeldLease::take(self.server.home, &self.fleet.environment.name)?;
        session::tell_takeover(self.server.home, self.fleet, &lease)?;
        Ok(lease)
    }

    async fn open(&self, asked: &Asked<'_>, lease: &HeldLease) -> Result<UpgradeRecord, SessionError> {
        asked.open(lease).await
    }

    async fn drive(&self, record: &UpgradeRecord, lease: &HeldLease) -> Result<Driven, RehearsalTrouble> {
        let told_by_sink = delivery::tells_stderr(self.fleet);
        let on_commit = |_: &UpgradeStatus, events: &[Event]| {
            for event in events.iter().filter(|_| !told_by_sink) {
                (self.server.tell)(&delivery::line(record, event));
            }
        };
        let interrupt = self.server.interrupt.clone();
        let home = self.server.home;
        let ending = session::run(
            home,
            self.fleet,
            record,
            lease,
            interrupt,
            Unreached::StayedWith,
            &on_commit,
        )
        .await?;
        let record = home
            .store()
            .upgrade(&record.name)?
            .ok_or_else(|| SessionError::UnknownBuild(record.spec.build.clone()))?;
        Ok(Driven {
            record,
            interrupted: matches!(ending, Ending::Interrupted(_)),
        })
    }
}

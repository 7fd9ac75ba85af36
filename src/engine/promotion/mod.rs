//! Promotions of the embedded home. A turn reads what is asked, what was said and what is known, decides ([`crate::promotion`]), and
//! writes the decision with what is told of it, if nobody has written meanwhile. What it decided is done afterwards, and done once
//! however often it is asked for: the upgrade of a promotion has the promotion's name.

mod facts;
pub mod signatures;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

pub use self::facts::{FREEZE, frozen};
use self::signatures::{SignatureError, Verifier};
use super::delivery;
use super::fleet::Fleet;
use super::lease::HeldLease;
use super::session::{self, Asked, KnownBuild, Refusal, SessionError};
use crate::audit::Act;
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::freeze::FreezeSpec;
use crate::model::pipeline::{PipelineSpec, Stage, Start};
use crate::model::promotion::{PromotionSpec, PromotionStatus};
use crate::model::upgrade::{self, Event, Wish};
use crate::promotion::obstacle::Facts;
use crate::promotion::{Case, Decision, Effect, RehearsalRun, UpgradeRun, decide};
use crate::report::{self, Subject};
use crate::store::{ENGINE, Expect, Put, Resource, Store as _, StoreError, UpgradeRecord, fresh_upgrade_name};
use crate::workspace::{PromotionRules, WorkspaceError};

/// The kind, as the state has it.
pub const KIND: &str = crate::store::PROMOTION;
/// Somebody has written meanwhile: a turn is taken anew so often before the next look takes it.
const TURNS: u32 = 8;
/// A decision is written within this of its look, or not at all: who was stopped meanwhile looks again.
const LONGEST_LOOK: SignedDuration = SignedDuration::from_secs(30);
/// Ended promotions kept: as many as upgrades.
const KEEP_FINISHED: usize = 200;

/// Why a promotion cannot be looked at, or gone on with.
#[derive(Debug, thiserror::Error)]
pub enum PromotionError {
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Its upgrade.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A build that is not in the state.
    #[error("build {0} is not known here; `stagegate build list` shows what is")]
    UnknownBuild(String),
    /// No such promotion.
    #[error("there is no promotion {0}; `stagegate get promotions` lists them")]
    Unknown(String),
    /// The files have no way for it.
    #[error(
        "no pipeline leads {component} into {environment}: no file of kind Pipeline in pipelines/ has `component: {component}` and a stage \
         with `environment: {environment}`{there}"
    )]
    NoWay {
        /// The component.
        component: String,
        /// The environment.
        environment: String,
        /// The ways that there are.
        there: String,
    },
    /// Two ways for it.
    #[error("pipelines {} and {} both lead {component} into {environment}; take one of the two stages out", ways[0], ways[1])]
    TwoWays {
        /// The component.
        component: String,
        /// The environment.
        environment: String,
        /// The pipelines.
        ways: Vec<String>,
    },
    /// The stage was taken out of the pipeline while a promotion was under way.
    #[error(
        "promotion {promotion} is of stage {stage} of pipeline {pipeline}, which the files no longer have; put it back, or `stagegate cancel {promotion}`"
    )]
    StageGone {
        /// The promotion.
        promotion: String,
        /// Its pipeline.
        pipeline: String,
        /// Its stage.
        stage: String,
    },
    /// The environment's file has another component by now.
    #[error("environment {environment} has no component {component}")]
    NoComponent {
        /// The environment.
        environment: String,
        /// The component.
        component: String,
    },
    /// Others write all the time.
    #[error("promotion {0} changes faster than it can be decided on")]
    Restless(String),
}

/// A promotion as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct PromotionRecord {
    /// Its name, which its upgrade has too.
    pub name: String,
    /// What is asked.
    pub spec: PromotionSpec,
    /// How far it is.
    pub status: PromotionStatus,
    /// Changes with every write.
    pub resource_version: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl PromotionRecord {
    fn from_resource(resource: &Resource) -> Result<Self, StoreError> {
        Ok(Self {
            name: resource.name.clone(),
            spec: resource.spec_as()?,
            status: resource.status_as()?,
            resource_version: resource.resource_version,
            created_at: resource.created_at,
        })
    }

    /// One by its name.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn find(home: &Home, name: &str) -> Result<Option<Self>, StoreError> {
        let found = home.store().resource(KIND, name)?;
        found.as_ref().map(Self::from_resource).transpose()
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn all(home: &Home) -> Result<Vec<Self>, StoreError> {
        home.store().resources(KIND)?.iter().map(Self::from_resource).collect()
    }

    /// Those that have not ended, the oldest first.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open(home: &Home) -> Result<Vec<Self>, StoreError> {
        let mut open = Self::all(home)?;
        open.retain(|record| !record.status.phase.is_final());
        open.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        Ok(open)
    }
}

/// What the events of a promotion are about.
#[must_use]
pub fn subject(component: &str, spec: &PromotionSpec) -> Subject {
    Subject {
        component: component.to_owned(),
        build: spec.build.clone(),
        user: spec.user.clone(),
    }
}

/// What a promotion is decided on: its home, its stage, and the rules that hold there.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The home.
    pub home: &'a Home,
    /// The stage's environment.
    pub fleet: &'a Arc<Fleet>,
    /// Name of the pipeline.
    pub name: &'a str,
    /// The pipeline.
    pub pipeline: &'a PipelineSpec,
    /// Its stage.
    pub stage: &'a Stage,
    /// The freezes that the files state.
    pub freezes: &'a std::collections::BTreeMap<String, FreezeSpec>,
}

/// The way of a component into an environment.
///
/// # Errors
/// There is none, or more than one.
pub fn way<'r>(
    rules: &'r PromotionRules,
    component: &str,
    environment: &str,
) -> Result<(&'r str, &'r PipelineSpec, &'r Stage), PromotionError> {
    let of_component = rules
        .pipelines
        .iter()
        .filter(|(_, pipeline)| pipeline.component == component);
    let mut ways =
        of_component.filter_map(|(name, pipeline)| Some((name.as_str(), pipeline, pipeline.stage_into(environment)?)));
    match (ways.next(), ways.next()) {
        (Some(way), None) => Ok(way),
        (Some(one), Some(other)) => Err(PromotionError::TwoWays {
            component: component.to_owned(),
            environment: environment.to_owned(),
            ways: vec![one.0.to_owned(), other.0.to_owned()],
        }),
        (None, _) => {
            let all = rules.pipelines.iter();
            let there: Vec<String> = all
                .map(|(name, pipeline)| {
                    let into: Vec<&str> = pipeline.stages.iter().map(|stage| stage.environment.as_str()).collect();
                    format!("{name} leads {} into {}", pipeline.component, into.join(", "))
                })
                .collect();
            Err(PromotionError::NoWay {
                component: component.to_owned(),
                environment: environment.to_owned(),
                there: if there.is_empty() {
                    String::new()
                } else {
                    format!("; {}", there.join("; "))
                },
            })
        }
    }
}

/// The way that a stored promotion is on, by the files as they are now.
fn way_of<'r>(
    rules: &'r PromotionRules,
    record: &PromotionRecord,
) -> Result<(&'r str, &'r PipelineSpec, &'r Stage), PromotionError> {
    let PromotionSpec { pipeline, stage, .. } = &record.spec;
    let found = rules.pipelines.get_key_value(pipeline);
    let found = found.and_then(|(name, pipeline)| Some((name.as_str(), pipeline, pipeline.stage(stage)?)));
    found.ok_or_else(|| PromotionError::StageGone {
        promotion: record.name.clone(),
        pipeline: pipeline.clone(),
        stage: stage.clone(),
    })
}

impl<'a> Ground<'a> {
    /// Of a promotion that is stored, by the files as they are now.
    ///
    /// # Errors
    /// The files no longer have its stage.
    pub fn of(
        home: &'a Home,
        fleet: &'a Arc<Fleet>,
        rules: &'a PromotionRules,
        record: &PromotionRecord,
    ) -> Result<Self, PromotionError> {
        let (name, pipeline, stage) = way_of(rules, record)?;
        Ok(Self {
            home,
            fleet,
            name,
            pipeline,
            stage,
            freezes: &rules.freezes,
        })
    }

    /// The environment that a stored promotion leads into.
    ///
    /// # Errors
    /// The files no longer have its stage.
    pub fn environment_of(rules: &PromotionRules, record: &PromotionRecord) -> Result<String, PromotionError> {
        Ok(way_of(rules, record)?.2.environment.clone())
    }

    /// The component that is upgraded.
    ///
    /// # Errors
    /// The environment does not have it.
    pub fn component(&self) -> Result<&'a Component, PromotionError> {
        let environment = &self.fleet.environment;
        let found = environment.component(&self.pipeline.component);
        found.ok_or_else(|| PromotionError::NoComponent {
            environment: environment.name.clone(),
            component: self.pipeline.component.clone(),
        })
    }

    fn subject(&self, spec: &PromotionSpec) -> Subject {
        subject(&self.pipeline.component, spec)
    }

    /// The unfinished promotion of a build into the stage.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open_of(&self, build: &str) -> Result<Option<PromotionRecord>, StoreError> {
        let mut open = PromotionRecord::open(self.home)?.into_iter();
        Ok(open.find(|record| {
            record.spec.build == build && record.spec.pipeline == self.name && record.spec.stage == self.stage.name
        }))
    }

    /// A promotion that nobody has heard of yet: what is signed of it names it.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn draft(&self, spec: PromotionSpec) -> Result<PromotionRecord, StoreError> {
        let now = Timestamp::now();
        loop {
            let name = fresh_upgrade_name(&spec.build);
            // Its upgrade will have the name.
            let is_taken =
                self.home.store().upgrade(&name)?.is_some() || PromotionRecord::find(self.home, &name)?.is_some();
            if !is_taken {
                return Ok(PromotionRecord {
                    name,
                    spec,
                    status: PromotionStatus::new(now),
                    resource_version: 0,
                    created_at: now,
                });
            }
        }
    }

    /// Asks for it, with what was said of it already.
    ///
    /// # Errors
    /// The state cannot be written, or the name was taken since.
    pub fn ask(&self, draft: &PromotionRecord, why: &str, mut change: Change) -> Result<PromotionRecord, StoreError> {
        let (user, name, at) = (&draft.spec.user, &draft.name, draft.created_at);
        let message = match why {
            "" => format!("{user} asks for it"),
            why => format!("{user} asks for it: {why}"),
        };
        change.events.insert(0, event(at, "PromotionAsked", message));
        let act = self.act(name, user, "PromotionAsked", &draft.spec.build, at);
        change.acts.insert(0, act);
        self.put(draft, &change, Expect::Absent)
    }

    /// Asks for what enters the stage by itself: each build that every stage before has verified, that is not there, has not failed there, and
    /// was not asked for before. Which of several goes first, the turn decides.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub fn ask_for_what_enters_by_itself(&self) -> Result<(), StoreError> {
        if self.stage.start != Start::Auto {
            return Ok(());
        }
        let builds = KnownBuild::all(self.home)?;
        let environment = &self.stage.environment;
        let asked = PromotionRecord::all(self.home)?;
        let asked = asked
            .iter()
            .filter(|record| record.spec.pipeline == self.name && record.spec.stage == self.stage.name);
        let asked: BTreeSet<&str> = asked.map(|record| record.spec.build.as_str()).collect();
        let there = |known: &KnownBuild| {
            let mut all = known.status.verifications.iter();
            all.find(|v| v.environment == *environment).map(|v| v.at)
        };
        let of_component = || {
            builds
                .iter()
                .filter(|(_, known)| known.spec.component == self.pipeline.component)
        };
        let last = of_component().filter_map(|(_, known)| there(known)).max();
        for (name, known) in of_component() {
            let failed = known.status.quarantined_in(environment).is_some();
            // What takes longest to find out comes last: there may be thousands of builds.
            if asked.contains(name.as_str())
                || there(known).is_some()
                || failed
                || known.status.verifications.is_empty()
            {
                continue;
            }
            let verified = facts::verified_before(self.pipeline, self.stage, known, &builds);
            // What a later build has passed over is history.
            if verified.is_some_and(|at| last.is_none_or(|last| at > last)) {
                let draft = self.draft(PromotionSpec {
                    pipeline: self.name.to_owned(),
                    stage: self.stage.name.clone(),
                    build: name.clone(),
                    user: ENGINE.to_owned(),
                    automatic: true,
                    cancel: false,
                })?;
                self.ask(&draft, "every stage before has verified it", Change::of(&draft))?;
            }
        }
        Ok(())
    }

    /// Changes what is stored of a promotion, from whatever it is by then; `None` from `change` leaves it as it is.
    ///
    /// # Errors
    /// It is not there, or the state cannot be written.
    pub fn change(
        &self,
        name: &str,
        change: &mut dyn FnMut(&PromotionRecord) -> Option<Change>,
    ) -> Result<PromotionRecord, PromotionError> {
        for _ in 0..TURNS {
            let record =
                PromotionRecord::find(self.home, name)?.ok_or_else(|| PromotionError::Unknown(name.to_owned()))?;
            let Some(change) = change(&record) else {
                return Ok(record);
            };
            match self.write(&record, &change) {
                Err(StoreError::Conflict { .. }) => {}
                other => return Ok(other?),
            }
        }
        Err(PromotionError::Restless(name.to_owned()))
    }

    fn write(&self, record: &PromotionRecord, change: &Change) -> Result<PromotionRecord, StoreError> {
        self.put(record, change, Expect::Version(record.resource_version))
    }

    fn put(&self, record: &PromotionRecord, change: &Change, expect: Expect) -> Result<PromotionRecord, StoreError> {
        let Change {
            spec,
            status,
            events,
            acts,
        } = change;
        let at = Timestamp::now();
        let (spec, status) = (to_value(spec)?, to_value(status)?);
        let (subject, sinks) = (self.subject(&record.spec), delivery::sinks(self.fleet));
        let dispatch = report::dispatcher(self.home.store().home(), &subject, &sinks);
        let written = self.home.store().put(&Put {
            kind: KIND,
            name: &record.name,
            spec: Some(&spec),
            status: Some(&status),
            expect,
            environment: &self.stage.environment,
            promotion: Some(&record.name),
            events,
            acts,
            dispatch: &dispatch,
            at,
        })?;
        PromotionRecord::from_resource(&written)
    }

    /// An act on a promotion.
    #[must_use]
    pub fn act(&self, promotion: &str, who: &str, what: &str, why: &str, at: Timestamp) -> Act {
        Act {
            at,
            who: who.to_owned(),
            what: what.to_owned(),
            of: format!("{KIND}/{promotion}"),
            environment: self.stage.environment.clone(),
            why: why.to_owned(),
            evidence: None,
        }
    }

    /// What is known now.
    ///
    /// # Errors
    /// The state, the files or a signature cannot be read.
    pub async fn facts(&self, record: &PromotionRecord, verifier: &Verifier) -> Result<Facts, PromotionError> {
        facts::gather(self, record, verifier).await
    }

    /// Looks, decides, and writes the decision down. A rehearsal is of who has driven it for this promotion.
    ///
    /// # Errors
    /// What it is decided on cannot be read, or the decision cannot be written.
    pub async fn turn(
        &self,
        name: &str,
        rehearsal: Option<&RehearsalRun>,
        verifier: &Verifier,
    ) -> Result<Turned, PromotionError> {
        for _ in 0..TURNS {
            let record =
                PromotionRecord::find(self.home, name)?.ok_or_else(|| PromotionError::Unknown(name.to_owned()))?;
            if record.status.phase.is_final() {
                return Ok(Turned::ended(record));
            }
            let looked_at = Timestamp::now();
            let facts = self.facts(&record, verifier).await?;
            let upgrade = self.upgrade_of(name)?;
            let run = upgrade.as_ref().map(upgrade_run);
            let decision = decide(&Case {
                pipeline: self.pipeline,
                stage: self.stage,
                spec: &record.spec,
                status: &record.status,
                facts: &facts,
                rehearsal,
                upgrade: run.as_ref(),
                now: looked_at,
            });
            let Decision {
                status,
                effect,
                events,
                wake_at,
            } = decision;
            let mut written = record;
            if status != written.status {
                let change = Change {
                    acts: self.acts_of(&written, &status, &events),
                    spec: written.spec.clone(),
                    status,
                    events,
                };
                if Timestamp::now().duration_since(looked_at) > LONGEST_LOOK {
                    continue;
                }
                match self.write(&written, &change) {
                    Err(StoreError::Conflict { .. }) => continue,
                    other => written = other?,
                }
            }
            return Ok(Turned {
                record: written,
                effect,
                wake_at,
                looked_at,
                wish_version: upgrade.map_or(0, |upgrade| upgrade.wish_version),
            });
        }
        Err(PromotionError::Restless(name.to_owned()))
    }

    /// What of a decision the audit keeps: where it goes on, and where it ends, each with the evidence of that time.
    fn acts_of(&self, record: &PromotionRecord, status: &PromotionStatus, events: &[Event]) -> Vec<Act> {
        let told = events
            .iter()
            .filter(|event| !matches!(event.reason.as_str(), "PromotionWaiting"));
        told.map(|event| Act {
            evidence: status.bound.map(|bound| bound.evidence),
            ..self.act(
                &record.name,
                ENGINE,
                &event.reason,
                &format!("{}: {}", record.spec.build, event.message),
                event.at,
            )
        })
        .collect()
    }

    /// Its upgrade, once there is one.
    fn upgrade_of(&self, name: &str) -> Result<Option<UpgradeRecord>, StoreError> {
        let found = self.home.store().upgrade(name)?;
        Ok(found.filter(|upgrade| upgrade.spec.promotion.as_deref() == Some(name)))
    }

    /// Begins its upgrade, or finds that it was begun.
    ///
    /// # Errors
    /// The rules refuse it, or the state cannot be written.
    pub fn begin_upgrade(&self, record: &PromotionRecord) -> Result<UpgradeRecord, PromotionError> {
        let build = self.build(record)?;
        Ok(self.asked(record, &build)?.begin_promoted(&record.name)?)
    }

    /// The version of its build.
    ///
    /// # Errors
    /// The build is not in the state.
    pub fn version(&self, record: &PromotionRecord) -> Result<String, PromotionError> {
        Ok(self.build(record)?.version)
    }

    fn build(&self, record: &PromotionRecord) -> Result<BuildRef, PromotionError> {
        let known = KnownBuild::find(self.home, &record.spec.build)?;
        let known = known.ok_or_else(|| PromotionError::UnknownBuild(record.spec.build.clone()))?;
        Ok(known.spec.reference())
    }

    fn asked<'b>(&'b self, record: &'b PromotionRecord, build: &'b BuildRef) -> Result<Asked<'b>, PromotionError> {
        Ok(Asked {
            home: self.home,
            fleet: self.fleet,
            component: self.component()?,
            build,
            user: &record.spec.user,
        })
    }

    /// Does what was decided, but for a rehearsal, which needs a driver.
    ///
    /// # Errors
    /// The state cannot be written, or the rules refuse the upgrade.
    pub async fn carry_out(&self, turned: &Turned) -> Result<(), PromotionError> {
        // Who was stopped since looks again before anything is done.
        if Timestamp::now().duration_since(turned.looked_at) > LONGEST_LOOK {
            return Ok(());
        }
        match &turned.effect {
            None | Some(Effect::Rehearse(_)) => Ok(()),
            Some(Effect::Upgrade) => match self.begin_upgrade(&turned.record) {
                // What has come in between keeps it, and the next turn says so.
                Err(PromotionError::Session(
                    SessionError::Store(StoreError::NotPromoted { .. } | StoreError::Unfinished { .. })
                    | SessionError::Refused(Refusal::Quarantined { .. }),
                )) => Ok(()),
                begun => begun.map(|_| ()),
            },
            Some(Effect::Pause(upgrade)) => self.wish(upgrade, turned, Wish::Pause),
            Some(Effect::GoOn(upgrade)) => self.go_on(upgrade, turned).await,
        }
    }

    /// A pause that has not come to it is dropped; what is held is resumed, once its driver has let go.
    async fn go_on(&self, upgrade: &str, turned: &Turned) -> Result<(), PromotionError> {
        let held = self.home.store().upgrade(upgrade)?.filter(session::awaits_resume);
        if held.is_none() {
            return self.wish(upgrade, turned, Wish::Proceed);
        }
        if HeldLease::holder(self.home, &self.stage.environment)?.is_some() {
            return Ok(());
        }
        let lease = HeldLease::take(self.home, &self.stage.environment)?;
        let build = self.build(&turned.record)?;
        self.asked(&turned.record, &build)?.open(&lease).await?;
        Ok(())
    }

    fn wish(&self, upgrade: &str, turned: &Turned, wish: Wish) -> Result<(), PromotionError> {
        let record = &turned.record;
        let (subject, sinks) = (self.subject(&record.spec), delivery::sinks(self.fleet));
        let dispatch = report::dispatcher(self.home.store().home(), &subject, &sinks);
        let reason = match wish {
            Wish::Proceed => "PauseDropped",
            Wish::Pause | Wish::TimeUp | Wish::Abort => "PauseAsked",
        };
        let told = event(Timestamp::now(), reason, record.status.message.clone());
        match self
            .home
            .store()
            .set_wish(upgrade, wish, Some(turned.wish_version), ENGINE, &[told], &dispatch)
        {
            // It was quicker than the freeze, or somebody has said something else, which is not spoken over.
            Err(StoreError::Finished { .. } | StoreError::Conflict { .. }) => Ok(()),
            set => Ok(set.map(|_| ())?),
        }
    }
}

/// What becomes of a stored promotion.
#[derive(Debug, Clone)]
pub struct Change {
    /// What is asked from now on.
    pub spec: PromotionSpec,
    /// How far it is from now on.
    pub status: PromotionStatus,
    /// What is told.
    pub events: Vec<Event>,
    /// What the audit keeps.
    pub acts: Vec<Act>,
}

/// What came of a turn.
#[derive(Debug, Clone)]
pub struct Turned {
    /// The promotion as it is written now.
    pub record: PromotionRecord,
    /// What is to be done.
    pub effect: Option<Effect>,
    /// When to look again though nothing has changed.
    pub wake_at: Option<Timestamp>,
    /// What it was decided on is of then.
    looked_at: Timestamp,
    /// The last wish of its upgrade then.
    wish_version: u64,
}

impl Turned {
    fn ended(record: PromotionRecord) -> Self {
        Self {
            record,
            effect: None,
            wake_at: None,
            looked_at: Timestamp::now(),
            wish_version: 0,
        }
    }
}

impl Change {
    /// Nothing yet.
    #[must_use]
    pub fn of(record: &PromotionRecord) -> Self {
        Self {
            spec: record.spec.clone(),
            status: record.status.clone(),
            events: Vec::new(),
            acts: Vec::new(),
        }
    }
}

/// An event of a promotion that everybody hears of.
#[must_use]
pub fn event(at: Timestamp, reason: &str, message: String) -> Event {
    Event {
        at,
        reason: reason.to_owned(),
        severity: crate::model::upgrade::Severity::Step,
        node: None,
        message,
    }
}

fn upgrade_run(record: &UpgradeRecord) -> UpgradeRun {
    let status = &record.status;
    UpgradeRun {
        name: record.name.clone(),
        phase: status.phase,
        message: status.message.clone(),
        is_held_as_asked: status.phase == upgrade::Phase::Paused && status.reason == "ByUser",
        wish: record.spec.wish,
        is_in_batch: status.nodes.iter().any(|node| node.in_batch),
    }
}

fn to_value<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|e| StoreError::Unreadable {
        what: KIND.to_owned(),
        why: e.to_string(),
    })
}

/// Forgets promotions that ended long ago; the audit keeps what was decided.
///
/// # Errors
/// The state cannot be written.
pub fn prune(home: &Home) -> Result<(), StoreError> {
    let mut ended = PromotionRecord::all(home)?;
    ended.retain(|record| record.status.phase.is_final());
    ended.sort_by_key(|record| record.status.finished_at);
    let surplus = ended.len().saturating_sub(KEEP_FINISHED);
    for record in &ended[..surplus] {
        match home
            .store()
            .delete_resource(KIND, &record.name, Expect::Version(record.resource_version))
        {
            // Another process was quicker.
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

//! A turn of a promotion in the embedded home: read, decided, written if nobody has written meanwhile, and done.

use std::sync::Arc;

use jiff::Timestamp;

use super::facts::{self, Vouched};
use super::known::Known;
use super::record::{Change, PromotionRecord, event, subject, to_value};
use super::signatures::Verifier;
use super::way::{Way, way_of};
use super::{KIND, LONGEST_LOOK, PromotionError, TURNS};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::lease::HeldLease;
use crate::engine::session::{self, Asked, KnownBuild, Refusal, SessionError};
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::freeze::FreezeSpec;
use crate::model::pipeline::{PipelineSpec, Stage, Start};
use crate::model::promotion::{PromotionSpec, PromotionStatus};
use crate::model::upgrade::Wish;
use crate::promotion::obstacle::Facts;
use crate::promotion::{Decision, Effect, RehearsalRun};
use crate::report::{self, Subject};
use crate::store::{ENGINE, Expect, Put, Store as _, StoreError, UpgradeRecord, fresh_upgrade_name};
use crate::workspace::PromotionRules;

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

    /// Its stage, whichever home it is of.
    #[must_use]
    pub fn way(&self) -> Way<'a> {
        Way {
            fleet: self.fleet,
            name: self.name,
            pipeline: self.pipeline,
            stage: self.stage,
        }
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
        Ok(open.find(|record| record.spec.build == build && self.way().is_of(&record.spec)))
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
        let act = self.way().act(name, user, "PromotionAsked", &draft.spec.build, at);
        change.acts.insert(0, act);
        self.put(draft, &change, Expect::Absent)
    }

    /// Asks for what enters the stage by itself ([`Way::entering_by_itself`]).
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub fn ask_for_what_enters_by_itself(&self) -> Result<(), StoreError> {
        if self.stage.start != Start::Auto {
            return Ok(());
        }
        let known = Known::of(self.home, self.freezes, &self.stage.environment)?;
        for build in self.way().entering_by_itself(&known) {
            let draft = self.draft(self.way().by_itself(build, ENGINE.to_owned()))?;
            self.ask(&draft, "every stage before has verified it", Change::of(&draft))?;
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

    /// What is known now.
    ///
    /// # Errors
    /// The state, the files or a signature cannot be read.
    pub async fn facts(&self, record: &PromotionRecord, verifier: &Verifier) -> Result<Facts, PromotionError> {
        let known = Known::of(self.home, self.freezes, &self.stage.environment)?;
        facts::gather(&self.way(), self.home, &known, record, Vouched::Signed(verifier)).await
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
            let decision = self
                .way()
                .decide(&record, &facts, rehearsal, upgrade.as_ref(), looked_at);
            let acts = decision.events.iter();
            let acts = acts
                .filter_map(|event| self.way().act_of(&record, &decision, event))
                .collect();
            let Decision {
                status,
                effect,
                events,
                wake_at,
            } = decision;
            let mut written = record;
            if status != written.status {
                let change = Change {
                    acts,
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
            component: self.way().component()?,
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

//! A rehearsal carried out: every run with the disturbances going on beside it, and what came out compared with what must.

use std::sync::Arc;

use super::disturb::{DisturbError, Disturbances};
use super::fleet::Fleet;
use super::lease::HeldLease;
use super::session::{Asked, KnownBuild, Refusal, SessionError};
use crate::home::Home;
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::rehearsal::{Blamed, Disturbance, RehearsalSpec, unmet};
use crate::model::upgrade::Phase;
use crate::store::{StoreError, UpgradeRecord};

/// Who drives the upgrades of a rehearsal. A rehearsal drives itself, also where a server runs: its disturbances act on the nodes under
/// the same lease as the upgrade.
pub trait Driver {
    /// What may go wrong.
    type Error: From<SessionError> + From<DisturbError> + From<StoreError>;

    /// What goes on, for who watches.
    fn note(&self, line: &str);
    /// A build of the environment by `COMPONENT=VERSION`, which is in the state then.
    fn find(&self, wanted: &str) -> impl Future<Output = Result<(&Component, BuildRef), Self::Error>>;
    /// The environment's lease.
    fn lease(&self) -> impl Future<Output = Result<HeldLease, Self::Error>>;
    /// Opens an upgrade, unless it is asked to end first.
    fn open(&self, asked: &Asked<'_>, lease: &HeldLease) -> impl Future<Output = Result<UpgradeRecord, SessionError>>;
    /// Drives an upgrade until it settles, or until it is asked to end.
    fn drive(&self, record: &UpgradeRecord, lease: &HeldLease) -> impl Future<Output = Result<Driven, Self::Error>>;
}

/// How driving an upgrade ended.
#[derive(Debug)]
pub struct Driven {
    /// The upgrade then.
    pub record: UpgradeRecord,
    /// Its driver was asked to end.
    pub interrupted: bool,
}

/// What a quarantine from an earlier time means for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quarantined {
    /// The run did not come out as expected.
    IsUnmet,
    /// It was shown before; the refusal is told, and the run left out.
    WasShown,
}

/// One run's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The phase that it ended in, or `Refused`.
    pub phase: String,
    /// What came out otherwise.
    pub unmet: Vec<String>,
    /// Its upgrade.
    pub upgrade: Option<String>,
}

impl Ran {
    /// A run that a quarantine kept from taking place.
    fn refused(refusal: &Refusal, quarantined: Quarantined) -> Self {
        Self {
            phase: "Refused".to_owned(),
            unmet: match quarantined {
                Quarantined::IsUnmet => vec![refusal.to_string()],
                Quarantined::WasShown => Vec::new(),
            },
            upgrade: None,
        }
    }
}

/// What came out of a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Its runs, as far as they took place.
    pub runs: Vec<Ran>,
    /// What was to run before the first run and could not be brought there.
    pub began_elsewhere: Option<String>,
    /// Who drove it was asked to end.
    pub interrupted: bool,
}

impl Outcome {
    /// Whether all of it came out as it must.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        !self.interrupted && self.began_elsewhere.is_none() && self.runs.iter().all(|run| run.unmet.is_empty())
    }

    /// What came out otherwise, in words.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        if let Some(build) = &self.began_elsewhere {
            return Some(format!("{build} could not be brought there to start from"));
        }
        let unmet = self.runs.iter().find(|run| !run.unmet.is_empty())?;
        Some(format!("{}: {}", unmet.phase, unmet.unmet.join("; ")))
    }
}

/// A rehearsal that is to be carried out.
#[derive(Debug)]
pub struct Rehearsing<'a> {
    /// The home.
    pub home: &'a Home,
    /// Its environment.
    pub fleet: &'a Arc<Fleet>,
    /// What is rehearsed, by now of one version where it is for a candidate.
    pub spec: &'a RehearsalSpec,
    /// What a quarantine means for a run.
    pub quarantined: Quarantined,
}

impl Rehearsing<'_> {
    /// Carries out every run; one that comes out otherwise ends it, since the next one would begin on other ground than it says.
    ///
    /// # Errors
    /// A run cannot be begun or driven.
    pub async fn carry_out<D: Driver>(&self, driver: &D) -> Result<Outcome, D::Error> {
        let Self { spec, .. } = self;
        let mut outcome = Outcome::default();
        if let Some(build) = &spec.start_from {
            driver.note(&format!("{build}: to start from"));
            let (ran, _) = match self.run(driver, &[], build).await {
                Ok(both) => both,
                Err(NotRun::Quarantined(refusal)) => return Err(SessionError::from(refusal).into()),
                Err(NotRun::Error(error)) => return Err(error),
            };
            outcome.interrupted = ran.interrupted;
            if ran.interrupted || ran.record.status.phase != Phase::Succeeded {
                outcome.began_elsewhere = Some(build.clone()).filter(|_| !outcome.interrupted);
                return Ok(outcome);
            }
        }
        for run in &spec.runs {
            let build = &run.build;
            driver.note(&format!("{build}: expecting {:?}", run.expect.phase));
            let (ended, undone) = match self.run(driver, &spec.disturbances, build).await {
                Ok(both) => both,
                Err(NotRun::Quarantined(refusal)) => {
                    driver.note(&format!("refused: {refusal}"));
                    let ran = Ran::refused(&refusal, self.quarantined);
                    let stop = !ran.unmet.is_empty();
                    outcome.runs.push(ran);
                    if stop {
                        break;
                    }
                    continue;
                }
                Err(NotRun::Error(error)) => return Err(error),
            };
            if ended.interrupted {
                outcome.interrupted = true;
                return Ok(outcome);
            }
            let known = KnownBuild::find(self.home, &ended.record.spec.build)?;
            let is_quarantined = known.is_some_and(|b| b.status.quarantined_in(&spec.environment).is_some());
            let mut differs = unmet(&run.expect, &ended.record.status, Blamed::from(is_quarantined));
            differs.extend(undone.into_iter().map(|what| format!("disturbance {what}")));
            let stop = !differs.is_empty();
            outcome.runs.push(Ran {
                phase: format!("{:?}", ended.record.status.phase),
                unmet: differs,
                upgrade: Some(ended.record.name),
            });
            if stop {
                break;
            }
        }
        Ok(outcome)
    }

    /// Drives one run with the disturbances going on, and tells which of them did not take place.
    async fn run<D: Driver>(
        &self,
        driver: &D,
        disturbances: &[Disturbance],
        wanted: &str,
    ) -> Result<(Driven, Vec<String>), NotRun<D::Error>> {
        let Self { home, fleet, .. } = self;
        let (component, build) = driver.find(wanted).await.map_err(NotRun::Error)?;
        let lease = driver.lease().await.map_err(NotRun::Error)?;
        let disturbances = Disturbances::start(home, fleet, lease.token(), disturbances)?;
        let user = crate::settings::user();
        let asked = Asked {
            home,
            fleet,
            component,
            build: &build,
            user: &user,
        };
        let outcome = match driver.open(&asked, &lease).await {
            Ok(record) => driver.drive(&record, &lease).await.map_err(NotRun::Error),
            Err(SessionError::Refused(refusal @ Refusal::Quarantined { .. })) => Err(NotRun::Quarantined(refusal)),
            Err(refused) => Err(NotRun::Error(refused.into())),
        };
        let disturbed = disturbances.stop().await;
        for trouble in &disturbed.troubles {
            driver.note(&format!("disturbance: {trouble}"));
        }
        Ok((outcome?, disturbed.undone))
    }
}

/// Why a run did not take place.
enum NotRun<E> {
    /// Its build failed there before.
    Quarantined(Refusal),
    /// Something else.
    Error(E),
}

impl<E: From<DisturbError>> From<DisturbError> for NotRun<E> {
    fn from(error: DisturbError) -> Self {
        NotRun::Error(error.into())
    }
}

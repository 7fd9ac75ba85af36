//! An upgrade driven: refused, taken up, or gone on with as far as it goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::DynamicObject;

use super::heard::Which;
use super::leader::{Leader, Purpose, Trouble};
use crate::cluster::belonging::{Whose, upgrade_of_promotion};
use crate::cluster::ledger::{ObjectLedger, record};
use crate::cluster::objects::{Kind, Upgrade, name};
use crate::cluster::promotions::Promotion;
use crate::engine::Unreached;
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::giving_back::{self, Given, GivingBack, Keeping, Said, Since};
use crate::engine::interrupt::Interrupt;
use crate::engine::ledger::{Ledger as _, Write};
use crate::engine::provenance::Judged;
use crate::engine::session::{self, Driving, KnownBuild, Past, SessionError};
use crate::hosts::FencingToken;
use crate::model::promotion;
use crate::model::upgrade::{Event, Phase, Severity, UpgradeSpec, UpgradeStatus, Wish};
use crate::model::values::Digest;
use crate::promotion::freezes::holding;
use crate::promotion::obstacle::Obstacle;
use crate::rollout;
use crate::store::UpgradeRecord;

/// What the last of them may take, before the next upgrade of the environment is begun.
const LAST_EVENTS: Duration = Duration::from_secs(15);
/// Events of an upgrade that wait to become Kubernetes' own.
const EVENTS_AT_ONCE: usize = 256;

impl Leader {
    /// Drives one upgrade as far as it goes.
    pub(super) async fn drive(
        &self,
        upgrade: &str,
        environment: &str,
        ending: Interrupt,
        lost: Interrupt,
    ) -> Result<(), Trouble> {
        // What was heard of it may be older than its end.
        let Some(object) = self.fresh(Kind::Upgrade, upgrade).await? else {
            return Err(Trouble::Changed);
        };
        let now = Upgrade::read(object.clone())?;
        if now.status.phase.is_final() || now.stays_held() {
            return Err(Trouble::Changed);
        }
        let fleet = Arc::new(self.fleet(environment)?);
        let token = self.take(&fleet, Purpose::Upgrade).await?;
        let history = self.history(Some(&fleet));
        let losing = lost.clone();
        let ledger = ObjectLedger::open(self.objects(), history, upgrade, token.clone(), lost).await?;
        let record = ledger.record();
        if record.status.phase.is_final() {
            return Ok(());
        }
        let waits_to_reach = session::waits_to_reach(&record) && !ledger.is_asked_again();
        if record.status.phase.is_held() && record.spec.wish != Wish::Abort && !waits_to_reach {
            // What was heard of it may be older than what it is.
            if record.spec.wish != Wish::Proceed || !ledger.is_asked_again() {
                return Ok(());
            }
            let resumed = resume(&ledger).await?;
            self.publish_event(&object, &resumed).await;
        } else if let Some(taken_over) = ledger.claim(&self.me).await? {
            self.publish_event(&object, &taken_over).await;
        }
        let past = self.past(environment, self.listed_builds().await?);
        // Which image a build is, is asked of the home where a build has files, too.
        self.copy_builds(&fleet, &past.builds)?;
        if record.status.phase == Phase::Pending
            && let Some((reason, message)) = self.refusal(&object, &record.spec, &past, &fleet).await?
        {
            let refused = refuse(&ledger, (reason, self.in_cluster(&message).into_owned())).await?;
            self.publish_event(&object, &refused).await;
            return Ok(());
        }
        let (told, events) = tokio::sync::mpsc::channel(EVENTS_AT_ONCE);
        let tells_stderr = delivery::tells_stderr(&fleet);
        let record = ledger.record();
        let on_commit = |_: &UpgradeStatus, events: &[Event]| {
            for event in events {
                if !tells_stderr {
                    (self.tell)(&delivery::line(&record, event));
                }
                // Kubernetes keeps its events for an hour at best; the history has those that do not fit in here.
                let _ = told.try_send(event.clone());
            }
        };
        let driving = Driving {
            home: &self.home,
            fleet: &fleet,
            record: &record,
            past: &past,
            token: &token,
            ledger: &ledger,
            interrupt: ending,
            unreached: Unreached::StayedWith,
            on_commit: &on_commit,
        };
        let beside = self.disturb(&object, &fleet, &token).await?;
        let mut publishing = std::pin::pin!(self.publish_all(&object, events));
        let (mut said, keeping) = (
            Said::default(),
            Keeper {
                leader: self,
                fleet: &fleet,
                token: &token,
                lost: &losing,
            },
        );
        let ended = tokio::select! {
            ended = Box::pin(driving.run()) => ended,
            never = Box::pin(giving_back::beside(&keeping, &record.spec.component, &mut said)) => match never {},
            () = &mut publishing => return Ok(()),
        };
        drop(told);
        if let Some(beside) = beside {
            self.end_disturbing(beside, upgrade, ledger.record().status.phase).await;
        }
        // The history has them; Kubernetes' own are kept for an hour at best.
        if tokio::time::timeout(LAST_EVENTS, publishing).await.is_err() {
            tracing::warn!(upgrade, "its last Kubernetes Events were not written in time");
        }
        ended?;
        Ok(())
    }

    /// Gives back what these upgrades keep though they have ended. One that cannot now keeps no other one from it.
    pub(super) async fn give_back_all(
        &self,
        upgrades: &[String],
        environment: &str,
        lost: &Interrupt,
    ) -> Result<(), Trouble> {
        let mut kept = Ok(());
        for upgrade in upgrades {
            match self.give_back(upgrade, environment, lost.clone()).await {
                Err(why @ Trouble::NotGivenBack(_)) => kept = Err(why),
                other => other?,
            }
        }
        kept
    }

    async fn give_back(&self, upgrade: &str, environment: &str, lost: Interrupt) -> Result<(), Trouble> {
        let fleet = self.fleet(environment)?;
        let token = self.take(&fleet, Purpose::Upgrade).await?;
        self.give_back_under(upgrade, &fleet, &token, lost).await
    }

    async fn give_back_under(
        &self,
        upgrade: &str,
        fleet: &Fleet,
        token: &FencingToken,
        lost: Interrupt,
    ) -> Result<(), Trouble> {
        let Some(object) = self.fresh(Kind::Upgrade, upgrade).await? else {
            return Err(Trouble::Changed);
        };
        let history = self.history(Some(fleet));
        let ledger = ObjectLedger::open(self.objects(), history, upgrade, token.clone(), lost).await?;
        let record = ledger.record();
        let (told, events) = tokio::sync::mpsc::channel(EVENTS_AT_ONCE);
        let on_commit = |_: &UpgradeStatus, events: &[Event]| {
            for event in events {
                (self.tell)(&delivery::line(&record, event));
                let _ = told.try_send(event.clone());
            }
        };
        let giving = GivingBack {
            fleet,
            token,
            record: &record,
            ledger: &ledger,
            on_commit: &on_commit,
        };
        let given = giving.attempt(Since::Before).await.map_err(SessionError::from)?;
        drop(told);
        self.publish_all(&object, events).await;
        match given {
            Given::Back => Ok(()),
            Given::Kept(why) => Err(Trouble::NotGivenBack(why)),
        }
    }

    pub(super) fn past(&self, environment: &str, builds: BTreeMap<String, KnownBuild>) -> Past {
        let all = self.heard.upgrades_of(environment, Which::All);
        let read = all.iter().filter_map(|object| Upgrade::read((**object).clone()).ok());
        let mut upgrades: Vec<UpgradeRecord> = read.map(|upgrade| record(&upgrade, 1)).collect();
        upgrades.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        Past { builds, upgrades }
    }

    /// What keeps its build out. It is judged here and told by a look at the build, which is made again where it fails: an upgrade does
    /// not wait for what is only said.
    async fn refusal(
        &self,
        object: &DynamicObject,
        spec: &UpgradeSpec,
        past: &Past,
        fleet: &Fleet,
    ) -> Result<Option<(&'static str, String)>, Trouble> {
        let Some(component) = fleet.environment.component(&spec.component) else {
            let why = format!("environment {} has no component {}", spec.environment, spec.component);
            return Ok(Some(("NoSuchComponent", why)));
        };
        let Some(build) = past.builds.get(&spec.build) else {
            return Ok(None);
        };
        if build.spec.component != spec.component {
            let why = format!(
                "build {} is one of {}, not of {}",
                spec.build, build.spec.component, spec.component
            );
            return Ok(Some(("OtherComponent", why)));
        }
        let judged = Judged::new(&self.home, &fleet.workspace, &build.spec);
        if let Some(hooks) = judged.condition(Timestamp::now()).await {
            self.is_judged(&spec.build, hooks);
        }
        let refusal = match &spec.promotion {
            Some(promotion) => match self.refused_promotion(object, promotion).await? {
                Some(why) => return Ok(Some(("NotPromoted", why))),
                // What keeps a build out was looked for by who decided it, but for a quarantine, which nothing passes over.
                None => past.quarantine(&build.spec.digest, &spec.environment),
            },
            None => match session::refusal_by(past, fleet, component, &judged).await {
                Some(refusal) => Some(refusal),
                None => self.past_promotion(spec, &build.spec.digest, past, fleet).await?,
            },
        };
        let Some(refusal) = refusal else { return Ok(None) };
        let reason = match &refusal {
            session::Refusal::Quarantined { .. } => "Quarantined",
            session::Refusal::Lacking { .. } => "Lacking",
            session::Refusal::Protected { .. } => "Protected",
            session::Refusal::Frozen { .. } => "Frozen",
            session::Refusal::Held { .. }
            | session::Refusal::OtherUpgrade { .. }
            | session::Refusal::Serving { .. }
            | session::Refusal::NothingUnderWay { .. }
            | session::Refusal::NothingToRetry { .. }
            | session::Refusal::NothingToUndo { .. } => "Refused",
        };
        Ok(Some((reason, refusal.to_string())))
    }

    /// Why an upgrade is none of the promotion that it names: who makes one writes into it what they like.
    async fn refused_promotion(&self, upgrade: &DynamicObject, named: &str) -> Result<Option<String>, Trouble> {
        let Some(object) = self.fresh(Kind::Promotion, named).await? else {
            return Ok(Some(format!("there is no Promotion {named}")));
        };
        let promotion = Promotion::read(object)?;
        let rules = self.rules().await?;
        // Where its way is no more, nothing is to be waited for: what was not begun is asked for again.
        let (_, pipeline, stage) = match rules.way_of(&promotion.record) {
            Ok(way) => way,
            Err(why) => return Ok(Some(why.to_string())),
        };
        if let Whose::Anothers(why) =
            upgrade_of_promotion(&promotion, pipeline, stage, &Upgrade::read(upgrade.clone())?)
        {
            return Ok(Some(why));
        }
        match promotion.record.status.phase {
            promotion::Phase::Upgrading => Ok(None),
            promotion::Phase::Waiting | promotion::Phase::Rehearsing => {
                Err(Trouble::WaitsForPromotion(named.to_owned()))
            }
            promotion::Phase::Succeeded
            | promotion::Phase::Failed
            | promotion::Phase::Rejected
            | promotion::Phase::Cancelled => Ok(Some(format!("Promotion {named} has ended"))),
        }
    }

    /// What holds for an upgrade that is no promotion's: a protected environment takes none, and one that a freeze holds takes back alone what
    /// ran there.
    async fn past_promotion(
        &self,
        spec: &UpgradeSpec,
        digest: &Digest,
        past: &Past,
        fleet: &Fleet,
    ) -> Result<Option<session::Refusal>, Trouble> {
        let environment = &spec.environment;
        if fleet.environment.spec.protected {
            return Ok(Some(session::Refusal::Protected {
                environment: environment.clone(),
                build: spec.build.clone(),
            }));
        }
        if past.is_way_back(environment, &spec.component, digest, Timestamp::MAX) {
            return Ok(None);
        }
        let frozen = holding(&self.rules().await?.usable.freezes, environment, Timestamp::now()).pop();
        Ok(frozen.map(|frozen| session::Refusal::Frozen {
            environment: environment.clone(),
            why: Obstacle::Frozen(frozen.clone()).to_string(),
            freeze: frozen.name,
        }))
    }
}

/// What ended upgrades of a cluster's environment keep while it is driven.
struct Keeper<'a> {
    leader: &'a Leader,
    fleet: &'a Fleet,
    token: &'a FencingToken,
    lost: &'a Interrupt,
}

impl Keeping for Keeper<'_> {
    fn kept(&self) -> Result<Vec<UpgradeRecord>, String> {
        let heard = &self.leader.heard;
        let all = heard.upgrades_of(&self.fleet.environment.name, Which::Undone);
        let read = all.iter().filter_map(|object| Upgrade::read((**object).clone()).ok());
        let kept = read.filter(|upgrade| upgrade.status.phase.is_final() && !upgrade.status.is_over());
        // By the name that people know it by there.
        let named = kept.map(|upgrade| UpgradeRecord {
            name: name(&upgrade.object).to_owned(),
            ..record(&upgrade, 1)
        });
        Ok(named.collect())
    }

    async fn give_back(&self, record: &UpgradeRecord) -> Result<Given, String> {
        let Self { fleet, token, .. } = *self;
        match self
            .leader
            .give_back_under(&record.name, fleet, token, self.lost.clone())
            .await
        {
            Ok(()) => Ok(Given::Back),
            Err(Trouble::NotGivenBack(why)) => Ok(Given::Kept(why)),
            Err(other) => Err(other.to_string()),
        }
    }
}

/// Ends an upgrade that may not be begun. Nothing was touched.
async fn refuse(ledger: &ObjectLedger, (reason, message): (&'static str, String)) -> Result<Event, Trouble> {
    let loaded = ledger.load().await?;
    let now = Timestamp::now();
    let status = rollout::refuse(&loaded.status, reason, &message, now)?;
    let event = Event {
        at: now,
        reason: "Refused".to_owned(),
        severity: Severity::Alert,
        node: None,
        message,
    };
    written(ledger, loaded.version, &status, event).await
}

/// Goes on with a held upgrade, which somebody has asked for since.
async fn resume(ledger: &ObjectLedger) -> Result<Event, Trouble> {
    let loaded = ledger.load().await?;
    let (status, event) = session::resumed(&loaded.status, Timestamp::now()).map_err(SessionError::from)?;
    written(ledger, loaded.version, &status, event).await
}

/// Writes what was decided here and not by the rules of an upgrade.
async fn written(ledger: &ObjectLedger, version: u64, status: &UpgradeStatus, event: Event) -> Result<Event, Trouble> {
    let write = Write {
        version,
        status,
        events: std::slice::from_ref(&event),
        builds: &[],
    };
    ledger.commit(write).await?;
    Ok(event)
}

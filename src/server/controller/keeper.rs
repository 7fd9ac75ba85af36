//! A controller as what keeps a replica: what is remembered of one lies in the status of its Environment, and what happens to it goes
//! into the history, to the environment's sinks, and into Kubernetes' own events.

use std::ops::ControlFlow;

use futures::future::{FutureExt as _, LocalBoxFuture};
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use super::heard::Which;
use super::leader::{Leader, Trouble};
use super::statuses::{condition, status_of};
use crate::cluster::ledger::record;
use crate::cluster::objects::{
    ATTEMPTS, Fits, Kind, LONGEST_STATUS, Upgrade, fit, generation, patiently, set_condition, write_status,
};
use crate::cluster::replica::{Left, OnWrite, ReplicaError};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::replica::{self, KeepError, Keeper, OfFleet, Remembered};
use crate::model::upgrade::{Event, Severity};
use crate::store::build::ConditionStatus;

/// Where its time is over, and nobody has asked for it anew.
pub(super) const EXPIRED: &str = "Expired";
/// And of one whose time is over and that could not be taken down.
pub(super) const EXPIRE_REFUSED: &str = "ExpireRefused";

/// What is remembered of the replica of an Environment; nothing where none stands.
pub(super) fn remembered(object: &DynamicObject) -> Option<Remembered> {
    let stated = object.data["status"].get("replica").filter(|value| value.is_object())?;
    // One of another version is found anew by its label.
    Some(serde_json::from_value(stated.clone()).unwrap_or_default())
}

/// One environment's.
pub(super) struct ObjectKeeper<'a> {
    leader: &'a Leader,
    fleet: &'a Fleet,
    lost: &'a Interrupt,
    on_write: Box<OnWrite<'a>>,
}

impl<'a> ObjectKeeper<'a> {
    pub(super) fn new(leader: &'a Leader, fleet: &'a Fleet, ending: &'a Interrupt, lost: &'a Interrupt) -> Self {
        Self {
            leader,
            fleet,
            lost,
            on_write: Box::new(move |_| going_on(ending, lost)),
        }
    }

    fn name(&self) -> &str {
        &self.fleet.environment.name
    }

    fn unwritten(&self, why: &impl ToString) -> KeepError {
        KeepError::Unwritten {
            environment: self.name().to_owned(),
            why: why.to_string(),
        }
    }

    /// The history first: an event is told twice rather than never.
    async fn write(
        &self,
        remembered: Value,
        standing: Option<Standing<'_>>,
        events: &[Event],
    ) -> Result<(), KeepError> {
        if self.lost.is_set() {
            return Err(KeepError::Overtaken(self.name().to_owned()));
        }
        let told = delivery::append(&self.leader.home, self.fleet, &self.leader.me, events);
        told.map_err(|why| self.unwritten(&why))?;
        let written = self.leader.write_replica(self.name(), &remembered, standing).await;
        let object = written.map_err(|why| self.unwritten(&why))?;
        for event in events {
            (self.leader.tell)(&format!("{}: {}", self.name(), event.message));
            let kind = match event.severity {
                Severity::Step => EventType::Normal,
                Severity::Alert => EventType::Warning,
            };
            self.leader
                .publish(&object, Kind::Environment, kind, &event.reason, &event.message)
                .await;
        }
        Ok(())
    }
}

/// Why an environment is ready no more.
#[derive(Debug, Clone, Copy)]
struct Standing<'a> {
    reason: &'static str,
    message: &'a str,
}

impl Keeper for ObjectKeeper<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn on_write(&self) -> &OnWrite<'_> {
        &*self.on_write
    }

    /// Whoever leads does one thing at a time with an environment, and this is it; what is left are upgrades that are held.
    fn is_free(&self) -> Result<bool, KeepError> {
        let undone = self.leader.heard.upgrades_of(self.name(), Which::Undone);
        let open = undone.iter().any(|object| {
            let phase = &object.data["status"]["phase"];
            let begun = phase.is_string() && phase != "Pending";
            let upgrade = Upgrade::read((**object).clone());
            begun && upgrade.is_ok_and(|upgrade| !upgrade.status.is_over())
        });
        Ok(!open && !self.lost.is_set())
    }

    /// While this is under way, no upgrade of the environment is begun, so nobody has upgraded it since it was read.
    fn alone<'k, T: 'k>(&'k self, work: LocalBoxFuture<'k, T>) -> LocalBoxFuture<'k, Result<Option<T>, KeepError>> {
        async move {
            if self.is_free()? {
                Ok(Some(work.await))
            } else {
                Ok(None)
            }
        }
        .boxed_local()
    }

    fn remember<'k>(
        &'k self,
        remembered: &'k Remembered,
        events: &'k [Event],
    ) -> LocalBoxFuture<'k, Result<(), KeepError>> {
        self.write(json!(remembered), None, events).boxed_local()
    }

    fn has_ended<'k>(&'k self, events: &'k [Event]) -> LocalBoxFuture<'k, Result<(), KeepError>> {
        let gone = Standing {
            reason: EXPIRED,
            message: "its time was over, and its objects are gone; change its spec, or make it anew, to bring it back",
        };
        self.write(Value::Null, Some(gone), events).boxed_local()
    }
}

impl Leader {
    /// The replica that an environment's files state, with what is remembered of it.
    pub(super) async fn replica(&self, fleet: &Fleet) -> Result<Option<(OfFleet, Remembered)>, Trouble> {
        if fleet.environment.spec.target.is_none() {
            return Ok(None);
        }
        let environment = &fleet.environment.name;
        let object = self.fresh(Kind::Environment, environment).await?;
        let remembered = object.as_ref().and_then(remembered).unwrap_or_default();
        let all = self.heard.upgrades_of(environment, Which::All);
        let read = all.iter().filter_map(|object| Upgrade::read((**object).clone()).ok());
        let mut upgrades: Vec<_> = read.map(|upgrade| record(&upgrade, 1)).collect();
        upgrades.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        let of = OfFleet::connect(fleet, &self.home_uid, &upgrades, &remembered).await?;
        Ok(of.map(|of| (of, remembered)))
    }

    /// Looks after a replica that stands, or takes it down when its time is over; of what is none, at what its pods run.
    pub(super) async fn keep_replica(
        &self,
        environment: &str,
        ending: &Interrupt,
        lost: &Interrupt,
    ) -> Result<(), Trouble> {
        let fleet = self.fleet(environment)?;
        let keeper = ObjectKeeper::new(self, &fleet, ending, lost);
        let object = self.fresh(Kind::Environment, environment).await?;
        let kept = object.as_ref().and_then(remembered).unwrap_or_default();
        if kept.expires_at.is_some_and(|at| at <= keeper.now()) {
            let replica = replica::by_record(environment, &self.home_uid, &kept).await?;
            return match replica::expire(&replica, &kept, &keeper).await {
                Err(KeepError::Replica(why)) if !matches!(why, ReplicaError::Interrupted) => {
                    match replica::unexpired(kept, &why.to_string(), keeper.now()) {
                        Some((kept, event)) => {
                            let refused = Standing {
                                reason: EXPIRE_REFUSED,
                                message: &event.message,
                            };
                            let told = [event.clone()];
                            Ok(keeper.write(json!(kept), Some(refused), &told).await?)
                        }
                        None => Err(why.into()),
                    }
                }
                ended => Ok(ended?),
            };
        }
        let Some((of, remembered)) = self.replica(&fleet).await? else {
            return Box::pin(self.look_at_pods(&fleet)).await;
        };
        Ok(replica::look_after(&of, remembered, &keeper).await?)
    }

    /// Deletes a replica's objects, where some stand: its Environment is deleted, or states none any more. Its files are not asked: they
    /// may be gone with its base, or name another place by now.
    pub(super) async fn take_down(
        &self,
        environment: &str,
        ending: &Interrupt,
        lost: &Interrupt,
    ) -> Result<(), Trouble> {
        let object = self.fresh(Kind::Environment, environment).await?;
        let Some(remembered) = object.as_ref().and_then(remembered) else {
            return Ok(());
        };
        let on_write = |_: &str| going_on(ending, lost);
        let replica = replica::by_record(environment, &self.home_uid, &remembered).await?;
        replica.take_down(Left::Nothing, &on_write).await?;
        if lost.is_set() {
            return Err(Trouble::Changed);
        }
        self.write_replica(environment, &Value::Null, None).await?;
        Ok(())
    }

    /// Writes what is remembered of a replica into its Environment, and with a reason that it is ready no more.
    async fn write_replica(
        &self,
        environment: &str,
        remembered: &Value,
        standing: Option<Standing<'_>>,
    ) -> Result<DynamicObject, Trouble> {
        let api = self.api(Kind::Environment);
        for _ in 0..ATTEMPTS {
            let Some(object) = self.fresh(Kind::Environment, environment).await? else {
                return Err(Trouble::Changed);
            };
            let mut status = status_of(&object);
            status["replica"] = remembered.clone();
            if let Some(Standing { reason, message }) = standing {
                let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
                let ready = condition("Ready", ConditionStatus::False, reason, message);
                set_condition(&mut all, generation(&object), ready);
                status["conditions"] = json!(all);
            }
            if fit(&mut status, LONGEST_STATUS) == Fits::No {
                // What is otherwise, and where, is more than an object holds; that it is kept, and until when, fits.
                status["replica"]["sight"] = Value::Null;
            }
            if status == status_of(&object) {
                return Ok(object);
            }
            match patiently(|| write_status(&api, &object, status.clone())).await {
                Err(why) if why.is_conflict() => {}
                written => return Ok(written?),
            }
        }
        Err(Trouble::Contended(format!("Environment {environment}")))
    }
}

fn going_on(ending: &Interrupt, lost: &Interrupt) -> ControlFlow<()> {
    if ending.is_set() || lost.is_set() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

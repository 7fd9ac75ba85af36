//! What is said in the status of an object, and what becomes an Event of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::events::{Event as ApiEvent, EventType};
use serde_json::{Value, json};

use super::acts::heard_again;
use super::leader::{Leader, Trouble};
use super::look::Version;
use crate::cluster::ledger::{untold, whole};
use crate::cluster::objects::{
    self, ATTEMPTS, ApiError, Kept, Kind, LONGEST_NOTE, Upgrade, asked, conditions, generation, is_deleted, is_kept,
    keep, patiently, set_condition, write_status,
};
use crate::model::upgrade::{Event, Phase, Severity, UpgradeStatus};
use crate::rollout;
use crate::store::build::{Condition, ConditionStatus};

/// Characters of an action of an Event that an API server takes.
const LONGEST_ACTION: usize = 128;
/// Characters of a message in a condition that an API server takes; what is longer is in the log.
pub(super) const LONGEST_MESSAGE: usize = 8_192;
/// An upgrade of which nothing can be made here.
const UNREADABLE: &str = "Unreadable";

impl Leader {
    /// Says of an environment whether it can be used, as that generation of it states it.
    pub(super) async fn tell_environment(
        &self,
        environment: &str,
        of: i64,
        ready: ConditionStatus,
        reason: &str,
        message: &str,
    ) -> Result<(), ApiError> {
        self.tell(environment, of, &json!({}), (ready, reason, message)).await
    }

    /// The same as what came of bringing it up. In one write with that stands what it answers, so that it is asked once, whoever leads.
    pub(super) async fn tell_outcome(
        &self,
        environment: &str,
        of: &Version,
        ready: ConditionStatus,
        reason: &str,
        message: &str,
    ) -> Result<(), ApiError> {
        let mut answer = json!({});
        if let Some(asked) = &of.reconcile_at {
            answer["lastHandledReconcileAt"] = json!(asked);
        }
        if let Some(digest) = &of.templates {
            answer["templates"] = json!(digest);
        }
        self.tell(environment, of.generation, &answer, (ready, reason, message))
            .await
    }

    async fn tell(
        &self,
        environment: &str,
        of: i64,
        answer: &Value,
        (ready, reason, message): (ConditionStatus, &str, &str),
    ) -> Result<(), ApiError> {
        let message = &*self.in_cluster(message);
        let told = |object: &DynamicObject| {
            let mut status = status_of(object);
            let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
            set_condition(&mut all, of, condition("Ready", ready, reason, message));
            status["conditions"] = json!(all);
            status["observedGeneration"] = json!(of);
            for (key, value) in answer.as_object().into_iter().flatten() {
                status[key] = value.clone();
            }
            (status != status_of(object)).then_some(status)
        };
        let heard = self.heard.environment(environment);
        if heard.is_some_and(|heard| told(&heard).is_none()) {
            return Ok(());
        }
        let api = self.api(Kind::Environment);
        for _ in 0..ATTEMPTS {
            let Some(object) = self.fresh(Kind::Environment, environment).await? else {
                return Ok(());
            };
            let Some(status) = told(&object) else {
                return Ok(());
            };
            match patiently(|| write_status(&api, &object, status.clone())).await {
                Err(why) if why.is_conflict() => {}
                Err(why) => return heard_again(Err(why)),
                Ok(_) => {
                    let kind = match ready {
                        ConditionStatus::True => EventType::Normal,
                        ConditionStatus::False | ConditionStatus::Unknown => EventType::Warning,
                    };
                    self.publish(&object, Kind::Environment, kind, reason, message).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Says of an object that states rules whether they can be used. That it could not be said is no reason to use them otherwise.
    pub(super) async fn tell_usable(&self, kind: Kind, object: &DynamicObject, wrong: Option<&String>, usable: &str) {
        let ready = match wrong {
            None => condition("Ready", ConditionStatus::True, "Usable", usable),
            Some(why) => condition(
                "Ready",
                ConditionStatus::False,
                "Invalid",
                &shortened(why, LONGEST_MESSAGE),
            ),
        };
        let mut status = status_of(object);
        let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
        set_condition(&mut all, generation(object), ready);
        status["conditions"] = json!(all);
        status["observedGeneration"] = json!(generation(object));
        if status != status_of(object)
            && let Err(why) = write_status(&self.api(kind), object, status).await
            && !(why.is_conflict() || why.is_gone())
        {
            tracing::warn!(%why, "it is not said whether {} can be used", objects::named(object));
        }
    }

    /// A text for who reads it in an object: commands are called as they are called there.
    pub(super) fn in_cluster<'t>(&self, text: &'t str) -> Cow<'t, str> {
        (self.phrase)(text, &self.namespace)
    }

    /// As it is now, and not as it was heard of last.
    pub(super) async fn fresh(&self, kind: Kind, name: &str) -> Result<Option<DynamicObject>, ApiError> {
        let (what, api) = (format!("{kind:?} {name}"), self.api(kind));
        patiently(|| asked("read", &what, api.get_opt(name))).await
    }

    pub(super) async fn publish(&self, object: &DynamicObject, kind: Kind, type_: EventType, reason: &str, note: &str) {
        self.published(object, kind, type_, (reason, reason), note).await;
    }

    pub(super) async fn published(
        &self,
        object: &DynamicObject,
        kind: Kind,
        type_: EventType,
        (reason, action): (&str, &str),
        note: &str,
    ) {
        let event = ApiEvent {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(note, LONGEST_NOTE)),
            action: shortened(action, LONGEST_ACTION),
            secondary: None,
        };
        let reference = objects::reference(object, kind);
        if let Err(why) = asked(
            "write an event of",
            &objects::named(object),
            self.recorder.publish(&event, &reference),
        )
        .await
        {
            tracing::warn!(%why, "the history has it all the same");
        }
    }

    /// Publishes what happened in an upgrade, in order, until nobody has anything more to say.
    pub(super) async fn publish_all(&self, object: &DynamicObject, mut events: tokio::sync::mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            self.publish_event(object, &event).await;
        }
    }

    /// Publishes what happened in an upgrade.
    pub(super) async fn publish_event(&self, object: &DynamicObject, event: &Event) {
        let kind = match event.severity {
            Severity::Step => EventType::Normal,
            Severity::Alert => EventType::Warning,
        };
        // Kubernetes counts events of one reason and action as one.
        let action = event.node.as_deref().unwrap_or(&event.reason);
        self.published(object, Kind::Upgrade, kind, (&event.reason, action), &event.message)
            .await;
    }

    /// A build was judged, which is to be said of it.
    pub(super) fn is_judged(&self, build: &str, condition: Condition) {
        self.judged().insert(build.to_owned(), condition);
        self.heard.look_at_build(build);
    }

    fn judged(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of a build what was judged of it last, if that is not said yet.
    pub(super) async fn tell_judged(&self, build: &str) -> Result<(), Trouble> {
        let Some(judged) = self.judged().get(build).cloned() else {
            return Ok(());
        };
        self.write_judged(build, &judged).await?;
        let mut all = self.judged();
        if all.get(build) == Some(&judged) {
            all.remove(build);
        }
        Ok(())
    }

    async fn write_judged(&self, build: &str, judged: &Condition) -> Result<(), Trouble> {
        let api = self.api(Kind::Build);
        for _ in 0..ATTEMPTS {
            let Some(object) = self.fresh(Kind::Build, build).await? else {
                return Ok(());
            };
            let mut status = status_of(&object);
            let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
            let mut told = judged.clone();
            told.message = shortened(&told.message, LONGEST_MESSAGE);
            set_condition(&mut all, generation(&object), told);
            status["conditions"] = json!(all);
            if status == status_of(&object) {
                return Ok(());
            }
            match patiently(|| write_status(&api, &object, status.clone())).await {
                Err(why) if why.is_conflict() => {}
                written => return Ok(written.map(|_| ())?),
            }
        }
        Err(Trouble::Contended(format!("Build {build}")))
    }

    /// Of a build that is no more nothing is said.
    pub(super) fn is_judged_no_more(&self, build: &str) {
        self.judged().remove(build);
    }

    /// Writes into an upgrade that cannot be read why, and leaves the rest of its status as it is.
    pub(super) async fn tell_unreadable(&self, object: &DynamicObject, why: &str) -> Result<(), Trouble> {
        let (before, of, why) = (status_of(object), generation(object), shortened(why, LONGEST_MESSAGE));
        let mut status = before.clone();
        let mut all: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
        for kind in ["Ready", "Progressing"] {
            set_condition(&mut all, of, condition(kind, ConditionStatus::False, UNREADABLE, &why));
        }
        status["conditions"] = json!(all);
        if status == before {
            return Ok(());
        }
        match write_status(&self.api(Kind::Upgrade), object, status).await {
            Ok(_) => {
                self.publish(object, Kind::Upgrade, EventType::Warning, UNREADABLE, &why)
                    .await;
                Ok(())
            }
            Err(why) => Ok(heard_again(Err(why))?),
        }
    }

    /// Writes into an upgrade that is not driven why it is not. Conflicts are left to the next look.
    pub(super) async fn tell_upgrade(&self, upgrade: &Upgrade, reason: &str, message: &str) -> Result<(), Trouble> {
        let (mut status, mut book) = (upgrade.status.clone(), upgrade.book.clone());
        let message = shortened(&self.in_cluster(message), LONGEST_MESSAGE);
        if status.phase == Phase::Pending {
            reason.clone_into(&mut status.reason);
            message.clone_into(&mut status.message);
        }
        conditions(&mut book, &status, generation(&upgrade.object), Timestamp::now());
        if status.phase != Phase::Pending {
            let stuck = condition("Progressing", ConditionStatus::False, reason, &message);
            set_condition(&mut book.conditions, generation(&upgrade.object), stuck);
        }
        // One that is set to and fro within this has not changed.
        for new in &mut book.conditions {
            let mut before = upgrade.book.conditions.iter();
            if let Some(old) = before.find(|old| old["type"] == new["type"] && old["status"] == new["status"]) {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
        }
        if book.conditions == upgrade.book.conditions && status == upgrade.status {
            return Ok(());
        }
        book.writes += 1;
        match write_status(&self.api(Kind::Upgrade), &upgrade.object, whole(&status, &book)?).await {
            Ok(_) => {
                let (object, kind) = (&upgrade.object, Kind::Upgrade);
                self.publish(object, kind, EventType::Warning, reason, &message).await;
                Ok(())
            }
            Err(why) => Ok(heard_again(Err(why))?),
        }
    }

    /// Ends an upgrade that has not begun, as its wish says. Nothing was touched.
    pub(super) async fn end_aborted(&self, upgrade: &Upgrade) -> Result<(), Trouble> {
        let mut status = upgrade.status.clone();
        let now = Timestamp::now();
        status.phase = rollout::transition(status.phase, Phase::Aborted)?;
        "Aborted".clone_into(&mut status.reason);
        "it was aborted before it began; nothing was changed".clone_into(&mut status.message);
        status.since = now;
        status.finished_at = Some(now);
        self.end_unbegun(upgrade, &status, "Aborted").await
    }

    /// Ends an upgrade that this version of its environment has no place for, unless there is a newer one, or its build is there after all:
    /// what is applied together is heard of one after the other, and a watch may be minutes behind.
    pub(super) async fn refuse_unbegun(
        &self,
        upgrade: &Upgrade,
        environment: &DynamicObject,
        reason: &'static str,
        message: &str,
    ) -> Result<(), Trouble> {
        let fresh = self.fresh(Kind::Environment, objects::name(environment)).await?;
        if fresh.is_none_or(|fresh| generation(&fresh) != generation(environment)) {
            return Ok(());
        }
        if self.is_there_unheard(&upgrade.spec.build).await? {
            // Its watch tells of it, or the next look at all does.
            return Ok(());
        }
        let status = rollout::refuse(&upgrade.status, reason, &self.in_cluster(message), Timestamp::now())?;
        self.end_unbegun(upgrade, &status, "Refused").await
    }

    /// Whether there is a build that was not heard of yet.
    async fn is_there_unheard(&self, build: &str) -> Result<bool, ApiError> {
        Ok(self.heard.build(build).is_none() && self.fresh(Kind::Build, build).await?.is_some())
    }

    async fn end_unbegun(
        &self,
        upgrade: &Upgrade,
        status: &UpgradeStatus,
        reason: &'static str,
    ) -> Result<(), Trouble> {
        let mut book = upgrade.book.clone();
        conditions(&mut book, status, generation(&upgrade.object), Timestamp::now());
        book.observed_generation = generation(&upgrade.object);
        book.writes += 1;
        book.told += 1;
        book.pending.push(objects::Pending {
            seq: book.told,
            event: Event {
                at: status.since,
                reason: reason.to_owned(),
                severity: Severity::Alert,
                node: None,
                message: status.message.clone(),
            },
            act: None,
        });
        match write_status(&self.api(Kind::Upgrade), &upgrade.object, whole(status, &book)?).await {
            Ok(_) => {
                let (object, kind) = (&upgrade.object, Kind::Upgrade);
                self.publish(object, kind, EventType::Warning, reason, &status.message)
                    .await;
                Ok(())
            }
            Err(why) => Ok(heard_again(Err(why))?),
        }
    }

    /// What is left to do for an upgrade that has ended: its last events go into the history, and it may be deleted.
    pub(super) async fn finish(&self, upgrade: &Upgrade) -> Result<(), Trouble> {
        if !upgrade.book.pending.is_empty() {
            // Its environment says who is told, and may be readable again later; of one that is gone the history alone is left.
            let fleet = match self.heard.environment(&upgrade.spec.environment) {
                Some(_) => Some(self.fleet(&upgrade.spec.environment)?),
                None => None,
            };
            self.history(fleet.as_ref()).copy(&untold(upgrade))?;
            let mut book = upgrade.book.clone();
            book.pending.clear();
            book.writes += 1;
            let status = whole(&upgrade.status, &book)?;
            let written = write_status(&self.api(Kind::Upgrade), &upgrade.object, status).await;
            return Ok(heard_again(written.map(|_| ()))?);
        }
        if is_deleted(&upgrade.object) && is_kept(&upgrade.object) {
            heard_again(keep(&self.api(Kind::Upgrade), &upgrade.object, Kept::NoMore).await)?;
        }
        Ok(())
    }
}

pub(super) fn status_of(object: &DynamicObject) -> Value {
    match &object.data["status"] {
        Value::Null => json!({}),
        status => status.clone(),
    }
}

pub(super) fn condition(kind: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Timestamp::now(),
    }
}

pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most - 1) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

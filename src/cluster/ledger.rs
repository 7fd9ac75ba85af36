//! An upgrade written down in its object on an API server. Status and events are one write of its status, under the
//! `resourceVersion` that was decided from; the events are copied into the history on the volume beside after that, once each,
//! and leave the status with the next write.
//!
//! A status names the fence that it was written under. A driver that is not the environment's any more finds a newer one there,
//! since whoever takes an environment writes that first ([`ObjectLedger::claim`]).

use std::cell::RefCell;
use std::time::Duration;

use futures::future::{FutureExt as _, LocalBoxFuture};
use jiff::Timestamp;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::reflector::{ObjectRef, Store as Cache};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::history::{History, Untold};
use super::objects::{
    self, ATTEMPTS, ApiError, Fence, Fits, Kind, LONGEST_STATUS, Pending, Upgrade, asked, conditions, fit, generation,
    name, part, write_status,
};
use crate::engine::interrupt::Interrupt;
use crate::engine::ledger::{Ledger, Write};
use crate::engine::session;
use crate::engine::{CommitError, Loaded};
use crate::hosts::FencingToken;
use crate::model::upgrade::{Event, Severity, UpgradeStatus};
use crate::store::random_id;
use crate::store::{BuildChange, BuildStatus, UpgradeRecord};

/// Events that wait for their copy: of an upgrade of a hundred nodes about a tenth. Beyond it the history cannot be written, and an
/// upgrade that nobody would hear of does not go on.
const MOST_PENDING: usize = 200;
/// A watch that has died says nothing for up to five minutes: a wish is heard within this all the same.
const READ_EVERY: Duration = Duration::from_secs(30);

/// Where upgrades are written to.
#[derive(Clone)]
pub struct Objects {
    /// Upgrades.
    pub upgrades: Api<DynamicObject>,
    /// Builds.
    pub builds: Api<DynamicObject>,
    /// Upgrades as last heard of.
    pub cache: Cache<DynamicObject>,
    /// The namespace.
    pub namespace: String,
}

/// What an upgrade tells that may not have been copied yet.
#[must_use]
pub fn untold(upgrade: &Upgrade) -> Untold<'_> {
    Untold {
        uid: objects::uid(&upgrade.object),
        environment: &upgrade.spec.environment,
        upgrade: Some(upgrade.unique_name()),
        // As its promotion's own events name it, which no other promotion of that name does: they are one thread.
        promotion: upgrade
            .spec
            .promotion
            .as_ref()
            .map(|_| name(&upgrade.object).to_owned()),
        subject: session::subject(&upgrade.spec),
        pending: &upgrade.book.pending,
    }
}

/// An upgrade under way.
pub struct ObjectLedger {
    objects: Objects,
    history: History,
    token: FencingToken,
    /// Set when this controller leads no more.
    lost: Interrupt,
    state: RefCell<State>,
}

struct State {
    upgrade: Upgrade,
    /// Rises with every version of the object that was seen: theirs are no numbers.
    version: u64,
    /// Events up to here are in the history.
    copied: u64,
    /// When it was read from the API server itself, or written there.
    read_at: Instant,
}

impl ObjectLedger {
    /// Reads an upgrade from the API server itself.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn open(
        objects: Objects,
        history: History,
        upgrade: &str,
        token: FencingToken,
        lost: Interrupt,
    ) -> Result<Self, ApiError> {
        let object = asked("read", &format!("Upgrade {upgrade}"), objects.upgrades.get(upgrade)).await?;
        Ok(Self {
            objects,
            history,
            token,
            lost,
            state: RefCell::new(State {
                upgrade: Upgrade::read(object)?,
                version: 1,
                copied: 0,
                read_at: Instant::now(),
            }),
        })
    }

    /// As the engine knows it.
    #[must_use]
    pub fn record(&self) -> UpgradeRecord {
        let state = self.state.borrow();
        record(&state.upgrade, state.version)
    }

    /// As [`Upgrade::is_asked_again`].
    #[must_use]
    pub fn is_asked_again(&self) -> bool {
        self.state.borrow().upgrade.is_asked_again()
    }

    /// Takes it over: from now on whoever drove it before is refused. Tells that its driver was lost, if it was another, with the event
    /// that says so.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn claim(&self, who: &str) -> Result<Option<Event>, CommitError> {
        for _ in 0..ATTEMPTS {
            let (version, status, before) = {
                let mut state = self.state.borrow_mut();
                let driver = state.upgrade.book.driver.replace(who.to_owned());
                let before = state.upgrade.book.fence.clone();
                let before = before.filter(|_| driver.as_deref() != Some(who));
                (state.version, state.upgrade.status.clone(), before)
            };
            let taken_over = before.filter(|_| status.started_at.is_some()).map(|fence| Event {
                at: Timestamp::now(),
                reason: "TakenOver".to_owned(),
                severity: Severity::Step,
                node: None,
                message: format!(
                    "{who} goes on with it, as number {} of the environment; number {} drove it before",
                    self.token.counter, fence.counter
                ),
            });
            let write = Write {
                version,
                status: &status,
                events: taken_over.as_slice(),
                builds: &[],
            };
            match self.write(write).await {
                // Its wish or a label has changed: what it is now is read already.
                Err(CommitError::Conflict) => {}
                other => return other.map(|_| taken_over),
            }
        }
        Err(CommitError::Conflict)
    }

    /// What was heard of it last, if that is newer than what was read or written here. A watch may be behind our own write.
    fn hear(&self) {
        let mut state = self.state.borrow_mut();
        let mine = &state.upgrade;
        let key = ObjectRef::new_with(name(&mine.object), Kind::Upgrade.resource()).within(&self.objects.namespace);
        let Some(heard) = self.objects.cache.get(&key) else {
            return;
        };
        if heard.metadata.resource_version == mine.object.metadata.resource_version
            || objects::uid(&heard) != objects::uid(&mine.object)
        {
            return;
        }
        let Ok(heard) = Upgrade::read((*heard).clone()) else {
            return;
        };
        let counter = |upgrade: &Upgrade| upgrade.book.fence.as_ref().map_or(0, |fence| fence.counter);
        let age = |upgrade: &Upgrade| (counter(upgrade), upgrade.book.writes, generation(&upgrade.object));
        let (theirs, ours) = (age(&heard), age(mine));
        if theirs.0 >= ours.0 && theirs.1 >= ours.1 && theirs.2 >= ours.2 && theirs != ours {
            state.upgrade = heard;
            state.version += 1;
        }
    }

    fn load_now(&self) -> Result<Loaded, CommitError> {
        self.hear();
        self.is_ours()?;
        let state = self.state.borrow();
        Ok(Loaded {
            status: state.upgrade.status.clone().into(),
            wish: state.upgrade.spec.wish,
            wished_by: state.upgrade.wished_by(),
            version: state.version,
        })
    }

    /// Whether nobody is known to have taken it from us.
    fn is_ours(&self) -> Result<(), CommitError> {
        if self.lost.is_set() {
            return Err(led_by_another());
        }
        self.is_not_newer(self.state.borrow().upgrade.book.fence.as_ref())
    }

    fn is_not_newer(&self, fence: Option<&Fence>) -> Result<(), CommitError> {
        match fence {
            Some(fence) if fence.home == self.token.home && fence.counter > self.token.counter => {
                Err(CommitError::Fenced(format!(
                    "our token {} {} is void, the status was written under {}",
                    self.token.home, self.token.counter, fence.counter
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn write(&self, write: Write<'_>) -> Result<u64, CommitError> {
        let Write {
            version,
            status,
            events,
            builds,
        } = write;
        if self.state.borrow().version != version {
            return Err(CommitError::Conflict);
        }
        if !builds.is_empty() {
            // Builds have no fence of their own: it is looked for before they are marked.
            self.reread().await?;
            self.is_ours()?;
            for change in builds {
                self.mark(change).await?;
            }
            if self.state.borrow().version != version {
                return Err(CommitError::Conflict);
            }
        }
        self.is_ours()?;
        let (object, written) = self.composed(status, events)?;
        let upgrade = self.put(&object, written).await?;
        let version = {
            let mut state = self.state.borrow_mut();
            state.upgrade = upgrade;
            state.version += 1;
            state.read_at = Instant::now();
            state.version
        };
        self.copy();
        Ok(version)
    }

    /// What waits is copied into the history; where that fails, it waits on, and the next write tries again.
    fn copy(&self) {
        let mut state = self.state.borrow_mut();
        match self.history.copy(&untold(&state.upgrade)) {
            Ok(()) => state.copied = state.upgrade.book.told,
            Err(why) => {
                tracing::warn!(%why, upgrade = name(&state.upgrade.object), "its events wait for their history");
            }
        }
    }

    /// The object with its new status, and which write of it that is.
    fn composed(&self, status: &UpgradeStatus, events: &[Event]) -> Result<(DynamicObject, Value), CommitError> {
        let state = self.state.borrow();
        let mut book = state.upgrade.book.clone();
        book.pending.retain(|pending| pending.seq > state.copied);
        for event in events {
            book.told += 1;
            book.pending.push(Pending {
                seq: book.told,
                event: event.clone(),
                act: None,
            });
        }
        if book.pending.len() > MOST_PENDING {
            return Err(CommitError::Store(format!(
                "{} events wait to be written into the history in {}; see what keeps it from being written",
                book.pending.len(),
                self.history.home.root().display()
            )));
        }
        book.fence = Some(Fence::from(&self.token));
        book.writes += 1;
        book.write = Some(random_id());
        let generation = generation(&state.upgrade.object);
        book.observed_generation = generation;
        conditions(&mut book, status, generation, Timestamp::now());
        Ok((state.upgrade.object.clone(), whole(status, &book)?))
    }

    /// As [`Ledger::is_open`], by the name that workloads have of it ([`objects::unique_name`]).
    async fn find_open(&self, upgrade: &str) -> Result<bool, CommitError> {
        let Some((object, _)) = upgrade.rsplit_once('-') else {
            return Ok(false);
        };
        let what = format!("Upgrade {object}");
        let read = || asked("read", &what, self.objects.upgrades.get_opt(object));
        let Some(object) = self.patiently(read).await?.map_err(store)? else {
            return Ok(false);
        };
        let is_it = objects::unique_name(&object) == upgrade;
        // What cannot be read may be under way, by a controller that reads it.
        Ok(is_it && Upgrade::read(object).map_or(true, |read| !read.status.is_over()))
    }

    /// As [`objects::patiently`], for as long as the upgrade is ours to ask for.
    async fn patiently<T, F: Future<Output = Result<T, ApiError>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<Result<T, ApiError>, CommitError> {
        tokio::select! {
            asked = objects::patiently(request) => Ok(asked),
            () = self.lost.wait() => Err(led_by_another()),
        }
    }

    async fn put(&self, object: &DynamicObject, status: Value) -> Result<Upgrade, CommitError> {
        let write = || write_status(&self.objects.upgrades, object, status.clone());
        match self.patiently(write).await? {
            Ok(written) => Upgrade::read(written).map_err(store),
            Err(why) if why.is_conflict() => {
                self.reread().await?;
                let state = self.state.borrow();
                let book = &state.upgrade.book;
                self.is_not_newer(book.fence.as_ref())?;
                if book.write.as_deref() == status["write"].as_str() {
                    // Our own, whose answer did not reach us.
                    return Ok(state.upgrade.clone());
                }
                Err(CommitError::Conflict)
            }
            Err(why) => Err(store(why)),
        }
    }

    async fn reread(&self) -> Result<(), CommitError> {
        let (named, what) = {
            let state = self.state.borrow();
            (
                name(&state.upgrade.object).to_owned(),
                objects::named(&state.upgrade.object),
            )
        };
        let read = || asked("read", &what, self.objects.upgrades.get(&named));
        let read = self.patiently(read).await?.map_err(store)?;
        let read = Upgrade::read(read).map_err(store)?;
        let mut state = self.state.borrow_mut();
        if read.object.metadata.uid != state.upgrade.object.metadata.uid {
            return Err(CommitError::Store(format!("{what} was deleted and made anew")));
        }
        state.read_at = Instant::now();
        if read.object.metadata.resource_version != state.upgrade.object.metadata.resource_version {
            state.version += 1;
            state.upgrade = read;
        }
        Ok(())
    }

    async fn mark(&self, change: &BuildChange) -> Result<(), CommitError> {
        for _ in 0..ATTEMPTS {
            let what = format!("Build {}", change.build);
            let read = || asked("read", &what, self.objects.builds.get_opt(&change.build));
            let Some(object) = self.patiently(read).await?.map_err(store)? else {
                // Whoever took it away has taken the mark with it; that is no reason not to go back.
                tracing::warn!(what, "it is gone, and is not marked");
                return Ok(());
            };
            let mut status: BuildStatus = if object.data["status"].is_object() {
                part(&object, "status").map_err(store)?
            } else {
                BuildStatus::default()
            };
            status.apply(&change.mark);
            let status = serde_json::to_value(status).map_err(|e| CommitError::Store(e.to_string()))?;
            let write = || write_status(&self.objects.builds, &object, status.clone());
            match self.patiently(write).await? {
                Err(why) if why.is_conflict() => {}
                other => return other.map(|_| ()).map_err(store),
            }
        }
        Err(CommitError::Store(format!(
            "Build {} changes faster than it can be marked",
            change.build
        )))
    }
}

/// An upgrade as the engine knows it.
#[must_use]
pub fn record(upgrade: &Upgrade, version: u64) -> UpgradeRecord {
    UpgradeRecord {
        name: upgrade.unique_name(),
        spec: upgrade.spec.clone(),
        status: upgrade.status.clone(),
        resource_version: version,
        wish_version: 0,
        created_at: objects::created_at(&upgrade.object),
    }
}

/// A whole status, within its bounds.
///
/// # Errors
/// It does not fit, however short its texts.
pub fn whole(status: &UpgradeStatus, book: &objects::Book) -> Result<Value, CommitError> {
    let written = |value: serde_json::Result<Value>| value.map_err(|e| CommitError::Store(e.to_string()));
    let mut whole = written(serde_json::to_value(status))?;
    if !status.nodes.is_empty() {
        whole["done"] = json!(objects::done(status));
    }
    if let (Value::Object(whole), Value::Object(book)) = (&mut whole, written(serde_json::to_value(book))?) {
        whole.extend(book);
    }
    match fit(&mut whole, LONGEST_STATUS) {
        Fits::Yes => Ok(whole),
        Fits::No => Err(CommitError::Store(format!(
            "the status takes more than {} KiB, however short its texts; upgrade fewer nodes at once",
            LONGEST_STATUS >> 10
        ))),
    }
}

fn led_by_another() -> CommitError {
    CommitError::Fenced("another controller leads, or may lead by now".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn store(why: ApiError) -> CommitError {
    CommitError::Store(why.to_string())
}

impl Ledger for ObjectLedger {
    fn load(&self) -> LocalBoxFuture<'_, Result<Loaded, CommitError>> {
        futures::future::ready(self.load_now()).boxed_local()
    }

    fn commit<'a>(&'a self, write: Write<'a>) -> LocalBoxFuture<'a, Result<u64, CommitError>> {
        self.write(write).boxed_local()
    }

    /// The lease is kept by the controller; here is only learnt whether it still is ours.
    fn renew(&self) -> LocalBoxFuture<'_, Result<(), CommitError>> {
        async {
            self.hear();
            self.is_ours()?;
            let is_due = self.state.borrow().read_at.elapsed() >= READ_EVERY;
            if is_due {
                self.reread().await?;
                self.is_ours()?;
            }
            Ok(())
        }
        .boxed_local()
    }

    fn is_open<'a>(&'a self, upgrade: &'a str) -> LocalBoxFuture<'a, Result<bool, CommitError>> {
        self.find_open(upgrade).boxed_local()
    }
}

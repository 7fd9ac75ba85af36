//! A replica's objects in a cluster, as commands bring them up, look at them and take them down.

use std::cell::Cell;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use futures::future::{FutureExt as _, LocalBoxFuture, ready};
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;

use super::ground;
use super::printer::Printer;
use super::standing::{self, Standing};
use super::up::count;
use crate::cluster::replica::{Files, Left, OnWrite, ReplicaError, ReplicaSight, SyncState};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::lease::HeldLease;
use crate::engine::replica::{self, KeepError, Keeper, LOOK_AFTER_EVERY, OfFleet, Remembered};
use crate::engine::session::SessionError;
use crate::home::Home;
use crate::model::environment::Component;
use crate::model::upgrade::Event;
use crate::settings;
use crate::store::{Expect, Resource, Store as _, StoreError};

/// Times to live are hours; who waits for one to end waits no longer than this. A look is one small query.
const EXPIRED_EVERY: Duration = Duration::from_secs(15);
/// Replicas that are looked at or taken down together: those of a cluster that hangs hold up none of another.
const AT_ONCE: usize = 8;

/// The replica of an environment that states a target.
pub(super) async fn of(home: &Home, fleet: &Fleet) -> anyhow::Result<Option<OfFleet>> {
    let name = &fleet.environment.name;
    let resource = home.store().resource("Environment", name)?;
    let remembered = resource.as_ref().and_then(standing::remembered).unwrap_or_default();
    connected(home, fleet, &remembered).await
}

async fn connected(home: &Home, fleet: &Fleet, remembered: &Remembered) -> anyhow::Result<Option<OfFleet>> {
    let store = home.store();
    // The last of a component that is seldom upgraded is kept longer than those of the others, so no number of last ones has it for sure.
    let mut upgrades = store.upgrades(Some(&fleet.environment.name), u32::MAX)?;
    upgrades.sort_by_key(|upgrade| upgrade.created_at);
    Ok(OfFleet::connect(fleet, store.home(), &upgrades, remembered).await?)
}

/// The embedded home as what keeps a replica.
struct Embedded<'a> {
    home: &'a Home,
    fleet: &'a Fleet,
    on_write: Box<OnWrite<'a>>,
    printer: &'a Printer,
    /// The version of the record that was read; nothing where the environment is held all the while.
    read: Cell<Option<u64>>,
    /// The last upgrade as what the replica is to hold was read; nothing where nobody asks.
    upgraded: Option<LastUpgrade>,
}

/// The name of an environment's last upgrade with the version of its record; nothing where there was none.
#[derive(PartialEq)]
struct LastUpgrade(Option<(String, u64)>);

impl LastUpgrade {
    fn of(home: &Home, environment: &str) -> Result<Self, StoreError> {
        let last = home.store().upgrades(Some(environment), 1)?.pop();
        Ok(Self(last.map(|upgrade| (upgrade.name, upgrade.resource_version))))
    }
}

impl<'a> Embedded<'a> {
    fn new(
        home: &'a Home,
        fleet: &'a Fleet,
        read: Option<u64>,
        interrupt: &'a Interrupt,
        printer: &'a Printer,
    ) -> Self {
        Self {
            home,
            fleet,
            on_write: Box::new(move |what| told(what, interrupt, printer)),
            printer,
            read: Cell::new(read),
            upgraded: None,
        }
    }

    /// The same, for work that is right only while nobody has upgraded the environment since.
    fn unless_upgraded_since(self, upgraded: LastUpgrade) -> Self {
        Self {
            upgraded: Some(upgraded),
            ..self
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

    /// The lease of an environment in which nothing goes on. This process may drive an upgrade there itself, whose lease would be given to
    /// it once more; and one that is held has given its own back.
    fn free_lease(&self) -> Result<Option<HeldLease>, KeepError> {
        if !self.is_free()? {
            return Ok(None);
        }
        match HeldLease::take(self.home, self.name()) {
            Ok(lease) => Ok(Some(lease)),
            Err(SessionError::Refused(_)) => Ok(None),
            Err(why) => Err(self.unwritten(&why)),
        }
    }

    fn write(&self, remembered: &Remembered, events: &[Event]) -> Result<(), KeepError> {
        let expect = self.read.get().map_or(Expect::Anything, Expect::Version);
        match standing::write_replica(self.home, self.name(), remembered, expect) {
            Ok(written) => {
                if self.read.get().is_some() {
                    self.read.set(written);
                }
            }
            Err(why) => {
                return Err(match why.downcast_ref() {
                    Some(StoreError::Conflict { .. }) => KeepError::Overtaken(self.name().to_owned()),
                    _ => self.unwritten(&why),
                });
            }
        }
        self.tell(events)
    }

    /// Writes events of the environment down, with the reports of them, and says them here.
    fn tell(&self, events: &[Event]) -> Result<(), KeepError> {
        let written = delivery::append(self.home, self.fleet, &settings::user(), events);
        written.map_err(|why| self.unwritten(&why))?;
        for event in events {
            self.printer.note(&format!("{}: {}", self.name(), event.message));
        }
        Ok(())
    }
}

impl Keeper for Embedded<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn on_write(&self) -> &OnWrite<'_> {
        &*self.on_write
    }

    fn is_free(&self) -> Result<bool, KeepError> {
        let holder = HeldLease::holder(self.home, self.name()).map_err(|why| self.unwritten(&why))?;
        let open = self.home.store().unfinished(Some(self.name()));
        Ok(holder.is_none() && open.map_err(|why| self.unwritten(&why))?.is_empty())
    }

    fn alone<'k, T: 'k>(&'k self, work: LocalBoxFuture<'k, T>) -> LocalBoxFuture<'k, Result<Option<T>, KeepError>> {
        async move {
            let Some(lease) = self.free_lease()? else {
                return Ok(None);
            };
            // An upgrade may have begun and ended within a look.
            if let Some(before) = &self.upgraded {
                let now = LastUpgrade::of(self.home, self.name()).map_err(|why| self.unwritten(&why))?;
                if now != *before {
                    return Ok(None);
                }
            }
            lease.keep(work).await.map(Some).map_err(|why| self.unwritten(&why))
        }
        .boxed_local()
    }

    fn remember<'k>(
        &'k self,
        remembered: &'k Remembered,
        events: &'k [Event],
    ) -> LocalBoxFuture<'k, Result<(), KeepError>> {
        ready(self.write(remembered, events)).boxed_local()
    }

    fn has_ended<'k>(&'k self, events: &'k [Event]) -> LocalBoxFuture<'k, Result<(), KeepError>> {
        let written = standing::write(self.home, self.fleet, Standing::Down);
        let told = written
            .map_err(|why| self.unwritten(&why))
            .and_then(|()| self.tell(events));
        ready(told).boxed_local()
    }
}

/// Makes its objects what they are to be, and writes down how they were seen then. The environment's lease is held meanwhile.
pub(super) async fn bring_up(
    of: &OfFleet,
    home: &Home,
    fleet: &Fleet,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<()> {
    let keeper = Embedded::new(home, fleet, None, interrupt, printer);
    let resource = home.store().resource("Environment", keeper.name())?;
    let remembered = resource.as_ref().and_then(standing::remembered).unwrap_or_default();
    let (outcome, sight) = replica::bring_up(of, remembered, &keeper).await?;
    for object in &outcome.changed {
        printer.note(&format!("  {object}: applied"));
    }
    for object in &outcome.pruned {
        printer.note(&format!("  {object}: deleted, no longer stated"));
    }
    let until = outcome
        .expires_at
        .map_or_else(String::new, |at| format!("; it is taken down at {at:.0}"));
    printer.note(&format!(
        "namespace {}: {}, {} changed{until}",
        of.namespace(),
        count(outcome.objects, "object"),
        outcome.changed.len() + outcome.pruned.len()
    ));
    if sight.sync == SyncState::OutOfSync {
        for line in lines(&sight) {
            printer.note(&line);
        }
    }
    Ok(())
}

/// Waits for the pods of a component that are its nodes, where they are made from its manifests.
pub(super) async fn pods_ready(
    of: &OfFleet,
    component: &Component,
    interrupt: &Interrupt,
    printer: &Printer,
) -> Result<(), ReplicaError> {
    of.pods_ready(component, &|what| told(what, interrupt, printer)).await
}

/// Deletes its objects.
pub(super) async fn take_down(
    of: &OfFleet,
    left: Left,
    interrupt: &Interrupt,
    printer: &Printer,
) -> Result<(), ReplicaError> {
    let outcome = of.take_down(left, &|what| told(what, interrupt, printer)).await?;
    printer.note(&format!(
        "namespace {}: {} deleted",
        of.namespace(),
        count(outcome.pruned.len(), "object")
    ));
    Ok(())
}

/// Takes down every replica whose time is over, but one that is just brought up. One that cannot be is told of once, and tried again
/// by the next command; one that somebody is at work on is left to them.
pub(super) async fn take_down_expired(
    home: &Home,
    but: Option<&str>,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<()> {
    let expired = standing::expired(home, Timestamp::now())?;
    let others = expired.iter().filter(|resource| but != Some(&resource.name));
    stream::iter(others)
        .for_each_concurrent(AT_ONCE, async |resource| {
            let Err(why) = expire(home, resource, interrupt, printer).await else {
                return;
            };
            // Who ends this process is no reason to look after a replica.
            if interrupt.is_set() {
                return;
            }
            let why = format!("{why:#}");
            if let Err(untold) = tell_overdue(home, resource, &why, interrupt, printer).await {
                let environment = &resource.name;
                tracing::warn!(
                    why,
                    untold = format!("{untold:#}"),
                    environment,
                    "a replica was not taken down"
                );
            }
        })
        .await;
    Ok(())
}

/// Tells once why a replica whose time is over stands.
async fn tell_overdue(
    home: &Home,
    resource: &Resource,
    why: &str,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<()> {
    let remembered = standing::remembered(resource).unwrap_or_default();
    let Some((remembered, event)) = replica::unexpired(remembered, why, Timestamp::now()) else {
        return Ok(());
    };
    let fleet = standing::fleet(home, resource)?;
    let keeper = Embedded::new(home, &fleet, Some(resource.resource_version), interrupt, printer);
    match keeper.remember(&remembered, &[event]).await {
        Ok(()) | Err(KeepError::Overtaken(_)) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

async fn expire(home: &Home, resource: &Resource, interrupt: &Interrupt, printer: &Printer) -> anyhow::Result<()> {
    let fleet = standing::fleet(home, resource)?;
    let remembered = standing::remembered(resource).unwrap_or_default();
    let Some(of) = replica::to_take_down(&fleet, home.store().home(), &remembered).await? else {
        return Ok(());
    };
    let keeper = Embedded::new(home, &fleet, Some(resource.resource_version), interrupt, printer);
    Ok(replica::expire(&of, &remembered, &keeper).await?)
}

/// Takes down what is over, and looks after what stands, for as long as this process lives.
pub(super) async fn keep(home: &Home, interrupt: &Interrupt, printer: &Printer) -> Infallible {
    let expiring = async {
        loop {
            if let Err(why) = take_down_expired(home, None, interrupt, printer).await {
                tracing::warn!(%why, "cannot look for replicas whose time is over");
            }
            tokio::time::sleep(EXPIRED_EVERY).await;
        }
    };
    let looking = async {
        loop {
            look_after(home, interrupt, printer).await;
            tokio::time::sleep(LOOK_AFTER_EVERY).await;
        }
    };
    tokio::select! {
        never = expiring => never,
        never = looking => never,
    }
}

/// One look at every replica that stands.
async fn look_after(home: &Home, interrupt: &Interrupt, printer: &Printer) {
    let standing = match standing::with_replica(home) {
        Ok(standing) => standing,
        Err(why) => {
            tracing::warn!(%why, "cannot look for replicas");
            return;
        }
    };
    stream::iter(&standing)
        .for_each_concurrent(AT_ONCE, async |resource| {
            match look_after_one(home, resource, interrupt, printer).await {
                Ok(()) => {}
                Err(why) => tracing::warn!(
                    why = format!("{why:#}"),
                    environment = resource.name,
                    "a replica was not looked at"
                ),
            }
        })
        .await;
}

async fn look_after_one(
    home: &Home,
    resource: &Resource,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<()> {
    let fleet = Fleet::read(home, &ground::workspace(), &resource.name, ground::port_shift()?)?;
    let remembered = standing::remembered(resource).unwrap_or_default();
    let upgraded = LastUpgrade::of(home, &resource.name)?;
    let Some(of) = connected(home, &fleet, &remembered).await? else {
        return Ok(());
    };
    let keeper = Embedded::new(home, &fleet, Some(resource.resource_version), interrupt, printer)
        .unless_upgraded_since(upgraded);
    match replica::look_after(&of, remembered, &keeper).await {
        Ok(()) | Err(KeepError::Overtaken(_)) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

fn told(what: &str, interrupt: &Interrupt, printer: &Printer) -> ControlFlow<()> {
    if interrupt.is_set() {
        return ControlFlow::Break(());
    }
    printer.doing(what.to_owned());
    ControlFlow::Continue(())
}

/// A sight in lines for people.
pub(super) fn lines(sight: &ReplicaSight) -> Vec<String> {
    let ReplicaSight {
        sync,
        namespace,
        objects,
        files,
        expires_at,
        out_of_sync,
        seen_at: _,
    } = sight;
    let until = expires_at.map_or_else(String::new, |at| format!(", taken down at {at:.0}"));
    let word = match sync {
        SyncState::Synced => "Synced",
        SyncState::OutOfSync => "OutOfSync",
    };
    let mut lines = vec![format!(
        "namespace {namespace} {word}: {}{until}",
        count(*objects, "object")
    )];
    if *files == Files::Unknown && *sync == SyncState::OutOfSync {
        lines.push(
            "  its ApplySet is not there, so nobody can say what was applied last; `stagegate up` makes it anew"
                .to_owned(),
        );
    }
    for object in out_of_sync {
        let why = object
            .message
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        lines.push(format!("  {} {}{why}", object.object, object.cause.words()));
        for field in &object.fields {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
            let by = if field.by.is_empty() {
                String::new()
            } else {
                format!(" (held by {})", field.by.join(", "))
            };
            lines.push(format!(
                "    {}: {} instead of {}{by}",
                field.path,
                shown(&field.found),
                shown(&field.wanted)
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::Output;
    use crate::model::system::PortShift;
    use crate::workspace::Workspace;

    const ONE: &str = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: web
      nodes: [{name: n}]
      actions: {}
";

    #[tokio::test]
    async fn what_was_read_before_an_upgrade_is_not_put_back_after_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("environments")).expect("made");
        std::fs::write(at("environments/one.yaml"), ONE).expect("written");
        let home = Home::open(&at("state")).expect("a home");
        let workspace = Workspace::at(directory.path().to_owned());
        let fleet = Fleet::read(&home, &workspace, "one", PortShift::default()).expect("sound");
        let (_nobody, interrupt) = Interrupt::new();
        let printer = Printer::new(Output::Table);
        let keeper = || Embedded::new(&home, &fleet, None, &interrupt, &printer);
        let work = || async { "done" }.boxed_local();

        let before = LastUpgrade::of(&home, "one").expect("read");
        let before_it = keeper().unless_upgraded_since(before);
        assert_eq!(before_it.alone(work()).await.expect("free"), Some("done"));
        let spec = json!({"environment": "one", "component": "web", "build": "web-1"});
        let status = json!({"phase": "Succeeded", "since": Timestamp::now()});
        home.store()
            .create_upgrade(
                "up",
                &serde_json::from_value(spec).expect("a spec"),
                &serde_json::from_value(status).expect("a status"),
                Timestamp::now(),
            )
            .expect("created");
        assert_eq!(before_it.alone(work()).await.expect("free"), None);
        let now = LastUpgrade::of(&home, "one").expect("read");
        assert_eq!(
            keeper().unless_upgraded_since(now).alone(work()).await.expect("free"),
            Some("done")
        );
        assert_eq!(keeper().alone(work()).await.expect("free"), Some("done"));
    }
}

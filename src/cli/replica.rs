//! A replica's objects in a cluster, as commands bring them up, look at them and take them down.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;

use super::ground;
use super::printer::Printer;
use super::standing::{self, Standing};
use super::up::count;
use crate::cluster::replica::{Files, Left, Owner, Replica, ReplicaError, ReplicaSight, SyncState, Time};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::lease::HeldLease;
use crate::engine::session::SessionError;
use crate::home::Home;
use crate::model::environment::Component;
use crate::model::manifest::Manifest;
use crate::model::target::{Drift, Target};
use crate::model::upgrade::{Event, Severity};
use crate::report::{self, Subject};
use crate::settings;
use crate::store::{Resource, Store as _};

/// Times to live are hours; who waits for one to end waits no longer than this. A look is one small query.
const EXPIRED_EVERY: Duration = Duration::from_secs(15);
/// A look is two calls an object. Who changes a staging replica by hand has a minute to see what that does.
const LOOK_AFTER_EVERY: Duration = Duration::from_mins(1);

/// The replica of an environment with what it is to hold.
pub(super) struct OfFleet {
    replica: Replica,
    wanted: Vec<Manifest>,
    namespace: String,
    drift: Drift,
}

/// The replica of an environment that states a target.
pub(super) async fn of(home: &Home, fleet: &Fleet) -> anyhow::Result<Option<OfFleet>> {
    let Some(Target::Kubernetes(target)) = &fleet.environment.spec.target else {
        return Ok(None);
    };
    let wanted = fleet.manifests(&target.namespace)?;
    let replica = Replica::connect(target, owner(home, fleet)).await?;
    Ok(Some(OfFleet {
        replica,
        wanted,
        namespace: target.namespace.clone(),
        drift: target.drift,
    }))
}

fn owner(home: &Home, fleet: &Fleet) -> Owner {
    Owner {
        home: home.store().home().to_owned(),
        environment: fleet.environment.name.clone(),
    }
}

impl OfFleet {
    /// Makes its objects what they are to be, and writes down how they were seen then.
    pub(super) async fn bring_up(
        &self,
        home: &Home,
        fleet: &Fleet,
        interrupt: &Interrupt,
        printer: &Printer,
    ) -> anyhow::Result<()> {
        let outcome = self
            .replica
            .reconcile(&self.wanted, Time::Begins, Timestamp::now(), &|what| {
                told(what, interrupt, printer)
            })
            .await?;
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
            self.namespace,
            count(outcome.objects, "object"),
            outcome.changed.len() + outcome.pruned.len()
        ));
        let sight = self.look().await?;
        if sight.sync == SyncState::OutOfSync {
            for line in lines(&sight) {
                printer.note(&line);
            }
        }
        standing::write_replica(home, &fleet.environment.name, sight)
    }

    /// Whether the pods of a component are made from its manifests: they come and go with them.
    pub(super) fn makes_pods_of(&self, component: &Component) -> bool {
        self.workload_of(component).is_some()
    }

    fn workload_of(&self, component: &Component) -> Option<&Manifest> {
        let pods = component.pods()?;
        let mut wanted = self.wanted.iter();
        wanted.find(|m| m.id.group == "apps" && m.id.kind == pods.kind() && m.id.name == pods.name())
    }

    /// Waits for the pods of a component that are its nodes, where they are made from its manifests.
    pub(super) async fn pods_ready(
        &self,
        component: &Component,
        interrupt: &Interrupt,
        printer: &Printer,
    ) -> Result<(), ReplicaError> {
        match self.workload_of(component) {
            Some(made) => {
                self.replica
                    .is_ready(made, &|what| told(what, interrupt, printer))
                    .await
            }
            None => Ok(()),
        }
    }

    /// How its objects are now.
    pub(super) async fn look(&self) -> Result<ReplicaSight, ReplicaError> {
        self.replica.look(&self.wanted, Timestamp::now()).await
    }

    /// Deletes its objects.
    pub(super) async fn take_down(
        &self,
        left: Left,
        interrupt: &Interrupt,
        printer: &Printer,
    ) -> Result<(), ReplicaError> {
        let outcome = self
            .replica
            .take_down(left, &|what| told(what, interrupt, printer))
            .await?;
        printer.note(&format!(
            "namespace {}: {} deleted",
            self.namespace,
            count(outcome.pruned.len(), "object")
        ));
        Ok(())
    }
}

/// Takes down every replica whose time is over, but one that is just brought up. One that cannot be is told of, and tried again
/// by the next command; one that somebody is at work on is left to them.
pub(super) async fn take_down_expired(
    home: &Home,
    but: Option<&str>,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<()> {
    for resource in standing::expired(home, Timestamp::now())? {
        let name = resource.name.clone();
        if but == Some(&name) {
            continue;
        }
        if let Err(why) = expire(home, &resource, interrupt, printer).await {
            printer.note(&format!(
                "{name}: its time is over, and it could not be taken down: {why:#}"
            ));
        }
    }
    Ok(())
}

/// Takes down what is over, and looks after what stands, for as long as this process lives.
pub(super) async fn keep(home: &Home, interrupt: &Interrupt, printer: &Printer) -> Infallible {
    let mut look_at = tokio::time::Instant::now();
    loop {
        if let Err(why) = take_down_expired(home, None, interrupt, printer).await {
            tracing::warn!(%why, "cannot look for replicas whose time is over");
        }
        let now = tokio::time::Instant::now();
        if now >= look_at {
            look_after(home, interrupt, printer).await;
            look_at = now + LOOK_AFTER_EVERY;
        }
        tokio::time::sleep(EXPIRED_EVERY).await;
    }
}

/// One look at every replica that stands.
async fn look_after(home: &Home, interrupt: &Interrupt, printer: &Printer) {
    let standing = match standing::up(home) {
        Ok(standing) => standing,
        Err(why) => {
            tracing::warn!(%why, "cannot look for replicas");
            return;
        }
    };
    for resource in standing {
        if let Err(why) = look_after_one(home, &resource, interrupt, printer).await {
            tracing::warn!(
                why = format!("{why:#}"),
                environment = resource.name,
                "a replica was not looked at"
            );
        }
    }
}

/// The lease of an environment in which nothing goes on. This process may drive an upgrade there itself, whose lease would be given to
/// it once more; and one that is held has given its own back.
fn free_lease(home: &Home, name: &str) -> anyhow::Result<Option<HeldLease>> {
    if HeldLease::holder(home, name)?.is_some() || !home.store().unfinished(Some(name))?.is_empty() {
        return Ok(None);
    }
    match HeldLease::take(home, name) {
        Ok(lease) => Ok(Some(lease)),
        Err(SessionError::Refused(_)) => Ok(None),
        Err(why) => Err(why.into()),
    }
}

/// What has drifted is told once, and put back where the file says so. A file that was changed since is nobody's wish yet: `up` is.
async fn look_after_one(
    home: &Home,
    resource: &Resource,
    interrupt: &Interrupt,
    printer: &Printer,
) -> anyhow::Result<()> {
    let name = &resource.name;
    let Some(lease) = free_lease(home, name)? else {
        return Ok(());
    };
    let fleet = Fleet::read(home, &ground::workspace(), name, ground::port_shift()?)?;
    let Some(replica) = of(home, &fleet).await? else {
        return Ok(());
    };
    let sight = lease.keep(replica.look()).await??;
    let is_news = standing::replica(resource).is_none_or(|before| before.out_of_sync != sight.out_of_sync);
    let is_drift = sight.files == Files::AsApplied && sight.sync == SyncState::OutOfSync;
    if !is_drift || replica.drift == Drift::Report {
        if is_drift && is_news {
            let message = format!("somebody has changed it: {}", lines(&sight)[1..].join("; "));
            tell(home, &fleet, "ReplicaDrifted", Severity::Alert, message, printer)?;
        }
        return standing::write_replica(home, name, sight);
    }
    let on_write = |what: &str| told(what, interrupt, printer);
    let healing = replica
        .replica
        .reconcile(&replica.wanted, Time::GoesOn, Timestamp::now(), &on_write);
    lease.keep(healing).await??;
    let message = format!(
        "what somebody has changed is put back: {}",
        lines(&sight)[1..].join("; ")
    );
    tell(home, &fleet, "ReplicaHealed", Severity::Step, message, printer)?;
    standing::write_replica(home, name, lease.keep(replica.look()).await??)
}

/// Writes an event of an environment down, with the reports of it, and says it here.
fn tell(
    home: &Home,
    fleet: &Fleet,
    reason: &str,
    severity: Severity,
    message: String,
    printer: &Printer,
) -> anyhow::Result<()> {
    let name = &fleet.environment.name;
    let line = format!("{name}: {message}");
    let event = Event {
        at: Timestamp::now(),
        reason: reason.to_owned(),
        severity,
        node: None,
        message,
    };
    let subject = Subject {
        component: String::new(),
        build: String::new(),
        user: settings::user(),
    };
    let sinks = delivery::sinks(fleet);
    let dispatch = report::dispatcher(home.store().home(), &subject, &sinks);
    home.store().append(name, None, &[event], &dispatch)?;
    printer.note(&line);
    Ok(())
}

async fn expire(home: &Home, resource: &Resource, interrupt: &Interrupt, printer: &Printer) -> anyhow::Result<()> {
    let Some(lease) = free_lease(home, &resource.name)? else {
        return Ok(());
    };
    // As it was brought up: its file may have changed since.
    let fleet = standing::fleet(home, resource)?;
    let Some(Target::Kubernetes(target)) = &fleet.environment.spec.target else {
        return Ok(());
    };
    let replica = Replica::connect(target, owner(home, &fleet)).await?;
    // Its parent has the last word: it is what `up` writes first.
    let over = lease.keep(replica.expires_at()).await??;
    if over.is_some_and(|at| at > Timestamp::now()) {
        return Ok(());
    }
    let on_write = |what: &str| told(what, interrupt, printer);
    let outcome = lease.keep(replica.take_down(Left::Namespace, &on_write)).await??;
    standing::write(home, &fleet, Standing::Down)?;
    let name = &resource.name;
    let message = format!(
        "its time was over, and {} of namespace {} are deleted; `stagegate up {name}` brings it back",
        count(outcome.pruned.len(), "object"),
        target.namespace
    );
    tell(home, &fleet, "ReplicaExpired", Severity::Step, message, printer)
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
        files: _,
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
    for object in out_of_sync {
        lines.push(format!("  {} {}", object.object, object.cause.words()));
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

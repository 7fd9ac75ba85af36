//! A replica's objects in a cluster, as commands bring them up, look at them and take them down.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::printer::Printer;
use super::standing;
use super::up::count;
use crate::cluster::replica::{Left, Owner, Replica, ReplicaError, ReplicaSight, SyncState};
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::home::Home;
use crate::model::environment::Component;
use crate::model::manifest::Manifest;
use crate::model::target::Target;
use crate::store::Store as _;

/// The replica of an environment with what it is to hold.
pub(super) struct OfFleet {
    replica: Replica,
    wanted: Vec<Manifest>,
    namespace: String,
}

/// The replica of an environment that states a target.
pub(super) async fn of(home: &Home, fleet: &Fleet) -> anyhow::Result<Option<OfFleet>> {
    let Some(Target::Kubernetes(target)) = &fleet.environment.spec.target else {
        return Ok(None);
    };
    let owner = Owner {
        home: home.store().home().to_owned(),
        environment: fleet.environment.name.clone(),
    };
    let wanted = fleet.manifests(&target.namespace)?;
    let replica = Replica::connect(target, owner).await?;
    Ok(Some(OfFleet {
        replica,
        wanted,
        namespace: target.namespace.clone(),
    }))
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
            .reconcile(&self.wanted, Timestamp::now(), &|what| told(what, interrupt, printer))
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

    /// Waits for the pods of a component that are its nodes, where they are made from its manifests.
    pub(super) async fn pods_ready(
        &self,
        component: &Component,
        interrupt: &Interrupt,
        printer: &Printer,
    ) -> Result<(), ReplicaError> {
        let Some(set) = &component.stateful_set else {
            return Ok(());
        };
        let made = self
            .wanted
            .iter()
            .find(|m| m.id.group == "apps" && m.id.kind == "StatefulSet" && m.id.name == set.name);
        match made {
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

//! The replica of an environment in a cluster: what it is to hold by the files and by the record, brought up, looked after, and
//! taken down when its time is over. Two homes do that, the embedded one and a controller; what differs between them is a [`Keeper`].
//!
//! For each environment that states a target, whoever keeps it calls, in this order and never two at once for one environment:
//!
//! 1. [`expire`] once its time is over by [`Remembered::expires_at`];
//! 2. [`bring_up`] where somebody wants it brought up, while holding the environment;
//! 3. [`look_after`] every [`LOOK_AFTER_EVERY`] for as long as it stands.
//!
//! What they go by is a [`Remembered`], which the keeper hands in as it read it and writes down as it is given; one that was never brought up, or
//! was taken down, is the default. A home with a connection of its own makes the replica with [`OfFleet::with`] and [`to_take_down_with`], one that goes by a
//! kubeconfig with [`OfFleet::connect`] and [`to_take_down`]. A component whose pods are made from manifests is up once [`OfFleet::pods_ready`] says so.

mod drift;
mod settled;

use std::time::Duration;

use futures::future::{FutureExt as _, LocalBoxFuture};
use jiff::Timestamp;
use kube::Client;

pub use self::drift::{Healed, Judged, Remembered, healed, judged, unexpired, unhealed};
use self::settled::Last;
use super::fleet::{Fleet, FleetError};
use crate::cluster::replica::plan::{Moved, UnderWay};
use crate::cluster::replica::{Left, OnWrite, Outcome, Owner, Replica, ReplicaError, ReplicaSight, Run, Wanted};
use crate::model::environment::Component;
use crate::model::manifest::Manifest;
use crate::model::target::{Drift, KubernetesTarget, Target};
use crate::model::upgrade::{Event, Severity};
use crate::model::values::Digest;
use crate::store::UpgradeRecord;

/// A look is two calls an object. Who changes a staging replica by hand has a minute to see what that does.
pub const LOOK_AFTER_EVERY: Duration = Duration::from_mins(1);

/// Why a replica was not brought up or looked after.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Its objects.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The cluster.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A build that nobody can make pods of.
    #[error(
        "the pods of {component} run sha256:{} by the record, which is no image that is known of it; state it under `source.images`, or \
         forget the record with `stagegate down {environment} --purge`", build.short()
    )]
    UnknownBuild {
        /// The environment.
        environment: String,
        /// The component.
        component: String,
        /// The build.
        build: Digest,
    },
    /// The file names another place than the one where it stands.
    #[error(
        "{environment} stands in namespace {before}, and its file names {now} by now; put the file back, and take it down before it moves"
    )]
    OtherPlace {
        /// The environment.
        environment: String,
        /// Where it was made.
        before: String,
        /// Where the file has it.
        now: String,
    },
    /// Somebody has written it since it was read.
    #[error("somebody else has written down how {0} stands; the next look goes by that")]
    Overtaken(String),
    /// The record.
    #[error("cannot write down how {environment} stands: {why}; the next look tries it again")]
    Unwritten {
        /// The environment.
        environment: String,
        /// What happened.
        why: String,
    },
}

/// Where what is known of a replica is written down, and who is told.
///
/// # What every keeper promises
/// - [`Keeper::remember`] and [`Keeper::has_ended`] return `Ok` only after record and events are durable; an event may be told twice, and none is lost.
/// - They are refused as [`KeepError::Overtaken`] where somebody else has written the record since it was read, unless the environment is held
///   by who calls.
/// - While the work of [`Keeper::alone`] goes on, nobody else changes the environment.
pub trait Keeper {
    /// What time it is.
    fn now(&self) -> Timestamp;
    /// Told before each write to the cluster.
    fn on_write(&self) -> &OnWrite<'_>;
    /// Whether nobody is at work on the environment, and no upgrade of it is open.
    ///
    /// # Errors
    /// It cannot be read.
    fn is_free(&self) -> Result<bool, KeepError>;
    /// Does some work while nobody else may change the environment; nothing where somebody is at work there by now, or has upgraded it since
    /// what it is to hold was read.
    fn alone<'a, T: 'a>(&'a self, work: LocalBoxFuture<'a, T>) -> LocalBoxFuture<'a, Result<Option<T>, KeepError>>;
    /// Writes down what is remembered, and what happened.
    fn remember<'a>(
        &'a self,
        remembered: &'a Remembered,
        events: &'a [Event],
    ) -> LocalBoxFuture<'a, Result<(), KeepError>>;
    /// Writes down that it was taken down, and what happened: nothing is remembered of it any more.
    fn has_ended<'a>(&'a self, events: &'a [Event]) -> LocalBoxFuture<'a, Result<(), KeepError>>;
}

/// The replica of an environment with what it is to hold.
pub struct OfFleet {
    environment: String,
    replica: Replica,
    wanted: Wanted,
    target: KubernetesTarget,
}

impl OfFleet {
    /// The replica of an environment that states a target, in the cluster that this names: `upgrades` are those of the environment,
    /// the oldest first.
    ///
    /// # Errors
    /// Its objects cannot be rendered, or there is no such cluster.
    pub async fn connect(
        fleet: &Fleet,
        home: &str,
        upgrades: &[UpgradeRecord],
        remembered: &Remembered,
    ) -> Result<Option<Self>, KeepError> {
        let Some(target) = target(fleet) else { return Ok(None) };
        let replica = Replica::connect(target, owner(fleet, home)).await?;
        Self::of(fleet, target, replica, upgrades, remembered).map(Some)
    }

    /// The same over a connection that is there.
    ///
    /// # Errors
    /// Its objects cannot be rendered.
    pub fn with(
        client: Client,
        fleet: &Fleet,
        home: &str,
        upgrades: &[UpgradeRecord],
        remembered: &Remembered,
    ) -> Result<Option<Self>, KeepError> {
        let Some(target) = target(fleet) else { return Ok(None) };
        let replica = Replica::with(client, target.clone(), owner(fleet, home));
        Self::of(fleet, target, replica, upgrades, remembered).map(Some)
    }

    fn of(
        fleet: &Fleet,
        target: &KubernetesTarget,
        replica: Replica,
        upgrades: &[UpgradeRecord],
        remembered: &Remembered,
    ) -> Result<Self, KeepError> {
        Ok(Self {
            environment: fleet.environment.name.clone(),
            wanted: Wanted {
                manifests: fleet.manifests(&target.namespace)?,
                moved: moved(fleet, upgrades)?,
            },
            replica: replica.made_in(remembered.cluster.clone()),
            target: target.clone(),
        })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.target.namespace
    }

    /// Refuses to go on in another cluster than the one where it was made.
    ///
    /// # Errors
    /// As [`Replica::refuse_other_cluster`].
    pub async fn refuse_other_cluster(&self) -> Result<(), ReplicaError> {
        self.replica.refuse_other_cluster().await
    }

    /// How its objects are now.
    ///
    /// # Errors
    /// As [`Replica::look`].
    pub async fn look(&self, now: Timestamp) -> Result<ReplicaSight, ReplicaError> {
        self.replica.look(&self.wanted, now).await
    }

    /// Deletes its objects.
    ///
    /// # Errors
    /// As [`Replica::take_down`].
    pub async fn take_down(&self, left: Left, on_write: &OnWrite<'_>) -> Result<Outcome, ReplicaError> {
        self.replica.take_down(left, on_write).await
    }

    /// Whether the pods of a component are made from its manifests: they come and go with them.
    #[must_use]
    pub fn makes_pods_of(&self, component: &Component) -> bool {
        self.workload_of(component).is_some()
    }

    /// Waits for the pods of a component that are its nodes, where they are made from its manifests.
    ///
    /// # Errors
    /// As [`Replica::is_ready`].
    pub async fn pods_ready(&self, component: &Component, on_look: &OnWrite<'_>) -> Result<(), ReplicaError> {
        match self.workload_of(component) {
            Some(made) => self.replica.is_ready(made, on_look).await,
            None => Ok(()),
        }
    }

    fn workload_of(&self, component: &Component) -> Option<&Manifest> {
        let pods = component.pods()?;
        let mut wanted = self.wanted.manifests.iter();
        wanted.find(|m| m.id.group == "apps" && m.id.kind == pods.kind() && m.id.name == pods.name())
    }

    fn refuse_other_place(&self, remembered: &Remembered) -> Result<(), KeepError> {
        let Remembered { namespace, context, .. } = remembered;
        let is_another = *namespace != self.target.namespace || *context != self.target.context;
        if namespace.is_empty() || !is_another {
            return Ok(());
        }
        let place = |namespace: &str, context: &Option<String>| match context {
            Some(context) => format!("{namespace} of {context}"),
            None => namespace.to_owned(),
        };
        Err(KeepError::OtherPlace {
            environment: self.environment.clone(),
            before: place(namespace, context),
            now: place(&self.target.namespace, &self.target.context),
        })
    }
}

fn target(fleet: &Fleet) -> Option<&KubernetesTarget> {
    let Target::Kubernetes(target) = fleet.environment.spec.target.as_ref()?;
    Some(target)
}

fn owner(fleet: &Fleet, home: &str) -> Owner {
    Owner {
        home: home.to_owned(),
        environment: fleet.environment.name.clone(),
    }
}

/// What upgrades have moved, by the record, of each component whose nodes are pods.
fn moved(fleet: &Fleet, upgrades: &[UpgradeRecord]) -> Result<Vec<Moved>, KeepError> {
    let mut all = Vec::new();
    for component in &fleet.environment.spec.components {
        let Some(pods) = component.pods() else { continue };
        let own = upgrades
            .iter()
            .filter(|upgrade| upgrade.spec.component == component.name);
        let last = settled::last(own.clone());
        let mut images = fleet.images(component);
        let image = match last {
            Last::Never => None,
            // The cluster says what runs; this is for a workload that somebody has deleted.
            Last::OfSeveral(most) => most.and_then(|build| images.remove(&build)),
            Last::OfAll(build) => {
                let image = images.remove(&build);
                Some(image.ok_or_else(|| KeepError::UnknownBuild {
                    environment: fleet.environment.name.clone(),
                    component: component.name.clone(),
                    build,
                })?)
            }
        };
        let is_open = own.clone().any(|upgrade| !upgrade.status.is_over());
        let is_settled = !is_open && !matches!(last, Last::OfSeveral(_));
        all.push(Moved {
            kind: pods.kind(),
            name: pods.name().to_owned(),
            container: pods.container().map(str::to_owned),
            image,
            upgrade: if is_settled { UnderWay::No } else { UnderWay::Yes },
        });
    }
    Ok(all)
}

/// Makes its objects what they are to be, while holding the environment. When it is to go is written down before anything else is.
///
/// # Errors
/// What is refused, before anything is written; else what did not work, after which the same again goes on.
pub async fn bring_up<K: Keeper>(
    of: &OfFleet,
    before: Remembered,
    keeper: &K,
) -> Result<(Outcome, ReplicaSight), KeepError> {
    of.refuse_other_place(&before)?;
    let now = keeper.now();
    let tried = of.replica.try_out(&of.wanted, Run::BringUp { now }).await?;
    let mut remembered = Remembered {
        namespace: of.target.namespace.clone(),
        context: of.target.context.clone(),
        cluster: Some(of.replica.cluster_id().await?.clone()),
        expires_at: tried.expires_at(),
        sight: before.sight,
        ..Remembered::default()
    };
    keeper.remember(&remembered, &[]).await?;
    let outcome = of.replica.carry_out(tried, keeper.on_write()).await?;
    let sight = of.look(keeper.now()).await?;
    remembered.sight = Some(sight.clone());
    keeper.remember(&remembered, &[]).await?;
    Ok((outcome, sight))
}

/// One look at a replica that stands: what has drifted is told once, and put back where the file says so. Where somebody is at work
/// it is left to them.
///
/// # Errors
/// It could not be looked at, or not be written down.
pub async fn look_after<K: Keeper>(of: &OfFleet, before: Remembered, keeper: &K) -> Result<(), KeepError> {
    of.refuse_other_place(&before)?;
    // Without holding it: a cluster that hangs keeps nobody from working.
    if !keeper.is_free()? {
        return Ok(());
    }
    let sight = of.look(keeper.now()).await?;
    // What somebody has begun meanwhile is no drift.
    if !keeper.is_free()? {
        return Ok(());
    }
    let Judged {
        remembered,
        events,
        heal,
    } = judged(before, &sight, of.target.drift, keeper.now());
    keeper.remember(&remembered, &events).await?;
    if heal.is_empty() {
        return Ok(());
    }
    let healing = of.replica.reconcile(&of.wanted, Run::Heal(&heal), keeper.on_write());
    match keeper.alone(healing.boxed_local()).await? {
        None | Some(Err(ReplicaError::Interrupted)) => Ok(()),
        Some(Ok(_)) => {
            let (mut remembered, event) = healed(remembered, &heal, keeper.now());
            remembered.sight = Some(of.look(keeper.now()).await?);
            keeper.remember(&remembered, &[event]).await
        }
        Some(Err(why)) => {
            let (remembered, events) = unhealed(remembered, &why.to_string(), keeper.now());
            keeper.remember(&remembered, &events).await
        }
    }
}

/// The replica of an environment without what it is to hold: as it was brought up, for its file may have changed since.
///
/// # Errors
/// There is no such cluster.
pub async fn to_take_down(fleet: &Fleet, home: &str, remembered: &Remembered) -> Result<Option<Replica>, KeepError> {
    let Some(target) = target(fleet) else { return Ok(None) };
    let replica = Replica::connect(target, owner(fleet, home)).await?;
    Ok(Some(replica.made_in(remembered.cluster.clone())))
}

/// The same over a connection that is there.
#[must_use]
pub fn to_take_down_with(client: Client, fleet: &Fleet, home: &str, remembered: &Remembered) -> Option<Replica> {
    let replica = Replica::with(client, target(fleet)?.clone(), owner(fleet, home));
    Some(replica.made_in(remembered.cluster.clone()))
}

/// The same by the record alone, whatever has become of the files.
///
/// # Errors
/// There is no such cluster.
pub async fn by_record(environment: &str, home: &str, remembered: &Remembered) -> Result<Replica, KeepError> {
    let target = KubernetesTarget {
        namespace: remembered.namespace.clone(),
        context: remembered.context.clone(),
        drift: Drift::Report,
        ttl: None,
        quota: None,
    };
    let owner = Owner {
        home: home.to_owned(),
        environment: environment.to_owned(),
    };
    let replica = Replica::connect(&target, owner).await?;
    Ok(replica.made_in(remembered.cluster.clone()))
}

/// Takes a replica down whose time is over. Where somebody is at work it is left to them.
///
/// # Errors
/// It could not be taken down, or that not be written down.
pub async fn expire<K: Keeper>(replica: &Replica, remembered: &Remembered, keeper: &K) -> Result<(), KeepError> {
    if !keeper.is_free()? {
        return Ok(());
    }
    let ending = async {
        // Its parent has the last word: a later `up` may have written it elsewhere.
        let over = replica.expires_at().await?.or(remembered.expires_at);
        if over.is_none_or(|at| at > keeper.now()) {
            return Ok(());
        }
        let outcome = replica.take_down(Left::Namespace, keeper.on_write()).await?;
        let (name, deleted) = (replica.environment(), outcome.pruned.len());
        let message = format!(
            "its time was over, and {deleted} {} of namespace {} are deleted; `stagegate up {name}` brings it back",
            if deleted == 1 { "object" } else { "objects" },
            replica.namespace_name()
        );
        let event = drift::event("ReplicaExpired", Severity::Step, message, keeper.now());
        keeper.has_ended(&[event]).await
    };
    keeper.alone(ending.boxed_local()).await?.unwrap_or(Ok(()))
}

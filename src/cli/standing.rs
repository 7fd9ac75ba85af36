//! What a home remembers of an environment's bring-up: whether it stands, with which nodes, on which ports.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ground::GroundError;
use crate::cluster::replica::ReplicaSight;
use crate::engine::fleet::{Fleet, OF_NAMESPACE};
use crate::engine::replica::Remembered;
use crate::home::Home;
use crate::model::environment::EnvironmentSpec;
use crate::model::render::Renderer;
use crate::model::system::{Environment, PortShift};
use crate::model::target::Target;
use crate::store::{Expect, Resource, Store as _, StoreError};

/// Whether an environment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// A bring-up was begun and has not ended well yet.
    ComingUp,
    /// Every node was brought up.
    Up,
    /// Its services were stopped.
    Down,
}

/// Status of an Environment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnvironmentStatus {
    phase: Standing,
    since: Timestamp,
    #[serde(default)]
    port_shift: u16,
    /// Every node that it was brought up with, of every component.
    #[serde(default)]
    nodes: BTreeSet<String>,
    /// What is remembered of its objects in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replica: Option<Remembered>,
}

/// Writes down how an environment stands, as its file describes it now.
pub(super) fn write(home: &Home, fleet: &Fleet, phase: Standing) -> anyhow::Result<()> {
    let (store, name, now) = (home.store(), &fleet.environment.name, Timestamp::now());
    let spec = serde_json::to_value(&fleet.environment.spec)?;
    let replica = match phase {
        Standing::ComingUp | Standing::Up => read(home, name)?.and_then(|status| status.replica),
        Standing::Down => None,
    };
    store.put_resource("Environment", name, &spec, Expect::Anything, now)?;
    let PortShift(port_shift) = fleet.environment.shift();
    let status = EnvironmentStatus {
        phase,
        since: now,
        port_shift,
        nodes: fleet.all_places().map(|place| place.site.name.clone()).collect(),
        replica,
    };
    let status = serde_json::to_value(status)?;
    store.put_status("Environment", name, &status, Expect::Anything, now)?;
    Ok(())
}

/// Writes down what is remembered of an environment's objects in a cluster; the version of its record then, if it has one.
pub(super) fn write_replica(
    home: &Home,
    environment: &str,
    remembered: &Remembered,
    expect: Expect,
) -> anyhow::Result<Option<u64>> {
    let Some(mut status) = read(home, environment)? else {
        return Ok(None);
    };
    status.replica = Some(remembered.clone());
    let status = serde_json::to_value(status)?;
    let written = home
        .store()
        .put_status("Environment", environment, &status, expect, Timestamp::now())?;
    Ok(Some(written.resource_version))
}

/// What is remembered of its objects in a cluster.
pub(super) fn remembered(resource: &Resource) -> Option<Remembered> {
    // A cluster's home has other words for how it stands beside it.
    serde_json::from_value(resource.status["replica"].clone()).ok()
}

/// The build of each component that is objects alone, as it was brought up: nothing else of it could have moved since.
pub(super) fn builds_of_objects(home: &Home, environment: &str) -> Result<BTreeMap<String, String>, StoreError> {
    let none = BTreeMap::new();
    let Some(resource) = home.store().resource("Environment", environment)? else {
        return Ok(none);
    };
    // A bring-up that has not ended may have applied them, and may not.
    if !resource
        .status_as::<EnvironmentStatus>()
        .is_ok_and(|status| status.phase == Standing::Up)
    {
        return Ok(none);
    }
    let Ok(spec) = resource.spec_as::<EnvironmentSpec>() else {
        return Ok(none);
    };
    let objects = spec
        .components
        .iter()
        .filter(|c| c.nodes.is_empty() && !c.manifests.is_empty());
    Ok(objects
        .filter_map(|c| Some((c.name.clone(), format!("{}-{}", c.name, c.build.as_ref()?))))
        .collect())
}

/// How its objects were seen last.
pub(super) fn sight(resource: &Resource) -> Option<ReplicaSight> {
    let Remembered { sight, expires_at, .. } = remembered(resource)?;
    // One that was not found then goes all the same.
    sight.map(|sight| ReplicaSight {
        expires_at: sight.expires_at.or(expires_at),
        ..sight
    })
}

/// An environment as it was brought up, for looking at its nodes: its scripts are not there.
pub(super) fn fleet(home: &Home, resource: &Resource) -> anyhow::Result<Fleet> {
    let shift = resource
        .status_as::<EnvironmentStatus>()
        .map_or(PortShift::default(), |status| PortShift(status.port_shift));
    let (environment, _) = Environment::check(&resource.name, resource.spec_as()?, shift);
    Ok(Fleet::new(environment, Renderer::default(), home))
}

fn read(home: &Home, environment: &str) -> anyhow::Result<Option<EnvironmentStatus>> {
    let Some(resource) = home.store().resource("Environment", environment)? else {
        return Ok(None);
    };
    refuse_of_cluster(&resource)?;
    if resource.status.is_null() {
        return Ok(None);
    }
    Ok(Some(resource.status_as()?))
}

/// Refuses to say of an environment that a controller has from its objects what this home does not know.
pub(super) fn refuse_of_cluster(resource: &Resource) -> Result<(), GroundError> {
    match resource.status[OF_NAMESPACE].as_str() {
        Some(namespace) => Err(GroundError::OfCluster {
            environment: resource.name.clone(),
            namespace: namespace.to_owned(),
        }),
        None => Ok(()),
    }
}

/// Refuses to look for nodes on other ports than they were started on.
pub(super) fn refuse_other_ports(home: &Home, fleet: &Fleet) -> anyhow::Result<()> {
    let environment = &fleet.environment.name;
    let PortShift(ours) = fleet.environment.shift();
    match read(home, environment)? {
        Some(status) if status.phase != Standing::Down && status.port_shift != ours => Err(GroundError::OtherShift {
            environment: environment.clone(),
            theirs: status.port_shift,
            ours,
        }
        .into()),
        _ => Ok(()),
    }
}

/// Refuses to change what does not stand: nodes that were never started, or were stopped, answer no gate. A bring-up that failed
/// on one node is no reason: what the others need may be an upgrade.
pub(super) fn refuse_not_up(home: &Home, fleet: &Fleet) -> anyhow::Result<()> {
    let environment = &fleet.environment.name;
    let how = match read(home, environment)?.map(|status| status.phase) {
        Some(Standing::Up | Standing::ComingUp) => return Ok(()),
        Some(Standing::Down) => "is down",
        None => "was never brought up here",
    };
    Err(GroundError::NotUp {
        environment: environment.clone(),
        how,
    }
    .into())
}

/// Refuses to make a replica in a second place while it stands in a first, which nobody would clear.
pub(super) fn refuse_other_namespace(home: &Home, fleet: &Fleet) -> anyhow::Result<()> {
    let environment = &fleet.environment.name;
    let Some(resource) = home.store().resource("Environment", environment)? else {
        return Ok(());
    };
    let Ok(before) = resource.spec_as::<EnvironmentSpec>() else {
        return Ok(());
    };
    let place = |target: &Option<Target>| {
        let Target::Kubernetes(target) = target.as_ref()?;
        Some((target.context.clone(), target.namespace.clone()))
    };
    let is_down = read(home, environment)?.is_none_or(|status| status.phase == Standing::Down);
    match (place(&before.target), place(&fleet.environment.spec.target)) {
        (Some(before), now) if !is_down && now.as_ref() != Some(&before) => Err(GroundError::OtherTarget {
            environment: environment.clone(),
            namespace: before.1,
        }
        .into()),
        _ => Ok(()),
    }
}

/// Every environment with a replica whose time is over by what was written down of it.
pub(super) fn expired(home: &Home, now: Timestamp) -> Result<Vec<Resource>, StoreError> {
    let mut expired = with_replica(home)?;
    expired.retain(|resource| {
        let remembered = remembered(resource);
        remembered.is_some_and(|remembered| remembered.expires_at.is_some_and(|at| at <= now))
    });
    Ok(expired)
}

/// Every environment of which objects may be in a cluster, also of one whose bring-up has not ended.
pub(super) fn with_replica(home: &Home) -> Result<Vec<Resource>, StoreError> {
    let mut with = home.store().resources("Environment")?;
    with.retain(|resource| {
        let status = resource.status_as::<EnvironmentStatus>();
        status.is_ok_and(|status| status.phase != Standing::Down && status.replica.is_some())
    });
    Ok(with)
}

/// Refuses to go by a file that no longer names a node which was brought up: it would run on, or vanish while it runs.
pub(super) fn refuse_missing_nodes(home: &Home, fleet: &Fleet) -> anyhow::Result<()> {
    let environment = &fleet.environment.name;
    let Some(status) = read(home, environment)? else {
        return Ok(());
    };
    let named: BTreeSet<&str> = fleet.all_places().map(|place| place.site.name.as_str()).collect();
    let nodes: Vec<String> = status
        .nodes
        .into_iter()
        .filter(|n| !named.contains(n.as_str()))
        .collect();
    if nodes.is_empty() {
        return Ok(());
    }
    Err(GroundError::NodesMissing {
        environment: environment.clone(),
        nodes,
    }
    .into())
}

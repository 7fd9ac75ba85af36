//! Nodes that another home drives: a command at hand beside a controller, or a copied state. They obey nobody else, so it is said before
//! anything is begun.

use super::fleet::{Fleet, Place};
use crate::hosts::NodeSight;
use crate::model::environment::{HostRef, PodRef};

/// Which they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {environment} serve another home ({home}), which alone upgrades them; {}", nodes.join(", "), remedy(environment, of))]
pub struct Foreign {
    environment: String,
    nodes: Vec<String>,
    home: String,
    of: Of,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    /// In this namespace, most likely that of the controller that has them; its home is named by its uid.
    Pods(String),
    Servers,
}

impl Foreign {
    /// Those of these nodes that one home has which is not this one; where several have some, those of the first.
    #[must_use]
    pub fn among<'p>(
        fleet: &Fleet,
        nodes: impl IntoIterator<Item = (&'p Place, Option<&'p NodeSight>)>,
        ours: &str,
    ) -> Option<Self> {
        let mut found: Option<Self> = None;
        for (place, sight) in nodes {
            let Some(fence) = sight
                .and_then(|sight| sight.fence.as_ref())
                .filter(|fence| fence.home != ours)
            else {
                continue;
            };
            let foreign = found.get_or_insert_with(|| Self {
                environment: fleet.environment.name.clone(),
                nodes: Vec::new(),
                home: fence.home.clone(),
                of: match &place.site.host {
                    Some(HostRef::Pod(PodRef::OfSet(pod))) => Of::Pods(pod.set.namespace.clone()),
                    Some(HostRef::Pod(PodRef::OfDeployment(pods))) => Of::Pods(pods.deployment.namespace.clone()),
                    Some(HostRef::Ssh(_)) | None => Of::Servers,
                },
            });
            if foreign.home == fence.home {
                foreign.nodes.push(place.site.name.clone());
            }
        }
        found
    }
}

fn remedy(environment: &str, of: &Of) -> String {
    let adopt = format!("if that home is no more, `stagegate adopt {environment}` takes its nodes over");
    match of {
        Of::Servers => adopt,
        Of::Pods(namespace) => format!(
            "where that is the uid of namespace {namespace} (`kubectl get namespace {namespace} -o yaml`), the controller there drives \
             them, and `kubectl stagegate -n {namespace} status` shows which environments it has; {adopt}"
        ),
    }
}

//! What runs in a namespace, read as it is: from that an Environment can be begun.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::connection::{causes, connect_in};
use super::install::{PART, PART_OF};
use crate::model::values::Digest;

/// Of one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Which version of what runs there an object is of, by the labels that Kubernetes recommends.
const VERSION: &str = "app.kubernetes.io/version";

/// What makes pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Pods with names.
    StatefulSet,
    /// Pods without.
    Deployment,
}

/// Which image a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// By its digest, alone.
    Stated {
        /// Registry and repository.
        repository: String,
        /// Of its manifest.
        digest: Digest,
    },
    /// By a name that can come to mean another image.
    Movable {
        /// As it is stated.
        image: String,
        /// By digest, where all pods that run have the same.
        runs: Option<String>,
    },
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Pods that are wanted.
    pub replicas: i32,
    /// The container that is taken for the one that runs the build: the first.
    pub container: String,
    /// Those beside it.
    pub others: Vec<String>,
    /// What it runs.
    pub image: Image,
    /// As a label says.
    pub version: Option<String>,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// The path and the port's name that the kubelet asks before a pod is ready, in plain HTTP.
    pub asked: Option<(String, String)>,
}

/// Reads the `StatefulSet`s and Deployments of a namespace, with that of the kubeconfig's context where none is said. What is ours is left out.
///
/// # Errors
/// There is no cluster, or its API server did not answer, in words.
pub async fn survey(context: Option<&str>, namespace: Option<&str>) -> Result<(String, Vec<Found>), String> {
    let (client, own) = connect_in(context, PATIENCE).await?;
    let namespace = namespace.map_or(own, str::to_owned);
    let sets: Vec<StatefulSet> = all(&client, &namespace, "StatefulSets").await?;
    let deployments: Vec<Deployment> = all(&client, &namespace, "Deployments").await?;
    let pods: Vec<Pod> = all(&client, &namespace, "pods").await?;
    let of_sets = sets.into_iter().filter_map(|set| {
        let spec = set.spec?;
        let about = (Kind::StatefulSet, set.metadata, spec.replicas);
        workload(about, spec.template.metadata, spec.template.spec, &spec.selector, &pods)
    });
    let of_deployments = deployments.into_iter().filter_map(|deployment| {
        let spec = deployment.spec?;
        let about = (Kind::Deployment, deployment.metadata, spec.replicas);
        workload(about, spec.template.metadata, spec.template.spec, &spec.selector, &pods)
    });
    let mut found: Vec<Found> = of_sets.chain(of_deployments).collect();
    found.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    Ok((namespace, found))
}

async fn all<K>(client: &Client, namespace: &str, what: &str) -> Result<Vec<K>, String>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let listed = api.list(&ListParams::default()).await;
    let listed = listed.map_err(|why| format!("cannot list the {what} of namespace {namespace}: {}", causes(&why)))?;
    Ok(listed.items)
}

fn workload(
    (kind, about, replicas): (Kind, ObjectMeta, Option<i32>),
    of_pods: Option<ObjectMeta>,
    spec: Option<PodSpec>,
    selector: &LabelSelector,
    pods: &[Pod],
) -> Option<Found> {
    let labels = about.labels.unwrap_or_default();
    if labels.get(PART_OF).is_some_and(|part| part == PART) {
        return None;
    }
    let of_pods = of_pods.and_then(|about| about.labels).unwrap_or_default();
    let mut containers = spec?.containers.into_iter();
    let own = containers.next()?;
    let ports = ports(&own);
    let asked = asked(&own, &ports);
    Some(Found {
        kind,
        name: about.name?,
        replicas: replicas.unwrap_or(1),
        image: image(own.image.as_deref().unwrap_or_default(), || {
            runs(&own.name, selector, pods)
        }),
        container: own.name,
        others: containers.map(|container| container.name).collect(),
        version: of_pods.get(VERSION).or_else(|| labels.get(VERSION)).cloned(),
        ports,
        asked,
    })
}

fn ports(container: &Container) -> BTreeMap<String, u16> {
    let all = container.ports.iter().flatten();
    all.filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        let name = port.name.clone().unwrap_or_else(|| format!("port{number}"));
        Some((name, number))
    })
    .collect()
}

fn asked(container: &Container, ports: &BTreeMap<String, u16>) -> Option<(String, String)> {
    let get = container.readiness_probe.as_ref()?.http_get.as_ref()?;
    if get.scheme.as_deref() == Some("HTTPS") || get.host.is_some() {
        return None;
    }
    let named = |number: i32| ports.iter().find(|(_, port)| i32::from(**port) == number);
    let port = match &get.port {
        IntOrString::String(name) => ports.get_key_value(name)?.0,
        IntOrString::Int(number) => named(*number)?.0,
    };
    Some((get.path.clone().unwrap_or_else(|| "/".to_owned()), port.clone()))
}

/// What pods of a workload run, if that is one image.
fn runs(container: &str, selector: &LabelSelector, pods: &[Pod]) -> Option<String> {
    let wanted = selector.match_labels.as_ref()?;
    let of_it = pods.iter().filter(|pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.is_some_and(|labels| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
    });
    let statuses = of_it.flat_map(|pod| {
        pod.status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten())
    });
    let own = statuses.filter(|status| status.name == container && !status.image_id.is_empty());
    // Some runtimes say by which means they have it.
    let said: BTreeSet<&str> = own
        .map(|status| status.image_id.rsplit("://").next().unwrap_or_default())
        .collect();
    let mut said = said.into_iter();
    match (said.next(), said.next()) {
        (Some(only), None) if only.contains("@sha256:") => Some(only.to_owned()),
        (Some(_) | None, _) => None,
    }
}

fn image(stated: &str, runs: impl FnOnce() -> Option<String>) -> Image {
    let by_digest = stated.split_once('@').and_then(|(repository, digest)| {
        let tagged = repository.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let digest = digest.parse().ok()?;
        (!tagged).then(|| Image::Stated {
            repository: repository.to_owned(),
            digest,
        })
    });
    by_digest.unwrap_or_else(|| {
        // What stands beside a tag says what runs, too.
        let same = stated.split_once('@').map(|(name, digest)| {
            let (path, last) = name.rsplit_once('/').map_or(("", name), |(path, last)| (path, last));
            let bare = last.split(':').next().unwrap_or_default();
            let joined = if path.is_empty() {
                bare.to_owned()
            } else {
                format!("{path}/{bare}")
            };
            format!("{joined}@{digest}")
        });
        Image::Movable {
            image: stated.to_owned(),
            runs: same.or_else(runs),
        }
    })
}

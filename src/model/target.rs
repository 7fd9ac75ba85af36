//! Where a replica is made by us, and what is known to differ from what it copies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Duration, Quantity};

/// Where the objects of an environment are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// In a namespace of a Kubernetes cluster, from the `manifests` of its components.
    Kubernetes(KubernetesTarget),
}

/// A namespace that is this environment's alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesTarget {
    /// The namespace. It is made when it is not there; one that is there is taken only when its labels say that it is this
    /// environment's.
    pub namespace: String,
    /// The context of the kubeconfig; without one its current context, and in a pod the cluster that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// What is done about fields of its objects that somebody else has changed.
    #[serde(default)]
    pub drift: Drift,
    /// How long it stands after it was brought up; `up` begins it anew. Without it, until it is taken down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// What it may take at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// What is done about drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Drift {
    /// It is told, and nothing is taken from who changed it.
    #[default]
    Report,
    /// It is put back, also where somebody else says that the field is theirs.
    Heal,
}

/// Bounds over all objects of a replica, each optional.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// Objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u32>,
    /// Pods, over the replicas of all workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<u32>,
    /// Processors that they request together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory that they request together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// A difference between a replica and what it copies that is meant to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedDifference {
    /// Where, as `stagegate diff` writes it; everything below counts too. `*` stands for any one step.
    pub path: String,
    /// Why.
    pub reason: String,
}

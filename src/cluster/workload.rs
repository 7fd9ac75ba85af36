//! What is read and written of workloads whatever kind they are of: their pods, the container that runs the build, the words of
//! an API server that refuses.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as ApiPod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, LogParams, ObjectList, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::connection::{causes, connect_within};
use super::pod::{Pod, Refused, Waiting};
use crate::hosts::{FencingToken, HostError, NodeAddress, NodeSight};
use crate::model::values::Digest;
use crate::secrets::printable;

/// Where a workload keeps what is remembered of it.
pub const ANNOTATION: &str = "stagegate.dev/rolling";
/// Who we are in `managedFields`.
pub const MANAGER: &str = "stagegate";
/// The controllers of Kubernetes write a workload's status all the while; each conflict costs one reading more.
pub const CONFLICTS_IN_A_ROW: usize = 20;
/// An API server that says nothing for so long is away; a look is tried again by the next.
const CALL: Duration = Duration::from_secs(30);
/// A pod without a process id is told from the next by when its container began; an id has to stand there.
pub const FIRST_PROCESS: u32 = 1;
/// Lines of a container's log that tell why it does not come up.
const LOG_LINES: i64 = 20;
/// And their bytes.
const LOG_BYTES: i64 = 4_096;
/// Pods, and revisions, that a look reads at most: some 5 MB. A workload with more is one to divide.
pub const LISTED: u32 = 500;
/// The code of an API server that means: not as you think it is; read again.
pub const CONFLICT: u16 = 409;
/// There is none of that name.
pub const NOT_FOUND: u16 = 404;
/// No rule allows it.
const FORBIDDEN: u16 = 403;

/// A workload by name, with the connection to its cluster.
pub struct Workload {
    /// Its kind.
    pub kind: &'static str,
    /// The key of an environment that states it.
    pub key: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The container that runs the build, where that is stated.
    pub container: Option<String>,
    /// The context of the kubeconfig, where that is stated.
    pub context: Option<String>,
}

impl Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.named())
    }
}

impl Workload {
    /// Its kind and name, for people.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// What a node of it shows where it does not exist: its API server was reached, and said so.
    #[must_use]
    pub fn gone(&self) -> NodeSight {
        NodeSight {
            set_up: true,
            unstated: Some(format!(
                "{}: {}; apply it, or correct `{}` in the environment",
                self.named(),
                Refused::Gone,
                self.key
            )),
            ..NodeSight::default()
        }
    }

    /// What a node of it shows where it cannot be told which of its containers is meant; other trouble stays that.
    ///
    /// # Errors
    /// As it was.
    pub fn misstated(&self, why: HostError) -> Result<NodeSight, HostError> {
        match why {
            HostError::Misstated { .. } => Ok(NodeSight {
                set_up: true,
                unstated: Some(why.to_string()),
                ..NodeSight::default()
            }),
            HostError::Unreachable { .. }
            | HostError::Fenced { .. }
            | HostError::ForeignHome { .. }
            | HostError::Unserved { .. }
            | HostError::Refused { .. }
            | HostError::Failed { .. } => Err(why),
        }
    }

    /// It could not be done, with what was tried.
    pub fn failed(&self, tried: &str, why: impl Into<String>) -> HostError {
        HostError::Failed {
            host: self.named(),
            tried: tried.to_owned(),
            why: why.into(),
        }
    }

    /// Nothing was done of it for anybody, with what was tried: it is no pod's fault.
    pub fn unserved(&self, tried: &str, why: impl Into<String>) -> HostError {
        HostError::Unserved {
            host: self.named(),
            tried: tried.to_owned(),
            why: why.into(),
        }
    }

    /// An API server refused, or did not answer.
    pub fn trouble(&self, tried: &str, why: &kube::Error) -> HostError {
        match why {
            kube::Error::Api(status) => {
                let said = format!("{} ({})", status.message, status.code);
                // A policy and a quota refuse with the same number, and with words of their own.
                let lacks_right = status.code == FORBIDDEN && status.message.contains(" cannot ");
                let next = if lacks_right {
                    format!(
                        "; the user that it names needs a Role for that in namespace {}",
                        self.namespace
                    )
                } else {
                    String::new()
                };
                self.unserved(tried, said + &next)
            }
            other => self.unserved(tried, causes(other)),
        }
    }

    /// The connection, as its kubeconfig is now: an upgrade takes hours, and may be held by one that somebody mends.
    ///
    /// # Errors
    /// There is no such cluster.
    pub async fn client(&self) -> Result<Client, HostError> {
        let made = connect_within(self.context.as_deref(), CALL).await;
        made.map_err(|why| self.unserved("find its cluster", why))
    }

    /// Objects of a kind in its namespace.
    ///
    /// # Errors
    /// There is no such cluster.
    pub async fn objects<K>(&self) -> Result<Api<K>, HostError>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Ok(Api::namespaced(self.client().await?, &self.namespace))
    }

    /// What a rule refuses, in a host's words.
    #[must_use]
    pub fn refused(&self, node: &NodeAddress, token: &FencingToken, tried: &str, why: &Refused) -> HostError {
        match why {
            Refused::Fenced { seen } => HostError::Fenced {
                environment: node.environment.clone(),
                node: node.node.clone(),
                seen: seen.to_string(),
                ours: token.counter.to_string(),
            },
            Refused::Foreign { seen } => HostError::ForeignHome {
                environment: node.environment.clone(),
                node: node.node.clone(),
                seen: seen.clone(),
            },
            Refused::NoImage(_)
            | Refused::OnDelete
            | Refused::Forgotten
            | Refused::Gone
            | Refused::Aimless
            | Refused::Unsettled
            | Refused::Taken { .. }
            | Refused::NoHistory
            | Refused::Partitioned { .. }
            | Refused::Rewritten { .. }
            | Refused::NotReady { .. }
            | Refused::GoesBack
            | Refused::Order { .. }
            | Refused::ForeignEdit { .. }
            | Refused::CanaryFirst
            | Refused::AllAtOnce
            | Refused::Paused
            | Refused::NoPods
            | Refused::Unstated { .. }
            | Refused::NotOurs { .. } => HostError::Refused {
                host: self.named(),
                tried: tried.to_owned(),
                why: why.to_string(),
            },
        }
    }

    /// The container that runs the build.
    ///
    /// # Errors
    /// It has none of that name, or several and none is named.
    pub fn container(&self, spec: Option<&PodSpec>) -> Result<String, HostError> {
        let misstated = |why: String| HostError::Misstated {
            host: self.named(),
            why,
        };
        let names: Vec<&str> = spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .map(|container| container.name.as_str())
            .collect();
        match (&self.container, names.as_slice()) {
            (Some(stated), names) if names.contains(&stated.as_str()) => Ok(stated.clone()),
            (None, [only]) => Ok((*only).to_owned()),
            (Some(stated), names) => Err(misstated(format!(
                "it has no container {stated}, only {}; `{}.container` says which runs the build",
                names.join(", "),
                self.key
            ))),
            (None, names) => Err(misstated(format!(
                "it has the containers {}; `{}.container` says which runs the build",
                names.join(", "),
                self.key
            ))),
        }
    }

    /// Patches an object of its namespace, unless somebody else wrote meanwhile.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn patched<K>(&self, name: &str, patch: &serde_json::Value, tried: &str) -> Result<Written, HostError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let by_us = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match self
            .objects::<K>()
            .await?
            .patch(name, &by_us, &Patch::Strategic(patch))
            .await
        {
            Ok(_) => Ok(Written::Yes),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(Written::Conflict),
            Err(why) => Err(self.trouble(tried, &why)),
        }
    }

    /// The last words of a container that did not come up. What cannot be read is left out: the reason stands before it.
    pub async fn last_words(&self, pod: &str, container: &str) -> String {
        let Ok(pods) = self.objects::<ApiPod>().await else {
            return String::new();
        };
        for previous in [true, false] {
            let asked = LogParams {
                // Another may have been put beside it.
                container: Some(container.to_owned()),
                previous,
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                ..LogParams::default()
            };
            if let Ok(words) = pods.logs(pod, &asked).await
                && !words.trim().is_empty()
            {
                let lines: Vec<String> = words.trim_end().lines().map(printable).collect();
                return format!("\n{}", lines.join("\n"));
            }
        }
        String::new()
    }
}

/// Whether a write was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was.
    Yes,
    /// Somebody else wrote meanwhile.
    Conflict,
}

/// Why a container waits, with how it ended before.
fn waiting(container: &ContainerStatus) -> Option<Waiting> {
    let state = container.state.as_ref()?;
    let ended = |terminated: &k8s_openapi::api::core::v1::ContainerStateTerminated| {
        let reason = terminated.reason.as_deref().unwrap_or("ended");
        format!("it ended before with exit code {} ({reason})", terminated.exit_code)
    };
    let waits = state.waiting.as_ref()?;
    let before = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let message: Vec<String> = [waits.message.clone(), before.map(ended)]
        .into_iter()
        .flatten()
        .collect();
    Some(Waiting {
        reason: waits.reason.clone().unwrap_or_else(|| "it waits".to_owned()),
        message: message.join("; "),
        restarts: u32::try_from(container.restart_count).unwrap_or_default(),
    })
}

/// Whether a machine has begun with a container.
fn has_begun(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    let waits = state.and_then(|state| state.waiting.as_ref());
    let before_it = |reason: &str| matches!(reason, "ContainerCreating" | "PodInitializing");
    let is_before = waits.is_some_and(|waits| waits.reason.as_deref().is_none_or(before_it));
    state.is_some() && !is_before || container.restart_count > 0
}

/// The image of a container; an empty one where there is no such container, for every container has one.
#[must_use]
pub fn image_of(spec: Option<&PodSpec>, container: &str) -> String {
    let mut containers = spec.iter().flat_map(|spec| &spec.containers);
    let stated = containers.find(|c| c.name == container);
    stated.and_then(|c| c.image.clone()).unwrap_or_default()
}

/// A pod by the container that runs the build; others may have been put beside it (sidecars). One without it has no image of the
/// build.
#[must_use]
pub fn pod_of(pod: ApiPod, container: &str, is_of_template: bool) -> Pod {
    let image = image_of(pod.spec.as_ref(), container);
    let status = pod.status.unwrap_or_default();
    let statuses = status.container_statuses.iter().flatten();
    let own = statuses.clone().find(|c| c.name == container);
    let state = own.and_then(|c| c.state.as_ref());
    let condition = |name: &str| status.conditions.iter().flatten().find(|c| c.type_ == name);
    // A container waits for those that are to run before it, and a pod for a machine.
    let first = status.init_container_statuses.iter().flatten().find_map(waiting);
    // And is of no use without those that were put beside it.
    let beside = statuses.clone().filter(|c| c.name != container).find_map(waiting);
    let unplaced = condition("PodScheduled")
        .filter(|c| c.status == "False")
        .map(|c| Waiting {
            reason: c.reason.clone().unwrap_or_else(|| "Unscheduled".to_owned()),
            message: c.message.clone().unwrap_or_default(),
            restarts: 0,
        });
    let placed = match condition("PodReadyToStartContainers") {
        Some(told) => Some(told).filter(|c| c.status == "True"),
        // Kubernetes before 1.29 has no such word: a container that something became of has its place.
        None => condition("PodScheduled").filter(|c| c.status == "True" && own.is_some_and(has_begun)),
    };
    Pod {
        name: pod.metadata.name.unwrap_or_default(),
        uid: pod.metadata.uid.unwrap_or_default(),
        made_at: pod.metadata.creation_timestamp.map(|at| at.0).unwrap_or_default(),
        placed_at: placed.and_then(|c| c.last_transition_time.as_ref()).map(|at| at.0),
        restarts: own
            .and_then(|c| u32::try_from(c.restart_count).ok())
            .unwrap_or_default(),
        is_of_template,
        image,
        running_since: state
            .and_then(|state| state.running.as_ref())
            .and_then(|running| running.started_at.as_ref())
            .map(|at| at.0),
        // The pod's own word counts those beside it, its readiness gates, and a machine that was lost.
        is_ready: own.is_some_and(|c| c.ready)
            && condition("Ready").is_some_and(|c| c.status == "True")
            && pod.metadata.deletion_timestamp.is_none(),
        waiting: unplaced.or(first).or_else(|| own.and_then(waiting)).or(beside),
        ending: pod.metadata.deletion_timestamp.is_some(),
        machine: pod.spec.and_then(|spec| spec.node_name),
        address: status.pod_ip.filter(|ip| !ip.is_empty()),
    }
}

/// Whether a pod has ended for good: evicted, ended with its machine, or completed. It keeps its owner and stays for days, and its
/// controller counts it no more.
#[must_use]
pub fn is_over(pod: &ApiPod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Who controls an object, by its uid.
#[must_use]
pub fn owner_of(about: &ObjectMeta) -> Option<&String> {
    let mut owners = about.owner_references.iter().flatten();
    owners
        .find(|owner| owner.controller == Some(true))
        .map(|owner| &owner.uid)
}

/// Who but us wrote last what an object states, and when, as its API server remembers it.
#[must_use]
pub fn last_writer(about: &ObjectMeta) -> Option<String> {
    let others = about.managed_fields.iter().flatten().filter(|entry| {
        let states = entry
            .fields_v1
            .as_ref()
            .is_some_and(|fields| !fields.0["f:spec"].is_null());
        states && entry.subresource.as_deref() != Some("status") && entry.manager.as_deref() != Some(MANAGER)
    });
    let last = others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    let manager = last.manager.as_deref()?;
    Some(match &last.time {
        Some(time) => format!("{manager} (at {:.0})", time.0),
        None => manager.to_owned(),
    })
}

/// Whether there is more than was listed.
#[must_use]
pub fn more<K: Clone>(list: &ObjectList<K>) -> bool {
    list.metadata.continue_.as_ref().is_some_and(|next| !next.is_empty())
}

/// Only the object of this uid, with what is made of it, which goes after it.
#[must_use]
pub fn only(uid: &str) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    }
}

/// What a template says beside the image of the container that runs the build.
///
/// # Errors
/// It cannot be written as JSON.
pub fn rest_of(template: &PodTemplateSpec, container: &str) -> Result<Digest, serde_json::Error> {
    let mut rest = template.clone();
    for other in rest.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        other.image.take_if(|_| other.name == container);
    }
    Ok(Digest::of(&serde_json::to_vec(&rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_the_container_of_the_build_can_be_read_and_has_no_image() {
        let pod: ApiPod = serde_json::from_value(serde_json::json!({
            "spec": {"containers": [{"name": "old", "image": "r:1"}, {"name": "proxy", "image": "p:1"}], "nodeName": "m"},
            "status": {"containerStatuses": [
                {"name": "old", "ready": true, "restartCount": 0, "image": "r:1", "imageID": ""},
            ], "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .expect("a pod");
        for (container, image, is_ready) in [("old", "r:1", true), ("app", "", false)] {
            let seen = pod_of(pod.clone(), container, true);
            assert_eq!((seen.image.as_str(), seen.is_ready), (image, is_ready), "{container}");
            assert_eq!(seen.machine.as_deref(), Some("m"));
        }
    }
}

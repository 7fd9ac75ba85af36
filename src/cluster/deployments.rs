//! A Deployment and the canary beside it as nodes: what of them is seen, and how they are moved, over the API of their cluster.
//!
//! Every write carries the `resourceVersion` that was read. What is remembered and the fencing token lie in an annotation of the
//! owner's Deployment, which is written before anything that follows from it: of two drivers one is refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment as ApiDeployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::Selector;
use serde_json::{Value, json};

use super::hold::{self, Hold, Rollout, Template};
use super::pod::{self, Pod, Refused};
use super::printed::{Printed, Whose};
use super::surge::{Answer, Asked, Canary, CanaryWrite, Change, Deployment, Exceeded, Owner, Pause, Record, Trouble};
use super::workload::{
    ANNOTATION, CONFLICT, CONFLICTS_IN_A_ROW, FIRST_PROCESS, LISTED, MANAGER, NOT_FOUND, Workload, Written, image_of,
    is_over, last_writer, more, only, owner_of, pod_of, rest_of,
};
use crate::hosts::{
    FencingToken, Host, HostError, Leaving, NodeAddress, NodeSight, RunningService, Step, StepState, Tail, TailFrom,
    Work,
};
use crate::model::environment::{DeploymentRef, Role};
use crate::model::values::Digest;

/// The label of a canary and of its pods, with the name of the Deployment that it stands for.
pub const CANARY_OF: &str = "stagegate.dev/canary-of";
/// The annotation of a canary's template with the step that wrote it.
const STEP: &str = "stagegate.dev/step";
/// What Kubernetes tells the revisions of a Deployment by, on it and on its `ReplicaSet`s.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The label of a pod that tells the `ReplicaSet` which made it.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// While a step is waited for. A look is four calls, and a pod takes seconds to end and to come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A Deployment's own pods, or its canary.
#[derive(Debug)]
pub struct DeploymentHost {
    place: Arc<DeploymentPlace>,
    role: Role,
}

/// The Deployment that is a component's nodes, with the connection to its cluster.
#[derive(Debug)]
pub struct DeploymentPlace {
    workload: Workload,
    canary: String,
    images: BTreeMap<Digest, String>,
}

/// What is read at once.
struct Seen {
    version: String,
    uid: String,
    /// What is in its annotation, which may not be what was written last.
    lies: Option<String>,
    selector: LabelSelector,
    ready_after_s: Option<i32>,
    progress_within_s: Option<i32>,
    canary_version: Option<String>,
    is: Deployment,
}

impl Seen {
    fn with_image(&self, image: &str) -> Value {
        json!({"spec": {"containers": [{"name": self.is.container, "image": image}]}})
    }
}

impl DeploymentPlace {
    /// A Deployment whose builds have these images. Speaks to nobody yet.
    #[must_use]
    pub fn new(reference: DeploymentRef, images: BTreeMap<Digest, String>) -> Self {
        let canary = reference.canary();
        let DeploymentRef {
            namespace,
            name,
            container,
            context,
        } = reference;
        Self {
            workload: Workload {
                kind: "Deployment",
                key: "deployment",
                namespace,
                name,
                container,
                context,
            },
            canary,
            images,
        }
    }

    fn failed(&self, tried: &str, why: impl Into<String>) -> HostError {
        self.workload.failed(tried, why)
    }

    fn trouble(&self, tried: &str, why: &kube::Error) -> HostError {
        self.workload.trouble(tried, why)
    }

    pub(super) fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The container that runs the build, and the pods of a node that have it.
    pub(super) async fn printing(&self, role: Role) -> Result<(String, Vec<Pod>), HostError> {
        let Seen { is, .. } = self.read().await?;
        let pods = is.pods_of(role).to_vec();
        Ok((is.container, pods))
    }

    async fn deployments(&self) -> Result<Api<ApiDeployment>, HostError> {
        self.workload.objects().await
    }

    /// Nothing where there is no such Deployment.
    async fn find(&self) -> Result<Option<Seen>, HostError> {
        for _ in 0..CONFLICTS_IN_A_ROW {
            let found = self.look().await?;
            let Some(seen) = found.as_ref().filter(|seen| seen.is.is_put_back) else {
                return Ok(found);
            };
            // A copy is newer, too, where both were made after this was read.
            if self.lies_there().await? == seen.lies {
                return Ok(found);
            }
        }
        Err(self
            .workload
            .unserved("look at it", "it changes faster than it can be read"))
    }

    /// What is in its annotation.
    async fn lies_there(&self) -> Result<Option<String>, HostError> {
        let main = self.deployments().await?.get_opt(&self.workload.name).await;
        let main = main.map_err(|why| self.trouble("look at it", &why))?;
        Ok(main.and_then(|main| annotation(&main.metadata, ANNOTATION).cloned()))
    }

    /// What is read at once: each of it may have changed since that before it was read.
    async fn look(&self) -> Result<Option<Seen>, HostError> {
        let tried = "look at it";
        let deployments = self.deployments().await?;
        let found = deployments.get_opt(&self.workload.name).await;
        let Some(main) = found.map_err(|why| self.trouble(tried, &why))? else {
            return Ok(None);
        };
        let canary = deployments.get_opt(&self.canary).await;
        let canary = canary.map_err(|why| self.trouble(tried, &why))?;
        let selector = main.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
        let made = self.made_of(&selector, tried).await?;
        self.seen(main, canary, selector, &made, tried).map(Some)
    }

    async fn read(&self) -> Result<Seen, HostError> {
        let found = self.find().await?;
        found.ok_or_else(|| self.failed("look at it", Refused::Gone.to_string()))
    }

    /// What a selector matches: the canary's is a part of it.
    async fn made_of(&self, selector: &LabelSelector, tried: &str) -> Result<MadeOf, HostError> {
        let selector: Selector = selector
            .clone()
            .try_into()
            .map_err(|e| self.failed(tried, format!("its selector cannot be used: {e}")))?;
        let asked = ListParams::default().labels_from(&selector).limit(LISTED);
        let sets: Api<ReplicaSet> = self.workload.objects().await?;
        let sets = sets.list(&asked).await.map_err(|why| self.trouble(tried, &why))?;
        let pods: Api<ApiPod> = self.workload.objects().await?;
        let pods = pods.list(&asked).await.map_err(|why| self.trouble(tried, &why))?;
        if more(&sets) || more(&pods) {
            return Err(self.failed(
                tried,
                format!("it has more than {LISTED} pods or revisions, and no more are looked at"),
            ));
        }
        Ok(MadeOf {
            sets: sets.items,
            pods: pods.items,
        })
    }

    fn seen(
        &self,
        main: ApiDeployment,
        canary: Option<ApiDeployment>,
        selector: LabelSelector,
        made: &MadeOf,
        tried: &str,
    ) -> Result<Seen, HostError> {
        let about = main.metadata;
        let (lies, by) = (annotation(&about, ANNOTATION).cloned(), last_writer(&about));
        let record: Record = match &lies {
            Some(text) => serde_json::from_str(text)
                .map_err(|e| self.failed(tried, format!("its annotation {ANNOTATION} cannot be read: {e}")))?,
            None => Record::default(),
        };
        let uid = about.uid.clone().unwrap_or_default();
        let writes = record.writes;
        let record = record.or_newer(made.copies_of(&uid));
        let spec = main.spec.unwrap_or_default();
        let container = match record.hold().and_then(Hold::container) {
            Some(container) => container.to_owned(),
            None => self.workload.container(spec.template.spec.as_ref())?,
        };
        let template = image_of(spec.template.spec.as_ref(), &container);
        let rest = rest_of(&spec.template, &container).map_err(|e| self.failed(tried, e.to_string()))?;
        let status = main.status.unwrap_or_default();
        let wanted = spec.replicas.unwrap_or(1);
        let rollout = rollout(&about, &status, wanted);
        let current = made.sets.iter().find(|set| {
            owner_of(&set.metadata) == Some(&uid)
                && annotation(&set.metadata, REVISION).is_some()
                && annotation(&set.metadata, REVISION) == annotation(&about, REVISION)
        });
        let hash = current.and_then(|set| label(&set.metadata, TEMPLATE_HASH));
        let mut pods = Vec::new();
        for pod in made.pods_of(&uid) {
            let is_seen = rollout != Rollout::Unseen;
            let is_of_set = !is_seen || label(&pod.metadata, TEMPLATE_HASH) == hash;
            let mut pod = pod_of(pod.clone(), &container, is_of_set);
            pod.is_of_template &= pod.image == template && !template.is_empty();
            pods.push(pod);
        }
        let canary_version = canary
            .as_ref()
            .and_then(|canary| canary.metadata.resource_version.clone());
        let canary = canary
            .map(|canary| self.seen_canary(canary, made, &container, tried))
            .transpose()?;
        Ok(Seen {
            version: about.resource_version.unwrap_or_default(),
            uid,
            lies,
            selector,
            ready_after_s: spec.min_ready_seconds,
            progress_within_s: spec.progress_deadline_seconds,
            canary_version,
            is: Deployment {
                replicas: u32::try_from(wanted).unwrap_or_default(),
                strategy: serde_json::to_value(&spec.strategy).unwrap_or_default(),
                is_paused: spec.paused.unwrap_or_default(),
                has_history: spec.revision_history_limit != Some(0),
                writer: by,
                rollout,
                trouble: trouble(&status),
                container,
                template,
                rest,
                revision: current.and_then(|set| set.metadata.name.clone()),
                pods,
                canary,
                images: hold::known(record.hold(), self.images.clone()),
                is_put_back: record.writes != writes,
                record,
            },
        })
    }

    fn seen_canary(
        &self,
        canary: ApiDeployment,
        made: &MadeOf,
        container: &str,
        tried: &str,
    ) -> Result<Canary, HostError> {
        let about = canary.metadata;
        let uid = about.uid.clone().unwrap_or_default();
        let spec = canary.spec.unwrap_or_default();
        let is_ours = label(&about, CANARY_OF) == Some(&self.workload.name);
        let image = image_of(spec.template.spec.as_ref(), container);
        let mut template = spec.template;
        let step = template.metadata.as_mut().and_then(not_ours).unwrap_or_default();
        let rest = rest_of(&template, container).map_err(|e| self.failed(tried, e.to_string()))?;
        let mut pods = Vec::new();
        for pod in made.pods_of(&uid) {
            let is_of_step = annotation(&pod.metadata, STEP) == Some(&step);
            pods.push(pod_of(pod.clone(), container, is_of_step));
        }
        Ok(Canary {
            name: self.canary.clone(),
            uid,
            owner: if is_ours { Owner::Us } else { Owner::Others },
            image,
            step,
            rest,
            replicas: spec
                .replicas
                .map_or(1, |replicas| u32::try_from(replicas).unwrap_or_default()),
            is_paused: spec.paused.unwrap_or_default(),
            trouble: trouble(&canary.status.unwrap_or_default()),
            pods,
        })
    }

    /// The template that a revision is of, whatever fields its API server knows; none where it is gone.
    async fn template_of(&self, revision: &str, tried: &str) -> Result<Option<Value>, HostError> {
        let kind = ApiResource::erase::<ReplicaSet>(&());
        let client = self.workload.client().await?;
        let sets: Api<DynamicObject> = Api::namespaced_with(client, &self.workload.namespace, &kind);
        let set = sets.get_opt(revision).await.map_err(|why| self.trouble(tried, &why))?;
        Ok(set.map(|set| {
            let mut template = set.data["spec"]["template"].clone();
            if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
                labels.remove(TEMPLATE_HASH);
            }
            template
        }))
    }

    /// The template from before an upgrade, as a patch that leaves nothing else of the one that is there.
    async fn template_from_before(&self, seen: &Seen, revision: &str, tried: &str) -> Result<Value, HostError> {
        if let Some(mut template) = self.template_of(revision, tried).await? {
            template["$patch"] = json!("replace");
            return Ok(template);
        }
        // Whatever else of the template was changed since stays: its image is what was ours, where its container is there.
        match &seen.is.record.taken {
            Some(_) if seen.is.template.is_empty() => Ok(json!({})),
            Some(held) => Ok(seen.with_image(&held.hold.before)),
            None => Err(self.failed(
                tried,
                format!("ReplicaSet {revision}, which had its template from before, is gone"),
            )),
        }
    }

    /// Makes the owner's Deployment so what it has to be, unless somebody else wrote meanwhile.
    async fn write(&self, seen: &Seen, change: &Change, tried: &str) -> Result<Written, HostError> {
        let record = serde_json::to_string(&change.record).map_err(|e| self.failed(tried, e.to_string()))?;
        let template = match &change.template {
            Template::Same => None,
            Template::Image(image) => Some(seen.with_image(image)),
            Template::Revision(revision) => Some(self.template_from_before(seen, revision, tried).await?),
        };
        let mut patch = json!({
            "metadata": {"resourceVersion": seen.version, "annotations": {ANNOTATION: record}},
        });
        if let Some(template) = template {
            patch["spec"]["template"] = template;
        }
        match change.pause {
            Pause::Same => {}
            Pause::Lifted => patch["spec"]["paused"] = json!(false),
        }
        self.workload
            .patched::<ApiDeployment>(&self.workload.name, &patch, tried)
            .await
    }

    /// Makes the canary so what it has to be, unless somebody else wrote meanwhile.
    async fn write_canary(&self, seen: &Seen, due: &CanaryWrite, tried: &str) -> Result<Written, HostError> {
        let CanaryWrite { revision, image, step } = due;
        let Some(mut template) = self.template_of(revision, tried).await? else {
            let why = format!("ReplicaSet {revision}, which its canary is a copy of, is gone");
            return Err(self.failed(tried, why));
        };
        template["metadata"]["labels"][CANARY_OF] = json!(self.workload.name);
        template["metadata"]["annotations"][STEP] = json!(step);
        let containers = template["spec"]["containers"].as_array_mut();
        for container in containers.into_iter().flatten() {
            if container["name"] == seen.is.container.as_str() {
                container["image"] = json!(image);
            }
        }
        if let Some(version) = &seen.canary_version {
            template["$patch"] = json!("replace");
            let patch = json!({
                "metadata": {"resourceVersion": version},
                "spec": {"replicas": 1, "paused": false, "template": template},
            });
            return self
                .workload
                .patched::<ApiDeployment>(&self.canary, &patch, tried)
                .await;
        }
        let made = self.new_canary(seen, &template);
        let made: ApiDeployment = serde_json::from_value(made).map_err(|e| self.failed(tried, e.to_string()))?;
        let by_us = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.deployments().await?.create(&by_us, &made).await {
            Ok(made) => {
                // Nothing of the owner's was asked for with it: the upgrade may have been given back since that was read.
                let uid = made.metadata.uid.unwrap_or_default();
                let seen = self.read().await?;
                if !seen.is.remembers(step) {
                    self.delete_canary(&uid).await?;
                }
                Ok(Written::Yes)
            }
            // Somebody was quicker.
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(Written::Conflict),
            Err(why) => Err(self.trouble(tried, &why)),
        }
    }

    fn new_canary(&self, seen: &Seen, template: &Value) -> Value {
        let mut selector = serde_json::to_value(&seen.selector).unwrap_or_default();
        selector["matchLabels"][CANARY_OF] = json!(self.workload.name);
        json!({
            "metadata": {
                "name": self.canary,
                "namespace": self.workload.namespace,
                "labels": {CANARY_OF: self.workload.name, "app.kubernetes.io/managed-by": MANAGER},
                // It goes with what it stands for.
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": self.workload.name, "uid": seen.uid,
                }],
            },
            "spec": {
                "replicas": 1,
                // It is one node: its pod ends before the next one comes.
                "strategy": {"type": "Recreate"},
                "minReadySeconds": seen.ready_after_s.unwrap_or_default(),
                // An API server refuses one that is not longer than that.
                "progressDeadlineSeconds": seen.progress_within_s,
                "revisionHistoryLimit": 0,
                "selector": selector,
                "template": template,
            },
        })
    }

    /// What it stood for is gone, and it is not (`kubectl delete --cascade=orphan`).
    async fn delete_orphan(&self) -> Result<(), HostError> {
        let found = self.deployments().await?.get_opt(&self.canary).await;
        let found = found.map_err(|why| self.trouble("delete its canary", &why))?;
        let ours = found.filter(|canary| label(&canary.metadata, CANARY_OF) == Some(&self.workload.name));
        match ours.and_then(|canary| canary.metadata.uid) {
            Some(uid) => self.delete_canary(&uid).await,
            None => Ok(()),
        }
    }

    async fn delete_canary(&self, uid: &str) -> Result<(), HostError> {
        match self.deployments().await?.delete(&self.canary, &only(uid)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == CONFLICT || status.code == NOT_FOUND => Ok(()),
            Err(why) => Err(self.trouble("delete its canary", &why)),
        }
    }
}

/// Each `ReplicaSet` and pod that a selector matches.
struct MadeOf {
    sets: Vec<ReplicaSet>,
    pods: Vec<ApiPod>,
}

impl MadeOf {
    /// What was remembered of a Deployment while each of its `ReplicaSet`s was that of its template, where that can be read.
    fn copies_of(&self, deployment: &str) -> impl Iterator<Item = Record> {
        let is_of = move |set: &&ReplicaSet| owner_of(&set.metadata).is_some_and(|owner| owner == deployment);
        let copies = self.sets.iter().filter(is_of);
        copies.filter_map(|set| serde_json::from_str(annotation(&set.metadata, ANNOTATION)?).ok())
    }

    /// The pods of each `ReplicaSet` of a Deployment, without those that are over.
    fn pods_of<'a>(&'a self, deployment: &'a str) -> impl Iterator<Item = &'a ApiPod> {
        let is_of = move |set: &&ReplicaSet| owner_of(&set.metadata).is_some_and(|owner| owner == deployment);
        self.pods.iter().filter(move |pod| {
            let owner = owner_of(&pod.metadata);
            !is_over(pod)
                && owner.is_some()
                && self
                    .sets
                    .iter()
                    .filter(is_of)
                    .any(|set| set.metadata.uid.as_ref() == owner)
        })
    }
}

fn annotation<'a>(about: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    about.annotations.as_ref()?.get(name)
}

fn label<'a>(about: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    about.labels.as_ref()?.get(name)
}

/// Takes out of a canary's template what it does not have from what it is a copy of, and gives the step that wrote it.
fn not_ours(about: &mut ObjectMeta) -> Option<String> {
    if let Some(labels) = &mut about.labels {
        labels.remove(CANARY_OF);
    }
    about.annotations.as_mut()?.remove(STEP)
}

fn rollout(about: &ObjectMeta, status: &DeploymentStatus, wanted: i32) -> Rollout {
    let (all, updated) = (
        status.replicas.unwrap_or_default(),
        status.updated_replicas.unwrap_or_default(),
    );
    let available = status.available_replicas.unwrap_or_default();
    if status.observed_generation != about.generation {
        Rollout::Unseen
    } else if all != updated {
        Rollout::Rolling
    } else if all == wanted && available == wanted {
        Rollout::Complete
    } else {
        Rollout::Short
    }
}

fn trouble(status: &DeploymentStatus) -> Trouble {
    let condition = |kind: &str, is: &str| {
        let mut all = status.conditions.iter().flatten();
        let found = all.find(|c| c.type_ == kind && c.status == is)?;
        let reason = found.reason.as_deref().unwrap_or(kind);
        let why = format!("{reason}: {}", found.message.as_deref().unwrap_or_default());
        let at = found.last_update_time.as_ref().map(|at| at.0).unwrap_or_default();
        Some(Exceeded { at, why })
    };
    Trouble {
        exceeded: condition("Progressing", "False"),
        failure: condition("ReplicaFailure", "True").map(|said| said.why),
    }
}

impl DeploymentHost {
    /// A node of a Deployment.
    #[must_use]
    pub fn new(place: Arc<DeploymentPlace>, role: Role) -> Self {
        Self { place, role }
    }

    /// What the containers of its pods print.
    #[must_use]
    pub fn printed(&self) -> Printed {
        Printed::of(Whose::Deployment(Arc::clone(&self.place), self.role))
    }

    fn sight(&self, seen: &Seen, steps: &[String]) -> Result<NodeSight, HostError> {
        let is = &seen.is;
        let current = is.goal(self.role);
        let now = Timestamp::now();
        // Whoever scales it goes on, and nothing that does not run is a build's fault.
        if let Some(why) = is.is_scaled_away(self.role) {
            return Err(self.place.failed("look at it", why));
        }
        if let Some(why) = steps.iter().find_map(|id| is.stuck(self.role, id, now)) {
            return Err(self.place.failed("make its pods anew", why));
        }
        let known = steps
            .iter()
            .filter_map(|id| Some((id.clone(), is.state(self.role, id, now)?)));
        let running = is.running(self.role);
        Ok(NodeSight {
            current,
            releases: is.images.keys().copied().collect(),
            running: running.map(|(build, started_at)| RunningService {
                build,
                pid: FIRST_PROCESS,
                started_at,
            }),
            remains: Vec::new(),
            steps: known.collect(),
            free_bytes: None,
            set_up: true,
            fence: is.record.fence.clone(),
            address: is.speaker(self.role).and_then(|pod| pod.address.clone()),
            foreign_edit: is
                .foreign_edit()
                .map(|edit| format!("{}: {edit}", self.place.workload.named())),
            unstated: current.is_none().then(|| {
                let image = is.template.clone();
                format!("{}: {}", self.place.workload.named(), Refused::Unstated { image })
            }),
            held_by: is.record.taken.as_ref().map(|taken| taken.hold.by.clone()),
            workload: Some(seen.uid.clone()),
        })
    }

    /// Writes what a step has to be known by, and gives the Deployment as it is then; or why it cannot be asked.
    async fn asked(
        &self,
        token: &FencingToken,
        id: &str,
        asked: &Asked,
        until: tokio::time::Instant,
    ) -> Result<Result<Seen, Refused>, HostError> {
        let tried = format!("run step {id}");
        let mut conflicts = 0;
        while conflicts < CONFLICTS_IN_A_ROW {
            let Some(seen) = self.place.find().await? else {
                return Ok(Err(Refused::Gone));
            };
            match seen.is.ask(self.role, token, id, asked, Timestamp::now()) {
                // What was given back or scaled a moment ago comes to rest.
                Err(Refused::Unsettled) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(why) => return Ok(Err(why)),
                Ok(Answer::Known(_)) => return Ok(Ok(seen)),
                Ok(Answer::Write(change)) => match self.place.write(&seen, &change, &tried).await? {
                    Written::Yes => return Ok(self.place.find().await?.ok_or(Refused::Gone)),
                    Written::Conflict => conflicts += 1,
                },
            }
        }
        Err(self
            .place
            .workload
            .unserved(&tried, "it changes faster than it can be written"))
    }

    /// Tries a write of the owner's Deployment until nobody else wrote meanwhile.
    async fn change(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        tried: &str,
        of: impl Fn(&Deployment) -> Result<Option<Change>, Refused>,
    ) -> Result<(), HostError> {
        for _ in 0..CONFLICTS_IN_A_ROW {
            let Some(seen) = self.place.find().await? else {
                return Ok(());
            };
            let change = of(&seen.is).map_err(|why| self.place.workload.refused(node, token, tried, &why))?;
            let Some(change) = change else { return Ok(()) };
            match self.place.write(&seen, &change, tried).await? {
                Written::Yes => return Ok(()),
                Written::Conflict => {}
            }
        }
        Err(self
            .place
            .workload
            .unserved(tried, "it changes faster than it can be written"))
    }

    /// Deletes the canary where there is one: its upgrade is over.
    async fn without_canary(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        leaving: &Leaving<'_>,
    ) -> Result<(), HostError> {
        let Some(seen) = self.place.find().await? else {
            return self.place.delete_orphan().await;
        };
        if seen.is.is_of_another(leaving) {
            return Ok(());
        }
        let refused = |why| self.place.workload.refused(node, token, "delete its canary", &why);
        seen.is.admits(token).map_err(refused)?;
        match seen.is.canary.filter(|canary| canary.owner == Owner::Us) {
            Some(canary) => self.place.delete_canary(&canary.uid).await,
            None => Ok(()),
        }
    }

    /// What a node shows of a step that ended without a trace there.
    async fn without_trace(&self, node: &NodeAddress, id: &str, why: Option<Refused>) -> Result<NodeSight, HostError> {
        let mut sight = self.observe(node, &[]).await?;
        sight.steps.insert(id.to_owned(), pod::without_trace(why.as_ref()));
        Ok(sight)
    }
}

impl Host for DeploymentHost {
    async fn observe(&self, _: &NodeAddress, steps: &[String]) -> Result<NodeSight, HostError> {
        match self.place.find().await {
            Ok(Some(seen)) => self.sight(&seen, steps),
            Ok(None) => Ok(self.place.workload.gone()),
            Err(why) => self.place.workload.misstated(why),
        }
    }

    async fn run(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        step: &Step,
        patience: Duration,
    ) -> Result<NodeSight, HostError> {
        let asked = match &step.work {
            Work::Take { deadline } => Asked::Take { deadline: *deadline },
            Work::Activate { release } => Asked::Point { release: *release },
            Work::Restart { start, .. } => Asked::Replace {
                deadline: start.deadline,
            },
            // An image is fetched by the machine of a pod that is made with it.
            Work::Install { release, .. } => {
                let is_stated = self.place.images.contains_key(release);
                let why = (!is_stated).then_some(Refused::NoImage(*release));
                return self.without_trace(node, &step.id, why).await;
            }
            Work::Prune { .. } => return self.observe(node, &[]).await,
            Work::Script(_) | Work::Setup(_) | Work::Start { .. } | Work::Stop { .. } => {
                return Err(self.place.failed(&step.action, "no script runs in a pod"));
            }
        };
        let until = tokio::time::Instant::now() + patience;
        let steps = [step.id.clone()];
        let tried = format!("run step {}", step.id);
        loop {
            let seen = match self.asked(token, &step.id, &asked, until).await? {
                Ok(seen) => seen,
                Err(why @ (Refused::Fenced { .. } | Refused::Foreign { .. })) => {
                    return Err(self.place.workload.refused(node, token, &tried, &why));
                }
                // Nothing was begun: told before anything is.
                Err(why) if matches!(asked, Asked::Take { .. }) || why.is_for_good() => {
                    return self.without_trace(node, &step.id, Some(why)).await;
                }
                Err(why) => return Err(self.place.workload.refused(node, token, &tried, &why)),
            };
            if let Some(due) = seen.is.due(self.role, &step.id) {
                self.place.write_canary(&seen, &due, &tried).await?;
            }
            let mut sight = self.sight(&seen, &steps)?;
            match sight.steps.get_mut(&step.id) {
                Some(StepState::Running) if tokio::time::Instant::now() < until => {}
                Some(StepState::Ended(end)) if end.exit != 0 => {
                    if let Some(pod) = seen.is.failing(self.role) {
                        end.log_tail
                            .push_str(&self.place.workload.last_words(&pod.name, &seen.is.container).await);
                    }
                    return Ok(sight);
                }
                Some(StepState::Running | StepState::Ended(_) | StepState::Died) | None => return Ok(sight),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// An image is fetched by the machine of a pod that is made with it.
    async fn deliver(&self, _: &NodeAddress, _: &FencingToken, _: &Digest, _: &Path) -> Result<(), HostError> {
        Ok(())
    }

    async fn adopt(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        let adopted = |is: &Deployment| {
            if let Err(why @ Refused::Fenced { .. }) = is.admits(token) {
                return Err(why);
            }
            Ok(Some(is.adopted(token)))
        };
        self.change(node, token, "adopt it", adopted).await
    }

    async fn leave(&self, node: &NodeAddress, token: &FencingToken, leaving: &Leaving<'_>) -> Result<(), HostError> {
        self.without_canary(node, token, leaving).await?;
        let given_back = |is: &Deployment| {
            is.admits(token)?;
            Ok(is.given_back(leaving))
        };
        self.change(node, token, "give it back to its owner", given_back)
            .await?;
        // One may have been made in between, by a driver that had lost its lease.
        self.without_canary(node, token, leaving).await
    }

    /// The Deployment is its owner's: only its canary and what we remember of it go.
    async fn destroy(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        let found = self.place.find().await?;
        let by = found.and_then(|seen| Some(seen.is.record.hold()?.by.clone()));
        let leaving = Leaving::Unknown { by: by.as_deref() };
        self.without_canary(node, token, &leaving).await?;
        let forgotten = |is: &Deployment| {
            is.admits(token)?;
            Ok(is.forgotten())
        };
        self.change(node, token, "forget it", forgotten).await
    }

    async fn tail(&self, _: &NodeAddress, file: &str, _: TailFrom, _: usize) -> Result<Tail, HostError> {
        let tried = format!("read {file}");
        Err(self
            .place
            .failed(&tried, "of a pod what it prints is read, and no file"))
    }

    /// Whose session a client of the database is cannot be told from outside of a pod, but by its address.
    async fn sockets(&self, _: &NodeAddress, _: u16) -> Result<Vec<SocketAddr>, HostError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_over_is_no_pod_of_its_deployment() {
        let owned = |kind: &str, uid: &str| json!([{"apiVersion": "v1", "kind": kind, "name": uid, "uid": uid, "controller": true}]);
        let pod = |phase: Value| {
            let of_set = owned("ReplicaSet", "set");
            serde_json::from_value(json!({"metadata": {"ownerReferences": of_set}, "status": {"phase": phase}}))
                .expect("a pod")
        };
        let set = json!({"metadata": {"uid": "set", "ownerReferences": owned("Deployment", "web")}, "spec": {"selector": {}}});
        for (phase, counts) in [
            (json!("Running"), 1),
            (json!("Pending"), 1),
            (json!("Unknown"), 1),
            (Value::Null, 1),
            // Evicted, or ended with its machine: it stays for days.
            (json!("Failed"), 0),
            (json!("Succeeded"), 0),
        ] {
            let made = MadeOf {
                sets: vec![serde_json::from_value(set.clone()).expect("a set")],
                pods: vec![pod(phase.clone())],
            };
            assert_eq!(made.pods_of("web").count(), counts, "{phase}");
        }
    }

    #[test]
    fn of_the_copies_those_of_its_own_count_that_can_be_read() {
        let set = |owner: &str, record: &str| {
            let owners =
                json!([{"apiVersion": "v1", "kind": "Deployment", "name": owner, "uid": owner, "controller": true}]);
            let about = json!({"ownerReferences": owners, "annotations": {ANNOTATION: record}});
            serde_json::from_value(json!({"metadata": about, "spec": {"selector": {}}})).expect("a set")
        };
        let made = MadeOf {
            sets: vec![
                set("web", r#"{"writes": 3}"#),
                set("web", "by hand"),
                set("web-canary", r#"{"writes": 9}"#),
                serde_json::from_value(json!({"spec": {"selector": {}}})).expect("a set"),
            ],
            pods: Vec::new(),
        };
        let writes: Vec<u64> = made.copies_of("web").map(|copy| copy.writes).collect();
        assert_eq!(writes, [3]);
    }

    #[test]
    fn a_word_of_no_progress_is_known_with_its_time() {
        let status = json!({"conditions": [{
            "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m",
            "lastUpdateTime": "1970-01-01T00:00:07Z",
        }]});
        let said = trouble(&serde_json::from_value(status).expect("a status")).exceeded;
        let at = Timestamp::UNIX_EPOCH + Duration::from_secs(7);
        let why = "ProgressDeadlineExceeded: m".to_owned();
        assert_eq!(said, Some(Exceeded { at, why }));
    }
}

//! A pod of a `StatefulSet` as a node: what of it is seen, and how it is moved, over the API of its cluster.
//!
//! Every write to the set carries the `resourceVersion` that was read, and the fencing token lies in it: of two drivers one is
//! refused. A pod is deleted by its `uid`, after the write that says what its successor is made with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{Pod as ApiPod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::ListParams;
use kube::core::Selector;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::hold::{self, Hold, Rollout, Template};
use super::looks::{Looks, MOMENT};
use super::pod::{self, Pod, Refused};
use super::printed::{Printed, Whose};
use super::rolling::{Ask, Asked, Change, Mover, Record, Set, Strategy};
use super::turns::Turns;
use super::workload::{
    ANNOTATION, CONFLICT, CONFLICTS_IN_A_ROW, FIRST_PROCESS, LISTED, NOT_FOUND, Workload, Written, image_of,
    last_writer, more, only, owner_of, pod_of, rest_of,
};
use crate::hosts::{
    FencingToken, Host, HostError, Leaving, NodeAddress, NodeSight, RunningService, Step, StepState, Tail, TailFrom,
    Work,
};
use crate::model::environment::StatefulSetRef;
use crate::model::values::Digest;

/// While a step is waited for. A pod takes seconds to end and to come, and those of a batch are looked at by one.
const LOOK_EVERY: Duration = MOMENT;
/// The label of a pod with the name of the revision that it was made of.
const REVISION: &str = "controller-revision-hash";

/// One pod.
#[derive(Debug)]
pub struct PodHost {
    set: Arc<SetPlace>,
    ordinal: u32,
}

/// The `StatefulSet` that pods of a component are of, with the connection to its cluster.
pub struct SetPlace {
    workload: Workload,
    replicas: u16,
    images: Box<KnownImages>,
    /// Images of a container in revisions by the names of both: a revision never changes. Held while one is read, so that a hundred
    /// pods read it once.
    revisions: Mutex<BTreeMap<(String, String), String>>,
    /// What was seen of it last, with all of its pods.
    looks: Looks<Option<Arc<Seen>>>,
    /// Who reads the set to write it, and for whom.
    turns: Turns<Ask, Answered>,
}

impl std::fmt::Debug for SetPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetPlace")
            .field("workload", &self.workload)
            .finish_non_exhaustive()
    }
}

/// The image of each build that is known by now: one that was found while an upgrade was asked for is among them.
pub type KnownImages = dyn Fn() -> BTreeMap<Digest, String> + Send + Sync;

/// What is heard of a step that was asked for.
type Answered = Result<Result<(), Refused>, HostError>;

/// What becomes of what is asked.
enum Outcome {
    /// It is known.
    Known,
    /// Nothing was heard of it in time.
    NotYet,
    /// It never will be: the set is on its way back and nothing goes forward, or it is not the upgrade's any more.
    Never(Refused),
}

/// What is read at once.
struct Seen {
    version: String,
    uid: String,
    set: Set,
}

impl SetPlace {
    /// A set whose builds have these images. Speaks to nobody yet.
    #[must_use]
    pub fn new(reference: StatefulSetRef, images: Box<KnownImages>) -> Self {
        let StatefulSetRef {
            namespace,
            name,
            replicas,
            container,
            context,
        } = reference;
        Self {
            workload: Workload {
                kind: "StatefulSet",
                key: "statefulSet",
                namespace,
                name,
                container,
                context,
            },
            replicas,
            images,
            revisions: Mutex::default(),
            looks: Looks::default(),
            turns: Turns::default(),
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

    /// The container that runs the build, and the pod that has it, if there is one.
    pub(super) async fn printing(&self, ordinal: u32) -> Result<(String, Vec<Pod>), HostError> {
        let seen = self.look().await?;
        let pod = seen.set.pods.get(&ordinal).cloned();
        Ok((seen.set.container.clone(), pod.into_iter().collect()))
    }

    fn name_of(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.workload.name)
    }

    fn ordinal_of(&self, pod: &ApiPod) -> Option<u32> {
        let name = pod.metadata.name.as_ref()?.strip_prefix(&self.workload.name)?;
        name.strip_prefix('-')?.parse().ok()
    }

    async fn pods(&self) -> Result<Api<ApiPod>, HostError> {
        self.workload.objects().await
    }

    /// What there is of it, for one of those who look within a moment; nothing where there is no such set.
    async fn find(&self) -> Result<Option<Arc<Seen>>, HostError> {
        let read = async || Ok(self.read().await?.map(Arc::new));
        Ok((*self.looks.look(read).await?).clone())
    }

    async fn look(&self) -> Result<Arc<Seen>, HostError> {
        let found = self.find().await?;
        found.ok_or_else(|| self.failed("look at it", Refused::Gone.to_string()))
    }

    /// The pods of a set.
    async fn pods_of(&self, uid: Option<&String>, selector: LabelSelector) -> Result<Vec<ApiPod>, HostError> {
        let tried = "look at its pods";
        let selector: Selector = selector
            .try_into()
            .map_err(|e| self.failed(tried, format!("its selector cannot be used: {e}")))?;
        let asked = ListParams::default().labels_from(&selector).limit(LISTED);
        let pods = self.pods().await?.list(&asked).await;
        let mut pods = pods.map_err(|why| self.trouble(tried, &why))?;
        if more(&pods) {
            return Err(self.failed(
                tried,
                format!("its selector matches more than {LISTED} pods, and no more are looked at"),
            ));
        }
        pods.items.retain(|pod| owner_of(&pod.metadata) == uid);
        Ok(pods.items)
    }

    async fn read(&self) -> Result<Option<Seen>, HostError> {
        let tried = "look at it";
        let sets: Api<StatefulSet> = self.workload.objects().await?;
        let found = sets.get_opt(&self.workload.name).await;
        let Some(set) = found.map_err(|why| self.trouble(tried, &why))? else {
            return Ok(None);
        };
        let version = set.metadata.resource_version.clone().unwrap_or_default();
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let writer = last_writer(&set.metadata);
        let record = match set.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION)) {
            Some(text) => serde_json::from_str(text)
                .map_err(|e| self.failed(tried, format!("its annotation {ANNOTATION} cannot be read: {e}")))?,
            None => Record::default(),
        };
        let spec = set.spec.unwrap_or_default();
        let stated = spec.update_strategy.unwrap_or_default();
        if spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default() != 0 {
            return Err(self.failed(tried, "its ordinals do not begin with 0, which is not supported"));
        }
        let replicas = u32::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
        if record.taken.is_none() && replicas != u32::from(self.replicas) {
            return Err(self.failed(
                tried,
                format!(
                    "it has {replicas} replicas, and the environment states {}; state what is meant in both",
                    self.replicas
                ),
            ));
        }
        let container = match record.hold().and_then(Hold::container) {
            Some(container) => container.to_owned(),
            None => self.workload.container(spec.template.spec.as_ref())?,
        };
        let template = image_of(spec.template.spec.as_ref(), &container);
        let rest = rest_of(&spec.template, &container).map_err(|e| self.failed(tried, e.to_string()))?;
        let status = set.status.unwrap_or_default();
        let revision = |name: &Option<String>| name.clone().unwrap_or_default();
        let current = match revision(&status.current_revision).as_str() {
            "" => template.clone(),
            revision => self.image_of_revision(revision, &container).await?,
        };
        let found = self.pods_of(set.metadata.uid.as_ref(), spec.selector.clone()).await?;
        // The controller has seen it as it is, and counts every pod as one of one revision; ready or not, for one that is not may be
        // what the upgrade is to mend.
        let is_seen = status.observed_generation == set.metadata.generation;
        let counts = [status.updated_replicas, Some(status.replicas)];
        let is_of_one = revision(&status.current_revision) == revision(&status.update_revision)
            && counts.iter().all(|count| *count == spec.replicas);
        let rollout = match (is_seen, is_of_one) {
            (false, _) => Rollout::Unseen,
            (true, false) => Rollout::Rolling,
            (true, true) if status.ready_replicas.unwrap_or_default() == status.replicas => Rollout::Complete,
            (true, true) => Rollout::Short,
        };
        let template_of = is_seen.then(|| revision(&status.update_revision));
        let strategy = strategy_of(&stated);
        let mut pods = BTreeMap::new();
        for pod in found {
            let Some(ordinal) = self.ordinal_of(&pod) else { continue };
            let revision = pod.metadata.labels.as_ref().and_then(|all| all.get(REVISION));
            let is_of_template = template_of.is_some() && revision == template_of.as_ref();
            pods.insert(ordinal, pod_of(pod, &container, is_of_template));
        }
        let seen = Seen {
            version,
            uid,
            set: Set {
                container: container.clone(),
                replicas,
                strategy,
                own: serde_json::to_value(&stated).unwrap_or_default(),
                rollout,
                is_ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
                has_history: spec.revision_history_limit != Some(0),
                writer,
                template,
                rest,
                revision: revision(&status.current_revision),
                current,
                images: hold::known(record.hold(), (self.images)()),
                pods,
                record,
            },
        };
        Ok(Some(seen))
    }

    async fn image_of_revision(&self, name: &str, container: &str) -> Result<String, HostError> {
        let tried = "look at its current revision";
        let asked = (name.to_owned(), container.to_owned());
        let mut revisions = self.revisions.lock().await;
        if let Some(image) = revisions.get(&asked) {
            return Ok(image.clone());
        }
        let template = self.template_of_revision(name, tried).await?;
        let template = template.ok_or_else(|| self.failed(tried, format!("ControllerRevision {name} is gone")))?;
        let spec: PodSpec =
            serde_json::from_value(template["spec"].clone()).map_err(|e| self.failed(tried, e.to_string()))?;
        let image = image_of(Some(&spec), container);
        revisions.insert(asked, image.clone());
        Ok(image)
    }

    /// The template that a revision was made of, as a patch that leaves nothing else of the one before; none where it is gone.
    async fn template_of_revision(&self, name: &str, tried: &str) -> Result<Option<serde_json::Value>, HostError> {
        let api: Api<ControllerRevision> = self.workload.objects().await?;
        let revision = api.get_opt(name).await.map_err(|why| self.trouble(tried, &why))?;
        Ok(revision.map(|revision| {
            let mut template = revision.data.unwrap_or_default().0["spec"]["template"].take();
            template["$patch"] = json!("replace");
            template
        }))
    }

    /// The template from before an upgrade. Where its revision is gone, whatever else was changed since stays: its image is what was ours.
    async fn template_from_before(
        &self,
        seen: &Seen,
        revision: &str,
        tried: &str,
    ) -> Result<serde_json::Value, HostError> {
        if let Some(template) = self.template_of_revision(revision, tried).await? {
            return Ok(template);
        }
        match &seen.set.record.taken {
            Some(taken) => Ok(with_image(&seen.set.container, &taken.hold.before)),
            None => Err(self.failed(
                tried,
                format!("ControllerRevision {revision}, which had its template from before, is gone"),
            )),
        }
    }

    /// Makes a set that was seen so what it has to be, unless somebody else wrote meanwhile.
    async fn write(&self, seen: &Seen, change: &Change, tried: &str) -> Result<Written, HostError> {
        let _writing = self.looks.writing();
        let (version, container) = (&seen.version, &seen.set.container);
        let record = if change.record == Record::default() {
            // Nothing is left of it.
            None
        } else {
            Some(serde_json::to_string(&change.record).map_err(|e| self.failed(tried, e.to_string()))?)
        };
        let strategy = match change.mover {
            Mover::Same => None,
            Mover::Ours(Strategy::Rolling { partition }) => {
                Some(json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}))
            }
            Mover::Ours(Strategy::OnDelete) => Some(json!({"type": "OnDelete", "rollingUpdate": null})),
            // What the owner did not state is taken out again.
            Mover::Owners => {
                let taken = seen.set.record.taken.as_ref();
                let own = taken.map(|taken| taken.own.clone()).unwrap_or_default();
                Some(json!({
                    "type": own.get("type").cloned().unwrap_or_else(|| json!("RollingUpdate")),
                    "rollingUpdate": own.get("rollingUpdate").cloned().unwrap_or_else(|| json!({"partition": 0})),
                }))
            }
        };
        let template = match &change.template {
            Template::Same => None,
            Template::Image(image) => Some(with_image(container, image)),
            Template::Revision(revision) => Some(self.template_from_before(seen, revision, tried).await?),
        };
        let mut patch = json!({
            "metadata": {"resourceVersion": version, "annotations": {ANNOTATION: record}},
        });
        if let Some(template) = template {
            patch["spec"]["template"] = template;
        }
        if let Some(strategy) = strategy {
            patch["spec"]["updateStrategy"] = strategy;
        }
        self.workload
            .patched::<StatefulSet>(&self.workload.name, &patch, tried)
            .await
    }

    /// Asks for a step of a pod, with all who ask meanwhile; nothing where `until` comes before it was asked for.
    async fn ask(&self, ask: &Ask, until: Instant) -> Result<Option<Result<(), Refused>>, HostError> {
        let answer = async |all: Vec<Ask>| match self.write_all(&all).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(why) => vec![Err(why); all.len()],
        };
        self.turns.ask(ask, until, answer).await.transpose()
    }

    async fn write_all(&self, all: &[Ask]) -> Result<Vec<Result<(), Refused>>, HostError> {
        let tried = "ask for steps of its pods";
        for _ in 0..CONFLICTS_IN_A_ROW {
            let Some(seen) = self.find().await? else {
                return Ok(vec![Err(Refused::Gone); all.len()]);
            };
            let (change, answers) = seen.set.ask_all(all, Timestamp::now());
            let Some(change) = change else { return Ok(answers) };
            match self.write(&seen, &change, tried).await? {
                Written::Yes => return Ok(answers),
                Written::Conflict => {}
            }
        }
        Err(self
            .workload
            .unserved(tried, "it changes faster than it can be written"))
    }

    async fn delete(&self, ordinal: u32, uid: &str) -> Result<(), HostError> {
        let _writing = self.looks.writing();
        let name = self.name_of(ordinal);
        match self.pods().await?.delete(&name, &only(uid)).await {
            Ok(_) => Ok(()),
            // The set's own controller was quicker.
            Err(kube::Error::Api(status)) if status.code == CONFLICT || status.code == NOT_FOUND => Ok(()),
            Err(why) => Err(self.trouble("delete its pod", &why)),
        }
    }
}

fn with_image(container: &str, image: &str) -> serde_json::Value {
    json!({"spec": {"containers": [{"name": container, "image": image}]}})
}

fn strategy_of(stated: &StatefulSetUpdateStrategy) -> Strategy {
    let rolling = stated.rolling_update.as_ref();
    let partition = rolling.and_then(|rolling| rolling.partition);
    match stated.type_.as_deref() {
        Some("OnDelete") => Strategy::OnDelete,
        Some(_) | None => Strategy::Rolling {
            partition: partition.and_then(|at| u32::try_from(at).ok()).unwrap_or_default(),
        },
    }
}

impl PodHost {
    /// A pod of a set.
    #[must_use]
    pub fn new(set: Arc<SetPlace>, ordinal: u32) -> Self {
        Self { set, ordinal }
    }

    /// What its container prints.
    #[must_use]
    pub fn printed(&self) -> Printed {
        Printed::of(Whose::Set(Arc::clone(&self.set), self.ordinal))
    }

    fn refused(&self, node: &NodeAddress, token: &FencingToken, tried: &str, why: &Refused) -> HostError {
        self.set.workload.refused(node, token, tried, why)
    }

    fn sight(&self, seen: &Seen, steps: &[String]) -> Result<NodeSight, HostError> {
        let set = &seen.set;
        let current = set.goal(self.ordinal);
        let now = Timestamp::now();
        let mut stuck = steps.iter().filter_map(|id| set.stuck(self.ordinal, id, now));
        if let Some(why) = stuck.next() {
            return Err(self.set.failed(&format!("replace pod {}", self.ordinal), why));
        }
        let known = steps.iter().filter_map(|id| {
            let state = set.state(self.ordinal, id, now)?;
            Some((id.clone(), state))
        });
        let pod = set.pods.get(&self.ordinal);
        Ok(NodeSight {
            current,
            releases: set.images.keys().copied().collect(),
            running: pod.and_then(|pod| {
                Some(RunningService {
                    build: set.build_of(&pod.image),
                    pid: FIRST_PROCESS,
                    started_at: pod.running_since?,
                })
            }),
            remains: Vec::new(),
            steps: known.collect(),
            free_bytes: None,
            set_up: true,
            fence: set.record.fence.clone(),
            address: pod.and_then(|pod| pod.address.clone()),
            foreign_edit: set
                .foreign_edit()
                .map(|edit| format!("{}: {edit}", self.set.workload.named())),
            unstated: current.is_none().then(|| {
                let image = set.image_for(self.ordinal).to_owned();
                format!("{}: {}", self.set.workload.named(), Refused::Unstated { image })
            }),
            held_by: set.record.taken.as_ref().map(|taken| taken.hold.by.clone()),
            workload: Some(seen.uid.clone()),
        })
    }

    fn ask_of(&self, token: &FencingToken, id: &str, asked: Asked) -> Ask {
        Ask {
            ordinal: self.ordinal,
            token: token.clone(),
            id: id.to_owned(),
            asked,
        }
    }

    /// Sees to it that a step is known.
    async fn asked(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        id: &str,
        asked: Asked,
        until: Instant,
    ) -> Result<Outcome, HostError> {
        let tried = format!("run step {id}");
        let ask = self.ask_of(token, id, asked);
        loop {
            match self.set.ask(&ask, until).await? {
                None => return Ok(Outcome::NotYet),
                Some(Ok(())) => return Ok(Outcome::Known),
                // Pods of a batch are not all asked at once, and what was given back a moment ago comes to rest.
                Some(Err(Refused::Order { .. } | Refused::NotReady { .. } | Refused::Unsettled))
                    if Instant::now() < until =>
                {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Some(Err(why)) if why == Refused::GoesBack || why.is_for_good() => return Ok(Outcome::Never(why)),
                Some(Err(why)) => return Err(self.refused(node, token, &tried, &why)),
            }
        }
    }

    /// Takes its set for an upgrade; or what stands in the way of that.
    async fn take(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        id: &str,
        until: Instant,
    ) -> Result<NodeSight, HostError> {
        let ask = self.ask_of(token, id, Asked::Take);
        loop {
            match self.set.ask(&ask, until).await? {
                None => return self.observe(node, &[]).await,
                Some(Ok(())) => return self.without_trace(node, id, None).await,
                Some(Err(Refused::Unsettled)) if Instant::now() < until => tokio::time::sleep(LOOK_EVERY).await,
                // It rolls, and nothing is wrong with that.
                Some(Err(why @ (Refused::Unsettled | Refused::Fenced { .. } | Refused::Foreign { .. }))) => {
                    return Err(self.refused(node, token, "take it for an upgrade", &why));
                }
                Some(Err(why)) => return self.without_trace(node, id, Some(why)).await,
            }
        }
    }

    /// What a pod shows of a step that ended without a trace there.
    async fn without_trace(&self, node: &NodeAddress, id: &str, why: Option<Refused>) -> Result<NodeSight, HostError> {
        let mut sight = self.observe(node, &[]).await?;
        sight.steps.insert(id.to_owned(), pod::without_trace(why.as_ref()));
        Ok(sight)
    }
}

impl PodHost {
    /// Tries a write of the set until nobody else wrote meanwhile.
    async fn change(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        tried: &str,
        of: impl Fn(&Set) -> Result<Option<Change>, Refused>,
    ) -> Result<(), HostError> {
        let _turn = self.set.turns.alone().await;
        for _ in 0..CONFLICTS_IN_A_ROW {
            // Of what is gone nothing is to be given back, and nothing to be forgotten.
            let Some(seen) = self.set.find().await? else {
                return Ok(());
            };
            let Some(change) = of(&seen.set).map_err(|why| self.refused(node, token, tried, &why))? else {
                return Ok(());
            };
            match self.set.write(&seen, &change, tried).await? {
                Written::Yes => return Ok(()),
                Written::Conflict => {}
            }
        }
        Err(self
            .set
            .workload
            .unserved(tried, "it changes faster than it can be written"))
    }
}

impl Host for PodHost {
    async fn observe(&self, _: &NodeAddress, steps: &[String]) -> Result<NodeSight, HostError> {
        match self.set.find().await {
            Ok(Some(seen)) => self.sight(&seen, steps),
            Ok(None) => Ok(self.set.workload.gone()),
            Err(why) => self.set.workload.misstated(why),
        }
    }

    async fn run(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        step: &Step,
        patience: Duration,
    ) -> Result<NodeSight, HostError> {
        let until = Instant::now() + patience;
        let asked = match &step.work {
            Work::Activate { release } => Asked::Point { release: *release },
            Work::Restart { start, .. } => Asked::Replace {
                deadline: start.deadline,
            },
            // An image is fetched by the node of a pod that is made with it.
            Work::Install { release, .. } => {
                let is_known = (self.set.images)().contains_key(release);
                let why = (!is_known).then_some(Refused::NoImage(*release));
                return self.without_trace(node, &step.id, why).await;
            }
            Work::Prune { .. } => return self.observe(node, &[]).await,
            Work::Take { .. } => return self.take(node, token, &step.id, until).await,
            // Of a component with servers beside its pods: what a script does there, a pod's own template does here.
            Work::Script(_) => return self.without_trace(node, &step.id, None).await,
            Work::Setup(_) | Work::Start { .. } | Work::Stop { .. } => {
                return Err(self.set.failed(&step.action, "no script runs in a pod"));
            }
        };
        match self.asked(node, token, &step.id, asked, until).await? {
            Outcome::Known => {}
            Outcome::NotYet => return self.observe(node, std::slice::from_ref(&step.id)).await,
            // Another pod of its batch has failed before this one was begun: there is nothing that the way back has to wait for.
            Outcome::Never(why) => return self.without_trace(node, &step.id, Some(why)).await,
        }
        let steps = [step.id.clone()];
        loop {
            let Some(seen) = self.set.find().await? else {
                return self.without_trace(node, &step.id, Some(Refused::Gone)).await;
            };
            if let Err(why) = seen.set.admits(token) {
                return Err(self.refused(node, token, &format!("run step {}", step.id), &why));
            }
            if let Some(uid) = seen.set.to_delete(self.ordinal, &step.id) {
                self.set.delete(self.ordinal, uid).await?;
            }
            for (ordinal, uid) in seen.set.strangers_to_delete() {
                self.set.delete(ordinal, uid).await?;
            }
            let mut sight = self.sight(&seen, &steps)?;
            match sight.steps.get_mut(&step.id) {
                Some(StepState::Running) if Instant::now() < until => {}
                Some(StepState::Ended(end)) if end.exit != 0 => {
                    let pod = self.set.name_of(self.ordinal);
                    end.log_tail
                        .push_str(&self.set.workload.last_words(&pod, &seen.set.container).await);
                    return Ok(sight);
                }
                Some(StepState::Running | StepState::Ended(_) | StepState::Died) | None => return Ok(sight),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// An image is fetched by the node of a pod that is made with it.
    async fn deliver(&self, _: &NodeAddress, _: &FencingToken, _: &Digest, _: &Path) -> Result<(), HostError> {
        Ok(())
    }

    async fn adopt(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        let adopted = |set: &Set| {
            if let Err(why @ Refused::Fenced { .. }) = set.admits(token) {
                return Err(why);
            }
            let mut change = set.as_it_is();
            change.record.fence = Some(token.clone());
            Ok(Some(change))
        };
        self.change(node, token, "adopt it", adopted).await
    }

    async fn leave(&self, node: &NodeAddress, token: &FencingToken, leaving: &Leaving<'_>) -> Result<(), HostError> {
        let given_back = |set: &Set| {
            set.admits(token)?;
            Ok(set.given_back(leaving))
        };
        self.change(node, token, "give it back to its owner", given_back).await
    }

    /// The set is its owner's: only what we remember of it goes.
    async fn destroy(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        let forgotten = |set: &Set| {
            set.admits(token)?;
            let by = set.record.hold().map(|hold| hold.by.as_str());
            let change = set.given_back(&Leaving::Unknown { by });
            let change = change.unwrap_or_else(|| set.as_it_is());
            Ok(Some(Change {
                record: Record::default(),
                ..change
            }))
        };
        self.change(node, token, "forget it", forgotten).await
    }

    async fn tail(&self, _: &NodeAddress, file: &str, _: TailFrom, _: usize) -> Result<Tail, HostError> {
        Err(self
            .set
            .failed(&format!("read {file}"), "of a pod what it prints is read, and no file"))
    }

    /// Whose session a client of the database is cannot be told from outside of a pod, but by its address.
    async fn sockets(&self, _: &NodeAddress, _: u16) -> Result<Vec<SocketAddr>, HostError> {
        Ok(Vec::new())
    }
}

//! The objects of a replica in its namespace: applied on the server's side by a field manager of our own, members of an `ApplySet`
//! (KEP-3659) by which what is no longer wanted is found again, and compared with what is there.
//!
//! [`Replica::reconcile`] is level-triggered: it acts on what is wanted, what carries the set's label and what is there, and
//! remembers nothing. Killed between any two writes, the next run ends the same:
//!
//! 1. The parent names every kind that is about to be written before any object of it is.
//! 2. An object carries the label from its first write on, so none is ours that is not found again.
//! 3. Only when nothing is left to prune does the parent forget a kind.
//!
//! What must not be is found before the first write: [`plan`] says what by itself, a trial on the server who holds which field.

pub mod demand;
pub mod fields;
pub mod plan;

mod api;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::api::{Applied, Apply, Cluster, Others};
use self::plan::{APPLIED, HeldField, Owned, Place, Refused, SET_ID, Scope};
use crate::model::difference::differences;
use crate::model::manifest::{Manifest, ObjectId};
use crate::model::target::{Drift, KubernetesTarget};
use crate::model::text::Path;
use crate::model::values::Digest;

/// Who we are in `managedFields` of a replica's objects.
pub const MANAGER: &str = "stagegate-replica";
/// Who moves pods from build to build ([`super::pods`]): what it has set since is not ours to put back.
const UPGRADES: &str = "stagegate";
/// Claims of volumes.
const VOLUME_CLAIM: &str = "PersistentVolumeClaim";
/// What replicas are made of, for one whose parent is not there to say it.
const USUAL_KINDS: [&str; 16] = [
    "ConfigMap",
    "Secret",
    "Service",
    "ServiceAccount",
    VOLUME_CLAIM,
    "Pod",
    "Deployment.apps",
    "StatefulSet.apps",
    "DaemonSet.apps",
    "Job.batch",
    "CronJob.batch",
    "Ingress.networking.k8s.io",
    "NetworkPolicy.networking.k8s.io",
    "PodDisruptionBudget.policy",
    "Role.rbac.authorization.k8s.io",
    "RoleBinding.rbac.authorization.k8s.io",
];
/// Whose a namespace is.
const HOME: &str = "stagegate.dev/home";
const ENVIRONMENT: &str = "stagegate.dev/environment";
/// That we have made a namespace, and so may delete it.
const MADE: &str = "stagegate.dev/made-for-replica";
/// When a replica is to go, on the parent of its set.
const EXPIRES: &str = "stagegate.dev/expires-at";
/// KEP-3659: who alone changes the set, and the kinds of its members.
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const GROUP_KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
/// Objects asked for at the same time: enough to hide the way there, and no burden for an API server.
const AT_ONCE: usize = 8;
/// Fields that are told of one object; who needs more looks at the object.
const MOST_FIELDS: usize = 32;
/// A namespace goes when everything in it has; pods get 30 s to end.
const GONE_LIMIT: Duration = Duration::from_mins(3);
/// Pods come within seconds, once their image is there; one of a gigabyte takes a few minutes.
const READY_LIMIT: Duration = Duration::from_mins(5);
/// While one of them is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A value that is longer is told by its beginning.
const MOST_CHARS: usize = 120;

/// Why a replica is not as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// No connection.
    #[error(
        "cannot find the cluster of {environment}: {why}; KUBECONFIG and `target.kubernetes.context` say which it is"
    )]
    NoCluster {
        /// Whose.
        environment: String,
        /// What was found.
        why: String,
    },
    /// No answer.
    #[error("cannot {tried}: {on}: {why}; the same command again goes on with it")]
    Unreachable {
        /// What was tried.
        tried: String,
        /// On what.
        on: String,
        /// What happened.
        why: String,
    },
    /// The API server says no.
    #[error("cannot {tried}: {on}: {why}")]
    Api {
        /// What was tried.
        tried: String,
        /// On what.
        on: String,
        /// What it said.
        why: String,
        /// Its code.
        code: u16,
    },
    /// What must not be.
    #[error("nothing was written:{}", lines(.0))]
    Refused(Vec<Refused>),
    /// Somebody else's namespace.
    #[error(
        "namespace {namespace} is not this replica's ({whose}), so it is left alone; if it is to be, hand it over: `kubectl label \
         --overwrite namespace {namespace} {HOME}={home} {ENVIRONMENT}={environment}`"
    )]
    NotOurs {
        /// The namespace.
        namespace: String,
        /// What it says.
        whose: String,
        /// This home.
        home: String,
        /// This environment.
        environment: String,
    },
    /// A namespace that goes.
    #[error("namespace {0} is being deleted; run the command again when it is gone")]
    Ending(String),
    /// Pods that do not come.
    #[error(
        "{object} has {ready} of {wanted} pods ready after {limit_s} s; `kubectl -n {namespace} describe {object}` says why",
        limit_s = READY_LIMIT.as_secs()
    )]
    NotReady {
        /// The object.
        object: ObjectId,
        /// Its namespace.
        namespace: String,
        /// How many there are.
        ready: u64,
        /// How many there should be.
        wanted: u64,
    },
    /// It did not go.
    #[error(
        "namespace {namespace} was not gone within {limit_s} s; `kubectl describe namespace {namespace}` says what holds it",
        limit_s = GONE_LIMIT.as_secs()
    )]
    Stays {
        /// The namespace.
        namespace: String,
    },
    /// Asked to end.
    #[error("interrupted between two writes; the same command again goes on with it")]
    Interrupted,
}

fn lines(refused: &[Refused]) -> String {
    let all: Vec<String> = refused.iter().map(ToString::to_string).collect();
    format!("\n  {}", all.join("\n  "))
}

/// Told before each write what is written; a break ends before it.
pub type OnWrite<'a> = dyn Fn(&str) -> ControlFlow<()> + Sync + 'a;

/// Whose a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The home.
    pub home: String,
    /// The environment.
    pub environment: String,
}

/// The replica of one environment.
pub struct Replica {
    cluster: Cluster,
    place: Place,
    owner: Owner,
    target: KubernetesTarget,
}

/// Whether the time for which a replica stands begins with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// It does: somebody has asked for the replica.
    Begins,
    /// It goes on as it was.
    GoesOn,
}

/// What a run has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Objects that are wanted.
    pub objects: usize,
    /// Those of them that are otherwise than before.
    pub changed: Vec<ObjectId>,
    /// Those that are gone.
    pub pruned: Vec<ObjectId>,
    /// When it is to go.
    pub expires_at: Option<Timestamp>,
}

/// What is left of a replica that is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Its namespace, with what its workloads have made there (claims and their data).
    Namespace,
    /// Nothing, where we have made the namespace.
    Nothing,
}

/// Whether a replica is as it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncState {
    /// Every object is there and no field of it that we set is otherwise.
    Synced,
    /// Something is otherwise.
    OutOfSync,
}

/// Whether what is wanted is what was applied last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Files {
    /// It is: whatever is otherwise was changed in the cluster.
    AsApplied,
    /// Something was changed since, and nobody has brought it up.
    Changed,
}

/// A replica beside what is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSight {
    /// As a whole.
    pub sync: SyncState,
    /// Its namespace.
    pub namespace: String,
    /// Objects that are wanted.
    pub objects: usize,
    /// Whether the files say what was applied last.
    pub files: Files,
    /// When it is to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Objects that are otherwise.
    #[serde(default)]
    pub out_of_sync: Vec<OutOfSync>,
    /// When that was seen.
    pub seen_at: Timestamp,
}

/// An object that is otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutOfSync {
    /// As kubectl takes it.
    pub object: String,
    /// Why.
    pub cause: Cause,
    /// Which fields, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
}

/// Why an object is otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It is not there.
    Missing,
    /// It was changed in the cluster.
    Drifted,
    /// Its template or what that sees was changed since it was applied.
    FileChanged,
    /// It is there, and no template states it any more.
    Unwanted,
    /// It is somebody else's.
    NotOurs,
}

impl Cause {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Cause::Missing => "is missing",
            Cause::Drifted => "was changed in the cluster",
            Cause::FileChanged => "was changed in the files since it was applied",
            Cause::Unwanted => "is not stated any more",
            Cause::NotOurs => "is somebody else's",
        }
    }
}

/// A field that is otherwise. What a Secret holds is not told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Where.
    pub path: String,
    /// What it would be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
}

/// The parent of the set as it is.
struct Parent {
    group_kinds: BTreeSet<String>,
    expires_at: Option<Timestamp>,
    /// Digest of all that was to be applied last.
    applied: String,
    owned: Owned,
}

/// A namespace that is ours.
struct OurNamespace {
    made: bool,
    owned: Owned,
}

impl Replica {
    /// The replica of an environment in the cluster that its target names. Speaks to nobody yet.
    ///
    /// # Errors
    /// There is no such cluster in the configuration.
    pub async fn connect(target: &KubernetesTarget, owner: Owner) -> Result<Self, ReplicaError> {
        let client = super::connection::connect(target.context.as_deref()).await;
        let client = client.map_err(|why| ReplicaError::NoCluster {
            environment: owner.environment.clone(),
            why,
        })?;
        Ok(Self::with(client, target.clone(), owner))
    }

    /// The same over a connection that is there.
    #[must_use]
    pub fn with(client: Client, target: KubernetesTarget, owner: Owner) -> Self {
        Self {
            cluster: Cluster::new(client),
            place: Place::of(&target.namespace, &owner.environment),
            owner,
            target,
        }
    }

    /// Makes the namespace hold what is wanted, and nothing else of the set's.
    ///
    /// # Errors
    /// What is refused, before anything is written; else the first thing that did not work, after which a next run goes on.
    pub async fn reconcile(
        &self,
        wanted: &[Manifest],
        time: Time,
        now: Timestamp,
        on_write: &OnWrite<'_>,
    ) -> Result<Outcome, ReplicaError> {
        self.refuse(wanted).await?;
        let wanted = plan::ordered(wanted.iter().map(|m| plan::prepared(m, &self.place)).collect());
        let namespace = self.namespace().await?;
        let (parent, owned, live) = match namespace {
            None => (None, Vec::new(), vec![None; wanted.len()]),
            Some(_) => self.seen(&wanted).await?,
        };
        let values = values(&wanted, &live);
        let others = match self.target.drift {
            Drift::Report => Others::Keep,
            Drift::Heal => Others::Lose,
        };
        self.refuse_held(&wanted, &live, &values, others).await?;
        if namespace.is_none() {
            write(on_write, &format!("making namespace {}", self.place.namespace))?;
            self.cluster.make_namespace(&self.namespace_manifest().value).await?;
        }
        let begins = || {
            let ttl = self.target.ttl?;
            Some(now.saturating_add(ttl.signed()).unwrap_or(Timestamp::MAX))
        };
        let expires_at = match (time, &parent) {
            (Time::GoesOn, Some(parent)) => parent.expires_at,
            (Time::GoesOn, None) | (Time::Begins, _) => begins(),
        };
        let applied = digest_of(&wanted);
        let mut group_kinds: BTreeSet<String> = wanted.iter().map(|m| m.id.group_kind()).collect();
        let exactly = group_kinds.clone();
        group_kinds.extend(parent.iter().flat_map(|parent| parent.group_kinds.iter().cloned()));
        write(
            on_write,
            &format!("writing the ApplySet {}", Place::parent_name(&self.owner.environment)),
        )?;
        self.write_parent(&group_kinds, expires_at, &applied).await?;
        let mut outcome = Outcome {
            objects: wanted.len(),
            expires_at,
            ..Outcome::default()
        };
        for ((manifest, live), value) in wanted.iter().zip(&live).zip(&values) {
            write(on_write, &format!("applying {}", manifest.id))?;
            match self.cluster.apply(manifest, value, Apply::Write, others).await? {
                Applied::Object(now) => {
                    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                    if live.as_ref().map(version) != Some(version(&now)) {
                        outcome.changed.push(manifest.id.clone());
                    }
                }
                // Since the trial.
                Applied::Held(fields) => {
                    return Err(ReplicaError::Refused(vec![Refused::Conflict {
                        object: manifest.id.clone(),
                        fields,
                    }]));
                }
            }
        }
        for object in plan::pruned(&wanted, &owned, &self.place) {
            write(on_write, &format!("deleting {}", object.id))?;
            self.cluster.delete(&object).await?;
            outcome.pruned.push(object.id);
        }
        if group_kinds != exactly {
            write(on_write, "writing which kinds the ApplySet has now")?;
            self.write_parent(&exactly, expires_at, &applied).await?;
        }
        Ok(outcome)
    }

    /// Compares what is there with what is wanted. Writes nothing.
    ///
    /// # Errors
    /// The namespace is not ours, or the API server does not answer.
    pub async fn look(&self, wanted: &[Manifest], now: Timestamp) -> Result<ReplicaSight, ReplicaError> {
        self.refuse(wanted).await?;
        let wanted = plan::ordered(wanted.iter().map(|m| plan::prepared(m, &self.place)).collect());
        let (parent, owned, live) = match self.namespace().await {
            Ok(Some(_)) => self.seen(&wanted).await?,
            Ok(None) | Err(ReplicaError::Ending(_)) => (None, Vec::new(), vec![None; wanted.len()]),
            Err(why) => return Err(why),
        };
        let values = values(&wanted, &live);
        let compared: Vec<Option<OutOfSync>> = stream::iter(wanted.iter().zip(&live).zip(&values))
            .map(|((manifest, live), value)| self.compared(manifest, live.as_ref(), value))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut out_of_sync: Vec<OutOfSync> = compared.into_iter().flatten().collect();
        let unwanted = plan::pruned(&wanted, &owned, &self.place).into_iter();
        out_of_sync.extend(unwanted.map(|object| OutOfSync {
            object: object.id.to_string(),
            cause: Cause::Unwanted,
            fields: Vec::new(),
        }));
        Ok(ReplicaSight {
            sync: if out_of_sync.is_empty() {
                SyncState::Synced
            } else {
                SyncState::OutOfSync
            },
            namespace: self.place.namespace.clone(),
            objects: wanted.len(),
            files: match &parent {
                Some(parent) if parent.applied == digest_of(&wanted) => Files::AsApplied,
                Some(_) | None => Files::Changed,
            },
            expires_at: parent.and_then(|parent| parent.expires_at),
            out_of_sync,
            seen_at: now,
        })
    }

    /// Deletes every object of the set, and as much more as is not to be left.
    ///
    /// # Errors
    /// The namespace is not ours, or something could not be deleted.
    pub async fn take_down(&self, left: Left, on_write: &OnWrite<'_>) -> Result<Outcome, ReplicaError> {
        let namespace = match self.namespace().await {
            Ok(Some(namespace)) => namespace,
            Ok(None) => return Ok(Outcome::default()),
            Err(ReplicaError::Ending(_)) if left == Left::Nothing => {
                self.gone().await?;
                return Ok(Outcome::default());
            }
            Err(why) => return Err(why),
        };
        let (parent, owned, _) = self.seen(&[]).await?;
        let mut outcome = Outcome::default();
        for object in plan::pruned(&[], &owned, &self.place) {
            // What lies on a volume goes when everything goes.
            if left == Left::Namespace && object.id.kind == VOLUME_CLAIM {
                continue;
            }
            write(on_write, &format!("deleting {}", object.id))?;
            self.cluster.delete(&object).await?;
            outcome.pruned.push(object.id);
        }
        // Last, for by it the others are found.
        if let Some(parent) = parent {
            write(on_write, &format!("deleting the ApplySet {}", parent.owned.id.name))?;
            self.cluster.delete(&parent.owned).await?;
        }
        if left == Left::Nothing && namespace.made {
            write(on_write, &format!("deleting namespace {}", self.place.namespace))?;
            self.cluster.delete(&namespace.owned).await?;
            self.gone().await?;
        }
        Ok(outcome)
    }

    /// Waits until a set has all its pods ready.
    ///
    /// # Errors
    /// It has not within [`READY_LIMIT`], or somebody asks to end.
    pub async fn is_ready(&self, set: &Manifest, on_look: &OnWrite<'_>) -> Result<(), ReplicaError> {
        let set = plan::prepared(set, &self.place);
        let end = tokio::time::Instant::now() + READY_LIMIT;
        loop {
            let live = self.cluster.live(&set).await?.unwrap_or_default();
            let wanted = live["spec"]["replicas"].as_u64().unwrap_or(1);
            let ready = live["status"]["readyReplicas"].as_u64().unwrap_or_default();
            let is_seen = live["status"]["observedGeneration"] == live["metadata"]["generation"];
            if is_seen && ready == wanted {
                return Ok(());
            }
            if tokio::time::Instant::now() >= end {
                return Err(ReplicaError::NotReady {
                    object: set.id,
                    namespace: self.place.namespace.clone(),
                    ready,
                    wanted,
                });
            }
            write(on_look, &format!("{}: {ready} of {wanted} pods ready", set.id))?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// When the replica is to go, as its parent says.
    ///
    /// # Errors
    /// The namespace is not ours, or the API server does not answer.
    pub async fn expires_at(&self) -> Result<Option<Timestamp>, ReplicaError> {
        if self.namespace().await?.is_none() {
            return Ok(None);
        }
        Ok(self.parent().await?.and_then(|parent| parent.expires_at))
    }

    async fn gone(&self) -> Result<(), ReplicaError> {
        let end = tokio::time::Instant::now() + GONE_LIMIT;
        let namespace = self.namespace_manifest();
        while self.cluster.live(&namespace).await?.is_some() {
            if tokio::time::Instant::now() >= end {
                return Err(ReplicaError::Stays {
                    namespace: self.place.namespace.clone(),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// What is wrong with what is wanted, by itself.
    async fn refuse(&self, wanted: &[Manifest]) -> Result<(), ReplicaError> {
        let mut scopes = Vec::new();
        for manifest in wanted {
            let found = self
                .cluster
                .kind(&manifest.id.group, &manifest.version, &manifest.id.kind)
                .await?;
            scopes.push((manifest.id.clone(), found.map_or(Scope::Unknown, |(_, scope)| scope)));
        }
        let scope = |manifest: &Manifest| {
            let found = scopes.iter().find(|(id, _)| *id == manifest.id);
            found.map_or(Scope::Unknown, |(_, scope)| *scope)
        };
        let refused = plan::refused(wanted, &scope, &self.place, self.target.quota.as_ref());
        if refused.is_empty() {
            Ok(())
        } else {
            Err(ReplicaError::Refused(refused))
        }
    }

    /// What is wrong with writing it over what is there.
    async fn refuse_held(
        &self,
        wanted: &[Manifest],
        live: &[Option<Value>],
        values: &[Value],
        others: Others,
    ) -> Result<(), ReplicaError> {
        let there = wanted
            .iter()
            .zip(live)
            .zip(values)
            .filter_map(|((manifest, live), value)| Some((manifest, live.as_ref()?, value)));
        let refused: Vec<Option<Refused>> = stream::iter(there)
            .map(async |(manifest, live, value)| {
                let manages = fields::manages(live, MANAGER);
                if let Err(refused) = plan::may_write(&manifest.id, live, manages, &self.place) {
                    return Ok(Some(refused));
                }
                // It also says what the server would not take of it, before anything is written.
                let applied = self.cluster.apply(manifest, value, Apply::Trial, others).await?;
                Ok::<_, ReplicaError>(match applied {
                    Applied::Object(_) => None,
                    Applied::Held(fields) => Some(Refused::Conflict {
                        object: manifest.id.clone(),
                        fields: distinct(fields),
                    }),
                })
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let refused: Vec<Refused> = refused.into_iter().flatten().collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(ReplicaError::Refused(refused))
        }
    }

    async fn compared(
        &self,
        manifest: &Manifest,
        live: Option<&Value>,
        value: &Value,
    ) -> Result<Option<OutOfSync>, ReplicaError> {
        let out = |cause, fields| {
            Some(OutOfSync {
                object: manifest.id.to_string(),
                cause,
                fields,
            })
        };
        let Some(live) = live else {
            return Ok(out(Cause::Missing, Vec::new()));
        };
        if plan::may_write(&manifest.id, live, fields::manages(live, MANAGER), &self.place).is_err() {
            return Ok(out(Cause::NotOurs, Vec::new()));
        }
        // Merged by the server, with its defaults: what differs then, we would change; what others have added, we would not.
        let merged = match self.cluster.apply(manifest, value, Apply::Trial, Others::Lose).await? {
            Applied::Object(merged) => merged,
            Applied::Held(_) => return Ok(None),
        };
        let digest = Path::root().key("metadata").key("annotations").key(APPLIED);
        let (of_digest, others): (Vec<_>, Vec<_>) =
            differences(&fields::comparable(live), &fields::comparable(&merged))
                .into_iter()
                .partition(|difference| difference.path == digest);
        if others.is_empty() {
            return Ok(None);
        }
        let is_secret = manifest.id.group.is_empty() && manifest.id.kind == "Secret";
        let told = |value: Option<&Value>| {
            let value = value?;
            Some(if is_secret {
                "(not told)".to_owned()
            } else {
                brief(value)
            })
        };
        let fields = others.iter().take(MOST_FIELDS).map(|difference| Field {
            path: difference.path.to_string(),
            wanted: told(difference.other.as_ref()),
            found: told(difference.one.as_ref()),
            by: fields::holders(live, &difference.path, MANAGER),
        });
        let cause = if of_digest.is_empty() {
            Cause::Drifted
        } else {
            Cause::FileChanged
        };
        Ok(out(cause, fields.collect()))
    }

    /// The namespace, if it is there and ours.
    async fn namespace(&self) -> Result<Option<OurNamespace>, ReplicaError> {
        let Owner { home, environment } = &self.owner;
        let manifest = self.namespace_manifest();
        let Some(live) = self.cluster.live(&manifest).await? else {
            return Ok(None);
        };
        let metadata = &live["metadata"];
        let label = |key: &str| metadata["labels"][key].as_str();
        if label(HOME) != Some(home) || label(ENVIRONMENT) != Some(environment) {
            let whose = match (label(HOME), label(ENVIRONMENT)) {
                (Some(other), Some(of)) => format!("its labels name {of} of home {other}"),
                _ => "it does not carry our labels".to_owned(),
            };
            return Err(ReplicaError::NotOurs {
                namespace: self.place.namespace.clone(),
                whose,
                home: home.clone(),
                environment: environment.clone(),
            });
        }
        if !metadata["deletionTimestamp"].is_null() {
            return Err(ReplicaError::Ending(self.place.namespace.clone()));
        }
        Ok(Some(OurNamespace {
            made: metadata["annotations"][MADE] == "true",
            owned: Owned {
                id: manifest.id,
                uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
                set: None,
            },
        }))
    }

    fn namespace_manifest(&self) -> Manifest {
        let Owner { home, environment } = &self.owner;
        let name = &self.place.namespace;
        let value = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {HOME: home, ENVIRONMENT: environment},
                "annotations": {MADE: "true"},
            },
        });
        of_the_core("Namespace", "", name, value)
    }

    async fn parent(&self) -> Result<Option<Parent>, ReplicaError> {
        let manifest = self.parent_manifest(&BTreeSet::new(), None, "");
        let Some(live) = self.cluster.live(&manifest).await? else {
            return Ok(None);
        };
        let metadata = &live["metadata"];
        if metadata["labels"][SET_ID] != self.place.set.as_str() {
            return Err(ReplicaError::Refused(vec![Refused::NotOurs {
                object: manifest.id,
                set: self.place.set.clone(),
            }]));
        }
        let annotation = |key: &str| metadata["annotations"][key].as_str().unwrap_or_default();
        Ok(Some(Parent {
            group_kinds: annotation(GROUP_KINDS)
                .split(',')
                .filter(|kind| !kind.is_empty())
                .map(str::to_owned)
                .collect(),
            expires_at: annotation(EXPIRES).parse().ok(),
            applied: annotation(APPLIED).to_owned(),
            owned: Owned {
                id: manifest.id,
                uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
                set: None,
            },
        }))
    }

    fn parent_manifest(
        &self,
        group_kinds: &BTreeSet<String>,
        expires_at: Option<Timestamp>,
        applied: &str,
    ) -> Manifest {
        let name = Place::parent_name(&self.owner.environment);
        let kinds: Vec<&str> = group_kinds.iter().map(String::as_str).collect();
        let mut value = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": self.place.namespace,
                "labels": {SET_ID: self.place.set, ENVIRONMENT: self.owner.environment},
                "annotations": {
                    TOOLING: concat!("stagegate/v", env!("CARGO_PKG_VERSION")),
                    GROUP_KINDS: kinds.join(","),
                    APPLIED: applied,
                },
            },
        });
        if let Some(expires_at) = expires_at {
            value["metadata"]["annotations"][EXPIRES] = json!(expires_at.to_string());
        }
        of_the_core("ConfigMap", &self.place.namespace, &name, value)
    }

    /// It is ours alone, so whoever has changed it loses.
    async fn write_parent(
        &self,
        group_kinds: &BTreeSet<String>,
        expires_at: Option<Timestamp>,
        applied: &str,
    ) -> Result<(), ReplicaError> {
        let parent = self.parent_manifest(group_kinds, expires_at, applied);
        self.cluster
            .apply(&parent, &parent.value, Apply::Write, Others::Lose)
            .await?;
        Ok(())
    }

    /// The parent, every object of the set, and what is there of what is wanted.
    async fn seen(
        &self,
        wanted: &[Manifest],
    ) -> Result<(Option<Parent>, Vec<Owned>, Vec<Option<Value>>), ReplicaError> {
        let parent = self.parent().await?;
        let mut kinds: BTreeSet<String> = wanted.iter().map(|m| m.id.group_kind()).collect();
        match &parent {
            Some(parent) => kinds.extend(parent.group_kinds.iter().cloned()),
            // Somebody has deleted it, or it was never made: its objects are looked for by their label.
            None => kinds.extend(USUAL_KINDS.iter().map(|kind| (*kind).to_owned())),
        }
        let owned: Vec<Vec<Owned>> = stream::iter(&kinds)
            .map(async |group_kind| {
                let (kind, group) = group_kind.split_once('.').unwrap_or((group_kind, ""));
                let Place { namespace, set } = &self.place;
                self.cluster.owned(group, kind, namespace, set).await
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let live = stream::iter(wanted)
            .map(|manifest| self.cluster.live(manifest))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok((parent, owned.into_iter().flatten().collect(), live))
    }
}

/// What is applied of each: what an upgrade has moved since is left to it.
fn values(wanted: &[Manifest], live: &[Option<Value>]) -> Vec<Value> {
    wanted
        .iter()
        .zip(live)
        .map(|(manifest, live)| {
            let mut value = manifest.value.clone();
            if let Some(live) = live {
                fields::leave_to(&mut value, live, UPGRADES);
            }
            value
        })
        .collect()
}

/// Of all that is wanted together, by what each object carries.
fn digest_of(wanted: &[Manifest]) -> String {
    let each = wanted.iter().map(|manifest| {
        let digest = &manifest.value["metadata"]["annotations"][APPLIED];
        format!("{} {digest}\n", manifest.id)
    });
    Digest::of(each.collect::<Vec<_>>().concat().as_bytes()).to_string()
}

fn of_the_core(kind: &str, namespace: &str, name: &str, value: Value) -> Manifest {
    Manifest {
        component: String::new(),
        template: String::new(),
        id: ObjectId {
            group: String::new(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        version: "v1".to_owned(),
        value,
    }
}

fn write(on_write: &OnWrite<'_>, what: &str) -> Result<(), ReplicaError> {
    match on_write(what) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ReplicaError::Interrupted),
    }
}

/// A field that several hold is told once for each of them, and once at all.
fn distinct(fields: Vec<HeldField>) -> Vec<HeldField> {
    let mut told: Vec<HeldField> = Vec::new();
    for field in fields {
        if !told.contains(&field) {
            told.push(field);
        }
    }
    told
}

fn brief(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= MOST_CHARS {
        return text;
    }
    let begin: String = text.chars().take(MOST_CHARS).collect();
    format!("{begin}…")
}

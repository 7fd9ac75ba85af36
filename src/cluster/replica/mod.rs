//! The objects of a replica in its namespace: applied on the server's side by a field manager of our own, members of an `ApplySet`
//! (KEP-3659) by which what is no longer wanted is found again, and compared with what is there.
//!
//! [`Replica::reconcile`] is level-triggered: it acts on what is wanted, what carries the set's label and what is there, and
//! remembers nothing. Killed between any two writes, the next run ends the same:
//!
//! 1. The parent names every kind that is about to be written before any object of it is.
//! 2. An object carries the label from its first write on, so none is ours that is not found again.
//! 3. Only when nothing is left to prune does the parent forget a kind, and say what was applied.
//!
//! What must not be is found before the first write: [`plan`] says what by itself, a trial on the server who holds which field.

pub mod demand;
pub mod fields;
pub mod plan;
pub mod sight;

mod api;
mod error;
mod namespace;
mod parent;
mod reconcile;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;
use tokio::sync::OnceCell;

use self::api::{Applied, Apply, Cluster, Others};
pub use self::error::ReplicaError;
pub use self::namespace::ClusterId;
use self::parent::{Parent, Said};
use self::plan::{APPLIED, Moved, Owned, Place, Refused, Scope};
pub use self::reconcile::Tried;
pub use self::sight::{Cause, Field, Files, OutOfSync, ReplicaSight, SyncState};
use crate::model::manifest::{Manifest, ObjectId};
use crate::model::target::KubernetesTarget;
use crate::model::values::Digest;

/// Who we are in `managedFields` of a replica's objects.
pub const MANAGER: &str = "stagegate-replica";
/// Who moves pods from build to build ([`super::pods`]).
const UPGRADES: &str = "stagegate";
/// Claims of volumes.
const VOLUME_CLAIM: &str = "PersistentVolumeClaim";
/// What replicas are made of, for one whose parent is not there to say it.
const USUAL_KINDS: [&str; 17] = [
    "ConfigMap",
    "Secret",
    "Service",
    "ServiceAccount",
    "ResourceQuota",
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
/// Which home has made a namespace, and so may delete it.
const MADE_BY: &str = "stagegate.dev/made-by";
/// Objects asked for at the same time: enough to hide the way there, and no burden for an API server.
const AT_ONCE: usize = 8;
/// A namespace goes when everything in it has; pods get 30 s to end.
const GONE_LIMIT: Duration = Duration::from_mins(3);
/// Pods come within seconds, once their image is there; one of a gigabyte takes a few minutes.
const READY_LIMIT: Duration = Duration::from_mins(5);
/// While one of them is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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

/// What a replica is to hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wanted {
    /// As the files state it.
    pub manifests: Vec<Manifest>,
    /// What upgrades have moved since, which is not the files' to say.
    pub moved: Vec<Moved>,
}

/// The replica of one environment.
pub struct Replica {
    cluster: Cluster,
    place: Place,
    owner: Owner,
    target: KubernetesTarget,
    server: Option<String>,
    made_in: Option<ClusterId>,
    found_in: OnceCell<ClusterId>,
}

/// What a run is for.
#[derive(Debug, Clone, Copy)]
pub enum Run<'a> {
    /// Somebody has asked for the replica: all of it is written, and the time for which it stands begins now.
    BringUp {
        /// Now.
        now: Timestamp,
    },
    /// Somebody has changed these objects, as [`OutOfSync`] names them: they are put back, and nothing else is written.
    Heal(&'a BTreeSet<String>),
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

/// All that is there of a replica.
#[derive(Default)]
struct Seen {
    parent: Option<Parent>,
    /// Every object that carries the set's label.
    owned: Vec<Owned>,
    /// What there is of each that is wanted.
    live: Vec<Option<Value>>,
}

impl Replica {
    /// The replica of an environment in the cluster that its target names. Speaks to nobody yet.
    ///
    /// # Errors
    /// There is no such cluster in the configuration.
    pub async fn connect(target: &KubernetesTarget, owner: Owner) -> Result<Self, ReplicaError> {
        let connected = super::connection::connect_to_server(target.context.as_deref()).await;
        let (client, server) = connected.map_err(|why| ReplicaError::NoCluster {
            environment: owner.environment.clone(),
            why,
        })?;
        let mut replica = Self::with(client, target.clone(), owner);
        replica.server = Some(server);
        Ok(replica)
    }

    /// The same over a connection that is there.
    #[must_use]
    pub fn with(client: Client, target: KubernetesTarget, owner: Owner) -> Self {
        Self {
            cluster: Cluster::new(client),
            place: Place::of(&target.namespace, &owner.environment),
            owner,
            target,
            server: None,
            made_in: None,
            found_in: OnceCell::new(),
        }
    }

    /// The same, which was made in that cluster: in any other it is neither looked for nor changed.
    #[must_use]
    pub fn made_in(self, cluster: Option<ClusterId>) -> Self {
        Self {
            made_in: cluster,
            ..self
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.owner.environment
    }

    /// The name of its namespace.
    #[must_use]
    pub fn namespace_name(&self) -> &str {
        &self.place.namespace
    }

    /// Makes the namespace hold what is wanted, and nothing else of the set's.
    ///
    /// # Errors
    /// As [`Self::try_out`] and [`Self::carry_out`].
    pub async fn reconcile(
        &self,
        wanted: &Wanted,
        run: Run<'_>,
        on_write: &OnWrite<'_>,
    ) -> Result<Outcome, ReplicaError> {
        self.carry_out(self.try_out(wanted, run).await?, on_write).await
    }

    /// Compares what is there with what is wanted. Writes nothing.
    ///
    /// # Errors
    /// The namespace is not ours, or the API server does not answer.
    pub async fn look(&self, wanted: &Wanted, now: Timestamp) -> Result<ReplicaSight, ReplicaError> {
        let refused = self.refused(&wanted.manifests).await?;
        let prepared = self.prepared(&wanted.manifests);
        let objects = prepared.len();
        let ids = prepared.iter().map(|manifest| manifest.id.clone());
        let secrets: Vec<ObjectId> = ids.filter(plan::is_secret).collect();
        let seen = match self.namespace().await {
            Ok(Some(_)) => self.seen(&prepared).await?,
            Ok(None) | Err(ReplicaError::Ending(_)) => Seen::of_nothing(&prepared),
            Err(why) => return Err(why),
        };
        let Seen { parent, owned, live } = seen;
        let mut files = match &parent {
            Some(parent) if parent.said.applied == digest_of(&prepared) => Files::AsApplied,
            Some(_) => Files::Changed,
            None => Files::Unknown,
        };
        let pruned = plan::pruned(&prepared, &owned, &self.place);
        let there = settled(prepared, &live, &wanted.moved).into_iter().zip(&live);
        let compared: Vec<Option<OutOfSync>> = stream::iter(there)
            .map(async |(manifest, live)| {
                if let Some(why) = refused.iter().find(|why| why.is_about(&manifest.id)) {
                    return Ok(Some(OutOfSync {
                        message: Some(why.to_string()),
                        ..OutOfSync::whole(&manifest.id, Cause::Refused)
                    }));
                }
                match live {
                    Some(live) => self.compared(&manifest, live).await,
                    // It has run.
                    None if files == Files::AsApplied && plan::ends_by_itself(&manifest.id) => Ok(None),
                    None => Ok(Some(OutOfSync::whole(&manifest.id, Cause::Missing))),
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut out_of_sync: Vec<OutOfSync> = compared.into_iter().flatten().collect();
        // What a Secret is to hold, its own annotation alone says.
        let secrets: BTreeSet<String> = secrets.iter().map(ToString::to_string).collect();
        let is_new = |object: &OutOfSync| object.cause == Cause::FileChanged && secrets.contains(&object.object);
        if files == Files::AsApplied && out_of_sync.iter().any(is_new) {
            files = Files::Changed;
        }
        if parent.is_none() {
            let id = self.parent_manifest(&Said::default()).id;
            out_of_sync.push(OutOfSync::whole(&id, Cause::Missing));
        }
        out_of_sync.extend(
            pruned
                .iter()
                .map(|object| OutOfSync::whole(&object.id, Cause::Unwanted)),
        );
        Ok(ReplicaSight {
            sync: if out_of_sync.is_empty() {
                SyncState::Synced
            } else {
                SyncState::OutOfSync
            },
            namespace: self.place.namespace.clone(),
            objects,
            files,
            expires_at: parent.and_then(|parent| parent.said.expires_at),
            out_of_sync,
            seen_at: now,
        })
    }

    /// Deletes every object of the set, and as much more as is not to be left. Where the API server would refuse one of them, nothing is
    /// deleted.
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
        let Seen { parent, owned, .. } = self.seen(&[]).await?;
        let mut outcome = Outcome::default();
        let mut going = plan::pruned(&[], &owned, &self.place);
        // What lies on a volume goes when everything goes.
        going.retain(|object| left == Left::Nothing || object.id.kind != VOLUME_CLAIM);
        // Half of a replica is worse than all of it.
        for object in going.iter().chain(parent.as_ref().map(|parent| &parent.owned)) {
            self.cluster.may_delete(object).await?;
        }
        for object in going {
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

    /// Waits until a set has all its pods ready, and none of another template where no upgrade holds some back.
    ///
    /// # Errors
    /// It has not within [`READY_LIMIT`], or somebody asks to end.
    pub async fn is_ready(&self, set: &Manifest, on_look: &OnWrite<'_>) -> Result<(), ReplicaError> {
        let set = plan::prepared(set, &self.place);
        let end = tokio::time::Instant::now() + READY_LIMIT;
        loop {
            let live = self.cluster.live(&set).await?.unwrap_or_default();
            let fields::Rolled { ready, wanted, roll } = fields::rolled(&live);
            if roll == fields::Roll::Ended {
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
        Ok(self.parent().await?.and_then(|parent| parent.said.expires_at))
    }

    /// What is applied, in its order: what is stated, and what bounds it.
    fn prepared(&self, manifests: &[Manifest]) -> Vec<Manifest> {
        let bound = plan::quota(self.target.quota.as_ref(), &self.place);
        let all = manifests.iter().chain(&bound);
        plan::ordered(all.map(|manifest| plan::prepared(manifest, &self.place)).collect())
    }

    /// What is wrong with what is wanted, by itself.
    async fn refused(&self, wanted: &[Manifest]) -> Result<Vec<Refused>, ReplicaError> {
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
        Ok(plan::refused(wanted, &scope, &self.place))
    }

    async fn compared(&self, manifest: &Manifest, live: &Value) -> Result<Option<OutOfSync>, ReplicaError> {
        if plan::may_write(&manifest.id, live, fields::manages(live, MANAGER), &self.place).is_err() {
            return Ok(Some(OutOfSync::whole(&manifest.id, Cause::NotOurs)));
        }
        // Merged by the server, with its defaults: what differs then, we would change; what others have added, we would not.
        match self
            .cluster
            .apply(manifest, &manifest.value, Apply::Trial, Others::Lose)
            .await
        {
            Ok(Applied::Object(merged)) => Ok(sight::of_object(manifest, live, &merged)),
            Ok(Applied::Held(_)) => Ok(None),
            // One that would not be taken hides none of the others.
            Err(ReplicaError::Api {
                code: api::INVALID,
                why,
                ..
            }) => Ok(Some(OutOfSync {
                message: Some(why),
                ..OutOfSync::whole(&manifest.id, Cause::Refused)
            })),
            Err(why) => Err(why),
        }
    }

    /// The parent, every object of the set, and what is there of what is wanted.
    async fn seen(&self, wanted: &[Manifest]) -> Result<Seen, ReplicaError> {
        let parent = self.parent().await?;
        let mut kinds: BTreeSet<String> = wanted.iter().map(|m| m.id.group_kind()).collect();
        match &parent {
            Some(parent) => kinds.extend(parent.said.group_kinds.iter().cloned()),
            // Somebody has deleted it, or it was never made: its objects are looked for by their label.
            None => kinds.extend(USUAL_KINDS.iter().map(|kind| (*kind).to_owned())),
        }
        let owned: Vec<Vec<Owned>> = stream::iter(&kinds)
            .map(async |group_kind| {
                let (kind, group) = group_kind.split_once('.').unwrap_or((group_kind, ""));
                let Place { namespace, set, .. } = &self.place;
                self.cluster.owned(group, kind, namespace, set).await
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let live = stream::iter(wanted)
            .map(async |manifest| {
                // One of a kind that is not known is refused, or told.
                match self.cluster.live(manifest).await {
                    Err(ReplicaError::Api {
                        code: api::NOT_FOUND, ..
                    }) => Ok(None),
                    other => other,
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(Seen {
            parent,
            owned: owned.into_iter().flatten().collect(),
            live,
        })
    }
}

impl Seen {
    fn of_nothing(wanted: &[Manifest]) -> Self {
        Self {
            live: vec![None; wanted.len()],
            ..Self::default()
        }
    }
}

/// Each with what an upgrade has moved since its file was written.
fn settled(mut wanted: Vec<Manifest>, live: &[Option<Value>], moved: &[Moved]) -> Vec<Manifest> {
    for (manifest, live) in wanted.iter_mut().zip(live) {
        for moved in moved.iter().filter(|moved| moved.is_of(&manifest.id)) {
            moved.settle(&mut manifest.value, live.as_ref());
        }
    }
    wanted
}

/// Of all that is wanted together, by what each object carries. Whoever may read the parent may not read Secrets, and could try words
/// against a digest of theirs until one fits: of those only the names of what they hold go into it.
fn digest_of(wanted: &[Manifest]) -> String {
    let each = wanted.iter().map(|manifest| {
        let carried = if plan::is_secret(&manifest.id) {
            let names: Vec<&String> = manifest.value["data"]
                .as_object()
                .into_iter()
                .flat_map(|data| data.keys())
                .collect();
            format!("{names:?}")
        } else {
            manifest.value["metadata"]["annotations"][APPLIED].to_string()
        };
        format!("{} {carried}\n", manifest.id)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_parent_says_tells_nothing_of_what_secrets_hold() {
        let place = Place::of("n", "e");
        let digest = |kind: &str, word: &str| {
            let mut manifest = of_the_core(kind, "", "a", json!({"data": {"word": word}}));
            manifest.value["kind"] = json!(kind);
            digest_of(&[plan::prepared(&manifest, &place)])
        };
        assert_eq!(digest("Secret", "b3Blbg=="), digest("Secret", "c2hhbQ=="));
        assert_ne!(digest("ConfigMap", "open"), digest("ConfigMap", "shut"));
    }
}

//! The API of a cluster as a replica needs it: every call within a limit, kinds found once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
    ValidationDirective,
};
use kube::core::{ApiResource, GroupVersionKind, Status};
use kube::discovery::{self, Scope as KubeScope};
use kube::{Api, Client};
use serde_json::Value;

use super::plan::{HeldField, Owned, PART_OF, Scope};
use super::{MANAGER, ReplicaError};
use crate::cluster::connection::causes;
use crate::model::manifest::{Manifest, ObjectId};

/// An API server answers within milliseconds, and one behind a slow admission webhook within its 10 s.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Objects of one page, and pages of one kind: a replica has some hundreds at most.
const PAGE: u32 = 500;
const MOST_PAGES: usize = 20;
/// Controllers write the status of a workload while its pods come; each conflict costs one reading more.
const ATTEMPTS: u32 = 10;
/// Codes of the API server.
pub(super) const NOT_FOUND: u16 = 404;
/// An object that breaks a rule of its kind, as that some fields stay as they were made.
pub(super) const INVALID: u16 = 422;
const CONFLICT: u16 = 409;

/// How an apply is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Apply {
    /// It is only computed.
    Trial,
    /// It is written.
    Write,
}

/// What becomes of fields that somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// They keep them, and the apply fails.
    Keep,
    /// They lose them.
    Lose,
}

/// What came of an apply.
pub(super) enum Applied {
    /// The object as it is then.
    Object(Box<Value>),
    /// Somebody else holds fields.
    Held(Vec<HeldField>),
}

/// Group, version and kind.
type Gvk = (String, String, String);

/// A cluster.
pub(super) struct Cluster {
    client: Client,
    /// A kind does not move between namespaces and cluster; one that was not there may come.
    kinds: Mutex<BTreeMap<Gvk, (ApiResource, Scope)>>,
}

fn trouble(tried: &str, on: &str, why: &kube::Error) -> ReplicaError {
    let (tried, on) = (tried.to_owned(), on.to_owned());
    match why {
        kube::Error::Api(status) => ReplicaError::Api {
            tried,
            on,
            why: status.message.clone(),
            code: status.code,
        },
        other => ReplicaError::Unreachable {
            tried,
            on,
            why: causes(other),
        },
    }
}

/// A call within the limit.
pub(super) async fn within<T>(
    tried: &str,
    on: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, ReplicaError> {
    tokio::time::timeout(CALL_LIMIT, call)
        .await
        .map_err(|_| ReplicaError::Unreachable {
            tried: tried.to_owned(),
            on: on.to_owned(),
            why: format!("there was no answer within {} s", CALL_LIMIT.as_secs()),
        })
}

impl Cluster {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            kinds: Mutex::default(),
        }
    }

    /// How a kind is asked for, and where its objects lie.
    pub(super) async fn kind(
        &self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<(ApiResource, Scope)>, ReplicaError> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        if let Some(known) = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Some(known.clone()));
        }
        let (tried, on) = ("find the kind", format!("{kind} of {group}/{version}"));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let found = match within(tried, &on, discovery::pinned_kind(&self.client, &gvk)).await? {
            Ok((resource, capabilities)) => (resource, scope_of(&capabilities.scope)),
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => return Ok(None),
            Err(kube::Error::Discovery(_)) => return Ok(None),
            Err(why) => return Err(trouble(tried, &on, &why)),
        };
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.insert(key, found.clone());
        Ok(Some(found))
    }

    /// The same of a kind whose version nobody states: the most stable that serves it.
    async fn kind_of_group(&self, group: &str, kind: &str) -> Result<Option<ApiResource>, ReplicaError> {
        if group.is_empty() {
            return Ok(self.kind("", "v1", kind).await?.map(|(resource, _)| resource));
        }
        // Nobody states a version that is empty.
        let key = (group.to_owned(), String::new(), kind.to_owned());
        if let Some((known, _)) = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Some(known.clone()));
        }
        let (tried, on) = ("find the kind", format!("{kind} of {group}"));
        match within(tried, &on, discovery::group(&self.client, group)).await? {
            Ok(group) => {
                let mut served = group.resources_by_stability().into_iter();
                let Some((resource, capabilities)) = served.find(|(resource, _)| resource.kind == kind) else {
                    return Ok(None);
                };
                let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
                kinds.insert(key, (resource.clone(), scope_of(&capabilities.scope)));
                Ok(Some(resource))
            }
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(None),
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(why) => Err(trouble(tried, &on, &why)),
        }
    }

    fn api(&self, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        }
    }

    async fn api_of(&self, manifest: &Manifest) -> Result<Api<DynamicObject>, ReplicaError> {
        let ObjectId {
            group,
            kind,
            namespace,
            name: _,
        } = &manifest.id;
        let found = self.kind(group, &manifest.version, kind).await?;
        let (resource, _) = found.ok_or_else(|| ReplicaError::Api {
            tried: "find the kind".to_owned(),
            on: manifest.id.to_string(),
            why: "the API server does not have it any more".to_owned(),
            code: NOT_FOUND,
        })?;
        Ok(self.api(namespace, &resource))
    }

    /// An object as it is, if it is there.
    pub(super) async fn live(&self, manifest: &Manifest) -> Result<Option<Value>, ReplicaError> {
        let (tried, on) = ("read it", manifest.id.to_string());
        let api = self.api_of(manifest).await?;
        let found = within(tried, &on, api.get_opt(&manifest.id.name)).await?;
        let found = found.map_err(|why| trouble(tried, &on, &why))?;
        Ok(found.map(|object| serde_json::to_value(object).unwrap_or_default()))
    }

    /// Applies an object on the server's side.
    pub(super) async fn apply(
        &self,
        manifest: &Manifest,
        value: &Value,
        how: Apply,
        others: Others,
    ) -> Result<Applied, ReplicaError> {
        let (tried, on) = ("apply it", manifest.id.to_string());
        let parameters = PatchParams {
            dry_run: how == Apply::Trial,
            force: others == Others::Lose,
            field_manager: Some(MANAGER.to_owned()),
            field_validation: Some(ValidationDirective::Strict),
        };
        let api = self.api_of(manifest).await?;
        let patch = Patch::Apply(value);
        match within(tried, &on, api.patch(&manifest.id.name, &parameters, &patch)).await? {
            Ok(object) => Ok(Applied::Object(Box::new(
                serde_json::to_value(object).unwrap_or_default(),
            ))),
            Err(kube::Error::Api(status)) if status.code == CONFLICT && !held(&status).is_empty() => {
                Ok(Applied::Held(held(&status)))
            }
            Err(why) => Err(trouble(tried, &on, &why)),
        }
    }

    /// Makes the fields of an object that a manager holds nobody's, so that whoever states them has them from then on.
    pub(super) async fn let_go(&self, manifest: &Manifest, manager: &str) -> Result<(), ReplicaError> {
        let (tried, on) = ("let its fields go", manifest.id.to_string());
        let by_us = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api_of(manifest).await?;
        for attempt in 1.. {
            let Some(live) = self.live(manifest).await? else {
                return Ok(());
            };
            let Some(patch) = super::fields::without(&live, manager) else {
                return Ok(());
            };
            match within(tried, &on, api.patch(&manifest.id.name, &by_us, &Patch::Merge(patch))).await? {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == CONFLICT && attempt < ATTEMPTS => {}
                Err(why) => return Err(trouble(tried, &on, &why)),
            }
        }
        Ok(())
    }

    /// Makes a namespace that is not there: one that somebody else has made meanwhile is not taken over.
    pub(super) async fn make_namespace(&self, namespace: &Value) -> Result<(), ReplicaError> {
        let (tried, on) = ("make the namespace", text_of(&namespace["metadata"]["name"]));
        let failed = |why: String| ReplicaError::Api {
            tried: tried.to_owned(),
            on: on.clone(),
            why,
            code: 0,
        };
        let namespace: Namespace = serde_json::from_value(namespace.clone()).map_err(|why| failed(why.to_string()))?;
        let by_us = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let api: Api<Namespace> = Api::all(self.client.clone());
        let made = within(tried, &on, api.create(&by_us, &namespace)).await?;
        made.map(|_| ()).map_err(|why| trouble(tried, &on, &why))
    }

    /// Every object of a kind in a namespace that carries the label of a set.
    pub(super) async fn owned(
        &self,
        group: &str,
        kind: &str,
        namespace: &str,
        set: &str,
    ) -> Result<Vec<Owned>, ReplicaError> {
        // A kind that is gone took its objects with it.
        let Some(resource) = self.kind_of_group(group, kind).await? else {
            return Ok(Vec::new());
        };
        let (tried, on) = ("list those of the replica", format!("{kind} in {namespace}"));
        let api = self.api(namespace, &resource);
        let mut asked = ListParams::default().labels(&format!("{PART_OF}={set}")).limit(PAGE);
        let mut owned = Vec::new();
        for _ in 0..MOST_PAGES {
            let page = within(tried, &on, api.list_metadata(&asked)).await?;
            let page = page.map_err(|why| trouble(tried, &on, &why))?;
            for object in page.items {
                let metadata = object.metadata;
                // It goes already; deleting it once more says nothing new.
                if metadata.deletion_timestamp.is_some() {
                    continue;
                }
                // A controller's own, which has copied labels of what it was made for.
                let mut owners = metadata.owner_references.iter().flatten();
                if owners.any(|owner| owner.controller == Some(true)) {
                    continue;
                }
                owned.push(Owned {
                    id: ObjectId {
                        group: group.to_owned(),
                        kind: kind.to_owned(),
                        namespace: metadata.namespace.unwrap_or_default(),
                        name: metadata.name.unwrap_or_default(),
                    },
                    uid: metadata.uid.unwrap_or_default(),
                    set: metadata.labels.and_then(|mut labels| labels.remove(PART_OF)),
                });
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => asked = asked.continue_token(&token),
                None => return Ok(owned),
            }
        }
        Err(ReplicaError::Api {
            tried: tried.to_owned(),
            on,
            why: format!("there are more than {} of them", PAGE as usize * MOST_PAGES),
            code: 0,
        })
    }

    /// Deletes exactly this object. That it is gone, or another by now, is no error.
    pub(super) async fn delete(&self, object: &Owned) -> Result<(), ReplicaError> {
        self.deleted(object, Trial::Real).await
    }

    /// Whether the API server would delete this object.
    pub(super) async fn may_delete(&self, object: &Owned) -> Result<(), ReplicaError> {
        self.deleted(object, Trial::Dry).await
    }

    async fn deleted(&self, object: &Owned, trial: Trial) -> Result<(), ReplicaError> {
        let (tried, on) = ("delete it", object.id.to_string());
        let ObjectId {
            group,
            kind,
            namespace,
            name,
        } = &object.id;
        let Some(resource) = self.kind_of_group(group, kind).await? else {
            return Ok(());
        };
        let only_this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                resource_version: None,
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            dry_run: trial == Trial::Dry,
            ..DeleteParams::default()
        };
        match within(tried, &on, self.api(namespace, &resource).delete(name, &only_this)).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if [NOT_FOUND, CONFLICT].contains(&status.code) => Ok(()),
            Err(why) => Err(trouble(tried, &on, &why)),
        }
    }
}

/// Whether something is done, or only asked for whether it would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Real,
    Dry,
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn scope_of(scope: &KubeScope) -> Scope {
    match scope {
        KubeScope::Namespaced => Scope::Namespaced,
        KubeScope::Cluster => Scope::Cluster,
    }
}

/// The fields that an apply was refused for.
fn held(status: &Status) -> Vec<HeldField> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| HeldField {
            field: cause.field.trim_start_matches('.').to_owned(),
            // As `conflict with "kubectl-edit" using apps/v1`.
            manager: cause.message.split('"').nth(1).unwrap_or(&cause.message).to_owned(),
        })
        .collect()
}

//! The parent of a replica's `ApplySet`: which kinds it has, when it is to go, and what was applied last.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use super::api::{Apply, Others};
use super::plan::{APPLIED, Manages, Owned, Place, Refused, SET_ID};
use super::{ENVIRONMENT, MANAGER, Replica, ReplicaError, fields, of_the_core};
use crate::model::manifest::Manifest;

/// KEP-3659: who alone changes the set, and the kinds of its members.
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const GROUP_KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
/// When a replica is to go.
const EXPIRES: &str = "stagegate.dev/expires-at";

/// What the parent says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// Kinds of which there may be members.
    pub(super) group_kinds: BTreeSet<String>,
    /// When the replica is to go.
    pub(super) expires_at: Option<Timestamp>,
    /// Digest of all that was applied last; nothing before the first run that came to its end.
    pub(super) applied: String,
}

/// The parent as it is.
pub(super) struct Parent {
    pub(super) said: Said,
    pub(super) owned: Owned,
}

impl Replica {
    pub(super) async fn parent(&self) -> Result<Option<Parent>, ReplicaError> {
        let manifest = self.parent_manifest(&Said::default());
        let Some(live) = self.cluster.live(&manifest).await? else {
            return Ok(None);
        };
        let metadata = &live["metadata"];
        // One whose label was taken off is ours all the same, and gets it again.
        let is_ours = metadata["labels"][SET_ID] == self.place.set.as_str()
            || metadata["labels"][SET_ID].is_null() && fields::manages(&live, MANAGER) == Manages::Yes;
        if !is_ours {
            return Err(ReplicaError::Refused(vec![Refused::OtherParent {
                object: manifest.id,
                set: self.place.set.clone(),
            }]));
        }
        let annotation = |key: &str| metadata["annotations"][key].as_str().unwrap_or_default();
        Ok(Some(Parent {
            said: Said {
                group_kinds: annotation(GROUP_KINDS)
                    .split(',')
                    .filter(|kind| !kind.is_empty())
                    .map(str::to_owned)
                    .collect(),
                expires_at: annotation(EXPIRES).parse().ok(),
                applied: annotation(APPLIED).to_owned(),
            },
            owned: Owned {
                id: manifest.id,
                uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
                set: None,
            },
        }))
    }

    pub(super) fn parent_manifest(&self, said: &Said) -> Manifest {
        let Said {
            group_kinds,
            expires_at,
            applied,
        } = said;
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
    pub(super) async fn write_parent(&self, said: &Said) -> Result<(), ReplicaError> {
        let parent = self.parent_manifest(said);
        self.cluster
            .apply(&parent, &parent.value, Apply::Write, Others::Lose)
            .await?;
        Ok(())
    }
}

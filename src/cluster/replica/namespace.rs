//! The namespace of a replica: whose it is, and in which cluster.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::plan::Owned;
use super::{ENVIRONMENT, GONE_LIMIT, HOME, LOOK_EVERY, MADE_BY, Owner, Replica, ReplicaError, of_the_core};
use crate::model::manifest::Manifest;

/// The namespace that every cluster has, from its making to its end: its identity is the cluster's.
const OF_THE_SYSTEM: &str = "kube-system";

/// Which cluster one is. Two kubeconfigs may name the same by other addresses, and one that was made anew has the address of the
/// one before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterId {
    /// Address of its API server, where the connection was made by a kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Identity of its namespace `kube-system`, where that may be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl ClusterId {
    /// Whether it is certainly not the same: by what cannot be copied, or, where that may not be read, by the address.
    #[must_use]
    pub fn is_another(&self, than: &Self) -> bool {
        match (&self.uid, &than.uid) {
            (Some(one), Some(other)) => one != other,
            (None, _) | (_, None) => match (&self.server, &than.server) {
                (Some(one), Some(other)) => one != other,
                (None, _) | (_, None) => false,
            },
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(f, "the cluster at {server}")?,
            None => f.write_str("a cluster")?,
        }
        match &self.uid {
            Some(uid) => write!(f, " ({OF_THE_SYSTEM} is {uid})"),
            None => Ok(()),
        }
    }
}

/// A namespace that is ours.
pub(super) struct OurNamespace {
    /// That we have made it, and so may delete it.
    pub(super) made: bool,
    pub(super) owned: Owned,
}

impl Replica {
    /// Which cluster the replica is in.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn cluster_id(&self) -> Result<&ClusterId, ReplicaError> {
        let read = async || {
            let system = of_the_core("Namespace", "", OF_THE_SYSTEM, json!({}));
            let uid = match self.cluster.live(&system).await {
                Ok(found) => found.and_then(|live| live["metadata"]["uid"].as_str().map(str::to_owned)),
                // Whoever may work in one namespace need not see another.
                Err(ReplicaError::Api { code: 403, .. }) => None,
                Err(why) => return Err(why),
            };
            Ok(ClusterId {
                server: self.server.clone(),
                uid,
            })
        };
        self.found_in.get_or_try_init(read).await
    }

    /// Refuses to go on in another cluster than the one where the replica was made.
    ///
    /// # Errors
    /// It is another, or the API server does not answer.
    pub async fn refuse_other_cluster(&self) -> Result<(), ReplicaError> {
        let Some(before) = &self.made_in else { return Ok(()) };
        let now = self.cluster_id().await?;
        if now.is_another(before) {
            return Err(ReplicaError::OtherCluster {
                environment: self.owner.environment.clone(),
                before: before.clone(),
                now: now.clone(),
            });
        }
        Ok(())
    }

    /// The namespace, if it is there and ours, in the cluster where the replica was made.
    pub(super) async fn namespace(&self) -> Result<Option<OurNamespace>, ReplicaError> {
        self.refuse_other_cluster().await?;
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
            // One that was handed over by its labels was made by another home, with what others have put there.
            made: metadata["annotations"][MADE_BY] == home.as_str(),
            owned: Owned {
                id: manifest.id,
                uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
                set: None,
            },
        }))
    }

    pub(super) fn namespace_manifest(&self) -> Manifest {
        let Owner { home, environment } = &self.owner;
        let name = &self.place.namespace;
        let value = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {HOME: home, ENVIRONMENT: environment},
                "annotations": {MADE_BY: home},
            },
        });
        of_the_core("Namespace", "", name, value)
    }

    /// Waits until it is.
    pub(super) async fn gone(&self) -> Result<(), ReplicaError> {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_told_from_another_by_what_cannot_be_copied() {
        let id = |server: Option<&str>, uid: Option<&str>| ClusterId {
            server: server.map(str::to_owned),
            uid: uid.map(str::to_owned),
        };
        let (here, there) = (Some("https://a"), Some("https://b"));
        for (one, other, is_another) in [
            (id(here, Some("1")), id(there, Some("1")), false),
            (id(here, Some("1")), id(here, Some("2")), true),
            (id(here, None), id(there, Some("1")), true),
            (id(here, None), id(here, Some("1")), false),
            (id(None, None), id(there, Some("1")), false),
        ] {
            assert_eq!(one.is_another(&other), is_another, "{one} {other}");
            assert_eq!(other.is_another(&one), is_another, "{one} {other}");
        }
    }
}

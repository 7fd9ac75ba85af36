//! The objects of a namespace as a home that is only read: so that what is shown of an upgrade is the same whichever home it is of.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::ledger::record;
use super::objects::{ApiError, Kind, Upgrade, asked, created_at, generation, name, part, patiently, uid};
use crate::home::Home;
use crate::model::upgrade::Phase;
use crate::store::{BuildStatus, Expect, Store as _, StoreError};

/// The lease of all controllers of a namespace.
pub const LEASE: &str = "stagegate-controller";

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The place for it.
    #[error("cannot write what the cluster has into a directory of its own: {0}")]
    Place(#[from] std::io::Error),
    /// The copy.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whose objects are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every one of the namespace.
    Namespace,
    /// This environment's: its own, its upgrades, and the builds of its components.
    Environment(&'a str),
}

/// Who leads the controllers of a namespace, as their lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// One says that it lives.
    By {
        /// Which.
        controller: String,
        /// Since when it has not said so, if that is longer than its lease is good for: clocks may differ by that.
        quiet_since: Option<Timestamp>,
    },
    /// One has said nothing for so long that another would have taken over.
    Gone {
        /// Which.
        controller: String,
        /// When it was heard of last.
        since: Timestamp,
    },
    /// The lease was given back, or there never was one.
    Nobody,
}

impl Lead {
    fn of(lease: Option<LeaseSpec>, now: Timestamp) -> Self {
        let Some(LeaseSpec {
            holder_identity: Some(controller),
            lease_duration_seconds,
            renew_time: Some(renewed),
            ..
        }) = lease
        else {
            return Lead::Nobody;
        };
        let good_for = SignedDuration::from_secs(i64::from(lease_duration_seconds.unwrap_or_default()));
        let (since, age) = (renewed.0, now.duration_since(renewed.0));
        match controller {
            controller if controller.is_empty() => Lead::Nobody,
            controller if age > good_for * 2 => Lead::Gone { controller, since },
            controller => Lead::By {
                controller,
                quiet_since: (age > good_for).then_some(since),
            },
        }
    }

    /// Whether nothing was heard of a controller for longer than one that lives is silent.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match self {
            Lead::By { quiet_since, .. } => quiet_since.is_some(),
            Lead::Gone { .. } | Lead::Nobody => true,
        }
    }
}

/// What was there at one moment.
pub struct Snapshot {
    /// To be read.
    pub home: Home,
    /// Upgrades of which something may be wanted, as objects.
    pub open: Vec<Upgrade>,
    /// The controller that leads, if one does.
    pub lead: Lead,
    /// What cannot be read.
    pub unreadable: Vec<String>,
    /// Which versions of which objects it is of.
    versions: Vec<String>,
    // Goes with it.
    _place: tempfile::TempDir,
}

impl Snapshot {
    /// Reads objects of ours in a namespace.
    ///
    /// # Errors
    /// The API server, or no room.
    pub async fn take(client: &Client, namespace: &str, scope: Scope<'_>) -> Result<Self, SnapshotError> {
        let listed = Listed::of(client, namespace, scope).await?;
        Self::of(listed, lead(client, namespace).await?)
    }

    /// Reads them again; what has not changed since is not written down again.
    ///
    /// # Errors
    /// As [`Snapshot::take`].
    pub async fn again(&mut self, client: &Client, namespace: &str, scope: Scope<'_>) -> Result<(), SnapshotError> {
        let listed = Listed::of(client, namespace, scope).await?;
        let lead = lead(client, namespace).await?;
        if listed.versions() == self.versions {
            self.lead = lead;
        } else {
            *self = Self::of(listed, lead)?;
        }
        Ok(())
    }

    fn of(listed: Listed, lead: Lead) -> Result<Self, SnapshotError> {
        let versions = listed.versions();
        let Listed {
            environments,
            builds,
            upgrades,
        } = listed;
        let place = tempfile::tempdir()?;
        let home = Home::open(place.path())?;
        let mut this = Self {
            home,
            open: Vec::new(),
            lead,
            versions,
            unreadable: Vec::new(),
            _place: place,
        };
        for object in &environments {
            this.environment(object)?;
        }
        for object in &builds {
            this.build(object)?;
        }
        this.upgrades(upgrades)?;
        Ok(this)
    }

    fn environment(&self, object: &DynamicObject) -> Result<(), StoreError> {
        let status = standing(object);
        let since = status["since"].as_str().and_then(|since| since.parse().ok());
        self.put(
            "Environment",
            object,
            &status,
            since.unwrap_or_else(|| created_at(object)),
        )
    }

    fn build(&mut self, object: &DynamicObject) -> Result<(), StoreError> {
        let status: Result<BuildStatus, ApiError> = if object.data["status"].is_object() {
            part(object, "status")
        } else {
            Ok(BuildStatus::default())
        };
        match status {
            Ok(status) => self.put("Build", object, &json!(status), created_at(object)),
            Err(why) => {
                self.unreadable.push(why.to_string());
                Ok(())
            }
        }
    }

    /// With when it became what its status says.
    fn put(&self, kind: &str, object: &DynamicObject, status: &Value, since: Timestamp) -> Result<(), StoreError> {
        let (store, made_at) = (self.home.store(), created_at(object));
        store.put_resource(kind, name(object), &object.data["spec"], Expect::Anything, made_at)?;
        store.put_status(kind, name(object), status, Expect::Anything, since)?;
        Ok(())
    }

    /// All that have ended, and of the others of an environment the one whose turn it is.
    fn upgrades(&mut self, objects: Vec<DynamicObject>) -> Result<(), StoreError> {
        let mut upgrades = Vec::new();
        for object in objects {
            match Upgrade::read(object) {
                Ok(upgrade) => upgrades.push(upgrade),
                Err(why) => self.unreadable.push(why.to_string()),
            }
        }
        upgrades.sort_by_key(in_turn);
        for upgrade in upgrades {
            let is_open = !upgrade.status.phase.is_final();
            let mut before = self.open.iter();
            if !(is_open && before.any(|other| other.spec.environment == upgrade.spec.environment)) {
                // Its own name: here nobody looks for it on nodes.
                let record = record(&upgrade, 1);
                self.home.store().create_upgrade(
                    name(&upgrade.object),
                    &record.spec,
                    &record.status,
                    record.created_at,
                )?;
            }
            if is_open {
                self.open.push(upgrade);
            }
        }
        Ok(())
    }

    /// The upgrade of an environment whose turn it is.
    #[must_use]
    pub fn open_in(&self, environment: &str) -> Option<&Upgrade> {
        self.open.iter().find(|upgrade| upgrade.spec.environment == environment)
    }
}

/// What an API server has listed.
struct Listed {
    environments: Vec<DynamicObject>,
    builds: Vec<DynamicObject>,
    upgrades: Vec<DynamicObject>,
}

impl Listed {
    async fn of(client: &Client, namespace: &str, scope: Scope<'_>) -> Result<Self, ApiError> {
        let list = async |kind: Kind, chosen: ListParams| {
            let (api, what) = (
                kind.api(client, namespace),
                format!("{kind:?}s of namespace {namespace}"),
            );
            let listed = patiently(|| asked("list", &what, api.list(&chosen))).await;
            listed.map(|list| list.items)
        };
        let every = ListParams::default();
        let (environments, upgrades) = match scope {
            Scope::Namespace => (
                list(Kind::Environment, every.clone()).await?,
                list(Kind::Upgrade, every.clone()).await?,
            ),
            Scope::Environment(environment) => {
                let named = every.clone().fields(&format!("metadata.name={environment}"));
                let of_it = every.clone().fields(&format!("spec.environment={environment}"));
                let mut upgrades = match list(Kind::Upgrade, of_it).await {
                    // Definitions from before it could be selected by.
                    Err(ApiError::Refused { code: 400, .. }) => list(Kind::Upgrade, every.clone()).await?,
                    listed => listed?,
                };
                upgrades.retain(|upgrade| upgrade.data["spec"]["environment"] == environment);
                (list(Kind::Environment, named).await?, upgrades)
            }
        };
        let mut builds = list(Kind::Build, every).await?;
        // Of a replica its base knows the components.
        let is_replica = |environment: &DynamicObject| environment.data["spec"]["replicaOf"].is_string();
        if scope != Scope::Namespace && !environments.iter().any(is_replica) {
            let components = components(&environments, &upgrades);
            builds.retain(|build| {
                build.data["spec"]["component"]
                    .as_str()
                    .is_none_or(|c| components.contains(c))
            });
        }
        Ok(Self {
            environments,
            builds,
            upgrades,
        })
    }

    fn versions(&self) -> Vec<String> {
        let all = [&self.environments, &self.builds, &self.upgrades].into_iter().flatten();
        all.map(|object| {
            let version = object.metadata.resource_version.as_deref().unwrap_or_default();
            format!("{} {} {version}", uid(object), name(object))
        })
        .collect()
    }
}

/// The components that an environment has, or had when it was upgraded.
fn components(environments: &[DynamicObject], upgrades: &[DynamicObject]) -> BTreeSet<String> {
    let stated = environments
        .iter()
        .filter_map(|environment| environment.data["spec"]["components"].as_array());
    let stated = stated.flatten().map(|component| &component["name"]);
    let those = upgrades.iter().map(|upgrade| &upgrade.data["spec"]["component"]);
    stated
        .chain(those)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// How an environment stands, as its object says it: what came of its last bring-up, if that was as it is stated now.
fn standing(object: &DynamicObject) -> Value {
    let ready = conditions_of(object).find(|condition| condition["type"] == "Ready");
    let ready = ready.filter(|ready| ready["observedGeneration"].as_i64() == Some(generation(object)));
    let replica = object.data["status"]["replica"].clone();
    let Some(ready) = ready else {
        let message = "the controller has not brought it up as it is stated now";
        return json!({"phase": "ComingUp", "since": created_at(object), "message": message, "replica": replica});
    };
    let phase = if ready["status"] == "True" {
        &json!("Up")
    } else {
        &ready["reason"]
    };
    let mut status = json!({"phase": phase, "since": ready["lastTransitionTime"], "replica": replica});
    if ready["status"] != "True" {
        status["message"] = ready["message"].clone();
    } else if let Some(synced) = conditions_of(object).find(|c| c["type"] == "Synced" && c["status"] == "False") {
        // Somebody has changed what runs there.
        status["message"] = synced["message"].clone();
    }
    status
}

fn conditions_of(object: &DynamicObject) -> impl Iterator<Item = &Value> {
    object.data["status"]["conditions"].as_array().into_iter().flatten()
}

/// The order in which upgrades of an environment have their turn: what has ended, what was begun, what is older.
fn in_turn(upgrade: &Upgrade) -> (bool, bool, Timestamp, String) {
    let Upgrade { object, status, .. } = upgrade;
    let begun = status.phase != Phase::Pending;
    (
        !status.phase.is_final(),
        !begun,
        created_at(object),
        name(object).to_owned(),
    )
}

/// Who leads the controllers of a namespace now.
///
/// # Errors
/// The API server.
pub async fn lead(client: &Client, namespace: &str) -> Result<Lead, ApiError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let what = format!("Lease {LEASE}");
    let lease = patiently(|| asked("read", &what, leases.get_opt(LEASE))).await?;
    Ok(Lead::of(lease.and_then(|lease| lease.spec), Timestamp::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_stands_as_its_last_bring_up_as_it_is_stated_now_has_left_it() {
        let stands = |status: &str, reason: &str, of: i64| {
            let ready = json!({
                "type": "Ready", "status": status, "reason": reason, "message": "why", "observedGeneration": of,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let object = json!({
                "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment",
                "metadata": {"name": "shop", "generation": 2}, "status": {"conditions": [ready]},
            });
            let status = standing(&serde_json::from_value(object).expect("an object"));
            (status["phase"].clone(), status["message"].clone())
        };
        assert_eq!(stands("True", "Up", 2), (json!("Up"), Value::Null));
        assert_eq!(stands("False", "NotUp", 2), (json!("NotUp"), json!("why")));
        assert_eq!(stands("False", "Invalid", 2), (json!("Invalid"), json!("why")));
        for (status, reason) in [("True", "Up"), ("False", "NotUp")] {
            assert_eq!(stands(status, reason, 1).0, "ComingUp", "it has changed since");
        }
    }

    #[test]
    fn who_has_said_nothing_for_too_long_leads_no_more() {
        let at = |s: i64| Timestamp::from_second(1_700_000_000 + s).expect("a constant");
        let lease = |holder: &str| {
            let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": at(0).to_string()});
            Some(serde_json::from_value(spec).expect("a lease"))
        };
        let controller = || "a".to_owned();
        let by = |quiet_since| Lead::By {
            controller: controller(),
            quiet_since,
        };
        let gone = Lead::Gone {
            controller: controller(),
            since: at(0),
        };
        for (holder, now, expected, is_quiet) in [
            ("a", 15, by(None), false),
            // The other clock may be behind.
            ("a", -20, by(None), false),
            ("a", 16, by(Some(at(0))), true),
            ("a", 30, by(Some(at(0))), true),
            ("a", 31, gone, true),
            ("", 1, Lead::Nobody, true),
        ] {
            let found = Lead::of(lease(holder), at(now));
            assert_eq!((found.is_quiet(), found), (is_quiet, expected), "{holder} {now}");
        }
        assert_eq!(Lead::of(None, at(0)), Lead::Nobody);
    }

    #[test]
    fn an_environment_is_as_old_as_how_it_stands_and_has_what_was_seen_of_its_replica() {
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "Up", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T00:00:00Z",
        });
        let object = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment",
            "metadata": {"name": "shop", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"components": []},
            "status": {"conditions": [ready], "replica": {"sight": {"sync": "OutOfSync"}}},
        });
        let listed = Listed {
            environments: vec![serde_json::from_value(object).expect("an object")],
            builds: Vec::new(),
            upgrades: Vec::new(),
        };
        let snapshot = Snapshot::of(listed, Lead::Nobody).expect("a home");
        let shop = snapshot.home.store().resource("Environment", "shop").expect("read");
        let shop = shop.expect("it is there");
        assert_eq!(shop.updated_at.to_string(), "2026-01-02T00:00:00Z");
        assert_eq!(shop.status["replica"]["sight"]["sync"], "OutOfSync");
    }
}

//! The objects of a namespace as a home that is only read: so that what is shown of an upgrade is the same whichever home it is of.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::ledger::record;
use super::objects::{ApiError, Kind, Upgrade, asked, created_at, name, part, patiently};
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

/// What was there at one moment.
pub struct Snapshot {
    /// To be read.
    pub home: Home,
    /// Upgrades of which something may be wanted, as objects.
    pub open: Vec<Upgrade>,
    /// The controller that leads, if one does.
    pub leader: Option<String>,
    /// What cannot be read.
    pub unreadable: Vec<String>,
    // Goes with it.
    _place: tempfile::TempDir,
}

impl Snapshot {
    /// Reads every object of ours in a namespace.
    ///
    /// # Errors
    /// The API server, or no room.
    pub async fn take(client: &Client, namespace: &str) -> Result<Self, SnapshotError> {
        let list = async |kind: Kind| {
            let (api, all) = (kind.api(client, namespace), ListParams::default());
            let what = format!("{kind:?}s of namespace {namespace}");
            let listed = patiently(|| asked("list", &what, api.list(&all))).await;
            listed.map(|list| list.items)
        };
        let environments = list(Kind::Environment).await?;
        let builds = list(Kind::Build).await?;
        let upgrades = list(Kind::Upgrade).await?;
        let place = tempfile::tempdir()?;
        let home = Home::open(place.path())?;
        let mut this = Self {
            home,
            open: Vec::new(),
            leader: leader(client, namespace).await?,
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
        let conditions = object.data["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions
            .into_iter()
            .find(|c| c["type"] == "Ready")
            .unwrap_or_default();
        let phase = if ready["status"] == "True" { "Up" } else { "ComingUp" };
        let since = ready["lastTransitionTime"].as_str().map(str::to_owned);
        let since = since.unwrap_or_else(|| created_at(object).to_string());
        let mut status = json!({"phase": phase, "since": since});
        if phase == "ComingUp" {
            status["reason"] = ready["reason"].clone();
            status["message"] = ready["message"].clone();
        }
        self.put("Environment", object, &status)
    }

    fn build(&mut self, object: &DynamicObject) -> Result<(), StoreError> {
        let status: Result<BuildStatus, ApiError> = if object.data["status"].is_object() {
            part(object, "status")
        } else {
            Ok(BuildStatus::default())
        };
        match status {
            Ok(status) => self.put("Build", object, &json!(status)),
            Err(why) => {
                self.unreadable.push(why.to_string());
                Ok(())
            }
        }
    }

    fn put(&self, kind: &str, object: &DynamicObject, status: &Value) -> Result<(), StoreError> {
        let (store, at) = (self.home.store(), created_at(object));
        store.put_resource(kind, name(object), &object.data["spec"], Expect::Anything, at)?;
        store.put_status(kind, name(object), status, Expect::Anything, at)?;
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

async fn leader(client: &Client, namespace: &str) -> Result<Option<String>, ApiError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let what = format!("Lease {LEASE}");
    let lease = patiently(|| asked("read", &what, leases.get_opt(LEASE))).await?;
    let Some(spec) = lease.and_then(|lease| lease.spec) else {
        return Ok(None);
    };
    let good_for = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    let renewed = spec.renew_time.map(|at| at.0);
    // By two clocks, so with as much time again.
    let is_good = renewed.is_some_and(|at| {
        let age = Timestamp::now().duration_since(at);
        age.as_secs() <= i64::try_from(good_for * 2).unwrap_or(i64::MAX)
    });
    Ok(spec.holder_identity.filter(|holder| is_good && !holder.is_empty()))
}

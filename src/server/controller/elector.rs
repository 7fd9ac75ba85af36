//! Keeps this process in the election: reads and writes the `Lease`, as `cluster::election` says.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::election::{Candidate, DURATION, Move, RENEW_DEADLINE, RETRY, Record};
use crate::cluster::objects::{ApiError, MANAGER, asked};
use crate::cluster::snapshot::LEASE;
use crate::engine::interrupt::Interrupt;

/// Of a reading and a write; the next turn is to come before our time is up.
const TURN: Duration = RENEW_DEADLINE.saturating_sub(RETRY);

/// One process in the election.
pub(super) struct Elector {
    leases: Api<Lease>,
    candidate: Candidate,
    began: Instant,
    leads: watch::Sender<bool>,
}

impl Elector {
    /// With a name that nobody else has, and where it is told whether we lead.
    pub(super) fn new(client: &Client, namespace: &str, me: String) -> (Self, watch::Receiver<bool>) {
        let (leads, told) = watch::channel(false);
        let this = Self {
            leases: Api::namespaced(client.clone(), namespace),
            candidate: Candidate::new(me),
            began: Instant::now(),
            leads,
        };
        (this, told)
    }

    /// Runs until the end is asked for, then gives the lease back.
    pub(super) async fn run(mut self, end: Interrupt) {
        while !end.is_set() {
            let patience = self.while_leading(TURN);
            let tried = tokio::select! {
                tried = tokio::time::timeout(patience, self.turn()) => tried,
                () = end.wait() => break,
            };
            match tried {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!(%why, "the lease was not taken or kept"),
                Err(_) => tracing::warn!("the lease was not taken or kept: no answer"),
            }
            self.tell();
            tokio::select! {
                () = tokio::time::sleep(self.while_leading(RETRY)) => {}
                () = end.wait() => {}
            }
            self.tell();
        }
        if let Err(why) = self.give_back().await {
            tracing::warn!(%why, "the lease was not given back; the next controller waits for it to run out");
        }
    }

    /// This time, or what is left of our leading where that is less: its end is told on time also where nothing more is heard from
    /// the API server.
    fn while_leading(&self, wait: Duration) -> Duration {
        self.candidate.leads_for(self.now()).map_or(wait, |left| wait.min(left))
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn tell(&self) {
        let leads = self.candidate.leads(self.now());
        self.leads
            .send_if_modified(|before| std::mem::replace(before, leads) != leads);
    }

    async fn read(&self) -> Result<Option<Lease>, ApiError> {
        asked("read", &format!("Lease {LEASE}"), self.leases.get_opt(LEASE)).await
    }

    async fn turn(&mut self) -> Result<(), ApiError> {
        let found = self.read().await?;
        let record = found.as_ref().map(record);
        let now = self.now();
        let written = match self.candidate.look(record.as_ref(), now) {
            Move::Wait => {
                self.candidate.holds_no_more();
                return Ok(());
            }
            Move::Take | Move::Renew => self.write(found).await,
        };
        match written {
            Ok(()) => {
                self.candidate.holds_since(now);
                Ok(())
            }
            // Another was quicker: what it wrote is read the next time.
            Err(why) if why.is_conflict() => Ok(()),
            Err(why) => Err(why),
        }
    }

    async fn write(&self, found: Option<Lease>) -> Result<(), ApiError> {
        let what = format!("Lease {LEASE}");
        let me = self.candidate.name();
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = found else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(me.to_owned()),
                    lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                    acquire_time: Some(now.clone()),
                    renew_time: Some(now),
                    lease_transitions: Some(0),
                    ..LeaseSpec::default()
                }),
            };
            return asked("make", &what, self.leases.create(&parameters, &lease))
                .await
                .map(|_| ());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(me) {
            spec.holder_identity = Some(me.to_owned());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        asked("write", &what, self.leases.replace(LEASE, &parameters, &lease))
            .await
            .map(|_| ())
    }

    async fn give_back(&mut self) -> Result<(), ApiError> {
        self.candidate.holds_no_more();
        self.tell();
        let Some(mut lease) = self.read().await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.candidate.name()) {
            return Ok(());
        }
        spec.holder_identity = None;
        let parameters = PostParams::default();
        asked("give back", LEASE, self.leases.replace(LEASE, &parameters, &lease))
            .await
            .map(|_| ())
    }
}

impl Drop for Elector {
    /// However it ends: whoever is not in the election does not lead.
    fn drop(&mut self) {
        self.leads.send_replace(false);
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|s| u64::try_from(s).ok());
    Record {
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty()),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        duration: seconds.map_or(DURATION, Duration::from_secs),
    }
}

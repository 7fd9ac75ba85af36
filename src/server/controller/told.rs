//! What the controller says of itself: `/healthz`, `/readyz`, `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// The loop turns at least every [`super::LOOK_EVERY`], and a turn writes a few objects; after this it hangs.
const LOOP_LIMIT: Duration = Duration::from_mins(2);

/// An upgrade's phase.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfPhase {
    phase: String,
}

/// Figures and health.
pub(super) struct Told {
    registry: Registry,
    pub(super) reconciles: Counter,
    pub(super) errors: Counter,
    queue: Gauge,
    waiting: Gauge,
    retries: Gauge,
    pub(super) leader: Gauge,
    upgrades: Family<OfPhase, Gauge>,
    pulse: Mutex<Pulse>,
}

struct Pulse {
    last: Instant,
    synced: bool,
    /// Phases that upgrades have.
    phases: BTreeSet<String>,
}

impl Told {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("stagegate");
        let (reconciles, errors) = (Counter::default(), Counter::default());
        let (queue, waiting, retries) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (leader, upgrades) = (Gauge::default(), Family::<OfPhase, Gauge>::default());
        registry.register("reconciles", "Looks at an environment or a build", reconciles.clone());
        registry.register(
            "reconcile_errors",
            "Looks and drives that ended with an error",
            errors.clone(),
        );
        registry.register(
            "queue",
            "Environments and builds that wait to be looked at, or are",
            queue.clone(),
        );
        registry.register(
            "waiting",
            "Environments whose task waits for one of the places of its kind",
            waiting.clone(),
        );
        registry.register(
            "retries",
            "Environments whose task has failed and is tried again",
            retries.clone(),
        );
        registry.register("leader", "1 while this replica leads", leader.clone());
        registry.register("upgrades", "Upgrades by phase", upgrades.clone());
        Self {
            registry,
            reconciles,
            errors,
            queue,
            waiting,
            retries,
            leader,
            upgrades,
            pulse: Mutex::new(Pulse {
                last: Instant::now(),
                synced: false,
                phases: BTreeSet::new(),
            }),
        }
    }

    fn pulse(&self) -> std::sync::MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop has turned.
    pub(super) fn beat(&self) {
        self.pulse().last = Instant::now();
    }

    /// Every kind was listed once.
    pub(super) fn synced(&self) {
        self.pulse().synced = true;
    }

    /// Upgrades by phase, how many objects wait to be looked at, and how many environments for a place and to be tried again.
    pub(super) fn standing(&self, phases: BTreeMap<String, usize>, queue: usize, waiting: usize, retried: usize) {
        let figure = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.queue.set(figure(queue));
        self.waiting.set(figure(waiting));
        self.retries.set(figure(retried));
        let mut pulse = self.pulse();
        let shown = std::mem::replace(&mut pulse.phases, phases.keys().cloned().collect());
        for phase in shown.into_iter().filter(|phase| !phases.contains_key(phase)) {
            self.upgrades.remove(&OfPhase { phase });
        }
        for (phase, count) in phases {
            self.upgrades.get_or_create(&OfPhase { phase }).set(figure(count));
        }
    }
}

pub(super) fn router(told: Arc<Told>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(told)
}

async fn healthz(State(told): State<Arc<Told>>) -> (StatusCode, String) {
    let silent = told.pulse().last.elapsed();
    if silent > LOOP_LIMIT {
        let why = format!("the loop has not turned for {} s\n", silent.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, why);
    }
    (StatusCode::OK, "ok\n".to_owned())
}

/// One that stands by is as ready as the leader.
async fn readyz(State(told): State<Arc<Told>>) -> (StatusCode, &'static str) {
    if told.pulse().synced {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the objects were not listed yet\n")
    }
}

async fn metrics(State(told): State<Arc<Told>>) -> (StatusCode, String) {
    let mut text = String::new();
    match encode(&mut text, &told.registry) {
        Ok(()) => (StatusCode::OK, text),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why.to_string()),
    }
}

//! What the controller says of itself: `/healthz`, `/readyz`, `/metrics`.

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
    pub(super) queue: Gauge,
    pub(super) leader: Gauge,
    upgrades: Family<OfPhase, Gauge>,
    pulse: Mutex<Pulse>,
}

struct Pulse {
    last: Instant,
    synced: bool,
}

impl Told {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("stagegate");
        let (reconciles, errors) = (Counter::default(), Counter::default());
        let (queue, leader, upgrades) = (Gauge::default(), Gauge::default(), Family::<OfPhase, Gauge>::default());
        registry.register("reconciles", "Looks at all objects", reconciles.clone());
        registry.register(
            "reconcile_errors",
            "Looks and drives that ended with an error",
            errors.clone(),
        );
        registry.register("queue", "Environments that wait to be tried again", queue.clone());
        registry.register("leader", "1 while this replica leads", leader.clone());
        registry.register("upgrades", "Upgrades by phase", upgrades.clone());
        Self {
            registry,
            reconciles,
            errors,
            queue,
            leader,
            upgrades,
            pulse: Mutex::new(Pulse {
                last: Instant::now(),
                synced: false,
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

    /// Upgrades by phase, as they are now.
    pub(super) fn phases(&self, phases: impl Iterator<Item = String>) {
        self.upgrades.clear();
        for phase in phases {
            self.upgrades.get_or_create(&OfPhase { phase }).inc();
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

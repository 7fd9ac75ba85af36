//! `/healthz`: whether the loop lives and the state can be read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::home::Home;
use crate::store::{Store as _, StoreError};

/// The loop turns every second; a turn that waits for a locked state file takes some seconds. After this it hangs.
const LOOP_LIMIT: Duration = Duration::from_secs(30);
/// Reading the state takes microseconds, unless the disk hangs.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// What the loop says of itself.
pub(super) struct Health {
    home: Home,
    started_at: Timestamp,
    pulse: Mutex<Pulse>,
}

struct Pulse {
    last: Instant,
    driving: BTreeMap<String, String>,
    troubles: BTreeMap<String, String>,
}

impl Health {
    pub(super) fn new(home: Home) -> Self {
        Self {
            home,
            started_at: Timestamp::now(),
            pulse: Mutex::new(Pulse {
                last: Instant::now(),
                driving: BTreeMap::new(),
                troubles: BTreeMap::new(),
            }),
        }
    }

    /// The loop has turned, with these upgrades under way, by environment.
    pub(super) fn beat(&self, driving: BTreeMap<String, String>) {
        let mut pulse = self.pulse();
        pulse.last = Instant::now();
        pulse.driving = driving;
    }

    /// Environments whose upgrade cannot be driven, and why.
    pub(super) fn troubles(&self, troubles: BTreeMap<String, String>) {
        self.pulse().troubles = troubles;
    }

    fn pulse(&self) -> std::sync::MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self) -> (StatusCode, Value) {
        let home = self.home.clone();
        // Off the runtime's threads: a disk that hangs would hang the answer too.
        let read = tokio::task::spawn_blocking(move || {
            let open = home.store().unfinished(None)?.len();
            let store = home.store();
            Ok::<_, StoreError>((open, store.waiting_runs()?, store.given_up_runs()?))
        });
        let read = match tokio::time::timeout(READ_LIMIT, read).await {
            Err(_) => Err(format!("the state could not be read within {} s", READ_LIMIT.as_secs())),
            Ok(Err(why)) => Err(why.to_string()),
            Ok(Ok(Err(why))) => Err(why.to_string()),
            Ok(Ok(Ok(open))) => Ok(open),
        };
        let pulse = self.pulse();
        let silent = pulse.last.elapsed();
        let mut body = json!({
            "status": "ok",
            "version": env!("CARGO_PKG_VERSION"),
            "startedAt": self.started_at,
            "driving": pulse.driving,
            "troubles": pulse.troubles,
        });
        let why = match read {
            Err(why) => why,
            Ok(_) if silent > LOOP_LIMIT => format!("the loop has not turned for {} s", silent.as_secs()),
            Ok((open, (waiting, oldest), given_up)) => {
                body["unfinished"] = json!(open);
                let age = oldest.map(|at| Timestamp::now().duration_since(at).as_secs().max(0));
                body["hookRuns"] = json!({"waiting": waiting, "oldestSeconds": age, "givenUp": given_up});
                return (StatusCode::OK, body);
            }
        };
        body["status"] = json!("failing");
        body["why"] = json!(why);
        (StatusCode::SERVICE_UNAVAILABLE, body)
    }
}

/// Where it is asked.
pub(super) fn router(health: Arc<Health>) -> Router {
    Router::new().route("/healthz", get(healthz)).with_state(health)
}

/// Answers until the server ends.
pub(super) async fn answer(listener: TcpListener, router: Router, end: impl Future<Output = ()> + Send + 'static) {
    if let Err(why) = axum::serve(listener, router).with_graceful_shutdown(end).await {
        tracing::warn!(%why, "nobody answers over HTTP any more");
    }
}

async fn healthz(State(health): State<Arc<Health>>) -> (StatusCode, Json<Value>) {
    let (status, body) = health.look().await;
    (status, Json(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::runs::{MOST_ATTEMPTS, RunAsk, RunKey};

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home::open(&directory.path().join("state")).expect("a home");
        (directory, home)
    }

    #[tokio::test]
    async fn a_loop_that_turns_is_well_and_names_what_it_drives() {
        let (_directory, home) = home();
        let health = Health::new(home);
        health.beat(BTreeMap::from([("staging".to_owned(), "server-2-abcd".to_owned())]));
        let (status, body) = health.look().await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("ok")));
        assert_eq!(body["driving"]["staging"], "server-2-abcd");
    }

    #[tokio::test]
    async fn what_waits_to_be_run_and_for_how_long_is_seen() {
        let (_directory, home) = home();
        let health = Health::new(home.clone());
        let (_, body) = health.look().await;
        assert_eq!(
            body["hookRuns"],
            json!({"waiting": 0, "oldestSeconds": null, "givenUp": 0})
        );
        let ask = |commit: &str| RunAsk {
            key: RunKey {
                repository: "/r".to_owned(),
                commit: commit.to_owned(),
                policy: "p".to_owned(),
                engine: "1".to_owned(),
            },
            reference: None,
            base_branch: None,
            base_tip: None,
        };
        for (commit, minutes) in [("a", 5), ("b", 2)] {
            let at = Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
            home.store().enqueue_run(&ask(commit), at).expect("queued");
        }
        let (_, body) = health.look().await;
        assert_eq!(body["hookRuns"]["waiting"], 2);
        // Begun by processes that are dead, as often as a run is begun.
        let dead = |_: &crate::store::Holder| crate::store::Liveness::Dead;
        let holder = crate::store::Holder::current("tester".to_owned()).expect("it is known");
        for _ in 0..=MOST_ATTEMPTS {
            home.store().claim_run(&holder, Timestamp::now(), &dead).expect("taken");
        }
        let (_, body) = health.look().await;
        assert_eq!(
            (&body["hookRuns"]["waiting"], &body["hookRuns"]["givenUp"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(body["status"], "ok", "{body}");
        let oldest = body["hookRuns"]["oldestSeconds"].as_i64().expect("a number");
        assert!((120..200).contains(&oldest), "{body}");
    }

    #[tokio::test]
    async fn a_loop_that_hangs_is_not_well() {
        let (_directory, home) = home();
        let health = Health::new(home);
        let long_ago = Instant::now().checked_sub(LOOP_LIMIT + Duration::from_secs(1));
        health.pulse().last = long_ago.expect("this machine has run for longer");
        let (status, body) = health.look().await;
        assert_eq!(
            (status, &body["status"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("failing"))
        );
        assert!(
            body["why"].as_str().expect("words").contains("has not turned"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_state_that_cannot_be_read_is_not_well() {
        let (directory, home) = home();
        let health = Health::new(home);
        std::fs::write(
            directory.path().join("state/stagegate.db"),
            "no database at all, and long enough to tell",
        )
        .expect("written");
        let (status, body) = health.look().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    }
}

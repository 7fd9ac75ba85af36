//! What a long history costs: a board of 10,000 builds, an audit of 100,000 records, and reports into a local sink. `cargo bench --bench
//! promotion` prints the figures of docs/benchmarks.md. Nothing else should run on the machine meanwhile.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Value, json};
use stagegate::audit::Act;
use stagegate::model::upgrade::{Event, Severity};
use stagegate::report::{self, Courier, FileSink, Subject};
use stagegate::store::{Expect, Put, SqliteStore, Store, no_dispatch};

const BUILDS: u32 = 10_000;
/// Parts of each build: what the lock of a Python application has.
const LOCKED: u32 = 30;
const RECORDS: usize = 100_000;
const RECORDS_AT_ONCE: usize = 5_000;
const REPORTS: u32 = 10_000;
const RUNS: usize = 10;

const PIPELINE: &str = "apiVersion: stagegate.dev/v1alpha1
kind: Pipeline
metadata: {name: web}
spec:
  component: web
  stages:
    - {name: staging, environment: staging}
    - {name: production, environment: production, after: [staging]}
";

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let pipelines = directory.path().join("workspace/pipelines");
    std::fs::create_dir_all(&pipelines).expect("made");
    std::fs::create_dir(directory.path().join("workspace/environments")).expect("made");
    std::fs::write(pipelines.join("web.yaml"), PIPELINE).expect("written");
    let state = directory.path().join("state");
    let store = Arc::new(SqliteStore::open(&state).expect("opened"));
    for number in 0..BUILDS {
        build(&store, number);
    }
    for _ in 0..RECORDS / RECORDS_AT_ONCE {
        acts(&store);
    }
    reports(&store, directory.path());
    drop(store);
    command(directory.path(), &["pipeline", "show"], "10,000 builds");
    command(directory.path(), &["audit", "verify"], "100,000 records");
}

fn put(store: &SqliteStore, kind: &str, name: &str, spec: &Value, status: Option<&Value>, acts: &[Act]) {
    let put = Put {
        kind,
        name,
        spec: Some(spec),
        status,
        expect: Expect::Anything,
        environment: "production",
        promotion: None,
        events: &[],
        acts,
        dispatch: &no_dispatch,
        at: Timestamp::now(),
    };
    store.put(&put).expect("written");
}

fn build(store: &SqliteStore, number: u32) {
    let digest = |part: u32| format!("{:064x}", u64::from(number) << 32 | u64::from(part));
    let locked: Vec<Value> = (1..=LOCKED)
        .map(|part| json!({"name": format!("package-{part}"), "version": "1.0", "sha256": [digest(part)]}))
        .collect();
    let own = format!("sha256:{}", digest(0));
    let spec = json!({"component": "web", "version": number.to_string(), "digest": own, "locked": locked});
    // Half of them have come to staging, and every tenth of those to production.
    let verified = [("staging", 2), ("production", 20)]
        .into_iter()
        .filter(|(_, every)| number.is_multiple_of(*every));
    let verified: Vec<Value> = verified
        .map(|(environment, _)| {
            let at = Timestamp::from_second(1_700_000_000 + i64::from(number)).expect("in range");
            json!({"environment": environment, "digest": own, "at": at})
        })
        .collect();
    put(
        store,
        "Build",
        &format!("web-{number}"),
        &spec,
        Some(&json!({"verifications": verified})),
        &[],
    );
}

fn acts(store: &SqliteStore) {
    let act = Act {
        at: Timestamp::now(),
        who: "key:carol".to_owned(),
        what: "Approved".to_owned(),
        of: "Promotion/web-2-k3x9".to_owned(),
        environment: "production".to_owned(),
        why: "the gates of staging look well".to_owned(),
        evidence: None,
    };
    put(
        store,
        "Freeze",
        "some",
        &json!({"reason": "none", "environments": ["nowhere"]}),
        None,
        &vec![act; RECORDS_AT_ONCE],
    );
}

/// From the outbox into a file, each report durable there before it is settled here.
fn reports(store: &Arc<SqliteStore>, directory: &Path) {
    let subject = Subject {
        component: "web".to_owned(),
        build: "web-2".to_owned(),
        user: "carol".to_owned(),
    };
    let sinks = vec!["production/journal".to_owned()];
    let dispatch = report::dispatcher(store.home(), &subject, &sinks);
    let event = Event {
        at: Timestamp::now(),
        reason: "NodeUpgraded".to_owned(),
        severity: Severity::Step,
        node: Some("node-17".to_owned()),
        message: "web@2 runs there".to_owned(),
    };
    store
        .append("production", None, &vec![event; REPORTS as usize], &dispatch)
        .expect("written");
    let sink = FileSink::new(sinks[0].clone(), directory.join("reports.jsonl"));
    let courier = Courier::new(
        Arc::clone(store) as Arc<dyn Store>,
        vec![Box::new(sink)],
        Arc::new(Timestamp::now),
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let began = Instant::now();
    runtime.block_on(courier.drain(Timestamp::MAX)).expect("drained");
    let took = began.elapsed().as_secs_f64();
    println!(
        "{REPORTS} reports into a file: {took:.1} s, {:.0} a second",
        f64::from(REPORTS) / took
    );
}

fn command(directory: &Path, arguments: &[&str], what: &str) {
    let times = (0..RUNS).map(|_| {
        let began = Instant::now();
        let done = Command::new(env!("CARGO_BIN_EXE_stagegate"))
            .args(arguments)
            .env("STAGEGATE_STATE", directory.join("state"))
            .env("STAGEGATE_WORKSPACE", directory.join("workspace"))
            .stdout(Stdio::null())
            .status();
        assert!(done.expect("it runs").success(), "{arguments:?}");
        began.elapsed().as_secs_f64() * 1e3
    });
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    println!(
        "stagegate {}, {what}: {:.0} ms ({:.0} to {:.0}, {RUNS} runs)",
        arguments.join(" "),
        times[RUNS / 2],
        times[0],
        times[RUNS - 1]
    );
}

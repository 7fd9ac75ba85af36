//! A controller with many objects that do not move: `cargo bench --bench controller` prints the table of docs/benchmarks.md.
//! Against a real API server, built and started as the tests do it (Go), on loopback.

#[path = "../tests/it/fetched.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod fetched;
#[path = "../tests/it/cluster/lab.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod lab;
#[path = "../tests/it/ports.rs"]
mod ports;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use stagegate::cluster::objects::Kind;

use lab::Lab;

const NAMESPACE: &str = "many";
/// Whose Environments have pods, of which nobody but the controller says what they run.
const PODS: &str = "pods";
/// Of each kind, idle and at the start.
const IDLE: usize = 1_000;
const MANY: usize = 5_000;
/// Idle, it is watched for so long.
const WATCHED: Duration = Duration::from_mins(1);
const CHANGES: usize = 50;
/// Clock ticks a second of `/proc` on every Linux that we run on (proc(5), `sysconf(_SC_CLK_TCK)`).
const TICKS: f64 = 100.0;

fn main() {
    let lab = Lab::without_nodes();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for namespace in [NAMESPACE, PODS] {
        assert!(lab.kubectl(&["create", "namespace", namespace], "").done);
        let manifests = stagegate::cli::manifests(namespace, "stagegate:bench").expect("YAML");
        let applied = lab.kubectl(&["apply", "--server-side", "-f", "-"], &manifests);
        assert!(applied.done, "{applied:#?}");
    }
    let client = runtime.block_on(client(&lab.admin()));
    runtime.block_on(make(&client, 0..IDLE));
    let controller = Controller::start(&lab, NAMESPACE);
    let first = controller.until_synced(IDLE);
    println!("1,000 Environments and 1,000 Upgrades: leading and in step after {first:.1?}");
    controller.is_idle();

    let mut took: Vec<Duration> = (0..CHANGES).map(|i| runtime.block_on(change(&client, i))).collect();
    took.sort();
    println!(
        "a new Upgrade until its status says what it waits for: median {:.0?}, longest {:.0?}",
        took[CHANGES / 2],
        took[CHANGES - 1]
    );
    drop(controller);

    runtime.block_on(make_pods(&client, 0..IDLE));
    let controller = Controller::start(&lab, PODS);
    println!(
        "1,000 Environments of a StatefulSet each: leading and in step after {:.1?}",
        controller.until_synced(0)
    );
    controller.is_idle();
    drop(controller);

    runtime.block_on(make(&client, IDLE..MANY));
    let controller = Controller::start(&lab, NAMESPACE);
    let start = controller.until_synced(MANY);
    println!(
        "10,000 objects: leading and in step after {start:.1?}, {} MB resident",
        controller.resident_mb()
    );
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("written");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

/// An Environment that is up and an Upgrade that has succeeded, of each number.
async fn make(client: &Client, numbers: std::ops::Range<usize>) {
    let made = stream::iter(numbers).map(async |i| {
        let environment = json!({"components": [{
            "name": "web", "nodes": [{"name": format!("n{i}")}],
            "actions": {"start": {"template": "a.sh"}},
        }], "reports": [{"name": "log", "file": {"path": "reports.jsonl"}}]});
        put(
            client,
            (NAMESPACE, Kind::Environment),
            &format!("e{i}"),
            environment,
            up(),
        )
        .await;
        let upgrade = json!({"environment": format!("e{i}"), "component": "web", "build": "web-1", "user": "bench"});
        let done = json!({
            "phase": "Succeeded", "reason": "Done", "message": "every node runs it", "since": "2026-01-01T00:00:00Z",
            "nodes": [], "observedGeneration": 1, "writes": 9, "told": 9,
            "conditions": [condition("Ready", "Succeeded"), condition("Progressing", "Succeeded")],
        });
        put(client, (NAMESPACE, Kind::Upgrade), &format!("u{i}"), upgrade, done).await;
    });
    made.buffer_unordered(32).collect::<Vec<()>>().await;
}

fn up() -> Value {
    json!({"fence": 1, "observedGeneration": 1, "conditions": [condition("Ready", "Up")]})
}

/// An Environment that is up, of a `StatefulSet` with one pod that no machine takes.
async fn make_pods(client: &Client, numbers: std::ops::Range<usize>) {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), PODS);
    let made = stream::iter(numbers).map(async |i| {
        let name = format!("s{i}");
        let labels = json!({"app": name});
        let container = json!({"name": "web", "image": format!("none.invalid/web@sha256:{}", "a".repeat(64))});
        let set = json!({
            "metadata": {"name": name},
            "spec": {
                "serviceName": name, "replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        });
        let set = serde_json::from_value(set).expect("a set");
        sets.create(&PostParams::default(), &set).await.expect(&name);
        let environment = json!({"components": [{
            "name": "web", "statefulSet": {"namespace": PODS, "name": name, "replicas": 1},
        }]});
        put(client, (PODS, Kind::Environment), &format!("p{i}"), environment, up()).await;
    });
    made.buffer_unordered(32).collect::<Vec<()>>().await;
}

fn condition(kind: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": if kind == "Ready" { "True" } else { "False" }, "reason": reason, "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

async fn put(client: &Client, (namespace, kind): (&str, Kind), name: &str, spec: Value, status: Value) {
    let api: Api<DynamicObject> = kind.api(client, namespace);
    let mut object = DynamicObject::new(name, &kind.resource()).data(json!({"spec": spec}));
    object.metadata.finalizers = Some(vec!["stagegate.dev/done".to_owned()]);
    let mut object = api.create(&PostParams::default(), &object).await.expect(name);
    object.data["status"] = status;
    api.replace_status(name, &PostParams::default(), &object)
        .await
        .expect(name);
}

/// From an object's making until its status is written.
async fn change(client: &Client, i: usize) -> Duration {
    let api: Api<DynamicObject> = Kind::Upgrade.api(client, NAMESPACE);
    let name = format!("new-{i}");
    let spec = json!({"environment": format!("e{i}"), "component": "web", "build": "web-missing", "user": "bench"});
    let mut object = DynamicObject::new(&name, &Kind::Upgrade.resource()).data(json!({"spec": spec}));
    object.metadata.finalizers = Some(vec!["stagegate.dev/done".to_owned()]);
    let parameters = kube::runtime::watcher::Config::default().fields(&format!("metadata.name={name}"));
    let seen = kube::runtime::watcher(api.clone(), parameters);
    let mut seen = std::pin::pin!(seen);
    // The watch is there before the object is.
    let _ = seen.try_next().await.expect("a watch");
    let begun = Instant::now();
    api.create(&PostParams::default(), &object).await.expect("made");
    while let Some(event) = seen.try_next().await.expect("a watch") {
        use kube::runtime::watcher::Event::{Apply, InitApply};
        // It may be listed with its status already.
        if let Apply(object) | InitApply(object) = event
            && object.data["status"]["reason"] == "BuildMissing"
        {
            return begun.elapsed();
        }
    }
    panic!("the watch of {name} has ended");
}

struct Controller {
    child: Child,
    address: String,
    begun: Instant,
    _files: tempfile::TempDir,
}

impl Controller {
    fn start(lab: &Lab, namespace: &str) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let templates = files.path().join("templates");
        std::fs::create_dir(&templates).expect("made");
        std::fs::write(templates.join("a.sh"), "true\n").expect("written");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = port.expect("a port").to_string();
        let begun = Instant::now();
        let child = lab
            .command(env!("CARGO_BIN_EXE_stagegate").as_ref())
            .args(["controller", "--namespace", namespace, "--listen", &address, "--volume"])
            .arg(files.path().join("volume"))
            .arg("--templates")
            .arg(&templates)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        Self {
            child,
            address,
            begun,
            _files: files,
        }
    }

    /// Waits until it leads, has heard of so many upgrades and has nobody left to look at, and says how long that took from its start.
    fn until_synced(&self, upgrades: usize) -> Duration {
        let counted = format!("stagegate_upgrades{{phase=\"Succeeded\"}} {upgrades}");
        loop {
            let metrics = self.metrics().unwrap_or_default();
            let is_in_step = |line: &str| metrics.lines().any(|is| is == line);
            if (upgrades == 0 || is_in_step(&counted))
                && is_in_step("stagegate_leader 1")
                && is_in_step("stagegate_queue 0")
            {
                return self.begun.elapsed();
            }
            assert!(self.begun.elapsed() < Duration::from_mins(5), "{metrics}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Prints what it takes while nobody asks anything of it.
    fn is_idle(&self) {
        let cpu = self.cpu();
        std::thread::sleep(WATCHED);
        let share = (self.cpu() - cpu) / WATCHED.as_secs_f64() * 100.0;
        println!(
            "idle for {WATCHED:?}: {} MB resident, {share:.2} % of a core",
            self.resident_mb()
        );
    }

    fn metrics(&self) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn resident_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("it has memory");
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse::<u64>().ok())
            .expect("a number")
            / 1_024
    }

    /// Seconds of a processor so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it lives");
        let after = stat.rsplit(')').next().expect("a name");
        let fields: Vec<&str> = after.split_whitespace().collect();
        [fields[11], fields[12]]
            .iter()
            .map(|ticks| ticks.parse::<f64>().expect("a number"))
            .sum::<f64>()
            / TICKS
    }
}

impl Drop for Controller {
    /// As a rolling update ends it: the next one does not wait for its lease.
    fn drop(&mut self) {
        let asked = std::process::Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        if !asked.is_ok_and(|asked| asked.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

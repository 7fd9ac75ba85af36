//! Five hundred pods: what a controller asks an API server for is in proportion to them, and nothing of it is for what becomes of pods
//! while nobody upgrades them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Instant;

use axum::Router;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use stagegate::model::values::Digest;

use super::controller::{ACCOUNT, NAMESPACE, Town, ask};
use super::lab::Lab;
use super::trouble::{Between, Counts};
use crate::ports;
use crate::trivial::Running;

/// Where the pods are, and the environment that they are of.
const CROWD: &str = "crowd";
/// Of all five workloads, and of `web`, which is upgraded.
const ALL: usize = 500;
const PODS: usize = 100;
/// Of all workloads.
const SETS: usize = 4;
/// Of `web`, at a time, and out at most.
const BATCH: usize = 20;
/// Its pod that is ready when the test says so, on the build that is slow.
const LATE: &str = "web-90";
/// What the manifest lets a controller have.
const MEMORY_MIB: u64 = 1_024;

/// A controller and its crowd.
struct Crowd {
    town: Town,
    between: Between,
    controller: Running,
    address: String,
    /// Where the pods' answers come from.
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// A pod of `web`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    uid: String,
    image: String,
    is_ready: bool,
}

fn digest(build: &str) -> Digest {
    Digest::of(build.as_bytes())
}

fn stages() -> String {
    let text = include_str!("scale/stages.yaml").replace("SLOW", &digest("2").to_string());
    text.replace("CRASHES", &digest("3").to_string())
}

/// One answer for every pod: they are all addresses of this machine.
fn answering(port: u16) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.expect("a free port");
    runtime.spawn(async move { axum::serve(listener, Router::new().fallback(|| async { "alive" })).await });
    runtime
}

async fn client(town: &Town) -> Client {
    let admin = Kubeconfig::read_from(town.lab.admin()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(admin, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

impl Crowd {
    fn new() -> Self {
        let town = Town::over(Lab::with_pretended_nodes(2, &stages()));
        for (name, text) in [
            ("set.yaml", include_str!("scale/set.yaml")),
            ("deployment.yaml", include_str!("scale/deployment.yaml")),
        ] {
            town.trivial.write(&format!("workspace/templates/{name}"), text);
        }
        let account = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
        let bind = [
            "create",
            "clusterrolebinding",
            "stagegate-tests",
            "--clusterrole=cluster-admin",
            &account,
        ];
        town.kubectl(&bind, "");
        let direct = town.lab.path("controller.kubeconfig");
        let between = Between::that_counts(&direct);
        between.write(&direct, &town.lab.path("between.kubeconfig"));
        let (controller, address) = town.controller_by("between.kubeconfig");
        let port = ports::free(1);
        let runtime = answering(port);
        let digests = ["1", "2", "3"].map(|version| format!("\"{version}\": \"{}\"", digest(version)));
        let source = format!(
            "{{images: {{repository: lab.local/crowd, digests: {{{}}}}}}}",
            digests.join(", ")
        );
        for (name, text) in [
            ("production", include_str!("scale/production.yaml")),
            (CROWD, include_str!("scale/crowd.yaml")),
        ] {
            let text = text.replace("SOURCE", &source).replace("PORT", &port.to_string());
            town.trivial
                .write(&format!("workspace/environments/{name}.yaml"), &text);
            town.apply(&text);
        }
        let this = Self {
            client: runtime.block_on(client(&town)),
            town,
            between,
            controller,
            address,
            runtime,
        };
        this.until_all_are_ready();
        this.town.wait("env/crowd", "condition=Ready");
        this
    }

    /// Not by kubectl: they are asked for all the time, and it would have the machine for itself.
    fn all<K>(&self, of: &ListParams) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), CROWD);
        self.runtime.block_on(api.list(of)).expect("listed").items
    }

    fn until_all_are_ready(&self) {
        self.town.until("all pods are ready", |_| {
            let sets = self.all::<StatefulSet>(&ListParams::default()).into_iter();
            let deployments = self.all::<Deployment>(&ListParams::default()).into_iter();
            let of_sets = sets.filter_map(|set| set.status?.ready_replicas);
            let ready = of_sets.chain(deployments.filter_map(|one| one.status?.ready_replicas));
            usize::try_from(ready.sum::<i32>()).is_ok_and(|ready| ready == ALL)
        });
    }

    fn pods(&self) -> BTreeMap<String, Pod> {
        let pods = self.all::<ApiPod>(&ListParams::default().labels("app=web")).into_iter();
        let read = pods.map(|pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
            let is_ready = ready.next().is_some() && pod.metadata.deletion_timestamp.is_none();
            let image = pod.spec.and_then(|mut spec| spec.containers.remove(0).image);
            let this = Pod {
                uid: pod.metadata.uid.unwrap_or_default(),
                image: image.unwrap_or_default(),
                is_ready,
            };
            (pod.metadata.name.unwrap_or_default(), this)
        });
        read.collect()
    }

    /// From which pod on a set's own controller would move them.
    fn partition(&self) -> Option<i32> {
        let sets = self.all::<StatefulSet>(&ListParams::default().fields("metadata.name=web"));
        let strategy = sets.into_iter().next()?.spec?.update_strategy?;
        strategy.rolling_update?.partition
    }

    fn upgrade(&self, version: &str) {
        let wanted = format!("web={version}");
        let said = self.town.trivial.run(&["build", "manifest", CROWD, &wanted]);
        self.town.apply(&said.expect_code(0).out);
        self.town.upgrade_of(CROWD, &format!("to-{version}"), version);
    }

    fn status(&self, version: &str) -> Value {
        self.town.get(&format!("upg/to-{version}"))["status"].take()
    }

    /// While it goes on, for what has befallen a node is best asked of its pod before that is made anew.
    fn no_node_fails(&self, status: &Value) {
        for node in status["nodes"].as_array().into_iter().flatten() {
            let phase = node["phase"].as_str();
            if matches!(phase, Some("Removing" | "OutOfService")) {
                let pod = node["name"].as_str().unwrap_or_default();
                let of_it = format!("involvedObject.name={pod}");
                let lab = &self.town.lab;
                let events = lab.kubectl(&["-n", CROWD, "get", "events", "--field-selector", &of_it], "");
                let its = lab.kubectl(
                    &["-n", CROWD, "get", "pod", pod, "-o", "json", "--show-managed-fields"],
                    "",
                );
                panic!("{node}\n{events:#?}\n{}", its.out);
            }
        }
    }

    fn kubectl(&self, arguments: &[&str]) {
        let left = self.town.lab.kubectl(&[&["-n", CROWD], arguments].concat(), "");
        assert!(left.done, "{arguments:?}: {left:#?}");
    }

    /// As soon as it is there.
    fn lets_the_late_one_be_ready(&self) {
        if self.pods().get(LATE).is_some_and(|pod| !pod.is_ready) {
            let annotate = [
                "-n",
                CROWD,
                "annotate",
                "--overwrite",
                "pod",
                LATE,
                "stagegate.dev/tests=ready",
            ];
            // It may be gone by now: the next one is asked for the same.
            self.town.lab.kubectl(&annotate, "");
        }
    }

    /// Looks that the controller has made.
    fn looks(&self) -> u64 {
        let metrics = ask(&self.address, "/metrics");
        let mut lines = metrics.lines();
        let line = lines.find_map(|line| line.strip_prefix("stagegate_reconciles_total "));
        line.and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("{metrics}"))
    }

    /// The most that it has ever taken.
    fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.controller.pid())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("Linux says it") >> 10
    }
}

fn of(counts: &Counts, what: &str) -> usize {
    counts.get(what).copied().unwrap_or_default()
}

/// What was asked for since.
fn since(before: &Counts, now: &Counts) -> Counts {
    let all = now.iter().map(|(what, times)| (what.clone(), times - of(before, what)));
    all.filter(|(_, times)| *times > 0).collect()
}

/// One crowd for all of it: it takes a while to come.
#[test]
fn what_is_asked_of_an_api_server_is_in_proportion_to_the_pods() {
    let crowd = Crowd::new();
    every_pod_is_looked_at_once_to_bring_them_up(&crowd);
    what_becomes_of_pods_is_not_listened_to(&crowd);
    an_upgrade_goes_from_batch_to_batch_and_waits_for_one_pod(&crowd);
    the_plugin_answers(&crowd);
    a_build_that_crashes_goes_back_from_its_first_batch(&crowd);
    let most = crowd.memory_mib();
    assert!(most < MEMORY_MIB / 2, "it has taken {most} MiB");
}

fn every_pod_is_looked_at_once_to_bring_them_up(crowd: &Crowd) {
    let asked = crowd.between.counts();
    let at_most = |what: &str, most: usize| assert!(of(&asked, what) <= most, "{what}: {asked:#?}");
    at_most("GET pods", 0);
    // Their objects, to see who has had them before and how they are, and while they are waited for; their pods, by one look.
    at_most("GET statefulsets", ALL / 2);
    at_most("GET controllerrevisions", 8);
    at_most("LIST pods", 4 * SETS);
    at_most("WATCH pods", 0);
}

fn what_becomes_of_pods_is_not_listened_to(crowd: &Crowd) {
    let (before, looks) = (crowd.between.counts(), crowd.looks());
    // And waits until they are gone: what is annotated next has to be there.
    crowd.kubectl(&["delete", "pods", "-l", "app=workers"]);
    for round in ["round=1", "round=2"] {
        crowd.kubectl(&["annotate", "pods", "--all", "--overwrite", round]);
    }
    crowd.until_all_are_ready();
    let (asked, looks) = (since(&before, &crowd.between.counts()), crowd.looks() - looks);
    // A replica's objects are looked at once a minute, whatever becomes of their pods.
    assert!(asked.keys().all(|what| !what.ends_with(" pods")), "{asked:#?}");
    assert!(looks < 20, "{looks}");
}

fn the_plugin_answers(crowd: &Crowd) {
    let link = crowd.town.lab.path("kubectl-stagegate");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stagegate"), &link).expect("made");
    let arguments = ["-n", NAMESPACE, "status", CROWD, "-o", "json"];
    let command = crowd.town.lab.command(&link);
    let said = Running::at(command, crowd.town.trivial.path("elsewhere").as_path(), &arguments).end();
    let status = said.expect_code(0).json();
    assert_eq!(status["status"]["environment"]["phase"], "Up", "{status:#}");
    let nodes = status["status"]["upgrade"]["status"]["nodes"].as_array().map(Vec::len);
    assert_eq!(nodes, Some(PODS), "those of its last upgrade: {status:#}");
}

/// From 1 to 2.
fn an_upgrade_goes_from_batch_to_batch_and_waits_for_one_pod(crowd: &Crowd) {
    let (before, first, begun) = (crowd.between.counts(), crowd.pods(), Instant::now());
    crowd.upgrade("2");
    let (mut partitions, mut most) = (Vec::new(), 0);
    let mut look = |crowd: &Crowd| {
        let now = crowd.pods();
        most = most.max(PODS - now.values().filter(|pod| pod.is_ready).count());
        partitions.extend(crowd.partition());
        now
    };
    crowd.town.lab.until("one pod of the first batch is waited for", |_| {
        let now = look(crowd);
        let is_new = |(name, pod): &(&String, &Pod)| pod.uid != first[*name].uid && pod.is_ready;
        now.iter().filter(is_new).count() == BATCH - 1
    });
    crowd.town.lab.until("nothing else goes on", |_| {
        let status = crowd.status("2");
        let nodes = status["nodes"].as_array().into_iter().flatten();
        nodes.filter(|node| node["phase"] == "Done").count() == BATCH - 1
    });
    let now = look(crowd);
    let changed: BTreeSet<&String> = now.keys().filter(|name| now[*name].uid != first[*name].uid).collect();
    let batch: BTreeSet<String> = (PODS - BATCH..PODS).map(|ordinal| format!("web-{ordinal}")).collect();
    assert_eq!(changed, batch.iter().collect());
    crowd.kubectl(&["annotate", "pod", LATE, "stagegate.dev/tests=ready"]);
    crowd.town.lab.until("it ends", |_| {
        look(crowd);
        let status = crowd.status("2");
        crowd.no_node_fails(&status);
        status["finishedAt"].is_string()
    });
    let (asked, took) = (since(&before, &crowd.between.counts()), begun.elapsed());
    let status = crowd.status("2");
    assert_eq!(status["phase"], "Succeeded", "{status:#}");
    for node in status["nodes"].as_array().expect("nodes") {
        assert_eq!(node["restarts"], 1, "{node:#}");
    }
    assert!(most <= BATCH, "{most} were out at once");
    // Taken by a boundary above all of them, it comes down pod by pod, and never goes up.
    let taken = usize::try_from(partitions.iter().copied().max().unwrap_or_default()).expect("not below none");
    let from = partitions
        .iter()
        .position(|at| usize::try_from(*at).is_ok_and(|at| at == taken));
    let way = &partitions[from.unwrap_or_default()..];
    assert!(
        way.is_sorted_by(|a, b| a >= b) && way.len() > PODS / BATCH,
        "{partitions:?}"
    );

    let at_most = |what: &str, most: usize| assert!(of(&asked, what) <= most, "{what} in {took:?}: {asked:#?}");
    // One says what the pods of a batch are to be, one that they are to be made anew; controllers write the set's status in between. The
    // quicker they are, the more often a write is refused and made anew.
    let batches = PODS / BATCH;
    let written = of(&asked, "PATCH statefulsets") + of(&asked, "DELETE pods");
    at_most("PATCH statefulsets", 24 * batches);
    // One that was asked to end while the answer was on its way may be asked again.
    at_most("DELETE pods", PODS + BATCH);
    at_most("GET controllerrevisions", 16);
    at_most("GET pods", 0);
    at_most("WATCH pods", 0);
    // Four times a second, however many look, and anew after what was written; once more where that was refused.
    let seconds = usize::try_from(took.as_secs()).expect("minutes") + 1;
    let looks = 4 * seconds + 2 * written;
    at_most("LIST pods", looks);
    at_most("GET statefulsets", looks);
}

/// On 2.
fn a_build_that_crashes_goes_back_from_its_first_batch(crowd: &Crowd) {
    let before = crowd.pods();
    crowd.upgrade("3");
    crowd.town.until("it ends", |_| {
        // It goes back to the build on which one is late.
        crowd.lets_the_late_one_be_ready();
        crowd.status("3")["finishedAt"].is_string()
    });
    let status = crowd.status("3");
    assert_eq!(status["phase"], "RolledBack", "{status:#}");
    let after = crowd.pods();
    for (name, pod) in &after {
        let ordinal: usize = name["web-".len()..].parse().expect("an ordinal");
        assert_eq!(pod.image, before[name].image, "{name}");
        assert!(ordinal >= PODS - BATCH || *pod == before[name], "{name}: {pod:?}");
    }
}

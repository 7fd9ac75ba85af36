//! The objects of a replica on a real API server.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};
use stagegate::cluster::replica::{Files, Left, Owner, Replica, ReplicaError, Run, SyncState, Wanted};
use stagegate::model::manifest::{Manifest, ObjectId};
use stagegate::model::target::KubernetesTarget;

use super::lab::{Lab, Left as Said};
use crate::trivial::{Running, Said as Ended};

pub(super) const NAMESPACE: &str = "shop-staging";
/// Kinds that the tests' templates have.
const KINDS: &str = "configmap,secret,service,deployment,serviceaccount";

/// A workspace with an environment and its replica, and a state.
pub(super) struct Shop<'l> {
    pub(super) lab: &'l Lab,
    directory: tempfile::TempDir,
}

impl<'l> Shop<'l> {
    pub(super) fn open(lab: &'l Lab) -> Self {
        let shop = Self {
            lab,
            directory: tempfile::tempdir().expect("a directory"),
        };
        shop.write("environments/production.yaml", include_str!("replica/production.yaml"));
        shop.write("environments/staging.yaml", include_str!("replica/staging.yaml"));
        shop.write("templates/web/config.yaml", include_str!("replica/config.yaml"));
        shop.write("templates/web/deployment.yaml", include_str!("replica/deployment.yaml"));
        shop
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join("workspace").join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// The replica's file with more in its target, and more below `spec`.
    pub(super) fn target(&self, target: &str, more: &str) {
        let text = include_str!("replica/staging.yaml").replace(
            "{namespace: shop-staging}",
            &format!("{{namespace: {NAMESPACE}{target}}}"),
        );
        self.write("environments/staging.yaml", &(text + more));
    }

    pub(super) fn begin(&self, arguments: &[&str]) -> Running {
        self.begin_by(&self.lab.admin(), arguments)
    }

    /// A command that finds its cluster by this kubeconfig.
    pub(super) fn begin_by(&self, kubeconfig: &Path, arguments: &[&str]) -> Running {
        let mut command = self.lab.command(Path::new(env!("CARGO_BIN_EXE_stagegate")));
        command.env("KUBECONFIG", kubeconfig);
        Running::at(command, self.directory.path(), arguments)
    }

    pub(super) fn stagegate(&self, arguments: &[&str]) -> Ended {
        self.begin(arguments).end()
    }

    pub(super) fn up(&self) -> Ended {
        self.stagegate(&["up", "staging"])
    }

    /// What a look says of the replica.
    pub(super) fn look(&self) -> Value {
        let said = self
            .stagegate(&["status", "staging", "--look", "-o", "json"])
            .expect_code(0);
        said.json()["status"]["replica"].take()
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Said {
        self.lab.kubectl(&[&["-n", NAMESPACE], arguments].concat(), "")
    }

    pub(super) fn done(&self, arguments: &[&str]) {
        let said = self.kubectl(arguments);
        assert!(said.done, "{said:#?}");
    }

    /// Our objects in the namespace with their versions.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        versions(self.lab, NAMESPACE)
    }
}

fn versions(lab: &Lab, namespace: &str) -> BTreeMap<String, String> {
    let list = lab.get(&[KINDS, "-n", namespace, "-l", "applyset.kubernetes.io/part-of"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().expect("a list").iter();
    items
        .map(|object| {
            let name = format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]));
            (name, text(&object["metadata"]["resourceVersion"]))
        })
        .collect()
}

pub(super) fn names(versions: &BTreeMap<String, String>) -> Vec<&str> {
    versions.keys().map(String::as_str).collect()
}

#[test]
fn objects_are_applied_once_and_pruned_when_they_are_no_longer_stated() {
    let lab = Lab::with_api(&["stagegate-tests", NAMESPACE]);
    let shop = Shop::open(&lab);
    let said = shop.up().expect_code(0);
    assert!(
        said.err.contains("namespace shop-staging: 4 objects, 4 changed"),
        "{said:#?}"
    );
    let first = shop.versions();
    assert_eq!(
        names(&first),
        ["ConfigMap/web", "Deployment/web", "Secret/web", "Service/web"]
    );
    let deployment = lab.get(&["deployment", "web", "-n", NAMESPACE]);
    assert_eq!(deployment["spec"]["replicas"], 1);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["image"],
        format!("registry.example.org/shop/web@sha256:{:0>64}", 1),
    );
    assert_eq!(container["env"][0]["value"], "db.shop-staging.svc");

    // The same again changes nothing. The controllers write the status of a Deployment whenever they like.
    let said = shop.up().expect_code(0);
    let second = shop.versions();
    for name in ["ConfigMap/web", "Secret/web", "Service/web"] {
        assert_eq!(first[name], second[name], "{name}: {said:#?}");
    }
    let again = lab.get(&["deployment", "web", "-n", NAMESPACE]);
    assert_eq!(again["metadata"]["generation"], 1);
    assert_eq!(shop.look()["sync"], "Synced", "{:#}", shop.look());

    // As kubectl's tools look for it.
    let parent = lab.get(&["configmap", "stagegate-staging", "-n", NAMESPACE]);
    let metadata = &parent["metadata"];
    assert_eq!(
        metadata["annotations"]["applyset.kubernetes.io/contains-group-kinds"],
        "ConfigMap,Deployment.apps,Secret,Service"
    );
    let id = metadata["labels"]["applyset.kubernetes.io/id"].as_str().expect("an id");
    let members = lab.get(&[
        KINDS,
        "-n",
        NAMESPACE,
        "-l",
        &format!("applyset.kubernetes.io/part-of={id}"),
    ]);
    assert_eq!(members["items"].as_array().map(Vec::len), Some(4), "{members:#}");

    // What others have made there stays, whatever is pruned.
    shop.done(&["create", "configmap", "others", "--from-literal=a=b"]);
    shop.write("templates/web/config.yaml", "# none\n");
    let said = shop.up().expect_code(0);
    assert!(said.err.contains("Secret/web: deleted, no longer stated"), "{said:#?}");
    assert_eq!(names(&shop.versions()), ["Deployment/web", "Service/web"]);
    let parent = lab.get(&["configmap", "stagegate-staging", "-n", NAMESPACE]);
    assert_eq!(
        parent["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"],
        "Deployment.apps,Service"
    );
    shop.done(&["get", "configmap", "others"]);

    // Down, and up again.
    shop.stagegate(&["down", "staging"]).expect_code(0);
    assert!(shop.versions().is_empty());
    shop.done(&["get", "configmap", "others"]);
    let said = shop.up().expect_code(0);
    assert!(said.err.contains("2 objects, 2 changed"), "{said:#?}");

    // Gone for good, with the namespace that we have made.
    shop.stagegate(&["down", "staging", "--purge"]).expect_code(0);
    let gone = lab.kubectl(&["get", "namespace", NAMESPACE], "");
    assert!(!gone.done && gone.err.contains("not found"), "{gone:#?}");
}

#[test]
fn nothing_is_written_where_something_is_refused() {
    let lab = Lab::with_api(&["stagegate-tests", NAMESPACE]);
    let shop = Shop::open(&lab);

    // Somebody else's namespace, until it is handed over by the command that is told.
    lab.kubectl(&["create", "namespace", NAMESPACE], "");
    shop.done(&["create", "serviceaccount", "theirs"]);
    let said = shop.up().expect_code(6);
    assert!(
        said.err.contains("namespace shop-staging is not this replica's"),
        "{said:#?}"
    );
    assert!(shop.versions().is_empty());
    let namespace = lab.get(&["namespace", NAMESPACE]);
    assert!(
        namespace["metadata"]["labels"]["stagegate.dev/home"].is_null(),
        "{namespace:#}"
    );
    let said = shop.stagegate(&["down", "staging"]).expect_code(6);
    assert!(said.err.contains("is left alone"), "{said:#?}");
    let line = said.err.split('`').nth(1).expect("a command").to_owned();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let handed = lab.kubectl(&words, "");
    assert!(handed.done, "{line}: {handed:#?}");

    // What is wrong by itself.
    let refused = |why: &[&str]| {
        let said = shop.up().expect_code(6);
        for why in why {
            assert!(said.err.contains(why), "{why}: {said:#?}");
        }
        assert!(shop.versions().is_empty(), "{said:#?}");
    };
    shop.target(", quota: {objects: 3, pods: 1, cpu: 50m, memory: 16Mi}", "");
    refused(&[
        "ask for 4 objects",
        "ask for 100m of cpu, and `target.kubernetes.quota` allows 50m",
        "bytes of memory, and `target.kubernetes.quota` allows 16Mi",
    ]);
    shop.target("", "");
    let config = include_str!("replica/config.yaml");
    let outside =
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: web}\nrules: []\n";
    let unknown = "---\napiVersion: example.org/v1\nkind: Widget\nmetadata: {name: web}\n";
    shop.write("templates/web/config.yaml", &format!("{config}{outside}{unknown}"));
    refused(&[
        "ClusterRole.rbac.authorization.k8s.io/web belongs to the whole cluster",
        "no kind Widget.example.org",
    ]);
    let elsewhere = config.replacen("name: web", "name: web, namespace: default", 1);
    shop.write("templates/web/config.yaml", &elsewhere);
    let said = shop.stagegate(&["lint"]).expect_code(2);
    assert!(said.err.contains("into namespace `default`"), "{said:#?}");
    shop.write("templates/web/config.yaml", config);

    // What somebody else has made, in a set and in none.
    shop.done(&["create", "configmap", "web", "--from-literal=greeting=theirs"]);
    refused(&["ConfigMap/web is there and was not made for this replica"]);
    shop.done(&[
        "label",
        "configmap",
        "web",
        "applyset.kubernetes.io/part-of=applyset-theirs-v1",
    ]);
    let said = shop.up().expect_code(6);
    assert!(
        said.err.contains("belongs to the ApplySet applyset-theirs-v1"),
        "{said:#?}"
    );
    assert_eq!(names(&shop.versions()), ["ConfigMap/web"]);
    shop.done(&["delete", "configmap", "web"]);

    shop.up().expect_code(0);
    shop.stagegate(&["down", "staging", "--purge"]).expect_code(0);
    // It was there before us.
    shop.done(&["get", "serviceaccount", "theirs"]);
}

#[test]
fn drift_is_told_with_who_made_it_and_put_back_when_that_is_asked_for() {
    let lab = Lab::with_api(&["stagegate-tests", NAMESPACE]);
    let shop = Shop::open(&lab);
    shop.up().expect_code(0);
    shop.done(&["scale", "deployment", "web", "--replicas=5"]);
    shop.done(&[
        "patch",
        "configmap",
        "web",
        "-p",
        r#"{"data": {"greeting": "bye", "more": "theirs"}}"#,
    ]);
    shop.done(&[
        "patch",
        "secret",
        "web",
        "-p",
        r#"{"stringData": {"password": "hunter2"}}"#,
    ]);
    shop.done(&["label", "service", "web", "theirs=yes"]);

    let sight = shop.look();
    assert_eq!(sight["sync"], "OutOfSync", "{sight:#}");
    let out = sight["outOfSync"].as_array().expect("a list");
    let of = |object: &str| {
        let found = out.iter().find(|o| o["object"] == object);
        found.unwrap_or_else(|| panic!("{object}: {sight:#}")).clone()
    };
    assert_eq!(
        of("Deployment.apps/web"),
        json!({
            "object": "Deployment.apps/web", "cause": "Drifted",
            "fields": [{"path": "spec.replicas", "wanted": "1", "found": "5", "by": ["kubectl"]}],
        })
    );
    // What others have added is theirs.
    assert_eq!(
        of("ConfigMap/web")["fields"],
        json!([{"path": "data.greeting", "wanted": "hello", "found": "bye", "by": ["kubectl-patch"]}])
    );
    assert_eq!(of("Secret/web")["fields"][0]["found"], "(not told)", "{sight:#}");
    assert_eq!(out.len(), 3, "{sight:#}");
    let people = shop.stagegate(&["status", "staging", "--look"]).expect_code(0);
    assert!(
        people.out.contains("spec.replicas: 5 instead of 1 (held by kubectl)"),
        "{people:#?}"
    );

    // Nothing is taken from anybody who was not asked.
    let said = shop.up().expect_code(6);
    for words in [
        "spec.replicas is held by kubectl",
        "data.greeting is held by kubectl-patch",
        "drift: heal",
    ] {
        assert!(said.err.contains(words), "{words}: {said:#?}");
    }
    assert_eq!(lab.get(&["deployment", "web", "-n", NAMESPACE])["spec"]["replicas"], 5);

    shop.target(", drift: heal", "");
    shop.up().expect_code(0);
    assert_eq!(lab.get(&["deployment", "web", "-n", NAMESPACE])["spec"]["replicas"], 1);
    let config = lab.get(&["configmap", "web", "-n", NAMESPACE]);
    assert_eq!(config["data"], json!({"greeting": "hello", "more": "theirs"}));
    assert_eq!(shop.look()["sync"], "Synced");

    // A file that has changed since is no drift; one that is missing and one that is not stated are what they are.
    shop.target(", drift: heal", "  components: [{name: web, build: \"1.1\"}]\n");
    shop.done(&["delete", "service", "web"]);
    shop.write(
        "templates/web/config.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {greeting: hello}\n",
    );
    let sight = shop.look();
    assert_eq!(sight["files"], "Changed", "{sight:#}");
    let causes: BTreeMap<&str, &str> = sight["outOfSync"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|o| {
            (
                o["object"].as_str().unwrap_or_default(),
                o["cause"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        causes,
        BTreeMap::from([
            ("Deployment.apps/web", "FileChanged"),
            ("Secret/web", "Unwanted"),
            ("Service/web", "Missing"),
        ]),
        "{sight:#}"
    );
}

#[test]
fn a_replica_whose_time_is_over_is_taken_down_and_up_renews_it() {
    let lab = Lab::with_api(&["stagegate-tests", NAMESPACE]);
    let shop = Shop::open(&lab);
    let expires_at = || {
        let parent = lab.get(&["configmap", "stagegate-staging", "-n", NAMESPACE]);
        let text = &parent["metadata"]["annotations"]["stagegate.dev/expires-at"];
        let at: Timestamp = text.as_str().expect("a time").parse().expect("a time");
        at.duration_since(Timestamp::now()).as_hours()
    };
    shop.target(", ttl: 8h", "");
    let said = shop.up().expect_code(0);
    assert!(said.err.contains("it is taken down at"), "{said:#?}");
    assert_eq!(expires_at(), 7);
    shop.target(", ttl: 20h", "");
    shop.up().expect_code(0);
    assert_eq!(expires_at(), 19);

    // By the server, once its time is over; what a later `up` has written in the cluster counts.
    shop.target(", ttl: 1ms", "");
    shop.up().expect_code(0);
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    let line = server.until("its time was over");
    assert!(
        line.contains("4 objects of namespace shop-staging are deleted"),
        "{line}"
    );
    drop(server);
    assert!(shop.versions().is_empty());
    let status = shop
        .stagegate(&["status", "staging", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(status["status"]["environment"]["phase"], "Down", "{status:#}");
    let events = shop.stagegate(&["events", "staging"]).expect_code(0);
    assert!(events.out.contains("ReplicaExpired"), "{events:#?}");

    // By the next command that works on something.
    shop.up().expect_code(0);
    let said = shop
        .stagegate(&["upgrade", "staging", "--build", "web=1.1"])
        .expect_code(2);
    assert!(said.err.contains("its time was over"), "{said:#?}");
    assert!(said.err.contains("component web has no nodes"), "{said:#?}");
    assert!(shop.versions().is_empty());
}

/// Without anybody asking, and the time of the replica is not begun anew.
#[test]
fn a_server_tells_drift_and_puts_it_back_where_the_file_says_so() {
    let lab = Lab::with_api(&["stagegate-tests", NAMESPACE]);
    let shop = Shop::open(&lab);
    shop.target(", ttl: 8h", "");
    shop.up().expect_code(0);
    let before = shop.look();
    assert_eq!(
        (&before["sync"], &before["files"]),
        (&json!("Synced"), &json!("AsApplied")),
        "{before:#}"
    );
    shop.done(&["scale", "deployment", "web", "--replicas=4"]);
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    let line = server.until("somebody has changed it");
    drop(server);
    assert!(
        line.contains("Deployment.apps/web was changed in the cluster (spec.replicas) by kubectl"),
        "{line}"
    );
    assert_eq!(lab.get(&["deployment", "web", "-n", NAMESPACE])["spec"]["replicas"], 4);
    shop.target(", drift: heal, ttl: 20h", "");
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    server.until("what somebody has changed is put back");
    drop(server);
    assert_eq!(lab.get(&["deployment", "web", "-n", NAMESPACE])["spec"]["replicas"], 1);
    assert!(before["expiresAt"].is_string());
    assert_eq!(shop.look()["expiresAt"], before["expiresAt"]);
    let events = shop.stagegate(&["events", "staging"]).expect_code(0);
    assert!(
        events.out.contains("ReplicaDrifted") && events.out.contains("ReplicaHealed"),
        "{events:#?}"
    );
    // A file that has changed is nobody's wish until it is brought up; nor is what a Secret is to hold.
    let config = include_str!("replica/config.yaml");
    shop.write(
        "templates/web/config.yaml",
        &config.replace(
            "stringData: {password: \"{{ vars.greeting }}\"}",
            "stringData: {password: other}",
        ),
    );
    let sight = shop.look();
    assert_eq!(sight["files"], "Changed", "{sight:#}");
    shop.write("templates/web/config.yaml", config);
    assert_eq!(shop.look()["files"], "AsApplied");
    shop.target(", drift: heal", "  components: [{name: web, build: \"1.1\"}]\n");
    assert_eq!(shop.look()["files"], "Changed");
}

/// On a real node: its pods are nodes, and what an upgrade has put there is not put back by its file.
#[test]
fn a_set_that_was_upgraded_since_is_left_to_its_upgrade() {
    let lab = Lab::with_nodes(1);
    let shop = Shop::open(&lab);
    let digests: Vec<String> = ["1", "2"]
        .iter()
        .map(|version| {
            format!(
                "\"{version}\": \"{}\"",
                lab.image("lab.local/app", &[("APP_VERSION", version)])
            )
        })
        .collect();
    let production = include_str!("replica/set-production.yaml").replace("DIGESTS", &digests.join(", "));
    shop.write("environments/production.yaml", &production);
    shop.write("environments/staging.yaml", include_str!("replica/set-staging.yaml"));
    shop.write("templates/web/set.yaml", include_str!("replica/set.yaml"));
    // It waits for the pods, and finds them on the build that the file names.
    let said = shop.up().expect_code(0);
    assert!(said.err.contains("web: 2 nodes up"), "{said:#?}");
    let image = || {
        let set = lab.get(&["statefulset", "web", "-n", NAMESPACE]);
        set["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    let first = image();
    shop.stagegate(&["upgrade", "staging", "--build", "web=2"])
        .expect_code(0);
    let second = image();
    assert_ne!(first, second);
    assert_eq!(shop.look()["sync"], "Synced", "{:#}", shop.look());
    shop.up().expect_code(0);
    assert_eq!(image(), second);
    // Somebody's own build is told, and what is put back is the build of the record and not the file's.
    let others = format!("lab.local/app@{}", digests[0].split('"').nth(3).expect("a digest"));
    shop.done(&["set", "image", "statefulset/web", &format!("web={others}")]);
    assert_eq!(image(), first);
    let sight = shop.look();
    assert_eq!(sight["files"], "AsApplied", "{sight:#}");
    assert_eq!(sight["outOfSync"][0]["fields"][0]["wanted"], second, "{sight:#}");
    shop.up().expect_code(6);
    let report = include_str!("replica/set-staging.yaml");
    shop.write(
        "environments/staging.yaml",
        &report.replace("ttl: 8h", "ttl: 8h, drift: heal"),
    );
    shop.up().expect_code(0);
    assert_eq!(image(), second);
    // So it is where the set has to be made anew.
    shop.done(&["delete", "statefulset", "web"]);
    shop.up().expect_code(0);
    assert_eq!(image(), second);
    shop.stagegate(&["down", "staging"]).expect_code(0);
    shop.up().expect_code(0);
    assert_eq!(image(), second);
    assert_eq!(shop.look()["sync"], "Synced", "{:#}", shop.look());
    // Production runs what its file says, and the replica what it was upgraded to, which its file does not.
    let said = shop.stagegate(&["diff", "staging", "-o", "json"]).expect_code(3).json();
    let unexpected: Vec<&Value> = said["status"]["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|d| d["expected"].is_null())
        .collect();
    assert_eq!(
        unexpected,
        [&json!({
            "path": "builds.web", "here": "web-2",
            "there": "unknown: nobody has brought web of production up here, and its file names web-1",
        })]
    );
    shop.stagegate(&["down", "staging", "--purge"]).expect_code(0);
}

fn manifest(group: &str, version: &str, kind: &str, name: &str, mut value: Value) -> Manifest {
    let api = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    value["apiVersion"] = json!(api);
    value["kind"] = json!(kind);
    value["metadata"] = json!({"name": name});
    Manifest {
        component: "web".to_owned(),
        template: "web.yaml".to_owned(),
        id: ObjectId {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        },
        version: version.to_owned(),
        value,
    }
}

fn holding(manifests: Vec<Manifest>) -> Wanted {
    Wanted {
        manifests,
        moved: Vec::new(),
    }
}

/// It is killed before its first write, before its second, and so on, each time in a namespace of its own and over what an
/// earlier run has left there.
#[test]
fn a_run_that_is_killed_anywhere_is_finished_by_the_next() {
    let lab = Lab::with_api(&["stagegate-tests", NAMESPACE]);
    let before = holding(vec![
        manifest("", "v1", "ConfigMap", "kept", json!({"data": {"a": "1"}})),
        manifest("", "v1", "Secret", "dropped", json!({})),
        manifest("", "v1", "ServiceAccount", "dropped", json!({})),
    ]);
    let wanted = holding(vec![
        manifest("", "v1", "ConfigMap", "kept", json!({"data": {"a": "2"}})),
        manifest("", "v1", "Service", "new", json!({"spec": {"ports": [{"port": 80}]}})),
        manifest("", "v1", "ConfigMap", "new", json!({"data": {}})),
    ]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let kubeconfig = kube::config::Kubeconfig::read_from(lab.admin()).expect("a kubeconfig");
    runtime.block_on(async {
        for kill_at in 0.. {
            let options = kube::config::KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig.clone(), &options)
                .await
                .expect("a configuration");
            let client = kube::Client::try_from(config).expect("a client");
            let namespace = format!("killed-{kill_at}");
            let target: KubernetesTarget = serde_json::from_value(json!({"namespace": namespace})).expect("a target");
            let owner = Owner {
                home: "here".to_owned(),
                environment: "staging".to_owned(),
            };
            let replica = Replica::with(client, target, owner);
            let go_on = |_: &str| ControlFlow::Continue(());
            let until = |last: usize| {
                let writes = AtomicUsize::new(0);
                move |_: &str| {
                    if writes.fetch_add(1, Ordering::Relaxed) < last {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                }
            };
            let now = Timestamp::now();
            let run = Run::BringUp { now };
            // Of the first run as well: it begins with making the namespace.
            let made = replica.reconcile(&before, run, &until(kill_at)).await;
            if made.is_err() {
                replica.reconcile(&before, run, &go_on).await.expect("goes on");
            }
            let ended = replica.reconcile(&wanted, run, &until(kill_at)).await;
            let was_killed = matches!(ended, Err(ReplicaError::Interrupted));
            assert!(was_killed || ended.is_ok(), "{ended:?}");
            if was_killed {
                // Nobody may take what is half written for what somebody has changed.
                let sight = replica.look(&wanted, now).await.expect("a look");
                assert_ne!(sight.files, Files::AsApplied, "killed before write {kill_at}");
                replica.reconcile(&wanted, run, &go_on).await.expect("goes on");
            }
            let sight = replica.look(&wanted, now).await.expect("a look");
            assert_eq!(
                sight.sync,
                SyncState::Synced,
                "killed before write {kill_at}: {sight:#?}"
            );
            let there = versions(&lab, &namespace);
            assert_eq!(
                names(&there),
                ["ConfigMap/kept", "ConfigMap/new", "Service/new"],
                "{kill_at}"
            );
            // Twice more, and nothing changes.
            let outcome = replica.reconcile(&wanted, run, &go_on).await.expect("nothing to do");
            assert!(outcome.changed.is_empty() && outcome.pruned.is_empty(), "{outcome:?}");
            assert_eq!(there, versions(&lab, &namespace), "{kill_at}");
            // Its end is killed as well.
            if replica.take_down(Left::Namespace, &until(kill_at)).await.is_err() {
                replica.take_down(Left::Namespace, &go_on).await.expect("goes on");
            }
            assert!(versions(&lab, &namespace).is_empty(), "{kill_at}");
            if !was_killed && made.is_ok() {
                assert!(kill_at > 5, "{kill_at} writes are fewer than there are");
                break;
            }
        }
    });
}

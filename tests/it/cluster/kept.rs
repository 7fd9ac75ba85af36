//! What becomes of a replica while it stands: who looks after it, until when, and in which cluster.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::lab::Lab;
use super::replica::{NAMESPACE, Shop, names};

/// A Job beside what the tests' templates have.
const JOB: &str = "---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n      \
                   containers: [{name: m, image: registry.example.org/shop/migrate, resources: {requests: {cpu: 1m, memory: 1Mi}}}]\n";

fn with_a_job(shop: &Shop<'_>) {
    let config = include_str!("replica/config.yaml");
    shop.write("templates/web/config.yaml", &format!("{config}{JOB}"));
}

fn recorded(shop: &Shop<'_>) -> Value {
    let status = shop
        .stagegate(&["status", "staging", "-o", "json"])
        .expect_code(0)
        .json();
    status["status"]["environment"].clone()
}

/// Neither a look that finds no parent nor a file that names another place by now loses when it is to go.
#[test]
fn a_replica_goes_at_its_time_whatever_becomes_of_who_says_so() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    shop.target(", ttl: 8h", "");
    shop.up().expect_code(0);
    let before = recorded(&shop)["replica"]["expiresAt"].clone();
    assert!(before.is_string(), "{before}");
    shop.done(&["delete", "configmap", "stagegate-staging"]);
    let sight = shop.look();
    assert_eq!(
        (&sight["files"], &sight["sync"]),
        (&json!("Unknown"), &json!("OutOfSync"))
    );
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    let line = server.until("somebody has changed it");
    assert!(line.contains("ConfigMap/stagegate-staging is missing"), "{line}");
    drop(server);
    assert_eq!(recorded(&shop)["replica"]["expiresAt"], before);

    // It is over after the server's first look, and before its second.
    shop.target(", ttl: 3s", "");
    shop.up().expect_code(0);
    shop.done(&["delete", "configmap", "stagegate-staging"]);
    let elsewhere = include_str!("replica/staging.yaml").replace("shop-staging", "elsewhere");
    shop.write("environments/staging.yaml", &elsewhere);
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    server.until("its time was over");
    drop(server);
    assert!(shop.versions().is_empty());
    assert_eq!(recorded(&shop)["phase"], "Down");
}

#[test]
fn another_cluster_is_not_taken_for_the_one_where_a_replica_stands() {
    let (here, there) = (Lab::without_nodes(), Lab::without_nodes());
    let mut shop = Shop::open(&here);
    shop.target(", ttl: 8h", "");
    shop.up().expect_code(0);
    let objects = shop.versions();
    shop.lab = &there;
    for arguments in [
        &["up", "staging"][..],
        &["down", "staging"],
        &["down", "staging", "--purge"],
    ] {
        let said = shop.stagegate(arguments).expect_code(6);
        assert!(
            said.err.contains("staging stands in the cluster at https://127.0.0.1"),
            "{said:#?}"
        );
        assert!(said.err.contains("--cluster-is-gone"), "{said:#?}");
    }
    assert!(!shop.kubectl(&["get", "namespace", NAMESPACE]).done);
    assert_eq!(shop.look()["sync"], "Unknown");
    assert_eq!(recorded(&shop)["phase"], "Up");
    shop.lab = &here;
    assert_eq!(shop.versions(), objects);
    // Where it is gone for good, it can be said so.
    shop.lab = &there;
    let said = shop.stagegate(&["down", "staging", "--cluster-is-gone"]).expect_code(0);
    assert!(said.err.contains("is not looked for"), "{said:#?}");
    shop.up().expect_code(0);
    assert_eq!(
        names(&shop.versions()),
        ["ConfigMap/web", "Deployment/web", "Secret/web", "Service/web"]
    );
}

/// Where its last object would not go, none does.
#[test]
fn a_replica_is_taken_down_whole_or_not_at_all() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    shop.up().expect_code(0);
    let objects = shop.versions();
    assert!(objects.len() > 1, "{objects:#?}");
    let refusal = include_str!("replica/refusal.yaml");
    assert!(lab.kubectl(&["apply", "-f", "-"], refusal).done);
    let tried = ["delete", "configmap", "stagegate-staging", "--dry-run=server"];
    lab.until("it refuses", |_| !shop.kubectl(&tried).done);
    let said = shop.stagegate(&["down", "staging"]);
    assert!(said.code != Some(0) && said.err.contains("not now"), "{said:#?}");
    assert_eq!(shop.versions(), objects);
    assert!(lab.kubectl(&["delete", "-f", "-"], refusal).done);
    lab.until("it refuses no more", |_| shop.kubectl(&tried).done);
    shop.stagegate(&["down", "staging"]).expect_code(0);
    assert!(shop.versions().is_empty());
}

#[test]
fn a_job_that_has_gone_is_made_anew_by_people_alone() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    with_a_job(&shop);
    shop.target(", drift: heal", "");
    shop.up().expect_code(0);
    shop.done(&["delete", "job", "migrate"]);
    assert_eq!(shop.look()["sync"], "Synced", "{:#}", shop.look());
    shop.done(&["scale", "deployment", "web", "--replicas=4"]);
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    server.until("what somebody has changed is put back");
    drop(server);
    assert!(!shop.kubectl(&["get", "job", "migrate"]).done);
    shop.up().expect_code(0);
    shop.done(&["get", "job", "migrate"]);
}

/// And hides nothing of the others.
#[test]
fn what_cannot_be_put_back_is_told() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    shop.target(", drift: heal", "");
    shop.up().expect_code(0);
    shop.done(&[
        "patch",
        "configmap",
        "web",
        "-p",
        r#"{"immutable": true, "data": {"greeting": "bye"}}"#,
    ]);
    shop.done(&["delete", "service", "web"]);
    shop.done(&["create", "service", "clusterip", "web", "--tcp=80"]);
    shop.done(&["scale", "deployment", "web", "--replicas=4"]);
    let sight = shop.look();
    let causes: Vec<(&Value, &Value)> = sight["outOfSync"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|o| (&o["object"], &o["cause"]))
        .collect();
    let expected = [
        (json!("ConfigMap/web"), json!("Refused")),
        (json!("Service/web"), json!("NotOurs")),
        (json!("Deployment.apps/web"), json!("Drifted")),
    ];
    let expected: Vec<(&Value, &Value)> = expected.iter().map(|(object, cause)| (object, cause)).collect();
    assert_eq!(causes, expected, "{sight:#}");
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    let line = server.until("somebody has changed it");
    assert!(
        line.contains("ConfigMap/web would not be taken") && line.contains("Service/web is somebody else's"),
        "{line}"
    );
    server.until("what somebody has changed is put back: Deployment.apps/web");
    drop(server);
    assert_eq!(lab.get(&["deployment", "web", "-n", NAMESPACE])["spec"]["replicas"], 1);
    // `up` says the way out.
    let said = shop.up().expect_code(6);
    assert!(
        said.err.contains("kubectl delete -n shop-staging ConfigMap/web"),
        "{said:#?}"
    );
}

/// Also what is scaled by hand.
#[test]
fn a_quota_binds_whatever_is_in_the_namespace() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    shop.target(", quota: {objects: 9, pods: 2, cpu: \"1\"}", "");
    shop.up().expect_code(0);
    let quota = lab.get(&["resourcequota", "stagegate-staging", "-n", NAMESPACE]);
    assert_eq!(quota["spec"]["hard"], json!({"pods": "2", "requests.cpu": "1"}));
    assert_eq!(shop.look()["sync"], "Synced", "{:#}", shop.look());
    shop.done(&["scale", "deployment", "web", "--replicas=5"]);
    lab.until("the third pod is refused", |lab| {
        let deployment = lab.get(&["deployment", "web", "-n", NAMESPACE]);
        let conditions = deployment["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "ReplicaFailure")
    });
    assert_eq!(
        lab.get(&["pods", "-n", NAMESPACE])["items"].as_array().map(Vec::len),
        Some(2)
    );
    shop.target(", drift: heal", "");
    shop.up().expect_code(0);
    assert!(!shop.kubectl(&["get", "resourcequota", "stagegate-staging"]).done);
}

/// What an upgrade has written back, as it was before, is its owner's again.
#[test]
fn what_upgrades_have_written_does_not_stay_theirs() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    shop.up().expect_code(0);
    let set = |value: &str| {
        format!(
            r#"{{"spec": {{"template": {{"spec": {{"containers": [{{"name": "web", "env": [{{"name": "DATABASE", "value": "{value}"}}]}}]}}}}}}}}"#
        )
    };
    shop.done(&[
        "patch",
        "deployment",
        "web",
        "--field-manager=stagegate",
        "-p",
        &set("before"),
    ]);
    shop.up().expect_code(0);
    let deployment = lab.kubectl(
        &[
            "get",
            "deployment",
            "web",
            "-n",
            NAMESPACE,
            "-o",
            "json",
            "--show-managed-fields",
        ],
        "",
    );
    let deployment: Value = serde_json::from_str(&deployment.out).expect("JSON");
    let value = &deployment["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"];
    assert_eq!(value, "db.shop-staging.svc");
    let managers: Vec<&Value> = deployment["metadata"]["managedFields"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["manager"])
        .collect();
    assert!(!managers.contains(&&json!("stagegate")), "{managers:?}");
    // Nobody else's is let go with it.
    shop.done(&[
        "patch",
        "deployment",
        "web",
        "--field-manager=stagegate",
        "-p",
        &set("before"),
    ]);
    shop.done(&["scale", "deployment", "web", "--replicas=4"]);
    let said = shop.up().expect_code(6);
    assert!(
        said.err.contains("spec.replicas is held by kubectl") && !said.err.contains("DATABASE"),
        "{said:#?}"
    );
}

#[test]
fn a_parent_without_its_label_gets_it_again_and_a_template_cannot_be_it() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    shop.up().expect_code(0);
    shop.done(&["label", "configmap", "stagegate-staging", "applyset.kubernetes.io/id-"]);
    shop.up().expect_code(0);
    let parent = lab.get(&["configmap", "stagegate-staging", "-n", NAMESPACE]);
    assert!(
        parent["metadata"]["labels"]["applyset.kubernetes.io/id"].is_string(),
        "{parent:#}"
    );
    let config = include_str!("replica/config.yaml");
    let same = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: stagegate-staging}\n";
    shop.write("templates/web/config.yaml", &format!("{config}{same}"));
    let said = shop.up().expect_code(6);
    assert!(
        said.err.contains("has the name of the replica's own ConfigMap"),
        "{said:#?}"
    );
}

/// Whoever works by hand is not told that a server has it, which only looks.
#[test]
fn a_look_that_hangs_keeps_nobody_from_working() {
    let lab = Lab::without_nodes();
    let shop = Shop::open(&lab);
    shop.up().expect_code(0);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let api = format!("https://{}", silent.local_addr().expect("bound"));
    let kubeconfig = lab.path("silent.kubeconfig");
    let text = std::fs::read_to_string(lab.admin()).expect("a file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["clusters"][0]["cluster"]["server"] = json!(api);
    std::fs::write(&kubeconfig, config.to_string()).expect("written");
    let server = shop.begin_by(&kubeconfig, &["serve", "--listen", "127.0.0.1:0"]);
    // It asks, and is not answered.
    let asked = silent.accept().expect("a look");
    shop.up().expect_code(0);
    drop((asked, server));
}

//! Replicas that are objects themselves: an Environment with a target, which a controller keeps.

use serde_json::{Value, json};

use super::controller::{ACCOUNT, NAMESPACE, Town};

/// Where its objects are.
const REPLICA: &str = "shop-staging";

fn ready(town: &Town) -> Value {
    let status = town.get("env/staging")["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .into_iter()
        .find(|c| c["type"] == "Ready")
        .unwrap_or_default()
}

fn there(town: &Town, what: &str) -> Value {
    let found = town
        .lab
        .kubectl(&["-n", REPLICA, "get", what, "-o", "json", "--ignore-not-found"], "");
    assert!(found.done, "{found:#?}");
    serde_json::from_str(&found.out).unwrap_or_default()
}

fn done(town: &Town, arguments: &[&str], input: &str) {
    let left = town.lab.kubectl(arguments, input);
    assert!(left.done, "{arguments:?}: {left:#?}");
}

/// The environments as objects, with templates as a `ConfigMap` has them: by names without folders.
fn environments(target: &str) -> String {
    let staging = include_str!("replica/staging.yaml");
    let staging = staging.replace(
        "{namespace: shop-staging}",
        &format!("{{namespace: {REPLICA}{target}}}"),
    );
    let production = include_str!("replica/production.yaml").replace("web/", "");
    format!("{production}---\n{staging}")
}

#[test]
fn a_controller_makes_a_replica_puts_back_what_drifts_and_takes_it_down() {
    let town = Town::new();
    for (name, text) in [
        ("config.yaml", include_str!("replica/config.yaml")),
        ("deployment.yaml", include_str!("replica/deployment.yaml")),
    ] {
        town.trivial.write(&format!("workspace/templates/{name}"), text);
    }
    let _controller = town.controller();
    town.apply(&environments(", drift: heal"));
    // It has the rights of its own namespace and no others.
    town.until("it says what it may not", |town| {
        let ready = ready(town);
        ready["reason"] == "NotUp" && ready["message"].as_str().is_some_and(|why| why.contains("forbidden"))
    });
    let home = town.lab.get(&["namespace", NAMESPACE])["metadata"]["uid"].clone();
    let home = format!("stagegate.dev/home={}", home.as_str().expect("a uid"));
    done(&town, &["create", "namespace", REPLICA], "");
    done(
        &town,
        &[
            "label",
            "namespace",
            REPLICA,
            &home,
            "stagegate.dev/environment=staging",
        ],
        "",
    );
    let account = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
    let bind = [
        "-n",
        REPLICA,
        "create",
        "rolebinding",
        "stagegate",
        "--clusterrole=admin",
        &account,
    ];
    done(&town, &bind, "");
    town.wait("env/staging", "condition=Ready");
    assert_eq!(there(&town, "deployment/web")["spec"]["replicas"], 1);
    let seen = town.get("env/staging")["status"]["replica"]["sight"].clone();
    assert_eq!(seen["sync"], "Synced", "{seen:#}");

    // What somebody changes is put back within the minute, and told.
    let patch = ["-n", REPLICA, "patch", "configmap/web", "--type=merge", "-p"];
    done(
        &town,
        &[&patch[..], &[r#"{"data": {"greeting": "by hand"}}"#]].concat(),
        "",
    );
    town.until("it is put back", |town| {
        there(town, "configmap/web")["data"]["greeting"] == "hello"
    });
    town.until("it is told", |town| {
        let events = town.lab.get(&["-n", NAMESPACE, "events.events.k8s.io"]);
        let mut all = events["items"].as_array().expect("a list").iter();
        all.any(|e| e["reason"] == "ReplicaHealed" && e["regarding"]["name"] == "staging")
    });

    // What its base states otherwise is the replica's once it is brought up anew, and what is no longer stated goes.
    let fewer = environments(", drift: heal").replace("[config.yaml, deployment.yaml]", "[config.yaml]");
    town.apply(&fewer.replace("replicas: 1", "replicas: 2"));
    town.until("it is pruned", |town| there(town, "deployment/web").is_null());
    town.wait("env/staging", "condition=Ready");
    assert!(there(&town, "configmap/web").is_object());

    town.kubectl(&["delete", "env", "staging", "--timeout=90s"], "");
    assert!(there(&town, "configmap/web").is_null());
    assert_eq!(
        town.lab.get(&["namespace", REPLICA])["status"]["phase"],
        json!("Active"),
        "it was not made by us"
    );
}

#[test]
fn a_replica_that_was_made_for_a_while_goes_when_that_is_over() {
    let town = Town::new();
    town.trivial
        .write("workspace/templates/config.yaml", include_str!("replica/config.yaml"));
    let bind = [
        "create",
        "clusterrolebinding",
        "stagegate-tests",
        "--clusterrole=cluster-admin",
    ];
    let account = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
    done(&town, &[&bind[..], &[account.as_str()]].concat(), "");
    let _controller = town.controller();
    let text = environments(", ttl: 5s").replace("[config.yaml, deployment.yaml]", "[config.yaml]");
    town.apply(&text);
    town.until("it stands", |town| there(town, "configmap/web").is_object());
    town.until("it is taken down", |town| ready(town)["reason"] == "Expired");
    assert!(there(&town, "configmap/web").is_null());
    // Nobody has asked for it anew, so it stays down; who does, gets it for as long again.
    assert!(town.get("env/staging")["status"]["replica"].is_null());
    town.apply(&text.replace("ttl: 5s", "ttl: 8h"));
    town.wait("env/staging", "condition=Ready");
    town.kubectl(&["delete", "env", "staging", "--timeout=90s"], "");
    assert_eq!(there(&town, "configmap/web"), Value::Null);
}

#[test]
fn changed_templates_are_applied_when_somebody_asks_for_it_and_once() {
    let town = Town::new();
    let text = include_str!("replica/config.yaml");
    town.trivial.write("workspace/templates/config.yaml", text);
    let account = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
    let bind = [
        "create",
        "clusterrolebinding",
        "stagegate-tests",
        "--clusterrole=cluster-admin",
    ];
    done(&town, &[&bind[..], &[account.as_str()]].concat(), "");
    let from = format!("--from-file={}", town.trivial.path("workspace/templates").display());
    town.kubectl(&["create", "configmap", "stagegate-templates", &from], "");
    let controller = town.controller();
    town.apply(&environments("").replace("[config.yaml, deployment.yaml]", "[config.yaml]"));
    town.wait("env/staging", "condition=Ready");
    assert_eq!(there(&town, "configmap/web")["data"]["greeting"], "hello");

    // Of the cluster alone: a kubelet brings it to the controller later.
    let other = text.replacen("vars.greeting }}", "vars.greeting }} again", 1);
    let patch = json!({"data": {"config.yaml": other}}).to_string();
    town.kubectl(
        &["patch", "configmap/stagegate-templates", "--type=merge", "-p", &patch],
        "",
    );
    let mut asks = town.plugin(&["up", "staging"]);
    asks.until("not in the controller's pod yet");
    assert_eq!(there(&town, "configmap/web")["data"]["greeting"], "hello");
    town.trivial.write("workspace/templates/config.yaml", &other);
    let said = asks.end().expect_code(0);
    assert!(said.out.contains("staging is Up"), "{said:?}");
    assert_eq!(there(&town, "configmap/web")["data"]["greeting"], "hello again");

    // What was answered is not done again by whoever leads next, and what was asked meanwhile is not forgotten.
    let fence = || town.get("env/staging")["status"]["fence"].as_u64().expect("a number");
    let before = fence();
    controller.signal(rustix::process::Signal::KILL);
    drop(controller);
    town.plugin(&["up", "staging", "--no-wait"]).end().expect_code(0);
    let _controller = town.controller();
    town.until("it is answered", |town| {
        let object = town.get("env/staging");
        let asked = &object["metadata"]["annotations"]["stagegate.dev/reconcile-at"];
        asked.is_string() && object["status"]["lastHandledReconcileAt"] == *asked
    });
    assert_eq!(fence(), before + 1);

    // What cannot be made is an answer, too, and so is that nobody can be asked.
    town.trivial
        .write("workspace/templates/config.yaml", "{{ nobody.knows.this }}");
    let said = town.plugin(&["up", "staging"]).end().expect_code(1);
    assert!(said.out.contains("staging is Invalid"), "{said:?}");
    let said = town.plugin(&["up", "nowhere"]).end().expect_code(2);
    assert!(
        said.err.contains("there is no Environment nowhere") && said.err.contains("staging"),
        "{said:?}"
    );
}

//! A command at hand over workloads as an API server has them: what is in the way is said before anything is begun, and nothing of it is
//! written.

use std::process::Output;

use serde_json::{Value, json};

use super::lab::Lab;

const NAMESPACE: &str = "at-hand";

/// The pods' image, by the digit that its digest consists of.
fn image(name: &str, digit: &str) -> String {
    format!("registry.example.org/{name}@sha256:{}", digit.repeat(64))
}

/// A `StatefulSet` `web` and a Deployment `front`, whose pods have these containers.
fn workloads(containers: &[&str]) -> String {
    let workload = |kind: &str, name: &str, more: Value| {
        let all: Vec<Value> = containers
            .iter()
            .map(|container| json!({"name": container, "image": image(name, "1")}))
            .collect();
        let mut spec = json!({
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": all}},
        });
        spec.as_object_mut()
            .expect("a map")
            .extend(more.as_object().cloned().unwrap_or_default());
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    };
    let items = [
        workload("StatefulSet", "web", json!({"serviceName": "web", "replicas": 2})),
        workload("Deployment", "front", json!({})),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// An environment of both, each with a version to go to.
fn environment(container: Option<&str>) -> String {
    let component = |name: &str, key: &str, mut workload: Value| {
        workload["namespace"] = json!(NAMESPACE);
        workload["name"] = json!(name);
        if let Some(container) = container {
            workload["container"] = json!(container);
        }
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        json!({
            "name": name,
            "source": {"images": {
                "repository": format!("registry.example.org/{name}"), "digests": {"1": digest("1"), "2": digest("2")},
            }},
            "build": "1",
            key: workload,
        })
    };
    let components = [
        component("web", "statefulSet", json!({"replicas": 2})),
        component("front", "deployment", json!({})),
    ];
    json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment", "metadata": {"name": "shop"},
        "spec": {"components": components},
    })
    .to_string()
}

struct Shop(Lab);

impl Shop {
    fn open() -> Self {
        let this = Self(Lab::with_api(&[NAMESPACE]));
        this.done(&["apply", "-f", "-"], &workloads(&["main"]));
        this.state(None);
        this
    }

    fn state(&self, container: Option<&str>) {
        let environments = self.0.path("workspace/environments");
        std::fs::create_dir_all(&environments).expect("made");
        std::fs::write(environments.join("shop.yaml"), environment(container)).expect("written");
    }

    fn done(&self, arguments: &[&str], input: &str) -> String {
        let left = self.0.kubectl(&[&["-n", NAMESPACE], arguments].concat(), input);
        assert!(left.done, "{arguments:?}: {left:#?}");
        left.out
    }

    fn stagegate(&self, words: &[&str]) -> Output {
        let mut command = self.0.command(env!("CARGO_BIN_EXE_stagegate").as_ref());
        command
            .args(words)
            .env("STAGEGATE_STATE", self.0.path("state"))
            .env("STAGEGATE_WORKSPACE", self.0.path("workspace"));
        command.output().expect("it runs")
    }

    /// What was said by a command that ends with this, on both of its outputs.
    fn ended(&self, words: &[&str], code: i32) -> String {
        let output = self.stagegate(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:#?}");
        String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
    }

    /// Both workloads, without what their API server says of them.
    fn both(&self) -> Vec<Value> {
        ["statefulset/web", "deployment/front"]
            .map(|what| {
                let mut object = self.0.get(&["-n", NAMESPACE, what]);
                json!([object["metadata"]["annotations"].take(), object["spec"].take()])
            })
            .to_vec()
    }
}

#[test]
fn what_another_home_drives_is_told_at_once_and_not_begun() {
    let shop = Shop::open();
    // Nobody has them yet.
    let said = shop.ended(&["up", "shop"], 0);
    assert!(!said.contains("another home"), "{said}");

    // As the controller of that namespace leaves them behind an upgrade: its home is the namespace.
    let uid = shop.done(&["get", "namespace", NAMESPACE, "-o", "jsonpath={.metadata.uid}"], "");
    let record = json!({"fence": {"home": uid, "counter": 3}}).to_string();
    let annotation = format!("stagegate.dev/rolling={record}");
    shop.done(&["annotate", "statefulset/web", "deployment/front", &annotation], "");
    let before = shop.both();
    let remedy = format!("where that is the uid of namespace {NAMESPACE}");
    let said = shop.ended(&["up", "shop"], 0);
    for nodes in ["web-1, web-0", "front-canary, front"] {
        let told = format!("{nodes} of shop serve another home ({uid}), which alone upgrades them; {remedy}");
        assert!(said.contains(&told), "{told}: {said}");
    }
    for build in ["web=2", "front=2"] {
        for word in ["plan", "upgrade"] {
            let said = shop.ended(&[word, "shop", "--build", build], 6);
            let error = said.lines().last().unwrap_or_default();
            assert!(
                error.starts_with("error: ")
                    && error.contains("serve another home")
                    && error.contains("stagegate adopt shop`"),
                "{word}: {said}"
            );
        }
    }
    let history = shop.stagegate(&["history", "shop", "-o", "name"]);
    assert!(history.stdout.is_empty(), "{history:#?}");
    assert_eq!(shop.both(), before);
}

/// Their owner may put a container beside the one that runs the build, or call it otherwise, between two upgrades.
#[test]
fn which_container_is_meant_is_asked_for_before_anything_is_written() {
    let shop = Shop::open();
    shop.ended(&["up", "shop"], 0);
    for (stated, containers, why) in [
        (None, &["main", "proxy"][..], "it has the containers main, proxy"),
        (
            Some("main"),
            &["app", "proxy"],
            "it has no container main, only app, proxy",
        ),
    ] {
        shop.state(stated);
        shop.done(&["replace", "-f", "-"], &workloads(containers));
        let before = shop.both();
        for (build, key) in [("web=2", "statefulSet"), ("front=2", "deployment")] {
            let asked = format!("{why}; `{key}.container` says which runs the build");
            let plan = shop.stagegate(&["plan", "shop", "--build", build, "-o", "json"]);
            let plan: Value = serde_json::from_slice(&plan.stdout).expect("JSON");
            let steps = plan["status"]["nodes"][0]["steps"].as_str().expect("words");
            assert!(steps.ends_with(&asked), "{plan:#}");
            // Nobody is waited for: that does not mend itself.
            let said = shop.ended(&["upgrade", "shop", "--build", build, "--timeout", "20s"], 5);
            assert!(
                said.contains("PreflightFailed") && said.contains(&asked),
                "{asked}: {said}"
            );
            shop.ended(&["abort", "shop"], 0);
        }
        let said = shop.ended(&["up", "shop"], 1);
        assert!(said.contains(why) && said.contains("`statefulSet.container`"), "{said}");
        assert_eq!(shop.both(), before);
    }
    // Once it is stated, it is what is looked at.
    shop.state(Some("app"));
    shop.ended(&["up", "shop"], 0);
}

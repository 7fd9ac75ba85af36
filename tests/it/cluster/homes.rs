//! Two homes over one workload: a command at hand where a controller has upgraded, or the other way about. Which home has it stands on it.

use std::process::Output;

use serde_json::json;

use super::lab::Lab;

const NAMESPACE: &str = "stagegate-homes";

const WORKLOADS: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 2
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: 'registry.example.org/web@sha256:1111111111111111111111111111111111111111111111111111111111111111'}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  replicas: 1
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec: {containers: [{name: main, image: 'registry.example.org/front@sha256:1111111111111111111111111111111111111111111111111111111111111111'}]}
";

/// Of both, each with a version to go to.
fn environment() -> String {
    let component = |name: &str, workload: &str| {
        json!({
            "name": name,
            "source": {"images": {"repository": format!("registry.example.org/{name}"), "digests": {
                "1": format!("sha256:{}", "1".repeat(64)), "2": format!("sha256:{}", "2".repeat(64)),
            }}},
            "build": "1",
            workload: match workload {
                "statefulSet" => json!({"namespace": NAMESPACE, "name": name, "replicas": 2}),
                _ => json!({"namespace": NAMESPACE, "name": name}),
            },
        })
    };
    json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment", "metadata": {"name": "shop"},
        "spec": {"components": [component("web", "statefulSet"), component("front", "deployment")]},
    })
    .to_string()
}

#[test]
fn what_another_home_drives_is_told_at_once_and_not_begun() {
    let lab = Lab::with_api(&[NAMESPACE]);
    let done = |arguments: &[&str], input: &str| {
        let left = lab.kubectl(&[&["-n", NAMESPACE], arguments].concat(), input);
        assert!(left.done, "{arguments:?}: {left:#?}");
        left.out
    };
    done(&["apply", "-f", "-"], WORKLOADS);
    let environments = lab.path("workspace/environments");
    std::fs::create_dir_all(&environments).expect("made");
    std::fs::write(environments.join("shop.yaml"), environment()).expect("written");
    let stagegate = |words: &[&str]| -> Output {
        let mut command = lab.command(env!("CARGO_BIN_EXE_stagegate").as_ref());
        command
            .args(words)
            .env("STAGEGATE_STATE", lab.path("state"))
            .env("STAGEGATE_WORKSPACE", lab.path("workspace"));
        command.output().expect("it runs")
    };
    let ended = |words: &[&str], code: i32| -> String {
        let output = stagegate(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:#?}");
        String::from_utf8(output.stderr).expect("text")
    };
    // Nobody has them yet.
    let said = ended(&["up", "shop"], 0);
    assert!(!said.contains("another home"), "{said}");

    // As the controller of that namespace leaves them behind an upgrade: its home is the namespace.
    let uid = done(&["get", "namespace", NAMESPACE, "-o", "jsonpath={.metadata.uid}"], "");
    let record = json!({"fence": {"home": uid, "counter": 3}}).to_string();
    let annotation = format!("stagegate.dev/rolling={record}");
    done(&["annotate", "statefulset/web", "deployment/front", &annotation], "");
    let remedy = format!("where that is the uid of namespace {NAMESPACE}");
    let said = ended(&["up", "shop"], 0);
    for nodes in ["web-1, web-0", "front-canary, front"] {
        let told = format!("{nodes} of shop serve another home ({uid}), which alone upgrades them; {remedy}");
        assert!(said.contains(&told), "{told}: {said}");
    }
    for build in ["web=2", "front=2"] {
        for word in ["plan", "upgrade"] {
            let said = ended(&[word, "shop", "--build", build], 6);
            let error = said.lines().last().unwrap_or_default();
            assert!(
                error.starts_with("error: ")
                    && error.contains("serve another home")
                    && error.contains("stagegate adopt shop`"),
                "{word}: {said}"
            );
        }
    }
    let history = stagegate(&["history", "shop", "-o", "name"]);
    assert!(history.stdout.is_empty(), "{history:#?}");
}

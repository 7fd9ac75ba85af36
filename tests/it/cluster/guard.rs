//! Images of a protected namespace, as a real API server guards them.

use super::lab::{Lab, Left};
use stagegate::cluster::guard;

const WORKLOADS: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: prod
  labels: {stagegate.dev/protected: 'true'}
  annotations: {stagegate.dev/drivers: 'somebody, system:serviceaccount:stagegate:controller'}
---
apiVersion: v1
kind: Namespace
metadata: {name: open}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everybody-may-everything}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
  - {kind: User, name: carol}
  - {kind: User, name: 'system:serviceaccount:stagegate:controller'}
";

fn set(namespace: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: web, namespace: {namespace}}}\nspec:\n  serviceName: web\n  replicas: 0\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         initContainers: [{{name: first, image: first:1}}]\n      containers: [{{name: web, image: '{image}'}}]\n"
    )
}

const DRIVER: &str = "--as=system:serviceaccount:stagegate:controller";

fn done(left: &Left) {
    assert!(left.done, "{left:#?}");
}

fn refused(left: &Left) {
    assert!(!left.done && left.err.contains("is none of its drivers"), "{left:#?}");
    assert!(left.err.contains("stagegate.dev/break-glass"), "{left:#?}");
}

/// The number that who is refused is told to begin the reason with.
fn number_in(left: &Left) -> String {
    let told = left.err.split_once("of the object to \"").map(|(_, then)| then);
    let number = told
        .and_then(|told| told.split_once(": WHY\""))
        .map(|(number, _)| number);
    number.unwrap_or_else(|| panic!("{left:#?}")).to_owned()
}

/// A control plane with a protected namespace, whose policy is in force.
fn guarded() -> Lab {
    let cluster = Lab::without_nodes();
    let objects: Vec<String> = guard::all().iter().map(ToString::to_string).collect();
    let policy = objects.join("\n---\n");
    done(&cluster.kubectl(&["apply", "-f", "-"], &policy));
    done(&cluster.kubectl(&["apply", "-f", "-"], WORKLOADS));
    for namespace in ["prod", "open"] {
        done(&cluster.kubectl(&["apply", "-f", "-"], &set(namespace, "web:1")));
    }
    // It takes a moment until a policy is in force. Until then nothing may change: what has the image already is not refused.
    cluster.until("the policy is in force", |lab| {
        let patch = r#"{"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}}"#;
        let patched = [
            "patch",
            "statefulset/web",
            "-n",
            "prod",
            "--as=carol",
            "--dry-run=server",
            "-p",
            patch,
        ];
        !lab.kubectl(&patched, "").done
    });
    cluster
}

#[test]
fn an_image_changes_by_a_driver_or_with_a_reason_that_is_new() {
    let cluster = guarded();
    let patch = |who: &str, namespace: &str, patch: &str| {
        let as_who = format!("--as={who}");
        cluster.kubectl(&["patch", "statefulset/web", "-n", namespace, &as_who, "-p", patch], "")
    };
    let image = |image: &str| {
        format!(r#"{{"spec": {{"template": {{"spec": {{"containers": [{{"name": "web", "image": "{image}"}}]}}}}}}}}"#)
    };
    let with_reason = |of: &str, reason: &str| {
        let mut patch: serde_json::Value = serde_json::from_str(&image(of)).expect("JSON");
        let number = number_in(&patch_image(&cluster, "statefulset/web", "never:1", None));
        patch["metadata"]["annotations"]["stagegate.dev/break-glass"] = format!("{number}: {reason}").into();
        patch.to_string()
    };
    refused(&patch("carol", "prod", &image("web:2")));
    refused(&patch(
        "carol",
        "prod",
        r#"{"spec": {"template": {"spec": {"initContainers": [{"name": "first", "image": "first:2"}]}}}}"#,
    ));
    refused(&patch("carol", "prod", &with_reason("web:2", "   hotfix   ")));
    // A reason without what it is for could be used again.
    let aimless = with_reason("web:2", "it burns").replace(": it burns", " it burns and burns");
    refused(&patch("carol", "prod", &aimless));
    // What is no image is nobody's business here, nor is another namespace.
    done(&patch(
        "carol",
        "prod",
        r#"{"spec": {"replicas": 0}, "metadata": {"labels": {"a": "b"}}}"#,
    ));
    done(&patch("carol", "open", &image("web:2")));
    done(&patch(
        "system:serviceaccount:stagegate:controller",
        "prod",
        &image("web:2"),
    ));
    let reason = with_reason("web:3", "the database is on fire, ask Carol");
    done(&patch("carol", "prod", &reason));
    // The reason of that time opens nothing now, nor does it once another has taken its place.
    refused(&patch("carol", "prod", &image("web:4")));
    refused(&patch("carol", "prod", &reason.replace("web:3", "web:4")));
    done(&patch(
        "carol",
        "prod",
        r#"{"metadata": {"annotations": {"stagegate.dev/break-glass": "nothing burns"}}}"#,
    ));
    refused(&patch("carol", "prod", &reason.replace("web:3", "web:4")));
    done(&patch(
        "carol",
        "prod",
        &with_reason("web:4", "it burns again, ask Carol"),
    ));
    // A canary is made anew, which anybody may, and gets its builds by a driver.
    let canary = set("prod", "web:4")
        .replace("StatefulSet", "Deployment")
        .replace("name: web,", "name: web-canary,")
        .replace("  serviceName: web\n", "");
    done(&cluster.kubectl(&["create", DRIVER, "-f", "-"], &canary));
    let next = |who: &str| {
        let patch = image("web:5");
        cluster.kubectl(&["patch", "deployment/web-canary", "-n", "prod", who, "-p", &patch], "")
    };
    refused(&next("--as=carol"));
    done(&next(DRIVER));
    done(&cluster.kubectl(&["delete", DRIVER, "deployment/web-canary", "-n", "prod"], ""));
    // Nobody is a driver where nobody is listed; what is no image is free all the same, and the glass can be broken.
    done(&cluster.kubectl(&["annotate", "namespace", "prod", "stagegate.dev/drivers-"], ""));
    cluster.until("the list is gone", |lab| {
        let patch = image("web:5");
        let patched = [
            "patch",
            "statefulset/web",
            "-n",
            "prod",
            DRIVER,
            "--dry-run=server",
            "-p",
            &patch,
        ];
        !lab.kubectl(&patched, "").done
    });
    done(&patch("carol", "prod", r#"{"metadata": {"labels": {"a": "c"}}}"#));
    done(&patch(
        "carol",
        "prod",
        &with_reason("web:5", "nobody is a driver, ask Carol"),
    ));
}

/// Carol changes an image in the protected namespace, with this annotation.
fn patch_image(cluster: &Lab, object: &str, image: &str, reason: Option<&str>) -> Left {
    let containers = serde_json::json!({"containers": [{"name": "web", "image": image}]});
    let mut patch = if object.starts_with("pod/") {
        serde_json::json!({"spec": containers})
    } else {
        serde_json::json!({"spec": {"template": {"spec": containers}}})
    };
    if let Some(reason) = reason {
        patch["metadata"]["annotations"]["stagegate.dev/break-glass"] = reason.into();
    }
    let patch = patch.to_string();
    let words = [
        "patch",
        object,
        "-n",
        "prod",
        "--as=carol",
        "--type=strategic",
        "-p",
        &patch,
    ];
    cluster.kubectl(&words, "")
}

#[test]
fn a_reason_is_for_one_change_and_is_told_as_it_has_to_be_written() {
    let cluster = guarded();
    let template = "{metadata: {labels: {app: x}}, spec: {containers: [{name: web, image: 'web:1'}]}}";
    let selector = "{matchLabels: {app: x}}";
    cluster.until("there may be pods", |lab| {
        lab.kubectl(&["get", "serviceaccount", "default", "-n", "prod"], "")
            .done
    });
    for (api, kind, spec) in [
        (
            "apps/v1",
            "Deployment",
            format!("{{replicas: 0, selector: {selector}, template: {template}}}"),
        ),
        (
            "apps/v1",
            "DaemonSet",
            format!("{{selector: {selector}, template: {template}}}"),
        ),
        (
            "apps/v1",
            "ReplicaSet",
            format!("{{replicas: 0, selector: {selector}, template: {template}}}"),
        ),
        (
            "v1",
            "ReplicationController",
            format!("{{replicas: 0, selector: {{app: x}}, template: {template}}}"),
        ),
        ("v1", "Pod", "{containers: [{name: web, image: 'web:1'}]}".to_owned()),
    ] {
        let object =
            format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: some, namespace: prod}}\nspec: {spec}\n")
                // Or one would be another's.
                .replace("app: x", &format!("app: {kind}"));
        done(&cluster.kubectl(&["create", "--as=carol", "-f", "-"], &object));
        let object = format!("{}/some", kind.to_lowercase());
        let patch = |image: &str, reason: Option<&str>| patch_image(&cluster, &object, image, reason);
        let told = patch("web:2", None);
        let reason = format!("{}: it burns, ask Carol", number_in(&told));
        refused(&told);
        done(&patch("web:2", Some(&reason)));
        // Others' words in between do not make it new.
        done(&cluster.kubectl(&["annotate", &object, "-n", "prod", "stagegate.dev/break-glass-"], ""));
        refused(&patch("web:3", Some(&reason)));
    }
}

#[test]
fn what_kubectl_rollout_undo_brings_back_of_a_reason_opens_nothing() {
    let cluster = guarded();
    let front = set("prod", "web:1")
        .replace("StatefulSet", "Deployment")
        .replace("name: web,", "name: front,")
        .replace("app: web", "app: front")
        .replace("  serviceName: web\n", "");
    done(&cluster.kubectl(&["create", "--as=carol", "-f", "-"], &front));
    for image in ["web:2", "web:3"] {
        // Its controller keeps the reason with the images of its time.
        let of_now = cluster.get(&["deployment", "front", "-n", "prod"])["spec"]["template"].take();
        cluster.until("its controller has seen it", |lab| {
            let sets = lab.get(&["replicasets", "-n", "prod", "-l", "app=front"]);
            let mut images = sets["items"].as_array().expect("a list").iter();
            images.any(|set| set["spec"]["template"]["spec"]["containers"] == of_now["spec"]["containers"])
        });
        let number = number_in(&patch_image(&cluster, "deployment/front", image, None));
        let reason = format!("{number}: {image} burns, ask Carol");
        done(&patch_image(&cluster, "deployment/front", image, Some(&reason)));
        cluster.until("the reason is kept", |lab| {
            let sets = lab.get(&["replicasets", "-n", "prod", "-l", "app=front"]);
            let mut sets = sets["items"].as_array().expect("a list").iter();
            sets.any(|set| set["metadata"]["annotations"]["stagegate.dev/break-glass"] == reason.as_str())
        });
    }
    let undo = |who: &str, revision: u8| {
        let revision = format!("--to-revision={revision}");
        cluster.kubectl(
            &["rollout", "undo", "deployment/front", "-n", "prod", who, &revision],
            "",
        )
    };
    let image = || {
        let front = cluster.get(&["deployment", "front", "-n", "prod"]);
        front["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    // One without a reason, and one that had one.
    for revision in [1, 2] {
        refused(&undo("--as=carol", revision));
        assert_eq!(image(), "web:3", "{revision}");
    }
    done(&undo(DRIVER, 2));
    assert_eq!(image(), "web:2");
}

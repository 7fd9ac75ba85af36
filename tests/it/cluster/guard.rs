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

#[test]
fn an_image_changes_by_a_driver_or_with_a_reason_that_is_new() {
    let cluster = Lab::without_nodes();
    let done = |left: Left| assert!(left.done, "{left:#?}");
    let objects: Vec<String> = guard::all().iter().map(ToString::to_string).collect();
    let policy = objects.join("\n---\n");
    done(cluster.kubectl(&["apply", "-f", "-"], &policy));
    done(cluster.kubectl(&["apply", "-f", "-"], WORKLOADS));
    for namespace in ["prod", "open"] {
        done(cluster.kubectl(&["apply", "-f", "-"], &set(namespace, "web:1")));
    }
    let patch = |who: &str, namespace: &str, patch: &str| {
        let as_who = format!("--as={who}");
        cluster.kubectl(&["patch", "statefulset/web", "-n", namespace, &as_who, "-p", patch], "")
    };
    let image = |image: &str| {
        format!(r#"{{"spec": {{"template": {{"spec": {{"containers": [{{"name": "web", "image": "{image}"}}]}}}}}}}}"#)
    };
    let with_reason = |of: &str, reason: &str| {
        let mut patch: serde_json::Value = serde_json::from_str(&image(of)).expect("JSON");
        patch["metadata"]["annotations"]["stagegate.dev/break-glass"] = reason.into();
        patch.to_string()
    };
    // It takes a moment until a policy is in force.
    cluster.until("the policy is in force", |_| {
        !patch("carol", "prod", &image("web:2")).done
    });

    let refused = |left: Left| {
        assert!(!left.done && left.err.contains("is none of its drivers"), "{left:#?}");
        assert!(left.err.contains("stagegate.dev/break-glass"), "{left:#?}");
    };
    refused(patch("carol", "prod", &image("web:2")));
    refused(patch(
        "carol",
        "prod",
        r#"{"spec": {"template": {"spec": {"initContainers": [{"name": "first", "image": "first:2"}]}}}}"#,
    ));
    refused(patch("carol", "prod", &with_reason("web:2", "   hotfix   ")));
    // What is no image is nobody's business here, nor is another namespace.
    done(patch(
        "carol",
        "prod",
        r#"{"spec": {"replicas": 0}, "metadata": {"labels": {"a": "b"}}}"#,
    ));
    done(patch("carol", "open", &image("web:2")));
    done(patch(
        "system:serviceaccount:stagegate:controller",
        "prod",
        &image("web:2"),
    ));
    done(patch(
        "carol",
        "prod",
        &with_reason("web:3", "the database is on fire, ask Carol"),
    ));
    // The reason of that time opens nothing now.
    refused(patch("carol", "prod", &image("web:4")));
    refused(patch(
        "carol",
        "prod",
        &with_reason("web:4", "the database is on fire, ask Carol"),
    ));
    done(patch(
        "carol",
        "prod",
        &with_reason("web:4", "it burns again, ask Carol"),
    ));
    // A canary is made anew, which anybody may, and gets its builds by a driver.
    let canary = set("prod", "web:4")
        .replace("StatefulSet", "Deployment")
        .replace("name: web,", "name: web-canary,")
        .replace("  serviceName: web\n", "");
    let driver = "--as=system:serviceaccount:stagegate:controller";
    done(cluster.kubectl(&["create", driver, "-f", "-"], &canary));
    let next = |who: &str| {
        let patch = image("web:5");
        cluster.kubectl(&["patch", "deployment/web-canary", "-n", "prod", who, "-p", &patch], "")
    };
    refused(next("--as=carol"));
    done(next(driver));
    done(cluster.kubectl(&["delete", driver, "deployment/web-canary", "-n", "prod"], ""));
    // Nobody is a driver where nobody is listed; what is no image is free all the same, and the glass can be broken.
    done(cluster.kubectl(&["annotate", "namespace", "prod", "stagegate.dev/drivers-"], ""));
    cluster.until("the list is gone", |_| {
        !patch("system:serviceaccount:stagegate:controller", "prod", &image("web:5")).done
    });
    done(patch("carol", "prod", r#"{"metadata": {"labels": {"a": "c"}}}"#));
    done(patch(
        "carol",
        "prod",
        &with_reason("web:5", "nobody is a driver, ask Carol"),
    ));
}

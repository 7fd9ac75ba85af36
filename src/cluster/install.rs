//! What an administrator applies so that the controller runs in a cluster: namespace, definitions, its rights and nothing beyond
//! them, two replicas with a volume each.

use serde_json::{Value, json};

use super::crd::GROUP;
use super::{admission, guard};

/// Where it goes unless said otherwise.
pub const NAMESPACE: &str = "stagegate";
/// The image that runs unless said otherwise; built from `docs/kubernetes/Containerfile`.
pub const IMAGE: &str = concat!("stagegate:", env!("CARGO_PKG_VERSION"));
/// The label by which all that is ours is found, and its value.
pub(super) const PART_OF: &str = "app.kubernetes.io/part-of";
pub(super) const PART: &str = "stagegate";
/// Its service account, role and workload.
pub(super) const NAME: &str = "stagegate-controller";
/// What its pods are found by.
pub const SELECTOR: &str = "app.kubernetes.io/name=stagegate-controller";
/// Where it answers in its pod.
const PORT: u16 = 8_787;
/// A step that runs ends first: the longest that is usual is an install of some minutes.
const GRACE_SECONDS: u32 = 600;

/// Every object, in an order in which they can be applied. `definitions` are our kinds.
#[must_use]
pub fn manifests(namespace: &str, image: &str, definitions: Vec<Value>) -> Vec<Value> {
    let mut all = Vec::new();
    // Another one is somebody's, whose pods need not be as ours are.
    if namespace == NAMESPACE {
        all.push(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": labelled(&json!({
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/enforce-version": "latest",
            }))},
        }));
    }
    all.extend(definitions);
    // Without effect but in namespaces that are labelled as protected.
    all.extend(guard::all());
    all.extend(admission::all());
    let about = json!({"name": NAME, "namespace": namespace, "labels": labelled(&json!({}))});
    all.extend([
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": about,
            "rules": rules(namespace),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": about,
            "spec": {
                "clusterIP": "None",
                "selector": selector(),
                "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
            },
        }),
        replicas(&about, namespace, image),
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": about,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
        }),
    ]);
    all
}

fn selector() -> Value {
    let (label, value) = SELECTOR.split_once('=').unwrap_or((SELECTOR, NAME));
    json!({ label: value })
}

fn labelled(more: &Value) -> Value {
    let mut labels = json!({"app.kubernetes.io/name": NAME, PART_OF: PART});
    if let (Some(labels), Some(more)) = (labels.as_object_mut(), more.as_object()) {
        labels.extend(more.clone());
    }
    labels
}

/// What the controller does, a line each; all of it within its namespace, so no role of the whole cluster is needed.
fn rules(namespace: &str) -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str], names: &[&str]| {
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    };
    json!([
        // Its uid is the first half of every fencing token.
        rule("", &["namespaces"], &["get"], &[namespace]),
        // `patch` sets the finalizer.
        rule(GROUP, &["environments"], &["get", "list", "watch", "patch"], &[]),
        // `create`: those of promotions.
        rule(GROUP, &["upgrades"], &["get", "list", "watch", "create", "patch"], &[]),
        // `create`: those that an environment names and its source has; `patch` sets the finalizer.
        rule(GROUP, &["builds"], &["get", "list", "watch", "create", "patch"], &[]),
        rule(
            GROUP,
            &["environments/status", "upgrades/status", "builds/status"],
            &["update"],
            &[]
        ),
        // `create`: those that enter by themselves; `patch` sets the finalizer.
        rule(
            GROUP,
            &["promotions"],
            &["get", "list", "watch", "create", "patch"],
            &[]
        ),
        // `create`: those of promotions.
        rule(GROUP, &["rehearsals"], &["get", "list", "watch", "create"], &[]),
        rule(GROUP, &["pipelines", "freezes"], &["list"], &[]),
        rule(
            GROUP,
            &[
                "promotions/status",
                "pipelines/status",
                "freezes/status",
                "rehearsals/status"
            ],
            &["update"],
            &[]
        ),
        // A name can be given for all but the first write.
        rule("coordination.k8s.io", &["leases"], &["create"], &[]),
        rule("coordination.k8s.io", &["leases"], &["get", "update"], &[NAME]),
        rule("events.k8s.io", &["events"], &["create", "patch"], &[]),
        // Pods of StatefulSets as nodes.
        rule("apps", &["statefulsets"], &["get", "patch"], &[]),
        rule("apps", &["controllerrevisions"], &["get"], &[]),
        // Deployments as nodes; the canary beside one is made and deleted.
        rule("apps", &["deployments"], &["get", "patch", "create", "delete"], &[]),
        rule("apps", &["replicasets"], &["get", "list"], &[]),
        rule("", &["pods"], &["list", "delete"], &[]),
        rule("", &["pods/log"], &["get"], &[]),
    ])
}

/// A `StatefulSet` and no Deployment: history and reports that wait lie on a volume, which must outlive its pod, and two processes must
/// not share one.
fn replicas(about: &Value, namespace: &str, image: &str) -> Value {
    let probe =
        |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5});
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": about,
        "spec": {
            "replicas": 2,
            "serviceName": NAME,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector()},
            "template": {
                "metadata": {"labels": labelled(&json!({}))},
                "spec": {
                    "serviceAccountName": NAME,
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    // A machine that is lost takes one of them with it; where there is one machine alone, both run there.
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": selector()},
                    }],
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "controller",
                        "image": image,
                        "args": [
                            "controller",
                            format!("--namespace={namespace}"),
                            // The root of a volume is root's, who lets our group in, and nobody else can close it to others.
                            "--volume=/var/lib/stagegate/home",
                            "--templates=/etc/stagegate/templates",
                            format!("--listen=0.0.0.0:{PORT}"),
                        ],
                        "ports": [{"name": "http", "containerPort": PORT}],
                        "livenessProbe": probe("/healthz"),
                        "readinessProbe": probe("/readyz"),
                        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [
                            {"name": "volume", "mountPath": "/var/lib/stagegate"},
                            {"name": "templates", "mountPath": "/etc/stagegate/templates", "readOnly": true},
                            {"name": "tmp", "mountPath": "/tmp"},
                        ],
                    }],
                    "volumes": [
                        {"name": "templates", "configMap": {"name": "stagegate-templates", "optional": true}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                    ],
                },
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "volume"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
            }],
        },
    })
}

//! What keeps hands off the images of a protected environment: a `ValidatingAdmissionPolicy` of Kubernetes, which an API server
//! decides by itself, whether we run or not.
//!
//! In a namespace with the label [`PROTECTED`], the image of a workload changes by who is listed as a driver in its annotation
//! [`DRIVERS`], or by who breaks the glass in
//! the same request: with the annotation [`BREAK_GLASS`] new or changed, and in it the number of what is changed with a reason. So no
//! annotation of yesterday opens anything today, not even when `kubectl rollout undo` puts it back with the images of its time, and who
//! did it stands in the API server's audit log with the reason.

use serde_json::{Value, json};

use super::install::{PART, PART_OF};

/// The label of a namespace whose images are guarded, with the value `true`.
pub const PROTECTED: &str = "stagegate.dev/protected";
/// The annotation with the reason of who changes an image by hand all the same.
pub const BREAK_GLASS: &str = "stagegate.dev/break-glass";
/// The annotation of a guarded namespace that lists who may change images: names of users, with commas between.
pub const DRIVERS: &str = "stagegate.dev/drivers";
/// A shorter text is no reason.
const SHORTEST_REASON: usize = 10;
/// The policy and what binds it.
const NAME: &str = "stagegate-images";

/// Everything that carries images, with where it has its containers.
const POD: &str = "spec";
const TEMPLATE: &str = "spec.template.spec";

/// The policy and its binding, for the whole cluster.
#[must_use]
pub fn all() -> Vec<Value> {
    let images = |of: &str| {
        let at = |place: &str, containers: &str| {
            format!(
                "(has({of}.{place}.{containers}) ? {of}.{place}.{containers}.map(c, c.name + ' ' + (has(c.image) ? c.image : '')) : [])"
            )
        };
        let both = |place: &str| format!("{} + {}", at(place, "containers"), at(place, "initContainers"));
        format!(
            "request.resource.resource == 'pods' ? {} : {}",
            both(POD),
            both(TEMPLATE)
        )
    };
    let glass = |of: &str| {
        format!(
            "has({of}.metadata.annotations) && '{BREAK_GLASS}' in {of}.metadata.annotations ? string({of}.metadata.annotations['{BREAK_GLASS}']) : ''"
        )
    };
    // With each change of what an object is to be it is another, and none comes twice. Pods have one by newer versions of Kubernetes only.
    let number = "has(oldObject.metadata.generation) ? string(oldObject.metadata.generation) : oldObject.metadata.resourceVersion";
    let rules = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": resources,
        })
    };
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME, "labels": {PART_OF: PART}},
        "spec": {
            // An API server that cannot decide lets nobody through.
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                rules("apps", &["statefulsets", "deployments", "daemonsets", "replicasets"]),
                rules("", &["pods", "replicationcontrollers"]),
            ]},
            "variables": [
                {"name": "images", "expression": images("object")},
                {"name": "imagesBefore", "expression": images("oldObject")},
                {"name": "reason", "expression": glass("object")},
                {"name": "reasonBefore", "expression": glass("oldObject")},
                {"name": "begins", "expression": format!("({number}) + ': '")},
                {"name": "isBroken", "expression": format!(
                    "variables.reason != variables.reasonBefore && variables.reason.startsWith(variables.begins) && \
                     size(variables.reason.substring(size(variables.begins)).trim()) >= {SHORTEST_REASON}"
                )},
                {"name": "drivers", "expression": format!(
                    "has(namespaceObject.metadata.annotations) && '{DRIVERS}' in namespaceObject.metadata.annotations \
                     ? string(namespaceObject.metadata.annotations['{DRIVERS}']).split(',').map(user, user.trim()) : []"
                )},
            ],
            "validations": [{
                "expression": "variables.images == variables.imagesBefore || request.userInfo.username in variables.drivers || variables.isBroken",
                "messageExpression": format!(
                    "'images in ' + request.namespace + ' change by an Upgrade (stagegate upgrade): ' + request.userInfo.username + \
                     ' is none of its drivers (annotation {DRIVERS} of the namespace); in an emergency the same request sets the annotation {BREAK_GLASS} of the object to \"' + \
                     variables.begins + 'WHY\", the reason in {SHORTEST_REASON} characters or more; the number is that of what is changed, and good for this once'"
                ),
                "reason": "Forbidden",
            }],
            "auditAnnotations": [{
                "key": "break-glass",
                "valueExpression": "variables.images != variables.imagesBefore && !(request.userInfo.username in variables.drivers) && \
                    variables.isBroken ? variables.reason : ''",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME, "labels": {PART_OF: PART}},
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {PROTECTED: "true"}}},
        },
    });
    vec![policy, binding]
}

//! What an API server refuses of promotions by itself, by two `ValidatingAdmissionPolicies`: that somebody speaks for another, takes back what was
//! said, or puts a build onto a protected environment past its pipeline. Who asks is the request's own user; nothing in an object says it.
//!
//! A namespace's controller, and who is listed in the annotation [`DRIVERS`] of the namespace, may begin upgrades there. What a policy
//! lets through a controller looks at again: it believes no object that names a promotion which it has not decided itself.

use serde_json::{Value, json};

use super::crd::{GROUP, VERSION};
use super::guard::DRIVERS;
use super::install::{NAME as CONTROLLER, PART, PART_OF};

/// The policy over words.
const WORDS: &str = "stagegate-words";
/// The policy over upgrades.
const PROTECTED: &str = "stagegate-protected";

/// Policies and bindings, for the whole cluster.
#[must_use]
pub fn all() -> Vec<Value> {
    words().into_iter().chain(protected()).collect()
}

/// Whether who asks drives the namespace.
fn is_driver() -> Value {
    json!({"name": "isDriver", "expression": format!(
        "request.userInfo.username == 'system:serviceaccount:' + request.namespace + ':{CONTROLLER}' || \
         (has(namespaceObject.metadata.annotations) && '{DRIVERS}' in namespaceObject.metadata.annotations \
         && request.userInfo.username in string(namespaceObject.metadata.annotations['{DRIVERS}']).split(',').map(user, user.trim()))"
    )})
}

fn policy(name: &str, spec: Value) -> [Value; 2] {
    let mut binding = json!({"policyName": name, "validationActions": ["Deny"]});
    if spec.get("paramKind").is_some() {
        // Every Environment of the namespace that is asked about.
        binding["paramRef"] = json!({"selector": {}, "parameterNotFoundAction": "Allow"});
    }
    let about = json!({"name": name, "labels": {PART_OF: PART}});
    let of = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": about, "spec": spec});
    [
        of("ValidatingAdmissionPolicy", spec),
        of("ValidatingAdmissionPolicyBinding", binding),
    ]
}

fn resources(operations: &[&str], resources: &[&str]) -> Value {
    json!({"resourceRules": [{
        "apiGroups": [GROUP], "apiVersions": [VERSION], "operations": operations, "resources": resources,
    }]})
}

fn rule(expression: &str, message: &str) -> Value {
    // One line, however it is wrapped here.
    let words: Vec<&str> = expression.split_whitespace().collect();
    json!({"expression": words.join(" "), "message": message, "reason": "Forbidden"})
}

fn words() -> [Value; 2] {
    let of = |object: &str| format!("has({object}.spec.words) ? {object}.spec.words : []");
    let before = format!("oldObject == null ? [] : ({})", of("oldObject"));
    policy(
        WORDS,
        json!({
            // An API server that cannot decide lets nobody through.
            "failurePolicy": "Fail",
            "matchConstraints": resources(&["CREATE", "UPDATE"], &["promotions", "freezes"]),
            "variables": [
                is_driver(),
                {"name": "isPromotion", "expression": "request.resource.resource == 'promotions'"},
                {"name": "user", "expression": "has(object.spec.user) ? object.spec.user : ''"},
                {"name": "userBefore", "expression": "oldObject != null && has(oldObject.spec.user) ? oldObject.spec.user : ''"},
                {"name": "isAutomatic", "expression": "variables.isPromotion && has(object.spec.automatic) && object.spec.automatic"},
                {"name": "wasAutomatic", "expression": "variables.isPromotion && oldObject != null && has(oldObject.spec.automatic) && oldObject.spec.automatic"},
                {"name": "words", "expression": format!("variables.isPromotion ? ({}) : []", of("object"))},
                {"name": "wordsBefore", "expression": format!("variables.isPromotion ? ({before}) : []")},
            ],
            "validations": [
                rule(
                    "oldObject != null ? variables.user == variables.userBefore : variables.user == request.userInfo.username
                     || (variables.isDriver && variables.isAutomatic) || (!variables.isPromotion && variables.user == '')",
                    "user is who asks for it, by the name that `kubectl auth whoami` says, and does not change",
                ),
                rule(
                    "oldObject != null ? variables.isAutomatic == variables.wasAutomatic : !variables.isAutomatic || variables.isDriver",
                    "a controller alone asks for what enters by itself",
                ),
                rule(
                    "variables.wordsBefore.all(word, word in variables.words)",
                    "what was said of a promotion stays; say `withdraw`",
                ),
                rule(
                    "variables.words.all(word, word in variables.wordsBefore || word.user == request.userInfo.username)",
                    "nobody speaks for another: user of a word is who asks, by the name that `kubectl auth whoami` says",
                ),
                rule(
                    "variables.words.all(word, word in variables.wordsBefore || !has(word.groups)
                     || (has(request.userInfo.groups) && word.groups.all(group, group in request.userInfo.groups)))",
                    "groups of a word are groups of who asks",
                ),
            ],
        }),
    )
}

fn protected() -> [Value; 2] {
    policy(
        PROTECTED,
        json!({
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Environment"},
            "matchConstraints": resources(&["CREATE"], &["upgrades"]),
            "variables": [is_driver()],
            "validations": [
                rule(
                    "variables.isDriver || params == null || params.metadata.name != object.spec.environment
                     || !has(params.spec.protected) || !params.spec.protected",
                    "the environment is protected: a build enters it by a promotion alone; `kubectl stagegate promote BUILD --to ENV` asks for one",
                ),
                rule(
                    "variables.isDriver || !has(object.spec.promotion)",
                    "a controller alone begins the upgrade of a promotion",
                ),
            ],
        }),
    )
}

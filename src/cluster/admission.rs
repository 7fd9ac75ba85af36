//! What an API server refuses of promotions by itself, by three `ValidatingAdmissionPolicies`: that somebody speaks for another, takes back what was
//! said, passes an object off as one that a promotion or a rehearsal has made, or puts a build onto a protected environment past its
//! pipeline. Who asks is the request's own user; nothing in an object says it.
//!
//! A namespace's controller, and who is listed in the annotation [`DRIVERS`] of the namespace, may begin upgrades there. What a policy
//! lets through a controller looks at again: it believes no object that is not what it would have made itself ([`super::belonging`]).
//!
//! Words cannot be told from forged ones once they were let through. So the policies over words and over what was made refuse an object of a
//! name that nobody uses, and who is to believe them asks first, without making it, whether that is refused ([`probes`]).

use serde_json::{Value, json};

use super::crd::{GROUP, VERSION};
use super::guard::DRIVERS;
use super::install::{NAME as CONTROLLER, PART, PART_OF};
use super::objects::Kind;

/// The policy over words.
const WORDS: &str = "stagegate-words";
/// The policy over what promotions and rehearsals make.
const BELONGING: &str = "stagegate-belonging";
/// The policy over upgrades.
const PROTECTED: &str = "stagegate-protected";

/// An object that a policy refuses, whoever asks, where it is in force.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The policy.
    pub policy: &'static str,
    /// The kind of the object.
    pub kind: Kind,
    /// Its spec, which is sound.
    pub spec: Value,
}

impl Probe {
    /// Its object's name.
    #[must_use]
    pub fn name(&self) -> String {
        probe_of(self.policy)
    }

    /// Whether an answer is the policy's own, and not one that only speaks of the object.
    #[must_use]
    pub fn is_refused_by_it(&self, why: &str) -> bool {
        why.contains(&in_force(self.policy))
    }
}

fn in_force(policy: &str) -> String {
    format!("policy {policy} is in force, and nothing has that name")
}

fn probe_of(policy: &str) -> String {
    format!("{policy}-probe")
}

/// What is refused where it can be told who says what, and what has made what.
#[must_use]
pub fn probes() -> [Probe; 2] {
    let upgrade = json!({"environment": "none", "component": "none", "build": "none-0"});
    [
        Probe {
            policy: WORDS,
            kind: Kind::Promotion,
            spec: json!({"pipeline": "none", "stage": "none", "build": "none-0"}),
        },
        Probe {
            policy: BELONGING,
            kind: Kind::Upgrade,
            spec: upgrade,
        },
    ]
}

/// Policies and bindings, for the whole cluster.
#[must_use]
pub fn all() -> Vec<Value> {
    words().into_iter().chain(belonging()).chain(protected()).collect()
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

/// That a policy is in force.
fn probed(policy: &str) -> Value {
    rule(
        &format!(
            "!has(object.metadata.name) || object.metadata.name != '{}'",
            probe_of(policy)
        ),
        &in_force(policy),
    )
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
                probed(WORDS),
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

fn belonging() -> [Value; 2] {
    let owners = |object: &str| {
        format!(
            "(has({object}.metadata.ownerReferences) ? {object}.metadata.ownerReferences : [])\
             .filter(owner, owner.apiVersion.startsWith('{GROUP}/') && owner.kind in ['Promotion', 'Rehearsal'])\
             .map(owner, owner.uid)"
        )
    };
    let promotion = |object: &str| {
        format!(
            "request.resource.resource == 'upgrades' && has({object}.spec.promotion) ? {object}.spec.promotion : ''"
        )
    };
    policy(
        BELONGING,
        json!({
            "failurePolicy": "Fail",
            "matchConstraints": resources(&["CREATE", "UPDATE"], &["upgrades", "rehearsals"]),
            "variables": [
                is_driver(),
                {"name": "owners", "expression": owners("object")},
                {"name": "ownersBefore", "expression": format!("oldObject == null ? [] : {}", owners("oldObject"))},
                {"name": "promotion", "expression": promotion("object")},
                {"name": "promotionBefore", "expression": format!("oldObject == null ? '' : ({})", promotion("oldObject"))},
            ],
            "validations": [
                probed(BELONGING),
                rule(
                    "variables.isDriver || variables.promotion == variables.promotionBefore",
                    "a controller alone begins the upgrade of a promotion",
                ),
                rule(
                    "variables.isDriver || variables.owners.all(owner, owner in variables.ownersBefore)",
                    "a controller alone makes what a promotion or a rehearsal owns",
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
            // Without an Environment there is none that is protected, and nothing of this is evaluated.
            "validations": [rule(
                "variables.isDriver || params == null || params.metadata.name != object.spec.environment
                 || !has(params.spec.protected) || !params.spec.protected",
                "the environment is protected: a build enters it by a promotion alone; `kubectl stagegate promote BUILD --to ENV` asks for one",
            )],
        }),
    )
}

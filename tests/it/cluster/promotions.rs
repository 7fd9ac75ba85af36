//! Promotions in the Kubernetes home: who says what is the request's own user, by policies of a real API server, and the controller's rights
//! are those that are shipped.

use serde_json::{Value, json};

use super::controller::{NAMESPACE, Town};
use super::lab::Left;
use crate::trivial::Said;

const PRODUCTION: &str = "production";

const PEOPLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everybody-may-everything}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
  - {kind: User, name: carol}
  - {kind: User, name: dana}
  - {kind: User, name: erin}
";

const PIPELINE: &str = "
apiVersion: stagegate.dev/v1alpha1
kind: Pipeline
metadata: {name: web}
spec:
  component: web
  roles:
    managers: {groups: [release-managers]}
  stages:
    - {name: staging, environment: small}
    - {name: production, environment: production, after: [staging], approvals: [{role: managers}]}
";

const FREEZE: &str = "
apiVersion: stagegate.dev/v1alpha1
kind: Freeze
metadata: {name: weekend}
spec: {reason: nobody is here, environments: [production], user: USER}
";

/// An environment like that of a town, on nodes of its own.
pub(super) fn another(town: &Town, name: &str) -> String {
    let port = crate::ports::free(2);
    let mut text = town.environment().replace("name: small", &format!("name: {name}"));
    for (i, node) in ["n1", "n2"].iter().enumerate() {
        let begin = format!("{{name: {node}, ports: {{http: ");
        let from = text.find(&begin).expect("a node") + begin.len();
        let to = from + text[from..].find('}').expect("its end");
        text.replace_range(from..to, &(port + u16::try_from(i).expect("small")).to_string());
    }
    text
}

/// A town with a protected environment beside the other, and a pipeline into it.
struct Place {
    town: Town,
}

impl Place {
    fn new() -> Self {
        let town = Town::stated();
        let production = another(&town, PRODUCTION).replace("\nspec:\n", "\nspec:\n  protected: true\n");
        town.apply(&production);
        town.apply(PIPELINE);
        town.kubectl(&["apply", "-f", "-"], PEOPLE);
        let this = Self { town };
        // It takes a moment until policies are in force.
        this.town.until("the policies are in force", |_| {
            let forged = asked("probe", "dana");
            let past = direct("probe").to_string();
            let dry = |who: &str, text: &str| this.tried(&["apply", "--dry-run=server", "-f", "-", who], text).done;
            !dry("--as=carol", &forged.to_string()) && !dry("--as=carol", &past)
        });
        this
    }

    fn tried(&self, arguments: &[&str], input: &str) -> Left {
        self.town.lab.kubectl(&[&["-n", NAMESPACE], arguments].concat(), input)
    }

    fn done(&self, arguments: &[&str], input: &str) {
        let left = self.tried(arguments, input);
        assert!(left.done, "{arguments:?}: {left:#?}");
    }

    /// Refused by a policy, in these words.
    fn refused(&self, arguments: &[&str], input: &str, why: &str) {
        let left = self.tried(arguments, input);
        assert!(!left.done && left.err.contains(why), "{arguments:?}: {left:#?}");
    }

    fn say(&self, who: &str, group: Option<&str>, patch: &str) -> Left {
        let who = format!("--as={who}");
        let group = group.map(|group| format!("--as-group={group}"));
        let all: Vec<&str> = [who.as_str()].into_iter().chain(group.as_deref()).collect();
        self.tried(&[&PATCH[..], &[patch], &all[..]].concat(), "")
    }

    /// The plugin, asked by somebody.
    fn plugin(&self, who: &str, groups: &[&str], arguments: &[&str]) -> Said {
        self.town.plugin_as(who, groups, arguments)
    }

    fn promotion(&self) -> Value {
        self.town.get("promotions/web-2")
    }

    /// What somebody says, as a patch of all that was said.
    fn word(&self, user: &str, groups: &[&str], decision: &str) -> String {
        let promotion = self.promotion();
        let mut words = promotion["spec"]["words"].as_array().cloned().unwrap_or_default();
        let word = json!({
            "promotion": "web-2", "decision": decision, "environment": PRODUCTION, "build": "web-2",
            "bound": promotion["status"]["bound"], "at": jiff::Timestamp::now().to_string(),
        });
        words.push(json!({"word": word, "user": user, "groups": groups}));
        json!({"spec": {"words": words}}).to_string()
    }

    fn waits_for(&self, reason: &str) {
        self.town.until(&format!("it waits: {reason}"), |_| {
            let promotion = self.promotion();
            promotion["status"]["phase"] == "Waiting" && promotion["status"]["reason"] == reason
        });
    }
}

fn asked(name: &str, user: &str) -> Value {
    json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Promotion", "metadata": {"name": name},
        "spec": {"pipeline": "web", "stage": "production", "build": "web-2", "user": user},
    })
}

fn direct(name: &str) -> Value {
    json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": name},
        "spec": {"environment": PRODUCTION, "component": "web", "build": "web-2", "user": "carol"},
    })
}

const PATCH: [&str; 4] = ["patch", "promotion/web-2", "--type=merge", "-p"];

fn nothing_enters_past_its_pipeline(place: &Place) {
    let (direct, forged) = (direct("past"), {
        let mut forged = direct("forged");
        forged["spec"]["promotion"] = json!("web-2");
        forged["spec"]["environment"] = json!("small");
        forged
    });
    place.refused(
        &["apply", "-f", "-", "--as=carol"],
        &direct.to_string(),
        "the environment is protected",
    );
    place.refused(
        &["apply", "-f", "-", "--as=carol"],
        &forged.to_string(),
        "a controller alone begins",
    );
    // Nobody asks for another.
    place.refused(
        &["apply", "-f", "-", "--as=carol"],
        &asked("web-2", "dana").to_string(),
        "user is who asks for it",
    );
}

fn nobody_speaks_for_another(place: &Place) {
    // Nobody speaks for another, or by a group that they are not in.
    let erins = place.word("erin", &["release-managers"], "approve");
    let left = place.say("dana", Some("release-managers"), &erins);
    assert!(
        !left.done && left.err.contains("nobody speaks for another"),
        "{left:#?}"
    );
    let left = place.say("erin", None, &erins);
    assert!(!left.done && left.err.contains("groups of a word"), "{left:#?}");
    // Who asked for it approves of nothing, and who is in no role counts for nothing.
    assert!(
        place
            .say(
                "carol",
                Some("release-managers"),
                &place.word("carol", &["release-managers"], "approve")
            )
            .done
    );
    assert!(place.say("dana", None, &place.word("dana", &[], "approve")).done);
    place.town.until("that is heard", |_| {
        let said = place.promotion()["status"]["message"].to_string();
        said.contains("carol is an author of it")
    });
    assert_eq!(place.promotion()["status"]["reason"], "NotApproved");
    // What was said stays.
    let left = place.say("carol", None, r#"{"spec": {"words": []}}"#);
    assert!(!left.done && left.err.contains("stays"), "{left:#?}");
}

/// Whoever made it.
fn what_names_a_promotion_is_not_its_upgrade(place: &Place) {
    let mut forged = direct("forged");
    forged["spec"]["promotion"] = json!("web-2");
    forged["spec"]["build"] = json!("web-1");
    place.done(
        &[
            "apply",
            "-f",
            "-",
            "--as=system:serviceaccount:town:stagegate-controller",
            "--as-group=system:masters",
        ],
        &forged.to_string(),
    );
    place.town.until("it is refused", |town| {
        town.get("upg/forged")["status"]["reason"] == "NotPromoted"
    });
}

#[test]
fn a_build_enters_a_protected_environment_by_a_promotion_that_another_approves() {
    let place = Place::new();
    let town = &place.town;
    let controller = town.controller();
    for version in ["1", "2"] {
        town.build(version);
    }
    for environment in ["small", PRODUCTION] {
        town.wait(&format!("env/{environment}"), "condition=Ready");
    }
    town.wait("pipelines/web", "condition=Ready");
    nothing_enters_past_its_pipeline(&place);
    // What staging has not verified goes no further.
    let create = ["create", "-f", "-", "--as=carol"];
    place.done(&create, &asked("early", "carol").to_string());
    town.until("it has failed", |town| {
        let status = &town.get("promotions/early")["status"];
        status["phase"] == "Failed" && status["reason"] == "NotVerified"
    });
    town.upgrade("staged", "2");
    town.wait("upg/staged", "condition=Ready");
    place.done(&create, &asked("web-2", "carol").to_string());
    place.waits_for("NotApproved");

    // A freeze comes first.
    place.refused(
        &["apply", "-f", "-", "--as=carol"],
        &FREEZE.replace("USER", "dana"),
        "user is who asks for it",
    );
    let frozen = place.plugin("carol", &[], &["freeze", PRODUCTION, "--reason", "nobody is here"]);
    let freeze = frozen.out.split(' ').next().expect("its name").to_owned();
    frozen.expect_code(0);
    place.waits_for("Frozen");
    place.plugin("carol", &[], &["unfreeze", &freeze]).expect_code(0);
    place.waits_for("NotApproved");

    nobody_speaks_for_another(&place);
    let of_production = town
        .trivial
        .path("state/environments/production/nodes/n1/current/answer");
    assert_eq!(
        std::fs::read_to_string(&of_production).expect("an answer").trim(),
        "yes 1"
    );

    let approves = ["approve", "web-2", "--reason", "staging is fine"];
    place.plugin("erin", &["release-managers"], &approves).expect_code(0);
    town.wait("promotions/web-2", "condition=Ready");
    assert_eq!(
        std::fs::read_to_string(&of_production).expect("an answer").trim(),
        "yes 2"
    );
    let promotion = place.promotion();
    let upgrade = promotion["status"]["upgrade"].as_str().expect("its upgrade");
    assert_eq!(town.get(&format!("upg/{upgrade}"))["status"]["phase"], "Succeeded");
    what_names_a_promotion_is_not_its_upgrade(&place);
    // What ran there last comes back, and waits for nobody.
    place
        .plugin("dana", &[], &["promote", "web-1", "--to", PRODUCTION])
        .expect_code(0);
    town.until("it is back", |town| {
        let all = town.get("promotions");
        let mut all = all["items"].as_array().into_iter().flatten();
        all.any(|one| one["spec"]["build"] == "web-1" && one["status"]["phase"] == "Succeeded")
    });
    assert_eq!(
        std::fs::read_to_string(&of_production).expect("an answer").trim(),
        "yes 1"
    );
    drop(controller);
    // The audit on the volume has who decided what.
    let audit = town.trivial.run(&["audit", "list", "-o", "json"]);
    for what in ["PromotionUpgrading", "PromotionSucceeded"] {
        assert!(audit.out.contains(what), "{what}: {audit:?}");
    }
    town.trivial.run(&["audit", "verify"]).expect_code(0);
}

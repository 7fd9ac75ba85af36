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
            let mut passed_off = direct("probe");
            passed_off["spec"]["environment"] = json!("small");
            passed_off["spec"]["promotion"] = json!("web-2");
            let dry = |who: &str, text: &str| this.tried(&["apply", "--dry-run=server", "-f", "-", who], text).done;
            !dry("--as=carol", &forged.to_string())
                && !dry("--as=carol", &past)
                && !dry("--as=carol", &passed_off.to_string())
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

/// By whom it is owned says what has made it, and a controller alone says so.
fn nobody_passes_off_what_they_make(place: &Place) {
    let owner = |object: &mut Value| {
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Promotion", "name": "web-2",
            "uid": place.promotion()["metadata"]["uid"],
        }]);
    };
    let mut upgrade = direct("owned");
    upgrade["spec"]["environment"] = json!("small");
    owner(&mut upgrade);
    let runs = json!([{"build": "web=2", "expect": {"phase": "Succeeded"}}]);
    let mut rehearsal = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Rehearsal", "metadata": {"name": "owned"},
        "spec": {"environment": "small", "runs": runs},
    });
    owner(&mut rehearsal);
    for object in [&upgrade, &rehearsal] {
        place.refused(
            &["apply", "-f", "-", "--as=carol"],
            &object.to_string(),
            "a controller alone makes what",
        );
    }
    let staged = place.town.get("upgrades")["items"][0]["metadata"]["name"].clone();
    let staged = format!("upgrade/{}", staged.as_str().expect("one that was promoted"));
    let patch = r#"{"spec": {"promotion": "web-2"}}"#;
    place.refused(
        &["patch", &staged, "--type=merge", "-p", patch],
        "",
        "whose upgrade it is does not change",
    );
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
    for version in ["1", "2", "3"] {
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
    // Who asked for it there is an author of it, also once the promotion is gone.
    place
        .plugin("erin", &[], &["promote", "web-2", "--to", "small"])
        .expect_code(0);
    town.until("staging has verified it", |town| {
        let all = town.get("promotions")["items"].clone();
        let mut all = all.as_array().into_iter().flatten();
        all.any(|one| one["spec"]["stage"] == "staging" && one["status"]["phase"] == "Succeeded")
    });
    town.kubectl(&["delete", "promotions", "--all", "--timeout=60s"], "");
    assert_eq!(
        town.get("builds/web-2")["status"]["verifications"][0]["askedBy"],
        "erin"
    );
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
    nobody_passes_off_what_they_make(&place);
    let of_production = town
        .trivial
        .path("state/environments/production/nodes/n1/current/answer");
    assert_eq!(
        std::fs::read_to_string(&of_production).expect("an answer").trim(),
        "yes 1"
    );

    let approves = ["approve", "web-2", "--reason", "staging is fine"];
    place.plugin("erin", &["release-managers"], &approves).expect_code(0);
    town.until("erin counts for nothing", |_| {
        place.promotion()["status"]["message"]
            .to_string()
            .contains("erin is an author of it")
    });
    place.plugin("dana", &["release-managers"], &approves).expect_code(0);
    town.wait("promotions/web-2", "condition=Ready");
    assert_eq!(
        std::fs::read_to_string(&of_production).expect("an answer").trim(),
        "yes 2"
    );
    let promotion = place.promotion();
    let upgrade = promotion["status"]["upgrade"].as_str().expect("its upgrade");
    assert_eq!(town.get(&format!("upg/{upgrade}"))["status"]["phase"], "Succeeded");
    what_names_a_promotion_is_not_its_upgrade(&place);
    // What ran there last comes back, and waits for nobody, nor for a freeze that nobody can read.
    let recurring = json!({"recurring": {"from": "0 9 * * MON", "for": "7h", "timeZone": "Europe/Zurch"}});
    let wrong = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Freeze", "metadata": {"name": "wrong"},
        "spec": {"reason": "the week begins", "environments": [PRODUCTION, "small"], "when": [recurring], "user": "dana"},
    });
    place.done(&["apply", "-f", "-", "--as=dana"], &wrong.to_string());
    town.wait("freezes/wrong", "condition=Ready=False");
    town.upgrade("held", "3");
    town.until("it is held by that", |town| {
        let status = &town.get("upg/held")["status"];
        status["reason"] == "Frozen" && status["message"].to_string().contains("nobody knows when it holds")
    });
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

/// What it would need to go on is nothing that its end needs.
fn what_cannot_be_decided_says_why_and_can_be_taken_back(place: &Place) {
    let town = &place.town;
    let undecided = |name: &str, why: &str| {
        town.until(&format!("{name} says why"), |town| {
            let status = &town.get(&format!("promotions/{name}"))["status"];
            let ready = status["conditions"].as_array().into_iter().flatten();
            let mut ready = ready.filter(|one| one["type"] == "Ready");
            status["phase"] == "Waiting"
                && ready.any(|one| one["reason"] == "NotDecided" && one["message"].to_string().contains(why))
        });
    };
    let mut unknown = asked("unknown", "carol");
    unknown["spec"]["build"] = json!("web-7");
    place.done(&["create", "-f", "-", "--as=carol"], &unknown.to_string());
    undecided("unknown", "web-7");
    place.done(&["delete", "promotion/unknown", "--timeout=60s"], "");
    // A stage that asks for what there is not asks for nothing less.
    town.apply(&PIPELINE.replace("after: [staging]", "after: [stagin]"));
    town.wait("pipelines/web", "condition=Ready=False");
    place.done(
        &["create", "-f", "-", "--as=carol"],
        &asked("web-2", "carol").to_string(),
    );
    undecided("web-2", "there is no stage `stagin`");
    let cancelled = r#"{"spec": {"cancel": true}}"#;
    place.done(&[&PATCH[..], &[cancelled]].concat(), "");
    town.until("it is taken back", |_| {
        place.promotion()["status"]["phase"] == "Cancelled"
    });
    place.done(&["delete", "promotion/web-2", "--timeout=60s"], "");
    town.apply(PIPELINE);
    town.wait("pipelines/web", "condition=Ready");
}

/// Words count where it was seen that nobody can forge them.
fn where_policies_are_not_in_force_nothing_is_promoted(place: &Place) {
    let town = &place.town;
    let freeze = FREEZE.replace("[production]", "[small]").replace("USER", "dana");
    place.done(&["apply", "-f", "-", "--as=dana"], &freeze);
    let mut asks = asked("web-2", "carol");
    asks["spec"]["stage"] = json!("staging");
    place.done(&["create", "-f", "-", "--as=carol"], &asks.to_string());
    place.waits_for("Frozen");
    let policy = "validatingadmissionpolicybinding/stagegate-words";
    let binding = place.tried(&["get", policy, "-o", "yaml"], "").out;
    place.done(&["delete", policy], "");
    town.until("it says so", |_| {
        let why = place.promotion()["status"]["undecided"].to_string();
        why.contains("policy stagegate-words is not in force")
    });
    // The name by which that is asked is nothing that could be had.
    let mut taken = asked("stagegate-words-probe", "dana");
    taken["spec"]["stage"] = json!("staging");
    place.done(&["create", "-f", "-", "--as=carol"], &taken.to_string());
    place.done(&["delete", "freeze/weekend"], "");
    // It needs no words to go there.
    town.wait("promotions/web-2", "condition=Ready");
    place.done(&["delete", "promotion/web-2", "--timeout=60s"], "");
    // What is said now is nobody's, also later.
    place.done(
        &["create", "-f", "-", "--as=carol"],
        &asked("web-2", "carol").to_string(),
    );
    town.until("it is asked for by nobody", |_| {
        place.promotion()["status"]["disbelieved"]
            .as_array()
            .is_some_and(|said| said.len() == 1)
    });
    let group = Some("release-managers");
    assert!(
        place
            .say("dana", group, &place.word("erin", &["release-managers"], "approve"))
            .done
    );
    town.until("nor is it approved", |_| {
        place.promotion()["status"]["disbelieved"]
            .as_array()
            .is_some_and(|said| said.len() == 2)
    });
    place.done(&["apply", "-f", "-"], &binding);
    town.until("words count again", |_| {
        place.promotion()["status"]["undecided"].is_null()
    });
    place.waits_for("NotSigned");
    place.done(&["delete", "promotion/web-2", "--timeout=60s"], "");
}

#[test]
fn what_keeps_a_promotion_from_being_decided_is_said_and_lets_nothing_through() {
    let place = Place::new();
    let town = &place.town;
    let _controller = town.controller();
    for version in ["1", "2"] {
        town.build(version);
    }
    for environment in ["small", PRODUCTION] {
        town.wait(&format!("env/{environment}"), "condition=Ready");
    }
    what_cannot_be_decided_says_why_and_can_be_taken_back(&place);
    where_policies_are_not_in_force_nothing_is_promoted(&place);
}

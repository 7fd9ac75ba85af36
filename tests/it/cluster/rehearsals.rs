//! Rehearsals in the Kubernetes home: upgrades that follow one another, with what must come out.

use serde_json::{Value, json};

use super::controller::Town;
use super::promotions::another;
use crate::trivial::ENVIRONMENT;

fn rehearsal(name: &str, spec: &Value) -> String {
    let mut object = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Rehearsal", "metadata": {"name": name},
        "spec": {"environment": ENVIRONMENT},
    });
    let stated = object["spec"].as_object_mut().expect("a map");
    stated.extend(spec.as_object().cloned().expect("a map"));
    object.to_string()
}

fn until_ended(town: &Town, name: &str) -> Value {
    town.until(&format!("rehearsal {name} has ended"), |town| {
        town.get(&format!("reh/{name}"))["status"]["finishedAt"].is_string()
    });
    town.get(&format!("reh/{name}"))["status"].clone()
}

/// Builds are made of the environment's source where there are none.
fn runs_follow_one_another(town: &Town) {
    let runs = json!([
        {"build": "web=bad", "expect": {"phase": "RolledBack", "blamed": true}},
        {"build": "web=2", "expect": {"phase": "Succeeded"}},
    ]);
    town.apply(&rehearsal("both", &json!({"startFrom": "web=1", "runs": runs})));
    let status = until_ended(town, "both");
    town.wait("reh/both", "condition=Ready");
    let ran = status["runs"].as_array().expect("runs").iter();
    let phases: Vec<&str> = ran.clone().filter_map(|run| run["phase"].as_str()).collect();
    assert_eq!(phases, ["Succeeded", "RolledBack", "Succeeded"], "{status:#}");
    assert_eq!(town.answer("n1"), "yes 2\n");
    // What it is does not change, and another user of its name is another.
    let patch = r#"{"spec": {"runs": []}}"#;
    let changed = ["-n", "town", "patch", "reh/both", "--type=merge", "-p", patch];
    assert!(!town.lab.kubectl(&changed, "").done);
    // Its upgrades go with it.
    let last = status["runs"][2]["upgrade"].as_str().expect("its upgrade").to_owned();
    town.kubectl(&["delete", "reh/both", "--timeout=60s"], "");
    town.until("its upgrades are gone", |town| {
        let all = town.get("upg");
        all["items"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|upgrade| upgrade["metadata"]["name"] != last)
    });
}

fn what_comes_out_otherwise_is_said(town: &Town) {
    let runs = json!([{"build": "web=3", "expect": {"phase": "RolledBack"}}, {"build": "web=2", "expect": {"phase": "Succeeded"}}]);
    town.apply(&rehearsal("otherwise", &json!({"runs": runs})));
    let status = until_ended(town, "otherwise");
    assert_eq!(
        (&status["phase"], status["runs"].as_array().map(Vec::len)),
        (&json!("Failed"), Some(1)),
        "{status:#}"
    );
    let message = status["message"].as_str().expect("why");
    assert!(message.starts_with("web=3: ended Succeeded"), "{message}");
    // Its build is named wrongly.
    town.apply(&rehearsal(
        "wrong",
        &json!({"runs": [{"build": "weeb=1", "expect": {"phase": "Succeeded"}}]}),
    ));
    town.until("it says so", |town| {
        let message = town.get("reh/wrong")["status"]["message"].clone();
        message
            .as_str()
            .is_some_and(|message| message.contains("weeb=1 names no build of environment"))
    });
    town.kubectl(&["delete", "reh/wrong"], "");
}

/// What was to go wrong and did not proves nothing.
fn disturbances_go_on_beside(town: &Town) {
    let restart =
        |after: &str| json!([{"name": "restarted", "restartComponent": {"component": "web", "after": after}}]);
    let runs = |version: &str| json!([{"build": format!("web={version}"), "expect": {"phase": "Succeeded"}}]);
    town.apply(&rehearsal(
        "late",
        &json!({"disturbances": restart("1h"), "runs": runs("2")}),
    ));
    let status = until_ended(town, "late");
    assert_eq!(status["phase"], "Failed", "{status:#}");
    let unmet = status["runs"][0]["unmet"][0].as_str().expect("why");
    assert!(unmet.starts_with("disturbance restarted"), "{unmet}");
    town.apply(&rehearsal(
        "soon",
        &json!({"disturbances": restart("10ms"), "runs": runs("3")}),
    ));
    let status = until_ended(town, "soon");
    assert_eq!(status["phase"], "Passed", "{status:#}");
    assert_eq!(status["runs"][0]["undisturbed"], json!([]), "{status:#}");
}

fn a_promotion_goes_through_its_stages_rehearsals(town: &Town) {
    let run = json!([{"build": "web=candidate", "expect": {"phase": "Succeeded"}}]);
    town.apply(&rehearsal("there", &json!({"runs": run})));
    town.wait("reh/there", "jsonpath={.status.phase}=Template");
    let pipeline = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": "web"},
        "spec": {"component": "web", "stages": [{"name": "production", "environment": "production", "rehearsals": ["there"]}]},
    });
    town.apply(&pipeline.to_string());
    let promote = |name: &str, version: &str| {
        let spec =
            json!({"pipeline": "web", "stage": "production", "build": format!("web-{version}"), "user": "admin"});
        let promotion = json!({"apiVersion": "stagegate.dev/v1alpha1", "kind": "Promotion", "metadata": {"name": name}, "spec": spec});
        town.apply(&promotion.to_string());
    };
    town.wait("env/production", "condition=Ready");
    promote("good", "2");
    town.until("it has ended", |town| {
        town.get("promotions/good")["status"]["finishedAt"].is_string()
    });
    let status = &town.get("promotions/good")["status"];
    assert_eq!(status["rehearsed"][0]["rehearsal"], "there", "{status:#}");
    assert_eq!(town.answer("n1"), "yes 2\n");
    let answer = town
        .trivial
        .path("state/environments/production/nodes/n1/current/answer");
    assert_eq!(std::fs::read_to_string(answer).expect("an answer"), "yes 2\n");
    // It is quarantined where it was rehearsed, so it fails there, and comes no further.
    promote("worse", "bad");
    town.until("it has failed", |town| {
        town.get("promotions/worse")["status"]["phase"] == "Failed"
    });
    let status = &town.get("promotions/worse")["status"];
    assert_eq!(status["reason"], "RehearsalFailed", "{status:#}");
    let all = town.get("upg");
    let mut all = all["items"].as_array().into_iter().flatten();
    assert!(all.all(|upgrade| upgrade["spec"]["environment"] != "production" || upgrade["spec"]["build"] != "web-bad"));
}

#[test]
fn rehearsals_are_carried_out_by_the_controller() {
    let town = Town::stated();
    town.apply(&another(&town, "production"));
    let _controller = town.controller();
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    runs_follow_one_another(&town);
    what_comes_out_otherwise_is_said(&town);
    disturbances_go_on_beside(&town);
    a_promotion_goes_through_its_stages_rehearsals(&town);
}

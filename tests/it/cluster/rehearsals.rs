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
}

/// As a `lint` refuses it.
fn what_shows_nothing_is_not_carried_out(town: &Town) {
    let run = |build: &str| json!([{"build": build, "expect": {"phase": "Succeeded"}}]);
    let nothing = rehearsal("nothing", &json!({"runs": []}));
    assert!(!town.lab.kubectl(&["-n", "town", "apply", "-f", "-"], &nothing).done);
    for (name, spec, expected) in [
        ("unknown", json!({"runs": run("weeb=1")}), "weeb"),
        (
            "nowise",
            json!({"runs": run("web=1"), "disturbances": [{"name": "killed"}]}),
            "is of 0 kinds",
        ),
    ] {
        town.apply(&rehearsal(name, &spec));
        let status = until_ended(town, name);
        let message = status["message"].as_str().expect("why");
        assert!(status["phase"] == "Failed" && message.contains(expected), "{status:#}");
        assert!(status["runs"].is_null(), "{status:#}");
    }
}

/// One that has the name of an upgrade of ours, or of a rehearsal, shows nothing.
fn what_is_passed_off_is_not_believed(town: &Town) {
    let says = |what: &str, why: &str| {
        town.until(&format!("{what} says {why}"), |town| {
            town.get(what)["status"].to_string().contains(why)
        });
    };
    let run = json!([{"build": "web=2", "expect": {"phase": "Succeeded"}}]);
    // A freeze keeps it until its uid is known, which the names of its own have.
    let freeze = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Freeze", "metadata": {"name": "weekend"},
        "spec": {"reason": "nobody is here", "environments": ["production"], "user": "admin"},
    });
    town.apply(&freeze.to_string());
    promote(town, "forged", "3");
    says("promotions/forged", "nobody is here");
    let uid = town.get("promotions/forged")["metadata"]["uid"]
        .as_str()
        .expect("one")
        .to_owned();
    let name = format!("forged-{}-there", &uid[..8]);
    town.apply(&rehearsal(&name, &json!({"runs": run})));
    until_ended(town, &name);
    town.kubectl(&["delete", "freeze/weekend"], "");
    says("promotions/forged", "does not own it");
    town.kubectl(&["delete", &format!("reh/{name}"), "--timeout=60s"], "");
    town.until("it goes through its own", |town| {
        let status = &town.get("promotions/forged")["status"];
        status["rehearsed"][0]["rehearsal"] == "there" && status["phase"] == "Succeeded"
    });
    // The same of a run's upgrade.
    let run = json!([{"build": "web=candidate", "expect": {"phase": "Succeeded"}}]);
    town.apply(&rehearsal("taken", &json!({"runs": run})));
    let uid = town.get("reh/taken")["metadata"]["uid"]
        .as_str()
        .expect("one")
        .to_owned();
    let taken = format!("taken-{}-0", &uid[..8]);
    town.upgrade(&taken, "2");
    town.wait(&format!("upg/{taken}"), "condition=Ready");
    let run = json!([{"build": "web=bad", "expect": {"phase": "Succeeded"}}]);
    town.apply(&rehearsal("taken", &json!({"runs": run})));
    says("reh/taken", "does not own it");
    town.kubectl(&["delete", &format!("upg/{taken}"), "--timeout=60s"], "");
    assert_eq!(until_ended(town, "taken")["phase"], "Failed");
}

/// The run that is under way comes to its end, and no further one is begun.
fn a_promotion_that_is_taken_back_ends_its_rehearsal(town: &Town) {
    let run = |version: &str| json!({"build": format!("web={version}"), "expect": {"phase": "Succeeded"}});
    let runs = json!([run("2"), run("3"), run("2"), run("candidate")]);
    town.apply(&rehearsal("there", &json!({"runs": runs})));
    // One that was never there: what comes back is not rehearsed.
    promote(town, "regretted", "bad");
    let own = |town: &Town| {
        let all = town.get("reh");
        let mut all = all["items"].as_array().cloned().unwrap_or_default().into_iter();
        all.find(|one| {
            one["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("regretted-"))
        })
    };
    town.until("its rehearsal goes on", |town| {
        own(town).is_some_and(|one| one["status"]["runs"][0]["begun"] == true)
    });
    let cancelled = r#"{"spec": {"cancel": true}}"#;
    town.kubectl(&["patch", "promotion/regretted", "--type=merge", "-p", cancelled], "");
    town.until("it is taken back", |town| {
        town.get("promotions/regretted")["status"]["phase"] == "Cancelled"
    });
    town.until("no further run is begun", |town| {
        own(town).is_some_and(|one| one["status"]["phase"] == "Failed")
    });
    let status = own(town).expect("it is there")["status"].clone();
    assert!(
        status["message"]
            .to_string()
            .contains("regretted, which it is of, has ended"),
        "{status:#}"
    );
    assert!(
        status["runs"].as_array().is_some_and(|runs| runs.len() < 4),
        "{status:#}"
    );
    town.kubectl(&["delete", "promotion/regretted", "--timeout=60s"], "");
}

fn promote(town: &Town, name: &str, version: &str) {
    let spec = json!({"pipeline": "web", "stage": "production", "build": format!("web-{version}"), "user": "admin"});
    let promotion =
        json!({"apiVersion": "stagegate.dev/v1alpha1", "kind": "Promotion", "metadata": {"name": name}, "spec": spec});
    town.apply(&promotion.to_string());
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
    town.wait("env/production", "condition=Ready");
    promote(town, "good", "2");
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
    promote(town, "worse", "bad");
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
    what_shows_nothing_is_not_carried_out(&town);
    disturbances_go_on_beside(&town);
    a_promotion_goes_through_its_stages_rehearsals(&town);
    what_is_passed_off_is_not_believed(&town);
    a_promotion_that_is_taken_back_ends_its_rehearsal(&town);
}

//! Commands of an operator without a server: undo, retry, rehearsals, and what programs get from all of them.

use std::process::Command;

use crate::fleet::system::until;
use crate::trivial::{ENVIRONMENT, Trivial};

#[test]
fn undo_returns_to_the_build_before_and_refuses_where_there_is_none() {
    let small = Trivial::up();
    // Nothing there for an operator's word to be said to: one code, whichever word, and another for a name that nobody knows.
    for word in ["pause", "resume", "abort", "retry", "undo"] {
        let nothing = small.run(&[word, ENVIRONMENT]).expect_code(6);
        assert!(
            nothing.err.contains(&format!("there is nothing to {word} in small")),
            "{nothing:?}"
        );
        small.run(&[word, "smal"]).expect_code(2);
    }
    let nothing = small.run(&["undo", ENVIRONMENT, "-o", "json"]);
    assert_eq!(nothing.code, Some(6), "{nothing:?}");
    assert!(nothing.err.contains("there is nothing to undo in small"), "{nothing:?}");
    assert_eq!(nothing.json()["kind"], "Status", "{nothing:?}");

    assert_eq!(small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).code, Some(0));
    let succeeded = small.run(&["retry", ENVIRONMENT]).expect_code(6);
    assert!(
        succeeded.err.contains("succeeded, and `") && succeeded.err.contains("stagegate undo small` goes back"),
        "{succeeded:?}"
    );
    // What changed nothing and what was rolled back is not what undo goes back over.
    assert_eq!(small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).code, Some(0));
    assert_eq!(small.run(&["upgrade", ENVIRONMENT, "--build", "web=bad"]).code, Some(3));

    let plan = small.run(&["undo", ENVIRONMENT, "--dry-run", "-o", "json"]);
    assert_eq!(
        (plan.code, &plan.json()["metadata"]["name"]),
        (Some(0), &"web-1".into()),
        "{plan:?}"
    );
    let undone = small.run(&["undo", ENVIRONMENT, "-o", "json"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    let upgrade = undone.json();
    assert_eq!(upgrade["spec"]["build"], "web-1");
    for node in upgrade["status"]["nodes"].as_array().expect("nodes") {
        assert_eq!(node["build"], "web-1", "{node}");
    }
}

#[test]
fn programs_get_one_resource_whatever_the_exit_code() {
    let small = Trivial::up();
    for (arguments, code, kind) in [
        (&["why", ENVIRONMENT][..], 2, "Status"),
        (&["upgrade", ENVIRONMENT, "--build", "web=9"], 2, "Status"),
        (&["upgrade", ENVIRONMENT, "--build", "web=2"], 0, "Upgrade"),
        (&["upgrade", ENVIRONMENT, "--build", "web=bad"], 3, "Upgrade"),
        (&["upgrade", ENVIRONMENT, "--build", "web=bad"], 6, "Status"),
        (&["plan", ENVIRONMENT, "--build", "web=bad"], 6, "Plan"),
        (&["why", ENVIRONMENT], 0, "Why"),
        (&["status", ENVIRONMENT], 0, "Environment"),
        (&["status"], 0, "List"),
        (&["status", "other"], 2, "Status"),
        (&["pause", ENVIRONMENT], 6, "Status"),
    ] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        let said = small.run(&arguments);
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
        // One document and nothing else, or this panics.
        let resource = said.json();
        assert_eq!(resource["kind"], kind, "{arguments:?}: {said:?}");
        for key in ["apiVersion", "metadata"] {
            assert!(!resource[key].is_null(), "{arguments:?} has no {key}: {said:?}");
        }
        if kind == "Status" {
            assert_eq!(resource["status"]["exitCode"], code, "{said:?}");
        }
    }
}

#[test]
fn status_names_node_and_build_before_any_upgrade_too() {
    let small = Trivial::up();
    let said = small.run(&["status", ENVIRONMENT]);
    for node in ["n1", "n2"] {
        let row = said.out.lines().find(|line| line.trim_start().starts_with(node));
        let row: Vec<&str> = row.unwrap_or_else(|| panic!("{said:?}")).split_whitespace().collect();
        assert_eq!(row, [node, "web", "web-1"], "{said:?}");
    }
    let nodes = &small.run(&["status", ENVIRONMENT, "-o", "json"]).json()["status"]["nodes"];
    assert_eq!(
        nodes[1],
        serde_json::json!({"name": "n2", "component": "web", "build": "web-1"})
    );
}

fn kill_service(small: &Trivial, node: &str) {
    let pid = small.path(&format!("state/environments/{ENVIRONMENT}/nodes/{node}/run/pid"));
    let pid = std::fs::read_to_string(pid).expect("it runs");
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("a number")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
    // It dies once it has its turn on the machine, and is looked at after that.
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    until("it is dead", || {
        let is_gone = std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        is_gone.then_some(())
    });
}

#[test]
fn status_says_how_old_its_record_is_and_looks_when_asked() {
    let small = Trivial::up();
    let seen = |node: usize| {
        let status = small
            .run(&["status", ENVIRONMENT, "--look", "-o", "json"])
            .expect_code(0)
            .json();
        status["status"]["nodes"][node]["seen"].clone()
    };
    assert_eq!(
        (&seen(0)["state"], &seen(0)["build"]),
        (&"Running".into(), &"web-1".into()),
        "{}",
        seen(0)
    );
    assert!(seen(0)["differs"].is_null(), "{}", seen(0));
    small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).expect_code(0);
    assert!(seen(1)["differs"].is_null(), "{}", seen(1));
    kill_service(&small, "n1");
    let record = small.run(&["status", ENVIRONMENT]).expect_code(0);
    assert!(
        record.out.contains("as tester's upgrade to web-2 left it"),
        "{record:?}"
    );
    assert!(record.out.contains("stagegate status small --look`"), "{record:?}");
    let looked = small.run(&["status", ENVIRONMENT, "--look"]).expect_code(0);
    let now = looked
        .out
        .split("the nodes now:")
        .nth(1)
        .unwrap_or_else(|| panic!("{looked:?}"));
    let row = |node: &str| {
        now.lines()
            .find(|line| line.trim_start().starts_with(node))
            .expect("a row")
            .to_owned()
    };
    assert!(row("n1").contains("its service does not run"), "{now}");
    assert!(
        row("n2").trim_end().ends_with('-') && row("n2").matches("web-2").count() == 2,
        "{now}"
    );
    assert_eq!(seen(0)["state"], "NotRunning");
    small.run(&["down", ENVIRONMENT]).expect_code(0);
    assert_eq!(seen(1)["state"], "NotRunning");
    assert!(
        seen(0)["differs"].is_null() && seen(1)["differs"].is_null(),
        "what is down need not run"
    );
}

/// A killed main process whose worker serves on, and holds the port that the next build needs.
#[test]
fn a_service_that_lost_its_main_process_is_no_build_s_fault_and_does_not_outlive_down() {
    let small = Trivial::new();
    small.write(
        "workspace/templates/start.sh",
        r#"set -eu
mkdir -p run log
cat >run/server.py <<'END'
import functools, http.server, os, time
site = functools.partial(http.server.SimpleHTTPRequestHandler, directory=os.environ["STAGEGATE_RELEASE_DIR"])
server = http.server.ThreadingHTTPServer(("{{ node.address }}", {{ node.ports.http }}), site)
if os.fork() == 0:
    server.serve_forever()
time.sleep(1000)
END
python3 run/server.py >log/web 2>&1 </dev/null &
echo $! >run/pid
"#,
    );
    small.write(
        "workspace/templates/stop.sh",
        "set -eu\npid=$(cat run/pid)\npkill -P \"$pid\"\nkill \"$pid\"\n",
    );
    small.run(&["up", ENVIRONMENT]).expect_code(0);
    kill_service(&small, "n1");
    let looked = small.run(&["status", ENVIRONMENT, "--look"]).expect_code(0);
    assert!(looked.out.contains("processes of it live on"), "{looked:?}");
    small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).expect_code(0);
    kill_service(&small, "n1");
    small.run(&["down", ENVIRONMENT]).expect_code(0);
    let looked = small
        .run(&["status", ENVIRONMENT, "--look", "-o", "json"])
        .expect_code(0)
        .json();
    let seen = &looked["status"]["nodes"][0]["seen"];
    assert!(seen["state"] == "NotRunning" && seen["differs"].is_null(), "{looked:#}");
}

/// The others are shown all the same, whatever has become of the files.
#[test]
fn a_node_that_cannot_be_reached_is_shown_as_such() {
    let small = Trivial::up();
    let file = "workspace/environments/small.yaml";
    let text = std::fs::read_to_string(small.path(file)).expect("written");
    let nobody = "        - {name: far, address: 127.0.0.1, ports: {http: 9}, \
                  host: {ssh: {destination: 'ssh://nobody@127.0.0.1:1', directory: x}}}\n      actions:";
    small.write(file, &text.replacen("      actions:", nobody, 1));
    small.run(&["up", ENVIRONMENT]).expect_code(1);
    small.write(file, "not: [what it was\n");
    let looked = small
        .run(&["status", ENVIRONMENT, "--look", "-o", "json"])
        .expect_code(0)
        .json();
    let nodes = &looked["status"]["nodes"];
    assert_eq!(nodes[2]["seen"]["state"], "Unreachable", "{nodes:#}");
    assert!(
        nodes[2]["seen"]["differs"].to_string().contains("cannot be reached"),
        "{nodes:#}"
    );
    assert_eq!(nodes[0]["seen"]["state"], "Running", "{nodes:#}");
    small.write(file, &text);
    // It was brought up with three; the third was never there.
    small.write(file, &text.replacen("      actions:", nobody, 1));
    forget(&small);
    small.write(file, &text);
}

/// So that what was brought up with another list of nodes can be taken down by this one.
fn forget(small: &Trivial) {
    let store = stagegate::store::SqliteStore::open(&small.path("state")).expect("the state");
    stagegate::store::Store::delete_resource(&store, "Environment", ENVIRONMENT, stagegate::store::Expect::Anything)
        .expect("forgotten");
}

#[test]
fn names_of_a_list_can_be_given_to_get_and_status() {
    let small = Trivial::up();
    small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).expect_code(0);
    for (list, kind) in [
        (&["get", "environments"][..], "environment/"),
        (&["get", "builds"], "build/"),
        (&["get", "upgrades"], "upgrade/"),
        (&["history"], "upgrade/"),
        (&["build", "list"], "build/"),
        (&["status"], "environment/"),
    ] {
        let said = small.run(&[list, &["-o", "name"]].concat()).expect_code(0);
        let names: Vec<&str> = said.out.lines().collect();
        assert!(!names.is_empty(), "{list:?}: {said:?}");
        for name in names {
            assert!(name.starts_with(kind), "{list:?}: {said:?}");
            let again = small.run(&["get", name, "-o", "name"]).expect_code(0);
            assert_eq!(again.out.trim_end(), name);
        }
    }
    small.run(&["status", "environment/small"]).expect_code(0);
    small.run(&["get", "build/web-2", "web-2"]).expect_code(2);
    let upgrade = small.upgrade()["metadata"]["name"].as_str().expect("a name").to_owned();
    let (short, _) = upgrade.split_at(upgrade.len() - 1);
    for misspelt in [&["events", "--upgrade", short][..], &["get", "upgrade", short]] {
        let refused = small.run(misspelt).expect_code(2);
        assert!(
            refused.err.contains(&format!("did you mean `{upgrade}`?")),
            "{refused:?}"
        );
    }
    small
        .run(&["events", ENVIRONMENT, "--upgrade", &upgrade])
        .expect_code(0);
    small.run(&["down", ENVIRONMENT, "--purge"]).expect_code(0);
    let none = small.run(&["history", ENVIRONMENT, "-o", "name"]).expect_code(0);
    assert_eq!(none.out, "", "an empty list has no names");
}

#[test]
fn a_version_is_one_and_is_said_when_the_source_knows_it_by_another_name() {
    let small = Trivial::up();
    // As package tools write it.
    small.run(&["plan", ENVIRONMENT, "--build", "web==2"]).expect_code(0);
    for range in ["web=>2", "web=2.*", "web=~=2", "web=2,3", "web=="] {
        let refused = small.run(&["plan", ENVIRONMENT, "--build", range]).expect_code(2);
        assert!(
            refused.err.contains("does not name") || refused.err.contains("more than one version"),
            "{refused:?}"
        );
    }
    let unknown = small.run(&["plan", ENVIRONMENT, "--build", "web=4"]).expect_code(2);
    assert!(unknown.err.contains("2, 3"), "the nearest: {unknown:?}");
    // An epoch is part of a version, no range.
    let unknown = small.run(&["plan", ENVIRONMENT, "--build", "web=1!2"]).expect_code(2);
    assert!(!unknown.err.contains("does not name"), "{unknown:?}");
}

/// Upgrades that ended before they touched a node, of an environment that was never up.
#[test]
fn a_purge_leaves_nothing_of_ghosts_and_says_so() {
    let small = Trivial::new();
    {
        let store = stagegate::store::SqliteStore::open(&small.path("state")).expect("a state");
        let now = jiff::Timestamp::now();
        let spec = serde_json::from_value(
            serde_json::json!({"environment": ENVIRONMENT, "component": "web", "build": "web-2"}),
        );
        let status = stagegate::model::upgrade::UpgradeStatus::new(now);
        stagegate::store::Store::create_upgrade(&store, "web-2-ghost", &spec.expect("a spec"), &status, now)
            .expect("begun");
    }
    small.write("state/evidence/web-2-ghost/1.jsonl", "");
    let gone = small.run(&["down", ENVIRONMENT, "--purge"]).expect_code(0);
    assert!(
        gone.err
            .contains("small is gone, with what was remembered of 1 upgrade"),
        "{gone:?}"
    );
    assert!(gone.err.contains("nothing is left"), "{gone:?}");
    assert!(!small.path("state").exists(), "{gone:?}");
}

/// Programs that read answers have the schema to go by.
#[test]
fn an_upgrade_is_printed_as_the_schema_says() {
    const ASK: &str = r##"
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
answer = json.load(sys.stdin)
schema["$ref"] = "#/$defs/" + answer["kind"]
del schema["oneOf"]
errors = [e.message for e in Draft202012Validator(schema).iter_errors(answer)]
print("\n".join(errors))
"##;
    let small = Trivial::up();
    let schema = small.path("schema.json");
    std::fs::write(&schema, small.run(&["schema"]).expect_code(0).out).expect("written");
    let judged = |answer: &str| {
        let asked = std::process::Command::new(crate::fetched::python_with_jsonschema())
            .args(["-c", ASK])
            .arg(&schema)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut asked = asked.expect("python runs");
        std::io::Write::write_all(&mut asked.stdin.take().expect("piped"), answer.as_bytes()).expect("taken");
        let said = asked.wait_with_output().expect("it ends");
        assert!(said.status.success(), "{said:?}");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    let done = small
        .run(&["upgrade", ENVIRONMENT, "--build", "web=2", "-o", "json"])
        .expect_code(0);
    assert_eq!(judged(&done.out), "");
    let failed = small
        .run(&["upgrade", ENVIRONMENT, "--build", "web=bad", "-o", "json"])
        .expect_code(3);
    assert_eq!(judged(&failed.out), "");
    let wrong = done.out.replacen("\"Done\"", "\"Don\"", 1);
    assert_ne!(judged(&wrong), "", "the schema is really asked");
}

#[test]
fn what_get_prints_is_accepted_by_lint() {
    let small = Trivial::up();
    assert_eq!(small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).code, Some(0));
    let upgrade = small.upgrade()["metadata"]["name"].as_str().expect("a name").to_owned();
    for (kind, name) in [("build", "web-2"), ("upgrade", &upgrade), ("environment", ENVIRONMENT)] {
        let said = small.run(&["get", kind, name, "-o", "yaml"]).expect_code(0);
        small.write("printed.yaml", &said.out);
        let printed = small.path("printed.yaml").display().to_string();
        small.run(&["lint", &printed]).expect_code(0);
    }
}

#[test]
fn why_sees_that_nobody_drives_and_that_a_quarantine_is_lifted() {
    let small = Trivial::up();
    let mut driver = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow"]);
    driver.until("rolling");
    let why = |part: &str| small.run(&["why", ENVIRONMENT, "-o", "json"]).json()["status"][part].to_string();
    assert!(!why("driver").contains("null"), "{}", why("driver"));
    assert!(why("next").contains("status"), "{}", why("next"));
    // A driver that is stopped lives, keeps the environment, and does nothing.
    driver.signal(rustix::process::Signal::STOP);
    until("a silent driver is named", || {
        why("value").contains("has said nothing since").then_some(())
    });
    assert!(
        why("next").contains(&format!("kill -CONT {}", driver.pid())),
        "{}",
        why("next")
    );
    driver.signal(rustix::process::Signal::KILL);
    let dead = driver.pid();
    drop(driver);
    // It stands still already, and who asks it to hold is told what that means.
    let paused = small.run(&["pause", ENVIRONMENT]).expect_code(0);
    assert!(
        paused.err.contains("nobody drives") && paused.err.contains("at the next drive"),
        "{paused:?}"
    );
    assert!(paused.err.contains("stagegate resume small` drives it"), "{paused:?}");
    assert!(why("value").contains("nobody does"), "{}", why("value"));
    assert!(
        why("next").contains("stagegate upgrade small --build web=slow"),
        "{}",
        why("next")
    );
    // A step of the dead driver may live: nothing is stopped under it, and nothing is gone back from that is not decided.
    let mut said = Vec::new();
    for command in ["down", "undo"] {
        let refused = small.run(&[command, ENVIRONMENT]).expect_code(6);
        assert!(
            refused.err.contains("has an unfinished upgrade to web-slow"),
            "{refused:?}"
        );
        said.push(refused.err);
    }
    small.let_go();
    small
        .run(&["upgrade", ENVIRONMENT, "--build", "web=slow"])
        .expect_code(0);
    // The first that took the environment over said so, and it is part of what happened to the upgrade.
    let from = format!("(pid {dead}), which is gone and was last heard of at ");
    assert!(
        said[0].contains("took over from tester@") && said[0].contains(&from),
        "{said:?}"
    );
    let events = small.run(&["events", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    let told = events["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|e| e["reason"] == "TakenOver");
    let told: Vec<String> = told.map(|e| e["message"].to_string()).collect();
    assert!(told.len() == 1 && told[0].contains(&from), "{told:?}");
    // What was asked for and never came is in the history as what was asked for.
    let dropped = events["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|e| e["reason"] == "PauseDropped");
    let dropped: Vec<String> = dropped.map(|e| e["message"].to_string()).collect();
    assert_eq!(
        dropped,
        ["\"tester goes on with it, so the pause that was asked for is dropped\""]
    );
    let reports = std::fs::read_to_string(small.path("state/environments/small/reports.jsonl")).expect("reports");
    assert!(
        reports.contains("web@slow upgrade of small: tester took over from tester@"),
        "{reports}"
    );

    assert_eq!(small.run(&["upgrade", ENVIRONMENT, "--build", "web=bad"]).code, Some(3));
    assert!(why("next").contains("build release"), "{}", why("next"));
    let released = small.run(&[
        "build",
        "release",
        "web-bad",
        "--env",
        ENVIRONMENT,
        "--reason",
        "seen",
        "-o",
        "json",
    ]);
    assert_eq!(released.code, Some(0), "{released:?}");
    assert_eq!(released.json()["kind"], "Build", "{released:?}");
    assert!(why("next").contains("stagegate upgrade"), "{}", why("next"));
    // As they can be pasted, for programs too.
    assert!(
        why("next").starts_with(&format!("\"{} ", env!("CARGO_BIN_EXE_stagegate"))),
        "{}",
        why("next")
    );
    let words = small.run(&["why", ENVIRONMENT]).expect_code(0).out;
    let since = words
        .lines()
        .find(|line| line.starts_with("since:"))
        .unwrap_or_else(|| panic!("{words}"));
    assert!(!since.contains('.') && since.contains("Z ("), "{since}");
    let again = small.run(&["build", "release", "web-bad", "--env", ENVIRONMENT, "--reason", "seen"]);
    assert_eq!(again.code, Some(2), "{again:?}");
}

#[test]
fn what_does_not_stand_is_not_upgraded() {
    let small = Trivial::new();
    let upgrade = || small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).expect_code(2);
    let never = upgrade();
    assert!(never.err.contains("was never brought up here; `"), "{never:?}");
    assert!(never.err.contains("stagegate up small`"), "{never:?}");
    small.run(&["up", ENVIRONMENT]).expect_code(0);
    small.run(&["down", ENVIRONMENT]).expect_code(0);
    let down = upgrade();
    assert!(down.err.contains("stagegate up small`"), "{down:?}");
    let history = small.run(&["history", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(history["items"], serde_json::json!([]), "no ghost is left");
}

/// Neither by an upgrade nor by a node that has none yet.
#[test]
fn up_puts_no_quarantined_build_on_a_node() {
    let small = Trivial::up();
    assert_eq!(small.run(&["upgrade", ENVIRONMENT, "--build", "web=bad"]).code, Some(3));
    let file = small.path("workspace/environments/small.yaml");
    let environment = std::fs::read_to_string(&file).expect("written");
    let wants_bad = environment.replace("build: \"1\"", "build: bad");
    assert_ne!(wants_bad, environment);
    std::fs::write(&file, wants_bad).expect("written");
    small.run(&["up", ENVIRONMENT]).expect_code(0);
    small.run(&["down", ENVIRONMENT]).expect_code(0);
    std::fs::remove_dir_all(small.path(&format!("state/environments/{ENVIRONMENT}/nodes/n2"))).expect("was there");
    let refused = small.run(&["up", ENVIRONMENT]).expect_code(6);
    assert!(refused.err.contains("web-bad is quarantined in small"), "{refused:?}");
    assert!(
        !small
            .path(&format!("state/environments/{ENVIRONMENT}/nodes/n2"))
            .exists()
    );
}

#[test]
fn up_that_is_interrupted_ends_its_step_and_is_gone_on_with() {
    let small = Trivial::new();
    let environment = std::fs::read_to_string(small.path("workspace/environments/small.yaml")).expect("written");
    small.write(
        "workspace/environments/small.yaml",
        &environment.replace("build: \"1\"", "build: slow"),
    );
    let mut up = small.start(&["up", ENVIRONMENT]);
    up.until("n2: installing");
    up.signal(rustix::process::Signal::INT);
    // Who looks meanwhile is told what goes on, and by whom.
    let meanwhile = small.run(&["status", ENVIRONMENT]).expect_code(0);
    assert!(
        meanwhile.out.contains("tester@") && meanwhile.out.contains(" brings it up now"),
        "{meanwhile:?}"
    );
    assert!(!meanwhile.out.contains("nobody has looked"), "{meanwhile:?}");
    small.let_go();
    let said = up.end();
    assert_eq!(said.code, Some(130), "{said:?}");
    let left = small.run(&["status", ENVIRONMENT]).expect_code(0);
    assert!(
        left.out.contains("nobody is at it now") && left.out.contains("stagegate up small`"),
        "{left:?}"
    );
    small.run(&["up", ENVIRONMENT]).expect_code(0);
}

/// Also where the process ends in the middle of its work.
#[test]
fn programs_get_one_resource_of_a_command_that_is_interrupted_twice() {
    let small = Trivial::up();
    let mut driver = small.start(&["upgrade", ENVIRONMENT, "--build", "web=slow", "-o", "json"]);
    driver.until("rolling");
    let mut waiting = small.start(&["pause", ENVIRONMENT, "--wait", "-o", "json"]);
    waiting.until("will hold once its steps have ended");
    waiting.signal(rustix::process::Signal::INT);
    let waited = waiting.end().expect_code(130);
    assert_eq!(waited.json()["kind"], "Upgrade", "{waited:?}");
    // Two kinds: two of one kind may arrive as one.
    driver.signal(rustix::process::Signal::INT);
    driver.signal(rustix::process::Signal::TERM);
    let said = driver.end().expect_code(130);
    assert_eq!(said.json()["kind"], "Status", "{said:?}");
    assert_eq!(said.json()["status"]["reason"], "Interrupted", "{said:?}");
    assert_eq!(said.json()["status"]["exitCode"], 130, "{said:?}");
}

#[test]
fn events_are_one_list_for_programs() {
    let small = Trivial::up();
    assert_eq!(small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]).code, Some(0));
    let list = small.run(&["events", ENVIRONMENT, "--last", "2", "-o", "json"]).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
    for key in ["apiVersion", "kind", "metadata", "reason"] {
        assert!(!list["items"][0][key].is_null(), "no {key}: {list}");
    }
}

/// What scripts say is shown to people in one line, and whole to programs.
#[test]
fn a_script_that_floods_breaks_no_line() {
    let small = Trivial::up();
    small.write(
        "workspace/templates/install.sh",
        "i=0\nwhile [ $i -lt 60 ]; do echo \"line $i of many words that nobody reads in a chat\"; i=$((i+1)); done\necho the end; exit 3\n",
    );
    small.run(&["upgrade", ENVIRONMENT, "--build", "web=2"]);
    let events = small.run(&["events", ENVIRONMENT]).expect_code(0).out;
    let list = small.run(&["events", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    let items = list["items"].as_array().expect("a list");
    assert_eq!(events.lines().count(), items.len(), "{events}");
    let is_long = |item: &&serde_json::Value| {
        item["message"]
            .as_str()
            .is_some_and(|m| m.len() > 1_500 && m.contains('\n'))
    };
    assert!(items.iter().any(|item| is_long(&item)), "{list:#}");
    let cut = events
        .lines()
        .find(|line| line.contains(" … "))
        .unwrap_or_else(|| panic!("{events}"));
    assert!(
        cut.contains("install ended with 3: ") && cut.contains("chat the end "),
        "{cut}"
    );
    let status = small.run(&["status", ENVIRONMENT]).expect_code(0).out;
    assert!(status.lines().all(|line| line.chars().count() < 1_000), "{status}");
    let reports = std::fs::read_to_string(small.path("state/environments/small/reports.jsonl")).expect("reports");
    for report in reports.lines() {
        let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
        assert!(
            report["text"].as_str().expect("a text").chars().count() < 1_000,
            "{report}"
        );
    }
}

#[test]
fn a_rehearsal_restarts_a_component_under_the_upgrades_own_lease() {
    let small = Trivial::up();
    small.write(
        "workspace/pipelines/restart.yaml",
        &rehearsal("restart", "restartComponent: {component: web, after: 100ms}"),
    );
    let said = small.run(&["rehearse", "restart", "-o", "json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let upgrade = small.upgrade();
    let name = upgrade["metadata"]["name"].as_str().expect("a name");
    assert_eq!(said.json()["status"]["runs"][0]["upgrade"], name, "{said:?}");
    // The upgrade's own restarts, and one more on each node, which it did not ask for.
    assert_eq!(small.completed(name, "restart"), 2);
    assert_eq!(small.completed("disturb2", "restart"), 2);

    // Afterwards the build runs already, so the run ends before the disturbance: that shows nothing.
    small.write(
        "workspace/pipelines/late.yaml",
        &rehearsal("late", "restartComponent: {component: web, after: 1h}"),
    );
    let said = small.run(&["rehearse", "late", "-o", "json"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    let unmet = said.json()["status"]["runs"][0]["unmet"].to_string();
    assert!(unmet.contains("ended before its time came"), "{unmet}");
}

#[test]
fn a_rehearsal_that_says_what_it_starts_from_can_be_repeated() {
    let small = Trivial::up();
    let text = rehearsal("again", "restartComponent: {component: web, after: 100ms}");
    let starts = text.replace("  disturbances:", "  startFrom: web=1\n  disturbances:");
    small.write("workspace/pipelines/again.yaml", &starts);
    for _ in 0..2 {
        let said = small.run(&["rehearse", "again", "-o", "json"]).expect_code(0);
        assert_eq!(said.json()["status"]["runs"][0]["phase"], "Succeeded", "{said:?}");
        assert_eq!(small.upgrade()["spec"]["build"], "web-2");
    }
    small.write(
        "workspace/pipelines/again.yaml",
        &starts.replace("startFrom: web=1", "startFrom: wev=1"),
    );
    let refused = small.run(&["rehearse", "again"]).expect_code(2);
    assert!(refused.err.contains("did you mean `web`?"), "{refused:?}");
}

#[test]
fn a_disk_that_others_use_is_never_filled() {
    let small = Trivial::up();
    small.write(
        "workspace/pipelines/fill.yaml",
        &rehearsal("fill", "fillDisk: {node: n1, after: 0s, hold: 1s}"),
    );
    let said = small.run(&["rehearse", "fill"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("no file system of its own"), "{said:?}");
    let history = small.run(&["history", ENVIRONMENT, "-o", "json"]).json();
    assert_eq!(history["items"], serde_json::json!([]), "nothing was begun");
}

/// The space is taken while the rehearsal goes on, so that the install fails there, and is free again afterwards.
#[test]
fn a_nodes_own_disk_is_filled_for_a_while() {
    let small = Trivial::new();
    let disk = SmallDisk::mount(&small.path("state/environments/small/nodes/n1"));
    assert_eq!(small.run(&["up", ENVIRONMENT]).code, Some(0));
    let before = disk.free();
    small.write("workspace/builds/large/answer", "yes\n");
    small.write(
        "workspace/builds/large/page",
        &format!("fine{}\n", " and more".repeat(100_000)),
    );
    let text = rehearsal("fill", "fillDisk: {node: n1, after: 0s, hold: 1h, leaveMib: 0}")
        .replace("web=2", "web=large")
        .replace("phase: Succeeded", "phase: Paused");
    small.write("workspace/pipelines/fill.yaml", &text);
    let said = small.run(&["rehearse", "fill", "-o", "json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(disk.free() + 200_000 > before, "{} of {before}", disk.free());
    // With space again the held upgrade goes through.
    let retried = small.run(&["retry", ENVIRONMENT]);
    assert_eq!(retried.code, Some(0), "{retried:?}");
    drop(small);
    drop(disk);
}

fn rehearsal(name: &str, disturbance: &str) -> String {
    format!(
        "apiVersion: stagegate.dev/v1alpha1\nkind: Rehearsal\nmetadata: {{name: {name}}}\nspec:\n  environment: {ENVIRONMENT}\n  \
         disturbances:\n    - name: one\n      {disturbance}\n  runs:\n    - build: web=2\n      expect:\n        phase: Succeeded\n"
    )
}

/// A file system of 8 MiB.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> Self {
        std::fs::create_dir_all(at).expect("made");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let state = at.ancestors().nth(4).expect("the state directory");
        std::fs::set_permissions(state, mode).expect("ours");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "small"])
            .arg(at)
            .status();
        assert!(
            done.expect("mount runs").success(),
            "this test mounts a small disk: run it as root, as tests/run does"
        );
        Self(at.to_owned())
    }

    fn free(&self) -> u64 {
        let seen = rustix::fs::statvfs(&self.0).expect("mounted");
        seen.f_bfree * seen.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A state that is put back remembers less than its nodes have seen, and a new one is a stranger to them.
#[test]
fn a_restored_and_a_lost_state_adopt_their_nodes() {
    let small = Trivial::up();
    let copy = small.path("copy.db");
    assert_eq!(small.run(&["backup", copy.to_str().expect("text")]).code, Some(0));
    let upgrade = |build: &str| small.run(&["upgrade", ENVIRONMENT, "--build", build]);
    upgrade("web=3").expect_code(0);
    upgrade("web=2").expect_code(0);
    let forget = || {
        for name in ["stagegate.db", "stagegate.db-wal", "stagegate.db-shm"] {
            let _ = std::fs::remove_file(small.path("state").join(name));
        }
    };
    forget();
    std::fs::copy(&copy, small.path("state/stagegate.db")).expect("restored");
    // Something to do on a node.
    let kill_one = || {
        let pid = small.path(&format!("state/environments/{ENVIRONMENT}/nodes/n1/run/pid"));
        let pid = std::fs::read_to_string(pid).expect("it runs");
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("a number")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
    };
    let refused = || {
        let refused = small.run(&["up", ENVIRONMENT]).expect_code(1);
        assert!(refused.err.contains("stagegate adopt"), "{refused:?}");
    };
    // However often it asks: a person decides, and neither the time that an unreachable node is waited for nor a counter
    // that has caught up.
    kill_one();
    for _ in 0..4 {
        refused();
        for words in [
            ["upgrade", ENVIRONMENT, "--build", "web=2"],
            ["plan", ENVIRONMENT, "--build", "web=2"],
        ] {
            let said = small.run(&words).expect_code(6);
            let of_both = format!("n1, n2 of {ENVIRONMENT} serve another home (");
            assert!(said.err.contains(&of_both), "{said:?}");
            assert!(said.err.contains(&format!("stagegate adopt {ENVIRONMENT}")), "{said:?}");
        }
    }
    // Nothing was begun of it.
    let history = small.run(&["history", ENVIRONMENT, "-o", "name"]).expect_code(0);
    assert_eq!(history.out, "", "{history:?}");
    let looked = small.run(&["status", ENVIRONMENT, "--look"]).expect_code(0);
    assert!(looked.out.contains("it serves another home"), "{looked:?}");

    let adopt = || small.run(&["adopt", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    let outcomes = |adopted: &serde_json::Value| -> Vec<String> {
        let nodes = adopted["status"]["nodes"].as_array().expect("nodes");
        nodes
            .iter()
            .map(|n| n["outcome"].as_str().expect("a word").to_owned())
            .collect()
    };
    let adopted = adopt();
    assert_eq!(outcomes(&adopted), ["Adopted", "Adopted"], "{adopted:#}");
    assert_eq!(outcomes(&adopt()), ["Ours", "Ours"]);
    upgrade("web=2").expect_code(0);

    forget();
    let up = small.run(&["up", ENVIRONMENT]).expect_code(0);
    assert!(
        up.err.contains("n1, n2 of small serve another home ("),
        "looking is free, and tells: {up:?}"
    );
    kill_one();
    refused();
    assert_eq!(outcomes(&adopt()), ["Adopted", "Adopted"]);
    assert_eq!(small.run(&["up", ENVIRONMENT]).code, Some(0));
}

//! What a controller tells where a user looks: in conditions, in Events, and in `kubectl stagegate`.

use serde_json::{Value, json};

use super::controller::{NAMESPACE, Town, ask};
use super::trouble::Between;
use crate::trivial::{ENVIRONMENT, Said};

const READY: &str = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}";

fn ready(town: &Town, what: &str) -> Value {
    let conditions = town.get(what)["status"]["conditions"].clone();
    let mut all = conditions.as_array().cloned().unwrap_or_default().into_iter();
    all.find(|c| c["type"] == "Ready").unwrap_or_default()
}

fn has_event(town: &Town, kind: &str, name: &str, reason: &str) -> bool {
    let events = town.lab.get(&["-n", NAMESPACE, "events.events.k8s.io"]);
    let all = events["items"].as_array().expect("a list");
    all.iter().any(|event| {
        let of = &event["regarding"];
        event["reason"] == reason && of["kind"] == kind && of["name"] == name
    })
}

fn until_event(town: &Town, kind: &str, name: &str, reason: &str) {
    town.until(&format!("an Event {reason} of {kind} {name}"), |town| {
        has_event(town, kind, name, reason)
    });
}

fn patch_status(town: &Town, what: &str, status: &Value) {
    let patch = json!({"status": status}).to_string();
    town.kubectl(
        &["patch", what, "--subresource=status", "--type=merge", "-p", &patch],
        "",
    );
}

fn wish(town: &Town, upgrade: &str, wish: &str) {
    let patch = json!({"spec": {"wish": wish}}).to_string();
    town.kubectl(&["patch", "upg", upgrade, "--type=merge", "-p", &patch], "");
}

fn plugin(town: &Town, arguments: &[&str]) -> Said {
    town.plugin(arguments).end()
}

#[test]
fn a_node_that_is_listed_no_more_is_told_until_it_is_put_back_or_taken_out_of_the_status() {
    let town = Town::stated();
    let (_controller, address) = town.controller_at();
    let environment = format!("env/{ENVIRONMENT}");
    town.wait(&environment, "condition=Ready");
    let whole = town.environment();
    let without: Vec<&str> = whole.lines().filter(|line| !line.contains("name: n2")).collect();
    let without = without.join("\n");

    town.apply(&without);
    town.wait(&environment, &format!("{READY}=NodesMissing"));
    let told = ready(&town, &environment);
    let message = told["message"].as_str().expect("a text");
    assert!(message.contains("stops them: n2;"), "{told:#}");
    until_event(&town, "Environment", ENVIRONMENT, "NodesMissing");
    // It is seen in what is written down, so that nothing is begun for it and tried again.
    let figures = ask(&address, "/metrics");
    for line in ["stagegate_reconcile_errors_total 0", "stagegate_retries 0"] {
        assert!(figures.lines().any(|l| l == line), "{line}: {figures}");
    }
    let shown = plugin(&town, &["status", ENVIRONMENT]).expect_code(0);
    assert!(
        shown.out.contains("NodesMissing") && shown.out.contains("n2"),
        "{shown:?}"
    );

    // The others may be upgraded all the same.
    town.build("2");
    town.upgrade("second", "2");
    town.wait("upg/second", "condition=Ready");
    assert_eq!(
        (town.answer("n1"), town.answer("n2")),
        ("yes 2\n".to_owned(), "yes 1\n".to_owned())
    );

    town.apply(&whole);
    town.wait(&environment, &format!("{READY}=Up"));
    town.apply(&without);
    town.wait(&environment, &format!("{READY}=NodesMissing"));
    patch_status(&town, &environment, &json!({"nodes": ["n1"]}));
    town.wait(&environment, &format!("{READY}=Up"));
}

#[test]
fn an_upgrade_that_cannot_be_read_is_told_and_its_environment_is_left_alone_until_then() {
    let town = Town::stated();
    let _controller = town.controller();
    let environment = format!("env/{ENVIRONMENT}");
    town.wait(&environment, "condition=Ready");
    town.upgrade("strange", "none");
    town.until("it says what it waits for", |town| {
        town.get("upg/strange")["status"]["reason"] == "BuildMissing"
    });
    let since = town.get("upg/strange")["status"]["since"].clone();
    assert!(since.is_string(), "{since}");
    patch_status(&town, "upg/strange", &json!({"since": null}));

    town.wait("upg/strange", &format!("{READY}=Unreadable"));
    let told = ready(&town, "upg/strange");
    assert!(
        told["message"].as_str().is_some_and(|why| why.contains("since")),
        "{told:#}"
    );
    until_event(&town, "Upgrade", "strange", "Unreadable");
    town.wait(&environment, &format!("{READY}=UpgradeUnreadable"));
    let told = ready(&town, &environment);
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|why| why.contains("Upgrade strange")),
        "{told:#}"
    );
    until_event(&town, "Environment", ENVIRONMENT, "UpgradeUnreadable");

    patch_status(&town, "upg/strange", &json!({"since": since}));
    town.wait(&environment, &format!("{READY}=Up"));
    town.until("it waits again", |town| {
        ready(town, "upg/strange")["reason"] == "BuildMissing"
    });
}

#[test]
fn an_upgrade_that_waits_for_what_will_never_come_says_so_and_is_taken_back_by_what_it_says() {
    let town = Town::stated();
    let _controller = town.controller();
    let environment = format!("env/{ENVIRONMENT}");
    town.wait(&environment, "condition=Ready");
    town.upgrade("typo", "8.8");
    town.wait("upg/typo", "jsonpath={.status.reason}=BuildMissing");
    let told = town.get("upg/typo")["status"]["message"].clone();
    let told = told.as_str().expect("a text");
    let make = format!("`stagegate build manifest {ENVIRONMENT} web=8.8 | kubectl apply -n {NAMESPACE} -f -` makes it");
    assert!(told.contains(&make), "{told}");
    let withdraw = format!("kubectl delete upg -n {NAMESPACE} typo");
    assert!(told.contains(&format!("`{withdraw}` withdraws this")), "{told}");

    let why = plugin(&town, &["why", ENVIRONMENT]).expect_code(0);
    assert!(why.out.contains("rule:   Build web-8.8 is there"), "{why:?}");
    assert!(
        why.out.contains(&format!(
            "`kubectl stagegate -n {NAMESPACE} abort {ENVIRONMENT}`, which ends it"
        )),
        "{why:?}"
    );
    let next = format!("next:   stagegate build manifest {ENVIRONMENT} web=8.8 | kubectl apply -n {NAMESPACE} -f -");
    assert!(why.out.contains(&next), "{why:?}");
    let another = plugin(&town, &["upgrade", ENVIRONMENT, "--build", "web=2"]).expect_code(6);
    assert!(
        another.err.contains("was not begun (BuildMissing)")
            && another.err.contains(&format!(
                "`kubectl stagegate -n {NAMESPACE} abort {ENVIRONMENT}` ends it"
            )),
        "{another:?}"
    );
    let unknown = plugin(&town, &["upgrade", ENVIRONMENT, "--build", "weeb=2"]).expect_code(2);
    assert!(unknown.err.contains("has no component weeb; it has web"), "{unknown:?}");
    let withdrawn = town.lab.kubectl(&withdraw.split(' ').skip(1).collect::<Vec<_>>(), "");
    assert!(withdrawn.done, "{withdrawn:?}");

    // What its environment does not state at all ends at once.
    let misspelt = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": "misspelt"},
        "spec": {"environment": ENVIRONMENT, "component": "weeb", "build": "weeb-2", "user": "tester"},
    });
    town.apply(&misspelt.to_string());
    town.wait("upg/misspelt", "jsonpath={.status.reason}=NoSuchComponent");
    town.wait("upg/misspelt", "jsonpath={.status.phase}=Failed");
    until_event(&town, "Upgrade", "misspelt", "Refused");

    // A remedy that an object tells is called as its reader calls it, and is one line.
    town.build("bad");
    let quarantine = json!({"environment": ENVIRONMENT, "reason": "pages\nfailed", "at": "2026-01-01T00:00:00Z"});
    patch_status(&town, "bld/web-bad", &json!({"quarantines": [quarantine]}));
    town.upgrade("bad", "bad");
    town.wait("upg/bad", "jsonpath={.status.reason}=Quarantined");
    let told = town.get("upg/bad")["status"]["message"].clone();
    let told = told.as_str().expect("a text");
    let release =
        format!("`kubectl stagegate -n {NAMESPACE} build release web-bad --env {ENVIRONMENT} --reason TEXT` lifts it");
    assert!(told.contains(&release) && !told.contains('\n'), "{told}");
    let shown = town.kubectl(&["get", "upg", "bad", "-o", "wide"], "");
    assert!(shown.contains("lifts it"), "{shown}");
}

#[test]
fn where_there_is_no_environment_that_is_what_is_said() {
    let town = Town::new();
    for (arguments, said) in [
        (
            vec!["status"],
            "there is no Environment in namespace town; `kubectl get env -A`",
        ),
        (
            vec!["status", "shop"],
            "there is no Environment shop in namespace town; `kubectl get env -A`",
        ),
        (
            vec!["why", "shop"],
            "there is no Environment shop in namespace town; `kubectl get env -A`",
        ),
        (
            vec!["history", "shop"],
            "there is no Environment shop in namespace town; `kubectl get env -A`",
        ),
        (
            vec!["upgrade", "shop", "--build", "web=2"],
            "there is no Environment shop in namespace town; `kubectl get env -A`",
        ),
    ] {
        let refused = plugin(&town, &arguments).expect_code(2);
        assert!(refused.err.contains(said), "{arguments:?}: {refused:?}");
    }
    town.apply(&town.environment());
    let refused = plugin(&town, &["upgrade", "shop", "--build", "web=2"]).expect_code(2);
    assert!(
        refused.err.contains("in namespace town, which has small;"),
        "{refused:?}"
    );
    let never = plugin(&town, &["why", ENVIRONMENT]).expect_code(2);
    assert!(
        never.err.contains("was never upgraded") && !never.err.contains("stagegate plan"),
        "{never:?}"
    );
}

#[test]
fn where_no_controller_leads_that_is_said_and_nobody_is_waited_for() {
    let town = Town::stated();
    town.upgrade("second", "2");
    let nobody = "no controller leads in namespace town";
    let looked = "kubectl get pods -n town -l app.kubernetes.io/name=stagegate-controller";
    let why = plugin(&town, &["why", ENVIRONMENT]).expect_code(0);
    assert!(
        why.out.contains(&format!("value:  {nobody}")) && why.out.contains(&format!("next:   {looked}")),
        "{why:?}"
    );
    let status = plugin(&town, &["status", ENVIRONMENT]).expect_code(0);
    assert!(
        status.out.contains(nobody) && status.out.contains("driven by nobody"),
        "{status:?}"
    );
    let left = plugin(&town, &["upgrade", ENVIRONMENT, "--build", "web=2", "--timeout", "1s"]).expect_code(124);
    assert!(
        left.err.contains("was not begun: it holds before its first step"),
        "{left:?}"
    );

    // One that dies with an upgrade under way.
    let controller = town.controller();
    wish(&town, "second", "proceed");
    town.build("2");
    town.wait("upg/second", "condition=Ready");
    town.build("slow");
    town.upgrade("slow", "slow");
    town.until_installing("slow");
    controller.signal(rustix::process::Signal::KILL);
    let left = plugin(&town, &["abort", ENVIRONMENT, "--timeout", "1s"]).expect_code(124);
    assert!(
        left.err.contains(nobody) && left.err.contains("does not hold yet"),
        "{left:?}"
    );
    town.trivial.let_go();
    let _next = town.controller();
    town.wait("upg/slow", "jsonpath={.status.phase}=Aborted");
}

#[test]
fn what_a_controller_does_with_an_upgrade_by_itself_is_an_event_of_it() {
    let town = Town::stated();
    let mut first = town.controller();
    first.until("leading");
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    town.build("slow");
    let refused = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": "nowhere"},
        "spec": {"environment": ENVIRONMENT, "component": "nobody", "build": "web-slow", "user": "tester"},
    });
    town.apply(&refused.to_string());
    town.wait("upg/nowhere", "jsonpath={.status.reason}=NoSuchComponent");
    until_event(&town, "Upgrade", "nowhere", "Refused");

    let mut second = town.controller();
    town.upgrade("slow", "slow");
    town.until_installing("slow");
    first.signal(rustix::process::Signal::KILL);
    second.until("leading");
    until_event(&town, "Upgrade", "slow", "TakenOver");
    wish(&town, "slow", "pause");
    town.trivial.let_go();
    town.wait("upg/slow", "jsonpath={.status.phase}=Paused");
    wish(&town, "slow", "proceed");
    until_event(&town, "Upgrade", "slow", "Resumed");
    town.wait("upg/slow", "condition=Ready");
}

#[test]
fn the_reason_of_a_release_stays_with_the_build() {
    let town = Town::new();
    town.build("bad");
    let quarantine = json!({"environment": ENVIRONMENT, "reason": "pages failed", "at": "2026-01-01T00:00:00Z"});
    patch_status(&town, "bld/web-bad", &json!({"quarantines": [quarantine]}));
    let reason = "the page was mended";
    let release = ["build", "release", "web-bad", "--env", ENVIRONMENT, "--reason", reason];
    plugin(&town, &release).expect_code(0);
    let status = town.get("bld/web-bad")["status"].clone();
    assert_eq!(status["quarantines"], json!([]), "{status:#}");
    let kept = &status["releases"][0];
    assert_eq!(
        (&kept["environment"], &kept["reason"]),
        (&json!(ENVIRONMENT), &json!(reason)),
        "{status:#}"
    );
    assert!(kept["user"].is_string() && kept["at"].is_string(), "{status:#}");
    assert!(has_event(&town, "Build", "web-bad", "QuarantineLifted"));
}

/// Writing it down is forbidden for a while, which an upgrade does not wait for.
#[test]
fn whether_a_commits_hooks_passed_is_said_of_its_build_when_it_is_to_enter() {
    let town = Town::stated();
    let (direct, refused) = (town.lab.path("controller.kubeconfig"), 1);
    let between = Between::that_forbids(&direct, "PUT builds/status", refused);
    between.write(&direct, &town.lab.path("between.kubeconfig"));
    let _controller = town.controller_by("between.kubeconfig");
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    let said = town
        .trivial
        .run(&["build", "manifest", ENVIRONMENT, "web=2"])
        .expect_code(0);
    let commit = format!(
        "  commit: {{repository: /nowhere/web.git, commit: {}}}\n",
        "a".repeat(40)
    );
    let build = said.out.replacen("spec:\n", &format!("spec:\n{commit}"), 1);
    assert!(build.contains("/nowhere/web.git"), "{build}");
    town.apply(&build);
    town.upgrade("second", "2");
    town.wait("upg/second", "condition=Ready");
    assert!(!has_event(&town, "Upgrade", "second", "NotDriven"));
    let said = |town: &Town| -> Option<Value> {
        let conditions = town.get("bld/web-2")["status"]["conditions"].clone();
        let mut all = conditions.as_array().cloned().unwrap_or_default().into_iter();
        all.find(|c| c["type"] == "HooksPassed")
    };
    town.until("it is said in the end", |town| said(town).is_some());
    let forbidden = between.counts()["PUT builds/status"];
    assert!(forbidden > refused, "{forbidden}");
    let hooks = said(&town).expect("it is said");
    assert_eq!(
        (&hooks["status"], &hooks["reason"]),
        (&json!("Unknown"), &json!("RepositoryUnreadable")),
        "{hooks:#}"
    );
    assert!(
        hooks["message"]
            .as_str()
            .is_some_and(|why| why.contains("/nowhere/web.git")),
        "{hooks:#}"
    );
}

#[test]
fn what_is_asked_of_a_controllers_volume_is_told_where_it_is() {
    let town = Town::stated();
    let _controller = town.controller();
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    for command in [vec!["status"], vec!["status", ENVIRONMENT], vec!["up", ENVIRONMENT]] {
        let said = town.trivial.run(&command).expect_code(2);
        let wanted = format!("`kubectl stagegate status {ENVIRONMENT} -n {NAMESPACE}`");
        assert!(said.err.contains(&wanted), "{command:?}: {said:?}");
    }
}

#[test]
fn one_environment_is_shown_from_its_own_objects() {
    let town = Town::new();
    town.apply(&town.environment());
    town.upgrade("ours", "2");
    let theirs = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": "theirs"},
        "spec": {"environment": "other", "component": "web", "build": "web-2", "user": "tester"},
    });
    town.apply(&theirs.to_string());
    let selected = ["get", "upg", "-o", "name", "--field-selector", "spec.environment=other"];
    assert_eq!(town.kubectl(&selected, "").trim(), "upgrade.stagegate.dev/theirs");
    let names = |arguments: &[&str]| -> Vec<String> {
        let list = plugin(&town, &[arguments, &["-o", "json"]].concat())
            .expect_code(0)
            .json();
        let all = list["items"].as_array().expect("a list").iter();
        all.map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names(&["history", ENVIRONMENT]), ["ours"]);
    assert_eq!(names(&["history"]).len(), 2);
    let shown = plugin(&town, &["status", ENVIRONMENT]).expect_code(0);
    assert!(shown.out.contains("ours") || shown.out.contains("web-2"), "{shown:?}");
}

/// A watch may be minutes behind, and what is there all the same is no mistake of who asks for it.
#[test]
fn no_upgrade_ends_for_a_build_that_was_not_heard_of_yet() {
    let town = Town::new();
    let (direct, refused) = (town.lab.path("controller.kubeconfig"), 5);
    let between = Between::that_forbids(&direct, "WATCH builds", refused);
    between.write(&direct, &town.lab.path("between.kubeconfig"));
    let (mut controller, _) = town.controller_by("between.kubeconfig");
    let digest = |manifest: &str| format!("sha256:{}", manifest.repeat(64));
    let environment = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment", "metadata": {"name": ENVIRONMENT},
        "spec": {"components": [{
            "name": "web", "build": "1",
            "source": {"images": {"repository": "r.example/web", "digests": {"1": digest("1")}}},
            "statefulSet": {"namespace": NAMESPACE, "name": "web", "replicas": 1},
        }]},
    });
    town.apply(&environment.to_string());
    controller.until("leading");
    let build = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Build", "metadata": {"name": "web-2"},
        "spec": {"component": "web", "version": "2", "digest": digest("2"), "locked": []},
    });
    town.apply(&build.to_string());
    town.upgrade("second", "2");
    town.upgrade("typo", "3");
    // It is begun, and held for its set, which is not there.
    town.wait("upg/second", "jsonpath={.status.phase}=Paused");
    // One whose build is nowhere ends, once it is its turn.
    wish(&town, "second", "abort");
    town.wait("upg/typo", "jsonpath={.status.reason}=NoSuchVersion");
    assert!(between.counts()["WATCH builds"] > refused);
}

/// Neither has to be asked again, and neither takes the other's build for somebody's edit.
#[test]
fn an_upgrade_waits_for_that_of_another_environment_which_has_its_workload() {
    let town = Town::new();
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    for environment in [ENVIRONMENT, "copy"] {
        let object = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment", "metadata": {"name": environment},
            "spec": {"components": [{
                "name": "web", "build": "1",
                "source": {"images": {"repository": "r.example/web", "digests": {"1": digest("1"), "2": digest("2")}}},
                "statefulSet": {"namespace": NAMESPACE, "name": "web", "replicas": 1},
            }]},
        });
        town.apply(&object.to_string());
    }
    let _controller = town.controller();
    let build = json!({
        "apiVersion": "stagegate.dev/v1alpha1", "kind": "Build", "metadata": {"name": "web-2"},
        "spec": {"component": "web", "version": "2", "digest": digest("2"), "locked": []},
    });
    town.apply(&build.to_string());
    town.upgrade("first", "2");
    // It is begun, and held for its set, which is not there.
    town.wait("upg/first", "jsonpath={.status.phase}=Paused");
    town.upgrade_of("copy", "second", "2");
    town.wait("upg/second", "jsonpath={.status.reason}=WaitsForWorkload");
    let message = town.get("upg/second")["status"]["message"].to_string();
    let said = format!("upgrade first of Environment {ENVIRONMENT} has StatefulSet {NAMESPACE}/web");
    assert!(message.contains(&said), "{message}");
    let why = plugin(&town, &["why", "copy"]).expect_code(0);
    assert!(why.out.contains(&said), "{why:?}");
    wish(&town, "first", "abort");
    town.wait("upg/first", "jsonpath={.status.phase}=Aborted");
    // It goes on by itself, as far as that goes.
    town.wait("upg/second", "jsonpath={.status.phase}=Paused");
}

/// In an emergency people change an image by hand; that nothing was left so is told, and nothing of it is undone.
#[test]
fn what_somebody_has_put_on_pods_past_us_is_told_and_left() {
    let town = Town::new();
    let image = |digit: &str| format!("r.example/web@sha256:{}", digit.repeat(64));
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {
            "serviceName": "web", "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": image("1")}]},
            },
        },
    });
    town.apply(&set.to_string());
    // A change of it brings it up, and after that its pods are looked at.
    let state = |rate: u32| {
        let digests = json!({"1": &image("1")[14..], "2": &image("2")[14..]});
        let environment = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment", "metadata": {"name": ENVIRONMENT},
            "spec": {"components": [{
                "name": "web", "build": "1", "ports": {"http": rate},
                "source": {"images": {"repository": "r.example/web", "digests": digests}},
                "statefulSet": {"namespace": NAMESPACE, "name": "web", "replicas": 1},
            }]},
        });
        town.apply(&environment.to_string());
    };
    state(1);
    let _controller = town.controller();
    let environment = format!("env/{ENVIRONMENT}");
    town.wait(&environment, "condition=Synced");
    assert!(!has_event(&town, "Environment", ENVIRONMENT, "OutOfSync"));

    let put = |image: &str| town.kubectl(&["set", "image", "statefulset/web", &format!("app={image}")], "");
    put(&image("2"));
    state(2);
    town.wait(&environment, "condition=Synced=false");
    until_event(&town, "Environment", ENVIRONMENT, "OutOfSync");
    let conditions = town.get(&environment)["status"]["conditions"].clone();
    let mut all = conditions.as_array().cloned().unwrap_or_default().into_iter();
    let synced = all.find(|c| c["type"] == "Synced").unwrap_or_default();
    let told = synced["message"].as_str().unwrap_or_default();
    assert!(
        told.contains("web-0 runs web-2, and not web-1,")
            && told.contains(&format!(
                "`kubectl stagegate -n {NAMESPACE} upgrade {ENVIRONMENT} --build web=1` goes back"
            )),
        "{synced:#}"
    );
    let now = town.get("statefulset/web");
    assert_eq!(
        now["spec"]["template"]["spec"]["containers"][0]["image"],
        image("2"),
        "it is left"
    );
    let shown = plugin(&town, &["status", ENVIRONMENT]).expect_code(0);
    assert!(shown.out.contains("web-0 runs web-2"), "{shown:?}");

    put(&image("1"));
    state(3);
    town.wait(&environment, "condition=Synced");
}

//! Upgrades of a `StatefulSet` whose pods run on real nodes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::lab::Lab;
use crate::trivial::{Running, Said};

const REPOSITORY: &str = "lab.local/app";
const REPLICAS: usize = 3;

/// A workspace, a state, and a set on version 1 in a cluster.
struct Shop {
    lab: Lab,
    directory: tempfile::TempDir,
    /// Of all versions, as an environment states them.
    digests: String,
}

impl Shop {
    fn open() -> Self {
        let lab = Lab::with_nodes(1);
        let mut digests = Vec::new();
        let mut first = String::new();
        for (version, otherwise) in [
            ("1", None),
            ("2", None),
            ("3", None),
            ("slow", Some(("APP_DELAY", "3s"))),
            ("after", Some(("APP_AFTER", "3s"))),
            ("broken", Some(("APP_CRASH", "no such database"))),
        ] {
            let variables: Vec<_> = [("APP_VERSION", version)].into_iter().chain(otherwise).collect();
            let digest = lab.image(REPOSITORY, &variables);
            digests.push(format!("\"{version}\": \"{digest}\""));
            if version == "1" {
                first = format!("{REPOSITORY}@{digest}");
            }
        }
        // One that no registry has.
        digests.push(format!("lost: \"sha256:{}\"", "0".repeat(64)));
        let set = include_str!("pods/set.yaml")
            .replace("IMAGE", &first)
            .replace("REPLICAS", &REPLICAS.to_string());
        let applied = lab.kubectl(&["apply", "-f", "-"], &set);
        assert!(applied.done, "{applied:#?}");
        let rolled = lab.kubectl(&["rollout", "status", "statefulset/web", "--timeout=120s"], "");
        assert!(rolled.done, "{rolled:#?}");
        let directory = tempfile::tempdir().expect("a directory");
        let shop = Self {
            lab,
            directory,
            digests: digests.join(", "),
        };
        shop.environment("1s");
        let said = shop.stagegate(&["up", "shop"]);
        assert_eq!(said.code, Some(0), "{said:#?}");
        shop
    }

    /// Writes its environment, whose upgrades are watched for so long in the end.
    fn environment(&self, soak: &str) {
        let environment = include_str!("pods/environment.yaml")
            .replace("REPOSITORY", REPOSITORY)
            .replace("REPLICAS", &REPLICAS.to_string())
            .replace("DIGESTS", &self.digests)
            .replace("SOAK", soak);
        let place = self.directory.path().join("workspace/environments");
        std::fs::create_dir_all(&place).expect("made");
        std::fs::write(place.join("shop.yaml"), environment).expect("written");
    }

    /// Watched for a minute, with little patience.
    fn quick_environment(&self) {
        self.environment("60s");
        let place = self.directory.path().join("workspace/environments/shop.yaml");
        let environment = std::fs::read_to_string(&place).expect("written");
        let quick = environment.replace("patience: 1m", "patience: 10s");
        assert_ne!(quick, environment);
        std::fs::write(&place, quick).expect("written");
    }

    fn begin(&self, arguments: &[&str]) -> Running {
        let command = self.lab.command(Path::new(env!("CARGO_BIN_EXE_stagegate")));
        Running::at(command, self.directory.path(), arguments)
    }

    fn stagegate(&self, arguments: &[&str]) -> Said {
        self.begin(arguments).end()
    }

    fn upgrade(&self, version: &str) -> Said {
        self.stagegate(&["upgrade", "shop", "--build", &format!("web={version}"), "-o", "json"])
    }

    /// The pods by name: their images' digests, and who they are.
    fn pods(&self) -> BTreeMap<String, (String, String)> {
        let list = self.lab.get(&["pods"]);
        let pods = list["items"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        pods.map(|pod| {
            let image = text(&pod["spec"]["containers"][0]["image"]);
            (text(&pod["metadata"]["name"]), (image, text(&pod["metadata"]["uid"])))
        })
        .collect()
    }

    fn addresses(&self) -> Vec<String> {
        let list = self.lab.get(&["pods"]);
        let pods = list["items"].as_array().expect("a list").iter();
        pods.map(|pod| pod["status"]["podIP"].as_str().expect("it runs").to_owned())
            .collect()
    }

    fn set(&self) -> Value {
        self.lab.get(&["statefulset", "web"])
    }

    /// What is remembered of the set there.
    fn record(&self) -> Value {
        let record = self.set()["metadata"]["annotations"]["stagegate.dev/rolling"].take();
        serde_json::from_str(record.as_str().unwrap_or("{}")).expect("JSON")
    }

    fn scale(&self, replicas: usize) {
        let replicas = format!("--replicas={replicas}");
        let scaled = self.lab.kubectl(&["scale", "statefulset/web", &replicas], "");
        assert!(scaled.done, "{scaled:#?}");
    }

    /// An upgrade is held for this before it has begun, and ended.
    fn refuses(&self, version: &str, words: &str) {
        let held = self.upgrade(version);
        assert!(
            held.code == Some(5) && held.out.contains("PreflightFailed"),
            "{held:#?}"
        );
        assert!(held.out.contains(words), "{held:#?}");
        let aborted = self.stagegate(&["abort", "shop"]);
        assert!(aborted.err.contains("no node had changed"), "{aborted:#?}");
    }

    /// After an upgrade the set is as its owner has it, and nothing of ours is left but who may write.
    fn is_its_owners(&self) {
        let set = self.set();
        let strategy = &set["spec"]["updateStrategy"];
        assert_eq!(
            (&strategy["type"], &strategy["rollingUpdate"]["partition"]),
            (&"RollingUpdate".into(), &0.into()),
            "{set:#}"
        );
        let record = self.record();
        assert!(
            record["taken"].is_null() && record["pods"].as_object().is_none_or(serde_json::Map::is_empty),
            "{record:#}"
        );
        self.lab.until("the set is settled", |_| {
            let status = self.set()["status"].take();
            status["currentRevision"] == status["updateRevision"] && status["readyReplicas"] == REPLICAS
        });
    }
}

/// The same, for what is in the way of a way back, and of what is given back after it.
#[test]
fn what_stands_in_the_way_back_of_a_set_is_said_and_neither_fought_nor_mistaken() {
    let shop = Shop::open();
    a_set_that_an_upgrade_of_another_environment_has_is_left_to_that(&shop);
    a_brake_that_is_put_on_a_set_before_it_was_given_back_stays(&shop);
    a_way_back_that_an_api_server_refuses_is_held_and_leaves_nobody_behind(&shop);
    a_way_back_whose_image_cannot_be_fetched_is_held_and_goes_on_with_it(&shop);
    a_set_that_is_deleted_in_mid_upgrade_is_no_builds_fault_and_an_abort_ends_it(&shop);
    a_revision_that_is_gone_is_made_up_for_by_its_image(&shop);
    a_set_that_forgets_its_upgrade_is_not_taken_by_the_way_back(&shop);
}

/// What nobody needs.
const TRIED: [&str; 4] = [
    "annotate",
    "statefulset/web",
    "stagegate.dev/tried=so",
    "--dry-run=server",
];

/// What an API server refuses to everybody.
#[derive(Debug, Clone, Copy)]
enum Refuses {
    /// Any write of a set.
    Writes,
    /// That one which an upgrade has is given back.
    GivingBack,
}

impl Shop {
    fn done(&self, arguments: &[&str], input: &str) {
        let left = self.lab.kubectl(arguments, input);
        assert!(left.done, "{left:#?}");
    }

    fn patch(&self, patch: &str) {
        self.done(&["patch", "statefulset", "web", "-p", patch], "");
    }

    /// Until it is told otherwise.
    fn api_server_refuses(&self, what: Refuses) {
        let expression = match what {
            Refuses::Writes => "false",
            Refuses::GivingBack => "variables.is || !variables.was",
        };
        let policy = include_str!("pods/refusal.yaml").replace("EXPRESSION", expression);
        self.done(&["apply", "-f", "-"], &policy);
        self.lab.until("it refuses", |lab| !lab.kubectl(&TRIED, "").done);
    }

    fn api_server_refuses_nothing(&self) {
        self.done(&["delete", "-f", "-"], include_str!("pods/refusal.yaml"));
        self.lab.until("it refuses no more", |lab| lab.kubectl(&TRIED, "").done);
    }

    fn until_soak(&self) {
        self.lab.until("all pods are on it, and watched", |_| {
            let status = self.stagegate(&["status", "shop", "-o", "json"]);
            status.out.contains(r#""phase": "Soak""#)
        });
    }

    /// Every pod is slow from now on.
    fn slow(&self) {
        for address in self.addresses() {
            let url = format!("http://{address}:8080/slow");
            let mut curl = self.lab.command(Path::new("curl"));
            let asked = curl.args(["-sS", "--max-time", "5", &url]).status();
            assert!(asked.expect("curl runs").success(), "{url}");
        }
    }
}

fn images(pods: &BTreeMap<String, (String, String)>) -> Vec<&str> {
    pods.values().map(|(image, _)| image.as_str()).collect()
}

/// One lab for all of it: it takes half a minute to come up.
#[test]
fn a_set_is_upgraded_from_the_top_and_a_bad_build_goes_back() {
    let shop = Shop::open();
    a_good_build_goes_on_every_pod_once(&shop);
    a_build_that_answers_late_goes_back_from_its_first_pod(&shop);
    what_a_container_prints_alone_fails_a_build(&shop);
    a_build_that_does_not_start_is_told_in_its_own_words(&shop);
    a_build_that_turns_bad_on_every_pod_goes_back_from_all(&shop);
    a_killed_driver_is_followed_and_no_pod_is_made_anew_twice(&shop);
    what_somebody_else_changes_is_held_and_gone_over_by_an_abort(&shop);
    a_container_that_is_renamed_is_held_and_gone_over_by_an_abort(&shop);
    what_nobody_could_go_back_to_is_told_at_once(&shop);
    pods_that_came_with_the_build_under_test_are_brought_back_with_the_others(&shop);
    what_could_not_be_given_back_is_refused_before_anything_is_changed(&shop);
    images_that_a_cluster_rewrites_are_refused_before_anything_is_changed(&shop);
    let ready = shop
        .lab
        .kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"], "");
    assert!(ready.done, "{ready:#?}");
}

/// From 1 to 2.
fn a_good_build_goes_on_every_pod_once(shop: &Shop) {
    let before = shop.pods();
    assert_eq!(before.len(), REPLICAS);
    let said = shop.upgrade("2");
    assert_eq!(said.code, Some(0), "{said:#?}");
    let after = shop.pods();
    for (name, (image, uid)) in &after {
        assert!(before[name].0 != *image && before[name].1 != *uid, "{name}");
    }
    let status = said.json()["status"].take();
    assert_eq!(status["phase"], "Succeeded", "{status:#}");
    for node in status["nodes"].as_array().expect("a list") {
        assert_eq!(node["restarts"], 1, "{node:#}");
    }
    shop.is_its_owners();
}

/// On 2.
fn a_build_that_answers_late_goes_back_from_its_first_pod(shop: &Shop) {
    let before = shop.pods();
    let said = shop.upgrade("slow");
    assert_eq!(said.code, Some(3), "{said:#?}");
    let after = shop.pods();
    assert_eq!(images(&after), images(&before));
    for (name, changed) in [("web-0", false), ("web-1", false), ("web-2", true)] {
        assert_eq!(after[name].1 != before[name].1, changed, "{name}");
    }
    assert_eq!(
        shop.set()["spec"]["template"]["spec"]["containers"][0]["image"],
        images(&before)[0]
    );
    shop.is_its_owners();
}

/// On 2: it answers at once, and works on.
fn what_a_container_prints_alone_fails_a_build(shop: &Shop) {
    let before = shop.pods();
    let said = shop.upgrade("after");
    assert_eq!(said.code, Some(3), "{said:#?}");
    assert!(
        said.err.contains("works failed on web-2") && !said.err.contains("work failed"),
        "{said:#?}"
    );
    assert_eq!(images(&shop.pods()), images(&before));
    shop.is_its_owners();
}

/// On 2.
fn a_build_that_does_not_start_is_told_in_its_own_words(shop: &Shop) {
    let before = shop.pods();
    // Nobody knows what the registry of `lost` has: it cannot be found.
    for (version, words, reason, quarantines) in [
        ("broken", "no such database", "Cured", 1),
        ("lost", "failed to pull", "ImagePull", 0),
    ] {
        let said = shop.upgrade(version);
        assert_eq!(said.code, Some(3), "{said:#?}");
        assert!(said.out.contains(words), "{said:#?}");
        assert_eq!(said.json()["status"]["reason"], reason, "{said:#?}");
        let build = shop.stagegate(&["build", "show", &format!("web-{version}"), "-o", "json"]);
        let held = build.json()["status"]["quarantines"].as_array().map_or(0, Vec::len);
        assert_eq!(held, quarantines, "{build:#?}");
        assert_eq!(images(&shop.pods()), images(&before), "{version}");
        shop.is_its_owners();
    }
}

/// On 2: once all are on it, the set counts the new revision as its current one.
fn a_build_that_turns_bad_on_every_pod_goes_back_from_all(shop: &Shop) {
    let before = shop.pods();
    shop.environment("30s");
    let running = shop.begin(&["upgrade", "shop", "--build", "web=3", "-o", "json"]);
    shop.until_soak();
    shop.slow();
    let said = running.end();
    assert_eq!(said.code, Some(3), "{said:#?}");
    let after = shop.pods();
    assert_eq!(images(&after), images(&before));
    assert!(
        after.iter().all(|(name, (_, uid))| before[name].1 != *uid),
        "{after:#?}"
    );
    shop.is_its_owners();
    shop.environment("1s");
}

/// From 2 to 1.
fn a_killed_driver_is_followed_and_no_pod_is_made_anew_twice(shop: &Shop) {
    let running = shop.begin(&["upgrade", "shop", "--build", "web=1"]);
    shop.lab.until("the second pod is to make way", |_| {
        let steps = shop.record()["pods"]["1"]["steps"].take();
        steps
            .as_array()
            .is_some_and(|steps| steps.iter().any(|step| step["replaces"].is_object()))
    });
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    let then = shop.pods();
    let said = shop.upgrade("1");
    assert_eq!(said.code, Some(0), "{said:#?}");
    let status = said.json()["status"].take();
    for node in status["nodes"].as_array().expect("a list") {
        assert_eq!(node["restarts"], 1, "{node:#}");
    }
    assert_eq!(shop.pods()["web-2"], then["web-2"]);
    shop.is_its_owners();
}

/// From 1 to 2, and back.
fn what_somebody_else_changes_is_held_and_gone_over_by_an_abort(shop: &Shop) {
    let before = shop.pods();
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.lab.until("the first pod runs it", |_| {
        let pods = shop.pods();
        pods.get("web-2").is_some_and(|pod| pod.0 != before["web-2"].0)
    });
    let edited = shop.lab.kubectl(&["set", "env", "statefulset/web", "HAND=made"], "");
    assert!(edited.done, "{edited:#?}");
    let held = running.end();
    assert!(held.code == Some(5) && held.out.contains("ForeignEdit"), "{held:#?}");
    assert!(held.out.contains("kubectl-set (at "), "{held:#?}");
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert!(aborted.err.contains("goes over it"), "{aborted:#?}");
    assert_eq!(images(&shop.pods()), images(&before));
    let set = shop.set();
    assert!(!set["spec"]["template"].to_string().contains("HAND"), "{set:#}");
    shop.is_its_owners();
}

/// From 1 to 2, and back.
fn a_container_that_is_renamed_is_held_and_gone_over_by_an_abort(shop: &Shop) {
    let before = shop.pods();
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.lab.until("the first pod runs it", |_| {
        let pods = shop.pods();
        pods.get("web-2").is_some_and(|pod| pod.0 != before["web-2"].0)
    });
    let renamed = r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "other"}]"#;
    let edited = shop
        .lab
        .kubectl(&["patch", "statefulset/web", "--type=json", "-p", renamed], "");
    assert!(edited.done, "{edited:#?}");
    let held = running.end();
    assert!(
        held.code == Some(5) && held.out.contains("has no container web"),
        "{held:#?}"
    );
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert!(aborted.err.contains("goes over it"), "{aborted:#?}");
    assert_eq!(images(&shop.pods()), images(&before));
    shop.is_its_owners();
}

/// From 1 to 2, and back.
fn pods_that_came_with_the_build_under_test_are_brought_back_with_the_others(shop: &Shop) {
    let before = shop.pods();
    let old = before_image(&before);
    let is_new = |name: &str| shop.pods().get(name).is_some_and(|pod| pod.0 != old);
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.lab.until("the first pod runs it", |_| is_new("web-2"));
    shop.scale(5);
    let held = running.end();
    assert!(
        held.code == Some(5) && held.out.contains("it has 5 replicas"),
        "{held:#?}"
    );
    shop.lab.until("there are more pods of it", |_| is_new("web-4"));
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert!(
        aborted.err.contains("it has 5 replicas (pod 3, pod 4 came with image"),
        "{aborted:#?}"
    );
    let after = shop.pods();
    // The highest may be about to come again.
    assert!(
        after.len() > REPLICAS && images(&after).iter().all(|image| *image == old),
        "{after:#?}"
    );
    shop.scale(REPLICAS);
    shop.lab.until("they are gone", |_| shop.pods().len() == REPLICAS);
    assert_eq!(images(&shop.pods()), images(&before));
    shop.is_its_owners();
}

/// On 1, and then on what no environment states.
fn what_nobody_could_go_back_to_is_told_at_once(shop: &Shop) {
    let before = shop.pods();
    shop.environment("1s");
    let place = shop.directory.path().join("workspace/environments/shop.yaml");
    let environment = std::fs::read_to_string(&place).expect("written");
    let one = images(&before)[0].split_once('@').expect("a digest").1;
    let stated = format!("\"1\": \"{one}\", ");
    assert!(environment.contains(&stated), "{environment}");
    let otherwise = environment.replace(&stated, "").replace("build: \"1\"", "build: \"2\"");
    std::fs::write(&place, otherwise).expect("written");
    let said = shop.upgrade("2");
    let words = format!("it is made with image {}", images(&before)[0]);
    assert_eq!(said.code, Some(5), "{said:#?}");
    assert!(
        said.out.contains("PreflightFailed") && said.out.contains(&words),
        "{said:#?}"
    );
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert_eq!(aborted.code, Some(0), "{aborted:#?}");
    assert_eq!(shop.pods(), before);
    let up = shop.stagegate(&["up", "shop"]);
    assert!(up.code == Some(1) && up.err.contains(&words), "{up:#?}");
    shop.environment("1s");
}

fn before_image(before: &BTreeMap<String, (String, String)>) -> &str {
    images(before)[0]
}

/// On 1.
fn what_could_not_be_given_back_is_refused_before_anything_is_changed(shop: &Shop) {
    let before = shop.pods();
    let partition =
        |at: u32| format!(r#"{{"spec": {{"updateStrategy": {{"rollingUpdate": {{"partition": {at}}}}}}}}}"#);
    let patched = shop
        .lab
        .kubectl(&["patch", "statefulset", "web", "-p", &partition(2)], "");
    assert!(patched.done, "{patched:#?}");
    shop.refuses("2", "its updateStrategy has partition 2");
    let patched = shop
        .lab
        .kubectl(&["patch", "statefulset", "web", "-p", &partition(0)], "");
    assert!(patched.done, "{patched:#?}");
    assert_eq!(shop.pods(), before);
    shop.is_its_owners();
}

/// On 1: as a webhook leaves it that puts a mirror's name there.
fn images_that_a_cluster_rewrites_are_refused_before_anything_is_changed(shop: &Shop) {
    let before = shop.pods();
    let rewritten = before_image(&before).replace(REPOSITORY, "mirror.local/app");
    let set = shop
        .lab
        .kubectl(&["set", "image", "pod/web-1", &format!("web={rewritten}")], "");
    assert!(set.done, "{set:#?}");
    shop.refuses("2", "something in the cluster rewrites the images of pods");
    let template = shop.set()["spec"]["template"]["spec"]["containers"][0]["image"].take();
    assert_eq!(template, before_image(&before));
    let deleted = shop.lab.kubectl(&["delete", "pod", "web-1"], "");
    assert!(deleted.done, "{deleted:#?}");
    shop.is_its_owners();
}

/// From 1 to 2 and back, first of all: by their counters the other environment may write.
fn a_set_that_an_upgrade_of_another_environment_has_is_left_to_that(shop: &Shop) {
    let before = shop.pods();
    let place = shop.directory.path().join("workspace/environments");
    let other = std::fs::read_to_string(place.join("shop.yaml")).expect("written");
    let named = other.replace("{name: shop}", "{name: market}");
    assert_ne!(named, other);
    std::fs::write(place.join("market.yaml"), named).expect("written");
    for _ in 0..3 {
        let up = shop.stagegate(&["up", "market"]);
        assert_eq!(up.code, Some(0), "{up:#?}");
    }
    shop.environment("5m");
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.until_soak();
    let (taken, then) = (shop.record()["taken"].take(), shop.pods());
    let refused = shop.stagegate(&["upgrade", "market", "--build", "web=3", "-o", "json"]);
    let by = taken["by"].as_str().expect("it is taken");
    let words = format!("upgrade {by} has it, and has not given it back yet");
    assert!(refused.code == Some(5) && refused.out.contains(&words), "{refused:#?}");
    assert_eq!((shop.record()["taken"].take(), shop.pods()), (taken, then));
    let ended = shop.stagegate(&["abort", "market"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    shop.stagegate(&["abort", "shop"]);
    let aborted = running.end();
    assert_eq!(images(&shop.pods()), images(&before), "{aborted:#?}");
    shop.is_its_owners();
    std::fs::remove_file(place.join("market.yaml")).expect("ours");
    shop.environment("1s");
}

/// From 1 to 2 and back to it; its driver is killed when the upgrade has ended and the set is still its.
fn a_brake_that_is_put_on_a_set_before_it_was_given_back_stays(shop: &Shop) {
    let partition = r#"{"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}}"#;
    let on_delete = r#"{"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}"#;
    let as_before = r#"{"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}}"#;
    for (version, brake) in [("2", partition), ("1", on_delete)] {
        let before = shop.pods();
        shop.api_server_refuses(Refuses::GivingBack);
        let running = shop.begin(&["upgrade", "shop", "--build", &format!("web={version}")]);
        shop.lab.until("it is kept", |_| {
            let said = shop.stagegate(&["get", "upgrade", "-o", "json"]).json()["items"].take();
            let last = said.as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
            let why = last["status"]["kept"]["why"].as_str().unwrap_or_default();
            why.contains("not now")
        });
        running.signal(rustix::process::Signal::KILL);
        drop(running);
        assert!(shop.record()["taken"].is_object());
        shop.patch(brake);
        let braked = shop.set()["spec"].take();
        shop.api_server_refuses_nothing();
        let resumed = shop.stagegate(&["resume", "shop"]);
        assert_eq!(resumed.code, Some(0), "{resumed:#?}");
        assert!(shop.record()["taken"].is_null());
        assert_eq!(shop.set()["spec"], braked);
        assert!(images(&shop.pods()).iter().all(|image| *image != before_image(&before)));
        shop.patch(as_before);
        shop.is_its_owners();
    }
}

/// From 1 to 3, and back.
fn a_way_back_that_an_api_server_refuses_is_held_and_leaves_nobody_behind(shop: &Shop) {
    let before = shop.pods();
    shop.quick_environment();
    let running = shop.begin(&["upgrade", "shop", "--build", "web=3", "-o", "json"]);
    shop.until_soak();
    let then = shop.pods();
    shop.api_server_refuses(Refuses::Writes);
    shop.slow();
    let held = running.end();
    assert!(
        held.code == Some(5) && held.out.contains("NobodyReached") && held.out.contains("not now"),
        "{held:#?}"
    );
    assert!(!held.out.contains("OutOfService"), "{held:#?}");
    assert_eq!(shop.pods(), then);
    shop.api_server_refuses_nothing();
    let resumed = shop.stagegate(&["resume", "shop", "-o", "json"]);
    assert_eq!(resumed.code, Some(3), "{resumed:#?}");
    let status = resumed.json()["status"].take();
    assert_eq!(status["phase"], "RolledBack", "{status:#}");
    assert_eq!(images(&shop.pods()), images(&before));
    shop.is_its_owners();
    shop.environment("1s");
}

/// From 1 to 2, and back: no machine has the image from before any more, and its registry cannot be found.
fn a_way_back_whose_image_cannot_be_fetched_is_held_and_goes_on_with_it(shop: &Shop) {
    let before = shop.pods();
    shop.quick_environment();
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.until_soak();
    shop.lab.forget_image(before_image(&before));
    let aborting = shop.stagegate(&["abort", "shop"]);
    assert!(aborting.err.contains("takes it back now"), "{aborting:#?}");
    let held = running.end();
    assert!(
        held.code == Some(5) && held.out.contains("ImagePull") && held.out.contains("could not be fetched"),
        "{held:#?}"
    );
    assert!(!held.out.contains("OutOfService"), "{held:#?}");
    let then = shop.pods();
    let again = shop.lab.image(REPOSITORY, &[("APP_VERSION", "1")]);
    assert_eq!(format!("{REPOSITORY}@{again}"), before_image(&before));
    // By itself: nobody drives it meanwhile.
    shop.lab.until("its machine has tried again", |lab| {
        lab.kubectl(&["wait", "--for=condition=Ready", "pod/web-2", "--timeout=1s"], "")
            .done
    });
    let aborted = shop.stagegate(&["abort", "shop", "-o", "json"]);
    let status = aborted.json()["status"].take();
    assert_eq!(status["phase"], "Aborted", "{aborted:#?}");
    for node in status["nodes"].as_array().expect("a list") {
        assert!(node["trouble"].is_null() && node["rollbackRestarts"] == 1, "{node:#}");
    }
    // The pod that waited is the one that came up.
    let after = shop.pods();
    assert_eq!(images(&after), images(&before));
    assert!(after.values().any(|pod| then.values().any(|other| other == pod)));
    shop.is_its_owners();
    shop.environment("1s");
}

/// From 1 to 2; its pods stay, so that nobody misses them, and whoever deploys it makes it anew on 1 after that.
fn a_set_that_is_deleted_in_mid_upgrade_is_no_builds_fault_and_an_abort_ends_it(shop: &Shop) {
    let before = shop.pods();
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.lab.until("the first pod runs it", |_| {
        let pods = shop.pods();
        pods.get("web-2").is_some_and(|pod| pod.0 != before["web-2"].0)
    });
    shop.done(&["delete", "statefulset", "web", "--cascade=orphan"], "");
    let held = running.end();
    assert!(held.code == Some(5) && held.out.contains("ForeignEdit"), "{held:#?}");
    assert!(held.out.contains("it was deleted since the upgrade began"), "{held:#?}");
    let aborted = shop.stagegate(&["abort", "shop", "-o", "json"]);
    let status = aborted.json()["status"].take();
    assert_eq!(status["phase"], "Aborted", "{aborted:#?}");
    assert!(status["kept"].is_null(), "{status:#}");
    let troubles: Vec<&str> = status["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|node| node["trouble"].as_str())
        .collect();
    assert!(
        !troubles.is_empty()
            && troubles
                .iter()
                .all(|why| why.contains("it was deleted") && why.contains("by hand")),
        "{status:#}"
    );
    let set = include_str!("pods/set.yaml")
        .replace("IMAGE", before_image(&before))
        .replace("REPLICAS", &REPLICAS.to_string());
    shop.done(&["apply", "-f", "-"], &set);
    shop.done(&["rollout", "status", "statefulset/web", "--timeout=120s"], "");
    assert_eq!(images(&shop.pods()), images(&before));
}

/// From 1 to 2, and back.
fn a_revision_that_is_gone_is_made_up_for_by_its_image(shop: &Shop) {
    let before = shop.pods();
    shop.environment("5m");
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2"]);
    shop.until_soak();
    let list = shop.lab.get(&["controllerrevisions"]);
    let mut revisions = list["items"].as_array().expect("a list").iter();
    let image = |revision: &Value| revision["data"]["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let first = revisions.find(|revision| image(revision) == before_image(&before));
    let first = first.expect("it is kept")["metadata"]["name"].as_str().expect("a name");
    shop.done(&["delete", "controllerrevision", first], "");
    let aborting = shop.stagegate(&["abort", "shop"]);
    assert!(aborting.err.contains("takes it back now"), "{aborting:#?}");
    let aborted = running.end();
    assert_eq!(images(&shop.pods()), images(&before), "{aborted:#?}");
    shop.is_its_owners();
    shop.environment("1s");
}

/// From 1 to 2, whose build is to blame for nothing of the above, and there it stays: what was there before is remembered nowhere.
fn a_set_that_forgets_its_upgrade_is_not_taken_by_the_way_back(shop: &Shop) {
    let old = before_image(&shop.pods()).to_owned();
    shop.environment("5m");
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.until_soak();
    // What it has seen last is of before.
    running.signal(rustix::process::Signal::STOP);
    let forgotten = shop
        .lab
        .kubectl(&["annotate", "statefulset/web", "stagegate.dev/rolling-"], "");
    assert!(forgotten.done, "{forgotten:#?}");
    let template = shop.set()["spec"].take();
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert!(aborted.err.contains("takes it back now"), "{aborted:#?}");
    running.signal(rustix::process::Signal::CONT);
    let said = running.end();
    let status = said.json()["status"].take();
    assert_eq!(
        (&status["phase"], &status["quarantined"]),
        (&"Aborted".into(), &Value::Null),
        "{said:#?}"
    );
    for node in status["nodes"].as_array().expect("a list") {
        let trouble = node["trouble"].as_str().unwrap_or_default();
        assert!(
            trouble.contains("annotation stagegate.dev/rolling was taken out") && trouble.contains("by hand"),
            "{node:#}"
        );
    }
    assert!(images(&shop.pods()).iter().all(|image| *image != old));
    assert_eq!(shop.set()["spec"], template);
    shop.is_its_owners();
    shop.environment("1s");
}

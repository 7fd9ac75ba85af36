//! Upgrades of a Deployment, by a canary first, whose pods run on real nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::lab::Lab;
use crate::trivial::{Running, Said};

const REPOSITORY: &str = "lab.local/app";
const REPLICAS: usize = 2;
/// What its owner has said of it beside the image; an upgrade leaves it so.
const OWN: [&str; 6] = [
    "replicas",
    "strategy",
    "selector",
    "paused",
    "revisionHistoryLimit",
    "minReadySeconds",
];

/// A workspace, a state, and a Deployment on version 1 in a cluster.
struct Shop {
    lab: Lab,
    directory: tempfile::TempDir,
    /// Of all versions: their digests.
    digests: BTreeMap<&'static str, String>,
    /// The Deployment as its owner has applied it.
    first: Value,
}

impl Shop {
    fn open() -> Self {
        let lab = Lab::with_nodes(1);
        let versions = [
            ("1", None),
            ("2", None),
            ("3", None),
            ("4", None),
            ("slow", Some(("APP_DELAY", "3s"))),
            ("broken", Some(("APP_CRASH", "no such database"))),
        ];
        let digests = versions.map(|(version, otherwise)| {
            let variables: Vec<_> = [("APP_VERSION", version)].into_iter().chain(otherwise).collect();
            (version, lab.image(REPOSITORY, &variables).to_string())
        });
        let directory = tempfile::tempdir().expect("a directory");
        let mut shop = Self {
            lab,
            directory,
            digests: digests.into(),
            first: Value::Null,
        };
        shop.apply("1");
        shop.first = shop.main();
        shop.environment("1s");
        let said = shop.stagegate(&["up", "shop"]);
        assert_eq!(said.code, Some(0), "{said:#?}");
        shop
    }

    fn image(&self, version: &str) -> String {
        format!("{REPOSITORY}@{}", self.digests[version])
    }

    fn done(&self, arguments: &[&str], input: &str) {
        let left = self.lab.kubectl(arguments, input);
        assert!(left.done, "{left:#?}");
    }

    /// Writes its environment, whose upgrades are watched for so long in the end.
    fn environment(&self, soak: &str) {
        self.write_environment(soak, &self.digests);
    }

    fn write_environment(&self, soak: &str, digests: &BTreeMap<&'static str, String>) {
        let is_first_stated = digests.contains_key("1");
        let digests: Vec<String> = digests
            .iter()
            .map(|(v, digest)| format!("\"{v}\": \"{digest}\""))
            .collect();
        let environment = include_str!("deployments/environment.yaml")
            .replace("REPOSITORY", REPOSITORY)
            .replace("DIGESTS", &digests.join(", "))
            // That of the beginning, or, where that is not stated, another.
            .replace("BUILD", if is_first_stated { "1" } else { "2" })
            .replace("SOAK", soak);
        let place = self.directory.path().join("workspace/environments");
        std::fs::create_dir_all(&place).expect("made");
        std::fs::write(place.join("shop.yaml"), environment).expect("written");
    }

    /// As its owner does, on this version.
    fn apply(&self, version: &str) {
        let deployment = include_str!("deployments/deployment.yaml")
            .replace("IMAGE", &self.image(version))
            .replace("REPLICAS", &REPLICAS.to_string());
        self.done(&["apply", "-f", "-"], &deployment);
        self.done(&["rollout", "status", "deployment/web", "--timeout=120s"], "");
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

    fn main(&self) -> Value {
        self.lab.get(&["deployment", "web"])
    }

    /// The Deployments by name.
    fn deployments(&self) -> BTreeMap<String, Value> {
        let mut list = self.lab.get(&["deployments"]);
        let items = list["items"].as_array_mut().expect("a list");
        let named = |item: &mut Value| (text(&item["metadata"]["name"]), item.take());
        items.iter_mut().map(named).collect()
    }

    /// The pods that are not about to end: their images by name, those of the canary of a Deployment, or all others.
    fn pods(&self, canary_of: Option<&str>) -> BTreeMap<String, String> {
        let list = self.lab.get(&["pods"]);
        let pods = list["items"].as_array().expect("a list").iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter(|pod| pod["metadata"]["labels"]["stagegate.dev/canary-of"].as_str() == canary_of)
            .map(|pod| {
                (
                    text(&pod["metadata"]["name"]),
                    text(&pod["spec"]["containers"][0]["image"]),
                )
            })
            .collect()
    }

    fn own_pods(&self) -> BTreeMap<String, String> {
        self.pods(None)
    }

    /// What is remembered of it.
    fn record(&self) -> Value {
        let record = self.main()["metadata"]["annotations"]["stagegate.dev/rolling"].take();
        serde_json::from_str(record.as_str().unwrap_or("{}")).expect("JSON")
    }

    /// After an upgrade all of it is on this version and as its owner has it, there is no canary, and nothing of ours is left but
    /// who may write.
    fn is_its_owners_on(&self, version: &str) {
        let all = self.deployments();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["web"], "{all:#?}");
        let mut main = all["web"].clone();
        for key in OWN {
            assert_eq!(main["spec"][key], self.first["spec"][key], "{key}");
        }
        let mut template = main["spec"]["template"].take();
        assert_eq!(template["spec"]["containers"][0]["image"], self.image(version));
        template["spec"]["containers"][0]["image"] =
            self.first["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        assert_eq!(template, self.first["spec"]["template"]);
        let record = self.record();
        assert!(record["taken"].is_null() && record["fence"].is_object(), "{record:#}");
        let images: BTreeSet<String> = self.own_pods().into_values().collect();
        assert_eq!(images, BTreeSet::from([self.image(version)]));
        self.lab
            .until("the canary's pod is gone", |_| self.pods(Some("web")).is_empty());
    }

    /// Every pod that a Service finds is slow from now on.
    fn slow(&self) {
        let list = self.lab.get(&["pods", "-l", "app=web"]);
        for pod in list["items"].as_array().expect("a list") {
            let url = format!("http://{}:8080/slow", pod["status"]["podIP"].as_str().expect("it runs"));
            let mut curl = self.lab.command(Path::new("curl"));
            let asked = curl.args(["-sS", "--max-time", "5", &url]).status();
            assert!(asked.expect("curl runs").success(), "{url}");
        }
    }

    /// The revision of the Deployment that had this image.
    fn revision_of(&self, image: &str) -> String {
        let sets = self.lab.get(&["replicasets", "-l", "app=web"]);
        let mut sets = sets["items"].as_array().expect("a list").iter();
        let is_it = |set: &&Value| {
            set["metadata"]["ownerReferences"][0]["name"] == "web"
                && set["spec"]["template"]["spec"]["containers"][0]["image"] == image
        };
        let set = sets.find(is_it).unwrap_or_else(|| panic!("{image} has no revision"));
        text(&set["metadata"]["annotations"]["deployment.kubernetes.io/revision"])
    }

    fn until_phase(&self, phase: &str) {
        let phase = format!("\"phase\": \"{phase}\"");
        self.lab.until(&phase, |_| {
            let status = self.stagegate(&["status", "shop", "-o", "json"]);
            status.out.contains(&phase)
        });
    }
}

/// What an API server refuses to everybody.
#[derive(Debug, Clone, Copy)]
enum Refuses {
    Deletes,
    Writes,
}

impl Shop {
    /// Until it is told otherwise.
    fn api_server_refuses(&self, what: Refuses) {
        let (operation, tried): (_, &[&str]) = match what {
            Refuses::Deletes => ("DELETE", &["delete", "deployment/web"]),
            Refuses::Writes => ("UPDATE", &["label", "deployment/web", "tried=so", "--overwrite"]),
        };
        let policy = include_str!("deployments/refusal.yaml").replace("OPERATION", operation);
        self.done(&["apply", "-f", "-"], &policy);
        self.lab.until("it refuses", |lab| {
            let tried: Vec<&str> = tried.iter().copied().chain(["--dry-run=server"]).collect();
            !lab.kubectl(&tried, "").done
        });
    }

    fn api_server_refuses_nothing(&self) {
        let policy = include_str!("deployments/refusal.yaml");
        self.done(&["delete", "-f", "-"], policy);
        for tried in [
            &["delete", "deployment/web", "--dry-run=server"][..],
            &["label", "deployment/web", "tried=so", "--dry-run=server"],
        ] {
            self.lab.until("it refuses no more", |lab| lab.kubectl(tried, "").done);
        }
    }

    /// What is kept of it by its last upgrade.
    fn kept(&self) -> Value {
        let said = self.stagegate(&["get", "upgrade", "-o", "json"]);
        let upgrades = said.json()["items"].take();
        let last = upgrades.as_array().and_then(|all| all.last()).cloned();
        last.unwrap_or_default()["status"]["kept"].take()
    }

    /// How often its last upgrade has told this.
    fn told(&self, reason: &str) -> usize {
        let said = self.stagegate(&["events", "shop"]);
        said.out.lines().filter(|line| line.contains(reason)).count()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// One lab for all of it: it takes half a minute to come up.
#[test]
fn a_deployment_is_upgraded_by_a_canary_and_a_bad_build_goes_no_further() {
    let shop = Shop::open();
    what_cannot_be_upgraded_is_told_before_anything_is_made(&shop);
    a_good_build_goes_on_the_canary_and_then_on_all_pods(&shop);
    a_bad_build_stops_at_the_canary(&shop);
    a_build_that_turns_bad_late_goes_back_from_both(&shop);
    a_killed_driver_is_followed_and_no_step_is_done_twice(&shop);
    what_somebody_else_changes_is_held_and_gone_over_by_an_abort(&shop);
    what_kubectl_rollout_undo_puts_back_is_held_and_gone_over_by_an_abort(&shop);
    a_container_that_is_renamed_is_held_and_gone_over_by_an_abort(&shop);
    what_cannot_be_given_back_is_kept_and_told_until_it_can(&shop);
    a_server_gives_back_what_was_kept_by_itself(&shop);
    a_way_back_that_an_api_server_refuses_is_held_and_gives_nothing_up(&shop);
    one_that_is_made_anew_is_no_builds_fault_and_an_abort_ends_it(&shop);
}

/// On 1.
fn what_cannot_be_upgraded_is_told_before_anything_is_made(shop: &Shop) {
    shop.done(&["rollout", "pause", "deployment/web"], "");
    let said = shop.upgrade("2");
    assert!(said.code == Some(5) && said.out.contains("it is paused"), "{said:#?}");
    assert_eq!(shop.deployments().len(), 1);
    shop.done(&["rollout", "resume", "deployment/web"], "");
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert_eq!(aborted.code, Some(0), "{aborted:#?}");
    let mut without = shop.digests.clone();
    without.remove("1");
    shop.write_environment("1s", &without);
    let words = format!("it is made with image {}", shop.image("1"));
    let said = shop.upgrade("2");
    let is_told = said.out.contains("PreflightFailed") && said.out.contains(&words);
    assert!(said.code == Some(5) && is_told, "{said:#?}");
    assert_eq!(shop.deployments().len(), 1);
    let looked = shop.stagegate(&["status", "shop", "--look"]);
    assert!(looked.out.contains(&words), "{looked:#?}");
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert_eq!(aborted.code, Some(0), "{aborted:#?}");
    let up = shop.stagegate(&["up", "shop"]);
    assert!(up.code == Some(1) && up.err.contains(&words), "{up:#?}");
    shop.environment("1s");
}

/// From 1 to 2.
fn a_good_build_goes_on_the_canary_and_then_on_all_pods(shop: &Shop) {
    let before = shop.own_pods();
    let uid = text(&shop.main()["metadata"]["uid"]);
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    let (one, two) = (shop.image("1"), shop.image("2"));
    let only = |image: &str| shop.pods(Some("web")).into_values().collect::<Vec<_>>() == [image];
    shop.lab.until("the canary runs the old build", |_| only(&one));
    // It is found by the Service, and each of the two Deployments has its own pods all the same.
    let found = shop.lab.get(&["pods", "-l", "app=web"]);
    assert_eq!(found["items"].as_array().map(Vec::len), Some(REPLICAS + 1));
    let sets = shop.lab.get(&["replicasets"]);
    for set in sets["items"].as_array().expect("a list") {
        let is_canary = text(&set["metadata"]["name"]).starts_with("web-canary-");
        let owner = &set["metadata"]["ownerReferences"][0];
        assert_eq!(owner["name"], if is_canary { "web-canary" } else { "web" }, "{set:#}");
        assert_eq!(owner["uid"] == uid.as_str(), !is_canary, "{set:#}");
        assert_eq!(
            set["status"]["replicas"],
            if is_canary { 1 } else { REPLICAS },
            "{set:#}"
        );
    }
    shop.lab.until("the canary runs the new build", |_| only(&two));
    assert_eq!(shop.own_pods(), before, "all others are as they were");
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:#?}");
    let status = said.json()["status"].take();
    assert_eq!(status["phase"], "Succeeded", "{status:#}");
    let nodes = status["nodes"].as_array().expect("a list");
    let names: Vec<&Value> = nodes.iter().map(|node| &node["name"]).collect();
    assert_eq!(names, ["web-canary", "web"]);
    for node in nodes {
        assert_eq!(
            (&node["restarts"], &node["phase"]),
            (&1.into(), &"Done".into()),
            "{node:#}"
        );
    }
    shop.is_its_owners_on("2");
}

/// On 2: slow there, or not even up; no other pod has heard of it.
fn a_bad_build_stops_at_the_canary(shop: &Shop) {
    let (before, generation) = (shop.own_pods(), shop.main()["spec"]["template"].take());
    for (version, words) in [("slow", "web-canary"), ("broken", "no such database")] {
        let said = shop.upgrade(version);
        assert_eq!(said.code, Some(3), "{said:#?}");
        assert!(said.out.contains(words), "{said:#?}");
        assert_eq!(shop.own_pods(), before, "{version}");
        assert_eq!(shop.main()["spec"]["template"], generation);
        shop.is_its_owners_on("2");
    }
}

/// On 2.
fn a_build_that_turns_bad_late_goes_back_from_both(shop: &Shop) {
    shop.environment("30s");
    let running = shop.begin(&["upgrade", "shop", "--build", "web=3", "-o", "json"]);
    shop.until_phase("Soak");
    let images: BTreeSet<String> = shop.own_pods().into_values().collect();
    assert_eq!(images, BTreeSet::from([shop.image("3")]));
    shop.slow();
    let said = running.end();
    assert_eq!(said.code, Some(3), "{said:#?}");
    assert_eq!(said.json()["status"]["phase"], "RolledBack");
    shop.is_its_owners_on("2");
    shop.environment("1s");
}

/// From 2 to 1: killed once when the canary is to change, and once when all others are.
fn a_killed_driver_is_followed_and_no_step_is_done_twice(shop: &Shop) {
    for node in ["canary", "main"] {
        let running = shop.begin(&["upgrade", "shop", "--build", "web=1"]);
        shop.lab.until(&format!("{node} is to change"), |_| {
            let record = shop.record();
            let steps = record[node]["steps"].as_array().cloned().unwrap_or_default();
            steps
                .iter()
                .any(|step| text(&step["id"]).ends_with(".restart") && step["replaces"].is_object())
        });
        running.signal(rustix::process::Signal::KILL);
        drop(running);
    }
    let said = shop.upgrade("1");
    assert_eq!(said.code, Some(0), "{said:#?}");
    let status = said.json()["status"].take();
    for node in status["nodes"].as_array().expect("a list") {
        assert_eq!(node["restarts"], 1, "{node:#}");
    }
    shop.is_its_owners_on("1");
}

/// From 1 to 2, and back; who scales it meanwhile is nobody's trouble.
fn what_somebody_else_changes_is_held_and_gone_over_by_an_abort(shop: &Shop) {
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    let two = shop.image("2");
    shop.lab.until("the canary runs it", |_| {
        shop.pods(Some("web")).into_values().any(|image| image == two)
    });
    shop.done(&["scale", "deployment/web", "--replicas=3"], "");
    shop.done(&["set", "env", "deployment/web", "HAND=made"], "");
    let held = running.end();
    assert!(held.code == Some(5) && held.out.contains("ForeignEdit"), "{held:#?}");
    assert!(held.out.contains("kubectl-set (at "), "{held:#?}");
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert!(aborted.err.contains("goes over it"), "{aborted:#?}");
    assert_eq!(shop.main()["spec"]["replicas"], 3);
    shop.done(&["scale", "deployment/web", "--replicas=2"], "");
    shop.done(&["rollout", "status", "deployment/web", "--timeout=60s"], "");
    shop.is_its_owners_on("1");
}

/// From 1 to 2, and back: once to the revision before, once to one whose annotation is that of an upgrade that is long over.
fn what_kubectl_rollout_undo_puts_back_is_held_and_gone_over_by_an_abort(shop: &Shop) {
    shop.environment("30s");
    let three = shop.revision_of(&shop.image("3"));
    for to in [None, Some(format!("--to-revision={three}"))] {
        let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
        shop.until_phase("Soak");
        let written = shop.record();
        let words: Vec<&str> = ["rollout", "undo", "deployment/web"]
            .into_iter()
            .chain(to.as_deref())
            .collect();
        shop.done(&words, "");
        let lies = shop.record();
        let number = |record: &Value| record["writes"].as_u64().expect("a number");
        assert!(number(&lies) < number(&written), "{lies:#} after {written:#}");
        if to.is_some() {
            assert_ne!(lies["taken"]["by"], written["taken"]["by"]);
        }
        let held = running.end();
        assert!(held.code == Some(5) && held.out.contains("ForeignEdit"), "{held:#?}");
        assert!(held.out.contains("`kubectl rollout undo`"), "{held:#?}");
        // Nobody fights it.
        assert_eq!(shop.record(), lies);
        let aborted = shop.stagegate(&["abort", "shop"]);
        assert!(aborted.err.contains("goes over it"), "{aborted:#?}");
        shop.done(&["rollout", "status", "deployment/web", "--timeout=60s"], "");
        shop.is_its_owners_on("1");
        assert!(number(&shop.record()) > number(&written));
    }
    shop.environment("1s");
}

/// From 1 to 2, and back.
fn a_container_that_is_renamed_is_held_and_gone_over_by_an_abort(shop: &Shop) {
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    let two = shop.image("2");
    shop.lab.until("the canary runs it", |_| {
        shop.pods(Some("web")).into_values().any(|image| image == two)
    });
    let renamed = r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "other"}]"#;
    shop.done(&["patch", "deployment/web", "--type=json", "-p", renamed], "");
    let held = running.end();
    assert!(
        held.code == Some(5) && held.out.contains("has no container web"),
        "{held:#?}"
    );
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert!(aborted.err.contains("goes over it"), "{aborted:#?}");
    shop.done(&["rollout", "status", "deployment/web", "--timeout=60s"], "");
    shop.is_its_owners_on("1");
}
/// From 1 to 2; its driver is killed when the upgrade has ended and its canary is still there.
fn what_cannot_be_given_back_is_kept_and_told_until_it_can(shop: &Shop) {
    shop.api_server_refuses(Refuses::Deletes);
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2"]);
    shop.lab
        .until("it is kept", |_| text(&shop.kept()["why"]).contains("not now"));
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    assert_eq!(shop.deployments().len(), 2);
    let status = shop.stagegate(&["status", "shop"]);
    assert!(status.out.contains("still kept from its owner"), "{status:#?}");
    let why = shop.stagegate(&["why", "shop"]);
    assert!(
        why.out.contains("not now") && why.out.contains("resume shop"),
        "{why:#?}"
    );
    shop.api_server_refuses_nothing();
    let resumed = shop.stagegate(&["resume", "shop"]);
    assert_eq!(resumed.code, Some(0), "{resumed:#?}");
    assert!(shop.kept().is_null());
    assert_eq!((shop.told(" NotGivenBack"), shop.told(" GivenBack")), (1, 1));
    shop.is_its_owners_on("2");
}

/// From 2 to 1, and nobody says a word after that.
fn a_server_gives_back_what_was_kept_by_itself(shop: &Shop) {
    shop.api_server_refuses(Refuses::Deletes);
    let mut server = shop.begin(&["serve", "--listen", "127.0.0.1:0"]);
    server.until("serving");
    let said = shop.upgrade("1");
    assert_eq!(said.code, Some(0), "{said:#?}");
    shop.lab
        .until("it is kept", |_| text(&shop.kept()["why"]).contains("not now"));
    shop.api_server_refuses_nothing();
    shop.lab.until("it is given back", |_| shop.kept().is_null());
    server.signal(rustix::process::Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    shop.is_its_owners_on("1");
}

/// From 1 to 4, and back.
fn a_way_back_that_an_api_server_refuses_is_held_and_gives_nothing_up(shop: &Shop) {
    shop.environment("60s");
    let running = shop.begin(&["upgrade", "shop", "--build", "web=4", "-o", "json"]);
    shop.until_phase("Soak");
    shop.api_server_refuses(Refuses::Writes);
    shop.slow();
    let held = running.end();
    assert!(held.code == Some(5) && held.out.contains("NobodyReached"), "{held:#?}");
    assert!(held.out.contains("not now"), "{held:#?}");
    let images: BTreeSet<String> = shop.own_pods().into_values().collect();
    assert_eq!(
        images,
        BTreeSet::from([shop.image("4")]),
        "nothing was given up or back"
    );
    shop.api_server_refuses_nothing();
    let resumed = shop.stagegate(&["resume", "shop", "-o", "json"]);
    assert_eq!(resumed.code, Some(3), "{resumed:#?}");
    let status = resumed.json()["status"].take();
    assert_eq!(status["phase"], "RolledBack", "{status:#}");
    shop.is_its_owners_on("1");
    shop.environment("1s");
}

/// From 1 to 2, and whoever deploys it makes it anew on 1 meanwhile.
fn one_that_is_made_anew_is_no_builds_fault_and_an_abort_ends_it(shop: &Shop) {
    shop.environment("60s");
    let running = shop.begin(&["upgrade", "shop", "--build", "web=2", "-o", "json"]);
    shop.until_phase("Soak");
    // Its pods stay, so that nobody misses them.
    shop.done(&["delete", "deployment/web", "--cascade=orphan"], "");
    shop.apply("1");
    let held = running.end();
    assert!(held.code == Some(5) && held.out.contains("ForeignEdit"), "{held:#?}");
    assert!(held.out.contains("made anew"), "{held:#?}");
    let aborted = shop.stagegate(&["abort", "shop"]);
    assert_eq!(aborted.code, Some(0), "{aborted:#?}");
    assert_eq!(shop.deployments().keys().collect::<Vec<_>>(), ["web"]);
    let images: BTreeSet<String> = shop.own_pods().into_values().collect();
    assert_eq!(images, BTreeSet::from([shop.image("1")]));
    shop.environment("1s");
    let again = shop.upgrade("2");
    assert_eq!(again.code, Some(0), "{again:#?}");
    shop.is_its_owners_on("2");
}

//! The controller where it belongs: in pods of the image of its recipe, under what `stagegate install --print` prints and nothing
//! else, on real nodes. It drives from in there, and the API server writes down what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::image;
use super::lab::{Lab, Left};
use crate::trivial::{Running, Said};

const NAMESPACE: &str = stagegate::cluster::install::NAMESPACE;
/// Its workload, service account, role and lease.
const CONTROLLER: &str = "stagegate-controller";
const REPOSITORY: &str = "lab.local/app";
/// Each is an environment with a component and a workload of that name.
const SYSTEMS: [(&str, &str, &str); 2] = [
    ("web", "statefulSet", "replicas: 3"),
    ("front", "deployment", "container: web"),
];

/// A cluster with the controller in it, and two systems on version 1 for it to drive.
struct Inside {
    lab: Lab,
    directory: tempfile::TempDir,
    /// Of all versions: their images.
    images: BTreeMap<&'static str, String>,
}

impl Inside {
    fn open() -> Self {
        let lab = Lab::with_nodes(2);
        let versions = [
            ("1", None),
            ("2", None),
            ("3", None),
            ("slow", Some(("APP_DELAY", "3s"))),
            ("broken", Some(("APP_CRASH", "no such database"))),
        ];
        let images = versions.map(|(version, otherwise)| {
            let variables: Vec<_> = [("APP_VERSION", version)].into_iter().chain(otherwise).collect();
            (version, format!("{REPOSITORY}@{}", lab.image(REPOSITORY, &variables)))
        });
        let this = Self {
            lab,
            directory: tempfile::tempdir().expect("a directory"),
            images: images.into(),
        };
        this.workspace();
        this.install();
        this.systems();
        this
    }

    /// The files of an administrator.
    fn workspace(&self) {
        let workspace = self.directory.path().join("workspace");
        let (environments, templates) = (workspace.join("environments"), workspace.join("templates"));
        for place in [&environments, &templates] {
            fs::create_dir_all(place).expect("made");
        }
        let digests: Vec<String> = self
            .images
            .iter()
            .map(|(version, image)| format!("\"{version}\": {}", image.split('@').nth(1).expect("a digest")))
            .collect();
        for (system, kind, more) in SYSTEMS {
            let environment = include_str!("inside/environment.yaml")
                .replace("SYSTEM", system)
                .replace("NAMESPACE", NAMESPACE)
                .replace("KIND", kind)
                .replace("MORE", more)
                .replace("REPOSITORY", REPOSITORY)
                .replace("DIGESTS", &digests.join(", "));
            fs::write(environments.join(format!("{system}.yaml")), environment).expect("written");
            fs::write(templates.join(format!("{system}.yaml")), template_of(system)).expect("written");
        }
    }

    /// As docs/guides/kubernetes.md has it. Nothing here makes volumes when they are asked for, so there are two; until then no pod
    /// of it begins.
    fn install(&self) {
        let archive = self.lab.path("controller.tar");
        image::archive(stagegate::cluster::install::IMAGE, &archive);
        self.lab.import_all(&archive);
        fs::remove_file(&archive).expect("ours");
        let printed = self.stagegate(&["install", "--print"]).expect_code(0).out;
        self.done(&["apply", "--server-side", "-f", "-"], &printed);
        let templates = self.directory.path().join("workspace/templates");
        let from = format!("--from-file={}", templates.display());
        self.done(&["create", "configmap", "stagegate-templates", &from], "");
        for volume in ["volume-1", "volume-2"] {
            fs::create_dir(self.lab.path(volume)).expect("made");
        }
        let place = self.lab.path("").to_string_lossy().trim_end_matches('/').to_owned();
        self.done(
            &["apply", "-f", "-"],
            &include_str!("inside/volumes.yaml").replace("PLACE", &place),
        );
        let workload = format!("statefulset/{CONTROLLER}");
        self.done(&["rollout", "status", &workload, "--timeout=120s"], "");
    }

    /// The workloads of both, which nobody but the controller may give another image from then on, and their environments.
    fn systems(&self) {
        for (system, ..) in SYSTEMS {
            let objects = template_of(system).replace("{{ build.image }}", &self.images["1"]);
            self.done(&["apply", "-f", "-"], &objects);
        }
        for workload in ["statefulset/web", "deployment/front"] {
            self.done(&["rollout", "status", workload, "--timeout=120s"], "");
        }
        let driver = format!("stagegate.dev/drivers=system:serviceaccount:{NAMESPACE}:{CONTROLLER}");
        self.done(&["annotate", "namespace", NAMESPACE, &driver], "");
        self.done(&["label", "namespace", NAMESPACE, "stagegate.dev/protected=true"], "");
        let environments = self.directory.path().join("workspace/environments");
        self.done(&["apply", "-f", &environments.to_string_lossy()], "");
        self.done(&["wait", "env", "--all", "--for=condition=Ready", "--timeout=90s"], "");
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Left {
        self.lab.kubectl(&[&["-n", NAMESPACE], arguments].concat(), input)
    }

    fn done(&self, arguments: &[&str], input: &str) -> String {
        let left = self.kubectl(arguments, input);
        assert!(left.done, "{arguments:?}: {left:#?}");
        left.out
    }

    fn get(&self, arguments: &[&str]) -> Value {
        self.lab.get(&[&["-n", NAMESPACE], arguments].concat())
    }

    fn stagegate(&self, arguments: &[&str]) -> Said {
        let command = self.lab.command(Path::new(env!("CARGO_BIN_EXE_stagegate")));
        Running::at(command, self.directory.path(), arguments).end()
    }

    /// Asks for an upgrade of one of the systems, as its users do.
    fn build(&self, system: &str, version: &str) {
        let wanted = format!("{system}={version}");
        let build = self.stagegate(&["build", "manifest", system, &wanted]).expect_code(0);
        self.done(&["apply", "-f", "-"], &build.out);
    }

    fn upgrade(&self, system: &str, version: &str) {
        self.build(system, version);
        let upgrade = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": format!("{system}-{version}")},
            "spec": {"environment": system, "component": system, "build": format!("{system}-{version}"), "user": "tester"},
        });
        self.done(&["apply", "-f", "-"], &upgrade.to_string());
    }

    fn ends(&self, upgrade: &str, phase: &str) -> Value {
        let (what, condition) = (
            format!("upg/{upgrade}"),
            format!("--for=jsonpath={{.status.phase}}={phase}"),
        );
        let waited = self.kubectl(&["wait", &what, &condition, "--timeout=120s"], "");
        let object = self.get(&[&what]);
        assert!(waited.done, "{waited:#?}\n{object:#}");
        object
    }

    /// The pods of a system that are not about to end: their images by name, and who they are.
    fn pods(&self, system: &str) -> BTreeMap<String, (String, String)> {
        let list = self.get(&["pods", "-l", &format!("app={system}")]);
        let pods = list["items"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| {
                let image = text(&pod["spec"]["containers"][0]["image"]);
                (text(&pod["metadata"]["name"]), (image, text(&pod["metadata"]["uid"])))
            })
            .collect()
    }

    /// How many pods of each name of the set there were so far, as the scheduler tells it.
    fn made(&self) -> BTreeMap<String, usize> {
        let events = self.get(&["events", "--field-selector", "reason=Scheduled"]);
        let all = events["items"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods: BTreeSet<(String, String)> = all
            .map(|event| &event["involvedObject"])
            .map(|pod| (text(&pod["name"]), text(&pod["uid"])))
            .filter(|(name, _)| name.starts_with("web-"))
            .collect();
        let mut made = BTreeMap::new();
        for (name, _) in pods {
            *made.entry(name).or_default() += 1;
        }
        made
    }

    fn all_are_on(&self, version: &str) {
        for (system, ..) in SYSTEMS {
            let pods = self.pods(system);
            let are = pods.values().map(|(image, _)| image.as_str()).collect::<BTreeSet<_>>();
            assert_eq!(are, BTreeSet::from([self.images[version].as_str()]), "{pods:#?}");
        }
    }

    /// The pod of the controller that leads.
    fn leader(&self) -> String {
        let lease = self.get(&[&format!("lease/{CONTROLLER}")]);
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        holder.split('_').next().unwrap_or_default().to_owned()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in ["0", "1"] {
                let pod = format!("{CONTROLLER}-{number}");
                eprintln!("== {pod}\n{:#?}", self.kubectl(&["logs", &pod, "--tail=40"], ""));
            }
        }
    }
}

fn template_of(system: &str) -> &'static str {
    match system {
        "web" => include_str!("inside/web.yaml"),
        "front" => include_str!("inside/front.yaml"),
        other => panic!("{other} is no system"),
    }
}

/// One cluster for all of it, and in the end everything that was asked for is compared with what may be.
#[test]
fn the_controller_upgrades_from_its_own_pods_and_uses_each_of_its_rights_and_no_other() {
    let inside = Inside::open();
    the_image_has_what_nodes_and_commits_need(&inside);
    an_environment_that_is_stated_otherwise_is_brought_up_again(&inside);
    a_good_build_goes_on_all_pods_once(&inside);
    a_bad_build_goes_back(&inside);
    a_killed_leader_is_followed_by_the_standby_and_no_step_is_done_twice(&inside);
    a_promotion_makes_its_upgrade_and_what_enters_by_itself_is_asked_for(&inside);
    every_right_is_used_and_none_is_missing(&inside);
}

fn the_image_has_what_nodes_and_commits_need(inside: &Inside) {
    let pod = format!("{CONTROLLER}-0");
    // ssh asks for its user's name first.
    let script = "id -u; git --version; ssh -G somewhere | grep '^hostname'; touch /usr/local/bin/x 2>&1 || true";
    let said = inside.done(&["exec", &pod, "--", "sh", "-euc", script], "");
    for part in [
        "65532\n",
        "git version ",
        "hostname somewhere\n",
        "Read-only file system",
    ] {
        assert!(said.contains(part), "{part:?}: {said}");
    }
}

/// Which Kubernetes counts as one event more of the same.
fn an_environment_that_is_stated_otherwise_is_brought_up_again(inside: &Inside) {
    let patch = r#"{"spec": {"description": "what is sold"}}"#;
    inside.done(&["patch", "env", "web", "--type=merge", "-p", patch], "");
    let condition = "--for=jsonpath={.status.observedGeneration}=2";
    inside.done(&["wait", "env/web", condition, "--timeout=60s"], "");
    inside.lab.until("it was told again", |_| {
        let events = inside.get(&["events.events.k8s.io"]);
        let mut all = events["items"].as_array().expect("a list").iter();
        all.any(|event| event["regarding"]["name"] == "web" && event["reason"] == "Up" && event["series"]["count"] == 2)
    });
}

/// From 1 to 2.
fn a_good_build_goes_on_all_pods_once(inside: &Inside) {
    for (system, ..) in SYSTEMS {
        inside.upgrade(system, "2");
    }
    for (system, nodes) in [
        ("web", vec!["web-2", "web-1", "web-0"]),
        ("front", vec!["front-canary", "front"]),
    ] {
        let object = inside.ends(&format!("{system}-2"), "Succeeded");
        assert_eq!(
            restarts(&object),
            nodes.iter().map(|node| (*node, 1)).collect(),
            "{object:#}"
        );
    }
    inside.all_are_on("2");
}

/// What is new goes through a rehearsal; what ran before comes back, which waits for nobody; the second stage leads where there is no such component, and says so.
fn a_promotion_makes_its_upgrade_and_what_enters_by_itself_is_asked_for(inside: &Inside) {
    let me = inside.done(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], "");
    let object = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "stagegate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
            .to_string()
    };
    let stages = json!([
        {"name": "first", "environment": "web", "rehearsals": ["there"]},
        {"name": "second", "environment": "front", "after": ["first"], "start": "auto"},
    ]);
    // It is on 3 already, and does not go back from it.
    let runs = json!([{"build": "web=3", "expect": {"phase": "RolledBack"}}, {"build": "web=candidate", "expect": {"phase": "Succeeded"}}]);
    let rehearsal = json!({"environment": "web", "runs": runs});
    inside.done(&["apply", "-f", "-"], &object("Rehearsal", "there", rehearsal));
    inside.done(
        &["apply", "-f", "-"],
        &object("Pipeline", "web", json!({"component": "web", "stages": stages})),
    );
    let freeze = json!({"reason": "nobody is here", "environments": ["nowhere"], "user": me.trim()});
    inside.done(&["apply", "-f", "-"], &object("Freeze", "weekend", freeze));
    inside.done(
        &["wait", "freeze/weekend", "--for=condition=Ready", "--timeout=60s"],
        "",
    );
    let promote = |name: &str, version: &str| {
        let asked = json!({"pipeline": "web", "stage": "first", "build": format!("web-{version}"), "user": me.trim()});
        inside.done(&["apply", "-f", "-"], &object("Promotion", name, asked));
    };
    // What has never been there is rehearsed, and comes no further.
    inside.build("web", "slow");
    promote("unheard", "slow");
    inside.lab.until("it has not passed its rehearsal", |_| {
        inside.get(&["promotion/unheard"])["status"]["reason"] == "RehearsalFailed"
    });
    promote("again", "2");
    inside.done(
        &["wait", "promotion/again", "--for=condition=Ready", "--timeout=180s"],
        "",
    );
    inside.lab.until("what enters by itself was asked for", |_| {
        inside.get(&["promotions"])["items"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|one| one["spec"]["automatic"] == true && one["status"]["undecided"].is_string())
    });
}

/// On 2: one that does not come up, told in its own words, and one that is too slow.
fn a_bad_build_goes_back(inside: &Inside) {
    let before = SYSTEMS.map(|(system, ..)| inside.pods(system));
    inside.upgrade("web", "broken");
    inside.upgrade("front", "slow");
    let broken = inside.ends("web-broken", "RolledBack");
    assert!(broken["status"].to_string().contains("no such database"), "{broken:#}");
    let slow = inside.ends("front-slow", "RolledBack");
    assert_eq!(
        restarts(&slow),
        BTreeMap::from([("front-canary", 1), ("front", 0)]),
        "{slow:#}"
    );
    inside.all_are_on("2");
    let after = SYSTEMS.map(|(system, ..)| inside.pods(system));
    assert_eq!(after[1], before[1], "no pod but the canary's has heard of it");
    for (name, changed) in [("web-0", false), ("web-1", false), ("web-2", true)] {
        assert_eq!(after[0][name].1 != before[0][name].1, changed, "{name}");
    }
}

/// From 2 to 3.
fn a_killed_leader_is_followed_by_the_standby_and_no_step_is_done_twice(inside: &Inside) {
    let before = inside.made();
    for (system, ..) in SYSTEMS {
        inside.upgrade(system, "3");
    }
    inside.lab.until("the second pod is to make way", |_| {
        let set = inside.get(&["statefulset", "web"]);
        let record = set["metadata"]["annotations"]["stagegate.dev/rolling"].as_str();
        let record: Value = serde_json::from_str(record.unwrap_or("{}")).expect("JSON");
        let steps = record["pods"]["1"]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|step| step["replaces"].is_object())
    });
    let killed = inside.leader();
    // As if its machine were lost: it could begin nowhere else, for its volume is there.
    let machine = inside.get(&["pod", &killed])["spec"]["nodeName"].take();
    let machine = machine.as_str().expect("it runs");
    inside.done(&["cordon", machine], "");
    inside.done(&["delete", "pod", &killed, "--grace-period=0", "--force"], "");
    for (system, ..) in SYSTEMS {
        let object = inside.ends(&format!("{system}-3"), "Succeeded");
        let restarts = restarts(&object);
        assert!(restarts.values().all(|count| *count == 1), "{object:#}");
    }
    inside.all_are_on("3");
    let each: BTreeMap<String, usize> = before.iter().map(|(pod, count)| (pod.clone(), count + 1)).collect();
    inside.lab.until("all new pods were told of", |_| {
        let made = inside.made();
        each.iter().all(|(pod, count)| made.get(pod) >= Some(count))
    });
    assert_eq!(inside.made(), each, "{before:#?}");
    let leads = inside.leader();
    assert!(
        leads != killed && leads.starts_with(CONTROLLER),
        "{leads} after {killed}"
    );
    inside.done(&["uncordon", machine], "");
    let workload = format!("statefulset/{CONTROLLER}");
    inside.done(&["rollout", "status", &workload, "--timeout=60s"], "");
}

fn restarts(upgrade: &Value) -> BTreeMap<&str, u64> {
    let nodes = upgrade["status"]["nodes"].as_array().expect("nodes").iter();
    nodes
        .map(|node| {
            let name = node["name"].as_str().expect("a name");
            (name, node["restarts"].as_u64().unwrap_or_default())
        })
        .collect()
}

/// A verb on a resource, of one name where only that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    group: String,
    resource: String,
    name: Option<String>,
}

impl Right {
    /// All that a role gives.
    fn of(role: &Value) -> BTreeSet<Self> {
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array().into_iter().flatten();
            all.map(|one| one.as_str().expect("a text").to_owned()).collect()
        };
        let mut rights = BTreeSet::new();
        for rule in role["rules"].as_array().expect("rules") {
            let mut names: Vec<Option<String>> = texts(&rule["resourceNames"]).into_iter().map(Some).collect();
            if names.is_empty() {
                names.push(None);
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        for name in &names {
                            rights.insert(Self {
                                verb: verb.clone(),
                                group: group.clone(),
                                resource: resource.clone(),
                                name: name.clone(),
                            });
                        }
                    }
                }
            }
        }
        rights
    }

    /// What a request needs, by its name where it has one. Nobody needs a right to ask which API there is.
    fn needed(event: &Value) -> Option<Self> {
        let of = event["objectRef"].as_object()?;
        let text = |key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let resource = match text("subresource").as_str() {
            "" => text("resource"),
            below => format!("{}/{below}", text("resource")),
        };
        Some(Self {
            verb: event["verb"].as_str().expect("a verb").to_owned(),
            group: text("apiGroup"),
            resource,
            name: of.get("name").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// Whether it allows what is needed.
    fn gives(&self, needed: &Self) -> bool {
        let Self {
            verb,
            group,
            resource,
            name,
        } = self;
        (verb, group, resource) == (&needed.verb, &needed.group, &needed.resource)
            && (name.is_none() || *name == needed.name)
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            verb,
            group,
            resource,
            name,
        } = self;
        write!(f, "{verb} {group}/{resource} {}", name.as_deref().unwrap_or_default())
    }
}

/// Over all of the above.
fn every_right_is_used_and_none_is_missing(inside: &Inside) {
    let rights = Right::of(&inside.get(&["role", CONTROLLER]));
    let account = format!("system:serviceaccount:{NAMESPACE}:{CONTROLLER}");
    let events = inside.lab.audited(&account);
    let refused: BTreeSet<String> = events
        .iter()
        .filter(|event| event["annotations"]["authorization.k8s.io/decision"] != "allow")
        .map(|event| format!("{} {}", event["verb"], event["requestURI"]))
        .collect();
    let needed: BTreeSet<Right> = events.iter().filter_map(Right::needed).collect();
    let words = |rights: Vec<&Right>| rights.into_iter().map(Right::to_string).collect::<Vec<_>>();
    let is_given = |needed: &&Right| rights.iter().any(|right| right.gives(needed));
    let missing = words(needed.iter().filter(|needed| !is_given(needed)).collect());
    let is_used = |right: &&Right| needed.iter().any(|needed| right.gives(needed));
    let unused = words(rights.iter().filter(|right| !is_used(right)).collect());
    assert!(
        refused.is_empty() && missing.is_empty() && unused.is_empty(),
        "the role of `src/cluster/install.rs` is not what the controller needs.\n\
         Refused: {refused:#?}\nAsked for, and not in the role: {missing:#?}\n\
         In the role, and asked for by nothing in this test (leave it out there, or do here what needs it): {unused:#?}"
    );
}

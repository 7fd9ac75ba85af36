//! The Kubernetes home: `stagegate controller` against a real API server, with the rights that are shipped and no others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kube::api::DynamicObject;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, Store};
use kube::{Client, Config};
use serde_json::{Value, json};
use stagegate::cluster::history::History;
use stagegate::cluster::ledger::{ObjectLedger, Objects};
use stagegate::cluster::objects::Kind;
use stagegate::engine::CommitError;
use stagegate::engine::interrupt::Interrupt;
use stagegate::engine::ledger::{Ledger as _, Write};
use stagegate::home::Home;
use stagegate::hosts::FencingToken;
use stagegate::model::upgrade::{Event, Severity, Wish};
use stagegate::store::{EventQuery, Store as _, Take};

use super::lab::Lab;
use super::trouble::{Between, Fault};
use crate::trivial::{ENVIRONMENT, Running, Said, Trivial};

pub(super) const NAMESPACE: &str = "town";
pub(super) const ACCOUNT: &str = "stagegate-controller";

/// A control plane that knows our kinds, and a system of two local nodes for it to drive.
pub(super) struct Town {
    pub(super) lab: Lab,
    pub(super) trivial: Trivial,
}

impl Town {
    pub(super) fn new() -> Self {
        Self::over(Lab::without_nodes())
    }

    /// The same over nodes that are there.
    pub(super) fn over(lab: Lab) -> Self {
        let this = Self {
            lab,
            trivial: Trivial::new(),
        };
        let manifests = stagegate::cli::manifests(NAMESPACE, "stagegate:test").expect("YAML");
        assert!(this.lab.kubectl(&["create", "namespace", NAMESPACE], "").done);
        let applied = this.lab.kubectl(&["apply", "--server-side", "-f", "-"], &manifests);
        assert!(applied.done, "{applied:#?}");
        let established = [
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd",
            "-l",
            "app.kubernetes.io/part-of=stagegate",
        ];
        assert!(this.lab.kubectl(&established, "").done);
        let token = this.kubectl(&["create", "token", ACCOUNT], "");
        let admin = std::fs::read_to_string(this.lab.admin()).expect("written");
        let mut config: Value = serde_json::from_str(&admin).expect("JSON");
        config["users"][0]["user"]["token"] = json!(token.trim());
        std::fs::write(this.lab.path("controller.kubeconfig"), config.to_string()).expect("written");
        this
    }

    /// The same with its environment as an object.
    pub(super) fn stated() -> Self {
        let this = Self::new();
        this.apply(&this.environment());
        this
    }

    pub(super) fn environment(&self) -> String {
        let file = self.trivial.path("workspace/environments/small.yaml");
        let text = std::fs::read_to_string(file).expect("written");
        // The controller's workspace has no builds.
        let builds = self.trivial.path("workspace/builds");
        text.replace("directory: builds", &format!("directory: {}", builds.display()))
    }

    pub(super) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let left = self.lab.kubectl(&[&["-n", NAMESPACE], arguments].concat(), input);
        assert!(left.done, "{arguments:?}: {left:#?}");
        left.out
    }

    pub(super) fn apply(&self, text: &str) {
        self.kubectl(&["apply", "-f", "-"], text);
    }

    pub(super) fn wait(&self, what: &str, condition: &str) {
        self.kubectl(&["wait", what, &format!("--for={condition}"), "--timeout=90s"], "");
    }

    pub(super) fn get(&self, what: &str) -> Value {
        self.lab.get(&["-n", NAMESPACE, what])
    }

    /// A build of the trivial system, as its source has it.
    pub(super) fn build(&self, version: &str) {
        let wanted = format!("web={version}");
        let said = self.trivial.run(&["build", "manifest", ENVIRONMENT, &wanted]);
        assert_eq!(said.code, Some(0), "{said:?}");
        self.apply(&said.out);
    }

    pub(super) fn upgrade(&self, name: &str, version: &str) {
        self.upgrade_of(ENVIRONMENT, name, version);
    }

    pub(super) fn upgrade_of(&self, environment: &str, name: &str, version: &str) {
        let upgrade = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": name},
            "spec": {"environment": environment, "component": "web", "build": format!("web-{version}"), "user": "tester"},
        });
        self.apply(&upgrade.to_string());
    }

    /// Its name on nodes and in the history.
    pub(super) fn unique(&self, upgrade: &str) -> String {
        let object = self.get(&format!("upg/{upgrade}"));
        let uid = object["metadata"]["uid"].as_str().expect("a uid");
        format!("{upgrade}-{}", &uid[..8])
    }

    /// Nodes lie on the volume, so all replicas of a test share one.
    pub(super) fn controller(&self) -> Running {
        self.controller_at().0
    }

    /// With where it answers.
    pub(super) fn controller_at(&self) -> (Running, String) {
        self.controller_by("controller.kubeconfig")
    }

    pub(super) fn controller_by(&self, kubeconfig: &str) -> (Running, String) {
        let mut command: Command = self.lab.command(env!("CARGO_BIN_EXE_stagegate").as_ref());
        let arguments = ["controller", "--namespace", NAMESPACE, "--listen", "127.0.0.1:0"];
        command
            .args(arguments)
            .arg("--volume")
            .arg(self.trivial.path("state"))
            .arg("--templates")
            .arg(self.trivial.path("workspace/templates"))
            .env("KUBECONFIG", self.lab.path(kubeconfig))
            .env("STAGEGATE_LOG", "stagegate=info")
            .env("NO_COLOR", "1");
        let mut running = Running::new(command, &arguments);
        let line = running.until("controlling namespace");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        (running, address.expect("an address").to_owned())
    }

    /// The plugin of kubectl, under way.
    pub(super) fn plugin(&self, arguments: &[&str]) -> Running {
        self.plugin_with(None, arguments)
    }

    /// The same, asked by somebody else.
    pub(super) fn plugin_as(&self, who: &str, groups: &[&str], arguments: &[&str]) -> Said {
        let admin = std::fs::read_to_string(self.lab.admin()).expect("written");
        let mut config: Value = serde_json::from_str(&admin).expect("JSON");
        config["users"][0]["user"]["as"] = json!(who);
        config["users"][0]["user"]["as-groups"] = json!(groups);
        let own = self.lab.path(&format!("{who}.kubeconfig"));
        std::fs::write(&own, config.to_string()).expect("written");
        self.plugin_with(Some(&own), arguments).end()
    }

    fn plugin_with(&self, kubeconfig: Option<&Path>, arguments: &[&str]) -> Running {
        let link = self.lab.path("kubectl-stagegate");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stagegate"), &link).expect("made");
        }
        let mut command = self.lab.command(&link);
        if let Some(kubeconfig) = kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let arguments = [&["-n", NAMESPACE], arguments].concat();
        let elsewhere = self.trivial.path("elsewhere");
        Running::at(command, elsewhere.as_path(), &arguments)
    }

    pub(super) fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        self.lab.until(what, |_| is_so(self));
    }

    /// An install that waits for the test runs on a node.
    pub(super) fn until_installing(&self, upgrade: &str) {
        self.until("an install runs", |town| {
            let object = town.get(&format!("upg/{upgrade}"));
            let nodes = object["status"]["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().any(|node| node["step"]["action"] == "install")
        });
    }

    pub(super) fn answer(&self, node: &str) -> String {
        let place = self
            .trivial
            .path(&format!("state/environments/{ENVIRONMENT}/nodes/{node}"));
        std::fs::read_to_string(place.join("current/answer")).unwrap_or_default()
    }
}

pub(super) fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.to_owned()
}

impl Drop for Town {
    /// The nodes serve the cluster's home, so `down` of this machine's would be refused.
    fn drop(&mut self) {
        self.trivial.let_go();
        let environments = std::fs::read_dir(self.trivial.path("state/environments"));
        for environment in environments.into_iter().flatten().flatten() {
            for node in ["n1", "n2"] {
                let file = environment.path().join(format!("nodes/{node}/run/pid"));
                if let Ok(pid) = std::fs::read_to_string(file) {
                    let _ = Command::new("kill").arg(pid.trim()).status();
                }
            }
        }
    }
}

#[test]
fn objects_are_brought_up_upgraded_refused_and_told() {
    let town = Town::new();
    let (_controller, address) = town.controller_at();
    // In whichever order they come, what is missing is waited for and said.
    town.upgrade("second", "2");
    town.until("it says what it waits for", |town| {
        town.get("upg/second")["status"]["reason"] == "EnvironmentMissing"
    });
    town.apply(&town.environment());
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    town.until("it says what it waits for", |town| {
        town.get("upg/second")["status"]["reason"] == "BuildMissing"
    });
    town.upgrade("third", "bad");
    town.until("the younger waits", |town| {
        town.get("upg/third")["status"]["reason"] == "WaitsForUpgrade"
    });
    town.build("bad");
    town.build("2");
    town.wait("upg/second", "condition=Ready");
    assert_eq!(town.answer("n2"), "yes 2\n");
    let build = town.get("bld/web-2");
    assert_eq!(
        build["status"]["verifications"][0]["environment"], ENVIRONMENT,
        "{build:#}"
    );

    town.wait("upg/third", "jsonpath={.status.phase}=RolledBack");
    assert_eq!(town.answer("n1"), "yes 2\n");
    let build = town.get("bld/web-bad");
    assert_eq!(
        build["status"]["quarantines"][0]["environment"], ENVIRONMENT,
        "{build:#}"
    );
    town.upgrade("fourth", "bad");
    town.wait("upg/fourth", "jsonpath={.status.reason}=Quarantined");
    let refused = town.get("upg/fourth");
    assert_eq!(refused["status"]["phase"], "Failed", "{refused:#}");
    assert!(
        refused["status"]["nodes"].as_array().is_none_or(Vec::is_empty),
        "{refused:#}"
    );

    // What happened is in the history, once, and no longer in the objects.
    town.until("the events are copied", |town| {
        ["second", "third", "fourth"]
            .iter()
            .all(|name| town.get(&format!("upg/{name}"))["status"]["pending"].is_null())
    });
    let home = Home::open(&town.trivial.path("state")).expect("a home");
    for name in ["second", "third", "fourth"] {
        let query = EventQuery {
            environment: None,
            upgrade: Some(&town.unique(name)),
            promotion: None,
            after: 0,
            take: Take::First(1_000),
        };
        let events = home.store().events(&query).expect("read");
        let told = town.get(&format!("upg/{name}"))["status"]["told"].as_u64();
        assert_eq!(u64::try_from(events.len()).ok(), told, "{name}: {events:#?}");
    }
    let events = town.lab.get(&["-n", NAMESPACE, "events.events.k8s.io"]);
    let of = |reason: &str| {
        let all = events["items"].as_array().expect("a list");
        all.iter()
            .any(|e| e["reason"] == reason && e["regarding"]["kind"] == "Upgrade")
    };
    assert!(of("GateFailed") && of("RolledBack"), "{events:#}");

    assert_eq!(ask(&address, "/healthz"), "ok\n");
    assert_eq!(ask(&address, "/readyz"), "ok\n");
    let metrics = ask(&address, "/metrics");
    for line in [
        "stagegate_leader 1",
        "stagegate_upgrades{phase=\"RolledBack\"} 1",
        "stagegate_upgrades{phase=\"Succeeded\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }

    // An invalid environment says what is wrong with it; an environment goes once nothing of it is open.
    let broken = town.environment().replace("install.sh", "nowhere.sh");
    town.apply(&broken);
    town.wait(
        &format!("env/{ENVIRONMENT}"),
        "jsonpath={.status.conditions[?(@.type=='Ready')].reason}=Invalid",
    );
    let message = town.get(&format!("env/{ENVIRONMENT}"))["status"]["conditions"][0]["message"].clone();
    assert!(message.as_str().expect("a text").contains("nowhere.sh"), "{message}");
    town.kubectl(&["delete", "env", ENVIRONMENT, "--timeout=60s"], "");
    town.kubectl(&["delete", "upg", "--all", "--timeout=60s"], "");
}

#[test]
fn a_killed_leader_is_replaced_and_does_no_step_twice() {
    let town = Town::stated();
    let mut first = town.controller();
    first.until("leading");
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    town.build("slow");
    let mut second = town.controller();
    town.upgrade("slow", "slow");
    town.until_installing("slow");
    let before = town.get(&format!("env/{ENVIRONMENT}"))["status"]["fence"].as_u64();
    first.signal(rustix::process::Signal::KILL);
    second.until("leading");
    town.trivial.let_go();
    town.wait("upg/slow", "condition=Ready");
    let after = town.get(&format!("env/{ENVIRONMENT}"))["status"]["fence"].as_u64();
    assert!(after > before, "{before:?} {after:?}");
    let unique = town.unique("slow");
    for action in ["install", "restart"] {
        assert_eq!(town.trivial.completed(&unique, action), 2, "{action}");
    }
    let object = town.get("upg/slow");
    for node in object["status"]["nodes"].as_array().expect("nodes") {
        assert_eq!(
            (&node["installs"], &node["restarts"]),
            (&json!(1), &json!(1)),
            "{object:#}"
        );
    }
}

#[test]
fn a_leader_that_is_to_end_lets_its_steps_end_and_hands_over() {
    let town = Town::stated();
    let mut first = town.controller();
    first.until("leading");
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    town.build("slow");
    let mut second = town.controller();
    town.upgrade("slow", "slow");
    town.until_installing("slow");
    first.signal(rustix::process::Signal::TERM);
    first.until("ending once the running steps have ended");
    let lease = || town.get(&format!("lease/{ACCOUNT}"))["spec"]["holderIdentity"].clone();
    let holder = lease();
    assert!(holder.is_string(), "it leads until its step has ended");
    town.trivial.let_go();
    assert_eq!(first.end().code, Some(0));
    assert_ne!(lease(), holder, "it was given back");
    second.until("leading");
    town.wait("upg/slow", "condition=Ready");
    let unique = town.unique("slow");
    assert_eq!(town.trivial.completed(&unique, "install"), 2);
}

#[test]
fn an_upgrade_outlives_the_api_server() {
    let mut town = Town::stated();
    let _controller = town.controller();
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    town.build("slow");
    town.upgrade("slow", "slow");
    town.until_installing("slow");
    town.lab.restart_api();
    town.trivial.let_go();
    town.wait("upg/slow", "condition=Ready");
    let unique = town.unique("slow");
    for action in ["install", "restart"] {
        assert_eq!(town.trivial.completed(&unique, action), 2, "{action}");
    }
}

/// Every fourth status is refused as one that another was quicker with, every ninth request as one too many, of every eleventh the
/// answer is lost, some are late, and no watch lasts.
#[test]
fn an_api_server_in_trouble_delays_an_upgrade_and_repeats_no_step() {
    let town = Town::stated();
    let direct = town.lab.path("controller.kubeconfig");
    let between = Between::of(&direct);
    between.write(&direct, &town.lab.path("between.kubeconfig"));
    let (_controller, _) = town.controller_by("between.kubeconfig");
    town.build("2");
    town.build("bad");
    town.upgrade("second", "2");
    // It takes its time, so each is waited for with patience.
    let ends = |name: &str, phase: &str| {
        town.until(&format!("{name} ends"), |town| {
            town.get(&format!("upg/{name}"))["status"]["phase"] == phase
        });
    };
    ends("second", "Succeeded");
    town.upgrade("third", "bad");
    ends("third", "RolledBack");
    town.until("the events are copied", |town| {
        ["second", "third"]
            .iter()
            .all(|name| town.get(&format!("upg/{name}"))["status"]["pending"].is_null())
    });
    assert_eq!(town.trivial.completed(&town.unique("second"), "install"), 2);
    assert_eq!(town.trivial.completed(&town.unique("second"), "restart"), 2);
    assert_eq!(town.trivial.completed(&town.unique("third"), "install"), 2);
    assert_eq!(
        town.trivial.completed(&town.unique("third"), "restart"),
        2,
        "of n1, there and back"
    );
    assert_eq!(town.answer("n1"), "yes 2\n");
    let home = Home::open(&town.trivial.path("state")).expect("a home");
    for name in ["second", "third"] {
        let query = EventQuery {
            environment: None,
            upgrade: Some(&town.unique(name)),
            promotion: None,
            after: 0,
            take: Take::First(1_000),
        };
        let events = home.store().events(&query).expect("read");
        let told = town.get(&format!("upg/{name}"))["status"]["told"].as_u64();
        assert_eq!(u64::try_from(events.len()).ok(), told, "{name}: {events:#?}");
        let taken_over = events.iter().filter(|e| e.event.reason == "TakenOver").count();
        assert_eq!(taken_over, 0, "its driver was the same all the time: {events:#?}");
    }
    let did = between.did();
    for fault in [
        Fault::TooMany,
        Fault::Conflict,
        Fault::Away,
        Fault::Slow,
        Fault::AnswerLost,
        Fault::Expired,
    ] {
        assert!(did.get(&fault).is_some_and(|times| *times >= 3), "{fault:?}: {did:?}");
    }
}

#[test]
fn an_upgrade_that_waits_is_aborted_at_once_and_templates_that_change_are_told() {
    let town = Town::stated();
    let _controller = town.controller();
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    town.upgrade("misspelt", "none");
    town.until("it says what it waits for", |town| {
        town.get("upg/misspelt")["status"]["reason"] == "BuildMissing"
    });
    let abort = r#"{"spec": {"wish": "abort"}}"#;
    town.kubectl(&["patch", "upg", "misspelt", "--type=merge", "-p", abort], "");
    town.wait("upg/misspelt", "jsonpath={.status.phase}=Aborted");
    town.build("2");
    town.upgrade("second", "2");
    town.wait("upg/second", "condition=Ready");

    // Its object is as it was, and its files are not.
    let (template, reason) = (
        "workspace/templates/stop.sh",
        "jsonpath={.status.conditions[?(@.type=='Ready')].reason}",
    );
    let text = std::fs::read_to_string(town.trivial.path(template)).expect("a template");
    town.trivial.write(template, "{{ nobody.knows.this }}");
    town.wait(&format!("env/{ENVIRONMENT}"), &format!("{reason}=Invalid"));
    town.trivial.write(template, &text);
    town.wait(&format!("env/{ENVIRONMENT}"), &format!("{reason}=Up"));
}

#[test]
fn to_delete_an_upgrade_is_to_go_back_first() {
    let town = Town::stated();
    let _controller = town.controller();
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    town.build("2");
    town.build("slow");
    town.upgrade("second", "2");
    town.wait("upg/second", "condition=Ready");
    town.upgrade("slow", "slow");
    town.until_installing("slow");
    let unique = town.unique("slow");
    town.kubectl(&["delete", "upg", "slow", "--wait=false"], "");
    town.kubectl(&["delete", "env", ENVIRONMENT, "--wait=false"], "");
    town.until("the environment waits", |town| {
        let conditions = town.get(&format!("env/{ENVIRONMENT}"))["status"]["conditions"].clone();
        conditions[0]["reason"] == "WaitsForUpgrade"
    });
    town.trivial.let_go();
    town.wait("upg/slow", "delete");
    town.wait(&format!("env/{ENVIRONMENT}"), "delete");
    for node in ["n1", "n2"] {
        assert_eq!(town.answer(node), "yes 2\n", "{node}");
    }
    let home = Home::open(&town.trivial.path("state")).expect("a home");
    let query = EventQuery {
        environment: None,
        upgrade: Some(&unique),
        promotion: None,
        after: 0,
        take: Take::Last(20),
    };
    let events = home.store().events(&query).expect("read");
    assert!(events.iter().any(|e| e.event.reason == "Aborted"), "{events:#?}");
    let back = events.iter().find(|e| e.event.reason == "RollingBack");
    let back = &back.expect("it has gone back").event.message;
    assert!(back.contains("its object was deleted"), "{back}");
    assert!(
        !events.iter().any(|e| e.event.message.contains("operator")),
        "{events:#?}"
    );
}

#[test]
fn kubectl_has_it_as_a_plugin() {
    let town = Town::stated();
    let _controller = town.controller();
    town.wait(&format!("env/{ENVIRONMENT}"), "condition=Ready");
    let link = town.lab.path("kubectl-stagegate");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stagegate"), &link).expect("made");
    let plugin = |arguments: &[&str]| {
        let command = town.lab.command(&link);
        let arguments = [&["-n", NAMESPACE], arguments].concat();
        Running::at(command, town.trivial.path("elsewhere").as_path(), &arguments).end()
    };
    let upgrade = |version: &str, more: &[&str]| {
        let build = format!("web={version}");
        plugin(&[&["upgrade", ENVIRONMENT, "--build", &build, "-o", "json"], more].concat())
    };

    let said = upgrade("2", &[]).expect_code(2);
    assert!(said.out.contains("stagegate build manifest small web=2"), "{said:?}");
    for version in ["2", "bad", "slow"] {
        town.build(version);
    }
    let done = upgrade("2", &[]).expect_code(0).json();
    assert_eq!(done["status"]["phase"], "Succeeded", "{done:#}");
    let shown = plugin(&["status", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(shown["status"]["nodes"][0]["build"], "web-2", "{shown:#}");
    assert_eq!(shown["status"]["environment"]["phase"], "Up", "{shown:#}");

    upgrade("bad", &[]).expect_code(3);
    let refused = upgrade("bad", &[]).expect_code(6).json();
    assert_eq!(refused["status"]["reason"], "Quarantined", "{refused:#}");
    // As the refusal says it.
    let why = refused["status"]["message"].as_str().expect("why");
    assert!(why.contains("build release web-bad --env small"), "{why}");
    let reason = "the page was mended";
    let release = ["build", "release", "web-bad", "--env", ENVIRONMENT, "--reason", reason];
    plugin(&release).expect_code(0);
    plugin(&release).expect_code(2);
    let builds = plugin(&["build", "list", "-o", "json"]).expect_code(0).json();
    let all = builds["items"].as_array().expect("a list").iter();
    let bad = all.clone().find(|build| build["metadata"]["name"] == "web-bad");
    assert_eq!(bad.expect("there")["status"]["quarantines"], json!([]), "{builds:#}");

    upgrade("slow", &["--no-wait"]).expect_code(0);
    let why = plugin(&["why", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    let open = why["spec"]["upgrade"].as_str().expect("a name").to_owned();
    town.until_installing(&open);
    let why = plugin(&["why", ENVIRONMENT]).expect_code(0);
    assert!(
        why.out.contains("kubectl stagegate") && !why.out.contains("`stagegate "),
        "{why:?}"
    );
    let other = upgrade("2", &[]).expect_code(6);
    assert!(other.out.contains("kubectl stagegate -n town abort small"), "{other:?}");
    plugin(&["pause", ENVIRONMENT]).expect_code(0);
    town.trivial.let_go();
    town.wait(&format!("upg/{open}"), "jsonpath={.status.phase}=Paused");
    let done = plugin(&["resume", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(done["status"]["phase"], "Succeeded", "{done:#}");
    plugin(&["abort", ENVIRONMENT]).expect_code(6);
    let history = plugin(&["history", ENVIRONMENT, "-o", "json"]).expect_code(0).json();
    assert_eq!(history["items"].as_array().map(Vec::len), Some(4), "{history:#}");
}

/// Ledgers of two leaders over one upgrade.
struct Rivals {
    objects: Objects,
    directory: tempfile::TempDir,
}

impl Rivals {
    async fn over(town: &Town) -> Self {
        let config = Kubeconfig::read_from(town.lab.path("controller.kubeconfig")).expect("a config");
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a config")).expect("a client");
        let cache: Store<DynamicObject> = reflector::store::Writer::new(Kind::Upgrade.resource()).as_reader();
        Self {
            objects: Objects {
                upgrades: Kind::Upgrade.api(&client, NAMESPACE),
                builds: Kind::Build.api(&client, NAMESPACE),
                cache,
                namespace: NAMESPACE.to_owned(),
            },
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn history(&self) -> History {
        History {
            home: Home::open(&self.directory.path().join("state")).expect("a home"),
            sinks: vec!["small/journal".to_owned()],
        }
    }

    async fn ledger(&self, counter: u64) -> ObjectLedger {
        let token = FencingToken {
            home: "a-namespace".to_owned(),
            counter,
        };
        let (_, lost) = Interrupt::new();
        let opened = ObjectLedger::open(self.objects.clone(), self.history(), "one", token, lost).await;
        opened.expect("it is there")
    }
}

fn event(message: &str) -> Event {
    Event {
        at: jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(1),
        reason: "NodeUpgraded".to_owned(),
        severity: Severity::Step,
        node: None,
        message: message.to_owned(),
    }
}

/// One commit with an event, decided from what the ledger has.
async fn commit(ledger: &ObjectLedger, message: &str) -> Result<u64, CommitError> {
    let loaded = ledger.load().await?;
    let events = [event(message)];
    let write = Write {
        version: loaded.version,
        status: &loaded.status,
        events: &events,
        builds: &[],
    };
    ledger.commit(write).await
}

#[test]
fn a_commit_is_of_the_version_that_it_was_decided_from_and_of_the_newest_driver() {
    let town = Town::new();
    town.upgrade("one", "2");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let rivals = Rivals::over(&town).await;
        let old = rivals.ledger(1).await;
        old.claim("old").await.expect("nobody else has it");
        commit(&old, "first").await.expect("it is ours");
        // A wish in between: the decision did not know of it.
        town.kubectl(
            &[
                "patch",
                "upg",
                "one",
                "--type=merge",
                "-p",
                r#"{"spec": {"wish": "pause"}}"#,
            ],
            "",
        );
        assert_eq!(commit(&old, "too early").await, Err(CommitError::Conflict));
        assert_eq!(old.load().await.expect("read").wish, Wish::Pause);
        commit(&old, "second").await.expect("decided anew");

        let new = rivals.ledger(2).await;
        new.claim("new").await.expect("taken");
        let refused = commit(&old, "too late").await;
        assert!(matches!(refused, Err(CommitError::Fenced(_))), "{refused:?}");
        commit(&new, "third").await.expect("it is ours");
        // Whoever takes over copies what still waits, and what is there already is not told twice.
        commit(&rivals.ledger(3).await, "fourth").await.expect("it is ours");
        let history = rivals.history();
        let query = EventQuery {
            environment: None,
            upgrade: Some(&town.unique("one")),
            promotion: None,
            after: 0,
            take: Take::First(100),
        };
        let told = history.home.store().events(&query).expect("read");
        let told: Vec<&str> = told.iter().map(|e| e.event.message.as_str()).collect();
        assert_eq!(told, ["first", "second", "third", "fourth"]);
        let waiting = history.home.store().pending(None, None).expect("read");
        assert_eq!(waiting[0].waiting, 4);
    });
}

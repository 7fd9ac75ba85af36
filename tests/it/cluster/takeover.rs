//! Leaders that are killed, wherever their upgrades stand: whoever leads next goes on with all of them, and does nothing twice that was
//! done. A lease runs out in 15 s, so many environments share it: each is held at another place, then at a second one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};
use stagegate::cluster::objects::Kind;
use stagegate::home::Home;
use stagegate::store::{EventQuery, Store as _, Take};

use super::controller::{NAMESPACE, Town};
use crate::ports;
use crate::trivial::Running;

/// The builds, with what calls of each take.
const BUILDS: [(&str, &str); 3] = [("1", "0.01"), ("2", "0.01"), ("bad", "9.0")];
/// Watched for so long, which is more than it takes from the moment when all the others stand where they are wanted to the kill.
const LONG_SOAK: &str = "25s";

/// Where an environment is stopped.
#[derive(Debug, Clone, Copy)]
enum Stand {
    /// Its step of this action waits, in this phase.
    Step(&'static str, &'static str),
    /// The first node waits in this phase of its own.
    Node(&'static str),
    /// All of it waits in this phase.
    Phase(&'static str),
    /// It is back, and the gates are read to prove that this has cured it.
    Cure,
    /// It is brought up, and both nodes are at this step.
    Up(&'static str),
    /// It is brought up, and its services do not answer yet.
    Mute,
}

/// What becomes of an environment, and where it stands when a leader is killed.
struct Story {
    name: &'static str,
    build: &'static str,
    /// What is held, and where it stands for it, when the first leader is killed, and when the second is.
    stops: [(&'static str, Stand); 2],
    /// How its upgrade ends; `Up` is the end of its bringing up.
    end: &'static str,
    /// How often each action is done on its nodes, one by one.
    steps: &'static [&'static [(&'static str, usize)]],
}

const FORWARD: &[(&str, usize)] = &[
    ("activate", 1),
    ("admit", 1),
    ("check", 1),
    ("drain", 1),
    ("install", 1),
    ("restart", 1),
    ("warm", 1),
];
/// There, and back again: it is admitted where it was before alone, and its old release is still there.
const THERE_AND_BACK: &[(&str, usize)] = &[
    ("activate", 2),
    ("admit", 1),
    ("check", 1),
    ("drain", 2),
    ("install", 1),
    ("restart", 2),
    ("warm", 2),
];
/// What was put on it ahead is not in its way.
const LOOKED_AT: &[(&str, usize)] = &[("check", 1), ("install", 1)];
const BROUGHT_UP: &[(&str, usize)] = &[("activate", 1), ("install", 1), ("setup", 1), ("start", 1)];

const STORIES: [Story; 11] = [
    Story {
        name: "checked",
        build: "2",
        stops: [
            ("check.2", Stand::Step("Preflight", "check")),
            ("drain.2", Stand::Step("Rolling", "drain")),
        ],
        end: "Succeeded",
        steps: &[FORWARD],
    },
    Story {
        name: "read",
        build: "2",
        stops: [
            ("calls.1", Stand::Phase("Baseline")),
            ("install.2", Stand::Step("Rolling", "install")),
        ],
        end: "Succeeded",
        steps: &[FORWARD],
    },
    Story {
        name: "activated",
        build: "2",
        stops: [
            // The link is the agent's own: it is held by the turn that the node's steps take.
            ("turn", Stand::Step("Rolling", "activate")),
            ("calls.2", Stand::Node("Analyse")),
        ],
        end: "Succeeded",
        steps: &[FORWARD],
    },
    Story {
        name: "stopped",
        build: "2",
        stops: [
            ("stop", Stand::Step("Rolling", "restart")),
            ("alive.2", Stand::Node("Probe")),
        ],
        end: "Succeeded",
        steps: &[FORWARD],
    },
    Story {
        name: "started",
        build: "2",
        stops: [
            ("start.2", Stand::Step("Rolling", "restart")),
            ("warm.2", Stand::Step("Rolling", "warm")),
        ],
        end: "Succeeded",
        steps: &[FORWARD],
    },
    Story {
        name: "admitted",
        build: "2",
        stops: [
            ("admit.2", Stand::Step("Rolling", "admit")),
            ("nothing", Stand::Phase("Soak")),
        ],
        end: "Succeeded",
        steps: &[FORWARD],
    },
    Story {
        name: "held",
        build: "2",
        stops: [
            ("nothing", Stand::Phase("Paused")),
            ("drain.2", Stand::Step("Rolling", "drain")),
        ],
        end: "Succeeded",
        steps: &[FORWARD, FORWARD],
    },
    Story {
        name: "bad",
        build: "bad",
        stops: [
            ("start.1", Stand::Step("RollingBack", "restart")),
            ("calls.1", Stand::Cure),
        ],
        end: "RolledBack",
        steps: &[THERE_AND_BACK, LOOKED_AT],
    },
    Story {
        name: "aborted",
        build: "2",
        stops: [
            ("warm.2", Stand::Step("Rolling", "warm")),
            ("admit.1", Stand::Step("RollingBack", "admit")),
        ],
        end: "Aborted",
        steps: &[THERE_AND_BACK, LOOKED_AT],
    },
    Story {
        name: "set-up",
        build: "1",
        stops: [("setup", Stand::Up("setup")), ("start.1", Stand::Up("start"))],
        end: "Up",
        steps: &[BROUGHT_UP, BROUGHT_UP],
    },
    Story {
        name: "installed",
        build: "1",
        stops: [("install.1", Stand::Up("install")), ("alive.1", Stand::Mute)],
        end: "Up",
        steps: &[BROUGHT_UP, BROUGHT_UP],
    },
];

impl Story {
    /// Their names.
    fn nodes(&self) -> impl Iterator<Item = String> {
        (1..=self.steps.len()).map(|number| format!("n{number}"))
    }

    fn is_upgraded(&self) -> bool {
        self.end != "Up"
    }
}

/// Environments that wait for the test.
struct Country {
    town: Town,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Country {
    fn new() -> Self {
        let town = Town::new();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let client = runtime.block_on(async {
            let admin = Kubeconfig::read_from(town.lab.admin()).expect("a kubeconfig");
            let config = Config::from_custom_kubeconfig(admin, &KubeConfigOptions::default()).await;
            Client::try_from(config.expect("a configuration")).expect("a client")
        });
        let this = Self { town, runtime, client };
        let trivial = &this.town.trivial;
        let held = trivial.path("held");
        let wait = |what: &str| {
            let file = held.join(format!("{{{{ env.name }}}}.{what}"));
            format!("set -eu\nwhile [ -e {} ]; do sleep 0.05; done\n", file.display())
        };
        let template = |action: &str, of_what: &str, script: &str| {
            let text = wait(&format!("{action}{of_what}")) + script;
            trivial.write(&format!("workspace/templates/{action}.sh"), &text);
        };
        let of_a_build = ".{{ build.version }}";
        for action in ["check", "drain", "warm", "admit"] {
            template(action, of_a_build, "");
        }
        template("setup", "", "");
        template(
            "install",
            of_a_build,
            "cp -R \"$STAGEGATE_ARTIFACT/.\" \"$STAGEGATE_RELEASE_DIR/\"\n",
        );
        template(
            "stop",
            "",
            "pid=$(cat run/pid)\nkill \"$pid\"\nwhile kill -0 \"$pid\" 2>/dev/null; do sleep 0.02; done\n",
        );
        let of_service = held.join("{{ env.name }}.WHAT.{{ build.version }}");
        template(
            "start",
            of_a_build,
            &format!(
                "mkdir -p run log\ntook=$(cat \"$STAGEGATE_RELEASE_DIR/took\")\n\
                 python3 \"$STAGEGATE_RELEASE_DIR/service.py\" {{{{ node.ports.http }}}} '{}' \"$took\" \
                 >log/web 2>&1 </dev/null &\necho $! >run/pid\n",
                of_service.display()
            ),
        );
        for (version, took) in BUILDS {
            trivial.write(&format!("workspace/builds/{version}/version"), version);
            trivial.write(&format!("workspace/builds/{version}/took"), took);
            trivial.write(
                &format!("workspace/builds/{version}/service.py"),
                include_str!("takeover/service.py"),
            );
        }
        for story in &STORIES {
            let port = ports::free(2);
            let nodes = story.nodes().zip(port..);
            let nodes = nodes.map(|(name, port)| format!("{{name: {name}, ports: {{http: {port}}}}}"));
            let text = include_str!("takeover/environment.yaml")
                .replace("NAME", story.name)
                .replace("BUILDS", &trivial.path("workspace/builds").to_string_lossy())
                .replace("NODES", &format!("[{}]", nodes.collect::<Vec<_>>().join(", ")))
                .replace("SOAK", if story.name == "admitted" { LONG_SOAK } else { "1s" });
            trivial.write(&format!("workspace/environments/{}.yaml", story.name), &text);
            if !story.is_upgraded() {
                this.hold(story.name, story.stops[0].0);
            }
            this.town.apply(&text);
        }
        for version in ["2", "bad"] {
            let wanted = format!("web={version}");
            let said = trivial.run(&["build", "manifest", "checked", &wanted]).expect_code(0);
            this.town.apply(&said.out);
        }
        this
    }

    fn hold(&self, environment: &str, what: &str) {
        self.town.trivial.write(&format!("held/{environment}.{what}"), "");
    }

    fn let_go(&self, environment: &str, what: &str) {
        let file = self.town.trivial.path(&format!("held/{environment}.{what}"));
        std::fs::remove_file(file).expect("it was held");
    }

    fn node(&self, environment: &str, node: &str, file: &str) -> std::path::PathBuf {
        let below = format!("state/environments/{environment}/nodes/{node}/{file}");
        self.town.trivial.path(&below)
    }

    fn journal(&self, environment: &str, node: &str) -> String {
        std::fs::read_to_string(self.node(environment, node, "journal")).unwrap_or_default()
    }

    /// The status of every object of a kind, by name. Asked for so often that kubectl would have the machine for itself.
    fn statuses(&self, kind: Kind) -> BTreeMap<String, Value> {
        let all = ListParams::default();
        let listed = self.runtime.block_on(kind.api(&self.client, NAMESPACE).list(&all));
        let items = listed.expect("listed").items.into_iter();
        items
            .map(|mut item| (item.name_any(), item.data["status"].take()))
            .collect()
    }

    fn stands(&self, story: &Story, at: Stand, upgrades: &BTreeMap<String, Value>) -> bool {
        let status = upgrades.get(story.name).unwrap_or(&Value::Null);
        let nodes = || status["nodes"].as_array().into_iter().flatten();
        let lines = |node: &str, action: &str, end: &str| {
            let journal = self.journal(story.name, node);
            let of_action = |line: &&str| line.contains(&format!(" {action} ")) && line.ends_with(end);
            journal.lines().filter(of_action).count()
        };
        match at {
            Stand::Step(phase, action) => {
                status["phase"] == phase && nodes().any(|node| node["step"]["action"] == action)
            }
            Stand::Node(phase) => nodes().any(|node| node["phase"] == phase),
            Stand::Phase(phase) => status["phase"] == phase,
            Stand::Cure => status["cure"].is_object(),
            Stand::Up(action) => story.nodes().all(|node| lines(&node, action, " start") == 1),
            Stand::Mute => story.nodes().all(|node| lines(&node, "start", " end rc=0") == 1),
        }
    }

    /// Waits until each of these stands where it is to be when a leader is killed.
    fn until_stand(&self, stop: usize, of: &[&Story]) {
        for story in of {
            let at = story.stops[stop].1;
            self.town.until(&format!("{} stands at {at:?}", story.name), |_| {
                self.stands(story, at, &self.statuses(Kind::Upgrade))
            });
        }
        let now = self.statuses(Kind::Upgrade);
        for story in of {
            let (name, at) = (story.name, story.stops[stop].1);
            assert!(self.stands(story, at, &now), "{name} stays at {at:?}: {:#}", now[name]);
        }
    }

    fn fences(&self) -> BTreeMap<String, u64> {
        let all = self.statuses(Kind::Environment).into_iter();
        all.map(|(name, status)| (name, status["fence"].as_u64().unwrap_or_default()))
            .collect()
    }

    /// Kills who leads, and waits until the next has taken all that is to go on.
    fn kill(&self, leader: Running, next: &mut Running) {
        let before = self.fences();
        leader.signal(rustix::process::Signal::KILL);
        drop(leader);
        next.until("leading");
        for Story { name, .. } in &STORIES {
            let paused = self
                .statuses(Kind::Upgrade)
                .get(*name)
                .is_some_and(|status| status["phase"] == "Paused");
            self.town.until(&format!("{name} is taken over"), |_| {
                paused || self.fences()[*name] > before[*name]
            });
        }
    }

    fn wish(&self, upgrade: &str, wish: &str) {
        let patch = json!({"spec": {"wish": wish}}).to_string();
        let what = ["patch", "upg", upgrade, "--type=merge", "-p", &patch];
        self.town.kubectl(&what, "");
    }
}

impl Country {
    /// Has the node's steps wait for their turn from when the one that has it now ends, for as long as what is given back lives.
    fn take_turn_after_its_step(&self, environment: &str, node: &str, go_on: impl FnOnce()) -> File {
        let busy = File::open(self.node(environment, node, ".busy")).expect("a step runs");
        let inode = busy.metadata().expect("it is open").ino();
        let waiting = std::thread::spawn(move || {
            busy.lock().expect("locked");
            busy
        });
        self.town.until("it is waited for", |_| {
            let locks = std::fs::read_to_string("/proc/locks").expect("Linux has it");
            let of_it = |line: &str| line.contains("->") && line.contains(&format!(":{inode} "));
            locks.lines().any(of_it)
        });
        go_on();
        waiting.join().expect("locked")
    }

    /// How often what was done on a node for these steps: each that was begun has ended well, once.
    fn done(&self, environment: &str, node: &str, of: &str) -> BTreeMap<String, usize> {
        let (mut begun, mut done) = (BTreeMap::new(), BTreeMap::new());
        for line in self.journal(environment, node).lines() {
            // When, the step, its action, the release, what became of it.
            let words: Vec<&str> = line.splitn(5, ' ').collect();
            let &[_, step, action, _, what] = words.as_slice() else {
                panic!("{line}")
            };
            let count = match what {
                _ if !step.starts_with(of) => continue,
                "skip" => continue,
                "start" => &mut begun,
                "end rc=0" => &mut done,
                other => panic!("{other}: {line}"),
            };
            *count.entry(action.to_owned()).or_default() += 1;
        }
        assert_eq!(begun, done, "{}", self.journal(environment, node));
        done
    }

    fn ends_as_it_must(&self, story: &Story) {
        let name = story.name;
        let of = if story.is_upgraded() {
            self.town.wait(
                &format!("upg/{name}"),
                &format!("jsonpath={{.status.phase}}={}", story.end),
            );
            self.town.unique(name) + "."
        } else {
            self.town.wait(&format!("env/{name}"), "condition=Ready");
            "lease".to_owned()
        };
        for (node, steps) in story.nodes().zip(story.steps) {
            let mut done = self.done(name, &node, &of);
            // What is put on the next node ahead is not waited for.
            if story.end == "RolledBack" || story.end == "Aborted" {
                done.entry("install".to_owned()).or_insert(1);
            }
            let wanted = steps.iter().map(|(action, times)| ((*action).to_owned(), *times));
            assert_eq!(done, wanted.collect(), "{name} {node}: {}", self.journal(name, &node));
        }
    }

    /// Nothing of an upgrade is told twice, and what its object counts is what the history has.
    fn is_told_once(&self, upgrade: &str) {
        let what = format!("upg/{upgrade}");
        self.town.until("the events are copied", |town| {
            town.get(&what)["status"]["pending"].is_null()
        });
        let home = Home::open(&self.town.trivial.path("state")).expect("a home");
        let query = EventQuery {
            environment: None,
            upgrade: Some(&self.town.unique(upgrade)),
            promotion: None,
            after: 0,
            take: Take::First(1_000),
        };
        let events = home.store().events(&query).expect("read");
        let told = self.town.get(&what)["status"]["told"].as_u64();
        assert_eq!(u64::try_from(events.len()).ok(), told, "{upgrade}: {events:#?}");
    }
}

#[test]
fn leaders_killed_in_every_phase_and_step_are_followed_and_nothing_is_done_twice() {
    let country = Country::new();
    let town = &country.town;
    let (upgraded, brought_up): (Vec<&Story>, Vec<&Story>) = STORIES.iter().partition(|story| story.is_upgraded());
    let mut first = town.controller();
    first.until("leading");
    for story in &upgraded {
        town.wait(&format!("env/{}", story.name), "condition=Ready");
        country.hold(story.name, story.stops[0].0);
    }
    country.hold("activated", "drain.2");
    country.hold("held", "install.2");
    for story in &upgraded {
        town.upgrade_of(story.name, story.name, story.build);
    }
    for (name, action) in [("activated", "drain"), ("held", "install")] {
        let at = Stand::Step("Rolling", action);
        let story = upgraded.iter().find(|story| story.name == name).expect("one of them");
        town.until("a step runs", |_| {
            country.stands(story, at, &country.statuses(Kind::Upgrade))
        });
    }
    let turn = country.take_turn_after_its_step("activated", "n1", || country.let_go("activated", "drain.2"));
    country.wish("held", "pause");
    country.let_go("held", "install.2");
    country.until_stand(0, &brought_up);
    country.until_stand(0, &upgraded);

    let mut second = town.controller();
    country.kill(first, &mut second);
    let after_it = country.statuses(Kind::Upgrade);
    assert_eq!(after_it["held"]["phase"], "Paused", "{:#}", after_it["held"]);
    country.wish("aborted", "abort");
    town.until("it goes back", |_| {
        country.statuses(Kind::Upgrade)["aborted"]["phase"] == "RollingBack"
    });
    let (last, others): (Vec<&Story>, Vec<&Story>) = STORIES.iter().partition(|story| story.name == "admitted");
    for story in &others {
        country.hold(story.name, story.stops[1].0);
        country.let_go(story.name, story.stops[0].0);
    }
    drop(turn);
    country.wish("held", "proceed");
    country.until_stand(1, &others);
    // Its time goes by itself.
    country.let_go("admitted", "admit.2");
    country.until_stand(1, &last);
    country.until_stand(1, &others);

    let mut third = town.controller();
    country.kill(second, &mut third);
    for story in &others {
        country.let_go(story.name, story.stops[1].0);
    }
    for story in &STORIES {
        country.ends_as_it_must(story);
    }
    for story in &upgraded {
        country.is_told_once(story.name);
    }
}

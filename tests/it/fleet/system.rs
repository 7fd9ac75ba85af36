//! The fleet of these tests: its workspace, its state, and looks at both from outside.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use stagegate::store::{SqliteStore, Store as _};

use crate::trivial::{Running, Said};

/// Nothing here takes longer unless it hangs, however busy the machine is.
const PATIENCE: Duration = Duration::from_mins(3);
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub const ENVIRONMENT: &str = "fleet";
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Looks until there is something, or fails naming what was waited for.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a test may want otherwise.
pub struct Settings {
    pub start_timeout: &'static str,
    pub patience: &'static str,
    /// More sinks, and the secrets that they need.
    pub reports: String,
    pub secrets: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start_timeout: "30s",
            patience: "1m",
            reports: String::new(),
            secrets: "{}".to_owned(),
        }
    }
}

/// A workspace and a state directory, both gone with it, services included.
pub struct Fleet {
    directory: tempfile::TempDir,
    environments: Vec<(String, u16)>,
}

impl Fleet {
    /// Written down, not brought up.
    pub fn new(settings: &Settings) -> Self {
        let mut this = Self {
            directory: tempfile::tempdir().expect("a directory"),
            environments: Vec::new(),
        };
        for (name, text) in [
            ("install.sh", include_str!("system/install.sh")),
            ("start.sh", include_str!("system/start.sh")),
            ("stop.sh", include_str!("system/stop.sh")),
            ("warm.sh", include_str!("system/warm.sh")),
        ] {
            this.write(&format!("workspace/templates/{name}"), text);
        }
        for version in ["1.0", "2.0", "2.1", "2.2"] {
            this.build(version, &[]);
        }
        this.build("3.0", &[("delay_s", "3")]);
        this.build("4.0", &[("answer", "lost it")]);
        this.build("5.0", &[("start", "#!/bin/sh\necho 'no such database' >&2\nexit 1\n")]);
        this.build(
            "6.0",
            &[("start", "#!/bin/sh\necho 'waiting for a friend'\nsleep 1000\n")],
        );
        this.build("7.0", &[("start", "#!/bin/sh\nrm -f run/pid\nexit 0\n")]);
        this.build("8.0", &[("lives_s", "8")]);
        this.environment(ENVIRONMENT, settings);
        this
    }

    /// Brought up on 1.0.
    pub fn up() -> Self {
        Self::up_with(&Settings::default())
    }

    pub fn up_with(settings: &Settings) -> Self {
        let this = Self::new(settings);
        this.run(&["up", ENVIRONMENT]).expect_code(0);
        this
    }

    /// A version of the service, good but for what is said otherwise.
    pub fn build(&self, version: &str, otherwise: &[(&str, &str)]) {
        let good = [
            ("version", version),
            ("service.py", include_str!("system/service.py")),
            ("start", include_str!("system/start")),
        ];
        for (name, text) in good.iter().chain(otherwise) {
            let path = self.write(&format!("workspace/builds/{version}/{name}"), text);
            if text.starts_with("#!") {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(path, mode).expect("ours");
            }
        }
    }

    /// One more environment in the same workspace and state, and the first of its ports.
    pub fn environment(&mut self, name: &str, settings: &Settings) -> u16 {
        let Settings {
            start_timeout,
            patience,
            reports,
            secrets,
        } = settings;
        let port = crate::ports::free(3);
        let text = include_str!("system/environment.yaml")
            .replace("NAME", name)
            .replace("TEST", &self.path("").display().to_string())
            .replace("RUNNER", &std::process::id().to_string())
            .replace("PORT", &port.to_string())
            .replace("START_TIMEOUT", start_timeout)
            .replace("PATIENCE", patience)
            .replace("spec:\n", &format!("spec:\n  secrets: {secrets}\n"));
        self.write(
            &format!("workspace/environments/{name}.yaml"),
            &format!("{text}{reports}"),
        );
        self.environments.push((name.to_owned(), port));
        port
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn node_path(&self, node: &str, file: &str) -> PathBuf {
        self.path(&format!("state/environments/{ENVIRONMENT}/nodes/{node}/{file}"))
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Begins a command and goes on.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(arguments, &[])
    }

    /// The same with more environment variables.
    pub fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagegate"));
        command
            .args(arguments)
            .env("STAGEGATE_STATE", self.state())
            .env("STAGEGATE_WORKSPACE", self.path("workspace"))
            .env("STAGEGATE_USER", "tester")
            .env("NO_COLOR", "1")
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("STAGEGATE_PORT_SHIFT")
            .env_remove("STAGEGATE_LISTEN")
            .envs(variables.iter().copied())
            .stdin(Stdio::null());
        Running::new(command, arguments)
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.start(arguments).end()
    }

    /// Begins an upgrade and goes on.
    pub fn begin(&self, version: &str) -> Running {
        self.start(&[
            "upgrade",
            ENVIRONMENT,
            "--build",
            &format!("web={version}"),
            "-o",
            "json",
        ])
    }

    pub fn upgrade(&self, version: &str) -> Said {
        self.begin(version).end()
    }

    /// The last upgrade as anybody may read it while it goes on; null when there is none.
    pub fn last(&self) -> Value {
        let status = self.run(&["status", ENVIRONMENT, "-o", "json"]);
        status.expect_code(0).json()["status"]["upgrade"].take()
    }

    /// Waits until the upgrade that this driver drives is as wished.
    pub fn wait(&self, driver: &mut Running, what: &str, wish: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let ended = driver.has_ended();
            let seen = self.last();
            if wish(&seen) {
                return Some(seen);
            }
            assert!(!ended, "{what}: the driver ended before: {}", driver.words());
            None
        })
    }

    /// Waits until a node is in one of these phases.
    pub fn wait_node(&self, driver: &mut Running, node: &str, phases: &[&str]) {
        self.wait(driver, &format!("{node} in {phases:?}"), |u| {
            phases.iter().any(|phase| of_node(u, node)["phase"] == *phase)
        });
    }

    /// Upgrades so far, oldest first.
    pub fn history(&self) -> Vec<Value> {
        let list = self.run(&["history", ENVIRONMENT, "-o", "json"]);
        list.expect_code(0).json()["items"].as_array().expect("a list").clone()
    }

    /// The node's own record of its steps.
    pub fn journal(&self, node: &str) -> Vec<Entry> {
        let text = std::fs::read_to_string(self.node_path(node, "journal")).expect("a journal");
        text.lines().map(Entry::read).collect()
    }

    /// The service's own record of its starts.
    pub fn starts(&self, node: &str) -> Vec<Start> {
        let text = std::fs::read_to_string(self.node_path(node, "log/starts")).unwrap_or_default();
        text.lines().map(Start::read).collect()
    }

    /// The process that serves on a node.
    pub fn pid(&self, node: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.node_path(node, "run/pid")).ok()?;
        let pid = text.trim().parse().ok()?;
        // A zombie answers nobody.
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = state[state.rfind(')')? + 1..].trim_start().chars().next()?;
        (state != 'Z').then_some(pid)
    }

    /// Ends a node's service as a crash would.
    pub fn kill_service(&self, node: &str) {
        let pid = self.pid(node).expect("it runs");
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
    }

    /// Makes one node slow.
    pub fn make_slow(&self, node: &str) {
        std::fs::write(self.node_path(node, "slow"), "").expect("written");
    }

    pub fn make_quick(&self, node: &str) {
        std::fs::remove_file(self.node_path(node, "slow")).expect("was there");
    }

    /// Makes what every node needs slow.
    pub fn make_all_slow(&self) {
        self.write("shared-is-slow", "");
    }

    /// Lets every install wait from now on.
    pub fn hold_installs(&self) {
        self.write("hold-installs", "");
    }

    pub fn let_installs_go(&self) {
        // Also when none was held.
        let _ = std::fs::remove_file(self.path("hold-installs"));
    }

    pub fn make_all_quick(&self) {
        std::fs::remove_file(self.path("shared-is-slow")).expect("was there");
    }

    /// What a node answers to everybody; `None` when it does not.
    pub fn ask(&self, node: &str) -> Option<String> {
        let index = NODES.iter().position(|n| *n == node).expect("one of ours");
        let port = self.environments[0].1 + u16::try_from(index).expect("small");
        let mut call = TcpStream::connect(("127.0.0.1", port)).ok()?;
        call.set_read_timeout(Some(PATIENCE)).ok()?;
        call.write_all(b"GET /alive HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        call.read_to_string(&mut answer).ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.trim();
        body.strip_prefix("alive ").map(str::to_owned)
    }

    /// Every node answers, and each with this version.
    pub fn assert_serves(&self, version: &str) {
        for node in NODES {
            assert_eq!(self.ask(node).as_deref(), Some(version), "{node}");
        }
    }

    /// On every node an upgrade completed these steps once, as its journal says, and the service has started as often,
    /// by its own word, within the step that the journal names.
    pub fn assert_changed_once(&self, upgrade: &Value, version: &str) {
        let name = upgrade["metadata"]["name"].as_str().expect("a name");
        for node in NODES {
            let journal = self.journal(node);
            for action in ["install", "restart"] {
                let done = completed(&journal, name, action);
                assert_eq!(done.len(), 1, "{node}: {action} of {name}: {journal:#?}");
            }
            let starts = self.starts(node);
            let of_version: Vec<_> = starts.iter().filter(|s| s.version == version).collect();
            assert_eq!(of_version.len(), 1, "{node}: {starts:?}");
            let restart = completed(&journal, name, "restart")[0];
            let begun = journal.iter().find(|e| e.id == restart.id && e.end == "start");
            let begun = begun.expect("an end has a beginning");
            assert!(
                of_version[0].at >= begun.at && of_version[0].at <= restart.at,
                "{node}: {starts:?}: {journal:#?}"
            );
        }
    }

    /// No driver holds the environment.
    pub fn assert_free(&self) {
        let store = SqliteStore::open(&self.state()).expect("the state");
        let lease = store.lease(ENVIRONMENT).expect("read").expect("was taken once");
        assert_eq!(lease.holder, None);
    }

    /// Nothing that was begun on a node has no end.
    pub fn assert_no_step_open(&self) {
        for node in NODES {
            let journal = self.journal(node);
            for begun in journal.iter().filter(|e| e.end == "start") {
                let ended = journal.iter().any(|e| e.id == begun.id && e.end.starts_with("end "));
                assert!(ended, "{node}: {begun:?} did not end: {journal:#?}");
            }
        }
    }

    /// What the file sink has, in its order.
    pub fn reported(&self) -> Vec<Value> {
        let path = self.path(&format!("state/environments/{ENVIRONMENT}/reports.jsonl"));
        let text = std::fs::read_to_string(path).expect("reports");
        text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
    }
}

impl Drop for Fleet {
    /// Also after a failure: nothing may run on.
    fn drop(&mut self) {
        self.let_installs_go();
        for (name, _) in &self.environments {
            let gone = self.run(&["down", name, "--purge"]);
            if gone.code != Some(0) {
                eprintln!("{gone:?}");
            }
        }
    }
}

/// One node of an upgrade's status.
pub fn of_node<'a>(upgrade: &'a Value, node: &str) -> &'a Value {
    let nodes = upgrade["status"]["nodes"].as_array();
    let found = nodes.and_then(|nodes| nodes.iter().find(|n| n["name"] == node));
    found.unwrap_or(&Value::Null)
}

/// Phase and reason of an upgrade.
pub fn phase(upgrade: &Value) -> (&str, &str) {
    let text = |key: &str| upgrade["status"][key].as_str().unwrap_or_default();
    (text("phase"), text("reason"))
}

/// The ends of an action that an upgrade completed.
pub fn completed<'a>(journal: &'a [Entry], upgrade: &str, action: &str) -> Vec<&'a Entry> {
    let ours = |e: &&Entry| e.id.starts_with(&format!("{upgrade}.")) && e.action == action && e.end == "end rc=0";
    journal.iter().filter(ours).collect()
}

/// A line of a node's journal.
#[derive(Debug)]
pub struct Entry {
    pub at: Timestamp,
    pub id: String,
    pub action: String,
    pub end: String,
}

impl Entry {
    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        let [at, id, action, _release, end] = words[..] else {
            panic!("no line of a journal: {line}");
        };
        Self {
            at: at.parse().expect("a time"),
            id: id.to_owned(),
            action: action.to_owned(),
            end: end.to_owned(),
        }
    }
}

/// A line that the service wrote when it started.
#[derive(Debug)]
pub struct Start {
    pub at: Timestamp,
    pub pid: u32,
    pub version: String,
}

impl Start {
    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let [at, pid, version] = words[..] else {
            panic!("no line of a start: {line}");
        };
        let (seconds, millis) = at.split_once('.').expect("milliseconds");
        let millis: i64 = format!("{seconds}{millis}").parse().expect("a number");
        Self {
            at: Timestamp::from_millisecond(millis).expect("a time"),
            pid: pid.parse().expect("a pid"),
            version: version.to_owned(),
        }
    }
}

/// Whether a file system of their own can be had: only root may mount.
pub fn mount_small_disk(at: &Path, mebibytes: u32) {
    std::fs::create_dir_all(at).expect("made");
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=700"), "fleet"])
        .arg(at)
        .status();
    assert!(
        done.expect("mount runs").success(),
        "this test mounts a small disk: run it as root, as tests/run does"
    );
}

//! The promises of `stagegate::hosts`, kept on this machine and over a real sshd on loopback: every row runs on both.

mod connections;
mod logs;
mod releases;
mod secrets;
mod services;
mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stagegate::hosts::{
    AnyHost, FencingToken, Host as _, HostError, LocalHost, NodeAddress, NodeSight, Script, Step, StepEnd, StepState,
    Work,
};
use stagegate::model::values::Digest;

use crate::sshd::Sshd;

/// Longer than anything here takes: a row that waits for it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

macro_rules! on_both_hosts {
    ($($row:ident)*) => {
        mod local { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $row() { super::$row(crate::hosts::Bench::local()).await; }
        )* }
        mod ssh { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $row() { super::$row(crate::hosts::Bench::ssh()).await; }
        )* }
    };
}
use on_both_hosts;

/// A host with one node on it, whose directory has a name that a careless script would trip over.
struct Bench {
    host: Arc<AnyHost>,
    node: NodeAddress,
    root: PathBuf,
    sshd: Option<Sshd>,
    // Last, so that the daemon is gone before its files.
    _files: tempfile::TempDir,
}

impl Bench {
    fn local() -> Self {
        Self::new(|_| (AnyHost::Local(LocalHost::new()), None))
    }

    fn ssh() -> Self {
        Self::new(|root| {
            let sshd = Sshd::start(root);
            (AnyHost::Ssh(sshd.host()), Some(sshd))
        })
    }

    fn new(host: impl FnOnce(&Path) -> (AnyHost, Option<Sshd>)) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let root = files.path().canonicalize().expect("it exists");
        let (host, sshd) = host(&root);
        let directory = root.join(r#"it's a "node" $HOME"#);
        Self {
            host: Arc::new(host),
            node: NodeAddress {
                environment: "e1".into(),
                node: "n1".into(),
                directory: directory.to_str().expect("UTF-8").into(),
                pid_file: Some("run/pid".into()),
            },
            root,
            sshd,
            _files: files,
        }
    }

    /// The same host as another driver sees it, over a connection of its own.
    fn another_driver(&self) -> AnyHost {
        match &self.sshd {
            None => AnyHost::Local(LocalHost::new()),
            Some(sshd) => AnyHost::Ssh(sshd.host()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.node.directory).join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The node's files that hold this text.
    fn holding(&self, text: &str) -> Vec<PathBuf> {
        let said = Command::new("grep")
            .args(["-rlF", text])
            .arg(&self.node.directory)
            .output()
            .expect("grep runs");
        let list = String::from_utf8(said.stdout).expect("text");
        let mut found: Vec<PathBuf> = list.lines().map(PathBuf::from).collect();
        found.sort_by_key(|path| std::cmp::Reverse(path.clone()));
        found
    }

    /// A FIFO beside the node directory, to meet a script at.
    fn meeting_point(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        path
    }

    /// Runs to the end, which must come.
    async fn run(&self, id: &str, work: Work) -> StepEnd {
        let sight = self.ask(id, work, PATIENCE).await.expect("the host does its part");
        ended(&sight, id)
    }

    async fn succeed(&self, id: &str, work: Work) {
        let end = self.run(id, work).await;
        assert_eq!(end.exit, 0, "{id}: {}", end.log_tail);
    }

    async fn ask(&self, id: &str, work: Work, patience: Duration) -> Result<NodeSight, HostError> {
        self.host
            .run(&self.node, &token("home-a", 1), &step(id, work), patience)
            .await
    }

    async fn observe(&self) -> NodeSight {
        self.host.observe(&self.node, &[]).await.expect("it can be looked at")
    }

    /// The journal without its time stamps, which must be there.
    fn journal(&self) -> Vec<String> {
        self.read("journal")
            .lines()
            .map(|line| {
                let (at, rest) = line.split_once(' ').expect("a stamp and words");
                assert!(at.parse::<jiff::Timestamp>().is_ok(), "{line}");
                rest.to_owned()
            })
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Whatever a failed row has left: by the pid files that its services write.
        for name in ["run/pid", "run/child"] {
            if let Ok(text) = fs::read_to_string(self.path(name))
                && let Some(pid) = pid(&text)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

fn pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
}

/// Does it do anything any more? A dead process stays in the table until its parent has taken note, which init does when it
/// likes (in some containers never); `kill -0` would call it alive.
fn lives(text: &str) -> bool {
    let pid = pid(text).unwrap_or_else(|| panic!("`{text}` is no pid"));
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, state)| !state.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

fn token(home: &str, counter: u64) -> FencingToken {
    FencingToken {
        home: home.into(),
        counter,
    }
}

fn step(id: &str, work: Work) -> Step {
    let action = match &work {
        Work::Script(_) => "check",
        Work::Setup(_) => "setup",
        Work::Take { .. } => "take",
        Work::Install { .. } => "install",
        Work::Activate { .. } => "activate",
        Work::Restart { .. } => "restart",
        Work::Start { .. } => "start",
        Work::Stop { .. } => "stop",
        Work::Prune { .. } => "prune",
    };
    Step {
        id: id.into(),
        action: action.into(),
        work,
    }
}

fn script(text: impl Into<String>) -> Script {
    Script {
        text: text.into(),
        deadline: PATIENCE,
        secrets: BTreeMap::new(),
        environment: BTreeMap::new(),
    }
}

fn check(text: impl Into<String>) -> Work {
    Work::Script(script(text))
}

fn ended(sight: &NodeSight, id: &str) -> StepEnd {
    match sight.steps.get(id) {
        Some(StepState::Ended(end)) => end.clone(),
        other => panic!("{id} should have ended: {other:?}"),
    }
}

fn install(release: &Digest) -> Work {
    Work::Install {
        release: *release,
        script: script(
            "printf '%s' \"$STAGEGATE_RELEASE_DIR\" >\"$STAGEGATE_RELEASE_DIR/version\"\n\
             printf 'while :; do sleep 1; done\\n' >\"$STAGEGATE_RELEASE_DIR/serve\"",
        ),
    }
}

/// A service that is a shell in a loop with a child.
fn start() -> Script {
    script(
        "mkdir -p run log\n\
         if [ -e run/pid ] && kill -0 \"$(cat run/pid)\" 2>/dev/null; then exit 0; fi\n\
         sh \"$STAGEGATE_RELEASE_DIR/serve\" >log/out 2>&1 </dev/null &\n\
         echo $! >run/pid\n",
    )
}

/// Leaves the waiting to the host, which waits for the end of all that the service is.
fn stop() -> Script {
    script("kill \"$(cat run/pid)\"\n")
}

/// Waits until a script opens this FIFO to write, and answers what it writes.
async fn met_at(point: &Path) -> String {
    let point = point.to_owned();
    tokio::task::spawn_blocking(move || fs::read_to_string(point))
        .await
        .expect("no panic")
        .expect("a FIFO")
}

/// Lets a script go on that reads from this FIFO.
async fn let_go(point: &Path) {
    let point = point.to_owned();
    tokio::task::spawn_blocking(move || fs::write(point, "go\n"))
        .await
        .expect("no panic")
        .expect("a FIFO");
}

/// A script that says at one FIFO that it runs, and waits at another.
fn meeting(arrived: &Path, go: &Path) -> String {
    format!(
        "echo ran >>effects\necho $$ >'{}'\nread -r _ <'{}'\n",
        arrived.display(),
        go.display()
    )
}

async fn prepared(bench: &Bench, release: &Digest, nr: u32) {
    bench.succeed(&format!("i{nr}"), install(release)).await;
    bench
        .succeed(&format!("a{nr}"), Work::Activate { release: *release })
        .await;
}

#[test]
fn the_agent_passes_shellcheck() {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hosts/agent");
    let files = ["looking.sh", "asking.sh", "step.sh"].map(|name| agent.join(name));
    let said = Command::new("shellcheck")
        .args(["--shell=sh", "--norc"])
        .args(files)
        .output()
        .expect("this test needs shellcheck: apt-get install shellcheck");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

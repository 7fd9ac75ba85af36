//! The promises of `stagegate::hosts`, kept on this machine and over a real sshd on loopback: every row runs on both.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stagegate::hosts::{
    AnyHost, FencingToken, Host as _, HostError, LocalHost, NodeAddress, NodeSight, Script, SshHost, Step, StepEnd,
    StepState, Tail, TailFrom, Work,
};
use stagegate::model::values::Digest;
use stagegate::signals::log::follow::{Begin, Follower, HostLog};

use crate::sshd::{Sshd, kill};

/// Longer than anything here takes: a row that waits for it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

macro_rules! on_both_hosts {
    ($($row:ident)*) => {
        mod local { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $row() { super::$row(super::Bench::local()).await; }
        )* }
        mod ssh { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $row() { super::$row(super::Bench::ssh()).await; }
        )* }
    };
}

on_both_hosts! {
    a_step_runs_once_however_often_it_is_asked_for
    a_step_outlives_its_driver_and_is_joined_by_the_next
    steps_of_a_node_run_one_at_a_time
    an_older_token_and_a_foreign_home_are_refused
    a_script_that_hangs_ends_at_its_deadline_with_its_group
    a_script_that_forks_away_leaves_nothing
    a_flood_of_output_is_bounded_and_keeps_its_ends
    a_script_gets_the_documented_environment_and_nothing_else
    a_start_without_a_service_is_a_failure
    a_component_without_builds_starts_without_one
    a_failed_start_leaves_nothing
    a_service_that_does_not_stop_is_killed_and_the_log_says_so
    a_stale_pid_file_is_not_a_service
    an_incomplete_install_is_not_a_release
    a_complete_release_is_not_installed_again
    activation_is_atomic_for_who_reads
    a_service_goes_through_its_life
    a_step_whose_watcher_was_killed_has_died_and_leaves_nothing
    secrets_are_files_for_as_long_as_the_step_runs_and_nowhere_else
    variables_of_a_script_lie_as_secrets_do_and_reach_it_whole
    releases_are_told_by_the_order_of_their_completion
    a_full_disk_is_a_clear_failure_and_corrupts_nothing
    a_build_is_delivered_whole_and_once
    a_followed_file_is_read_on_across_its_rotation
    what_a_service_writes_into_its_renamed_log_still_counts
    connections_of_a_service_tell_whose_they_are
    a_node_without_a_directory_can_be_looked_at_and_destroyed
    names_that_would_escape_are_refused
}

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

async fn a_step_runs_once_however_often_it_is_asked_for(bench: Bench) {
    let work = || check("echo ran >>effects; echo done");
    let (one, two, three) = tokio::join!(
        bench.run("s1", work()),
        bench.run("s1", work()),
        bench.run("s1", work())
    );
    assert_eq!(one.log_tail, "done\n");
    assert_eq!(one.exit, 0);
    assert_eq!((&one, &one), (&two, &three));
    assert_eq!(bench.run("s1", work()).await, one);
    assert_eq!(bench.read("effects"), "ran\n");
    assert_eq!(bench.journal(), ["s1 check - start", "s1 check - end rc=0"]);
    assert_eq!(bench.run("s2", check("exit 3")).await.exit, 3);
}

async fn a_step_outlives_its_driver_and_is_joined_by_the_next(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let work = check(meeting(&arrived, &go));
    let driver = tokio::spawn({
        let (host, node, step) = (Arc::clone(&bench.host), bench.node.clone(), step("s1", work.clone()));
        async move { host.run(&node, &token("home-a", 1), &step, PATIENCE).await }
    });
    met_at(&arrived).await;
    // Dropping the call kills the ssh client in the middle of it.
    driver.abort();
    assert!(driver.await.is_err_and(|e| e.is_cancelled()));

    let next = bench.another_driver();
    let sight = next
        .observe(&bench.node, &["s1".into(), "s0".into()])
        .await
        .expect("seen");
    assert_eq!(sight.steps, BTreeMap::from([("s1".into(), StepState::Running)]));
    let (sight, ()) = tokio::join!(
        async {
            next.run(&bench.node, &token("home-a", 2), &step("s1", work.clone()), PATIENCE)
                .await
        },
        let_go(&go)
    );
    assert_eq!(ended(&sight.expect("joined"), "s1").exit, 0);
    assert_eq!(bench.read("effects"), "ran\n");
    assert_eq!(bench.journal().len(), 2);
}

async fn steps_of_a_node_run_one_at_a_time(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let sight = bench.ask("s1", check(meeting(&arrived, &go)), Duration::ZERO).await;
    assert_eq!(sight.expect("begun").steps["s1"], StepState::Running);
    met_at(&arrived).await;
    let sight = bench.ask("s2", check("true"), Duration::from_millis(50)).await;
    assert_eq!(sight.expect("queued").steps["s2"], StepState::Running);
    let_go(&go).await;
    bench.succeed("s2", check("true")).await;
    let journal = bench.journal();
    assert_eq!(journal[1..3], ["s1 check - end rc=0", "s2 check - start"]);
}

async fn an_older_token_and_a_foreign_home_are_refused(bench: Bench) {
    let run = async |home: &str, counter: u64, id: &str| {
        let step = step(id, check("echo ran >>effects"));
        bench
            .host
            .run(&bench.node, &token(home, counter), &step, PATIENCE)
            .await
    };
    run("home-a", 7, "s1").await.expect("the first token is taken");
    run("home-a", 9, "s2").await.expect("a newer token is taken");
    assert_eq!(
        run("home-a", 8, "s3").await,
        Err(HostError::Fenced {
            node: "n1".into(),
            seen: "home-a/9".into(),
            ours: "home-a/8".into()
        })
    );
    let foreign = Err(HostError::ForeignHome {
        node: "n1".into(),
        seen: "home-a".into(),
    });
    assert_eq!(run("home-b", 99, "s4").await, foreign);
    let artifact = bench.root.join("artifact");
    let refused = bench
        .host
        .deliver(&bench.node, &token("home-b", 99), &Digest::of(b"1"), &artifact)
        .await;
    assert_eq!(refused.map(|()| NodeSight::default()), foreign);
    assert!(bench.host.destroy(&bench.node, &token("home-a", 8)).await.is_err());
    assert_eq!(bench.read("fence"), "home-a 9\n");
    assert_eq!(bench.observe().await.fence, Some(token("home-a", 9)));
    let older = bench.host.adopt(&bench.node, &token("home-a", 8)).await;
    assert!(
        matches!(older, Err(HostError::Fenced { .. })),
        "adopting lets no older driver in"
    );

    let adopted = bench.host.adopt(&bench.node, &token("home-b", 1)).await;
    adopted.expect("adopted, though its counter is lower");
    run("home-b", 1, "s5").await.expect("it serves the new home");
    assert!(matches!(
        run("home-a", 10, "s6").await,
        Err(HostError::ForeignHome { .. })
    ));
    assert_eq!(bench.read("effects"), "ran\nran\nran\n");
}

async fn a_script_that_hangs_ends_at_its_deadline_with_its_group(bench: Bench) {
    for (id, ignoring) in [("s1", ""), ("s2", "trap '' TERM\n")] {
        // The first deadline that lets the script come as far as hanging: on a machine under load that takes its time.
        for deadline in [200, 2000, 20_000] {
            let id = format!("{id}-{deadline}");
            let hangs = Script {
                deadline: Duration::from_millis(deadline),
                ..script(format!(
                    "{ignoring}echo $$ >pids\nsleep 1000 &\necho $! >>pids\necho hanging\nwait\n"
                ))
            };
            let end = bench.run(&id, Work::Script(hangs)).await;
            assert_eq!(end.exit, 124);
            let (said, note) = end.log_tail.split_once("stagegate: ").expect("a note");
            assert_eq!(
                note,
                format!(
                    "check: the deadline of {} s passed; its process group was killed\n",
                    match deadline {
                        200 => "0.200".to_owned(),
                        ms => (ms / 1000).to_string(),
                    }
                )
            );
            if said != "hanging\n" {
                assert_eq!(said, "");
                continue;
            }
            for pid in bench.read("pids").lines() {
                assert!(!lives(pid), "{id}: {pid} lives on");
            }
            break;
        }
        assert_eq!(bench.read("pids").lines().count(), 2, "{id}: it never came to hang");
        fs::remove_file(bench.path("pids")).expect("removed");
    }
}

async fn a_script_that_forks_away_leaves_nothing(bench: Bench) {
    bench
        .succeed(
            "s1",
            check(
                "setsid sh -c 'echo $$ >away; exec sleep 1000' &\nsleep 1000 &\necho $! >within\n\
                 while [ ! -s away ]; do sleep 0.01; done\n",
            ),
        )
        .await;
    assert!(!lives(&bench.read("within")), "a child in the script's group");
    assert!(!lives(&bench.read("away")), "a child that left the group");
}

async fn a_flood_of_output_is_bounded_and_keeps_its_ends(bench: Bench) {
    let end = bench
        .run(
            "s1",
            check("echo the first line; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the last line; exit 1"),
        )
        .await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("the last line\n"), "{}", end.log_tail);
    assert!(end.log_tail.len() < 5000);
    let log = bench.read("steps/s1/log");
    assert!(log.starts_with("the first line\n"));
    assert!(log.len() < 200_000, "{} bytes", log.len());
    // And one that just fits is whole, with nothing twice.
    bench
        .succeed("s2", check("head -c 60000 /dev/zero | tr '\\0' y; echo; echo z"))
        .await;
    assert_eq!(bench.read("steps/s2/log").len(), 60_003);
}

async fn a_script_gets_the_documented_environment_and_nothing_else(bench: Bench) {
    bench
        .succeed(
            "s1",
            check("env >seen; pwd >where; grep -E 'Sig(Ign|Blk)' /proc/self/status >signals; umask >mask"),
        )
        .await;
    let seen = bench.read("seen");
    let mut names: Vec<&str> = seen
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        // What the shell that is the script adds by itself.
        .filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "HOME",
            "LANG",
            "PATH",
            "STAGEGATE_DEADLINE_S",
            "STAGEGATE_NODE_DIR",
            "STAGEGATE_RELEASE_DIR",
            "STAGEGATE_SECRETS_DIR",
            "STAGEGATE_STEP",
            "TZ"
        ]
    );
    assert!(seen.contains("STAGEGATE_DEADLINE_S=60\n"));
    assert_eq!(bench.read("where").trim_end(), bench.node.directory);
    // A service started with SIGINT ignored could never be interrupted. 32 and 33 are the C library's own: no program can
    // use them, and glibc's posix_spawn leaves them ignored in what it starts.
    for line in bench.read("signals").lines() {
        let (_, mask) = line.split_once('\t').expect("a name and a mask");
        let mask = u64::from_str_radix(mask, 16).expect("hexadecimal");
        assert_eq!(mask & !(0b11 << 31), 0, "{line}");
    }
    assert_eq!(bench.read("mask"), "0022\n");
}

async fn prepared(bench: &Bench, release: &Digest, nr: u32) {
    bench.succeed(&format!("i{nr}"), install(release)).await;
    bench
        .succeed(&format!("a{nr}"), Work::Activate { release: *release })
        .await;
}

async fn a_start_without_a_service_is_a_failure(bench: Bench) {
    let work = |text: &str| Work::Start { start: script(text) };
    bench.succeed("i0", install(&Digest::of(b"1"))).await;
    let end = bench.run("s1", work("echo ran >>effects")).await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("nothing is activated"), "{}", end.log_tail);
    assert!(!bench.path("effects").exists());
    prepared(&bench, &Digest::of(b"1"), 1).await;
    let astray = "setsid sh -c 'echo $$ >away; exec sleep 1000' &\nwhile [ ! -s away ]; do sleep 0.01; done";
    for (id, text) in [
        ("s2", "exit 0"),
        ("s3", "mkdir -p run; sh -c 'echo $$' >run/pid"),
        ("s4", astray),
    ] {
        let end = bench.run(id, work(text)).await;
        assert_eq!(end.exit, 1, "{id}");
        assert!(
            end.log_tail
                .contains("start ended with 0, but run/pid names no living process"),
            "{id}: {}",
            end.log_tail
        );
    }
    assert!(!lives(&bench.read("away")), "a service that the pid file does not name");
    assert_eq!(bench.observe().await.running, None);
}

async fn a_component_without_builds_starts_without_one(bench: Bench) {
    let serves =
        script("mkdir -p run\n[ -z \"$STAGEGATE_RELEASE_DIR\" ]\nsleep 1000 >/dev/null 2>&1 &\necho $! >run/pid\n");
    bench.succeed("s1", Work::Start { start: serves.clone() }).await;
    let running = bench.observe().await.running.expect("it runs");
    assert_eq!(running.build, None);
    let age = jiff::Timestamp::now().duration_since(running.started_at).as_secs();
    assert!((-2..3600).contains(&age), "started {age} s ago");
    let (stop, start) = (stop(), serves);
    bench.succeed("s2", Work::Restart { stop, start }).await;
    assert_ne!(bench.observe().await.running.map(|r| r.pid), Some(running.pid));
    bench.succeed("s3", Work::Stop { stop: self::stop() }).await;
    assert_eq!(bench.observe().await.running, None);
}

async fn a_failed_start_leaves_nothing(bench: Bench) {
    prepared(&bench, &Digest::of(b"1"), 1).await;
    let mut failing = start();
    failing.text.push_str(
        "setsid sh -c 'echo $$ >away; exec sleep 1000' &\nwhile [ ! -s away ]; do sleep 0.01; done\nexit 5\n",
    );
    let end = bench.run("s1", Work::Start { start: failing }).await;
    assert_eq!(end.exit, 5);
    assert!(!lives(&bench.read("run/pid")), "what it started");
    assert!(!lives(&bench.read("away")), "what left its group");
    assert_eq!(bench.observe().await.running, None);
}

async fn a_service_that_does_not_stop_is_killed_and_the_log_says_so(bench: Bench) {
    let release = Digest::of(b"1");
    prepared(&bench, &release, 1).await;
    bench.succeed("s1", Work::Start { start: start() }).await;
    let first = bench.observe().await.running.expect("it runs");
    // A stop script that hangs, and one that says it is done.
    for (id, text) in [("s2", "sleep 1000"), ("s3", "true")] {
        let stop = Script {
            deadline: Duration::from_millis(300),
            ..script(text)
        };
        let before = bench.observe().await.running.expect("it runs");
        let end = bench.run(id, Work::Restart { stop, start: start() }).await;
        assert_eq!(end.exit, 0, "{}", end.log_tail);
        assert!(
            end.log_tail.contains("still alive after the stop script"),
            "{}",
            end.log_tail
        );
        assert!(!lives(&before.pid.to_string()));
    }
    let last = bench.observe().await.running.expect("it runs again");
    assert_ne!(last.pid, first.pid);
    assert_eq!(last.build, Some(release));
    bench.succeed("s4", Work::Stop { stop: stop() }).await;
}

async fn a_stale_pid_file_is_not_a_service(bench: Bench) {
    fs::create_dir_all(bench.path("run")).expect("made");
    // This very process, which is younger than the file says.
    fs::write(bench.path("run/pid"), format!("{}\n", std::process::id())).expect("written");
    let seen = bench.observe().await.running.expect("one that no step started");
    assert_eq!((seen.pid, seen.build), (std::process::id(), None));
    let pid_file = fs::File::options().append(true).open(bench.path("run/pid"));
    let yesterday = std::time::SystemTime::now() - Duration::from_hours(24 * 365);
    pid_file.expect("opened").set_modified(yesterday).expect("set");
    assert_eq!(bench.observe().await.running, None);
    // And not this process is killed by Drop.
    fs::remove_file(bench.path("run/pid")).expect("removed");
}

async fn an_incomplete_install_is_not_a_release(bench: Bench) {
    let release = Digest::of(b"1");
    let half = |text: String| Work::Install {
        release,
        script: script(format!("echo half >\"$STAGEGATE_RELEASE_DIR/half\"\n{text}")),
    };
    let end = bench.run("s1", half("exit 1".into())).await;
    assert_eq!(end.exit, 1);
    assert_eq!(bench.observe().await.releases, []);

    // Killed in the middle, as a power cut would.
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let sight = bench.ask("s2", half(meeting(&arrived, &go)), Duration::ZERO).await;
    sight.expect("begun");
    let script_pid = met_at(&arrived).await;
    for pid in [bench.read("steps/s2/pid"), bench.read("steps/s2/group"), script_pid] {
        kill(
            pid.split_whitespace()
                .next()
                .and_then(|p| p.parse().ok())
                .expect("a pid"),
        );
    }
    assert_eq!(bench.observe().await.releases, []);
    assert!(bench.path(&format!("releases/{}/half", release.hex())).exists());
    let end = bench.run("s3", Work::Activate { release }).await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("is not complete"), "{}", end.log_tail);
    assert_eq!(bench.observe().await.current, None);

    bench.succeed("s4", install(&release)).await;
    assert_eq!(bench.observe().await.releases, [release]);
    assert!(!bench.path(&format!("releases/{}/half", release.hex())).exists());
}

async fn a_complete_release_is_not_installed_again(bench: Bench) {
    let release = Digest::of(b"1");
    bench.succeed("s1", install(&release)).await;
    let again = Work::Install {
        release,
        script: script("echo ran >again; exit 1"),
    };
    bench.succeed("s2", again).await;
    assert!(!bench.path("again").exists());
    let hex = release.hex();
    assert_eq!(
        bench.journal(),
        [
            format!("s1 install {hex} start"),
            format!("s1 install {hex} end rc=0"),
            format!("s2 install {hex} skip")
        ]
    );
}

async fn activation_is_atomic_for_who_reads(bench: Bench) {
    let releases = [Digest::of(b"1"), Digest::of(b"2")];
    prepared(&bench, &releases[0], 1).await;
    bench.succeed("i2", install(&releases[1])).await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (done, version) = (Arc::clone(&done), bench.path("current/version"));
        move || {
            let mut reads = 0_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                fs::read_to_string(&version).map_err(|e| format!("after {reads} reads: {e}"))?;
                reads += 1;
            }
            Ok::<_, String>(reads)
        }
    });
    for nr in 0..10 {
        let release = releases[(nr + 1) % 2];
        bench.succeed(&format!("s{nr}"), Work::Activate { release }).await;
        assert_eq!(bench.observe().await.current, Some(release));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.join().expect("no panic").expect("never a gap") > 10);
}

async fn a_service_goes_through_its_life(bench: Bench) {
    let [old, new, other] = [Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3")];
    assert!(!bench.observe().await.set_up);
    bench
        .succeed("s1", Work::Setup(script("mkdir -p data; echo x >>data/made")))
        .await;
    bench
        .succeed("s2", Work::Setup(script("mkdir -p data; echo x >>data/made")))
        .await;
    assert_eq!(bench.read("data/made"), "x\n");
    assert!(bench.observe().await.set_up);

    prepared(&bench, &old, 1).await;
    bench.succeed("s3", Work::Start { start: start() }).await;
    let first = bench.observe().await.running.expect("it runs");
    assert_eq!(first.build, Some(old));
    let age = jiff::Timestamp::now().duration_since(first.started_at).as_secs();
    assert!((-2..3600).contains(&age), "started {age} s ago");
    // Starting what runs changes nothing.
    bench.succeed("s4", Work::Start { start: start() }).await;
    assert_eq!(bench.observe().await.running.as_ref(), Some(&first));

    prepared(&bench, &new, 2).await;
    assert_eq!(
        bench.observe().await.running.as_ref(),
        Some(&first),
        "it still serves the old build"
    );
    let restart = || Work::Restart {
        stop: stop(),
        start: start(),
    };
    bench.succeed("s5", restart()).await;
    let second = bench.observe().await.running.expect("it runs");
    assert_eq!(second.build, Some(new));
    assert!(!lives(&first.pid.to_string()));
    assert!(lives(&second.pid.to_string()));
    bench.succeed("s5", restart()).await;
    assert_eq!(
        bench.observe().await.running.as_ref(),
        Some(&second),
        "the same step does not restart twice"
    );
    bench.succeed("s6", restart()).await;
    let third = bench.observe().await.running.expect("it runs");
    assert_ne!(third.pid, second.pid, "another step does");

    let running = bench.read("running");
    let words: Vec<&str> = running.split_whitespace().collect();
    assert_eq!(words[..2], [new.hex(), third.pid.to_string()]);

    // Nobody prunes from under the feet of a service whose link has flipped.
    bench.succeed("i3", install(&other)).await;
    bench.succeed("a3", Work::Activate { release: old }).await;
    bench.succeed("p1", Work::Prune { keep: vec![] }).await;
    let sight = bench.observe().await;
    assert_eq!(sight.releases.len(), 2, "current and running");
    assert!(!sight.releases.contains(&other));
    bench.succeed("s7", restart()).await;
    bench.succeed("p2", Work::Prune { keep: vec![new] }).await;
    assert_eq!(bench.observe().await.releases.len(), 2);
    bench.succeed("p3", Work::Prune { keep: vec![] }).await;
    assert_eq!(bench.observe().await.releases, [old]);

    let refused = bench.host.destroy(&bench.node, &token("home-a", 1)).await;
    assert!(
        refused.as_ref().is_err_and(|e| e.to_string().contains("still runs")),
        "{refused:?}"
    );
    bench.succeed("s8", Work::Stop { stop: stop() }).await;
    assert_eq!(bench.observe().await.running, None);
    bench.succeed("s9", Work::Stop { stop: stop() }).await;
    assert_eq!(bench.journal().last().map(String::as_str), Some("s9 stop - skip"));
    let destroyed = bench.host.destroy(&bench.node, &token("home-a", 1)).await;
    destroyed.expect("destroyed");
    assert!(!Path::new(&bench.node.directory).exists());
}

async fn a_step_whose_watcher_was_killed_has_died_and_leaves_nothing(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let work = || {
        let mut script = script(meeting(&arrived, &go));
        script.secrets.insert("db".into(), b"hush".to_vec());
        Work::Script(script)
    };
    bench.ask("s1", work(), Duration::ZERO).await.expect("begun");
    let script_pid = met_at(&arrived).await;
    let watcher = bench.read("steps/s1/pid");
    kill(
        watcher
            .split_whitespace()
            .next()
            .and_then(|p| p.parse().ok())
            .expect("a pid"),
    );
    // Its script runs on, so it is not over yet …
    let sight = bench.host.observe(&bench.node, &["s1".into()]).await.expect("seen");
    assert_eq!(sight.steps["s1"], StepState::Running);
    // … until somebody asks for it, or for anything else on this node.
    let sight = bench.ask("s1", work(), PATIENCE).await.expect("asked");
    assert_eq!(sight.steps["s1"], StepState::Died);
    assert!(!lives(&script_pid));
    assert!(!bench.path("steps/s1/secrets").exists());
    bench.succeed("s2", check("true")).await;
    assert_eq!(bench.read("effects"), "ran\n");

    bench.ask("s3", work(), Duration::ZERO).await.expect("begun");
    let script_pid = met_at(&arrived).await;
    let watcher = bench.read("steps/s3/pid");
    kill(
        watcher
            .split_whitespace()
            .next()
            .and_then(|p| p.parse().ok())
            .expect("a pid"),
    );
    bench.succeed("s4", check("true")).await;
    assert!(!lives(&script_pid));
}

async fn secrets_are_files_for_as_long_as_the_step_runs_and_nowhere_else(bench: Bench) {
    const SECRET: &str = "correct-horse'\"\\ %s \t\u{e9}";
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let mut script = script(meeting(&arrived, &go) + "cat \"$STAGEGATE_SECRETS_DIR/db\" >copy\n");
    let bytes = [SECRET.as_bytes(), &[0, 255, b'\n']].concat();
    script.secrets.insert("db".into(), bytes.clone());
    assert!(!format!("{script:?}").contains("correct-horse"));
    let run = tokio::spawn({
        let (host, node) = (Arc::clone(&bench.host), bench.node.clone());
        let step = step("s1", Work::Script(script));
        async move { host.run(&node, &token("home-a", 1), &step, PATIENCE).await }
    });
    met_at(&arrived).await;
    let file = bench.path("steps/s1/secrets/script/db");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    for process in fs::read_dir("/proc").expect("/proc") {
        let path = process.expect("an entry").path();
        for place in ["cmdline", "environ"] {
            let text = fs::read(path.join(place)).unwrap_or_default();
            let found = text.windows(13).any(|w| w == b"correct-horse");
            assert!(!found, "{}/{place}", path.display());
        }
    }
    let_go(&go).await;
    let end = ended(&run.await.expect("no panic").expect("run"), "s1");
    assert_eq!(end.exit, 0, "{}", end.log_tail);
    assert_eq!(fs::read(bench.path("copy")).expect("copied"), bytes);
    fs::remove_file(bench.path("copy")).expect("removed");
    assert_eq!(bench.holding("correct-horse"), [""; 0].map(PathBuf::from));
}

/// The password of a package index, say.
async fn variables_of_a_script_lie_as_secrets_do_and_reach_it_whole(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let value = "https://user:correct-horse@index.example/it's $HOME\n\"simple\"";
    let mut script = script(format!(
        "printf '%s' \"$PIP_INDEX_URL\" >copy\n{}",
        meeting(&arrived, &go)
    ));
    script.environment.insert("PIP_INDEX_URL".into(), value.into());
    assert!(!format!("{script:?}").contains("correct-horse"), "{script:?}");
    let run = tokio::spawn({
        let (host, node, step) = (
            Arc::clone(&bench.host),
            bench.node.clone(),
            step("s1", Work::Script(script)),
        );
        async move { host.run(&node, &token("home-a", 1), &step, PATIENCE).await }
    });
    met_at(&arrived).await;
    let file = bench.path("steps/s1/secrets/script.environment");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(bench.holding("correct-horse"), [file, bench.path("copy")]);
    for process in fs::read_dir("/proc").expect("/proc") {
        let path = process.expect("an entry").path().join("cmdline");
        let text = fs::read(&path).unwrap_or_default();
        assert!(!text.windows(13).any(|w| w == b"correct-horse"), "{}", path.display());
    }
    let_go(&go).await;
    let end = ended(&run.await.expect("no panic").expect("run"), "s1");
    assert_eq!(end.exit, 0, "{}", end.log_tail);
    assert_eq!(bench.read("copy"), value);
    assert_eq!(
        bench.holding("correct-horse"),
        [bench.path("copy")],
        "gone with the script"
    );
    let mut odd = self::script("true");
    odd.environment.insert("a;b".into(), "x".into());
    let refused = bench.ask("s2", Work::Script(odd), PATIENCE).await;
    assert!(matches!(refused, Err(HostError::Failed { .. })), "{refused:?}");
}

async fn releases_are_told_by_the_order_of_their_completion(bench: Bench) {
    let releases: Vec<Digest> = (0..4_u8).map(|n| Digest::of(&[n])).collect();
    for (n, release) in releases.iter().enumerate() {
        bench.succeed(&format!("i{n}"), install(release)).await;
        let marker = bench.path(&format!("releases/{}/.complete", release.hex()));
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + n as u64);
        let file = fs::File::options().append(true).open(marker);
        file.expect("opened").set_modified(at).expect("set");
    }
    let newest_first: Vec<Digest> = releases.into_iter().rev().collect();
    assert_eq!(bench.observe().await.releases, newest_first);
}

async fn a_full_disk_is_a_clear_failure_and_corrupts_nothing(mut bench: Bench) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can mount the small disk that this row fills: NOT RUN");
        return;
    }
    let disk = SmallDisk::mount(&bench.root.join("small"));
    bench.node.directory = disk.0.join("node").to_str().expect("UTF-8").into();
    bench.succeed("s0", check("true")).await;
    assert!((1..2_000_000).contains(&bench.observe().await.free_bytes));

    // A script that fills it fails as a script, and its end is on record.
    let release = Digest::of(b"1");
    let end = bench
        .run(
            "s1",
            Work::Install {
                release,
                script: script("set -e\ncat /dev/zero >\"$STAGEGATE_RELEASE_DIR/big\""),
            },
        )
        .await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("No space left on device"), "{}", end.log_tail);
    assert_eq!(bench.observe().await.releases, []);
    let journal = bench.journal();

    // And on a disk that is full already nothing begins.
    fs::write(disk.0.join("big"), vec![0; 8_000_000]).expect_err("it is small");
    let refused = bench.ask("s2", check("true"), PATIENCE).await;
    assert!(
        matches!(&refused, Err(HostError::Failed { why, .. }) if why.contains("the disk is full")),
        "{refused:?}"
    );
    let newer = bench
        .host
        .run(&bench.node, &token("home-a", 2), &step("s3", check("true")), PATIENCE)
        .await;
    assert!(matches!(newer, Err(HostError::Failed { .. })), "{newer:?}");
    assert_eq!(bench.read("fence"), "home-a 1\n");
    let sight = bench
        .host
        .observe(&bench.node, &["s1".into(), "s2".into()])
        .await
        .expect("seen");
    assert_eq!(ended(&sight, "s1"), end);
    assert_eq!(sight.steps.len(), 1);
    assert_eq!(bench.journal(), journal);
    fs::remove_file(disk.0.join("big")).expect("removed");
    bench.succeed("s2", check("true")).await;
    bench.succeed("s4", install(&release)).await;
    assert_eq!(bench.observe().await.releases, [release]);
}

/// A filesystem of 1 MiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir(at).expect("made");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "small"])
            .arg(at)
            .status();
        assert!(done.expect("mount runs").success());
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn a_build_is_delivered_whole_and_once(bench: Bench) {
    let (artifact, build) = (bench.root.join("a 'build'"), Digest::of(b"1"));
    fs::create_dir_all(artifact.join("sub")).expect("made");
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    fs::write(artifact.join("sub/wheel"), &content).expect("written");
    fs::write(artifact.join("tool"), "#!/bin/sh\n").expect("written");
    fs::set_permissions(artifact.join("tool"), fs::Permissions::from_mode(0o755)).expect("set");
    let deliver =
        async |build: &Digest, from: &Path| bench.host.deliver(&bench.node, &token("home-a", 1), build, from).await;
    let (one, two) = tokio::join!(deliver(&build, &artifact), deliver(&build, &artifact));
    assert_eq!((one, two), (Ok(()), Ok(())));
    let there = bench.path(&format!("artifacts/{}", build.hex()));
    assert_eq!(fs::read(there.join("sub/wheel")).expect("delivered"), content);
    let mode = fs::metadata(there.join("tool"))
        .expect("delivered")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
    // A second delivery looks and finds it: what it would bring does not exist any more.
    fs::remove_dir_all(&artifact).expect("removed");
    assert_eq!(deliver(&build, &artifact).await, Ok(()));

    let missing = deliver(&Digest::of(b"2"), &artifact).await;
    assert!(matches!(missing, Err(HostError::Failed { .. })), "{missing:?}");
    let left: Vec<_> = fs::read_dir(bench.path("artifacts"))
        .expect("listed")
        .map(|e| e.expect("an entry").file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(left, [build.hex().as_str()]);

    // It is what an install finds as its artifact.
    let work = Work::Install {
        release: build,
        script: script("cp -R \"$STAGEGATE_ARTIFACT/.\" \"$STAGEGATE_RELEASE_DIR\""),
    };
    bench.succeed("s1", work).await;
    assert!(bench.path(&format!("releases/{}/sub/wheel", build.hex())).exists());
}

async fn a_followed_file_is_read_on_across_its_rotation(bench: Bench) {
    fs::create_dir_all(bench.path("log")).expect("made");
    let log = bench.path("log/server.log");
    let look = async |from| {
        let tail = bench.host.tail(&bench.node, "log/server.log", from, 4).await;
        let Tail { current, piece } = tail.expect("a look");
        (current, piece)
    };
    let tail = async |from| look(from).await.1.expect("there");
    assert_eq!(look(TailFrom::End).await, (None, None));
    fs::write(&log, b"ab\xff\x00cd").expect("written");
    let piece = tail(TailFrom::Start).await;
    assert_eq!((&piece.bytes[..], piece.size), (&b"ab\xff\x00"[..], 6));
    let old = piece.from.inode;
    // Renamed, with nothing in its place yet: the old one is still there, and its end is none.
    fs::rename(&log, bench.path("log/server.log.1")).expect("rotated");
    let (current, rest) = look(TailFrom::At(piece.next())).await;
    let rest = rest.expect("there");
    assert_eq!((current, &rest.bytes[..]), (None, &b"cd"[..]));
    fs::write(&log, "new").expect("written");
    let (current, none) = look(TailFrom::At(rest.next())).await;
    let none = none.expect("there");
    assert_eq!((none.from.inode, none.bytes.len(), none.next()), (old, 0, rest.next()));
    assert_ne!(current, Some(old));
    let new = tail(TailFrom::Start).await;
    assert_eq!((&new.bytes[..], current), (&b"new"[..], Some(new.from.inode)));
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&log)
        .expect("cut back in place");
    fs::write(&log, "x").expect("written");
    let cut = tail(TailFrom::At(new.next())).await;
    assert_eq!((&cut.bytes[..], cut.from.offset), (&b"x"[..], 0));
    let end = tail(TailFrom::End).await;
    assert_eq!((end.bytes.len(), end.from.offset), (0, 1));
    fs::remove_file(bench.path("log/server.log.1")).expect("compressed, say");
    assert_eq!(look(TailFrom::At(rest.next())).await, (Some(end.from.inode), None));
}

/// logrotate renames; the service goes on in the old file until it is told to open a new one.
async fn what_a_service_writes_into_its_renamed_log_still_counts(bench: Bench) {
    fs::create_dir_all(bench.path("log")).expect("made");
    let (path, renamed) = (bench.path("log/server.log"), bench.path("log/server.log.1"));
    let mut service = fs::File::create(&path).expect("made");
    let log = HostLog::new(Arc::clone(&bench.host), bench.node.clone(), "log/server.log".into());
    let mut follower = Follower::new(log, Begin::AtEnd);
    let mut look = async || {
        let polled = follower.poll().await.expect("a look");
        assert_eq!((polled.notes, polled.caught_up), (vec![], true));
        polled.lines
    };
    assert_eq!(look().await, [""; 0]);
    service.write_all(b"start 1\nstart 2\nsta").expect("written");
    assert_eq!(look().await, ["start 1", "start 2"]);
    fs::rename(&path, &renamed).expect("rotated");
    for _ in 0..3 {
        assert_eq!(look().await, [""; 0]);
    }
    service.write_all(b"rt 3\nend 1\n").expect("written");
    assert_eq!(look().await, ["start 3", "end 1"], "no file in its place yet");
    let mut reopened = fs::File::create(&path).expect("made");
    for n in 0..3 {
        assert_eq!(look().await, [""; 0], "at the end of both files");
        writeln!(reopened, "start 4{n}").expect("written");
        writeln!(service, "end 2{n}").expect("written");
        assert_eq!(look().await, [format!("end 2{n}"), format!("start 4{n}")]);
    }
}

async fn connections_of_a_service_tell_whose_they_are(bench: Bench) {
    let database = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
    let port = database.local_addr().expect("bound").port();
    assert_eq!(
        bench.host.sockets(&bench.node, port).await.ok(),
        None,
        "no directory yet"
    );
    prepared(&bench, &Digest::of(b"1"), 1).await;
    assert_eq!(
        bench.host.sockets(&bench.node, port).await,
        Ok(vec![]),
        "no service yet"
    );
    // A worker below the service connects.
    let start = script(format!(
        "mkdir -p run\nsh -c 'bash -c \"exec 3<>/dev/tcp/127.0.0.1/{port}; exec sleep 1000\" & echo $! >run/child; wait' \
         >/dev/null 2>&1 </dev/null &\necho $! >run/pid\n"
    ));
    bench.succeed("s1", Work::Start { start }).await;
    let (_connection, client) = database.accept().expect("it connects");
    assert_eq!(bench.host.sockets(&bench.node, port).await, Ok(vec![client]));
    assert_eq!(bench.host.sockets(&bench.node, 1).await, Ok(vec![]));
    let both = script("kill \"$(cat run/child)\" \"$(cat run/pid)\"");
    bench.succeed("s2", Work::Stop { stop: both }).await;
}

async fn a_node_without_a_directory_can_be_looked_at_and_destroyed(bench: Bench) {
    let sight = bench.host.observe(&bench.node, &["s1".into()]).await.expect("seen");
    assert!(sight.free_bytes > 0);
    assert_eq!(
        sight,
        NodeSight {
            free_bytes: sight.free_bytes,
            ..NodeSight::default()
        }
    );
    let destroyed = bench.host.destroy(&bench.node, &token("home-a", 1)).await;
    assert_eq!(destroyed, Ok(()));
    assert!(!Path::new(&bench.node.directory).exists(), "looking makes nothing");
}

async fn names_that_would_escape_are_refused(bench: Bench) {
    let refused = bench.ask("../s1", check("true"), PATIENCE).await;
    assert!(matches!(refused, Err(HostError::Failed { .. })), "{refused:?}");
    let mut secret = script("true");
    secret.secrets.insert("../rc".into(), b"0".to_vec());
    let refused = bench.ask("s1", Work::Script(secret), PATIENCE).await;
    assert!(matches!(refused, Err(HostError::Failed { .. })), "{refused:?}");
    assert!(!Path::new(&bench.node.directory).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_unreachable_and_the_next_call_joins_the_step() {
    let bench = Bench::ssh();
    let sshd = bench.sshd.as_ref().expect("over ssh");
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let work = || check(meeting(&arrived, &go));
    let (cut, ()) = tokio::join!(bench.ask("s1", work(), PATIENCE), async {
        met_at(&arrived).await;
        sshd.cut();
    });
    assert!(matches!(cut, Err(HostError::Unreachable { .. })), "{cut:?}");
    let sight = bench
        .host
        .observe(&bench.node, &["s1".into()])
        .await
        .expect("connected again");
    assert_eq!(sight.steps["s1"], StepState::Running);
    let (end, ()) = tokio::join!(bench.run("s1", work()), let_go(&go));
    assert_eq!(end.exit, 0);
    assert_eq!(bench.read("effects"), "ran\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_down_or_not_who_it_was_is_unreachable() {
    let mut bench = Bench::ssh();
    fs::write(bench.root.join("known_hosts"), "").expect("written");
    let unknown = bench.host.observe(&bench.node, &[]).await;
    assert!(
        matches!(&unknown, Err(HostError::Unreachable { host, why })
            if host == "tested-node" && why.contains("Host key verification failed")),
        "{unknown:?}"
    );
    bench.sshd = None;
    let down = bench.host.observe(&bench.node, &[]).await;
    assert!(
        matches!(&down, Err(HostError::Unreachable { why, .. }) if why.contains("Connection refused")),
        "{down:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_host_of_the_configuration_is_gone_through() {
    let bench = Bench::ssh();
    let sshd = bench.sshd.as_ref().expect("over ssh");
    let gate_root = bench.root.join("gate");
    fs::create_dir(&gate_root).expect("made");
    let gate = Sshd::start(&gate_root);
    let text = |sshd: &Sshd| fs::read_to_string(sshd.config()).expect("written above");
    let config = bench.root.join("jumping");
    let behind = format!(
        "{} ProxyJump gate\n{}",
        text(sshd),
        text(&gate).replace("tested-node", "gate")
    );
    fs::write(&config, behind).expect("written");
    let host = || SshHost::new("tested-node", bench.root.join("d")).with_config(&config);
    let through = host();
    let sight = through
        .run(
            &bench.node,
            &token("home-a", 1),
            &step("s1", check("echo ran >>effects")),
            PATIENCE,
        )
        .await;
    assert_eq!(ended(&sight.expect("reached"), "s1").exit, 0);
    assert_eq!(bench.read("effects"), "ran\n");
    // And through nothing else: without the gate there is no way, though the node itself is up.
    drop(gate);
    for host in [through, host()] {
        let shut = host.observe(&bench.node, &[]).await;
        assert!(matches!(shut, Err(HostError::Unreachable { .. })), "{shut:?}");
    }
    bench.observe().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_host_key_is_refused_whatever_the_configuration_lets_in() {
    let bench = Bench::ssh();
    let sshd = bench.sshd.as_ref().expect("over ssh");
    let strict = fs::read_to_string(sshd.config()).expect("written");
    let known = fs::read_to_string(bench.root.join("known_hosts")).expect("written");
    let (address, key) = known.split_once(' ').expect("an address and a key");
    let other = fs::read_to_string(bench.root.join("user_key.pub")).expect("made");
    for setting in ["yes", "accept-new", "no"] {
        let config = bench.root.join(setting);
        let text = strict.replace("StrictHostKeyChecking yes", &format!("StrictHostKeyChecking {setting}"));
        fs::write(&config, text).expect("written");
        let look = async |known: String| {
            fs::write(bench.root.join("known_hosts"), known).expect("written");
            let host = SshHost::new("tested-node", bench.root.join("d")).with_config(&config);
            host.observe(&bench.node, &[]).await
        };
        let refused = |said: &Result<NodeSight, HostError>| {
            matches!(said, Err(HostError::Unreachable { host, why })
                if host == "tested-node" && why.contains("Host key verification failed"))
        };
        let changed = look(format!("{address} {other}")).await;
        assert!(refused(&changed), "{setting}: {changed:?}");
        let same = look(format!("{address} {key}")).await;
        assert!(same.is_ok(), "{setting}: {same:?}");
        let unknown = look(String::new()).await;
        if setting == "yes" {
            assert!(refused(&unknown), "{unknown:?}");
        } else {
            assert!(unknown.is_ok(), "{setting}: {unknown:?}");
            let learned = fs::read_to_string(bench.root.join("known_hosts")).expect("written");
            let words = |text: &str| text.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&learned), words(&known), "it is learned");
        }
    }
}

#[test]
fn the_agent_passes_shellcheck() {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hosts/agent.sh");
    let said = Command::new("shellcheck")
        .args(["--shell=sh", "--norc"])
        .arg(agent)
        .output()
        .expect("this test needs shellcheck: apt-get install shellcheck");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

//! The main job on the real server, as one story on one replica: the shipped files, the shipped rehearsal, then a holder
//! that Stagegate knows nothing of, a driver that is killed on the way, and the same server on nodes over SSH.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::sshd::Sshd;

/// Beside what a developer may have running from the shipped files.
const PORT_SHIFT: u16 = 1700;
/// The port of the replica's database in environments/panda-staging.yaml.
const DATABASE_PORT: u16 = 25532;
const NODES: [&str; 3] = ["server1", "server2", "server3"];
/// A whole upgrade takes minutes; a machine that is busy with other tests some more.
const PATIENCE: Duration = Duration::from_mins(15);

struct Replica {
    state: tempfile::TempDir,
}

impl Replica {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagegate"));
        command
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .env("STAGEGATE_STATE", self.state.path())
            .env("STAGEGATE_PORT_SHIFT", PORT_SHIFT.to_string())
            .env("STAGEGATE_USER", "tester")
            .env_remove("STAGEGATE_WORKSPACE");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    fn json(&self, arguments: &[&str]) -> (Value, Option<i32>) {
        let said = self.run(arguments);
        let value = serde_json::from_slice(&said.stdout).unwrap_or_else(|e| {
            panic!("{arguments:?}: {e}: {}{}", text(&said.stdout), text(&said.stderr));
        });
        (value, said.status.code())
    }

    fn environment(&self) -> PathBuf {
        self.state.path().join("environments/panda-staging")
    }

    fn read(&self, node: &str, file: &str) -> String {
        let path = self.environment().join("nodes").join(node).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// What each node's server says of its own starts.
    fn starts(&self) -> Vec<usize> {
        let of = |node| {
            let log = self.read(node, "log/httpd-error.log");
            log.lines().filter(|l| l.contains("resuming normal operations")).count()
        };
        NODES.iter().map(|node| of(node)).collect()
    }

    /// The journal lines of one action of an upgrade that did something, as the step itself wrote them on the node.
    fn journal(&self, node: &str, upgrade: &str, action: &str) -> Vec<Entry> {
        let mine = format!("{upgrade}.");
        let entries = self.read(node, "journal");
        entries
            .lines()
            .map(|line| Entry(line.split(' ').map(str::to_owned).collect()))
            .filter(|e| e.0[1].starts_with(&mine) && e.0[2] == action && e.0[4] != "skip")
            .collect()
    }

    /// Starts an upgrade and kills its driver with SIGKILL once the node is in the phase.
    fn kill_at(&self, build: &str, node: usize, phase: &str) {
        let mut driver = self
            .command(&["upgrade", "panda-staging", "--build", build])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, _) = self.json(&["status", "panda-staging", "-o", "json"]);
            let upgrade = &status["status"]["upgrade"]["status"];
            if upgrade["phase"] == "Rolling" && upgrade["nodes"][node]["phase"] == phase {
                break;
            }
            assert!(
                driver.try_wait().expect("a child").is_none(),
                "ended before {phase}: {status:#}"
            );
            assert!(Instant::now() < deadline, "never in {phase}: {status:#}");
        }
        driver.kill().expect("killed");
        driver.wait().expect("collected");
    }
}

impl Drop for Replica {
    /// Also after a failure: nothing may run on.
    fn drop(&mut self) {
        let gone = self.run(&["down", "panda-staging", "--purge"]);
        if !gone.status.success() {
            eprintln!("{}", text(&gone.stderr));
        }
    }
}

/// A line of a node's journal: time, step, action, release, `start` or `end`, result.
struct Entry(Vec<String>);

impl Entry {
    fn at(&self) -> Timestamp {
        self.0[0].parse().expect("a time")
    }
}

/// Somebody's psql in which the hot row is held 20 s in every 30 s.
pub(crate) struct Psql(Child);

impl Psql {
    pub(crate) const PROGRAM: &str = "/usr/lib/postgresql/15/bin/psql";

    /// By a command that runs it, in the database of the environment whose directory this is.
    pub(crate) fn holds_the_row(mut psql: Command, environment: &Path, host: &str, port: u16) -> Self {
        let password = std::fs::read_to_string(environment.join("secrets/monitor-password")).expect("a password");
        let mut child = psql
            .args(["-X", "-q", "-h", host, "-U", "stagegate", "-d", "panda_db"])
            .args(["-p", &port.to_string()])
            .env("PGPASSWORD", password.trim())
            .env_remove("PGAPPNAME")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("psql runs");
        let cycle = "BEGIN;\nSELECT site FROM doma_pandameta.sitedata WHERE site = 'SITE_A' FOR UPDATE;\n\
                     SELECT pg_sleep(20);\nCOMMIT;\nSELECT pg_sleep(10);\n";
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(cycle.repeat(100).as_bytes()).expect("psql reads");
        Self(child)
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn seconds_between(from: &Value, to: &Value) -> f64 {
    let at = |v: &Value| {
        v.as_str()
            .unwrap_or_default()
            .parse::<Timestamp>()
            .unwrap_or_else(|e| panic!("{v}: {e}"))
    };
    at(to).duration_since(at(from)).as_secs_f64()
}

fn failed_gate(upgrade: &Value) -> &Value {
    let gates = upgrade["status"]["gates"].as_array().expect("gates");
    gates
        .iter()
        .find(|g| g["verdict"] == "Fail")
        .unwrap_or_else(|| panic!("no gate failed: {upgrade:#}"))
}

/// Caught on its first node within 30 s, named, rolled back, and the cure proven within 5 min by samples from after the rollback.
pub(crate) fn assert_caught(upgrade: &Value, first: &str) {
    let status = &upgrade["status"];
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&"RolledBack".into(), &"Cured".into()),
        "{upgrade:#}"
    );
    let gate = failed_gate(upgrade);
    assert!(
        seconds_between(&gate["onsetAt"], &gate["decidedAt"]) <= 30.0,
        "{gate:#}"
    );
    assert!(
        seconds_between(&gate["decidedAt"], &status["cure"]["provenAt"]) <= 300.0,
        "{status:#}"
    );
    for node in status["nodes"].as_array().expect("nodes") {
        assert!(
            seconds_between(&node["since"], &status["cure"]["since"]) >= 0.0,
            "{status:#}"
        );
    }
    let blocker = &status["blockers"][0];
    let waiting = blocker["waiting"].as_array().expect("who waits");
    assert!(
        waiting.iter().any(|w| w["node"] == first
            && w["build"] == "panda-server-0.5.1"
            && w["method"] == "updateJobStatus"
            && w["statement"]
                .as_str()
                .is_some_and(|s| s.to_lowercase().contains("sitedata"))),
        "{blocker:#}"
    );
    assert_eq!(blocker["holder"]["node"], Value::Null, "{blocker:#}");
    assert!(
        status["message"].as_str().is_some_and(|m| m.contains("cured")),
        "{status:#}"
    );
}

/// Every update that a node acknowledged was found in the database at the end.
fn assert_no_update_lost(upgrade: &Value) {
    let updates = &upgrade["status"]["updates"];
    assert!(updates["acknowledged"].as_u64().is_some_and(|n| n > 500), "{upgrade:#}");
    assert_eq!(
        (&updates["lost"], &updates["unchecked"]),
        (&0.into(), &0.into()),
        "{updates:#}"
    );
}

/// One install where the release was not there, one restart, and the server itself started once, when the journal says.
fn assert_done_once(replica: &Replica, upgrade: &Value, installs: usize, starts_before: &[usize]) {
    let name = upgrade["metadata"]["name"].as_str().expect("a name");
    for (node, before) in NODES.iter().zip(starts_before) {
        for (action, times) in [("install", installs), ("restart", 1)] {
            let entries = replica.journal(node, name, action);
            let words: Vec<String> = entries.iter().map(|e| e.0.join(" ")).collect();
            assert_eq!(
                words.iter().filter(|w| w.ends_with("end rc=0")).count(),
                times,
                "{node} {action}: {words:#?}"
            );
            assert_eq!(words.len(), 2 * times, "{node} {action}: {words:#?}");
        }
        let restart = replica.journal(node, name, "restart");
        let log = replica.read(node, "log/httpd-error.log");
        let own: Vec<&str> = log
            .lines()
            .filter(|l| l.contains("resuming normal operations"))
            .collect();
        assert_eq!(own.len(), before + 1, "{node}: {own:#?}");
        // The process is as old as its own line, and that lies within the step.
        let running = replica.read(node, "running");
        let started: i64 = running
            .split_whitespace()
            .nth(4)
            .and_then(|s| s.parse().ok())
            .expect("a time");
        let (begin, end) = (restart[0].at().as_second(), restart[1].at().as_second());
        assert!(
            (begin..=end + 1).contains(&started),
            "{node}: {running} not in {begin}..{end}"
        );
    }
    for node in upgrade["status"]["nodes"].as_array().expect("nodes") {
        assert_eq!(
            (&node["installs"], &node["restarts"]),
            (&installs.into(), &1.into()),
            "{node:#}"
        );
    }
}

#[test]
fn the_incident_is_caught_cured_and_survived_on_the_real_server() {
    let replica = Replica {
        state: tempfile::tempdir().expect("a directory"),
    };
    the_shipped_rehearsal_holds(&replica);
    a_database_that_dies_holds_the_upgrade(&replica);
    let psql = Psql::holds_the_row(
        Command::new(Psql::PROGRAM),
        &replica.environment(),
        "127.0.0.1",
        DATABASE_PORT + PORT_SHIFT,
    );
    a_good_build_passes_though_its_driver_is_killed(&replica);
    a_holder_that_nobody_told_us_of_is_named(&replica);
    drop(psql);
    let down = replica.run(&["down", "panda-staging"]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    the_same_server_goes_over_ssh(&replica);
}

/// `quickstart` catches 0.5.1 and passes 1.0.4; the second time it is quick, since 0.5.1 is quarantined.
fn the_shipped_rehearsal_holds(replica: &Replica) {
    let first = replica.run(&["quickstart", "--install"]);
    let words = format!("{}{}", text(&first.stdout), text(&first.stderr));
    assert!(first.status.success(), "{words}");

    let (upgrades, _) = replica.json(&["history", "panda-staging", "-o", "json"]);
    let [bad, good] = &upgrades["items"].as_array().expect("a list")[..] else {
        panic!("{upgrades:#}: {words}");
    };
    assert_caught(bad, NODES[0]);
    assert_no_update_lost(bad);
    assert_eq!(good["status"]["phase"], "Succeeded", "{words}");
    assert_no_update_lost(good);
    // The servers were started by `up`, and server1 twice more by 0.5.1 and its rollback.
    assert_done_once(replica, good, 1, &[3, 1, 1]);
    for node in good["status"]["nodes"].as_array().expect("nodes") {
        assert_eq!(node["build"], "panda-server-1.0.4", "{node}");
    }
    let evidence = failed_gate(bad)["evidence"].as_str().expect("the evidence of the Fail");
    let (replayed, _) = replica.json(&["gate", "replay", evidence, "-o", "json"]);
    assert_eq!(replayed["status"]["same"], true, "{replayed}");
    assert_eq!(replayed["status"]["recomputed"]["verdict"], "Fail", "{replayed}");

    let refused = replica.run(&["upgrade", "panda-staging", "--build", "panda-server=0.5.1"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
    assert!(
        text(&refused.stderr).contains("quarantined"),
        "{}",
        text(&refused.stderr)
    );

    let second = replica.run(&["quickstart"]);
    let words = text(&second.stderr);
    assert!(second.status.success(), "{words}");
    assert!(
        words.contains("refused: build panda-server-0.5.1 is quarantined"),
        "{words}"
    );
}

/// Without its database no call can be made ready and no gate can fail: what cannot be seen is held, and blamed on nobody.
fn a_database_that_dies_holds_the_upgrade(replica: &Replica) {
    let succeeds = |arguments: &[&str]| {
        let said = replica.run(arguments);
        assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    };
    succeeds(&["rehearse", "panda-database-dies"]);
    let (upgrades, _) = replica.json(&["history", "panda-staging", "--last", "1", "-o", "json"]);
    let held = &upgrades["items"][0];
    let message = held["status"]["message"].as_str().expect("words");
    assert!(message.contains("panda_db"), "it names the database: {held:#}");
    succeeds(&["up", "panda-staging"]);
    succeeds(&["abort", "panda-staging"]);
    let (status, _) = replica.json(&["status", "panda-staging", "-o", "json"]);
    let upgrade = &status["status"]["upgrade"];
    assert_eq!(upgrade["metadata"]["name"], held["metadata"]["name"], "{status:#}");
    assert_eq!(upgrade["status"]["phase"], "Aborted", "{status:#}");
    for node in upgrade["status"]["nodes"].as_array().expect("nodes") {
        assert_eq!(node["build"], "panda-server-1.0.4", "{node:#}");
    }
    // What the driver could not look for while the database was gone is counted as that, and nothing as lost.
    assert_eq!(upgrade["status"]["updates"]["lost"], 0, "{upgrade:#}");
}

/// The release of 0.8.1 is still on the nodes, so going back to it installs nothing.
fn a_good_build_passes_though_its_driver_is_killed(replica: &Replica) {
    let starts = replica.starts();
    for (node, phase) in [(0, "Restart"), (1, "Warm"), (2, "Analyse")] {
        replica.kill_at("panda-server=0.8.1", node, phase);
    }
    let (done, exit) = replica.json(&[
        "upgrade",
        "panda-staging",
        "--build",
        "panda-server=0.8.1",
        "-o",
        "json",
    ]);
    assert_eq!(
        (exit, &done["status"]["phase"]),
        (Some(0), &"Succeeded".into()),
        "{done:#}"
    );
    let (upgrades, _) = replica.json(&["history", "panda-staging", "--last", "1", "-o", "json"]);
    assert_eq!(
        upgrades["items"][0]["metadata"]["name"], done["metadata"]["name"],
        "one upgrade, whoever drove it"
    );
    assert_done_once(replica, &done, 0, &starts);
    assert_eq!(done["status"]["updates"]["lost"], 0, "{done:#}");
}

/// The row is held by a psql of somebody's: the build that waits for it is blamed, and the holder named.
fn a_holder_that_nobody_told_us_of_is_named(replica: &Replica) {
    let reason = "the row is held by somebody else";
    let lifted = replica.run(&[
        "build",
        "release",
        "panda-server-0.5.1",
        "--env",
        "panda-staging",
        "--reason",
        reason,
    ]);
    assert!(lifted.status.success(), "{}", text(&lifted.stderr));
    let (caught, exit) = replica.json(&[
        "upgrade",
        "panda-staging",
        "--build",
        "panda-server=0.5.1",
        "-o",
        "json",
    ]);
    assert_eq!(exit, Some(3), "{caught:#}");
    assert_caught(&caught, NODES[0]);
    let holder = &caught["status"]["blockers"][0]["holder"];
    assert!(
        holder["client"].as_str().is_some_and(|c| c.contains("psql")),
        "{holder:#}"
    );
    let reports = std::fs::read_to_string(replica.environment().join("reports.jsonl")).expect("reports");
    assert!(
        reports
            .lines()
            .any(|l| l.contains("update-job failed on server1") && l.contains("psql")),
        "an alert names the holder: {reports}"
    );
}

/// An environment over SSH in a workspace of its own; its nodes end with it.
struct OverSsh<'a> {
    replica: &'a Replica,
    files: tempfile::TempDir,
    _sshd: Sshd,
}

impl<'a> OverSsh<'a> {
    fn new(replica: &'a Replica) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = tempfile::tempdir().expect("a directory");
        let sshd = Sshd::start(files.path());
        let environments = files.path().join("environments");
        std::fs::create_dir(&environments).expect("made");
        std::os::unix::fs::symlink(root.join("templates"), files.path().join("templates")).expect("linked");
        std::fs::copy(
            root.join("environments/panda-production.yaml"),
            environments.join("panda-production.yaml"),
        )
        .expect("copied");
        let node = |name: &str| {
            format!(
                "        - name: {name}\n          address: 127.0.0.1\n          host: {{ssh: {{destination: {}, config: {}, directory: {}}}}}\n",
                Sshd::HOST,
                sshd.config().display(),
                files.path().join(name).display()
            )
        };
        let environment = format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\nmetadata: {{name: panda-ssh}}\nspec:\n  \
             replicaOf: panda-production\n  components:\n    - name: database\n      ports: {{postgres: 25732}}\n    \
             - name: panda-server\n      ports: {{http: 25380, https: 25743}}\n      nodes:\n{}{}",
            node("server1"),
            node("server2")
        );
        std::fs::write(environments.join("panda-ssh.yaml"), environment).expect("written");
        Self {
            replica,
            files,
            _sshd: sshd,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.replica.command(arguments);
        command.env("STAGEGATE_WORKSPACE", self.files.path());
        command.output().expect("the program runs")
    }
}

impl Drop for OverSsh<'_> {
    fn drop(&mut self) {
        let gone = self.run(&["down", "panda-ssh", "--purge"]);
        if !gone.status.success() {
            eprintln!("{}", text(&gone.stderr));
        }
    }
}

/// Builds that are prepared already go to servers over SSH: brought up on 0.8.1, upgraded to 1.0.4, each step once.
fn the_same_server_goes_over_ssh(replica: &Replica) {
    let over_ssh = OverSsh::new(replica);
    let up = over_ssh.run(&["up", "panda-ssh"]);
    assert!(up.status.success(), "{}", text(&up.stderr));
    let said = over_ssh.run(&["upgrade", "panda-ssh", "--build", "panda-server=1.0.4", "-o", "json"]);
    let done: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&said.stderr)));
    assert_eq!(
        (said.status.code(), &done["status"]["phase"]),
        (Some(0), &"Succeeded".into()),
        "{done:#}"
    );
    let upgrade = done["metadata"]["name"].as_str().expect("a name");
    for node in done["status"]["nodes"].as_array().expect("nodes") {
        assert_eq!(node["build"], "panda-server-1.0.4", "{node:#}");
        let name = node["name"].as_str().expect("a name");
        let journal = std::fs::read_to_string(over_ssh.files.path().join(name).join("journal")).expect("a journal");
        for action in ["install", "restart"] {
            let ended = journal.lines().filter(|l| {
                l.contains(&format!("{upgrade}.")) && l.contains(&format!(" {action} ")) && l.ends_with("end rc=0")
            });
            assert_eq!(ended.count(), 1, "{name} {action}:\n{journal}");
        }
    }
    assert_no_update_lost(&done);
}

//! What the benchmarks of the whole program work on: nodes of a service that is one file of Python, in a workspace and a
//! state directory of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Builds that there are, by the numbers from 1.
pub const BUILDS: usize = 4;
/// Its environment's name.
pub const ENVIRONMENT: &str = "field";

/// Answers `alive VERSION` to whatever is asked, has its pid written when it listens, and takes it back when it ends, as
/// servers do: a pid file that names a dead process is one that the next start has to wait for (`await_burial` in agent/step.sh).
const SERVICE: &str = r#"import os, signal, socket, sys
def end(*_):
    os.unlink("run/pid")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
with open("run/pid.new", "w") as mine:
    mine.write(f"{os.getpid()}\n")
os.rename("run/pid.new", "run/pid")
while True:
    call, _ = server.accept()
    call.recv(4096)
    call.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nalive VERSION")
    call.close()
"#;

/// Starts the service of a release on a port and waits until it listens. The same lines for whoever upgrades.
pub fn start_lines(release: &str, port: &str) -> String {
    let python = interpreter();
    format!(
        "mkdir -p run\nrm -f run/pid\n{python} -I -S \"{release}/service.py\" {port} >/dev/null 2>&1 </dev/null &\n\
         while [ ! -e run/pid ]; do sleep 0.005; done\n"
    )
}

/// Python itself: `python3` may be a script that chooses between versions, which takes longer than the service does.
pub fn interpreter() -> String {
    let python = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let said = succeeded(python.expect("python3 runs")).stdout;
    String::from_utf8(said).expect("text").trim().to_owned()
}

/// A workspace with builds, and a state directory; both gone with it, services included.
pub struct Field {
    directory: tempfile::TempDir,
}

/// What a command took.
pub struct Took {
    pub wall: Duration,
    /// Of the command and everything that it started, user and system.
    pub cpu: Duration,
    pub output: Output,
}

impl Field {
    /// Probed each `period`, with no baseline, watched for `soak` after the last node. `host` says where a node lives, by its
    /// number: a line of YAML below the node, or nothing for this machine.
    pub fn new(nodes: u16, period: &str, soak: &str, host: impl Fn(u16) -> String) -> Self {
        let this = Self {
            directory: tempfile::Builder::new().prefix("sg").tempdir().expect("a directory"),
        };
        let first = free_ports(nodes);
        let nodes: Vec<String> = (0..nodes)
            .map(|i| {
                format!(
                    "        - {{name: n{i}, address: 127.0.0.1, {}ports: {{http: {}}}}}\n",
                    host(i),
                    first + i
                )
            })
            .collect();
        let nodes = nodes.concat();
        this.write(
            "workspace/environments/field.yaml",
            &format!(
                r#"apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {{name: {ENVIRONMENT}}}
spec:
  components:
    - name: web
      source: {{directory: builds}}
      build: "1"
      service: {{pidFile: run/pid}}
      nodes:
{nodes}      actions:
        install: {{template: install.sh}}
        start: {{template: start.sh}}
        stop: {{template: stop.sh}}
      probes:
        - {{name: alive, http: {{url: "http://{{{{ node.address }}}}:{{{{ node.ports.http }}}}/", body: "^alive"}}, period: {period}}}
      gates:
        - {{name: alive, probe: alive}}
      rollout: {{baseline: 0s, soak: {soak}, minFreeMib: 1}}
"#
            ),
        );
        this.write(
            "workspace/templates/install.sh",
            "cp \"$STAGEGATE_ARTIFACT/service.py\" \"$STAGEGATE_RELEASE_DIR/\"\n",
        );
        let start = start_lines("$STAGEGATE_RELEASE_DIR", "{{ node.ports.http }}");
        this.write("workspace/templates/start.sh", &start);
        this.write("workspace/templates/stop.sh", "kill \"$(cat run/pid)\"\n");
        for version in 1..=BUILDS {
            this.write(
                &format!("workspace/builds/{version}/service.py"),
                &SERVICE.replace("VERSION", &format!("{version}\\n")),
            );
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// The program on this workspace and state.
    pub fn stagegate(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagegate"));
        command
            .args(arguments)
            .env("STAGEGATE_STATE", self.path("state"))
            .env("STAGEGATE_WORKSPACE", self.path("workspace"))
            .env("STAGEGATE_USER", "bench")
            .env_remove("STAGEGATE_PORT_SHIFT")
            .stdin(Stdio::null());
        command
    }

    /// The same to its end, which must be a good one.
    pub fn run(&self, arguments: &[&str]) -> Output {
        succeeded(self.stagegate(arguments).output().expect("the program runs"))
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        let _ = self.stagegate(&["down", ENVIRONMENT, "--purge"]).output();
    }
}

pub fn succeeded(output: Output) -> Output {
    assert!(output.status.success(), "{output:?}");
    output
}

/// Runs a command in a process namespace of its own: when it ends so does whatever it left behind (masters of connections),
/// and the time that those used is counted with its own.
pub fn take(command: &Command) -> Took {
    let mut inside = Command::new("unshare");
    inside
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            "\"$@\"; exit $?",
            "sh",
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        inside.current_dir(directory);
    }
    let before = used();
    let began = Instant::now();
    let output = succeeded(inside.output().expect("unshare of util-linux runs"));
    Took {
        wall: began.elapsed(),
        cpu: used().saturating_sub(before),
        output,
    }
}

/// CPU time of all children that have ended, with theirs.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = &stat[stat.rfind(')').expect("a name") + 2..];
    // proc_pid_stat(5): cutime and cstime are fields 16 and 17, in ticks of 1/100 s; the name is field 2.
    let ticks: u64 = after_name
        .split(' ')
        .skip(13)
        .take(2)
        .map(|t| t.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Minimum, median and maximum.
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// The first of as many ports in a row that nobody uses, below those that the system gives to outgoing connections.
fn free_ports(count: u16) -> u16 {
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    (12_000..30_000)
        .step_by(usize::from(count))
        .find(|first| (*first..first + count).all(free))
        .expect("ports")
}

/// The tail of a path that YAML and a shell take as it is.
pub fn plain(path: &Path) -> &str {
    path.to_str().expect("text")
}

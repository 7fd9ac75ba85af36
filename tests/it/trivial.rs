//! A trivial system for tests of the whole program: two nodes of Python's own web server, builds that are directories, and
//! an install script that waits for the test where a build says so.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// Its environment's name.
pub const ENVIRONMENT: &str = "small";

/// A workspace and a state directory, both gone with it, services included.
pub struct Trivial {
    directory: tempfile::TempDir,
}

/// What a command left.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Itself, if the command ended with this.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Trivial {
    /// Version 1, 2 and 3 are good, `slow` waits for [`Trivial::let_go`], `bad` lives but answers
    /// wrongly.
    pub fn new() -> Self {
        let this = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        let port = crate::ports::free(2);
        let flag = this.path("let-go");
        let environment = format!(
            r#"
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {{name: {ENVIRONMENT}}}
spec:
  components:
    - name: web
      source: {{directory: builds}}
      build: "1"
      service: {{pidFile: run/pid}}
      nodes:
        - {{name: n1, ports: {{http: {}}}}}
        - {{name: n2, ports: {{http: {}}}}}
      actions:
        install: {{template: install.sh}}
        start: {{template: start.sh}}
        stop: {{template: stop.sh}}
      probes:
        - name: alive
          http: {{url: "http://{{{{ node.address }}}}:{{{{ node.ports.http }}}}/answer", body: "^yes"}}
          period: 100ms
          failureThreshold: 20
      traffic:
        - name: page
          rate: 40
          timeout: 5s
          requests:
            - {{url: "http://{{{{ node.address }}}}:{{{{ node.ports.http }}}}/page", expect: {{body: "^fine"}}}}
      gates:
        - {{name: alive, probe: alive}}
        # Generous, so that it decides within seconds.
        - {{name: pages, share: {{of: traffic/page, over: 1s, limit: 20%}}, beta: 20%}}
      rollout: {{baseline: 1s, soak: 1s, minFreeMib: 1}}
  reports:
    - {{name: journal, file: {{path: reports.jsonl}}}}
"#,
            port,
            port + 1
        );
        this.write("workspace/environments/small.yaml", &environment);
        this.write(
            "workspace/templates/install.sh",
            &format!(
                "set -eu\ncp -R \"$STAGEGATE_ARTIFACT/.\" \"$STAGEGATE_RELEASE_DIR/\"\n\
                 if [ -e \"$STAGEGATE_RELEASE_DIR/slow\" ]; then while [ ! -e {} ]; do sleep 0.05; done; fi\n",
                flag.display()
            ),
        );
        this.write(
            "workspace/templates/start.sh",
            "set -eu\nmkdir -p run log\n\
             python3 -m http.server {{ node.ports.http }} --bind {{ node.address }} --directory \"$STAGEGATE_RELEASE_DIR\" \
             >log/web 2>&1 </dev/null &\necho $! >run/pid\n",
        );
        this.write(
            "workspace/templates/stop.sh",
            "set -eu\npid=$(cat run/pid)\nkill \"$pid\"\nwhile kill -0 \"$pid\" 2>/dev/null; do sleep 0.02; done\n",
        );
        for version in ["1", "2", "3", "slow", "bad"] {
            let build = format!("workspace/builds/{version}");
            this.write(&format!("{build}/answer"), &format!("yes {version}\n"));
            this.write(&format!("{build}/page"), "fine\n");
        }
        this.write("workspace/builds/slow/slow", "");
        this.write("workspace/builds/bad/page", "not what was asked for\n");
        this
    }

    /// The same, brought up on version 1.
    pub fn up() -> Self {
        let this = Self::new();
        let said = this.run(&["up", ENVIRONMENT]);
        assert_eq!(said.code, Some(0), "{said:?}");
        this
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// Lets builds go on that wait for it.
    pub fn let_go(&self) {
        self.write("let-go", "");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stagegate"));
        command
            .args(arguments)
            .env("STAGEGATE_STATE", self.path("state"))
            .env("STAGEGATE_WORKSPACE", self.path("workspace"))
            .env("STAGEGATE_USER", "tester")
            .env("NO_COLOR", "1")
            .env_remove("STAGEGATE_PORT_SHIFT")
            .env_remove("STAGEGATE_LISTEN")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.start(arguments).end()
    }

    /// A command with our workspace on another one's state.
    pub fn run_in_state_of(&self, other: &Self, arguments: &[&str]) -> Said {
        let mut command = self.command(arguments);
        command.env("STAGEGATE_STATE", other.path("state"));
        Running::new(command, arguments).end()
    }

    /// Begins a command and goes on.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(arguments), arguments)
    }

    /// Begins the server, and comes back when it serves, with where it answers.
    pub fn serve(&self) -> (Running, String) {
        let mut server = self.start(&["serve", "--listen", "127.0.0.1:0"]);
        let line = server.until("/healthz");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.expect("an address").to_owned();
        (server, address)
    }

    /// The last upgrade.
    pub fn upgrade(&self) -> Value {
        let list = self.run(&["history", ENVIRONMENT, "--last", "1", "-o", "json"]).json();
        list["items"][0].clone()
    }

    /// Steps of an action that were completed for an upgrade, over all nodes, by the nodes' own journals.
    pub fn completed(&self, upgrade: &str, action: &str) -> usize {
        let count = |node: &str| {
            let journal = self.path(&format!("state/environments/{ENVIRONMENT}/nodes/{node}/journal"));
            let journal = std::fs::read_to_string(journal).expect("a journal");
            journal
                .lines()
                .filter(|l| l.contains(&format!("{upgrade}.")) && l.contains(action) && l.ends_with("end rc=0"))
                .count()
        };
        count("n1") + count("n2")
    }
}

impl Drop for Trivial {
    /// Also after a failure: nothing may run on.
    fn drop(&mut self) {
        self.let_go();
        let gone = self.run(&["down", ENVIRONMENT, "--purge"]);
        if gone.code != Some(0) {
            eprintln!("{gone:?}");
        }
    }
}

/// A command that goes on; killed when dropped.
pub struct Running {
    child: Child,
    arguments: String,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Of the program, with the state and the workspace of a test's directory.
    pub fn at(mut command: Command, directory: &Path, arguments: &[&str]) -> Self {
        command
            .args(arguments)
            .env("STAGEGATE_STATE", directory.join("state"))
            .env("STAGEGATE_WORKSPACE", directory.join("workspace"))
            .env("STAGEGATE_USER", "tester")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Self::new(command, arguments)
    }

    pub fn new(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let (send, lines) = channel();
        let err = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            arguments: arguments.join(" "),
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line of its standard error with this in it.
    pub fn until(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(why) => panic!("`{}` never said {part:?} ({why}): {:#?}", self.arguments, self.seen),
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far on its standard error.
    pub fn words(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("ours").is_some()
    }

    /// Its end, and all that it said.
    pub fn end(mut self) -> Said {
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().expect("piped");
        stdout.read_to_string(&mut out).expect("text");
        let status: ExitStatus = self.child.wait().expect("ours");
        self.seen.extend(self.lines.iter());
        Said {
            code: status.code(),
            out,
            err: self.seen.join("\n"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or is to end now.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let words = self.words();
            eprintln!("== {}\n{words}", self.arguments);
        }
    }
}

/// Asks `/healthz`: its status line and its body.
pub fn health(address: &str) -> (String, Value) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.lines().next().expect("a status").to_owned();
    (status, serde_json::from_str(body).expect("JSON"))
}

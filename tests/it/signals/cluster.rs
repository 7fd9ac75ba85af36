//! A `PostgreSQL` of the test's own: Debian's server in a temporary directory, gone with the test.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stagegate::signals::postgres::{Database, DatabaseConfig};
use tokio::time::Instant;

const BINARIES: &str = "/usr/lib/postgresql/15/bin";

/// `nobody` and `nogroup` of every Debian: the server refuses to run as root.
const NOBODY: u32 = 65534;

/// A loaded machine takes seconds to start a server; a minute says that it will not.
const PATIENCE: Duration = Duration::from_mins(1);

pub struct Cluster {
    dir: tempfile::TempDir,
    server: Option<Child>,
    pub port: u16,
}

impl Cluster {
    /// Makes and starts an empty cluster.
    pub async fn start() -> Self {
        assert!(
            Path::new(BINARIES).join("initdb").exists(),
            "this test needs PostgreSQL 15: apt-get install --no-install-recommends postgresql-15"
        );
        let dir = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()
            .expect("a directory");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        if is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        let made = as_nobody("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = crate::ports::free(1);
        let mut cluster = Self {
            dir,
            server: None,
            port,
        };
        cluster.up().await;
        cluster
    }

    /// Starts the server and waits until it answers.
    pub async fn up(&mut self) {
        let data = self.data();
        let child = as_nobody("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &self.port.to_string()])
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
                "-c",
                "shared_buffers=16MB",
            ])
            .args(["-c", "max_prepared_transactions=2", "-c"])
            .arg(format!("unix_socket_directories={}", data.display()))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.dir.path().join("log")).expect("a log"))
            .spawn()
            .expect("postgres runs");
        self.server = Some(child);
        let begin = Instant::now();
        loop {
            // A fresh one each time: a pool remembers for a while that the server was away.
            match self.database().query("SELECT 1").await {
                Ok(_) => return,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}: {}", self.log()),
            }
        }
    }

    /// Stops the server at once, as a crash would, and waits until it is gone.
    pub fn down(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = rustix::process::Pid::from_child(&server);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            let _ = server.wait();
        }
    }

    pub fn config(&self) -> DatabaseConfig {
        let place = |text: &str| text.to_owned();
        DatabaseConfig::new(place("127.0.0.1"), self.port, place("postgres"), place("postgres"))
    }

    pub fn database(&self) -> Database {
        Database::new(self.config())
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.down();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One of the server's programs as an ordinary user; it ends with the test, however the test ends.
fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    command.arg(Path::new(BINARIES).join(program));
    command.current_dir("/");
    command
}

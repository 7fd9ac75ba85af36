//! A server over SSH, by the system's own `ssh`: whatever its configuration says of keys, agents, jump hosts and known hosts
//! holds here too. One master connection a host carries all calls; a lost one is made anew by the next call.
//!
//! `ssh` itself runs once a connection. Calls speak its multiplexing protocol over the master's socket: starting a client for each
//! would cost more than the call (6 ms of CPU).

use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder};
use tokio::process::Command;
use tokio::sync::{Mutex, Semaphore};

use super::HostError;
use super::agent::{Answer, Carriage, Feed, Shell, converse};

/// A host that answers no SYN in this time is down or behind a wall that drops packets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Reading the configuration, connecting and logging in: seconds over slow jump hosts, so one that takes this long hangs.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// Three of these without a sign of life (`ServerAliveCountMax` is 3 unless configured) end a connection: 15 s.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A driver that was killed leaves its master connection behind; unused, it ends by itself after ten minutes.
const MASTER_IDLE_S: NonZeroUsize = NonZeroUsize::new(600).expect("600 is not 0");
/// `sshd` allows 10 sessions a connection unless configured (`MaxSessions`); two are left for others.
const MAX_CALLS: usize = 8;
/// A socket's path has 108 bytes (unix(7)). After the directory come `/.ssh-connection` and 6 letters, `/master`, and while
/// ssh makes it a dot and 16 letters more, and a zero.
const MAX_CONTROL_DIRECTORY: usize = 108 - 23 - 7 - 17 - 1;

/// A server over SSH.
#[derive(Debug)]
pub struct SshHost {
    destination: String,
    control_directory: PathBuf,
    config_file: Option<PathBuf>,
    master: Mutex<Option<Arc<Session>>>,
    calls: Semaphore,
}

impl SshHost {
    /// A host by what `ssh` takes as its destination: a name from its configuration, `user@host` or `ssh://user@host:port`.
    /// The sockets of master connections lie in private directories below `control_directory`, whose path must not be
    /// longer than 60 bytes (a socket's path is bounded); it is made when missing.
    #[must_use]
    pub fn new(destination: impl Into<String>, control_directory: impl Into<PathBuf>) -> Self {
        Self {
            destination: destination.into(),
            control_directory: control_directory.into(),
            config_file: None,
            master: Mutex::new(None),
            calls: Semaphore::new(MAX_CALLS),
        }
    }

    /// Reads this configuration instead of the user's (`ssh -F`).
    #[must_use]
    pub fn with_config(mut self, file: impl Into<PathBuf>) -> Self {
        self.config_file = Some(file.into());
        self
    }

    fn unreachable(&self, why: impl Into<String>) -> HostError {
        HostError::Unreachable {
            host: self.destination.clone(),
            why: why.into(),
        }
    }

    fn failed(&self, tried: &str, why: impl Into<String>) -> HostError {
        HostError::Failed {
            host: self.destination.clone(),
            tried: tried.to_owned(),
            why: why.into(),
        }
    }

    /// The living master connection, made when there is none.
    async fn master(&self) -> Result<Arc<Session>, HostError> {
        let mut kept = self.master.lock().await;
        // A master that ends removes its socket.
        if let Some(master) = kept.as_ref().filter(|m| m.control_socket().exists()) {
            return Ok(Arc::clone(master));
        }
        retire(kept.take());
        // Bounded by itself too: the other nodes of this host wait for it, and a call may have minutes.
        let master = match tokio::time::timeout(LOGIN_LIMIT, self.connect()).await {
            Ok(session) => Arc::new(session?),
            Err(_) => return Err(self.unreachable(format!("no login within {} s", LOGIN_LIMIT.as_secs()))),
        };
        *kept = Some(Arc::clone(&master));
        Ok(master)
    }

    async fn connect(&self) -> Result<Session, HostError> {
        let tried = "open a connection";
        if self.destination.is_empty() || self.destination.starts_with('-') {
            return Err(self.failed(tried, "its destination would be taken for an option"));
        }
        private_directory(&self.control_directory).map_err(|why| self.failed(tried, why))?;
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(self.known_hosts().await?)
            .connect_timeout(CONNECT_TIMEOUT)
            .server_alive_interval(ALIVE_INTERVAL)
            .control_persist(ControlPersist::IdleFor(MASTER_IDLE_S))
            .control_directory(&self.control_directory);
        if let Some(file) = &self.config_file {
            builder.config_file(file);
        }
        builder
            .connect_mux(&self.destination)
            .await
            .map_err(|e| self.unreachable(in_full(&e)))
    }

    /// What the configuration says of unknown host keys. The library would always pass one of its own choice, so we ask `ssh`
    /// first. Nobody can be asked here, so `ask` is `yes`; and `no` is never used: a changed key is refused even where the
    /// configuration lets everything in.
    async fn known_hosts(&self) -> Result<KnownHosts, HostError> {
        let mut ssh = Command::new("ssh");
        if let Some(file) = &self.config_file {
            ssh.arg("-F").arg(file);
        }
        let said = ssh
            .args(["-G", "--", &self.destination])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| self.failed("run ssh", format!("{e}; is openssh-client installed?")))?;
        if !said.status.success() {
            let why = String::from_utf8_lossy(&said.stderr);
            return Err(self.failed("read the configuration of ssh", why.trim()));
        }
        Ok(unknown_keys(&String::from_utf8_lossy(&said.stdout)))
    }

    /// Lets a master go that failed a call, unless another call has replaced it already, or is about to: then it holds the
    /// lock, for as long as a login takes.
    fn give_up(&self, master: &Arc<Session>) {
        if let Ok(mut kept) = self.master.try_lock()
            && kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, master))
        {
            retire(kept.take());
        }
    }

    async fn talk(&self, master: &Arc<Session>, feed: Feed<'_>) -> Result<Answer, HostError> {
        let broken = |e: &openssh::Error| self.unreachable(in_full(e));
        let mut command = master.command("sh");
        command
            .args(feed.arguments())
            .stdin(openssh::Stdio::piped())
            .stdout(openssh::Stdio::piped())
            .stderr(openssh::Stdio::piped());
        let mut child = command.spawn().await.map_err(|e| broken(&e))?;
        // Piped above, so all three are there.
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin().take(), child.stdout().take(), child.stderr().take())
        else {
            return Err(self.failed("run sh", "it has no pipes"));
        };
        let answer = converse(feed, stdin, stdout, stderr)
            .await
            .map_err(|e| self.unreachable(e.to_string()))?;
        match child.wait().await {
            Ok(_) => Ok(answer),
            // 255 is ssh's own status; the agent never ends with it.
            Err(e) if answer.complaint().is_empty() => Err(broken(&e)),
            Err(openssh::Error::Remote(_)) => Err(self.failed("run sh", answer.complaint())),
            Err(_) => Err(self.unreachable(answer.complaint())),
        }
    }
}

impl Shell for SshHost {
    fn host(&self) -> &str {
        &self.destination
    }

    fn carriage(&self) -> Carriage {
        Carriage::Stream
    }

    async fn sh(&self, feed: Feed<'_>, limit: Duration) -> Result<Answer, HostError> {
        let mut used = None;
        let said = tokio::time::timeout(limit, async {
            // Never closed, so this cannot fail.
            let _call = self.calls.acquire().await;
            let master = self.master().await?;
            self.talk(used.insert(master), feed).await
        });
        let said = match said.await {
            Ok(said) => said,
            Err(_) => Err(self.unreachable(format!("no answer within {} s", limit.as_secs()))),
        };
        if let (Err(HostError::Unreachable { .. }), Some(master)) = (&said, &used) {
            self.give_up(master);
        }
        said
    }
}

/// Closes a connection aside: closing asks the master to end and waits for it.
fn retire(master: Option<Arc<Session>>) {
    if let Some(master) = master {
        tokio::task::spawn_blocking(move || drop(master));
    }
}

fn unknown_keys(configuration: &str) -> KnownHosts {
    let said = configuration
        .lines()
        .find_map(|line| line.strip_prefix("stricthostkeychecking "));
    match said {
        Some("accept-new" | "no" | "off" | "false") => KnownHosts::Add,
        _ => KnownHosts::Strict,
    }
}

fn private_directory(directory: &Path) -> Result<(), String> {
    let length = directory.as_os_str().len();
    if length > MAX_CONTROL_DIRECTORY {
        return Err(format!(
            "the path of its control directory {} is {length} bytes long, a socket allows {MAX_CONTROL_DIRECTORY}; \
             give a shorter one",
            directory.display()
        ));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| format!("cannot make {}: {e}", directory.display()))
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_host_keys_are_let_in_only_where_the_configuration_says_so() {
        let check = |said: &str| {
            let text = format!("host h\nstricthostkeychecking {said}\nport 22\n");
            matches!(unknown_keys(&text), KnownHosts::Strict)
        };
        assert!(check("true") && check("yes") && check("ask"));
        assert!(!check("accept-new"));
        // And where it says that even a changed key is fine, a changed key is refused all the same.
        assert!(matches!(unknown_keys("stricthostkeychecking false"), KnownHosts::Add));
        assert!(matches!(unknown_keys(""), KnownHosts::Strict));
    }

    #[tokio::test]
    async fn a_destination_is_never_an_option_of_ssh() {
        let host = SshHost::new("-oProxyCommand=false", "c");
        let said = host.connect().await;
        assert!(matches!(said, Err(HostError::Failed { .. })), "{said:?}");
    }

    /// Nor may one node's hanging login keep the calls of the others on its host.
    #[tokio::test]
    async fn a_login_that_hangs_takes_no_longer_than_the_call_may() {
        let dir = tempfile::tempdir().expect("a directory");
        let (config, go) = (dir.path().join("config"), dir.path().join("go"));
        let made = std::process::Command::new("mkfifo").arg(&go).status();
        assert!(made.expect("mkfifo runs").success());
        // What `ssh` itself runs before it connects, and waits for.
        let text = format!("Match exec \"read -r _ <{}\"\n User nobody\n", go.display());
        std::fs::write(&config, text).expect("written");
        let host = SshHost::new("nowhere.invalid", dir.path().join("c")).with_config(&config);
        let limit = Duration::from_millis(300);
        let calls = async { tokio::join!(host.sh(Feed::of("exit"), limit), host.sh(Feed::of("exit"), limit)) };
        // Longer than any of this takes; only a test that fails waits for it.
        let said = tokio::time::timeout(Duration::from_secs(20), calls).await;
        let (one, two) = said.expect("both within their limits");
        for said in [one, two] {
            let why = said.err().map(|e| e.to_string()).unwrap_or_default();
            assert_eq!(why, "cannot reach nowhere.invalid: no answer within 0 s");
        }
        // Lets the one that waits there end.
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&go)
            .expect("opened");
    }

    #[test]
    fn a_control_directory_that_no_socket_fits_in_is_refused() {
        let long = format!("/{}", "d".repeat(MAX_CONTROL_DIRECTORY));
        let said = private_directory(Path::new(&long));
        assert!(said.is_err_and(|why| why.contains("give a shorter one")));
    }
}

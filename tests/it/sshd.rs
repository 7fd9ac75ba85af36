//! An sshd of the test's own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use stagegate::hosts::SshHost;

/// An sshd of the test's own, with its own keys, on a free port of loopback.
pub(crate) struct Sshd {
    daemon: Child,
    config: PathBuf,
    control: PathBuf,
}

impl Sshd {
    /// The Host of its `ssh_config`.
    pub(crate) const HOST: &str = "tested-node";

    pub(crate) fn start(root: &Path) -> Self {
        Self::named(Self::HOST, root)
    }

    pub(crate) const PROGRAM: &str = "/usr/sbin/sshd";

    /// Under a name of its own, for more than one.
    pub(crate) fn named(name: &str, root: &Path) -> Self {
        Self::within(&|| Command::new(Self::PROGRAM), name, root)
    }

    /// Where commands have a network of their own: its loopback.
    pub(crate) fn within(daemon: &dyn Fn() -> Command, name: &str, root: &Path) -> Self {
        assert!(
            Path::new(Self::PROGRAM).exists(),
            "these tests need sshd: apt-get install openssh-server (tests/run does it without starting the system's own)"
        );
        // Where it wants an empty directory when root runs it; the system's init makes it otherwise.
        let _ = fs::create_dir_all("/run/sshd");
        for key in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(root.join(key))
                .status();
            assert!(made.expect("ssh-keygen runs").success());
        }
        fs::copy(root.join("user_key.pub"), root.join("authorized_keys")).expect("copied");
        // Somebody else may take the port between our asking for a free one and sshd's binding it: again, then.
        let mut said = String::new();
        for _ in 0..10 {
            let port = crate::ports::free(1);
            match Self::listen(daemon(), name, root, port) {
                Ok(sshd) => return sshd,
                Err(why) => said = why,
            }
        }
        panic!("sshd did not listen: {said}");
    }

    /// Or what it said instead.
    fn listen(mut daemon: Command, name: &str, root: &Path, port: u16) -> Result<Self, String> {
        let at = root.display();
        // A home of its own, since what the user's login shell reads at home may be slow or talkative.
        fs::write(
            root.join("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/authorized_keys\n\
                 StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n\
                 SetEnv HOME={at}\n"
            ),
        )
        .expect("written");
        let key = fs::read_to_string(root.join("host_key.pub")).expect("made above");
        fs::write(root.join("known_hosts"), format!("[127.0.0.1]:{port} {key}")).expect("written");
        let config = root.join("ssh_config");
        // The default key exchange of OpenSSH 9 (sntrup761) takes a tenth of a second of CPU on each side, for nothing here.
        fs::write(
            &config,
            format!(
                "Host {name}\n HostName 127.0.0.1\n Port {port}\n IdentityFile {at}/user_key\n IdentitiesOnly yes\n \
                 UserKnownHostsFile {at}/known_hosts\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n \
                 KexAlgorithms curve25519-sha256\n"
            ),
        )
        .expect("written");
        let mut daemon = daemon
            .args(["-D", "-e", "-f"])
            .arg(root.join("sshd_config"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sshd runs");
        let mut log = BufReader::new(daemon.stderr.take().expect("piped"));
        let mut said = String::new();
        // Its first words tell that it listens; a port that answers might be somebody else's.
        while !said.contains("Server listening on") {
            if log.read_line(&mut said).expect("text") == 0 {
                let _ = daemon.wait();
                return Err(said);
            }
        }
        // Until it and its last session have ended.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(Self {
            daemon,
            config,
            control: root.join("c"),
        })
    }

    /// The client's configuration that knows its port, its key and whom it lets in.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    pub(crate) fn host(&self) -> SshHost {
        SshHost::new(Self::HOST, &self.control).with_config(&self.config)
    }

    /// Kills the server's side of every connection.
    pub(crate) fn cut(&self) {
        for session in children(self.daemon.id()) {
            for inner in children(session) {
                // The half that runs as the user; on some systems there is only one process.
                if comm(inner).starts_with("sshd") {
                    kill(inner);
                }
            }
            kill(session);
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.cut();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn children(of: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{of}/task/{of}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn comm(of: u32) -> String {
    fs::read_to_string(format!("/proc/{of}/comm")).unwrap_or_default()
}

pub(crate) fn kill(process: u32) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

//! The same upgrade over SSH by Stagegate and by ansible-core, one node at a time: `cargo bench --bench ansible` prints the
//! table of docs/benchmarks.md. Twenty sshd of its own on loopback; ansible-core comes from the package index into a
//! virtual environment; wants root, for process namespaces.

#[allow(dead_code, reason = "each benchmark uses its part")]
mod field;
#[path = "../tests/it/ports.rs"]
mod ports;
#[path = "../tests/it/sshd.rs"]
#[allow(dead_code)]
mod sshd;

use std::path::{Path, PathBuf};
use std::process::Command;

use field::{BUILDS, ENVIRONMENT, Field, Took, interpreter, plain, spread, start_lines, succeeded, take};
use sshd::Sshd;

const NODES: u16 = 20;
/// The build that the nodes come up with is none of theirs.
const ROUNDS: usize = BUILDS - 1;

fn main() {
    let servers = tempfile::Builder::new().prefix("sshd").tempdir().expect("a directory");
    let mut configuration = String::new();
    let sshd: Vec<Sshd> = (0..NODES)
        .map(|i| {
            let root = servers.path().join(format!("server{i}"));
            std::fs::create_dir(&root).expect("made");
            let sshd = Sshd::named(&format!("server{i}"), &root);
            configuration.push_str(&std::fs::read_to_string(sshd.config()).expect("written by it"));
            sshd
        })
        .collect();
    let config = servers.path().join("ssh_config");
    std::fs::write(&config, configuration).expect("written");
    let field = Field::new(NODES, "100ms", "0s", |i| {
        format!(
            "host: {{ssh: {{destination: server{i}, config: {}, directory: {}/server{i}/node}}}}, ",
            plain(&config),
            plain(servers.path())
        )
    });
    let ansible = Ansible::new(servers.path(), &config, &field);
    field.run(&["up", ENVIRONMENT]);

    println!("| round | who | wall | CPU |\n|---|---|---|---|");
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        // Each brings a version that no server has yet; who goes first alternates.
        let build = format!("web={}", round + 1);
        let ours = || take(&field.stagegate(&["upgrade", ENVIRONMENT, "--build", &build]));
        let theirs = || ansible.upgrade();
        let (ours, theirs) = if round % 2 == 1 {
            let ours = ours();
            (ours, theirs())
        } else {
            let theirs = theirs();
            (ours(), theirs)
        };
        for (who, took) in [("stagegate", &ours), ("ansible-core", &theirs)] {
            println!(
                "| {round} | {who} | {:.2} s | {:.2} s |",
                took.wall.as_secs_f64(),
                took.cpu.as_secs_f64()
            );
        }
        wall.push(ours.wall.as_secs_f64() / theirs.wall.as_secs_f64());
        cpu.push(ours.cpu.as_secs_f64() / theirs.cpu.as_secs_f64());
    }
    for (what, ratios) in [("wall", wall), ("CPU", cpu)] {
        let (least, middle, most) = spread(ratios);
        println!("ratio of {what}: {middle:.3} ({least:.3} to {most:.3})");
    }
    ansible.stop();
    drop(field);
    drop(sshd);
}

/// The same in Ansible's words: copy, link, restart, probe, host after host, with pipelining and lasting connections. It works
/// in a directory of its own on each server, on a port of its own.
struct Ansible {
    program: PathBuf,
    root: PathBuf,
    field: PathBuf,
}

impl Ansible {
    /// So far above Stagegate's own ports.
    const PORT: u16 = 31_000;

    fn new(root: &Path, ssh_config: &Path, field: &Field) -> Self {
        let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ansible");
        let program = environment.join("bin/ansible-playbook");
        if !program.exists() {
            succeeded(
                Command::new("python3")
                    .args(["-m", "venv"])
                    .arg(&environment)
                    .output()
                    .expect("python3 runs"),
            );
            let pip = Command::new(environment.join("bin/pip"))
                .args(["install", "-q", "ansible-core"])
                .output();
            succeeded(pip.expect("pip runs"));
        }
        let hosts: Vec<String> = (0..NODES)
            .map(|i| {
                format!(
                    "server{i} node={0}/server{i}/ansible port={1}\n",
                    plain(root),
                    Self::PORT + i
                )
            })
            .collect();
        let hosts = hosts.concat();
        std::fs::write(
            root.join("hosts"),
            format!("{hosts}[all:vars]\nansible_python_interpreter={}\n", interpreter()),
        )
        .expect("written");
        std::fs::write(
            root.join("ansible.cfg"),
            format!(
                "[defaults]\ninventory=hosts\nhost_key_checking=True\n[ssh_connection]\npipelining=True\n\
                 ssh_args=-F {} -o ControlMaster=auto -o ControlPersist=60s\n",
                plain(ssh_config)
            ),
        )
        .expect("written");
        let start = start_lines("current", "{{ port }}");
        let indented = start.trim_end().replace('\n', "\n        ");
        std::fs::write(
            root.join("upgrade.yaml"),
            format!(
                "- hosts: all\n  serial: 1\n  gather_facts: false\n  tasks:\n    - copy: {{src: \"{}/workspace/builds/2/service.py\", \
                 dest: \"{{{{ node }}}}/releases/2/service.py\"}}\n    - file: {{src: \"{{{{ node }}}}/releases/2\", dest: \"{{{{ node }}}}/current\", \
                 state: link, force: true}}\n    - shell: |\n        old=$(cat run/pid)\n        kill \"$old\"\n        \
                 while [ -e /proc/$old/exe ]; do sleep 0.005; done\n        {indented}\n      args: {{chdir: \"{{{{ node }}}}\"}}\n    \
                 - uri: {{url: \"http://127.0.0.1:{{{{ port }}}}/\", return_content: true}}\n      register: answer\n      \
                 failed_when: \"'alive 2' not in answer.content\"\n",
                plain(&field.path(""))
            ),
        )
        .expect("written");
        Self {
            program,
            root: root.to_owned(),
            field: field.path(""),
        }
    }

    /// Puts every server on version 1, unmeasured, and takes it to version 2.
    fn upgrade(&self) -> Took {
        self.stop();
        for i in 0..NODES {
            let node = self.root.join(format!("server{i}/ansible"));
            let _ = std::fs::remove_dir_all(&node);
            for release in ["1", "2"] {
                std::fs::create_dir_all(node.join("releases").join(release)).expect("made");
            }
            std::fs::copy(
                self.field.join("workspace/builds/1/service.py"),
                node.join("releases/1/service.py"),
            )
            .expect("copied");
            std::os::unix::fs::symlink("releases/1", node.join("current")).expect("linked");
            let start = start_lines("current", &(Self::PORT + i).to_string());
            // Its parent is gone when it is stopped, as on a server.
            let started = Command::new("sh")
                .args(["-c", &start])
                .current_dir(&node)
                .status()
                .expect("sh runs");
            assert!(started.success());
        }
        let mut playbook = Command::new(&self.program);
        playbook
            .arg("upgrade.yaml")
            .current_dir(&self.root)
            .env("ANSIBLE_CONFIG", self.root.join("ansible.cfg"));
        let took = take(&playbook);
        let said = String::from_utf8_lossy(&took.output.stdout);
        assert_eq!(said.matches("ok=4 ").count(), usize::from(NODES), "{said}");
        took
    }

    fn stop(&self) {
        for i in 0..NODES {
            let pid = std::fs::read_to_string(self.root.join(format!("server{i}/ansible/run/pid")));
            let pid = pid
                .ok()
                .and_then(|p| p.trim().parse().ok())
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }
}

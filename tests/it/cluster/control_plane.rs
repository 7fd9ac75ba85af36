//! A control plane of Kubernetes on loopback, with no node: etcd and kube-apiserver as they are, built once of tests/cluster.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fetched::once;

/// It is ready within seconds; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ends with this value.
pub struct ControlPlane {
    programs: PathBuf,
    server: String,
    token: String,
    // Ended before their files go.
    children: Vec<Child>,
    files: tempfile::TempDir,
}

/// What a `kubectl` left.
#[derive(Debug)]
pub struct Said {
    pub done: bool,
    pub out: String,
    pub err: String,
}

impl ControlPlane {
    pub fn start() -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let ports: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let port = |i: usize| ports[i].local_addr().expect("bound").port();
        let (etcd, peer, api) = (
            format!("http://127.0.0.1:{}", port(0)),
            format!("http://127.0.0.1:{}", port(1)),
            port(2).to_string(),
        );
        drop(ports);
        let token = "of-the-tests".to_owned();
        let path = |name: &str| files.path().join(name);
        fs::write(path("tokens.csv"), format!("{token},tests,1,system:masters\n")).expect("written");
        let key = Command::new("openssl")
            .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
            .arg(path("accounts.pem"))
            .output();
        assert!(key.expect("openssl runs").status.success(), "no key for service accounts");

        let mut this = Self {
            programs: programs(),
            server: format!("https://127.0.0.1:{api}"),
            token,
            children: Vec::new(),
            files,
        };
        let text = |name: &str| this.files.path().join(name).to_string_lossy().into_owned();
        let (data, certificates, tokens, accounts) =
            (text("etcd"), text("certificates"), text("tokens.csv"), text("accounts.pem"));
        let cluster = format!("tests={peer}");
        this.spawn(
            "etcd",
            &[
                "--name", "tests", "--data-dir", &data, "--listen-client-urls", &etcd, "--advertise-client-urls", &etcd,
                "--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &cluster,
                // Nobody wants it back after a power cut.
                "--unsafe-no-fsync", "--log-level", "warn",
            ],
        );
        this.spawn(
            "kube-apiserver",
            &[
                "--etcd-servers", &etcd, "--bind-address", "127.0.0.1", "--secure-port", &api, "--advertise-address", "127.0.0.1",
                "--endpoint-reconciler-type", "none", "--cert-dir", &certificates, "--token-auth-file", &tokens,
                "--authorization-mode", "RBAC", "--service-account-issuer", "https://kubernetes.default.svc",
                "--service-account-key-file", &accounts, "--service-account-signing-key-file", &accounts,
                // Of RFC 2544: of no network.
                "--service-cluster-ip-range", "198.19.0.0/24", "--profiling=false",
            ],
        );
        let end = Instant::now() + PATIENCE;
        while !this.kubectl(&["get", "--raw", "/readyz"], "").done {
            assert!(Instant::now() < end, "no API server: {}", this.log("kube-apiserver"));
            std::thread::sleep(LOOK_EVERY);
        }
        this
    }

    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Said {
        use std::io::Write as _;
        let mut child = Command::new(&self.programs)
            .arg("kubectl")
            .args(["--server", &self.server, "--token", &self.token, "--insecure-skip-tls-verify"])
            .args(["--cache-dir", &self.files.path().join("cache").to_string_lossy()])
            .args(arguments)
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        let fed = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let left = child.wait_with_output().expect("it ends");
        // Who does not read its input has ended without it.
        let _ = fed.join().expect("no panic");
        Said {
            done: left.status.success(),
            out: String::from_utf8_lossy(&left.stdout).into_owned(),
            err: String::from_utf8_lossy(&left.stderr).into_owned(),
        }
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let log = File::create(self.files.path().join(program).with_extension("log")).expect("made");
        let child = Command::new(&self.programs)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("cloned"))
            .stderr(log)
            .spawn();
        self.children.push(child.expect("it runs"));
    }

    fn log(&self, program: &str) -> String {
        let text = fs::read_to_string(self.files.path().join(program).with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The server before what it keeps its objects in.
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The binary of tests/cluster. Its sources and versions are part of its name, so that it is built anew when they change.
fn programs() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
    let mut bytes = Vec::new();
    for name in ["go.mod", "go.sum", "main.go"] {
        bytes.extend(fs::read(sources.join(name)).expect("a source"));
    }
    let digest = stagegate::model::values::Digest::of(&bytes);
    once(&format!("cluster-{}", digest.short()), |place| {
        // What kubectl and the API server say that they are; without it, 0.0.0.
        let version = "-s -w -X k8s.io/component-base/version.gitVersion=v1.35.4 \
                       -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35";
        let built = Command::new("go")
            .args(["build", "-trimpath", "-ldflags", version, "-o"])
            .arg(place.join("cluster"))
            .arg(".")
            .current_dir(&sources)
            .status();
        assert!(built.expect("go runs").success(), "tests/cluster is not built");
    })
    .join("cluster")
}

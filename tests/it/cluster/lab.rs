//! A real Kubernetes on this machine, from the sources of its programs: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler on loopback; and, in a network namespace of its own, nodes with a kubelet and a containerd each, whose pods
//! are real. What it needs is built once of `tests/cluster` and installed by `tests/run`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stagegate::model::values::Digest;

use crate::fetched::once;
use crate::ports;

/// It is ready within seconds, and a hundred pods are upgraded within one minute; a machine that runs other tests beside takes its time.
const PATIENCE: Duration = Duration::from_mins(8);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Its place among the programs, which are begun in their order.
const API_SERVER: usize = 1;
const PART_OF_US: &str = "app.kubernetes.io/part-of=stagegate";
/// Eight times what one process has by default in version 1; in version 2 the most is 10,000, and 100 the default.
const POD_WEIGHT: &str = "8192";
/// Of RFC 2544, for tests between networks: no network has it.
const PODS: &str = "198.18.7";
const SERVICES: &str = "198.19.0.0/24";
/// The first of them, which is always that of the API server.
const API: &str = "198.19.0.1";
/// Where pods expect it.
const API_PORT: u16 = 443;
/// What service accounts ask for, but those of the controllers of Kubernetes.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
    {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
    {"level": "None"}
]}"#;

/// The API server's record of what it was asked for.
const AUDITED: &str = "audit.jsonl";

/// The kubeconfig of a cluster that tests use in the place of one of their own, where they need nothing but its API.
const EXISTING: &str = "STAGEGATE_TEST_KUBECONFIG";

/// Ends with this value.
pub struct Lab {
    programs: PathBuf,
    existing: Option<Existing>,
    api: String,
    namespace: Option<Namespace>,
    nodes: Vec<PathBuf>,
    /// What the API server was begun with.
    api_arguments: String,
    // Ended before their files go.
    children: Vec<Child>,
    /// Of every node one, which is ended before what it would begin anew.
    kubelets: Vec<Child>,
    files: tempfile::TempDir,
}

/// What a program left.
#[derive(Debug)]
pub struct Left {
    pub done: bool,
    pub out: String,
    pub err: String,
}

/// A cluster that was there before, with what is ours in it.
struct Existing {
    /// Its namespaces are by name, so one test at a time has it.
    _turn: File,
    namespaces: Vec<String>,
    /// Kinds that it did not know before.
    kinds: bool,
}

/// A network that only this test has.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let this = Self(format!("stagegate-{}-{number}", std::process::id()));
        let name = &this.0;
        for words in [
            format!("netns add {name}"),
            format!("-n {name} link set lo up"),
            // The pods' network, and what the nodes' own addresses lie on.
            format!("-n {name} link add cni0 type bridge"),
            format!("-n {name} addr add {PODS}.1/24 dev cni0"),
            format!("-n {name} link set cni0 up"),
            // Nothing here sends a Service's address on to pods, so the API server has that of its own itself.
            format!("-n {name} addr add {API}/32 dev lo"),
        ] {
            run("ip", words.split(' '));
        }
        this
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) {
    let done = Command::new(program).args(arguments).output().expect("it runs");
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program}: {words}");
}

/// A program, in a network namespace where there is one. Not by `ip netns exec`, which hides the cgroups.
fn within(namespace: Option<&Namespace>, program: &Path) -> Command {
    match namespace {
        None => Command::new(program),
        Some(Namespace(name)) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program);
            command
        }
    }
}

impl Lab {
    /// A control plane without any node.
    pub fn without_nodes() -> Self {
        Self::new(None)
    }

    /// For a test that needs nothing but an API: the cluster that `STAGEGATE_TEST_KUBECONFIG` names, else one of its own. Of these
    /// namespaces the first is made for it and is what kubectl goes by; none is there before it, and none after it.
    pub fn with_api(namespaces: &[&str]) -> Self {
        let this = match std::env::var_os(EXISTING) {
            None => Self::without_nodes(),
            Some(config) => Self::at(Path::new(&config), namespaces),
        };
        let first = namespaces.first().expect("a namespace");
        let made = this.kubectl(&["create", "namespace", first], "");
        assert!(made.done, "{made:#?}");
        let set = ["config", "set-context", "--current", "--namespace", first];
        let set = this.kubectl(&set, "");
        assert!(set.done, "{set:#?}");
        this
    }

    fn at(config: &Path, namespaces: &[&str]) -> Self {
        let turn = Path::new(env!("CARGO_TARGET_TMPDIR")).join("existing-cluster.lock");
        let turn = File::create(turn).expect("made");
        turn.lock().expect("locked");
        let files = tempfile::tempdir().expect("a directory");
        let copied = fs::copy(config, files.path().join("admin.kubeconfig"));
        copied.unwrap_or_else(|e| panic!("{EXISTING}={}: {e}", config.display()));
        let mut this = Self {
            programs: PathBuf::from("kubectl"),
            existing: None,
            api: String::new(),
            namespace: None,
            nodes: Vec::new(),
            api_arguments: String::new(),
            children: Vec::new(),
            kubelets: Vec::new(),
            files,
        };
        for namespace in namespaces {
            let there = this.kubectl(&["get", "namespace", namespace, "--ignore-not-found", "-o", "name"], "");
            assert!(
                there.done && there.out.is_empty(),
                "namespace {namespace} of the cluster at {EXISTING} is somebody's, or cannot be looked at: {there:#?}"
            );
        }
        let known = this.kubectl(&["get", "crd", "-o", "name", "-l", PART_OF_US], "");
        assert!(known.done, "{known:#?}");
        this.existing = Some(Existing {
            _turn: turn,
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            kinds: known.out.is_empty(),
        });
        this
    }

    /// With as many nodes.
    pub fn with_nodes(count: u8) -> Self {
        let mut this = Self::new(Some(Namespace::new()));
        for number in 1..=count {
            this.node(number);
        }
        for number in 1..=count {
            let node = format!("node/node-{number}");
            this.until(&format!("{node} is ready"), |lab| {
                lab.kubectl(&["wait", "--for=condition=Ready", &node, "--timeout=1s"], "")
                    .done
            });
        }
        this
    }

    /// Lets pods have the processors that they ask for, though this machine builds something else: all of them together would
    /// weigh as much as one of its processes. A node by itself does it by cgroups that this one leaves to the machine.
    pub fn prefer_pods() {
        // Of containerd, for what a kubelet begins; version 1 of cgroups, and version 2.
        for (group, file) in [("cpu/k8s.io", "cpu.shares"), ("k8s.io", "cpu.weight")] {
            let group = Path::new("/sys/fs/cgroup").join(group);
            let file = group.join(file);
            if group.parent().is_some_and(|above| above.join("cgroup.procs").exists())
                && (fs::create_dir(&group).is_ok() || file.exists())
                && let Err(why) = fs::write(&file, POD_WEIGHT)
            {
                eprintln!("{}: {why}", file.display());
            }
        }
    }

    fn new(namespace: Option<Namespace>) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let first = ports::free(5);
        let port = |i: u16| (first + i).to_string();
        let (etcd, peer) = (
            format!("http://127.0.0.1:{}", port(0)),
            format!("http://127.0.0.1:{}", port(1)),
        );
        let (controllers, scheduler) = (port(3), port(4));
        // In a network of its own any port is free.
        let (listen, api) = match &namespace {
            None => ("127.0.0.1", port(2)),
            Some(_) => ("0.0.0.0", API_PORT.to_string()),
        };
        let mut this = Self {
            programs: programs().join("cluster"),
            existing: None,
            api: format!("https://127.0.0.1:{api}"),
            namespace,
            nodes: Vec::new(),
            api_arguments: String::new(),
            children: Vec::new(),
            kubelets: Vec::new(),
            files,
        };
        let text = |name: &str| this.path(name).to_string_lossy().into_owned();
        let (data, certificates, tokens, accounts) =
            (text("etcd"), text("api"), text("tokens.csv"), text("accounts.pem"));
        let (policy, audit) = (text("audit-policy.json"), text(AUDITED));
        fs::write(&policy, AUDIT).expect("written");
        let mut users = Vec::new();
        for (name, user, group) in [
            ("admin", "admin", "system:masters"),
            ("controllers", "system:kube-controller-manager", ""),
            ("scheduler", "system:kube-scheduler", ""),
            ("node-1", "system:node:node-1", "system:nodes"),
            ("node-2", "system:node:node-2", "system:nodes"),
        ] {
            users.push(format!("token-of-{name},{user},{name},\"{group}\"\n"));
            this.kubeconfig(name);
        }
        fs::write(this.path("tokens.csv"), users.concat()).expect("written");
        let key = [
            "genpkey",
            "-quiet",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
        ];
        run("openssl", key.into_iter().chain([accounts.as_str()]));
        let (for_controllers, for_scheduler) = (text("controllers.kubeconfig"), text("scheduler.kubeconfig"));
        this.spawn(
            "etcd",
            &format!(
                "--name tests --data-dir {data} --listen-client-urls {etcd} --advertise-client-urls {etcd} --listen-peer-urls {peer} \
                 --initial-advertise-peer-urls {peer} --initial-cluster tests={peer} --unsafe-no-fsync --log-level warn"
            ),
        );
        this.api_arguments = format!(
            "--etcd-servers {etcd} --bind-address {listen} --secure-port {api} --advertise-address 127.0.0.1 \
             --endpoint-reconciler-type none --cert-dir {certificates} --token-auth-file {tokens} --authorization-mode Node,RBAC \
             --allow-privileged --service-account-issuer https://kubernetes.default.svc --service-account-key-file {accounts} \
             --service-account-signing-key-file {accounts} --service-cluster-ip-range {SERVICES} --profiling=false \
             --kubelet-preferred-address-types InternalIP --audit-policy-file {policy} --audit-log-path {audit}"
        );
        let arguments = this.api_arguments.clone();
        this.spawn("kube-apiserver", &arguments);
        this.until("the API server is ready", |lab| {
            lab.kubectl(&["get", "--raw", "/readyz"], "").done
        });
        this.spawn(
            "kube-controller-manager",
            &format!(
                "--kubeconfig {for_controllers} --bind-address 127.0.0.1 --secure-port {controllers} --cert-dir {certificates} \
                 --service-account-private-key-file {accounts} --use-service-account-credentials --leader-elect=false \
                 --root-ca-file {certificates}/apiserver.crt \
                 --kube-api-qps 500 --kube-api-burst 1000"
            ),
        );
        this.spawn(
            "kube-scheduler",
            &format!(
                "--kubeconfig {for_scheduler} --bind-address 127.0.0.1 --secure-port {scheduler} --cert-dir {certificates} \
                 --authentication-kubeconfig {for_scheduler} --authorization-kubeconfig {for_scheduler} --leader-elect=false"
            ),
        );
        // Its first visible work.
        this.until("the controllers work", |lab| {
            lab.kubectl(&["get", "serviceaccount", "default", "-n", "default"], "")
                .done
        });
        this
    }

    /// Kills the API server and begins it anew; what it knows lies in etcd.
    pub fn restart_api(&mut self) {
        let mut old = self.children.remove(API_SERVER);
        old.kill().expect("ours");
        old.wait().expect("ours");
        let arguments = self.api_arguments.clone();
        self.spawn("kube-apiserver", &arguments);
        let new = self.children.pop().expect("just begun");
        self.children.insert(API_SERVER, new);
        self.until("the API server is ready again", |lab| {
            lab.kubectl(&["get", "--raw", "/readyz"], "").done
        });
    }

    /// Where the nodes and their pods reach who works beside them in their network.
    pub fn gateway() -> String {
        format!("{PODS}.1")
    }

    /// The programs of tests/cluster in one: its first argument says which it is.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Where the API is, and who is its administrator.
    pub fn admin(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    fn kubeconfig(&self, user: &str) {
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": self.api, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "lab", "user": {"token": format!("token-of-{user}")}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        });
        fs::write(self.path(&format!("{user}.kubeconfig")), text.to_string()).expect("written");
    }

    /// A command that reaches the cluster and its pods.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = within(self.namespace.as_ref(), program);
        command.env("KUBECONFIG", self.admin());
        command
    }

    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Left {
        use std::io::Write as _;
        let mut command = self.command(&self.programs);
        if self.programs != Path::new("kubectl") {
            command.arg("kubectl");
        }
        let mut child = command
            .arg("--cache-dir")
            .arg(self.path("cache"))
            .args(arguments)
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
        Left {
            done: left.status.success(),
            out: String::from_utf8_lossy(&left.stdout).into_owned(),
            err: String::from_utf8_lossy(&left.stderr).into_owned(),
        }
    }

    /// What is there, as JSON.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let left = self.kubectl(&[&["get", "-o", "json"], arguments].concat(), "");
        assert!(left.done, "{left:#?}");
        serde_json::from_str(&left.out).expect("JSON")
    }

    /// What a service account has asked the API server for so far, as it was recorded.
    pub fn audited(&self, account: &str) -> Vec<Value> {
        let all = fs::read_to_string(self.path(AUDITED)).expect("written by the API server");
        // The last line may be half of one.
        let whole = all.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let read = whole.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        read.filter(|event: &Value| event["user"]["username"] == account)
            .collect()
    }

    /// Looks until it is so, or fails naming what was waited for.
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}\n{}", self.logs());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn spawn(&mut self, program: &str, arguments: &str) {
        let mut command = within(self.namespace.as_ref(), &self.programs);
        command.arg(program).args(arguments.split_whitespace());
        self.begin(program, command);
    }

    /// Begins a program that ends with this value.
    pub(super) fn begin(&mut self, name: &str, command: Command) {
        let child = self.begun(name, command);
        self.children.push(child);
    }

    fn begun(&self, name: &str, mut command: Command) -> Child {
        let log = File::create(self.path(&format!("{name}.log"))).expect("made");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("cloned"))
            .stderr(log)
            .spawn();
        child.expect("it runs")
    }

    /// The last lines of every log.
    fn logs(&self) -> String {
        let logs = fs::read_dir(self.files.path()).expect("ours").filter_map(|entry| {
            let path = entry.ok()?.path();
            let text = fs::read_to_string(&path)
                .ok()
                .filter(|_| path.extension() == Some(OsStr::new("log")))?;
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(8)..].join("\n");
            Some(format!("== {}\n{last}\n", path.display()))
        });
        logs.collect()
    }

    fn node(&mut self, number: u8) {
        let name = format!("node-{number}");
        let directory = self.path(&name);
        let address = format!("{PODS}.{}", 240 + number);
        let Some(Namespace(network)) = &self.namespace else {
            panic!("a node needs a network")
        };
        run("ip", format!("-n {network} addr add {address}/24 dev cni0").split(' '));
        for below in ["cni", "logs", "kubelet"] {
            fs::create_dir_all(directory.join(below)).expect("made");
        }
        fs::write(directory.join("resolv.conf"), "").expect("written");
        // All share the bridge and the addresses, so that any pod reaches any other.
        let network = json!({
            "cniVersion": "0.4.0", "name": "lab", "type": "bridge", "bridge": "cni0",
            "ipam": {"type": "host-local", "dataDir": self.path("addresses"), "ranges": [[{
                "subnet": format!("{PODS}.0/24"), "rangeStart": format!("{PODS}.10"), "rangeEnd": format!("{PODS}.239"),
            }]], "routes": [{"dst": SERVICES, "gw": Self::gateway()}]},
        });
        fs::write(directory.join("cni/10-lab.conf"), network.to_string()).expect("written");
        let place = directory.display();
        // `restrict_oom_score_adj`: for a root that may not make a process less likely to be killed.
        let containerd = format!(
            "version = 2\nroot = \"{place}/containerd\"\nstate = \"{place}/state\"\n[grpc]\naddress = \"{place}/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"lab.local/pause:1\"\nrestrict_oom_score_adj = true\n\
             netns_mounts_under_state_dir = true\ndisable_apparmor = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{place}/cni\"\n"
        );
        fs::write(directory.join("containerd.toml"), containerd).expect("written");
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address,
            "port": 10_250,
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": format!("unix://{place}/containerd.sock"),
            // The machine's cgroups are the machine's.
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            "localStorageCapacityIsolation": false,
            "makeIPTablesUtilChains": false,
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "resolvConf": directory.join("resolv.conf"),
            "podLogsDir": directory.join("logs"),
            "volumePluginDir": directory.join("plugins"),
            "syncFrequency": "10s",
            // Crashes are counted; the time between two of them is only waited for.
            "featureGates": {"KubeletCrashLoopBackOffMax": true},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        });
        fs::write(directory.join("kubelet.yaml"), kubelet.to_string()).expect("written");
        let mut command = within(self.namespace.as_ref(), Path::new("containerd"));
        command.arg("--config").arg(directory.join("containerd.toml"));
        self.begin(&format!("containerd-{name}"), command);
        self.nodes.push(directory.clone());
        self.until(&format!("containerd of {name} answers"), |_| {
            ctr(&directory, &["version"]).done
        });
        let (pause, _) = Layout::of_app("lab.local/pause:1", &["/app", "pause"], &[]);
        let tar = directory.join("pause.tar");
        pause.archive(&tar);
        import(&directory, &tar);
        self.spawn_kubelet(&name, &directory, &address);
    }

    fn spawn_kubelet(&mut self, name: &str, directory: &Path, address: &str) {
        let mut command = within(self.namespace.as_ref(), &self.programs);
        command
            .arg("kubelet")
            .arg("--config")
            .arg(directory.join("kubelet.yaml"))
            .arg("--kubeconfig")
            .arg(self.path(&format!("{name}.kubeconfig")))
            .args(["--hostname-override", name, "--node-ip", address])
            .arg("--root-dir")
            .arg(directory.join("kubelet"))
            .arg("--cert-dir")
            .arg(directory.join("kubelet/pki"));
        let kubelet = self.begun(&format!("kubelet-{name}"), command);
        self.kubelets.push(kubelet);
    }

    /// Puts an image of the tests' own service on every node, as if it had been fetched, and gives its digest.
    pub fn image(&self, repository: &str, variables: &[(&str, &str)]) -> Digest {
        let (layout, digest) = Layout::of_app(repository, &["/app"], variables);
        self.images(&layout);
        digest
    }

    /// Takes an image from every node.
    pub fn forget_image(&self, name: &str) {
        for node in &self.nodes {
            let left = ctr(node, &["images", "rm", "--sync", name]);
            assert!(left.done, "{left:#?}");
        }
    }

    /// Puts all images of a layout on every node.
    pub fn images(&self, layout: &Layout) {
        let tar = self.path("image.tar");
        layout.archive(&tar);
        self.import_all(&tar);
        fs::remove_file(&tar).expect("ours");
    }

    /// Puts all images of an archive on every node.
    pub fn import_all(&self, archive: &Path) {
        for node in &self.nodes {
            import(node, archive);
        }
    }
}

fn import(node: &Path, archive: &Path) {
    let left = ctr(node, &["images", "import", &archive.to_string_lossy()]);
    assert!(left.done, "{left:#?}");
}

fn ctr(node: &Path, arguments: &[&str]) -> Left {
    let left = Command::new("ctr")
        .arg("--address")
        .arg(node.join("containerd.sock"))
        .args(["--namespace", "k8s.io"])
        .args(arguments)
        .output()
        .expect("it runs");
    Left {
        done: left.status.success(),
        out: String::from_utf8_lossy(&left.stdout).into_owned(),
        err: String::from_utf8_lossy(&left.stderr).into_owned(),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(Existing { namespaces, kinds, .. }) = &self.existing {
            let mut delete = vec!["delete", "namespace", "--ignore-not-found"];
            delete.extend(namespaces.iter().map(String::as_str));
            let mut left = vec![self.kubectl(&delete, "")];
            if *kinds {
                left.push(self.kubectl(&["delete", "crd", "-l", PART_OF_US], ""));
            }
            for left in left.iter().filter(|left| !left.done) {
                eprintln!("{left:#?}");
            }
        }
        // The kubelets first, or they would begin anew what is ended; and every containerd last, or nobody could end what it has begun.
        self.kubelets.drain(..).for_each(end);
        let left: Vec<Left> = self.nodes.iter().filter_map(|node| end_tasks(node)).collect();
        while let Some(child) = self.children.pop() {
            end(child);
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = self.files.path().to_string_lossy().into_owned();
        let mut mounted: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        mounted.retain(|at| at.starts_with(&ours));
        mounted.sort_unstable();
        for at in mounted.into_iter().rev() {
            let _ = Command::new("umount").args(["-l", at]).status();
        }
        // What runs on would weigh on every test after this one.
        assert!(left.is_empty() || std::thread::panicking(), "pods run on: {left:#?}");
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Ends what a node runs, and gives what is left of that.
fn end_tasks(node: &Path) -> Option<Left> {
    for task in ctr(node, &["tasks", "ls", "-q"]).out.lines() {
        let _ = ctr(node, &["tasks", "rm", "-f", task]);
    }
    let after = ctr(node, &["tasks", "ls", "-q"]);
    let is_left = !after.done || !after.out.trim().is_empty();
    is_left.then_some(after)
}

/// Images as the specification of OCI lays them out. Layers that several share are in it once.
pub struct Layout {
    directory: tempfile::TempDir,
    manifests: Vec<Value>,
}

/// A layer of an image.
#[derive(Clone, Copy)]
pub struct Layer {
    digest: Digest,
    size: u64,
}

impl Layout {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("blobs/sha256")).expect("made");
        Self {
            directory,
            manifests: Vec::new(),
        }
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.directory.path().join("blobs/sha256").join(digest.hex())
    }

    fn blob(&self, bytes: &[u8]) -> Layer {
        let digest = Digest::of(bytes);
        fs::write(self.place(&digest), bytes).expect("written");
        Layer {
            digest,
            size: u64::try_from(bytes.len()).expect("few"),
        }
    }

    /// A tar that is somewhere, of any size.
    pub fn layer(&self, tar: &Path) -> Layer {
        let said = Command::new("sha256sum").arg(tar).output().expect("it runs");
        let words = String::from_utf8_lossy(&said.stdout);
        let hex = words.split(' ').next().unwrap_or_default();
        let digest: Digest = format!("sha256:{hex}").parse().expect("a digest");
        fs::copy(tar, self.place(&digest)).expect("copied");
        Layer {
            digest,
            size: fs::metadata(tar).expect("it is there").len(),
        }
    }

    /// The one static program of the tests.
    fn app(&self) -> Layer {
        let root = self.directory.path().join("root");
        fs::create_dir(&root).expect("made");
        fs::copy(programs().join("app"), root.join("app")).expect("copied");
        let tar = self.directory.path().join("layer");
        let archive = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-C"];
        let words = archive.iter().map(OsStr::new);
        run(
            "tar",
            words.chain([root.as_os_str(), OsStr::new("-cf"), tar.as_os_str(), OsStr::new(".")]),
        );
        fs::remove_dir_all(&root).expect("ours");
        let layer = self.layer(&tar);
        fs::remove_file(&tar).expect("ours");
        layer
    }

    /// An image of layers, the lowest first. A repository is named with the image's digest; a name with a tag is taken as it is.
    pub fn image(&mut self, name: &str, layers: &[Layer], entry: &[&str], variables: &[(&str, &str)]) -> Digest {
        let variables: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "os": "linux",
            "config": {"Entrypoint": entry, "Env": variables},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let part = |kind: &str, of: Layer| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": of.digest, "size": of.size});
        let layers: Vec<Value> = layers.iter().map(|layer| part("layer.v1.tar", *layer)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": part("config.v1+json", self.blob(config.to_string().as_bytes())),
            "layers": layers,
        });
        let manifest = self.blob(manifest.to_string().as_bytes());
        let name = if name.contains(':') {
            name.to_owned()
        } else {
            format!("{name}@{}", manifest.digest)
        };
        let mut entry = part("manifest.v1+json", manifest);
        entry["annotations"] = json!(BTreeMap::from([("io.containerd.image.name", name)]));
        self.manifests.push(entry);
        manifest.digest
    }

    /// An image with the tests' own program.
    fn of_app(name: &str, entry: &[&str], variables: &[(&str, &str)]) -> (Self, Digest) {
        let mut layout = Self::new();
        let app = layout.app();
        let digest = layout.image(name, &[app], entry, variables);
        (layout, digest)
    }

    /// All in one tar, as a registry's client would bring it.
    fn archive(&self, tar: &Path) {
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        let place = self.directory.path();
        fs::write(place.join("index.json"), index.to_string()).expect("written");
        fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("written");
        run(
            "tar",
            [
                OsStr::new("-C"),
                place.as_os_str(),
                OsStr::new("-cf"),
                tar.as_os_str(),
                OsStr::new("."),
            ],
        );
    }
}

/// The programs of tests/cluster. Their sources and versions are part of the directory's name, so that they are built anew when
/// one changes.
fn programs() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
    let mut bytes = Vec::new();
    for name in ["go.mod", "go.sum", "main.go", "app/go.mod", "app/main.go"] {
        bytes.extend(fs::read(sources.join(name)).expect("a source"));
    }
    once(&format!("cluster-{}", Digest::of(&bytes).short()), |place| {
        // What kubectl and the API server say that they are; without it, 0.0.0.
        let version = "-s -w -X k8s.io/component-base/version.gitVersion=v1.35.4 \
                       -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35";
        for (name, source) in [("cluster", sources.clone()), ("app", sources.join("app"))] {
            let built = Command::new("go")
                .args(["build", "-trimpath", "-ldflags", version, "-o"])
                .arg(place.join(name))
                .arg(".")
                .current_dir(source)
                // A program for an image with nothing else in it.
                .envs((name == "app").then_some(("CGO_ENABLED", "0")))
                .status();
            assert!(built.expect("go runs").success(), "tests/cluster is not built: {name}");
        }
    })
}

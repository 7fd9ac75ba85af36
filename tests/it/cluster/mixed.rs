//! One upgrade over a `StatefulSet` and two servers over SSH: pods on real nodes, servers behind a real sshd each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::lab::Lab;
use crate::sshd::Sshd;
use crate::trivial::{Running, Said};

const REPOSITORY: &str = "lab.local/app";
const REPLICAS: usize = 2;
/// With the ports of their services: both are in the lab's network.
const SERVERS: [(&str, u16); 2] = [("server-a", 18080), ("server-b", 18081)];
/// Version, and what its files make a server answer. Its image answers as it should.
const BUILDS: [(&str, &str); 3] = [
    ("1", "done by 1"),
    ("2", "done by 2"),
    ("broken", "not what was asked for"),
];

/// A workspace, a state, a set on version 1 in a cluster, and servers with nothing on them.
struct Shop {
    directory: tempfile::TempDir,
    // They live in the lab's network, so they end before it.
    _sshds: Vec<Sshd>,
    lab: Lab,
}

impl Shop {
    fn open() -> Self {
        let lab = Lab::with_nodes(1);
        let directory = tempfile::tempdir().expect("a directory");
        let mut digests = Vec::new();
        let mut first = None;
        for (version, _) in BUILDS {
            let digest = lab.image(REPOSITORY, &[("APP_VERSION", version)]);
            digests.push(format!("\"{version}\": \"{digest}\""));
            first.get_or_insert(format!("{REPOSITORY}@{digest}"));
        }
        let set = include_str!("pods/set.yaml")
            .replace("IMAGE", &first.expect("a build"))
            .replace("REPLICAS", &REPLICAS.to_string());
        let applied = lab.kubectl(&["apply", "-f", "-"], &set);
        assert!(applied.done, "{applied:#?}");
        let rolled = lab.kubectl(&["rollout", "status", "statefulset/web", "--timeout=120s"], "");
        assert!(rolled.done, "{rolled:#?}");
        let sshds = SERVERS.map(|(name, _)| {
            let root = directory.path().join(name);
            std::fs::create_dir(&root).expect("made");
            Sshd::within(&|| lab.command(Path::new(Sshd::PROGRAM)), name, &root)
        });
        let shop = Self {
            directory,
            _sshds: sshds.into(),
            lab,
        };
        shop.workspace(&digests.join(", "));
        shop.stagegate(&["up", "shop"]).expect_code(0);
        shop
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join("workspace").join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn place(&self, server: &str) -> PathBuf {
        self.directory.path().join(server).join("node")
    }

    fn workspace(&self, digests: &str) {
        let servers = SERVERS.map(|(name, port)| {
            let config = self.directory.path().join(name).join("ssh_config");
            format!(
                "{{name: {name}, address: 127.0.0.1, ports: {{http: {port}}}, \
                 host: {{ssh: {{destination: {name}, config: {}, directory: {}}}}}}}",
                config.display(),
                self.place(name).display(),
            )
        });
        let environment = include_str!("mixed/environment.yaml")
            .replace("REPOSITORY", REPOSITORY)
            .replace("REPLICAS", &REPLICAS.to_string())
            .replace("DIGESTS", digests)
            .replace("SERVERS", &servers.join(", "));
        self.write("environments/shop.yaml", &environment);
        for (version, answer) in BUILDS {
            self.write(&format!("builds/{version}/alive"), &format!("alive {version}\n"));
            self.write(&format!("builds/{version}/work"), &format!("{answer}\n"));
        }
        self.write("templates/check.sh", "set -eu\n[ -n \"{{ node.name }}\" ]\n");
        self.write(
            "templates/install.sh",
            "set -eu\ncp -R \"$STAGEGATE_ARTIFACT/.\" \"$STAGEGATE_RELEASE_DIR/\"\n",
        );
        self.write(
            "templates/start.sh",
            "set -eu\nmkdir -p run log\npython3 -m http.server {{ node.ports.http }} --bind {{ node.address }} \
             --directory \"$STAGEGATE_RELEASE_DIR\" >log/web 2>&1 </dev/null &\necho $! >run/pid\n",
        );
        self.write(
            "templates/stop.sh",
            "set -eu\npid=$(cat run/pid)\nkill \"$pid\"\nwhile kill -0 \"$pid\" 2>/dev/null; do sleep 0.02; done\n",
        );
        self.write("templates/warm.sh", "set -eu\necho warm >>warmed\n");
    }

    fn stagegate(&self, arguments: &[&str]) -> Said {
        let command = self.lab.command(Path::new(env!("CARGO_BIN_EXE_stagegate")));
        Running::at(command, self.directory.path(), arguments).end()
    }

    fn upgrade(&self, version: &str, code: i32) -> Value {
        let build = format!("web={version}");
        let said = self.stagegate(&["upgrade", "shop", "--build", &build, "-o", "json"]);
        said.expect_code(code).json()
    }

    /// What every node answers, pods by their own addresses.
    fn answers(&self) -> BTreeMap<String, String> {
        let list = self.lab.get(&["pods"]);
        let pods = list["items"].as_array().expect("a list").iter().map(|pod| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"]), 8080)
        });
        let servers = SERVERS.map(|(name, port)| (name.to_owned(), "127.0.0.1".to_owned(), port));
        pods.chain(servers)
            .map(|(name, address, port)| {
                let url = format!("http://{address}:{port}/work");
                let asked = self
                    .lab
                    .command(Path::new("curl"))
                    .args(["-sS", "--max-time", "5", &url])
                    .output();
                let asked = asked.expect("curl runs");
                (name, String::from_utf8_lossy(&asked.stdout).trim().to_owned())
            })
            .collect()
    }

    fn all_answer(&self, version: &str) {
        let answers = self.answers();
        assert_eq!(answers.len(), REPLICAS + SERVERS.len(), "{answers:#?}");
        let expected = format!("done by {version}");
        assert!(answers.values().all(|answer| *answer == expected), "{answers:#?}");
    }

    /// Installs and restarts of an upgrade that a server's own journal has.
    fn done_on(&self, server: &str, upgrade: &Value, action: &str) -> usize {
        let name = upgrade["metadata"]["name"].as_str().expect("a name");
        let journal = std::fs::read_to_string(self.place(server).join("journal")).expect("a journal");
        let mine = format!("{name}.");
        let lines = journal
            .lines()
            .filter(|line| line.contains(&mine) && line.ends_with("end rc=0"));
        lines.filter(|line| line.contains(&format!(" {action} "))).count()
    }
}

impl Drop for Shop {
    /// Also after a failure: the servers' services are processes of this machine.
    fn drop(&mut self) {
        let gone = self.stagegate(&["down", "shop", "--purge"]);
        if gone.code != Some(0) {
            eprintln!("{gone:#?}");
        }
    }
}

#[test]
fn one_upgrade_goes_over_pods_and_servers_and_back_on_all() {
    let shop = Shop::open();
    shop.all_answer("1");
    a_good_build_goes_on_pods_and_servers(&shop);
    what_is_bad_on_servers_alone_goes_back_on_pods_too(&shop);
}

/// From 1 to 2.
fn a_good_build_goes_on_pods_and_servers(shop: &Shop) {
    let done = shop.upgrade("2", 0);
    assert_eq!(done["status"]["phase"], "Succeeded", "{done:#}");
    let nodes = done["status"]["nodes"].as_array().expect("nodes");
    let names: Vec<&str> = nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(names, ["web-1", "web-0", "server-a", "server-b"]);
    for node in nodes {
        assert_eq!(
            (&node["build"], &node["restarts"]),
            (&"web-2".into(), &1.into()),
            "{node:#}"
        );
    }
    for (server, _) in SERVERS {
        for action in ["install", "restart", "warm"] {
            assert_eq!(shop.done_on(server, &done, action), 1, "{server}: {action}");
        }
    }
    shop.all_answer("2");
}

/// On 2: both pods are on it when the first server answers wrongly.
fn what_is_bad_on_servers_alone_goes_back_on_pods_too(shop: &Shop) {
    let before = shop.lab.get(&["pods"]);
    let failed = shop.upgrade("broken", 3);
    assert_eq!(failed["status"]["phase"], "RolledBack", "{failed:#}");
    for node in failed["status"]["nodes"].as_array().expect("nodes") {
        let times = i32::from(node["name"] != "server-b");
        assert_eq!(
            (&node["build"], &node["restarts"], &node["rollbackRestarts"]),
            (&"web-2".into(), &times.into(), &times.into()),
            "{node:#}"
        );
    }
    shop.all_answer("2");
    let images = |list: &Value| {
        let pods = list["items"].as_array().expect("a list").iter();
        pods.map(|pod| pod["spec"]["containers"][0]["image"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(images(&shop.lab.get(&["pods"])), images(&before));
    let set = shop.lab.get(&["statefulset", "web"]);
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["partition"], 0,
        "{set:#}"
    );
    let refused = shop.stagegate(&["upgrade", "shop", "--build", "web=broken"]);
    assert!(
        refused.code == Some(6) && refused.err.contains("quarantined"),
        "{refused:#?}"
    );
}

//! The real server of `PanDA` as a `StatefulSet`: the shipped environment on real nodes, its images of Debian packages and `PyPI`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use stagegate::model::values::Digest;

use super::lab::{Lab, Layout};
use crate::fetched::once;
use crate::incident::{Psql, assert_caught};
use crate::trivial::Said;

const NAMESPACE: &str = "panda-staging";
const SET: &str = "panda-server";
/// The first is the one that pods are brought up on.
const VERSIONS: [&str; 3] = ["0.8.1", "1.0.4", "0.5.1"];
const REPLICAS: usize = 3;
/// The port of the database in environments/panda-kubernetes.yaml; it is the lab's network that has it.
const DATABASE_PORT: u16 = 25632;
const REPOSITORY: &str = "lab.local/panda-server";

/// The layers of the images, built once: panda-server and what it needs are fetched and compiled, which takes two minutes.
fn layers() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recipe = root.join("tests/it/cluster/panda/layers.py");
    let mut bytes = std::fs::read(&recipe).expect("a recipe");
    bytes.extend(VERSIONS.concat().bytes());
    once(&format!("panda-{}", Digest::of(&bytes).short()), |place| {
        let packages = [
            "apache2-dev",
            "python3.11-dev",
            "python3.11-venv",
            "gcc",
            "postgresql-15",
            "openssl",
        ];
        let installed = Command::new("sh")
            .arg(root.join("templates/panda/host/packages.sh"))
            .args(packages)
            .status();
        assert!(installed.expect("sh runs").success(), "{packages:?} are not installed");
        let built = Command::new("python3.11")
            .arg(&recipe)
            .arg(place)
            .args(VERSIONS)
            .status();
        assert!(built.expect("python runs").success(), "{}", recipe.display());
    })
}

/// A cluster whose nodes have the images, and a workspace with the shipped files.
struct Panda {
    lab: Lab,
    directory: tempfile::TempDir,
    images: BTreeMap<&'static str, String>,
}

impl Panda {
    fn up() -> Self {
        let layers = layers();
        let lab = Lab::with_nodes(1);
        let mut layout = Layout::new();
        let base = layout.layer(&layers.join("base.tar"));
        let server = layout.layer(&layers.join(format!("{}.tar", VERSIONS[0])));
        let mut images = BTreeMap::new();
        for version in VERSIONS {
            let mut of_version = vec![base, server];
            if version != VERSIONS[0] {
                of_version.push(layout.layer(&layers.join(format!("{version}.tar"))));
            }
            let digest = layout.image(REPOSITORY, &of_version, &[], &[]);
            images.insert(version, format!("{REPOSITORY}@{digest}"));
        }
        lab.images(&layout);
        Lab::prefer_pods();
        let this = Self {
            lab,
            directory: tempfile::tempdir().expect("a directory"),
            images,
        };
        this.workspace();
        this.stagegate(&["up", "panda-pods"]).expect_code(0);
        this
    }

    /// The shipped files, and where this cluster has otherwise.
    fn workspace(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = self.directory.path().join("workspace");
        let environments = workspace.join("environments");
        std::fs::create_dir_all(&environments).expect("made");
        std::os::unix::fs::symlink(root.join("templates"), workspace.join("templates")).expect("linked");
        for name in ["panda-production.yaml", "panda-kubernetes.yaml"] {
            std::fs::copy(root.join("environments").join(name), environments.join(name)).expect("copied");
        }
        let kubectl = self.directory.path().join("kubectl");
        let program = self.lab.programs().display();
        std::fs::write(&kubectl, format!("#!/bin/sh\nexec '{program}' kubectl \"$@\"\n")).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&kubectl, mode).expect("ours");
        let digests: Vec<String> = self
            .images
            .iter()
            .map(|(version, image)| format!("\"{version}\": {}", image.split('@').nth(1).expect("a digest")))
            .collect();
        let environment = include_str!("panda/pods.yaml")
            .replace("KUBECTL", &kubectl.to_string_lossy())
            .replace("GATEWAY", &Lab::gateway())
            .replace("REPOSITORY", REPOSITORY)
            .replace("DIGESTS", &digests.join(", "));
        std::fs::write(environments.join("panda-pods.yaml"), environment).expect("written");
    }

    fn stagegate(&self, arguments: &[&str]) -> Said {
        let command = self.lab.command(Path::new(env!("CARGO_BIN_EXE_stagegate")));
        crate::trivial::Running::at(command, self.directory.path(), arguments).end()
    }

    fn upgrade(&self, version: &str, code: i32) -> Value {
        let build = format!("panda-server={version}");
        let said = self.stagegate(&["upgrade", "panda-pods", "--build", &build, "-o", "json"]);
        said.expect_code(code).json()
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state/environments/panda-pods")
    }

    /// The pods by name: their images, and who they are.
    fn pods(&self) -> BTreeMap<String, (String, String)> {
        let list = self.lab.get(&["pods", "-n", NAMESPACE]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods = list["items"].as_array().expect("a list").iter();
        pods.map(|pod| {
            let image = text(&pod["spec"]["containers"][0]["image"]);
            (text(&pod["metadata"]["name"]), (image, text(&pod["metadata"]["uid"])))
        })
        .collect()
    }

    /// Every pod is on this version and ready, and the set is its owner's.
    fn all_are_on(&self, version: &str) {
        let pods = self.pods();
        assert_eq!(pods.len(), REPLICAS, "{pods:#?}");
        assert!(
            pods.values().all(|(image, _)| *image == self.images[version]),
            "{pods:#?}"
        );
        let set = self.lab.get(&["statefulset", SET, "-n", NAMESPACE]);
        let strategy = &set["spec"]["updateStrategy"];
        assert_eq!(strategy["type"], "RollingUpdate", "{set:#}");
        let partition = strategy["rollingUpdate"]["partition"].as_u64();
        assert_eq!(partition.unwrap_or_default(), 0, "{set:#}");
        assert_eq!(set["status"]["readyReplicas"], REPLICAS, "{set:#}");
    }

    fn holds_the_row(&self) -> Psql {
        let psql = self.lab.command(Path::new(Psql::PROGRAM));
        Psql::holds_the_row(psql, &self.state(), &Lab::gateway(), DATABASE_PORT)
    }
}

impl Drop for Panda {
    /// Also after a failure: the database is a process of this machine.
    fn drop(&mut self) {
        let gone = self.stagegate(&["down", "panda-pods", "--purge"]);
        if gone.code != Some(0) {
            eprintln!("{gone:#?}");
        }
    }
}

#[test]
fn the_real_server_goes_forward_and_back_as_a_stateful_set() {
    let panda = Panda::up();
    panda.all_are_on("0.8.1");
    let psql = panda.holds_the_row();
    the_incidents_build_is_held_named_and_rolled_back(&panda);
    a_good_build_goes_on_every_pod_once(&panda);
    drop(psql);
}

/// From 0.8.1 to 0.5.1 and back, while somebody holds the row that only 0.5.1 writes.
fn the_incidents_build_is_held_named_and_rolled_back(panda: &Panda) {
    let before = panda.pods();
    let caught = panda.upgrade("0.5.1", 3);
    assert_caught(&caught, "panda-server-2");
    let holder = &caught["status"]["blockers"][0]["holder"];
    assert!(
        holder["client"].as_str().is_some_and(|client| client.contains("psql")),
        "{holder:#}"
    );
    assert_eq!(caught["status"]["updates"]["lost"], 0, "{caught:#}");
    panda.all_are_on("0.8.1");
    let after = panda.pods();
    for (name, changed) in [
        ("panda-server-0", false),
        ("panda-server-1", false),
        ("panda-server-2", true),
    ] {
        assert_eq!(after[name].1 != before[name].1, changed, "{name}");
    }
    let refused = panda.stagegate(&["upgrade", "panda-pods", "--build", "panda-server=0.5.1"]);
    assert!(
        refused.code == Some(6) && refused.err.contains("quarantined"),
        "{refused:#?}"
    );
}

/// From 0.8.1 to 1.0.4, which never writes the row that is still held.
fn a_good_build_goes_on_every_pod_once(panda: &Panda) {
    let before = panda.pods();
    let done = panda.upgrade("1.0.4", 0);
    assert_eq!(done["status"]["phase"], "Succeeded", "{done:#}");
    for node in done["status"]["nodes"].as_array().expect("nodes") {
        assert_eq!(
            (&node["build"], &node["restarts"]),
            (&"panda-server-1.0.4".into(), &1.into()),
            "{node:#}"
        );
    }
    assert_eq!(done["status"]["updates"]["lost"], 0, "{done:#}");
    panda.all_are_on("1.0.4");
    for (name, (_, uid)) in panda.pods() {
        assert_ne!(uid, before[&name].1, "{name}");
    }
}

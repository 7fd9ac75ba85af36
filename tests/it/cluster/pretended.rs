//! Nodes that are pretended (kwok): their pods are objects and nothing else, so hundreds cost a test nothing. Their addresses are this
//! machine's own, so that a server of the test can answer for all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use stagegate::model::values::Digest;

use super::lab::Lab;
use crate::fetched::once;
use crate::ports;

/// Addresses of pods: all of 127.0.0.0/8 is loopback, and the first of it are others'.
const PODS: &str = "127.80.0.0/16";
/// By which its program knows the nodes that are its own.
const MARK: &str = "stagegate.dev/tests=pretended";
/// A scheduler takes no more than this for one node, nor does a node.
const PODS_PER_NODE: &str = "1000";

impl Lab {
    /// A control plane with as many nodes that are pretended. The stages say what becomes of them and of their pods.
    pub fn with_pretended_nodes(count: u8, stages: &str) -> Self {
        let mut this = Self::without_nodes();
        fs::write(this.path("stages.yaml"), stages).expect("written");
        let mut command = Command::new(program());
        command
            .args(["--cidr", PODS, "--node-ip", "127.0.0.1", "--node-port", "0"])
            .args(["--manage-nodes-with-annotation-selector", MARK])
            // Without a sign of life the pods of a node count as unready after as long.
            .args(["--node-lease-duration-seconds", "40"])
            .arg("--server-address")
            .arg(format!("127.0.0.1:{}", ports::free(1)))
            .arg("--config")
            .arg(this.path("stages.yaml"))
            .arg("--kubeconfig")
            .arg(this.admin());
        this.begin("kwok", command);
        let (name, value) = MARK.split_once('=').expect("a constant");
        let nodes: Vec<_> = (1..=count)
            .map(|number| {
                let has = json!({"cpu": "1000", "memory": "1Ti", "pods": PODS_PER_NODE});
                json!({
                    "apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": format!("pretended-{number}"), "annotations": {name: value}},
                    "status": {"capacity": has, "allocatable": has},
                })
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": nodes});
        let applied = this.kubectl(&["apply", "-f", "-"], &list.to_string());
        assert!(applied.done, "{applied:#?}");
        this.until("the nodes are ready", |lab| {
            let ready = ["wait", "node", "--all", "--for=condition=Ready", "--timeout=1s"];
            lab.kubectl(&ready, "").done
        });
        this
    }
}

/// Built once of its sources, as the others of `tests/cluster` are, and apart from them: few tests need it, and it speaks to
/// Kubernetes by a library of another version.
fn program() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/kwok");
    let mut bytes = Vec::new();
    for name in ["go.mod", "go.sum"] {
        bytes.extend(fs::read(sources.join(name)).expect("a source"));
    }
    let place = once(&format!("kwok-{}", Digest::of(&bytes).short()), |place| {
        let built = Command::new("go")
            .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
            .arg(place.join("kwok"))
            .arg("sigs.k8s.io/kwok/cmd/kwok")
            .current_dir(&sources)
            .env("CGO_ENABLED", "0")
            .status();
        assert!(built.expect("go runs").success(), "tests/cluster/kwok is not built");
    });
    place.join("kwok")
}

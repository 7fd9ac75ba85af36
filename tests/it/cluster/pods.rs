//! Upgrades of a `StatefulSet` whose pods run on real nodes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::lab::Lab;
use crate::trivial::{Running, Said};

const REPOSITORY: &str = "lab.local/app";
const REPLICAS: usize = 3;

/// A workspace, a state, and a set on version 1 in a cluster.
struct Shop {
    lab: Lab,
    directory: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        let lab = Lab::with_nodes(1);
        let mut digests = String::new();
        let mut first = String::new();
        for (version, otherwise) in [
            ("1", None),
            ("2", None),
            ("slow", Some(("APP_DELAY", "3s"))),
            ("broken", Some(("APP_CRASH", "no such database"))),
        ] {
            let variables: Vec<_> = [("APP_VERSION", version)].into_iter().chain(otherwise).collect();
            let digest = lab.image(REPOSITORY, &variables);
            digests.push_str(&format!("\"{version}\": \"{digest}\", "));
            if version == "1" {
                first = format!("{REPOSITORY}@{digest}");
            }
        }
        // One that no registry has.
        digests.push_str(&format!("lost: \"sha256:{}\"", "0".repeat(64)));
        let set = include_str!("pods/set.yaml")
            .replace("IMAGE", &first)
            .replace("REPLICAS", &REPLICAS.to_string());
        let applied = lab.kubectl(&["apply", "-f", "-"], &set);
        assert!(applied.done, "{applied:#?}");
        let rolled = lab.kubectl(&["rollout", "status", "statefulset/web", "--timeout=120s"], "");
        assert!(rolled.done, "{rolled:#?}");
        let directory = tempfile::tempdir().expect("a directory");
        let environment = include_str!("pods/environment.yaml")
            .replace("REPOSITORY", REPOSITORY)
            .replace("REPLICAS", &REPLICAS.to_string())
            .replace("DIGESTS", &digests);
        let place = directory.path().join("workspace/environments");
        std::fs::create_dir_all(&place).expect("made");
        std::fs::write(place.join("shop.yaml"), environment).expect("written");
        let shop = Self { lab, directory };
        let said = shop.stagegate(&["up", "shop"]);
        assert_eq!(said.code, Some(0), "{said:#?}");
        shop
    }

    fn begin(&self, arguments: &[&str]) -> Running {
        let mut command = self.lab.command(Path::new(env!("CARGO_BIN_EXE_stagegate")));
        command
            .args(arguments)
            .env("STAGEGATE_STATE", self.directory.path().join("state"))
            .env("STAGEGATE_WORKSPACE", self.directory.path().join("workspace"))
            .env("STAGEGATE_USER", "tester")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Running::new(command, arguments)
    }

    fn stagegate(&self, arguments: &[&str]) -> Said {
        self.begin(arguments).end()
    }

    fn upgrade(&self, version: &str) -> Said {
        self.stagegate(&["upgrade", "shop", "--build", &format!("web={version}"), "-o", "json"])
    }

    /// The pods by name: their images' digests, and who they are.
    fn pods(&self) -> BTreeMap<String, (String, String)> {
        let list = self.lab.get(&["pods"]);
        let pods = list["items"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        pods.map(|pod| {
            let image = text(&pod["spec"]["containers"][0]["image"]);
            (text(&pod["metadata"]["name"]), (image, text(&pod["metadata"]["uid"])))
        })
        .collect()
    }

    fn set(&self) -> Value {
        self.lab.get(&["statefulset", "web"])
    }
}

fn images(pods: &BTreeMap<String, (String, String)>) -> Vec<&str> {
    pods.values().map(|(image, _)| image.as_str()).collect()
}

/// One lab for all of it: it takes half a minute to come up.
#[test]
fn a_set_is_upgraded_from_the_top_and_a_bad_build_goes_back() {
    let shop = Shop::open();
    let first = shop.pods();
    assert_eq!(first.len(), REPLICAS);

    // A good build: every pod once, from the top.
    let said = shop.upgrade("2");
    assert_eq!(said.code, Some(0), "{said:#?}");
    let second = shop.pods();
    for (name, (image, uid)) in &second {
        assert!(first[name].0 != *image && first[name].1 != *uid, "{name}");
    }
    let status = said.json()["status"].take();
    assert_eq!(status["phase"], "Succeeded", "{status:#}");
    for node in status["nodes"].as_array().expect("a list") {
        assert_eq!(node["restarts"], 1, "{node:#}");
    }

    // One that answers late is caught at its first pod, and that pod alone goes there and back.
    let said = shop.upgrade("slow");
    assert_eq!(said.code, Some(3), "{said:#?}");
    let third = shop.pods();
    assert_eq!(images(&third), images(&second));
    for (name, changed) in [("web-0", false), ("web-1", false), ("web-2", true)] {
        assert_eq!(third[name].1 != second[name].1, changed, "{name}");
    }
    let set = shop.set();
    assert_eq!(set["spec"]["updateStrategy"]["type"], "RollingUpdate", "{set:#}");
    assert_eq!(
        set["spec"]["template"]["spec"]["containers"][0]["image"],
        images(&second)[0],
        "{set:#}"
    );

    // One that does not even start is told in its own words, and does not stand in the way of going back.
    for (version, words) in [("broken", "no such database"), ("lost", "ImagePullBackOff")] {
        let said = shop.upgrade(version);
        assert_eq!(said.code, Some(3), "{said:#?}");
        assert!(said.out.contains(words), "{said:#?}");
        assert_eq!(images(&shop.pods()), images(&second), "{version}");
    }
    let ready = shop
        .lab
        .kubectl(&["rollout", "status", "statefulset/web", "--timeout=60s"], "");
    assert!(ready.done, "{ready:#?}");
}

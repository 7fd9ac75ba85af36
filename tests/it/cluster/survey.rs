//! An Environment of what runs in a namespace.

use std::process::Command;

use super::lab::Lab;

const NAMESPACE: &str = "stagegate-survey";
const SHOP: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, labels: {app.kubernetes.io/version: '1.0'}}
spec:
  replicas: 3
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: main
          image: registry.example.org/shop/web@sha256:DIGEST
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /alive, port: 8080}}
        - {name: proxy, image: 'registry.example.org/proxy:1'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  replicas: 2
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec: {containers: [{name: main, image: 'registry.example.org/front:2.1'}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ours, labels: {app.kubernetes.io/part-of: stagegate}}
spec:
  serviceName: ours
  selector: {matchLabels: {app: ours}}
  template:
    metadata: {labels: {app: ours}}
    spec: {containers: [{name: main, image: 'stagegate:1'}]}
";

fn stagegate(lab: &Lab) -> Command {
    let mut command = lab.command(env!("CARGO_BIN_EXE_stagegate").as_ref());
    command.env("STAGEGATE_STATE", lab.path("state"));
    command
}

#[test]
fn a_workspace_is_begun_of_what_runs_in_a_namespace() {
    let lab = Lab::with_api(&[NAMESPACE]);
    let applied = lab.kubectl(&["apply", "-f", "-"], &SHOP.replace("DIGEST", &"1".repeat(64)));
    assert!(applied.done, "{applied:#?}");
    let place = lab.path("begun");
    // As pasted, without a namespace: that of the kubeconfig's context.
    let init = || stagegate(&lab).arg("init").arg(&place).arg("--kubernetes").output();
    let made = init().expect("it runs");
    assert!(made.status.success(), "{made:#?}");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(said.contains("1 of 2 workloads"), "{said}");
    let file = place.join(format!("environments/{NAMESPACE}.yaml"));
    let text = std::fs::read_to_string(&file).expect("written");
    for line in [
        "      statefulSet: {namespace: stagegate-survey, name: web, replicas: 3, container: main}\n",
        "      ports: {http: 8080}\n",
        "      build: \"1.0\"\n",
        "/alive\"}}\n",
        "    # Left out, Deployment front: its image is registry.example.org/front:2.1,",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("ours"), "{text}");
    let lint = stagegate(&lab).arg("lint").env("STAGEGATE_WORKSPACE", &place).output();
    assert!(
        lint.as_ref().is_ok_and(|lint| lint.status.success()),
        "{lint:#?}\n{text}"
    );
    // Nothing of it is overwritten.
    let again = init().expect("it runs");
    assert_eq!(again.status.code(), Some(2), "{again:#?}");
    // Of what runs by tag alone no file is begun, and what to do about it is said.
    assert!(lab.kubectl(&["delete", "statefulset/web"], "").done);
    let by_tag = stagegate(&lab)
        .arg("init")
        .arg(lab.path("tags"))
        .arg("--kubernetes")
        .output();
    let by_tag = by_tag.expect("it runs");
    assert_eq!(by_tag.status.code(), Some(2), "{by_tag:#?}");
    let said = String::from_utf8_lossy(&by_tag.stderr).into_owned();
    for part in [
        "nothing that runs in namespace stagegate-survey can be upgraded as it is, and no file was written.",
        "Deployment front: its image is registry.example.org/front:2.1,",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!lab.path("tags").exists());
    // A namespace without anything is told from one that was read.
    let mut nowhere = stagegate(&lab);
    nowhere
        .arg("init")
        .arg(lab.path("other"))
        .args(["--kubernetes", "-n", "nonesuch"]);
    let nowhere = nowhere.output().expect("it runs");
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(
        !nowhere.status.success() && said.contains("nonesuch has no StatefulSet"),
        "{said}"
    );
    assert!(!lab.path("other").exists());
}

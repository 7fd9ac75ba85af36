//! What containers print, followed through a real API server from a real kubelet.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stagegate::cluster::pods::{PodHost, SetPlace};
use stagegate::lines::Begin;
use stagegate::model::environment::StatefulSetRef;

use super::lab::Lab;
use crate::trivial::Running;

const REPOSITORY: &str = "lab.local/app";
/// Printed in each of three turns: many more than one stream has ahead.
const LINES: usize = 20_000;
/// Where the follower writes what it has read.
const FOLLOWED: &str = "STAGEGATE_TEST_FOLLOWED";
const LAST: &str = "line 0";

#[test]
fn a_line_is_read_once_whatever_becomes_of_the_stream_and_its_container() {
    let mut lab = Lab::with_nodes(1);
    let digest = lab.image(REPOSITORY, &[("APP_VERSION", "1")]);
    let set = include_str!("pods/set.yaml")
        .replace("IMAGE", &format!("{REPOSITORY}@{digest}"))
        .replace("REPLICAS", "1");
    assert!(lab.kubectl(&["apply", "-f", "-"], &set).done);
    let rolled = ["rollout", "status", "statefulset/web", "--timeout=120s"];
    assert!(lab.kubectl(&rolled, "").done);
    let pod = lab.get(&["pod", "web-0"]);
    let address = pod["status"]["podIP"].as_str().expect("an address").to_owned();
    let ask = |lab: &Lab, what: &str| {
        let url = format!("http://{address}:8080/{what}");
        let mut asked = lab.command(Path::new("curl"));
        asked
            .args(["-sS", "--max-time", "20", &url])
            .status()
            .expect("curl runs")
    };
    let print = |lab: &Lab, turn: usize| {
        let (from, to) = (turn * LINES + 1, (turn + 1) * LINES);
        assert!(ask(lab, &format!("print?from={from}&to={to}")).success());
    };

    // In the lab's network, as another process: this very test, by its other half.
    let read_lines = lab.path("followed");
    let mut follower = lab.command(&std::env::current_exe().expect("a path"));
    let arguments = ["--exact", "cluster::printed::the_follower", "--ignored", "--nocapture"];
    follower.args(arguments).env(FOLLOWED, &read_lines);
    let mut follower = Running::new(follower, &arguments);
    follower.until("begun");
    print(&lab, 0);
    // Every stream ends, and what is printed meanwhile is there all the same.
    lab.restart_api();
    print(&lab, 1);
    let read = |lab: &Lab, line: &str| {
        let is_there =
            |_: &Lab| std::fs::read_to_string(&read_lines).is_ok_and(|all| all.lines().any(|one| one == line));
        lab.until(&format!("{line} was read"), is_there);
    };
    read(&lab, &format!("line {}", 2 * LINES));
    // Its last words come before its stream ends.
    let _ = ask(&lab, "exit");
    read(&lab, "the end");
    lab.until("it was begun anew", |lab| {
        lab.get(&["pod", "web-0"])["status"]["containerStatuses"][0]["restartCount"] == 1 && ask(lab, "alive").success()
    });
    print(&lab, 2);
    assert!(ask(&lab, "print?from=0&to=0").success());
    let ended = follower.end();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let read = std::fs::read_to_string(&read_lines).expect("written");
    let read: Vec<&str> = read.lines().filter(|line| line.starts_with("line ")).collect();
    let expected = (1..=3 * LINES).map(|n| format!("line {n}")).chain([LAST.to_owned()]);
    // Not as two lists: a difference in one of sixty thousand would be told by all of them.
    let first = read
        .iter()
        .zip(expected.clone())
        .find(|(read, expected)| *read != expected);
    assert_eq!(first, None);
    assert_eq!(read.len(), expected.count());
}

#[tokio::test]
#[ignore = "the other half of the test before it, which begins it where pods can be reached"]
async fn the_follower() {
    let mut file = std::fs::File::create(std::env::var_os(FOLLOWED).expect("said by the other half")).expect("made");
    let reference = StatefulSetRef {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        replicas: 1,
        container: None,
        context: None,
    };
    let set = Arc::new(SetPlace::new(reference, Box::new(BTreeMap::new)));
    let mut printed = PodHost::new(set, 0).printed().from(Begin::AtBeginning);
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    eprintln!("begun");
    loop {
        looks.tick().await;
        match printed.poll().await {
            Ok(looked) => {
                for (pod, line) in &looked.lines {
                    assert_eq!(&**pod, "web-0");
                    writeln!(file, "{line}").expect("written");
                }
                if looked.lines.iter().any(|(_, line)| line == LAST) {
                    return;
                }
            }
            Err(why) => eprintln!("{why}"),
        }
    }
}

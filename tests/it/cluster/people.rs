//! What people may do: the roles of the guide, as a real API server takes them, are enough for what the guide says of each and for no more.

use serde_json::{Value, json};

use super::controller::{NAMESPACE, Town};
use crate::tree::files;
use crate::trivial::ENVIRONMENT;

const PIPELINE: &str = "
apiVersion: stagegate.dev/v1alpha1
kind: Pipeline
metadata: {name: web}
spec:
  component: web
  roles:
    managers: {users: [paul]}
  stages:
    - {name: only, environment: small, approvals: [{role: managers}]}
";

/// Each with the person that has it, who looks, too.
const PEOPLE: [(&str, &str); 7] = [
    ("looks", "lena"),
    ("upgrades", "ulla"),
    ("releases", "rita"),
    ("promotes", "paul"),
    ("freezes", "fred"),
    ("rehearses", "rosa"),
    ("states", "stan"),
];

/// Makes the roles as the guide does, and gives each to its person.
fn give(town: &Town) {
    let (_, guide) = files(&["docs/guides/kubernetes.md"]).remove(0);
    let begin = "kubectl create role stagegate-";
    let roles = guide.lines().filter(|line| line.starts_with(begin));
    let mut given = Vec::new();
    for line in roles {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let words: Vec<&str> = words
            .iter()
            .map(|word| if *word == "shop" { NAMESPACE } else { word })
            .collect();
        let left = town.lab.kubectl(&words, "");
        assert!(left.done, "{line}: {left:#?}");
        given.push(words[2].trim_start_matches("stagegate-").to_owned());
    }
    assert_eq!(given, PEOPLE.map(|(role, _)| role));
    for (role, who) in PEOPLE {
        for role in ["looks", role] {
            let role = format!("stagegate-{role}");
            let name = format!("{role}-{who}");
            let binding = [
                "create",
                "rolebinding",
                &name,
                &format!("--role={role}"),
                &format!("--user={who}"),
            ];
            town.lab.kubectl(&[&["-n", NAMESPACE], &binding[..]].concat(), "");
        }
    }
}

fn patch_status(town: &Town, what: &str, status: &Value) {
    let patch = json!({"status": status}).to_string();
    town.kubectl(
        &["patch", what, "--subresource=status", "--type=merge", "-p", &patch],
        "",
    );
}

fn named(town: &Town, kind: &str) -> String {
    let all = town.get(kind);
    let name = &all["items"][0]["metadata"]["name"];
    name.as_str().expect("one is there").to_owned()
}

#[test]
fn the_roles_of_the_guide_are_what_people_need() {
    let town = Town::stated();
    town.build("1");
    town.build("2");
    give(&town);
    let may = |who: &str, words: &[&str]| {
        town.plugin_as(who, &[], words).expect_code(0);
    };
    let may_not = |who: &str, words: &[&str]| {
        let said = town.plugin_as(who, &[], words);
        assert!(
            said.code != Some(0) && said.err.contains("forbidden"),
            "{who} {words:?}: {said:#?}"
        );
    };
    let upgrade = ["upgrade", ENVIRONMENT, "--build", "web=2", "--no-wait"];
    may_not("lena", &upgrade);
    may("ulla", &upgrade);
    for word in [
        &["status"][..],
        &["status", ENVIRONMENT],
        &["why", ENVIRONMENT],
        &["history"],
        &["build", "list"],
    ] {
        may("lena", word);
    }
    may_not("lena", &["pause", ENVIRONMENT]);
    may("ulla", &["pause", ENVIRONMENT]);
    may("ulla", &["resume", ENVIRONMENT, "--no-wait"]);
    may("ulla", &["abort", ENVIRONMENT, "--no-wait"]);

    let at = "2026-01-01T00:00:00Z";
    patch_status(
        &town,
        "bld/web-2",
        &json!({"quarantines": [{"environment": ENVIRONMENT, "reason": "GateFailed", "at": at}]}),
    );
    let release = [
        "build",
        "release",
        "web-2",
        "--env",
        ENVIRONMENT,
        "--reason",
        "the lock is gone",
    ];
    may_not("ulla", &release);
    may("rita", &release);

    may_not("ulla", &["up", ENVIRONMENT, "--no-wait"]);
    may("stan", &["up", ENVIRONMENT, "--no-wait"]);
    let apply = |who: &str, text: &str| {
        let left = town
            .lab
            .kubectl(&["-n", NAMESPACE, "apply", "-f", "-", &format!("--as={who}")], text);
        assert!(left.done, "{who}: {left:#?}");
    };
    apply("stan", PIPELINE);
    apply("stan", &PIPELINE.replace("[paul]", "[paul, pia]"));

    let promote = ["promote", "web-2", "--to", ENVIRONMENT];
    may_not("ulla", &promote);
    may("paul", &promote);
    let promotion = named(&town, "promotions");
    let digest = format!("sha256:{}", "0".repeat(64));
    let bound = json!({"digest": digest, "plan": digest, "evidence": digest});
    patch_status(
        &town,
        &format!("promotions/{promotion}"),
        &json!({"phase": "Waiting", "since": at, "bound": bound}),
    );
    may_not("lena", &["approve", &promotion]);
    for word in ["approve", "withdraw", "reject", "cancel"] {
        may("paul", &[word, &promotion]);
    }

    let freeze = ["freeze", ENVIRONMENT, "--reason", "the database is slow", "--for", "2h"];
    may_not("paul", &freeze);
    may("fred", &freeze);
    may("fred", &["unfreeze", &named(&town, "freezes")]);

    let rehearsal = |version: &str| {
        let runs = json!([{"build": format!("web={version}"), "expect": {"phase": "Succeeded"}}]);
        let spec = json!({"environment": ENVIRONMENT, "runs": runs});
        json!({"apiVersion": "stagegate.dev/v1alpha1", "kind": "Rehearsal", "metadata": {"name": "any"}, "spec": spec})
            .to_string()
    };
    apply("rosa", &rehearsal("candidate"));
    apply("rosa", &rehearsal("2"));
    let delete = ["delete", "reh/any", "--as=rosa"];
    town.kubectl(&delete, "");
}

//! Builds on their way to production, as those meet it who ask, approve and wait: two environments, a pipeline, and keys of five people.

use std::process::Command;

use serde_json::Value;

use crate::trivial::{Said, Trivial};

const PRODUCTION: &str = "production";
const PIPELINE: &str = include_str!("promotion/pipeline.yaml");

/// Staging is the trivial system, and production another one like it, protected.
struct Shop {
    trivial: Trivial,
}

impl Shop {
    fn new(pipeline: &str) -> Self {
        let trivial = Trivial::new();
        let staging = std::fs::read_to_string(trivial.path("workspace/environments/small.yaml")).expect("a file");
        let port = crate::ports::free(2);
        let mut production = staging
            .replace("name: small", "name: production")
            .replace("\nspec:\n", "\nspec:\n  protected: true\n");
        for (i, node) in ["n1", "n2"].iter().enumerate() {
            let at = production
                .find(&format!("{{name: {node}, ports: {{http: "))
                .expect("a node");
            let from = at + format!("{{name: {node}, ports: {{http: ").len();
            let to = from + production[from..].find('}').expect("its end");
            production.replace_range(from..to, &(port + u16::try_from(i).expect("small")).to_string());
        }
        trivial.write("workspace/environments/production.yaml", &production);
        trivial.write("workspace/pipelines/web.yaml", pipeline);
        let this = Self { trivial };
        for who in ["dana", "carol", "erin", "frank", "mallory"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", who, "-f"])
                .arg(this.trivial.path(who))
                .status();
            assert!(made.expect("openssh-client is there").success());
        }
        this.role("managers", &["carol", "dana", "erin"]);
        this.role("developers", &["dana", "frank"]);
        for environment in ["small", PRODUCTION] {
            this.trivial.run(&["up", environment]).expect_code(0);
        }
        this
    }

    /// Who is in a role.
    fn role(&self, role: &str, people: &[&str]) {
        let lines = people.iter().map(|who| {
            let key = std::fs::read_to_string(self.trivial.path(&format!("{who}.pub"))).expect("a key");
            format!("{who} {key}")
        });
        self.trivial.write(
            &format!("workspace/pipelines/signers/{role}"),
            &lines.collect::<String>(),
        );
    }

    fn key(&self, who: &str) -> String {
        self.trivial.path(who).display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.trivial.run(arguments)
    }

    /// What runs on a node of production by its own answer.
    fn answer(&self, node: &str) -> String {
        let place = format!("state/environments/{PRODUCTION}/nodes/{node}/current/answer");
        std::fs::read_to_string(self.trivial.path(&place))
            .expect("an answer")
            .trim()
            .to_owned()
    }

    fn promotion(&self, name: &str) -> Value {
        self.run(&["get", "promotion", name, "-o", "json"])
            .expect_code(0)
            .json()
    }

    /// What the audit has of them, each a word and who.
    fn acts(&self) -> Vec<(String, String)> {
        let list = self
            .run(&["audit", "list", "--last", "1000", "-o", "json"])
            .expect_code(0)
            .json();
        let acts = list["items"].as_array().expect("items").iter();
        let text = |at: &Value| at.as_str().unwrap_or_default().to_owned();
        acts.map(|act| (text(&act["spec"]["what"]), text(&act["spec"]["who"])))
            .collect()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let gone = self.run(&["down", PRODUCTION, "--purge"]);
        if gone.code != Some(0) {
            eprintln!("{gone:?}");
        }
    }
}

#[test]
fn a_build_reaches_production_verified_upstream_and_approved_by_another() {
    let shop = Shop::new(PIPELINE);
    let dana = shop.key("dana");
    let lint = shop.run(&["lint"]);
    assert_eq!(lint.code, Some(0), "{lint:?}");

    // Nothing goes round it.
    let direct = shop.run(&["upgrade", PRODUCTION, "--build", "web=2"]).expect_code(6);
    assert!(
        direct.err.contains("promote web-2 --to production` asks for one"),
        "{direct:?}"
    );
    // Nor does what no stage before has verified.
    let early = shop
        .run(&["promote", "web=2", "--to", PRODUCTION, "--key", &dana])
        .expect_code(6);
    assert!(early.err.contains("stage staging has not verified it"), "{early:?}");
    shop.run(&["promote", "web=2", "--to", "small"]).expect_code(0);

    let mut asked = shop.trivial.start(&[
        "promote", "web=2", "--to", PRODUCTION, "--key", &dana, "--reason", "OPS-1",
    ]);
    asked.until("0 of 1 approvals of managers");
    for (who, why) in [
        ("dana", "they have asked for it themselves"),
        ("frank", "they are in none of these roles"),
        ("mallory", "is of nobody whom a role of pipeline web has"),
    ] {
        let refused = shop
            .run(&["approve", PRODUCTION, "--key", &shop.key(who)])
            .expect_code(6);
        assert!(refused.err.contains(why), "{who}: {refused:?}");
    }
    assert_eq!(shop.answer("n1"), "yes 1");
    let why = shop.run(&["why", PRODUCTION]).expect_code(0);
    assert!(why.out.contains("NotApproved: 0 of 1 approvals of managers"), "{why:?}");
    assert!(why.out.contains("stagegate approve web-2-"), "{why:?}");
    shop.run(&[
        "approve",
        PRODUCTION,
        "--key",
        &shop.key("carol"),
        "--reason",
        "looks well",
    ])
    .expect_code(0);
    let said = asked.end().expect_code(0);
    for part in ["carol approves of it: looks well", "web@2 upgrade on: n2 by tester"] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    assert_eq!([shop.answer("n1"), shop.answer("n2")], ["yes 2", "yes 2"]);

    // What ran there last comes back without waiting for anybody.
    let back = shop
        .run(&["promote", "web=1", "--to", PRODUCTION, "--key", &dana])
        .expect_code(0);
    assert!(!back.err.contains("approvals"), "{back:?}");
    assert_eq!(shop.answer("n1"), "yes 1");

    // A build that fails in staging is stopped there.
    shop.run(&["promote", "web=bad", "--to", "small"]).expect_code(3);
    let bad = shop
        .run(&["promote", "web=bad", "--to", PRODUCTION, "--key", &dana])
        .expect_code(6);
    assert!(bad.err.contains("stage staging has not verified it"), "{bad:?}");

    let board = shop.run(&["pipeline", "show", "web"]).expect_code(0);
    assert!(
        board.out.contains("staging") && board.out.contains("web-1"),
        "{board:?}"
    );
    let acts = shop.acts();
    for (what, who) in [
        ("PromotionAsked", "tester"),
        ("PromotionSigned", "key:dana"),
        ("Approved", "key:carol"),
        ("Quarantined", "stagegate"),
        ("PromotionSucceeded", "stagegate"),
        ("PromotionFailed", "stagegate"),
    ] {
        assert!(
            acts.contains(&(what.to_owned(), who.to_owned())),
            "{what} by {who}: {acts:?}"
        );
    }
    shop.run(&["audit", "verify"]).expect_code(0);
}

#[test]
fn an_approval_counts_for_one_build_one_plan_and_one_evidence() {
    let shop = Shop::new(PIPELINE);
    let dana = shop.key("dana");
    shop.run(&["upgrade", "small", "--build", "web=2"]).expect_code(0);
    let mut asked = shop.trivial.start(&[
        "promote",
        "web=2",
        "--to",
        PRODUCTION,
        "--key",
        &dana,
        "--timeout",
        "40s",
    ]);
    asked.until("0 of 1 approvals of managers");
    // The freeze keeps it where it is while it is approved.
    let frozen = shop
        .run(&["freeze", PRODUCTION, "--reason", "a fire", "-o", "json"])
        .expect_code(0)
        .json();
    asked.until("a fire");
    shop.run(&["approve", PRODUCTION, "--key", &shop.key("carol")])
        .expect_code(0);
    // The rules of what would be done change.
    let file = shop.trivial.path("workspace/environments/production.yaml");
    let text = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, text.replace("soak: 1s", "soak: 2s")).expect("written");
    let freeze = frozen["metadata"]["name"].as_str().expect("a name");
    shop.run(&["unfreeze", freeze, "--reason", "it is out"]).expect_code(0);
    asked.until("carol approved of another build, plan or evidence than there is now");
    assert_eq!(shop.answer("n1"), "yes 1");
    shop.run(&["approve", PRODUCTION, "--key", &shop.key("erin")])
        .expect_code(0);
    asked.end().expect_code(0);
    assert_eq!(shop.answer("n1"), "yes 2");
}

#[test]
fn the_server_goes_on_with_promotions_and_pauses_them_in_a_freeze() {
    let shop = Shop::new(PIPELINE);
    let (dana, carol) = (shop.key("dana"), shop.key("carol"));
    let (server, _) = shop.trivial.serve();
    shop.run(&["promote", "web=slow", "--to", "small", "--no-wait"])
        .expect_code(0);
    shop.trivial.let_go();
    shop.run(&["promote", "web=slow", "--to", "small"]).expect_code(0);
    std::fs::remove_file(shop.trivial.path("let-go")).expect("it was let go");

    let asked = shop.run(&[
        "promote",
        "web=slow",
        "--to",
        PRODUCTION,
        "--key",
        &dana,
        "--no-wait",
        "-o",
        "json",
    ]);
    let name = asked.expect_code(0).json()["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    shop.run(&["approve", &name, "--key", &carol]).expect_code(0);
    let phase = |wanted: &str| {
        let end = std::time::Instant::now() + std::time::Duration::from_mins(2);
        loop {
            let promotion = shop.promotion(&name);
            if promotion["status"]["phase"] == wanted || promotion["status"]["reason"] == wanted {
                return;
            }
            assert!(std::time::Instant::now() < end, "{wanted}: {promotion:#}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    phase("Upgrading");
    let frozen = shop.run(&[
        "freeze",
        "prod*",
        "--reason",
        "a fire",
        "--in-flight",
        "pause",
        "-o",
        "json",
    ]);
    let freeze = frozen.expect_code(0).json()["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    phase("FrozenInFlight");
    shop.trivial.let_go();
    let end = std::time::Instant::now() + std::time::Duration::from_mins(2);
    while shop.run(&["get", "upgrade", &name, "-o", "json"]).json()["status"]["phase"] != "Paused" {
        assert!(std::time::Instant::now() < end, "it does not pause");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    shop.run(&["unfreeze", &freeze, "--reason", "it is out"]).expect_code(0);
    phase("Succeeded");
    assert_eq!([shop.answer("n1"), shop.answer("n2")], ["yes slow", "yes slow"]);
    drop(server);
}

#[test]
fn a_build_goes_through_the_rehearsals_of_its_stage_first() {
    let staging = "{name: staging, environment: small";
    let pipeline = PIPELINE.replace(staging, &format!("{staging}, rehearsals: [check, again]"));
    assert_ne!(pipeline, PIPELINE);
    let shop = Shop::new(&pipeline);
    let rehearsal = include_str!("promotion/check.yaml");
    shop.trivial.write("workspace/pipelines/check.yaml", rehearsal);
    let again = rehearsal
        .replace("name: check", "name: again")
        .replace("  startFrom: web=1\n", "");
    assert!(!again.contains("startFrom"), "{again}");
    shop.trivial.write("workspace/pipelines/again.yaml", &again);
    shop.run(&["lint"]).expect_code(0);
    let alone = shop.run(&["rehearse", "check"]).expect_code(2);
    assert!(alone.err.contains("--candidate VERSION"), "{alone:?}");
    shop.run(&["rehearse", "check", "--candidate", "2"]).expect_code(0);

    let passed = shop.run(&["promote", "web=3", "--to", "small"]).expect_code(0);
    for part in [
        "web-3 goes through rehearsal check",
        "web=1: to start from",
        "web-3 has passed rehearsal check",
        "web-3 goes through rehearsal again",
        "web-3 has passed rehearsal again",
    ] {
        assert!(passed.err.contains(part), "{part}: {passed:?}");
    }
    let failed = shop
        .run(&["promote", "web=bad", "--to", "small", "-o", "json"])
        .expect_code(3);
    let status = &failed.json()["status"];
    assert_eq!(status["reason"], "RehearsalFailed", "{failed:?}");
    assert!(
        status["message"]
            .as_str()
            .is_some_and(|why| why.contains("rehearsal check: RolledBack")),
        "{status:#}"
    );

    // The same by the server, which drives nothing else there meanwhile.
    let (server, _) = shop.trivial.serve();
    let by_server = shop.run(&["promote", "web=2", "--to", "small"]).expect_code(0);
    assert!(
        by_server.err.contains("web-2 has passed rehearsal check"),
        "{by_server:?}"
    );
    drop(server);
}

#[test]
fn what_staging_has_verified_enters_by_itself_the_newest_first() {
    let by_hand = "approvals: [{role: managers}]";
    let pipeline = PIPELINE.replace(by_hand, "start: auto");
    assert_ne!(pipeline, PIPELINE);
    let shop = Shop::new(&pipeline);
    let frozen = shop
        .run(&["freeze", PRODUCTION, "--reason", "a fire", "-o", "json"])
        .expect_code(0)
        .json();
    for version in ["2", "3"] {
        shop.run(&["promote", &format!("web={version}"), "--to", "small"])
            .expect_code(0);
    }
    let (server, _) = shop.trivial.serve();
    let ended = |reason: &str, build: &str| {
        let end = std::time::Instant::now() + std::time::Duration::from_mins(2);
        loop {
            let list = shop.run(&["get", "promotions", "-o", "json"]).expect_code(0).json();
            let all = list["items"].as_array().expect("items").clone();
            let is_so = |item: &Value| {
                item["spec"]["build"] == build
                    && item["spec"]["stage"] == "production"
                    && item["status"]["reason"] == reason
            };
            if all.iter().any(is_so) {
                return;
            }
            assert!(std::time::Instant::now() < end, "{build} {reason}: {list:#}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    ended("PassedOver", "web-2");
    ended("Frozen", "web-3");
    let freeze = frozen["metadata"]["name"].as_str().expect("a name");
    shop.run(&["unfreeze", freeze, "--reason", "it is out"]).expect_code(0);
    ended("Verified", "web-3");
    assert_eq!([shop.answer("n1"), shop.answer("n2")], ["yes 3", "yes 3"]);
    drop(server);
}

#[test]
fn a_glass_that_two_people_break_lets_a_build_in_and_everybody_hears_of_it() {
    let shop = Shop::new(PIPELINE);
    let dana = shop.key("dana");
    let early = shop
        .run(&[
            "approve",
            PRODUCTION,
            "--key",
            &dana,
            "--break-glass",
            "--reason",
            "now",
        ])
        .expect_code(2);
    assert!(early.err.contains("there is no promotion"), "{early:?}");
    let mut asked = shop.trivial.start(&[
        "promote",
        "web=2",
        "--to",
        PRODUCTION,
        "--key",
        &dana,
        "--break-glass",
        "the site is down",
    ]);
    // No stage has verified it, which no waiting helps; a second person does.
    asked.until("it waits: stage staging has not verified it");
    for (who, why) in [
        ("dana", "they have asked for it themselves"),
        ("frank", "they are in none of these roles"),
    ] {
        let words = [
            "approve",
            PRODUCTION,
            "--key",
            &shop.key(who),
            "--break-glass",
            "--reason",
            "seen it",
        ];
        let refused = shop.run(&words).expect_code(6);
        assert!(refused.err.contains(why), "{who}: {refused:?}");
    }
    assert_eq!(shop.answer("n1"), "yes 1");
    let carol = shop.key("carol");
    shop.run(&[
        "approve",
        PRODUCTION,
        "--key",
        &carol,
        "--break-glass",
        "--reason",
        "seen it",
    ])
    .expect_code(0);
    asked.end().expect_code(0);
    assert_eq!(shop.answer("n2"), "yes 2");
    let reports = shop
        .trivial
        .path(&format!("state/environments/{PRODUCTION}/reports.jsonl"));
    let reports = std::fs::read_to_string(reports).expect("reports");
    let told = "the glass is broken (the site is down); passed over: stage staging has not verified it";
    assert!(reports.contains(told), "{reports}");
    assert!(
        shop.acts()
            .contains(&("GlassBroken".to_owned(), "stagegate".to_owned()))
    );
}

/// Who asks in a stage after another person has asked in the one before signs all the same, and approves of nothing.
#[test]
fn who_asks_is_an_author_whoever_has_asked_before_and_whatever_they_are_called() {
    let by_role = "after: [staging]";
    let pipeline = PIPELINE.replace(
        "environment: small}",
        "environment: small, approvals: [{role: managers}]}",
    );
    assert!(pipeline != PIPELINE && pipeline.contains(by_role));
    let shop = Shop::new(&pipeline);
    let (dana, carol, erin) = (shop.key("dana"), shop.key("carol"), shop.key("erin"));
    let mut first = shop
        .trivial
        .start(&["promote", "web=2", "--to", "small", "--key", &dana]);
    first.until("0 of 1 approvals");
    shop.run(&["approve", "small", "--key", &carol]).expect_code(0);
    first.end().expect_code(0);
    let mut second = shop
        .trivial
        .start(&["promote", "web=2", "--to", PRODUCTION, "--key", &erin]);
    second.until("0 of 1 approvals");
    for (who, key) in [("who asks here", &erin), ("who asked before", &dana)] {
        let refused = shop.run(&["approve", PRODUCTION, "--key", key]).expect_code(6);
        assert!(
            refused.err.contains("they have asked for it themselves"),
            "{who}: {refused:?}"
        );
    }
    shop.run(&["withdraw", PRODUCTION, "--key", &carol]).expect_code(0);
    shop.run(&["approve", PRODUCTION, "--key", &carol]).expect_code(0);
    second.end().expect_code(0);
    assert_eq!(shop.answer("n1"), "yes 2");
}

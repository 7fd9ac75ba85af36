//! GitHub's side, with the real client and server of ours, and git's own server behind a GitHub that remembers.

mod server;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use jiff::SignedDuration;
use ring::hmac;
use rustix::process::Signal;
use serde_json::{Value, json};

use self::server::{APP, GitHub, INSTALLATION, Made, Memory, Pull, REPOSITORY};
use super::{HEAD, Place, Said, server_and_clone};
use crate::fetched::{npm, python_with_jsonschema};
use crate::trivial::Running;

const SECRET: &str = "it-is-known-to-both";

/// How Stagegate shows itself to GitHub.
#[derive(Clone, Copy)]
enum As {
    App,
    Token,
}

/// A repository at GitHub with a policy, a clone of it, and what Stagegate needs to serve it.
struct Hosted {
    root: tempfile::TempDir,
    clone: Place,
    github: GitHub,
}

impl Hosted {
    fn new(who: As) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let (server, clone) = server_and_clone(root.path(), "github.git");
        clone.write("hooks/policy.yaml", format!("{HEAD}spec: {{}}\n"));
        clone.sh("printf '# Project\\n' >README.md; git add .; git commit -qm 'Begin'; git push -q origin main");
        let key = root.path().join("app.pem");
        let made = Command::new("openssl")
            .args(["genrsa", "-traditional", "-out"])
            .arg(&key)
            .arg("2048")
            .output();
        assert!(made.expect("openssl runs").status.success());
        let github = GitHub::start(&server.dir, &key);
        let this = Self { root, clone, github };
        let us = match who {
            As::App => format!("app: {{id: {APP}, installation: {INSTALLATION}, key: key}}"),
            As::Token => "token: given".to_owned(),
        };
        let at = this.github.address;
        std::fs::write(this.path("token"), "ghp_given\n").expect("written");
        std::fs::write(this.path("secret"), format!("{SECRET}\n")).expect("written");
        for place in ["workspace/environments", "workspace/hooks"] {
            std::fs::create_dir_all(this.path(place)).expect("made");
        }
        let file = format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: Repository\nmetadata: {{name: server}}\nspec:\n  github:\n    \
             repository: {REPOSITORY}\n    api: http://{at}\n    remote: http://{at}/git\n    {us}\n    \
             webhookSecret: hook\n    branches: [main, release]\n  secrets:\n    key: {{file: {root}/app.pem}}\n    \
             hook: {{file: {root}/secret}}\n    given: {{file: {root}/token}}\n",
            root = this.root.path().display()
        );
        std::fs::write(this.path("workspace/hooks/server.yaml"), file).expect("written");
        this.clone.sh("git push -q origin main:release");
        this
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(super::PROGRAM);
        command
            .args(arguments)
            .env("STAGEGATE_STATE", self.path("state"))
            .env("STAGEGATE_WORKSPACE", self.path("workspace"))
            .env("STAGEGATE_USER", "tester");
        command
    }

    fn serve(&self) -> (Running, String) {
        let mut server = Running::new(self.command(&["serve", "--listen", "127.0.0.1:0"]), &["serve"]);
        let line = server.until("/healthz");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        (server, address.expect("an address").to_owned())
    }

    /// Commits by a script on a branch from `main`, as pull request `number` to `base`; the head's full name.
    fn propose(&self, number: u64, base: &str, title: &str, script: &str) -> String {
        self.clone.sh(&format!(
            "git checkout -qf main; git reset -q --hard origin/main; git clean -qfdx; {script}\n\
             git push -qf origin HEAD:refs/pull/{number}/head"
        ));
        let head = self.clone.sh("git rev-parse HEAD");
        self.clone.sh("git reset -q --hard origin/main");
        self.github.memory(|memory| {
            memory.pulls.retain(|p| p.number != number);
            memory.pulls.push(Pull {
                number,
                head: head.clone(),
                base: base.to_owned(),
                title: title.to_owned(),
                user: "developer",
            });
        });
        head
    }

    /// The check of a commit, once it has ended.
    #[track_caller]
    fn ended(&self, commit: &str) -> String {
        self.github.until(&format!("the check of {commit} ends"), |m| {
            m.conclusion(commit).map(str::to_owned)
        })
    }
}

/// Delivers a body as GitHub would; the status.
fn deliver(address: &str, event: &str, signature: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "POST /webhooks/github HTTP/1.1\r\nHost: here\r\nConnection: close\r\nX-GitHub-Event: {event}\r\n\
         X-GitHub-Delivery: 1\r\n{signature}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a status")
}

fn signed(body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body.as_bytes());
    let hex = tag
        .as_ref()
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    format!("X-Hub-Signature-256: sha256={hex}\r\n")
}

fn about(more: &Value) -> String {
    let mut body = json!({"repository": {"full_name": REPOSITORY}});
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body.to_string()
}

const GOOD: &str = "printf 'good\\n' >f; git add f; git commit -qm 'Add f'";

/// T55, T56, T57.
#[test]
fn only_what_github_signed_is_taken_and_the_same_twice_is_one_check() {
    let hosted = Hosted::new(As::App);
    let (server, address) = hosted.serve();
    let body = about(&json!({"action": "opened"}));
    let head = hosted.propose(1, "main", "Add f", GOOD);
    let spaced = body.replace(':', ": ");
    for (signature, body, expected) in [
        (String::new(), &body, 401),
        ("X-Hub-Signature-256: sha256=00\r\n".to_owned(), &body, 401),
        (
            "X-Hub-Signature: sha1=0123456789012345678901234567890123456789\r\n".to_owned(),
            &body,
            401,
        ),
        (signed(&body), &spaced, 401),
        (signed(&body), &body, 202),
        (signed(&body), &body, 202),
    ] {
        assert_eq!(
            deliver(&address, "pull_request", &signature, body),
            expected,
            "{signature}{body}"
        );
    }
    let other = body.replace(REPOSITORY, "somebody/else");
    assert_eq!(deliver(&address, "pull_request", &signed(&other), &other), 404);
    assert_eq!(deliver(&address, "pull_request", &signed("{"), "{"), 400);
    assert_eq!(deliver(&address, "star", &signed(&body), &body), 200);
    assert_eq!(hosted.ended(&head), "success");
    // Told again, and by the next look of another server: no second check.
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    let next = hosted.propose(
        2,
        "main",
        "Add g",
        "printf 'good\\n' >g; git add g; git commit -qm 'Add g'",
    );
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    hosted.ended(&next);
    let of_head = hosted
        .github
        .memory(|m| m.check_runs.iter().filter(|r| r["head_sha"] == *head).count());
    assert_eq!(of_head, 1);
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
}

/// T58, T60: nobody has to tell us, and what has moved on is not shown on what came after.
#[test]
fn a_lost_delivery_costs_no_check_and_a_bad_head_fails_by_name() {
    let hosted = Hosted::new(As::App);
    let bad = hosted.propose(
        1,
        "main",
        "Add f",
        "printf '%s\\n' \"$KEY\" >f; git add f; git commit -qm 'Add f'",
    );
    let (server, address) = hosted.serve();
    assert_eq!(hosted.ended(&bad), "failure");
    let run = hosted.github.memory(|m| m.check(&bad).cloned()).expect("made");
    let remark = &run["output"]["annotations"][0];
    assert_eq!(
        (&remark["path"], &remark["title"]),
        (&json!("f"), &json!("private-key")),
        "{run:#}"
    );
    assert_eq!(run["name"], "stagegate");
    assert_eq!(
        hosted.ended(&hosted.clone.sh("git rev-parse origin/main")),
        "success",
        "a tip is checked, too"
    );
    let good = hosted.propose(1, "main", "Add f", GOOD);
    let body = about(&json!({"action": "synchronize"}));
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    assert_eq!(hosted.ended(&good), "success");
    // A branch that is gone keeps nothing back.
    hosted.clone.sh("git push -q origin :release");
    let next = hosted.propose(
        2,
        "main",
        "Add g",
        "printf 'g\\n' >g; git add g; git commit -qm 'Add g'",
    );
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    assert_eq!(hosted.ended(&next), "success");
    assert_eq!(
        hosted
            .github
            .memory(|m| m.conclusion(&bad).map(str::to_owned))
            .as_deref(),
        Some("failure")
    );
    drop(server);
}

/// T59: the policy is that of the base of today, by which a title is judged too.
#[test]
fn another_base_or_title_is_another_check_by_the_policy_of_the_base() {
    let hosted = Hosted::new(As::App);
    hosted.clone.sh("git checkout -qb release");
    let strict = "{message: {issueKeys: {mode: MANDATORY, projects: [ABC]}}}";
    hosted
        .clone
        .write("hooks/policy.yaml", format!("{HEAD}spec: {strict}\n"));
    hosted
        .clone
        .sh("git commit -qam 'Ask for keys'; git push -q origin release; git checkout -q main");
    let head = hosted.propose(1, "main", "Add f", GOOD);
    let (server, address) = hosted.serve();
    assert_eq!(hosted.ended(&head), "success");
    hosted.github.memory(|m| m.pulls[0].base = "release".to_owned());
    let body = about(&json!({"action": "edited", "changes": {"base": {"ref": {"from": "main"}}}}));
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    hosted.github.until("it fails by the other base's policy", |m| {
        (m.conclusion(&head) == Some("failure")).then_some(())
    });
    // What is named in the commits is not enough: a squash would have the title.
    let keyed = hosted.propose(
        1,
        "release",
        "Add f",
        "printf 'x\\n' >x; git add x; git commit -qm 'ABC-1 Add x'",
    );
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    assert_eq!(hosted.ended(&keyed), "failure");
    hosted.github.memory(|m| m.pulls[0].title = "ABC-1 Add x".to_owned());
    let body = about(&json!({"action": "edited", "changes": {"title": {"from": "Add f"}}}));
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    hosted.github.until("it passes with a title that names one", |m| {
        (m.conclusion(&keyed) == Some("success")).then_some(())
    });
    drop(server);
}

/// T62, T66: GitHub is in trouble, asks for patience, ends a token early, and its clock is another.
#[test]
fn github_in_trouble_delays_a_check_and_passes_none() {
    let hosted = Hosted::new(As::App);
    let head = hosted.propose(1, "main", "Add f", GOOD);
    hosted.github.memory(|m| {
        m.ahead = SignedDuration::from_hours(-1);
        m.troubles.extend([(502, None), (503, None)]);
    });
    let (server, address) = hosted.serve();
    assert_eq!(hosted.ended(&head), "success");
    hosted.github.memory(|m| {
        m.ended_tokens = m.tokens;
        m.ahead = SignedDuration::ZERO;
    });
    let next = hosted.propose(
        2,
        "main",
        "Add g",
        "printf 'g\\n' >g; git add g; git commit -qm 'Add g'",
    );
    let body = about(&json!({"action": "opened"}));
    assert_eq!(deliver(&address, "pull_request", &signed(&body), &body), 202);
    hosted.github.until("it has begun", |m| m.check(&next).map(drop));
    hosted
        .github
        .memory(|m| m.troubles.extend([(403, Some(1)), (429, Some(1))]));
    assert_eq!(hosted.ended(&next), "success");
    drop(server);
}

/// A server that is killed leaves a check that is in progress, which is no pass; the next one ends that very check.
#[test]
fn a_killed_server_leaves_no_check_open_for_ever() {
    let hosted = Hosted::new(As::App);
    let head = hosted.propose(1, "main", "Add f", GOOD);
    // Nothing can be ended while GitHub answers so.
    let (server, _) = hosted.serve();
    hosted.github.until("it has begun", |m| {
        m.check(&head).map(drop)?;
        m.troubles.extend([(500, None); 40]);
        Some(())
    });
    server.signal(Signal::KILL);
    drop(server);
    // T61: somebody else's of the same name, even with our id, is not taken for ours.
    hosted.github.memory(|m| {
        m.troubles.clear();
        let mut forged = m.check(&head).cloned().expect("made before");
        forged["id"] = json!(m.check_runs.len() + 1);
        forged["app"] = json!({"id": APP + 1});
        m.check_runs.insert(0, forged);
    });
    let (server, _) = hosted.serve();
    assert_eq!(hosted.ended(&head), "success");
    let of_head = hosted.github.memory(|m| {
        let of_it = m.check_runs.iter().filter(|r| r["head_sha"] == *head);
        of_it
            .map(|r| (r["app"]["id"].clone(), r["conclusion"].clone()))
            .collect::<Vec<_>>()
    });
    let expected = [(json!(APP + 1), Value::Null), (json!(APP), json!("success"))];
    assert_eq!(of_head, expected, "the check that was begun is ended, and no other");
    drop(server);
}

/// T63, T65, and the merge queue's own commits.
#[test]
fn many_findings_come_in_batches_and_a_check_is_made_again_when_asked() {
    let hosted = Hosted::new(As::App);
    let many = "for i in $(seq 120); do printf 'x \\n' >f$i; done; git add .; git commit -qm 'Add many'";
    let head = hosted.propose(1, "main", "Add many", many);
    let (server, address) = hosted.serve();
    assert_eq!(hosted.ended(&head), "failure");
    let sizes = |m: &mut Memory| -> Vec<usize> {
        let all = m
            .updates
            .iter()
            .filter_map(|(_, u)| Some(u["output"]["annotations"].as_array()?.len()));
        all.filter(|n| *n > 0).collect()
    };
    assert_eq!(hosted.github.memory(sizes), [50, 50, 20]);
    let again = about(&json!({"action": "rerequested", "check_run": {"head_sha": head}}));
    assert_eq!(deliver(&address, "check_run", &signed(&again), &again), 202);
    hosted.github.until("it is checked once more", |m| {
        let of_it = m.check_runs.iter().filter(|r| r["head_sha"] == *head);
        (of_it.filter(|r| r["conclusion"] == "failure").count() == 2).then_some(())
    });

    hosted.clone.sh(&format!(
        "git checkout -q main; {GOOD}; git push -q origin HEAD:refs/heads/gh-readonly-queue/main/pr-2"
    ));
    let queued = hosted.clone.sh("git rev-parse HEAD");
    let group =
        json!({"action": "checks_requested", "merge_group": {"head_sha": queued, "base_ref": "refs/heads/main"}});
    let group = about(&group);
    assert_eq!(deliver(&address, "merge_group", &signed(&group), &group), 202);
    assert_eq!(hosted.ended(&queued), "success");
    drop(server);
}

/// What the base lists runs in the sandbox, over all files.
#[test]
fn the_bases_own_hooks_run_over_a_head() {
    const CONFIG: &str = "repos:\n- repo: local\n  hooks:\n  - id: no-foo\n    name: no-foo\n    language: system\n    \
                          files: '^[fg]$'\n    entry: sh -c '! grep -q FOO \"$@\"' --\n";
    let hosted = Hosted::new(As::App);
    hosted.clone.write(".pre-commit-config.yaml", CONFIG);
    hosted
        .clone
        .sh("git add .; git commit -qm 'Ask for no FOO'; git push -q origin main main:release");
    super::sandbox::put_prek(&hosted.path("state"));
    let good = hosted.propose(1, "main", "Add f", GOOD);
    let bad = hosted.propose(
        2,
        "main",
        "Add g",
        "printf 'FOO\\n' >g; git add g; git commit -qm 'Add g' --author='Bob <b@example.org>'; git tag culprit; echo h >h; git add h; git commit -qm 'Add h'",
    );
    let (server, _) = hosted.serve();
    assert_eq!(hosted.ended(&good), "success");
    assert_eq!(hosted.ended(&bad), "failure");
    let run = hosted.github.memory(|m| m.check(&bad).cloned()).expect("made");
    let summary = run["output"]["summary"].to_string();
    assert!(summary.contains("no-foo"), "{run:#}");
    let culprit = hosted.clone.sh("git rev-parse culprit");
    let blame = format!("{} by Bob", &culprit[..10]);
    assert!(
        summary.contains(&blame) && summary.contains("is refused by hook no-foo"),
        "{run:#}"
    );
    drop(server);
}

/// T76: GitHub has to say that the App made it, by GitHub's own signature; what is typed, and who else signs, is no matter.
#[test]
fn a_bot_is_exempt_by_its_apps_id_as_github_vouches_for_it() {
    let hosted = Hosted::new(As::App);
    let spec = "{message: {issueKeys: {mode: MANDATORY, projects: [ABC]}}, exempt: {apps: [29110]}}";
    hosted.clone.write("hooks/policy.yaml", format!("{HEAD}spec: {spec}\n"));
    let key = hosted.path("signer");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("ssh-keygen runs").success());
    hosted
        .clone
        .sh("git commit -qam 'ABC-1: Ask for keys'; git push -q origin main main:release");
    hosted.github.memory(|m| {
        m.apps.insert("dependabot", 29110);
        m.apps.insert("other", 7);
    });
    let signed = |file: &str| {
        format!(
            "echo x >{file}; git add {file}; git -c gpg.format=ssh -c user.signingkey='{}' \
             -c user.name='dependabot[bot]' commit -q -S -m 'Bump {file}' -m 'Signed-off-by: dependabot[bot]'",
            key.display()
        )
    };
    let plain = "echo x >p; git add p; git -c user.name='dependabot[bot]' commit -qm 'Bump p'".to_owned();
    let made = |author, committer, verified| {
        Some(Made {
            author,
            committer,
            verified,
        })
    };
    let bot = "dependabot[bot]";
    let rows = [
        ("the App", signed("a"), made(bot, "web-flow", true), bot, "success"),
        ("not signed", plain, made(bot, "web-flow", true), bot, "failure"),
        ("signed by somebody", signed("c"), made(bot, bot, true), bot, "failure"),
        (
            "a bad signature",
            signed("d"),
            made(bot, "web-flow", false),
            bot,
            "failure",
        ),
        (
            "a person",
            signed("e"),
            made("developer", "web-flow", true),
            bot,
            "failure",
        ),
        (
            "another App",
            signed("f"),
            made("other[bot]", "web-flow", true),
            bot,
            "failure",
        ),
        ("unknown to GitHub", signed("g"), None, bot, "failure"),
        (
            "a person's pull request",
            signed("h"),
            made(bot, "web-flow", true),
            "developer",
            "failure",
        ),
    ];
    let mut heads = Vec::new();
    for (number, (_, script, made, user, _)) in (1..).zip(&rows) {
        let head = hosted.propose(number, "main", "Bump it", script);
        hosted.github.memory(|m| {
            m.pulls.last_mut().expect("just made").user = user;
            m.made.extend(made.clone().map(|made| (head.clone(), made)));
        });
        heads.push(head);
    }
    let (server, _) = hosted.serve();
    for ((case, .., expected), head) in rows.iter().zip(&heads) {
        assert_eq!(hosted.ended(head), *expected, "{case}");
    }
    drop(server);
    // Content holds for all.
    let bad = hosted.propose(
        9,
        "main",
        "ABC-1 x",
        &format!("echo \"$KEY\" >k; git add k; {}", signed("i")),
    );
    hosted.github.memory(|m| {
        m.made.insert(bad.clone(), made(bot, "web-flow", true).expect("made"));
    });
    let (server, _) = hosted.serve();
    assert_eq!(hosted.ended(&bad), "failure");
    drop(server);
}

/// T64: a branch that was brought on by who may go round the check is told of, and what it got is held against what comes after
/// it, too.
#[test]
fn what_was_merged_round_the_check_is_told_of_and_held_against_what_follows() {
    let hosted = Hosted::new(As::App);
    let spec = "{message: {issueKeys: {mode: MANDATORY, projects: [ABC]}}}";
    hosted.clone.write("hooks/policy.yaml", format!("{HEAD}spec: {spec}\n"));
    hosted
        .clone
        .sh("git commit -qam 'ABC-1: Ask for keys'; git push -q origin main main:release");
    let before = hosted.clone.sh("git rev-parse HEAD");
    let command = hosted.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut server = Running::new(command, &["serve"]);
    let line = server.until("/healthz");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.expect("an address").to_owned();
    assert_eq!(hosted.ended(&before), "success");
    // Its files are right, and so are those of the next; what its message lacks it lacks for ever.
    let bypass = |script: &str| {
        hosted
            .clone
            .sh(&format!("git checkout -q main; {script}; git push -q origin main"));
        let body = about(&json!({"ref": "refs/heads/main"}));
        assert_eq!(deliver(&address, "push", &signed(&body), &body), 202);
        hosted.clone.sh("git rev-parse HEAD")
    };
    let merged = bypass("echo f >f; git add f; git commit -qm 'No key'");
    assert_eq!(hosted.ended(&merged), "failure");
    let next = bypass("echo g >g; git add g; git commit -qm 'ABC-2: g'");
    assert_eq!(hosted.ended(&next), "failure");
    // An owner takes it over into history, on record.
    let spared = format!("{{since: {next}, message: {{issueKeys: {{mode: MANDATORY, projects: [ABC]}}}}}}");
    hosted
        .clone
        .write("hooks/policy.yaml", format!("{HEAD}spec: {spared}\n"));
    let spared = bypass("git commit -qam 'ABC-3: Spare what was let in'");
    assert_eq!(hosted.ended(&spared), "success");
    server.signal(Signal::TERM);
    let said = server.end();
    let alerts: Vec<&str> = said.err.lines().filter(|line| line.starts_with("ALERT: ")).collect();
    assert_eq!(alerts.len(), 2, "{said:?}");
    assert!(
        alerts[0].contains(&merged) && alerts[0].contains("is the tip of main of atlas/server"),
        "{said:?}"
    );
}

/// A repository whose policy looks issues up, and the JIRA that knows them.
fn tracked(unavailable: &str) -> (Hosted, super::issues::Jira) {
    let hosted = Hosted::new(As::App);
    let jira = super::issues::Jira::start();
    let token = hosted.path("jira-token");
    std::fs::write(&token, "s3cret\n").expect("written");
    let stated = jira.stated(&token.display().to_string());
    std::fs::write(hosted.path("workspace/hooks/its.yaml"), stated).expect("written");
    let spec = format!(
        "{{message: {{issueKeys: {{mode: MANDATORY, projects: [ABC]}}, issue: {{mode: MANDATORY, tracker: its, unavailable: \
         {unavailable}}}}}}}"
    );
    hosted.clone.write("hooks/policy.yaml", format!("{HEAD}spec: {spec}\n"));
    hosted
        .clone
        .sh("git commit -qam 'ABC-1: Look issues up'; git push -q origin main main:release");
    (hosted, jira)
}

/// A tip whose issues were put off passes by name only: they are asked about with what follows it.
#[test]
fn issues_that_were_put_off_are_held_against_what_follows() {
    let (hosted, jira) = tracked("DEFER");
    jira.has(&[("ABC-1", "Bug", "Open")]);
    let first = hosted.clone.sh("git rev-parse HEAD");
    let (server, address) = hosted.serve();
    assert_eq!(hosted.ended(&first), "success");
    let merge = |script: &str| {
        hosted
            .clone
            .sh(&format!("git checkout -q main; {script}; git push -q origin main"));
        let body = about(&json!({"ref": "refs/heads/main"}));
        assert_eq!(deliver(&address, "push", &signed(&body), &body), 202);
        hosted.clone.sh("git rev-parse HEAD")
    };
    jira.is_down();
    let second = merge("echo f >f; git add f; git commit -qm 'ABC-2: f'");
    assert_eq!(hosted.ended(&second), "success");
    jira.has(&[("ABC-1", "Bug", "Open"), ("ABC-3", "Bug", "Open")]);
    let third = merge("echo g >g; git add g; git commit -qm 'ABC-3: g'");
    assert_eq!(hosted.ended(&third), "failure");
    let run = hosted.github.memory(|m| m.check(&third).cloned()).expect("made");
    assert!(
        run["output"]["summary"].to_string().contains("ABC-2 is not there"),
        "{run:#}"
    );
    drop(server);
}

/// A short outage of the tracker must not refuse a head for ever, nor leave a row of checks.
#[test]
fn a_tracker_that_is_back_ends_the_check_that_it_held_up() {
    let (hosted, jira) = tracked("REFUSE");
    jira.is_down();
    let head = hosted.propose(
        1,
        "main",
        "ABC-2: f",
        "printf 'good\\n' >f; git add f; git commit -qm 'ABC-2: f'",
    );
    let (server, address) = hosted.serve();
    assert_eq!(hosted.ended(&head), "action_required");
    let again = about(&json!({"action": "rerequested", "check_run": {"head_sha": head}}));
    let store = stagegate::home::Home::look(&hosted.path("state")).expect("a home");
    let waits = || {
        use stagegate::store::Store as _;
        let checks = store.store().resources("Check").expect("read");
        let of_head = checks.iter().find(|check| check.spec["head"]["commit"] == head);
        of_head.is_some_and(|check| check.status["againAt"].is_string())
    };
    // It is told before it is written down; the next thing that is told comes after that.
    assert_eq!(deliver(&address, "check_run", &signed(&again), &again), 202);
    hosted.github.until("it was tried again", |m| {
        let ends = m.updates.iter().filter(|(_, u)| u["conclusion"] == "action_required");
        let of_head = m.check(&head)?["id"].as_u64()?;
        (ends.filter(|(id, _)| *id == of_head).count() >= 2).then_some(())
    });
    assert!(waits(), "it is tried again without anybody's asking");
    jira.has(&[("ABC-1", "Bug", "Open"), ("ABC-2", "Bug", "Open")]);
    assert_eq!(deliver(&address, "check_run", &signed(&again), &again), 202);
    hosted
        .github
        .until("it passes", |m| (m.conclusion(&head) == Some("success")).then_some(()));
    let of_head = hosted
        .github
        .memory(|m| m.check_runs.iter().filter(|run| run["head_sha"] == *head).count());
    assert_eq!(of_head, 1);
    drop(server);
}

#[test]
fn without_an_app_commit_statuses_say_it() {
    let hosted = Hosted::new(As::Token);
    let good = hosted.propose(1, "main", "Add f", GOOD);
    let bad = hosted.propose(
        2,
        "main",
        "Add g",
        "printf 'x \\n' >g; git add g; git commit -qm 'Add g'",
    );
    let (server, _) = hosted.serve();
    for (commit, expected) in [(&good, "success"), (&bad, "failure")] {
        let said = hosted.github.until("a status", |m| {
            let mut of_it = m.statuses.iter().filter(|(sha, _)| sha == commit);
            of_it.rfind(|(_, s)| s["state"] != "pending").map(|(_, s)| s.clone())
        });
        assert_eq!(
            (&said["state"], &said["context"]),
            (&json!(expected), &json!("stagegate"))
        );
    }
    drop(server);
}

#[test]
fn a_repository_that_is_not_stated_is_said_with_those_that_are() {
    let hosted = Hosted::new(As::App);
    let run = || Said::of(&hosted.command(&["github", "protect", "x"]).output().expect("it runs"));
    let said = run();
    assert!(
        said.code == Some(2) && said.all.contains("has that name; there is server"),
        "{}",
        said.all
    );
    std::fs::remove_file(hosted.path("workspace/hooks/server.yaml")).expect("gone");
    let said = run();
    assert!(
        said.code == Some(2) && said.all.contains("there is none yet: docs/guides/commits.md"),
        "{}",
        said.all
    );
}

#[test]
fn protect_sets_the_required_check_and_names_what_drifts() {
    let hosted = Hosted::new(As::App);
    let run = |arguments: &[&str]| Said::of(&hosted.command(arguments).output().expect("it runs"));
    let missing = run(&["github", "protect", "server"]);
    assert_eq!(missing.code, Some(6), "{}", missing.all);
    assert!(missing.all.contains("there is no ruleset"), "{}", missing.all);
    let set = run(&["github", "protect", "server", "--apply"]);
    assert!(set.ok(), "{}", set.all);
    assert!(run(&["github", "protect", "server"]).ok());
    let required = hosted
        .github
        .memory(|m| m.rulesets[0]["rules"][2]["parameters"]["required_status_checks"][0].clone());
    assert_eq!(required, json!({"context": "stagegate", "integration_id": APP}));
    hosted.github.memory(|m| {
        m.rulesets[0]["enforcement"] = json!("disabled");
        m.rulesets[0]["bypass_actors"] = json!([{"actor_id": 1}]);
    });
    let drift = run(&["github", "protect", "server"]);
    assert_eq!(drift.code, Some(6), "{}", drift.all);
    assert!(
        drift.all.contains("enforcement is \"disabled\"") && drift.all.contains("1 may go round it"),
        "{}",
        drift.all
    );
    assert!(run(&["github", "protect", "server", "--apply"]).ok() && run(&["github", "protect", "server"]).ok());
    assert_described(&hosted.github.memory(|m| m.requests.clone()));
}

#[test]
fn what_is_wrong_in_a_repositorys_file_is_said_with_its_line() {
    let hosted = Hosted::new(As::App);
    let file = hosted.path("workspace/hooks/server.yaml");
    let sound = std::fs::read_to_string(&file).expect("written");
    for (from, to, expected) in [
        ("atlas/server", "atlas", "is no OWNER/NAME"),
        ("api: http:", "api: ftp:", "is no https URL"),
        ("webhookSecret: hook", "webhookSecret: hok", "there is no secret `hok`"),
        ("app: {", "token: given\n    app: {", "exactly one of `app` and `token`"),
        ("branches: [main, release]", "branches: []", "nothing is checked"),
        ("key: key}", "key: kez}", "there is no secret `kez`"),
    ] {
        std::fs::write(&file, sound.replacen(from, to, 1)).expect("written");
        let said = Said::of(&hosted.command(&["lint"]).output().expect("it runs"));
        assert_eq!(said.code, Some(2), "{to}: {}", said.all);
        assert!(
            said.all.contains(expected) && said.all.contains("server.yaml:"),
            "{to}: {}",
            said.all
        );
    }
}

/// What was sent in all these stories is what GitHub's published description of its API takes.
#[test]
fn what_github_is_sent_is_as_its_description_says() {
    let hosted = Hosted::new(As::App);
    let bad = hosted.propose(
        1,
        "main",
        "Add f",
        "for i in $(seq 60); do printf 'x \\n' >f$i; done; git add .; git commit -qm 'Add f'",
    );
    let good = hosted.propose(2, "main", "Add g", GOOD);
    let (server, _) = hosted.serve();
    hosted.ended(&bad);
    hosted.ended(&good);
    drop(server);
    let mut sent = hosted.github.memory(|m| m.requests.clone());
    let hosted = Hosted::new(As::Token);
    let head = hosted.propose(1, "main", "Add f", GOOD);
    let (server, _) = hosted.serve();
    hosted.github.until("a status", |m| {
        let mut of_it = m.statuses.iter().filter(|(sha, _)| *sha == head);
        of_it.rfind(|(_, s)| s["state"] == "success").map(drop)
    });
    drop(server);
    sent.extend(hosted.github.memory(|m| m.requests.clone()));
    assert_described(&sent);
    let mut wrong = sent.clone();
    let check = wrong
        .iter_mut()
        .find(|(_, route, _)| route.ends_with("/check-runs"))
        .expect("one was made");
    check.2["status"] = json!("begun");
    assert!(!described(&wrong).success(), "the description is really asked");
}

/// Every event of GitHub's published examples is read.
#[test]
fn githubs_own_examples_are_read() {
    let examples = npm("@octokit/webhooks-examples", "7.6.1").join("api.github.com/index.json");
    let examples: Value = serde_json::from_slice(&std::fs::read(examples).expect("there")).expect("JSON");
    let mut hints = 0;
    for event in examples.as_array().expect("a list") {
        let name = event["name"].as_str().expect("a name");
        for example in event["examples"].as_array().expect("a list") {
            let body = example.to_string();
            let hint = stagegate::commits::github::webhook::hint(name, body.as_bytes());
            let hint = hint.unwrap_or_else(|why| panic!("{name}: {why}"));
            hints += usize::from(hint.is_some());
        }
    }
    assert!(hints >= 10, "{hints}");
}

fn assert_described(requests: &[(String, &'static str, Value)]) {
    assert!(!requests.is_empty());
    assert!(described(requests).success(), "see above which is not");
}

/// Asks GitHub's description of its API, by a validator of Python's.
fn described(requests: &[(String, &'static str, Value)]) -> std::process::ExitStatus {
    const ASK: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
def plain(s):
    if isinstance(s, list): return [plain(x) for x in s]
    if not isinstance(s, dict): return s
    s = {k: plain(v) for k, v in s.items()}
    if s.pop("nullable", False) and "type" in s: s["type"] = [s["type"], "null"]
    return s
paths = json.load(open(sys.argv[1]))["paths"]
bad = 0
for method, route, body in json.load(sys.stdin):
    asked = paths[route][method].get("requestBody")
    if asked is None: continue
    schema = plain(asked["content"]["application/json"]["schema"])
    for error in Draft202012Validator(schema).iter_errors(body):
        bad += 1
        print(method, route, error.message[:300], list(error.absolute_path), file=sys.stderr)
sys.exit(bad > 0)
"#;
    let description = npm("@octokit/openapi", "23.0.2").join("generated/api.github.com.deref.json");
    let python = python_with_jsonschema();
    let mut child = Command::new(python)
        .args(["-c", ASK])
        .arg(description)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("python runs");
    let text = serde_json::to_vec(requests).expect("JSON");
    child.stdin.take().expect("piped").write_all(&text).expect("taken");
    child.wait().expect("it ends")
}

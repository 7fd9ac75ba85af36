//! Issues that commits name, looked up in a JIRA over HTTP: T80, and who asks it and who does not.

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Place, Said, World};

const TOKEN: &str = "a-token-that-nobody-may-see";

/// A JIRA Data Center that says what it is told to.
pub(super) struct Jira {
    runtime: tokio::runtime::Runtime,
    server: MockServer,
}

impl Jira {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let server = runtime.block_on(MockServer::start());
        Self { runtime, server }
    }

    /// From now on this is all that it knows.
    pub(super) fn has(&self, issues: &[(&str, &str, &str)]) {
        self.runtime.block_on(async {
            self.server.reset().await;
            for (key, kind, status) in issues {
                let project = key.split('-').next();
                let issue = json!({"key": key, "fields": {
                    "project": {"key": project}, "issuetype": {"name": kind}, "status": {"name": status}}});
                Mock::given(method("GET"))
                    .and(path(format!("/rest/api/2/issue/{key}")))
                    .respond_with(ResponseTemplate::new(200).set_body_json(issue))
                    .mount(&self.server)
                    .await;
            }
            let hidden = json!({"errorMessages": ["Issue Does Not Exist"], "errors": {}});
            Mock::given(method("GET"))
                .respond_with(ResponseTemplate::new(404).set_body_json(hidden))
                .with_priority(9)
                .mount(&self.server)
                .await;
        });
    }

    pub(super) fn is_down(&self) {
        self.runtime.block_on(async {
            self.server.reset().await;
            Mock::given(method("GET"))
                .respond_with(ResponseTemplate::new(503).insert_header("retry-after", "600"))
                .mount(&self.server)
                .await;
        });
    }

    /// The resource that says where it is, whose token is in this file.
    pub(super) fn stated(&self, token: &str) -> String {
        format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: IssueTracker\nmetadata: {{name: its}}\nspec:\n  jira: {{url: '{}', \
             dataCenter: {{token: jira}}}}\n  secrets: {{jira: {{file: {token}}}}}\n",
            self.server.uri()
        )
    }

    fn asked(&self) -> usize {
        let requests = self.runtime.block_on(self.server.received_requests());
        requests.expect("they are kept").len()
    }
}

/// A world whose policy looks issues up, and the place of who runs the server.
struct Tracked {
    world: World,
    ops: Place,
    jira: Jira,
}

impl Tracked {
    fn new(issue: &str) -> Self {
        let world = World::empty();
        let spec = format!(
            "message: {{issueKeys: {{mode: MANDATORY, projects: [ABC]}}, issue: {{mode: MANDATORY, tracker: its, {issue}}}}}"
        );
        world.clone.policy(&spec);
        world
            .clone
            .sh("git add .; git commit -qm 'ABC-1: Begin'; git push -q origin main; git remote set-head origin main");
        let jira = Jira::start();
        let ops = Place::at(world.root.path().join("ops"), &world.clone.home);
        ops.write("token", format!("{TOKEN}\n"));
        ops.sh("chmod 644 token");
        ops.write("hooks/its.yaml", jira.stated("token"));
        assert!(ops.stagegate(&["attest", "key", "create"]).ok());
        Self { world, ops, jira }
    }

    /// Commits this message on the main branch and pushes it; the commit.
    fn push(&self, message: &str) -> String {
        self.world
            .clone
            .sh(&format!("echo $(date +%N) >f; git add f; git commit -qm '{message}'"));
        let said = self.world.push("main");
        assert!(said.ok(), "{}", said.all);
        self.world.clone.sh("git rev-parse HEAD")
    }

    fn verdict(&self, commit: &str) -> (Option<i32>, Value, Said) {
        let said = self
            .ops
            .stagegate(&["verdict", "run", commit, "--repository", "../server.git", "-o", "json"]);
        let run: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.all));
        (said.code, run["status"].clone(), said)
    }

    fn proven(&self, commit: &str) -> Said {
        self.ops
            .stagegate(&["attest", "verify", commit, "--repository", "../server.git"])
    }
}

#[test]
fn an_issue_is_there_and_of_the_type_and_status_that_the_policy_asks() {
    let tracked = Tracked::new("types: [Bug, Task], statuses: [In Progress]");
    tracked.jira.has(&[
        ("ABC-2", "Bug", "In Progress"),
        ("ABC-3", "Epic", "In Progress"),
        ("ABC-4", "Bug", "Done"),
    ]);
    for (message, code, words) in [
        ("ABC-2: x", 0, ""),
        ("ABC-9: x", 6, "its: ABC-9 is not there, or hidden from who asks"),
        ("ABC-3: x", 6, "its: ABC-3 is of type `Epic`, and not Bug or Task"),
        ("ABC-4: x", 6, "its: ABC-4 is in status `Done`, and not In Progress"),
        ("ABC-4, ABC-2: one is enough", 0, ""),
    ] {
        let commit = tracked.push(message);
        let (exit, status, said) = tracked.verdict(&commit);
        assert_eq!(exit, Some(code), "{message}: {}", said.all);
        assert!(said.all.contains(words), "{message}: {}", said.all);
        assert_eq!(tracked.proven(&commit).code, Some(code), "{message}");
        let result = &status["verdict"]["issues"][0]["result"];
        assert_eq!(
            result["result"],
            if code == 0 { "Right" } else { "Wrong" },
            "{message}: {status:#}"
        );
    }
    let commit = tracked.push("ABC-2: y");
    let before = tracked.jira.asked();
    assert_eq!(tracked.verdict(&commit).0, Some(0));
    assert_eq!(tracked.jira.asked(), before, "what was said lately is remembered");
    // Neither a push nor a developer's check has asked; `check` signs that nobody did.
    tracked
        .jira
        .has(&[("ABC-2", "Bug", "Done"), ("ABC-5", "Bug", "In Progress")]);
    let clone = &tracked.world.clone;
    clone.sh("git checkout -qb topic; echo z >z; git add z; git commit -qm 'ABC-5: z'; git push -q origin topic");
    let said = clone.stagegate(&["check", "--range", "origin/main..HEAD", "--attest", "-o", "json"]);
    assert!(said.ok(), "{}", said.all);
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    let head = clone.sh("git rev-parse HEAD");
    assert_eq!(
        report["status"]["attested"]["signed"][0]["commit"],
        head.as_str(),
        "{report:#}"
    );
    let said = clone.stagegate(&["attest", "verify", "HEAD"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    assert!(
        said.all
            .contains("these issues could not be looked up, and still have to be: ABC-5"),
        "{}",
        said.all
    );
    assert_eq!(tracked.jira.asked(), 0);
}

/// T80: as configured, and written down.
#[test]
fn a_jira_that_is_down_defers_or_refuses_and_proves_nothing() {
    let tracked = Tracked::new("unavailable: DEFER");
    tracked.jira.is_down();
    let commit = tracked.push("ABC-2: x");
    let (exit, status, said) = tracked.verdict(&commit);
    assert_eq!((exit, &status["state"]), (Some(5), &json!("Deferred")), "{}", said.all);
    let shown = tracked.ops.stagegate(&["verdict", "show", &commit]);
    assert_eq!(shown.code, Some(5), "{}", shown.all);
    assert!(
        shown.out.contains(" is deferred: ") && shown.out.contains("still to be looked up: ABC-2 (policy"),
        "{}",
        shown.all
    );
    assert!(!shown.out.contains("passed (policy"), "{}", shown.all);
    let written = &status["verdict"]["issues"][0];
    assert_eq!(written["keys"], json!(["ABC-2"]), "{status:#}");
    assert!(
        written["result"]["why"].as_str().is_some_and(|why| why.contains("503")),
        "{status:#}"
    );
    let said = tracked.proven(&commit);
    assert_eq!(said.code, Some(6), "{}", said.all);
    assert!(said.all.contains("stagegate verdict run"), "{}", said.all);
    tracked.jira.has(&[("ABC-2", "Bug", "Open")]);
    assert_eq!(tracked.verdict(&commit).0, Some(0));
    assert!(tracked.proven(&commit).ok());

    let strict = Tracked::new("unavailable: REFUSE");
    strict.jira.is_down();
    let commit = strict.push("ABC-2: x");
    let (exit, status, said) = strict.verdict(&commit);
    assert_eq!((exit, &status["state"]), (Some(5), &json!("NotProven")), "{}", said.all);
    assert!(
        said.all.contains("its: ABC-2 could not be looked up: JIRA answers 503"),
        "{}",
        said.all
    );
    // Nor does a token that nobody can have, and it is not waited for.
    for (made, words) in [
        ("mkfifo -m 600 token", "token is a pipe and was not read"),
        (": >token", "token is empty"),
    ] {
        strict.ops.sh(&format!("rm token; {made}"));
        let (exit, _, said) = strict.verdict(&commit);
        assert!(exit == Some(5) && said.all.contains(words), "{made}: {}", said.all);
    }
    // Nor does a workspace that does not say where the tracker is prove anything.
    strict.ops.sh("rm hooks/its.yaml");
    let (exit, _, said) = strict.verdict(&commit);
    assert_eq!(exit, Some(5), "{}", said.all);
    assert!(said.all.contains("states an IssueTracker `its`"), "{}", said.all);

    // A rule that is only suggested holds nothing up, and says so.
    let lenient = World::empty();
    let spec = "message: {issueKeys: {projects: [ABC]}, issue: {mode: SUGGESTED, tracker: its}}";
    lenient.clone.policy(spec);
    lenient
        .clone
        .sh("git add .; git commit -qm 'ABC-1: Begin'; git push -q origin main");
    let said = lenient.server.stagegate(&["verdict", "run", "main"]);
    assert!(
        said.ok() && said.all.contains("ABC-1 could not be looked up"),
        "{}",
        said.all
    );
}

/// A rule that is only suggested proves what it proves, however much there is to look up.
#[test]
fn more_keys_than_a_run_asks_about_hold_nothing_up_that_is_only_suggested() {
    for (mode, code) in [("SUGGESTED", 0), ("MANDATORY", 5)] {
        let world = World::empty();
        let spec = format!(
            "bounds: {{commits: 2000}}, message: {{issueKeys: {{projects: [ABC]}}, issue: {{mode: {mode}, tracker: its}}}}"
        );
        world.clone.policy(&spec);
        world
            .clone
            .sh("git add .; git commit -qm 'Begin'; git push -q origin main");
        let many = "from=$(git rev-parse main)\nfor i in $(seq 1001); do\n\
                    printf 'commit refs/heads/many\\ncommitter A <a@example.org> %s +0000\\ndata <<E\\nABC-%s: x\\nE\\n' $((1700000000 + i)) $i\n\
                    if [ $i = 1 ]; then echo \"from $from\"; fi\necho; done | git fast-import --quiet";
        world.server.sh(many);
        let said = world.server.stagegate(&["verdict", "run", "many"]);
        assert_eq!(said.code, Some(code), "{mode}: {:.600}", said.all);
        assert!(
            said.all.contains("more than 1000 issues were to be looked up"),
            "{mode}: {:.600}",
            said.all
        );
    }
}

/// I8: the token is nowhere but in the request.
#[test]
fn a_trackers_token_is_in_no_state_and_no_output() {
    let tracked = Tracked::new("unavailable: DEFER");
    tracked.jira.has(&[("ABC-2", "Bug", "Open")]);
    let commit = tracked.push("ABC-2: x");
    let output = tracked
        .ops
        .command(super::PROGRAM)
        .args(["verdict", "run", &commit, "--repository", "../server.git", "-o", "json"])
        .env("STAGEGATE_LOG", "trace")
        // No proxy is given it to carry to this machine; nobody answers there.
        .envs(["http_proxy", "HTTP_PROXY", "all_proxy"].map(|name| (name, "http://127.0.0.1:1")))
        .output()
        .expect("it runs");
    let said = Said::of(&output);
    assert!(said.ok(), "{}", said.all);
    assert!(!said.all.contains(TOKEN), "{}", said.all);
    let found = tracked.ops.try_sh(&format!("grep -rl {TOKEN} $STAGEGATE_STATE"));
    assert_eq!(found.out, "");
    let asked = tracked
        .jira
        .runtime
        .block_on(tracked.jira.server.received_requests())
        .expect("kept");
    assert_eq!(
        asked[0].headers["authorization"],
        format!("Bearer {TOKEN}"),
        "it was really used"
    );
    assert!(
        said.all.contains("token can be read by others (mode 644)"),
        "{}",
        said.all
    );
    // Nor where JIRA, or what stands before it, repeats what it was asked with.
    let echo = json!({"errorMessages": [format!("no such token: Bearer {TOKEN}")], "errors": {}});
    tracked.jira.runtime.block_on(async {
        tracked.jira.server.reset().await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(401).set_body_json(echo))
            .mount(&tracked.jira.server)
            .await;
    });
    let commit = tracked.push("ABC-3: x");
    let (_, _, said) = tracked.verdict(&commit);
    assert!(said.all.contains("no such token: Bearer [hidden]"), "{}", said.all);
    let shown = tracked.ops.stagegate(&["verdict", "show", &commit]);
    assert!(!(said.all + &shown.all).contains(TOKEN));
    let found = tracked.ops.try_sh(&format!("grep -rl {TOKEN} $STAGEGATE_STATE"));
    assert_eq!(found.out, "");
}

#[test]
fn what_is_wrong_in_a_trackers_file_or_a_policy_is_said_with_its_line() {
    let world = World::empty();
    let place = &world.clone;
    let file = |jira: &str| {
        format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: IssueTracker\nmetadata: {{name: its}}\nspec:\n  jira: {{{jira}}}\n  \
             secrets: {{jira: {{file: token}}}}\n"
        )
    };
    for (jira, words) in [
        ("url: 'https://its.example.org', cloud: {user: a@b, token: jira}", ""),
        (
            "url: 'http://its.example.org', dataCenter: {token: jira}",
            "is no https URL",
        ),
        (
            "url: 'https://bot@its.example.org', dataCenter: {token: jira}",
            "names a user in front of its host",
        ),
        (
            "url: 'https://its.example.org/?a=b', dataCenter: {token: jira}",
            "has '?' in it",
        ),
        (
            "url: 'https://its.example.org'",
            "exactly one of `cloud` and `dataCenter`",
        ),
        (
            "url: 'https://its.example.org', dataCenter: {token: gira}",
            "there is no secret `gira`",
        ),
        ("url: 'https://its.example.org', dataCenter: {tocken: jira}", "tocken"),
    ] {
        place.write("hooks/its.yaml", file(jira));
        let said = place.stagegate(&["lint", "hooks"]);
        let expected = if words.is_empty() { 0 } else { 2 };
        assert_eq!(said.code, Some(expected), "{jira}: {}", said.all);
        assert!(said.all.contains(words), "{jira}: {}", said.all);
    }
    place.sh("rm hooks/its.yaml");
    for (issue, words) in [
        ("mode: MANDATORY", "issues are to be looked up, but in no tracker"),
        (
            "mode: MANDATORY, tracker: its",
            "issues are to be looked up, but of no project",
        ),
    ] {
        let spec = format!("message: {{issue: {{{issue}}}}}");
        place.policy(&spec);
        let said = place.stagegate(&["lint", "hooks"]);
        assert!(
            said.code == Some(2) && said.all.contains(words),
            "{issue}: {}",
            said.all
        );
    }
}

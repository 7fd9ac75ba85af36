//! What an environment requires of a build before it enters (I4), on nodes that are really upgraded.

use std::process::Command;

use serde_json::json;

use super::issues::Jira;
use crate::trivial::{ENVIRONMENT, Said, Trivial};

/// The trivial system, whose builds have to be commits of a repository with their hooks passed.
struct Protected {
    system: Trivial,
}

impl Protected {
    /// Version 1 and 2 are commits of the protected branch, 3 one of a topic branch.
    fn new() -> Self {
        let this = Self { system: Trivial::new() };
        let file = this.system.path("workspace/environments/small.yaml");
        let environment = std::fs::read_to_string(&file).expect("written");
        let commits = format!(
            "commits: {{repository: {}, revision: refs/tags/vVERSION}}\n      rollout: {{requires: [HooksPassed], ",
            this.system.path("server.git").display()
        );
        std::fs::write(&file, environment.replace("rollout: {", &commits)).expect("written");
        this.sh(
            "git init -q --bare -b main server.git; git init -q -b main clone; cd clone; git remote add origin ../server.git\n\
             commit() { cp ../workspace/builds/$1/* .; git add .; git commit -qm \"${2:-Version $1}\"; git tag v$1; }\n\
             commit 1; commit 2; git push -q origin main v1 v2; git checkout -qb topic; commit 3; git push -q origin topic v3",
        );
        this
    }

    fn sh(&self, script: &str) -> String {
        let mut command = Command::new("sh");
        command
            .args(["-euc", script])
            .current_dir(self.system.path("."))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "A Developer")
                .env(format!("GIT_{role}_EMAIL"), "developer@example.org");
        }
        let output = command.output().expect("sh runs");
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Does what a refusal says that is to be done.
    #[track_caller]
    fn obey(&self, refusal: &Said) {
        let command = refusal
            .err
            .split('`')
            .find(|part| part.contains("stagegate verdict run"));
        let command = command.unwrap_or_else(|| panic!("no command in {refusal:?}"));
        // As a shell reads it; no path here has a blank.
        let words: Vec<&str> = command
            .split_whitespace()
            .skip(1)
            .map(|word| word.trim_matches('\''))
            .collect();
        self.system.run(&words).expect_code(0);
    }

    fn plan(&self, version: &str) -> Said {
        self.system
            .run(&["plan", ENVIRONMENT, "--build", &format!("web={version}")])
    }

    fn upgrade(&self, version: &str) -> Said {
        self.system
            .run(&["upgrade", ENVIRONMENT, "--build", &format!("web={version}")])
    }
}

#[track_caller]
fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, Some(6), "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "no {word} in {said:?}");
    }
}

#[test]
fn a_build_enters_only_when_its_commits_hooks_have_passed() {
    let protected = Protected::new();
    let system = &protected.system;
    let first = system.run(&["up", ENVIRONMENT]);
    refused(
        &first,
        &[
            "build web-1 may not enter small, which requires HooksPassed of builds of web",
            "Unknown (NotAttested): nothing is attested of commit",
        ],
    );
    let key = system.run(&["attest", "key", "create"]).expect_code(0).out;
    protected.obey(&first);
    system.run(&["up", ENVIRONMENT]).expect_code(0);

    refused(&protected.plan("2"), &["requires HooksPassed", "NotAttested"]);
    let second = protected.upgrade("2");
    refused(&second, &["requires HooksPassed", "NotAttested"]);
    assert_eq!(
        system.run(&["history", ENVIRONMENT, "-o", "json"]).json()["items"],
        json!([]),
        "nothing was begun"
    );
    let planned = system.run(&["plan", ENVIRONMENT, "--build", "web=2", "-o", "json"]);
    let planned: serde_json::Value = planned.json();
    assert!(
        planned["status"]["refused"]
            .as_str()
            .is_some_and(|why| why.contains("HooksPassed")),
        "{planned}"
    );
    protected.obey(&second);
    protected.plan("2").expect_code(0);
    protected.upgrade("2").expect_code(0);

    // Checked and signed, but on no protected branch: what is there was merged by nobody.
    let commit = protected.sh("git -C clone rev-parse v3");
    let repository = system.path("server.git").display().to_string();
    system
        .run(&["verdict", "run", &commit, "--repository", &repository])
        .expect_code(0);
    refused(
        &protected.upgrade("3"),
        &[
            "False (NotOnProtectedBranch)",
            "is not on the protected branch refs/heads/main",
            "merge the commit",
        ],
    );
    protected.sh("cd clone; git push -q origin topic:main");
    protected.plan("3").expect_code(0);

    // A file that the commit does not have.
    system.write("workspace/builds/slow/more", "");
    protected.sh("cd clone; git checkout -q main; cp ../workspace/builds/slow/answer .; git add .; git commit -qm Slow; git tag vslow; git push -q origin main:other vslow");
    refused(
        &protected.upgrade("slow"),
        &["False (TreeDiffers)", "build it from commit"],
    );

    // A key that is revoked keeps out what enters, and nothing from going back where it came from.
    system
        .run(&["attest", "key", "revoke", key.trim(), "--reason", "stolen"])
        .expect_code(0);
    refused(&protected.upgrade("3"), &["KeyRevoked", "stolen"]);
    protected.plan("2").expect_code(0);
    system.run(&["undo", ENVIRONMENT]).expect_code(0);
    refused(&protected.upgrade("3"), &["KeyRevoked"]);
}

/// T64: who may go round the check at the server goes round nothing here.
#[test]
fn what_was_merged_round_the_check_is_not_upgraded_to() {
    let protected = Protected::new();
    let system = &protected.system;
    system.run(&["attest", "key", "create"]).expect_code(0);
    let first = system.run(&["up", ENVIRONMENT]);
    protected.obey(&first);
    system.run(&["up", ENVIRONMENT]).expect_code(0);
    // On the protected branch, by a push that no hook has looked at.
    protected.sh(
        "cd clone; git checkout -q main; printf 'blanks \\n' >page; git commit -qam 'Version bad'; git tag vbad; git push -q origin main vbad",
    );
    system.write("workspace/builds/bad/page", "blanks \n");
    protected.sh("cd clone; cp ../workspace/builds/bad/answer .; git add .; git commit -qm 'Its answer'; git tag -f vbad >/dev/null; git push -qf origin main vbad");
    let said = protected.upgrade("bad");
    refused(&said, &["NotAttested"]);
    // The commit itself changes another file, and is held against what it has.
    let commit = protected.sh("git -C clone rev-parse vbad");
    let repository = system.path("server.git").display().to_string();
    let verdict = system
        .run(&["verdict", "run", &commit, "--repository", &repository])
        .expect_code(6);
    assert!(verdict.out.contains("page:1 trailing-whitespace"), "{verdict:?}");
    refused(
        &protected.upgrade("bad"),
        &["False (HooksFailed)", "mend it in a new commit"],
    );
}

/// What could not be looked up when the commit was checked is looked up before the upgrade.
#[test]
fn an_issue_that_was_put_off_is_looked_up_before_an_upgrade() {
    let protected = Protected::new();
    let system = &protected.system;
    let jira = Jira::start();
    system.write("token", "secret\n");
    let token = system.path("token").display().to_string();
    system.write("workspace/hooks/its.yaml", &jira.stated(&token));
    // The builds are a directory of the repository, whose policy is not one of their files.
    let file = system.path("workspace/environments/small.yaml");
    let environment = std::fs::read_to_string(&file).expect("written");
    std::fs::write(&file, environment.replace("vVERSION}", "vVERSION, path: app}")).expect("written");
    protected.sh("cd clone; git checkout -q main; mkdir app hooks; git mv answer page app");
    let spec = "message: {issueKeys: {projects: [ABC]}, issue: {mode: MANDATORY, tracker: its, statuses: [Open]}}";
    system.write("clone/hooks/policy.yaml", &format!("{}spec: {{{spec}}}\n", super::HEAD));
    protected.sh(
        "cd clone; cp ../workspace/builds/1/* app; git add .; git commit -qm 'Begin anew'; git tag -f v1 >/dev/null\n\
         cp ../workspace/builds/2/* app; git commit -qam 'ABC-7: Version 2'; git tag -f v2 >/dev/null; git push -qf origin main v1 v2",
    );
    system.run(&["attest", "key", "create"]).expect_code(0);
    let first = system.run(&["up", ENVIRONMENT]);
    protected.obey(&first);
    system.run(&["up", ENVIRONMENT]).expect_code(0);

    jira.is_down();
    let commit = protected.sh("git -C clone rev-parse v2");
    let repository = system.path("server.git").display().to_string();
    system
        .run(&["verdict", "run", &commit, "--repository", &repository])
        .expect_code(5);
    refused(
        &protected.plan("2"),
        &[
            "Unknown (IssuesDeferred)",
            "names ABC-7, which could not be looked up in its: JIRA answers 503",
        ],
    );
    jira.has(&[("ABC-7", "Bug", "Done")]);
    refused(
        &protected.plan("2"),
        &["False (IssueWrong)", "ABC-7 is in status `Done`, and not Open"],
    );
    refused(&protected.upgrade("2"), &["False (IssueWrong)"]);
    assert!(
        system
            .run(&["build", "show", "web-2"])
            .out
            .contains("HooksPassed False (IssueWrong)")
    );
    jira.has(&[("ABC-7", "Bug", "Open")]);
    protected.upgrade("2").expect_code(0);
    let shown = system.run(&["build", "show", "web-2"]).expect_code(0);
    assert!(shown.out.contains("its was asked about its issues since"), "{shown:?}");
}

#[test]
fn what_no_build_can_have_is_not_required() {
    let protected = Protected::new();
    let system = &protected.system;
    let file = system.path("workspace/environments/small.yaml");
    let sound = std::fs::read_to_string(&file).expect("written");
    let commits = sound.lines().find(|line| line.contains("commits:")).expect("stated");
    system.run(&["lint"]).expect_code(0);
    for (from, to, words) in [
        (commits, "", "nothing says which commits its builds are"),
        (
            "source: {directory: builds}",
            "source: {packageIndex: {package: web, python: python3}}",
            "files of a package index or an image cannot be compared",
        ),
        (
            "install: {template: install.sh}",
            "install: {template: install.sh}\n        prepare: {template: install.sh}",
            "`prepare` makes something else of its files",
        ),
        ("[HooksPassed]", "[HookPassed]", "HooksPassed"),
    ] {
        assert!(sound.contains(from), "{from}");
        std::fs::write(&file, sound.replacen(from, to, 1)).expect("written");
        let said = system.run(&["lint"]).expect_code(2);
        assert!(
            said.err.contains(words) && said.err.contains("small.yaml:"),
            "{words}: {said:?}"
        );
    }
    std::fs::write(&file, sound).expect("written");
}

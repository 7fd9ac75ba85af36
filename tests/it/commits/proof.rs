//! What is proven of a commit, as developers, servers and release managers ask it.

use jiff::Timestamp;
use serde_json::{Value, json};
use stagegate::commits::proof::{self, Engine, HookRun, Outcome, Passed, Subject, Verdict};
use stagegate::engine::builds;
use stagegate::engine::session::KnownBuild;
use stagegate::home::Home;
use stagegate::model::environment::Component;
use stagegate::model::values::Digest;

use super::{Place, Said, World};
use crate::trivial::{ENVIRONMENT, Trivial};

fn json_of(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}", said.all))
}

/// A world with a key, and a commit on a topic branch that was checked and signed.
fn signed(spec: Option<&str>) -> World {
    let world = World::new(spec);
    let clone = &world.clone;
    assert!(clone.stagegate(&["attest", "key", "create"]).ok());
    clone.sh("git checkout -qb topic; echo good >f; git add f; git commit -qm 'Add f'");
    let said = clone.stagegate(&["check", "--range", "origin/main..HEAD", "--attest"]);
    assert!(
        said.ok() && said.all.contains("signed 1 commit by key "),
        "{}",
        said.all
    );
    world
}

fn verify(place: &Place, more: &[&str]) -> Said {
    place.stagegate(&[&["attest", "verify", "HEAD"], more].concat())
}

#[track_caller]
fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, Some(6), "{}", said.all);
    for word in words {
        assert!(said.all.contains(word), "no {word} in {}", said.all);
    }
}

/// A list that cannot be read is not an empty one.
#[test]
fn keys_that_cannot_be_looked_at_are_not_none() {
    let world = World::new(None);
    let clone = &world.clone;
    let said = clone.stagegate(&["attest", "key", "list"]);
    assert!(said.ok() && !clone.home.join("state").exists(), "{}", said.all);
    let said = clone.try_sh("touch ../file; STAGEGATE_STATE=\"$PWD/../file/state\" \"$STAGEGATE\" attest key list");
    assert_eq!(said.code, Some(1), "{}", said.all);
    assert!(
        said.out.is_empty() && said.all.contains("cannot look at"),
        "{}",
        said.all
    );
}

#[test]
fn a_checked_commit_is_proven_with_by_whom_and_by_which_policy() {
    let world = World::new(None);
    let clone = &world.clone;
    refused(
        &verify(clone, &[]),
        &[
            "not proven: commit ",
            "nothing is attested of it",
            // A first commit has no parent for a range to begin at.
            &format!(
                "check --range {} --attest` checks it again",
                clone.sh("git rev-parse --short=10 HEAD")
            ),
        ],
    );
    let range = ["check", "--range", "HEAD~0..HEAD", "--attest"];
    assert!(clone.stagegate(&range).ok(), "nothing new needs no key");
    clone.sh("git checkout -qb topic; echo good >f; git add f; git commit -qm 'Add f'");
    let without = clone.stagegate(&["check", "--range", "origin/main..HEAD", "--attest"]);
    assert_eq!(without.code, Some(2), "{}", without.all);
    assert!(
        without.all.contains("stagegate attest key create` makes one"),
        "{}",
        without.all
    );

    let key = clone.stagegate(&["attest", "key", "create"]).out.trim().to_owned();
    clone.sh("$STAGEGATE check --range origin/main..HEAD --attest 2>/dev/null");
    let said = verify(clone, &[]);
    assert!(said.ok(), "{}", said.all);
    let (commit, tree) = (clone.sh("git rev-parse HEAD"), clone.sh("git rev-parse HEAD^{tree}"));
    for word in [
        &format!("proven: commit {commit} of {}", world.server.dir.display()),
        &tree,
        &Digest::of(b"").to_string(),
        &format!("signed by key {} of this home, active since ", &key[..12]),
        concat!("by stagegate ", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(said.out.contains(word), "no {word} in {}", said.out);
    }
    let report = json_of(&verify(clone, &["-o", "json"]));
    assert_eq!(report["kind"], "AttestationReport");
    assert_eq!(report["status"]["verdict"], "Proven");
    assert_eq!(report["status"]["attestations"][0]["key"]["id"], key.as_str());
    assert_eq!(
        report["status"]["attestations"][0]["verdict"]["subject"]["tree"],
        tree.as_str()
    );
    // From elsewhere, and by any name that git understands.
    let elsewhere = Place::at(world.root.path().join("elsewhere"), &clone.home);
    let said = elsewhere.stagegate(&["attest", "verify", "topic", "--repository", "../clone"]);
    assert!(said.ok(), "{}", said.all);
    for (commit, repository) in [("no-such", "../clone"), ("HEAD", "."), ("HEAD:f", "../clone")] {
        let said = elsewhere.stagegate(&["attest", "verify", commit, "--repository", repository]);
        assert_eq!(said.code, Some(2), "{commit}: {}", said.all);
    }
    // The envelope is there for others to check.
    let shown = json_of(&clone.stagegate(&["attest", "show", "HEAD", "-o", "json"]));
    let envelope = &shown["items"][0]["spec"]["envelope"];
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    assert_eq!(envelope["signatures"][0]["keyid"], key.as_str());
}

#[test]
fn a_commit_that_does_not_pass_is_not_signed_whatever_came_before_it() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.stagegate(&["attest", "key", "create"]);
    // The same bad file again: a scan of the whole range looks at it once.
    clone.sh("git checkout -qb topic; printf 'bad \\n' >f; git add f; git commit -qm 'Add f'; git rm -q f; git commit -qm 'Remove f'; printf 'bad \\n' >f; git add f; git commit -qm 'Add f again'");
    let said = clone.stagegate(&["check", "--range", "origin/main..HEAD", "--attest"]);
    refused(&said, &["signed 1 commit by key"]);
    assert_eq!(
        said.all.matches("does not pass, and was not signed").count(),
        2,
        "{}",
        said.all
    );
    refused(&verify(clone, &[]), &["nothing is attested"]);
    assert!(clone.stagegate(&["attest", "verify", "HEAD~"]).ok());
}

/// What is proven speaks of every rule of the protected branch, also where the commit is on no such branch yet.
#[test]
fn what_a_protected_branch_refuses_is_proven_on_no_branch() {
    let world = World::new(Some("message: {fixups: {mode: MANDATORY}}"));
    let clone = &world.clone;
    clone.stagegate(&["attest", "key", "create"]);
    clone.sh("git checkout -qb topic; echo good >f; git add f; git commit -qm 'WIP: begin.'");
    assert!(clone.stagegate(&["check", "--range", "main..HEAD"]).ok());
    refused(
        &clone.stagegate(&["check", "--range", "main..HEAD", "--attest"]),
        &[" fixup ", "was not signed"],
    );
    refused(
        &clone.stagegate(&["verdict", "run", "HEAD"]),
        &[" fixup ", " subject (suggested) "],
    );
    refused(&verify(clone, &[]), &["the check refused it"]);
    // By any name it is the same run.
    refused(&clone.stagegate(&["verdict", "show", "HEAD"]), &[" fixup "]);
    clone.sh("git commit -q --amend -m 'fixup! Begin'");
    assert!(clone.stagegate(&["check", "--range", "main..HEAD"]).ok());
    refused(
        &clone.stagegate(&["check", "--range", "main..HEAD", "--attest"]),
        &[" fixup ", "was not signed"],
    );
}

#[test]
fn an_amended_commit_is_another_commit() {
    let world = signed(None);
    let clone = &world.clone;
    assert!(verify(clone, &[]).ok());
    clone.sh("git commit -q --amend -m 'Add f, as it should be'");
    refused(&verify(clone, &[]), &["nothing is attested"]);
    // The old commit is still here, and still proven.
    assert!(clone.stagegate(&["attest", "verify", "HEAD@{1}"]).ok());
}

#[test]
fn nothing_that_a_revoked_key_signed_counts() {
    let world = signed(None);
    let clone = &world.clone;
    let listed = clone.stagegate(&["attest", "key", "list", "-o", "json"]);
    let key = json_of(&listed)["items"][0]["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let revoke = |name: &str| clone.stagegate(&["attest", "key", "revoke", name, "--reason", "the laptop was stolen"]);
    assert_eq!(revoke("00000000").code, Some(2));
    assert_eq!(
        clone
            .stagegate(&["attest", "key", "revoke", &key, "--reason", " "])
            .code,
        Some(2)
    );
    assert!(verify(clone, &[]).ok(), "a revocation without a reason is none");
    assert!(revoke(&key[..8]).ok());
    refused(
        &verify(clone, &[]),
        &[
            "was revoked at ",
            "the laptop was stolen; nothing that it signed counts",
        ],
    );
    let report = json_of(&verify(clone, &["-o", "json"]));
    assert_eq!(report["status"]["attestations"][0]["lacks"][0]["reason"], "KeyRevoked");
    assert_eq!(revoke(&key).code, Some(6));
    // A new key proves it anew.
    clone.sh(
        "$STAGEGATE attest key create 2>/dev/null; $STAGEGATE check --range origin/main..HEAD --attest 2>/dev/null",
    );
    assert!(verify(clone, &[]).ok());
}

#[test]
fn a_rotated_key_still_proves_what_it_signed_before_and_signs_no_more() {
    let world = signed(None);
    let clone = &world.clone;
    assert!(clone.stagegate(&["attest", "key", "rotate"]).ok());
    let said = verify(clone, &[]);
    assert!(
        said.ok() && said.out.contains("of this home, retired at"),
        "{}",
        said.all
    );
    clone.sh(
        "echo more >g; git add g; git commit -qm 'Add g'; $STAGEGATE check --range HEAD~..HEAD --attest 2>/dev/null",
    );
    let said = verify(clone, &[]);
    assert!(
        said.ok() && said.out.contains("of this home, active since"),
        "{}",
        said.all
    );
    let list = clone.stagegate(&["attest", "key", "list"]).out;
    assert!(
        list.contains("retired") && list.contains("active") && list.contains("ed25519:"),
        "{list}"
    );
    // Only one private key is left, for its owner alone.
    assert_eq!(
        clone.sh("ls $STAGEGATE_STATE/keys | wc -l; stat -c %a $STAGEGATE_STATE/keys $STAGEGATE_STATE/keys/*"),
        "1\n700\n600"
    );
    clone.sh("chmod 644 $STAGEGATE_STATE/keys/*");
    let said = clone.stagegate(&["check", "--range", "HEAD~..HEAD", "--attest"]);
    refused(&said, &["open to others (mode 644)", "chmod 600"]);
    assert!(verify(clone, &[]).ok(), "to verify needs no private key");
}

#[test]
fn a_policy_that_changed_since_asks_for_a_new_proof() {
    let world = signed(Some("protected: [main]"));
    let clone = &world.clone;
    assert!(verify(clone, &[]).ok());
    let digest = || {
        Digest::of(
            clone
                .sh("cat hooks/policy.yaml; echo .")
                .trim_end_matches('.')
                .as_bytes(),
        )
        .to_string()
    };
    let before = digest();
    clone.sh("git checkout -q main; sed -i 's/protected/description: stricter, protected/' hooks/policy.yaml; git add .; git commit -qm 'Change the policy'; git push -q origin main");
    let now = digest();
    clone.sh("git checkout -q topic");
    refused(
        &verify(clone, &[]),
        &[&format!("by the policy {before}"), &format!("branch's is {now} now")],
    );
    clone.sh("$STAGEGATE check --range main~..HEAD --attest 2>/dev/null");
    assert!(verify(clone, &[]).ok());
}

#[test]
fn a_proof_of_another_repository_is_none_of_this_one() {
    let world = signed(None);
    let clone = &world.clone;
    let other = Place::at(world.root.path().join("other"), &clone.home);
    other.sh("git clone -q --bare ../clone .");
    let said = other.stagegate(&["attest", "verify", "topic"]);
    let (theirs, ours) = (world.server.dir.display(), other.dir.display());
    refused(
        &said,
        &[&format!("it is about repository {theirs}, and this is {ours}")],
    );
    assert_eq!(other.stagegate(&["attest", "show", "topic"]).out, "");
    // The server's own directory is what its clones speak of.
    clone.sh("git push -q origin topic");
    let said = world.server.stagegate(&["attest", "verify", "topic"]);
    assert!(said.ok(), "{}", said.all);
    // Where the owner gave it a name, it has that everywhere.
    let named = signed(Some("attest: {repository: 'https://git.example.org/a.git'}"));
    let copy = Place::at(named.root.path().join("copy.git"), &named.clone.home);
    copy.sh("git clone -q --bare ../clone .");
    let said = copy.stagegate(&["attest", "verify", "topic"]);
    assert!(
        said.ok() && said.out.contains("of https://git.example.org/a.git"),
        "{}",
        said.all
    );
}

/// Who may not look into a state knows nothing of what is in it.
#[test]
fn a_state_that_cannot_be_looked_into_is_not_taken_for_an_empty_one() {
    let world = signed(None);
    let clone = &world.clone;
    let head = clone.sh("git rev-parse HEAD");
    clone.sh("ln -s loop $HOME/loop");
    let looped = clone.home.join("loop").display().to_string();
    // Also root is refused by both, which a mode does not do.
    for (state, why) in [
        (looped.as_str(), "Too many levels of symbolic links"),
        ("/dev/null", "Not a directory"),
    ] {
        for arguments in [
            &["verdict", "list"][..],
            &["verdict", "show", &head],
            &["attest", "verify", "HEAD"],
            &["attest", "show", "HEAD"],
            &["attest", "key", "list"],
        ] {
            let mut command = clone.command(super::PROGRAM);
            let output = command.args(arguments).env("STAGEGATE_STATE", state).output();
            let said = Said::of(&output.expect("it runs"));
            assert_eq!(said.code, Some(1), "{arguments:?}: {}", said.all);
            let words = format!("cannot look at {state}/stagegate.db: {why}");
            assert!(said.all.contains(&words), "{arguments:?}: {}", said.all);
        }
    }
}

#[test]
fn a_note_that_is_too_long_to_be_read_is_said_to_be() {
    let world = signed(None);
    let clone = &world.clone;
    clone.sh("rm -r $HOME/state; yes x | head -c 9000000 >note; git notes --ref=stagegate add -F note HEAD");
    let said = verify(clone, &["--notes"]);
    refused(&said, &["was not read: it has 9000000 bytes", "nothing is attested"]);
    assert!(!said.all.contains("`--notes` looks"), "{}", said.all);
    let said = verify(clone, &[]);
    refused(&said, &["`--notes` looks also"]);
    assert!(!said.all.contains("was not read"), "{}", said.all);
}

#[test]
fn a_note_travels_and_is_as_good_as_its_signature() {
    let world = signed(None);
    let clone = &world.clone;
    clone.sh(
        "git notes --ref=stagegate add -m 'by hand' HEAD; $STAGEGATE attest note HEAD; $STAGEGATE attest note HEAD",
    );
    let note = clone.sh("git notes --ref=stagegate show HEAD");
    assert_eq!(note.lines().next(), Some("by hand"));
    assert_eq!(note.lines().count(), 2, "{note}");
    assert!(world.push("topic refs/notes/stagegate").ok());
    // Another machine, which has no proof of its own and does not know the key.
    let other = Place::at(world.root.path().join("other/clone"), &world.root.path().join("other"));
    other.sh("git clone -q ../../server.git .; git checkout -q topic; git fetch -q origin refs/notes/stagegate:refs/notes/stagegate");
    refused(&verify(&other, &[]), &["nothing is attested"]);
    refused(
        &verify(&other, &["--notes"]),
        &["which is not known here", "attest.trust"],
    );
    // The owner's policy trusts it.
    let keys = clone.stagegate(&["attest", "key", "list", "-o", "json"]);
    let public = json_of(&keys)["items"][0]["spec"]["publicKey"]
        .as_str()
        .expect("a key")
        .to_owned();
    let trust = |what: &str| {
        let spec = format!("attest: {{trust: [{{name: laptop, publicKey: '{public}', for: [{what}]}}]}}");
        clone.policy(&spec);
    };
    trust("hooks");
    clone.sh("git checkout -qB main origin/main; git add hooks; git commit -qm 'Trust the laptop'; git push -q origin main; git checkout -q topic");
    refused(&verify(&other, &["--notes"]), &["which is not known here"]);
    other.sh("git fetch -q");
    refused(
        &verify(&other, &["--notes"]),
        &["which the policy trusts for hooks", "it was checked by the policy"],
    );
    clone.sh("$STAGEGATE check --range origin/main..HEAD --attest 2>/dev/null; $STAGEGATE attest note HEAD; git push -q origin refs/notes/stagegate");
    other.sh("git fetch -q origin refs/notes/stagegate:refs/notes/stagegate");
    let said = verify(&other, &["--notes"]);
    assert!(said.ok() && said.out.contains("in a note"), "{}", said.all);
    // Changed in a single digit it proves nothing.
    other.sh("git notes --ref=stagegate show HEAD | sed 's/\"sig\":\"..../\"sig\":\"AAAA/' >changed; git notes --ref=stagegate add -f -F changed HEAD");
    refused(&verify(&other, &["--notes"]), &["has not signed this"]);
    // Trusted for something else it proves nothing either.
    clone.sh("git checkout -q main");
    trust("content");
    clone.sh("git add hooks; git commit -qm 'Trust it less'; git push -q origin main; git checkout -q topic; $STAGEGATE check --range origin/main~..HEAD --attest 2>/dev/null; $STAGEGATE attest note HEAD; git push -q origin refs/notes/stagegate");
    other.sh("git fetch -q; git fetch -q origin +refs/notes/stagegate:refs/notes/stagegate");
    refused(&verify(&other, &["--notes"]), &["the policy does not trust key"]);
}

#[test]
fn no_note_is_written_while_a_push_is_received() {
    let world = signed(None);
    let said = world.clone.try_sh("GIT_QUARANTINE_PATH=x $STAGEGATE attest note HEAD");
    assert!(
        !said.ok() && said.all.contains("while a push is being received"),
        "{}",
        said.all
    );
    assert!(
        !world
            .clone
            .try_sh("git rev-parse -q --verify refs/notes/stagegate")
            .ok()
    );
    world.clone.sh("git commit -q --amend -m 'Another'");
    let said = world.clone.stagegate(&["attest", "note", "HEAD"]);
    refused(&said, &["nothing is stored of commit"]);
}

/// Signs what a full run would, which this test does not make.
fn sign_verdict(world: &World, hooks: &[(&str, &str, Passed)], outcome: Outcome) {
    sign_verdict_of(world, proof::engine(), hooks, outcome);
}

fn sign_verdict_of(world: &World, engine: Engine, hooks: &[(&str, &str, Passed)], outcome: Outcome) {
    let clone = &world.clone;
    let home = Home::open(&clone.home.join("state")).expect("a home");
    let hooks = hooks.iter().map(|(id, revision, passed)| HookRun {
        id: (*id).to_owned(),
        revision: (*revision).to_owned(),
        native: false,
        passed: *passed,
    });
    let now = Timestamp::now();
    let policy = clone.try_sh("git cat-file blob origin/main:hooks/policy.yaml");
    let verdict = Verdict {
        subject: Subject {
            repository: world.server.dir.display().to_string(),
            commit: clone.sh("git rev-parse HEAD"),
            tree: clone.sh("git rev-parse HEAD^{tree}"),
        },
        policy: Digest::of(policy.out.as_bytes()),
        engine,
        hooks: hooks.collect(),
        outcome,
        findings: Vec::new(),
        issues: Vec::new(),
        blames: Vec::new(),
        started_at: now,
        finished_at: now,
    };
    proof::attest(&home, &verdict, now).expect("signed");
}

#[test]
fn hooks_that_the_protected_branch_lists_now_must_have_run() {
    let world = World::new(None);
    let clone = &world.clone;
    let config = |revision: &str| {
        clone.write(
            ".pre-commit-config.yaml",
            format!(
                "repos:\n- repo: https://example.org/hooks\n  rev: {revision}\n  hooks:\n  - id: lint\n- repo: builtin\n  hooks:\n  - id: check-json\n  - {{id: never, stages: [manual]}}\n"
            ),
        );
    };
    config("v1");
    clone.sh("git add .; git commit -qm 'Add hooks'; git push -q origin main; git checkout -qb topic; echo good >f; git add f; git commit -qm 'Add f'");
    clone.stagegate(&["attest", "key", "create"]);
    // Native rules alone do not stand for all of them, and it is said, not signed.
    let said = clone.stagegate(&["check", "--range", "origin/main..HEAD", "--attest"]);
    refused(&said, &["was not signed: no native rule stands for the hooks lint"]);
    refused(
        &verify(clone, &[]),
        &["nothing is attested", "verdict run ", "runs the hooks lint, and signs"],
    );
    sign_verdict(&world, &[("check-json", "builtin", Passed::Yes)], Outcome::Passed);
    refused(&verify(clone, &[]), &["these hooks did not run: lint (v1)"]);
    sign_verdict(
        &world,
        &[("check-json", "builtin", Passed::Yes), ("lint", "v1", Passed::No)],
        Outcome::Failed,
    );
    refused(
        &verify(clone, &[]),
        &["the check refused it", "stagegate verdict show ", "shows what is wrong"],
    );
    let why = "no sandbox can be had".to_owned();
    sign_verdict(&world, &[], Outcome::NotProven { why });
    refused(
        &verify(clone, &[]),
        &["the check could not be made: no sandbox can be had"],
    );
    sign_verdict(
        &world,
        &[("check-json", "builtin", Passed::Yes), ("lint", "v1", Passed::Yes)],
        Outcome::Passed,
    );
    let said = verify(clone, &[]);
    assert!(
        said.ok() && said.out.contains("hooks   check-json (builtin), lint (v1)"),
        "{}",
        said.all
    );
    // A newer revision on the branch asks for a new run; one on the topic asks for nothing.
    config("v2");
    clone.sh("git stash -q; git checkout -q main; git stash pop -q; git add .; git commit -qm 'Newer hooks'; git checkout -q topic");
    assert!(verify(clone, &[]).ok());
    clone.sh("git push -q origin main");
    refused(&verify(clone, &[]), &["these hooks did not run: lint (v2)"]);
}

/// Makes a key; its public half, as a policy writes it.
fn made_key(clone: &Place) -> String {
    clone.stagegate(&["attest", "key", "create"]);
    let keys = clone.stagegate(&["attest", "key", "list", "-o", "json"]);
    let public = json_of(&keys)["items"][0]["spec"]["publicKey"].clone();
    public.as_str().expect("a key").to_owned()
}

/// A push whose content somebody trusted has signed is not searched again; its messages are.
#[test]
fn a_server_goes_by_the_word_of_a_key_that_its_policy_trusts_for_content() {
    let world = World::new(None);
    let clone = &world.clone;
    let public = made_key(clone);
    let policy = |what: &str, more: &str| {
        let spec = format!(
            "attest: {{trust: [{{publicKey: '{public}', for: [{what}]}}]}}, message: {{fixups: {{mode: MANDATORY}}}}{more}"
        );
        clone.policy(&spec);
        clone.sh("git add hooks; git commit -qm 'Policy'; git push -q origin main");
    };
    let begin = |branch: &str, script: &str| {
        clone.sh(&format!(
            "git checkout -q -B {branch} main; {script}; $STAGEGATE check --range main..HEAD --attest 2>/dev/null || :"
        ));
    };
    let good = "echo good >f; git add f; git commit -qm 'Add f'";
    policy("content", "");
    begin("one", good);
    let said = world.push("one");
    assert!(
        said.ok() && !said.all.contains("trusted key"),
        "without the note: {}",
        said.all
    );
    begin("two", "echo good >g; git add g; git commit -qm 'Add g'");
    clone.sh("$STAGEGATE attest note HEAD 2>/dev/null");
    let said = world.push("two refs/notes/stagegate");
    assert!(
        said.ok() && said.all.contains("the files of 1 commit as signed by a trusted key"),
        "{}",
        said.all
    );
    // The note that is there already counts as well.
    begin(
        "three",
        "echo good >h; git add h; git commit -qm 'Add h'; git branch -q before; echo x >i; git add i; git commit -qm 'Add i'",
    );
    clone.sh("$STAGEGATE attest note HEAD 2>/dev/null; $STAGEGATE attest note HEAD~ 2>/dev/null");
    assert!(world.push("refs/notes/stagegate").ok());
    let said = world.push("three");
    assert!(
        said.ok() && said.all.contains("the files of 2 commits as signed"),
        "{}",
        said.all
    );
    // A word that is no longer meant for this: amended, or by another policy, or for something else.
    clone.sh("git checkout -q three; git commit -q --amend -m 'Add i, again'");
    let said = world.push("HEAD:refs/heads/four");
    assert!(said.ok() && !said.all.contains("trusted key"), "{}", said.all);
    // Messages are looked at whatever was signed.
    begin("five", "echo good >j; git add j; git commit -qm 'fixup! Add j'");
    sign_verdict(&world, &[], Outcome::Passed);
    clone.sh("$STAGEGATE attest note HEAD 2>/dev/null");
    let said = world.push("refs/notes/stagegate HEAD:refs/heads/main");
    assert!(!said.ok() && said.all.contains(" fixup "), "{}", said.all);
    clone.sh("git checkout -q main");
    policy("hooks", "");
    begin("six", "echo good >k; git add k; git commit -qm 'Add k'");
    clone.sh("$STAGEGATE attest note HEAD 2>/dev/null");
    let said = world.push("six refs/notes/stagegate");
    assert!(
        said.ok() && !said.all.contains("trusted key"),
        "trusted for hooks only: {}",
        said.all
    );
}

/// A note that was signed for one commit is put to another, and one is signed by a key that nobody trusts: both hide nothing.
#[test]
fn a_note_that_vouches_for_something_else_hides_nothing() {
    let world = World::new(None);
    let clone = &world.clone;
    let public = made_key(clone);
    let spec = format!("attest: {{trust: [{{publicKey: '{public}', for: [content]}}]}}");
    clone.policy(&spec);
    clone.sh("git add hooks; git commit -qm 'Policy'; git push -q origin main; git checkout -qb topic; echo good >f; git add f; git commit -qm 'Add f'; $STAGEGATE check --range main..HEAD --attest 2>/dev/null; $STAGEGATE attest note HEAD 2>/dev/null");
    clone.sh("git notes --ref=stagegate show HEAD >../note; echo \"$KEY\" >k; git add k; git commit -qm 'Add k'; git notes --ref=stagegate add -f -F ../note HEAD");
    let said = world.push("topic refs/notes/stagegate");
    assert!(!said.ok() && said.all.contains(" k:1:6 private-key "), "{}", said.all);
    // The bad commit passed by the trusted key, but by rules of another version.
    let mut older = proof::engine();
    older.version.push_str("-older");
    sign_verdict_of(&world, older, &[], Outcome::Passed);
    clone.sh("$STAGEGATE attest note HEAD");
    assert!(verify(clone, &[]).ok(), "who asks sees the version");
    let said = world.push("topic refs/notes/stagegate");
    assert!(!said.ok() && said.all.contains(" k:1:6 private-key "), "{}", said.all);
    // The same verdict, for the bad commit, by a key that is not in the policy.
    clone.stagegate(&["attest", "key", "rotate"]);
    sign_verdict(&world, &[], Outcome::Passed);
    clone.sh("$STAGEGATE attest note HEAD");
    assert!(verify(clone, &[]).ok(), "here it is trusted");
    let said = world.push("topic refs/notes/stagegate");
    assert!(!said.ok() && said.all.contains(" k:1:6 private-key "), "{}", said.all);
}

/// Two names that differ in case only are one file on many a machine, whoever brought them and by whichever way.
#[test]
fn names_that_came_round_the_check_and_differ_in_case_only_are_not_proven() {
    let world = World::new(None);
    let clone = &world.clone;
    made_key(clone);
    world.hook("exit 0");
    clone.sh("echo a >page; echo b >Page; git add .; git commit -qm 'Add two'; git push -q origin main");
    world.hook("exec \"$STAGEGATE\" pre-receive");
    clone.sh("echo good >f; git add f; git commit -qm 'Add f'; git push -q origin main");
    let said = world.server.stagegate(&["verdict", "run", "main"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    assert!(said.all.contains("page case-conflict"), "{}", said.all);
    let said = clone.stagegate(&["check", "--range", "main~..main", "--attest"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
}

/// A workspace beside the clone, whose builds are directories, and whose repository is the clone.
struct Workspace<'w> {
    world: &'w World,
    place: Place,
}

impl<'w> Workspace<'w> {
    fn of(world: &'w World) -> Self {
        let place = Place::at(world.root.path().join("workspace"), &world.clone.home);
        Self { world, place }
    }

    /// Finds a version as `up` and `upgrade` do, and writes the build down.
    fn find(&self, commits: &Value, version: &str) -> Result<KnownBuild, String> {
        let component: Component = serde_json::from_value(json!({
            "name": "web", "nodes": [{"name": "n1"}], "source": {"directory": "builds"}, "commits": commits,
        }))
        .expect("a component");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let found = runtime.block_on(builds::resolve(&component, version, &self.place.dir));
        let spec = found.map_err(|why| why.to_string())?;
        let home = Home::open(&self.place.home.join("state")).expect("a home");
        KnownBuild::create(&home, &spec).expect("written");
        Ok(KnownBuild::find(&home, &spec.name()).expect("read").expect("there"))
    }

    fn condition(&self, build: &str) -> Value {
        let shown = self.place.stagegate(&["build", "show", build, "-o", "json"]);
        let conditions = json_of(&shown)["status"]["conditions"].clone();
        conditions
            .as_array()
            .and_then(|list| list.first())
            .cloned()
            .unwrap_or_default()
    }

    #[track_caller]
    fn expect(&self, build: &str, status: &str, reason: &str, words: &str) {
        let condition = self.condition(build);
        let message = condition["message"].as_str().unwrap_or_default();
        assert_eq!(
            (condition["status"].as_str(), condition["reason"].as_str()),
            (Some(status), Some(reason)),
            "{condition}"
        );
        assert!(message.contains(words), "{condition}");
        let people = self.place.stagegate(&["build", "show", build]);
        assert!(
            people.out.contains(&format!("HooksPassed {status} ({reason}) since ")),
            "{}",
            people.all
        );
    }

    fn artifact_of(&self, build: &KnownBuild) -> std::path::PathBuf {
        Home::open(&self.place.home.join("state"))
            .expect("a home")
            .artifact(&build.spec.digest)
    }

    fn sh(&self, script: &str) -> String {
        self.place.sh(script)
    }

    fn clone(&self) -> &Place {
        &self.world.clone
    }
}

#[test]
fn a_build_whose_files_are_a_proven_commits_has_its_hooks_passed() {
    let world = World::new(None);
    let workspace = Workspace::of(&world);
    workspace.clone().sh("git checkout -qb topic; mkdir -p app/bin; echo page >app/page; printf '#!/bin/sh\\n' >app/bin/run; chmod +x app/bin/run; ln -s page app/link; git add app; git commit -qm 'Add the app'; git tag v1; git tag v2");
    workspace
        .sh("mkdir -p builds; cp -a ../clone/app builds/1; cp -a ../clone/app builds/2; echo changed >builds/2/page");
    let commits = json!({"repository": "../clone", "revision": "refs/tags/vVERSION", "path": "app"});
    let build = workspace.find(&commits, "1").expect("found");
    let commit = workspace.clone().sh("git rev-parse topic");
    assert_eq!(
        build.spec.commit.as_ref().map(|c| c.commit.as_str()),
        Some(commit.as_str())
    );
    workspace.expect(
        "web-1",
        "False",
        "NotOnProtectedBranch",
        "is not on the protected branch refs/heads/main",
    );
    workspace.clone().sh("git push -q origin topic:main");
    workspace.expect("web-1", "Unknown", "NotAttested", "nothing is attested of commit");
    let before = workspace.condition("web-1")["lastTransitionTime"].clone();
    workspace
        .clone()
        .sh("$STAGEGATE attest key create 2>/dev/null; $STAGEGATE check --range topic~..topic --attest 2>/dev/null");
    workspace.expect("web-1", "True", "Attested", "every file is commit");
    let proven = workspace.condition("web-1")["lastTransitionTime"].clone();
    assert_ne!(proven, before);
    assert_eq!(
        workspace.condition("web-1")["lastTransitionTime"],
        proven,
        "it stays while nothing changes"
    );
    // The same commit, and other files: named rightly is not enough.
    workspace.find(&commits, "2").expect("found");
    workspace.expect("web-2", "False", "TreeDiffers", "`page` has another content in commit");
    // What nodes get is what counts, once there is an artifact.
    let artifact = workspace.artifact_of(&build);
    let artifact = artifact.to_str().expect("text");
    workspace.sh(&format!("mkdir -p $(dirname {artifact}); cp -a builds/1 {artifact}"));
    workspace.expect("web-1", "True", "Attested", "");
    for (change, back, words) in [
        ("chmod -x bin/run", "chmod +x bin/run", "`bin/run` has another mode"),
        ("echo x >zzz", "rm zzz", "`zzz` is in the build and not in commit"),
        ("mv page ../aside", "mv ../aside page", "`page` is in commit"),
        ("ln -sfn bin link", "ln -sfn page link", "`link` has another content"),
    ] {
        workspace.sh(&format!("cd {artifact}; {change}"));
        workspace.expect("web-1", "False", "TreeDiffers", words);
        workspace.sh(&format!("cd {artifact}; {back}"));
        workspace.expect("web-1", "True", "Attested", "");
    }
    // A tag that is moved does not move the build.
    workspace
        .clone()
        .sh("echo later >app/page; git commit -qam 'Later'; git tag -f v1 2>/dev/null");
    workspace.expect("web-1", "True", "Attested", &commit[..10]);
    // A key that is revoked takes it back.
    let keys = workspace.place.stagegate(&["attest", "key", "list", "-o", "json"]);
    let key = json_of(&keys)["items"][0]["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    workspace
        .place
        .stagegate(&["attest", "key", "revoke", &key, "--reason", "lost"]);
    workspace.expect("web-1", "Unknown", "KeyRevoked", "lost");
    workspace.sh("mv ../clone ../gone");
    workspace.expect("web-1", "Unknown", "RepositoryUnreadable", "is no git repository");
}

#[test]
fn a_version_without_a_commit_is_no_build_and_a_component_without_commits_asks_for_none() {
    let world = World::new(None);
    let workspace = Workspace::of(&world);
    workspace.sh("mkdir -p builds/1; echo page >builds/1/page");
    let found = |commits: Value| workspace.find(&commits, "1").map(|build| build.spec.commit);
    for (commits, words) in [
        (
            json!({"repository": "../clone", "revision": "vVERSION"}),
            "`v1` names no commit here",
        ),
        (
            json!({"repository": "../none", "revision": "vVERSION"}),
            "is no git repository",
        ),
        (
            json!({"repository": "../clone", "revision": "HEAD", "path": "no"}),
            "has no directory `no`",
        ),
    ] {
        let why = found(commits).expect_err(words);
        assert!(why.contains(words) && why.contains("which commit web=1 is"), "{why}");
    }
    assert_eq!(found(Value::Null), Ok(None));
    assert_eq!(workspace.condition("web-1"), Value::Null);
}

/// Keys and proofs are of commits: taking the last environment down does not take them along.
#[test]
fn a_home_with_keys_outlives_its_environments() {
    let system = Trivial::new();
    let key = system.run(&["attest", "key", "create"]).expect_code(0).out;
    system.run(&["down", ENVIRONMENT, "--purge"]).expect_code(0);
    let list = system
        .run(&["attest", "key", "list", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(list["items"][0]["metadata"]["name"], key.trim());
}

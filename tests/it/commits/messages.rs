//! What messages say, pushed for real.

use super::World;

const KEYS: &str =
    "message: {issueKeys: {mode: MANDATORY, projects: [ABC]}, fixups: {mode: MANDATORY}, text: {mode: MANDATORY}}";

fn world(spec: &str) -> World {
    let world = World::empty();
    world.hook("exit 0");
    world
        .clone
        .sh("printf '# Project\\n' >README.md; git add .; git commit -qm 'ABC-1: Begin'");
    world.clone.policy(spec);
    world.clone.sh(
        "git add .; git commit -qm 'ABC-1: Add the policy'; git push -q origin main; git remote set-head origin main",
    );
    world.hook("exec \"$STAGEGATE\" pre-receive");
    world
}

fn commit(message: &str) -> String {
    format!("echo $(date +%N) >f; git add f; git commit -qm '{message}'")
}

/// T67 to T74 and T78, at the server.
#[test]
fn a_message_is_judged_by_what_git_knows_of_its_commit() {
    let world = world(KEYS);
    let merge = "git checkout -qb side; echo s >s; git add s; git commit -qm 'ABC-2: s'; git checkout -q topic; echo t >t; git add t; \
                 git commit -qm 'ABC-2: t'; git merge -q -m \"Merge branch side\" side; git branch -qD side";
    let revert = format!("{}; git revert --no-edit HEAD >/dev/null", commit("ABC-3: x"));
    let foreign = format!(
        "{} -m 'This reverts commit 0123456789abcdef0123456789abcdef01234567.'",
        commit("Revert \"x\"")
    );
    for (case, script, rule) in [
        ("T67", commit("fix: x"), Some("issue-key")),
        ("T68", commit("ABC-123: x"), None),
        ("T69", commit("abc-123: x"), Some("issue-key")),
        ("T70", commit("ABC-0: x"), Some("issue-key")),
        ("T71", commit("UTF-8 fix"), Some("issue-key")),
        ("T72 one is enough", commit("ABC-1, DEF-2: x"), None),
        ("T73 a merge", merge.to_owned(), None),
        (
            "T73 a merge of what could be gone forward to",
            "git checkout -qb side; echo s >s; git add s; git commit -qm 'ABC-2: s'; git checkout -q topic; \
             git merge -q --no-ff -m 'Merge branch side' side; git branch -qD side"
                .to_owned(),
            None,
        ),
        (
            "T73 with its own past, and changes of its own",
            "echo m >m; git add m; git reset -q --hard $(git commit-tree -p HEAD -p HEAD~1 -m 'whatever' $(git write-tree))".to_owned(),
            Some("issue-key"),
        ),
        (
            "T73 with its own past, and what that was",
            format!("{}; git reset -q --hard $(git commit-tree -p HEAD -p HEAD~1 -m 'whatever' HEAD~1^{{tree}})", commit("ABC-4: x")),
            Some("issue-key"),
        ),
        ("T73 only in words", commit("Merge branch side"), Some("issue-key")),
        ("T74 a revert", revert, None),
        ("T74 only in words", foreign, Some("issue-key")),
        ("T78 a trailer", format!("{} -m 'Refs: ABC-9'", commit("x")), None),
        (
            "T78 the body",
            format!("{} -m 'about ABC-9'", commit("x")),
            Some("issue-key"),
        ),
    ] {
        world.expect(case, &script, rule);
    }
    let said = world.expect("T67 says how", &commit("fix: x"), Some("issue-key"));
    assert!(
        said.all
            .contains("no issue key in the subject or a trailer; write `ABC-123: what it does`"),
        "{}",
        said.all
    );
    let said = world.expect("T69 says how", &commit("abc-123: x"), Some("issue-key"));
    assert!(
        said.all
            .contains("`abc-123` is no issue key; write it in capitals: ABC-123"),
        "{}",
        said.all
    );
}

/// T75: allowed on a topic branch, and found when it arrives where it may not be, although the server has it already.
#[test]
fn a_fixup_is_found_when_it_reaches_a_protected_branch() {
    let world = world(KEYS);
    world.clone.sh(&commit("fixup! ABC-1: Begin"));
    let said = world.push("HEAD:refs/heads/topic");
    assert!(said.ok(), "{}", said.all);
    let said = world.push("HEAD:refs/heads/main");
    assert!(!said.ok() && said.all.contains(" fixup "), "{}", said.all);
}

/// T76: by who the server says pushes, or by a signature; not by what is typed.
#[test]
fn bots_are_exempt_by_who_vouches_for_them() {
    let world = world(&format!("{KEYS}, exempt: {{pushers: [renovate]}}"));
    let bump = format!(
        "{} -m 'Signed-off-by: renovate <renovate@example.org>'",
        commit("Bump x")
    );
    world.expect("T76 typed", &bump, Some("issue-key"));
    world.hook("REMOTE_USER=human exec \"$STAGEGATE\" pre-receive --pusher-from REMOTE_USER");
    world.expect("T76 another pusher", &bump, Some("issue-key"));
    world.hook("REMOTE_USER=renovate exec \"$STAGEGATE\" pre-receive");
    world.expect("T76 a variable that nobody trusts", &bump, Some("issue-key"));
    world.hook("REMOTE_USER=renovate exec \"$STAGEGATE\" pre-receive --pusher-from REMOTE_USER");
    world.expect("T76 the pusher", &bump, None);
    world.expect(
        "T76 content holds for all",
        &format!("echo \"$KEY\" >k; git add k; {bump}"),
        Some("private-key"),
    );
}

/// T76, with the real ssh-keygen.
#[test]
fn a_commit_signed_by_a_trusted_key_is_exempt() {
    let keys = tempfile::tempdir().expect("a directory");
    let made = |name: &str| {
        let path = keys.path().join(name);
        let done = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&path)
            .status();
        assert!(done.expect("ssh-keygen runs").success());
        std::fs::read_to_string(path.with_extension("pub"))
            .expect("written")
            .trim()
            .to_owned()
    };
    let (trusted, _) = (made("bot"), made("other"));
    let world = world(&format!("{KEYS}, exempt: {{signers: ['{trusted}']}}"));
    let signed = |name: &str| {
        let key = keys.path().join(name);
        format!(
            "echo x >f; git add f; git -c gpg.format=ssh -c user.signingkey='{}' commit -q -S -m 'Bump x'",
            key.display()
        )
    };
    world.expect("a trusted key", &signed("bot"), None);
    world.expect("another key", &signed("other"), Some("issue-key"));
    world.expect(
        "no key",
        "echo x >f; git add f; git commit -qm 'Bump x'",
        Some("issue-key"),
    );
}

/// T77, as far as git lets it be made.
#[test]
fn odd_messages_have_a_verdict() {
    let world = world(KEYS);
    let raw = |message: &str| {
        format!(
            "echo x >f; git add f; T=$(git write-tree); C=$({{ printf 'tree %s\\nparent %s\\nauthor D <d@e> 1700000000 +0000\\n\
             committer D <d@e> 1700000000 +0000\\n\\n' $T $(git rev-parse HEAD); {message}; }} | git hash-object -t commit -w --stdin --literally); \
             git reset -q --hard $C"
        )
    };
    for (case, script, rule) in [
        ("T77 CRLF", raw("printf 'ABC-1 x\\r\\n\\r\\nbody\\r\\n'"), None),
        ("T77 not UTF-8", raw("printf 'ABC-1 caf\\351\\n'"), Some("message-text")),
        (
            "T77 with its encoding",
            "echo x >f; git add f; printf 'ABC-1 caf\\351\\n' | git -c i18n.commitEncoding=ISO-8859-1 commit -qF -"
                .to_owned(),
            None,
        ),
        (
            "T77 1 MB",
            raw("printf 'ABC-1 x\\n\\n'; yes | head -c 1000000"),
            Some("message-text"),
        ),
        (
            "T77 a zero byte",
            raw("printf 'ABC-1 x\\n\\nsay \\000 more'"),
            Some("message-text"),
        ),
        (
            "T77 a key behind it",
            raw("printf 'ABC-1 x\\n\\n\\000'; echo \"$KEY\""),
            Some("private-key"),
        ),
        ("T77 nothing", raw(":"), Some("issue-key")),
    ] {
        world.expect(case, &script, rule);
    }
}

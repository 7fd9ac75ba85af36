//! Which refs a push moves, and what is left of one that is refused.

use std::process::Stdio;

use super::{Place, World};

/// T34 and T35.
#[test]
fn protected_branches_only_go_forward_and_tags_stay() {
    let world = World::new(Some(
        "protected: [main, 'release/*'], refs: {mayRewind: ['release/old', 'tags/nightly']}",
    ));
    world.clone.sh("echo 1 >f; git add f; git commit -qm 'One'; git tag v1; git tag nightly; git branch release/1; git branch release/old");
    assert!(world.push("main main:topic v1 nightly release/1 release/old").ok());
    for (case, arguments, rule) in [
        ("T34 a protected branch", ":main", Some("ref-delete")),
        ("T34 a release", ":release/1", Some("ref-delete")),
        ("T34 a topic", ":topic", None),
        ("T34 one that may", ":release/old", None),
        ("T34 a tag", ":v1", Some("ref-delete")),
    ] {
        let said = world.push(arguments);
        assert_eq!(said.ok(), rule.is_none(), "{case}: {}", said.all);
        assert!(
            rule.is_none_or(|r| said.all.contains(&format!(" {r} "))),
            "{case}: {}",
            said.all
        );
    }
    world.clone.sh("git reset -q --hard HEAD~1; echo 2 >f; git add f; git commit -qm 'Two'; git tag -f v1 >/dev/null; git tag -f nightly >/dev/null");
    for (case, arguments, rule) in [
        ("T35 a protected branch", "+main", Some("ref-rewind")),
        ("T35 a moved tag", "+v1", Some("ref-rewind")),
        ("T35 one that may", "+nightly", None),
        ("T35 a topic", "+main:topic", None),
        ("T35 a topic, rewound", "+main~1:topic", None),
    ] {
        let said = world.push(arguments);
        assert_eq!(said.ok(), rule.is_none(), "{case}: {}", said.all);
        assert!(
            rule.is_none_or(|r| said.all.contains(&format!(" {r} "))),
            "{case}: {}",
            said.all
        );
    }
    // Only what is new is looked at: one commit, not the whole branch.
    world
        .clone
        .sh("git checkout -q -B topic main~1; echo 3 >f; git add f; git commit -qm 'Three'");
    let said = world.push("+topic");
    assert!(said.ok() && said.all.contains("1 commit ("), "{}", said.all);
}

/// Messages are not looked at below notes, so what only notes reach is new wherever else it arrives.
#[test]
fn what_only_notes_reach_is_looked_at_when_it_arrives_elsewhere() {
    let world = World::new(Some("message: {issueKeys: {mode: MANDATORY, projects: [ABC]}}"));
    world
        .clone
        .sh("echo x >x; git add x; git commit -qm 'No key'; git tag light; git tag -am 'ABC-1: Tag' heavy");
    assert!(world.push("HEAD:refs/notes/y").ok());
    for arguments in ["HEAD:refs/heads/x", "HEAD:refs/heads/main", "light", "heavy"] {
        let said = world.push(arguments);
        assert!(
            !said.ok() && said.all.contains(" issue-key "),
            "{arguments}: {}",
            said.all
        );
    }
    // Notes on top of notes bring only themselves.
    world.clone.sh("echo y >y; git add y; git commit -qm 'No key either'");
    let said = world.push("HEAD:refs/notes/y");
    assert!(said.ok() && said.all.contains("1 commit ("), "{}", said.all);
}

#[test]
fn a_range_in_a_shallow_clone_says_what_is_not_there() {
    let world = World::new(Some(""));
    let shallow = Place::at(world.root.path().join("shallow"), &world.clone.home);
    shallow.sh("git clone -q --depth 1 \"file://$PWD/../server.git\" .");
    let said = shallow.stagegate(&["check", "--range", "HEAD"]);
    assert!(
        said.ok() && said.all.contains("this is a shallow clone"),
        "{}",
        said.all
    );
    let json = |place: &Place| place.stagegate(&["check", "--range", "HEAD", "-o", "json"]).out;
    assert!(json(&shallow).contains("historyIsCutShort"));
    assert!(!json(&world.clone).contains("historyIsCutShort"));
    let said = shallow.stagegate(&["check", "--all", "--attest"]);
    assert_eq!(said.code, Some(2), "{}", said.all);
}

/// A branch's other name, a branch that waits to be the first, and what a server keeps of others: none of them is a way in.
#[test]
fn what_the_server_s_own_refs_stand_for_is_what_is_judged() {
    let world = World::new(Some("message: {fixups: {mode: MANDATORY}}"));
    let (clone, server) = (&world.clone, &world.server);
    clone.sh("for i in 1 2; do echo $i >f; git add f; git commit -qm \"Add $i\"; done; git push -q origin HEAD:main; git fetch -q");
    server.sh("git symbolic-ref refs/heads/trunk refs/heads/main; git symbolic-ref refs/notes/x refs/heads/main");
    clone.sh("echo 3 >f; git commit -qam 'fixup! Add 2'; git tag squash; git reset -q --hard HEAD~");
    for (case, push, expected) in [
        (
            "rewound by another name",
            "+HEAD~1:refs/heads/trunk",
            "refs/heads/main ref-rewind",
        ),
        (
            "deleted by another name",
            ":refs/heads/trunk",
            "refs/heads/main ref-delete",
        ),
        ("a fixup! by another name", "squash:refs/heads/trunk", "fixup"),
        ("a fixup! by notes", "squash:refs/notes/x", "fixup"),
    ] {
        let said = world.push(push);
        assert!(!said.ok() && said.all.contains(expected), "{case}: {}", said.all);
    }
    // By whichever of its names it is protected.
    clone.policy("protected: ['release/*'], message: {fixups: {mode: MANDATORY}}");
    clone.sh("git commit -qam 'Protect releases'; git push -q origin HEAD:main HEAD:stable; git fetch -q");
    server.sh("git symbolic-ref refs/heads/release/now refs/heads/stable");
    for (case, push, expected) in [
        (
            "rewound as a release",
            "+HEAD~1:refs/heads/release/now",
            "refs/heads/stable ref-rewind",
        ),
        ("a fixup! as a release", "squash:refs/heads/release/now", "fixup"),
    ] {
        clone.sh("git tag -f squash $(git commit-tree -p HEAD -m 'fixup! Add 2' HEAD^{tree}) >/dev/null");
        let said = world.push(push);
        assert!(!said.ok() && said.all.contains(expected), "{case}: {}", said.all);
    }
    // What a forge keeps of somebody's request came by no push.
    clone.sh("git checkout -q --detach; echo \"$KEY\" >k; git add k; git commit -qm 'Key'; git tag request; git checkout -qf main");
    let place = clone.sh("pwd");
    server.sh(&format!("git fetch -q --no-tags '{place}' request:refs/pull/1/head"));
    let said = world.push("request^{commit}:refs/heads/other");
    assert!(!said.ok() && said.all.contains("k:1:6 private-key"), "{}", said.all);
    // HEAD names a branch that nobody has pushed.
    server.sh("git symbolic-ref HEAD refs/heads/trunk; git symbolic-ref refs/heads/trunk refs/heads/master");
    // git's own check of the repository has something against such a name.
    let said = clone.try_sh("git push origin HEAD:refs/heads/master");
    let expected =
        "refs/heads/master ref-name would be the branch that the policy comes from, in the place of refs/heads/main";
    assert!(!said.ok() && said.all.contains(expected), "{}", said.all);
    server.sh("git symbolic-ref HEAD refs/heads/main; git symbolic-ref -d refs/heads/trunk");
    assert!(world.push("HEAD:refs/heads/master").ok());
}

/// No commit of its own has changed the policy that holds from now on: they have it from what was before.
#[test]
fn a_policy_that_is_another_after_a_push_is_told_whichever_way_it_came() {
    let world = World::new(None);
    let clone = &world.clone;
    let told = |case: &str, expected: &str| {
        let said = world.push("HEAD:main");
        assert!(said.ok() && said.all.contains(expected), "{case}: {}", said.all);
        clone.sh("git fetch -q");
    };
    clone.policy("content: {secret: {mode: OPTIONAL}}");
    clone.sh("git tag old; git add .; git commit -qm 'Add a policy'");
    told("added", "hooks/policy.yaml policy-file (suggested) a policy is added");
    clone.policy("content: {secret: {mode: MANDATORY}}");
    clone.sh("git tag loose; git commit -qam 'Ask for more'");
    told("changed", "the policy is changed");
    clone.sh("git reset -q --hard $(git commit-tree -p HEAD -p loose -m 'Merge branch loose' loose^{tree})");
    told("taken from what was", "the policy is changed");
    clone.sh("git reset -q --hard $(git commit-tree -p HEAD -p old -m 'Merge branch old' old^{tree})");
    told("without", "the policy is removed");
}

/// git itself says what it takes a text for, and the rule finds just that.
#[test]
fn gitmodules_are_read_as_git_reads_them() {
    let world = World::new(None);
    let place = &world.clone;
    for text in [
        "[submodule \"x\"] url = ext::sh -c id",
        "# \u{1}\n[submodule \"x\"]\n\turl = ext::sh # b",
        "[submodule \"x\"]\nurl = \\\next::sh",
        "[submodule \"x\"]\nurl = \"\"ext::sh",
        "[submodule \"x\"]\nURL=\"ext::sh ; b\" c ; d",
        "[submodule.x \"y\"]\n\turl = ext::sh",
        "[submodule.x]\nurl = ext::sh",
        "[SubModule \"x\"]\n\tUrl=ext::sh",
        "\u{feff}[submodule \"x\"]\nurl = ext::sh",
        "[submodule \"a\\\"b\"]\r\n\turl = e\"x\"t::sh\r\n",
        "[submodule \"x\"]\n; url = ext::sh\n",
        "[other]\n[submodule \"x\"]\n\turl\n\tpath = ext::sh\n",
        "[submodule \"x\"]\nurl = \"ext::sh",
    ] {
        place.write(".gitmodules", text);
        let said = place.try_sh("git config -f .gitmodules --get-regexp '^submodule\\..*\\.url$'");
        let runs = said.out.lines().any(|line| line.contains(" ext::"));
        let unreadable = said.all.contains("bad config");
        let found = place.try_sh("git add .gitmodules; \"$STAGEGATE\" check");
        assert_eq!(
            found.all.contains(" submodule this address runs"),
            runs,
            "{text:?}: {} {}",
            said.all,
            found.all
        );
        assert_eq!(
            found.all.contains("git cannot read this"),
            unreadable,
            "{text:?}: {} {}",
            said.all,
            found.all
        );
    }
}

/// A tag of a file leads to no commit, and hides none.
#[test]
fn a_tag_of_a_file_does_not_stand_in_the_way() {
    let world = World::new(None);
    world
        .clone
        .sh("git tag file $(echo x | git hash-object -w --stdin); git tag tree HEAD^{tree}");
    assert!(world.push("file tree").ok());
    world.clone.sh("echo x >x; git add x; git commit -qm 'X'");
    let said = world.push("main main:topic");
    assert!(said.ok(), "{}", said.all);
}

/// T36.
#[test]
fn a_branch_from_where_another_is_needs_no_look() {
    let world = World::new(None);
    let said = world.push("main:refs/heads/copy");
    assert!(
        said.ok() && said.all.contains("0 files: nothing is wrong"),
        "{}",
        said.all
    );
}

/// T37.
#[test]
fn one_bad_ref_of_three_refuses_all() {
    let world = World::new(None);
    world.clone.sh(
        "for b in a b c; do git checkout -q -b $b main; echo $b >$b; git add .; git commit -qm \"Add $b\"; done; printf x >bad; git add .; git commit -qm 'Bad'",
    );
    let said = world.push("a b c");
    assert!(!said.ok() && said.all.contains(" end-of-file "), "{}", said.all);
    assert!(world.push("a b").ok());
}

/// What else changes how a repository is seen.
#[test]
fn refs_that_change_what_others_see_are_refused() {
    let world = World::new(Some("refs: {allow: ['refs/for/*']}"));
    world
        .clone
        .sh("echo x >x; git add x; git commit -qm 'X'; git notes add -m 'a note'");
    for (arguments, accepted) in [
        ("HEAD:refs/replace/0123456789012345678901234567890123456789", false),
        ("HEAD:refs/stash", false),
        ("HEAD:refs/custom/x", false),
        ("HEAD:refs/for/main", true),
        ("refs/notes/commits", true),
    ] {
        let said = world.push(arguments);
        assert_eq!(said.ok(), accepted, "{arguments}: {}", said.all);
        assert!(accepted || said.all.contains(" ref-name "), "{arguments}: {}", said.all);
    }
    world.clone.sh("git notes add -f -m \"$KEY\"");
    let said = world.push("refs/notes/commits");
    assert!(!said.ok() && said.all.contains(" private-key "), "{}", said.all);
    // A replaced commit does not hide the real one.
    world
        .clone
        .sh("C=$(git rev-parse HEAD); echo $KEY >k; git add k; git commit -qm 'Key'; git replace HEAD $C");
    let said = world.push("HEAD:refs/heads/topic");
    assert!(!said.ok() && said.all.contains(" private-key "), "{}", said.all);
}

/// T39.
#[test]
fn kinds_of_repositories_that_are_not_supported_say_so() {
    let world = World::empty();
    world
        .server
        .sh("rm -rf * ; git init -q --bare -b main --object-format=sha256 .");
    world.hook("exec \"$STAGEGATE\" pre-receive");
    world.clone.sh("rm -rf .git; git init -q -b main --object-format=sha256 .; git remote add origin ../server.git; echo x >x; git add x; git commit -qm 'X'");
    let said = world.push("main");
    assert!(
        !said.ok()
            && said
                .all
                .contains("names its objects by SHA-256, which is not supported yet"),
        "{}",
        said.all
    );

    let world = World::new(None);
    world.clone.sh("echo x >x; git add x; git commit -qm 'X'");
    let tip = world.server.sh("git rev-parse main");
    world.server.write("shallow", format!("{tip}\n"));
    let said = world.clone.try_sh("git push origin main");
    assert!(!said.ok() && said.all.contains("shallow clone"), "{}", said.all);
}

/// T40.
#[test]
fn two_pushes_at_once_share_nothing() {
    let world = World::new(None);
    world.clone.sh("for b in a b c d; do git checkout -q -b $b main; echo $b >$b; git add .; git commit -qm \"Add $b\"; done; printf x >bad; git add .; git commit -qm 'Bad'");
    let said = world.clone.try_sh("for b in a b c d; do git push -q origin $b 2>/dev/null & eval p$b=$!; done; wait $pa; wait $pb; wait $pc; ! wait $pd");
    assert!(said.ok(), "{}", said.all);
    assert_eq!(
        world
            .server
            .sh("git for-each-ref --format='%(refname:short)' refs/heads"),
        "a\nb\nc\nmain"
    );
    world.server.sh("git fsck --strict --no-dangling");
}

/// T41: `World::push` looks at what is left after each refused push; this looks at the quarantine from within.
#[test]
fn the_hook_sees_what_is_in_quarantine_and_what_is_refused_is_gone() {
    let world = World::new(None);
    world.hook("echo \"in $GIT_QUARANTINE_PATH\"; exec \"$STAGEGATE\" pre-receive");
    let said = world.expect(
        "T41",
        "echo \"$KEY\" >k; git add k; git commit -qm 'Key'",
        Some("private-key"),
    );
    assert!(
        said.all.contains("objects/tmp_objdir") || said.all.contains("objects/incoming-"),
        "{}",
        said.all
    );
    assert!(!world.server.try_sh("git grep -q BEGIN $(git rev-list --all)").ok());
}

/// T42: a ref that is written from within the quarantine would outlive a refused push.
#[test]
fn nothing_in_the_room_writes_refs_or_objects() {
    let writes = [
        ".reference(",
        ".reference_symbolic(",
        "set_target(",
        ".commit(None",
        ".tag(",
        ".blob(",
        ".blob_writer(",
        ".treebuilder(",
        "update-ref",
        "worktree add",
        ".set_head(",
        ".branch(&",
        ".note(",
    ];
    for (path, text) in crate::tree::files(&["src/commits", "src/cli/pre_receive.rs"]) {
        // Unit tests make what they look at.
        let runs = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for word in writes {
            assert!(!runs.contains(word), "{}: {word}", path.display());
        }
    }
}

/// T43: a hook that dies is no hook that agrees.
#[test]
fn a_killed_hook_refuses() {
    let world = World::new(None);
    world.clone.sh("echo x >x; git add x; git commit -qm 'X'");
    let fifo = world.root.path().join("never");
    let pid = world.root.path().join("pid");
    world.server.sh(&format!("mkfifo '{}'", fifo.display()));
    // It waits for an end of its input that does not come.
    world.hook(&format!(
        "echo $$ >'{}'; exec \"$STAGEGATE\" pre-receive <'{}'",
        pid.display(),
        fifo.display()
    ));
    let pushing = world
        .clone
        .command("git")
        .args(["push", "origin", "main"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git runs");
    // Opening waits for the hook to open the other end.
    let held = std::fs::OpenOptions::new().write(true).open(&fifo).expect("opened");
    let id: i32 = std::fs::read_to_string(&pid)
        .expect("written")
        .trim()
        .parse()
        .expect("a number");
    let id = rustix::process::Pid::from_raw(id).expect("an id");
    rustix::process::kill_process(id, rustix::process::Signal::KILL).expect("killed");
    let ended = pushing.wait_with_output().expect("ended");
    drop(held);
    assert!(!ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_ne!(
        world.server.sh("git rev-parse main"),
        world.clone.sh("git rev-parse main")
    );
    world.server.sh("git fsck --strict --no-dangling");
}

/// A hook before ours that reads what git hands over leaves us nothing to look at.
#[test]
fn a_push_that_is_not_named_to_us_is_refused() {
    let world = World::new(None);
    world.hook("while read line; do :; done; exec \"$STAGEGATE\" pre-receive");
    world.clone.sh("echo \"$KEY\" >k; git add k; git commit -qm 'Key'");
    let said = world.push("main");
    assert!(
        !said.ok() && said.all.contains("standard input names no ref"),
        "{}",
        said.all
    );
}

/// What git hands over otherwise than it does is refused.
#[test]
fn input_that_git_does_not_write_is_an_error() {
    let world = World::new(None);
    for input in ["", "x", "0000 1111 refs/heads/a"] {
        let said = world
            .server
            .try_sh(&format!("printf '%s\\n' '{input}' | $STAGEGATE pre-receive"));
        assert_eq!(said.ok(), input == "never", "{input}: {}", said.all);
    }
    let outside = world
        .clone
        .try_sh("cd \"$HOME\" && printf '%040d %040d refs/heads/a\\n' 1 2 | $STAGEGATE pre-receive");
    assert!(
        !outside.ok() && outside.all.contains("this is no git repository"),
        "{}",
        outside.all
    );
}

//! What a push brings, as the server sees it.

use super::{HEAD, World};

/// T2 to T9: the hook of the clone is one of many ways in, and the server's verdict is the same for all.
#[test]
fn every_way_around_the_clones_hooks_ends_at_the_server() {
    let world = World::new(Some("content: {}"));
    world.clone.sh("$STAGEGATE hooks install 2>/dev/null");
    let bad = "printf 'blank \\n' >bad; git add bad";
    let elsewhere = format!(
        "git checkout -q --detach; {bad}; git commit -qnm 'Bad'; B=$(git rev-parse HEAD); git checkout -q topic"
    );
    for (case, script) in [
        ("T2 --no-verify", format!("{bad}; git commit -qnm 'Bad'")),
        ("T3 cherry-pick", format!("{elsewhere}; git cherry-pick $B >/dev/null")),
        (
            "T4 rebase",
            format!("printf 'x\\n' >x; git add x; git commit -qm 'X'; git checkout -qb other main; {bad}; git commit -qnm 'Bad'; \
                     git rebase -q topic; git checkout -q topic; git reset -q --hard other; git branch -qD other"),
        ),
        (
            "T5 revert",
            format!("{bad}; git commit -qnm 'Bad'; git rm -q bad; git commit -qm 'Remove it'; git revert --no-edit HEAD >/dev/null"),
        ),
        ("T6 am", format!("{elsewhere}; git format-patch -q -1 $B --stdout >../p; git am -q ../p")),
        (
            "T7 commit-tree",
            format!("{bad}; C=$(git commit-tree -p HEAD -m 'Bad' $(git write-tree)); git reset -q --hard $C"),
        ),
        (
            "T8 fast-import",
            "printf 'commit refs/heads/fast\\ncommitter D <d@example.org> 1700000000 +0000\\ndata 4\\nBad\\nfrom refs/heads/topic\\n\
             M 100644 inline bad\\ndata 7\\nblank \\n\\n' | git fast-import --quiet; git reset -q --hard fast; git branch -qD fast"
                .to_owned(),
        ),
        ("T9 core.hooksPath", format!("{bad}; git -c core.hooksPath=/dev/null commit -qm 'Bad'")),
    ] {
        let said = world.expect(case, &script, Some("trailing-whitespace"));
        assert!(said.all.contains("bad:1:6 trailing-whitespace blanks at the end of the line"), "{case}: {}", said.all);
    }
}

/// T12, T13, T17: a pushed policy judges what comes after it, never itself.
#[test]
fn the_policy_is_the_bases_from_before_the_push() {
    let world = World::new(Some("content: {largeFile: {limitKib: 1}}"));
    let off = "message: {subject: {mode: OPTIONAL}}, content: {exclude: ['**'], privateKey: {mode: OPTIONAL}, largeFile: {mode: OPTIONAL}}";
    let policy = format!("{HEAD}spec: {{{off}}}\n");
    let loosen = format!("cat >hooks/policy.yaml <<'X'\n{policy}X\n");
    world.expect(
        "T12",
        "git rm -q hooks/policy.yaml; echo $KEY >k; git add k; git commit -qm 'Remove the policy'",
        Some("private-key"),
    );
    world.expect(
        "T13",
        &format!("{loosen} echo $KEY >k; git add .; git commit -qm 'Loosen the policy'"),
        Some("private-key"),
    );
    world.expect(
        "T13 two commits",
        &format!("{loosen} git add .; git commit -qm 'Loosen'; head -c 3000 /dev/zero >big; git add big; git commit -qm 'Use it'"),
        Some("large-file"),
    );
    // T17: merged by whom the server lets merge, it holds for the next push.
    world.clone.sh(&format!(
        "git checkout -qf main; git reset -q --hard origin/main; {loosen} git commit -qam 'Loosen the policy'"
    ));
    let said = world.push("main");
    assert!(
        said.ok()
            && said
                .all
                .contains("hooks/policy.yaml policy-file (suggested) the policy is changed"),
        "{}",
        said.all
    );
    let used = world.expect(
        "T17",
        "head -c 3000 /dev/zero >big; git add big; git commit -qm 'Use it'",
        None,
    );
    assert!(!used.all.contains("policy-file"), "{}", used.all);
    // Who reviews it is told, before and when it arrives.
    world.clone.sh(
        "git checkout -qf main; git reset -q --hard origin/main; git rm -q hooks/policy.yaml; git commit -qm 'Remove it'",
    );
    let removed = "policy-file (suggested) the policy is removed: the built-in one holds from now on";
    // Before it is a commit, too.
    let (gone, changed) = (
        "git reset -q --soft HEAD~",
        "git reset -q --hard HEAD~; echo '# more' >>hooks/policy.yaml; git add .",
    );
    for (script, expected) in [
        (gone, removed),
        (changed, "policy-file (suggested) the policy is changed"),
    ] {
        world.clone.sh(&format!("git tag there; {script}"));
        let said = world.clone.stagegate(&["check"]);
        assert!(said.ok() && said.all.contains(expected), "{}", said.all);
        world.clone.sh("git reset -q --hard there; git tag -d there >/dev/null");
    }
    let said = world.clone.stagegate(&["check", "--range", "origin/main..HEAD"]);
    assert!(said.ok() && said.all.contains(removed), "{}", said.all);
    let said = world.push("main");
    assert!(said.ok() && said.all.contains(removed), "{}", said.all);
}

/// T14 and T15: what a push configures is not run.
#[test]
fn nothing_that_is_pushed_is_executed() {
    let world = World::new(None);
    let hook =
        "repos: [{repo: local, hooks: [{id: x, name: x, language: system, always_run: true, entry: touch PWNED}]}]";
    let script = format!(
        "mkdir sub; echo '{hook}' >.pre-commit-config.yaml; cp .pre-commit-config.yaml sub/; \
         printf '[[repos]]\\nrepo = \"local\"\\nhooks = [{{id=\"x\",name=\"x\",language=\"system\",always_run=true,entry=\"touch PWNED\"}}]\\n' >prek.toml; \
         printf '[alias]\\n' >.gitconfig; git add .; git commit -qm 'Bring hooks'"
    );
    world.expect("T14, T15", &script, None);
    let found = world.clone.sh("find .. -name PWNED");
    assert_eq!(found, "");
}

/// T10, T16: without a policy content refuses and messages suggest.
#[test]
fn a_first_push_to_an_empty_repository_is_checked_by_the_built_in_policy() {
    let world = World::empty();
    world
        .clone
        .sh("echo \"$KEY\" >k; git add k; git commit -qm 'Begin with a key.'");
    let said = world.push("main");
    assert!(!said.ok() && said.all.contains("k:1:6 private-key"), "{}", said.all);
    assert!(
        said.all
            .contains("policy: built in, since the repository has no branch yet"),
        "{}",
        said.all
    );
    world
        .clone
        .sh("echo x >k; git add k; git commit -q --amend -m 'Begin without a key.'");
    let said = world.push("main");
    assert!(said.ok(), "{}", said.all);
    assert!(
        said.all.contains("subject (suggested) the subject ends in a full stop"),
        "{}",
        said.all
    );
}

/// T18: a policy that cannot be read is an error, never a pass; and none is let in.
#[test]
fn an_unreadable_policy_refuses() {
    let world = World::new(Some("content: {}"));
    world.expect(
        "T18",
        "printf 'a: [\\n' >hooks/policy.yaml; git commit -qam 'Break the policy'",
        Some("policy-file"),
    );
    // One that came in before the hook was there.
    world.hook("exit 0");
    world.clone.sh("git checkout -qf main; printf 'spec: {\\n' >hooks/policy.yaml; git commit -qam 'Break the policy'; git push -q origin main");
    world.hook("exec \"$STAGEGATE\" pre-receive");
    world.clone.sh("printf x >x; git add x; git commit -qm 'Clean'");
    let said = world.push("main");
    assert!(
        !said.ok() && said.all.contains("the commit policy is not valid"),
        "{}",
        said.all
    );
    let mended = world.root.path().join("mended.yaml");
    std::fs::write(&mended, format!("{HEAD}spec: {{}}\n")).expect("written");
    world.hook(&format!(
        "exec \"$STAGEGATE\" pre-receive --policy '{}'",
        mended.display()
    ));
    world.clone.sh(
        "printf 'x\\n' >x; cp ../mended.yaml hooks/policy.yaml; git add .; git commit -q --amend -m 'Mend the policy'",
    );
    let said = world.push("main");
    assert!(said.ok(), "{}", said.all);
    world.hook("exec \"$STAGEGATE\" pre-receive");
    world.expect("mended", "echo x >y; git add .; git commit -qm 'Go on'", None);
}

/// T19 to T33.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_files_hold_is_seen_in_git_itself() {
    let world = World::new(None);
    let commit = "git add -A; git commit -qm 'Change'";
    let conflict = "printf '%s\\n' '<<<<<<< a' x '=======' y '>>>>>>> b' >f";
    let pointer =
        "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 12345678\\n' 7 >big.bin";
    let tree = |entry: &str| {
        format!(
            "B=$(printf 'x\\n' | git hash-object -w --stdin); T=$(printf '100644 blob %s\\t%s\\n' $B {entry} | git mktree); \
             C=$(printf '040000 tree %s\\t%s\\n' $T .GIT | git mktree); git reset -q --soft $(git commit-tree -p HEAD -m 'Change' $C)"
        )
    };
    let rows: [(&str, String, Option<&str>); 35] = [
        (
            "T19 2 MB",
            format!("head -c 2000000 /dev/zero >big; {commit}"),
            Some("large-file"),
        ),
        (
            "T20 with the attribute and no pointer",
            format!("echo '*.bin filter=lfs' >.gitattributes; head -c 2000000 /dev/zero >big.bin; {commit}"),
            Some("large-file"),
        ),
        ("T21 a pointer", format!("{pointer}; {commit}"), None),
        (
            "a pointer that is none",
            format!("{pointer}; sed -i 's/oid/Oid/' big.bin; {commit}"),
            Some("lfs-pointer"),
        ),
        (
            "T22 conflict markers",
            format!("{conflict}; {commit}"),
            Some("conflict-marker"),
        ),
        (
            "T23 a heading",
            format!("printf 'Heading\\n=======\\n' >f.rst; {commit}"),
            None,
        ),
        (
            "T24 working-tree-encoding",
            format!(
                "echo 'k working-tree-encoding=UTF-16' >.gitattributes; echo \"$KEY\" | iconv -t UTF-16 >k; {commit}"
            ),
            Some("private-key"),
        ),
        (
            "T24 UTF-16 itself",
            format!("echo \"$KEY\" | iconv -t UTF-16LE >k; {commit}"),
            Some("private-key"),
        ),
        (
            "T25 added and removed",
            format!("echo \"$KEY\" >k; {commit}; git rm -q k; git commit -qm 'Remove it'"),
            Some("private-key"),
        ),
        (
            "T26 an evil merge",
            format!(
                "git checkout -qb side; echo s >s; {commit}; git checkout -q topic; echo t >t; {commit}; git merge -q --no-commit side; \
                 echo \"$KEY\" >k; {commit}; git branch -qD side"
            ),
            Some("private-key"),
        ),
        (
            "a merge of clean parents",
            format!(
                "git checkout -qb side; echo s >s; {commit}; git checkout -q topic; echo t >t; {commit}; git merge -q -m 'Merge' side; \
                 git branch -qD side"
            ),
            None,
        ),
        (
            "T28 export-ignore",
            format!("echo 'k export-ignore' >.gitattributes; echo \"$KEY\" >k; {commit}"),
            Some("private-key"),
        ),
        (
            "a key in a message",
            "echo x >x; git add x; git commit -qm 'Change' -m \"$KEY\"".to_owned(),
            Some("private-key"),
        ),
        ("T29 CRLF", format!("printf 'a\\r\\nb\\r\\n' >f; {commit}"), None),
        (
            "T29 mixed",
            format!("printf 'a\\r\\nb\\n' >f; {commit}"),
            Some("line-endings"),
        ),
        ("T29 BOM", format!("printf '\\357\\273\\277a\\n' >f; {commit}"), None),
        (
            "T29 no final newline",
            format!("printf a >f; {commit}"),
            Some("end-of-file"),
        ),
        ("T29 an empty file", format!(": >f; {commit}"), None),
        (
            "T29 50 MB",
            format!("head -c 50000000 /dev/zero >f; {commit}"),
            Some("large-file"),
        ),
        (
            "T30 names",
            format!(
                "for n in 'a b' \"q'uote\\\"\" \"$(printf 'new\\nline')\" '$(touch PWN)' -rf \"$(printf '\\377')\"; do printf 'x\\n' >\"./$n\"; done; {commit}"
            ),
            None,
        ),
        (
            "T30 a finding in one",
            format!("printf x >\"$(printf 'new\\nline\\033[31m')\"; {commit}"),
            Some("end-of-file"),
        ),
        (
            "T31 an absolute link",
            format!("ln -s /etc/passwd l; {commit}"),
            Some("symlink"),
        ),
        (
            "T31 a link outside",
            format!("ln -s ../server.git l; {commit}"),
            Some("symlink"),
        ),
        (
            "T31 a link to what is no name",
            format!("ln -s -- \"$KEY\" l; {commit}"),
            Some("private-key"),
        ),
        (
            "T31 a broken link and one to a directory",
            format!("mkdir d; echo x >d/x; ln -s nowhere l; ln -s d e; {commit}"),
            None,
        ),
        (
            "T32 a submodule",
            "git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),sub; git commit -qm 'Change'".to_owned(),
            Some("submodule"),
        ),
        ("T33 .GIT", tree("config"), Some("path-name")),
        (
            "names that differ in case",
            format!("echo x >readme.MD; {commit}"),
            Some("case-conflict"),
        ),
        (
            "names that differ in case, of two sides",
            format!(
                "git checkout -qb side; echo s >Side; {commit}; git checkout -q topic; echo s >side; {commit}; git merge -q -m 'Merge' side; \
                 git branch -qD side"
            ),
            Some("case-conflict"),
        ),
        (
            "a link that goes on through another",
            format!("mkdir -p p/q; ln -s ../.. p/q/r; ln -s p/q/r/.git a; {commit}"),
            Some("symlink"),
        ),
        (
            "a submodule's address that git alone understands",
            format!("printf '# \\001\\n[submodule \"x\"] url = \"\"ext::sh -c id\\n' >.gitmodules; {commit}"),
            Some("submodule"),
        ),
        (
            "a policy that is a link",
            format!("mkdir -p hooks; ln -s other.yaml hooks/policy.yaml; {commit}"),
            Some("policy-file"),
        ),
        (
            "YAML",
            format!("printf 'a: [\\n' >f.yaml; {commit}"),
            Some("yaml-syntax"),
        ),
        ("JSON", format!("printf '{{\\n' >f.json; {commit}"), Some("json-syntax")),
        (
            "a script",
            format!("printf 'x\\n' >run; chmod +x run; {commit}"),
            Some("executable-shebang"),
        ),
    ];
    for (case, script, rule) in rows {
        let said = world.expect(case, &script, rule);
        assert!(!said.all.contains('\u{1b}'), "{case} drives the terminal: {}", said.all);
    }
    assert_eq!(world.clone.sh("find .. -name PWN"), "", "T30");
}

/// T27: a tag brings what no branch has.
#[test]
fn tags_of_anything_are_looked_into() {
    let world = World::new(None);
    let commit = "git checkout -q --detach; echo \"$KEY\" >k; git add k; git commit -qm 'Key'";
    for (case, script) in [
        (
            "T27 a commit under an annotated tag",
            format!("{commit}; git tag -am 'Tag' v1"),
        ),
        ("a commit under a light tag", format!("{commit}; git tag v1")),
        (
            "a tag of a tag",
            format!("{commit}; git tag -am 'Inner' inner; git tag -am 'Tag' v1 inner"),
        ),
        ("a tag of a tree", format!("{commit}; git tag v1 HEAD^{{tree}}")),
        (
            "a tag of a file",
            "git tag v1 $(echo \"$KEY\" | git hash-object -w --stdin)".to_owned(),
        ),
        ("a tag's words", "git tag -am \"$KEY\" v1".to_owned()),
    ] {
        world.clone.sh(&script);
        let said = world.push("v1");
        assert!(!said.ok() && said.all.contains(" private-key "), "{case}: {}", said.all);
        world.clone.sh("git tag -d v1 >/dev/null; git checkout -qf main");
    }
    world.clone.sh("git tag -am 'Fine' v1");
    assert!(world.push("v1").ok());
}

/// What a tag or a commit has beside its message is read by nobody, and fetched by everybody.
#[test]
fn a_secret_in_a_header_a_name_or_behind_a_zero_byte_is_refused_and_not_shown() {
    let world = World::new(None);
    let token = format!("ghp_{}", "0123456789abcdef".repeat(3));
    let change = "echo x >x; git add x";
    let tagged = |lines: &str| {
        format!(
            "T=$(printf 'object %s\\ntype commit\\ntag v1\\n{lines}' $(git rev-parse HEAD) | git hash-object -w -t tag --stdin --literally); \
             git update-ref refs/tags/v1 $T"
        )
    };
    for (case, script, reference, place) in [
        (
            "an author",
            format!("{change}; git commit -qm 'Change' --author='{token} <t@example.org>'"),
            "HEAD:refs/heads/topic",
            "in the header: a GitHub token (begins with ghp_0123)",
        ),
        (
            "a tagger",
            tagged(&format!("tagger {token} <t@example.org> 1700000000 +0000\\n\\nTag\\n")),
            "v1",
            "in the tag: a GitHub token",
        ),
        (
            "a tag's words behind a zero byte",
            tagged(&format!(
                "tagger T <t@example.org> 1700000000 +0000\\n\\nTag\\n\\000{token}\\n"
            )),
            "v1",
            "in the tag: a GitHub token",
        ),
        (
            "a file",
            format!("mkdir d; printf 'x' >d/{token}; git add .; git commit -qm 'Change'"),
            "HEAD:refs/heads/topic",
            "d/ghp_0123… secret its name has a GitHub token (begins with ghp_0123)",
        ),
        (
            "a file beside one that differs in case",
            format!(
                "printf 'x\\n' >{token}; printf 'x\\n' >{token}.A; printf 'x\\n' >{token}.a; git add .; git commit -qm 'Change'"
            ),
            "HEAD:refs/heads/topic",
            "differs from `ghp_0123….A` in case only",
        ),
        (
            "a branch",
            format!("{change}; git commit -qm 'Change'"),
            &format!("HEAD:refs/heads/{token}"),
            "refs/heads/ghp_0123… secret its name has a GitHub token",
        ),
        (
            "a tag",
            format!("git tag {token}"),
            &token,
            "refs/tags/ghp_0123… secret its name has a GitHub token",
        ),
        (
            "what is no branch",
            String::new(),
            &format!("HEAD:refs/x/{token}"),
            "refs/x/ghp_0123… ref-name is no branch",
        ),
    ] {
        world.clone.sh(&format!("git checkout -qf --detach main; {script}"));
        let said = world.push(reference);
        // git itself names the ref that it could not push.
        let ours: String = said.all.lines().filter(|l| l.starts_with("remote:")).collect();
        assert!(!said.ok() && ours.contains(place), "{case}: {}", said.all);
        assert!(!ours.contains(&token), "{case}: {}", said.all);
        world
            .clone
            .sh("git tag | xargs -r git tag -d >/dev/null; git clean -qfd");
    }
    // One that is there may go.
    world.server.sh(&format!("git update-ref refs/heads/{token} main"));
    assert!(world.push(&format!(":refs/heads/{token}")).ok());
}

/// T38 and T29: what is over the bounds is refused as a whole, and the way on is said.
#[test]
fn a_push_over_the_bounds_is_refused_as_a_whole() {
    let world = World::new(Some(
        "bounds: {commits: 50, files: 40, mib: 1}, content: {largeFile: {mode: OPTIONAL}}",
    ));
    let import = "{ i=0; while [ $i -lt 10000 ]; do printf 'commit refs/heads/many\\ncommitter D <d@example.org> 17000%05d +0000\\ndata 2\\nx\\n\\n' $i; \
                  i=$((i+1)); done; } | git fast-import --quiet; git reset -q --hard many; git branch -qD many";
    let said = world.expect("T38", import, Some("bounds"));
    assert!(
        said.all.contains("more than 50 commits are new; push it in parts"),
        "{}",
        said.all
    );
    let files = "for i in $(seq 41); do echo $i >f$i; done; git add .; git commit -qm 'Change'";
    world.expect("many files", files, Some("bounds"));
    world.expect(
        "many bytes",
        "head -c 1100000 /dev/zero >big; git add .; git commit -qm 'Change'",
        Some("bounds"),
    );
}

/// T79, and 20 findings at most.
#[test]
fn all_that_is_bad_is_listed_up_to_a_bound() {
    let world = World::new(None);
    let script = "for i in $(seq 10); do case $i in 3|7) printf x >f$i;; *) echo $i >f$i;; esac; git add .; git commit -qm \"Change $i\"; done";
    let said = world.expect("T79", script, Some("end-of-file"));
    let bad: Vec<String> = [7, 3]
        .iter()
        .map(|n| world.clone.sh(&format!("git rev-parse --short=10 topic~{n}")))
        .collect();
    assert!(
        bad.iter().all(|name| said.all.contains(&format!("{name} f"))),
        "{bad:?}: {}",
        said.all
    );
    assert!(
        said.all.contains("10 commits (8 without a finding that refuses)"),
        "{}",
        said.all
    );
    let many = "for i in $(seq 35); do printf x >f$i; done; git add .; git commit -qm 'Change'";
    let said = world.expect("many findings", many, Some("end-of-file"));
    assert_eq!(said.all.matches(" end-of-file ").count(), 20);
    assert!(said.all.contains("and 15 more"), "{}", said.all);
    // What mends a checkout mends no commit.
    assert!(
        said.all.contains("amend or rebase the commit that has it") && !said.all.contains("check --fix"),
        "{}",
        said.all
    );
}

/// `since:` spares what was there before anybody checked, and nothing after it.
#[test]
fn history_before_since_is_spared() {
    let world = World::empty();
    world.hook("exit 0");
    world.clone.sh("printf 'old ' >old; git add .; git commit -qm 'Old.'");
    let since = world.clone.sh("git rev-parse HEAD");
    let spec = format!("since: {since}, message: {{subject: {{mode: MANDATORY}}}}");
    world.clone.policy(&spec);
    world
        .clone
        .sh("git add .; git commit -qm 'Add the policy'; git push -q origin main; git remote set-head origin main");
    world.hook("exec \"$STAGEGATE\" pre-receive");
    world.expect("untouched", "echo x >x; git add .; git commit -qm 'New'", None);
    world.expect(
        "touched",
        "printf y >>old; git commit -qam 'Touch it'",
        Some("end-of-file"),
    );
    world.expect(
        "a message",
        "echo x >x; git add .; git commit -qm 'New.'",
        Some("subject"),
    );
    // The whole history goes to a server that knows none of it, by its policy.
    let policy = world.root.path().join("policy.yaml");
    std::fs::copy(world.clone.dir.join("hooks/policy.yaml"), &policy).expect("copied");
    let other = World::empty();
    other.hook(&format!(
        "exec \"$STAGEGATE\" pre-receive --policy '{}'",
        policy.display()
    ));
    let target = other.server.dir.display();
    let said = world
        .clone
        .try_sh(&format!("git checkout -qf main; git push '{target}' main"));
    assert!(said.ok(), "{}", said.all);
}

/// The server's hook runs for who comes over ssh as it does for a path, and says the same.
#[test]
fn a_push_over_ssh_meets_the_same_verdict_as_one_over_a_path() {
    let world = World::new(None);
    // What comes in over ssh has an environment of its own.
    world.hook(&format!("exec '{}' pre-receive", super::PROGRAM));
    let place = world.root.path().join("sshd");
    std::fs::create_dir(&place).expect("made");
    let sshd = crate::sshd::Sshd::start(&place);
    let url = format!(
        "ssh://{}{}",
        crate::sshd::Sshd::HOST,
        world.server.dir.canonicalize().expect("there").display()
    );
    let ssh = format!("GIT_SSH_COMMAND='ssh -F {}'", sshd.config().display());
    let push = |to: &str, what: &str| {
        let said = world.clone.try_sh(&format!("{ssh} git push {to} {what}"));
        let remote = said.all.lines().filter_map(|line| line.strip_prefix("remote: "));
        (
            said.code,
            remote.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>(),
        )
    };
    world
        .clone
        .sh("git checkout -qb topic; printf '%s\\n' \"$KEY\" >k; git add k; git commit -qm 'Add k'");
    let by_path = push("origin", "topic");
    let by_ssh = push(&url, "topic");
    assert_eq!(by_path.0, Some(1), "{by_path:?}");
    assert!(
        by_path.1.iter().any(|line| line.contains(" k:1:6 private-key ")),
        "{by_path:?}"
    );
    assert_eq!(by_ssh, by_path);
    assert_eq!(world.server.sh("git for-each-ref refs/heads/topic"), "");
    // What is right comes in, and is there.
    world
        .clone
        .sh("git reset -q --hard HEAD~; echo good >f; git add f; git commit -qm 'Add f'");
    let good = push(&url, "topic");
    assert_eq!(good.0, Some(0), "{good:?}");
    assert_eq!(
        world.server.sh("git rev-parse topic"),
        world.clone.sh("git rev-parse HEAD")
    );
}

/// Objects that cost next to nothing to push, and a server more than it has to read.
#[test]
fn objects_that_are_made_to_be_endless_are_refused_by_their_bounds() {
    let world = World::new(None);
    // A directory of ten that are the same, seven deep: ten million files in eight objects.
    let bomb = "t=$(printf '100644 blob %s\tf\n' $b | git mktree)\n\
                for i in 1 2 3 4 5 6 7; do\n\
                t=$(for j in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\td%s\n' $t $j; done | git mktree); done";
    // A directory within a directory, and so on.
    let chain = |levels: usize| {
        format!(
            "export GIT_INDEX_FILE=\"$PWD/../scratch\"\n\
             printf '100644 %s\t%sf\n' $b \"$(printf 'd/%.0s' $(seq {levels}))\" | git update-index --index-info\n\
             t=$(git write-tree); rm \"$GIT_INDEX_FILE\"; unset GIT_INDEX_FILE\n"
        )
    };
    // The same, many times side by side: some hundred bytes each in a push, some MB of names in memory.
    let side_by_side = "t=$(for i in $(seq 600); do printf '040000 tree %s\te%s\n' $t $i; done | git mktree)";
    let long =
        "{ echo Much; echo; head -c 20000000 /dev/zero | tr '\\0' m; } >../message; t=$(git rev-parse main^{tree})";
    // Ten directories within one another of names as long as may be, and at their end 90,000 files.
    let names = "t=$(for i in $(seq 300); do printf '100644 blob %s\t%s\n' $b $i; done | git mktree)\n\
                 t=$(for i in $(seq 300); do printf '040000 tree %s\t%s\n' $t $i; done | git mktree)\n\
                 n=$(printf 'n%.0s' $(seq 250))\n\
                 for i in $(seq 10); do t=$(printf '040000 tree %s\t%s\n' $t $n | git mktree); done";
    // One file, of a name of 70 MB.
    let tree = "t=$({ printf '100644 '; head -c 70000000 /dev/zero | tr '\\0' n; printf '\\0';\n\
                git cat-file tree main^{tree} | tail -c 20; } | git hash-object -w -t tree --literally --stdin)";
    let parents = "t=$(git rev-parse main^{tree})\n\
                   p=$(for i in $(seq 101); do git commit-tree -p main -m \"Add $i\" $t; done)";
    for (case, script, words) in [
        ("many parents", parents.to_owned(), "has more than 100 parents"),
        (
            "many names",
            names.to_owned(),
            "names of files of more than 128 MiB together",
        ),
        ("a large tree", tree.to_owned(), "is a tree of more than 64 MiB"),
        (
            "a long message",
            long.to_owned(),
            "is a commit or a tag of more than 16 MiB",
        ),
        ("a bomb", bomb.to_owned(), "has more than 1000000 entries"),
        ("a long name", chain(2_100), "longer than 4096 bytes"),
        (
            "long names",
            format!("{}{side_by_side}", chain(1_500)),
            "the names of the new directories have more than 32 MiB",
        ),
    ] {
        let commit = world.clone.sh(&format!(
            "echo 'Add much' >../message; b=$(git rev-parse main:README.md); p=main; {script}\n\
             git commit-tree $(printf ' -p %s' $p) -F ../message $t"
        ));
        let said = world.push(&format!("{commit}:refs/heads/topic"));
        assert!(
            !said.ok() && said.all.contains("bounds ") && said.all.contains(words),
            "{case}: {}",
            said.all
        );
    }
}

/// What costs who reads it once for each of its parts is read in time, however many parts it has.
#[test]
fn what_has_many_parts_is_read_once() {
    let world = World::new(None);
    // A line each of what looks like a token: each has a place, and the first ten are told.
    let tokens = "HEX=0123456789ABCDEF; { echo Much; echo; for i in $(seq 100000); do echo AKIA${HEX}; done; } >../message; t=$(git rev-parse main^{tree})";
    // A hundred lines of history, brought together with a change: each may be the past of another.
    let sides = "t=$(git rev-parse main^{tree}); c=main; for i in $(seq 300); do c=$(git commit-tree -p $c -m \"Add $i\" $t); done\n\
                 p=$(for i in $(seq 100); do git commit-tree -p $c -m \"Add side $i\" $t; done)\n\
                 t=$(printf '100644 blob %s\tf\n' $b | git mktree)";
    for (case, script, pushed, words) in [
        ("many tokens", tokens, Some(1), "in the message: an AWS access key"),
        ("many sides", sides, Some(0), "nothing is wrong"),
    ] {
        let commit = world.clone.sh(&format!(
            "echo 'Add much' >../message; b=$(git rev-parse main:README.md); p=main; {script}\n\
             git commit-tree $(printf ' -p %s' $p) -F ../message $t"
        ));
        let said = world.push(&format!("{commit}:refs/heads/topic"));
        assert!(said.code == pushed && said.all.contains(words), "{case}: {}", said.all);
    }
}

/// Modes that no git of today writes, and old repositories and hand-made trees have.
#[test]
fn modes_that_git_does_not_write_are_a_finding() {
    let world = World::new(None);
    let blob = world.clone.sh("git rev-parse main:README.md");
    let id: Vec<u8> = (0..20)
        .map(|at| u8::from_str_radix(&blob[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect();
    for mode in ["100600", "100777", "110644", "7"] {
        let tree = [format!("{mode} f\0").as_bytes(), id.as_slice()].concat();
        world.clone.write("../tree", tree);
        let commit = world
            .clone
            .sh("git commit-tree -p main -m 'Add f' $(git hash-object -w -t tree --literally ../tree)");
        let said = world.push(&format!("{commit}:refs/heads/topic"));
        assert!(!said.ok() && said.all.contains(" file-mode "), "{mode}: {}", said.all);
    }
}

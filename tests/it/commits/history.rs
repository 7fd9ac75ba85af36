//! A repository with a past, in the style of that of `PanDA`: fifteen years of commits by people and by hooks that have changed since,
//! which nobody is going to write anew. `since:` spares them, and what comes after is held to the rules.

use super::World;

/// What a history of many hands looks like: imported files with DOS line ends, blanks at line ends, programs without a
/// `#!`, several subjects of one word, merges that name only branches, tags, and hooks that came late.
const PAST: &str = r#"
mkdir -p server/taskbuffer templates
printf 'import sys\r\nprint(sys.argv)  \r\n' >server/taskbuffer/proxy.py
printf 'def add(a, b):\n    return a + b   \n\n\n' >server/add.py
chmod +x server/add.py
printf 'mixed\r\nends\n' >templates/server.cfg
git add .; git commit -qm 'import from svn'
for i in 1 2 3 4 5; do printf 'x = %s \n' $i >>server/add.py; git commit -qam 'fix'; done
git checkout -qb jedi; printf 'y = 1\t\n' >server/jedi.py; git add .; git commit -qm 'added a module, still to be tested.'
git checkout -q main; printf 'no end' >VERSION; git add .; git commit -qm '0.1.2'
git merge -q --no-ff -m "Merge branch 'jedi'" jedi
printf 'repos:\n- repo: local\n  hooks:\n  - {id: flynt, name: flynt, language: system, entry: "true"}\n' >.pre-commit-config.yaml
git add .; git commit -qm 'pre-commit with a formatter'
"#;

fn past() -> World {
    let world = World::empty();
    // Nothing looked at it then.
    let hook = world.server.dir.join("hooks/pre-receive");
    std::fs::rename(&hook, hook.with_extension("later")).expect("put aside");
    world.clone.sh(PAST);
    assert!(world.push("main").ok());
    std::fs::rename(hook.with_extension("later"), hook).expect("put back");
    world.clone.sh("git remote set-head origin main");
    world
}

#[test]
fn a_past_is_spared_by_since_and_what_follows_is_not() {
    let world = past();
    let clone = &world.clone;
    // Asked without mercy, the past does not pass.
    let said = clone.stagegate(&["check", "--range", "HEAD"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    for rule in [
        "trailing-whitespace",
        "end-of-file",
        "line-endings",
        "executable-shebang",
    ] {
        assert!(said.all.contains(&format!(" {rule} ")), "{rule}: {}", said.all);
    }
    let since = clone.sh("git rev-parse HEAD");
    let spec = format!("since: {since}, message: {{issueKeys: {{mode: MANDATORY, projects: [ATLASPANDA]}}}}");
    clone.policy(&spec);
    clone.sh("git add .; git commit -qm 'ATLASPANDA-1: Add a commit policy'");
    assert!(world.push("main").ok());
    let said = clone.stagegate(&["check", "--range", "HEAD"]);
    assert!(said.ok() && said.all.contains("1 commit "), "{}", said.all);
    // A branch from long ago, with and without something new.
    assert!(world.push("main~4:refs/heads/from-long-ago").ok());
    world.expect(
        "a good one on an old branch",
        "git reset -q --hard main~4; echo 'z = 1' >server/new.py; git add .; git commit -qm 'ATLASPANDA-2: Add z'",
        None,
    );
    for (case, script, rule) in [
        (
            "a good one",
            "echo 'z = 1' >server/new.py; git add .; git commit -qm 'ATLASPANDA-2: Add z'",
            None,
        ),
        (
            "as it was always done",
            "echo 'z = 1' >server/new.py; git add .; git commit --no-verify -qm 'fix'",
            Some("issue-key"),
        ),
        (
            "blanks in a new file",
            "echo 'z = 1 ' >server/new.py; git add .; git commit --no-verify -qm 'ATLASPANDA-3: Add z'",
            Some("trailing-whitespace"),
        ),
        (
            "blanks in an old branch",
            "git reset -q --hard main~4; echo 'z = 1 ' >server/new.py; git add .; git commit --no-verify -qm 'ATLASPANDA-3: Add z'",
            Some("trailing-whitespace"),
        ),
        (
            "an old file that is touched is looked at whole, as pre-commit does",
            "echo 'z = 1' >>server/add.py; git commit --no-verify -qam 'ATLASPANDA-4: Add z'",
            Some("trailing-whitespace"),
        ),
        (
            "an old file that is renamed is a new one",
            "git mv templates/server.cfg templates/other.cfg; git commit --no-verify -qm 'ATLASPANDA-5: Rename it'",
            Some("line-endings"),
        ),
        (
            "an old file that is gone",
            "git rm -q templates/server.cfg; git commit -qm 'ATLASPANDA-6: Remove it'",
            None,
        ),
    ] {
        world.expect(case, script, rule);
    }
}

/// A mistyped name, or one of another repository.
#[test]
fn a_since_that_is_not_here_spares_nothing_and_is_said() {
    let world = past();
    let clone = &world.clone;
    let nowhere = "0123456789abcdef0123456789abcdef01234567";
    clone.policy(&format!("since: {nowhere}"));
    clone.sh("git add .; git commit -qm 'Add a commit policy'");
    assert!(world.push("main").ok());
    let suggested = format!("policy-file (suggested) `since: {nowhere}` names no commit here, so nothing is spared");
    for words in [&["check", "--range", "HEAD"][..], &["check"]] {
        let said = clone.stagegate(words);
        assert!(said.all.contains(&suggested), "{words:?}: {}", said.all);
    }
    assert!(clone.stagegate(&["check"]).ok());
    let said = world.push("main~1:refs/heads/from-before");
    assert!(said.ok() && said.all.contains(&suggested), "{}", said.all);
    world.expect(
        "what `since` would not have spared either",
        "echo 'z = 1 ' >server/new.py; git add .; git commit --no-verify -qm 'Add z'",
        Some("trailing-whitespace"),
    );
}

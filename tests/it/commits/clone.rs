//! The developer's side: `stagegate check`, and git's hooks of a clone.

use serde_json::Value;

use super::{HEAD, World};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// T1.
#[test]
fn a_directory_that_is_a_link_by_now_leads_no_mending_out_of_the_checkout() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh(
        "mkdir d ../elsewhere; printf 'a \\n' >d/f; git add d; cp d/f ../elsewhere/f; rm -r d; ln -s ../elsewhere d",
    );
    let said = clone.stagegate(&["check", "--fix"]);
    assert!(said.all.contains("d/f:1:2 trailing-whitespace"), "{}", said.all);
    assert_eq!(clone.sh("od -An -c ../elsewhere/f | tr -d ' '"), "a\\n", "{}", said.all);
}

/// Nobody has asked the hook to mend.
#[test]
fn what_is_staged_is_checked_and_the_checkout_is_mended_when_that_is_asked_for() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh("$STAGEGATE hooks install 2>/dev/null");
    clone.sh("printf 'a \\nb' >f; git add f");
    let said = clone.try_sh("git commit -m 'Add f'");
    assert!(
        !said.ok() && said.all.contains("f:1:2 trailing-whitespace") && said.all.contains("f:2 end-of-file"),
        "{}",
        said.all
    );
    assert!(said.all.contains("or `stagegate check --fix`"), "{}", said.all);
    assert_eq!(clone.sh("od -An -c f | tr -d ' '"), "a\\nb", "{}", said.all);
    let said = clone.stagegate(&["check", "--fix"]);
    assert!(said.all.contains("mended 1 file in the checkout"), "{}", said.all);
    assert_eq!(clone.sh("cat f"), "a\nb");
    assert_eq!(
        clone.sh("git show :f | od -An -c | tr -d ' '"),
        "a\\nb",
        "the index stays as it was staged"
    );
    clone.sh("git add f; git commit -qm 'Add f'");
    assert!(world.push("main").ok());
}

#[test]
fn what_the_checkout_has_mended_already_is_to_be_staged() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh("mkdir d; printf 'a \\nb' >'d/f g'; git add d");
    for (case, script, said_of_it, not_said) in [
        ("as it is", ":", "or `stagegate check --fix`", "git add"),
        (
            "mended",
            "$STAGEGATE check --fix 2>/dev/null || :",
            "the checkout has it mended: `git add 'd/f g'` takes that in",
            "check --fix",
        ),
        (
            "mended, and changed",
            "echo c >>'d/f g'",
            "the checkout has it mended, with other changes: `git add -p 'd/f g'` takes in what you choose",
            "check --fix",
        ),
        (
            "one of two",
            "printf 'a\\nb' >'d/f g'",
            "f g:2 end-of-file does not end in a line ending; let it end in one line ending, or `stagegate check --fix`",
            "git add 'd/f g'",
        ),
        ("gone", "rm 'd/f g'", "or `stagegate check --fix`", "git add"),
    ] {
        clone.sh(script);
        let said = clone.stagegate(&["check"]);
        assert_eq!(said.code, Some(6), "{case}: {}", said.all);
        assert!(
            said.out.contains(said_of_it) && !said.out.contains(not_said),
            "{case}: {}",
            said.all
        );
    }
    // What is said to be typed works where it is said.
    clone.sh("git checkout -q d; cd d; $STAGEGATE check --fix >../../said 2>&1 || :");
    let add = clone.sh("sed -n 's/.*`\\(git add .*\\)`.*/\\1/p' ../said | head -n 1");
    clone.sh(&format!("cd d; {add}; $STAGEGATE check"));
}

/// What is in the checkout and not staged is neither judged nor lost.
#[test]
fn partly_staged_files_are_judged_by_what_is_staged() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh("printf 'good\\n' >f; git add f; printf 'good\\nbad \\n' >f");
    let said = clone.stagegate(&["check"]);
    assert!(said.ok(), "{}", said.all);
    clone.sh("printf 'bad \\n' >f; git add f; printf 'other \\nwork\\n' >f");
    let said = clone.stagegate(&["check", "--fix"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    assert_eq!(clone.sh("cat f"), "other\nwork", "mended, with all that was there");
    assert_eq!(clone.sh("git show :f"), "bad", "the staged blank is git's to keep");
    assert_eq!(clone.sh("git stash list; find . -name '*stagegate-*'"), "");
    // A link is not followed, and a mode stays.
    clone.sh("git rm -qf --cached f; printf '#!/bin/sh \\n' >run; chmod +x run; printf 'x ' >../outside; ln -s ../outside l; git add run l");
    let said = clone.stagegate(&["check", "--fix"]);
    assert!(said.all.contains("l symlink links to `../outside`"), "{}", said.all);
    assert_eq!(clone.sh("cat ../outside; test -x run && head -c 9 run"), "x #!/bin/sh");
}

#[test]
fn programs_get_a_resource_with_times_or_sarif() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh("printf 'a \\n' >f; printf '{' >g.json; git add .");
    let said = clone.stagegate(&["check", "-o", "json"]);
    assert_eq!(said.code, Some(6));
    let report = json(&said.out);
    assert_eq!(report["kind"], "CheckReport");
    assert_eq!(report["status"]["verdict"], "Refused");
    assert_eq!(report["status"]["findings"][0]["path"], "f");
    assert_eq!(report["status"]["findings"][0]["line"], 1);
    assert_eq!(report["status"]["findings"][0]["rule"], "trailing-whitespace");
    let rules = report["status"]["rules"].as_array().expect("a list");
    assert!(
        rules.iter().any(|r| r["rule"] == "private-key" && r["micros"].is_u64()),
        "{rules:?}"
    );
    let said = clone.stagegate(&["check", "-o", "sarif"]);
    assert_eq!(said.code, Some(6));
    let sarif = json(&said.out);
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "trailing-whitespace");
    assert_eq!(clone.stagegate(&["status", "-o", "sarif"]).code, Some(2));
    clone.sh("git reset -q");
    let said = clone.stagegate(&["check", "-o", "json"]);
    assert_eq!(
        (said.code, json(&said.out)["status"]["verdict"].as_str()),
        (Some(0), Some("Passed"))
    );
}

#[test]
fn ranges_and_everything_are_checked_like_a_push() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh("echo \"$KEY\" >k; git add k; git commit -qm 'Key'; git rm -q k; git commit -qm 'Remove it'; printf x >f; git add f; git commit -qm 'F'");
    let said = clone.stagegate(&["check", "--range", "origin/main..HEAD"]);
    assert_eq!(said.code, Some(6));
    assert!(
        said.out.contains(" k:1:6 private-key ") && said.out.contains(" f:1 end-of-file "),
        "{}",
        said.all
    );
    assert!(
        said.out.contains("or where others have that already, in a new commit"),
        "{}",
        said.all
    );
    assert!(
        said.all.contains("3 commits (1 without a finding that refuses)"),
        "{}",
        said.all
    );
    let said = clone.stagegate(&["check", "--all"]);
    assert_eq!(said.out.lines().count(), 1, "{}", said.all);
    assert!(said.out.starts_with("f:1 end-of-file"), "{}", said.all);
    for bad in ["nothing", "a..b", "origin/main...HEAD"] {
        assert_eq!(clone.stagegate(&["check", "--range", bad]).code, Some(2), "{bad}");
    }
    // A repository without a commit has something staged, too.
    let empty = World::empty();
    empty.clone.sh("printf x >f; git add f");
    assert_eq!(empty.clone.stagegate(&["check"]).code, Some(6));
    for range in ["HEAD", "HEAD~1..HEAD"] {
        let said = empty.clone.stagegate(&["check", "--range", range]);
        assert_eq!(said.code, Some(2), "{}", said.all);
        assert!(
            said.all.contains(&format!(
                "`{range}` names no commit: the branch that is checked out has none yet"
            )),
            "{}",
            said.all
        );
    }
}

/// The server's policy, as far as it is known here; the checkout's own only where it is not.
#[test]
fn the_policy_is_the_tracked_base_s_else_the_checkout_s_with_a_note() {
    let world = World::new(Some("content: {largeFile: {limitKib: 1}}"));
    let clone = &world.clone;
    let loose = format!("{HEAD}spec: {{content: {{largeFile: {{mode: OPTIONAL}}}}}}\n");
    clone.write("hooks/policy.yaml", &loose);
    clone.sh("head -c 3000 /dev/zero >big; git add .");
    let said = clone.stagegate(&["check"]);
    assert!(
        said.all.contains("big large-file 3 KiB, and 1 is the most"),
        "{}",
        said.all
    );
    assert!(
        said.all
            .contains("(policy: hooks/policy.yaml of refs/remotes/origin/main at "),
        "{}",
        said.all
    );
    clone.sh("git remote remove origin");
    let said = clone.stagegate(&["check"]);
    assert!(
        said.ok() && said.all.contains("the policy is the checkout's own"),
        "{}",
        said.all
    );
    clone.write("hooks/policy.yaml", "spec: [\n");
    let said = clone.stagegate(&["check"]);
    assert_eq!(said.code, Some(2), "{}", said.all);
    assert!(said.all.contains("hooks/policy.yaml:1:"), "{}", said.all);
    clone.sh("git rm -qf --cached hooks/policy.yaml; rm -r hooks");
    let said = clone.stagegate(&["check"]);
    assert!(said.all.contains("policy: built in"), "{}", said.all);
}

/// T77: what the hook `commit-msg` is handed has comments and a diff below the scissors.
#[test]
fn a_message_is_checked_before_it_is_a_commit() {
    let spec = "message: {issueKeys: {mode: MANDATORY, projects: [ABC]}}";
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh("git remote remove origin");
    clone.policy(spec);
    clone.sh("$STAGEGATE hooks install 2>/dev/null; git add .");
    let said = clone.try_sh("git commit -m 'Add it'");
    assert!(
        !said.ok()
            && said
                .all
                .contains("message:1 issue-key no issue key in the subject or a trailer")
            && said.all.contains("the message: 1 refused (policy: ")
            && !said.all.contains("0 files"),
        "{}",
        said.all
    );
    // pre-commit and commit-msg are two hooks of one commit.
    assert_eq!(
        said.all.matches("the policy is the checkout's own").count(),
        1,
        "{}",
        said.all
    );
    clone.sh("git commit -qm 'ABC-1: Add it'");
    clone.sh("git checkout -qb side; echo s >s; git add s; git commit -qm 'ABC-2: s'; git checkout -q main; echo t >t; git add t; git commit -qm 'ABC-2: t'");
    clone.sh("git merge -q --no-edit side");
    clone.sh("git revert --no-edit HEAD~1 >/dev/null");
    clone.write("m", "# Please enter\n\n# the message\n");
    assert!(
        clone
            .stagegate(&["check", "--message", "m"])
            .all
            .contains("there is no subject")
    );
    clone.write("m", "ABC-1 x\n# ------------------------ >8 ------------------------\ndiff --git a/x b/x of more than one hundred characters, which is no line of the message at all, ever\n");
    let said = clone.stagegate(&["check", "--message", "m"]);
    assert!(said.ok() && said.out.is_empty(), "{}", said.all);
}

#[test]
fn pre_push_stops_what_the_server_would_refuse() {
    let world = World::new(Some("message: {fixups: {mode: MANDATORY}}"));
    world.hook("exit 0");
    world.clone.sh("$STAGEGATE hooks install 2>/dev/null");
    world.clone.sh("printf x >f; git add f; git commit -qnm 'fixup! Begin'");
    let said = world.push("main");
    assert!(!said.ok(), "{}", said.all);
    assert!(
        said.all.contains(" f:1 end-of-file ") && said.all.contains(" fixup "),
        "{}",
        said.all
    );
    world.clone.sh("echo x >f; git add f; git commit -q --amend -m 'Add f'");
    assert!(world.push("main").ok());
    assert!(world.push(":refs/heads/none main:refs/heads/copy").ok() || world.push("main:refs/heads/copy").ok());
}

/// As the server: git writes the messages of notes itself.
#[test]
fn pre_push_asks_notes_for_no_issue_key() {
    let world = World::new(Some("message: {issueKeys: {mode: MANDATORY, projects: [ABC]}}"));
    let clone = &world.clone;
    clone.sh("$STAGEGATE hooks install 2>/dev/null; git notes --ref=stagegate add -m 'a note' HEAD");
    let said = world.push("refs/notes/stagegate");
    assert!(said.ok(), "{}", said.all);
    world.hook("exit 0");
    clone.sh("git notes --ref=stagegate add -f -m \"$KEY\" HEAD");
    let said = world.push("refs/notes/stagegate");
    assert!(!said.ok() && said.all.contains(" private-key "), "{}", said.all);
}

#[test]
fn hooks_that_are_there_are_kept_and_run_first() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.write(
        ".git/hooks/pre-commit",
        "#!/bin/sh\necho mine \"$PWD\" >>../said\ntest ! -e refuse\n",
    );
    clone.write(".git/hooks/pre-push", "#!/bin/sh\ncat >>../said\n");
    clone.sh("chmod +x .git/hooks/pre-commit .git/hooks/pre-push");
    let said = clone.stagegate(&["hooks", "status"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    assert!(
        said.out.contains("another's") && said.out.contains("missing"),
        "{}",
        said.all
    );
    let said = clone.stagegate(&["check"]);
    assert!(
        said.all
            .contains("this repository lacks the hooks pre-commit, commit-msg, pre-push"),
        "{}",
        said.all
    );
    for _ in 0..2 {
        let said = clone.stagegate(&["hooks", "install"]);
        assert!(said.ok(), "{}", said.all);
    }
    assert!(clone.stagegate(&["hooks", "status"]).ok());
    clone.sh("echo x >f; git add f; git commit -qm 'Add f'; git push -q origin main");
    let said = clone.sh("cat ../said");
    assert!(said.contains("mine ") && said.contains("refs/heads/main"), "{said}");
    clone.sh("touch refuse; echo y >f; git add f");
    let said = clone.try_sh("git commit -qm 'Change f'");
    assert!(
        !said.ok() && said.all.contains("pre-commit.before-stagegate says no"),
        "{}",
        said.all
    );
    assert!(clone.stagegate(&["hooks", "uninstall"]).ok());
    assert!(clone.sh("cat .git/hooks/pre-commit").contains("echo mine"));
    assert_eq!(clone.sh("ls .git/hooks | grep -v sample"), "pre-commit\npre-push");
}

#[test]
fn hooks_go_where_git_looks_and_nowhere_that_others_share() {
    let world = World::new(None);
    let clone = &world.clone;
    // A linked worktree has the hooks of its repository.
    clone.sh("git worktree add -q ../linked -b linked");
    let linked = super::Place::at(world.root.path().join("linked"), &clone.home);
    linked.sh("$STAGEGATE hooks install 2>/dev/null");
    assert!(clone.stagegate(&["hooks", "status"]).ok());
    let said = linked.try_sh("printf x >f; git add f; git commit -qm 'Add f'");
    assert!(!said.ok() && said.all.contains("f:1 end-of-file"), "{}", said.all);
    // A directory of its own.
    clone.sh("mkdir -p tools/git; git config core.hooksPath tools/git; mkdir -p deep; cd deep; $STAGEGATE hooks install 2>/dev/null; test -x ../tools/git/pre-commit");
    // One that others have, too.
    clone.sh("git config --unset core.hooksPath; git config --global core.hooksPath \"$HOME/hooks\"");
    let said = clone.stagegate(&["hooks", "install"]);
    assert!(
        !said.ok() && said.all.contains("core.hooksPath says so (global setting)"),
        "{}",
        said.all
    );
    assert!(!clone.home.join("hooks").exists());
    // What is advised works.
    for words in [&["hooks", "status"][..], &["check"]] {
        let said = clone.stagegate(words);
        assert!(
            said.all.contains(" hooks install --shared` puts ours there"),
            "{}",
            said.all
        );
        assert!(!said.all.contains(" hooks install` puts them"), "{}", said.all);
    }
    let own = clone.sh("$STAGEGATE hooks status 2>&1 | sed -n 's/.*`\\(git config [^`]*\\)`.*/\\1/p'");
    linked.sh(&format!(
        "{own}; $STAGEGATE hooks install 2>/dev/null; $STAGEGATE hooks status; $STAGEGATE hooks uninstall"
    ));
    clone.sh("test ! -e .git/hooks/pre-commit; git config --local --unset core.hooksPath");
    assert!(clone.stagegate(&["hooks", "install", "--shared"]).ok());
    assert!(clone.home.join("hooks/pre-commit").exists());
    let nowhere = super::Place::at(world.root.path().join("nowhere"), &clone.home);
    for words in [
        &["check"][..],
        &["hooks", "status"],
        &["hooks", "install"],
        &["hooks", "uninstall"],
    ] {
        let said = nowhere.stagegate(words);
        assert_eq!(said.code, Some(2), "{words:?}: {}", said.all);
        assert!(
            said.all
                .contains("this is no git repository; run the command inside one")
                && !said.all.contains("fatal"),
            "{words:?}: {}",
            said.all
        );
    }
}

/// This repository goes by its own policy.
#[test]
fn this_repository_keeps_its_own_policy() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let home = tempfile::tempdir().expect("a directory");
    let place = super::Place::at(root.to_owned(), home.path());
    let said = place.stagegate(&["check", "--all", "--policy", "hooks/policy.yaml"]);
    assert!(said.ok(), "{}", said.all);
    assert!(place.stagegate(&["lint", "hooks/policy.yaml"]).ok());
}

/// A limit of no bytes for files is a full disk for who asks to be told of it (`trap`), and for who does not, an end in the
/// middle of the first write.
const DISKS: [&str; 2] = ["trap '' XFSZ; ulimit -f 0; ", "ulimit -f 0; "];

#[test]
fn a_full_disk_or_an_end_in_the_middle_of_mending_costs_nothing() {
    for disk in DISKS {
        let world = World::new(None);
        let clone = &world.clone;
        clone.sh("printf 'a \n' >f; git add f");
        let said = clone.try_sh(&format!("{disk}\"$STAGEGATE\" check --fix"));
        assert!(!said.ok() && !said.all.contains("mended"), "{disk}: {}", said.all);
        assert_eq!(clone.sh("od -An -c f | tr -d ' '"), "a\\n", "{disk}");
        assert_eq!(
            clone.sh("git status --porcelain"),
            "A  f",
            "{disk}: nothing that `git add .` would take"
        );
        let said = clone.stagegate(&["check", "--fix"]);
        assert!(said.all.contains("mended 1 file"), "{disk}: {}", said.all);
        assert_eq!(clone.sh("cat f; find .git -name '*stagegate*'"), "a", "{disk}");
    }
}

#[test]
fn a_full_disk_or_an_end_in_the_middle_of_an_installation_leaves_the_hook_that_was_there() {
    for disk in DISKS {
        let world = World::new(None);
        let clone = &world.clone;
        clone.sh("printf '#!/bin/sh\necho before\n' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit");
        let said = clone.try_sh(&format!("{disk}\"$STAGEGATE\" hooks install"));
        assert!(!said.ok(), "{disk}: {}", said.all);
        let said = clone.try_sh("git commit --allow-empty -m 'Add nothing'");
        assert!(said.ok() && said.all.contains("before"), "{disk}: {}", said.all);
        // Both names are there when it was ended between the two.
        clone.sh("cp -p .git/hooks/pre-commit .git/hooks/pre-commit.before-stagegate");
        let said = clone.stagegate(&["hooks", "install"]);
        assert!(said.ok() && said.all.contains("runs first"), "{disk}: {}", said.all);
        let said = clone.try_sh("git commit --allow-empty -m 'Add nothing'");
        assert!(said.ok() && said.all.contains("before"), "{disk}: {}", said.all);
        clone.sh("$STAGEGATE hooks uninstall 2>&1; grep -q before .git/hooks/pre-commit");
    }
}

/// The first commit of all can be named by no `A..B`.
#[test]
fn a_whole_history_is_checked_by_naming_its_tip_and_each_rule_says_in_how_many_commits() {
    let world = World::empty();
    let clone = &world.clone;
    clone.sh(
        "printf 'a \nb \n' >f; git add f; git commit -qm 'Add f'; printf 'c \n' >g; git add g; git commit -qm 'Add g'\n\
         printf 'd' >h; git add h; git commit -qm 'Add h'",
    );
    let said = clone.stagegate(&["check", "--range", "HEAD", "-o", "json"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    let status = &json(&said.out)["status"];
    assert_eq!((&status["commits"], &status["refusedCommits"]), (&3.into(), &3.into()));
    let tally = |name: &str| {
        let rules = status["rules"].as_array().expect("a list");
        let rule = rules.iter().find(|rule| rule["rule"] == name).expect("it was asked");
        (rule["findings"].as_u64(), rule["commits"].as_u64())
    };
    assert_eq!(tally("trailing-whitespace"), (Some(3), Some(2)));
    assert_eq!(tally("end-of-file"), (Some(1), Some(1)));
    assert_eq!(tally("secret"), (Some(0), Some(0)));
    let said = clone.stagegate(&["check", "--range", "nothing"]);
    assert!(
        said.code == Some(2) && said.all.contains("or one commit for all of its history"),
        "{}",
        said.all
    );
}

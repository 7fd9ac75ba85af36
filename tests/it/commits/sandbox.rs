//! The full run of a commit's hooks, T44 to T54, with the real bwrap and the real prek. The hooks here are what somebody
//! pushes: `hook.sh` of the commit, called because the base's configuration says so.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::Value;
use stagegate::commits::prek;

use super::{PROGRAM, Place, Said, World};
use crate::trivial::Running;

const CONFIG: &str = "\
repos:
- repo: local
  hooks:
  - {id: hostile, name: hostile, language: script, entry: ./hook.sh, always_run: true, pass_filenames: false}
";

/// prek, fetched once for all tests.
fn fetched() -> &'static Path {
    static PREK: OnceLock<PathBuf> = OnceLock::new();
    PREK.get_or_init(|| {
        assert!(
            Path::new("/usr/bin/bwrap").exists(),
            "hooks run in a sandbox of bwrap: apt-get install bubblewrap"
        );
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prek");
        prek::fetch(&state).expect("prek can be fetched")
    })
}

/// Makes a state directory that has prek already.
pub(super) fn put_prek(state: &Path) {
    let tools = prek::program(state);
    std::fs::create_dir_all(tools.parent().expect("below")).expect("made");
    std::fs::copy(fetched(), tools).expect("copied");
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(state, own).expect("ours");
}

/// A world whose main branch has these hooks and this below `spec:` of its policy.
fn world(config: &str, spec: &str) -> World {
    let world = World::empty();
    put_prek(&world.clone.home.join("state"));
    world.clone.policy(spec);
    world.clone.write(".pre-commit-config.yaml", config);
    world
        .clone
        .sh("printf '# Project\\n' >README.md; git add .; git commit -qm 'Begin'; git push -q origin main");
    world
}

/// Commits this as `hook.sh` on a topic branch, and pushes it.
fn push_hook(world: &World, shebang: &str, script: &str) -> String {
    world.clone.write("hook.sh", format!("#!{shebang}\n{script}\n"));
    // The files stay as they are.
    world.clone.sh(
        "chmod +x hook.sh; git update-ref refs/heads/topic main; git symbolic-ref HEAD refs/heads/topic; git reset -q; \
         git add -A; git commit -qm 'Add a hook'",
    );
    world.clone.sh("git push -qf origin topic; git rev-parse HEAD")
}

/// The state of the run that is known, by the server's own word.
fn status(said: &Said) -> Value {
    let resource: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.all));
    resource["status"].clone()
}

struct Verdict {
    code: Option<i32>,
    result: String,
    /// Everything, as text.
    text: String,
}

/// Runs the hooks of a commit of the server's.
fn verdict(world: &World, commit: &str) -> Verdict {
    let said = world.server.stagegate(&["verdict", "run", commit, "-o", "json"]);
    let verdict = &status(&said)["verdict"];
    Verdict {
        code: said.code,
        result: verdict["outcome"]["result"].as_str().expect("a result").to_owned(),
        text: verdict.to_string(),
    }
}

#[track_caller]
fn expect(case: &str, world: &World, script: &str, result: &str, parts: &[&str]) -> Verdict {
    let commit = push_hook(world, "/bin/bash", script);
    let verdict = verdict(world, &commit);
    assert_eq!(verdict.result, result, "{case}: {}", verdict.text);
    let code = match result {
        "Passed" => 0,
        "Failed" => 6,
        _ => 5,
    };
    assert_eq!(verdict.code, Some(code), "{case}: {}", verdict.text);
    for part in parts {
        assert!(verdict.text.contains(part), "{case}: no {part:?} in {}", verdict.text);
    }
    verdict
}

/// Processes of this machine with this word on their command line.
fn running(word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    lines
        .filter(|line| line.split(|b| *b == 0).any(|w| w == word.as_bytes()))
        .count()
}

/// Waits until no process has this word: what ends with a server, or a namespace, that is killed does so just after it.
fn gone(word: &str) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while running(word) > 0 {
        assert!(std::time::Instant::now() < end, "`{word}` runs on");
        std::thread::yield_now();
    }
}

#[test]
fn a_hook_that_is_content_passes_and_one_that_is_not_fails() {
    let world = world(CONFIG, "");
    let passed = expect(
        "passes",
        &world,
        "exit 0",
        "Passed",
        &["\"hostile\"", "\"native\":false"],
    );
    assert!(passed.text.contains("\"passed\":\"Yes\""), "{}", passed.text);
    expect(
        "fails",
        &world,
        "echo no good; exit 3",
        "Failed",
        &["exit code: 3 | no good"],
    );
    // Nobody's environment reaches it.
    let commit = world.clone.sh("git rev-parse HEAD");
    let said = world.server.try_sh(&format!(
        "SKIP=hostile PREK_SKIP=hostile $STAGEGATE verdict run {commit}"
    ));
    assert_eq!(said.code, Some(6), "{}", said.all);
    let shown = world.server.stagegate(&["verdict", "show", &commit]);
    assert_eq!(shown.code, Some(6), "{}", shown.all);
    assert!(
        shown.out.contains("hook hostile (local, sandboxed): failed"),
        "{}",
        shown.all
    );
}

/// T12 and T13 of a full run: which hooks run is the base's to say, and what they look at is the commit as git stores it.
#[test]
fn a_commit_cannot_choose_its_hooks_nor_hide_from_them() {
    let world = world(CONFIG, "content: {symlink: {mode: SUGGESTED}}");
    world.clone.write(".pre-commit-config.yaml", "repos: []\n");
    world.clone.write("prek.toml", "repos = []\n");
    world.clone.write(
        ".gitattributes",
        "secret.txt text eol=crlf ident export-ignore filter=gone\n",
    );
    world.clone.write("secret.txt", "plain $Id$\n");
    world
        .clone
        .sh("git config filter.gone.clean cat; ln -s /etc/passwd out; ln -s README.md in; echo '# more' >>hooks/policy.yaml");
    expect(
        "T13",
        &world,
        "[ \"$(cat secret.txt)\" = 'plain $Id$' ] || { echo hidden; exit 1; }\n\
         [ -z \"$(git status --short secret.txt)\" ] || { echo changed; exit 1; }\n\
         [ ! -L out ] && [ -L in ] || { echo links; exit 1; }\n\
         echo all is there; exit 1",
        "Failed",
        &["all is there", "symlink", "the policy is changed"],
    );
}

/// T44.
#[test]
fn a_hook_reaches_nobody() {
    let world = world(CONFIG, "");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("an address").port();
    expect(
        "T44",
        &world,
        &format!(
            "for to in 127.0.0.1/{port} 169.254.169.254/80; do\n\
             (exec 3<>/dev/tcp/$to) 2>/dev/null && exit 0\n\
             done\necho nobody answers; exit 1"
        ),
        "Failed",
        &["nobody answers"],
    );
    let came = listener.accept();
    assert!(came.is_err(), "{came:?}");
}

/// The patterns do not match themselves: the words of `grep` are among what is looked at.
const SNOOP: &str = "\
cat /proc/*/environ /proc/*/cmdline ~/.ssh/* HOME/.ssh/* /var/run/secrets/*/*/* /etc/shadow /root/.* 2>/dev/null |
  tr '\\0' '\\n' | grep -a -e 'TOP[S]ECRET' -e 'ro[o]t:' && exit 1
ls HOME && exit 1
[ -w /etc/passwd ] && exit 1
exit 0";

/// T45.
#[test]
fn a_hook_sees_no_secret_of_the_machine() {
    let world = world(CONFIG, "");
    let home = world.clone.home.clone();
    world
        .clone
        .sh("mkdir -p ~/.ssh; echo TOPSECRET >~/.ssh/id_ed25519; chmod 600 ~/.ssh/id_ed25519");
    let commit = push_hook(&world, "/bin/bash", &SNOOP.replace("HOME", &home.display().to_string()));
    let said = world
        .server
        .try_sh(&format!("TOKEN=TOPSECRET $STAGEGATE verdict run {commit} -o json"));
    assert_eq!(said.code, Some(0), "{}", said.all);
    assert!(!said.all.contains("TOPSECRET"), "{}", said.all);
}

/// The same where a user namespace has to be made, and bwrap's own process belongs to the same user.
#[test]
fn who_is_not_root_has_a_sandbox_as_well() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here is this one.
        return;
    }
    let world = world(CONFIG, "");
    let home = world.clone.home.clone();
    let commit = push_hook(
        &world,
        "/bin/bash",
        &format!(
            "{}\nunshare -U true && exit 1\necho x >.git/config && exit 1\nexit 0",
            SNOOP.replace("HOME", &home.display().to_string()).replace("exit 0", "")
        ),
    );
    let root = world.root.path().display().to_string();
    std::fs::copy(PROGRAM, world.root.path().join("stagegate")).expect("copied");
    world.clone.sh(&format!(
        "mkdir -p ~/.ssh; echo TOPSECRET >~/.ssh/id_ed25519; chown -R 65534:65534 '{root}'"
    ));
    let said = world.server.try_sh(&format!(
        "TOKEN=TOPSECRET setpriv --reuid=65534 --regid=65534 --clear-groups '{root}/stagegate' verdict run {commit} -o json"
    ));
    assert_eq!(said.code, Some(0), "{}", said.all);
    assert!(!said.all.contains("TOPSECRET"), "{}", said.all);
}

/// T46.
#[test]
fn nothing_survives_a_hook() {
    let world = world(CONFIG, "");
    expect(
        "T46",
        &world,
        "setsid sleep 1000046 >/dev/null 2>&1 &\nexit 0",
        "Passed",
        &[],
    );
    assert_eq!(running("1000046"), 0);
}

/// T47.
#[test]
fn a_hook_that_hangs_is_ended_and_fails() {
    let world = world(CONFIG, "hooks: {timeoutS: 1}");
    expect(
        "T47",
        &world,
        "(trap '' TERM INT HUP; sleep 1000047) & setsid sleep 1000047 & wait",
        "Failed",
        &["did not end within 1 s", "hooks.timeoutS"],
    );
    assert_eq!(running("1000047"), 0);
}

/// T48.
#[test]
fn a_hook_that_never_stops_talking_is_no_pass_and_fills_nothing() {
    let world = world(CONFIG, "hooks: {timeoutS: 20}");
    let much = expect(
        "T48, much",
        &world,
        "echo first; yes | head -c 5000000; echo last; exit 1",
        "Failed",
        &["exit code: 1 | first | y"],
    );
    assert!(much.text.len() < 4_000, "{}", much.text.len());
    let commit = push_hook(&world, "/bin/bash", "yes");
    let endless = verdict(&world, &commit);
    assert_ne!(endless.result, "Passed", "{}", endless.text);
    assert_ne!(endless.code, Some(0), "{}", endless.text);
    assert!(endless.text.len() < 4_000, "{}", endless.text.len());
}

/// T49.
#[test]
fn a_fork_bomb_ends_with_its_sandbox() {
    let world = world(CONFIG, "hooks: {timeoutS: 3}");
    expect(
        "T49",
        &world,
        "bomb() { sleep 1000049 & bomb | bomb & }; bomb; wait",
        "Failed",
        &["hook hostile"],
    );
    // The kernel ends them with their namespace, hundreds of them one after the other.
    gone("1000049");
}

/// T50.
#[test]
fn a_hook_fills_its_own_memory_and_no_disk() {
    let world = world(CONFIG, "");
    expect(
        "T50, one file",
        &world,
        "head -c 1000000000 /dev/zero >big; rm -f big; [ -s big ] && exit 0; echo too large; exit 1",
        "Failed",
        &["too large"],
    );
    for place in [".", "/tmp", "/dev/shm"] {
        expect(
            place,
            &world,
            &format!(
                "for i in 1 2 3 4 5 6 7 8 9; do head -c 100000000 /dev/zero >{place}/f$i 2>/tmp/why || {{ echo it is full; exit 1; }}; done"
            ),
            "Failed",
            &["it is full"],
        );
    }
}

/// T51.
#[test]
fn a_hook_cannot_write_into_git() {
    let world = world(CONFIG, "");
    let before = world.server.sh("cat config; ls hooks");
    expect(
        "T51",
        &world,
        "git config core.fsmonitor 'touch /tmp/owned' 2>&1 && exit 0\necho x >.git/index && exit 0\n\
         rm -f .git/HEAD && exit 0\nmv .git elsewhere && exit 0\necho git is closed; exit 1",
        "Failed",
        &["Read-only file system"],
    );
    assert_eq!(world.server.sh("cat config; ls hooks"), before);
}

/// T52.
#[test]
fn a_hook_that_changes_files_fails_though_it_says_otherwise() {
    let world = world(CONFIG, "");
    expect(
        "T52",
        &world,
        "echo more >>README.md; exit 0",
        "Failed",
        &["files were modified by this hook"],
    );
    expect(
        "T52, and puts it back",
        &world,
        "echo x >new; rm new; exit 0",
        "Passed",
        &[],
    );
}

/// T53.
#[test]
fn a_hook_cannot_replace_what_judges_it() {
    let world = world(CONFIG, "");
    expect(
        "T53",
        &world,
        "for f in /run/prek /run/hook.yaml /run/tree/README.md /usr/bin/git /etc/passwd /bin/new /new; do\n\
         (echo x >$f) 2>/dev/null && exit 0\nrm -f $f 2>/dev/null && [ ! -e $f ] && [ $f != /bin/new ] && [ $f != /new ] && exit 0\n\
         done\necho all is closed; exit 1",
        "Failed",
        &["all is closed"],
    );
}

/// A `PATH` with a bwrap that does what the real one does where namespaces are closed.
fn closed(world: &World) -> String {
    let place = Place::at(world.root.path().join("closed"), &world.clone.home);
    place.write(
        "bwrap",
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace, likely because the kernel does not allow \
         non-privileged user namespaces.' >&2\nexit 1\n",
    );
    place.sh("chmod +x bwrap");
    format!("{}:/usr/bin:/bin", place.dir.display())
}

/// A hook that needs nothing of the commit but that a file is not there.
const NO_BAD: &str = "\
repos:
- repo: local
  hooks:
  - {id: no-bad, name: no-bad, language: system, entry: sh -c '! ls | grep -q bad', always_run: true, pass_filenames: false}
";

/// Whose fault it is, as the verdict has it: short names, authors, rules.
fn blames(verdict: &Value) -> Vec<String> {
    let blames = verdict["blames"].as_array().map_or(&[][..], Vec::as_slice);
    blames
        .iter()
        .map(|b| {
            let rules: Vec<&str> = b["rules"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let (commit, author) = (
                b["commit"].as_str().expect("a name"),
                b["author"].as_str().expect("a text"),
            );
            format!(
                "{} {author} {} {}",
                &commit[..10],
                rules.join("+"),
                b["since"].as_str().expect("a word")
            )
        })
        .collect()
}

/// `--no-verify` on somebody's machine, and a server that looks at content only afterwards: nine good commits are not bad
/// because they travelled with one that is.
#[test]
fn what_a_full_run_refuses_is_said_of_the_commit_that_brought_it() {
    let world = world(NO_BAD, "");
    world.hook("exit 0");
    let clone = &world.clone;
    // The bad one comes by a merge, between good ones of others.
    clone.sh(
        "as() { n=$1; shift; git -c user.name=$n commit -q --no-verify --author=\"$n <$n@example.org>\" \"$@\"; }\n\
         git checkout -qb side; echo 1 >bad.txt; git add .; as Bob -m 'Add something'; git tag culprit\n\
         git checkout -q main; for i in 1 2 3; do echo $i >f$i; git add .; as Ann -m \"Add $i\"; done\n\
         git merge -q --no-ff -m 'Merge side' side; echo 4 >f4; git add .; as Ann -m 'Add 4'\n\
         printf 'blank \\n' >g; git add .; as Cleo -m 'Add g'; git tag blank; git rm -q g; as Ann -m 'Remove g'",
    );
    let base = world.server.sh("git rev-parse main");
    let commit = clone.sh("git push -q origin HEAD:topic; git rev-parse HEAD");
    let said = world.server.stagegate(&["verdict", "run", &commit, "-o", "json"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    let (culprit, blank) = (clone.sh("git rev-parse culprit"), clone.sh("git rev-parse blank"));
    let of_blank = format!(
        "{} Cleo <Cleo@example.org> trailing-whitespace ThisCommit",
        &blank[..10]
    );
    let expected = [
        of_blank.clone(),
        format!("{} Bob <Bob@example.org> hook no-bad ThisCommit", &culprit[..10]),
    ];
    assert_eq!(blames(&status(&said)["verdict"]), expected, "{}", said.all);
    let shown = world.server.stagegate(&["verdict", "show", &commit]);
    let line = format!("{} by Bob <Bob@example.org> is refused by hook no-bad", &culprit[..10]);
    assert!(shown.all.contains(&line), "{}", shown.all);

    // What the base had already is nobody's of this push.
    world
        .server
        .sh(&format!("git update-ref refs/heads/main {culprit} {base}"));
    let said = world.server.stagegate(&["verdict", "run", &commit, "-o", "json"]);
    let before = format!("{} Bob <Bob@example.org> hook no-bad Before", &culprit[..10]);
    assert_eq!(blames(&status(&said)["verdict"]), [of_blank, before], "{}", said.all);
}

/// A hook that only suggests, and commits of which there are more than may be looked through.
#[test]
fn nobody_is_blamed_for_what_refuses_nobody_nor_by_guessing() {
    for (spec, expected) in [
        ("hooks: {mode: SUGGESTED}", &["trailing-whitespace"][..]),
        ("bounds: {commits: 2}", &[]),
    ] {
        let world = world(NO_BAD, spec);
        world.hook("exit 0");
        let commit = world.clone.sh(
            "echo 1 >bad.txt; git add .; git commit -qnm 'Add something'; for i in 1 2 3; do printf \"$i \\n\" >f; git add .;\n\
             git commit -qnm \"Add $i\"; done; git push -q origin HEAD:topic; git rev-parse HEAD",
        );
        let said = world.server.stagegate(&["verdict", "run", &commit, "-o", "json"]);
        assert_eq!(said.code, Some(6), "{spec}: {}", said.all);
        let verdict = &status(&said)["verdict"];
        assert_eq!(verdict["hooks"][0]["passed"], "No", "{spec}: {verdict}");
        let blamed = blames(verdict);
        let rules: std::collections::BTreeSet<&str> = blamed.iter().filter_map(|b| b.split(' ').nth(4)).collect();
        assert!(rules.iter().eq(expected), "{spec}: {blamed:?}");
    }
}

/// T54.
#[test]
fn without_a_sandbox_nothing_is_proven() {
    let world = world(CONFIG, "");
    let commit = push_hook(&world, "/bin/sh", "exit 0");
    let path = closed(&world);
    let said = world
        .server
        .try_sh(&format!("PATH='{path}' $STAGEGATE verdict run {commit} -o json"));
    assert_eq!(said.code, Some(5), "{}", said.all);
    let outcome = &status(&said)["verdict"]["outcome"];
    assert_eq!(outcome["result"], "NotProven", "{outcome}");
    let why = outcome["why"].as_str().expect("why");
    assert!(
        why.contains("no sandbox can be made on this machine (bwrap: No permissions"),
        "{why}"
    );

    let empty = world.root.path().join("empty");
    std::fs::create_dir(&empty).expect("made");
    let said = world
        .server
        .try_sh(&format!("PATH='{}' $STAGEGATE verdict run {commit}", empty.display()));
    assert_eq!(said.code, Some(5), "{}", said.all);
    assert!(said.out.contains("`apt-get install bubblewrap`"), "{}", said.all);

    // The server says so when it begins, and goes on with what else it does.
    let mut command = world.server.command(PROGRAM);
    command.env("PATH", path).args(["serve", "--listen", "127.0.0.1:0"]);
    let mut server = Running::new(command, &["serve"]);
    server.until("hooks of commits cannot be proven here: no sandbox can be made");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
}

/// Tags are moved; commits are not.
#[test]
fn a_hook_from_a_name_that_can_be_moved_is_not_run() {
    let config = "repos:\n- repo: https://nobody.invalid/hooks\n  rev: v1\n  hooks: [{id: x}]\n";
    let said = expect(
        "a tag",
        &world(config, ""),
        "exit 0",
        "Failed",
        &["a name that can be moved", "--freeze"],
    );
    assert!(!said.text.contains("NotProven"), "{}", said.text);
}

/// Another repository's hook is installed where the network is, and runs where it is not.
#[test]
fn a_pinned_hook_is_installed_apart_and_once() {
    let place = World::empty();
    let hooks = &place.clone;
    hooks.write(
        ".pre-commit-hooks.yaml",
        "- {id: theirs, name: theirs, language: script, entry: theirs.sh}\n",
    );
    hooks.write(
        "theirs.sh",
        "#!/bin/sh\nfor f; do grep -H bad \"$f\" && exit 1; done\nexit 0\n",
    );
    let revision =
        hooks.sh("chmod +x theirs.sh; git add .; git commit -qm 'Hooks'; git push -q origin main; git rev-parse HEAD");
    let port = crate::ports::free(1);
    let mut daemon = hooks.command("git");
    daemon.args(["daemon", "--verbose", "--export-all", "--listen=127.0.0.1"]);
    daemon.arg(format!("--port={port}"));
    daemon.arg(format!("--base-path={}", place.root.path().display()));
    let mut daemon = Running::new(daemon, &["git", "daemon"]);
    daemon.until("Ready to rumble");
    let config = format!(
        "repos:\n- repo: git://127.0.0.1:{port}/server.git\n  rev: {revision}\n  hooks: [{{id: theirs, exclude: ^hook.sh$}}]\n"
    );
    let world = world(&config, "");
    expect("clean", &world, "exit 0", "Passed", &["\"theirs\"", &revision]);
    // What is there is not fetched again. `git` hands this signal on to the daemon, and `end` waits until that is gone.
    daemon.signal(Signal::TERM);
    daemon.end();
    world.clone.write("bad.txt", "bad\n");
    expect("bad", &world, "exit 1", "Failed", &["bad.txt:bad"]);
    // And what cannot be fetched is not proven.
    world.clone.sh("rm -rf \"$STAGEGATE_STATE/hooks\"");
    expect(
        "gone",
        &world,
        "exit 2",
        "NotProven",
        &["the hook theirs cannot be installed"],
    );
}

fn serve(world: &World) -> Running {
    let mut command = world.server.command(PROGRAM);
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    Running::new(command, &["serve"])
}

fn queue(world: &World) {
    world
        .server
        .write("hooks/post-receive", "#!/bin/sh\nexec \"$STAGEGATE\" post-receive\n");
    world.server.sh("chmod +x hooks/post-receive");
}

/// From a push to its verdict, by the policy from before the push.
#[test]
fn what_is_pushed_is_queued_and_the_server_proves_it() {
    let world = world(CONFIG, "");
    queue(&world);
    // The push itself takes the hook out, which holds from the next push on.
    world.clone.write("hook.sh", "#!/bin/sh\nexit 0\n");
    world.clone.write(".pre-commit-config.yaml", "repos: []\n");
    world
        .clone
        .sh("chmod +x hook.sh; git add .; git commit -qm 'Add a hook'");
    let pushed = world.push("main main:refs/heads/copy");
    assert!(pushed.ok() && pushed.all.contains("the hooks of "), "{}", pushed.all);
    assert!(
        pushed.all.contains(" are queued") && pushed.all.contains("are known, or queued already"),
        "{}",
        pushed.all
    );
    let commit = world.clone.sh("git rev-parse HEAD");
    let waiting = world.server.stagegate(&["verdict", "show", &commit]);
    assert_eq!(waiting.code, Some(5), "{}", waiting.all);
    assert!(waiting.out.contains("queued"), "{}", waiting.all);

    let mut server = serve(&world);
    server.until("/healthz");
    let mut second = serve(&world);
    second.until("runs already");
    assert_eq!(second.end().code, Some(6));
    server.until(" passed");
    let known = world.server.stagegate(&["verdict", "show", &commit, "-o", "json"]);
    assert_eq!(known.code, Some(0), "{}", known.all);
    let status = status(&known);
    assert_eq!(
        (&status["state"], &status["attempts"]),
        (&"Passed".into(), &1.into()),
        "{status}"
    );
    assert_eq!(status["verdict"]["hooks"][0]["id"], "hostile", "{status}");
    let listed = world.server.stagegate(&["verdict", "list"]);
    assert!(listed.out.contains("Passed"), "{}", listed.all);
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
}

/// What the push cannot be asked for is said, and the push stands.
#[test]
fn a_push_is_accepted_also_where_nothing_can_be_queued() {
    let world = world(CONFIG, "");
    queue(&world);
    world.server.write(
        "hooks/post-receive",
        "#!/bin/sh\nSTAGEGATE_STATE=/dev/null exec \"$STAGEGATE\" post-receive\n",
    );
    world.clone.sh("echo x >x; git add x; git commit -qm 'Add x'");
    let pushed = world.push("main");
    assert!(
        pushed.ok() && pushed.all.contains("the hooks of this push will not run"),
        "{}",
        pushed.all
    );
}

/// kill -9 in the middle: the next server finishes it, and of the first one nothing runs on.
#[test]
fn a_killed_servers_run_is_finished_by_the_next() {
    let world = world(CONFIG, "hooks: {timeoutS: 4}");
    queue(&world);
    let commit = push_hook(&world, "/bin/sh", "sleep 1000099");
    let mut server = serve(&world);
    server.until("running the hooks of");
    while running("1000099") == 0 {
        std::thread::yield_now();
    }
    server.signal(Signal::KILL);
    drop(server);
    let mut next = serve(&world);
    next.until("running the hooks of");
    next.until(" failed");
    let known = world.server.stagegate(&["verdict", "show", &commit, "-o", "json"]);
    let status = status(&known);
    assert_eq!(
        (&status["state"], &status["attempts"]),
        (&"Failed".into(), &2.into()),
        "{status}"
    );
    gone("1000099");
    next.signal(Signal::TERM);
    assert_eq!(next.end().code, Some(0));
}

/// Whoever pushed it, and who watches the server, are to know that nobody begins it again.
#[test]
fn a_run_that_kills_its_servers_is_given_up_and_that_is_said_everywhere() {
    let world = world(CONFIG, "hooks: {timeoutS: 600}");
    queue(&world);
    let commit = push_hook(&world, "/bin/sh", "sleep 1000096");
    for _ in 0..3 {
        let mut server = serve(&world);
        server.until("running the hooks of");
        server.signal(Signal::KILL);
        drop(server);
    }
    let mut server = serve(&world);
    let line = server.until("ALERT: the hooks of");
    let expected = format!(
        "are given up after 3 attempts, and the commit is not proven: it was begun 3 times and its server did not live to its end; \
         `stagegate verdict run {commit} --repository"
    );
    assert!(line.contains(&expected), "{line}");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
    let listed = world.server.stagegate(&["verdict", "list"]);
    assert!(listed.out.contains("GivenUp"), "{}", listed.all);
    let shown = world.server.stagegate(&["verdict", "show", &commit]);
    assert_eq!(shown.code, Some(5), "{}", shown.all);
    assert!(shown.out.contains("given up after 3 attempts"), "{}", shown.all);
}

/// As the guide has a repository with a past begin, and what is said where it began the other way round.
#[test]
fn a_policy_that_spares_the_past_is_judged_by_itself_once_it_is_there() {
    let world = World::empty();
    world.hook("exit 0");
    let clone = &world.clone;
    clone.sh("printf 'blanks \\n' >old; git add .; git commit -qm 'The past'; git push -q origin main");
    let past = clone.sh("git rev-parse HEAD");
    world.hook("exec \"$STAGEGATE\" pre-receive");
    queue(&world);
    clone.policy(&format!("since: {past}"));
    clone.sh("git add .; git commit -qm 'Add the policy'");
    let pushed = world.push("main");
    assert!(pushed.ok() && pushed.all.contains(" are queued"), "{}", pushed.all);
    let first = clone.sh("git rev-parse HEAD");
    let mut server = serve(&world);
    server.until(" failed");
    let shown = world.server.stagegate(&["verdict", "show", &first]);
    assert_eq!(shown.code, Some(6), "{}", shown.all);
    assert!(
        shown.all.contains("it was judged by the built-in policy"),
        "{}",
        shown.all
    );
    let advice = format!(
        "stagegate verdict run {first} --repository {}",
        world.server.dir.display()
    );
    assert!(shown.all.contains(&advice), "{}", shown.all);
    let said = world.server.stagegate(&["verdict", "run", &first]);
    assert!(said.ok(), "{}", said.all);
    clone.sh("echo new >new; git add new; git commit -qm 'Add new'");
    assert!(world.push("main").ok());
    server.until(" passed");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
}

/// One that is asked to end gives its run back.
#[test]
fn a_server_that_ends_breaks_its_run_off_and_holds_nothing_against_it() {
    let world = world(CONFIG, "hooks: {timeoutS: 600}");
    queue(&world);
    let commit = push_hook(&world, "/bin/sh", "sleep 1000098");
    let mut server = serve(&world);
    server.until("running the hooks of");
    while running("1000098") == 0 {
        std::thread::yield_now();
    }
    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = status(&world.server.stagegate(&["verdict", "show", &commit, "-o", "json"]));
    assert_eq!(
        (&status["state"], &status["attempts"]),
        (&"Queued".into(), &0.into()),
        "{status}"
    );
    gone("1000098");
}

/// Who is to blame is found out after the verdict, and whoever ends the server meanwhile keeps it.
#[test]
fn a_server_that_ends_while_it_looks_for_the_culprit_keeps_the_verdict() {
    // Of what the commit brings it is not content, and of what was there before it does not end.
    let slow = NO_BAD.replace("! ls | grep -q bad", "test ! -e bad || exit 1; sleep 1000097");
    let world = world(&slow, "hooks: {timeoutS: 600}");
    queue(&world);
    world.hook("exit 0");
    let commit = world.clone.sh(
        "echo 1 >bad; git add bad; git commit -qm 'Add bad' --no-verify; git push -q origin HEAD:topic; git rev-parse HEAD",
    );
    let mut server = serve(&world);
    server.until("running the hooks of");
    while running("1000097") == 0 {
        std::thread::yield_now();
    }
    server.signal(Signal::TERM);
    let ended = server.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = status(&world.server.stagegate(&["verdict", "show", &commit, "-o", "json"]));
    assert_eq!(status["state"], "Failed", "{status}");
    assert_eq!(blames(&status["verdict"]), <[String; 0]>::default(), "{status}");
    gone("1000097");
}

//! The repository's own hooks: native where a rule stands for them, by the pinned prek otherwise.

use super::{PROGRAM, Said, World};

const NATIVE: &str = "\
repos:
- repo: https://github.com/pre-commit/pre-commit-hooks
  rev: v6.0.0
  hooks: [{id: trailing-whitespace}, {id: end-of-file-fixer}, {id: detect-private-key}]
";
const LOCAL: &str = "\
- repo: local
  hooks:
  - {id: no-foo, name: no foo here, language: system, entry: sh -c '! grep -n foo \"$@\"' --}
  - {id: net, name: net, language: system, entry: sh -c 'echo PROXY=$GOPROXY', verbose: true}
";

#[test]
fn hooks_with_a_native_equal_need_no_prek() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.write(".pre-commit-config.yaml", NATIVE);
    clone.sh("printf 'a \\n' >f; git add .");
    let said = clone.stagegate(&["hooks", "install"]);
    assert!(
        said.ok() && said.all.contains("every hook of .pre-commit-config.yaml runs natively"),
        "{}",
        said.all
    );
    assert!(!clone.home.join("state/tools").exists());
    let said = clone.stagegate(&["check"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    assert!(said.out.contains("f:1:2 trailing-whitespace"), "{}", said.all);
}

/// Not run is no pass (I7), and a check fetches nothing.
#[test]
fn a_hook_that_cannot_run_is_an_error_that_says_what_to_do() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.write(".pre-commit-config.yaml", format!("{NATIVE}{LOCAL}"));
    clone.sh("git add .");
    let said = clone.stagegate(&["check"]);
    assert_eq!(said.code, Some(1), "{}", said.all);
    assert!(
        said.all
            .contains("the hooks net, no-foo need prek 0.5.11, which is not here"),
        "{}",
        said.all
    );
    assert!(said.all.contains("stagegate hooks install` fetches it"), "{}", said.all);
    assert!(!clone.home.join("state/tools").exists());
    clone.write(".pre-commit-config.yaml", "repos: [\n");
    let said = clone.stagegate(&["check"]);
    assert_eq!(said.code, Some(2), "{}", said.all);
    assert!(said.all.contains("unclosed bracket"), "{}", said.all);
}

#[test]
fn prek_runs_what_has_no_native_equal_and_sets_nothing_aside() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.write(".pre-commit-config.yaml", format!("{NATIVE}{LOCAL}"));
    clone.sh("git add .");
    let said = clone.stagegate(&["hooks", "install"]);
    assert!(
        said.ok() && said.all.contains("prek 0.5.11 runs net, no-foo"),
        "{}",
        said.all
    );
    clone.sh("git commit -qnm 'Configure hooks'");
    clone.sh("printf 'foo \\n' >f; git add f; printf 'foo more\\n' >f");
    let said = clone.stagegate(&["check"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    assert!(said.out.contains("f:1:4 trailing-whitespace"), "{}", said.all);
    assert!(
        said.out.contains("hook no-foo hook exit code: 1 | 1:foo"),
        "{}",
        said.all
    );
    assert_eq!(clone.sh("cat f; git show :f"), "foo more\nfoo");
    // What would pass it by, does not.
    let said = clone.try_sh("SKIP=no-foo git commit -m 'Add f'");
    assert!(!said.ok() && said.all.contains("hook no-foo"), "{}", said.all);
    clone.sh("git reset -q --hard; printf 'bar\\n' >f; git add f; git commit -qm 'Add f'");
    // A prek that breaks is no pass.
    clone.sh(
        "printf '  - {id: broken, language: nonsense}\\n' >>.pre-commit-config.yaml; printf 'baz\\n' >f; git add f",
    );
    let said = clone.stagegate(&["check"]);
    assert_eq!(said.code, Some(2), "{}", said.all);
    assert!(
        said.all.contains(".pre-commit-config.yaml has a mistake"),
        "{}",
        said.all
    );
}

/// A repository with a hook that nothing but itself has to be installed for, and one in Python.
const HOOKS: &str = "mkdir ../hooks.git; cd ../hooks.git; git init -q -b main .; \
    printf -- '- {id: fine, name: fine, language: script, entry: run}\\n- {id: snake, name: snake, language: python, entry: run}\\n' >.pre-commit-hooks.yaml; \
    printf '#!/bin/sh\\ntest ! -e refuse\\n' >run; chmod +x run; git add .; git commit -qm x; git tag v1; git commit -q --allow-empty -m y; git tag v2";

const SYSTEM: &str =
    "- repo: local\n  hooks: [{id: needs-nothing, name: needs nothing, language: system, entry: 'true'}]\n";

fn config(world: &World, rev: &str, hook: &str, local: &str) -> String {
    let place = world.root.path().join("hooks.git");
    format!(
        "repos:\n- repo: file://{}\n  rev: {rev}\n  hooks: [{{id: {hook}}}]\n{local}",
        place.display()
    )
}

/// Installed elsewhere, removed since, or asked for since: what is missing is said, with what brings it, and not fetched.
#[test]
fn a_hook_that_nothing_is_installed_for_is_named_and_not_fetched() {
    let world = World::new(None);
    let clone = &world.clone;
    let file = ".pre-commit-config.yaml";
    clone.sh(HOOKS);
    clone.write(file, config(&world, "v1", "fine", SYSTEM));
    clone.sh("git add .; $STAGEGATE hooks install 2>/dev/null");
    let said = clone.stagegate(&["check"]);
    assert!(said.ok(), "{}", said.all);
    let lacks = |case: &str, hooks: &str| {
        let said = clone.stagegate(&["check"]);
        assert_eq!(said.code, Some(1), "{case}: {}", said.all);
        assert!(
            said.all
                .contains(&format!("nothing is installed here for the hooks {hooks}, so"))
                && said.all.contains(" hooks install` installs it"),
            "{case}: {}",
            said.all
        );
        for word in ["git fetch", "fatal", "exited", "warning"] {
            assert!(!said.all.contains(word), "{case}: {}", said.all);
        }
    };
    clone.sh("rm -r ~/.cache/prek");
    lacks("a cache that is gone", "fine");
    clone.sh("git add .; $STAGEGATE hooks install 2>/dev/null; $STAGEGATE check");
    clone.write(file, config(&world, "v2", "fine", SYSTEM));
    lacks("another revision", "fine");
    // prek fetches what Python needs by its own, through this if it may.
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = proxy.local_addr().expect("bound");
    let (asked, askers) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Who asks is turned away, and need not be waited for.
        for _ in proxy.incoming() {
            if asked.send(()).is_err() {
                break;
            }
        }
    });
    clone.write(file, config(&world, "v1", "snake", SYSTEM));
    let mut check = clone.command(PROGRAM);
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        check.env(name, format!("http://{address}"));
    }
    // Without a `uv` of the machine's.
    let output = check
        .env("PATH", "/usr/bin:/bin")
        .arg("check")
        .output()
        .expect("it runs");
    let said = Said::of(&output);
    assert!(said.all.contains("for the hooks snake, so"), "{}", said.all);
    assert_eq!(askers.try_iter().count(), 0, "somebody was asked");
}

#[test]
fn a_mistake_in_the_configuration_is_not_laid_to_the_network() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.sh(HOOKS);
    let local = |hook: &str| format!("repos:\n- repo: local\n  hooks:\n  - {hook}\n");
    clone.write(".pre-commit-config.yaml", config(&world, "v1", "fine", ""));
    clone.sh("git add .; $STAGEGATE hooks install 2>/dev/null; $STAGEGATE hooks uninstall 2>/dev/null");
    for (config, why, code) in [
        (
            local("{id: a, name: a, language: nonsense, entry: x}"),
            "line 4 column 32: unknown variant `nonsense`",
            2,
        ),
        (local("{id: a, language: system, entry: x}"), "missing field `name`", 2),
        (
            config(&world, "v1", "nothing", ""),
            "Hook `nothing` was not found in repository",
            2,
        ),
        (config(&world, "v9", "fine", ""), "pathspec 'v9' did not match", 1),
    ] {
        clone.write(".pre-commit-config.yaml", &config);
        let said = clone.stagegate(&["hooks", "install"]);
        assert_eq!(said.code, Some(code), "{config}: {}", said.all);
        assert!(
            said.all.contains(why) && said.all.contains("no hook was put in place"),
            "{config}: {}",
            said.all
        );
        assert!(!said.all.contains("network"), "{config}: {}", said.all);
        assert_eq!(clone.stagegate(&["hooks", "status"]).code, Some(6));
        let said = clone.stagegate(&["check"]);
        assert_eq!(said.code, Some(code), "{config}: {}", said.all);
    }
}

#[test]
fn a_hook_that_fails_is_run_again_by_what_is_here() {
    let world = World::new(None);
    let clone = &world.clone;
    clone.write(".pre-commit-config.yaml", format!("repos:\n{LOCAL}"));
    clone.sh("git add .; $STAGEGATE hooks install 2>/dev/null; printf 'foo\\n' >f; git add f");
    let said = clone.stagegate(&["check"]);
    assert_eq!(said.code, Some(6), "{}", said.all);
    let alone = said.out.split('`').nth(1).expect("a command");
    let again = clone.try_sh(alone);
    assert!(
        !again.ok() && again.all.contains("no foo here") && !again.all.contains("not found"),
        "{alone}: {}",
        again.all
    );
}

//! The repository's own hooks: native where a rule stands for them, by the pinned prek otherwise.

use super::World;

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
    assert_eq!(said.code, Some(1), "{}", said.all);
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
    assert_eq!(said.code, Some(1), "{}", said.all);
    assert!(said.all.contains("prek did not run the hooks"), "{}", said.all);
}

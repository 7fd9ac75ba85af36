//! Our kinds, as a real API server takes them.

use super::lab::Lab;
use crate::tree::files;

/// One control plane for all that is asked of the definitions: it takes seconds to come up.
#[test]
fn the_api_server_takes_our_kinds_and_keeps_their_rules() {
    let cluster = Lab::with_api(&["stagegate-kinds"]);
    let crds = stagegate::cli::crds().expect("YAML");
    let applied = cluster.kubectl(&["apply", "--server-side", "-f", "-"], &crds);
    assert!(applied.done, "{applied:#?}");
    let established = cluster.kubectl(
        &[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd",
            "-l",
            "app.kubernetes.io/part-of=stagegate",
        ],
        "",
    );
    assert!(
        established.done && established.out.lines().count() == 7,
        "{established:#?}"
    );
    // A name or a shape that the server finds wrong it says there, and serves all the same.
    let conditions = cluster.kubectl(
        &["get", "crd", "-o", "jsonpath={.items[*].status.conditions[*].type}"],
        "",
    );
    assert!(!conditions.out.contains("NonStructuralSchema"), "{conditions:#?}");

    let apply = |text: &str| cluster.kubectl(&["apply", "--validate=strict", "-f", "-"], text);
    for (path, text) in files(&["environments", "pipelines"]) {
        let applied = apply(&text);
        assert!(applied.done, "{}: {applied:#?}", path.display());
    }
    let refused = |text: &str, why: &str| {
        let refused = apply(text);
        assert!(!refused.done && refused.err.contains(why), "{why}: {refused:#?}");
    };
    let head =
        |kind: &str| format!("apiVersion: stagegate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: one}}\nspec:\n");
    refused(&(head("Environment") + "  reports: []\n"), "whose replica it is");
    refused(
        &(head("Environment") + "  components: []\n  component: []\n"),
        "unknown field",
    );
    refused(
        &(head("Environment")
            + "  components: [{name: web, source: {directory: a, packageIndex: {package: b, python: '3.11'}}, nodes: []}]\n"),
        "exactly one of",
    );
    let upgrade = |build: &str, wish: &str| {
        head("Upgrade") + &format!("  environment: panda-staging\n  component: web\n  build: {build}\n  wish: {wish}\n")
    };
    for wish in ["proceed", "pause"] {
        let applied = apply(&upgrade("web-1", wish));
        assert!(applied.done, "{applied:#?}");
    }
    refused(&upgrade("web-2", "proceed"), "the build of an object does not change");
    refused(&upgrade("web-1", "stop"), "Unsupported value");
    let build = |digit: &str| {
        head("Build")
            + &format!(
                "  component: web\n  version: '1'\n  digest: sha256:{}\n  locked: [{{name: a, version: '1', sha256: ['{}']}}]\n",
                digit.repeat(64),
                digit.repeat(64)
            )
    };
    assert!(apply(&build("a")).done);
    refused(&build("b"), "a Build does not change");

    let promotion =
        |build: &str| head("Promotion") + &format!("  pipeline: web\n  stage: production\n  build: {build}\n");
    assert!(apply(&promotion("web-1")).done);
    refused(&promotion("web-2"), "the build of an object does not change");

    a_rehearsal_is_a_template_by_any_of_its_builds(&cluster);
    let listed = cluster.kubectl(&["get", "upg"], "");
    assert!(
        listed.out.contains("ENVIRONMENT") && listed.out.contains("web-1"),
        "{listed:#?}"
    );
    let all = cluster.kubectl(&["get", "stagegate", "-o", "name"], "");
    for kind in ["environment", "build", "upgrade", "rehearsal"] {
        assert!(all.out.contains(&format!("{kind}.stagegate.dev/")), "{all:#?}");
    }
    let explained = cluster.kubectl(&["explain", "upgrades.status.phase"], "");
    assert!(explained.out.contains("RolledBack: They are back"), "{explained:#?}");
    let ready = r#"{"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Up", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;
    let patched = cluster.kubectl(
        &[
            "patch",
            "env",
            "panda-production",
            "--subresource=status",
            "--type=merge",
            "-p",
            ready,
        ],
        "",
    );
    assert!(patched.done, "{patched:#?}");
    let waited = cluster.kubectl(
        &["wait", "--for=condition=Ready", "--timeout=10s", "env/panda-production"],
        "",
    );
    assert!(waited.done, "{waited:#?}");
}

/// It may change as long as one is the candidate's, and not any more without.
fn a_rehearsal_is_a_template_by_any_of_its_builds(cluster: &Lab) {
    let rehearsal = |from: &str, run: &str, description: &str| {
        format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: Rehearsal\nmetadata: {{name: one}}\nspec:\n  description: {description}\n  environment: panda-staging\n  startFrom: {from}\n  runs: [{{build: {run}, expect: {{phase: Succeeded}}}}]\n"
        )
    };
    for (from, run, description) in [
        ("web=candidate", "web=2", "a"),
        ("web=candidate", "web=2", "b"),
        ("null", "web=candidate", "c"),
        ("null", "web=2", "d"),
    ] {
        let text = rehearsal(from, run, description);
        let verb = if description == "a" { "create" } else { "replace" };
        let taken = cluster.kubectl(&[verb, "-f", "-"], &text);
        assert!(taken.done, "{description}: {taken:#?}");
    }
    let other = cluster.kubectl(&["replace", "-f", "-"], &rehearsal("web=1", "web=2", "e"));
    assert!(
        !other.done && other.err.contains("what is rehearsed does not change"),
        "{other:#?}"
    );
}

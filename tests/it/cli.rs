//! The program as its user meets it, without any node.

use std::path::Path;
use std::process::{Command, Output};

fn stagegate(state: &Path, workspace: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stagegate"))
        .args(arguments)
        .env("STAGEGATE_STATE", state)
        .env("STAGEGATE_WORKSPACE", workspace)
        .env("STAGEGATE_USER", "tester")
        .env("NO_COLOR", "1")
        .env_remove("STAGEGATE_PORT_SHIFT")
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shipped() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

const SOUND: &str = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: server
      source: {directory: builds}
      service: {pidFile: run/pid}
      nodes: [{name: n1}]
      actions:
        install: {template: a.sh}
        start: {template: a.sh}
        stop: {template: a.sh}
";

/// With everything that is rendered, or that another thing refers to.
const WHOLE: &str = r#"
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  secrets: {word: {file: secrets/word}}
  databases:
    - {name: db, postgres: {host: localhost, port: "5432", database: d, user: u}}
  components:
    - name: server
      source: {directory: builds}
      service: {pidFile: run/pid}
      ports: {http: 28190}
      nodes: [{name: n1}, {name: n2, host: {ssh: {destination: far, directory: stagegate/n2}}}]
      actions:
        install: {template: a.sh}
        start: {template: a.sh}
        stop: {template: a.sh}
      probes:
        - {name: alive, http: {url: "http://{{ node.address }}:{{ node.ports.http }}/"}, builds: "<2"}
        - {name: alive, http: {url: "http://{{ node.address }}/new"}, builds: ">=2"}
      traffic:
        - name: calls
          rate: 5
          before: {database: db, sql: "insert {{ call.id }}"}
          requests:
            - url: "http://{{ node.address }}:{{ node.ports.http }}/{{ build.version }}"
              headers: {Accept: "text/{{ env.name }}"}
              form: {id: "{{ call.id }}"}
          effect: {database: db, sql: "select {{ call.id }}", equals: "{{ call.id }}"}
        - name: others
          rate: 1
          requests: [{url: "http://{{ node.address }}/", method: POST, json: '{"id": {{ call.id }}}'}]
      logs:
        - {name: entry, path: log/entry, end: "took (?<exec_time_s>[0-9.]+) s"}
      queries:
        - {name: lag, database: db, sql: "select {{ node.index }}", atMost: 5}
      gates:
        - {name: calls, share: {of: traffic/calls, over: 5s, limit: 2%}}
  reports:
    - {name: journal, file: {path: reports.jsonl}}
"#;

const REHEARSAL: &str = "\
apiVersion: stagegate.dev/v1alpha1
kind: Rehearsal
metadata: {name: bad-day}
spec:
  environment: one
  disturbances:
    - {name: row, holdRow: {database: db, sql: 'select {{ env.name }}', hold: 1s, every: 2s}}
    - {name: node, killNode: {node: n1, after: 1s}}
    - {name: all, restartComponent: {component: server, after: 1s}}
  runs:
    - {build: server=1.0, expect: {phase: Succeeded}}
";

fn write(directory: &Path, name: &str, content: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().expect("below")).expect("made");
    std::fs::write(path, content).expect("written");
}

/// A workspace with one environment.
fn workspace(environment: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "environments/one.yaml", environment);
    write(dir.path(), "templates/a.sh", "exit 0\n");
    std::fs::create_dir_all(dir.path().join("builds/1.0")).expect("made");
    std::fs::write(dir.path().join("builds/1.0/file"), "x").expect("written");
    dir
}

#[test]
fn what_is_shipped_is_sound() {
    let state = tempfile::tempdir().expect("a directory");
    let said = stagegate(state.path(), shipped(), &["lint"]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert!(
        text(&said.stderr).contains("nothing is wrong"),
        "{}",
        text(&said.stderr)
    );
}

#[test]
fn a_sinks_template_that_does_not_render_is_told_with_its_line() {
    let stated = WHOLE.replace("{name: journal, file", "{name: journal, template: say.txt, file");
    for (template, code, expected) in [
        ("{{ component }} on {{ node }}: {{ text }}\n", 0, "nothing is wrong"),
        ("{{ component }}\n{{ nobody }}\n", 2, "templates/say.txt:2:4"),
        (
            "{% if node %}{{ node | first(x }}{% endif %}\n",
            2,
            "templates/say.txt:1",
        ),
    ] {
        let workspace = workspace(&stated);
        write(workspace.path(), "templates/say.txt", template);
        let words = says(workspace.path(), &["lint"], code);
        assert!(words.contains(expected), "{template}: {words}");
    }
    let words = says(workspace(&stated).path(), &["lint"], 2);
    assert!(words.contains("no template `say.txt`"), "{words}");
    let outside = workspace(&stated.replace("say.txt", "../say.txt"));
    let words = says(outside.path(), &["lint"], 2);
    assert!(words.contains("no path below templates/"), "{words}");
}

#[test]
fn bad_input_is_exit_2_with_its_line_and_touches_nothing() {
    let rows = [
        ("pidFile: run/pid", "pidFil: run/pid", "pidFil", "one.yaml:8"),
        ("nodes: [{name: n1}]", "nodes: []", "", "one.yaml:9"),
        (
            "template: a.sh}",
            "template: ../a.sh}",
            "no path below templates/",
            "one.yaml:11",
        ),
        (
            "template: a.sh}",
            "template: b.sh}",
            "no template `b.sh`",
            "one.yaml:11",
        ),
        (
            "    - name: server",
            "    - name: server\n      after: [server]",
            "goes in a circle",
            "one.yaml:7",
        ),
        (
            "    - name: server",
            "    - name: server\n      after: [databse]",
            "no component `databse`",
            "one.yaml:7",
        ),
        (
            "source: {directory: builds}",
            "source: {directory: builds}\n      commits: {repository: a.git, revision: main}",
            "names one commit for every version",
            "one.yaml:",
        ),
        (
            "source: {directory: builds}",
            "source: {directory: builds}\n      commits: {repository: ../a.git, revision: vVERSION, path: /x}",
            "`../a.git` is no path below the workspace",
            "one.yaml:",
        ),
        (
            "source: {directory: builds}",
            "commits: {repository: a.git, revision: vVERSION}",
            "has `commits` but no `source`",
            "one.yaml:",
        ),
        ("spec:", "spec: [", "", "one.yaml:"),
    ];
    for (from, to, expected, place) in rows {
        let workspace = workspace(&SOUND.replacen(from, to, 1));
        let state = workspace.path().join("state");
        for command in [&["lint"][..], &["up", "one"]] {
            let said = stagegate(&state, workspace.path(), command);
            let words = text(&said.stderr);
            assert_eq!(said.status.code(), Some(2), "{to}: {words}");
            assert!(words.contains(expected) && words.contains(place), "{to}: {words}");
        }
        assert!(!state.join("environments").exists(), "{to}: nothing may be touched");
    }
}

#[test]
fn an_unknown_name_says_what_is_near() {
    let workspace = workspace(SOUND);
    let state = workspace.path().join("state");
    for (arguments, expected) in [
        (&["up", "on"][..], "did you mean `one`?"),
        (&["status", "on"], "did you mean `one`?"),
        (&["status", "on", "--watch"], "did you mean `one`?"),
        (&["status", "on", "--look"], "did you mean `one`?"),
        (&["why", "on"], "did you mean `one`?"),
        (&["history", "on"], "did you mean `one`?"),
        (&["events", "on"], "did you mean `one`?"),
        (&["events", "on", "--watch"], "did you mean `one`?"),
        (&["pause", "on"], "did you mean `one`?"),
        (&["events", "far-away"], "there is `one`"),
        (
            &["events", "one", "--upgrade", "server-2"],
            "no upgrade `server-2` of one; there is none",
        ),
        (&["get", "build", "server-2"], "no Build `server-2` here; there is none"),
        (
            &["build", "show", "server-2"],
            "no build `server-2` here; there is none",
        ),
        (&["upgrade", "one", "--build", "server=2.0"], "has no version 2.0"),
        (&["upgrade", "one", "--build", "server"], "write COMPONENT=VERSION"),
        (
            &["upgrade", "one", "--build", "sever=1.0"],
            "has no component `sever`; it has server",
        ),
    ] {
        let said = stagegate(&state, workspace.path(), arguments);
        let words = text(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{arguments:?}: {words}");
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
}

#[test]
fn one_home_with_a_newer_state_is_refused() {
    let workspace = workspace(SOUND);
    let state = workspace.path().join("state");
    write(
        &state,
        "stagegate.db",
        "this is no database, and long enough to be looked at",
    );
    let said = stagegate(&state, workspace.path(), &["status"]);
    assert_eq!(said.status.code(), Some(1), "{}", text(&said.stderr));
    assert!(text(&said.stderr).contains("stagegate.db"), "{}", text(&said.stderr));
}

/// Says with which words and exit code a command of a workspace ends, and that it made no home.
fn says(workspace: &Path, arguments: &[&str], code: i32) -> String {
    let state = workspace.join("state");
    let said = stagegate(&state, workspace, arguments);
    let words = text(&said.stderr);
    assert_eq!(said.status.code(), Some(code), "{arguments:?}: {words}");
    assert!(!state.exists(), "{arguments:?} made a home");
    words
}

#[test]
fn a_hole_in_a_text_is_found_before_anything_is_touched() {
    let sound = workspace(WHOLE);
    says(sound.path(), &["lint"], 0);
    let rows = [
        // Text of the environment, what it becomes, the name of what is missing.
        ("{{ node.ports.http }}/\"", "{{ node.ports.htp }}/\"", "node.ports.htp"),
        ("insert {{ call.id }}", "insert {{ call.it }}", "call.it"),
        ("{{ build.version }}", "{{ build.versoin }}", "build.versoin"),
        ("text/{{ env.name }}", "text/{{ env.nam }}", "env.nam"),
        ("form: {id: \"{{ call.id }}", "form: {id: \"{{ vars.id }}", "vars.id"),
        ("select {{ call.id }}", "select {{ calls.id }}", "calls.id"),
        ("equals: \"{{ call.id }}", "equals: \"{{ call.ix }}", "call.ix"),
        ("{\"id\": {{ call.id }}}", "{\"id\": {{ call.iy }}}", "call.iy"),
        ("{{ node.index }}", "{{ node.indx }}", "node.indx"),
        ("port: \"5432\"", "port: \"{{ vars.port }}\"", "vars.port"),
        ("port: \"5432\"", "port: \"54x\"", "no port"),
        (
            "\"http://{{ node.address }}/new",
            "\"htp//{{ node.address }}/new",
            "no address",
        ),
        ("{\"id\": {{ call.id }}}", "{\"id\" {{ call.id }}}", "renders to"),
    ];
    for (from, to, expected) in rows {
        assert!(WHOLE.contains(from), "{from}");
        let workspace = workspace(&WHOLE.replacen(from, to, 1));
        for command in [&["lint"][..], &["plan", "one", "--build", "server=1.0"], &["up", "one"]] {
            let words = says(workspace.path(), command, 2);
            assert!(words.contains(expected) && words.contains("one.yaml:"), "{to}: {words}");
        }
    }
    // In a template it is the template's line that is shown.
    for (template, expected) in [
        (
            "set -eu\necho {{ node.ports.htp }}\n",
            "`node.ports.htp` is not defined",
        ),
        // `down` stops what it does not know.
        ("set -eu\necho {{ build.version }}\n", "`build.version` is not defined"),
    ] {
        write(sound.path(), "templates/a.sh", template);
        for command in [&["lint"][..], &["up", "one"]] {
            let words = says(sound.path(), command, 2);
            assert!(
                words.contains(expected) && words.contains("templates/a.sh:2:9"),
                "{words}"
            );
        }
    }
}

#[test]
fn what_fails_later_does_not_pass_lint() {
    let rows = [
        (
            "path: reports.jsonl",
            "path: ../../reports.jsonl",
            "no path below the environment's directory",
        ),
        (
            "path: log/entry",
            "path: ../../etc/passwd",
            "no path below the node directory",
        ),
        (
            "file: secrets/word",
            "file: ../word",
            "no path below the environment's directory",
        ),
        (
            "{directory: builds}",
            "{directory: ../../etc}",
            "no path below the workspace",
        ),
        (
            "directory: stagegate/n2",
            "directory: /",
            "no path below the user's home",
        ),
        ("  secrets:", "  packagesScript: p.sh\n  secrets:", "no template `p.sh`"),
        ("over: 5s", "over: 0s", "every call takes longer"),
        ("over: 5s", "over: 2m", "gives a call up after 1m"),
        ("rate: 5", "rate: 5\n          concurrency: 0", "concurrency of 0"),
        (
            "builds: \"<2\"",
            "builds: \"<2\", failureThreshold: 0",
            "failureThreshold of probe `alive` is 0",
        ),
        ("(?<exec_time_s>[0-9.]+)", "[0-9.]+", "a group `exec_time_s`"),
        ("path: log/entry", "path: log/entry, rate: 0", "cannot log 0 requests"),
        ("name: others", "name: calls", "`calls` is stated twice"),
        (
            "builds: \">=2\"",
            "builds: \">=1.5\"",
            "two probes `alive` are for the same builds",
        ),
        (
            "builds: \"<2\"",
            "builds: \"<2\", failureThreshold: 7",
            "another probe `alive` has another failureThreshold",
        ),
        ("name: one", "name: two", "is called one.yaml"),
    ];
    for (from, to, expected) in rows {
        assert!(WHOLE.contains(from), "{from}");
        let workspace = workspace(&WHOLE.replacen(from, to, 1));
        for command in [&["lint"][..], &["up", "one"]] {
            let words = says(workspace.path(), command, 2);
            assert!(words.contains(expected) && words.contains("one.yaml:"), "{to}: {words}");
        }
    }
    let rows = [
        ("environment: one", "environment: on", "no environment `on`"),
        ("server=1.0", "sever=1.0", "no component with a `source` `sever`"),
        ("database: db", "database: dbb", "no database `dbb`"),
        ("node: n1", "node: n2", "no node of this machine `n2`"),
        ("component: server", "component: sever", "no component `sever`"),
        ("{{ env.name }}", "{{ env.nam }}", "`env.nam` is not defined"),
        ("name: bad-day", "name: bad-night", "is called bad-day.yaml"),
    ];
    let workspace = workspace(WHOLE);
    write(workspace.path(), "pipelines/bad-day.yaml", REHEARSAL);
    says(workspace.path(), &["lint"], 0);
    for (from, to, expected) in rows {
        assert!(REHEARSAL.contains(from), "{from}");
        write(
            workspace.path(),
            "pipelines/bad-day.yaml",
            &REHEARSAL.replacen(from, to, 1),
        );
        for command in [&["lint"][..], &["rehearse", "bad-day"]] {
            let words = says(workspace.path(), command, 2);
            assert!(
                words.contains(expected) && words.contains("bad-day.yaml:"),
                "{to}: {words}"
            );
        }
    }
}

#[test]
fn a_stateful_set_is_stated_as_a_whole_and_by_one_component() {
    let sound = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: web
      source: {images: {repository: r/web, digests: {\"1\": \"sha256:DIGEST\"}}}
      statefulSet: {namespace: shop, name: web, replicas: 3}
      traffic: []
    - name: mail
      source: {images: {repository: r/mail, digests: {\"1\": \"sha256:DIGEST\"}}}
      statefulSet: {namespace: shop, name: mail, replicas: 1}
"
    .replace("DIGEST", &"a".repeat(64));
    let replica = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: two}
spec:
  replicaOf: one
  components:
    - name: web
      statefulSet: {namespace: staging, name: web, replicas: 1}
    - name: mail
      nodes: [{name: m}]
";
    let images = format!(
        "{{images: {{repository: r/mail, digests: {{\"1\": \"sha256:{}\"}}}}}}",
        "a".repeat(64)
    );
    let beside = format!(
        "{{repository: r/web, digests: {{\"1\": \"sha256:{}\"}}}}",
        "b".repeat(64)
    );
    let twice = format!(
        "{{repository: r/web, digests: {{\"1\": \"sha256:{0}\", \"1-1\": \"sha256:{0}\"}}}}",
        "b".repeat(64)
    );
    says(workspace(&sound).path(), &["lint"], 0);
    for (from, to, expected) in [
        (
            "name: mail, replicas",
            "name: web, replicas",
            "is that of component web, too",
        ),
        ("replicas: 3", "replicas: 0", "has no pods"),
        ("replicas: 3", "replicas: 501", "has 501 pods"),
        ("namespace: shop", "namespace: Shop", "cannot be the namespace"),
        ("traffic: []", "nodes: [{name: n}]", "both `nodes` and a `statefulSet`"),
        ("traffic: []", "service: {pidFile: run/pid}", "mean nothing of pods"),
        ("traffic: []", "portStride: 10", "mean nothing of pods"),
        (
            "traffic: []",
            "actions: {start: {template: a.sh}}",
            "no script of ours runs in a pod",
        ),
        (
            "traffic: []",
            "logs: [{name: l, path: log/l, end: \"(?<exec_time_s>[0-9.]+)\"}]",
            "what its container prints is followed",
        ),
        (&images, "{directory: builds}", "are no images"),
        ("traffic: []", "images: IMAGES", "its nodes are not pods and servers"),
        (
            "traffic: []",
            "images: IMAGES\n      nodes: [{name: n}]",
            "have images and no files for its servers",
        ),
        (
            "traffic: []",
            "images: TWICE\n      nodes: [{name: n}]",
            "versions 1 and 1-1 of `web` have the same image",
        ),
    ] {
        let to = &to.replace("IMAGES", &beside).replace("TWICE", &twice);
        assert!(sound.contains(from), "{from}");
        let words = says(workspace(&sound.replacen(from, to, 1)).path(), &["lint"], 2);
        assert!(words.contains(expected) && words.contains("one.yaml:"), "{to}: {words}");
    }
    // A replica has its own pods.
    let workspace = workspace(&sound);
    write(workspace.path(), "environments/two.yaml", replica);
    let words = says(workspace.path(), &["lint"], 2);
    assert!(words.contains("mail") && !words.contains("web"), "{words}");
}

#[test]
fn a_deployment_is_stated_as_a_whole_and_by_one_component() {
    let sound = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: web
      source: {images: {repository: r/web, digests: {\"1\": \"sha256:DIGEST\"}}}
      deployment: {namespace: shop, name: web}
      traffic: []
    - name: mail
      source: {images: {repository: r/mail, digests: {\"1\": \"sha256:DIGEST\"}}}
      deployment: {namespace: shop, name: mail}
"
    .replace("DIGEST", &"a".repeat(64));
    says(workspace(&sound).path(), &["lint"], 0);
    let long = format!("name: {}}}", "m".repeat(57));
    for (from, to, expected) in [
        ("name: mail}", "name: web}", "is that of component web, too"),
        ("name: mail}", "name: web-canary}", "is stated twice"),
        ("name: mail}", long.as_str(), "too long for the name of a canary"),
        ("namespace: shop", "namespace: Shop", "cannot be the namespace"),
        ("traffic: []", "nodes: [{name: n}]", "both `nodes` and a `deployment`"),
        (
            "traffic: []",
            "statefulSet: {namespace: shop, name: web, replicas: 1}",
            "both a `statefulSet` and a `deployment`",
        ),
        ("traffic: []", "service: {pidFile: run/pid}", "mean nothing of pods"),
        (
            "traffic: []",
            "actions: {check: {template: a.sh}}",
            "no script of ours runs in a pod",
        ),
        (
            "traffic: []",
            "logs: [{name: l, path: log/l, end: \"(?<exec_time_s>[0-9.]+)\"}]",
            "what its container prints is followed",
        ),
    ] {
        assert!(sound.contains(from), "{from}");
        let words = says(workspace(&sound.replacen(from, to, 1)).path(), &["lint"], 2);
        assert!(words.contains(expected) && words.contains("one.yaml:"), "{to}: {words}");
    }
    // A replica has its own pods.
    let workspace = workspace(&sound);
    let replica = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: two}
spec:
  replicaOf: one
  components:
    - name: web
      deployment: {namespace: staging, name: web}
    - name: mail
      nodes: [{name: m}]
";
    write(workspace.path(), "environments/two.yaml", replica);
    let words = says(workspace.path(), &["lint"], 2);
    assert!(words.contains("mail") && !words.contains("web"), "{words}");
}

#[test]
fn a_replica_does_not_move_the_pods_of_its_base() {
    let base = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: web
      source: {images: {repository: r/web, digests: {\"1\": \"sha256:DIGEST\"}}}
      statefulSet: {namespace: shop, name: web, replicas: 3}
    - name: mail
      source: {images: {repository: r/mail, digests: {\"1\": \"sha256:DIGEST\"}}}
      deployment: {namespace: shop, name: mail}
"
    .replace("DIGEST", &"a".repeat(64));
    let own_web = "\n    - {name: web, statefulSet: {namespace: staging}}";
    let own_mail = "\n    - {name: mail, deployment: {namespace: staging}}";
    let refused = ["`web` are those of `one`", "`mail` are those of `one`"];
    for (stated, wrong) in [
        ("description: a copy".to_owned(), &refused[..]),
        (format!("components:{own_web}"), &refused[1..]),
        (format!("components:{own_mail}"), &refused[..1]),
        (format!("components:{own_web}{own_mail}"), &[]),
        (
            format!("components:{own_mail}\n    - {{name: web, statefulSet: {{replicas: 1}}}}"),
            &refused[..1],
        ),
        (
            format!("components:{own_mail}\n    - {{name: web, $patch: delete}}"),
            &[],
        ),
        // What a target makes is not what is looked for elsewhere.
        (
            format!("target: {{kubernetes: {{namespace: staging}}}}\n  components:{own_mail}"),
            &refused[..1],
        ),
    ] {
        let workspace = workspace(&base);
        let replica = format!(
            "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\nmetadata: {{name: two}}\nspec:\n  replicaOf: one\n  {stated}\n"
        );
        write(workspace.path(), "environments/two.yaml", &replica);
        let words = says(workspace.path(), &["lint"], if wrong.is_empty() { 0 } else { 2 });
        for message in refused {
            assert_eq!(words.contains(message), wrong.contains(&message), "{stated}: {words}");
        }
        assert_eq!(words.matches("those of `one`").count(), wrong.len(), "{words}");
    }
}

#[test]
fn everything_that_is_wrong_is_shown_at_once() {
    let workspace = workspace(&SOUND.replacen("nodes: [{name: n1}]", "nodes: []", 1));
    write(
        workspace.path(),
        "environments/two.yaml",
        &SOUND.replacen("pidFile", "pidFil", 1),
    );
    write(
        workspace.path(),
        "environments/three.yaml",
        "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: three}
spec: {replicaOf: onee}
",
    );
    write(workspace.path(), "templates/b.sh", "{{ x");
    write(workspace.path(), "templates/c.sh", "{% if %}");
    let there = workspace.path().join("environments");
    let words = says(
        workspace.path(),
        &["lint", there.to_str().expect("text"), "not/there"],
        2,
    );
    for expected in [
        "one.yaml:9",
        "two.yaml:8",
        "three.yaml:4",
        "did you mean `one`?",
        "templates/b.sh:1",
        "templates/c.sh:1",
        "not/there",
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
}

/// A person mends a file once: what does not depend on what is broken is said in the same go.
#[test]
fn a_file_with_mistakes_of_every_kind_shows_them_all() {
    let mut text = WHOLE.to_owned();
    for (from, to) in [
        // Of the text, of the schema, of a value, of the model, of a template's variables.
        ("  databases:", "  secrets: {}\n  databases:"),
        ("over: 5s", "over: 5 parsecs"),
        ("limit: 2%", "limit: 0%"),
        ("pidFile: run/pid", "pidFil: ../run/pid"),
        ("install: {template: a.sh}", "install: {template: b.sh}"),
        ("{{ node.address }}/new", "{{ node.adress }}/new"),
        ("rate: 1\n", "rate: quick\n"),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let workspace = workspace(&text);
    for command in [&["lint"][..], &["up", "one"]] {
        let words = says(workspace.path(), command, 2);
        for expected in [
            "the key `secrets` is given twice",
            "expected a duration, found the string `5 parsecs`",
            "write it as `250ms`, `30s`, `5m` or `1h30m`",
            "`0%` is not a share",
            "unknown key `pidFil`",
            "`../run/pid` is no path below the node directory",
            "no template `b.sh`",
            "`node.adress` is not defined",
            "expected a number, found the string `quick`",
            "write a number alone, without a unit, as 5 or 0.5",
        ] {
            assert!(words.contains(expected), "{expected}: {words}");
        }
        assert_eq!(words.matches("error: ").count(), 8, "{words}");
    }
}

/// What is missing only because something else is broken is no mistake of its own.
#[test]
fn one_mistake_is_one_error() {
    let rows = [
        ("apiVersion: stagegate.dev/v1alpha1", "apiVersion: stagegate.dev/v1"),
        ("kind: Environment", "kind: Enviroment"),
        ("metadata: {name: one}", "metadata: {}"),
        ("metadata: {name: one}", "metadata: {name: One}"),
        ("  components:", "  component:"),
        ("      actions:", "      action:"),
        ("      traffic:", "      traffics:"),
        ("      traffic:", "      load:"),
        ("      probes:", "      checks:"),
        ("      service: {pidFile: run/pid}", "      service: run/pid"),
        ("rate: 5", "rate: fast"),
        ("rate: 5", "rate: 5/s"),
        ("rate: 5", "rate: 5\n          concurrency: 1.5"),
        ("{name: db, ", "{nam: db, "),
        ("port: \"5432\"", "port: 5432"),
        ("ports: {http: 28190}", "ports: {http: many}"),
        ("ports: {http: 28190}", "ports: {http: 99999}"),
        ("ports: {http: 28190}", "port: 28190"),
        ("{name: n1}, ", "{name: 1}, "),
        ("over: 5s", "over: 5"),
        ("limit: 2%", "limit: 2"),
        ("builds: \"<2\"", "builds: \"below 2\""),
        ("file: secrets/word", "fil: secrets/word"),
        ("file: {path: reports.jsonl}", "file: reports.jsonl"),
    ];
    for (from, to) in rows {
        assert!(WHOLE.contains(from), "{from}");
        let workspace = workspace(&WHOLE.replacen(from, to, 1));
        write(workspace.path(), "pipelines/bad-day.yaml", REHEARSAL);
        let words = says(workspace.path(), &["lint"], 2);
        assert_eq!(words.matches("error: ").count(), 1, "{to}: {words}");
    }
}

#[test]
fn a_value_that_is_written_wrongly_shows_how_it_is_written() {
    let policy = |rollout: &str| SOUND.to_owned() + "      rollout: {" + rollout + "}\n";
    let rows = [
        (
            "soak: 5 parsecs",
            "found the string `5 parsecs`",
            "`250ms`, `30s`, `5m` or `1h30m`",
        ),
        (
            "soak: 30",
            "expected a duration, found the number `30`",
            "`250ms`, `30s`",
        ),
        (
            "maxUnavailable: 0%",
            "above 0, or a percentage of them, found the string `0%`",
            "`1` or `25%`",
        ),
        (
            "maxUnavailable: 0",
            "above 0, or a percentage of them, found the number `0`",
            "`1` or `25%`",
        ),
        ("maxUnavailable: half", "found the string `half`", "`1` or `25%`"),
        ("maxUnavailable: [1]", "found a list", "`1` or `25%`"),
        (
            "keepReleases: many",
            "expected a whole number, found the string `many`",
            "a whole number alone",
        ),
        (
            "keepReleases: 2.5",
            "expected a whole number, found the number `2.5`",
            "a whole number alone",
        ),
    ];
    for (rollout, message, hint) in rows {
        let workspace = workspace(&policy(rollout));
        let words = says(workspace.path(), &["lint"], 2);
        assert!(words.contains(message) && words.contains(hint), "{rollout}: {words}");
        assert_eq!(words.matches("error: ").count(), 1, "{rollout}: {words}");
    }
}

#[test]
fn a_file_that_states_nothing_is_no_environment() {
    let workspace = workspace(SOUND);
    for text in ["", "# to be written\n", "---\n", "\n---\n# nothing\n---\n"] {
        write(workspace.path(), "environments/two.yaml", text);
        for command in [&["lint"][..], &["up", "two"]] {
            let words = says(workspace.path(), command, 2);
            assert!(words.contains("two.yaml states no resource"), "{text:?}: {words}");
        }
    }
}

#[test]
fn what_a_template_never_closes_is_shown_where_it_opens() {
    let workspace = workspace(SOUND);
    for (template, place, expected) in [
        ("set -eu\necho {% if x\nexit 0\n\n", "a.sh:2:6", "`{%` opens here"),
        ("set -eu\n{% if vars %}\nexit 0\n\n", "a.sh:2:1", "`{% endif %}`"),
        (
            "set -eu\n  {{ node.name\nexit 0\n{{ node.name }}\n",
            "a.sh:2:3",
            "`{{` opens here",
        ),
    ] {
        write(workspace.path(), "templates/a.sh", template);
        for command in [&["lint"][..], &["up", "one"]] {
            let words = says(workspace.path(), command, 2);
            assert!(words.contains(place) && words.contains(expected), "{template}: {words}");
        }
    }
}

#[test]
fn a_template_that_leads_out_of_the_workspace_is_refused() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    write(elsewhere.path(), "a.sh", "exit 0\n");
    let workspace = workspace(SOUND);
    let link = |target: &Path| {
        let template = workspace.path().join("templates/a.sh");
        std::fs::remove_file(&template).expect("was there");
        std::os::unix::fs::symlink(target, template).expect("made");
    };
    // From one place of the workspace to another is as good as a file.
    write(workspace.path(), "templates/shared/b.sh", "exit 0\n");
    link(Path::new("shared/b.sh"));
    says(workspace.path(), &["lint"], 0);
    // So is a directory that is meant to lie elsewhere.
    let scripts = elsewhere.path().join("scripts");
    std::fs::rename(workspace.path().join("templates"), &scripts).expect("moved");
    std::os::unix::fs::symlink(&scripts, workspace.path().join("templates")).expect("made");
    says(workspace.path(), &["lint"], 0);
    link(&elsewhere.path().join("a.sh"));
    for command in [&["lint"][..], &["up", "one"], &["plan", "one", "--build", "server=1.0"]] {
        let words = says(workspace.path(), command, 2);
        assert!(
            words.contains("templates/a.sh is a link to") && words.contains("out of the workspace"),
            "{words}"
        );
        assert_eq!(words.matches("error: ").count(), 1, "{words}");
    }
}

#[test]
fn lint_reads_replicas_as_up_does() {
    let replica = |name: &str, of: &str| {
        SOUND.lines().take(2).collect::<Vec<_>>().join("\n")
            + &format!("\nmetadata: {{name: {name}}}\nspec: {{replicaOf: {of}}}\n")
    };
    let workspace = workspace(SOUND);
    // A replica of a replica, and two of one base, which is read once; then without the base among what is asked for.
    for (name, of) in [("copy", "one"), ("second", "one"), ("copy-of-copy", "copy")] {
        write(
            workspace.path(),
            &format!("environments/{name}.yaml"),
            &replica(name, of),
        );
    }
    says(workspace.path(), &["lint"], 0);
    let place = |name: &str| {
        workspace
            .path()
            .join(format!("environments/{name}.yaml"))
            .display()
            .to_string()
    };
    says(workspace.path(), &["lint", &place("copy-of-copy"), &place("second")], 0);
    says(workspace.path(), &["plan", "copy-of-copy", "--build", "server=1.0"], 0);

    write(
        workspace.path(),
        "environments/copy.yaml",
        &replica("copy", "copy-of-copy"),
    );
    for command in [&["lint"][..], &["plan", "copy", "--build", "server=1.0"]] {
        let words = says(workspace.path(), command, 2);
        assert!(words.contains("`replicaOf` goes in a circle"), "{words}");
    }
}

#[test]
fn a_component_that_a_replica_misspells_is_one_mistake() {
    let workspace = workspace(SOUND);
    let copy = "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\nmetadata: {name: copy}\nspec:\n  replicaOf: one\n  components:\n    \
                - name: sever\n      ports: {http: 28200}\n      nodes: [{name: n9}]\n      probes:\n        - {name: alive, http: {url: \"http://{{ node.port }}/\"}}\n";
    write(workspace.path(), "environments/copy.yaml", copy);
    for command in [&["lint"][..], &["plan", "copy", "--build", "server=1.0"]] {
        let words = says(workspace.path(), command, 2);
        assert_eq!(words.matches("error: ").count(), 1, "{words}");
        assert!(
            words.contains("`one`, which this is a replica of, has no component `sever`"),
            "{words}"
        );
        assert!(
            words.contains("copy.yaml:7:13") && words.contains("did you mean `server`?"),
            "{words}"
        );
    }
    // One of its own is added by what makes it one.
    let added = copy.replace("sever", "sever2").replace("node.port", "node.address")
        + "      actions: {setup: {template: a.sh}}\n";
    write(workspace.path(), "environments/copy.yaml", &added);
    says(workspace.path(), &["lint"], 0);
}

#[test]
fn an_environment_whose_text_is_wrong_is_not_missing_as_well() {
    let workspace = workspace(WHOLE);
    write(workspace.path(), "pipelines/bad-day.yaml", REHEARSAL);
    let copy =
        "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\nmetadata: {name: copy}\nspec: {replicaOf: one}\n";
    write(workspace.path(), "environments/copy.yaml", copy);
    says(workspace.path(), &["lint"], 0);
    for wrong in [
        &b"apiVersion: [\n"[..],
        b"\xff\xfe",
        b"apiVersion: stagegate.dev/v1alpha1\nkind: Enviroment\nmetadata: {name: one}\n",
    ] {
        std::fs::write(workspace.path().join("environments/one.yaml"), wrong).expect("written");
        let words = says(workspace.path(), &["lint"], 2);
        assert!(!words.contains("there is no environment"), "{words}");
        assert!(words.contains("one.yaml"), "{words}");
    }
    // What is really not there is told.
    std::fs::remove_file(workspace.path().join("environments/one.yaml")).expect("was there");
    let words = says(workspace.path(), &["lint"], 2);
    assert!(words.contains("there is no environment `one`"), "{words}");
}

#[test]
fn commands_that_are_shown_work_when_they_are_pasted() {
    let place = tempfile::tempdir().expect("a directory");
    let state = place.path().join("state");
    let fresh = place.path().join("it's new");
    let said = stagegate(&state, place.path(), &["init", &fresh.display().to_string()]);
    assert!(said.status.success(), "{said:?}");
    let words = text(&said.stderr);
    let line = words
        .lines()
        .find(|line| line.ends_with(" lint"))
        .unwrap_or_else(|| panic!("{words}"));
    let pasted = Command::new("sh")
        .args(["-c", line])
        .env("STAGEGATE_STATE", &state)
        .output()
        .expect("sh runs");
    assert!(pasted.status.success(), "{line}: {pasted:?}");
    let hint = text(&stagegate(&state, &fresh, &["status", "demo"]).stderr);
    let command = hint.split('`').nth(1).unwrap_or_else(|| panic!("{hint}"));
    assert_eq!(
        command,
        format!("{} up demo", env!("CARGO_BIN_EXE_stagegate")),
        "{hint}"
    );
}

#[test]
fn builds_and_upgrades_can_be_linted() {
    let workspace = workspace(SOUND);
    let build = "\
apiVersion: stagegate.dev/v1alpha1
kind: Build
metadata: {name: server-2.0, generation: 1, resourceVersion: '3', creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {component: server, version: '2.0', digest: 'sha256:DIGEST', locked: []}
status: {verifications: []}
---
apiVersion: stagegate.dev/v1alpha1
kind: Upgrade
metadata: {name: server-2.0-ab12}
spec: {environment: one, component: server, build: server-2.0, user: me, wish: proceed}
"
    .replace("DIGEST", &"0".repeat(64));
    write(workspace.path(), "known.yaml", &build);
    let file = workspace.path().join("known.yaml").display().to_string();
    assert!(says(workspace.path(), &["lint", &file], 0).contains("2 resources in 1 file"));
    write(workspace.path(), "known.yaml", &build.replace("locked", "lokced"));
    assert!(says(workspace.path(), &["lint", &file], 2).contains("did you mean `locked`"));
}

#[test]
fn what_only_reads_makes_no_home() {
    let workspace = workspace(SOUND);
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["status", "one"], 2),
        (&["events"], 0),
        (&["history"], 0),
        (&["get", "builds"], 0),
        (&["build", "list"], 0),
        (&["why", "one"], 2),
        (&["pause", "one"], 6),
        (&["pause", "nosuch"], 2),
        (&["undo", "one", "--dry-run"], 6),
        (&["plan", "one", "--build", "server=1.0"], 0),
        (&["upgrade", "one", "--build", "server=1.0", "--dry-run"], 0),
        (&["plan", "nosuch", "--build", "server=1.0"], 2),
        (&["up", "nosuch"], 2),
        (&["down", "nosuch"], 2),
        (&["upgrade", "nosuch", "--build", "server=1.0"], 2),
    ] {
        says(workspace.path(), arguments, code);
    }
}

#[test]
fn a_mistake_in_the_command_is_exit_2_and_programs_get_a_resource() {
    let workspace = workspace(SOUND);
    let state = workspace.path().join("state");
    for arguments in [
        &["nosuch"][..],
        &["upgrade", "one"],
        &["get", "foo"],
        &["get", "build", "nope"],
        &["build", "show", "nope"],
        &["gate", "replay", "nofile"],
        &["gate", "replay", "templates/a.sh"],
        &["serve", "--listen", "foo"],
        &["build", "release", "server-1.0", "--env", "one", "--reason", " "],
        &["lint", "nofile"],
        &["quickstart"],
    ] {
        for format in [&["-o", "json"][..], &["--output=json"], &["-ojson"]] {
            let said = stagegate(&state, workspace.path(), &[arguments, format].concat());
            let resource: serde_json::Value =
                serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {said:?}"));
            assert_eq!(said.status.code(), Some(2), "{arguments:?}: {said:?}");
            assert_eq!(resource["kind"], "Status", "{arguments:?}");
            assert_eq!(resource["status"]["exitCode"], 2, "{arguments:?}");
            assert!(!said.stderr.is_empty(), "{arguments:?}");
            let is_lost = text(&said.stderr).contains("say by STAGEGATE_WORKSPACE where one is");
            assert_eq!(is_lost, arguments == ["quickstart"], "{said:?}");
        }
    }
    for arguments in [&["--help"][..], &["upgrade", "--help"], &["--version", "-o", "json"]] {
        let said = stagegate(&state, workspace.path(), arguments);
        assert!(said.status.success() && !said.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn programs_get_a_resource_from_every_command() {
    let workspace = workspace(&SOUND.replacen("pidFile", "pidFil", 1));
    let state = workspace.path().join("state");
    let json = |arguments: &[&str]| -> serde_json::Value {
        let said = stagegate(&state, workspace.path(), &[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {said:?}"))
    };
    let wrong = json(&["lint"]);
    assert_eq!(wrong["status"]["details"][0]["line"], 8, "{wrong}");
    assert_eq!(
        wrong["status"]["details"][0]["path"], "spec.components[0].service.pidFil",
        "{wrong}"
    );
    write(workspace.path(), "environments/one.yaml", SOUND);
    let fresh = workspace.path().join("fresh").display().to_string();
    let copy = workspace.path().join("copy").display().to_string();
    let nothing = json(&["backup", &copy]);
    assert!(
        nothing["status"]["message"]
            .to_string()
            .contains("there is no state in"),
        "{nothing}"
    );
    assert!(!state.exists(), "asking for a copy makes no state");
    for arguments in [&["lint"][..], &["init", &fresh], &["down", "one"], &["backup", &copy]] {
        let resource = json(arguments);
        assert_eq!(
            (&resource["kind"], &resource["status"]["phase"]),
            (&"Status".into(), &"Succeeded".into()),
            "{arguments:?}: {resource}"
        );
    }
    assert_eq!(json(&["events"])["kind"], "List");
}

#[test]
fn purging_what_is_not_there_says_so_and_changes_nothing() {
    let workspace = workspace(SOUND);
    let words = says(workspace.path(), &["down", "one", "--purge"], 0);
    assert!(
        words.starts_with("there is nothing of one in ") && words.lines().count() == 1,
        "{words}"
    );
    says(workspace.path(), &["down", "on", "--purge"], 2);
}

#[test]
fn an_environment_whose_pods_nobody_finds_is_taken_down_all_the_same() {
    let environment = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - name: web
      source: {images: {repository: r/web, digests: {\"1\": \"sha256:DIGEST\"}}}
      deployment: {context: no-such-context, namespace: shop, name: web}
"
    .replace("DIGEST", &"a".repeat(64));
    let workspace = workspace(&environment);
    let state = workspace.path().join("state");
    let said = stagegate(&state, workspace.path(), &["down", "one"]);
    let words = text(&said.stderr);
    assert!(said.status.success() && words.contains("one is down"), "{words}");
}

#[test]
fn a_copy_that_cannot_be_made_says_why_and_what_to_do() {
    let workspace = workspace(SOUND);
    let state = workspace.path().join("state");
    assert!(stagegate(&state, workspace.path(), &["down", "one"]).status.success());
    write(workspace.path(), "taken", "");
    for (file, expected) in [
        (
            "taken",
            "there is a file already, and a copy overwrites nothing; name another file",
        ),
        (
            "nowhere/copy",
            "No such file or directory (os error 2); no copy was made: name a file in a directory that is there",
        ),
    ] {
        let path = workspace.path().join(file).display().to_string();
        let said = stagegate(&state, workspace.path(), &["backup", &path]);
        let words = text(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{words}");
        assert!(
            words.contains(&format!("cannot copy the state to {path}: ")) && words.contains(expected),
            "{words}"
        );
        assert!(
            !words.contains(".partial") && !words.contains("STAGEGATE_STATE"),
            "{words}"
        );
    }
}

/// As `head` does. The exit code is the command's, not its reader's.
#[test]
fn a_reader_that_goes_is_no_error() {
    let workspace = workspace(SOUND);
    for arguments in [
        &["completions", "bash"][..],
        &["schema"],
        &["status", "-o", "json"],
        &["events", "-o", "json"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let said = Command::new(env!("CARGO_BIN_EXE_stagegate"))
            .args(arguments)
            .env("STAGEGATE_STATE", workspace.path().join("state"))
            .env("STAGEGATE_WORKSPACE", workspace.path())
            .stdout(writer)
            .output()
            .expect("the program runs");
        assert_eq!(
            (said.status.code(), text(&said.stderr)),
            (Some(0), String::new()),
            "{arguments:?}"
        );
    }
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let said = Command::new(env!("CARGO_BIN_EXE_stagegate"))
        .args(["completions", "bash"])
        .stdout(full)
        .output();
    let said = said.expect("the program runs");
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(
        text(&said.stderr).contains("cannot write to standard output"),
        "{said:?}"
    );
}

/// One line to run, which is the environment's own script, and nothing is touched.
#[test]
fn who_may_not_install_is_told_the_one_line_to_run() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let packages = "spec:\n  packages: [no-such-package-a, no-such-package-b]\n  packagesScript: host/packages.sh";
    let workspace = workspace(&WHOLE.replacen("spec:", packages, 1));
    let label = "name: bad-day, labels: {stagegate.dev/quickstart: 'true'}";
    write(
        workspace.path(),
        "pipelines/bad-day.yaml",
        &REHEARSAL.replacen("name: bad-day", label, 1),
    );
    write(workspace.path(), "templates/host/packages.sh", "exit 3\n");
    // Somebody else than the owner of this directory, and perhaps of the program's, must be able to run it.
    let program = workspace.path().join("stagegate");
    std::fs::copy(env!("CARGO_BIN_EXE_stagegate"), &program).expect("copied");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(workspace.path(), open).expect("ours");
    let mut command = Command::new(&program);
    command
        .args(["quickstart", "-o", "json"])
        .current_dir(workspace.path())
        .env("STAGEGATE_STATE", workspace.path().join("state"))
        .env("STAGEGATE_WORKSPACE", workspace.path());
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let said = command.output().expect("the program runs");
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    let script = workspace
        .path()
        .join("templates/host/packages.sh")
        .canonicalize()
        .expect("there");
    let line = format!("\nsudo sh {} no-such-package-a no-such-package-b", script.display());
    assert!(text(&said.stderr).contains(&line), "{said:?}");
    let status: serde_json::Value = serde_json::from_slice(&said.stdout).expect("a resource");
    assert!(
        status["status"]["message"].as_str().is_some_and(|m| m.contains(&line)),
        "{status}"
    );
    assert!(!workspace.path().join("state").exists());

    let shift = Command::new(&program)
        .arg("quickstart")
        .env("STAGEGATE_WORKSPACE", workspace.path())
        .env("STAGEGATE_PORT_SHIFT", "many")
        .output();
    assert_eq!(shift.expect("the program runs").status.code(), Some(2));
}

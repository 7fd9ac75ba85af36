//! A replica beside what it is a replica of.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::signals::cluster::Cluster;

struct Workspace(tempfile::TempDir);

impl Workspace {
    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// What differs, and why that is expected; and the whole answer.
    fn diff(&self, more: &[&str], code: i32) -> (BTreeMap<String, Option<String>>, Value) {
        let said = Command::new(env!("CARGO_BIN_EXE_stagegate"))
            .args(["diff", "staging", "-o", "json"])
            .args(more)
            .env("STAGEGATE_WORKSPACE", self.0.path())
            .env("STAGEGATE_STATE", self.0.path().join("state"))
            .output()
            .expect("the program runs");
        assert_eq!(said.status.code(), Some(code), "{said:?}");
        let whole: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        let all = whole["status"]["differences"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let why = all
            .iter()
            .map(|d| (text(&d["path"]).expect("a path"), text(&d["expected"])))
            .collect();
        (why, whole)
    }

    fn staging(&self, port: u16, more: &str) {
        let replica = "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\nmetadata: {name: staging}\nspec:\n  replicaOf: production\n  \
             target: {kubernetes: {namespace: shop-staging}}\n  variables: {replicas: 1}\n  components: [{name: web, build: '1.1'}]\n";
        let databases = format!(
            "  databases: [{{name: main, postgres: {{host: 127.0.0.1, port: '{port}', database: two, user: postgres}}}}]\n"
        );
        self.write("environments/staging.yaml", &format!("{replica}{databases}{more}"));
    }
}

fn unexpected(found: &BTreeMap<String, Option<String>>) -> Vec<&str> {
    let none = found.iter().filter(|(_, why)| why.is_none());
    none.map(|(path, _)| path.as_str()).collect()
}

#[tokio::test]
async fn what_a_replica_states_is_expected_and_what_its_database_has_otherwise_is_not() {
    let cluster = Cluster::start().await;
    for (name, kind, more) in [
        ("one", "integer", "CREATE INDEX by_kind ON jobs (kind)"),
        ("two", "bigint", "CREATE TYPE grade AS ENUM ('a', 'b')"),
    ] {
        let mut config = cluster.config();
        let server = stagegate::signals::postgres::Database::new(config.clone());
        server.query(&format!("CREATE DATABASE {name}")).await.expect("made");
        config.database = name.to_owned();
        let database = stagegate::signals::postgres::Database::new(config);
        let made = format!("CREATE TABLE jobs (id bigint PRIMARY KEY, kind {kind} NOT NULL DEFAULT 1); {more}");
        database.query(&made).await.expect("made");
    }
    let workspace = Workspace(tempfile::tempdir().expect("a directory"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cluster/replica");
    let text = |name: &str| std::fs::read_to_string(here.join(name)).expect("a file");
    let port = cluster.port;
    let databases = format!(
        "  databases: [{{name: main, postgres: {{host: 127.0.0.1, port: '{port}', database: one, user: postgres}}}}]\n"
    );
    workspace.write("environments/production.yaml", &(text("production.yaml") + &databases));
    workspace.write("templates/web/config.yaml", &text("config.yaml"));
    workspace.write("templates/web/deployment.yaml", &text("deployment.yaml"));
    workspace.staging(port, "");

    let (found, whole) = workspace.diff(&[], 3);
    let table = "databases.main.tables[\"public.jobs\"]";
    let of_the_database = [
        format!("{table}.columns.kind"),
        format!("{table}.indexes.by_kind"),
        "databases.main.types[\"public.grade\"]".to_owned(),
    ];
    assert_eq!(unexpected(&found), of_the_database, "{whole:#}");
    let stated = Some("stated by the replica".to_owned());
    for path in [
        "builds.web",
        "spec.variables.replicas",
        "spec.components.web.build",
        "spec.databases.main.postgres.database",
    ] {
        assert_eq!(found.get(path), Some(&stated), "{path}: {whole:#}");
    }
    let follows = found
        .get("manifests[\"Deployment.apps/web\"].spec.replicas")
        .expect("it differs");
    assert_eq!(follows.as_deref(), Some("follows from what the replica states"));
    assert_eq!(whole["status"]["unexpected"], 3);

    // Those that have a reason, and those below them.
    let expected = |path: &str| format!("  expectedDifferences: [{{path: '{path}', reason: it is newer}}]\n");
    workspace.staging(port, &expected("databases.*.tables"));
    let (found, whole) = workspace.diff(&[], 3);
    assert_eq!(unexpected(&found), [of_the_database[2].as_str()], "{whole:#}");
    assert_eq!(found[&of_the_database[0]].as_deref(), Some("it is newer"));
    workspace.staging(port, &expected("databases"));
    let (found, _) = workspace.diff(&[], 0);
    assert!(unexpected(&found).is_empty());

    // What is no base of it has inherited nothing to it.
    let other = text("production.yaml")
        .replace("name: production", "name: other")
        .replace("greeting: hello", "greeting: bye");
    workspace.write("environments/other.yaml", &other);
    let (found, whole) = workspace.diff(&["--against", "other"], 3);
    assert!(unexpected(&found).contains(&"spec.variables.greeting"), "{whole:#}");
    // That a secret is another is told, and not what it is.
    let all = whole["status"]["differences"].as_array().expect("a list");
    let secret = all
        .iter()
        .find(|d| d["path"].as_str().is_some_and(|path| path.contains("Secret/web")));
    let here = secret.expect("it differs")["here"].as_str().expect("a text");
    assert!(here.starts_with("(not told, "), "{here}");

    // A database that cannot be asked is not the same as one that is alike.
    workspace.staging(1, &expected("databases"));
    workspace.diff(&[], 1);
}

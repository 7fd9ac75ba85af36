//! A replica beside what it is a replica of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use stagegate::model::difference::differences;
use stagegate::signals::postgres::{Database, schema};

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
        let server = Database::new(config.clone());
        server.query(&format!("CREATE DATABASE {name}")).await.expect("made");
        config.database = name.to_owned();
        let database = Database::new(config);
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
        // Neither was ever brought up here.
        "builds.web".to_owned(),
        format!("{table}.columns.kind"),
        format!("{table}.indexes.by_kind"),
        "databases.main.types[\"public.grade\"]".to_owned(),
    ];
    assert_eq!(unexpected(&found), of_the_database, "{whole:#}");
    let stated = Some("stated by the replica".to_owned());
    for path in [
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
    assert_eq!(whole["status"]["unexpected"], 4);
    let builds = &whole["status"]["differences"][0];
    assert!(
        builds["here"]
            .as_str()
            .is_some_and(|said| said.starts_with("unknown: nobody has brought web of staging up")),
        "{builds}"
    );

    // Those that have a reason, and those below them.
    let expected = |path: &str| {
        let elsewhere = "{path: builds, reason: they are driven from elsewhere}";
        format!("  expectedDifferences: [{elsewhere}, {{path: '{path}', reason: it is newer}}]\n")
    };
    workspace.staging(port, &expected("databases.*.tables"));
    let (found, whole) = workspace.diff(&[], 3);
    assert_eq!(unexpected(&found), [of_the_database[3].as_str()], "{whole:#}");
    assert_eq!(found[&of_the_database[1]].as_deref(), Some("it is newer"));
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

#[tokio::test]
async fn whatever_two_schemas_differ_in_is_found() {
    let cluster = Cluster::start().await;
    let pairs = [
        (
            "CREATE VIEW v AS SELECT 1 AS a",
            "CREATE VIEW v AS SELECT 2 AS a",
            "tables[\"public.v\"].definition",
        ),
        (
            "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (a) STORED)",
            "CREATE TABLE g (a int, b int)",
            "tables[\"public.g\"].columns.b",
        ),
        (
            "CREATE TABLE i (a int GENERATED ALWAYS AS IDENTITY)",
            "CREATE TABLE i (a int NOT NULL)",
            "tables[\"public.i\"].columns.a",
        ),
        (
            "CREATE TABLE c (a text COLLATE \"C\")",
            "CREATE TABLE c (a text)",
            "tables[\"public.c\"].columns.a",
        ),
        (
            "CREATE DOMAIN d AS int CHECK (VALUE > 1)",
            "CREATE DOMAIN d AS int CHECK (VALUE > 2)",
            "types[\"public.d\"]",
        ),
        (
            "CREATE TYPE t AS (a int)",
            "CREATE TYPE t AS (a bigint)",
            "types[\"public.t\"]",
        ),
        (
            "CREATE TYPE r AS RANGE (subtype = int)",
            "CREATE TYPE r AS RANGE (subtype = bigint)",
            "types[\"public.r\"]",
        ),
        (
            "CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (2)",
            "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
            "tables[\"public.p\"].partitions.p1",
        ),
        (
            "CREATE TABLE x (a int); CREATE INDEX xi ON x (a)",
            "CREATE TABLE x (a int); CREATE INDEX xi ON x (a); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'xi'::regclass",
            "tables[\"public.x\"].indexes.xi",
        ),
    ];
    let server = Database::new(cluster.config());
    let mut schemas = Vec::new();
    for name in ["one", "two"] {
        server.query(&format!("CREATE DATABASE {name}")).await.expect("made");
        let mut config = cluster.config();
        config.database = name.to_owned();
        let database = Database::new(config);
        for (one, two, _) in pairs {
            database
                .query(if name == "one" { one } else { two })
                .await
                .expect("made");
        }
        schemas.push(schema::look(&database).await.expect("a schema"));
    }
    let found: BTreeSet<String> = differences(&schemas[0], &schemas[1])
        .iter()
        .map(|difference| difference.path.to_string())
        .collect();
    let expected: BTreeSet<String> = pairs.iter().map(|(_, _, path)| (*path).to_owned()).collect();
    assert_eq!(found, expected, "{schemas:#?}");
}

/// What lies in a namespace of its own does not hide what has its name.
#[test]
fn objects_of_one_name_in_two_namespaces_are_compared_each() {
    let workspace = Workspace(tempfile::tempdir().expect("a directory"));
    let production = include_str!("cluster/replica/production.yaml");
    workspace.write("environments/production.yaml", production);
    let other = production
        .replace("name: production", "name: staging")
        .replace("greeting: hello", "greeting: bye");
    workspace.write("environments/staging.yaml", &other);
    let object = |namespace: &str, word: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web, namespace: {namespace}}}\ndata: {{a: {word}}}\n---\n"
        )
    };
    let first = object("one", "{{ vars.greeting }}");
    workspace.write("templates/web/config.yaml", &(first + &object("two", "z")));
    workspace.write("templates/web/deployment.yaml", "# none\n");
    let (found, whole) = workspace.diff(&["--against", "production"], 3);
    let path = "manifests.one/ConfigMap/web.data.a";
    assert!(unexpected(&found).contains(&path), "{whole:#}");
}

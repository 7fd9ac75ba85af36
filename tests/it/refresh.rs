//! `stagegate refresh`: data for a replica, between two real databases.

use std::collections::BTreeMap;
use std::process::Command;

use stagegate::model::environment::RefreshTable;
use stagegate::refresh::{Column, fates};
use stagegate::signals::postgres::{Database, DatabaseConfig};

use crate::signals::cluster::Cluster;
use crate::trivial::{Running, Said};

const BASE: &str = "
CREATE TABLE people (id bigint PRIMARY KEY, email text NOT NULL, fullname varchar(40), dn text, sex text);
CREATE TABLE orders (id bigint PRIMARY KEY, owner_email text NOT NULL, secret_note text, made timestamptz NOT NULL,
                     double_id bigint GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO people SELECT i, 'someone' || i || '@example.org', 'Some One ' || i, '/DC=org/CN=Some One ' || i, 'x' FROM generate_series(1, 2000) i;
INSERT INTO orders SELECT i, 'someone' || (i % 2000 + 1) || '@example.org', 'psst ' || i, '2026-01-01' FROM generate_series(1, 5000) i;
INSERT INTO orders VALUES (9000, 'old@example.org', NULL, '2001-01-01');
INSERT INTO orders VALUES (9001, 'someone1@example.org', NULL, '2026-02-01');
CREATE VIEW seen AS SELECT id FROM orders;
ALTER DATABASE base SET datestyle = 'SQL, DMY';
CREATE ROLE reader LOGIN;
GRANT SELECT ON people, orders, seen TO reader;
GRANT pg_read_all_stats TO reader;
";
const REPLICA: &str = "
CREATE TABLE people (id bigint PRIMARY KEY, email text NOT NULL, fullname varchar(40), dn text, sex text, ours text);
CREATE TABLE orders (id bigint PRIMARY KEY, owner_email text NOT NULL, secret_note text, made timestamptz NOT NULL,
                     double_id bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE SEQUENCE order_ids;
CREATE TABLE seen (id bigint);
INSERT INTO people VALUES (1, 'before', NULL, NULL, NULL, NULL);
";
const COLUMNS: &str = "
            - name: public.people
              columns: {email: hash, fullname: fakeName, dn: fakeDn, sex: keep}
            - name: public.orders
              rows: made > '2020-01-01'
              columns: {owner_email: hash, secret_note: drop}
              sequences: {public.order_ids: id}
";

/// Two databases, an environment of each, and a state.
struct Place {
    cluster: Cluster,
    directory: tempfile::TempDir,
}

impl Place {
    async fn new(tables: &str) -> Self {
        let cluster = Cluster::start().await;
        for name in ["base", "replica"] {
            cluster
                .database()
                .query(&format!("CREATE DATABASE {name}"))
                .await
                .expect("made");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let environments = directory.path().join("workspace/environments");
        std::fs::create_dir_all(&environments).expect("made");
        let address = |database: &str, user: &str| {
            format!(
                "databases: [{{name: shop, postgres: {{host: 127.0.0.1, port: \"{}\", database: {database}, user: {user}}}}}]",
                cluster.port
            )
        };
        let head = "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\n";
        let base = format!(
            "{head}metadata: {{name: base}}\nspec:\n  {}\n  components:\n    - name: database\n      nodes: [{{name: b}}]\n",
            address("base", "reader")
        );
        let replica = format!(
            "{head}metadata: {{name: replica}}\nspec:\n  replicaOf: base\n  {}\n  components:\n    - name: database\n      nodes: [{{name: r}}]\n      \
             refresh:\n        from: shop\n        into: shop\n        tables:{tables}",
            address("replica", "postgres")
        );
        for (name, text) in [("base", base), ("replica", replica)] {
            std::fs::write(environments.join(format!("{name}.yaml")), text).expect("written");
        }
        let this = Self { cluster, directory };
        this.sql("base", BASE).await;
        this.sql("replica", REPLICA).await;
        this
    }

    async fn sql(&self, database: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        let config = DatabaseConfig {
            database: database.to_owned(),
            ..self.cluster.config()
        };
        Database::new(config).query(sql).await.expect(sql)
    }

    async fn one(&self, sql: &str) -> String {
        let rows = self.sql("replica", sql).await;
        rows[0][0].clone().unwrap_or_default()
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let command = Command::new(env!("CARGO_BIN_EXE_stagegate"));
        Running::at(command, self.directory.path(), arguments)
    }

    fn refresh(&self, more: &[&str]) -> Said {
        self.start(&[&["refresh", "replica"], more].concat()).end()
    }

    /// The replica has what it had.
    async fn is_as_before(&self) {
        let all = "SELECT string_agg(email, ',') || (SELECT count(*) FROM orders)::text FROM people";
        assert_eq!(self.one(all).await, "before0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_gets_its_bases_rows_with_stand_ins_that_still_join() {
    let place = Place::new(COLUMNS).await;
    let looked = place.refresh(&["--dry-run"]).expect_code(0);
    assert!(
        looked.out.contains("email (hash), fullname (fakeName), dn (fakeDn)"),
        "{looked:?}"
    );
    place.is_as_before().await;

    let said = place.refresh(&["-o", "json"]).expect_code(0).json();
    let tables = said["status"]["tables"].as_array().expect("a list");
    let figure = |table: usize, key: &str| tables[table][key].as_u64().expect("a number");
    assert_eq!((figure(0, "rows"), figure(1, "rows")), (2_000, 5_001), "{said:#}");
    assert_eq!(
        (figure(0, "compared"), figure(1, "compared")),
        (6_000, 2_000),
        "{said:#}"
    );

    // Whoever was joined before still is, and nobody's value is there.
    let joined = "SELECT count(*) FROM orders JOIN people ON owner_email = email WHERE double_id = 2 * orders.id";
    assert_eq!(place.one(joined).await, "5001");
    assert_eq!(place.one("SELECT nextval('order_ids')").await, "9002");
    // Whatever order days and months have at the base.
    assert_eq!(
        place.one("SELECT made::date FROM orders WHERE id = 9001").await,
        "2026-02-01"
    );
    let through = "SELECT count(*) FROM (SELECT people::text AS t FROM people UNION ALL SELECT orders::text FROM orders) all_of_it \
                   WHERE t ~ 'example.org|Some One|psst'";
    assert_eq!(place.one(through).await, "0");
    assert_eq!(place.one("SELECT count(DISTINCT email) FROM people").await, "2000");
    assert_eq!(
        place
            .one("SELECT count(*) FROM people WHERE sex = 'x' AND fullname LIKE 'Person %'")
            .await,
        "2000"
    );
    let first = place.one("SELECT email FROM people WHERE id = 7").await;

    // Other stand-ins the next time, and the history says that it was.
    place.refresh(&[]).expect_code(0);
    assert_ne!(place.one("SELECT email FROM people WHERE id = 7").await, first);
    let events = place.start(&["events", "replica"]).end();
    assert!(events.out.matches("DataRefreshed").count() == 2, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_masked_does_not_arrive() {
    for (tables, words) in [
        (
            "\n            - {name: public.people, columns: {email: hash, dn: drop}}\n",
            "columns fullname, sex of public.people may tell of people",
        ),
        (
            "\n            - {name: public.persons}\n",
            "table public.persons cannot be read: there is none of this name",
        ),
        (
            "\n            - {name: public.people, columns: {email: drop}, rest: drop}\n",
            "email of public.people cannot be dropped",
        ),
        (
            "\n            - {name: public.seen}\n",
            "table public.seen cannot be read: it is no table that holds rows",
        ),
        (
            "\n            - {name: public.people, columns: {email: hash}, rest: drop, rows: \"true) UNION ALL (SELECT 1\"}\n",
            "refused `SELECT",
        ),
    ] {
        let place = Place::new(tables).await;
        let refused = place.refresh(&[]);
        assert!(
            refused.code.is_some_and(|code| code != 0) && refused.err.contains(words),
            "{words}: {refused:?}"
        );
        place.is_as_before().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_or_is_killed_leaves_what_was_there() {
    let place = Place::new(COLUMNS).await;
    // Something in the replica puts one value right again.
    let trigger = "CREATE FUNCTION right_again() RETURNS trigger LANGUAGE plpgsql AS \
                   $$ BEGIN IF NEW.id = 77 THEN NEW.email := 'someone77@example.org'; END IF; RETURN NEW; END $$;\
                   CREATE TRIGGER right_again BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION right_again()";
    place.sql("replica", trigger).await;
    let caught = place.refresh(&[]);
    assert!(
        caught.code == Some(6) && caught.err.contains("1 values of column email of public.people"),
        "{caught:?}"
    );
    place.is_as_before().await;
    place.sql("replica", "DROP TRIGGER right_again ON people").await;

    // It is killed while it waits for a table that somebody holds, with all rows of the one before it written.
    let config = DatabaseConfig {
        database: "replica".to_owned(),
        ..place.cluster.config()
    };
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(7); RETURN NEW; END $$;\
                CREATE TRIGGER slow BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION slow()";
    place.sql("replica", slow).await;
    let (client, connection) = tokio_postgres::connect(
        &format!(
            "host=127.0.0.1 port={} user=postgres dbname={}",
            config.port, config.database
        ),
        tokio_postgres::NoTls,
    )
    .await
    .expect("connected");
    let connection = tokio::spawn(connection);
    client.batch_execute("SELECT pg_advisory_lock(7)").await.expect("held");
    let running = place.start(&["refresh", "replica"]);
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    while place.one(waits).await != "1" {
        tokio::task::yield_now().await;
    }
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    drop(client);
    connection.await.expect("no panic").expect("closed");
    while place
        .one("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stagegate refresh'")
        .await
        != "0"
    {
        tokio::task::yield_now().await;
    }
    place.is_as_before().await;
    place.sql("replica", "DROP TRIGGER slow ON orders").await;
    place.refresh(&[]).expect_code(0);
    assert_eq!(place.one("SELECT count(*) FROM people").await, "2000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_base_is_never_written() {
    let place = Place::new(COLUMNS).await;
    let file = place.directory.path().join("workspace/environments/replica.yaml");
    let text = std::fs::read_to_string(&file).expect("written");
    // By another name of the same machine, too.
    for host in ["127.0.0.1", "localhost"] {
        let other = text
            .replace("database: replica", "database: base")
            .replace("host: 127.0.0.1", &format!("host: {host}"));
        std::fs::write(&file, other).expect("written");
        let refused = place.refresh(&[]);
        assert!(
            refused.code == Some(6) && refused.err.contains("its tables would be emptied"),
            "{host}: {refused:?}"
        );
    }
    let people = place.sql("base", "SELECT count(*) FROM people").await;
    assert_eq!(people[0][0].as_deref(), Some("2000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_the_base_comes_first() {
    let place = Place::new(COLUMNS).await;
    // It holds the refresh up at the replica, with the base's tables locked.
    let (client, connection) = tokio_postgres::connect(
        &format!(
            "host=127.0.0.1 port={} user=postgres dbname=replica",
            place.cluster.port
        ),
        tokio_postgres::NoTls,
    )
    .await
    .expect("connected");
    tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE people").await.expect("held");
    let running = place.start(&["refresh", "replica"]);
    let holds = "SELECT count(*) FROM pg_locks WHERE relation = 'people'::regclass AND mode = 'AccessShareLock'";
    while place.sql("base", holds).await[0][0].as_deref() == Some("0") {
        tokio::task::yield_now().await;
    }
    place.sql("base", "ALTER TABLE people ADD COLUMN later text").await;
    let gave_way = running.end();
    assert!(
        gave_way.code == Some(1) && gave_way.err.contains("ALTER TABLE people"),
        "{gave_way:?}"
    );
    client.batch_execute("ROLLBACK").await.expect("let go");
    place.is_as_before().await;
}

/// The real schema that is shipped: nothing of it that people or their programs write is kept unasked.
#[test]
fn of_the_shipped_schema_every_text_is_asked_for() {
    let schema = include_str!("../../templates/panda/database/schema.sql").to_lowercase();
    let table = RefreshTable {
        name: "a.b".to_owned(),
        rows: None,
        columns: BTreeMap::new(),
        rest: None,
        sequences: BTreeMap::new(),
    };
    let mut looked = 0;
    for line in schema.lines().filter(|line| line.starts_with(' ')) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        let kind = match kind.trim_end_matches(',') {
            "character" => "varchar",
            "text" => "text",
            "json" => "json",
            "jsonb" => "jsonb",
            _ => continue,
        };
        looked += 1;
        let column = Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            longest: None,
            nullable: true,
            generated: false,
        };
        assert!(fates(&table, &[column]).is_err(), "{line}");
    }
    assert!(looked > 100, "{looked} columns");
}

#[test]
fn a_refresh_is_stated_of_a_replica_and_its_databases() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |text: &str| {
        let place = directory.path().join("environments");
        std::fs::create_dir_all(&place).expect("made");
        std::fs::write(place.join("one.yaml"), text).expect("written");
    };
    let text = "apiVersion: stagegate.dev/v1alpha1\nkind: Environment\nmetadata: {name: one}\nspec:\n  components:\n    - name: database\n      \
                nodes: [{name: n}]\n      refresh: {from: shop, into: shop, tables: [{name: people}, {name: a.b, rows: \"true; DROP\"}, {name: a.b}]}\n";
    write(text);
    let lint = Command::new(env!("CARGO_BIN_EXE_stagegate"))
        .arg("lint")
        .env("STAGEGATE_WORKSPACE", directory.path())
        .env("STAGEGATE_STATE", directory.path().join("state"))
        .output()
        .expect("it runs");
    let words = String::from_utf8_lossy(&lint.stderr).into_owned();
    for expected in [
        "is no replica",
        "there is no database `shop`",
        "`people` does not name a schema",
        "`a.b` is stated twice",
    ] {
        assert!(
            lint.status.code() == Some(2) && words.contains(expected),
            "{expected}: {words}"
        );
    }
}

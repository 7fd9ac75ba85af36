//! What happens when the disk or the program fails in the middle: looked at from inside.

use super::*;
use crate::model::upgrade::{Kept, Phase, Severity};
use crate::model::values::Digest;
use crate::store::build::Mark;
use crate::store::{Dispatch, Quarantine, Take, Verification, WishChange};
use serde_json::json;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn status(phase: Phase, message: &str) -> UpgradeStatus {
    serde_json::from_value(json!({"phase": phase, "message": message, "since": NOW})).expect("a status")
}

fn holder(pid: u32) -> Holder {
    Holder {
        user: "shifter".into(),
        host: "here".into(),
        pid,
        start_ticks: 1,
        boot_id: "boot".into(),
        pid_namespace: "ns".into(),
    }
}

fn happened(message: &str) -> Event {
    Event {
        at: NOW,
        reason: "Tested".into(),
        severity: Severity::Step,
        node: None,
        message: message.into(),
    }
}

fn to_chat(record: &EventRecord) -> Vec<Dispatch> {
    vec![Dispatch {
        sink: "chat".into(),
        thread: record.upgrade.clone().unwrap_or_default(),
        dedupe_key: record.seq.to_string(),
        payload: json!({"text": record.event.message}),
    }]
}

/// An upgrade in the middle, and the commit that touches every table.
struct Scene {
    token: FencingToken,
    version: u64,
    wish_version: u64,
    status: UpgradeStatus,
    events: Vec<Event>,
    builds: Vec<BuildChange>,
}

impl Scene {
    fn set(store: &SqliteStore) -> Self {
        let spec =
            serde_json::from_value(json!({"environment": "staging", "component": "tickets", "build": "tickets-1"}))
                .expect("a spec");
        store
            .put_resource("Build", "tickets-1", &json!({}), Expect::Absent, NOW)
            .expect("put");
        let ttl = Duration::from_secs(30);
        let token = store
            .acquire("staging", &holder(1), ttl, NOW, &|_| Liveness::Alive)
            .expect("free");
        let record = store
            .create_upgrade("up", &spec, &status(Phase::Pending, "before"), NOW)
            .expect("created");
        let mark = |mark| BuildChange {
            build: "tickets-1".into(),
            mark,
        };
        Self {
            token,
            version: record.resource_version,
            wish_version: record.wish_version,
            status: status(Phase::Rolling, "after"),
            events: vec![happened("first"), happened("second")],
            builds: vec![
                mark(Mark::Quarantine(Quarantine {
                    environment: "staging".into(),
                    reason: "slow".into(),
                    at: NOW,
                })),
                mark(Mark::Verify(Verification {
                    environment: "other".into(),
                    digest: Digest::of(b"x"),
                    at: NOW,
                    asked_by: None,
                })),
            ],
        }
    }

    fn commit<'a>(&'a self, dispatch: &'a Dispatcher<'a>) -> Commit<'a> {
        Commit {
            upgrade: "up",
            expected_version: self.version,
            token: &self.token,
            at: NOW,
            status: &self.status,
            events: &self.events,
            builds: &self.builds,
            wish: Some(WishChange {
                seen: self.wish_version,
                to: Wish::Pause,
            }),
            dispatch,
        }
    }
}

#[test]
fn upgrades_that_keep_something_are_found_by_their_index() {
    let store = in_memory();
    let scene = Scene::set(&store);
    assert!(store.kept(None).expect("read").is_empty());
    let mut status = scene.status.clone();
    (status.phase, status.kept) = (Phase::Aborted, Some(Kept::default()));
    let commit = |expected_version, status: &UpgradeStatus| {
        let committed = store.commit(&Commit {
            expected_version,
            status,
            builds: &[],
            wish: None,
            ..scene.commit(&crate::store::no_dispatch)
        });
        committed.expect("written").resource_version
    };
    let version = commit(scene.version, &status);
    for environment in [None, Some("staging")] {
        let found = store.kept(environment).expect("read");
        assert_eq!(found.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), ["up"]);
    }
    assert!(store.kept(Some("other")).expect("read").is_empty());
    let plan: String = store
        .read("explain", |tx| {
            let plan = "EXPLAIN QUERY PLAN SELECT * FROM upgrades WHERE status ->> '$.kept' IS NOT NULL ORDER BY id";
            Ok(tx.query_row(plan, [], |row| row.get(3))?)
        })
        .expect("explained");
    assert!(plan.contains("upgrades_that_keep"), "{plan}");
    // It is given back, which adds to what has ended.
    status.kept = None;
    commit(version, &status);
    assert!(store.kept(None).expect("read").is_empty());
}

/// All that a reader could see, to compare by.
fn all(store: &SqliteStore) -> String {
    let lease = store.lease("staging").expect("read");
    format!("{}\n{:?}", remembered(store), lease.and_then(|lease| lease.holder))
}

/// The same without who drives, which a copy forgets.
fn remembered(store: &SqliteStore) -> String {
    let query = EventQuery {
        environment: None,
        upgrade: None,
        promotion: None,
        after: 0,
        take: Take::First(100),
    };
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        store.upgrades(None, 10).expect("read"),
        store.resources("Build").expect("read"),
        store.events(&query).expect("read"),
        store.pending(None, None).expect("read"),
        store.lease("staging").expect("read").map(|l| (l.counter, l.renewed_at)),
    )
}

fn in_memory() -> SqliteStore {
    SqliteStore::in_memory("home").expect("memory")
}

#[test]
fn a_commit_that_fails_at_any_table_changes_none() {
    for (table, on) in [
        ("leases", "UPDATE"),
        ("meta", "UPDATE"),
        ("upgrades", "UPDATE"),
        ("resources", "INSERT"),
        ("events", "INSERT"),
        ("outbox", "INSERT"),
    ] {
        let store = in_memory();
        let scene = Scene::set(&store);
        let before = all(&store);
        let break_it =
            format!("CREATE TEMP TRIGGER broken AFTER {on} ON {table} BEGIN SELECT RAISE(ABORT, 'broken'); END");
        store.lock().execute_batch(&break_it).expect("a trigger");
        store.commit(&scene.commit(&to_chat)).expect_err(table);
        assert_eq!(all(&store), before, "{table}");

        store.lock().execute_batch("DROP TRIGGER broken").expect("mended");
        store.commit(&scene.commit(&to_chat)).expect("now it works");
        assert_ne!(all(&store), before);
    }
}

#[test]
fn a_panic_in_the_middle_changes_nothing_and_the_store_goes_on() {
    let store = in_memory();
    let scene = Scene::set(&store);
    let before = all(&store);
    let fails = |_: &EventRecord| -> Vec<Dispatch> { panic!("a bug in a text") };
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.commit(&scene.commit(&fails))));
    assert!(caught.is_err());
    assert_eq!(all(&store), before);
    store.commit(&scene.commit(&to_chat)).expect("goes on");
}

/// The directory as a crash at this moment would leave it.
fn crash_image(directory: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().expect("a directory");
    for file in std::fs::read_dir(directory).expect("read").map(|f| f.expect("read")) {
        // The -shm file is memory shared between the living; the dead have none.
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), image.path().join(file.file_name())).expect("copied");
        }
    }
    image
}

#[test]
fn a_crash_before_the_commit_leaves_the_old_state_and_one_after_it_the_new() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(directory.path()).expect("opened");
    let scene = Scene::set(&store);
    // A small cache, so that SQLite writes pages of the unfinished transaction to the disk.
    store.lock().execute_batch("PRAGMA cache_size = 1").expect("set");
    let before = remembered(&store);
    let images = std::cell::RefCell::new(Vec::new());
    let snap = |record: &EventRecord| {
        images.borrow_mut().push(crash_image(directory.path()));
        to_chat(record)
    };
    let many: Vec<_> = (0..50)
        .map(|i| happened(&format!("{i} {}", "x".repeat(2_000))))
        .collect();
    let mut commit = scene.commit(&snap);
    commit.events = &many;
    store.commit(&commit).expect("committed");

    let after = crash_image(directory.path());
    assert_eq!(
        remembered(&SqliteStore::open(after.path()).expect("opened")),
        remembered(&store)
    );
    for image in images.into_inner() {
        let recovered = SqliteStore::open(image.path()).expect("opened");
        assert_eq!(remembered(&recovered), before);
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_is_half_written() {
    let store = in_memory();
    let scene = Scene::set(&store);
    let before = all(&store);
    let pages: i64 = store
        .lock()
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .expect("a number");
    store
        .lock()
        .execute_batch(&format!("PRAGMA max_page_count = {pages}"))
        .expect("set");
    let large = [happened(&"x".repeat(100_000))];
    let mut commit = scene.commit(&to_chat);
    commit.events = &large;
    let refused = store.commit(&commit).expect_err("no space");
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    assert_eq!(all(&store), before);
}

#[test]
fn a_read_only_file_is_named() {
    let store = in_memory();
    let scene = Scene::set(&store);
    store.lock().execute_batch("PRAGMA query_only = ON").expect("set");
    let refused = store.commit(&scene.commit(&to_chat)).expect_err("read-only");
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused}");
}

#[test]
fn a_file_of_a_newer_version_is_refused_untouched() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE_NAME);
    drop(SqliteStore::open(directory.path()).expect("opened"));
    Connection::open(&path)
        .and_then(|c| c.pragma_update(None, "user_version", 99))
        .expect("set");
    let bytes = std::fs::read(&path).expect("read");
    match SqliteStore::open(directory.path()) {
        Err(StoreError::Newer { found: 99, known, .. }) => {
            assert_eq!(known, i64::try_from(schema::STEPS.len()).expect("few"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).expect("read"), bytes);
}

fn version_of(connection: &Connection) -> i64 {
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .expect("a version")
}

#[test]
fn an_older_file_becomes_the_present_one_or_stays_as_it_was() {
    let path = Path::new("test");
    let mut connection = Connection::open_in_memory().expect("memory");
    schema::settle_by(&schema::STEPS[..1], &mut connection, path)
        .ok()
        .expect("version 1");
    let home = schema::home(&connection, path).ok().expect("a home");

    let broken = [schema::STEPS[0], "CREATE TABLE half (a); CREATE TABLE half (a);"];
    assert!(schema::settle_by(&broken, &mut connection, path).is_err());
    assert_eq!(version_of(&connection), 1);
    let half: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'half'", [], |row| {
            row.get(0)
        })
        .expect("a number");
    assert_eq!(half, 0, "the first half of the broken step is gone");

    let whole = [schema::STEPS[0], "CREATE TABLE more (a); INSERT INTO more VALUES (7);"];
    schema::settle_by(&whole, &mut connection, path)
        .ok()
        .expect("version 2");
    schema::settle_by(&whole, &mut connection, path)
        .ok()
        .expect("again, without effect");
    assert_eq!(version_of(&connection), 2);
    let rows: i64 = connection
        .query_row("SELECT count(*) FROM more", [], |row| row.get(0))
        .expect("a number");
    assert_eq!(rows, 1);
    assert_eq!(schema::home(&connection, path).ok().expect("a home"), home);
}

/// Every version that was ever written is brought to the present one, with what it holds.
#[test]
fn a_file_of_any_version_is_brought_up_to_date() {
    for version in 1..=schema::STEPS.len() {
        let mut connection = Connection::open_in_memory().expect("memory");
        let path = Path::new("test");
        let steps = &schema::STEPS[..version];
        schema::settle_by(steps, &mut connection, path).ok().expect("older");
        schema::settle(&mut connection, path).ok().expect("up to date");
        connection
            .execute_batch("SELECT count(*) FROM resources; SELECT count(*) FROM attestations")
            .unwrap_or_else(|why| panic!("{version}: {why}"));
    }
}

fn attestation(commit: &str, envelope: &str) -> Attestation {
    Attestation {
        repository: "r".into(),
        commit: commit.into(),
        envelope: envelope.into(),
        stored_at: NOW,
    }
}

#[test]
fn attestations_are_kept_once_in_their_order_and_within_their_bounds() {
    let store = in_memory();
    let put = |commit: &str, envelope: &str| store.put_attestation(&attestation(commit, envelope)).expect("kept");
    let envelopes = |commit: &str| -> Vec<String> {
        let found = store.attestations(commit).expect("read").into_iter();
        found.map(|one| one.envelope).collect()
    };
    put("a", "1");
    put("a", "2");
    put("a", "1");
    put("b", "1");
    assert_eq!(
        store.attestations("a").expect("read"),
        [attestation("a", "1"), attestation("a", "2")]
    );
    assert_eq!((envelopes("b").len(), envelopes("c").len()), (1, 0));
    let most = crate::store::KEEP_ATTESTATIONS_OF_A_COMMIT;
    for n in 0..most {
        put("a", &format!("new-{n}"));
    }
    assert_eq!(envelopes("a").len() as u64, most);
    assert_eq!(envelopes("a")[0], "new-0", "the oldest went");
    assert_eq!(envelopes("b").len(), 1, "of another commit none");
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
         INSERT INTO attestations (repository, commit_id, envelope, stored_us) SELECT 'r', 'c' || i, 'e', 0 FROM n;",
        crate::store::KEEP_ATTESTATIONS
    );
    store.lock().execute_batch(&fill).expect("filled");
    assert_eq!(store.prune().expect("pruned").attestations, most + 1);
    assert_eq!(store.prune().expect("again"), Pruned::default());
    assert_eq!((envelopes("a").len(), envelopes("c1").len()), (0, 1));
}

#[test]
fn pruning_keeps_the_last_upgrade_of_record_of_each_component() {
    let store = in_memory();
    let mut id = 0;
    let mut put = |name: &str, environment: &str, component: &str, phase: &str, steps: u32| {
        id += 1;
        let spec = json!({"environment": environment, "component": component, "build": "b"});
        let node = json!({"name": "n", "phase": "Waiting", "since": NOW, "steps": steps});
        let status = json!({"phase": phase, "since": NOW, "nodes": [node]});
        let record = UpgradeRecord {
            name: name.to_owned(),
            spec: serde_json::from_value(spec.clone()).expect("a spec"),
            status: serde_json::from_value(status.clone()).expect("a status"),
            resource_version: 1,
            wish_version: 1,
            created_at: NOW,
        };
        store
            .lock()
            .execute(
                "INSERT INTO upgrades (id, name, environment, spec, status, wish, wish_version, resource_version, finished, created_us)
                 VALUES (?1, ?2, ?3, ?4, ?5, '\"Proceed\"', 1, 1, 1, 0)",
                rusqlite::params![id, name, environment, spec.to_string(), status.to_string()],
            )
            .expect("filled");
        record.is_of_record()
    };
    assert!(put("web-before", "staging", "web", "Succeeded", 2));
    assert!(put("web-last", "staging", "web", "RolledBack", 2));
    assert!(!put("web-not-begun", "staging", "web", "Failed", 0));
    assert!(put("mail-ran-it", "staging", "mail", "Succeeded", 0));
    assert!(put("web-elsewhere", "production", "web", "Succeeded", 1));
    for n in 0..crate::store::KEEP_FINISHED_UPGRADES {
        put(&format!("new-{n}"), "other", "web", "Succeeded", 1);
    }
    let change = |how: &str| {
        let text = format!("UPDATE upgrades SET status = {how} WHERE name = 'web-not-begun'");
        store.lock().execute(&text, []).expect("written");
    };
    // Somebody has to come again for it.
    change("json_set(status, '$.kept', json('{}'))");
    let pruned = store.prune().expect("pruned");
    assert_eq!(pruned.upgrades, ["web-before"]);
    change("json_remove(status, '$.kept')");
    assert_eq!(store.prune().expect("pruned").upgrades, ["web-not-begun"]);
    assert_eq!(store.prune().expect("again"), Pruned::default());
}

#[test]
fn pruning_keeps_the_bounds_and_what_is_open() {
    let store = in_memory();
    let scene = Scene::set(&store);
    {
        let connection = store.lock();
        let fill = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO upgrades (name, environment, spec, status, wish, wish_version, resource_version, finished, created_us)
             SELECT printf('old-%04d', i), 'other', spec, replace(status, 'Pending', 'Succeeded'), wish, 1, 1, 1, 0 FROM n, upgrades;",
            crate::store::KEEP_FINISHED_UPGRADES + 3
        );
        connection.execute_batch(&fill).expect("filled");
        let fill = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO events (environment, upgrade, body) SELECT 'other', printf('old-%04d', i), '{{}}' FROM n;",
            crate::store::KEEP_EVENTS + 10
        );
        connection.execute_batch(&fill).expect("filled");
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO outbox (seq, environment, sink, thread, dedupe_key, payload, state)
             SELECT i, 'other', 'chat', 't', 'k' || i, '{}', CASE i % 2 WHEN 0 THEN 'waiting' ELSE 'delivered' END FROM n;";
        connection.execute_batch(fill).expect("filled");
    }
    store.commit(&scene.commit(&to_chat)).expect("committed");

    let pruned = store.prune().expect("pruned");
    assert_eq!(pruned.upgrades, ["old-0001", "old-0002", "old-0003"]);
    // Three of the pruned upgrades' own, then down to the bound: 10 too many and two of the commit.
    assert_eq!(pruned.events, 12);
    assert_eq!(pruned.reports, 500);
    assert_eq!(store.prune().expect("again"), Pruned::default());
    let kept = store.upgrades(None, 1_000).expect("read");
    assert_eq!(kept.len() as u64, crate::store::KEEP_FINISHED_UPGRADES + 1);
    assert_eq!(kept[0].name, "up", "the open one, however old");
    let waiting: u64 = store.pending(None, None).expect("read").iter().map(|p| p.waiting).sum();
    assert_eq!(waiting, 1_502, "what waits is never dropped");
}

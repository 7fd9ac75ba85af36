//! The embedded home as its users see it: several processes, crashes, and files that are not what they should be.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use serde_json::json;
use stagegate::audit::{Act, Broken, Head, Verifier};
use stagegate::hosts::FencingToken;
use stagegate::model::upgrade::{Event, Phase, Severity, UpgradeSpec, UpgradeStatus, Wish};
use stagegate::store::build::Mark;
use stagegate::store::sqlite::FILE_NAME;
use stagegate::store::{
    BuildChange, BuildStatus, Commit, Dispatch, EventQuery, EventRecord, Expect, Holder, LetterQuery, Liveness, Put,
    Quarantine, Release, Settlement, SqliteStore, Store, StoreError, Take, WishChange, fresh_upgrade_name, no_dispatch,
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const TTL: Duration = Duration::from_secs(30);

fn home() -> (tempfile::TempDir, SqliteStore) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(directory.path()).expect("opened");
    (directory, store)
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

fn alive(_: &Holder) -> Liveness {
    Liveness::Alive
}

fn spec(environment: &str) -> UpgradeSpec {
    serde_json::from_value(json!({"environment": environment, "component": "tickets", "build": "tickets-1"}))
        .expect("a spec")
}

fn status(phase: Phase, message: &str) -> UpgradeStatus {
    serde_json::from_value(json!({"phase": phase, "message": message, "since": NOW})).expect("a status")
}

fn event(message: &str) -> Event {
    Event {
        at: NOW,
        reason: "Tested".into(),
        severity: Severity::Step,
        node: Some("node1".into()),
        message: message.into(),
    }
}

fn to_chat(record: &EventRecord) -> Vec<Dispatch> {
    vec![Dispatch {
        sink: "chat".into(),
        thread: record.upgrade.clone().unwrap_or_default(),
        dedupe_key: record.seq.to_string(),
        payload: json!({"seq": record.seq}),
    }]
}

fn take(store: &SqliteStore, environment: &str, pid: u32) -> FencingToken {
    store
        .acquire(environment, &holder(pid), TTL, NOW, &alive)
        .expect("free")
}

fn step<'a>(
    token: &'a FencingToken,
    expected_version: u64,
    status: &'a UpgradeStatus,
    events: &'a [Event],
) -> Commit<'a> {
    Commit {
        upgrade: "up",
        expected_version,
        token,
        at: NOW,
        status,
        events,
        builds: &[],
        wish: None,
        dispatch: &to_chat,
    }
}

fn events_of(store: &SqliteStore, upgrade: &str) -> Vec<EventRecord> {
    let query = EventQuery {
        environment: None,
        upgrade: Some(upgrade),
        promotion: None,
        after: 0,
        take: Take::First(10_000),
    };
    store.events(&query).expect("read")
}

// ---- the place and the file

#[test]
fn a_home_is_ours_alone_and_keeps_its_identity() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("a/state");
    let store = SqliteStore::open(&directory).expect("made");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in std::fs::read_dir(&directory).expect("read") {
        let path = file.expect("read").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let identity = store.home().to_owned();
    assert_eq!(identity.len(), 32);
    drop(store);
    assert_eq!(SqliteStore::open(&directory).expect("again").home(), identity);
    let (_other, other) = home();
    assert_ne!(other.home(), identity);
}

#[test]
fn a_directory_open_to_others_is_closed_when_it_is_ours_and_refused_when_it_holds_something_else() {
    let parent = tempfile::tempdir().expect("a directory");
    let open = |name: &str| {
        let path = parent.path().join(name);
        std::fs::create_dir(&path).expect("made");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("opened");
        path
    };
    let empty = open("empty");
    SqliteStore::open(&empty).expect("closed and used");
    assert_eq!(
        std::fs::metadata(&empty).expect("there").permissions().mode() & 0o777,
        0o700
    );

    let used = open("used");
    std::fs::write(used.join("letters"), "private").expect("written");
    match SqliteStore::open(&used) {
        Err(e @ StoreError::Open { .. }) => assert!(e.to_string().contains("chmod 700"), "{e}"),
        other => panic!("{other:?}"),
    }
    assert!(!used.join(FILE_NAME).exists());
}

#[test]
fn a_file_that_is_not_ours_is_refused_untouched() {
    let text = b"this is a letter and no database, long enough to fill a header of a hundred bytes, which it now does.";
    let foreign = tempfile::tempdir().expect("a directory");
    let path = foreign.path().join(FILE_NAME);
    std::fs::write(&path, text).expect("written");
    let refused = SqliteStore::open(foreign.path()).expect_err("a letter");
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).expect("read"), text);

    let other = tempfile::tempdir().expect("a directory");
    let path = other.path().join(FILE_NAME);
    rusqlite::Connection::open(&path)
        .and_then(|c| c.execute_batch("CREATE TABLE theirs (a)"))
        .expect("a database of another application");
    let bytes = std::fs::read(&path).expect("read");
    let refused = SqliteStore::open(other.path()).expect_err("theirs");
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).expect("read"), bytes);
}

#[test]
fn a_damaged_file_is_found_after_a_crash() {
    let (directory, store) = home();
    for i in 0..200 {
        store
            .put_resource(
                "Build",
                &format!("b-{i}"),
                &json!({"pad": "x".repeat(500)}),
                Expect::Absent,
                NOW,
            )
            .expect("put");
    }
    drop(store);
    let path = directory.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).expect("read");
    let pages = bytes.len() / 4096;
    assert!(pages > 10);
    for page in 5..pages {
        bytes[page * 4096..page * 4096 + 64].fill(0xff);
    }
    std::fs::write(&path, bytes).expect("damaged");
    // The sign of a crash: a log that nobody has cleared away.
    std::fs::write(directory.path().join("stagegate.db-wal"), [0; 32]).expect("written");
    let refused = SqliteStore::open(directory.path()).expect_err("damaged");
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("backup"), "{refused}");
}

#[test]
fn a_file_in_use_is_not_read_through_for_each_command() {
    let (directory, store) = home();
    for i in 0..200 {
        let spec = json!({"pad": "x".repeat(500)});
        store
            .put_resource("Build", &format!("b-{i}"), &spec, Expect::Absent, NOW)
            .expect("put");
    }
    let path = directory.path().join(FILE_NAME);
    rusqlite::Connection::open(&path)
        .and_then(|c| c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())))
        .expect("in the file");
    let mut bytes = std::fs::read(&path).expect("read");
    let last = bytes.len() - 4096;
    bytes[last..last + 64].fill(0xff);
    std::fs::write(&path, bytes).expect("damaged, to see who looks");
    SqliteStore::open(directory.path()).expect("does not look while another lives");
    drop(store);
}

#[test]
fn many_processes_may_make_the_home_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    let start = Barrier::new(8);
    let homes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    SqliteStore::open(&path).expect("opened").home().to_owned()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    assert!(homes.iter().all(|home| *home == homes[0]), "{homes:?}");
}

#[test]
fn a_backup_taken_in_use_is_a_whole_home() {
    let (directory, store) = home();
    store
        .put_resource("Build", "tickets-1", &json!({"a": 1}), Expect::Absent, NOW)
        .expect("put");
    let copy = tempfile::tempdir().expect("a directory");
    let to = copy.path().join(FILE_NAME);
    store.backup(&to).expect("backed up");
    assert_eq!(
        std::fs::metadata(&to).expect("there").permissions().mode() & 0o777,
        0o600
    );
    let restored = SqliteStore::open(copy.path()).expect("opened");
    assert_ne!(restored.home(), store.home(), "the original may live on");
    assert_eq!(
        restored.resources("Build").expect("read"),
        store.resources("Build").expect("read")
    );
    assert!(
        matches!(store.backup(&to), Err(StoreError::Exists { .. })),
        "never over a file"
    );
    assert!(matches!(
        store.backup(&directory.path().join("none/here.db")),
        Err(StoreError::Place { .. })
    ));
}

#[test]
fn a_file_that_was_put_back_or_copied_is_a_home_of_its_own_and_one_that_was_moved_is_not() {
    let (directory, store) = home();
    let home = store.home().to_owned();
    take(&store, "staging", 1);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let backup = elsewhere.path().join("backup");
    store.backup(&backup).expect("backed up");
    drop(store);
    let file = directory.path().join(FILE_NAME);
    let open = |directory: &std::path::Path| SqliteStore::open(directory).expect("opened");
    assert_eq!(open(directory.path()).home(), home, "itself");

    let moved = tempfile::tempdir_in(directory.path()).expect("a directory");
    let there = moved.path().join(FILE_NAME);
    std::fs::rename(&file, &there).expect("moved");
    assert_eq!(open(moved.path()).home(), home);
    std::fs::copy(&there, &file).expect("copied");
    let copy = open(directory.path());
    assert_ne!(copy.home(), home);
    let lease = copy.lease("staging").expect("read").expect("there");
    assert_eq!(lease.holder, None, "who drives the original drives nothing here");
    let name = copy.home().to_owned();
    drop(copy);
    assert_eq!(open(directory.path()).home(), name, "once");

    // Over the very file, whose number stays.
    std::fs::copy(&backup, &there).expect("copied");
    assert_ne!(open(moved.path()).home(), home);
}

// ---- resources

#[test]
fn a_resource_changes_only_under_the_version_that_was_read() {
    let (_directory, store) = home();
    let first = store
        .put_resource("Build", "b", &json!({"v": 1}), Expect::Absent, NOW)
        .expect("new");
    assert_eq!((first.generation, &first.status), (1, &json!({})));
    let again = store.put_resource("Build", "b", &json!({"v": 2}), Expect::Absent, NOW);
    assert!(matches!(again, Err(StoreError::Exists { .. })));

    let same = store
        .put_resource("Build", "b", &json!({"v": 1}), Expect::Anything, NOW)
        .expect("equal");
    assert_eq!(same, first, "an equal spec changes nothing");
    let second = store
        .put_resource(
            "Build",
            "b",
            &json!({"v": 2}),
            Expect::Version(first.resource_version),
            NOW,
        )
        .expect("changed");
    assert_eq!(second.generation, 2);
    assert!(second.resource_version > first.resource_version);
    let third = store
        .put_status(
            "Build",
            "b",
            &json!({"ready": true}),
            Expect::Version(second.resource_version),
            NOW,
        )
        .expect("status");
    assert_eq!((third.generation, &third.spec), (2, &json!({"v": 2})));

    let stale = store.put_resource(
        "Build",
        "b",
        &json!({"v": 3}),
        Expect::Version(second.resource_version),
        NOW,
    );
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    let missing = store.put_status("Build", "none", &json!({}), Expect::Anything, NOW);
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    assert!(store.delete_resource("Build", "b", Expect::Version(1)).is_err());
    store
        .delete_resource("Build", "b", Expect::Version(third.resource_version))
        .expect("deleted");
    assert_eq!(store.resource("Build", "b").expect("read"), None);
}

fn lifted(environment: &str) -> Mark {
    Mark::Release(Release {
        environment: environment.into(),
        reason: "mended".into(),
        user: "tester".into(),
        at: NOW,
    })
}

#[test]
fn a_quarantine_is_kept_by_environment_until_released() {
    let (_directory, store) = home();
    let spec = json!({});
    store
        .put_resource("Build", "tickets-1", &spec, Expect::Absent, NOW)
        .expect("put");
    let foreign = json!({"conditions": [], "ofANewerVersion": 7});
    store
        .put_status("Build", "tickets-1", &foreign, Expect::Anything, NOW)
        .expect("status");
    let mark = |mark| {
        let change = BuildChange {
            build: "tickets-1".into(),
            mark,
        };
        store.change_build(&change, &event("marked"), &to_chat, NOW)
    };
    let bad = |environment: &str| {
        Mark::Quarantine(Quarantine {
            environment: environment.into(),
            reason: "slow".into(),
            at: NOW,
        })
    };
    mark(bad("staging")).expect("marked");
    mark(bad("staging")).expect("marked again");
    mark(bad("other")).expect("marked");
    let read = || -> BuildStatus {
        let build = store.resource("Build", "tickets-1").expect("read").expect("there");
        build.status_as().expect("a status")
    };
    assert_eq!(read().quarantines.len(), 2, "one an environment");
    assert_eq!(read().other["ofANewerVersion"], 7, "what we do not know stays");
    mark(lifted("staging")).expect("released");
    assert!(read().quarantined_in("staging").is_none());
    assert!(read().quarantined_in("other").is_some());
    assert_eq!(read().releases[0].reason, "mended", "who looks at the build sees why");
    assert_eq!(
        store.pending(Some("staging"), None).expect("read")[0].waiting,
        3,
        "and it is told"
    );
}

// ---- upgrades, commits, wishes

#[test]
fn an_environment_has_one_unfinished_upgrade() {
    let (_directory, store) = home();
    let pending = status(Phase::Pending, "");
    let create = |name: &str, environment: &str| store.create_upgrade(name, &spec(environment), &pending, NOW);
    let up = create("up", "staging").expect("the first");
    match create("up2", "staging") {
        Err(StoreError::Unfinished { upgrade, .. }) => assert_eq!(upgrade, "up"),
        other => panic!("{other:?}"),
    }
    create("elsewhere", "production").expect("another environment");
    assert!(matches!(create("up", "third"), Err(StoreError::Exists { .. })));

    let token = take(&store, "staging", 1);
    let done = status(Phase::Succeeded, "");
    let committed = store
        .commit(&step(&token, up.resource_version, &done, &[]))
        .expect("finished");
    let committed = store
        .commit(&step(
            &token,
            committed.resource_version,
            &status(Phase::Succeeded, "and more"),
            &[],
        ))
        .expect("what is found out afterwards is added");
    let after = store.commit(&step(&token, committed.resource_version, &pending, &[]));
    assert!(
        matches!(after, Err(StoreError::Finished { .. })),
        "nothing happens after the end"
    );
    assert!(matches!(
        store.set_wish("up", Wish::Abort, None, "carol", &[], &no_dispatch),
        Err(StoreError::Finished { .. })
    ));
    create("up2", "staging").expect("the next");
    let names = |records: Vec<stagegate::store::UpgradeRecord>| -> Vec<String> {
        records.into_iter().map(|r| r.name).collect()
    };
    assert_eq!(names(store.upgrades(Some("staging"), 10).expect("read")), ["up", "up2"]);
    assert_eq!(names(store.upgrades(None, 2).expect("read")), ["elsewhere", "up2"]);
    assert_eq!(names(store.unfinished(Some("staging")).expect("read")), ["up2"]);
}

/// A promotion as stored, in this phase.
fn put_promotion(store: &SqliteStore, phase: &str, expect: Expect) -> Result<u64, StoreError> {
    let status = json!({"phase": phase, "since": NOW});
    let act = Act {
        at: NOW,
        who: "carol".into(),
        what: phase.to_owned(),
        of: "Promotion/up".into(),
        environment: "one".into(),
        why: "it is tested".into(),
        evidence: None,
    };
    let put = Put {
        kind: "Promotion",
        name: "up",
        spec: Some(&json!({"pipeline": "tickets", "stage": "one", "build": "tickets-1"})),
        status: Some(&status),
        expect,
        environment: "one",
        promotion: Some("up"),
        events: &[event(phase)],
        acts: &[act],
        dispatch: &to_chat,
        at: NOW,
    };
    store.put(&put).map(|written| written.resource_version)
}

#[test]
fn a_promotions_upgrade_is_begun_only_while_that_is_upgrading() {
    let (_directory, store) = home();
    let promoted = UpgradeSpec {
        promotion: Some("up".into()),
        ..spec("one")
    };
    let begin = || store.create_upgrade("up", &promoted, &status(Phase::Pending, ""), NOW);
    assert!(matches!(begin(), Err(StoreError::NotPromoted { promotion }) if promotion == "up"));
    let mut version = put_promotion(&store, "Waiting", Expect::Absent).expect("written");
    for (phase, may) in [
        ("Waiting", false),
        ("Failed", false),
        ("Rejected", false),
        ("Upgrading", true),
    ] {
        version = put_promotion(&store, phase, Expect::Version(version)).expect("written");
        assert_eq!(begin().is_ok(), may, "{phase}");
    }
}

#[test]
fn what_is_put_its_events_its_reports_and_its_acts_are_there_together_or_not_at_all() {
    let (directory, store) = home();
    let version = put_promotion(&store, "Waiting", Expect::Absent).expect("written");
    let stale = put_promotion(&store, "Upgrading", Expect::Version(version + 7));
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    let all = EventQuery {
        environment: None,
        upgrade: None,
        promotion: Some("up"),
        after: 0,
        take: Take::First(10),
    };
    let told = store.events(&all).expect("read");
    assert_eq!(
        told.iter().map(|told| told.event.message.as_str()).collect::<Vec<_>>(),
        ["Waiting"]
    );
    assert_eq!(store.pending(None, None).expect("read")[0].waiting, 1);
    let records = store.audit(0, 10).expect("read");
    assert_eq!(records.len(), 1);

    put_promotion(&store, "Upgrading", Expect::Version(version)).expect("written");
    let head = store.audit_head().expect("read");
    assert_eq!(head.count, 2);
    let verified = |kept: Option<Head>| {
        let mut verifier = Verifier::new(kept);
        for record in store.audit(0, 10).expect("read") {
            verifier.take(&record)?;
        }
        verifier.end()
    };
    assert_eq!(verified(Some(head)), Ok(head));
    // Our own mistakes cannot change it; who has the file can, and is found.
    let file = rusqlite::Connection::open(directory.path().join(FILE_NAME)).expect("opened");
    assert!(file.execute("UPDATE audit SET act = 'nothing'", []).is_err());
    assert!(file.execute("DELETE FROM audit", []).is_err());
    file.execute_batch("DROP TRIGGER audit_is_not_deleted; DELETE FROM audit WHERE seq = 2")
        .expect("done");
    assert!(verified(None).is_ok(), "a cut end does not show by itself");
    assert!(matches!(verified(Some(head)), Err(Broken::Cut { count: 1, kept: 2 })));
}

#[test]
fn a_commit_needs_the_lease_and_the_version_that_was_read() {
    let (_directory, store) = home();
    let up = store
        .create_upgrade("up", &spec("staging"), &status(Phase::Pending, ""), NOW)
        .expect("created");
    let token = take(&store, "staging", 1);
    let rolling = status(Phase::Rolling, "moves");
    let events = [event("one"), event("two")];
    let first = store
        .commit(&step(&token, up.resource_version, &rolling, &events))
        .expect("committed");
    assert_eq!(first.events, [1, 2]);

    let unchanged = || {
        let record = store.upgrade("up").expect("read").expect("there");
        assert_eq!(record.resource_version, first.resource_version);
        assert_eq!(events_of(&store, "up").len(), 2);
        assert_eq!(store.pending(None, Some("up")).expect("read")[0].waiting, 2);
    };
    let stale = store.commit(&step(&token, up.resource_version, &rolling, &events));
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    unchanged();

    let foreign = FencingToken {
        home: "another".into(),
        ..token.clone()
    };
    let refused = store.commit(&step(&foreign, first.resource_version, &rolling, &events));
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    unchanged();

    // The driver dies and another one takes over; the first one was only asleep.
    let newer = store
        .acquire("staging", &holder(2), TTL, NOW, &|_| Liveness::Dead)
        .expect("taken over");
    assert!(newer.counter > token.counter);
    let refused = store.commit(&step(&token, first.resource_version, &rolling, &events));
    match refused {
        Err(e @ StoreError::Fenced { .. }) => assert!(e.to_string().contains("pid 2"), "{e}"),
        other => panic!("{other:?}"),
    }
    unchanged();

    store.release("staging", &newer).expect("released");
    let refused = store.commit(&step(&newer, first.resource_version, &rolling, &events));
    assert!(
        matches!(refused, Err(StoreError::Fenced { .. })),
        "a released lease is no lease"
    );
    unchanged();
}

#[test]
fn a_wish_needs_no_lease_and_makes_no_commit_fail() {
    let (_directory, store) = home();
    let up = store
        .create_upgrade("up", &spec("staging"), &status(Phase::Pending, ""), NOW)
        .expect("created");
    let token = take(&store, "staging", 1);
    let told = [event("pause, please")];
    assert_eq!(
        store
            .set_wish("up", Wish::Pause, None, "carol", &told, &to_chat)
            .expect("wished"),
        2
    );
    // Who answers a wish that is not the last one is told so.
    let late = store.set_wish("up", Wish::Proceed, Some(1), "carol", &told, &to_chat);
    assert!(
        matches!(
            late,
            Err(StoreError::Conflict {
                expected: 1,
                found: 2,
                ..
            })
        ),
        "{late:?}"
    );
    // A clock that overrules nobody has nothing to tell.
    assert_eq!(
        store
            .set_wish("up", Wish::TimeUp, None, "carol", &told, &to_chat)
            .expect("heard"),
        2
    );
    assert_eq!(events_of(&store, "up").len(), 1);
    assert_eq!(store.pending(None, None).expect("read")[0].waiting, 1);
    let read = || store.upgrade("up").expect("read").expect("there");
    assert_eq!(read().spec.wish, Wish::Pause);
    let rolling = status(Phase::Rolling, "");
    let next = store
        .commit(&step(&token, up.resource_version, &rolling, &[]))
        .expect("no conflict");
    assert_eq!(read().spec.wish, Wish::Pause, "a commit does not undo it");

    // The engine wants to say Proceed, having seen the first wish only: the newer wish stands.
    store
        .set_wish("up", Wish::Abort, None, "carol", &[], &no_dispatch)
        .expect("wished");
    let mut commit = step(&token, next.resource_version, &rolling, &[]);
    commit.wish = Some(WishChange {
        seen: 2,
        to: Wish::Proceed,
    });
    assert!(matches!(store.commit(&commit), Err(StoreError::Conflict { .. })));
    assert_eq!(read().spec.wish, Wish::Abort);
    commit.wish = Some(WishChange {
        seen: 3,
        to: Wish::Proceed,
    });
    store.commit(&commit).expect("committed");
    assert_eq!((read().spec.wish, read().wish_version), (Wish::Proceed, 4));
    let glance = store.glance("up").expect("read").expect("there");
    assert_eq!((glance.wish, glance.wish_version), (Wish::Proceed, 4));
    assert_eq!(glance.resource_version, read().resource_version);
    assert_eq!(store.glance("none").expect("read"), None);
    assert!(matches!(
        store.set_wish("none", Wish::Pause, None, "carol", &[], &no_dispatch),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn a_mark_for_an_unknown_build_fails_the_whole_commit() {
    let (_directory, store) = home();
    let up = store
        .create_upgrade("up", &spec("staging"), &status(Phase::Pending, ""), NOW)
        .expect("created");
    let token = take(&store, "staging", 1);
    let (rolling, events) = (status(Phase::Rolling, ""), [event("one")]);
    let marks = [BuildChange {
        build: "none".into(),
        mark: lifted("staging"),
    }];
    let mut commit = step(&token, up.resource_version, &rolling, &events);
    commit.builds = &marks;
    assert!(matches!(store.commit(&commit), Err(StoreError::NotFound { .. })));
    assert_eq!(store.upgrade("up").expect("read").expect("there"), up);
    assert!(events_of(&store, "up").is_empty());
}

#[test]
fn names_of_upgrades_start_with_the_build() {
    let name = fresh_upgrade_name("tickets-1.0.4");
    assert_eq!(name.len(), "tickets-1.0.4-k3x9".len());
    assert!(name.starts_with("tickets-1.0.4-"), "{name}");
    assert_ne!(name, fresh_upgrade_name("tickets-1.0.4"));
}

// ---- leases

#[test]
fn of_drivers_that_race_for_a_lease_one_wins() {
    let (directory, _store) = home();
    for round in 0..5 {
        let environment = format!("env{round}");
        let start = Barrier::new(8);
        let won: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|pid| {
                    let (environment, start, path) = (&environment, &start, directory.path());
                    scope.spawn(move || {
                        let store = SqliteStore::open(path).expect("opened");
                        start.wait();
                        match store.acquire(environment, &holder(pid), TTL, NOW, &alive) {
                            Ok(token) => Some(token.counter),
                            Err(StoreError::Held { .. }) => None,
                            Err(e) => panic!("{e}"),
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|t| t.join().expect("no panic"))
                .collect()
        });
        assert_eq!(won, [1], "round {round}");
    }
}

#[test]
fn a_counter_survives_release_and_the_environment() {
    let (directory, store) = home();
    let token = take(&store, "staging", 1);
    let held = store
        .acquire("staging", &holder(2), TTL, NOW + 1.hour(), &alive)
        .expect_err("held");
    assert!(held.to_string().contains("shifter@here (pid 1)"), "{held}");
    store.release("staging", &token).expect("released");
    store.release("staging", &token).expect("again, without effect");
    assert!(store.renew("staging", &token, NOW).is_err());

    let token = take(&store, "staging", 2);
    assert_eq!(token.counter, 2);
    store
        .release(
            "staging",
            &FencingToken {
                counter: 1,
                ..token.clone()
            },
        )
        .expect("of the past");
    store.renew("staging", &token, NOW + 5.seconds()).expect("still ours");
    let lease = store.lease("staging").expect("read").expect("there");
    assert_eq!((lease.acquired_at, lease.renewed_at), (NOW, NOW + 5.seconds()));
    store.forget_environment("staging", &token).expect("forgotten");
    drop(store);
    let store = SqliteStore::open(directory.path()).expect("opened");
    let token = store
        .acquire("staging", &holder(3), TTL, NOW, &|_| Liveness::Dead)
        .expect("dead");
    assert_eq!(token.counter, 3);
}

/// For nodes that have seen more than a restored home remembers.
#[test]
fn a_counter_is_raised_by_its_holder_alone_and_never_lowered() {
    let (_directory, store) = home();
    let first = take(&store, "staging", 1);
    for (above, counter) in [(90, 91), (5, 92)] {
        let token = store.lease("staging").expect("read").expect("there").counter;
        let token = FencingToken {
            counter: token,
            ..first.clone()
        };
        let raised = store.raise("staging", &token, above).expect("raised");
        assert_eq!(raised.counter, counter, "above {above}");
        store.renew("staging", &raised, NOW).expect("it holds the lease");
        assert!(
            store.renew("staging", &token, NOW).is_err(),
            "and the old one no longer"
        );
    }
    assert!(store.raise("staging", &first, 200).is_err(), "of the past");
    assert_eq!(take(&store, "staging", 1).counter, 93);
}

#[test]
fn forgetting_an_environment_leaves_its_waiting_reports_and_nothing_else() {
    let (_directory, store) = home();
    let put = |kind: &str, name: &str| {
        store
            .put_resource(kind, name, &json!({}), Expect::Absent, NOW)
            .expect("put");
    };
    put("Environment", "staging");
    put("Environment", "other");
    put("Build", "tickets-1");
    store
        .create_upgrade("up", &spec("staging"), &status(Phase::Pending, ""), NOW)
        .expect("created");
    let bad = BuildChange {
        build: "tickets-1".into(),
        mark: Mark::Quarantine(Quarantine {
            environment: "staging".into(),
            reason: "slow".into(),
            at: NOW,
        }),
    };
    store
        .change_build(&bad, &event("marked"), &to_chat, NOW)
        .expect("marked");
    let stranger = FencingToken {
        home: store.home().into(),
        counter: 1,
    };
    assert!(matches!(
        store.forget_environment("staging", &stranger),
        Err(StoreError::Fenced { .. })
    ));
    let token = take(&store, "staging", 1);
    let gone = store.forget_environment("staging", &token).expect("forgotten");
    assert_eq!((gone.upgrades, gone.events), (vec!["up".to_owned()], 1));
    assert_eq!(store.resource("Environment", "staging").expect("read"), None);
    assert_eq!(store.resources("Environment").expect("read").len(), 1);
    let build: BuildStatus = store.resources("Build").expect("read")[0]
        .status_as()
        .expect("a status");
    assert_eq!(build, BuildStatus::default());
    assert_eq!(store.pending(None, None).expect("read")[0].waiting, 1);
}

// ---- events

#[test]
fn events_are_found_from_either_end() {
    let (_directory, store) = home();
    let append = |environment: &str, upgrade: Option<&str>, message: &str| {
        store
            .append(environment, upgrade, &[event(message)], &no_dispatch)
            .expect("appended");
    };
    append("a", Some("a1"), "1");
    append("b", Some("b1"), "2");
    append("a", Some("a2"), "3");
    append("a", None, "4");
    append("a", Some("a2"), "5");
    for (environment, upgrade, after, take, expected) in [
        (None, None, 0, Take::First(10), "12345"),
        (Some("a"), None, 0, Take::First(10), "1345"),
        (Some("a"), None, 0, Take::Last(2), "45"),
        (Some("a"), None, 1, Take::First(2), "34"),
        (None, Some("a2"), 0, Take::First(10), "35"),
        (Some("b"), Some("a2"), 0, Take::First(10), ""),
        (None, None, 5, Take::Last(10), ""),
    ] {
        let query = EventQuery {
            environment,
            upgrade,
            promotion: None,
            after,
            take,
        };
        let found: String = store
            .events(&query)
            .expect("read")
            .into_iter()
            .map(|r| r.event.message)
            .collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

// ---- the outbox

fn outbox(store: &SqliteStore, threads: &[&str]) {
    for thread in threads {
        store
            .append("staging", Some(thread), &[event("told")], &to_chat)
            .expect("appended");
    }
}

fn seqs(store: &SqliteStore, who: &str, now: Timestamp, until: Timestamp) -> Vec<u64> {
    let mut claimed = Vec::new();
    while let Some(entry) = store.claim("chat", who, now, until).expect("claimed") {
        claimed.push(entry.seq);
    }
    claimed
}

#[test]
fn only_the_oldest_report_of_a_thread_can_be_claimed_and_by_one() {
    let (directory, store) = home();
    outbox(&store, &["a", "a", "b", "a", "b"]);
    let other = SqliteStore::open(directory.path()).expect("a second process");
    let until = NOW + 30.seconds();
    assert_eq!(seqs(&store, "one", NOW, until), [1, 3]);
    assert_eq!(seqs(&other, "two", NOW, until), [0_u64; 0]);
    assert_eq!(other.next_due("chat").expect("read"), Some(until));
    assert_eq!(other.next_due("mail").expect("read"), None);
    // The first one died: its claims run out, and nothing else comes first.
    assert_eq!(seqs(&other, "two", until, until + 30.seconds()), [1, 3]);
}

#[test]
fn what_is_sent_again_waits_for_what_its_thread_has_in_hand() {
    let (_directory, store) = home();
    outbox(&store, &["a", "a"]);
    let until = NOW + 30.seconds();
    let claim = |who: &str| store.claim("chat", who, NOW, until).expect("claimed");
    let settle = |id: u64, how: &Settlement| store.settle(id, "one", how, NOW).expect("settled");
    let first = claim("one").expect("the first");
    settle(first.id, &Settlement::Dead { why: "no".into() });
    let second = claim("one").expect("the second");
    assert_eq!(store.revive(&LetterQuery::default()).expect("revived"), 1);
    assert_eq!(claim("two"), None);
    assert_eq!(store.next_due("chat").expect("read"), Some(until));
    settle(second.id, &Settlement::Delivered);
    assert_eq!(claim("two").map(|entry| entry.id), Some(first.id));
}

#[test]
fn a_claim_that_ran_out_can_only_report_success() {
    let (_directory, store) = home();
    outbox(&store, &["a", "a"]);
    let until = NOW + 30.seconds();
    let entry = store.claim("chat", "slow", NOW, until).expect("claimed").expect("one");
    let later = until + 30.seconds();
    let again = store
        .claim("chat", "quick", until, later)
        .expect("claimed")
        .expect("one");
    assert_eq!((again.id, &again.dispatch), (entry.id, &entry.dispatch), "the same key");
    let dead = Settlement::Dead { why: "no".into() };
    store.settle(entry.id, "slow", &dead, until).expect("without effect");
    let retry = Settlement::Retry {
        at: NOW,
        why: "no".into(),
    };
    store.settle(entry.id, "slow", &retry, until).expect("without effect");
    assert_eq!(store.next_due("chat").expect("read"), Some(later), "the claim stands");
    store
        .settle(entry.id, "slow", &Settlement::Delivered, until)
        .expect("a fact");
    assert_eq!(seqs(&store, "third", until, later), [2]);
}

#[test]
fn a_dead_letter_lets_its_thread_go_on() {
    let (_directory, store) = home();
    outbox(&store, &["a", "a"]);
    let until = NOW + 30.seconds();
    let claim = |now| store.claim("chat", "me", now, until).expect("claimed");
    let first = claim(NOW).expect("one");
    let retry = Settlement::Retry {
        at: NOW + 5.seconds(),
        why: "busy".into(),
    };
    store.settle(first.id, "me", &retry, NOW).expect("settled");
    assert_eq!(claim(NOW), None, "the second waits behind the first");
    let first = claim(NOW + 5.seconds()).expect("again");
    assert_eq!((first.seq, first.attempts), (1, 1));
    let dead = Settlement::Dead {
        why: "not found".into(),
    };
    store.settle(first.id, "me", &dead, NOW).expect("settled");
    assert_eq!(claim(NOW).expect("the next").seq, 2);
    let pending = store.pending(Some("staging"), None).expect("read");
    assert_eq!((pending[0].waiting, pending[0].dead), (1, 1));
    assert_eq!(pending[0].last_error.as_deref(), Some("not found"));
    assert!(store.pending(Some("other"), None).expect("read").is_empty());
}

// ---- killed

const CHILD_HOME: &str = "STAGEGATE_TEST_COMMITTING_HOME";

/// Not a test of its own: the process that the next test kills. It commits for ever and says each version.
#[test]
fn the_committing_process() {
    let Ok(directory) = std::env::var(CHILD_HOME) else {
        return;
    };
    let store = SqliteStore::open(Path::new(&directory)).expect("opened");
    let token = store
        .acquire("staging", &holder(std::process::id()), TTL, NOW, &|_| Liveness::Dead)
        .expect("taken over");
    loop {
        let record = store.upgrade("up").expect("read").expect("there");
        let count: u64 = record.status.message.parse().expect("a number");
        let next = (count + 1).to_string();
        let (moved, events) = (status(Phase::Rolling, &next), [event(&next)]);
        store
            .commit(&step(&token, record.resource_version, &moved, &events))
            .expect("committed");
        // stderr, for stdout is the test harness' own.
        writeln!(std::io::stderr(), "durable {next}").expect("a reader");
    }
}

#[test]
fn what_was_committed_before_a_kill_is_there_and_whole() {
    let (directory, store) = home();
    store
        .create_upgrade("up", &spec("staging"), &status(Phase::Pending, "0"), NOW)
        .expect("created");
    drop(store);
    let mut counter = 0;
    for round in 1..=8 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::the_committing_process", "--nocapture"])
            .env(CHILD_HOME, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let said = lines.nth(3 * round).expect("it lives").expect("text");
        child.kill().expect("ours");
        child.wait().expect("ours");
        let durable: u64 = said.strip_prefix("durable ").expect(&said).parse().expect("a number");

        let store = SqliteStore::open(directory.path()).expect("recovered");
        let record = store.upgrade("up").expect("read").expect("there");
        let reached: u64 = record.status.message.parse().expect("a number");
        assert!(reached >= durable, "{reached} after {durable} was said to be durable");
        let events = events_of(&store, "up");
        let expected: Vec<_> = (1..=reached).map(|n| n.to_string()).collect();
        assert_eq!(
            events.iter().map(|r| r.event.message.clone()).collect::<Vec<_>>(),
            expected
        );
        let waiting = store.pending(None, None).expect("read")[0].waiting;
        assert_eq!(waiting, reached, "one report an event");
        let lease = store.lease("staging").expect("read").expect("there");
        assert!(lease.counter > counter, "each driver had its own");
        counter = lease.counter;
    }
}

//! What a start leaves, and what a stop ends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use stagegate::hosts::{Host as _, NodeAddress, Script, Work};
use stagegate::model::values::Digest;

use super::{Bench, PATIENCE, ended, install, lives, on_both_hosts, prepared, script, start, stop, token};

on_both_hosts! {
    a_start_without_a_service_is_a_failure
    a_component_without_builds_starts_without_one
    a_failed_start_leaves_nothing
    a_service_that_does_not_stop_is_killed_and_the_log_says_so
    a_stale_pid_file_is_not_a_service
    a_service_goes_through_its_life
    what_outlives_its_service_is_seen_and_ended
    a_stop_ends_also_what_left_the_service
    what_left_the_service_is_asked_to_end_and_given_time
    a_service_that_lost_its_pid_file_is_one_and_is_stopped_gracefully
    a_copied_directory_has_no_service
    connections_of_a_service_tell_whose_they_are
}

async fn a_start_without_a_service_is_a_failure(bench: Bench) {
    let work = |text: &str| Work::Start { start: script(text) };
    bench.succeed("i0", install(&Digest::of(b"1"))).await;
    let end = bench.run("s1", work("echo ran >>effects")).await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("nothing is activated"), "{}", end.log_tail);
    assert!(!bench.path("effects").exists());
    prepared(&bench, &Digest::of(b"1"), 1).await;
    let astray = "setsid sh -c 'echo $$ >away; exec sleep 1000' &\nwhile [ ! -s away ]; do sleep 0.01; done";
    for (id, text) in [
        ("s2", "exit 0"),
        ("s3", "mkdir -p run; sh -c 'echo $$' >run/pid"),
        ("s4", astray),
    ] {
        let end = bench.run(id, work(text)).await;
        assert_eq!(end.exit, 1, "{id}");
        assert!(
            end.log_tail
                .contains("start ended with 0, but run/pid names no living process"),
            "{id}: {}",
            end.log_tail
        );
    }
    assert!(!lives(&bench.read("away")), "a service that the pid file does not name");
    assert_eq!(bench.observe().await.running, None);
}

async fn a_component_without_builds_starts_without_one(bench: Bench) {
    let serves =
        script("mkdir -p run\n[ -z \"$STAGEGATE_RELEASE_DIR\" ]\nsleep 1000 >/dev/null 2>&1 &\necho $! >run/pid\n");
    bench.succeed("s1", Work::Start { start: serves.clone() }).await;
    let running = bench.observe().await.running.expect("it runs");
    assert_eq!(running.build, None);
    let age = jiff::Timestamp::now().duration_since(running.started_at).as_secs();
    assert!((-2..3600).contains(&age), "started {age} s ago");
    let (stop, start) = (stop(), serves);
    bench.succeed("s2", Work::Restart { stop, start }).await;
    assert_ne!(bench.observe().await.running.map(|r| r.pid), Some(running.pid));
    bench.succeed("s3", Work::Stop { stop: self::stop() }).await;
    assert_eq!(bench.observe().await.running, None);
}

async fn a_failed_start_leaves_nothing(bench: Bench) {
    prepared(&bench, &Digest::of(b"1"), 1).await;
    let mut failing = start();
    failing.text.push_str(
        "setsid sh -c 'echo $$ >away; exec sleep 1000' &\nwhile [ ! -s away ]; do sleep 0.01; done\nexit 5\n",
    );
    let end = bench.run("s1", Work::Start { start: failing }).await;
    assert_eq!(end.exit, 5);
    assert!(!lives(&bench.read("run/pid")), "what it started");
    assert!(!lives(&bench.read("away")), "what left its group");
    assert_eq!(bench.observe().await.running, None);
}

async fn a_service_that_does_not_stop_is_killed_and_the_log_says_so(bench: Bench) {
    let release = Digest::of(b"1");
    prepared(&bench, &release, 1).await;
    bench.succeed("s1", Work::Start { start: start() }).await;
    let first = bench.observe().await.running.expect("it runs");
    // A stop script that hangs, and one that says it is done.
    for (id, text) in [("s2", "sleep 1000"), ("s3", "true")] {
        let stop = Script {
            deadline: Duration::from_millis(300),
            ..script(text)
        };
        let before = bench.observe().await.running.expect("it runs");
        let end = bench.run(id, Work::Restart { stop, start: start() }).await;
        assert_eq!(end.exit, 0, "{}", end.log_tail);
        assert!(
            end.log_tail.contains("still alive after the stop script"),
            "{}",
            end.log_tail
        );
        assert!(!lives(&before.pid.to_string()));
    }
    let last = bench.observe().await.running.expect("it runs again");
    assert_ne!(last.pid, first.pid);
    assert_eq!(last.build, Some(release));
    bench.succeed("s4", Work::Stop { stop: stop() }).await;
}

async fn a_stale_pid_file_is_not_a_service(bench: Bench) {
    fs::create_dir_all(bench.path("run")).expect("made");
    // This very process, which is younger than the file says.
    fs::write(bench.path("run/pid"), format!("{}\n", std::process::id())).expect("written");
    let seen = bench.observe().await.running.expect("one that no step started");
    assert_eq!((seen.pid, seen.build), (std::process::id(), None));
    let pid_file = fs::File::options().append(true).open(bench.path("run/pid"));
    let yesterday = std::time::SystemTime::now() - Duration::from_hours(24 * 365);
    pid_file.expect("opened").set_modified(yesterday).expect("set");
    assert_eq!(bench.observe().await.running, None);
    // And not this process is killed by Drop.
    fs::remove_file(bench.path("run/pid")).expect("removed");
}

async fn a_service_goes_through_its_life(bench: Bench) {
    let [old, new, other] = [Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3")];
    assert!(!bench.observe().await.set_up);
    bench
        .succeed("s1", Work::Setup(script("mkdir -p data; echo x >>data/made")))
        .await;
    bench
        .succeed("s2", Work::Setup(script("mkdir -p data; echo x >>data/made")))
        .await;
    assert_eq!(bench.read("data/made"), "x\n");
    assert!(bench.observe().await.set_up);

    prepared(&bench, &old, 1).await;
    bench.succeed("s3", Work::Start { start: start() }).await;
    let first = bench.observe().await.running.expect("it runs");
    assert_eq!(first.build, Some(old));
    let age = jiff::Timestamp::now().duration_since(first.started_at).as_secs();
    assert!((-2..3600).contains(&age), "started {age} s ago");
    // Starting what runs changes nothing.
    bench.succeed("s4", Work::Start { start: start() }).await;
    assert_eq!(bench.observe().await.running.as_ref(), Some(&first));

    prepared(&bench, &new, 2).await;
    assert_eq!(
        bench.observe().await.running.as_ref(),
        Some(&first),
        "it still serves the old build"
    );
    let restart = || Work::Restart {
        stop: stop(),
        start: start(),
    };
    bench.succeed("s5", restart()).await;
    let second = bench.observe().await.running.expect("it runs");
    assert_eq!(second.build, Some(new));
    assert!(!lives(&first.pid.to_string()));
    assert!(lives(&second.pid.to_string()));
    bench.succeed("s5", restart()).await;
    assert_eq!(
        bench.observe().await.running.as_ref(),
        Some(&second),
        "the same step does not restart twice"
    );
    bench.succeed("s6", restart()).await;
    let third = bench.observe().await.running.expect("it runs");
    assert_ne!(third.pid, second.pid, "another step does");

    let running = bench.read("running");
    let words: Vec<&str> = running.split_whitespace().collect();
    assert_eq!(words[..2], [new.hex(), third.pid.to_string()]);

    // Nobody prunes from under the feet of a service whose link has flipped.
    bench.succeed("i3", install(&other)).await;
    bench.succeed("a3", Work::Activate { release: old }).await;
    bench.succeed("p1", Work::Prune { keep: vec![] }).await;
    let sight = bench.observe().await;
    assert_eq!(sight.releases.len(), 2, "current and running");
    assert!(!sight.releases.contains(&other));
    bench.succeed("s7", restart()).await;
    bench.succeed("p2", Work::Prune { keep: vec![new] }).await;
    assert_eq!(bench.observe().await.releases.len(), 2);
    bench.succeed("p3", Work::Prune { keep: vec![] }).await;
    assert_eq!(bench.observe().await.releases, [old]);

    let refused = bench.host.destroy(&bench.node, &token("home-a", 1)).await;
    assert!(
        refused.as_ref().is_err_and(|e| e.to_string().contains("still runs")),
        "{refused:?}"
    );
    bench.succeed("s8", Work::Stop { stop: stop() }).await;
    assert_eq!(bench.observe().await.running, None);
    bench.succeed("s9", Work::Stop { stop: stop() }).await;
    assert_eq!(bench.journal().last().map(String::as_str), Some("s9 stop - skip"));
    let destroyed = bench.host.destroy(&bench.node, &token("home-a", 1)).await;
    destroyed.expect("destroyed");
    assert!(!Path::new(&bench.node.directory).exists());
}

/// A service with a worker that is no descendant of it, and whose pid is in `run/child`.
fn start_with_worker() -> Script {
    let mut start = start();
    start.text.push_str(
        "setsid -f sh -c 'echo $$ >run/child; exec sleep 1000'\nwhile [ ! -s run/child ]; do sleep 0.01; done\n",
    );
    start
}

async fn what_outlives_its_service_is_seen_and_ended(bench: Bench) {
    prepared(&bench, &Digest::of(b"1"), 1).await;
    let (stop, start) = (self::stop, start_with_worker);
    let work = || {
        [
            ("stop", Work::Stop { stop: stop() }),
            ("start", Work::Start { start: start() }),
            (
                "restart",
                Work::Restart {
                    stop: stop(),
                    start: start(),
                },
            ),
        ]
    };
    for (round, (name, ending)) in work().into_iter().enumerate() {
        bench
            .succeed(&format!("s{round}"), Work::Start { start: start() })
            .await;
        let sight = bench.observe().await;
        assert_eq!(sight.remains, [] as [u32; 0], "what runs has left nothing");
        let main = sight.running.expect("it runs").pid;
        let worker = bench.read("run/child");
        end(main);
        let sight = bench.observe().await;
        assert_eq!(sight.running, None, "{name}");
        assert!(
            sight.remains.contains(&worker.trim().parse().expect("a pid")),
            "{name}: {:?}",
            sight.remains
        );
        let refused = bench.host.destroy(&bench.node, &token("home-a", 1)).await;
        let why = refused.expect_err("it would take their files").to_string();
        assert!(why.contains(worker.trim()), "{why}");

        let log = bench.run(&format!("{name}{round}"), ending).await.log_tail;
        assert!(!lives(&worker), "{name}");
        assert!(log.contains("processes of it live on"), "{name}: {log}");
        bench.succeed(&format!("e{round}"), Work::Stop { stop: stop() }).await;
        assert_eq!(bench.observe().await.remains, [] as [u32; 0], "{name}");
    }
}

/// Kills a process and waits until it does nothing any more.
fn end(pid: u32) {
    let text = pid.to_string();
    let target = super::pid(&text).expect("a pid");
    kill_process(target, Signal::KILL).expect("killed");
    while lives(&text) {
        std::thread::yield_now();
    }
}

async fn a_stop_ends_also_what_left_the_service(bench: Bench) {
    prepared(&bench, &Digest::of(b"1"), 1).await;
    let start = start_with_worker();
    bench.succeed("s1", Work::Start { start }).await;
    let worker = bench.read("run/child");
    assert!(lives(&worker));
    bench.succeed("s2", Work::Stop { stop: stop() }).await;
    assert!(!lives(&worker));
}

async fn what_left_the_service_is_asked_to_end_and_given_time(bench: Bench) {
    prepared(&bench, &Digest::of(b"1"), 1).await;
    let mut start = start();
    start.text.push_str(
        "setsid -f sh -c 'trap \"sleep 0.3; echo finished >run/call; exit\" TERM; echo $$ >run/child; while :; do sleep 0.05; done'\n\
         while [ ! -s run/child ]; do sleep 0.01; done\n",
    );
    // With a main process that ends by the stop script, and with one that was killed.
    for (round, orphaned) in [false, true].into_iter().enumerate() {
        let start = Work::Start { start: start.clone() };
        bench.succeed(&format!("s{round}"), start).await;
        if orphaned {
            end(bench.observe().await.running.expect("it runs").pid);
        }
        bench.succeed(&format!("e{round}"), Work::Stop { stop: stop() }).await;
        assert_eq!(bench.read("run/call"), "finished\n", "orphaned: {orphaned}");
        fs::remove_file(bench.path("run/call")).expect("removed");
        assert!(!lives(&bench.read("run/child")));
    }
}

async fn a_service_that_lost_its_pid_file_is_one_and_is_stopped_gracefully(bench: Bench) {
    prepared(&bench, &Digest::of(b"1"), 1).await;
    bench.succeed("s1", Work::Start { start: start() }).await;
    let running = bench.observe().await.running.expect("it runs");
    fs::remove_file(bench.path("run/pid")).expect("removed");
    let sight = bench.observe().await;
    assert_eq!((sight.running.as_ref(), &sight.remains[..]), (Some(&running), &[][..]));
    bench.succeed("s2", Work::Start { start: start() }).await;
    assert_eq!(
        bench.observe().await.running.as_ref(),
        Some(&running),
        "nothing to start"
    );
    let graceful = script("kill \"$(cat run/pid)\" && echo asked >run/asked\n");
    bench.succeed("s3", Work::Stop { stop: graceful }).await;
    assert_eq!(bench.read("run/asked"), "asked\n");
    assert!(!lives(&running.pid.to_string()));
}

async fn a_copied_directory_has_no_service(bench: Bench) {
    prepared(&bench, &Digest::of(b"1"), 1).await;
    bench.succeed("s1", Work::Start { start: start() }).await;
    let original = bench.observe().await.running.expect("it runs");
    // Within its home and for another one; the first is the original moved away and back.
    let copied = |name: &str| {
        let directory = bench.root.join(name);
        let done = std::process::Command::new("cp")
            .args(["-a", &bench.node.directory])
            .arg(&directory)
            .status();
        assert!(done.expect("cp runs").success());
        NodeAddress {
            directory: directory.to_str().expect("UTF-8").into(),
            ..bench.node.clone()
        }
    };
    for (name, token) in [("n2", token("home-a", 1)), ("copy", token("home-b", 1))] {
        let copy = copied(name);
        assert_eq!(
            bench.host.observe(&copy, &[]).await.expect("seen").running,
            None,
            "{name}"
        );
        bench.host.adopt(&copy, &token).await.expect("adopted");
        let stop = super::step("s2", Work::Stop { stop: stop() });
        let sight = bench.host.run(&copy, &token, &stop, PATIENCE).await.expect("asked");
        assert_eq!(ended(&sight, "s2").exit, 0);
        assert!(lives(&original.pid.to_string()), "{name}: it is the original's");
    }
    let elsewhere = bench.root.join("elsewhere");
    fs::rename(&bench.node.directory, &elsewhere).expect("moved");
    let moved = NodeAddress {
        directory: elsewhere.to_str().expect("UTF-8").into(),
        ..bench.node.clone()
    };
    assert_eq!(
        bench.host.observe(&moved, &[]).await.expect("seen").running.as_ref(),
        Some(&original)
    );
    fs::rename(&elsewhere, &bench.node.directory).expect("moved back");
    bench.succeed("s3", Work::Stop { stop: stop() }).await;
    assert!(!lives(&original.pid.to_string()));
}

async fn connections_of_a_service_tell_whose_they_are(bench: Bench) {
    let database = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
    let port = database.local_addr().expect("bound").port();
    assert_eq!(
        bench.host.sockets(&bench.node, port).await.ok(),
        None,
        "no directory yet"
    );
    prepared(&bench, &Digest::of(b"1"), 1).await;
    assert_eq!(
        bench.host.sockets(&bench.node, port).await,
        Ok(vec![]),
        "no service yet"
    );
    // A worker below the service connects.
    let start = script(format!(
        "mkdir -p run\nsh -c 'bash -c \"exec 3<>/dev/tcp/127.0.0.1/{port}; exec sleep 1000\" & echo $! >run/child; wait' \
         >/dev/null 2>&1 </dev/null &\necho $! >run/pid\n"
    ));
    bench.succeed("s1", Work::Start { start }).await;
    let (_connection, client) = database.accept().expect("it connects");
    assert_eq!(bench.host.sockets(&bench.node, port).await, Ok(vec![client]));
    assert_eq!(bench.host.sockets(&bench.node, 1).await, Ok(vec![]));
    let both = script("kill \"$(cat run/child)\" \"$(cat run/pid)\"");
    bench.succeed("s2", Work::Stop { stop: both }).await;
}

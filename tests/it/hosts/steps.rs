//! Steps: once, one at a time, bounded, and leaving nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use stagegate::hosts::{Host as _, HostError, NodeSight, Script, StepState, Work};
use stagegate::model::values::Digest;

use super::{
    Bench, PATIENCE, check, ended, install, let_go, lives, meeting, met_at, on_both_hosts, script, step, token,
};
use crate::sshd::kill;

on_both_hosts! {
    a_step_runs_once_however_often_it_is_asked_for
    a_step_outlives_its_driver_and_is_joined_by_the_next
    steps_of_a_node_run_one_at_a_time
    an_older_token_and_a_foreign_home_are_refused
    a_script_that_hangs_ends_at_its_deadline_with_its_group
    a_script_that_forks_away_leaves_nothing
    a_flood_of_output_is_bounded_and_keeps_its_ends
    a_script_gets_the_documented_environment_and_nothing_else
    a_step_whose_watcher_was_killed_has_died_and_leaves_nothing
    a_full_disk_is_a_clear_failure_and_corrupts_nothing
    a_node_without_a_directory_can_be_looked_at_and_destroyed
    names_that_would_escape_are_refused
}

async fn a_step_runs_once_however_often_it_is_asked_for(bench: Bench) {
    let work = || check("echo ran >>effects; echo done");
    let (one, two, three) = tokio::join!(
        bench.run("s1", work()),
        bench.run("s1", work()),
        bench.run("s1", work())
    );
    assert_eq!(one.log_tail, "done\n");
    assert_eq!(one.exit, 0);
    assert_eq!((&one, &one), (&two, &three));
    assert_eq!(bench.run("s1", work()).await, one);
    assert_eq!(bench.read("effects"), "ran\n");
    assert_eq!(bench.journal(), ["s1 check - start", "s1 check - end rc=0"]);
    assert_eq!(bench.run("s2", check("exit 3")).await.exit, 3);
}

async fn a_step_outlives_its_driver_and_is_joined_by_the_next(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let work = check(meeting(&arrived, &go));
    let driver = tokio::spawn({
        let (host, node, step) = (Arc::clone(&bench.host), bench.node.clone(), step("s1", work.clone()));
        async move { host.run(&node, &token("home-a", 1), &step, PATIENCE).await }
    });
    met_at(&arrived).await;
    // Dropping the call kills the ssh client in the middle of it.
    driver.abort();
    assert!(driver.await.is_err_and(|e| e.is_cancelled()));

    let next = bench.another_driver();
    let sight = next
        .observe(&bench.node, &["s1".into(), "s0".into()])
        .await
        .expect("seen");
    assert_eq!(sight.steps, BTreeMap::from([("s1".into(), StepState::Running)]));
    let (sight, ()) = tokio::join!(
        async {
            next.run(&bench.node, &token("home-a", 2), &step("s1", work.clone()), PATIENCE)
                .await
        },
        let_go(&go)
    );
    assert_eq!(ended(&sight.expect("joined"), "s1").exit, 0);
    assert_eq!(bench.read("effects"), "ran\n");
    assert_eq!(bench.journal().len(), 2);
}

async fn steps_of_a_node_run_one_at_a_time(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let sight = bench.ask("s1", check(meeting(&arrived, &go)), Duration::ZERO).await;
    assert_eq!(sight.expect("begun").steps["s1"], StepState::Running);
    met_at(&arrived).await;
    let sight = bench.ask("s2", check("true"), Duration::from_millis(50)).await;
    assert_eq!(sight.expect("queued").steps["s2"], StepState::Running);
    let_go(&go).await;
    bench.succeed("s2", check("true")).await;
    let journal = bench.journal();
    assert_eq!(journal[1..3], ["s1 check - end rc=0", "s2 check - start"]);
}

async fn an_older_token_and_a_foreign_home_are_refused(bench: Bench) {
    let run = async |home: &str, counter: u64, id: &str| {
        let step = step(id, check("echo ran >>effects"));
        bench
            .host
            .run(&bench.node, &token(home, counter), &step, PATIENCE)
            .await
    };
    run("home-a", 7, "s1").await.expect("the first token is taken");
    run("home-a", 9, "s2").await.expect("a newer token is taken");
    assert_eq!(
        run("home-a", 8, "s3").await,
        Err(HostError::Fenced {
            environment: "e1".into(),
            node: "n1".into(),
            seen: "home-a/9".into(),
            ours: "home-a/8".into()
        })
    );
    let foreign = Err(HostError::ForeignHome {
        environment: "e1".into(),
        node: "n1".into(),
        seen: "home-a".into(),
    });
    assert_eq!(run("home-b", 99, "s4").await, foreign);
    let artifact = bench.root.join("artifact");
    let refused = bench
        .host
        .deliver(&bench.node, &token("home-b", 99), &Digest::of(b"1"), &artifact)
        .await;
    assert_eq!(refused.map(|()| NodeSight::default()), foreign);
    assert!(bench.host.destroy(&bench.node, &token("home-a", 8)).await.is_err());
    assert_eq!(bench.read("fence"), "home-a 9\n");
    assert_eq!(bench.observe().await.fence, Some(token("home-a", 9)));
    let older = bench.host.adopt(&bench.node, &token("home-a", 8)).await;
    assert!(
        matches!(older, Err(HostError::Fenced { .. })),
        "adopting lets no older driver in"
    );

    let adopted = bench.host.adopt(&bench.node, &token("home-b", 1)).await;
    adopted.expect("adopted, though its counter is lower");
    run("home-b", 1, "s5").await.expect("it serves the new home");
    assert!(matches!(
        run("home-a", 10, "s6").await,
        Err(HostError::ForeignHome { .. })
    ));
    assert_eq!(bench.read("effects"), "ran\nran\nran\n");
}

async fn a_script_that_hangs_ends_at_its_deadline_with_its_group(bench: Bench) {
    for (id, ignoring) in [("s1", ""), ("s2", "trap '' TERM\n")] {
        // The first deadline that lets the script come as far as hanging: on a machine under load that takes its time.
        for deadline in [200, 2000, 20_000] {
            let id = format!("{id}-{deadline}");
            let hangs = Script {
                deadline: Duration::from_millis(deadline),
                ..script(format!(
                    "{ignoring}echo $$ >pids\nsleep 1000 &\necho $! >>pids\necho hanging\nwait\n"
                ))
            };
            let end = bench.run(&id, Work::Script(hangs)).await;
            assert_eq!(end.exit, 124);
            let (said, note) = end.log_tail.split_once("stagegate: ").expect("a note");
            assert_eq!(
                note,
                format!(
                    "check: the deadline of {} s passed; its process group was killed\n",
                    match deadline {
                        200 => "0.200".to_owned(),
                        ms => (ms / 1000).to_string(),
                    }
                )
            );
            if said != "hanging\n" {
                assert_eq!(said, "");
                continue;
            }
            for pid in bench.read("pids").lines() {
                assert!(!lives(pid), "{id}: {pid} lives on");
            }
            break;
        }
        assert_eq!(bench.read("pids").lines().count(), 2, "{id}: it never came to hang");
        fs::remove_file(bench.path("pids")).expect("removed");
    }
}

async fn a_script_that_forks_away_leaves_nothing(bench: Bench) {
    bench
        .succeed(
            "s1",
            check(
                "setsid sh -c 'echo $$ >away; exec sleep 1000' &\nsleep 1000 &\necho $! >within\n\
                 while [ ! -s away ]; do sleep 0.01; done\n",
            ),
        )
        .await;
    assert!(!lives(&bench.read("within")), "a child in the script's group");
    assert!(!lives(&bench.read("away")), "a child that left the group");
}

async fn a_flood_of_output_is_bounded_and_keeps_its_ends(bench: Bench) {
    let end = bench
        .run(
            "s1",
            check("echo the first line; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the last line; exit 1"),
        )
        .await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("the last line\n"), "{}", end.log_tail);
    assert!(end.log_tail.len() < 5000);
    let log = bench.read("steps/s1/log");
    assert!(log.starts_with("the first line\n"));
    assert!(log.len() < 200_000, "{} bytes", log.len());
    // And one that just fits is whole, with nothing twice.
    bench
        .succeed("s2", check("head -c 60000 /dev/zero | tr '\\0' y; echo; echo z"))
        .await;
    assert_eq!(bench.read("steps/s2/log").len(), 60_003);
}

async fn a_script_gets_the_documented_environment_and_nothing_else(bench: Bench) {
    bench
        .succeed(
            "s1",
            check("env >seen; pwd >where; grep -E 'Sig(Ign|Blk)' /proc/self/status >signals; umask >mask"),
        )
        .await;
    let seen = bench.read("seen");
    let mut names: Vec<&str> = seen
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        // What the shell that is the script adds by itself.
        .filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "HOME",
            "LANG",
            "PATH",
            "STAGEGATE_DEADLINE_S",
            "STAGEGATE_NODE_DIR",
            "STAGEGATE_RELEASE_DIR",
            "STAGEGATE_SECRETS_DIR",
            "STAGEGATE_STEP",
            "TZ"
        ]
    );
    assert!(seen.contains("STAGEGATE_DEADLINE_S=60\n"));
    assert_eq!(bench.read("where").trim_end(), bench.node.directory);
    // A service started with SIGINT ignored could never be interrupted. 32 and 33 are the C library's own: no program can
    // use them, and glibc's posix_spawn leaves them ignored in what it starts.
    for line in bench.read("signals").lines() {
        let (_, mask) = line.split_once('\t').expect("a name and a mask");
        let mask = u64::from_str_radix(mask, 16).expect("hexadecimal");
        assert_eq!(mask & !(0b11 << 31), 0, "{line}");
    }
    assert_eq!(bench.read("mask"), "0022\n");
}

async fn a_step_whose_watcher_was_killed_has_died_and_leaves_nothing(bench: Bench) {
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let work = || {
        let mut script = script(meeting(&arrived, &go));
        script.secrets.insert("db".into(), b"hush".to_vec());
        Work::Script(script)
    };
    // Killed is dead only when the kernel comes to it.
    let kill_watcher = async |step: &str| {
        let identity = bench.read(&format!("steps/{step}/pid"));
        let pid = identity.split_whitespace().next().expect("a pid");
        kill(pid.parse().expect("a pid"));
        while lives(pid) {
            tokio::task::yield_now().await;
        }
    };
    bench.ask("s1", work(), Duration::ZERO).await.expect("begun");
    let script_pid = met_at(&arrived).await;
    kill_watcher("s1").await;
    // Its script runs on, so it is not over yet …
    let sight = bench.host.observe(&bench.node, &["s1".into()]).await.expect("seen");
    assert_eq!(sight.steps["s1"], StepState::Running);
    // … until somebody asks for it, or for anything else on this node.
    let sight = bench.ask("s1", work(), PATIENCE).await.expect("asked");
    assert_eq!(sight.steps["s1"], StepState::Died);
    assert!(!lives(&script_pid));
    assert!(!bench.path("steps/s1/secrets").exists());
    bench.succeed("s2", check("true")).await;
    assert_eq!(bench.read("effects"), "ran\n");

    bench.ask("s3", work(), Duration::ZERO).await.expect("begun");
    let script_pid = met_at(&arrived).await;
    kill_watcher("s3").await;
    bench.succeed("s4", check("true")).await;
    assert!(!lives(&script_pid));
}

async fn a_full_disk_is_a_clear_failure_and_corrupts_nothing(mut bench: Bench) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can mount the small disk that this row fills: NOT RUN");
        return;
    }
    let disk = SmallDisk::mount(&bench.root.join("small"));
    bench.node.directory = disk.0.join("node").to_str().expect("UTF-8").into();
    bench.succeed("s0", check("true")).await;
    let free = bench.observe().await.free_bytes;
    assert!(free.is_some_and(|free| (1..2_000_000).contains(&free)), "{free:?}");

    // A script that fills it fails as a script, and its end is on record.
    let release = Digest::of(b"1");
    let end = bench
        .run(
            "s1",
            Work::Install {
                release,
                script: script("set -e\ncat /dev/zero >\"$STAGEGATE_RELEASE_DIR/big\""),
            },
        )
        .await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("No space left on device"), "{}", end.log_tail);
    assert_eq!(bench.observe().await.releases, []);
    let journal = bench.journal();

    // And on a disk that is full already nothing begins.
    fs::write(disk.0.join("big"), vec![0; 8_000_000]).expect_err("it is small");
    let refused = bench.ask("s2", check("true"), PATIENCE).await;
    assert!(
        matches!(&refused, Err(HostError::Failed { why, .. }) if why.contains("the disk is full")),
        "{refused:?}"
    );
    let newer = bench
        .host
        .run(&bench.node, &token("home-a", 2), &step("s3", check("true")), PATIENCE)
        .await;
    assert!(matches!(newer, Err(HostError::Failed { .. })), "{newer:?}");
    assert_eq!(bench.read("fence"), "home-a 1\n");
    let sight = bench
        .host
        .observe(&bench.node, &["s1".into(), "s2".into()])
        .await
        .expect("seen");
    assert_eq!(ended(&sight, "s1"), end);
    assert_eq!(sight.steps.len(), 1);
    assert_eq!(bench.journal(), journal);
    fs::remove_file(disk.0.join("big")).expect("removed");
    bench.succeed("s2", check("true")).await;
    bench.succeed("s4", install(&release)).await;
    assert_eq!(bench.observe().await.releases, [release]);
}

/// A filesystem of 1 MiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir(at).expect("made");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "small"])
            .arg(at)
            .status();
        assert!(done.expect("mount runs").success());
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn a_node_without_a_directory_can_be_looked_at_and_destroyed(bench: Bench) {
    let sight = bench.host.observe(&bench.node, &["s1".into()]).await.expect("seen");
    assert!(sight.free_bytes.is_some_and(|free| free > 0), "{sight:?}");
    assert_eq!(
        sight,
        NodeSight {
            free_bytes: sight.free_bytes,
            ..NodeSight::default()
        }
    );
    let destroyed = bench.host.destroy(&bench.node, &token("home-a", 1)).await;
    assert_eq!(destroyed, Ok(()));
    assert!(!Path::new(&bench.node.directory).exists(), "looking makes nothing");
}

async fn names_that_would_escape_are_refused(bench: Bench) {
    let refused = bench.ask("../s1", check("true"), PATIENCE).await;
    assert!(matches!(refused, Err(HostError::Failed { .. })), "{refused:?}");
    let mut secret = script("true");
    secret.secrets.insert("../rc".into(), b"0".to_vec());
    let refused = bench.ask("s1", Work::Script(secret), PATIENCE).await;
    assert!(matches!(refused, Err(HostError::Failed { .. })), "{refused:?}");
    assert!(!Path::new(&bench.node.directory).exists());
}

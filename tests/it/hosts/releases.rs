//! Builds on their way to a node, and releases on it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stagegate::hosts::{Host as _, HostError, Work};
use stagegate::model::values::Digest;

use super::{Bench, install, meeting, met_at, on_both_hosts, prepared, script, token};
use crate::sshd::kill;

on_both_hosts! {
    an_incomplete_install_is_not_a_release
    a_complete_release_is_not_installed_again
    activation_is_atomic_for_who_reads
    releases_are_told_by_the_order_of_their_completion
    a_build_is_delivered_whole_and_once
}

async fn an_incomplete_install_is_not_a_release(bench: Bench) {
    let release = Digest::of(b"1");
    let half = |text: String| Work::Install {
        release,
        script: script(format!("echo half >\"$STAGEGATE_RELEASE_DIR/half\"\n{text}")),
    };
    let end = bench.run("s1", half("exit 1".into())).await;
    assert_eq!(end.exit, 1);
    assert_eq!(bench.observe().await.releases, []);

    // Killed in the middle, as a power cut would.
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let sight = bench.ask("s2", half(meeting(&arrived, &go)), Duration::ZERO).await;
    sight.expect("begun");
    let script_pid = met_at(&arrived).await;
    for pid in [bench.read("steps/s2/pid"), bench.read("steps/s2/group"), script_pid] {
        kill(
            pid.split_whitespace()
                .next()
                .and_then(|p| p.parse().ok())
                .expect("a pid"),
        );
    }
    assert_eq!(bench.observe().await.releases, []);
    assert!(bench.path(&format!("releases/{}/half", release.hex())).exists());
    let end = bench.run("s3", Work::Activate { release }).await;
    assert_eq!(end.exit, 1);
    assert!(end.log_tail.contains("is not complete"), "{}", end.log_tail);
    assert_eq!(bench.observe().await.current, None);

    bench.succeed("s4", install(&release)).await;
    assert_eq!(bench.observe().await.releases, [release]);
    assert!(!bench.path(&format!("releases/{}/half", release.hex())).exists());
}

async fn a_complete_release_is_not_installed_again(bench: Bench) {
    let release = Digest::of(b"1");
    bench.succeed("s1", install(&release)).await;
    let again = Work::Install {
        release,
        script: script("echo ran >again; exit 1"),
    };
    bench.succeed("s2", again).await;
    assert!(!bench.path("again").exists());
    let hex = release.hex();
    assert_eq!(
        bench.journal(),
        [
            format!("s1 install {hex} start"),
            format!("s1 install {hex} end rc=0"),
            format!("s2 install {hex} skip")
        ]
    );
}

async fn activation_is_atomic_for_who_reads(bench: Bench) {
    let releases = [Digest::of(b"1"), Digest::of(b"2")];
    prepared(&bench, &releases[0], 1).await;
    bench.succeed("i2", install(&releases[1])).await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (done, version) = (Arc::clone(&done), bench.path("current/version"));
        move || {
            let mut reads = 0_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                fs::read_to_string(&version).map_err(|e| format!("after {reads} reads: {e}"))?;
                reads += 1;
            }
            Ok::<_, String>(reads)
        }
    });
    for nr in 0..10 {
        let release = releases[(nr + 1) % 2];
        bench.succeed(&format!("s{nr}"), Work::Activate { release }).await;
        assert_eq!(bench.observe().await.current, Some(release));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.join().expect("no panic").expect("never a gap") > 10);
}

async fn releases_are_told_by_the_order_of_their_completion(bench: Bench) {
    let releases: Vec<Digest> = (0..4_u8).map(|n| Digest::of(&[n])).collect();
    for (n, release) in releases.iter().enumerate() {
        bench.succeed(&format!("i{n}"), install(release)).await;
        let marker = bench.path(&format!("releases/{}/.complete", release.hex()));
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + n as u64);
        let file = fs::File::options().append(true).open(marker);
        file.expect("opened").set_modified(at).expect("set");
    }
    let newest_first: Vec<Digest> = releases.into_iter().rev().collect();
    assert_eq!(bench.observe().await.releases, newest_first);
}

async fn a_build_is_delivered_whole_and_once(bench: Bench) {
    let (artifact, build) = (bench.root.join("a 'build'"), Digest::of(b"1"));
    fs::create_dir_all(artifact.join("sub")).expect("made");
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    fs::write(artifact.join("sub/wheel"), &content).expect("written");
    fs::write(artifact.join("tool"), "#!/bin/sh\n").expect("written");
    fs::set_permissions(artifact.join("tool"), fs::Permissions::from_mode(0o755)).expect("set");
    let deliver =
        async |build: &Digest, from: &Path| bench.host.deliver(&bench.node, &token("home-a", 1), build, from).await;
    let (one, two) = tokio::join!(deliver(&build, &artifact), deliver(&build, &artifact));
    assert_eq!((one, two), (Ok(()), Ok(())));
    let there = bench.path(&format!("artifacts/{}", build.hex()));
    assert_eq!(fs::read(there.join("sub/wheel")).expect("delivered"), content);
    let mode = fs::metadata(there.join("tool"))
        .expect("delivered")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
    // A second delivery looks and finds it: what it would bring does not exist any more.
    fs::remove_dir_all(&artifact).expect("removed");
    assert_eq!(deliver(&build, &artifact).await, Ok(()));

    let missing = deliver(&Digest::of(b"2"), &artifact).await;
    assert!(matches!(missing, Err(HostError::Failed { .. })), "{missing:?}");
    let left: Vec<_> = fs::read_dir(bench.path("artifacts"))
        .expect("listed")
        .map(|e| e.expect("an entry").file_name())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(left, [build.hex().as_str()]);

    // It is what an install finds as its artifact.
    let work = Work::Install {
        release: build,
        script: script("cp -R \"$STAGEGATE_ARTIFACT/.\" \"$STAGEGATE_RELEASE_DIR\""),
    };
    bench.succeed("s1", work).await;
    assert!(bench.path(&format!("releases/{}/sub/wheel", build.hex())).exists());
}

//! What only a connection can do: break, be refused, go by way of another host.

use std::fs;

use stagegate::hosts::{Host as _, HostError, NodeSight, SshHost, StepState};

use super::{Bench, PATIENCE, check, ended, let_go, meeting, met_at, step, token};
use crate::sshd::Sshd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_unreachable_and_the_next_call_joins_the_step() {
    let bench = Bench::ssh();
    let sshd = bench.sshd.as_ref().expect("over ssh");
    let (arrived, go) = (bench.meeting_point("arrived"), bench.meeting_point("go"));
    let work = || check(meeting(&arrived, &go));
    let (cut, ()) = tokio::join!(bench.ask("s1", work(), PATIENCE), async {
        met_at(&arrived).await;
        sshd.cut();
    });
    assert!(matches!(cut, Err(HostError::Unreachable { .. })), "{cut:?}");
    let sight = bench
        .host
        .observe(&bench.node, &["s1".into()])
        .await
        .expect("connected again");
    assert_eq!(sight.steps["s1"], StepState::Running);
    let (end, ()) = tokio::join!(bench.run("s1", work()), let_go(&go));
    assert_eq!(end.exit, 0);
    assert_eq!(bench.read("effects"), "ran\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_down_or_not_who_it_was_is_unreachable() {
    let mut bench = Bench::ssh();
    fs::write(bench.root.join("known_hosts"), "").expect("written");
    let unknown = bench.host.observe(&bench.node, &[]).await;
    assert!(
        matches!(&unknown, Err(HostError::Unreachable { host, why })
            if host == "tested-node" && why.contains("Host key verification failed")),
        "{unknown:?}"
    );
    bench.sshd = None;
    let down = bench.host.observe(&bench.node, &[]).await;
    assert!(
        matches!(&down, Err(HostError::Unreachable { why, .. }) if why.contains("Connection refused")),
        "{down:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_host_of_the_configuration_is_gone_through() {
    let bench = Bench::ssh();
    let sshd = bench.sshd.as_ref().expect("over ssh");
    let gate_root = bench.root.join("gate");
    fs::create_dir(&gate_root).expect("made");
    let gate = Sshd::start(&gate_root);
    let text = |sshd: &Sshd| fs::read_to_string(sshd.config()).expect("written above");
    let config = bench.root.join("jumping");
    let behind = format!(
        "{} ProxyJump gate\n{}",
        text(sshd),
        text(&gate).replace("tested-node", "gate")
    );
    fs::write(&config, behind).expect("written");
    let host = || SshHost::new("tested-node", bench.root.join("d")).with_config(&config);
    let through = host();
    let sight = through
        .run(
            &bench.node,
            &token("home-a", 1),
            &step("s1", check("echo ran >>effects")),
            PATIENCE,
        )
        .await;
    assert_eq!(ended(&sight.expect("reached"), "s1").exit, 0);
    assert_eq!(bench.read("effects"), "ran\n");
    // And through nothing else: without the gate there is no way, though the node itself is up.
    drop(gate);
    for host in [through, host()] {
        let shut = host.observe(&bench.node, &[]).await;
        assert!(matches!(shut, Err(HostError::Unreachable { .. })), "{shut:?}");
    }
    bench.observe().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_host_key_is_refused_whatever_the_configuration_lets_in() {
    let bench = Bench::ssh();
    let sshd = bench.sshd.as_ref().expect("over ssh");
    let strict = fs::read_to_string(sshd.config()).expect("written");
    let known = fs::read_to_string(bench.root.join("known_hosts")).expect("written");
    let (address, key) = known.split_once(' ').expect("an address and a key");
    let other = fs::read_to_string(bench.root.join("user_key.pub")).expect("made");
    for setting in ["yes", "accept-new", "no"] {
        let config = bench.root.join(setting);
        let text = strict.replace("StrictHostKeyChecking yes", &format!("StrictHostKeyChecking {setting}"));
        fs::write(&config, text).expect("written");
        let look = async |known: String| {
            fs::write(bench.root.join("known_hosts"), known).expect("written");
            let host = SshHost::new("tested-node", bench.root.join("d")).with_config(&config);
            host.observe(&bench.node, &[]).await
        };
        let refused = |said: &Result<NodeSight, HostError>| {
            matches!(said, Err(HostError::Unreachable { host, why })
                if host == "tested-node" && why.contains("Host key verification failed"))
        };
        let changed = look(format!("{address} {other}")).await;
        assert!(refused(&changed), "{setting}: {changed:?}");
        let same = look(format!("{address} {key}")).await;
        assert!(same.is_ok(), "{setting}: {same:?}");
        let unknown = look(String::new()).await;
        if setting == "yes" {
            assert!(refused(&unknown), "{unknown:?}");
        } else {
            assert!(unknown.is_ok(), "{setting}: {unknown:?}");
            let learned = fs::read_to_string(bench.root.join("known_hosts")).expect("written");
            let words = |text: &str| text.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&learned), words(&known), "it is learned");
        }
    }
}

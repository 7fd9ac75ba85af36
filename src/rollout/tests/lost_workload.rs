//! A workload that is made anew, or whose memory is taken out, in mid-upgrade.

use super::*;

/// A canary and what it stands for, or the pods of a set: taken by this upgrade, on the new build, watched.
fn taken(order: Order) -> (Plan, UpgradeStatus) {
    let mut plan = plan(2, 1);
    plan.policy.order = order;
    plan.pods = plan.nodes.iter().cloned().collect();
    let mut status = status(Phase::Soak, &plan);
    for node in &mut status.nodes {
        done(node);
        (node.workload, node.steps) = (Some("first".to_owned()), 3);
    }
    (plan, status)
}

fn of(build: Option<Digest>, workload: &str, held_by: Option<&str>) -> NodeView {
    up(build.unwrap_or_else(old), Verdict::Pass).with(|seen| {
        seen.running = build;
        seen.workload = Some(workload.to_owned()).filter(|uid| !uid.is_empty());
        seen.held_by = held_by.map(str::to_owned);
    })
}

#[test]
fn a_workload_that_is_not_the_upgrades_any_more_is_somebody_elses_doing_and_no_builds() {
    for (workload, held_by, words) in [
        ("", None, Some("it was deleted")),
        ("second", None, Some("made anew")),
        ("second", Some("u"), Some("made anew")),
        ("first", None, Some("annotation stagegate.dev/rolling was taken out")),
        ("first", Some("other"), Some("upgrade other has it")),
        ("first", Some("u"), None),
    ] {
        for phase in [Phase::Baseline, Phase::Rolling, Phase::Soak] {
            let (plan, mut status) = taken(Order::CanaryFirst);
            status.phase = phase;
            for node in &mut status.nodes {
                // It has been away for longer than a service may be.
                node.sick_since = Some(at(0));
            }
            let build = words.map_or(Some(new()), |_| None);
            let world = vec![of(build, workload, held_by), of(build, workload, held_by)];
            let next = decided(&plan, &status, &look(12, world));
            match words {
                Some(words) => {
                    ends_in(&next, Phase::Paused, "ForeignEdit");
                    let message = &next.status.message;
                    assert!(message.contains(words) && message.contains("`abort`"), "{message}");
                }
                None => assert_ne!(next.status.reason, "ForeignEdit"),
            }
            assert_eq!(next.quarantine, None);
        }
    }
}

#[test]
fn what_was_never_seen_to_be_taken_is_not_missed() {
    let (plan, mut status) = taken(Order::AsListed);
    status.phase = Phase::Rolling;
    status.nodes[0].workload = None;
    // Its sight is of before the write that the other's is of after.
    let world = vec![of(Some(new()), "first", None), of(Some(new()), "first", Some("u"))];
    let next = decided(&plan, &status, &look(1, world)).status;
    assert_ne!(next.reason, "ForeignEdit", "{}", next.message);
    // And one that was made anew before anything was asked of it is known as it is then.
    status.nodes[1].workload = None;
    let world = vec![of(Some(old()), "second", None), of(Some(old()), "second", None)];
    let next = decided(&plan, &status, &look(1, world)).status;
    assert_ne!(next.reason, "ForeignEdit", "{}", next.message);
    let world = vec![of(Some(old()), "second", Some("u")), of(Some(old()), "second", None)];
    let next = decided(&plan, &status, &look(1, world)).status;
    let known = next.nodes.iter().map(|node| node.workload.as_deref());
    assert_eq!(known.collect::<Vec<_>>(), [Some("second"), None]);
}

#[test]
fn an_abort_of_a_workload_that_was_made_anew_ends_at_once_and_says_what_is_to_be_done() {
    // What its own pods run, whether each of the two nodes counts as back, and what is said.
    for (order, runs, expected, words) in [
        // With the manifest of before: there is nothing to restore.
        (
            Order::CanaryFirst,
            old(),
            [NodePhase::Done, NodePhase::Done],
            "runs the build it ran before",
        ),
        (
            Order::CanaryFirst,
            new(),
            [NodePhase::Done, NodePhase::OutOfService],
            "node1 could not be brought back",
        ),
        (
            Order::AsListed,
            old(),
            [NodePhase::Done, NodePhase::Done],
            "no node had changed",
        ),
        (
            Order::AsListed,
            new(),
            [NodePhase::OutOfService, NodePhase::OutOfService],
            "could not be brought back",
        ),
    ] {
        let (plan, mut status) = taken(order);
        (status.phase, status.resume_to) = (Phase::Paused, Some(Phase::Soak));
        let first = if order == Order::CanaryFirst { None } else { Some(runs) };
        let world = || vec![of(first, "second", None), of(Some(runs), "second", None)];
        let back = decided(&plan, &status, &observed(1, Wish::Abort, world())).status;
        let ended = if back.phase.is_final() {
            back
        } else {
            let next = decided(&plan, &back, &observed(2, Wish::Abort, world()));
            assert!(next.effects.is_empty(), "{:#?}", next.effects);
            next.status
        };
        assert_eq!(ended.phase, Phase::Aborted, "{ended:#?}");
        assert!(ended.message.contains(words), "{}", ended.message);
        let phases: Vec<NodePhase> = ended.nodes.iter().map(|node| node.phase).collect();
        assert_eq!(phases, expected, "{order:?} {}", runs.short());
        for node in ended.nodes.iter().filter(|node| node.phase == NodePhase::OutOfService) {
            let why = node.trouble.as_deref().unwrap_or_default();
            assert!(why.contains("made anew") && why.contains("by hand"), "{why}");
        }
    }
}

//! The way back, and the proof of the cure.

use super::*;

/// Two nodes on the new build, one place; the first is dead.
fn stuck_rollback(plan: &Plan) -> (UpgradeStatus, Vec<NodeView>) {
    let mut status = status(Phase::RollingBack, plan);
    status.rollback_for = Some(RollbackFor::BadBuild);
    status.nodes[0].phase = NodePhase::OutOfService;
    status.nodes[0].drained = true;
    (status, vec![gone(), up(new(), Verdict::Fail)])
}

#[test]
fn a_rollback_that_a_dead_node_holds_says_how_to_go_on() {
    let plan = plan(2, 1);
    let (status, world) = stuck_rollback(&plan);
    let held = decided(&plan, &status, &look(PATIENCE_S, world));
    ends_in(&held, Phase::Paused, "MaxUnavailable");
    assert!(!held.status.nodes[1].drained);
    assert!(held.status.message.contains("node0") && held.status.message.contains("`resume`"));
}

#[test]
fn resuming_and_aborting_a_held_rollback_both_try_the_mended_node_first() {
    let plan = plan(2, 1);
    let (status, world) = stuck_rollback(&plan);
    let held = decided(&plan, &status, &look(PATIENCE_S, world)).status;
    let mended = || vec![up(new(), Verdict::Fail), up(new(), Verdict::Fail)];
    let resumed = resume(&held, at(PATIENCE_S + 1)).expect("it is held");
    for (status, wish) in [(resumed, Wish::Proceed), (held, Wish::Abort)] {
        let decision = decided(&plan, &status, &observed(PATIENCE_S + 2, wish, mended()));
        assert_eq!(decision.status.phase, Phase::RollingBack, "{wish:?}");
        assert!(decision.status.nodes[0].in_batch, "{wish:?}");
        assert!(!decision.status.nodes[1].drained, "{wish:?}");
    }
}

#[test]
fn a_node_tried_again_while_the_cure_is_proven_begins_the_proof_anew() {
    let plan = plan(2, 1);
    let (mut status, _) = stuck_rollback(&plan);
    status.phase = Phase::Paused;
    status.resume_to = Some(Phase::RollingBack);
    status.cure = Some(cure());
    let resumed = resume(&status, at(1)).expect("it is held");
    assert_eq!((resumed.nodes[0].phase, resumed.cure), (NodePhase::Waiting, None));
}

#[test]
fn a_node_that_ran_nothing_before_is_left_behind_and_the_rest_goes_back() {
    let plan = plan(3, 1);
    let mut status = status(Phase::Rolling, &plan);
    for i in 0..2 {
        done(&mut status.nodes[i]);
    }
    status.nodes[0].from = None;
    let world = || {
        vec![
            up(new(), Verdict::Fail),
            up(new(), Verdict::Fail),
            up(old(), Verdict::Pass),
        ]
    };
    let back = decided(&plan, &status, &look(1, world()));
    ends_in(&back, Phase::RollingBack, "GateFailed");
    let next = decided(&plan, &back.status, &look(2, world()));
    let phases: Vec<_> = next.status.nodes.iter().map(|n| (n.phase, n.drained)).collect();
    assert_eq!(phases[0], (NodePhase::OutOfService, false));
    assert_eq!(phases[1], (NodePhase::Activate, true));
    assert_eq!(phases[2], (NodePhase::Done, false));
}

#[test]
fn a_bad_build_with_nothing_to_go_back_to_is_failed_and_quarantined() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Rolling, &plan);
    for node in &mut status.nodes {
        done(node);
        node.from = None;
    }
    let world = vec![up(new(), Verdict::Fail), up(new(), Verdict::Fail)];
    let decision = decided(&plan, &status, &look(1, world));
    ends_in(&decision, Phase::Failed, "GateFailed");
    assert!(decision.quarantine.is_some());
}

#[test]
fn a_node_that_recovered_without_a_place_does_not_keep_a_rollback_waiting_for_ever() {
    let plan = plan(2, 1);
    let (mut status, world) = stuck_rollback(&plan);
    status.nodes[1].phase = NodePhase::Drain;
    status.nodes[1].in_batch = true;
    ends_in(
        &decided(&plan, &status, &look(PATIENCE_S, world)),
        Phase::Paused,
        "MaxUnavailable",
    );
}

#[test]
fn leaving_a_node_behind_takes_nothing_out() {
    let plan = plan(2, 1);
    let (mut status, mut world) = stuck_rollback(&plan);
    status.nodes[1].phase = NodePhase::Install;
    status.nodes[1].in_batch = true;
    status.nodes[1].attempts = 1;
    step(&mut status.nodes[1], StepAction::Install, old());
    let ended = StepView::Ended {
        exit: 1,
        log_tail: "disk full".to_owned(),
    };
    world[1] = up(new(), Verdict::Fail)
        .with(|seen| seen.releases = vec![new()])
        .at_step(Some(ended));
    let node = &decided(&plan, &status, &look(1, world)).status.nodes[1];
    assert_eq!((node.phase, node.drained), (NodePhase::OutOfService, false));
}

#[test]
fn an_install_of_the_way_forward_does_not_count_for_the_way_back() {
    let plan = plan(2, 1);
    let (mut status, mut world) = stuck_rollback(&plan);
    in_batch(&mut status.nodes[0], NodePhase::Install);
    step(&mut status.nodes[0], StepAction::Install, new());
    let ended = StepView::Ended {
        exit: 0,
        log_tail: String::new(),
    };
    world[0] = up(new(), Verdict::Fail)
        .with(|seen| seen.releases = vec![new()])
        .at_step(Some(ended));
    let node = &decided(&plan, &status, &look(1, world)).status.nodes[0];
    let asked = node.step.as_ref().map(|s| (s.action, s.release));
    assert_eq!(asked, Some((StepAction::Install, old())), "{:?}", node.trouble);
}

#[test]
fn a_service_that_ends_while_the_cure_is_proven_is_started_again_and_the_proof_with_it() {
    let plan = plan(2, 1);
    let mut proving = proving_cure(&plan);
    let dead = || {
        up(old(), Verdict::Undecided)
            .serving(Serving::No)
            .with(|seen| seen.running = None)
    };
    let world = || look(1, vec![dead(), up(old(), Verdict::Pass)]);
    let after = decided(&plan, &proving, &world());
    assert!(
        after.status.nodes[0].in_batch && after.status.cure.is_none(),
        "{:?}",
        after.status
    );
    proving.nodes[0].rollback_restarts = 2;
    let after = decided(&plan, &proving, &world());
    assert!(after.status.cure.is_some(), "not for ever");
}

#[test]
fn an_abort_that_loses_a_node_wants_somebody() {
    let plan = plan(2, 1);
    let (mut status, _) = stuck_rollback(&plan);
    status.rollback_for = Some(RollbackFor::Abort);
    status.nodes[1].phase = NodePhase::Done;
    let decision = decided(&plan, &status, &look(1, vec![gone(), up(old(), Verdict::Pass)]));
    ends_in(&decision, Phase::Aborted, "AbortedByUser");
    assert_eq!(decision.events[0].severity, Severity::Alert);
}

#[test]
fn a_node_that_was_only_installed_on_ahead_keeps_serving_and_its_install_is_waited_for() {
    let plan = plan(2, 1);
    let mut before = status(Phase::Rolling, &plan);
    in_batch(&mut before.nodes[0], NodePhase::Analyse);
    step(&mut before.nodes[1], StepAction::Install, new());
    let installing = || up(old(), Verdict::Pass).at_step(Some(StepView::Running));
    let world = |first: NodeView| vec![first, installing()];
    let back = decided(&plan, &before, &look(1, world(up(new(), Verdict::Fail))));
    ends_in(&back, Phase::RollingBack, "GateFailed");
    let other = &back.status.nodes[1];
    assert_eq!((other.phase, other.drained), (NodePhase::Done, false));
    // An abort with nothing else to do waits for it too.
    let mut aborted = status(Phase::Rolling, &plan);
    step(&mut aborted.nodes[1], StepAction::Install, new());
    let mut proving = proving_cure(&plan);
    step(&mut proving.nodes[1], StepAction::Install, new());
    let ended = StepView::Ended {
        exit: 0,
        log_tail: String::new(),
    };
    for (status, wish, end) in [
        (aborted, Wish::Abort, Phase::Aborted),
        (proving, Wish::Proceed, Phase::RolledBack),
    ] {
        let waits = decided(&plan, &status, &observed(5, wish, world(up(old(), Verdict::Pass))));
        assert_eq!(waits.status.phase, Phase::RollingBack);
        assert_eq!(waits.effects.len(), 1, "a new driver finds the step");
        let world = vec![up(old(), Verdict::Pass), installing().at_step(Some(ended.clone()))];
        let over = decided(&plan, &waits.status, &observed(6, wish, world));
        assert_eq!(over.status.phase, end);
    }
}

/// Its restart was written down, its host vanished before the agent heard of it, and came back after it was given up.
#[test]
fn a_step_that_a_node_never_heard_of_keeps_no_way_back_from_ending() {
    let plan = plan(2, 1);
    let mut proving = proving_cure(&plan);
    proving.nodes[1].phase = NodePhase::OutOfService;
    step(&mut proving.nodes[1], StepAction::Restart, old());
    let world = vec![up(old(), Verdict::Pass), up(new(), Verdict::Pass)];
    ends_in(&decided(&plan, &proving, &look(5, world)), Phase::RolledBack, "Cured");
}

#[test]
fn a_gate_that_went_blind_proves_no_cure() {
    let plan = plan(2, 1);
    let world = vec![up(old(), Verdict::Pass), up(old(), Verdict::Pass).blind_since(at(5))];
    let decision = decided(&plan, &proving_cure(&plan), &look(26, world));
    assert_eq!(decision.status.phase, Phase::RollingBack);
}

/// Its parent died, and a worker of the bad build holds the port: its probes and its gate pass.
#[test]
fn gates_that_pass_on_what_a_dead_service_left_prove_no_cure() {
    let plan = plan(2, 1);
    let mut proving = proving_cure(&plan);
    proving.nodes[1].rollback_restarts = 2;
    let world = || {
        let stray = up(old(), Verdict::Pass).with(|seen| seen.running = None);
        vec![up(old(), Verdict::Pass), stray]
    };
    let waits = decided(&plan, &proving, &look(60, world()));
    assert_eq!(waits.status.phase, Phase::RollingBack);
    let ends = decided(&plan, &waits.status, &look(DEADLINE_S, world()));
    ends_in(&ends, Phase::RollbackIneffective, "CureNotProven");
    assert!(ends.status.message.contains("node1"), "{}", ends.status.message);
}

/// A canary and what it stands for, on the new build, on the way back.
fn canary_goes_back() -> (Plan, UpgradeStatus) {
    let mut plan = plan(2, 1);
    plan.policy.order = Order::CanaryFirst;
    let mut status = status(Phase::RollingBack, &plan);
    status.rollback_for = Some(RollbackFor::BadBuild);
    (plan, status)
}

#[test]
fn what_a_canary_stands_for_does_not_wait_for_it_on_the_way_back() {
    let (plan, status) = canary_goes_back();
    let world = || vec![up(new(), Verdict::Fail), up(new(), Verdict::Fail)];
    let next = decided(&plan, &status, &look(1, world())).status;
    let ways: Vec<_> = next.nodes.iter().map(|n| (n.phase, n.drained)).collect();
    assert_eq!(ways, [(NodePhase::Activate, true), (NodePhase::Activate, true)]);
    // Nor where the canary does not serve, or cannot come back.
    let (plan, mut status) = canary_goes_back();
    status.nodes[0].phase = NodePhase::OutOfService;
    status.nodes[0].drained = true;
    let dead = || vec![gone(), up(new(), Verdict::Fail)];
    let next = decided(&plan, &status, &look(PATIENCE_S, dead()));
    assert_eq!(next.status.phase, Phase::RollingBack, "{}", next.status.message);
    assert_eq!(
        (next.status.nodes[1].phase, next.status.nodes[1].drained),
        (NodePhase::Activate, true)
    );
    let mut back = next.status;
    in_batch(&mut back.nodes[1], NodePhase::Admit);
    back.nodes[1].step = None;
    let proves = decided(
        &plan,
        &back,
        &look(PATIENCE_S + 1, vec![gone(), up(old(), Verdict::Pass)]),
    )
    .status;
    assert!(proves.cure.is_some(), "{proves:?}");
    let cured = decided(
        &plan,
        &proves,
        &look(PATIENCE_S + 2, vec![gone(), up(old(), Verdict::Pass)]),
    );
    ends_in(&cured, Phase::RolledBack, "Cured");
}

/// Nodes on their way back; which of them are pods of a workload, and which can be reached.
fn going_back(pods: &str, reached: &str) -> (Plan, UpgradeStatus, Vec<NodeView>) {
    let mut plan = plan(reached.len(), reached.len());
    let names = plan.nodes.iter().zip(pods.chars());
    plan.pods = names
        .filter(|(_, kind)| *kind == 'p')
        .map(|(name, _)| name.clone())
        .collect();
    let mut status = status(Phase::RollingBack, &plan);
    status.rollback_for = Some(RollbackFor::BadBuild);
    for node in &mut status.nodes {
        in_batch(node, NodePhase::Activate);
        step(node, StepAction::Activate, old());
    }
    let views = reached.chars().map(|is| match is {
        'y' => up(new(), Verdict::Fail).at_step(Some(StepView::Running)),
        'n' => gone(),
        'r' => unserved(),
        other => panic!("{other}"),
    });
    let world = views.collect();
    (plan, status, world)
}

#[test]
fn where_it_is_we_who_reach_nobody_a_way_back_is_held_and_gives_nothing_up() {
    // Servers are `s`, pods `p`.
    for (nodes, reached, left_behind) in [
        ("ss", "nn", None),
        ("sss", "nny", Some("nodes 0 1")),
        // One machine that is dead, and no other that could tell.
        ("s", "n", Some("nodes 0")),
        ("p", "n", None),
        ("pp", "nn", None),
        ("pp", "ny", Some("nodes 0")),
        // What one API server refuses for one of them it would refuse for the next.
        ("pp", "ry", None),
        ("ppp", "yry", None),
        ("pp", "rn", None),
        ("pps", "ryy", None),
        // The others are asked of somebody else.
        ("pps", "nny", None),
        ("ps", "yn", Some("nodes 1")),
    ] {
        let (plan, status, world) = going_back(nodes, reached);
        let next = decided(&plan, &status, &look(PATIENCE_S, world)).status;
        let left: Vec<String> = (0..next.nodes.len())
            .filter(|&i| next.nodes[i].phase == NodePhase::OutOfService)
            .map(|i| i.to_string())
            .collect();
        if let Some(expected) = left_behind {
            assert_eq!(format!("nodes {}", left.join(" ")), expected, "{nodes} {reached}");
            continue;
        }
        assert!(left.is_empty() && waits_to_reach(&next), "{nodes} {reached}: {next:#?}");
        assert_eq!(next.resume_to, Some(Phase::RollingBack));
        let why = if reached.contains('r') { "not now" } else { "no route" };
        assert!(
            next.message.contains(why) && next.message.contains("`resume`"),
            "{}",
            next.message
        );
    }
}

#[test]
fn a_way_back_that_reached_nobody_goes_on_with_the_first_who_is() {
    let (plan, status, world) = going_back("pp", "nn");
    let held = decided(&plan, &status, &look(PATIENCE_S, world)).status;
    let unseen = NodeView {
        look: Look::NotYet,
        ..gone()
    };
    let back = || up(new(), Verdict::Fail);
    for (wish, world, goes_on) in [
        (Wish::Proceed, vec![gone(), gone()], false),
        (Wish::Proceed, vec![gone(), back()], true),
        (Wish::Proceed, vec![unseen.clone(), unseen.clone()], false),
        // Who asks for it anew has it tried, but not by the driver that has just found out.
        (Wish::Abort, vec![unseen.clone(), unseen.clone()], true),
        (Wish::Abort, vec![gone(), gone()], false),
        (Wish::Abort, vec![gone(), back()], true),
        (Wish::Pause, vec![back(), back()], false),
    ] {
        let next = decided(&plan, &held, &observed(PATIENCE_S + 60, wish, world)).status;
        let expected = if goes_on { Phase::RollingBack } else { Phase::Paused };
        assert_eq!(next.phase, expected, "{wish:?}");
        if goes_on {
            assert!(
                next.nodes.iter().all(|node| node.since == at(PATIENCE_S + 60)),
                "as long again"
            );
        }
    }
}

/// Looks are answered, and writes refused: only who asks finds out when that is over.
#[test]
fn a_way_back_whose_writes_were_refused_is_tried_while_it_is_held_and_goes_on_with_the_first_that_is_taken() {
    let (plan, status, world) = going_back("pp", "ry");
    let held = decided(&plan, &status, &look(PATIENCE_S, world)).status;
    assert!(waits_to_reach(&held), "{held:#?}");
    let asked = |views: &str, wish| {
        let (_, _, world) = going_back("pp", views);
        let next = decided(&plan, &held, &observed(PATIENCE_S + 60, wish, world));
        let asked: Vec<usize> = next.effects.iter().map(|effect| effect.node).collect();
        (next.status.phase, asked)
    };
    for wish in [Wish::Proceed, Wish::Abort] {
        assert_eq!(asked("ry", wish), (Phase::Paused, vec![0]), "{wish:?}");
        assert_eq!(asked("rr", wish), (Phase::Paused, vec![0, 1]), "{wish:?}");
        let (phase, _) = asked("yy", wish);
        assert_eq!(phase, Phase::RollingBack, "{wish:?}");
    }
    assert_eq!(asked("rr", Wish::Pause), (Phase::Paused, Vec::new()));
}

#[test]
fn what_was_refused_of_the_way_forward_is_not_asked_for_again_on_the_way_back() {
    let (plan, mut status, world) = going_back("pp", "ry");
    status.nodes[0].step.as_mut().expect("a step").release = new();
    let next = decided(&plan, &status, &look(1, world));
    assert_eq!(next.status.nodes[0].step, None);
    assert!(
        next.effects.iter().all(|effect| effect.intent.release == old()),
        "{next:#?}"
    );
}

#[test]
fn servers_that_are_reached_say_nothing_of_the_pods_beside_them() {
    let (plan, status, world) = going_back("pps", "nny");
    let held = decided(&plan, &status, &look(PATIENCE_S, world)).status;
    assert!(waits_to_reach(&held), "{held:#?}");
    let back = || up(new(), Verdict::Fail);
    for (world, phase) in [
        (vec![gone(), gone(), back()], Phase::Paused),
        (vec![gone(), back(), gone()], Phase::RollingBack),
    ] {
        let next = decided(&plan, &held, &look(PATIENCE_S + 60, world)).status;
        assert_eq!(next.phase, phase);
    }
}

#[test]
fn what_an_upgrade_had_of_a_workload_is_kept_with_its_end_until_somebody_gives_it_back() {
    for (pods, steps, is_kept) in [("pp", 1, true), ("ss", 1, false), ("pp", 0, false)] {
        let (plan, mut status, _) = going_back(pods, "yy");
        for node in &mut status.nodes {
            node.phase = NodePhase::Done;
            (node.in_batch, node.drained, node.step) = (false, false, None);
            node.steps = steps;
        }
        status.rollback_for = Some(RollbackFor::Abort);
        let world = vec![up(old(), Verdict::Pass), up(old(), Verdict::Pass)];
        let ended = decided(&plan, &status, &observed(1, Wish::Abort, world));
        ends_in(&ended, Phase::Aborted, "AbortedByUser");
        assert_eq!(ended.status.kept.is_some(), is_kept, "{pods} {steps}");
        assert_eq!(ended.status.is_over(), !is_kept);
    }
}

#[test]
fn who_went_back_for_want_of_an_image_says_so_in_the_end_and_holds_nothing_against_the_build() {
    let plan = plan(1, 1);
    for (why, reason) in [(RollbackFor::NotFetched, "ImagePull"), (RollbackFor::BadBuild, "Cured")] {
        let mut status = status(Phase::RollingBack, &plan);
        status.rollback_for = Some(why);
        done(&mut status.nodes[0]);
        status.nodes[0].analysed_since = Some(at(1));
        status.cure = Some(Cure {
            since: at(1),
            proven_at: None,
            gates: Vec::new(),
        });
        let decision = decided(&plan, &status, &look(30, vec![up(old(), Verdict::Pass)]));
        ends_in(&decision, Phase::RolledBack, reason);
        assert_eq!(decision.quarantine, None);
    }
}

/// Pods on their way back, made anew with the image from before: what is seen of each.
fn fetching(order: Order, views: &[NodeView]) -> (Plan, UpgradeStatus, Vec<NodeView>) {
    let (mut plan, mut status, _) = going_back(&"p".repeat(views.len()), &"y".repeat(views.len()));
    plan.policy.order = order;
    for node in &mut status.nodes {
        in_batch(node, NodePhase::Restart);
        step(node, StepAction::Restart, old());
    }
    (plan, status, views.to_vec())
}

fn unfetched() -> NodeView {
    NodeView {
        signals: Signals {
            serving: Serving::No,
            ..gone().signals
        },
        ..up(new(), Verdict::Fail)
            .with(|seen| (seen.current, seen.running) = (Some(old()), None))
            .at_step(Some(StepView::NotFetched {
                why: "i/o timeout".to_owned(),
            }))
    }
}

fn back_again() -> NodeView {
    up(old(), Verdict::Pass).at_step(Some(StepView::Ended {
        exit: 0,
        log_tail: String::new(),
    }))
}

#[test]
fn a_registry_that_is_away_holds_a_way_back_and_leaves_no_pod_behind() {
    let running = || up(new(), Verdict::Fail).at_step(Some(StepView::Running));
    for (views, after_s, held) in [
        (vec![unfetched()], PATIENCE_S - 1, false),
        (vec![unfetched()], PATIENCE_S, true),
        (vec![unfetched(), unfetched()], PATIENCE_S, true),
        // Others that go on are not left where they are.
        (vec![unfetched(), running()], PATIENCE_S, false),
        (vec![unfetched(), back_again()], PATIENCE_S, true),
    ] {
        let (plan, status, world) = fetching(Order::AsListed, &views);
        let next = decided(&plan, &status, &look(after_s, world)).status;
        assert_eq!(
            waits_to_reach(&next),
            held,
            "{after_s} {}: {}",
            views.len(),
            next.message
        );
        assert_eq!(next.nodes[0].step, status.nodes[0].step, "its machine goes on with it");
        assert!(
            next.nodes.iter().all(|node| node.phase != NodePhase::OutOfService),
            "{next:#?}"
        );
        if held {
            assert_eq!(
                (next.phase, next.reason.as_str(), next.resume_to),
                (Phase::Paused, "ImagePull", Some(Phase::RollingBack))
            );
            assert!(next.message.contains("i/o timeout") && next.message.contains("`resume`"));
        }
    }
}

#[test]
fn a_way_back_that_waited_for_an_image_goes_on_once_its_machine_has_it() {
    let (plan, status, world) = fetching(Order::AsListed, &[unfetched()]);
    let held = decided(&plan, &status, &look(PATIENCE_S, world)).status;
    let unseen = || NodeView {
        look: Look::NotYet,
        ..gone()
    };
    for (wish, view, goes_on) in [
        (Wish::Proceed, unfetched(), false),
        (Wish::Proceed, unseen(), false),
        (Wish::Proceed, gone(), false),
        (Wish::Proceed, back_again(), true),
        (Wish::Abort, unfetched(), false),
        (Wish::Abort, unseen(), true),
        (Wish::Pause, back_again(), false),
    ] {
        let next = decided(&plan, &held, &observed(PATIENCE_S + 60, wish, vec![view])).status;
        let expected = if goes_on { Phase::RollingBack } else { Phase::Paused };
        assert_eq!(next.phase, expected, "{wish:?}");
    }
    // It was made anew once, and counts as that.
    let on = decided(&plan, &held, &look(PATIENCE_S + 60, vec![back_again()]));
    let node = &on.status.nodes[0];
    assert_eq!((node.restarts, node.rollback_restarts, node.steps), (0, 1, 0));
    let next = decided(
        &plan,
        &on.status,
        &look(PATIENCE_S + 61, vec![up(old(), Verdict::Pass)]),
    );
    assert!(next.status.cure.is_some(), "{:#?}", next.status);
    assert!(next.effects.is_empty(), "{:#?}", next.effects);
}

/// It goes with its upgrade, whatever becomes of it.
#[test]
fn nothing_waits_for_the_image_of_a_canary_on_the_way_back() {
    let (plan, status, world) = fetching(Order::CanaryFirst, &[unfetched(), back_again()]);
    let next = decided(&plan, &status, &look(1, world)).status;
    assert_eq!(next.nodes[0].phase, NodePhase::OutOfService, "{next:#?}");
    assert_eq!(next.phase, Phase::RollingBack);
}

#[test]
fn a_node_whose_step_was_refused_before_it_was_begun_is_as_it_was_and_not_left_behind() {
    let refused = || NodeView {
        look: Look::Unreachable {
            why: "somebody else has changed it".to_owned(),
            of: Silence::Refusal,
        },
        ..up(old(), Verdict::Pass)
    };
    for phase in [NodePhase::Activate, NodePhase::Restart] {
        let (plan, mut status, _) = going_back("p", "y");
        in_batch(&mut status.nodes[0], phase);
        step(&mut status.nodes[0], StepAction::Activate, new());
        let aborted = decided(&plan, &status, &observed(1, Wish::Abort, vec![refused()]));
        assert!(
            aborted.status.nodes[0].step.is_none() && aborted.effects.is_empty(),
            "{aborted:#?}"
        );
        let mut status = aborted.status;
        for s in 2..6 {
            let next = decided(
                &plan,
                &status,
                &observed(PATIENCE_S * s, Wish::Abort, vec![up(old(), Verdict::Pass)]),
            );
            assert!(next.effects.is_empty(), "nothing is to be done: {next:#?}");
            status = next.status;
        }
        assert_eq!(status.nodes[0].phase, NodePhase::Done, "{status:#?}");
    }
}

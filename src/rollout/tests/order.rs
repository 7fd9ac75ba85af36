//! Which node comes when: batches, places, draining, and what a soak waits for.

use super::*;

#[test]
fn a_node_that_is_out_already_goes_first_and_costs_nothing() {
    let plan = plan(3, 1);
    let sick = up(old(), Verdict::Pass).serving(Serving::No);
    let world = vec![up(old(), Verdict::Pass), sick, up(old(), Verdict::Pass)];
    let decision = decided(&plan, &status(Phase::Rolling, &plan), &look(1, world));
    let batch: Vec<_> = decision.status.nodes.iter().map(|n| n.in_batch).collect();
    assert_eq!(batch, [false, true, false]);
}

#[test]
fn a_node_that_cannot_be_reached_is_chosen_last() {
    let plan = plan(3, 2);
    let well = || up(old(), Verdict::Pass);
    let decision = decided(
        &plan,
        &status(Phase::Rolling, &plan),
        &look(1, vec![gone(), well(), well()]),
    );
    let batch: Vec<_> = decision.status.nodes.iter().map(|n| n.in_batch).collect();
    assert_eq!(batch, [false, true, false]);
}

#[test]
fn what_is_out_goes_first_though_it_was_not_seen_yet() {
    let plan = plan(3, 1);
    let mut before = status(Phase::Rolling, &plan);
    done(&mut before.nodes[0]);
    before.nodes[1].drained = true;
    let unheard = |build| up(build, Verdict::Pass).serving(Serving::Unknown);
    // A driver that has just begun has looked at some nodes, and no probe has spoken.
    for (second, chosen) in [
        (NodeView::default(), None),
        (unheard(new()), Some(1)),
        // What cannot be reached is not waited for, but its place is used up.
        (gone(), None),
    ] {
        let decision = decide(
            &plan,
            &before,
            &look(1, vec![unheard(new()), second.clone(), unheard(old())]),
        )
        .expect("legal");
        let batch = decision.status.nodes.iter().position(|n| n.in_batch);
        assert_eq!(batch, chosen, "{second:?}");
    }
}

#[test]
fn success_says_on_which_build_a_node_was_left_out() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Soak, &plan);
    done(&mut status.nodes[0]);
    status.nodes[1].phase = NodePhase::OutOfService;
    status.nodes[1].drained = true;
    status.nodes[1].trouble = Some("its probes do not pass".to_owned());
    let world = vec![up(new(), Verdict::Pass), up(new(), Verdict::NoData)];
    let decision = decided(&plan, &status, &look(30, world));
    ends_in(&decision, Phase::Succeeded, "NodesLeftOut");
    assert!(!decision.verified);
    assert_eq!(
        decision.status.message,
        "web@2 passed, but left out: node1 (on the new build: its probes do not pass)"
    );
}

#[test]
fn a_soak_does_not_end_over_a_node_that_does_not_serve() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Soak, &plan);
    done(&mut status.nodes[0]);
    done(&mut status.nodes[1]);
    let unheard = up(new(), Verdict::Pass).serving(Serving::Unknown);
    let decision = decided(&plan, &status, &look(40, vec![up(new(), Verdict::Pass), unheard]));
    assert_eq!(decision.status.phase, Phase::Soak);
}

#[test]
fn the_balancer_hears_of_a_node_that_is_given_up() {
    let mut plan = plan(3, 1);
    plan.hooks.drain = true;
    let mut status = status(Phase::Soak, &plan);
    for node in &mut status.nodes {
        done(node);
    }
    let world = |first: NodeView| {
        let well = || up(new(), Verdict::Pass);
        vec![first, well(), well()]
    };
    let fails = || up(new(), Verdict::Fail);
    let given_up = decided(&plan, &status, &look(1, world(fails())));
    assert_eq!(given_up.status.nodes[0].phase, NodePhase::Removing);
    let asked = decided(&plan, &given_up.status, &look(40, world(fails())));
    assert_eq!(asked.effects[0].intent.action, StepAction::Drain);
    assert_eq!(asked.status.phase, Phase::Soak, "it waits for the balancer");
    let ended = StepView::Ended {
        exit: 0,
        log_tail: String::new(),
    };
    let gone = decided(&plan, &asked.status, &look(41, world(fails().at_step(Some(ended)))));
    ends_in(&gone, Phase::Succeeded, "NodesLeftOut");
    assert!(
        gone.events.iter().any(|e| e.severity == Severity::Alert),
        "somebody must look"
    );
}

#[test]
fn a_node_that_the_last_upgrade_left_out_is_out_until_it_passes() {
    let mut plan = plan(2, 1);
    plan.left_out.insert("node1".to_owned());
    let mut before = status(Phase::Preflight, &plan);
    before.nodes[1].from = None;
    let world = vec![up(old(), Verdict::Pass), up(new(), Verdict::Pass)];
    let after = decided(&plan, &before, &look(1, world));
    let of_node = &after.status.nodes[1];
    assert_eq!((of_node.phase, of_node.drained), (NodePhase::Waiting, true));
}

#[test]
fn calls_in_flight_are_waited_for_as_long_as_one_may_take() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Rolling, &plan);
    in_batch(&mut status.nodes[0], NodePhase::Drain);
    let world = |calls| {
        let mut draining = up(old(), Verdict::Pass);
        draining.signals.in_flight = calls;
        vec![draining, up(old(), Verdict::Pass)]
    };
    let phase = |s, calls| decided(&plan, &status, &look(s, world(calls))).status.nodes[0].phase;
    assert_eq!(phase(1, 2), NodePhase::Drain);
    assert_eq!(phase(1, 0), NodePhase::Activate);
    assert_eq!(phase(5, 2), NodePhase::Activate, "a call that old is bad already");
}

#[test]
fn a_mended_node_goes_on_beside_a_batch_that_waits_for_its_place() {
    let plan = plan(3, 1);
    let mut status = status(Phase::Rolling, &plan);
    status.nodes[0].drained = true;
    done(&mut status.nodes[1]);
    in_batch(&mut status.nodes[2], NodePhase::Drain);
    status.nodes[2].drained = false;
    let world = vec![
        up(new(), Verdict::Pass),
        up(new(), Verdict::Pass),
        up(old(), Verdict::Pass),
    ];
    let after = decided(&plan, &status, &look(1, world)).status;
    assert!(after.nodes[0].in_batch && !after.nodes[2].drained, "{after:?}");
}

/// The first node is being judged, the others wait, and lack the build.
fn judged_first(plan: &Plan) -> (UpgradeStatus, Vec<NodeView>) {
    let mut status = status(Phase::Rolling, plan);
    in_batch(&mut status.nodes[0], NodePhase::Analyse);
    let lacks_it = || up(old(), Verdict::Pass).with(|seen| seen.releases = vec![old()]);
    let mut world = vec![up(new(), Verdict::Undecided)];
    world.extend((1..plan.nodes.len()).map(|_| lacks_it()));
    (status, world)
}

#[test]
fn the_next_batch_gets_the_build_while_this_one_is_judged() {
    let plan = plan(4, 1);
    let (before, world) = judged_first(&plan);
    let after = decided(&plan, &before, &look(1, world));
    let asked: Vec<_> = after.effects.iter().map(|e| (e.node, e.intent.action)).collect();
    assert_eq!(asked, [(1, StepAction::Install)]);
    let next = &after.status.nodes[1];
    assert_eq!(
        (next.phase, next.in_batch, next.drained),
        (NodePhase::Waiting, false, false)
    );
    // Its turn finds the step that runs.
    let mut turn = after.status.clone();
    done(&mut turn.nodes[0]);
    turn.nodes[0].in_batch = false;
    turn.nodes[0].drained = false;
    let lacks_it = || up(old(), Verdict::Pass).with(|seen| seen.releases = vec![old()]);
    let world = vec![
        up(new(), Verdict::Pass),
        lacks_it().at_step(Some(StepView::Running)),
        lacks_it(),
        lacks_it(),
    ];
    let turn = decided(&plan, &turn, &look(2, world));
    assert_eq!(turn.status.nodes[1].phase, NodePhase::Install);
    assert_eq!(turn.status.nodes[1].step, after.status.nodes[1].step);
}

#[test]
fn an_install_ahead_that_fails_is_left_to_the_nodes_own_turn() {
    let plan = plan(2, 1);
    let (mut status, mut world) = judged_first(&plan);
    let ended = |exit| {
        Some(StepView::Ended {
            exit,
            log_tail: "no space".to_owned(),
        })
    };
    // A step that ended with 0 and left no release is no success either.
    for (attempts, exit) in [(1, 1), (0, 0)] {
        status.nodes[1].attempts = attempts;
        step(&mut status.nodes[1], StepAction::Install, new());
        world[1] = world[1].clone().at_step(ended(exit));
        let after = decided(&plan, &status, &look(1, world.clone()));
        let again = decided(&plan, &after.status, &look(2, world.clone()));
        assert_eq!((after.effects, again.effects), (Vec::new(), Vec::new()), "{exit}");
        assert_eq!(again.status.phase, Phase::Rolling);
    }
}

#[test]
fn a_canary_takes_no_place_and_what_it_stands_for_comes_after_it() {
    let mut plan = plan(2, 1);
    plan.policy.order = Order::CanaryFirst;
    let status = status(Phase::Rolling, &plan);
    // All of what it stands for is sick: that is what the upgrade is to mend.
    let world = vec![up(old(), Verdict::Pass), up(old(), Verdict::Fail).serving(Serving::No)];
    let next = decided(&plan, &status, &look(1, world)).status;
    let ways: Vec<_> = next.nodes.iter().map(|n| (n.in_batch, n.drained)).collect();
    assert_eq!(ways, [(true, true), (false, false)], "{}", next.message);
    // It is no licence for the other while the canary is out.
    let world = vec![
        up(new(), Verdict::Undecided).serving(Serving::No),
        up(old(), Verdict::Pass),
    ];
    let mut judged = next;
    judged.nodes[0].phase = NodePhase::Probe;
    let next = decided(&plan, &judged, &look(2, world)).status;
    assert!(!next.nodes[1].in_batch && !next.nodes[1].drained, "{next:?}");
}

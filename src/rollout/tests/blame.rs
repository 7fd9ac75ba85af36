//! Whose fault a failure is: the build's, the node's, of what all share, or of nobody who looked.

use super::*;

#[test]
fn a_failing_node_that_serves_goes_out_when_it_has_a_place_and_before_the_next_batch() {
    let plan = plan(4, 1);
    let mut status = status(Phase::Rolling, &plan);
    done(&mut status.nodes[0]);
    done(&mut status.nodes[1]);
    in_batch(&mut status.nodes[2], NodePhase::Admit);
    status.nodes[2].drained = true;
    step(&mut status.nodes[2], StepAction::Admit, new());
    let world = |admitted: Option<StepView>| {
        vec![
            up(new(), Verdict::Fail),
            up(new(), Verdict::Pass),
            up(new(), Verdict::Pass).at_step(admitted),
            up(old(), Verdict::Pass),
        ]
    };
    let mut plan = plan;
    plan.hooks.admit = true;
    let first = decided(&plan, &status, &look(1, world(Some(StepView::Running))));
    assert_eq!(
        (first.status.phase, first.status.nodes[0].drained),
        (Phase::Rolling, false)
    );
    let ended = StepView::Ended {
        exit: 0,
        log_tail: String::new(),
    };
    let second = decided(&plan, &first.status, &look(2, world(Some(ended))));
    assert_eq!(second.status.nodes[2].phase, NodePhase::Done);
    assert!(
        !second.status.nodes[3].in_batch,
        "no batch before the place that is owed"
    );
    let third = decided(&plan, &second.status, &look(3, world(None)));
    assert_eq!(third.status.nodes[0].phase, NodePhase::OutOfService);
    assert!(third.status.nodes[0].drained);
}

#[test]
fn hosts_that_vanish_are_no_builds_fault_however_many() {
    let plan = plan(3, 2);
    let mut status = status(Phase::Rolling, &plan);
    done(&mut status.nodes[0]);
    status.nodes[1].phase = NodePhase::OutOfService;
    status.nodes[1].drained = true;
    in_batch(&mut status.nodes[2], NodePhase::Restart);
    let world = vec![up(new(), Verdict::Pass), gone(), gone()];
    let decision = decided(&plan, &status, &look(PATIENCE_S, world));
    ends_in(&decision, Phase::Paused, "NodeUnreachable");
    assert_eq!(decision.quarantine, None);
}

#[test]
fn a_registry_that_is_away_is_no_builds_fault_however_many_nodes_it_stops() {
    let plan = plan(3, 2);
    let mut status = status(Phase::Rolling, &plan);
    done(&mut status.nodes[0]);
    // The budget is spent, so one more that failed would be the build's.
    status.nodes[1].phase = NodePhase::OutOfService;
    status.nodes[1].drained = true;
    in_batch(&mut status.nodes[2], NodePhase::Restart);
    step(&mut status.nodes[2], StepAction::Restart, new());
    let world = |ended: StepView| {
        let last = up(old(), Verdict::NoData).serving(Serving::No).at_step(Some(ended));
        vec![up(new(), Verdict::Pass), gone(), last]
    };
    let away = StepView::NotFetched {
        why: "ErrImagePull: no such host".to_owned(),
    };
    let decision = decided(&plan, &status, &look(60, world(away)));
    ends_in(&decision, Phase::RollingBack, "ImagePull");
    assert_eq!(decision.quarantine, None);
    assert!(
        decision.status.message.contains("no such host"),
        "{}",
        decision.status.message
    );
    let missing = StepView::Ended {
        exit: 1,
        log_tail: "ErrImagePull: not found".to_owned(),
    };
    let decision = decided(&plan, &status, &look(60, world(missing)));
    ends_in(&decision, Phase::RollingBack, "FailedNodeBudget");
    assert!(decision.quarantine.is_some());
}

#[test]
fn nodes_that_fail_beyond_the_budget_are_the_builds_fault() {
    let plan = plan(3, 2);
    let mut status = status(Phase::Rolling, &plan);
    done(&mut status.nodes[0]);
    status.nodes[1].phase = NodePhase::OutOfService;
    status.nodes[1].drained = true;
    in_batch(&mut status.nodes[2], NodePhase::Probe);
    let dead = up(new(), Verdict::NoData).serving(Serving::No);
    let world = vec![up(new(), Verdict::Pass), gone(), dead];
    let decision = decided(&plan, &status, &look(60, world));
    ends_in(&decision, Phase::RollingBack, "FailedNodeBudget");
    assert!(decision.quarantine.is_some());
}

#[test]
fn old_nodes_that_fail_too_clear_the_build_however_many_of_its_nodes_fail() {
    use Verdict::{Fail, Undecided};
    let plan = plan(3, 1);
    let mut before = status(Phase::Rolling, &plan);
    done(&mut before.nodes[0]);
    in_batch(&mut before.nodes[1], NodePhase::Analyse);
    let node = |build, verdict| {
        let mut node = up(build, verdict);
        node.signals.readings[0].bad = 9;
        node.signals.readings[0].last_bad_at = Some(at(1));
        node
    };
    for (verdicts, late_s, phase) in [
        ([Fail, Fail, Fail], 1, Phase::Paused),
        ([Undecided, Fail, Fail], 1, Phase::Paused),
        ([Fail, Fail, Undecided], 1, Phase::Rolling),
        ([Fail, Fail, Undecided], 5, Phase::RollingBack),
        ([Undecided, Fail, Undecided], 1, Phase::Rolling),
    ] {
        let nodes = [new(), new(), old()].into_iter().zip(verdicts);
        let after = decide(&plan, &before, &look(late_s, nodes.map(|(b, v)| node(b, v)).collect())).expect("legal");
        assert_eq!(after.status.phase, phase, "{verdicts:?} after {late_s} s");
        assert_eq!(after.quarantine.is_some(), phase == Phase::RollingBack, "{verdicts:?}");
    }
}

#[test]
fn a_service_that_ends_under_test_has_failed_though_its_gate_has_passed() {
    let plan = plan(2, 1);
    let dead = || {
        up(new(), Verdict::Pass)
            .serving(Serving::No)
            .with(|seen| seen.running = None)
    };
    for (phase, of_node) in [(Phase::Soak, NodePhase::Done), (Phase::Rolling, NodePhase::Analyse)] {
        let mut status = status(phase, &plan);
        done(&mut status.nodes[0]);
        done(&mut status.nodes[1]);
        if of_node == NodePhase::Analyse {
            in_batch(&mut status.nodes[1], of_node);
        }
        let both = |s| look(s, vec![dead(), dead()]);
        let first = decided(&plan, &status, &both(25));
        assert_eq!(first.status.phase, phase, "a supervisor may start it anew");
        let second = decided(&plan, &first.status, &both(36));
        ends_in(&second, Phase::RollingBack, "NodeFailed");
        assert!(second.quarantine.is_some());
        // One of two is the node's own fault, and one that came back in time is nobody's.
        let one = decided(&plan, &first.status, &look(36, vec![up(new(), Verdict::Pass), dead()]));
        assert_eq!(one.status.nodes[1].phase, NodePhase::OutOfService, "{:?}", one.status);
        let mended = decided(&plan, &first.status, &look(29, vec![up(new(), Verdict::Pass); 2]));
        assert_eq!(mended.status.nodes[1].sick_since, None);
    }
}

#[test]
fn services_that_wait_for_what_the_old_ones_wait_for_are_held_against_no_build() {
    let plan = plan(2, 1);
    let mut before = status(Phase::Rolling, &plan);
    in_batch(&mut before.nodes[0], NodePhase::Analyse);
    before.nodes[0].sick_since = Some(at(1));
    let mute = |build| up(build, Verdict::Undecided).serving(Serving::No);
    let held = decided(&plan, &before, &look(20, vec![mute(new()), mute(old())]));
    ends_in(&held, Phase::Paused, "SharedDependencyDegraded");
    // An old service that has ended waits for nothing.
    let ended = mute(old()).with(|seen| seen.running = None);
    let blamed = decided(&plan, &before, &look(20, vec![mute(new()), ended]));
    ends_in(&blamed, Phase::RollingBack, "NodeFailed");
}

#[test]
fn nothing_is_held_against_a_node_for_a_time_in_which_nobody_looked() {
    let plan = plan(2, 1);
    let unheard = |build| up(build, Verdict::NoData).serving(Serving::Unknown);
    for (phase, of_node) in [
        (Phase::Rolling, NodePhase::Probe),
        (Phase::Rolling, NodePhase::Analyse),
        (Phase::RollingBack, NodePhase::Probe),
    ] {
        let mut status = status(phase, &plan);
        in_batch(&mut status.nodes[0], of_node);
        let build = if phase == Phase::RollingBack { old() } else { new() };
        let mut first = look(10_000, vec![unheard(build), unheard(old())]);
        let blamed = decided(&plan, &status, &first);
        assert!(
            blamed.status.phase != phase || blamed.status.nodes[0].phase == NodePhase::OutOfService,
            "watched all the time it is: {:?}",
            blamed.status
        );
        first.watching_since = at(10_000);
        let decision = decided(&plan, &status, &first);
        assert_eq!(
            (decision.status.phase, decision.status.nodes[0].phase),
            (phase, of_node)
        );
    }
    let proving = proving_cure(&plan);
    let mut late = look(10_000, vec![unheard(old()), unheard(old())]);
    late.watching_since = at(10_000);
    assert_eq!(decided(&plan, &proving, &late).status.phase, Phase::RollingBack);
}

#[test]
fn a_gate_that_fails_is_heard_though_its_host_says_nothing() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Rolling, &plan);
    in_batch(&mut status.nodes[0], NodePhase::Analyse);
    let mut mute = gone();
    mute.signals = up(new(), Verdict::Fail).signals;
    let decision = decided(&plan, &status, &look(1, vec![mute, up(old(), Verdict::Pass)]));
    ends_in(&decision, Phase::Paused, "NodeUnreachable");
    assert_eq!(decision.quarantine, None, "the build or the host");
}

#[test]
fn what_failed_before_the_upgrade_proves_nothing_against_the_build() {
    let plan = plan(1, 1);
    let mut status = status(Phase::Baseline, &plan);
    status.nodes[0].analysed_since = Some(at(0));
    let held = decided(&plan, &status, &look(1, vec![up(old(), Verdict::Fail)]));
    ends_in(&held, Phase::Paused, "SharedDependencyDegraded");
    let mut status = resume(&held.status, at(2)).expect("it is held");
    in_batch(&mut status.nodes[0], NodePhase::Analyse);
    let again = decided(&plan, &status, &look(3, vec![up(new(), Verdict::Fail)]));
    ends_in(&again, Phase::Paused, "SharedDependencyDegraded");
    assert_eq!(again.quarantine, None);
}

#[test]
fn calls_that_fail_for_want_of_a_service_are_told_as_that() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Rolling, &plan);
    in_batch(&mut status.nodes[0], NodePhase::Analyse);
    status.nodes[0].analysed_since = Some(at(0));
    let told = |view: NodeView| {
        let decision = decided(&plan, &status, &look(5, vec![view, up(old(), Verdict::Pass)]));
        ends_in(&decision, Phase::RollingBack, "GateFailed");
        decision.status.message
    };
    let words = "does not run any more";
    assert!(!told(up(new(), Verdict::Fail)).contains(words));
    let dead = up(new(), Verdict::Fail).with(|seen| seen.running = None);
    assert!(told(dead).contains(words));
}

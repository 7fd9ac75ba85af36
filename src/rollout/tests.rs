//! The rules one by one, each in the smallest world that shows it; then random worlds, in which no look may break one.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::model::upgrade::{
    NodePhase, NodeStatus, Phase, RollbackFor, Severity, StepAction, StepIntent, UpgradeStatus, Verdict, Wish,
};
use crate::model::values::{Digest, Duration};

const PATIENCE_S: i64 = 300;
const DEADLINE_S: i64 = 300;

fn old() -> Digest {
    Digest::of(b"old")
}

fn new() -> Digest {
    Digest::of(b"new")
}

/// Seconds after the beginning.
fn at(s: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + s).expect("a constant")
}

fn plan(nodes: usize, max_unavailable: usize) -> Plan {
    Plan {
        upgrade: "u".to_owned(),
        component: "web".to_owned(),
        version: "2".to_owned(),
        release: new(),
        rules: old(),
        left_out: BTreeSet::new(),
        nodes: (0..nodes).map(|i| format!("node{i}")).collect(),
        gates: vec![GatePlan {
            name: "calls".to_owned(),
            deadline: Duration::from_secs(DEADLINE_S.unsigned_abs()),
            age: Duration::from_secs(5),
            neighbour: Duration::from_secs(5),
        }],
        policy: Policy {
            max_unavailable,
            batch_size: 1,
            baseline: Duration::from_secs(10),
            soak: Duration::from_secs(30),
            failed_node_budget: 1,
            patience: Duration::from_secs(PATIENCE_S.unsigned_abs()),
            probe_deadline: Duration::from_secs(60),
            min_free_bytes: 1,
        },
        hooks: Hooks::default(),
    }
}

/// An upgrade in a phase since the beginning; every node ran the old build, and waits.
fn status(phase: Phase, plan: &Plan) -> UpgradeStatus {
    let mut status = UpgradeStatus::new(at(0));
    status.phase = phase;
    status.rules = Some(plan.rules);
    status.to = Some(plan.release);
    status.nodes = plan.nodes.iter().map(|name| waiting(name)).collect();
    status
}

fn waiting(name: &str) -> NodeStatus {
    serde_json::from_value(serde_json::json!({
        "name": name, "from": old(), "build": old(), "phase": "Waiting", "since": at(0),
    }))
    .expect("the rest of a node has defaults")
}

/// On the new build and back in service, its gates watched.
fn done(node: &mut NodeStatus) {
    node.phase = NodePhase::Done;
    node.build = Some(new());
    node.analysed_since = Some(at(0));
}

/// In the batch, taken out, in this phase.
fn in_batch(node: &mut NodeStatus, phase: NodePhase) {
    node.phase = phase;
    node.in_batch = true;
    node.drained = true;
}

fn step(node: &mut NodeStatus, action: StepAction, release: Digest) {
    node.step = Some(StepIntent {
        id: format!("u.0.{}", action.word()),
        action,
        release,
    });
}

fn reading(verdict: Verdict) -> Reading {
    Reading {
        verdict,
        reason: "as told".to_owned(),
        bad: u64::from(verdict == Verdict::Fail),
        last_bad_at: None,
        onset_at: None,
        decided_at: Some(at(0)),
        evidence: None,
    }
}

/// Up, on this build, with this verdict.
fn up(build: Digest, verdict: Verdict) -> NodeView {
    NodeView {
        look: Look::Seen(Seen {
            current: Some(build),
            releases: vec![old(), new()],
            running: Some(build),
            step: None,
            free_bytes: 1 << 40,
        }),
        signals: Signals {
            serving: Serving::Yes,
            in_flight: 0,
            readings: vec![reading(verdict)],
        },
    }
}

impl NodeView {
    fn serving(mut self, serving: Serving) -> Self {
        self.signals.serving = serving;
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Seen)) -> Self {
        match &mut self.look {
            Look::Seen(seen) => change(seen),
            other => panic!("{other:?}"),
        }
        self
    }

    fn at_step(self, step: Option<StepView>) -> Self {
        self.with(|seen| seen.step = step)
    }
}

fn gone() -> NodeView {
    NodeView {
        look: Look::Unreachable {
            why: "no route".to_owned(),
        },
        signals: Signals::default(),
    }
}

fn observed(s: i64, wish: Wish, nodes: Vec<NodeView>) -> Observed {
    Observed {
        now: at(s),
        watching_since: at(0),
        wish,
        prepared: Prepared::Ready,
        nodes,
        blockers: Vec::new(),
    }
}

fn look(s: i64, nodes: Vec<NodeView>) -> Observed {
    observed(s, Wish::Proceed, nodes)
}

#[track_caller]
fn decided(plan: &Plan, status: &UpgradeStatus, observed: &Observed) -> Decision {
    decide(plan, status, observed).expect("nothing contradicts the rules")
}

#[track_caller]
fn ends_in(decision: &Decision, phase: Phase, reason: &str) {
    let status = &decision.status;
    assert_eq!(
        (status.phase, status.reason.as_str()),
        (phase, reason),
        "{}",
        status.message
    );
}

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
fn an_abort_does_not_wait_for_a_check_that_changes_nothing() {
    let plan = plan(2, 1);
    for (phase, resume_to) in [(Phase::Preflight, None), (Phase::Paused, Some(Phase::Preflight))] {
        let mut status = status(phase, &plan);
        status.resume_to = resume_to;
        step(&mut status.nodes[0], StepAction::Check, new());
        let world = vec![gone(), up(old(), Verdict::NoData)];
        ends_in(
            &decided(&plan, &status, &observed(1, Wish::Abort, world)),
            Phase::Aborted,
            "AbortedByUser",
        );
    }
}

#[test]
fn a_pause_waits_for_steps_that_run_but_not_for_a_host_that_is_gone() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Rolling, &plan);
    in_batch(&mut status.nodes[0], NodePhase::Restart);
    step(&mut status.nodes[0], StepAction::Restart, new());
    let other = || up(old(), Verdict::Pass);
    let runs = up(new(), Verdict::NoData).at_step(Some(StepView::Running));
    let waits = decided(&plan, &status, &observed(1, Wish::Pause, vec![runs, other()]));
    assert_eq!((waits.status.phase, waits.effects.len()), (Phase::Rolling, 1));
    let holds = decided(&plan, &status, &observed(1, Wish::Pause, vec![gone(), other()]));
    ends_in(&holds, Phase::Paused, "ByUser");
    assert!(holds.status.nodes[0].step.is_some(), "the step is found again");
}

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
    status.cure = Some(crate::model::upgrade::Cure {
        since: at(0),
        proven_at: None,
        gates: Vec::new(),
    });
    let resumed = resume(&status, at(1)).expect("it is held");
    assert_eq!((resumed.nodes[0].phase, resumed.cure), (NodePhase::Waiting, None));
}

#[test]
fn a_soak_resumed_with_a_node_left_out_goes_back_to_changing_it() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Inconclusive, &plan);
    status.resume_to = Some(Phase::Soak);
    status.nodes[0].phase = NodePhase::OutOfService;
    let resumed = resume(&status, at(1)).expect("it is held");
    assert_eq!(
        (resumed.phase, resumed.nodes[0].phase),
        (Phase::Rolling, NodePhase::Waiting)
    );
}

#[test]
fn each_resume_gives_the_gates_as_long_again() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Rolling, &plan);
    in_batch(&mut status.nodes[0], NodePhase::Analyse);
    status.nodes[0].analysed_since = Some(at(0));
    let world = || vec![up(new(), Verdict::Undecided), up(old(), Verdict::Pass)];
    for round in 1..=3 {
        let held = decided(&plan, &status, &look(round * DEADLINE_S, world()));
        ends_in(&held, Phase::Inconclusive, "GatesUndecided");
        status = resume(&held.status, at(round * DEADLINE_S)).expect("it is held");
        assert_eq!(status.nodes[0].analysed_since, Some(at(round * DEADLINE_S)));
        let goes_on = decided(&plan, &status, &look((round + 1) * DEADLINE_S - 1, world()));
        assert_eq!(goes_on.status.phase, Phase::Rolling);
    }
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
fn what_contradicts_the_rules_is_a_value() {
    let plan = plan(2, 1);
    assert_eq!(
        resume(&status(Phase::Rolling, &plan), at(1)),
        Err(RolloutError::NotHeld(Phase::Rolling))
    );
    let mut bent = status(Phase::Inconclusive, &plan);
    bent.resume_to = Some(Phase::Succeeded);
    assert_eq!(
        resume(&bent, at(1)),
        Err(RolloutError::Transition(IllegalTransition {
            from: Phase::Inconclusive,
            to: Phase::Succeeded
        }))
    );
    let other = super::tests::plan(3, 1);
    let world = look(1, vec![NodeView::default(); 3]);
    let refused = decide(&other, &status(Phase::Rolling, &plan), &world);
    assert!(matches!(refused, Err(RolloutError::OtherNodes { .. })));
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
    let mut proving = status(Phase::RollingBack, &plan);
    for node in &mut proving.nodes {
        node.phase = NodePhase::Done;
        node.analysed_since = Some(at(0));
    }
    proving.cure = Some(crate::model::upgrade::Cure {
        since: at(0),
        proven_at: None,
        gates: Vec::new(),
    });
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
fn rules_that_change_on_the_way_are_told() {
    let mut plan = plan(2, 1);
    let before = status(Phase::Rolling, &plan);
    plan.rules = new();
    let world = || look(1, vec![up(old(), Verdict::Pass); 2]);
    let after = decided(&plan, &before, &world());
    assert!(after.events.iter().any(|e| e.reason == "RulesChanged"));
    let again = decided(&plan, &after.status, &world());
    assert!(again.events.iter().all(|e| e.reason != "RulesChanged"));
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
fn a_service_that_ends_while_the_cure_is_proven_is_started_again_and_the_proof_with_it() {
    let plan = plan(2, 1);
    let mut proving = status(Phase::RollingBack, &plan);
    for node in &mut proving.nodes {
        node.phase = NodePhase::Done;
        node.analysed_since = Some(at(0));
    }
    proving.cure = Some(crate::model::upgrade::Cure {
        since: at(0),
        proven_at: None,
        gates: Vec::new(),
    });
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

const PHASES: [Phase; 14] = [
    Phase::Pending,
    Phase::Preflight,
    Phase::Baseline,
    Phase::Rolling,
    Phase::Soak,
    Phase::Succeeded,
    Phase::RollingBack,
    Phase::RolledBack,
    Phase::RollbackIneffective,
    Phase::Paused,
    Phase::Aborted,
    Phase::Failed,
    Phase::Errored,
    Phase::Inconclusive,
];

#[test]
fn nothing_follows_a_final_phase_and_success_follows_only_a_soak_or_a_look() {
    for from in PHASES {
        for to in PHASES {
            let legal = transition(from, to).is_ok();
            if from.is_final() {
                assert!(!legal, "{from:?} -> {to:?}");
            }
            if to == Phase::Succeeded {
                assert_eq!(
                    legal,
                    matches!(from, Phase::Preflight | Phase::Soak),
                    "{from:?} -> {to:?}"
                );
            }
        }
    }
}

fn any_release() -> impl Strategy<Value = Option<Digest>> {
    prop_oneof![1 => Just(None), 4 => Just(Some(old())), 4 => Just(Some(new()))]
}

fn any_step() -> impl Strategy<Value = Option<StepView>> {
    let ended = |exit| {
        Just(Some(StepView::Ended {
            exit,
            log_tail: String::new(),
        }))
    };
    prop_oneof![
        2 => Just(None),
        2 => Just(Some(StepView::Running)),
        6 => ended(0),
        1 => ended(1),
        1 => ended(124),
        1 => Just(Some(StepView::Died)),
    ]
}

fn any_view() -> impl Strategy<Value = NodeView> {
    let verdict = prop_oneof![
        6 => Just(Verdict::Pass),
        1 => Just(Verdict::Fail),
        2 => Just(Verdict::Undecided),
        1 => Just(Verdict::NoData)
    ];
    let serving = prop_oneof![6 => Just(Serving::Yes), 1 => Just(Serving::No), 1 => Just(Serving::Unknown)];
    let looked_at = (any_release(), any_release(), any_step(), serving, verdict).prop_map(
        |(current, running, step, serving, verdict)| {
            up(old(), verdict).serving(serving).with(|seen| {
                seen.current = current;
                seen.running = running;
                seen.step = step;
            })
        },
    );
    prop_oneof![12 => looked_at, 1 => Just(NodeView::default()), 1 => Just(gone())]
}

/// A look: seconds since the last, the wish, the nodes, and whether an operator resumes what is held.
type Glance = (i64, Wish, Vec<NodeView>, bool);

fn any_look(nodes: usize) -> impl Strategy<Value = Glance> {
    let wish = prop_oneof![20 => Just(Wish::Proceed), 1 => Just(Wish::Pause), 1 => Just(Wish::Abort)];
    let later = prop_oneof![4 => 0_i64..20, 1 => 60_i64..400];
    (later, wish, proptest::collection::vec(any_view(), nodes), any::<bool>())
}

/// Nodes, places, steps asked for by hooks, and what is seen.
fn any_story() -> impl Strategy<Value = (usize, usize, bool, Vec<Glance>)> {
    (1_usize..6).prop_flat_map(|nodes| {
        let looks = proptest::collection::vec(any_look(nodes), 1..80);
        (Just(nodes), 1..=nodes, any::<bool>(), looks)
    })
}

/// Out as far as can be known: taken out by us, or not proven to answer.
fn out(status: &UpgradeStatus, observed: &Observed, i: usize) -> bool {
    let answers = observed.nodes[i].signals.serving == Serving::Yes;
    status.nodes[i].drained || !answers
}

fn holds_i1(
    plan: &Plan,
    before: &UpgradeStatus,
    next: &UpgradeStatus,
    observed: &Observed,
) -> Result<(), TestCaseError> {
    for i in 0..plan.nodes.len() {
        let was_out =
            before.nodes.get(i).is_some_and(|n| n.drained) || observed.nodes[i].signals.serving == Serving::No;
        if next.nodes[i].drained && !was_out {
            let total = (0..plan.nodes.len()).filter(|&j| out(next, observed, j)).count();
            prop_assert!(
                total <= plan.policy.max_unavailable,
                "node{i} is number {total} to be out"
            );
        }
    }
    Ok(())
}

fn went_legally(before: Phase, decision: &Decision) -> Result<(), TestCaseError> {
    let mut phase = before;
    for event in &decision.events {
        if let Some(entered) = PHASES.iter().find(|p| format!("{p:?}") == event.reason) {
            prop_assert!(transition(phase, *entered).is_ok(), "{phase:?} -> {entered:?}");
            phase = *entered;
        }
    }
    prop_assert_eq!(phase, decision.status.phase, "a phase was entered without being told");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_seen_no_rule_breaks((nodes, places, hooks, looks) in any_story()) {
        let mut plan = plan(nodes, places);
        plan.policy.batch_size = places;
        plan.hooks = Hooks { check: hooks, drain: hooks, warm: hooks, admit: hooks };
        let mut status = UpgradeStatus::new(at(0));
        let mut now = 0;
        for (later, wish, views, resumes) in looks {
            now += later;
            if status.phase.is_held() && resumes {
                status = resume(&status, at(now)).expect("a hold says what goes on");
            }
            let observed = observed(now, wish, views);
            let decision = decide(&plan, &status, &observed);
            prop_assert_eq!(&decision, &decide(&plan, &status, &observed));
            let decision = decision.map_err(|e| TestCaseError::fail(e.to_string()))?;
            let next = &decision.status;
            holds_i1(&plan, &status, next, &observed)?;
            went_legally(status.phase, &decision)?;
            for effect in &decision.effects {
                prop_assert_eq!(Some(&effect.intent), next.nodes[effect.node].step.as_ref(), "not written first");
            }
            if status.phase.is_final() {
                prop_assert_eq!(status.phase, next.phase);
                prop_assert!(decision.events.is_empty() && decision.effects.is_empty());
            }
            let written = serde_json::to_string(next).expect("a status can be written");
            let read: UpgradeStatus = serde_json::from_str(&written).expect("and read");
            prop_assert_eq!(&read, next);
            status = decision.status;
        }
    }
}

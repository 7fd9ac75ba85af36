//! The rules one by one, each in the smallest world that shows it; then random worlds, in which no look may break one.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::model::upgrade::{
    NodePhase, NodeStatus, Phase, RollbackFor, StepAction, StepIntent, UpgradeStatus, Verdict, Wish,
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
        nodes: (0..nodes).map(|i| format!("node{i}")).collect(),
        gates: vec![GatePlan {
            name: "calls".to_owned(),
            deadline: Duration::from_secs(DEADLINE_S.unsigned_abs()),
            age: Duration::from_secs(5),
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
fn up(build: Digest, verdict: Verdict) -> Seen {
    Seen {
        current: Some(build),
        releases: vec![old(), new()],
        running: Some(build),
        step: None,
        free_bytes: 1 << 40,
        serving: Serving::Yes,
        readings: vec![reading(verdict)],
    }
}

fn gone() -> NodeView {
    NodeView::Unreachable {
        why: "no route".to_owned(),
    }
}

fn observed(s: i64, wish: Wish, nodes: Vec<NodeView>) -> Observed {
    Observed {
        now: at(s),
        wish,
        prepared: Prepared::Ready,
        nodes,
        blockers: Vec::new(),
    }
}

fn look(s: i64, nodes: Vec<NodeView>) -> Observed {
    observed(s, Wish::Proceed, nodes)
}

fn seen(s: Seen) -> NodeView {
    NodeView::Seen(s)
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
    let sick = Seen {
        serving: Serving::No,
        ..up(old(), Verdict::Pass)
    };
    let world = vec![
        seen(up(old(), Verdict::Pass)),
        seen(sick),
        seen(up(old(), Verdict::Pass)),
    ];
    let decision = decided(&plan, &status(Phase::Rolling, &plan), &look(1, world));
    let batch: Vec<_> = decision.status.nodes.iter().map(|n| n.in_batch).collect();
    assert_eq!(batch, [false, true, false]);
}

#[test]
fn a_node_that_cannot_be_reached_is_chosen_last() {
    let plan = plan(3, 2);
    let well = || seen(up(old(), Verdict::Pass));
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
            seen(up(new(), Verdict::Fail)),
            seen(up(new(), Verdict::Pass)),
            seen(Seen {
                step: admitted,
                ..up(new(), Verdict::Pass)
            }),
            seen(up(old(), Verdict::Pass)),
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
    let world = vec![seen(up(new(), Verdict::Pass)), gone(), gone()];
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
    let dead = Seen {
        serving: Serving::No,
        ..up(new(), Verdict::NoData)
    };
    let world = vec![seen(up(new(), Verdict::Pass)), gone(), seen(dead)];
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
        node.readings[0].bad = 9;
        node.readings[0].last_bad_at = Some(at(1));
        seen(node)
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
    let unheard = |build| {
        seen(Seen {
            serving: Serving::Unknown,
            ..up(build, Verdict::Pass)
        })
    };
    // A driver that has just begun has looked at some nodes, and no probe has spoken.
    for (second, chosen) in [
        (NodeView::NotYet, None),
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
        let world = vec![gone(), seen(up(old(), Verdict::NoData))];
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
    let other = || seen(up(old(), Verdict::Pass));
    let runs = seen(Seen {
        step: Some(StepView::Running),
        ..up(new(), Verdict::NoData)
    });
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
    (status, vec![gone(), seen(up(new(), Verdict::Fail))])
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
    let mended = || vec![seen(up(new(), Verdict::Fail)), seen(up(new(), Verdict::Fail))];
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
    let world = || vec![seen(up(new(), Verdict::Undecided)), seen(up(old(), Verdict::Pass))];
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
            seen(up(new(), Verdict::Fail)),
            seen(up(new(), Verdict::Fail)),
            seen(up(old(), Verdict::Pass)),
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
    let world = vec![seen(up(new(), Verdict::Fail)), seen(up(new(), Verdict::Fail))];
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
    world[1] = seen(Seen {
        step: Some(ended),
        releases: vec![new()],
        ..up(new(), Verdict::Fail)
    });
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
    world[0] = seen(Seen {
        step: Some(ended),
        releases: vec![new()],
        ..up(new(), Verdict::Fail)
    });
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
    let world = vec![seen(up(new(), Verdict::Pass)), seen(up(new(), Verdict::NoData))];
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
    let world = look(1, vec![NodeView::NotYet; 3]);
    let refused = decide(&other, &status(Phase::Rolling, &plan), &world);
    assert!(matches!(refused, Err(RolloutError::OtherNodes { .. })));
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
            seen(Seen {
                current,
                running,
                step,
                serving,
                ..up(old(), verdict)
            })
        },
    );
    prop_oneof![12 => looked_at, 1 => Just(NodeView::NotYet), 1 => Just(gone())]
}

/// A look: seconds since the last, the wish, the nodes, and whether an operator resumes what is held.
type Look = (i64, Wish, Vec<NodeView>, bool);

fn any_look(nodes: usize) -> impl Strategy<Value = Look> {
    let wish = prop_oneof![20 => Just(Wish::Proceed), 1 => Just(Wish::Pause), 1 => Just(Wish::Abort)];
    let later = prop_oneof![4 => 0_i64..20, 1 => 60_i64..400];
    (later, wish, proptest::collection::vec(any_view(), nodes), any::<bool>())
}

/// Nodes, places, steps asked for by hooks, and what is seen.
fn any_story() -> impl Strategy<Value = (usize, usize, bool, Vec<Look>)> {
    (1_usize..6).prop_flat_map(|nodes| {
        let looks = proptest::collection::vec(any_look(nodes), 1..80);
        (Just(nodes), 1..=nodes, any::<bool>(), looks)
    })
}

/// Out as far as can be known: taken out by us, or not proven to answer.
fn out(status: &UpgradeStatus, observed: &Observed, i: usize) -> bool {
    let answers = matches!(&observed.nodes[i], NodeView::Seen(s) if s.serving == Serving::Yes);
    status.nodes[i].drained || !answers
}

fn holds_i1(
    plan: &Plan,
    before: &UpgradeStatus,
    next: &UpgradeStatus,
    observed: &Observed,
) -> Result<(), TestCaseError> {
    for i in 0..plan.nodes.len() {
        let was_out = before.nodes.get(i).is_some_and(|n| n.drained)
            || matches!(&observed.nodes[i], NodeView::Seen(s) if s.serving == Serving::No);
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

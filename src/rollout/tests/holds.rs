//! What holds an upgrade, what goes on after it, and which phase may follow which.

use super::*;
use crate::rollout::FOREIGN_HOME;

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

#[test]
fn whose_time_is_up_is_held_for_that_and_not_as_if_somebody_had_asked() {
    let plan = plan(2, 1);
    let status = status(Phase::Rolling, &plan);
    let world = vec![up(old(), Verdict::Pass), up(old(), Verdict::Pass)];
    let held = decided(&plan, &status, &observed(1, Wish::TimeUp, world.clone()));
    ends_in(&held, Phase::Paused, "TimedOut");
    assert!(held.status.message.contains("--timeout"), "{}", held.status.message);
    let asked = decided(&plan, &status, &observed(1, Wish::Pause, world));
    ends_in(&asked, Phase::Paused, "ByUser");
}

#[test]
fn what_goes_on_after_a_hold_says_what_it_does_now_and_not_what_held_it() {
    let plan = plan(5, 4);
    let cause = "it was asked for";
    for (phase, expected) in [
        (Phase::Baseline, "reading the gates on the old system for 10s"),
        (
            Phase::Rolling,
            "web@2 goes onto 5 nodes: 1 of 5 done, 1 given up, now node1, node2, node3",
        ),
        (Phase::Soak, "every node changed; the gates watch for 30s more"),
        (
            Phase::RollingBack,
            "1 of 5 back, 1 given up, now node1, node2, node3; it goes back since it was asked for",
        ),
    ] {
        let mut status = status(Phase::Paused, &plan);
        "ByUser".clone_into(&mut status.reason);
        status.resume_to = Some(phase);
        status.rollback_for = (phase == Phase::RollingBack).then_some(RollbackFor::Abort);
        status.cause = status.rollback_for.map(|_| Cause {
            reason: "AbortedByUser".to_owned(),
            message: cause.to_owned(),
            at: at(0),
        });
        let mut resumed = resume(&status, at(1)).expect("it is held");
        assert!(!resumed.message.contains("ByUser"), "{}", resumed.message);
        assert_eq!(resumed.reason, "Resumed");
        done(&mut resumed.nodes[0]);
        for node in &mut resumed.nodes[1..4] {
            in_batch(node, NodePhase::Restart);
        }
        resumed.nodes[4].phase = NodePhase::OutOfService;
        let (gone_its_way, on_it) = if phase == Phase::RollingBack {
            (old(), new())
        } else {
            (new(), old())
        };
        let runs = |i| up(if i == 0 { gone_its_way } else { on_it }, Verdict::Undecided);
        let world = (0..5).map(runs).collect();
        let next = decided(&plan, &resumed, &look(2, world)).status;
        assert_eq!((next.phase, next.message.as_str()), (phase, expected));
    }
}

#[test]
fn a_deleted_object_is_no_word_of_an_operator() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Rolling, &plan);
    in_batch(&mut status.nodes[0], NodePhase::Restart);
    let deleted = |s, phase| {
        let running = if phase == Phase::Rolling { new() } else { old() };
        Observed {
            wished_by: WishedBy::Deletion,
            ..observed(
                s,
                Wish::Abort,
                vec![up(running, Verdict::Pass), up(old(), Verdict::Pass)],
            )
        }
    };
    let back = decided(&plan, &status, &deleted(1, Phase::Rolling));
    ends_in(&back, Phase::RollingBack, "ObjectDeleted");
    for said in [&back.status.message, &back.events[0].message] {
        assert!(
            said.contains("its object was deleted") && !said.contains("operator"),
            "{said}"
        );
    }
    let mut at_its_end = back.status;
    for node in &mut at_its_end.nodes {
        node.phase = NodePhase::Done;
        node.drained = false;
        node.step = None;
    }
    // By then its driver may be another, and the word of its beginning stands.
    let ended = decided(&plan, &at_its_end, &deleted(2, Phase::RollingBack));
    ends_in(&ended, Phase::Aborted, "ObjectDeleted");
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
fn what_contradicts_the_rules_is_a_value() {
    let plan = plan(2, 1);
    let refused = refuse(&status(Phase::Pending, &plan), "Quarantined", "it failed here", at(1)).expect("not begun");
    assert_eq!((refused.phase, refused.finished_at), (Phase::Failed, Some(at(1))));
    for begun in [Phase::Rolling, Phase::Succeeded] {
        let refused = refuse(&status(begun, &plan), "Quarantined", "it failed here", at(1));
        assert_eq!(
            refused,
            Err(IllegalTransition {
                from: begun,
                to: Phase::Failed
            })
        );
    }
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
fn what_somebody_else_changes_meanwhile_is_held_and_gone_over_only_on_the_way_back() {
    let plan = plan(2, 1);
    let edited = || up(old(), Verdict::Pass).with(|seen| seen.foreign_edit = Some("5 replicas, meant 2".to_owned()));
    for phase in [Phase::Baseline, Phase::Rolling, Phase::Soak] {
        let held = decided(
            &plan,
            &status(phase, &plan),
            &look(1, vec![up(old(), Verdict::Pass), edited()]),
        );
        ends_in(&held, Phase::Paused, "ForeignEdit");
        assert!(
            held.status.message.contains("5 replicas, meant 2"),
            "{}",
            held.status.message
        );
    }
    let mut rolling = status(Phase::Rolling, &plan);
    in_batch(&mut rolling.nodes[0], NodePhase::Analyse);
    rolling.nodes[0].from = Some(old());
    let world = vec![
        up(new(), Verdict::Pass).with(|seen| seen.foreign_edit = Some("another image".to_owned())),
        edited(),
    ];
    let aborted = decided(&plan, &rolling, &observed(1, Wish::Abort, world.clone()));
    assert_eq!(aborted.status.phase, Phase::RollingBack);
    let told = |decision: &Decision| {
        let events = decision.events.iter();
        events.filter(|e| e.reason == "ForeignEditOverwritten").count()
    };
    let goes_back = decided(&plan, &aborted.status, &observed(2, Wish::Abort, world.clone()));
    assert_eq!(told(&aborted) + told(&goes_back), 1, "{:?}", goes_back.events);
    let again = decided(&plan, &goes_back.status, &observed(3, Wish::Abort, world));
    assert_eq!(told(&again), 0, "once");
}

/// A database that died took the statement before each call with it: no call went out, and no gate could fail.
#[test]
fn a_gate_that_went_blind_admits_nobody_and_holds_after_a_while_whatever_it_saw_before() {
    let plan = plan(2, 1);
    for phase in [Phase::Baseline, Phase::Rolling, Phase::Soak] {
        let mut status = status(phase, &plan);
        let build = if phase == Phase::Baseline { old() } else { new() };
        match phase {
            Phase::Rolling => {
                in_batch(&mut status.nodes[0], NodePhase::Analyse);
                status.nodes[0].analysed_since = Some(at(0));
                done(&mut status.nodes[1]);
            }
            Phase::Soak => status.nodes.iter_mut().for_each(done),
            _ => {}
        }
        let blind = || up(build, Verdict::Pass).blind_since(at(40));
        let world = || vec![blind(), up(build, Verdict::Pass)];
        let waits = decided(&plan, &status, &look(59, world()));
        assert_eq!(waits.status.phase, phase);
        let held = decided(&plan, &status, &look(60, world()));
        ends_in(&held, Phase::Paused, "NoData");
        let message = &held.status.message;
        assert!(
            message.contains("node0") && message.contains("connection refused"),
            "{message}"
        );
    }
}

#[test]
fn one_note_of_trouble_and_silence_after_it_hold_nothing() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Soak, &plan);
    status.nodes.iter_mut().for_each(done);
    let noted = || up(new(), Verdict::Pass).blind(at(5), at(5));
    let decision = decided(&plan, &status, &look(30, vec![noted(), noted()]));
    ends_in(&decision, Phase::Succeeded, "Verified");
}

#[test]
fn a_service_that_is_lost_together_with_what_its_gate_needs_is_held_and_blamed_on_nobody() {
    let plan = plan(2, 1);
    let mut status = status(Phase::Soak, &plan);
    status.nodes.iter_mut().for_each(done);
    let mute = |gate: fn(NodeView) -> NodeView| gate(up(new(), Verdict::Undecided).serving(Serving::No));
    let phases = |gate: fn(NodeView) -> NodeView| {
        let mut status = status.clone();
        for s in [1, 12, 21] {
            let world = vec![mute(gate), mute(gate)];
            status = decided(&plan, &status, &look(s, world)).status;
        }
        status.phase
    };
    assert_eq!(phases(|node| node), Phase::RollingBack);
    assert_eq!(phases(|node| node.blind_since(at(1))), Phase::Paused);
}

/// Whatever budget there is for nodes that are bad: it would be said of the next one, too.
#[test]
fn what_is_refused_for_all_pods_condemns_none_of_them() {
    for budget in [0, 1] {
        let mut plan = plan(3, 1);
        plan.policy.failed_node_budget = budget;
        plan.pods = plan.nodes.iter().cloned().collect();
        let mut status = status(Phase::Rolling, &plan);
        done(&mut status.nodes[0]);
        in_batch(&mut status.nodes[1], NodePhase::Activate);
        step(&mut status.nodes[1], StepAction::Activate, new());
        let world = || vec![up(new(), Verdict::Pass), unserved(), up(old(), Verdict::Pass)];
        let before = decided(&plan, &status, &look(PATIENCE_S - 1, world()));
        assert_eq!(before.status.phase, Phase::Rolling);
        let decision = decided(&plan, &status, &look(PATIENCE_S, world()));
        ends_in(&decision, Phase::Paused, "NodeUnreachable");
        let message = &decision.status.message;
        assert!(
            message.contains("node1: not now") && message.contains("`resume`"),
            "{message}"
        );
        assert_eq!(decision.quarantine, None);
    }
}

#[test]
fn nodes_of_another_home_are_named_before_anything_else_is_looked_at() {
    let plan = plan(2, 1);
    let status = status(Phase::Preflight, &plan);
    let foreign = NodeView {
        look: Look::Foreign {
            why: "n1 serves another".to_owned(),
        },
        signals: Signals::default(),
    };
    // At once, though the other host may yet answer.
    let decision = decided(&plan, &status, &look(0, vec![foreign, gone()]));
    ends_in(&decision, Phase::Paused, FOREIGN_HOME);
    assert_eq!(decision.status.message, "n1 serves another");
}

#[test]
fn what_nobody_could_go_back_to_is_told_at_once_and_nothing_is_begun() {
    let mut plan = plan(2, 1);
    plan.hooks.check = true;
    let status = status(Phase::Preflight, &plan);
    let unstated = || up(old(), Verdict::Pass).with(|seen| seen.unstated = Some("web: state it".to_owned()));
    for world in [vec![unstated(), gone()], vec![unstated(), unstated()]] {
        let decision = decided(&plan, &status, &look(0, world));
        ends_in(&decision, Phase::Paused, "PreflightFailed");
        assert_eq!(decision.status.message, "web: state it");
        assert!(decision.status.nodes[0].step.is_none());
    }
}

#[test]
fn what_keeps_a_preflight_waiting_is_said_and_stays_said() {
    let mut plan = plan(2, 1);
    plan.hooks.check = true;
    let status = status(Phase::Preflight, &plan);
    let refused = NodeView {
        look: Look::Unreachable {
            why: "deployments is forbidden (403)".to_owned(),
            of: Silence::Speaker,
        },
        ..gone()
    };
    let next = decided(&plan, &status, &look(1, vec![refused.clone(), refused])).status;
    assert_eq!(next.phase, Phase::Preflight);
    let words = "node0: deployments is forbidden (403) (and 1 more); tried again, for 5m";
    assert!(next.message.contains(words), "{}", next.message);
    // A look that works in between says nothing of what was asked for.
    let seen = up(old(), Verdict::Pass);
    let later = decided(&plan, &next, &look(2, vec![seen.clone(), seen])).status;
    assert_eq!((later.phase, later.message), (Phase::Preflight, next.message));
}

#[test]
fn a_step_that_ends_while_a_pause_is_taken_is_done_when_it_goes_on() {
    let ended = || {
        Some(StepView::Ended {
            exit: 0,
            log_tail: String::new(),
        })
    };
    for (phase, action, next) in [
        (NodePhase::Drain, StepAction::Drain, NodePhase::Activate),
        (NodePhase::Warm, StepAction::Warm, NodePhase::Probe),
        (NodePhase::Admit, StepAction::Admit, NodePhase::Done),
    ] {
        let mut plan = plan(2, 2);
        (plan.hooks.drain, plan.hooks.warm, plan.hooks.admit) = (true, true, true);
        let mut status = status(Phase::Rolling, &plan);
        for node in &mut status.nodes {
            in_batch(node, phase);
            node.analysed_since = Some(at(0));
            step(node, action, new());
        }
        let at_step = |state| {
            up(new(), Verdict::Pass)
                .serving(Serving::Unknown)
                .with(|seen| seen.current = Some(old()))
                .at_step(state)
        };
        // That of the other one is waited for.
        let world = vec![at_step(ended()), at_step(Some(StepView::Running))];
        let waits = decided(&plan, &status, &observed(1, Wish::Pause, world)).status;
        assert_eq!((waits.phase, waits.nodes[0].phase), (Phase::Rolling, phase));
        let world = vec![at_step(None), at_step(ended())];
        let held = decided(&plan, &waits, &observed(2, Wish::Pause, world));
        ends_in(&held, Phase::Paused, "ByUser");
        let resumed = resume(&held.status, at(3)).expect("it is held");
        let world = vec![at_step(None), at_step(None)];
        let goes_on = decided(&plan, &resumed, &look(4, world));
        for node in &goes_on.status.nodes {
            assert_eq!((node.phase, &node.ended), (next, &None), "{action:?}");
        }
        let again = goes_on.effects.iter().any(|effect| effect.intent.action == action);
        assert!(!again, "{action:?} runs again");
    }
}

#[test]
fn a_step_that_has_ended_counts_for_its_own_release_alone() {
    let mut plan = plan(2, 2);
    plan.hooks.drain = true;
    let mut status = status(Phase::Rolling, &plan);
    in_batch(&mut status.nodes[0], NodePhase::Drain);
    status.nodes[0].ended = Some(StepIntent {
        id: "u.0.drain".to_owned(),
        action: StepAction::Drain,
        release: old(),
    });
    let world = vec![up(old(), Verdict::Pass), up(old(), Verdict::Pass)];
    let next = decided(&plan, &status, &look(1, world)).status;
    let node = &next.nodes[0];
    let asked = node.step.as_ref().map(|step| (step.action, step.release));
    assert_eq!((asked, &node.ended), (Some((StepAction::Drain, new())), &None));
}

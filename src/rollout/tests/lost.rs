//! Nodes that stop serving by themselves before their turn.

use super::*;
use crate::model::upgrade::Loss;

/// Three nodes in Rolling, the first in the hands of its batch; the last as seen.
fn world(last: NodeView) -> Vec<NodeView> {
    let under_way = up(new(), Verdict::Undecided);
    vec![under_way, up(old(), Verdict::Pass), last]
}

fn rolling(plan: &Plan) -> UpgradeStatus {
    let mut status = status(Phase::Rolling, plan);
    in_batch(&mut status.nodes[0], NodePhase::Analyse);
    status.nodes[0].analysed_since = Some(at(0));
    status
}

fn dead() -> NodeView {
    up(old(), Verdict::Pass)
        .with(|seen| seen.running = None)
        .serving(Serving::No)
}

/// Events about the last node, over a time in which it is seen like this, looked at every second.
fn told(plan: &Plan, status: &mut UpgradeStatus, seconds: std::ops::Range<i64>, last: &NodeView) -> Vec<String> {
    let mut told = Vec::new();
    for s in seconds {
        let decision = decided(plan, status, &look(s, world(last.clone())));
        let of_it = decision.events.iter().filter(|e| e.node.as_deref() == Some("node2"));
        told.extend(of_it.map(|e| format!("{:?} {}", e.severity, e.reason)));
        *status = decision.status;
    }
    told
}

#[test]
fn an_old_node_that_dies_is_told_once_and_once_more_when_it_is_back() {
    let plan = plan(3, 1);
    for (gone, reason, patience) in [
        (dead(), "Alert NodeLost", 10),
        (up(old(), Verdict::Pass).serving(Serving::No), "Alert NodeLost", 10),
        (gone(), "Alert NodeUnreachable", 30),
    ] {
        let mut status = rolling(&plan);
        assert_eq!(told(&plan, &mut status, 0..patience, &gone), [""; 0], "too soon");
        assert_eq!(told(&plan, &mut status, patience..patience + 60, &gone), [reason]);
        let well = up(old(), Verdict::Pass);
        assert_eq!(told(&plan, &mut status, 100..160, &well), ["Alert NodeBack"]);
        assert_eq!(status.nodes[2].lost, None);
    }
}

#[test]
fn one_that_is_out_for_a_moment_wakes_nobody() {
    let plan = plan(3, 1);
    let mut status = rolling(&plan);
    let well = up(old(), Verdict::Pass);
    for begin in [0, 20, 40] {
        assert_eq!(told(&plan, &mut status, begin..begin + 9, &dead()), [""; 0]);
        assert_eq!(told(&plan, &mut status, begin + 9..begin + 20, &well), [""; 0]);
    }
}

#[test]
fn what_a_batch_has_in_hand_is_no_loss_and_a_driver_that_was_away_holds_nothing_against_a_node() {
    let plan = plan(3, 1);
    let mut status = rolling(&plan);
    in_batch(&mut status.nodes[2], NodePhase::Restart);
    step(&mut status.nodes[2], StepAction::Restart, new());
    let restarting = dead().at_step(Some(StepView::Running));
    assert_eq!(told(&plan, &mut status, 0..60, &restarting), [""; 0]);

    let mut status = rolling(&plan);
    assert_eq!(told(&plan, &mut status, 0..5, &dead()), [""; 0]);
    assert_eq!(status.nodes[2].lost.as_ref().map(|l| l.how), Some(Loss::NotRunning));
    let mut later = look(500, world(dead()));
    later.watching_since = at(499);
    let decision = decided(&plan, &status, &later);
    assert!(
        !decision.events.iter().any(|e| e.reason == "NodeLost"),
        "{:?}",
        decision.events
    );
}

#[test]
fn what_did_not_serve_before_the_upgrade_is_no_loss_and_what_nobody_looked_at_is_no_news() {
    let plan = plan(3, 1);
    let mut status = rolling(&plan);
    status.nodes[2].served = false;
    assert_eq!(told(&plan, &mut status, 0..60, &dead()), [""; 0]);

    let mut status = rolling(&plan);
    assert_eq!(told(&plan, &mut status, 0..5, &dead()), [""; 0]);
    assert_eq!(told(&plan, &mut status, 5..60, &NodeView::default()), [""; 0]);
    let unheard = up(old(), Verdict::Pass).serving(Serving::Unknown);
    assert_eq!(told(&plan, &mut status, 60..62, &dead()), ["Alert NodeLost"]);
    assert_eq!(
        told(&plan, &mut status, 62..70, &unheard),
        [""; 0],
        "not before it serves"
    );
}

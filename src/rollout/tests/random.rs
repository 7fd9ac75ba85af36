//! Random worlds, in which no look may break a rule.

use proptest::prelude::*;

use super::*;

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
    let blind = prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(40))];
    let looked_at = (any_release(), any_release(), any_step(), serving, verdict, blind).prop_map(
        |(current, running, step, serving, verdict, blind)| {
            let node = up(old(), verdict).serving(serving).with(|seen| {
                seen.current = current;
                seen.running = running;
                seen.step = step;
            });
            match blind {
                Some(s) => node.blind(at(0), at(s)),
                None => node,
            }
        },
    );
    prop_oneof![12 => looked_at, 1 => Just(NodeView::default()), 1 => Just(gone())]
}

/// A look: seconds since the last, the wish, the nodes, and whether an operator resumes what is held.
type Glance = (i64, Wish, Vec<NodeView>, bool);

fn any_look(nodes: usize) -> impl Strategy<Value = Glance> {
    let wish =
        prop_oneof![20 => Just(Wish::Proceed), 1 => Just(Wish::Pause), 1 => Just(Wish::TimeUp), 1 => Just(Wish::Abort)];
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

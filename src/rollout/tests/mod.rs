//! The rules one by one, each in the smallest world that shows it; then random worlds.

mod blame;
mod holds;
mod lost;
mod lost_workload;
mod order;
mod random;
mod rollback;

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::model::upgrade::{
    Cause, Cure, NodePhase, NodeStatus, Phase, RollbackFor, Severity, StepAction, StepIntent, UpgradeStatus, Verdict,
    Wish,
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
        pods: BTreeSet::new(),
        nodes: (0..nodes).map(|i| format!("node{i}")).collect(),
        gates: vec![GatePlan {
            name: "calls".to_owned(),
            deadline: Duration::from_secs(DEADLINE_S.unsigned_abs()),
            age: Duration::from_secs(5),
            neighbour_wait: Duration::from_secs(5),
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
            order: Order::SickFirst,
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
        "name": name, "from": old(), "build": old(), "phase": "Waiting", "since": at(0), "served": true,
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
        blind: None,
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
            free_bytes: Some(1 << 40),
            foreign_edit: None,
            unstated: None,
            held_by: None,
            workload: None,
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

    /// Its gate has seen nothing for so long.
    fn blind_since(self, since: Timestamp) -> Self {
        self.blind(since, since + std::time::Duration::from_secs(20))
    }

    /// Its gate met trouble first and last at these times, and has seen nothing since.
    fn blind(mut self, since: Timestamp, last: Timestamp) -> Self {
        for reading in &mut self.signals.readings {
            reading.blind = Some(Blind {
                since,
                last,
                why: "connection refused".to_owned(),
            });
        }
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
            of: Silence::Node,
        },
        signals: Signals::default(),
    }
}

/// Who speaks for it refused what was asked of it.
fn unserved() -> NodeView {
    NodeView {
        look: Look::Unreachable {
            why: "not now".to_owned(),
            of: Silence::Speaker,
        },
        ..gone()
    }
}

fn observed(s: i64, wish: Wish, nodes: Vec<NodeView>) -> Observed {
    Observed {
        now: at(s),
        watching_since: at(0),
        wish,
        wished_by: WishedBy::Word,
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

/// A rollback whose nodes are all back; the cure is being proven.
fn proving_cure(plan: &Plan) -> UpgradeStatus {
    let mut status = status(Phase::RollingBack, plan);
    for node in &mut status.nodes {
        node.phase = NodePhase::Done;
        node.analysed_since = Some(at(0));
    }
    status.cure = Some(cure());
    status
}

fn cure() -> Cure {
    Cure {
        since: at(0),
        proven_at: None,
        gates: Vec::new(),
    }
}

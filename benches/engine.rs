//! How long the decision itself takes, and how much memory: `cargo bench --bench engine` prints the table of
//! docs/benchmarks.md.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration as Wall, Instant};

use criterion::{Criterion, criterion_group};
use jiff::Timestamp;
use stagegate::model::upgrade::{Phase, StepAction, UpgradeStatus, Verdict, Wish};
use stagegate::model::values::{Digest, Duration};
use stagegate::rollout::{
    Decision, GatePlan, Hooks, Look, NodeView, Observed, Plan, Policy, Prepared, Reading, Seen, Serving, Signals,
    StepView, WishedBy, decide,
};

const START_S: i64 = 1_700_000_000;

/// An upgrade of nodes that do at once whatever they are asked.
struct World {
    plan: Plan,
    status: UpgradeStatus,
    observed: Observed,
    decisions: u64,
}

impl World {
    /// `at_once` nodes are changed together, and may be out together.
    fn new(nodes: usize, at_once: usize) -> Self {
        let start = Timestamp::from_second(START_S).expect("a constant");
        let old = Digest::of(b"old");
        let seen = Seen {
            current: Some(old),
            releases: vec![old],
            running: Some(old),
            step: None,
            free_bytes: Some(1 << 40),
            foreign_edit: None,
            unstated: None,
            held_by: None,
            workload: None,
        };
        let signals = Signals {
            serving: Serving::Yes,
            in_flight: 0,
            readings: vec![Reading {
                verdict: Verdict::Pass,
                reason: "0 of 300 calls over 5 s".to_owned(),
                bad: 0,
                last_bad_at: None,
                onset_at: None,
                decided_at: Some(start),
                evidence: None,
                blind: None,
            }],
        };
        let plan = Plan {
            upgrade: "bench".to_owned(),
            component: "web".to_owned(),
            version: "2".to_owned(),
            release: Digest::of(b"new"),
            rules: old,
            left_out: BTreeSet::new(),
            pods: BTreeSet::new(),
            nodes: (0..nodes).map(|i| format!("node{i}")).collect(),
            gates: vec![GatePlan {
                name: "calls".to_owned(),
                deadline: Duration::from_secs(300),
                age: Duration::from_secs(5),
                neighbour_wait: Duration::from_secs(5),
            }],
            policy: Policy {
                max_unavailable: at_once,
                batch_size: at_once,
                baseline: Duration::from_secs(10),
                soak: Duration::from_secs(30),
                failed_node_budget: 1,
                patience: Duration::from_secs(300),
                probe_deadline: Duration::from_secs(60),
                min_free_bytes: 1 << 30,
                order: stagegate::rollout::Order::SickFirst,
            },
            hooks: Hooks::default(),
        };
        Self {
            plan,
            status: UpgradeStatus::new(start),
            observed: Observed {
                now: start,
                watching_since: start,
                wish: Wish::Proceed,
                wished_by: WishedBy::Word,
                prepared: Prepared::Ready,
                nodes: vec![
                    NodeView {
                        look: Look::Seen(seen),
                        signals,
                    };
                    nodes
                ],
                blockers: Vec::new(),
            },
            decisions: 0,
        }
    }

    /// Decides until the upgrade has succeeded.
    fn upgrade(&mut self) -> &UpgradeStatus {
        while !self.status.phase.is_final() {
            assert!(!self.status.phase.is_held(), "{}", self.status.message);
            let Decision {
                status,
                effects,
                wake_at,
                ..
            } = decide(&self.plan, &self.status, &self.observed).expect("nothing contradicts the rules");
            self.decisions += 1;
            self.status = status;
            let soon = self.observed.now + Wall::from_secs(1);
            self.observed.now = if effects.is_empty() {
                wake_at.unwrap_or(soon)
            } else {
                soon
            };
            for effect in effects {
                let Look::Seen(seen) = &mut self.observed.nodes[effect.node].look else {
                    continue;
                };
                match effect.intent.action {
                    StepAction::Install => seen.releases.push(effect.intent.release),
                    StepAction::Activate => seen.current = Some(effect.intent.release),
                    StepAction::Restart => seen.running = Some(effect.intent.release),
                    StepAction::Check | StepAction::Drain | StepAction::Warm | StepAction::Admit => {}
                }
                seen.step = Some(StepView::Ended {
                    exit: 0,
                    log_tail: String::new(),
                });
            }
        }
        assert_eq!(self.status.phase, Phase::Succeeded, "{}", self.status.message);
        &self.status
    }
}

/// The most memory that this process has used, MiB.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib >> 10)
}

fn table() {
    println!("| nodes | at once | decisions | time | a decision | peak memory so far |\n|---|---|---|---|---|---|");
    for (nodes, at_once) in [(1_000, 1), (1_000, 10), (10_000, 100), (10_000, 1_000)] {
        let mut world = World::new(nodes, at_once);
        let began = Instant::now();
        world.upgrade();
        let took = began.elapsed();
        let each = took / u32::try_from(world.decisions).unwrap_or(u32::MAX);
        println!(
            "| {nodes} | {at_once} | {} | {:.2} s | {} us | {} MiB |",
            world.decisions,
            took.as_secs_f64(),
            each.as_micros(),
            peak_mib().map_or("?".to_owned(), |m| m.to_string()),
        );
    }
}

fn hundred_nodes(criterion: &mut Criterion) {
    criterion.bench_function("an upgrade of 100 nodes, one at a time", |bench| {
        bench.iter(|| black_box(World::new(100, 1).upgrade().phase));
    });
}

criterion_group!(benches, hundred_nodes);

fn main() {
    table();
    benches();
    Criterion::default().configure_from_args().final_summary();
}

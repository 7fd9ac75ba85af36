use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::hosts::{RunningService, StepEnd};
use crate::model::upgrade::{Blocker, RollbackFor};
use crate::model::values::{Digest, Duration as Length};
use crate::rollout::{Hooks, Order, Policy, Serving, Signals, WishedBy};

/// Two pods of one set, on the build under test, on their way back. Looks are answered; whether what is asked is done, its API server
/// says. Time is the test's.
struct Api {
    begun: tokio::time::Instant,
    status: RefCell<(UpgradeStatus, u64)>,
    told: RefCell<Vec<String>>,
    refuses: Cell<bool>,
    asked: Cell<u32>,
    /// How often it was asked when it was told that the way back is held.
    asked_before: Cell<u32>,
    /// Asked for this one it takes its time.
    slow: Cell<Option<usize>>,
    pods: RefCell<Vec<NodeSight>>,
}

const PODS: usize = 2;
const PATIENCE: Duration = Duration::from_mins(5);

fn build(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn runs(name: &str) -> NodeSight {
    NodeSight {
        current: Some(build(name)),
        releases: vec![build("old"), build("new")],
        running: Some(RunningService {
            build: Some(build(name)),
            pid: 1,
            started_at: Timestamp::UNIX_EPOCH,
        }),
        ..NodeSight::default()
    }
}

fn plan() -> Plan {
    let nodes: Vec<String> = (0..PODS).map(|i| format!("web-{i}")).collect();
    Plan {
        upgrade: "up".to_owned(),
        component: "web".to_owned(),
        version: "2".to_owned(),
        release: build("new"),
        rules: build("rules"),
        left_out: BTreeSet::new(),
        pods: nodes.iter().cloned().collect(),
        nodes,
        gates: Vec::new(),
        policy: Policy {
            max_unavailable: 1,
            batch_size: 1,
            baseline: Length::from_secs(1),
            soak: Length::from_secs(1),
            failed_node_budget: 0,
            patience: Length(PATIENCE),
            probe_deadline: Length::from_secs(60),
            min_free_bytes: 0,
            order: Order::AsListed,
        },
        hooks: Hooks::default(),
    }
}

impl Api {
    fn new() -> Self {
        let mut status = UpgradeStatus::new(Timestamp::UNIX_EPOCH);
        status.phase = Phase::RollingBack;
        status.rollback_for = Some(RollbackFor::Abort);
        status.rules = Some(build("rules"));
        let nodes = plan().nodes.into_iter().map(|name| {
            let node = json!({
                "name": name, "phase": "Waiting", "since": Timestamp::UNIX_EPOCH, "from": build("old"), "drained": false,
            });
            serde_json::from_value(node).expect("a node")
        });
        status.nodes = nodes.collect();
        Self {
            begun: tokio::time::Instant::now(),
            status: RefCell::new((status, 1)),
            told: RefCell::default(),
            refuses: Cell::new(true),
            asked: Cell::default(),
            asked_before: Cell::default(),
            slow: Cell::default(),
            pods: RefCell::new(vec![runs("new"); PODS]),
        }
    }

    fn told(&self) -> Vec<String> {
        let phases = ["Paused", "RollingBack", "Aborted", "NodeOutOfService"];
        let told = self.told.borrow();
        told.iter()
            .filter(|reason| phases.contains(&reason.as_str()))
            .cloned()
            .collect()
    }
}

impl World for Api {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.begun.elapsed()
    }

    async fn load(&self) -> Result<Loaded, CommitError> {
        let (status, version) = self.status.borrow().clone();
        Ok(Loaded {
            status: Arc::new(status),
            wish: Wish::Proceed,
            wished_by: WishedBy::Word,
            version,
        })
    }

    async fn commit(&self, version: u64, decision: &Decision) -> Result<u64, CommitError> {
        *self.status.borrow_mut() = (decision.status.clone(), version + 1);
        if decision.status.phase == Phase::Paused && self.asked_before.get() == 0 {
            self.asked_before.set(self.asked.get());
        }
        let reasons = decision.events.iter().map(|event| event.reason.clone());
        self.told.borrow_mut().extend(reasons);
        Ok(version + 1)
    }

    async fn renew(&self) -> Result<(), CommitError> {
        Ok(())
    }

    async fn observe(&self, node: usize, _: Option<&StepIntent>) -> Result<NodeSight, HostError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(self.pods.borrow()[node].clone())
    }

    async fn run(&self, node: usize, step: &StepIntent, _: Duration) -> Result<NodeSight, HostError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.asked.set(self.asked.get() + 1);
        if self.slow.get() == Some(node) {
            tokio::time::sleep(PATIENCE * 2).await;
        }
        if self.refuses.get() {
            return Err(HostError::Unserved {
                host: "web".to_owned(),
                tried: step.id.clone(),
                why: "not now".to_owned(),
            });
        }
        let pod = &mut self.pods.borrow_mut()[node];
        *pod = runs("old");
        let done = StepState::Ended(StepEnd {
            exit: 0,
            log_tail: String::new(),
        });
        pod.steps.insert(step.id.clone(), done);
        Ok(pod.clone())
    }

    fn watch(&self, _: &UpgradeStatus, _: &[Option<NodeSight>]) {}

    fn signals(&self, _: usize) -> Signals {
        Signals {
            serving: Serving::Yes,
            ..Signals::default()
        }
    }

    fn prepared(&self) -> Prepared {
        Prepared::Ready
    }

    fn blockers(&self) -> Vec<Blocker> {
        Vec::new()
    }

    async fn stirred(&self) {
        std::future::pending::<()>().await;
    }

    async fn interrupted(&self) {
        std::future::pending::<()>().await;
    }
}

/// Whoever asks for one pod after the other is refused for one after the other, and it is told once.
#[tokio::test(start_paused = true)]
async fn a_way_back_whose_writes_are_refused_is_held_once_and_goes_on_with_the_first_that_is_taken() {
    let (api, plan) = (Api::new(), plan());
    let limits = Limits {
        unreached: Unreached::StayedWith,
        ..Limits::default()
    };
    let mends = async {
        tokio::time::sleep(PATIENCE * 2).await;
        let (held, asked) = (api.told(), api.asked.get());
        tokio::time::sleep(PATIENCE * 2).await;
        assert!(api.asked.get() > asked, "nobody else would know when it is over");
        api.refuses.set(false);
        held
    };
    let (ending, held) = tokio::join!(drive(&api, &plan, &limits), mends);
    assert_eq!(held, ["Paused"]);
    assert!(matches!(ending, Ok(Ending::Settled(_))), "{ending:?}");
    assert_eq!(api.told(), ["Paused", "RollingBack", "Aborted"]);
    assert!(api.pods.borrow().iter().all(|pod| pod.current == Some(build("old"))));
}

/// For whom somebody waits: it ends held, and asks for nothing more.
#[tokio::test(start_paused = true)]
async fn a_way_back_whose_writes_are_refused_is_left_held_by_a_command() {
    let (api, mut plan) = (Api::new(), plan());
    // One is still waited for when it is held for the other.
    plan.policy.max_unavailable = PODS;
    api.slow.set(Some(1));
    let ending = drive(&api, &plan, &Limits::default()).await;
    let Ok(Ending::Settled(status)) = ending else {
        panic!("{ending:?}")
    };
    assert!(waits_to_reach(&status), "{status:?}");
    assert_eq!(api.told(), ["Paused"]);
    assert_eq!(api.asked.get(), api.asked_before.get());
}

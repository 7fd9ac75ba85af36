//! The simulated world: nodes, a store, a lease, and what goes wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use stagegate::engine::{CommitError, Loaded, Watched, World};
use stagegate::hosts::{HostError, NodeSight, RunningService, StepEnd, StepState};
use stagegate::model::upgrade::{
    Blocker, Event, NodePhase, Phase, StepAction, StepIntent, UpgradeStatus, Verdict, Wish,
};
use stagegate::model::values::Digest;
use stagegate::rollout::{Decision, Prepared, Reading, Serving};

/// Chance from a seed (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
    pub fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    DriverKilled,
    DriverStalled,
    HostReboots,
    HostUnreachable,
    AnswerLost,
    ScriptSlow,
    ScriptHangs,
    ScriptFails,
    OperatorPauses,
    OperatorAborts,
    SharedTrouble,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::DriverKilled,
        Fault::DriverStalled,
        Fault::HostReboots,
        Fault::HostUnreachable,
        Fault::AnswerLost,
        Fault::ScriptSlow,
        Fault::ScriptHangs,
        Fault::ScriptFails,
        Fault::OperatorPauses,
        Fault::OperatorAborts,
        Fault::SharedTrouble,
    ];
}

/// Which guard is taken away, to see that its absence is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    AllInPlace,
    WithoutMaxUnavailable,
    WithoutFence,
    WithoutStepMemory,
    WithoutOneWrite,
    WithoutQuarantine,
}

/// How bad the build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildNature {
    Good,
    /// Calls fail under load, on every node.
    FailsUnderLoad,
    /// Its service does not answer.
    DoesNotAnswer,
}

pub struct SimNode {
    pub releases: BTreeSet<Digest>,
    pub current: Digest,
    pub running: Option<(Digest, Timestamp)>,
    pub steps: BTreeMap<String, SimStep>,
    pub fence: u64,
    pub unreachable_until: Timestamp,
    pub busy_until: Timestamp,
    /// Since when it does not serve.
    pub down_since: Option<Timestamp>,
    /// Calls to it fail whatever it runs after the upgrade began to touch it.
    pub cursed: bool,
    pub reboots: u32,
    pub installs: BTreeMap<Digest, u32>,
    pub restarts: BTreeMap<Digest, u32>,
}

pub struct SimStep {
    pub action: StepAction,
    pub release: Digest,
    pub starts: Timestamp,
    pub ends: Timestamp,
    pub exit: i32,
    pub state: SimStepState,
}

#[derive(PartialEq, Eq, Clone, Copy)]
pub enum SimStepState {
    Queued,
    Begun,
    Ended,
    Died,
}

pub struct Universe {
    pub dice: Dice,
    pub guard: Guard,
    pub old: Digest,
    pub new: Digest,
    pub nature: BuildNature,
    /// 0 to 100: how often something goes wrong.
    pub trouble: u64,
    pub nodes: Vec<SimNode>,
    pub status: UpgradeStatus,
    pub version: u64,
    pub wish: Wish,
    pub events: Vec<Event>,
    pub quarantined: Option<String>,
    pub lease: u64,
    pub shared_trouble: Option<(Timestamp, Timestamp)>,
    pub max_unavailable: usize,
    pub faults: Vec<(Phase, Fault)>,
    pub broken: Vec<String>,
    pub log: Vec<String>,
    pub epoch: tokio::time::Instant,
    /// Calls left to the kill of each driver, by token.
    pub kill_after: BTreeMap<u64, u64>,
    pub started: tokio::time::Instant,
}

pub const START: i64 = 1_700_000_000;
/// A rule of the checker, not of the engine: what went down this recently could not be known.
pub const SEEING_TAKES: i64 = 30;

impl Universe {
    pub fn now(&self) -> Timestamp {
        let ms = i64::try_from(self.epoch.elapsed().as_millis()).expect("stories are short");
        Timestamp::from_millisecond(START * 1000 + ms).expect("stories are short")
    }

    pub fn fault(&mut self, fault: Fault) {
        self.faults.push((self.status.phase, fault));
        self.note(format!("{fault:?} in {:?}", self.status.phase));
    }

    pub fn note(&mut self, what: String) {
        let now = self.now().as_millisecond() - START * 1000;
        self.log.push(format!("{:>9.3}s {what}", now as f64 / 1000.0));
    }

    /// Brings a node up to the present: steps begin and end when their time has come.
    pub fn settle(&mut self, i: usize) {
        let now = self.now();
        let nature = self.nature;
        let (old, new) = (self.old, self.new);
        let node = &mut self.nodes[i];
        let mut order: Vec<_> = node.steps.iter().map(|(id, s)| (s.starts, id.clone())).collect();
        order.sort();
        for (_, id) in order {
            let Some(step) = node.steps.get_mut(&id) else { continue };
            if step.state == SimStepState::Queued && step.starts <= now {
                step.state = SimStepState::Begun;
                if step.action == StepAction::Restart {
                    node.running = None;
                    node.down_since.get_or_insert(step.starts);
                }
            }
            if step.state == SimStepState::Begun && step.ends <= now {
                step.state = SimStepState::Ended;
                if step.exit == 0 {
                    match step.action {
                        StepAction::Install => {
                            node.releases.insert(step.release);
                            *node.installs.entry(step.release).or_default() += 1;
                        }
                        StepAction::Activate => node.current = step.release,
                        StepAction::Restart => {
                            node.running = Some((node.current, step.ends));
                            let dead = nature == BuildNature::DoesNotAnswer && node.current == new && old != new;
                            node.down_since = if dead { node.down_since } else { None };
                            *node.restarts.entry(node.current).or_default() += 1;
                        }
                        StepAction::Check | StepAction::Drain | StepAction::Warm | StepAction::Admit => {}
                    }
                }
            }
        }
    }

    pub fn serves(&self, i: usize) -> bool {
        let node = &self.nodes[i];
        node.running
            .is_some_and(|(build, _)| !(self.nature == BuildNature::DoesNotAnswer && build == self.new))
    }

    fn sight(&mut self, i: usize, step: &str) -> NodeSight {
        self.settle(i);
        let node = &self.nodes[i];
        let mut steps = BTreeMap::new();
        if let Some(s) = node.steps.get(step) {
            let state = match s.state {
                SimStepState::Queued | SimStepState::Begun => StepState::Running,
                SimStepState::Died => StepState::Died,
                SimStepState::Ended => StepState::Ended(StepEnd {
                    exit: s.exit,
                    log_tail: String::new(),
                }),
            };
            steps.insert(step.to_owned(), state);
        }
        NodeSight {
            current: Some(node.current),
            releases: node.releases.iter().copied().collect(),
            running: node.running.map(|(build, at)| RunningService {
                build: Some(build),
                pid: 1,
                started_at: at,
            }),
            steps,
            free_bytes: 1 << 40,
            set_up: true,
        }
    }
}

/// A driver's view of the universe, with its own fencing token.
pub struct SimWorld {
    pub universe: Rc<RefCell<Universe>>,
    pub token: u64,
    pub windows: RefCell<Vec<Option<Timestamp>>>,
    /// Its probes have no opinion before this.
    pub probing_since: Timestamp,
}

impl SimWorld {
    /// Every call of the world: it takes time, may be this driver's last, or may come after a long stall.
    async fn call(&self, from_ms: u64, to_ms: u64) {
        let (pause, last) = {
            let mut u = self.universe.borrow_mut();
            let mut pause = u.dice.millis(from_ms, to_ms);
            let trouble = u.trouble;
            if u.dice.below(20_000) < trouble / 10 {
                u.fault(Fault::DriverStalled);
                pause += u.dice.millis(20_000, 90_000);
            }
            let left = u.kill_after.get_mut(&self.token);
            let last = left.is_some_and(|n| {
                *n = n.saturating_sub(1);
                *n == 0
            });
            if last {
                u.fault(Fault::DriverKilled);
            }
            (pause, last)
        };
        if last {
            // The story drops a driver that never comes back.
            self.universe.borrow_mut().kill_after.insert(self.token, u64::MAX);
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(pause).await;
    }

    fn reach(&self, node: usize) -> Result<(), HostError> {
        let u = self.universe.borrow();
        if u.now() < u.nodes[node].unreachable_until {
            return Err(HostError::Unreachable {
                host: format!("host{node}"),
                why: "connection timed out".to_owned(),
            });
        }
        Ok(())
    }

    fn begin(&self, i: usize, intent: &StepIntent) -> Result<(), HostError> {
        let mut u = self.universe.borrow_mut();
        u.settle(i);
        let (now, token) = (u.now(), self.token);
        if token < u.nodes[i].fence {
            if u.guard != Guard::WithoutFence {
                let (seen, ours) = (u.nodes[i].fence.to_string(), token.to_string());
                return Err(HostError::Fenced {
                    node: format!("node{i}"),
                    seen,
                    ours,
                });
            }
            u.broken.push(format!(
                "I2: node{i} did {} for token {token} after a newer one",
                intent.action.word()
            ));
        }
        u.nodes[i].fence = u.nodes[i].fence.max(token);
        let known = u.nodes[i].steps.get(&intent.id).map(|s| s.state);
        let again = u.guard == Guard::WithoutStepMemory && known == Some(SimStepState::Ended);
        if known.is_some() && !again {
            return Ok(());
        }
        let trouble = u.trouble;
        let mut length = u.dice.millis(200, 4_000);
        let mut exit = 0;
        if u.dice.below(1000) < trouble {
            u.fault(Fault::ScriptSlow);
            length += u.dice.millis(10_000, 60_000);
        } else if u.dice.below(2000) < trouble / 2 {
            u.fault(Fault::ScriptHangs);
            length += Duration::from_secs(120);
            exit = 124;
        } else if u.dice.below(2000) < trouble / 2 {
            u.fault(Fault::ScriptFails);
            exit = 1;
        }
        let starts = now.max(u.nodes[i].busy_until);
        let ends = starts + length;
        u.nodes[i].busy_until = ends;
        let step = SimStep {
            action: intent.action,
            release: intent.release,
            starts,
            ends,
            exit,
            state: SimStepState::Queued,
        };
        u.nodes[i].steps.insert(intent.id.clone(), step);
        u.note(format!(
            "node{i} begins {} (token {token}, exit {exit}, {length:?})",
            intent.id
        ));
        u.settle(i);
        Ok(())
    }

    fn reading(&self, i: usize, since: Timestamp) -> Reading {
        let u = self.universe.borrow();
        let now = u.now();
        let age_s = |t: Timestamp| now.duration_since(t).as_secs();
        let running = u.nodes[i].running;
        let onset = match running {
            None => Some(u.nodes[i].down_since.unwrap_or(now).max(since)),
            Some((build, _)) if build == u.new && u.nature != BuildNature::Good => Some(since),
            Some((build, _)) if build == u.new && u.nodes[i].cursed => Some(since),
            Some(_) => None,
        };
        let shared = u
            .shared_trouble
            .filter(|(a, b)| *b > since && *a <= now)
            .map(|(a, _)| a.max(since));
        let onset = onset.into_iter().chain(shared).min();
        let (verdict, bad) = match onset {
            Some(t) if age_s(t) >= 7 => (Verdict::Fail, 5),
            Some(t) => (Verdict::Undecided, u64::from(age_s(t) >= 5)),
            None if age_s(since) >= 50 => (Verdict::Pass, 0),
            None if age_s(since) >= 1 => (Verdict::Undecided, 0),
            None => (Verdict::NoData, 0),
        };
        let decided_at = onset
            .filter(|_| verdict == Verdict::Fail)
            .map(|t| t + Duration::from_secs(7));
        Reading {
            verdict,
            reason: String::new(),
            bad,
            last_bad_at: onset.filter(|_| bad > 0).map(|_| now),
            onset_at: onset,
            decided_at,
            evidence: None,
        }
    }
}

impl World for SimWorld {
    fn now(&self) -> Timestamp {
        self.universe.borrow().now()
    }

    async fn load(&self) -> Result<Loaded, CommitError> {
        self.call(0, 1).await;
        let u = self.universe.borrow();
        Ok(Loaded {
            status: u.status.clone(),
            wish: u.wish,
            version: u.version,
        })
    }

    async fn commit(&self, version: u64, decision: &Decision) -> Result<u64, CommitError> {
        self.call(0, 20).await;
        let late_events = {
            let mut u = self.universe.borrow_mut();
            if u.guard != Guard::WithoutFence && u.lease != self.token {
                return Err(CommitError::Fenced(format!("token {} follows {}", u.lease, self.token)));
            }
            if u.version != version {
                return Err(CommitError::Conflict);
            }
            if u.lease != self.token {
                let token = self.token;
                u.broken.push(format!(
                    "I2: token {token} wrote the status while another held the lease"
                ));
            }
            super::check::take_out(&mut u, &decision.status);
            u.version += 1;
            if u.status.phase != decision.status.phase {
                let phase = decision.status.phase;
                u.note(format!(
                    "-> {phase:?} {} {}",
                    decision.status.reason, decision.status.message
                ));
            }
            u.status = decision.status.clone();
            if decision.quarantine.is_some() && u.guard != Guard::WithoutQuarantine {
                u.quarantined.clone_from(&decision.quarantine);
            }
            if u.guard == Guard::WithoutOneWrite {
                true
            } else {
                u.events.extend(decision.events.iter().cloned());
                false
            }
        };
        self.call(0, 20).await;
        let mut u = self.universe.borrow_mut();
        if late_events {
            u.events.extend(decision.events.iter().cloned());
        }
        Ok(version + 1)
    }

    async fn renew(&self) -> Result<(), CommitError> {
        self.call(0, 5).await;
        let u = self.universe.borrow();
        if u.lease == self.token || u.guard == Guard::WithoutFence {
            Ok(())
        } else {
            Err(CommitError::Fenced("the lease was taken over".to_owned()))
        }
    }

    async fn observe(&self, node: usize, step: Option<&StepIntent>) -> Result<NodeSight, HostError> {
        self.call(2, 60).await;
        self.reach(node)?;
        Ok(self.universe.borrow_mut().sight(node, step.map_or("", |s| &s.id)))
    }

    async fn run(&self, node: usize, step: &StepIntent, patience: Duration) -> Result<NodeSight, HostError> {
        self.call(2, 60).await;
        self.reach(node)?;
        self.begin(node, step)?;
        let ends = self.universe.borrow().nodes[node].steps[&step.id].ends;
        let left = Duration::try_from(ends.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(left.min(patience) + Duration::from_millis(1)).await;
        self.call(2, 60).await;
        self.reach(node)?;
        let mut u = self.universe.borrow_mut();
        let trouble = u.trouble;
        if u.dice.below(1000) < trouble {
            u.fault(Fault::AnswerLost);
            return Err(HostError::Unreachable {
                host: format!("host{node}"),
                why: "connection reset".to_owned(),
            });
        }
        Ok(u.sight(node, &step.id))
    }

    fn watch(&self, status: &UpgradeStatus, _: &[Option<NodeSight>]) {
        *self.windows.borrow_mut() = status.nodes.iter().map(|n| n.analysed_since).collect();
    }

    fn watched(&self, node: usize) -> Watched {
        let window = self.windows.borrow().get(node).copied().flatten();
        let readings = window.map(|since| vec![self.reading(node, since)]).unwrap_or_default();
        let mut u = self.universe.borrow_mut();
        u.settle(node);
        let since = u.nodes[node].running.map(|(_, at)| at.max(self.probing_since));
        let serving = match since {
            Some(at) if u.now().duration_since(at).as_secs() < 1 => Serving::Unknown,
            _ if u.serves(node) => Serving::Yes,
            _ => Serving::No,
        };
        Watched { serving, readings }
    }

    fn prepared(&self) -> Prepared {
        Prepared::Ready
    }

    fn blockers(&self) -> Vec<Blocker> {
        Vec::new()
    }

    async fn stirred(&self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    async fn interrupted(&self) {
        std::future::pending().await
    }
}

/// Whether a node is out by the status and by the truth, long enough that it could be known.
pub fn known_out(u: &Universe, i: usize, status: &UpgradeStatus) -> bool {
    let drained = status
        .nodes
        .get(i)
        .is_some_and(|n| n.drained || n.phase == NodePhase::OutOfService);
    let down = u.nodes[i]
        .down_since
        .is_some_and(|t| u.now().duration_since(t).as_secs() > SEEING_TAKES);
    drained || down
}

//! The simulated world: nodes, a store, a lease, and what goes wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::story::Death;
use jiff::{SignedDuration, Timestamp};
use stagegate::engine::{CommitError, Loaded, World};
use stagegate::hosts::{HostError, NodeSight, RunningService, StepEnd, StepState};
use stagegate::model::upgrade::{Blocker, Event, Phase, StepAction, StepIntent, UpgradeStatus, Verdict, Wish};
use stagegate::model::values::Digest;
use stagegate::rollout::{Blind, Decision, Prepared, Reading, Serving, Signals, WishedBy};

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
    NobodyDrives,
    DriverStalled,
    SecondDriver,
    StoreFails,
    AgentKilled,
    HostReboots,
    HostUnreachable,
    NetworkAway,
    ServiceDies,
    DiskFull,
    AnswerLost,
    ScriptSlow,
    ScriptHangs,
    ScriptFails,
    OperatorPauses,
    OperatorAborts,
    SensorSilent,
    SharedTrouble,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::DriverKilled,
        Fault::NobodyDrives,
        Fault::DriverStalled,
        Fault::SecondDriver,
        Fault::StoreFails,
        Fault::AgentKilled,
        Fault::HostReboots,
        Fault::HostUnreachable,
        Fault::NetworkAway,
        Fault::ServiceDies,
        Fault::DiskFull,
        Fault::AnswerLost,
        Fault::ScriptSlow,
        Fault::ScriptHangs,
        Fault::ScriptFails,
        Fault::OperatorPauses,
        Fault::OperatorAborts,
        Fault::SensorSilent,
        Fault::SharedTrouble,
    ];

    /// Whether a story must be able to meet it in a phase.
    pub fn may_happen_in(self, phase: Phase) -> bool {
        let active = matches!(
            phase,
            Phase::Preflight | Phase::Baseline | Phase::Rolling | Phase::Soak | Phase::RollingBack
        );
        match self {
            Fault::DriverKilled
            | Fault::NobodyDrives
            | Fault::DriverStalled
            | Fault::StoreFails
            | Fault::SecondDriver => active,
            // Only a step has a script, an agent at work and an answer to lose.
            Fault::AgentKilled | Fault::AnswerLost | Fault::ScriptSlow | Fault::ScriptHangs | Fault::ScriptFails => {
                matches!(phase, Phase::Preflight | Phase::Rolling | Phase::RollingBack)
            }
            Fault::HostReboots
            | Fault::HostUnreachable
            | Fault::NetworkAway
            | Fault::ServiceDies
            | Fault::DiskFull
            | Fault::OperatorPauses
            | Fault::OperatorAborts
            | Fault::SensorSilent
            | Fault::SharedTrouble => !phase.is_final(),
        }
    }
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
    WithoutSensors,
}

/// Whether a story is written down while it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    Silently,
    Aloud,
}

/// Writes a line of the story; costs nothing when nobody listens.
macro_rules! note {
    ($universe:expr, $($text:tt)*) => {
        if $universe.telling == Telling::Aloud {
            let text = format!($($text)*);
            $universe.log(&text);
        }
    };
}
pub(super) use note;

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
    /// In the order in which they begin.
    pub steps: Vec<SimStep>,
    /// Steps before this one have ended.
    pub settled: usize,
    pub fence: u64,
    pub unreachable_until: Timestamp,
    pub busy_until: Timestamp,
    /// Since when it does not serve.
    pub down_since: Option<Timestamp>,
    /// Calls to it fail whatever it runs after the upgrade began to touch it.
    pub cursed: bool,
    /// Its disk takes nothing more until then.
    pub full_until: Timestamp,
    /// Times that its service was taken down from outside.
    pub deaths: u32,
    /// The driver that could not reach it for a step, and when; until one of them can.
    pub unheard: Option<(u64, Timestamp)>,
    pub installs: BTreeMap<Digest, u32>,
    pub restarts: BTreeMap<Digest, u32>,
}

pub struct SimStep {
    pub id: String,
    pub action: StepAction,
    pub release: Digest,
    pub starts: Timestamp,
    pub ends: Timestamp,
    pub exit: i32,
    pub state: SimStepState,
}

impl SimNode {
    pub fn step(&self, id: &str) -> Option<&SimStep> {
        self.steps.iter().rev().find(|s| s.id == id)
    }
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
    pub telling: Telling,
    pub nodes: Vec<SimNode>,
    pub status: Arc<UpgradeStatus>,
    pub version: u64,
    pub wish: Wish,
    pub events: Vec<Event>,
    /// Phases that were written.
    pub entered: Vec<Phase>,
    pub quarantined: Option<String>,
    pub lease: u64,
    pub shared_trouble: Option<(Timestamp, Timestamp)>,
    /// Nobody reaches any node.
    pub away: Option<(Timestamp, Timestamp)>,
    /// No sample reaches a gate.
    pub silence: Option<(Timestamp, Timestamp)>,
    pub max_unavailable: usize,
    pub faults: Vec<(Phase, Fault)>,
    pub broken: Vec<String>,
    pub log: Vec<String>,
    pub epoch: tokio::time::Instant,
    /// Calls left to the kill of each driver, by token; 0 when it is dead.
    pub kill_after: BTreeMap<u64, u64>,
    /// No sample comes of a service that has ended, as where nothing but its look tells of it.
    pub dead_are_silent: bool,
    /// How the first driver is killed, where that is not left to chance.
    pub first: Option<Death>,
    /// Drivers are asked to end at this call.
    pub interrupt_at: Option<u64>,
    /// Calls that drivers made.
    pub calls: u64,
    pub started: tokio::time::Instant,
}

pub const START: i64 = 1_700_000_000;
/// A node that cannot be reached is not asked for a step again before: a loop that asks at once would do nothing else.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A rule of the checker, not of the engine: what went down this recently could not be known.
pub const SEEING_TAKES: i64 = 30;

impl Universe {
    pub fn now(&self) -> Timestamp {
        let ms = i64::try_from(self.epoch.elapsed().as_millis()).expect("stories are short");
        Timestamp::from_millisecond(START * 1000 + ms).expect("stories are short")
    }

    pub fn fault(&mut self, fault: Fault) {
        self.faults.push((self.status.phase, fault));
        note!(self, "{fault:?} in {:?}", self.status.phase);
    }

    pub fn log(&mut self, what: &str) {
        let ms = self.epoch.elapsed().as_millis();
        self.log.push(format!("{:>6}.{:03}s {what}", ms / 1000, ms % 1000));
    }

    /// Brings a node up to the present: steps begin and end when their time has come.
    pub fn settle(&mut self, i: usize) {
        let now = self.now();
        let nature = self.nature;
        let (old, new) = (self.old, self.new);
        let node = &mut self.nodes[i];
        let (open, mut passed) = (node.settled, 0);
        for step in &mut node.steps[open..] {
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
            let over = matches!(step.state, SimStepState::Ended | SimStepState::Died);
            node.settled += usize::from(over && node.settled == open + passed);
            passed += 1;
        }
    }

    /// Whether a step runs on a node, or waits there.
    pub fn is_at_work(&mut self, i: usize) -> bool {
        self.settle(i);
        let mut steps = self.nodes[i].steps.iter();
        steps.any(|s| matches!(s.state, SimStepState::Queued | SimStepState::Begun))
    }

    /// The step that runs on a node, and everything behind it, is cut off.
    pub fn cut_off(&mut self, i: usize) -> bool {
        self.settle(i);
        let now = self.now();
        let node = &mut self.nodes[i];
        node.busy_until = now;
        let mut any = false;
        for step in &mut node.steps[node.settled..] {
            step.state = SimStepState::Died;
            any = true;
        }
        any
    }

    /// The service of a node goes down.
    pub fn take_down(&mut self, i: usize) {
        self.settle(i);
        let now = self.now();
        let node = &mut self.nodes[i];
        node.deaths += 1;
        node.running = None;
        node.down_since.get_or_insert(now);
    }

    /// Somebody starts what is down.
    pub fn start_what_is_down(&mut self) {
        let now = self.now();
        for i in 0..self.nodes.len() {
            self.settle(i);
            let node = &mut self.nodes[i];
            if node.running.is_none() {
                node.running = Some((node.current, now));
                if self.serves(i) {
                    self.nodes[i].down_since = None;
                }
            }
        }
    }

    pub fn serves(&self, i: usize) -> bool {
        let node = &self.nodes[i];
        node.running
            .is_some_and(|(build, _)| !(self.nature == BuildNature::DoesNotAnswer && build == self.new))
    }

    /// What an honest gate says of a node: a failure shows after 7 s, a pass takes 50 s of samples.
    pub fn reading(&self, i: usize, since: Timestamp) -> Reading {
        let dead = self.nodes[i].running.is_none() && self.dead_are_silent;
        let now = self.nodes[i].down_since.filter(|_| dead).unwrap_or(self.now());
        let quiet = |from: Timestamp| {
            self.silence
                .filter(|(a, b)| *b > from && *a <= now)
                .map_or(SignedDuration::ZERO, |(a, b)| b.min(now).duration_since(a.max(from)))
        };
        // Rounded once: of two roundings the difference would go down at times.
        let heard_s = |t: Timestamp| (now.duration_since(t) - quiet(t)).as_secs();
        let running = self.nodes[i].running;
        let onset = match running {
            None if dead => None,
            None => Some(self.nodes[i].down_since.unwrap_or(now).max(since)),
            Some((build, _)) if build == self.new && self.nature != BuildNature::Good => Some(since),
            Some((build, _)) if build == self.new && self.nodes[i].cursed => Some(since),
            Some(_) => None,
        };
        let shared = self
            .shared_trouble
            .filter(|(a, b)| *b > since && *a <= now)
            .map(|(a, _)| a.max(since));
        let onset = onset.into_iter().chain(shared).min();
        let sampled_s = heard_s(since);
        let (verdict, bad) = match onset {
            _ if sampled_s < 1 => (Verdict::NoData, 0),
            Some(t) if heard_s(t) >= 7 => (Verdict::Fail, 5),
            Some(t) => (Verdict::Undecided, u64::from(heard_s(t) >= 5)),
            None if sampled_s >= 50 => (Verdict::Pass, 0),
            None => (Verdict::Undecided, 0),
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
            blind: self
                .silence
                .filter(|(a, b)| *a <= now && now < *b && is_told(*a))
                .map(|(a, _)| Blind {
                    since: a.max(since),
                    last: now,
                    why: "connection refused".to_owned(),
                }),
        }
    }

    fn sight(&mut self, i: usize, step: &str) -> NodeSight {
        self.settle(i);
        let node = &self.nodes[i];
        let mut steps = BTreeMap::new();
        if let Some(s) = node.step(step) {
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
            remains: Vec::new(),
            current: Some(node.current),
            releases: node.releases.iter().copied().collect(),
            running: node.running.map(|(build, at)| RunningService {
                build: Some(build),
                pid: 1,
                started_at: at,
            }),
            steps,
            free_bytes: Some(if self.now() < node.full_until { 0 } else { 1 << 40 }),
            set_up: true,
            fence: None,
            address: None,
            foreign_edit: None,
            unstated: None,
            held_by: None,
            workload: None,
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
        let (pause, dead) = {
            let mut u = self.universe.borrow_mut();
            u.calls += 1;
            let mut pause = u.dice.millis(from_ms, to_ms);
            let trouble = u.trouble;
            if u.dice.below(20_000) < trouble / 10 {
                u.fault(Fault::DriverStalled);
                pause += u.dice.millis(20_000, 90_000);
            }
            let left = u.kill_after.entry(self.token).or_insert(u64::MAX);
            let was_alive = *left > 0;
            *left = left.saturating_sub(1);
            let dead = *left == 0;
            if dead && was_alive {
                u.fault(Fault::DriverKilled);
            }
            (pause, dead)
        };
        if dead {
            // Nothing of a dead driver goes on; the story drops it.
            std::future::pending::<()>().await;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    fn store_works(&self) -> Result<(), CommitError> {
        let mut u = self.universe.borrow_mut();
        // A load comes with every turn, and turns are many.
        if u.dice.below(100_000) < u.trouble {
            u.fault(Fault::StoreFails);
            return Err(CommitError::Store("disk I/O error".to_owned()));
        }
        Ok(())
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

    /// Reaches a node for a step, and takes note of who asks too often.
    fn asked(&self, node: usize) -> Result<(), HostError> {
        let reached = self.reach(node);
        let mut u = self.universe.borrow_mut();
        let (now, before) = (u.now(), u.nodes[node].unheard);
        u.nodes[node].unheard = reached.is_err().then_some((self.token, now));
        let soon = |at: Timestamp| now.duration_since(at).unsigned_abs() < ASK_AGAIN_AFTER;
        if before.is_some_and(|(token, at)| token == self.token && soon(at)) {
            u.broken
                .push(format!("node{node} could not be reached and was asked again at once"));
        }
        reached
    }

    #[expect(clippy::same_functions_in_if_condition, reason = "the dice fall anew each time")]
    fn begin(&self, i: usize, intent: &StepIntent) -> Result<(), HostError> {
        let mut u = self.universe.borrow_mut();
        u.settle(i);
        let (now, token) = (u.now(), self.token);
        if token < u.nodes[i].fence {
            if u.guard != Guard::WithoutFence {
                let (seen, ours) = (u.nodes[i].fence.to_string(), token.to_string());
                return Err(HostError::Fenced {
                    environment: "simulated".to_owned(),
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
        let known = u.nodes[i].step(&intent.id).map(|s| s.state);
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
            length += Duration::from_mins(2);
            exit = 124;
        } else if u.dice.below(2000) < trouble / 2 {
            u.fault(Fault::ScriptFails);
            exit = 1;
        }
        if intent.action == StepAction::Install && now < u.nodes[i].full_until {
            exit = 1;
        }
        let starts = now.max(u.nodes[i].busy_until);
        let ends = starts + length;
        u.nodes[i].busy_until = ends;
        let step = SimStep {
            id: intent.id.clone(),
            action: intent.action,
            release: intent.release,
            starts,
            ends,
            exit,
            state: SimStepState::Queued,
        };
        u.nodes[i].steps.push(step);
        note!(
            u,
            "node{i} begins {} (token {token}, exit {exit}, {length:?})",
            intent.id
        );
        u.settle(i);
        Ok(())
    }
}

impl World for SimWorld {
    fn now(&self) -> Timestamp {
        self.universe.borrow().now()
    }

    async fn load(&self) -> Result<Loaded, CommitError> {
        let slow = self.universe.borrow_mut().dice.percent(10);
        self.call(0, u64::from(slow)).await;
        self.store_works()?;
        let u = self.universe.borrow();
        Ok(Loaded {
            status: Arc::clone(&u.status),
            wish: u.wish,
            wished_by: WishedBy::Word,
            version: u.version,
        })
    }

    async fn commit(&self, version: u64, decision: &Decision) -> Result<u64, CommitError> {
        self.call(0, 20).await;
        self.store_works()?;
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
            super::check::commit(&mut u, &decision.status);
            u.version += 1;
            if u.status.phase != decision.status.phase {
                let phase = decision.status.phase;
                u.entered.push(phase);
                note!(u, "-> {phase:?} {} {}", decision.status.reason, decision.status.message);
            }
            u.status = Arc::new(decision.status.clone());
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
        // Looks that were begun together mostly come back together.
        let slow = self.universe.borrow_mut().dice.percent(20);
        self.call(if slow { 2 } else { 20 }, if slow { 60 } else { 20 }).await;
        self.reach(node)?;
        self.universe.borrow_mut().nodes[node].unheard = None;
        Ok(self.universe.borrow_mut().sight(node, step.map_or("", |s| &s.id)))
    }

    async fn run(&self, node: usize, step: &StepIntent, patience: Duration) -> Result<NodeSight, HostError> {
        self.call(2, 60).await;
        self.asked(node)?;
        self.begin(node, step)?;
        let ends = self.universe.borrow().nodes[node]
            .step(&step.id)
            .map_or(self.now(), |s| s.ends);
        let left = Duration::try_from(ends.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(left.min(patience) + Duration::from_millis(1)).await;
        self.call(2, 60).await;
        self.asked(node)?;
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

    fn signals(&self, node: usize) -> Signals {
        let window = self.windows.borrow().get(node).copied().flatten();
        let mut u = self.universe.borrow_mut();
        u.settle(node);
        let mut readings = window.map(|since| vec![u.reading(node, since)]).unwrap_or_default();
        for reading in &mut readings {
            if u.guard == Guard::WithoutSensors && reading.verdict == Verdict::NoData {
                reading.verdict = Verdict::Pass;
            }
        }
        let since = u.nodes[node].running.map(|(_, at)| at.max(self.probing_since));
        let serving = match since {
            Some(at) if u.now().duration_since(at).as_secs() < 1 => Serving::Unknown,
            _ if u.serves(node) => Serving::Yes,
            _ => Serving::No,
        };
        Signals {
            serving,
            in_flight: 0,
            readings,
        }
    }

    fn prepared(&self) -> Prepared {
        Prepared::Ready
    }

    fn blockers(&self) -> Vec<Blocker> {
        Vec::new()
    }

    async fn stirred(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    async fn interrupted(&self) {
        let Some(call) = self.universe.borrow().interrupt_at else {
            return std::future::pending().await;
        };
        while self.universe.borrow().calls < call {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// One in four of the sensors that see nothing knows why; the others (a log in which nothing is written) just see nothing.
fn is_told(silence: Timestamp) -> bool {
    silence.as_second() % 4 == 0
}

/// Whether a node is out by the status and by the truth, long enough that it could be known.
pub fn known_out(u: &Universe, i: usize, status: &UpgradeStatus) -> bool {
    let drained = status.nodes.get(i).is_some_and(|n| n.drained);
    let down = u.nodes[i]
        .down_since
        .is_some_and(|t| u.now().duration_since(t).as_secs() > SEEING_TAKES);
    drained || down
}

//! The loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;

use super::world::{CommitError, Loaded, World};
use crate::hosts::{HostError, IMAGE_NOT_FETCHED, NodeSight, StepState};
use crate::model::upgrade::{Phase, StepAction, StepIntent, UpgradeStatus, Wish};
use crate::rollout::{
    Decision, Look, NodeView, Observed, Plan, Prepared, RolloutError, Seen, Silence, StepView, decide, waits_to_reach,
};

/// Bounds of the loop's waiting.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A node that nothing was asked of is looked at again after this: soon enough to see a service die between two
    /// probes, rare enough to cost nothing.
    pub look_every: Duration,
    /// The same in Soak, which may last hours: half of the time after which a service that is gone counts as lost.
    pub look_in_soak_every: Duration,
    /// One wait for a step's end: below the minutes after which idle connections are dropped on the way.
    pub step_patience: Duration,
    /// The same for an install, during which the node serves: one that dies meanwhile is seen by the next look.
    pub install_patience: Duration,
    /// The lease is kept this often: a third of its time to live, so that two renewals may fail.
    pub renew_every: Duration,
    /// Notes that nothing depends on (a gate's counts) are written at most this often.
    pub notes_every: Duration,
    /// Nodes looked at together; each costs a process or a channel.
    pub looks_at_once: usize,
    /// Whether a way back that is held since nobody can be reached is stayed with.
    pub unreached: Unreached,
    /// A turn that comes later than this was held up from outside (a stopped process, a sleeping machine): nobody watched.
    pub longest_turn: Duration,
}

/// What becomes of a way back that is held since nobody can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreached {
    /// Somebody waits for an end: it is left to whoever goes on with it.
    Left,
    /// It is looked at until somebody can be reached.
    StayedWith,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(2),
            look_in_soak_every: Duration::from_secs(5),
            step_patience: Duration::from_secs(20),
            install_patience: Duration::from_secs(5),
            renew_every: Duration::from_secs(5),
            notes_every: Duration::from_secs(2),
            looks_at_once: 32,
            unreached: Unreached::Left,
            longest_turn: Duration::from_secs(30),
        }
    }
}

impl Limits {
    fn look_every(&self, phase: Phase) -> Duration {
        if phase == Phase::Soak {
            self.look_in_soak_every
        } else {
            self.look_every
        }
    }
}

/// How a drive ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The upgrade is final or held.
    Settled(Box<UpgradeStatus>),
    /// The driver was asked to end; the steps that ran have ended, and the upgrade can be resumed.
    Interrupted(Box<UpgradeStatus>),
}

/// Why a drive could not go on. The upgrade is as it was last written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DriveError {
    /// Another driver has taken over.
    #[error("another driver has taken over this environment: {0}")]
    Fenced(String),
    /// The store failed.
    #[error("the state could not be read or written: {0}")]
    Store(String),
    /// A node serves another home or a newer token though the lease is ours: a person says whose it is.
    #[error(transparent)]
    Node(HostError),
    /// The status and the rules contradict each other.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
}

impl From<CommitError> for DriveError {
    fn from(e: CommitError) -> Self {
        match e {
            CommitError::Conflict => DriveError::Store("it changes faster than it can be decided".to_owned()),
            CommitError::Fenced(why) => DriveError::Fenced(why),
            CommitError::Store(why) => DriveError::Store(why),
        }
    }
}

/// Commits that may conflict in a row: each means that somebody else wrote, which takes a person's time.
const CONFLICTS_IN_A_ROW: usize = 16;

/// Drives an upgrade until it is final, held, taken over or interrupted.
pub async fn drive<W: World>(world: &W, plan: &Plan, limits: &Limits) -> Result<Ending, DriveError> {
    let mut loaded = world.load().await?;
    let mut nodes = Nodes::new(world, plan, limits);
    let mut notes_at = tokio::time::Instant::now();
    let mut renew_at = tokio::time::Instant::now() + limits.renew_every;
    let mut stopping = false;
    let mut conflicts = 0;
    let mut watching_since = world.now();
    let mut last_turn = watching_since;
    loop {
        let now = world.now();
        if now.duration_since(last_turn).unsigned_abs() > limits.longest_turn {
            watching_since = now;
        }
        last_turn = now;
        // A node that refuses us may have heard of another driver: the lease says whether that one is to be obeyed.
        let refused = nodes.refusal.take();
        if refused.is_some() || tokio::time::Instant::now() >= renew_at {
            world.renew().await?;
            renew_at = tokio::time::Instant::now() + limits.renew_every;
        }
        let Loaded { status, version, .. } = &loaded;
        match refused {
            // Before anything is changed it is a finding like any other.
            Some(HostError::ForeignHome { .. }) if matches!(status.phase, Phase::Pending | Phase::Preflight) => {}
            Some(refused) => return Err(DriveError::Node(refused)),
            None => {}
        }
        world.watch(status, &nodes.sights);
        let decision = decide(plan, status, &nodes.observed(world, watching_since, &loaded))?;
        let material = is_material(status, &decision);
        if material || (decision.status != **status && tokio::time::Instant::now() >= notes_at) {
            match world.commit(*version, &decision).await {
                Ok(version) => {
                    // Traffic leaves a node that was just taken out before anything is asked of it.
                    world.watch(&decision.status, &nodes.sights);
                    loaded = Loaded {
                        status: Arc::new(decision.status),
                        version,
                        ..loaded
                    };
                    notes_at = tokio::time::Instant::now() + limits.notes_every;
                    conflicts = 0;
                }
                Err(CommitError::Conflict) if conflicts < CONFLICTS_IN_A_ROW => {
                    conflicts += 1;
                    loaded = world.load().await?;
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
        }
        let is_stayed_with = limits.unreached == Unreached::StayedWith
            && waits_to_reach(&loaded.status)
            && matches!(loaded.wish, Wish::Proceed | Wish::Abort);
        let settled = loaded.status.phase.is_final() || loaded.status.phase.is_held() && !is_stayed_with;
        if settled && nodes.idle() {
            world.watch(&loaded.status, &nodes.sights);
            return Ok(Ending::Settled(Box::new(Arc::unwrap_or_clone(loaded.status))));
        }
        // Only what is durable may be done: the effects are those of the status just written, or written before. A driver that
        // ends begins no step, and waits for those that run.
        for effect in decision.effects.iter().filter(|_| !settled) {
            if !stopping || nodes.runs(effect.node, &effect.intent) {
                nodes.ensure(effect.node, &effect.intent);
            }
        }
        if stopping && nodes.idle() {
            return Ok(Ending::Interrupted(Box::new(Arc::unwrap_or_clone(loaded.status))));
        }
        if !settled && !stopping {
            nodes.look_at_the_stale(&loaded.status);
        }
        let wake = decision.wake_at.map(|t| {
            let wait = t.duration_since(world.now());
            tokio::time::Instant::now() + Duration::try_from(wait).unwrap_or_default()
        });
        // Nobody looks any more while a last step is waited for: a look that is due would be waited for in vain, over and over.
        let look = (!settled && !stopping)
            .then(|| nodes.next_look(loaded.status.phase))
            .flatten();
        let wake = [wake, Some(renew_at), look]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(renew_at);
        tokio::select! {
            biased;
            true = nodes.next(), if !nodes.flights.is_empty() => {}
            () = world.interrupted(), if !stopping => stopping = true,
            () = world.stirred() => {}
            () = tokio::time::sleep_until(wake) => {}
        }
        // What has come in by now is decided on together.
        while nodes.next().now_or_never() == Some(true) {}
        // The operator's wish is looked for at every turn; reading it is far cheaper than acting a turn late.
        let read = world.load().await?;
        if read.version == loaded.version {
            (loaded.wish, loaded.wished_by) = (read.wish, read.wished_by);
        } else {
            loaded = read;
        }
    }
}

/// Whether a decision changes anything but notes for people.
fn is_material(status: &UpgradeStatus, decision: &Decision) -> bool {
    if !decision.events.is_empty() || decision.quarantine.is_some() || decision.verified {
        return true;
    }
    let new = &decision.status;
    let same_nodes = status.nodes.len() == new.nodes.len()
        && status.nodes.iter().zip(&new.nodes).all(|(a, b)| {
            // The build that a node runs is seen anew at every look.
            a.build == b.build && a == b || {
                let mut a = a.clone();
                a.build = b.build;
                a == *b
            }
        });
    status.phase != new.phase
        || status.since != new.since
        || status.cure != new.cure
        || status.resume_to != new.resume_to
        || status.failed_gate != new.failed_gate
        || !same_nodes
}

/// What is known of the nodes, and what is being asked of them.
struct Nodes<'a, W: World> {
    world: &'a W,
    plan: &'a Plan,
    limits: &'a Limits,
    sights: Vec<Option<NodeSight>>,
    troubles: Vec<Option<HostError>>,
    looked_at: Vec<Option<tokio::time::Instant>>,
    /// A node that could not do what it was asked is not asked again before.
    ask_again_at: Vec<Option<tokio::time::Instant>>,
    flights: FuturesUnordered<Flight<'a>>,
    /// Which node is asked what: its own step, or a look.
    in_flight: BTreeMap<usize, Option<String>>,
    /// What a node said that does not obey us, since this was last taken.
    refusal: Option<HostError>,
}

type Flight<'a> = std::pin::Pin<Box<dyn Future<Output = Landed> + 'a>>;

/// An answer: to a step that was asked for, or to a look.
struct Landed {
    node: usize,
    step: Option<String>,
    answer: Result<NodeSight, HostError>,
}

impl<'a, W: World> Nodes<'a, W> {
    fn new(world: &'a W, plan: &'a Plan, limits: &'a Limits) -> Self {
        let n = plan.nodes.len();
        Self {
            world,
            plan,
            limits,
            sights: vec![None; n],
            troubles: vec![None; n],
            looked_at: vec![None; n],
            ask_again_at: vec![None; n],
            flights: FuturesUnordered::new(),
            in_flight: BTreeMap::new(),
            refusal: None,
        }
    }

    /// No step is being waited for; a look may be.
    fn idle(&self) -> bool {
        self.in_flight.values().all(Option::is_none)
    }

    fn ensure(&mut self, node: usize, intent: &StepIntent) {
        // The agent serialises what is asked of a node; asking twice would only queue there.
        if let Some(Some(_)) = self.in_flight.get(&node) {
            return;
        }
        if self.ask_again_at[node].is_some_and(|at| tokio::time::Instant::now() < at) {
            return;
        }
        self.in_flight.insert(node, Some(intent.id.clone()));
        let patience = match intent.action {
            StepAction::Install => self.limits.install_patience,
            StepAction::Check
            | StepAction::Drain
            | StepAction::Activate
            | StepAction::Restart
            | StepAction::Warm
            | StepAction::Admit => self.limits.step_patience,
        };
        let (world, intent) = (self.world, intent.clone());
        self.flights.push(Box::pin(async move {
            let answer = world.run(node, &intent, patience).await;
            Landed {
                node,
                step: Some(intent.id),
                answer,
            }
        }));
    }

    /// The node was seen to be at this step.
    fn runs(&self, node: usize, intent: &StepIntent) -> bool {
        let sight = self.sights[node].as_ref().filter(|_| self.troubles[node].is_none());
        sight.and_then(|s| s.steps.get(&intent.id)) == Some(&StepState::Running)
    }

    fn look_at_the_stale(&mut self, status: &UpgradeStatus) {
        let (now, every) = (tokio::time::Instant::now(), self.limits.look_every(status.phase));
        for node in 0..self.plan.nodes.len() {
            if self.in_flight.len() >= self.limits.looks_at_once {
                break;
            }
            let stale = self.looked_at[node].is_none_or(|at| now >= at + every);
            if stale && !self.in_flight.contains_key(&node) {
                self.in_flight.insert(node, None);
                let step = status.nodes.get(node).and_then(|n| n.step.clone());
                let world = self.world;
                self.flights.push(Box::pin(async move {
                    let answer = world.observe(node, step.as_ref()).await;
                    Landed {
                        node,
                        step: None,
                        answer,
                    }
                }));
            }
        }
    }

    fn next_look(&self, phase: Phase) -> Option<tokio::time::Instant> {
        // There is no place for one before an answer has come.
        if self.in_flight.len() >= self.limits.looks_at_once {
            return None;
        }
        let every = self.limits.look_every(phase);
        (0..self.plan.nodes.len())
            .filter(|node| !self.in_flight.contains_key(node))
            .filter_map(|node| self.looked_at[node].map(|at| at + every))
            .min()
    }

    /// Waits for one answer and takes note of it.
    async fn next(&mut self) -> bool {
        let Some(Landed { node, step, answer }) = self.flights.next().await else {
            return false;
        };
        if self.in_flight.get(&node) != Some(&step) {
            // A look that a step on the same node has overtaken: what it saw is older than what the step will say.
            return true;
        }
        self.in_flight.remove(&node);
        let at = tokio::time::Instant::now();
        self.looked_at[node] = Some(at);
        match answer {
            Ok(sight) => {
                self.sights[node] = Some(sight);
                self.troubles[node] = None;
                self.ask_again_at[node] = None;
            }
            Err(e) => {
                // No later than it is looked at: a look that works says nothing of what it was asked for.
                self.ask_again_at[node] = Some(at + self.limits.look_every);
                if let HostError::Fenced { .. } | HostError::ForeignHome { .. } = e {
                    self.refusal = Some(e.clone());
                }
                self.troubles[node] = Some(e);
            }
        }
        true
    }

    fn observed(&self, world: &W, watching_since: Timestamp, loaded: &Loaded) -> Observed {
        let Loaded {
            wish,
            wished_by,
            ref status,
            version: _,
        } = *loaded;
        let nodes = (0..self.plan.nodes.len())
            .map(|i| NodeView {
                look: match (&self.troubles[i], &self.sights[i]) {
                    (Some(why @ HostError::ForeignHome { .. }), _) => Look::Foreign { why: why.to_string() },
                    (Some(why), _) => Look::Unreachable {
                        why: why.to_string(),
                        of: silence(why),
                    },
                    (None, None) => Look::NotYet,
                    (None, Some(sight)) => Look::Seen(seen(i, sight, status)),
                },
                signals: world.signals(i),
            })
            .collect();
        Observed {
            now: world.now(),
            watching_since,
            wish,
            wished_by,
            // Whoever goes back, or has passed that point, needs no build made ready.
            prepared: match status.phase {
                Phase::Pending | Phase::Preflight if wish == Wish::Proceed => world.prepared(),
                _ => Prepared::Pending,
            },
            nodes,
            blockers: blockers_if_needed(world, status),
        }
    }
}

fn silence(why: &HostError) -> Silence {
    match why {
        HostError::Unserved { .. } => Silence::Speaker,
        HostError::Refused { .. } => Silence::Refusal,
        HostError::Unreachable { .. }
        | HostError::Misstated { .. }
        | HostError::Failed { .. }
        | HostError::Fenced { .. }
        | HostError::ForeignHome { .. } => Silence::Node,
    }
}

fn seen(i: usize, sight: &NodeSight, status: &UpgradeStatus) -> Seen {
    let intent = status.nodes.get(i).and_then(|n| n.step.as_ref());
    let step = intent.and_then(|s| sight.steps.get(&s.id)).map(|s| match s {
        StepState::Running => StepView::Running,
        StepState::Died => StepView::Died,
        StepState::Ended(end) if end.exit == IMAGE_NOT_FETCHED => StepView::NotFetched {
            why: end.log_tail.clone(),
        },
        StepState::Ended(end) => StepView::Ended {
            exit: end.exit,
            log_tail: end.log_tail.clone(),
        },
    });
    Seen {
        current: sight.current,
        releases: sight.releases.clone(),
        running: sight.running.as_ref().and_then(|r| r.build),
        step,
        free_bytes: sight.free_bytes,
        foreign_edit: sight.foreign_edit.clone(),
        unstated: sight.unstated.clone(),
        held_by: sight.held_by.clone(),
        workload: sight.workload.clone(),
    }
}

/// Blockers are asked for while something is being judged; before and after they mean nothing.
fn blockers_if_needed<W: World>(world: &W, status: &UpgradeStatus) -> Vec<crate::model::upgrade::Blocker> {
    match status.phase {
        Phase::Baseline | Phase::Rolling | Phase::Soak | Phase::RollingBack => world.blockers(),
        Phase::Pending
        | Phase::Preflight
        | Phase::Succeeded
        | Phase::RolledBack
        | Phase::RollbackIneffective
        | Phase::Paused
        | Phase::Aborted
        | Phase::Failed
        | Phase::Errored
        | Phase::Inconclusive => Vec::new(),
    }
}

#[cfg(test)]
mod tests;

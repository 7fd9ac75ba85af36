//! One story: a seed makes the nodes, the build, the trouble and the operator, and drivers come and go until the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use stagegate::engine::{DriveError, Ending, Limits, drive};
use stagegate::model::upgrade::{Phase, UpgradeStatus, Wish};
use stagegate::model::values::{Digest, Duration as Span};
use stagegate::rollout::{GatePlan, Hooks, Order, Plan, Policy, resume};

use super::check;
use super::universe::{BuildNature, Dice, Fault, Guard, START, SimNode, SimWorld, Telling, Universe, note};

pub struct Story {
    pub seed: u64,
    pub ending: Phase,
    pub faults: Vec<(Phase, Fault)>,
    pub broken: Vec<String>,
    pub log: Vec<String>,
    /// How everything came to stand, for comparison with another telling.
    pub outcome: String,
    /// Calls that drivers made.
    pub calls: u64,
}

/// A story that goes on longer than this in virtual time has lost its way.
const LONGEST: Duration = Duration::from_hours(3);

/// Mostly only the dead are followed: a driver that says nothing, and is not known to be dead, keeps its place as long.
const LEASE_OF_THE_SILENT: Duration = Duration::from_mins(20);

/// Then the trouble ends, and every story must come to its end.
const FOUL_WEATHER: Duration = Duration::from_hours(1);

/// A story that a seed makes up.
pub fn play(seed: u64, guard: Guard, telling: Telling) -> Story {
    in_virtual_time(async {
        let (universe, plan) = make(seed, guard, telling);
        tell(seed, universe, plan).await
    })
}

/// The first driver's.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// At this call of its own.
    pub call: u64,
    /// The next driver comes so much later.
    pub away: Duration,
}

/// A story in which nothing goes wrong but the build, or that the first driver is killed at one of its calls.
pub fn play_calm(nature: BuildNature, first: Option<Death>) -> Story {
    in_virtual_time(async {
        let (mut universe, mut plan) = make(0, Guard::AllInPlace, Telling::Aloud);
        universe.trouble = 0;
        universe.nature = nature;
        universe.first = first;
        universe.nodes.truncate(3);
        for node in &mut universe.nodes {
            node.cursed = false;
        }
        universe.max_unavailable = 1;
        plan.nodes.truncate(3);
        plan.policy.max_unavailable = 1;
        plan.policy.batch_size = 1;
        plan.hooks = Hooks {
            check: true,
            drain: true,
            warm: true,
            admit: true,
        };
        tell(0, universe, plan).await
    })
}

/// How a driver ends that is asked to at one of its calls, and which nodes are at a step then. Each of its waits for a step is
/// shorter than most steps.
pub fn interrupted_at(call: u64) -> (Ending, Vec<usize>) {
    in_virtual_time(async {
        let (mut universe, plan) = make(0, Guard::AllInPlace, Telling::Silently);
        universe.trouble = 0;
        universe.interrupt_at = Some(call);
        let universe = Rc::new(RefCell::new(universe));
        let limits = Limits {
            step_patience: Duration::from_millis(100),
            install_patience: Duration::from_millis(100),
            ..Limits::default()
        };
        let ending = drive(&hire(&universe, &plan), &plan, &limits)
            .await
            .expect("no trouble");
        let mut u = universe.borrow_mut();
        let at_work = (0..u.nodes.len()).filter(|&i| u.is_at_work(i)).collect();
        (ending, at_work)
    })
}

fn in_virtual_time<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
    runtime.block_on(story)
}

fn make(seed: u64, guard: Guard, telling: Telling) -> (Universe, Plan) {
    let mut dice = Dice(seed);
    let n = 2 + usize::try_from(dice.below(11)).expect("small");
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let start = Timestamp::from_second(START).expect("a constant");
    let nature = match dice.below(10) {
        0..=4 => BuildNature::Good,
        5..=7 => BuildNature::FailsUnderLoad,
        _ => BuildNature::DoesNotAnswer,
    };
    let trouble = if dice.percent(8) { 0 } else { 20 + dice.below(80) };
    let max_unavailable = 1 + usize::try_from(dice.below(3)).expect("small").min(n - 2);
    let cursed = (nature == BuildNature::Good && dice.percent(10)).then(|| dice.below(n as u64));
    let nodes = (0..n)
        .map(|i| SimNode {
            releases: BTreeSet::from([old]),
            current: old,
            running: Some((old, start)),
            steps: Vec::new(),
            settled: 0,
            fence: 0,
            unreachable_until: start,
            busy_until: start,
            down_since: None,
            cursed: cursed == Some(i as u64),
            full_until: start,
            deaths: 0,
            unheard: None,
            installs: BTreeMap::new(),
            restarts: BTreeMap::new(),
        })
        .collect();
    let unguarded = guard == Guard::WithoutMaxUnavailable;
    let plan = Plan {
        upgrade: format!("u{seed}"),
        component: "web".to_owned(),
        version: "2".to_owned(),
        release: new,
        rules: old,
        left_out: BTreeSet::new(),
        pods: BTreeSet::new(),
        nodes: (0..n).map(|i| format!("node{i}")).collect(),
        gates: vec![GatePlan {
            name: "calls".to_owned(),
            deadline: Span::from_secs(300),
            age: Span::from_secs(5),
            neighbour_wait: Span::from_secs(5),
        }],
        policy: Policy {
            max_unavailable: if unguarded { usize::MAX } else { max_unavailable },
            batch_size: 1 + usize::try_from(dice.below(3)).expect("small"),
            baseline: Span::from_secs(10),
            soak: Span::from_secs(30),
            failed_node_budget: 1,
            patience: Span::from_secs(300),
            probe_deadline: Span::from_secs(60),
            min_free_bytes: 1 << 30,
            order: Order::SickFirst,
        },
        hooks: Hooks {
            check: dice.percent(50),
            drain: dice.percent(50),
            warm: dice.percent(50),
            admit: dice.percent(50),
        },
    };
    let dead_are_silent = dice.percent(50);
    let universe = Universe {
        dice,
        guard,
        old,
        new,
        nature,
        trouble,
        telling,
        nodes,
        status: Arc::new(UpgradeStatus::new(start)),
        version: 1,
        wish: Wish::Proceed,
        events: Vec::new(),
        entered: Vec::new(),
        quarantined: None,
        lease: 0,
        shared_trouble: None,
        away: None,
        silence: None,
        max_unavailable,
        faults: Vec::new(),
        broken: Vec::new(),
        log: Vec::new(),
        epoch: tokio::time::Instant::now(),
        kill_after: BTreeMap::new(),
        first: None,
        interrupt_at: None,
        dead_are_silent,
        calls: 0,
        started: tokio::time::Instant::now(),
    };
    (universe, plan)
}

async fn tell(seed: u64, universe: Universe, plan: Plan) -> Story {
    let universe = Rc::new(RefCell::new(universe));
    let limits = Limits {
        look_every: Duration::from_secs([2, 8, 16][usize::try_from(seed % 3).expect("small")]),
        ..Limits::default()
    };
    let mut drivers = FuturesUnordered::new();
    let mut weather = Box::pin(weather(universe.clone()));
    let mut holds = 0_u32;
    let mut wanted = true;
    let late = {
        let mut u = universe.borrow_mut();
        if u.dice.percent(10) {
            u.dice.millis(5_000, 120_000)
        } else {
            Duration::ZERO
        }
    };
    // Asked for, and driven by nobody yet.
    meanwhile(&mut weather, late).await;
    loop {
        let over = {
            let u = universe.borrow();
            u.status.phase.is_final() || u.started.elapsed() > LONGEST || !u.broken.is_empty()
        };
        if over {
            break;
        }
        // A new driver comes when there is none, or when the present one has been silent for its lease's life.
        if wanted {
            let world = hire(&universe, &plan);
            let (plan, limits) = (&plan, &limits);
            drivers.push(async move {
                let ending = drive(&world, plan, limits).await;
                (world.token, ending)
            });
        }
        wanted = true;
        let patience = {
            let mut u = universe.borrow_mut();
            // Mostly only the dead are followed; now and then an impatient operator starts a second driver.
            if u.dice.below(1000) < u.trouble {
                u.dice.millis(5_000, 60_000)
            } else {
                LEASE_OF_THE_SILENT
            }
        };
        tokio::select! {
            biased;
            Some((token, ending)) = drivers.next() => {
                note!(universe.borrow_mut(), "driver {token} ends: {}", brief(&ending));
                // One that was followed ends without leaving a gap.
                wanted = token == universe.borrow().lease;
                match ending {
                    Ok(Ending::Settled(status)) if status.phase.is_held() => {
                        holds += 1;
                        let later = universe.borrow_mut().dice.millis(30_000, 300_000);
                        meanwhile(&mut weather, later).await;
                        operate(&universe, holds);
                    }
                    Ok(Ending::Settled(_) | Ending::Interrupted(_)) | Err(DriveError::Fenced(_) | DriveError::Store(_)) => {}
                    Err(e @ (DriveError::Rollout(_) | DriveError::Node(_))) => universe.borrow_mut().broken.push(format!("rules: {e}")),
                }
            }
            () = &mut weather => {}
            () = died(&universe) => {
                let away = {
                    let mut u = universe.borrow_mut();
                    let of_chance = u.dice.percent(20).then(|| u.dice.millis(60_000, 1_800_000));
                    let away = of_chance.filter(|_| u.trouble > 0).or(u.first.map(|death| death.away));
                    if away.is_some() {
                        u.fault(Fault::NobodyDrives);
                    }
                    away
                };
                if let Some(away) = away {
                    meanwhile(&mut weather, away).await;
                }
            }
            () = tokio::time::sleep(patience) => {
                if patience < LEASE_OF_THE_SILENT {
                    universe.borrow_mut().fault(Fault::SecondDriver);
                }
            }
        }
    }
    let mut u = universe.borrow_mut();
    check::ending(&mut u);
    Story {
        outcome: if u.telling == Telling::Aloud {
            outcome(&u)
        } else {
            String::new()
        },
        calls: u.calls,
        seed,
        ending: u.status.phase,
        faults: std::mem::take(&mut u.faults),
        broken: std::mem::take(&mut u.broken),
        log: std::mem::take(&mut u.log),
    }
}

/// Everything that must not depend on when a driver died.
fn outcome(u: &Universe) -> String {
    let mut lines = vec![format!("{:?} {} {:?}", u.status.phase, u.status.reason, u.quarantined)];
    for (i, (written, node)) in u.status.nodes.iter().zip(&u.nodes).enumerate() {
        lines.push(format!(
            "node{i} {:?} drained {} in batch {} installs {} {} restarts {} {} runs {:?} current {} installed {:?} restarted {:?}",
            written.phase,
            written.drained,
            written.in_batch,
            written.installs,
            written.rollback_installs,
            written.restarts,
            written.rollback_restarts,
            node.running.map(|(build, _)| build.short()),
            node.current.short(),
            node.installs.iter().map(|(build, n)| (build.short(), n)).collect::<Vec<_>>(),
            node.restarts.iter().map(|(build, n)| (build.short(), n)).collect::<Vec<_>>(),
        ));
    }
    for event in &u.events {
        lines.push(format!("{} {:?}", event.reason, event.node));
    }
    lines.join("\n")
}

/// Lets time pass without a driver.
async fn meanwhile(weather: &mut (impl Future<Output = ()> + Unpin), length: Duration) {
    tokio::select! {
        biased;
        () = weather => {}
        () = tokio::time::sleep(length) => {}
    }
}

fn brief(ending: &Result<Ending, DriveError>) -> String {
    match ending {
        Ok(Ending::Settled(s) | Ending::Interrupted(s)) => format!("{:?} {} {}", s.phase, s.reason, s.message),
        Err(e) => e.to_string(),
    }
}

/// Gives the lease to a new driver, with the next token.
fn hire(universe: &Rc<RefCell<Universe>>, plan: &Plan) -> SimWorld {
    let mut u = universe.borrow_mut();
    u.lease += 1;
    let token = u.lease;
    let mortal = u.dice.below(150) < u.trouble;
    let about = 1 << (3 + u.dice.below(10));
    let calls = match u.first {
        Some(Death { call, .. }) if token == 1 => call,
        _ if mortal => 1 + u.dice.below(about),
        _ => u64::MAX,
    };
    u.kill_after.insert(token, calls);
    note!(u, "driver {token} begins");
    let now = u.now();
    drop(u);
    SimWorld {
        universe: universe.clone(),
        token,
        windows: RefCell::new(vec![None; plan.nodes.len()]),
        probing_since: now,
    }
}

/// Resolves soon after the present driver was killed.
async fn died(universe: &Rc<RefCell<Universe>>) {
    let token = universe.borrow().lease;
    while universe.borrow().kill_after.get(&token) != Some(&0) {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

/// An operator looks at what is held: mends what can be mended, mostly goes on, sometimes gives up.
fn operate(universe: &Rc<RefCell<Universe>>, holds: u32) {
    let mut u = universe.borrow_mut();
    let now = u.now();
    // Who looks also starts what a reboot took down: no upgrade does that for nodes that it need not touch.
    u.start_what_is_down();
    if u.wish == Wish::Abort {
        // It goes on by itself.
        return;
    }
    if holds > 6 || u.dice.percent(20) {
        u.fault(Fault::OperatorAborts);
        u.wish = Wish::Abort;
        return;
    }
    u.wish = Wish::Proceed;
    match resume(&u.status, now) {
        Ok(status) => {
            u.status = Arc::new(status);
            u.version += 1;
            note!(u, "operator resumes");
        }
        Err(e) => u.broken.push(format!("rules: {e}")),
    }
}

/// What happens to hosts, and what operators do, at random times.
async fn weather(universe: Rc<RefCell<Universe>>) {
    loop {
        let pause = universe.borrow_mut().dice.millis(5_000, 60_000);
        tokio::time::sleep(pause).await;
        if universe.borrow().started.elapsed() > FOUL_WEATHER {
            universe.borrow_mut().trouble = 0;
            return std::future::pending().await;
        }
        let mut u = universe.borrow_mut();
        let (trouble, n, now) = (u.trouble, u.nodes.len() as u64, u.now());
        if !u.dice.percent(trouble / 4) {
            continue;
        }
        let mut i = usize::try_from(u.dice.below(n)).expect("small");
        // Trouble is where the work is, half of the time.
        if let Some(batch) = u.status.nodes.iter().position(|n| n.in_batch)
            && u.dice.percent(50)
        {
            i = batch;
        }
        match u.dice.below(10) {
            0 => {
                u.fault(Fault::HostReboots);
                u.cut_off(i);
                u.take_down(i);
            }
            1 => {
                u.fault(Fault::HostUnreachable);
                let gone = u.dice.millis(2_000, 400_000);
                u.nodes[i].unreachable_until = u.nodes[i].unreachable_until.max(now + gone);
            }
            2 if u.dice.percent(60) => {
                u.fault(Fault::OperatorPauses);
                u.wish = Wish::Pause;
            }
            3 if u.dice.percent(40) => {
                u.fault(Fault::OperatorAborts);
                u.wish = Wish::Abort;
            }
            4 if u.dice.percent(60) => {
                u.fault(Fault::SharedTrouble);
                let length = u.dice.millis(10_000, 60_000);
                u.shared_trouble = Some((now, now + length));
            }
            5 => {
                if let Some(i) = (0..u.nodes.len()).find(|&i| u.cut_off(i)) {
                    u.fault(Fault::AgentKilled);
                    note!(u, "node{i}: its step is cut off");
                }
            }
            6 => {
                u.fault(Fault::ServiceDies);
                u.take_down(i);
            }
            7 => {
                u.fault(Fault::DiskFull);
                let full = u.dice.millis(10_000, 400_000);
                u.nodes[i].full_until = now + full;
            }
            8 => {
                u.fault(Fault::SensorSilent);
                let length = u.dice.millis(10_000, 500_000);
                u.silence = Some((now, now + length));
            }
            9 => {
                u.fault(Fault::NetworkAway);
                let gone = now + u.dice.millis(2_000, 900_000);
                u.away = Some((now, gone));
                for node in &mut u.nodes {
                    node.unreachable_until = gone;
                }
            }
            _ => {}
        }
    }
}

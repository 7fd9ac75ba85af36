//! One story: a seed makes the nodes, the build, the trouble and the operator, and drivers come and go until the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use stagegate::engine::{DriveError, Ending, Limits, drive};
use stagegate::model::upgrade::{Phase, UpgradeStatus, Wish};
use stagegate::model::values::{Digest, Duration as Span};
use stagegate::rollout::{GatePlan, Hooks, Plan, Policy, resume};

use super::check;
use super::universe::{BuildNature, Dice, Fault, Guard, START, SimNode, SimStepState, SimWorld, Universe};

pub struct Story {
    pub seed: u64,
    pub ending: Phase,
    pub faults: Vec<(Phase, Fault)>,
    pub broken: Vec<String>,
    pub log: Vec<String>,
}

/// A story that goes on longer than this in virtual time has lost its way.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

/// Then the trouble ends, and every story must come to its end.
const FOUL_WEATHER: Duration = Duration::from_secs(3600);

pub fn play(seed: u64, guard: Guard) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
    runtime.block_on(tell(seed, guard))
}

fn make(seed: u64, guard: Guard) -> (Universe, Plan) {
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
            steps: BTreeMap::new(),
            fence: 0,
            unreachable_until: start,
            busy_until: start,
            down_since: None,
            cursed: cursed == Some(i as u64),
            reboots: 0,
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
        nodes: (0..n).map(|i| format!("node{i}")).collect(),
        gates: vec![GatePlan {
            name: "calls".to_owned(),
            deadline: Span::from_secs(300),
            age: Span::from_secs(5),
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
        },
        hooks: Hooks {
            check: dice.percent(50),
            drain: dice.percent(50),
            warm: dice.percent(50),
            admit: dice.percent(50),
        },
    };
    let status = UpgradeStatus::new(start);
    let universe = Universe {
        dice,
        guard,
        old,
        new,
        nature,
        trouble,
        nodes,
        status,
        version: 1,
        wish: Wish::Proceed,
        events: Vec::new(),
        entered: Vec::new(),
        quarantined: None,
        lease: 0,
        shared_trouble: None,
        max_unavailable,
        faults: Vec::new(),
        broken: Vec::new(),
        log: Vec::new(),
        epoch: tokio::time::Instant::now(),
        kill_after: BTreeMap::new(),
        started: tokio::time::Instant::now(),
    };
    (universe, plan)
}

async fn tell(seed: u64, guard: Guard) -> Story {
    let (universe, plan) = make(seed, guard);
    let universe = Rc::new(RefCell::new(universe));
    let limits = Limits::default();
    let mut drivers = FuturesUnordered::new();
    let mut weather = Box::pin(weather(universe.clone()));
    let mut holds = 0_u32;
    let mut wanted = true;
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
                Duration::from_secs(1200)
            }
        };
        tokio::select! {
            biased;
            Some((token, ending)) = drivers.next() => {
                universe.borrow_mut().note(format!("driver {token} ends: {}", brief(&ending)));
                // One that was followed ends without leaving a gap.
                wanted = token == universe.borrow().lease;
                match ending {
                    Ok(Ending::Settled(status)) if status.phase.is_held() => {
                        holds += 1;
                        operate(&universe, holds).await;
                    }
                    Ok(Ending::Settled(_) | Ending::Interrupted(_)) | Err(DriveError::Fenced(_) | DriveError::Store(_)) => {}
                    Err(e @ DriveError::Rollout(_)) => universe.borrow_mut().broken.push(format!("rules: {e}")),
                }
            }
            () = &mut weather => {}
            () = died(&universe) => {}
            () = tokio::time::sleep(patience) => {}
        }
    }
    let mut u = universe.borrow_mut();
    check::ending(&mut u);
    Story {
        seed,
        ending: u.status.phase,
        faults: std::mem::take(&mut u.faults),
        broken: std::mem::take(&mut u.broken),
        log: std::mem::take(&mut u.log),
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
    let calls = if mortal { 1 + u.dice.below(400) } else { u64::MAX };
    u.kill_after.insert(token, calls);
    u.note(format!("driver {token} begins"));
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
    let was_mortal = universe.borrow().kill_after.get(&token).is_some_and(|n| *n != u64::MAX);
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        if was_mortal && universe.borrow().kill_after.get(&token) == Some(&u64::MAX) {
            return;
        }
    }
}

/// An operator looks at what is held, after a while: mostly goes on, sometimes gives up.
async fn operate(universe: &Rc<RefCell<Universe>>, holds: u32) {
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut u = universe.borrow_mut();
    let now = u.now();
    // Who looks also starts what a reboot took down: no upgrade does that for nodes that it need not touch.
    for i in 0..u.nodes.len() {
        u.settle(i);
        let node = &mut u.nodes[i];
        if node.running.is_none() {
            node.running = Some((node.current, now));
            node.down_since = None;
        }
    }
    if holds > 6 || u.dice.percent(20) {
        u.fault(Fault::OperatorAborts);
        u.wish = Wish::Abort;
        return;
    }
    u.wish = Wish::Proceed;
    match resume(&u.status, now) {
        Ok(status) => {
            u.status = status;
            u.version += 1;
            u.note("operator resumes".to_owned());
        }
        Err(e) => u.broken.push(format!("rules: {e}")),
    }
}

/// What happens to hosts, and what operators do, at random times.
async fn weather(universe: Rc<RefCell<Universe>>) {
    loop {
        let pause = universe.borrow_mut().dice.millis(5_000, 60_000);
        tokio::time::sleep(pause).await;
        let mut u = universe.borrow_mut();
        if u.started.elapsed() > FOUL_WEATHER {
            drop(u);
            std::future::pending::<()>().await;
            return;
        }
        let (trouble, n, now) = (u.trouble, u.nodes.len() as u64, u.now());
        if !u.dice.percent(trouble / 4) {
            continue;
        }
        let i = usize::try_from(u.dice.below(n)).expect("small");
        match u.dice.below(5) {
            0 => {
                u.fault(Fault::HostReboots);
                u.settle(i);
                let node = &mut u.nodes[i];
                node.reboots += 1;
                node.running = None;
                node.down_since.get_or_insert(now);
                node.busy_until = now;
                for step in node.steps.values_mut() {
                    if matches!(step.state, SimStepState::Begun | SimStepState::Queued) {
                        step.state = SimStepState::Died;
                    }
                }
            }
            1 => {
                u.fault(Fault::HostUnreachable);
                let gone = u.dice.millis(2_000, 400_000);
                u.nodes[i].unreachable_until = now + gone;
            }
            2 if u.dice.percent(30) => {
                u.fault(Fault::OperatorPauses);
                u.wish = Wish::Pause;
            }
            3 if u.dice.percent(20) => {
                u.fault(Fault::OperatorAborts);
                u.wish = Wish::Abort;
            }
            4 if u.dice.percent(30) => {
                u.fault(Fault::SharedTrouble);
                let length = u.dice.millis(10_000, 60_000);
                u.shared_trouble = Some((now, now + length));
            }
            _ => {}
        }
    }
}

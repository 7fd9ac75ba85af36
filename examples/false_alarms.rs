//! What the share gate promises, measured on simulated calls; prints the tables of docs/gates.md.
//!
//! `cargo run --release --example false_alarms`

use std::num::NonZeroU32;
use std::thread::ScopedJoinHandle;

use stagegate::gates::simulation::{BadCall, Rates, Traffic, median_seconds_to_fail, seconds_to_see_a_hang, upgrades};
use stagegate::gates::{FAIL_BLOCK, GateError, ShareGate, plan, split_alpha};

const UPGRADES: u32 = 2000;
const NODES: u32 = 3;
/// Five minutes, the shipped gate's deadline.
const CALLS: u64 = 1500;
const RATE_PER_S: f64 = 5.0;
const AGE_US: i64 = 5_000_000;
const LIMIT: f64 = 0.02;
const ALPHA: f64 = 0.01;
const BETA: f64 = 0.05;
const SEED: u64 = 20_260_101;
/// Calls that a Fail bets on at a time.
const BLOCKS: [u32; 3] = [1, FAIL_BLOCK.get(), 50];

const INDEPENDENT: Traffic = Traffic {
    share: 0.0,
    correlation: 0.0,
    rate_per_s: RATE_PER_S,
    bad: BadCall::Hangs,
};

fn main() -> Result<(), GateError> {
    prices()?;
    hangs()?;
    shares()?;
    false_fails()?;
    false_passes()
}

fn prices() -> Result<(), GateError> {
    println!(
        "Price of a pass, on clean calls at {RATE_PER_S} calls/s, beta {}:\n",
        percent(BETA)
    );
    println!("| limit | calls | time |\n|---|---|---|");
    for limit in [0.01, 0.02, 0.05] {
        let gate = gate(limit, FAIL_BLOCK.get())?.into();
        let seconds = plan::seconds_to_pass(&gate, RATE_PER_S).unwrap_or(f64::INFINITY);
        println!(
            "| {} | {} | {seconds:.0} s |",
            percent(limit),
            plan::calls_to_pass(&gate)
        );
    }
    Ok(())
}

fn hangs() -> Result<(), GateError> {
    println!("\nFrom the first call that hangs to the Fail, all calls hanging from then on:\n");
    heading("clean calls before");
    for onset in [0, 100, 1000, 10_000] {
        print!("| {onset} |");
        for block in BLOCKS {
            print!(
                " {} |",
                time(seconds_to_see_a_hang(&gate(LIMIT, block)?, onset, RATE_PER_S))
            );
        }
        println!();
    }
    Ok(())
}

fn shares() -> Result<(), GateError> {
    println!(
        "\nFrom the first call to the Fail, a share of all calls hanging, independent of each other, median of 200 nodes:\n"
    );
    heading("share that hangs");
    for share in [0.05, 0.1, 0.2, 0.5] {
        print!("| {} |", percent(share));
        let traffic = Traffic { share, ..INDEPENDENT };
        for block in BLOCKS {
            print!(
                " {} |",
                time(median_seconds_to_fail(&gate(LIMIT, block)?, &traffic, 200, CALLS, SEED))
            );
        }
        println!();
    }
    Ok(())
}

fn false_fails() -> Result<(), GateError> {
    println!(
        "\nUpgrades of {NODES} nodes with a Fail, {UPGRADES} upgrades a cell, {CALLS} calls a node, alpha {}:\n",
        percent(ALPHA)
    );
    println!(
        "| calls | true share, times the limit | block 1 | block {} (shipped) | block {} |\n|---|---|---|---|---|",
        BLOCKS[1], BLOCKS[2]
    );
    let bad = BadCall::RefusedWhileGoodOnesAreSlow;
    for (name, traffic) in kinds()
        .into_iter()
        .chain([("independent, bad ones known first", Traffic { bad, ..INDEPENDENT })])
    {
        for multiple in [0.0, 0.3, 1.0] {
            print!("| {name} | {multiple} |");
            let traffic = Traffic {
                share: multiple * LIMIT,
                ..traffic
            };
            let runs = BLOCKS.map(|block| (gate(LIMIT, block), traffic));
            for Rates { upgrades, failed, .. } in at_once(runs)? {
                print!(" {} |", part(failed, upgrades));
            }
            println!();
        }
    }
    Ok(())
}

fn false_passes() -> Result<(), GateError> {
    println!(
        "\nNodes with a Pass · upgrades whose {NODES} nodes all have one, of the same {UPGRADES} a cell, beta {}:\n",
        percent(BETA)
    );
    println!("| true share, times the limit | independent | AR(1), ρ = 0.8 | AR(1), ρ = 0.95 |\n|---|---|---|---|");
    for multiple in [0.0, 0.3, 1.0, 2.0, 3.0, 5.0] {
        print!("| {multiple} |");
        let runs = kinds().map(|(_, traffic)| {
            (
                gate(LIMIT, FAIL_BLOCK.get()),
                Traffic {
                    share: multiple * LIMIT,
                    ..traffic
                },
            )
        });
        for Rates {
            upgrades,
            nodes,
            passed,
            all_passed,
            ..
        } in at_once(runs)?
        {
            print!(" {} · {} |", part(passed, nodes), part(all_passed, upgrades));
        }
        println!();
    }
    Ok(())
}

fn kinds() -> [(&'static str, Traffic); 3] {
    let correlated = |correlation| Traffic {
        correlation,
        ..INDEPENDENT
    };
    [
        ("independent", INDEPENDENT),
        ("AR(1), ρ = 0.8", correlated(0.8)),
        ("AR(1), ρ = 0.95", correlated(0.95)),
    ]
}

/// Each run on a thread of its own; every one begins at the same seed, so the numbers do not depend on the machine.
fn at_once<const N: usize>(runs: [(Result<ShareGate, GateError>, Traffic); N]) -> Result<Vec<Rates>, GateError> {
    std::thread::scope(|scope| {
        let threads = runs
            .map(|(gate, traffic)| scope.spawn(move || Ok(upgrades(&gate?, &traffic, UPGRADES, NODES, CALLS, SEED))));
        let joined = threads.into_iter().map(ScopedJoinHandle::join);
        joined
            .map(|rates| rates.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// A gate that bets against the node in blocks of so many calls.
fn gate(limit: f64, block: u32) -> Result<ShareGate, GateError> {
    let tests = NonZeroU32::new(NODES).ok_or(GateError::Zero("nodes"))?;
    let block = NonZeroU32::new(block).ok_or(GateError::Zero("block"))?;
    let gate = ShareGate::new(limit, AGE_US, split_alpha(ALPHA, tests), BETA)?;
    Ok(gate.with_blocks(block, NonZeroU32::MIN))
}

fn heading(first: &str) {
    println!(
        "| {first} | block 1 | block {} (shipped) | block {} |\n|---|---|---|---|",
        BLOCKS[1], BLOCKS[2]
    );
}

fn time(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds:.1} s"))
}

fn percent(share: f64) -> String {
    format!("{} %", share * 100.0)
}

fn part(part: u32, whole: u32) -> String {
    format!("{:.2} %", 100.0 * f64::from(part) / f64::from(whole))
}

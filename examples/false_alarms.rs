//! What the share gate promises, measured on simulated calls; prints the tables of docs/gates.md.
//!
//! `cargo run --release --example false_alarms`

use std::num::NonZeroU32;

use stagegate::gates::simulation::{BadCall, Rates, Traffic, seconds_to_see_a_hang, upgrades};
use stagegate::gates::{GateError, ShareGate, plan, split_alpha};

const UPGRADES: u32 = 2000;
const NODES: u32 = 3;
const CALLS: u64 = 1500;
const RATE_PER_S: f64 = 5.0;
const AGE_US: i64 = 5_000_000;
const LIMIT: f64 = 0.02;
const ALPHA: f64 = 0.01;
const BETA: f64 = 0.05;
const SEED: u64 = 20_260_101;
const BLOCKS: [u32; 3] = [1, 25, 100];

fn main() -> Result<(), GateError> {
    println!(
        "Price of a pass on clean calls at {RATE_PER_S} calls/s, beta {}:\n",
        percent(BETA)
    );
    println!("| limit | calls | time |\n|---|---|---|");
    for limit in [0.01, 0.02, 0.05] {
        let gate = gate(limit, 1)?.into();
        let seconds = plan::seconds_to_pass(&gate, RATE_PER_S).unwrap_or(f64::INFINITY);
        println!(
            "| {} | {} | {seconds:.0} s |",
            percent(limit),
            plan::calls_to_pass(&gate)
        );
    }

    println!("\nFrom the first call that hangs to the Fail, all calls hanging from then on:\n");
    println!("| clean calls before | block 1 | block 25 | block 100 |\n|---|---|---|---|");
    for onset in [0, 100, 1000, 10_000] {
        print!("| {onset} |");
        for block in BLOCKS {
            match seconds_to_see_a_hang(&gate(LIMIT, block)?, onset, RATE_PER_S) {
                Some(seconds) => print!(" {seconds:.1} s |"),
                None => print!(" never |"),
            }
        }
        println!();
    }

    println!("\nUpgrades with a Fail · nodes with a Pass, {UPGRADES} upgrades a cell:\n");
    println!("| calls | true share, times the limit | block 1 | block 25 | block 100 |\n|---|---|---|---|---|");
    let hangs = BadCall::Hangs;
    let kinds = [
        ("independent", 0.0, hangs),
        (
            "independent, bad ones known first",
            0.0,
            BadCall::RefusedWhileGoodOnesAreSlow,
        ),
        ("AR(1), ρ = 0.8", 0.8, hangs),
        ("AR(1), ρ = 0.95", 0.95, hangs),
    ];
    for (name, correlation, bad) in kinds {
        for multiple in [0.0, 0.1, 0.3, 1.0] {
            let traffic = Traffic {
                share: multiple * LIMIT,
                correlation,
                rate_per_s: RATE_PER_S,
                bad,
            };
            print!("| {name} | {multiple} |");
            for rates in in_all_blocks(&traffic)? {
                let Rates {
                    upgrades,
                    failed,
                    nodes,
                    passed,
                } = rates;
                print!(" {} · {} |", share(failed, upgrades), share(passed, nodes));
            }
            println!();
        }
    }
    Ok(())
}

/// One after the other, but on as many cores.
fn in_all_blocks(traffic: &Traffic) -> Result<Vec<Rates>, GateError> {
    let gates = BLOCKS.map(|block| gate(LIMIT, block));
    std::thread::scope(|scope| {
        let runs = gates.map(|gate| scope.spawn(move || Ok(upgrades(&gate?, traffic, UPGRADES, NODES, CALLS, SEED))));
        runs.into_iter()
            .map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn gate(limit: f64, block: u32) -> Result<ShareGate, GateError> {
    let tests = NonZeroU32::new(NODES).ok_or(GateError::Zero("nodes"))?;
    let block = NonZeroU32::new(block).ok_or(GateError::Zero("block"))?;
    Ok(ShareGate::new(limit, AGE_US, split_alpha(ALPHA, tests), BETA)?.with_block(block))
}

fn percent(share: f64) -> String {
    format!("{} %", share * 100.0)
}

fn share(part: u32, whole: u32) -> String {
    format!("{:.2} %", 100.0 * f64::from(part) / f64::from(whole))
}

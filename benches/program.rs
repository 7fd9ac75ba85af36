//! What the program itself costs: `cargo bench --bench program` prints the figures of docs/benchmarks.md. Nothing else should
//! run on the machine meanwhile.

#[allow(dead_code, reason = "each benchmark uses its part")]
mod field;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use field::{ENVIRONMENT, Field, spread};
use jiff::Timestamp;

const NODES: u16 = 5;
const RUNS: usize = 50;
/// How long the driver is watched while it waits.
const WATCH: Duration = Duration::from_secs(30);

fn main() {
    let field = Field::new(NODES, "20ms", "0s", |_| String::new());
    field.run(&["up", ENVIRONMENT]);
    for round in 0..3 {
        overhead(&field, ["2", "1"][round % 2]);
    }
    for arguments in [&["--help"][..], &["status", ENVIRONMENT]] {
        start(&field, arguments);
    }
    drop(field);
    waiting();
}

/// An upgrade's time by the clock, less that in which a step ran on any node by the nodes' own journals, for each node.
fn overhead(field: &Field, version: &str) {
    let lines = |i: u16| {
        let journal = field.path(&format!("state/environments/{ENVIRONMENT}/nodes/n{i}/journal"));
        let text = std::fs::read_to_string(journal).expect("a journal");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before: Vec<usize> = (0..NODES).map(|i| lines(i).len()).collect();
    let began = Instant::now();
    field.run(&["upgrade", ENVIRONMENT, "--build", &format!("web={version}")]);
    let wall = began.elapsed().as_secs_f64();
    let mut steps: Vec<(Timestamp, Timestamp)> = Vec::new();
    for i in 0..NODES {
        let mut started: Option<Timestamp> = None;
        for line in &lines(i)[before[usize::from(i)]..] {
            let at: Timestamp = line
                .split(' ')
                .next()
                .and_then(|t| t.parse().ok())
                .expect("a time first");
            if line.ends_with(" start") {
                started = Some(at);
            } else if let Some(at_start) = started.take() {
                steps.push((at_start, at));
            }
        }
    }
    let steps = covered(steps);
    println!(
        "upgrade of {NODES} local nodes to {version}: {wall:.2} s, in {steps:.2} s of which a step ran on a node: {:.0} ms a node are ours",
        (wall - steps) * 1e3 / f64::from(NODES)
    );
}

/// Seconds that lie in any of these spans: the next node's install runs beside what is done on this one.
fn covered(mut spans: Vec<(Timestamp, Timestamp)>) -> f64 {
    spans.sort();
    let (mut sum, mut until) = (0.0, Timestamp::MIN);
    for (from, to) in spans {
        let from = from.max(until);
        sum += to.duration_since(from).as_secs_f64().max(0.0);
        until = until.max(to);
    }
    sum
}

/// From start to end of a command.
fn start(field: &Field, arguments: &[&str]) {
    let times = (0..RUNS).map(|_| {
        let began = Instant::now();
        field.run(arguments);
        began.elapsed().as_secs_f64() * 1e3
    });
    let (least, middle, most) = spread(times.collect());
    println!(
        "stagegate {}: {middle:.1} ms ({least:.1} to {most:.1}, {RUNS} runs)",
        arguments.join(" ")
    );
}

/// Memory and CPU of a driver that waits in Soak, probing 3 nodes once a second and sending no traffic.
fn waiting() {
    let field = Field::new(3, "1s", "5m", |_| String::new());
    field.run(&["up", ENVIRONMENT]);
    let mut upgrade = field.stagegate(&["upgrade", ENVIRONMENT, "--build", "web=2"]);
    let mut driver = Driver(
        upgrade
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs"),
    );
    while !String::from_utf8_lossy(&field.run(&["get", "upgrades", "-o", "json"]).stdout).contains("\"Soak\"") {
        assert!(driver.0.try_wait().expect("ours").is_none(), "it ended before Soak");
        std::thread::sleep(Duration::from_millis(200));
    }
    let before = driver.ticks();
    std::thread::sleep(WATCH);
    // proc_pid_stat(5) counts in ticks of 1/100 s, so this is per cent times the seconds.
    #[allow(clippy::cast_precision_loss)]
    let share = (driver.ticks() - before) as f64 / WATCH.as_secs_f64();
    println!(
        "waiting in Soak: {} KiB resident, {share:.2} % of a core over {} s",
        driver.resident_kib(),
        WATCH.as_secs()
    );
    field.run(&["abort", ENVIRONMENT]);
}

struct Driver(Child);

impl Driver {
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let after_name = &stat[stat.rfind(')').expect("a name") + 2..];
        // Its own and its children's: user, system, and both of those that ended.
        after_name
            .split(' ')
            .skip(11)
            .take(4)
            .map(|t| t.parse::<u64>().expect("a number"))
            .sum()
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("Linux");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

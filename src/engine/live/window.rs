//! One gate on one node over one window of time: its samples, its test, and the record of what it decided.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::gates::{self, Evidence, Gate, GateTest};
use crate::model::environment::{self, Probe};
use crate::model::sample::Sample;
use crate::model::upgrade::Verdict;
use crate::model::values::Duration;
use crate::rollout::Reading;

/// Samples of a window at most: over two hours at 5 calls/s, about 10 MB a gate and node. A window that is full begins
/// anew, since a verdict that its record cannot show again is none (I6).
const MOST_SAMPLES: usize = 40_000;

/// A gate of the environment, made ready for every node alike.
#[derive(Debug, Clone)]
pub(super) struct GateSetup {
    pub(super) name: String,
    pub(super) signal: String,
    pub(super) gate: Gate,
    /// For people: `2% over 5s`.
    pub(super) limit: String,
    /// A call that is older is bad.
    pub(super) age: Duration,
}

impl GateSetup {
    /// The gates of a component for an upgrade over `nodes` nodes: alpha is split over all tests of the upgrade.
    pub(super) fn all(component: &environment::Component, nodes: usize) -> Result<Vec<GateSetup>, String> {
        let tests = u32::try_from(component.gates.len() * nodes).unwrap_or(u32::MAX);
        let tests = std::num::NonZeroU32::new(tests).unwrap_or(std::num::NonZeroU32::MIN);
        component
            .gates
            .iter()
            .map(|gate| Self::new(component, gate, tests).map_err(|why| format!("gate {}: {why}", gate.name)))
            .collect()
    }

    fn new(
        component: &environment::Component,
        gate: &environment::Gate,
        tests: std::num::NonZeroU32,
    ) -> Result<Self, String> {
        if let Some(share) = &gate.share {
            let alpha = gates::split_alpha(gate.alpha.fraction(), tests);
            let test = gates::ShareGate::new(
                share.limit.fraction(),
                share.over.as_micros(),
                alpha,
                gate.beta.fraction(),
            )
            .map_err(|e| e.to_string())?;
            return Ok(Self {
                name: gate.name.clone(),
                signal: share.of.clone(),
                gate: test.into(),
                limit: format!("{} over {}", share.limit, share.over),
                age: share.over,
            });
        }
        let name = gate.probe.as_deref().ok_or("it has neither `share` nor `probe`")?;
        let probe = component
            .probes
            .iter()
            .find(|p| p.name == name)
            .ok_or_else(|| format!("there is no probe `{name}`"))?;
        Ok(Self {
            name: gate.name.clone(),
            signal: format!("probe/{name}"),
            gate: probe_gate(probe).into(),
            limit: format!("{} bad probes in a row", probe.failure_threshold),
            age: probe.timeout,
        })
    }
}

fn probe_gate(probe: &Probe) -> gates::ProbeGate {
    let at_least_one = |n: u32| std::num::NonZeroU32::new(n).unwrap_or(std::num::NonZeroU32::MIN);
    gates::ProbeGate {
        failure_threshold: at_least_one(probe.failure_threshold),
        success_threshold: at_least_one(probe.success_threshold),
    }
}

/// The samples since a moment, and what the gate makes of them.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) setup: GateSetup,
    pub(super) since_us: i64,
    test: GateTest,
    samples: Vec<Sample>,
    /// Why the sensor saw nothing, last.
    pub(super) trouble: Option<String>,
    /// The verdict that is on record, and where.
    record: Option<(Verdict, String)>,
}

/// Where records go, and what they are about.
pub(super) struct Record<'a> {
    /// The home's directory: paths in a status are relative to it.
    pub(super) root: &'a Path,
    /// The upgrade's directory of evidence.
    pub(super) directory: PathBuf,
    pub(super) node: &'a str,
    pub(super) build: &'a str,
}

impl Window {
    pub(super) fn new(setup: GateSetup, since_us: i64) -> Self {
        Self {
            test: GateTest::new(&setup.gate, since_us),
            setup,
            since_us,
            samples: Vec::new(),
            trouble: None,
            record: None,
        }
    }

    /// Counts from here on only: what came before had holes that we made ourselves, or is too much to keep.
    pub(super) fn begin_anew(&mut self, since_us: i64) {
        *self = Self::new(self.setup.clone(), since_us);
    }

    pub(super) fn push(&mut self, sample: &Sample) {
        if sample.intended_us < self.since_us {
            return;
        }
        if self.samples.len() == MOST_SAMPLES {
            self.begin_anew(sample.intended_us);
        }
        self.test.push(sample);
        self.samples.push(sample.clone());
        self.trouble = None;
    }

    pub(super) fn read(&mut self, now_us: i64) -> gates::Reading {
        self.test.read(now_us)
    }

    /// The reading for the decision; a verdict is on record before anybody acts on it.
    pub(super) fn reading(&mut self, now_us: i64, record: &Record<'_>) -> Reading {
        let seen = self.read(now_us);
        let verdict = seen.verdict;
        let mut reason = self.words(&seen);
        let mut evidence = None;
        if matches!(verdict, Verdict::Pass | Verdict::Fail) {
            match self.recorded(&seen, record) {
                Ok(path) => evidence = Some(path),
                Err(why) => {
                    // A verdict without its record is not one that anybody may act on.
                    reason = format!("{reason}; its evidence could not be written: {why}");
                    return Reading {
                        verdict: Verdict::Undecided,
                        ..words_only(&seen, reason)
                    };
                }
            }
        }
        Reading {
            evidence,
            ..words_only(&seen, reason)
        }
    }

    fn recorded(&mut self, seen: &gates::Reading, record: &Record<'_>) -> Result<String, String> {
        if let Some((on_record, path)) = &self.record
            && *on_record == seen.verdict
        {
            return Ok(path.clone());
        }
        let taken = Evidence::new(
            self.setup.gate.clone(),
            record.node,
            record.build,
            self.since_us,
            &self.samples,
            seen,
        );
        let name = format!("{}-{}-{}.jsonl", record.node, self.setup.name, seen.at_us / 1_000_000);
        let file = record.directory.join(&name);
        write_whole(&file, &taken.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        let path = file
            .strip_prefix(record.root)
            .unwrap_or(&file)
            .to_string_lossy()
            .into_owned();
        self.record = Some((seen.verdict, path.clone()));
        Ok(path)
    }

    fn words(&self, seen: &gates::Reading) -> String {
        let gates::Counts {
            ok: _,
            late,
            refused,
            wrong,
            lost,
            shed,
        } = seen.counts;
        let mut kinds = Vec::new();
        for (n, word) in [
            (late, format!("later than {}", self.setup.age)),
            (refused, "refused".to_owned()),
            (wrong, "wrong answers".to_owned()),
            (lost, "acknowledged but lost".to_owned()),
            (shed, "not sent, too many hang".to_owned()),
        ] {
            if n > 0 {
                kinds.push(format!("{n} {word}"));
            }
        }
        let counted = if kinds.is_empty() {
            format!("{} of {} calls bad", seen.bad, seen.n)
        } else {
            format!("{} of {} calls bad ({})", seen.bad, seen.n, kinds.join(", "))
        };
        let limit = &self.setup.limit;
        match seen.verdict {
            Verdict::NoData => match &self.trouble {
                Some(why) => format!("no sample: {why}"),
                None => "no sample yet".to_owned(),
            },
            Verdict::Pass | Verdict::Fail => format!("{counted}; limit {limit}"),
            Verdict::Undecided => match seen.expected_calls_to_pass {
                Some(more) => format!("{counted}; limit {limit}; {more} more clean calls pass it"),
                None => format!("{counted}; limit {limit}"),
            },
        }
    }
}

fn words_only(seen: &gates::Reading, reason: String) -> Reading {
    let time = |us: Option<i64>| us.and_then(|us| Timestamp::from_microsecond(us).ok());
    Reading {
        verdict: seen.verdict,
        reason,
        bad: seen.bad,
        last_bad_at: time(seen.last_bad_us),
        onset_at: time(seen.onset_us),
        decided_at: time(seen.decided_us),
        evidence: None,
    }
}

/// Writes a file for us alone, whole or not at all, and on the disk when this returns.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(parent) = file.parent() {
        crate::home::make_private(parent)?;
    }
    let partial = file.with_extension("partial");
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&partial, file)
}

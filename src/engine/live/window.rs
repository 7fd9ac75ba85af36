//! One gate on one node over one window of time: its samples, its test, and the record of what it decided.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::gates::evidence::MOST_SAMPLES;
use crate::gates::{self, Evidence, GateTest, StatedGate};
use crate::model::sample::{Outcome, Sample};
use crate::model::upgrade::Verdict;
use crate::rollout::{Blind, Reading};
use crate::signals::{Afterwards, LateEnd, SensorTrouble, excerpt};

/// Characters that a reason quotes of an answer: its status and the begin of what it says.
const QUOTED: usize = 200;

/// The samples since a moment, and what the gate makes of them.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) setup: StatedGate,
    pub(super) since_us: i64,
    test: GateTest,
    samples: Vec<Sample>,
    late: LateCalls,
    /// The sensor has seen nothing since.
    blind: Option<Blind>,
    /// The verdict that is on record, and where.
    record: Option<(Verdict, String)>,
    /// The last answer that was wrong, and why the last call was refused, in their own words.
    wrong: Option<String>,
    refused: Option<String>,
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
    pub(super) fn new(setup: StatedGate, since_us: i64) -> Self {
        Self {
            test: GateTest::new(&setup.gate, since_us),
            setup,
            since_us,
            samples: Vec::new(),
            late: LateCalls::default(),
            blind: None,
            record: None,
            wrong: None,
            refused: None,
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
            // A verdict that its record cannot show again is none (I6).
            self.begin_anew(sample.intended_us);
        }
        match &sample.outcome {
            Outcome::Late => {
                self.late.open.insert(sample.seq);
            }
            Outcome::Wrong { why } => self.wrong = Some(excerpt(why, QUOTED)),
            Outcome::Refused { why } => self.refused = Some(excerpt(why, QUOTED)),
            Outcome::Ok | Outcome::Lost { .. } | Outcome::Shed => {}
        }
        self.test.push(sample);
        self.samples.push(sample.clone());
        self.blind = None;
    }

    /// The sensor could not see.
    pub(super) fn trouble(&mut self, trouble: &SensorTrouble) {
        if trouble.at_us < self.since_us {
            return;
        }
        let why = trouble.why.clone();
        let Ok(at) = Timestamp::from_microsecond(trouble.at_us) else {
            return;
        };
        match &mut self.blind {
            Some(blind) => (blind.last, blind.why) = (at, why),
            None => {
                self.blind = Some(Blind {
                    since: at,
                    last: at,
                    why,
                });
            }
        }
    }

    /// What became of a late call: for people. The gate has counted it.
    pub(super) fn afterwards(&mut self, afterwards: &Afterwards) {
        self.late.end(afterwards);
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
                        blind: self.blind.clone(),
                        ..words_only(&seen, reason)
                    };
                }
            }
        }
        Reading {
            evidence,
            blind: self.blind.clone(),
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
        // What a log or a query says may be anybody's words; of answers the secrets that we know are taken out.
        let is_ours = self.setup.signal.starts_with("traffic/");
        let as_said = |said: &Option<String>| match said {
            Some(said) if is_ours => format!(", as {said}"),
            Some(_) | None => String::new(),
        };
        let mut kinds = Vec::new();
        for (n, word) in [
            (late, format!("later than {}{}", self.setup.age, self.late)),
            (refused, format!("refused{}", as_said(&self.refused))),
            (wrong, format!("wrong answers{}", as_said(&self.wrong))),
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
            Verdict::NoData => match &self.blind {
                Some(blind) => format!("no sample: {}", blind.why),
                None => "no sample yet".to_owned(),
            },
            Verdict::Pass | Verdict::Fail => format!("{counted}; limit {limit}"),
            Verdict::Undecided => match (
                self.blind.as_ref().filter(|blind| blind.lasts()),
                seen.expected_calls_to_pass,
            ) {
                (Some(blind), _) => format!("{counted}; limit {limit}; no sample since: {}", blind.why),
                (None, Some(more)) => format!("{counted}; limit {limit}; {more} more clean calls pass it"),
                (None, None) => format!("{counted}; limit {limit}"),
            },
        }
    }
}

/// Late calls, told apart once they have ended: slow is an answer that came, timed out one that never did.
#[derive(Debug, Default)]
struct LateCalls {
    /// By their number.
    open: BTreeSet<u64>,
    slow: u64,
    slowest_ms: f64,
    timed_out: u64,
}

impl LateCalls {
    fn end(&mut self, Afterwards { seq, after_ms, end, .. }: &Afterwards) {
        if !self.open.remove(seq) {
            return;
        }
        match end {
            LateEnd::Answered(_) => {
                self.slow += 1;
                self.slowest_ms = self.slowest_ms.max(*after_ms);
            }
            LateEnd::GivenUp => self.timed_out += 1,
        }
    }
}

impl fmt::Display for LateCalls {
    /// `: 3 slow (up to 50.2 s), 2 timed out, 1 still waits`; nothing when there is nothing to tell apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.slow > 0 {
            parts.push(format!("{} slow (up to {:.1} s)", self.slow, self.slowest_ms / 1000.0));
        }
        if self.timed_out > 0 {
            parts.push(format!("{} timed out", self.timed_out));
        }
        if parts.is_empty() {
            return Ok(());
        }
        if !self.open.is_empty() {
            parts.push(format!("{} unanswered yet", self.open.len()));
        }
        write!(f, ": {}", parts.join(", "))
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
        blind: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        let component = serde_json::from_value(serde_json::json!({
            "name": "server",
            "nodes": [{"name": "n1"}],
            "traffic": [{"name": "work", "rate": 5, "requests": []}],
            "gates": [{"name": "work", "share": {"of": "traffic/work", "over": "5s", "limit": "2%"}}],
        }))
        .expect("a component");
        Window::new(StatedGate::all(&component, 1).expect("a gate").remove(0), 0)
    }

    fn sample(seq: u64, outcome: Outcome) -> Sample {
        Sample {
            signal: "traffic/work".into(),
            seq,
            node: "n1".into(),
            build: String::new(),
            intended_us: 0,
            resolved_us: 5_000_000,
            outcome,
        }
    }

    #[test]
    fn a_sensor_is_blind_from_its_first_trouble_to_its_next_sample() {
        let mut window = window();
        let trouble = |at_us, why: &str| SensorTrouble {
            signal: "traffic/work".into(),
            node: "n1".into(),
            at_us,
            why: why.into(),
        };
        window.push(&sample(0, Outcome::Ok));
        window.trouble(&trouble(6_000_000, "connection reset"));
        let seen = window.read(8_000_000);
        assert!(window.words(&seen).ends_with("calls pass it"), "a blink");
        window.trouble(&trouble(11_000_000, "connection refused"));
        let blind = window.blind.clone().expect("it cannot see");
        let times = (blind.since.as_second(), blind.last.as_second());
        assert_eq!((times, blind.why.as_str()), ((6, 11), "connection refused"));
        let seen = window.read(12_000_000);
        assert!(window.words(&seen).ends_with("no sample since: connection refused"));
        window.push(&sample(1, Outcome::Ok));
        assert_eq!(window.blind, None);
    }

    #[test]
    fn late_calls_are_told_apart_once_they_have_ended() {
        let mut window = window();
        let words = |window: &mut Window| {
            let seen = window.read(60_000_000);
            window.words(&seen).split("; limit").next().map(str::to_owned)
        };
        for seq in 0..4 {
            window.push(&sample(seq, Outcome::Late));
        }
        assert_eq!(
            words(&mut window).as_deref(),
            Some("4 of 4 calls bad (4 later than 5s)")
        );
        let ends = [
            (0, 50_235.0, LateEnd::Answered(Outcome::Ok)),
            (1, 60_000.0, LateEnd::GivenUp),
            (2, 9_000.0, LateEnd::Answered(Outcome::Ok)),
            // Of an earlier window.
            (9, 9_000.0, LateEnd::GivenUp),
        ];
        for (seq, after_ms, end) in ends {
            window.afterwards(&Afterwards {
                signal: "traffic/work".into(),
                node: "n1".into(),
                seq,
                after_ms,
                end,
            });
        }
        assert_eq!(
            words(&mut window).as_deref(),
            Some("4 of 4 calls bad (4 later than 5s: 2 slow (up to 50.2 s), 1 timed out, 1 unanswered yet)")
        );
    }

    #[test]
    fn a_reason_quotes_one_of_the_wrong_answers_that_traffic_got() {
        let words = |signal: &str, outcome: Outcome| {
            let mut window = window();
            window.setup.signal = signal.to_owned();
            window.push(&sample(
                0,
                Outcome::Wrong {
                    why: "first".to_owned(),
                },
            ));
            window.push(&sample(1, outcome));
            let seen = window.read(60_000_000);
            window.words(&seen).split("; limit").next().map(str::to_owned)
        };
        let wrong = || Outcome::Wrong {
            why: format!("HTTP 500 instead of 200: boom\n{}", "x".repeat(300)),
        };
        let expected = format!(
            "2 of 2 calls bad (2 wrong answers, as HTTP 500 instead of 200: boom {}…)",
            "x".repeat(QUOTED - 30)
        );
        assert_eq!(words("traffic/work", wrong()), Some(expected));
        assert_eq!(
            words("log/requests", wrong()).as_deref(),
            Some("2 of 2 calls bad (2 wrong answers)")
        );
        let refused = Outcome::Refused {
            why: "connection reset".to_owned(),
        };
        assert_eq!(
            words("traffic/work", refused).as_deref(),
            Some("2 of 2 calls bad (1 refused, as connection reset, 1 wrong answers, as first)")
        );
    }
}

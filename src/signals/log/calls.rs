//! From log lines to samples: how long each request took, and which ones are still open.
//!
//! A request log that tells of requests only when they have ended is silent about those that hang. Where the service
//! also logs their beginning, an unmatched beginning is a request in flight, and late once it passes the age.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Captures;

pub use crate::model::log::LogPatterns;
use crate::model::sample::{Outcome, Sample};
use crate::signals::{Afterwards, LateEnd, Observed, SensorTrouble, excerpt};

/// Requests that are open at once, at most; beyond it the oldest is given up. A service has as many workers.
const MAX_OPEN: usize = 10_000;

/// A late request is forgotten after this, microseconds: its end will not come, or will not be believed.
const FORGET_AFTER_US: i64 = 3_600_000_000;

/// What a followed log tells, and about whom.
#[derive(Debug, Clone)]
pub struct LogPlan {
    /// The name of the signal in samples (`log/requests`).
    pub signal: String,
    /// The node that writes the log.
    pub node: String,
    /// Digest of the build that it runs.
    pub build: String,
    /// A request that takes longer is [`Outcome::Late`].
    pub age: std::time::Duration,
    /// How lines are read.
    pub patterns: LogPatterns,
}

/// The requests of one log.
#[derive(Debug)]
pub struct CallsInLog {
    plan: LogPlan,
    /// Shared with nobody, but to be borrowed while the rest changes: a regex that is cloned loses its caches.
    patterns: Arc<LogPatterns>,
    age_us: i64,
    next_seq: u64,
    /// By who wrote of it, and its id.
    open: BTreeMap<(String, String), Open>,
}

#[derive(Debug)]
struct Open {
    seq: u64,
    build: String,
    started_us: i64,
    /// By our own clock: the node's may go wrong, and an age is a difference.
    read_us: i64,
    late: bool,
}

impl CallsInLog {
    /// Knows no request yet.
    #[must_use]
    pub fn new(plan: LogPlan) -> Self {
        Self {
            age_us: i64::try_from(plan.age.as_micros()).unwrap_or(i64::MAX),
            patterns: Arc::new(plan.patterns.clone()),
            plan,
            next_seq: 0,
            open: BTreeMap::new(),
        }
    }

    /// Requests that begin from now on count for this build.
    pub fn set_build(&mut self, build: &str) {
        if self.plan.build != build {
            build.clone_into(&mut self.plan.build);
        }
    }

    /// Takes in a line that was read at `now_us`. `from` says who wrote it, where several do: an id is one's own.
    pub fn line(&mut self, from: &str, line: &str, now_us: i64) -> Vec<Observed> {
        let patterns = Arc::clone(&self.patterns);
        if let Some(found) = patterns.end.captures(line) {
            return match self.ended(from, &found, now_us) {
                Ok(observed) => observed.into_iter().collect(),
                Err(why) => vec![self.trouble(now_us, line, &why)],
            };
        }
        let start = patterns.start.as_ref();
        let Some(found) = start.and_then(|start| start.captures(line)) else {
            return Vec::new();
        };
        match self.started(from, &found, now_us) {
            Ok(()) => self.give_up_oldest(now_us).into_iter().collect(),
            Err(why) => vec![self.trouble(now_us, line, &why)],
        }
    }

    /// Tells of requests that have become late by `now_us`. To be called when all lines up to then have been read.
    pub fn tick(&mut self, now_us: i64) -> Vec<Observed> {
        self.open
            .retain(|_, open| now_us.saturating_sub(open.read_us) < FORGET_AFTER_US);
        let (plan, age_us) = (&self.plan, self.age_us);
        let mut late: Vec<Sample> = self
            .open
            .values_mut()
            .filter(|open| !open.late && now_us.saturating_sub(open.read_us) >= age_us)
            .map(|open| {
                open.late = true;
                sample(plan, open.seq, &open.build, open.started_us, age_us, Outcome::Late)
            })
            .collect();
        late.sort_by_key(|sample| sample.seq);
        late.into_iter().map(Observed::Sample).collect()
    }

    fn started(&mut self, from: &str, found: &Captures<'_>, now_us: i64) -> Result<(), String> {
        let id = found.name("id").ok_or("it has no `id`")?;
        let id = (from.to_owned(), excerpt(id.as_str(), 128));
        let open = Open {
            seq: self.take_seq(),
            build: self.plan.build.clone(),
            started_us: time_of(found)?.unwrap_or(now_us),
            read_us: now_us,
            late: false,
        };
        // The same id again: the earlier request ended without a word (a worker was killed). How it came out is
        // unknown, so it is no sample.
        self.open.insert(id, open);
        Ok(())
    }

    fn ended(&mut self, from: &str, found: &Captures<'_>, now_us: i64) -> Result<Option<Observed>, String> {
        let ended_us = time_of(found)?.unwrap_or(now_us);
        let took_us = found.name("exec_time_s").map(|t| seconds(t.as_str())).transpose()?;
        let begun = found
            .name("id")
            .and_then(|id| self.open.remove(&(from.to_owned(), excerpt(id.as_str(), 128))));
        let Some(begun) = begun else {
            // Begun before we looked, or its beginning is not logged: only its own word says how long it took.
            return Ok(took_us.map(|took_us| {
                let (seq, build) = (self.take_seq(), self.plan.build.clone());
                Observed::Sample(self.judged(seq, &build, ended_us - took_us, took_us))
            }));
        };
        let took_us = took_us.unwrap_or((ended_us - begun.started_us).max(0));
        if !begun.late {
            let sample = self.judged(begun.seq, &begun.build, begun.started_us, took_us);
            return Ok(Some(Observed::Sample(sample)));
        }
        Ok(Some(Observed::Afterwards(Afterwards {
            signal: self.plan.signal.clone(),
            node: self.plan.node.clone(),
            seq: begun.seq,
            after_ms: std::time::Duration::from_micros(took_us.unsigned_abs()).as_secs_f64() * 1000.0,
            end: LateEnd::Answered(Outcome::Ok),
        })))
    }

    fn judged(&self, seq: u64, build: &str, started_us: i64, took_us: i64) -> Sample {
        let outcome = if took_us < self.age_us {
            Outcome::Ok
        } else {
            Outcome::Late
        };
        sample(&self.plan, seq, build, started_us, took_us, outcome)
    }

    fn give_up_oldest(&mut self, now_us: i64) -> Option<Observed> {
        if self.open.len() <= MAX_OPEN {
            return None;
        }
        let oldest = self
            .open
            .iter()
            .min_by_key(|(_, open)| open.seq)
            .map(|(id, _)| id.clone())?;
        self.open.remove(&oldest);
        let why = format!("more than {MAX_OPEN} requests are open; the oldest was given up");
        Some(self.trouble(now_us, &oldest.1, &why))
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    fn trouble(&self, at_us: i64, line: &str, why: &str) -> Observed {
        Observed::Trouble(SensorTrouble {
            signal: self.plan.signal.clone(),
            node: self.plan.node.clone(),
            at_us,
            why: format!("cannot read `{}`: {why}", excerpt(line, 120)),
        })
    }
}

fn sample(plan: &LogPlan, seq: u64, build: &str, started_us: i64, took_us: i64, outcome: Outcome) -> Sample {
    Sample {
        signal: plan.signal.clone(),
        seq,
        node: plan.node.clone(),
        build: build.to_owned(),
        intended_us: started_us,
        resolved_us: started_us.saturating_add(took_us),
        outcome,
    }
}

fn seconds(text: &str) -> Result<i64, String> {
    let refuse = || format!("`{text}` is no number of seconds");
    let seconds: f64 = text.parse().map_err(|_| refuse())?;
    let took = std::time::Duration::try_from_secs_f64(seconds).map_err(|_| refuse())?;
    i64::try_from(took.as_micros()).map_err(|_| refuse())
}

fn time_of(found: &Captures<'_>) -> Result<Option<i64>, String> {
    let Some(at) = found.name("at") else {
        return Ok(None);
    };
    // Loggers of several languages write a comma before the fraction.
    let text = at.as_str().trim().replace(',', ".");
    let utc = |civil: jiff::civil::DateTime| civil.to_zoned(jiff::tz::TimeZone::UTC);
    let stamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(utc(civil).ok()?.timestamp())
    });
    match stamp {
        Some(stamp) => Ok(Some(stamp.as_microsecond())),
        None => Err(format!("`{}` is no time", at.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::environment::Log;

    const SECOND: i64 = 1_000_000;

    fn calls(start: Option<&str>, end: &str) -> CallsInLog {
        let log = Log {
            name: "requests".to_owned(),
            path: Some("log".to_owned()),
            start: start.map(str::to_owned),
            end: end.to_owned(),
            rate: 5.0,
        };
        CallsInLog::new(LogPlan {
            signal: "log/requests".to_owned(),
            node: "node1".to_owned(),
            build: "b1".to_owned(),
            age: std::time::Duration::from_secs(5),
            patterns: LogPatterns::new(&log).expect("patterns of a test"),
        })
    }

    /// What was observed, short: `seq outcome latency`.
    fn told(observed: Vec<Observed>) -> Vec<String> {
        observed
            .into_iter()
            .map(|one| match one {
                Observed::Sample(s) => format!("{} {:?} {} {}", s.seq, s.outcome, s.latency_ms(), s.build),
                Observed::Afterwards(a) => format!("{} afterwards {} {:?}", a.seq, a.after_ms, a.end),
                Observed::Trouble(t) => t.why,
            })
            .collect()
    }

    #[test]
    fn an_end_that_says_how_long_it_took_is_a_sample_that_began_so_much_earlier() {
        let mut calls = calls(None, r"^(?<at>\S+ \S+) .*took=(?<exec_time_s>[^ ]+)");
        let observed = calls.line("", "2025-01-06 09:58:07,300 GET /x took=50.235 s", 0);
        let Some(Observed::Sample(sample)) = observed.first() else {
            panic!("{observed:?}");
        };
        assert_eq!(
            jiff::Timestamp::from_microsecond(sample.resolved_us)
                .expect("a time")
                .to_string(),
            "2025-01-06T09:58:07.3Z"
        );
        assert!((sample.latency_ms() - 50_235.0).abs() < 1e-6);
        assert_eq!(sample.outcome, Outcome::Late);
        assert_eq!(
            told(calls.line("", "2025-01-06 09:58:08 GET took=4.9 s", 0)),
            ["1 Ok 4900 b1"]
        );
        assert_eq!(told(calls.line("", "something else", 0)), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_is_trouble_and_never_a_sample() {
        let mut calls = calls(None, r"^(?<at>.*) took=(?<exec_time_s>\S+)");
        for (line, why) in [
            ("2025-01-06 09:58:07 took=fast", "`fast` is no number of seconds"),
            ("2025-01-06 09:58:07 took=-1", "`-1` is no number of seconds"),
            ("2025-01-06 09:58:07 took=NaN", "`NaN` is no number of seconds"),
            ("yesterday took=1", "`yesterday` is no time"),
        ] {
            assert_eq!(told(calls.line("", line, 0)), [format!("cannot read `{line}`: {why}")]);
        }
    }

    #[test]
    fn a_request_without_an_end_is_late_at_the_age_and_its_end_counts_no_more() {
        let mut calls = calls(Some(r"begin (?<id>\w+)"), r"end (?<id>\w+)");
        assert_eq!(told(calls.line("", "begin a", 0)), [""; 0]);
        assert_eq!(told(calls.line("", "begin b", SECOND)), [""; 0]);
        calls.set_build("b2");
        assert_eq!(told(calls.line("", "begin c", 4 * SECOND)), [""; 0]);
        assert_eq!(told(calls.line("", "end b", 3 * SECOND)), ["1 Ok 2000 b1"]);
        assert_eq!(told(calls.tick(5 * SECOND - 1)), [""; 0]);
        assert_eq!(told(calls.tick(5 * SECOND)), ["0 Late 5000 b1"]);
        assert_eq!(told(calls.tick(6 * SECOND)), [""; 0], "counted once");
        assert_eq!(
            told(calls.line("", "end a", 14 * SECOND)),
            ["0 afterwards 14000 Answered(Ok)"]
        );
        assert_eq!(told(calls.tick(20 * SECOND)), ["2 Late 5000 b2"]);
        assert_eq!(told(calls.line("", "end unknown", 20 * SECOND)), [""; 0]);
    }

    #[test]
    fn a_wrong_clock_on_the_node_makes_no_request_late() {
        let mut calls = calls(Some(r"(?<at>\S+) begin (?<id>\w+)"), r"(?<at>\S+) end (?<id>\w+)");
        assert_eq!(
            told(calls.line("", "1999-12-31T23:00:00 begin a", 1_700_000_000 * SECOND)),
            [""; 0]
        );
        assert_eq!(told(calls.tick(1_700_000_001 * SECOND)), [""; 0]);
        assert_eq!(
            told(calls.line("", "1999-12-31T23:00:02 end a", 1_700_000_002 * SECOND)),
            ["0 Ok 2000 b1"]
        );
    }

    #[test]
    fn open_requests_are_bounded_and_forgotten() {
        let mut calls = calls(Some(r"begin (?<id>\w+)"), r"end (?<id>\w+)");
        for n in 0..MAX_OPEN {
            assert!(calls.line("", &format!("begin r{n}"), 0).is_empty());
        }
        let observed = told(calls.line("", "begin last", 0));
        assert!(observed[0].contains("the oldest was given up"), "{observed:?}");
        assert_eq!(calls.open.len(), MAX_OPEN);
        assert!(!calls.open.contains_key(&(String::new(), "r0".to_owned())));
        calls.tick(FORGET_AFTER_US);
        assert_eq!(calls.open.len(), 0);
    }

    #[test]
    fn patterns_that_cannot_tell_how_long_are_refused() {
        let log = |start: Option<&str>, end: &str| Log {
            name: String::new(),
            path: None,
            start: start.map(str::to_owned),
            end: end.to_owned(),
            rate: 5.0,
        };
        for (start, end, which) in [
            (None, "end", "end"),
            (None, "(?<id>x)", "end"),
            (Some("begin"), "(?<id>x)", "start"),
            (Some("(?<id>x)"), "end", "end"),
            (None, "(", "end"),
        ] {
            let error = LogPatterns::new(&log(start, end)).expect_err("refused");
            assert_eq!(error.which, which, "{start:?} {end:?}");
        }
    }

    #[test]
    fn an_id_is_of_who_wrote_it() {
        let mut calls = calls(Some("begin (?<id>.*)"), "end (?<id>.*)");
        for (pod, line, at_s, expected) in [
            ("web-0", "begin 1", 0, &[][..]),
            ("web-1", "begin 1", 1, &[]),
            ("web-1", "end 1", 2, &["1 Ok 1000 b1"]),
            ("web-2", "end 1", 2, &[]),
            ("web-0", "end 1", 3, &["0 Ok 3000 b1"]),
        ] {
            assert_eq!(told(calls.line(pod, line, at_s * SECOND)), expected, "{pod} {line}");
        }
    }
}

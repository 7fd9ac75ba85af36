//! The record of one gate reading, from which anybody can compute the verdict again (I6).
//!
//! JSON lines: a header with the gate and what computed it, one line a sample, a line with the reading, and a last line
//! with the SHA-256 of every byte before it.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Gate, LIBM_VERSION, Reading, Verdict};
use crate::model::sample::{Outcome, Sample};
use crate::model::values::Digest;

/// The format written, and the only one read so far.
pub const FORMAT_VERSION: u32 = 1;

/// Samples kept: almost three hours at 5 calls/s. A clean sample takes about 90 bytes, so a record stays below 5 MB,
/// or 20 MB where every call says why it went wrong.
pub const MOST_SAMPLES: usize = 50_000;

/// Of the words that say why a call went wrong, this many characters are kept: a status line and the start of an error.
const LONGEST_WHY: usize = 200;

/// What one gate saw on one node, and what it made of it. Its text ([`Display`], [`FromStr`]) is what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The format of the file.
    pub format_version: u32,
    /// The version of Stagegate that took the reading.
    pub engine_version: String,
    /// The version of `libm` it computed with.
    pub libm_version: String,
    /// The gate and its parameters.
    pub gate: Gate,
    /// The node.
    pub node: String,
    /// Digest of the build that the node was to run.
    pub build: String,
    /// Calls intended before this moment do not count (µs since the Unix epoch).
    pub since_us: i64,
    /// Samples that counted and were left out to stay within [`MOST_SAMPLES`], the earliest. 0 for a whole record.
    pub omitted: u64,
    /// What was known at the moment of the reading, of one signal on this node.
    pub samples: Vec<Sample>,
    /// The recorded reading.
    pub reading: Reading,
}

/// A verdict computed again from its record.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// What the record says.
    pub recorded: Reading,
    /// What its samples say.
    pub recomputed: Reading,
    /// Whether the two are equal to the last bit.
    pub same: bool,
}

impl Evidence {
    /// Keeps a reading with the samples that it was taken from: all that were handed to the test that began at `since_us`.
    /// Those that could not count at the moment of the reading are left out.
    ///
    /// Of more than [`MOST_SAMPLES`], a Fail keeps what was known when it decided, with the reading of that moment: a Fail
    /// is final. Where that is still too much, the earliest are dropped and [`Evidence::omitted`] says how many.
    #[must_use]
    pub fn new(
        gate: impl Into<Gate>,
        node: impl Into<String>,
        build: impl Into<String>,
        since_us: i64,
        samples: &[Sample],
        reading: &Reading,
    ) -> Evidence {
        let gate = gate.into();
        let known_at = |at_us: i64| -> Vec<Sample> {
            let counts = |sample: &&Sample| sample.intended_us >= since_us && sample.resolved_us <= at_us;
            samples.iter().filter(counts).map(shortened).collect()
        };
        let (mut kept, mut reading) = (known_at(reading.at_us), reading.clone());
        if let (Verdict::Fail, Some(decided_us)) = (reading.verdict, reading.decided_us)
            && kept.len() > MOST_SAMPLES
        {
            kept = known_at(decided_us);
            reading = gate.read(&kept, since_us, decided_us);
        }
        let omitted = kept.len().saturating_sub(MOST_SAMPLES);
        kept.drain(..omitted);
        Evidence {
            format_version: FORMAT_VERSION,
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            libm_version: LIBM_VERSION.to_owned(),
            gate,
            node: node.into(),
            build: build.into(),
            since_us,
            omitted: omitted as u64,
            samples: kept,
            reading,
        }
    }

    /// Computes the reading again from the samples alone. Refused ([`EvidenceError::Incomplete`]) where samples were left
    /// out.
    pub fn replay(&self) -> Result<Replay, EvidenceError> {
        if self.omitted > 0 {
            return Err(EvidenceError::Incomplete {
                omitted: self.omitted,
                kept: self.samples.len(),
            });
        }
        let recomputed = self.gate.read(&self.samples, self.since_us, self.reading.at_us);
        Ok(Replay {
            same: recomputed.same_bits(&self.reading),
            recorded: self.reading.clone(),
            recomputed,
        })
    }
}

fn shortened(sample: &Sample) -> Sample {
    let mut sample = sample.clone();
    match &mut sample.outcome {
        Outcome::Refused { why } | Outcome::Wrong { why } | Outcome::Lost { why } => {
            if let Some((end, _)) = why.char_indices().nth(LONGEST_WHY) {
                why.truncate(end);
            }
        }
        Outcome::Ok | Outcome::Late | Outcome::Shed => {}
    }
    sample
}

/// Why a file is not evidence, or not the evidence that was written.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A line that cannot be read.
    #[error("reading evidence: line {line}, {part}: {why}. Fetch the file again from where it was recorded")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What the line should be.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The end is missing.
    #[error("reading evidence: it ends after line {lines}, before the line with its SHA-256. Fetch the whole file")]
    Truncated {
        /// Complete lines found.
        lines: usize,
    },
    /// Whole, but not all that the verdict was taken from.
    #[error(
        "replaying evidence: it keeps the last {kept} samples, and {omitted} before them were left out to bound its size, \
         so that its verdict cannot be computed again. Read its samples as they are"
    )]
    Incomplete {
        /// Samples that were left out.
        omitted: u64,
        /// Samples that are there.
        kept: usize,
    },
    /// Written by another version.
    #[error(
        "reading evidence: line 1 says format {found}, and this program reads format {FORMAT_VERSION}. \
         Read it with stagegate {engine_version}, which wrote it"
    )]
    Format {
        /// The format of the file.
        found: u32,
        /// The version that wrote it.
        engine_version: String,
    },
    /// Readable, but not what was written: somebody changed it. The evidence is here as it reads now, so that a caller can
    /// show both that it was edited and what recomputation gives.
    #[error(
        "this evidence was edited: its last line states SHA-256 {stated}, and its lines have {computed}. \
         Do not trust the recorded verdict"
    )]
    Edited {
        /// What the file says now.
        evidence: Box<Evidence>,
        /// The digest in its last line.
        stated: String,
        /// The digest of what precedes.
        computed: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    format_version: u32,
    engine_version: String,
    libm_version: String,
    gate: Gate,
    signal: String,
    node: String,
    build: String,
    since_us: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    omitted: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A sample as a line: what the header says already is left out.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SampleLine {
    seq: u64,
    intended_us: i64,
    resolved_us: i64,
    outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    build: Option<String>,
}

/// Enough of any header to say which program reads the file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyHeader {
    format_version: u32,
    #[serde(default)]
    engine_version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Conclusion {
    reading: Reading,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seal {
    sha256: String,
}

impl Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evidence {
            format_version,
            engine_version,
            libm_version,
            gate,
            node,
            build,
            since_us,
            omitted,
            samples,
            reading,
        } = self;
        let header = Header {
            format_version: *format_version,
            engine_version: engine_version.clone(),
            libm_version: libm_version.clone(),
            gate: gate.clone(),
            signal: samples.first().map(|sample| sample.signal.clone()).unwrap_or_default(),
            node: node.clone(),
            build: build.clone(),
            since_us: *since_us,
            omitted: *omitted,
        };
        let mut text = String::new();
        push_line(&mut text, &header)?;
        for sample in samples {
            push_line(&mut text, &sample_line(sample, &header))?;
        }
        let reading = reading.clone();
        push_line(&mut text, &Conclusion { reading })?;
        let sha256 = Digest::of(text.as_bytes()).hex();
        push_line(&mut text, &Seal { sha256 })?;
        f.write_str(&text)
    }
}

impl FromStr for Evidence {
    type Err = EvidenceError;

    /// Reads evidence back. The error names the line and what is wrong; [`EvidenceError::Edited`] carries the evidence too.
    fn from_str(text: &str) -> Result<Evidence, EvidenceError> {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
            return Err(EvidenceError::Truncated { lines: 0 });
        };
        let any: AnyHeader = parse(first, 1, "the header")?;
        if any.format_version != FORMAT_VERSION {
            return Err(EvidenceError::Format {
                found: any.format_version,
                engine_version: any.engine_version,
            });
        }
        let seal: Seal = match serde_json::from_str(last) {
            Ok(seal) if lines.len() >= 3 && last.ends_with('\n') => seal,
            Ok(_) | Err(_) => {
                let complete = lines.iter().filter(|line| line.ends_with('\n')).count();
                return Err(EvidenceError::Truncated { lines: complete });
            }
        };
        let computed = Digest::of(&text.as_bytes()[..text.len() - last.len()]).hex();
        let edited = computed != seal.sha256;
        match (parse_lines(&lines[..lines.len() - 1]), edited) {
            (Ok(evidence), false) => Ok(evidence),
            (Ok(evidence), true) => Err(EvidenceError::Edited {
                evidence: Box::new(evidence),
                stated: seal.sha256,
                computed,
            }),
            (Err(EvidenceError::Line { line, part, why }), true) => Err(EvidenceError::Line {
                line,
                part,
                why: format!("{why}. This file was edited: its SHA-256 is not the one in its last line"),
            }),
            (Err(error), _) => Err(error),
        }
    }
}

/// Everything but the seal: at least a header and a reading.
fn parse_lines(lines: &[&str]) -> Result<Evidence, EvidenceError> {
    let header: Header = parse(lines[0], 1, "the header")?;
    let concluding = lines.len() - 1;
    let mut samples = Vec::with_capacity(concluding);
    for (index, line) in lines.iter().enumerate().take(concluding).skip(1) {
        samples.push(parse_sample(line, index + 1, &header)?);
    }
    let Conclusion { reading } = parse(lines[concluding], concluding + 1, "the reading")?;
    let Header {
        format_version,
        engine_version,
        libm_version,
        gate,
        signal: _,
        node,
        build,
        since_us,
        omitted,
    } = header;
    Ok(Evidence {
        format_version,
        engine_version,
        libm_version,
        gate,
        node,
        build,
        since_us,
        omitted,
        samples,
        reading,
    })
}

fn sample_line(sample: &Sample, header: &Header) -> SampleLine {
    let Sample {
        signal,
        seq,
        node,
        build,
        intended_us,
        resolved_us,
        outcome,
    } = sample.clone();
    SampleLine {
        seq,
        intended_us,
        resolved_us,
        outcome,
        signal: Some(signal).filter(|signal| *signal != header.signal),
        node: Some(node).filter(|node| *node != header.node),
        build: Some(build).filter(|build| *build != header.build),
    }
}

fn parse_sample(line: &str, number: usize, header: &Header) -> Result<Sample, EvidenceError> {
    let part = "a sample";
    let SampleLine {
        seq,
        intended_us,
        resolved_us,
        outcome,
        signal,
        node,
        build,
    } = parse(line, number, part)?;
    // `seq` orders calls within one signal and node only; a mixture would drop calls as repeated.
    for (what, ours, its) in [("node", &header.node, &node), ("signal", &header.signal, &signal)] {
        if let Some(its) = its.as_ref().filter(|its| *its != ours) {
            return Err(EvidenceError::Line {
                line: number,
                part,
                why: format!("it is of {what} \"{its}\", and the evidence is of {what} \"{ours}\""),
            });
        }
    }
    Ok(Sample {
        signal: header.signal.clone(),
        seq,
        node: header.node.clone(),
        build: build.unwrap_or_else(|| header.build.clone()),
        intended_us,
        resolved_us,
        outcome,
    })
}

fn parse<T: DeserializeOwned>(line: &str, number: usize, part: &'static str) -> Result<T, EvidenceError> {
    serde_json::from_str(line).map_err(|error| EvidenceError::Line {
        line: number,
        part,
        why: error.to_string(),
    })
}

fn push_line(text: &mut String, value: &impl Serialize) -> fmt::Result {
    // Plain structs of strings and numbers, with text keys, always have a JSON form.
    text.push_str(&serde_json::to_string(value).map_err(|_| fmt::Error)?);
    text.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gates::ShareGate;
    use crate::gates::share::tests::{gates, samples};
    use crate::gates::simulation::hanging_calls;

    const SECOND: i64 = 1_000_000;

    fn gate() -> ShareGate {
        ShareGate::new(0.02, 5 * SECOND, 0.01 / 3.0, 0.05).unwrap()
    }

    /// A node at 5 calls/s that hangs from call `onset` on, out of `calls`, read at `at_us`.
    fn evidence(onset: u64, calls: u64, at_us: i64) -> Evidence {
        let samples: Vec<_> = hanging_calls(onset, calls, calls, 5.0, 5 * SECOND).collect();
        let reading = gate().read(&samples, 0, at_us);
        Evidence::new(gate(), "node-0", "sha256:ab", 0, &samples, &reading)
    }

    /// A node that hangs from call 20 on, read 15 s after the start.
    fn failed() -> Evidence {
        evidence(20, 100, 15 * SECOND)
    }

    fn read(text: &str) -> Result<Evidence, EvidenceError> {
        text.parse()
    }

    /// The text with the seal that it would have had if it had been written like this.
    fn sealed_again(text: &str) -> String {
        let (lines, _seal) = text.trim_end().rsplit_once('\n').unwrap();
        let lines = format!("{lines}\n");
        let sha256 = Digest::of(lines.as_bytes()).hex();
        format!("{lines}{{\"sha256\":\"{sha256}\"}}\n")
    }

    #[test]
    fn written_evidence_reads_back_and_recomputes_to_the_bit() {
        let evidence = failed();
        let again = read(&evidence.to_string()).unwrap();
        assert_eq!(again, evidence);
        let replay = again.replay().unwrap();
        assert_eq!(
            (replay.recorded.verdict, replay.recomputed.verdict),
            (Verdict::Fail, Verdict::Fail)
        );
        assert!(replay.same);
    }

    #[test]
    fn text_is_one_line_a_record_and_short() {
        let text = failed().to_string();
        let lines: Vec<_> = text
            .lines()
            .map(|line| {
                line.replace(env!("CARGO_PKG_VERSION"), "0.1.0")
                    .replace(LIBM_VERSION, "VERSION")
            })
            .collect();
        insta::assert_snapshot!([&lines[0], &lines[1], &lines[40], &lines[lines.len() - 2]].map(String::as_str).join("\n"), @r#"
        {"formatVersion":1,"engineVersion":"0.1.0","libmVersion":"VERSION","gate":{"kind":"share","limit":"0.02","ageUs":5000000,"alpha":"0.0033333333333333335","beta":"0.05","failBlock":15,"passBlock":1},"signal":"traffic","node":"node-0","build":"sha256:ab","sinceUs":0}
        {"seq":0,"intendedUs":0,"resolvedUs":50000,"outcome":{"kind":"ok"}}
        {"seq":39,"intendedUs":7800000,"resolvedUs":12800000,"outcome":{"kind":"late"}}
        {"reading":{"atUs":15000000,"verdict":"Fail","n":51,"bad":31,"counts":{"ok":20,"late":31,"refused":0,"wrong":0,"lost":0,"shed":0},"unresolved":0,"strays":0,"eFailLog":"6.323093281665026","ePassLog":"-3.4707240280532505","onsetUs":4000000,"decidedUs":14200000,"lastBadUs":10000000,"expectedCallsToPass":null}}
        "#);
    }

    /// What an auditor does: move calls over the limit, or below it, and see what the gate makes of them.
    #[test]
    fn samples_moved_over_the_limit_change_the_verdict_and_the_edit_is_named() {
        let cured = failed().to_string().replace(r#"{"kind":"late"}"#, r#"{"kind":"ok"}"#);
        // The calls that hung now say "ok", but 5 s after they were sent: still in time, by a hair.
        let Err(EvidenceError::Edited {
            evidence,
            stated,
            computed,
        }) = read(&cured)
        else {
            panic!("an edited file must say so")
        };
        assert_ne!(stated, computed);
        let replay = evidence.replay().unwrap();
        assert_eq!(
            (replay.recorded.verdict, replay.recomputed.verdict),
            (Verdict::Fail, Verdict::Undecided)
        );
        assert!(!replay.same);
        let sealed = read(&sealed_again(&cured)).unwrap().replay().unwrap();
        assert_eq!((sealed.recomputed.verdict, sealed.same), (Verdict::Undecided, false));

        let passed = evidence_of_a_pass();
        let mut slow = passed.clone();
        for sample in slow.samples.iter_mut().skip(100).take(60) {
            sample.resolved_us = sample.intended_us + 6 * SECOND;
        }
        let replay = read(&slow.to_string()).unwrap().replay().unwrap();
        assert_eq!(
            (replay.recorded.verdict, replay.recomputed.verdict),
            (Verdict::Pass, Verdict::Fail)
        );
    }

    fn evidence_of_a_pass() -> Evidence {
        evidence(300, 300, 60 * SECOND)
    }

    #[test]
    fn edited_reading_is_seen_and_does_not_replay() {
        let text = failed()
            .to_string()
            .replace(r#""verdict":"Fail""#, r#""verdict":"Pass""#);
        assert!(matches!(read(&text), Err(EvidenceError::Edited { .. })));
        let replay = read(&sealed_again(&text)).unwrap().replay().unwrap();
        assert_eq!(
            (replay.recorded.verdict, replay.recomputed.verdict),
            (Verdict::Pass, Verdict::Fail)
        );
        assert!(!replay.same);
    }

    #[test]
    fn any_changed_byte_is_seen() {
        let text = failed().to_string();
        for at in (0..text.len()).step_by(7) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            assert!(read(&String::from_utf8(bytes).unwrap()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        let text = failed().to_string();
        let message = |text: &str| read(text).unwrap_err().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let with_line = |number: usize, line: &str| {
            let mut lines = lines.clone();
            lines[number - 1] = line;
            lines.join("\n") + "\n"
        };

        assert!(message("").contains("ends after line 0"));
        assert!(message(&lines[..5].join("\n")).contains("ends after line 4"));
        let missing = message(&with_line(3, "{}"));
        assert!(missing.contains("line 3, a sample: missing field"), "{missing}");
        assert!(missing.contains("was edited"), "{missing}");
        let with_more = |more: &str| format!("{},{more}}}", lines[2].trim_end_matches('}').to_owned() + "}");
        let foreign = sealed_again(&with_line(3, &with_more(r#""node":"node-1""#)));
        assert!(message(&foreign).contains(r#"line 3, a sample: it is of node "node-1""#));
        assert!(!message(&foreign).contains("was edited"));
        let other = with_line(3, &with_more(r#""signal":"probe""#));
        assert!(message(&other).contains("line 3, a sample: it is of signal"));
        let impossible = lines[0].replace(r#""limit":"0.02""#, r#""limit":"2.0""#);
        assert!(message(&with_line(1, &impossible)).contains("line 1, the header: limit is 2, but"));
        let newer = lines[0].replace(r#""formatVersion":1"#, r#""formatVersion":7"#);
        assert!(message(&with_line(1, &newer)).contains("format 7"));
    }

    /// A record of a long watch keeps its Fail, though not the calls that came after it.
    #[test]
    fn long_fail_keeps_what_it_was_decided_on() {
        let most = MOST_SAMPLES as u64;
        let samples: Vec<_> = hanging_calls(1000, 1100, most + 5000, 5.0, 5 * SECOND).collect();
        let reading = gate().read(&samples, 0, i64::MAX);
        let evidence = Evidence::new(gate(), "node-0", "sha256:ab", 0, &samples, &reading);
        assert_eq!((evidence.omitted, evidence.samples.len() < 1100), (0, true));
        let replay = evidence.replay().unwrap();
        assert!(replay.same);
        assert_eq!(
            (replay.recomputed.verdict, replay.recomputed.onset_us),
            (Verdict::Fail, Some(200 * SECOND))
        );
    }

    #[test]
    fn record_that_left_samples_out_says_so_instead_of_replaying() {
        let most = MOST_SAMPLES as u64;
        let evidence = evidence(most + 10, most + 10, i64::MAX);
        assert_eq!((evidence.omitted, evidence.samples.len()), (10, MOST_SAMPLES));
        assert!(matches!(
            evidence.replay(),
            Err(EvidenceError::Incomplete { omitted: 10, .. })
        ));
    }

    #[test]
    fn flood_of_words_is_cut() {
        let mut samples: Vec<_> = hanging_calls(1, 1, 1, 5.0, 5 * SECOND).collect();
        samples[0].outcome = Outcome::Wrong {
            why: "ä".repeat(10_000),
        };
        let reading = gate().read(&samples, 0, SECOND);
        let evidence = Evidence::new(gate(), "node-0", "sha256:ab", 0, &samples, &reading);
        assert_eq!(
            evidence.samples[0].outcome,
            Outcome::Wrong {
                why: "ä".repeat(LONGEST_WHY)
            }
        );
    }

    proptest! {
        #[test]
        fn every_record_reads_back_and_recomputes_to_the_bit(
            gate in gates(), samples in samples(), since_us in 0i64..3_000_000, now_us in 0i64..40_000_000,
        ) {
            let reading = gate.read(&samples, since_us, now_us);
            let evidence = Evidence::new(gate, "n", "b", since_us, &samples, &reading);
            let again = read(&evidence.to_string()).unwrap();
            prop_assert_eq!(&again.gate, &evidence.gate);
            let replay = again.replay().unwrap();
            prop_assert!(replay.same && replay.recomputed.same_bits(&reading));
        }
    }
}

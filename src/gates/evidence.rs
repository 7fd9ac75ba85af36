//! The record of one gate reading, from which anybody can compute the verdict again (I6).
//!
//! JSON lines: a header with the gate and what computed it, one line a sample, a line with the verdict and the reading, and
//! a last line with the SHA-256 of every byte before it.

use ring::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Gate, LIBM_VERSION, Reading, Verdict};
use crate::model::sample::Sample;

/// The format written, and the only one read so far.
pub const FORMAT_VERSION: u32 = 1;

/// What one gate saw on one node, and what it made of it.
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
    /// The moment for which the reading was taken (µs since the Unix epoch).
    pub decided_us: i64,
    /// Everything that was known by then, of one signal on this node.
    pub samples: Vec<Sample>,
    /// The recorded verdict.
    pub verdict: Verdict,
    /// The recorded reading.
    pub reading: Reading,
}

impl Evidence {
    /// Takes the reading at `decided_us` and keeps it with its samples.
    #[must_use]
    pub fn take(
        gate: impl Into<Gate>,
        node: String,
        build: String,
        since_us: i64,
        decided_us: i64,
        samples: Vec<Sample>,
    ) -> Evidence {
        let gate = gate.into();
        let reading = gate.read(&samples, since_us, decided_us);
        Evidence {
            format_version: FORMAT_VERSION,
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            libm_version: LIBM_VERSION.to_owned(),
            gate,
            node,
            build,
            since_us,
            decided_us,
            samples,
            verdict: reading.verdict,
            reading,
        }
    }
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
    node: String,
    build: String,
    since_us: i64,
    decided_us: i64,
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
    verdict: Verdict,
    reading: Reading,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seal {
    sha256: String,
}

/// The evidence as text, to be stored as it is.
#[must_use]
pub fn write(evidence: &Evidence) -> String {
    let Evidence {
        format_version,
        engine_version,
        libm_version,
        gate,
        node,
        build,
        since_us,
        decided_us,
        samples,
        verdict,
        reading,
    } = evidence.clone();
    let header = Header { format_version, engine_version, libm_version, gate, node, build, since_us, decided_us };
    let mut text = String::new();
    push_line(&mut text, &header);
    for sample in &samples {
        push_line(&mut text, sample);
    }
    push_line(&mut text, &Conclusion { verdict, reading });
    let sha256 = sha256(&text);
    push_line(&mut text, &Seal { sha256 });
    text
}

/// Reads evidence back. The error names the line and what is wrong; [`EvidenceError::Edited`] carries the evidence too.
pub fn read(text: &str) -> Result<Evidence, EvidenceError> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
        return Err(EvidenceError::Truncated { lines: 0 });
    };
    let any: AnyHeader = parse(first, 1, "the header")?;
    if any.format_version != FORMAT_VERSION {
        return Err(EvidenceError::Format { found: any.format_version, engine_version: any.engine_version });
    }
    let seal: Seal = match serde_json::from_str(last) {
        Ok(seal) if lines.len() >= 3 && last.ends_with('\n') => seal,
        Ok(_) | Err(_) => {
            let complete = if last.ends_with('\n') { lines.len() } else { lines.len() - 1 };
            return Err(EvidenceError::Truncated { lines: complete });
        }
    };
    let header: Header = parse(first, 1, "the header")?;
    let concluding = lines.len() - 2;
    let mut samples = Vec::with_capacity(concluding - 1);
    for (index, line) in lines.iter().enumerate().take(concluding).skip(1) {
        samples.push(parse_sample(line, index + 1, &header, samples.first())?);
    }
    let Conclusion { verdict, reading } = parse(lines[concluding], concluding + 1, "the verdict")?;
    let Header { format_version, engine_version, libm_version, gate, node, build, since_us, decided_us } = header;
    let evidence = Evidence {
        format_version,
        engine_version,
        libm_version,
        gate,
        node,
        build,
        since_us,
        decided_us,
        samples,
        verdict,
        reading,
    };
    let computed = sha256(&text[..text.len() - last.len()]);
    if computed != seal.sha256 {
        return Err(EvidenceError::Edited { evidence: Box::new(evidence), stated: seal.sha256, computed });
    }
    Ok(evidence)
}

/// The reading that the gate gives on these samples alone; compare it with the recorded one by [`Reading::same_bits`].
#[must_use]
pub fn replay(evidence: &Evidence) -> Reading {
    evidence.gate.read(&evidence.samples, evidence.since_us, evidence.decided_us)
}

fn parse_sample(line: &str, number: usize, header: &Header, first: Option<&Sample>) -> Result<Sample, EvidenceError> {
    let part = "a sample";
    let sample: Sample = parse(line, number, part)?;
    // `seq` orders calls within one signal and node only; a mixture would drop calls as repeated.
    let why = if sample.node != header.node {
        format!("it is of node \"{}\", and the evidence is of node \"{}\"", sample.node, header.node)
    } else if let Some(first) = first.filter(|first| first.signal != sample.signal) {
        format!("it is of signal \"{}\", and the samples before are of \"{}\"", sample.signal, first.signal)
    } else {
        return Ok(sample);
    };
    Err(EvidenceError::Line { line: number, part, why })
}

fn parse<T: DeserializeOwned>(line: &str, number: usize, part: &'static str) -> Result<T, EvidenceError> {
    serde_json::from_str(line).map_err(|error| EvidenceError::Line { line: number, part, why: error.to_string() })
}

#[expect(clippy::expect_used, reason = "plain structs of strings and numbers, with text keys, always have a JSON form")]
fn push_line(text: &mut String, value: &impl Serialize) {
    text.push_str(&serde_json::to_string(value).expect("a record has a JSON form"));
    text.push('\n');
}

fn sha256(text: &str) -> String {
    use std::fmt::Write;
    digest(&SHA256, text.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gates::ShareGate;
    use crate::gates::share::tests::{gates, samples};
    use crate::gates::simulation::hanging_calls;

    /// A node that hangs from call 20 on, read 15 s after the start.
    fn failed() -> Evidence {
        let gate = ShareGate::new(0.02, 5_000_000, 0.01 / 3.0, 0.05).unwrap();
        let samples = hanging_calls(20, 100, 100, 5.0, 5_000_000).filter(|s| s.resolved_us <= 15_000_000).collect();
        Evidence::take(gate, "node-0".into(), "sha256:ab".into(), 0, 15_000_000, samples)
    }

    #[test]
    fn written_evidence_reads_back_and_recomputes_to_the_bit() {
        let evidence = failed();
        assert_eq!(evidence.verdict, Verdict::Fail);
        let again = read(&write(&evidence)).unwrap();
        assert_eq!(again, evidence);
        assert!(replay(&again).same_bits(&evidence.reading));
    }

    #[test]
    fn samples_moved_over_the_limit_change_the_recomputed_verdict() {
        let text = write(&failed()).replace(r#"{"kind":"late"}"#, r#"{"kind":"ok"}"#);
        // The calls that hung now say "ok", but 5 s after they were sent: still in time, by a hair.
        let Err(EvidenceError::Edited { evidence, stated, computed }) = read(&text) else {
            panic!("an edited file must say so")
        };
        assert_ne!(stated, computed);
        assert_eq!(evidence.verdict, Verdict::Fail, "what the file claims");
        assert_eq!(replay(&evidence).verdict, Verdict::Undecided, "what its samples show");
    }

    #[test]
    fn edited_verdict_is_seen() {
        let text = write(&failed()).replace(r#"{"verdict":"Fail""#, r#"{"verdict":"Pass""#);
        assert!(matches!(read(&text), Err(EvidenceError::Edited { .. })));
    }

    #[test]
    fn any_changed_byte_is_seen() {
        let text = write(&failed());
        for at in (0..text.len()).step_by(7) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            assert!(read(&String::from_utf8(bytes).unwrap()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        let text = write(&failed());
        let message = |text: &str| read(text).unwrap_err().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let with_line = |number: usize, line: &str| {
            let mut lines = lines.clone();
            lines[number - 1] = line;
            lines.join("\n") + "\n"
        };

        assert!(message("").contains("ends after line 0"));
        assert!(message(&lines[..5].join("\n")).contains("ends after line 4"));
        assert!(message(&with_line(3, "{}")).contains("line 3, a sample: missing field"));
        let foreign = lines[2].replace("node-0", "node-1");
        assert!(message(&with_line(3, &foreign)).contains(r#"line 3, a sample: it is of node "node-1""#));
        let other = lines[2].replace("traffic", "probe");
        assert!(message(&with_line(3, &other)).contains("line 3, a sample: it is of signal"));
        let impossible = lines[0].replace(r#""limit":"0.02""#, r#""limit":"2.0""#);
        assert!(message(&with_line(1, &impossible)).contains("line 1, the header: limit is 2, but"));
        let newer = lines[0].replace(r#""formatVersion":1"#, r#""formatVersion":7"#);
        assert!(message(&with_line(1, &newer)).contains("format 7"));
    }

    proptest! {
        #[test]
        fn every_record_reads_back_and_recomputes_to_the_bit(
            gate in gates(), samples in samples(), since_us in 0i64..3_000_000, now_us in 0i64..40_000_000,
        ) {
            let evidence = Evidence::take(gate, "n".into(), "b".into(), since_us, now_us, samples);
            let again = read(&write(&evidence)).unwrap();
            prop_assert_eq!(&again.gate, &evidence.gate);
            prop_assert!(again.reading.same_bits(&evidence.reading));
            prop_assert!(replay(&again).same_bits(&evidence.reading));
        }
    }
}

//! What a signal says about one call, probe or log line: the unit that gates count and evidence keeps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One resolved observation. A request resolves when it ends or when it passes the age that its gate allows,
/// whichever comes first, so that a call that hangs for minutes is counted within seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The signal it came from, as the environment names it (`traffic/update-job`, `probe/alive`).
    pub signal: String,
    /// Order of intended sending within (signal, node), from 0; gaps mean samples that never resolved.
    pub seq: u64,
    /// Node that answered, or should have.
    pub node: String,
    /// Digest of the build that the node ran when the call was sent, as last observed.
    pub build: String,
    /// When the call should have been sent, microseconds since the Unix epoch. Latency counts from here,
    /// so that time spent queueing behind a slow server is not lost.
    pub intended_us: i64,
    /// When the outcome was known, microseconds since the Unix epoch.
    pub resolved_us: i64,
    /// How it came out.
    pub outcome: Outcome,
}

impl Sample {
    /// Time from the intended send to the outcome, in milliseconds.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "differences of hours in microseconds are far below 2^53"
    )]
    pub fn latency_ms(&self) -> f64 {
        (self.resolved_us - self.intended_us) as f64 / 1000.0
    }
}

/// How a call came out. Everything but [`Outcome::Ok`] counts against a share gate; the variants say why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Outcome {
    /// Answered in time, with the right meaning and, where one is checked, the right effect.
    Ok,
    /// Not answered within the age; it may still be running.
    Late,
    /// Connection refused or reset before an answer.
    Refused {
        /// What the connection said.
        why: String,
    },
    /// An answer came whose status or body does not mean success.
    Wrong {
        /// Status and an excerpt of the body.
        why: String,
    },
    /// The answer meant success but the effect is not there (a row that was not written).
    Lost {
        /// What was looked for and what was found.
        why: String,
    },
    /// Not sent at all: our own concurrency bound was reached because earlier calls still hang.
    Shed,
}

impl Outcome {
    /// True for the one outcome that does not count against a gate.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Outcome::Ok)
    }
}

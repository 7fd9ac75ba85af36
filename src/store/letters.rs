//! Dead letters: reports that their sink refused for good. They are kept until they are sent again, dropped, or older than
//! [`super::KEEP_SETTLED_REPORTS`] others.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// A report that its sink refused for good.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Its number, in the order in which reports were written.
    pub id: u64,
    /// The sink.
    pub sink: String,
    /// What it was told in order with.
    pub thread: String,
    /// The environment that it is about.
    pub environment: String,
    /// When the sink refused it.
    pub refused_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was refused.
    pub why: String,
    /// What the sink was to get.
    pub report: Value,
}

/// Which dead letters: those of whom all that is given is true.
#[derive(Debug, Clone, Copy, Default)]
pub struct LetterQuery<'a> {
    /// About this environment.
    pub environment: Option<&'a str>,
    /// For this sink, by its name in the outbox.
    pub sink: Option<&'a str>,
    /// Of these numbers.
    pub ids: Option<&'a [u64]>,
}

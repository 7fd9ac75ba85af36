//! How the lines of a followed log are read.

use regex::Regex;
use thiserror::Error;

use super::environment::Log;

/// A log's patterns, compiled.
#[derive(Debug, Clone)]
pub struct LogPatterns {
    /// Finds a request's beginning.
    pub start: Option<Regex>,
    /// Finds its end.
    pub end: Regex,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the log's `{which}` pattern: {why}")]
pub struct PatternError {
    /// The key that states it.
    pub which: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl LogPatterns {
    /// Compiles a log's patterns. Groups: `id` matches a beginning with its end; `exec_time_s` says in an end how long
    /// it took; `at` says when the line was written (`2025-01-06 09:58:07,300`, UTC unless it names its offset; without it
    /// the moment of reading counts).
    ///
    /// # Errors
    /// No regular expression, or none of the groups that would tell how long a request took.
    pub fn new(log: &Log) -> Result<Self, PatternError> {
        let compile = |which, text: &str| {
            Regex::new(text).map_err(|error| PatternError {
                which,
                why: error.to_string(),
            })
        };
        let has = |regex: &Regex, name| regex.capture_names().flatten().any(|group| group == name);
        let end = compile("end", &log.end)?;
        let start = log.start.as_ref().map(|text| compile("start", text)).transpose()?;
        if start.as_ref().is_some_and(|start| !has(start, "id")) {
            return Err(PatternError {
                which: "start",
                why: "it needs a group `id`, or no end can be matched with it".to_owned(),
            });
        }
        let matched = start.is_some() && has(&end, "id");
        if !matched && !has(&end, "exec_time_s") {
            return Err(PatternError {
                which: "end",
                why: "it needs a group `exec_time_s`, or a `start` pattern and a group `id` in both".to_owned(),
            });
        }
        Ok(Self { start, end })
    }
}

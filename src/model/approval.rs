//! A word on a promotion: that somebody approves of it, rejects it, takes an approval back, or breaks the glass with somebody.
//!
//! It is bound to what it was given for: the very build, what would be done with it (the plan), and what was known of it (the
//! evidence). Whoever signs, signs [`Word::text`], byte by byte.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Digest;

/// The namespace of its SSH signatures (`ssh-keygen -Y sign -n`): a signature of a commit or a file is no approval.
pub const NAMESPACE: &str = "approval@stagegate.dev";
/// A reason is for people, in a chat and in one line of an audit.
pub const LONGEST_REASON: usize = 500;

/// What somebody says of a promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Word {
    /// The promotion.
    pub promotion: String,
    /// What is said.
    pub decision: Verb,
    /// The environment that the build would enter.
    pub environment: String,
    /// Name of the build.
    pub build: String,
    /// What it is said for.
    pub bound: Bound,
    /// When, by the clock of who says it.
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of a glass that is broken: until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a word is bound to: where any of it changes, the word no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// The build's digest.
    pub digest: Digest,
    /// Of what would be done: the environment's rules, its nodes, and the builds that they run now.
    pub plan: Digest,
    /// Of what was known: where the build was verified, and what its gates said there.
    pub evidence: Digest,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// It asks for the promotion: who says that is its author, and approves of nothing.
    Request,
    /// It may go on.
    Approve,
    /// The approval that was given no longer counts.
    Withdraw,
    /// It must not go on.
    Reject,
    /// It may go on though rules keep it.
    BreakGlass,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Request => "request",
            Verb::Approve => "approve",
            Verb::Withdraw => "withdraw",
            Verb::Reject => "reject",
            Verb::BreakGlass => "break-glass",
        })
    }
}

impl Word {
    /// What is signed: one line a value, in this order, so that two programs write the same bytes. No value holds a line break.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            promotion,
            decision,
            environment,
            build,
            bound: Bound { digest, plan, evidence },
            at,
            reason,
            until,
        } = self;
        let line = |text: &str| text.replace(|c: char| c.is_control(), " ");
        format!(
            "stagegate word 1\ndecision: {decision}\npromotion: {}\nenvironment: {}\nbuild: {}\ndigest: {digest}\nplan: {plan}\n\
             evidence: {evidence}\nat: {at}\nreason: {}\nuntil: {}\n",
            line(promotion),
            line(environment),
            line(build),
            line(reason),
            until.map_or(String::new(), |until| until.to_string())
        )
    }
}

/// A word with what proves whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signed {
    /// What is said.
    pub word: Word,
    /// The SSH signature of [`Word::text`], armored.
    pub signature: String,
}

/// A word in an object of a cluster, whose API server has compared who says it with who asked it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Admitted {
    /// What is said.
    pub word: Word,
    /// The user who says it, as the API server names them.
    pub user: String,
    /// Groups of theirs by which they are in a role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Admitted {
    /// Of all that is said.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self { word, user, groups } = self;
        Digest::of(format!("{user:?} {groups:?} {word:?}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_make_a_line_of_its_own() {
        let bound = Bound {
            digest: Digest::of(b"1"),
            plan: Digest::of(b"2"),
            evidence: Digest::of(b"3"),
        };
        let word = Word {
            promotion: "p".to_owned(),
            decision: Verb::Approve,
            environment: "production".to_owned(),
            build: "web-1\ndecision: reject".to_owned(),
            bound,
            at: Timestamp::UNIX_EPOCH,
            reason: "fine\r\nat: never".to_owned(),
            until: None,
        };
        let text = word.text();
        let keys: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
        assert_eq!(
            keys,
            [
                "decision",
                "promotion",
                "environment",
                "build",
                "digest",
                "plan",
                "evidence",
                "at",
                "reason",
                "until"
            ]
        );
        assert!(text.contains("\nbuild: web-1 decision: reject\n"), "{text}");
        assert!(text.ends_with("\nreason: fine  at: never\nuntil: \n"), "{text}");
    }
}

//! What an issue must be for a commit to name it, and what a verdict says of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commits::finding::plain;
use crate::commits::policy::{IssueSpec, Policy};

/// Longest text of a tracker that is kept, characters: names of types and statuses have some twenty.
const MOST_CHARS: usize = 100;

/// An issue as its tracker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issue {
    /// Its key now; one that was moved has another.
    pub key: String,
    /// Its project's key.
    pub project: String,
    /// Its type's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its status' name.
    pub status: String,
    /// When the tracker said so.
    pub as_of: Timestamp,
}

impl Issue {
    /// As a tracker's texts have it, cut to what is kept.
    #[must_use]
    pub fn new(key: &str, project: &str, kind: &str, status: &str, as_of: Timestamp) -> Self {
        let kept = |text: &str| text.chars().take(MOST_CHARS).collect();
        Self {
            key: kept(key),
            project: kept(project),
            kind: kept(kind),
            status: kept(status),
            as_of,
        }
    }
}

/// What a tracker says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    There(Issue),
    /// It is not there, or hidden from who asks: a tracker does not tell these apart.
    NotThere,
    /// Nothing is known of it, and another may be answered all the same.
    Unavailable(String),
    /// Nothing is known of it, since the tracker answers nobody now, or not us.
    Silent(String),
}

/// The keys that one commit names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The commit, by its short name; of a title, `title`.
    pub commit: String,
    /// Every key of a known project, in the order in which they stand.
    pub keys: Vec<String>,
}

/// What came of looking the keys of a commit up, as a verdict keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueCheck {
    /// The first commit that names them, by its short name; of a title, `title`.
    pub commit: String,
    /// Its keys.
    pub keys: Vec<String>,
    /// What came of it.
    pub result: IssueResult,
}

/// What came of looking keys up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all_fields = "camelCase")]
pub enum IssueResult {
    /// One of them is an issue as the policy asks.
    Right {
        /// Which.
        issue: Issue,
    },
    /// None of them is.
    Wrong {
        /// Why not, of each.
        why: String,
    },
    /// It is not known: to be looked up before the commit is built upon.
    Unavailable {
        /// Why not.
        why: String,
    },
}

/// What a commit's keys come to. One issue that is right is enough, as one key is.
#[must_use]
pub fn judge(policy: &Policy, keys: &[String], answers: &BTreeMap<String, Answer>) -> IssueResult {
    let (mut wrong, mut silent) = (Vec::new(), None);
    for key in keys {
        match answers.get(key) {
            Some(Answer::There(issue)) => match why_not(policy, issue) {
                None => return IssueResult::Right { issue: issue.clone() },
                Some(why) => wrong.push(format!("{key} {why}")),
            },
            Some(Answer::NotThere) => wrong.push(format!("{key} is not there, or hidden from who asks")),
            Some(Answer::Unavailable(why) | Answer::Silent(why)) => {
                silent.get_or_insert_with(|| plain(why));
            }
            None => {
                silent.get_or_insert_with(|| "it was not asked".to_owned());
            }
        }
    }
    match silent {
        // One of those that are not known may be the one that is right.
        Some(why) => IssueResult::Unavailable { why },
        None => IssueResult::Wrong { why: wrong.join("; ") },
    }
}

/// Whether an issue is one that a commit may name.
#[must_use]
pub fn fits(policy: &Policy, issue: &Issue) -> bool {
    why_not(policy, issue).is_none()
}

/// Why an issue that is there is not one that a commit may name.
fn why_not(policy: &Policy, issue: &Issue) -> Option<String> {
    let IssueSpec { types, statuses, .. } = &policy.spec.message.issue;
    let projects = &policy.spec.message.issue_keys.projects;
    let Issue {
        key,
        project,
        kind,
        status,
        as_of: _,
    } = issue;
    if !projects.contains(project) {
        return Some(format!("is {} now, of another project", plain(key)));
    }
    for (what, is, allowed) in [("of type", kind, types), ("in status", status, statuses)] {
        let named = allowed.iter().any(|name| name.eq_ignore_ascii_case(is));
        if !allowed.is_empty() && !named {
            return Some(format!("is {what} `{}`, and not {}", plain(is), allowed.join(" or ")));
        }
    }
    None
}

/// All keys of these commits, each once.
#[must_use]
pub fn keys_of(named: &[Named]) -> BTreeSet<String> {
    named.iter().flat_map(|one| one.keys.iter().cloned()).collect()
}

/// What a verdict says of issues that nobody asked about.
#[must_use]
pub fn unasked(named: Vec<Named>, why: &str) -> Vec<IssueCheck> {
    let check = |Named { commit, keys }| IssueCheck {
        commit,
        keys,
        result: IssueResult::Unavailable { why: why.to_owned() },
    };
    named.into_iter().map(check).collect()
}

/// Whether a check has found an issue that a commit may name.
#[must_use]
pub fn is_right(policy: &Policy, check: &IssueCheck) -> bool {
    match &check.result {
        IssueResult::Right { issue } => fits(policy, issue),
        IssueResult::Wrong { .. } | IssueResult::Unavailable { .. } => false,
    }
}

/// Those that nobody could look up so far.
pub fn open(checks: &[IssueCheck]) -> impl Iterator<Item = &IssueCheck> {
    checks.iter().filter(|check| match check.result {
        IssueResult::Unavailable { .. } => true,
        IssueResult::Right { .. } | IssueResult::Wrong { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_issue_that_is_right_is_enough_and_one_that_is_not_known_is_not_wrong() {
        let text = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\nspec: {message: {issueKeys: {projects: [ABC]}, \
                    issue: {mode: MANDATORY, tracker: t, types: [Bug], statuses: [Open, In Review]}}}\n";
        let policy = Policy::read("p", text.as_bytes()).expect("valid");
        let there = |project: &str, kind, status| {
            Answer::There(Issue::new("ABC-9", project, kind, status, Timestamp::UNIX_EPOCH))
        };
        let answers: BTreeMap<String, Answer> = [
            ("right", there("ABC", "bug", "in review")),
            ("moved", there("DEF", "Bug", "Open")),
            ("epic", there("ABC", "Epic", "Open")),
            ("done", there("ABC", "Bug", "Done")),
            ("gone", Answer::NotThere),
            ("silent", Answer::Silent("it \u{1b} is down".to_owned())),
            ("closed", Answer::Unavailable("403".to_owned())),
        ]
        .map(|(key, answer)| (key.to_owned(), answer))
        .into();
        let judged = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            match judge(&policy, &keys, &answers) {
                IssueResult::Right { .. } => "right".to_owned(),
                IssueResult::Wrong { why } => format!("wrong: {why}"),
                IssueResult::Unavailable { why } => format!("unknown: {why}"),
            }
        };
        for (keys, expected) in [
            (&["right"][..], "right"),
            (&["gone", "right"], "right"),
            (&["silent", "right"], "right"),
            (&["moved"], "wrong: moved is ABC-9 now, of another project"),
            (&["epic"], "wrong: epic is of type `Epic`, and not Bug"),
            (&["done"], "wrong: done is in status `Done`, and not Open or In Review"),
            (&["gone"], "wrong: gone is not there, or hidden from who asks"),
            (&["gone", "silent"], "unknown: it \\u{1b} is down"),
            (&["closed"], "unknown: 403"),
            (&["never"], "unknown: it was not asked"),
        ] {
            assert_eq!(judged(keys), expected, "{keys:?}");
        }
    }
}

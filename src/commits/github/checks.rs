//! A verdict as GitHub shows it: a check run with annotations, or a commit status where no App may make one.

use serde::Serialize;
use serde_json::Value;

use crate::commits::finding::plain;
use crate::commits::proof::{Outcome, Verdict};
use crate::commits::tracker::issues;

/// GitHub's bound on annotations a request ("Update a check run").
pub const ANNOTATIONS_AT_ONCE: usize = 50;
/// GitHub's bound on `summary` and `text`, characters.
const MOST_TEXT_CHARS: usize = 65_535;
/// GitHub's bound on a status' description, characters.
const MOST_DESCRIPTION_CHARS: usize = 140;
/// GitHub's bound on an annotation's message is 64 KB; a person reads a line.
const MOST_MESSAGE_CHARS: usize = 1_000;

/// How a check run ends. Never `neutral` or `skipped`: those satisfy a required check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The verdict is a pass.
    Success,
    /// Something refused.
    Failure,
    /// The check could not be made; a person has to look.
    ActionRequired,
}

/// What a check run says when it ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ended {
    /// How.
    pub conclusion: Conclusion,
    /// In a line.
    pub title: String,
    /// In a paragraph, Markdown.
    pub summary: String,
    /// At most [`ANNOTATIONS_AT_ONCE`] a batch; each batch goes with a request of its own.
    #[serde(skip)]
    pub annotations: Vec<Vec<Annotation>>,
}

/// A remark at a line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Annotation {
    /// The file.
    pub path: String,
    /// From this line, 1 at least.
    pub start_line: u64,
    /// To this line.
    pub end_line: u64,
    /// `failure` or `warning`.
    pub annotation_level: &'static str,
    /// The rule.
    pub title: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Ended {
    /// Of a verdict.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        let refused = verdict.findings.iter().filter(|f| is_refused(f)).count();
        let (conclusion, title) = match &verdict.outcome {
            Outcome::Passed if verdict.hooks.is_empty() => (Conclusion::Success, "every rule is content".to_owned()),
            Outcome::Passed => (Conclusion::Success, "every rule and every hook is content".to_owned()),
            Outcome::Failed => (Conclusion::Failure, format!("{refused} refused")),
            Outcome::NotProven { why } => (Conclusion::ActionRequired, format!("not proven: {}", plain(why))),
        };
        let open: Vec<String> = issues::open(&verdict.issues)
            .map(|check| check.keys.join(" or "))
            .collect();
        let title = match (&verdict.outcome, open.as_slice()) {
            (Outcome::Passed, [_, ..]) => {
                format!("{title}, but for issues that are looked up later: {}", open.join(", "))
            }
            (Outcome::Passed | Outcome::Failed | Outcome::NotProven { .. }, _) => title,
        };
        let title = match (&verdict.outcome, verdict.findings.len() - refused) {
            // What is only suggested is easily overlooked behind a green mark.
            (Outcome::Passed, suggested @ 1..) => format!("{title}; {suggested} suggested"),
            (Outcome::Passed | Outcome::Failed | Outcome::NotProven { .. }, _) => title,
        };
        let annotations: Vec<Annotation> = verdict.findings.iter().filter_map(annotation).collect();
        Self {
            conclusion,
            title: bounded(&title, MOST_DESCRIPTION_CHARS),
            summary: summary(verdict),
            annotations: annotations.chunks(ANNOTATIONS_AT_ONCE).map(<[_]>::to_vec).collect(),
        }
    }

    /// The state of a commit status, for repositories without an App.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self.conclusion {
            Conclusion::Success => "success",
            Conclusion::Failure => "failure",
            Conclusion::ActionRequired => "error",
        }
    }
}

fn summary(verdict: &Verdict) -> String {
    let mut text = format!(
        "Commit `{}`, tree `{}`, policy `{}`, {} {}.\n\n```\n",
        verdict.subject.commit,
        verdict.subject.tree,
        verdict.policy.short(),
        verdict.engine.name,
        verdict.engine.version
    );
    let fence = "```\n";
    let blames = verdict.blames.iter().map(|blame| format!("{blame}\n"));
    for row in blames.chain(verdict.findings.iter().map(row)) {
        // Nothing that is found may close the fence and be taken for our own words.
        let row = row.replace("```", "'''");
        if text.chars().count() + row.chars().count() + fence.len() + 40 > MOST_TEXT_CHARS {
            text.push_str("… and more\n");
            break;
        }
        text.push_str(&row);
    }
    text + fence
}

fn row(finding: &Value) -> String {
    let word = |name: &str| finding[name].as_str().map(plain).unwrap_or_default();
    let line = finding["line"]
        .as_u64()
        .map_or_else(String::new, |line| format!(":{line}"));
    let (commit, path) = (word("commit"), word("path"));
    let space = if commit.is_empty() || path.is_empty() { "" } else { " " };
    let suggested = if is_refused(finding) { "" } else { " (suggested)" };
    format!(
        "{commit}{space}{path}{line} {}{suggested} {}; {}\n",
        word("rule"),
        word("message"),
        word("fix")
    )
}

fn is_refused(finding: &Value) -> bool {
    finding["level"] == "refused"
}

/// Findings without a file are in the summary only: GitHub has no place for them.
fn annotation(finding: &Value) -> Option<Annotation> {
    let word = |name: &str| finding[name].as_str().map(plain).unwrap_or_default();
    let line = finding["line"].as_u64().unwrap_or(1).max(1);
    Some(Annotation {
        path: finding["path"].as_str()?.to_owned(),
        start_line: line,
        end_line: line,
        annotation_level: if is_refused(finding) { "failure" } else { "warning" },
        title: word("rule"),
        message: bounded(&format!("{}; {}", word("message"), word("fix")), MOST_MESSAGE_CHARS),
    })
}

fn bounded(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::commits::proof::{Engine, Subject};
    use crate::model::values::Digest;

    fn verdict(outcome: Outcome, findings: Vec<Value>) -> Verdict {
        Verdict {
            subject: Subject {
                repository: "r".to_owned(),
                commit: "c".repeat(40),
                tree: "t".repeat(40),
            },
            policy: Digest::of(b""),
            engine: Engine {
                name: "stagegate".to_owned(),
                version: "1".to_owned(),
            },
            hooks: Vec::new(),
            outcome,
            findings,
            issues: Vec::new(),
            blames: Vec::new(),
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn finding(n: u64) -> Value {
        json!({"rule": "secret", "level": "refused", "path": format!("f{n}"), "line": n, "message": "m\u{202e}\u{1b}[31m ``` x", "fix": "take it out"})
    }

    #[test]
    fn three_hundred_findings_go_in_batches_and_no_text_is_too_long() {
        let ended = Ended::of(&verdict(Outcome::Failed, (0..300).map(finding).collect()));
        let sizes: Vec<usize> = ended.annotations.iter().map(Vec::len).collect();
        assert_eq!(sizes, [50; 6]);
        assert_eq!(ended.title, "300 refused");
        assert_eq!(ended.annotations[0][0].start_line, 1, "GitHub counts from 1");
        assert_eq!(
            ended.annotations[0][0].message,
            "m\\u{202e}\\u{1b}[31m ``` x; take it out"
        );
        let many = Ended::of(&verdict(Outcome::Failed, (0..5_000).map(finding).collect()));
        assert!(
            many.summary.chars().count() <= MOST_TEXT_CHARS,
            "{}",
            many.summary.len()
        );
        assert!(many.summary.ends_with("… and more\n```\n"));
        assert_eq!(many.summary.matches("```").count(), 2, "nothing found closes the fence");
    }

    #[test]
    fn what_is_only_suggested_is_told_behind_a_green_mark_too() {
        let mut warned = finding(1);
        warned["level"] = json!("warned");
        let ended = Ended::of(&verdict(Outcome::Passed, vec![warned]));
        assert_eq!(ended.title, "every rule is content; 1 suggested");
        assert!(ended.summary.contains("f1:1 secret (suggested) m"), "{}", ended.summary);
    }

    #[test]
    fn what_could_not_be_checked_never_satisfies_a_required_check() {
        let why = "no sandbox ".repeat(50);
        for (outcome, conclusion, status) in [
            (Outcome::Passed, "success", "success"),
            (Outcome::Failed, "failure", "failure"),
            (Outcome::NotProven { why }, "action_required", "error"),
        ] {
            let ended = Ended::of(&verdict(outcome, Vec::new()));
            assert_eq!(json!(ended.conclusion), conclusion);
            assert_eq!(ended.status(), status);
            assert!(ended.title.chars().count() <= MOST_DESCRIPTION_CHARS);
        }
    }
}

//! A freeze: when nothing moves somewhere, and what becomes of what is moving already.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::Span;
use super::system::Finding;
use super::text::path::Part;

/// Stretches of one freeze, at most: a year of weekends is one that recurs.
const MOST_SPANS: usize = 64;

/// When nothing moves, where, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FreezeSpec {
    /// Why, for whoever waits for it.
    pub reason: String,
    /// The environments that it holds, by name; `*` stands for any of them, and for any letters within a name.
    pub environments: Vec<String>,
    /// When it holds: in each of these stretches. Empty, it holds from its beginning to the day when it is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Span>,
    /// What becomes of an upgrade that is under way when it begins.
    #[serde(default)]
    pub in_flight: InFlight,
    /// Who stated it, where a command did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
}

/// What becomes of an upgrade that is under way when a freeze begins. One that goes back goes on in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InFlight {
    /// It goes on to its end.
    #[default]
    FinishUpgrade,
    /// Its nodes that are being changed are, and it pauses then.
    FinishBatch,
    /// The steps that run end, and it pauses.
    Pause,
}

impl FreezeSpec {
    /// Whether it holds an environment of this name, when it holds.
    #[must_use]
    pub fn names(&self, environment: &str) -> bool {
        self.environments.iter().any(|pattern| is_named(pattern, environment))
    }

    /// Everything that is wrong with it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let key = |name: &str| Part::Key(name.to_owned());
        let mut findings = Vec::new();
        let mut say = |path: Vec<Part>, message: String, hint: &str| {
            findings.push(Finding {
                path,
                message,
                hint: Some(hint.to_owned()),
            });
        };
        if self.reason.trim().is_empty() {
            say(
                vec![key("reason")],
                "a freeze without a reason helps nobody who waits for it".to_owned(),
                "say why nothing may move",
            );
        }
        if self.environments.is_empty() {
            say(
                vec![key("environments")],
                "it holds no environment".to_owned(),
                "name one, or write `*` for all",
            );
        }
        if self.when.len() > MOST_SPANS {
            say(
                vec![key("when")],
                format!(
                    "it has {} stretches, and at most {MOST_SPANS} are looked at",
                    self.when.len()
                ),
                "write those that recur as one",
            );
        }
        for (i, span) in self.when.iter().enumerate() {
            findings.extend(span.findings(&[key("when"), Part::Index(i)]));
        }
        findings
    }
}

/// Whether a pattern with `*` for any letters names this.
fn is_named(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(after) = name.strip_prefix(begin) else {
        return false;
    };
    (0..=after.len())
        .filter(|at| after.is_char_boundary(*at))
        .any(|at| is_named(rest, &after[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, names, others) in [
            (
                "production",
                vec!["production"],
                vec!["production-2", "a-production", ""],
            ),
            ("*", vec!["production", ""], vec![]),
            ("prod-*", vec!["prod-", "prod-eu"], vec!["prod", "a-prod-eu"]),
            ("*-eu-*", vec!["prod-eu-1", "-eu-"], vec!["prod-eu", "eu-1"]),
            ("a*b*c", vec!["abc", "a-b-b-c"], vec!["acb", "abcd"]),
        ] {
            assert!(names.iter().all(|name| is_named(pattern, name)), "{pattern}");
            assert!(!others.iter().any(|name| is_named(pattern, name)), "{pattern}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_found() {
        let stated = serde_json::json!({
            "reason": " ", "environments": [], "when": [{}, {"once": {"from": "2026-02-01T00:00Z", "until": "2026-01-01T00:00Z"}},
            {"recurring": {"from": "0 0 * * *"}}],
        });
        let freeze: FreezeSpec = serde_json::from_value(stated).expect("a freeze");
        let paths: Vec<String> = freeze.findings().iter().map(|f| format!("{:?}", f.path)).collect();
        assert_eq!(paths.len(), 5, "{paths:#?}");
    }
}

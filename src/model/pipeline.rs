//! A pipeline: the stages that a component's builds go through, and what each demands of a build before it enters.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::Span;
use super::system::Finding;
use super::text::path::Part;
use super::text::{did_you_mean, is_dns_label};
use super::values::Duration;

/// Stages of one pipeline, at most: more than anybody can follow on one screen.
const MOST_STAGES: usize = 32;

/// How builds of a component reach production.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PipelineSpec {
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The component whose builds go through it.
    pub component: String,
    /// Which build a stage takes where several might enter by themselves.
    #[serde(default)]
    pub take: Take,
    /// Who may approve what, by role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, Role>,
    /// The stages.
    pub stages: Vec<Stage>,
}

/// Which of several builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Take {
    /// The one that was verified upstream last; those before it are passed over.
    #[default]
    NewestVerified,
    /// The one that was verified first, and so every one in its turn.
    OldestFirst,
}

/// Who may approve.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    /// File of the workspace with the SSH keys of its members, as `ssh-keygen` reads `allowed_signers`: who approves by a command signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_signers: Option<String>,
    /// Users of a cluster, as its API server names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Groups of a cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// The environment that its builds enter.
    pub environment: String,
    /// The stages in which a build must have been verified, with the same digest, before it enters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Whether a build enters by itself once nothing keeps it, or when somebody says so.
    #[serde(default)]
    pub start: Start,
    /// Rehearsals that the build goes through here; each puts it onto the stage's environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rehearsals: Vec<String>,
    /// How long a build has to have been verified here before a later stage takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Duration>,
    /// Who has to approve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalRule>,
    /// When builds may enter; at any time without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Span>,
    /// The only version that may enter, for as long as it is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Nothing enters, for as long as it is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// When a build enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// When somebody says so (`stagegate promote`).
    #[default]
    Manual,
    /// By itself, once every stage before has verified it; where somebody has to approve, once they have.
    Auto,
}

/// Approvals that are needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalRule {
    /// Of people in this role.
    pub role: String,
    /// So many of them.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub count: u8,
    /// How long each counts.
    #[serde(default = "a_day")]
    pub expires: Duration,
}

fn one() -> u8 {
    1
}

/// From one working day into the next.
fn a_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

/// A version that a stage stays on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// Which.
    pub version: String,
    /// Why.
    pub reason: String,
}

/// A stage that takes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    /// Why.
    pub reason: String,
}

impl PipelineSpec {
    /// A stage by its name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// The stage whose builds enter an environment.
    #[must_use]
    pub fn stage_into(&self, environment: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.environment == environment)
    }

    /// Everything that is wrong with it by itself.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut checker = Checker {
            pipeline: self,
            findings: Vec::new(),
        };
        checker.whole();
        checker.findings
    }
}

struct Checker<'a> {
    pipeline: &'a PipelineSpec,
    findings: Vec<Finding>,
}

fn key(name: &str) -> Part {
    Part::Key(name.to_owned())
}

impl Checker<'_> {
    fn say(&mut self, path: &[Part], message: String, hint: impl Into<Option<String>>) {
        self.findings.push(Finding {
            path: path.to_vec(),
            message,
            hint: hint.into(),
        });
    }

    fn whole(&mut self) {
        let pipeline = self.pipeline;
        let stages = [key("stages")];
        if pipeline.stages.is_empty() {
            self.say(&stages, "a pipeline needs at least one stage".to_owned(), None);
        }
        if pipeline.stages.len() > MOST_STAGES {
            let message = format!(
                "it has {} stages, and at most {MOST_STAGES} are possible",
                pipeline.stages.len()
            );
            self.say(&stages, message, "divide it".to_owned());
        }
        for (name, role) in &pipeline.roles {
            let Role {
                allowed_signers,
                users,
                groups,
            } = role;
            if allowed_signers.is_none() && users.is_empty() && groups.is_empty() {
                let hint = "give `allowedSigners`, or, in a cluster, `users` or `groups`".to_owned();
                self.say(&[key("roles"), key(name)], format!("nobody is in role `{name}`"), hint);
            }
        }
        let mut names = BTreeSet::new();
        let mut environments = BTreeMap::new();
        for (s, stage) in pipeline.stages.iter().enumerate() {
            let at = |name: &str| [key("stages"), Part::Index(s), key(name)];
            if !is_dns_label(&stage.name) {
                let hint = "use small letters, digits and `-`, at most 63".to_owned();
                self.say(&at("name"), format!("`{}` cannot name a stage", stage.name), hint);
            }
            if !names.insert(stage.name.as_str()) {
                self.say(&at("name"), format!("there are two stages `{}`", stage.name), None);
            }
            if let Some(other) = environments.insert(stage.environment.as_str(), stage.name.as_str()) {
                let message = format!("stage `{other}` leads into environment `{}` already", stage.environment);
                self.say(&at("environment"), message, "let one stage lead into it".to_owned());
            }
            self.stage(s, stage);
        }
        self.circles();
    }

    fn stage(&mut self, s: usize, stage: &Stage) {
        let at = |name: &str| vec![key("stages"), Part::Index(s), key(name)];
        let below = |name: &str, i: usize| [at(name), vec![Part::Index(i)]].concat();
        for (i, before) in stage.after.iter().enumerate() {
            if self.pipeline.stage(before).is_none() {
                let names = self.pipeline.stages.iter().map(|stage| stage.name.as_str());
                let hint = did_you_mean(before, names).map(|near| format!("did you mean `{near}`?"));
                self.say(&below("after", i), format!("there is no stage `{before}`"), hint);
            }
        }
        if stage.start == Start::Auto && stage.after.is_empty() {
            let hint = "name a stage in `after`, or start it by hand".to_owned();
            let message = "what no stage before has verified never enters by itself".to_owned();
            self.say(&at("start"), message, hint);
        }
        for (i, rule) in stage.approvals.iter().enumerate() {
            if !self.pipeline.roles.contains_key(&rule.role) {
                let names = self.pipeline.roles.keys().map(String::as_str);
                let hint = did_you_mean(&rule.role, names).map(|near| format!("did you mean `{near}`?"));
                self.say(
                    &below("approvals", i),
                    format!("there is no role `{}`", rule.role),
                    hint,
                );
            }
            if rule.count == 0 {
                let hint = "write 1 or more, or take the rule out".to_owned();
                self.say(&below("approvals", i), "an approval of nobody is none".to_owned(), hint);
            }
        }
        for (i, span) in stage.windows.iter().enumerate() {
            self.findings.extend(span.findings(&below("windows", i)));
        }
        let reasons = [
            ("pin", stage.pin.as_ref().map(|pin| &pin.reason)),
            ("hold", stage.hold.as_ref().map(|hold| &hold.reason)),
        ];
        for (name, reason) in reasons {
            if reason.is_some_and(|reason| reason.trim().is_empty()) {
                self.say(
                    &at(name),
                    format!("a {name} without a reason helps nobody who waits for it"),
                    None,
                );
            }
        }
    }

    /// A stage that comes after itself would never take anything.
    fn circles(&mut self) {
        for (s, stage) in self.pipeline.stages.iter().enumerate() {
            let mut seen = BTreeSet::new();
            let mut open: Vec<&str> = stage.after.iter().map(String::as_str).collect();
            while let Some(name) = open.pop() {
                if name == stage.name {
                    let path = [key("stages"), Part::Index(s), key("after")];
                    self.say(&path, format!("stage `{name}` comes after itself"), None);
                    break;
                }
                if seen.insert(name) {
                    let after = self.pipeline.stage(name).into_iter().flat_map(|stage| &stage.after);
                    open.extend(after.map(String::as_str));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn findings(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut stated = json!({
            "component": "web",
            "roles": {"managers": {"allowedSigners": "hooks/managers"}},
            "stages": [
                {"name": "staging", "environment": "staging", "soak": "1h"},
                {"name": "production", "environment": "production", "start": "auto", "after": ["staging"],
                 "approvals": [{"role": "managers"}],
                 "windows": [{"recurring": {"from": "0 9 * * MON-THU", "for": "7h", "timeZone": "Europe/Zurich"}}]},
            ],
        });
        change(&mut stated);
        let pipeline: PipelineSpec = serde_json::from_value(stated).expect("a pipeline");
        pipeline.findings().into_iter().map(|finding| finding.message).collect()
    }

    type Change = Box<dyn Fn(&mut Value)>;

    #[test]
    fn what_is_wrong_with_a_pipeline_is_found() {
        assert_eq!(findings(|_| ()), Vec::<String>::new());
        let rows: [(&str, Change); 10] = [
            (
                "what no stage before has verified never enters by itself",
                Box::new(|p| p["stages"][1]["after"] = json!([])),
            ),
            (
                "there is no stage `stagin`",
                Box::new(|p| p["stages"][1]["after"] = json!(["stagin"])),
            ),
            (
                "there is no role `manager`",
                Box::new(|p| p["stages"][1]["approvals"][0]["role"] = json!("manager")),
            ),
            (
                "an approval of nobody is none",
                Box::new(|p| p["stages"][1]["approvals"][0]["count"] = json!(0)),
            ),
            (
                "stage `staging` leads into environment `staging` already",
                Box::new(|p| p["stages"][1]["environment"] = json!("staging")),
            ),
            (
                "there are two stages `staging`",
                Box::new(|p| {
                    p["stages"][1]["name"] = json!("staging");
                    p["stages"][1]["after"] = json!([]);
                    p["stages"][1]["start"] = json!("manual");
                }),
            ),
            (
                "nobody is in role `managers`",
                Box::new(|p| p["roles"]["managers"] = json!({})),
            ),
            (
                "a hold without a reason helps nobody who waits for it",
                Box::new(|p| p["stages"][1]["hold"] = json!({"reason": ""})),
            ),
            (
                "a stretch of time is of exactly one kind",
                Box::new(|p| p["stages"][1]["windows"] = json!([{}])),
            ),
            (
                "a pipeline needs at least one stage",
                Box::new(|p| p["stages"] = json!([])),
            ),
        ];
        for (expected, change) in rows {
            assert_eq!(findings(change), [expected]);
        }
        let circle = findings(|p| p["stages"][0]["after"] = json!(["production"]));
        assert_eq!(
            circle,
            [
                "stage `staging` comes after itself",
                "stage `production` comes after itself"
            ]
        );
    }
}

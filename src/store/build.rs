//! What a home knows of a build: where it was proven, where it may not go.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::values::Digest;

/// Status of a Build. Fields that this version does not know are kept as they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildStatus {
    /// Where it ran with every gate passed; one an environment, the last.
    #[serde(default)]
    pub verifications: Vec<Verification>,
    /// Where it may not go again until released; one an environment.
    #[serde(default)]
    pub quarantines: Vec<Quarantine>,
    /// The environments of `verifications`, with commas between: a column of `kubectl get` shows one value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verified_where: String,
    /// Those of `quarantines`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub quarantined_where: String,
    /// Quarantines that somebody has lifted; one an environment, the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Release>,
    /// Conditions as Kubernetes writes them.
    #[serde(default)]
    pub conditions: Vec<Value>,
    /// What other versions wrote.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl BuildStatus {
    /// Why it may not go onto this environment, if so.
    #[must_use]
    pub fn quarantined_in(&self, environment: &str) -> Option<&Quarantine> {
        self.quarantines.iter().find(|q| q.environment == environment)
    }

    /// A condition by its type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<Condition> {
        let found = self.conditions.iter().find(|c| c["type"] == kind)?;
        Condition::deserialize(found).ok()
    }

    /// As [`put_condition`].
    pub fn set_condition(&mut self, new: Condition) {
        put_condition(&mut self.conditions, new);
    }

    /// Applies one mark. A new one replaces the environment's old one, so that lists stay as short as there are environments.
    pub(crate) fn apply(&mut self, mark: &Mark) {
        match mark {
            Mark::Quarantine(new) => {
                self.quarantines.retain(|q| q.environment != new.environment);
                self.quarantines.push(new.clone());
            }
            Mark::Verify(new) => {
                self.verifications.retain(|v| v.environment != new.environment);
                self.verifications.push(new.clone());
            }
            Mark::Release(new) => {
                self.quarantines.retain(|q| q.environment != new.environment);
                self.releases.retain(|r| r.environment != new.environment);
                self.releases.push(new.clone());
            }
        }
        self.name_environments();
    }

    fn name_environments(&mut self) {
        let names = |all: Vec<&str>| all.join(",");
        self.verified_where = names(self.verifications.iter().map(|v| v.environment.as_str()).collect());
        self.quarantined_where = names(self.quarantines.iter().map(|q| q.environment.as_str()).collect());
    }

    /// Drops what concerns an environment that is no more; tells whether there was anything.
    pub(super) fn forget(&mut self, environment: &str) -> bool {
        let marks = |status: &Self| status.verifications.len() + status.quarantines.len() + status.releases.len();
        let before = marks(self);
        self.verifications.retain(|v| v.environment != environment);
        self.quarantines.retain(|q| q.environment != environment);
        self.releases.retain(|r| r.environment != environment);
        self.name_environments();
        before != marks(self)
    }
}

/// Puts a condition in the place of the one of its type. The time of its transition stays where its status does, and what
/// other versions wrote into it is kept.
pub fn put_condition(conditions: &mut Vec<Value>, mut new: Condition) {
    let Some(place) = conditions.iter().position(|c| c["type"] == new.kind.as_str()) else {
        conditions.push(new.to_json());
        return;
    };
    if let Ok(old) = Condition::deserialize(&conditions[place])
        && old.status == new.status
    {
        new.last_transition_time = old.last_transition_time;
    }
    match (conditions[place].as_object_mut(), new.to_json()) {
        (Some(old), Value::Object(new)) => old.extend(new),
        (_, new) => conditions[place] = new,
    }
}

/// A condition as Kubernetes writes them (`metav1.Condition`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Of what.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When the status last changed.
    pub last_transition_time: Timestamp,
}

impl Condition {
    fn to_json(&self) -> Value {
        serde_json::json!(self)
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
    /// It is not known, which is not a yes.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl std::fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        })
    }
}

/// A build ran in an environment with every gate passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Where.
    pub environment: String,
    /// Which bytes exactly.
    pub digest: Digest,
    /// When.
    pub at: Timestamp,
    /// Who has asked for the promotion that brought it there, by the name that it has of them; a promotion may be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
}

/// A build failed in an environment and may not go there again until released with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// Where.
    pub environment: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// A build may go onto an environment again where it failed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Where.
    pub environment: String,
    /// Why.
    pub reason: String,
    /// Who says so.
    pub user: String,
    /// Since when.
    pub at: Timestamp,
}

/// A mark for a build, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildChange {
    /// Name of the Build resource, which must exist.
    pub build: String,
    /// What to note.
    pub mark: Mark,
}

/// What is noted about a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// It may not go there again.
    Quarantine(Quarantine),
    /// It was proven there.
    Verify(Verification),
    /// It may go there again.
    Release(Release),
}

impl Mark {
    /// The environment that it is about.
    #[must_use]
    pub fn environment(&self) -> &str {
        match self {
            Mark::Quarantine(q) => &q.environment,
            Mark::Verify(v) => &v.environment,
            Mark::Release(r) => &r.environment,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_keeps_the_time_of_its_transition_and_what_others_wrote() {
        let new = |status, message: &str, second| Condition {
            kind: "HooksPassed".to_owned(),
            status,
            reason: "Tested".to_owned(),
            message: message.to_owned(),
            last_transition_time: Timestamp::from_second(second).expect("in range"),
        };
        let mut status: BuildStatus = serde_json::from_value(json!({"conditions": [
            {"type": "Ready", "status": "True", "observedGeneration": 1}
        ]}))
        .expect("a status");
        status.set_condition(new(ConditionStatus::True, "a", 1));
        status.set_condition(new(ConditionStatus::True, "b", 2));
        assert_eq!(
            status.condition("HooksPassed"),
            Some(new(ConditionStatus::True, "b", 1))
        );
        status.set_condition(new(ConditionStatus::False, "c", 3));
        assert_eq!(
            status.condition("HooksPassed"),
            Some(new(ConditionStatus::False, "c", 3))
        );
        status.conditions[1]["observedGeneration"] = json!(4);
        status.set_condition(new(ConditionStatus::False, "d", 5));
        assert_eq!(status.conditions[1]["observedGeneration"], 4);
        assert_eq!(
            status.conditions[0],
            json!({"type": "Ready", "status": "True", "observedGeneration": 1})
        );
        assert_eq!(status.conditions.len(), 2);
    }
}

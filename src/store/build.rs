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

    /// Applies one mark. A new one replaces the environment's old one, so that lists stay as short as there are environments.
    pub(super) fn apply(&mut self, mark: &Mark) {
        match mark {
            Mark::Quarantine(new) => {
                self.quarantines.retain(|q| q.environment != new.environment);
                self.quarantines.push(new.clone());
            }
            Mark::Verify(new) => {
                self.verifications.retain(|v| v.environment != new.environment);
                self.verifications.push(new.clone());
            }
            Mark::Release { environment } => {
                self.quarantines.retain(|q| q.environment != *environment);
            }
        }
    }

    /// Drops what concerns an environment that is no more; tells whether there was anything.
    pub(super) fn forget(&mut self, environment: &str) -> bool {
        let before = self.verifications.len() + self.quarantines.len();
        self.verifications.retain(|v| v.environment != environment);
        self.quarantines.retain(|q| q.environment != environment);
        before != self.verifications.len() + self.quarantines.len()
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
    Release {
        /// Where.
        environment: String,
    },
}

impl Mark {
    /// The environment that it is about.
    #[must_use]
    pub fn environment(&self) -> &str {
        match self {
            Mark::Quarantine(q) => &q.environment,
            Mark::Verify(v) => &v.environment,
            Mark::Release { environment } => environment,
        }
    }
}

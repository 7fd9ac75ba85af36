//! What a full check of one commit came to. It holds for exactly this commit, tree, policy and engine, and for nothing that
//! merely has the same name.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commits::finding::plain;
use crate::commits::tracker::{IssueCheck, issues};
use crate::model::values::Digest;

/// What was checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subject {
    /// The repository, by the name that its policy's owner gave it: a URL, or a path on the server.
    pub repository: String,
    /// Full name of the commit, hexadecimal.
    pub commit: String,
    /// Full name of its tree, hexadecimal.
    pub tree: String,
}

/// Who checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Engine {
    /// `stagegate`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One of the repository's own hooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookRun {
    /// Its id in the configuration.
    pub id: String,
    /// The revision of the repository that it comes from; `local` or `builtin` where it has none.
    pub revision: String,
    /// Whether a rule of ours stood for it, or it was run.
    pub native: bool,
    /// Whether it was content.
    pub passed: Passed,
}

/// A plain yes or no that reads well in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Passed {
    /// It was content.
    Yes,
    /// It was not.
    No,
}

/// When what a commit is refused for came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Since {
    /// With what was checked.
    ThisCommit,
    /// Earlier: the base is refused for it, too.
    Before,
}

/// A commit of those that were checked together, and what it is refused for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Blame {
    /// Full name of the commit, hexadecimal.
    pub commit: String,
    /// Who wrote it, as it says.
    pub author: String,
    /// Rules, by their names, and hooks, as `hook ID`.
    pub rules: Vec<String>,
    /// Whether it is the one that brought it.
    pub since: Since,
}

/// One harmless line.
impl std::fmt::Display for Blame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { author, since, .. } = self;
        let commit = self.commit.get(..10).unwrap_or(&self.commit);
        let rules = plain(&self.rules.join(", "));
        match since {
            Since::ThisCommit => write!(f, "{commit} by {} is refused by {rules}", plain(author)),
            Since::Before => write!(f, "{commit}, where the base was before, is refused by {rules}, too"),
        }
    }
}

/// How a full check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// Every rule and every hook was content.
    Passed,
    /// Something refused.
    Failed,
    /// The check could not be made as it has to be (no sandbox, no tool, cut off): never a pass.
    NotProven {
        /// Why.
        why: String,
    },
}

/// What a full check of one commit came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// What was checked.
    pub subject: Subject,
    /// The policy that it was checked against, by the digest of its text; of the built-in policy, that of the empty text.
    pub policy: Digest,
    /// Who checked.
    pub engine: Engine,
    /// The repository's own hooks, as far as they came.
    pub hooks: Vec<HookRun>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, as [`crate::commits::finding::Finding::to_json`] has it; bounded by
    /// [`crate::commits::finding::MOST_KEPT`].
    pub findings: Vec<serde_json::Value>,
    /// The issues that the policy wants looked up, and what the tracker said; where it could not be asked, a pass proves
    /// nothing until it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<IssueCheck>,
    /// Which of the commits that were checked together are refused, and for what, as far as it was found out: that one is
    /// missing says nothing of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blames: Vec<Blame>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Verdict {
    /// Whether issues are still to be looked up, so that a pass proves nothing yet.
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        issues::open(&self.issues).next().is_some()
    }
}

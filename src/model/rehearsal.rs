//! A rehearsal: traffic, disturbances and upgrades run together on a replica, with what must come out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::environment::EnvironmentSpec;
use super::system::Finding;
use super::upgrade::{Phase, UpgradeStatus};
use super::values::Duration;

/// The version, in a run's `COMPONENT=VERSION`, that stands for the build of the promotion that the rehearsal is run for.
pub const CANDIDATE: &str = "candidate";

/// What is rehearsed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RehearsalSpec {
    /// What it shows.
    #[serde(default)]
    pub description: String,
    /// The environment; it must be up.
    pub environment: String,
    /// What must run on every node before the first run, as `COMPONENT=VERSION`: an upgrade without disturbances puts it there
    /// where it does not. With it a rehearsal can be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<String>,
    /// What goes on beside every run.
    #[serde(default)]
    pub disturbances: Vec<Disturbance>,
    /// The upgrades, one after the other.
    pub runs: Vec<Run>,
}

impl RehearsalSpec {
    /// Whether it is for whichever build is promoted.
    #[must_use]
    pub fn names_candidate(&self) -> bool {
        let builds = self.start_from.iter().chain(self.runs.iter().map(|run| &run.build));
        builds
            .into_iter()
            .any(|build| build.split_once('=').is_some_and(|(_, version)| version == CANDIDATE))
    }

    /// Everything that is wrong with it by itself and, where that is known, on its environment.
    #[must_use]
    pub fn findings(&self, environment: Option<&EnvironmentSpec>) -> Vec<Finding> {
        super::check::rehearsal::findings(self, environment)
    }
}

/// Something that goes wrong on purpose: exactly one kind is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disturbance {
    /// Its name.
    pub name: String,
    /// A session holds rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_row: Option<HoldRow>,
    /// A component's services are stopped and started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_component: Option<RestartComponent>,
    /// A node's service is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_node: Option<KillNode>,
    /// A node's disk is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill_disk: Option<FillDisk>,
}

/// A session holds the rows of a SELECT … FOR UPDATE for part of every period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoldRow {
    /// Name of the environment's database.
    pub database: String,
    /// The SELECT … FOR UPDATE, a template.
    pub sql: String,
    /// How long the rows are held.
    pub hold: Duration,
    /// From one hold's beginning to the next.
    pub every: Duration,
}

/// A component's services are stopped and started once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartComponent {
    /// Which.
    pub component: String,
    /// After the run's beginning.
    pub after: Duration,
}

/// A node's service is killed once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KillNode {
    /// Which; a node of this machine.
    pub node: String,
    /// After the run's beginning.
    pub after: Duration,
}

/// A node's file system is filled up but for a rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FillDisk {
    /// Which; a node of this machine whose directory is a file system of its own.
    pub node: String,
    /// After the run's beginning.
    pub after: Duration,
    /// How long it stays full.
    pub hold: Duration,
    /// What stays free.
    #[serde(default)]
    pub leave_mib: u64,
}

/// One upgrade, and what must come out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// What goes on, as `COMPONENT=VERSION`; `COMPONENT=candidate` is the build of the promotion that it is run for.
    pub build: String,
    /// What must come out.
    pub expect: Expected,
}

/// What must come out of a run; what is not stated is not looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// The phase that it ends in.
    pub phase: Phase,
    /// The reason of that phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the build is quarantined then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blamed: Option<bool>,
    /// A regular expression that the statement of a holder or of one that waits must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocker_statement: Option<String>,
    /// From the first bad call to the gate's Fail at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_within: Option<Duration>,
    /// From the gate's Fail to the proof of the cure at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cured_within: Option<Duration>,
}

/// Compares what came out with what must: one sentence for each thing that differs.
#[must_use]
pub fn unmet(expected: &Expected, status: &UpgradeStatus, quarantined: bool) -> Vec<String> {
    let Expected {
        phase,
        reason,
        blamed,
        blocker_statement,
        fail_within,
        cured_within,
    } = expected;
    let mut unmet = Vec::new();
    if status.phase != *phase {
        unmet.push(format!(
            "ended {:?} ({}), expected {phase:?}: {}",
            status.phase, status.reason, status.message
        ));
    }
    if let Some(reason) = reason
        && status.reason != *reason
    {
        unmet.push(format!("ended with the reason {}, expected {reason}", status.reason));
    }
    if let Some(blamed) = blamed
        && quarantined != *blamed
    {
        let is = |yes: bool| if yes { "quarantined" } else { "not quarantined" };
        unmet.push(format!("the build is {}, expected {}", is(quarantined), is(*blamed)));
    }
    if let Some(pattern) = blocker_statement {
        let statements: Vec<&str> = status
            .blockers
            .iter()
            .flat_map(|b| std::iter::once(&b.holder).chain(&b.waiting))
            .map(|s| s.statement.as_str())
            .collect();
        let matches = regex::Regex::new(pattern).is_ok_and(|p| statements.iter().any(|s| p.is_match(s)));
        if !matches {
            unmet.push(format!(
                "no blocked or blocking statement matches `{pattern}`: {statements:?}"
            ));
        }
    }
    let failed = status
        .gates
        .iter()
        .filter(|g| g.verdict == super::upgrade::Verdict::Fail)
        .find_map(|g| Some((g.onset_at?, g.decided_at?)));
    if let Some(limit) = fail_within {
        match failed {
            None => unmet.push("no gate failed".to_owned()),
            Some((onset, decided)) if decided.duration_since(onset) > limit.signed() => unmet.push(format!(
                "from the first bad call to the Fail it took {:.1} s, expected at most {limit}",
                decided.duration_since(onset).as_secs_f64()
            )),
            Some(_) => {}
        }
    }
    if let Some(limit) = cured_within {
        let proven = status.cure.as_ref().and_then(|c| c.proven_at);
        match (failed, proven) {
            (Some((_, decided)), Some(proven)) if proven.duration_since(decided) <= limit.signed() => {}
            (Some((_, decided)), Some(proven)) => unmet.push(format!(
                "from the Fail to the proof of the cure it took {:.1} s, expected at most {limit}",
                proven.duration_since(decided).as_secs_f64()
            )),
            (None, _) | (_, None) => unmet.push("no cure was proven".to_owned()),
        }
    }
    unmet
}

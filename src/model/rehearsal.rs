//! A rehearsal: traffic, disturbances and upgrades run together on a replica, with what must come out.

use jiff::Timestamp;
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
    #[schemars(length(min = 1))]
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

    /// The same for one version, which stands where it says `candidate`.
    #[must_use]
    pub fn of_candidate(&self, version: &str) -> Self {
        let named = |build: &String| match build.split_once('=') {
            Some((component, CANDIDATE)) => format!("{component}={version}"),
            Some(_) | None => build.clone(),
        };
        let mut this = self.clone();
        this.start_from = self.start_from.as_ref().map(named);
        for run in &mut this.runs {
            run.build = named(&run.build);
        }
        this
    }

    /// Its upgrades, one after the other.
    #[must_use]
    pub fn planned(&self) -> Vec<Planned<'_>> {
        let first = self.start_from.iter().map(|build| Planned {
            build,
            disturbances: &[],
            expect: None,
        });
        let runs = self.runs.iter().map(|run| Planned {
            build: &run.build,
            disturbances: &self.disturbances,
            expect: Some(&run.expect),
        });
        first.chain(runs).collect()
    }

    /// Everything that is wrong with it by itself and, where that is known, on its environment.
    #[must_use]
    pub fn findings(&self, environment: Option<&EnvironmentSpec>) -> Vec<Finding> {
        super::check::rehearsal::findings(self, environment)
    }
}

/// An upgrade of a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned<'a> {
    /// What goes on, as `COMPONENT=VERSION`.
    pub build: &'a str,
    /// What goes on beside it.
    pub disturbances: &'a [Disturbance],
    /// What must come out; none of that which puts there what it starts from.
    pub expect: Option<&'a Expected>,
}

impl Planned<'_> {
    /// One sentence for each thing that came out otherwise.
    #[must_use]
    pub fn unmet(&self, status: &UpgradeStatus, quarantined: Blamed) -> Vec<String> {
        match self.expect {
            Some(expect) => unmet(expect, status, quarantined),
            None if status.phase == Phase::Succeeded => Vec::new(),
            None => vec![format!(
                "{} could not be brought there to start from: it ended {:?} ({}): {}",
                self.build, status.phase, status.reason, status.message
            )],
        }
    }
}

/// How far a rehearsal is that is an object of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalStatus {
    /// Where it stands.
    #[serde(default)]
    pub phase: RehearsalPhase,
    /// What came out otherwise, or what it waits for.
    #[serde(default)]
    pub message: String,
    /// Its upgrades, as far as they were begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunStatus>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Where a rehearsal stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RehearsalPhase {
    /// Not begun.
    #[default]
    Pending,
    /// It is for whichever build is promoted: each such promotion makes one of its own of it.
    Template,
    /// Its upgrades go on.
    Running,
    /// All came out as they must.
    Passed,
    /// One came out otherwise.
    Failed,
}

impl RehearsalPhase {
    /// Whether nothing will ever happen again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Passed | Self::Failed => true,
            Self::Pending | Self::Template | Self::Running => false,
        }
    }
}

/// One upgrade of a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// What goes on, as `COMPONENT=VERSION`.
    pub build: String,
    /// Its upgrade.
    pub upgrade: String,
    /// Its upgrade was seen.
    #[serde(default)]
    pub begun: bool,
    /// The disturbances that did not take place, once their driver has ended them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undisturbed: Option<Vec<String>>,
    /// When it was first seen to go no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// The phase that it ended in, or was held in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// It was held, and is to go back before anything else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_held: bool,
    /// What came out otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
}

/// What is seen of the upgrade of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen<'a> {
    /// There is none of its name.
    Nothing,
    /// It goes on, or will by itself, or waits for who has paused it.
    Going(&'a UpgradeStatus),
    /// It goes no further by itself: it has ended, or is held. Its build is quarantined in the environment, or not.
    Settled(&'a UpgradeStatus, Blamed),
}

/// Whether a build is quarantined there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl From<bool> for Blamed {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

impl std::fmt::Display for Blamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Blamed::Yes => "quarantined",
            Blamed::No => "not quarantined",
        })
    }
}

/// Who drove an upgrade says within this what became of its disturbances.
const TOLD_WITHIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

impl RunStatus {
    fn of(plan: &Planned<'_>, upgrade: String) -> Self {
        Self {
            build: plan.build.to_owned(),
            upgrade,
            begun: false,
            undisturbed: None,
            settled_at: None,
            phase: None,
            is_held: false,
            unmet: Vec::new(),
        }
    }

    fn is_to_be_made(&self, seen: Seen<'_>) -> bool {
        self.phase.is_none() && !self.begun && seen == Seen::Nothing
    }

    fn ends(&mut self, phase: Phase, unmet: Vec<String>) {
        self.phase = Some(phase);
        self.unmet = unmet;
    }

    /// Takes in what is seen of its upgrade; what is said of it while it has not ended.
    fn sees(&mut self, plan: &Planned<'_>, seen: Seen<'_>, refused: Option<&str>, now: Timestamp) -> Option<String> {
        let Self {
            build, upgrade: name, ..
        } = &*self;
        match seen {
            Seen::Nothing => {
                let unmet = match refused {
                    Some(why) if !self.begun => why.to_owned(),
                    Some(_) | None => format!("its upgrade {name} was deleted"),
                };
                self.ends(Phase::Aborted, vec![unmet]);
                None
            }
            Seen::Going(upgrade) => {
                let why = if upgrade.message.is_empty() {
                    "it goes on"
                } else {
                    &upgrade.message
                };
                let message = format!("{build}: upgrade {name} is {:?}: {why}", upgrade.phase);
                self.begun = true;
                self.settled_at = None;
                Some(message)
            }
            Seen::Settled(upgrade, quarantined) => {
                self.begun = true;
                let settled_at = *self.settled_at.get_or_insert(upgrade.finished_at.unwrap_or(now));
                let undisturbed = match &self.undisturbed {
                    _ if plan.disturbances.is_empty() => Vec::new(),
                    Some(undisturbed) => undisturbed.clone(),
                    None if now.duration_since(settled_at) < TOLD_WITHIN => {
                        return Some(format!(
                            "{}: whether its disturbances took place is not known yet",
                            self.build
                        ));
                    }
                    None => vec!["all of them, or none: who made them was ended before it could say".to_owned()],
                };
                let mut unmet = plan.unmet(upgrade, quarantined);
                unmet.extend(undisturbed.into_iter().map(|what| format!("disturbance {what}")));
                self.is_held = !upgrade.phase.is_final();
                self.ends(upgrade.phase, unmet);
                None
            }
        }
    }
}

/// The next status of a rehearsal, from what is seen of the upgrade of its last run. A run without a phase is to have its upgrade made, where
/// there is none; `refused` says why none may be made any more, or at all. `named` gives an upgrade's name by its place.
#[must_use]
pub fn advance(
    spec: &RehearsalSpec,
    status: &RehearsalStatus,
    seen: Seen<'_>,
    refused: Option<&str>,
    named: impl Fn(usize) -> String,
    now: Timestamp,
) -> RehearsalStatus {
    let mut next = status.clone();
    if status.phase.is_final() {
        return next;
    }
    if spec.names_candidate() {
        next.phase = RehearsalPhase::Template;
        next.message = String::from("it is for whichever build is promoted; each promotion makes one of its own of it");
        return next;
    }
    let planned = spec.planned();
    next.phase = RehearsalPhase::Running;
    if next.runs.last().is_some_and(|run| run.is_to_be_made(seen)) && refused.is_none() {
        // What is in the way of that is said by who is to make it.
        return next;
    }
    if let (Some(run), Some(plan)) = (next.runs.last_mut(), planned.get(status.runs.len().wrapping_sub(1)))
        && run.phase.is_none()
        && let Some(message) = run.sees(plan, seen, refused, now)
    {
        next.message = message;
        return next;
    }
    let failed = next.runs.iter().find(|run| !run.unmet.is_empty());
    let failed = failed.map(|run| format!("{}: {}", run.build, run.unmet.join("; ")));
    let place = next.runs.len();
    let ended = match (failed, planned.get(place), refused) {
        (Some(why), _, _) => Err(why),
        (None, Some(_), Some(why)) => Err(why.to_owned()),
        (None, None, _) if place == 0 => Err("it has no runs, and shows nothing".to_owned()),
        (None, None, _) => Ok("all came out as they must".to_owned()),
        (None, Some(plan), None) => {
            let run = RunStatus::of(plan, named(place));
            next.message = format!("{}: upgrade {} is made", run.build, run.upgrade);
            next.runs.push(run);
            return next;
        }
    };
    next.finished_at = Some(now);
    (next.phase, next.message) = match ended {
        Ok(message) => (RehearsalPhase::Passed, message),
        Err(message) => (RehearsalPhase::Failed, message),
    };
    next
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
pub fn unmet(expected: &Expected, status: &UpgradeStatus, quarantined: Blamed) -> Vec<String> {
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
    if let Some(blamed) = blamed.map(Blamed::from)
        && quarantined != blamed
    {
        unmet.push(format!("the build is {quarantined}, expected {blamed}"));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UNSEEN: Seen<'_> = Seen::Nothing;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn spec(disturbed: bool) -> RehearsalSpec {
        let disturbances = if disturbed {
            json!([{"name": "killed", "killNode": {"node": "w1", "after": "1s"}}])
        } else {
            json!([])
        };
        let spec = json!({
            "environment": "staging",
            "startFrom": "web=1",
            "disturbances": disturbances,
            "runs": [
                {"build": "web=2", "expect": {"phase": "RolledBack", "blamed": true}},
                {"build": "web=3", "expect": {"phase": "Succeeded"}},
            ],
        });
        serde_json::from_value(spec).expect("a spec")
    }

    fn ended(phase: Phase) -> UpgradeStatus {
        UpgradeStatus {
            phase,
            finished_at: Some(at(10)),
            ..UpgradeStatus::new(at(0))
        }
    }

    /// As its driver takes it on: whatever is seen, until nothing changes.
    struct Story {
        spec: RehearsalSpec,
        status: RehearsalStatus,
        refused: Option<&'static str>,
    }

    impl Story {
        fn of(spec: RehearsalSpec) -> Self {
            Self {
                spec,
                status: RehearsalStatus::default(),
                refused: None,
            }
        }

        fn sees(&mut self, seen: Seen<'_>, now: i64) -> &RehearsalStatus {
            self.status = advance(
                &self.spec,
                &self.status,
                seen,
                self.refused,
                |i| format!("r-{i}"),
                at(now),
            );
            &self.status
        }

        fn upgrades(&self) -> Vec<&str> {
            self.status.runs.iter().map(|run| run.upgrade.as_str()).collect()
        }
    }

    #[test]
    fn runs_follow_one_another_and_all_have_to_come_out_as_they_must() {
        let mut story = Story::of(spec(false));
        story.sees(UNSEEN, 0);
        assert_eq!(story.upgrades(), ["r-0"]);
        // Made anew, were its driver killed before it made it.
        let made = story.status.clone();
        assert_eq!(story.sees(UNSEEN, 1), &made);
        let going = UpgradeStatus::new(at(0));
        story.sees(Seen::Going(&going), 2);
        story.sees(Seen::Settled(&ended(Phase::Succeeded), Blamed::No), 3);
        assert_eq!(story.upgrades(), ["r-0", "r-1"]);
        story.sees(Seen::Settled(&ended(Phase::RolledBack), Blamed::Yes), 4);
        assert_eq!(story.upgrades(), ["r-0", "r-1", "r-2"]);
        let passed = story
            .sees(Seen::Settled(&ended(Phase::Succeeded), Blamed::No), 5)
            .clone();
        assert_eq!(
            (passed.phase, passed.finished_at),
            (RehearsalPhase::Passed, Some(at(5)))
        );
        // Whatever becomes of them later.
        assert_eq!(story.sees(UNSEEN, 6), &passed);
    }

    #[test]
    fn whatever_comes_out_otherwise_ends_it() {
        let rows: [(&[(Phase, Blamed)], &str); 4] = [
            (
                &[(Phase::RolledBack, Blamed::No)],
                "web=1: web=1 could not be brought there",
            ),
            (
                &[(Phase::Succeeded, Blamed::No), (Phase::RolledBack, Blamed::No)],
                "web=2: the build is not quarantined",
            ),
            (
                &[(Phase::Succeeded, Blamed::No), (Phase::Succeeded, Blamed::No)],
                "web=2: ended Succeeded",
            ),
            (
                &[
                    (Phase::Succeeded, Blamed::No),
                    (Phase::RolledBack, Blamed::Yes),
                    (Phase::Aborted, Blamed::No),
                ],
                "web=3: ended Aborted",
            ),
        ];
        for (ends, why) in rows {
            let mut story = Story::of(spec(false));
            story.sees(UNSEEN, 0);
            for (phase, quarantined) in ends {
                story.sees(Seen::Settled(&ended(*phase), *quarantined), 1);
            }
            let RehearsalStatus { phase, message, .. } = &story.status;
            assert!(
                *phase == RehearsalPhase::Failed && message.starts_with(why),
                "{message}"
            );
            assert_eq!(story.upgrades().len(), ends.len(), "{why}");
        }
    }

    #[test]
    fn an_upgrade_that_is_deleted_is_not_made_again() {
        let mut story = Story::of(spec(false));
        story.sees(UNSEEN, 0);
        story.sees(Seen::Going(&UpgradeStatus::new(at(0))), 1);
        assert_eq!(story.sees(UNSEEN, 2).phase, RehearsalPhase::Failed);
        assert_eq!(story.status.message, "web=1: its upgrade r-0 was deleted");
    }

    #[test]
    fn what_became_of_disturbances_is_waited_for_and_nothing_is_taken_for_granted() {
        let mut story = Story::of(spec(true));
        story.sees(UNSEEN, 0);
        // Nothing goes on beside what it starts from.
        story.sees(Seen::Settled(&ended(Phase::Succeeded), Blamed::No), 11);
        let back = ended(Phase::RolledBack);
        let seen = Seen::Settled(&back, Blamed::Yes);
        assert_eq!(story.sees(seen, 12).runs[1].phase, None);
        let untold = advance(&story.spec, &story.status, seen, None, |i| format!("r-{i}"), at(71));
        assert_eq!(untold.phase, RehearsalPhase::Failed, "{untold:?}");
        story.status.runs[1].undisturbed = Some(vec!["killed did not take place".to_owned()]);
        let mut told = story.status.clone();
        assert_eq!(
            story.sees(seen, 13).message,
            "web=2: disturbance killed did not take place"
        );
        told.runs[1].undisturbed = Some(Vec::new());
        let on = advance(&story.spec, &told, seen, None, |i| format!("r-{i}"), at(13));
        assert_eq!((on.phase, on.runs.len()), (RehearsalPhase::Running, 3));
    }

    #[test]
    fn one_that_is_held_has_come_out_so_and_goes_back() {
        let mut held = UpgradeStatus {
            phase: Phase::Inconclusive,
            ..UpgradeStatus::new(at(0))
        };
        let mut story = Story::of(spec(false));
        story.sees(UNSEEN, 0);
        story.sees(Seen::Settled(&ended(Phase::Succeeded), Blamed::No), 1);
        let failed = story.sees(Seen::Settled(&held, Blamed::No), 2);
        assert_eq!((failed.phase, failed.runs[1].is_held), (RehearsalPhase::Failed, true));
        assert!(
            failed.message.starts_with("web=2: ended Inconclusive"),
            "{}",
            failed.message
        );
        // One may be meant to come to that.
        let mut meant = spec(true);
        meant.start_from = None;
        meant.runs[0].expect.phase = Phase::Inconclusive;
        meant.runs[0].expect.blamed = None;
        let mut story = Story::of(meant);
        story.sees(UNSEEN, 0);
        // What became of what went on beside it is said when it has settled, and not when its driver was slow to say so.
        story.sees(Seen::Settled(&held, Blamed::No), 100);
        assert_eq!(story.status.runs[0].phase, None);
        held.message = "still".to_owned();
        story.sees(Seen::Settled(&held, Blamed::No), 130);
        assert_eq!(story.status.runs[0].phase, None);
        story.status.runs[0].undisturbed = Some(Vec::new());
        let on = story.sees(Seen::Settled(&held, Blamed::No), 131);
        assert_eq!(
            (on.phase, on.runs.len(), on.runs[0].is_held),
            (RehearsalPhase::Running, 2, true)
        );
    }

    #[test]
    fn what_is_refused_shows_nothing_and_nothing_more_of_it_is_begun() {
        let mut nothing = spec(false);
        (nothing.start_from, nothing.runs) = (None, Vec::new());
        assert_eq!(Story::of(nothing).sees(UNSEEN, 0).phase, RehearsalPhase::Failed);
        let refused = |seen: &[Seen<'_>], expected: &str| {
            let mut story = Story::of(spec(false));
            for seen in seen {
                story.sees(*seen, 0);
            }
            story.refused = Some("its promotion has ended");
            let before = story.upgrades().len();
            let going = UpgradeStatus::new(at(0));
            if story.status.runs.first().is_some_and(|run| run.begun) {
                // What is under way comes to its end.
                assert_eq!(story.sees(Seen::Going(&going), 1).phase, RehearsalPhase::Running);
                story.sees(Seen::Settled(&ended(Phase::Succeeded), Blamed::No), 2);
            } else {
                story.sees(UNSEEN, 1);
            }
            assert_eq!(
                (story.status.phase, story.upgrades().len()),
                (RehearsalPhase::Failed, before)
            );
            assert_eq!(story.status.message, expected);
        };
        refused(&[], "its promotion has ended");
        refused(&[UNSEEN], "web=1: its promotion has ended");
        let going = UpgradeStatus::new(at(0));
        refused(&[UNSEEN, Seen::Going(&going)], "its promotion has ended");
    }

    #[test]
    fn one_for_a_candidate_is_carried_out_for_a_promotion_alone() {
        let mut spec = spec(false);
        spec.runs[1].build = "web=candidate".to_owned();
        let mut story = Story::of(spec.clone());
        let template = story.sees(UNSEEN, 0).clone();
        assert_eq!((template.phase, template.runs.len()), (RehearsalPhase::Template, 0));
        let of_it = spec.of_candidate("4");
        let builds: Vec<&str> = of_it.planned().iter().map(|plan| plan.build).collect();
        assert_eq!(builds, ["web=1", "web=2", "web=4"]);
        assert!(!of_it.names_candidate());
    }
}

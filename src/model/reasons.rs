//! The words by which events say what happened: for programs, for filters of reports, and for what a thread shows.

/// Whether an event says how the promotion or the upgrade as a whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// How the whole stands, and so what a thread's first message is to say.
    Standing,
    /// That something happened on the way.
    News,
}

use Says::{News, Standing};

/// All that an event can be called, in the order of a life. The test below looks through the source for others.
const REASONS: &[(&str, Says)] = &[
    // Promotions.
    ("PromotionAsked", Standing),
    ("PromotionSigned", News),
    ("Approved", News),
    ("ApprovalWithdrawn", News),
    ("Rejected", News),
    ("BreakGlassAsked", News),
    ("GlassBroken", News),
    ("CancelAsked", News),
    ("PromotionWaiting", Standing),
    ("PromotionRehearsing", Standing),
    ("RehearsalPassed", News),
    ("PromotionUpgrading", Standing),
    ("PromotionPaused", Standing),
    ("PromotionResumed", Standing),
    ("PromotionSucceeded", Standing),
    ("PromotionFailed", Standing),
    ("PromotionRejected", Standing),
    ("PromotionCancelled", Standing),
    // Upgrades, by their phases.
    ("Preflight", Standing),
    ("Baseline", Standing),
    ("Rolling", Standing),
    ("Soak", Standing),
    ("Succeeded", Standing),
    ("RollingBack", Standing),
    ("ProvingCure", Standing),
    ("RolledBack", Standing),
    ("RollbackIneffective", Standing),
    ("Paused", Standing),
    ("Resumed", Standing),
    ("Inconclusive", Standing),
    ("Aborted", Standing),
    ("Failed", Standing),
    ("Errored", Standing),
    ("NotDriven", Standing),
    ("Refused", Standing),
    // What happens to them.
    ("AbortAsked", News),
    ("PauseAsked", News),
    ("PauseDropped", News),
    ("TakenOver", News),
    ("RulesChanged", News),
    ("ForeignEditOverwritten", News),
    ("UpdatesKept", News),
    ("UpdatesLost", News),
    ("GivenBack", News),
    ("NotGivenBack", News),
    // Nodes.
    ("NodeUpgraded", News),
    ("NodeRolledBack", News),
    ("GateFailed", News),
    ("NodeOutOfService", News),
    ("NodeNotRemoved", News),
    ("NodeLost", News),
    ("NodeUnreachable", News),
    ("NodeBack", News),
    // Builds and environments.
    ("Quarantined", News),
    ("QuarantineLifted", News),
    ("FreezeBegun", News),
    ("FreezeLifted", News),
    ("DataRefreshing", News),
    ("DataRefreshed", News),
    ("ReplicaDrifted", News),
    ("ReplicaHealed", News),
    ("ReplicaHealRests", News),
    ("ReplicaHealRefused", News),
    ("ReplicaExpired", News),
    ("ReplicaExpireRefused", News),
    ("Synced", News),
    ("OutOfSync", News),
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static str> + Clone {
    REASONS.iter().map(|(reason, _)| *reason)
}

/// Whether it says how the promotion or the upgrade as a whole stands.
#[must_use]
pub fn says_how_it_stands(reason: &str) -> bool {
    REASONS
        .iter()
        .any(|(known, says)| *known == reason && *says == Standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once() {
        let mut names: Vec<_> = all().collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_thread_shows_how_it_stands_and_not_every_step() {
        for (reason, expected) in [("Rolling", true), ("NodeUpgraded", false), ("SomethingNew", false)] {
            assert_eq!(says_how_it_stands(reason), expected, "{reason}");
        }
    }
}

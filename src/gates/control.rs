//! Whose fault a Fail is: the new build's, or that of something all nodes share.

use serde::{Deserialize, Serialize};

use super::{Reading, Verdict};

/// What a node's Fail says once it is held against nodes that still run the old build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Blame {
    /// The controls are well: it came with the build (or the node).
    Build,
    /// A control has failed too: something shared degrades, `SharedDependencyDegraded`.
    Shared,
    /// A control has bad calls since the onset but has not failed: look again within one age.
    Wait,
}

/// Holds the Fail of a new node against its controls: readings of the same gate on nodes that still run the old build, or of
/// the baseline. `None` when `new` has not failed.
///
/// A control that begins to hang together with the new node shows it one age later at the latest, so the wait ends one age
/// after the Fail: then it is the build. Controls spend no alpha, as they never fail an upgrade; they only hold it.
#[must_use]
pub fn shared_degradation(new: &Reading, controls: &[Reading], age_us: i64, now_us: i64) -> Option<Blame> {
    if new.verdict != Verdict::Fail {
        return None;
    }
    if controls.iter().any(|control| control.verdict == Verdict::Fail) {
        return Some(Blame::Shared);
    }
    let still_open = new
        .decided_us
        .is_some_and(|decided_us| now_us <= decided_us.saturating_add(age_us));
    let suspicious = controls
        .iter()
        .any(|control| control.last_bad_us.is_some() && control.last_bad_us >= new.onset_us);
    Some(if still_open && suspicious {
        Blame::Wait
    } else {
        Blame::Build
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gates::simulation::hanging_calls;
    use crate::gates::{ShareGate, ShareTest};

    const SECOND: i64 = 1_000_000;
    const AGE: i64 = 5 * SECOND;

    /// A node at 5 calls/s whose calls hang from call number `onset` on, until call `end`.
    fn node(onset: u64, end: u64, now_us: i64) -> Reading {
        let mut test = ShareTest::new(&ShareGate::new(0.02, AGE, 0.01, 0.05).unwrap(), 0);
        hanging_calls(onset, end, 1000, 5.0, AGE).for_each(|sample| test.push(&sample));
        test.read(now_us)
    }

    /// The new node hangs from call 50 (10 s) on; it fails some seconds later.
    fn failed() -> (Reading, i64) {
        let reading = node(50, 1000, 60 * SECOND);
        let decided_us = reading.decided_us.unwrap();
        (reading, decided_us)
    }

    #[test]
    fn well_controls_leave_it_to_the_build() {
        let (new, now) = failed();
        assert_eq!(
            shared_degradation(&new, &[node(1000, 1000, now)], AGE, now),
            Some(Blame::Build)
        );
        assert_eq!(shared_degradation(&new, &[], AGE, now), Some(Blame::Build));
    }

    #[test]
    fn failed_control_means_a_shared_dependency() {
        let (new, now) = failed();
        let controls = [node(1000, 1000, now), node(50, 1000, now)];
        assert_eq!(controls[1].verdict, Verdict::Fail);
        assert_eq!(shared_degradation(&new, &controls, AGE, now), Some(Blame::Shared));
    }

    #[test]
    fn control_with_bad_calls_since_the_onset_is_waited_for_at_most_one_age() {
        let (new, now) = failed();
        let control = node(52, 53, now);
        assert_eq!((control.verdict, control.bad), (Verdict::Undecided, 1));
        let blame = |now| shared_degradation(&new, std::slice::from_ref(&control), AGE, now);
        assert_eq!(blame(now), Some(Blame::Wait));
        assert_eq!(blame(now + AGE), Some(Blame::Wait));
        assert_eq!(blame(now + AGE + 1), Some(Blame::Build));
    }

    #[test]
    fn control_with_bad_calls_before_the_onset_is_not_waited_for() {
        let (new, now) = failed();
        assert_eq!(
            shared_degradation(&new, &[node(20, 21, now)], AGE, now),
            Some(Blame::Build)
        );
    }

    #[test]
    fn nobody_is_blamed_without_a_fail() {
        let (failed, now) = failed();
        assert_eq!(shared_degradation(&node(1000, 1000, now), &[failed], AGE, now), None);
    }
}

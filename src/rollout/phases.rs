//! Which phase may follow which: one table for live writes and for replay.

use crate::model::upgrade::Phase;

/// A phase was to follow one that it cannot follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an upgrade cannot go from {from:?} to {to:?}")]
pub struct IllegalTransition {
    /// The phase it was in.
    pub from: Phase,
    /// The phase it was to enter.
    pub to: Phase,
}

/// The one guard: `to` if it may follow `from`.
pub fn transition(from: Phase, to: Phase) -> Result<Phase, IllegalTransition> {
    use Phase::{
        Aborted, Baseline, Errored, Failed, Inconclusive, Paused, Pending, Preflight, RollbackIneffective, RolledBack,
        Rolling, RollingBack, Soak, Succeeded,
    };
    let legal = match from {
        // What the rules refuse fails before it is begun.
        Pending => matches!(to, Preflight | Aborted | Failed | Errored | Paused),
        Preflight => matches!(to, Baseline | Succeeded | Paused | Aborted | Errored),
        Baseline => matches!(to, Rolling | Paused | Inconclusive | Aborted | Errored),
        Rolling => matches!(
            to,
            Soak | RollingBack | Paused | Inconclusive | Failed | Errored | Aborted
        ),
        Soak => matches!(to, Succeeded | RollingBack | Paused | Inconclusive | Failed | Errored),
        RollingBack => matches!(to, RolledBack | RollbackIneffective | Aborted | Paused | Errored),
        Paused => matches!(
            to,
            Pending | Preflight | Baseline | Rolling | Soak | RollingBack | Aborted | Failed | Errored
        ),
        Inconclusive => matches!(to, Baseline | Rolling | Soak | RollingBack | Aborted | Failed | Errored),
        Succeeded | RolledBack | RollbackIneffective | Aborted | Failed | Errored => false,
    };
    if legal {
        Ok(to)
    } else {
        Err(IllegalTransition { from, to })
    }
}

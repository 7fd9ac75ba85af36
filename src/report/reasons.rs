//! What the word of an event means for those who are told of it.

/// Whether it says how the promotion or the upgrade as a whole stands, and so what a thread's first message is to say.
pub(crate) fn says_how_it_stands(reason: &str) -> bool {
    matches!(
        reason,
        "Preflight"
            | "Baseline"
            | "Rolling"
            | "Soak"
            | "Succeeded"
            | "RollingBack"
            | "ProvingCure"
            | "RolledBack"
            | "RollbackIneffective"
            | "Paused"
            | "Resumed"
            | "Inconclusive"
            | "Aborted"
            | "Errored"
            | "Failed"
            | "NotDriven"
            | "PromotionAsked"
            | "PromotionRehearsing"
            | "PromotionWaiting"
            | "PromotionUpgrading"
            | "PromotionPaused"
            | "PromotionResumed"
            | "PromotionSucceeded"
            | "PromotionFailed"
            | "PromotionRejected"
            | "PromotionCancelled"
    )
}

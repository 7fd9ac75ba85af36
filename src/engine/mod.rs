//! The loop around the decision: observe, decide, commit, act.

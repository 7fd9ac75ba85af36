//! Verdicts from samples, as pure functions.

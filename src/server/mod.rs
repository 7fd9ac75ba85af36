//! `stagegate serve`: health, outbox, resuming upgrades.

//! Deciding what an upgrade does next, as one pure function.

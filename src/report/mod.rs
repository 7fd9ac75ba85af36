//! The outbox and the sinks that tell people.

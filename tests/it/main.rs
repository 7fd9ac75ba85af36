//! The integration tests: one binary, a module a subject.

mod signals;
mod simulation;
mod store;

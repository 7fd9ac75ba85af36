//! The integration tests: one binary, a module a subject.

mod report;
mod simulation;
mod store;

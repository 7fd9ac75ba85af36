//! The integration tests: one binary, a module a subject.

mod report;
mod signals;
mod simulation;
mod store;

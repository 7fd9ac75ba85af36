//! The integration tests: one binary, a module a subject.

mod hosts;
mod report;
mod signals;
mod simulation;
mod store;

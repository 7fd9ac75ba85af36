//! The integration tests: one binary, a module a subject.

mod cli;
mod hosts;
mod incident;
mod report;
mod signals;
mod simulation;
mod store;
mod tidy;

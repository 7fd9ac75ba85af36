//! The integration tests: one binary, a module a subject.

mod simulation;

mod hosts;

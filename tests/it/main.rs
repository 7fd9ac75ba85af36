//! The integration tests: one binary, a module a subject.

mod cli;
mod cluster;
mod commits;
mod diff;
mod docs;
mod fetched;
mod fleet;
mod hosts;
mod incident;
mod operators;
mod ports;
mod promotion;
mod reference;
mod refresh;
mod report;
mod serve;
mod signals;
mod simulation;
mod sshd;
mod store;
mod tidy;
mod tree;
mod trivial;

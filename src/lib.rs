//! Stagegate keeps a staging replica of a workload management system, upgrades its nodes batch by batch behind
//! health gates, and tells every step. Start at docs/ARCHITECTURE.md.
pub mod gates;
pub mod store;
pub mod hosts;
pub mod signals;
pub mod report;
pub mod rollout;
pub mod model;
pub mod engine;
pub mod cli;
pub mod server;

//! Stagegate keeps a staging replica of a workload management system, upgrades its nodes batch by batch behind
//! health gates, and tells every step. Start at docs/ARCHITECTURE.md.
pub mod audit;
pub mod cli;
pub mod cluster;
pub mod commits;
pub mod engine;
pub mod gates;
pub mod home;
pub mod hosts;
pub mod http;
pub mod lines;
pub mod model;
pub mod process;
pub mod promotion;
pub mod refresh;
pub mod report;
pub mod rollout;
pub mod secrets;
pub mod server;
pub mod settings;
pub mod signals;
pub mod store;
pub mod workspace;

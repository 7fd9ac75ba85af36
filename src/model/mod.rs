//! Resources, value types and their validation. Pure: no I/O, no clock.

pub mod address;
pub mod approval;
pub mod build;
pub(crate) mod check;
pub mod difference;
pub mod environment;
pub mod freeze;
pub mod lifecycle;
pub mod log;
pub mod manifest;
pub mod pipeline;
pub mod promotion;
pub mod reasons;
pub mod rehearsal;
pub mod render;
pub mod repository;
pub mod sample;
pub mod schedule;
pub mod schema;
pub mod sinks;
pub mod system;
pub mod target;
pub mod text;
pub mod tracker;
pub mod upgrade;
pub mod values;

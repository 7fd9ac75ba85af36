//! Resources, value types and their validation. Pure: no I/O, no clock.

pub mod environment;
pub mod render;
pub mod sample;
pub mod upgrade;
pub mod values;
pub mod text;

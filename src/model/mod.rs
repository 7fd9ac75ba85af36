//! Resources, value types and their validation. Pure: no I/O, no clock.

pub mod sample;
pub mod text;

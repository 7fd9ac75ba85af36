//! The program as its user meets it, on a small real fleet: three nodes of a trivial service under our own traffic and a
//! share gate. Each row ends with what an operator would see: exit codes, resources, reports, and what runs where.

mod bad_builds;
mod blame;
mod drivers;
mod kills;
mod reports;
mod standing;
mod steps;
pub mod system;
mod trouble;

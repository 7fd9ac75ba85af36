//! GitHub: what it tells us, and what we tell it.
//!
//! What comes in is a hint and no more: an authentic delivery says which repository to look at again, and everything that a
//! verdict rests on is read anew. What was lost is found by looking without a hint. [`webhook`], [`app`] and [`checks`] are
//! pure; [`api`] speaks to GitHub through octocrab, [`mirror`] fetches, [`judge`] reads what was fetched.

pub mod api;
pub mod app;
pub mod checks;
pub mod judge;
pub mod mirror;
pub mod protect;
pub mod webhook;

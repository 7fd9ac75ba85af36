//! What is checked before a commit can travel: what it holds, what its message says, which refs it moves.
//!
//! [`policy`], [`finding`], [`content`], [`message`], [`hooks`] and [`sarif`] are pure: bytes in, findings out. [`repository`]
//! reads git, [`github`] is told by GitHub and tells it, [`base`] says which policy holds, [`examine`] asks the rules within bounds, [`push`] is the server's side.
//! [`install`] puts git's hooks in place, and [`prek`] runs the repository's own that have no native equal. [`tracker`] looks up
//! the issues that messages name. Nothing here writes a ref or an object.

pub mod base;
pub mod content;
pub mod examine;
pub mod finding;
pub mod github;
pub mod hooks;
pub mod install;
pub mod message;
pub mod policy;
pub mod prek;
pub mod proof;
pub mod push;
pub mod repository;
pub mod sandbox;
pub mod sarif;
pub mod tracker;

//! The full run of a commit's hooks: on a copy of the commit, in a sandbox that has nothing else, judged by the protected
//! base's policy and the base's list of hooks.
//!
//! [`bubblewrap`] is the sandbox, [`checkout`] the copy, [`environments`] what hooks need to be installed for, and [`full`]
//! puts them together into a [`Verdict`](super::proof::Verdict), and
//! [`blame`] says whose commit it is that is refused. Every hook is taken for hostile: it is code that somebody
//! pushed.

mod blame;
pub mod bubblewrap;
pub mod checkout;
pub mod environments;
pub mod full;
mod scratch;

pub use bubblewrap::{Sandbox, SandboxError};
pub use full::{Ask, Base as AskedBase, Completed, FullRunError, Gap, Judged, Looked, Means, complete, run};

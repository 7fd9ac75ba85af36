//! Kubernetes: a cluster whose pods are nodes, and our kinds as its API server knows them.
//!
//! [`rolling`] says what has to be written so that a pod changes its image when we say so; [`pods`] reads and writes it.

pub mod crd;
pub mod election;
pub mod install;
pub mod ledger;
pub mod objects;
pub mod pods;
pub mod rolling;

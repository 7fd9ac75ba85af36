//! Kubernetes: a cluster whose pods are nodes, the objects that a replica is made of there, and our kinds as its API server
//! knows them.
//!
//! [`rolling`] says what has to be written so that a pod of a `StatefulSet` changes its image when we say so, [`surge`] the same of
//! a Deployment and the canary beside it; [`pods`] and [`deployments`] read and write it. [`pod`], [`hold`] and [`workload`] have what both need,
//! [`looks`] and [`turns`] let a hundred pods be read, and written, by one.
//! [`replica`] makes and prunes the objects of a replica in its namespace. [`survey`] reads what is there to begin with.

pub mod admission;
pub mod belonging;
pub mod connection;
pub mod crd;
pub mod deployments;
pub mod election;
pub mod guard;
pub mod history;
pub mod hold;
pub mod install;
pub mod ledger;
pub mod looks;
pub mod objects;
pub mod pod;
pub mod pods;
pub mod printed;
pub mod promotions;
pub mod rehearsals;
pub mod replica;
pub mod rolling;
pub mod rules;
pub mod snapshot;
pub mod surge;
pub mod survey;
pub mod templates;
pub mod turns;
pub mod workload;

//! Kubernetes, for real.

mod controller;
mod deployments;
mod guard;
mod kept;
mod kinds;
mod lab;
mod mixed;
mod objects;
mod panda;
mod pods;
mod replica;
mod told;
mod trouble;

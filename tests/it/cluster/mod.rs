//! Kubernetes, for real.

mod controller;
mod guard;
mod kinds;
mod lab;
mod mixed;
mod panda;
mod pods;
mod replica;

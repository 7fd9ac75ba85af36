//! Kubernetes, for real.

mod guard;
mod kinds;
mod lab;
mod pods;
mod replica;

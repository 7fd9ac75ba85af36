//! Kubernetes, for real.

mod kinds;
mod lab;
mod pods;
mod replica;

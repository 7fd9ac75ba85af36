//! Kubernetes, for real.

mod controller;
mod deployments;
mod guard;
mod kinds;
mod lab;
mod pods;
mod replica;

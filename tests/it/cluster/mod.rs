//! Kubernetes, for real.

mod controller;
mod guard;
mod kinds;
mod lab;
mod pods;
mod replica;
mod trouble;

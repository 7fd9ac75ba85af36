//! Kubernetes, for real.

mod controller;
mod guard;
mod kept;
mod kinds;
mod lab;
mod objects;
mod pods;
mod replica;
mod trouble;

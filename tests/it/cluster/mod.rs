//! Kubernetes, for real.

mod controller;
mod kinds;
mod lab;
mod pods;

//! The Kubernetes home: our kinds in an API server.

pub mod crd;

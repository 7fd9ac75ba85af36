//! Stagegate keeps a staging replica of a workload management system, upgrades its nodes batch by batch behind
//! health gates, and tells every step. Start at docs/ARCHITECTURE.md.

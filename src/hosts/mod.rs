//! Where nodes live: this machine or a server over SSH, spoken to through one shell agent.

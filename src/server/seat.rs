//! The one place of a home's server: a lease like an environment's, under a name that no environment can have.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::lease::HeldLease;
use crate::engine::session::{Refusal, SessionError};
use crate::home::Home;
use crate::model::system::PortShift;
use crate::store::{Expect, Holder, Store as _, StoreError};
use crate::workspace::Workspace;

/// Environments are DNS labels.
const LEASE: &str = "/serve";
const KIND: &str = "Server";
const NAME: &str = "serve";

/// What a server drives by. A command that hands an upgrade over must mean the same by an environment's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// Where the environments are described.
    pub workspace: PathBuf,
    /// Added to local ports.
    pub port_shift: u16,
}

impl Terms {
    /// This process's.
    #[must_use]
    pub fn here(workspace: &Workspace, shift: PortShift) -> Self {
        let root = workspace.root();
        Self {
            workspace: root.canonicalize().unwrap_or_else(|_| root.to_owned()),
            port_shift: shift.0,
        }
    }
}

/// The server that runs now.
#[derive(Debug, Clone)]
pub struct Running {
    /// Which process.
    pub holder: Holder,
    /// Since when.
    pub since: Timestamp,
    /// What it drives by.
    pub terms: Terms,
}

/// The home's server, if one runs: a process that was killed does not.
///
/// # Errors
/// The state cannot be read.
pub fn running(home: &Home) -> Result<Option<Running>, StoreError> {
    let Some((holder, since)) = HeldLease::holder(home, LEASE)? else {
        return Ok(None);
    };
    let Some(resource) = home.store().resource(KIND, NAME)? else {
        return Ok(None);
    };
    Ok(Some(Running {
        holder,
        since,
        terms: resource.spec_as()?,
    }))
}

/// The place, given back when dropped.
#[derive(Debug)]
pub struct Seat(HeldLease);

impl Seat {
    /// Takes the place and writes down what this server drives by.
    ///
    /// # Errors
    /// [`Refusal::Serving`] when another server lives; or the state cannot be written.
    pub fn take(home: &Home, terms: &Terms) -> Result<Self, SessionError> {
        let lease = match HeldLease::take(home, LEASE) {
            Ok(lease) => lease,
            Err(SessionError::Refused(Refusal::Held { by, since, .. })) => {
                let pid = HeldLease::holder(home, LEASE)?.map_or(0, |(holder, _)| holder.pid);
                return Err(Refusal::Serving { by, pid, since }.into());
            }
            Err(other) => return Err(other),
        };
        let spec = serde_json::to_value(terms).map_err(|e| StoreError::Unreadable {
            what: "what this server drives by".to_owned(),
            why: e.to_string(),
        })?;
        home.store()
            .put_resource(KIND, NAME, &spec, Expect::Anything, Timestamp::now())?;
        Ok(Self(lease))
    }

    /// Says that the server still lives.
    ///
    /// # Errors
    /// Another one has the place by now, or the state cannot be written.
    pub fn renew(&self) -> Result<(), StoreError> {
        self.0.renew()
    }
}

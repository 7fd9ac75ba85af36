//! What goes wrong on purpose while an upgrade goes on.

use std::sync::Arc;

use super::fleet::{Fleet, FleetError};
use crate::hosts::Host as _;
use crate::model::rehearsal::{Disturbance, HoldRow, KillNode};
use crate::signals::postgres::hold::{HoldHandle, HoldPlan};
use crate::signals::{FEED_CAPACITY, Observations, Observed, feed};
use tokio::task::JoinHandle;

/// Why a disturbance cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DisturbError {
    /// Databases, secrets.
    #[error("disturbance {name}: {source}")]
    Fleet {
        /// Which.
        name: String,
        /// What is wrong.
        source: FleetError,
    },
    /// It cannot be done here.
    #[error("disturbance {name}: {why}")]
    Impossible {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
}

/// Disturbances that go on; dropping it ends them.
pub struct Disturbances {
    holds: Vec<HoldHandle>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
    troubles: Observations,
}

impl Disturbances {
    /// Begins them. Must run within a tokio runtime.
    ///
    /// # Errors
    /// One that cannot be made.
    pub fn start(fleet: &Arc<Fleet>, stated: &[Disturbance]) -> Result<Self, DisturbError> {
        let (to, troubles) = feed(FEED_CAPACITY);
        let mut this = Self {
            holds: Vec::new(),
            tasks: Vec::new(),
            troubles,
        };
        for disturbance in stated {
            let name = &disturbance.name;
            if let Some(hold) = &disturbance.hold_row {
                let plan = hold_plan(fleet, name, hold).map_err(|source| DisturbError::Fleet {
                    name: name.clone(),
                    source,
                })?;
                this.holds.push(HoldHandle::start(plan, to.clone()));
            }
            if let Some(kill) = &disturbance.kill_node {
                this.tasks
                    .push(tokio::spawn(kill_node(Arc::clone(fleet), name.clone(), kill.clone())));
            }
            if disturbance.restart_component.is_some() || disturbance.fill_disk.is_some() {
                return Err(DisturbError::Impossible {
                    name: name.clone(),
                    why: "this kind is not built yet".to_owned(),
                });
            }
        }
        Ok(this)
    }

    /// Ends them and tells what they could not do: a rehearsal without its disturbance shows nothing.
    pub async fn stop(mut self) -> Vec<String> {
        for hold in self.holds.drain(..) {
            hold.stop().await;
        }
        let mut troubles: Vec<String> = Vec::new();
        for task in self.tasks.drain(..) {
            if task.is_finished() {
                if let Ok(Err(why)) = task.await {
                    troubles.push(why);
                }
            } else {
                task.abort();
            }
        }
        troubles.extend(self.troubles.take().into_iter().filter_map(|seen| match seen {
            Observed::Trouble(trouble) => Some(format!("{}: {}", trouble.signal, trouble.why)),
            Observed::Sample(_) | Observed::Afterwards(_) => None,
        }));
        troubles.dedup();
        troubles
    }
}

fn hold_plan(fleet: &Fleet, name: &str, hold: &HoldRow) -> Result<HoldPlan, FleetError> {
    let context = fleet.environment.context("", None, None);
    let select = fleet
        .render_text(&hold.sql, &context)
        .map_err(|source| FleetError::Render {
            component: format!("disturbance {name}"),
            source,
        })?;
    Ok(HoldPlan {
        name: format!("disturbance/{name}"),
        database: fleet.database_config(&hold.database)?,
        select,
        hold: hold.hold.0,
        every: hold.every.0,
    })
}

async fn kill_node(fleet: Arc<Fleet>, name: String, kill: KillNode) -> Result<(), String> {
    tokio::time::sleep(kill.after.0).await;
    let place = fleet
        .all_places()
        .find(|p| p.site.name == kill.node)
        .ok_or_else(|| format!("{name}: there is no node {}", kill.node))?;
    if place.site.host.is_some() {
        return Err(format!("{name}: {} is not on this machine", kill.node));
    }
    let sight = place
        .host
        .observe(&place.address, &[])
        .await
        .map_err(|e| e.to_string())?;
    let running = sight
        .running
        .ok_or_else(|| format!("{name}: {} does not run", kill.node))?;
    let pid = i32::try_from(running.pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("{name}: {} is no process", running.pid))?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(|e| format!("{name}: {e}"))
}

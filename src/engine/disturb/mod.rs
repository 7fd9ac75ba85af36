//! What goes wrong on purpose while an upgrade goes on.
//!
//! A disturbance acts on nodes as the upgrade's driver does, with the same lease and in the same process: what it asks of
//! a node queues with the upgrade's steps there, and is refused once another driver has taken over.

mod fill_disk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, join_all};
use jiff::Timestamp;
use tokio::task::JoinHandle;

use self::fill_disk::Filling;
use super::fleet::{Fleet, FleetError, Lifecycle, Place};
use super::session::KnownBuild;
use crate::home::Home;
use crate::hosts::{FencingToken, Finished, Host as _, Step, Work};
use crate::model::build::BuildRef;
use crate::model::environment::Component;
use crate::model::rehearsal::{Disturbance, FillDisk, HoldRow, KillNode, RestartComponent};
use crate::model::values::Digest;
use crate::signals::postgres::hold::{HoldHandle, HoldPlan};
use crate::signals::{FEED_CAPACITY, Observations, Observed, feed};
use crate::store::StoreError;

/// Why a disturbance cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DisturbError {
    /// Databases, secrets, scripts.
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
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Disturbances that go on; dropping it ends them.
pub struct Disturbances {
    holds: Vec<HoldHandle>,
    acts: Vec<Act>,
    troubles: Observations,
}

/// Something that is done once, some time after the beginning.
struct Act {
    name: String,
    /// Its time has come.
    begun: Arc<AtomicBool>,
    at_end: AtEnd,
    task: JoinHandle<Result<(), String>>,
}

/// What becomes of an act that goes on when the run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    /// It is waited for: cut off in the middle it would leave services stopped.
    Finish,
    /// It is cut off, which ends what it does.
    Cut,
}

impl Drop for Act {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What disturbances act with.
#[derive(Clone)]
struct Hands {
    fleet: Arc<Fleet>,
    token: FencingToken,
    /// The builds that are known, which scripts may name.
    builds: Arc<BTreeMap<Digest, BuildRef>>,
}

impl Disturbances {
    /// Begins them, under the lease of whoever drives. Must run within a tokio runtime.
    ///
    /// # Errors
    /// One that cannot be made; then none is.
    pub fn start(
        home: &Home,
        fleet: &Arc<Fleet>,
        token: &FencingToken,
        stated: &[Disturbance],
    ) -> Result<Self, DisturbError> {
        let known = KnownBuild::all(home)?.into_values();
        let hands = Hands {
            fleet: Arc::clone(fleet),
            token: token.clone(),
            builds: Arc::new(known.map(|b| (b.spec.digest, b.spec.reference())).collect()),
        };
        let (to, troubles) = feed(FEED_CAPACITY);
        let mut this = Self {
            holds: Vec::new(),
            acts: Vec::new(),
            troubles,
        };
        for disturbance in stated {
            let Disturbance {
                name,
                hold_row,
                restart_component,
                kill_node,
                fill_disk,
            } = disturbance;
            if let Some(hold) = hold_row {
                let plan = hold_plan(fleet, name, hold).map_err(|source| DisturbError::Fleet {
                    name: name.clone(),
                    source,
                })?;
                this.holds.push(HoldHandle::start(plan, to.clone()));
            }
            if let Some(kill) = kill_node {
                let act = kill_node_act(Arc::clone(fleet), kill.clone()).boxed();
                this.begin(name, kill.after.0, AtEnd::Cut, act);
            }
            if let Some(restart) = restart_component {
                let act = restart_act(&hands, name, restart)?;
                this.begin(name, restart.after.0, AtEnd::Finish, act);
            }
            if let Some(fill) = fill_disk {
                let act = fill_act(home, fleet, name, fill)?;
                this.begin(name, fill.after.0, AtEnd::Cut, act);
            }
        }
        Ok(this)
    }

    fn begin(&mut self, name: &str, after: Duration, at_end: AtEnd, act: BoxFuture<'static, Result<(), String>>) {
        let begun = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&begun);
        let task = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            flag.store(true, Ordering::SeqCst);
            act.await
        });
        self.acts.push(Act {
            name: name.to_owned(),
            begun,
            at_end,
            task,
        });
    }

    /// Ends them.
    pub async fn stop(mut self) -> Ended {
        for hold in self.holds.drain(..) {
            hold.stop().await;
        }
        let mut undone = Vec::new();
        for mut act in self.acts.drain(..) {
            let begun = act.begun.load(Ordering::SeqCst);
            if !begun {
                undone.push(format!("{}: the run had ended before its time came", act.name));
            } else if act.at_end == AtEnd::Finish || act.task.is_finished() {
                match (&mut act.task).await {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => undone.push(format!("{}: {why}", act.name)),
                    Err(why) => undone.push(format!("{}: {why}", act.name)),
                }
            }
        }
        let troubles = self.troubles.take().into_iter().filter_map(|seen| match seen {
            Observed::Trouble(trouble) => Some(format!("{}: {}", trouble.signal, trouble.why)),
            Observed::Sample(_) | Observed::Afterwards(_) => None,
        });
        let mut troubles: Vec<String> = troubles.collect();
        troubles.dedup();
        Ended { undone, troubles }
    }
}

/// What disturbances could not do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// Acts that did not take place: a rehearsal without its disturbance shows nothing.
    pub undone: Vec<String>,
    /// What stood in the way of one that goes on all the time, now and then.
    pub troubles: Vec<String>,
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

fn impossible(name: &str, why: String) -> DisturbError {
    DisturbError::Impossible {
        name: name.to_owned(),
        why,
    }
}

fn local_place<'a>(fleet: &'a Fleet, node: &str) -> Result<&'a Place, String> {
    let place = fleet
        .all_places()
        .find(|p| p.site.name == node)
        .ok_or_else(|| format!("there is no node {node}"))?;
    match place.site.host {
        None => Ok(place),
        Some(_) => Err(format!("node {node} is not on this machine")),
    }
}

async fn kill_node_act(fleet: Arc<Fleet>, kill: KillNode) -> Result<(), String> {
    let place = local_place(&fleet, &kill.node)?;
    let sight = place
        .host
        .observe(&place.address, &[])
        .await
        .map_err(|e| e.to_string())?;
    let running = sight.running.ok_or_else(|| format!("{} does not run", kill.node))?;
    let pid = i32::try_from(running.pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("{} is no process", running.pid))?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(|e| e.to_string())
}

/// All nodes of the component at once: that is how a database restarts for those who use it.
fn restart_act(
    hands: &Hands,
    name: &str,
    restart: &RestartComponent,
) -> Result<BoxFuture<'static, Result<(), String>>, DisturbError> {
    let stated = hands.fleet.environment.component(&restart.component);
    let component = stated
        .ok_or_else(|| impossible(name, format!("there is no component {}", restart.component)))?
        .clone();
    if component.service.is_none() || component.actions.start.is_none() || component.actions.stop.is_none() {
        return Err(impossible(
            name,
            format!(
                "component {} has no service with actions to stop and to start",
                component.name
            ),
        ));
    }
    let hands = hands.clone();
    Ok(async move {
        let places = hands.fleet.places(&component.name);
        let all = join_all(places.iter().map(|place| restart_node(&hands, &component, place))).await;
        let failed: Vec<String> = all.into_iter().filter_map(Result::err).collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.join("; "))
        }
    }
    .boxed())
}

async fn restart_node(hands: &Hands, component: &Component, place: &Place) -> Result<(), String> {
    let Hands { fleet, token, builds } = hands;
    let node = &place.site.name;
    let failed = |why: String| format!("{node}: {why}");
    let sight = place
        .host
        .observe(&place.address, &[])
        .await
        .map_err(|e| failed(e.to_string()))?;
    if sight.running.is_none() {
        return Err(failed("it did not run, so it was not restarted".to_owned()));
    }
    let build = sight.current.and_then(|digest| builds.get(&digest));
    let script = |action| {
        fleet
            .script(component, Some(&place.site), build, action)
            .map_err(|e| failed(e.to_string()))
    };
    // One step, so that the node itself brings the service back should we be gone in between.
    let step = Step {
        id: format!("disturb{}.{}.restart", token.counter, Timestamp::now().as_microsecond()),
        action: "restart".to_owned(),
        work: Work::Restart {
            stop: script(Lifecycle::Stop)?,
            start: script(Lifecycle::Start)?,
        },
    };
    let finished = place.host.finish(&place.address, token, &step).await;
    match finished.map_err(|e| failed(e.to_string()))? {
        Finished::Ended(end) if end.exit == 0 => Ok(()),
        Finished::Ended(end) => Err(failed(format!("the restart ended with {}: {}", end.exit, end.log_tail))),
        Finished::CutOff => Err(failed("the restart was cut off".to_owned())),
    }
}

fn fill_act(
    home: &Home,
    fleet: &Fleet,
    name: &str,
    fill: &FillDisk,
) -> Result<BoxFuture<'static, Result<(), String>>, DisturbError> {
    let FillDisk {
        node, hold, leave_mib, ..
    } = fill;
    let place = local_place(fleet, node).map_err(|why| impossible(name, why))?;
    let directory = std::path::PathBuf::from(&place.address.directory);
    fill_disk::check(&directory, home.root()).map_err(|why| impossible(name, why))?;
    let (hold, leave_bytes) = (hold.0, leave_mib << 20);
    Ok(async move {
        let filling = Filling::begin(&directory);
        let filling = filling.map_err(|e| format!("cannot make a file in {}: {e}", directory.display()))?;
        filling.fill(leave_bytes).await.map_err(|e| e.to_string())?;
        tokio::time::sleep(hold).await;
        Ok(())
    }
    .boxed())
}

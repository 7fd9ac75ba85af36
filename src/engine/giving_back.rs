//! What an upgrade had of a workload, given back to its owner. That it is still to be done is written down with the upgrade's end, so
//! whoever comes after a driver that was killed there, or was refused, does it.

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;

use super::fleet::{Fleet, Place};
use super::lease::{HeldLease, KEEP_EVERY};
use super::ledger::{Embedded, Ledger, Write};
use super::live::OnCommit;
use super::session::SessionError;
use super::world::CommitError;
use super::{DriveError, delivery};
use crate::home::Home;
use crate::hosts::{Ended, FencingToken, Host as _, HostError, Leaving, Went};
use crate::model::environment::HostRef;
use crate::model::upgrade::{Event, Kept, Severity, UpgradeStatus};
use crate::store::{Store as _, UpgradeRecord};

/// It is some requests, each of which may be made anew when others write meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);
/// What is kept of other components is tried again this often beside an upgrade that goes on: it was tried a moment before that began.
pub const BESIDE_EVERY: Duration = Duration::from_mins(1);
/// Attempts at a commit that somebody else's write came before.
const ATTEMPTS: u32 = 5;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Nothing is kept any more.
    Back,
    /// Something is, for this reason.
    Kept(String),
}

/// How long ago an upgrade has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Its driver has just written that down.
    JustNow,
    /// Its owner may have changed the workload since.
    Before,
}

/// An upgrade that has ended and keeps something still.
pub struct GivingBack<'a> {
    /// The environment.
    pub fleet: &'a Fleet,
    /// Proof of holding it.
    pub token: &'a FencingToken,
    /// The upgrade.
    pub record: &'a UpgradeRecord,
    /// Where it is written down.
    pub ledger: &'a dyn Ledger,
    /// Told of every commit.
    pub on_commit: &'a OnCommit<'a>,
}

impl GivingBack<'_> {
    /// Tries once, and writes down what came of it. Somebody is told the first time that it fails, and when it is done after that.
    ///
    /// # Errors
    /// It could not be written down, or another driver has taken over.
    pub async fn attempt(&self, since: Since) -> Result<Given, DriveError> {
        let status = self.ledger.load().await?.status;
        if status.kept.is_none() {
            return Ok(Given::Back);
        }
        let ended = Ended {
            upgrade: &self.record.name,
            went: match status.rollback_for {
                Some(_) => Went::Back,
                None => Went::Forward,
            },
        };
        let leaving = match since {
            Since::JustNow => Leaving::JustEnded(ended),
            Since::Before => Leaving::EndedBefore(ended),
        };
        let left = held(
            self.ledger,
            leave(self.fleet, &self.record.spec.component, self.token, &leaving),
        )
        .await?;
        self.write(left.as_ref().err()).await?;
        Ok(left.map_or_else(Given::Kept, |()| Given::Back))
    }

    async fn write(&self, why: Option<&String>) -> Result<(), DriveError> {
        let component = &self.record.spec.component;
        for _ in 0..ATTEMPTS {
            let written = self.ledger.load().await?;
            let was_told = written.status.kept.as_ref().is_some_and(|kept| kept.why.is_some());
            let kept = why.map(|why| Kept { why: Some(why.clone()) });
            let event = match why {
                Some(why) if !was_told => Some(told(
                    "NotGivenBack",
                    Severity::Alert,
                    format!(
                        "{component} could not be given back to its owner; it is kept, and that is tried again: {why}"
                    ),
                )),
                None if was_told => Some(told(
                    "GivenBack",
                    Severity::Step,
                    format!("{component} is given back to its owner"),
                )),
                Some(_) | None => None,
            };
            let status = UpgradeStatus {
                kept,
                ..(*written.status).clone()
            };
            if status == *written.status {
                return Ok(());
            }
            let write = Write {
                version: written.version,
                status: &status,
                events: event.as_slice(),
                builds: &[],
            };
            match self.ledger.commit(write).await {
                // Somebody has wished something or deleted it just now: what it is then is read by the next.
                Err(CommitError::Conflict) => {}
                other => {
                    other?;
                    (self.on_commit)(&status, event.as_slice());
                    return Ok(());
                }
            }
        }
        Err(CommitError::Conflict.into())
    }
}

fn told(reason: &str, severity: Severity, message: String) -> Event {
    Event {
        at: Timestamp::now(),
        reason: reason.to_owned(),
        severity,
        node: None,
        message,
    }
}

/// Tries it once for an upgrade of the embedded home.
///
/// # Errors
/// As [`GivingBack::attempt`].
pub async fn attempt(
    home: &Home,
    fleet: &Fleet,
    record: &UpgradeRecord,
    lease: &HeldLease,
    on_commit: &OnCommit<'_>,
) -> Result<Given, SessionError> {
    let ledger = Embedded::new(home, &record.name, &record.spec, lease.token(), delivery::sinks(fleet));
    let giving = GivingBack {
        fleet,
        token: lease.token(),
        record,
        ledger: &ledger,
        on_commit,
    };
    Ok(giving.attempt(Since::Before).await?)
}

/// The same for every upgrade of an environment that keeps something, before the next one begins.
///
/// # Errors
/// As [`GivingBack::attempt`].
pub async fn attempt_all(home: &Home, fleet: &Fleet, lease: &HeldLease) -> Result<(), SessionError> {
    for record in home.store().kept(Some(&fleet.environment.name))? {
        // Where it cannot be done, the first step of the next one is refused and says why.
        if let Given::Kept(why) = attempt(home, fleet, &record, lease, &|_, _| {}).await? {
            tracing::warn!(why, upgrade = record.name, "it was not given back");
        }
    }
    Ok(())
}

/// The same again and again beside an upgrade of one component, for what is kept of the others: their workloads are not its own, and it may go
/// on for hours.
pub(super) async fn beside(
    home: &Home,
    fleet: &Fleet,
    lease: &HeldLease,
    component: &str,
    on_commit: &OnCommit<'_>,
) -> Infallible {
    loop {
        tokio::time::sleep(BESIDE_EVERY).await;
        let kept = match home.store().kept(Some(&fleet.environment.name)) {
            Ok(kept) => kept,
            Err(why) => {
                tracing::warn!(%why, "whether something is kept was not found out");
                continue;
            }
        };
        for record in kept.iter().filter(|record| record.spec.component != component) {
            let why = match attempt(home, fleet, record, lease, on_commit).await {
                Ok(Given::Back) => continue,
                Ok(Given::Kept(why)) => why,
                Err(why) => why.to_string(),
            };
            tracing::warn!(why, upgrade = record.name, "it was not given back");
        }
    }
}

/// The same for whatever was left behind by an upgrade that nobody knows of any more, before one of the same workload begins. What one that
/// is known has, be it of another environment over the same workload, is given back by that; until then the workload is refused to this one.
pub(super) async fn of_unknown(
    ledger: &dyn Ledger,
    fleet: &Fleet,
    begun: &UpgradeRecord,
    token: &FencingToken,
) -> Result<(), DriveError> {
    let component = &begun.spec.component;
    let Some(place) = one_pod(fleet.places(component)) else {
        return Ok(());
    };
    let by = match held(ledger, within_patience(place.host.observe(&place.address, &[]))).await? {
        Ok(sight) => sight.held_by,
        Err(why) => {
            tracing::warn!(why, "who has it was not found out");
            return Ok(());
        }
    };
    // Asked after the look: whoever takes a workload was known before. One of this upgrade's own name is of another before it.
    if let Some(by) = by.as_deref().filter(|by| *by != begun.name)
        && ledger.is_open(by).await?
    {
        return Ok(());
    }
    let leaving = Leaving::Unknown { by: by.as_deref() };
    if let Err(why) = held(ledger, leave(fleet, component, token, &leaving)).await? {
        tracing::warn!(why, "it was not given back");
    }
    Ok(())
}

/// Gives back what was kept from others while an upgrade went on, and says why if that failed.
async fn leave(fleet: &Fleet, component: &str, token: &FencingToken, leaving: &Leaving<'_>) -> Result<(), String> {
    if fleet.environment.component(component).is_none() {
        return Err(format!(
            "environment {} has no component {component} any more, so nobody knows where its workload is; put it back",
            fleet.environment.name
        ));
    }
    let Some(place) = one_pod(fleet.places(component)) else {
        return Ok(());
    };
    within_patience(place.host.leave(&place.address, token, leaving)).await
}

async fn within_patience<T>(asked: impl Future<Output = Result<T, HostError>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|why| why.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// One of the pods of a component, which have what is given back together: they are of one workload. Servers have nothing.
fn one_pod(places: &[Place]) -> Option<&Place> {
    places
        .iter()
        .find(|place| matches!(place.site.host, Some(HostRef::Pod(_))))
}

/// Does some work, and says meanwhile that the driver lives.
async fn held<T>(ledger: &dyn Ledger, work: impl Future<Output = T>) -> Result<T, DriveError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(KEEP_EVERY) => ledger.renew().await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::system::PortShift;
    use crate::model::upgrade::{Phase, UpgradeSpec};
    use crate::store::{Commit, no_dispatch};
    use crate::workspace::Workspace;

    const TWO: &str = "
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: shop}
spec:
  components:
    - {name: web, nodes: [{name: w1}]}
    - {name: front, nodes: [{name: f1}]}
";

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_other_components_is_given_back_beside_an_upgrade() {
        let directory = tempfile::tempdir().expect("a directory");
        let environments = directory.path().join("environments");
        std::fs::create_dir_all(&environments).expect("made");
        std::fs::write(environments.join("shop.yaml"), TWO).expect("written");
        let home = Home::open(&directory.path().join("state")).expect("a home");
        let workspace = Workspace::at(directory.path().to_owned());
        let fleet = Fleet::read(&home, &workspace, "shop", PortShift::default()).expect("sound");
        let lease = HeldLease::take(&home, "shop").expect("free");
        for component in ["web", "front"] {
            let spec: UpgradeSpec =
                serde_json::from_value(json!({"environment": "shop", "component": component, "build": "b-1"}))
                    .expect("a spec");
            let now = Timestamp::now();
            let created = home
                .store()
                .create_upgrade(component, &spec, &UpgradeStatus::new(now), now);
            let created = created.expect("written");
            let status = UpgradeStatus {
                phase: Phase::Succeeded,
                finished_at: Some(now),
                kept: Some(Kept::default()),
                ..created.status
            };
            home.store()
                .commit(&Commit {
                    upgrade: component,
                    expected_version: created.resource_version,
                    token: lease.token(),
                    at: now,
                    status: &status,
                    events: &[],
                    builds: &[],
                    wish: None,
                    dispatch: &no_dispatch,
                })
                .expect("written");
        }
        let kept = || -> Vec<String> {
            let all = home.store().kept(Some("shop")).expect("readable");
            all.into_iter().map(|record| record.name).collect()
        };
        let beside = beside(&home, &fleet, &lease, "web", &|_, _| {});
        let over = tokio::time::timeout(BESIDE_EVERY * 2, beside).await;
        assert!(over.is_err(), "it goes on as long as the upgrade does");
        assert_eq!(kept(), ["web"]);
    }
}

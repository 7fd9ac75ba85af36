//! What an upgrade had of a workload, given back to its owner. That it is still to be done is written down with the upgrade's end, so
//! whoever comes after a driver that was killed there, or was refused, does it.

use std::collections::BTreeMap;
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
use crate::model::upgrade::{Event, Kept, Severity, UpgradeSpec, UpgradeStatus};
use crate::store::{Store as _, UpgradeRecord};

/// It is some requests, each of which may be made anew when others write meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);
/// What is kept of other components is tried again this often beside an upgrade that goes on: it was tried a moment before that began.
const BESIDE_EVERY: Duration = Duration::from_mins(1);
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

/// What was said of upgrades that keep something: whoever watches another one is told once for each reason.
#[derive(Debug, Default)]
pub struct Said(BTreeMap<String, String>);

/// What is done about something that is kept while an upgrade goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is of another component, and tried again and again.
    Beside,
    /// It is of the component that is upgraded: where it is still had, that is refused its first step.
    BeforeTheNext,
}

impl Again {
    fn of(kept: &UpgradeSpec, begun: &str) -> Self {
        if kept.component == begun {
            Again::BeforeTheNext
        } else {
            Again::Beside
        }
    }
}

impl Said {
    /// What there is to be said of an upgrade that keeps something for this reason, if that is news.
    pub fn news(&mut self, upgrade: &str, spec: &UpgradeSpec, why: &str, again: Again) -> Option<String> {
        if self.0.get(upgrade).is_some_and(|said| said == why) {
            return None;
        }
        self.0.insert(upgrade.to_owned(), why.to_owned());
        let UpgradeSpec {
            component, environment, ..
        } = spec;
        let next = match again {
            Again::Beside => format!(
                "tried again every {} s while the upgrade beside it goes on",
                BESIDE_EVERY.as_secs()
            ),
            Again::BeforeTheNext => {
                format!("the upgrade of {component} that begins now is refused it for as long as that stays so")
            }
        };
        Some(format!(
            "upgrade {upgrade} has ended, and what it had of {component} in {environment} could not be given back to its owner: {why}; {next}"
        ))
    }

    /// It is given back; should it be kept again, that is news.
    pub fn is_given(&mut self, upgrade: &str) {
        self.0.remove(upgrade);
    }
}

/// The same for every upgrade of an environment that keeps something, before one of this component begins.
///
/// # Errors
/// As [`GivingBack::attempt`].
pub async fn attempt_all(
    home: &Home,
    fleet: &Fleet,
    lease: &HeldLease,
    component: &str,
    said: &mut Said,
) -> Result<(), SessionError> {
    for record in home.store().kept(Some(&fleet.environment.name))? {
        if let Given::Kept(why) = attempt(home, fleet, &record, lease, &|_, _| {}).await?
            && let Some(news) = said.news(&record.name, &record.spec, &why, Again::of(&record.spec, component))
        {
            tracing::warn!("{news}");
        }
    }
    Ok(())
}

/// Who knows what ended upgrades of an environment keep, and gives it back.
pub trait Keeping {
    /// Ended upgrades that keep something.
    ///
    /// # Errors
    /// It was not found out: why.
    fn kept(&self) -> Result<Vec<UpgradeRecord>, String>;
    /// Gives back what one keeps.
    ///
    /// # Errors
    /// It could not be tried: why.
    fn give_back(&self, record: &UpgradeRecord) -> impl Future<Output = Result<Given, String>>;
}

/// As the embedded home has it.
pub(super) struct Stored<'a> {
    pub(super) home: &'a Home,
    pub(super) fleet: &'a Fleet,
    pub(super) lease: &'a HeldLease,
    pub(super) on_commit: &'a OnCommit<'a>,
}

impl Keeping for Stored<'_> {
    fn kept(&self) -> Result<Vec<UpgradeRecord>, String> {
        let kept = self.home.store().kept(Some(&self.fleet.environment.name));
        kept.map_err(|why| why.to_string())
    }

    async fn give_back(&self, record: &UpgradeRecord) -> Result<Given, String> {
        let given = attempt(self.home, self.fleet, record, self.lease, self.on_commit).await;
        given.map_err(|why| why.to_string())
    }
}

/// The same again and again beside an upgrade of one component, for what is kept of the others: their workloads are not its own, and it may go
/// on for hours.
pub async fn beside(keeping: &impl Keeping, component: &str, said: &mut Said) -> Infallible {
    loop {
        tokio::time::sleep(BESIDE_EVERY).await;
        let kept = match keeping.kept() {
            Ok(kept) => kept,
            Err(why) => {
                tracing::warn!(%why, "whether something is kept was not found out");
                continue;
            }
        };
        for record in kept.iter().filter(|record| record.spec.component != component) {
            let why = match keeping.give_back(record).await {
                Ok(Given::Back) => {
                    said.is_given(&record.name);
                    continue;
                }
                Ok(Given::Kept(why)) | Err(why) => why,
            };
            if let Some(news) = said.news(&record.name, &record.spec, &why, Again::Beside) {
                tracing::warn!("{news}");
            }
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
            tracing::warn!(
                "upgrade {}: whether {component} was left by one that nobody knows of any more was not found out: {why}; where that is so, \
                 its first step is refused and says it",
                begun.name
            );
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
        let whose = by.map_or_else(String::new, |by| format!(" by upgrade {by}"));
        tracing::warn!(
            "upgrade {}: {component} was left{whose}, which nobody knows of any more, and could not be given back to its owner: {why}; where \
             it is still had, the first step is refused and says so",
            begun.name
        );
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
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::model::system::PortShift;
    use crate::model::upgrade::Phase;
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

    /// A home whose upgrades of these components, each by its component's name, have ended and keep something.
    struct Stock {
        home: Home,
        fleet: Fleet,
        lease: HeldLease,
        _directory: tempfile::TempDir,
    }

    impl Stock {
        fn of(components: &[&str]) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let environments = directory.path().join("environments");
            std::fs::create_dir_all(&environments).expect("made");
            std::fs::write(environments.join("shop.yaml"), TWO).expect("written");
            let home = Home::open(&directory.path().join("state")).expect("a home");
            let workspace = Workspace::at(directory.path().to_owned());
            let fleet = Fleet::read(&home, &workspace, "shop", PortShift::default()).expect("sound");
            let lease = HeldLease::take(&home, "shop").expect("free");
            for component in components {
                let spec = spec(component);
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
            Self {
                home,
                fleet,
                lease,
                _directory: directory,
            }
        }

        fn kept(&self) -> Vec<String> {
            let all = self.home.store().kept(Some("shop")).expect("readable");
            all.into_iter().map(|record| record.name).collect()
        }

        /// Beside an upgrade of `web` for so many attempts.
        async fn beside_web(&self, attempts: u32) {
            let mut said = Said::default();
            let keeping = Stored {
                home: &self.home,
                fleet: &self.fleet,
                lease: &self.lease,
                on_commit: &|_, _| {},
            };
            let beside = beside(&keeping, "web", &mut said);
            let over = tokio::time::timeout(BESIDE_EVERY * attempts + BESIDE_EVERY / 2, beside).await;
            assert!(over.is_err(), "it goes on as long as the upgrade does");
        }
    }

    fn spec(component: &str) -> UpgradeSpec {
        serde_json::from_value(json!({"environment": "shop", "component": component, "build": "b-1"})).expect("a spec")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_other_components_is_given_back_beside_an_upgrade() {
        let shop = Stock::of(&["web", "front"]);
        shop.beside_web(1).await;
        assert_eq!(shop.kept(), ["web"]);
    }

    /// What is logged meanwhile, and by this thread alone.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_kept_is_said_once_with_whose_it_is_and_why() {
        let shop = Stock::of(&["gone"]);
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let logging = tracing::subscriber::set_default(subscriber);
        shop.beside_web(3).await;
        drop(logging);
        assert_eq!(shop.kept(), ["gone"]);
        let said = String::from_utf8(log.0.lock().expect("whole").clone()).expect("text");
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in [
            "upgrade gone has ended",
            "gone in shop could not be given back",
            "has no component gone",
            "again every 60 s",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn what_is_kept_is_said_once_for_each_reason() {
        let mut said = Said::default();
        let mut news = |upgrade: &str, why: &str| said.news(upgrade, &spec("web"), why, Again::of(&spec("web"), "web"));
        let first = news("up", "not now").expect("it is new");
        assert!(
            first.ends_with("not now; the upgrade of web that begins now is refused it for as long as that stays so"),
            "{first}"
        );
        assert_eq!(news("up", "not now"), None);
        assert!(news("other", "not now").is_some(), "of another upgrade it is new");
        assert!(
            news("up", "forbidden")
                .expect("the reason is new")
                .contains("forbidden")
        );
        said.is_given("up");
        assert!(said.news("up", &spec("web"), "forbidden", Again::Beside).is_some());
    }
}

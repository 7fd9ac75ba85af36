//! One courier an environment for as long as there may be something to carry; begun anew when the environment's file names other sinks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::home::Home;
use crate::model::environment::ReportSink;
use crate::model::system::PortShift;
use crate::report::{Courier, Lines};
use crate::store::{Store as _, StoreError};
use crate::workspace::Workspace;

/// As long as a delivery may take.
const LAST_OF_THE_OLD: Duration = Duration::from_secs(20);

/// A courier on its way.
struct OnTheWay {
    stated: Vec<ReportSink>,
    courier: Arc<Courier>,
    task: JoinHandle<()>,
}

/// The couriers of a home.
pub(super) struct Couriers<'a> {
    home: &'a Home,
    workspace: &'a Workspace,
    shift: PortShift,
    lines: Arc<dyn Lines>,
    by_environment: BTreeMap<String, OnTheWay>,
    /// What was said of an environment whose reports cannot be carried, so that it is said once.
    complaints: BTreeMap<String, String>,
}

impl<'a> Couriers<'a> {
    pub(super) fn new(home: &'a Home, workspace: &'a Workspace, shift: PortShift, lines: &Arc<dyn Lines>) -> Self {
        Self {
            home,
            workspace,
            shift,
            lines: Arc::clone(lines),
            by_environment: BTreeMap::new(),
            complaints: BTreeMap::new(),
        }
    }

    /// Sees to it that every environment that is up, or still has something to tell, has its courier.
    pub(super) fn reread(&mut self) {
        match self.environments() {
            Ok(names) => {
                self.rest(|environment| names.contains(environment));
                for name in &names {
                    self.reread_one(name);
                }
            }
            Err(why) => tracing::warn!(%why, "cannot look for environments"),
        }
    }

    /// Makes sure that an environment has a courier, without looking at its file when it has one.
    pub(super) fn serve(&mut self, environment: &str) {
        if !self.by_environment.contains_key(environment) && !self.complaints.contains_key(environment) {
            self.reread_one(environment);
        }
    }

    /// Sees to it that what waits has its courier, where nobody is told of environments that are up.
    pub(super) fn carry_waiting(&mut self) {
        match self.waiting() {
            Ok(names) => {
                for name in names {
                    if !self.by_environment.contains_key(&name) || self.complaints.contains_key(&name) {
                        self.reread_one(&name);
                    }
                }
            }
            Err(why) => tracing::warn!(%why, "cannot look for reports that wait"),
        }
    }

    /// Lets go whoever has nothing to carry, where nobody is at work who may give it something. With the next that is to be told another
    /// comes.
    pub(super) fn rest(&mut self, is_at_work: impl Fn(&str) -> bool) {
        let waiting = match self.waiting() {
            Ok(waiting) => waiting,
            Err(why) => {
                tracing::warn!(%why, "cannot look for reports that wait");
                return;
            }
        };
        let stays = |environment: &str| is_at_work(environment) || waiting.contains(environment);
        for (_, idle) in self.by_environment.extract_if(.., |environment, _| !stays(environment)) {
            idle.courier.finish(LAST_OF_THE_OLD);
        }
        self.complaints.retain(|environment, _| stays(environment));
    }

    /// An environment's file has changed, and may name other sinks.
    pub(super) fn changed(&mut self, environment: &str) {
        if self.by_environment.contains_key(environment) || self.complaints.contains_key(environment) {
            self.reread_one(environment);
        }
    }

    fn environments(&self) -> Result<BTreeSet<String>, StoreError> {
        let stated = self.home.store().resources("Environment")?;
        let mut names: BTreeSet<String> = stated.into_iter().map(|r| r.name).collect();
        // The last reports of one that was purged may still wait.
        names.extend(self.waiting()?);
        Ok(names)
    }

    /// Environments whose reports wait.
    fn waiting(&self) -> Result<BTreeSet<String>, StoreError> {
        let pending = self
            .home
            .store()
            .pending(None, None)?
            .into_iter()
            .filter(|p| p.waiting > 0);
        let names = pending.filter_map(|p| p.sink.split_once('/').map(|(environment, _)| environment.to_owned()));
        Ok(names.collect())
    }

    fn reread_one(&mut self, environment: &str) {
        if let Err(why) = self.try_reread(environment) {
            let said = self.complaints.insert(environment.to_owned(), why.clone());
            if said.as_ref() != Some(&why) {
                tracing::warn!(environment, %why, "its reports wait");
            }
        } else {
            self.complaints.remove(environment);
        }
    }

    fn try_reread(&mut self, environment: &str) -> Result<(), String> {
        let fleet = Fleet::read(self.home, self.workspace, environment, self.shift).map_err(|e| e.to_string())?;
        let stated = &fleet.environment.spec.reports;
        if self
            .by_environment
            .get(environment)
            .is_some_and(|on_the_way| on_the_way.stated == *stated && !self.complaints.contains_key(environment))
        {
            return Ok(());
        }
        let (courier, troubles) = delivery::courier(self.home, &fleet, Some(&self.lines));
        let courier = Arc::new(courier);
        let task = tokio::spawn({
            let courier = Arc::clone(&courier);
            async move { courier.run().await }
        });
        let new = OnTheWay {
            stated: stated.clone(),
            courier,
            task,
        };
        if let Some(old) = self.by_environment.insert(environment.to_owned(), new) {
            // What it has in hand it settles itself, or somebody would be told twice; the two share the rest.
            old.courier.finish(LAST_OF_THE_OLD);
        }
        let troubles: Vec<String> = troubles.iter().map(ToString::to_string).collect();
        if troubles.is_empty() {
            Ok(())
        } else {
            Err(troubles.join("; "))
        }
    }

    /// Carries what waits for at most this long, then ends.
    pub(super) async fn finish(self, patience: Duration) {
        for on_the_way in self.by_environment.values() {
            on_the_way.courier.finish(patience);
        }
        for ended in join_all(self.by_environment.into_values().map(|on_the_way| on_the_way.task)).await {
            if let Err(why) = ended {
                tracing::warn!(%why, "a courier has ended badly");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVIRONMENT: &str = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: one}
spec:
  components:
    - {name: web, nodes: [{name: n1}]}
  reports:
    - {name: journal, file: {path: reports.jsonl}}
";

    struct Nowhere;

    impl Lines for Nowhere {
        fn line(&self, _: &str) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_courier_with_nothing_to_carry_ends_with_the_work_and_comes_back_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(directory.path().join("environments")).expect("made");
        std::fs::write(directory.path().join("environments/one.yaml"), ENVIRONMENT).expect("written");
        let home = Home::open(&directory.path().join("state")).expect("a home");
        let workspace = Workspace::at(directory.path().to_owned());
        let lines: Arc<dyn Lines> = Arc::new(Nowhere);
        let mut couriers = Couriers::new(&home, &workspace, PortShift::default(), &lines);
        couriers.serve("one");
        couriers.rest(|_| true);
        let task = {
            let on_the_way = couriers.by_environment.get_mut("one").expect("somebody is at work");
            std::mem::replace(&mut on_the_way.task, tokio::spawn(async {}))
        };
        couriers.rest(|_| false);
        assert!(couriers.by_environment.is_empty());
        task.await.expect("it has ended");
        couriers.serve("one");
        assert_eq!(couriers.by_environment.len(), 1);
    }
}

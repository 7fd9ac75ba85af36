//! One courier an environment for as long as there may be something to carry; begun anew when the environment's file names other sinks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::home::Home;
use crate::model::system::PortShift;
use crate::model::values::Digest;
use crate::report::{Complaints, Courier, Lines, Word};
use crate::store::{Store as _, StoreError};
use crate::workspace::{Workspace, WorkspaceError};

/// As long as a delivery may take.
const LAST_OF_THE_OLD: Duration = Duration::from_secs(20);

/// What is looked for, for people.
const WAITING: &str = "reports that wait";

/// A courier on its way.
struct OnTheWay {
    /// What its sinks were made of: whoever changes that wants others.
    made_of: Digest,
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
    /// Those of whom a courier was wanted who are not carried for as they state it.
    troubled: BTreeSet<String>,
    /// What was said of them, also of those that have nothing to carry meanwhile.
    complaints: Complaints,
    /// What was said of the outbox and the list of environments.
    of_store: Complaints,
}

impl<'a> Couriers<'a> {
    pub(super) fn new(home: &'a Home, workspace: &'a Workspace, shift: PortShift, lines: &Arc<dyn Lines>) -> Self {
        Self {
            home,
            workspace,
            shift,
            lines: Arc::clone(lines),
            by_environment: BTreeMap::new(),
            troubled: BTreeSet::new(),
            complaints: Complaints::default(),
            of_store: Complaints::default(),
        }
    }

    /// Sees to it that every environment that is up, or still has something to tell, has its courier.
    pub(super) fn reread(&mut self) {
        let found = self.environments();
        let Some(names) = self.found("environments", found) else {
            return;
        };
        self.rest(|environment| names.contains(environment));
        for name in &names {
            self.reread_one(name);
        }
    }

    /// Makes sure that an environment has a courier, without looking at its file when it has one.
    pub(super) fn serve(&mut self, environment: &str) {
        if !self.by_environment.contains_key(environment) && !self.troubled.contains(environment) {
            self.reread_one(environment);
        }
    }

    /// Sees to it that what waits has its courier, where nobody is told of environments that are up.
    pub(super) fn carry_waiting(&mut self) {
        let found = self.waiting();
        for name in self.found(WAITING, found).unwrap_or_default() {
            if !self.by_environment.contains_key(&name) || self.troubled.contains(&name) {
                self.reread_one(&name);
            }
        }
    }

    /// Lets go whoever has nothing to carry, where nobody is at work who may give it something. With the next that is to be told another
    /// comes.
    pub(super) fn rest(&mut self, is_at_work: impl Fn(&str) -> bool) {
        let found = self.waiting();
        let Some(waiting) = self.found(WAITING, found) else {
            return;
        };
        let stays = |environment: &str| is_at_work(environment) || waiting.contains(environment);
        for (_, idle) in self.by_environment.extract_if(.., |environment, _| !stays(environment)) {
            idle.courier.finish(LAST_OF_THE_OLD);
        }
        self.troubled.retain(|environment| stays(environment));
    }

    /// An environment's file has changed, and may name other sinks.
    pub(super) fn changed(&mut self, environment: &str) {
        if self.by_environment.contains_key(environment) || self.troubled.contains(environment) {
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

    /// What was looked for, if it was found; that it could not be, and can be again, is said once.
    fn found<T>(&mut self, what: &str, found: Result<T, StoreError>) -> Option<T> {
        let trouble = found.as_ref().err().map(ToString::to_string);
        match self.of_store.met(what, trouble) {
            Word::Trouble(why) => tracing::warn!(what, why, "they cannot be looked for"),
            Word::Over => tracing::info!(what, "they are looked for again"),
            Word::Nothing => {}
        }
        found.ok()
    }

    fn reread_one(&mut self, environment: &str) {
        match self.reread_and_judge(environment) {
            Word::Trouble(why) => tracing::warn!(environment, why, "its reports wait"),
            Word::Over => tracing::info!(environment, "its reports wait no more"),
            Word::Nothing => {}
        }
    }

    fn reread_and_judge(&mut self, environment: &str) -> Word {
        let trouble = self.try_reread(environment).err();
        if trouble.is_some() {
            self.troubled.insert(environment.to_owned());
        } else {
            self.troubled.remove(environment);
        }
        self.complaints.met(environment, trouble)
    }

    fn try_reread(&mut self, environment: &str) -> Result<(), String> {
        let fleet = Fleet::read(self.home, self.workspace, environment, self.shift).map_err(|why| match why {
            // It was deleted, and is brought back by nobody.
            WorkspaceError::Unknown { .. } => {
                "it is stated no more, so nobody knows who was to be told; the history has what is left of them"
                    .to_owned()
            }
            why
            @ (WorkspaceError::Invalid(_) | WorkspaceError::Unreadable { .. } | WorkspaceError::LeadsOut { .. }) => {
                why.to_string()
            }
        })?;
        let made_of = delivery::made_of(&fleet);
        if self
            .by_environment
            .get(environment)
            .is_some_and(|on_the_way| on_the_way.made_of == made_of && !self.troubled.contains(environment))
        {
            return Ok(());
        }
        let (courier, troubles) = delivery::courier(self.home, &fleet, Some(&self.lines));
        let courier = Arc::new(courier);
        let task = tokio::spawn({
            let courier = Arc::clone(&courier);
            async move { courier.run().await }
        });
        let new = OnTheWay { made_of, courier, task };
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

    #[tokio::test]
    async fn what_a_sink_is_made_of_is_read_anew_and_only_where_it_has_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
            std::fs::write(file, text).expect("written");
        };
        let sink = "{name: chat, template: news.txt, slack: {channel: C012345678, token: bot}}";
        let text = ENVIRONMENT.replace("{name: journal, file: {path: reports.jsonl}}", sink);
        let secrets = format!(
            "spec:\n  secrets: {{bot: {{file: {}/bot}}}}",
            directory.path().display()
        );
        write("environments/one.yaml", &text.replace("spec:", &secrets));
        write("templates/news.txt", "{% include \"shared.txt\" %}");
        write("templates/shared.txt", "so it is");
        write("bot", "xoxb-1");
        let home = Home::open(&directory.path().join("state")).expect("a home");
        let workspace = Workspace::at(directory.path().to_owned());
        let lines: Arc<dyn Lines> = Arc::new(Nowhere);
        let mut couriers = Couriers::new(&home, &workspace, PortShift::default(), &lines);
        couriers.try_reread("one").expect("it can be told");
        let mut before = Arc::clone(&couriers.by_environment["one"].courier);
        let mut is_another = || {
            couriers.try_reread("one").expect("it can be told");
            let now = Arc::clone(&couriers.by_environment["one"].courier);
            !Arc::ptr_eq(&now, &std::mem::replace(&mut before, Arc::clone(&now)))
        };
        assert!(!is_another());
        for (file, text) in [("bot", "xoxb-2"), ("templates/shared.txt", "and so it goes")] {
            write(file, text);
            assert!(is_another(), "{file}");
            assert!(!is_another(), "{file}");
        }
    }

    #[tokio::test]
    async fn who_cannot_be_carried_for_is_said_once_however_often_there_is_work_and_so_is_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("environments/one.yaml");
        std::fs::create_dir_all(directory.path().join("environments")).expect("made");
        let home = Home::open(&directory.path().join("state")).expect("a home");
        let workspace = Workspace::at(directory.path().to_owned());
        let lines: Arc<dyn Lines> = Arc::new(Nowhere);
        let mut couriers = Couriers::new(&home, &workspace, PortShift::default(), &lines);
        let mut words = Vec::new();
        // Its file as it is at each work that comes by, and what is said then.
        for text in [ENVIRONMENT, "nonsense", "nonsense", ENVIRONMENT, ENVIRONMENT] {
            std::fs::write(&file, text).expect("written");
            words.push(match couriers.reread_and_judge("one") {
                Word::Nothing => "nothing",
                Word::Trouble(_) => "trouble",
                Word::Over => "over",
            });
            couriers.rest(|_| false);
            assert!(
                couriers.troubled.is_empty(),
                "nobody tries again where there is nothing to carry"
            );
        }
        assert_eq!(words, ["nothing", "trouble", "nothing", "over", "nothing"]);
    }
}

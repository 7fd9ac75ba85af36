//! What is heard of the API server: every object of our kinds as it was told last, and which of them are to be looked at for it.
//! Nothing is looked at because time has passed, so what does not move costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use futures::future::FutureExt as _;
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::reflector::{self, ObjectRef, Store as Cache};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::shared::{Workload, workloads};
use crate::cluster::objects::{self, Kind, generation, is_deleted, name};
use crate::model::upgrade::Phase;

/// Kinds that are listened to; the others are asked for when they are needed.
const HEARD: [Kind; 5] = [
    Kind::Environment,
    Kind::Build,
    Kind::Upgrade,
    Kind::Promotion,
    Kind::Rehearsal,
];

/// All that is heard of one namespace.
pub(super) struct Heard {
    environments: Cache<DynamicObject>,
    builds: Cache<DynamicObject>,
    pub(super) upgrades: Cache<DynamicObject>,
    promotions: Cache<DynamicObject>,
    rehearsals: Cache<DynamicObject>,
    namespace: String,
    news: Mutex<News>,
    /// Told whenever there is something to look at.
    pub(super) changed: Notify,
    /// Told whenever something has changed that promotions or rehearsals may wait for.
    pub(super) promoted: Notify,
}

/// Watches end with it.
pub(super) struct Watches(Vec<JoinHandle<()>>);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Heard {
    /// Begins to listen.
    pub(super) fn listen(client: &Client, namespace: &str) -> (Arc<Self>, Watches) {
        let listened = HEARD.map(|kind| {
            let writer = reflector::store::Writer::new(kind.resource());
            (writer.as_reader(), (kind, writer))
        });
        let [environments, builds, upgrades, promotions, rehearsals] =
            listened.each_ref().map(|(cache, _)| cache.clone());
        let heard = Arc::new(Self {
            environments,
            builds,
            upgrades,
            promotions,
            rehearsals,
            namespace: namespace.to_owned(),
            news: Mutex::default(),
            changed: Notify::new(),
            promoted: Notify::new(),
        });
        let watches = listened.map(|(_, (kind, writer))| {
            let heard = Arc::clone(&heard);
            let seen = watcher(kind.api(client, namespace), watcher::Config::default());
            // Who wrote which field is a good part of an object, and nothing to us.
            let seen = seen
                .default_backoff()
                .modify(|object| object.metadata.managed_fields = None);
            tokio::spawn(async move {
                let mut seen = std::pin::pin!(reflector::reflector(writer, seen));
                while let Some(event) = seen.next().await {
                    match event {
                        Ok(event) => heard.note(kind, &event),
                        Err(why) => tracing::warn!(%why, ?kind, "objects are not heard of for a while"),
                    }
                }
            })
        });
        (heard, Watches(watches.into()))
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: Kind, event: &Event<DynamicObject>) {
        {
            let mut news = self.news();
            if is_of_promotions(kind, event, &news) {
                self.promoted.notify_one();
            }
            match (kind, event) {
                (_, Event::Init | Event::InitApply(_))
                | (Kind::Promotion | Kind::Pipeline | Kind::Freeze | Kind::Rehearsal, _) => return,
                (Kind::Environment, Event::Apply(object)) => news.environment(name(object), Some(Stated::of(object))),
                (Kind::Environment, Event::Delete(object)) => news.environment(name(object), None),
                (Kind::Upgrade, Event::Apply(object)) => news.upgrade(name(object), Some(Asked::of(object))),
                (Kind::Upgrade, Event::Delete(object)) => news.upgrade(name(object), None),
                (Kind::Build, Event::Apply(object) | Event::Delete(object)) => news.build(name(object)),
                (Kind::Environment, Event::InitDone) => {
                    let all = self.environments.state();
                    news.environments(all.iter().map(|o| (name(o).to_owned(), Stated::of(o))).collect());
                }
                (Kind::Upgrade, Event::InitDone) => {
                    let all = self.upgrades.state();
                    news.upgrades(all.iter().map(|o| (name(o).to_owned(), Asked::of(o))).collect());
                }
                (Kind::Build, Event::InitDone) => {
                    self.builds.state().iter().for_each(|object| news.build(name(object)));
                    // Also those that wait for one that is gone meanwhile.
                    news.look_at_all();
                }
            }
        }
        self.changed.notify_one();
    }

    /// Whether every kind was listed once.
    pub(super) fn has_listed(&self) -> bool {
        let caches = [
            &self.environments,
            &self.builds,
            &self.upgrades,
            &self.promotions,
            &self.rehearsals,
        ];
        caches
            .into_iter()
            .all(|cache| matches!(cache.wait_until_ready().now_or_never(), Some(Ok(()))))
    }

    fn find(&self, cache: &Cache<DynamicObject>, kind: Kind, name: &str) -> Option<Arc<DynamicObject>> {
        cache.get(&ObjectRef::new_with(name, kind.resource()).within(&self.namespace))
    }

    pub(super) fn environment(&self, name: &str) -> Option<Arc<DynamicObject>> {
        self.find(&self.environments, Kind::Environment, name)
    }

    pub(super) fn build(&self, name: &str) -> Option<Arc<DynamicObject>> {
        self.find(&self.builds, Kind::Build, name)
    }

    /// Every promotion.
    pub(super) fn promotions(&self) -> Vec<Arc<DynamicObject>> {
        self.promotions.state()
    }

    /// Every rehearsal.
    pub(super) fn rehearsals(&self) -> Vec<Arc<DynamicObject>> {
        self.rehearsals.state()
    }

    /// Every build, as it was heard of last.
    pub(super) fn builds(&self) -> Vec<Arc<DynamicObject>> {
        self.builds.state()
    }

    /// An environment's upgrades; of those that nothing is left to be done for, on demand.
    pub(super) fn upgrades_of(&self, environment: &str, which: Which) -> Vec<Arc<DynamicObject>> {
        let names: Vec<String> = {
            let news = self.news();
            let all = news.of_environment.get(environment).into_iter().flatten();
            let wanted = all.filter(|name| match which {
                Which::All => true,
                Which::Undone => news.upgrades.get(*name).is_some_and(|asked| !asked.is_done),
            });
            wanted.cloned().collect()
        };
        let found = names.iter().map(|name| self.find(&self.upgrades, Kind::Upgrade, name));
        found.flatten().collect()
    }

    /// Environments that state a workload of this one, too.
    pub(super) fn sharers(&self, environment: &str) -> Vec<Arc<DynamicObject>> {
        let names = self.news().sharers(environment);
        names.iter().filter_map(|name| self.environment(name)).collect()
    }

    /// What is asked of an environment, in words that change with it.
    pub(super) fn asked(&self, environment: &str) -> String {
        let of = |object: &DynamicObject| {
            let (uid, asked) = (objects::uid(object), objects::reconcile_at(object));
            format!("{} {uid} {} {asked:?} ", name(object), generation(object))
        };
        let upgrades = self.upgrades_of(environment, Which::Undone);
        let all = self.environment(environment).into_iter().chain(upgrades);
        all.map(|object| of(&object)).collect()
    }

    /// Whether an upgrade that has not ended names this build.
    pub(super) fn is_wanted(&self, build: &str) -> bool {
        self.news().waiting_for.contains_key(build)
    }

    /// Names by which upgrades that there are name what is theirs on a volume.
    pub(super) fn unique_names(&self) -> BTreeSet<String> {
        let all = self.upgrades.state();
        all.iter().map(|object| objects::unique_name(object)).collect()
    }

    /// Upgrades by phase.
    pub(super) fn phases(&self) -> BTreeMap<String, usize> {
        self.news().phases.clone()
    }

    pub(super) fn look_at(&self, environment: &str) {
        self.news().look.insert(environment.to_owned());
        self.changed.notify_one();
    }

    pub(super) fn look_at_build(&self, build: &str) {
        self.news().builds.insert(build.to_owned());
        self.changed.notify_one();
    }

    pub(super) fn look_at_all(&self) {
        let all = self.builds.state();
        let mut news = self.news();
        for object in &all {
            news.build(name(object));
        }
        news.look_at_all();
    }

    /// How many wait to be looked at.
    pub(super) fn waiting(&self) -> usize {
        let news = self.news();
        news.look.len() + news.builds.len()
    }

    /// The next environment to be looked at of those that are free, and none whose file is not as it is stated.
    pub(super) fn next_environment(&self, is_free: impl Fn(&str) -> bool) -> Option<String> {
        let mut news = self.news();
        let News { look, place, .. } = &*news;
        let mut free = look.iter().filter(|name| is_free(name) && !place.contains(*name));
        let next = free.next().cloned()?;
        news.look.remove(&next);
        Some(next)
    }

    /// The next build to be looked at.
    pub(super) fn next_build(&self) -> Option<String> {
        self.news().builds.pop_first()
    }

    /// Environments whose files are not as they are stated, each to be read from here on: what changes after this is among the next.
    pub(super) fn files(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.news().place)
    }

    /// Its file could not be written: nothing is begun by it.
    pub(super) fn is_unplaced(&self, environment: String) {
        self.news().place.insert(environment);
    }

    /// Whether its file is this generation of it, and those of what it is a replica of are as they are stated.
    pub(super) fn is_placed(&self, environment: &str, of: i64) -> bool {
        let waits = {
            let news = self.news();
            news.read_by(environment).iter().any(|name| news.place.contains(name))
        };
        !waits
            && self
                .environment(environment)
                .is_some_and(|object| generation(&object) == of)
    }

    /// Environments that are read with this one: it, and those that are replicas of it or of one of these.
    pub(super) fn read_with(&self, environment: &str) -> BTreeSet<String> {
        self.news().read_with(environment)
    }

    pub(super) fn environment_names(&self) -> BTreeSet<String> {
        self.news().environments.keys().cloned().collect()
    }
}

/// Which upgrades of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those for which something may be to be done.
    Undone,
}

/// What of an Environment says whom its changes concern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stated {
    uid: String,
    generation: i64,
    replica_of: Option<String>,
    workloads: BTreeSet<Workload>,
}

impl Stated {
    fn of(object: &DynamicObject) -> Self {
        Self {
            uid: objects::uid(object).to_owned(),
            generation: generation(object),
            replica_of: object.data["spec"]["replicaOf"].as_str().map(str::to_owned),
            workloads: workloads(object),
        }
    }
}

/// Whether promotions may go on otherwise by it. Upgrades write their status many times a minute, which is news for the promotion alone that one
/// is of, and for others once it stands elsewhere.
fn is_of_promotions(kind: Kind, event: &Event<DynamicObject>, news: &News) -> bool {
    match (kind, event) {
        (Kind::Upgrade, Event::Apply(object)) => {
            object.data["spec"]["promotion"].is_string() || news.upgrades.get(name(object)) != Some(&Asked::of(object))
        }
        (Kind::Upgrade, Event::Init | Event::InitApply(_) | Event::InitDone | Event::Delete(_))
        | (Kind::Environment | Kind::Build | Kind::Promotion | Kind::Pipeline | Kind::Freeze | Kind::Rehearsal, _) => {
            true
        }
    }
}

/// The same of an Upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    environment: String,
    build: String,
    /// None where it cannot be read: it may be under way.
    phase: Option<Phase>,
    is_done: bool,
}

impl Asked {
    fn of(object: &DynamicObject) -> Self {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let phase = match status["phase"].as_str() {
            None => Some(Phase::Pending),
            Some(phase) => serde_json::from_value(phase.into()).ok(),
        };
        let has_untold = status["pending"].as_array().is_some_and(|pending| !pending.is_empty());
        Self {
            environment: text(&spec["environment"]),
            build: text(&spec["build"]),
            phase,
            is_done: phase.is_some_and(Phase::is_final)
                && status["kept"].is_null()
                && !has_untold
                && !is_deleted(object),
        }
    }

    fn is_final(&self) -> bool {
        self.phase.is_some_and(Phase::is_final)
    }

    /// Its phase, for people.
    fn phase(&self) -> String {
        self.phase
            .map_or_else(|| "Unreadable".to_owned(), |phase| format!("{phase:?}"))
    }
}

/// Names of what is to be done, and what it takes to know whom a change concerns.
#[derive(Debug, Default)]
struct News {
    environments: BTreeMap<String, Stated>,
    upgrades: BTreeMap<String, Asked>,
    of_environment: BTreeMap<String, BTreeSet<String>>,
    /// Names of open upgrades by the build that they name.
    waiting_for: BTreeMap<String, BTreeSet<String>>,
    /// Replicas by what they are replicas of.
    replicas_of: BTreeMap<String, BTreeSet<String>>,
    /// Environments by the workloads that they state.
    of_workload: BTreeMap<Workload, BTreeSet<String>>,
    /// How many upgrades are in which phase.
    phases: BTreeMap<String, usize>,
    /// Environments to be looked at.
    look: BTreeSet<String>,
    /// Environments whose files are to be written, or taken away.
    place: BTreeSet<String>,
    /// Builds to be looked at.
    builds: BTreeSet<String>,
}

impl News {
    /// An environment as it is now, or that it is no more.
    fn environment(&mut self, name: &str, stated: Option<Stated>) {
        let is_news = self.environments.get(name) != stated.as_ref();
        let base = stated.as_ref().and_then(|stated| stated.replica_of.clone());
        let workloads = stated
            .as_ref()
            .map(|stated| stated.workloads.clone())
            .unwrap_or_default();
        let before = match stated {
            Some(stated) => self.environments.insert(name.to_owned(), stated),
            None => self.environments.remove(name),
        };
        if let Some(before) = before {
            if let Some(base) = before.replica_of {
                take_out(&mut self.replicas_of, &base, name);
            }
            for workload in before.workloads {
                take_out(&mut self.of_workload, &workload, name);
            }
        }
        for workload in workloads {
            self.of_workload.entry(workload).or_default().insert(name.to_owned());
        }
        if let Some(base) = base {
            self.replicas_of.entry(base).or_default().insert(name.to_owned());
        }
        if is_news {
            self.place.insert(name.to_owned());
            self.look.extend(self.read_with(name));
        }
        self.look.insert(name.to_owned());
    }

    fn upgrade(&mut self, name: &str, asked: Option<Asked>) {
        let before = match asked.clone() {
            Some(asked) => self.upgrades.insert(name.to_owned(), asked),
            None => self.upgrades.remove(name),
        };
        let is_news = before != asked;
        for Asked { environment, build, .. } in before.iter().chain(&asked) {
            self.look.insert(environment.clone());
            // What has a workload of theirs may have let it go.
            if is_news {
                self.look.extend(self.sharers(environment));
            }
            // One that is deleted waits for the end of who names it.
            self.builds.insert(build.clone());
        }
        if let Some(before) = before {
            take_out(&mut self.of_environment, &before.environment, name);
            take_out(&mut self.waiting_for, &before.build, name);
            if let Some(count) = self.phases.get_mut(&before.phase()) {
                *count -= 1;
            }
        }
        if let Some(asked) = asked {
            *self.phases.entry(asked.phase()).or_default() += 1;
            if !asked.is_final() {
                let names = self.waiting_for.entry(asked.build).or_default();
                names.insert(name.to_owned());
            }
            let names = self.of_environment.entry(asked.environment).or_default();
            names.insert(name.to_owned());
        }
        self.phases.retain(|_, count| *count > 0);
    }

    fn build(&mut self, name: &str) {
        let open = self.waiting_for.get(name).into_iter().flatten();
        let wait = open.filter_map(|upgrade| Some(self.upgrades.get(upgrade)?.environment.clone()));
        self.look.extend(wait);
        self.builds.insert(name.to_owned());
    }

    /// All environments that there are: what was missed while nothing was heard is found out.
    fn environments(&mut self, all: BTreeMap<String, Stated>) {
        let gone: Vec<String> = self
            .environments
            .keys()
            .filter(|name| !all.contains_key(*name))
            .cloned()
            .collect();
        for name in &gone {
            self.environment(name, None);
        }
        for (name, stated) in all {
            self.environment(&name, Some(stated));
        }
    }

    /// The same of upgrades.
    fn upgrades(&mut self, all: BTreeMap<String, Asked>) {
        let gone: Vec<String> = self
            .upgrades
            .keys()
            .filter(|name| !all.contains_key(*name))
            .cloned()
            .collect();
        for name in &gone {
            self.upgrade(name, None);
        }
        for (name, asked) in all {
            self.upgrade(&name, Some(asked));
        }
    }

    /// Environments that state a workload of this one, too.
    fn sharers(&self, environment: &str) -> BTreeSet<String> {
        let stated = self.environments.get(environment).into_iter();
        let all = stated.flat_map(|stated| &stated.workloads);
        let sharing = all.flat_map(|workload| self.of_workload.get(workload).into_iter().flatten());
        sharing.filter(|name| *name != environment).cloned().collect()
    }

    fn look_at_all(&mut self) {
        self.look.extend(self.environments.keys().cloned());
        self.look.extend(self.of_environment.keys().cloned());
    }

    /// What is read for an environment: it, what it is a replica of, and so on.
    fn read_by(&self, environment: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut next = Some(environment.to_owned());
        while let Some(name) = next.filter(|name| !all.contains(name)) {
            let base = self
                .environments
                .get(&name)
                .and_then(|stated| stated.replica_of.clone());
            all.insert(name);
            next = base;
        }
        all
    }

    fn read_with(&self, environment: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut next = vec![environment.to_owned()];
        while let Some(name) = next.pop() {
            if !all.contains(&name) {
                next.extend(self.replicas_of.get(&name).into_iter().flatten().cloned());
                all.insert(name);
            }
        }
        all
    }
}

/// Takes a name out of those under a key, which goes with its last.
fn take_out<K: Ord>(all: &mut BTreeMap<K, BTreeSet<String>>, key: &K, name: &str) {
    if let Some(names) = all.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            all.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(environment: &str, build: &str, phase: Phase) -> Asked {
        Asked {
            environment: environment.to_owned(),
            build: build.to_owned(),
            phase: Some(phase),
            is_done: phase.is_final(),
        }
    }

    fn stated(generation: i64, replica_of: Option<&str>) -> Stated {
        Stated {
            uid: String::new(),
            generation,
            replica_of: replica_of.map(str::to_owned),
            workloads: BTreeSet::new(),
        }
    }

    /// One whose component is a set of a namespace `shop`.
    fn over(set: &str) -> Stated {
        let object = serde_json::json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment", "metadata": {"name": "one", "generation": 1},
            "spec": {"components": [{"name": "web", "statefulSet": {"namespace": "shop", "name": set}}]},
        });
        Stated::of(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn what_becomes_of_an_upgrade_is_news_of_who_shares_its_workload() {
        let mut news = News::default();
        for (name, set) in [("shop", "web"), ("copy", "web"), ("other", "db")] {
            news.environment(name, Some(over(set)));
        }
        news.look.clear();
        news.upgrade("one", Some(asked("shop", "web-1", Phase::Rolling)));
        assert_eq!(taken(&mut news.look), ["copy", "shop"]);
        // The same again is no news of anybody else's.
        news.upgrade("one", Some(asked("shop", "web-1", Phase::Rolling)));
        assert_eq!(taken(&mut news.look), ["shop"]);
        news.upgrade("one", Some(asked("shop", "web-1", Phase::Succeeded)));
        assert_eq!(taken(&mut news.look), ["copy", "shop"]);
        // One that states it no more shares nothing.
        news.environment("copy", Some(over("db")));
        news.look.clear();
        news.upgrade("one", None);
        assert_eq!(taken(&mut news.look), ["shop"]);
        assert_eq!(news.sharers("copy"), BTreeSet::from(["other".to_owned()]));
    }

    fn taken(names: &mut BTreeSet<String>) -> Vec<String> {
        std::mem::take(names).into_iter().collect()
    }

    #[test]
    fn a_change_is_news_of_whom_it_concerns_and_of_nobody_else() {
        let mut news = News::default();
        for name in ["production", "other"] {
            news.environment(name, Some(stated(1, None)));
        }
        news.environment("staging", Some(stated(1, Some("production"))));
        news.environment("tests", Some(stated(1, Some("staging"))));
        news.upgrade("old", Some(asked("other", "web-1", Phase::Succeeded)));
        news.upgrade("new", Some(asked("staging", "web-2", Phase::Pending)));
        assert_eq!(taken(&mut news.look), ["other", "production", "staging", "tests"]);
        assert_eq!(taken(&mut news.place), ["other", "production", "staging", "tests"]);
        assert_eq!(taken(&mut news.builds), ["web-1", "web-2"]);

        // A status is nothing that files have.
        news.environment("production", Some(stated(1, None)));
        assert_eq!(taken(&mut news.look), ["production"]);
        assert!(news.place.is_empty());
        news.environment("production", Some(stated(2, None)));
        assert_eq!(taken(&mut news.look), ["production", "staging", "tests"]);
        assert_eq!(taken(&mut news.place), ["production"]);

        news.build("web-1");
        assert!(news.look.is_empty(), "its upgrade has ended");
        news.build("web-2");
        assert_eq!(taken(&mut news.look), ["staging"]);
        news.builds.clear();
        news.upgrade("new", None);
        assert_eq!(taken(&mut news.look), ["staging"]);
        assert_eq!(taken(&mut news.builds), ["web-2"], "it may be let go");
    }

    #[test]
    fn an_upgrade_that_keeps_something_is_not_done() {
        for (status, is_done) in [
            (serde_json::json!({"phase": "Succeeded"}), true),
            (serde_json::json!({"phase": "Succeeded", "kept": {}}), false),
            (serde_json::json!({"phase": "Rolling"}), false),
        ] {
            let object = serde_json::json!({
                "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": "one"},
                "spec": {"environment": "shop", "build": "web-2"}, "status": status,
            });
            let object = serde_json::from_value(object).expect("an object");
            assert_eq!(Asked::of(&object).is_done, is_done, "{status}");
        }
    }

    #[test]
    fn what_was_missed_is_found_out_when_all_is_listed_again() {
        let mut news = News::default();
        news.environment("kept", Some(stated(1, None)));
        news.environment("gone", Some(stated(1, None)));
        news.upgrade("gone", Some(asked("kept", "web-1", Phase::Pending)));
        (news.look, news.place, news.builds) = Default::default();
        news.environments(BTreeMap::from([("kept".to_owned(), stated(1, None))]));
        news.upgrades(BTreeMap::new());
        assert_eq!(taken(&mut news.look), ["gone", "kept"]);
        assert_eq!(taken(&mut news.place), ["gone"]);
        assert_eq!(taken(&mut news.builds), ["web-1"]);
        assert!(news.of_environment.is_empty());
    }

    proptest! {
        /// Whatever is told in whichever order, what is known is what was told last.
        #[test]
        fn upgrades_are_found_by_their_environments(told in prop::collection::vec((0..4_u8, 0..3_u8, any::<bool>()), 0..40)) {
            let mut news = News::default();
            let mut last: BTreeMap<String, String> = BTreeMap::new();
            for (upgrade, environment, is_there) in told {
                let (upgrade, environment) = (format!("u{upgrade}"), format!("e{environment}"));
                if is_there {
                    news.upgrade(&upgrade, Some(asked(&environment, "b", Phase::Pending)));
                    last.insert(upgrade, environment);
                } else {
                    news.upgrade(&upgrade, None);
                    last.remove(&upgrade);
                }
                let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
                for (upgrade, environment) in &last {
                    expected.entry(environment.clone()).or_default().insert(upgrade.clone());
                }
                prop_assert_eq!(&news.of_environment, &expected);
                let open: usize = news.waiting_for.values().map(BTreeSet::len).sum();
                prop_assert_eq!((open, news.phases.values().sum::<usize>()), (last.len(), last.len()));
            }
        }
    }
}

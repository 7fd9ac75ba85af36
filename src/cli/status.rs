//! `stagegate status [ENV] [-w | --look]`: what was written down, how old that is, and, asked for, what the nodes show now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::standing::{self, Standing};
use super::up::count;
use super::upgrade::LOOK_EVERY;
use super::view::{self, API_VERSION, Names};
use super::{Exit, ground, replica};
use crate::cluster::replica::ReplicaSight;
use crate::engine::fleet::Fleet;
use crate::engine::lease::HeldLease;
use crate::engine::look::{self, Sight};
use crate::home::Home;
use crate::model::environment::{Component, EnvironmentSpec};
use crate::model::upgrade::{Loss, NodeStatus};
use crate::model::values::Digest;
use crate::report::in_one_line;
use crate::store::{Holder, KEEP_FINISHED_UPGRADES, PendingReports, Resource, Store as _, UpgradeRecord};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment; every one without
    #[arg(value_name = "ENV", value_parser = ground::environment_name)]
    environment: Option<String>,
    /// Show it again whenever it changes
    #[arg(short, long)]
    watch: bool,
    /// Ask every node now, all at once, and mark what differs from what was written down
    #[arg(long, conflicts_with = "watch")]
    look: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    if arguments.look {
        return super::wait_for(look_and_show(&home, arguments.environment.as_deref(), printer));
    }
    let mut redraw = Redraw::default();
    loop {
        let environments = environments(&home, arguments.environment.as_deref())?;
        let now = resources(&environments)?;
        if redraw.is_due(&now, Instant::now()) {
            print(&environments, arguments.environment.as_deref(), &now, printer)?;
        }
        if !arguments.watch || printer.is_unread() {
            return Ok(Exit::Done);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What is watched is shown again for its ages alone once in this time: they are in minutes soon, and a screen that is written
/// anew all the time cannot be read.
const AGES_EVERY: Duration = Duration::from_mins(1);

/// What is shown of a cluster's home, beside what lies in the copy that was made of it.
pub(super) struct OfCluster<'a> {
    /// Its identity, where it may be asked for.
    pub(super) identity: Option<&'a str>,
    /// Who drives an environment's upgrade.
    pub(super) driver_of: &'a dyn Fn(&str) -> Option<ground::Driver>,
    /// That no controller leads, if none does.
    pub(super) nobody_leads: Option<String>,
    /// The context of the kubeconfig, where one was asked for.
    pub(super) context: Option<&'a str>,
}

impl OfCluster<'_> {
    fn environments(&self, home: &Home, wanted: Option<&str>) -> anyhow::Result<Vec<Shown>> {
        let mut environments = environments(home, wanted)?;
        for environment in &mut environments {
            environment.driver = (self.driver_of)(&environment.resource.name).map(|driver| driver.to_string());
            environment.home = self.identity.map(str::to_owned);
            environment.keeper = KeptBy::Controller {
                nobody_leads: self.nobody_leads.clone(),
            };
            if let Some(context) = self.context {
                look_in(&mut environment.resource.spec, context);
            }
        }
        Ok(environments)
    }

    /// Shows its environments, if there is anything new since the last time.
    pub(super) fn show(
        &self,
        home: &Home,
        wanted: Option<&str>,
        redraw: &mut Redraw,
        printer: &Printer,
    ) -> anyhow::Result<()> {
        let environments = self.environments(home, wanted)?;
        let now = resources(&environments)?;
        if redraw.is_due(&now, Instant::now()) {
            print(&environments, wanted, &now, printer)?;
        }
        Ok(())
    }

    /// One look at every node from here, then they are shown.
    pub(super) async fn look_and_show(
        &self,
        home: &Home,
        wanted: Option<&str>,
        printer: &Printer,
    ) -> anyhow::Result<Exit> {
        look_at(self.environments(home, wanted)?, home, wanted, printer).await
    }
}

/// Pods are looked for in this context, where their environment names none.
fn look_in(spec: &mut Value, context: &str) {
    let components = spec["components"].as_array_mut().into_iter().flatten();
    for component in components {
        for kind in ["statefulSet", "deployment"] {
            if let Some(workload) = component.get_mut(kind).and_then(Value::as_object_mut) {
                workload.entry("context").or_insert_with(|| json!(context));
            }
        }
    }
}

fn resources(environments: &[Shown]) -> anyhow::Result<Vec<Value>> {
    environments.iter().map(Shown::resource).collect()
}

/// What was shown last, but for what grows older by itself, and when.
#[derive(Default)]
pub(super) struct Redraw(Option<(Vec<Value>, Instant)>);

impl Redraw {
    fn is_due(&mut self, items: &[Value], now: Instant) -> bool {
        let mut content = items.to_vec();
        for item in &mut content {
            // A driver says all the time that it lives, which shows as an age.
            item["status"]["record"]["at"] = Value::Null;
        }
        if let Some((shown, at)) = &self.0
            && *shown == content
            && now.duration_since(*at) < AGES_EVERY
        {
            return false;
        }
        self.0 = Some((content, now));
        true
    }
}

/// One look at every node, then it is shown.
async fn look_and_show(home: &Home, wanted: Option<&str>, printer: &Printer) -> anyhow::Result<Exit> {
    look_at(environments(home, wanted)?, home, wanted, printer).await
}

async fn look_at(
    mut environments: Vec<Shown>,
    home: &Home,
    wanted: Option<&str>,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let interrupt = ground::interrupt(printer)?;
    for environment in &mut environments {
        printer.doing(format!("{}: asking its nodes", environment.resource.name));
        tokio::select! {
            () = interrupt.wait() => return Ok(Exit::Interrupted),
            looked = environment.look(home) => looked?,
        }
    }
    printer.idle();
    let now = resources(&environments)?;
    print(&environments, wanted, &now, printer)?;
    Ok(Exit::Done)
}

fn print(environments: &[Shown], wanted: Option<&str>, items: &[Value], printer: &Printer) -> anyhow::Result<()> {
    let list = json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "environments"}, "items": items});
    let asked_for = wanted.and(items.first());
    printer.resource(asked_for.unwrap_or(&list), |p| {
        if environments.is_empty() {
            p.note("nothing is up; `stagegate up ENV` brings an environment up");
        }
        environments
            .iter()
            .try_for_each(|environment| environment.for_people(p))
    })
}

/// Shows one environment.
pub(super) fn show(home: &Home, name: &str, printer: &Printer) -> anyhow::Result<()> {
    for environment in environments(home, Some(name))? {
        printer.resource(&environment.resource()?, |p| environment.for_people(p))?;
    }
    Ok(())
}

/// The builds that the nodes of each component have, as was written down; nothing of an environment that was never brought up.
pub(super) fn builds(home: &Home, name: &str) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut builds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    if home.store().resource("Environment", name)?.is_none() {
        return Ok(builds);
    }
    for environment in environments(home, Some(name))? {
        for NodeLine { component, build, .. } in environment.nodes() {
            builds.entry(component).or_default().extend(build);
        }
    }
    Ok(builds)
}

/// A node, what it is of, the build that it has by the record, and what a look showed.
#[derive(Serialize)]
struct NodeLine {
    name: String,
    component: String,
    build: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<SeenNow>,
}

/// What a node showed when it was asked.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct SeenNow {
    state: State,
    /// The build that its service was started from; of a component without a service the one that `current` points to.
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// What is otherwise than it was written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum State {
    Running,
    NotRunning,
    /// The component has no service that could run.
    NoService,
    Unreachable,
}

struct Shown {
    /// This home's identity, as far as it is known.
    home: Option<String>,
    keeper: KeptBy,
    resource: Resource,
    /// The last upgrade of the environment.
    last: Option<UpgradeRecord>,
    /// Nodes of upgraded components, each as the last upgrade that looked at it left it.
    upgraded: BTreeMap<String, NodeStatus>,
    /// Who drives an unfinished upgrade.
    driver: Option<String>,
    /// Who has the environment now, and since when.
    holder: Option<(Holder, Timestamp)>,
    record: Record,
    names: Names,
    /// What each node showed, by its name; without a look nothing.
    sights: Option<BTreeMap<String, Sight>>,
    /// What its sinks have not got.
    untold: Vec<PendingReports>,
    /// Its objects in a cluster as they were seen last, or why they were not.
    replica: Option<Result<ReplicaSight, String>>,
}

/// Who brings an environment up and looks after it.
enum KeptBy {
    /// Commands, and the home's server.
    Commands,
    /// A controller.
    Controller {
        /// That none leads, if none does.
        nobody_leads: Option<String>,
    },
}

/// How old what is written down is, and whose word it is.
#[derive(Serialize)]
struct Record {
    at: Timestamp,
    by: String,
}

fn environments(home: &Home, wanted: Option<&str>) -> anyhow::Result<Vec<Shown>> {
    let store = home.store();
    let resources = match wanted {
        Some(name) => store.resource("Environment", name)?.into_iter().collect(),
        None => store.resources("Environment")?,
    };
    if let (Some(name), true) = (wanted, resources.is_empty()) {
        ground::refuse_unknown(home, name)?;
        return Err(GroundError::NotUp {
            environment: name.to_owned(),
            how: "is not up",
        }
        .into());
    }
    resources
        .into_iter()
        .map(|resource: Resource| {
            standing::refuse_of_cluster(&resource)?;
            let last = store.upgrades(Some(&resource.name), 1)?.pop();
            Ok(Shown {
                home: Some(store.home().to_owned()),
                keeper: KeptBy::Commands,
                upgraded: upgraded_nodes(home, &resource, last.as_ref())?,
                driver: ground::driver(home, &resource.name)?.map(|driver| driver.to_string()),
                holder: HeldLease::holder(home, &resource.name)?,
                record: Record::of(home, &resource, last.as_ref())?,
                names: Names::read(home)?,
                untold: store.pending(Some(&resource.name), None)?,
                last,
                replica: standing::sight(&resource).map(Ok),
                resource,
                sights: None,
            })
        })
        .collect()
}

/// The last upgrade may be of another component, or have ended before it looked at a node.
fn upgraded_nodes(
    home: &Home,
    resource: &Resource,
    last: Option<&UpgradeRecord>,
) -> anyhow::Result<BTreeMap<String, NodeStatus>> {
    let mut nodes = BTreeMap::new();
    let Some(last) = last else {
        return Ok(nodes);
    };
    let mut take = |upgrade: &UpgradeRecord| {
        // One that it never saw says nothing.
        for node in upgrade.status.nodes.iter().filter(|node| node.build.is_some()) {
            nodes.entry(node.name.clone()).or_insert_with(|| node.clone());
        }
    };
    take(last);
    let has_source = |c: &&Component| c.source.is_some();
    let components: BTreeSet<String> = resource.spec_as::<EnvironmentSpec>().map_or_else(
        |_| BTreeSet::new(),
        |spec| {
            spec.components
                .iter()
                .filter(has_source)
                .map(|c| c.name.clone())
                .collect()
        },
    );
    let saw_all = !last.status.nodes.is_empty() && last.status.nodes.iter().all(|node| node.build.is_some());
    let is_whole = saw_all && components.iter().all(|c| *c == last.spec.component);
    if !is_whole {
        let all = u32::try_from(KEEP_FINISHED_UPGRADES).unwrap_or(u32::MAX);
        let before = home.store().upgrades(Some(&resource.name), all)?;
        before.iter().rev().for_each(take);
    }
    Ok(nodes)
}

impl Record {
    fn of(home: &Home, resource: &Resource, last: Option<&UpgradeRecord>) -> anyhow::Result<Self> {
        let Some(upgrade) = last else {
            return Ok(Self {
                at: resource.updated_at,
                by: "`up`".to_owned(),
            });
        };
        let status = &upgrade.status;
        let by = format!("{}'s upgrade to {}", upgrade.spec.user, upgrade.spec.build);
        if let Some(at) = status.finished_at {
            let since = resource.updated_at;
            return Ok(if since > at {
                Self {
                    at: since,
                    by: "`up` or `down`".to_owned(),
                }
            } else {
                Self { at, by }
            });
        }
        // A driver that did not give its lease back, living or dead, last wrote when it last renewed it.
        let lease = home.store().lease(&resource.name)?;
        let renewed = lease.and_then(|lease| lease.holder.map(|_| lease.renewed_at));
        let steps = status.nodes.iter().map(|n| n.since);
        let at = renewed
            .or_else(|| steps.max())
            .unwrap_or(status.since)
            .max(status.since);
        Ok(Self { at, by })
    }
}

impl Shown {
    fn resource(&self) -> anyhow::Result<Value> {
        let upgrade = self.last.as_ref().map(|u| view::upgrade(u, &self.names)).transpose()?;
        Ok(json!({
            "apiVersion": API_VERSION,
            "kind": "Environment",
            "metadata": {"name": self.resource.name, "generation": self.resource.generation},
            "spec": self.resource.spec,
            "status": {
                "environment": self.resource.status,
                "nodes": self.nodes(),
                "upgrade": upgrade,
                "driver": self.driver,
                "record": self.record,
                "reports": self.untold,
                "replica": match &self.replica {
                    Some(Ok(sight)) => json!(sight),
                    Some(Err(why)) => json!({"sync": "Unknown", "message": why}),
                    None => Value::Null,
                },
            },
        }))
    }

    /// Asks the nodes as they were brought up: a file that has changed since, or is wrong by now, hides none of them.
    async fn look(&mut self, home: &Home) -> anyhow::Result<()> {
        let fleet = standing::fleet(home, &self.resource)?;
        let places: Vec<_> = fleet.all_places().collect();
        let sights = look::at(places.iter().copied(), look::PATIENCE).await;
        let names = places.iter().map(|place| place.site.name.clone());
        self.sights = Some(names.zip(sights).collect());
        let is_replica = self
            .resource
            .spec_as::<EnvironmentSpec>()
            .is_ok_and(|spec| spec.target.is_some());
        // A controller has looked at its objects, with files that are not here.
        let is_here = matches!(self.keeper, KeptBy::Commands);
        if is_replica && is_here && self.standing() != Some(Standing::Down) {
            self.replica = match self.look_at_objects(home).await {
                Ok(sight) => sight.map(Ok),
                Err(why) => Some(Err(format!("{why:#}"))),
            };
        }
        Ok(())
    }

    /// What is wanted of objects is what the files say now, templates included: nothing else has their text.
    async fn look_at_objects(&self, home: &Home) -> anyhow::Result<Option<ReplicaSight>> {
        let fleet = Fleet::read(home, &ground::workspace(), &self.resource.name, ground::port_shift()?)?;
        match replica::of(home, &fleet).await? {
            Some(replica) => Ok(Some(replica.look(Timestamp::now()).await?)),
            None => Ok(None),
        }
    }

    fn standing(&self) -> Option<Standing> {
        serde_json::from_value(self.resource.status["phase"].clone()).ok()
    }

    /// What every node has: of an upgraded component as its last upgrade left it, of the others what `up` installs.
    fn nodes(&self) -> Vec<NodeLine> {
        let Ok(spec) = self.resource.spec_as::<EnvironmentSpec>() else {
            // Written by another version, whose keys these need not be.
            return Vec::new();
        };
        let lines = spec.components.iter().flat_map(|component| {
            component.nodes.iter().map(move |node| {
                let digest = self.upgraded.get(&node.name).and_then(|node| node.build);
                let build = match digest {
                    Some(digest) => Some(self.names.of(Some(&digest))),
                    None => component.source.as_ref().and_then(|_| {
                        let version = component.build.as_ref()?;
                        Some(format!("{}-{version}", component.name))
                    }),
                };
                // A version of the file's that the source knows by another name is a build all the same.
                let written = digest.or_else(|| build.as_ref().and_then(|name| self.names.digest(name)));
                let sight = self.sights.as_ref().and_then(|sights| sights.get(&node.name));
                NodeLine {
                    name: node.name.clone(),
                    component: component.name.clone(),
                    seen: sight.map(|sight| self.compared(component, written, sight)),
                    build,
                }
            })
        });
        lines.collect()
    }

    /// What a node shows, beside what is written of it.
    fn compared(&self, component: &Component, written: Option<Digest>, sight: &Sight) -> SeenNow {
        let sight = match sight {
            Ok(sight) => sight,
            Err(why) => {
                return SeenNow {
                    state: State::Unreachable,
                    build: None,
                    since: None,
                    differs: Some(format!("{}: {why}", Loss::Unreachable)),
                };
            }
        };
        let (state, build, since) = match (&component.service, &sight.running) {
            (None, _) => (State::NoService, sight.current, None),
            (Some(_), Some(running)) => (State::Running, running.build, Some(running.started_at)),
            (Some(_), None) => (State::NotRunning, None, None),
        };
        let is_down = self.standing() == Some(Standing::Down);
        let foreign = match (&sight.fence, &self.home) {
            (Some(fence), Some(home)) => fence.home != *home,
            (Some(_), None) | (None, _) => false,
        };
        let differs = match (&component.service, &sight.running) {
            _ if foreign => Some("it serves another home".to_owned()),
            _ if sight.unstated.is_some() => sight.unstated.clone(),
            (Some(_), None) if !sight.remains.is_empty() => Some(format!(
                "its service's main process is gone, and processes of it live on (pids {}): `up` and `down` end them",
                sight.remains.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
            )),
            (Some(_), None) if is_down => None,
            (Some(_), None) => Some(Loss::NotRunning.to_string()),
            (Some(_), Some(_)) if is_down => Some("it runs, and its environment is down".to_owned()),
            (None, _) | (Some(_), Some(_)) => self.other_build(component, written, build),
        };
        SeenNow {
            differs,
            state,
            build: build.map(|digest| self.names.of(Some(&digest))),
            since,
        }
    }

    fn nodes_for_people(&self, printer: &Printer) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let rows = self.nodes().into_iter().map(|line| {
            let NodeLine {
                name,
                component,
                build,
                seen,
            } = line;
            let mut row = vec![name, component, build.unwrap_or_else(|| "-".to_owned())];
            if let Some(seen) = seen {
                row.extend([
                    match seen.state {
                        State::Running => seen.build.unwrap_or_else(|| "yes".to_owned()),
                        State::NotRunning => "no".to_owned(),
                        State::NoService => seen.build.unwrap_or_else(|| "-".to_owned()),
                        State::Unreachable => "?".to_owned(),
                    },
                    seen.since.map_or_else(|| "-".to_owned(), |since| view::age(now, since)),
                    seen.differs
                        .map_or_else(|| "-".to_owned(), |differs| in_one_line(&differs)),
                ]);
            }
            row
        });
        let mut header = vec!["NODE", "COMPONENT", "BUILD"];
        if self.sights.is_some() {
            header.extend(["RUNS", "AGE", "DIFFERS"]);
        }
        printer.table(&header, rows.collect())
    }

    fn for_people(&self, printer: &Printer) -> anyhow::Result<()> {
        let name = &self.resource.name;
        let up = self.resource.status["phase"].as_str().unwrap_or("Unknown");
        let under_way = self.last.as_ref().is_some_and(|u| !u.status.phase.is_final());
        match &self.last {
            Some(upgrade) if under_way => {
                let driver = match &self.driver {
                    Some(driver) => format!("driven by {driver}"),
                    None => format!("driven by nobody; `stagegate why {name}` says what keeps it"),
                };
                printer.sentence(&format!("unfinished upgrade of {name}, {driver}:"))?;
                view::upgrade_for_people(printer, upgrade, &self.names)?;
            }
            Some(upgrade) => {
                printer.line(&format!("{name} {up}; its last upgrade:"))?;
                view::upgrade_for_people(printer, upgrade, &self.names)?;
            }
            None => {
                printer.line(&format!(
                    "{name} {up} since {}; never upgraded",
                    view::age(Timestamp::now(), self.resource.updated_at)
                ))?;
            }
        }
        let at_work = self.holder.as_ref().filter(|_| !under_way);
        if let Some((holder, since)) = at_work {
            let doing = match self.standing() {
                Some(Standing::ComingUp) => "brings it up",
                Some(Standing::Up | Standing::Down) | None => "is at work on it",
            };
            printer.line(&format!(
                "{holder} {doing} now, since {}; what stands below was written before",
                view::age(Timestamp::now(), *since)
            ))?;
        } else if let Some(why) = self.resource.status["message"].as_str() {
            // Of a cluster's home, where the controller goes on by itself.
            printer.line(why)?;
        } else if self.standing() == Some(Standing::ComingUp) {
            printer.sentence(&format!(
                "bringing it up has not ended, and nobody is at it now; `stagegate up {name}` goes on"
            ))?;
        }
        if let KeptBy::Controller {
            nobody_leads: Some(why),
        } = &self.keeper
        {
            printer.sentence(why)?;
        }
        for pending in self.untold.iter().filter(|pending| pending.dead > 0) {
            printer.line(&format!(
                "{} for {} refused for good; `stagegate reports list` says why",
                count(usize::try_from(pending.dead).unwrap_or(usize::MAX), "report"),
                pending.sink
            ))?;
        }
        match &self.replica {
            Some(Ok(sight)) => {
                replica::lines(sight).iter().try_for_each(|line| printer.line(line))?;
                if let KeptBy::Controller { .. } = self.keeper {
                    let age = view::age(Timestamp::now(), sight.seen_at);
                    printer.line(&format!("  the controller has looked at that {age} ago"))?;
                }
            }
            Some(Err(why)) => printer.line(&format!("its objects could not be looked at: {why}"))?,
            None => {}
        }
        let has_nodes = !self.nodes().is_empty();
        if self.sights.is_some() {
            if self.last.is_some() && has_nodes {
                printer.line("the nodes now:")?;
            }
            return if has_nodes {
                self.nodes_for_people(printer)
            } else {
                Ok(())
            };
        }
        if self.last.is_none() && has_nodes {
            self.nodes_for_people(printer)?;
        }
        // What a living driver writes is at most a few seconds old.
        if at_work.is_some() || under_way && self.driver.is_some() {
            return Ok(());
        }
        let Record { at, by } = &self.record;
        let by = match (&self.keeper, &self.last) {
            (KeptBy::Controller { .. }, None) => "the controller",
            (KeptBy::Controller { .. }, Some(_)) | (KeptBy::Commands, _) => by,
        };
        if matches!(self.keeper, KeptBy::Controller { .. }) && !has_nodes {
            return Ok(());
        }
        printer.sentence(&format!(
            "as {by} left it {} ago; nobody has looked since, `stagegate status {name} --look` does",
            view::age(Timestamp::now(), *at)
        ))
    }

    /// How the build of a node is another than is written down.
    fn other_build(&self, component: &Component, written: Option<Digest>, build: Option<Digest>) -> Option<String> {
        // What has no source has no build to compare; what was never upgraded has what `up` installed, by whatever name.
        component.source.as_ref()?;
        let written = written?;
        let name = |digest: &Digest| self.names.of(Some(digest));
        match build {
            Some(build) if build == written => None,
            Some(build) => Some(format!(
                "it runs {}, and {} is written down",
                name(&build),
                name(&written)
            )),
            None => Some(format!(
                "it runs no build of ours, and {} is written down",
                name(&written)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_shown_again_when_it_changes_and_for_its_ages_once_a_minute() {
        let begin = Instant::now();
        let at = |s| begin + Duration::from_secs(s);
        let item = |phase: &str, heard: u64| {
            [json!({"status": {"upgrade": {"status": {"phase": phase}}, "record": {"at": heard, "by": "tester"}}})]
        };
        let mut redraw = Redraw::default();
        assert!(redraw.is_due(&item("Rolling", 0), at(0)));
        assert!(
            !redraw.is_due(&item("Rolling", 3), at(3)),
            "its driver lives, and that is all"
        );
        assert!(redraw.is_due(&item("Soak", 3), at(4)));
        assert!(!redraw.is_due(&item("Soak", 60), at(63)));
        assert!(redraw.is_due(&item("Soak", 60), at(64)));
        assert!(!redraw.is_due(&item("Soak", 64), at(65)));
    }
}

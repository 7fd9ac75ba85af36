//! Watching the nodes of an upgrade: our own traffic, probes, logs and queries feed the gates; who blocks whom is looked
//! up beside. One task reads the feed; the loop asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::kept::{self, Kept};
use super::serving::Answers;
use super::window::{Record, Window};
use crate::engine::fleet::{Fleet, FleetError, Place};
use crate::gates::{StatedError, StatedGate};
use crate::home::Home;
use crate::hosts::{Host as _, NodeSight};
use crate::http::{ClientIdentity, Connections, KnownHost};
use crate::lines::Begin;
use crate::model::build::BuildRef;
use crate::model::environment::{Blockers, Component, HostRef, Probe, Traffic};
use crate::model::upgrade::{Blocker, NodePhase, Phase, UpgradeStatus};
use crate::model::values::{Digest, NamePattern};
use crate::rollout::Signals;
use crate::secrets::Veil;
use crate::signals::http::{CallError, EffectCheck, HttpCall, OnDatabase};
use crate::signals::log::calls::{LogPatterns, LogPlan};
use crate::signals::log::follow::{Follower, HostLog};
use crate::signals::log::{LogHandle, Source};
use crate::signals::postgres::blocking::{self, Attribution};
use crate::signals::sql::WatchedQuery;
use crate::signals::traffic::{Call, PREPARE_LEAD, Target, TrafficHandle, TrafficPlan};
use crate::signals::{FEED_CAPACITY, Feed, Observations, Observed, feed};

/// How often the database is asked who blocks whom while that matters.
const LOOK_FOR_BLOCKERS: Duration = Duration::from_secs(1);
/// A picture of who blocks whom is shown for as long: a row that is held in turns is free when a gate decides.
const BLOCKERS_STAY: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// A node that lists the service's connections takes milliseconds; one that does not answer must not keep the picture back.
const LIST_SOCKETS: Duration = Duration::from_secs(3);
/// A probe is bad at its timeout, and given up at this many of them: in between it shows whether it was slow or hangs.
const PROBE_GIVEN_UP: u32 = 2;
/// How often a followed log is read.
const READ_LOG: Duration = Duration::from_secs(1);

/// Why an environment cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Secrets, databases.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A gate.
    #[error(transparent)]
    Gate(#[from] StatedError),
    /// A certificate that is none.
    #[error("traffic {traffic}: {source}")]
    Client {
        /// Which traffic.
        traffic: String,
        /// What is wrong.
        source: crate::http::HttpError,
    },
    /// Something in the environment that cannot be watched as stated.
    #[error("{0}")]
    Stated(String),
}

/// The signals of one component.
pub struct Watch {
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    component: Component,
    builds: BTreeMap<Digest, BuildRef>,
    gates: Vec<StatedGate>,
    feed: Feed,
    traffic: Vec<TrafficSource>,
    probes: Vec<(Probe, TrafficHandle)>,
    probe_client: reqwest::Client,
    queries: Vec<(WatchedQueryParts, TrafficHandle)>,
    logs: Mutex<BTreeMap<(String, String), LogHandle>>,
    wanted: Mutex<Vec<Wanted>>,
    tasks: Vec<JoinHandle<()>>,
    /// What is quoted of answers goes into reasons and reports.
    veil: Arc<Veil>,
}

struct TrafficSource {
    stated: Traffic,
    client: reqwest::Client,
    handle: TrafficHandle,
}

struct WatchedQueryParts {
    sql: String,
    database: crate::signals::postgres::Database,
    at_most: f64,
}

struct Shared {
    state: Mutex<State>,
    stirred: Notify,
    blockers_wanted: AtomicBool,
}

struct State {
    nodes: Vec<NodeWatch>,
    blockers: Vec<Blocker>,
    blockers_at: Timestamp,
}

struct NodeWatch {
    name: String,
    answers: Answers,
    windows: Vec<Window>,
    /// Digest and name of the build that it runs, or ran last.
    build: Option<(Digest, String)>,
    /// The end of each call may be what its upgrade waits for.
    draining: bool,
}

/// What the sources do about a node; changed only when it differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Wanted {
    /// The build that its calls are made for. A service that has ended is called on: a refusal is a sample.
    build: Option<Digest>,
    /// The service that answers: a new one is called anew.
    service: Option<(u32, i64)>,
    /// Where it answers, if that is not always the same place.
    address: Option<String>,
    /// Since when what comes is judged: a gate counts no probe from before, so the next is due now, not a period later.
    judged_since: Option<Timestamp>,
    traffic: bool,
}

/// A node as it is asked.
struct Asked<'a> {
    place: &'a Place,
    /// It runs some build, or ran one.
    known: bool,
    /// Its build, where the state has it.
    build: Option<&'a BuildRef>,
    /// What templates see.
    context: serde_json::Value,
}

impl<'a> Asked<'a> {
    fn new(watch: &'a Watch, place: &'a Place, wanted: &Wanted) -> Self {
        let build = wanted.build.and_then(|digest| watch.builds.get(&digest));
        let environment = &watch.fleet.environment;
        let mut site = place.site.clone();
        if let Some(address) = &wanted.address {
            site.address.clone_from(address);
        }
        // A pod that has no address yet cannot be asked.
        let is_nowhere = matches!(site.host, Some(HostRef::Pod(_))) && wanted.address.is_none();
        Self {
            place,
            known: wanted.build.is_some() && !is_nowhere,
            build,
            context: environment.context(&watch.component.name, Some(&site), build),
        }
    }

    fn node(&self) -> &'a str {
        self.place.site.name.as_str()
    }
}

/// Where evidence goes.
pub(super) struct EvidencePlace {
    pub(super) home: Home,
    pub(super) upgrade: String,
}

impl Watch {
    /// Makes the sources of a component ready; nothing is sent before [`Watch::want`].
    pub(super) fn new(
        fleet: Arc<Fleet>,
        component: &Component,
        builds: BTreeMap<Digest, BuildRef>,
    ) -> Result<Self, WatchError> {
        let places = fleet.places(&component.name).to_vec();
        let gates = StatedGate::all(component, places.len())?;
        let (to, from) = feed(FEED_CAPACITY);
        let mut traffic = Vec::new();
        for stated in &component.traffic {
            let signal = format!("traffic/{}", stated.name);
            let plan = TrafficPlan {
                rate_per_s: stated.rate,
                concurrency: stated.concurrency,
                age: age_of(&gates, &signal)?.unwrap_or(stated.timeout.0),
                timeout: stated.timeout.0,
                lead: PREPARE_LEAD,
                signal,
            };
            traffic.push(TrafficSource {
                client: traffic_client(&fleet, stated, None)?,
                handle: start(plan, &to)?,
                stated: stated.clone(),
            });
        }
        let mut probes = Vec::new();
        for probe in &component.probes {
            let signal = format!("probe/{}", probe.name);
            let give_up = probe.timeout.0 * PROBE_GIVEN_UP;
            let plan = TrafficPlan::periodic(signal, probe.period.0, probe.timeout.0, give_up);
            probes.push((probe.clone(), start(plan, &to)?));
        }
        let mut queries = Vec::new();
        for query in &component.queries {
            let signal = format!("query/{}", query.name);
            let parts = WatchedQueryParts {
                sql: query.sql.clone(),
                database: fleet.database(&query.database)?,
                at_most: query.at_most,
            };
            let shape = WatchedQuery {
                database: parts.database.clone(),
                sql: String::new(),
                at_most: 0.0,
            };
            queries.push((parts, start(shape.plan(signal, query.period.0), &to)?));
        }
        let probe_client = crate::signals::http::client(None, None, Connections::Fresh, None).map_err(|source| {
            WatchError::Client {
                traffic: "probes".to_owned(),
                source,
            }
        })?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                nodes: places
                    .iter()
                    .map(|place| NodeWatch {
                        name: place.site.name.clone(),
                        answers: Answers::default(),
                        windows: gates.iter().cloned().map(|g| Window::new(g, i64::MAX)).collect(),
                        build: None,
                        draining: false,
                    })
                    .collect(),
                blockers: Vec::new(),
                blockers_at: Timestamp::UNIX_EPOCH,
            }),
            stirred: Notify::new(),
            blockers_wanted: AtomicBool::new(false),
        });
        let mut tasks = vec![tokio::spawn(read_feed(
            Arc::clone(&shared),
            from,
            component.probes.clone(),
        ))];
        if let Some(stated) = &component.blockers {
            tasks.push(tokio::spawn(look_for_blockers(
                Arc::clone(&shared),
                Arc::clone(&fleet),
                BlockerLook::new(&fleet, stated)?,
            )));
        }
        Ok(Self {
            wanted: Mutex::new(vec![Wanted::default(); places.len()]),
            veil: Arc::new(veil(&fleet)),
            shared,
            fleet,
            component: component.clone(),
            builds,
            gates,
            feed: to,
            traffic,
            probes,
            probe_client,
            queries,
            logs: Mutex::default(),
            tasks,
        })
    }

    /// Something was seen that may change a decision.
    pub(super) async fn stirred(&self) {
        self.shared.stirred.notified().await;
    }

    /// Follows what the status wants watched.
    pub(super) fn want(&self, status: &UpgradeStatus, sights: &[Option<NodeSight>], now: Timestamp) {
        let judging = matches!(
            status.phase,
            Phase::Baseline | Phase::Rolling | Phase::Soak | Phase::RollingBack
        );
        self.shared.blockers_wanted.store(judging, Ordering::Relaxed);
        let now_us = now.as_microsecond();
        for (i, sight) in sights.iter().enumerate() {
            let Some(sight) = sight else { continue };
            let node = status.nodes.get(i);
            let service = sight.running.as_ref().map(|r| (r.pid, r.started_at.as_microsecond()));
            let build = {
                let mut state = lock(&self.shared.state);
                let watch = &mut state.nodes[i];
                watch.answers.service(service, now_us);
                watch.draining = node.is_some_and(|n| n.phase == NodePhase::Drain);
                // One that somebody started by hand is taken for what `current` says, until an upgrade restarts it.
                let before = watch.build.as_ref().map(|(digest, _)| *digest);
                let build = match &sight.running {
                    Some(running) => running.build.or(sight.current),
                    None => before.or(sight.current),
                };
                watch.build = build.map(|digest| {
                    let name = self.builds.get(&digest).map_or(digest.short(), |b| b.name.clone());
                    (digest, name)
                });
                let since = node
                    .and_then(|n| n.analysed_since)
                    .map_or(i64::MAX, Timestamp::as_microsecond);
                for window in &mut watch.windows {
                    if window.since_us != since
                        && (since == i64::MAX || window.since_us < since || window.since_us == i64::MAX)
                    {
                        window.begin_anew(since);
                    }
                }
                build
            };
            let wanted = Wanted {
                build,
                service,
                address: sight.address.clone(),
                judged_since: node.and_then(|n| n.analysed_since),
                traffic: gets_traffic(status, i),
            };
            let before = std::mem::replace(&mut lock(&self.wanted)[i], wanted.clone());
            if before == wanted {
                continue;
            }
            let asked = Asked::new(self, &self.fleet.places(&self.component.name)[i], &wanted);
            // Whether it gets traffic changes nothing for who only looks, and the other way round: a schedule that is begun
            // anew leaves a gap.
            let same =
                (before.build, before.service, &before.address) == (wanted.build, wanted.service, &wanted.address);
            if !same || wanted.judged_since.is_some() && before.judged_since != wanted.judged_since {
                self.look_at(&asked, now_us);
            }
            if !same || before.traffic != wanted.traffic {
                self.call_on(&asked, wanted.traffic);
            }
        }
    }

    /// What the signals say of a node now.
    pub(super) fn signals(&self, i: usize, now: Timestamp, evidence: &EvidencePlace, analysed: bool) -> Signals {
        let mut state = lock(&self.shared.state);
        let NodeWatch {
            name,
            answers,
            windows,
            build,
            draining: _,
        } = &mut state.nodes[i];
        let version = build.as_ref().and_then(|(digest, _)| self.builds.get(digest));
        let meant = self.component.probes_for(version.map(|b| b.version.as_str()));
        let serving = answers.serving(meant.map(|p| p.name.as_str()));
        let in_flight = self.traffic.iter().map(|source| source.handle.in_flight(name)).sum();
        if !analysed {
            return Signals {
                serving,
                in_flight,
                readings: Vec::new(),
            };
        }
        let build = build.as_ref().map(|(digest, _)| digest.to_string()).unwrap_or_default();
        let record = Record {
            root: evidence.home.root(),
            directory: evidence.home.evidence(&evidence.upgrade),
            node: name,
            build: &build,
        };
        Signals {
            serving,
            in_flight,
            readings: windows
                .iter_mut()
                .map(|window| window.reading(now.as_microsecond(), &record))
                .collect(),
        }
    }

    /// Who holds what others wait for, as last seen.
    pub(super) fn blockers(&self, now: Timestamp) -> Vec<Blocker> {
        let state = lock(&self.shared.state);
        if now.duration_since(state.blockers_at) > BLOCKERS_STAY {
            return Vec::new();
        }
        state.blockers.clone()
    }

    /// Sends nothing more, lets the calls in flight end, and looks again for what each acknowledged one was to change.
    /// `None` when no traffic has an effect to look for.
    pub(super) async fn look_again(&self, patience: Duration) -> Option<Kept> {
        let with_effect = || self.traffic.iter().filter(|t| t.stated.effect.is_some());
        with_effect().next()?;
        futures::future::join_all(self.traffic.iter().map(|source| source.handle.stop(patience))).await;
        let acknowledged = with_effect().flat_map(|t| t.handle.take_acknowledged()).collect();
        Some(kept::look_again(acknowledged).await)
    }

    /// Probes, queries and logs of a node begin anew.
    fn look_at(&self, asked: &Asked<'_>, now_us: i64) {
        let version = asked.build.map(|b| b.version.as_str());
        for (probe, handle) in &self.probes {
            let made = (asked.known && probe.is_for(version))
                .then(|| HttpCall::probe(self.probe_client.clone(), &probe.http, &asked.context))
                .transpose();
            self.set_target(handle, asked, made.map_err(|why: CallError| why.to_string()));
        }
        for (parts, handle) in &self.queries {
            let query = self
                .fleet
                .render_text(&parts.sql, &asked.context)
                .map(|sql| WatchedQuery {
                    database: parts.database.clone(),
                    sql,
                    at_most: parts.at_most,
                });
            match query {
                Ok(query) => self.set_target(handle, asked, Ok(Some(query))),
                Err(why) => self.trouble(&handle.plan().signal, asked.node(), &why.to_string()),
            }
        }
        self.follow_logs(asked.place, asked.build, now_us);
    }

    /// Our own traffic on a node begins anew, or ends.
    fn call_on(&self, asked: &Asked<'_>, wanted: bool) {
        for source in &self.traffic {
            self.set_target(&source.handle, asked, self.request(source, asked, wanted));
        }
    }

    fn request(&self, source: &TrafficSource, asked: &Asked<'_>, wanted: bool) -> Result<Option<HttpCall>, String> {
        if !wanted || !asked.known {
            return Ok(None);
        }
        let build = asked
            .build
            .ok_or("it runs a build that we do not know, so no request can be chosen")?;
        let mut requests = source.stated.requests.iter();
        let request = requests.find(|r| r.builds.contains(&build.version)).ok_or_else(|| {
            format!(
                "traffic {} has no request for version {}",
                source.stated.name, build.version
            )
        })?;
        let (client, name) = self.caller(source, &asked.context).map_err(|e| e.to_string())?;
        let call = self
            .call(source, client, request, &asked.context)
            .map_err(|e| e.to_string())?;
        let call = call.map_err(|e| e.to_string())?;
        Ok(Some(match name {
            Some(name) => call.to_host(name),
            None => call,
        }))
    }

    /// Who calls a node, and by which name where its address is in no certificate.
    fn caller(
        &self,
        source: &TrafficSource,
        context: &serde_json::Value,
    ) -> Result<(reqwest::Client, Option<String>), WatchError> {
        let stated = source.stated.tls.as_ref().and_then(|tls| tls.server_name.as_ref());
        let Some(template) = stated else {
            return Ok((source.client.clone(), None));
        };
        let unusable =
            |why: String| WatchError::Stated(format!("traffic {}, tls.serverName: {why}", source.stated.name));
        let name = self
            .fleet
            .render_text(template, context)
            .map_err(|e| unusable(e.to_string()))?;
        let address = context["node"]["address"].as_str().unwrap_or_default();
        let known = KnownHost {
            name: name.clone(),
            address: address.parse().map_err(|_| {
                unusable(format!(
                    "`{address}`, where its node is, is no IP address; leave serverName out there"
                ))
            })?,
        };
        Ok((traffic_client(&self.fleet, &source.stated, Some(known))?, Some(name)))
    }

    /// What cannot be asked is not asked, and why is told.
    fn set_target<C: Call>(&self, handle: &TrafficHandle, asked: &Asked<'_>, made: Result<Option<C>, String>) {
        let call = made.unwrap_or_else(|why| {
            self.trouble(&handle.plan().signal, asked.node(), &why);
            None
        });
        let target = call.map(|call| Target {
            build: asked.build.map(|b| b.digest.to_string()).unwrap_or_default(),
            call: Arc::new(call),
        });
        handle.set_target(asked.node(), target);
    }

    fn call(
        &self,
        source: &TrafficSource,
        client: reqwest::Client,
        request: &crate::model::environment::Request,
        context: &serde_json::Value,
    ) -> Result<Result<HttpCall, CallError>, FleetError> {
        let Traffic { before, effect, .. } = &source.stated;
        let before = before
            .as_ref()
            .map(|b| {
                Ok::<_, FleetError>(OnDatabase {
                    database: self.fleet.database(&b.database)?,
                    sql: b.sql.clone(),
                })
            })
            .transpose()?;
        let effect = effect
            .as_ref()
            .map(|e| {
                Ok::<_, FleetError>(EffectCheck {
                    query: OnDatabase {
                        database: self.fleet.database(&e.database)?,
                        sql: e.sql.clone(),
                    },
                    equals: e.equals.clone(),
                })
            })
            .transpose()?;
        let made = HttpCall::new(client, request, before, effect, context);
        Ok(made.map(|call| call.behind(Arc::clone(&self.veil))))
    }

    /// Only logs that a gate reads are followed: each costs a look a second.
    fn follow_logs(&self, place: &Place, build: Option<&BuildRef>, now_us: i64) {
        let mut logs = lock(&self.logs);
        for log in &self.component.logs {
            let signal = format!("log/{}", log.name);
            let Some(gate) = self.gates.iter().find(|g| g.signal == signal) else {
                continue;
            };
            let digest = build.map(|b| b.digest.to_string()).unwrap_or_default();
            let key = (place.site.name.clone(), log.name.clone());
            if let Some(running) = logs.get(&key) {
                running.set_build(digest);
                continue;
            }
            match LogPatterns::new(log) {
                Ok(patterns) => {
                    let plan = LogPlan {
                        signal,
                        node: place.site.name.clone(),
                        build: digest,
                        age: gate.age.0,
                        patterns,
                    };
                    let file = |path: &String| {
                        let file = HostLog::new(Arc::clone(&place.host), place.address.clone(), path.clone());
                        Source::File(Follower::new(file, Begin::AtEnd))
                    };
                    let printed = place.host.printed().map(Source::Printed);
                    // That a server has a path was checked when its file was read.
                    if let Some(source) = printed.or_else(|| log.path.as_ref().map(file)) {
                        let running = LogHandle::start(source, plan, READ_LOG, self.feed.clone());
                        logs.insert(key, running);
                    }
                }
                Err(why) => self.feed.trouble(&signal, &place.site.name, now_us, why.to_string()),
            }
        }
    }

    fn trouble(&self, signal: &str, node: &str, why: &str) {
        let at_us = Timestamp::now().as_microsecond();
        self.feed.trouble(signal, node, at_us, why.to_owned());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Our traffic goes where a balancer's would: to what is in service, and to what is under test.
fn gets_traffic(status: &UpgradeStatus, i: usize) -> bool {
    let Some(node) = status.nodes.get(i) else { return true };
    match node.phase {
        NodePhase::Analyse | NodePhase::Admit => true,
        NodePhase::Removing | NodePhase::OutOfService => false,
        NodePhase::Waiting
        | NodePhase::Checked
        | NodePhase::Install
        | NodePhase::Drain
        | NodePhase::Activate
        | NodePhase::Restart
        | NodePhase::Warm
        | NodePhase::Probe
        | NodePhase::Done => !node.drained,
    }
}

fn start(plan: TrafficPlan, feed: &Feed) -> Result<TrafficHandle, WatchError> {
    TrafficHandle::start(plan, feed.clone()).map_err(|e| WatchError::Stated(e.to_string()))
}

/// The one age at which a call of this signal is late: its schedule tells it once.
fn age_of(gates: &[StatedGate], signal: &str) -> Result<Option<Duration>, WatchError> {
    let mut ages = gates.iter().filter(|g| g.signal == signal);
    let Some(first) = ages.next() else { return Ok(None) };
    match ages.find(|other| other.age != first.age) {
        Some(other) => Err(WatchError::Stated(format!(
            "gates {} and {} read {signal} with different ages ({} and {}); give each a traffic of its own",
            first.name, other.name, first.age, other.age
        ))),
        None => Ok(Some(first.age.0)),
    }
}

/// Over every secret of the environment. One that cannot be read here was given to nobody by us.
fn veil(fleet: &Fleet) -> Veil {
    let names = fleet.environment.spec.secrets.keys();
    Veil::over(names.filter_map(|name| fleet.secrets.text(name).ok()))
}

fn traffic_client(fleet: &Fleet, stated: &Traffic, known: Option<KnownHost>) -> Result<reqwest::Client, WatchError> {
    let secret = |name: &Option<String>| -> Result<Option<Vec<u8>>, FleetError> {
        Ok(name.as_ref().map(|name| fleet.secrets.read(name)).transpose()?)
    };
    let (mut ca, mut identity) = (None, None);
    if let Some(tls) = &stated.tls {
        ca = secret(&tls.ca)?;
        if let (Some(certificate), Some(key)) = (secret(&tls.certificate)?, secret(&tls.key)?) {
            identity = Some(ClientIdentity { certificate, key });
        }
    }
    // As a pilot factory would: enough kept for the rate, the rest connect anew.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is bounded to a thousand by its plan"
    )]
    let kept = stated.rate.clamp(1.0, 1000.0).ceil() as usize * 2;
    crate::signals::http::client(ca, identity, Connections::Kept(kept), known).map_err(|source| WatchError::Client {
        traffic: stated.name.clone(),
        source,
    })
}

async fn read_feed(shared: Arc<Shared>, mut from: Observations, probes: Vec<Probe>) {
    while let Some(observed) = from.next().await {
        let dropped = from.take_dropped();
        let mut state = lock(&shared.state);
        let now_us = Timestamp::now().as_microsecond();
        if dropped > 0 {
            // A stretch with holes that we made ourselves proves nothing: count anew.
            tracing::warn!(dropped, "samples were dropped; every gate counts anew");
            for window in state.nodes.iter_mut().flat_map(|n| &mut n.windows) {
                if window.since_us <= now_us {
                    window.begin_anew(now_us);
                }
            }
        }
        if take(&mut state, &observed, &probes, now_us) {
            shared.stirred.notify_one();
        }
    }
}

/// Counts one observation. True when it may change a decision.
fn take(state: &mut State, observed: &Observed, probes: &[Probe], now_us: i64) -> bool {
    match observed {
        Observed::Sample(sample) => {
            let Some(node) = state.nodes.iter_mut().find(|n| n.name == sample.node) else {
                return false;
            };
            let mut changed = node.draining;
            if let Some(name) = sample.signal.strip_prefix("probe/")
                && let Some(probe) = probes.iter().find(|p| p.name == name)
            {
                changed |= node.answers.count(probe, sample);
            }
            for window in node.windows.iter_mut().filter(|w| w.setup.signal == sample.signal) {
                let before = window.read(now_us).verdict;
                window.push(sample);
                changed |= window.read(now_us).verdict != before;
            }
            changed
        }
        Observed::Afterwards(afterwards) => {
            for window in state.windows(&afterwards.node, &afterwards.signal) {
                window.afterwards(afterwards);
            }
            false
        }
        Observed::Trouble(trouble) => {
            for window in state.windows(&trouble.node, &trouble.signal) {
                window.trouble(trouble);
            }
            false
        }
    }
}

impl State {
    /// The windows on a node that read this signal.
    fn windows<'a>(&'a mut self, node: &'a str, signal: &'a str) -> impl Iterator<Item = &'a mut Window> {
        self.nodes
            .iter_mut()
            .filter(move |n| n.name == node)
            .flat_map(|n| &mut n.windows)
            .filter(move |w| w.setup.signal == signal)
    }
}

struct BlockerLook {
    database: crate::signals::postgres::Database,
    port: u16,
    method: Option<regex::Regex>,
    application_name: Option<NamePattern>,
}

impl BlockerLook {
    fn new(fleet: &Fleet, stated: &Blockers) -> Result<Self, WatchError> {
        let mut config = fleet.database_config(&stated.database)?;
        let port = config.port;
        // Of its own: when traffic's checks have used up theirs, this look is what explains it.
        config.connections = 1;
        let method = stated
            .method
            .as_deref()
            .map(regex::Regex::new)
            .transpose()
            .map_err(|e| WatchError::Stated(format!("blockers.method: {e}")))?;
        Ok(Self {
            database: crate::signals::postgres::Database::new(config),
            port,
            method,
            application_name: stated.application_name.clone(),
        })
    }
}

async fn look_for_blockers(shared: Arc<Shared>, fleet: Arc<Fleet>, look: BlockerLook) {
    let mut ticks = tokio::time::interval(LOOK_FOR_BLOCKERS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !shared.blockers_wanted.load(Ordering::Relaxed) {
            continue;
        }
        let queues = match blocking::look(&look.database).await {
            Ok(queues) => queues,
            Err(why) => {
                tracing::debug!(%why, "no picture of who blocks whom");
                continue;
            }
        };
        if queues.is_empty() {
            continue;
        }
        let builds = lock(&shared.state)
            .nodes
            .iter()
            .map(|n| (n.name.clone(), n.build.as_ref().map(|(_, name)| name.clone())))
            .collect();
        let attribution = attribution(&fleet, &look, builds).await;
        let blockers = queues.iter().map(|queue| attribution.blocker(queue)).collect();
        let mut state = lock(&shared.state);
        state.blockers = blockers;
        state.blockers_at = Timestamp::now();
    }
}

/// Whose the sessions are, over every node of the environment: another component's may hold what this one waits for.
async fn attribution(fleet: &Fleet, look: &BlockerLook, builds: BTreeMap<String, Option<String>>) -> Attribution {
    let mut attribution = Attribution {
        nodes: builds,
        clients: BTreeMap::new(),
        unseen: BTreeMap::new(),
        application_name: look.application_name.clone(),
        method: look.method.clone(),
    };
    let lists = fleet.all_places().filter(|place| place.address.pid_file.is_some());
    let lists = lists.map(async |place| {
        let list = tokio::time::timeout(LIST_SOCKETS, place.host.sockets(&place.address, look.port)).await;
        let list = match list {
            Ok(Ok(sockets)) => Ok(sockets),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err(format!("no answer within {} s", LIST_SOCKETS.as_secs())),
        };
        (place.site.name.clone(), list)
    });
    for (node, list) in futures::future::join_all(lists).await {
        attribution.nodes.entry(node.clone()).or_default();
        match list {
            Ok(sockets) => {
                let ours = sockets.into_iter().map(|socket| (socket.to_string(), node.clone()));
                attribution.clients.extend(ours);
            }
            Err(why) => {
                attribution.unseen.insert(node, why);
            }
        }
    }
    attribution
}

/// What is behind these locks is changed step by step without panicking in between.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

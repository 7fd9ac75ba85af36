//! `stagegate why ENV`: the first thing that keeps an upgrade from going on, and what clears it.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::ground::{Driver, GroundError};
use super::printer::Printer;
use super::view::{self, API_VERSION, age, moment};
use super::{Exit, called, ground};
use crate::engine::promotion::{self, PromotionRecord};
use crate::engine::session::{self, KnownBuild};
use crate::home::Home;
use crate::model::upgrade::{NodePhase, NodeStatus, Phase, Verdict, Wish};
use crate::report::in_one_line;
use crate::rollout::FOREIGN_HOME;
use crate::store::{Store as _, UpgradeRecord};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV", value_parser = ground::environment_name)]
    environment: String,
}

/// An unmet condition.
struct Unmet {
    rule: String,
    value: String,
    since: Timestamp,
    clears: String,
    next: String,
    /// Nodes that stand in the way.
    nodes: Vec<OutNode>,
}

/// A node that is out of service.
#[derive(Serialize)]
struct OutNode {
    name: String,
    since: Timestamp,
    why: String,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let (home, environment) = (ground::look()?, &arguments.environment);
    let driver = ground::driver(&home, environment)?;
    let is_idle = home.store().unfinished(Some(environment))?.is_empty();
    if is_idle && let Some(waiting) = promotion_into(&home, environment)? {
        return tell_promotion(&waiting, environment, driver.as_ref(), printer);
    }
    tell(&home, environment, driver, None, printer)
}

/// What only a cluster's home knows of an upgrade.
pub(super) struct Cluster {
    /// Its namespace.
    pub(super) namespace: String,
    /// That no controller leads, if none does.
    pub(super) nobody_leads: Option<String>,
    /// The command that shows the controllers.
    pub(super) controllers: String,
    /// Why its controller cannot drive one that was begun.
    pub(super) stuck: Option<Stuck>,
}

/// Why an upgrade that was begun is not driven on.
pub(super) struct Stuck {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: Timestamp,
}

/// The oldest promotion into an environment that has not ended.
fn promotion_into(home: &Home, environment: &str) -> anyhow::Result<Option<PromotionRecord>> {
    let open = PromotionRecord::open(home)?;
    if open.is_empty() {
        return Ok(None);
    }
    let rules = ground::workspace().promotion_rules()?;
    let leads =
        |record: &PromotionRecord| promotion::Ground::environment_of(&rules, record).is_ok_and(|e| e == environment);
    Ok(open.into_iter().find(leads))
}

/// Everything that a promotion waits for, what lasts longest first.
fn tell_promotion(
    record: &PromotionRecord,
    environment: &str,
    driver: Option<&Driver>,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let PromotionRecord { name, spec, status, .. } = record;
    let next = match status.reason.as_str() {
        "NotApproved" => format!("stagegate approve {name}"),
        "Held" | "OutsideWindow" | "Soaking" | "Busy" => "stagegate pipeline show".to_owned(),
        "Frozen" => "stagegate get freezes".to_owned(),
        _ => format!("stagegate promote {} --to {environment}", spec.build),
    };
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Why",
        "metadata": {"name": name},
        "spec": {"environment": environment, "promotion": name},
        "status": {"phase": status.phase, "rule": status.reason, "value": status.message, "since": status.since, "waitsFor": status.waits_for, "next": called::command(&next), "driver": driver.map(ToString::to_string)},
    });
    printer.resource(&resource, |p| {
        p.line(&format!("{name} is {:?} ({})", status.phase, status.reason))?;
        for waiting in &status.waits_for {
            let until = waiting
                .until
                .map_or(String::new(), |until| format!(" (until {})", moment(until)));
            p.line(&format!(
                "rule:   {}: {}{until}",
                waiting.reason,
                in_one_line(&waiting.message)
            ))?;
        }
        p.line(&format!(
            "since:  {} ({})",
            moment(status.since),
            age(Timestamp::now(), status.since)
        ))?;
        let driver = driver.map_or_else(
            || "the `stagegate promote` that waits for it, if one does; else `stagegate serve`, or the same command again".to_owned(),
            ToString::to_string,
        );
        p.line(&format!("driver: {driver}"))?;
        p.line(&format!("next:   {}", called::command(&next)))
    })?;
    Ok(Exit::Done)
}

/// The same of a home whose driver is known.
pub(super) fn tell(
    home: &Home,
    environment: &str,
    driver: Option<Driver>,
    cluster: Option<&Cluster>,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let last = home.store().upgrades(Some(environment), 1)?.pop();
    let Some(record) = last else {
        ground::refuse_unknown(home, environment)?;
        return Err(GroundError::NeverUpgraded(environment.to_owned()).into());
    };
    let facts = Facts::look(home, &record, driver)?;
    let of_cluster = cluster.and_then(|cluster| cluster.unmet(&record));
    let unmet = of_cluster.unwrap_or_else(|| unmet(&record, &facts));
    let Unmet {
        rule,
        value,
        since,
        clears,
        next,
        nodes,
    } = &unmet;
    let cause = record.status.cause.as_ref();
    // Programs paste commands as people do.
    let (value, clears, next) = (
        called::in_sentence(value),
        called::in_sentence(clears),
        called::command(next),
    );
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Why",
        "metadata": {"name": record.name},
        "spec": {"environment": environment, "upgrade": record.name},
        "status": {"phase": record.status.phase, "rule": rule, "value": value, "since": since, "clears": clears, "next": next, "driver": facts.driver.as_ref().map(ToString::to_string), "nodes": nodes, "cause": cause, "blockers": record.status.blockers},
    });
    printer.resource(&resource, |p| {
        p.line(&format!(
            "{} is {:?} ({})",
            record.name, record.status.phase, record.status.reason
        ))?;
        p.line(&format!("rule:   {rule}"))?;
        p.line(&format!("value:  {}", in_one_line(&value)))?;
        p.line(&format!(
            "since:  {} ({})",
            moment(*since),
            age(Timestamp::now(), *since)
        ))?;
        p.line(&format!("clears: {clears}"))?;
        p.line(&format!("next:   {next}"))?;
        for OutNode { name, since, why } in nodes {
            p.line(&format!(
                "out:    {name} since {} ({}): {}",
                moment(*since),
                age(Timestamp::now(), *since),
                in_one_line(why)
            ))?;
        }
        view::why_it_went_back(p, cause, &record.status.blockers)
    })?;
    Ok(Exit::Done)
}

impl Cluster {
    /// What is in the way where a controller drives, and no command does: other things are, and other words help.
    #[expect(clippy::too_many_lines, reason = "one row a reason")]
    fn unmet(&self, record: &UpgradeRecord) -> Option<Unmet> {
        let (namespace, status) = (&self.namespace, &record.status);
        let (environment, build) = (&record.spec.environment, &record.spec.build);
        let waits = |rule: String, clears: String, next: String| Unmet {
            rule,
            value: status.message.clone(),
            since: status.since,
            clears,
            next,
            nodes: Vec::new(),
        };
        if record.status.kept.is_none() && session::is_settled(record) {
            return settled_in_cluster(record);
        }
        if let Some(nobody) = &self.nobody_leads {
            let nobody = Unmet {
                value: nobody.clone(),
                nodes: out_nodes(record),
                ..waits(
                    format!("a controller leads in namespace {namespace}"),
                    format!(
                        "a controller that runs and can reach its API server: it goes on from here (`stagegate install --print \
                         --namespace {namespace}` prints what makes one); until then an Upgrade that is deleted stays, too"
                    ),
                    self.controllers.clone(),
                )
            };
            return Some(nobody);
        }
        if let Some(Stuck { reason, message, since }) = &self.stuck {
            let stuck = Unmet {
                value: format!("{reason}: {message}"),
                since: *since,
                nodes: out_nodes(record),
                ..waits(
                    "its controller can drive it".to_owned(),
                    "that mended: the controller tries again by itself; or `abort`".to_owned(),
                    format!("kubectl describe upg -n {namespace} {}", record.name),
                )
            };
            return Some(stuck);
        }
        if let Some(kept) = still_kept(record) {
            return Some(Unmet {
                clears: "what is in the way of that mended: the controller tries again by itself".to_owned(),
                next: format!("kubectl describe upg -n {namespace} {}", record.name),
                ..kept
            });
        }
        if status.phase != Phase::Pending {
            return None;
        }
        let or_abort = format!("; or `stagegate abort {environment}`, which ends it before anything is touched");
        let watch = format!("stagegate status {environment} -w");
        let make = format!(
            "stagegate build manifest {environment} {} | kubectl apply -n {namespace} -f -",
            session::wanted(&record.spec)
        );
        match status.reason.as_str() {
            "EnvironmentMissing" => Some(waits(
                format!("Environment {environment} is there"),
                format!("it applied{or_abort}"),
                format!("kubectl get env -n {namespace}"),
            )),
            "EnvironmentDeleted" => Some(waits(
                format!("Environment {environment} stays"),
                format!("it made anew once it has gone{or_abort}"),
                format!("kubectl get env -n {namespace}"),
            )),
            "EnvironmentNotReady" => Some(waits(
                format!("Environment {environment} was brought up as it is stated now"),
                format!("what keeps it from that mended: it is tried again by itself{or_abort}"),
                format!("kubectl describe env -n {namespace} {environment}"),
            )),
            "BuildMissing" => Some(waits(
                format!("Build {build} is there"),
                format!("it made, where the files of {environment} lie{or_abort}"),
                make,
            )),
            "WaitsForGivingBack" => Some(waits(
                "what an ended upgrade had of the same component is given back".to_owned(),
                format!("what keeps it from that mended: it is tried again by itself{or_abort}"),
                format!("kubectl get upg -n {namespace}"),
            )),
            "BuildDeleted" => Some(waits(
                format!("Build {build} stays"),
                format!("it made anew once it has gone{or_abort}"),
                make,
            )),
            "WaitsForUpgrade" => Some(waits(
                format!("the upgrade of {environment} before it has ended"),
                format!("that ending{or_abort}"),
                watch,
            )),
            "WaitsForPlace" => Some(waits(
                "the controller has a place for one upgrade more".to_owned(),
                format!("another upgrade ending{or_abort}"),
                watch,
            )),
            "NotDriven" => Some(waits(
                "its controller can drive it".to_owned(),
                format!("that mended: the controller tries again by itself{or_abort}"),
                format!("kubectl describe upg -n {namespace} {}", record.name),
            )),
            _ => None,
        }
    }
}

/// Of one that is held or has ended: where a controller drives, nobody brings nodes up by a command.
fn settled_in_cluster(record: &UpgradeRecord) -> Option<Unmet> {
    let (status, environment) = (&record.status, &record.spec.environment);
    let nodes = out_nodes(record);
    let by_up = !nodes.is_empty() || matches!(status.reason.as_str(), "NoData" | "PreflightFailed");
    (status.phase == Phase::Paused && by_up && status.kept.is_none()).then(|| Unmet {
        rule: format!("the upgrade is held: {}", status.reason),
        value: status.message.clone(),
        since: status.since,
        clears: "what is in the way mended, then `resume`; or `abort`".to_owned(),
        next: format!("stagegate resume {environment}"),
        nodes,
    })
}

/// What an upgrade's own status does not say.
struct Facts {
    /// Who drives it: the holder of the environment's lease, or the home's server.
    driver: Option<Driver>,
    quarantined: bool,
}

impl Facts {
    fn look(home: &Home, record: &UpgradeRecord, driver: Option<Driver>) -> anyhow::Result<Self> {
        let environment = &record.spec.environment;
        let build = KnownBuild::find(home, &record.spec.build)?;
        Ok(Self {
            driver,
            quarantined: build.is_some_and(|b| b.status.quarantined_in(environment).is_some()),
        })
    }
}

fn unmet(record: &UpgradeRecord, facts: &Facts) -> Unmet {
    let status = &record.status;
    let environment = &record.spec.environment;
    let again = format!(
        "stagegate upgrade {environment} --build {}",
        session::wanted(&record.spec)
    );
    let watch = format!("stagegate status {environment} -w");
    let simple = |rule: &str, clears: &str, next: String| Unmet {
        rule: rule.to_owned(),
        value: status.message.clone(),
        since: status.since,
        clears: clears.to_owned(),
        next,
        nodes: Vec::new(),
    };
    // Without a driver no other condition can be met, whatever the phase says.
    if !session::is_settled(record) && facts.driver.is_none() {
        return Unmet {
            rule: "somebody drives the upgrade".to_owned(),
            value: format!("nobody does: its driver is gone, and it stands in {:?}", status.phase),
            since: status.since,
            clears: "the same command again, or `stagegate serve`".to_owned(),
            next: match record.spec.wish {
                Wish::Abort => format!("stagegate abort {environment}"),
                Wish::Proceed | Wish::Pause | Wish::TimeUp => again,
            },
            nodes: out_nodes(record),
        };
    }
    if let Some(silent) = silent_driver(record, facts) {
        return silent;
    }
    if let Some(kept) = still_kept(record) {
        return kept;
    }
    match status.phase {
        Phase::Paused if session::is_settled(record) && !out_nodes(record).is_empty() => Unmet {
            nodes: out_nodes(record),
            ..simple(
                &format!("the upgrade is held: {}", status.reason),
                "the nodes that are out mended and brought up, then `resume`; or `abort`",
                format!("stagegate up {environment} && stagegate resume {environment}"),
            )
        },
        // What a database or another service that died does to nodes and gates: `up` starts what does not run.
        Phase::Paused
            if session::is_settled(record) && matches!(status.reason.as_str(), "NoData" | "PreflightFailed") =>
        {
            simple(
                &format!("the upgrade is held: {}", status.reason),
                "the cause mended (`up` starts what has died), then `resume`; or `abort`",
                format!("stagegate up {environment} && stagegate resume {environment}"),
            )
        }
        Phase::Paused if session::is_settled(record) && status.reason == FOREIGN_HOME => simple(
            "nodes serve another home",
            &format!(
                "if that home is no more, `stagegate adopt {environment} && stagegate resume {environment}`: they obey this one \
                 then; or `abort`"
            ),
            // What they show tells whose they are; nobody takes them from a home that lives by pasting a line.
            format!("stagegate status {environment} --look"),
        ),
        Phase::Paused | Phase::Inconclusive if session::is_settled(record) => simple(
            &format!("the upgrade is held: {}", status.reason),
            "the cause mended, then `resume`; or `abort`",
            format!("stagegate resume {environment}"),
        ),
        Phase::Paused | Phase::Inconclusive => simple("the upgrade is taken back", "its driver taking it back", watch),
        Phase::Succeeded => simple(
            "none: it is done",
            "nothing to clear",
            format!("stagegate status {environment}"),
        ),
        Phase::RolledBack | Phase::RollbackIneffective | Phase::Failed if facts.quarantined => simple(
            &format!("{}, which failed here, is quarantined", record.spec.build),
            "another build, or a release with a reason",
            format!(
                "stagegate build release {} --env {environment} --reason TEXT",
                record.spec.build
            ),
        ),
        Phase::RolledBack | Phase::RollbackIneffective | Phase::Failed => simple(
            "none: it has ended, and its build may go there again",
            "a new upgrade",
            again,
        ),
        Phase::Aborted | Phase::Errored => simple("it has ended", "a new upgrade", again),
        Phase::Pending | Phase::Preflight => {
            simple("every node checked and the build prepared", "the checks ending", watch)
        }
        Phase::Baseline | Phase::Soak => {
            let read = simple("every gate read for long enough", "time with clean calls", watch);
            // A gate that cannot be read is what time alone does not clear.
            match status.gates.iter().find(|g| g.verdict == Verdict::NoData) {
                Some(mute) => Unmet {
                    value: format!("{} on {} has no reading: {}", mute.name, mute.node, mute.reason),
                    ..read
                },
                None => read,
            }
        }
        Phase::Rolling | Phase::RollingBack => rolling(record),
    }
}

/// What an upgrade that has ended has not given back is not its owner's yet.
fn still_kept(record: &UpgradeRecord) -> Option<Unmet> {
    let kept = record.status.kept.as_ref()?;
    Some(Unmet {
        rule: "what it had is given back to its owner".to_owned(),
        value: view::still_kept(record, kept),
        since: record.status.since,
        clears: "what is in the way of that mended; then who drives does it, or `resume` at once".to_owned(),
        next: format!("stagegate resume {}", record.spec.environment),
        nodes: Vec::new(),
    })
}

/// A driver that says nothing keeps everybody else from driving.
fn silent_driver(record: &UpgradeRecord, facts: &Facts) -> Option<Unmet> {
    // Who holds the environment of an upgrade that has ended is at something else.
    let driver = facts.driver.as_ref().filter(|_| !session::is_settled(record));
    let (holder, since) = match driver? {
        Driver::Process {
            holder,
            silent_since: Some(since),
        } => (holder, *since),
        // Where controllers lead in turn, the next one takes over.
        Driver::Process { silent_since: None, .. } | Driver::Controller { .. } => return None,
    };
    Some(Unmet {
        rule: "its driver says that it lives".to_owned(),
        value: format!(
            "{holder} drives it and has said nothing since {}: it is stopped, or its machine or disk hangs",
            moment(since)
        ),
        since,
        clears: format!(
            "it going on; or its end (`kill -KILL {}`), and then the same command again, which takes over",
            holder.pid
        ),
        next: format!("kill -CONT {}", holder.pid),
        nodes: out_nodes(record),
    })
}

/// The nodes that are out of service and stay out until somebody sees to them.
fn out_nodes(record: &UpgradeRecord) -> Vec<OutNode> {
    let nodes = record.status.nodes.iter();
    nodes
        .filter_map(|node| {
            let (since, why) = view::out_of_service(node)?;
            Some(OutNode {
                name: node.name.clone(),
                since,
                why,
            })
        })
        .collect()
}

fn rolling(record: &UpgradeRecord) -> Unmet {
    let status = &record.status;
    let environment = &record.spec.environment;
    let next = format!("stagegate status {environment} -w");
    let has_no_place = |n: &NodeStatus| n.phase == NodePhase::Drain && !n.drained;
    let Some(node) = status.nodes.iter().find(|n| n.in_batch && !has_no_place(n)) else {
        let nodes = out_nodes(record);
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        return Unmet {
            rule: "a place to take the next node out of service (maxUnavailable)".to_owned(),
            value: if nodes.is_empty() {
                status.message.clone()
            } else {
                format!("out of service: {}", names.join(", "))
            },
            since: nodes.iter().map(|n| n.since).min().unwrap_or(status.since),
            clears: "a node that is out coming back into service".to_owned(),
            // It does not come back by itself, and `up` needs the lease that the driver has.
            next: if nodes.is_empty() {
                next
            } else {
                format!(
                    "stagegate pause {environment} --wait && stagegate up {environment} && stagegate resume {environment}"
                )
            },
            nodes,
        };
    };
    let gate = status
        .gates
        .iter()
        .find(|g| g.node == node.name && g.verdict != Verdict::Pass)
        .filter(|_| node.phase == NodePhase::Analyse);
    match gate {
        Some(gate) => Unmet {
            rule: format!("gate {} passes on {}", gate.name, node.name),
            value: gate.reason.clone(),
            since: node.since,
            clears: "enough clean calls".to_owned(),
            next,
            nodes: out_nodes(record),
        },
        None => Unmet {
            rule: format!("{} gets through {:?}", node.name, node.phase),
            value: node
                .step
                .as_ref()
                .map_or_else(|| "waiting".to_owned(), |s| format!("step {} runs", s.id)),
            since: node.since,
            clears: "the step ending well".to_owned(),
            next,
            nodes: out_nodes(record),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upgrade::UpgradeStatus;
    use crate::store::Holder;

    /// An upgrade of three nodes, of which the second was left out; the third waits, or is in the batch without a place.
    fn held_up(third: serde_json::Value) -> UpgradeRecord {
        let at = |s: i64| Timestamp::from_second(1_700_000_000 + s).expect("a constant");
        let node = |more: serde_json::Value| {
            let mut node = json!({"name": "n", "phase": "Done", "since": at(0)});
            node.as_object_mut()
                .expect("a map")
                .extend(more.as_object().expect("a map").clone());
            serde_json::from_value(node).expect("the rest of a node has defaults")
        };
        let mut status = UpgradeStatus::new(at(0));
        status.phase = Phase::Rolling;
        status.message = "web@2 goes onto 3 nodes".to_owned();
        status.nodes = vec![
            node(json!({"name": "n1"})),
            node(
                json!({"name": "n2", "phase": "OutOfService", "since": at(60), "trouble": "work failed while its peers pass"}),
            ),
            node(third),
        ];
        UpgradeRecord {
            name: "web-2-abcd".to_owned(),
            spec: serde_json::from_value(json!({"environment": "fleet", "component": "web", "build": "web-2"}))
                .expect("a spec"),
            status,
            resource_version: 1,
            wish_version: 1,
            created_at: at(0),
        }
    }

    #[test]
    fn an_upgrade_that_waits_for_a_node_names_it_since_when_why_and_what_to_do() {
        let facts = Facts {
            driver: Some(Driver::Process {
                holder: Holder {
                    user: "tester".to_owned(),
                    host: "here".to_owned(),
                    pid: 1,
                    start_ticks: 0,
                    boot_id: String::new(),
                    pid_namespace: String::new(),
                },
                silent_since: None,
            }),
            quarantined: false,
        };
        for third in [
            json!({"name": "n3", "phase": "Waiting"}),
            json!({"name": "n3", "phase": "Drain", "inBatch": true}),
        ] {
            let record = held_up(third);
            let unmet = unmet(&record, &facts);
            assert!(unmet.rule.contains("maxUnavailable"), "{}", unmet.rule);
            assert_eq!(unmet.value, "out of service: n2");
            assert_eq!(unmet.since, record.status.nodes[1].since);
            assert_eq!(
                unmet.next,
                "stagegate pause fleet --wait && stagegate up fleet && stagegate resume fleet"
            );
            let out = &unmet.nodes[..];
            assert_eq!((out[0].name.as_str(), out.len()), ("n2", 1));
            assert_eq!(out[0].why, "work failed while its peers pass");
        }
    }

    #[test]
    fn nodes_of_another_home_are_taken_over_by_a_persons_word_alone() {
        let mut record = held_up(json!({"name": "n3", "phase": "Waiting"}));
        record.status.nodes.clear();
        record.status.phase = Phase::Paused;
        record.status.reason = FOREIGN_HOME.to_owned();
        let facts = Facts {
            driver: None,
            quarantined: false,
        };
        let unmet = unmet(&record, &facts);
        assert!(
            unmet
                .clears
                .contains("`stagegate adopt fleet && stagegate resume fleet`"),
            "{}",
            unmet.clears
        );
        assert_eq!(unmet.next, "stagegate status fleet --look");
    }

    #[test]
    fn where_a_controller_drives_it_is_told_what_is_waited_for_and_what_helps_there() {
        let record = |phase: Phase, reason: &str| {
            let mut record = held_up(json!({"name": "n3", "phase": "Waiting"}));
            record.spec.environment = "shop".to_owned();
            record.status.phase = phase;
            record.status.reason = reason.to_owned();
            record
        };
        let cluster = |nobody_leads: Option<&str>, stuck: Option<&str>| Cluster {
            namespace: "town".to_owned(),
            nobody_leads: nobody_leads.map(str::to_owned),
            controllers: "kubectl get pods".to_owned(),
            stuck: stuck.map(|message| Stuck {
                reason: "NotDriven".to_owned(),
                message: message.to_owned(),
                since: Timestamp::UNIX_EPOCH,
            }),
        };
        let well = cluster(None, None);
        for (reason, rule, next) in [
            (
                "EnvironmentMissing",
                "Environment shop is there",
                "kubectl get env -n town",
            ),
            (
                "EnvironmentNotReady",
                "Environment shop was brought up as it is stated now",
                "kubectl describe env -n town shop",
            ),
            (
                "BuildMissing",
                "Build web-2 is there",
                "stagegate build manifest shop web=2 | kubectl apply -n town -f -",
            ),
            (
                "WaitsForUpgrade",
                "the upgrade of shop before it has ended",
                "stagegate status shop -w",
            ),
            (
                "WaitsForGivingBack",
                "what an ended upgrade had of the same component is given back",
                "kubectl get upg -n town",
            ),
            (
                "NotDriven",
                "its controller can drive it",
                "kubectl describe upg -n town web-2-abcd",
            ),
        ] {
            let unmet = well.unmet(&record(Phase::Pending, reason)).expect(reason);
            assert_eq!((unmet.rule.as_str(), unmet.next.as_str()), (rule, next), "{reason}");
            assert_eq!(unmet.value, record(Phase::Pending, reason).status.message);
            if reason != "WaitsForUpgrade" {
                assert!(unmet.clears.contains("`stagegate abort shop`"), "{}", unmet.clears);
            }
        }
        // The rules of an upgrade say the rest.
        assert!(well.unmet(&record(Phase::Rolling, "BaselineRead")).is_none());
        let left = cluster(Some("nobody leads"), None).unmet(&record(Phase::Rolling, "BaselineRead"));
        let left = left.expect("nobody does anything");
        assert_eq!(
            (left.value.as_str(), left.next.as_str()),
            ("nobody leads", "kubectl get pods")
        );
        let stuck = cluster(None, Some("403")).unmet(&record(Phase::Rolling, "BaselineRead"));
        assert_eq!(stuck.expect("it is not driven").value, "NotDriven: 403");
        // What has ended needs nobody.
        assert!(
            cluster(Some("nobody leads"), None)
                .unmet(&record(Phase::Succeeded, "Verified"))
                .is_none()
        );
    }
}

//! What one object asks for now, decided from what was heard of it and from what goes on with it already. Nothing is asked and nothing
//! is written here: what is to be done is handed back, and [`super::acts`] does it.
//!
//! An object is looked at when something has changed that concerns it; what is waited for is said in its status, what is done with is
//! let go, and what takes longer is left to who leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::Value;

use super::keeper::{EXPIRE_REFUSED, EXPIRED, remembered};
use super::runs::has_pods;
use crate::cluster::objects::{self, Kind, Upgrade, generation, is_deleted, is_kept, name};
use crate::engine::session;
use crate::model::upgrade::{Phase, UpgradeSpec, Wish};
use crate::model::values::Digest;
use crate::report::in_one_line;

/// Nodes that it was brought up with are in its list no more, and run on.
pub(super) const NODES_MISSING: &str = "NodesMissing";
/// Its replica's objects could not be deleted.
pub(super) const NOT_DOWN: &str = "NotDown";
/// What an upgrade that has ended had of a workload is not its owner's again.
const WAITS_FOR_GIVING_BACK: &str = "WaitsForGivingBack";
/// As much of its kind goes on as goes on at a time.
pub(super) const WAITS_FOR_PLACE: &str = "WaitsForPlace";

/// What goes on with an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    BringingUp(Version),
    /// This upgrade.
    Driving {
        upgrade: String,
        stage: Stage,
    },
    /// What these upgrades have kept though they have ended.
    GivingBack(Vec<String>),
    /// Looking after its replica, or at what its pods run.
    Keeping,
    /// Deleting its replica's objects, since it is deleted, in this generation.
    TakingDown(i64),
}

/// An environment as it is to be brought up.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// Of its spec.
    pub(super) generation: i64,
    /// What this answers ([`objects::RECONCILE_AT`]).
    pub(super) reconcile_at: Option<String>,
    /// Those that there were before it was read: it may be brought up with newer ones, and with none that are older.
    pub(super) templates: Option<Digest>,
}

impl Version {
    pub(super) fn of(object: &DynamicObject) -> Self {
        Self {
            generation: generation(object),
            reconcile_at: objects::reconcile_at(object),
            templates: None,
        }
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.generation)?;
        self.reconcile_at
            .iter()
            .try_for_each(|asked| write!(f, " as asked at {asked}"))
    }
}

/// What tasks of one kind share: so many places ([`super::lanes`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    BringUp,
    Drive,
    Keep,
}

impl Task {
    pub(super) fn lane(&self) -> Lane {
        match self {
            Task::BringingUp(_) => Lane::BringUp,
            Task::Driving { .. } | Task::GivingBack(_) => Lane::Drive,
            Task::Keeping | Task::TakingDown(_) => Lane::Keep,
        }
    }
}

/// How far an upgrade is, for whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It goes on, or back.
    Begun,
    New,
}

/// What a look finds under way.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) task: Option<Task>,
    /// Whether something of it may be begun now.
    pub(super) may_begin: MayBegin,
    pub(super) depth: Depth,
    pub(super) keep: Keep,
    /// Where it waits for a place.
    pub(super) waits_in: BTreeSet<Lane>,
}

/// Whether what it asks for waits for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    None,
    Waits,
}

impl Standing {
    fn queue(&self, lane: Lane) -> Queue {
        if self.waits_in.contains(&lane) {
            Queue::Waits
        } else {
            Queue::None
        }
    }
}

/// Whether it is time to look after its replica, or at its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Due,
    Later,
}

/// Whether what has just failed may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayBegin {
    Now,
    /// What has failed is giving back: nothing else waits for that.
    AllButGivingBack,
    Later,
}

/// How much of an environment that is up is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Objects,
    /// Also whether its files can still be read: templates change without its object.
    Files,
}

/// An environment with what concerns it, as it was heard of last.
pub(super) struct There {
    pub(super) environment: String,
    pub(super) object: Option<Arc<DynamicObject>>,
    /// Upgrades that something may be left to be done for.
    pub(super) upgrades: Vec<Upgrade>,
    /// Those of them that cannot be read, and why.
    pub(super) unreadable: Vec<(Arc<DynamicObject>, String)>,
    /// Builds that these name, by their names.
    pub(super) builds: BTreeMap<String, Arc<DynamicObject>>,
    pub(super) now: Timestamp,
}

/// Whether somebody still needs a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// An upgrade that has not ended names it.
    ByUpgrade,
    ByNobody,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Act<'a> {
    /// It is to stay for us when it is deleted.
    Hold(Kind, &'a DynamicObject),
    LetGo(Kind, &'a DynamicObject),
    /// An environment is not ready.
    TellEnvironment {
        reason: &'static str,
        message: String,
    },
    /// The same of one that is as ready as it was.
    NoteEnvironment {
        object: &'a DynamicObject,
        reason: &'static str,
        message: String,
    },
    /// An upgrade waits.
    TellUpgrade {
        upgrade: &'a Upgrade,
        reason: &'static str,
        message: String,
    },
    /// Nothing can be done with an upgrade.
    TellUnreadable {
        object: &'a DynamicObject,
        why: String,
    },
    /// It was to be aborted before it was begun.
    EndUnbegun(&'a Upgrade),
    /// It can never be begun, by what this version of its environment states.
    Refuse {
        upgrade: &'a Upgrade,
        environment: &'a DynamicObject,
        reason: &'static str,
        message: String,
    },
    /// It has ended.
    Finish(&'a Upgrade),
    Begin(Task),
    /// Whether its files can be read is found out, and said where they cannot; where they can, it is brought up as this, if that is asked
    /// for and nobody has done it yet.
    Read {
        then_bring_up: Option<Version>,
        queue: Queue,
    },
}

/// Why one that has ended keeps something still, as far as that is known.
fn keeps_because(kept: &Upgrade) -> &'static str {
    match kept.status.kept.as_ref().and_then(|kept| kept.why.as_ref()) {
        Some(_) => "its condition GivenBack says why it is not yet",
        None => "that is under way",
    }
}

/// What an environment asks for.
pub(super) fn of_environment<'a>(there: &'a There, standing: &Standing) -> Vec<Act<'a>> {
    let Some(object) = there.object.as_deref() else {
        return Vec::new();
    };
    let act = act_of(object, there, standing);
    // What is said of one that is brought up depends on what it is as that begins.
    let waits = match &act {
        Some(Act::Begin(task)) if standing.queue(task.lane()) == Queue::Waits => of_waiting(object, task),
        Some(_) | None => None,
    };
    waits.into_iter().chain(act).collect()
}

/// What one says whose replica waits for its turn.
fn of_waiting<'a>(object: &'a DynamicObject, task: &Task) -> Option<Act<'a>> {
    let message =
        "this controller looks after or takes down as many replicas already as it does at a time; its turn comes"
            .to_owned();
    let reason = WAITS_FOR_PLACE;
    match task {
        // How the last attempt went is worth more.
        Task::TakingDown(_) if came_to(object) == Some(NOT_DOWN) => None,
        Task::TakingDown(_) => Some(Act::TellEnvironment { reason, message }),
        // That somebody looks at its pods is nothing that it waits for.
        Task::Keeping if remembered(object).is_none() => None,
        Task::Keeping => Some(Act::NoteEnvironment {
            object,
            reason,
            message,
        }),
        Task::BringingUp(_) | Task::Driving { .. } | Task::GivingBack(_) => None,
    }
}

fn act_of<'a>(object: &'a DynamicObject, there: &'a There, standing: &Standing) -> Option<Act<'a>> {
    // One that is expired stays so, or it would be made anew once the upgrade can be read.
    if let Some((upgrade, why)) = there.unreadable.first()
        && came_to(object) != Some(EXPIRED)
    {
        // It may be under way all the same, by a controller that reads it.
        return standing.task.is_none().then(|| Act::TellEnvironment {
            reason: "UpgradeUnreadable",
            message: format!("it is left alone because of Upgrade {}: {why}", name(upgrade)),
        });
    }
    if is_deleted(object) {
        return of_deleted(object, there, standing);
    }
    if !is_kept(object) {
        // It is heard of again.
        return Some(Act::Hold(Kind::Environment, object));
    }
    if standing.task.is_some() || standing.may_begin == MayBegin::Later || came_to(object) == Some(EXPIRED) {
        return None;
    }
    let mut all = there.upgrades.iter();
    let keeping = all.find(|u| is_kept_from_its_owner(u));
    let is_under_way = there.upgrades.iter().any(is_under_way);
    let is_free = !is_under_way && keeping.is_none();
    let kept = remembered(object);
    let expires_at = kept.as_ref().and_then(|kept| kept.expires_at);
    if expires_at.is_some_and(|at| at <= there.now) && is_free {
        // What could not be taken down so far is not brought up meanwhile.
        return (standing.keep == Keep::Due).then_some(Act::Begin(Task::Keeping));
    }
    if is_up(object) && standing.depth == Depth::Objects {
        let is_due = (kept.is_some() || has_pods(object)) && standing.keep == Keep::Due;
        return (is_due && is_free).then_some(Act::Begin(Task::Keeping));
    }
    if let Some(keeping) = keeping.filter(|_| !is_up(object) && kept.is_some()) {
        return Some(Act::TellEnvironment {
            reason: WAITS_FOR_GIVING_BACK,
            message: format!(
                "the objects of its replica are applied once {} is given back by upgrade {}, which has ended; {}",
                keeping.spec.component,
                name(&keeping.object),
                keeps_because(keeping)
            ),
        });
    }
    // What is kept is given back first, if it can be. What cannot stands in nobody's way: nothing is written to pods when they are brought up.
    let is_given_first = keeping.is_some() && standing.may_begin == MayBegin::Now;
    // Its nodes are the upgrade's until that has ended; and one that failed on a node is tried again when nothing waits for it.
    let is_left = is_up(object)
        || is_under_way
        || is_given_first
        || is_settled(object) && there.upgrades.iter().any(|u| there.may_go_on(u));
    Some(Act::Read {
        then_bring_up: (!is_left).then(|| Version::of(object)),
        // How the last attempt went is worth more.
        queue: if is_settled(object) {
            Queue::None
        } else {
            standing.queue(Lane::BringUp)
        },
    })
}

fn of_deleted<'a>(object: &'a DynamicObject, there: &There, standing: &Standing) -> Option<Act<'a>> {
    if there.upgrades.iter().any(|upgrade| !upgrade.status.phase.is_final()) {
        return Some(Act::TellEnvironment {
            reason: "WaitsForUpgrade",
            message: "it is to be deleted, and waits for its open upgrade; delete that first, or let it end".to_owned(),
        });
    }
    if let Some(kept) = there.upgrades.iter().find(|upgrade| !upgrade.status.is_over()) {
        return Some(Act::TellEnvironment {
            reason: WAITS_FOR_GIVING_BACK,
            message: format!(
                "it is to be deleted, and upgrade {}, which has ended, has not given back yet what it had; {}",
                name(&kept.object),
                keeps_because(kept)
            ),
        });
    }
    if standing.task.is_some() || !is_kept(object) {
        return None;
    }
    if remembered(object).is_some() {
        let task = Task::TakingDown(generation(object));
        return (standing.may_begin == MayBegin::Now).then_some(Act::Begin(task));
    }
    Some(Act::LetGo(Kind::Environment, object))
}

/// What its upgrades ask for, in order.
pub(super) fn of_upgrades<'a>(there: &'a There, standing: &Standing) -> Vec<Act<'a>> {
    if !there.unreadable.is_empty() {
        let told = |(object, why): &'a (Arc<DynamicObject>, String)| Act::TellUnreadable {
            object,
            why: why.clone(),
        };
        return there.unreadable.iter().map(told).collect();
    }
    let is_driven = |upgrade: &Upgrade| match &standing.task {
        Some(Task::Driving { upgrade: driven, .. }) => driven == name(&upgrade.object),
        Some(Task::BringingUp(_) | Task::GivingBack(_) | Task::Keeping | Task::TakingDown(_)) | None => false,
    };
    let (ended, mut open): (Vec<&Upgrade>, Vec<&Upgrade>) = there
        .upgrades
        .iter()
        .partition(|upgrade| upgrade.status.phase.is_final());
    // The driver of one may be at its last reports.
    let ended = ended.into_iter().filter(|upgrade| !is_driven(upgrade));
    // Without its environment nobody knows what there is to give back.
    let (kept, over): (Vec<&Upgrade>, Vec<&Upgrade>) =
        ended.partition(|upgrade| !upgrade.status.is_over() && there.object.is_some());
    let mut acts: Vec<Act<'a>> = over.into_iter().map(Act::Finish).collect();
    // One that was begun goes on; of the others the older is first.
    open.sort_by_key(|upgrade| {
        let object = &upgrade.object;
        (!is_under_way(upgrade), objects::created_at(object), name(object))
    });
    let mut waits_for = None;
    let mut standing = standing.clone();
    if !kept.is_empty() && standing.task.is_none() && standing.may_begin == MayBegin::Now {
        let names = kept.iter().map(|kept| name(&kept.object).to_owned());
        let task = Task::GivingBack(names.collect());
        acts.push(Act::Begin(task.clone()));
        // It takes a call or two, and the next upgrade is begun after that, whatever came of it.
        standing.task = Some(task);
    }
    // No other one gets a workload before; those of other components do not wait for that.
    let keeps = |upgrade: &Upgrade| {
        let mut kept = kept.iter();
        kept.find(|kept| kept.spec.component == upgrade.spec.component)
    };
    for upgrade in open {
        let object = &upgrade.object;
        let is_begun = is_under_way(upgrade) || is_driven(upgrade);
        if is_deleted(object) && !is_begun {
            acts.push(Act::LetGo(Kind::Upgrade, object));
        } else if !is_deleted(object) && !is_kept(object) {
            acts.push(Act::Hold(Kind::Upgrade, object));
            waits_for.get_or_insert(name(object));
        } else if upgrade.spec.wish == Wish::Abort && !is_begun {
            acts.push(Act::EndUnbegun(upgrade));
        } else if let Some(kept) = keeps(upgrade) {
            acts.push(Act::TellUpgrade {
                upgrade,
                reason: WAITS_FOR_GIVING_BACK,
                message: format!(
                    "it waits until {} of environment {} is given back to its owner by upgrade {}, which has ended; {}",
                    kept.spec.component,
                    there.environment,
                    name(&kept.object),
                    keeps_because(kept)
                ),
            });
        } else if let Some(other) = waits_for {
            acts.push(Act::TellUpgrade {
                upgrade,
                reason: "WaitsForUpgrade",
                message: format!("it waits for upgrade {other} of environment {}", there.environment),
            });
        } else {
            waits_for = Some(name(object));
            acts.extend(of_head(upgrade, there, &standing));
        }
    }
    acts
}

/// What the upgrade asks for whose turn it is.
fn of_head<'a>(upgrade: &'a Upgrade, there: &'a There, standing: &Standing) -> Vec<Act<'a>> {
    let is_driven = match &standing.task {
        Some(Task::Driving { upgrade: driven, .. }) => driven == name(&upgrade.object),
        Some(Task::BringingUp(_) | Task::GivingBack(_) | Task::Keeping | Task::TakingDown(_)) | None => false,
    };
    if is_driven {
        return Vec::new();
    }
    let (environment, wanted) = (&there.environment, &upgrade.spec.build);
    let begun = is_under_way(upgrade);
    let build = there.builds.get(wanted);
    if let Some(object) = there.object.as_deref()
        && !begun
        && !is_deleted(object)
        && let Some((reason, message)) = never(upgrade, object, build.map(Arc::as_ref))
    {
        return vec![Act::Refuse {
            upgrade,
            environment: object,
            reason,
            message,
        }];
    }
    let (reason, message) = match (there.object.as_deref(), build) {
        (None, _) => (
            "EnvironmentMissing",
            format!(
                "there is no Environment {environment}; it waits for it{}",
                or_without(upgrade)
            ),
        ),
        (Some(object), _) if !begun && is_deleted(object) => (
            "EnvironmentDeleted",
            format!("Environment {environment} is being deleted"),
        ),
        (Some(object), _) if !begun && !is_settled(object) => ("EnvironmentNotReady", not_settled(upgrade, object)),
        (object, None) => ("BuildMissing", build_missing(upgrade, object)),
        (_, Some(build)) if !begun && is_deleted(build) => ("BuildDeleted", format!("Build {wanted} is being deleted")),
        // It is heard of again.
        (_, Some(build)) if !is_deleted(build) && !is_kept(build) => return vec![Act::Hold(Kind::Build, build)],
        (_, Some(_)) if upgrade.stays_held() => return Vec::new(),
        // What it waits for is said at any time, and begun when that can be.
        (_, Some(_)) if standing.task.is_some() || standing.may_begin == MayBegin::Later => return Vec::new(),
        (_, Some(_)) => {
            let begun = Act::Begin(Task::Driving {
                upgrade: name(&upgrade.object).to_owned(),
                stage: if begun { Stage::Begun } else { Stage::New },
            });
            let message =
                "this controller drives as many upgrades already as it drives at a time; it waits until one ends";
            let told = Act::TellUpgrade {
                upgrade,
                reason: WAITS_FOR_PLACE,
                message: message.to_owned(),
            };
            return match standing.queue(Lane::Drive) {
                Queue::None => vec![begun],
                Queue::Waits => vec![told, begun],
            };
        }
    };
    vec![Act::TellUpgrade {
        upgrade,
        reason,
        message,
    }]
}

/// What an upgrade waits for whose environment is not there as it is stated.
fn not_settled(upgrade: &Upgrade, object: &DynamicObject) -> String {
    let environment = &upgrade.spec.environment;
    match came_to(object) {
        Some(EXPIRED) => format!("the time of Environment {environment} is over; it waits for one that is stated anew"),
        Some(EXPIRE_REFUSED) => format!(
            "the time of Environment {environment} is over, and its replica could not be taken down; it waits for one that is stated anew"
        ),
        Some(_) | None => format!(
            "it waits for Environment {environment} to be brought up{}{}",
            not_ready(object),
            or_without(upgrade)
        ),
    }
}

/// Why an upgrade can never be begun, as its environment is stated: it would wait for ever for what is but a slip of the pen. Of a
/// replica its base states the components.
fn never(
    upgrade: &Upgrade,
    environment: &DynamicObject,
    there: Option<&DynamicObject>,
) -> Option<(&'static str, String)> {
    let (spec, UpgradeSpec { component, build, .. }) = (&environment.data["spec"], &upgrade.spec);
    if spec["replicaOf"].is_string() {
        return None;
    }
    let components = spec["components"].as_array()?;
    let name = &upgrade.spec.environment;
    let Some(stated) = components.iter().find(|c| c["name"] == component.as_str()) else {
        let there: Vec<&str> = components.iter().filter_map(|c| c["name"].as_str()).collect();
        let message = format!(
            "environment {name} has no component {component}; it has {}",
            there.join(", ")
        );
        return Some(("NoSuchComponent", message));
    };
    let version = build.strip_prefix(component.as_str())?.strip_prefix('-')?;
    let digests = images(stated)?;
    if there.is_some() || digests.contains_key(version) {
        return None;
    }
    let there: Vec<&str> = digests.keys().map(String::as_str).collect();
    let message = format!(
        "there is no Build {build}, and environment {name} states no image of {component} for {version}; it has {}",
        there.join(", ")
    );
    Some(("NoSuchVersion", message))
}

/// The images that a component states, by version.
fn images(component: &Value) -> Option<&serde_json::Map<String, Value>> {
    let places = [
        &component["source"]["images"]["digests"],
        &component["images"]["digests"],
    ];
    places.into_iter().find_map(Value::as_object)
}

fn build_missing(upgrade: &Upgrade, environment: Option<&DynamicObject>) -> String {
    let UpgradeSpec {
        environment: name,
        component,
        build,
        ..
    } = &upgrade.spec;
    let wanted = session::wanted(&upgrade.spec);
    let components = environment.and_then(|environment| environment.data["spec"]["components"].as_array());
    let stated = components.and_then(|all| all.iter().find(|c| c["name"] == component.as_str()));
    let make = if stated.is_some_and(|c| c["source"]["images"].is_object()) {
        format!("`stagegate upgrade {name} --build {wanted}` makes it")
    } else {
        let place = namespace(upgrade);
        format!(
            "where the files of {name} lie, `stagegate build manifest {name} {wanted} | kubectl apply{place} -f -` makes it"
        )
    };
    format!(
        "there is no Build {build}; it waits for it: {make}{}",
        or_without(upgrade)
    )
}

/// How somebody who did not mean it takes it back.
fn or_without(upgrade: &Upgrade) -> String {
    // One that was begun would have to go back first, for which it lacks the same.
    if is_under_way(upgrade) {
        return "; once it is there again, it goes on".to_owned();
    }
    format!(
        ", `kubectl delete upg{} {}` withdraws this",
        namespace(upgrade),
        name(&upgrade.object)
    )
}

fn namespace(upgrade: &Upgrade) -> String {
    let namespace = upgrade.object.metadata.namespace.as_ref();
    namespace.map_or_else(String::new, |namespace| format!(" -n {namespace}"))
}

/// What an environment says itself of why it is not ready.
fn not_ready(environment: &DynamicObject) -> String {
    let all = environment.data["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut ready = all.filter(|c| c["type"] == "Ready" && c["status"] == "False");
    let of_now = ready.find(|c| c["observedGeneration"].as_i64() == Some(generation(environment)));
    let words = of_now.and_then(|c| Some((c["reason"].as_str()?, c["message"].as_str()?)));
    words.map_or_else(String::new, |(reason, message)| {
        format!(" ({reason}: {})", in_one_line(message))
    })
}

/// A Build that is deleted goes once no open upgrade names it: it may have to be gone back from.
pub(super) fn of_build(build: &DynamicObject, wanted: Wanted) -> Option<Act<'_>> {
    let is_done = is_deleted(build) && is_kept(build) && wanted == Wanted::ByNobody;
    is_done.then_some(Act::LetGo(Kind::Build, build))
}

impl There {
    /// Whether an open upgrade waits for nothing but its turn.
    fn may_go_on(&self, upgrade: &Upgrade) -> bool {
        !upgrade.status.phase.is_final() && self.builds.contains_key(&upgrade.spec.build)
    }
}

fn is_under_way(upgrade: &Upgrade) -> bool {
    upgrade.status.phase != Phase::Pending && !upgrade.status.phase.is_final()
}

fn is_kept_from_its_owner(upgrade: &Upgrade) -> bool {
    upgrade.status.phase.is_final() && !upgrade.status.is_over()
}

/// Whether an attempt was made to bring it up as it is stated now, and since somebody has asked for that. One that failed on a node is no reason to hold an upgrade: what
/// the others need may be one; nor is a node that it lists no more.
fn is_settled(object: &DynamicObject) -> bool {
    objects::is_answered(object) && matches!(came_to(object), Some("Up" | "NotUp" | NODES_MISSING))
}

/// Whether every node was brought up as it is stated now, and since somebody has asked for that.
pub(super) fn is_up(object: &DynamicObject) -> bool {
    objects::is_answered(object) && came_to(object) == Some("Up")
}

/// What came of it as it is stated now.
fn came_to(object: &DynamicObject) -> Option<&str> {
    let all = object.data["status"]["conditions"].as_array()?;
    let ready = all.iter().find(|c| c["type"] == "Ready")?;
    let is_of_now = ready["observedGeneration"].as_i64() == Some(generation(object));
    ready["reason"].as_str().filter(|_| is_of_now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::objects::FINALIZER;
    use crate::model::upgrade::UpgradeStatus;
    use crate::rollout::NOBODY_REACHED;

    /// An object of the second generation. `kept` has our finalizer, `deleted` is to go.
    fn object(kind: Kind, name: &str, words: &str, mut parts: Value) -> DynamicObject {
        let has = |word: &str| words.split(' ').any(|w| w == word);
        let resource = kind.resource();
        parts["apiVersion"] = json!(resource.api_version);
        parts["kind"] = json!(resource.kind);
        parts["metadata"] = json!({"name": name, "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"});
        if has("kept") {
            parts["metadata"]["finalizers"] = json!([FINALIZER]);
        }
        if kind == Kind::Environment && (has("asked") || has("answered")) {
            parts["metadata"]["annotations"] = json!({objects::RECONCILE_AT: "noon"});
        }
        if has("deleted") {
            parts["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
        }
        serde_json::from_value(parts).expect("an object")
    }

    /// `Up`, `NotUp` and so on are how it stands; `before` says that of its generation before. `asked` is one that somebody has asked to be
    /// brought up again, and `answered` one for whom that was done. `replica` stands, `over` is one whose
    /// time is over.
    fn environment(words: &str) -> Arc<DynamicObject> {
        let (mut status, mut spec) = (json!({}), Value::Null);
        let mut of = 2;
        let web = |version: &str| json!({"name": "web", "source": {"images": {"digests": {version: "sha256:0"}}}});
        for word in words.split(' ') {
            match word {
                "before" => of = 1,
                "answered" => status["lastHandledReconcileAt"] = json!("noon"),
                "with1" => spec = json!({"components": [web("1")]}),
                "with2" => spec = json!({"components": [{"name": "db"}, web("2")]}),
                "pods" => spec = json!({"components": [{"name": "db"}, {"name": "web", "statefulSet": {}}]}),
                "with0" => spec = json!({"components": [{"name": "db"}]}),
                "files" => spec = json!({"components": [{"name": "web", "source": {"directory": "builds"}}]}),
                "copy" => spec = json!({"replicaOf": "base", "components": [{"name": "db"}]}),
                "replica" => status["replica"] = json!({}),
                "over" => status["replica"] = json!({"expiresAt": "1970-01-01T00:00:01Z"}),
                _ => {}
            }
        }
        if let Some(reason) = words.split(' ').find(|word| word.starts_with(char::is_uppercase)) {
            let is_up = if reason == "Up" { "True" } else { "False" };
            let ready = json!({"type": "Ready", "status": is_up, "reason": reason, "message": "n1\n  is away", "observedGeneration": of});
            status["conditions"] = json!([ready]);
        }
        Arc::new(object(
            Kind::Environment,
            "shop",
            words,
            json!({"spec": spec, "status": status}),
        ))
    }

    /// `first: Pending abort` is an upgrade of that name; with `asked` somebody has asked for something since.
    fn upgrade(words: &str) -> Upgrade {
        let (name, words) = words.split_once(": ").expect("a name");
        let has = |word: &str| words.split(' ').any(|w| w == word);
        let phase = words
            .split(' ')
            .find(|word| word.starts_with(char::is_uppercase))
            .expect("a phase");
        let mut status = json!(UpgradeStatus::new(Timestamp::UNIX_EPOCH));
        status["phase"] = json!(phase);
        status["observedGeneration"] = json!(if has("asked") { 1 } else { 2 });
        if has("away") {
            status["reason"] = json!(NOBODY_REACHED);
            status["resumeTo"] = json!("RollingBack");
        }
        if has("keeps") {
            status["kept"] = if has("refused") {
                json!({"why": "not now"})
            } else {
                json!({})
            };
        }
        let spec = json!({
            "environment": "shop", "component": if has("other") { "front" } else { "web" }, "build": "web-2", "user": "tester",
            "wish": if has("abort") { "abort" } else { "proceed" },
        });
        let words = if has("new") {
            words.to_owned()
        } else {
            format!("{words} kept")
        };
        let object = object(Kind::Upgrade, name, &words, json!({"spec": spec, "status": status}));
        Upgrade::read(object).expect("an upgrade")
    }

    /// `Driving first`, `BringingUp` and so on are under way; `failed` is one that is tried again later, `kept lately` a replica that was
    /// looked after a moment ago, `files` one whose files are to be read, and `to drive` one that waits for a place for that.
    fn standing(words: &str) -> Standing {
        let has = |word: &str| words.contains(word);
        let driven = words.strip_prefix("Driving ").map(|upgrade| Task::Driving {
            upgrade: upgrade.to_owned(),
            stage: Stage::New,
        });
        let bringing = has("BringingUp").then_some(Task::BringingUp(Version {
            generation: 2,
            reconcile_at: None,
            templates: None,
        }));
        Standing {
            task: driven.or(bringing),
            may_begin: if has("failed") {
                MayBegin::Later
            } else if has("not given back") {
                MayBegin::AllButGivingBack
            } else {
                MayBegin::Now
            },
            keep: if has("kept lately") { Keep::Later } else { Keep::Due },
            waits_in: [
                ("to come up", Lane::BringUp),
                ("to drive", Lane::Drive),
                ("to keep", Lane::Keep),
            ]
            .into_iter()
            .filter_map(|(words, lane)| has(words).then_some(lane))
            .collect(),
            depth: if has("files") { Depth::Files } else { Depth::Objects },
        }
    }

    fn said(act: &Act<'_>) -> String {
        match act {
            Act::Hold(kind, object) => format!("hold {kind:?} {}", name(object)),
            Act::LetGo(kind, object) => format!("let go {kind:?} {}", name(object)),
            Act::TellEnvironment { reason, message: _ } => format!("it is told {reason}"),
            Act::NoteEnvironment { reason, .. } => format!("it is noted {reason}"),
            Act::TellUpgrade {
                upgrade,
                reason,
                message: _,
            } => format!("{} is told {reason}", name(&upgrade.object)),
            Act::TellUnreadable { object, why: _ } => format!("{} is told Unreadable", name(object)),
            Act::EndUnbegun(upgrade) => format!("{} ends", name(&upgrade.object)),
            Act::Refuse { upgrade, reason, .. } => format!("{} is refused {reason}", name(&upgrade.object)),
            Act::Finish(upgrade) => format!("{} is finished", name(&upgrade.object)),
            Act::Begin(Task::Driving { upgrade, stage }) => match stage {
                Stage::Begun => format!("Driving {upgrade} on"),
                Stage::New => format!("Driving {upgrade}"),
            },
            Act::Begin(Task::GivingBack(upgrades)) => format!("GivingBack {}", upgrades.join(" and ")),
            Act::Begin(task) => format!("{task:?}"),
            Act::Read { then_bring_up, queue } => {
                let then = then_bring_up.as_ref().map(|of| format!(" and BringingUp({of:?})"));
                let waits = match queue {
                    Queue::None => "",
                    Queue::Waits => ", told WaitsForPlace",
                };
                format!("read{}{waits}", then.unwrap_or_default())
            }
        }
    }

    /// What a look finds to do, as a leader does it: where the environment itself asks for a task, no upgrade is begun.
    fn looked(stands: Option<&str>, upgrades: &[&str], build: Option<&str>, under_way: &str) -> String {
        let build = build.map(|words| Arc::new(object(Kind::Build, "web-2", words, json!({}))));
        let (unreadable, readable): (Vec<&str>, Vec<&str>) =
            upgrades.iter().partition(|words| words.ends_with(": unreadable"));
        let unreadable = unreadable.iter().map(|words| {
            let name = words.split(':').next().unwrap_or_default();
            let object = object(Kind::Upgrade, name, "kept", json!({}));
            (Arc::new(object), "why".to_owned())
        });
        let there = There {
            environment: "shop".to_owned(),
            object: stands.map(environment),
            upgrades: readable.iter().map(|words| upgrade(words)).collect(),
            unreadable: unreadable.collect(),
            builds: build.map(|build| ("web-2".to_owned(), build)).into_iter().collect(),
            now: Timestamp::from_second(1_000).expect("in range"),
        };
        let mut standing = standing(under_way);
        let of_it = of_environment(&there, &standing);
        match of_it.last() {
            Some(Act::Begin(task)) => standing.task = Some(task.clone()),
            Some(Act::Read {
                then_bring_up: Some(of),
                queue: _,
            }) => standing.task = Some(Task::BringingUp(of.clone())),
            Some(_) | None => {}
        }
        let of_upgrades = of_upgrades(&there, &standing);
        let all: Vec<String> = of_it.iter().chain(&of_upgrades).map(said).collect();
        if all.is_empty() {
            "nothing".to_owned()
        } else {
            all.join(", ")
        }
    }

    /// Rows of: how the environment stands | its upgrades | their build | what is under way | what is done and said. With `-` there is none.
    fn check(rows: &str) {
        for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let columns: Vec<&str> = row.split('|').map(str::trim).collect();
            let [environment, upgrades, build, under_way, expected] = columns[..] else {
                panic!("five columns: {row}")
            };
            let environment = Some(environment).filter(|words| *words != "-");
            let build = Some(build).filter(|words| *words != "-");
            let upgrades: Vec<&str> = upgrades.split(", ").filter(|words| *words != "-").collect();
            let found = looked(environment, &upgrades, build, under_way);
            assert_eq!(found, expected, "{row}");
        }
    }

    #[test]
    fn what_an_environment_asks_for() {
        check(
            "
            -                  | -                 | -    | -          | nothing
            new                | -                 | -    | -          | hold Environment shop
            kept               | -                 | -    | -          | read and BringingUp(2)
            kept               | -                 | -    | BringingUp | nothing
            kept               | -                 | -    | failed     | nothing
            kept               | -                 | -    | to come up | read and BringingUp(2), told WaitsForPlace
            kept               | -                 | -    | to drive   | read and BringingUp(2)
            kept NotUp         | -                 | -    | to come up | read and BringingUp(2)
            kept Up            | -                 | -    | -          | nothing
            kept Up            | -                 | -    | files      | read
            kept Up before     | -                 | -    | -          | read and BringingUp(2)
            kept NotUp         | -                 | -    | -          | read and BringingUp(2)
            kept Invalid       | -                 | -    | -          | read and BringingUp(2)
            kept NodesMissing  | -                 | -    | -          | read and BringingUp(2)
            kept WaitsForPlace | -                 | -    | -          | read and BringingUp(2)
            ",
        );
        // What one that failed needs may be the upgrade that waits; and nodes are an upgrade's until that has ended.
        check(
            "
            kept NotUp         | first: Pending    | kept | -          | read, Driving first
            kept NotUp         | first: Pending    | -    | -          | read and BringingUp(2), first is told BuildMissing
            kept               | first: Pending    | kept | -          | read and BringingUp(2), first is told EnvironmentNotReady
            kept               | first: Pending    | kept | BringingUp | first is told EnvironmentNotReady
            kept NodesMissing  | first: Pending    | kept | -          | read, Driving first
            kept Up before     | first: Rolling    | kept | -          | read, Driving first on
            kept Up before     | first: Paused     | kept | -          | read
            ",
        );
    }

    #[test]
    fn what_is_asked_for_again_is_done_once_and_by_whoever_leads() {
        check(
            "
            kept Up asked          | -              | -    | -              | read and BringingUp(2 as asked at noon)
            kept Up asked          | -              | -    | BringingUp     | nothing
            kept Up answered       | -              | -    | -              | nothing
            kept Up asked replica  | -              | -    | -              | read and BringingUp(2 as asked at noon)
            kept Up answered pods  | -              | -    | -              | Keeping
            kept Up before asked   | -              | -    | -              | read and BringingUp(2 as asked at noon)
            kept NotUp asked       | -              | -    | to come up     | read and BringingUp(2 as asked at noon), told WaitsForPlace
            kept NotUp answered    | -              | -    | failed         | nothing
            kept Expired asked     | -              | -    | -              | nothing
            kept Up asked          | first: Rolling | kept | -              | read, Driving first on
            kept Up asked          | first: Paused  | kept | -              | read
            kept Up asked          | first: Pending | kept | -              | read and BringingUp(2 as asked at noon), first is told EnvironmentNotReady
            kept Up answered       | first: Pending | kept | -              | Driving first
            deleted kept Up asked  | -              | -    | -              | let go Environment shop
            ",
        );
    }

    #[test]
    fn what_a_replica_asks_for() {
        check(
            "
            kept Up replica         | -              | -    | -           | Keeping
            kept Up replica         | -              | -    | kept lately | nothing
            kept Up replica         | first: Paused  | kept | -           | nothing
            kept Up pods            | -              | -    | -           | Keeping
            kept Up pods            | -              | -    | kept lately | nothing
            kept Up pods            | -              | -    | to keep     | Keeping
            kept Up pods            | first: Paused  | kept | -           | nothing
            kept Up with1           | -              | -    | -           | nothing
            kept NotUp over         | -              | -    | -           | Keeping
            kept NotUp over         | -              | -    | kept lately | nothing
            kept Up over            | first: Rolling | kept | -           | Driving first on
            kept Expired            | -              | -    | -           | nothing
            kept Expired before     | -              | -    | -           | read and BringingUp(2)
            deleted kept Up replica | -              | -    | -           | TakingDown(2)
            deleted kept Up replica | -              | -    | failed      | nothing
            kept Up replica              | - | - | to keep            | it is noted WaitsForPlace, Keeping
            kept Up replica              | - | - | to drive           | Keeping
            kept NotUp over              | - | - | to keep            | it is noted WaitsForPlace, Keeping
            kept Up replica              | - | - | to keep kept lately | nothing
            deleted kept Up replica      | - | - | to keep            | it is told WaitsForPlace, TakingDown(2)
            deleted kept NotDown replica | - | - | to keep            | TakingDown(2)
            ",
        );
    }

    #[test]
    fn what_is_deleted_goes_once_nothing_of_it_is_open() {
        check(
            "
            deleted kept Up | -                         | -    | -             | let go Environment shop
            deleted Up      | -                         | -    | -             | nothing
            deleted kept Up | first: Rolling            | kept | -             | it is told WaitsForUpgrade, Driving first on
            deleted kept Up | first: Pending            | kept | -             | it is told WaitsForUpgrade, first is told EnvironmentDeleted
            kept Up         | first: Pending deleted    | kept | -             | let go Upgrade first
            kept Up         | first: Rolling deleted    | kept | -             | Driving first on
            kept Up         | first: Pending deleted    | kept | Driving first | nothing
            kept Up         | first: RolledBack deleted | kept | -             | first is finished
            -               | first: Succeeded deleted  | -    | -             | first is finished
            ",
        );
        let of = |words: &str, wanted| {
            let build = object(Kind::Build, "web-2", words, json!({}));
            of_build(&build, wanted).is_some()
        };
        assert!(of("deleted kept", Wanted::ByNobody));
        assert!(!of("deleted kept", Wanted::ByUpgrade));
        assert!(!of("deleted", Wanted::ByNobody) && !of("kept", Wanted::ByNobody));
    }

    #[test]
    fn an_upgrade_says_whom_it_waits_for_and_what_that_one_does() {
        let told = |stands: &str, upgrades: &[&str]| {
            let there = There {
                environment: "shop".to_owned(),
                object: Some(environment(stands)),
                upgrades: upgrades.iter().map(|words| upgrade(words)).collect(),
                unreadable: Vec::new(),
                builds: BTreeMap::new(),
                now: Timestamp::from_second(1_000).expect("in range"),
            };
            let acts = of_upgrades(&there, &standing("not given back"));
            let Some(Act::TellUpgrade { message, .. }) = acts.into_iter().next() else {
                panic!("{stands} {upgrades:?}: nothing is told")
            };
            message
        };
        for (stands, upgrades, message) in [
            (
                "kept Up",
                &["first: Succeeded keeps", "second: Pending"][..],
                "it waits until web of environment shop is given back to its owner by upgrade first, which has ended; that is under way",
            ),
            (
                "kept Up",
                &["first: Succeeded keeps refused", "second: Pending"],
                "it waits until web of environment shop is given back to its owner by upgrade first, which has ended; its condition GivenBack \
                 says why it is not yet",
            ),
            (
                "kept Up",
                &["first: Rolling", "second: Pending other"],
                "there is no Build web-2; it waits for it",
            ),
            (
                "kept ExpireRefused over",
                &["first: Pending"],
                "the time of Environment shop is over, and its replica could not be taken down; it waits for one that is stated anew",
            ),
            (
                "kept Expired",
                &["first: Pending"],
                "the time of Environment shop is over; it waits for one that is stated anew",
            ),
            (
                "kept",
                &["first: Pending"],
                "it waits for Environment shop to be brought up",
            ),
        ] {
            // Who has to wait for what somebody else makes is told how, too.
            let told = told(stands, upgrades);
            assert!(told.starts_with(message), "{told}");
        }
    }

    #[test]
    fn what_upgrades_ask_for() {
        check(
            "
            kept Up | first: Pending       | kept         | -             | Driving first
            kept Up | first: Pending       | kept         | failed        | nothing
            kept Up | first: Pending       | kept         | Driving first | nothing
            kept Up | first: Pending       | kept         | to drive      | first is told WaitsForPlace, Driving first
            kept Up | first: Pending       | kept         | to keep       | Driving first
            kept Up | first: Pending new   | kept         | -             | hold Upgrade first
            kept Up | first: Pending       | new          | -             | hold Build web-2
            kept Up | first: Pending abort | kept         | -             | first ends
            kept Up | first: Pending abort | kept         | Driving first | nothing
            kept Up | first: Rolling abort | kept         | -             | Driving first on
            kept Up | first: Succeeded     | kept         | -             | first is finished
            kept Up | first: Succeeded     | kept         | Driving first | nothing
            ",
        );
        // What one has kept of a workload is given back before it goes, and before another one has it.
        check(
            "
            kept Up         | first: Succeeded keeps                  | kept | -      | GivingBack first
            kept Up         | first: Succeeded keeps                  | kept | failed | nothing
            kept Up         | first: Succeeded keeps, second: Pending | kept | -      | GivingBack first, second is told WaitsForGivingBack
            kept Up         | first: Succeeded keeps deleted          | kept | -      | GivingBack first
            kept Up replica | first: Succeeded keeps                  | kept | -      | GivingBack first
            deleted kept Up | first: Succeeded keeps                  | kept | -      | it is told WaitsForGivingBack, GivingBack first
            -               | first: Succeeded keeps deleted          | -    | -      | first is finished
            ",
        );
        // And nobody waits for that but who asks for the same component.
        check(
            "
            kept Up | first: Succeeded keeps, second: Pending other                       | kept | -              | GivingBack first
            kept Up | first: Succeeded keeps, second: Pending other                       | kept | not given back | Driving second
            kept Up | first: Succeeded keeps, second: Pending                             | kept | not given back | second is told WaitsForGivingBack
            kept Up | first: Succeeded keeps, second: Pending, third: Pending other       | kept | not given back | second is told WaitsForGivingBack, Driving third
            kept Up | first: Succeeded keeps, second: Pending, third: Rolling other       | kept | Driving third  | second is told WaitsForGivingBack
            kept Up | first: Succeeded keeps, second: Pending other, third: Pending other | kept | not given back | Driving second, third is told WaitsForUpgrade
            kept Up | first: Succeeded keeps, second: Pending other                       | kept | failed         | nothing
            kept Up | first: Succeeded keeps, second: RolledBack keeps other              | kept | -              | GivingBack first and second
            kept NotUp | first: Succeeded keeps                                           | kept | not given back | read and BringingUp(2)
            ",
        );
        // Nor does what the environment is stated to be by now wait for it, but for objects of a replica.
        check(
            "
            kept Up before | first: Succeeded keeps                         | kept | -              | read, GivingBack first
            kept Up before | first: Succeeded keeps                         | kept | not given back | read and BringingUp(2)
            kept Up before | first: Succeeded keeps                         | kept | failed         | nothing
            kept Up before | first: Succeeded keeps, second: Pending other  | kept | not given back | read and BringingUp(2), second is told EnvironmentNotReady
            kept Up before | first: Succeeded keeps, second: Rolling other  | kept | not given back | read, Driving second on
            kept NotUp     | first: Succeeded keeps, second: Pending other  | kept | not given back | read, Driving second
            kept Up before replica | first: Succeeded keeps                 | kept | not given back | it is told WaitsForGivingBack
            kept Up before replica | first: Succeeded keeps                 | kept | -              | it is told WaitsForGivingBack, GivingBack first
            ",
        );
        // What is held stays so until somebody asks for it; what is missing is waited for and said.
        check(
            "
            kept Up      | first: Paused       | kept         | -      | nothing
            kept Up      | first: Paused asked | kept         | -      | Driving first on
            kept Up      | first: Paused away  | kept         | -      | Driving first on
            kept Up      | first: Paused abort | kept         | -      | Driving first on
            -            | first: Pending      | kept         | -      | first is told EnvironmentMissing
            -            | first: Rolling      | kept         | -      | first is told EnvironmentMissing
            kept Invalid | first: Pending      | kept         | failed | first is told EnvironmentNotReady
            kept Expired | first: Pending      | kept         | -      | first is told EnvironmentNotReady
            kept Up      | first: Pending      | -            | -      | first is told BuildMissing
            kept Up      | first: Pending      | deleted kept | -      | first is told BuildDeleted
            kept Up      | first: Rolling      | deleted kept | -      | Driving first on
            ",
        );
        // What the environment states nowhere is waited for by nobody.
        check(
            "
            kept Up with1    | first: Pending | -    | - | first is refused NoSuchVersion
            kept NotUp with1 | first: Pending | -    | - | read and BringingUp(2), first is refused NoSuchVersion
            kept Up with1    | first: Pending | kept | - | Driving first
            kept Up with1    | first: Rolling | -    | - | first is told BuildMissing
            kept Up with2    | first: Pending | -    | - | first is told BuildMissing
            kept Up files    | first: Pending | -    | - | first is told BuildMissing
            kept Up with0    | first: Pending | -    | - | first is refused NoSuchComponent
            kept Up with0    | first: Pending | kept | - | first is refused NoSuchComponent
            kept Up with0    | first: Rolling | kept | - | Driving first on
            kept Up copy     | first: Pending | -    | - | first is told BuildMissing
            kept Up with1    | a: Pending, b: Pending | -    | - | a is refused NoSuchVersion, b is told WaitsForUpgrade
            ",
        );
        // One after the other: who was begun, then who is older.
        check(
            "
            kept Up | a: Pending, b: Pending, c: Rolling | kept | - | Driving c on, a is told WaitsForUpgrade, b is told WaitsForUpgrade
            kept Up | a: Pending new, b: Pending         | kept | - | hold Upgrade a, b is told WaitsForUpgrade
            kept Up | a: Pending abort, b: Pending       | kept | - | a ends, Driving b
            ",
        );
        // One that cannot be read may be under way, so that nothing is done with its environment but to say so.
        check(
            "
            kept Up | first: unreadable, second: Pending | kept | -          | it is told UpgradeUnreadable, first is told Unreadable
            kept Up | first: unreadable                  | kept | BringingUp | first is told Unreadable
            kept Expired | first: unreadable             | kept | -          | first is told Unreadable
            -       | first: unreadable                  | kept | -          | first is told Unreadable
            ",
        );
    }

    #[test]
    fn who_waits_says_for_what_and_how_that_comes_or_is_withdrawn() {
        let upgrade = upgrade("first: Pending");
        let said = |words: &str| build_missing(&upgrade, Some(&environment(words)));
        assert_eq!(
            said("files"),
            "there is no Build web-2; it waits for it: where the files of shop lie, `stagegate build manifest shop web=2 | kubectl apply \
             -f -` makes it, `kubectl delete upg first` withdraws this"
        );
        assert!(said("with2").contains("`stagegate upgrade shop --build web=2` makes it"));
        assert_eq!(not_ready(&environment("NotUp")), " (NotUp: n1 is away)");
        assert_eq!(
            not_ready(&environment("NotUp before")),
            "",
            "it is stated otherwise by now"
        );
        assert_eq!(not_ready(&environment("Up")), "");
    }
}

//! What runs in an environment whose pods are its owner's: a change that somebody made past us, as in an emergency, is told, and nothing
//! of it is undone. A replica's objects are another matter ([`super::keeper`]).

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::events::EventType;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::heard::Which;
use super::leader::{Leader, Trouble};
use super::statuses::{LONGEST_MESSAGE, condition, shortened, status_of};
use crate::cluster::objects::{ATTEMPTS, Kind, Upgrade, generation, name, patiently, set_condition, write_status};
use crate::engine::builds;
use crate::engine::delivery;
use crate::engine::fleet::{Fleet, Place};
use crate::hosts::{Host as _, HostError, NodeSight};
use crate::model::build::BuildSpec;
use crate::model::environment::{Component, HostRef};
use crate::model::upgrade::{Event, Severity};
use crate::model::values::Digest;
use crate::store::build::ConditionStatus;

/// The condition that says whether what runs is what was left.
const SYNCED: &str = "Synced";
/// Why it does not hold.
const OUT_OF_SYNC: &str = "OutOfSync";
/// Nodes that a message names.
const MOST_NAMED: usize = 10;

/// What a component was left on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Left {
    /// One, unless nodes were left out of an upgrade.
    builds: BTreeSet<Digest>,
    /// The upgrade that has left it so; none where it was found so after it had been brought up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    at: Timestamp,
}

/// By component.
pub(super) type AllLeft = BTreeMap<String, Left>;

/// What a look at a node showed.
type Sight = Result<NodeSight, HostError>;

/// Whether the pods of an environment are to be looked at now and then.
pub(super) fn has_pods(environment: &DynamicObject) -> bool {
    let spec = &environment.data["spec"];
    let all = spec["components"].as_array().into_iter().flatten();
    spec["replicaOf"].is_null()
        && all
            .into_iter()
            .any(|c| c["statefulSet"].is_object() || c["deployment"].is_object())
}

/// What is known of how components were left: the newest word of each, for an upgrade may be deleted once it has ended.
fn newest(mut known: AllLeft, ended: &[Upgrade]) -> AllLeft {
    for Upgrade {
        object, spec, status, ..
    } in ended
    {
        let builds: BTreeSet<Digest> = status.nodes.iter().filter_map(|node| node.build).collect();
        let Some(at) = status.finished_at.filter(|_| !builds.is_empty()) else {
            continue;
        };
        if known.get(&spec.component).is_none_or(|known| known.at < at) {
            let by = Some(name(object).to_owned());
            known.insert(spec.component.clone(), Left { builds, by, at });
        }
    }
    known
}

/// How the pods of a component are otherwise than they were left. Where not all could be looked at, nobody knows.
fn otherwise(environment: &str, component: &Component, left: &Left, sights: &[(String, Sight)]) -> Option<String> {
    let mut on: BTreeMap<Digest, Vec<&str>> = BTreeMap::new();
    let mut said = BTreeSet::new();
    for (node, sight) in sights {
        match sight {
            Ok(NodeSight {
                unstated: Some(why), ..
            }) => {
                said.insert(why.clone());
            }
            Ok(sight) => {
                let running = sight.running.as_ref().and_then(|running| running.build);
                // One that comes up has what it is made with.
                let strange = running.or(sight.current).filter(|build| !left.builds.contains(build));
                if let Some(build) = strange {
                    on.entry(build).or_default().push(node);
                }
            }
            // It was reached, and is not as the environment states it.
            Err(why @ (HostError::Failed { .. } | HostError::Misstated { .. })) => {
                said.insert(why.to_string());
            }
            Err(HostError::Unreachable { .. } | HostError::Unserved { .. }) => return None,
            // A look asks for nothing that could be refused.
            Err(HostError::Fenced { .. } | HostError::ForeignHome { .. } | HostError::Refused { .. }) => {}
        }
    }
    let all: Vec<String> = left.builds.iter().map(|build| named(component, build)).collect();
    let whose = match &left.by {
        Some(upgrade) => format!("which upgrade {upgrade} left there"),
        None => "which ran there when it was brought up".to_owned(),
    };
    for (build, nodes) in on {
        let runs = named(component, &build);
        let wanted = |name: &str| name.replacen(&format!("{}-", component.name), &format!("{}=", component.name), 1);
        let back = all.first().map_or_else(String::new, |before| wanted(before));
        said.insert(format!(
            "{}{runs}, and not {}, {whose}; `stagegate upgrade {environment} --build {back}` goes back to that, `stagegate \
             upgrade {environment} --build {}` makes this what is meant",
            listed(&nodes),
            all.join(" or "),
            wanted(&runs)
        ));
    }
    (!said.is_empty()).then(|| said.into_iter().collect::<Vec<_>>().join("; "))
}

fn listed(nodes: &[&str]) -> String {
    let mut named: Vec<String> = nodes.iter().take(MOST_NAMED).map(|node| (*node).to_owned()).collect();
    if let Some(more) = nodes.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        named.push(format!("{more} more"));
    }
    format!(
        "{} {} ",
        named.join(", "),
        if nodes.len() == 1 { "runs" } else { "run" }
    )
}

/// A build as its component states it, else by its digest.
fn named(component: &Component, build: &Digest) -> String {
    let stated = builds::of_images(component);
    let known = stated.iter().find(|stated| stated.digest == *build);
    known.map_or_else(|| format!("{} {}", component.name, build.short()), BuildSpec::name)
}

fn is_pod(place: &Place) -> bool {
    matches!(place.site.host, Some(HostRef::Pod(_)))
}

impl Leader {
    /// Looks at what runs in an environment at which nobody is at work.
    pub(super) async fn look_at_pods(&self, fleet: &Fleet) -> Result<(), Trouble> {
        let environment = &fleet.environment.name;
        let Some(object) = self.fresh(Kind::Environment, environment).await? else {
            return Ok(());
        };
        let known = object.data["status"]["left"].clone();
        // One of another version is found anew.
        let known: AllLeft = serde_json::from_value(known).unwrap_or_default();
        let all = self.heard.upgrades_of(environment, Which::All);
        let read = all.iter().filter_map(|object| Upgrade::read((**object).clone()).ok());
        let ended: Vec<Upgrade> = read.filter(|upgrade| upgrade.status.phase.is_final()).collect();
        let mut left = newest(known, &ended);
        left.retain(|component, _| fleet.environment.component(component).is_some());
        let (mut said, mut is_whole) = (Vec::new(), true);
        for component in &fleet.environment.spec.components {
            let places: Vec<&Place> = fleet
                .places(&component.name)
                .iter()
                .filter(|place| is_pod(place))
                .collect();
            if places.is_empty() || component.source.is_none() {
                continue;
            }
            let looks = join_all(places.iter().map(|place| place.host.observe(&place.address, &[]))).await;
            let sights: Vec<(String, Sight)> = places.iter().map(|place| place.site.name.clone()).zip(looks).collect();
            is_whole &= sights.iter().all(|(_, sight)| sight.is_ok());
            let found: BTreeSet<Digest> = sights.iter().filter_map(|(_, s)| s.as_ref().ok()?.current).collect();
            let component_left = left.entry(component.name.clone()).or_insert_with(|| Left {
                builds: found,
                by: None,
                at: Timestamp::now(),
            });
            said.extend(otherwise(environment, component, component_left, &sights));
        }
        // Of what could not be looked at nothing is said: it stays as it was said last.
        if said.is_empty() && !is_whole {
            return Ok(());
        }
        // One that nothing was found on has not been found yet.
        left.retain(|_, left| !left.builds.is_empty());
        self.tell_synced(fleet, generation(&object), &left, &said.join("; "))
            .await
    }

    /// Says whether what runs is what was left, and an event of it where that is news.
    async fn tell_synced(&self, fleet: &Fleet, of: i64, left: &AllLeft, otherwise: &str) -> Result<(), Trouble> {
        let environment = &fleet.environment.name;
        let told = shortened(&self.in_cluster(otherwise), LONGEST_MESSAGE);
        let is_synced = told.is_empty();
        let synced = if is_synced {
            condition(SYNCED, ConditionStatus::True, SYNCED, "pods run what was left there")
        } else {
            condition(SYNCED, ConditionStatus::False, OUT_OF_SYNC, &told)
        };
        let api = self.api(Kind::Environment);
        for _ in 0..ATTEMPTS {
            let Some(object) = self.fresh(Kind::Environment, environment).await? else {
                return Ok(());
            };
            let (before, mut status) = (status_of(&object), status_of(&object));
            let mut all: Vec<Value> = before["conditions"].as_array().cloned().unwrap_or_default();
            let had = all.iter().find(|c| c["type"] == SYNCED).cloned().unwrap_or_default();
            set_condition(&mut all, of, synced.clone());
            status["conditions"] = json!(all);
            status["left"] = json!(left);
            if status == before {
                return Ok(());
            }
            match patiently(|| write_status(&api, &object, status.clone())).await {
                Err(why) if why.is_conflict() => continue,
                written => written.map(|_| ())?,
            }
            let is_news = if is_synced {
                had["status"] == "False"
            } else {
                had["message"] != told.as_str()
            };
            if is_news {
                let (severity, kind, reason) = if is_synced {
                    (Severity::Step, EventType::Normal, SYNCED)
                } else {
                    (Severity::Alert, EventType::Warning, OUT_OF_SYNC)
                };
                let message = if is_synced {
                    "pods run what was left there"
                } else {
                    told.as_str()
                };
                let news = Event {
                    at: Timestamp::now(),
                    reason: reason.to_owned(),
                    severity,
                    node: None,
                    message: message.to_owned(),
                };
                delivery::append(&self.home, fleet, &self.me, std::slice::from_ref(&news))?;
                (self.tell)(&format!("{environment}: {message}"));
                self.publish(&object, Kind::Environment, kind, reason, message).await;
            }
            return Ok(());
        }
        Err(Trouble::Contended(format!("Environment {environment}")))
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;
    use crate::hosts::RunningService;

    fn digest(letter: &str) -> Digest {
        Digest::from_str(&format!("sha256:{}", letter.repeat(64))).expect("a digest")
    }

    fn component() -> Component {
        let digests = json!({"1": digest("1"), "2": digest("2")});
        let stated =
            json!({"name": "web", "nodes": [], "source": {"images": {"repository": "r/web", "digests": digests}}});
        serde_json::from_value(stated).expect("a component")
    }

    fn build(version: &str) -> Digest {
        let all = builds::of_images(&component());
        let found = all.iter().find(|build| build.version == version);
        found.map_or_else(|| digest("f"), |build| build.digest)
    }

    /// `1 2` runs 1 and is to be made with 2; `- 2` does not run.
    fn sight(words: &str) -> Sight {
        let away = |why: &str| ("shop".to_owned(), "look at it".to_owned(), why.to_owned());
        match words {
            "away" => {
                let (host, tried, why) = away("no answer");
                Err(HostError::Unserved { host, tried, why })
            }
            "scaled" => {
                let (host, tried, why) = away("it has 5 replicas");
                Err(HostError::Failed { host, tried, why })
            }
            "unstated" => Ok(NodeSight {
                unstated: Some("image r:x is no build".to_owned()),
                ..NodeSight::default()
            }),
            words => {
                let (runs, goal) = words.split_once(' ').expect("two words");
                Ok(NodeSight {
                    current: Some(build(goal)),
                    running: (runs != "-").then(|| RunningService {
                        build: Some(build(runs)),
                        pid: 1,
                        started_at: Timestamp::UNIX_EPOCH,
                    }),
                    ..NodeSight::default()
                })
            }
        }
    }

    #[test]
    fn what_runs_otherwise_than_it_was_left_is_told_by_node_and_build() {
        let left = Left {
            builds: [build("2")].into(),
            by: Some("to-2".to_owned()),
            at: Timestamp::UNIX_EPOCH,
        };
        let said = |words: &[&str]| {
            let named = words.iter().enumerate();
            let sights: Vec<_> = named.map(|(i, words)| (format!("web-{i}"), sight(words))).collect();
            otherwise("shop", &component(), &left, &sights).unwrap_or_default()
        };
        for (words, expected) in [
            (&["2 2", "2 2"][..], ""),
            (&["- 2", "2 2"], ""),
            // Nobody knows.
            (&["1 1", "away"], ""),
            (&["scaled"], "shop: cannot look at it: it has 5 replicas"),
            (&["unstated", "unstated"], "image r:x is no build"),
        ] {
            assert_eq!(said(words), expected, "{words:?}");
        }
        let told = said(&["1 1", "2 2", "- 1"]);
        assert!(
            told.starts_with(
                "web-0, web-2 run web-1, and not web-2, which upgrade to-2 left there; `stagegate upgrade shop --build \
                              web=2` goes back to that, `stagegate upgrade shop --build web=1` makes"
            ),
            "{told}"
        );
    }
}

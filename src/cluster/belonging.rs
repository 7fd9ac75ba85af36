//! Which object is whose. What a promotion or a rehearsal has made is found by its name, and names can be taken beforehand by whoever
//! may make objects: so nothing is believed to be theirs but what says so in words that an API server lets nobody else write
//! ([`super::admission`]), and is what would have been made.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;

use super::objects::{Kind, Upgrade, name, named, uid};
use super::promotions::Promotion;
use super::rehearsals::Rehearsal;
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::model::rehearsal::RehearsalSpec;

/// Whose an object is that has the name of one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// It is the one that was made, or is as it would be made.
    Its,
    /// It is not, and for as long as it is there ours cannot be: why, with what to do.
    Anothers(String),
}

impl Whose {
    fn of(owner: &DynamicObject, kind: Kind, object: &DynamicObject, otherwise: Result<(), String>) -> Self {
        match otherwise {
            Ok(()) => Self::Its,
            Err(why) => Self::Anothers(format!(
                "{} is not what {} would make now: {why}; where that was changed meanwhile, put it back, else `kubectl delete {} {}` makes room",
                named(object),
                named(owner),
                kind.resource().plural,
                name(object)
            )),
        }
    }
}

/// That an object goes with another one, which it is of.
#[must_use]
pub fn owned_by(kind: Kind, owner: &DynamicObject) -> OwnerReference {
    let resource = kind.resource();
    OwnerReference {
        api_version: resource.api_version,
        kind: resource.kind,
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// The object of a kind that one is of, by name and uid.
#[must_use]
pub fn owner(kind: Kind, object: &DynamicObject) -> Option<(&str, &str)> {
    let kind = kind.resource();
    let mut owners = object.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.kind == kind.kind && owner.api_version == kind.api_version)?;
    Some((&owner.name, &owner.uid))
}

fn is_owned(kind: Kind, of: &DynamicObject, object: &DynamicObject) -> Result<(), String> {
    match owner(kind, object) {
        Some((_, owner)) if owner == uid(of) => Ok(()),
        Some(_) | None => Err(format!("{} does not own it", named(of))),
    }
}

fn is_same(what: &str, is: &str, must: &str) -> Result<(), String> {
    if is == must {
        return Ok(());
    }
    Err(format!("its {what} is {is:?}, and would be {must:?}"))
}

/// Whether an object is the upgrade of a promotion on its way. It has no owner: what has happened is still there when the promotion is not.
#[must_use]
pub fn upgrade_of_promotion(promotion: &Promotion, pipeline: &PipelineSpec, stage: &Stage, upgrade: &Upgrade) -> Whose {
    let (asked, spec) = (&promotion.record, &upgrade.spec);
    let otherwise = is_same("name", name(&upgrade.object), &promotion.upgrade())
        .and_then(|()| is_same("promotion", spec.promotion.as_deref().unwrap_or_default(), &asked.name))
        .and_then(|()| is_same("environment", &spec.environment, &stage.environment))
        .and_then(|()| is_same("component", &spec.component, &pipeline.component))
        .and_then(|()| is_same("build", &spec.build, &asked.spec.build));
    Whose::of(&promotion.object, Kind::Upgrade, &upgrade.object, otherwise)
}

/// Whether an object is the upgrade of a rehearsal's run of a build, `COMPONENT=VERSION`.
#[must_use]
pub fn upgrade_of_rehearsal(rehearsal: &Rehearsal, build: &str, upgrade: &Upgrade) -> Whose {
    let (component, version) = build.split_once('=').unwrap_or((build, ""));
    let spec = &upgrade.spec;
    let otherwise = is_owned(Kind::Rehearsal, &rehearsal.object, &upgrade.object)
        .and_then(|()| is_same("environment", &spec.environment, &rehearsal.spec.environment))
        .and_then(|()| is_same("component", &spec.component, component))
        .and_then(|()| is_same("build", &spec.build, &format!("{component}-{version}")));
    Whose::of(&rehearsal.object, Kind::Upgrade, &upgrade.object, otherwise)
}

/// Whether an object is the rehearsal that is carried out for a promotion, as it is to be carried out now.
#[must_use]
pub fn rehearsal_of_promotion(promotion: &Promotion, wanted: &RehearsalSpec, rehearsal: &Rehearsal) -> Whose {
    let otherwise = is_owned(Kind::Promotion, &promotion.object, &rehearsal.object).and_then(|()| {
        if rehearsal.spec == *wanted {
            Ok(())
        } else {
            Err("it is not what is to be rehearsed now".to_owned())
        }
    });
    Whose::of(&promotion.object, Kind::Rehearsal, &rehearsal.object, otherwise)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::ledger::untold;
    use crate::cluster::objects::unique_name;

    fn object(kind: Kind, name: &str, uid: &str, spec: &Value) -> DynamicObject {
        let resource = kind.resource();
        let stated = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": name, "uid": uid}, "spec": spec,
        });
        serde_json::from_value(stated).expect("an object")
    }

    fn promotion() -> Promotion {
        let spec = json!({"pipeline": "web", "stage": "production", "build": "web-2", "user": "carol"});
        Promotion::read(object(Kind::Promotion, "web-2", "0123456789", &spec)).expect("a promotion")
    }

    fn rehearsal(owner: Option<OwnerReference>, spec: &Value) -> Rehearsal {
        let mut object = object(Kind::Rehearsal, "there", "abcdefghij", spec);
        object.metadata.owner_references = owner.map(|owner| vec![owner]);
        Rehearsal::read(object).expect("a rehearsal")
    }

    fn why(whose: Whose) -> Option<String> {
        match whose {
            Whose::Its => None,
            Whose::Anothers(why) => Some(why),
        }
    }

    #[test]
    fn an_upgrade_is_a_promotions_only_if_all_of_it_is() {
        let promotion = promotion();
        let pipeline = json!({"component": "web", "stages": [{"name": "production", "environment": "prod"}]});
        let pipeline: PipelineSpec = serde_json::from_value(pipeline).expect("a pipeline");
        let stage = &pipeline.stages[0];
        let is = |name: &str, change: Value| {
            let mut spec = json!({"environment": "prod", "component": "web", "build": "web-2", "user": "carol", "promotion": "web-2"});
            spec.as_object_mut()
                .expect("a map")
                .extend(change.as_object().cloned().expect("a map"));
            let upgrade = Upgrade::read(object(Kind::Upgrade, name, "u", &spec)).expect("an upgrade");
            let thread = untold(&upgrade).promotion;
            assert_eq!(thread.is_some(), spec["promotion"].is_string());
            if name == promotion.upgrade() {
                assert!(
                    thread.is_none() || thread == promotion.untold("prod", "web").promotion,
                    "one thread"
                );
            }
            why(upgrade_of_promotion(&promotion, &pipeline, stage, &upgrade))
        };
        let own = unique_name(&promotion.object);
        assert_eq!(is(&own, json!({})), None);
        let rows = [
            ("web-2", json!({}), "its name is"),
            (&own, json!({"promotion": Value::Null}), "its promotion is"),
            (&own, json!({"promotion": "web-3"}), "its promotion is"),
            (&own, json!({"environment": "staging"}), "its environment is"),
            (&own, json!({"component": "db"}), "its component is"),
            (&own, json!({"build": "web-bad"}), "its build is"),
        ];
        for (name, change, expected) in rows {
            let why = is(name, change.clone()).unwrap_or_default();
            assert!(
                why.contains(expected) && why.contains("kubectl delete upgrades"),
                "{change}: {why}"
            );
        }
    }

    #[test]
    fn what_a_rehearsal_shows_is_of_what_it_owns() {
        let run = |build: &str| json!({"environment": "staging", "runs": [{"build": build, "expect": {"phase": "Succeeded"}}]});
        let rehearsal = rehearsal(None, &run("web=2"));
        let is = |owner: Option<OwnerReference>, build: &str| {
            let spec = json!({"environment": "staging", "component": "web", "build": build, "user": "carol"});
            let mut object = object(Kind::Upgrade, "there-abcdefgh-0", "u", &spec);
            object.metadata.owner_references = owner.map(|owner| vec![owner]);
            let upgrade = Upgrade::read(object).expect("an upgrade");
            why(upgrade_of_rehearsal(&rehearsal, "web=2", &upgrade))
        };
        let own = owned_by(Kind::Rehearsal, &rehearsal.object);
        let other = OwnerReference {
            uid: "another".to_owned(),
            ..own.clone()
        };
        assert_eq!(is(Some(own.clone()), "web-2"), None);
        for (owner, build, expected) in [
            (None, "web-2", "does not own it"),
            (Some(other), "web-2", "does not own it"),
            (Some(own), "web-1", "its build is"),
        ] {
            let why = is(owner, build).unwrap_or_default();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_promotion_has_passed_only_the_rehearsal_that_it_has_made() {
        let promotion = promotion();
        let run = |build: &str| json!({"environment": "staging", "runs": [{"build": build, "expect": {"phase": "Succeeded"}}]});
        let wanted: RehearsalSpec = serde_json::from_value(run("web=2")).expect("a rehearsal");
        let own = owned_by(Kind::Promotion, &promotion.object);
        let is = |owner, build: &str| {
            why(rehearsal_of_promotion(
                &promotion,
                &wanted,
                &rehearsal(owner, &run(build)),
            ))
        };
        assert_eq!(is(Some(own.clone()), "web=2"), None);
        assert!(is(None, "web=2").is_some_and(|why| why.contains("does not own it")));
        assert!(is(Some(own), "web=1").is_some_and(|why| why.contains("not what is to be rehearsed")));
    }
}

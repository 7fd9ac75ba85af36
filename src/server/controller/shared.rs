//! Workloads that more than one environment states: their upgrades take turns there, and each takes the other's build for somebody else's
//! edit. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use kube::api::DynamicObject;

use crate::cluster::objects::{Upgrade, name};

/// What makes pods, as an environment states it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Workload {
    kind: &'static str,
    /// Namespace and name.
    place: String,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.place)
    }
}

/// An upgrade of another environment that has a workload of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) workload: Workload,
    pub(super) upgrade: String,
    pub(super) environment: String,
}

/// The workloads that an environment states.
pub(super) fn workloads(environment: &DynamicObject) -> BTreeSet<Workload> {
    stated(environment, |_| true)
}

fn stated(environment: &DynamicObject, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<Workload> {
    let components = environment.data["spec"]["components"].as_array().into_iter().flatten();
    let wanted = components.filter(|component| component["name"].as_str().is_some_and(&is_wanted));
    let stated = wanted.flat_map(|component| {
        [("StatefulSet", "statefulSet"), ("Deployment", "deployment")].map(|(kind, key)| (kind, &component[key]))
    });
    let named = stated.filter_map(|(kind, workload)| {
        let (namespace, name) = (workload["namespace"].as_str()?, workload["name"].as_str()?);
        let place = format!("{namespace}/{name}");
        Some(Workload { kind, place })
    });
    named.collect()
}

/// That another environment states a workload of this one, too.
pub(super) fn shared_with(own: &DynamicObject, others: impl Iterator<Item = Arc<DynamicObject>>) -> String {
    let ours = workloads(own);
    let mut told = String::new();
    for other in others.filter(|other| name(other) != name(own)) {
        for workload in workloads(&other).intersection(&ours) {
            let words = format!(
                "; {workload} is Environment {}'s, too: state it in one of them alone",
                name(&other)
            );
            told.push_str(&words);
        }
    }
    told
}

/// The upgrade of another environment that has what a component of this one is, or has not given it back yet.
pub(super) fn holder<'a>(
    own: &DynamicObject,
    component: &str,
    others: impl Iterator<Item = (&'a DynamicObject, &'a Upgrade)>,
) -> Option<Holder> {
    let ours = stated(own, |name| name == component);
    let mut held = others.filter_map(|(environment, upgrade)| {
        let theirs = stated(environment, |name| name == upgrade.spec.component);
        let workload = theirs.intersection(&ours).next()?.clone();
        Some(Holder {
            workload,
            upgrade: name(&upgrade.object).to_owned(),
            environment: name(environment).to_owned(),
        })
    });
    held.next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn environment(name: &str, key: &str, workload: &str) -> Arc<DynamicObject> {
        let stated = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": "Environment", "metadata": {"name": name},
            "spec": {"components": [{"name": "web", key: {"namespace": "shop", "name": workload}}]},
        });
        Arc::new(serde_json::from_value(stated).expect("an object"))
    }

    #[test]
    fn a_workload_that_two_environments_state_is_told() {
        let own = environment("shop", "statefulSet", "web");
        let told = |others: Vec<Arc<DynamicObject>>| shared_with(&own, others.into_iter());
        let others = vec![
            environment("shop", "statefulSet", "web"),
            environment("other", "statefulSet", "db"),
            environment("front", "deployment", "web"),
        ];
        assert_eq!(told(others), "", "itself, another name, another kind");
        assert_eq!(
            told(vec![environment("copy", "statefulSet", "web")]),
            "; StatefulSet shop/web is Environment copy's, too: state it in one of them alone"
        );
    }

    #[test]
    fn who_has_a_workload_is_named_where_it_is_the_component_that_is_upgraded() {
        let upgrade = |component: &str| {
            let object = json!({
                "apiVersion": "stagegate.dev/v1alpha1", "kind": "Upgrade", "metadata": {"name": "web-2"},
                "spec": {"environment": "copy", "component": component, "build": "web-2"},
            });
            Upgrade::read(serde_json::from_value(object).expect("an object")).expect("sound")
        };
        let (own, copy) = (
            environment("shop", "statefulSet", "web"),
            environment("copy", "statefulSet", "web"),
        );
        let of = |component: &str, other: &str| {
            let upgrade = upgrade(other);
            holder(&own, component, std::iter::once((&*copy, &upgrade)))
        };
        let held = of("web", "web").expect("it is had");
        assert_eq!(
            (
                held.workload.to_string().as_str(),
                held.upgrade.as_str(),
                held.environment.as_str()
            ),
            ("StatefulSet shop/web", "web-2", "copy")
        );
        assert_eq!((of("front", "web"), of("web", "front")), (None, None));
    }
}

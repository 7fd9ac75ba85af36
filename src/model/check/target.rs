//! Where a replica is made, of what, and where it may differ.

use super::{Checker, below, key};
use crate::model::environment::Component;
use crate::model::system::Finding;
use crate::model::target::{KubernetesTarget, Target};
use crate::model::text::path::Part as Step;
use crate::model::text::{PathPattern, is_dns_label};

impl Checker<'_> {
    pub(super) fn target(&mut self) {
        let spec = self.spec;
        if let Some(Target::Kubernetes(target)) = &spec.target {
            self.kubernetes(&[key("target"), key("kubernetes")], target);
        }
        for (i, expected) in spec.expected_differences.iter().enumerate() {
            let at = [key("expectedDifferences"), Step::Index(i)];
            if let Err(why) = expected.path.parse::<PathPattern>() {
                self.say(&below(&at, &[key("path")]), why.to_string(), None);
            }
            if expected.reason.trim().is_empty() {
                self.say(
                    &below(&at, &[key("reason")]),
                    "a difference is expected for a reason, and this says none".to_owned(),
                    Some("say why it may differ, for those who read it later".to_owned()),
                );
            }
            if spec.replica_of.is_none() {
                self.say(
                    &at,
                    "this is a replica of nothing, so it differs from nothing".to_owned(),
                    None,
                );
            }
        }
    }

    fn kubernetes(&mut self, at: &[Step], target: &KubernetesTarget) {
        if self.spec.replica_of.is_none() {
            self.say(
                at,
                "a target is made and pruned by us, and this is no replica".to_owned(),
                Some("state `replicaOf`; what replicas are of is not ours to make".to_owned()),
            );
        }
        let KubernetesTarget {
            namespace,
            context: _,
            drift: _,
            ttl,
            quota: _,
        } = target;
        let path = below(at, &[key("namespace")]);
        if !is_dns_label(namespace) {
            self.say(
                &path,
                format!("`{namespace}` cannot be a namespace"),
                Some("use small letters, digits and `-`, at most 63".to_owned()),
            );
        } else if namespace == "default" || namespace.starts_with("kube-") {
            self.say(
                &path,
                format!("`{namespace}` is the cluster's own, and a replica has a namespace for itself"),
                Some("name another".to_owned()),
            );
        }
        if ttl.is_some_and(|ttl| ttl.0.is_zero()) {
            self.say(
                &below(at, &[key("ttl")]),
                "a replica that stands for no time is none".to_owned(),
                Some("state how long it is needed, as 8h".to_owned()),
            );
        }
        let elsewhere = self.spec.components.iter().find(|c| c.servers().next().is_some());
        if let (Some(_), Some(component)) = (ttl, elsewhere) {
            self.say(
                &below(at, &[key("ttl")]),
                format!(
                    "`{}` has nodes outside of the cluster, and the end of a replica's time stops none of them",
                    component.name
                ),
                Some("leave `ttl` out, and take the replica down by `stagegate down`".to_owned()),
            );
        }
    }

    pub(super) fn manifests(&mut self, at: &[Step], component: &Component) {
        let target = self.spec.target.as_ref();
        let path = below(at, &[key("manifests")]);
        if self.spec.replica_of.is_some() && target.is_none() && !component.manifests.is_empty() {
            self.say(
                &path,
                format!("nothing says where the objects of `{}` are made", component.name),
                Some("state `target.kubernetes.namespace`".to_owned()),
            );
        }
        for (i, template) in component.manifests.iter().enumerate() {
            let path = below(&path, &[Step::Index(i)]);
            self.inside(&path, template, "templates/");
            if component.manifests[..i].contains(template) {
                self.findings.push(Finding {
                    path,
                    message: format!("`{template}` is stated twice"),
                    hint: Some("state it once".to_owned()),
                });
            }
        }
        // Its pods are made from the manifests, so they lie where those do.
        if let (Some(Target::Kubernetes(target)), Some(pods)) = (target, component.pods())
            && !component.manifests.is_empty()
            && pods.namespace() != target.namespace
        {
            self.say(
                &below(at, &[key(pods.key()), key("namespace")]),
                format!(
                    "the pods of `{}` are made in namespace `{}`, and looked for in `{}`",
                    component.name,
                    target.namespace,
                    pods.namespace()
                ),
                Some("state the target's namespace in both".to_owned()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::environment::EnvironmentSpec;
    use serde_json::{Value, json};

    fn found(more: &Value) -> Vec<String> {
        let mut spec = json!({
            "replicaOf": "production",
            "target": {"kubernetes": {"namespace": "shop"}},
            "components": [{"name": "web", "manifests": ["web.yaml"]}],
        });
        for (key, value) in more.as_object().expect("a map") {
            spec[key] = value.clone();
        }
        let spec: EnvironmentSpec = serde_json::from_value(spec).expect("an environment");
        let findings = crate::model::check::findings(&spec).into_iter();
        findings.map(|finding| finding.message).collect()
    }

    #[test]
    fn a_target_is_a_replicas_and_its_namespace_nobody_elses() {
        assert!(found(&json!({})).is_empty());
        let target = |more: Value| {
            let mut target = json!({"namespace": "shop"});
            for (key, value) in more.as_object().expect("a map") {
                target[key] = value.clone();
            }
            json!({"target": {"kubernetes": target}})
        };
        let outside = json!({"target": {"kubernetes": {"namespace": "shop", "ttl": "8h"}},
            "components": [{"name": "db", "nodes": [{"name": "n1"}]}]});
        let set = |namespace: &str| {
            json!({"components": [{"name": "web", "manifests": ["web.yaml"],
            "statefulSet": {"namespace": namespace, "name": "web", "replicas": 1}}]})
        };
        for (more, message) in [
            (json!({"replicaOf": null}), "this is no replica"),
            (target(json!({"namespace": "Shop"})), "cannot be a namespace"),
            (target(json!({"namespace": "kube-system"})), "the cluster's own"),
            (target(json!({"ttl": "0s"})), "stands for no time"),
            (outside, "`db` has nodes outside of the cluster"),
            (
                json!({"target": null}),
                "nothing says where the objects of `web` are made",
            ),
            (set("elsewhere"), "looked for in `elsewhere`"),
            (
                json!({"components": [{"name": "web", "manifests": ["a", "a"]}]}),
                "`a` is stated twice",
            ),
            (
                json!({"components": [{"name": "web", "manifests": ["../a"]}]}),
                "no path below templates/",
            ),
            (json!({"components": [{"name": "web"}]}), "has no nodes"),
            (
                json!({"expectedDifferences": [{"path": "a..b", "reason": "r"}]}),
                "cannot read the path",
            ),
            (
                json!({"expectedDifferences": [{"path": "a", "reason": " "}]}),
                "says none",
            ),
        ] {
            let said = found(&more);
            assert!(said.iter().any(|said| said.contains(message)), "{more}: {said:?}");
            assert_eq!(said.len(), 1, "{more}: {said:?}");
        }
        assert!(found(&set("shop")).is_empty());
        // What replicas are of states its objects too, for them.
        assert!(found(&json!({"replicaOf": null, "target": null})).is_empty());
    }
}

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
        if let (Some(Target::Kubernetes(target)), Some(set)) = (target, &component.stateful_set)
            && !component.manifests.is_empty()
            && set.namespace != target.namespace
        {
            self.say(
                &below(at, &[key("statefulSet"), key("namespace")]),
                format!(
                    "the pods of `{}` are made in namespace `{}`, and looked for in `{}`",
                    component.name, target.namespace, set.namespace
                ),
                Some("state the target's namespace in both".to_owned()),
            );
        }
    }
}

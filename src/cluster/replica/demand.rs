//! What objects ask of a cluster: how many they are, pods, processors and memory. Pure.

use serde_json::Value;

use super::plan::Refused;
use crate::model::manifest::Manifest;
use crate::model::target::Quota;
use crate::model::values::Quantity;

/// What is asked for together; processors and memory in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Objects.
    pub objects: u64,
    /// Pods.
    pub pods: u64,
    /// Processors.
    pub cpu: u128,
    /// Bytes.
    pub memory: u128,
}

impl Demand {
    /// How what is wanted goes over a quota.
    pub(super) fn over(wanted: &[Manifest], quota: &Quota) -> Vec<Refused> {
        let Quota {
            objects,
            pods,
            cpu,
            memory,
        } = quota;
        let mut refused = Vec::new();
        let mut all = Self::default();
        for manifest in wanted {
            match Self::of(&manifest.value, most_replicas(wanted, manifest)) {
                Ok(one) => all = all.and(one),
                Err(why) => refused.push(Refused::Unmeasured {
                    object: manifest.id.clone(),
                    why,
                }),
            }
        }
        // Where something is bounded, Kubernetes takes no pod that does not say how much of it it needs.
        let has_defaults = wanted.iter().any(|manifest| manifest.id.kind == "LimitRange");
        for (what, bound) in [("cpu", cpu), ("memory", memory)] {
            if bound.is_some() && !has_defaults {
                let unsaid = wanted.iter().flat_map(|manifest| {
                    let silent = silent(&manifest.value, what);
                    silent.into_iter().map(|container| Refused::Unrequested {
                        object: manifest.id.clone(),
                        container,
                        what,
                    })
                });
                refused.extend(unsaid);
            }
        }
        for (what, asked, allowed) in [("objects", all.objects, objects), ("pods", all.pods, pods)] {
            if let Some(allowed) = allowed.filter(|allowed| asked > u64::from(*allowed)) {
                refused.push(Refused::OverQuota {
                    what,
                    asked: asked.to_string(),
                    allowed: allowed.to_string(),
                });
            }
        }
        for (what, asked, allowed) in [("of cpu", all.cpu, cpu), ("bytes of memory", all.memory, memory)] {
            if let Some(allowed) = allowed.as_ref().filter(|allowed| asked > allowed.thousandths()) {
                refused.push(Refused::OverQuota {
                    what,
                    asked: if asked.is_multiple_of(1_000) {
                        (asked / 1_000).to_string()
                    } else {
                        format!("{asked}m")
                    },
                    allowed: allowed.to_string(),
                });
            }
        }
        refused
    }

    /// What one object asks for. A `DaemonSet` counts as one pod: how many nodes it goes to, only the cluster knows.
    fn of(object: &Value, most_replicas: Option<u64>) -> Result<Self, String> {
        let one = Self {
            objects: 1,
            ..Self::default()
        };
        let Some((stated, pod)) = pods(object) else {
            return Ok(one);
        };
        let pods = most_replicas.map_or(stated, |most| most.max(stated));
        Ok(Self {
            pods,
            cpu: requested(pod, "cpu")?.saturating_mul(pods.into()),
            memory: requested(pod, "memory")?.saturating_mul(pods.into()),
            ..one
        })
    }

    fn and(self, other: Self) -> Self {
        Self {
            objects: self.objects.saturating_add(other.objects),
            pods: self.pods.saturating_add(other.pods),
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }
}

/// How many pods an object makes, and how each is specified; nothing where it makes none.
fn pods(object: &Value) -> Option<(u64, &Value)> {
    let spec = &object["spec"];
    let count = |spec: &Value, key: &str| spec[key].as_u64().unwrap_or(1);
    let api = object["apiVersion"].as_str().unwrap_or_default();
    let group = api.split_once('/').map_or("", |(group, _)| group);
    // By its group, too: others have a `Job` of their own.
    match (group, object["kind"].as_str().unwrap_or_default()) {
        ("", "Pod") => Some((1, spec)),
        ("apps", "Deployment" | "StatefulSet" | "ReplicaSet") | ("", "ReplicationController") => {
            Some((count(spec, "replicas"), &spec["template"]["spec"]))
        }
        ("apps", "DaemonSet") => Some((1, &spec["template"]["spec"])),
        ("batch", "Job") => Some((count(spec, "parallelism"), &spec["template"]["spec"])),
        ("batch", "CronJob") => {
            let job = &spec["jobTemplate"]["spec"];
            Some((count(job, "parallelism"), &job["template"]["spec"]))
        }
        _ => None,
    }
}

/// To how many a stated autoscaler may bring an object.
fn most_replicas(wanted: &[Manifest], of: &Manifest) -> Option<u64> {
    let scalers = wanted.iter().filter(|manifest| {
        let target = &manifest.value["spec"]["scaleTargetRef"];
        manifest.id.kind == "HorizontalPodAutoscaler"
            && target["kind"] == of.id.kind.as_str()
            && target["name"] == of.id.name.as_str()
    });
    scalers
        .filter_map(|scaler| scaler.value["spec"]["maxReplicas"].as_u64())
        .max()
}

fn stated<'v>(of: &'v Value, what: &str) -> Option<&'v Value> {
    let resources = &of["resources"];
    // A limit without a request is one.
    let stated = [&resources["requests"][what], &resources["limits"][what]];
    stated.into_iter().find(|stated| !stated.is_null())
}

fn quantity(stated: Option<&Value>, what: &str) -> Result<u128, String> {
    let Some(stated) = stated else { return Ok(0) };
    let text = stated.as_str().map_or_else(|| stated.to_string(), str::to_owned);
    let quantity: Quantity = text.parse().map_err(|why| format!("its request of {what}: {why}"))?;
    Ok(quantity.thousandths())
}

fn containers<'v>(pod: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    pod[key].as_array().into_iter().flatten()
}

/// What a pod requests, as the scheduler counts it: the containers together with the sidecars, or an init container with the sidecars
/// that were begun before it where that is more; what is stated of the pod as a whole stands for all of them; and its overhead.
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>
fn requested(pod: &Value, what: &str) -> Result<u128, String> {
    let overhead = quantity(Some(&pod["overhead"][what]).filter(|stated| !stated.is_null()), what)?;
    if let Some(whole) = stated(pod, what) {
        return Ok(quantity(Some(whole), what)?.saturating_add(overhead));
    }
    let (mut sidecars, mut most) = (0_u128, 0_u128);
    for container in containers(pod, "initContainers") {
        let own = quantity(stated(container, what), what)?;
        most = most.max(sidecars.saturating_add(own));
        if container["restartPolicy"] == "Always" {
            sidecars = sidecars.saturating_add(own);
        }
    }
    let mut together = sidecars;
    for container in containers(pod, "containers") {
        together = together.saturating_add(quantity(stated(container, what), what)?);
    }
    Ok(together.max(most).saturating_add(overhead))
}

/// Containers of an object's pods that do not say what they need.
fn silent(object: &Value, what: &str) -> Vec<String> {
    let Some((_, pod)) = pods(object) else {
        return Vec::new();
    };
    if stated(pod, what).is_some() {
        return Vec::new();
    }
    let all = containers(pod, "initContainers").chain(containers(pod, "containers"));
    all.filter(|container| stated(container, what).is_none())
        .map(|container| container["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(api: &str, kind: &str, name: &str, spec: &Value) -> Manifest {
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        Manifest {
            component: "web".to_owned(),
            template: "web.yaml".to_owned(),
            id: crate::model::manifest::ObjectId {
                group: group.to_owned(),
                kind: kind.to_owned(),
                namespace: String::new(),
                name: name.to_owned(),
            },
            version: version.to_owned(),
            value: json!({"apiVersion": api, "kind": kind, "spec": spec}),
        }
    }

    #[test]
    fn requests_are_counted_over_the_replicas() {
        let pod = json!({
            "containers": [
                {"resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}},
                {"resources": {"limits": {"cpu": 1}}},
            ],
            "initContainers": [{"resources": {"requests": {"memory": "128Mi"}}}],
        });
        let set = manifest(
            "apps/v1",
            "StatefulSet",
            "web",
            &json!({"replicas": 3, "template": {"spec": pod}}),
        );
        let demand = Demand::of(&set.value, None).expect("counted");
        assert_eq!(
            (demand.pods, demand.cpu, demand.memory),
            (3, 3_750, 3 * 128 * 1024 * 1024 * 1_000)
        );
        let of = |api: &str, kind: &str, spec: &Value| {
            Demand::of(&manifest(api, kind, "a", spec).value, None).map(|d| d.pods)
        };
        assert_eq!(of("apps/v1", "Deployment", &json!({})), Ok(1));
        assert_eq!(of("batch/v1", "Job", &json!({"parallelism": 4})), Ok(4));
        let cron = json!({"jobTemplate": {"spec": {"parallelism": 2}}});
        assert_eq!(of("batch/v1", "CronJob", &cron), Ok(2));
        assert_eq!(of("v1", "ConfigMap", &json!({"replicas": 9})), Ok(0));
        // Of another group, with fields of its own.
        assert_eq!(of("batch.example.org/v1", "Job", &json!({"parallelism": 4})), Ok(0));
        let odd = json!({"containers": [{"resources": {"requests": {"cpu": "much"}}}]});
        let odd = Demand::of(&manifest("v1", "Pod", "a", &odd).value, None);
        assert!(odd.is_err_and(|why| why.contains("`much`")));
    }

    #[test]
    fn a_pod_is_counted_as_the_scheduler_counts_it() {
        let cpu = |cpu: u32| json!({"requests": {"cpu": cpu}});
        let sidecar = |n: u32| json!({"restartPolicy": "Always", "resources": cpu(n)});
        for (pod, expected) in [
            // Sidecars run beside the containers, and beside the init containers behind them.
            (
                json!({"containers": [{"resources": cpu(1)}], "initContainers": [sidecar(1), sidecar(2)]}),
                4,
            ),
            (
                json!({"containers": [{"resources": cpu(1)}], "initContainers": [sidecar(2), {"resources": cpu(5)}]}),
                7,
            ),
            (
                json!({"containers": [{"resources": cpu(1)}], "initContainers": [{"resources": cpu(5)}, sidecar(2)]}),
                5,
            ),
            // Of the pod as a whole.
            (json!({"resources": cpu(3), "containers": [{}, {}]}), 3),
            (
                json!({"overhead": {"cpu": "1"}, "containers": [{"resources": cpu(1)}]}),
                2,
            ),
        ] {
            assert_eq!(requested(&pod, "cpu"), Ok(expected * 1_000), "{pod}");
        }
    }

    #[test]
    fn what_an_autoscaler_may_make_counts_and_a_container_that_says_nothing_is_refused() {
        let deployment = |resources: Value| {
            let pod = json!({"containers": [{"name": "web", "resources": resources}]});
            manifest("apps/v1", "Deployment", "web", &json!({"template": {"spec": pod}}))
        };
        let scaler = manifest(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "web",
            &json!({"maxReplicas": 50, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}),
        );
        let quota: Quota = serde_json::from_value(json!({"pods": 10, "cpu": "8"})).expect("a quota");
        let said = |wanted: &[Manifest]| -> Vec<String> {
            let over = Demand::over(wanted, &quota);
            over.iter().map(ToString::to_string).collect()
        };
        let small = deployment(json!({"requests": {"cpu": "1m"}}));
        assert!(said(std::slice::from_ref(&small)).is_empty());
        let over = said(&[small, scaler]);
        assert!(over.len() == 1 && over[0].contains("ask for 50 pods"), "{over:?}");
        let silent = said(&[deployment(json!({}))]);
        assert!(
            silent.len() == 1 && silent[0].contains("container web requests no cpu"),
            "{silent:?}"
        );
        let defaults = manifest("v1", "LimitRange", "all", &json!({}));
        assert!(said(&[deployment(json!({})), defaults]).is_empty());
    }
}

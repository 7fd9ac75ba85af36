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
        let mut refused = Vec::new();
        let mut all = Self::default();
        for manifest in wanted {
            match Self::of(&manifest.value) {
                Ok(one) => all = all.and(one),
                Err(why) => refused.push(Refused::Unmeasured {
                    object: manifest.id.clone(),
                    why,
                }),
            }
        }
        let Quota {
            objects,
            pods,
            cpu,
            memory,
        } = quota;
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
    fn of(object: &Value) -> Result<Self, String> {
        let spec = &object["spec"];
        let count = |key: &str| spec[key].as_u64().unwrap_or(1);
        let (pods, pod) = match object["kind"].as_str().unwrap_or_default() {
            "Pod" => (1, spec),
            "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController" => {
                (count("replicas"), &spec["template"]["spec"])
            }
            "DaemonSet" => (1, &spec["template"]["spec"]),
            "Job" => (count("parallelism"), &spec["template"]["spec"]),
            "CronJob" => {
                let job = &spec["jobTemplate"]["spec"];
                (job["parallelism"].as_u64().unwrap_or(1), &job["template"]["spec"])
            }
            _ => {
                return Ok(Self {
                    objects: 1,
                    ..Self::default()
                });
            }
        };
        Ok(Self {
            objects: 1,
            pods,
            cpu: Self::requested(pod, "cpu")?.saturating_mul(pods.into()),
            memory: Self::requested(pod, "memory")?.saturating_mul(pods.into()),
        })
    }

    /// What a pod requests, as the scheduler counts it: the containers together, or an init container that asks for more. A limit
    /// without a request is one.
    fn requested(pod: &Value, what: &str) -> Result<u128, String> {
        let of = |container: &Value| -> Result<u128, String> {
            let resources = &container["resources"];
            let stated = [&resources["requests"][what], &resources["limits"][what]];
            let Some(stated) = stated.into_iter().find(|stated| !stated.is_null()) else {
                return Ok(0);
            };
            let text = stated.as_str().map_or_else(|| stated.to_string(), str::to_owned);
            let quantity: Quantity = text.parse().map_err(|why| format!("its request of {what}: {why}"))?;
            Ok(quantity.thousandths())
        };
        let containers = |key: &str| pod[key].as_array().into_iter().flatten();
        let (mut together, mut most) = (0_u128, 0);
        for container in containers("containers") {
            together = together.saturating_add(of(container)?);
        }
        for container in containers("initContainers") {
            most = of(container)?.max(most);
        }
        Ok(together.max(most))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_counted_over_the_replicas() {
        let pod = json!({
            "containers": [
                {"resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}},
                {"resources": {"limits": {"cpu": 1}}},
            ],
            "initContainers": [{"resources": {"requests": {"memory": "128Mi"}}}],
        });
        let set = json!({"kind": "StatefulSet", "spec": {"replicas": 3, "template": {"spec": pod}}});
        let demand = Demand::of(&set).expect("counted");
        assert_eq!(
            (demand.pods, demand.cpu, demand.memory),
            (3, 3_750, 3 * 128 * 1024 * 1024 * 1_000)
        );
        let of = |kind: &str, spec: Value| Demand::of(&json!({"kind": kind, "spec": spec})).map(|d| d.pods);
        assert_eq!(of("Deployment", json!({})), Ok(1));
        assert_eq!(of("Job", json!({"parallelism": 4})), Ok(4));
        assert_eq!(
            of("CronJob", json!({"jobTemplate": {"spec": {"parallelism": 2}}})),
            Ok(2)
        );
        assert_eq!(of("ConfigMap", json!({"replicas": 9})), Ok(0));
        let odd = json!({"containers": [{"resources": {"requests": {"cpu": "much"}}}]});
        assert!(Demand::of(&json!({"kind": "Pod", "spec": odd})).is_err_and(|why| why.contains("`much`")));
    }
}

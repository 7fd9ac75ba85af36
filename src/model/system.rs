//! An environment that was checked: what refers to something refers to something that is there, and the nodes have their
//! addresses and ports.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::build::BuildRef;
use super::environment::{Component, EnvironmentSpec, HostRef, PodRef, Pods, Scalar};
use super::text::path::{Part as Step, Path};

/// Added to every port of the nodes on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortShift(pub u16);

/// A checked environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// What it states, with what it inherits.
    pub spec: EnvironmentSpec,
    shift: PortShift,
    /// Components by index, each after those that it needs.
    order: Vec<usize>,
    sites: BTreeMap<String, Vec<NodeSite>>,
}

/// A node with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSite {
    /// Its name.
    pub name: String,
    /// Its component.
    pub component: String,
    /// From 0, in the environment's order.
    pub index: usize,
    /// Where its service answers.
    pub address: String,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its machine; this one without.
    pub host: Option<HostRef>,
}

/// What is wrong with an environment, and with which value: a path of keys and indices below `spec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The value.
    pub path: Vec<Step>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// All that was found, in one line; nothing where nothing was.
#[must_use]
pub fn in_words(findings: &[Finding]) -> Option<String> {
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path: Path = self.path.iter().cloned().collect();
        if !path.is_root() {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl Environment {
    /// Checks an environment as a whole. Finds everything that is wrong; only one with which nothing is wrong may be used
    /// for anything but further checks.
    #[must_use]
    pub fn check(name: &str, mut spec: EnvironmentSpec, shift: PortShift) -> (Self, Vec<Finding>) {
        let mut findings = super::check::findings(&spec);
        for component in &mut spec.components {
            if let Some(nodes) = component.pods().map(Pods::nodes) {
                let servers: Vec<_> = component.servers().cloned().collect();
                component.nodes = nodes;
                component.nodes.extend(servers);
            }
        }
        let order = super::check::order(&spec, &mut findings);
        let sites = sites(&spec, shift, &mut findings);
        let environment = Self {
            name: name.to_owned(),
            spec,
            shift,
            order,
            sites,
        };
        (environment, findings)
    }

    /// How far its ports are shifted from what its file says.
    #[must_use]
    pub fn shift(&self) -> PortShift {
        self.shift
    }

    /// The components, each after those that it needs.
    pub fn components_in_order(&self) -> impl Iterator<Item = &Component> {
        self.order.iter().map(|&i| &self.spec.components[i])
    }

    /// One component.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.spec.components.iter().find(|c| c.name == name)
    }

    /// The nodes of a component, in order.
    pub fn sites(&self, component: &str) -> &[NodeSite] {
        self.sites.get(component).map_or(&[], Vec::as_slice)
    }

    /// What templates see.
    #[must_use]
    pub fn context(&self, component: &str, node: Option<&NodeSite>, build: Option<&BuildRef>) -> Value {
        let site = |site: &NodeSite| json!({"name": site.name, "address": site.address, "index": site.index, "ports": site.ports});
        let vars: BTreeMap<&String, Value> = self
            .spec
            .variables
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Scalar::Bool(b) => json!(b),
                    Scalar::Int(n) => json!(n),
                    Scalar::Text(text) => json!(text),
                };
                (name, value)
            })
            .collect();
        let nodes: BTreeMap<&String, Vec<Value>> = self
            .sites
            .iter()
            .map(|(name, sites)| (name, sites.iter().map(site).collect()))
            .collect();
        let mut context = json!({"env": {"name": self.name}, "vars": vars, "nodes": nodes});
        if !component.is_empty() {
            context["component"] = json!({"name": component});
        }
        if let Some(node) = node {
            context["node"] = site(node);
        }
        if let Some(BuildRef { name, version, digest }) = build {
            context["build"] = json!({"name": name, "version": version, "digest": digest.hex()});
        }
        context
    }
}

fn sites(spec: &EnvironmentSpec, shift: PortShift, findings: &mut Vec<Finding>) -> BTreeMap<String, Vec<NodeSite>> {
    let mut all = BTreeMap::new();
    // Which node has a port of which machine.
    let mut taken: BTreeMap<(String, u16), String> = BTreeMap::new();
    for (c, component) in spec.components.iter().enumerate() {
        let mut sites = Vec::new();
        // Of the nodes that share what `portStride` is for.
        let mut servers: u32 = 0;
        for (index, node) in component.nodes.iter().enumerate() {
            let path = vec![
                Step::Key("components".to_owned()),
                Step::Index(c),
                Step::Key("nodes".to_owned()),
                Step::Index(index),
            ];
            let host = node.host.clone();
            let address = node.address.clone().unwrap_or_else(|| match &host {
                None => "127.0.0.1".to_owned(),
                Some(HostRef::Ssh(ssh)) => {
                    let host = ssh.destination.rsplit('@').next().unwrap_or_default();
                    host.to_owned()
                }
                // As its cluster's name server knows it where the set's service has its name. What asks it goes by the address
                // that a look has shown, which each pod after it has another of.
                Some(HostRef::Pod(PodRef::OfSet(pod))) => {
                    format!("{}.{}.{}.svc", node.name, pod.set.name, pod.set.namespace)
                }
                Some(HostRef::Pod(PodRef::OfDeployment(pods))) => {
                    format!("{}.{}.svc", pods.deployment.name, pods.deployment.namespace)
                }
            });
            let added = if host.is_none() { u32::from(shift.0) } else { 0 };
            let mut ports = BTreeMap::new();
            let stride = match &host {
                // It has an address of its own, and all of a set are made alike.
                Some(HostRef::Pod(_)) => 0,
                Some(HostRef::Ssh(_)) | None => {
                    servers += 1;
                    u32::from(component.port_stride).saturating_mul(servers - 1)
                }
            };
            for name in component.ports.keys().chain(node.ports.keys()) {
                let stated = node.ports.get(name).map(|p| u32::from(*p));
                let derived = component.ports.get(name).map(|p| u32::from(*p).saturating_add(stride));
                let port = stated.or(derived).unwrap_or(0).saturating_add(added);
                let Ok(port) = u16::try_from(port) else {
                    findings.push(Finding {
                        path: path.clone(),
                        message: format!("port `{name}` of {} would be {port}, above 65535", node.name),
                        hint: Some("lower `ports`, `portStride` or STAGEGATE_PORT_SHIFT".to_owned()),
                    });
                    continue;
                };
                ports.insert(name.clone(), port);
            }
            for (name, port) in &ports {
                let machine = match &host {
                    None => String::new(),
                    Some(HostRef::Ssh(ssh)) => ssh.destination.clone(),
                    Some(HostRef::Pod(_)) => node.name.clone(),
                };
                let me = format!("port `{name}` of {}", node.name);
                if let Some(other) = taken.insert((machine, *port), me.clone()) {
                    findings.push(Finding {
                        path: path.clone(),
                        message: format!("{me} and {other} are both {port} on one machine"),
                        hint: Some("give the nodes different `ports`, or the component a `portStride`".to_owned()),
                    });
                }
            }
            sites.push(NodeSite {
                name: node.name.clone(),
                component: component.name.clone(),
                index,
                address,
                ports,
                host,
            });
        }
        all.insert(component.name.clone(), sites);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_come_after_pods_and_share_the_ports_that_are_theirs() {
        let digest = "0".repeat(64);
        let spec = json!({"components": [{
            "name": "web",
            "source": {"directory": "builds"},
            "images": {"repository": "r.example.org/web", "digests": {"1": format!("sha256:{digest}")}},
            "statefulSet": {"namespace": "shop", "name": "web", "replicas": 2},
            "nodes": [{"name": "a"}, {"name": "b"}],
            "service": {"pidFile": "run/pid"},
            "ports": {"http": 8080},
            "portStride": 10,
            "actions": {"install": {"template": "i"}, "start": {"template": "s"}, "stop": {"template": "e"}},
        }]});
        let spec: EnvironmentSpec = serde_json::from_value(spec).expect("an environment");
        let (environment, findings) = Environment::check("shop", spec, PortShift(0));
        assert_eq!(findings, []);
        let sites = environment.sites("web").iter();
        let sites: Vec<(&str, u16)> = sites.map(|site| (site.name.as_str(), site.ports["http"])).collect();
        assert_eq!(sites, [("web-1", 8080), ("web-0", 8080), ("a", 8080), ("b", 8090)]);
        // What was checked is as it was.
        let (again, findings) = Environment::check("shop", environment.spec.clone(), PortShift(0));
        assert_eq!((again, findings), (environment, Vec::new()));
    }
}

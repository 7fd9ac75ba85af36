//! What a schema cannot say about an environment: everything that refers to something refers to something that is there.

mod order;
pub(super) mod rehearsal;
mod signals;
mod sinks;
mod target;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::order::order;

use super::environment::{
    Actions, BuildCommits, BuildSource, Component, EnvironmentSpec, HostRef, Node, Pods, Refresh, Requirement,
    StatefulSetRef,
};
use super::system::Finding;
use super::text::path::Part as Step;
use super::text::{did_you_mean, is_dns_label};

/// Pods of a set that are remembered: about 400 bytes each, in annotations that an API server bounds to 256 KiB.
pub(crate) const MOST_PODS: u16 = 500;

struct Checker<'a> {
    spec: &'a EnvironmentSpec,
    findings: Vec<Finding>,
}

/// Everything that is wrong, but for the order of components and the ports.
pub(super) fn findings(spec: &EnvironmentSpec) -> Vec<Finding> {
    let mut checker = Checker {
        spec,
        findings: Vec::new(),
    };
    checker.whole();
    for (c, component) in spec.components.iter().enumerate() {
        checker.component(&[key("components"), Step::Index(c)], component);
    }
    checker.findings
}

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

fn below(path: &[Step], more: &[Step]) -> Vec<Step> {
    path.iter().chain(more).cloned().collect()
}

impl Checker<'_> {
    fn say(&mut self, path: &[Step], message: String, hint: Option<String>) {
        self.findings.push(Finding {
            path: path.to_vec(),
            message,
            hint,
        });
    }

    fn whole(&mut self) {
        let spec = self.spec;
        if spec.components.is_empty() {
            self.say(
                &[key("components")],
                "an environment needs at least one component".to_owned(),
                None,
            );
        }
        for (name, source) in &spec.secrets {
            let given = [
                source.file.is_some(),
                source.environment.is_some(),
                source.command.is_some(),
            ];
            let n = given.iter().filter(|g| **g).count();
            if n != 1 {
                self.say(
                    &[key("secrets"), key(name)],
                    format!("secret `{name}` has {n} sources, and needs exactly one"),
                    Some("give one of `file`, `environment` and `command`".to_owned()),
                );
            }
            if let Some(file) = &source.file {
                self.inside_or_absolute(
                    &[key("secrets"), key(name), key("file")],
                    file,
                    "the environment's directory",
                );
            }
        }
        if let Some(script) = &spec.packages_script {
            self.inside(&[key("packagesScript")], script, "templates/");
        }
        for (i, database) in spec.databases.iter().enumerate() {
            if let Some(password) = &database.postgres.password {
                let path = [key("databases"), Step::Index(i), key("postgres"), key("password")];
                self.secret(&path, password);
            }
        }
        self.unique(&[key("components")], spec.components.iter().map(|c| c.name.as_str()));
        self.unique(&[key("databases")], spec.databases.iter().map(|d| d.name.as_str()));
        self.sinks();
        self.target();
        self.nodes();
    }

    fn nodes(&mut self) {
        let mut nodes: BTreeMap<String, &str> = BTreeMap::new();
        let mut workloads: BTreeMap<_, &str> = BTreeMap::new();
        for (c, component) in self.spec.components.iter().enumerate() {
            for (n, node) in component.nodes.iter().enumerate() {
                let Node {
                    name,
                    host,
                    address: _,
                    ports: _,
                } = node;
                let at = [key("components"), Step::Index(c), key("nodes"), Step::Index(n)];
                let path = below(&at, &[key("name")]);
                if !is_dns_label(name) {
                    self.say(
                        &path,
                        format!("`{name}` cannot name a node"),
                        Some("use small letters, digits and `-`, at most 63".to_owned()),
                    );
                }
                let is_stated = component.pods().is_none_or(|pods| !pods.nodes().contains(node));
                if is_stated {
                    self.name_once(&path, &mut nodes, name, component);
                }
                match host {
                    Some(HostRef::Ssh(ssh)) => {
                        // `down --purge` deletes it with everything in it.
                        let path = below(&at, &[key("host"), key("ssh"), key("directory")]);
                        let is_a_root = ssh.directory.split('/').all(|part| part.is_empty() || part == ".");
                        self.inside_or_absolute(&path, if is_a_root { "" } else { &ssh.directory }, "the user's home");
                    }
                    Some(HostRef::Pod(_)) if !component.pods().is_some_and(|pods| pods.nodes().contains(node)) => self
                        .say(
                            &below(&at, &[key("host")]),
                            format!("pod `{name}` is stated by itself"),
                            Some("a workload changes as a whole: state it by `statefulSet` or `deployment`".to_owned()),
                        ),
                    Some(HostRef::Pod(_)) | None => {}
                }
            }
            if let Some(pods) = component.pods() {
                let path = [key("components"), Step::Index(c), key(pods.key())];
                for node in pods.nodes() {
                    self.name_once(&path, &mut nodes, &node.name, component);
                }
            }
            if let Some(pods) = component.pods()
                && let Some(other) = workloads.insert(
                    (pods.kind(), pods.context(), pods.namespace(), pods.name()),
                    &component.name,
                )
            {
                self.say(
                    &[key("components"), Step::Index(c), key(pods.key())],
                    format!(
                        "{} {}/{} is that of component {other}, too",
                        pods.kind(),
                        pods.namespace(),
                        pods.name()
                    ),
                    Some("two components would move the same pods".to_owned()),
                );
            }
        }
    }

    /// Notes a node's name, which no other may have.
    fn name_once<'n>(
        &mut self,
        path: &[Step],
        nodes: &mut BTreeMap<String, &'n str>,
        name: &str,
        component: &'n Component,
    ) {
        if let Some(other) = nodes.insert(name.to_owned(), &component.name) {
            self.say(
                path,
                format!("node `{name}` is stated twice, here and in component {other}"),
                Some("node names are unique in an environment".to_owned()),
            );
        }
    }

    fn component(&mut self, at: &[Step], component: &Component) {
        let Component {
            name,
            after: _,
            source,
            images,
            commits,
            build,
            service,
            ports: _,
            port_stride: _,
            nodes,
            stateful_set: _,
            deployment: _,
            manifests,
            refresh,
            secrets,
            actions,
            probes: _,
            traffic: _,
            logs: _,
            queries: _,
            gates: _,
            blockers: _,
            rollout,
        } = component;
        if !is_dns_label(name) {
            self.say(
                &below(at, &[key("name")]),
                format!("`{name}` cannot name a component"),
                Some("use small letters, digits and `-`, at most 63".to_owned()),
            );
        }
        if let Some(refresh) = refresh {
            self.refresh(at, component, refresh);
        }
        if let Some(pods) = component.pods() {
            self.pods(at, component, pods);
        } else if nodes.is_empty() && manifests.is_empty() {
            self.say(
                &below(at, &[key("nodes")]),
                format!("component `{name}` has no nodes"),
                Some("state at least one, as `- name: node1`".to_owned()),
            );
        }
        if build.is_some() && source.is_none() {
            self.say(
                &below(at, &[key("build")]),
                format!("component `{name}` has a `build` but no `source` to find it in"),
                Some("add `source`, or remove `build`".to_owned()),
            );
        }
        // Objects without nodes are upgraded by the file alone: with another `build` in it, `up` applies them again.
        let is_upgraded = !nodes.is_empty() || manifests.is_empty();
        let beside_pods = images.is_some() && component.servers().next().is_some();
        if source.is_some() && (component.pods().is_none() || beside_pods) && is_upgraded {
            self.upgradable(at, component);
        }
        for (i, secret) in secrets.iter().enumerate() {
            self.secret(&below(at, &[key("secrets"), Step::Index(i)]), secret);
        }
        self.manifests(at, component);
        self.actions(at, actions);
        if let Some(service) = service {
            self.inside(
                &below(at, &[key("service"), key("pidFile")]),
                &service.pid_file,
                "the node directory",
            );
        }
        if images.is_some() {
            self.images(at, component);
        }
        if let Some(BuildSource::Directory(directory)) = source {
            let path = below(at, &[key("source"), key("directory")]);
            self.inside_or_absolute(&path, directory, "the workspace");
        }
        if let Some(commits) = commits {
            self.commits(&below(at, &[key("commits")]), component, commits);
        }
        self.signals(at, component);
        self.gates(at, component);
        self.requires(at, component);
        if rollout.keep_releases < 2 {
            self.say(
                &below(at, &[key("rollout"), key("keepReleases")]),
                format!(
                    "keepReleases is {}, but a rollback needs the release before",
                    rollout.keep_releases
                ),
                Some("keep at least 2".to_owned()),
            );
        }
    }

    /// Pods are made by their cluster: what our scripts do on a machine, nothing does there.
    fn pods(&mut self, at: &[Step], component: &Component, pods: Pods<'_>) {
        let name = &component.name;
        let (kind, stated) = (pods.kind(), pods.key());
        if component.stateful_set.is_some() && component.deployment.is_some() {
            self.say(
                &below(at, &[key("deployment")]),
                format!("component `{name}` has both a `statefulSet` and a `deployment`"),
                Some("a component is one workload: state another component for the other".to_owned()),
            );
        }
        let has_servers = component.servers().next().is_some();
        let (is_in_the_way, hint) = match pods {
            Pods::Set(_) => (
                component.images.is_none(),
                "leave `nodes` out, for its pods are its nodes; or state `images` beside a `source` of files, for servers beside pods",
            ),
            Pods::Deployment(_) => (true, "its pods are its nodes: leave `nodes` out"),
        };
        if has_servers && is_in_the_way {
            self.say(
                &below(at, &[key("nodes")]),
                format!("component `{name}` has both `nodes` and a `{stated}`, and its builds are not for both"),
                Some(hint.to_owned()),
            );
        }
        let path = below(at, &[key(stated)]);
        for (part, word) in [("namespace", pods.namespace()), ("name", pods.name())] {
            if !is_dns_label(word) {
                self.say(
                    &below(&path, &[key(part)]),
                    format!("`{word}` cannot be the {part} of a {kind}"),
                    Some("use small letters, digits and `-`, at most 63".to_owned()),
                );
            }
        }
        match pods {
            Pods::Set(set) => self.how_many(&path, component, set),
            Pods::Deployment(deployment) if !is_dns_label(&deployment.canary()) => self.say(
                &below(&path, &[key("name")]),
                format!("`{}` is too long for the name of a canary", deployment.canary()),
                Some("a Deployment whose canary is ours has a name of at most 56 letters".to_owned()),
            ),
            Pods::Deployment(_) => {}
        }
        let of_servers = component.service.is_some() || component.port_stride != 0 || !component.secrets.is_empty();
        if of_servers && !has_servers {
            self.say(
                at,
                format!("component `{name}` states `service`, `portStride` or `secrets`, which mean nothing of pods"),
                Some("leave them out: each pod has an address of its own, and no script of ours runs there".to_owned()),
            );
        }
        if let Some(BuildSource::PackageIndex(_) | BuildSource::Directory(_)) = component.source
            && component.images.is_none()
        {
            self.say(
                &below(at, &[key("source")]),
                format!("builds of `{name}` are no images, and its nodes are pods"),
                Some("state `source.images` with a digest for each version".to_owned()),
            );
        }
        for (action, stated) in component.actions.each() {
            if stated.is_some() && !has_servers {
                self.say(
                    &below(at, &[key("actions"), key(action.word())]),
                    format!(
                        "`{name}` has an action `{}`, and no script of ours runs in a pod",
                        action.word()
                    ),
                    Some("leave it out; what a pod does at its start and end is said in its template".to_owned()),
                );
            }
        }
    }

    /// Images beside files are for pods beside servers.
    fn images(&mut self, at: &[Step], component: &Component) {
        let name = &component.name;
        let path = below(at, &[key("images")]);
        let has_servers = component.servers().next().is_some();
        if component.stateful_set.is_none() || !has_servers {
            self.say(
                &path,
                format!("`{name}` states images beside its `source`, and its nodes are not pods and servers"),
                Some("state `source.images` where all are pods, and leave `images` out where none is".to_owned()),
            );
        }
        if let None | Some(BuildSource::Images(_)) = component.source {
            self.say(
                &path,
                format!("builds of `{name}` have images and no files for its servers"),
                Some("state where the files come from, by `source.directory` or `source.packageIndex`".to_owned()),
            );
        }
        let digests = component.images.iter().flat_map(|images| &images.digests);
        let mut versions = BTreeMap::new();
        for (version, digest) in digests {
            if let Some(other) = versions.insert(digest, version) {
                self.say(
                    &below(&path, &[key("digests"), key(version)]),
                    format!("versions {other} and {version} of `{name}` have the same image, and a pod would not say which of them it runs"),
                    Some("build an image for each version: a label in it is enough to make another one".to_owned()),
                );
            }
        }
        if component.commits.is_some() {
            self.say(
                &below(at, &[key("commits")]),
                format!("builds of `{name}` are images, too, and nobody can say which commit an image is"),
                Some("leave `commits` out".to_owned()),
            );
        }
    }

    fn how_many(&mut self, path: &[Step], component: &Component, set: &StatefulSetRef) {
        let name = &component.name;
        if set.replicas == 0 {
            self.say(
                &below(path, &[key("replicas")]),
                format!("component `{name}` has no pods"),
                Some("state how many the StatefulSet has".to_owned()),
            );
        }
        if set.replicas > MOST_PODS {
            self.say(
                &below(path, &[key("replicas")]),
                format!("component `{name}` has {} pods", set.replicas),
                Some(format!(
                    "an annotation of the set has room for what is remembered of {MOST_PODS}"
                )),
            );
        }
    }

    fn refresh(&mut self, at: &[Step], component: &Component, refresh: &Refresh) {
        let path = below(at, &[key("refresh")]);
        if self.spec.replica_of.is_none() {
            self.say(
                &path,
                format!(
                    "component `{}` takes data from a base, and its environment is no replica",
                    component.name
                ),
                Some("state it in the replica's own file".to_owned()),
            );
        }
        self.database(&below(&path, &[key("into")]), &refresh.into);
        let tables = below(&path, &[key("tables")]);
        for (i, table) in refresh.tables.iter().enumerate() {
            let path = below(&tables, &[Step::Index(i), key("name")]);
            if table.name.split('.').filter(|part| !part.is_empty()).count() != 2 {
                self.say(
                    &path,
                    format!("`{}` does not name a schema and a table of it", table.name),
                    Some("write SCHEMA.TABLE, as public.orders".to_owned()),
                );
            }
            if refresh.tables[..i].iter().any(|other| other.name == table.name) {
                self.say(&path, format!("table `{}` is stated twice", table.name), None);
            }
        }
        if refresh.tables.is_empty() {
            self.say(&tables, "no table is stated".to_owned(), None);
        }
    }

    /// What is required of builds must be such that a build can have it.
    fn requires(&mut self, at: &[Step], component: &Component) {
        let path = below(at, &[key("rollout"), key("requires")]);
        for (i, requirement) in component.rollout.requires.iter().enumerate() {
            let Requirement::HooksPassed = requirement;
            let name = &component.name;
            let (message, hint) = if component.commits.is_none() {
                (
                    format!("`{name}` requires HooksPassed, and nothing says which commits its builds are"),
                    "add `commits` with the repository and what names a version's commit there",
                )
            } else if let Some(BuildSource::PackageIndex(_) | BuildSource::Images(_)) = component.source {
                (
                    format!("no build of `{name}` can have HooksPassed"),
                    "files of a package index or an image cannot be compared with a commit's; take builds from a directory",
                )
            } else if component.actions.prepare.is_some() {
                (
                    format!("no build of `{name}` can have HooksPassed: `prepare` makes something else of its files"),
                    "what nodes get is compared with the commit; prepare it in `install`, on the node",
                )
            } else {
                continue;
            };
            self.say(&below(&path, &[Step::Index(i)]), message, Some(hint.to_owned()));
        }
    }

    /// What names the commits of a component's builds.
    fn commits(&mut self, at: &[Step], component: &Component, commits: &BuildCommits) {
        let BuildCommits {
            repository,
            revision,
            path,
        } = commits;
        if component.source.is_none() {
            self.say(
                at,
                format!(
                    "component `{}` has `commits` but no `source` for its builds",
                    component.name
                ),
                Some("add `source`, or remove `commits`".to_owned()),
            );
        }
        self.inside_or_absolute(&below(at, &[key("repository")]), repository, "the workspace");
        if !revision.contains(BuildCommits::VERSION) {
            self.say(
                &below(at, &[key("revision")]),
                format!("`{revision}` names one commit for every version"),
                Some("put VERSION where the version stands, as `refs/tags/vVERSION`".to_owned()),
            );
        }
        if let Some(path) = path {
            self.inside(&below(at, &[key("path")]), path, "the repository");
        }
    }

    /// What a component needs that is upgraded by us.
    fn upgradable(&mut self, at: &[Step], component: &Component) {
        let Component {
            name, actions, service, ..
        } = component;
        if let Some(BuildSource::Images(_)) = component.source {
            self.say(
                &below(at, &[key("source"), key("images")]),
                format!("builds of `{name}` are images, and its nodes are no pods"),
                Some("state a `statefulSet` or a `deployment`, or another source".to_owned()),
            );
        }
        for (action, there) in [
            ("install", actions.install.is_some()),
            ("start", actions.start.is_some()),
            ("stop", actions.stop.is_some()),
        ] {
            if !there {
                self.say(
                    &below(at, &[key("actions")]),
                    format!("component `{name}` is upgraded, but has no action `{action}`"),
                    Some(format!("add `actions.{action}.template`")),
                );
            }
        }
        if service.is_none() {
            self.say(
                at,
                format!("component `{name}` is upgraded, but has no `service`"),
                Some("add `service.pidFile`: without it nobody can see which build runs".to_owned()),
            );
        }
    }

    fn actions(&mut self, at: &[Step], actions: &Actions) {
        for (lifecycle, action) in actions.each() {
            if let Some(action) = action {
                let path = below(at, &[key("actions"), key(lifecycle.word()), key("template")]);
                self.inside(&path, &action.template, "templates/");
            }
        }
    }

    fn secret(&mut self, path: &[Step], name: &str) {
        if self.spec.secrets.contains_key(name) {
            return;
        }
        let near = did_you_mean(name, self.spec.secrets.keys().map(String::as_str));
        self.say(
            path,
            format!("there is no secret `{name}`"),
            Some(near.map_or_else(
                || "define it under `spec.secrets`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            )),
        );
    }

    fn database(&mut self, path: &[Step], name: &str) {
        let there: Vec<&str> = self.spec.databases.iter().map(|d| d.name.as_str()).collect();
        if there.contains(&name) {
            return;
        }
        let near = did_you_mean(name, there.iter().copied());
        self.say(
            path,
            format!("there is no database `{name}`"),
            Some(near.map_or_else(
                || "define it under `spec.databases`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            )),
        );
    }

    fn regex(&mut self, path: &[Step], pattern: &str, group: Option<&str>) {
        match (regex::Regex::new(pattern), group) {
            (Err(why), _) => {
                // The last line of the crate's message says what; the others draw it, and so does our caret.
                let why = why.to_string();
                let last = why
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned();
                self.say(path, format!("`{pattern}` is no regular expression: {last}"), None);
            }
            (Ok(regex), Some(group)) if !regex.capture_names().flatten().any(|g| g == group) => self.say(
                path,
                format!("`{pattern}` has no group `{group}`"),
                Some(format!("mark what is wanted with (?<{group}>…)")),
            ),
            (Ok(_), _) => {}
        }
    }

    fn inside(&mut self, path: &[Step], stated: &str, root: &str) {
        if stated.starts_with('/') || leaves(stated) {
            self.say(
                path,
                format!("`{stated}` is no path below {root}"),
                Some("write it relative, without `..`".to_owned()),
            );
        }
    }

    fn inside_or_absolute(&mut self, path: &[Step], stated: &str, root: &str) {
        if leaves(stated) {
            self.say(
                path,
                format!("`{stated}` is no path below {root}"),
                Some("write a path below it, or an absolute one, without `..`".to_owned()),
            );
        }
    }

    fn unique<'n>(&mut self, path: &[Step], names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for (i, name) in names.enumerate() {
            if !seen.insert(name) {
                self.say(
                    &below(path, &[Step::Index(i), key("name")]),
                    format!("`{name}` is stated twice"),
                    Some("names are unique in their list".to_owned()),
                );
            }
        }
    }
}

fn leaves(stated: &str) -> bool {
    stated.is_empty() || stated.split('/').any(|part| part == "..")
}

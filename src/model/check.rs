//! What a schema cannot say about an environment: everything that refers to something refers to something that is there.

use std::collections::{BTreeMap, BTreeSet};

use super::environment::{Actions, Component, EnvironmentSpec, Traffic};
use super::system::Finding;
use super::text::path::Part as Step;
use super::text::{did_you_mean, is_dns_label};

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
            if let Some(file) = &source.file
                && !file.starts_with('/')
                && file.split('/').any(|part| part == "..")
            {
                self.say(
                    &[key("secrets"), key(name), key("file")],
                    format!("`{file}` leaves the environment's directory"),
                    Some("write a path below it, or an absolute one".to_owned()),
                );
            }
        }
        for (i, report) in spec.reports.iter().enumerate() {
            let given = [report.file.is_some(), report.webhook.is_some(), report.stdout.is_some()];
            let n = given.iter().filter(|g| **g).count();
            if n != 1 {
                self.say(
                    &[key("reports"), Step::Index(i)],
                    format!(
                        "report sink `{}` is of {n} kinds, and must be of exactly one",
                        report.name
                    ),
                    Some("give one of `file`, `webhook` and `stdout`".to_owned()),
                );
            }
            if let Some(webhook) = &report.webhook {
                self.secret(
                    &[key("reports"), Step::Index(i), key("webhook"), key("url")],
                    &webhook.url,
                );
            }
        }
        for (i, database) in spec.databases.iter().enumerate() {
            if let Some(password) = &database.postgres.password {
                let path = [key("databases"), Step::Index(i), key("postgres"), key("password")];
                self.secret(&path, password);
            }
        }
        let names = |list: Vec<&str>| -> Vec<String> { list.into_iter().map(str::to_owned).collect() };
        self.unique(
            &[key("components")],
            &names(spec.components.iter().map(|c| c.name.as_str()).collect()),
        );
        self.unique(
            &[key("databases")],
            &names(spec.databases.iter().map(|d| d.name.as_str()).collect()),
        );
        self.unique(
            &[key("reports")],
            &names(spec.reports.iter().map(|r| r.name.as_str()).collect()),
        );
        let mut nodes: BTreeMap<&str, &str> = BTreeMap::new();
        for (c, component) in spec.components.iter().enumerate() {
            for (n, node) in component.nodes.iter().enumerate() {
                let path = [
                    key("components"),
                    Step::Index(c),
                    key("nodes"),
                    Step::Index(n),
                    key("name"),
                ];
                if !is_dns_label(&node.name) {
                    self.say(
                        &path,
                        format!("`{}` cannot name a node", node.name),
                        Some("use small letters, digits and `-`, at most 63".to_owned()),
                    );
                }
                if let Some(other) = nodes.insert(&node.name, &component.name) {
                    self.say(
                        &path,
                        format!("node `{}` is stated twice, here and in component {other}", node.name),
                        Some("node names are unique in an environment".to_owned()),
                    );
                }
            }
        }
    }

    fn component(&mut self, at: &[Step], component: &Component) {
        let Component {
            name,
            after: _,
            source,
            build,
            service,
            ports: _,
            port_stride: _,
            nodes,
            secrets,
            actions,
            probes: _,
            traffic,
            logs: _,
            queries: _,
            gates,
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
        if nodes.is_empty() {
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
        if source.is_some() {
            self.upgradable(at, component);
        }
        for (i, secret) in secrets.iter().enumerate() {
            self.secret(&below(at, &[key("secrets"), Step::Index(i)]), secret);
        }
        self.actions(at, actions);
        if let Some(service) = service {
            self.inside(
                &below(at, &[key("service"), key("pidFile")]),
                &service.pid_file,
                "the node directory",
            );
        }
        for (i, item) in traffic.iter().enumerate() {
            self.traffic(&below(at, &[key("traffic"), Step::Index(i)]), item);
        }
        self.signals(at, component);
        self.gates(at, component);
        self.unique(
            &below(at, &[key("gates")]),
            &gates.iter().map(|g| g.name.clone()).collect::<Vec<_>>(),
        );
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

    /// What a component needs that is upgraded by us.
    fn upgradable(&mut self, at: &[Step], component: &Component) {
        let Component {
            name, actions, service, ..
        } = component;
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
        let each = [
            ("setup", &actions.setup),
            ("check", &actions.check),
            ("prepare", &actions.prepare),
            ("install", &actions.install),
            ("start", &actions.start),
            ("stop", &actions.stop),
            ("drain", &actions.drain),
            ("admit", &actions.admit),
            ("warm", &actions.warm),
            ("remove", &actions.remove),
        ];
        for (word, action) in each {
            if let Some(action) = action {
                let path = below(at, &[key("actions"), key(word), key("template")]);
                self.inside(&path, &action.template, "templates/");
            }
        }
    }

    fn traffic(&mut self, path: &[Step], item: &Traffic) {
        if !(item.rate > 0.0 && item.rate <= 1000.0) {
            self.say(
                &below(path, &[key("rate")]),
                format!("a rate of {} calls/s cannot be sent", item.rate),
                Some("state one above 0 and at most 1000".to_owned()),
            );
        }
        if item.requests.is_empty() {
            self.say(
                &below(path, &[key("requests")]),
                format!("traffic `{}` has no requests", item.name),
                None,
            );
        }
        if let Some(tls) = &item.tls {
            for (word, secret) in [("ca", &tls.ca), ("certificate", &tls.certificate), ("key", &tls.key)] {
                if let Some(secret) = secret {
                    self.secret(&below(path, &[key("tls"), key(word)]), secret);
                }
            }
            if tls.certificate.is_some() != tls.key.is_some() {
                self.say(
                    &below(path, &[key("tls")]),
                    "a client certificate needs its key, and a key its certificate".to_owned(),
                    None,
                );
            }
        }
        if let Some(before) = &item.before {
            self.database(&below(path, &[key("before"), key("database")]), &before.database);
        }
        if let Some(effect) = &item.effect {
            self.database(&below(path, &[key("effect"), key("database")]), &effect.database);
        }
        for (r, request) in item.requests.iter().enumerate() {
            if let Some(body) = &request.expect.body {
                let path = below(path, &[key("requests"), Step::Index(r), key("expect"), key("body")]);
                self.regex(&path, body, None);
            }
        }
    }

    fn signals(&mut self, at: &[Step], component: &Component) {
        let Component {
            probes,
            logs,
            queries,
            blockers,
            ..
        } = component;
        for (i, probe) in probes.iter().enumerate() {
            let path = below(at, &[key("probes"), Step::Index(i)]);
            if let Some(body) = &probe.http.body {
                self.regex(&below(&path, &[key("http"), key("body")]), body, None);
            }
            if probe.period.0.is_zero() || probe.timeout.0.is_zero() {
                self.say(
                    &path,
                    format!("probe `{}` needs a period and a timeout above 0", probe.name),
                    None,
                );
            }
        }
        for (i, log) in logs.iter().enumerate() {
            let path = below(at, &[key("logs"), Step::Index(i)]);
            self.regex(&below(&path, &[key("end")]), &log.end, None);
            if let Some(start) = &log.start {
                self.regex(&below(&path, &[key("start")]), start, Some("id"));
            }
        }
        for (i, query) in queries.iter().enumerate() {
            let path = below(at, &[key("queries"), Step::Index(i), key("database")]);
            self.database(&path, &query.database);
        }
        if let Some(blockers) = blockers {
            let path = below(at, &[key("blockers")]);
            self.database(&below(&path, &[key("database")]), &blockers.database);
            if let Some(method) = &blockers.method {
                self.regex(&below(&path, &[key("method")]), method, Some("method"));
            }
        }
    }

    fn gates(&mut self, at: &[Step], component: &Component) {
        let mut signals: BTreeSet<String> = BTreeSet::new();
        signals.extend(component.traffic.iter().map(|t| format!("traffic/{}", t.name)));
        signals.extend(component.logs.iter().map(|l| format!("log/{}", l.name)));
        signals.extend(component.queries.iter().map(|q| format!("query/{}", q.name)));
        signals.extend(component.probes.iter().map(|p| format!("probe/{}", p.name)));
        let probes: Vec<&str> = component.probes.iter().map(|p| p.name.as_str()).collect();
        for (i, gate) in component.gates.iter().enumerate() {
            let path = below(at, &[key("gates"), Step::Index(i)]);
            match (&gate.share, &gate.probe) {
                (Some(share), None) => {
                    if !signals.contains(&share.of) {
                        let near = did_you_mean(&share.of, signals.iter().map(String::as_str));
                        let there: Vec<&str> = signals.iter().map(String::as_str).collect();
                        self.say(
                            &below(&path, &[key("share"), key("of")]),
                            format!("component `{}` has no signal `{}`", component.name, share.of),
                            Some(near.map_or_else(
                                || format!("it has {}", there.join(", ")),
                                |near| format!("did you mean `{near}`?"),
                            )),
                        );
                    }
                }
                (None, Some(probe)) => {
                    if !probes.contains(&probe.as_str()) {
                        self.say(
                            &below(&path, &[key("probe")]),
                            format!("component `{}` has no probe `{probe}`", component.name),
                            Some(format!("it has {}", probes.join(", "))),
                        );
                    }
                }
                (Some(_), Some(_)) | (None, None) => self.say(
                    &path,
                    format!("gate `{}` needs exactly one of `share` and `probe`", gate.name),
                    None,
                ),
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
        if stated.is_empty() || stated.starts_with('/') || stated.split('/').any(|part| part == "..") {
            self.say(
                path,
                format!("`{stated}` is no path below {root}"),
                Some("write it relative, without `..`".to_owned()),
            );
        }
    }

    fn unique(&mut self, path: &[Step], names: &[String]) {
        let mut seen = BTreeSet::new();
        for (i, name) in names.iter().enumerate() {
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

/// Components by index, each after those that it needs (Kahn 1962), otherwise as they stand.
pub(super) fn order(spec: &EnvironmentSpec, findings: &mut Vec<Finding>) -> Vec<usize> {
    let index: BTreeMap<&str, usize> = spec
        .components
        .iter()
        .enumerate()
        .map(|(i, c)| (c.name.as_str(), i))
        .collect();
    let mut needs: Vec<BTreeSet<usize>> = Vec::new();
    for (c, component) in spec.components.iter().enumerate() {
        let mut mine = BTreeSet::new();
        for (a, name) in component.after.iter().enumerate() {
            let path = vec![key("components"), Step::Index(c), key("after"), Step::Index(a)];
            if let Some(&other) = index.get(name.as_str()) {
                mine.insert(other);
            } else {
                let near = did_you_mean(name, index.keys().copied());
                findings.push(Finding {
                    path,
                    message: format!("there is no component `{name}`"),
                    hint: near.map(|near| format!("did you mean `{near}`?")),
                });
            }
        }
        needs.push(mine);
    }
    let mut order: Vec<usize> = Vec::new();
    while let Some(next) =
        (0..needs.len()).find(|i| !order.contains(i) && needs[*i].iter().all(|need| order.contains(need)))
    {
        order.push(next);
    }
    if order.len() < needs.len() {
        let circle = circle(&needs, &order);
        let names: Vec<&str> = circle.iter().map(|&i| spec.components[i].name.as_str()).collect();
        findings.push(Finding {
            path: vec![key("components"), Step::Index(circle[0]), key("after")],
            message: format!("`after` goes in a circle: {} after {}", names.join(" after "), names[0]),
            hint: Some("one of them must be able to start first".to_owned()),
        });
    }
    order
}

/// Follows needs from a component that was never free until one comes back.
fn circle(needs: &[BTreeSet<usize>], free: &[usize]) -> Vec<usize> {
    let mut way: Vec<usize> = Vec::new();
    let mut at = (0..needs.len()).find(|i| !free.contains(i)).unwrap_or_default();
    loop {
        if let Some(begin) = way.iter().position(|&seen| seen == at) {
            return way.split_off(begin);
        }
        way.push(at);
        // One that was never free needs another one that was never free.
        match needs[at].iter().find(|need| !free.contains(need)) {
            Some(&next) => at = next,
            None => return way,
        }
    }
}

//! Traffic, probes, logs, queries, and the gates that read them.

use std::collections::BTreeSet;

use super::{Checker, below, key};
use crate::gates::{self, GateError};
use crate::model::environment::{Component, Gate, Log, Probe, ShareGate, Traffic};
use crate::model::log::{LogPatterns, PatternError};
use crate::model::text::did_you_mean;
use crate::model::text::path::Part as Step;

impl Checker<'_> {
    fn traffic(&mut self, path: &[Step], item: &Traffic) {
        if !(item.rate > 0.0 && item.rate <= 1000.0) {
            self.say(
                &below(path, &[key("rate")]),
                format!("a rate of {} calls/s cannot be sent", item.rate),
                Some("state one above 0 and at most 1000".to_owned()),
            );
        }
        if item.concurrency == 0 {
            self.say(
                &below(path, &[key("concurrency")]),
                "a concurrency of 0 sends nothing".to_owned(),
                Some("state at least 1, or leave it out".to_owned()),
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

    pub(super) fn signals(&mut self, at: &[Step], component: &Component) {
        let Component {
            probes,
            traffic,
            logs,
            queries,
            blockers,
            ..
        } = component;
        self.unique(&below(at, &[key("traffic")]), traffic.iter().map(|t| t.name.as_str()));
        self.unique(&below(at, &[key("logs")]), logs.iter().map(|l| l.name.as_str()));
        self.unique(&below(at, &[key("queries")]), queries.iter().map(|q| q.name.as_str()));
        for (i, item) in traffic.iter().enumerate() {
            self.traffic(&below(at, &[key("traffic"), Step::Index(i)]), item);
        }
        for (i, probe) in probes.iter().enumerate() {
            let path = below(at, &[key("probes"), Step::Index(i)]);
            self.probe(&path, probe);
            for other in probes[..i].iter().filter(|other| other.name == probe.name) {
                self.namesake(&path, probe, other);
            }
        }
        for (i, log) in logs.iter().enumerate() {
            let path = below(at, &[key("logs"), Step::Index(i)]);
            self.log(&path, log);
            self.log_path(&path, component, log);
        }
        for (i, query) in queries.iter().enumerate() {
            let path = below(at, &[key("queries"), Step::Index(i)]);
            self.database(&below(&path, &[key("database")]), &query.database);
            if query.period.0.is_zero() {
                self.say(
                    &below(&path, &[key("period")]),
                    format!("query `{}` needs a period above 0", query.name),
                    None,
                );
            }
        }
        if let Some(blockers) = blockers {
            let path = below(at, &[key("blockers")]);
            self.database(&below(&path, &[key("database")]), &blockers.database);
            if let Some(method) = &blockers.method {
                self.regex(&below(&path, &[key("method")]), method, Some("method"));
            }
        }
    }

    fn probe(&mut self, path: &[Step], probe: &Probe) {
        if let Some(body) = &probe.http.body {
            self.regex(&below(path, &[key("http"), key("body")]), body, None);
        }
        if probe.period.0.is_zero() || probe.timeout.0.is_zero() {
            self.say(
                path,
                format!("probe `{}` needs a period and a timeout above 0", probe.name),
                None,
            );
        }
        for (word, threshold) in [
            ("failureThreshold", probe.failure_threshold),
            ("successThreshold", probe.success_threshold),
        ] {
            if threshold == 0 {
                self.say(
                    &below(path, &[key(word)]),
                    format!("{word} of probe `{}` is 0, but at least 1 is needed", probe.name),
                    None,
                );
            }
        }
    }

    /// Probes of one name are one signal, which each build answers in its own way.
    fn namesake(&mut self, path: &[Step], probe: &Probe, other: &Probe) {
        let name = &probe.name;
        if other.builds.overlaps(&probe.builds) {
            self.say(
                &below(path, &[key("name")]),
                format!("two probes `{name}` are for the same builds"),
                Some("give them `builds` that do not overlap, or names of their own".to_owned()),
            );
        }
        for (word, differs) in [
            ("period", other.period != probe.period),
            ("timeout", other.timeout != probe.timeout),
            ("failureThreshold", other.failure_threshold != probe.failure_threshold),
            ("successThreshold", other.success_threshold != probe.success_threshold),
        ] {
            if differs {
                self.say(
                    &below(path, &[key(word)]),
                    format!("another probe `{name}` has another {word}, and a gate reads both as one"),
                    Some("state the same for both, or give them names of their own".to_owned()),
                );
            }
        }
    }

    fn log(&mut self, path: &[Step], log: &Log) {
        if let Some(file) = &log.path {
            self.inside(&below(path, &[key("path")]), file, "the node directory");
        }
        if !(log.rate > 0.0 && log.rate.is_finite()) {
            self.say(
                &below(path, &[key("rate")]),
                format!("`{}` cannot log {} requests a second", log.name, log.rate),
                Some("state about how many one node logs, above 0".to_owned()),
            );
        }
        let before = self.findings.len();
        self.regex(&below(path, &[key("end")]), &log.end, None);
        if let Some(start) = &log.start {
            self.regex(&below(path, &[key("start")]), start, Some("id"));
        }
        if self.findings.len() == before
            && let Err(PatternError { which, why }) = LogPatterns::new(log)
        {
            self.say(&below(path, &[key(which)]), format!("`{}`: {why}", log.name), None);
        }
    }

    /// Servers write files, and containers print.
    fn log_path(&mut self, path: &[Step], component: &Component, log: &Log) {
        let has_servers = component.pods().is_none() || component.servers().next().is_some();
        match (&log.path, has_servers) {
            (None, true) => self.say(
                path,
                format!("`{}` is no pod's alone, and states no `path`", log.name),
                Some("state where servers have its file, relative to the node directory".to_owned()),
            ),
            (Some(_), false) => self.say(
                &below(path, &[key("path")]),
                format!(
                    "`{}` states a file, and of a pod what its container prints is followed",
                    log.name
                ),
                Some("leave `path` out, and let the container print what is to be read".to_owned()),
            ),
            (Some(_), true) | (None, false) => {}
        }
    }

    pub(super) fn gates(&mut self, at: &[Step], component: &Component) {
        let mut signals: BTreeSet<String> = BTreeSet::new();
        signals.extend(component.traffic.iter().map(|t| format!("traffic/{}", t.name)));
        signals.extend(component.logs.iter().map(|l| format!("log/{}", l.name)));
        signals.extend(component.queries.iter().map(|q| format!("query/{}", q.name)));
        signals.extend(component.probes.iter().map(|p| format!("probe/{}", p.name)));
        let probes: Vec<&str> = component.probes.iter().map(|p| p.name.as_str()).collect();
        self.unique(
            &below(at, &[key("gates")]),
            component.gates.iter().map(|g| g.name.as_str()),
        );
        for (i, gate) in component.gates.iter().enumerate() {
            let path = below(at, &[key("gates"), Step::Index(i)]);
            match (&gate.share, &gate.probe) {
                (Some(share), None) => {
                    self.share(&path, component, gate, share);
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

    /// What a share gate needs to be one, and its traffic to be judged by it.
    fn share(&mut self, path: &[Step], component: &Component, gate: &Gate, share: &ShareGate) {
        let over = below(path, &[key("share"), key("over")]);
        let limit = share.limit.fraction();
        // Alpha is split over the nodes of an upgrade; a part of it is as good as all of it here.
        let made = gates::ShareGate::new(
            limit,
            share.over.as_micros(),
            gate.alpha.fraction(),
            gate.beta.fraction(),
        );
        match made {
            Ok(_) => {}
            Err(why @ GateError::Probability { name, .. }) => {
                let place = if name == "limit" {
                    below(path, &[key("share"), key(name)])
                } else {
                    below(path, &[key(name)])
                };
                self.say(&place, format!("gate `{}`: {why}", gate.name), None);
            }
            Err(GateError::Age(_) | GateError::Zero(_)) => self.say(
                &over,
                format!("gate `{}`: every call takes longer than {}", gate.name, share.over),
                Some("state the age from which on a call is bad, as 5s".to_owned()),
            ),
        }
        let earlier = component.gates.iter().take_while(|other| other.name != gate.name);
        let mut shares = earlier.filter_map(|other| Some((&other.name, other.share.as_ref()?)));
        if let Some((other, theirs)) = shares.find(|(_, s)| s.of == share.of && s.over != share.over) {
            self.say(
                &over,
                format!(
                    "gates `{other}` and `{}` read {} with different ages, {} and {}",
                    gate.name, share.of, theirs.over, share.over
                ),
                Some("give each a signal of its own".to_owned()),
            );
        }
        let mut traffic = component.traffic.iter();
        if let Some(traffic) = traffic.find(|t| share.of == format!("traffic/{}", t.name))
            && traffic.timeout.0 < share.over.0
        {
            self.say(
                &over,
                format!(
                    "traffic `{}` gives a call up after {}, before gate `{}` would count it as late",
                    traffic.name, traffic.timeout, gate.name
                ),
                Some("raise the traffic's `timeout`, or lower `over`".to_owned()),
            );
        }
    }
}

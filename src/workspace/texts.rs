//! Every text of an environment is rendered once as it will be, for each node, so that a hole in one is found before
//! anything is touched.

use std::cell::OnceCell;

use serde_json::{Value, json};

use crate::http::Connections;
use crate::model::build::BuildRef;
use crate::model::environment::{Component, PostgresAddress, Probe, Request, Traffic};
use crate::model::lifecycle::Lifecycle;
use crate::model::manifest::{self, Manifest, ManifestError};
use crate::model::render::{RenderError, Renderer, Variables};
use crate::model::system::{Environment, NodeSite};
use crate::model::target::Target;
use crate::model::text::Path;
use crate::model::values::Digest;
use crate::report;
use crate::signals::http::{self, CallError, HttpCall};

/// A text that does not become what it should.
pub(super) struct Fault {
    /// Where the document states it.
    pub(super) path: Path,
    pub(super) why: Why,
}

pub(super) enum Why {
    Render(RenderError),
    /// It renders, to something that cannot be used.
    Unusable(String),
}

/// Everything that is wrong with an environment's texts. Actions whose template is missing are not looked at.
pub(super) fn faults(environment: &Environment, templates: &Renderer) -> Vec<Fault> {
    let mut trial = Trial::new(environment, templates);
    let spec = Path::root().key("spec");
    for (i, database) in environment.spec.databases.iter().enumerate() {
        trial.database(&spec.key("databases").index(i).key("postgres"), &database.postgres);
    }
    for (c, component) in environment.spec.components.iter().enumerate() {
        trial.component(&spec.key("components").index(c), component);
        trial.manifests(&spec.key("components").index(c), component);
    }
    for (i, sink) in environment.spec.reports.iter().enumerate() {
        let Some(template) = sink.template.as_ref().filter(|template| templates.has(template)) else {
            continue;
        };
        let component = environment.spec.components.first().map_or("", |c| c.name.as_str());
        if let Some(error) = report::trouble(templates, template, &environment.name, component) {
            trial.fault(&spec.key("reports").index(i).key("template"), Why::Render(error));
        }
    }
    trial.faults
}

/// What is wrong with the statements of a rehearsal's disturbances.
pub(super) fn hold_row_fault(environment: &Environment, templates: &Renderer, path: &Path, sql: &str) -> Option<Fault> {
    let mut trial = Trial::new(environment, templates);
    trial.text(path, sql, &environment.context("", None, None));
    trial.faults.pop()
}

struct Trial<'a> {
    environment: &'a Environment,
    templates: &'a Renderer,
    /// Made when it is needed; it sends nothing.
    client: OnceCell<Option<reqwest::Client>>,
    faults: Vec<Fault>,
}

impl<'a> Trial<'a> {
    fn new(environment: &'a Environment, templates: &'a Renderer) -> Self {
        Self {
            environment,
            templates,
            client: OnceCell::new(),
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, path: &Path, why: Why) {
        self.faults.push(Fault {
            path: path.clone(),
            why,
        });
    }

    fn text(&mut self, path: &Path, text: &str, context: &Value) -> Option<String> {
        match self.templates.render_text(text, context) {
            Ok(text) => Some(text),
            Err(error) => {
                self.fault(path, Why::Render(error));
                None
            }
        }
    }

    fn database(&mut self, at: &Path, address: &PostgresAddress) {
        let PostgresAddress {
            host,
            port,
            database,
            user,
            password: _,
        } = address;
        let context = self.environment.context("", None, None);
        for (key, text) in [("host", host), ("database", database), ("user", user)] {
            self.text(&at.key(key), text, &context);
        }
        let path = at.key("port");
        if let Some(port) = self.text(&path, port, &context)
            && port.trim().parse::<u16>().is_err()
        {
            self.fault(
                &path,
                Why::Unusable(format!("it renders to `{port}`, which is no port")),
            );
        }
    }

    fn component(&mut self, at: &Path, component: &Component) {
        let build = example(component);
        let sites = self.environment.sites(&component.name);
        for (lifecycle, action) in component.actions.each() {
            let Some(action) = action.filter(|a| self.templates.has(&a.template)) else {
                continue;
            };
            let path = at.key("actions").key(lifecycle.word()).key("template");
            let build = build.as_ref().filter(|_| lifecycle.is_told_build(component));
            // A build is prepared once, before any node is chosen.
            let places: Vec<Option<&NodeSite>> = if lifecycle == Lifecycle::Prepare {
                vec![None]
            } else {
                sites.iter().map(Some).collect()
            };
            for site in places {
                let context = self.environment.context(&component.name, site, build);
                let rendered = Variables::new(&context).and_then(|v| self.templates.render(&action.template, &v));
                if let Err(error) = rendered {
                    self.fault(&path, Why::Render(error));
                }
            }
        }
        for site in sites {
            let context = self.environment.context(&component.name, Some(site), build.as_ref());
            for (i, probe) in component.probes.iter().enumerate() {
                self.probe(&at.key("probes").index(i), probe, &context);
            }
            for (i, query) in component.queries.iter().enumerate() {
                self.text(&at.key("queries").index(i).key("sql"), &query.sql, &context);
            }
            let mut context = context;
            context["call"] = json!({"id": 1});
            for (i, traffic) in component.traffic.iter().enumerate() {
                self.traffic(&at.key("traffic").index(i), traffic, &context);
            }
        }
    }

    /// Of an environment without a target nobody makes the objects: its replicas have them rendered.
    fn manifests(&mut self, at: &Path, component: &Component) {
        let Some(Target::Kubernetes(target)) = &self.environment.spec.target else {
            return;
        };
        let (environment, templates) = (self.environment, self.templates);
        for (i, template) in component.manifests.iter().enumerate() {
            if !templates.has(template) {
                continue;
            }
            let path = at.key("manifests").index(i);
            match manifest::of(environment, component, template, templates, &target.namespace) {
                Ok(manifests) => {
                    let elsewhere = manifests
                        .iter()
                        .find(|m| !["", target.namespace.as_str()].contains(&m.id.namespace.as_str()));
                    if let Some(Manifest { id, .. }) = elsewhere {
                        let why = format!(
                            "`{template}` puts {id} into namespace `{}`, and the target is `{}`; leave `metadata.namespace` out",
                            id.namespace, target.namespace
                        );
                        self.fault(&path, Why::Unusable(why));
                    }
                }
                Err(ManifestError::Render { source, .. }) => self.fault(&path, Why::Render(source)),
                Err(no_object @ ManifestError::NoObject { .. }) => {
                    self.fault(&path, Why::Unusable(no_object.to_string()));
                }
            }
        }
    }

    fn probe(&mut self, at: &Path, probe: &Probe, context: &Value) {
        let at = at.key("http");
        if self.text(&at.key("url"), &probe.http.url, context).is_none() {
            return;
        }
        if let Some(client) = self.client()
            && let Err(error) = HttpCall::probe(client, &probe.http, context)
        {
            self.unsendable(&at, error);
        }
    }

    fn traffic(&mut self, at: &Path, traffic: &Traffic, context: &Value) {
        if let Some(name) = traffic.tls.as_ref().and_then(|tls| tls.server_name.as_ref()) {
            self.text(&at.key("tls").key("serverName"), name, context);
        }
        if let Some(before) = &traffic.before {
            self.text(&at.key("before").key("sql"), &before.sql, context);
        }
        if let Some(effect) = &traffic.effect {
            self.text(&at.key("effect").key("sql"), &effect.sql, context);
            self.text(&at.key("effect").key("equals"), &effect.equals, context);
        }
        for (i, request) in traffic.requests.iter().enumerate() {
            self.request(&at.key("requests").index(i), request, context);
        }
    }

    fn request(&mut self, at: &Path, request: &Request, context: &Value) {
        let before = self.faults.len();
        self.text(&at.key("url"), &request.url, context);
        for (part, fields) in [("headers", &request.headers), ("form", &request.form)] {
            for (name, text) in fields {
                self.text(&at.key(part).key(name), text, context);
            }
        }
        if let Some(json) = &request.json {
            self.text(&at.key("json"), json, context);
        }
        if self.faults.len() == before
            && let Some(client) = self.client()
            && let Err(error) = HttpCall::new(client, request, None, None, context)
        {
            self.unsendable(at, error);
        }
    }

    fn client(&self) -> Option<reqwest::Client> {
        let made = self
            .client
            .get_or_init(|| http::client(None, None, Connections::Fresh, None).ok());
        made.clone()
    }

    fn unsendable(&mut self, at: &Path, error: CallError) {
        match error {
            CallError::Render { source, .. } => self.fault(at, Why::Render(source)),
            CallError::Unusable { part, why } if matches!(part.as_str(), "url" | "method" | "json" | "headers") => {
                self.fault(&at.key(part), Why::Unusable(why));
            }
            CallError::Unusable { part, why } => self.fault(at, Why::Unusable(format!("{part}: {why}"))),
        }
    }
}

/// A build to render for; which one does not matter, since texts may not depend on a version that is yet to come.
fn example(component: &Component) -> Option<BuildRef> {
    component.source.as_ref()?;
    let version = component.build.clone().unwrap_or_else(|| "1.0".to_owned());
    Some(BuildRef {
        name: format!("{}-{version}", component.name),
        digest: Digest::of(version.as_bytes()),
        version,
    })
}

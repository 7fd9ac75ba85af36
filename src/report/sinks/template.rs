//! A site's own words for what happened.

use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::model::render::{RenderError, Renderer, Variables};
use crate::model::upgrade::Severity;
use crate::report::{Report, Sink, SinkError};

/// As the shipped texts are bounded, for the chat with the smallest limit.
const LONGEST: usize = 1_800;

/// Tells a sink in a template's words. Where the template does not render, the shipped text is told, and that it was not rendered.
pub struct TemplateSink {
    template: String,
    renderer: Renderer,
    sink: Box<dyn Sink>,
}

impl TemplateSink {
    /// This template's words, to this sink.
    #[must_use]
    pub fn new(template: impl Into<String>, renderer: Renderer, sink: Box<dyn Sink>) -> Self {
        Self {
            template: template.into(),
            renderer,
            sink,
        }
    }

    fn in_its_words(&self, report: &Report) -> Report {
        let Self { template, renderer, .. } = self;
        let text = match rendered(renderer, template, report) {
            Ok(text) => format!("{text}{}", report.aside),
            Err(why) => {
                tracing::warn!(
                    sink = self.sink.name(),
                    template,
                    why,
                    "its template was not rendered; the shipped text is told"
                );
                format!(
                    "{} (template {template} was not rendered: see `stagegate lint`)",
                    report.text
                )
            }
        };
        Report { text, ..report.clone() }
    }
}

impl Sink for TemplateSink {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        async move { self.sink.deliver(&self.in_its_words(report)).await }.boxed()
    }

    fn passes_over<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        async move { self.sink.passes_over(&self.in_its_words(report)).await }.boxed()
    }
}

fn rendered(renderer: &Renderer, template: &str, report: &Report) -> Result<String, String> {
    let text = Variables::new(&variables(report))
        .and_then(|variables| renderer.render(template, &variables))
        .map_err(|why| why.to_string())?;
    let text = bounded(&text);
    if text.is_empty() {
        return Err("it says nothing".to_owned());
    }
    Ok(text)
}

/// Several lines, without what could steer a terminal.
fn bounded(text: &str) -> String {
    let clean = text.trim().chars().filter(|c| *c == '\n' || !c.is_control());
    clean.take(LONGEST).collect()
}

/// What a template may say. Each is there for every report; what a report does not have is empty.
fn variables(report: &Report) -> Value {
    let Report {
        text,
        seq,
        at,
        environment,
        upgrade,
        promotion,
        component,
        version,
        node,
        user,
        reason,
        severity,
        message,
        aside: _,
        missing,
        dedupe_key,
        audit_head,
    } = report;
    json!({
        "text": text, "seq": seq, "at": at, "environment": environment, "component": component, "version": version,
        "user": user, "reason": reason, "severity": severity, "message": message, "missing": missing,
        "dedupe_key": dedupe_key,
        "upgrade": upgrade.as_deref().unwrap_or_default(),
        "promotion": promotion.as_deref().unwrap_or_default(),
        "node": node.as_deref().unwrap_or_default(),
        "audit_head": audit_head.as_deref().unwrap_or_default(),
    })
}

/// Reports that a template is tried with: a step of a node, and an alert of a promotion as a whole.
fn examples(environment: &str, component: &str) -> [Report; 3] {
    let step = Report {
        text: format!("{component}@1.0 upgrade on: node1."),
        seq: 1,
        at: Timestamp::UNIX_EPOCH,
        environment: environment.to_owned(),
        upgrade: Some(format!("{component}-1.0-abcd")),
        promotion: None,
        component: component.to_owned(),
        version: "1.0".to_owned(),
        node: Some("node1".to_owned()),
        user: "somebody".to_owned(),
        reason: "NodeUpgraded".to_owned(),
        severity: Severity::Step,
        message: "why".to_owned(),
        aside: String::new(),
        missing: 0,
        dedupe_key: "home-1".to_owned(),
        audit_head: None,
    };
    let alert = Report {
        promotion: step.upgrade.clone(),
        node: None,
        reason: "PromotionFailed".to_owned(),
        severity: Severity::Alert,
        ..step.clone()
    };
    let of_environment = Report {
        upgrade: None,
        node: None,
        component: String::new(),
        version: String::new(),
        reason: "FreezeBegun".to_owned(),
        ..step.clone()
    };
    [step, alert, of_environment]
}

/// Why a template does not render, or says nothing, for one of the examples.
pub(crate) fn trouble(renderer: &Renderer, template: &str, environment: &str, component: &str) -> Option<RenderError> {
    examples(environment, component).iter().find_map(|report| {
        let variables = Variables::new(&variables(report));
        match variables.and_then(|v| renderer.render(template, &v)) {
            Ok(text) if bounded(&text).is_empty() => Some(RenderError::Broken {
                template: template.to_owned(),
                line: 1,
                column: 1,
                why: format!(
                    "it says nothing of {} ({:?}); which reports a sink is told says its `only`",
                    report.reason, report.severity
                ),
            }),
            said => said.err(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    fn said(template: &str, aside: &str) -> String {
        struct Keeps(Arc<Mutex<String>>);
        impl Sink for Keeps {
            fn name(&self) -> &'static str {
                "keeps"
            }
            fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
                self.0.lock().expect("no panic").clone_from(&report.text);
                async { Ok(()) }.boxed()
            }
        }
        let texts = BTreeMap::from([("t".to_owned(), template.to_owned())]);
        let renderer = Renderer::new(&texts).expect("it parses");
        let kept = Arc::new(Mutex::default());
        let sink = TemplateSink::new("t", renderer, Box::new(Keeps(Arc::clone(&kept))));
        let mut report = examples("staging", "web")[0].clone();
        report.add(aside);
        futures::executor::block_on(sink.deliver(&report)).expect("told");
        kept.lock().expect("no panic").clone()
    }

    #[test]
    fn what_would_not_be_told_as_it_is_written_is_found_before() {
        let found = |template: &str| {
            let texts = BTreeMap::from([("t".to_owned(), template.to_owned())]);
            let renderer = Renderer::new(&texts).expect("it parses");
            trouble(&renderer, "t", "staging", "web").map(|why| why.to_string())
        };
        assert_eq!(found("{{ component }} {{ reason }}"), None);
        for (template, expected) in [
            ("{{ nobody }}", "`nobody` is not defined"),
            (
                "{% if severity == \"alert\" %}{{ text }}{% endif %}",
                "says nothing of NodeUpgraded (Step)",
            ),
            ("{{ component }}", "says nothing of FreezeBegun (Step)"),
        ] {
            let why = found(template).unwrap_or_default();
            assert!(why.contains(expected), "{template}: {why}");
        }
    }

    #[test]
    fn a_template_says_it_and_what_cannot_be_rendered_is_told_as_shipped() {
        for (template, expected) in [
            (
                "{{ component }} {{ version }} on {{ node }}\n{{ message }}\u{1b}[2J\n",
                "web 1.0 on node1\nwhy[2J",
            ),
            (
                "{% if promotion %}of {{ promotion }}{% else %}alone{% endif %}",
                "alone",
            ),
            (
                "{{ nobody }}",
                "web@1.0 upgrade on: node1. (template t was not rendered: see `stagegate lint`)",
            ),
            (
                " \n",
                "web@1.0 upgrade on: node1. (template t was not rendered: see `stagegate lint`)",
            ),
        ] {
            assert_eq!(said(template, ""), expected, "{template}");
        }
        assert_eq!(said("{{ node }}", " (late)"), "node1 (late)");
        assert_eq!(said(&"x".repeat(4_000), "").len(), LONGEST);
    }
}

//! A sink that is told a part of it.

use futures::future::BoxFuture;

use crate::model::sinks::{Only, ThreadKind};
use crate::report::{Report, Sink, SinkError};

/// Passes over what its sink is not to be told. That is decided when it is delivered, by the file as it is then: who asks for
/// less does not get what waited.
pub struct OnlySink {
    only: Only,
    sink: Box<dyn Sink>,
}

impl OnlySink {
    /// Of all reports these, to this sink.
    #[must_use]
    pub fn new(only: Only, sink: Box<dyn Sink>) -> Self {
        Self { only, sink }
    }
}

impl Sink for OnlySink {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn wants(&self, report: &Report) -> bool {
        is_wanted(&self.only, report) && self.sink.wants(report)
    }

    fn passes_over<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        self.sink.passes_over(report)
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        self.sink.deliver(report)
    }
}

fn is_wanted(only: &Only, report: &Report) -> bool {
    let Only {
        severity,
        reasons,
        components,
        threads,
    } = only;
    severity.is_none_or(|wanted| wanted == report.severity)
        && reasons.as_ref().is_none_or(|wanted| wanted.contains(&report.reason))
        && components
            .as_ref()
            .is_none_or(|wanted| wanted.contains(&report.component))
        && threads.as_ref().is_none_or(|wanted| wanted.contains(&kind(report)))
}

fn kind(report: &Report) -> ThreadKind {
    if report.promotion.is_some() {
        ThreadKind::Promotion
    } else if report.upgrade.is_some() {
        ThreadKind::Upgrade
    } else {
        ThreadKind::Environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_told_is_all_that_is_asked_for() {
        for (only, wanted) in [
            (json!({}), "alert-of-up step-of-p1 step-of-none"),
            (json!({"severity": "alert"}), "alert-of-up"),
            (json!({"severity": "step"}), "step-of-p1 step-of-none"),
            (
                json!({"reasons": ["Rolling", "FreezeBegun"]}),
                "step-of-p1 step-of-none",
            ),
            (json!({"components": ["web"]}), "alert-of-up step-of-p1"),
            (json!({"components": ["db"]}), ""),
            (json!({"threads": ["upgrade"]}), "alert-of-up"),
            (
                json!({"threads": ["promotion", "environment"]}),
                "step-of-p1 step-of-none",
            ),
            (json!({"threads": ["promotion"], "severity": "alert"}), ""),
        ] {
            let told: Vec<String> = [
                ("alert", Some("up"), None, "web", "GateFailed"),
                ("step", Some("up"), Some("p1"), "web", "Rolling"),
                ("step", None, None, "", "FreezeBegun"),
            ]
            .into_iter()
            .filter_map(|(severity, upgrade, promotion, component, reason)| {
                let report: Report = serde_json::from_value(json!({
                    "text": "", "seq": 1, "at": "2026-01-01T00:00:00Z", "environment": "staging", "upgrade": upgrade,
                    "promotion": promotion, "component": component, "version": "1", "user": "", "reason": reason,
                    "severity": severity, "dedupeKey": "home-1",
                }))
                .expect("a report");
                let only: Only = serde_json::from_value(only.clone()).expect("a filter");
                let of = promotion.or(upgrade).unwrap_or("none");
                is_wanted(&only, &report).then(|| format!("{severity}-of-{of}"))
            })
            .collect();
            assert_eq!(told.join(" "), wanted, "{only}");
        }
    }
}

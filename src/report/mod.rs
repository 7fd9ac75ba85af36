//! Telling people: every event becomes a [`Report`] for each sink, waits in the store's outbox, and is delivered by the
//! [`Courier`] at least once, in order within its thread (an upgrade), with a key that lets a receiver drop a repeat (I5).
//!
//! A report is rendered when its event is written, in the same transaction: what was said then is what is delivered, by
//! whichever process delivers it.

mod complaints;
mod courier;
mod sinks;
mod texts;

use futures::future::{BoxFuture, FutureExt as _, ready};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(crate) use complaints::{Complaints, Word};
pub use courier::{Clock, Courier, Tally, backoff, spread};
pub(crate) use sinks::trouble;
pub use sinks::{
    ChatSink, FileSink, LONGEST_RETRY_AFTER, LineSink, Lines, MailSink, Mattermost, OnlySink, SERVER_TIMEOUT, Slack,
    TemplateSink, WebhookError, WebhookSink,
};
pub use texts::{in_one_line, text};

use crate::model::upgrade::Severity;
use crate::store::{Dispatch, EventRecord};

/// What is told later than this says when it happened: after an outage, or sent again.
const LATE: SignedDuration = SignedDuration::from_mins(10);

/// What a sink gets; as JSON, what a webhook posts and a file keeps a line of. `text` comes first: chats show it and
/// ignore the rest, which is for programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What happened, in the operators' words.
    pub text: String,
    /// Number of the event in its home.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The environment.
    pub environment: String,
    /// The upgrade, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
    /// The promotion, if it belongs to one: its thread is told in one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<String>,
    /// The component that is upgraded.
    pub component: String,
    /// The version that it is upgraded to.
    pub version: String,
    /// The node, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Who asked for it.
    pub user: String,
    /// What happened, one word for programs.
    pub reason: String,
    /// How much it matters.
    pub severity: Severity,
    /// The event's own words, in one bounded line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What the courier has to add to its text.
    #[serde(skip)]
    aside: String,
    /// Reports of its thread right before it that this sink refused for good; the courier adds it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: u64,
    /// The same for every repeat of this report, and for no other report.
    pub dedupe_key: String,
    /// Where the audit ended when it was written (`stagegate audit verify --against`); the store adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_head: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(missing: &u64) -> bool {
    *missing == 0
}

impl Report {
    fn add(&mut self, aside: &str) {
        self.text.push_str(aside);
        self.aside.push_str(aside);
    }

    /// As it is told long after it happened.
    fn told_at(mut self, now: Timestamp) -> Self {
        if now.duration_since(self.at) > LATE {
            self.add(&format!(" (at {})", self.at.strftime("%Y-%m-%d %H:%M:%SZ")));
        }
        self
    }

    /// As it is told where some before it were not.
    fn after_a_gap(mut self, missing: u64) -> Self {
        let gap = match missing {
            0 => return self,
            1 => "1 report before this one was".to_owned(),
            more => format!("{more} reports before this one were"),
        };
        self.missing = missing;
        self.add(&format!(" ({gap} refused here: stagegate reports list)"));
        self
    }

    /// What it is told in order with: its promotion, or its upgrade, or what happens to its environment.
    #[must_use]
    pub fn thread(&self) -> String {
        match self.promotion.as_ref().or(self.upgrade.as_ref()) {
            Some(name) => name.clone(),
            // A name that no upgrade has.
            None => format!("environment/{}", self.environment),
        }
    }
}

/// What the events of one upgrade are about: what its spec says and an event does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The component.
    pub component: String,
    /// Name of the build (`COMPONENT-VERSION`).
    pub build: String,
    /// Who asked for it.
    pub user: String,
}

impl Subject {
    /// The build's version: its name without the component's.
    #[must_use]
    pub fn version(&self) -> &str {
        self.build
            .strip_prefix(self.component.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
            .unwrap_or(&self.build)
    }
}

/// The report of an event.
#[must_use]
pub fn report(home: &str, subject: &Subject, record: &EventRecord) -> Report {
    let EventRecord {
        seq,
        environment,
        upgrade,
        promotion,
        event,
    } = record;
    Report {
        text: text(subject, record),
        seq: *seq,
        at: event.at,
        environment: environment.clone(),
        upgrade: upgrade.clone(),
        promotion: promotion.clone(),
        component: subject.component.clone(),
        version: subject.version().to_owned(),
        node: event.node.clone(),
        user: subject.user.clone(),
        reason: event.reason.clone(),
        severity: event.severity,
        message: in_one_line(&event.message),
        aside: String::new(),
        missing: 0,
        dedupe_key: format!("{home}-{seq}"),
        audit_head: None,
    }
}

/// What a commit needs to turn its events into reports: one for each of these sinks.
#[expect(
    clippy::missing_panics_doc,
    reason = "a report is texts and numbers, which JSON always takes"
)]
pub fn dispatcher<'a>(
    home: &'a str,
    subject: &'a Subject,
    sinks: &'a [String],
) -> impl Fn(&EventRecord) -> Vec<Dispatch> + 'a {
    move |record| {
        let report = report(home, subject, record);
        let thread = report.thread();
        let payload = serde_json::to_value(&report).expect("a report is plain text and numbers");
        sinks
            .iter()
            .map(|sink| Dispatch {
                sink: sink.clone(),
                thread: thread.clone(),
                dedupe_key: report.dedupe_key.clone(),
                payload: payload.clone(),
            })
            .collect()
    }
}

/// Where reports go.
pub trait Sink: Send + Sync {
    /// Its name in the environment, and in the outbox.
    fn name(&self) -> &str;
    /// Whether it is told of this one. What it is not told of is passed over, as if it had never been for it.
    fn wants(&self, _report: &Report) -> bool {
        true
    }
    /// Takes note of one that it is not told of: what it shows of a whole thread is to be true all the same.
    fn passes_over<'a>(&'a self, _report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        ready(Ok(())).boxed()
    }
    /// Delivers one report; `Ok` only when the other side has it for good. May be asked for the same report again.
    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// Why a report was not delivered. The words go into the outbox: they carry no secrets (I8).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It may work later.
    #[error("{why}")]
    Later {
        /// What went wrong.
        why: String,
        /// How long the other side asks us to wait.
        after: Option<Duration>,
    },
    /// This report will never be taken.
    #[error("{why}")]
    Never {
        /// What went wrong.
        why: String,
    },
}

impl SinkError {
    /// It may work later.
    pub fn later(why: impl Into<String>) -> Self {
        Self::Later {
            why: why.into(),
            after: None,
        }
    }
}

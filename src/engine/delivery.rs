//! Where an environment's reports go, and who carries them there. The outbox is the home's: a sink has its environment
//! before its name there, since two environments may both call theirs `chat`.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::fleet::Fleet;
use super::session;
use crate::home::{Home, make_private};
use crate::http::{HttpOptions, Route};
use crate::model::sinks::ReportSink;
use crate::model::upgrade::Event;
use crate::model::values::Digest;
use crate::report::{
    self, ChatSink, Clock, Courier, FileSink, LineSink, Lines, MailSink, Mattermost, OnlySink, Sink, Slack, Subject,
    TemplateSink, WebhookError, WebhookSink,
};
use crate::secrets::SecretError;
use crate::store::{EventRecord, Store, StoreError, UpgradeRecord};

/// Why an environment's reports cannot be carried.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The address of a webhook is a secret.
    #[error("report sink {sink}: {source}")]
    Secret {
        /// Which sink.
        sink: String,
        /// What is wrong.
        source: SecretError,
    },
    /// The address cannot be used.
    #[error("report sink {sink}: {source}")]
    Webhook {
        /// Which sink.
        sink: String,
        /// What is wrong.
        source: WebhookError,
    },
    /// A chat or a mail server cannot be spoken to.
    #[error("report sink {sink}: {why}")]
    Chat {
        /// Which sink.
        sink: String,
        /// What is wrong.
        why: String,
    },
    /// The directory of a file cannot be made.
    #[error("report sink {sink}: cannot make {directory}: {source}")]
    Directory {
        /// Which sink.
        sink: String,
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Names of the sinks that an environment's reports go to, as the outbox has them.
#[must_use]
pub fn sinks(fleet: &Fleet) -> Vec<String> {
    let stated = fleet.environment.spec.reports.iter();
    stated.map(|sink| outbox_name(fleet, sink)).collect()
}

fn outbox_name(fleet: &Fleet, sink: &ReportSink) -> String {
    format!("{}/{}", fleet.environment.name, sink.name)
}

/// Whoever drains an environment's outbox, and the sinks that cannot be made ready: their reports wait, and hold nothing up.
/// `lines` is what the sink `stdout` writes to; without, its reports wait for the one whose they are.
#[must_use]
pub fn courier(home: &Home, fleet: &Fleet, lines: Option<&Arc<dyn Lines>>) -> (Courier, Vec<DeliveryError>) {
    let stated = fleet.environment.spec.reports.iter();
    let (mut sinks, mut troubles) = (Vec::<Box<dyn Sink>>::new(), Vec::new());
    for stated in stated {
        match sink(home, fleet, stated, lines) {
            Ok(Some(sink)) => sinks.push(told_as_stated(fleet, stated, sink)),
            // Somebody else's.
            Ok(None) => {}
            Err(why) => troubles.push(why),
        }
    }
    let store: Arc<dyn Store> = Arc::clone(home.store()) as Arc<dyn Store>;
    (Courier::new(store, sinks, Arc::new(Timestamp::now)), troubles)
}

/// In its template's words, and only what it is to be told.
/// Of all that an environment's sinks are made of: how they are stated, what their secrets hold, and the templates. A text that is rendered may include
/// any other.
#[must_use]
pub fn made_of(fleet: &Fleet) -> Digest {
    let stated = &fleet.environment.spec.reports;
    let mut parts = format!("{stated:?}").into_bytes();
    for (name, text) in fleet.renderer().sources() {
        parts.extend(format!("{name:?} {text:?}").into_bytes());
    }
    for name in stated.iter().flat_map(ReportSink::secrets) {
        match fleet.secrets.read(name) {
            Ok(secret) => parts.extend(Digest::of(&secret).to_string().into_bytes()),
            Err(why) => parts.extend(why.to_string().into_bytes()),
        }
    }
    Digest::of(&parts)
}

fn told_as_stated(fleet: &Fleet, stated: &ReportSink, sink: Box<dyn Sink>) -> Box<dyn Sink> {
    let sink = match &stated.template {
        Some(template) => Box::new(TemplateSink::new(template, fleet.renderer().clone(), sink)),
        None => sink,
    };
    match &stated.only {
        Some(only) => Box::new(OnlySink::new(only.clone(), sink)),
        None => sink,
    }
}

fn sink(
    home: &Home,
    fleet: &Fleet,
    stated: &ReportSink,
    lines: Option<&Arc<dyn Lines>>,
) -> Result<Option<Box<dyn Sink>>, DeliveryError> {
    let ReportSink {
        name,
        only: _,
        template: _,
        file,
        webhook,
        stdout,
        slack,
        mattermost,
        email,
    } = stated;
    let secret = |source| DeliveryError::Secret {
        sink: name.clone(),
        source,
    };
    let chat = |why| DeliveryError::Chat {
        sink: name.clone(),
        why,
    };
    let clock: Clock = Arc::new(Timestamp::now);
    let store = Arc::clone(home.store()) as Arc<dyn Store>;
    let outbox = outbox_name(fleet, stated);
    if let Some(file) = file {
        let directory = home.environment(&fleet.environment.name);
        make_private(&directory).map_err(|source| DeliveryError::Directory {
            sink: name.clone(),
            directory: directory.clone(),
            source,
        })?;
        return Ok(Some(Box::new(FileSink::new(outbox, directory.join(&file.path)))));
    }
    if let Some(webhook) = webhook {
        let url = fleet.secrets.text(&webhook.url).map_err(secret)?;
        let key = |name: &String| Ok((name.clone(), fleet.secrets.text(name)?));
        let keys: Result<Vec<_>, SecretError> = webhook.signed_by.iter().map(key).collect();
        let options = HttpOptions {
            route: Route::out_to(&url),
            ..HttpOptions::default()
        };
        let sink = WebhookSink::new(outbox, &url, &keys.map_err(secret)?, &options, clock);
        return Ok(Some(Box::new(sink.map_err(|source| DeliveryError::Webhook {
            sink: name.clone(),
            source,
        })?)));
    }
    if let Some(stated) = slack {
        let token = fleet.secrets.text(&stated.token).map_err(secret)?;
        let slack = Slack::new(stated, &token, Arc::clone(&clock)).map_err(chat)?;
        return Ok(Some(Box::new(ChatSink::new(outbox, slack, store, clock))));
    }
    if let Some(stated) = mattermost {
        let token = fleet.secrets.text(&stated.token).map_err(secret)?;
        let ca = stated.ca.as_deref().map(|ca| fleet.secrets.read(ca)).transpose();
        let mattermost = Mattermost::new(stated, &token, ca.map_err(secret)?, Arc::clone(&clock)).map_err(chat)?;
        return Ok(Some(Box::new(ChatSink::new(outbox, mattermost, store, clock))));
    }
    if let Some(stated) = email {
        let password = stated
            .password
            .as_deref()
            .map(|name| fleet.secrets.text(name))
            .transpose();
        let ca = stated.ca.as_deref().map(|name| fleet.secrets.read(name)).transpose();
        let (password, ca) = (password.map_err(secret)?, ca.map_err(secret)?);
        let mail = MailSink::new(outbox, stated, password.as_deref(), ca.as_deref(), store, clock).map_err(chat)?;
        return Ok(Some(Box::new(mail)));
    }
    let lines = lines.filter(|_| stdout.is_some());
    Ok(lines.map(|lines| Box::new(LineSink::new(outbox, Arc::clone(lines))) as Box<dyn Sink>))
}

/// Writes down what happened to an environment outside of any upgrade, with its reports.
///
/// # Errors
/// The state cannot be written.
pub fn append(home: &Home, fleet: &Fleet, user: &str, events: &[Event]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let subject = Subject {
        component: String::new(),
        build: String::new(),
        user: user.to_owned(),
    };
    let (store, sinks) = (home.store(), sinks(fleet));
    let dispatch = report::dispatcher(store.home(), &subject, &sinks);
    store.append(&fleet.environment.name, None, events, &dispatch)?;
    Ok(())
}

/// Whether events reach standard error as reports already, so that whoever drives must not say them too.
#[must_use]
pub fn tells_stderr(fleet: &Fleet) -> bool {
    fleet.environment.spec.reports.iter().any(|r| r.stdout.is_some())
}

/// An event of an upgrade, as a report says it.
#[must_use]
pub fn line(upgrade: &UpgradeRecord, event: &Event) -> String {
    let record = EventRecord {
        seq: 0,
        environment: upgrade.spec.environment.clone(),
        upgrade: Some(upgrade.name.clone()),
        promotion: None,
        event: event.clone(),
    };
    report::text(&session::subject(&upgrade.spec), &record)
}

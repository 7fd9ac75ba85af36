//! Mail: a report is a message, and a promotion a thread of them. A repeat has the Message-ID of the first, by which mail systems and
//! readers know it.

use std::sync::Arc;
use std::time::SystemTime;

use futures::future::{BoxFuture, FutureExt};
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::{AsyncSmtpTransport, AsyncSmtpTransportBuilder, Error};
use lettre::{AsyncTransport, Tokio1Executor};

use super::answers::{SERVER_TIMEOUT, THEN, quoted};
use crate::model::sinks::{EmailSink, MailTls};
use crate::report::{Clock, Report, Sink, SinkError};
use crate::secrets::Veil;
use crate::store::{Store, StoreError, ThreadState};

/// Reports as mail.
pub struct MailSink {
    name: String,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    veil: Veil,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl MailSink {
    /// A sink of this name, with the password and the trusted certificates that its secrets hold. The store keeps what its threads
    /// begin with.
    ///
    /// # Errors
    /// An address is none, or a certificate cannot be read; in words.
    pub fn new(
        name: impl Into<String>,
        stated: &EmailSink,
        password: Option<&str>,
        ca: Option<&[u8]>,
        store: Arc<dyn Store>,
        clock: Clock,
    ) -> Result<Self, String> {
        let mailbox = |text: &String| {
            let parsed: Result<Mailbox, _> = text.parse();
            parsed.map_err(|e| format!("`{text}` is no address of mail: {e}"))
        };
        let mut builder = transport(stated, ca)?;
        if let (Some(user), Some(password)) = (&stated.user, password) {
            builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        Ok(Self {
            name: name.into(),
            transport: builder.build(),
            from: mailbox(&stated.from)?,
            to: stated.to.iter().map(mailbox).collect::<Result<_, _>>()?,
            veil: Veil::over(password),
            store,
            clock,
        })
    }

    /// The key of the report that the thread begins with. It is kept before that one is sent: a repeat of it is the same message, and
    /// readers put the others below it also where it never came.
    fn first(&self, report: &Report) -> Result<Option<String>, SinkError> {
        if report.upgrade.is_none() && report.promotion.is_none() {
            return Ok(None);
        }
        let name = report.thread();
        if let Some(root) = self
            .store
            .thread(&self.name, &name)
            .map_err(unkept)?
            .and_then(|thread| thread.root)
        {
            return Ok(Some(root).filter(|root| *root != report.dedupe_key));
        }
        let state = ThreadState {
            root: Some(report.dedupe_key.clone()),
            ..ThreadState::default()
        };
        self.store
            .put_thread(&self.name, &name, &state, (self.clock)())
            .map_err(unkept)?;
        Ok(None)
    }

    fn message(&self, report: &Report) -> Result<Message, SinkError> {
        let id = |key: &str| format!("<{key}@{}>", self.from.email.domain());
        let Report {
            component,
            version,
            environment,
            ..
        } = report;
        let subject = if report.upgrade.is_none() && report.promotion.is_none() {
            environment.clone()
        } else {
            format!("{component}@{version} on {environment}")
        };
        let mut builder = Message::builder()
            .from(self.from.clone())
            .date(SystemTime::from((self.clock)()))
            .message_id(Some(id(&report.dedupe_key)))
            // RFC 3834: so that nobody's absence is told to us.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        builder = match self.first(report)? {
            Some(first) => builder
                .in_reply_to(id(&first))
                .references(id(&first))
                .subject(format!("Re: {subject}")),
            None => builder.subject(subject),
        };
        builder
            .header(ContentType::TEXT_PLAIN)
            .body(format!("{}\n", report.text))
            .map_err(|e| SinkError::Never { why: e.to_string() })
    }

    async fn tell(&self, report: &Report) -> Result<(), SinkError> {
        let message = self.message(report)?;
        let mail = message.formatted();
        match self.transport.send_raw(message.envelope(), &mail).await {
            Ok(_) => Ok(()),
            Err(why) if self.to.len() > 1 && is_of_somebody(&why) => self.tell_each(&mail).await,
            Err(why) => Err(self.refusal(&why)),
        }
    }

    /// A server that does not know one of them takes nothing for the others either: so each by itself.
    async fn tell_each(&self, mail: &[u8]) -> Result<(), SinkError> {
        let mut refused = Vec::new();
        for to in &self.to {
            let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.email.clone()]);
            let envelope = envelope.map_err(|e| SinkError::Never { why: e.to_string() })?;
            let sent = self.transport.send_raw(&envelope, mail).await;
            match sent.map_err(|why| self.refusal(&why)) {
                Ok(_) => {}
                Err(SinkError::Never { why }) => refused.push(format!("{}: {why}", to.email)),
                // Whoever has it gets it again, under its Message-ID.
                Err(later @ SinkError::Later { .. }) => return Err(later),
            }
        }
        if refused.len() == self.to.len() {
            return Err(SinkError::Never {
                why: refused.join("; "),
            });
        }
        for why in refused {
            tracing::warn!(sink = self.name, why, "mail to one of them was refused");
        }
        Ok(())
    }

    /// RFC 5321, 4.2.1: a code that begins with 5 is for good, with 4 for now. All else may pass.
    fn refusal(&self, error: &Error) -> SinkError {
        let mut words = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(inner) = next {
            words = format!("{words}: {inner}");
            next = inner.source();
        }
        let why = quoted(&words, &self.veil);
        if !error.is_permanent() {
            return SinkError::later(why);
        }
        let code = error.status().map(|code| code.to_string()).unwrap_or_default();
        let remedy = match code.as_str() {
            "530" | "534" | "535" | "538" => "look at the sink's `user` and the secret of its password",
            "550" | "551" | "553" => "look at the sink's `from` and `to`",
            _ => "the server's words say what it does not take",
        };
        SinkError::Never {
            why: format!("{why}; {remedy}{THEN}"),
        }
    }
}

/// Whether it is somebody's address that is refused, the sender's or a receiver's (RFC 5321, 4.2.3).
fn is_of_somebody(error: &Error) -> bool {
    let code = error.status().map(|code| code.to_string());
    code.is_some_and(|code| ["550", "551", "553"].contains(&code.as_str()))
}

fn transport(stated: &EmailSink, ca: Option<&[u8]>) -> Result<AsyncSmtpTransportBuilder, String> {
    let EmailSink { server, port, tls, .. } = stated;
    let parameters = || {
        let mut builder = TlsParameters::builder(server.clone());
        if let Some(ca) = ca {
            let ca =
                Certificate::from_pem(ca).map_err(|e| format!("the secret of `ca` has no certificate (PEM): {e}"))?;
            builder = builder
                .certificate_store(CertificateStore::None)
                .add_root_certificate(ca);
        }
        builder.build_rustls().map_err(|e| format!("TLS cannot be set up: {e}"))
    };
    // RFC 8314 and 6409: the ports that mail is handed in at.
    let (tls, usual) = match tls {
        MailTls::Starttls => (Tls::Required(parameters()?), 587),
        MailTls::Tls => (Tls::Wrapper(parameters()?), 465),
        MailTls::None => (Tls::None, 25),
    };
    Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server)
        .port(port.unwrap_or(usual))
        .tls(tls)
        .timeout(Some(SERVER_TIMEOUT)))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn unkept(why: StoreError) -> SinkError {
    SinkError::later(format!("which thread it belongs to is not known: {why}"))
}

impl Sink for MailSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        self.tell(report).boxed()
    }
}

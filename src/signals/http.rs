//! HTTP calls: rendered, sent, and judged by what they mean rather than by their status alone.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use regex::Regex;
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::{Instant, timeout};

use super::excerpt;
use super::postgres::Database;
use super::traffic::{Answer, Call, CallId, Effect};
use crate::http::{self, ClientIdentity, Connections, HttpOptions, KnownHost};
use crate::model::environment::{Expectation, HttpProbe, Request};
use crate::model::render::{RenderError, Renderer, Variables};
use crate::model::sample::Outcome;
use crate::secrets::Veil;

/// How much of an answer is read: enough for any status document, too little to fill our memory.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How much of an answer a message quotes.
const EXCERPT_CHARS: usize = 160;

/// Beyond any timeout of a plan.
const NEVER: Duration = Duration::from_hours(24);

/// Why calls cannot be made at all. Nothing here is ever the node's doing.
#[derive(Debug, Error)]
pub enum CallError {
    /// A request that cannot be rendered.
    #[error("the request's {part}: {source}")]
    Render {
        /// Which part.
        part: String,
        /// What is wrong with it.
        #[source]
        source: RenderError,
    },
    /// A request that renders to something that cannot be sent, or an expectation that cannot be checked.
    #[error("the request's {part}: {why}")]
    Unusable {
        /// Which part.
        part: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Builds the client for calls to nodes: the project's one, without a timeout of its own that could end a call before
/// its schedule does and would then look like a refusal.
///
/// # Errors
/// TLS material that does not parse.
pub fn client(
    ca_pem: Option<Vec<u8>>,
    identity: Option<ClientIdentity>,
    connections: Connections,
    known: Option<KnownHost>,
) -> Result<Client, http::HttpError> {
    http::client(&HttpOptions {
        ca: ca_pem,
        identity,
        timeout: NEVER,
        connections,
        known,
        ..HttpOptions::default()
    })
}

/// A statement with the database that it runs on.
#[derive(Debug, Clone)]
pub struct OnDatabase {
    /// The database.
    pub database: Database,
    /// The statement, a template.
    pub sql: String,
}

/// A query after a right answer, and the first value that it must give.
#[derive(Debug, Clone)]
pub struct EffectCheck {
    /// The query.
    pub query: OnDatabase,
    /// The first column of its first row as text, a template.
    pub equals: String,
}

/// One kind of HTTP call on one node: its templates parsed, its client ready.
#[derive(Debug)]
pub struct HttpCall {
    client: Client,
    /// In the place of the address's host.
    host: Option<String>,
    method: Method,
    renderer: Renderer,
    variables: Variables,
    headers: Vec<String>,
    form: Vec<String>,
    body: BodyKind,
    expected: Expected,
    before: Option<Database>,
    effect: Option<Database>,
    veil: Arc<Veil>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    None,
    Form,
    Json,
}

#[derive(Debug)]
struct Expected {
    status: u16,
    body: Option<Regex>,
}

const URL: &str = "url";
const JSON: &str = "json";
const BEFORE: &str = "before";
const EFFECT: &str = "effect";
const EQUALS: &str = "equals";

impl HttpCall {
    /// Parses a request and what goes with it. `context` is what its templates see, beside `call.id`. Everything is
    /// rendered once here, so that an undefined variable is found before the first call.
    ///
    /// # Errors
    /// A template that does not render, an address or body that cannot be sent, a regular expression that is none.
    pub fn new(
        client: Client,
        request: &Request,
        before: Option<OnDatabase>,
        effect: Option<EffectCheck>,
        context: &Value,
    ) -> Result<Self, CallError> {
        let unusable = |part: &str, why: String| CallError::Unusable {
            part: part.to_owned(),
            why,
        };
        let method = Method::from_bytes(request.method.to_uppercase().as_bytes())
            .map_err(|_| unusable("method", format!("`{}` is none", request.method)))?;
        let body = match (&request.json, request.form.is_empty()) {
            (Some(_), true) => BodyKind::Json,
            (None, false) => BodyKind::Form,
            (None, true) => BodyKind::None,
            (Some(_), false) => {
                let why = "give `json` or `form`, not both".to_owned();
                return Err(unusable("body", why));
            }
        };
        let mut templates = BTreeMap::from([(URL.to_owned(), request.url.clone())]);
        let named = |kind: &str, name: &String| format!("{kind} {name}");
        for (name, text) in &request.headers {
            templates.insert(named("header", name), text.clone());
        }
        for (name, text) in &request.form {
            templates.insert(named("form field", name), text.clone());
        }
        templates.extend(request.json.clone().map(|text| (JSON.to_owned(), text)));
        if let Some(before) = &before {
            templates.insert(BEFORE.to_owned(), before.sql.clone());
        }
        if let Some(effect) = &effect {
            templates.insert(EFFECT.to_owned(), effect.query.sql.clone());
            templates.insert(EQUALS.to_owned(), effect.equals.clone());
        }
        let call = Self {
            client,
            host: None,
            method,
            renderer: Renderer::new(&templates).map_err(|source| CallError::Render {
                part: "template".to_owned(),
                source,
            })?,
            variables: Variables::new(context).map_err(|source| CallError::Render {
                part: "context".to_owned(),
                source,
            })?,
            headers: request.headers.keys().cloned().collect(),
            form: request.form.keys().cloned().collect(),
            body,
            expected: Expected::new(&request.expect)?,
            before: before.map(|before| before.database),
            effect: effect.map(|effect| effect.query.database),
            veil: Arc::default(),
        };
        let example = call.with_id(1);
        call.request(&example)?;
        for part in [BEFORE, EFFECT, EQUALS] {
            if templates.contains_key(part) {
                call.render(part, &example)?;
            }
        }
        Ok(call)
    }

    /// A probe: a GET whose status and body say that the node answers.
    ///
    /// # Errors
    /// As [`HttpCall::new`].
    pub fn probe(client: Client, probe: &HttpProbe, context: &Value) -> Result<Self, CallError> {
        let request = Request {
            builds: crate::model::values::BuildRange::default(),
            method: "GET".to_owned(),
            url: probe.url.clone(),
            headers: BTreeMap::new(),
            form: BTreeMap::new(),
            json: None,
            expect: Expectation {
                status: probe.status,
                body: probe.body.clone(),
            },
        };
        Self::new(client, &request, None, None, context)
    }

    /// The same call, to a host by this name; its client knows where that is.
    #[must_use]
    pub fn to_host(self, name: String) -> Self {
        Self {
            host: Some(name),
            ..self
        }
    }

    /// The same call, whose answers are quoted without these secrets.
    #[must_use]
    pub fn behind(self, veil: Arc<Veil>) -> Self {
        Self { veil, ..self }
    }

    /// Sends one call now and waits for its outcome, at most `age`; says how long it took. Neither the statement
    /// before it nor its effect are looked at: this is for probes that wait for a node.
    ///
    /// # Errors
    /// What was wrong on our side.
    pub async fn once(&self, age: Duration) -> Result<(Outcome, Duration), String> {
        let begin = Instant::now();
        let outcome = match timeout(age, self.send(1)).await {
            Err(_) => Outcome::Late,
            Ok(Ok(Answer::Right)) => Outcome::Ok,
            Ok(Ok(Answer::Refused { why })) => Outcome::Refused { why },
            Ok(Ok(Answer::Wrong { why })) => Outcome::Wrong { why },
            Ok(Err(why)) => return Err(why),
        };
        Ok((outcome, begin.elapsed()))
    }

    fn with_id(&self, id: CallId) -> Variables {
        let mut variables = self.variables.clone();
        variables.set("call", &json!({ "id": id }));
        variables
    }

    fn render(&self, part: &str, variables: &Variables) -> Result<String, CallError> {
        self.renderer
            .render(part, variables)
            .map_err(|source| CallError::Render {
                part: part.to_owned(),
                source,
            })
    }

    fn request(&self, variables: &Variables) -> Result<reqwest::Request, CallError> {
        let unusable = |part: &str, why: String| CallError::Unusable {
            part: part.to_owned(),
            why,
        };
        let url = self.render(URL, variables)?;
        let mut url =
            Url::parse(url.trim()).map_err(|error| unusable(URL, format!("`{url}` is no address: {error}")))?;
        if let Some(host) = &self.host {
            url.set_host(Some(host))
                .map_err(|error| unusable(URL, format!("`{host}` is no name of a host: {error}")))?;
        }
        let mut request = self.client.request(self.method.clone(), url);
        let mut has_content_type = false;
        for name in &self.headers {
            has_content_type |= name.eq_ignore_ascii_case("content-type");
            request = request.header(name, self.render(&format!("header {name}"), variables)?);
        }
        let (kind, body) = match self.body {
            BodyKind::None => (None, None),
            BodyKind::Json => {
                let text = self.render(JSON, variables)?;
                serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|error| {
                    let shown = excerpt(&text, EXCERPT_CHARS);
                    unusable(JSON, format!("it renders to `{shown}`: {error}"))
                })?;
                (Some("application/json"), Some(text))
            }
            BodyKind::Form => {
                let mut fields = Vec::new();
                for name in &self.form {
                    fields.push((name, self.render(&format!("form field {name}"), variables)?));
                }
                (Some("application/x-www-form-urlencoded"), Some(form_text(fields)))
            }
        };
        if let (Some(kind), false) = (kind, has_content_type) {
            request = request.header("content-type", kind);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        request.build().map_err(|error| unusable("headers", causes(&error)))
    }

    async fn exchange(&self, id: CallId) -> Result<Answer, String> {
        let request = self.request(&self.with_id(id)).map_err(|error| error.to_string())?;
        let mut response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => return broken(&error),
        };
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while body.len() < MAX_BODY_BYTES {
            match response.chunk().await {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(error) => return broken(&error),
            }
        }
        body.truncate(MAX_BODY_BYTES);
        Ok(self.expected.judge(status, &String::from_utf8_lossy(&body), &self.veil))
    }

    async fn look(&self, id: CallId, database: &Database) -> Result<Effect, String> {
        let variables = self.with_id(id);
        let text = |part| self.render(part, &variables).map_err(|e| e.to_string());
        let (sql, wanted) = (text(EFFECT)?, text(EQUALS)?);
        // The write was committed before the answer, so one look is enough. A connection that a restart of the
        // database broke says nothing: once more, on a new one.
        let rows = match database.query(&sql).await {
            Err(error) if error.is_lost_connection() => database.query(&sql).await,
            other => other,
        };
        let rows = rows.map_err(|error| format!("cannot check the effect of call {id}: {error}"))?;
        let found = match rows.first().map(|row| row.first()) {
            None => "no row".to_owned(),
            Some(None | Some(None)) => "no value".to_owned(),
            Some(Some(Some(value))) if *value == wanted => return Ok(Effect::Seen),
            Some(Some(Some(value))) => format!("`{}`", excerpt(value, EXCERPT_CHARS)),
        };
        Ok(Effect::Missing {
            why: format!(
                "call {id} was acknowledged, but its effect is {found} instead of `{}`",
                excerpt(&wanted, EXCERPT_CHARS)
            ),
        })
    }
}

impl Call for HttpCall {
    fn prepare(&self, id: CallId) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let Some(database) = &self.before else {
                return Ok(());
            };
            let sql = self
                .render(BEFORE, &self.with_id(id))
                .map_err(|error| error.to_string())?;
            match database.query(&sql).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("cannot prepare call {id}: {error}")),
            }
        }
        .boxed()
    }

    fn send(&self, id: CallId) -> BoxFuture<'_, Result<Answer, String>> {
        self.exchange(id).boxed()
    }

    fn effect(&self, id: CallId) -> BoxFuture<'_, Result<Effect, String>> {
        async move {
            match &self.effect {
                Some(database) => self.look(id, database).await,
                None => Ok(Effect::Seen),
            }
        }
        .boxed()
    }
}

impl Expected {
    fn new(expectation: &Expectation) -> Result<Self, CallError> {
        let body = match &expectation.body {
            None => None,
            Some(pattern) => Some(Regex::new(pattern).map_err(|error| CallError::Unusable {
                part: "expected body".to_owned(),
                why: error.to_string(),
            })?),
        };
        Ok(Self {
            status: expectation.status,
            body,
        })
    }

    fn judge(&self, status: u16, body: &str, veil: &Veil) -> Answer {
        // Before it is cut: half a secret is not found.
        let shown = || match excerpt(&veil.cut(body), EXCERPT_CHARS) {
            text if text.is_empty() => "(no body)".to_owned(),
            text => text,
        };
        if status != self.status {
            let why = format!("HTTP {status} instead of {}: {}", self.status, shown());
            return Answer::Wrong { why };
        }
        match &self.body {
            Some(pattern) if !pattern.is_match(body) => Answer::Wrong {
                why: format!("HTTP {status}, but the body does not match `{pattern}`: {}", shown()),
            },
            Some(_) | None => Answer::Right,
        }
    }
}

/// Fields as `application/x-www-form-urlencoded`, by the URL library that the client brings anyway: a query is
/// written the same way.
fn form_text(fields: Vec<(&String, String)>) -> String {
    let Ok(mut url) = Url::parse("http://form/") else {
        return String::new();
    };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// Who is to blame for a call without an answer: `Ok` the node, `Err` ourselves.
fn broken(error: &reqwest::Error) -> Result<Answer, String> {
    let why = causes(error);
    if error.is_builder() || is_our_shortage(error) {
        return Err(format!("cannot send: {why}"));
    }
    Ok(Answer::Refused { why })
}

/// Files, ports or memory that this machine has run out of look like a refused connection and are not.
fn is_our_shortage(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustix::io::Errno;
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error);
        if code.is_some_and(|code| ours.contains(&code)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error and what caused it, innermost last; the address is left out, since the sample names the node.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    if texts.is_empty() {
        texts.push(error.to_string());
    }
    excerpt(&texts.join(": "), EXCERPT_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_quoted_in_one_bounded_line_without_secrets() {
        let expected = Expected {
            status: 200,
            body: None,
        };
        let veil = Veil::over(["hunter2hunter2"]);
        let why = |body: &str| match expected.judge(500, body, &veil) {
            Answer::Wrong { why } => why,
            Answer::Right | Answer::Refused { .. } => panic!("it is wrong"),
        };
        assert_eq!(
            why("boom:\r\n\u{1b}[2Jrelation orders\u{0} does not exist"),
            "HTTP 500 instead of 200: boom: [2Jrelation orders does not exist"
        );
        let long = why(&format!("{} password hunter2hunter2 of", "x".repeat(140)));
        assert!(!long.contains("hunter"), "{long}");
        assert!(long.chars().count() < 200, "{long}");
    }

    #[test]
    fn what_this_machine_has_run_out_of_is_not_the_nodes_doing() {
        #[derive(Debug, Error)]
        #[error("connect")]
        struct Outer(#[source] std::io::Error);
        // EMFILE, EADDRNOTAVAIL; ECONNREFUSED, ECONNRESET, EHOSTUNREACH.
        for (code, ours) in [(24, true), (99, true), (111, false), (104, false), (113, false)] {
            let error = Outer(std::io::Error::from_raw_os_error(code));
            assert_eq!(is_our_shortage(&error), ours, "errno {code}");
        }
    }
}

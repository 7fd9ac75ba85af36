//! A chat's incoming webhook, or any server that takes JSON.

use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Client, StatusCode, Url};

use super::answers::{SERVER_TIMEOUT, asked_wait};
use super::signature::Keys;
use crate::http::{self, HttpError, HttpOptions};
use crate::report::{Clock, Report, Sink, SinkError};

/// Posts each report as JSON. Its address is a secret: whoever knows it can write to the chat.
pub struct WebhookSink {
    name: String,
    url: Url,
    client: Client,
    keys: Keys,
    clock: Clock,
}

/// Why there is no webhook sink.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address is none. It is not shown, being a secret.
    #[error("the address of webhook {0} is not an http or https URL; check the secret that holds it")]
    Address(String),
    /// A key cannot sign.
    #[error("{0}")]
    Key(String),
    /// The client cannot be made.
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl WebhookSink {
    /// A sink of this name that posts to this address, signed by these keys, each with the name of its secret.
    pub fn new(
        name: impl Into<String>,
        url: &str,
        keys: &[(String, String)],
        options: &HttpOptions,
        clock: Clock,
    ) -> Result<Self, WebhookError> {
        let name = name.into();
        let url = Url::parse(url.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| WebhookError::Address(name.clone()))?;
        let client = http::client(&HttpOptions {
            timeout: options.timeout.min(SERVER_TIMEOUT),
            ..options.clone()
        })?;
        Ok(Self {
            name,
            url,
            client,
            keys: Keys::new(keys).map_err(WebhookError::Key)?,
            clock,
        })
    }
}

impl std::fmt::Debug for WebhookSink {
    /// Hides the address (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSink")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Sink for WebhookSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let body = serde_json::to_vec(report).map_err(|e| SinkError::Never { why: e.to_string() })?;
            let mut request = self.client.post(self.url.clone());
            for (name, value) in self.keys.headers(&report.dedupe_key, (self.clock)(), &body) {
                request = request.header(name, value);
            }
            let answer = request
                .header("Content-Type", "application/json")
                .header("Idempotency-Key", &report.dedupe_key)
                .body(body)
                .send()
                .await
                .map_err(|e| SinkError::later(http::cause(&e.without_url())))?;
            // The body is not read: it could be of any size, and nothing in it would change what we do.
            judge(answer.status(), answer.headers(), (self.clock)())
        }
        .boxed()
    }
}

/// 2xx: delivered. Answers that are about this very report will not change. All else may pass, also a wrong address or
/// credential (401, 403, 404): somebody mends it, and no report is lost until then (I5).
fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Result<(), SinkError> {
    if status.is_success() {
        return Ok(());
    }
    let why = format!("the server answered {status}");
    let of_this_report = matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    );
    if of_this_report {
        return Err(SinkError::Never { why });
    }
    let after = asked_wait(headers, now);
    Err(SinkError::Later { why, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_this_very_report_is_for_good() {
        for (status, expected) in [
            (200, "delivered"),
            (204, "delivered"),
            (301, "later"),
            (400, "never"),
            (401, "later"),
            (403, "later"),
            (404, "later"),
            (408, "later"),
            (410, "later"),
            (413, "never"),
            (422, "never"),
            (429, "later"),
            (500, "later"),
            (503, "later"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let got = match judge(status, &HeaderMap::new(), Timestamp::UNIX_EPOCH) {
                Ok(()) => "delivered",
                Err(SinkError::Later { .. }) => "later",
                Err(SinkError::Never { .. }) => "never",
            };
            assert_eq!(got, expected, "{status}");
        }
    }

    #[test]
    fn the_address_is_never_shown() {
        let clock: crate::report::Clock = std::sync::Arc::new(|| Timestamp::UNIX_EPOCH);
        let make = |url| WebhookSink::new("chat", url, &[], &HttpOptions::default(), clock.clone());
        let sink = make("https://chat.example/hooks/s3cret\n").expect("an address");
        assert!(!format!("{sink:?}").contains("s3cret"));
        let refused = make("ftp://chat.example/s3cret").expect_err("not http");
        assert!(!format!("{refused} {refused:?}").contains("s3cret"));
    }
}

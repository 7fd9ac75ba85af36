//! What servers that take reports have in common: how long they are waited for, and how they ask for time.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use crate::http::{HttpOptions, Route, cause};
use crate::report::SinkError;
use crate::secrets::Veil;
use crate::signals::excerpt;

/// A chat server answers in well under a second; one that takes longer than this is asked again later.
pub const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds what a server may ask us to wait, so that a wrong header does not silence a thread for a day.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// A page of 200 messages of 2,000 characters, with as much around each.
const MOST_BYTES: usize = 4 << 20;
/// Characters of a server's own words that are shown.
const MOST_SAID: usize = 200;

/// What is to be done once that is mended which a report was refused for.
pub(super) const THEN: &str = ", then `stagegate reports replay`";

/// How a server in the world outside is asked.
pub(super) fn options(url: &str) -> HttpOptions {
    HttpOptions {
        route: Route::out_to(url),
        timeout: SERVER_TIMEOUT,
        ..HttpOptions::default()
    }
}

/// Why a header cannot be made of a token, in words that do not hold it.
pub(super) fn bearer(token: &str, secret: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| format!("the token has a character that HTTP cannot carry; look at the secret `{secret}`"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An answer, read within bounds.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Sends a request and reads its whole answer. Where either is cut, nobody knows what became of it.
pub(super) async fn ask(request: reqwest::RequestBuilder, now: Timestamp) -> Result<Answer, SinkError> {
    let broken = |e: reqwest::Error| SinkError::later(cause(&e.without_url()));
    let mut response: Response = request.send().await.map_err(broken)?;
    let (status, after) = (response.status(), asked_wait(response.headers(), now));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > MOST_BYTES {
            // Asked again it answers as much.
            let why = format!("the server's answer has more than {} MiB", MOST_BYTES >> 20);
            return Err(SinkError::Never { why });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, after, body })
}

/// A server's own words: one bounded line, without our secrets.
pub(super) fn quoted(words: &str, veil: &Veil) -> String {
    excerpt(&veil.cut(words), MOST_SAID)
}

/// How long the server asks us to wait.
pub(super) fn asked_wait(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    retry_after(value, now)
}

/// RFC 9110, 10.2.3: seconds, or a date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::parse(value).ok()?;
        Duration::try_from(date.timestamp().duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_ask_for_time_in_seconds_or_by_the_clock() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().expect("a time");
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("99999999", Some(3600)),
            ("soon", None),
            ("-1", None),
        ] {
            let wait = retry_after(value, now);
            assert_eq!(wait, seconds.map(Duration::from_secs), "{value}");
        }
    }
}

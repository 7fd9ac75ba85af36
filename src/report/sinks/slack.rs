//! Slack's Web API: `chat.postMessage`, `chat.update`, and to find a message again `conversations.history` and `.replies`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{self, Answer, THEN, ask, quoted};
use super::chat::{Chat, ChatError, Mark, Message};
use crate::http;
use crate::model::sinks::SlackSink;
use crate::report::{Clock, SinkError};
use crate::secrets::Veil;

/// What our messages are marked as; a name that no other app has is not asked for.
const EVENT: &str = "stagegate_report";
/// Messages that are looked through for one that was tried, in pages of this many: as Slack recommends.
const PAGE: usize = 200;
/// Pages at most. What was tried lies among the newest of its time; in a channel where 2,000 came since, it is sent again.
const PAGES: usize = 10;
/// Slack's clock may be behind ours by this much.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// One channel of a Slack workspace.
pub struct Slack {
    client: Client,
    url: String,
    channel: String,
    secret: String,
    authorization: HeaderValue,
    veil: Veil,
    clock: Clock,
}

impl std::fmt::Debug for Slack {
    /// Hides the token (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slack")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// As every method answers, with whichever of these it has.
#[derive(Deserialize)]
struct Said {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    needed: Option<String>,
    #[serde(default)]
    ts: Option<String>,
    #[serde(default)]
    messages: Vec<Found>,
    #[serde(default)]
    response_metadata: Next,
}

#[derive(Deserialize)]
struct Found {
    ts: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    event_payload: Value,
}

#[derive(Deserialize, Default)]
struct Next {
    #[serde(default)]
    next_cursor: String,
}

impl Slack {
    /// The channel that is stated, with the token that its secret holds.
    ///
    /// # Errors
    /// The token cannot be sent, or there is no HTTP client; in words.
    pub fn new(stated: &SlackSink, token: &str, clock: Clock) -> Result<Self, String> {
        let SlackSink {
            channel,
            token: secret,
            url,
        } = stated;
        Ok(Self {
            client: http::client(&answers::options(url)).map_err(|e| e.to_string())?,
            url: url.trim_end_matches('/').to_owned(),
            channel: channel.clone(),
            authorization: answers::bearer(token, secret)?,
            veil: Veil::over([token]),
            secret: secret.clone(),
            clock,
        })
    }

    async fn call(&self, method: &str, arguments: &Value) -> Result<Said, ChatError> {
        let request = self.client.post(format!("{}/{method}", self.url));
        let body = arguments.to_string();
        let request = request
            .header("content-type", "application/json; charset=utf-8")
            .body(body);
        self.judge(ask(request.header(AUTHORIZATION, &self.authorization), (self.clock)()).await?)
    }

    /// Methods that read take no JSON.
    async fn read(&self, method: &str, arguments: &[(&str, &str)]) -> Result<Said, ChatError> {
        let mut url = reqwest::Url::parse(&format!("{}/{method}", self.url))
            .map_err(|e| SinkError::later(format!("the address of Slack: {e}")))?;
        url.query_pairs_mut().extend_pairs(arguments);
        let request = self.client.get(url).header(AUTHORIZATION, &self.authorization);
        self.judge(ask(request, (self.clock)()).await?)
    }

    fn judge(&self, answer: Answer) -> Result<Said, ChatError> {
        let Answer { status, after, body } = answer;
        let said = serde_json::from_slice::<Said>(&body);
        let code = said.as_ref().map(|said| said.error.clone()).unwrap_or_default();
        if !status.is_success() {
            let why = format!("Slack answers {status} {}", quoted(&code, &self.veil));
            let why = why.trim_end().to_owned();
            let for_good = status.is_client_error() && !matches!(status.as_u16(), 408 | 429);
            return Err(if for_good {
                let why = format!("{why}; look at the sink's `url` and its secret `{}`{THEN}", self.secret);
                SinkError::Never { why }.into()
            } else {
                SinkError::Later { why, after }.into()
            });
        }
        let said = said.map_err(|_| SinkError::later("what answers is not Slack; look at the sink's `url`"))?;
        if said.ok {
            return Ok(said);
        }
        Err(self.refusal(&said, after))
    }

    /// What an error means: <https://docs.slack.dev/reference/methods/chat.postMessage#errors>.
    fn refusal(&self, said: &Said, after: Option<Duration>) -> ChatError {
        let remedy = match said.error.as_str() {
            "thread_not_found" | "message_not_found" => return ChatError::Gone,
            "ratelimited"
            | "rate_limited"
            | "message_limit_exceeded"
            | "internal_error"
            | "fatal_error"
            | "service_unavailable"
            | "request_timeout"
            | "team_added_to_org"
            | "accesslimited" => {
                let why = format!("Slack answers {}", said.error);
                return SinkError::Later { why, after }.into();
            }
            "invalid_auth"
            | "not_authed"
            | "account_inactive"
            | "token_revoked"
            | "token_expired"
            | "not_allowed_token_type" => {
                format!(
                    "its token is good no more: put one of the app's bot (xoxb-…) into the secret `{}`",
                    self.secret
                )
            }
            "channel_not_found" => format!(
                "the bot sees no channel {}: look at the ID, and invite the bot where it is private",
                self.channel
            ),
            "not_in_channel" => format!("invite the bot into the channel {}", self.channel),
            "is_archived" => format!("the channel {} is archived: name another", self.channel),
            "missing_scope" | "no_permission" => format!(
                "give the app the scope {} and install it again",
                quoted(said.needed.as_deref().unwrap_or("chat:write"), &self.veil)
            ),
            _ => "https://docs.slack.dev/reference/methods/chat.postMessage says what it means".to_owned(),
        };
        let code = quoted(&said.error, &self.veil);
        SinkError::Never {
            why: format!("Slack answers {code}; {remedy}{THEN}"),
        }
        .into()
    }

    async fn search(&self, root: Option<&str>, mark: Mark<'_>, since: Timestamp) -> Result<Option<String>, ChatError> {
        let oldest = since.saturating_sub(SKEW).unwrap_or(Timestamp::MIN);
        let oldest = format!("{}.000000", oldest.as_second().max(0));
        let page = PAGE.to_string();
        let mut cursor = String::new();
        for _ in 0..PAGES {
            let mut arguments = vec![
                ("channel", self.channel.as_str()),
                ("oldest", &oldest),
                ("limit", &page),
                ("include_all_metadata", "true"),
            ];
            if !cursor.is_empty() {
                arguments.push(("cursor", &cursor));
            }
            let method = match root {
                Some(root) => {
                    arguments.push(("ts", root));
                    "conversations.replies"
                }
                None => "conversations.history",
            };
            let said = self.read(method, &arguments).await?;
            let ours = |found: &&Found| {
                let Metadata {
                    event_type,
                    event_payload,
                } = &found.metadata;
                event_type == EVENT && event_payload["key"] == mark.key && event_payload["sink"] == mark.sink
            };
            if let Some(found) = said.messages.iter().find(ours) {
                return Ok(Some(found.ts.clone()));
            }
            cursor = said.response_metadata.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        Ok(None)
    }
}

impl Chat for Slack {
    async fn post(&self, message: Message<'_>) -> Result<String, ChatError> {
        let Message { root, mark, text } = message;
        let mut arguments = json!({
            "channel": self.channel,
            "text": escaped(text),
            // What happened is said in the operators' words; a script's stars and addresses are no markup.
            "mrkdwn": false,
            "unfurl_links": false,
            "unfurl_media": false,
            "metadata": {"event_type": EVENT, "event_payload": {"key": mark.key, "sink": mark.sink}},
        });
        if let Some(root) = root {
            arguments["thread_ts"] = json!(root);
        }
        let said = self.call("chat.postMessage", &arguments).await?;
        said.ts
            .ok_or_else(|| SinkError::later("Slack names no message that it has taken").into())
    }

    /// Without the right to read the channel it cannot be found out, and what was tried is sent again: once at least (I5).
    async fn find(&self, root: Option<&str>, mark: Mark<'_>, since: Timestamp) -> Result<Option<String>, ChatError> {
        match self.search(root, mark, since).await {
            Err(ChatError::Sink(SinkError::Never { why })) => {
                tracing::warn!(sink = mark.sink, why, "whether a message was sent cannot be looked up");
                Ok(None)
            }
            found => found,
        }
    }

    async fn edit(&self, id: &str, text: &str) -> Result<(), ChatError> {
        let arguments = json!({"channel": self.channel, "ts": id, "text": escaped(text)});
        self.call("chat.update", &arguments).await.map(|_| ())
    }
}

/// The three characters that Slack's texts are made of: what is quoted must neither link nor call the whole channel.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_calls_nobody() {
        assert_eq!(escaped("a <!channel> & b"), "a &lt;!channel&gt; &amp; b");
    }
}

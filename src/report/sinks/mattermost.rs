//! Mattermost's API of version 4: posts, their threads, and patches of them.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::answers::{self, Answer, THEN, ask, quoted};
use super::chat::{Chat, ChatError, Mark, Message};
use crate::http::{self, HttpOptions};
use crate::model::sinks::MattermostSink;
use crate::report::{Clock, SinkError};
use crate::secrets::Veil;

/// The server's clock may be behind ours by this much.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Posts that are looked through in a channel, by page and in all: what was tried lies among the newest, and the server gives 200
/// a page at most.
const PAGE: usize = 200;
const PAGES: usize = 10;

/// One channel of a Mattermost server.
pub struct Mattermost {
    client: Client,
    url: String,
    channel: String,
    secret: String,
    authorization: HeaderValue,
    veil: Veil,
    clock: Clock,
}

impl std::fmt::Debug for Mattermost {
    /// Hides the token (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mattermost")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Posts {
    /// Those of the page; beside them `posts` has the first ones of their threads.
    #[serde(default)]
    order: Vec<String>,
    posts: BTreeMap<String, Post>,
}

#[derive(Deserialize)]
struct Post {
    id: String,
    #[serde(default)]
    create_at: i64,
    #[serde(default)]
    props: Value,
}

#[derive(Deserialize)]
struct Refusal {
    id: String,
    message: String,
}

impl Mattermost {
    /// The channel that is stated, with the token and the trusted certificates that its secrets hold.
    ///
    /// # Errors
    /// The token cannot be sent, or there is no HTTP client; in words.
    pub fn new(stated: &MattermostSink, token: &str, ca: Option<Vec<u8>>, clock: Clock) -> Result<Self, String> {
        let MattermostSink {
            url,
            channel,
            token: secret,
            ca: _,
        } = stated;
        let options = HttpOptions {
            ca,
            ..answers::options(url)
        };
        Ok(Self {
            client: http::client(&options).map_err(|e| e.to_string())?,
            url: format!("{}/api/v4", url.trim_end_matches('/')),
            channel: channel.clone(),
            authorization: answers::bearer(token, secret)?,
            veil: Veil::over([token]),
            secret: secret.clone(),
            clock,
        })
    }

    async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, ChatError> {
        let mut request = self.client.request(method, format!("{}/{path}", self.url));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = ask(request.header(AUTHORIZATION, &self.authorization), (self.clock)()).await?;
        if !answer.status.is_success() {
            return Err(self.refusal(&answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| SinkError::later("what answers is not Mattermost; look at the sink's `url`").into())
    }

    fn refusal(&self, answer: &Answer) -> ChatError {
        let Answer { status, after, body } = answer;
        let (id, message) = serde_json::from_slice(body).map_or_else(
            |_| (String::new(), String::new()),
            |Refusal { id, message }| (id, message),
        );
        let said = quoted(&message, &self.veil);
        let why = if said.is_empty() {
            format!("Mattermost answers {status}")
        } else {
            format!("Mattermost answers {status}: {said}")
        };
        let remedy = match (status.as_u16(), id.as_str()) {
            // A post that is answered, changed or read; whoever deletes the first one takes the thread with it.
            (_, "api.post.create_post.root_id.app_error" | "api.post.create_post.channel_root_id.app_error")
            | (404, "app.post.get.app_error" | "store.sql_post.get.app_error") => return ChatError::Gone,
            (401, _) => format!("put a token of the bot that is good into the secret `{}`", self.secret),
            (403, _) => format!("let the bot into the team and the channel {}", self.channel),
            (404, _) => "look at the sink's `url` and `channel`".to_owned(),
            (408 | 429, _) => return later(why, *after),
            (400..=499, _) => format!("look at the sink's `channel`, {}", self.channel),
            _ => return later(why, *after),
        };
        SinkError::Never {
            why: format!("{why}; {remedy}{THEN}"),
        }
        .into()
    }

    async fn in_thread(&self, root: &str, mark: Mark<'_>) -> Result<Option<String>, ChatError> {
        let path = format!("posts/{root}/thread");
        let Posts { posts, .. } = self.call(Method::GET, &path, None).await?;
        Ok(posts.into_values().find(|post| is_of(post, mark)).map(|post| post.id))
    }

    /// The newest first, until they are older than what is looked for.
    async fn in_channel(&self, mark: Mark<'_>, since: Timestamp) -> Result<Option<String>, ChatError> {
        let oldest = since.saturating_sub(SKEW).unwrap_or(Timestamp::MIN).as_millisecond();
        for page in 0..PAGES {
            let path = format!("channels/{}/posts?page={page}&per_page={PAGE}", self.channel);
            let Posts { order, posts } = self.call(Method::GET, &path, None).await?;
            let last = order.last().and_then(|id| posts.get(id));
            let is_last = last.is_none_or(|post| post.create_at < oldest);
            if let Some(post) = posts.into_values().find(|post| is_of(post, mark)) {
                return Ok(Some(post.id));
            }
            if is_last {
                break;
            }
        }
        Ok(None)
    }
}

fn later(why: String, after: Option<std::time::Duration>) -> ChatError {
    SinkError::Later { why, after }.into()
}

fn is_of(post: &Post, mark: Mark<'_>) -> bool {
    let ours = &post.props["stagegate"];
    ours["key"] == mark.key && ours["sink"] == mark.sink
}

impl Chat for Mattermost {
    async fn post(&self, message: Message<'_>) -> Result<String, ChatError> {
        let Message { root, mark, text } = message;
        let body = json!({
            "channel_id": self.channel,
            "message": plain(text),
            "root_id": root.unwrap_or_default(),
            // The server takes a post of this name once, for 30 s; what is older is looked for.
            "pending_post_id": format!("{}:{}", mark.sink, mark.key),
            "props": {"stagegate": {"key": mark.key, "sink": mark.sink}, "disable_group_highlight": true},
        });
        let Post { id, .. } = self.call(Method::POST, "posts", Some(body)).await?;
        Ok(id)
    }

    /// Without the right to read the channel it cannot be found out, and what was tried is sent again: once at least (I5).
    async fn find(&self, root: Option<&str>, mark: Mark<'_>, since: Timestamp) -> Result<Option<String>, ChatError> {
        let found = match root {
            Some(root) => self.in_thread(root, mark).await,
            None => self.in_channel(mark, since).await,
        };
        match found {
            Err(ChatError::Sink(SinkError::Never { why })) => {
                tracing::warn!(sink = mark.sink, why, "whether a message was sent cannot be looked up");
                Ok(None)
            }
            found => found,
        }
    }

    async fn edit(&self, id: &str, text: &str) -> Result<(), ChatError> {
        let body = json!({"message": plain(text)});
        let _: Post = self.call(Method::PUT, &format!("posts/{id}/patch"), Some(body)).await?;
        Ok(())
    }
}

/// As Markdown that shows the text as it is: a script's stars are no markup, and its `@all` calls nobody.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '~' | '[' | ']' | '<' | '>' | '#' | '|') {
            plain.push('\\');
        }
        plain.push(c);
        if c == '@' && !before.is_alphanumeric() {
            // A word that begins with it is a name that is called; a space of no width makes it none.
            plain.push('\u{200b}');
        }
        before = c;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_shown_as_it_is_and_calls_nobody() {
        for (text, expected) in [
            ("server@1.0 on: node1.", "server@1.0 on: node1."),
            ("see @all", "see @\u{200b}all"),
            ("*a* `b` c_d", "\\*a\\* \\`b\\` c\\_d"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}

//! Slack, as far as its methods' published pages say: which arguments there are, of which kind, and what is refused.

use serde_json::{Value, json};

use super::TOKEN;
use super::server::{Asked, Post, Service};

pub const CHANNEL: &str = "C0123456789";
/// `oldest` is compared with this time, so that what was said after it is found.
const NOW: i64 = 1_000;

#[derive(Default)]
pub struct Workspace {
    count: i64,
    blind: bool,
}

impl Workspace {
    fn ts(&mut self) -> (String, i64) {
        self.count += 1;
        (format!("{NOW}.{:06}", self.count), NOW)
    }

    fn write(
        &mut self,
        method: &str,
        value: &Value,
        posts: &mut Vec<Post>,
        complaints: &mut Vec<String>,
    ) -> Result<Value, String> {
        let known: &[&str] = match method {
            "chat.postMessage" => &[
                "channel",
                "text",
                "mrkdwn",
                "unfurl_links",
                "unfurl_media",
                "metadata",
                "thread_ts",
            ],
            "chat.update" => &["channel", "ts", "text"],
            _ => return Err("unknown_method".to_owned()),
        };
        let object = value.as_object().ok_or("invalid_json")?;
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            complaints.push(format!("{method} has no argument {key}"));
        }
        if value["channel"] != CHANNEL {
            return Err("channel_not_found".to_owned());
        }
        let text = value["text"].as_str().ok_or("no_text")?.to_owned();
        if text.chars().count() > 40_000 {
            return Err("msg_too_long".to_owned());
        }
        if method == "chat.update" {
            let post = posts.iter_mut().find(|post| value["ts"] == post.id);
            let post = post.ok_or("message_not_found")?;
            post.text = text;
            return Ok(json!({"ok": true, "channel": CHANNEL, "ts": post.id}));
        }
        let root = value["thread_ts"].as_str().map(str::to_owned);
        if let Some(root) = &root {
            let parent = posts.iter().find(|post| post.id == *root).ok_or("thread_not_found")?;
            if parent.root.is_some() {
                complaints.push("thread_ts is to be a parent's".to_owned());
            }
        }
        let metadata = &value["metadata"];
        let kind = metadata["event_type"].as_str().unwrap_or_default();
        if kind.is_empty()
            || !kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            || !metadata["event_payload"].is_object()
        {
            return Err("invalid_metadata_format".to_owned());
        }
        let word = |name: &str| metadata["event_payload"][name].as_str().unwrap_or_default().to_owned();
        let (id, at) = self.ts();
        posts.push(Post {
            id: id.clone(),
            root,
            text,
            key: word("key"),
            sink: word("sink"),
            at,
        });
        Ok(json!({"ok": true, "channel": CHANNEL, "ts": id, "message": {"type": "message", "ts": id}}))
    }

    fn read(&self, method: &str, asked: &Asked<'_>, posts: &[Post]) -> Result<Value, String> {
        if self.blind {
            return Err("missing_scope".to_owned());
        }
        let word = |name: &str| asked.query.get(name).map(String::as_str).unwrap_or_default();
        if word("channel") != CHANNEL {
            return Err("channel_not_found".to_owned());
        }
        let oldest: f64 = word("oldest").parse().map_err(|_| "invalid_ts_oldest")?;
        let limit: usize = word("limit").parse().map_err(|_| "invalid_limit")?;
        let (root, of_thread) = (word("ts"), method == "conversations.replies");
        if of_thread && !posts.iter().any(|post| post.id == root) {
            return Err("thread_not_found".to_owned());
        }
        let is_in = |post: &&Post| match &post.root {
            Some(of) => of_thread && of == root,
            None => !of_thread || post.id == root,
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
        let mut found: Vec<&Post> = posts
            .iter()
            .filter(is_in)
            .filter(|post| post.at as f64 > oldest)
            .collect();
        if !of_thread {
            // The newest first, and threads by their parents alone.
            found.reverse();
        }
        let from: usize = if word("cursor").is_empty() {
            0
        } else {
            word("cursor").parse().map_err(|_| "invalid_cursor")?
        };
        let with_metadata = word("include_all_metadata") == "true";
        let page: Vec<Value> = found
            .iter()
            .skip(from)
            .take(limit)
            .map(|post| {
                let mut message = json!({"type": "message", "ts": post.id, "text": post.text});
                if with_metadata && !post.key.is_empty() {
                    message["metadata"] = json!({"event_type": "stagegate_report",
                        "event_payload": {"key": post.key, "sink": post.sink}});
                }
                message
            })
            .collect();
        let more = from + page.len() < found.len();
        let cursor = if more {
            (from + page.len()).to_string()
        } else {
            String::new()
        };
        Ok(json!({"ok": true, "messages": page, "has_more": more, "response_metadata": {"next_cursor": cursor}}))
    }
}

impl Service for Workspace {
    fn answer(&mut self, asked: &Asked<'_>, posts: &mut Vec<Post>, complaints: &mut Vec<String>) -> (u16, Value) {
        let Some(method) = asked.path.strip_prefix("/api/") else {
            return (404, json!("not found"));
        };
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return (200, json!({"ok": false, "error": "invalid_auth"}));
        }
        let said = match asked.method.as_str() {
            "POST" if asked.header("content-type").starts_with("application/json") => {
                self.write(method, &asked.json(), posts, complaints)
            }
            "GET" => self.read(method, asked, posts),
            _ => Err("invalid_post_type".to_owned()),
        };
        (
            200,
            said.unwrap_or_else(|error| json!({"ok": false, "error": error, "needed": "channels:history"})),
        )
    }

    fn chatter(&mut self, number: usize) -> Post {
        let (id, at) = self.ts();
        Post {
            id,
            root: None,
            text: format!("chatter {number}"),
            key: String::new(),
            sink: String::new(),
            at,
        }
    }

    fn may_not_read(&mut self) {
        self.blind = true;
    }
}

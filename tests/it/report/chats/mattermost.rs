//! Mattermost, as its API's description and `server/channels/app/post.go` have it.

use serde_json::{Value, json};

use super::TOKEN;
use super::server::{Asked, Post, Service};

pub const CHANNEL: &str = "4xp9fdt77pncbef59f4k1qe83o";
const AT: i64 = 1_000;

#[derive(Default)]
pub struct Team {
    count: usize,
    blind: bool,
}

fn refused(status: u16, id: &str, message: &str) -> (u16, Value) {
    (status, json!({"id": id, "message": message, "status_code": status}))
}

fn shown(post: &Post) -> Value {
    json!({"id": post.id, "root_id": post.root.clone().unwrap_or_default(), "message": post.text,
        "channel_id": CHANNEL, "create_at": post.at * 1000,
        "props": {"stagegate": {"key": post.key, "sink": post.sink}, "from_bot": "true"}})
}

fn list(page: &[&Post], all: &[Post]) -> Value {
    let order: Vec<&str> = page.iter().map(|post| post.id.as_str()).collect();
    // With each its thread's first message.
    let roots = page
        .iter()
        .filter_map(|post| all.iter().find(|root| post.root.as_ref() == Some(&root.id)));
    let posts: serde_json::Map<String, Value> = page
        .iter()
        .copied()
        .chain(roots)
        .map(|post| (post.id.clone(), shown(post)))
        .collect();
    json!({"order": order, "posts": posts, "next_post_id": "", "prev_post_id": ""})
}

impl Team {
    fn id(&mut self) -> String {
        self.count += 1;
        format!("post{:022}", self.count)
    }

    fn create(&mut self, value: &Value, posts: &mut Vec<Post>, complaints: &mut Vec<String>) -> (u16, Value) {
        let known = ["channel_id", "message", "root_id", "pending_post_id", "props"];
        for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
            if !known.contains(&key.as_str()) {
                complaints.push(format!("a post has no {key}"));
            }
        }
        if value["channel_id"] != CHANNEL {
            return refused(403, "api.context.permissions.app_error", "no permission");
        }
        // A real server takes a post of one `pending_post_id` once, and has forgotten it after 30 s: this one forgets at once.
        if value["pending_post_id"].as_str().is_none_or(str::is_empty) {
            complaints.push("a post is to have a name of its own".to_owned());
        }
        let message = value["message"].as_str().unwrap_or_default();
        if message.is_empty() || message.chars().count() > 16_383 {
            return refused(400, "model.post.is_valid.msg.app_error", "Invalid message.");
        }
        let root = value["root_id"]
            .as_str()
            .filter(|root| !root.is_empty())
            .map(str::to_owned);
        if let Some(root) = &root
            && !posts.iter().any(|post| post.id == *root && post.root.is_none())
        {
            return refused(
                400,
                "api.post.create_post.root_id.app_error",
                "Invalid RootId parameter.",
            );
        }
        let word = |key: &str| value["props"]["stagegate"][key].as_str().unwrap_or_default().to_owned();
        let post = Post {
            id: self.id(),
            root,
            text: message.to_owned(),
            key: word("key"),
            sink: word("sink"),
            at: AT,
        };
        posts.push(post.clone());
        (201, shown(&post))
    }

    fn channel(&self, asked: &Asked<'_>, posts: &[Post]) -> (u16, Value) {
        if self.blind {
            return refused(403, "api.context.permissions.app_error", "no permission");
        }
        let number = |name: &str| asked.query.get(name).and_then(|n| n.parse::<usize>().ok());
        let size = number("per_page").unwrap_or(60).min(200);
        let newest: Vec<&Post> = posts
            .iter()
            .rev()
            .skip(number("page").unwrap_or(0) * size)
            .take(size)
            .collect();
        (200, list(&newest, posts))
    }
}

impl Service for Team {
    fn answer(&mut self, asked: &Asked<'_>, posts: &mut Vec<Post>, complaints: &mut Vec<String>) -> (u16, Value) {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return refused(
                401,
                "api.context.session_expired.app_error",
                "Invalid or expired session",
            );
        }
        let parts: Vec<&str> = asked.path.trim_start_matches("/api/v4/").split('/').collect();
        match (asked.method.as_str(), parts.as_slice()) {
            ("POST", ["posts"]) => self.create(&asked.json(), posts, complaints),
            ("PUT", ["posts", id, "patch"]) => {
                // A post that is not there is nothing that one may change.
                let Some(post) = posts.iter_mut().find(|post| post.id == *id) else {
                    return refused(403, "api.context.permissions.app_error", "no permission");
                };
                let value = asked.json();
                if !value["props"].is_null() {
                    complaints.push("a patch of props takes the mark away".to_owned());
                }
                value["message"].as_str().unwrap_or_default().clone_into(&mut post.text);
                (200, shown(post))
            }
            ("GET", ["posts", root, "thread"]) if !self.blind => {
                if !posts.iter().any(|post| post.id == *root) {
                    return refused(404, "app.post.get.app_error", "Unable to get the post.");
                }
                let of: Vec<&Post> = posts
                    .iter()
                    .filter(|post| post.id == *root || post.root.as_deref() == Some(root))
                    .collect();
                (200, list(&of, posts))
            }
            ("GET", ["posts", _, "thread"]) => refused(403, "api.context.permissions.app_error", "no permission"),
            ("GET", ["channels", CHANNEL, "posts"]) => self.channel(asked, posts),
            _ => refused(404, "api.context.404.app_error", "Sorry, we could not find the page."),
        }
    }

    fn chatter(&mut self, number: usize) -> Post {
        Post {
            id: self.id(),
            root: None,
            text: format!("chatter {number}"),
            key: String::new(),
            sink: String::new(),
            at: AT,
        }
    }

    fn may_not_read(&mut self) {
        self.blind = true;
    }
}

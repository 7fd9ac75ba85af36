//! What both chats are behind: a server that counts its requests and can hang, cut an answer, or send one of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What happens to a request, or to its answer.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// Nobody answers.
    Hangs,
    /// The connection ends in the middle of the answer.
    Cut,
    /// Something in between answers, and may ask for time.
    Status(u16, Option<u64>),
}

/// Before the chat has done what it was asked, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// A message as it stands in a chat.
#[derive(Clone, Debug)]
pub struct Post {
    pub id: String,
    pub root: Option<String>,
    pub text: String,
    pub key: String,
    pub sink: String,
    /// Seconds since the beginning of time.
    pub at: i64,
}

/// A request, taken apart.
pub struct Asked<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: BTreeMap<String, String>,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl Asked<'_> {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or(Value::Null)
    }
}

/// What a chat does with a request. What its published rules do not allow it refuses as the service would, and notes.
pub trait Service: Send + 'static {
    fn answer(&mut self, asked: &Asked<'_>, posts: &mut Vec<Post>, complaints: &mut Vec<String>) -> (u16, Value);
    /// Somebody else says something.
    fn chatter(&mut self, number: usize) -> Post;
    /// Takes the right to read away.
    fn may_not_read(&mut self);
}

struct Inside {
    service: Box<dyn Service>,
    posts: Vec<Post>,
    complaints: Vec<String>,
    requests: usize,
    trouble: Option<(usize, When, Trouble)>,
    always: Option<(u16, Value)>,
}

struct Shared {
    inside: Mutex<Inside>,
    hung: Notify,
}

pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<Result<(), std::io::Error>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(service: impl Service) -> Self {
        let shared = Arc::new(Shared {
            inside: Mutex::new(Inside {
                service: Box::new(service),
                posts: Vec::new(),
                complaints: Vec::new(),
                requests: 0,
                trouble: None,
                always: None,
            }),
            hung: Notify::new(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared, task }
    }

    fn inside<T>(&self, see: impl FnOnce(&mut Inside) -> T) -> T {
        see(&mut self.shared.inside.lock().expect("nobody panicked"))
    }

    /// The request of this number from now on, from 0, is troubled.
    pub fn trouble(&self, request: usize, when: When, trouble: Trouble) {
        self.inside(|inside| inside.trouble = Some((inside.requests + request, when, trouble)));
    }

    pub fn answers_always(&self, answer: Option<(u16, Value)>) {
        self.inside(|inside| inside.always = answer);
    }

    pub fn may_not_read(&self) {
        self.inside(|inside| inside.service.may_not_read());
    }

    pub fn chatter(&self, posts: usize) {
        self.inside(|inside| {
            for number in 0..posts {
                let post = inside.service.chatter(number);
                inside.posts.push(post);
            }
        });
    }

    pub fn delete(&self, id: &str) {
        self.inside(|inside| {
            inside
                .posts
                .retain(|post| post.id != id && post.root.as_deref() != Some(id));
        });
    }

    pub fn posts(&self) -> Vec<Post> {
        self.inside(|inside| inside.posts.clone())
    }

    /// Somebody waits for an answer that does not come.
    pub async fn hung(&self) {
        self.shared.hung.notified().await;
    }

    #[track_caller]
    pub fn has_no_complaint(&self) {
        let complaints = self.inside(|inside| inside.complaints.clone());
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (trouble, done) = {
        let mut inside = shared.inside.lock().expect("nobody panicked");
        let number = inside.requests;
        inside.requests += 1;
        let trouble = inside
            .trouble
            .filter(|(at, ..)| *at == number)
            .map(|(_, when, trouble)| (when, trouble));
        let done = if let Some(always) = &inside.always {
            always.clone()
        } else if matches!(trouble, Some((When::Before, _))) {
            (500, json!({}))
        } else {
            let query = uri.query().unwrap_or_default();
            let base = reqwest::Url::parse(&format!("http://chat/?{query}")).expect("a query");
            let asked = Asked {
                method: &method,
                path: uri.path(),
                query: base.query_pairs().into_owned().collect(),
                headers: &headers,
                body: &body,
            };
            let Inside {
                service,
                posts,
                complaints,
                ..
            } = &mut *inside;
            service.answer(&asked, posts, complaints)
        };
        (trouble.map(|(_, trouble)| trouble), done)
    };
    let code = |code: u16| StatusCode::from_u16(code).expect("a status");
    match trouble {
        None => {
            let (status, value) = done;
            (code(status), [("content-type", "application/json")], value.to_string()).into_response()
        }
        Some(Trouble::Hangs) => {
            shared.hung.notify_one();
            std::future::pending::<Infallible>().await;
            unreachable!("it hangs")
        }
        Some(Trouble::Cut) => {
            let parts = [Ok(Bytes::from_static(b"{\"o")), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures::stream::iter(parts)).into_response()
        }
        Some(Trouble::Status(status, after)) => {
            let mut response = (code(status), "from in between").into_response();
            if let Some(after) = after {
                let after = after.to_string().parse().expect("a header");
                response.headers_mut().insert("retry-after", after);
            }
            response
        }
    }
}

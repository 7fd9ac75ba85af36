//! A GitHub of our own, over HTTP: it remembers what it is told, asks for the tokens that GitHub would ask for, hands out
//! commits by git's own HTTP server, and can be slow, broken and of another time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(90);

pub const REPOSITORY: &str = "atlas/server";
pub const APP: u64 = 42;
pub const INSTALLATION: u64 = 7;

/// What it remembers.
#[derive(Default)]
pub struct Memory {
    pub pulls: Vec<Pull>,
    pub check_runs: Vec<Value>,
    /// Everything that was said of each check run, in order.
    pub updates: Vec<(u64, Value)>,
    pub statuses: Vec<(String, Value)>,
    pub rulesets: Vec<Value>,
    /// Method, route as the description names it, body.
    pub requests: Vec<(String, &'static str, Value)>,
    /// What the next calls are answered with instead.
    pub troubles: VecDeque<(u16, Option<u64>)>,
    /// How far its clock is ahead.
    pub ahead: SignedDuration,
    pub tokens: u64,
    /// Tokens up to this have ended.
    pub ended_tokens: u64,
    /// Apps by their names.
    pub apps: BTreeMap<&'static str, u64>,
    /// Who made a commit, as GitHub sees it.
    pub made: BTreeMap<String, Made>,
}

/// The login of a commit's author and of its committer, and whether GitHub finds the signature good.
#[derive(Clone)]
pub struct Made {
    pub author: &'static str,
    pub committer: &'static str,
    pub verified: bool,
}

/// An account as GitHub shows it: those of Apps end in `[bot]`, and nobody else's can.
fn account(login: &str) -> Value {
    let kind = if login.ends_with("[bot]") { "Bot" } else { "User" };
    json!({"login": login, "id": 1, "type": kind})
}

#[derive(Clone)]
pub struct Pull {
    pub number: u64,
    pub head: String,
    pub base: String,
    pub title: String,
    /// Who opened it.
    pub user: &'static str,
}

impl Memory {
    /// The last check run of a commit.
    pub fn check(&self, commit: &str) -> Option<&Value> {
        self.check_runs.iter().rfind(|run| run["head_sha"] == commit)
    }

    fn is_token(&self, token: &str) -> bool {
        let number = token.strip_prefix("ghs_").and_then(|n| n.parse::<u64>().ok());
        token == "ghp_given" || number.is_some_and(|n| n <= self.tokens && n > self.ended_tokens)
    }

    fn note(&mut self, method: &Method, route: &'static str, value: &Value) {
        self.requests
            .push((method.to_string().to_lowercase(), route, value.clone()));
    }

    pub fn conclusion(&self, commit: &str) -> Option<&str> {
        self.check(commit)?["conclusion"].as_str()
    }
}

struct Inside {
    memory: Mutex<Memory>,
    changed: Condvar,
    repository: PathBuf,
    public_key: Vec<u8>,
}

pub struct GitHub {
    inside: Arc<Inside>,
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl GitHub {
    /// For the bare repository in this directory; `key` is the App's, PEM.
    pub fn start(repository: &Path, key: &Path) -> Self {
        let public = Command::new("openssl")
            .args(["rsa", "-RSAPublicKey_out", "-outform", "DER", "-in"])
            .arg(key)
            .stderr(Stdio::null())
            .output()
            .expect("openssl runs");
        let inside = Arc::new(Inside {
            memory: Mutex::default(),
            changed: Condvar::new(),
            repository: repository.to_owned(),
            public_key: public.stdout,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inside));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            inside,
            address,
            _runtime: runtime,
        }
    }

    pub fn memory<T>(&self, see: impl FnOnce(&mut Memory) -> T) -> T {
        see(&mut self.inside.memory.lock().expect("nobody panicked"))
    }

    /// Waits until it has heard what is waited for.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut see: impl FnMut(&mut Memory) -> Option<T>) -> T {
        let mut memory = self.inside.memory.lock().expect("nobody panicked");
        loop {
            if let Some(seen) = see(&mut memory) {
                return seen;
            }
            let (next, late) = self
                .inside
                .changed
                .wait_timeout(memory, PATIENCE)
                .expect("nobody panicked");
            memory = next;
            assert!(!late.timed_out(), "{what}: {:#?}", memory.updates);
        }
    }
}

async fn answer(
    State(inside): State<Arc<Inside>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    tokio::task::spawn_blocking(move || inside.answer(&method, &uri, &headers, &body))
        .await
        .expect("no panic")
}

fn said(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

impl Inside {
    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response {
        let path = uri.path();
        let word = |name: &str| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        if let Some(rest) = path.strip_prefix("/git/") {
            return self.git(method, rest, uri.query().unwrap_or_default(), headers, body);
        }
        let mut memory = self.memory.lock().expect("nobody panicked");
        let now = Timestamp::now() + memory.ahead;
        let date = |mut response: Response| {
            let zoned = now.to_zoned(jiff::tz::TimeZone::UTC);
            let text = jiff::fmt::rfc2822::DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&zoned.timestamp())
                .expect("a date");
            response.headers_mut().insert("date", text.parse().expect("a header"));
            response
        };
        if let Some((status, wait)) = memory.troubles.pop_front() {
            let mut response = said(status, &json!({"message": "You have exceeded a secondary rate limit"}));
            if let Some(wait) = wait {
                response
                    .headers_mut()
                    .insert("retry-after", wait.to_string().parse().expect("a header"));
            }
            self.changed.notify_all();
            return date(response);
        }
        let token = word("authorization").trim_start_matches("Bearer ").to_owned();
        let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        if path == format!("/app/installations/{INSTALLATION}/access_tokens") {
            if !self.is_app(&token, now) {
                return date(said(
                    401,
                    &json!({"message": "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"}),
                ));
            }
            memory.note(method, "/app/installations/{installation_id}/access_tokens", &value);
            memory.tokens += 1;
            let expires = now + SignedDuration::from_hours(1);
            return date(said(
                201,
                &json!({"token": format!("ghs_{}", memory.tokens), "expires_at": expires.to_string(), "permissions": {"checks": "write"}}),
            ));
        }
        if !memory.is_token(&token) {
            return date(said(401, &json!({"message": "Bad credentials"})));
        }
        if let Some(name) = path.strip_prefix("/apps/") {
            return date(match memory.apps.get(name) {
                Some(id) => said(200, &json!({"id": id, "slug": name})),
                None => said(404, &json!({"message": "Not Found"})),
            });
        }
        let Some(rest) = path.strip_prefix(&format!("/repos/{REPOSITORY}/")) else {
            return date(said(404, &json!({"message": "Not Found"})));
        };
        let response = self.of_repository(&mut memory, method, rest, uri.query().unwrap_or_default(), value);
        self.changed.notify_all();
        date(response)
    }

    /// What lies below the repository.
    fn of_repository(&self, memory: &mut Memory, method: &Method, rest: &str, query: &str, value: Value) -> Response {
        let parts: Vec<&str> = rest.split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["branches", name @ ..]) => match self.rev(&format!("refs/heads/{}", name.join("/"))) {
                Some(sha) => said(
                    200,
                    &json!({"name": name.join("/"), "commit": {"sha": sha}, "protected": true}),
                ),
                None => said(404, &json!({"message": "Branch not found"})),
            },
            ("GET", ["pulls"]) => {
                let query: BTreeMap<String, String> = query
                    .split('&')
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .collect();
                let page: usize = query["page"].parse().expect("a number");
                let pulls: Vec<Value> = memory
                    .pulls
                    .iter()
                    .filter(|p| p.base == query["base"])
                    .skip((page - 1) * 100)
                    .take(100)
                    .map(|p| {
                        json!({"number": p.number, "title": p.title, "state": "open", "user": account(p.user),
                            "head": {"sha": p.head, "ref": "topic"}, "base": {"sha": "0", "ref": p.base}})
                    })
                    .collect();
                said(200, &json!(pulls))
            }
            ("POST", ["check-runs"]) => {
                memory.note(method, "/repos/{owner}/{repo}/check-runs", &value);
                let mut run = value;
                let id = memory.check_runs.len() as u64 + 1;
                run["id"] = json!(id);
                run["app"] = json!({"id": APP});
                memory.check_runs.push(run.clone());
                memory.updates.push((id, run.clone()));
                said(201, &run)
            }
            ("GET", ["commits", sha]) => {
                memory.note(method, "/repos/{owner}/{repo}/commits/{ref}", &value);
                let Some(made) = memory.made.get(*sha).cloned() else {
                    return said(422, &json!({"message": format!("No commit found for SHA: {sha}")}));
                };
                let reason = if made.verified { "valid" } else { "unknown_key" };
                said(
                    200,
                    &json!({"sha": sha, "author": account(made.author), "committer": account(made.committer),
                        "commit": {"verification": {"verified": made.verified, "reason": reason}}}),
                )
            }
            ("GET", ["commits", sha, "check-runs"]) => {
                let runs: Vec<&Value> = memory.check_runs.iter().filter(|r| r["head_sha"] == *sha).collect();
                said(200, &json!({"total_count": runs.len(), "check_runs": runs}))
            }
            ("PATCH", ["check-runs", id]) => {
                memory.note(method, "/repos/{owner}/{repo}/check-runs/{check_run_id}", &value);
                let id: u64 = id.parse().expect("a number");
                let run = memory
                    .check_runs
                    .iter_mut()
                    .find(|r| r["id"] == id)
                    .expect("made before");
                for (key, new) in value.as_object().expect("an object") {
                    run[key] = new.clone();
                }
                let run = run.clone();
                memory.updates.push((id, value));
                said(200, &run)
            }
            ("POST", ["statuses", sha]) => {
                memory.note(method, "/repos/{owner}/{repo}/statuses/{sha}", &value);
                memory.statuses.push(((*sha).to_owned(), value));
                said(201, &json!({"id": 1}))
            }
            ("GET", ["rulesets"]) => said(200, &json!(memory.rulesets)),
            ("GET", ["rulesets", id]) => {
                let found = memory.rulesets.iter().find(|r| r["id"].as_u64() == id.parse().ok());
                found.map_or_else(|| said(404, &json!({"message": "Not Found"})), |r| said(200, r))
            }
            ("POST", ["rulesets"]) => {
                memory.note(method, "/repos/{owner}/{repo}/rulesets", &value);
                let mut new = value;
                new["id"] = json!(memory.rulesets.len() + 1);
                memory.rulesets.push(new.clone());
                said(201, &new)
            }
            ("PUT", ["rulesets", id]) => {
                memory.note(method, "/repos/{owner}/{repo}/rulesets/{ruleset_id}", &value);
                let mut new = value;
                new["id"] = json!(id.parse::<u64>().expect("a number"));
                memory.rulesets.retain(|r| r["id"] != new["id"]);
                memory.rulesets.push(new.clone());
                said(200, &new)
            }
            _ => said(404, &json!({"message": "Not Found"})),
        }
    }

    /// As GitHub looks at a JWT: signed by the App, not from the future, good for 10 min at most.
    fn is_app(&self, token: &str, now: Timestamp) -> bool {
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let (Some((_, claims)), Ok(signature)) = (signed.split_once('.'), URL_SAFE_NO_PAD.decode(signature)) else {
            return false;
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
        let second = |name: &str| claims[name].as_i64().unwrap_or_default();
        let key =
            ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        key.verify(signed.as_bytes(), &signature).is_ok()
            && claims["iss"].as_str().and_then(|id| id.parse().ok()) == Some(APP)
            && second("iat") <= now.as_second()
            && second("exp") > now.as_second()
            && second("exp") - now.as_second() <= 600
    }

    fn rev(&self, name: &str) -> Option<String> {
        let said = Command::new("git")
            .args(["rev-parse", "--verify", "-q", name])
            .env("GIT_DIR", &self.repository)
            .output()
            .expect("git runs");
        said.status
            .success()
            .then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// git's own server, as a CGI program (git-http-backend(1)).
    fn git(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap, body: &[u8]) -> Response {
        use std::io::Write as _;
        let word = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let basic = word("authorization").trim_start_matches("Basic ");
        let user = STANDARD.decode(basic).unwrap_or_default();
        let user = String::from_utf8_lossy(&user).into_owned();
        let known = user
            .strip_prefix("x-access-token:")
            .is_some_and(|token| self.memory.lock().expect("nobody panicked").is_token(token));
        if !known {
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic")], "").into_response();
        }
        let path = path.replacen(&format!("{REPOSITORY}.git"), "", 1);
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.repository)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", path)
            .env("REQUEST_METHOD", method.as_str())
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", word("content-type"))
            .env("HTTP_CONTENT_ENCODING", word("content-encoding"))
            .env("GIT_PROTOCOL", word("git-protocol"))
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("GIT_CONFIG_KEY_1", "uploadpack.allowAnySHA1InWant")
            .env("GIT_CONFIG_VALUE_1", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git runs");
        let mut stdin = child.stdin.take().expect("piped");
        let body = body.to_vec();
        let feeding = std::thread::spawn(move || stdin.write_all(&body));
        let output = child.wait_with_output().expect("git ends");
        // It may end before it has read everything.
        let _ = feeding.join();
        let at = output.stdout.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&output.stdout[..at]).into_owned();
        let mut response = Response::new(output.stdout[at + 4..].to_vec().into());
        for line in head.lines() {
            let (name, value) = line.split_once(": ").expect("a header");
            if name == "Status" {
                let code = value.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
                *response.status_mut() = StatusCode::from_u16(code).expect("a status");
                continue;
            }
            let name: axum::http::HeaderName = name.to_lowercase().parse().expect("a name");
            response.headers_mut().insert(name, value.parse().expect("a value"));
        }
        response
    }
}

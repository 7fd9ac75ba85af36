//! Calls to GitHub, through octocrab: who we are, what is repeated and what is not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use octocrab::Octocrab;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::app::{App, InstallationToken, KeyError};
use super::checks::Ended;
use crate::http::{HttpError, HttpOptions, Route};
use crate::model::repository::GitHub;
use crate::secrets::Veil;

/// Attempts of one call. With the waits between them that is some 15 s, which outlasts a deployment at GitHub; what takes
/// longer is tried again with the whole check.
const ATTEMPTS: u32 = 5;
/// The wait after the first failure; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Where GitHub asks for more patience than this, the whole check is put off.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Pages of pull requests of a branch that are looked at: the 2,000 that were opened last.
const MOST_PAGES: u32 = 20;
/// How the login of an App's account ends, after the App's name in addresses.
const BOT: &str = "[bot]";
/// The account in whose name GitHub itself signs commits that are made by its API and its pages.
const GITHUB_ITSELF: &str = "web-flow";
/// GitHub's largest page.
const PAGE: usize = 100;

/// Why GitHub could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The App's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Nothing came back, or nothing that HTTP knows.
    #[error("cannot {tried}: {why}")]
    Call {
        /// What was tried.
        tried: String,
        /// What octocrab said.
        why: String,
    },
    /// GitHub cannot now, or asks for patience.
    #[error("cannot {tried}: GitHub answers {status}: {said}; tried again later")]
    Later {
        /// What was tried.
        tried: String,
        /// Its status.
        status: StatusCode,
        /// Its words.
        said: String,
        /// How long it asks us to wait.
        wait: Option<Duration>,
    },
    /// GitHub says no.
    #[error("cannot {tried}: GitHub answers {status}: {said}")]
    Refused {
        /// What was tried.
        tried: String,
        /// Its status.
        status: StatusCode,
        /// Its words.
        said: String,
    },
    /// Not what its description says.
    #[error("cannot {tried}: the answer is not as GitHub describes it: {why}")]
    Answer {
        /// What was tried.
        tried: String,
        /// What is wrong.
        why: String,
    },
}

/// Who we are.
#[derive(Debug)]
pub enum Access {
    /// An App, installed.
    App {
        /// Itself.
        app: Box<App>,
        /// Where.
        installation: u64,
    },
    /// A token that somebody gave us.
    Token(String),
}

/// A commit that something is to become of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its full name.
    pub commit: String,
    /// The branch that it is or is to become, without `refs/heads/`.
    pub base: String,
    /// The base branch's tip, full name.
    pub base_commit: String,
    /// The ref that git fetches it by.
    pub reference: String,
    /// The pull request's title, which a squash merge makes the subject of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The App that opened the pull request, by the login of its bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot: Option<String>,
}

impl Head {
    /// Whether it is its base's own tip.
    #[must_use]
    pub fn is_tip(&self) -> bool {
        self.commit == self.base_commit
    }
}

#[derive(Deserialize)]
struct Pull {
    number: u64,
    title: String,
    user: Option<User>,
    head: End,
    base: End,
}

#[derive(Deserialize)]
struct End {
    sha: String,
    #[serde(rename = "ref")]
    reference: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
    #[serde(rename = "type")]
    kind: String,
}

impl User {
    /// The login of an App's own account. Nobody else can have one like it: people's have no brackets.
    fn bot(self) -> Option<String> {
        (self.kind == "Bot" && self.login.ends_with(BOT)).then_some(self.login)
    }
}

#[derive(Deserialize)]
struct MadeCommit {
    author: Option<User>,
    committer: Option<User>,
    commit: Described,
}

#[derive(Deserialize)]
struct Described {
    verification: Verification,
}

#[derive(Deserialize)]
struct Verification {
    verified: bool,
}

#[derive(Deserialize)]
struct FoundApp {
    id: u64,
}

#[derive(Deserialize)]
struct Branch {
    commit: Commit,
}

#[derive(Deserialize)]
struct Commit {
    sha: String,
}

#[derive(Deserialize)]
struct Made {
    id: u64,
}

#[derive(Deserialize)]
struct Runs {
    check_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
    status: String,
    external_id: Option<String>,
    app: RunApp,
}

#[derive(Deserialize)]
struct RunApp {
    id: u64,
}

#[derive(Deserialize)]
struct Given {
    token: String,
    expires_at: Timestamp,
}

/// One repository at GitHub.
pub struct Api {
    github: GitHub,
    access: Access,
    client: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<InstallationToken>,
    /// How far GitHub's clock is ahead of ours.
    ahead: SignedDuration,
    /// Ids of Apps by their names, of the few that open pull requests here.
    apps: BTreeMap<String, u64>,
}

struct Answer {
    status: StatusCode,
    wait: Option<Duration>,
    date: Option<Timestamp>,
    text: String,
    /// Over what it was asked with.
    veil: Veil,
}

impl Api {
    /// The repository, asked as this one.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub fn new(github: GitHub, access: Access) -> Result<Self, ApiError> {
        let client = crate::http::client(&HttpOptions {
            route: Route::out_to(&github.api),
            ..HttpOptions::default()
        })?;
        Ok(Self {
            github,
            access,
            client,
            state: Mutex::default(),
        })
    }

    /// What it is about.
    pub fn github(&self) -> &GitHub {
        &self.github
    }

    /// What git fetches with, good for some minutes at least.
    ///
    /// # Errors
    /// GitHub gives none.
    pub async fn token(&self) -> Result<String, ApiError> {
        let (app, installation) = match &self.access {
            Access::Token(token) => return Ok(token.clone()),
            Access::App { app, installation } => (app, installation),
        };
        let (known, now) = {
            let state = self.state();
            (state.token.clone(), Timestamp::now() + state.ahead)
        };
        if let Some(known) = known.filter(|token| token.is_fresh(now)) {
            return Ok(known.token);
        }
        let tried = "get a token for the App's installation";
        let ours = app.token(now).map_err(|_| ApiError::Call {
            tried: tried.to_owned(),
            why: "the token could not be signed".to_owned(),
        })?;
        let path = format!("/app/installations/{installation}/access_tokens");
        let mut answer = self.once(tried, &ours, &Method::POST, &path, Some(&json!({}))).await?;
        // Our clock may be wrong; GitHub says what time it is.
        if let (StatusCode::UNAUTHORIZED, Some(date)) = (answer.status, answer.date) {
            let ahead = date.duration_since(Timestamp::now());
            self.state().ahead = ahead;
            if let Ok(ours) = app.token(Timestamp::now() + ahead) {
                answer = self.once(tried, &ours, &Method::POST, &path, Some(&json!({}))).await?;
            }
        }
        let Given { token, expires_at } = read(tried, answer)?;
        self.state().token = Some(InstallationToken {
            token: token.clone(),
            expires_at,
        });
        Ok(token)
    }

    /// Every commit that asks to be checked: open pull requests to our branches, and the tips of these.
    ///
    /// # Errors
    /// GitHub cannot be asked.
    pub async fn heads(&self) -> Result<Vec<Head>, ApiError> {
        let mut heads = Vec::new();
        for branch in &self.github.branches {
            // One that was deleted must not keep the others from being checked.
            let Some(tip) = self.tip(branch).await? else {
                tracing::warn!(
                    repository = self.github.repository,
                    branch,
                    "there is no such branch at GitHub"
                );
                continue;
            };
            heads.push(Head {
                commit: tip.clone(),
                base: branch.clone(),
                base_commit: tip.clone(),
                reference: format!("refs/heads/{branch}"),
                title: None,
                bot: None,
            });
            for page in 1..=MOST_PAGES {
                let route = self.route(&format!(
                    "/pulls?state=open&per_page={PAGE}&page={page}&base={}",
                    query_word(branch)
                ));
                let pulls: Vec<Pull> = self.call("list the pull requests", &Method::GET, &route, None).await?;
                let count = pulls.len();
                // GitHub's list may lag behind a retarget; what it says of each is what counts.
                let to_branch = pulls.into_iter().filter(|pull| pull.base.reference == *branch);
                heads.extend(to_branch.map(|pull| Head {
                    commit: pull.head.sha,
                    base: pull.base.reference,
                    // The branch may have moved since the pull request was opened; its policy of today is what holds.
                    base_commit: tip.clone(),
                    reference: format!("refs/pull/{}/head", pull.number),
                    title: Some(pull.title),
                    bot: pull.user.and_then(User::bot),
                }));
                if count < PAGE {
                    break;
                }
            }
        }
        Ok(heads)
    }

    /// The tip of a branch, if there is one.
    ///
    /// # Errors
    /// GitHub cannot be asked.
    pub async fn tip(&self, branch: &str) -> Result<Option<String>, ApiError> {
        let route = self.route(&format!("/branches/{}", path_word(branch)));
        let tried = format!("look at branch {branch}");
        let found = if_there(self.call::<Branch>(&tried, &Method::GET, &route, None).await)?;
        Ok(found.map(|Branch { commit }| commit.sha))
    }

    /// The App that made a commit. GitHub signs in an App's name only what the App made by its API and gave no other author to
    /// ("Signature verification for bots"); who wrote an author's name into a commit is not asked. What a person squashes at
    /// GitHub of an App's pull request looks the same: the App is its author, and GitHub has signed it.
    ///
    /// # Errors
    /// GitHub cannot be asked.
    pub async fn app_of_commit(&self, commit: &str) -> Result<Option<u64>, ApiError> {
        let route = self.route(&format!("/commits/{commit}"));
        let tried = format!("see who made commit {commit}");
        let Some(MadeCommit {
            author,
            committer,
            commit,
        }) = if_there(self.call(&tried, &Method::GET, &route, None).await)?
        else {
            return Ok(None);
        };
        let by_github = committer.is_some_and(|user| user.login == GITHUB_ITSELF) && commit.verification.verified;
        match author.and_then(User::bot).filter(|_| by_github) {
            Some(bot) => self.app_of_bot(&bot).await,
            None => Ok(None),
        }
    }

    /// The App whose account this is.
    ///
    /// # Errors
    /// GitHub cannot be asked.
    pub async fn app_of_bot(&self, login: &str) -> Result<Option<u64>, ApiError> {
        let name = login.trim_end_matches(BOT);
        if let Some(id) = self.state().apps.get(name) {
            return Ok(Some(*id));
        }
        let route = format!("/apps/{}", path_word(name));
        let tried = format!("look at the App {name}");
        let found = if_there(self.call::<FoundApp>(&tried, &Method::GET, &route, None).await)?;
        Ok(found.map(|FoundApp { id }| {
            self.state().apps.insert(name.to_owned(), id);
            id
        }))
    }

    /// Says that a check has begun; its id at GitHub. Without an App it is a pending commit status, which has none.
    ///
    /// # Errors
    /// GitHub does not take it.
    pub async fn begin(&self, head: &Head, external_id: &str) -> Result<Option<u64>, ApiError> {
        if let Access::Token(_) = self.access {
            self.status(&head.commit, "pending", "checking").await?;
            return Ok(None);
        }
        let body = json!({
            "name": self.github.check,
            "head_sha": head.commit,
            "status": "in_progress",
            "external_id": external_id,
            "started_at": Timestamp::now().to_string(),
        });
        let route = self.route("/check-runs");
        let Made { id } = self
            .call("make a check run", &Method::POST, &route, Some(&body))
            .await?;
        Ok(Some(id))
    }

    /// A check that we began and whose answer was lost: of our App, by our id, and still open. One that has our name and is
    /// somebody else's is none of ours.
    ///
    /// # Errors
    /// GitHub cannot be asked.
    pub async fn open(&self, head: &Head, external_id: &str) -> Result<Option<u64>, ApiError> {
        let Access::App { app, .. } = &self.access else {
            return Ok(None);
        };
        let route = self.route(&format!(
            "/commits/{}/check-runs?filter=all&per_page={PAGE}&check_name={}",
            head.commit,
            query_word(&self.github.check)
        ));
        let Runs { check_runs } = self
            .call("look for a check run of ours", &Method::GET, &route, None)
            .await?;
        let ours = check_runs.into_iter().find(|run| {
            run.status != "completed" && run.external_id.as_deref() == Some(external_id) && run.app.id == app.id()
        });
        Ok(ours.map(|run| run.id))
    }

    /// Says how a check ended: the annotations in batches, the conclusion with the last.
    ///
    /// # Errors
    /// GitHub does not take it; to be said again as a whole.
    pub async fn end(&self, head: &Head, id: Option<u64>, ended: &Ended) -> Result<(), ApiError> {
        let Some(id) = id else {
            return self.status(&head.commit, ended.status(), &ended.title).await;
        };
        let route = self.route(&format!("/check-runs/{id}"));
        let (last, before) = match ended.annotations.split_last() {
            Some((last, before)) => (last.as_slice(), before),
            None => (&[][..], &[][..]),
        };
        let output = |annotations: &[super::checks::Annotation]| json!({"title": ended.title, "summary": ended.summary, "annotations": annotations});
        for batch in before {
            let body = json!({"output": output(batch)});
            let _: Value = self
                .call("annotate a check run", &Method::PATCH, &route, Some(&body))
                .await?;
        }
        let body = json!({
            "status": "completed",
            "conclusion": ended.conclusion,
            "completed_at": Timestamp::now().to_string(),
            "output": output(last),
        });
        let _: Value = self
            .call("complete a check run", &Method::PATCH, &route, Some(&body))
            .await?;
        Ok(())
    }

    async fn status(&self, commit: &str, state: &str, description: &str) -> Result<(), ApiError> {
        let body = json!({"state": state, "context": self.github.check, "description": description});
        let route = self.route(&format!("/statuses/{commit}"));
        let _: Value = self
            .call("set a commit status", &Method::POST, &route, Some(&body))
            .await?;
        Ok(())
    }

    /// Below the repository.
    pub(super) fn route(&self, rest: &str) -> String {
        format!("/repos/{}{rest}", self.github.repository)
    }

    /// One call, repeated where that may help and does no harm: GitHub was in trouble, or asked for patience, or our token
    /// had ended.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        tried: &str,
        method: &Method,
        route: &str,
        body: Option<&Value>,
    ) -> Result<T, ApiError> {
        let mut wait = FIRST_WAIT;
        let mut anew = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = match self.token().await {
                Ok(token) => self.once(tried, &token, method, route, body).await,
                Err(why) => Err(why),
            };
            let settled = match answer {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && !anew => {
                    anew = true;
                    self.state().token = None;
                    continue;
                }
                Ok(answer) => read(tried, answer),
                Err(why) => Err(why),
            };
            let last = attempt >= ATTEMPTS;
            let asked = match settled {
                Err(ApiError::Later { wait: asked, .. }) if !last && asked.is_none_or(|w| w <= LONGEST_WAIT) => asked,
                Err(ApiError::Call { .. }) if !last => None,
                settled => return settled,
            };
            tokio::time::sleep(asked.unwrap_or(wait)).await;
            wait *= 2;
        }
    }

    async fn once(
        &self,
        tried: &str,
        token: &str,
        method: &Method,
        route: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ApiError> {
        let failed = |why: octocrab::Error| ApiError::Call {
            tried: tried.to_owned(),
            // Its own words carry a backtrace; the cause's do not.
            why: std::error::Error::source(&why).map_or_else(|| why.to_string(), ToString::to_string),
        };
        let octocrab = Octocrab::builder()
            .base_uri(self.github.api.as_str())
            .map_err(failed)?
            .personal_token(token.to_owned())
            .build_with_reqwest(self.client.clone())
            .map_err(failed)?;
        let request = http::Request::builder().method(method.clone()).uri(route);
        let request = octocrab.build_request(request, body).map_err(failed)?;
        let response = octocrab.execute(request).await.map_err(failed)?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let exhausted = header("x-ratelimit-remaining") == Some("0");
        let until_reset = || {
            let reset = header("x-ratelimit-reset")?.parse().ok()?;
            let left = Timestamp::from_second(reset).ok()?.duration_since(Timestamp::now());
            Duration::try_from(left).ok()
        };
        let asked = header("retry-after")
            .and_then(|v| v.parse().ok())
            .map(Duration::from_secs);
        let wait = asked.or_else(|| exhausted.then(until_reset).flatten());
        let date = header("date").and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let status = response.status();
        let text = octocrab.body_to_string(response).await.map_err(failed)?;
        Ok(Answer {
            status,
            wait,
            date: date.map(|zoned| zoned.timestamp()),
            text,
            veil: Veil::over([token]),
        })
    }

    /// What is behind the lock is changed in one step.
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing where GitHub says that it is not there, or is no name of one (422: a commit that it does not know). Any other no says
/// nothing about it.
fn if_there<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(ApiError::Refused {
            status: StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY,
            ..
        }) => Ok(None),
        Err(why) => Err(why),
    }
}

/// What an answer comes to.
fn read<T: DeserializeOwned>(tried: &str, answer: Answer) -> Result<T, ApiError> {
    let Answer {
        status,
        wait,
        date: _,
        text,
        veil,
    } = answer;
    let tried = tried.to_owned();
    if status.is_success() {
        return serde_json::from_str(&text).map_err(|why| ApiError::Answer {
            tried,
            why: veil.cut(&why.to_string()),
        });
    }
    let said = said(&text, &veil);
    // "Rate limits for the REST API": the secondary ones come as 403 or 429, with a time to wait or words.
    let limited = status == StatusCode::FORBIDDEN && (wait.is_some() || said.contains("rate limit"));
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || limited {
        return Err(ApiError::Later {
            tried,
            status,
            said,
            wait,
        });
    }
    Err(ApiError::Refused { tried, status, said })
}

/// GitHub's own words, in a line.
fn said(text: &str, veil: &Veil) -> String {
    let message = serde_json::from_str::<Value>(text)
        .ok()
        .and_then(|body| Some(body["message"].as_str()?.to_owned()));
    let words = message.unwrap_or_else(|| text.to_owned());
    let words: String = words.chars().filter(|c| !c.is_control()).collect();
    veil.cut(&words).chars().take(300).collect()
}

fn path_word(text: &str) -> String {
    encoded(text, b"-._~/")
}

fn query_word(text: &str) -> String {
    encoded(text, b"-._~")
}

/// Percent-encoded but for letters, digits and what is allowed besides (RFC 3986).
fn encoded(text: &str, allowed: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || allowed.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    /// What GitHub says of an App, or why it does not.
    async fn app_of_bot(status: u16, message: &str) -> String {
        let server = MockServer::start().await;
        let body = json!({"id": 29110, "message": message});
        Mock::given(method("GET"))
            .and(path("/apps/dependabot"))
            .respond_with(ResponseTemplate::new(status).set_body_json(body))
            .mount(&server)
            .await;
        let github = serde_json::from_value(json!({
            "repository": "a/b", "api": server.uri(), "remote": server.uri(), "token": "given", "webhookSecret": "hook",
            "branches": ["main"],
        }));
        let api = Api::new(github.expect("valid"), Access::Token("ghp_given".to_owned())).expect("a client");
        match api.app_of_bot("dependabot[bot]").await {
            Ok(Some(id)) => id.to_string(),
            Ok(None) => "none".to_owned(),
            Err(why) => why.to_string(),
        }
    }

    /// Who is refused an answer does not know that there is no App.
    #[tokio::test]
    async fn only_what_github_says_is_not_there_is_no_app() {
        for (status, expected) in [
            (200, "29110"),
            (404, "none"),
            (422, "none"),
            (
                401,
                "cannot look at the App dependabot: GitHub answers 401 Unauthorized: Resource not accessible",
            ),
            (
                403,
                "cannot look at the App dependabot: GitHub answers 403 Forbidden: Resource not accessible",
            ),
            (
                410,
                "cannot look at the App dependabot: GitHub answers 410 Gone: Resource not accessible",
            ),
        ] {
            assert_eq!(
                app_of_bot(status, "Resource not accessible").await,
                expected,
                "{status}"
            );
        }
    }
    /// I8: what stands between may say what it was sent.
    #[tokio::test]
    async fn what_repeats_our_token_is_shown_without_it() {
        let message = format!("{}no such token: ghp_given", "x".repeat(280));
        let said = app_of_bot(400, &message).await;
        assert!(said.ends_with("no such token: [hidd"), "{said}");
    }
}

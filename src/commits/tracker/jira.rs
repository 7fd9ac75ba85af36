//! JIRA's REST API, as far as issues are looked up: version 3 of JIRA Cloud, by e-mail address and API token, and version 2 of
//! JIRA Data Center, by a personal access token (since 8.14).

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use super::issues::{Answer, Issue};
use crate::http::{HttpError, HttpOptions, Route, cause, client};
use crate::model::tracker::{self, IssueTrackerSpec};
use crate::secrets::{SecretError, Secrets, Veil};

/// With three fields asked for an issue has about 2 kB, of which most are links to icons.
const MOST_BYTES: usize = 64 << 10;
/// Words of an answer that are shown.
const MOST_SAID: usize = 200;
/// What JIRA says about who asks, beside an answer that may be about what anybody may see.
const LOGIN_REASON: &str = "x-seraph-loginreason";
/// The same of JIRA Data Center: the name of the account, or `anonymous`.
const ACCOUNT: &str = "x-ausername";

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One call. JIRA looks an issue up in some 100 ms, and one under load in some seconds.
    pub call: Duration,
    /// A wait that JIRA asks for and that is kept. One that asks for more is not to be had now.
    pub wait: Duration,
    /// How often one question is asked.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(10),
            wait: Duration::from_secs(20),
            attempts: 3,
        }
    }
}

/// Why JIRA cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum JiraError {
    /// The token.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A token that no header can carry.
    #[error("the token of JIRA has a character that HTTP cannot carry; look at the secret `{0}`")]
    Token(String),
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// A JIRA that can be asked.
#[derive(Debug)]
pub struct Jira {
    client: Client,
    /// Up to the key.
    issues: String,
    /// Marked as sensitive, so that nothing prints it (I8).
    authorization: HeaderValue,
    /// Over the same: JIRA, or what stands before it, may repeat what it was asked with.
    veil: Veil,
    limits: Limits,
}

/// How one call ended.
enum Called {
    Answered(Answer),
    /// It may answer soon.
    Later(Option<Duration>, String),
}

#[derive(Deserialize)]
struct Body {
    key: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    project: Keyed,
    issuetype: OfName,
    status: OfName,
}

#[derive(Deserialize)]
struct Keyed {
    key: String,
}

#[derive(Deserialize)]
struct OfName {
    name: String,
}

impl Jira {
    /// The one that is stated. Relative files of secrets lie below the workspace.
    ///
    /// # Errors
    /// Its token cannot be had.
    pub fn new(spec: &IssueTrackerSpec, workspace: &Path, limits: Limits) -> Result<Self, JiraError> {
        let secrets = Secrets::new(spec.secrets.clone(), workspace.to_owned());
        let tracker::Jira {
            url,
            cloud,
            data_center,
        } = &spec.jira;
        let (version, name, scheme, veil) = match (cloud, data_center) {
            (Some(cloud), _) => {
                let token = secrets.text(&cloud.token)?;
                let pair = STANDARD.encode(format!("{}:{token}", cloud.user));
                let veil = Veil::over([&token, &pair]);
                (3, &cloud.token, format!("Basic {pair}"), veil)
            }
            (None, Some(own)) => {
                let token = secrets.text(&own.token)?;
                (2, &own.token, format!("Bearer {token}"), Veil::over([&token]))
            }
            // `findings` refuses it.
            (None, None) => return Err(SecretError::Unknown("token".to_owned()).into()),
        };
        let mut authorization = HeaderValue::from_str(&scheme).map_err(|_| JiraError::Token(name.clone()))?;
        authorization.set_sensitive(true);
        Ok(Self {
            client: client(&HttpOptions {
                timeout: limits.call,
                route: Route::out_to(url),
                ..HttpOptions::default()
            })?,
            issues: format!("{}/rest/api/{version}/issue/", url.trim_end_matches('/')),
            authorization,
            veil,
            limits,
        })
    }

    /// Looks an issue up. [`super::Trackers::ask`] lets only keys of known projects through to here: they have letters, digits,
    /// `_` and `-` alone, which an address can carry as they are.
    pub async fn issue(&self, key: &str) -> Answer {
        let mut wait = Duration::from_secs(1);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (asked, why) = match self.once(key).await {
                Called::Answered(answer) => return answer,
                Called::Later(asked, why) => (asked, why),
            };
            let pause = asked.unwrap_or(wait);
            if attempt >= self.limits.attempts || pause > self.limits.wait {
                return Answer::Silent(why);
            }
            tokio::time::sleep(pause).await;
            wait *= 2;
        }
    }

    async fn once(&self, key: &str) -> Called {
        let url = format!("{}{key}?fields=project,issuetype,status", self.issues);
        let sent = self
            .client
            .get(url)
            .header(AUTHORIZATION, self.authorization.clone())
            .header("accept", "application/json")
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            // A connection that hangs has taken its time already.
            Err(why) if why.is_timeout() => return silent(cause(&why)),
            Err(why) => return Called::Later(None, format!("JIRA does not answer: {}", cause(&why))),
        };
        let veil = &self.veil;
        let (status, wait, known) = (response.status(), asked_wait(&response), knows_us(&response));
        let text = match body(response).await {
            Ok(text) => text,
            Err(why) => return why,
        };
        match status {
            StatusCode::OK => read(&text, veil),
            // Anybody who is not known is told that nothing is there.
            StatusCode::NOT_FOUND if !known => {
                silent("JIRA does not know who asks (it answers 404 as to anybody); look at the token".to_owned())
            }
            StatusCode::NOT_FOUND if said(&text, veil).is_some() => Called::Answered(Answer::NotThere),
            StatusCode::NOT_FOUND => unavailable(
                "JIRA answers 404, and not in its own words; look at the address of the IssueTracker".to_owned(),
            ),
            StatusCode::TOO_MANY_REQUESTS => Called::Later(wait, words(status, &text, veil)),
            status if status.is_server_error() => Called::Later(wait, words(status, &text, veil)),
            // It is about who asks, and asking on with a token that does not hold may lock the account.
            StatusCode::UNAUTHORIZED => silent(words(status, &text, veil)),
            status => unavailable(words(status, &text, veil)),
        }
    }
}

/// What concerns this key alone, as far as we see.
fn unavailable(why: String) -> Called {
    Called::Answered(Answer::Unavailable(why))
}

/// What every other key would meet, too.
fn silent(why: String) -> Called {
    Called::Answered(Answer::Silent(why))
}

/// As seconds; JIRA gives no date there.
fn asked_wait(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn knows_us(response: &Response) -> bool {
    let headers = response.headers();
    // It may come twice, once of each way in that was tried.
    let mut reasons = headers.get_all(LOGIN_REASON).iter().peekable();
    let refused = reasons.peek().is_some() && !reasons.any(|reason| reason == "OK");
    !refused && headers.get(ACCOUNT).is_none_or(|account| account != "anonymous")
}

async fn body(mut response: Response) -> Result<Vec<u8>, Called> {
    let mut bytes = Vec::new();
    let broken = |why: reqwest::Error| Called::Later(None, format!("JIRA does not answer: {}", cause(&why)));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if bytes.len() + chunk.len() > MOST_BYTES {
            let kib = MOST_BYTES >> 10;
            return Err(unavailable(format!("JIRA's answer has more than {kib} KiB")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn read(text: &[u8], veil: &Veil) -> Called {
    match serde_json::from_slice::<Body>(text) {
        Ok(Body { key, fields }) => Called::Answered(Answer::There(Issue::new(
            &veil.cut(&key),
            &veil.cut(&fields.project.key),
            &veil.cut(&fields.issuetype.name),
            &veil.cut(&fields.status.name),
            Timestamp::now(),
        ))),
        // A login page comes with 200 as well.
        Err(why) => unavailable(format!(
            "what JIRA answers is no issue ({}); look at the address and the token",
            veil.cut(&why.to_string())
        )),
    }
}

/// JIRA's own words, if they are.
fn said(text: &[u8], veil: &Veil) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Errors {
        error_messages: Vec<String>,
    }
    let Errors { error_messages } = serde_json::from_slice(text).ok()?;
    let words: String = error_messages.join(" ").chars().filter(|c| !c.is_control()).collect();
    let words: String = veil.cut(&words).chars().take(MOST_SAID).collect();
    (!words.is_empty()).then_some(words)
}

fn words(status: StatusCode, text: &[u8], veil: &Veil) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; look at the token, and whether its account may see the project"
        }
        status if status.is_redirection() => "; it asks for a login elsewhere: look at the address and the token",
        _ => "",
    };
    let said = said(text, veil).map_or_else(String::new, |said| format!(": {said}"));
    format!("JIRA answers {status}{said}{hint}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use tempfile::TempDir;
    use wiremock::matchers::{header, method, path, query_param};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::model::environment::SecretSource;
    use crate::model::tracker::{JiraCloud, JiraDataCenter};

    #[derive(Clone, Copy)]
    enum Kind {
        Cloud,
        DataCenter,
    }

    /// A JIRA at this address whose token is in a file.
    fn jira(url: &str, kind: Kind, limits: Limits) -> (TempDir, Jira) {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::write(place.path().join("token"), "s3cret\n").expect("written");
        let source: SecretSource = serde_json::from_value(json!({"file": "token"})).expect("a source");
        let token = || "jira".to_owned();
        let user = || "bot@example.org".to_owned();
        let spec = IssueTrackerSpec {
            jira: tracker::Jira {
                url: url.to_owned(),
                cloud: match kind {
                    Kind::Cloud => Some(JiraCloud {
                        user: user(),
                        token: token(),
                    }),
                    Kind::DataCenter => None,
                },
                data_center: match kind {
                    Kind::Cloud => None,
                    Kind::DataCenter => Some(JiraDataCenter { token: token() }),
                },
            },
            secrets: BTreeMap::from([(token(), source)]),
        };
        let jira = Jira::new(&spec, place.path(), limits).expect("it can be asked");
        (place, jira)
    }

    fn issue(key: &str) -> Value {
        json!({"id": "10001", "key": key, "fields": {
            "project": {"key": "ABC", "name": "A B C"}, "issuetype": {"name": "Bug", "subtask": false},
            "status": {"name": "In Review", "statusCategory": {"key": "indeterminate"}}}})
    }

    fn hidden() -> Value {
        json!({"errorMessages": ["Issue does not exist or you do not have permission to see it."], "errors": {}})
    }

    const QUICK: Limits = Limits {
        call: Duration::from_secs(5),
        wait: Duration::from_secs(2),
        attempts: 2,
    };

    fn in_words(answer: &Answer) -> String {
        match answer {
            Answer::There(Issue {
                key,
                project,
                kind,
                status,
                ..
            }) => format!("{key} {project} {kind} {status}"),
            Answer::NotThere => "not there".to_owned(),
            Answer::Unavailable(why) => format!("unavailable: {why}"),
            Answer::Silent(why) => format!("silent: {why}"),
        }
    }

    #[tokio::test]
    async fn each_kind_is_asked_by_its_own_version_and_in_its_own_way_of_saying_who_asks() {
        for (kind, version, authorization) in [
            (Kind::Cloud, 3, "Basic Ym90QGV4YW1wbGUub3JnOnMzY3JldA=="),
            (Kind::DataCenter, 2, "Bearer s3cret"),
        ] {
            let server = MockServer::start().await;
            Mock::given(method("GET"))
                .and(path(format!("/jira/rest/api/{version}/issue/ABC-1")))
                .and(query_param("fields", "project,issuetype,status"))
                .and(header("authorization", authorization))
                .respond_with(ResponseTemplate::new(200).set_body_json(issue("ABC-1")))
                .mount(&server)
                .await;
            let (_place, jira) = jira(&format!("{}/jira/", server.uri()), kind, QUICK);
            assert_eq!(in_words(&jira.issue("ABC-1").await), "ABC-1 ABC Bug In Review");
            assert!(!format!("{jira:?}").contains("s3cret"), "{jira:?}");
        }
    }

    /// What is said is told apart from what is not known: only JIRA's own word, to who is known to it, says that nothing is
    /// there.
    #[tokio::test]
    async fn only_a_word_of_jiras_own_to_whom_it_knows_says_that_an_issue_is_not_there() {
        let answer = |status: u16, body: Value| ResponseTemplate::new(status).set_body_json(body);
        let refused = json!({"errorMessages": ["You are not logged in \u{1b}[31m"], "errors": {}});
        let page = || ResponseTemplate::new(200).set_body_string("<html>log in</html>");
        for (what, response, expected) in [
            ("hidden", answer(404, hidden()), "not there"),
            (
                "hidden from who is known",
                answer(404, hidden())
                    .insert_header(LOGIN_REASON, "OK")
                    .insert_header(ACCOUNT, "bot"),
                "not there",
            ),
            (
                "a token that has ended",
                answer(404, hidden()).insert_header(LOGIN_REASON, "AUTHENTICATED_FAILED"),
                "silent: JIRA does not know who asks",
            ),
            (
                "anonymous",
                answer(404, hidden()).insert_header(ACCOUNT, "anonymous"),
                "silent: JIRA does not know who asks",
            ),
            (
                "another server",
                ResponseTemplate::new(404).set_body_string("<h1>Not Found</h1>"),
                "unavailable: JIRA answers 404, and not in its own words",
            ),
            (
                "401",
                answer(401, refused),
                "silent: JIRA answers 401 Unauthorized: You are not logged in [31m; look at the token",
            ),
            (
                "401 that repeats what it was asked with",
                answer(
                    401,
                    json!({"errorMessages": [format!("{}Bearer s3cret is no token", "x".repeat(MOST_SAID - 9))]}),
                ),
                &format!(
                    "silent: JIRA answers 401 Unauthorized: {}Bearer [h; look",
                    "x".repeat(MOST_SAID - 9)
                ),
            ),
            (
                "an issue that repeats it",
                answer(
                    200,
                    json!({"key": "s3cret", "fields": {"project": {"key": "Bearer s3cret"}, "issuetype": {"name": "s3crets3cret"},
                        "status": {"name": format!("{}s3cret", "y".repeat(97))}}}),
                ),
                &format!("[hidden] Bearer [hidden] [hidden][hidden] {}[hi", "y".repeat(97)),
            ),
            (
                "another form that repeats it",
                answer(200, json!({"key": "ABC-1", "fields": "s3cret"})),
                "unavailable: what JIRA answers is no issue (invalid type: string \"[hidden]\"",
            ),
            (
                "403",
                ResponseTemplate::new(403),
                "unavailable: JIRA answers 403 Forbidden; look at the token",
            ),
            (
                "a login page elsewhere",
                ResponseTemplate::new(302).insert_header("location", "/login"),
                "unavailable: JIRA answers 302 Found; it asks for a login elsewhere",
            ),
            ("a login page", page(), "unavailable: what JIRA answers is no issue"),
            (
                "another form",
                answer(200, json!({"key": "ABC-1"})),
                "unavailable: what JIRA answers is no issue",
            ),
            (
                "a flood",
                ResponseTemplate::new(200).set_body_string("x".repeat(MOST_BYTES + 1)),
                "unavailable: JIRA's answer has more than 64 KiB",
            ),
            (
                "503",
                answer(503, json!({})),
                "silent: JIRA answers 503 Service Unavailable",
            ),
            (
                "asked for more patience than we have",
                ResponseTemplate::new(429).insert_header("retry-after", "3600"),
                "silent: JIRA answers 429 Too Many Requests",
            ),
        ] {
            let server = MockServer::start().await;
            Mock::given(method("GET")).respond_with(response).mount(&server).await;
            let (_place, jira) = jira(&server.uri(), Kind::DataCenter, QUICK);
            let said = in_words(&jira.issue("ABC-1").await);
            assert!(said.starts_with(expected), "{what}: {said}");
        }
    }

    #[tokio::test]
    async fn who_asks_for_patience_gets_it() {
        let server = MockServer::start().await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(429).insert_header("retry-after", "0"))
            .up_to_n_times(1)
            .mount(&server)
            .await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(200).set_body_json(issue("ABC-1")))
            .mount(&server)
            .await;
        let (_place, jira) = jira(&server.uri(), Kind::Cloud, QUICK);
        assert_eq!(in_words(&jira.issue("ABC-1").await), "ABC-1 ABC Bug In Review");
    }

    #[tokio::test]
    async fn a_jira_that_hangs_or_is_gone_is_not_waited_for() {
        // It takes the connection, and says nothing.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let call = Duration::from_millis(50);
        let (_place, hung) = jira(&url, Kind::Cloud, Limits { call, ..QUICK });
        let said = in_words(&hung.issue("ABC-1").await);
        assert!(said.starts_with("silent: timed out"), "{said}");
        drop(listener);
        let attempts = 1;
        let (_place, gone) = jira(&url, Kind::Cloud, Limits { attempts, ..QUICK });
        let said = in_words(&gone.issue("ABC-1").await);
        assert!(
            said.starts_with("silent: JIRA does not answer: no connection"),
            "{said}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_an_issue_or_is_none(bytes: Vec<u8>, key: String, name: String) {
            let body = json!({"key": key, "fields": {"project": {"key": key}, "issuetype": {"name": name}, "status": {"name": name}}});
            for bytes in [bytes.as_slice(), body.to_string().as_bytes()] {
                let veil = Veil::default();
                let _ = (read(bytes, &veil), said(bytes, &veil));
            }
        }
    }
}

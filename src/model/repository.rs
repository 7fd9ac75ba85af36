//! A repository whose commits are checked where it is hosted.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address;
use super::environment::SecretSource;
use super::system::Finding;
use super::text::path::Part;

/// Where it is hosted, and who we are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepositorySpec {
    /// At GitHub.
    pub github: GitHub,
    /// Where the secrets come from that are named here.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
}

/// A repository at GitHub. Exactly one of `app` and `token` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitHub {
    /// `OWNER/NAME`.
    pub repository: String,
    /// Where the API is; of GitHub Enterprise Server `https://HOST/api/v3`.
    #[serde(default = "api")]
    pub api: String,
    /// Where git fetches from: `REMOTE/OWNER/NAME.git`.
    #[serde(default = "remote")]
    pub remote: String,
    /// The App that makes check runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<GitHubApp>,
    /// The secret with a token that may write commit statuses, where there is no App.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The secret that deliveries are signed with.
    pub webhook_secret: String,
    /// What our check is called.
    #[serde(default = "check")]
    pub check: String,
    /// The branches whose pull requests and tips are checked.
    #[serde(default = "branches")]
    pub branches: Vec<String>,
}

/// A GitHub App as it is installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitHubApp {
    /// Its id.
    pub id: u64,
    /// The id of its installation on the repository's owner.
    pub installation: u64,
    /// The secret with its private key, PEM.
    pub key: String,
}

fn api() -> String {
    "https://api.github.com".to_owned()
}

fn remote() -> String {
    "https://github.com".to_owned()
}

fn check() -> String {
    "stagegate".to_owned()
}

fn branches() -> Vec<String> {
    vec!["main".to_owned()]
}

impl RepositorySpec {
    /// Everything that is wrong with it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let GitHub {
            repository,
            api,
            remote,
            app,
            token,
            webhook_secret,
            check: _,
            branches,
        } = &self.github;
        let at = |key: &str| vec![Part::Key("github".to_owned()), Part::Key(key.to_owned())];
        let mut findings = Vec::new();
        let mut say = |path: Vec<Part>, message: String, hint: &str| {
            findings.push(Finding {
                path,
                message,
                hint: (!hint.is_empty()).then(|| hint.to_owned()),
            });
        };
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !repository
            .split_once('/')
            .is_some_and(|(owner, name)| plain(owner) && plain(name))
        {
            say(at("repository"), format!("`{repository}` is no OWNER/NAME"), "");
        }
        for (key, url) in [("api", api), ("remote", remote)] {
            if let Some((message, hint)) = address::trouble(url) {
                say(at(key), message, hint);
            }
        }
        if app.is_some() == token.is_some() {
            let message = "exactly one of `app` and `token` says who we are".to_owned();
            say(
                vec![Part::Key("github".to_owned())],
                message,
                "only an App can make check runs",
            );
        }
        if branches.is_empty() {
            say(at("branches"), "without a branch nothing is checked".to_owned(), "");
        }
        let mut key = at("app");
        key.push(Part::Key("key".to_owned()));
        let named = [
            (at("webhookSecret"), Some(webhook_secret)),
            (at("token"), token.as_ref()),
            (key, app.as_ref().map(|app| &app.key)),
        ];
        for (path, name) in named {
            if let Some(name) = name.filter(|name| !self.secrets.contains_key(*name)) {
                say(path, format!("there is no secret `{name}`"), "`secrets` define them");
            }
        }
        findings
    }
}

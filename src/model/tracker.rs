//! A tracker of issues that commits name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address;
use super::environment::SecretSource;
use super::system::Finding;
use super::text::path::Part;

/// Where issues are looked up, and who asks. A commit policy names it by `message.issue.tracker`; that it stands here and not
/// in the policy keeps whoever writes a policy from sending the token to an address of theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueTrackerSpec {
    /// JIRA.
    pub jira: Jira,
    /// Where the secrets come from that are named here.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
}

/// A JIRA. Exactly one of `cloud` and `dataCenter` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jira {
    /// Its address, as `https://SITE.atlassian.net` or `https://HOST/jira`.
    pub url: String,
    /// It is Atlassian's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<JiraCloud>,
    /// It is run by a site itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_center: Option<JiraDataCenter>,
}

/// Who asks JIRA Cloud.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JiraCloud {
    /// The e-mail address of the account.
    pub user: String,
    /// The secret with its API token.
    pub token: String,
}

/// Who asks JIRA Data Center.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JiraDataCenter {
    /// The secret with a personal access token.
    pub token: String,
}

impl IssueTrackerSpec {
    /// Everything that is wrong with it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let Jira {
            url,
            cloud,
            data_center,
        } = &self.jira;
        let at = |keys: &[&str]| -> Vec<Part> {
            let keys = ["jira"].iter().chain(keys);
            keys.map(|key| Part::Key((*key).to_owned())).collect()
        };
        let mut findings = Vec::new();
        let mut say = |path: Vec<Part>, message: String, hint: &str| {
            findings.push(Finding {
                path,
                message,
                hint: Some(hint.to_owned()),
            });
        };
        if let Some((message, hint)) = address::trouble(url) {
            say(at(&["url"]), message, hint);
        }
        if cloud.is_some() == data_center.is_some() {
            let message = "exactly one of `cloud` and `dataCenter` says which kind of JIRA it is".to_owned();
            say(
                at(&[]),
                message,
                "an address at atlassian.net is JIRA Cloud; what a site runs itself is JIRA Data Center",
            );
        }
        let named = [
            ("cloud", cloud.as_ref().map(|cloud| &cloud.token)),
            ("dataCenter", data_center.as_ref().map(|own| &own.token)),
        ];
        for (kind, name) in named {
            if let Some(name) = name.filter(|name| !self.secrets.contains_key(*name)) {
                say(
                    at(&[kind, "token"]),
                    format!("there is no secret `{name}`"),
                    "`secrets` define them",
                );
            }
        }
        findings
    }
}

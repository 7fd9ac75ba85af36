//! Where steps are reported.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::upgrade::Severity;

/// Where steps are reported: exactly one of the kinds is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportSink {
    /// Its name.
    pub name: String,
    /// Of all reports these alone. Without, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// A template in templates/ that says what happened in other words than the shipped ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// JSON lines in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSink>,
    /// A chat's incoming webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSink>,
    /// Lines on standard error of the command that drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutSink>,
    /// A channel of Slack: a thread for each promotion, whose first message says how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackSink>,
    /// A channel of Mattermost: a thread for each promotion, whose first message says how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mattermost: Option<MattermostSink>,
    /// Mail: a thread for each promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailSink>,
}

impl ReportSink {
    /// Names of the secrets that it is told with.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let Self {
            name: _,
            only: _,
            template: _,
            file: _,
            webhook,
            stdout: _,
            slack,
            mattermost,
            email,
        } = self;
        let webhook = webhook
            .iter()
            .flat_map(|webhook| std::iter::once(&webhook.url).chain(&webhook.signed_by));
        let slack = slack.iter().map(|slack| &slack.token);
        let mattermost = mattermost
            .iter()
            .flat_map(|mattermost| std::iter::once(&mattermost.token).chain(&mattermost.ca));
        let email = email.iter().flat_map(|email| email.password.iter().chain(&email.ca));
        webhook.chain(slack).chain(mattermost).chain(email).map(String::as_str)
    }
}

/// Which reports: those that are all that is stated here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Only {
    /// Of this severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Of one of these reasons (`stagegate events` shows them).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Vec<String>>,
    /// About one of these components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Vec<String>>,
    /// Of one of these kinds of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<Vec<ThreadKind>>,
}

/// What a report belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ThreadKind {
    /// A promotion.
    Promotion,
    /// An upgrade that is no promotion's.
    Upgrade,
    /// Neither: what happens to an environment, as a freeze.
    Environment,
}

/// JSON lines in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSink {
    /// Absolute, or relative to the environment's state directory.
    pub path: String,
}

/// A chat's incoming webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSink {
    /// Name of the secret that holds its address.
    pub url: String,
    /// Names of the secrets whose keys sign each request, as the Standard Webhooks specification has it: one, or two while its receivers change from
    /// one to the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
}

/// Lines of text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StdoutSink {}

/// Slack's Web API, as an app's bot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlackSink {
    /// The channel's ID, as `C0123456789`: its name may change, and messages are changed by the ID alone.
    pub channel: String,
    /// Name of the secret with the bot's token (`xoxb-…`), of the scopes `chat:write` and `channels:history` (`groups:history` for a private
    /// channel).
    pub token: String,
    /// The address of the API.
    #[serde(default = "slack_api")]
    pub url: String,
}

fn slack_api() -> String {
    "https://slack.com/api".to_owned()
}

/// Mattermost's API, as a bot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MattermostSink {
    /// The server's address, as `https://chat.example.org`.
    pub url: String,
    /// The channel's ID, 26 letters and digits (View Info of the channel).
    pub channel: String,
    /// Name of the secret with the bot's access token.
    pub token: String,
    /// Name of the secret with the certificates (PEM) of the authorities that are trusted, where they are not the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// A server that takes mail (SMTP).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmailSink {
    /// Its host name, which its certificate has.
    pub server: String,
    /// Its port: 587 with STARTTLS, 465 with TLS from the first byte, 25 without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How what is sent is kept from others.
    #[serde(default)]
    pub tls: MailTls,
    /// Who it is from, as `Stagegate <stagegate@example.org>`.
    pub from: String,
    /// Who it is for.
    pub to: Vec<String>,
    /// The name that it is handed in under, where the server asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the secret with that one's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Name of the secret with the certificate (PEM) of the authority that is trusted, where it is not one of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// How mail is kept from others on its way to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MailTls {
    /// TLS after a beginning without; a server that has none gets nothing.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Nothing: to a server on this machine alone.
    None,
}

//! Where reports go.

use super::{Checker, below, key};
use crate::model::address;
use crate::model::sinks::{FileSink, MattermostSink, ReportSink, SlackSink, WebhookSink};
use crate::model::text::path::Part as Step;

/// Mattermost's IDs: 16 bytes in base 32, without padding.
const MATTERMOST_ID: usize = 26;

impl Checker<'_> {
    pub(super) fn sinks(&mut self) {
        let spec = self.spec;
        for (i, sink) in spec.reports.iter().enumerate() {
            self.sink(&[key("reports"), Step::Index(i)], sink);
        }
        self.unique(&[key("reports")], spec.reports.iter().map(|r| r.name.as_str()));
    }

    fn sink(&mut self, path: &[Step], sink: &ReportSink) {
        let ReportSink {
            name,
            file,
            webhook,
            stdout,
            slack,
            mattermost,
        } = sink;
        let given = [
            file.is_some(),
            webhook.is_some(),
            stdout.is_some(),
            slack.is_some(),
            mattermost.is_some(),
        ];
        let n = given.iter().filter(|g| **g).count();
        if n != 1 {
            self.say(
                path,
                format!("report sink `{name}` is of {n} kinds, and must be of exactly one"),
                Some("give one of `file`, `webhook`, `stdout`, `slack` and `mattermost`".to_owned()),
            );
        }
        if let Some(FileSink { path: file }) = file {
            self.inside_or_absolute(
                &below(path, &[key("file"), key("path")]),
                file,
                "the environment's directory",
            );
        }
        if let Some(WebhookSink { url }) = webhook {
            self.secret(&below(path, &[key("webhook"), key("url")]), url);
        }
        if let Some(slack) = slack {
            self.slack(&below(path, &[key("slack")]), slack);
        }
        if let Some(mattermost) = mattermost {
            self.mattermost(&below(path, &[key("mattermost")]), mattermost);
        }
    }

    fn slack(&mut self, path: &[Step], sink: &SlackSink) {
        let SlackSink { channel, token, url } = sink;
        let is_id = channel.len() >= 9
            && channel.starts_with(['C', 'G', 'D'])
            && channel.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        if !is_id {
            self.say(
                &below(path, &[key("channel")]),
                format!("`{channel}` is no ID of a channel of Slack"),
                Some("it is below the channel's details, as C0123456789".to_owned()),
            );
        }
        self.secret(&below(path, &[key("token")]), token);
        self.token_goes_to(&below(path, &[key("url")]), url);
    }

    fn mattermost(&mut self, path: &[Step], sink: &MattermostSink) {
        let MattermostSink {
            url,
            channel,
            token,
            ca,
        } = sink;
        let is_id =
            channel.len() == MATTERMOST_ID && channel.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !is_id {
            self.say(
                &below(path, &[key("channel")]),
                format!("`{channel}` is no ID of a channel of Mattermost"),
                Some("it is below View Info of the channel, 26 small letters and digits".to_owned()),
            );
        }
        self.secret(&below(path, &[key("token")]), token);
        if let Some(ca) = ca {
            self.secret(&below(path, &[key("ca")]), ca);
        }
        self.token_goes_to(&below(path, &[key("url")]), url);
    }

    fn token_goes_to(&mut self, path: &[Step], url: &str) {
        if let Some((message, hint)) = address::trouble(url) {
            self.say(path, message, Some(hint.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::environment::EnvironmentSpec;
    use serde_json::{Value, json};

    /// What is said of one sink, with the place that it is said of.
    fn found(sink: &Value) -> Vec<String> {
        let spec: EnvironmentSpec = serde_json::from_value(json!({
            "components": [{"name": "web", "nodes": [{"name": "n1"}]}],
            "secrets": {"bot": {"file": "bot"}},
            "reports": [sink],
        }))
        .expect("an environment");
        let findings = crate::model::check::findings(&spec).into_iter();
        findings
            .map(|finding| format!("{:?}: {}", finding.path.last().expect("a place"), finding.message))
            .collect()
    }

    fn check(rows: &[(Value, &str)]) {
        for (sink, expected) in rows {
            let found = found(sink);
            let as_expected = match *expected {
                "" => found.is_empty(),
                expected => found.len() == 1 && found[0].contains(expected),
            };
            assert!(as_expected, "{sink}: {found:#?}");
        }
    }

    const SLACK: &str = "C0123456789";
    const MATTERMOST: &str = "4xp9fdt77pncbef59f4k1qe83o";

    #[test]
    fn a_sink_is_of_one_kind() {
        check(&[
            (json!({"name": "a", "stdout": {}}), ""),
            (json!({"name": "a"}), "of 0 kinds"),
            (
                json!({"name": "a", "stdout": {}, "slack": {"channel": SLACK, "token": "bot"}}),
                "of 2 kinds",
            ),
        ]);
    }

    #[test]
    fn a_chat_has_the_id_of_a_channel_and_a_token_that_goes_where_it_may() {
        let slack = |channel: &str, token: &str, url: &str| json!({"name": "a", "slack": {"channel": channel, "token": token, "url": url}});
        let mattermost = |channel: &str, token: &str, url: &str| json!({"name": "a", "mattermost": {"channel": channel, "token": token, "url": url}});
        let (https, bare) = ("https://chat.example.org", "http://chat.example.org");
        check(&[
            (json!({"name": "a", "slack": {"channel": SLACK, "token": "bot"}}), ""),
            (slack("#ops", "bot", https), "`#ops` is no ID of a channel of Slack"),
            (slack(SLACK, "boot", https), "no secret `boot`"),
            (slack(SLACK, "bot", bare), "is no https URL"),
            (mattermost(MATTERMOST, "bot", https), ""),
            (
                mattermost("town-square", "bot", https),
                "no ID of a channel of Mattermost",
            ),
            (mattermost(MATTERMOST, "boot", https), "no secret `boot`"),
            (mattermost(MATTERMOST, "bot", bare), "is no https URL"),
            (
                json!({"name": "a", "mattermost": {"channel": MATTERMOST, "token": "bot", "url": https, "ca": "none"}}),
                "no secret `none`",
            ),
        ]);
    }
}

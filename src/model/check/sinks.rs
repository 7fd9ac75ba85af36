//! Where reports go.

use super::{Checker, below, key};
use crate::model::address;
use crate::model::reasons;
use crate::model::sinks::{EmailSink, FileSink, MailTls, MattermostSink, Only, ReportSink, SlackSink, WebhookSink};
use crate::model::text::did_you_mean;
use crate::model::text::path::Part as Step;

/// A new key and the old one. A receiver that knows an older one is to be told.
const MOST_KEYS: usize = 2;
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
            only,
            template,
            file,
            webhook,
            stdout,
            slack,
            mattermost,
            email,
        } = sink;
        let given = [
            file.is_some(),
            webhook.is_some(),
            stdout.is_some(),
            slack.is_some(),
            mattermost.is_some(),
            email.is_some(),
        ];
        let n = given.iter().filter(|g| **g).count();
        if n != 1 {
            self.say(
                path,
                format!("report sink `{name}` is of {n} kinds, and must be of exactly one"),
                Some("give one of `file`, `webhook`, `stdout`, `slack`, `mattermost` and `email`".to_owned()),
            );
        }
        if let Some(only) = only {
            self.only(&below(path, &[key("only")]), only);
        }
        if let Some(template) = template {
            self.inside(&below(path, &[key("template")]), template, "templates/");
        }
        if let Some(FileSink { path: file }) = file {
            self.inside_or_absolute(
                &below(path, &[key("file"), key("path")]),
                file,
                "the environment's directory",
            );
        }
        if let Some(webhook) = webhook {
            self.webhook(&below(path, &[key("webhook")]), webhook);
        }
        if let Some(slack) = slack {
            self.slack(&below(path, &[key("slack")]), slack);
        }
        if let Some(email) = email {
            self.email(&below(path, &[key("email")]), email);
        }
        if let Some(mattermost) = mattermost {
            self.mattermost(&below(path, &[key("mattermost")]), mattermost);
        }
    }

    fn only(&mut self, path: &[Step], only: &Only) {
        let Only {
            severity: _,
            reasons: asked,
            components,
            threads,
        } = only;
        let spec = self.spec;
        self.each_of(
            &below(path, &[key("reasons")]),
            "reason",
            asked.as_deref(),
            &reasons::all(),
        );
        let named = spec.components.iter().map(|c| c.name.as_str());
        self.each_of(
            &below(path, &[key("components")]),
            "component",
            components.as_deref(),
            &named,
        );
        if threads.as_ref().is_some_and(Vec::is_empty) {
            self.nothing_asked(&below(path, &[key("threads")]));
        }
    }

    /// What nothing is called asks for nothing.
    fn each_of<'k>(
        &mut self,
        path: &[Step],
        what: &str,
        asked: Option<&[String]>,
        known: &(impl Iterator<Item = &'k str> + Clone),
    ) {
        let Some(asked) = asked else { return };
        if asked.is_empty() {
            self.nothing_asked(path);
        }
        for (i, name) in asked.iter().enumerate() {
            if known.clone().any(|known| known == name) {
                continue;
            }
            let near = did_you_mean(name, known.clone());
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            self.say(
                &below(path, &[Step::Index(i)]),
                format!("there is no {what} `{name}`"),
                hint,
            );
        }
    }

    fn nothing_asked(&mut self, path: &[Step]) {
        self.say(
            path,
            "an empty list asks for no report at all".to_owned(),
            Some("leave it out to be told of each".to_owned()),
        );
    }

    fn webhook(&mut self, path: &[Step], sink: &WebhookSink) {
        let WebhookSink { url, signed_by } = sink;
        self.secret(&below(path, &[key("url")]), url);
        let path = below(path, &[key("signedBy")]);
        for (i, secret) in signed_by.iter().enumerate() {
            self.secret(&below(&path, &[Step::Index(i)]), secret);
        }
        self.unique(&path, signed_by.iter().map(String::as_str));
        if signed_by.len() > MOST_KEYS {
            self.say(
                &path,
                format!("{} keys sign it", signed_by.len()),
                Some("state one, or the new and the old one while receivers change".to_owned()),
            );
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

    fn email(&mut self, path: &[Step], sink: &EmailSink) {
        let EmailSink {
            server,
            port: _,
            tls,
            from,
            to,
            user,
            password,
            ca,
        } = sink;
        if to.is_empty() {
            self.say(&below(path, &[key("to")]), "it is for nobody".to_owned(), None);
        }
        let recipients = to.iter().enumerate();
        let all = recipients.map(|(i, address)| (below(path, &[key("to"), Step::Index(i)]), address));
        for (path, address) in all.chain([(below(path, &[key("from")]), from)]) {
            if address.parse::<lettre::message::Mailbox>().is_err() {
                self.say(
                    &path,
                    format!("`{address}` is no address of mail"),
                    Some("as `shift@example.org` or `The shift <shift@example.org>`".to_owned()),
                );
            }
        }
        let is_here = matches!(server.as_str(), "localhost" | "127.0.0.1" | "::1");
        if *tls == MailTls::None && !is_here {
            self.say(
                &below(path, &[key("tls")]),
                format!("mail to {server} would go there for everybody to read"),
                Some("leave `tls` out for STARTTLS, or name a server on this machine".to_owned()),
            );
        }
        if *tls == MailTls::None && password.is_some() {
            self.say(
                &below(path, &[key("password")]),
                "a password is sent by TLS alone".to_owned(),
                None,
            );
        }
        if user.is_some() != password.is_some() {
            self.say(
                path,
                "a `user` needs its `password`, and a password its user".to_owned(),
                None,
            );
        }
        for (word, secret) in [("password", password), ("ca", ca)] {
            if let Some(secret) = secret {
                self.secret(&below(path, &[key(word)]), secret);
            }
        }
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
            "secrets": {"bot": {"file": "bot"}, "other": {"file": "other"}, "third": {"file": "third"}},
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
    fn a_filter_asks_for_what_there_is() {
        let only = |only: Value| json!({"name": "a", "stdout": {}, "only": only});
        check(&[
            (
                only(json!({"reasons": ["Rolling", "GateFailed"], "components": ["web"], "severity": "alert"})),
                "",
            ),
            (
                only(json!({"reasons": ["Roling"]})),
                "Index(0): there is no reason `Roling`",
            ),
            (only(json!({"reasons": []})), "asks for no report at all"),
            (only(json!({"components": ["wob"]})), "there is no component `wob`"),
            (only(json!({"threads": []})), "asks for no report at all"),
        ]);
    }

    #[test]
    fn a_webhook_is_signed_by_secrets_that_are_there_and_by_two_at_most() {
        let webhook = |keys: &[&str]| json!({"name": "a", "webhook": {"url": "bot", "signedBy": keys}});
        check(&[
            (webhook(&["bot", "other"]), ""),
            (webhook(&["boot"]), "no secret `boot`"),
            (webhook(&["bot", "bot"]), "`bot`"),
            (webhook(&["bot", "other", "third"]), "3 keys sign it"),
        ]);
    }

    #[test]
    fn mail_has_addresses_and_goes_nowhere_for_everybody_to_read() {
        let email = |more: Value| {
            let mut email =
                json!({"server": "mail.example.org", "from": "Gate <gate@example.org>", "to": ["a@example.org"]});
            for (key, value) in more.as_object().expect("a map") {
                email[key] = value.clone();
            }
            json!({"name": "a", "email": email})
        };
        check(&[
            (email(json!({})), ""),
            (email(json!({"user": "u", "password": "bot", "ca": "other"})), ""),
            (email(json!({"to": []})), "it is for nobody"),
            (
                email(json!({"to": ["a@example.org", "b at example.org"]})),
                "Index(1): `b at example.org` is no address",
            ),
            (email(json!({"from": "gate"})), "`gate` is no address"),
            (email(json!({"tls": "none"})), "for everybody to read"),
            (email(json!({"tls": "none", "server": "localhost"})), ""),
            (
                email(json!({"tls": "none", "server": "localhost", "user": "u", "password": "bot"})),
                "a password is sent by TLS alone",
            ),
            (email(json!({"user": "u"})), "needs its `password`"),
            (email(json!({"user": "u", "password": "boot"})), "no secret `boot`"),
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
                mattermost("townsquare", "bot", https),
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

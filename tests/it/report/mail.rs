//! Reports as mail, to aiosmtpd: a server of its own, which takes and refuses as RFC 5321 has it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use stagegate::model::sinks::EmailSink;
use stagegate::report::{Courier, MailSink};
use stagegate::store::{SqliteStore, Store};

use super::{Hand, LONG, happen, store, tally};
use crate::fetched;
use crate::signals::servers::Authority;

struct Server {
    place: Authority,
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(mode: &str) -> Self {
        let place = Authority::new();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/report/smtp.py");
        let mut process = Command::new(fetched::python_with_aiosmtpd())
            .args([&script, place.path(), Path::new(mode)])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let mut line = String::new();
        let said = process.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut line).expect("it says its port");
        Self {
            place,
            port: line.trim().parse().expect("a port"),
            process,
        }
    }

    fn taken(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.place.path().join("taken.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn loses_the_next_answer(&self) {
        std::fs::write(self.place.path().join("lose"), "").expect("written");
    }

    fn courier(&self, more: &Value, password: &str, store: &Arc<SqliteStore>, hand: &Hand) -> Courier {
        let mut stated = json!({"server": "127.0.0.1", "port": self.port, "from": "Stagegate <gate@example.org>",
            "to": ["shift@example.org", "experts@example.org"], "user": "bot", "password": "word", "ca": "ca"});
        for (key, value) in more.as_object().expect("a map") {
            stated[key] = value.clone();
        }
        let stated: EmailSink = serde_json::from_value(stated).expect("a sink");
        let ca = self.place.read("ca.pem");
        let password = stated.user.is_some().then_some(password);
        let kept: Arc<dyn Store> = store.clone();
        let sink = MailSink::new("mail", &stated, password, Some(&ca), kept, hand.clock()).expect("a sink");
        Courier::new(store.clone(), vec![Box::new(sink)], hand.clock())
    }
}

const WORD: &str = "s3cret-word";

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_of_mail_begins_with_its_first_report_and_a_repeat_is_the_same_message() {
    for mode in ["starttls", "tls"] {
        let (hand, store, server) = (Hand::default(), store(), Server::start(mode));
        let courier = server.courier(&json!({"tls": mode}), WORD, &store, &hand);
        happen(&*store, &["mail"], "up", "node1");
        happen(&*store, &["mail"], "up", "node2");
        server.loses_the_next_answer();
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0), "{mode}");
        hand.forward(LONG);
        // Whoever comes after a kill has the state alone.
        let courier = server.courier(&json!({"tls": mode}), WORD, &store, &hand);
        let passed = courier.pass().await.expect("passed");
        assert_eq!(passed, tally(2, 0, 0), "{mode}: {:?}", store.pending(None, None));
        let taken = server.taken();
        let ids: Vec<_> = taken
            .iter()
            .map(|mail| mail["message-id"].as_str().expect("one"))
            .collect();
        assert_eq!(
            ids,
            ["<home-1@example.org>", "<home-1@example.org>", "<home-2@example.org>"]
        );
        assert_eq!(taken[1]["in-reply-to"], Value::Null);
        assert_eq!(taken[1]["subject"], "ticket-server@1.0.4 on staging");
        let second = &taken[2];
        for (header, expected) in [
            ("in-reply-to", "<home-1@example.org>"),
            ("references", "<home-1@example.org>"),
            ("subject", "Re: ticket-server@1.0.4 on staging"),
            ("from", "Stagegate <gate@example.org>"),
            ("auto-submitted", "auto-generated"),
            ("body", "ticket-server@1.0.4 upgrade on: node2 by shifter."),
        ] {
            assert_eq!(second[header], expected, "{header}");
        }
        assert_eq!(second["for"], json!(["shift@example.org", "experts@example.org"]));
        assert_eq!(second["tls"], true, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_says_whether_it_is_for_now_or_for_good() {
    for (mode, more, password, expected, words) in [
        (
            "starttls",
            json!({}),
            "wrong-word",
            tally(0, 0, 1),
            "look at the sink's `user`",
        ),
        (
            "starttls",
            json!({"to": ["nobody@example.org"]}),
            WORD,
            tally(0, 0, 1),
            "no such user here; look at the sink's `from` and `to`",
        ),
        // Who has left takes it from nobody else.
        (
            "starttls",
            json!({"to": ["nobody@example.org", "shift@example.org"]}),
            WORD,
            tally(1, 0, 0),
            "",
        ),
        (
            "starttls",
            json!({"to": ["later@example.org"]}),
            WORD,
            tally(0, 1, 0),
            "come again",
        ),
        // It is not what was asked for, and so nothing is handed over, least of all the password.
        ("plain", json!({}), WORD, tally(0, 1, 0), ""),
        (
            "starttls",
            json!({"tls": "none", "user": null}),
            WORD,
            tally(0, 0, 1),
            "",
        ),
        ("plain", json!({"tls": "none", "user": null}), WORD, tally(1, 0, 0), ""),
    ] {
        let (hand, store, server) = (Hand::default(), store(), Server::start(mode));
        let courier = server.courier(&more, password, &store, &hand);
        happen(&*store, &["mail"], "up", "node1");
        let passed = courier.pass().await.expect("passed");
        assert_eq!(passed, expected, "{mode} {more}: {:?}", store.pending(None, None));
        assert_eq!(
            server.taken().len(),
            usize::from(expected == tally(1, 0, 0)),
            "{mode} {more}"
        );
        let pending = store.pending(None, None).expect("read");
        let why = pending
            .first()
            .and_then(|pending| pending.last_error.clone())
            .unwrap_or_default();
        assert!(why.contains(words) && !why.contains("-word"), "{mode} {more}: {why}");
    }
}

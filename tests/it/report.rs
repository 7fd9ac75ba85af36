//! Reports reach their sinks at least once and in order, whatever the other side does.

mod chats;
mod mail;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde_json::Value;
use stagegate::http::HttpOptions;
use stagegate::model::upgrade::{Event, Severity};
use stagegate::report::{
    Clock, Courier, FileSink, LineSink, Lines, Report, Sink, SinkError, Subject, Tally, WebhookSink, dispatcher,
};
use stagegate::store::{LetterQuery, SqliteStore, Store};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A clock that a test moves.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn clock(&self) -> Clock {
        let ms = Arc::clone(&self.0);
        Arc::new(move || Timestamp::from_millisecond(ms.load(Ordering::SeqCst)).expect("in range"))
    }
    fn forward(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).expect("short");
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

/// tokio's time, which a paused test turns forward by itself.
fn virtual_clock() -> Clock {
    let start = tokio::time::Instant::now();
    Arc::new(move || {
        let passed = SignedDuration::try_from(start.elapsed()).expect("short");
        NOW.checked_add(passed).expect("in range")
    })
}

fn store() -> Arc<SqliteStore> {
    Arc::new(SqliteStore::in_memory("home").expect("memory"))
}

/// Writes one event and its reports.
fn happen(store: &dyn Store, sinks: &[&str], upgrade: &str, node: &str) {
    let subject = Subject {
        component: "ticket-server".into(),
        build: "ticket-server-1.0.4".into(),
        user: "shifter".into(),
    };
    let event = Event {
        at: NOW,
        reason: "NodeUpgraded".into(),
        severity: Severity::Step,
        node: Some(node.into()),
        message: String::new(),
    };
    let sinks: Vec<String> = sinks.iter().map(|s| (*s).to_owned()).collect();
    let dispatch = dispatcher(store.home(), &subject, &sinks);
    store
        .append("staging", Some(upgrade), &[event], &dispatch)
        .expect("written");
}

fn webhook(name: &str, url: &str, clock: Clock) -> Box<dyn Sink> {
    let options = HttpOptions {
        timeout: Duration::from_secs(5),
        ..HttpOptions::default()
    };
    Box::new(WebhookSink::new(name, url, &[], &options, clock).expect("an address"))
}

/// The nodes of the reports that a server got, in order.
fn nodes(requests: &[Request]) -> Vec<String> {
    requests
        .iter()
        .map(|r| {
            r.body_json::<Value>().expect("JSON")["node"]
                .as_str()
                .expect("a node")
                .to_owned()
        })
        .collect()
}

fn keys(requests: &[Request]) -> Vec<String> {
    requests
        .iter()
        .map(|r| r.headers["Idempotency-Key"].to_str().expect("text").to_owned())
        .collect()
}

async fn answers(server: &MockServer, status: u16) {
    server.reset().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(status))
        .mount(server)
        .await;
}

async fn got(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.expect("recorded")
}

fn tally(delivered: u32, deferred: u32, dead: u32) -> Tally {
    Tally {
        delivered,
        deferred,
        dead,
    }
}

/// Longer than any wait after a failure.
const LONG: Duration = Duration::from_mins(6);

#[tokio::test]
async fn a_chat_reads_the_text_and_programs_the_rest() {
    let (hand, store, server) = (Hand::default(), store(), MockServer::start().await);
    Mock::given(method("POST"))
        .and(path("/hooks/s3cret"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    happen(&*store, &["chat"], "up", "node2");
    let url = format!("{}/hooks/s3cret", server.uri());
    let courier = Courier::new(store.clone(), vec![webhook("chat", &url, hand.clock())], hand.clock());
    assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0));
    let requests = got(&server).await;
    assert_eq!(requests[0].headers["Content-Type"], "application/json");
    let body: Value = requests[0].body_json().expect("JSON");
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).expect("JSON"), @r#"
    {
      "text": "ticket-server@1.0.4 upgrade on: node2 by shifter.",
      "seq": 1,
      "at": "1970-01-01T00:00:00Z",
      "environment": "staging",
      "upgrade": "up",
      "component": "ticket-server",
      "version": "1.0.4",
      "node": "node2",
      "user": "shifter",
      "reason": "NodeUpgraded",
      "severity": "step",
      "dedupeKey": "home-1",
      "auditHead": "0:sha256:96aa7588949425e874a9d605e1d4c6cf139752c6b380ae08ac40851c061c27cf"
    }
    "#);
    assert_eq!(keys(&requests), ["home-1"]);
    assert_eq!(courier.pass().await.expect("passed"), tally(0, 0, 0), "told once");
}

/// As a receiver verifies it, by OpenSSL: over the very bytes that came, with either key.
#[tokio::test]
async fn a_signed_webhook_is_verified_with_the_old_key_and_with_the_new_one() {
    let (hand, store, server) = (Hand::default(), store(), MockServer::start().await);
    answers(&server, 204).await;
    happen(&*store, &["hook"], "up", "node2");
    hand.forward(Duration::from_secs(77));
    let keys = ["the new key, which nobody guesses", "the old key, which nobody guessed"];
    let secrets = keys.map(|key| (key[..7].to_owned(), format!("{key}\n")));
    let sink = WebhookSink::new("hook", &server.uri(), &secrets, &HttpOptions::default(), hand.clock());
    let courier = Courier::new(store.clone(), vec![Box::new(sink.expect("a sink"))], hand.clock());
    assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0));
    let request = got(&server).await.remove(0);
    let header = |name: &str| request.headers[name].to_str().expect("text").to_owned();
    assert_eq!(
        (header("webhook-id"), header("webhook-timestamp")),
        ("home-1".to_owned(), "77".to_owned())
    );
    let signed = [b"home-1.77.".as_slice(), &request.body].concat();
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| format!("v1,{}", openssl_hmac(key, &signed)))
        .collect();
    assert_eq!(header("webhook-signature"), signatures.join(" "));
}

/// HMAC-SHA256 in base64.
fn openssl_hmac(key: &str, text: &[u8]) -> String {
    use base64::Engine as _;
    let mut openssl = std::process::Command::new("openssl")
        .args([
            "dgst",
            "-sha256",
            "-mac",
            "HMAC",
            "-binary",
            "-macopt",
            &format!("key:{key}"),
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("openssl runs (apt install openssl)");
    openssl.stdin.take().expect("piped").write_all(text).expect("written");
    let said = openssl.wait_with_output().expect("it ends");
    base64::engine::general_purpose::STANDARD.encode(said.stdout)
}

#[tokio::test]
async fn reports_wait_for_a_server_that_is_down_and_come_in_order_under_their_keys() {
    let (hand, store, server) = (Hand::default(), store(), MockServer::start().await);
    answers(&server, 500).await;
    for node in ["node1", "node2", "node3"] {
        happen(&*store, &["chat"], "up", node);
    }
    let courier = Courier::new(
        store.clone(),
        vec![webhook("chat", &server.uri(), hand.clock())],
        hand.clock(),
    );
    for _ in 0..3 {
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0));
        assert_eq!(
            courier.pass().await.expect("passed"),
            tally(0, 0, 0),
            "not before its time"
        );
        hand.forward(LONG);
    }
    assert_eq!(
        keys(&got(&server).await),
        ["home-1"; 3],
        "only the first is tried, under one key"
    );
    answers(&server, 200).await;
    assert_eq!(courier.pass().await.expect("passed"), tally(3, 0, 0));
    assert_eq!(nodes(&got(&server).await), ["node1", "node2", "node3"]);
    assert_eq!(keys(&got(&server).await), ["home-1", "home-2", "home-3"]);
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    let (hand, store, server) = (Hand::default(), store(), MockServer::start().await);
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(429).insert_header("Retry-After", "1800"))
        .mount(&server)
        .await;
    happen(&*store, &["chat"], "up", "node1");
    let courier = Courier::new(
        store.clone(),
        vec![webhook("chat", &server.uri(), hand.clock())],
        hand.clock(),
    );
    assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0));
    assert_eq!(store.next_due("chat").expect("read"), Some(NOW + 1800.seconds()));
}

#[tokio::test]
async fn a_connection_that_is_cut_is_tried_again() {
    let (hand, store) = (Hand::default(), store());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/s3cret", listener.local_addr().expect("an address"));
    let cut = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut connection, _) = listener.accept().expect("a caller");
            let mut begun = [0; 16];
            connection.read_exact(&mut begun).expect("a request begins");
            // Closed in the middle of it, without an answer.
        }
    });
    happen(&*store, &["chat"], "up", "node1");
    let courier = Courier::new(store.clone(), vec![webhook("chat", &url, hand.clock())], hand.clock());
    for _ in 0..2 {
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0));
        hand.forward(LONG);
    }
    cut.join().expect("no panic");
    let pending = store.pending(None, Some("up")).expect("read");
    assert_eq!(pending[0].waiting, 1);
    let why = pending[0].last_error.clone().expect("a reason");
    assert!(!why.contains("s3cret"), "{why}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_for_now() {
    let (hand, store) = (Hand::default(), store());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let options = HttpOptions {
        timeout: Duration::from_millis(50),
        ..HttpOptions::default()
    };
    let sink = WebhookSink::new("chat", &url, &[], &options, hand.clock()).expect("an address");
    happen(&*store, &["chat"], "up", "node1");
    let courier = Courier::new(store.clone(), vec![Box::new(sink)], hand.clock());
    assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0));
    let pending = store.pending(None, None).expect("read");
    assert!(
        pending[0]
            .last_error
            .as_deref()
            .is_some_and(|why| why.starts_with("timed out")),
        "{pending:?}"
    );
    drop(listener);
}

#[tokio::test]
async fn a_refused_report_becomes_a_dead_letter_and_its_thread_goes_on() {
    let (hand, store, server) = (Hand::default(), store(), MockServer::start().await);
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(400))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    happen(&*store, &["chat"], "up", "node1");
    happen(&*store, &["chat"], "up", "node2");
    let courier = Courier::new(
        store.clone(),
        vec![webhook("chat", &server.uri(), hand.clock())],
        hand.clock(),
    );
    assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 1));
    assert_eq!(nodes(&got(&server).await), ["node1", "node2"]);
    let pending = store.pending(None, None).expect("read");
    assert_eq!((pending[0].waiting, pending[0].dead), (0, 1));
    assert!(pending[0].last_error.as_deref().is_some_and(|why| why.contains("400")));
}

/// What a sink refused comes again in its order, before what waits; what was told meanwhile says that something is missing.
#[tokio::test]
async fn dead_letters_are_sent_again_in_their_order_and_a_gap_is_shown() {
    let (hand, store, server) = (Hand::default(), store(), MockServer::start().await);
    let courier = Courier::new(
        store.clone(),
        vec![webhook("chat", &server.uri(), hand.clock())],
        hand.clock(),
    );
    answers(&server, 400).await;
    for node in ["node1", "node2"] {
        happen(&*store, &["chat"], "up", node);
    }
    happen(&*store, &["chat"], "other", "node9");
    assert_eq!(courier.pass().await.expect("passed"), tally(0, 0, 3));
    answers(&server, 200).await;
    happen(&*store, &["chat"], "up", "node3");
    happen(&*store, &["chat"], "up", "node4");
    assert_eq!(courier.pass().await.expect("passed"), tally(2, 0, 0));
    let bodies: Vec<Value> = got(&server)
        .await
        .iter()
        .map(|r| r.body_json().expect("JSON"))
        .collect();
    assert_eq!(
        bodies[0]["text"],
        "ticket-server@1.0.4 upgrade on: node3 by shifter. (2 reports before this one were refused here: stagegate reports list)"
    );
    assert_eq!(
        (&bodies[0]["missing"], &bodies[1]["missing"]),
        (&Value::from(2), &Value::Null)
    );

    let letters = store.dead_letters(&LetterQuery::default()).expect("read");
    let told: Vec<_> = letters
        .iter()
        .map(|l| (l.thread.as_str(), l.report["node"].as_str().expect("a node")))
        .collect();
    assert_eq!(told, [("up", "node1"), ("up", "node2"), ("other", "node9")]);
    assert!(letters[0].why.contains("400"), "{}", letters[0].why);
    // Two of them come again, before what happened last; the third is dropped.
    answers(&server, 200).await;
    hand.forward(Duration::from_mins(11));
    happen(&*store, &["chat"], "up", "node5");
    let two = LetterQuery {
        ids: Some(&[letters[0].id, letters[1].id]),
        ..LetterQuery::default()
    };
    assert_eq!(store.revive(&two).expect("revived"), 2);
    assert_eq!(store.revive(&two).expect("revived"), 0, "they are dead no more");
    assert_eq!(
        store.drop_letters(&two).expect("dropped"),
        0,
        "and what waits is not dropped"
    );
    assert_eq!(store.drop_letters(&LetterQuery::default()).expect("dropped"), 1);
    assert_eq!(courier.pass().await.expect("passed"), tally(3, 0, 0));
    assert_eq!(nodes(&got(&server).await), ["node1", "node2", "node5"]);
    assert_eq!(keys(&got(&server).await), ["home-1", "home-2", "home-6"]);
    let late: Value = got(&server).await[0].body_json().expect("JSON");
    assert_eq!(
        late["text"],
        "ticket-server@1.0.4 upgrade on: node1 by shifter. (at 1970-01-01 00:00:00Z)"
    );
    assert!(store.pending(None, None).expect("read").is_empty());
}

#[tokio::test]
async fn a_dead_sink_and_a_stuck_thread_hold_nobody_else() {
    let (hand, store, server) = (Hand::default(), store(), MockServer::start().await);
    // The chat cannot take what is about node1 of the first upgrade; another chat is not there at all.
    Mock::given(method("POST"))
        .respond_with(|request: &Request| {
            let bad = request.body_json::<Value>().expect("JSON")["node"] == "node1";
            ResponseTemplate::new(if bad { 503 } else { 200 })
        })
        .mount(&server)
        .await;
    // A port below 1024 that nothing uses: one that was just let go could be given to another test's server.
    let gone = "http://127.0.0.1:1/";
    let sinks = ["chat", "gone"];
    for (upgrade, node) in [
        ("first", "node1"),
        ("first", "node2"),
        ("second", "node3"),
        ("second", "node4"),
    ] {
        happen(&*store, &sinks, upgrade, node);
    }
    let courier = Courier::new(
        store.clone(),
        vec![
            webhook("gone", gone, hand.clock()),
            webhook("chat", &server.uri(), hand.clock()),
        ],
        hand.clock(),
    );
    assert_eq!(courier.pass().await.expect("passed"), tally(2, 3, 0));
    assert_eq!(nodes(&got(&server).await), ["node1", "node3", "node4"]);
}

/// Keeps what it gets; fails as it is told.
#[derive(Clone, Default)]
struct Recorder {
    got: Arc<Mutex<Vec<(String, u64)>>>,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Default)]
enum Behaviour {
    #[default]
    Takes,
    Fails,
    Hangs,
}

impl Sink for Recorder {
    fn name(&self) -> &'static str {
        "chat"
    }
    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            // Gives another courier its chance in the middle.
            tokio::task::yield_now().await;
            let thread = report.upgrade.clone().unwrap_or_default();
            self.got.lock().expect("no panic").push((thread, report.seq));
            match self.behaviour {
                Behaviour::Takes => Ok(()),
                Behaviour::Fails => Err(SinkError::later("told to")),
                Behaviour::Hangs => std::future::pending().await,
            }
        }
        .boxed()
    }
}

#[test]
fn two_couriers_share_the_work_and_keep_the_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::default();
    let first = SqliteStore::open(directory.path()).expect("opened");
    for i in 0..60 {
        happen(&first, &["chat"], &format!("up{}", i % 3), "node1");
    }
    drop(first);
    // Each with a connection and threads of its own, as two processes have.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (recorder, path) = (recorder.clone(), directory.path());
            scope.spawn(move || {
                let store = Arc::new(SqliteStore::open(path).expect("opened"));
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                let courier = Courier::new(store.clone(), vec![Box::new(recorder)], Arc::new(|| NOW));
                while store.pending(None, None).expect("read").iter().any(|p| p.waiting > 0) {
                    runtime.block_on(courier.pass()).expect("passed");
                }
            });
        }
    });
    let got = recorder.got.lock().expect("no panic").clone();
    assert_eq!(got.len(), 60, "each once");
    let mut threads: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (thread, seq) in got {
        threads.entry(thread).or_default().push(seq);
    }
    for (thread, seqs) in threads {
        assert!(seqs.is_sorted(), "{thread}: {seqs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn draining_ends_at_its_time_however_long_the_sink_takes() {
    for (behaviour, attempts) in [(Behaviour::Hangs, 1), (Behaviour::Fails, 3)] {
        let (store, clock) = (store(), virtual_clock());
        let recorder = Recorder {
            behaviour,
            ..Recorder::default()
        };
        happen(&*store, &["chat"], "up", "node1");
        let courier = Courier::new(store.clone(), vec![Box::new(recorder.clone())], clock.clone());
        let end = clock() + 3.seconds();
        let got = courier.drain(end).await.expect("drained");
        assert_eq!(got.delivered, 0);
        assert!(clock() <= end + 1.second(), "{}", clock());
        assert!(recorder.got.lock().expect("no panic").len() <= attempts);
        assert_eq!(
            store.pending(None, None).expect("read")[0].waiting,
            1,
            "nothing is lost"
        );
        // Another courier, later, with a sink that works.
        let well = Recorder::default();
        let courier = Courier::new(store.clone(), vec![Box::new(well.clone())], clock.clone());
        assert_eq!(
            courier.drain(clock() + 1.hour()).await.expect("drained"),
            tally(1, 0, 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_courier_that_died_with_a_claim_delays_its_thread_only_for_a_while() {
    let (store, clock) = (store(), virtual_clock());
    happen(&*store, &["chat"], "up", "node1");
    happen(&*store, &["chat"], "up", "node2");
    let until = clock() + 30.seconds();
    store
        .claim("chat", "dead", clock(), until)
        .expect("claimed")
        .expect("one");
    let recorder = Recorder::default();
    let courier = Courier::new(store.clone(), vec![Box::new(recorder.clone())], clock.clone());
    assert_eq!(
        courier.drain(clock() + 10.seconds()).await.expect("drained"),
        tally(0, 0, 0)
    );
    assert_eq!(
        courier.drain(clock() + 1.minute()).await.expect("drained"),
        tally(2, 0, 0)
    );
    assert!(clock() >= until);
}

#[tokio::test(start_paused = true)]
async fn a_running_courier_finds_what_comes_later() {
    let (store, clock) = (store(), virtual_clock());
    let recorder = Recorder::default();
    let courier = Courier::new(store.clone(), vec![Box::new(recorder.clone())], clock.clone());
    let events = async {
        for node in ["node1", "node2"] {
            happen(&*store, &["chat"], "up", node);
            while store.next_due("chat").expect("read").is_some() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    tokio::select! {
        () = courier.run() => panic!("nobody has asked it to finish"),
        ended = tokio::time::timeout(Duration::from_mins(1), events) => ended.expect("seconds, not minutes"),
    }
    assert_eq!(recorder.got.lock().expect("no panic").len(), 2);
}

/// A command's work may be done in the middle of a delivery: that one ends, and nobody is told twice.
#[tokio::test(start_paused = true)]
async fn a_courier_that_is_to_finish_settles_what_it_has_in_hand() {
    for (patience, delivered) in [(5, 2), (1, 0)] {
        let (store, clock) = (store(), virtual_clock());
        let slow = Slow(Recorder::default());
        let got = slow.0.clone();
        let courier = Courier::new(store.clone(), vec![Box::new(slow)], clock.clone());
        for node in ["node1", "node2"] {
            happen(&*store, &["chat"], "up", node);
        }
        let begun = tokio::time::Instant::now();
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            courier.finish(Duration::from_secs(patience));
        };
        tokio::join!(courier.run(), ends);
        assert!(
            begun.elapsed() <= Duration::from_secs(1 + patience),
            "{:?}",
            begun.elapsed()
        );
        let claimed = store.next_due("chat").expect("read").is_some();
        assert_eq!(claimed, delivered == 0, "{patience}");
        assert_eq!(got.got.lock().expect("no panic").len(), delivered, "{patience}");
    }
}

/// Each delivery takes two seconds and a half.
struct Slow(Recorder);

impl Sink for Slow {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            self.0.deliver(report).await
        }
        .boxed()
    }
}

// ---- the plain sinks

async fn through(store: &Arc<SqliteStore>, sink: Box<dyn Sink>) -> Tally {
    let courier = Courier::new(store.clone(), vec![sink], Arc::new(|| NOW));
    courier.pass().await.expect("passed")
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path)
        .expect("there")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_file_gets_lines_of_json_and_survives_rotation_and_a_cut_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("reports.jsonl");
    let sink = || Box::new(FileSink::new("file", &path));
    let store = store();
    happen(&*store, &["file"], "up", "node1");
    happen(&*store, &["file"], "up", "node2");
    assert_eq!(through(&store, sink()).await, tally(2, 0, 0));
    let first: Report = serde_json::from_str(&lines(&path)[0]).expect("a report");
    assert_eq!(
        (first.node.as_deref(), first.dedupe_key.as_str()),
        (Some("node1"), "home-1")
    );

    let rotated = directory.path().join("reports.jsonl.1");
    std::fs::rename(&path, &rotated).expect("rotated");
    happen(&*store, &["file"], "up", "node3");
    assert_eq!(through(&store, sink()).await, tally(1, 0, 0));
    assert_eq!((lines(&rotated).len(), lines(&path).len()), (2, 1));

    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("opened");
    file.write_all(b"{\"text\": \"cut in the mid").expect("written");
    happen(&*store, &["file"], "up", "node4");
    assert_eq!(through(&store, sink()).await, tally(1, 0, 0));
    let lines = lines(&path);
    assert_eq!(lines.len(), 3);
    let last: Report = serde_json::from_str(&lines[2]).expect("a whole line");
    assert_eq!(last.node.as_deref(), Some("node4"));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_keeps_the_report_waiting() {
    let store = store();
    happen(&*store, &["file"], "up", "node1");
    let sink = FileSink::new("file", "/proc/no/such/place");
    assert_eq!(through(&store, Box::new(sink)).await, tally(0, 1, 0));
    let pending = store.pending(None, None).expect("read");
    assert!(
        pending[0]
            .last_error
            .as_deref()
            .is_some_and(|why| why.contains("/proc/no/such/place"))
    );
}

/// Lines that a test can read.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<String>>>);

impl Lines for Paper {
    fn line(&self, line: &str) -> std::io::Result<()> {
        self.0.lock().expect("no panic").push(line.to_owned());
        Ok(())
    }
}

#[tokio::test]
async fn a_terminal_gets_the_text_alone() {
    let (store, paper) = (store(), Paper::default());
    happen(&*store, &["stdout"], "up", "node2");
    let sink = LineSink::new("stdout", Arc::new(paper.clone()));
    assert_eq!(through(&store, Box::new(sink)).await, tally(1, 0, 0));
    assert_eq!(
        *paper.0.lock().expect("no panic"),
        ["ticket-server@1.0.4 upgrade on: node2 by shifter."]
    );
}

/// A command ends when its work is done, not when a chat has answered: what it was delivering is the next one's at once.
#[tokio::test]
async fn a_delivery_that_is_cut_off_is_not_waited_for_by_the_next_courier() {
    let (hand, store) = (Hand::default(), store());
    happen(&*store, &["chat"], "up", "node2");
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", hung.local_addr().expect("bound"));
    let courier = Courier::new(store.clone(), vec![webhook("chat", &url, hand.clock())], hand.clock());
    tokio::select! {
        () = courier.run() => panic!("nobody has asked it to finish"),
        _ = tokio::task::spawn_blocking(move || hung.accept()) => {}
    }
    let server = MockServer::start().await;
    answers(&server, 204).await;
    let next = Courier::new(
        store.clone(),
        vec![webhook("chat", &server.uri(), hand.clock())],
        hand.clock(),
    );
    assert_eq!(next.pass().await.expect("passed"), tally(1, 0, 0));
}

const TOLD: &str = "\
apiVersion: stagegate.dev/v1alpha1
kind: Environment
metadata: {name: staging}
spec:
  secrets:
    hook: {file: ../hook}
  components:
    - {name: web, nodes: [{name: n1}]}
  reports:
    - {name: chat, webhook: {url: hook}}
";

/// By hand: what was refused is seen, sent again once that is mended, and gone when it is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_dead_letters_sends_them_again_and_drops_them() {
    let (hand, place, server) = (
        Hand::default(),
        tempfile::tempdir().expect("a directory"),
        MockServer::start().await,
    );
    let (state, sink) = (place.path().join("state"), "staging/chat");
    std::fs::create_dir_all(place.path().join("environments")).expect("made");
    std::fs::write(
        place.path().join("environments/staging.yaml"),
        TOLD.replace("../hook", place.path().join("hook").to_str().expect("text")),
    )
    .expect("written");
    std::fs::write(place.path().join("hook"), server.uri()).expect("written");
    let home = stagegate::home::Home::open(&state).expect("a home");
    let kept: Arc<SqliteStore> = Arc::clone(home.store());
    for node in ["node1", "node2", "node3"] {
        happen(&*kept, &[sink], "up", node);
    }
    answers(&server, 400).await;
    let courier = Courier::new(
        kept.clone(),
        vec![webhook(sink, &server.uri(), hand.clock())],
        hand.clock(),
    );
    assert_eq!(courier.pass().await.expect("passed"), tally(0, 0, 3));
    drop((courier, kept, home));

    let run = async |arguments: &[&str]| {
        let mut asked = tokio::process::Command::new(env!("CARGO_BIN_EXE_stagegate"));
        asked
            .args(arguments)
            .env("STAGEGATE_STATE", &state)
            .env("STAGEGATE_WORKSPACE", place.path());
        let said = asked.env("NO_COLOR", "1").output().await.expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (said.status.code(), text(&said.stdout), text(&said.stderr))
    };
    let (code, listed, _) = run(&["reports", "list", "--sink", "chat"]).await;
    assert_eq!(
        (code, listed.matches("400 Bad Request").count()),
        (Some(0), 3),
        "{listed}"
    );
    let (_, listed, _) = run(&["reports", "list", "-o", "json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let ids: Vec<String> = (0..3).map(|i| listed["items"][i]["status"]["id"].to_string()).collect();
    let (code, shown, _) = run(&["reports", "show", &ids[1]]).await;
    assert!(code == Some(0) && shown.contains("\"node\": \"node2\""), "{shown}");
    let (code, _, words) = run(&["reports", "replay", "4711"]).await;
    assert!(
        code != Some(0) && words.contains("no such dead letter here (4711)"),
        "{code:?} {words}"
    );

    answers(&server, 200).await;
    let (code, _, words) = run(&["reports", "drop", &ids[2]]).await;
    assert!(code == Some(0) && words.contains("1 report dropped"), "{words}");
    let (code, _, words) = run(&["reports", "replay", "--all", "--env", "staging"]).await;
    assert!(code == Some(0) && words.contains("2 reports delivered"), "{words}");
    assert_eq!(nodes(&got(&server).await), ["node1", "node2"]);
    let (_, listed, words) = run(&["reports", "list"]).await;
    assert!(
        listed.is_empty() && words.contains("no dead letters"),
        "{listed} {words}"
    );
}

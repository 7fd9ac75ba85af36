//! Signals against real servers: HTTP in every mood, TLS with client certificates, `PostgreSQL` that blocks, restarts
//! and goes away, and a log as a service wrote it. Time is virtual only in the unit tests of the schedule; here tests
//! wait for what happens and never for a while.

pub mod cluster;
pub mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use stagegate::engine::fleet::Fleet;
use stagegate::home::Home;
use stagegate::hosts::{AnyHost, LocalHost, NodeAddress};
use stagegate::http::{ClientIdentity, Connections, KnownHost};
use stagegate::lines::Begin;
use stagegate::model::environment::{Expectation, HttpProbe, Log, Request};
use stagegate::model::render::Renderer;
use stagegate::model::sample::{Outcome, Sample};
use stagegate::model::system::{Environment, PortShift};
use stagegate::model::upgrade::SessionOf;
use stagegate::signals::http::{EffectCheck, HttpCall, OnDatabase, client};
use stagegate::signals::log::calls::{LogPatterns, LogPlan};
use stagegate::signals::log::follow::{Follower, HostLog};
use stagegate::signals::log::{LogHandle, Source};
use stagegate::signals::postgres::blocking::{self, Attribution, Queue};
use stagegate::signals::postgres::hold::{self, HoldHandle, HoldPlan, Holding};
use stagegate::signals::postgres::{Database, DatabaseConfig, DatabaseError};
use stagegate::signals::sql::WatchedQuery;
use stagegate::signals::traffic::{Call, PREPARE_LEAD, Stopped, Target, TrafficHandle, TrafficPlan};
use stagegate::signals::{FEED_CAPACITY, Observations, Observed, feed};
use tokio_postgres::NoTls;

use cluster::Cluster;
use servers::Authority;

/// Longer than any answer here takes; only a test that fails waits for it.
const LONG: Duration = Duration::from_secs(30);

fn request(method: &str, url: String) -> Request {
    Request {
        builds: stagegate::model::values::BuildRange::default(),
        method: method.to_owned(),
        url,
        headers: BTreeMap::new(),
        form: BTreeMap::new(),
        json: None,
        expect: Expectation::default(),
    }
}

fn call(request: &Request) -> HttpCall {
    let client = client(None, None, Connections::Kept(4), None).expect("a client");
    HttpCall::new(client, request, None, None, &json!({"node": {"name": "node1"}})).expect("a call")
}

fn alive(url: String) -> Request {
    let mut request = request("GET", url);
    request.expect.body = Some("alive=yes".to_owned());
    request
}

async fn outcome(request: &Request, age: Duration) -> Outcome {
    call(request).once(age).await.expect("nothing of ours went wrong").0
}

#[tokio::test]
async fn each_way_in_which_a_node_can_answer_has_its_outcome() {
    let service = servers::service(None).await;
    let at = |path: &str| alive(format!("http://{service}{path}"));
    assert_eq!(outcome(&at("/alive"), LONG).await, Outcome::Ok);
    let wrong = |why: &str| Outcome::Wrong { why: why.to_owned() };
    assert_eq!(
        outcome(&at("/dead"), LONG).await,
        wrong("HTTP 503 instead of 200: over loaded"),
        "control characters never reach a message"
    );
    assert_eq!(
        outcome(&at("/elsewhere"), LONG).await,
        wrong("HTTP 302 instead of 200: (no body)"),
        "a redirect is not the answer"
    );
    let mut meant = at("/alive");
    meant.expect.body = Some("StatusCode=0".to_owned());
    assert_eq!(
        outcome(&meant, LONG).await,
        wrong("HTTP 200, but the body does not match `StatusCode=0`: alive=yes")
    );
    assert_eq!(outcome(&at("/hang"), Duration::from_millis(20)).await, Outcome::Late);
    let Outcome::Wrong { why } = outcome(&at("/endless"), LONG).await else {
        panic!("an endless answer is read to a bound and judged");
    };
    assert!(why.chars().count() < 300, "{why}");
}

#[tokio::test]
async fn a_connection_that_is_refused_closed_or_broken_off_is_refused() {
    for (name, address) in [
        ("closed port", servers::closed_port()),
        ("closed without a word", servers::mute()),
        ("broken off in the answer", servers::breaks_off()),
    ] {
        let outcome = outcome(&alive(format!("http://{address}/alive")), LONG).await;
        assert!(matches!(outcome, Outcome::Refused { .. }), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_request_is_rendered_with_its_number_and_sent_as_written() {
    let service = servers::service(None).await;
    let mut form = request("POST", format!("http://{service}/echo"));
    form.form = BTreeMap::from([
        ("id".to_owned(), "{{ call.id }}".to_owned()),
        ("name".to_owned(), "{{ node.name }} & co".to_owned()),
    ]);
    form.expect.body = Some(r"^application/x-www-form-urlencoded id=1&name=node1\+%26\+co$".to_owned());
    assert_eq!(outcome(&form, LONG).await, Outcome::Ok);
    let mut body = request("POST", format!("http://{service}/echo"));
    body.json = Some(r#"{"id": {{ call.id }}, "name": "{{ node.name }}"}"#.to_owned());
    body.expect.body = Some(r#"^application/json \{"id": 1, "name": "node1"\}$"#.to_owned());
    assert_eq!(outcome(&body, LONG).await, Outcome::Ok);
    body.headers = BTreeMap::from([("Content-Type".to_owned(), "text/x-{{ node.name }}".to_owned())]);
    body.expect.body = Some("^text/x-node1 ".to_owned());
    assert_eq!(outcome(&body, LONG).await, Outcome::Ok);
}

#[test]
fn a_request_that_cannot_be_sent_is_refused_before_the_first_call() {
    let refusal = |change: &dyn Fn(&mut Request)| {
        let mut request = request("POST", "http://127.0.0.1/x".to_owned());
        change(&mut request);
        let client = client(None, None, Connections::Fresh, None).expect("a client");
        HttpCall::new(client, &request, None, None, &json!({"node": {}}))
            .expect_err("refused")
            .to_string()
    };
    for (error, says) in [
        (
            refusal(&|r| r.url = "http://{{ node.address }}/".to_owned()),
            "node.address",
        ),
        (refusal(&|r| r.url = "not an address".to_owned()), "no address"),
        (refusal(&|r| r.json = Some("{{ call.id }},".to_owned())), "1,"),
        (refusal(&|r| r.method = "GE T".to_owned()), "GE T"),
        (refusal(&|r| r.expect.body = Some("(".to_owned())), "expected body"),
        (
            refusal(&|r| r.headers = BTreeMap::from([("bad header".to_owned(), "x".to_owned())])),
            "headers",
        ),
    ] {
        assert!(error.contains(says), "`{error}` should say `{says}`");
    }
}

#[tokio::test]
async fn a_probe_connects_anew_each_time_and_traffic_does_not() {
    for (connections, expected) in [(Connections::Fresh, 3), (Connections::Kept(4), 1)] {
        let (address, accepted) = servers::keeps_alive();
        let probe = HttpProbe {
            url: format!("http://{address}/alive"),
            status: 200,
            body: Some("alive=yes".to_owned()),
        };
        let client = client(None, None, connections, None).expect("a client");
        let probe = HttpCall::probe(client, &probe, &json!({})).expect("a probe");
        for _ in 0..3 {
            assert_eq!(probe.once(LONG).await.expect("ours works").0, Outcome::Ok);
        }
        assert_eq!(accepted.load(Ordering::SeqCst), expected, "{connections:?}");
    }
}

#[tokio::test]
async fn a_node_that_asks_for_a_certificate_answers_only_those_who_have_one() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let request = alive(format!("https://{}/alive", ours.server()));
    let identity = |authority: &Authority| {
        Some(ClientIdentity {
            certificate: authority.read("client.pem"),
            key: authority.read("client.key"),
        })
    };
    let ask = |ca: Option<Vec<u8>>, identity: Option<ClientIdentity>| {
        let client = client(ca, identity, Connections::Fresh, None).expect("a client");
        HttpCall::new(client, &request, None, None, &json!({})).expect("a call")
    };
    let (trusted, foreign) = (Some(ours.read("ca.pem")), Some(theirs.read("ca.pem")));
    for (name, ca_pem, identity_pem, answers) in [
        ("ours", trusted.clone(), identity(&ours), true),
        ("none", trusted.clone(), None, false),
        ("another authority's", trusted, identity(&theirs), false),
        ("a node that we do not trust", foreign, identity(&ours), false),
        ("no authority named", None, identity(&ours), false),
    ] {
        let call = ask(ca_pem, identity_pem);
        let (outcome, _) = call.once(LONG).await.expect("ours works");
        let refused = matches!(outcome, Outcome::Refused { .. });
        assert_eq!((outcome.is_ok(), refused), (answers, !answers), "{name}: {outcome:?}");
    }
}

/// A pod's certificate has its name, and no name server of ours need know that.
#[tokio::test]
async fn a_node_is_asked_by_the_name_in_its_certificate_wherever_it_is() {
    let ours = Authority::new();
    let request = alive(format!("https://{}/alive", ours.server()));
    for (name, answers) in [("web-0.web.shop.svc", true), ("web-1.web.shop.svc", false)] {
        let known = KnownHost {
            name: name.to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
        };
        let identity = ClientIdentity {
            certificate: ours.read("client.pem"),
            key: ours.read("client.key"),
        };
        let client = client(
            Some(ours.read("ca.pem")),
            Some(identity),
            Connections::Fresh,
            Some(known),
        );
        let call = HttpCall::new(client.expect("a client"), &request, None, None, &json!({})).expect("a call");
        let (outcome, _) = call.to_host(name.to_owned()).once(LONG).await.expect("ours works");
        assert_eq!(outcome.is_ok(), answers, "{name}: {outcome:?}");
    }
}

/// The update that the tests of traffic make: a row before, an update by the node, a look at the row after.
fn update(service: std::net::SocketAddr, honesty: &str, database: &Database) -> Arc<dyn Call> {
    let mut request = request("POST", format!("http://{service}/update/{honesty}"));
    request.form = BTreeMap::from([("id".to_owned(), "{{ call.id }}".to_owned())]);
    request.expect.body = Some("StatusCode=0".to_owned());
    let on_database = |sql: &str| OnDatabase {
        database: database.clone(),
        sql: sql.to_owned(),
    };
    let before = on_database("INSERT INTO job VALUES ({{ call.id }}, 'starting')");
    let effect = EffectCheck {
        query: on_database("SELECT state FROM job WHERE id = {{ call.id }}"),
        equals: "running".to_owned(),
    };
    let client = client(None, None, Connections::Kept(4), None).expect("a client");
    Arc::new(HttpCall::new(client, &request, Some(before), Some(effect), &json!({})).expect("a call"))
}

fn target(call: Arc<dyn Call>) -> Target {
    Target {
        build: "b1".to_owned(),
        call,
    }
}

fn traffic() -> (TrafficHandle, Observations) {
    let (to, observations) = feed(FEED_CAPACITY);
    let plan = TrafficPlan {
        signal: "traffic/update".to_owned(),
        rate_per_s: 50.0,
        concurrency: 100,
        age: LONG,
        timeout: LONG,
        lead: PREPARE_LEAD,
    };
    (TrafficHandle::start(plan, to).expect("a plan"), observations)
}

/// The next `n` observations.
async fn next(observations: &mut Observations, n: usize) -> Vec<Observed> {
    let mut seen = Vec::new();
    while seen.len() < n {
        let one = tokio::time::timeout(LONG, observations.next()).await;
        seen.push(
            one.unwrap_or_else(|_| panic!("only {seen:?}"))
                .expect("the source runs"),
        );
    }
    seen
}

fn sample(observed: &Observed) -> &Sample {
    match observed {
        Observed::Sample(sample) => sample,
        other => panic!("no sample: {other:?}"),
    }
}

const JOBS: &str = "CREATE TABLE job (id bigint PRIMARY KEY, state text)";

#[tokio::test]
async fn an_acknowledged_update_is_in_the_database_and_one_that_is_not_is_lost() {
    let cluster = Cluster::start().await;
    let database = cluster.database();
    database.query(JOBS).await.expect("a table");
    let service = servers::service(Some(cluster.database())).await;
    let (traffic, mut observations) = traffic();
    traffic.set_target("node1", Some(target(update(service, "honest", &database))));
    for observed in next(&mut observations, 10).await {
        assert_eq!(sample(&observed).outcome, Outcome::Ok);
    }
    traffic.set_target("node1", None);
    traffic.set_target("node2", Some(target(update(service, "forgetful", &database))));
    traffic.set_target("node3", Some(target(update(service, "unwilling", &database))));
    let (mut lost, mut wrong) = (0, 0);
    while lost < 3 || wrong < 3 {
        for observed in next(&mut observations, 1).await {
            match (sample(&observed).node.as_str(), &sample(&observed).outcome) {
                ("node1", Outcome::Ok) => {}
                ("node2", Outcome::Lost { why }) => {
                    assert!(why.contains("`starting` instead of `running`"), "{why}");
                    lost += 1;
                }
                ("node3", Outcome::Wrong { why }) => {
                    assert!(why.contains("StatusCode=30"), "{why}");
                    wrong += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(traffic.stop(LONG).await, Stopped::Clean);
    let running = database.query("SELECT id FROM job WHERE state = 'running'").await;
    let written: BTreeSet<String> = running.expect("rows").into_iter().flatten().flatten().collect();
    let acknowledged = traffic.take_acknowledged();
    let by = |name: &str| -> BTreeSet<String> {
        let of_node = acknowledged.iter().filter(|one| one.node == name);
        of_node.map(|one| one.id.to_string()).collect()
    };
    assert_eq!(by("node1"), written, "each right answer, and nothing else, was written");
    assert!(by("node1").len() >= 10);
    assert!(by("node2").is_disjoint(&written), "the list names what was lost");
    assert_eq!(by("node3"), BTreeSet::new());
}

#[tokio::test]
async fn a_database_that_is_down_is_trouble_of_ours_and_no_sample_of_the_node() {
    let mut cluster = Cluster::start().await;
    let database = cluster.database();
    database.query(JOBS).await.expect("a table");
    let service = servers::service(None).await;
    // Answers right whatever the database does, so that only our own checks can go wrong.
    let (traffic, mut observations) = traffic();
    traffic.set_target("node1", Some(target(update(service, "forgetful", &database))));
    assert!(matches!(
        sample(&next(&mut observations, 1).await[0]).outcome,
        Outcome::Lost { .. }
    ));
    cluster.down();
    // Answers that were on their way when it went down may still come, a few; after that there is only trouble.
    let (mut troubles, mut samples) = (0, 0);
    while troubles < 20 {
        match &next(&mut observations, 1).await[0] {
            Observed::Trouble(trouble) => {
                assert!(trouble.why.contains("postgres@127.0.0.1"), "{}", trouble.why);
                troubles += 1;
            }
            Observed::Sample(_) => {
                troubles = 0;
                samples += 1;
                assert!(samples < 100, "samples of a node that nobody could check");
            }
            Observed::Afterwards(late) => panic!("{late:?}"),
        }
    }
    cluster.up().await;
    loop {
        match &next(&mut observations, 1).await[0] {
            Observed::Sample(_) => break,
            Observed::Trouble(_) => {}
            Observed::Afterwards(late) => panic!("{late:?}"),
        }
    }
    traffic.stop(LONG).await;
}

#[tokio::test]
async fn a_statement_that_the_database_refuses_is_trouble_too() {
    let cluster = Cluster::start().await;
    let database = cluster.database();
    let service = servers::service(None).await;
    let (traffic, mut observations) = traffic();
    // There is no table.
    traffic.set_target("node1", Some(target(update(service, "forgetful", &database))));
    let observed = next(&mut observations, 1).await;
    let [Observed::Trouble(trouble)] = observed.as_slice() else {
        panic!("{observed:?}");
    };
    assert!(trouble.why.contains("42P01"), "{}", trouble.why);
}

#[tokio::test]
async fn a_watched_query_is_a_sample_a_period_and_blind_without_its_database() {
    let mut cluster = Cluster::start().await;
    let database = cluster.database();
    database
        .query("CREATE TABLE depth AS SELECT 5 AS n")
        .await
        .expect("a table");
    let query = WatchedQuery {
        database: database.clone(),
        sql: "SELECT n FROM depth".to_owned(),
        at_most: 5.0,
    };
    let (to, mut observations) = feed(FEED_CAPACITY);
    let plan = query.plan("query/depth".to_owned(), Duration::from_millis(20));
    let watch = TrafficHandle::start(plan, to).expect("a plan");
    watch.set_target("database", Some(target(Arc::new(query))));
    assert_eq!(sample(&next(&mut observations, 1).await[0]).outcome, Outcome::Ok);
    database.query("UPDATE depth SET n = 6").await.expect("updated");
    loop {
        let observed = next(&mut observations, 1).await;
        match &sample(&observed[0]).outcome {
            Outcome::Ok => {}
            Outcome::Wrong { why } => break assert_eq!(why, "6 is above 5"),
            other => panic!("{other:?}"),
        }
    }
    cluster.down();
    loop {
        match &next(&mut observations, 1).await[0] {
            Observed::Trouble(_) => break,
            Observed::Sample(sample) => assert!(matches!(sample.outcome, Outcome::Wrong { .. })),
            Observed::Afterwards(late) => panic!("{late:?}"),
        }
    }
}

#[tokio::test]
async fn connections_are_bounded_reused_and_made_anew_and_errors_say_what_is_wrong() {
    let mut cluster = Cluster::start().await;
    let mut config = cluster.config();
    config.password = Some("topsecret".to_owned());
    config.connections = 2;
    config.statement_timeout = Duration::from_millis(300);
    assert!(!format!("{config:?}").contains("topsecret"));
    let database = Database::new(config);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stagegate' AND pid <> pg_backend_pid()";
    let many = futures::future::join_all((0..20).map(|_| database.query("SELECT 1"))).await;
    assert!(many.iter().all(Result::is_ok));
    let others = cluster.database().query(ours).await.expect("a count");
    assert_eq!(others[0][0].as_deref(), Some("2"), "twenty statements, two connections");
    let slow = database.query("SELECT pg_sleep(60)").await.expect_err("too slow");
    assert!(
        matches!(&slow, DatabaseError::Statement { code, .. } if code == "57014"),
        "{slow}"
    );
    let none = database.query("SELECT\x1b nothing").await.expect_err("no such column");
    assert!(!none.to_string().contains('\u{1b}'), "{none}");
    let values = database
        .query("SELECT 1, NULL; SELECT 'x'")
        .await
        .expect("two statements");
    assert_eq!(values, [vec![Some("1".to_owned()), None], vec![Some("x".to_owned())]]);
    let bounded = database.query("SELECT generate_series(1, 100000)").await.expect("rows");
    assert_eq!(bounded.len(), stagegate::signals::postgres::MAX_ROWS);
    assert_eq!(
        database.query("SELECT 2").await.expect("a clean connection")[0][0].as_deref(),
        Some("2")
    );
    cluster.down();
    let gone = database.query("SELECT 1").await.expect_err("it is gone");
    assert!(!gone.to_string().contains("topsecret"), "{gone}");
    cluster.up().await;
    let begin = tokio::time::Instant::now();
    while database.query("SELECT 1").await.is_err() {
        assert!(begin.elapsed() < LONG, "it never came back");
        tokio::task::yield_now().await;
    }
    let socket = DatabaseConfig::new(
        cluster.data().display().to_string(),
        cluster.port,
        "postgres".to_owned(),
        "postgres".to_owned(),
    );
    assert!(Database::new(socket).query("SELECT 1").await.is_ok(), "by Unix socket");
}

/// However many nodes are watched: a slow database must not be shut to its own service by those who look at it.
#[tokio::test]
async fn all_who_ask_an_environments_database_share_its_few_connections() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "databases": [{"name": "main", "postgres": {
            "host": "127.0.0.1", "port": cluster.port.to_string(), "database": "postgres", "user": "postgres",
        }}],
        "components": [{"name": "service", "nodes": [{"name": "node1"}]}],
    });
    let spec = serde_json::from_value(spec).expect("an environment");
    let (environment, findings) = Environment::check("one", spec, PortShift::default());
    assert_eq!(findings, []);
    let state = tempfile::tempdir().expect("a directory");
    let home = Home::open(state.path()).expect("a home");
    let templates = Renderer::new(&BTreeMap::new()).expect("no templates");
    let fleet = Fleet::new(environment, templates, &home);
    // Each statement waits until it is let go, so all that may run together do.
    let gate = session(&cluster, "gate").await;
    gate.batch_execute("SELECT pg_advisory_lock(7)").await.expect("locked");
    let asked: Vec<_> = (0..24)
        .map(|_| {
            let database = fleet.database("main").expect("known");
            tokio::spawn(async move { database.query("SELECT pg_advisory_lock_shared(7)").await })
        })
        .collect();
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stagegate' AND wait_event = 'advisory'";
    let most = cluster.config().connections.to_string();
    let looks = async || {
        let row = gate.simple_query(ours).await.expect("a count");
        row.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    };
    while looks()
        .await
        .is_none_or(|n| n.parse::<usize>().ok() < most.parse().ok())
    {}
    gate.batch_execute("SELECT pg_advisory_unlock(7)")
        .await
        .expect("let go");
    for one in asked {
        one.await.expect("no panic").expect("answered");
    }
    let all = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stagegate'";
    let open = gate.simple_query(all).await.expect("a count");
    let open = open.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    assert_eq!(open, Some(most));
}

/// A session of its own that runs statements as a client of the name would.
async fn session(cluster: &Cluster, name: &str) -> tokio_postgres::Client {
    let text = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres application_name={name}",
        cluster.port
    );
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.expect("connected");
    tokio::spawn(connection);
    client
}

/// Sends a statement that will have to wait, and goes on.
async fn send(cluster: &Cluster, name: &str, sql: &'static str) {
    let client = session(cluster, name).await;
    tokio::spawn(async move {
        let _ = client.batch_execute(sql).await;
    });
}

/// Looks until the picture is as described.
async fn look_until(database: &Database, describe: &str, is_so: impl Fn(&[Queue]) -> bool) -> Vec<Queue> {
    let begin = tokio::time::Instant::now();
    loop {
        let queues = blocking::look(database).await.expect("a look");
        if is_so(&queues) {
            return queues;
        }
        assert!(begin.elapsed() < LONG, "{describe}: {queues:#?}");
    }
}

#[tokio::test]
async fn the_root_of_a_queue_is_named_with_all_who_wait_behind_it() {
    let cluster = Cluster::start().await;
    let database = cluster.database();
    database
        .query("CREATE TABLE site (name text PRIMARY KEY, hours int); INSERT INTO site VALUES ('a', 1), ('b', 1), ('c', 1)")
        .await
        .expect("a table");
    assert_eq!(blocking::look(&database).await.expect("a look"), []);
    // An outsider in the middle of a transaction, and a fan of five behind it.
    let outsider = session(&cluster, "psql").await;
    outsider
        .batch_execute("BEGIN; SELECT name\n\t FROM site WHERE name = 'a' FOR UPDATE")
        .await
        .expect("held");
    for _ in 0..5 {
        send(
            &cluster,
            "service/node2/1.0",
            "/* touchSite */ UPDATE site SET hours = 2 WHERE name = 'a'",
        )
        .await;
    }
    // A chain of three: each holds what the next wants.
    let first = session(&cluster, "service/node1/1.0").await;
    first
        .batch_execute("BEGIN; UPDATE site SET hours = 3 WHERE name = 'b'")
        .await
        .expect("held");
    send(
        &cluster,
        "service/node9/1.0",
        "BEGIN; UPDATE site SET hours = 4 WHERE name = 'c'; SELECT pg_advisory_lock(1); UPDATE site SET hours = 4 WHERE name = 'b'",
    )
    .await;
    let has_waiter = |queues: &[Queue], n| {
        queues
            .iter()
            .any(|queue| queue.waiting.len() >= n && queue.holder.application_name.contains("node1"))
    };
    look_until(&database, "the second of the chain", |queues| has_waiter(queues, 1)).await;
    send(&cluster, "service/node2/1.0", "SELECT pg_advisory_lock(1)").await;
    let queues = look_until(&database, "a fan of five and a chain of three", |queues| {
        has_waiter(queues, 2) && queues.iter().any(|queue| queue.waiting.len() == 5)
    })
    .await;
    let attribution = Attribution {
        nodes: BTreeMap::from([
            ("node1".to_owned(), Some("service-1".to_owned())),
            ("node2".to_owned(), Some("service-2".to_owned())),
        ]),
        clients: BTreeMap::new(),
        unseen: BTreeMap::new(),
        application_name: Some("COMPONENT/NODE/VERSION".parse().expect("a pattern")),
        method: Some(regex::Regex::new(r"/\* (?<method>\w+) \*/").expect("a pattern")),
    };
    let [fan, chain] = queues.as_slice() else {
        panic!("{queues:#?}");
    };
    let blocker = attribution.blocker(fan);
    assert_eq!(
        blocker.holder.statement,
        "BEGIN; SELECT name FROM site WHERE name = 'a' FOR UPDATE"
    );
    assert_eq!(blocker.holder.of, SessionOf::Outsider {}, "nobody's node");
    assert!(
        blocker.holder.client.starts_with("127.0.0.1:"),
        "{}",
        blocker.holder.client
    );
    assert!(
        blocker.holder.client.ends_with("(psql, idle in transaction)"),
        "{}",
        blocker.holder.client
    );
    assert!(blocker.holder.age_seconds > 0.0);
    for waiter in &blocker.waiting {
        assert_eq!(waiter.method.as_deref(), Some("touchSite"));
        assert_eq!(waiter.of.build(), Some("service-2"));
    }
    assert!(fan.waiting.iter().all(|waiter| waiter.wait_event.starts_with("Lock/")));
    let blocker = attribution.blocker(chain);
    assert_eq!(blocker.holder.of.node(), Some("node1"));
    let nodes: Vec<Option<&str>> = blocker.waiting.iter().map(|s| s.of.node()).collect();
    assert_eq!(nodes, [None, Some("node2")], "nearest first; node9 is no node of ours");
    // The client's socket tells more than its name.
    let by_socket = Attribution {
        clients: BTreeMap::from([(
            format!("127.0.0.1:{}", fan.holder.client_port.expect("on TCP")),
            "node1".to_owned(),
        )]),
        ..attribution
    };
    assert_eq!(by_socket.blocker(fan).holder.of.build(), Some("service-1"));
    outsider.batch_execute("ROLLBACK").await.expect("released");
    look_until(&database, "the fan is gone", |queues| queues.len() == 1).await;
}

#[tokio::test]
async fn a_prepared_transaction_at_the_root_is_named_as_one() {
    let cluster = Cluster::start().await;
    let database = cluster.database();
    database
        .query("CREATE TABLE site AS SELECT 1 AS n")
        .await
        .expect("a table");
    database
        .query("BEGIN; UPDATE site SET n = 2; PREPARE TRANSACTION 'forgotten'")
        .await
        .expect("prepared");
    send(&cluster, "psql", "UPDATE site SET n = 3").await;
    let queues = look_until(&database, "one waits", |queues| !queues.is_empty()).await;
    let blocker = Attribution::default().blocker(&queues[0]);
    assert_eq!(
        (blocker.holder.statement.as_str(), blocker.holder.client.as_str()),
        ("(a prepared transaction)", "prepared transaction")
    );
}

async fn hold_state(handle: &HoldHandle, wanted: impl Fn(Holding) -> bool) {
    let mut state = handle.state();
    let reached = tokio::time::timeout(LONG, state.wait_for(|now| wanted(*now))).await;
    reached.expect("in time").expect("it runs");
}

#[tokio::test]
async fn a_row_is_held_again_and_again_over_a_restart_and_let_go_in_the_end() {
    let mut cluster = Cluster::start().await;
    let database = cluster.database();
    database
        .query("CREATE TABLE site (name text, hours int); INSERT INTO site VALUES ('a', 1)")
        .await
        .expect("a table");
    let (to, mut observations) = feed(FEED_CAPACITY);
    let plan = HoldPlan {
        name: "disturbance/hot-row".to_owned(),
        database: cluster.config(),
        select: "SELECT 1 FROM site WHERE name = 'a' FOR UPDATE".to_owned(),
        hold: Duration::from_millis(50),
        every: Duration::from_millis(60),
    };
    let handle = HoldHandle::start(plan.clone(), to.clone());
    hold_state(&handle, |now| matches!(now, Holding::Released(n) if n >= 2)).await;
    cluster.down();
    let Some(Observed::Trouble(trouble)) = observations.next().await else {
        panic!("a hold that cannot hold says so");
    };
    assert_eq!(trouble.signal, "disturbance/hot-row");
    let before = *handle.state().borrow();
    let (Holding::Released(over) | Holding::Held(over)) = before;
    cluster.up().await;
    hold_state(&handle, |now| matches!(now, Holding::Held(n) if n > over)).await;
    handle.stop().await;
    // Held for ever, as far as this test is concerned: only letting go can end it.
    let endless = HoldPlan {
        hold: LONG * 100,
        every: LONG * 200,
        ..plan.clone()
    };
    let handle = HoldHandle::start(endless, to.clone());
    hold_state(&handle, |now| matches!(now, Holding::Held(1))).await;
    send(&cluster, "psql", "UPDATE site SET hours = 2").await;
    let database = cluster.database();
    let queues = look_until(&database, "one waits for us", |queues| !queues.is_empty()).await;
    assert_eq!(queues[0].holder.application_name, hold::APPLICATION_NAME);
    drop(handle);
    look_until(&database, "nobody waits", <[Queue]>::is_empty).await;
    let nothing = HoldPlan {
        select: "SELECT 1 FROM site WHERE name = 'no such' FOR UPDATE".to_owned(),
        ..plan
    };
    observations.take();
    let handle = HoldHandle::start(nothing, to);
    let Some(Observed::Trouble(trouble)) = observations.next().await else {
        panic!("a disturbance that disturbs nothing says so");
    };
    assert!(trouble.why.contains("finds no row"), "{}", trouble.why);
    assert_eq!(*handle.state().borrow(), Holding::Released(0));
}

#[tokio::test]
async fn the_incidents_own_log_lines_are_four_calls_that_were_late() {
    let node = NodeAddress {
        environment: "e".to_owned(),
        node: "node1".to_owned(),
        directory: env!("CARGO_MANIFEST_DIR").to_owned(),
        pid_file: None,
    };
    let here = Arc::new(AnyHost::Local(LocalHost::new()));
    let log = Log {
        name: "requests".to_owned(),
        path: None,
        start: None,
        end: r"^(?<at>\S+ \S+) .* method=(?<method>updatejob) .*exec_time=(?<exec_time_s>[0-9.]+) sec".to_owned(),
        rate: 5.0,
    };
    let plan = LogPlan {
        signal: "log/requests".to_owned(),
        node: "node1".to_owned(),
        build: "b1".to_owned(),
        age: Duration::from_secs(5),
        patterns: LogPatterns::new(&log).expect("patterns"),
    };
    let (to, mut observations) = feed(FEED_CAPACITY);
    let _handle = LogHandle::start(
        Source::File(Follower::new(
            HostLog::new(here, node, "tests/it/data/entry.log".to_owned()),
            Begin::AtBeginning,
        )),
        plan,
        Duration::from_secs(1),
        to,
    );
    let told: Vec<String> = next(&mut observations, 4)
        .await
        .iter()
        .map(|observed| {
            let sample = sample(observed);
            let began = jiff::Timestamp::from_microsecond(sample.intended_us).expect("a time");
            format!("{} {began} {:?} {}", sample.seq, sample.outcome, sample.latency_ms())
        })
        .collect();
    assert_eq!(
        told,
        [
            "0 2025-01-06T09:57:17.065Z Late 50235",
            "1 2025-01-06T09:55:11.545Z Late 231675",
            "2 2025-01-06T09:57:07.611Z Late 172566",
            "3 2025-01-06T09:53:30.63Z Late 389586",
        ]
    );
}

//! An API server in trouble: between the controller and a real one sits one that refuses, is slow, loses answers, and forgets where a
//! watch was. Or one that does nothing but count what is asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use futures::StreamExt as _;
use futures::stream;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::json;

/// A watch is good for so long, then its place in the history is gone.
const WATCH: Duration = Duration::from_secs(3);
/// What a slow etcd takes: less than a client waits.
const SLOW: Duration = Duration::from_secs(2);
/// Of what is sent to an API server, nothing is larger.
const LARGEST: usize = 4 << 20;

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 429: too many requests.
    TooMany,
    /// 409, though nobody else has written.
    Conflict,
    /// 503.
    Away,
    /// It is answered late.
    Slow,
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// 410: what a watch wants to go on from is forgotten.
    Expired,
}

/// Which requests get which: the first whose number divides a request's. No two share all their multiples within a test's requests.
const EVERY: [(Fault, u64); 5] = [
    (Fault::AnswerLost, 11),
    (Fault::TooMany, 9),
    (Fault::Conflict, 4),
    (Fault::Away, 13),
    (Fault::Slow, 17),
];

/// Whether it makes trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    Bad,
    /// It only counts.
    Good,
    /// The first few requests of one kind, in the words of [`asked`], are forbidden.
    Forbids(&'static str, usize),
}

/// How often what was asked, by verb and kind, as `LIST pods`.
pub type Counts = BTreeMap<String, usize>;

/// The one in between; ends with this value.
pub struct Between {
    _runtime: tokio::runtime::Runtime,
    address: String,
    did: Arc<Mutex<BTreeMap<Fault, usize>>>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Clone)]
struct Seat {
    client: Client,
    temper: Temper,
    asked: Arc<Mutex<u64>>,
    did: Arc<Mutex<BTreeMap<Fault, usize>>>,
    counts: Arc<Mutex<Counts>>,
}

impl Between {
    /// In front of the API server of a kubeconfig, and with its user's rights.
    pub fn of(kubeconfig: &Path) -> Self {
        Self::with(kubeconfig, Temper::Bad)
    }

    /// The same for one that does as it is told, and counts.
    pub fn that_counts(kubeconfig: &Path) -> Self {
        Self::with(kubeconfig, Temper::Good)
    }

    /// The same for one that does as it is told but for the first so many of these requests.
    pub fn that_forbids(kubeconfig: &Path, what: &'static str, times: usize) -> Self {
        Self::with(kubeconfig, Temper::Forbids(what, times))
    }

    fn with(kubeconfig: &Path, temper: Temper) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let did = Arc::new(Mutex::default());
        let counts = Arc::new(Mutex::default());
        let (seat_did, seat_counts) = (Arc::clone(&did), Arc::clone(&counts));
        let address = runtime.block_on(async {
            let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            let mut config = config.expect("a configuration");
            config.default_retry = false;
            let seat = Seat {
                client: Client::try_from(config).expect("a client"),
                temper,
                asked: Arc::default(),
                did: seat_did,
                counts: seat_counts,
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound").to_string();
            let router = Router::new().fallback(pass_on).with_state(seat);
            tokio::spawn(async move { axum::serve(listener, router).await });
            address
        });
        Self {
            _runtime: runtime,
            address,
            did,
            counts,
        }
    }

    /// The same kubeconfig, by way of this.
    pub fn write(&self, from: &Path, to: &Path) {
        let text = std::fs::read_to_string(from).expect("a kubeconfig");
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        config["clusters"][0]["cluster"] = json!({"server": format!("http://{}", self.address)});
        std::fs::write(to, config.to_string()).expect("written");
    }

    /// How often what was done.
    pub fn did(&self) -> BTreeMap<Fault, usize> {
        self.did.lock().expect("no panic").clone()
    }

    /// How often what was asked.
    pub fn counts(&self) -> Counts {
        self.counts.lock().expect("no panic").clone()
    }
}

/// What is asked, in the words of an API server's rights.
fn asked(request: &Request<Body>) -> String {
    let mut path = request.uri().path().split('/').skip(1);
    // `/api/VERSION/…` and `/apis/GROUP/VERSION/…`, within a namespace or not.
    path.nth(if request.uri().path().starts_with("/apis/") {
        2
    } else {
        1
    });
    let mut rest: Vec<&str> = path.collect();
    if rest.first() == Some(&"namespaces") && rest.len() > 2 {
        rest.drain(..2);
    }
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let verb = match request.method().as_str() {
        "GET" if is_watch => "WATCH",
        "GET" if rest.len() < 2 => "LIST",
        other => other,
    };
    // With what is of it, as its status, and without its name.
    let kind: Vec<&str> = rest.iter().step_by(2).copied().collect();
    format!("{verb} {}", kind.join("/"))
}

impl Seat {
    fn fault(&self, request: &Request<Body>) -> Option<Fault> {
        // Who leads is another test's.
        if self.temper != Temper::Bad || request.uri().path().contains("/leases/") {
            return None;
        }
        let number = {
            let mut asked = self.asked.lock().expect("no panic");
            *asked += 1;
            *asked
        };
        let is_write = request.method() != Method::GET;
        let may = |fault: Fault| match fault {
            // A reading has nothing to be in conflict with.
            Fault::Conflict => is_write && request.uri().path().ends_with("/status"),
            Fault::AnswerLost | Fault::TooMany | Fault::Away | Fault::Slow | Fault::Expired => true,
        };
        let mut all = EVERY.into_iter();
        all.find(|(fault, every)| number % every == 0 && may(*fault))
            .map(|(fault, _)| fault)
    }

    fn note(&self, fault: Fault) {
        *self.did.lock().expect("no panic").entry(fault).or_default() += 1;
    }

    async fn forward(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, LARGEST).await.expect("a body");
        let mut forwarded = Request::new(kube::client::Body::from(body.to_vec()));
        *forwarded.method_mut() = head.method;
        let path = head.uri.path_and_query().expect("a path");
        *forwarded.uri_mut() = path.as_str().parse().expect("a path");
        for name in ["content-type", "accept"] {
            if let Some(value) = head.headers.get(name) {
                forwarded.headers_mut().insert(name, value.clone());
            }
        }
        match self.client.send(forwarded).await {
            Ok(answer) => answer.map(Body::new),
            Err(why) => refused(StatusCode::BAD_GATEWAY, &why.to_string()),
        }
    }
}

async fn pass_on(State(seat): State<Seat>, request: Request<Body>) -> Response<Body> {
    let asked = asked(&request);
    let is_watch = asked.starts_with("WATCH ");
    let times = {
        let mut counts = seat.counts.lock().expect("no panic");
        let times = counts.entry(asked.clone()).or_default();
        *times += 1;
        *times
    };
    if let Temper::Forbids(what, most) = seat.temper
        && what == asked
        && times <= most
    {
        return refused(StatusCode::FORBIDDEN, "it is not allowed yet");
    }
    if is_watch && seat.temper == Temper::Bad {
        let answer = seat.forward(request).await;
        let gone = json!({"type": "ERROR", "object": {
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "too old resource version",
        }});
        return answer.map(|body| {
            let heard = body.into_data_stream().take_until(tokio::time::sleep(WATCH));
            let last = stream::once(async move {
                seat.note(Fault::Expired);
                Ok(format!("{gone}\n").into())
            });
            Body::from_stream(heard.chain(last))
        });
    }
    let Some(fault) = seat.fault(&request) else {
        return seat.forward(request).await;
    };
    seat.note(fault);
    match fault {
        Fault::TooMany => refused(StatusCode::TOO_MANY_REQUESTS, "too many requests"),
        Fault::Conflict => refused(StatusCode::CONFLICT, "the object has been modified"),
        Fault::Away => refused(StatusCode::SERVICE_UNAVAILABLE, "etcdserver: leader changed"),
        Fault::Slow | Fault::Expired => {
            tokio::time::sleep(SLOW).await;
            seat.forward(request).await
        }
        Fault::AnswerLost => {
            let answer = seat.forward(request).await;
            let cut = stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("cut off")) });
            answer.map(|_| Body::from_stream(cut))
        }
    }
}

fn refused(code: StatusCode, why: &str) -> Response<Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code.as_u16(), "message": why,
    });
    let mut answer = Response::new(Body::from(status.to_string()));
    *answer.status_mut() = code;
    let json = "application/json".parse().expect("a header");
    answer.headers_mut().insert("content-type", json);
    answer
}

//! Nodes that answer in every way a node can, on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use stagegate::signals::postgres::Database;

/// A service with a table `job(id, state)`, one that may lie about it, and a few bad habits.
pub async fn service(database: Option<Database>) -> SocketAddr {
    let app = Router::new()
        .route("/alive", get(|| async { "alive=yes" }))
        .route(
            "/dead",
            get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "over\u{7}loaded\r\n") }),
        )
        .route(
            "/elsewhere",
            get(|| async { (StatusCode::FOUND, [("location", "/alive")]) }),
        )
        .route(
            "/echo",
            post(|headers: HeaderMap, body: String| async move {
                let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
                format!("{} {body}", kind.unwrap_or("none"))
            }),
        )
        .route("/hang", get(std::future::pending::<&str>))
        .route(
            "/endless",
            get(|| async {
                let piece = || Ok::<_, std::io::Error>(axum::body::Bytes::from(vec![b'x'; 4096]));
                axum::body::Body::from_stream(futures::stream::repeat_with(piece))
            }),
        )
        .route("/update/{honesty}", post(update))
        .with_state(database);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn update(State(database): State<Option<Database>>, UrlPath(honesty): UrlPath<String>, body: String) -> String {
    let id = body.trim_start_matches("id=").to_owned();
    match honesty.as_str() {
        "honest" => {
            let sql = format!("UPDATE job SET state = 'running' WHERE id = {id}");
            match database.expect("a database").query(&sql).await {
                Ok(_) => "StatusCode=0".to_owned(),
                Err(error) => format!("StatusCode=30 {error}"),
            }
        }
        "forgetful" => "StatusCode=0".to_owned(),
        _ => "StatusCode=30".to_owned(),
    }
}

/// A port that nobody listens on.
pub fn closed_port() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address")
}

/// Reads a request and closes the connection without a word.
pub fn mute() -> SocketAddr {
    serve(|mut connection| {
        let _ = connection.read(&mut [0; 4096]);
    })
    .0
}

/// Promises more than it sends.
pub fn breaks_off() -> SocketAddr {
    serve(|mut connection| {
        let _ = connection.read(&mut [0; 4096]);
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nalive=yes");
    })
    .0
}

/// Answers any number of requests on a connection; counts connections.
pub fn keeps_alive() -> (SocketAddr, Arc<AtomicUsize>) {
    serve(|mut connection| {
        while connection.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nalive=yes";
            if connection.write_all(answer).is_err() {
                return;
            }
        }
    })
}

fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || answer(connection));
        }
    });
    (address, accepted)
}

/// A private authority with a server's and a client's certificate.
pub struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Self { dir };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        for (name, extension) in [
            ("server", "subjectAltName=IP:127.0.0.1,DNS:web-0.web.shop.svc"),
            ("client", "extendedKeyUsage=clientAuth"),
        ] {
            authority.openssl(&[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                extension,
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.pem"),
            ]);
        }
        authority
    }

    fn openssl(&self, arguments: &[&str]) {
        let made = Command::new("openssl")
            .args(arguments)
            .current_dir(self.dir.path())
            .output()
            .expect("this test needs openssl: apt-get install openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).expect("written by openssl")
    }

    /// A server that answers only those who show a certificate of this authority.
    pub fn server(&self) -> SocketAddr {
        let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_file_iter(self.path().join(name))
                .and_then(Iterator::collect)
                .expect("certificates")
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates("ca.pem"));
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .expect("a verifier");
        let key = PrivateKeyDer::from_pem_file(self.path().join("server.key")).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates("server.pem"), key)
            .expect("a certificate");
        let config = Arc::new(config);
        serve(move |connection| {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = rustls::StreamOwned::new(session, connection);
            while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nalive=yes";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        })
        .0
    }
}

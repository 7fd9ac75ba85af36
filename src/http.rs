//! The one way to make an HTTP client: the same TLS library, trust and bounds wherever Stagegate speaks HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};

/// For a caller that does not say: longer than any answer of a server in service takes, short enough to notice.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle connections a host for a caller that does not say: calls one after the other need one.
const DEFAULT_IDLE: usize = 2;

/// Idle connections are closed before the shortest keep-alive that servers commonly use (5 s with Apache httpd): a
/// call sent into a connection that the server is closing would look refused.
const IDLE_CONNECTION: Duration = Duration::from_secs(2);

/// What a client may differ in.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Trust these certificates (PEM, one or more) and no others; without it, the system's.
    pub ca: Option<Vec<u8>>,
    /// Show this certificate.
    pub identity: Option<ClientIdentity>,
    /// From the first byte of connecting to the last of the answer.
    pub timeout: Duration,
    /// Who we say we are.
    pub user_agent: String,
    /// Which way requests go.
    pub route: Route,
    /// What becomes of a connection after its call.
    pub connections: Connections,
    /// A host that is asked by its name and found by its address.
    pub known: Option<KnownHost>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            ca: None,
            identity: None,
            timeout: DEFAULT_TIMEOUT,
            user_agent: concat!("stagegate/", env!("CARGO_PKG_VERSION")).to_owned(),
            route: Route::Direct,
            connections: Connections::Kept(DEFAULT_IDLE),
            known: None,
        }
    }
}

/// A host whose certificate has its name, and which no name server of ours has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHost {
    /// The name.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
}

/// What becomes of a connection after its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// At most this many idle ones a host are kept for the next call, as a busy client would.
    Kept(usize),
    /// Each call connects anew: what a probe must do, or it would miss a server that accepts nobody any more.
    Fresh,
}

/// A client certificate and its key.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate chain, PEM.
    pub certificate: Vec<u8>,
    /// The private key, PEM.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ClientIdentity {
    /// Hides the key (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// Which way requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Straight to the address: what a probe measures must be the node and not a proxy.
    Direct,
    /// By the proxy that `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name, as a site may demand for the world outside.
    EnvironmentProxy,
}

impl Route {
    /// The way to an address in the world outside. To this machine itself it is straight: no proxy stands between, and what one
    /// were given to carry (a token, over plain HTTP) is for nobody else.
    #[must_use]
    pub fn out_to(address: &str) -> Self {
        let url = Url::parse(address.trim()).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        let name = host.trim_end_matches('.');
        let named = name == "localhost" || name.ends_with(".localhost");
        let ip = host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .map(|ip| ip.to_canonical());
        if named || ip.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified()) {
            Self::Direct
        } else {
            Self::EnvironmentProxy
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The trusted certificates cannot be read.
    #[error("cannot read the trusted certificates (ca): {0}; give one or more certificates in PEM form")]
    Ca(String),
    /// The client certificate or its key cannot be read.
    #[error("cannot read the client certificate and key: {0}; give both in PEM form, the key not encrypted")]
    Identity(String),
    /// Certificate and key do not go together, or the TLS library refuses something else.
    #[error("cannot set up the HTTP client: {0}; check that certificate and key belong together")]
    Build(String),
}

/// Makes a client. Redirects are not followed: an answer that sends us elsewhere is not the answer of whom we asked.
/// Nothing is repeated by itself: whoever asks knows whether asking twice does harm. HTTP/1.1 only, so that one stalled
/// connection never couples calls that should be independent.
/// Make one and keep it: it holds the open connections and the system's certificates.
pub fn client(options: &HttpOptions) -> Result<Client, HttpError> {
    install_provider();
    let HttpOptions {
        ca,
        identity,
        timeout,
        user_agent,
        route,
        connections,
        known,
    } = options;
    let mut trust = Vec::new();
    if let Some(pem) = ca {
        trust = Certificate::from_pem_bundle(pem).map_err(|e| HttpError::Ca(cause(&e)))?;
        if trust.is_empty() {
            return Err(HttpError::Ca("there is no certificate in it".to_owned()));
        }
    }
    let identity = identity.as_ref().map(read_identity).transpose()?;
    let builder = || {
        let mut builder = ClientBuilder::new()
            .timeout(*timeout)
            .user_agent(user_agent)
            .http1_only()
            .retry(reqwest::retry::never())
            .referer(false)
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(match connections {
                Connections::Kept(idle) => *idle,
                Connections::Fresh => 0,
            })
            .redirect(reqwest::redirect::Policy::none());
        if let Some(identity) = &identity {
            builder = builder.identity(identity.clone());
        }
        if let Some(KnownHost { name, address }) = known {
            // Port 0: that of the request.
            builder = builder.resolve(name, SocketAddr::new(*address, 0));
        }
        match route {
            Route::Direct => builder.no_proxy(),
            Route::EnvironmentProxy => builder,
        }
    };
    if ca.is_some() {
        return builder()
            .tls_certs_only(trust)
            .build()
            .map_err(|e| HttpError::Build(cause(&e)));
    }
    // A machine without any system certificates (a minimal Debian) still speaks plain HTTP to its own nodes; an https
    // address then fails as untrusted, which is the truth.
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
        .map_err(|e| HttpError::Build(cause(&e)))
}

/// Says what went wrong without the address, which may carry a secret: the chain of causes, outermost first.
#[must_use]
pub fn cause(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_builder() {
        "cannot be built"
    } else {
        "broken"
    };
    let mut text = kind.to_owned();
    let mut next = std::error::Error::source(error);
    while let Some(inner) = next {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        next = inner.source();
    }
    text
}

fn read_identity(identity: &ClientIdentity) -> Result<Identity, HttpError> {
    let ClientIdentity { certificate, key } = identity;
    let pem = [certificate.as_slice(), b"\n", key.as_slice()].concat();
    Identity::from_pem(&pem).map_err(|e| HttpError::Identity(cause(&e)))
}

/// rustls takes its cryptography from one provider a process; ours is ring, which the digests use as well.
fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that there is one already, and the tree holds no other.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_needs_nothing_but_defaults() {
        client(&HttpOptions::default()).expect("works on any machine");
    }

    #[test]
    fn no_proxy_is_told_what_is_for_this_machine() {
        for (address, expected) in [
            ("https://its.example.org/jira", Route::EnvironmentProxy),
            ("https://127.0.0.1.example.org", Route::EnvironmentProxy),
            ("http://10.0.0.1:8080", Route::EnvironmentProxy),
            ("http://127.0.0.1:8080/jira", Route::Direct),
            ("http://127.9.9.9", Route::Direct),
            ("http://0.0.0.0:1", Route::Direct),
            ("http://[::1]:8080", Route::Direct),
            ("http://[::ffff:127.0.0.1]:8080", Route::Direct),
            ("https://LOCALHOST/x", Route::Direct),
            ("https://a.localhost./x", Route::Direct),
        ] {
            assert_eq!(Route::out_to(address), expected, "{address}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for pem in [
            "",
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let refused = client(&HttpOptions {
                ca: Some(pem.into()),
                ..HttpOptions::default()
            });
            assert!(refused.is_err(), "{pem}");
        }
        let refused = client(&HttpOptions {
            identity: Some(ClientIdentity {
                certificate: b"x".to_vec(),
                key: b"y".to_vec(),
            }),
            ..HttpOptions::default()
        });
        assert!(matches!(refused, Err(HttpError::Identity(_))), "{refused:?}");
    }

    #[test]
    fn a_key_is_never_printed() {
        let identity = ClientIdentity {
            certificate: b"cert".to_vec(),
            key: b"top secret".to_vec(),
        };
        let options = HttpOptions {
            identity: Some(identity),
            ..HttpOptions::default()
        };
        assert!(!format!("{options:?}").contains(&format!("{:?}", b"top secret")));
    }
}

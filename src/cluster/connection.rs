//! A connection to a cluster, as the kubeconfig or the pod that we run in says.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// An API server that is there accepts within milliseconds; behind a far network within a second or two.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A client is shared by whoever asks within this time: each has connections of its own, and its TLS. After it the kubeconfig is read
/// again, which may name another address or have other credentials by then.
const SHARED_FOR: Duration = Duration::from_mins(10);

/// A client that others may have, too.
struct Shared {
    asked: Asked,
    made_at: Instant,
    client: Client,
    server: String,
}

/// What two have to ask for alike to share one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// Its connections end with the runtime that they were made in.
    runtime: tokio::runtime::Id,
    kubeconfig: Option<std::ffi::OsString>,
    context: Option<String>,
    limit: Option<Duration>,
}

/// One a cluster and limit: a handful in a process, however many workloads it looks at.
static SHARED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

/// A client for the cluster of a context; without one, for the kubeconfig's current context, and in a pod for its own cluster.
///
/// # Errors
/// There is no such context, or no configuration at all, in the words of what was looked for.
pub async fn connect(context: Option<&str>) -> Result<Client, String> {
    Ok(connect_to_server(context).await?.0)
}

/// The same, with the address of its API server.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_server(context: Option<&str>) -> Result<(Client, String), String> {
    shared(context, None).await
}

async fn shared(context: Option<&str>, limit: Option<Duration>) -> Result<(Client, String), String> {
    let asked = Asked {
        runtime: tokio::runtime::Handle::current().id(),
        kubeconfig: std::env::var_os("KUBECONFIG"),
        context: context.map(str::to_owned),
        limit,
    };
    // What is in it is whole whoever has panicked.
    let known = || SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut known = known();
        known.retain(|shared| shared.made_at.elapsed() < SHARED_FOR);
        if let Some(shared) = known.iter().find(|shared| shared.asked == asked) {
            return Ok((shared.client.clone(), shared.server.clone()));
        }
    }
    let mut config = config(context).await?;
    if let Some(limit) = limit {
        (config.read_timeout, config.write_timeout) = (Some(limit), Some(limit));
        config.default_retry = false;
    }
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|e| causes(&e))?;
    let mut known = known();
    // Two may have made one at the same time; either will do.
    known.retain(|shared| shared.asked != asked);
    known.push(Shared {
        asked,
        made_at: Instant::now(),
        client: client.clone(),
        server: server.clone(),
    });
    Ok((client, server))
}

/// The same for calls that are short: an API server that says nothing for so long is away. What it refuses for a while is not
/// asked again, for whoever asks has its own way of doing that.
///
/// # Errors
/// As [`connect`].
pub async fn connect_within(context: Option<&str>, limit: Duration) -> Result<Client, String> {
    Ok(shared(context, Some(limit)).await?.0)
}

/// The same, with the namespace that the context is in.
///
/// # Errors
/// As [`connect`].
pub async fn connect_in(context: Option<&str>, limit: Duration) -> Result<(Client, String), String> {
    let namespace = config(context).await?.default_namespace;
    Ok((connect_within(context, limit).await?, namespace))
}

/// The same for one that also listens, with the namespace that it is in.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_own() -> Result<(Client, String), String> {
    let mut config = config(None).await?;
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).map_err(|e| causes(&e))?, namespace))
}

async fn config(context: Option<&str>) -> Result<Config, String> {
    let mut config = match context {
        Some(context) => {
            let options = KubeConfigOptions {
                context: Some(context.to_owned()),
                ..KubeConfigOptions::default()
            };
            Config::from_kubeconfig(&options).await.map_err(|e| causes(&e))?
        }
        None => Config::infer().await.map_err(|e| causes(&e))?,
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    Ok(config)
}

/// An error with its causes, in one line.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = inner.source();
    }
    text
}

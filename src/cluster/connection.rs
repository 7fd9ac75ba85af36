//! A connection to a cluster, as the kubeconfig or the pod that we run in says.

use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// An API server that is there accepts within milliseconds; behind a far network within a second or two.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

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
    let config = config(context).await?;
    let server = config.cluster_url.to_string();
    Ok((Client::try_from(config).map_err(|e| causes(&e))?, server))
}

/// The same for calls that are short: an API server that says nothing for so long is away. What it refuses for a while is not
/// asked again, for whoever asks has its own way of doing that.
///
/// # Errors
/// As [`connect`].
pub async fn connect_within(context: Option<&str>, limit: Duration) -> Result<Client, String> {
    let mut config = config(context).await?;
    (config.read_timeout, config.write_timeout) = (Some(limit), Some(limit));
    config.default_retry = false;
    Client::try_from(config).map_err(|e| causes(&e))
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

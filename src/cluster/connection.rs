//! A connection to a cluster, as the kubeconfig or the pod that we run in says.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// An API server that is there accepts within milliseconds; behind a far network within a second or two.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A client is shared by whoever asks within this time: each has connections of its own, and its TLS. A kubeconfig that changes is read
/// again at once; what else a client was made of, such as variables that its plugins read, after this.
const SHARED_FOR: Duration = Duration::from_mins(10);

/// A client that others may have, too.
struct Shared {
    asked: Asked,
    made_at: Instant,
    sources: Sources,
    client: Client,
    server: String,
}

/// What two have to ask for alike to share one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// Its connections end with the runtime that they were made in.
    runtime: tokio::runtime::Id,
    kubeconfig: Option<OsString>,
    context: Option<String>,
    limit: Option<Duration>,
}

/// The files that a client was made of, each as it was before it was read.
#[derive(Debug, PartialEq, Eq)]
struct Sources(Vec<(PathBuf, Option<Stamp>)>);

/// What tells that a file is another now.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// None where nothing can be read.
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl Sources {
    /// Those of a value of KUBECONFIG, and what they name: certificates and keys lie beside them. A file with a token is read anew by
    /// who uses it.
    fn of(kubeconfig: Option<&OsString>) -> Self {
        let listed = kubeconfig.map(|paths| std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty()));
        let mut paths: Vec<PathBuf> = listed.into_iter().flatten().collect();
        if paths.is_empty() {
            paths.extend(std::env::home_dir().map(|home| home.join(".kube/config")));
        }
        let stamped = |path: PathBuf| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        };
        let mut all: Vec<_> = paths.iter().cloned().map(stamped).collect();
        for path in paths {
            // What is wrong with one is said by who makes a client of it.
            let Ok(read) = Kubeconfig::read_from(path) else {
                continue;
            };
            let clusters = read.clusters.into_iter().filter_map(|named| named.cluster);
            let authorities = clusters.filter_map(|cluster| cluster.certificate_authority);
            let users = read.auth_infos.into_iter().filter_map(|named| named.auth_info);
            let own = users
                .flat_map(|user| [user.client_certificate, user.client_key])
                .flatten();
            all.extend(authorities.chain(own).map(PathBuf::from).map(stamped));
        }
        Self(all)
    }

    fn are_as_they_were(&self) -> bool {
        self.0.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }
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
        known.retain(|shared| shared.made_at.elapsed() < SHARED_FOR && shared.sources.are_as_they_were());
        if let Some(shared) = known.iter().find(|shared| shared.asked == asked) {
            return Ok((shared.client.clone(), shared.server.clone()));
        }
    }
    let sources = Sources::of(asked.kubeconfig.as_ref());
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
        sources,
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;

    /// Anything that is read as a certificate.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn kubeconfig(server: &str) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "users": [{"name": "me", "user": {"client-certificate": "me.crt", "client-key": "me.key"}}],
        });
        config.to_string()
    }

    #[test]
    fn a_kubeconfig_is_another_when_it_or_what_it_names_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        let put = |name: &str, text: &str| {
            // As who replaces it does: under another name first.
            std::fs::write(place("new"), text).expect("written");
            std::fs::rename(place("new"), place(name)).expect("renamed");
        };
        put("config", &kubeconfig("https://one:6443"));
        put("ca.crt", CERTIFICATE);
        put("me.crt", CERTIFICATE);
        let listed = std::env::join_paths([place("config"), place("later")]).expect("paths");
        let changes: [(&str, &str); 5] = [
            ("config", &kubeconfig("https://two:6443")),
            ("ca.crt", CERTIFICATE),
            ("me.crt", CERTIFICATE),
            // What was not there and comes.
            ("me.key", "a key"),
            ("later", &kubeconfig("https://one:6443")),
        ];
        for (name, text) in changes {
            let sources = Sources::of(Some(&listed));
            assert!(sources.are_as_they_were(), "{name}");
            put(name, text);
            assert!(!sources.are_as_they_were(), "{name}");
        }
        let sources = Sources::of(Some(&listed));
        std::fs::remove_file(place("config")).expect("removed");
        assert!(!sources.are_as_they_were());
    }

    /// Variables are a process's, so another one is begun: this very test, by its other half.
    #[test]
    fn a_client_is_shared_until_its_kubeconfig_changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let half = "cluster::connection::tests::the_half_that_connects";
        let ended = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", half, "--ignored", "--nocapture"])
            .env("KUBECONFIG", directory.path().join("config"))
            .output()
            .expect("it runs");
        let out = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success() && out.contains("1 passed"), "{ended:?}");
    }

    #[tokio::test]
    #[ignore = "the other half of the test before it, which says where its kubeconfig lies"]
    async fn the_half_that_connects() {
        let place = std::env::var_os("KUBECONFIG").expect("said by the other half");
        let of = |server: &str| kubeconfig(server).replace("\"ca.crt\"", "null");
        let of = |server: &str| of(server).replace("\"me.crt\"", "null").replace("\"me.key\"", "null");
        std::fs::write(&place, of("http://one:6443")).expect("written");
        let (_, server) = connect_to_server(None).await.expect("a client");
        assert_eq!(server, "http://one:6443/");
        let made_at = || {
            SHARED
                .lock()
                .expect("no panic")
                .iter()
                .map(|shared| shared.made_at)
                .collect::<Vec<_>>()
        };
        let first = made_at();
        connect(None).await.expect("a client");
        assert_eq!(made_at(), first, "it is shared");

        std::fs::write(&place, of("http://another:6443")).expect("written");
        let (_, server) = connect_to_server(None).await.expect("a client");
        assert_eq!(server, "http://another:6443/");
        assert_eq!(made_at().len(), 1, "nobody is given the old one any more");
    }
}

//! Our copy of a repository at GitHub: what is checked is read from here, so that nothing moves while it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;

use crate::commits::finding::shown;
use crate::process::{self, Bounds, ProcessError};
use crate::secrets::Veil;

/// A first fetch of a repository of some gigabytes over a slow line; later ones take seconds.
const FETCH: Bounds = Bounds {
    deadline: Duration::from_mins(20),
    output_bytes: 1 << 20,
};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// git could not be run to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// git says no.
    #[error("cannot fetch {what}: git says: {said}")]
    Git {
        /// What was fetched.
        what: String,
        /// Its words.
        said: String,
    },
    /// The directory.
    #[error("cannot make {path}: {why}")]
    Place {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
}

/// A bare copy.
#[derive(Debug, Clone)]
pub struct Mirror {
    directory: PathBuf,
    url: String,
}

impl Mirror {
    /// The copy of `url` in this directory, which is made when it is first fetched.
    #[must_use]
    pub fn at(directory: PathBuf, url: String) -> Self {
        Self { directory, url }
    }

    /// What it is a copy of.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fetches these refs, or commits by their full names, into refs of ours. The token goes by git's own variables: an
    /// argument would stand in the process list, and a configuration on the disk.
    ///
    /// # Errors
    /// One of them is not to be had.
    pub async fn fetch(&self, wanted: &[String], token: &str) -> Result<(), MirrorError> {
        if !self.directory.join("HEAD").exists() {
            std::fs::create_dir_all(&self.directory).map_err(|why| MirrorError::Place {
                path: self.directory.clone(),
                why,
            })?;
            let mut init = self.git();
            init.args(["init", "-q", "--bare"]);
            self.run(init, "make the copy", &Veil::default()).await?;
        }
        let basic = STANDARD.encode(format!("x-access-token:{token}"));
        let mut fetch = self.git();
        fetch
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", format!("http.{}.extraHeader", self.url))
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {basic}"))
            .args([
                "fetch",
                "-q",
                "--no-tags",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
            ])
            .arg("--")
            .arg(&self.url)
            .args(
                wanted
                    .iter()
                    .map(|one| format!("+{one}:refs/checked/{}", one.trim_start_matches("refs/"))),
            );
        // A server's words come through git.
        self.run(fetch, &self.url, &Veil::over([token, &basic])).await
    }

    fn git(&self) -> Command {
        let keep = |name: &str| std::env::var_os(name).map(|value| (OsString::from(name), value));
        let mut git = Command::new("git");
        git.env_clear()
            .envs(
                [
                    "PATH",
                    "HOME",
                    "HTTPS_PROXY",
                    "NO_PROXY",
                    "SSL_CERT_FILE",
                    "SSL_CERT_DIR",
                    "GIT_SSL_CAINFO",
                ]
                .iter()
                .filter_map(|n| keep(n)),
            )
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env(
                "GIT_ALLOW_PROTOCOL",
                if self.url.starts_with("http://127.0.0.1:") {
                    "http"
                } else {
                    "https"
                },
            )
            .env("GIT_DIR", &self.directory);
        git
    }

    async fn run(&self, git: Command, what: &str, veil: &Veil) -> Result<(), MirrorError> {
        let said = process::run(git, FETCH).await?;
        if said.status.success() {
            return Ok(());
        }
        Err(MirrorError::Git {
            what: what.to_owned(),
            said: shown(veil.cut(&String::from_utf8_lossy(&said.stderr)).trim().as_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I8: a server's words come through git, and may repeat what it was sent.
    #[tokio::test]
    async fn what_git_says_is_told_without_the_token() {
        let mirror = Mirror::at(PathBuf::from("/nowhere"), "https://git.example.org/a".to_owned());
        let mut git = Command::new("sh");
        git.args(["-c", "echo 'remote: no such token: ghp_given' >&2; exit 128"]);
        let said = mirror.run(git, mirror.url(), &Veil::over(["ghp_given"])).await;
        let said = said.expect_err("git says no").to_string();
        assert!(said.ends_with("git says: remote: no such token: [hidden]"), "{said}");
    }
}

//! This machine as a host.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::HostError;
use super::agent::{Answer, Carriage, Feed, Shell, converse};

/// This machine: its nodes are directories, its services processes of ours.
#[derive(Debug, Default)]
pub struct LocalHost(());

impl LocalHost {
    /// This machine.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }

    fn failed(&self, why: &std::io::Error) -> HostError {
        HostError::Failed {
            host: self.host().to_owned(),
            tried: "run sh".to_owned(),
            why: why.to_string(),
        }
    }
}

impl Shell for LocalHost {
    fn host(&self) -> &'static str {
        "this machine"
    }

    fn carriage(&self) -> Carriage {
        Carriage::Copy
    }

    async fn sh(&self, feed: Feed<'_>, limit: Duration) -> Result<Answer, HostError> {
        let mut command = Command::new("sh");
        command
            .args(feed.arguments())
            // What our own environment holds (tokens, settings) is none of a node's business.
            .env_clear()
            .envs(["PATH", "HOME"].iter().filter_map(|name| {
                std::env::var_os(name).map(|value| (name, value))
            }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Out of reach of a Ctrl-C that is meant for us. Not killed with the call either: what it began, it finishes.
            .process_group(0)
            .kill_on_drop(false);
        let mut child = command.spawn().map_err(|e| self.failed(&e))?;
        // Piped above, so all three are there.
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(self.failed(&std::io::Error::other("it has no pipes")));
        };
        let talk = async {
            let answer = converse(feed, stdin, stdout, stderr).await?;
            child.wait().await?;
            Ok(answer)
        };
        match tokio::time::timeout(limit, talk).await {
            Ok(answer) => answer.map_err(|e| self.failed(&e)),
            Err(_) => Err(HostError::Unreachable {
                host: self.host().to_owned(),
                why: format!("no answer within {} s", limit.as_secs()),
            }),
        }
    }
}

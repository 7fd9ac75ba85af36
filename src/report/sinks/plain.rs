//! The plain sinks: lines for people, and lines of JSON in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::report::{Report, Sink, SinkError};

/// Where lines for people go: whoever owns standard error, so that a report does not run into a progress line.
pub trait Lines: Send + Sync {
    /// Writes one.
    fn line(&self, line: &str) -> io::Result<()>;
}

/// Writes each report's text as a line: the sink `stdout`, over whatever the command's printer writes to.
pub struct LineSink {
    name: String,
    lines: Arc<dyn Lines>,
}

impl LineSink {
    /// A sink of this name.
    pub fn new(name: impl Into<String>, lines: Arc<dyn Lines>) -> Self {
        Self {
            name: name.into(),
            lines,
        }
    }
}

impl Sink for LineSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        let (lines, text) = (Arc::clone(&self.lines), report.text.clone());
        // A reader that stopped reading (a pager, a suspended terminal) must not stop the other sinks.
        async move { blocking(move || lines.line(&text), "write a line").await }.boxed()
    }
}

/// Appends each report as a line of JSON and syncs it. The file is opened for each report, so that one that was rotated
/// away is left alone and a new one begun; upgrades make a handful of reports a minute.
pub struct FileSink {
    name: String,
    path: PathBuf,
}

impl FileSink {
    /// A sink of this name that appends to this file, made (0600) when it is missing; its directory must exist.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
        }
    }
}

impl Sink for FileSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        let path = self.path.clone();
        let tried = format!("append to {}", path.display());
        let line = serde_json::to_string(report);
        async move {
            let line = line.map_err(|e| SinkError::Never { why: e.to_string() })?;
            blocking(move || append(&path, &line), &tried).await
        }
        .boxed()
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // A line that a crash or a full disk cut short must not spoil ours.
    let text = if ends_in_mid_line(&mut file)? {
        format!("\n{line}\n")
    } else {
        format!("{line}\n")
    };
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    if new && let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn ends_in_mid_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

async fn blocking(write: impl FnOnce() -> io::Result<()> + Send + 'static, tried: &str) -> Result<(), SinkError> {
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(SinkError::later(format!("cannot {tried}: {e}"))),
        Err(e) => Err(SinkError::later(format!("cannot {tried}: {e}"))),
    }
}

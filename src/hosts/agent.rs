//! What is asked of the shell agent, and what it answers. A call is one run of `sh` whose stdin carries the request, the
//! agent's own text and, for a build over SSH, the build.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::Command;

use super::{
    FencingToken, FilePosition, Host, HostError, NodeAddress, NodeSight, Piece, RunningService, Script, Step, StepEnd,
    StepState, Tail, TailFrom, Work,
};
use crate::model::values::Digest;
use crate::secrets::{Veil, printable};

/// The agent's text: what looks, what asks, and what a step's own process is made of.
static LOOKING: LazyLock<String> = LazyLock::new(|| bare(include_str!("agent/looking.sh")));
static ASKING: LazyLock<String> = LazyLock::new(|| bare(include_str!("agent/asking.sh")));
static STEP: LazyLock<String> = LazyLock::new(|| bare(include_str!("agent/step.sh")));

/// What a call may take beyond the patience it was given: a look is done in milliseconds, so half a minute without an answer
/// is a host in trouble (its disk hangs, its memory swaps).
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// What a delivery may take: a prepared build of 500 MB over 1 MB/s.
const DELIVERY_LIMIT: Duration = Duration::from_mins(10);
/// Between TERM and KILL for a script whose deadline passed: time to remove a temporary file, not to finish work.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// `timeout 0` would mean no deadline at all.
const SHORTEST_DEADLINE: Duration = Duration::from_millis(10);
/// The largest piece of a file that one call reads.
const MAX_PIECE: usize = 1 << 20;
/// The largest answer: a piece, or the sight of a node with hundreds of steps asked about at 4 KiB of log each.
const MAX_ANSWER: u64 = 4 << 20;
/// The lines of a step's log that are shown: a screen full. The agent answers with its last 4 KiB.
const LOG_LINES: usize = 40;
/// What is kept of a shell's own complaints.
const MAX_COMPLAINT: u64 = 4096;

/// Runs `sh` somewhere: all that tells one kind of host from another.
pub(crate) trait Shell: Send + Sync {
    /// The host, as messages name it.
    fn host(&self) -> &str;
    /// How a build gets there.
    fn carriage(&self) -> Carriage;
    /// Runs [`Feed::command`] and feeds it. `Unreachable` when it cannot or takes longer than `limit`.
    fn sh(&self, feed: Feed<'_>, limit: Duration) -> impl Future<Output = Result<Answer, HostError>> + Send;
}

/// How a prepared build gets to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carriage {
    /// The node sees our files.
    Copy,
    /// They are sent.
    Stream,
}

/// What goes into a shell's stdin.
pub(crate) struct Feed<'a> {
    script: String,
    /// A directory sent as a tar stream after the script.
    body: Option<&'a Path>,
}

impl Feed<'_> {
    /// A script alone.
    #[cfg(test)]
    pub(crate) fn of(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            body: None,
        }
    }

    /// The arguments of `sh`. With a body, the script is taken from stdin first, to the byte: a shell that reads its script
    /// from stdin by itself reads ahead.
    pub(crate) fn arguments(&self) -> Vec<String> {
        match self.body {
            None => vec!["-s".into()],
            Some(_) => vec![
                "-c".into(),
                format!(
                    r#"eval "$(dd bs={} count=1 iflag=fullblock 2>/dev/null)""#,
                    self.script.len()
                ),
            ],
        }
    }
}

/// A shell text without its comments and indentation: a third of it, which would be sent and parsed with each call.
fn bare(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim_start_matches('\t'));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// What a shell said.
pub(crate) struct Answer {
    stdout: Vec<u8>,
    stderr: String,
}

impl Answer {
    pub(crate) fn complaint(&self) -> &str {
        self.stderr.trim()
    }
}

/// Feeds a shell and collects what it says, within bounds.
pub(crate) async fn converse(
    feed: Feed<'_>,
    stdin: impl AsyncWrite + Unpin,
    stdout: impl AsyncRead + Unpin,
    stderr: impl AsyncRead + Unpin,
) -> std::io::Result<Answer> {
    let (poured, stdout, stderr) = tokio::join!(
        pour(feed, stdin),
        read_bounded(stdout, MAX_ANSWER),
        read_bounded(stderr, MAX_COMPLAINT)
    );
    match poured {
        // A shell that ended early says why on its stderr or by its answer.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        poured => poured?,
    }
    Ok(Answer {
        stdout: stdout?,
        stderr: String::from_utf8_lossy(&stderr?).into_owned(),
    })
}

async fn pour(feed: Feed<'_>, mut stdin: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    stdin.write_all(feed.script.as_bytes()).await?;
    if let Some(directory) = feed.body {
        let mut tar = tar(directory)?;
        if let Some(mut stream) = tar.stdout.take() {
            tokio::io::copy(&mut stream, &mut stdin).await?;
        }
    }
    stdin.shutdown().await
}

/// Reads to the end and keeps the first `limit` bytes; the rest is read away so that the writer does not hang.
async fn read_bounded(mut stream: impl AsyncRead + Unpin, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut stream).take(limit).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// A directory as a tar stream.
fn tar(directory: &Path) -> std::io::Result<tokio::process::Child> {
    Command::new("tar")
        .arg("-C")
        .arg(directory)
        .args(["-cf", "-", "."])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// SHA-256 of the tar stream that [`tar`] will send of this directory.
async fn tar_digest(directory: &Path) -> std::io::Result<Digest> {
    let mut child = tar(directory)?;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    if let Some(mut stream) = child.stdout.take() {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = stream.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
        }
    }
    let status = child.wait().await?;
    if !status.success() {
        return Err(std::io::Error::other(format!("tar ended with {status}")));
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finish().as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Digest::from_hex(&hex).map_err(std::io::Error::other)
}

impl<S: Shell> Host for S {
    async fn observe(&self, node: &NodeAddress, steps: &[String]) -> Result<NodeSight, HostError> {
        let ask = Ask::new(self, node, "observe", "look at the node")?;
        for step in steps {
            ask.check("step id", step, is_word)?;
        }
        ask.set("asked", &steps.join(" ")).sight(CALL_LIMIT).await
    }

    async fn run(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        step: &Step,
        patience: Duration,
    ) -> Result<NodeSight, HostError> {
        let tried = format!("run step {}", step.id);
        let ask = Ask::new(self, node, "run", &tried)?.token(token)?;
        ask.check("step id", &step.id, is_word)?;
        ask.check("action", &step.action, is_word)?;
        if let Work::Take { .. } = step.work {
            return Err(ask.failed("only a workload of a cluster is taken for an upgrade"));
        }
        let payload = payload(&ask, node, step)?;
        let mut sight = ask
            .set("step", &step.id)
            .set("work", Parts::of(&step.work).work)
            .set("patience", &seconds(patience))
            .text(&payload)
            .sight(patience.saturating_add(CALL_LIMIT))
            .await?;
        step.hide_secrets(&mut sight);
        Ok(sight)
    }

    async fn deliver(
        &self,
        node: &NodeAddress,
        token: &FencingToken,
        build: &Digest,
        artifact: &Path,
    ) -> Result<(), HostError> {
        let tried = format!("bring build {}", build.short());
        let ask = |call| {
            Ok::<_, HostError>(
                Ask::new(self, node, call, &tried)?
                    .token(token)?
                    .set("release", &build.hex()),
            )
        };
        match self.carriage() {
            Carriage::Copy => {
                let ask = ask("copy")?;
                let source = std::path::absolute(artifact).map_err(|e| ask.failed(e.to_string()))?;
                let source = source
                    .to_str()
                    .ok_or_else(|| ask.failed("the artifact's path is not UTF-8"))?;
                ask.set("source", source).done(DELIVERY_LIMIT).await
            }
            Carriage::Stream => {
                if ask("look")?.lines(CALL_LIMIT).await?.contains("present\n") {
                    return Ok(());
                }
                let mut ask = ask("receive")?;
                let sum = tar_digest(artifact)
                    .await
                    .map_err(|e| ask.failed(format!("cannot read {}: {e}", artifact.display())))?;
                ask.feed.body = Some(artifact);
                ask.set("sum", &sum.hex()).done(DELIVERY_LIMIT).await
            }
        }
    }

    async fn adopt(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        Ask::new(self, node, "adopt", "adopt the node")?
            .token(token)?
            .done(CALL_LIMIT)
            .await
    }

    async fn destroy(&self, node: &NodeAddress, token: &FencingToken) -> Result<(), HostError> {
        Ask::new(self, node, "destroy", "delete the node directory")?
            .token(token)?
            // Deleting releases of thousands of files takes its time.
            .done(DELIVERY_LIMIT)
            .await
    }

    async fn tail(&self, node: &NodeAddress, file: &str, from: TailFrom, at_most: usize) -> Result<Tail, HostError> {
        let tried = format!("read {file}");
        let (inode, offset) = match from {
            TailFrom::Start => ("start".to_owned(), 0),
            TailFrom::End => ("end".to_owned(), 0),
            TailFrom::At(FilePosition { inode, offset }) => (inode.to_string(), offset),
        };
        let ask = Ask::new(self, node, "tail", &tried)?
            .set("file", file)
            .set("inode", &inode)
            .set("offset", &offset.to_string())
            .set("at_most", &at_most.min(MAX_PIECE).to_string());
        let (answer, ask) = ask.send(CALL_LIMIT).await?;
        let mut parts = answer.stdout.splitn(2, |b| *b == b'\n');
        let head = String::from_utf8_lossy(parts.next().unwrap_or_default());
        let bytes = parts.next().unwrap_or_default();
        let words: Vec<&str> = head.split(' ').collect();
        let number = |text| ask.number::<u64>(text);
        let current = |text| (text != "-").then(|| number(text)).transpose();
        match words[..] {
            ["gone", now] => Ok(Tail {
                current: current(now)?,
                piece: None,
            }),
            ["tail", inode, size, offset, now] => Ok(Tail {
                current: current(now)?,
                piece: Some(Piece {
                    from: FilePosition {
                        inode: number(inode)?,
                        offset: number(offset)?,
                    },
                    size: number(size)?,
                    bytes: bytes.to_vec(),
                }),
            }),
            _ => Err(ask.not_understood(&head)),
        }
    }

    async fn sockets(&self, node: &NodeAddress, remote_port: u16) -> Result<Vec<SocketAddr>, HostError> {
        let ask =
            Ask::new(self, node, "sockets", "list the service's connections")?.set("port", &remote_port.to_string());
        let unread = ask.unread();
        let lines = ask.lines(CALL_LIMIT).await?;
        lines
            .lines()
            .map(|line| {
                line.strip_prefix("socket ")
                    .and_then(kernel_address)
                    .ok_or_else(|| unread.not_understood(line))
            })
            .collect()
    }
}

/// A call in the making: who is asked, what, and for messages what was tried.
struct Ask<'a, S> {
    shell: &'a S,
    call: String,
    feed: Feed<'a>,
    who: Who,
}

/// For messages.
#[derive(Clone)]
struct Who {
    host: String,
    environment: String,
    node: String,
    tried: String,
    ours: Option<FencingToken>,
}

impl Who {
    fn failed(&self, why: impl Into<String>) -> HostError {
        HostError::Failed {
            host: self.host.clone(),
            tried: format!("{} on node {}", self.tried, self.node),
            why: why.into(),
        }
    }

    fn not_understood(&self, line: &str) -> HostError {
        self.failed(format!(
            "its answer `{}` is not understood; is its login shell printing something of its own?",
            printable(line)
        ))
    }

    fn number<N: FromStr>(&self, text: &str) -> Result<N, HostError> {
        text.parse().map_err(|_| self.not_understood(text))
    }

    fn digest(&self, hex: &str) -> Result<Digest, HostError> {
        Digest::from_hex(hex).map_err(|_| self.not_understood(hex))
    }
}

impl<'a, S: Shell> Ask<'a, S> {
    fn new(shell: &'a S, node: &NodeAddress, call: &str, tried: &str) -> Result<Self, HostError> {
        let ask = Self {
            shell,
            feed: Feed {
                script: String::new(),
                body: None,
            },
            call: call.to_owned(),
            who: Who {
                host: shell.host().to_owned(),
                environment: node.environment.clone(),
                node: node.node.clone(),
                tried: tried.to_owned(),
                ours: None,
            },
        };
        let rooted = match shell.carriage() {
            Carriage::Copy => Path::new(&node.directory).is_absolute(),
            Carriage::Stream => !node.directory.is_empty(),
        };
        if !rooted {
            return Err(ask.failed(format!("`{}` is no absolute directory", node.directory)));
        }
        let pid_file = node.pid_file.as_deref().unwrap_or_default();
        for path in [node.directory.as_str(), pid_file] {
            ask.check("path", path, |path| !path.contains('\0'))?;
        }
        Ok(ask
            .set("call", call)
            .set("dir", &node.directory)
            .set("pid_file", pid_file))
    }

    fn token(mut self, token: &FencingToken) -> Result<Self, HostError> {
        self.check("home", &token.home, |home| {
            !home.is_empty() && !home.contains(|c: char| c.is_whitespace() || c.is_control())
        })?;
        self.who.ours = Some(token.clone());
        Ok(self.set("home", &token.home).set("counter", &token.counter.to_string()))
    }

    fn set(self, name: &str, value: &str) -> Self {
        self.text(&format!("{name}={}\n", quoted(value)))
    }

    fn text(mut self, text: &str) -> Self {
        self.feed.script.push_str(text);
        self
    }

    fn check(&self, what: &str, value: &str, good: impl FnOnce(&str) -> bool) -> Result<(), HostError> {
        if good(value) {
            Ok(())
        } else {
            Err(self.failed(format!("`{}` cannot be a {what}", printable(value))))
        }
    }

    fn failed(&self, why: impl Into<String>) -> HostError {
        self.who.failed(why)
    }

    fn unread(&self) -> Who {
        self.who.clone()
    }

    /// Sends it, and turns the agent's refusals into errors.
    async fn send(self, limit: Duration) -> Result<(Answer, Who), HostError> {
        let Self {
            shell,
            call,
            mut feed,
            who,
        } = self;
        let text = &mut feed.script;
        match call.as_str() {
            "observe" | "tail" | "sockets" => text.push_str(&LOOKING),
            "run" => {
                let agent_text = quoted(&(LOOKING.clone() + &STEP));
                let _ = write!(text, "agent_text={agent_text}\neval \"$agent_text\"\n{}", *ASKING);
            }
            _ => text.extend([LOOKING.as_str(), ASKING.as_str()]),
        }
        // The braces make a request that was cut on its way a syntax error instead of a shorter request. Descriptor 3 is the
        // stdin of who reads a body; nothing else may read the script's own text.
        let _ = writeln!(text, "{{ call_{call} 3<&0 </dev/null; exit; }}");
        let answer = shell.sh(feed, limit).await?;
        let text = String::from_utf8_lossy(&answer.stdout);
        // A look may have begun to answer before it failed.
        let lines: Vec<&str> = text.lines().collect();
        if let [.., failed, why, "end"] = lines[..]
            && let Some(tried) = failed.strip_prefix("failed ")
        {
            return Err(who.failed(format!("{tried}: {}", printable(why))));
        }
        let refusal = lines.first().map(|line| line.split(' ').collect::<Vec<_>>());
        match refusal.as_deref() {
            Some(["fenced", home, counter]) => {
                let ours = who.ours.as_ref();
                Err(HostError::Fenced {
                    environment: who.environment,
                    node: who.node,
                    seen: format!("{home}/{counter}"),
                    ours: ours.map_or_else(String::new, |t| format!("{}/{}", t.home, t.counter)),
                })
            }
            Some(["foreign", home, _]) => Err(HostError::ForeignHome {
                environment: who.environment,
                node: who.node,
                seen: (*home).to_owned(),
            }),
            Some(_) => Ok((answer, who)),
            None if answer.complaint().is_empty() => Err(who.failed("it answered nothing")),
            None => Err(who.failed(printable(answer.complaint()))),
        }
    }

    /// Sends it and answers the lines before `end`.
    async fn lines(self, limit: Duration) -> Result<String, HostError> {
        let (answer, who) = self.send(limit).await?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let whole = text
            .strip_suffix("end\n")
            .filter(|rest| rest.is_empty() || rest.ends_with('\n'));
        match whole {
            Some(lines) => Ok(lines.to_owned()),
            None => Err(who.failed(format!("its answer is cut short {}", printable(answer.complaint())))),
        }
    }

    async fn done(self, limit: Duration) -> Result<(), HostError> {
        let unread = self.unread();
        match self.lines(limit).await?.as_str() {
            "" => Ok(()),
            line => Err(unread.not_understood(line)),
        }
    }

    async fn sight(self, limit: Duration) -> Result<NodeSight, HostError> {
        let unread = self.unread();
        let lines = self.lines(limit).await?;
        read_sight(&lines, &unread)
    }
}

/// Reads the agent's lines about a node; anything unexpected is an error.
fn read_sight(lines: &str, who: &Who) -> Result<NodeSight, HostError> {
    let mut sight = NodeSight::default();
    let mut ended: Option<String> = None;
    for line in lines.lines() {
        if let Some(log) = line.strip_prefix("log ") {
            let step = ended.as_ref().and_then(|id| sight.steps.get_mut(id));
            let Some(StepState::Ended(end)) = step else {
                return Err(who.not_understood(line));
            };
            end.log_tail.push_str(&printable(log));
            end.log_tail.push('\n');
            continue;
        }
        ended = None;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["setup"] => sight.set_up = true,
            ["current", hex] => sight.current = Some(who.digest(hex)?),
            ["release", hex] => sight.releases.push(who.digest(hex)?),
            ["fence", home, counter] => {
                sight.fence = Some(FencingToken {
                    home: home.to_owned(),
                    counter: who.number(counter)?,
                });
            }
            ["running", build, pid, since] => {
                sight.running = Some(RunningService {
                    build: match build {
                        "-" => None,
                        hex => Some(who.digest(hex)?),
                    },
                    pid: who.number(pid)?,
                    started_at: Timestamp::from_second(who.number(since)?).map_err(|_| who.not_understood(line))?,
                });
            }
            ["remains", ref pids @ ..] => {
                sight.remains = pids.iter().map(|pid| who.number(pid)).collect::<Result<_, _>>()?;
            }
            ["step", id, "running"] => {
                sight.steps.insert(id.to_owned(), StepState::Running);
            }
            ["step", id, "died"] => {
                sight.steps.insert(id.to_owned(), StepState::Died);
            }
            ["step", id, "ended", exit] => {
                let end = StepEnd {
                    exit: who.number(exit)?,
                    log_tail: String::new(),
                };
                sight.steps.insert(id.to_owned(), StepState::Ended(end));
                ended = Some(id.to_owned());
            }
            ["free", blocks, size] => {
                sight.free_bytes = Some(who.number::<u64>(blocks)?.saturating_mul(who.number(size)?));
            }
            _ => return Err(who.not_understood(line)),
        }
    }
    for step in sight.steps.values_mut() {
        if let StepState::Ended(end) = step {
            keep_last_lines(&mut end.log_tail);
        }
    }
    Ok(sight)
}

fn keep_last_lines(log: &mut String) {
    let before = log.lines().count().saturating_sub(LOG_LINES);
    let cut: usize = log.split_inclusive('\n').take(before).map(str::len).sum();
    log.drain(..cut);
}

/// The function `payload`, which writes a step's files: its request, its scripts, their secrets.
fn payload<S: Shell>(ask: &Ask<'_, S>, node: &NodeAddress, step: &Step) -> Result<String, HostError> {
    let Parts {
        work,
        release,
        keep,
        scripts,
    } = Parts::of(&step.work);
    let mut request = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(request, "{name}={}", quoted(value));
    };
    line("action", &step.action);
    line("work", work);
    line("release", &release.map_or_else(|| "-".to_owned(), Digest::hex));
    line("keep", &keep);
    line("pid_file", node.pid_file.as_deref().unwrap_or_default());
    line("grace", &seconds(KILL_GRACE));
    let mut files = String::new();
    let mut roles = Vec::new();
    for (role, script) in scripts {
        let deadline = script.deadline.max(SHORTEST_DEADLINE);
        line(&format!("deadline_{role}"), &seconds(deadline));
        line(&format!("deadline_cs_{role}"), &(deadline.as_millis() / 10).to_string());
        let text = if script.text.starts_with("#!") {
            script.text.clone()
        } else {
            format!("#!/bin/sh\n{}", script.text)
        };
        roles.push(role);
        let _ = write!(files, " &&\n\tput {role} '{}'", octal(text.as_bytes()));
        let mut exports = String::new();
        for (name, value) in &script.environment {
            ask.check("name of a variable", name, is_variable)?;
            let _ = writeln!(exports, "export {name}={}", quoted(value));
        }
        if !exports.is_empty() {
            let _ = write!(
                files,
                " &&\n\tput 'secrets/{role}.environment' '{}'",
                octal(exports.as_bytes())
            );
        }
        for (name, content) in &script.secrets {
            ask.check("name of a secret", name, is_word)?;
            let _ = write!(files, " &&\n\tput 'secrets/{role}/{name}' '{}'", octal(content));
        }
    }
    Ok(format!(
        "roles='{}'\npayload() {{\n\tput request '{}'{files}\n}}\n",
        roles.join(" "),
        octal(request.as_bytes())
    ))
}

impl Step {
    /// Takes out of a sight what the step's scripts printed of their own secrets: what a sight says goes into messages, reports and
    /// the state (I8). The log on the node keeps it.
    pub(crate) fn hide_secrets(&self, sight: &mut NodeSight) {
        let Some(StepState::Ended(end)) = sight.steps.get_mut(&self.id) else {
            return;
        };
        let scripts = Parts::of(&self.work).scripts;
        let values = scripts.iter().flat_map(|(_, script)| {
            let files = script.secrets.values().map(|content| String::from_utf8_lossy(content));
            files.chain(script.environment.values().map(|value| value.as_str().into()))
        });
        end.log_tail = Veil::over(values).cut(&end.log_tail);
    }
}

/// A step's work in the agent's words.
struct Parts<'a> {
    work: &'static str,
    release: Option<&'a Digest>,
    keep: String,
    scripts: Vec<(&'static str, &'a Script)>,
}

impl<'a> Parts<'a> {
    fn of(work: &'a Work) -> Self {
        let part = |work, release, scripts| Self {
            work,
            release,
            keep: String::new(),
            scripts,
        };
        match work {
            Work::Script(script) => part("script", None, vec![("script", script)]),
            Work::Setup(script) => part("setup", None, vec![("script", script)]),
            Work::Install { release, script } => part("install", Some(release), vec![("script", script)]),
            Work::Take { .. } => part("take", None, vec![]),
            Work::Activate { release } => part("activate", Some(release), vec![]),
            Work::Restart { stop, start } => part("restart", None, vec![("stop", stop), ("start", start)]),
            Work::Start { start } => part("start", None, vec![("start", start)]),
            Work::Stop { stop } => part("stop", None, vec![("stop", stop)]),
            Work::Prune { keep } => Self {
                keep: keep.iter().map(Digest::hex).collect::<Vec<_>>().join(" "),
                ..part("prune", None, vec![])
            },
        }
    }
}

/// Step ids, actions, names of secrets: they become file names and words of a line.
fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What a shell can export.
fn is_variable(text: &str) -> bool {
    is_word(text)
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Seconds as `timeout` and `flock` take them.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => duration.as_secs().to_string(),
        ms => format!("{}.{ms:03}", duration.as_secs()),
    }
}

/// A text as one word of a shell.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Bytes in `printf %b` notation, within single quotes.
fn octal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for &b in bytes {
        match b {
            b'\\' | b'\'' => {
                let _ = write!(text, "\\0{b:03o}");
            }
            b' '..=b'~' | b'\n' | b'\t' => text.push(char::from(b)),
            _ => {
                let _ = write!(text, "\\0{b:03o}");
            }
        }
    }
    text
}

/// `0100007F:1538` or `0000…0100007F:1538`, as /proc/net/tcp and tcp6 have addresses: 32-bit words in the node's byte order,
/// which is little-endian on every machine that we run on.
fn kernel_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0_u8; 16];
    if !address.is_ascii() || address.len() % 8 != 0 || address.len() > 32 {
        return None;
    }
    for (word, at) in address.as_bytes().chunks(8).zip(bytes.chunks_mut(4)) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        at.copy_from_slice(&word.to_le_bytes());
    }
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        32 => Ipv6Addr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Who {
        Who {
            host: "h".into(),
            environment: "e".into(),
            node: "n".into(),
            tried: "look at the node".into(),
            ours: None,
        }
    }

    #[test]
    fn an_answer_that_is_not_understood_is_an_error() {
        for line in [
            "Welcome to this server!",
            "current abc",
            "release",
            "running - x 1",
            "step s ended",
            "log without a step",
            "free 1",
        ] {
            let read = read_sight(&format!("{line}\n"), &who());
            assert!(matches!(read, Err(HostError::Failed { .. })), "{line}");
        }
    }

    #[test]
    fn a_log_reaches_nobody_with_control_characters() {
        let read = read_sight("step s ended 3\nlog \u{1b}[31mred\u{7}\tx\nfree 2 4096\n", &who());
        let sight = read.expect("understood");
        assert_eq!(
            sight.steps["s"],
            StepState::Ended(StepEnd {
                exit: 3,
                log_tail: "[31mred x\n".into()
            })
        );
        assert_eq!(sight.free_bytes, Some(8192));
    }

    #[test]
    fn a_log_is_shown_by_its_last_lines() {
        let lines: Vec<String> = (0..100).map(|n| format!("log {n}")).collect();
        let lines = lines.join("\n");
        let read = read_sight(&format!("step s ended 0\n{lines}\nfree 2 4096\n"), &who());
        let sight = read.expect("understood");
        let StepState::Ended(end) = &sight.steps["s"] else {
            panic!("{sight:?}")
        };
        assert!(end.log_tail.starts_with("60\n") && end.log_tail.ends_with("\n99\n"));
        assert_eq!(end.log_tail.lines().count(), 40);
    }

    #[test]
    fn kernel_addresses_are_read() {
        let check = |text: &str, want: &str| {
            assert_eq!(kernel_address(text).map(|a| a.to_string()), Some(want.into()));
        };
        check("0100007F:1538", "127.0.0.1:5432");
        check("0000000000000000FFFF00000100007F:1538", "127.0.0.1:5432");
        check("00000000000000000000000001000000:1538", "[::1]:5432");
        assert_eq!(kernel_address("0100007:1538"), None);
    }

    #[test]
    fn only_plain_words_become_file_names() {
        assert!(is_word("u7.n1-install_2"));
        for bad in ["", ".", "../x", "a b", "-rf", "a/b", "a\n", "é"] {
            assert!(!is_word(bad), "{bad}");
        }
    }
}

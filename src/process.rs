//! Programs of this machine that are run and waited for, within bounds: how long they may take, and how much they may say.
//! With a program ends its whole process group, however that comes about, also when nobody waits any more.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// Read at once: what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// What was killed closes its pipes within milliseconds; with hundreds of processes on a machine under load in a second or two.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What a program may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// It is killed after this.
    pub deadline: Duration,
    /// It is killed when it writes more than this to its standard output, or to its standard error.
    pub output_bytes: usize,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Said {
    /// Its end.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
}

/// Why a program did not come to its end. The words hold the program's name, never its arguments (I8).
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The system refused.
    #[error("cannot run {program}: {source}")]
    System {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{program} did not end within {} s and was killed", deadline.as_secs())]
    TooLong {
        /// The program.
        program: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// It said too much.
    #[error("{program} wrote more than {bytes} bytes and was killed")]
    TooMuch {
        /// The program.
        program: String,
        /// How much it was allowed.
        bytes: usize,
    },
}

/// What becomes of a program that says more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    /// It is killed: what it says is read as a whole or not at all.
    Ends,
    /// It goes on, and the middle of what it says is left out.
    IsLeftOut,
}

/// Runs a program without input and waits for its end. What it leaves in its group is killed then.
///
/// # Errors
/// It cannot be started, or does not keep within its bounds. A program that fails is no error here: see its status.
pub async fn run(command: Command, bounds: Bounds) -> Result<Said, ProcessError> {
    run_until_end(command, bounds, Excess::Ends).await
}

/// The same for a program that may say more than is read: the first and the last halves of the bound are kept, so that
/// memory stays flat, and a line says how much is missing between them.
///
/// # Errors
/// It cannot be started, or takes too long.
pub async fn run_keeping_ends(command: Command, bounds: Bounds) -> Result<Said, ProcessError> {
    run_until_end(command, bounds, Excess::IsLeftOut).await
}

async fn run_until_end(mut command: Command, bounds: Bounds, excess: Excess) -> Result<Said, ProcessError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |source| ProcessError::System {
        program: program.clone(),
        source,
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(&failed)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    // Piped above, so both are there.
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(std::io::Error::other("it has no pipes")));
    };
    let too_long = || ProcessError::TooLong {
        program: program.clone(),
        deadline: bounds.deadline,
    };
    let end = async {
        let status = tokio::time::timeout(bounds.deadline, child.wait()).await;
        // Whoever is left of its group would keep the pipes open.
        drop(group);
        status.map_err(|_| too_long())?.map_err(&failed)
    };
    let read = async |stream: Box<dyn AsyncRead + Send + Unpin>| match read(stream, bounds.output_bytes, excess).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(ProcessError::TooMuch {
            program: program.clone(),
            bytes: bounds.output_bytes,
        }),
        Err(why) => Err(failed(why)),
    };
    let (out, err) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let (patience, all) = match excess {
        Excess::Ends => {
            let all = async { tokio::try_join!(end, out, err) };
            (bounds.deadline, futures::future::Either::Left(all))
        }
        // To the end of what it says also after it was killed: the first process of a pid namespace is the last to close
        // the pipe, so that nothing inside runs any more when this returns.
        Excess::IsLeftOut => {
            let all = async {
                let (status, out, err) = tokio::join!(end, out, err);
                Ok((status?, out?, err?))
            };
            (bounds.deadline + LAST_WORDS, futures::future::Either::Right(all))
        }
    };
    let said = tokio::time::timeout(patience, all).await.map_err(|_| too_long())?;
    said.map(|(status, stdout, stderr)| Said { status, stdout, stderr })
}

async fn read(stream: impl AsyncRead + Unpin, most: usize, excess: Excess) -> std::io::Result<Option<Vec<u8>>> {
    match excess {
        Excess::Ends => read_whole(stream, most).await,
        Excess::IsLeftOut => read_ends(stream, most).await.map(Some),
    }
}

/// The first and the last `most / 2` bytes that a stream brings, with a line between them when that is not all.
async fn read_ends(mut stream: impl AsyncRead + Unpin, most: usize) -> std::io::Result<Vec<u8>> {
    let half = most / 2;
    let mut bytes = Vec::new();
    (&mut stream).take(half as u64).read_to_end(&mut bytes).await?;
    let mut tail = Vec::new();
    let mut missing = 0_u64;
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        tail.extend_from_slice(&chunk[..read]);
        // Only now and then, for what is kept is moved.
        if tail.len() >= 2 * half + READ_BYTES {
            missing += drop_all_but(half, &mut tail);
        }
    }
    missing += drop_all_but(half, &mut tail);
    if missing > 0 {
        bytes.extend_from_slice(format!("\n… {missing} bytes are left out …\n").as_bytes());
    }
    bytes.extend(tail);
    Ok(bytes)
}

/// Leaves the last so many bytes, and says how many are gone.
fn drop_all_but(last: usize, bytes: &mut Vec<u8>) -> u64 {
    let over = bytes.len().saturating_sub(last);
    bytes.drain(..over);
    over as u64
}

/// All that a stream brings; `None` when that is more than `most` bytes.
async fn read_whole(stream: impl AsyncRead + Unpin, most: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    stream.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    Ok((bytes.len() <= most).then_some(bytes))
}

/// A process group that is killed when dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // There may be nobody left, which is as well.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than anything here takes; only a test that fails waits for it.
    const LONG: Duration = Duration::from_secs(30);

    fn sh(script: &str, directory: &std::path::Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(directory);
        command
    }

    /// A dead process may stay in the table until its parent takes note.
    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
        })
    }

    #[tokio::test]
    async fn a_program_that_hangs_ends_at_its_deadline_with_its_group() {
        let dir = tempfile::tempdir().expect("a directory");
        let bounds = Bounds {
            deadline: Duration::from_secs(2),
            output_bytes: 1000,
        };
        let said = run(sh("sleep 1000 & echo $! >pid; wait", dir.path()), bounds).await;
        let why = said.expect_err("too long").to_string();
        assert_eq!(why, "sh did not end within 2 s and was killed");
        let pid = std::fs::read_to_string(dir.path().join("pid")).expect("it came so far");
        let gone = async {
            while lives(&pid) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, gone).await.expect("its child is killed too");
    }

    #[tokio::test]
    async fn a_flood_is_cut_off_and_what_is_left_behind_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let bounds = Bounds {
            deadline: LONG,
            output_bytes: 1000,
        };
        for flood in ["yes", "yes >&2"] {
            let why = run(sh(flood, dir.path()), bounds)
                .await
                .expect_err("too much")
                .to_string();
            assert_eq!(why, "sh wrote more than 1000 bytes and was killed", "{flood}");
        }
        let said = run(sh("sleep 1000 & echo out; echo err >&2; exit 3", dir.path()), bounds).await;
        let said = said.expect("it ended");
        assert_eq!(
            (said.status.code(), &said.stdout[..], &said.stderr[..]),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
        let said = run_keeping_ends(sh("echo first; yes | head -c 10000000; echo last", dir.path()), bounds).await;
        let said = String::from_utf8(said.expect("it ended").stdout).expect("text");
        assert!(said.starts_with("first\n") && said.ends_with("y\nlast\n"), "{said}");
        assert!(said.contains("\n… 9999011 bytes are left out …\n"), "{said}");
        assert!(said.len() < 1100, "{}", said.len());
        let short = run_keeping_ends(sh("echo out", dir.path()), bounds).await;
        assert_eq!(short.expect("it ended").stdout, b"out\n");
        let missing = run(Command::new("/no/such/program"), bounds)
            .await
            .expect_err("not there");
        assert!(
            missing.to_string().starts_with("cannot run /no/such/program:"),
            "{missing}"
        );
    }
}

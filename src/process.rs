//! The one way to run a program for what it prints: with a deadline and a bound on its output, and with its whole process
//! group gone when either is passed.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// What a program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// It is killed after this.
    pub deadline: Duration,
    /// It may print at most this much to standard output.
    pub most_bytes: u64,
}

/// What a program left. Its standard error is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
}

/// Why a program did not end by itself. What it printed is not repeated: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be begun, or not be read.
    #[error("{program} cannot be run: {source}")]
    Io {
        /// The program, without its arguments.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ran for too long.
    #[error("{program} did not end within {deadline:?} and was killed")]
    Deadline {
        /// The program.
        program: String,
        /// The limit.
        deadline: Duration,
    },
    /// It printed too much.
    #[error("{program} printed more than {most_bytes} bytes and was killed")]
    Flood {
        /// The program.
        program: String,
        /// The limit.
        most_bytes: u64,
    },
}

/// Runs a program to its end. Blocks the thread, at most until the deadline.
///
/// # Errors
/// It could not be run, or passed a limit.
pub fn run(command: &mut Command, limits: &Limits) -> Result<Output, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| RunError::Io {
        program: program.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let begun = Instant::now();
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let stdout = child.stdout.take();
    let most = limits.most_bytes;
    let (tell, told) = channel();
    // A process that it left behind may keep the pipe open, so the reader is not waited for beyond the deadline.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map_or(Ok(0), |pipe| pipe.take(most + 1).read_to_end(&mut text));
        // Nobody waits any more after the deadline.
        let _ = tell.send(read.map(|_| text));
    });
    let read = told.recv_timeout(limits.deadline);
    let flooded = matches!(&read, Ok(Ok(text)) if text.len() as u64 > most);
    let ended = if flooded {
        None
    } else {
        wait(&mut child, begun + limits.deadline).map_err(failed)?
    };
    // Also after a good end: what it left behind is nobody's.
    if let Some(group) = group {
        // It has gone already, mostly.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let collected = child.wait().map_err(failed)?;
    match (read, ended) {
        _ if flooded => Err(RunError::Flood {
            program,
            most_bytes: most,
        }),
        (Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected), _) | (_, None) => Err(RunError::Deadline {
            program,
            deadline: limits.deadline,
        }),
        (Ok(Err(why)), _) => Err(failed(why)),
        (Ok(Ok(stdout)), Some(())) => Ok(Output {
            status: collected,
            stdout,
        }),
    }
}

/// Mostly it has ended by the time that its output has.
fn wait(child: &mut std::process::Child, until: Instant) -> io::Result<Option<()>> {
    loop {
        if child.try_wait()?.is_some() {
            return Ok(Some(()));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        deadline: Duration::from_millis(300),
        most_bytes: 100,
    };

    fn sh(script: &str) -> Result<Output, RunError> {
        run(Command::new("sh").args(["-c", script]), &LIMITS)
    }

    #[test]
    fn a_program_is_bounded_in_time_and_output() {
        let output = sh("printf hello; exit 3").expect("it ends");
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(3), &b"hello"[..])
        );
        assert!(matches!(sh("sleep 60"), Err(RunError::Deadline { .. })));
        assert!(matches!(sh("exec >&-; sleep 60"), Err(RunError::Deadline { .. })));
        assert!(matches!(sh("yes"), Err(RunError::Flood { .. })));
        let nowhere = run(&mut Command::new("/nowhere/at/all"), &LIMITS);
        assert!(matches!(nowhere, Err(RunError::Io { .. })));
    }

    #[test]
    fn what_a_program_leaves_behind_does_not_hold_us_up() {
        assert!(matches!(sh("sleep 60 & echo done"), Err(RunError::Deadline { .. })));
        assert!(sh("sleep 60 >/dev/null & echo done").is_ok());
    }
}

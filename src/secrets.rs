//! Secrets: referred to in resources, read here, given to whom needs them by stdin or in memory (I8).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::runtime::{self, Handle, RuntimeFlavor};

use crate::model::environment::{CreateSecret, SecretSource};
use crate::process::{self, Bounds, ProcessError, Said};

/// A longer secret is a mistake: the longest in use are certificate bundles of some 100 kB.
const MOST_BYTES: u64 = 1 << 20;
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;
/// A line of a secret that is shorter than this is hidden nowhere: it would take half of every text with it, and is no secret.
const SHORTEST_HIDDEN: usize = 6;
/// What stands where a secret stood.
const HIDDEN: &str = "[hidden]";
/// A password store answers within seconds, and one that asks a person has nobody to ask here.
const COMMAND: Bounds = Bounds {
    deadline: Duration::from_secs(30),
    output_bytes: 1 << 20,
};

/// Why a secret cannot be had. The words never hold the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody defined it.
    #[error("there is no secret `{0}`; the environment's `secrets` define them")]
    Unknown(String),
    /// Its file cannot be read.
    #[error("secret `{name}`: cannot read {path}: {source}")]
    File {
        /// The secret.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a file that has an end.
    #[error(
        "secret `{name}`: {path} is {kind} and was not read; name a file that holds it, or the program that prints it as `command`",
        path = path.display()
    )]
    NoFile {
        /// The secret.
        name: String,
        /// What lies there.
        path: PathBuf,
        /// Of which kind it is.
        kind: &'static str,
    },
    /// There is nothing in it, which would be sent as if it were a secret.
    #[error("secret `{name}`: {place} is empty; put the secret there")]
    Empty {
        /// The secret.
        name: String,
        /// Where it was looked for.
        place: String,
    },
    /// Its environment variable is not set.
    #[error("secret `{name}`: the environment variable {variable} is not set")]
    Variable {
        /// The secret.
        name: String,
        /// The variable.
        variable: String,
    },
    /// Its command failed.
    #[error("secret `{name}`: {why}")]
    Command {
        /// The secret.
        name: String,
        /// What happened to which program.
        why: String,
    },
}

/// Where an environment's secrets come from.
#[derive(Debug, Clone)]
pub struct Secrets {
    sources: BTreeMap<String, SecretSource>,
    directory: PathBuf,
}

impl Secrets {
    /// `directory` is the environment's own: relative files lie below it.
    #[must_use]
    pub fn new(sources: BTreeMap<String, SecretSource>, directory: PathBuf) -> Self {
        Self { sources, directory }
    }

    /// Reads one. A file that is missing and may be made is made. One that others may read is read, and warned of once: keys are
    /// mounted like that by systems that let nobody else in, and certificates may be read by anybody.
    ///
    /// # Errors
    /// As [`SecretError`] says.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, SecretError> {
        let (place, secret) = self.look(name)?;
        if secret.trim_ascii().is_empty() {
            return Err(SecretError::Empty {
                name: name.to_owned(),
                place,
            });
        }
        Ok(secret)
    }

    /// Where one comes from, and what is there.
    fn look(&self, name: &str) -> Result<(String, Vec<u8>), SecretError> {
        let source = self
            .sources
            .get(name)
            .ok_or_else(|| SecretError::Unknown(name.to_owned()))?;
        let SecretSource {
            file,
            create,
            environment,
            command,
        } = source;
        if let Some(file) = file {
            let path = self.directory.join(file);
            let failed = |source| SecretError::File {
                name: name.to_owned(),
                path: path.clone(),
                source,
            };
            if *create == Some(CreateSecret::Random) && !path.exists() {
                make_random(&path).map_err(failed)?;
            }
            return Ok((path.display().to_string(), read_file(name, &path)?));
        }
        if let Some(variable) = environment {
            return match std::env::var(variable) {
                Ok(value) => Ok((format!("the environment variable {variable}"), value.into_bytes())),
                Err(_) => Err(SecretError::Variable {
                    name: name.to_owned(),
                    variable: variable.clone(),
                }),
            };
        }
        let command = command.as_deref().unwrap_or_default();
        let place = format!("what {} prints", command.first().map_or("nobody", String::as_str));
        Ok((place, run(name, command)?))
    }

    /// Reads one as text, without the newline at its end.
    ///
    /// # Errors
    /// As [`Secrets::read`].
    pub fn text(&self, name: &str) -> Result<String, SecretError> {
        let bytes = self.read(name)?;
        Ok(String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\n', '\r'])
            .to_owned())
    }

    /// Reads several by name.
    ///
    /// # Errors
    /// As [`Secrets::read`].
    pub fn all(&self, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>, SecretError> {
        names.iter().map(|name| Ok((name.clone(), self.read(name)?))).collect()
    }
}

fn read_file(name: &str, path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::File {
        name: name.to_owned(),
        path: path.to_owned(),
        source,
    };
    // To open a pipe waits for who writes into it, who may never come.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        // As a socket says.
        Err(why) if why.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Err(no_file(name, path, "a socket or a device"));
        }
        opened => opened.map_err(failed)?,
    };
    let seen = file.metadata().map_err(failed)?;
    if let Some(kind) = kind_but_file(seen.file_type()) {
        return Err(no_file(name, path, kind));
    }
    let mut secret = Vec::new();
    (&file).take(MOST_BYTES + 1).read_to_end(&mut secret).map_err(failed)?;
    if secret.len() as u64 > MOST_BYTES {
        let why = format!("it has more than {MOST_BYTES} bytes, which no secret has");
        return Err(failed(io::Error::other(why)));
    }
    let mode = seen.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        warn_once(name, path, mode);
    }
    Ok(secret)
}

fn no_file(name: &str, path: &Path, kind: &'static str) -> SecretError {
    SecretError::NoFile {
        name: name.to_owned(),
        path: path.to_owned(),
        kind,
    }
}

/// What lies there when it is no file that has an end.
fn kind_but_file(kind: fs::FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else {
        Some("a socket or a device")
    }
}

/// A server reads its secrets again and again, and says it once. The names are those of files that a workspace states: few.
fn warn_once(name: &str, path: &Path, mode: u32) {
    static SAID: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(path.to_owned()) {
        let path = path.display();
        tracing::warn!(
            "secret {name}: {path} can be read by others (mode {mode:03o}); `chmod 600 {path}` closes it to them"
        );
    }
}

/// Our own secrets, to be cut out of what others say: they may repeat what they were told, and their words go into messages,
/// reports and the state (I8).
#[derive(Clone, Default)]
pub struct Veil {
    /// The longest first: a shorter one may be a part of it.
    lines: Vec<String>,
}

impl std::fmt::Debug for Veil {
    /// Hides what it hides (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Veil").finish_non_exhaustive()
    }
}

impl Veil {
    /// Over these secrets, line by line, as a log shows them: without control characters.
    pub fn over<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut lines: Vec<String> = secrets
            .into_iter()
            .flat_map(|secret| secret.as_ref().lines().map(printable).collect::<Vec<_>>())
            .map(|line| line.trim().to_owned())
            .filter(|line| line.len() >= SHORTEST_HIDDEN)
            .collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
        Self { lines }
    }

    /// The text without them. It is to be whole and in one piece: half a secret is not found.
    #[must_use]
    pub fn cut(&self, text: &str) -> String {
        let lines = self.lines.iter();
        lines.fold(text.to_owned(), |text, line| text.replace(line, HIDDEN))
    }
}

/// Without control characters: a log may hold escape sequences that would act on the terminal that it is shown on.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect()
}

fn make_random(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        crate::home::make_private(parent)?;
    }
    let text = format!("{}{}", crate::store::random_id(), crate::store::random_id());
    // Named only when whole: a driver that was killed in between must not leave half a password.
    let partial = path.with_extension(format!("new{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match fs::hard_link(&partial, path) {
        // Somebody was quicker: theirs is the secret.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            let _ = fs::remove_file(&partial);
            Err(e)
        }
        Ok(()) | Err(_) => fs::remove_file(&partial),
    }
}

fn run(name: &str, command: &[String]) -> Result<Vec<u8>, SecretError> {
    let [program, arguments @ ..] = command else {
        return Err(SecretError::Unknown(name.to_owned()));
    };
    let failed = |why: String| SecretError::Command {
        name: name.to_owned(),
        why,
    };
    let mut asked = Command::new(program);
    asked.args(arguments);
    let said = wait_apart(process::run(asked, COMMAND)).map_err(|why| failed(why.to_string()))?;
    if !said.status.success() {
        // For who looks on, but not for an error's words, which are kept.
        tracing::warn!(
            "secret {name}: {program}: {}",
            String::from_utf8_lossy(&said.stderr).trim()
        );
        return Err(failed(format!("{program} ended with {}", said.status)));
    }
    let mut value = said.stdout;
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    Ok(value)
}

/// Waits for a program from code that cannot await, on a thread of its own. The other tasks of our runtime go on meanwhile;
/// one of a single thread, as tests have it, has nowhere to go on.
fn wait_apart(asked: impl Future<Output = Result<Said, ProcessError>> + Send) -> Result<Said, ProcessError> {
    let apart = || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| ProcessError::System {
            program: "a runtime for it".to_owned(),
            source,
        });
        runtime?.block_on(asked)
    };
    let wait = || std::thread::scope(|scope| scope.spawn(apart).join());
    let waited = match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    };
    waited.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> SecretSource {
        serde_json::from_str(text).expect("a source")
    }

    /// The pipe would else be waited for until somebody writes into it.
    #[test]
    fn what_has_no_end_or_nothing_in_it_is_no_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).expect("written");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("pipe"), kind, mode, 0).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).expect("a socket");
        fs::create_dir(dir.path().join("directory")).expect("made");
        put("empty", b"");
        put("blank", b" \n");
        put("large", &vec![b'x'; usize::try_from(MOST_BYTES).expect("small") + 1]);
        put("whole", &vec![b'x'; usize::try_from(MOST_BYTES).expect("small")]);
        for (text, expected) in [
            (r#"{"file": "pipe"}"#, "pipe is a pipe and was not read"),
            (r#"{"file": "socket"}"#, "socket is a socket or a device"),
            (r#"{"file": "directory"}"#, "directory is a directory"),
            (r#"{"file": "/dev/zero"}"#, "/dev/zero is a socket or a device"),
            (r#"{"file": "empty"}"#, "empty is empty; put the secret there"),
            (r#"{"file": "blank"}"#, "blank is empty"),
            (r#"{"file": "large"}"#, "more than 1048576 bytes"),
            (r#"{"command": ["true"]}"#, "what true prints is empty"),
            (r#"{"file": "whole"}"#, ""),
        ] {
            let secrets = Secrets::new(BTreeMap::from([("it".to_owned(), source(text))]), dir.path().to_owned());
            let said = secrets.read("it").err().map_or_else(String::new, |e| e.to_string());
            assert!(
                said.contains(expected) && said.is_empty() == expected.is_empty(),
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn a_secret_is_cut_out_of_a_text_and_a_word_is_not() {
        for (secrets, text, expected) in [
            (
                &["s3cret-token"][..],
                "Bearer s3cret-token, and s3cret-token",
                "Bearer [hidden], and [hidden]",
            ),
            (&["abcdef", "abcdefgh"], "x abcdefgh", "x [hidden]"),
            (
                &["first line\nsecond line\n"],
                "second line: first line",
                "[hidden]: [hidden]",
            ),
            (&["short", ""], "short", "short"),
        ] {
            assert_eq!(Veil::over(secrets).cut(text), expected, "{secrets:?}");
        }
    }

    #[test]
    fn a_missing_file_is_made_once_with_64_digits_for_us_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let sources = BTreeMap::from([
            (
                "made".to_owned(),
                source(r#"{"file": "secrets/made", "create": "random"}"#),
            ),
            ("absent".to_owned(), source(r#"{"file": "secrets/absent"}"#)),
            ("said".to_owned(), source(r#"{"command": ["printf", "a\n"]}"#)),
            ("failing".to_owned(), source(r#"{"command": ["false"]}"#)),
        ]);
        let secrets = Secrets::new(sources, dir.path().to_owned());
        let made = secrets.text("made").expect("made");
        assert!(
            made.len() == 64 && made.bytes().all(|b| b.is_ascii_hexdigit()),
            "{made}"
        );
        assert_eq!(secrets.text("made").expect("read"), made);
        let permissions = fs::metadata(dir.path().join("secrets/made"))
            .expect("it")
            .permissions()
            .mode();
        assert_eq!(permissions & 0o777, 0o600);
        assert_eq!(secrets.text("said").expect("said"), "a");
        assert!(
            secrets
                .read("absent")
                .is_err_and(|e| e.to_string().contains("secrets/absent"))
        );
        assert!(
            secrets
                .read("failing")
                .is_err_and(|e| e.to_string().contains("false ended with"))
        );
        assert!(
            secrets
                .read("other")
                .is_err_and(|e| e.to_string().contains("no secret `other`"))
        );
    }
}

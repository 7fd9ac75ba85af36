//! Secrets: referred to in resources, read here, given to whom needs them by stdin or in memory (I8).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::runtime::{self, Handle, RuntimeFlavor};

use crate::model::environment::{CreateSecret, SecretSource};
use crate::process::{self, Bounds, ProcessError, Said};

/// A longer secret is a mistake: the longest in use are certificate bundles of some 100 kB.
const MOST_BYTES: u64 = 1 << 20;
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

    /// Reads one. A file that is missing and may be made is made.
    ///
    /// # Errors
    /// As [`SecretError`] says.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, SecretError> {
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
            return read_bounded(&path).map_err(failed);
        }
        if let Some(variable) = environment {
            return match std::env::var(variable) {
                Ok(value) => Ok(value.into_bytes()),
                Err(_) => Err(SecretError::Variable {
                    name: name.to_owned(),
                    variable: variable.clone(),
                }),
            };
        }
        run(name, command.as_deref().unwrap_or_default())
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

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > MOST_BYTES {
        return Err(io::Error::other(format!(
            "it has {length} bytes, at most {MOST_BYTES} are read"
        )));
    }
    fs::read(path)
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

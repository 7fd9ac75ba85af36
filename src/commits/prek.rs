//! prek, pinned: it runs the repository's own hooks that have no native equal. Fetched once, by `hooks install`, as the wheel
//! that its authors publish; a check never downloads, and asks prek whether every environment is there before a hook runs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use super::finding::{Finding, Level, shown};
use super::hooks::{self, Rest};
use crate::home::make_private;

/// The version whose verdicts the tests compare with.
pub const VERSION: &str = "0.5.11";
/// SHA-256 of its wheels, as the package index has them: Linux on `x86_64` and `aarch64`, macOS on both.
const WHEELS: [&str; 4] = [
    "ca78936abfb2793ba9d6b9b4ac0e4eb13189bcfabd16d94c29aa573963bac87f",
    "1cce91fe6524e1b2dfc4e5f40353caa0b62e2db9ae4b2bab314958027663a712",
    "2e530bd4c8975c6ac6eae20c70fa54c50714d56279040cc3c2b0bce279c0c84e",
    "95da482d8f1d3323beea219e95b6bbe31a27d3b14943148d3c4eac94e9f7d7ee",
];
/// Bytes of prek's output that are read. Hooks that print more say nothing more to a person.
const MOST_OUTPUT_BYTES: usize = 1 << 20;
/// What keeps the installers that prek could start from the network: all of them, in their own words.
pub(super) const OFFLINE: [(&str, &str); 8] = [
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("PIP_NO_INDEX", "1"),
    ("UV_OFFLINE", "1"),
    ("npm_config_offline", "true"),
    ("CARGO_NET_OFFLINE", "true"),
    ("GOPROXY", "off"),
    ("BUNDLE_LOCAL", "true"),
    ("PREK_NO_FAST_PATH", "1"),
];

/// What keeps prek itself from the network, which fetches toolchains (uv, node, go) by its own: a proxy at a port that nobody can
/// listen at. Hooks that run are not told of it.
const NO_PROXY_ANSWERS: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];
const NO_PROXY: &str = "http://127.0.0.1:0";
/// Hooks that are asked about one by one when an environment is missing: a second each at the worst, where an installer has to
/// start before it finds that it has no network.
const MOST_ASKED: usize = 20;
/// Lines of prek's words that are kept: what it tried, and what came of it.
const MOST_SAID: [usize; 2] = [2, 3];
/// How prek ends its line about a hook that its repository does not have.
const NO_SUCH_HOOK: &str = "was not found in repository";

/// Why the hooks did not run.
#[derive(Debug, thiserror::Error)]
pub enum PrekError {
    /// Not there.
    #[error(
        "the hooks {hooks} need prek {VERSION}, which is not here, so they did not run; `stagegate hooks install` fetches it"
    )]
    Missing {
        /// Which hooks.
        hooks: String,
    },
    /// The configuration has a mistake.
    #[error("{0}")]
    Config(String),
    /// Nothing is installed for some hooks.
    #[error(
        "nothing is installed here for the hooks {hooks}, so no hook of prek's ran; `stagegate hooks install` installs it, again after \
         every change of what hooks need"
    )]
    Unprepared {
        /// Which hooks.
        hooks: String,
    },
    /// It could not be fetched.
    #[error("cannot fetch prek {VERSION}: {0}; it needs the network, this once")]
    Fetch(String),
    /// What a hook needs could not be installed.
    #[error("{said}; look whether `repo` and `rev` are right, and whether they can be reached from here")]
    Install {
        /// prek's words.
        said: String,
    },
    /// It could not be started or read.
    #[error("cannot run {program}: {why}")]
    Run {
        /// Where it is.
        program: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// It ended, and not because a hook found something.
    #[error("prek did not run the hooks ({status}): {said}")]
    Broken {
        /// How.
        status: ExitStatus,
        /// Its words.
        said: String,
    },
}

/// Where the pinned prek lies, whether it is there or not.
#[must_use]
pub fn program(state: &Path) -> PathBuf {
    state.join("tools").join(format!("prek-{VERSION}")).join("prek")
}

/// Fetches prek, unless it is there.
///
/// # Errors
/// It cannot be had, or is not the one that is pinned.
pub fn fetch(state: &Path) -> Result<PathBuf, PrekError> {
    let program = program(state);
    if program.is_file() {
        return Ok(program);
    }
    let place = program.parent().unwrap_or(state).to_owned();
    let scratch = place.with_extension(format!("fetching-{}", std::process::id()));
    let fetched = fetch_into(&scratch, &place);
    // What is left of a fetch that failed is of no use.
    let _ = std::fs::remove_dir_all(&scratch);
    fetched?;
    Ok(program)
}

fn fetch_into(scratch: &Path, place: &Path) -> Result<(), PrekError> {
    let io = |doing: &str, path: &Path| {
        let what = format!("{doing} {}", path.display());
        move |why: std::io::Error| PrekError::Fetch(format!("{what}: {why}"))
    };
    make_private(scratch).map_err(io("making", scratch))?;
    let requirements = scratch.join("requirements.txt");
    let hashes = WHEELS.map(|hash| format!(" --hash=sha256:{hash}")).concat();
    std::fs::write(&requirements, format!("prek=={VERSION}{hashes}\n")).map_err(io("writing", &requirements))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    ])
    .args(["--only-binary", ":all:", "--require-hashes", "--dest"])
    .arg(scratch)
    .arg("--requirement")
    .arg(&requirements);
    done(&mut pip)?;
    let wheel = std::fs::read_dir(scratch)
        .map_err(io("reading", scratch))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| PrekError::Fetch("pip downloaded no wheel".to_owned()))?;
    let unpacked = scratch.join("unpacked");
    done(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&unpacked),
    )?;
    let binary = unpacked.join(format!("prek-{VERSION}.data/scripts/prek"));
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&binary, executable).map_err(io("finding", &binary))?;
    make_private(place).map_err(io("making", place))?;
    std::fs::rename(&binary, place.join("prek")).map_err(io("moving", &binary))
}

fn done(command: &mut Command) -> Result<(), PrekError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|why| PrekError::Fetch(format!("python3 cannot be run: {why}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(PrekError::Fetch(
        said.lines().last().unwrap_or("pip said nothing").to_owned(),
    ))
}

/// A configuration in a file of its own, for as long as prek reads it.
struct Config(PathBuf);

impl Config {
    fn write(state: &Path, rest: &Rest) -> Result<Self, PrekError> {
        let place = state.join("tools");
        let path = place.join(format!("hooks-{}.yaml", std::process::id()));
        // JSON is YAML.
        // The state directory may not be there yet, and holds keys later.
        make_private(&place)
            .and_then(|()| std::fs::write(&path, rest.config.to_string()))
            .map_err(|why| PrekError::Run {
                program: path.clone(),
                why,
            })?;
        Ok(Self(path))
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // One that is left behind is of a few hundred bytes, and overwritten some day.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the environments of the hooks, so that no check has to.
///
/// # Errors
/// One of them cannot be made, or the configuration, which lies in `root`, has a mistake.
pub fn prepare(state: &Path, root: &Path, rest: &Rest) -> Result<(), PrekError> {
    valid(state, root, rest)?;
    match prepared(state, root, rest, Network::Reached)? {
        Ok(()) => Ok(()),
        Err(Unready { said, .. }) if said.contains(NO_SUCH_HOOK) => Err(mistake(rest, &said)),
        Err(Unready { said, .. }) => Err(PrekError::Install { said }),
    }
}

/// What prek says of hooks that it cannot make ready.
struct Unready {
    status: ExitStatus,
    said: String,
}

/// Whether prek may reach others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Reached,
    KeptFrom,
}

/// Has prek make what is missing, and gives its words where it cannot.
fn prepared(state: &Path, root: &Path, rest: &Rest, network: Network) -> Result<Result<(), Unready>, PrekError> {
    let config = Config::write(state, rest)?;
    let mut command = Command::new(program(state));
    command
        .current_dir(root)
        .arg("prepare-hooks")
        .arg("-c")
        .arg(&config.0)
        .args(["--quiet", "--color", "never", "--no-progress"]);
    match network {
        Network::Reached => {}
        Network::KeptFrom => {
            command
                .envs(OFFLINE)
                .envs(NO_PROXY_ANSWERS.map(|name| (name, NO_PROXY)));
            for exempts in ["NO_PROXY", "no_proxy"] {
                command.env_remove(exempts);
            }
        }
    }
    let output = ended(state, &mut command)?;
    Ok(if output.status.success() {
        Ok(())
    } else {
        Err(Unready {
            status: output.status,
            said: said(&output.stderr),
        })
    })
}

/// Refuses a configuration that prek cannot read, by its own lines: what prek gets to run is not the text that people wrote.
fn valid(state: &Path, root: &Path, rest: &Rest) -> Result<(), PrekError> {
    let mut command = Command::new(program(state));
    command
        .current_dir(root)
        .arg("validate-config")
        .arg(root.join(&rest.name))
        .args(["--color", "never"]);
    let output = ended(state, &mut command)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().find_map(|line| line.trim().strip_prefix("caused by: "));
    Err(mistake(rest, &shown(why.unwrap_or(&said).trim().as_bytes())))
}

fn mistake(rest: &Rest, why: &str) -> PrekError {
    let why = why.strip_prefix("error: ").unwrap_or(why);
    PrekError::Config(format!("{} has a mistake, so its hooks cannot run: {why}", rest.name))
}

fn ended(state: &Path, command: &mut Command) -> Result<Output, PrekError> {
    command.stdin(Stdio::null()).output().map_err(|why| PrekError::Run {
        program: program(state),
        why,
    })
}

/// Refuses hooks that something is missing for. prek would fetch it, and where it cannot it says how that failed, which is no
/// word for who only checks.
fn is_ready(state: &Path, root: &Path, rest: &Rest) -> Result<(), PrekError> {
    let Err(Unready { status, said }) = prepared(state, root, rest, Network::KeptFrom)? else {
        return Ok(());
    };
    valid(state, root, rest)?;
    if said.contains(NO_SUCH_HOOK) {
        return Err(mistake(rest, &said));
    }
    let mut lacking = Vec::new();
    for one in hooks::needing_environments(rest).into_iter().take(MOST_ASKED) {
        if prepared(state, root, &one, Network::KeptFrom)?.is_err() {
            lacking.extend(one.ids);
        }
    }
    if lacking.is_empty() {
        return Err(PrekError::Broken { status, said });
    }
    lacking.dedup();
    Err(PrekError::Unprepared {
        hooks: lacking.join(", "),
    })
}

/// Hooks that run beside the native rules.
pub struct Running {
    child: Child,
    program: PathBuf,
    _config: Config,
}

/// Starts hooks on these files. They are named one by one: asked for what is staged, prek would set aside what is not.
///
/// # Errors
/// It is not there, or cannot be started, or something that a hook needs is not there.
pub fn start(state: &Path, root: &Path, rest: &Rest, files: &[&[u8]]) -> Result<Running, PrekError> {
    let program = program(state);
    if !program.is_file() {
        return Err(PrekError::Missing {
            hooks: rest.ids.join(", "),
        });
    }
    let failed = |why| PrekError::Run {
        program: program.clone(),
        why,
    };
    is_ready(state, root, rest)?;
    let config = Config::write(state, rest)?;
    let mut command = Command::new(&program);
    command
        .current_dir(root)
        .arg("run")
        .arg("-c")
        .arg(&config.0)
        .args(["--color", "never", "--no-progress", "--files0-from", "-"])
        .envs(OFFLINE)
        // `SKIP=…` would pass what is asked for.
        .env_remove("SKIP")
        .env_remove("PREK_SKIP")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        let list: Vec<u8> = files.iter().flat_map(|f| f.iter().copied().chain([0])).collect();
        // One that ended already says so by its status.
        let _ = stdin.write_all(&list);
    }
    Ok(Running {
        child,
        program,
        _config: config,
    })
}

impl Running {
    /// Waits for the end. `alone` says how a hook is run by itself.
    ///
    /// # Errors
    /// It broke; that is no pass.
    pub fn findings(self, level: Level, alone: impl Fn(&str) -> String) -> Result<Vec<Finding>, PrekError> {
        let Self {
            child,
            program,
            _config,
        } = self;
        let output = child
            .wait_with_output()
            .map_err(|why| PrekError::Run { program, why })?;
        let printed = &output.stdout[..output.stdout.len().min(MOST_OUTPUT_BYTES)];
        let failed = hooks::failed(&String::from_utf8_lossy(printed)).into_iter();
        let findings: Vec<Finding> = failed
            .map(|failed| {
                let fix = alone(&failed.id);
                failed.finding(level, fix)
            })
            .collect();
        match output.status.code() {
            Some(0) => Ok(Vec::new()),
            // One without a hook that failed is none that we understand.
            Some(1) if !findings.is_empty() => Ok(findings),
            Some(_) | None => Err(PrekError::Broken {
                status: output.status,
                said: said(if output.stderr.is_empty() {
                    &output.stdout
                } else {
                    &output.stderr
                }),
            }),
        }
    }
}

/// prek's words in a line: what it tried, and the last of what came of that.
fn said(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let mut lines: Vec<String> = text
        .lines()
        .map(str::trim)
        // How it sets out the output of what it started.
        .filter(|line| !line.is_empty() && !line.starts_with('[') && !line.starts_with("exit status: "))
        .map(|line| line.strip_prefix("caused by: ").unwrap_or(line))
        .map(|line| shown(line.strip_prefix("error: ").unwrap_or(line).as_bytes()))
        .collect();
    let [first, last] = MOST_SAID;
    if lines.len() > first + last {
        lines.drain(first..lines.len() - last);
    }
    if lines.is_empty() {
        return "it said nothing".to_owned();
    }
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// `hooks install` is the first command of many; a state directory that is open to others is none for the second.
    #[test]
    fn a_state_directory_that_is_made_for_prek_is_closed_to_others() {
        let place = tempfile::tempdir().expect("a directory");
        let state = place.path().join("state");
        let rest = Rest {
            name: "c".to_owned(),
            config: serde_json::json!({}),
            ids: Vec::new(),
        };
        let config = Config::write(&state, &rest).expect("written");
        assert!(config.0.is_file());
        let mode = std::fs::metadata(&state).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn of_what_prek_says_is_kept_what_it_tried_and_what_came_of_it() {
        let clone = "error: Failed to init hooks\n  caused by: Failed to clone repo `r`\n  caused by: Command `git checkout v2` exited with \
                     an error:\n\n[status]\nexit status: 1\n\n[stderr]\nerror: pathspec 'v2' did not match\n\n";
        for (words, expected) in [
            (
                clone,
                "Failed to init hooks | Failed to clone repo `r` | Command `git checkout v2` exited with an error: | pathspec 'v2' did not match",
            ),
            ("1\n2\n3\n4\n5\n6\n\x1b[31m7\n", "1 | 2 | 5 | 6 | \\u{1b}[31m7"),
            ("\n", "it said nothing"),
        ] {
            assert_eq!(said(words.as_bytes()), expected);
        }
    }
}

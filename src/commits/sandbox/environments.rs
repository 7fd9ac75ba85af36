//! What hooks are installed for, before any of them runs: in a sandbox that has the network and nothing of the commit, into a
//! directory that later runs only read. It is kept by what it was made from, and made once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::bubblewrap::{Mount, Network, PREK_HOME, Room, Sandbox, WORK};
use crate::commits::finding::shown;
use crate::commits::prek;
use crate::home::make_private;
use crate::model::values::Digest;
use crate::process::{Bounds, ProcessError};
use crate::settings;
use crate::store::random_id;

/// Compiling a hook that is written in Rust or Haskell takes minutes on two cores.
const DEADLINE: Duration = Duration::from_mins(15);
/// Words of installers; the last of them say what went wrong.
const OUTPUT_BYTES: usize = 64 << 10;
/// Environments kept, the most lately made; each has some 10 to 200 MB.
const KEEP: usize = 50;
/// What prek keeps there that a run reads.
const PARTS: [&str; 4] = ["repos", "hooks", "tools", "cache"];
/// How this machine reaches others: names, and whom it trusts.
const NETWORK: [&str; 6] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl",
    "/etc/ca-certificates",
    "/etc/pki",
];

/// Why a hook has no environment.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// What installs it failed.
    #[error("the hook {hook} cannot be installed: {said}")]
    Install {
        /// Which.
        hook: String,
        /// The last words.
        said: String,
    },
    /// It took too long, or could not begin.
    #[error("the hook {hook} cannot be installed: {why}")]
    Process {
        /// Which.
        hook: String,
        /// What happened.
        why: ProcessError,
    },
    /// The disk.
    #[error("cannot make room for the hook {hook} at {path}: {why}")]
    Place {
        /// Which.
        hook: String,
        /// Where.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
}

/// What is needed to install one hook.
pub struct Wanted<'a> {
    /// Its id, for messages.
    pub hook: &'a str,
    /// The configuration that has it alone.
    pub config: &'a Json,
    /// The same as a file.
    pub config_file: &'a Path,
    /// What every sandbox has of ours.
    pub common: &'a [Mount],
}

/// Where the environment of a hook is, made now if it is not there yet.
///
/// # Errors
/// It cannot be made.
pub async fn ready(sandbox: &Sandbox, state: &Path, wanted: &Wanted<'_>) -> Result<PathBuf, EnvironmentError> {
    let all = state.join("hooks");
    let place = all.join(key(wanted.config).hex());
    if place.is_dir() {
        return Ok(place);
    }
    let half = all.join(format!("making-{}", random_id()));
    let failed = |path: &Path| {
        let (hook, path) = (wanted.hook.to_owned(), path.display().to_string());
        move |why: std::io::Error| EnvironmentError::Place { hook, path, why }
    };
    make_private(&all).map_err(failed(&all))?;
    std::fs::create_dir(&half).map_err(failed(&half))?;
    let made = make(sandbox, &half, wanted).await;
    // Whole before it has its name: another process may have been quicker, which is as well.
    let made = made.and_then(|()| match std::fs::rename(&half, &place) {
        Err(_) if place.is_dir() => Ok(()),
        named => named.map_err(failed(&place)),
    });
    // What is half is of no use.
    let _ = std::fs::remove_dir_all(&half);
    made?;
    forget_oldest(&all, &place);
    Ok(place)
}

async fn make(sandbox: &Sandbox, half: &Path, wanted: &Wanted<'_>) -> Result<(), EnvironmentError> {
    let Wanted {
        hook,
        config_file,
        common,
        ..
    } = wanted;
    if let Some(owner) = sandbox.owner() {
        std::os::unix::fs::chown(half, Some(owner), Some(owner)).map_err(|why| EnvironmentError::Place {
            hook: (*hook).to_owned(),
            path: half.display().to_string(),
            why,
        })?;
    }
    let mut mounts = common.to_vec();
    mounts.push(Mount::read_only(*config_file, CONFIG));
    mounts.push(Mount::Writable {
        from: half.to_owned(),
        to: PREK_HOME.into(),
    });
    let there = NETWORK.iter().filter(|path| Path::new(path).exists());
    mounts.extend(there.map(|path| Mount::read_only(path, path)));
    let variables: Vec<(String, String)> = settings::package_tools().collect();
    // A certificate or a file of settings that one of them names.
    let named = variables.iter().map(|(_, value)| value).filter(|value| {
        let path = Path::new(value);
        path.is_absolute() && path.is_file()
    });
    mounts.extend(named.map(|path| Mount::read_only(path, path)));
    let room = Room {
        mounts,
        variables,
        network: Network::Shared,
    };
    let script = format!(
        "umask 022 && git init -q {WORK} && exec /run/prek prepare-hooks -c {CONFIG} --color never --no-progress --log-file /tmp/log 2>&1"
    );
    let bounds = Bounds {
        deadline: DEADLINE,
        output_bytes: OUTPUT_BYTES,
    };
    let said = sandbox.run(&room, ["sh", "-c", &script], bounds).await;
    let said = said.map_err(|why| EnvironmentError::Process {
        hook: (*hook).to_owned(),
        why,
    })?;
    if said.status.success() {
        return Ok(());
    }
    Err(EnvironmentError::Install {
        hook: (*hook).to_owned(),
        said: last_words(&said.stdout),
    })
}

/// Where the configuration of the one hook is, inside.
pub(super) const CONFIG: &str = "/run/hook.yaml";

/// What a run mounts of an environment.
pub(super) fn mounts(place: &Path) -> Vec<Mount> {
    let mut mounts = vec![Mount::Empty { to: PREK_HOME.into() }];
    for part in PARTS {
        let from = place.join(part);
        if from.is_dir() {
            mounts.push(Mount::ReadOnly {
                from,
                to: OsString::from(format!("{PREK_HOME}/{part}")),
            });
        }
    }
    mounts
}

/// By what it is made from: the repository, the revision, and what is installed beside.
fn key(config: &Json) -> Digest {
    let repo = &config["repos"][0];
    let hook = &repo["hooks"][0];
    let made_from = json!([
        prek::VERSION,
        repo["repo"],
        repo["rev"],
        hook["id"],
        hook["language"],
        hook["language_version"],
        hook["additional_dependencies"],
        config["default_language_version"],
    ]);
    Digest::of(made_from.to_string().as_bytes())
}

/// The last lines of what was said, for people.
pub(super) fn last_words(said: &[u8]) -> String {
    /// As many as a finding carries.
    const LINES: usize = 4;
    let text = String::from_utf8_lossy(said);
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| shown(line.trim().as_bytes()))
        .collect();
    if lines.is_empty() {
        return "it said nothing".to_owned();
    }
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}

/// Keeps so many environments, and this one. One that a run in another process uses goes, too, and that run is not proven.
fn forget_oldest(all: &Path, but: &Path) {
    let Ok(entries) = std::fs::read_dir(all) else { return };
    let mut made: Vec<_> = entries
        .flatten()
        .filter(|e| e.path() != but)
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    made.sort();
    for (_, path) in made.iter().rev().skip(KEEP) {
        // What cannot be removed now is the next time.
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_another_where_it_is_made_from_something_else() {
        let config = |rev: &str, deps: Json, files: &str| json!({"repos": [{"repo": "https://example.org/x", "rev": rev, "hooks": [{"id": "a", "additional_dependencies": deps, "files": files}]}]});
        let one = key(&config("1", json!(["x"]), "a"));
        assert_eq!(
            one,
            key(&config("1", json!(["x"]), "b")),
            "what it looks at is no matter"
        );
        assert_ne!(one, key(&config("2", json!(["x"]), "a")));
        assert_ne!(one, key(&config("1", json!(["y"]), "a")));
    }

    #[test]
    fn the_last_words_are_safe_to_show() {
        let said = b"1\n2\n\n3\n4\n\x1b[31m5\n";
        assert_eq!(last_words(said), "2 | 3 | 4 | \\u{1b}[31m5");
        assert_eq!(last_words(b"\n"), "it said nothing");
    }
}

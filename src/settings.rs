//! Every environment variable that Stagegate reads, in one place.

use std::env;
use std::path::PathBuf;

/// Where everything is kept that must survive: state file, nodes of this machine, prepared builds, evidence. A directory
/// of its own, made with mode 0700; not on a network file system.
pub const STATE: &str = "STAGEGATE_STATE";
/// The directory with `environments/`, `pipelines/`, `templates/` and `hooks/`.
pub const WORKSPACE: &str = "STAGEGATE_WORKSPACE";
/// Added to every port of the nodes on this machine, so that two replicas live side by side.
pub const PORT_SHIFT: &str = "STAGEGATE_PORT_SHIFT";
/// What goes into the log on standard error, as `tracing` filters are written (`stagegate=debug`).
pub const LOG: &str = "STAGEGATE_LOG";
/// Where `stagegate serve` answers /healthz.
pub const LISTEN: &str = "STAGEGATE_LISTEN";
/// Who asks, in reports; the login name unless set.
pub const USER: &str = "STAGEGATE_USER";

/// The state directory: as [`STATE`] says, else `/var/lib/stagegate` for root and `~/.local/state/stagegate` for others.
#[must_use]
pub fn state_directory() -> PathBuf {
    if let Some(set) = non_empty(STATE) {
        return PathBuf::from(set);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/stagegate");
    }
    let below = non_empty("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| non_empty("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    below.unwrap_or_else(|| PathBuf::from(".")).join("stagegate")
}

/// The workspace: as [`WORKSPACE`] says, else the working directory.
#[must_use]
pub fn workspace() -> PathBuf {
    non_empty(WORKSPACE).map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// Who asks.
#[must_use]
pub fn user() -> String {
    [USER, "SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(non_empty)
        .unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}

/// Whether messages may be coloured: on a terminal, unless `NO_COLOR` has a value (no-color.org).
#[must_use]
pub fn colours_on_stderr() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && non_empty("NO_COLOR").is_none()
}

/// A number from the environment.
///
/// # Errors
/// A text that is no number from 0 to 65535.
pub fn port_shift() -> Result<u16, String> {
    match non_empty(PORT_SHIFT) {
        None => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{PORT_SHIFT} is `{text}`; it must be a number of ports from 0 to 65535, as 1000")),
    }
}

fn non_empty(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

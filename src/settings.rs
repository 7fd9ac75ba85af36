//! Every environment variable that Stagegate reads, in one place; but for those that an environment's file names as a
//! secret's source, and what a script on this machine finds of ours (`hosts::local`).

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
/// The SSH key that signs what its owner says of promotions.
pub const KEY: &str = "STAGEGATE_KEY";

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

/// The SSH key that signs: as [`KEY`] says, else one of those that ssh(1) has by default; and where it was looked for.
///
/// # Errors
/// Those places, where there is none.
pub fn key() -> Result<PathBuf, Vec<PathBuf>> {
    if let Some(set) = non_empty(KEY) {
        return Ok(PathBuf::from(set));
    }
    let home = non_empty("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let usual = ["id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa"];
    let tried: Vec<PathBuf> = usual.iter().map(|name| home.join(".ssh").join(name)).collect();
    tried.iter().find(|key| key.is_file()).cloned().ok_or(tried)
}

/// Who asks: as [`USER`] says, else the login name; of who became root by sudo, their own.
#[must_use]
pub fn user() -> String {
    let uid = rustix::process::getuid().as_raw();
    [USER, "SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(non_empty)
        .or_else(|| login_name(&std::fs::read_to_string("/etc/passwd").unwrap_or_default(), uid))
        .unwrap_or_else(|| format!("uid-{uid}"))
}

/// Services and containers start without the variables that a login sets (passwd(5): name, password, uid, …).
fn login_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
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

/// Settings of package tools and proxies, which say how this machine reaches its package index: what preparing a build is
/// told of our own environment, and nothing else is.
pub fn package_tools() -> impl Iterator<Item = (String, String)> {
    const NAMES: [&str; 6] = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CARGO_HOME",
    ];
    env::vars()
        .filter(|(name, _)| name.starts_with("PIP_") || NAMES.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// The program search path, which package tools need too.
#[must_use]
pub fn path() -> Option<std::ffi::OsString> {
    env::var_os("PATH")
}

/// What is logged: as [`LOG`] says, else warnings of ours.
#[must_use]
pub fn log_filter() -> String {
    non_empty(LOG).unwrap_or_else(|| "stagegate=warn".to_owned())
}

fn non_empty(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::login_name;

    #[test]
    fn a_user_without_variables_is_named_by_the_machine() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nshift:x:1001:1001::/home/shift:/bin/sh\n";
        assert_eq!(login_name(passwd, 1001).as_deref(), Some("shift"));
        assert_eq!(login_name(passwd, 7), None);
    }
}

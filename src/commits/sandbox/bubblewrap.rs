//! A sandbox of Linux namespaces, made by bubblewrap: no network, no home, no secrets, nothing that can be written but memory
//! that goes away, and an end that nothing survives.
//!
//! As root the sandbox's processes run as a user who owns nothing, without user namespaces, so that it also works where those
//! are closed to users; as anybody else they run in a user namespace and may not make another. docs/decisions/0010.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::process::{self, Bounds, ProcessError, Said};
use crate::settings;
use crate::store::random_id;

/// The user whose processes run inside: a number that no distribution gives to anybody, so that it owns no file.
const USER: u32 = 61_999;
/// As root every sandbox has a user of its own, since a user's processes are counted over all sandboxes: a fork bomb in one
/// would end what runs in the others (seen). systemd leaves the numbers from 1879048192 on to nobody.
const FIRST_USER: u32 = 1_900_000_000;
/// How many of them there are.
const USERS: u32 = 1 << 16;
/// Processes and threads: a linter starts a thread a core, prek itself a dozen. A fork bomb ends here.
const MOST_PROCESSES: u32 = 256;
/// Bytes that a process may have of its own: a type checker of a large repository takes half of it. The address space is not
/// bounded, since some runtimes reserve more than any machine has.
const MOST_MEMORY_BYTES: u64 = 1 << 30;
/// The largest file that can be written.
const MOST_FILE_BYTES: u64 = 128 << 20;
/// Processor time of one process; the deadline ends what waits.
const MOST_CPU_S: u64 = 600;
/// Open files: the usual soft limit.
const MOST_OPEN_FILES: u64 = 1_024;
/// The work tree, of which [`super::checkout`] may fill half. It is memory.
pub const WORK_BYTES: u64 = 512 << 20;
/// `/tmp`.
const TMP_BYTES: u64 = 256 << 20;
/// `/dev/shm` and prek's own notes.
const SMALL_BYTES: u64 = 16 << 20;
/// Making an empty sandbox takes 10 ms; a machine under load some 100.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// Words of a sandbox that cannot be had.
const PROBE_OUTPUT_BYTES: usize = 4 << 10;

/// Where the work tree is, inside.
pub const WORK: &str = "/work";
/// Where prek finds its environments, inside: the same when they are made and when they are used, for they hold it.
pub const PREK_HOME: &str = "/run/hooks";

/// Why nothing ran in a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Not installed.
    #[error("hooks run in a sandbox, and bwrap is not here; `apt-get install bubblewrap` installs it")]
    Missing,
    /// The machine does not let it be made.
    #[error(
        "no sandbox can be made on this machine ({said}); let this user make namespaces (on Ubuntu an AppArmor profile for \
         bwrap, in a container the capability CAP_SYS_ADMIN), or run `stagegate serve` as root"
    )]
    Refused {
        /// What bwrap said.
        said: String,
    },
    /// It did not come to its end.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Whether the network is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It is not, not even the machine's own addresses.
    None,
    /// It is, for what has to be fetched.
    Shared,
}

/// What of the machine is seen inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Is there, and cannot be changed.
    ReadOnly {
        /// On the machine.
        from: PathBuf,
        /// Inside.
        to: OsString,
    },
    /// Is there, and what is changed stays.
    Writable {
        /// On the machine.
        from: PathBuf,
        /// Inside.
        to: OsString,
    },
    /// An empty directory in memory.
    Empty {
        /// Inside.
        to: OsString,
    },
}

impl Mount {
    /// A mount that cannot be changed.
    pub fn read_only(from: impl Into<PathBuf>, to: impl Into<OsString>) -> Self {
        Self::ReadOnly {
            from: from.into(),
            to: to.into(),
        }
    }
}

/// What one program in a sandbox has around it.
#[derive(Debug, Clone)]
pub struct Room {
    /// Beside the machine's programs.
    pub mounts: Vec<Mount>,
    /// Variables; there are no others but `PATH`, `HOME` and a few that say where things are.
    pub variables: Vec<(String, String)>,
    /// Whether it reaches anybody.
    pub network: Network,
}

/// Who makes sandboxes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Root,
    Other,
}

/// A sandbox that can be had.
#[derive(Debug, Clone)]
pub struct Sandbox {
    maker: Maker,
    user: u32,
}

impl Sandbox {
    /// Looks whether a sandbox can be had, by making one.
    ///
    /// # Errors
    /// It cannot: nothing may be taken for proven.
    pub async fn find() -> Result<Self, SandboxError> {
        let maker = if rustix::process::geteuid().is_root() {
            Maker::Root
        } else {
            Maker::Other
        };
        let user = match maker {
            Maker::Root => own_user(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()),
            Maker::Other => USER,
        };
        let sandbox = Self { maker, user };
        let room = Room {
            mounts: Vec::new(),
            variables: Vec::new(),
            network: Network::None,
        };
        let bounds = Bounds {
            deadline: PROBE_DEADLINE,
            output_bytes: PROBE_OUTPUT_BYTES,
        };
        match sandbox.run(&room, ["true"], bounds).await {
            Ok(said) if said.status.success() => Ok(sandbox),
            Ok(said) => {
                let text = String::from_utf8_lossy(&said.stderr);
                let words = text.lines().find(|line| !line.trim().is_empty());
                Err(SandboxError::Refused {
                    said: crate::commits::finding::plain(words.unwrap_or("bwrap said nothing")),
                })
            }
            Err(ProcessError::System { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(SandboxError::Missing)
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Who runs inside, by number.
    #[must_use]
    pub fn user(&self) -> u32 {
        self.user
    }

    /// Who owns what is written inside, where that is not who we are.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        match self.maker {
            Maker::Root => Some(self.user),
            Maker::Other => None,
        }
    }

    /// Runs a program inside. What it says beyond the bound is left out in the middle.
    ///
    /// It must be awaited on the thread that goes on living: bwrap ends everything when the thread that began it ends.
    ///
    /// # Errors
    /// It cannot be started, or takes too long; then nothing of it is left.
    pub async fn run<W: AsRef<OsStr>>(
        &self,
        room: &Room,
        words: impl IntoIterator<Item = W>,
        bounds: Bounds,
    ) -> Result<Said, ProcessError> {
        let mut command = Command::new("bwrap");
        // The first process inside is bwrap, and what it was started with can be read in its /proc/1/environ.
        command.env_clear();
        if let Some(path) = settings::path() {
            command.env("PATH", path);
        }
        command.args(self.arguments(room));
        command.args(words);
        process::run_keeping_ends(command, bounds).await
    }

    fn arguments(&self, room: &Room) -> Vec<OsString> {
        let mut list = Arguments(Vec::new());
        let user = self.user;
        match room.network {
            Network::None => list.words("--unshare-net"),
            Network::Shared => {}
        }
        list.words("--unshare-ipc --unshare-pid --unshare-uts --unshare-cgroup-try");
        list.words("--die-with-parent --new-session --clearenv --hostname sandbox");
        match self.maker {
            // What drops the rest of root is `setpriv`, below.
            Maker::Root => list.words("--cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID --cap-add CAP_SETPCAP"),
            Maker::Other => list.words(&format!("--unshare-user --disable-userns --uid {user} --gid {user}")),
        }
        list.words("--ro-bind /usr /usr");
        for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
            list.system_directory(name);
        }
        list.words("--perms 0755 --dir /etc --perms 0755 --dir /run --proc /proc --dev /dev");
        for (place, bytes) in [("/tmp", TMP_BYTES), ("/dev/shm", SMALL_BYTES), (WORK, WORK_BYTES)] {
            list.memory(place, bytes);
        }
        // What Debian's programs look up there by design: links to the chosen ones, and where libraries are.
        for place in ["/etc/alternatives", "/etc/ld.so.cache"] {
            list.words(&format!("--ro-bind-try {place} {place}"));
        }
        for mount in &room.mounts {
            match mount {
                Mount::ReadOnly { from, to } => list.bind("--ro-bind", from, to),
                Mount::Writable { from, to } => list.bind("--bind", from, to),
                Mount::Empty { to } => list.memory(to, SMALL_BYTES),
            }
        }
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/tmp"),
            ("LC_ALL", "C.UTF-8"),
            ("PREK_HOME", PREK_HOME),
        ]
        .into_iter()
        .chain(room.variables.iter().map(|(n, v)| (n.as_str(), v.as_str())))
        {
            list.0.extend(["--setenv".into(), name.into(), value.into()]);
        }
        list.words(&format!("--remount-ro / --chdir {WORK} --"));
        if self.maker == Maker::Root {
            list.words(&format!(
                "setpriv --reuid={user} --regid={user} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
            ));
        }
        list.words(&format!(
            "prlimit --nproc={MOST_PROCESSES} --data={MOST_MEMORY_BYTES} --fsize={MOST_FILE_BYTES} --cpu={MOST_CPU_S} \
             --nofile={MOST_OPEN_FILES} --core=0"
        ));
        // Where memory runs out, the machine ends a hook rather than a service.
        list.words("choom -n 1000 --");
        list.0
    }
}

/// A user for one sandbox; where a container has no such numbers (`uid_map`, `user_namespaces(7)`), the one for all.
fn own_user(uid_map: &str) -> u32 {
    let covers = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        first <= u64::from(FIRST_USER) && u64::from(FIRST_USER + USERS) <= first + count
    };
    if !uid_map.lines().any(covers) {
        return USER;
    }
    let random = u32::from_str_radix(&random_id()[..8], 16).unwrap_or_default();
    FIRST_USER + random % USERS
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn words(&mut self, text: &str) {
        self.0.extend(text.split_ascii_whitespace().map(OsString::from));
    }

    fn bind(&mut self, how: &str, from: &Path, to: &OsStr) {
        self.0.extend([how.into(), from.into(), to.into()]);
    }

    fn memory(&mut self, place: impl AsRef<OsStr>, bytes: u64) {
        self.words(&format!("--perms 1777 --size {bytes} --tmpfs"));
        self.0.push(place.as_ref().to_owned());
    }

    /// `/bin` and its like: a link into `/usr` on today's systems, a directory of its own on older ones.
    fn system_directory(&mut self, name: &str) {
        let place = format!("/{name}");
        match std::fs::read_link(&place) {
            Ok(target) => self.0.extend(["--symlink".into(), target.into(), place.into()]),
            Err(_) => self.words(&format!("--ro-bind-try {place} {place}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(maker: Maker, network: Network) -> String {
        let room = Room {
            mounts: vec![Mount::read_only("/a b", "/in side")],
            variables: vec![("ONE".to_owned(), "1 2".to_owned())],
            network,
        };
        let words = Sandbox { maker, user: USER }.arguments(&room);
        let words: Vec<_> = words.iter().map(|w| w.to_string_lossy().replace(' ', "_")).collect();
        words.join(" ")
    }

    #[test]
    fn what_must_not_be_missing_is_there_whoever_asks() {
        for maker in [Maker::Root, Maker::Other] {
            let said = line(maker, Network::None);
            for part in [
                "--unshare-net",
                "--unshare-pid",
                "--unshare-ipc",
                "--die-with-parent",
                "--new-session",
                "--clearenv",
                "--remount-ro /",
                "--nproc=",
                "--fsize=",
                "--ro-bind /a_b /in_side",
                "--setenv ONE 1_2",
            ] {
                assert!(said.contains(part), "{maker:?}: {part}: {said}");
            }
            assert!(!said.contains(" --bind "), "{said}");
            assert!(!line(maker, Network::Shared).contains("--unshare-net"));
        }
        assert_eq!(own_user("         0     100000      65536\n"), USER);
        assert!((FIRST_USER..FIRST_USER + USERS).contains(&own_user("0 0 4294967295\n")));
        assert!(line(Maker::Root, Network::None).contains("setpriv --reuid=61999"));
        assert!(line(Maker::Other, Network::None).contains("--unshare-user --disable-userns"));
    }
}

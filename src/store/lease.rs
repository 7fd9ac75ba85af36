//! Who drives an environment. One holder at a time, and a counter that only rises: it goes with every change to a node,
//! which refuses an older one, so that even a driver that woke from a long sleep harms nothing (I2).

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A driver, told apart from every other process that ever ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Who started it.
    pub user: String,
    /// The machine's name.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since the boot: process ids are used again, this pair is not.
    pub start_ticks: u64,
    /// The boot that it runs in.
    pub boot_id: String,
    /// The pid namespace that its process id is of: in another container the same number is another process.
    #[serde(default)]
    pub pid_namespace: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, pid, .. } = self;
        write!(f, "{user}@{host} (pid {pid})")
    }
}

impl Holder {
    /// This process, started by this user. Errors when /proc cannot be read.
    pub fn current(user: String) -> std::io::Result<Self> {
        let here = Here::look()?;
        let pid = std::process::id();
        let start_ticks = start_ticks(pid)
            .ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat does not name our start time")))?;
        let Here {
            host,
            boot_id,
            pid_namespace,
        } = here;
        Ok(Self {
            user,
            host,
            pid,
            start_ticks,
            boot_id,
            pid_namespace,
        })
    }
}

/// Whether a holder lives, as far as one can tell from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It does: it keeps its lease, however long it takes.
    Alive,
    /// It does not: it loses its lease at once.
    Dead,
    /// It cannot be seen from here: its lease ends with its time to live.
    Unknown,
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Rises with every change of holder, survives release.
    pub counter: u64,
    /// Who has it; `None` when it is free.
    pub holder: Option<Holder>,
    /// When the present or last holder took it.
    pub acquired_at: Timestamp,
    /// When that holder last said that it lives.
    pub renewed_at: Timestamp,
    /// How long after that it may be taken from a holder that cannot be seen.
    pub ttl: Duration,
}

impl Lease {
    /// Who has it now: nobody when its holder is gone, or cannot be seen and has said nothing for its time to live.
    pub fn living(&self, now: Timestamp, judge: &dyn Fn(&Holder) -> Liveness) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| !self.is_lost(now, judge(holder)))
    }

    fn is_lost(&self, now: Timestamp, liveness: Liveness) -> bool {
        match liveness {
            Liveness::Alive => false,
            Liveness::Dead => true,
            Liveness::Unknown => {
                let ttl = SignedDuration::try_from(self.ttl).unwrap_or(SignedDuration::MAX);
                now.duration_since(self.renewed_at) > ttl
            }
        }
    }
}

/// What becomes of a wish to have the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseDecision {
    /// It is yours, with this counter.
    Take {
        /// The new counter.
        counter: u64,
    },
    /// Another has it.
    Held {
        /// Who.
        by: Holder,
        /// Since when.
        since: Timestamp,
    },
}

/// Decides about a lease. Pure: what is stored, who asks, the time, and whether the stored holder lives.
///
/// The same process asking again gets a higher counter, which fences what it did under the old one: a task of it may
/// have failed without giving the lease back.
#[must_use]
pub fn evaluate(current: Option<&Lease>, me: &Holder, now: Timestamp, liveness: Liveness) -> LeaseDecision {
    let Some(lease) = current else {
        return LeaseDecision::Take { counter: 1 };
    };
    let take = LeaseDecision::Take {
        counter: lease.counter + 1,
    };
    let Some(holder) = &lease.holder else {
        return take;
    };
    if holder == me || lease.is_lost(now, liveness) {
        take
    } else {
        LeaseDecision::Held {
            by: holder.clone(),
            since: lease.acquired_at,
        }
    }
}

/// Whether a holder lives, from what /proc of this machine shows.
#[must_use]
pub fn local_liveness(holder: &Holder) -> Liveness {
    match Here::look() {
        Ok(here) => judge(holder, &here, || start_ticks(holder.pid)),
        Err(_) => Liveness::Unknown,
    }
}

/// Where we stand, to tell whether a holder's process id means anything here.
struct Here {
    host: String,
    boot_id: String,
    pid_namespace: String,
}

impl Here {
    fn look() -> std::io::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let pid_namespace = std::fs::read_link("/proc/self/ns/pid")?;
        Ok(Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot_id: boot_id.trim().to_owned(),
            pid_namespace: pid_namespace.to_string_lossy().into_owned(),
        })
    }
}

fn judge(holder: &Holder, here: &Here, start_ticks: impl FnOnce() -> Option<u64>) -> Liveness {
    if holder.boot_id == here.boot_id {
        if holder.pid_namespace != here.pid_namespace {
            return Liveness::Unknown;
        }
        return match start_ticks() {
            Some(ticks) if ticks == holder.start_ticks => Liveness::Alive,
            Some(_) | None => Liveness::Dead,
        };
    }
    if holder.host == here.host {
        // This machine was booted since.
        Liveness::Dead
    } else {
        Liveness::Unknown
    }
}

/// When a living process started; `None` when there is none, or when only its exit status is left to be collected.
fn start_ticks(pid: u32) -> Option<u64> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `proc_pid_stat(5)`: the name is in parentheses and may contain anything; state is field 3, starttime field 22.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(pid: u32) -> Holder {
        Holder {
            user: "shifter".into(),
            host: "here".into(),
            pid,
            start_ticks: 100,
            boot_id: "boot-1".into(),
            pid_namespace: "pid:[1]".into(),
        }
    }

    fn lease(counter: u64, renewed_s: i64, ttl_s: u64) -> Lease {
        Lease {
            counter,
            holder: Some(holder(1)),
            acquired_at: Timestamp::UNIX_EPOCH,
            renewed_at: Timestamp::from_second(renewed_s).expect("in range"),
            ttl: Duration::from_secs(ttl_s),
        }
    }

    fn takes(decision: &LeaseDecision) -> bool {
        matches!(decision, LeaseDecision::Take { .. })
    }

    proptest! {
        #[test]
        fn a_living_holder_keeps_its_lease_at_any_time(renewed in 0..1_000_000_i64, now in 0..1_000_000_i64, ttl in 0..10_000_u64) {
            let now = Timestamp::from_second(now).expect("in range");
            let decision = evaluate(Some(&lease(5, renewed, ttl)), &holder(2), now, Liveness::Alive);
            prop_assert!(!takes(&decision));
        }

        #[test]
        fn a_dead_holder_loses_it_at_once(renewed in 0..1_000_000_i64, now in 0..1_000_000_i64) {
            let now = Timestamp::from_second(now).expect("in range");
            let decision = evaluate(Some(&lease(5, renewed, 3600)), &holder(2), now, Liveness::Dead);
            prop_assert_eq!(decision, LeaseDecision::Take { counter: 6 });
        }

        #[test]
        fn an_unseen_holder_loses_it_after_its_time_to_live(renewed in 0..1_000_000_i64, age in -1000..1000_i64, ttl in 0..1000_u64) {
            let now = Timestamp::from_second(renewed + age).expect("in range");
            let decision = evaluate(Some(&lease(5, renewed, ttl)), &holder(2), now, Liveness::Unknown);
            prop_assert_eq!(takes(&decision), age > i64::try_from(ttl).expect("small"));
        }

        #[test]
        fn whoever_takes_it_has_a_higher_counter(counter in 0..u64::from(u32::MAX), free: bool, same: bool, dead: bool) {
            let mut current = lease(counter, 0, 10);
            if free { current.holder = None; }
            let me = holder(if same { 1 } else { 2 });
            let liveness = if dead { Liveness::Dead } else { Liveness::Alive };
            match evaluate(Some(&current), &me, Timestamp::UNIX_EPOCH, liveness) {
                LeaseDecision::Take { counter: new } => {
                    prop_assert!(free || same || dead);
                    prop_assert!(new > counter);
                }
                LeaseDecision::Held { by, .. } => {
                    prop_assert!(!free && !same && !dead);
                    prop_assert_eq!(by, holder(1));
                }
            }
        }
    }

    #[test]
    fn a_lease_has_a_holder_for_as_long_as_another_could_not_take_it() {
        let (held, late) = (lease(5, 0, 10), Timestamp::from_second(11).expect("in range"));
        for (liveness, now, lives) in [
            (Liveness::Alive, late, true),
            (Liveness::Dead, Timestamp::UNIX_EPOCH, false),
            (Liveness::Unknown, Timestamp::UNIX_EPOCH, true),
            (Liveness::Unknown, late, false),
        ] {
            assert_eq!(held.living(now, &|_| liveness).is_some(), lives, "{liveness:?}");
            assert_eq!(
                !takes(&evaluate(Some(&held), &holder(2), now, liveness)),
                lives,
                "{liveness:?}"
            );
        }
    }

    #[test]
    fn a_process_is_told_by_boot_pid_and_start_time() {
        let here = |boot: &str, host: &str, namespace: &str| Here {
            host: host.into(),
            boot_id: boot.into(),
            pid_namespace: namespace.into(),
        };
        for (here, ticks, expected, why) in [
            (
                here("boot-1", "here", "pid:[1]"),
                Some(100),
                Liveness::Alive,
                "the very process",
            ),
            (here("boot-1", "here", "pid:[1]"), None, Liveness::Dead, "gone"),
            (
                here("boot-1", "here", "pid:[1]"),
                Some(200),
                Liveness::Dead,
                "its pid was given to another",
            ),
            (
                here("boot-2", "here", "pid:[1]"),
                Some(100),
                Liveness::Dead,
                "the machine was booted",
            ),
            (
                here("boot-1", "renamed", "pid:[1]"),
                None,
                Liveness::Dead,
                "one boot is one machine",
            ),
            (
                here("boot-1", "here", "pid:[2]"),
                None,
                Liveness::Unknown,
                "another container",
            ),
            (
                here("boot-2", "there", "pid:[1]"),
                Some(100),
                Liveness::Unknown,
                "another machine",
            ),
        ] {
            assert_eq!(judge(&holder(1), &here, || ticks), expected, "{why}");
        }
    }

    #[test]
    fn a_process_name_cannot_forge_its_start_time() {
        let tail = "1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 174027 3133440 390";
        assert_eq!(parse_stat(&format!("7 (a) R 9 9) S {tail}")), Some(174_027));
        assert_eq!(parse_stat(&format!("7 (a) Z {tail}")), None, "a zombie drives nothing");
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn this_process_lives_and_a_collected_child_does_not() {
        let me = Holder::current("tester".to_owned()).expect("/proc");
        assert_eq!(local_liveness(&me), Liveness::Alive);

        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let theirs = Holder {
            pid: child.id(),
            start_ticks: start_ticks(child.id()).expect("it runs"),
            ..me
        };
        assert_eq!(local_liveness(&theirs), Liveness::Alive);
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert_eq!(local_liveness(&theirs), Liveness::Dead);
    }
}

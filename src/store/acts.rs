//! What of the changes that the store makes is an act, to be found in the audit for ever: said here, so that no caller can forget it.

use jiff::Timestamp;

use super::build::{BuildChange, Mark};
use crate::audit::Act;
use crate::model::upgrade::{Phase, UpgradeSpec, UpgradeStatus, Wish};

/// Who decides where no person does.
pub const ENGINE: &str = "stagegate";

fn of_upgrade(name: &str, spec: &UpgradeSpec, who: &str, what: &str, why: &str, at: Timestamp) -> Act {
    Act {
        at,
        who: who.to_owned(),
        what: what.to_owned(),
        of: format!("Upgrade/{name}"),
        environment: spec.environment.clone(),
        why: why.to_owned(),
        evidence: None,
    }
}

/// That an upgrade was begun.
#[must_use]
pub fn begun(name: &str, spec: &UpgradeSpec, at: Timestamp) -> Act {
    of_upgrade(name, spec, &spec.user, "UpgradeBegun", &spec.build, at)
}

/// What somebody wishes of an upgrade, in the words that tell of it.
#[must_use]
pub fn wished(name: &str, spec: &UpgradeSpec, by: &str, wish: Wish, told: &str, at: Timestamp) -> Act {
    let what = match wish {
        Wish::Proceed => "Proceed",
        Wish::Pause => "Pause",
        Wish::TimeUp => "TimeUp",
        Wish::Abort => "Abort",
    };
    of_upgrade(name, spec, by, &format!("{what}Asked"), told, at)
}

/// How an upgrade has ended, where this is its end.
#[must_use]
pub fn ended(name: &str, spec: &UpgradeSpec, before: Phase, status: &UpgradeStatus, at: Timestamp) -> Option<Act> {
    let is_end = !before.is_final() && status.phase.is_final();
    let why = format!("{}: {}", spec.build, status.message);
    is_end.then(|| of_upgrade(name, spec, ENGINE, &format!("{:?}", status.phase), &why, at))
}

/// A mark on a build.
#[must_use]
pub fn marked(change: &BuildChange) -> Act {
    let BuildChange { build, mark } = change;
    let (at, who, what, why, evidence) = match mark {
        Mark::Quarantine(it) => (it.at, ENGINE, "Quarantined", it.reason.as_str(), None),
        Mark::Verify(it) => (it.at, ENGINE, "Verified", "", Some(it.digest)),
        Mark::Release(it) => (it.at, it.user.as_str(), "QuarantineLifted", it.reason.as_str(), None),
    };
    Act {
        at,
        who: who.to_owned(),
        what: what.to_owned(),
        of: format!("Build/{build}"),
        environment: mark.environment().to_owned(),
        why: why.to_owned(),
        evidence,
    }
}

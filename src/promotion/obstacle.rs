//! What keeps a build out of a stage's environment (I4): looked for anew at every turn, from what is known then.
//!
//! Three things lead past a rule. A build that comes back is not one that enters: returning to what last succeeded somewhere waits for
//! no approval, no window and no freeze. A glass that two people broke passes over all but a quarantine, which has a release of its
//! own, and what cannot be done at all. And time passes over some.

use jiff::Timestamp;

use super::approvals::{Tally, Voice, Voices};
use super::calendar::{Cover, cover};
use crate::model::approval::Bound;
use crate::model::freeze::InFlight;
use crate::model::pipeline::{PipelineSpec, Stage, Take};
use crate::model::promotion::Waiting;
use crate::model::values::{Digest, Duration};

/// What is known of a build, its stage and the world when it is asked whether it may enter.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The build.
    pub build: Candidate,
    /// It comes back: it succeeded here last, or was replaced by what did.
    pub is_way_back: bool,
    /// Of each stage before this one.
    pub upstream: Vec<Upstream>,
    /// The freezes that hold the environment now.
    pub freezes: Vec<Frozen>,
    /// What was said of it.
    pub voices: Voices,
    /// What that has to be bound to.
    pub bound: Bound,
    /// Other builds that might enter here by themselves.
    pub others: Vec<Rival>,
    /// The upgrade that the environment is busy with, of another promotion or of none.
    pub busy: Option<Busy>,
}

/// The build that is to enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// What the environment asks of it and it lacks (`HooksPassed`).
    pub lacking: Option<Lack>,
    /// That it failed here and was not released since, in words.
    pub quarantined: Option<String>,
}

/// What a build lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// In words, with what to do.
    pub why: String,
    /// Whether it may be there at the next look: what cannot be seen now is no no.
    pub lasting: Lasting,
}

/// How a build stands in a stage before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The stage.
    pub stage: String,
    /// How long it has to have been verified there.
    pub soak: Option<Duration>,
    /// How it stands.
    pub verified: Verified,
}

/// Whether a build was verified somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// These very bytes were.
    At(Timestamp),
    /// Other bytes of its name were.
    Other(Digest),
    /// It was not.
    Never,
}

/// A freeze that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Until when, where an end is in sight.
    pub until: Option<Timestamp>,
    /// What becomes of what is under way.
    pub in_flight: InFlight,
}

/// Another build that might enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// When the last stage before had verified it.
    pub verified_at: Timestamp,
}

/// An upgrade that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Its name.
    pub upgrade: String,
    /// Its build.
    pub build: String,
}

/// Something that keeps a build out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It failed here.
    Quarantined {
        /// In words.
        why: String,
    },
    /// Somebody who may has rejected it.
    Rejected {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A stage before has not verified it.
    Unverified {
        /// The stage.
        stage: String,
        /// The bytes that it has verified under that name.
        other: Option<Digest>,
    },
    /// It lacks what the environment asks for.
    Lacking(Lack),
    /// The stage stays on another version.
    Pinned {
        /// Which.
        version: String,
        /// Why.
        reason: String,
    },
    /// The stage takes nothing.
    Held {
        /// Why.
        reason: String,
    },
    /// Nothing moves.
    Frozen(Frozen),
    /// The stage's windows are closed.
    Closed {
        /// When one opens.
        opens: Option<Timestamp>,
    },
    /// A stage before has not had it for long enough.
    Soaking {
        /// The stage.
        stage: String,
        /// When it has.
        until: Timestamp,
    },
    /// Nobody has proven that they ask for it, so nobody could be told from its author.
    Unasked,
    /// Too few have approved.
    Unapproved(Tally),
    /// Another build is in front of it.
    Behind {
        /// Which.
        build: String,
        /// Which is taken first.
        take: Take,
    },
    /// The environment has an unfinished upgrade.
    Busy(Busy),
}

/// What may lead past an obstacle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing but that it is no longer there.
    Nothing,
    /// That the build comes back, or that the glass is broken.
    ComingBackOrGlass,
}

/// Whether waiting may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// It does not: a promotion that meets it is refused, or ends.
    ForGood,
    /// It may: the promotion waits.
    ForAWhile,
}

impl Obstacle {
    /// One word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Obstacle::Quarantined { .. } => "Quarantined",
            Obstacle::Rejected { .. } => "Rejected",
            Obstacle::Unverified { .. } => "NotVerified",
            Obstacle::Lacking(_) => "Lacking",
            Obstacle::Pinned { .. } => "Pinned",
            Obstacle::Held { .. } => "Held",
            Obstacle::Frozen(_) => "Frozen",
            Obstacle::Closed { .. } => "OutsideWindow",
            Obstacle::Soaking { .. } => "Soaking",
            Obstacle::Unasked => "NotSigned",
            Obstacle::Unapproved(_) => "NotApproved",
            Obstacle::Behind { .. } => "Behind",
            Obstacle::Busy(_) => "Busy",
        }
    }

    /// What may lead past it.
    #[must_use]
    pub fn past(&self) -> Past {
        match self {
            Obstacle::Quarantined { .. } | Obstacle::Rejected { .. } | Obstacle::Busy(_) => Past::Nothing,
            Obstacle::Unverified { .. }
            | Obstacle::Lacking(_)
            | Obstacle::Pinned { .. }
            | Obstacle::Held { .. }
            | Obstacle::Frozen(_)
            | Obstacle::Closed { .. }
            | Obstacle::Soaking { .. }
            | Obstacle::Unasked
            | Obstacle::Unapproved(_)
            | Obstacle::Behind { .. } => Past::ComingBackOrGlass,
        }
    }

    /// Whether waiting may help.
    #[must_use]
    pub fn lasting(&self) -> Lasting {
        match self {
            Obstacle::Lacking(lack) => lack.lasting,
            Obstacle::Quarantined { .. }
            | Obstacle::Rejected { .. }
            | Obstacle::Unverified { .. }
            | Obstacle::Pinned { .. } => Lasting::ForGood,
            Obstacle::Held { .. }
            | Obstacle::Frozen(_)
            | Obstacle::Closed { .. }
            | Obstacle::Soaking { .. }
            | Obstacle::Unasked
            | Obstacle::Unapproved(_)
            | Obstacle::Behind { .. }
            | Obstacle::Busy(_) => Lasting::ForAWhile,
        }
    }

    /// When it is over by itself, where that is known.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Obstacle::Frozen(Frozen { until, .. }) => *until,
            Obstacle::Closed { opens } => *opens,
            Obstacle::Soaking { until, .. } => Some(*until),
            Obstacle::Quarantined { .. }
            | Obstacle::Rejected { .. }
            | Obstacle::Unverified { .. }
            | Obstacle::Lacking(_)
            | Obstacle::Pinned { .. }
            | Obstacle::Held { .. }
            | Obstacle::Unasked
            | Obstacle::Unapproved(_)
            | Obstacle::Behind { .. }
            | Obstacle::Busy(_) => None,
        }
    }

    /// As a status has it.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting {
            reason: self.reason().to_owned(),
            message: self.to_string(),
            until: self.until(),
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let until = |at: &Option<Timestamp>| at.map_or(String::new(), |at| format!(" until {at:.0}"));
        match self {
            Obstacle::Quarantined { why } | Obstacle::Lacking(Lack { why, .. }) => f.write_str(why),
            Obstacle::Rejected { by, reason } if reason.is_empty() => write!(f, "{by} has rejected it"),
            Obstacle::Rejected { by, reason } => write!(f, "{by} has rejected it: {reason}"),
            Obstacle::Unverified { stage, other: None } => write!(f, "stage {stage} has not verified it"),
            Obstacle::Unverified {
                stage,
                other: Some(other),
            } => write!(
                f,
                "stage {stage} has verified other bytes of that name ({})",
                other.short()
            ),
            Obstacle::Pinned { version, reason } => write!(f, "the stage is pinned to {version}: {reason}"),
            Obstacle::Held { reason } => write!(f, "the stage is held: {reason}"),
            Obstacle::Frozen(Frozen {
                name,
                reason,
                until: end,
                ..
            }) => {
                write!(f, "freeze {name} holds{}: {reason}", until(end))
            }
            Obstacle::Closed { opens: Some(opens) } => write!(f, "its window opens at {opens:.0}"),
            Obstacle::Closed { opens: None } => f.write_str("none of its windows opens again"),
            Obstacle::Soaking { stage, until } => write!(f, "it soaks in stage {stage} until {until:.0}"),
            Obstacle::Unasked => {
                f.write_str("nobody has signed that they ask for it, so no approval could be told from its author's")
            }
            Obstacle::Unapproved(tally) => {
                let Tally {
                    role, needed, by, not, ..
                } = tally;
                write!(f, "{} of {needed} approvals of {role}", by.len())?;
                if !by.is_empty() {
                    write!(f, " ({})", by.join(", "))?;
                }
                for (who, why) in not {
                    write!(f, "; {who} {why}")?;
                }
                Ok(())
            }
            Obstacle::Behind { build, take } => match take {
                Take::NewestVerified => write!(f, "{build} was verified after it and is taken in its place"),
                Take::OldestFirst => write!(f, "{build} was verified before it and has its turn first"),
            },
            Obstacle::Busy(Busy { upgrade, build }) => write!(f, "upgrade {upgrade} to {build} is under way there"),
        }
    }
}

/// Everything that keeps a build out, what lasts longest first.
#[must_use]
pub fn obstacles(pipeline: &PipelineSpec, stage: &Stage, facts: &Facts, now: Timestamp) -> Vec<Obstacle> {
    let Facts {
        build,
        is_way_back: _,
        upstream,
        freezes,
        voices,
        bound,
        others,
        busy,
    } = facts;
    let mut found = Vec::new();
    found.extend(build.quarantined.clone().map(|why| Obstacle::Quarantined { why }));
    found.extend(voices.rejected_by(&stage.approvals).map(|voice| Obstacle::Rejected {
        by: voice.who.clone(),
        reason: voice.reason.clone(),
    }));
    found.extend(upstream.iter().filter_map(|before| match before.verified {
        Verified::At(_) => None,
        Verified::Other(other) => Some(Obstacle::Unverified {
            stage: before.stage.clone(),
            other: Some(other),
        }),
        Verified::Never => Some(Obstacle::Unverified {
            stage: before.stage.clone(),
            other: None,
        }),
    }));
    found.extend(build.lacking.clone().map(Obstacle::Lacking));
    let pin = stage.pin.as_ref().filter(|pin| pin.version != build.version);
    found.extend(pin.map(|pin| Obstacle::Pinned {
        version: pin.version.clone(),
        reason: pin.reason.clone(),
    }));
    found.extend(stage.hold.as_ref().map(|hold| Obstacle::Held {
        reason: hold.reason.clone(),
    }));
    found.extend(freezes.iter().cloned().map(Obstacle::Frozen));
    if !stage.windows.is_empty()
        && let Cover::Outside { next } = cover(&stage.windows, now)
    {
        found.push(Obstacle::Closed { opens: next });
    }
    found.extend(upstream.iter().filter_map(|before| soaking(before, now)));
    if !stage.approvals.is_empty() {
        if voices.is_asked() {
            let tallies = stage.approvals.iter().map(|rule| voices.tally(rule, bound, now));
            found.extend(tallies.filter(|tally| !tally.is_enough()).map(Obstacle::Unapproved));
        } else {
            found.push(Obstacle::Unasked);
        }
    }
    found.extend(behind(pipeline.take, build, upstream, others));
    found.extend(busy.clone().map(Obstacle::Busy));
    found
}

fn soaking(before: &Upstream, now: Timestamp) -> Option<Obstacle> {
    let (Some(soak), Verified::At(at)) = (before.soak, before.verified) else {
        return None;
    };
    let until = at.saturating_add(soak.signed()).unwrap_or(Timestamp::MAX);
    (until > now).then(|| Obstacle::Soaking {
        stage: before.stage.clone(),
        until,
    })
}

fn behind(take: Take, build: &Candidate, upstream: &[Upstream], others: &[Rival]) -> Option<Obstacle> {
    let own = upstream.iter().filter_map(|before| match before.verified {
        Verified::At(at) => Some(at),
        Verified::Other(_) | Verified::Never => None,
    });
    let own = own.max()?;
    let others = others.iter().filter(|other| other.name != build.name);
    let in_front = match take {
        Take::NewestVerified => others
            .filter(|other| other.verified_at > own)
            .max_by_key(|other| other.verified_at),
        Take::OldestFirst => others
            .filter(|other| other.verified_at < own)
            .min_by_key(|other| other.verified_at),
    };
    in_front.map(|other| Obstacle::Behind {
        build: other.name.clone(),
        take,
    })
}

/// What of these keeps it, and what is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// What keeps it.
    pub by: Vec<Obstacle>,
    /// What would, and does not since the glass is broken.
    pub broken: Vec<Obstacle>,
}

/// Divides obstacles into those that keep a build and those that it passes over.
#[must_use]
pub fn kept(found: Vec<Obstacle>, is_way_back: bool, glass: Glass) -> Kept {
    let mut kept = Kept::default();
    for obstacle in found {
        match (obstacle.past(), glass) {
            (Past::ComingBackOrGlass, _) if is_way_back => {}
            (Past::ComingBackOrGlass, Glass::Broken) => kept.broken.push(obstacle),
            (Past::ComingBackOrGlass, Glass::Whole | Glass::Asked) | (Past::Nothing, _) => kept.by.push(obstacle),
        }
    }
    kept
}

/// Whether rules may be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glass {
    /// They may not.
    Whole,
    /// One person breaks it, and a second one may.
    Asked,
    /// Two people have broken it, for a time that is not over.
    Broken,
}

/// Whether the glass is broken: two people say so, each with their key, a reason and an end, of the same build, plan and evidence, and one of
/// them is no author and of a role that may approve here (of any role, where nobody is asked).
#[must_use]
pub fn glass(stage: &Stage, facts: &Facts, now: Timestamp) -> Glass {
    let breaking = facts.voices.breaking(&facts.bound, now);
    let may_approve = |voice: &&&Voice| {
        let rules = &stage.approvals;
        let in_role = rules.is_empty() || rules.iter().any(|rule| voice.roles.contains(&rule.role));
        in_role && !facts.voices.is_author(&voice.who)
    };
    let mut seconds = breaking.iter().filter(may_approve);
    if seconds.any(|second| breaking.iter().any(|first| first.who != second.who)) {
        Glass::Broken
    } else if breaking.is_empty() {
        Glass::Whole
    } else {
        Glass::Asked
    }
}

#[cfg(test)]
pub(in crate::promotion) mod tests;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::model::approval::Verb;
use crate::promotion::approvals::Voice;

/// A Thursday.
const NOW: &str = "2026-11-26T12:00:00Z";

pub(in crate::promotion) fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

pub(in crate::promotion) fn bound() -> Bound {
    Bound {
        digest: Digest::of(b"web 2"),
        plan: Digest::of(b"plan"),
        evidence: Digest::of(b"evidence"),
    }
}

pub(in crate::promotion) fn voice(who: &str, verb: Verb) -> Voice {
    Voice {
        who: who.to_owned(),
        roles: BTreeSet::from(["managers".to_owned()]),
        verb,
        bound: bound(),
        at: now() - SignedDuration::from_hours(1),
        reason: String::new(),
        until: None,
    }
}

pub(in crate::promotion) fn pipeline() -> PipelineSpec {
    serde_json::from_value(json!({
        "component": "web",
        "roles": {"managers": {"allowedSigners": "hooks/managers"}},
        "stages": [
            {"name": "staging", "environment": "staging", "start": "auto", "soak": "1h", "rehearsals": ["traffic"]},
            {"name": "production", "environment": "production", "after": ["staging"],
             "approvals": [{"role": "managers"}],
             "windows": [{"recurring": {"from": "0 9 * * MON-THU", "for": "7h", "timeZone": "Europe/Zurich"}}]},
        ],
    }))
    .expect("a pipeline")
}

/// Of a build that nothing keeps out of production.
pub(in crate::promotion) fn facts() -> Facts {
    Facts {
        build: Candidate {
            name: "web-2".to_owned(),
            version: "2".to_owned(),
            digest: Digest::of(b"web 2"),
            lacking: None,
            quarantined: None,
        },
        is_way_back: false,
        upstream: vec![Upstream {
            stage: "staging".to_owned(),
            soak: Some(Duration::from_secs(3_600)),
            verified: Verified::At(now() - SignedDuration::from_hours(2)),
        }],
        freezes: Vec::new(),
        voices: said([voice("ann", Verb::Request), voice("bob", Verb::Approve)]),
        bound: bound(),
        others: Vec::new(),
        busy: None,
    }
}

pub(in crate::promotion) fn said(voices: impl IntoIterator<Item = Voice>) -> Voices {
    Voices::new(voices, BTreeSet::new())
}

pub(in crate::promotion) fn frozen(in_flight: InFlight) -> Frozen {
    Frozen {
        name: "conference".to_owned(),
        reason: "nobody is on shift".to_owned(),
        until: Some(now() + SignedDuration::from_hours(5)),
        in_flight,
    }
}

type Change = Box<dyn Fn(&mut PipelineSpec, &mut Facts)>;

/// One row an obstacle: what makes it, its word, and what is said of it.
#[expect(clippy::too_many_lines, reason = "one row an obstacle")]
fn rows() -> Vec<(Change, &'static str, &'static str)> {
    let row = |change: fn(&mut PipelineSpec, &mut Facts)| -> Change { Box::new(change) };
    vec![
        (
            row(|_, f| f.build.quarantined = Some("web-2 failed in production on Monday".to_owned())),
            "Quarantined",
            "web-2 failed in production on Monday",
        ),
        (
            row(|_, f| {
                f.build.lacking = Some(Lack {
                    why: "HooksPassed is False".to_owned(),
                    lasting: Lasting::ForGood,
                });
            }),
            "Lacking",
            "HooksPassed is False",
        ),
        (
            row(|_, f| f.upstream[0].verified = Verified::Never),
            "NotVerified",
            "stage staging has not verified it",
        ),
        (
            row(|_, f| f.upstream[0].verified = Verified::Other(Digest::of(b"web 2, built again"))),
            "NotVerified",
            "stage staging has verified other bytes of that name (DIGEST)",
        ),
        (
            row(|_, f| f.upstream[0].verified = Verified::At(now() - SignedDuration::from_mins(59))),
            "Soaking",
            "it soaks in stage staging until 2026-11-26T12:01:00Z",
        ),
        (
            row(|p, _| {
                p.stages[1].pin =
                    Some(serde_json::from_value(json!({"version": "1", "reason": "the tape robot"})).expect("a pin"));
            }),
            "Pinned",
            "the stage is pinned to 1: the tape robot",
        ),
        (
            row(|p, _| p.stages[1].hold = Some(serde_json::from_value(json!({"reason": "an audit"})).expect("a hold"))),
            "Held",
            "the stage is held: an audit",
        ),
        (
            row(|_, f| f.freezes.push(frozen(InFlight::FinishUpgrade))),
            "Frozen",
            "freeze conference holds until 2026-11-26T17:00:00Z: nobody is on shift",
        ),
        (
            row(|p, _| {
                let span = json!([{"recurring": {"from": "0 9 * * FRI", "for": "7h", "timeZone": "Europe/Zurich"}}]);
                p.stages[1].windows = serde_json::from_value(span).expect("windows");
            }),
            "OutsideWindow",
            "its window opens at 2026-11-27T08:00:00Z",
        ),
        (
            row(|_, f| f.voices = said([voice("ann", Verb::Request)])),
            "NotApproved",
            "0 of 1 approvals of managers",
        ),
        (
            row(|_, f| f.voices = said([voice("ann", Verb::Request), voice("ann", Verb::Approve)])),
            "NotApproved",
            "0 of 1 approvals of managers; ann is an author of it",
        ),
        (
            row(|p, _| p.stages[1].approvals[0].count = 2),
            "NotApproved",
            "1 of 2 approvals of managers (bob)",
        ),
        (
            row(|_, f| f.voices = said([voice("bob", Verb::Approve)])),
            "NotSigned",
            "nobody has signed that they ask for it, so no approval could be told from its author's",
        ),
        (
            row(|_, f| {
                f.others.push(Rival {
                    name: "web-3".to_owned(),
                    verified_at: now() - SignedDuration::from_mins(30),
                });
            }),
            "Behind",
            "web-3 was verified after it and is taken in its place",
        ),
        (
            row(|p, f| {
                p.take = Take::OldestFirst;
                f.others.push(Rival {
                    name: "web-1".to_owned(),
                    verified_at: now() - SignedDuration::from_hours(3),
                });
            }),
            "Behind",
            "web-1 was verified before it and has its turn first",
        ),
        (
            row(|_, f| {
                f.busy = Some(Busy {
                    upgrade: "web-1-abcd".to_owned(),
                    build: "web-1".to_owned(),
                });
            }),
            "Busy",
            "upgrade web-1-abcd to web-1 is under way there",
        ),
        (
            row(|_, f| {
                let rejects = Voice {
                    reason: "the database is being moved".to_owned(),
                    ..voice("cleo", Verb::Reject)
                };
                f.voices = said([voice("ann", Verb::Request), voice("bob", Verb::Approve), rejects]);
            }),
            "Rejected",
            "cleo has rejected it: the database is being moved",
        ),
    ]
}

fn found(pipeline: &PipelineSpec, facts: &Facts) -> Vec<Obstacle> {
    obstacles(pipeline, &pipeline.stages[1], facts, now())
}

#[test]
fn each_rule_keeps_a_build_out_and_says_why() {
    assert_eq!(found(&pipeline(), &facts()), []);
    for (change, reason, words) in rows() {
        let (mut pipeline, mut facts) = (pipeline(), facts());
        change(&mut pipeline, &mut facts);
        let found = found(&pipeline, &facts);
        let said: Vec<_> = found.iter().map(|one| (one.reason(), one.to_string())).collect();
        let words = words.replace("DIGEST", &Digest::of(b"web 2, built again").short());
        assert_eq!(said, [(reason, words)]);
    }
}

#[test]
fn what_comes_back_waits_for_nobody_but_who_is_there_already() {
    for (change, reason, _) in rows() {
        let (mut pipeline, mut facts) = (pipeline(), facts());
        change(&mut pipeline, &mut facts);
        let kept = kept(found(&pipeline, &facts), true, Glass::Whole);
        let stays = ["Quarantined", "Rejected", "Busy"].contains(&reason);
        assert_eq!(kept.by.len(), usize::from(stays), "{reason}");
        assert_eq!(kept.broken, [], "{reason}");
    }
}

#[test]
fn a_broken_glass_passes_over_all_but_a_quarantine_a_rejection_and_another_upgrade_and_keeps_what() {
    for (change, reason, _) in rows() {
        let (mut pipeline, mut facts) = (pipeline(), facts());
        change(&mut pipeline, &mut facts);
        let kept = kept(found(&pipeline, &facts), false, Glass::Broken);
        let stays = ["Quarantined", "Rejected", "Busy"].contains(&reason);
        assert_eq!(
            (kept.by.len(), kept.broken.len()),
            if stays { (1, 0) } else { (0, 1) },
            "{reason}"
        );
    }
}

/// The glass is broken, by somebody of these roles, for two hours from now.
pub(in crate::promotion) fn breaks(who: &str) -> Voice {
    Voice {
        reason: "the site is down".to_owned(),
        until: Some(now() + SignedDuration::from_hours(2)),
        ..voice(who, Verb::BreakGlass)
    }
}

#[test]
fn a_glass_is_broken_by_two_with_a_reason_and_for_a_time() {
    let asks = || voice("ann", Verb::Request);
    let of = |change: fn(&mut Voice)| {
        let mut voice = breaks("bob");
        change(&mut voice);
        said([asks(), breaks("ann"), voice])
    };
    let rows: Vec<(&str, Voices, Glass)> = vec![
        ("two", said([asks(), breaks("ann"), breaks("bob")]), Glass::Broken),
        (
            "two of whom none has asked",
            said([breaks("bob"), breaks("cleo")]),
            Glass::Broken,
        ),
        ("nobody", said([asks()]), Glass::Whole),
        ("who asks alone", said([asks(), breaks("ann")]), Glass::Asked),
        ("who has not asked alone", said([asks(), breaks("bob")]), Glass::Asked),
        (
            "the same person twice",
            said([breaks("bob"), breaks("bob")]),
            Glass::Asked,
        ),
        (
            "an approval is another word",
            said([asks(), breaks("ann"), voice("bob", Verb::Approve)]),
            Glass::Asked,
        ),
        ("no reason", of(|v| "  ".clone_into(&mut v.reason)), Glass::Asked),
        ("no end", of(|v| v.until = None), Glass::Asked),
        ("over", of(|v| v.until = Some(now())), Glass::Asked),
        (
            "of another plan",
            of(|v| v.bound.plan = Digest::of(b"another")),
            Glass::Asked,
        ),
        (
            "who may not",
            of(|v| v.roles = BTreeSet::from(["developers".to_owned()])),
            Glass::Asked,
        ),
        (
            "of tomorrow",
            of(|v| v.at = now() + SignedDuration::from_hours(1)),
            Glass::Asked,
        ),
    ];
    let pipeline = pipeline();
    for (what, voices, expected) in rows {
        let facts = Facts { voices, ..facts() };
        assert_eq!(glass(&pipeline.stages[1], &facts, now()), expected, "{what}");
    }
    // A stage without approvals: anybody of a role is the second, but for an author.
    for (second, expected) in [("bob", Glass::Broken), ("ann", Glass::Asked)] {
        let developer = Voice {
            roles: BTreeSet::from(["developers".to_owned()]),
            ..breaks(second)
        };
        let facts = Facts {
            voices: said([asks(), breaks("ann"), developer]),
            ..facts()
        };
        assert_eq!(glass(&pipeline.stages[0], &facts, now()), expected, "{second}");
    }
}

//! What is known when it is asked whether a build may enter an environment, gathered from the state, the workspace and the words of
//! people.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::PromotionError;
use super::known::Known;
use super::proven::Proven;
use super::record::PromotionRecord;
use super::signatures::{Verifier, Whose};
use super::way::Way;
use crate::engine::provenance::{Judged, Lacking};
use crate::engine::session::{KnownBuild, Past};
use crate::home::Home;
use crate::model::approval::{Bound, Signed, Verb, Word};
use crate::model::environment::Component;
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::model::promotion::Rehearsed;
use crate::model::values::Digest;
use crate::promotion::approvals::{Voice, Voices};
use crate::promotion::freezes::holding;
use crate::promotion::obstacle::{Busy, Candidate, Facts, Lack, Lasting, Rival, Upstream, Verified};

/// Whose words on promotions are, and so which of them count.
#[derive(Debug, Clone, Copy)]
pub enum Vouched<'a> {
    /// Those that are signed with a key of a role.
    Signed(&'a Verifier),
    /// Those whose speakers an API server has compared with who asked it ([`crate::cluster::admission`]).
    Admitted,
    /// None: nobody knows who has said what.
    Nobodys,
}

/// What is known of a promotion's build, stage and world now. Attestations are this home's.
///
/// # Errors
/// A signature, a file or the state cannot be read.
pub async fn gather(
    way: &Way<'_>,
    home: &Home,
    known: &Known,
    record: &PromotionRecord,
    vouched: Vouched<'_>,
) -> Result<Facts, PromotionError> {
    let Way {
        fleet, pipeline, stage, ..
    } = *way;
    let environment = &fleet.environment.name;
    let past = &known.past;
    let component = way.component()?;
    let unknown = || PromotionError::UnknownBuild(record.spec.build.clone());
    let build = past.builds.get(&record.spec.build).ok_or_else(unknown)?;
    let digest = build.spec.digest;
    let judged = Judged::new(home, &fleet.workspace, &build.spec);
    let is_way_back = past.is_way_back(environment, &component.name, &digest, record.created_at);
    let lacking = if component.rollout.requires.is_empty() || is_way_back {
        None
    } else {
        judged.lacking(component).await
    };
    let proven = Proven::of(&past.builds);
    let upstream = upstream(pipeline, stage, build, &proven);
    let said = heard(way, stage, record, vouched)?;
    let authors = authors(way, known, record, vouched)?;
    let busy = known
        .busy
        .as_ref()
        .filter(|open| record.status.upgrade.as_ref() != Some(&open.name));
    Ok(Facts {
        build: Candidate {
            name: record.spec.build.clone(),
            version: build.spec.version.clone(),
            digest,
            lacking: lacking.map(lack),
            quarantined: past.quarantine(&digest, environment).map(|refusal| refusal.to_string()),
        },
        is_way_back,
        bound: Bound {
            digest,
            plan: plan(way, component, past),
            evidence: evidence(&upstream, &record.status.rehearsed),
        },
        upstream,
        freezes: holding(&known.freezes, environment, Timestamp::now()),
        voices: if record.spec.automatic && !record.status.disbelieved.contains(&record.spec.asker()) {
            Voices::new(said, authors).asked_by_itself()
        } else {
            Voices::new(said, authors)
        },
        others: rivals(way, known, record, &proven),
        busy: busy.filter(|open| open.name != record.name).map(|open| Busy {
            upgrade: open.name.clone(),
            build: open.spec.build.clone(),
        }),
    })
}

fn lack(lacking: Lacking) -> Lack {
    let Lacking {
        condition,
        why,
        remedy,
        is_unseen,
    } = lacking;
    Lack {
        why: format!("it lacks {condition}: it is {why}; {remedy}"),
        lasting: if is_unseen {
            Lasting::ForAWhile
        } else {
            Lasting::ForGood
        },
    }
}

/// How a build's bytes stand in each stage before.
fn upstream(pipeline: &PipelineSpec, stage: &Stage, build: &KnownBuild, proven: &Proven<'_>) -> Vec<Upstream> {
    let digest = &build.spec.digest;
    let verified = |environment: &str| {
        let mut of_name = build.status.verifications.iter();
        let other = of_name.find(|v| v.environment == environment && v.digest != *digest);
        match (proven.verified_at(environment, digest), other) {
            (Some(at), _) => Verified::At(at),
            (None, Some(_)) if proven.has_failed(environment, digest) => Verified::Never,
            (None, Some(other)) => Verified::Other(other.digest),
            (None, None) => Verified::Never,
        }
    };
    let before = stage.after.iter().filter_map(|name| pipeline.stage(name));
    before
        .map(|before| Upstream {
            stage: before.name.clone(),
            soak: before.soak,
            verified: verified(&before.environment),
        })
        .collect()
}

/// The words on a promotion that are somebody's, and are on this one: what vouches for them vouches for their text, which says of which
/// promotion, environment and build it is.
fn heard(
    way: &Way<'_>,
    stage: &Stage,
    record: &PromotionRecord,
    vouched: Vouched<'_>,
) -> Result<Vec<Voice>, PromotionError> {
    let is_of_it = |word: &Word| {
        word.promotion == record.name && word.environment == stage.environment && word.build == record.spec.build
    };
    match vouched {
        Vouched::Signed(verifier) => {
            let words = record.status.words.iter().filter(|signed| is_of_it(&signed.word));
            let words: Vec<Signed> = words.cloned().collect();
            let whose = verifier.voices(way.fleet.workspace.root(), way.pipeline, &words)?;
            let of_somebody = whose.into_iter().filter_map(|whose| match whose {
                Whose::Of(voice) => Some(*voice),
                Whose::Nobodys => None,
            });
            Ok(of_somebody.collect())
        }
        Vouched::Admitted => {
            let is_believed = |said: &Digest| !record.status.disbelieved.contains(said);
            let words = record.spec.words.iter().filter(|admitted| is_of_it(&admitted.word));
            let words = words.filter(|admitted| is_believed(&admitted.digest()));
            let asks = !record.spec.automatic && is_believed(&record.spec.asker());
            let asks = asks.then(|| asker(record));
            Ok(words.map(|admitted| admitted.voice(way.pipeline)).chain(asks).collect())
        }
        Vouched::Nobodys => Ok(Vec::new()),
    }
}

/// Who made an object asks for what it asks for.
fn asker(record: &PromotionRecord) -> Voice {
    let nothing = Digest::of(b"");
    Voice {
        who: record.spec.user.clone(),
        roles: BTreeSet::new(),
        verb: Verb::Request,
        bound: Bound {
            digest: nothing,
            plan: nothing,
            evidence: nothing,
        },
        at: record.created_at,
        reason: String::new(),
        until: None,
    }
}

/// Who else counts as an author: whoever has asked for the same bytes in another stage. A cluster's promotions may be deleted, and its builds say who
/// asked; at home promotions are kept, and who they say has signed it.
fn authors(
    way: &Way<'_>,
    known: &Known,
    record: &PromotionRecord,
    vouched: Vouched<'_>,
) -> Result<BTreeSet<String>, PromotionError> {
    let builds = &known.past.builds;
    let digest = builds.get(&record.spec.build).map(|build| build.spec.digest);
    let is_of_it = |build: &str| {
        build == record.spec.build || digest.is_some() && builds.get(build).map(|build| build.spec.digest) == digest
    };
    let mut authors = BTreeSet::new();
    for other in &known.promotions {
        let Some(stage) = way.pipeline.stage(&other.spec.stage) else {
            continue;
        };
        if other.spec.pipeline != record.spec.pipeline || !is_of_it(&other.spec.build) {
            continue;
        }
        let said = heard(way, stage, other, vouched)?.into_iter();
        authors.extend(said.filter(|voice| voice.verb == Verb::Request).map(|voice| voice.who));
    }
    match vouched {
        Vouched::Signed(_) | Vouched::Nobodys => {}
        Vouched::Admitted => {
            let same = builds.iter().filter(|(name, _)| is_of_it(name));
            let verified = same.flat_map(|(_, build)| &build.status.verifications);
            let before = verified.filter(|verified| way.pipeline.stage_into(&verified.environment).is_some());
            authors.extend(before.filter_map(|verified| verified.asked_by.clone()));
        }
    }
    Ok(authors)
}

/// Builds that might enter the stage by themselves beside one that does.
fn rivals(way: &Way<'_>, known: &Known, record: &PromotionRecord, proven: &Proven<'_>) -> Vec<Rival> {
    if !record.spec.automatic {
        return Vec::new();
    }
    let builds = &known.past.builds;
    let open = known.promotions.iter().filter(|other| !other.status.phase.is_final());
    let into_stage = open.filter(|open| {
        open.spec.automatic && open.spec.pipeline == record.spec.pipeline && open.spec.stage == record.spec.stage
    });
    let rival = |open: &PromotionRecord| {
        let digest = builds.get(&open.spec.build)?.spec.digest;
        let verified_at = proven.verified_before(way.pipeline, way.stage, &digest)?;
        Some(Rival {
            name: open.spec.build.clone(),
            verified_at,
        })
    };
    into_stage.filter_map(rival).collect()
}

/// Of what would be done: by which rules, to which nodes, from which builds.
fn plan(way: &Way<'_>, component: &Component, past: &Past) -> Digest {
    #[derive(Serialize)]
    struct Plan<'a> {
        rules: Digest,
        stage: &'a Stage,
        nodes: Vec<(&'a str, Option<Digest>)>,
    }
    let fleet = way.fleet;
    let last = past
        .upgrades
        .iter()
        .rfind(|u| u.spec.component == component.name && u.is_of_record());
    let runs = |name: &str| {
        let mut nodes = last?.status.nodes.iter();
        let node = nodes.find(|node| node.name == name)?;
        match last?.status.phase {
            crate::model::upgrade::Phase::Succeeded => last?.status.to,
            _ => node.from,
        }
    };
    let places = fleet.places(&component.name).iter();
    let plan = Plan {
        rules: fleet.rules(component),
        stage: way.stage,
        nodes: places
            .map(|place| (place.site.name.as_str(), runs(&place.site.name)))
            .collect(),
    };
    digest_of(&plan)
}

/// Of what was known: where its bytes were verified and when, and which rehearsals they have passed.
fn evidence(upstream: &[Upstream], rehearsed: &[Rehearsed]) -> Digest {
    let verified: Vec<_> = upstream
        .iter()
        .map(|before| match before.verified {
            Verified::At(at) => format!("{} at {at}", before.stage),
            Verified::Other(digest) => format!("{} other {digest}", before.stage),
            Verified::Never => format!("{} never", before.stage),
        })
        .collect();
    digest_of(&(verified, rehearsed))
}

fn digest_of(value: &impl Serialize) -> Digest {
    let text = serde_json::to_string(value).unwrap_or_default();
    Digest::of(text.as_bytes())
}

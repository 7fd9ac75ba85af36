//! What is known when it is asked whether a build may enter an environment, gathered from the state, the workspace and the words of
//! people.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::PromotionError;
use super::signatures::{Verifier, Whose};
use super::{Ground, PromotionRecord};
use crate::engine::provenance::{Judged, Lacking};
use crate::engine::session::{KnownBuild, Past};
use crate::home::Home;
use crate::model::approval::{Bound, Signed, Verb};
use crate::model::environment::Component;
use crate::model::freeze::FreezeSpec;
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::model::promotion::Rehearsed;
use crate::model::values::Digest;
use crate::promotion::approvals::{Voice, Voices};
use crate::promotion::calendar::{Cover, cover};
use crate::promotion::obstacle::{Busy, Candidate, Facts, Frozen, Lack, Lasting, Rival, Upstream, Verified};
use crate::store::{Store as _, StoreError};

/// The kind of freezes that a command has stated.
pub const FREEZE: &str = "Freeze";

/// What is known of a promotion's build, stage and world now.
pub(super) async fn gather(
    ground: &Ground<'_>,
    record: &PromotionRecord,
    verifier: &Verifier,
) -> Result<Facts, PromotionError> {
    let Ground {
        home,
        fleet,
        pipeline,
        stage,
        freezes,
        ..
    } = *ground;
    let environment = &fleet.environment.name;
    let past = Past::of(home, environment)?;
    let component = ground.component()?;
    let unknown = || PromotionError::UnknownBuild(record.spec.build.clone());
    let known = past.builds.get(&record.spec.build).ok_or_else(unknown)?;
    let digest = known.spec.digest;
    let judged = Judged::new(home, &fleet.workspace, &known.spec);
    let is_way_back = past.is_way_back(environment, &component.name, &digest, record.created_at);
    let lacking = if component.rollout.requires.is_empty() || is_way_back {
        None
    } else {
        judged.lacking(component).await
    };
    let upstream = upstream(pipeline, stage, &past.builds, &digest, &record.spec.build);
    let said = heard(fleet.workspace.root(), pipeline, stage, record, verifier)?;
    let authors = authors(fleet.workspace.root(), ground, record, verifier)?;
    let others = rivals(ground, record, &past.builds)?;
    let busy = home.store().unfinished(Some(environment))?.pop();
    Ok(Facts {
        build: Candidate {
            name: record.spec.build.clone(),
            version: known.spec.version.clone(),
            digest,
            lacking: lacking.map(lack),
            quarantined: past.quarantine(&digest, environment).map(|refusal| refusal.to_string()),
        },
        is_way_back,
        bound: Bound {
            digest,
            plan: plan(ground, component, &past),
            evidence: evidence(&upstream, &record.status.rehearsed),
        },
        upstream,
        freezes: frozen(home, freezes, environment, Timestamp::now())?,
        voices: if record.spec.automatic {
            Voices::new(said, authors).asked_by_itself()
        } else {
            Voices::new(said, authors)
        },
        others,
        busy: busy.filter(|open| open.name != record.name).map(|open| Busy {
            upgrade: open.name,
            build: open.spec.build,
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

/// How these bytes stand in each stage before. Where they have failed since they were verified there, they were not.
fn upstream(
    pipeline: &PipelineSpec,
    stage: &Stage,
    builds: &BTreeMap<String, KnownBuild>,
    digest: &Digest,
    name: &str,
) -> Vec<Upstream> {
    let before = stage.after.iter().filter_map(|name| pipeline.stage(name));
    let verified = |environment: &str| {
        let all = builds
            .iter()
            .flat_map(|(build, known)| known.status.verifications.iter().map(move |v| (build, v)));
        let there: Vec<_> = all.filter(|(_, v)| v.environment == environment).collect();
        let mut same_bytes = builds.values().filter(|known| known.spec.digest == *digest);
        if same_bytes.any(|known| known.status.quarantined_in(environment).is_some()) {
            return Verified::Never;
        }
        let same = there
            .iter()
            .filter(|(_, v)| v.digest == *digest)
            .map(|(_, v)| v.at)
            .min();
        let other = there.iter().find(|(build, _)| build.as_str() == name);
        match (same, other) {
            (Some(at), _) => Verified::At(at),
            (None, Some((_, v))) => Verified::Other(v.digest),
            (None, None) => Verified::Never,
        }
    };
    before
        .map(|before| Upstream {
            stage: before.name.clone(),
            soak: before.soak,
            verified: verified(&before.environment),
        })
        .collect()
}

/// The words on a promotion that are somebody's, and are on this one: a signature holds for the text that it is of, and says of which
/// promotion, environment and build.
fn heard(
    workspace: &std::path::Path,
    pipeline: &PipelineSpec,
    stage: &Stage,
    record: &PromotionRecord,
    verifier: &Verifier,
) -> Result<Vec<Voice>, PromotionError> {
    let is_of_it = |signed: &Signed| {
        let word = &signed.word;
        word.promotion == record.name && word.environment == stage.environment && word.build == record.spec.build
    };
    let words: Vec<Signed> = record
        .status
        .words
        .iter()
        .filter(|signed| is_of_it(signed))
        .cloned()
        .collect();
    let whose = verifier.voices(workspace, pipeline, &words)?;
    let of_somebody = whose.into_iter().filter_map(|whose| match whose {
        Whose::Of(voice) => Some(*voice),
        Whose::Nobodys => None,
    });
    Ok(of_somebody.collect())
}

/// Who else counts as an author: whoever has asked for the same build in a stage before.
fn authors(
    workspace: &std::path::Path,
    ground: &Ground<'_>,
    record: &PromotionRecord,
    verifier: &Verifier,
) -> Result<BTreeSet<String>, PromotionError> {
    let mut authors = BTreeSet::new();
    let is_of_it =
        |other: &PromotionRecord| other.spec.pipeline == record.spec.pipeline && other.spec.build == record.spec.build;
    for other in PromotionRecord::all(ground.home)?.into_iter().filter(is_of_it) {
        let Some(stage) = ground.pipeline.stage(&other.spec.stage) else {
            continue;
        };
        let said = heard(workspace, ground.pipeline, stage, &other, verifier)?;
        authors.extend(
            said.into_iter()
                .filter(|voice| voice.verb == Verb::Request)
                .map(|voice| voice.who),
        );
    }
    Ok(authors)
}

/// Builds that might enter the stage by themselves beside one that does.
fn rivals(
    ground: &Ground<'_>,
    record: &PromotionRecord,
    builds: &BTreeMap<String, KnownBuild>,
) -> Result<Vec<Rival>, StoreError> {
    if !record.spec.automatic {
        return Ok(Vec::new());
    }
    let open = PromotionRecord::open(ground.home)?.into_iter();
    let into_stage = open.filter(|open| {
        open.spec.automatic && open.spec.pipeline == record.spec.pipeline && open.spec.stage == record.spec.stage
    });
    let rival = |open: PromotionRecord| {
        let verified_at = verified_before(ground.pipeline, ground.stage, builds.get(&open.spec.build)?, builds)?;
        Some(Rival {
            name: open.spec.build,
            verified_at,
        })
    };
    Ok(into_stage.filter_map(rival).collect())
}

/// When the last of the stages before had verified these bytes; nothing where one of them has not.
pub(super) fn verified_before(
    pipeline: &PipelineSpec,
    stage: &Stage,
    known: &KnownBuild,
    builds: &BTreeMap<String, KnownBuild>,
) -> Option<Timestamp> {
    let before = upstream(pipeline, stage, builds, &known.spec.digest, &known.spec.name());
    let at = before.iter().map(|before| match before.verified {
        Verified::At(at) => Some(at),
        Verified::Other(_) | Verified::Never => None,
    });
    at.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The freezes that hold an environment now: those of the files, and those that a command has stated.
///
/// # Errors
/// The state cannot be read.
pub fn frozen(
    home: &Home,
    of_files: &BTreeMap<String, FreezeSpec>,
    environment: &str,
    now: Timestamp,
) -> Result<Vec<Frozen>, StoreError> {
    let mut all = of_files.clone();
    for resource in home.store().resources(FREEZE)? {
        all.insert(resource.name.clone(), resource.spec_as()?);
    }
    let holds = all.into_iter().filter(|(_, spec)| spec.names(environment));
    let holds = holds.filter_map(|(name, spec)| {
        let until = match (spec.when.is_empty(), cover(&spec.when, now)) {
            (true, _) => None,
            (false, Cover::Within { until }) => until,
            (false, Cover::Outside { .. }) => return None,
        };
        Some(Frozen {
            name,
            reason: spec.reason,
            until,
            in_flight: spec.in_flight,
        })
    });
    Ok(holds.collect())
}

/// Of what would be done: by which rules, to which nodes, from which builds.
fn plan(ground: &Ground<'_>, component: &Component, past: &Past) -> Digest {
    #[derive(Serialize)]
    struct Plan<'a> {
        rules: Digest,
        stage: &'a Stage,
        nodes: Vec<(&'a str, Option<Digest>)>,
    }
    let fleet = ground.fleet;
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
        stage: ground.stage,
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

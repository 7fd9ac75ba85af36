//! How the stages of a pipeline stand: what runs in each since when, what is on its way there, and what could be.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::proven::Proven;
use super::record::PromotionRecord;
use crate::engine::session::KnownBuild;
use crate::model::freeze::FreezeSpec;
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::promotion::freezes::holding;
use crate::promotion::obstacle::Frozen;

/// Builds shown that might enter a stage, the newest first.
const MOST_READY: usize = 5;

/// A stage as it stands.
pub struct Board<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// The build that was verified there last, and when.
    pub runs: Option<(&'a str, Timestamp)>,
    /// Promotions into it that have not ended.
    pub open: Vec<&'a PromotionRecord>,
    /// Builds that every stage before has verified, and that have not entered: with when the last of them had.
    pub ready: Vec<(&'a str, Timestamp)>,
    /// What holds it now.
    pub freezes: Vec<Frozen>,
}

/// What boards are made of.
pub struct Standing<'a> {
    /// Every build, by name.
    pub builds: &'a BTreeMap<String, KnownBuild>,
    /// Promotions that have not ended.
    pub open: &'a [PromotionRecord],
    /// Every freeze, by name.
    pub freezes: &'a BTreeMap<String, FreezeSpec>,
    /// Now.
    pub now: Timestamp,
}

impl<'a> Standing<'a> {
    /// The stages of a pipeline, in its order.
    #[must_use]
    pub fn boards(&self, name: &str, pipeline: &'a PipelineSpec) -> Vec<Board<'a>> {
        let Self {
            builds,
            open,
            freezes,
            now,
        } = *self;
        let proven = Proven::of(builds);
        let all = builds.iter();
        let of_component: Vec<_> = all
            .filter(|(_, known)| known.spec.component == pipeline.component)
            .collect();
        let board = |stage: &'a Stage| {
            let environment = stage.environment.as_str();
            let there = of_component.iter().filter_map(|(name, known)| {
                let mut verified = known.status.verifications.iter();
                let there = verified.find(|v| v.environment == environment && v.digest == known.spec.digest)?;
                Some((name.as_str(), there.at))
            });
            let of_stage = |record: &&PromotionRecord| record.spec.pipeline == name && record.spec.stage == stage.name;
            let open: Vec<&PromotionRecord> = open.iter().filter(of_stage).collect();
            let ready = of_component.iter().filter_map(|(name, known)| {
                let digest = &known.spec.digest;
                let at = proven.verified_before(pipeline, stage, digest)?;
                let is_asked_for = open.iter().any(|record| record.spec.build == **name);
                let may = proven.verified_at(environment, digest).is_none() && !proven.has_failed(environment, digest);
                (may && !is_asked_for).then_some((name.as_str(), at))
            });
            let mut ready: Vec<_> = ready.collect();
            ready.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
            ready.truncate(MOST_READY);
            Board {
                stage,
                runs: there.max_by_key(|(_, at)| *at),
                open,
                ready,
                freezes: holding(freezes, environment, now),
            }
        };
        pipeline.stages.iter().map(board).collect()
    }
}

//! The way of a component's builds into an environment, as a pipeline states it, and what is decided on it whichever home it is of.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::known::Known;
use super::proven::Proven;
use super::record::PromotionRecord;
use super::{KIND, PromotionError};
use crate::audit::Act;
use crate::engine::fleet::Fleet;
use crate::model::environment::Component;
use crate::model::pipeline::{PipelineSpec, Stage, Start};
use crate::model::promotion::PromotionSpec;
use crate::model::upgrade::{self, Event};
use crate::promotion::obstacle::Facts;
use crate::promotion::{Case, Decision, RehearsalRun, UpgradeRun, decide};
use crate::store::{ENGINE, UpgradeRecord};
use crate::workspace::PromotionRules;

/// A stage of a pipeline, with the environment that it leads into.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The stage's environment.
    pub fleet: &'a Arc<Fleet>,
    /// Name of the pipeline.
    pub name: &'a str,
    /// The pipeline.
    pub pipeline: &'a PipelineSpec,
    /// Its stage.
    pub stage: &'a Stage,
}

impl<'a> Way<'a> {
    /// The component that is upgraded.
    ///
    /// # Errors
    /// The environment does not have it.
    pub fn component(&self) -> Result<&'a Component, PromotionError> {
        let environment = &self.fleet.environment;
        let found = environment.component(&self.pipeline.component);
        found.ok_or_else(|| PromotionError::NoComponent {
            environment: environment.name.clone(),
            component: self.pipeline.component.clone(),
        })
    }

    /// Whether a promotion is of this stage.
    #[must_use]
    pub fn is_of(&self, spec: &PromotionSpec) -> bool {
        spec.pipeline == self.name && spec.stage == self.stage.name
    }

    /// What a promotion does next, by what is known now.
    #[must_use]
    pub fn decide(
        &self,
        record: &PromotionRecord,
        facts: &Facts,
        rehearsal: Option<&RehearsalRun>,
        upgrade: Option<&UpgradeRecord>,
        now: Timestamp,
    ) -> Decision {
        let run = upgrade.map(run_of);
        decide(&Case {
            pipeline: self.pipeline,
            stage: self.stage,
            spec: &record.spec,
            status: &record.status,
            facts,
            rehearsal,
            upgrade: run.as_ref(),
            now,
        })
    }

    /// An act on a promotion.
    #[must_use]
    pub fn act(&self, promotion: &str, who: &str, what: &str, why: &str, at: Timestamp) -> Act {
        act(&self.stage.environment, promotion, who, what, why, at)
    }

    /// What of a decided event the audit keeps: where it goes on, and where it ends, with the evidence of that time.
    #[must_use]
    pub fn act_of(&self, record: &PromotionRecord, decision: &Decision, event: &Event) -> Option<Act> {
        if event.reason == "PromotionWaiting" {
            return None;
        }
        let why = format!("{}: {}", record.spec.build, event.message);
        Some(Act {
            evidence: decision.status.bound.map(|bound| bound.evidence),
            ..self.act(&record.name, ENGINE, &event.reason, &why, event.at)
        })
    }

    /// Builds that enter the stage by themselves and were not asked for yet: each that every stage before has verified, that is not there and
    /// has not failed there. Which of several goes first, the turn decides.
    #[must_use]
    pub fn entering_by_itself(&self, known: &Known) -> Vec<String> {
        if self.stage.start != Start::Auto {
            return Vec::new();
        }
        let (builds, environment) = (&known.past.builds, &self.stage.environment);
        let proven = Proven::of(builds);
        let asked = known.promotions.iter().filter(|record| self.is_of(&record.spec));
        let asked: BTreeSet<&str> = asked.map(|record| record.spec.build.as_str()).collect();
        let of_component = || {
            let all = builds.iter();
            all.filter(|(_, build)| build.spec.component == self.pipeline.component)
        };
        let last = of_component()
            .filter_map(|(_, build)| build.verified_at(environment))
            .max();
        let enters = of_component().filter(|(name, build)| {
            let is_new = build.verified_at(environment).is_none()
                && build.status.quarantined_in(environment).is_none()
                && !asked.contains(name.as_str());
            let verified = || proven.verified_before(self.pipeline, self.stage, &build.spec.digest);
            // What a later build has passed over is history.
            is_new && verified().is_some_and(|at| last.is_none_or(|last| at > last))
        });
        enters.map(|(name, _)| name.clone()).collect()
    }

    /// What is asked of a build that enters by itself.
    #[must_use]
    pub fn by_itself(&self, build: String, user: String) -> PromotionSpec {
        PromotionSpec {
            pipeline: self.name.to_owned(),
            stage: self.stage.name.clone(),
            build,
            user,
            automatic: true,
            cancel: false,
            words: Vec::new(),
        }
    }
}

/// An act on a promotion into an environment.
#[must_use]
pub fn act(environment: &str, promotion: &str, who: &str, what: &str, why: &str, at: Timestamp) -> Act {
    Act {
        at,
        who: who.to_owned(),
        what: what.to_owned(),
        of: format!("{KIND}/{promotion}"),
        environment: environment.to_owned(),
        why: why.to_owned(),
        evidence: None,
    }
}

fn run_of(record: &UpgradeRecord) -> UpgradeRun {
    let status = &record.status;
    UpgradeRun {
        name: record.name.clone(),
        phase: status.phase,
        message: status.message.clone(),
        is_held_as_asked: status.phase == upgrade::Phase::Paused && status.reason == "ByUser",
        wish: record.spec.wish,
        is_in_batch: status.nodes.iter().any(|node| node.in_batch),
    }
}

/// The way of a component into an environment.
///
/// # Errors
/// There is none, or more than one.
pub fn way<'r>(
    rules: &'r PromotionRules,
    component: &str,
    environment: &str,
) -> Result<(&'r str, &'r PipelineSpec, &'r Stage), PromotionError> {
    let of_component = rules
        .pipelines
        .iter()
        .filter(|(_, pipeline)| pipeline.component == component);
    let mut ways =
        of_component.filter_map(|(name, pipeline)| Some((name.as_str(), pipeline, pipeline.stage_into(environment)?)));
    match (ways.next(), ways.next()) {
        (Some(way), None) => Ok(way),
        (Some(one), Some(other)) => Err(PromotionError::TwoWays {
            component: component.to_owned(),
            environment: environment.to_owned(),
            ways: vec![one.0.to_owned(), other.0.to_owned()],
        }),
        (None, _) => {
            let all = rules.pipelines.iter();
            let there: Vec<String> = all
                .map(|(name, pipeline)| {
                    let into: Vec<&str> = pipeline.stages.iter().map(|stage| stage.environment.as_str()).collect();
                    format!("{name} leads {} into {}", pipeline.component, into.join(", "))
                })
                .collect();
            Err(PromotionError::NoWay {
                component: component.to_owned(),
                environment: environment.to_owned(),
                there: if there.is_empty() {
                    String::new()
                } else {
                    format!("; {}", there.join("; "))
                },
            })
        }
    }
}

/// The way that a promotion is on, by the rules as they are now.
///
/// # Errors
/// They no longer have its stage.
pub fn way_of<'r>(
    rules: &'r PromotionRules,
    record: &PromotionRecord,
) -> Result<(&'r str, &'r PipelineSpec, &'r Stage), PromotionError> {
    let PromotionSpec { pipeline, stage, .. } = &record.spec;
    let found = rules.pipelines.get_key_value(pipeline);
    let found = found.and_then(|(name, pipeline)| Some((name.as_str(), pipeline, pipeline.stage(stage)?)));
    found.ok_or_else(|| PromotionError::StageGone {
        promotion: record.name.clone(),
        pipeline: pipeline.clone(),
        stage: stage.clone(),
    })
}

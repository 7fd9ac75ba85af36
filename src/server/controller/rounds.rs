//! Pipelines and freezes of a namespace, looked at in rounds: whether each can be used is said of it, and what enters a stage by itself is asked
//! for.

use std::sync::Arc;

use kube::api::{DynamicObject, ListParams};
use serde_json::json;

use super::leader::{Leader, Trouble};
use super::promotions::{Pass, records};
use crate::cluster::objects::{ApiError, Kind, MANAGER, asked, name, patiently};
use crate::cluster::promotions::Promotion;
use crate::cluster::rules::Rules;
use crate::engine::promotion::Way;
use crate::model::values::Digest;

/// Bytes of a name that say what it is of. What is made for it has its name and some 50 more, of 253.
const LONGEST_WORDS: usize = 150;

impl Leader {
    /// Pipelines and freezes as they are now.
    pub(super) async fn rules(&self) -> Result<Rules, ApiError> {
        let pipelines = self.listed(Kind::Pipeline).await?;
        Ok(Rules::of(&pipelines, &self.listed(Kind::Freeze).await?))
    }

    pub(super) async fn listed(&self, kind: Kind) -> Result<Vec<DynamicObject>, ApiError> {
        let (api, all) = (self.api(kind), ListParams::default());
        let listed = patiently(|| asked("list", "objects", api.list(&all))).await?;
        Ok(listed.items)
    }

    /// Whether each pipeline and each freeze can be used is said of it, and what enters stages by itself is asked for. What is in the way of one is
    /// in the way of no other.
    pub(super) async fn go_round_rules(&self) -> Result<(), Trouble> {
        let (pipelines, freezes) = (self.listed(Kind::Pipeline).await?, self.listed(Kind::Freeze).await?);
        let pass = Pass {
            rules: Rules::of(&pipelines, &freezes),
            promotions: records(&self.heard.promotions()),
            unguarded: None,
        };
        let Rules {
            usable,
            wrong_pipelines,
            wrong_freezes,
            unusable: _,
        } = &pass.rules;
        for object in &pipelines {
            let wrong = wrong_pipelines.get(name(object));
            self.tell_usable(Kind::Pipeline, object, wrong, "its stages take builds")
                .await;
        }
        for object in &freezes {
            let wrong = wrong_freezes.get(name(object));
            self.tell_usable(Kind::Freeze, object, wrong, "it holds when it says")
                .await;
        }
        for (named, pipeline) in &usable.pipelines {
            for stage in &pipeline.stages {
                let Ok(fleet) = self.fleet(&stage.environment) else {
                    continue;
                };
                let fleet = Arc::new(fleet);
                let way = Way {
                    fleet: &fleet,
                    name: named,
                    pipeline,
                    stage,
                };
                if let Err(why) = self.ask_for_what_enters(&way, &pass).await {
                    tracing::warn!(%why, pipeline = named, stage = stage.name, "what enters by itself is not asked for");
                }
            }
        }
        Ok(())
    }

    async fn ask_for_what_enters(&self, way: &Way<'_>, pass: &Pass) -> Result<(), Trouble> {
        for build in way.entering_by_itself(&self.known(way.stage, None, pass)) {
            let named = name_by_itself(way.name, &way.stage.name, &build);
            let spec = way.by_itself(build, MANAGER.to_owned());
            // Two who lead ask for one.
            self.make(Kind::Promotion, &named, json!(spec), None).await?;
            let Some(object) = self.fresh(Kind::Promotion, &named).await? else {
                continue;
            };
            let there = Promotion::read(object)?.record.spec;
            if (&there.pipeline, &there.stage, &there.build) != (&spec.pipeline, &spec.stage, &spec.build) {
                return Err(Trouble::Undecided(format!(
                    "Promotion {named} is of build {} into stage {} of {}, and has the name that the one of build {} is to have: delete it",
                    there.build, there.stage, there.pipeline, spec.build
                )));
            }
        }
        Ok(())
    }
}

/// The name of the promotion that a pipeline asks for by itself: another for each way of a build.
fn name_by_itself(pipeline: &str, stage: &str, build: &str) -> String {
    let way = Digest::of(format!("{pipeline}/{stage}/{build}").as_bytes());
    let words = format!("{build}-{stage}");
    let words =
        words[..words.floor_char_boundary(LONGEST_WORDS)].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{words}-{}", way.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_a_build_has_a_promotion_of_another_name() {
        let names = [
            name_by_itself("eu", "canary", "web-1"),
            name_by_itself("us", "canary", "web-1"),
            name_by_itself("eu", "x", "web-1-rc"),
            name_by_itself("eu", "rc-x", "web-1"),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
        assert_eq!(names[0], name_by_itself("eu", "canary", "web-1"));
        assert!(names[0].starts_with("web-1-canary-"), "{names:?}");
        let long = name_by_itself("eu", "canary", &"web-1.".repeat(60));
        assert!(long.len() < 253 - 50, "{long}");
        assert!(!long.contains(".-") && !long.contains("--"), "{long}");
    }
}

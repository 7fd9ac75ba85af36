//! Pipelines and freezes as objects of an API server, which takes what a `lint` would refuse. What cannot be used as it is lets nothing through:
//! a pipeline of which nobody knows what it demands has no builds on their way, and a freeze of which nobody knows when it holds, holds.

use std::collections::BTreeMap;

use kube::api::DynamicObject;

use super::objects::{name, part};
use crate::engine::promotion::{PromotionError, PromotionRecord, way_of};
use crate::model::freeze::{FreezeSpec, InFlight};
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::model::promotion::PromotionSpec;
use crate::model::system::{Finding, in_words};
use crate::model::text::path::Part;
use crate::workspace::PromotionRules;

/// The pipelines and freezes of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Those that can be used, and what stands for freezes that cannot.
    pub usable: PromotionRules,
    /// What is wrong with pipelines that cannot be used, by name.
    pub wrong_pipelines: BTreeMap<String, String>,
    /// Those of them that can be read all the same: of where a promotion was to lead.
    pub unusable: BTreeMap<String, PipelineSpec>,
    /// What is wrong with freezes, by name.
    pub wrong_freezes: BTreeMap<String, String>,
}

impl Rules {
    /// Of the objects that there are.
    #[must_use]
    pub fn of(pipelines: &[DynamicObject], freezes: &[DynamicObject]) -> Self {
        let mut this = Self::default();
        for object in pipelines {
            let named = name(object).to_owned();
            match pipeline(object) {
                Ok(spec) => drop(this.usable.pipelines.insert(named, spec)),
                Err(wrong) => {
                    if let Ok(spec) = part(object, "spec") {
                        this.unusable.insert(named.clone(), spec);
                    }
                    this.wrong_pipelines.insert(named, wrong);
                }
            }
        }
        for object in freezes {
            let (spec, wrong) = freeze(object);
            this.usable.freezes.insert(name(object).to_owned(), spec);
            this.wrong_freezes
                .extend(wrong.map(|wrong| (name(object).to_owned(), wrong)));
        }
        this
    }

    /// The environment that a promotion is about, and the component: by its way, though that be unusable, or by the names of that where there is
    /// none any more.
    #[must_use]
    pub fn place_of(&self, record: &PromotionRecord) -> (String, String) {
        let PromotionSpec { pipeline, stage, .. } = &record.spec;
        let found = self
            .usable
            .pipelines
            .get(pipeline)
            .or_else(|| self.unusable.get(pipeline));
        match found.and_then(|found| Some((found, found.stage(stage)?))) {
            Some((found, stage)) => (stage.environment.clone(), found.component.clone()),
            None => (format!("{pipeline}/{stage}"), String::new()),
        }
    }

    /// The way that a promotion is on.
    ///
    /// # Errors
    /// There is none, or it cannot be used: why.
    pub fn way_of(&self, record: &PromotionRecord) -> Result<(&str, &PipelineSpec, &Stage), PromotionError> {
        let pipeline = &record.spec.pipeline;
        match self.wrong_pipelines.get(pipeline) {
            Some(wrong) => Err(PromotionError::WrongPipeline {
                pipeline: pipeline.clone(),
                wrong: wrong.clone(),
            }),
            None => way_of(&self.usable, record),
        }
    }
}

/// A pipeline that can be used.
///
/// # Errors
/// What is wrong with it, in words.
pub fn pipeline(object: &DynamicObject) -> Result<PipelineSpec, String> {
    let spec: PipelineSpec = part(object, "spec").map_err(|why| why.to_string())?;
    match in_words(&spec.findings()) {
        None => Ok(spec),
        Some(wrong) => Err(wrong),
    }
}

/// A freeze, and what is wrong with it. One that is wrong holds what it names, or everything where that cannot be read, and, where it is its time
/// that is wrong, at any time; what comes back passes it, as it passes every freeze.
#[must_use]
pub fn freeze(object: &DynamicObject) -> (FreezeSpec, Option<String>) {
    let read: Result<FreezeSpec, _> = part(object, "spec");
    let (mut spec, wrong, has_time) = match read {
        Ok(spec) => {
            let findings = spec.findings();
            let Some(wrong) = in_words(&findings) else {
                return (spec, None);
            };
            let is_of_time = |finding: &Finding| finding.path.first() == Some(&Part::Key("when".to_owned()));
            (spec, wrong, !findings.iter().any(is_of_time))
        }
        Err(why) => (names_of(object), why.to_string(), false),
    };
    if spec.environments.is_empty() {
        spec.environments.push("*".to_owned());
    }
    if !has_time {
        spec.when.clear();
        spec.reason = format!("nobody knows when it holds, so it does until it is mended: {wrong}");
    } else if spec.reason.trim().is_empty() {
        spec.reason = format!("it is to be mended: {wrong}");
    }
    (spec, Some(wrong))
}

/// What of a freeze can be read though not all of it can.
fn names_of(object: &DynamicObject) -> FreezeSpec {
    let stated = object.data["spec"]["environments"].as_array();
    let names = stated.map(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect());
    FreezeSpec {
        reason: String::new(),
        // A list of which one name cannot be read may have named any.
        environments: names.flatten().unwrap_or_default(),
        when: Vec::new(),
        in_flight: InFlight::default(),
        user: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::promotion::freezes::holding;

    fn object(kind: &str, spec: &Value) -> DynamicObject {
        let stated = json!({
            "apiVersion": "stagegate.dev/v1alpha1", "kind": kind, "metadata": {"name": "one"}, "spec": spec,
        });
        serde_json::from_value(stated).expect("an object")
    }

    #[test]
    fn a_pipeline_that_demands_what_there_is_not_demands_nothing_less() {
        let stated = |after: &str, count: u8| {
            json!({"component": "web", "roles": {"managers": {"users": ["erin"]}}, "stages": [
                {"name": "staging", "environment": "staging"},
                {"name": "production", "environment": "production", "after": [after],
                 "approvals": [{"role": "managers", "count": count}]},
            ]})
        };
        assert!(pipeline(&object("Pipeline", &stated("staging", 1))).is_ok());
        for (spec, expected) in [
            (stated("stagin", 1), "stages[1].after[0]: there is no stage `stagin`"),
            (stated("staging", 0), "an approval of nobody is none"),
            (json!({"component": 1}), "cannot read"),
        ] {
            let why = pipeline(&object("Pipeline", &spec)).expect_err("refused");
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_freeze_that_is_wrong_holds_what_it_names() {
        let over = json!({"once": {"from": "2026-01-01T00:00Z", "until": "2026-01-02T00:00Z"}});
        let recurring = |zone: &str| json!({"recurring": {"from": "0 9 * * MON", "for": "7h", "timeZone": zone}});
        let of = |environments: Value, when: Value| {
            let spec =
                json!({"reason": "the week begins", "environments": environments, "when": when, "inFlight": "pause"});
            let (spec, wrong) = freeze(&object("Freeze", &spec));
            // A Tuesday.
            let now: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a time");
            let all = std::collections::BTreeMap::from([("one".to_owned(), spec)]);
            let holds = |environment: &str| !holding(&all, environment, now).is_empty();
            (holds("production"), holds("staging"), wrong)
        };
        let production = json!(["production"]);
        assert_eq!(
            of(production.clone(), json!([recurring("Europe/Zurich")])),
            (false, false, None)
        );
        let rows = [
            (&production, json!([recurring("Europe/Zurch")]), (true, false), "Zurch"),
            (&production, json!([{}]), (true, false), "exactly one kind"),
            (&production, json!("always"), (true, false), "cannot read"),
            (&json!([]), json!([]), (true, true), "holds no environment"),
            // What is wrong with it says nothing of its time.
            (&json!([]), json!([over]), (false, false), "holds no environment"),
            (&json!(["production", 1]), json!([]), (true, true), "cannot read"),
        ];
        for (environments, when, expected, words) in rows {
            let (production, staging, wrong) = of(environments.clone(), when);
            let wrong = wrong.unwrap_or_default();
            assert!((production, staging) == expected && wrong.contains(words), "{wrong}");
        }
    }
}

//! Whether it can be told who says what. Words of promotions are believed because an API server has compared each with who asked it; where the
//! policies that do so are not in force, anybody may write any of them. So that is asked before words are: what a policy refuses whoever
//! asks, without making it. A policy that was away between two such questions is not noticed by them.

use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use serde_json::json;
use tokio::time::Instant;

use super::leader::{Leader, Trouble};
use crate::cluster::admission::{Probe, probes};
use crate::cluster::objects::{ApiError, asked, patiently};

/// What was found is believed for so long.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// What was found last.
#[derive(Debug, Default)]
pub(super) struct Found {
    asked_at: Option<Instant>,
    missing: Option<String>,
}

impl Leader {
    /// Why nobody's words can be believed now.
    pub(super) async fn unguarded(&self, found: &mut Found) -> Result<Option<String>, Trouble> {
        if found.asked_at.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            let mut missing = None;
            for probe in probes() {
                missing = missing.or(self.why_not_in_force(&probe).await?);
            }
            *found = Found {
                asked_at: Some(Instant::now()),
                missing,
            };
        }
        Ok(found.missing.clone())
    }

    async fn why_not_in_force(&self, probe: &Probe) -> Result<Option<String>, ApiError> {
        let named = probe.name();
        let object = DynamicObject::new(&named, &probe.kind.resource()).data(json!({"spec": probe.spec}));
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let (api, what) = (self.api(probe.kind), format!("{:?} {named}, for a trial", probe.kind));
        let answer = match patiently(|| asked("make", &what, api.create(&parameters, &object))).await {
            Err(ApiError::Refused { why, code: 403, .. }) if probe.is_refused_by_it(&why) => return Ok(None),
            Err(why) if why.is_passing() => return Err(why),
            Err(why) => why.to_string(),
            Ok(_) => format!("{what}, was let through"),
        };
        Ok(Some(format!(
            "policy {} is not in force, so nobody knows who has said what ({answer}); `stagegate install --print -n {} | kubectl apply \
             --server-side -f -` applies it, and words that were written meanwhile may be anybody's",
            probe.policy, self.namespace
        )))
    }
}

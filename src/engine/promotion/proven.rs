//! Which bytes were verified where, of all builds that a home knows: asked of thousands of builds at a time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::engine::session::KnownBuild;
use crate::model::pipeline::{PipelineSpec, Stage};
use crate::model::values::Digest;

/// By environment and digest. A quarantine is of the bytes, under whichever name they have failed.
pub struct Proven<'a> {
    verified: BTreeMap<(&'a str, Digest), Timestamp>,
    failed: BTreeSet<(&'a str, Digest)>,
}

impl<'a> Proven<'a> {
    /// Of these builds.
    #[must_use]
    pub fn of(builds: &'a BTreeMap<String, KnownBuild>) -> Self {
        let mut verified: BTreeMap<(&'a str, Digest), Timestamp> = BTreeMap::new();
        let mut failed = BTreeSet::new();
        for known in builds.values() {
            for v in &known.status.verifications {
                let first = verified.entry((&v.environment, v.digest)).or_insert(v.at);
                *first = v.at.min(*first);
            }
            let quarantines = known.status.quarantines.iter();
            failed.extend(quarantines.map(|q| (q.environment.as_str(), known.spec.digest)));
        }
        Self { verified, failed }
    }

    /// Since when these bytes are known to run there. Where they have failed since they were verified there, they were not.
    #[must_use]
    pub fn verified_at(&self, environment: &str, digest: &Digest) -> Option<Timestamp> {
        if self.has_failed(environment, digest) {
            return None;
        }
        self.verified.get(&(environment, *digest)).copied()
    }

    /// Whether these bytes are quarantined there.
    #[must_use]
    pub fn has_failed(&self, environment: &str, digest: &Digest) -> bool {
        self.failed.contains(&(environment, *digest))
    }

    /// When the last of the stages before had verified these bytes; nothing where one of them has not.
    #[must_use]
    pub fn verified_before(&self, pipeline: &PipelineSpec, stage: &Stage, digest: &Digest) -> Option<Timestamp> {
        let before = stage.after.iter().filter_map(|name| pipeline.stage(name));
        let at = before.map(|before| self.verified_at(&before.environment, digest));
        at.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

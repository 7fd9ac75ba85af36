//! Which freezes hold an environment at a moment.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::calendar::{Cover, cover};
use super::obstacle::Frozen;
use crate::model::freeze::FreezeSpec;

/// Those of all freezes, by name, that hold an environment now.
#[must_use]
pub fn holding(all: &BTreeMap<String, FreezeSpec>, environment: &str, now: Timestamp) -> Vec<Frozen> {
    let holds = all.iter().filter(|(_, spec)| spec.names(environment));
    let holds = holds.filter_map(|(name, spec)| {
        let until = match (spec.when.is_empty(), cover(&spec.when, now)) {
            (true, _) => None,
            (false, Cover::Within { until }) => until,
            (false, Cover::Outside { .. }) => return None,
        };
        Some(Frozen {
            name: name.clone(),
            reason: spec.reason.clone(),
            until,
            in_flight: spec.in_flight,
        })
    });
    holds.collect()
}

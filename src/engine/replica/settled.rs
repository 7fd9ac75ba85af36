//! What the pods of a component run by the record of its upgrades. Pure.

use std::collections::BTreeMap;

use crate::model::values::Digest;
use crate::store::UpgradeRecord;

/// What the last upgrade of record has left the nodes of a component on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// No upgrade has moved them.
    Never,
    /// All of them on one build.
    OfAll(Digest),
    /// Not all on one, as where nodes were left out: only the cluster says what each is to run. With the build of most of them.
    OfSeveral(Option<Digest>),
}

/// By the upgrades of one component, the oldest first. Those before the last one of record say nothing any more: what that has begun is
/// taken back by another upgrade alone.
pub(super) fn last<'u>(upgrades: impl DoubleEndedIterator<Item = &'u UpgradeRecord>) -> Last {
    let Some(last) = upgrades.rev().find(|upgrade| upgrade.is_of_record()) else {
        return Last::Never;
    };
    let mut builds: BTreeMap<Option<Digest>, usize> = BTreeMap::new();
    for node in &last.status.nodes {
        *builds.entry(node.build).or_default() += 1;
    }
    let known = builds
        .iter()
        .filter_map(|(build, nodes)| build.map(|build| (nodes, build)));
    match (builds.len(), known.max()) {
        (1, Some((_, build))) => Last::OfAll(build),
        (_, most) => Last::OfSeveral(most.map(|(_, build)| build)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn build(of: &str) -> Digest {
        Digest::of(of.as_bytes())
    }

    /// An upgrade whose nodes are on these builds, each after so many steps.
    fn upgrade(phase: &str, nodes: &[(Option<&str>, u32)]) -> UpgradeRecord {
        let node = |(at, (of, steps)): (usize, &(Option<&str>, u32))| {
            json!({
                "name": format!("web-{at}"), "build": of.map(build), "phase": "Waiting", "since": NOW, "steps": steps,
            })
        };
        let nodes: Vec<_> = nodes.iter().enumerate().map(node).collect();
        UpgradeRecord {
            name: "up".to_owned(),
            spec: serde_json::from_value(json!({"environment": "staging", "component": "web", "build": "web-1"}))
                .expect("a spec"),
            status: serde_json::from_value(json!({"phase": phase, "since": NOW, "nodes": nodes})).expect("a status"),
            resource_version: 1,
            wish_version: 1,
            created_at: NOW.parse().expect("a time"),
        }
    }

    #[test]
    fn only_the_last_upgrade_that_did_something_says_what_is_to_run() {
        let all_on_one = || upgrade("Succeeded", &[(Some("1"), 2), (Some("1"), 2)]);
        let left_out = upgrade("Succeeded", &[(Some("2"), 2), (None, 3), (Some("2"), 2)]);
        let stuck = upgrade("Failed", &[(Some("1"), 1), (Some("2"), 2)]);
        let not_begun = upgrade("Failed", &[(Some("1"), 0), (None, 0)]);
        let ran_it_already = upgrade("Succeeded", &[(Some("3"), 0), (Some("3"), 0)]);
        let open = upgrade("Rolling", &[(Some("2"), 2), (Some("1"), 0)]);
        let none_is_known = upgrade("Succeeded", &[(None, 2), (None, 2)]);
        let rows: [(&[&UpgradeRecord], Last); 8] = [
            (&[], Last::Never),
            (&[&not_begun], Last::Never),
            (&[&all_on_one()], Last::OfAll(build("1"))),
            (&[&all_on_one(), &not_begun], Last::OfAll(build("1"))),
            (&[&all_on_one(), &open], Last::OfAll(build("1"))),
            (&[&all_on_one(), &ran_it_already], Last::OfAll(build("3"))),
            (&[&all_on_one(), &left_out], Last::OfSeveral(Some(build("2")))),
            (&[&all_on_one(), &none_is_known], Last::OfSeveral(None)),
        ];
        for (upgrades, expected) in rows {
            assert_eq!(last(upgrades.iter().copied()), expected, "{upgrades:#?}");
        }
        let of_two = last([&all_on_one(), &stuck].into_iter());
        assert!(matches!(of_two, Last::OfSeveral(Some(_))), "{of_two:?}");
    }
}

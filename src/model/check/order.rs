//! The order of components.

use std::collections::{BTreeMap, BTreeSet};

use super::key;
use crate::model::environment::EnvironmentSpec;
use crate::model::system::Finding;
use crate::model::text::did_you_mean;
use crate::model::text::path::Part as Step;

/// Components by index, each after those that it needs (Kahn 1962), otherwise as they stand.
pub(in crate::model) fn order(spec: &EnvironmentSpec, findings: &mut Vec<Finding>) -> Vec<usize> {
    let index: BTreeMap<&str, usize> = spec
        .components
        .iter()
        .enumerate()
        .map(|(i, c)| (c.name.as_str(), i))
        .collect();
    let mut needs: Vec<BTreeSet<usize>> = Vec::new();
    for (c, component) in spec.components.iter().enumerate() {
        let mut mine = BTreeSet::new();
        for (a, name) in component.after.iter().enumerate() {
            let path = vec![key("components"), Step::Index(c), key("after"), Step::Index(a)];
            if let Some(&other) = index.get(name.as_str()) {
                mine.insert(other);
            } else {
                let near = did_you_mean(name, index.keys().copied());
                findings.push(Finding {
                    path,
                    message: format!("there is no component `{name}`"),
                    hint: near.map(|near| format!("did you mean `{near}`?")),
                });
            }
        }
        needs.push(mine);
    }
    let mut order: Vec<usize> = Vec::new();
    while let Some(next) =
        (0..needs.len()).find(|i| !order.contains(i) && needs[*i].iter().all(|need| order.contains(need)))
    {
        order.push(next);
    }
    if order.len() < needs.len() {
        let circle = circle(&needs, &order);
        let names: Vec<&str> = circle.iter().map(|&i| spec.components[i].name.as_str()).collect();
        findings.push(Finding {
            path: vec![key("components"), Step::Index(circle[0]), key("after")],
            message: format!("`after` goes in a circle: {} after {}", names.join(" after "), names[0]),
            hint: Some("one of them must be able to start first".to_owned()),
        });
    }
    order
}

/// Follows needs from a component that was never free until one comes back.
fn circle(needs: &[BTreeSet<usize>], free: &[usize]) -> Vec<usize> {
    let mut way: Vec<usize> = Vec::new();
    let mut at = (0..needs.len()).find(|i| !free.contains(i)).unwrap_or_default();
    loop {
        if let Some(begin) = way.iter().position(|&seen| seen == at) {
            return way.split_off(begin);
        }
        way.push(at);
        // One that was never free needs another one that was never free.
        match needs[at].iter().find(|need| !free.contains(need)) {
            Some(&next) => at = next,
            None => return way,
        }
    }
}

//! What must hold, checked against the truth of the universe and not against what the engine believes.

use std::collections::BTreeMap;

use stagegate::model::upgrade::{NodePhase, Phase, UpgradeStatus};

use super::universe::{BuildNature, Universe, known_out};

/// I1, at the moment when a node is taken out.
pub fn take_out(u: &mut Universe, next: &UpgradeStatus) {
    for i in 0..next.nodes.len() {
        let before = u.status.nodes.get(i).is_some_and(|n| n.drained);
        if !next.nodes[i].drained || before {
            continue;
        }
        u.settle(i);
        // A node that is out already costs nothing.
        if !u.serves(i) || u.now() < u.nodes[i].unreachable_until {
            continue;
        }
        let out = (0..next.nodes.len())
            .filter(|&j| j == i || known_out(u, j, next))
            .count();
        if out > u.max_unavailable {
            let text = format!("I1: node{i} taken out as number {out} of at most {}", u.max_unavailable);
            u.note(text.clone());
            u.broken.push(text);
        }
    }
}

/// Everything else, when the story has ended.
pub fn ending(u: &mut Universe) {
    for i in 0..u.nodes.len() {
        u.settle(i);
    }
    let phase = u.status.phase;
    let mut broken = Vec::new();
    if !phase.is_final() {
        broken.push(format!("I3: the story ended in {phase:?} ({})", u.status.message));
    }
    for (i, node) in u.nodes.iter().enumerate() {
        for (release, times) in &node.installs {
            if *times > 1 {
                broken.push(format!("I3: node{i} installed {} {times} times", release.short()));
            }
        }
        for (release, times) in &node.restarts {
            // Each reboot takes the service down once, which is a reason to start it again; and a resumed upgrade may
            // pass a node twice, forward and back.
            if *times > 1 + node.reboots {
                broken.push(format!("I3: node{i} restarted into {} {times} times", release.short()));
            }
        }
        let written = &u.status.nodes[i];
        let goal = match phase {
            Phase::Succeeded => u.new,
            Phase::RolledBack | Phase::Aborted => u.old,
            _ => continue,
        };
        let runs = node.running.map(|(build, _)| build);
        if written.phase == NodePhase::Done && node.reboots == 0 && (runs != Some(goal) || node.current != goal) {
            broken.push(format!("I3: {phase:?}, but node{i} does not run what it should"));
        }
        if written.phase == NodePhase::Done && written.drained {
            broken.push(format!("I3: {phase:?}, but node{i} was left out of traffic"));
        }
    }
    if phase == Phase::Succeeded && u.nature != BuildNature::Good && !u.status.nodes.iter().all(|n| n.installs == 0) {
        broken.push("I4: a bad build succeeded".to_owned());
    }
    let failed = u.events.iter().any(|e| e.reason == "RollingBack") && u.status.reason != "AbortedByUser";
    if failed && matches!(phase, Phase::RolledBack | Phase::RollbackIneffective) && u.quarantined.is_none() {
        broken.push("I4: a build that failed was not quarantined".to_owned());
    }
    // I5: every phase that was entered was told, and each node's change too.
    let mut told: BTreeMap<&str, u32> = BTreeMap::new();
    for event in &u.events {
        *told.entry(event.reason.as_str()).or_default() += 1;
    }
    if phase.is_final() && !told.contains_key(format!("{phase:?}").as_str()) {
        broken.push(format!("I5: {phase:?} was never told"));
    }
    if phase == Phase::Succeeded && u.status.reason == "Verified" {
        for node in u.status.nodes.iter().filter(|n| n.restarts > 0) {
            if !u
                .events
                .iter()
                .any(|e| e.reason == "NodeUpgraded" && e.node.as_ref() == Some(&node.name))
            {
                broken.push(format!("I5: the change of {} was never told", node.name));
            }
        }
    }
    if u.events.windows(2).any(|w| w[0].at > w[1].at) {
        broken.push("I5: events out of order".to_owned());
    }
    u.broken.extend(broken);
}

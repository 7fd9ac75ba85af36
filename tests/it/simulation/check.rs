//! What must hold, checked against the truth of the universe and not against what the engine believes.

use std::collections::BTreeMap;

use stagegate::model::upgrade::{NodePhase, Phase, UpgradeStatus, Verdict};

use super::universe::{BuildNature, Fault, SEEING_TAKES, Telling, Universe, known_out, note};

/// What must hold of a status at the moment when it is written.
pub fn commit(u: &mut Universe, next: &UpgradeStatus) {
    take_out(u, next);
    admit(u, next);
    give_up(u, next);
}

/// Nobody is given up on the way back while it is we who reach nobody.
fn give_up(u: &mut Universe, next: &UpgradeStatus) {
    let now = u.now();
    let seen = |from: jiff::Timestamp| now.duration_since(from).as_secs() > SEEING_TAKES;
    let is_away = u.away.is_some_and(|(from, until)| seen(from) && now < until);
    if !is_away || next.phase != Phase::RollingBack && u.status.phase != Phase::RollingBack {
        return;
    }
    for i in 0..next.nodes.len() {
        let before = u.status.nodes.get(i).map(|node| node.phase);
        if next.nodes[i].phase == NodePhase::OutOfService && before != Some(NodePhase::OutOfService) {
            let text = format!("node{i} was left behind while nobody could be reached");
            note!(u, "{text}");
            u.broken.push(text);
        }
    }
}

/// I7: a node is admitted on what its gate has shown. That it shows worse by now is another matter.
fn admit(u: &mut Universe, next: &UpgradeStatus) {
    for i in 0..next.nodes.len() {
        let Some(before) = u.status.nodes.get(i) else { continue };
        let analysed = before.phase == NodePhase::Analyse
            && matches!(next.nodes[i].phase, NodePhase::Admit | NodePhase::Done)
            && next.phase == Phase::Rolling;
        let Some(since) = before.analysed_since.filter(|_| analysed) else {
            continue;
        };
        u.settle(i);
        let reading = u.reading(i, since);
        if reading.onset_at.is_none() && reading.verdict != Verdict::Pass {
            let text = format!("I7: node{i} admitted on {:?}", reading.verdict);
            note!(u, "{text}");
            u.broken.push(text);
        }
    }
}

/// I1, at the moment when a node is taken out.
fn take_out(u: &mut Universe, next: &UpgradeStatus) {
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
            note!(u, "{text}");
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
            // Each death takes the service down once, which is a reason to start it again; and a resumed upgrade may
            // pass a node twice, forward and back.
            if *times > 1 + node.deaths {
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
        if written.phase == NodePhase::Done && node.deaths == 0 && (runs != Some(goal) || node.current != goal) {
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
    if phase == Phase::Succeeded && u.status.reason == "Verified" {
        // As of the decision: a driver may stall before it is written.
        let decided = u.status.finished_at.unwrap_or(u.now());
        let dead = |t: jiff::Timestamp| decided.duration_since(t).as_secs() > SEEING_TAKES;
        if let Some(i) = u.nodes.iter().position(|n| n.down_since.is_some_and(dead)) {
            broken.push(format!(
                "I7: it succeeded, and node{i} has not served for {SEEING_TAKES} s"
            ));
        }
    }
    // Whatever happens to drivers alone is held against no build.
    let of_drivers = |fault: Fault| {
        matches!(
            fault,
            Fault::DriverKilled
                | Fault::NobodyDrives
                | Fault::DriverStalled
                | Fault::SecondDriver
                | Fault::StoreFails
                | Fault::AnswerLost
                | Fault::OperatorPauses
                | Fault::OperatorAborts
        )
    };
    let good = u.nature == BuildNature::Good && u.nodes.iter().all(|n| !n.cursed);
    if good && u.faults.iter().all(|(_, fault)| of_drivers(*fault)) && u.quarantined.is_some() {
        broken.push(format!("a good build was quarantined: {:?}", u.quarantined));
    }
    // I5: every phase that was entered was told, and each node's change too.
    let mut told: BTreeMap<&str, u32> = BTreeMap::new();
    for event in &u.events {
        *told.entry(event.reason.as_str()).or_default() += 1;
    }
    for entered in &u.entered {
        let times = u.entered.iter().filter(|p| *p == entered).count();
        let told = told.get(format!("{entered:?}").as_str()).copied().unwrap_or(0);
        if (told as usize) < times {
            broken.push(format!(
                "I5: {entered:?} was entered {times} times and told {told} times"
            ));
        }
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

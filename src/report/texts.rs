//! What operators read in their chat, all of it, in their habit: `COMPONENT@VERSION upgrade on: NODE by USER.` for a
//! step, and the shape of their availability notifications for what does not work.

use super::Subject;
use crate::model::upgrade::{Event, Severity};
use crate::signals::excerpt;
use crate::store::EventRecord;

/// Longer texts are cut: the smallest limit of the chats in use is 2,000 characters (Discord; Mattermost takes 16,383,
/// Slack 40,000), and nobody on shift reads more.
const LONGEST: usize = 1_800;

/// What a message says is cut in its middle when it is longer than the two together: it begins with our words, and ends with
/// the last lines of a script or a server, which say why it failed. A script's tail alone may have 4 KB.
const EXCERPT_BEGIN: usize = 250;
const EXCERPT_END: usize = 450;

/// A message in one line, as people get it: bounded, and without what could steer a terminal or a log, since messages quote
/// servers and scripts. Whoever needs all of it finds it in the record.
#[must_use]
pub fn in_one_line(message: &str) -> String {
    let line = excerpt(message, usize::MAX);
    let length = line.chars().count();
    if length <= EXCERPT_BEGIN + EXCERPT_END {
        return line;
    }
    let begin = line.chars().take(EXCERPT_BEGIN);
    begin
        .chain(" … ".chars())
        .chain(line.chars().skip(length - EXCERPT_END))
        .collect()
}

/// The text of an event.
#[must_use]
pub fn text(subject: &Subject, record: &EventRecord) -> String {
    let EventRecord { environment, event, .. } = record;
    let what = format!("{}@{}", subject.component, subject.version());
    let by = if subject.user.is_empty() {
        String::new()
    } else {
        format!(" by {}", subject.user)
    };
    let (host, message) = (
        event.node.as_deref().unwrap_or(environment),
        &in_one_line(&event.message),
    );
    let phase = |words: &str| format!("{what} upgrade of {environment} {words}{}", because(message));
    let promotion = |words: &str| format!("{what} promotion to {environment}: {words}.");
    let words = match event.reason.as_str() {
        "NodeUpgraded" => format!("{what} upgrade on: {host}{by}."),
        "NodeRolledBack" => format!("{what} rollback on: {host}{by}."),
        "GateFailed" | "NodeOutOfService" | "NodeLost" | "NodeUnreachable" | "NodeBack" => message.clone(),
        "UpdatesKept" | "UpdatesLost" | "PauseAsked" | "PauseDropped" | "AbortAsked" | "TakenOver" => {
            format!("{what} upgrade of {environment}: {message}")
        }
        "RollbackIneffective" => format!("the rollback of {what} did not cure it{}", because(message)),
        "Failed" => format!("{what} failed{}", because(message)),
        "Quarantined" => format!("{what} is quarantined for {environment}{}", because(message)),
        "QuarantineLifted" => {
            format!(
                "{what} may go onto {environment} again, released{by}{}",
                because(message)
            )
        }
        "PromotionAsked"
        | "PromotionSigned"
        | "Approved"
        | "ApprovalWithdrawn"
        | "Rejected"
        | "BreakGlassAsked"
        | "CancelAsked"
        | "PromotionRehearsing"
        | "PromotionUpgrading"
        | "PromotionSucceeded"
        | "RehearsalPassed"
        | "GlassBroken" => promotion(message),
        "PromotionWaiting" => promotion(&format!("it waits: {message}")),
        "PromotionFailed" => promotion(&format!("it has failed: {message}")),
        "PromotionRejected" => promotion(&format!("it is rejected: {message}")),
        "PromotionCancelled" => promotion(&format!("it has ended: {message}")),
        "PromotionPaused" => promotion(&format!("its upgrade pauses: {message}")),
        "PromotionResumed" => promotion(&format!("its upgrade goes on: {message}")),
        "FreezeBegun" => format!("{environment} is frozen{by}{}", because(message)),
        "FreezeLifted" => format!("{environment} is no longer frozen{by}{}", because(message)),
        "Preflight" => phase(&format!("begun{by}")),
        "Baseline" => phase("reads its baseline"),
        "Rolling" => phase("is rolling"),
        "Soak" => phase("is soaking"),
        "Succeeded" => phase("succeeded"),
        "RollingBack" => phase("is rolling back"),
        "ProvingCure" => phase("is proving the cure"),
        "RolledBack" => phase("was rolled back"),
        "Paused" => phase("is paused"),
        "Resumed" => phase(&format!("goes on as asked{by}")),
        "Inconclusive" => phase("is inconclusive and held"),
        "Aborted" => phase("was aborted"),
        "Errored" => phase("was stopped by an error of ours"),
        "NotDriven" => phase("stands still, since it cannot be driven"),
        // A word of a newer engine, or of a hand: it is told as it is rather than not at all.
        other => match &event.node {
            Some(node) => format!("{what} on {node} of {environment}: {other}{}", because(message)),
            None => phase(&format!("says {other}")),
        },
    };
    bounded(&match availability(event) {
        Some(availability) => format!(
            "Stagegate notification. Service: {}. Host: {host}. Availability: {availability}. Availability info: {words}",
            subject.component
        ),
        None => words,
    })
}

/// What an alert says of its service, in percent; `None` for what is no alert.
fn availability(event: &Event) -> Option<&'static str> {
    match (event.reason.as_str(), event.severity) {
        ("GateFailed" | "NodeOutOfService" | "NodeLost" | "RollbackIneffective" | "Failed" | "UpdatesLost", _) => {
            Some("0")
        }
        // The gate that failed has passed again; the node serves again.
        ("RolledBack" | "NodeBack", Severity::Alert) => Some("100"),
        // Held or on its way: nothing shows how well the service is.
        (_, Severity::Alert) => Some("unknown"),
        (_, Severity::Step) => None,
    }
}

fn because(message: &str) -> String {
    if message.is_empty() {
        ".".to_owned()
    } else {
        format!(": {message}")
    }
}

/// One line, without what could steer a terminal or a log: messages quote servers and scripts.
fn bounded(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST + 1)
        .collect();
    if line.chars().count() <= LONGEST {
        return line;
    }
    line.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use std::fmt::Write as _;

    fn said(user: &str, reason: &str, node: Option<&str>, message: &str) -> String {
        said_as(Severity::Step, user, reason, node, message)
    }

    fn said_as(severity: Severity, user: &str, reason: &str, node: Option<&str>, message: &str) -> String {
        let subject = Subject {
            component: "ticket-server".into(),
            build: "ticket-server-2.0.4".into(),
            user: user.into(),
        };
        let record = EventRecord {
            seq: 1,
            environment: "staging".into(),
            upgrade: None,
            promotion: None,
            event: Event {
                at: Timestamp::UNIX_EPOCH,
                reason: reason.into(),
                severity,
                node: node.map(str::to_owned),
                message: message.into(),
            },
        };
        text(&subject, &record)
    }

    #[test]
    fn texts_follow_the_operators_habit() {
        let over = "update-job: 31 of 33 calls over 5 s, limit 2%";
        let mut all = String::new();
        for (reason, node, message) in [
            ("Preflight", None, "3 nodes in 3 batches"),
            ("Baseline", None, "reading the gates on the old system for 30s"),
            ("Rolling", None, "batch 1 of 3"),
            ("NodeUpgraded", Some("node2"), "not shown"),
            ("GateFailed", Some("node2"), over),
            ("NodeOutOfService", Some("node3"), "does not answer"),
            ("RollingBack", None, over),
            ("NodeRolledBack", Some("node2"), "not shown"),
            ("ProvingCure", None, "every node is back"),
            ("RolledBack", None, "update-job passes again: cured"),
            ("RollbackIneffective", None, over),
            ("Quarantined", None, over),
            ("QuarantineLifted", None, "the row is gone"),
            ("Soak", None, "all nodes changed"),
            ("Succeeded", None, "every gate passed"),
            ("Paused", None, "an operator asked for it"),
            ("Resumed", None, ""),
            ("Inconclusive", None, "update-job undecided after 10m"),
            ("Aborted", None, "an operator asked for it"),
            ("Errored", None, "the disk is full"),
            ("Failed", None, "nothing to go back to"),
            ("SomethingNew", Some("node1"), "told all the same"),
            ("SomethingNew", None, ""),
        ] {
            let _ = writeln!(all, "{}", said("shifter", reason, node, message));
        }
        insta::assert_snapshot!(all, @r"
        ticket-server@2.0.4 upgrade of staging begun by shifter: 3 nodes in 3 batches
        ticket-server@2.0.4 upgrade of staging reads its baseline: reading the gates on the old system for 30s
        ticket-server@2.0.4 upgrade of staging is rolling: batch 1 of 3
        ticket-server@2.0.4 upgrade on: node2 by shifter.
        Stagegate notification. Service: ticket-server. Host: node2. Availability: 0. Availability info: update-job: 31 of 33 calls over 5 s, limit 2%
        Stagegate notification. Service: ticket-server. Host: node3. Availability: 0. Availability info: does not answer
        ticket-server@2.0.4 upgrade of staging is rolling back: update-job: 31 of 33 calls over 5 s, limit 2%
        ticket-server@2.0.4 rollback on: node2 by shifter.
        ticket-server@2.0.4 upgrade of staging is proving the cure: every node is back
        ticket-server@2.0.4 upgrade of staging was rolled back: update-job passes again: cured
        Stagegate notification. Service: ticket-server. Host: staging. Availability: 0. Availability info: the rollback of ticket-server@2.0.4 did not cure it: update-job: 31 of 33 calls over 5 s, limit 2%
        ticket-server@2.0.4 is quarantined for staging: update-job: 31 of 33 calls over 5 s, limit 2%
        ticket-server@2.0.4 may go onto staging again, released by shifter: the row is gone
        ticket-server@2.0.4 upgrade of staging is soaking: all nodes changed
        ticket-server@2.0.4 upgrade of staging succeeded: every gate passed
        ticket-server@2.0.4 upgrade of staging is paused: an operator asked for it
        ticket-server@2.0.4 upgrade of staging goes on as asked by shifter.
        ticket-server@2.0.4 upgrade of staging is inconclusive and held: update-job undecided after 10m
        ticket-server@2.0.4 upgrade of staging was aborted: an operator asked for it
        ticket-server@2.0.4 upgrade of staging was stopped by an error of ours: the disk is full
        Stagegate notification. Service: ticket-server. Host: staging. Availability: 0. Availability info: ticket-server@2.0.4 failed: nothing to go back to
        ticket-server@2.0.4 on node1 of staging: SomethingNew: told all the same
        ticket-server@2.0.4 upgrade of staging says SomethingNew.
        ");
    }

    #[test]
    fn alerts_name_service_host_availability_and_why() {
        let why = "update-job on node2: 31 of 33 calls over 5 s";
        let mut all = String::new();
        for (reason, node, message) in [
            ("RollingBack", None, why),
            ("RolledBack", None, "update-job passes again: cured"),
            ("Paused", None, "SharedDependencyDegraded: the old nodes wait too"),
            ("Inconclusive", None, "update-job undecided after 10m"),
            ("Errored", None, "the disk is full"),
            ("NodeOutOfService", Some("node3"), "does not answer"),
            (
                "NodeLost",
                Some("node1"),
                "node1 went out by itself: its service does not run",
            ),
            (
                "NodeUnreachable",
                Some("node1"),
                "node1 went out by itself: it cannot be reached",
            ),
            ("NodeBack", Some("node1"), "node1 is back"),
            ("SomethingNew", Some("node1"), "told all the same"),
        ] {
            let _ = writeln!(all, "{}", said_as(Severity::Alert, "shifter", reason, node, message));
        }
        insta::assert_snapshot!(all, @r"
        Stagegate notification. Service: ticket-server. Host: staging. Availability: unknown. Availability info: ticket-server@2.0.4 upgrade of staging is rolling back: update-job on node2: 31 of 33 calls over 5 s
        Stagegate notification. Service: ticket-server. Host: staging. Availability: 100. Availability info: ticket-server@2.0.4 upgrade of staging was rolled back: update-job passes again: cured
        Stagegate notification. Service: ticket-server. Host: staging. Availability: unknown. Availability info: ticket-server@2.0.4 upgrade of staging is paused: SharedDependencyDegraded: the old nodes wait too
        Stagegate notification. Service: ticket-server. Host: staging. Availability: unknown. Availability info: ticket-server@2.0.4 upgrade of staging is inconclusive and held: update-job undecided after 10m
        Stagegate notification. Service: ticket-server. Host: staging. Availability: unknown. Availability info: ticket-server@2.0.4 upgrade of staging was stopped by an error of ours: the disk is full
        Stagegate notification. Service: ticket-server. Host: node3. Availability: 0. Availability info: does not answer
        Stagegate notification. Service: ticket-server. Host: node1. Availability: 0. Availability info: node1 went out by itself: its service does not run
        Stagegate notification. Service: ticket-server. Host: node1. Availability: unknown. Availability info: node1 went out by itself: it cannot be reached
        Stagegate notification. Service: ticket-server. Host: node1. Availability: 100. Availability info: node1 is back
        Stagegate notification. Service: ticket-server. Host: node1. Availability: unknown. Availability info: ticket-server@2.0.4 on node1 of staging: SomethingNew: told all the same
        ");
    }

    #[test]
    fn nobody_is_named_when_nobody_is_known() {
        assert_eq!(
            said("", "NodeUpgraded", Some("node2"), ""),
            "ticket-server@2.0.4 upgrade on: node2."
        );
    }

    #[test]
    fn a_flood_from_a_script_becomes_one_bounded_line() {
        let flood = format!("install ended with 3: {}\u{1b}[2J\nno space left", "x".repeat(4_096));
        let said = said("", "Paused", None, &flood);
        assert!(said.chars().count() < EXCERPT_BEGIN + EXCERPT_END + 100, "{said}");
        assert!(
            said.contains("install ended with 3: xxx")
                && said.contains("x … x")
                && said.ends_with("x [2J no space left"),
            "{said}"
        );
        assert!(!said.contains(char::is_control));
        assert_eq!(in_one_line("a\r\n\n b\n"), "a b");
        let whole = "x".repeat(EXCERPT_BEGIN + EXCERPT_END);
        assert_eq!(in_one_line(&whole), whole);
    }
}

//! What must not stand in the source.

use crate::tree::files;

fn offences(rooms: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files(rooms) {
        for (number, line) in text.lines().enumerate() {
            // Documentation may speak of what code must not use.
            if line.trim_start().starts_with("//") {
                continue;
            }
            for word in words {
                // `0.5.1` is not in `0.5.11`.
                let whole = |at: usize| !line[at + word.len()..].starts_with(|c: char| c.is_ascii_digit());
                if line.match_indices(word).any(|(at, _)| whole(at)) {
                    found.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    found
}

#[test]
fn pure_rooms_touch_nothing_outside() {
    let found = offences(
        &[
            "src/model",
            "src/rollout",
            "src/promotion",
            "src/audit.rs",
            "src/gates",
            "src/lines.rs",
            "src/cluster/belonging.rs",
            "src/cluster/pod.rs",
            "src/cluster/rolling.rs",
            "src/cluster/rules.rs",
            "src/cluster/surge.rs",
            "src/cluster/replica/plan.rs",
            "src/cluster/replica/fields.rs",
            "src/cluster/replica/demand.rs",
            "src/cluster/replica/sight.rs",
            "src/engine/replica/drift.rs",
            "src/commits/policy",
            "src/commits/finding.rs",
            "src/commits/content",
            "src/commits/message",
            "src/commits/hooks.rs",
            "src/commits/github/webhook.rs",
            "src/commits/github/checks.rs",
            "src/commits/sarif.rs",
            "src/commits/proof/envelope.rs",
            "src/commits/proof/judge.rs",
            "src/commits/proof/statement.rs",
            "src/commits/proof/verdict.rs",
            "src/commits/tracker/issues.rs",
        ],
        &[
            "tokio",
            "reqwest",
            "rusqlite",
            "std::fs",
            "std::net",
            "std::process",
            "Instant::",
            "SystemTime",
            "Timestamp::now",
        ],
    );
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_engine_knows_nothing_of_the_system_that_it_upgrades() {
    let found = offences(
        &["src"],
        &[
            "panda",
            "PanDA",
            "jobsactive",
            "sitedata",
            "updateJob",
            "isAlive",
            "0.5.1",
            "0.8.1",
            "1.0.4",
        ],
    );
    assert!(found.is_empty(), "{found:#?}");
}

/// A filter of reports is checked against the list of reasons; an event that is called otherwise could be asked for by nobody.
#[test]
fn every_event_is_called_by_a_reason_that_is_known() {
    // Where an event is made, and what it is called there.
    let made = [
        r#"\btell\(\s*(?:self\.)?Severity::\w+,\s*"([A-Z]\w+)""#,
        r#"\btell\(\s*Severity::\w+,\s*"([A-Z]\w+)""#,
        r#"\bevent\(\s*(?:at|now|Timestamp::now\(\)),\s*"([A-Z]\w+)""#,
        r#"\bevent\(\s*"([A-Z]\w+)",\s*Severity"#,
        r#"\btold\(\s*"([A-Z]\w+)",\s*Severity"#,
        r#"\btell\(\s*component,\s*"([A-Z]\w+)""#,
        r#"\bEvent \{\s*at[^}]*?reason: "([A-Z]\w+)""#,
        r#"\bVerb::\w+ => \("([A-Z]\w+)""#,
        r#"const (?:SYNCED|OUT_OF_SYNC): &str = "([A-Z]\w+)""#,
    ];
    let made: Vec<regex::Regex> = made.iter().map(|m| regex::Regex::new(m).expect("a pattern")).collect();
    let known: std::collections::BTreeSet<&str> = stagegate::model::reasons::all().collect();
    let mut found = std::collections::BTreeSet::new();
    for (path, text) in files(&["src"]) {
        if path.to_string_lossy().contains("tests") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let names = made.iter().flat_map(|made| made.captures_iter(code));
        found.extend(names.map(|name| name[1].to_owned()));
    }
    let unknown: Vec<_> = found.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "src/model/reasons.rs does not have {unknown:?}");
    assert!(
        found.len() > 25,
        "events are made otherwise than this test looks for: {found:?}"
    );
}

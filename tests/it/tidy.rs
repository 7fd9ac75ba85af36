//! What must not stand in the source.

use std::path::{Path, PathBuf};

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .expect("a directory")
                    .map(|e| e.expect("an entry").path()),
            );
        } else {
            let text = std::fs::read_to_string(&path).expect("text");
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "{below} has no files");
    found
}

fn offences(rooms: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in rooms.iter().flat_map(|room| sources(room)) {
        for (number, line) in text.lines().enumerate() {
            // Documentation may speak of what code must not use.
            if line.trim_start().starts_with("//") {
                continue;
            }
            for word in words {
                if line.contains(word) {
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
        &["src/model", "src/rollout", "src/gates"],
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
        ],
    );
    assert!(found.is_empty(), "{found:#?}");
}

//! Any body of a delivery is a hint, none, or unreadable; and nothing but the right signature makes it authentic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stagegate::commits::github::webhook::{authentic, hint};

fuzz_target!(|bytes: &[u8]| {
    for event in ["push", "pull_request", "merge_group", "check_run", "check_suite", "ping"] {
        let _ = hint(event, bytes);
    }
    let signature = String::from_utf8_lossy(bytes);
    assert!(authentic(b"a secret", Some(&signature), bytes).is_err());
});

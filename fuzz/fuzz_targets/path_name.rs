//! A file of any name and content has a verdict of every rule, and is shown in one harmless line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stagegate::commits::content::{CHECKS, File, Mode};
use stagegate::commits::finding::{is_invisible, shown};
use stagegate::commits::policy::Policy;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (path, bytes) = input;
    let policy = Policy::built_in();
    let file = File::new(path, Mode::Regular, bytes);
    for check in CHECKS.iter().filter(|check| policy.covers(check.rule, path)) {
        let _ = (check.run)(&policy, &file);
    }
    assert!(!shown(path).chars().any(|c| c.is_control() || is_invisible(c)));
});

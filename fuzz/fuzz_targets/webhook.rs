//! Any body of a delivery is a hint, none, or unreadable; and nothing but the right signature makes it authentic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ring::hmac;
use stagegate::commits::github::webhook::{authentic, hint};

const SECRET: &[u8] = b"a secret";

fn header(tag: &[u8]) -> String {
    let digits: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

fuzz_target!(|input: (&[u8], usize)| {
    let (bytes, bit) = input;
    for event in ["push", "pull_request", "merge_group", "check_run", "check_suite", "ping"] {
        let _ = hint(event, bytes);
    }
    let mut tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), bytes).as_ref().to_vec();
    assert!(authentic(SECRET, Some(&header(&tag)), bytes).is_ok());
    let bit = bit % (tag.len() * 8);
    tag[bit / 8] ^= 1 << (bit % 8);
    assert!(authentic(SECRET, Some(&header(&tag)), bytes).is_err());
    // What is no signature at all is none, and nothing panics.
    let _ = authentic(SECRET, Some(&String::from_utf8_lossy(bytes)), bytes);
});

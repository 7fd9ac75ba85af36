//! Any bytes are a policy, or say what is wrong with them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stagegate::commits::policy::Policy;

fuzz_target!(|bytes: &[u8]| {
    if let Err(why) = Policy::read("policy.yaml", bytes) {
        assert!(!why.to_string().is_empty());
    }
});

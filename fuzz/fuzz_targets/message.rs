//! Whatever bytes a commit's message is, it has a verdict.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stagegate::commits::message::{Branch, Facts, Identity, Message, Revert, check, issues};
use stagegate::commits::policy::Policy;

const POLICY: &[u8] = b"apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\nspec:\n  message:\n    \
    issueKeys: {mode: MANDATORY, projects: [ABC], places: [subject, body, trailer]}\n    issue: {mode: MANDATORY, tracker: t}\n    \
    conventional: {mode: MANDATORY}\n    subject: {mode: MANDATORY}\n    body: {mode: MANDATORY}\n    fixups: {mode: MANDATORY}\n";

fuzz_target!(|bytes: &[u8]| {
    let policy = Policy::read("p", POLICY).expect("a constant");
    let facts = Facts {
        parents: Some(1),
        revert: Revert::Nothing,
        branch: Branch::Protected,
        identity: Identity::Unknown,
    };
    for message in [
        Message::new(bytes, None),
        Message::new(bytes, Some("ISO-8859-1")),
        Message::being_written(bytes, "#"),
    ] {
        let _ = (check(&policy, &message, &facts), issues(&policy, &message, &facts), message.reverts());
    }
});

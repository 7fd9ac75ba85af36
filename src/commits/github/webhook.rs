//! A delivery: whether GitHub sent it, and what it hints at.

use ring::hmac;
use serde::{Deserialize, Serialize};

/// The largest payload that GitHub sends ("Webhook events and payloads", 25 MB).
pub const MOST_BODY_BYTES: usize = 25 << 20;

/// Why a delivery is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// Without a signature, or with one of another kind: SHA-1 alone is not enough.
    #[error("it has no X-Hub-Signature-256 header of the form `sha256=HEX`; set a secret for the webhook")]
    Unsigned,
    /// Somebody else's, or changed on its way.
    #[error(
        "its signature is not that of these bytes with this secret; the secret here and at GitHub differ, or it is forged"
    )]
    Wrong,
}

/// Whether these very bytes were signed with the webhook's secret. To be asked before anything reads them.
///
/// # Errors
/// They were not.
pub fn authentic(secret: &[u8], signature: Option<&str>, body: &[u8]) -> Result<(), Forged> {
    let hex = signature
        .and_then(|header| header.strip_prefix("sha256="))
        .ok_or(Forged::Unsigned)?;
    let tag = unhex(hex).ok_or(Forged::Unsigned)?;
    // Compares in constant time.
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), body, &tag).map_err(|_| Forged::Wrong)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// What to look at, and nothing to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The repository, as `OWNER/NAME`.
    pub repository: String,
    /// What of it.
    pub about: About,
}

/// What a delivery is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// Heads have moved, appeared, or have another base: all of them are looked at.
    Heads,
    /// Somebody wants this commit checked once more.
    Again {
        /// Its full name.
        commit: String,
    },
    /// A commit that the merge queue has made, which no pull request lists.
    Group {
        /// Its full name.
        commit: String,
        /// The branch that it is to become, as a full ref.
        base: String,
    },
}

/// A payload that is not what its event says.
#[derive(Debug, thiserror::Error)]
#[error("its body is no `{event}` event as GitHub describes it: {why}")]
pub struct Unreadable {
    event: String,
    why: serde_json::Error,
}

#[derive(Deserialize)]
struct Payload {
    action: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    repository: Option<Repository>,
    changes: Option<Changes>,
    merge_group: Option<Group>,
    check_run: Option<Head>,
    check_suite: Option<Head>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Changes {
    base: Option<serde_json::Value>,
    title: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Group {
    head_sha: String,
    base_ref: String,
}

#[derive(Deserialize)]
struct Head {
    head_sha: String,
}

/// What a delivery of this event hints at; none for what does not concern us.
///
/// # Errors
/// The body is not what the event's description says.
pub fn hint(event: &str, body: &[u8]) -> Result<Option<Hint>, Unreadable> {
    if !matches!(
        event,
        "push" | "pull_request" | "merge_group" | "check_run" | "check_suite"
    ) {
        return Ok(None);
    }
    let payload: Payload = serde_json::from_slice(body).map_err(|why| Unreadable {
        event: event.to_owned(),
        why,
    })?;
    let Payload {
        action,
        reference,
        repository,
        changes,
        merge_group,
        check_run,
        check_suite,
    } = payload;
    let action = action.as_deref().unwrap_or_default();
    let again = |head: Option<Head>| {
        head.filter(|_| action == "rerequested")
            .map(|head| About::Again { commit: head.head_sha })
    };
    let about = match event {
        "push" => reference
            .is_some_and(|name| name.starts_with("refs/heads/"))
            .then_some(About::Heads),
        "pull_request" => match action {
            "opened" | "synchronize" | "reopened" | "ready_for_review" => Some(About::Heads),
            // The title is what a squash merge makes of it.
            "edited" => changes
                .is_some_and(|c| c.base.is_some() || c.title.is_some())
                .then_some(About::Heads),
            _ => None,
        },
        "merge_group" => merge_group
            .filter(|_| action == "checks_requested")
            .map(|group| About::Group {
                commit: group.head_sha,
                base: group.base_ref,
            }),
        "check_run" => again(check_run),
        _ => again(check_suite),
    };
    Ok(repository.zip(about).map(|(repository, about)| Hint {
        repository: repository.full_name,
        about,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of GitHub's own documentation ("Validating webhook deliveries").
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn only_these_bytes_with_this_secret_are_authentic() {
        assert_eq!(authentic(SECRET, Some(SIGNATURE), BODY), Ok(()));
        for (secret, signature, body, expected) in [
            (SECRET, None, BODY, Forged::Unsigned),
            (SECRET, Some(""), BODY, Forged::Unsigned),
            (SECRET, Some("sha1=01234567"), BODY, Forged::Unsigned),
            (SECRET, Some("sha256=zz"), BODY, Forged::Unsigned),
            (SECRET, Some("sha256=\u{e9}\u{e9}"), BODY, Forged::Unsigned),
            (SECRET, Some(&SIGNATURE[..31]), BODY, Forged::Wrong),
            (SECRET, Some(SIGNATURE), b"Hello, World! ".as_slice(), Forged::Wrong),
            (b"another".as_slice(), Some(SIGNATURE), BODY, Forged::Wrong),
        ] {
            assert_eq!(authentic(secret, signature, body), Err(expected), "{signature:?}");
        }
    }

    #[test]
    fn a_hint_says_where_to_look_and_what_does_not_concern_us_is_no_hint() {
        let repository = r#""repository": {"full_name": "o/n"}"#;
        for (event, body, expected) in [
            ("push", r#""ref": "refs/heads/main""#, Some(About::Heads)),
            ("push", r#""ref": "refs/tags/1""#, None),
            ("pull_request", r#""action": "synchronize""#, Some(About::Heads)),
            (
                "pull_request",
                r#""action": "edited", "changes": {"base": {}}"#,
                Some(About::Heads),
            ),
            ("pull_request", r#""action": "edited", "changes": {"body": {}}"#, None),
            ("pull_request", r#""action": "labeled""#, None),
            (
                "merge_group",
                r#""action": "checks_requested", "merge_group": {"head_sha": "a", "base_ref": "refs/heads/main"}"#,
                Some(About::Group {
                    commit: "a".to_owned(),
                    base: "refs/heads/main".to_owned(),
                }),
            ),
            (
                "merge_group",
                r#""action": "destroyed", "merge_group": {"head_sha": "a", "base_ref": "b"}"#,
                None,
            ),
            (
                "check_run",
                r#""action": "rerequested", "check_run": {"head_sha": "a"}"#,
                Some(About::Again { commit: "a".to_owned() }),
            ),
            (
                "check_run",
                r#""action": "completed", "check_run": {"head_sha": "a"}"#,
                None,
            ),
            (
                "check_suite",
                r#""action": "rerequested", "check_suite": {"head_sha": "a"}"#,
                Some(About::Again { commit: "a".to_owned() }),
            ),
            ("star", r#""action": "created""#, None),
        ] {
            let read = hint(event, format!("{{{body}, {repository}}}").as_bytes()).expect("well formed");
            assert_eq!(read.as_ref().map(|h| &h.about), expected.as_ref(), "{event} {body}");
            assert!(read.is_none_or(|h| h.repository == "o/n"));
        }
        assert!(hint("push", b"{").is_err() && hint("push", br#"{"ref": 1}"#).is_err());
        assert_eq!(hint("star", b"not read at all").ok(), Some(None));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(event in "(push|pull_request|merge_group|check_run|check_suite|x)", body in any::<Vec<u8>>()) {
            let _ = hint(&event, &body);
            prop_assert!(authentic(SECRET, Some(&String::from_utf8_lossy(&body)), &body).is_err());
        }
    }
}

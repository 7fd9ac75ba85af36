//! Private keys, and tokens of services that are known by how they begin.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use super::{File, Hit, MOST_IN_A_FILE, Mode, column};
use crate::commits::policy::Policy;

/// What `detect-private-key` of pre-commit-hooks knows, and the newer form of `PuTTY`. Written so that it does not find itself.
static PRIVATE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        "BEGIN (?:(?:RSA|DSA|EC|OPENSSH|ENCRYPTED|SSH2 ENCRYPTED) )?PRIVATE[ ]KEY|BEGIN PGP PRIVATE[ ]KEY BLOCK\
         |PuTTY-User-Key-File-[23]|BEGIN OpenVPN Static key V[1]",
    )
});

/// Tokens, each by the prefix that its service publishes for scanners.
static TOKENS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "an AWS access key"),
        (r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b", "a GitHub token"),
        (r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b", "a GitHub token"),
        (r"\bglpat-[A-Za-z0-9_-]{20,}", "a GitLab token"),
        (r"\bxox[abeoprs]-[0-9A-Za-z-]{20,}", "a Slack token"),
        (r"\b[rs]k_live_[0-9A-Za-z]{20,}", "a Stripe key"),
        (r"\bAIza[0-9A-Za-z_-]{35}", "a Google API key"),
        (r"\bnpm_[A-Za-z0-9]{36}\b", "an npm token"),
        (r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}", "a PyPI token"),
        (r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", "a SendGrid key"),
    ]
    .map(|(pattern, what)| (expression(pattern), what))
    .into()
});

/// One pass that says whether any of them is worth a look.
static ANY_TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    expression("AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|k_live_|AIza|npm_|pypi-AgE|SG\\.")
});

/// # Panics
/// Never: the patterns are constants, and the tests use each.
fn expression(pattern: &str) -> Regex {
    RegexBuilder::new(pattern)
        .unicode(false)
        .build()
        .unwrap_or_else(|e| unreachable!("{pattern}: {e}"))
}

pub(super) fn private_keys(_: &Policy, file: &File) -> Vec<Hit> {
    if !holds_text(file.mode) {
        return Vec::new();
    }
    let bytes = narrow(file.bytes);
    let found = PRIVATE_KEY.find_iter(&bytes).take(MOST_IN_A_FILE);
    found
        .map(|m| {
            let (line, column) = place(&bytes, m.start());
            Hit::at(
                line,
                column,
                "a private key begins here",
                "take it out of every commit, and replace the key: who has the repository has it",
            )
        })
        .collect()
}

pub(super) fn tokens(policy: &Policy, file: &File) -> Vec<Hit> {
    if !holds_text(file.mode) {
        return Vec::new();
    }
    let bytes = narrow(file.bytes);
    if !ANY_TOKEN.is_match(&bytes) {
        return Vec::new();
    }
    let mut hits = Vec::new();
    for (pattern, what) in TOKENS.iter() {
        for m in pattern.find_iter(&bytes) {
            let token = m.as_bytes();
            // AWS writes its documentation's keys so.
            if token.ends_with(b"EXAMPLE") || policy.harmless.is_match(token) {
                continue;
            }
            let (line, column) = place(&bytes, m.start());
            hits.push(Hit::at(
                line,
                column,
                format!(
                    "{what} (begins with {})",
                    String::from_utf8_lossy(&token[..8.min(token.len())])
                ),
                "take it out of every commit and revoke it; if it is harmless, an owner adds it to `secret.allow`",
            ));
        }
    }
    hits.sort_by_key(|hit| (hit.line, hit.column));
    hits.truncate(MOST_IN_A_FILE);
    hits
}

/// A link holds the name that it leads to, and that can be any text.
fn holds_text(mode: Mode) -> bool {
    mode.is_file() || mode == Mode::Link
}

/// Text in UTF-16 without its zero bytes, so that what is ASCII in it reads as ASCII; all else as it is.
fn narrow(bytes: &[u8]) -> Cow<'_, [u8]> {
    let begin = &bytes[..bytes.len().min(64)];
    let zeros: usize = begin.iter().map(|b| usize::from(*b == 0)).sum();
    let marked = begin.starts_with(&[0xff, 0xfe]) || begin.starts_with(&[0xfe, 0xff]);
    if marked || (begin.len() > 3 && zeros * 3 >= begin.len()) {
        Cow::Owned(bytes.iter().copied().filter(|b| *b != 0).collect())
    } else {
        Cow::Borrowed(bytes)
    }
}

fn place(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = &bytes[..at];
    let begin = before.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let line = before.split(|b| *b == b'\n').count();
    (line, column(&bytes[begin..], at - begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> Vec<String> {
        let policy = Policy::built_in();
        let file = File::new(b"a", Mode::Regular, bytes);
        let hits = private_keys(&policy, &file).into_iter().chain(tokens(&policy, &file));
        hits.map(|h| format!("{}:{} {}", h.line, h.column, h.message)).collect()
    }

    #[test]
    fn private_keys_are_found_wherever_they_stand() {
        let key = concat!("-----BEGIN RSA PRIVATE", " KEY-----\n");
        assert_eq!(
            found(format!("x\n  {key}").as_bytes()),
            ["2:8 a private key begins here"]
        );
        let utf16: Vec<u8> = key.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(found(&utf16).len(), 1, "without a mark");
        assert_eq!(found(&[&[0xff, 0xfe], utf16.as_slice()].concat()).len(), 1, "with one");
        assert_eq!(found(&[b"\x00\x01\x02binary", key.as_bytes()].concat()).len(), 1);
        assert_eq!(found(b"-----BEGIN PUBLIC KEY-----\n"), Vec::<String>::new());
    }

    #[test]
    fn tokens_are_known_by_how_they_begin() {
        let digits = |n: usize| "0123456789".chars().cycle().take(n).collect::<String>();
        for (token, what) in [
            (format!("AKIA{}", digits(16)), "an AWS access key"),
            (format!("ghp_{}", digits(36)), "a GitHub token"),
            (format!("github_pat_{}_{}", digits(22), digits(59)), "a GitHub token"),
            (format!("glpat-{}", digits(20)), "a GitLab token"),
            (format!("xoxb-{}", digits(24)), "a Slack token"),
            (format!("sk_live_{}", digits(24)), "a Stripe key"),
            (format!("AIza{}", digits(35)), "a Google API key"),
            (format!("npm_{}", digits(36)), "an npm token"),
            (format!("pypi-AgEIcHlwaS5vcmc{}", digits(60)), "a PyPI token"),
            (format!("SG.{}.{}", digits(22), digits(43)), "a SendGrid key"),
        ] {
            let hits = found(format!("key = \"{token}\"\n").as_bytes());
            assert_eq!(hits.len(), 1, "{token}");
            assert!(hits[0].contains(what) && !hits[0].contains(&token), "{}", hits[0]);
        }
        assert_eq!(found(b"AKIAIOSFODNN7EXAMPLE"), Vec::<String>::new());
    }

    #[test]
    fn a_token_that_the_policy_knows_is_harmless() {
        let head = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\n";
        let text = format!("{head}spec: {{content: {{secret: {{allow: ['^npm_0+$']}}}}}}\n");
        let policy = Policy::read("p", text.as_bytes()).expect("valid");
        let token = format!("npm_{}", "0".repeat(36));
        assert!(tokens(&policy, &File::new(b"a", Mode::Regular, token.as_bytes())).is_empty());
        assert!(!tokens(&Policy::built_in(), &File::new(b"a", Mode::Regular, token.as_bytes())).is_empty());
    }
}

//! Addresses that tokens are sent to.

/// What is wrong with an address that a token is to be sent to, and what to do.
///
/// More is added to its end, so it ends with a path; and what looks like a host in front of an `@` is none.
#[must_use]
pub fn trouble(url: &str) -> Option<(String, &'static str)> {
    let local = url.starts_with("http://127.0.0.1:");
    let Some(rest) = url.strip_prefix("https://").or(local.then(|| &url["http://".len()..])) else {
        return Some((format!("`{url}` is no https URL"), "tokens are sent there"));
    };
    let host = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        // It is not shown: there may be a password in it.
        let message = "the URL names a user in front of its host".to_owned();
        return Some((
            message,
            "leave out what ends with `@`; who asks is said by the other keys, and by a secret",
        ));
    }
    if host.is_empty() {
        return Some((format!("`{url}` names no host"), "as https://its.example.org"));
    }
    if let Some(odd) = url
        .chars()
        .find(|c| matches!(c, '?' | '#' | '\\') || c.is_whitespace() || c.is_control())
    {
        return Some((
            format!("`{}` has {odd:?} in it", url.escape_debug()),
            "give the address alone: what is asked is added to its end",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_to_a_host_that_can_be_seen_and_to_nothing_behind_it() {
        for (url, expected) in [
            ("https://its.example.org", ""),
            ("https://its.example.org:8443/jira/", ""),
            ("https://its.example.org/~bot@home", ""),
            ("http://127.0.0.1:8080/jira", ""),
            ("http://its.example.org", "is no https URL"),
            ("http://127.0.0.1.example.org", "is no https URL"),
            ("its.example.org", "is no https URL"),
            ("https://", "names no host"),
            ("https:///jira", "names no host"),
            (
                "https://bot:secret@its.example.org",
                "names a user in front of its host",
            ),
            (
                "http://127.0.0.1:80@its.example.org",
                "names a user in front of its host",
            ),
            ("https://its.example.org/?os_authType=basic", "has '?' in it"),
            ("https://its.example.org/jira#x", "has '#' in it"),
            ("https://its.example.org\\@evil.example.org", r"has '\\' in it"),
            ("https://its.example.org/a b", "has ' ' in it"),
        ] {
            let said = trouble(url).map_or_else(String::new, |(message, _)| message);
            assert!(
                said.contains(expected) && said.is_empty() == expected.is_empty(),
                "{url}: {said}"
            );
            assert!(!said.contains("secret"), "{said}");
        }
    }
}

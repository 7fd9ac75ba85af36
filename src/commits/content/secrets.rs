//! Private keys, and tokens of services that are known by how they begin.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

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

/// What lets somebody in, known by its form.
struct Kind {
    what: &'static str,
    pattern: &'static str,
    /// Made when it is first asked: all of them take milliseconds, and most commits have nothing that begins like one.
    made: OnceLock<Regex>,
}

impl Kind {
    const fn new(pattern: &'static str, what: &'static str) -> Self {
        Self {
            what,
            pattern,
            made: OnceLock::new(),
        }
    }

    fn regex(&self) -> &Regex {
        self.made.get_or_init(|| expression(self.pattern))
    }
}

/// Tokens, each by the form that its service publishes for scanners, or that its format fixes (JSON Web Token: RFC 7519). The
/// guide lists them, and [`ANY_TOKEN`] has how each begins.
static TOKENS: [Kind; 19] = [
    Kind::new(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "an AWS access key"),
    Kind::new(
        r#"(?:aws_?secret|AWS_SECRET|[sS]ecretAccess)[A-Za-z_]{0,20}["']?\s{0,4}(?:=>|[:=])\s{0,4}["']?[A-Za-z0-9/+]{40}\b"#,
        "an AWS secret key",
    ),
    Kind::new(r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b", "a GitHub token"),
    Kind::new(r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b", "a GitHub token"),
    Kind::new(r"\bglpat-[A-Za-z0-9_-]{20,}", "a GitLab token"),
    Kind::new(r"\bxox[abeoprs]-[0-9A-Za-z-]{20,}", "a Slack token"),
    Kind::new(
        r"\bhooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}",
        "a Slack webhook",
    ),
    Kind::new(r"\b[rs]k_live_[0-9A-Za-z]{20,}", "a Stripe key"),
    Kind::new(r"\bAIza[0-9A-Za-z_-]{35}", "a Google API key"),
    Kind::new(r"\bnpm_[A-Za-z0-9]{36}\b", "an npm token"),
    Kind::new(r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}", "a PyPI token"),
    Kind::new(r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", "a SendGrid key"),
    Kind::new(r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}", "an OpenAI key"),
    Kind::new(r"\bsk-ant-[a-z0-9]{1,10}-[A-Za-z0-9_-]{80,}", "an Anthropic key"),
    Kind::new(r"\bhf_[A-Za-z]{34}\b", "a Hugging Face token"),
    Kind::new(r"\bdckr_pat_[A-Za-z0-9_-]{27}", "a Docker token"),
    Kind::new(r"\bhvs\.[A-Za-z0-9_-]{90,}", "a Vault token"),
    Kind::new(r"\bAccountKey=[A-Za-z0-9+/]{86}==", "an Azure storage key"),
    Kind::new(
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}",
        "a JSON Web Token",
    ),
];

/// RFC 3986, 3.2.1.
static URL: Kind = Kind::new(URL_WITH_PASSWORD, "a URL with a password");

/// `scheme://user:password@host`, the parts as groups.
const URL_WITH_PASSWORD: &str = r#"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s/?#:@"'`<>]{0,64}):([^\s/?#@"'`<>]{3,256})@([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]|[$%{][^\s/"'`<>]{0,64})"#;

/// One pass that says whether any of them is worth a look.
static ANY_TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"AKIA|ASIA|aws_?secret|AWS_SECRET|[sS]ecretAccess|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|hooks\.slack|k_live_|AIza|npm_|pypi-AgE|SG\.|sk-proj-|sk-svcacct-|sk-admin-|sk-ant-|hf_|dckr_pat_|hvs\.|AccountKey=|eyJ",
    )
});

/// A URL's user and host come first to the next byte after `://`.
static SCHEME_ENDS: LazyLock<Regex> = LazyLock::new(|| expression("://"));
/// How far behind that an `@` can stand: [`URL_WITH_PASSWORD`].
const USER_BYTES: usize = 64 + 1 + 256 + 1;

/// Whether there may be a URL with a user. There are URLs everywhere, and few with one.
fn names_a_user(bytes: &[u8]) -> bool {
    SCHEME_ENDS.find_iter(bytes).any(|m| {
        let behind = &bytes[m.end()..(m.end() + USER_BYTES).min(bytes.len())];
        behind.contains(&b'@')
    })
}

/// What stands for a password in examples and in what is set up anew for each test.
const NO_PASSWORDS: [&str; 12] = [
    "changeme",
    "redacted",
    "hidden",
    "guest",
    "root",
    "admin",
    "postgres",
    "test",
    "example",
    "placeholder",
    "none",
    "pass",
];
/// What a word has in it that stands for a password.
const NAMES_OF_PASSWORDS: [&str; 6] = ["password", "passwd", "passphrase", "secret", "token", "pwd"];

/// The password of a URL that lets nobody in anywhere: it stands for one, or is the user's name, or its host is this machine or
/// one of documentation (RFC 2606, RFC 6761).
fn is_for_show(found: &[u8]) -> bool {
    let Some(parts) = URL.regex().captures(found) else {
        return false;
    };
    let part = |n| {
        parts
            .get(n)
            .map_or_else(String::new, |m| String::from_utf8_lossy(m.as_bytes()).into_owned())
    };
    let (user, password, host) = (part(1), part(2), part(3).to_ascii_lowercase());
    let word = password.to_ascii_lowercase();
    let of_nobody = |name: &str| {
        [
            "example",
            "test",
            "invalid",
            "localhost",
            "example.com",
            "example.org",
            "example.net",
        ]
        .iter()
        .any(|end| {
            name.strip_suffix(end)
                .is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    };
    password == user
        || is_variable(&password)
        || word.bytes().all(|b| b == b'x')
        || NO_PASSWORDS.contains(&word.as_str())
        || is_a_name_for_one(&password)
        || of_nobody(&host)
        || host.starts_with("127.")
        || host == "[::1]"
}

/// `$NAME`, `${…}`, `$(…)`, `{…}`, `%s`, `%(…)s`, `%NAME%`, stars or dots, and nothing else.
fn is_variable(password: &str) -> bool {
    static FORMS: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"^(?:\$[A-Z_][A-Z0-9_]*|\$?\{[^}]*\}+|\$\([^)]*\)|%s|%\([^)]*\)s|%[A-Z_]+%|[*.]+|\[[^\]]*\])$")
    });
    FORMS.is_match(password.as_bytes())
}

/// Small letters, `-` and `_` that say what belongs here: `your_password`, `my-secret-pw`.
fn is_a_name_for_one(password: &str) -> bool {
    let plain = password
        .bytes()
        .all(|b| b.is_ascii_lowercase() || matches!(b, b'-' | b'_'));
    plain && NAMES_OF_PASSWORDS.iter().any(|name| password.contains(name))
}

/// What AWS and Slack write in their documentation, and the key of Microsoft's emulator of Azure's storage.
fn is_published(token: &[u8]) -> bool {
    let last = token.last().copied().unwrap_or_default();
    token.ends_with(b"EXAMPLE")
        || token.ends_with(b"EXAMPLEKEY")
        || token.starts_with(b"AccountKey=Eby8vdM02xNOcqF")
        || token.len() > 20 && last.is_ascii_uppercase() && token[token.len() - 20..].iter().all(|b| *b == last)
}

/// Bytes of a token that are shown, so that who owns it knows which one it is.
const SHOWN_BYTES: usize = 8;

/// Where tokens are in these bytes, by their kinds, but for those that let nobody in.
fn tokens_in<'a>(policy: &Policy, bytes: &'a [u8]) -> Vec<(regex::bytes::Match<'a>, &'static str)> {
    let mut found = Vec::new();
    let mut find = |kind: &Kind, is_for_show: fn(&[u8]) -> bool| {
        let lets_nobody_in =
            |token: &[u8]| is_published(token) || policy.harmless.is_match(token) || is_for_show(token);
        // What is harmless does not count, or it would hide what comes after it.
        let those = kind.regex().find_iter(bytes).filter(|m| !lets_nobody_in(m.as_bytes()));
        found.extend(those.take(MOST_IN_A_FILE).map(|m| (m, kind.what)));
    };
    if ANY_TOKEN.is_match(bytes) {
        for kind in &TOKENS {
            find(kind, |_| false);
        }
    }
    if names_a_user(bytes) {
        find(&URL, is_for_show);
    }
    found
}

/// What is shown of a name: no more of a token in it than of one in a file.
#[must_use]
pub fn without_tokens<'a>(policy: &Policy, name: &'a [u8]) -> Cow<'a, [u8]> {
    let mut tokens = tokens_in(policy, name);
    if tokens.is_empty() {
        return Cow::Borrowed(name);
    }
    tokens.sort_by_key(|(m, _)| m.start());
    let (mut safe, mut at) = (Vec::new(), 0);
    for (token, _) in tokens {
        // One may lie within another.
        let shown = (token.start() + SHOWN_BYTES).min(token.end());
        if token.start() >= at {
            safe.extend_from_slice(&name[at..shown]);
            safe.extend_from_slice("…".as_bytes());
        }
        at = at.max(token.end());
    }
    safe.extend_from_slice(&name[at..]);
    Cow::Owned(safe)
}

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
    let mut hits = Vec::new();
    for bytes in readings(file.bytes) {
        hits.extend(PRIVATE_KEY.find_iter(&bytes).take(MOST_IN_A_FILE).map(|m| {
            let (line, column) = place(&bytes, m.start());
            Hit::at(
                line,
                column,
                "a private key begins here",
                "take it out of every commit, and replace the key: who has the repository has it",
            )
        }));
    }
    once_each(hits)
}

pub(super) fn tokens(policy: &Policy, file: &File) -> Vec<Hit> {
    let mut hits: Vec<Hit> = tokens_in(policy, file.path)
        .into_iter()
        .map(|(token, what)| Hit::whole(format!("its name has {}", told(&token, what)), REVOKE))
        .collect();
    let readings = holds_text(file.mode).then(|| readings(file.bytes));
    for bytes in readings.into_iter().flatten() {
        // Their lines are counted from the first byte on, so of many only the first are.
        let mut found = tokens_in(policy, &bytes);
        found.sort_by_key(|(token, _)| token.start());
        found.truncate(MOST_IN_A_FILE);
        hits.extend(found.into_iter().map(|(token, what)| {
            let (line, column) = place(&bytes, token.start());
            Hit::at(line, column, told(&token, what), REVOKE)
        }));
    }
    once_each(hits)
}

/// In their order, within the bound. What has zero bytes before it stands in another column without them.
fn once_each(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by(|a, b| (a.line, &a.message, a.column).cmp(&(b.line, &b.message, b.column)));
    hits.dedup_by(|a, b| a.line == b.line && a.message == b.message);
    hits.sort_by_key(|hit| (hit.line, hit.column));
    hits.truncate(MOST_IN_A_FILE);
    hits
}

const REVOKE: &str = "take it out of every commit and revoke it; if it is harmless, an owner adds it to `secret.allow`";

fn told(token: &regex::bytes::Match, what: &str) -> String {
    let begin = &token.as_bytes()[..SHOWN_BYTES.min(token.len())];
    format!("{what} (begins with {})", String::from_utf8_lossy(begin))
}

/// A link holds the name that it leads to, and that can be any text.
fn holds_text(mode: Mode) -> bool {
    mode.is_file() || mode == Mode::Link
}

/// What is looked at: the bytes as they are, and, where there are zero bytes, without those, so that what is ASCII in UTF-16 or
/// UTF-32 reads as ASCII, wherever in a file it stands.
fn readings(bytes: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let has_zeros = bytes.contains(&0);
    let narrow = has_zeros.then(|| Cow::Owned(bytes.iter().copied().filter(|b| *b != 0).collect()));
    std::iter::once(Cow::Borrowed(bytes)).chain(narrow)
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

    /// Apart from what makes it one, or this file would be refused.
    const PASSWORD: &str = "tops3cret";

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
        let late: Vec<u8> = "\u{4e2d}"
            .repeat(100)
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(
            found(&[late.as_slice(), utf16.as_slice()].concat()).len(),
            1,
            "after much that is no ASCII"
        );
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
            (format!("aws_secret_access_key = {}", digits(40)), "an AWS secret key"),
            (format!("AWS_SECRET_ACCESS_KEY={}", digits(40)), "an AWS secret key"),
            (format!("\"SecretAccessKey\": \"{}\"", digits(40)), "an AWS secret key"),
            (
                format!("hooks.slack.com/services/T{0}/B{0}/{1}", digits(9), digits(24)),
                "a Slack webhook",
            ),
            (format!("sk-proj-{}", digits(48)), "an OpenAI key"),
            (format!("sk-ant-api03-{}", digits(90)), "an Anthropic key"),
            (
                format!("hf_{}", "abcd".repeat(9)[..34].to_owned()),
                "a Hugging Face token",
            ),
            (format!("dckr_pat_{}", digits(27)), "a Docker token"),
            (format!("hvs.{}", digits(95)), "a Vault token"),
            (format!("AccountKey={}==", digits(86)), "an Azure storage key"),
            (format!("eyJ{0}.eyJ{0}.{1}", digits(20), digits(43)), "a JSON Web Token"),
            (format!("postgres://u:{PASSWORD}@db.site.ch/d"), "a URL with a password"),
            (
                format!("amqp://:{PASSWORD}@[2001:db8::1]:61613"),
                "a URL with a password",
            ),
        ] {
            let hits = found(format!("key = \"{token}\"\n").as_bytes());
            assert_eq!(hits.len(), 1, "{token}");
            assert!(hits[0].contains(what) && !hits[0].contains(&token), "{}", hits[0]);
        }
        assert_eq!(found(b"AKIAIOSFODNN7EXAMPLE"), Vec::<String>::new());
    }

    #[test]
    fn the_guide_lists_every_kind() {
        let guide = include_str!("../../../docs/guides/commits.md");
        for Kind { what, .. } in TOKENS.iter().chain([&URL]) {
            let kind = what.split_once(' ').map_or(*what, |(_, kind)| kind);
            assert!(guide.contains(kind), "{what}");
        }
    }

    #[test]
    fn a_url_whose_password_lets_nobody_in_is_none() {
        for harmless in [
            "https://user:password@www.site.ch",
            "https://user:${PASSWORD}@www.site.ch",
            "postgres://{user}:{password}@{host}",
            "postgres://u:%(password)s@db.site.ch",
            "ftp://u:xxxx@db.site.ch",
            "https://u:****@db.site.ch",
            "amqp://guest:guest@rabbitmq:5672/",
            "postgres://postgres:postgres@db:5432/d",
            "mysql://u:my-secret-pw@mysql/d",
            "https://u:REDACTED@db.site.ch",
            "https://u:personal_access_token@github.com",
            "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
            "postgres://u:tops3cret@localhost:5432/d",
            "postgres://u:tops3cret@127.0.0.1/d",
            "postgres://u:tops3cret@[::1]/d",
            "postgres://u:tops3cret@db.example.org/d",
            "https://www.site.ch:25443/server?mail=a:b@site.ch",
            "http://www.site.ch:25443/@x",
        ] {
            assert_eq!(found(harmless.as_bytes()), Vec::<String>::new(), "{harmless}");
        }
        // What merely begins as a placeholder does, and a host that is a variable.
        for (password, host) in [
            ("%23Secret9", "db.site.ch"),
            ("$ecretPass9", "db.site.ch"),
            ("RealPass77", "${DB_HOST}"),
            ("{x}y", "db.site.ch"),
        ] {
            assert_eq!(
                found(format!("https://u:{password}@{host}/d").as_bytes()).len(),
                1,
                "{password}@{host}"
            );
        }
        // What merely ends as a documentation's host does.
        assert_eq!(
            found(format!("https://u:{PASSWORD}@notexample.org").as_bytes()).len(),
            1
        );
    }

    #[test]
    fn what_is_harmless_hides_nothing_and_of_many_the_first_are_told() {
        let digits = "0123456789abcdef";
        let harmless = "AKIAIOSFODNN7EXAMPLE\n".repeat(5_000);
        let text = format!("{harmless}{}", format!("AKIA{}\n", digits.to_uppercase()).repeat(5_000));
        let hits = found(text.as_bytes());
        assert_eq!(hits.len(), MOST_IN_A_FILE);
        assert!(hits[0].starts_with("5001:1 "), "{}", hits[0]);
    }

    #[test]
    fn a_token_in_a_name_is_found_and_not_shown() {
        let policy = Policy::built_in();
        let token = format!("ghp_{}", "0123456789abcdef".repeat(3));
        let name = format!("keys/{token}.txt");
        for mode in [Mode::Regular, Mode::Link, Mode::Submodule] {
            let hits = tokens(&policy, &File::new(name.as_bytes(), mode, b""));
            assert_eq!(hits.len(), 1, "{mode:?}");
            assert_eq!(hits[0].message, "its name has a GitHub token (begins with ghp_0123)");
        }
        assert_eq!(
            without_tokens(&policy, name.as_bytes()),
            "keys/ghp_0123….txt".as_bytes()
        );
        assert_eq!(
            without_tokens(&policy, format!("{token}/{token}").as_bytes()),
            "ghp_0123…/ghp_0123…".as_bytes()
        );
        assert!(matches!(
            without_tokens(&policy, b"src/a.py"),
            Cow::Borrowed(b"src/a.py")
        ));
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

//! Rules about messages. What exempts a message is what cannot be typed into it: a second parent, an ancestor that is really
//! reverted, an identity that somebody else vouches for.

mod form;
pub mod keys;
pub mod signature;

use std::borrow::Cow;

use super::finding::{Level, Rule};
use super::policy::{Mode, Policy};

/// Longest message that is looked at. The kernel's longest has some 30 kB.
pub const MOST_BYTES: usize = 64 << 10;
/// Findings of one rule in one message.
const MOST_IN_A_MESSAGE: usize = 5;

/// What a commit's message is, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The first line that is not empty, blanks at its ends included.
    pub subject: String,
    /// The lines after it, as they stand.
    pub rest: Vec<String>,
    /// `Token: value` lines of the last paragraph.
    pub trailers: Vec<(String, String)>,
    /// What is wrong with the bytes.
    pub flaw: Option<Flaw>,
}

/// Why bytes are no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// A zero byte: git's own tools stop reading there.
    Zero,
    /// Not UTF-8, and no encoding is named that we know.
    Encoding,
    /// More than [`MOST_BYTES`].
    Long(usize),
}

impl Message {
    /// Takes a message apart. `encoding` is what the commit says of it (`i18n.commitEncoding`).
    #[must_use]
    pub fn new(bytes: &[u8], encoding: Option<&str>) -> Self {
        let looked_at = &bytes[..bytes.len().min(MOST_BYTES)];
        let (text, known) = decoded(looked_at, encoding);
        let flaw = if bytes.contains(&0) {
            Some(Flaw::Zero)
        } else if bytes.len() > MOST_BYTES {
            Some(Flaw::Long(bytes.len()))
        } else if known {
            None
        } else {
            Some(Flaw::Encoding)
        };
        let mut lines = text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l));
        let subject = lines
            .by_ref()
            .find(|l| !l.trim().is_empty())
            .unwrap_or_default()
            .to_owned();
        let mut rest: Vec<String> = lines.map(str::to_owned).collect();
        while rest.last().is_some_and(|l| l.trim().is_empty()) {
            rest.pop();
        }
        Self {
            trailers: trailers(&rest),
            subject,
            rest,
            flaw,
        }
    }

    /// The same for the file that git hands to `commit-msg`: comments and what stands below the scissors are no message.
    #[must_use]
    pub fn being_written(bytes: &[u8], comment: &str) -> Self {
        let scissors = format!("{comment} ------------------------ >8 ------------------------");
        let kept: Vec<&[u8]> = bytes
            .split_inclusive(|b| *b == b'\n')
            .take_while(|line| line.trim_ascii_end() != scissors.as_bytes())
            .filter(|line| comment.is_empty() || !line.starts_with(comment.as_bytes()))
            .collect();
        Self::new(&kept.concat(), None)
    }

    /// The commit that a revert says it reverts, in full.
    #[must_use]
    pub fn reverts(&self) -> Option<&str> {
        if !self.subject.starts_with("Revert ") && !self.subject.starts_with("Reapply ") {
            return None;
        }
        let named = self.rest.iter().find_map(|l| l.split_once("This reverts commit "))?.1;
        let name = named.get(..40)?;
        name.bytes().all(|b| b.is_ascii_hexdigit()).then_some(name)
    }
}

/// The text, and whether it is surely what was meant.
fn decoded<'a>(bytes: &'a [u8], encoding: Option<&str>) -> (Cow<'a, str>, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), !encoding.is_some_and(hides_ascii)),
        // A cut in the middle of a character is ours.
        Err(e) if e.error_len().is_none() && bytes.len() == MOST_BYTES => (String::from_utf8_lossy(bytes), true),
        Err(_) => match encoding.map(str::to_ascii_lowercase).as_deref() {
            // Every byte is the character of its number; the difference of the others is in signs, not in letters that
            // a rule reads.
            Some("iso-8859-1" | "iso8859-1" | "latin1" | "latin-1" | "iso-8859-15" | "windows-1252" | "cp1252") => {
                (Cow::Owned(bytes.iter().map(|b| char::from(*b)).collect()), true)
            }
            Some(_) | None => (String::from_utf8_lossy(bytes), false),
        },
    }
}

/// Whether bytes that look like ASCII are read as something else by who believes the commit.
fn hides_ascii(encoding: &str) -> bool {
    let name = encoding.to_ascii_lowercase().replace(['-', '_'], "");
    [
        "utf7", "utf16", "utf32", "ucs", "iso2022", "hz", "ibm037", "cp037", "ebcdic",
    ]
    .iter()
    .any(|begin| name.starts_with(begin))
}

/// Those of the last paragraph, if it has nothing else (git-interpret-trailers(1) is a little wider).
fn trailers(rest: &[String]) -> Vec<(String, String)> {
    let begin = rest.iter().rposition(|l| l.trim().is_empty()).map_or(0, |at| at + 1);
    let mut found: Vec<(String, String)> = Vec::new();
    for line in &rest[begin..] {
        if line.starts_with([' ', '\t'])
            && let Some((_, value)) = found.last_mut()
        {
            value.push(' ');
            value.push_str(line.trim());
            continue;
        }
        let Some((token, value)) = line.split_once(':') else {
            return Vec::new();
        };
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Vec::new();
        }
        found.push((token.to_owned(), value.trim().to_owned()));
    }
    found
}

/// What is known of a commit beside its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// How many parents it has; none where that is not known yet, before the commit exists.
    pub parents: Option<usize>,
    /// Whether what it says it reverts is an ancestor.
    pub revert: Revert,
    /// Where it goes.
    pub branch: Branch,
    /// Who vouches for it.
    pub identity: Identity,
}

/// Whether a commit reverts what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revert {
    /// It names no commit, or none of its ancestors.
    Nothing,
    /// It names an ancestor.
    OfAncestor,
}

/// Where a commit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Branch {
    /// Onto a protected branch.
    Protected,
    /// Anywhere else.
    Topic,
}

/// Who vouches for a commit, by what nobody can type into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody that the policy knows.
    Unknown,
    /// The server names who pushes, and the policy exempts them.
    Pusher(String),
    /// A key that the policy knows has signed it.
    Signer(String),
    /// GitHub says that an App has made it that the policy exempts, by its id.
    App(u64),
}

impl Identity {
    /// Whether somebody vouches whom the policy exempts.
    #[must_use]
    pub fn is_vouched_for(&self) -> bool {
        match self {
            Identity::Unknown => false,
            Identity::Pusher(_) | Identity::Signer(_) | Identity::App(_) => true,
        }
    }
}

/// What a message breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which rule.
    pub rule: Rule,
    /// Whether that refuses.
    pub level: Level,
    /// Line of the message, from 1; 0 for the message as a whole.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

/// Asks every rule of messages.
#[must_use]
pub fn check(policy: &Policy, message: &Message, facts: &Facts) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if facts.identity.is_vouched_for() {
        return breaches;
    }
    text(policy, message, &mut breaches);
    if facts.parents.is_some_and(|n| n > 1) {
        return breaches;
    }
    if facts.branch == Branch::Protected {
        form::fixup(policy, message, &mut breaches);
    }
    if goes_into_another(policy, message, facts.branch) {
        return breaches;
    }
    if facts.revert == Revert::Nothing {
        keys::check(policy, message, &mut breaches);
        form::conventional(policy, message, &mut breaches);
        form::subject(policy, message, &mut breaches);
    }
    form::body(policy, message, &mut breaches);
    breaches
}

/// Whether a message will be gone before anybody reads it: its commit is to be squashed, and cannot stay what it is where it
/// goes. On a protected branch that is so only where the rule about fixups refuses; else it may stay there, and is asked for all
/// that others are.
fn goes_into_another(policy: &Policy, message: &Message, branch: Branch) -> bool {
    let stays_out = match branch {
        Branch::Topic => true,
        Branch::Protected => policy.mode(Rule::Fixup) == Mode::Mandatory,
    };
    stays_out && form::to_squash(message).is_some()
}

/// The keys that are to be looked up in the tracker: none where the policy does not ask for it, or the message is spared.
#[must_use]
pub fn issues(policy: &Policy, message: &Message, facts: &Facts) -> Vec<String> {
    let merges = facts.parents.is_some_and(|n| n > 1);
    if policy.level(Rule::Issue).is_none()
        || facts.identity.is_vouched_for()
        || merges
        || goes_into_another(policy, message, facts.branch)
        || facts.revert == Revert::OfAncestor
    {
        return Vec::new();
    }
    keys::of(policy, message)
}

fn text(policy: &Policy, message: &Message, breaches: &mut Vec<Breach>) {
    let Some(flaw) = &message.flaw else { return };
    let (what, fix) = match flaw {
        Flaw::Zero => (
            "the message has a zero byte, at which other programs stop reading".to_owned(),
            "write it anew (`git commit --amend`)",
        ),
        Flaw::Encoding => (
            "the message is not UTF-8, or the commit says that it is to be read otherwise, in no encoding that is known".to_owned(),
            "write UTF-8, or set i18n.commitEncoding to what it is",
        ),
        Flaw::Long(bytes) => (
            format!("the message has {bytes} bytes; {MOST_BYTES} are the most"),
            "put what is that long into a file",
        ),
    };
    say(policy, Rule::MessageText, 0, what, fix, breaches);
}

/// Adds a breach of a rule that is asked.
fn say(
    policy: &Policy,
    rule: Rule,
    line: usize,
    message: impl Into<String>,
    fix: impl Into<String>,
    breaches: &mut Vec<Breach>,
) {
    // What is optional is said where it is there and wrong.
    let level = match policy.mode(rule) {
        Mode::Mandatory => Level::Refused,
        Mode::Suggested | Mode::Optional => Level::Warned,
    };
    breaches.push(Breach {
        rule,
        level,
        line,
        message: message.into(),
        fix: fix.into(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(message: &str) -> Policy {
        let head = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\n";
        let text = format!("{head}spec: {{message: {{{message}}}}}\n");
        Policy::read("p", text.as_bytes()).expect("valid")
    }

    const KEYS: &str = "issueKeys: {mode: MANDATORY, projects: [ABC, X_1]}, subject: {mode: MANDATORY}, \
                        body: {mode: MANDATORY}, text: {mode: MANDATORY}, fixups: {mode: MANDATORY}";

    const PLAIN: Facts = Facts {
        parents: Some(1),
        revert: Revert::Nothing,
        branch: Branch::Topic,
        identity: Identity::Unknown,
    };

    fn rules(policy: &Policy, text: &[u8], facts: &Facts) -> String {
        let breaches = check(policy, &Message::new(text, None), facts);
        let named: Vec<_> = breaches
            .iter()
            .map(|b| {
                let warned = if b.level == Level::Warned { "?" } else { "" };
                format!("{}{warned}", b.rule.name())
            })
            .collect();
        named.join(" ")
    }

    fn said(text: &str) -> String {
        let breaches = check(&policy(KEYS), &Message::new(text.as_bytes(), None), &PLAIN);
        let lines: Vec<_> = breaches
            .into_iter()
            .map(|b| format!("{}; {}", b.message, b.fix))
            .collect();
        lines.concat()
    }

    /// T67 to T71, T72, T78.
    #[test]
    fn a_key_of_a_known_project_stands_where_the_policy_wants_it() {
        let policy = policy(KEYS);
        for (text, expected) in [
            ("fix: x", "issue-key"),
            ("ABC-123: x", ""),
            ("[ABC-123] x", ""),
            ("feat(ABC-123): x", ""),
            ("feat: x (ABC-123)", ""),
            ("x ABC-1, ABC-2 and ABC-3", ""),
            ("X_1-7 x", ""),
            ("abc-123: x", "issue-key"),
            ("ABC-0: x", "issue-key"),
            ("ABC-: x", "issue-key"),
            ("ABC-01: x", "issue-key"),
            ("UTF-8 fix", "issue-key"),
            ("XABC-1 fix", "issue-key"),
            ("ABC-1x fix", "issue-key"),
            ("fix ORA-00001 and DEF-2 (ABC-9)", ""),
            ("fix\n\nABC-1 in the body", "issue-key"),
            ("fix\n\nwhy\n\nRefs: ABC-1", ""),
            ("fix\n\nRefs: UTF-8", "issue-key"),
        ] {
            assert_eq!(rules(&policy, text.as_bytes(), &PLAIN), expected, "{text}");
        }
        let body = super::tests::policy("issueKeys: {mode: MANDATORY, projects: [ABC], places: [body]}");
        assert_eq!(rules(&body, b"fix\n\nABC-1 in the body", &PLAIN), "");
        assert_eq!(rules(&body, b"ABC-1", &PLAIN), "issue-key");
        let trailer = super::tests::policy("issueKeys: {mode: MANDATORY, projects: [ABC], places: [trailer]}");
        assert_eq!(rules(&trailer, b"ABC-1 x\n\nIssue: ABC-1", &PLAIN), "");
        assert_eq!(rules(&trailer, b"ABC-1 x\n\nabout ABC-1", &PLAIN), "issue-key");
    }

    /// T67, T69 and T70: what to type is said.
    #[test]
    fn a_missing_key_comes_with_an_example_and_a_wrong_one_with_its_repair() {
        insta::assert_snapshot!(said("fix: x"), @"no issue key in the subject or a trailer; write `ABC-123: what it does`");
        insta::assert_snapshot!(said("abc-123: x"), @"`abc-123` is no issue key; write it in capitals: ABC-123");
        insta::assert_snapshot!(said("ABC-0: x"), @"`ABC-0` is no issue key; after `ABC-` comes the issue's number, which begins with 1 to 9");
    }

    #[test]
    fn a_mode_says_whether_a_missing_or_a_wrong_key_refuses() {
        for (mode, missing, wrong) in [
            ("MANDATORY", "issue-key", "issue-key"),
            ("SUGGESTED", "issue-key?", "issue-key?"),
            ("OPTIONAL", "", "issue-key?"),
        ] {
            let policy = policy(&format!("issueKeys: {{mode: {mode}, projects: [ABC]}}"));
            assert_eq!(rules(&policy, b"x", &PLAIN), missing, "{mode}");
            assert_eq!(rules(&policy, b"abc-1 x", &PLAIN), wrong, "{mode}");
        }
    }

    /// T73 and T74: what a message looks like exempts from nothing.
    #[test]
    fn a_merge_has_two_parents_and_a_revert_names_an_ancestor() {
        let policy = policy(KEYS);
        let merge = Facts {
            parents: Some(2),
            ..PLAIN
        };
        assert_eq!(rules(&policy, b"Merge branch 'x'", &merge), "");
        assert_eq!(rules(&policy, b"Merge branch 'x'", &PLAIN), "issue-key");
        assert_eq!(rules(&policy, b"Merge\0", &merge), "message-text");
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let revert = format!("Revert \"x\"\n\nThis reverts commit {sha}.\n");
        assert_eq!(Message::new(revert.as_bytes(), None).reverts(), Some(sha));
        assert_eq!(
            Message::new(revert.replace("Revert", "Undo").as_bytes(), None).reverts(),
            None
        );
        assert_eq!(
            Message::new(b"Revert \"x\"\n\nThis reverts commit 0123.", None).reverts(),
            None
        );
        assert_eq!(
            Message::new(
                "Revert \"x\"\n\nThis reverts commit ééééééééééééééééééééééééé".as_bytes(),
                None
            )
            .reverts(),
            None
        );
        let of_ancestor = Facts {
            revert: Revert::OfAncestor,
            ..PLAIN
        };
        assert_eq!(rules(&policy, revert.as_bytes(), &of_ancestor), "");
        assert_eq!(rules(&policy, revert.as_bytes(), &PLAIN), "issue-key");
    }

    /// T75.
    #[test]
    fn what_is_to_be_squashed_stays_off_protected_branches() {
        let policy = policy("fixups: {mode: MANDATORY}");
        let protected = Facts {
            branch: Branch::Protected,
            ..PLAIN
        };
        for text in ["fixup! x", "squash! x", "amend! x", "WIP: x", "wip"] {
            assert_eq!(rules(&policy, text.as_bytes(), &protected), "fixup", "{text}");
            assert_eq!(rules(&policy, text.as_bytes(), &PLAIN), "", "{text}");
        }
        assert_eq!(rules(&policy, b"Wipe the disk", &protected), "");
    }

    /// T76: who vouches counts, not what is typed.
    #[test]
    fn a_bot_is_exempt_by_who_vouches_for_it() {
        let policy = policy(KEYS);
        let text = b"Bump x\n\nSigned-off-by: dependabot[bot] <support@github.com>";
        assert_eq!(rules(&policy, text, &PLAIN), "issue-key");
        let vouched = Facts {
            identity: Identity::Pusher("dependabot".to_owned()),
            ..PLAIN
        };
        assert_eq!(rules(&policy, text, &vouched), "");
    }

    /// T77.
    #[test]
    fn every_kind_of_bytes_has_a_verdict() {
        let policy = policy(KEYS);
        for (bytes, expected) in [
            (b"ABC-1 x\r\n\r\nbody\r\n".to_vec(), ""),
            (b"ABC-1 caf\xe9".to_vec(), "message-text"),
            (b"ABC-1 x\0y".to_vec(), "message-text subject"),
            (
                ["ABC-1 x\n\n", &"y\n".repeat(1 << 19)].concat().into_bytes(),
                "message-text",
            ),
            (b"".to_vec(), "issue-key subject"),
            (b"\n\n  \n".to_vec(), "issue-key subject"),
        ] {
            assert_eq!(
                rules(&policy, &bytes, &PLAIN),
                expected,
                "{:?}",
                &bytes[..bytes.len().min(20)]
            );
        }
        assert_eq!(Message::new(b"ABC-1 caf\xe9", Some("ISO-8859-1")).flaw, None);
        assert_eq!(Message::new(b"ABC-1 caf\xe9", Some("ISO-8859-1")).subject, "ABC-1 café");
        assert_eq!(Message::new(b"caf\xe9", Some("KLINGON")).flaw, Some(Flaw::Encoding));
        let written = Message::being_written(b"# only\n# comments\n", "#");
        assert_eq!(written.subject, "");
        let cut = "x\n#c\n# ------------------------ >8 ------------------------\ndiff\n";
        assert_eq!(Message::being_written(cut.as_bytes(), "#").rest, Vec::<String>::new());
        assert_eq!(Message::being_written(b";c\n#x\n", ";").subject, "#x");
    }

    #[test]
    fn subjects_and_bodies_have_a_form() {
        let policy = policy(KEYS);
        let long = "x".repeat(101);
        for (text, expected) in [
            (format!("ABC-1 {}", "x".repeat(66)), ""),
            (format!("ABC-1 {}", "x".repeat(67)), "subject"),
            ("ABC-1 x.".to_owned(), "subject"),
            ("ABC-1 x...".to_owned(), ""),
            (" ABC-1 x".to_owned(), "subject"),
            ("ABC-1 x\t".to_owned(), "subject"),
            ("ABC-1 x\nno blank line".to_owned(), "body"),
            (format!("ABC-1 x\n\n{long}"), "body"),
            (format!("ABC-1 x\n\nhttps://example.org/{long}"), ""),
            (format!("ABC-1 x\n\n    {long}"), ""),
            (format!("ABC-1 x\n\n> {long}"), ""),
            (format!("ABC-1 x\n\n```\n{long}\n```"), ""),
            (format!("ABC-1 x\n\n```\n```\n{long}"), "body"),
            (format!("ABC-1 x\n\nRefs: {long}"), ""),
        ] {
            assert_eq!(rules(&policy, text.as_bytes(), &PLAIN), expected, "{text}");
        }
    }

    /// What is squashed is judged by that alone, and is no way round the other rules where it may stay.
    #[test]
    fn a_fixup_is_asked_for_nothing_else_where_it_cannot_stay() {
        let asked =
            "conventional: {mode: MANDATORY}, issueKeys: {mode: MANDATORY, projects: [ABC]}, body: {mode: MANDATORY}";
        let all = "conventional issue-key";
        for (fixups, text, topic, protected) in [
            ("MANDATORY", "fixup! x", "", "fixup"),
            ("MANDATORY", "squash! x\nno blank line", "", "fixup"),
            ("MANDATORY", "amend! feat: ABC-1 x", "", "fixup"),
            ("MANDATORY", "fixup! x\0", "message-text?", "fixup message-text?"),
            ("MANDATORY", "WIP", all, "conventional fixup issue-key"),
            ("MANDATORY", "x fixup!", all, all),
            ("SUGGESTED", "fixup! x", "", "conventional fixup? issue-key"),
            ("OPTIONAL", "fixup! x", "", all),
            ("OPTIONAL", "feat: ABC-1 x", "", ""),
        ] {
            let policy = policy(&format!("{asked}, fixups: {{mode: {fixups}}}"));
            for (branch, expected) in [(Branch::Topic, topic), (Branch::Protected, protected)] {
                let facts = Facts { branch, ..PLAIN };
                let found = rules(&policy, text.as_bytes(), &facts);
                let mut found: Vec<&str> = found.split(' ').collect();
                found.sort_unstable();
                assert_eq!(found.join(" "), expected, "{fixups} {text:?} {branch:?}");
            }
        }
    }

    #[test]
    fn what_is_to_be_written_passes_every_rule_that_is_asked() {
        for spec in [
            "issueKeys: {mode: MANDATORY, projects: [ABC]}",
            "issueKeys: {mode: MANDATORY, projects: [ABC]}, conventional: {mode: MANDATORY}",
            "issueKeys: {mode: SUGGESTED, projects: [ABC]}, conventional: {mode: SUGGESTED, scopes: [core]}",
            "issueKeys: {mode: MANDATORY, projects: [ABC]}, conventional: {mode: MANDATORY, types: [chore], scopes: [a, b]}",
            "conventional: {mode: MANDATORY, scopes: [core]}",
            "issueKeys: {mode: OPTIONAL, projects: [ABC]}, conventional: {mode: MANDATORY}",
        ] {
            let policy = policy(spec);
            let breaches = check(&policy, &Message::new(b"Move the door", None), &PLAIN);
            let hints: Vec<&str> = breaches.iter().filter_map(|b| b.fix.split('`').nth(1)).collect();
            assert_eq!(hints.len(), breaches.len(), "{spec}: {breaches:?}");
            assert!(!hints.is_empty(), "{spec}");
            for hint in hints {
                assert_eq!(rules(&policy, hint.as_bytes(), &PLAIN), "", "{spec}: {hint}");
            }
        }
    }

    #[test]
    fn conventional_commits_have_a_known_type_and_scope() {
        let policy = policy("conventional: {mode: MANDATORY, scopes: [core, 'a/b']}");
        for (text, expected) in [
            ("feat: x", ""),
            ("feat(core): x", ""),
            ("feat(a/b)!: x", ""),
            ("feat!: x", ""),
            ("Feat: x", "conventional"),
            ("feet: x", "conventional"),
            ("feat(cor): x", "conventional"),
            ("feat:x", "conventional"),
            ("feat: ", "conventional subject?"),
            ("x", "conventional"),
        ] {
            assert_eq!(rules(&policy, text.as_bytes(), &PLAIN), expected, "{text}");
        }
        let optional = super::tests::policy("conventional: {mode: OPTIONAL}");
        assert_eq!(rules(&optional, b"Move the door", &PLAIN), "");
        assert_eq!(rules(&optional, b"Attention: the door moves", &PLAIN), "");
        assert_eq!(rules(&optional, b"feat(x):y", &PLAIN), "conventional?");
    }

    proptest::proptest! {
        #[test]
        fn any_message_has_a_verdict(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), text in "(?s).{0,200}") {
            let policy = policy(KEYS);
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let message = Message::new(bytes, None);
                let _ = (check(&policy, &message, &PLAIN), message.reverts(), Message::being_written(bytes, "#"));
            }
        }
    }
}

//! Keys of an issue tracker: capital letters, a minus and a number, of a project that the policy knows.

use std::collections::BTreeSet;

use super::{Breach, Message, form, say};
use crate::commits::finding::Rule;
use crate::commits::policy::{Mode, Place, Policy};

/// Keys of one message that are looked up. One that is right is enough, and who names more has written a list.
const MOST_KEYS: usize = 10;

/// The projects whose keys count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssueKeys {
    projects: BTreeSet<String>,
}

/// What a word is to who looks for keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A key.
    Key(String),
    /// Nearly one, and what is meant.
    Nearly {
        /// As it is written.
        written: String,
        /// What to do about it.
        hint: String,
    },
}

impl IssueKeys {
    /// Of these projects.
    #[must_use]
    pub fn new(projects: &[String]) -> Self {
        Self {
            projects: projects.iter().cloned().collect(),
        }
    }

    /// Whether a tracker would take this for a project's key (JIRA's default, and underscores as many sites allow).
    #[must_use]
    pub fn is_project(name: &str) -> bool {
        name.len() >= 2
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    }

    /// Whether a text is a key of these projects and nothing else.
    #[must_use]
    pub fn is_key(&self, text: &str) -> bool {
        let words = self.words(text);
        matches!(words.as_slice(), [Word::Key(key)] if key == text)
    }

    /// Whether a text has the form of a key, of whichever project.
    #[must_use]
    pub fn has_form(text: &str) -> bool {
        let parts = text.rsplit_once('-');
        parts.is_some_and(|(project, _)| Self::is_project(project) && Self::new(&[project.to_owned()]).is_key(text))
    }

    /// The keys of a line, and what nearly is one.
    #[must_use]
    pub fn words(&self, line: &str) -> Vec<Word> {
        let mut found = Vec::new();
        for (at, _) in line.match_indices('-') {
            let (before, after) = (&line[..at], &line[at + 1..]);
            let begin = before
                .rfind(|c: char| !in_name(c))
                .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
            let project = &before[begin..];
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let number = &after[..digits];
            // `ABC-1x` and `a-ABC-1` are other words.
            let ends = !after[digits..].starts_with(in_name);
            let begins = !before[..begin].ends_with('-');
            if begins && ends {
                found.extend(self.word(project, number));
            }
        }
        found
    }

    fn word(&self, project: &str, number: &str) -> Option<Word> {
        let known = self.projects.iter().find(|p| p.eq_ignore_ascii_case(project))?;
        let written = format!("{project}-{number}");
        if number.is_empty() || number.starts_with('0') {
            let hint = format!("after `{known}-` comes the issue's number, which begins with 1 to 9");
            // Where a project's name happens to be a word, `abc-` is no attempt at a key.
            return (known == project).then_some(Word::Nearly { written, hint });
        }
        if known != project {
            let hint = format!("write it in capitals: {known}-{number}");
            return Some(Word::Nearly { written, hint });
        }
        Some(Word::Key(written))
    }

    fn example(&self) -> String {
        let project = self.projects.first().map_or("ABC", String::as_str);
        format!("{project}-123")
    }
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a message where the policy looks for keys.
fn words_of(policy: &Policy, message: &Message) -> impl Iterator<Item = Word> {
    let places = policy.spec.message.issue_keys.places.iter();
    let lines = places.flat_map(|place| -> Vec<&str> {
        match place {
            Place::Subject => vec![&message.subject],
            Place::Body => message.rest.iter().map(String::as_str).collect(),
            Place::Trailer => message.trailers.iter().map(|(_, value)| value.as_str()).collect(),
        }
    });
    lines.flat_map(|line| policy.keys.words(line))
}

/// Every key that a message names where the policy looks for them, each once, in their order.
pub(super) fn of(policy: &Policy, message: &Message) -> Vec<String> {
    let mut found = Vec::new();
    for word in words_of(policy, message) {
        match word {
            // The places may overlap.
            Word::Key(key) if !found.contains(&key) && found.len() < MOST_KEYS => found.push(key),
            Word::Key(_) | Word::Nearly { .. } => {}
        }
    }
    found
}

/// An example of a key, where one is asked for that a subject has room for first of all.
pub(super) fn wanted_in_subject(policy: &Policy) -> Option<String> {
    let spec = &policy.spec.message.issue_keys;
    let first = matches!(spec.places.first(), Some(Place::Subject) | None);
    let asked = spec.mode != Mode::Optional && !policy.keys.projects.is_empty();
    (first && asked).then(|| policy.keys.example())
}

pub(super) fn check(policy: &Policy, message: &Message, breaches: &mut Vec<Breach>) {
    let spec = &policy.spec.message.issue_keys;
    let keys = &policy.keys;
    if keys.projects.is_empty() {
        return;
    }
    let mut near = None;
    for word in words_of(policy, message) {
        match word {
            Word::Key(_) => return,
            Word::Nearly { written, hint } => near = near.or(Some((written, hint))),
        }
    }
    if let Some((written, hint)) = near {
        say(
            policy,
            Rule::IssueKey,
            1,
            format!("`{written}` is no issue key"),
            hint,
            breaches,
        );
    } else if spec.mode != Mode::Optional {
        let places: Vec<&str> = spec
            .places
            .iter()
            .map(|place| match place {
                Place::Subject => "the subject",
                Place::Body => "the body",
                Place::Trailer => "a trailer",
            })
            .collect();
        let fix = match spec.places.first() {
            Some(Place::Subject) | None => {
                let conventional = &policy.spec.message.conventional;
                if conventional.mode == Mode::Optional {
                    format!("write `{}: what it does`", keys.example())
                } else {
                    // Both are asked of one subject.
                    format!("write `{}{} what it does`", form::example(conventional), keys.example())
                }
            }
            Some(Place::Body) => format!("name it below the subject, as `for {}`", keys.example()),
            Some(Place::Trailer) => format!("end the message with `Issue: {}`", keys.example()),
        };
        let message = format!("no issue key in {}", places.join(" or "));
        say(policy, Rule::IssueKey, 1, message, fix, breaches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked about goes into an address as it is.
    #[test]
    fn a_key_is_nothing_but_a_key() {
        let keys = IssueKeys::new(&["ABC".to_owned(), "A_1".to_owned()]);
        for (text, is_key, has_form) in [
            ("ABC-1", true, true),
            ("A_1-20", true, true),
            ("DEF-1", false, true),
            ("", false, false),
            ("ABC", false, false),
            ("ABC-", false, false),
            ("ABC-0", false, false),
            ("abc-1", false, false),
            (" ABC-1", false, false),
            ("ABC-1\n", false, false),
            ("ABC-1 ABC-2", false, false),
            ("../../x?y=ABC-1", false, false),
            ("ABC-1/../../x", false, false),
            ("ABC-1?fields=", false, false),
            ("\u{c4}BC-1", false, false),
            ("ABC-\u{661}", false, false),
        ] {
            assert_eq!(
                (keys.is_key(text), IssueKeys::has_form(text)),
                (is_key, has_form),
                "{text:?}"
            );
        }
    }
}

//! How a message is written: conventional commits, subject, body.

use git_conventional::Commit;

use super::{Breach, MOST_IN_A_MESSAGE, Message, keys, say};
use crate::commits::content::without_tokens;
use crate::commits::finding::Rule;
use crate::commits::policy::{ConventionalSpec, Mode, Policy};
use crate::model::text::did_you_mean;

/// What `git commit --fixup` and its kin begin a subject with.
const TO_SQUASH: [&str; 3] = ["fixup!", "squash!", "amend!"];

/// The sign by which a message says that its commit is to be squashed.
pub(super) fn to_squash(message: &Message) -> Option<&'static str> {
    let subject = message.subject.trim_start();
    TO_SQUASH.into_iter().find(|sign| subject.starts_with(sign))
}

/// What a subject begins with that is a conventional commit's by this policy.
pub(super) fn example(spec: &ConventionalSpec) -> String {
    let kind = spec.types.first().map_or("feat", String::as_str);
    let scope = spec.scopes.first().map_or("scope", String::as_str);
    format!("{kind}({scope}): ")
}

pub(super) fn fixup(policy: &Policy, message: &Message, breaches: &mut Vec<Breach>) {
    if policy.mode(Rule::Fixup) == Mode::Optional {
        return;
    }
    let subject = message.subject.trim_start();
    if let Some(sign) = to_squash(message) {
        let what = format!("`{sign}` is meant to be squashed");
        say(
            policy,
            Rule::Fixup,
            1,
            what,
            "`git rebase -i --autosquash` does it",
            breaches,
        );
    }
    let first = subject.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    if first.eq_ignore_ascii_case("wip") {
        say(
            policy,
            Rule::Fixup,
            1,
            "says that it is work in progress",
            "finish and reword it",
            breaches,
        );
    }
}

pub(super) fn conventional(policy: &Policy, message: &Message, breaches: &mut Vec<Breach>) {
    let spec = &policy.spec.message.conventional;
    let key = keys::wanted_in_subject(policy).map_or_else(String::new, |key| format!("{key} "));
    let fix = format!(
        "write `{}{key}what it does`; types: {}",
        example(spec),
        spec.types.join(", ")
    );
    let parsed = Commit::parse(message.subject.trim_end());
    let known = |name: &str| spec.types.iter().any(|t| t == name);
    if spec.mode == Mode::Optional {
        // Only what begins with a known type is meant to be one.
        let first = message.subject.split([':', '(', '!']).next().unwrap_or_default();
        let meant = first.len() < message.subject.len() && known(first);
        if !meant {
            return;
        }
    }
    let commit = match parsed {
        Ok(commit) => commit,
        Err(error) => {
            // Its second half shows the message again.
            let why = error.to_string();
            let why = why.lines().next().unwrap_or_default().to_owned();
            say(
                policy,
                Rule::Conventional,
                1,
                format!("not a conventional commit: {why}"),
                fix,
                breaches,
            );
            return;
        }
    };
    // The specification wants a blank there; the parser does not.
    let after_colon = message.subject.split_once(':').map_or("", |(_, after)| after);
    if !after_colon.starts_with(' ') {
        let what = "not a conventional commit: no blank after the colon";
        say(policy, Rule::Conventional, 1, what, fix.clone(), breaches);
    }
    let kind = commit.type_().as_str();
    if !known(kind) {
        let fix = match did_you_mean(kind, spec.types.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => fix,
        };
        say(
            policy,
            Rule::Conventional,
            1,
            // It is whatever somebody typed.
            format!(
                "the type `{}` is not known",
                String::from_utf8_lossy(&without_tokens(policy, kind.as_bytes()))
            ),
            fix,
            breaches,
        );
    }
    if let Some(scope) = commit.scope().map(|s| s.as_str())
        && !spec.scopes.is_empty()
        && !spec.scopes.iter().any(|s| s == scope)
    {
        let what = format!("the scope `{scope}` is not known");
        say(
            policy,
            Rule::Conventional,
            1,
            what,
            format!("known: {}", spec.scopes.join(", ")),
            breaches,
        );
    }
}

pub(super) fn subject(policy: &Policy, message: &Message, breaches: &mut Vec<Breach>) {
    let spec = &policy.spec.message.subject;
    if spec.mode == Mode::Optional {
        return;
    }
    let subject = &message.subject;
    let mut say = |what: String, fix: &str| say(policy, Rule::Subject, 1, what, fix, breaches);
    if subject.trim().is_empty() {
        say("there is no subject".to_owned(), "say in one line what the commit does");
        return;
    }
    let chars = subject.chars().count();
    if chars > spec.max_chars {
        say(
            format!("the subject has {chars} characters; {} are the most", spec.max_chars),
            "move what is more into the body, after an empty line",
        );
    }
    if subject.trim() != subject {
        say("the subject begins or ends in blanks".to_owned(), "remove them");
    }
    if subject.ends_with('.') && !subject.ends_with("..") {
        say("the subject ends in a full stop".to_owned(), "leave it out");
    }
    if subject.contains(|c: char| c.is_control() && c != '\t') {
        say("the subject has control characters".to_owned(), "remove them");
    }
}

pub(super) fn body(policy: &Policy, message: &Message, breaches: &mut Vec<Breach>) {
    let spec = &policy.spec.message.body;
    if spec.mode == Mode::Optional {
        return;
    }
    if message.rest.first().is_some_and(|line| !line.trim().is_empty()) {
        let fix = "leave the second line empty: tools show what is above it";
        say(
            policy,
            Rule::Body,
            2,
            "the body follows the subject at once",
            fix,
            breaches,
        );
    }
    let mut in_code = false;
    let mut said = 0;
    for (number, line) in (2..).zip(&message.rest) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let chars = line.chars().count();
        if chars <= spec.max_chars || in_code || may_be_long(line) {
            continue;
        }
        if is_trailer(message, line) || said == MOST_IN_A_MESSAGE {
            continue;
        }
        said += 1;
        let what = format!("this line has {chars} characters; {} are the most", spec.max_chars);
        say(policy, Rule::Body, number, what, "break it", breaches);
    }
}

/// Code, quotes and addresses cannot be broken.
fn may_be_long(line: &str) -> bool {
    line.starts_with("    ") || line.starts_with('\t') || line.starts_with('>') || line.contains("://")
}

fn is_trailer(message: &Message, line: &str) -> bool {
    let mut named = message.trailers.iter();
    named.any(|(token, _)| {
        line.strip_prefix(token.as_str())
            .is_some_and(|rest| rest.starts_with(':'))
    })
}

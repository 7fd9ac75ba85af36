//! How this program is called from where its user stands, so that a command that is shown works when it is pasted: after
//! `cargo run` it is not where the shell looks.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The name that texts have.
const NAME: &str = "stagegate";
/// The name that it has as a plugin of kubectl.
const PLUGIN: &str = "kubectl stagegate";
/// Between commands of which each needs the one before.
const AND: &str = " && ";

/// The words that call this program.
pub(super) fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if super::plugin::is_called() {
            return format!("{PLUGIN}{}", super::plugin::asked_for());
        }
        let (Ok(program), Ok(here)) = (std::env::current_exe(), std::env::current_dir()) else {
            return NAME.to_owned();
        };
        let search = crate::settings::path().unwrap_or_default();
        let found = std::env::split_paths(&search)
            .map(|directory| directory.join(NAME))
            .find(|file| file.is_file());
        called_as(&program, &here, found.and_then(|file| file.canonicalize().ok()))
    })
}

/// A sentence with commands in backticks, as the user can paste them.
pub(super) fn in_sentence(text: &str) -> Cow<'_, str> {
    if program() == NAME {
        return Cow::Borrowed(text);
    }
    sentence_called_as(text, program(), is_ours)
}

/// A sentence for who reads it in an object of a cluster's namespace: what the plugin of kubectl has is called as that, in that namespace,
/// for who reads it may be in another.
#[must_use]
pub fn by_the_plugin<'a>(text: &'a str, namespace: &str) -> Cow<'a, str> {
    let program = format!("{PLUGIN} -n {namespace}");
    sentence_called_as(text, &program, super::plugin::understands)
}

fn sentence_called_as<'a>(text: &'a str, program: &str, is_ours: fn(&str) -> bool) -> Cow<'a, str> {
    let begin = "`stagegate ";
    if !text.contains(begin) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(begin);
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = ["`", " | ", AND].iter().filter_map(|end| part.find(end)).min();
        let called = if is_ours(&part[..end.unwrap_or(part.len())]) {
            program
        } else {
            NAME
        };
        said.push('`');
        said.push_str(called);
        said.push(' ');
        said.push_str(part);
    }
    Cow::Owned(said)
}

/// Whether the program, as it was called, has the command that these words are.
fn is_ours(words: &str) -> bool {
    !super::plugin::is_called() || super::plugin::understands(words)
}

/// The same for a text that is nothing but commands, one after the other.
pub(super) fn command(text: &str) -> Cow<'_, str> {
    commands_called_as(text, program())
}

fn commands_called_as<'a>(text: &'a str, program: &str) -> Cow<'a, str> {
    let one = |command: &str| {
        let (assignments, words) = command.split_at(after_assignments(command));
        match words.strip_prefix(NAME) {
            Some(rest) if rest.starts_with(' ') && is_ours(&rest[1..]) => format!("{assignments}{program}{rest}"),
            Some(_) | None => command.to_owned(),
        }
    };
    if program == NAME {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split(AND).map(one).collect::<Vec<_>>().join(AND))
}

/// Where the command's own name begins: `NAME='its value'` may stand before it.
fn after_assignments(command: &str) -> usize {
    let mut begin = 0;
    loop {
        let rest = &command[begin..];
        let name = rest.find(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        if !name.is_some_and(|end| end > 0 && rest[end..].starts_with('=')) {
            return begin;
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.find(|c: char| {
            let ends = c == ' ' && !quoted && !escaped;
            quoted ^= c == '\'' && !escaped;
            escaped = c == '\\' && !quoted && !escaped;
            ends
        });
        match end {
            Some(end) => begin += end + 1,
            None => return begin,
        }
    }
}

/// By its name where the shell finds it, else by its path, from the working directory if it lies below.
fn called_as(program: &Path, here: &Path, found: Option<PathBuf>) -> String {
    if found.is_some_and(|found| found == program) {
        return NAME.to_owned();
    }
    let path = match program.strip_prefix(here) {
        Ok(below) if below.components().count() > 1 => below.to_owned(),
        Ok(below) => Path::new(".").join(below),
        Err(_) => program.to_owned(),
    };
    quoted(&path.display().to_string())
}

/// The words of a command, as a shell takes them apart: those that we write have no other quotes.
pub(super) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (Some(_) | None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// As a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:=".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_what_a_shell_finds() {
        let program = Path::new("/src/sg/target/release/stagegate");
        let rows = [
            ("/src/sg", None, "target/release/stagegate"),
            ("/src/sg/target/release", None, "./stagegate"),
            ("/home/x", None, "/src/sg/target/release/stagegate"),
            ("/src/sg", Some("/src/sg/target/release/stagegate"), "stagegate"),
            // Another one of the same name is not this one.
            ("/src/sg", Some("/usr/bin/stagegate"), "target/release/stagegate"),
        ];
        for (here, found, expected) in rows {
            assert_eq!(
                called_as(program, Path::new(here), found.map(PathBuf::from)),
                expected,
                "{here} {found:?}"
            );
        }
    }

    #[test]
    fn commands_are_replaced_where_they_begin_and_nowhere_else() {
        let said = commands_called_as(
            "stagegate pause prod-stagegate --wait && stagegate up prod-stagegate x",
            "./s",
        );
        assert_eq!(said, "./s pause prod-stagegate --wait && ./s up prod-stagegate x");
        let said = commands_called_as(r"A='/a stagegate b' B='it'\''s' stagegate lint", "./s");
        assert_eq!(said, r"A='/a stagegate b' B='it'\''s' ./s lint");
    }

    #[test]
    fn what_an_object_says_names_the_plugin_where_that_has_the_very_command() {
        for (said, expected) in [
            (
                "`stagegate status shop -w` shows it",
                "`kubectl stagegate -n town status shop -w` shows it",
            ),
            (
                "x; `stagegate build release web-1 --env shop --reason TEXT` lifts it",
                "x; `kubectl stagegate -n town build release web-1 --env shop --reason TEXT` lifts it",
            ),
            // It has `build`, and not this of it; what is not whole is no command.
            ("`stagegate build show web-1.1`", "`stagegate build show web-1.1`"),
            (
                "`stagegate build manifest shop web=1 | kubectl apply -f -`",
                "`stagegate build manifest shop web=1 | kubectl apply -f -`",
            ),
            (
                "`stagegate lint`, `stagegate resume shop`",
                "`stagegate lint`, `kubectl stagegate -n town resume shop`",
            ),
            ("`stagegate abort`", "`stagegate abort`"),
            ("`stagegate serve` (pid 1)", "`stagegate serve` (pid 1)"),
        ] {
            assert_eq!(by_the_plugin(said, "town"), expected);
        }
    }

    #[test]
    fn words_are_what_a_shell_makes_of_them() {
        assert_eq!(words(" a  'b c'd \"e f\" '' "), ["a", "b cd", "e f", ""]);
    }

    #[test]
    fn a_path_is_one_word_for_the_shell() {
        assert_eq!(quoted("/srv/x-1/a.sh"), "/srv/x-1/a.sh");
        assert_eq!(quoted("/it's here/a.sh"), r"'/it'\''s here/a.sh'");
    }
}

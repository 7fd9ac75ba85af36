//! Rules about files: each takes a file's bytes and says where it is not as it must be. They read what git stores, never a
//! checkout, so that no attribute (`working-tree-encoding`, `filter`, `export-ignore`) hides anything from them.
//!
//! Rules that pre-commit-hooks has too come to its verdict, which `commits::equal_verdicts` shows; where they do not, the
//! rule says why.

mod conflict;
pub(in crate::commits) mod links;
mod modes;
mod modules;
pub mod names;
mod secrets;
mod size;
mod syntax;
mod whitespace;

use super::finding::Rule;
use super::policy::Policy;

pub use secrets::without_tokens;
pub use size::{is_lfs_pointer, too_large};
pub use whitespace::fixed;

/// How much of a file is looked at to tell text from the rest, as pre-commit's `identify` does.
const LOOKED_AT_BYTES: usize = 1_024;
/// Findings of one rule in one file: a file of nothing but trailing blanks is one finding to its author, not a thousand.
const MOST_IN_A_FILE: usize = 10;

/// A file's mode, as a tree of git has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 100644.
    Regular,
    /// 100755.
    Executable,
    /// 120000.
    Link,
    /// 160000: a commit of another repository.
    Submodule,
    /// What no git of today writes.
    Other(u32),
}

impl Mode {
    /// From the number in a tree.
    #[must_use]
    pub fn of(raw: u32) -> Self {
        match raw {
            0o100_644 => Mode::Regular,
            0o100_755 => Mode::Executable,
            0o120_000 => Mode::Link,
            0o160_000 => Mode::Submodule,
            other => Mode::Other(other),
        }
    }

    /// Whether its content is a file's, not a link's target or a commit's name.
    #[must_use]
    pub fn is_file(self) -> bool {
        match self {
            Mode::Regular | Mode::Executable | Mode::Other(_) => true,
            Mode::Link | Mode::Submodule => false,
        }
    }
}

/// A file under check.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// As git has its name, from the root of the repository.
    pub path: &'a [u8],
    /// Its mode.
    pub mode: Mode,
    /// What it holds; a link's target; nothing for a submodule.
    pub bytes: &'a [u8],
    is_text: bool,
}

impl<'a> File<'a> {
    /// A file with its content.
    #[must_use]
    pub fn new(path: &'a [u8], mode: Mode, bytes: &'a [u8]) -> Self {
        Self {
            path,
            mode,
            bytes,
            is_text: mode.is_file() && is_text(bytes),
        }
    }

    fn name(&self) -> &'a [u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or(self.path)
    }

    /// What stands after the last dot of its name, in lower case.
    fn ending(&self) -> Option<String> {
        let name = self.name();
        let dot = name.iter().rposition(|b| *b == b'.')?;
        Some(String::from_utf8_lossy(&name[dot + 1..]).to_ascii_lowercase())
    }

    /// Its lines with their endings, numbered from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        (1..).zip(self.bytes.split_inclusive(|b| *b == b'\n'))
    }
}

/// The first KiB holds no control characters that text has no use for.
fn is_text(bytes: &[u8]) -> bool {
    let begin = &bytes[..bytes.len().min(LOOKED_AT_BYTES)];
    begin.iter().all(|b| matches!(b, 7..=13 | 27 | 32..=126 | 128..))
}

/// A place in a file at which a rule is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 for the line as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl Hit {
    fn whole(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::at(0, 0, message, fix)
    }

    fn at(line: usize, column: usize, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            line,
            column,
            message: message.into(),
            fix: fix.into(),
        }
    }
}

/// A rule about one file.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Which.
    pub rule: Rule,
    /// Asks it.
    pub run: fn(&Policy, &File) -> Vec<Hit>,
}

/// All of them but [`Rule::CaseConflict`], which is about a file's neighbours ([`names::differ_in_case_only`]). Cheap ones
/// and dangerous ones come first.
pub const CHECKS: [Check; 18] = [
    check(Rule::PathName, names::check),
    check(Rule::FileMode, modes::known),
    check(Rule::Symlink, links::stays_inside),
    check(Rule::Submodule, links::is_allowed),
    check(Rule::LargeFile, size::fits),
    check(Rule::LfsPointer, size::is_whole_pointer),
    check(Rule::PrivateKey, secrets::private_keys),
    check(Rule::Secret, secrets::tokens),
    check(Rule::ConflictMarker, conflict::markers),
    check(Rule::ExecutableShebang, modes::executable_has_shebang),
    check(Rule::ShebangExecutable, modes::shebang_is_executable),
    check(Rule::TrailingWhitespace, whitespace::trailing),
    check(Rule::EndOfFile, whitespace::end),
    check(Rule::LineEndings, whitespace::endings),
    check(Rule::YamlSyntax, syntax::yaml),
    check(Rule::JsonSyntax, syntax::json),
    check(Rule::TomlSyntax, syntax::toml),
    check(Rule::PolicyFile, policy_file),
];

const fn check(rule: Rule, run: fn(&Policy, &File) -> Vec<Hit>) -> Check {
    Check { rule, run }
}

/// Rules whose findings [`fixed`] mends, in the order in which none undoes another: the end that a file gets is LF.
pub const FIXABLE: [Rule; 3] = [Rule::TrailingWhitespace, Rule::EndOfFile, Rule::LineEndings];

/// Asks every rule that covers the file; for tests and for who needs no times.
#[must_use]
pub fn hits(policy: &Policy, file: &File) -> Vec<(Rule, Hit)> {
    let asked = CHECKS.iter().filter(|c| policy.covers(c.rule, file.path));
    asked
        .flat_map(|c| (c.run)(policy, file).into_iter().map(|hit| (c.rule, hit)))
        .collect()
}

/// A policy that cannot be read would refuse everything after it.
fn policy_file(_: &Policy, file: &File) -> Vec<Hit> {
    if file.path != super::policy::PATH.as_bytes() {
        return Vec::new();
    }
    if !file.mode.is_file() {
        // Once it is on the protected branch nothing can be judged any more.
        return vec![Hit::whole("the commit policy is no regular file", "make it a file")];
    }
    match Policy::read(super::policy::PATH, file.bytes) {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid
            .problems
            .into_iter()
            .take(MOST_IN_A_FILE)
            .map(|(line, message)| {
                Hit::at(
                    line,
                    0,
                    message,
                    "`stagegate lint hooks/policy.yaml` shows it with its lines",
                )
            })
            .collect(),
    }
}

/// The column of a byte of a line, in characters from 1.
fn column(line: &[u8], byte: usize) -> usize {
    String::from_utf8_lossy(&line[..byte.min(line.len())]).chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_as_identify_tells_it() {
        for (bytes, text) in [
            (&b""[..], true),
            (b"abc\r\n\t\x1b", true),
            (b"\xff\xfe", true),
            (b"a\0b", false),
            (b"\x7f", false),
            (b"\x01", false),
        ] {
            assert_eq!(is_text(bytes), text, "{bytes:?}");
        }
        let late = [vec![b'a'; LOOKED_AT_BYTES], vec![0]].concat();
        assert!(is_text(&late));
    }

    #[test]
    fn every_rule_of_content_is_asked() {
        let policy = Policy::built_in();
        let bad = File::new(b".git/x.yaml", Mode::Other(0o100_664), b"a: [ \r\nb\n\n");
        let rules: Vec<_> = hits(&policy, &bad).into_iter().map(|(rule, _)| rule.name()).collect();
        assert_eq!(
            rules,
            [
                "path-name",
                "file-mode",
                "trailing-whitespace",
                "end-of-file",
                "line-endings",
                "yaml-syntax"
            ]
        );
    }

    proptest::proptest! {
        /// Any name and any bytes have a verdict (T30): nothing panics, and every place is in the file.
        #[test]
        fn any_file_has_a_verdict(
            path in proptest::collection::vec(1_u8.., 1..40),
            raw in proptest::sample::select(vec![0o100_644_u32, 0o100_755, 0o120_000, 0o160_000, 0o100_664]),
            ending in proptest::sample::select(vec![&b""[..], b".yaml", b".json", b".toml"]),
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let path = [path, ending.to_vec()].concat();
            let policy = Policy::built_in();
            for (_, hit) in hits(&policy, &File::new(&path, Mode::of(raw), &bytes)) {
                proptest::prop_assert!(hit.line <= bytes.split_inclusive(|b| *b == b'\n').count() + 1);
            }
        }
    }
}

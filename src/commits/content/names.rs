//! Names of files: none may be taken for git's own directory on any file system, and none may leave the repository.
//! What is merely odd (blanks, quotes, newlines, bytes that are no text) is allowed, and shown escaped.

use std::collections::BTreeMap;

use super::{File, Hit};
use crate::commits::finding::shown;
use crate::commits::policy::Policy;

pub(super) fn check(_: &Policy, file: &File) -> Vec<Hit> {
    let bad = file.path.split(|b| *b == b'/').find_map(trouble);
    bad.map(|why| Hit::whole(why, "rename it")).into_iter().collect()
}

/// What is wrong with one part of a path.
fn trouble(part: &[u8]) -> Option<&'static str> {
    match part {
        b"" => Some("has an empty part"),
        b"." | b".." => Some("has a part that leads elsewhere"),
        part if part.split(|b| *b == b'\\').any(is_git_directory) => Some("can be taken for git's own directory"),
        // A directory to Windows.
        part if part.split(|b| *b == b'\\').any(|part| part == b"..") => Some("has a part that leads elsewhere"),
        part if part.contains(&0) => Some("has a zero byte"),
        _ => None,
    }
}

/// `.git` as some file system reads it: in any case (macOS, Windows), with characters that HFS+ leaves out, with the blanks and
/// dots that NTFS drops from the end, its short name, or a stream of it (CVE-2014-9390, CVE-2019-1352, CVE-2021-21300).
pub(in crate::commits) fn is_git_directory(part: &[u8]) -> bool {
    let visible: String = String::from_utf8_lossy(part)
        .chars()
        .filter(|c| !is_left_out(*c))
        .collect();
    let name = visible.split(':').next().unwrap_or_default();
    let name = name.trim_end_matches([' ', '.']).to_lowercase();
    name == ".git" || name == "git~1"
}

/// What HFS+ leaves out when it compares names (git's `utf8.c`, `next_hfs_char`).
fn is_left_out(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// Names of one directory that differ in case only from another of it: the second would overwrite the first on macOS and
/// Windows. Each with the name that it meets.
#[must_use]
pub fn differ_in_case_only<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut first: BTreeMap<String, &[u8]> = BTreeMap::new();
    let mut meeting = BTreeMap::new();
    for name in names {
        let folded = shown(name).to_lowercase();
        if let Some(other) = first.get(&folded) {
            meeting.insert(name.to_vec(), other.to_vec());
            meeting.entry(other.to_vec()).or_insert_with(|| name.to_vec());
        } else {
            first.insert(folded, name);
        }
    }
    meeting
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;

    /// T33, and T30: odd names are no danger.
    #[test]
    fn only_names_that_mean_git_or_lead_elsewhere_are_refused() {
        let policy = Policy::built_in();
        let bad = |path: &[u8]| !check(&policy, &File::new(path, Mode::Regular, b"")).is_empty();
        for path in [
            &b".git/config"[..],
            b".GIT/config",
            b"a/.Git",
            b".git\xe2\x80\x8c/x",
            b".git./x",
            b".git /x",
            b"git~1/x",
            b".git::$INDEX_ALLOCATION/x",
            b"a/../b",
            b"./a",
            b"a//b",
            b"..\\..\\evil",
            b"a/.git\\config",
        ] {
            assert!(bad(path), "{path:?}");
        }
        for path in [
            &b"a b"[..],
            b"q'uote\"",
            b"new\nline",
            b"--",
            b"-rf",
            b"$(touch PWN)",
            b"back\\slash",
            b"\xff",
            b".gitignore",
            b".github/x",
            b"git",
            b"...",
        ] {
            assert!(!bad(path), "{path:?}");
        }
    }

    #[test]
    fn names_that_differ_in_case_only_meet() {
        let met = differ_in_case_only([&b"README"[..], b"readme", b"other", b"\xff"]);
        assert_eq!(met.len(), 2);
        assert_eq!(met[&b"readme"[..]], b"README");
        assert_eq!(met[&b"README"[..]], b"readme");
    }

    proptest::proptest! {
        /// However it is written that a file system takes for `.git`, and wherever it stands.
        #[test]
        fn nothing_that_a_file_system_takes_for_git_gets_by(
            before in "([a-z]{1,5}/){0,2}",
            capitals: [bool; 3],
            ignored in proptest::sample::select(vec!["", "\u{200c}", "\u{202e}", "\u{feff}"]),
            end in "[ .]{0,3}(:[a-z]{0,4})?(/[a-z]{1,5})?",
        ) {
            let letters = "git".chars().zip(capitals);
            let git: String = letters.map(|(c, capital)| if capital { c.to_ascii_uppercase() } else { c }).collect();
            let path = format!("{before}.{ignored}{git}{end}");
            let hits = check(&Policy::built_in(), &File::new(path.as_bytes(), Mode::Regular, b""));
            proptest::prop_assert!(!hits.is_empty(), "{path:?}");
        }
    }
}

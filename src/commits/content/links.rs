//! What leads elsewhere: symbolic links and submodules.

use super::names::is_git_directory;
use super::{File, Hit, Mode, modules, without_tokens};
use crate::commits::finding::shown;
use crate::commits::policy::{Policy, file_path};

/// Names that git itself reads, also through a link: CVE-2018-11235 and git's `fsck` (`gitmodulesSymlink`).
const READ_BY_GIT: [&[u8]; 4] = [b".gitmodules", b".gitattributes", b".gitignore", b".mailmap"];

pub(super) fn stays_inside(policy: &Policy, file: &File) -> Vec<Hit> {
    if file.mode != Mode::Link {
        return Vec::new();
    }
    let target = shown(&without_tokens(policy, file.bytes));
    if READ_BY_GIT.iter().any(|name| file.name().eq_ignore_ascii_case(name)) {
        return vec![Hit::whole(
            "is a link, and git reads what it points to",
            "make it a file",
        )];
    }
    if file.bytes.starts_with(b"/") {
        return vec![Hit::whole(
            format!("links to `{target}`, which is another file on every machine"),
            "link to a path inside the repository",
        )];
    }
    let hit = |what: &str, fix: &str| vec![Hit::whole(format!("links to `{target}`, {what}"), fix)];
    match way(file.path, file.bytes) {
        Way::Inside => Vec::new(),
        Way::Outside => hit("outside the repository", "link to a path inside the repository"),
        Way::UpFromAName => hit(
            "which goes up from a name: where that leads depends on other links",
            "write the path without `..` after a name",
        ),
    }
}

/// Whether a link leads out of the repository, or may.
pub(in crate::commits) fn leaves(link: &[u8], target: &[u8]) -> bool {
    way(link, target) != Way::Inside
}

/// Where a link leads, whatever else is a link there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Each name that it goes down by is a directory, or a link for which the same is true.
    Inside,
    /// Out of it, or into git's own directory.
    Outside,
    /// It goes up from a name. That name may be a link, and then the way up is not from where it stands.
    UpFromAName,
}

fn way(link: &[u8], target: &[u8]) -> Way {
    // A drive, to Windows, whose separator is a backslash, too.
    let is_drive = matches!(target, [letter, b':', ..] if letter.is_ascii_alphabetic());
    if is_drive || target.starts_with(b"\\") {
        return Way::Outside;
    }
    // The link's own name is no directory, and those above it are none but directories.
    let mut depth = link.split(|b| *b == b'/').count() - 1;
    let mut below_a_name = false;
    let mut way = Way::Inside;
    for part in target.split(|b| matches!(b, b'/' | b'\\')) {
        match part {
            b"" | b"." => {}
            b".." => {
                if below_a_name {
                    way = Way::UpFromAName;
                }
                match depth.checked_sub(1) {
                    Some(up) => depth = up,
                    None => return Way::Outside,
                }
            }
            // At any depth: the names above it may be links that lead to the top.
            name if is_git_directory(name) => return Way::Outside,
            _ => {
                below_a_name = true;
                depth += 1;
            }
        }
    }
    way
}

pub(super) fn is_allowed(policy: &Policy, file: &File) -> Vec<Hit> {
    if file.mode == Mode::Submodule && !policy.submodules.is_match(file_path(file.path)) {
        return vec![Hit::whole(
            "includes another repository",
            "an owner adds its path to `submodule.allow` in the policy",
        )];
    }
    // Where case does not count, git opens it by any.
    if !file.path.eq_ignore_ascii_case(b".gitmodules") || !file.mode.is_file() {
        return Vec::new();
    }
    modules::check(file.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T31.
    #[test]
    fn links_stay_inside() {
        let policy = Policy::built_in();
        let hits = |path: &[u8], target: &[u8]| stays_inside(&policy, &File::new(path, Mode::Link, target)).len();
        assert_eq!(hits(b"a", b"/etc/passwd"), 1);
        assert_eq!(hits(b"a", b"../outside"), 1);
        assert_eq!(hits(b"d/a", b"../inside"), 0);
        assert_eq!(hits(b"d/a", b"x/../../../outside"), 1);
        assert_eq!(hits(b"d/a", b"../.git/config"), 1);
        // Another link may lead to the top, or up.
        assert_eq!(hits(b"p/q/r", b"../.."), 0);
        for target in [
            "p/q/r/.git",
            "p/q/r/../../etc",
            "x/GIT~1/config",
            ".git./config",
            "..\\..\\etc",
            "C:/Windows",
            "\\\\host\\share",
        ] {
            assert_eq!(hits(b"a", target.as_bytes()), 1, "{target}");
        }
        assert_eq!(hits(b"d/e/a", b"../../p/q"), 0);
        assert_eq!(hits(b"a", b"nowhere"), 0, "broken, and harmless");
        assert_eq!(hits(b".gitmodules", b"elsewhere"), 1);
        assert_eq!(hits(b"a", b"\xff\x1b"), 0);
    }

    /// T32.
    #[test]
    fn other_repositories_are_allowed_by_path_and_by_address() {
        let head = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\n";
        let text = format!("{head}spec: {{content: {{submodule: {{allow: ['vendor/*']}}}}}}\n");
        let allowing = Policy::read("p", text.as_bytes()).expect("valid");
        let link = |path| File::new(path, Mode::Submodule, b"");
        assert_eq!(is_allowed(&Policy::built_in(), &link(b"vendor/x")).len(), 1);
        assert_eq!(is_allowed(&allowing, &link(b"vendor/x")).len(), 0);
        assert_eq!(is_allowed(&allowing, &link(b"other")).len(), 1);
        let modules = b"[submodule \"x\"]\n\tpath = vendor/x\n\turl = ext::sh -c id\n\turl = https://example.org/x\n\
                        \turl=file:///etc\n\tURL = -u./payload\n";
        let lines: Vec<_> = is_allowed(&allowing, &File::new(b".gitmodules", Mode::Regular, modules))
            .into_iter()
            .map(|h| h.line)
            .collect();
        assert_eq!(
            lines,
            [3, 5, 6],
            "they are read as git reads them: `modules` has the rest"
        );
    }
}

//! What leads elsewhere: symbolic links and submodules.

use super::{File, Hit, Mode};
use crate::commits::finding::shown;
use crate::commits::policy::{Policy, file_path};

/// Names that git itself reads, also through a link: CVE-2018-11235 and git's `fsck` (`gitmodulesSymlink`).
const READ_BY_GIT: [&[u8]; 4] = [b".gitmodules", b".gitattributes", b".gitignore", b".mailmap"];

pub(super) fn stays_inside(_: &Policy, file: &File) -> Vec<Hit> {
    if file.mode != Mode::Link {
        return Vec::new();
    }
    let target = shown(file.bytes);
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
    if leaves(file.path, file.bytes) {
        return vec![Hit::whole(
            format!("links to `{target}`, outside the repository"),
            "link to a path inside the repository",
        )];
    }
    Vec::new()
}

/// Whether a link's target, read from where the link stands, climbs out, or goes into git's own directory.
pub(in crate::commits) fn leaves(link: &[u8], target: &[u8]) -> bool {
    // The link's own name is no directory.
    let mut depth = link.split(|b| *b == b'/').count() - 1;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            name => {
                if depth == 0 && name.eq_ignore_ascii_case(b".git") {
                    return true;
                }
                depth += 1;
            }
        }
    }
    false
}

pub(super) fn is_allowed(policy: &Policy, file: &File) -> Vec<Hit> {
    if file.mode == Mode::Submodule && !policy.submodules.is_match(file_path(file.path)) {
        return vec![Hit::whole(
            "includes another repository",
            "an owner adds its path to `submodule.allow` in the policy",
        )];
    }
    if file.path != b".gitmodules" || !file.is_text {
        return Vec::new();
    }
    // `ext::` runs a command, a path reads this machine, and `-` would be an option (CVE-2018-17456).
    let dangerous = |url: &[u8]| {
        let url = url.to_ascii_lowercase();
        url.contains(&b':') && (url.starts_with(b"ext:") || url.starts_with(b"file:") || url.starts_with(b"fd:"))
            || url.starts_with(b"-")
            || url.starts_with(b"/")
    };
    let url_of = |line: &[u8]| {
        let (key, value) = line.split_at(line.iter().position(|b| *b == b'=')?);
        let value = value[1..].trim_ascii();
        let value = value.strip_prefix(b"\"").unwrap_or(value).to_vec();
        key.trim_ascii().eq_ignore_ascii_case(b"url").then_some(value)
    };
    file.lines()
        .filter(|(_, line)| url_of(line).is_some_and(|url| dangerous(&url)))
        .map(|(number, _)| {
            Hit::at(
                number,
                0,
                "this address runs a command or reads the machine that clones",
                "use https:// or ssh://",
            )
        })
        .collect()
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
        assert_eq!(lines, [3, 5, 6]);
    }
}

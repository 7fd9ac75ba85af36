//! Sizes, and Git LFS pointers (git-lfs `docs/spec.md`): what is large is kept elsewhere, and a pointer that is cut or typed by
//! hand points nowhere.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::{File, Hit};
use crate::commits::policy::Policy;

/// A pointer is shorter than this; git-lfs reads no more of a file to find out.
const LONGEST_POINTER_BYTES: usize = 1_024;

/// # Panics
/// Never: the pattern is a constant.
static POINTER: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"\Aversion https://git-lfs\.github\.com/spec/v1\n(?:ext-[0-9]-[^\n]+\n)*oid sha256:[0-9a-f]{64}\nsize [0-9]+\n\z";
    Regex::new(pattern).unwrap_or_else(|e| unreachable!("{e}"))
});

/// Whether these bytes are a Git LFS pointer.
#[must_use]
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.len() < LONGEST_POINTER_BYTES && POINTER.is_match(bytes)
}

/// The hit for a file of this size, if it is too large: for who knows the size before reading.
#[must_use]
pub fn too_large(policy: &Policy, size: u64) -> Option<Hit> {
    let (kib, limit) = (size.div_ceil(1_024), policy.spec.content.large_file.limit_kib);
    (kib > limit).then(|| {
        Hit::whole(
            format!("{kib} KiB, and {limit} is the most"),
            "keep it outside the repository or in Git LFS (`git lfs track`); an attribute without a pointer does not do",
        )
    })
}

pub(super) fn fits(policy: &Policy, file: &File) -> Vec<Hit> {
    too_large(policy, file.bytes.len() as u64).into_iter().collect()
}

pub(super) fn is_whole_pointer(_: &Policy, file: &File) -> Vec<Hit> {
    let claims = file.bytes.starts_with(b"version https://git-lfs") && file.bytes.len() < LONGEST_POINTER_BYTES;
    if !file.mode.is_file() || !claims || is_lfs_pointer(file.bytes) {
        return Vec::new();
    }
    vec![Hit::at(
        1,
        0,
        "begins like a Git LFS pointer and is none",
        "it has `version`, `oid sha256:…` and `size`, one a line; `git lfs pointer --check --strict` tells",
    )]
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;

    fn pointer() -> String {
        format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
            "4d".repeat(32)
        )
    }

    /// T21, and what only looks like one.
    #[test]
    fn a_pointer_is_one_or_says_that_it_is_none() {
        let policy = Policy::built_in();
        let hits = |text: &str| is_whole_pointer(&policy, &File::new(b"a.bin", Mode::Regular, text.as_bytes())).len();
        assert!(is_lfs_pointer(pointer().as_bytes()));
        assert_eq!(hits(&pointer()), 0);
        assert_eq!(hits(&pointer().replace("sha256", "md5")), 1);
        assert_eq!(hits(&pointer()[..60]), 1);
        assert_eq!(hits("version 1\n"), 0);
    }

    #[test]
    fn sizes_are_counted_as_check_added_large_files_counts() {
        let policy = Policy::built_in();
        assert_eq!(too_large(&policy, 500 << 10), None);
        assert!(too_large(&policy, (500 << 10) + 1).is_some());
        assert_eq!(too_large(&policy, 0), None);
    }
}

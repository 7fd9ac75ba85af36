//! File modes, and scripts that say by what they are executed.

use super::{File, Hit, Mode};
use crate::commits::policy::Policy;

pub(super) fn known(_: &Policy, file: &File) -> Vec<Hit> {
    match file.mode {
        Mode::Other(raw) => vec![Hit::whole(
            format!("has the mode {raw:o}"),
            "git writes 100644, 100755 and 120000; add the file again with a git of today",
        )],
        Mode::Regular | Mode::Executable | Mode::Link | Mode::Submodule => Vec::new(),
    }
}

pub(super) fn executable_has_shebang(_: &Policy, file: &File) -> Vec<Hit> {
    // An empty file is text to everybody, and its mode is all it has.
    if file.mode != Mode::Executable || !file.is_text || file.bytes.starts_with(b"#!") {
        return Vec::new();
    }
    vec![Hit::at(
        1,
        0,
        "is executable and does not say by what",
        "begin it with `#!` and the interpreter, or `git update-index --chmod=-x` it",
    )]
}

pub(super) fn shebang_is_executable(_: &Policy, file: &File) -> Vec<Hit> {
    // `#![` opens an attribute of Rust; pre-commit-hooks takes it for a shebang, and its users exclude it.
    let shebang = file.bytes.starts_with(b"#!") && !file.bytes.starts_with(b"#![");
    if file.mode != Mode::Regular || !file.is_text || !shebang {
        return Vec::new();
    }
    vec![Hit::at(
        1,
        1,
        "says by what it is executed and is not executable",
        "`git update-index --chmod=+x` it, or remove the first line",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shebang_and_bit_go_together() {
        let policy = Policy::built_in();
        let hits = |mode, bytes: &[u8]| {
            let file = File::new(b"run", mode, bytes);
            (
                executable_has_shebang(&policy, &file).len(),
                shebang_is_executable(&policy, &file).len(),
            )
        };
        assert_eq!(hits(Mode::Executable, b"#!/bin/sh\n"), (0, 0));
        assert_eq!(hits(Mode::Executable, b"echo\n"), (1, 0));
        assert_eq!(hits(Mode::Executable, b"\x7fELF\x01"), (0, 0));
        assert_eq!(hits(Mode::Regular, b"#!/bin/sh\n"), (0, 1));
        assert_eq!(hits(Mode::Regular, b"#![no_std]\n"), (0, 0));
        assert_eq!(hits(Mode::Link, b"#!/bin/sh"), (0, 0));
    }
}

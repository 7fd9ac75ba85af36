//! `.gitmodules`, read as git reads a configuration (git-config(1), "Syntax"): what is written so that only git understands it is
//! what has to be found.

use super::Hit;

/// What is dangerous to whoever clones with it.
pub(super) fn check(bytes: &[u8]) -> Vec<Hit> {
    let mut hits = Vec::new();
    let end = each(bytes, |line, setting| {
        if hits.len() < super::MOST_IN_A_FILE
            && let Some((what, fix)) = trouble(&setting)
        {
            hits.push(Hit::at(line, 0, what, fix));
        }
    });
    if let Err(line) = end {
        return vec![Hit::at(
            line,
            0,
            "git cannot read this as a configuration",
            "write `[submodule \"NAME\"]`, then `path = …` and `url = …`",
        )];
    }
    hits
}

/// What is read, part by part.
#[derive(Debug, PartialEq, Eq)]
enum Setting<'a> {
    /// The name of a submodule: of its section, as git has it.
    Name(&'a [u8]),
    /// A value of a submodule; the key in small letters, as git compares it.
    Value(&'a [u8], &'a [u8]),
}

fn trouble(setting: &Setting) -> Option<(&'static str, &'static str)> {
    match setting {
        // Its own repository lies below a directory of this name (CVE-2018-11235).
        Setting::Name(name) => {
            let mut parts = name.split(|b| matches!(b, b'/' | b'\\'));
            (name.is_empty() || parts.any(|part| part == b"..")).then_some((
                "a submodule's name leads out of git's own directory",
                "name it by its path",
            ))
        }
        Setting::Value(b"url", url) if runs_or_reads(url) => Some((
            "this address runs a command or reads the machine that clones",
            "use https:// or ssh://",
        )),
        // CVE-2018-17456.
        Setting::Value(b"path", path) if path.starts_with(b"-") => {
            Some(("a submodule's path is an option to git", "rename it"))
        }
        Setting::Value(b"update", update) if update.trim_ascii_start().starts_with(b"!") => {
            Some(("this runs a command where it is cloned", "take it out"))
        }
        Setting::Value(..) => None,
    }
}

/// `ext::` runs a command, a path reads this machine, and `-` would be an option (CVE-2018-17456). `../x` is relative to where
/// this repository comes from, and goes through.
fn runs_or_reads(url: &[u8]) -> bool {
    let url = url.trim_ascii().to_ascii_lowercase();
    let is_drive = matches!(url.as_slice(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    // `transport::address` starts the program `git-remote-transport`.
    let transport: &[u8] = url.split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
    let starts_a_program = !transport.is_empty() && url[transport.len()..].starts_with(b"::");
    starts_a_program
        || is_drive
        || [&b"file:"[..], b"-", b"/", b"\\", b"~"].iter().any(|begin| url.starts_with(begin))
        // A line of its own to a helper for passwords (CVE-2020-5260).
        || url.iter().any(u8::is_ascii_control)
        || url.windows(3).any(|three| three == b"%0a" || three == b"%00")
}

/// Reads what is said of submodules, with its lines; the error is the line that git would stop at.
fn each(bytes: &[u8], mut tell: impl FnMut(usize, Setting)) -> Result<(), usize> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = Reader { bytes, at: 0, line: 1 };
    let (mut in_section, mut in_submodule) = (false, false);
    while let Some(b) = reader.next() {
        let line = reader.line;
        match b {
            b if b.is_ascii_whitespace() => {}
            b'#' | b';' => reader.skip_line(),
            b'[' => {
                let section = reader.section().ok_or(line)?;
                in_section = true;
                // What has no name is no submodule, but a setting of all of them.
                let name = section.strip_prefix(b"submodule.");
                in_submodule = name.is_some();
                if let Some(name) = name {
                    tell(line, Setting::Name(name));
                }
            }
            b if b.is_ascii_alphabetic() && in_section => {
                let key = reader.key(b);
                let value = reader.value().ok_or(line)?;
                if in_submodule {
                    tell(line, Setting::Value(&key, &value));
                }
            }
            _ => return Err(line),
        }
    }
    Ok(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte; CR LF is one line end.
    fn next(&mut self) -> Option<u8> {
        let mut b = self.peek()?;
        self.at += 1;
        if b == b'\r' && self.peek() == Some(b'\n') {
            self.at += 1;
            b = b'\n';
        }
        self.line += usize::from(b == b'\n');
        Some(b)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|b| b != b'\n') {}
    }

    /// After `[`: `section]`, `section.subsection]` or `section "subsection"]`, all of it as the first part of a key, as git
    /// builds it: `section.subsection`.
    fn section(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        loop {
            match self.next()? {
                b']' => return Some(name),
                b' ' | b'\t' => break,
                b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.') => name.push(b.to_ascii_lowercase()),
                _ => return None,
            }
        }
        while self.peek()?.is_ascii_whitespace() {
            self.next();
        }
        if self.next()? != b'"' {
            return None;
        }
        name.push(b'.');
        loop {
            match self.next()? {
                b'"' => break,
                b'\n' => return None,
                b'\\' => match self.next()? {
                    b'\n' => return None,
                    escaped => name.push(escaped),
                },
                b => name.push(b),
            }
        }
        (self.next()? == b']').then_some(name)
    }

    fn key(&mut self, first: u8) -> Vec<u8> {
        let mut key = vec![first.to_ascii_lowercase()];
        while let Some(b) = self.peek().filter(|b| b.is_ascii_alphanumeric() || *b == b'-') {
            key.push(b.to_ascii_lowercase());
            self.at += 1;
        }
        key
    }

    /// After a key: nothing, or `= value` to the end of the line.
    fn value(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.next() {
                None | Some(b'\n') => return Some(Vec::new()),
                Some(b' ' | b'\t') => {}
                Some(b'=') => break,
                Some(_) => return None,
            }
        }
        let (mut value, mut blanks) = (Vec::new(), 0);
        let (mut quoted, mut comment) = (false, false);
        loop {
            match self.next() {
                None | Some(b'\n') => return (!quoted).then_some(value),
                Some(_) if comment => {}
                Some(b) if !quoted && b.is_ascii_whitespace() => blanks += usize::from(!value.is_empty()),
                Some(b'#' | b';') if !quoted => comment = true,
                Some(b) => {
                    value.extend(std::iter::repeat_n(b' ', std::mem::take(&mut blanks)));
                    match b {
                        b'"' => quoted = !quoted,
                        b'\\' => match self.next()? {
                            b'\n' => {}
                            b't' => value.push(b'\t'),
                            b'b' => value.push(8),
                            b'n' => value.push(b'\n'),
                            escaped @ (b'\\' | b'"') => value.push(escaped),
                            _ => return None,
                        },
                        b => value.push(b),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<String> {
        let mut urls = Vec::new();
        let end = each(text.as_bytes(), |_, setting| {
            if let Setting::Value(b"url", url) = setting {
                urls.push(String::from_utf8(url.to_vec()).expect("text"));
            }
        });
        end.expect("a configuration");
        urls
    }

    /// Each as `git config -f` says it; `commits::refs::gitmodules_are_read_as_git_reads_them` asks git itself.
    #[test]
    fn a_value_is_what_git_takes_it_for() {
        for (text, value) in [
            ("[submodule \"x\"] url = ext::sh -c id", "ext::sh -c id"),
            ("# \u{1}\n[submodule \"x\"]\n\turl = a # b", "a"),
            ("[submodule \"x\"]\nurl = \\\next::sh", "ext::sh"),
            ("[submodule \"x\"]\nurl = \"\"file:///etc/x", "file:///etc/x"),
            ("[submodule \"x\"]\nURL=\"a ; b\" c ; d", "a ; b c"),
            ("[submodule \"x\"]\r\n\turl = a\\tb  c  \r\n", "a\tb  c"),
            ("[submodule.x]\nurl = a", "a"),
            ("\u{feff}[submodule \"x\"]\nurl", ""),
        ] {
            assert_eq!(urls(text), [value], "{text:?}");
        }
        for text in [
            "url = a",
            "[submodule \"x\nurl = a",
            "[submodule \"x\"]\nurl = \"a",
            "[submodule \"x\"]\nu_rl = a",
            "[]\n1",
        ] {
            assert!(each(text.as_bytes(), |_, _| {}).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_runs_reads_or_leads_out_is_found_with_its_line() {
        let found = |text: &str| -> Vec<usize> { check(text.as_bytes()).iter().map(|hit| hit.line).collect() };
        for (text, lines) in [
            (
                "[submodule \"x\"]\n\tpath = x\n\turl = https://example.org/x\n",
                &[][..],
            ),
            ("[submodule \"x\"]\n\turl = ../x\n", &[]),
            ("[submodule \"x\"]\n\turl = git@example.org:x/y.git\n", &[]),
            ("[submodule \"x\"]\n\turl = a::b\n", &[2]),
            ("[submodule \"x\"]\n\turl = C:/x\n", &[2]),
            ("[submodule \"x\"]\n\turl = https://example.org/%0ahost\n", &[2]),
            ("[submodule \"../../x\"]\n\tpath = x\n", &[1]),
            ("[submodule.x \"y\"]\n\turl = ext::sh\n", &[2]),
            ("[submodule]\n\tfetchJobs = 4\n", &[]),
            ("[submodule \"\"]\n", &[1]),
            ("[submodule \"x\"]\n\tpath = -x\n\tupdate = !id\n", &[2, 3]),
            ("[other \"x\"]\n\turl = ext::sh\n", &[]),
            ("[submodule \"x\"\n", &[1]),
        ] {
            assert_eq!(found(text), lines, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_configuration_or_an_error(bytes: Vec<u8>, text in "(\\[submodule \"x\"\\]|url|=|\"|\\\\|\n|#|;| |a){0,40}") {
            for bytes in [bytes, text.into_bytes()] {
                let lines = bytes.split(|b| *b == b'\n').count() + 1;
                for hit in check(&bytes) {
                    proptest::prop_assert!(hit.line <= lines);
                }
            }
        }
    }
}

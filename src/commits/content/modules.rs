//! `.gitmodules`, read as git reads a configuration (git-config(1), "Syntax"): what is written so that only git understands it is
//! what has to be found.

use super::Hit;

/// Values of one file: each submodule has three or four.
const MOST_VALUES: usize = 10_000;

/// One value of a configuration.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    line: usize,
    /// In small letters, as git compares it.
    section: Vec<u8>,
    subsection: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What is dangerous to whoever clones with it.
pub(super) fn check(bytes: &[u8]) -> Vec<Hit> {
    let settings = match read(bytes) {
        Ok(settings) => settings,
        Err(line) => {
            return vec![Hit::at(
                line,
                0,
                "git cannot read this as a configuration",
                "write `[submodule \"NAME\"]`, then `path = …` and `url = …`",
            )];
        }
    };
    let of_submodules = settings.iter().filter(|setting| setting.section == b"submodule");
    let mut hits: Vec<Hit> = of_submodules
        .filter_map(|setting| {
            let (what, fix) = trouble(setting)?;
            Some(Hit::at(setting.line, 0, what, fix))
        })
        .collect();
    hits.dedup();
    hits.truncate(super::MOST_IN_A_FILE);
    hits
}

fn trouble(setting: &Setting) -> Option<(&'static str, &'static str)> {
    let Setting {
        subsection, key, value, ..
    } = setting;
    // Its own repository lies below a directory of this name (CVE-2018-11235).
    let mut parts = subsection.split(|b| matches!(b, b'/' | b'\\'));
    if subsection.is_empty() || parts.any(|part| part == b"..") {
        return Some((
            "a submodule's name leads out of git's own directory",
            "name it by its path",
        ));
    }
    match key.as_slice() {
        b"url" if runs_or_reads(value) => Some((
            "this address runs a command or reads the machine that clones",
            "use https:// or ssh://",
        )),
        // CVE-2018-17456.
        b"path" if value.starts_with(b"-") => Some(("a submodule's path is an option to git", "rename it")),
        b"update" if value.trim_ascii_start().starts_with(b"!") => {
            Some(("this runs a command where it is cloned", "take it out"))
        }
        _ => None,
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

/// The settings of a file; else the line that git would stop at.
fn read(bytes: &[u8]) -> Result<Vec<Setting>, usize> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = Reader { bytes, at: 0, line: 1 };
    let mut settings = Vec::new();
    let (mut section, mut subsection) = (Vec::new(), Vec::new());
    while let Some(b) = reader.next() {
        match b {
            b if b.is_ascii_whitespace() => {}
            b'#' | b';' => reader.skip_line(),
            b'[' => {
                let line = reader.line;
                (section, subsection) = reader.section().ok_or(line)?;
            }
            b if b.is_ascii_alphabetic() && !section.is_empty() => {
                let line = reader.line;
                let key = reader.key(b);
                let value = reader.value().ok_or(line)?;
                settings.push(Setting {
                    line,
                    section: section.clone(),
                    subsection: subsection.clone(),
                    key,
                    value,
                });
                if settings.len() > MOST_VALUES {
                    return Err(line);
                }
            }
            _ => return Err(reader.line),
        }
    }
    Ok(settings)
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

    /// After `[`: `section]`, `section.subsection]` or `section "subsection"]`.
    fn section(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut name = Vec::new();
        loop {
            match self.next()? {
                b']' => {
                    let mut halves = name.splitn(2, |b| *b == b'.');
                    let section = halves.next().unwrap_or_default().to_vec();
                    return Some((section, halves.next().unwrap_or_default().to_vec()));
                }
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
        let mut subsection = Vec::new();
        loop {
            match self.next()? {
                b'"' => break,
                b'\n' => return None,
                b'\\' => match self.next()? {
                    b'\n' => return None,
                    escaped => subsection.push(escaped),
                },
                b => subsection.push(b),
            }
        }
        (self.next()? == b']').then_some((name, subsection))
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
        let settings = read(text.as_bytes()).expect("a configuration");
        let urls = settings.into_iter().filter(|setting| setting.key == b"url");
        urls.map(|setting| String::from_utf8(setting.value).expect("text"))
            .collect()
    }

    /// Each as `git config -f` says it (the test in `commits::modules` asks git itself).
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
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
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
            ("[submodule \"../../x\"]\n\tpath = x\n", &[2]),
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

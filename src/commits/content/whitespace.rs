//! Blanks at the end of lines, the end of files, and line endings: verdicts and repairs as pre-commit-hooks has them.

use std::borrow::Cow;

use super::{File, Hit, MOST_IN_A_FILE, column};
use crate::commits::finding::Rule;
use crate::commits::policy::Policy;

pub(super) fn trailing(_: &Policy, file: &File) -> Vec<Hit> {
    if !file.is_text {
        return Vec::new();
    }
    let mut hits = Vec::new();
    for (number, line) in file.lines() {
        let (text, _) = split_ending(line);
        let kept = without_blanks(text);
        if kept.len() == text.len() {
            continue;
        }
        if hits.len() == MOST_IN_A_FILE {
            break;
        }
        hits.push(Hit::at(
            number,
            column(text, kept.len()),
            "blanks at the end of the line",
            "remove them",
        ));
    }
    hits
}

pub(super) fn end(_: &Policy, file: &File) -> Vec<Hit> {
    if !file.is_text {
        return Vec::new();
    }
    let kept = with_one_end(file.bytes);
    if kept.as_ref() == file.bytes {
        return Vec::new();
    }
    let number = file.bytes.split_inclusive(|b| *b == b'\n').count();
    let message = match kept.len().cmp(&file.bytes.len()) {
        std::cmp::Ordering::Greater => "does not end in a line ending",
        std::cmp::Ordering::Less | std::cmp::Ordering::Equal => "ends in empty lines",
    };
    vec![Hit::at(number, 0, message, "let it end in one line ending")]
}

pub(super) fn endings(_: &Policy, file: &File) -> Vec<Hit> {
    if !file.is_text {
        return Vec::new();
    }
    let counted = Endings::of(file.bytes);
    let Some(most) = counted.mixed() else {
        return Vec::new();
    };
    // The first line that ends otherwise than most.
    let line = pieces(file.bytes)
        .enumerate()
        .find(|(_, piece)| Ending::of(piece).is_some_and(|ending| ending != most));
    let Endings { crlf, lf, cr } = counted;
    vec![Hit::at(
        line.map_or(0, |(at, _)| at + 1)
            .min(file.bytes.split_inclusive(|b| *b == b'\n').count()),
        0,
        format!("mixed line endings: {lf} LF, {crlf} CRLF, {cr} CR"),
        "use one kind",
    )]
}

/// What a rule asks the bytes to be, if they are not so: [`super::FIXABLE`] names the rules that can.
#[must_use]
pub fn fixed(rule: Rule, bytes: &[u8]) -> Option<Vec<u8>> {
    if !super::is_text(bytes) {
        return None;
    }
    let mended = match rule {
        Rule::TrailingWhitespace => bytes
            .split_inclusive(|b| *b == b'\n')
            .flat_map(|line| {
                let (text, ending) = split_ending(line);
                without_blanks(text).iter().chain(ending)
            })
            .copied()
            .collect(),
        Rule::EndOfFile => with_one_end(bytes).into_owned(),
        Rule::LineEndings => {
            let most = Endings::of(bytes).mixed()?;
            pieces(bytes)
                .flat_map(|piece| {
                    let text = &piece[..piece.len() - Ending::of(piece).map_or(0, |e| e.bytes().len())];
                    text.iter().chain(most.bytes())
                })
                .copied()
                .collect()
        }
        _ => return None,
    };
    (mended != bytes).then_some(mended)
}

fn split_ending(line: &[u8]) -> (&[u8], &[u8]) {
    let length = match line {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    };
    line.split_at(line.len() - length)
}

/// What Python's `bytes.rstrip` leaves.
fn without_blanks(text: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let kept = text.iter().rposition(|b| !blank(b)).map_or(0, |at| at + 1);
    &text[..kept]
}

fn with_one_end(bytes: &[u8]) -> Cow<'_, [u8]> {
    let is_end = |b: &u8| matches!(b, b'\n' | b'\r');
    let Some(last) = bytes.iter().rposition(|b| !is_end(b)) else {
        // Nothing but ends is nothing.
        return Cow::Borrowed(&bytes[..0]);
    };
    let (text, ends) = bytes.split_at(last + 1);
    match ends {
        [] => Cow::Owned([text, b"\n"].concat()),
        [b'\r', b'\n', ..] => Cow::Borrowed(&bytes[..last + 3]),
        [_, ..] => Cow::Borrowed(&bytes[..last + 2]),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cr,
    Crlf,
    Lf,
}

impl Ending {
    fn of(piece: &[u8]) -> Option<Self> {
        match piece {
            [.., b'\r', b'\n'] => Some(Ending::Crlf),
            [.., b'\n'] => Some(Ending::Lf),
            [.., b'\r'] => Some(Ending::Cr),
            _ => None,
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Ending::Cr => b"\r",
            Ending::Crlf => b"\r\n",
            Ending::Lf => b"\n",
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Endings {
    crlf: usize,
    lf: usize,
    cr: usize,
}

impl Endings {
    fn of(bytes: &[u8]) -> Self {
        let mut counted = Self::default();
        for piece in pieces(bytes) {
            match Ending::of(piece) {
                Some(Ending::Crlf) => counted.crlf += 1,
                Some(Ending::Lf) => counted.lf += 1,
                Some(Ending::Cr) => counted.cr += 1,
                None => {}
            }
        }
        counted
    }

    /// The most frequent kind, if there are several; LF before CRLF before CR where they are as frequent.
    fn mixed(self) -> Option<Ending> {
        let Self { crlf, lf, cr } = self;
        let kinds = [(Ending::Cr, cr), (Ending::Crlf, crlf), (Ending::Lf, lf)];
        if kinds.iter().filter(|(_, n)| *n > 0).count() < 2 {
            return None;
        }
        kinds.into_iter().max_by_key(|(_, n)| *n).map(|(kind, _)| kind)
    }
}

/// Lines as Python's `bytes.splitlines` has them: a lone CR ends one, too.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = rest
            .iter()
            .position(|b| matches!(b, b'\n' | b'\r'))
            .unwrap_or(rest.len() - 1);
        let length = if rest[at..].starts_with(b"\r\n") {
            at + 2
        } else {
            at + 1
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;

    fn names(bytes: &[u8]) -> String {
        let policy = Policy::built_in();
        let file = File::new(b"a", Mode::Regular, bytes);
        let rules = [
            (trailing as fn(&Policy, &File) -> Vec<Hit>, 't'),
            (end, 'e'),
            (endings, 'm'),
        ];
        rules
            .iter()
            .filter(|(check, _)| !check(&policy, &file).is_empty())
            .map(|(_, sign)| *sign)
            .collect()
    }

    /// T29 in small: what each kind of text is, and what mends it.
    #[test]
    fn blanks_ends_and_endings() {
        for (bytes, broken) in [
            (&b""[..], ""),
            (b"a\n", ""),
            (b"a\r\nb\r\n", ""),
            (b"a", "e"),
            (b"a\n\n", "e"),
            (b"\n", "e"),
            (b"a \n", "t"),
            (b"a\t\r\n", "t"),
            (b"  \n", "t"),
            (b"a\nb\r\n", "m"),
            (b"a\rb\n", "m"),
            (b"a\r", "t"),
            (b"\xef\xbb\xbfa\n", ""),
            (b"a\0 \n\n", ""),
        ] {
            assert_eq!(names(bytes), broken, "{bytes:?}");
        }
    }

    #[test]
    fn a_place_is_a_line_and_a_column() {
        let hits = trailing(
            &Policy::built_in(),
            &File::new(b"a", Mode::Regular, "gr\u{f6}\u{df}e  \nx\n".as_bytes()),
        );
        assert_eq!((hits[0].line, hits[0].column), (1, 6));
    }

    proptest::proptest! {
        /// Of text with a lone CR that is not so: the end that a file gets differs from it, as with pre-commit-hooks.
        #[test]
        fn what_is_mended_stays_mended(pieces in proptest::collection::vec(
            proptest::sample::select(vec!["a", "b", " ", "\t", "\n", "\r\n"]), 0..30)) {
            let mut mended = pieces.concat().into_bytes();
            for rule in super::super::FIXABLE {
                mended = fixed(rule, &mended).unwrap_or(mended);
            }
            let broken = names(&mended);
            proptest::prop_assert!(broken.is_empty(), "{broken}: {mended:?}");
        }
    }
}

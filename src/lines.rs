//! Lines out of bytes that come in pieces, whoever brings them: a file that is read again and again, or what a container prints.

/// A longer line is cut here; no request log has one.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Where who follows something begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With what is written from now on.
    AtEnd,
    /// With all that is there.
    AtBeginning,
}

/// The line that has no end yet.
#[derive(Debug)]
pub(crate) enum Partial {
    /// Its beginning.
    Kept(Vec<u8>),
    /// Its rest is of no use: it was too long, or we came in its middle.
    Skipping,
}

impl Partial {
    /// Before its first byte.
    pub(crate) fn new() -> Self {
        Partial::Kept(Vec::new())
    }

    /// Goes on with these bytes; lines that end in them are handed over, without their ends.
    pub(crate) fn take_in(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if let Partial::Kept(line) = self {
                let room = MAX_LINE_BYTES - line.len();
                line.extend_from_slice(&text[..text.len().min(room)]);
                if ends || text.len() > room {
                    lines.push(line_text(line));
                    line.clear();
                }
                if !ends && text.len() > room {
                    *self = Partial::Skipping;
                }
            } else if ends {
                *self = Partial::new();
            }
        }
    }

    /// The last line of what nobody will write to any more, though it has no end.
    pub(crate) fn finish(self, lines: &mut Vec<String>) {
        match self {
            Partial::Kept(line) if !line.is_empty() => lines.push(line_text(&line)),
            Partial::Kept(_) | Partial::Skipping => {}
        }
    }
}

fn line_text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_the_same_however_their_bytes_are_cut(text in "[a-c\r\n]{0,60}", cuts in proptest::collection::vec(0..60_usize, 0..8)) {
            let (mut whole, mut whole_lines) = (Partial::new(), Vec::new());
            whole.take_in(text.as_bytes(), &mut whole_lines);
            whole.finish(&mut whole_lines);
            let expected: Vec<&str> = text.split_terminator('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
            prop_assert_eq!(&whole_lines, &expected);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut pieces, mut lines) = (Partial::new(), Vec::new());
            for cut in cuts.windows(2) {
                pieces.take_in(&text.as_bytes()[cut[0]..cut[1]], &mut lines);
            }
            pieces.finish(&mut lines);
            prop_assert_eq!(lines, expected);
        }
    }

    #[test]
    fn of_a_line_beyond_the_bound_its_beginning_is_one_however_it_comes() {
        let text = format!("{}\nshort\n", "x".repeat(3 * MAX_LINE_BYTES));
        for piece in [100, MAX_LINE_BYTES, 2 * MAX_LINE_BYTES, text.len()] {
            let (mut partial, mut lines) = (Partial::new(), Vec::new());
            for bytes in text.as_bytes().chunks(piece) {
                partial.take_in(bytes, &mut lines);
            }
            let lengths: Vec<usize> = lines.iter().map(String::len).collect();
            assert_eq!(lengths, [MAX_LINE_BYTES, 5], "in pieces of {piece}");
        }
    }
}

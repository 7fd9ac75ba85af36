//! Unresolved conflicts. Only a whole triple counts: a line of seven `=` under a heading is reStructuredText, which
//! pre-commit-hooks takes for a conflict during a merge and passes otherwise.

use super::{File, Hit, MOST_IN_A_FILE};
use crate::commits::policy::Policy;

pub(super) fn markers(_: &Policy, file: &File) -> Vec<Hit> {
    if !file.is_text {
        return Vec::new();
    }
    let mut hits = Vec::new();
    // Where the last opening marker stands, and whether its middle was seen.
    let mut open: Option<(usize, Middle)> = None;
    for (number, line) in file.lines() {
        let line = line.trim_ascii_end();
        open = match open {
            _ if is_marker(line, b'<') => Some((number, Middle::Missing)),
            Some((begin, _)) if line == b"=======" => Some((begin, Middle::Seen)),
            Some((begin, Middle::Seen)) if is_marker(line, b'>') => {
                hits.push(Hit::at(
                    begin,
                    1,
                    format!("an unresolved conflict, to line {number}"),
                    "choose what stays and remove the three markers",
                ));
                None
            }
            other => other,
        };
        if hits.len() == MOST_IN_A_FILE {
            break;
        }
    }
    hits
}

#[derive(Debug, Clone, Copy)]
enum Middle {
    Missing,
    Seen,
}

/// Seven of a sign and then nothing or a label.
fn is_marker(line: &[u8], sign: u8) -> bool {
    line.len() >= 7 && line[..7].iter().all(|b| *b == sign) && (line.len() == 7 || line[7] == b' ')
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let hits = markers(&Policy::built_in(), &File::new(b"a", Mode::Regular, text.as_bytes()));
        hits.into_iter().map(|h| h.line).collect()
    }

    /// T22 and T23.
    #[test]
    fn whole_triples_count_and_headings_do_not() {
        let (a, b, c) = ("<<<<<<< HEAD\n", "=======\n", ">>>>>>> topic\n");
        assert_eq!(lines(&format!("x\n{a}1\n{b}2\n{c}")), [2]);
        assert_eq!(lines(&format!("{a}1\n||||||| base\n0\n{b}2\n{c}")), [1]);
        assert_eq!(lines(&format!("{a}{b}{c}").replace('\n', "\r\n")), [1]);
        assert_eq!(lines(&format!("{a}{b}{c}{a}{b}{c}")), [1, 4]);
        assert_eq!(lines("Heading\n=======\n\ntext\n"), [0; 0]);
        assert_eq!(lines(&format!("{a}{b}")), [0; 0]);
        assert_eq!(lines(&format!("{a}{c}")), [0; 0]);
        assert_eq!(lines(&format!("{b}{c}")), [0; 0]);
        assert_eq!(lines("<<<<<<<< 8\n=======\n>>>>>>>> 8\n"), [0; 0]);
    }
}

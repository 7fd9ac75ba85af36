//! Attestations in git notes: below [`REF`], a commit's note has one envelope a line, and travels with the repository. It is only
//! as good as its signature. Notes are read here; the one who writes them is the command line, outside of this room.

use git2::Oid;

use crate::commits::repository::{Repository, RepositoryError};

/// Where the notes are.
pub const REF: &str = "refs/notes/stagegate";
/// Attestations of one commit that are read from its note: a few keys, each after a few changes of the policy.
pub const MOST_LINES: usize = 64;
/// A longer note is not ours, and is not read.
pub const MOST_BYTES: u64 = 8 << 20;

/// The attestations in a commit's note; none where it has none. What else stands in the note is left out.
///
/// # Errors
/// git could not be read.
pub fn read(repository: &Repository, commit: Oid) -> Result<Vec<String>, RepositoryError> {
    match repository.resolved(REF) {
        Some((_, notes)) => read_at(repository, notes, commit),
        None => Ok(Vec::new()),
    }
}

/// The same of notes that are on their way, which no ref names yet.
///
/// # Errors
/// git could not be read.
pub fn read_at(repository: &Repository, notes: Oid, commit: Oid) -> Result<Vec<String>, RepositoryError> {
    let note = repository.note_of(notes, commit, MOST_BYTES)?;
    Ok(note.map_or(Vec::new(), |note| lines(&String::from_utf8_lossy(&note))))
}

/// The newest are at the end, and are those that are read.
fn lines(note: &str) -> Vec<String> {
    let envelopes: Vec<&str> = note.lines().filter(|line| line.starts_with('{')).collect();
    let first = envelopes.len().saturating_sub(MOST_LINES);
    envelopes[first..].iter().map(|&line| line.to_owned()).collect()
}

/// A note with these attestations added: whatever stands in it stays, and what is there already is not repeated. None where
/// nothing is to be added.
#[must_use]
pub fn with(note: Option<&str>, envelopes: &[String]) -> Option<String> {
    let note = note.unwrap_or_default();
    let new: Vec<&String> = envelopes
        .iter()
        .filter(|envelope| !note.lines().any(|line| line == envelope.as_str()))
        .collect();
    if new.is_empty() {
        return None;
    }
    let mut text = note.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for envelope in new {
        text.push_str(envelope);
        text.push('\n');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_grows_and_keeps_what_stands_in_it() {
        let add = |note: Option<&str>, lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            with(note, &lines)
        };
        assert_eq!(add(None, &["{1}"]).as_deref(), Some("{1}\n"));
        assert_eq!(add(Some("{1}\n"), &["{1}", "{2}"]).as_deref(), Some("{1}\n{2}\n"));
        assert_eq!(add(Some("by hand"), &["{1}"]).as_deref(), Some("by hand\n{1}\n"));
        assert_eq!(add(Some("{1}\n"), &["{1}"]), None);
        assert_eq!(add(None, &[]), None);
        assert_eq!(lines("by hand\n{1}\n\n{2}\r\n"), ["{1}", "{2}"]);
        let many: Vec<String> = (0..MOST_LINES + 2).map(|n| format!("{{{n}}}")).collect();
        let many = many.join("\n");
        assert_eq!((lines(&many).len(), lines(&many)[0].as_str()), (MOST_LINES, "{2}"));
    }
}

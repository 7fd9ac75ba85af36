//! What is in the way of something is said when it begins, when it becomes something else, and when it is over; not each time that it
//! is met.

use std::collections::BTreeMap;

/// What was said last of whom, in as many words as there are names: environments, or sinks.
#[derive(Debug, Default)]
pub(crate) struct Complaints(BTreeMap<String, String>);

/// What is to be said now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Nothing,
    Trouble(String),
    Over,
}

impl Complaints {
    /// Something was tried, and this was in its way or nothing was.
    pub(crate) fn met(&mut self, who: &str, trouble: Option<String>) -> Word {
        match (self.0.get(who), trouble) {
            (None, None) => Word::Nothing,
            (Some(_), None) => {
                self.0.remove(who);
                Word::Over
            }
            (Some(said), Some(trouble)) if *said == trouble => Word::Nothing,
            (_, Some(trouble)) => {
                self.0.insert(who.to_owned(), trouble.clone());
                Word::Trouble(trouble)
            }
        }
    }

    /// Those in whose way something is.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_once_until_it_changes_and_so_is_its_end() {
        let mut complaints = Complaints::default();
        for (who, trouble, word) in [
            ("one", None, Word::Nothing),
            ("one", Some("full"), Word::Trouble("full".to_owned())),
            ("one", Some("full"), Word::Nothing),
            ("two", Some("full"), Word::Trouble("full".to_owned())),
            ("one", Some("gone"), Word::Trouble("gone".to_owned())),
            ("one", Some("gone"), Word::Nothing),
            ("one", None, Word::Over),
            ("one", None, Word::Nothing),
            ("one", Some("gone"), Word::Trouble("gone".to_owned())),
        ] {
            assert_eq!(
                complaints.met(who, trouble.map(str::to_owned)),
                word,
                "{who} {trouble:?}"
            );
        }
        assert_eq!(complaints.names().collect::<Vec<_>>(), ["one", "two"]);
    }
}

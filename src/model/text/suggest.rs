//! "Did you mean": the known word nearest to a mistyped one.

use super::words::{all_of, quoted};

/// Longest word compared; edit distance costs the product of the lengths, and no known key is near this long.
const WORD_LIMIT_CHARS: usize = 64;

/// The known word that somebody who typed `typed` most likely meant, if one is near enough to be worth saying.
/// Case and separators are not counted (`max_unavailable` means `maxUnavailable`); otherwise a third of the letters
/// may differ.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = folded(typed);
    if typed.is_empty() || typed.chars().count() > WORD_LIMIT_CHARS {
        return None;
    }
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, &folded(word)), word))
        .filter(|(distance, word)| *distance <= word.chars().count().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// What to say of a word that is not known: the nearest that is, and what else there is, as far as anybody reads.
pub fn what_is_known<S: AsRef<str>>(typed: &str, known: &[S]) -> String {
    match (did_you_mean(typed, known.iter().map(AsRef::as_ref)), known) {
        (None, known) => format!("there is {}", all_of(known)),
        (Some(near), [_]) => format!("did you mean {}?", quoted(near)),
        (Some(near), known) => format!("did you mean {}? There is {}", quoted(near), all_of(known)),
    }
}

fn folded(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_listed_with_the_nearest_first() {
        let known = ["staging", "production"];
        for (typed, known, said) in [
            (
                "stagin",
                &known[..],
                "did you mean `staging`? There is `staging` and `production`",
            ),
            ("stagin", &known[..1], "did you mean `staging`?"),
            ("x", &known, "there is `staging` and `production`"),
            ("x", &[], "there is none"),
        ] {
            assert_eq!(what_is_known(typed, known), said);
        }
        let many: Vec<String> = (0..40).map(|i| format!("env-{i}")).collect();
        assert!(what_is_known("x", &many).ends_with("`env-11` and 28 more"));
    }

    #[test]
    fn the_nearest_known_word_is_offered_and_nothing_far_off() {
        let known = ["maxUnavailable", "soak", "name", "nodes", "to"];
        let meant = |typed| did_you_mean(typed, known);
        assert_eq!(meant("maxUnavialable"), Some("maxUnavailable"));
        assert_eq!(meant("max_unavailable"), Some("maxUnavailable"));
        assert_eq!(meant("NAME"), Some("name"));
        assert_eq!(meant("node"), Some("nodes"));
        assert_eq!(meant("ot"), Some("to"));
        assert_eq!(meant("replicas"), None);
        assert_eq!(meant("x"), None);
        assert_eq!(meant(&"n".repeat(10_000)), None);
    }
}

//! "Did you mean": the known word nearest to a mistyped one.

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

fn folded(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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

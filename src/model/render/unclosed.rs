//! Where a template opens what it never closes. The parser notices at the end of the text, or at the next tag, and nobody looks
//! for the mistake there.

/// Words that open a block, with the ones that close it.
const BLOCKS: [(&str, &str); 5] = [
    ("if", "endif"),
    ("for", "endfor"),
    ("block", "endblock"),
    ("filter", "endfilter"),
    ("raw", "endraw"),
];

/// What is open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    /// Where it opens, in bytes.
    pub(super) at: usize,
    pub(super) why: String,
}

/// The first tag of a text that is not closed; where all are, the innermost block.
pub(super) fn unclosed(text: &str) -> Option<Unclosed> {
    let mut blocks: Vec<(usize, &str, &str)> = Vec::new();
    let mut from = 0;
    while let Some(at) = next_tag(text, from) {
        let open = &text[at..at + 2];
        let close = closing(open);
        let Some(end) = end_of_tag(text, at, close) else {
            let why = format!("`{open}` opens here and is never closed; close it with `{close}`");
            return Some(Unclosed { at, why });
        };
        from = end;
        if open != "{%" {
            continue;
        }
        let word = first_word(text, at);
        if let Some((word, ending)) = BLOCKS.iter().find(|(opens, _)| *opens == word) {
            blocks.push((at, word, ending));
        } else if blocks.last().is_some_and(|(_, _, ending)| *ending == word) {
            blocks.pop();
        }
        // What stands in it is no template.
        if word == "raw" {
            from = text[end..].find("{%").map_or(text.len(), |tag| end + tag);
            while first_word(text, from) != "endraw" && from < text.len() {
                from = text[from + 2..].find("{%").map_or(text.len(), |tag| from + 2 + tag);
            }
        }
    }
    let (at, word, ending) = blocks.pop()?;
    let why = format!("the block `{word}` opens here and is never closed; close it with `{{% {ending} %}}`");
    Some(Unclosed { at, why })
}

fn first_word(text: &str, tag: usize) -> &str {
    let inside = text.get(tag + 2..).unwrap_or_default();
    let inside = inside.trim_start_matches('-').trim_start();
    inside.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

fn next_tag(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    let mut braces = rest.match_indices('{').map(|(at, _)| from + at);
    braces.find(|at| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

fn closing(open: &str) -> &'static str {
    match open {
        "{{" => "}}",
        "{%" => "%}",
        _ => "#}",
    }
}

/// Behind the end of the tag that opens at `at`: before any other opens, unless in quotes.
fn end_of_tag(text: &str, at: usize, close: &str) -> Option<usize> {
    let inside = &text[at + 2..];
    if close == "#}" {
        return inside.find(close).map(|end| at + 2 + end + 2);
    }
    let mut quote = None;
    for (i, c) in inside.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if inside[i..].starts_with(close) => return Some(at + 2 + i + 2),
            None if ["{{", "{%", "{#"].iter().any(|open| inside[i..].starts_with(open)) => return None,
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            Some(_) | None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_closed_is_found_where_it_opens() {
        let rows = [
            ("a {% if x\nb\n", Some((2, "`{%`"))),
            ("a\n{% if x\n{% endif %}", Some((2, "`{%`"))),
            ("{{ x }} {{ y\n{{ z }}", Some((8, "`{{`"))),
            ("{{ 'it", Some((0, "`{{`"))),
            ("{# no end", Some((0, "`{#`"))),
            ("{% if x %}\n{% for y in x %}{% endfor %}\n", Some((0, "`if`"))),
            ("{% if x %}{%- for y in x -%}", Some((10, "`for`"))),
            ("{% raw %}{{ {% x", Some((0, "`raw`"))),
            ("{% if x %}{{ '{% if %}' }}{% else %}{# {{ #}{% endif %}", None),
            ("{% raw %}{{ {% if {% endraw %}{ }} %}", None),
        ];
        for (text, expected) in rows {
            let found = unclosed(text);
            let said = found.as_ref().map(|found| (found.at, found.why.as_str()));
            match expected {
                None => assert_eq!(said, None, "{text}"),
                Some((at, word)) => {
                    let (found_at, why) = said.unwrap_or_else(|| panic!("nothing found in {text}"));
                    assert!(found_at == at && why.contains(word), "{text}: {said:?}");
                }
            }
        }
    }
}

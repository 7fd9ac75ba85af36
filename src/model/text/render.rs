//! How problems look: for a person on a terminal, and for a program.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value as Json, json};

use super::problem::{Problem, Problems};
use super::source::{Sources, Span};

/// Longest line that is shown. Beyond it (JSON on one line) the place is named and the line left out.
const SHOWN_LINE_LIMIT_BYTES: usize = 1000;

/// Whether a rendering may use colour; the terminal and `NO_COLOR` decide, not this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Characters only.
    Plain,
    /// ANSI colours.
    Coloured,
}

impl Problems {
    /// All problems as `error: … --> file:line:column`, each with its line, a caret and what to do; a blank line
    /// between them, no line break at the end.
    #[must_use]
    pub fn render(&self, sources: &Sources, ink: Ink) -> String {
        let renderer = match ink {
            Ink::Plain => Renderer::plain(),
            Ink::Coloured => Renderer::styled(),
        };
        let mut reports: Vec<String> = self.iter().map(|problem| render_one(&renderer, problem, sources)).collect();
        if self.omitted() > 0 {
            let more = Level::ERROR.primary_title(more_message(self.omitted()));
            reports.push(renderer.render(&[Group::with_title(more)]));
        }
        // The renderer pads the gutter's last column; nothing should end in blanks.
        let lines = reports.iter().flat_map(|report| report.lines().map(str::trim_end).chain([""]));
        lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    /// All problems as a list of `{file, line, column, path, message, hint}`, for programs; line and column count
    /// from 1, and what a problem does not have is null.
    #[must_use]
    pub fn to_json(&self, sources: &Sources) -> Json {
        let mut list: Vec<Json> = self.iter().map(|problem| json_of(problem, sources)).collect();
        if self.omitted() > 0 {
            list.push(json_of(&Problem::new(more_message(self.omitted())), sources));
        }
        Json::Array(list)
    }
}

fn more_message(omitted: usize) -> String {
    format!("and {omitted} more; mend the first ones and run again")
}

fn render_one(renderer: &Renderer, problem: &Problem, sources: &Sources) -> String {
    let path = problem.path.as_ref().filter(|path| !path.is_root()).map(ToString::to_string);
    let (message, shown) = match (problem.span, &path) {
        (Some(span), _) => (problem.message.clone(), shown_line(span, sources)),
        (None, Some(path)) => (format!("{path}: {}", problem.message), None),
        (None, None) => (problem.message.clone(), None),
    };
    let title = Level::ERROR.primary_title(message);
    let mut group = match (problem.span, shown) {
        (Some(span), Some(line)) => title.element(
            Snippet::source(line.text)
                .path(sources.name(span.source))
                .line_start(span.start.line)
                .annotation(AnnotationKind::Primary.span(line.underlined).label(path)),
        ),
        (Some(span), None) => title.element(
            Origin::path(sources.name(span.source)).line(span.start.line).char_column(span.start.column),
        ),
        (None, _) => Group::with_title(title),
    };
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    renderer.render(&[group])
}

struct ShownLine<'s> {
    text: &'s str,
    underlined: std::ops::Range<usize>,
}

/// The line on which a span starts and the part of the span on it: a value of many lines is pointed at by its first.
fn shown_line(span: Span, sources: &Sources) -> Option<ShownLine<'_>> {
    let text = sources.text(span.source);
    let before = text.get(..span.start.byte)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or("").trim_end();
    if line.len() > SHOWN_LINE_LIMIT_BYTES {
        return None;
    }
    // A byte order mark takes no column; shown, it would push the caret off its place.
    let (line, start) = match line.strip_prefix('\u{feff}') {
        Some(rest) => (rest, start + '\u{feff}'.len_utf8()),
        None => (line, start),
    };
    let from = span.start.byte.saturating_sub(start).min(line.len());
    let to = span.end.byte.saturating_sub(start).clamp(from, line.len());
    Some(ShownLine { text: line, underlined: from..to })
}

fn json_of(problem: &Problem, sources: &Sources) -> Json {
    let Problem { path, span, message, hint } = problem;
    json!({
        "file": span.map(|span| sources.name(span.source)),
        "line": span.map(|span| span.start.line),
        "column": span.map(|span| span.start.column),
        "path": path.as_ref().map(ToString::to_string),
        "message": message,
        "hint": hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::{Path, Position};

    fn one(text: &str, start: usize, end: usize) -> (Sources, Problems) {
        let mut sources = Sources::new();
        let source = sources.add("envs/production.yaml", text);
        let place = |byte: usize| Position {
            byte,
            line: text[..byte].matches('\n').count() + 1,
            column: text[..byte].chars().rev().take_while(|c| *c != '\n').count() + 1,
        };
        let problem = Problem::new("expected a whole number, found the string `abc`")
            .at(Path::root().key("spec").key("soak"))
            .span(Span { source, start: place(start), end: place(end) })
            .hint("`soak`: how long to watch");
        (sources, problem.into())
    }

    #[test]
    fn a_problem_shows_its_line_with_a_caret_its_path_and_what_to_do() {
        let (sources, problems) = one("spec:\n  soak: abc\n", 14, 17);
        insta::assert_snapshot!(problems.render(&sources, Ink::Plain), @"
        error: expected a whole number, found the string `abc`
         --> envs/production.yaml:2:9
          |
        2 |   soak: abc
          |         ^^^ spec.soak
          |
          = help: `soak`: how long to watch
        ");
        insta::assert_snapshot!(problems.render(&sources, Ink::Coloured).escape_debug().to_string(), @r"\u{1b}[1m\u{1b}[91merror\u{1b}[0m\u{1b}[1m: expected a whole number, found the string `abc`\u{1b}[0m\n \u{1b}[1m\u{1b}[94m--> \u{1b}[0menvs/production.yaml:2:9\n  \u{1b}[1m\u{1b}[94m|\u{1b}[0m\n\u{1b}[1m\u{1b}[94m2\u{1b}[0m \u{1b}[1m\u{1b}[94m|\u{1b}[0m   soak: abc\n  \u{1b}[1m\u{1b}[94m|\u{1b}[0m         \u{1b}[1m\u{1b}[91m^^^\u{1b}[0m \u{1b}[1m\u{1b}[91mspec.soak\u{1b}[0m\n  \u{1b}[1m\u{1b}[94m|\u{1b}[0m\n  \u{1b}[1m\u{1b}[94m= \u{1b}[0m\u{1b}[1mhelp\u{1b}[0m: `soak`: how long to watch");
    }

    #[test]
    fn a_value_of_many_lines_is_pointed_at_by_its_first() {
        let (sources, problems) = one("spec:\n  soak: |\n    a\n    b\n", 8, 25);
        insta::assert_snapshot!(problems.render(&sources, Ink::Plain), @"
        error: expected a whole number, found the string `abc`
         --> envs/production.yaml:2:3
          |
        2 |   soak: |
          |   ^^^^^^^ spec.soak
          |
          = help: `soak`: how long to watch
        ");
    }

    #[test]
    fn carets_stand_under_wide_characters_and_tabs_and_windows_line_ends() {
        let (sources, problems) = one("\u{feff}{\t\"é😀\":\tabc}\r\n", 16, 19);
        insta::assert_snapshot!(problems.render(&sources, Ink::Plain), @r#"
        error: expected a whole number, found the string `abc`
         --> envs/production.yaml:1:10
          |
        1 | {    "é😀":    abc}
          |                 ^^^ spec.soak
          |
          = help: `soak`: how long to watch
        "#);
    }

    #[test]
    fn a_line_too_long_to_show_is_named_only() {
        let text = format!("{{\"a\": \"{}\", \"soak\": abc}}", "x".repeat(2000));
        let (sources, problems) = one(&text, 2018, 2021);
        insta::assert_snapshot!(problems.render(&sources, Ink::Plain), @"
        error: expected a whole number, found the string `abc`
        --> envs/production.yaml:1:2019
         = help: `soak`: how long to watch
        ");
    }

    #[test]
    fn a_problem_without_a_place_names_its_path() {
        let mut problems = Problems::from(Problem::new("no such environment").at(Path::root().key("spec")));
        problems.push(Problem::new("nothing to do").hint("add a file"));
        insta::assert_snapshot!(problems.render(&Sources::new(), Ink::Plain), @"
        error: spec: no such environment

        error: nothing to do
         |
         = help: add a file
        ");
    }

    #[test]
    fn text_cannot_drive_the_terminal() {
        let (sources, problems) = one("a: \u{1b}[31mred\u{7}\n", 3, 8);
        assert!(!problems.render(&sources, Ink::Plain).contains(['\u{1b}', '\u{7}']));
    }
}

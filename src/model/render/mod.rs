//! The one way in which text becomes other text: Tera templates over a JSON context, for lifecycle scripts, requests
//! and SQL. Nothing is escaped (none of it is HTML) and what is not defined is an error, never an empty string: a
//! script with a hole in it would run. (In a condition an undefined field is false, as Tera has it: that is how a
//! template asks whether something is there.)

mod unclosed;

use std::collections::BTreeMap;

use tera::{ErrorKind, Tera};
use thiserror::Error;

/// The name under which messages speak of a text that is not a file.
const INLINE: &str = "inline text";

/// Tera's own name for such a text.
const TERA_INLINE: &str = "__tera_one_off";

/// Parsed templates, ready to be rendered any number of times.
#[derive(Clone, Default)]
pub struct Renderer {
    tera: Tera,
    sources: BTreeMap<String, String>,
}

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer")
            .field("templates", &self.sources.keys())
            .finish_non_exhaustive()
    }
}

/// What the variables of templates stand for: converted once, used for many renderings.
#[derive(Debug, Clone)]
pub struct Variables(tera::Context);

impl Variables {
    /// Takes the fields of a JSON object as variables.
    ///
    /// # Errors
    /// Anything but an object.
    pub fn new(context: &serde_json::Value) -> Result<Self, RenderError> {
        if !context.is_object() {
            return Err(RenderError::NotAnObject);
        }
        tera::Context::from_serialize(context)
            .map(Self)
            .map_err(|_| RenderError::NotAnObject)
    }

    /// Sets one variable, replacing what it was.
    pub fn set(&mut self, name: &'static str, value: &serde_json::Value) {
        self.0.insert(name, value);
    }
}

/// Why a text could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// A variable or field that the context does not have.
    #[error(
        "{template}, line {line}, column {column}: `{name}` is not defined ({detail}); define it, or give it a default \
         with `| default(value=...)`"
    )]
    Undefined {
        /// The variable as the template writes it.
        name: String,
        /// The template that uses it.
        template: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is defined there instead.
        detail: String,
    },
    /// The text is no template, or a filter in it refused its value.
    #[error("{template}, line {line}, column {column}: {why}")]
    Broken {
        /// The template.
        template: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// Something about the templates as a whole: an unknown one, an include that is missing or goes in circles.
    #[error("cannot render: {0}")]
    Other(String),
    /// The context is a list or a scalar.
    #[error("cannot render: the context must be an object of variables")]
    NotAnObject,
}

impl RenderError {
    /// The template that it is about, if it is about one.
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        match self {
            RenderError::Undefined { template, .. } | RenderError::Broken { template, .. } => Some(template),
            RenderError::Other(_) | RenderError::NotAnObject => None,
        }
    }

    /// Line and column there, from 1.
    #[must_use]
    pub fn place(&self) -> Option<(usize, usize)> {
        match self {
            RenderError::Undefined { line, column, .. } | RenderError::Broken { line, column, .. } => {
                Some((*line, *column))
            }
            RenderError::Other(_) | RenderError::NotAnObject => None,
        }
    }
}

impl Renderer {
    /// Whether there is a template of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.sources.contains_key(name)
    }

    /// Parses templates by name; they may include one another.
    ///
    /// # Errors
    /// The first template that does not parse, or that includes one which is not there.
    pub fn new(templates: &BTreeMap<String, String>) -> Result<Self, RenderError> {
        for (name, text) in templates {
            refuse_concatenation(name, text)?;
        }
        let mut tera = Tera::new();
        tera.autoescape_on(Vec::<&str>::new());
        tera.add_raw_templates(templates.iter())
            .map_err(|error| explain(&error, templates, None))?;
        Ok(Self {
            tera,
            sources: templates.clone(),
        })
    }

    /// Renders a parsed template.
    ///
    /// # Errors
    /// An unknown template, an undefined variable, a filter that refuses its value.
    pub fn render(&self, name: &str, variables: &Variables) -> Result<String, RenderError> {
        self.tera
            .render(name, &variables.0)
            .map_err(|error| explain(&error, &self.sources, None))
    }

    /// The texts that were parsed, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Parses and renders a text, which may include the parsed templates.
    ///
    /// # Errors
    /// As [`Renderer::render`], and a text that does not parse.
    pub fn render_text(&self, text: &str, context: &serde_json::Value) -> Result<String, RenderError> {
        refuse_concatenation(INLINE, text)?;
        let variables = Variables::new(context)?;
        self.tera
            .render_str(text, &variables.0, false)
            .map_err(|error| explain(&error, &self.sources, Some(text)))
    }
}

/// `a ~ b` is the one place where Tera writes an undefined value as nothing; `{{ a }}{{ b }}` says the same and does
/// not, so the operator is refused rather than trusted.
fn refuse_concatenation(template: &str, text: &str) -> Result<(), RenderError> {
    let mut rest = 0;
    while let Some(open) = text[rest..].find('{').map(|at| rest + at) {
        let close = match text.as_bytes().get(open + 1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => "#}",
            _ => {
                rest = open + 1;
                continue;
            }
        };
        // An unclosed tag is the parser's to report.
        let Some(end) = text[open + 2..].find(close).map(|at| open + 2 + at) else {
            return Ok(());
        };
        if close != "#}"
            && let Some(at) = outside_quotes(&text[open + 2..end], '~')
        {
            let (line, column) = place_of(text, open + 2 + at);
            return Err(RenderError::Broken {
                template: template.to_owned(),
                line,
                column,
                why: "`~` would write an undefined value as nothing; write `{{ a }}{{ b }}` instead of `{{ a ~ b }}`"
                    .to_owned(),
            });
        }
        rest = end + 2;
    }
    Ok(())
}

/// Line and column, from 1.
fn place_of(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

fn outside_quotes(code: &str, wanted: char) -> Option<usize> {
    let mut quote = None;
    for (at, c) in code.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if c == wanted => return Some(at),
            Some(_) | None => {}
        }
    }
    None
}

fn explain(error: &tera::Error, sources: &BTreeMap<String, String>, inline: Option<&str>) -> RenderError {
    let (ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report)) = error.kind() else {
        return RenderError::Other(error.to_string());
    };
    let span = report.span();
    let (template, source) = if report.filename() == TERA_INLINE {
        (INLINE, inline)
    } else {
        (report.filename(), sources.get(report.filename()).map(String::as_str))
    };
    let is_syntax = matches!(error.kind(), ErrorKind::SyntaxError(_));
    if let Some(text) = source.filter(|_| is_syntax)
        && let Some(open) = unclosed::unclosed(text)
        && open.at <= span.range.start
    {
        let (line, column) = place_of(text, open.at);
        return RenderError::Broken {
            template: template.to_owned(),
            line,
            column,
            why: open.why,
        };
    }
    let (template, line, column) = (template.to_owned(), span.start_line, span.start_col + 1);
    let detail = report.message().to_owned();
    if !speaks_of_undefined(&detail) {
        return RenderError::Broken {
            template,
            line,
            column,
            why: detail,
        };
    }
    RenderError::Undefined {
        name: source
            .and_then(|text| path_around(text, span.range.clone()))
            .unwrap_or_else(|| "a variable".to_owned()),
        template,
        line,
        column,
        detail,
    }
}

/// Tera has no error kind for it. The tests below hold one row for each of its wordings.
fn speaks_of_undefined(message: &str) -> bool {
    message.contains("undefined") || message.contains("is not defined")
}

/// The dotted path in `text` that the range lies in: the engine points at one field of it, people look for the whole.
fn path_around(text: &str, range: std::ops::Range<usize>) -> Option<String> {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '[' | ']');
    let start = text.get(..range.start)?.trim_end_matches(part).len();
    let tail = text.get(range.end..)?;
    let end = range.end + (tail.len() - tail.trim_start_matches(part).len());
    let path = text.get(start..end)?.trim();
    (!path.is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn renderer(templates: &[(&str, &str)]) -> Renderer {
        let templates = templates
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        Renderer::new(&templates).expect("templates of a test parse")
    }

    fn undefined(text: &str) -> String {
        match renderer(&[]).render_text(text, &json!({"node": {"name": "n1"}, "none": null})) {
            Err(RenderError::Undefined { name, .. }) => name,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_undefined_variable_is_an_error_that_names_it() {
        let rows = [
            ("{{ nothing }}", "nothing"),
            ("{{ nothing.at.all }}", "nothing.at.all"),
            ("a\n{{ node.port }}", "node.port"),
            ("{{ node.ports.http }}", "node.ports.http"),
            ("{{ node.port | upper }}", "node.port"),
            ("{{ nothing | upper }}", "nothing"),
            ("{{ 1 + nothing }}", "1 + nothing"),
            ("{% for x in nothing %}{% endfor %}", "nothing"),
            ("{% set a = nothing %}{{ a }}", "a"),
            ("{{ node['port'] }}", "node['port']"),
        ];
        for (text, name) in rows {
            assert_eq!(undefined(text), name, "{text}");
        }
    }

    #[test]
    fn an_error_says_where() {
        let templates = renderer(&[("start.sh", "one\ntwo {{ vars.port }}\n")]);
        let variables = Variables::new(&json!({"vars": {"host": "h"}})).expect("an object");
        let error = templates.render("start.sh", &variables).expect_err("undefined");
        assert_eq!(
            error.to_string(),
            "start.sh, line 2, column 13: `vars.port` is not defined (Field `port` is not defined. Available fields: \
             host); define it, or give it a default with `| default(value=...)`"
        );
        let error = renderer(&[])
            .render_text("a\n {{ x\n\n", &json!({}))
            .expect_err("no template");
        assert!(
            matches!(&error, RenderError::Broken { template, line: 2, column: 2, .. } if template == INLINE),
            "{error:?}"
        );
        for (text, place) in [
            // What is wrong before it is said first.
            ("{{ 1 + }}\n{% if x", (1, 8)),
            ("a\n{% if x %}\nb\n", (2, 1)),
            ("a\n{% if x\nb\n{% endif %}\n", (2, 1)),
        ] {
            let error = renderer(&[])
                .render_text(text, &json!({"x": 1}))
                .expect_err("no template");
            assert_eq!(error.place(), Some(place), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_is_escaped_and_included_files_are_found() {
        let templates = renderer(&[("inner.html", "<{{ x }}>"), ("outer", "{% include 'inner.html' %}")]);
        let context = json!({"x": "a & 'b'", "n": 5, "f": 0.5, "id": 9_007_199_254_740_991_i64});
        let variables = Variables::new(&context).expect("an object");
        assert_eq!(templates.render("outer", &variables).as_deref(), Ok("<a & 'b'>"));
        assert_eq!(
            templates
                .render_text("{% include 'inner.html' %} {{ n }} {{ f }} {{ id }}", &context)
                .as_deref(),
            Ok("<a & 'b'> 5 0.5 9007199254740991")
        );
    }

    #[test]
    fn a_default_stands_in_for_what_is_not_defined() {
        let text = "{{ node.port | default(value=80) }}{% if node.spare is defined %}!{% endif %}";
        assert_eq!(
            renderer(&[]).render_text(text, &json!({"node": {}})).as_deref(),
            Ok("80")
        );
    }

    #[test]
    fn concatenation_which_would_hide_an_undefined_value_is_refused() {
        let error = renderer(&[]).render_text("{# ~ #}~\n{{ 'a' ~ nothing }}", &json!({}));
        assert!(
            matches!(&error, Err(RenderError::Broken { line: 2, column: 8, .. })),
            "{error:?}"
        );
        assert_eq!(
            renderer(&[]).render_text("{# ~ #}~{ {{ '~' }}", &json!({})).as_deref(),
            Ok("~{ ~")
        );
    }

    #[test]
    fn templates_that_include_what_is_not_there_are_refused_at_once() {
        let templates = BTreeMap::from([("a".to_owned(), "{% include 'b' %}".to_owned())]);
        let error = Renderer::new(&templates).expect_err("b is missing").to_string();
        assert!(error.contains('b'), "{error}");
        assert!(Variables::new(&json!([1])).is_err());
    }
}

//! The one owner of stdout and stderr.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::view::API_VERSION;
use super::{Exit, Output};

/// Writes data to stdout as asked for, and everything else to stderr.
pub struct Printer {
    output: Output,
    bar: ProgressBar,
    /// A resource was written, so that a program has what it reads.
    wrote: AtomicBool,
}

impl Printer {
    pub fn new(output: Output) -> Self {
        let people = std::io::stderr().is_terminal();
        let bar = if people {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        Self {
            output,
            bar,
            wrote: AtomicBool::new(false),
        }
    }

    /// How data is asked for.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Whether data is written for people.
    pub fn is_for_people(&self) -> bool {
        matches!(self.output, Output::Table | Output::Wide)
    }

    /// One line for people who watch.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| {
            // Nobody is there to be told that nobody reads.
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }

    /// What goes on now; shown on a terminal only, and replaced by the next.
    pub fn doing(&self, what: String) {
        self.bar.enable_steady_tick(Duration::from_millis(200));
        self.bar.set_message(what);
    }

    /// Nothing goes on any more.
    pub fn idle(&self) {
        self.bar.finish_and_clear();
    }

    /// Why the command failed. A program that asked for a resource and got none gets this as one.
    pub fn error(&self, error: &anyhow::Error, exit: Exit) {
        self.idle();
        let mut text = error.to_string();
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        // What is wrong with a file says so itself, once for each place.
        if text.starts_with("error: ") {
            self.note(&text);
        } else {
            self.note(&format!("error: {text}"));
        }
        if !self.is_for_people() && !self.wrote.load(Ordering::Relaxed) {
            let status = json!({
                "apiVersion": API_VERSION,
                "kind": "Status",
                "metadata": {"name": exit.word()},
                "spec": {},
                "status": {"phase": "Failed", "reason": exit.word(), "message": text, "exitCode": exit.code()},
            });
            // Nobody is there to be told that nobody reads.
            let _ = self.resource(&status, |_| Ok(()));
        }
    }

    /// A line of data.
    pub fn line(&self, line: &str) -> anyhow::Result<()> {
        self.bar.suspend(|| writeln!(std::io::stdout(), "{line}"))?;
        Ok(())
    }

    /// A table.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(header);
        for row in rows {
            table.add_row(row);
        }
        let text: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
        self.line(&text.join("\n"))
    }

    /// A resource, as asked for; `people` writes it for people.
    pub fn resource(&self, resource: &Value, people: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.wrote.store(true, Ordering::Relaxed);
        match self.output {
            Output::Table | Output::Wide => people(self),
            Output::Json | Output::Sarif => self.line(&serde_json::to_string_pretty(resource)?),
            Output::Yaml => self.line(crate::model::text::to_yaml(resource)?.trim_end()),
            Output::Name => {
                let text = |at: &Value| at.as_str().unwrap_or_default().to_owned();
                let kind = text(&resource["kind"]).to_lowercase();
                self.line(&format!("{kind}/{}", text(&resource["metadata"]["name"])))
            }
        }
    }
}

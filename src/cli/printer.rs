//! The one owner of stdout and stderr.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::pulse::Pulse;
use super::view::API_VERSION;
use super::{Exit, Output, called};
use crate::model::text::Ink;
use crate::report::Lines;
use crate::workspace::{Invalid, WorkspaceError};

/// Writes data to stdout as asked for, and everything else to stderr.
pub struct Printer {
    bar: ProgressBar,
    pulse: Arc<Pulse>,
    data: Arc<Data>,
    /// What came of the command, in words, where it has no resource to show.
    outcome: Mutex<String>,
}

/// Standard output.
struct Data {
    output: Output,
    /// Whether anything was written, so that a program has what it reads. Locked while something is.
    wrote: Mutex<bool>,
    /// The reader of stdout has gone.
    unread: AtomicBool,
}

/// What is still said where the process ends in the middle of its work.
pub(super) struct LastWord(Arc<Data>);

/// A reader that stalls may keep a process from writing, but not from ending.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(2);

impl Data {
    fn is_for_people(&self) -> bool {
        matches!(self.output, Output::Table | Output::Wide)
    }
}

impl LastWord {
    /// Ends the process. A program that asked for a resource has one all the same: what is just being written is written to
    /// its end, and where nothing was, it is this.
    pub(super) fn interrupted(&self) -> ! {
        let Self(data) = self;
        if !data.is_for_people() {
            // Nothing can be said by who writes already, nor by who cannot be waited for: on its own thread it may stay.
            let (data, (tell, said)) = (Arc::clone(data), mpsc::channel());
            let saying = std::thread::Builder::new().spawn(move || {
                let mut wrote = data.wrote.lock().unwrap_or_else(PoisonError::into_inner);
                if !*wrote {
                    let words =
                        "interrupted twice, so it ended at once; what it had begun the same command takes up again";
                    let status = status_of("Failed", Exit::Interrupted, words, None);
                    let _ = text_of(data.output, &status).map(|text| writeln!(std::io::stdout(), "{text}"));
                }
                *wrote = true;
                let _ = tell.send(());
                // The lock is kept until the process is gone, so that nothing is written behind it.
                loop {
                    std::thread::park();
                }
            });
            if saying.is_ok() {
                let _ = said.recv_timeout(LAST_WORD_PATIENCE);
            }
        }
        std::process::exit(Exit::Interrupted.code().into());
    }
}

/// How a command ended, as a resource.
fn status_of(phase: &str, exit: Exit, message: &str, details: Option<Value>) -> Value {
    let mut status = json!({
        "apiVersion": API_VERSION,
        "kind": "Status",
        "metadata": {"name": exit.word()},
        "spec": {},
        "status": {"phase": phase, "reason": exit.word(), "message": message, "exitCode": exit.code()},
    });
    if let Some(details) = details {
        status["status"]["details"] = details;
    }
    status
}

/// A resource for programs.
fn text_of(output: Output, resource: &Value) -> anyhow::Result<String> {
    Ok(match output {
        Output::Json | Output::Sarif | Output::Table | Output::Wide => serde_json::to_string_pretty(resource)?,
        Output::Yaml => crate::model::text::to_yaml(resource)?.trim_end().to_owned(),
        Output::Name => names(resource).join("\n"),
    })
}

/// `kind/name`, as `get` and `status` take it again; of a list one for each of its items.
fn names(resource: &Value) -> Vec<String> {
    let name = |resource: &Value| {
        let text = |at: &Value| at.as_str().unwrap_or_default().to_owned();
        let kind = text(&resource["kind"]).to_lowercase();
        format!("{kind}/{}", text(&resource["metadata"]["name"]))
    };
    match resource["items"].as_array() {
        Some(items) if resource["kind"] == "List" => items.iter().map(name).collect(),
        Some(_) | None => vec![name(resource)],
    }
}

/// Standard error, beside the progress line.
#[derive(Clone)]
struct BesideProgress {
    bar: ProgressBar,
    pulse: Arc<Pulse>,
}

impl Lines for BesideProgress {
    fn line(&self, line: &str) -> std::io::Result<()> {
        self.pulse.spoke();
        self.bar.suspend(|| writeln!(std::io::stderr(), "{line}"))
    }
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
            bar,
            pulse: Pulse::new(),
            data: Arc::new(Data {
                output,
                wrote: Mutex::new(false),
                unread: AtomicBool::new(false),
            }),
            outcome: Mutex::default(),
        }
    }

    /// How data is asked for.
    pub fn output(&self) -> Output {
        self.data.output
    }

    /// For who ends the process in the middle of its work.
    pub(super) fn last_word(&self) -> LastWord {
        LastWord(Arc::clone(&self.data))
    }

    /// Whether data is written for people.
    pub fn is_for_people(&self) -> bool {
        self.data.is_for_people()
    }

    fn beside_progress(&self) -> BesideProgress {
        BesideProgress {
            bar: self.bar.clone(),
            pulse: Arc::clone(&self.pulse),
        }
    }

    /// One line for people who watch. Commands in backticks are written so that they can be pasted.
    pub fn note(&self, line: &str) {
        // Nobody is there to be told that nobody reads.
        let _ = self.beside_progress().line(&called::in_sentence(line));
    }

    /// The same for others who write lines for people.
    pub fn lines(&self) -> Arc<dyn Lines> {
        Arc::new(self.beside_progress())
    }

    /// A command to go on with, by itself in its line.
    pub fn command(&self, line: &str) {
        self.note(&format!("  {}", called::command(line)));
    }

    /// What came of a command that has no resource to show.
    pub fn done(&self, line: &str) {
        self.note(line);
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = called::in_sentence(line).into_owned();
    }

    /// What goes on now, with the time that it has taken: on a terminal one line, replaced by the next; elsewhere a line now
    /// and then.
    pub fn doing(&self, what: String) {
        if self.pulse.doing(&what) {
            self.bar.reset_elapsed();
        }
        if self.bar.is_hidden() {
            let lines = self.beside_progress().bar;
            self.pulse.beat(move |line| {
                // Nobody is there to be told that nobody reads.
                let _ = lines.suspend(|| writeln!(std::io::stderr(), "{line}"));
            });
            return;
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
        self.bar.set_message(what);
    }

    /// Nothing goes on any more.
    pub fn idle(&self) {
        self.pulse.idle();
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
        let invalid: Option<&Invalid> = error.chain().find_map(|cause| match cause.downcast_ref() {
            Some(WorkspaceError::Invalid(invalid)) => Some(invalid),
            _ => None,
        });
        match invalid {
            Some(invalid) if crate::settings::colours_on_stderr() => self.note(&invalid.render(Ink::Coloured)),
            // What is wrong with a file says so itself, once for each place; so does a command line.
            _ if text.starts_with("error: ") => self.note(&text),
            _ => self.note(&format!("error: {text}")),
        }
        self.status(
            "Failed",
            exit,
            &called::in_sentence(&text),
            invalid.map(Invalid::to_json),
        );
    }

    /// How a command ended, for a program that asked for a resource and got none.
    pub fn end(&self, exit: Exit) {
        self.idle();
        let phase = if exit == Exit::Done { "Succeeded" } else { "Failed" };
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.status(phase, exit, &outcome, None);
    }

    fn status(&self, phase: &str, exit: Exit, message: &str, details: Option<Value>) {
        if self.is_for_people() || *self.wrote() {
            return;
        }
        let status = status_of(phase, exit, message, details);
        // Nobody is there to be told that stdout cannot be written.
        let _ = self.resource(&status, |_| Ok(()));
    }

    /// Whether the reader of stdout has gone, as `head` does: who would write for ever ends then.
    pub fn is_unread(&self) -> bool {
        self.data.unread.load(Ordering::Relaxed)
    }

    fn wrote(&self) -> MutexGuard<'_, bool> {
        self.data.wrote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of data. That nobody reads it is no error: the exit code says what came of the command, not of its reader.
    pub fn line(&self, line: &str) -> anyhow::Result<()> {
        let mut wrote = self.wrote();
        *wrote = true;
        match self.bar.suspend(|| writeln!(std::io::stdout(), "{line}")) {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => self.data.unread.store(true, Ordering::Relaxed),
            written => written.context("cannot write to standard output")?,
        }
        Ok(())
    }

    /// A line of data for people, with commands in backticks.
    pub fn sentence(&self, line: &str) -> anyhow::Result<()> {
        self.line(&called::in_sentence(line))
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
        let output = self.data.output;
        match output {
            Output::Table | Output::Wide => people(self),
            // A list that is empty is an answer, too.
            Output::Name if names(resource).is_empty() => {
                *self.wrote() = true;
                Ok(())
            }
            Output::Json | Output::Sarif | Output::Yaml | Output::Name => self.line(&text_of(output, resource)?),
        }
    }
}

//! The command line as a page, from what `--help` says: docs/reference/cli.md is this.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

/// As wide as a page of documentation shows without scrolling.
const COLUMNS: usize = 100;

/// The page.
#[must_use]
pub fn reference() -> String {
    let mut command = super::Arguments::command().term_width(COLUMNS);
    // Sets what subcommands inherit.
    command.build();
    let mut page = String::from(
        "# Command line\n\n\
         What `stagegate --help` and `stagegate COMMAND --help` print. A test keeps this page so; write it anew with\n\
         `STAGEGATE_REGENERATE=1 cargo test reference`.\n\n",
    );
    section(&mut page, "stagegate", &command);
    page.trim_end().to_owned() + "\n"
}

/// The page of the plugin for kubectl: docs/reference/kubectl.md.
#[must_use]
pub fn plugin_reference() -> String {
    let mut command = super::plugin::command().term_width(COLUMNS);
    command.build();
    let mut page = String::from(
        "# kubectl plugin\n\n\
         What `kubectl stagegate --help` and `kubectl stagegate COMMAND --help` print. A test keeps this page so.\n\n",
    );
    section(&mut page, "kubectl stagegate", &command);
    page.trim_end().to_owned() + "\n"
}

fn section(page: &mut String, name: &str, command: &Command) {
    let help = command.clone().term_width(COLUMNS).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a String cannot fail.
    let _ = write!(page, "## {name}\n\n```text\n{}\n```\n\n", help.join("\n").trim());
    for child in command.get_subcommands().filter(|c| c.get_name() != "help") {
        section(page, &format!("{name} {}", child.get_name()), child);
    }
}

//! `stagegate quickstart`: the main job, from nothing.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::called::quoted;
use super::ground::GroundError;
use super::printer::Printer;
use super::rehearse;
use super::{Exit, ground, up};
use crate::engine::fleet::Fleet;
use crate::engine::rehearsal::{Quarantined, Rehearsing};
use crate::process::{self, Bounds};
use crate::workspace::Workspace;

/// The package database answers within a second, with a line a package.
const QUERY: Bounds = Bounds {
    deadline: Duration::from_secs(20),
    output_bytes: 1 << 20,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rehearsal's name in pipelines/, or a file; the one that is labelled for it without
    rehearsal: Option<String>,
    /// Install the Debian packages that are missing, as who is not root by sudo
    #[arg(long)]
    install: bool,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { rehearsal, install } = arguments;
    let workspace = ground::workspace();
    let shift = ground::port_shift()?;
    let place = workspace.root().join("pipelines");
    if rehearsal.is_none() && !place.is_dir() {
        return Err(GroundError::NoRehearsals(place).into());
    }
    let (name, spec) = match rehearsal {
        Some(name) => workspace.rehearsal(&name, shift)?,
        None => workspace.quickstart(shift)?,
    };
    // Looked at before anything is made, the state directory included: without the packages nothing changes.
    let (environment, _) = workspace.environment(&spec.environment, shift)?;
    let missing = missing_packages(&environment.spec.packages).await?;
    if !missing.is_empty() {
        let script = environment.spec.packages_script.as_ref();
        let script = script.ok_or_else(|| GroundError::NoPackagesScript(missing.join(" ")))?;
        let installation = Installation::new(&workspace, script, missing);
        if !(install || rustix::process::geteuid().is_root()) {
            return Err(installation.left_to_operator().into());
        }
        installation.run(printer)?;
    }
    let interrupt = ground::interrupt(printer)?;
    up::bring_up(&spec.environment, &interrupt, printer).await?;
    let (home, fleet) = ground::operable(&spec.environment, ground::home)?;
    let rehearsing = Rehearsing {
        home: &home,
        fleet: &fleet,
        spec: &spec,
        quarantined: Quarantined::WasShown,
    };
    let outcome = rehearse::rehearse(&rehearsing, interrupt, printer).await?;
    printer.idle();
    rehearse::show(&name, &spec, &outcome, printer)?;
    next_commands(&fleet, printer);
    Ok(rehearse::exit_of(&outcome))
}

fn next_commands(fleet: &Fleet, printer: &Printer) {
    let name = &fleet.environment.name;
    printer.note("the replica runs on; to go on:");
    for line in [
        format!("stagegate status {name}"),
        format!("stagegate events {name}"),
        format!("stagegate down {name} --purge"),
    ] {
        printer.command(&line);
    }
}

async fn missing_packages(packages: &[String]) -> anyhow::Result<Vec<String>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = tokio::process::Command::new("dpkg-query");
    query.args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(packages);
    // It fails when one of them was never heard of, and answers for the others all the same.
    let seen = process::run(query, QUERY)
        .await
        .context("cannot see which Debian packages are there")?;
    let there: Vec<&str> = std::str::from_utf8(&seen.stdout)?
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    Ok(packages
        .iter()
        .filter(|p| !there.contains(&p.as_str()))
        .cloned()
        .collect())
}

/// The environment's own script for its packages, which knows what must not happen (Debian starts a database cluster unless
/// told not to). It runs as it stands in the workspace, so that who runs it as root can read it first.
struct Installation {
    script: PathBuf,
    packages: Vec<String>,
}

impl Installation {
    fn new(workspace: &Workspace, script: &str, packages: Vec<String>) -> Self {
        let script = workspace.root().join("templates").join(script);
        Self {
            script: script.canonicalize().unwrap_or(script),
            packages,
        }
    }

    /// Who is not root becomes it by sudo.
    fn command(&self) -> Command {
        let mut command = if rustix::process::geteuid().is_root() {
            Command::new("sh")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("sh");
            sudo
        };
        command.arg(&self.script).args(&self.packages);
        command
    }

    fn left_to_operator(&self) -> GroundError {
        let script = self.script.display().to_string();
        GroundError::PackagesMissing {
            packages: self.packages.join(" "),
            line: format!("sudo sh {} {}", quoted(&script), self.packages.join(" ")),
        }
    }

    /// In the foreground, since sudo may ask for a password.
    fn run(&self, printer: &Printer) -> anyhow::Result<()> {
        printer.note(&format!("installing {}", self.packages.join(" ")));
        if rustix::process::geteuid().is_root() {
            // sudo would ask for a password in the line that this writes over.
            printer.doing("installing Debian packages".to_owned());
        }
        let status = self.command().stdout(Stdio::null()).status();
        printer.idle();
        let status = status.context("cannot run the script that installs packages")?;
        anyhow::ensure!(
            status.success(),
            "installing the packages ended with {status}; see above"
        );
        Ok(())
    }
}

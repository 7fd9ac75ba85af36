//! `stagegate quickstart`: the main job, from nothing.

use std::process::{Command, Stdio};

use clap::Args;

use super::printer::Printer;
use super::rehearse::{self, Quarantined};
use super::{Exit, ground, up};
use crate::engine::fleet::Fleet;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rehearsal's name in pipelines/, or a file; the one that is labelled for it without
    rehearsal: Option<String>,
    /// Install the Debian packages that are missing, also where that is not this user's usual business
    #[arg(long)]
    install: bool,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { rehearsal, install } = arguments;
    let workspace = ground::workspace();
    let (name, spec) = match rehearsal {
        Some(name) => workspace.rehearsal(&name)?,
        None => workspace.quickstart()?,
    };
    // Looked at before anything is made, the state directory included: without the packages nothing changes.
    let shift = crate::model::system::PortShift(crate::settings::port_shift().map_err(anyhow::Error::msg)?);
    let environment = workspace.environment(&spec.environment, shift)?;
    let missing = missing_packages(&environment.spec.packages)?;
    if !missing.is_empty() {
        if !(install || rustix::process::geteuid().is_root()) {
            printer.note("these Debian packages are missing; run this line, then quickstart again:");
            printer.line(&format!(
                "sudo apt-get install --yes --no-install-recommends {}",
                missing.join(" ")
            ))?;
            return Ok(Exit::Usage);
        }
        printer.note(&format!("installing {}", missing.join(" ")));
        printer.doing(format!("installing {} Debian packages", missing.len()));
        install_packages(&ground::templates(&workspace)?, &environment, printer)?;
    }
    up::bring_up(&spec.environment, printer).await?;
    let home = ground::home()?;
    let fleet = ground::fleet(&home, &workspace, &spec.environment)?;
    let interrupt = ground::interrupt()?;
    let outcome = rehearse::rehearse(&home, &fleet, &spec, interrupt, printer, Quarantined::WasShown).await?;
    printer.idle();
    rehearse::show(&name, &spec, &outcome, printer)?;
    next_commands(&fleet, printer);
    Ok(outcome.exit())
}

fn next_commands(fleet: &Fleet, printer: &Printer) {
    let name = &fleet.environment.name;
    printer.note("the replica runs on; to go on:");
    for line in [
        format!("stagegate status {name}"),
        format!("stagegate events {name}"),
        format!("stagegate down {name} --purge"),
    ] {
        printer.note(&format!("  {line}"));
    }
}

fn missing_packages(packages: &[String]) -> anyhow::Result<Vec<String>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let seen = Command::new("dpkg-query")
        .args(["-W", "-f=${Package} ${db:Status-Status}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .map_err(|e| anyhow::anyhow!("cannot run dpkg-query to see which packages are there: {e}"))?;
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

/// By the environment's own script, which knows what must not happen (Debian starts a database cluster unless told not to).
fn install_packages(
    templates: &crate::model::render::Renderer,
    environment: &crate::model::system::Environment,
    printer: &Printer,
) -> anyhow::Result<()> {
    let script = environment
        .spec
        .packages_script
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("packages are missing, and the environment states no `packagesScript`"))?;
    let context = environment.context("", None, None);
    let variables = crate::model::render::Variables::new(&context)?;
    let text = templates.render(script, &variables)?;
    let mut child = Command::new("sh")
        .args(["-s", "--"])
        .args(&environment.spec.packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        std::io::Write::write_all(&mut stdin, text.as_bytes())?;
    }
    let status = child.wait()?;
    printer.idle();
    anyhow::ensure!(
        status.success(),
        "installing the packages ended with {status}; see above"
    );
    Ok(())
}

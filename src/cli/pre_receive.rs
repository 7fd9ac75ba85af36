//! `stagegate pre-receive`: what a server runs before it accepts a push.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::Exit;
use super::check::{looked_at, summary};
use super::printer::Printer;
use crate::commits::base::Base;
use crate::commits::examine::{self, Bounds, Cut, Examiner};
use crate::commits::finding::{Finding, Level, Rule};
use crate::commits::message::Identity;
use crate::commits::push;
use crate::commits::repository::{Repository, RepositoryError};

/// Bounds are there so that a push is judged by what it carries, not by how busy the host is; this only ends what they do not
/// see.
const LONGEST: Duration = Duration::from_secs(5);
/// Findings that are shown to who pushes. More scroll the first out of sight.
const MOST_SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A policy to go by instead of the one on the repository's default branch
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The variable in which this server names who pushes: `GL_USERNAME` (GitLab), `GITEA_PUSHER_NAME` (Gitea), `REMOTE_USER`
    /// (git http-backend); policies can exempt by it
    #[arg(long, value_name = "VARIABLE")]
    pusher_from: Option<String>,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { policy, pusher_from } = arguments;
    let until = Instant::now() + LONGEST;
    let updates = push::read(std::io::stdin())?;
    let repository = Repository::open()?;
    if repository.is_shallow() {
        return Err(RepositoryError::Shallow.into());
    }
    let base = match policy {
        Some(file) => Base::of_file(&repository, file)?,
        None => Base::of_server(&repository)?,
    };
    let mut examiner = Examiner::new(&repository, &base.policy, Bounds::of(&base.policy, until));
    if let Some(finding) = examine::lost_since(&repository, &base.policy) {
        examiner.found(finding);
    }
    let pusher = pusher(pusher_from.as_deref(), &base);
    match push::examine(&repository, &base, &updates, &pusher, &mut examiner) {
        Ok(()) => {}
        Err(Cut::Over(why)) => examiner.found(over(why)),
        Err(Cut::Repository(why)) => return Err(why.into()),
    }
    let report = examiner.report();
    let mut found: Vec<&Finding> = report.findings.kept().iter().collect();
    found.sort_by_key(|f| f.level);
    for finding in found.iter().take(MOST_SHOWN) {
        printer.line(&finding.to_string())?;
    }
    let hidden = found.len().saturating_sub(MOST_SHOWN) + report.findings.omitted();
    if hidden > 0 {
        printer.line(&format!("and {hidden} more"))?;
    }
    printer.line(&format!("stagegate: {}", summary(&looked_at(&report), &report, &base)))?;
    Ok(if report.findings.refuse() {
        Exit::Refused
    } else {
        Exit::Done
    })
}

/// Who pushes, as far as the server says and the policy exempts.
fn pusher(variable: Option<&str>, base: &Base) -> Identity {
    let named = variable.and_then(|name| std::env::var(name).ok());
    match named.filter(|name| base.policy.spec.exempt.pushers.contains(name)) {
        Some(name) => Identity::Pusher(name),
        None => Identity::Unknown,
    }
}

/// Nothing is accepted in part.
fn over(why: String) -> Finding {
    Finding {
        rule: Rule::Bounds,
        level: Level::Refused,
        commit: None,
        path: None,
        line: 0,
        column: 0,
        message: why,
        fix: "push it in parts, or have it reviewed and imported by who owns the server (docs/guides/commits.md)"
            .to_owned(),
    }
}

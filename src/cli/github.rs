//! `stagegate github protect NAME`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Exit;
use super::ground::{self, GroundError};
use super::printer::Printer;
use super::view::API_VERSION;
use crate::commits::github::api::Api;
use crate::commits::github::protect::{self, Standing};
use crate::model::repository::RepositorySpec;
use crate::server::github::access;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say how the rules at GitHub differ from those that make our check required, and set them with --apply
    Protect {
        /// The repository: a resource of a file in hooks/
        #[arg(value_name = "REPOSITORY")]
        name: String,
        /// Make them what they should be
        #[arg(long)]
        apply: bool,
    },
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let What::Protect { name, apply } = arguments.what;
    let workspace = ground::workspace();
    let stated = workspace.repositories()?;
    let spec = stated
        .iter()
        .find(|(stated, _)| *stated == name)
        .map(|(_, spec)| spec.clone())
        .ok_or_else(|| GroundError::UnknownRepository {
            name: name.clone(),
            place: workspace.root().join("hooks"),
            hint: match stated
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
            {
                none if none.is_empty() => "there is none yet: docs/guides/commits.md has one to begin with".to_owned(),
                names => format!("there is {names}"),
            },
        })?;
    let access = access(&spec, workspace.root())?;
    let RepositorySpec { github, .. } = spec;
    let app = github.app.as_ref().map(|app| app.id);
    let wanted = protect::ruleset(&github.branches, &github.check, app);
    let api = Api::new(github, access)?;
    let (mut standing, id) = protect::look(&api, &wanted).await?;
    if apply && standing != Standing::Same {
        protect::apply(&api, &wanted, id).await?;
        (standing, _) = protect::look(&api, &wanted).await?;
    }
    let drift = match &standing {
        Standing::Same => Vec::new(),
        Standing::Drift(lines) => lines.clone(),
    };
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "Protection",
        "metadata": {"name": name},
        "spec": wanted,
        "status": {"drift": drift},
    });
    printer.resource(&resource, |p| {
        for line in &drift {
            p.line(line)?;
        }
        if drift.is_empty() {
            p.line(&format!("{name}: the check is required, and nobody may go round it"))?;
        }
        Ok(())
    })?;
    Ok(if drift.is_empty() { Exit::Done } else { Exit::Refused })
}

//! `stagegate init DIR`: a workspace with commented starters that work.

mod kubernetes;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Exit;
use super::called::quoted;
use super::ground::GroundError;
use super::printer::Printer;
use crate::cluster::survey::survey;

/// Path in the workspace, and text.
const STARTERS: [(&str, &str); 8] = [
    (
        "environments/demo.yaml",
        include_str!("starters/environments/demo.yaml"),
    ),
    (
        "pipelines/demo-restart.yaml",
        include_str!("starters/pipelines/demo-restart.yaml"),
    ),
    (
        "templates/web/install.sh",
        include_str!("starters/templates/web/install.sh"),
    ),
    (
        "templates/web/start.sh",
        include_str!("starters/templates/web/start.sh"),
    ),
    ("templates/web/stop.sh", include_str!("starters/templates/web/stop.sh")),
    ("hooks/README.md", include_str!("starters/hooks/README.md")),
    (
        "builds/web/1.0/index.html",
        include_str!("starters/builds/web/1.0/index.html"),
    ),
    (
        "builds/web/2.0/index.html",
        include_str!("starters/builds/web/2.0/index.html"),
    ),
];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The directory; made when it is not there. Nothing in it is overwritten
    directory: PathBuf,
    /// Of what runs in a namespace of Kubernetes, as it is now: what makes pods there becomes components
    #[arg(long)]
    kubernetes: bool,
    /// Which namespace; that of the kubeconfig's context without
    #[arg(long, short, value_name = "NS", requires = "kubernetes")]
    namespace: Option<String>,
    /// Which context of the kubeconfig; the current one without
    #[arg(long, value_name = "CONTEXT", requires = "kubernetes")]
    context: Option<String>,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    if arguments.kubernetes {
        return of_namespace(&arguments, printer).await;
    }
    let place = make(&arguments.directory, &STARTERS)?;
    printer.done(&format!(
        "made a workspace in {}; to go on:",
        arguments.directory.display()
    ));
    for line in [
        "stagegate lint",
        "stagegate up demo",
        "stagegate upgrade demo --build web=2.0",
        "stagegate rehearse demo-restart",
        "stagegate down demo --purge",
    ] {
        printer.command(&format!("STAGEGATE_WORKSPACE={place} {line}"));
    }
    Ok(Exit::Done)
}

async fn of_namespace(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let context = arguments.context.as_deref();
    let surveyed = survey(context, arguments.namespace.as_deref()).await;
    let (namespace, found) = surveyed.map_err(|why| anyhow::anyhow!("{why}"))?;
    if found.is_empty() {
        anyhow::bail!(
            "namespace {namespace} has no StatefulSet and no Deployment, or there is no such namespace; `--namespace` says where to look"
        );
    }
    let sorted = kubernetes::Sorted::new(&namespace, &found);
    let usable = sorted.usable();
    if usable == 0 {
        return Err(GroundError::NothingUsable {
            namespace: namespace.clone(),
            left_out: sorted.all_left_out(),
        }
        .into());
    }
    let text = sorted.environment();
    let path = format!("environments/{namespace}.yaml");
    let place = make(&arguments.directory, &[(path.as_str(), text.as_str())])?;
    printer.done(&format!(
        "{} of {} workloads of namespace {namespace} are components in {}; what was left out stands there with why. To go on:",
        usable,
        found.len(),
        arguments.directory.join(&path).display()
    ));
    let file = quoted(&arguments.directory.join(&path).display().to_string());
    for line in [
        format!("STAGEGATE_WORKSPACE={place} stagegate lint"),
        format!("stagegate install --print --namespace {namespace} | kubectl apply --server-side -f -"),
        format!("kubectl apply -n {namespace} -f {file}"),
        format!("kubectl wait -n {namespace} --for=condition=Ready env/{namespace} --timeout=2m"),
        format!("kubectl stagegate -n {namespace} status {namespace}"),
    ] {
        printer.command(&line);
    }
    Ok(Exit::Done)
}

/// Writes files, and gives the directory as a shell takes it.
fn make(directory: &Path, files: &[(&str, &str)]) -> anyhow::Result<String> {
    // All of them before the first is written: half a workspace helps nobody.
    let there: Vec<&str> = files
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| std::fs::symlink_metadata(directory.join(path)).is_ok())
        .collect();
    if !there.is_empty() {
        return Err(GroundError::WouldOverwrite {
            directory: directory.to_owned(),
            there: there.join(", "),
        }
        .into());
    }
    for (path, text) in files {
        write(&directory.join(path), text)?;
    }
    Ok(quoted(&directory.display().to_string()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = |e: std::io::Error| anyhow::anyhow!("cannot write {}: {e}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let mode = if path.extension().is_some_and(|e| e == "sh") {
        0o755
    } else {
        0o644
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

//! `stagegate controller`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::printer::Printer;
use super::serve::address;
use super::{Exit, called, ground};
use crate::home::Home;
use crate::server::controller::Controller;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The namespace whose objects it drives (default: its pod's, else the kubeconfig's)
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,
    /// Directory for history, reports on their way, evidence and prepared builds; one for each replica
    #[arg(long, value_name = "DIR")]
    volume: PathBuf,
    /// Directory with the templates that environments name
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// Where /healthz, /readyz and /metrics are answered, as ADDRESS:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787", value_parser = address)]
    listen: String,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments {
        namespace,
        volume,
        templates,
        listen,
    } = arguments;
    let told = printer.lines();
    let controller = Controller {
        home: Home::open(&volume)?,
        templates,
        namespace,
        interrupt: ground::interrupt(printer)?,
        tell: Arc::new(move |line: &str| {
            // Nobody is there to be told that nobody reads.
            let _ = told.line(line);
        }),
        phrase: called::by_the_plugin,
        lines: printer.lines(),
    };
    controller.run(&listen).await?;
    Ok(Exit::Done)
}

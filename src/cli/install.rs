//! `stagegate install`.

use clap::Args;

use super::Exit;
use super::printer::Printer;
use crate::cluster::install::{IMAGE, NAMESPACE};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Prints them; nothing is applied by this program
    #[arg(long, required = true)]
    print: bool,
    /// The namespace that it runs in and controls
    #[arg(long, value_name = "NS", default_value = NAMESPACE)]
    namespace: String,
    /// The image that runs
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments {
        print: _,
        namespace,
        image,
    } = arguments;
    printer.line(super::manifests(namespace, image)?.trim_end())?;
    Ok(Exit::Done)
}

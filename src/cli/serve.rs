//! `stagegate serve`.

use clap::Args;

use super::printer::Printer;
use super::{Exit, ground};
use crate::server::Server;
use crate::settings;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where /healthz is answered, as ADDRESS:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = settings::LISTEN, default_value = "127.0.0.1:8787")]
    listen: String,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let workspace = ground::workspace();
    let server = Server {
        home: &home,
        workspace: &workspace,
        shift: ground::port_shift()?,
        interrupt: ground::interrupt()?,
        tell: &|line| printer.note(line),
    };
    server.run(&arguments.listen).await?;
    // To be ended is how a server's life is meant to go.
    Ok(Exit::Done)
}

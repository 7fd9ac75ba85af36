//! `stagegate serve`.

use std::sync::Arc;

use clap::Args;

use super::printer::Printer;
use super::{Exit, ground, replica};
use crate::commits::proof;
use crate::server::Server;
use crate::settings;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where /healthz is answered, as ADDRESS:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = settings::LISTEN, default_value = "127.0.0.1:8787", value_parser = address)]
    listen: String,
}

/// The host may be a name, which only the system can tell.
pub(super) fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(_)) => Ok(text.to_owned()),
        Some(Err(_)) | None => Err("write ADDRESS:PORT, as 127.0.0.1:8787".to_owned()),
    }
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::home()?;
    let workspace = ground::workspace();
    let signing = home.clone();
    let interrupt = ground::interrupt(printer)?;
    let server = Server {
        home: &home,
        workspace: &workspace,
        shift: ground::port_shift()?,
        interrupt: interrupt.clone(),
        tell: &|line| printer.note(line),
        lines: printer.lines(),
        on_verdict: Arc::new(move |verdict| {
            if let Err(why) = proof::attest_where_there_is_a_key(&signing, verdict) {
                tracing::warn!(%why, commit = verdict.subject.commit, "a verdict was not signed");
            }
        }),
    };
    tokio::select! {
        ended = server.run(&arguments.listen) => ended?,
        never = replica::keep(&home, &interrupt, printer) => match never {},
    }
    // To be ended is how a server's life is meant to go.
    Ok(Exit::Done)
}

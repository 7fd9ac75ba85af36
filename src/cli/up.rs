//! `stagegate up ENV`.

use clap::Args;

use super::Exit;
use super::ground;
use super::printer::Printer;
use super::replica;
use super::standing::{self, Standing};
use super::status;
use crate::engine::interrupt::Interrupt;
use crate::engine::up::Bringing;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    bring_up(&arguments.environment, &ground::interrupt(printer)?, printer).await?;
    // People were told of each step; programs get what there is now.
    if !printer.is_for_people() {
        status::show(&ground::home()?, &arguments.environment, printer)?;
    }
    Ok(Exit::Done)
}

/// Brings an environment up and writes down that it is.
pub(super) async fn bring_up(name: &str, interrupt: &Interrupt, printer: &Printer) -> anyhow::Result<()> {
    let (home, fleet) = ground::operable(name, ground::home)?;
    replica::take_down_expired(&home, Some(name), interrupt, printer).await?;
    let lease = ground::lease(&home, &fleet, printer).await?;
    standing::refuse_missing_nodes(&home, &fleet)?;
    standing::refuse_other_namespace(&home, &fleet)?;
    let replica = replica::of(&home, &fleet).await?;
    if let Some(replica) = &replica {
        lease.keep(replica.refuse_other_cluster()).await??;
    }
    // Before the first step: whoever clears up must know that something may be there.
    standing::write(&home, &fleet, Standing::ComingUp)?;
    if let Some(replica) = &replica {
        lease
            .keep(Box::pin(replica::bring_up(replica, &home, &fleet, interrupt, printer)))
            .await??;
    }
    let on_step = |what: &str| {
        printer.note(&format!("  {what}"));
        printer.doing(what.to_owned());
    };
    let bringing = Bringing {
        home: &home,
        fleet: &fleet,
        token: lease.token().clone(),
        on_step: &on_step,
        interrupt: interrupt.clone(),
    };
    for component in fleet.environment.components_in_order() {
        printer.doing(format!("{}: looking", component.name));
        let build = match (&component.source, &component.build) {
            (Some(_), Some(version)) => Some(lease.keep(ground::build(&home, component, version, printer)).await??),
            _ => None,
        };
        let build = build.as_ref().map(|(build, known)| (build, &known.spec));
        if let Some(replica) = &replica {
            lease
                .keep(replica::pods_ready(replica, component, interrupt, printer))
                .await??;
        }
        lease.keep(bringing.up(component, build)).await??;
        let nodes = fleet.places(&component.name).len();
        // One that is objects alone has been told of.
        if nodes > 0 {
            printer.note(&format!("{}: {} up", component.name, count(nodes, "node")));
        }
    }
    standing::write(&home, &fleet, Standing::Up)?;
    printer.idle();
    Ok(())
}

pub(super) fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

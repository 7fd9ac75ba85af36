//! `stagegate down ENV`.

use clap::Args;

use super::Exit;
use super::ground;
use super::printer::Printer;
use super::replica;
use super::standing::{self, Standing};
use super::up::count;
use crate::cluster::replica::Left;
use crate::commits::proof;
use crate::engine::fleet::Fleet;
use crate::engine::lease::HeldLease;
use crate::engine::replica::OfFleet;
use crate::engine::session::{Refusal, SessionError};
use crate::engine::up::{Bringing, OfPods};
use crate::home::Home;
use crate::model::environment::Component;
use crate::server::seat;
use crate::store::{Pruned, Store as _};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The environment: a file's name in environments/
    #[arg(value_name = "ENV")]
    environment: String,
    /// Delete its nodes, its secrets and what is remembered of it
    #[arg(long)]
    purge: bool,
    /// The cluster that its objects were in is gone for good: they are not looked for
    #[arg(long)]
    cluster_is_gone: bool,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments {
        environment,
        purge,
        cluster_is_gone,
    } = arguments;
    let (home, fleet) = ground::operable(&environment, ground::look)?;
    if purge && is_unknown_here(&home, &fleet)? {
        printer.done(&format!(
            "there is nothing of {environment} in {}, so nothing was changed",
            home.root().display()
        ));
        return Ok(Exit::Done);
    }
    drop((home, fleet));
    let (home, fleet) = ground::operable(&environment, ground::home)?;
    let interrupt = ground::interrupt(printer)?;
    standing::refuse_missing_nodes(&home, &fleet)?;
    standing::refuse_other_namespace(&home, &fleet)?;
    let lease = ground::lease(&home, &fleet, printer).await?;
    match (home.store().unfinished(Some(&environment))?.pop(), purge) {
        // Its driver may be dead and one of its steps alive: a node that is just started is not stopped by who looks now.
        (Some(open), false) => return Err(SessionError::from(Refusal::unfinished(open)).into()),
        (Some(open), true) => printer.note(&format!("its unfinished upgrade to {} is forgotten", open.spec.build)),
        (None, _) => {}
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
    let replica = replica::of(&home, &fleet).await?;
    let components: Vec<_> = fleet.environment.components_in_order().collect();
    for component in components.iter().rev() {
        lease.keep(bringing.down(component)).await??;
    }
    match &replica {
        Some(replica) if cluster_is_gone => printer.note(&format!(
            "namespace {} is not looked for, in whichever cluster it was",
            replica.namespace()
        )),
        Some(replica) => {
            let left = if purge { Left::Nothing } else { Left::Namespace };
            lease
                .keep(replica::take_down(replica, left, &interrupt, printer))
                .await??;
        }
        None => {}
    }
    if !purge {
        standing::write(&home, &fleet, Standing::Down)?;
        printer.idle();
        printer.note(&format!(
            "{environment} is down; `stagegate up {environment}` brings it back"
        ));
        return Ok(Exit::Done);
    }
    for component in components.iter().rev() {
        lease
            .keep(bringing.remove(component, of_pods(replica.as_ref(), component)))
            .await??;
    }
    let pruned = forget(&home, &environment, &lease)?;
    let untold: u64 = home
        .store()
        .pending(Some(&environment), None)?
        .iter()
        .map(|p| p.waiting)
        .sum();
    let nobody_needs_it = is_needed_by_nobody(&home)?;
    drop(lease);
    let state = home.root().to_owned();
    if nobody_needs_it {
        // Builds belong to no environment; when none is left, nobody needs what is known and was prepared of them.
        home.delete()?;
    }
    printer.idle();
    let forgotten = count(pruned.upgrades.len(), "upgrade");
    let of_state = if state.exists() {
        format!("nothing of it is left in {}, which others use", state.display())
    } else {
        format!("nothing is left, {} included", state.display())
    };
    printer.done(&format!(
        "{environment} is gone, with what was remembered of {forgotten}; {of_state}"
    ));
    if nobody_needs_it && untold > 0 {
        let reports = count(usize::try_from(untold).unwrap_or(usize::MAX), "report");
        printer.note(&format!("{reports} that no sink has taken went with it"));
    }
    let packages = &fleet.environment.spec.packages;
    if !packages.is_empty() {
        printer.note(&format!("what stays are the Debian packages: {}", packages.join(" ")));
    }
    Ok(Exit::Done)
}

fn of_pods(replica: Option<&OfFleet>, component: &Component) -> OfPods {
    if replica.is_some_and(|replica| replica.makes_pods_of(component)) {
        OfPods::GoneWithTheirObjects
    } else {
        OfPods::GivenBack
    }
}

/// Whether a home has nothing left that anybody would miss.
fn is_needed_by_nobody(home: &Home) -> anyhow::Result<bool> {
    // One whose files are gone is listed all the same, and one that is just coming up has a directory before it is listed.
    Ok(home.store().resources("Environment")?.is_empty()
        && home.has_no_environment()?
        && seat::running(home)?.is_none()
        // What was proven of commits belongs to no environment either, nor do the keys that have signed it: what was deleted
        // could not be made again.
        && home.store().runs(None, 1)?.is_empty()
        && home.store().resources(proof::keys::KIND)?.is_empty())
}

/// Deletes what is remembered of an environment.
fn forget(home: &Home, environment: &str, lease: &HeldLease) -> anyhow::Result<Pruned> {
    let directory = home.environment(environment);
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    let pruned = home.store().forget_environment(environment, lease.token())?;
    for upgrade in &pruned.upgrades {
        let evidence = home.evidence(upgrade);
        if evidence.exists() {
            std::fs::remove_dir_all(&evidence)?;
        }
    }
    Ok(pruned)
}

/// Whether nothing at all of an environment is here. What lies on other hosts is there without a trace here when the state was
/// lost, so of those only their nodes can tell.
fn is_unknown_here(home: &Home, fleet: &Fleet) -> anyhow::Result<bool> {
    let (store, name) = (home.store(), &fleet.environment.name);
    Ok(fleet.all_places().all(|place| place.site.host.is_none())
        && !home.environment(name).exists()
        && store.resource("Environment", name)?.is_none()
        && store.upgrades(Some(name), 1)?.is_empty()
        && store.lease(name)?.is_none_or(|lease| lease.holder.is_none())
        && store
            .pending(Some(name), None)?
            .iter()
            .all(|pending| pending.waiting == 0))
}

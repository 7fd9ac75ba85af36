//! `stagegate build list | show | manifest | release`.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::view::{API_VERSION, moment};
use super::{Exit, ground};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::provenance::{self, HOOKS_PASSED};
use crate::engine::session::KnownBuild;
use crate::home::Home;
use crate::model::build::CommitRef;
use crate::model::text;
use crate::model::upgrade::{Event, Severity};
use crate::report::{self, Subject};
use crate::settings;
use crate::store::build::{BuildChange, Mark};
use crate::store::{Release, Store as _, StoreError};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The builds that are known here
    List,
    /// One build with its locked set, whether its commit's hooks passed, where it was proven and where it is quarantined
    Show {
        /// Its name, COMPONENT-VERSION
        build: String,
    },
    /// Print a build as its source has it, as an object for an API server; writes nothing
    #[command(after_help = "Example:\n  stagegate build manifest shop web=1.1 | kubectl apply -f -")]
    Manifest {
        /// The environment whose component has the source
        #[arg(value_name = "ENV", value_parser = ground::environment_name)]
        environment: String,
        /// COMPONENT=VERSION
        #[arg(value_name = "BUILD")]
        build: String,
    },
    /// Lift a quarantine
    Release {
        /// Its name, COMPONENT-VERSION
        build: String,
        /// The environment where it is quarantined
        #[arg(long)]
        env: String,
        /// Why it may go there again; it is reported
        #[arg(long, value_parser = super::reason)]
        reason: String,
    },
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::List => list(&ground::look()?, printer)?,
        Action::Show { build } => show(&ground::look()?, build, printer).await?,
        Action::Manifest { environment, build } => {
            let home = ground::look()?;
            // What is brought up here, and how, is of no matter to a build.
            let fleet = Fleet::read(&home, &ground::workspace(), environment, ground::port_shift()?)?;
            let (component, version) = ground::component_and_version(&fleet, build)?;
            let (_, found) = ground::find_build(&home, component, &version, printer).await?;
            let object = json!({
                "apiVersion": API_VERSION,
                "kind": "Build",
                "metadata": {"name": found.spec.name()},
                "spec": found.spec,
            });
            printer.line(text::to_yaml(&object)?.trim_end())?;
        }
        Action::Release { build, env, reason } => {
            let (home, fleet) = ground::operable(env, ground::look)?;
            release(&home, &fleet, build, reason, printer)?;
            ground::deliver_first(&home, &fleet, printer).await;
            // People were told; programs get the build as it is now.
            if !printer.is_for_people() {
                show(&home, build, printer).await?;
            }
        }
    }
    Ok(Exit::Done)
}

fn known(home: &Home, name: &str) -> anyhow::Result<KnownBuild> {
    Ok(match KnownBuild::find(home, name)? {
        Some(known) => known,
        None => return Err(unknown(home, name)?.into()),
    })
}

fn unknown(home: &Home, name: &str) -> Result<GroundError, StoreError> {
    let known: Vec<String> = KnownBuild::all(home)?.into_keys().collect();
    Ok(GroundError::UnknownBuild {
        name: name.to_owned(),
        hint: text::what_is_known(name, &known),
    })
}

fn resource(name: &str, build: &KnownBuild) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "Build", "metadata": {"name": name}, "spec": build.spec, "status": build.status})
}

pub(super) fn list(home: &Home, printer: &Printer) -> anyhow::Result<()> {
    let builds = KnownBuild::all(home)?;
    let items: Vec<Value> = builds.iter().map(|(name, b)| resource(name, b)).collect();
    let list = json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "builds"}, "items": items});
    printer.resource(&list, |p| {
        let names = |list: Vec<&str>| {
            if list.is_empty() {
                "-".to_owned()
            } else {
                list.join(",")
            }
        };
        let rows = builds
            .iter()
            .map(|(name, b)| {
                vec![
                    name.clone(),
                    b.spec.digest.short(),
                    b.spec.locked.len().to_string(),
                    names(b.status.verifications.iter().map(|v| v.environment.as_str()).collect()),
                    names(b.status.quarantines.iter().map(|q| q.environment.as_str()).collect()),
                ]
            })
            .collect();
        p.table(&["BUILD", "DIGEST", "LOCKED", "VERIFIED", "QUARANTINED"], rows)
    })
}

async fn show(home: &Home, name: &str, printer: &Printer) -> anyhow::Result<()> {
    // Keys, policies and branches change, so what is proven is looked at now.
    let refreshed = provenance::refreshed(home, &ground::workspace(), name, Timestamp::now()).await?;
    let Some(build) = refreshed else {
        return Err(unknown(home, name)?.into());
    };
    printer.resource(&resource(name, &build), |p| {
        p.line(&format!("{name}  {}", build.spec.digest))?;
        if let Some(CommitRef {
            repository,
            commit,
            path,
        }) = &build.spec.commit
        {
            let below = path.as_ref().map_or(String::new(), |path| format!(", {path}"));
            p.line(&format!("commit {commit} of {repository}{below}"))?;
        }
        if let Some(condition) = build.status.condition(HOOKS_PASSED) {
            p.line(&format!(
                "{HOOKS_PASSED} {} ({}) since {}: {}",
                condition.status,
                condition.reason,
                moment(condition.last_transition_time),
                condition.message
            ))?;
        }
        for verification in &build.status.verifications {
            p.line(&format!(
                "verified in {} at {}",
                verification.environment,
                moment(verification.at)
            ))?;
        }
        for quarantine in &build.status.quarantines {
            p.line(&format!(
                "quarantined in {} since {}: {}",
                quarantine.environment,
                moment(quarantine.at),
                quarantine.reason
            ))?;
        }
        for release in &build.status.releases {
            p.line(&format!(
                "released in {} at {} by {}: {}",
                release.environment,
                moment(release.at),
                release.user,
                release.reason
            ))?;
        }
        let rows = build
            .spec
            .locked
            .iter()
            .map(|l| vec![l.name.clone(), l.version.clone(), l.sha256.join(" ")])
            .collect();
        p.table(&["PACKAGE", "VERSION", "SHA256"], rows)
    })
}

fn release(home: &Home, fleet: &Fleet, name: &str, reason: &str, printer: &Printer) -> anyhow::Result<()> {
    let environment = &fleet.environment.name;
    let build = known(home, name)?;
    if build.status.quarantined_in(environment).is_none() {
        return Err(GroundError::NotQuarantined {
            build: name.to_owned(),
            environment: environment.clone(),
        }
        .into());
    }
    let subject = Subject {
        component: build.spec.component.clone(),
        build: name.to_owned(),
        user: settings::user(),
    };
    let now = Timestamp::now();
    let event = Event {
        at: now,
        reason: "QuarantineLifted".to_owned(),
        severity: Severity::Step,
        node: None,
        message: reason.to_owned(),
    };
    let sinks = delivery::sinks(fleet);
    let dispatch = report::dispatcher(home.store().home(), &subject, &sinks);
    let change = BuildChange {
        build: name.to_owned(),
        mark: Mark::Release(Release {
            environment: environment.clone(),
            reason: reason.to_owned(),
            user: settings::user(),
            at: now,
        }),
    };
    home.store().change_build(&change, &event, &dispatch, now)?;
    printer.note(&format!("{name} may go onto {environment} again"));
    Ok(())
}

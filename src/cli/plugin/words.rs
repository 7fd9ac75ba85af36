//! What somebody wants of an upgrade, written into objects.

use std::time::Instant;

use jiff::Timestamp;
use kube::api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event as ApiEvent, EventType, Recorder, Reporter};
use serde_json::{Value, json};

use super::{Ground, LOOK_EVERY, NAME, PluginError, Staying, named};
use crate::cli::printer::Printer;
use crate::cli::{Exit, called, ground, upgrade as shown};
use crate::cluster::objects::{self, Kind, LONGEST_NOTE, Upgrade, asked, part, patiently, write_status};
use crate::cluster::snapshot::{self, Scope, Snapshot};
use crate::engine::builds;
use crate::engine::session::{Refusal, SessionError};
use crate::model::build::BuildSpec;
use crate::model::environment::{BuildSource, EnvironmentSpec};
use crate::model::upgrade::{Phase, UpgradeSpec, Wish};
use crate::report::in_one_line;
use crate::settings;
use crate::store::build::Mark;
use crate::store::{BuildStatus, Release, Resource, Store as _, fresh_upgrade_name};

/// After the time that it was given, an upgrade may take this much more until it holds, where a controller leads: its running steps end
/// first.
const NOBODY_HOLDS: std::time::Duration = std::time::Duration::from_mins(5);
/// An upgrade that was not written for so long may have nobody who drives it, so the lease is looked at, too.
const QUIET: std::time::Duration = std::time::Duration::from_secs(5);
/// Attempts at a change that another was quicker with.
const ATTEMPTS: u32 = objects::ATTEMPTS;

pub(super) async fn upgrade(
    ground: &Ground,
    environment: &str,
    wanted: &str,
    staying: &Staying,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let (component, version) = ground::named_build(wanted)?;
    let build = format!("{component}-{version}");
    let snapshot = ground.look(Scope::Environment(environment), printer).await?;
    let Some(stated) = snapshot.home.store().resource("Environment", environment)? else {
        return Err(super::there_is_no(ground, environment).await?.into());
    };
    refuse_unknown_component(&stated, component)?;
    let open = match snapshot.open_in(environment) {
        // That one waits for something of its own component, and this is of another.
        Some(open) if open.spec.component != component && open.status.reason == "WaitsForGivingBack" => None,
        other => other,
    };
    let open = match open {
        Some(open) if open.spec.build != build && open.status.phase == Phase::Pending => {
            let (spec, status) = (&open.spec, &open.status);
            return Err(PluginError::Waits {
                environment: environment.to_owned(),
                open: named(open).to_owned(),
                build: spec.build.clone(),
                reason: status.reason.clone(),
                message: in_one_line(&status.message),
            }
            .into());
        }
        Some(open) if open.spec.build != build => {
            let record = crate::cluster::ledger::record(open, 1);
            return Err(SessionError::from(Refusal::unfinished(record)).into());
        }
        Some(open) => {
            // It may wait for just that.
            if open.status.phase == Phase::Pending
                && let Err(why) = make_build(ground, &snapshot, environment, component, version).await
            {
                printer.note(&format!("{why:#}"));
            }
            go_on(ground, open).await?;
            named(open).to_owned()
        }
        None => {
            make_build(ground, &snapshot, environment, component, version).await?;
            let spec = UpgradeSpec {
                environment: environment.to_owned(),
                component: component.to_owned(),
                build: build.clone(),
                user: settings::user(),
                promotion: None,
                wish: Wish::Proceed,
            };
            make(ground, Kind::Upgrade, &fresh_upgrade_name(&build), json!(spec)).await?
        }
    };
    stay(ground, &open, staying, printer).await
}

/// Of a replica its base has the components, which need not be here.
fn refuse_unknown_component(environment: &Resource, component: &str) -> Result<(), PluginError> {
    let Ok(spec) = environment.spec_as::<EnvironmentSpec>() else {
        return Ok(());
    };
    let is_known = spec.components.iter().any(|c| c.name == component);
    if is_known || spec.replica_of.is_some() {
        return Ok(());
    }
    Err(PluginError::NoComponent {
        environment: environment.name.clone(),
        component: component.to_owned(),
        there: spec.components.into_iter().map(|c| c.name).collect(),
    })
}

/// A build that its environment states itself becomes an object here; of what a source holds elsewhere the object has to be there.
async fn make_build(
    ground: &Ground,
    snapshot: &Snapshot,
    environment: &str,
    component: &str,
    version: &str,
) -> anyhow::Result<()> {
    let build = format!("{component}-{version}");
    let store = snapshot.home.store();
    if store.resource("Build", &build)?.is_some() {
        return Ok(());
    }
    let stated = store.resource("Environment", environment)?;
    let stated = stated.and_then(|resource| resource.spec_as::<EnvironmentSpec>().ok());
    let stated = stated.and_then(|spec| spec.components.into_iter().find(|c| c.name == component));
    let of_images = stated.filter(|c| matches!(c.source, Some(BuildSource::Images(_))));
    let Some(stated) = of_images else {
        return Err(PluginError::NoBuild {
            environment: environment.to_owned(),
            wanted: format!("{component}={version}"),
            namespace: ground.namespace.clone(),
        }
        .into());
    };
    let spec: BuildSpec = builds::resolve(&stated, version, std::path::Path::new(".")).await?;
    make(ground, Kind::Build, &build, json!(spec)).await?;
    Ok(())
}

pub(super) async fn make(ground: &Ground, kind: Kind, name: &str, spec: Value) -> anyhow::Result<String> {
    let object = DynamicObject {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..DynamicObject::new(name, &kind.resource()).data(json!({"spec": spec}))
    };
    let api = kind.api(&ground.client, &ground.namespace);
    let what = format!("{kind:?} {name}");
    match asked("make", &what, api.create(&parameters(), &object)).await {
        // Its own, whose answer did not come: nobody else takes such a name, and a build is what it is.
        Err(why) if why.is_conflict() => {}
        made => {
            made?;
        }
    }
    Ok(name.to_owned())
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(NAME.to_owned()),
        ..PostParams::default()
    }
}

/// A held one goes on, and a wish to hold is over.
async fn go_on(ground: &Ground, open: &Upgrade) -> anyhow::Result<()> {
    // What is asked is asked already: that it is asked again shows by a change.
    let again = |now: &Upgrade| (now.status.phase.is_held() && now.spec.wish == Wish::Proceed).then_some(Wish::Pause);
    wish(ground, named(open), &again).await?;
    let on = |now: &Upgrade| match now.spec.wish {
        Wish::Pause | Wish::TimeUp => Some(Wish::Proceed),
        Wish::Proceed | Wish::Abort => None,
    };
    match wish(ground, named(open), &on).await? {
        // That it goes back is somebody's word, and is not undone by another's.
        Wish::Abort => Err(PluginError::GoesBack(named(open).to_owned()).into()),
        Wish::Proceed | Wish::Pause | Wish::TimeUp => Ok(()),
    }
}

/// Writes what is wanted of it, decided from what it is at that moment; tells what is wanted of it then.
async fn wish(ground: &Ground, upgrade: &str, decide: &dyn Fn(&Upgrade) -> Option<Wish>) -> anyhow::Result<Wish> {
    let api = Kind::Upgrade.api(&ground.client, &ground.namespace);
    let what = format!("Upgrade {upgrade}");
    let parameters = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    for _ in 0..ATTEMPTS {
        let now = Upgrade::read(patiently(|| asked("read", &what, api.get(upgrade))).await?)?;
        let Some(wish) = decide(&now) else {
            return Ok(now.spec.wish);
        };
        let metadata = &now.object.metadata;
        let patch = json!({
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "spec": {"wish": wish},
        });
        let patch = Patch::Merge(&patch);
        match patiently(|| asked("say so to", &what, api.patch(upgrade, &parameters, &patch))).await {
            Err(why) if why.is_conflict() => {}
            written => return Ok(written.map(|_| wish)?),
        }
    }
    Err(PluginError::Contended(what).into())
}

fn open_in<'s>(snapshot: &'s Snapshot, environment: &str, word: &'static str) -> anyhow::Result<&'s Upgrade> {
    snapshot.open_in(environment).ok_or_else(|| {
        SessionError::from(Refusal::NothingUnderWay {
            environment: environment.to_owned(),
            word,
        })
        .into()
    })
}

pub(super) async fn pause(ground: &Ground, environment: &str, printer: &Printer) -> anyhow::Result<Exit> {
    let snapshot = ground.look(Scope::Environment(environment), printer).await?;
    let open = open_in(&snapshot, environment, "pause")?;
    let hold = |now: &Upgrade| (now.spec.wish == Wish::Proceed).then_some(Wish::Pause);
    if wish(ground, named(open), &hold).await? == Wish::Abort {
        return Err(PluginError::GoesBack(named(open).to_owned()).into());
    }
    printer.note(&format!("{} holds once its running steps have ended", named(open)));
    Ok(Exit::Done)
}

pub(super) async fn resume(
    ground: &Ground,
    environment: &str,
    staying: &Staying,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let snapshot = ground.look(Scope::Environment(environment), printer).await?;
    let open = open_in(&snapshot, environment, "resume")?;
    go_on(ground, open).await?;
    stay(ground, named(open), staying, printer).await
}

pub(super) async fn abort(
    ground: &Ground,
    environment: &str,
    staying: &Staying,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let snapshot = ground.look(Scope::Environment(environment), printer).await?;
    let open = open_in(&snapshot, environment, "abort")?;
    wish(ground, named(open), &|_| Some(Wish::Abort)).await?;
    stay(ground, named(open), staying, printer).await
}

/// Stays with an upgrade until it is done or held, and says what becomes of it.
async fn stay(ground: &Ground, upgrade: &str, staying: &Staying, printer: &Printer) -> anyhow::Result<Exit> {
    if staying.no_wait {
        printer.note(&format!("{upgrade} is the controller's now"));
        return Ok(Exit::Done);
    }
    let interrupt = ground::interrupt(printer)?;
    let api = Kind::Upgrade.api(&ground.client, &ground.namespace);
    let what = format!("Upgrade {upgrade}");
    let end = staying.timeout.map(|limit| Instant::now() + limit.0);
    let (mut said, mut timed_out, mut asked_at) = (String::new(), false, None);
    let mut silence = Silence::default();
    loop {
        let object: DynamicObject = match patiently(|| asked("read", &what, api.get(upgrade))).await {
            // It goes on meanwhile.
            Err(why) if why.is_passing() && !interrupt.is_set() => {
                printer.note(&why.to_string());
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            read => read?,
        };
        let now = Upgrade::read(object)?;
        let environment = &now.spec.environment;
        // Its own word may not have been heard yet.
        let first = *asked_at.get_or_insert(objects::generation(&now.object));
        let is_heard = now.book.observed_generation >= first || now.status.phase.is_final();
        let line = format!("{:?}: {}", now.status.phase, in_one_line(&now.status.message));
        if line != said {
            printer.note(&called::in_sentence(&line));
            said = line;
        }
        let is_held = now.status.phase.is_held() && is_heard && now.spec.wish != Wish::Abort;
        if now.status.phase.is_final() || is_held {
            let snapshot = ground.look(Scope::Environment(environment), printer).await?;
            let record = snapshot.home.store().upgrade(upgrade)?;
            let record = record.unwrap_or_else(|| crate::cluster::ledger::record(&now, 1));
            shown::show_record(&snapshot.home, &record, printer)?;
            return Ok(match now.status.phase {
                Phase::Paused if timed_out => Exit::TimedOut,
                // It was never begun: the rules have refused it.
                Phase::Failed if now.status.started_at.is_none() => Exit::Refused,
                phase => Exit::of(phase),
            });
        }
        let nobody = silence.look(ground, &now.object, printer).await;
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        if is_over && !timed_out {
            timed_out = true;
            let hold = |now: &Upgrade| {
                let may_hold = now.spec.wish == Wish::Proceed && now.status.phase != Phase::RollingBack;
                may_hold.then_some(Wish::TimeUp)
            };
            let holds = wish(ground, upgrade, &hold).await? == Wish::TimeUp;
            if holds && now.status.phase == Phase::Pending {
                printer.note(&format!(
                    "its time is up, and {upgrade} was not begun: it holds before its first step; `stagegate resume {environment}` lets \
                     it begin, `stagegate abort {environment}` ends it, and `stagegate why {environment}` says what it waits for"
                ));
                return Ok(Exit::TimedOut);
            }
            if holds {
                printer.note("its time is up: it holds once its running steps have ended");
            }
        }
        if timed_out && nobody || end.is_some_and(|end| Instant::now() >= end + NOBODY_HOLDS) {
            printer.note(&format!(
                "{upgrade} does not hold yet, and will once its controller has heard of it and its running steps have ended; \
                 `stagegate why {environment}` says what keeps it"
            ));
            return Ok(Exit::TimedOut);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = interrupt.wait() => {
                let how = match now.status.phase {
                    Phase::Pending => "stays, and begins when it can",
                    _ if nobody => "goes on when a controller leads",
                    _ => "goes on",
                };
                printer.note(&format!(
                    "stopped watching; {upgrade} {how}: `stagegate status {environment} -w` shows it, `stagegate pause {environment}` holds it"
                ));
                return Ok(Exit::Interrupted);
            }
        }
    }
}

/// How long an object that somebody stays with was not written.
#[derive(Default)]
pub(super) struct Silence {
    version: Option<String>,
    since: Option<Instant>,
    is_told: bool,
}

impl Silence {
    /// Whether nobody leads while it has not changed for a while: that is said once.
    pub(super) async fn look(&mut self, ground: &Ground, now: &DynamicObject, printer: &Printer) -> bool {
        let version = now.metadata.resource_version.clone();
        if self.since.is_none() || version != self.version {
            *self = Self {
                version,
                since: Some(Instant::now()),
                is_told: false,
            };
        }
        if self.since.is_none_or(|since| since.elapsed() < QUIET) {
            return false;
        }
        // Who may not read it, or cannot now, is told nothing by it.
        let Ok(lead) = snapshot::lead(&ground.client, &ground.namespace).await else {
            return false;
        };
        if lead.is_quiet() && !self.is_told {
            self.is_told = true;
            printer.note(&super::nobody_leads(&lead, &ground.namespace));
        }
        lead.is_quiet()
    }
}

pub(super) async fn release(
    ground: &Ground,
    build: &str,
    environment: &str,
    reason: &str,
    printer: &Printer,
) -> anyhow::Result<Exit> {
    let api = Kind::Build.api(&ground.client, &ground.namespace);
    let what = format!("Build {build}");
    for _ in 0..ATTEMPTS {
        let object = patiently(|| asked("read", &what, api.get(build))).await?;
        let mut status: BuildStatus = if object.data["status"].is_object() {
            part(&object, "status")?
        } else {
            BuildStatus::default()
        };
        if status.quarantined_in(environment).is_none() {
            return Err(ground::GroundError::NotQuarantined {
                build: build.to_owned(),
                environment: environment.to_owned(),
            }
            .into());
        }
        status.apply(&Mark::Release(Release {
            environment: environment.to_owned(),
            reason: reason.to_owned(),
            user: settings::user(),
            at: Timestamp::now(),
        }));
        match write_status(&api, &object, json!(status)).await {
            Err(why) if why.is_conflict() => {}
            written => {
                publish(ground, &written?, environment, reason, printer).await;
                printer.note(&format!("{build} may go onto {environment} again"));
                return Ok(Exit::Done);
            }
        }
    }
    Err(PluginError::Contended(what).into())
}

/// Who lifted it, and why, is in the build's status; who watches its Events hears it, too.
async fn publish(ground: &Ground, build: &DynamicObject, environment: &str, reason: &str, printer: &Printer) {
    let reporter = Reporter {
        controller: NAME.to_owned(),
        instance: None,
    };
    let note = format!("{} lets it go onto {environment} again: {reason}", settings::user());
    let event = ApiEvent {
        type_: EventType::Normal,
        reason: "QuarantineLifted".to_owned(),
        note: Some(note.chars().take(LONGEST_NOTE).collect()),
        action: format!("Release {environment} {}", Timestamp::now()),
        secondary: None,
    };
    let recorder = Recorder::new(ground.client.clone(), reporter);
    let reference = objects::reference(build, Kind::Build);
    if let Err(why) = asked(
        "write an event of",
        &objects::named(build),
        recorder.publish(&event, &reference),
    )
    .await
    {
        printer.note(&format!("no Event tells of it, the build's status does: {why}"));
    }
}

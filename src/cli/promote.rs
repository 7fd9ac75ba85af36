//! `stagegate promote BUILD --to ENV`: a build through a stage of its pipeline.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::approve::{self, Key, Said, Spoken};
use super::ground::GroundError;
use super::printer::Printer;
use super::upgrade::{Carrier, LOOK_EVERY, Patience, Staying};
use super::view::API_VERSION;
use super::{Exit, ground, standing};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::promotion::signatures::Verifier;
use crate::engine::promotion::{self, Change, Ground, PromotionError, PromotionRecord, Turned};
use crate::engine::rehearsal::{Quarantined, Rehearsing};
use crate::engine::session::{self, KnownBuild};
use crate::home::Home;
use crate::model::approval::Verb;
use crate::model::promotion::{Phase, PromotionSpec};
use crate::model::values;
use crate::promotion::obstacle::Facts;
use crate::promotion::{Effect, FROZEN, RehearsalRun, RunState};
use crate::report::{self, in_one_line};
use crate::settings;
use crate::store::{EventQuery, Store as _, Take, UpgradeRecord};
use crate::workspace::PromotionRules;

/// Between two turns of one that waits: what it waits for is of people and hours.
const TURN_EVERY: Duration = Duration::from_secs(2);
/// Events read at once.
const EVENTS_AT_ONCE: u32 = 1_000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The build: its name (`stagegate build list`), or COMPONENT=VERSION
    #[arg(value_name = "BUILD")]
    build: String,
    /// The environment that it is to enter
    #[arg(long, value_name = "ENV", value_parser = ground::environment_name)]
    to: String,
    /// Why, for those who approve
    #[arg(long, value_name = "TEXT", value_parser = approve::reason, default_value = "", hide_default_value = true)]
    reason: String,
    /// Pass over what keeps it, but for a quarantine: with this reason, and once a second person breaks the glass too
    #[arg(long, value_name = "TEXT", value_parser = super::reason)]
    break_glass: Option<String>,
    /// For how long the glass is broken
    #[arg(
        long = "for",
        value_name = "DURATION",
        default_value = "2h",
        requires = "break_glass"
    )]
    lasting: values::Duration,
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    staying: Staying,
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let (home, fleet) = ground::operable(&arguments.to, ground::home)?;
    standing::refuse_not_up(&home, &fleet)?;
    let rules = fleet.workspace.promotion_rules()?;
    let known = if let Some(known) = KnownBuild::find(&home, &arguments.build)? {
        known
    } else {
        let (component, version) = ground::component_and_version(&fleet, &arguments.build)?;
        ground::build(&home, component, &version, printer).await?.1
    };
    let build = known.spec.name();
    let (name, pipeline, stage) = promotion::way(&rules, &known.spec.component, &arguments.to)?;
    let way = Ground {
        home: &home,
        fleet: &fleet,
        name,
        pipeline,
        stage,
        freezes: &rules.freezes,
    };
    let verifier = Verifier::default();
    let open = way.open_of(&build)?;
    let draft = match &open {
        Some(open) => open.clone(),
        None => way.draft(PromotionSpec {
            pipeline: name.to_owned(),
            stage: stage.name.clone(),
            build,
            user: settings::user(),
            automatic: false,
            cancel: false,
            words: Vec::new(),
        })?,
    };
    let facts = way.facts(&draft, &verifier).await?;
    let spoken = spoken(&way, &draft, &facts, &arguments, &verifier)?;
    let mut change = Change::of(&draft);
    for spoken in &spoken {
        spoken.onto(&way, &mut change);
    }
    let record = if open.is_none() {
        way.ask(&draft, &arguments.reason, change)?
    } else {
        printer.note(&format!("{} is open already, and goes on", draft.name));
        way.change(&draft.name, &mut |record| {
            let mut change = Change::of(record);
            for spoken in &spoken {
                spoken.onto(&way, &mut change);
            }
            (!spoken.is_empty()).then_some(change)
        })?
    };
    promotion::prune(&home)?;
    let promoting = Promoting {
        home: &home,
        environment: &arguments.to,
        interrupt: ground::interrupt(printer)?,
        patience: arguments.staying.patience(),
        verifier,
        printer,
    };
    let (record, exit) = Box::pin(promoting.until_settled(&record.name)).await?;
    show(&record, printer)?;
    Ok(exit)
}

/// What who asks signs: that they ask, where somebody is to approve, unless they have said so; and that they break the glass. Who brings back
/// what ran there last needs no key.
fn spoken(
    way: &Ground<'_>,
    draft: &PromotionRecord,
    facts: &Facts,
    arguments: &Arguments,
    verifier: &Verifier,
) -> anyhow::Result<Vec<Spoken>> {
    let is_told_apart = !way.stage.approvals.is_empty() && !facts.is_way_back;
    if !is_told_apart && arguments.break_glass.is_none() {
        return Ok(Vec::new());
    }
    let key = approve::signing_key(&arguments.key)?;
    let sign = |said: &Said<'_>| approve::sign(way, draft, facts, said, &key, verifier);
    let asks = sign(&Said {
        verb: Verb::Request,
        reason: &arguments.reason,
        until: None,
    })?;
    let mut spoken = Vec::new();
    if !asks.was_said(way, draft, verifier)? {
        spoken.push(asks);
    }
    if let Some(reason) = &arguments.break_glass {
        let until = Timestamp::now().saturating_add(arguments.lasting.signed());
        spoken.push(sign(&Said {
            verb: Verb::BreakGlass,
            reason,
            until: Some(until.unwrap_or(Timestamp::MAX)),
        })?);
    }
    Ok(spoken)
}

/// A promotion that somebody stays with. Files are read anew at each turn: what keeps it may be mended there.
struct Promoting<'a> {
    home: &'a Home,
    environment: &'a str,
    interrupt: Interrupt,
    patience: Patience,
    verifier: Verifier,
    printer: &'a Printer,
}

/// The files as they are at one turn.
struct Files {
    rules: PromotionRules,
    fleet: Arc<Fleet>,
}

impl Promoting<'_> {
    fn files(&self) -> anyhow::Result<Files> {
        let (_, fleet) = ground::operable(self.environment, ground::look)?;
        let rules = fleet.workspace.promotion_rules()?;
        Ok(Files { rules, fleet })
    }

    async fn turn(&self, way: &Ground<'_>, name: &str) -> Result<Turned, PromotionError> {
        way.turn(name, None, &self.verifier).await
    }

    /// Drives it, or watches the home's server drive it, until it has ended, is held, or its time is up.
    async fn until_settled(&self, name: &str) -> anyhow::Result<(PromotionRecord, Exit)> {
        let end = match self.patience {
            Patience::Until(limit) => Some(tokio::time::Instant::now() + limit),
            Patience::Endless | Patience::None => None,
        };
        let mut seen = self.first_event(name)?;
        let mut told_of_server = false;
        loop {
            let server = ground::server(self.home)?;
            if self.patience == Patience::None {
                return match server {
                    None => Err(GroundError::NobodyDrives.into()),
                    Some(_) => Ok((self.record(name)?, Exit::Done)),
                };
            }
            let files = self.files()?;
            if let Some(server) = &server {
                if !std::mem::replace(&mut told_of_server, true) {
                    self.printer
                        .note(&format!("`stagegate serve` ({}) drives {name}", server.holder));
                }
            } else {
                let before = self.record(name)?;
                let way = Ground::of(self.home, &files.fleet, &files.rules, &before)?;
                let turned = self.turn(&way, name).await?;
                seen = self.tell_since(&files.fleet, name, seen)?;
                if let Some(exit) = Box::pin(self.drive(&way, &turned)).await? {
                    return Ok((self.record(name)?, exit));
                }
            }
            seen = self.tell_since(&files.fleet, name, seen)?;
            let record = self.record(name)?;
            if record.status.phase.is_final() {
                ground::deliver_first(self.home, &files.fleet, self.printer).await;
                let exit = exit_of(&record);
                return Ok((record, exit));
            }
            if server.is_some() && self.waits_for_a_person(&record)? {
                return Ok((record, Exit::Held));
            }
            self.printer.doing(format!(
                "{name} {:?}: {}",
                record.status.phase,
                in_one_line(&record.status.message)
            ));
            if end.is_some_and(|end| tokio::time::Instant::now() >= end) {
                self.leave(&record, "not done in time");
                return Ok((record, Exit::TimedOut));
            }
            let wait = if server.is_none() { TURN_EVERY } else { LOOK_EVERY };
            tokio::select! {
                () = self.interrupt.wait() => {
                    self.leave(&record, "interrupted");
                    return Ok((record, Exit::Interrupted));
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Its upgrade is held, and by no freeze of ours.
    fn waits_for_a_person(&self, record: &PromotionRecord) -> anyhow::Result<bool> {
        let held = self.home.store().upgrade(&record.name)?.filter(session::awaits_resume);
        Ok(held.is_some() && record.status.reason != FROZEN)
    }

    fn leave(&self, record: &PromotionRecord, why: &str) {
        self.printer.idle();
        self.printer.note(&format!(
            "{why}; it stays open ({}). `stagegate promote {} --to {}` goes on with it, `stagegate cancel {}` takes it back",
            in_one_line(&record.status.message),
            record.spec.build,
            self.environment,
            record.name
        ));
    }

    /// Does what was decided; how that ended, where it is no longer for this command to go on.
    async fn drive(&self, way: &Ground<'_>, turned: &Turned) -> anyhow::Result<Option<Exit>> {
        if let Some(Effect::Rehearse(rehearsal)) = &turned.effect {
            return self.rehearse(way, rehearsal, &turned.record).await;
        }
        way.carry_out(turned).await?;
        let open = self.home.store().upgrade(&turned.record.name)?;
        match open.filter(|open| !session::is_settled(open)) {
            Some(open) => Box::pin(self.drive_upgrade(way, open)).await,
            None => Ok(None),
        }
    }

    /// Carries a rehearsal out with its build, and decides by what came out.
    async fn rehearse(
        &self,
        way: &Ground<'_>,
        rehearsal: &str,
        record: &PromotionRecord,
    ) -> anyhow::Result<Option<Exit>> {
        let (_, spec) = way.fleet.workspace.rehearsal(rehearsal, ground::port_shift()?)?;
        let spec = spec.of_candidate(&way.version(record)?);
        let (_, fleet) = ground::operable(&spec.environment, ground::look)?;
        let rehearsing = Rehearsing {
            home: self.home,
            fleet: &fleet,
            spec: &spec,
            quarantined: Quarantined::IsUnmet,
        };
        let outcome = super::rehearse::rehearse(&rehearsing, self.interrupt.clone(), self.printer).await?;
        if outcome.interrupted {
            self.leave(record, "interrupted");
            return Ok(Some(Exit::Interrupted));
        }
        let run = RehearsalRun {
            rehearsal: rehearsal.to_owned(),
            state: outcome.why_not().map_or(RunState::Passed, RunState::Failed),
        };
        way.turn(&record.name, Some(&run), &self.verifier).await?;
        Ok(None)
    }

    /// Drives its upgrade, and takes its turns meanwhile: a freeze may begin.
    async fn drive_upgrade(&self, way: &Ground<'_>, upgrade: UpgradeRecord) -> anyhow::Result<Option<Exit>> {
        let name = upgrade.name.clone();
        let carrier = Carrier {
            home: self.home,
            fleet: way.fleet,
            printer: self.printer,
            interrupt: self.interrupt.clone(),
            patience: self.patience,
        };
        let driving = carrier.go_on(upgrade);
        tokio::pin!(driving);
        let done = loop {
            tokio::select! {
                done = &mut driving => break done?,
                () = tokio::time::sleep(TURN_EVERY) => {
                    // What is in the way of a look, as a file that is replaced just now, ends no upgrade.
                    if let Err(why) = self.look_after(way, &name).await {
                        self.printer.note(&format!("{name} is not looked at for a moment: {why}"));
                    }
                }
            }
        };
        match done.exit {
            Exit::Interrupted | Exit::TimedOut => Ok(Some(done.exit)),
            Exit::Held if !done.record.status.phase.is_final() => {
                let turned = self.turn(way, &name).await?;
                // Held by a freeze it goes on by itself; held by a person or a gate it waits for a person.
                Ok((turned.record.status.reason != FROZEN).then_some(Exit::Held))
            }
            _ => Ok(None),
        }
    }

    async fn look_after(&self, way: &Ground<'_>, name: &str) -> Result<(), PromotionError> {
        let turned = self.turn(way, name).await?;
        way.carry_out(&turned).await
    }

    fn record(&self, name: &str) -> anyhow::Result<PromotionRecord> {
        let found = PromotionRecord::find(self.home, name)?;
        Ok(found.ok_or_else(|| PromotionError::Unknown(name.to_owned()))?)
    }

    /// The last event that it has now: what comes later is news.
    fn first_event(&self, name: &str) -> anyhow::Result<u64> {
        let last = self.home.store().events(&EventQuery {
            environment: None,
            upgrade: None,
            promotion: Some(name),
            after: 0,
            take: Take::Last(1),
        })?;
        Ok(last.last().map_or(0, |record| record.seq))
    }

    /// Says what has happened to it since, as far as its upgrade's driver has not said so here.
    fn tell_since(&self, fleet: &Fleet, name: &str, mut seen: u64) -> anyhow::Result<u64> {
        let told_by_sink = delivery::tells_stderr(fleet);
        loop {
            let events = self.home.store().events(&EventQuery {
                environment: None,
                upgrade: None,
                promotion: Some(name),
                after: seen,
                take: Take::First(EVENTS_AT_ONCE),
            })?;
            let Some(last) = events.last() else { return Ok(seen) };
            seen = last.seq;
            let record = self.record(name)?;
            let component = KnownBuild::find(self.home, &record.spec.build)?.map(|known| known.spec.component);
            let subject = promotion::subject(component.as_deref().unwrap_or_default(), &record.spec);
            for told in events.iter().filter(|told| told.upgrade.is_none() && !told_by_sink) {
                self.printer.note(&report::text(&subject, told));
            }
        }
    }
}

/// How a promotion that has ended is told to who waited for it.
fn exit_of(record: &PromotionRecord) -> Exit {
    let status = &record.status;
    match status.phase {
        Phase::Succeeded => Exit::Done,
        Phase::Failed if status.upgrade.is_none() => match status.reason.as_str() {
            "RehearsalFailed" => Exit::GateFailed,
            _ => Exit::Refused,
        },
        Phase::Failed => match status.reason.as_str() {
            "RolledBack" => Exit::GateFailed,
            "Errored" => Exit::Errored,
            "Aborted" => Exit::Held,
            _ => Exit::NotCured,
        },
        Phase::Rejected => Exit::Refused,
        Phase::Cancelled | Phase::Waiting | Phase::Rehearsing | Phase::Upgrading => Exit::Held,
    }
}

/// A promotion as a resource.
pub(super) fn resource(record: &PromotionRecord) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": promotion::KIND,
        "metadata": {
            "name": record.name,
            "resourceVersion": record.resource_version.to_string(),
            "creationTimestamp": record.created_at,
        },
        "spec": record.spec,
        "status": record.status,
    })
}

pub(super) fn show(record: &PromotionRecord, printer: &Printer) -> anyhow::Result<()> {
    printer.resource(&resource(record), |p| {
        let status = &record.status;
        p.line(&format!(
            "{} {:?} ({}): {}",
            record.name,
            status.phase,
            status.reason,
            in_one_line(status.why())
        ))?;
        for waiting in &status.waits_for {
            p.sentence(&format!("  waits: {}", in_one_line(&waiting.message)))?;
        }
        Ok(())
    })
}

//! `stagegate promote | approve | reject | withdraw | cancel`: a build through a stage of its pipeline, and what people say of that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ground::GroundError;
use super::printer::Printer;
use super::upgrade::{Carrier, LOOK_EVERY, Patience, Staying};
use super::view::{self, API_VERSION};
use super::{Exit, ground, standing};
use crate::engine::delivery;
use crate::engine::fleet::Fleet;
use crate::engine::interrupt::Interrupt;
use crate::engine::promotion::signatures::{self, SignatureError, Verifier, Whose};
use crate::engine::promotion::{self, Change, Ground, PromotionError, PromotionRecord, Turned};
use crate::engine::rehearsal::{Quarantined, Rehearsing};
use crate::engine::session::{self, KnownBuild};
use crate::home::Home;
use crate::model::approval::{LONGEST_REASON, Verb, Word};
use crate::model::promotion::{BreakGlass, Phase, PromotionSpec};
use crate::model::values;
use crate::promotion::approvals::{Discounted, Voice};
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
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = "", hide_default_value = true)]
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

#[derive(Debug, Args)]
struct Key {
    /// The SSH key that signs (default: STAGEGATE_KEY, else the usual ones in ~/.ssh); a public one where an agent has the private one
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArguments {
    /// The promotion, or the environment that it leads into
    #[arg(value_name = "PROMOTION")]
    promotion: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = "", hide_default_value = true)]
    reason: String,
    /// Break the glass with who has asked for that
    #[arg(long)]
    break_glass: bool,
    #[command(flatten)]
    key: Key,
}

#[derive(Debug, Args)]
pub(super) struct RejectArguments {
    /// The promotion, or the environment that it leads into
    #[arg(value_name = "PROMOTION")]
    promotion: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = super::reason)]
    reason: String,
    #[command(flatten)]
    key: Key,
}

#[derive(Debug, Args)]
pub(super) struct WithdrawArguments {
    /// The promotion, or the environment that it leads into
    #[arg(value_name = "PROMOTION")]
    promotion: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = reason, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    key: Key,
}

#[derive(Debug, Args)]
pub(super) struct CancelArguments {
    /// The promotion, or the environment that it leads into
    #[arg(value_name = "PROMOTION")]
    promotion: String,
}

/// A text that is signed and shown in a line.
fn reason(text: &str) -> Result<String, String> {
    if text.chars().count() > LONGEST_REASON {
        return Err(format!("it is longer than {LONGEST_REASON} characters"));
    }
    Ok(text.trim().to_owned())
}

/// Why a word is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Nobody of a role has signed it.
    #[error(
        "the signature by {key} is of nobody whom a role of pipeline {pipeline} has ({roles}); a role's members are the lines of its \
         `allowedSigners` file in the workspace: NAME, then the public key",
        key = key.display()
    )]
    Nobody {
        /// The key.
        key: PathBuf,
        /// The pipeline.
        pipeline: String,
        /// Its roles.
        roles: String,
    },
    /// It would count for nothing.
    #[error("{who} may not approve promotion {promotion}: {why}")]
    Uncounted {
        /// Who.
        who: String,
        /// The promotion.
        promotion: String,
        /// Why.
        why: String,
    },
    /// It has ended.
    #[error(
        "promotion {promotion} has ended ({phase:?}: {message}); `stagegate promote {build} --to {environment}` asks for a new one"
    )]
    Ended {
        /// The promotion.
        promotion: String,
        /// How.
        phase: Phase,
        /// Why.
        message: String,
        /// Its build.
        build: String,
        /// Its environment.
        environment: String,
    },
}

/// The key that signs.
fn signing_key(stated: &Key) -> Result<PathBuf, SignatureError> {
    stated
        .key
        .clone()
        .map_or_else(settings::key, Ok)
        .map_err(|tried| SignatureError::NoKey {
            tried: tried
                .iter()
                .map(|key| key.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        })
}

pub(super) async fn run(arguments: Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let (home, fleet) = ground::operable(&arguments.to, ground::home)?;
    standing::refuse_not_up(&home, &fleet)?;
    let rules = fleet.workspace.promotion_rules()?;
    let known = match KnownBuild::find(&home, &arguments.build)? {
        Some(known) => known,
        None => {
            let (component, version) = ground::component_and_version(&fleet, &arguments.build)?;
            ground::build(&home, component, &version, printer).await?.1
        }
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
    // Who asks is told from who approves by a signature, so where somebody approves it has to be there.
    let key = if stage.approvals.is_empty() && arguments.break_glass.is_none() {
        None
    } else {
        Some(signing_key(&arguments.key)?)
    };
    let verifier = Verifier::default();
    let break_glass = arguments.break_glass.as_ref().map(|reason| BreakGlass {
        reason: reason.clone(),
        until: Timestamp::now()
            .saturating_add(arguments.lasting.signed())
            .unwrap_or(Timestamp::MAX)
            .into(),
    });
    let record = match way.open_of(&build)? {
        Some(open) => {
            printer.note(&format!("{} is open already, and goes on", open.name));
            asks_for_more(&way, &open, break_glass)?
        }
        None => {
            let spec = PromotionSpec {
                pipeline: name.to_owned(),
                stage: stage.name.clone(),
                build,
                user: settings::user(),
                break_glass,
                cancel: false,
            };
            way.ask(&spec, &arguments.reason)?
        }
    };
    promotion::prune(&home)?;
    if let Some(key) = &key {
        let facts = way.facts(&record, &verifier).await?;
        if !facts.voices.has_author() {
            say(&way, &record, &facts, Verb::Request, &arguments.reason, key, &verifier)?;
        }
    }
    let promoting = Promoting {
        home: &home,
        environment: &arguments.to,
        interrupt: ground::interrupt(printer)?,
        patience: arguments.staying.patience(),
        verifier,
        printer,
    };
    let (record, exit) = promoting.until_settled(&record.name).await?;
    show(&record, printer)?;
    Ok(exit)
}

/// An open promotion, with a glass that is to be broken now.
fn asks_for_more(
    way: &Ground<'_>,
    open: &PromotionRecord,
    glass: Option<BreakGlass>,
) -> anyhow::Result<PromotionRecord> {
    let Some(glass) = glass else { return Ok(open.clone()) };
    let changed = way.change(&open.name, &mut |record| {
        let now = Timestamp::now();
        let user = settings::user();
        let message = format!(
            "{user} asks to pass over what keeps it, until {}: {}",
            glass.until, glass.reason
        );
        Some(Change {
            spec: PromotionSpec {
                break_glass: Some(glass.clone()),
                ..record.spec.clone()
            },
            status: record.status.clone(),
            acts: vec![way.act(&record.name, &user, "BreakGlassAsked", &glass.reason, now)],
            events: vec![promotion::event(now, "BreakGlassAsked", message)],
        })
    })?;
    Ok(changed)
}

/// Signs a word, and puts it to the others.
fn say(
    way: &Ground<'_>,
    record: &PromotionRecord,
    facts: &Facts,
    verb: Verb,
    reason: &str,
    key: &std::path::Path,
    verifier: &Verifier,
) -> anyhow::Result<(PromotionRecord, Voice)> {
    let word = Word {
        promotion: record.name.clone(),
        decision: verb,
        environment: way.stage.environment.clone(),
        build: record.spec.build.clone(),
        bound: facts.bound,
        at: Timestamp::now(),
        reason: reason.to_owned(),
    };
    let signed = signatures::sign(word, key)?;
    let root = way.fleet.workspace.root();
    let whose = verifier
        .voices(root, way.pipeline, std::slice::from_ref(&signed))?
        .pop();
    let Some(Whose::Of(voice)) = whose else {
        return Err(Refused::Nobody {
            key: key.to_owned(),
            pipeline: way.name.to_owned(),
            roles: way
                .pipeline
                .roles
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        }
        .into());
    };
    let (told, did) = words_of(verb);
    let written = way.change(&record.name, &mut |record| {
        let mut status = record.status.clone();
        status.words.push(signed.clone());
        let at = signed.word.at;
        let why = if reason.is_empty() {
            String::new()
        } else {
            format!(": {reason}")
        };
        let mut act = way.act(&record.name, &format!("key:{}", voice.who), told, reason, at);
        act.evidence = Some(signed.word.bound.evidence);
        Some(Change {
            spec: record.spec.clone(),
            status,
            events: vec![promotion::event(at, told, format!("{} {did}{why}", voice.who))],
            acts: vec![act],
        })
    })?;
    Ok((written, *voice))
}

/// The word for programs, and the one for people.
fn words_of(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Request => ("PromotionSigned", "has signed that they ask for it"),
        Verb::Approve => ("Approved", "approves of it"),
        Verb::Withdraw => ("ApprovalWithdrawn", "takes the approval back"),
        Verb::Reject => ("Rejected", "rejects it"),
        Verb::BreakGlass => ("GlassBrokenBySecond", "breaks the glass too"),
    }
}

pub(super) async fn approve(arguments: ApproveArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let verb = if arguments.break_glass {
        Verb::BreakGlass
    } else {
        Verb::Approve
    };
    voice(&arguments.promotion, verb, &arguments.reason, &arguments.key, printer).await
}

pub(super) async fn reject(arguments: RejectArguments, printer: &Printer) -> anyhow::Result<Exit> {
    voice(
        &arguments.promotion,
        Verb::Reject,
        &arguments.reason,
        &arguments.key,
        printer,
    )
    .await
}

pub(super) async fn withdraw(arguments: WithdrawArguments, printer: &Printer) -> anyhow::Result<Exit> {
    voice(
        &arguments.promotion,
        Verb::Withdraw,
        &arguments.reason,
        &arguments.key,
        printer,
    )
    .await
}

/// The open promotion of this name, or the one that leads into this environment.
fn named(home: &Home, name: &str) -> anyhow::Result<PromotionRecord> {
    let name = name.strip_prefix("promotion/").unwrap_or(name);
    if let Some(found) = PromotionRecord::find(home, name)? {
        return Ok(found);
    }
    let open = PromotionRecord::open(home)?;
    let rules = ground::workspace().promotion_rules()?;
    let leads = |record: &&PromotionRecord| Ground::environment_of(&rules, record).is_ok_and(|into| into == name);
    let into: Vec<&PromotionRecord> = open.iter().filter(leads).collect();
    match into[..] {
        [one] => Ok(one.clone()),
        [] => Err(PromotionError::Unknown(name.to_owned()).into()),
        _ => Err(GroundError::Setting(format!(
            "{} promotions lead into {name}, so name the one: {}",
            into.len(),
            into.iter()
                .map(|record| record.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ))
        .into()),
    }
}

fn refuse_ended(record: &PromotionRecord, environment: &str) -> Result<(), Refused> {
    if !record.status.phase.is_final() {
        return Ok(());
    }
    Err(Refused::Ended {
        promotion: record.name.clone(),
        phase: record.status.phase,
        message: in_one_line(&record.status.message),
        build: record.spec.build.clone(),
        environment: environment.to_owned(),
    })
}

async fn voice(name: &str, verb: Verb, reason: &str, key: &Key, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    let record = named(&home, name)?;
    let rules = ground::workspace().promotion_rules()?;
    let (home, fleet) = ground::operable(&Ground::environment_of(&rules, &record)?, ground::look)?;
    let way = Ground::of(&home, &fleet, &rules, &record)?;
    refuse_ended(&record, &way.stage.environment)?;
    let key = signing_key(key)?;
    let verifier = Verifier::default();
    let facts = way.facts(&record, &verifier).await?;
    say_what_it_is_of(&way, &record, &facts, printer);
    let (_, voice) = say(&way, &record, &facts, verb, reason, &key, &verifier)?;
    // What came of it, as whoever drives it will find it too.
    let turned = way.turn(&record.name, None, &verifier, &|_, _| {}).await?;
    way.carry_out(&turned).await?;
    ground::deliver_first(&home, &fleet, printer).await;
    let uncounted = uncounted(&way, &turned.record, &voice, verb, &verifier).await?;
    show(&turned.record, printer)?;
    if let Some(why) = uncounted {
        return Err(Refused::Uncounted {
            who: voice.who,
            promotion: record.name,
            why,
        }
        .into());
    }
    if !turned.record.status.phase.is_final() && ground::driver(&home, &way.stage.environment)?.is_none() {
        printer.note(&format!(
            "nobody drives it now: `stagegate promote {} --to {}` goes on with it, and so does `stagegate serve`",
            record.spec.build, way.stage.environment
        ));
    }
    Ok(Exit::Done)
}

/// Why an approval that was written down counts for nothing, if so: an author's, or of somebody in no role that is asked.
async fn uncounted(
    way: &Ground<'_>,
    record: &PromotionRecord,
    voice: &Voice,
    verb: Verb,
    verifier: &Verifier,
) -> Result<Option<String>, PromotionError> {
    if verb != Verb::Approve {
        return Ok(None);
    }
    let facts = way.facts(record, verifier).await?;
    let rules = &way.stage.approvals;
    if !rules.iter().any(|rule| voice.roles.contains(&rule.role)) {
        let asked: Vec<&str> = rules.iter().map(|rule| rule.role.as_str()).collect();
        return Ok(Some(if asked.is_empty() {
            format!("stage {} asks nobody", way.stage.name)
        } else {
            format!(
                "stage {} asks {}, and they are in none of these roles",
                way.stage.name,
                asked.join(", ")
            )
        }));
    }
    let now = Timestamp::now();
    let is_author = rules.iter().any(|rule| {
        let tally = facts.voices.tally(rule, &facts.bound, now);
        tally
            .not
            .iter()
            .any(|(who, why)| *who == voice.who && *why == Discounted::Author)
    });
    Ok(is_author.then(|| "they have asked for it themselves, and somebody else has to approve".to_owned()))
}

/// What is signed, before it is.
fn say_what_it_is_of(way: &Ground<'_>, record: &PromotionRecord, facts: &Facts, printer: &Printer) {
    let digest = facts.build.digest.short();
    printer.note(&format!(
        "{}: {} (sha256:{digest}) onto {}; plan {}, evidence {}",
        record.name,
        record.spec.build,
        way.stage.environment,
        facts.bound.plan.short(),
        facts.bound.evidence.short()
    ));
    for before in &facts.upstream {
        let how = match before.verified {
            crate::promotion::obstacle::Verified::At(at) => format!("has verified it at {}", view::moment(at)),
            crate::promotion::obstacle::Verified::Other(digest) => {
                format!("has verified other bytes of that name ({})", digest.short())
            }
            crate::promotion::obstacle::Verified::Never => "has not verified it".to_owned(),
        };
        printer.note(&format!("stage {} {how}", before.stage));
    }
}

pub(super) async fn cancel(arguments: CancelArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    let record = named(&home, &arguments.promotion)?;
    let rules = ground::workspace().promotion_rules()?;
    let (home, fleet) = ground::operable(&Ground::environment_of(&rules, &record)?, ground::look)?;
    let way = Ground::of(&home, &fleet, &rules, &record)?;
    refuse_ended(&record, &way.stage.environment)?;
    if record.status.phase == Phase::Upgrading {
        printer.note(&format!(
            "its upgrade is under way and goes on; `stagegate abort {}` takes it back",
            way.stage.environment
        ));
        show(&record, printer)?;
        return Ok(Exit::Refused);
    }
    let user = settings::user();
    way.change(&record.name, &mut |record| {
        let now = Timestamp::now();
        Some(Change {
            spec: PromotionSpec {
                cancel: true,
                ..record.spec.clone()
            },
            status: record.status.clone(),
            events: vec![promotion::event(now, "CancelAsked", format!("{user} takes it back"))],
            acts: vec![way.act(&record.name, &user, "CancelAsked", &record.spec.build, now)],
        })
    })?;
    let turned = way.turn(&record.name, None, &Verifier::default(), &|_, _| {}).await?;
    ground::deliver_first(&home, &fleet, printer).await;
    show(&turned.record, printer)?;
    Ok(Exit::Done)
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
        way.turn(name, None, &self.verifier, &|_, _| {}).await
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
                if let Some(exit) = self.drive(&way, &turned).await? {
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
            Some(open) => self.drive_upgrade(way, open).await,
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
        let (_, fleet) = ground::operable(&spec.environment, ground::look)?;
        let rehearsing = Rehearsing {
            home: self.home,
            fleet: &fleet,
            spec: &spec,
            candidate: Some(&way.version(record)?),
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
        way.turn(&record.name, Some(&run), &self.verifier, &|_, _| {}).await?;
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
                    let turned = self.turn(way, &name).await?;
                    way.carry_out(&turned).await?;
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
pub(super) fn resource(record: &PromotionRecord) -> serde_json::Result<Value> {
    Ok(json!({
        "apiVersion": API_VERSION,
        "kind": promotion::KIND,
        "metadata": {
            "name": record.name,
            "resourceVersion": record.resource_version.to_string(),
            "creationTimestamp": record.created_at,
        },
        "spec": record.spec,
        "status": record.status,
    }))
}

fn show(record: &PromotionRecord, printer: &Printer) -> anyhow::Result<()> {
    printer.resource(&resource(record)?, |p| {
        let status = &record.status;
        p.line(&format!(
            "{} {:?} ({}): {}",
            record.name,
            status.phase,
            status.reason,
            in_one_line(&status.message)
        ))?;
        for waiting in &status.waits_for {
            p.sentence(&format!("  waits: {}", in_one_line(&waiting.message)))?;
        }
        Ok(())
    })
}

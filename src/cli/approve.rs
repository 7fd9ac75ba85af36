//! `stagegate approve | reject | withdraw | cancel`: what people say of a promotion.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::ground::GroundError;
use super::printer::Printer;
use super::promote::show;
use super::view;
use super::{Exit, ground};
use crate::engine::promotion::signatures::{self, SignatureError, Verifier, Whose};
use crate::engine::promotion::{self, Change, Ground, PromotionError, PromotionRecord};
use crate::home::Home;
use crate::model::approval::{LONGEST_REASON, Verb, Word};
use crate::model::promotion::{Phase, PromotionSpec};
use crate::promotion::approvals::{Discounted, Voice};
use crate::promotion::obstacle::{Facts, Verified};
use crate::report::in_one_line;
use crate::settings;

#[derive(Debug, Args)]
pub(super) struct Key {
    /// The SSH key that signs (default: `STAGEGATE_KEY`, else the usual ones in ~/.ssh); a public one where an agent has the private one
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
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
pub(super) fn reason(text: &str) -> Result<String, String> {
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
pub(super) fn signing_key(stated: &Key) -> Result<PathBuf, SignatureError> {
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

/// Signs a word, and puts it to the others.
pub(super) fn say(
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
            Verified::At(at) => format!("has verified it at {}", view::moment(at)),
            Verified::Other(digest) => {
                format!("has verified other bytes of that name ({})", digest.short())
            }
            Verified::Never => "has not verified it".to_owned(),
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

//! `stagegate approve | reject | withdraw | cancel`: what people say of a promotion.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::ground::GroundError;
use super::printer::Printer;
use super::promote::show;
use super::view;
use super::{Exit, ground};
use crate::engine::promotion::signatures::{self, SignatureError, Verifier, Whose};
use crate::engine::promotion::{self, Change, Ground, PromotionError, PromotionRecord};
use crate::home::Home;
use crate::model::approval::{LONGEST_REASON, Signed, Verb, Word};
use crate::model::promotion::Phase;
use crate::promotion::approvals::{SKEW, Voice};
use crate::promotion::obstacle::{Facts, Verified};
use crate::report::in_one_line;
use crate::settings;
use crate::store::Store as _;

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
    /// It has gone on already.
    #[error(
        "promotion {promotion} has gone on, and its upgrade is under way; `stagegate abort {environment}` takes it back, `stagegate pause \
         {environment}` holds it"
    )]
    UnderWay {
        /// The promotion.
        promotion: String,
        /// Its environment.
        environment: String,
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

/// What somebody says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) verb: Verb,
    pub(super) reason: &'a str,
    /// Of a glass that is broken: until when.
    pub(super) until: Option<Timestamp>,
}

/// A word with whose it is.
pub(super) struct Spoken {
    signed: Signed,
    pub(super) voice: Voice,
}

/// Signs a word.
pub(super) fn sign(
    way: &Ground<'_>,
    record: &PromotionRecord,
    facts: &Facts,
    said: &Said<'_>,
    key: &Path,
    verifier: &Verifier,
) -> anyhow::Result<Spoken> {
    let now = Timestamp::now();
    // Of one person the later word stands, whichever machine it is said on: no word comes before one that is there. One from far ahead is
    // nobody's measure.
    let others = record.status.words.iter().map(|signed| signed.word.at);
    let last = others.filter(|at| at.duration_since(now) < SKEW).max();
    let after = last.map_or(now, |at| {
        at.saturating_add(SignedDuration::from_micros(1)).unwrap_or(now)
    });
    let word = Word {
        promotion: record.name.clone(),
        decision: said.verb,
        environment: way.stage.environment.clone(),
        build: record.spec.build.clone(),
        bound: facts.bound,
        at: now.max(after),
        reason: said.reason.to_owned(),
        until: said.until,
    };
    let signed = signatures::sign(word, key)?;
    let root = way.fleet.workspace.root();
    let whose = verifier
        .voices(root, way.pipeline, std::slice::from_ref(&signed))?
        .pop();
    if let Some(Whose::Of(voice)) = whose {
        return Ok(Spoken { signed, voice: *voice });
    }
    let roles: Vec<&str> = way.pipeline.roles.keys().map(String::as_str).collect();
    Err(Refused::Nobody {
        key: key.to_owned(),
        pipeline: way.name.to_owned(),
        roles: roles.join(", "),
    }
    .into())
}

impl Spoken {
    /// Whether the same person has said the same of this promotion.
    pub(super) fn was_said(
        &self,
        way: &Ground<'_>,
        record: &PromotionRecord,
        verifier: &Verifier,
    ) -> anyhow::Result<bool> {
        let root = way.fleet.workspace.root();
        let all = verifier.voices(root, way.pipeline, &record.status.words)?;
        Ok(all.iter().any(|whose| match whose {
            Whose::Of(voice) => voice.who == self.voice.who && voice.verb == self.voice.verb,
            Whose::Nobodys => false,
        }))
    }

    /// Puts it to the others, with what is told of it and what the audit keeps.
    pub(super) fn onto(&self, way: &Ground<'_>, change: &mut Change) {
        let Word {
            promotion,
            decision,
            bound,
            at,
            reason,
            until,
            ..
        } = &self.signed.word;
        let (told, did) = words_of(*decision);
        let until = until.map_or(String::new(), |until| format!(" until {until:.0}"));
        let why = if reason.is_empty() {
            String::new()
        } else {
            format!(": {reason}")
        };
        let who = &self.voice.who;
        let mut act = way.way().act(promotion, &format!("key:{who}"), told, reason, *at);
        act.evidence = Some(bound.evidence);
        change.status.words.push(self.signed.clone());
        change
            .events
            .push(promotion::event(*at, told, format!("{who} {did}{until}{why}")));
        change.acts.push(act);
    }
}

/// The word for programs, and the one for people.
fn words_of(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Request => ("PromotionSigned", "has signed that they ask for it"),
        Verb::Approve => ("Approved", "approves of it"),
        Verb::Withdraw => ("ApprovalWithdrawn", "takes the approval back"),
        Verb::Reject => ("Rejected", "rejects it"),
        Verb::BreakGlass => ("BreakGlassAsked", "breaks the glass"),
    }
}

pub(super) async fn approve(arguments: ApproveArguments, printer: &Printer) -> anyhow::Result<Exit> {
    if arguments.break_glass && arguments.reason.is_empty() {
        let why = "a glass that is broken without a reason tells nobody why; add --reason TEXT";
        return Err(GroundError::Setting(why.to_owned()).into());
    }
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

/// Nothing that is said of a promotion changes anything once its upgrade was begun.
fn refuse_gone_on(home: &Home, record: &PromotionRecord, environment: &str) -> anyhow::Result<()> {
    match record.status.phase {
        Phase::Waiting | Phase::Rehearsing => Ok(()),
        // Decided, and not begun: it may be taken back.
        Phase::Upgrading if home.store().upgrade(&record.name)?.is_none() => Ok(()),
        Phase::Upgrading => Err(Refused::UnderWay {
            promotion: record.name.clone(),
            environment: environment.to_owned(),
        }
        .into()),
        Phase::Succeeded | Phase::Failed | Phase::Rejected | Phase::Cancelled => Err(Refused::Ended {
            promotion: record.name.clone(),
            phase: record.status.phase,
            message: in_one_line(&record.status.message),
            build: record.spec.build.clone(),
            environment: environment.to_owned(),
        }
        .into()),
    }
}

async fn voice(name: &str, verb: Verb, reason: &str, key: &Key, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    let record = named(&home, name)?;
    let rules = ground::workspace().promotion_rules()?;
    let (home, fleet) = ground::operable(&Ground::environment_of(&rules, &record)?, ground::look)?;
    let way = Ground::of(&home, &fleet, &rules, &record)?;
    refuse_gone_on(&home, &record, &way.stage.environment)?;
    let key = signing_key(key)?;
    let verifier = Verifier::default();
    let facts = way.facts(&record, &verifier).await?;
    say_what_it_is_of(&way, &record, &facts, printer);
    let breaking = facts.voices.breaking(&facts.bound, Timestamp::now());
    let until = match verb {
        // The second says the same as the first.
        Verb::BreakGlass => Some(breaking.first().and_then(|first| first.until).ok_or_else(|| {
            GroundError::Setting(format!(
                "nobody has asked to break the glass: `stagegate promote {} --to {} --break-glass TEXT` does",
                record.spec.build, way.stage.environment
            ))
        })?),
        Verb::Request | Verb::Approve | Verb::Withdraw | Verb::Reject => None,
    };
    let spoken = sign(&way, &record, &facts, &Said { verb, reason, until }, &key, &verifier)?;
    if let Some(why) = uncounted(&way, &facts, &spoken.voice, verb) {
        return Err(Refused::Uncounted {
            who: spoken.voice.who,
            promotion: record.name,
            why,
        }
        .into());
    }
    let written = way.change(&record.name, &mut |record| {
        let mut change = Change::of(record);
        spoken.onto(&way, &mut change);
        refuse_gone_on(&home, record, &way.stage.environment)
            .is_ok()
            .then_some(change)
    })?;
    if !written.status.words.contains(&spoken.signed) {
        refuse_gone_on(&home, &written, &way.stage.environment)?;
    }
    // What came of it, as whoever drives it will find it too.
    let turned = way.turn(&record.name, None, &verifier).await?;
    way.carry_out(&turned).await?;
    ground::deliver_first(&home, &fleet, printer).await;
    show(&turned.record, printer)?;
    if !turned.record.status.phase.is_final() && ground::driver(&home, &way.stage.environment)?.is_none() {
        printer.note(&format!(
            "nobody drives it now: `stagegate promote {} --to {}` goes on with it, and so does `stagegate serve`",
            record.spec.build, way.stage.environment
        ));
    }
    Ok(Exit::Done)
}

/// Why a word would count for nothing, if so: an author's, or of somebody in no role that is asked.
fn uncounted(way: &Ground<'_>, facts: &Facts, voice: &Voice, verb: Verb) -> Option<String> {
    let rules = &way.stage.approvals;
    let in_role = rules.iter().any(|rule| voice.roles.contains(&rule.role));
    let counts_by_role = match verb {
        Verb::Request | Verb::Withdraw => true,
        Verb::BreakGlass => in_role || rules.is_empty(),
        Verb::Approve | Verb::Reject => in_role,
    };
    if !counts_by_role {
        let asked: Vec<&str> = rules.iter().map(|rule| rule.role.as_str()).collect();
        return Some(if asked.is_empty() {
            format!("stage {} asks nobody", way.stage.name)
        } else {
            format!(
                "stage {} asks {}, and they are in none of these roles",
                way.stage.name,
                asked.join(", ")
            )
        });
    }
    let is_author = matches!(verb, Verb::Approve | Verb::BreakGlass) && facts.voices.is_author(&voice.who);
    is_author.then(|| "they have asked for it themselves, and somebody else has to say so".to_owned())
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
    refuse_gone_on(&home, &record, &way.stage.environment)?;
    let user = settings::user();
    let written = way.change(&record.name, &mut |record| {
        let now = Timestamp::now();
        let mut change = Change::of(record);
        change.spec.cancel = true;
        change.events = vec![promotion::event(now, "CancelAsked", format!("{user} takes it back"))];
        change.acts = vec![
            way.way()
                .act(&record.name, &user, "CancelAsked", &record.spec.build, now),
        ];
        refuse_gone_on(&home, record, &way.stage.environment)
            .is_ok()
            .then_some(change)
    })?;
    if !written.spec.cancel {
        refuse_gone_on(&home, &written, &way.stage.environment)?;
    }
    let turned = way.turn(&record.name, None, &Verifier::default()).await?;
    ground::deliver_first(&home, &fleet, printer).await;
    show(&turned.record, printer)?;
    Ok(Exit::Done)
}

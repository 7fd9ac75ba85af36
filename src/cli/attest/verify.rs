//! `stagegate attest verify` and `show`.

use std::path::PathBuf;

use clap::Args;
use git2::Oid;
use serde_json::{Value, json};

use crate::cli::printer::Printer;
use crate::cli::view::API_VERSION;
use crate::cli::{Exit, ground};
use crate::commits::base::Base;
use crate::commits::finding::plain;
use crate::commits::policy::TrustFor;
use crate::commits::proof::judge::Question;
use crate::commits::proof::{self, KeyId, Keyring, Lack, Source, Standing, Weighed, notes, question};
use crate::commits::repository::{Repository, short};
use crate::store::{Attestation, Store as _};

/// Attestations that are shown to people; all of them are judged.
const MOST_SHOWN: usize = 5;

/// Which commit, of which repository.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// The commit, as git understands it: a name or the beginning of one, a branch, a tag, HEAD~2
    commit: String,
    /// The repository's directory, bare or a clone [default: the one around the working directory]
    #[arg(long, value_name = "PATH")]
    repository: Option<PathBuf>,
}

impl Named {
    pub(super) fn find(&self) -> anyhow::Result<(Repository, Oid)> {
        let repository = match &self.repository {
            Some(directory) => Repository::open_at(directory)?,
            None => Repository::open()?,
        };
        let commit = repository.named_commit(&self.commit)?;
        Ok((repository, commit))
    }
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    named: Named,
    /// Look also into the notes below refs/notes/stagegate, as far as they are here (`git fetch origin
    /// refs/notes/stagegate:refs/notes/stagegate` fetches them)
    #[arg(long)]
    notes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Shown {
    #[command(flatten)]
    named: Named,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let Arguments { named, notes } = arguments;
    let (repository, commit) = named.find()?;
    let home = ground::look()?;
    let base = Base::of(&repository)?;
    if let Some(note) = &base.note {
        printer.note(note);
    }
    let question = question::about(&repository, &base, commit, TrustFor::Hooks)?;
    let ring = proof::keyring(&home, &base.policy)?;
    let (_, foreign) = question::native_runs(question::listed(&repository, &base)?);
    let noted = if *notes {
        let noted = notes::read(&repository, commit)?;
        if noted.is_empty()
            && let Some(bytes) = noted_bytes(&repository, commit)?
            && bytes > notes::MOST_BYTES
        {
            printer.note(&format!(
                "the note of commit {0} was not read: it has {bytes} bytes, and no more than {1} are read; `git notes --ref {2} \
                 remove {0}` takes it away here, and `stagegate attest note {0}` where the commit was proven makes a new one",
                short(commit),
                notes::MOST_BYTES,
                notes::REF,
            ));
        }
        noted
    } else {
        Vec::new()
    };
    let weighed = proof::weigh(&home, &ring, &question, noted)?;
    let found = Found {
        weighed,
        question,
        ring,
        base,
        again: again(&repository, commit, &foreign)?,
        looked: if *notes { Looked::InNotesToo } else { Looked::InStore },
        commit: short(commit),
    };
    printer.resource(&found.resource(), |p| found.tell(p))?;
    Ok(if found.proves() { Exit::Done } else { Exit::Refused })
}

/// How long the note is that a commit has, if it has one; it is not read for that.
fn noted_bytes(repository: &Repository, commit: Oid) -> anyhow::Result<Option<u64>> {
    let git = git2::Repository::open(repository.directory())?;
    let Ok(mut all) = git.notes(Some(notes::REF)) else {
        return Ok(None);
    };
    let noted = all.find_map(|one| one.ok().filter(|(_, about)| *about == commit));
    let Some((note, _)) = noted else { return Ok(None) };
    let (bytes, _) = git.odb()?.read_header(note)?;
    Ok(Some(bytes as u64))
}

/// Where proofs were looked for.
#[derive(Clone, Copy)]
enum Looked {
    InStore,
    InNotesToo,
}

struct Found {
    weighed: Vec<Weighed>,
    question: Question,
    ring: Keyring,
    base: Base,
    commit: String,
    /// Where proofs were looked for.
    looked: Looked,
    /// What looks at it once more and signs.
    again: String,
}

/// Hooks that no native rule stands for are run by the full run alone, and a first commit has no parent for a range to begin at.
fn again(repository: &Repository, commit: Oid, foreign: &[String]) -> anyhow::Result<String> {
    let name = short(commit);
    if !foreign.is_empty() {
        let hooks = foreign.join(", ");
        return Ok(format!(
            "`stagegate verdict run {name}` runs the hooks {hooks}, and signs"
        ));
    }
    let range = if repository.parents(commit)?.is_empty() {
        name
    } else {
        format!("{name}~..{name}")
    };
    Ok(format!(
        "`stagegate check --range {range} --attest` checks it again and signs"
    ))
}

impl Found {
    /// What proves comes first.
    fn proves(&self) -> bool {
        self.weighed.first().is_some_and(|first| first.judged.proves())
    }

    fn tell(&self, p: &Printer) -> anyhow::Result<()> {
        let Question { subject, policy, .. } = &self.question;
        let word = if self.proves() { "proven" } else { "not proven" };
        p.line(&format!(
            "{word}: commit {} of {}",
            subject.commit,
            plain(&subject.repository)
        ))?;
        p.line(&format!("  tree    {}", subject.tree))?;
        p.line(&format!("  policy  {policy}, {}", self.base.source))?;
        let shown = if self.proves() { 1 } else { MOST_SHOWN };
        for one in self.weighed.iter().take(shown) {
            self.tell_one(one, p)?;
        }
        let more = self.weighed.len().saturating_sub(shown);
        if more > 0 && !self.proves() {
            p.line(&format!("and {more} more, which prove nothing either"))?;
        }
        if self.weighed.is_empty() {
            p.line("  nothing is attested of it")?;
        }
        if !self.proves() {
            p.note(&self.remedy());
        }
        Ok(())
    }

    fn tell_one(&self, one: &Weighed, p: &Printer) -> anyhow::Result<()> {
        let place = match one.source {
            Source::Store => "stored here",
            Source::Note => "in a note",
        };
        let by = one
            .judged
            .key
            .map_or("nobody who is known".to_owned(), |key| self.key_in_words(&key));
        p.line(&format!("signed by {by}; {place}"))?;
        if let Some(verdict) = &one.judged.verdict {
            p.line(&format!(
                "  checked {} by {} {}",
                verdict.finished_at,
                plain(&verdict.engine.name),
                plain(&verdict.engine.version)
            ))?;
            let hooks: Vec<String> = verdict
                .hooks
                .iter()
                .map(|hook| plain(&format!("{} ({})", hook.id, hook.revision)))
                .collect();
            if !hooks.is_empty() {
                p.line(&format!("  hooks   {}", hooks.join(", ")))?;
            }
        }
        for lack in &one.judged.lacks {
            p.line(&format!("  but {lack}"))?;
        }
        Ok(())
    }

    fn key_in_words(&self, key: &KeyId) -> String {
        let short = key.short();
        match self.ring.get(key).map(|known| &known.standing) {
            Some(Standing::Active { since }) => format!("key {short} of this home, active since {since:.0}"),
            Some(Standing::Retired { at }) => format!("key {short} of this home, retired at {at}"),
            Some(Standing::Revoked { at, .. }) => format!("key {short} of this home, revoked at {at}"),
            Some(Standing::Trusted(what)) => {
                let words: Vec<&str> = what.iter().map(|what| what.word()).collect();
                format!("key {short}, which the policy trusts for {}", words.join(" and "))
            }
            None => format!("key {short}"),
        }
    }

    /// What to do next.
    fn remedy(&self) -> String {
        let Self { commit, again, .. } = self;
        let Some(first) = self.weighed.first() else {
            return match self.looked {
                Looked::InStore => format!("{again}; `--notes` looks also into the notes that were fetched"),
                Looked::InNotesToo => again.clone(),
            };
        };
        match first.judged.lacks.first() {
            Some(Lack::Failed(_)) => {
                format!("`stagegate verdict show {commit}` shows what is wrong; mend it in a new commit")
            }
            Some(Lack::Deferred(_)) => {
                format!("`stagegate verdict run {commit}` asks the tracker again and signs")
            }
            Some(Lack::Envelope(_) | Lack::NotTrusted { .. }) => {
                format!("{again}; or who owns the policy adds the key to `attest.trust`")
            }
            Some(
                Lack::Statement(_)
                | Lack::Revoked { .. }
                | Lack::Retired { .. }
                | Lack::Other { .. }
                | Lack::Policy { .. }
                | Lack::Hooks(_)
                | Lack::NotProven(_),
            )
            | None => again.clone(),
        }
    }

    fn resource(&self) -> Value {
        let Question {
            subject, policy, hooks, ..
        } = &self.question;
        let attestations: Vec<Value> = self.weighed.iter().map(|one| self.attestation(one)).collect();
        let hooks: Vec<Value> = hooks
            .iter()
            .map(|hook| json!({"id": hook.id, "revision": hook.revision}))
            .collect();
        json!({
            "apiVersion": API_VERSION,
            "kind": "AttestationReport",
            "metadata": {"name": subject.commit},
            "spec": {
                "repository": subject.repository,
                "commit": subject.commit,
                "tree": subject.tree,
                "policy": {"source": self.base.source, "digest": policy},
                "hooks": hooks,
            },
            "status": {
                "verdict": if self.proves() { "Proven" } else { "NotProven" },
                "remedy": (!self.proves()).then(|| self.remedy()),
                "attestations": attestations,
            },
        })
    }

    fn attestation(&self, one: &Weighed) -> Value {
        let lacks: Vec<Value> = one
            .judged
            .lacks
            .iter()
            .map(|lack| json!({"reason": lack.reason(), "message": lack.to_string()}))
            .collect();
        json!({
            "from": match one.source { Source::Store => "store", Source::Note => "note" },
            "proves": one.judged.proves(),
            "key": one.judged.key.map(|key| json!({"id": key.to_string(), "standing": self.key_in_words(&key)})),
            "lacks": lacks,
            "verdict": one.judged.verdict,
        })
    }
}

/// Of the repository that is asked about alone: a commit may be in several.
pub(super) fn stored(repository: &Repository, commit: Oid) -> anyhow::Result<Vec<Attestation>> {
    let base = Base::of(repository)?;
    let name = question::repository_name(repository, &base);
    let mut stored = ground::look()?.store().attestations(&commit.to_string())?;
    stored.retain(|one| one.repository == name);
    Ok(stored)
}

pub(super) fn show(arguments: &Shown, printer: &Printer) -> anyhow::Result<Exit> {
    let (repository, commit) = arguments.named.find()?;
    let stored = stored(&repository, commit)?;
    let items: Vec<Value> = stored
        .iter()
        .map(|one| {
            // As it is where it is no JSON: what is stored is shown, not judged.
            let envelope: Value = serde_json::from_str(&one.envelope).unwrap_or_else(|_| json!(one.envelope));
            json!({
                "apiVersion": API_VERSION,
                "kind": "Attestation",
                "metadata": {"name": one.commit},
                "spec": {"repository": one.repository, "envelope": envelope},
                "status": {"storedAt": one.stored_at},
            })
        })
        .collect();
    let list = json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "attestations"}, "items": items});
    printer.resource(&list, |p| {
        for one in &stored {
            p.line(&one.envelope)?;
        }
        if stored.is_empty() {
            p.note(&format!("nothing is stored of commit {}", short(commit)));
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

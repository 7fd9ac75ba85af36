//! Whether a signed verdict proves what is asked, by keys that count. Pure: an envelope is judged anew each time that it is
//! read, wherever it was kept.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::envelope::{Envelope, EnvelopeError, KeyId, PublicKey};
use super::statement::{self, StatementError};
use super::verdict::{Outcome, Passed, Subject, Verdict};
use crate::commits::finding::plain;
use crate::commits::policy::TrustFor;
use crate::commits::tracker::issues;
use crate::model::values::Digest;

/// How a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// One of this home that may sign.
    Active {
        /// Since when.
        since: Timestamp,
    },
    /// One of this home that signs no more; what it signed before holds.
    Retired {
        /// Since when it signs no more.
        at: Timestamp,
    },
    /// One of this home of which nothing counts, whenever it was signed.
    Revoked {
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// Another's, which the policy trusts for this.
    Trusted(Vec<TrustFor>),
}

/// A key whose signatures are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Itself.
    pub public: PublicKey,
    /// How it stands.
    pub standing: Standing,
}

/// The keys that are known: this home's, and those that a policy trusts.
#[derive(Debug, Clone, Default)]
pub struct Keyring(BTreeMap<KeyId, KnownKey>);

impl Keyring {
    /// Adds one of this home. What the home says of it comes before what a policy says: a key that was revoked here is not
    /// made good by a policy that has not heard of it.
    pub fn add_own(&mut self, public: PublicKey, standing: Standing) {
        self.0.insert(public.id(), KnownKey { public, standing });
    }

    /// Adds one that a policy trusts.
    pub fn add_trusted(&mut self, public: PublicKey, what: &[TrustFor]) {
        let standing = Standing::Trusted(what.to_vec());
        self.0.entry(public.id()).or_insert(KnownKey { public, standing });
    }

    /// A key by its name.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&KnownKey> {
        self.0.get(id)
    }
}

/// A hook that must have run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredHook {
    /// Its id.
    pub id: String,
    /// As [`super::HookRun::revision`] has it.
    pub revision: String,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Question {
    /// The commit, as it is in the repository.
    pub subject: Subject,
    /// The policy that holds now.
    pub policy: Digest,
    /// The hooks that are mandatory now.
    pub hooks: Vec<RequiredHook>,
    /// What a key of another must be trusted for.
    pub trust: TrustFor,
}

/// What an attestation lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// It is not signed as it should be.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// What is signed is not ours.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Its key counts no more.
    #[error("key {} was revoked at {at}: {reason}; nothing that it signed counts", key.short())]
    Revoked {
        /// Which.
        key: KeyId,
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// Its key had ceased to sign.
    #[error("key {} was retired at {at}, before this was signed", key.short())]
    Retired {
        /// Which.
        key: KeyId,
        /// When.
        at: Timestamp,
    },
    /// Its key is trusted for something else.
    #[error("the policy does not trust key {} for `{}`", key.short(), what.word())]
    NotTrusted {
        /// Which.
        key: KeyId,
        /// For what.
        what: TrustFor,
    },
    /// It is about something else.
    #[error("it is about {what} {said}, and this is {here}")]
    Other {
        /// What differs.
        what: &'static str,
        /// As it says.
        said: String,
        /// As it is.
        here: String,
    },
    /// It was checked by another policy.
    #[error("it was checked by the policy {said}, and the protected branch's is {now} now")]
    Policy {
        /// By which.
        said: Digest,
        /// Which holds now.
        now: Digest,
    },
    /// Hooks of today did not run.
    #[error("these hooks did not run: {}", .0.join(", "))]
    Hooks(Vec<String>),
    /// Something refused.
    #[error("the check refused it (findings: {0})")]
    Failed(usize),
    /// Issues could not be looked up, and were put off.
    #[error("these issues could not be looked up, and still have to be: {}", .0.join(", "))]
    Deferred(Vec<String>),
    /// It proves nothing by its own words.
    #[error("the check could not be made: {0}")]
    NotProven(String),
}

impl Lack {
    /// One word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Lack::Envelope(EnvelopeError::UnknownKey(_)) => "KeyUnknown",
            Lack::Envelope(_) => "NotSigned",
            Lack::Statement(_) => "NotUnderstood",
            Lack::Revoked { .. } => "KeyRevoked",
            Lack::Retired { .. } => "KeyRetired",
            Lack::NotTrusted { .. } => "KeyNotTrusted",
            Lack::Other { .. } => "OtherSubject",
            Lack::Policy { .. } => "OtherPolicy",
            Lack::Hooks(_) => "HooksMissing",
            Lack::Failed(_) => "HooksFailed",
            Lack::Deferred(_) => "IssuesDeferred",
            Lack::NotProven(_) => "NotProven",
        }
    }
}

/// An attestation, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What was signed; only where it was signed by a key that is known.
    pub verdict: Option<Verdict>,
    /// By whom: of several the first that counts.
    pub key: Option<KeyId>,
    /// Everything that it lacks. It proves what was asked when there is nothing.
    pub lacks: Vec<Lack>,
}

impl Judged {
    /// Whether it proves what was asked.
    #[must_use]
    pub fn proves(&self) -> bool {
        self.lacks.is_empty()
    }

    fn nothing(lack: Lack) -> Self {
        Self {
            verdict: None,
            key: None,
            lacks: vec![lack],
        }
    }
}

/// Judges one envelope.
#[must_use]
pub fn judge(envelope: &[u8], ring: &Keyring, question: &Question) -> Judged {
    let opened = Envelope::read(envelope).and_then(|envelope| {
        let signers = envelope.signers(ring.0.values().map(|known| &known.public))?;
        Ok((envelope, signers))
    });
    let (envelope, signers) = match opened {
        Ok(opened) => opened,
        Err(why) => return Judged::nothing(why.into()),
    };
    let verdict = match statement::read(envelope.payload()) {
        Ok(verdict) => verdict,
        Err(why) => return Judged::nothing(why.into()),
    };
    let mut refusals = Vec::new();
    let mut good = None;
    for id in &signers {
        match ring
            .get(id)
            .and_then(|known| why_not(*id, &known.standing, &verdict, question.trust))
        {
            None => {
                good = Some(*id);
                break;
            }
            Some(why) => refusals.push(why),
        }
    }
    // One that counts is enough, whatever the others are.
    let mut lacks = if good.is_some() { Vec::new() } else { refusals };
    lacks.extend(what_is_missing(&verdict, question));
    Judged {
        key: good.or_else(|| signers.first().copied()),
        verdict: Some(verdict),
        lacks,
    }
}

/// Why a key's signature does not count.
fn why_not(key: KeyId, standing: &Standing, verdict: &Verdict, what: TrustFor) -> Option<Lack> {
    match standing {
        Standing::Active { .. } => None,
        Standing::Retired { at } if verdict.finished_at <= *at => None,
        Standing::Retired { at } => Some(Lack::Retired { key, at: *at }),
        Standing::Revoked { at, reason } => Some(Lack::Revoked {
            key,
            at: *at,
            reason: plain(reason),
        }),
        Standing::Trusted(trusted) if trusted.contains(&what) => None,
        Standing::Trusted(_) => Some(Lack::NotTrusted { key, what }),
    }
}

fn what_is_missing(verdict: &Verdict, question: &Question) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let (said, here) = (&verdict.subject, &question.subject);
    let names = [
        ("repository", &said.repository, &here.repository),
        ("commit", &said.commit, &here.commit),
        ("tree", &said.tree, &here.tree),
    ];
    for (what, said, here) in names {
        if said != here {
            lacks.push(Lack::Other {
                what,
                said: plain(said),
                here: plain(here),
            });
        }
    }
    if verdict.policy != question.policy {
        lacks.push(Lack::Policy {
            said: verdict.policy,
            now: question.policy,
        });
    }
    match &verdict.outcome {
        Outcome::Passed => {}
        Outcome::Failed => lacks.push(Lack::Failed(verdict.findings.len())),
        Outcome::NotProven { why } => lacks.push(Lack::NotProven(plain(why))),
    }
    let deferred: Vec<String> = issues::open(&verdict.issues)
        .map(|check| plain(&check.keys.join(" or ")))
        .collect();
    if verdict.outcome == Outcome::Passed && !deferred.is_empty() {
        lacks.push(Lack::Deferred(deferred));
    }
    let ran = |hook: &RequiredHook| {
        let mut runs = verdict.hooks.iter();
        runs.any(|run| run.id == hook.id && run.revision == hook.revision && run.passed == Passed::Yes)
    };
    let missing = question.hooks.iter().filter(|hook| !ran(hook));
    let missing: Vec<String> = missing
        .map(|hook| plain(&format!("{} ({})", hook.id, hook.revision)))
        .collect();
    if verdict.outcome == Outcome::Passed && !missing.is_empty() {
        lacks.push(Lack::Hooks(missing));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::proof::tests::{pair, verdict};
    use crate::commits::tracker::{Issue, IssueCheck, IssueResult};

    fn question() -> Question {
        let Verdict { subject, policy, .. } = verdict();
        Question {
            subject,
            policy,
            hooks: vec![RequiredHook {
                id: "ruff".to_owned(),
                revision: "v1".to_owned(),
            }],
            trust: TrustFor::Hooks,
        }
    }

    fn signed(seed: u8, verdict: &Verdict) -> Envelope {
        let (pair, public) = pair(seed);
        Envelope::sign(statement::write(verdict).expect("written"), &pair, &public)
    }

    fn unasked() -> IssueCheck {
        IssueCheck {
            commit: "c".to_owned(),
            keys: vec!["ABC-1".to_owned()],
            result: IssueResult::Unavailable {
                why: "it is down".to_owned(),
            },
        }
    }

    fn right() -> IssueCheck {
        let issue = Issue::new("ABC-1", "ABC", "Bug", "Open", Timestamp::UNIX_EPOCH);
        IssueCheck {
            result: IssueResult::Right { issue },
            ..unasked()
        }
    }

    fn own(seed: u8, standing: Standing) -> Keyring {
        let mut ring = Keyring::default();
        ring.add_own(pair(seed).1, standing);
        ring
    }

    fn active() -> Standing {
        Standing::Active {
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn revoked() -> Standing {
        Standing::Revoked {
            at: Timestamp::UNIX_EPOCH,
            reason: "stolen".to_owned(),
        }
    }

    fn reasons(envelope: &Envelope, ring: &Keyring, question: &Question) -> Vec<&'static str> {
        let judged = judge(envelope.to_string().as_bytes(), ring, question);
        judged.lacks.iter().map(Lack::reason).collect()
    }

    #[test]
    fn a_verdict_proves_its_own_commit_by_its_own_policy() {
        let judged = judge(
            signed(1, &verdict()).to_string().as_bytes(),
            &own(1, active()),
            &question(),
        );
        assert!(judged.proves(), "{:?}", judged.lacks);
        assert_eq!((judged.key, judged.verdict), (Some(pair(1).1.id()), Some(verdict())));
    }

    #[test]
    fn everything_that_differs_is_a_lack() {
        type Change = fn(&mut Question, &mut Verdict);
        let rows: [(&[&str], Change); 11] = [
            (&["OtherSubject"], |q, _| q.subject.repository = "other".to_owned()),
            (&["OtherSubject"], |q, _| q.subject.commit = "3".repeat(40)),
            (&["OtherSubject"], |q, _| q.subject.tree = "3".repeat(40)),
            (&["OtherPolicy"], |q, _| q.policy = Digest::of(b"other")),
            (&["HooksMissing"], |q, _| q.hooks[0].revision = "v2".to_owned()),
            (&["HooksMissing"], |q, _| q.hooks[0].id = "mypy".to_owned()),
            (&["HooksFailed"], |_, v| v.outcome = Outcome::Failed),
            (&["NotProven"], |_, v| {
                v.outcome = Outcome::NotProven {
                    why: "no sandbox".to_owned(),
                }
            }),
            (&["IssuesDeferred"], |_, v| v.issues = vec![unasked(), right()]),
            (&[], |_, v| v.issues = vec![right()]),
            (&["OtherSubject", "OtherPolicy", "HooksFailed"], |q, v| {
                q.subject.commit = "3".repeat(40);
                q.policy = Digest::of(b"other");
                v.outcome = Outcome::Failed;
            }),
        ];
        for (expected, change) in rows {
            let (mut question, mut verdict) = (question(), verdict());
            change(&mut question, &mut verdict);
            assert_eq!(reasons(&signed(1, &verdict), &own(1, active()), &question), expected);
        }
    }

    #[test]
    fn a_key_counts_as_it_stands() {
        let envelope = signed(1, &verdict());
        let (before, at, after) = (
            verdict().finished_at - jiff::SignedDuration::from_secs(1),
            verdict().finished_at,
            verdict().finished_at + jiff::SignedDuration::from_secs(1),
        );
        let trusted = |what: &[TrustFor]| Standing::Trusted(what.to_vec());
        for (standing, expected) in [
            (active(), None),
            (Standing::Retired { at: after }, None),
            (Standing::Retired { at }, None),
            (Standing::Retired { at: before }, Some("KeyRetired")),
            (revoked(), Some("KeyRevoked")),
            (trusted(&[TrustFor::Hooks]), None),
            (trusted(&[TrustFor::Content]), Some("KeyNotTrusted")),
            (trusted(&[]), Some("KeyNotTrusted")),
        ] {
            let found = reasons(&envelope, &own(1, standing.clone()), &question());
            assert_eq!(found, Vec::from_iter(expected), "{standing:?}");
        }
        assert_eq!(reasons(&envelope, &own(2, active()), &question()), ["KeyUnknown"]);
        assert_eq!(reasons(&envelope, &Keyring::default(), &question()), ["KeyUnknown"]);
    }

    #[test]
    fn a_revoked_key_does_not_spoil_another_and_is_not_made_good_by_a_policy() {
        let mut envelope = signed(1, &verdict());
        envelope.add_signature(&pair(2).0, &pair(2).1);
        let mut ring = own(1, revoked());
        ring.add_trusted(pair(1).1, &[TrustFor::Hooks]);
        assert_eq!(reasons(&envelope, &ring, &question()), ["KeyRevoked"]);
        ring.add_own(pair(2).1, active());
        let judged = judge(envelope.to_string().as_bytes(), &ring, &question());
        assert!(judged.proves(), "{:?}", judged.lacks);
        assert_eq!(judged.key, Some(pair(2).1.id()));
    }

    #[test]
    fn what_is_signed_and_is_no_statement_is_not_understood() {
        let (pair, public) = pair(1);
        let envelope = Envelope::sign(b"{}".to_vec(), &pair, &public);
        assert_eq!(reasons(&envelope, &own(1, active()), &question()), ["NotUnderstood"]);
    }
}

//! What was proven of a commit, and by whom.
//!
//! A [`Verdict`] becomes an in-toto [`statement`], which is signed into an [`envelope`] by one of this home's [`keys`] and kept
//! in the store, or in a note of the repository. Wherever it is read from, [`judge`] opens it anew and compares it with what has
//! to be proven now ([`question`]): nothing counts because it is stored.

pub mod envelope;
pub mod judge;
pub mod keys;
pub mod notes;
pub mod question;
pub mod statement;
pub mod verdict;

use jiff::Timestamp;

pub use envelope::{Envelope, KeyId};
pub use judge::{Judged, Keyring, Lack, Question, Standing, judge};
pub use keys::{KeyError, Keys, Signer};
pub use verdict::{Blame, Engine, HookRun, Outcome, Passed, Since, Subject, Verdict};

use self::statement::StatementError;
use super::policy::Policy;
use crate::home::Home;
use crate::store::{Attestation, Store as _, StoreError};

/// Why a verdict was not signed and kept.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// No key can sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It could not be read back.
    #[error("a verdict cannot be signed: {0}")]
    Statement(#[from] StatementError),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// This program, as verdicts name it.
#[must_use]
pub fn engine() -> Engine {
    Engine {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Signs a verdict by this home's active key, and keeps it. A verdict that is no pass is signed as well: it says so itself.
///
/// # Errors
/// There is no key that may sign, or the state cannot be written.
pub fn attest(home: &Home, verdict: &Verdict, now: Timestamp) -> Result<(Envelope, KeyId), AttestError> {
    let signer = Keys::of(home).signer()?;
    let envelope = signer.sign(statement::write(verdict)?);
    let Subject { repository, commit, .. } = &verdict.subject;
    home.store().put_attestation(&Attestation {
        repository: repository.clone(),
        commit: commit.clone(),
        envelope: envelope.to_string(),
        stored_at: now,
    })?;
    Ok((envelope, signer.id()))
}

/// The same for a home that may have no key, which proves nothing and checks all the same; the key that has signed.
///
/// # Errors
/// There is a key and it cannot sign, or the state cannot be written.
pub fn attest_where_there_is_a_key(home: &Home, verdict: &Verdict) -> Result<Option<KeyId>, AttestError> {
    match attest(home, verdict, Timestamp::now()) {
        Ok((_, key)) => Ok(Some(key)),
        Err(AttestError::Key(KeyError::None)) => Ok(None),
        Err(why) => Err(why),
    }
}

/// The keys that count: this home's, and those that the policy trusts.
///
/// # Errors
/// The state cannot be read.
pub fn keyring(home: &Home, policy: &Policy) -> Result<Keyring, KeyError> {
    let mut ring = Keyring::default();
    for key in Keys::of(home).all()? {
        ring.add_own(key.public, key.standing);
    }
    for (key, what) in &policy.trusted {
        ring.add_trusted(*key, what);
    }
    Ok(ring)
}

/// Where an attestation was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In this home's store.
    Store,
    /// In a note of the repository.
    Note,
}

/// An attestation that was found, judged now.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighed {
    /// Where.
    pub source: Source,
    /// As it is written.
    pub envelope: String,
    /// What it comes to.
    pub judged: Judged,
}

/// Judges what this home has stored of a commit, and what notes say of it. What proves comes first, then the newest.
///
/// # Errors
/// The state cannot be read.
pub fn weigh(home: &Home, ring: &Keyring, question: &Question, noted: Vec<String>) -> Result<Vec<Weighed>, StoreError> {
    let stored = home.store().attestations(&question.subject.commit)?;
    let stored = stored.into_iter().rev().map(|kept| (Source::Store, kept.envelope));
    let noted = noted.into_iter().rev().map(|line| (Source::Note, line));
    let mut seen = std::collections::HashSet::new();
    let mut weighed: Vec<Weighed> = stored
        .chain(noted)
        .filter(|(_, envelope)| seen.insert(envelope.clone()))
        .map(|(source, envelope)| Weighed {
            judged: judge(envelope.as_bytes(), ring, question),
            source,
            envelope,
        })
        .collect();
    weighed.sort_by_key(|one| !one.judged.proves());
    Ok(weighed)
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::envelope::PublicKey;
    use super::*;
    use crate::model::values::Digest;

    /// A key that is the same in every run.
    pub(crate) fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        let public = pair.public_key().as_ref().try_into().expect("32 bytes");
        (pair, PublicKey::from_bytes(public))
    }

    /// One that passed.
    pub(crate) fn verdict() -> Verdict {
        Verdict {
            subject: Subject {
                repository: "https://git.example.org/server.git".to_owned(),
                commit: "1".repeat(40),
                tree: "2".repeat(40),
            },
            policy: Digest::of(b""),
            engine: Engine {
                name: "stagegate".to_owned(),
                version: "0.1.0".to_owned(),
            },
            hooks: vec![HookRun {
                id: "ruff".to_owned(),
                revision: "v1".to_owned(),
                native: false,
                passed: Passed::Yes,
            }],
            outcome: Outcome::Passed,
            findings: Vec::new(),
            issues: Vec::new(),
            blames: Vec::new(),
            started_at: "2026-11-01T10:00:00Z".parse().expect("a time"),
            finished_at: "2026-11-01T10:00:07Z".parse().expect("a time"),
        }
    }

    /// The store is a file that somebody may have written into.
    #[test]
    fn what_is_stored_is_verified_again_when_it_is_read() {
        let home = Home::look(std::path::Path::new("/nowhere/at/all")).expect("one in memory");
        let question = Question {
            subject: verdict().subject,
            policy: verdict().policy,
            hooks: Vec::new(),
            trust: crate::commits::policy::TrustFor::Hooks,
        };
        let mut ring = Keyring::default();
        let since = Timestamp::UNIX_EPOCH;
        ring.add_own(pair(1).1, Standing::Active { since });
        let weighed = |noted: &[String]| weigh(&home, &ring, &question, noted.to_vec()).expect("weighed");
        assert_eq!(weighed(&[]), []);
        let signed = |seed: u8| {
            let (pair, public) = pair(seed);
            Envelope::sign(statement::write(&verdict()).expect("written"), &pair, &public).to_string()
        };
        let put = |envelope: String| {
            let Subject { repository, commit, .. } = verdict().subject;
            let attestation = Attestation {
                repository,
                commit,
                envelope,
                stored_at: since,
            };
            home.store().put_attestation(&attestation).expect("stored");
        };
        put(signed(2));
        put(signed(1).replace("\"payload\":\"ey", "\"payload\":\"fy"));
        assert_eq!(weighed(&[]).len(), 2);
        assert!(!weighed(&[])[0].judged.proves());
        let noted = weighed(&[signed(1), "{".to_owned()]);
        assert_eq!(
            (noted.len(), noted[0].source, noted[0].judged.proves()),
            (4, Source::Note, true)
        );
        put(signed(1));
        let stored = weighed(&[signed(1)]);
        assert_eq!(
            (stored.len(), stored[0].source, stored[0].judged.proves()),
            (3, Source::Store, true)
        );
    }
}

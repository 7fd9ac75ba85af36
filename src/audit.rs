//! What was decided, by whom, when, why and on which evidence: records in a chain, each with the hash of the one before, so that none
//! can be changed, taken out or put between without every later hash being another. Pure.
//!
//! That nothing was cut off at its end cannot be seen from a chain. Its [`Head`], how many records it has and the hash of the last, is
//! told with reports and kept elsewhere: [`Verifier`] finds a chain that does not lead there.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::values::{Digest, ValueError};

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Act {
    /// When.
    pub at: Timestamp,
    /// By whom: a user, the principal of a key with `key:` before it, or `stagegate`.
    pub who: String,
    /// What, in one word (`Promoted`, `Approved`, `FreezeLifted`).
    pub what: String,
    /// Of what: a kind and a name, as `Promotion/web-2-k3x9`.
    pub of: String,
    /// The environment that it is about; empty where it is about none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// On which evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Digest>,
}

/// An act in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its place, from 1 on, without gaps.
    pub seq: u64,
    /// The act, as it was written: its hash is over this text.
    pub act: String,
    /// The hash of this record: SHA-256 over the place, the hash of the record before, and the act, a line each.
    pub hash: Digest,
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many records there are.
    pub count: u64,
    /// The hash of the last one.
    pub hash: Digest,
}

/// Why a chain is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A record is missing, or there twice.
    #[error("record {expected} is not there: record {found} stands in its place")]
    Gap {
        /// The place.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// A record is not the one that was written.
    #[error(
        "record {seq} is not as it was written, or one before it is not: its hash is {found}, and it would have to be {expected}"
    )]
    Changed {
        /// The record.
        seq: u64,
        /// Its hash.
        found: Digest,
        /// What its hash would be.
        expected: Digest,
    },
    /// The end is missing.
    #[error("{} records are missing at its end: it has {count}, and the head that was kept says {kept}", kept - count)]
    Cut {
        /// How many there are.
        count: u64,
        /// How many there were.
        kept: u64,
    },
    /// It is another chain.
    #[error(
        "record {count} has the hash {found}, and the head that was kept says {kept}: what stands before it was written anew"
    )]
    Rewritten {
        /// The record.
        count: u64,
        /// Its hash.
        found: Digest,
        /// The hash that was kept.
        kept: Digest,
    },
}

impl Head {
    /// Of a chain without records.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            count: 0,
            hash: Digest::of(b"stagegate audit 1"),
        }
    }

    /// The record that comes after it.
    #[must_use]
    pub fn next(&self, act: String) -> Record {
        let seq = self.count + 1;
        Record {
            seq,
            hash: hash(seq, &self.hash, &act),
            act,
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.count, self.hash)
    }
}

impl FromStr for Head {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parts = text.split_once(':');
        let head = parts.and_then(|(count, hash)| {
            Some(Self {
                count: count.parse().ok()?,
                hash: hash.parse().ok()?,
            })
        });
        head.ok_or_else(|| ValueError::Head(text.to_owned()))
    }
}

fn hash(seq: u64, before: &Digest, act: &str) -> Digest {
    Digest::of(format!("{seq}\n{before}\n{act}\n").as_bytes())
}

/// Follows a chain, record by record.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Head,
    kept: Option<Head>,
}

impl Verifier {
    /// From its beginning; `kept` is a head that was kept elsewhere.
    #[must_use]
    pub fn new(kept: Option<Head>) -> Self {
        Self {
            head: Head::empty(),
            kept,
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// It is not the next one, or not as it was written.
    pub fn take(&mut self, record: &Record) -> Result<(), Broken> {
        let expected = self.head.count + 1;
        if record.seq != expected {
            return Err(Broken::Gap {
                expected,
                found: record.seq,
            });
        }
        let would_be = hash(record.seq, &self.head.hash, &record.act);
        if record.hash != would_be {
            return Err(Broken::Changed {
                seq: record.seq,
                found: record.hash,
                expected: would_be,
            });
        }
        self.head = Head {
            count: record.seq,
            hash: record.hash,
        };
        match self.kept {
            Some(kept) if kept.count == self.head.count && kept.hash != self.head.hash => Err(Broken::Rewritten {
                count: kept.count,
                found: self.head.hash,
                kept: kept.hash,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Where it ends.
    ///
    /// # Errors
    /// It ends before the head that was kept.
    pub fn end(self) -> Result<Head, Broken> {
        match self.kept {
            Some(kept) if kept.count > self.head.count => Err(Broken::Cut {
                count: self.head.count,
                kept: kept.count,
            }),
            Some(_) | None => Ok(self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(acts: &[String]) -> Vec<Record> {
        let mut head = Head::empty();
        let mut records = Vec::new();
        for act in acts {
            let record = head.next(act.clone());
            head = Head {
                count: record.seq,
                hash: record.hash,
            };
            records.push(record);
        }
        records
    }

    fn verified(records: &[Record], kept: Option<Head>) -> Result<Head, Broken> {
        let mut verifier = Verifier::new(kept);
        for record in records {
            verifier.take(record)?;
        }
        verifier.end()
    }

    proptest! {
        /// Whatever is done to a chain is found, if only the hashes of what follows are not written anew; and then the head tells.
        #[test]
        fn what_is_done_to_a_chain_is_found(
            acts in prop::collection::vec("[a-z]{0,8}", 1..12),
            at in any::<prop::sample::Index>(),
            deed in 0..4_u8,
        ) {
            let whole = chain(&acts);
            let head = verified(&whole, None).expect("it is whole");
            prop_assert_eq!(verified(&whole, Some(head)), Ok(head));
            let at = at.index(acts.len());
            let mut other = whole.clone();
            let mut anew = acts.clone();
            match deed {
                0 => {
                    other[at].act.push('!');
                    anew[at].push('!');
                }
                1 => {
                    other.remove(at);
                    anew.remove(at);
                }
                2 => {
                    other.insert(at, whole[at].clone());
                    anew.insert(at, acts[at].clone());
                }
                _ => {
                    other.truncate(at);
                    anew.truncate(at);
                }
            }
            prop_assert!(verified(&other, Some(head)).is_err());
            // Each hash written anew: without what was kept nobody could tell. One more of the same at the end leads there still.
            let anew = chain(&anew);
            prop_assert!(verified(&anew, None).is_ok());
            let is_longer_only = anew.len() > whole.len() && anew[..whole.len()] == whole[..];
            prop_assert_eq!(verified(&anew, Some(head)).is_ok(), is_longer_only);
        }
    }

    #[test]
    fn a_head_is_written_and_read() {
        let head = verified(&chain(&["a".to_owned(), "b".to_owned()]), None).expect("it is whole");
        assert_eq!(head.to_string().parse(), Ok(head));
        for text in ["", "2", "2:", "x:sha256:00", "2:sha256:zz"] {
            assert_eq!(text.parse::<Head>(), Err(ValueError::Head(text.to_owned())), "{text}");
        }
    }
}

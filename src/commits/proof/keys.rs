//! This home's keys. The private half is a file below the state directory, PKCS#8, for its owner alone; it is never in the
//! database, which is what is backed up and handed around. The public half and how the key stands are in the database, as a
//! resource: who may prove what, since when and until when, belongs with the proofs, must be as durable as they are, and must
//! not be lost or put back on its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::envelope::{Envelope, KeyId, PublicKey};
use super::judge::Standing;
use crate::commits::finding::plain;
use crate::home::{Home, make_private};
use crate::store::{Expect, Resource, Store as _, StoreError};

/// The kind of the resource that has the public half and the standing.
pub const KIND: &str = "AttestationKey";
/// An ed25519 key in PKCS#8 has 83 bytes.
const MOST_KEY_BYTES: u64 = 1024;
/// Fewer digits of a name would soon be ambiguous, or a typing error.
const LEAST_DIGITS: usize = 8;
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Why a key cannot be had, or not be changed. The words never hold a private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or directory cannot be made or removed.
    #[error("cannot {tried} {path}: {source}; mend that, and run the same command again", path = path.display())]
    File {
        /// What was tried.
        tried: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The private half cannot be read.
    #[error(
        "cannot {tried} {path}: {source}; if it is lost, `stagegate attest key rotate` makes a new key in its place, and what the \
         lost one signed still counts",
        path = path.display()
    )]
    Unread {
        /// What was tried.
        tried: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two commands at once would leave two keys that sign.
    #[error(
        "another process is changing the keys of this home just now, and nothing was changed; see what came of it with \
         `stagegate attest key list`"
    )]
    Busy,
    /// Others may have read it.
    #[error(
        "the private key {path} is open to others (mode {mode:03o}) and was not used; if nobody else can have read it, run \
         `chmod 600 {path}`, else `stagegate attest key revoke {id} --reason …` and `stagegate attest key create`",
        path = path.display()
    )]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The key.
        id: KeyId,
    },
    /// Somebody else could change it.
    #[error("the private key {path} belongs to user {owner} and was not used; it must belong to who signs", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The owner's number.
        owner: u32,
    },
    /// It is no key, or another one.
    #[error(
        "the private key {path} is not the key {id} ({why}); put the right file back, or retire it by `stagegate attest key \
         rotate`", path = path.display()
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The key that it should be.
        id: KeyId,
        /// How that shows.
        why: String,
    },
    /// No key may sign.
    #[error("this home has no key that may sign; `stagegate attest key create` makes one")]
    None,
    /// Nothing to rotate.
    #[error("there is an active key already, {0}; `stagegate attest key rotate` replaces it")]
    Exists(KeyId),
    /// No such key.
    #[error(
        "this home has no key `{0}`; `stagegate attest key list` shows those that it has (the first 8 digits are enough)"
    )]
    Unknown(String),
    /// More than one.
    #[error("`{0}` begins the names of several keys; write more of it")]
    Ambiguous(String),
    /// It is so already.
    #[error("key {} is revoked already, since {at}: {}", id.short(), plain(reason))]
    Revoked {
        /// The key.
        id: KeyId,
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// The random source or the library failed.
    #[error("cannot make a key: {0}")]
    Make(&'static str),
}

/// A key of this home, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnKey {
    /// Its public half.
    pub public: PublicKey,
    /// How it stands.
    pub standing: Standing,
    /// When it was made.
    pub since: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    public_key: String,
}

/// A key without any of these is active.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The keys of a home.
#[derive(Debug)]
pub struct Keys<'a> {
    home: &'a Home,
}

impl<'a> Keys<'a> {
    /// Of this home.
    #[must_use]
    pub fn of(home: &'a Home) -> Self {
        Self { home }
    }

    /// All of them, the oldest first.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn all(&self) -> Result<Vec<OwnKey>, KeyError> {
        let resources = self.home.store().resources(KIND)?;
        let mut keys = resources.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        keys.sort_by_key(|key| (key.since, key.public.id()));
        Ok(keys)
    }

    /// Makes the first key, or the next after the last was revoked.
    ///
    /// # Errors
    /// One is active already, or none can be made.
    pub fn create(&self, now: Timestamp) -> Result<OwnKey, KeyError> {
        let _alone = self.alone()?;
        if let Some(active) = self.active()? {
            return Err(KeyError::Exists(active.public.id()));
        }
        self.make(now)
    }

    /// Replaces the active key. Killed in the middle there are two active ones, of which the newer signs.
    ///
    /// # Errors
    /// No new one can be made; the old one stays.
    pub fn rotate(&self, now: Timestamp) -> Result<OwnKey, KeyError> {
        let _alone = self.alone()?;
        let before = self.all()?;
        let new = self.make(now)?;
        for old in before {
            if let Standing::Active { .. } = old.standing {
                let id = old.public.id();
                self.put_status(
                    &id,
                    &Status {
                        retired_at: Some(now),
                        ..Status::default()
                    },
                    now,
                )?;
                self.delete_private(&id)?;
            }
        }
        Ok(new)
    }

    /// Ends a key: nothing that it ever signed counts from now on.
    ///
    /// # Errors
    /// There is no such key, or it is revoked already.
    pub fn revoke(&self, name: &str, reason: &str, now: Timestamp) -> Result<OwnKey, KeyError> {
        let _alone = self.alone()?;
        let key = self.find(name)?;
        let id = key.public.id();
        let retired_at = match key.standing {
            Standing::Revoked { at, reason } => return Err(KeyError::Revoked { id, at, reason }),
            Standing::Retired { at } => Some(at),
            Standing::Active { .. } | Standing::Trusted(_) => None,
        };
        let status = Status {
            retired_at,
            revoked_at: Some(now),
            reason: Some(reason.to_owned()),
        };
        // First the word that counts, then the file.
        self.put_status(&id, &status, now)?;
        self.delete_private(&id)?;
        self.find(&id.to_string())
    }

    /// A key by its name, or by the first digits of it.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(&self, name: &str) -> Result<OwnKey, KeyError> {
        let all = self.all()?;
        let long_enough = name.len() >= LEAST_DIGITS;
        let mut found = all
            .into_iter()
            .filter(|key| long_enough && key.public.id().to_string().starts_with(name));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(KeyError::Ambiguous(name.to_owned())),
            (None, _) => Err(KeyError::Unknown(name.to_owned())),
        }
    }

    /// What signs: the active key, with its private half in memory.
    ///
    /// # Errors
    /// There is none, or its file is not as it must be.
    pub fn signer(&self) -> Result<Signer, KeyError> {
        let public = self.active()?.ok_or(KeyError::None)?.public;
        Ok(Signer {
            pair: self.read_private(&public)?,
            public,
        })
    }

    /// Nobody else changes keys for as long as the file is open. Who finds it taken is told so rather than made to wait: whoever
    /// has it may have been stopped in the middle, and what it does decides what is left to do.
    fn alone(&self) -> Result<File, KeyError> {
        let directory = self.home.keys();
        let failed = |tried| file_error(tried, directory.clone());
        make_private(&directory).map_err(failed("make the directory"))?;
        let open = File::open(&directory).map_err(failed("open the directory"))?;
        match rustix::fs::flock(&open, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(open),
            Err(Errno::WOULDBLOCK) => Err(KeyError::Busy),
            Err(why) => Err(failed("lock the directory")(why.into())),
        }
    }

    fn active(&self) -> Result<Option<OwnKey>, KeyError> {
        let all = self.all()?.into_iter().rev();
        Ok(all
            .into_iter()
            .find(|key| matches!(key.standing, Standing::Active { .. })))
    }

    fn make(&self, now: Timestamp) -> Result<OwnKey, KeyError> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let private = made.map_err(|_| KeyError::Make("the system gives no random bytes"))?;
        let pair =
            Ed25519KeyPair::from_pkcs8(private.as_ref()).map_err(|_| KeyError::Make("ring does not read its own"))?;
        let public = public_of(&pair)?;
        let id = public.id();
        if let Err(why) = self.write_private(&id, private.as_ref()) {
            // Half a key is none; the first error is the one to tell.
            let _ = self.delete_private(&id);
            return Err(why);
        }
        // The file comes first: a key that is listed can sign.
        let spec = json!(Spec {
            public_key: public.to_string()
        });
        let store = self.home.store();
        if let Err(why) = store.put_resource(KIND, &id.to_string(), &spec, Expect::Absent, now) {
            // A key that nobody knows of is of no use; the first error is the one to tell.
            let _ = self.delete_private(&id);
            return Err(why.into());
        }
        self.find(&id.to_string())
    }

    fn put_status(&self, id: &KeyId, status: &Status, now: Timestamp) -> Result<(), KeyError> {
        let store = self.home.store();
        store.put_status(KIND, &id.to_string(), &json!(status), Expect::Anything, now)?;
        Ok(())
    }

    fn path(&self, id: &KeyId) -> PathBuf {
        self.home.keys().join(format!("{id}.pkcs8"))
    }

    fn write_private(&self, id: &KeyId, private: &[u8]) -> Result<(), KeyError> {
        let path = self.path(id);
        let failed = |tried| file_error(tried, path.clone());
        // Nobody has the name already, and nobody could open it between its making and its closing to others.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = opened.map_err(failed("make"))?;
        file.write_all(private)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(self.home.keys())?.sync_all())
            .map_err(failed("write"))
    }

    fn read_private(&self, public: &PublicKey) -> Result<Ed25519KeyPair, KeyError> {
        let id = public.id();
        let path = self.path(&id);
        let failed = |tried| {
            let path = path.clone();
            move |source| KeyError::Unread { tried, path, source }
        };
        // A link could lead to a file that somebody else may change.
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(failed("open the private key"))?;
        let seen = file.metadata().map_err(failed("look at"))?;
        let mode = seen.mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(KeyError::Loose { path, mode, id });
        }
        if seen.uid() != rustix::process::geteuid().as_raw() {
            return Err(KeyError::Foreign {
                path,
                owner: seen.uid(),
            });
        }
        let mut bytes = Vec::new();
        (&mut file)
            .take(MOST_KEY_BYTES)
            .read_to_end(&mut bytes)
            .map_err(failed("read"))?;
        let wrong = |why: String| KeyError::Wrong {
            path: path.clone(),
            id,
            why,
        };
        let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|why| wrong(why.to_string()))?;
        let found = public_of(&pair)?;
        if found != *public {
            return Err(wrong(format!("it is {}", found.id())));
        }
        Ok(pair)
    }

    /// What signs no more needs no private half, and what is not there cannot be stolen.
    fn delete_private(&self, id: &KeyId) -> Result<(), KeyError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path)(why)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn file_error(tried: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> KeyError {
    move |source| KeyError::File { tried, path, source }
}

fn public_of(pair: &Ed25519KeyPair) -> Result<PublicKey, KeyError> {
    let bytes = pair.public_key().as_ref().try_into();
    bytes
        .map(PublicKey::from_bytes)
        .map_err(|_| KeyError::Make("the public half has not 32 bytes"))
}

fn read(resource: &Resource) -> Result<OwnKey, KeyError> {
    let unreadable = |why: String| StoreError::Unreadable {
        what: format!("{KIND} {}", resource.name),
        why,
    };
    let public: PublicKey = resource
        .spec_as::<Spec>()?
        .public_key
        .parse()
        .map_err(|why: super::envelope::NoPublicKey| unreadable(why.to_string()))?;
    if public.id().to_string() != resource.name {
        return Err(unreadable("its name is not that of its public key".to_owned()).into());
    }
    let since = resource.created_at;
    let standing = match resource.status_as::<Status>()? {
        Status {
            revoked_at: Some(at),
            reason,
            ..
        } => Standing::Revoked {
            at,
            reason: reason.unwrap_or_default(),
        },
        Status {
            retired_at: Some(at), ..
        } => Standing::Retired { at },
        Status { .. } => Standing::Active { since },
    };
    Ok(OwnKey {
        public,
        standing,
        since,
    })
}

/// The active key, ready to sign.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Signer {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// Signs a statement.
    #[must_use]
    pub fn sign(&self, statement: Vec<u8>) -> Envelope {
        Envelope::sign(statement, &self.pair, &self.public)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::open(&dir.path().join("state")).expect("a home");
        (dir, home)
    }

    fn files(home: &Home) -> Vec<PathBuf> {
        let list = fs::read_dir(home.keys()).expect("a directory");
        list.map(|entry| entry.expect("an entry").path()).collect()
    }

    #[test]
    fn a_key_is_made_for_its_owner_alone_and_signs() {
        let (_dir, home) = home();
        let keys = Keys::of(&home);
        assert!(matches!(keys.signer(), Err(KeyError::None)));
        let made = keys.create(at(1)).expect("made");
        assert_eq!(made.standing, Standing::Active { since: at(1) });
        let file = files(&home).pop().expect("a file");
        assert_eq!(fs::metadata(&file).expect("it").mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(home.keys()).expect("it").mode() & 0o777, 0o700);
        let envelope = keys.signer().expect("a signer").sign(b"{}".to_vec());
        assert_eq!(envelope.signers([made.public].iter()), Ok(vec![made.public.id()]));
        assert!(matches!(keys.create(at(2)), Err(KeyError::Exists(id)) if id == made.public.id()));
        // The private half is nowhere in the state file.
        let private = fs::read(&file).expect("it");
        let seed = &private[16..48];
        for entry in fs::read_dir(home.root()).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let bytes = fs::read(&path).expect("it");
                assert!(!bytes.windows(32).any(|part| part == seed), "{}", path.display());
            }
        }
    }

    #[test]
    fn a_rotation_retires_and_a_revocation_ends() {
        let (_dir, home) = home();
        let keys = Keys::of(&home);
        let first = keys.create(at(1)).expect("made").public.id();
        let second = keys.rotate(at(2)).expect("rotated").public.id();
        assert_ne!(first, second);
        assert_eq!(keys.signer().expect("a signer").id(), second);
        assert_eq!(files(&home).len(), 1, "what signs no more is not kept");
        let standings = || {
            keys.all()
                .expect("listed")
                .into_iter()
                .map(|k| k.standing)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            standings(),
            [Standing::Retired { at: at(2) }, Standing::Active { since: at(2) }]
        );
        let revoked = keys.revoke(&second.to_string()[..8], "lost", at(3)).expect("revoked");
        let expected = Standing::Revoked {
            at: at(3),
            reason: "lost".to_owned(),
        };
        assert_eq!(revoked.standing, expected);
        assert!(matches!(keys.signer(), Err(KeyError::None)));
        assert_eq!(files(&home), Vec::<PathBuf>::new());
        assert!(matches!(
            keys.revoke(&second.to_string(), "again", at(4)),
            Err(KeyError::Revoked { .. })
        ));
        // One that is retired can still turn out to have been stolen.
        keys.revoke(&first.to_string(), "stolen", at(5)).expect("revoked");
        for name in ["", "0", "00000000", &first.to_string()[..7]] {
            assert!(
                matches!(keys.revoke(name, "x", at(6)), Err(KeyError::Unknown(_))),
                "{name}"
            );
        }
        keys.create(at(7)).expect("a new one");
    }

    #[test]
    fn of_many_who_make_a_key_at_once_one_does() {
        let (dir, home) = home();
        let together = std::sync::Barrier::new(6);
        let made = std::thread::scope(|scope| {
            let create = || {
                let home = Home::open(&dir.path().join("state")).expect("a home");
                together.wait();
                Keys::of(&home).create(at(1))
            };
            let all: Vec<_> = (0..6).map(|_| scope.spawn(create)).collect();
            all.into_iter()
                .map(|one| one.join().expect("ended"))
                .collect::<Vec<_>>()
        });
        assert_eq!(made.iter().filter(|one| one.is_ok()).count(), 1, "{made:?}");
        for refused in made.iter().filter_map(|one| one.as_ref().err()) {
            assert!(matches!(refused, KeyError::Busy | KeyError::Exists(_)), "{refused}");
        }
        let keys = Keys::of(&home);
        assert_eq!(keys.all().expect("listed").len(), 1);
        assert_eq!(files(&home).len(), 1);
        // Whatever changes keys does so alone.
        let id = keys.all().expect("listed")[0].public.id().to_string();
        let held = keys.alone().expect("free");
        assert!(matches!(keys.rotate(at(2)), Err(KeyError::Busy)));
        assert!(matches!(keys.revoke(&id, "stolen", at(2)), Err(KeyError::Busy)));
        drop(held);
        let shown = "\u{1b}[31mstolen";
        keys.revoke(&id, shown, at(2)).expect("revoked");
        let again = keys.revoke(&id, shown, at(3)).expect_err("it is").to_string();
        assert!(again.ends_with(r": \u{1b}[31mstolen"), "{again:?}");
    }

    /// Killed between the two halves of a rotation.
    #[test]
    fn of_two_active_keys_the_newer_signs() {
        let (_dir, home) = home();
        let keys = Keys::of(&home);
        keys.create(at(1)).expect("made");
        let newer = keys.make(at(2)).expect("made").public.id();
        assert_eq!(keys.signer().expect("a signer").id(), newer);
        let newest = keys.rotate(at(3)).expect("rotated").public.id();
        let active: Vec<KeyId> = keys
            .all()
            .expect("listed")
            .iter()
            .filter(|k| matches!(k.standing, Standing::Active { .. }))
            .map(|k| k.public.id())
            .collect();
        assert_eq!(active, [newest]);
    }

    #[test]
    fn a_file_that_is_not_as_it_must_be_is_not_used() {
        let (_dir, home) = home();
        let keys = Keys::of(&home);
        let id = keys.create(at(1)).expect("made").public.id();
        let file = files(&home).pop().expect("a file");
        let refused = |expected: &str| {
            let why = keys.signer().map(|signer| signer.id()).expect_err(expected).to_string();
            assert!(why.contains(expected), "{why}");
            assert!(why.contains("stagegate attest key"), "no remedy in {why}");
        };
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
            refused(&format!("open to others (mode {mode:03o})"));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        assert_eq!(keys.signer().expect("a signer").id(), id);
        let aside = file.with_extension("aside");
        fs::rename(&file, &aside).expect("moved");
        refused("cannot open the private key");
        refused("`stagegate attest key rotate` makes a new key");
        std::os::unix::fs::symlink(&aside, &file).expect("linked");
        refused("cannot open the private key");
        fs::remove_file(&file).expect("gone");
        for wrong in [&b""[..], b"no key", &fs::read(&aside).expect("it")[..40]] {
            fs::write(&file, wrong).expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
            refused("is not the key");
        }
        let other = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("made");
        fs::write(&file, other.as_ref()).expect("written");
        refused("(it is ");
        // What is advised where it is lost works.
        fs::remove_file(&file).expect("gone");
        let rotated = keys.rotate(at(2)).expect("rotated").public.id();
        assert_eq!(keys.signer().expect("a signer").id(), rotated);
    }
}

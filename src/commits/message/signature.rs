//! Signatures under commits by SSH keys (OpenSSH's `PROTOCOL.sshsig`), of the one kind that every key of today can be:
//! ed25519.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, SHA512, digest};
use ring::signature::{ED25519, UnparsedPublicKey};

/// What git signs with this key is for git, and for nothing else.
const NAMESPACE: &[u8] = b"git";
const KIND: &[u8] = b"ssh-ed25519";
const MAGIC: &[u8] = b"SSHSIG";

/// A public key that may vouch for commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    bytes: Vec<u8>,
    /// As the policy writes it, without its comment.
    pub text: String,
}

impl PublicKey {
    /// Reads `ssh-ed25519 AAAA… comment`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let mut words = text.split_whitespace();
        let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if kind.as_bytes() != KIND {
            return Err("only ssh-ed25519 keys are known");
        }
        let blob = STANDARD.decode(base64).map_err(|_| "its second word is not base64")?;
        let bytes = key_of(&blob).ok_or("its second word holds no ed25519 key")?;
        Ok(Self {
            bytes,
            text: format!("{kind} {base64}"),
        })
    }

    /// Whether this key made this signature (armoured, as git keeps it) of these bytes.
    #[must_use]
    pub fn has_signed(&self, signed: &[u8], armoured: &[u8]) -> bool {
        self.check(signed, armoured).is_some()
    }

    fn check(&self, signed: &[u8], armoured: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(armoured).ok()?.trim();
        let text = text.strip_prefix("-----BEGIN SSH SIGNATURE-----")?;
        let text = text.strip_suffix("-----END SSH SIGNATURE-----")?;
        let base64: String = text.split_whitespace().collect();
        let blob = STANDARD.decode(base64).ok()?;
        let mut rest = blob.strip_prefix(MAGIC)?.strip_prefix(&1_u32.to_be_bytes())?;
        let (key, namespace) = (field(&mut rest)?, field(&mut rest)?);
        let (reserved, hash) = (field(&mut rest)?, field(&mut rest)?);
        let mut signature = field(&mut rest)?;
        if key_of(key)? != self.bytes || namespace != NAMESPACE || field(&mut signature)? != KIND {
            return None;
        }
        let algorithm = match hash {
            b"sha512" => &SHA512,
            b"sha256" => &SHA256,
            _ => return None,
        };
        let digest = digest(algorithm, signed);
        let mut message = MAGIC.to_vec();
        for part in [namespace, reserved, hash, digest.as_ref()] {
            message.extend(u32::try_from(part.len()).ok()?.to_be_bytes());
            message.extend(part);
        }
        let key = UnparsedPublicKey::new(&ED25519, &self.bytes);
        key.verify(&message, field(&mut signature)?).ok()
    }
}

/// The 32 bytes of a key in SSH's own form.
fn key_of(mut blob: &[u8]) -> Option<Vec<u8>> {
    let (kind, key) = (field(&mut blob)?, field(&mut blob)?);
    (kind == KIND && key.len() == 32 && blob.is_empty()).then(|| key.to_vec())
}

/// Takes a field off: its length in four bytes, and that many.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let (field, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(field)
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    fn with_length(part: &[u8]) -> Vec<u8> {
        let length = u32::try_from(part.len()).expect("short");
        [&length.to_be_bytes()[..], part].concat()
    }

    /// As OpenSSH's `ssh-keygen -Y sign -n git` writes it.
    fn signed(pair: &Ed25519KeyPair, namespace: &[u8], text: &[u8]) -> (PublicKey, Vec<u8>) {
        let key = [with_length(KIND), with_length(pair.public_key().as_ref())].concat();
        let hashed = digest(&SHA512, text);
        let parts = [namespace, b"", b"sha512", hashed.as_ref()].map(with_length).concat();
        let made = pair.sign(&[MAGIC, &parts].concat());
        let signature = [with_length(KIND), with_length(made.as_ref())].concat();
        let fields = [key.as_slice(), namespace, b"", b"sha512", &signature]
            .map(with_length)
            .concat();
        let blob = STANDARD.encode([MAGIC, &1_u32.to_be_bytes(), &fields].concat());
        let armoured = format!("-----BEGIN SSH SIGNATURE-----\n{blob}\n-----END SSH SIGNATURE-----\n");
        let public = PublicKey::read(&format!("ssh-ed25519 {} bot", STANDARD.encode(key))).expect("a key");
        (public, armoured.into_bytes())
    }

    #[test]
    fn a_signature_counts_for_its_key_its_text_and_git_alone() {
        let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        let (key, signature) = signed(&pair(1), b"git", b"commit");
        assert!(key.has_signed(b"commit", &signature));
        assert!(!key.has_signed(b"commix", &signature));
        let (other, _) = signed(&pair(2), b"git", b"commit");
        assert!(!other.has_signed(b"commit", &signature));
        let (_, for_files) = signed(&pair(1), b"file", b"commit");
        assert!(!key.has_signed(b"commit", &for_files));
        // The line ending at its end is no part of it.
        for cut in 0..signature.len() - 1 {
            assert!(!key.has_signed(b"commit", &signature[..cut]), "{cut}");
        }
    }

    #[test]
    fn what_is_no_key_says_why() {
        for text in ["", "ssh-rsa AAAA", "ssh-ed25519", "ssh-ed25519 !", "ssh-ed25519 AAAA"] {
            assert!(PublicKey::read(text).is_err(), "{text}");
        }
    }
}

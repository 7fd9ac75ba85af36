//! How it is signed: a DSSE envelope (`secure-systems-lab/dsse`, `envelope.md` and `protocol.md`, 1.0.2) with ed25519 signatures.
//! What is signed is the pre-authentication encoding of type and payload, so that a signature holds for no other type.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::commits::finding::plain;
use crate::model::values::Digest;

/// What in-toto's envelopes hold.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The largest statement in base64, with its signatures.
pub const MOST_BYTES: usize = 3 << 20;
/// Signatures of one envelope that are tried. During a rotation there are two.
pub const MOST_SIGNATURES: usize = 16;

/// A key's name: SHA-256 of its 32 bytes. Written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

impl KeyId {
    /// As people tell keys apart.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl FromStr for KeyId {
    type Err = crate::model::values::ValueError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Digest::from_hex(text).map(Self)
    }
}

/// The public half of a key, written `ed25519:` and 32 bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&self.0))
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", STANDARD.encode(self.0))
    }
}

/// A text that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write `ed25519:` and its 32 bytes in base64, as `stagegate attest key list -o json` prints them")]
pub struct NoPublicKey;

impl FromStr for PublicKey {
    type Err = NoPublicKey;
    fn from_str(text: &str) -> Result<Self, NoPublicKey> {
        let base64 = text.strip_prefix("ed25519:").ok_or(NoPublicKey)?;
        let bytes = STANDARD.decode(base64).map_err(|_| NoPublicKey)?;
        Ok(Self(bytes.try_into().map_err(|_| NoPublicKey)?))
    }
}

/// Why an envelope shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too long.
    #[error("the envelope has {bytes} bytes, and at most {MOST_BYTES} are read")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// Not JSON, cut off, or not of this form.
    #[error("it is no DSSE envelope: {0}; it may have been cut off on its way")]
    Form(String),
    /// A part is no base64.
    #[error("the envelope's {0} is no base64; it may have been changed on its way")]
    Base64(&'static str),
    /// It holds something else.
    #[error("the envelope holds `{0}`, and only {PAYLOAD_TYPE} is known here")]
    PayloadType(String),
    /// Too many to try.
    #[error("the envelope has {0} signatures, and at most {MOST_SIGNATURES} are tried")]
    TooManySignatures(usize),
    /// None.
    #[error("the envelope is not signed")]
    NotSigned,
    /// A key that is known is named, and did not sign this.
    #[error("key {} is named, and has not signed this: the text, the signature or the name of the key was changed", .0.short())]
    BadSignature(KeyId),
    /// Nobody who is known signed it.
    #[error(
        "it is signed by {0}, which is not known here; `stagegate attest key list` shows this home's keys, and a policy's \
         `attest.trust` names those of others"
    )]
    UnknownKey(String),
}

/// A signature with the key that it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    /// A hint, as the specification says: nothing is concluded from it.
    key_id: String,
    bytes: Vec<u8>,
}

/// A signed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    payload_type: String,
    payload: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// The pre-authentication encoding: `DSSEv1 LEN(type) type LEN(body) body`, lengths in bytes and decimal.
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    encoded.extend_from_slice(payload);
    encoded
}

impl Envelope {
    /// Signs a statement.
    #[must_use]
    pub fn sign(payload: Vec<u8>, pair: &Ed25519KeyPair, public: &PublicKey) -> Self {
        let mut envelope = Self {
            payload,
            signatures: Vec::new(),
        };
        envelope.add_signature(pair, public);
        envelope
    }

    /// Adds a signature by another key.
    pub fn add_signature(&mut self, pair: &Ed25519KeyPair, public: &PublicKey) {
        let signature = pair.sign(&encoding(PAYLOAD_TYPE, &self.payload));
        self.signatures.push(Signature {
            key_id: public.id().to_string(),
            bytes: signature.as_ref().to_vec(),
        });
    }

    /// Reads one; whether it is signed by anybody is [`Self::signers`]' matter.
    ///
    /// # Errors
    /// It is none, or holds something else.
    pub fn read(text: &[u8]) -> Result<Self, EnvelopeError> {
        if text.len() > MOST_BYTES {
            return Err(EnvelopeError::TooLarge { bytes: text.len() });
        }
        let Written {
            payload_type,
            payload,
            signatures,
        } = serde_json::from_slice(text).map_err(|why| EnvelopeError::Form(plain(&why.to_string())))?;
        if payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType(plain(&payload_type)));
        }
        if signatures.len() > MOST_SIGNATURES {
            return Err(EnvelopeError::TooManySignatures(signatures.len()));
        }
        let signatures = signatures.into_iter().map(|WrittenSignature { keyid, sig }| {
            Ok(Signature {
                key_id: keyid,
                bytes: decoded(&sig, "signature")?,
            })
        });
        Ok(Self {
            payload: decoded(&payload, "payload")?,
            signatures: signatures.collect::<Result<_, EnvelopeError>>()?,
        })
    }

    /// What was signed. It means nothing before [`Self::signers`] said by whom.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Which of these keys signed it; at least one.
    ///
    /// # Errors
    /// None did.
    pub fn signers<'k>(&self, keys: impl Iterator<Item = &'k PublicKey>) -> Result<Vec<KeyId>, EnvelopeError> {
        if self.signatures.is_empty() {
            return Err(EnvelopeError::NotSigned);
        }
        let encoded = encoding(PAYLOAD_TYPE, &self.payload);
        let (mut signers, mut named) = (Vec::new(), None);
        for key in keys {
            let id = key.id();
            let name = id.to_string();
            // One without a name may be anybody's; any other is tried with the key that it names.
            let mut of_key = self
                .signatures
                .iter()
                .filter(|s| s.key_id.is_empty() || s.key_id == name);
            if of_key.any(|s| key.has_signed(&encoded, &s.bytes)) {
                signers.push(id);
            } else if self.signatures.iter().any(|s| s.key_id == name) {
                named = Some(id);
            }
        }
        match named {
            _ if !signers.is_empty() => Ok(signers),
            Some(key) => Err(EnvelopeError::BadSignature(key)),
            None => {
                let claimed = self.signatures.iter().map(|s| match s.key_id.as_str() {
                    "" => "a key without a name".to_owned(),
                    name => format!("key {}", plain(name.get(..12).unwrap_or(name))),
                });
                Err(EnvelopeError::UnknownKey(claimed.collect::<Vec<_>>().join(" and ")))
            }
        }
    }
}

/// One line of JSON, as it is stored and noted.
impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signatures = self.signatures.iter().map(|s| WrittenSignature {
            keyid: s.key_id.clone(),
            sig: STANDARD.encode(&s.bytes),
        });
        let written = Written {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(&self.payload),
            signatures: signatures.collect(),
        };
        f.write_str(&serde_json::to_string(&written).map_err(|_| fmt::Error)?)
    }
}

/// The specification allows either alphabet.
fn decoded(text: &str, what: &'static str) -> Result<Vec<u8>, EnvelopeError> {
    let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
    bytes.map_err(|_| EnvelopeError::Base64(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::proof::tests::pair;

    const TEXT: &[u8] = br#"{"a":1}"#;

    fn signed() -> String {
        let (pair, public) = pair(1);
        Envelope::sign(TEXT.to_vec(), &pair, &public).to_string()
    }

    fn signers(text: &str, seeds: &[u8]) -> Result<Vec<KeyId>, EnvelopeError> {
        let keys: Vec<PublicKey> = seeds.iter().map(|seed| pair(*seed).1).collect();
        Envelope::read(text.as_bytes())?.signers(keys.iter())
    }

    /// The example of the specification (`protocol.md`).
    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let encoded = encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        // Lengths are of bytes, and an empty part still has its blanks.
        assert_eq!(encoding("ä", b""), "DSSEv1 2 ä 0 ".as_bytes());
    }

    /// RFC 8032, 7.1, test 1: the seed's public key and its signature of nothing.
    #[test]
    fn keys_and_signatures_are_those_of_the_rfc() {
        let hex = |text: &str| -> Vec<u8> {
            let pairs = text.as_bytes().chunks(2);
            let digits = pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).expect("ascii"), 16));
            digits.map(|d| d.expect("hexadecimal")).collect()
        };
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = hex(concat!(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ));
        let key = PublicKey::from_bytes(public.try_into().expect("32 bytes"));
        assert!(key.has_signed(b"", &signature) && !key.has_signed(b"a", &signature));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.id().to_string().len(), 64);
    }

    #[test]
    fn an_envelope_is_read_back_and_names_who_signed() {
        let text = signed();
        assert!(!text.contains('\n'), "{text}");
        let envelope = Envelope::read(text.as_bytes()).expect("read");
        assert_eq!((envelope.payload(), envelope.to_string()), (TEXT, text.clone()));
        assert_eq!(signers(&text, &[1]), Ok(vec![pair(1).1.id()]));
        // Of several signatures each counts for its own key, whatever the others are.
        let mut both = envelope;
        both.add_signature(&pair(2).0, &pair(2).1);
        let text = both.to_string();
        assert_eq!(signers(&text, &[2]), Ok(vec![pair(2).1.id()]));
        assert_eq!(signers(&text, &[1, 2, 3]).expect("two").len(), 2);
        let named_wrongly = text.replace(&pair(1).1.id().to_string(), &pair(3).1.id().to_string());
        assert_eq!(signers(&named_wrongly, &[1, 2, 3]), Ok(vec![pair(2).1.id()]));
        // Others leave the name out, or use the other alphabet.
        let nameless = signed().replace(&pair(1).1.id().to_string(), "");
        assert_eq!(signers(&nameless, &[2, 1]), Ok(vec![pair(1).1.id()]));
        let mut written: Written = serde_json::from_str(&signed()).expect("JSON");
        written.signatures[0].sig = written.signatures[0].sig.replace('+', "-").replace('/', "_");
        let urlsafe = serde_json::to_string(&written).expect("JSON");
        assert_eq!(signers(&urlsafe, &[1]), Ok(vec![pair(1).1.id()]));
    }

    /// Every way to change one has its own words.
    #[test]
    fn what_was_tampered_with_says_how() {
        use EnvelopeError as E;
        let text = signed();
        let id = pair(1).1.id();
        let other_payload = text.replace(&STANDARD.encode(TEXT), &STANDARD.encode(br#"{"a":2}"#));
        assert_ne!(other_payload, text);
        assert_eq!(signers(&other_payload, &[1]), Err(E::BadSignature(id)));
        let other_key = text.replace(&id.to_string(), &pair(2).1.id().to_string());
        assert_eq!(signers(&other_key, &[1, 2]), Err(E::BadSignature(pair(2).1.id())));
        assert!(matches!(signers(&text, &[2]), Err(E::UnknownKey(name)) if name == format!("key {}", id.short())));
        assert!(matches!(signers(&text, &[]), Err(E::UnknownKey(_))));
        for cut in 0..text.len() {
            assert!(matches!(signers(&text[..cut], &[1]), Err(E::Form(_))), "{cut}");
        }
        let other_type = text.replace("in-toto", "out-toto");
        assert!(matches!(signers(&other_type, &[1]), Err(E::PayloadType(_))));
        assert_eq!(
            signers(&text.replace("\"sig\":\"", "\"sig\":\"!"), &[1]),
            Err(E::Base64("signature"))
        );
        assert_eq!(
            signers(&text.replace("\"payload\":\"", "\"payload\":\"!"), &[1]),
            Err(E::Base64("payload"))
        );
        let unsigned = format!(r#"{{"payloadType":"{PAYLOAD_TYPE}","payload":"","signatures":[]}}"#);
        assert_eq!(signers(&unsigned, &[1]), Err(E::NotSigned));
        let many = unsigned.replace(
            "[]",
            &format!("[{}]", vec![r#"{"sig":""}"#; MOST_SIGNATURES + 1].join(",")),
        );
        assert_eq!(signers(&many, &[1]), Err(E::TooManySignatures(17)));
        let long = " ".repeat(MOST_BYTES + 1);
        assert!(matches!(signers(&long, &[1]), Err(E::TooLarge { .. })));
    }

    /// A signature of the payload alone, or under another type, is none of the envelope.
    #[test]
    fn a_signature_holds_for_its_type() {
        let (pair, public) = pair(1);
        for message in [TEXT.to_vec(), encoding("text/plain", TEXT)] {
            let sig = STANDARD.encode(pair.sign(&message));
            let text = serde_json::json!({
                "payloadType": PAYLOAD_TYPE, "payload": STANDARD.encode(TEXT),
                "signatures": [{"keyid": public.id().to_string(), "sig": sig}],
            });
            assert_eq!(
                signers(&text.to_string(), &[1]),
                Err(EnvelopeError::BadSignature(public.id()))
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_envelope_or_an_error(bytes: Vec<u8>) {
            let _ = Envelope::read(&bytes);
        }

        /// Whatever single byte is changed, it is an error, or still says exactly the same.
        #[test]
        fn no_changed_byte_goes_unseen(at in 0_usize..10_000, to: u8) {
            let text = signed();
            let mut bytes = text.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(envelope) = Envelope::read(&bytes)
                && envelope.signers([pair(1).1].iter()).is_ok()
            {
                proptest::prop_assert_eq!(envelope.payload(), TEXT);
            }
        }
    }
}

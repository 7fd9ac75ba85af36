//! Signatures of webhooks, as the Standard Webhooks specification has them (<https://www.standardwebhooks.com>): whoever receives
//! them finds a library for his language.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::hmac;

/// What a key in base64 begins with.
const PREFIX: &str = "whsec_";
/// Shorter keys could be guessed: the specification asks for 24 bytes at least.
const SHORTEST_KEY: usize = 24;

/// The keys that sign: one, or while receivers change from one to the next both.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// Out of what their secrets hold, each with its secret's name: `whsec_` and base64, or the very bytes of the text.
    pub(super) fn new(secrets: &[(String, String)]) -> Result<Self, String> {
        let key = |(name, text): &(String, String)| {
            let text = text.trim();
            // Bytes that are no text were read as one sign each, and anybody could guess those.
            if text.contains(char::REPLACEMENT_CHARACTER) {
                return Err(format!(
                    "the secret `{name}` holds bytes that are no text; write the key as {PREFIX} and base64"
                ));
            }
            let bytes = match text.strip_prefix(PREFIX) {
                Some(encoded) => STANDARD
                    .decode(encoded)
                    .map_err(|_| format!("the secret `{name}` begins with {PREFIX}, and what follows is no base64"))?,
                None => text.as_bytes().to_vec(),
            };
            if bytes.len() < SHORTEST_KEY {
                return Err(format!(
                    "the secret `{name}` is a key of {} bytes; sign with {SHORTEST_KEY} at least",
                    bytes.len()
                ));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        secrets.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// The headers of a message: its key, when it was sent, and over both and its body a signature by each key.
    pub(super) fn headers(&self, id: &str, now: Timestamp, body: &[u8]) -> Vec<(&'static str, String)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let at = now.as_second().to_string();
        let signed = [id.as_bytes(), b".", at.as_bytes(), b".", body].concat();
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, &signed))))
            .collect();
        vec![
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", at),
            ("webhook-signature", signatures.join(" ")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> Result<Keys, String> {
        let secrets: Vec<_> = texts
            .iter()
            .map(|text| ("key".to_owned(), (*text).to_owned()))
            .collect();
        Keys::new(&secrets)
    }

    /// The key, the message and the signature are those of the specification's own libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let keys = keys(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"]).expect("a key");
        let now = Timestamp::from_second(1_614_265_330).expect("a time");
        let headers = keys.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", now, br#"{"test": 2432232314}"#);
        assert_eq!(
            headers,
            [
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned()),
                ("webhook-timestamp", "1614265330".to_owned()),
                (
                    "webhook-signature",
                    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn while_a_key_changes_both_sign() {
        let (old, new) = ("an old key of 24 bytes, so", "a new key of 24 bytes, and so");
        let signature = |texts: &[&str]| {
            let headers = keys(texts).expect("keys").headers("id", Timestamp::UNIX_EPOCH, b"body");
            headers
                .last()
                .map(|(_, signature)| signature.clone())
                .unwrap_or_default()
        };
        assert_eq!(
            signature(&[new, old]),
            format!("{} {}", signature(&[new]), signature(&[old]))
        );
        assert_eq!(signature(&[]), "");
    }

    #[test]
    fn a_key_that_can_be_guessed_or_read_wrong_signs_nothing() {
        for (text, expected) in [
            (
                "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}",
                "no text",
            ),
            ("short", "a key of 5 bytes"),
            ("whsec_c2hvcnQ=", "a key of 5 bytes"),
            ("whsec_no base64!", "no base64"),
        ] {
            let why = keys(&[text]).err().expect("refused");
            assert!(why.contains(expected) && !why.contains(text), "{why}");
        }
    }
}

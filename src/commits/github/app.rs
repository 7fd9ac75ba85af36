//! Who we are to GitHub: an App proves itself by a token that it signs itself, good for minutes, and gets one for an
//! installation in exchange, good for an hour.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

/// GitHub takes no token whose life is longer than 10 min ("Generating a JSON Web Token (JWT) for a GitHub App").
const LIFE: SignedDuration = SignedDuration::from_mins(8);
/// So far into the past a token is dated: clocks that differ by a minute are common, and one from the future is refused.
const BACK_DATED: SignedDuration = SignedDuration::from_secs(60);
/// A token is got anew so long before it ends: a fetch that begins with it may take minutes.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// A key that cannot be used. The words never hold it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM.
    #[error("the App's private key is not in PEM form; GitHub gives it as a .pem file")]
    Pem,
    /// Another kind, or too short.
    #[error("the App's private key is no RSA key of at least 2048 bits: {0}")]
    Rsa(String),
}

/// An App's id and key.
pub struct App {
    id: u64,
    key: RsaKeyPair,
}

impl std::fmt::Debug for App {
    /// Hides the key (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("id", &self.id).finish_non_exhaustive()
    }
}

impl App {
    /// An App by its id and its key as GitHub gives it (PEM, PKCS#1 or PKCS#8).
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn new(id: u64, pem: &[u8]) -> Result<Self, KeyError> {
        let rejected = |e: ring::error::KeyRejected| KeyError::Rsa(e.to_string());
        let key = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::Pem)? {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(rejected)?,
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(rejected)?,
            other => return Err(KeyError::Rsa(format!("{other:?} was not expected"))),
        };
        Ok(Self { id, key })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A token that says we are this App, for now (RFC 7519, RS256).
    ///
    /// # Errors
    /// The system has no random bytes, or no memory.
    pub fn token(&self, now: Timestamp) -> Result<String, ring::error::Unspecified> {
        let claims = serde_json::json!({
            "iat": (now - BACK_DATED).as_second(),
            "exp": (now + LIFE).as_second(),
            "iss": self.id.to_string(),
        });
        let mut token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            token.as_bytes(),
            &mut signature,
        )?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(token)
    }
}

/// A token for an installation, as GitHub gives it.
#[derive(Clone)]
pub struct InstallationToken {
    /// Itself.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for InstallationToken {
    /// Hides the token (I8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstallationToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl InstallationToken {
    /// Whether something may still be begun with it.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now + RENEW_BEFORE < self.expires_at
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    fn key(form: &[&str]) -> Vec<u8> {
        let made = Command::new("openssl").args(form).output();
        made.expect("openssl runs").stdout
    }

    #[test]
    fn a_token_is_signed_and_dated_as_github_asks() {
        let app = App::new(42, &key(&["genrsa", "-traditional", "2048"])).expect("a key");
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().expect("a time");
        let token = app.token(now).expect("signed");
        let parts: Vec<&str> = token.split('.').collect();
        let [head, claims, signature] = parts[..] else {
            panic!("{token}");
        };
        let read = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
        let claims: serde_json::Value = serde_json::from_slice(&read(claims)).expect("JSON");
        let second = |name: &str| claims[name].as_i64().expect("a number") - now.as_second();
        assert_eq!(claims["iss"], "42");
        assert_eq!((second("iat"), second("exp")), (-60, 480));
        assert_eq!(read(head), br#"{"alg":"RS256","typ":"JWT"}"#);
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, app.key.public().as_ref())
            .verify(signed.as_bytes(), &read(signature))
            .expect("by this key");
    }

    #[test]
    fn keys_of_both_forms_are_read_and_others_are_refused_without_their_text() {
        assert!(
            App::new(
                1,
                &key(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            )
            .is_ok()
        );
        assert_eq!(App::new(1, b"secret").err(), Some(KeyError::Pem));
        let short = App::new(1, &key(&["genrsa", "-traditional", "1024"])).err();
        assert!(matches!(short, Some(KeyError::Rsa(_))), "{short:?}");
        let curve = key(&["genpkey", "-algorithm", "ed25519"]);
        let said = App::new(1, &curve).expect_err("not RSA").to_string();
        assert!(!said.contains(&String::from_utf8_lossy(&curve)[30..60]), "{said}");
    }

    #[test]
    fn a_token_that_ends_soon_is_not_begun_with() {
        let expires_at: Timestamp = "2026-11-25T13:00:00Z".parse().expect("a time");
        let token = InstallationToken {
            token: "t".to_owned(),
            expires_at,
        };
        assert!(token.is_fresh(expires_at - SignedDuration::from_mins(6)));
        assert!(!token.is_fresh(expires_at - SignedDuration::from_mins(4)));
        assert!(!format!("{token:?}").contains("\"t\""));
    }
}

//! Whose a word on a promotion is: SSH signatures, made and verified by OpenSSH's own program, which knows agents, hardware keys,
//! passphrases and every option of `allowed_signers` (ssh-keygen(1)).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::approval::{NAMESPACE, Signed, Word};
use crate::model::pipeline::PipelineSpec;
use crate::model::values::Digest;
use crate::promotion::approvals::Voice;

/// The program, of Debian's package openssh-client.
const PROGRAM: &str = "ssh-keygen";
/// What was verified is verified again after this: a key may be taken out of the file, or its time may be over.
const KNOWN_FOR: Duration = Duration::from_mins(1);
/// A signature of RSA with 16,384 bits takes 3 KB.
const LONGEST_SIGNATURE: usize = 16 << 10;

/// Why nothing was signed, or nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The program, or a file for it.
    #[error("cannot {what}: {source}; {PROGRAM} is of the package openssh-client")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file with a role's keys.
    #[error("cannot read the keys of role {role} in {path}: {source}", path = path.display())]
    Keys {
        /// The role.
        role: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key does not sign.
    #[error(
        "cannot sign with {key}: {why}; `--key FILE` names the private key, or a public one whose private one an agent has",
        key = key.display()
    )]
    Unsigned {
        /// The key.
        key: PathBuf,
        /// What the program said.
        why: String,
    },
    /// No key was named, and there is none in its usual place.
    #[error(
        "there is no key to sign with: neither --key nor STAGEGATE_KEY names one, and none of {tried} is there; \
         `ssh-keygen -t ed25519` makes one"
    )]
    NoKey {
        /// Where it was looked for.
        tried: String,
    },
}

/// Who signed a word, and in which roles of a pipeline they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Of somebody that a role has.
    Of(Box<Voice>),
    /// Of nobody that a role has, or not signed as it stands.
    Nobodys,
}

/// Verifies words. What was verified a moment ago is not verified again.
#[derive(Debug, Default)]
pub struct Verifier {
    known: Mutex<BTreeMap<Digest, (Option<String>, Instant)>>,
}

impl Verifier {
    /// Whose words these are, in their order, by the keys that a pipeline's roles have now.
    ///
    /// # Errors
    /// A role's file cannot be read, or the program does not run.
    pub fn voices(
        &self,
        workspace: &Path,
        pipeline: &PipelineSpec,
        words: &[Signed],
    ) -> Result<Vec<Whose>, SignatureError> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for (role, stated) in &pipeline.roles {
            let Some(file) = &stated.allowed_signers else { continue };
            let path = workspace.join(file);
            let text = std::fs::read(&path).map_err(|source| SignatureError::Keys {
                role: role.clone(),
                path: path.clone(),
                source,
            })?;
            files.push((role, path, text));
        }
        let whose = |signed: &Signed| {
            let mut people = BTreeMap::new();
            for (role, path, text) in &files {
                if let Some(who) = self.signer(signed, path, text)? {
                    people.insert((*role).clone(), who);
                }
            }
            // One key is one person, by whatever names the roles have it.
            let Some(who) = people.values().min().cloned() else {
                return Ok(Whose::Nobodys);
            };
            let Word {
                decision,
                bound,
                at,
                reason,
                until,
                ..
            } = &signed.word;
            Ok(Whose::Of(Box::new(Voice {
                who,
                roles: people.into_keys().collect(),
                verb: *decision,
                bound: *bound,
                at: *at,
                reason: reason.clone(),
                until: *until,
            })))
        };
        words.iter().map(whose).collect()
    }

    fn signer(&self, signed: &Signed, path: &Path, keys: &[u8]) -> Result<Option<String>, SignatureError> {
        if signed.signature.len() > LONGEST_SIGNATURE {
            return Ok(None);
        }
        let text = signed.word.text();
        let parts = [text.as_bytes(), signed.signature.as_bytes(), keys].map(Digest::of);
        let name = Digest::of(format!("{parts:?}").as_bytes());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, at)| at.elapsed() < KNOWN_FOR);
        if let Some((who, _)) = known.get(&name) {
            return Ok(who.clone());
        }
        let who = verify(&text, &signed.signature, path)?;
        known.insert(name, (who.clone(), Instant::now()));
        Ok(who)
    }
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> SignatureError {
    move |source| SignatureError::System { what, source }
}

/// The principal whose key in `allowed_signers` made this signature of this text, for our namespace.
fn verify(text: &str, signature: &str, allowed_signers: &Path) -> Result<Option<String>, SignatureError> {
    let mut file = tempfile::NamedTempFile::new().map_err(system("write a signature down"))?;
    file.write_all(signature.as_bytes())
        .map_err(system("write a signature down"))?;
    let mut find = Command::new(PROGRAM);
    find.args(["-Y", "find-principals", "-s"])
        .arg(file.path())
        .arg("-f")
        .arg(allowed_signers);
    let (found, said) = run(find, "")?;
    let names: Vec<&str> = said.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    // A key of several, or of whoever it may be, says of nobody who they are.
    let who = match names[..] {
        [who] if found.success() && !who.contains(['*', '?', ',', '!']) => who.to_owned(),
        _ => return Ok(None),
    };
    let mut verify = Command::new(PROGRAM);
    verify
        .args(["-Y", "verify", "-n", NAMESPACE, "-I", &who, "-s"])
        .arg(file.path())
        .arg("-f")
        .arg(allowed_signers);
    let (verified, _) = run(verify, text)?;
    Ok(verified.success().then_some(who))
}

fn run(mut command: Command, input: &str) -> Result<(ExitStatus, String), SignatureError> {
    let begun = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = begun.map_err(system("run it to verify a signature"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has read enough closes it.
        let _ = stdin.write_all(input.as_bytes());
    }
    let said = child.wait_with_output().map_err(system("hear what it says"))?;
    Ok((said.status, String::from_utf8_lossy(&said.stdout).into_owned()))
}

/// Signs a word. A key with a passphrase asks for it on the terminal.
///
/// # Errors
/// There is no such key, or it does not sign.
pub fn sign(word: Word, key: &Path) -> Result<Signed, SignatureError> {
    let directory = tempfile::tempdir().map_err(system("write down what is to be signed"))?;
    let file = directory.path().join("word");
    std::fs::write(&file, word.text()).map_err(system("write down what is to be signed"))?;
    let mut command = Command::new(PROGRAM);
    command
        .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(key)
        .arg(&file)
        .stderr(Stdio::piped())
        .stdout(Stdio::null());
    let said = command.output().map_err(system("run it to sign"))?;
    let unsigned = |why: &str| SignatureError::Unsigned {
        key: key.to_owned(),
        why: why.trim().replace('\n', "; "),
    };
    if !said.status.success() {
        return Err(unsigned(&String::from_utf8_lossy(&said.stderr)));
    }
    let signature = std::fs::read_to_string(file.with_extension("sig")).map_err(|why| unsigned(&why.to_string()))?;
    Ok(Signed { word, signature })
}

#[cfg(test)]
mod tests;

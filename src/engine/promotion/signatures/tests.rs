use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::model::approval::{Bound, Verb};

struct Keys {
    directory: tempfile::TempDir,
}

impl Keys {
    fn new(people: &[&str]) -> Self {
        let this = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        for who in people {
            let made = Command::new(PROGRAM)
                .args(["-q", "-t", "ed25519", "-N", "", "-C", who, "-f"])
                .arg(this.key(who))
                .status();
            assert!(made.expect("openssh-client is installed").success());
        }
        this
    }

    fn key(&self, who: &str) -> PathBuf {
        self.directory.path().join(who)
    }

    /// A file of the workspace with these lines; `{who}` stands for somebody's public key.
    fn role(&self, file: &str, lines: &[(&str, &str)]) {
        let lines = lines.iter().map(|(before, who)| {
            let key = std::fs::read_to_string(self.key(who).with_extension("pub")).expect("a public key");
            format!("{before} {key}")
        });
        std::fs::write(self.directory.path().join(file), lines.collect::<String>()).expect("written");
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }
}

fn pipeline(roles: &[&str]) -> PipelineSpec {
    let roles: serde_json::Map<_, _> = roles
        .iter()
        .map(|role| ((*role).to_owned(), json!({"allowedSigners": role})))
        .collect();
    let stages = json!([{"name": "production", "environment": "production"}]);
    serde_json::from_value(json!({"component": "web", "roles": roles, "stages": stages})).expect("a pipeline")
}

fn word(reason: &str) -> Word {
    let digest = Digest::of(b"web-2");
    Word {
        promotion: "web-2-abcd".to_owned(),
        decision: Verb::Approve,
        environment: "production".to_owned(),
        build: "web-2".to_owned(),
        bound: Bound {
            digest,
            plan: digest,
            evidence: digest,
        },
        at: Timestamp::UNIX_EPOCH,
        reason: reason.to_owned(),
        until: None,
    }
}

fn whose(keys: &Keys, roles: &[&str], signed: &[Signed]) -> Vec<Option<(String, Vec<String>)>> {
    let voices = Verifier::default().voices(keys.root(), &pipeline(roles), signed);
    let voices = voices.expect("verified").into_iter();
    let read = voices.map(|whose| match whose {
        Whose::Of(voice) => Some((voice.who.clone(), voice.roles.into_iter().collect())),
        Whose::Nobodys => None,
    });
    read.collect()
}

#[test]
fn a_word_is_of_who_has_signed_it_as_it_stands_and_as_a_word() {
    let keys = Keys::new(&["carol", "mallory"]);
    keys.role("managers", &[("carol@lab", "carol")]);
    let signed = sign(word("fine"), &keys.key("carol")).expect("signed");
    let carol = Some(("carol@lab".to_owned(), vec!["managers".to_owned()]));
    assert_eq!(whose(&keys, &["managers"], std::slice::from_ref(&signed)), [carol]);
    let mut changed = vec![signed.clone(); 6];
    changed[0].word.reason = "fine?".to_owned();
    changed[1].word.decision = Verb::BreakGlass;
    changed[2].word.bound.plan = Digest::of(b"another");
    changed[3].word.at = Timestamp::from_second(1).expect("a time");
    changed[4].signature = sign(word("fine"), &keys.key("mallory")).expect("signed").signature;
    changed[5].word.until = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(whose(&keys, &["managers"], &changed), vec![None; 6]);
    // The same key for files, as `ssh-keygen -Y sign -n file` signs.
    let file = keys.root().join("text");
    std::fs::write(&file, signed.word.text()).expect("written");
    let by_hand = Command::new(PROGRAM)
        .args(["-q", "-Y", "sign", "-n", "file", "-f"])
        .arg(keys.key("carol"))
        .arg(&file)
        .status();
    assert!(by_hand.expect("it runs").success());
    let for_files = Signed {
        word: signed.word,
        signature: std::fs::read_to_string(file.with_extension("sig")).expect("a signature"),
    };
    assert_eq!(whose(&keys, &["managers"], &[for_files]), [None]);
}

#[test]
fn one_key_is_one_person_in_all_its_roles_and_a_line_for_several_is_nobody() {
    let keys = Keys::new(&["carol", "dave", "erin"]);
    keys.role(
        "managers",
        &[("carol@lab", "carol"), ("dave@lab,erin@lab", "dave"), ("*", "erin")],
    );
    keys.role("experts", &[("c.smith@lab", "carol")]);
    let signed: Vec<Signed> = ["carol", "dave", "erin"]
        .iter()
        .map(|who| sign(word("fine"), &keys.key(who)).expect("signed"))
        .collect();
    let both = vec!["experts".to_owned(), "managers".to_owned()];
    assert_eq!(
        whose(&keys, &["managers", "experts"], &signed),
        [Some(("c.smith@lab".to_owned(), both)), None, None]
    );
}

#[test]
fn a_key_whose_time_is_over_or_that_is_for_something_else_vouches_for_nothing() {
    let keys = Keys::new(&["carol", "dave", "erin"]);
    keys.role(
        "managers",
        &[
            ("carol@lab valid-before=\"20200101\"", "carol"),
            ("dave@lab namespaces=\"git\"", "dave"),
            ("erin@lab namespaces=\"approval@stagegate.dev\"", "erin"),
        ],
    );
    let signed: Vec<Signed> = ["carol", "dave", "erin"]
        .iter()
        .map(|who| sign(word("fine"), &keys.key(who)).expect("signed"))
        .collect();
    let found = whose(&keys, &["managers"], &signed);
    assert_eq!(
        found,
        [None, None, Some(("erin@lab".to_owned(), vec!["managers".to_owned()]))]
    );
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_a_no() {
    let keys = Keys::new(&["carol"]);
    let signed = sign(word("fine"), &keys.key("carol")).expect("signed");
    let missing = Verifier::default().voices(keys.root(), &pipeline(&["managers"]), &[signed]);
    assert!(matches!(missing, Err(SignatureError::Keys { role, .. }) if role == "managers"));
    let nobody = sign(word("fine"), &keys.key("nobody"));
    assert!(matches!(nobody, Err(SignatureError::Unsigned { .. })));
}

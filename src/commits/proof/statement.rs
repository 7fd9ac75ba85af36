//! What is signed: an in-toto Statement v1 whose subject is one commit and whose predicate is its [`Verdict`].
//!
//! Source: in-toto Attestation Framework, `spec/v1/statement.md` and `spec/v1/digest_set.md` (`gitCommit`, `gitTree`). Readers
//! of a statement must ignore fields that they do not know; what is below `predicate` is ours, and is read strictly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::verdict::{Outcome, Passed, Verdict};
use crate::commits::finding::{MOST_KEPT, plain};
use crate::commits::message::keys::IssueKeys;
use crate::commits::tracker::IssueResult;

/// What the framework calls its first version.
const TYPE: &str = "https://in-toto.io/Statement/v1";
/// What ours is called. Its last part is raised when a reader of the old one would misunderstand the new one.
pub const PREDICATE: &str = "https://stagegate.dev/attestation/commit-check/v1";
/// A verdict with all the findings that it may have takes about 1 MiB.
pub const MOST_BYTES: usize = 2 << 20;
/// Lists of keys that one verdict has; each takes some 300 bytes.
pub const MOST_ISSUES: usize = 1_000;
/// Hooks of one verdict; a configuration may have 500.
const MOST_HOOKS: usize = 1_000;

/// Why a text is no statement of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Too long to be read, or to be written.
    #[error("the statement has {bytes} bytes, and at most {MOST_BYTES} are read; check the commit again")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// Not JSON, or not of this form.
    #[error("what was signed is no in-toto statement: {0}")]
    Form(String),
    /// Another version of the framework.
    #[error("what was signed is of type `{0}`, and only {TYPE} is known here")]
    Type(String),
    /// Somebody else's statement, or one of another version of ours.
    #[error("what was signed states `{0}`, and only {PREDICATE} is known here; a newer Stagegate may know it")]
    Predicate(String),
    /// It must be about one commit.
    #[error("the statement has {0} subjects, and must have one, a commit")]
    Subjects(usize),
    /// It does not name the commit as git does.
    #[error("the statement's subject has no usable `{0}`: 40 hexadecimal digits in lower case")]
    Digest(&'static str),
    /// Keys are looked up in a tracker, by addresses that are made of them.
    #[error("the statement names `{0}` as an issue, and no tracker has a key of that form")]
    IssueKey(String),
    /// Its two halves speak of different things.
    #[error("the statement contradicts itself: its {what} is `{one}` in one place and `{other}` in another")]
    Contradiction {
        /// What differs.
        what: &'static str,
        /// As the subject has it.
        one: String,
        /// As the predicate has it.
        other: String,
    },
    /// More than a verdict may have.
    #[error("the statement has {count} {what}, and at most {most} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are read.
        most: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement<P> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Described>,
    predicate_type: String,
    predicate: P,
}

/// A resource descriptor of in-toto, as far as it names a commit.
#[derive(Serialize, Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
    digest: BTreeMap<String, String>,
}

const COMMIT: &str = "gitCommit";
const TREE: &str = "gitTree";

/// The statement of a verdict, as it is signed.
///
/// # Errors
/// The verdict could not be read back.
pub fn write(verdict: &Verdict) -> Result<Vec<u8>, StatementError> {
    let subject = &verdict.subject;
    let digest = [(COMMIT, &subject.commit), (TREE, &subject.tree)];
    let statement = Statement {
        kind: TYPE.to_owned(),
        subject: vec![Described {
            name: subject.repository.clone(),
            digest: digest.map(|(name, id)| (name.to_owned(), id.clone())).into(),
        }],
        predicate_type: PREDICATE.to_owned(),
        predicate: verdict,
    };
    let bytes = serde_json::to_vec(&statement).map_err(|why| StatementError::Form(why.to_string()))?;
    // What is signed must be what a reader accepts: a signature under what nobody can read proves nothing.
    read(&bytes)?;
    Ok(bytes)
}

/// Reads the verdict back.
///
/// # Errors
/// It is of another kind, or not right in itself.
pub fn read(bytes: &[u8]) -> Result<Verdict, StatementError> {
    if bytes.len() > MOST_BYTES {
        return Err(StatementError::TooLarge { bytes: bytes.len() });
    }
    let form = |why: serde_json::Error| StatementError::Form(plain(&why.to_string()));
    let Statement {
        kind,
        subject,
        predicate_type,
        predicate,
    } = serde_json::from_slice::<Statement<Value>>(bytes).map_err(form)?;
    if kind != TYPE {
        return Err(StatementError::Type(plain(&kind)));
    }
    if predicate_type != PREDICATE {
        return Err(StatementError::Predicate(plain(&predicate_type)));
    }
    let verdict: Verdict = serde_json::from_value(predicate).map_err(form)?;
    let [described] = subject.as_slice() else {
        return Err(StatementError::Subjects(subject.len()));
    };
    agrees(described, &verdict)?;
    is_bounded(&verdict)?;
    is_consistent(&verdict)?;
    let mut keys = verdict.issues.iter().flat_map(|check| &check.keys);
    match keys.find(|key| !IssueKeys::has_form(key)) {
        Some(key) => Err(StatementError::IssueKey(plain(key))),
        None => Ok(verdict),
    }
}

fn agrees(described: &Described, verdict: &Verdict) -> Result<(), StatementError> {
    let id = |name: &'static str| {
        let id = described.digest.get(name).filter(|id| is_object_name(id));
        id.ok_or(StatementError::Digest(name))
    };
    let subject = &verdict.subject;
    let pairs = [
        ("repository", &described.name, &subject.repository),
        ("commit", id(COMMIT)?, &subject.commit),
        ("tree", id(TREE)?, &subject.tree),
    ];
    for (what, one, other) in pairs {
        if one != other {
            return Err(contradiction(what, one, other));
        }
    }
    Ok(())
}

/// A full name as git writes it. Repositories that name their objects by SHA-256 are not supported yet.
fn is_object_name(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_bounded(verdict: &Verdict) -> Result<(), StatementError> {
    let counts = [
        ("findings", verdict.findings.len(), MOST_KEPT),
        ("hooks", verdict.hooks.len(), MOST_HOOKS),
        ("issues", verdict.issues.len(), MOST_ISSUES),
        ("blames", verdict.blames.len(), MOST_KEPT),
    ];
    for (what, count, most) in counts {
        if count > most {
            return Err(StatementError::TooMany { what, count, most });
        }
    }
    Ok(())
}

fn is_consistent(verdict: &Verdict) -> Result<(), StatementError> {
    let refused = verdict.hooks.iter().find(|hook| hook.passed == Passed::No);
    if let (Outcome::Passed, Some(hook)) = (&verdict.outcome, refused) {
        return Err(contradiction("outcome", "Passed", &format!("{} refused", hook.id)));
    }
    let wrong = verdict.issues.iter().find(|check| match check.result {
        IssueResult::Wrong { .. } => true,
        IssueResult::Right { .. } | IssueResult::Unavailable { .. } => false,
    });
    if let (Outcome::Passed, Some(check)) = (&verdict.outcome, wrong) {
        let other = format!("{} is wrong", check.keys.join(", "));
        return Err(contradiction("outcome", "Passed", &other));
    }
    if let (Outcome::Passed, Some(blame)) = (&verdict.outcome, verdict.blames.first()) {
        return Err(contradiction("outcome", "Passed", &blame.to_string()));
    }
    if verdict.started_at > verdict.finished_at {
        let (one, other) = (verdict.started_at.to_string(), verdict.finished_at.to_string());
        return Err(contradiction("time", &one, &other));
    }
    Ok(())
}

fn contradiction(what: &'static str, one: &str, other: &str) -> StatementError {
    StatementError::Contradiction {
        what,
        one: plain(one),
        other: plain(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commits::proof::tests::verdict;

    fn changed(change: impl FnOnce(&mut Value)) -> Result<Verdict, StatementError> {
        let mut value = serde_json::from_slice(&write(&verdict()).expect("written")).expect("JSON");
        change(&mut value);
        read(value.to_string().as_bytes())
    }

    #[test]
    fn what_is_written_is_read_back_and_has_the_form_of_in_toto() {
        let bytes = write(&verdict()).expect("written");
        assert_eq!(read(&bytes).expect("read"), verdict());
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        insta::assert_snapshot!(serde_json::to_string_pretty(&value).expect("JSON"), @r#"
        {
          "_type": "https://in-toto.io/Statement/v1",
          "subject": [
            {
              "name": "https://git.example.org/server.git",
              "digest": {
                "gitCommit": "1111111111111111111111111111111111111111",
                "gitTree": "2222222222222222222222222222222222222222"
              }
            }
          ],
          "predicateType": "https://stagegate.dev/attestation/commit-check/v1",
          "predicate": {
            "subject": {
              "repository": "https://git.example.org/server.git",
              "commit": "1111111111111111111111111111111111111111",
              "tree": "2222222222222222222222222222222222222222"
            },
            "policy": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "engine": {
              "name": "stagegate",
              "version": "0.1.0"
            },
            "hooks": [
              {
                "id": "ruff",
                "revision": "v1",
                "native": false,
                "passed": "Yes"
              }
            ],
            "outcome": {
              "result": "Passed"
            },
            "findings": [],
            "startedAt": "2026-11-01T10:00:00Z",
            "finishedAt": "2026-11-01T10:00:07Z"
          }
        }
        "#);
    }

    #[test]
    fn what_is_not_a_statement_of_ours_says_why() {
        use StatementError as E;
        let is = |said: Result<Verdict, E>, expected: &str| {
            let why = said.expect_err(expected).to_string();
            assert!(why.contains(expected), "{why}");
        };
        is(
            changed(|v| v["_type"] = json!("https://in-toto.io/Statement/v0.1")),
            "only https://in-toto.io/Statement/v1",
        );
        is(
            changed(|v| v["predicateType"] = json!("https://stagegate.dev/attestation/commit-check/v2")),
            "check/v2`, and only",
        );
        is(
            changed(|v| v["predicateType"] = json!("https://slsa.dev/provenance/v1")),
            "slsa.dev",
        );
        is(changed(|v| v["subject"] = json!([])), "0 subjects");
        is(
            changed(|v| v["subject"] = json!([v["subject"][0], v["subject"][0]])),
            "2 subjects",
        );
        for (name, id) in [("gitCommit", "11"), ("gitTree", "G"), ("gitCommit", &"A".repeat(40))] {
            is(changed(|v| v["subject"][0]["digest"][name] = json!(id)), name);
        }
        is(
            changed(|v| v["subject"][0]["digest"]["gitTree"] = json!("3".repeat(40))),
            "its tree is",
        );
        is(
            changed(|v| v["subject"][0]["digest"]["gitCommit"] = json!("3".repeat(40))),
            "its commit is",
        );
        is(
            changed(|v| v["subject"][0]["name"] = json!("other")),
            "its repository is `other`",
        );
        is(
            changed(|v| v["predicate"]["hooks"][0]["passed"] = json!("No")),
            "its outcome is",
        );
        let wrong = json!([{"commit": "c", "keys": ["ABC-1"], "result": {"result": "Wrong", "why": "x"}}]);
        is(changed(|v| v["predicate"]["issues"] = wrong), "`ABC-1 is wrong`");
        let elsewhere =
            json!([{"commit": "c", "keys": ["../../x?y="], "result": {"result": "Unavailable", "why": "x"}}]);
        is(changed(|v| v["predicate"]["issues"] = elsewhere), "names `../../x?y=`");
        is(
            changed(|v| v["predicate"]["startedAt"] = json!("2026-11-02T10:00:00Z")),
            "its time is",
        );
        is(changed(|v| v["predicate"]["more"] = json!(1)), "unknown field `more`");
        is(
            changed(|v| v["predicate"]["policy"] = json!("sha256:1")),
            "is not a digest",
        );
        is(
            changed(|v| v["predicate"]["findings"] = json!(vec![1; MOST_KEPT + 1])),
            "1001 findings",
        );
        is(read(b"{"), "EOF");
        is(read(&vec![b' '; MOST_BYTES + 1]), "at most 2097152");
        // What others add to a statement is theirs.
        assert!(changed(|v| v["subject"][0]["digest"]["sha256"] = json!("x")).is_ok());
        assert!(changed(|v| v["more"] = json!(1)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_statement_or_an_error(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}

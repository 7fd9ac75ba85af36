//! A commit policy: from YAML to rules that can be asked, with everything that is wrong at once.

mod spec;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use regex::bytes::{RegexSet, RegexSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use super::finding::{Level, Rule};
use super::message::keys::IssueKeys;
use super::message::signature::PublicKey;
use super::proof::envelope;
use crate::model::text::path::Path;
use crate::model::text::{self, Document, Ink, Problem, Problems, Sources};
use crate::model::values::Digest;

pub use spec::{
    AttestSpec, BodySpec, BoundsSpec, CommitPolicySpec, ContentSpec, ConventionalSpec, ExemptSpec, HooksSpec,
    IssueKeysSpec, IssueSpec, LargeFileSpec, MessageSpec, Mode, Place, PlainMessageSpec, RefsSpec, RuleSpec,
    SecretSpec, SubjectSpec, SubmoduleSpec, TrustFor, TrustSpec, Unavailable, YamlSpec,
};

/// The kind of the resource.
pub const KIND: &str = "CommitPolicy";
/// Where a repository keeps its policy.
pub const PATH: &str = "hooks/policy.yaml";
/// Compiled size of all regular expressions of a policy. Text of a person's length compiles to some 10 kB.
const MOST_REGEX_BYTES: usize = 1 << 20;

/// A policy that is right, ready to be asked.
#[derive(Debug, Clone)]
pub struct Policy {
    /// As it was written.
    pub spec: CommitPolicySpec,
    /// Of its text; verdicts name it. Of the built-in policy, that of the empty text.
    pub digest: Digest,
    /// Branches, without `refs/heads/`.
    pub protected: GlobSet,
    /// Protected branches that may be deleted or rewound.
    pub may_rewind: GlobSet,
    /// Refs that are allowed beside the usual.
    pub allowed_refs: GlobSet,
    /// Paths at which submodules are allowed.
    pub submodules: GlobSet,
    /// Tokens that are no secrets.
    pub harmless: RegexSet,
    /// Keys that a message may name.
    pub keys: IssueKeys,
    /// Whose signature exempts.
    pub signers: Vec<PublicKey>,
    /// Whose proofs count, and for what.
    pub trusted: Vec<(envelope::PublicKey, Vec<TrustFor>)>,
    rules: Vec<Scope>,
}

/// Where a rule holds.
#[derive(Debug, Clone)]
struct Scope {
    mode: Mode,
    exclude: GlobSet,
}

/// A policy text that cannot be used: everything that is wrong, with places.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rendered}")]
pub struct InvalidPolicy {
    /// As people read it.
    pub rendered: String,
    /// Each problem with its line, 0 where it has none.
    pub problems: Vec<(usize, String)>,
}

impl InvalidPolicy {
    /// There is something in its place that is no file.
    #[must_use]
    pub fn no_file(name: &str) -> Self {
        let problem = "is no regular file, and a policy is one";
        Self {
            rendered: format!("{name} {problem}"),
            problems: vec![(0, problem.to_owned())],
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resource {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Metadata,
    spec: CommitPolicySpec,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: String,
}

impl Policy {
    /// What holds where no policy is: content refuses, messages suggest, no issue keys.
    ///
    #[must_use]
    pub fn built_in() -> Self {
        let mut problems = Vec::new();
        let policy = compile(CommitPolicySpec::default(), &mut problems);
        debug_assert!(problems.is_empty(), "{problems:?}");
        policy
    }

    /// Reads a policy; `name` is what messages call the text.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(name: &str, text: &[u8]) -> Result<Self, InvalidPolicy> {
        let Ok(utf8) = std::str::from_utf8(text) else {
            let message = format!("{name} is not UTF-8");
            return Err(InvalidPolicy {
                rendered: message.clone(),
                problems: vec![(0, message)],
            });
        };
        let mut sources = Sources::new();
        let source = sources.add(name, utf8);
        let mut problems = Problems::new();
        let documents = text::documents(&sources, source, &[KIND], &mut problems);
        let document = match documents.as_slice() {
            [one] => one,
            more => {
                if problems.is_empty() {
                    problems.push(not_one(name, more.len()));
                }
                return Err(invalid(&problems, &sources));
            }
        };
        match Self::of_document(document) {
            Ok(mut policy) if problems.is_empty() => {
                policy.digest = Digest::of(text);
                Ok(policy)
            }
            Ok(_) => Err(invalid(&problems, &sources)),
            Err(more) => {
                problems.extend(more);
                Err(invalid(&problems, &sources))
            }
        }
    }

    /// Checks a document that is one of a policy.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn of_document(document: &Document) -> Result<Self, Problems> {
        let spec = text::decode::<Resource>(document)?.spec;
        let mut wrong = Vec::new();
        let policy = compile(spec, &mut wrong);
        let mut problems = Problems::new();
        for (path, message, hint) in wrong {
            let path = Path::root().key("spec").join(&path);
            problems.push(Problem::in_tree(&document.tree, &path, message).hint(hint));
        }
        problems.into_result(policy)
    }

    /// How binding a rule is.
    #[must_use]
    pub fn mode(&self, rule: Rule) -> Mode {
        self.scope(rule).mode
    }

    /// How a finding of this rule counts; none where the rule asks for nothing.
    #[must_use]
    pub fn level(&self, rule: Rule) -> Option<Level> {
        match self.mode(rule) {
            Mode::Mandatory => Some(Level::Refused),
            Mode::Suggested => Some(Level::Warned),
            Mode::Optional => None,
        }
    }

    /// Whether a rule of content looks at this file.
    #[must_use]
    pub fn covers(&self, rule: Rule, path: &[u8]) -> bool {
        let Scope { mode, exclude } = self.scope(rule);
        *mode != Mode::Optional && (exclude.is_empty() || !exclude.is_match(file_path(path)))
    }

    /// Whether a branch, without `refs/heads/`, is protected.
    #[must_use]
    pub fn protects(&self, branch: &str) -> bool {
        self.protected.is_match(branch)
    }

    fn scope(&self, rule: Rule) -> &Scope {
        &self.rules[rule as usize]
    }
}

/// git's names are bytes, and so are paths here.
pub(super) fn file_path(path: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt as _;
    std::path::Path::new(std::ffi::OsStr::from_bytes(path))
}

/// A text without any policy has begun to be one, or was emptied: what it has to hold is not to be guessed.
fn not_one(name: &str, policies: usize) -> Problem {
    match policies {
        0 => Problem::new(format!("{name} states no policy")).hint(format!(
            "write `apiVersion: stagegate.dev/v1alpha1`, `kind: {KIND}`, `metadata: {{name: ours}}` and `spec: {{}}`, a line \
             each; without the file the built-in policy holds"
        )),
        more => Problem::new(format!("{name} states {more} policies, and must state one")),
    }
}

fn invalid(problems: &Problems, sources: &Sources) -> InvalidPolicy {
    InvalidPolicy {
        rendered: problems.render(sources, Ink::Plain),
        problems: problems
            .iter()
            .map(|p| (p.span.map_or(0, |span| span.start.line), p.to_string()))
            .collect(),
    }
}

type Wrong = Vec<(Path, String, String)>;

fn compile(spec: CommitPolicySpec, wrong: &mut Wrong) -> Policy {
    let content = Path::root().key("content");
    let refs = Path::root().key("refs");
    let exempt = Path::root().key("exempt");
    let ContentSpec { secret, submodule, .. } = &spec.content;
    if let Some(since) = &spec.since
        && !(since.len() == 40 && since.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        wrong.push((
            Path::root().key("since"),
            format!("`{since}` is not a commit's full name"),
            "`git rev-parse COMMIT` prints it; a date would not do, since anybody can write one into a commit"
                .to_owned(),
        ));
    }
    let keys = &spec.message.issue_keys;
    let at_keys = Path::root().key("message").key("issueKeys");
    if keys.mode != Mode::Optional && keys.projects.is_empty() {
        wrong.push((
            at_keys.clone(),
            "issue keys are asked for, but of no project".to_owned(),
            "name the tracker's projects, as `projects: [ATLAS]`; without them `UTF-8` would be a key".to_owned(),
        ));
    }
    for (i, project) in keys.projects.iter().enumerate() {
        if !IssueKeys::is_project(project) {
            wrong.push((
                at_keys.key("projects").index(i),
                format!("`{project}` cannot be a project's key"),
                "two or more of A-Z, 0-9 and `_`, with a letter first, as `ATLAS`".to_owned(),
            ));
        }
    }
    let issue = &spec.message.issue;
    if issue.mode != Mode::Optional {
        let at_issue = Path::root().key("message").key("issue");
        if issue.tracker.is_none() {
            wrong.push((
                at_issue.clone(),
                "issues are to be looked up, but in no tracker".to_owned(),
                "name an IssueTracker of the server's workspace, as `tracker: jira`".to_owned(),
            ));
        }
        if keys.projects.is_empty() {
            wrong.push((
                at_issue,
                "issues are to be looked up, but of no project".to_owned(),
                "name the tracker's projects in `issueKeys`, as `projects: [ATLAS]`".to_owned(),
            ));
        }
    }
    let mut signers = Vec::new();
    for (i, signer) in spec.exempt.signers.iter().enumerate() {
        match PublicKey::read(signer) {
            Ok(key) => signers.push(key),
            Err(why) => wrong.push((
                exempt.key("signers").index(i),
                format!("`{signer}` is not a key that can be checked: {why}"),
                "write `ssh-ed25519 AAAA…`, as `ssh-keygen -t ed25519` prints into the .pub file".to_owned(),
            )),
        }
    }
    let mut trusted = Vec::new();
    let at_trust = Path::root().key("attest").key("trust");
    for (i, trust) in spec.attest.trust.iter().enumerate() {
        match trust.public_key.parse::<envelope::PublicKey>() {
            Ok(key) => trusted.push((key, trust.what.clone())),
            Err(why) => wrong.push((
                at_trust.index(i).key("publicKey"),
                format!("`{}` is no key", trust.public_key),
                why.to_string(),
            )),
        }
    }
    Policy {
        digest: Digest::of(b""),
        protected: globs(&spec.protected, &Path::root().key("protected"), wrong),
        may_rewind: globs(&spec.refs.may_rewind, &refs.key("mayRewind"), wrong),
        allowed_refs: globs(&spec.refs.allow, &refs.key("allow"), wrong),
        submodules: globs(&submodule.allow, &content.key("submodule").key("allow"), wrong),
        harmless: expressions(&secret.allow, &content.key("secret").key("allow"), wrong),
        keys: IssueKeys::new(&keys.projects),
        signers,
        trusted,
        rules: Rule::ALL.iter().map(|rule| scope(*rule, &spec, wrong)).collect(),
        spec,
    }
}

fn scope(rule: Rule, spec: &CommitPolicySpec, wrong: &mut Wrong) -> Scope {
    let c = &spec.content;
    let m = &spec.message;
    let plain = |r: &RuleSpec| (r.mode, r.exclude.clone());
    let always = (Mode::Mandatory, Vec::new());
    let (key, (mode, exclude)) = match rule {
        Rule::PrivateKey => ("privateKey", plain(&c.private_key)),
        Rule::Secret => ("secret", (c.secret.mode, c.secret.exclude.clone())),
        Rule::LargeFile => ("largeFile", (c.large_file.mode, c.large_file.exclude.clone())),
        Rule::LfsPointer => ("lfsPointer", plain(&c.lfs_pointer)),
        Rule::ConflictMarker => ("conflictMarker", plain(&c.conflict_marker)),
        Rule::ExecutableShebang => ("executableShebang", plain(&c.executable_shebang)),
        Rule::ShebangExecutable => ("shebangExecutable", plain(&c.shebang_executable)),
        Rule::FileMode => ("fileMode", plain(&c.file_mode)),
        Rule::Symlink => ("symlink", plain(&c.symlink)),
        Rule::Submodule => ("submodule", (c.submodule.mode, Vec::new())),
        Rule::PathName => ("pathName", plain(&c.path_name)),
        Rule::CaseConflict => ("caseConflict", plain(&c.case_conflict)),
        Rule::TrailingWhitespace => ("trailingWhitespace", plain(&c.trailing_whitespace)),
        Rule::EndOfFile => ("endOfFile", plain(&c.end_of_file)),
        Rule::LineEndings => ("lineEndings", plain(&c.line_endings)),
        Rule::YamlSyntax => ("yamlSyntax", (c.yaml_syntax.mode, c.yaml_syntax.exclude.clone())),
        Rule::JsonSyntax => ("jsonSyntax", plain(&c.json_syntax)),
        Rule::TomlSyntax => ("tomlSyntax", plain(&c.toml_syntax)),
        Rule::MessageText => ("", (m.text.mode, Vec::new())),
        Rule::IssueKey => ("", (m.issue_keys.mode, Vec::new())),
        Rule::Issue => ("", (m.issue.mode, Vec::new())),
        Rule::Conventional => ("", (m.conventional.mode, Vec::new())),
        Rule::Subject => ("", (m.subject.mode, Vec::new())),
        Rule::Body => ("", (m.body.mode, Vec::new())),
        Rule::Fixup => ("", (m.fixups.mode, Vec::new())),
        Rule::Hook => ("", (spec.hooks.mode, Vec::new())),
        Rule::PolicyFile | Rule::RefDelete | Rule::RefRewind | Rule::RefName | Rule::Bounds => ("", always),
    };
    let content = Path::root().key("content");
    let mut patterns = exclude;
    let own = globs(&patterns, &content.key(key).key("exclude"), wrong);
    if !is_of_form(rule) {
        return Scope { mode, exclude: own };
    }
    // Said once for all, not once a rule.
    let (before, at_all) = (wrong.len(), content.key("exclude"));
    globs(&c.exclude, &at_all, wrong);
    if rule != Rule::TrailingWhitespace {
        wrong.truncate(before);
    }
    patterns.extend(c.exclude.iter().cloned());
    Scope {
        mode,
        exclude: globs(&patterns, &at_all, &mut Vec::new()),
    }
}

/// Whether a rule is about how a file is written rather than about what it can do.
fn is_of_form(rule: Rule) -> bool {
    match rule {
        Rule::ConflictMarker
        | Rule::ExecutableShebang
        | Rule::ShebangExecutable
        | Rule::TrailingWhitespace
        | Rule::EndOfFile
        | Rule::LineEndings
        | Rule::YamlSyntax
        | Rule::JsonSyntax
        | Rule::TomlSyntax => true,
        Rule::PrivateKey
        | Rule::Secret
        | Rule::LargeFile
        | Rule::LfsPointer
        | Rule::FileMode
        | Rule::Symlink
        | Rule::Submodule
        | Rule::PathName
        | Rule::CaseConflict
        | Rule::PolicyFile
        | Rule::MessageText
        | Rule::IssueKey
        | Rule::Issue
        | Rule::Conventional
        | Rule::Subject
        | Rule::Body
        | Rule::Fixup
        | Rule::RefDelete
        | Rule::RefRewind
        | Rule::RefName
        | Rule::Bounds
        | Rule::Hook => false,
    }
}

fn globs(patterns: &[String], at: &Path, wrong: &mut Wrong) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for (i, pattern) in patterns.iter().enumerate() {
        match GlobBuilder::new(pattern).literal_separator(true).build() {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) => wrong.push((
                at.index(i),
                format!("`{pattern}` cannot be read as a path pattern: {}", error.kind()),
                "`*` stands for what has no `/`, `**` for anything, as `vendor/**`".to_owned(),
            )),
        }
    }
    set.build().unwrap_or_else(|error| {
        wrong.push((
            at.clone(),
            format!("the patterns cannot be used together: {error}"),
            "use fewer or shorter ones".to_owned(),
        ));
        GlobSet::empty()
    })
}

fn expressions(patterns: &[String], at: &Path, wrong: &mut Wrong) -> RegexSet {
    let compiled = |patterns: &[String]| RegexSetBuilder::new(patterns).size_limit(MOST_REGEX_BYTES).build();
    for (i, pattern) in patterns.iter().enumerate() {
        if let Err(error) = compiled(std::slice::from_ref(pattern)) {
            let why = error.to_string();
            wrong.push((
                at.index(i),
                format!("`{pattern}` is no regular expression"),
                why.lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .trim_start_matches("error: ")
                    .to_owned(),
            ));
            return RegexSet::empty();
        }
    }
    compiled(patterns).unwrap_or_else(|error| {
        wrong.push((
            at.clone(),
            format!("the expressions cannot be used together: {error}"),
            "use fewer or shorter ones".to_owned(),
        ));
        RegexSet::empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::schema::unsupported_keywords;

    const HEAD: &str = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\n";

    fn read(spec: &str) -> Result<Policy, InvalidPolicy> {
        Policy::read("policy.yaml", format!("{HEAD}spec:\n{spec}").as_bytes())
    }

    #[test]
    fn without_a_policy_content_refuses_messages_suggest_and_no_key_is_asked_for() {
        let mut wrong = Vec::new();
        compile(CommitPolicySpec::default(), &mut wrong);
        assert_eq!(wrong, []);
        let policy = Policy::built_in();
        for rule in [
            Rule::PrivateKey,
            Rule::LargeFile,
            Rule::TrailingWhitespace,
            Rule::YamlSyntax,
        ] {
            assert_eq!(policy.level(rule), Some(Level::Refused), "{rule}");
        }
        for rule in [Rule::Subject, Rule::Body, Rule::Fixup, Rule::MessageText] {
            assert_eq!(policy.level(rule), Some(Level::Warned), "{rule}");
        }
        assert_eq!(policy.level(Rule::IssueKey), None);
        assert!(policy.protects("main") && !policy.protects("topic"));
    }

    #[test]
    fn a_policy_that_states_little_differs_little() {
        let policy = read("  content: {largeFile: {limitKib: 20}}\n  protected: [main, 'release/*']\n").expect("valid");
        assert_eq!(policy.spec.content.large_file.mode, Mode::Mandatory);
        assert_eq!(policy.spec.content.large_file.limit_kib, 20);
        assert!(policy.protects("release/1") && !policy.protects("release/1/x") && !policy.protects("master"));
    }

    #[test]
    fn everything_wrong_with_a_policy_is_said_with_its_line() {
        let spec = "  since: 2026-11-01\n  content:\n    exclude: ['a[']\n    secret: {allow: ['(']}\n  message:\n    \
                    issueKeys: {mode: MANDATORY}\n  exempt: {signers: [ssh-rsa]}\n";
        insta::assert_snapshot!(read(spec).unwrap_err(), @"
        error: `2026-11-01` is not a commit's full name
         --> policy.yaml:5:10
          |
        5 |   since: 2026-11-01
          |          ^^^^^^^^^^ spec.since
          |
          = help: `git rev-parse COMMIT` prints it; a date would not do, since anybody can write one into a commit

        error: `a[` cannot be read as a path pattern: unclosed character class; missing ']'
         --> policy.yaml:7:15
          |
        7 |     exclude: ['a[']
          |               ^^^^ spec.content.exclude[0]
          |
          = help: `*` stands for what has no `/`, `**` for anything, as `vendor/**`

        error: `(` is no regular expression
         --> policy.yaml:8:22
          |
        8 |     secret: {allow: ['(']}
          |                      ^^^ spec.content.secret.allow[0]
          |
          = help: unclosed group

        error: issue keys are asked for, but of no project
          --> policy.yaml:10:16
           |
        10 |     issueKeys: {mode: MANDATORY}
           |                ^^^^^^^^^^^^^^^^^ spec.message.issueKeys
           |
           = help: name the tracker's projects, as `projects: [ATLAS]`; without them `UTF-8` would be a key

        error: `ssh-rsa` is not a key that can be checked: only ssh-ed25519 keys are known
          --> policy.yaml:11:22
           |
        11 |   exempt: {signers: [ssh-rsa]}
           |                      ^^^^^^^ spec.exempt.signers[0]
           |
           = help: write `ssh-ed25519 AAAA…`, as `ssh-keygen -t ed25519` prints into the .pub file
        ");
    }

    #[test]
    fn a_trusted_key_is_a_key_and_says_for_what() {
        let key = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let policy = read(&format!(
            "  attest: {{trust: [{{publicKey: '{key}', for: [content, hooks]}}]}}\n"
        ))
        .expect("valid");
        assert_eq!(policy.trusted[0].0.to_string(), key);
        assert_eq!(policy.trusted[0].1, [TrustFor::Content, TrustFor::Hooks]);
        for (wrong, said) in [
            (format!("publicKey: '{key}', for: []"), "attest.trust[0].for"),
            (format!("publicKey: '{key}'"), "`for`"),
            (format!("publicKey: '{key}', for: [message]"), "message"),
            (
                "publicKey: 'ed25519:AAAA', for: [hooks]".to_owned(),
                "`ed25519:AAAA` is no key",
            ),
            ("keyId: 1, for: [hooks]".to_owned(), "keyId"),
        ] {
            let why = read(&format!("  attest: {{trust: [{{{wrong}}}]}}\n"))
                .unwrap_err()
                .to_string();
            assert!(why.contains(said), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_mistyped_key_is_no_rule_that_is_off() {
        let said = read("  content: {privatKey: {mode: OPTIONAL}}\n  mesage: {}\n").unwrap_err();
        assert_eq!(said.problems.len(), 2, "{said}");
        assert!(said.rendered.contains("did you mean `privateKey`?"), "{said}");
        for text in ["", "a: [", "spec: {}", "\u{0}", "---\n---\n"] {
            assert!(Policy::read("p", text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Policy::read("p", b"\xff\xfe").is_err());
    }

    #[test]
    fn a_text_without_a_policy_is_told_what_one_holds_and_that_is_one() {
        for text in ["", "\n", "# to be written\n", "---\n"] {
            let said = Policy::read("p", text.as_bytes()).unwrap_err().rendered;
            assert!(said.contains("p states no policy"), "{text:?}: {said}");
            let lines: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
            assert!(Policy::read("p", lines.join("\n").as_bytes()).is_ok(), "{lines:?}");
        }
        let two = format!("{HEAD}spec: {{}}\n---\n{HEAD}spec: {{}}\n");
        let said = Policy::read("p", two.as_bytes()).unwrap_err().rendered;
        assert!(said.contains("p states 2 policies, and must state one"), "{said}");
    }

    #[test]
    fn what_is_excluded_for_form_is_still_searched_for_keys() {
        let policy = read("  content:\n    exclude: ['vendor/**']\n    symlink: {exclude: [link]}\n").expect("valid");
        assert!(!policy.covers(Rule::TrailingWhitespace, b"vendor/a/b.c"));
        assert!(policy.covers(Rule::PrivateKey, b"vendor/a/b.c"));
        assert!(policy.covers(Rule::TrailingWhitespace, b"src/vendor/b.c"));
        assert!(!policy.covers(Rule::Symlink, b"link") && policy.covers(Rule::Symlink, b"a/link"));
        assert!(policy.covers(Rule::TrailingWhitespace, b"latin-\xe9"));
    }

    #[test]
    fn the_schema_check_knows_every_keyword_of_a_policy() {
        assert_eq!(
            unsupported_keywords(&schemars::schema_for!(Resource)),
            Vec::<String>::new()
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_policy_or_a_problem(text in "\\PC{0,200}") {
            let _ = Policy::read("p", text.as_bytes());
            let _ = read(&text);
        }
    }
}

//! The keys of a commit policy. What is left out is as without any policy: rules of content refuse, rules of messages
//! suggest, and no issue key is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How binding a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// What breaks it is refused.
    Mandatory,
    /// What breaks it is said, and goes on.
    Suggested,
    /// Nothing is asked for. Where a rule is about something that may be left out (issue keys, conventional commits), what
    /// is there and wrong is said.
    Optional,
}

/// What is asked of commits before they travel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CommitPolicySpec {
    /// What it is for.
    pub description: String,
    /// Branches that only go forward and whose commits are checked again when they arrive there, as `main` or `release/*`.
    /// The branch that the policy is read from is always one.
    pub protected: Vec<String>,
    /// A commit, 40 hexadecimal digits: it and everything before it is history, and spared.
    pub since: Option<String>,
    /// What files must be.
    pub content: ContentSpec,
    /// What messages must say.
    pub message: MessageSpec,
    /// Which refs may be pushed.
    pub refs: RefsSpec,
    /// Whose commits need not follow the rules of messages.
    pub exempt: ExemptSpec,
    /// How much one push may carry.
    pub bounds: BoundsSpec,
    /// The repository's own hooks.
    pub hooks: HooksSpec,
    /// Signed proof that commits were checked.
    pub attest: AttestSpec,
}

impl Default for CommitPolicySpec {
    fn default() -> Self {
        Self {
            description: String::new(),
            protected: vec!["main".to_owned(), "master".to_owned()],
            since: None,
            content: ContentSpec::default(),
            message: MessageSpec::default(),
            refs: RefsSpec::default(),
            exempt: ExemptSpec::default(),
            bounds: BoundsSpec::default(),
            hooks: HooksSpec::default(),
            attest: AttestSpec::default(),
        }
    }
}

/// What files must be. Paths are written as `docs/*.md` or `vendor/**`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ContentSpec {
    /// Files that the rules of form leave alone: blanks, ends, line endings, syntax, shebangs, conflict markers. What is
    /// dangerous (keys, secrets, sizes, links, names) is excluded rule by rule only.
    pub exclude: Vec<String>,
    /// No private key.
    pub private_key: RuleSpec,
    /// No token of a well-known service.
    pub secret: SecretSpec,
    /// Sizes.
    pub large_file: LargeFileSpec,
    /// What begins like a Git LFS pointer is one.
    pub lfs_pointer: RuleSpec,
    /// No unresolved conflict: only whole triples of markers count.
    pub conflict_marker: RuleSpec,
    /// A text file with the executable bit begins with `#!`.
    pub executable_shebang: RuleSpec,
    /// A text file that begins with `#!` has the executable bit.
    pub shebang_executable: RuleSpec,
    /// Modes are 100644, 100755 or 120000.
    pub file_mode: RuleSpec,
    /// Symbolic links stay inside the repository.
    pub symlink: RuleSpec,
    /// Other repositories.
    pub submodule: SubmoduleSpec,
    /// No name can be taken for `.git`, or leaves the repository.
    pub path_name: RuleSpec,
    /// Names differ in more than case.
    pub case_conflict: RuleSpec,
    /// No blanks at the end of lines.
    pub trailing_whitespace: RuleSpec,
    /// One line ending at the end.
    pub end_of_file: RuleSpec,
    /// One kind of line ending.
    pub line_endings: RuleSpec,
    /// YAML can be read.
    pub yaml_syntax: YamlSpec,
    /// JSON can be read, and no key stands twice.
    pub json_syntax: RuleSpec,
    /// TOML can be read.
    pub toml_syntax: RuleSpec,
}

/// A rule of content with nothing of its own to set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSpec {
    /// How binding it is.
    pub mode: Mode,
    /// Files that it leaves alone.
    pub exclude: Vec<String>,
}

impl Default for RuleSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Mandatory,
            exclude: Vec::new(),
        }
    }
}

/// Tokens of well-known services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSpec {
    /// How binding it is.
    pub mode: Mode,
    /// Files that it leaves alone.
    pub exclude: Vec<String>,
    /// Regular expressions of tokens that are known to be harmless, as examples in documentation are.
    pub allow: Vec<String>,
}

impl Default for SecretSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Mandatory,
            exclude: Vec::new(),
            allow: Vec::new(),
        }
    }
}

/// How large a file may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LargeFileSpec {
    /// How binding it is.
    pub mode: Mode,
    /// Files that it leaves alone.
    pub exclude: Vec<String>,
    /// Largest size in KiB, rounded up, as pre-commit's `check-added-large-files --maxkb`; but modified files count, too.
    #[schemars(range(min = 1))]
    pub limit_kib: u64,
}

impl Default for LargeFileSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Mandatory,
            exclude: Vec::new(),
            limit_kib: 500,
        }
    }
}

/// Where other repositories may be included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmoduleSpec {
    /// How binding it is.
    pub mode: Mode,
    /// Paths at which a submodule is allowed.
    pub allow: Vec<String>,
}

impl Default for SubmoduleSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Mandatory,
            allow: Vec::new(),
        }
    }
}

/// How YAML may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct YamlSpec {
    /// How binding it is.
    pub mode: Mode,
    /// Files that it leaves alone.
    pub exclude: Vec<String>,
    /// Whether a file may have several documents; pre-commit's `check-yaml` wants `--allow-multiple-documents` for it.
    pub multiple_documents: bool,
}

impl Default for YamlSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Mandatory,
            exclude: Vec::new(),
            multiple_documents: true,
        }
    }
}

/// What messages must say. Merges (two parents or more) are spared all but `text`; a revert that names an ancestor of its
/// own is spared `issueKeys`, `conventional` and `subject`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MessageSpec {
    /// Text in a known encoding, without zero bytes, of bounded length.
    pub text: PlainMessageSpec,
    /// Keys of an issue tracker.
    pub issue_keys: IssueKeysSpec,
    /// What the tracker says of them.
    pub issue: IssueSpec,
    /// `type(scope): description`.
    pub conventional: ConventionalSpec,
    /// The first line.
    pub subject: SubjectSpec,
    /// What follows it.
    pub body: BodySpec,
    /// `fixup!`, `squash!`, `amend!` and `WIP` on protected branches.
    pub fixups: PlainMessageSpec,
}

/// A rule of messages with nothing of its own to set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PlainMessageSpec {
    /// How binding it is.
    pub mode: Mode,
}

impl Default for PlainMessageSpec {
    fn default() -> Self {
        Self { mode: Mode::Suggested }
    }
}

/// Keys of an issue tracker, as `ATLAS-123`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueKeysSpec {
    /// How binding it is.
    pub mode: Mode,
    /// The projects whose keys count. Without them `UTF-8` and `ORA-00001` would be keys. A message with one key of these
    /// is right; what else looks like a key is no matter.
    pub projects: Vec<String>,
    /// Where a key may stand.
    pub places: Vec<Place>,
}

impl Default for IssueKeysSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Optional,
            projects: Vec::new(),
            places: vec![Place::Subject, Place::Trailer],
        }
    }
}

/// What the tracker says of the keys that a message names: one of them must be an issue of one of `issueKeys.projects`, and as
/// it is said here. The tracker is asked by full runs and before upgrades, never by a push or on a developer's machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueSpec {
    /// How binding it is.
    pub mode: Mode,
    /// Which tracker: an `IssueTracker` of the workspace of who asks.
    pub tracker: Option<String>,
    /// Names of the types that it may have; any when there are none.
    pub types: Vec<String>,
    /// Names of the statuses that it may have; any when there are none.
    pub statuses: Vec<String>,
    /// What becomes of a commit while the tracker cannot be asked.
    pub unavailable: Unavailable,
}

impl Default for IssueSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Optional,
            tracker: None,
            types: Vec::new(),
            statuses: Vec::new(),
            unavailable: Unavailable::Defer,
        }
    }
}

/// What becomes of a commit while a tracker cannot be asked. It is proven in neither case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Unavailable {
    /// It passes with that written down, and the tracker is asked before it is built upon.
    Defer,
    /// It does not pass until the tracker was asked.
    Refuse,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// The first line.
    Subject,
    /// Any line after it.
    Body,
    /// A line as `Refs: ABC-1` in the last paragraph.
    Trailer,
}

/// Conventional Commits 1.0.0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ConventionalSpec {
    /// How binding it is.
    pub mode: Mode,
    /// The types that are known.
    #[schemars(length(min = 1))]
    pub types: Vec<String>,
    /// The scopes that are known; any when there are none.
    pub scopes: Vec<String>,
}

impl Default for ConventionalSpec {
    fn default() -> Self {
        // As commitlint's config-conventional has them.
        let types = [
            "build", "chore", "ci", "docs", "feat", "fix", "perf", "refactor", "revert", "style", "test",
        ];
        Self {
            mode: Mode::Optional,
            types: types.map(str::to_owned).to_vec(),
            scopes: Vec::new(),
        }
    }
}

/// How a subject is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SubjectSpec {
    /// How binding it is.
    pub mode: Mode,
    /// Longest, in characters.
    #[schemars(range(min = 10))]
    pub max_chars: usize,
}

impl Default for SubjectSpec {
    fn default() -> Self {
        // gitlint's T1; commitlint allows 100.
        Self {
            mode: Mode::Suggested,
            max_chars: 72,
        }
    }
}

/// How a body is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct BodySpec {
    /// How binding it is.
    pub mode: Mode,
    /// Longest line, in characters. Lines with an address, code, quotes and trailers may be longer.
    #[schemars(range(min = 20))]
    pub max_chars: usize,
}

impl Default for BodySpec {
    fn default() -> Self {
        // commitlint's body-max-line-length.
        Self {
            mode: Mode::Suggested,
            max_chars: 100,
        }
    }
}

/// Which refs may be pushed, beside branches, tags and notes. What changes how the rest is seen (`refs/replace/`) never may.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RefsSpec {
    /// More of them, as `refs/for/*`.
    pub allow: Vec<String>,
    /// Protected branches that may be deleted or rewound, as `release/old-*`.
    pub may_rewind: Vec<String>,
}

/// Who is exempt from the rules of messages, by an identity that cannot be typed into a commit. Rules of content hold for
/// all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ExemptSpec {
    /// GitHub Apps by their ids. GitHub has to say that an App of these made a commit itself, by its own signature; for a title,
    /// that it opened the pull request.
    pub apps: Vec<u64>,
    /// Who pushes, as the server names them in the variable that `pre-receive --pusher-from` is told.
    pub pushers: Vec<String>,
    /// SSH public keys (`ssh-ed25519 AAAA…`) whose signature under a commit exempts it.
    pub signers: Vec<String>,
}

/// How much one push may carry. What is over is refused, with the way to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct BoundsSpec {
    /// New commits.
    #[schemars(range(min = 1))]
    pub commits: usize,
    /// New versions of files.
    #[schemars(range(min = 1))]
    pub files: usize,
    /// Their size together, in MiB.
    #[schemars(range(min = 1))]
    pub mib: u64,
}

impl Default for BoundsSpec {
    fn default() -> Self {
        // Some 1 s of work on one core: a commit costs 0.2 ms and scanning 200 MiB/s. A day's work of a team has a tenth.
        Self {
            commits: 2_000,
            files: 20_000,
            mib: 128,
        }
    }
}

/// The repository's own hooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HooksSpec {
    /// How binding they are.
    pub mode: Mode,
    /// Where they are listed.
    pub config: String,
    /// Seconds that one of them may take in a full run; more is a hook that fails.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_s: u64,
}

impl Default for HooksSpec {
    fn default() -> Self {
        Self {
            mode: Mode::Mandatory,
            config: ".pre-commit-config.yaml".to_owned(),
            // A linter of a large repository takes a minute on one core.
            timeout_s: 300,
        }
    }
}

/// Signed proof that commits were checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AttestSpec {
    /// What proofs call this repository, so that they mean the same on the server and on every clone: its URL, as a rule.
    /// Without it, it is the address of the remote, without user and password, and on a server the directory.
    pub repository: Option<String>,
    /// Keys of others whose word counts: those of developers' machines, or of another server.
    pub trust: Vec<TrustSpec>,
}

/// A key of somebody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustSpec {
    /// Whose it is.
    #[serde(default)]
    pub name: String,
    /// The key itself, not its name: a policy must say all that is needed to check by it. `stagegate attest key list -o json`
    /// prints it, as `ed25519:` with 44 characters.
    pub public_key: String,
    /// What its word counts for.
    #[serde(rename = "for")]
    #[schemars(length(min = 1))]
    pub what: Vec<TrustFor>,
}

/// What a key's word counts for. Messages are not in the list: what they must say depends on the branch where they arrive and
/// on who pushes, and looking at them takes microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TrustFor {
    /// A push need not be searched again for what rules of content find.
    Content,
    /// `attest verify` and a Build's `HooksPassed` go by it.
    Hooks,
}

impl TrustFor {
    /// As a policy writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            TrustFor::Content => "content",
            TrustFor::Hooks => "hooks",
        }
    }
}

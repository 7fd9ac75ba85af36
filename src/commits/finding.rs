//! What a rule has to say: which rule, where, what is wrong, what to do.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// Findings kept of one run. A person mends the first few and runs again; what a push carries must not fill the memory.
pub const MOST_KEPT: usize = 1_000;
/// Longest path or message that is shown, in characters. Paths may have 4,096 bytes, and a terminal has 100 columns.
const MOST_SHOWN_CHARS: usize = 300;

macro_rules! rules {
    ($($variant:ident $name:literal $about:literal)*) => {
        /// Every rule, under the name that findings, policies and programs know it by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $about] $variant,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Rule] = &[$(Rule::$variant,)*];

            /// As it is written.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)* }
            }

            /// What it asks, in a sentence.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Rule::$variant => $about,)* }
            }
        }
    };
}

rules! {
    PrivateKey "private-key" "No private key is committed."
    Secret "secret" "No token of a well-known service, and no URL with a password, is committed or is part of a name."
    LargeFile "large-file" "Files stay below a size; larger ones go where large files are kept."
    LfsPointer "lfs-pointer" "What begins like a Git LFS pointer is one."
    ConflictMarker "conflict-marker" "No unresolved conflict is committed."
    ExecutableShebang "executable-shebang" "A text file that may be executed says by what."
    ShebangExecutable "shebang-executable" "A script that says by what it is executed may be."
    FileMode "file-mode" "Files have one of the modes that git writes."
    Symlink "symlink" "Symbolic links stay inside the repository."
    Submodule "submodule" "Other repositories are included only where the policy allows it."
    PathName "path-name" "No name can be taken for git's own directory, or leaves the repository."
    CaseConflict "case-conflict" "Names differ in more than case."
    TrailingWhitespace "trailing-whitespace" "Lines do not end in blanks."
    EndOfFile "end-of-file" "Files end in one line ending."
    LineEndings "line-endings" "A file has one kind of line ending."
    YamlSyntax "yaml-syntax" "YAML can be read."
    JsonSyntax "json-syntax" "JSON can be read."
    TomlSyntax "toml-syntax" "TOML can be read."
    PolicyFile "policy-file" "The commit policy itself is valid."
    MessageText "message-text" "A message is text of bounded length."
    IssueKey "issue-key" "A message names an issue of a known project."
    Issue "issue" "A message's issue is one that the tracker has, of the type and in the status that the policy asks."
    Conventional "conventional" "A subject is a conventional commit's."
    Subject "subject" "A subject is one short line."
    Body "body" "A body stands apart and has lines that can be read."
    Fixup "fixup" "What is meant to be squashed is squashed before it reaches a protected branch."
    RefDelete "ref-delete" "Protected branches are not deleted."
    RefRewind "ref-rewind" "Protected branches only go forward, and tags stay."
    RefName "ref-name" "Only branches, tags and notes are pushed, and nothing that changes what others see of the rest."
    Bounds "bounds" "A push can be checked as a whole within its bounds."
    Hook "hook" "The repository's own hooks pass."
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a finding refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It does.
    Refused,
    /// It is said, and the commit may go on.
    Warned,
}

/// One thing that is not as the policy asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// Whether it refuses.
    pub level: Level,
    /// The commit, tag or ref that has it, by its short name; none for what is staged.
    pub commit: Option<String>,
    /// The file, as git has its name; none for messages and refs.
    pub path: Option<Vec<u8>>,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 for the line as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl Finding {
    /// Where it is, as `path:line:col`, with the commit before where there is one.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = String::new();
        if let Some(commit) = &self.commit {
            place.push_str(&shown(commit.as_bytes()));
            place.push_str(if self.path.is_some() { " " } else { "" });
        }
        if let Some(path) = &self.path {
            place.push_str(&shown(path));
        }
        for number in [self.line, self.column] {
            if number > 0 {
                // Writing to a String cannot fail.
                let _ = write!(place, ":{number}");
            }
        }
        place
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "rule": self.rule.name(),
            "level": match self.level { Level::Refused => "refused", Level::Warned => "warned" },
            "commit": self.commit,
            "path": self.path.as_deref().map(shown),
            "line": (self.line > 0).then_some(self.line),
            "column": (self.column > 0).then_some(self.column),
            "message": plain(&self.message),
            "fix": plain(&self.fix),
        })
    }
}

/// `path:line:col rule message; fix`, safe to show on any terminal.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, message, fix, .. } = self;
        let warned = match self.level {
            Level::Refused => "",
            Level::Warned => " (suggested)",
        };
        write!(f, "{} {rule}{warned} {}", self.place(), plain(message))?;
        if fix.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", plain(fix))
    }
}

/// How often a rule found something, kept or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Findings that refuse.
    pub refused: usize,
    /// Findings that only warn.
    pub warned: usize,
    /// Commits that have one; 0 where files of no commit are looked at.
    pub commits: usize,
    /// The last of these: a commit's findings come together.
    last: Option<String>,
}

/// What was found, in the order it was found, with a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    kept: Vec<Finding>,
    omitted: usize,
    refused: usize,
    tallies: BTreeMap<Rule, Tally>,
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.refused += usize::from(finding.level == Level::Refused);
        let tally = self.tallies.entry(finding.rule).or_default();
        match finding.level {
            Level::Refused => tally.refused += 1,
            Level::Warned => tally.warned += 1,
        }
        if finding.commit.is_some() && finding.commit != tally.last {
            tally.commits += 1;
            tally.last.clone_from(&finding.commit);
        }
        if self.kept.len() < MOST_KEPT {
            self.kept.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    /// Those kept.
    #[must_use]
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// Gives those kept another fix, where there is one.
    pub fn advise(&mut self, mut better: impl FnMut(&Finding) -> Option<String>) {
        for finding in &mut self.kept {
            if let Some(fix) = better(finding) {
                finding.fix = fix;
            }
        }
    }

    /// How often each rule found something; those that did not are missing.
    #[must_use]
    pub fn tallies(&self) -> &BTreeMap<Rule, Tally> {
        &self.tallies
    }

    /// The rules that have refused something since their tallies were these.
    #[must_use]
    pub fn rules_that_refused_since(&self, before: &BTreeMap<Rule, Tally>) -> Vec<Rule> {
        let refused = |tally: Option<&Tally>| tally.map_or(0, |tally| tally.refused);
        let now = self.tallies.iter();
        now.filter(|(rule, tally)| tally.refused > refused(before.get(rule)))
            .map(|(rule, _)| *rule)
            .collect()
    }

    /// How many there were beyond those kept.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// How many refuse, kept or not.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// How many only warn, kept or not.
    #[must_use]
    pub fn warned(&self) -> usize {
        self.kept.len() + self.omitted - self.refused
    }

    /// Whether some rule refuses.
    #[must_use]
    pub fn refuse(&self) -> bool {
        self.refused > 0
    }
}

/// A file's name for people: what is no text or could drive a terminal is written as `\xNN` or `\u{NN}`.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(&plain(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Text for people: control characters, what turns the direction of writing, and the invisible are written as escapes;
/// the end of what is too long is left out.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut safe = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == MOST_SHOWN_CHARS {
            safe.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Characters that change how others are seen (Boucher and Anderson 2021, "Trojan Source").
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{00ad}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_push_names_cannot_drive_the_terminal() {
        for (name, expected) in [
            (&b"a b"[..], "a b"),
            (b"q'uote\"", "q'uote\""),
            (b"line\nfeed", "line\\nfeed"),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            (b"latin-\xe9.txt", "latin-\\xe9.txt"),
            ("zu\u{202e}gpj.exe".as_bytes(), "zu\\u{202e}gpj.exe"),
            ("größe".as_bytes(), "größe"),
        ] {
            assert_eq!(shown(name), expected);
        }
        assert_eq!(plain(&"x".repeat(5_000)).chars().count(), MOST_SHOWN_CHARS + 1);
    }

    #[test]
    fn a_finding_is_one_line_with_its_place_and_its_fix() {
        let mut finding = Finding {
            rule: Rule::TrailingWhitespace,
            level: Level::Refused,
            commit: None,
            path: Some(b"src/a.py".to_vec()),
            line: 3,
            column: 7,
            message: "blanks at the end of the line".to_owned(),
            fix: "remove them".to_owned(),
        };
        assert_eq!(
            finding.to_string(),
            "src/a.py:3:7 trailing-whitespace blanks at the end of the line; remove them"
        );
        finding.commit = Some("1234567".to_owned());
        finding.level = Level::Warned;
        (finding.line, finding.column) = (0, 0);
        assert_eq!(
            finding.to_string(),
            "1234567 src/a.py trailing-whitespace (suggested) blanks at the end of the line; remove them"
        );
    }

    #[test]
    fn a_flood_is_counted_but_not_kept() {
        let mut findings = Findings::default();
        for line in 0..MOST_KEPT + 7 {
            findings.push(Finding {
                rule: Rule::Secret,
                level: if line % 2 == 0 { Level::Refused } else { Level::Warned },
                commit: None,
                path: None,
                line,
                column: 0,
                message: String::new(),
                fix: String::new(),
            });
        }
        assert_eq!((findings.kept().len(), findings.omitted()), (MOST_KEPT, 7));
        assert_eq!((findings.refused(), findings.warned()), (504, 503));
    }

    #[test]
    fn each_rule_is_tallied_with_the_commits_that_it_found_something_in() {
        let mut findings = Findings::default();
        let mut find = |rule, level, commit: &str| {
            findings.push(Finding {
                rule,
                level,
                commit: Some(commit.to_owned()),
                path: None,
                line: 0,
                column: 0,
                message: String::new(),
                fix: String::new(),
            });
        };
        find(Rule::Secret, Level::Refused, "a");
        find(Rule::Subject, Level::Warned, "a");
        find(Rule::Secret, Level::Refused, "a");
        find(Rule::Secret, Level::Refused, "b");
        let tallies = findings.tallies();
        let secret = &tallies[&Rule::Secret];
        assert_eq!((secret.refused, secret.warned, secret.commits), (3, 0, 2));
        let subject = &tallies[&Rule::Subject];
        assert_eq!((subject.refused, subject.warned, subject.commits), (0, 1, 1));
        assert_eq!(findings.rules_that_refused_since(&BTreeMap::new()), [Rule::Secret]);
        assert_eq!(findings.rules_that_refused_since(tallies), []);
    }

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_name_is_made_of_it_is_shown_in_one_harmless_line(name: Vec<u8>, text: String) {
            for shown in [shown(&name), shown(text.as_bytes()), plain(&text)] {
                proptest::prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)), "{shown:?}");
            }
        }
    }
}

//! A repository's `.pre-commit-config.yaml`: which of its hooks a native rule stands for, and which prek must run.

use serde_json::Value as Json;

use super::finding::{Finding, Level, Rule};
use super::policy::{Mode, Policy};
use crate::model::text::{Ink, Problems, Sources, tree};

/// Hooks of one configuration. The largest that we know has 60.
const MOST_HOOKS: usize = 500;
/// Lines of a hook's output that a finding carries.
const MOST_LINES: usize = 4;

/// A hook as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where its code comes from.
    pub repo: String,
    /// Its name there.
    pub id: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Whether anything is configured that could widen what it looks at.
    pub widened: bool,
}

impl Hook {
    fn of(repo: &Json, hook: &Json) -> Self {
        // Which files it gets, and how it is called, only narrows; these change what runs.
        let widening = ["entry", "language", "additional_dependencies", "types", "types_or"];
        Self {
            repo: text_of(&repo["repo"]),
            id: text_of(&hook["id"]),
            args: hook["args"].as_array().into_iter().flatten().map(text_of).collect(),
            widened: widening.iter().any(|key| !hook[*key].is_null()),
        }
    }
}

/// A hook that a configuration lists, as a verdict names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// The revision of the repository that it comes from; `local` or `builtin` where it has none.
    pub revision: String,
    /// Whether a native rule stands for it.
    pub native: bool,
}

/// The hooks that run before a commit by this configuration. Those that are for other stages only (`manual`, `pre-push`) are
/// left out.
///
/// # Errors
/// What is wrong with the configuration, for people.
pub fn listed(name: &str, text: &str, policy: &Policy) -> Result<Vec<Listed>, String> {
    let Some(config) = parsed(name, text)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let no_list = |what: &str| format!("{name} has no list `{what}`");
    for repo in config["repos"].as_array().ok_or_else(|| no_list("repos"))? {
        for hook in repo["hooks"].as_array().ok_or_else(|| no_list("hooks"))? {
            if !is_for_commits(hook, &config) {
                continue;
            }
            let known = Hook::of(repo, hook);
            found.push(Listed {
                native: is_native(&known, policy),
                id: known.id,
                revision: repo["rev"].as_str().unwrap_or(&known.repo).to_owned(),
            });
        }
    }
    if found.len() > MOST_HOOKS {
        return Err(format!("{name} has {} hooks; {MOST_HOOKS} are the most", found.len()));
    }
    Ok(found)
}

fn is_for_commits(hook: &Json, config: &Json) -> bool {
    let stages = hook["stages"].as_array().or(config["default_stages"].as_array());
    // `commit` is the older word.
    stages.is_none_or(|stages| stages.iter().any(|stage| stage == "pre-commit" || stage == "commit"))
}

/// A configuration as it is written; none if the text says nothing.
fn parsed(name: &str, text: &str) -> Result<Option<Json>, String> {
    let mut sources = Sources::new();
    let source = sources.add(name, text);
    let mut problems = Problems::new();
    let documents = tree::parse(&sources, source, &mut problems);
    if !problems.is_empty() {
        return Err(problems.render(&sources, Ink::Plain));
    }
    Ok(documents.first().map(tree::Node::to_json))
}

/// What prek has to run: a configuration of its own, since it fetches the repositories also of hooks that it skips.
#[derive(Debug, Clone, PartialEq)]
pub struct Rest {
    /// What the configuration is called, below the root of the checkout.
    pub name: String,
    /// The hooks that are in it.
    pub ids: Vec<String>,
    /// The configuration without those that are native.
    pub config: Json,
}

/// The hooks of a configuration that have no native rule that asks at least as much; none if there is no such hook.
///
/// # Errors
/// What is wrong with the configuration, for people.
pub fn rest(name: &str, text: &str, policy: &Policy) -> Result<Option<Rest>, String> {
    let Some(mut config) = parsed(name, text)? else {
        return Ok(None);
    };
    let mut ids = Vec::new();
    let Some(repos) = config.get_mut("repos").and_then(Json::as_array_mut) else {
        return Err(format!("{name} has no list `repos`"));
    };
    for repo in repos.iter_mut() {
        let place = repo.clone();
        let Some(hooks) = repo.get_mut("hooks").and_then(Json::as_array_mut) else {
            return Err(format!(
                "{name}: the repository {} has no list `hooks`",
                text_of(&place["repo"])
            ));
        };
        hooks.retain(|hook| !is_native(&Hook::of(&place, hook), policy));
        ids.extend(hooks.iter().map(|hook| text_of(&hook["id"])));
    }
    repos.retain(|repo| repo["hooks"].as_array().is_some_and(|hooks| !hooks.is_empty()));
    if ids.len() > MOST_HOOKS {
        return Err(format!("{name} has {} hooks; {MOST_HOOKS} are the most", ids.len()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok((!ids.is_empty()).then(|| Rest {
        name: name.to_owned(),
        ids,
        config,
    }))
}

/// The hooks of these that something has to be installed for, each in a configuration of its own.
#[must_use]
pub fn needing_environments(rest: &Rest) -> Vec<Rest> {
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let mut alone_each = Vec::new();
    for repo in list(&rest.config["repos"]) {
        for hook in list(&repo["hooks"]) {
            match code_of(&repo, &hook) {
                Code::Here => {}
                Code::Pinned | Code::Movable { .. } => alone_each.push(Rest {
                    name: rest.name.clone(),
                    ids: vec![text_of(&hook["id"])],
                    config: alone(&rest.config, &repo, &hook),
                }),
            }
        }
    }
    alone_each
}

/// A hook on its way to a full run.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Its id.
    pub id: String,
    /// The revision that it comes from; `local`, `builtin` or `meta` where it has none.
    pub revision: String,
    /// What runs it.
    pub how: How,
}

/// What runs a hook.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// A rule of ours stands for it.
    Native(Rule),
    /// prek, with a configuration that has this hook alone.
    Prek {
        /// The configuration.
        config: Json,
        /// The stage to ask for.
        stage: &'static str,
        /// Where its code comes from.
        code: Code,
    },
}

/// Where a hook's code comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// It is there already: in the commit, on the system, or in prek.
    Here,
    /// It has to be installed first, and stays what it is.
    Pinned,
    /// It has to be installed first, from a name that may mean something else tomorrow.
    Movable {
        /// The repository.
        repo: String,
        /// What it is asked for by.
        revision: String,
    },
}

/// Every hook of a configuration that looks at files, one by one.
///
/// # Errors
/// What is wrong with the configuration, for people.
pub fn plan(name: &str, text: &str, policy: &Policy) -> Result<Vec<Planned>, String> {
    let Some(config) = parsed(name, text)? else {
        return Ok(Vec::new());
    };
    let repos = config["repos"].as_array();
    let repos = repos.ok_or_else(|| format!("{name} has no list `repos`"))?;
    let mut planned = Vec::new();
    for repo in repos {
        let hooks = repo["hooks"].as_array();
        let hooks =
            hooks.ok_or_else(|| format!("{name}: the repository {} has no list `hooks`", text_of(&repo["repo"])))?;
        for hook in hooks {
            planned.extend(planned_hook(&config, repo, hook, policy));
        }
    }
    if planned.len() > MOST_HOOKS {
        return Err(format!("{name} has {} hooks; {MOST_HOOKS} are the most", planned.len()));
    }
    Ok(planned)
}

/// None for a hook that looks at no files when something is committed or pushed, or at the name of the branch, which a commit
/// does not have.
fn planned_hook(config: &Json, repo: &Json, hook: &Json, policy: &Policy) -> Option<Planned> {
    let stated = Hook::of(repo, hook);
    if stated.id == "no-commit-to-branch" {
        return None;
    }
    let stage = stage_of(if hook["stages"].is_null() {
        &config["default_stages"]
    } else {
        &hook["stages"]
    })?;
    let code = code_of(repo, hook);
    let revision = match stated.repo.as_str() {
        built_in @ ("local" | "builtin" | "meta") => built_in.to_owned(),
        _ => text_of(&repo["rev"]),
    };
    let how = match native_rule(&stated, policy) {
        Some(rule) => How::Native(rule),
        None => How::Prek {
            config: alone(config, repo, hook),
            stage,
            code,
        },
    };
    Some(Planned {
        id: stated.id,
        revision,
        how,
    })
}

/// The stage by which a hook with these stages is asked about files; without any it is asked at all of them.
fn stage_of(stages: &Json) -> Option<&'static str> {
    let Some(stages) = stages.as_array() else {
        return Some("pre-commit");
    };
    let has = |names: [&str; 2]| stages.iter().any(|s| names.contains(&s.as_str().unwrap_or_default()));
    if has(["pre-commit", "commit"]) {
        Some("pre-commit")
    } else {
        has(["pre-push", "push"]).then_some("pre-push")
    }
}

fn code_of(repo: &Json, hook: &Json) -> Code {
    let place = text_of(&repo["repo"]);
    match place.as_str() {
        "builtin" | "meta" => Code::Here,
        "local" => {
            let language = hook["language"].as_str().unwrap_or_default();
            let needs = hook["additional_dependencies"]
                .as_array()
                .is_some_and(|d| !d.is_empty());
            let here = [
                "system",
                "script",
                "unsupported",
                "unsupported_script",
                "pygrep",
                "fail",
            ];
            if here.contains(&language) && !needs {
                Code::Here
            } else {
                // What it names is in the base's own configuration.
                Code::Pinned
            }
        }
        _ => {
            let revision = text_of(&repo["rev"]);
            if revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit()) {
                Code::Pinned
            } else {
                Code::Movable { repo: place, revision }
            }
        }
    }
}

/// The configuration with this hook alone, and with what it needs to look at files that are committed: without, the large
/// file and the conflict of a commit pass in silence, since nothing is staged.
fn alone(config: &Json, repo: &Json, hook: &Json) -> Json {
    let mut hook = hook.clone();
    let more = match hook["id"].as_str() {
        Some("check-added-large-files") => Some("--enforce-all"),
        Some("check-merge-conflict") => Some("--assume-in-merge"),
        Some(_) | None => None,
    };
    if let Some(more) = more {
        let mut args = hook["args"].as_array().cloned().unwrap_or_default();
        if args.iter().all(|arg| arg != more) {
            args.push(more.into());
        }
        hook["args"] = Json::Array(args);
    }
    let mut repo = repo.clone();
    repo["hooks"] = Json::Array(vec![hook]);
    let mut config = config.clone();
    config["repos"] = Json::Array(vec![repo]);
    config
}

/// How prek says that a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was content.
    Passed,
    /// It was not.
    Failed,
    /// There was no file for it.
    Skipped,
}

/// The ends that prek's output tells of. What hooks say is indented there, so that none can speak for another.
#[must_use]
pub fn ends(output: &str) -> Vec<Ended> {
    let own = output.lines().filter(|line| !line.starts_with([' ', '-']));
    own.filter_map(|line| {
        let known = [
            ("Passed", Ended::Passed),
            ("Failed", Ended::Failed),
            ("Skipped", Ended::Skipped),
        ];
        let (_, end) = known.iter().find(|(word, _)| line.ends_with(word))?;
        line.contains('.').then_some(*end)
    })
    .collect()
}

fn text_of(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a native rule, as the policy has it, finds all that this hook would.
#[must_use]
pub fn is_native(hook: &Hook, policy: &Policy) -> bool {
    native_rule(hook, policy).is_some()
}

/// The native rule that, as the policy has it, finds all that this hook would.
#[must_use]
pub fn native_rule(hook: &Hook, policy: &Policy) -> Option<Rule> {
    let known_repo = hook.repo == "builtin"
        || hook
            .repo
            .trim_end_matches('/')
            .trim_end_matches(".git")
            .ends_with("/pre-commit/pre-commit-hooks");
    let args: Vec<&str> = hook.args.iter().map(String::as_str).collect();
    let rule = match (hook.id.as_str(), args.as_slice()) {
        ("trailing-whitespace", []) => Rule::TrailingWhitespace,
        ("end-of-file-fixer", []) => Rule::EndOfFile,
        ("mixed-line-ending", [] | ["--fix=auto" | "--fix=no"]) => Rule::LineEndings,
        ("check-yaml", []) if !policy.spec.content.yaml_syntax.multiple_documents => Rule::YamlSyntax,
        ("check-yaml", ["-m" | "--multi" | "--allow-multiple-documents" | "--unsafe"]) => Rule::YamlSyntax,
        ("check-json", []) => Rule::JsonSyntax,
        ("check-toml", []) => Rule::TomlSyntax,
        ("check-merge-conflict", [] | ["--assume-in-merge"]) => Rule::ConflictMarker,
        ("detect-private-key", []) => Rule::PrivateKey,
        ("check-executables-have-shebangs", []) => Rule::ExecutableShebang,
        ("check-shebang-scripts-are-executable", []) => Rule::ShebangExecutable,
        ("check-case-conflict", []) => Rule::CaseConflict,
        ("check-added-large-files", args)
            if limit_kib(args).is_some_and(|kib| policy.spec.content.large_file.limit_kib <= kib) =>
        {
            Rule::LargeFile
        }
        _ => return None,
    };
    (known_repo && !hook.widened && policy.mode(rule) == Mode::Mandatory).then_some(rule)
}

/// The limit that `check-added-large-files` has by these arguments, if we know all of them.
fn limit_kib(args: &[&str]) -> Option<u64> {
    let mut kib = 500;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--enforce-all" => {}
            "--maxkb" => kib = args.next()?.parse().ok()?,
            other => kib = other.strip_prefix("--maxkb=")?.parse().ok()?,
        }
    }
    Some(kib)
}

/// A hook that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its id.
    pub id: String,
    /// What prek and the hook said of it.
    pub said: String,
}

impl Failed {
    /// As a finding, with what to do about it.
    #[must_use]
    pub fn finding(self, level: Level, fix: String) -> Finding {
        let Self { id, said } = self;
        Finding {
            rule: Rule::Hook,
            level,
            commit: Some(format!("hook {id}")),
            path: None,
            line: 0,
            column: 0,
            message: said,
            fix,
        }
    }
}

/// The hooks that failed, as findings of a run that was not here.
#[must_use]
pub fn failures(output: &str, level: Level) -> Vec<Finding> {
    let failed = failed(output).into_iter();
    let fix = "in a clone `stagegate check --all` runs it, too";
    failed.map(|failed| failed.finding(level, fix.to_owned())).collect()
}

/// The hooks that failed, from what prek prints: a line that ends in `Failed`, its id, why, and what the hook said.
#[must_use]
pub fn failed(output: &str) -> Vec<Failed> {
    let mut found = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(id) = lines.peek().and_then(|next| next.strip_prefix("- hook id: ")) else {
            continue;
        };
        if !line.ends_with("Failed") {
            continue;
        }
        let id = id.to_owned();
        lines.next();
        let mut said = Vec::new();
        while let Some(more) = lines.next_if(|l| l.is_empty() || l.starts_with("- ") || l.starts_with(' ')) {
            let text = more.trim();
            if !text.is_empty() && !text.starts_with("- duration") && said.len() < MOST_LINES {
                said.push(text.trim_start_matches("- ").to_owned());
            }
        }
        found.push(Failed {
            id,
            said: said.join(" | "),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
exclude: ^vendor/
repos:
- repo: https://github.com/pre-commit/pre-commit-hooks
  rev: v6.0.0
  hooks:
  - id: trailing-whitespace
    exclude: \\.patch$
  - id: check-yaml
  - id: check-added-large-files
    args: [--maxkb=1000]
  - id: detect-private-key
    types: [python]
- repo: builtin
  hooks:
  - {id: check-yaml, args: [-m]}
  - {id: check-added-large-files, args: [--maxkb, '100']}
- repo: https://example.org/other
  hooks:
  - id: end-of-file-fixer
";

    #[test]
    fn a_hook_is_native_where_a_rule_asks_at_least_as_much() {
        let rest = |policy: &Policy| rest("c", CONFIG, policy).expect("read").expect("some");
        let left = rest(&Policy::built_in());
        let kept: Vec<(&str, Vec<&str>)> = left.config["repos"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|repo| {
                let hooks = repo["hooks"].as_array().expect("a list");
                let ids = hooks.iter().filter_map(|h| h["id"].as_str()).collect();
                (repo["repo"].as_str().expect("text"), ids)
            })
            .collect();
        assert_eq!(
            kept,
            [
                (
                    "https://github.com/pre-commit/pre-commit-hooks",
                    vec!["check-yaml", "detect-private-key"]
                ),
                ("builtin", vec!["check-added-large-files"]),
                ("https://example.org/other", vec!["end-of-file-fixer"]),
            ]
        );
        assert_eq!(left.config["exclude"], "^vendor/", "the rest of it stays");
        let head = "apiVersion: stagegate.dev/v1alpha1\nkind: CommitPolicy\nmetadata: {name: p}\n";
        let suggesting = format!("{head}spec: {{content: {{trailingWhitespace: {{mode: SUGGESTED}}}}}}\n");
        let suggesting = Policy::read("p", suggesting.as_bytes()).expect("valid");
        let what_only_warns_stands_for_nothing = rest(&suggesting).ids.contains(&"trailing-whitespace".to_owned());
        assert!(what_only_warns_stands_for_nothing);
    }

    #[test]
    fn a_configuration_that_says_nothing_is_told_from_one_that_is_wrong() {
        let policy = Policy::built_in();
        assert_eq!(rest("c", "", &policy), Ok(None));
        assert_eq!(rest("c", "repos: []\n", &policy), Ok(None));
        for text in ["repos: [\n", "a: 1\n", "repos: [{repo: x}]\n", "repos: {}\n"] {
            assert!(rest("c", text, &policy).is_err(), "{text}");
        }
    }

    #[test]
    fn hooks_are_listed_with_where_they_come_from() {
        let policy = Policy::built_in();
        let list = |text: &str| listed("c", text, &policy);
        let names: Vec<String> = list(CONFIG)
            .expect("read")
            .iter()
            .map(|hook| format!("{} {} {}", hook.id, hook.revision, hook.native))
            .collect();
        assert_eq!(
            names,
            [
                "trailing-whitespace v6.0.0 true",
                "check-yaml v6.0.0 false",
                "check-added-large-files v6.0.0 true",
                "detect-private-key v6.0.0 false",
                "check-yaml builtin true",
                "check-added-large-files builtin false",
                "end-of-file-fixer https://example.org/other false",
            ]
        );
        let staged = "default_stages: [manual]\nrepos:\n- repo: local\n  hooks:\n  - id: a\n  - {id: b, stages: [pre-commit]}\n  - {id: c, stages: [pre-push]}\n";
        let ids: Vec<String> = list(staged).expect("read").into_iter().map(|hook| hook.id).collect();
        assert_eq!(ids, ["b"]);
        for text in ["repos: [\n", "a: 1\n", "repos: [{repo: x}]\n", "repos: {}\n"] {
            assert!(list(text).is_err(), "{text}");
        }
        assert_eq!(list(""), Ok(Vec::new()));
    }

    #[test]
    fn what_prek_prints_is_findings() {
        let output = "\
trim trailing whitespace................................................Skipped
no foo here..............................................................Failed
- hook id: no-foo
- exit code: 1

  a:1:foo
fine.....................................................................Passed
writes...................................................................Failed
- hook id: writes
- files were modified by this hook
";
        let found: Vec<String> = failures(output, Level::Refused)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "hook no-foo hook exit code: 1 | a:1:foo; in a clone `stagegate check --all` runs it, too",
                "hook writes hook files were modified by this hook; in a clone `stagegate check --all` runs it, too",
            ]
        );
        assert!(failures("", Level::Refused).is_empty());
    }

    #[test]
    fn a_full_run_has_every_hook_alone_with_what_it_needs() {
        let text = format!(
            "{CONFIG}  - {{id: by-hand, stages: [manual]}}\n  - {{id: late, stages: [push]}}\n\
             - repo: https://example.org/pinned\n  rev: {}\n  hooks: [{{id: pinned}}]\n\
             - repo: local\n  hooks:\n  - {{id: here, language: system, entry: x}}\n  - {{id: there, language: python, entry: x}}\n",
            "a1".repeat(20)
        );
        let planned = plan("c", &text, &Policy::built_in()).expect("read");
        let lines: Vec<String> = planned
            .iter()
            .map(|p| match &p.how {
                How::Native(rule) => format!("{} native {rule}", p.id),
                How::Prek { config, stage, code } => {
                    let hooks = &config["repos"][0]["hooks"];
                    assert_eq!(
                        (config["repos"].as_array().map(Vec::len), hooks.as_array().map(Vec::len)),
                        (Some(1), Some(1))
                    );
                    assert_eq!(config["exclude"], "^vendor/");
                    let code = match code {
                        Code::Here => "here",
                        Code::Pinned => "pinned",
                        Code::Movable { .. } => "movable",
                    };
                    format!("{} {stage} {code} {}", p.id, hooks[0]["args"])
                }
            })
            .collect();
        assert_eq!(
            lines,
            [
                "trailing-whitespace native trailing-whitespace",
                "check-yaml pre-commit movable null",
                "check-added-large-files native large-file",
                "detect-private-key pre-commit movable null",
                "check-yaml native yaml-syntax",
                "check-added-large-files pre-commit here [\"--maxkb\",\"100\",\"--enforce-all\"]",
                "end-of-file-fixer pre-commit movable null",
                "late pre-push movable null",
                "pinned pre-commit pinned null",
                "here pre-commit here null",
                "there pre-commit pinned null",
            ]
        );
    }

    #[test]
    fn what_needs_no_environment_is_not_asked_about() {
        let text = "repos:\n- {repo: builtin, hooks: [{id: check-toml, args: [-x]}]}\n- repo: local\n  hooks:\n  \
                    - {id: here, language: system, entry: x}\n  - {id: there, language: python, entry: x}\n\
                    - {repo: https://example.org/r, rev: v1, hooks: [{id: a}, {id: b}]}\n";
        let rest = rest("c", text, &Policy::built_in()).expect("read").expect("some");
        let ids: Vec<Vec<String>> = needing_environments(&rest).into_iter().map(|one| one.ids).collect();
        assert_eq!(ids, [["there"], ["a"], ["b"]]);
    }

    #[test]
    fn what_a_hook_says_is_not_taken_for_what_prek_says() {
        let output = "a.b.......Passed\n- hook id: a\n\n  c.....Passed\nd......(no files to check)Skipped\ne.....Failed\n- Passed\nPassed\n";
        assert_eq!(ends(output), [Ended::Passed, Ended::Skipped, Ended::Failed]);
    }

    proptest::proptest! {
        #[test]
        fn any_output_and_any_configuration_is_read(text in "(?s).{0,200}") {
            let _ = (failures(&text, Level::Refused), rest("c", &text, &Policy::built_in()));
            let _ = (ends(&text), plan("c", &text, &Policy::built_in()));
        }
    }
}
